"""One self-contained page on one run: no script, no external resource, figures embedded as PNG.

Names of tiers and slices are user data: every text goes through `escaped`, and only there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from toolkit.certify.evidence import Evidence, SliceEvidence
from toolkit.report.certificate_html import CERTIFICATE_STYLE, certificate_slot
from toolkit.report.choice import choice_section
from toolkit.report.deployment import deployment_figure, deployment_section
from toolkit.report.diagnostics_html import diagnostics_pictures, diagnostics_sections
from toolkit.report.figures import front_figure, png_bytes, slices_figure
from toolkit.report.labels import label_section
from toolkit.report.lanes_html import lane_section
from toolkit.report.loads import loads_figure, loads_section
from toolkit.report.markup import (
    Cell,
    Row,
    definitions_html,
    escaped,
    image_html,
    shown_value,
    table_html,
    verdict_cell,
)
from toolkit.report.parameters import flat_range, meaning, step_change
from toolkit.report.record import RunRecord
from toolkit.report.sentences import sentences_by_topic, small_slices
from toolkit.report.wording import (
    column_label,
    constraint_column,
    constraint_label,
    has_costs,
    on_validation,
    parameter_value,
    percent,
    roles,
    with_interval,
)

_POLICY = "this policy"
_MOST_SHARES = 4
_READING = (
    "Every figure of the policy is from the validation split, which neither the scorer nor the search has seen. "
    "Intervals are 95 %; two policies are compared query by query (paired), slices one at a time.",
    "A difference whose interval contains 0 is no evidence, in either direction. The oracle picks the best tier of "
    "each query with hindsight and bounds every router from above.",
    "The Zero router sends queries to tiers at random in the best proportions that cost as much as the policy: what "
    "anybody can have without looking at a prompt.",
)
_STYLE = """
:root { color-scheme: light; --ink: #1d2327; --soft: #5b6670; --line: #d9dee3; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: #fff;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
p { margin: .4rem 0 .8rem; max-width: 50rem; }
.soft { color: var(--soft); font-size: .92rem; overflow-wrap: anywhere; }
.verdict { background: #f3f7fa; border-left: 4px solid #0072b2; border-radius: 3px; padding: .5rem 1.2rem;
  margin: 1.2rem 0; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .5rem 1.2rem; margin: .7rem 0; }
dt { font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
dd p { margin: 0 0 .3rem; max-width: none; }
.wide { overflow-x: auto; margin: .5rem 0 1rem; }
img { display: block; width: 100%; min-width: 34rem; max-width: 56rem; height: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { padding: .36rem .7rem .36rem .4rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; vertical-align: bottom;
  min-width: 5.5rem; }
tbody th { font-weight: 600; min-width: 11rem; max-width: 18rem; overflow-wrap: anywhere; background: #fff;
  position: sticky; left: 0; }
td.prose { white-space: normal; min-width: 15rem; }
tr.policy, tr.policy th { background: #eaf3f9; }
td.loss, td.gain, td.none, td.lines { white-space: pre; }
td.loss { background: #fbe9e0; color: #a63d00; font-weight: 600; }
td.gain { color: #00684c; font-weight: 600; }
td.none { color: var(--soft); }
@media (max-width: 36rem) { dl { grid-template-columns: minmax(0, 1fr); gap: .1rem; } dd { margin-bottom: .5rem; }
  tbody th { min-width: 9rem; } }
@media print {
  body { max-width: none; padding: 0; font-size: 9.5pt; }
  .wide { overflow: visible; }
  img { min-width: 0; max-height: 23cm; object-fit: contain; object-position: left; }
  table { font-size: 8pt; }
  td, td.loss, td.gain, td.none { white-space: pre-line; }
  tbody th { position: static; }
  th, td { padding-right: .5rem; }
  tbody th, td.prose { min-width: 0; }
  tr, img { break-inside: avoid; }
  h2 { break-after: avoid; }
  td.loss, tr.policy, .verdict { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""


def draw_pictures(record: RunRecord) -> dict[str, bytes]:
    """The page's figures as PNG, by name: `front`, `slices`, and `score` and `gap` where the record holds them."""
    pictures = {"front": png_bytes(front_figure(record)), "slices": png_bytes(slices_figure(record))}
    if record.loads:
        pictures["loads"] = png_bytes(loads_figure(record.loads))
    if record.deployment is not None:
        pictures["deployment"] = png_bytes(deployment_figure(record.deployment))
    return pictures | diagnostics_pictures(record)


def render_html(record: RunRecord, pictures: Mapping[str, bytes]) -> str:
    """The whole page, with the pictures that `draw_pictures` drew inside."""
    lead = f"Tuned on {record.n_tune:,} queries, judged on {record.n_validate:,} others. {record.source}"
    body = [
        f"<h1>{escaped(record.title)}</h1>",
        f'<p class="soft">{escaped(lead)}</p>',
        certificate_slot(),
        f'<section class="verdict">{definitions_html(sentences_by_topic(record))}</section>',
        "<h2>Where the policy stands</h2>",
        image_html(
            pictures["front"],
            "Quality against cost or latency of the policies, single tiers and chosen point",
        ),
        *_chosen_section(record),
        *deployment_section(record, pictures.get("deployment")),
        *choice_section(record),
        *loads_section(record.loads, pictures.get("loads")),
        *_parameter_section(record),
        *_comparison_section(record),
        *_slice_section(record, pictures["slices"]),
        *lane_section(record.evidence),
        *label_section(record),
        *diagnostics_sections(record, pictures),
        *_provenance_section(record),
    ]
    return page_html(record.title, body)


def page_html(title: str, body: Sequence[str]) -> str:
    """A whole page in the style of all reports; `body` is HTML."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        f"<title>{escaped(title)} – routefront</title>",
        f"<style>{_STYLE}{CERTIFICATE_STYLE}</style>",
    ]
    parts = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", *body, "</body>", "</html>"]
    return "\n".join(parts) + "\n"


def _chosen_section(record: RunRecord) -> list[str]:
    """Tune against validation, and the constraints."""
    evidence = record.evidence
    rows: list[Row] = []
    for column in dict.fromkeys((*record.chosen_tune, *map(constraint_column, evidence.constraints))):
        tuned = shown_value(column, record.chosen_tune.get(column, np.nan))
        validated = with_interval(on_validation(evidence, column), partial(shown_value, column))
        rows.append([column_label(column), tuned, validated, _bound_cell(evidence, column)])
    return [
        "<h2>The chosen point, tuned and validated</h2>",
        f'<p class="soft">{escaped(f"Chosen by {record.chosen_because}.")}</p>',
        table_html(["figure", "tune split", "validation split, 95 % interval", "constraint"], rows),
    ]


def _bound_cell(evidence: Evidence, column: str) -> str | Cell:
    bounds = [c for c in evidence.constraints if constraint_column(c) == column]
    if not bounds:
        return ""
    text = "; ".join(f"{constraint_label(c)} {'holds' if c.holds else 'is missed'}" for c in bounds)
    return Cell(text, "none" if all(c.holds for c in bounds) else "loss")


def _parameter_section(record: RunRecord) -> list[str]:
    """Value, meaning and sensitivity of each parameter."""
    found = {s.name: s for s in record.sensitivity}
    header = ["name", "value", "what it means"]
    rows: list[Row] = []
    for name, value in record.params.items():
        row: list[str | Cell] = [name, parameter_value(value), Cell(meaning(record, name), "prose")]
        if found:
            s = found.get(name)
            row += [flat_range(s), *(Cell(step_change(s, up=up), "lines") for up in (False, True))]
        rows.append(row)
    if not found:
        return ["<h2>Parameters</h2>", table_html(header, rows)]
    said = (
        "On the tune split, one parameter at a time. Range: quality loses at most 0.005, cost and latency rise by at "
        "most 5 %, constraints that hold go on holding (≤ and ≥: the last step tried, 20 % of the traffic or of the "
        "range away, is still inside). A step is 1 % of the traffic for a boundary, 1 % of the range for others."
    )
    header += ["range that changes little", "a step down", "a step up"]
    return ["<h2>Parameters</h2>", table_html(header, rows), f'<p class="soft">{escaped(said)}</p>']


def _comparison_section(record: RunRecord) -> list[str]:
    """Single tiers, the policy, the Zero router and the stock policy side by side."""
    evidence, names = record.evidence, roles(record.evidence)
    rows: list[Row] = []
    for k, tier in enumerate(evidence.tiers):
        gap = verdict_cell(evidence.versus[tier]) if tier in evidence.versus else ""
        figures = _figures(evidence.tier_quality[k], evidence.tier_cost_usd[k], evidence.tier_latency_p95_s[k])
        rows.append([tier, names.get(tier, ""), *figures, gap])
    latency = shown_value("latency_p95_s", evidence.latency_s.get("p95", np.nan))
    cost = with_interval(evidence.cost_usd, partial(shown_value, "cost_usd"))
    rows.append([_POLICY, "", with_interval(evidence.quality), cost, latency, ""])
    if evidence.zero_difference is not None:
        figures = _figures(evidence.zero_quality, evidence.cost_usd.mean, np.nan)
        rows.append(
            ["Zero router at equal cost", "mixes tiers at random", *figures, verdict_cell(evidence.zero_difference)]
        )
    if (stock := record.stock_validate) is not None:
        rows.append([stock.name, "stock policy", *_figures(stock.quality, stock.cost_usd, np.nan), ""])
    rows.append(["oracle", "best tier per query", *_figures(evidence.oracle_quality, np.nan, np.nan), ""])
    head = ["", "role", "quality", "cost per 1,000 queries", "p95 latency", "policy's quality minus this one's"]
    stock_line = [f"<p>{escaped(record.stock_difference)}</p>"] if record.stock_difference is not None else []
    return [
        "<h2>Against single tiers and random mixing, validation split</h2>",
        table_html(head, rows, highlighted=_POLICY),
        *stock_line,
    ]


def _figures(quality: float, cost_usd: float, latency_s: float) -> list[str]:
    return [shown_value("quality", quality), shown_value("cost_usd", cost_usd), shown_value("latency_p95_s", latency_s)]


def _slice_section(record: RunRecord, picture: bytes) -> list[str]:
    evidence, names = record.evidence, roles(record.evidence)
    if not evidence.slices:
        return ["<h2>Slices</h2>", "<p>No slice has enough queries to be judged.</p>", *_small_slices(evidence)]
    ordered = sorted(evidence.slices, key=lambda s: s.versus[evidence.best_single].mean)
    gaps = [f"difference to {tier} ({role})" for tier, role in names.items()]
    return [
        "<h2>Slices</h2>",
        image_html(picture, "Per slice, difference to the best single tier and tier shares"),
        table_html(
            ["slice", "queries", "quality", *gaps, "cost per 1,000 queries", "tier shares"],
            [_slice_row(s, evidence) for s in ordered],
        ),
        *_small_slices(evidence),
    ]


def _slice_row(found: SliceEvidence, evidence: Evidence) -> list[str | Cell]:
    gaps = [verdict_cell(found.versus[tier]) for tier in roles(evidence)]
    shares = Cell(_shares(found, evidence.tiers), "lines")
    cost = shown_value("cost_usd", found.cost_usd)
    return [found.name, f"{found.n:,}", with_interval(found.quality), *gaps, cost, shares]


def _shares(found: SliceEvidence, tiers: tuple[str, ...]) -> str:
    """The tiers by falling share; the figure shows all, the table the largest few."""
    ordered = [int(k) for k in np.argsort(-found.tier_shares, kind="stable") if found.tier_shares[k] > 0]
    shown = [f"{tiers[k]} {percent(float(found.tier_shares[k]))}" for k in ordered[:_MOST_SHARES]]
    rest = [float(found.tier_shares[k]) for k in ordered[_MOST_SHARES:]]
    return "\n".join(shown + ([f"{len(rest)} more {percent(sum(rest))}"] if rest else []))


def _small_slices(evidence: Evidence) -> list[str]:
    return [f'<p class="soft">{escaped(sentence)}</p>' for sentence in small_slices(evidence)]


def _provenance_section(record: RunRecord) -> list[str]:
    evaluations = f"{record.n_evaluations:,}, evaluated in {record.seconds:.3g} s; {record.n_failed:,} failed"
    queries = f"{record.n_tune:,} to tune, {record.n_validate:,} to validate, {record.n_dropped:,} dropped"
    entries: list[tuple[str, Sequence[str]]] = [
        ("Data", [record.source]),
        ("Queries", [queries]),
        ("Policy", [record.policy]),
        ("Scorer", [record.scorer]),
        ("Controller", [record.controller]),
        ("Exactness", [record.exactness]),
        ("Evaluations", [evaluations]),
        ("Notes", record.notes or ("none",)),
        ("How to read", _READING if has_costs(record) else _READING[:2]),
    ]
    return ["<h2>Provenance</h2>", definitions_html(entries)]
