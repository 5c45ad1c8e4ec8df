"""What a certificate says: its sentences claim what was tested and no more; page, picture, table and JSON hold."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers import make_table
from hypothesis import given
from hypothesis import strategies as st
from test_report import make_record, render

from simulators.outcomes import OutcomeTable
from toolkit.certify.certificate import certify
from toolkit.evaluation.constraints import parse_constraints
from toolkit.evaluation.slices import coverage
from toolkit.report.certificate import CertificateReport
from toolkit.report.certificate_figures import certificate_figure, draw_certificate
from toolkit.report.certificate_html import certificate_section, certificate_slot, empty_section, with_certificate
from toolkit.report.certificate_json import evidence_json
from toolkit.report.certificate_sentences import certificate_rows, certificate_sentences, certificate_topics
from toolkit.report.certificate_wording import margin_text, number

HOSTILE = '<script>alert("x")</script> & $\\frac{1}{2}$'
NAMES = tuple(f"s{i}" for i in range(8))


def planted(
    losses: Sequence[float],
    *,
    n: int = 4000,
    names: Sequence[str] = NAMES,
    shares: Sequence[float] | None = None,
    changed: float = 0.1,
    cost: bool = True,
    latency: bool = False,
    seed: int = 0,
) -> OutcomeTable:
    """Tier 0 is the policy, tier 1 the baseline: it loses `losses[s]` in slice s, and differs in a share `changed`."""
    rng = np.random.default_rng(seed)
    table = make_table(rng, n=n, k=2, cost=cost, latency=latency)  # latencies are what takes time: a bootstrap
    code = rng.choice(len(names), size=n, p=shares)
    loss, u = np.asarray(losses)[code], rng.random(n)
    lost, won = u < (changed + loss) / 2, u > 1 - (changed - loss) / 2
    same = rng.random(n) < 0.85
    quality = np.stack([(same | won) & ~lost, (same | lost) & ~won], axis=1).astype(np.float64)
    return dataclasses.replace(table, quality=quality, slices=tuple(names), slice_code=code)


def report_of(
    table: OutcomeTable,
    *,
    margin: float | None = None,
    minimum: int = 30,
    constraints: dict[str, object] | None = None,
    simulated: bool = False,
    **changes: object,
) -> CertificateReport:
    n = table.n_queries
    certificate = certify(
        table,
        np.zeros(n, dtype=np.int64),
        np.ones(n, dtype=np.int64),
        coverage=coverage(table, minimum),
        constraints=parse_constraints(constraints or {}),
        margin=margin,
        alpha=0.05,
        power=0.8,
        rng=np.random.default_rng(1),
        latency=(np.ones(n), np.full(n, 2.0)) if simulated else None,
    )
    report = CertificateReport(
        certificate=certificate,
        policy="runs/new",
        baseline="tier mistral-large",
        source="recorded: queries.parquet",
        created="2025-11-02T10:00:00Z",
    )
    return dataclasses.replace(report, **changes)  # type: ignore[arg-type]


@functools.cache
def passing() -> CertificateReport:
    table = planted([0.0] * 8, changed=0.0, latency=True)
    return report_of(table, margin=0.03, constraints={"quality_floor": 0.8})


@functools.cache
def failing() -> CertificateReport:
    table = planted([0.2, *[0.0] * 7], names=("reasoning", *NAMES[1:]), shares=[0.05, *[0.95 / 7] * 7], changed=0.2)
    return report_of(table, margin=0.15)


@functools.cache
def undecided() -> CertificateReport:
    return report_of(planted([0.0] * 8), margin=0.02)


def text_of(report: CertificateReport) -> str:
    return "\n".join(certificate_sentences(report))


class TestVerdict:
    def test_pass_says_what_is_ruled_out_and_what_holds(self) -> None:
        assert certificate_sentences(passing())[0] == (
            "PASS against tier mistral-large: a loss of 0.03 or more is ruled out over all queries and in each of 8 "
            "slices (one-sided 95 %), and quality >= 0.8 is shown to hold."
        )

    def test_pass_names_what_nothing_judges(self) -> None:
        names = (*NAMES[:7], "rare")
        table = planted([0.0] * 8, names=names, shares=[*[0.142] * 7, 0.006], changed=0.0)
        report = report_of(table, margin=0.03)
        assert report.certificate.merged == {"rare": None}
        assert re.search(r"; 1 slice with 0\.\d % of the queries is too small to be judged\.$", _first(report))

    def test_fail_names_the_slice_its_loss_and_the_correction(self) -> None:
        report = failing()
        worst = next(c for c in report.certificate.criteria if c.name == "reasoning")
        assert _first(report).startswith(
            f"FAIL against tier mistral-large: slice reasoning loses {-worst.value.mean:.3f} of quality (95 % interval "
            f"{-worst.value.high:.3f} to {-worst.value.low:.3f}), shown after correction for 9 criteria (p < 0.0001)"
        )

    def test_fail_of_everything_leads_with_all_queries(self) -> None:
        text = _first(report_of(planted([0.3] * 8, changed=0.35), margin=0.02, constraints={"quality_floor": 0.95}))
        assert re.match(r"FAIL .*: it loses 0\.\d{3} of quality over all queries", text)
        assert "also shown: slice s" in text

    def test_broken_constraint_fails(self) -> None:
        text = _first(report_of(planted([0.0] * 8, changed=0.0), margin=0.03, constraints={"quality_floor": 0.95}))
        assert re.match(r"FAIL against tier mistral-large: quality >= 0.95 is broken at 0\.8\d+ \[", text)

    def test_undecided_counts_slices_and_labels(self) -> None:
        report = undecided()
        missing = {s.name: s.missing for s in report.certificate.labels.slices}
        still_open = [c for c in report.certificate.criteria if c.kind == "slice" and c.verdict == "undecided"]
        text = _first(report)
        assert f"no loss is shown, but a loss of 0.02 is not ruled out in {len(still_open)} of 8 slices" in text
        for criterion in still_open:
            assert (
                f"{criterion.name} (up to {criterion.loss_at_most:.3f}; {missing[criterion.name]:,} more label" in text
            )

    def test_undecided_constraint_that_cannot_be_judged(self) -> None:
        report = report_of(planted([0.0] * 8, changed=0.0), margin=0.03, constraints={"p95_ceiling_s": 3.0})
        assert "whether p95 latency <= 3 s holds cannot be judged (this data has no latency_s" in _first(report)
        assert "in each of 8 slices, but whether" in _first(report)

    def test_at_most_eight_names(self) -> None:
        names = [f"t{i:02d}" for i in range(20)]
        report = report_of(planted([0.0] * 20, names=names), margin=0.01)
        assert re.search(r" and \d+ more", _first(report))
        assert len(re.findall(r"t\d\d \(up to", _first(report))) == 8


def _first(report: CertificateReport) -> str:
    return certificate_sentences(report)[0]


class TestSentences:
    def test_loss_that_the_aggregate_hides(self) -> None:
        text = text_of(failing())
        assert re.search(r"Looked at over all queries only, it would have passed: the loss hides in [45]\.\d %", text)
        assert "Looked at over all queries" not in text_of(passing())

    def test_given_margin_is_not_called_coarse(self) -> None:
        text = text_of(failing())
        assert "The margin of 0.15 was given" in text
        assert "coarse" not in text

    def test_own_margin_is_called_coarse_with_the_labels_of_a_fine_one(self) -> None:
        report = report_of(planted([0.0] * 8, n=1000))
        assert report.certificate.labels.margin > 0.05
        found = re.search(r"coarse: margin=0.02 would take about ([\d,]+) labelled queries in all", text_of(report))
        assert found is not None
        fine = report_of(planted([0.0] * 8, n=1000), margin=0.02).certificate.labels.total
        assert int(found[1].replace(",", "")) == pytest.approx(fine, rel=0.1)

    def test_own_margin_is_rounded_up(self) -> None:
        plan = report_of(planted([0.0] * 8, n=1000)).certificate.labels
        assert plan.margin <= float(margin_text(plan)) < plan.margin + 0.001

    def test_without_a_margin_a_shown_loss_over_all_queries_is_no_pass_of_the_aggregate(self) -> None:
        table = planted([0.01] * 8, n=4000, changed=0.02)
        overall = report_of(table, margin=0.06).certificate.criteria[0]
        assert max(overall.p_pass, overall.p_fail) <= 0.05
        assert evidence_json(report_of(table))["aggregate_alone"] == "fail"
        assert evidence_json(report_of(table, margin=0.06))["aggregate_alone"] == "pass"

    def test_tolerated_losses_are_named(self) -> None:
        report = report_of(planted([0.05, *[0.0] * 7], n=8000, changed=0.06), margin=0.1)
        assert report.certificate.verdict == "pass"
        assert re.search(
            r"shown but tolerated, because they lie below 0.1: .*slice s0 0\.0\d\d \(at most", text_of(report)
        )

    def test_labels_of_an_undecided_certificate(self) -> None:
        report = undecided()
        plan = report.certificate.labels
        still_open = {c.name for c in report.certificate.criteria if c.verdict == "undecided"}
        more = sum(s.missing for s in plan.slices if s.name in still_open)
        assert f"takes {plan.total:,} labelled queries in all at the present mix" in text_of(report)
        assert f"or {more:,} more labels placed in" in text_of(report)

    def test_each_constraint_is_judged(self) -> None:
        bounds = {"quality_floor": 0.8, "cost_ceiling_usd": 1e-9, "bounds": ["slice_loss:tier1 <= 0.05"]}
        text = text_of(report_of(planted([0.0] * 8), margin=0.1, constraints=bounds))
        assert re.search(r"The constraint quality >= 0\.8 is shown to hold: 0\.\d+ \[.*\], p < 0\.0001\.", text)
        assert re.search(r"The constraint cost per 1,000 queries <= \$\S+ is shown to be broken: ", text)
        assert "largest loss to tier1 in a slice <= 0.05 is" in text

    def test_unknown_costs_and_latencies_are_said(self) -> None:
        text = text_of(report_of(planted([0.0] * 8, cost=False), margin=0.1))
        assert "Costs are unknown" in text
        assert "nothing is said about latencies" in text
        assert "nan" not in text

    def test_known_costs_and_latencies(self) -> None:
        text = text_of(passing())
        assert re.search(r"It costs \$\S+ \[\S+ \S+\] per 1,000 queries, [\d.]+ % less than the baseline", text)
        assert re.search(r"p95 \S+ s against \S+ s, -\S+ s \[-", text)

    def test_simulated_latencies_carry_no_interval(self) -> None:
        text = text_of(report_of(planted([0.0] * 8), margin=0.1, simulated=True))
        assert "p95 1.00 s against 2.00 s, -1.00 s;" in text
        assert "without intervals" in text

    def test_one_slice(self) -> None:
        text = text_of(report_of(planted([0.0], names=["all"]), margin=0.1))
        assert "over all queries and in the only slice judged, all" in text
        assert "The only slice judged, all, has quality" in text

    def test_merged_slices_are_named_with_their_judge(self) -> None:
        names = ("math/algebra", "math/geometry", "code")
        report = report_of(planted([0.0] * 3, names=names, shares=[0.01, 0.008, 0.982]), margin=0.2, minimum=60)
        assert set(report.certificate.merged.values()) == {"math"}
        assert re.search(r"judged only together, as math: math/algebra \(\d+ queries\), math/geometry", text_of(report))

    def test_slice_of_one_session_has_no_bound(self) -> None:
        table = planted([0.0] * 8)
        session = np.where(table.slice_code == 0, "one", np.arange(table.n_queries).astype(str))
        report = report_of(dataclasses.replace(table, session=session), margin=0.1)
        assert "s0 (a single session or prompt, so no bound" in text_of(report)
        assert _row(report, "s0")[5] == "1.000"
        json.dumps(evidence_json(report), allow_nan=False)

    def test_attempts_are_said_from_the_second_on(self) -> None:
        assert "attempt" not in text_of(passing())
        text = text_of(dataclasses.replace(passing(), attempt=3, false_pass_at_most=0.12))
        assert "This is attempt 3" in text
        assert "a false pass in 3 attempts is at most 12 %" in text

    def test_notes_come_last(self) -> None:
        report = dataclasses.replace(passing(), notes=("12 queries were left out.",))
        assert certificate_sentences(report)[-1] == "12 queries were left out."

    def test_topics_hold_every_sentence_once(self) -> None:
        report = failing()
        flat = [s for _, sentences in certificate_topics(report) for s in sentences]
        assert flat == certificate_sentences(report)
        assert len(set(flat)) == len(flat)


def _row(report: CertificateReport, name: str) -> list[str]:
    return next(row for row in certificate_rows(report)[1] if row[0] == name)


class TestRows:
    def test_a_row_per_criterion_as_wide_as_the_header(self) -> None:
        report = passing()
        header, rows = certificate_rows(report)
        assert len(rows) == len(report.certificate.criteria)
        assert {len(row) for row in rows} == {len(header)}

    def test_labels_are_missing_only_where_something_is_open(self) -> None:
        report = undecided()
        for criterion in report.certificate.criteria:
            missing = _row(report, criterion.name)[7]
            assert missing.replace(",", "").isdigit() == (criterion.verdict == "undecided")

    def test_tolerated_is_written_into_the_verdict(self) -> None:
        report = report_of(planted([0.05, *[0.0] * 7], n=8000, changed=0.06), margin=0.1)
        assert _row(report, "s0")[6] == "pass, tolerated"


@given(st.floats(-1, 1), st.floats(0, 1))
def test_a_number_stays_on_its_side(value: float, limit: float) -> None:
    shown = float(number(value, beyond=limit))
    assert abs(shown - value) <= 0.0005 + 1e-12
    if abs(value - limit) > 1e-7:
        assert (shown > limit) == (value > limit)
        assert (shown < limit) == (value < limit)


class TestPicture:
    def test_png_is_equal_for_equal_reports(self) -> None:
        picture = draw_certificate(failing())
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        assert picture == draw_certificate(dataclasses.replace(failing()))

    def test_margin_zero_line_verdicts_and_counts(self) -> None:
        report = failing()
        axes = certificate_figure(report).axes[0]
        upright = {line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1}
        assert {0.0, -0.15} <= upright
        texts = [text.get_text() for text in axes.texts]
        assert texts.count("fail") == 1
        assert f"n = {report.certificate.n:,}" in texts

    @pytest.mark.parametrize(("slices", "lines"), [(25, 26), (26, 25), (40, 25)])
    def test_many_slices_show_the_worst(self, slices: int, lines: int) -> None:
        names = [f"t{i:02d}" for i in range(slices)]
        losses = [0.3, *[0.0] * (slices - 1)]
        report = report_of(planted(losses, names=names, n=6000, changed=0.3), margin=0.25)
        axes = certificate_figure(report).axes[0]
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert len(labels) == lines
        assert labels[:2] == ["all queries", "t00"]
        more = [text.get_text() for text in axes.texts if " more " in text.get_text()]
        assert bool(more) == (slices > 25)
        assert sum(int(n) for n in re.findall(r"(\d+) more", " ".join(more))) == slices + 1 - lines

    def test_hostile_and_long_names(self) -> None:
        report = report_of(planted([0.0] * 2, names=(HOSTILE, "x" * 300)), margin=0.1, baseline=HOSTILE)
        assert draw_certificate(report)


class _Tags(HTMLParser):
    """Opened and closed tags; fails where they do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in {"img", "meta"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


class TestHtml:
    @pytest.mark.parametrize("build", [passing, failing, undecided])
    def test_verdict_colours_the_box(self, build) -> None:  # type: ignore[no-untyped-def]
        report = build()
        section = certificate_section(report)
        verdict = report.certificate.verdict
        assert f"<h2>Certified against tier mistral-large: {verdict}</h2>" in section
        assert f'<div class="certificate {verdict}"><p>{verdict.upper()} against' in section
        tags = _Tags()
        tags.feed(section)
        assert tags.open == []
        assert {"table", "img", "dl"} <= tags.seen

    def test_hostile_names_are_escaped(self) -> None:
        table = planted([0.0] * 2, names=(HOSTILE, "<!-- /routefront:certificate -->"))
        changes = {"policy": HOSTILE, "source": HOSTILE, "notes": (HOSTILE,), "created": HOSTILE}
        section = certificate_section(report_of(table, margin=0.1, baseline=HOSTILE, **changes))
        assert "<script" not in section
        assert "<!--" not in section
        assert "&lt;script&gt;" in section

    def test_a_page_takes_one_certificate_after_the_other(self) -> None:
        page = render(make_record())
        assert page.count(empty_section()) == 1
        once = with_certificate(page, "<p>first</p>")
        assert once is not None
        assert once == page.replace(empty_section(), "<p>first</p>")
        assert with_certificate(once, "<p>first</p>") == once
        assert with_certificate(once, empty_section()) == page

    def test_section_is_taken_as_it_is(self) -> None:
        section = r"<p>\1 \g<0> $1</p>"
        assert with_certificate(f"a{certificate_slot()}b", section) == (
            f"a<!-- routefront:certificate -->\n{section}\n<!-- /routefront:certificate -->b"
        )

    @pytest.mark.parametrize(
        "page", ["", "<html></html>", "<!-- routefront:certificate -->", "<!-- /routefront:certificate -->"]
    )
    def test_a_page_without_a_place_is_left_alone(self, page: str) -> None:
        assert with_certificate(page, "<p>x</p>") is None

    def test_empty_section_says_what_to_run(self) -> None:
        assert "Not certified yet" in empty_section()
        assert "routefront certify run=DIR" in empty_section()


class TestJson:
    @pytest.mark.parametrize("build", [passing, failing, undecided])
    def test_figures_and_no_nan(self, build) -> None:  # type: ignore[no-untyped-def]
        report = build()
        found = json.loads(json.dumps(evidence_json(report), allow_nan=False))
        assert found["schema_version"] == 1
        assert found["verdict"] == report.certificate.verdict
        assert found["sentences"] == certificate_sentences(report)
        assert [c["name"] for c in found["criteria"]] == [c.name for c in report.certificate.criteria]
        assert found["labels"]["total_needed"] == report.certificate.labels.total
        assert set(found["labels"]["slices"]["s1"]) == {"n", "share", "sd", "needed", "missing", "resolved"}
        assert set(found["latency_s"]) == ({"p50", "p95", "p99"} if report is passing() else set())

    def test_unknown_is_null(self) -> None:
        report = report_of(planted([0.0] * 8, cost=False), constraints={"p95_ceiling_s": 1.0})
        found = json.loads(json.dumps(evidence_json(report), allow_nan=False))
        assert found["cost_usd"] == {"mean": None, "low": None, "high": None}
        assert found["latency_s"] == {}
        bound = found["criteria"][-1]
        assert bound["value"]["mean"] is None
        assert bound["note"]
        assert "difference" not in bound

    def test_aggregate_alone_differs_where_a_loss_hides(self) -> None:
        found = evidence_json(failing())
        assert (found["verdict"], found["aggregate_alone"]) == ("fail", "pass")

    def test_merged_slices(self) -> None:
        names = ("math/algebra", "math/geometry", "code")
        report = report_of(planted([0.0] * 3, names=names, shares=[0.01, 0.008, 0.982]), margin=0.2, minimum=60)
        merged = evidence_json(report)["merged"]
        counts = report.certificate.counts
        assert merged == {name: {"n": counts[name], "judged_as": "math"} for name in names[:2]}
