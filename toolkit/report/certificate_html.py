"""The certificate on a run's page: a section that is put between two markers, where the page has them."""

from __future__ import annotations

from toolkit.report.certificate import CertificateReport
from toolkit.report.certificate_figures import draw_certificate
from toolkit.report.certificate_sentences import certificate_rows, certificate_topics
from toolkit.report.certificate_wording import margin_text, number, whole_percent
from toolkit.report.markup import Cell, Row, definitions_html, escaped, image_html, table_html
from toolkit.report.wording import percent

_OPEN, _CLOSE = "<!-- routefront:certificate -->", "<!-- /routefront:certificate -->"
_COMMAND = (
    "routefront certify run=DIR data.queries=FILE data.outcomes=FILE baseline=TIER_NAME margin=0.02 "
    "output=evidence.json"
)
_KINDS = {"pass": "gain", "fail": "loss", "undecided": "none"}
CERTIFICATE_STYLE = """
.certificate { background: #f4f4f4; border-left: 4px solid #6e6e6e; border-radius: 3px; padding: .5rem 1.2rem;
  margin: 0 0 1rem; overflow-wrap: anywhere; }
.certificate p { margin: .3rem 0; max-width: none; font-weight: 600; }
.certificate.pass { background: #e8f5f0; border-color: #009e73; }
.certificate.fail { background: #fbe9e0; border-color: #d55e00; }
pre.command { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .88rem; background: #f6f6f6;
  padding: .5rem .8rem; }
@media print { .certificate { -webkit-print-color-adjust: exact; print-color-adjust: exact; } }
"""


def certificate_section(report: CertificateReport) -> str:
    """Verdict, sentences, figure, criteria and labels as a fragment of HTML."""
    certificate = report.certificate
    (_, verdict), *topics = certificate_topics(report)
    lead = f"Policy {report.policy}, certified {report.created} on {certificate.n:,} queries."
    return "\n".join(
        [
            f"<h2>{escaped(f'Certified against {report.baseline}: {certificate.verdict}')}</h2>",
            f'<p class="soft">{escaped(lead)}</p>',
            f'<div class="certificate {certificate.verdict}">{"".join(f"<p>{escaped(s)}</p>" for s in verdict)}</div>',
            definitions_html(topics),
            image_html(draw_certificate(report), "Difference in quality to the baseline, per slice, and the margin"),
            _criteria(report),
            *_labels(report),
        ]
    )


def empty_section() -> str:
    """What stands there before anybody certified the policy."""
    said = (
        "Not certified yet: nothing here says that the policy keeps the quality of what it replaces, on data that "
        "nobody tuned on. To find out, on new labelled queries:"
    )
    return f'<h2>Certificate</h2>\n<p>{escaped(said)}</p>\n<pre class="command">{escaped(_COMMAND)}</pre>'


def certificate_slot() -> str:
    """The empty section between the markers that `with_certificate` looks for."""
    return f"{_OPEN}\n{empty_section()}\n{_CLOSE}"


def with_certificate(page: str, section: str) -> str | None:
    """The page with this section in place of the one before, or None if the page has no place for it."""
    before, opening, rest = page.partition(_OPEN)
    _, closing, after = rest.partition(_CLOSE)
    if not opening or not closing:
        return None
    return f"{before}{_OPEN}\n{section}\n{_CLOSE}{after}"


def _criteria(report: CertificateReport) -> str:
    head, cells = certificate_rows(report)
    at = head.index("verdict")
    rows: list[Row] = []
    for criterion, row in zip(report.certificate.criteria, cells, strict=True):
        rows.append([*row[:at], Cell(row[at], _KINDS[criterion.verdict]), *row[at + 1 :]])
    return table_html(head, rows)


def _labels(report: CertificateReport) -> list[str]:
    """Per slice: what its labels can show, and what the margin takes."""
    plan = report.certificate.labels
    margin = margin_text(plan)
    head = [
        "labels",
        "n",
        "share of the queries",
        "smallest loss that n can rule out",
        f"needed for {margin}",
        "missing",
    ]
    rows = [
        [s.name, f"{s.n:,}", percent(s.share), number(s.resolved), f"{s.needed:,}", f"{s.missing:,}"]
        for s in sorted(plan.slices, key=lambda s: -s.missing)
    ]
    total = (
        f"In all {plan.total:,} labelled queries at the present mix of slices: every loss of {margin} or more is then "
        f"ruled out with probability {whole_percent(plan.power)}, if nothing is lost."
    )
    return [table_html(head, rows), f'<p class="soft">{escaped(total)}</p>']
