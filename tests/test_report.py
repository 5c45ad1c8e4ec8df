"""The report of a run: what its sentences claim, that its page is well-formed, self-contained and safe, its figures."""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest

from toolkit.certify.evidence import ConstraintEvidence, Evidence, SliceEvidence
from toolkit.certify.intervals import Interval
from toolkit.report.figures import front_figure, png_bytes, slices_figure
from toolkit.report.html import draw_pictures, render_html
from toolkit.report.record import RunRecord, StockPolicy
from toolkit.report.sentences import plain_sentences, summary_rows
from toolkit.report.wording import percent, signed_difference, usd_per_1000
from toolkit.zero_router import zero_router

TIERS = ("llama", "mistral", "flash", "pro")
QUALITY = (0.790, 0.926, 0.929, 0.936)
COST_USD = (2.9e-5, 4.9e-4, 9.0e-4, 1.5e-2)
NAN = float("nan")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
VOID_TAGS = {"meta", "img"}


def render(record: RunRecord) -> str:
    return render_html(record, draw_pictures(record))


def interval(mean: float, half: float = 0.01) -> Interval:
    return Interval(mean=mean, low=mean - half, high=mean + half)


def versus(gap: Interval, tiers: Sequence[str] = TIERS) -> dict[str, Interval]:
    """The same difference to every tier."""
    return dict.fromkeys(tiers, gap)


def make_slice(name: str, gap: Interval, *, n: int = 100, quality: float = 0.9, k: int = 4) -> SliceEvidence:
    tiers = TIERS if k == len(TIERS) else tuple(f"tier-{i}" for i in range(k))
    return SliceEvidence(
        name=name,
        n=n,
        quality=interval(quality),
        cost_usd=5e-4,
        tier_shares=np.full(k, 1 / k),
        tier_quality=np.linspace(0.7, 0.95, k),
        versus=versus(gap, tiers),
    )


def make_evidence(**changes: object) -> Evidence:
    evidence = Evidence(
        n=1200,
        tiers=TIERS,
        quality=interval(0.925),
        cost_usd=Interval(mean=5e-4, low=4.5e-4, high=5.5e-4),
        latency_s={},
        tier_shares=np.array([0.1, 0.8, 0.1, 0.0]),
        tier_quality=np.array(QUALITY),
        tier_cost_usd=np.array(COST_USD),
        tier_latency_p95_s=np.full(4, NAN),
        cheapest="llama",
        dearest="pro",
        best_single="pro",
        versus=versus(interval(-0.011, 0.004)),
        zero_quality=0.926,
        zero_difference=Interval(mean=0.003, low=-0.004, high=0.010),
        information=interval(0.25, 0.05),
        information_tier="pro",
        oracle_quality=0.972,
        slices=(make_slice("maths", interval(-0.05)), make_slice("chat", interval(0.0))),
        uncovered={},
        constraints=(),
    )
    return dataclasses.replace(evidence, **changes)  # type: ignore[arg-type]


def make_record(evidence: Evidence | None = None, **changes: object) -> RunRecord:
    cost = np.array([1e-4, 5e-4, 5e-3])
    hull = zero_router(np.array(COST_USD), np.array(QUALITY))
    record = RunRecord(
        title="a run",
        source="recorded: queries.parquet",
        policy="thresholds",
        scorer="kind=text",
        controller="exact",
        exactness="everything was evaluated",
        chosen_because="min_cost: cheapest point on the front",
        params={"t_1": -0.4, "t_2": 0.7, "t_3": sys.float_info.max},
        n_tune=1200,
        n_validate=1200,
        n_dropped=3,
        n_evaluations=1000,
        n_failed=0,
        seconds=0.5,
        front={"cost_usd": cost, "quality": np.array([0.85, 0.926, 0.935])},
        chosen_tune={"cost_usd": 4.9e-4, "quality": 0.926},
        zero_validate=hull,
        front_validate={"cost_usd": cost, "quality": np.array([0.84, 0.925, 0.933])},
        evidence=make_evidence() if evidence is None else evidence,
        stock_validate=None,
        stock_difference=None,
        notes=(),
    )
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]


def make_latency_record() -> RunRecord:
    """Two tiers, one slice, no costs."""
    unknown = Interval(mean=NAN, low=NAN, high=NAN)
    evidence = make_evidence(
        tiers=("small", "large"),
        cost_usd=unknown,
        latency_s={"mean": 1.0, "p50": 0.8, "p95": 2.5, "p99": 4.0},
        tier_shares=np.array([0.7, 0.3]),
        tier_quality=np.array([0.7, 0.9]),
        tier_cost_usd=np.full(2, NAN),
        tier_latency_p95_s=np.array([1.1, 6.0]),
        cheapest="small",
        dearest="large",
        best_single="large",
        versus=versus(interval(-0.05), ("small", "large")),
        zero_quality=NAN,
        zero_difference=None,
        information_tier="large",
        slices=(
            SliceEvidence(
                name="all",
                n=1200,
                quality=interval(0.85),
                cost_usd=NAN,
                tier_shares=np.array([0.7, 0.3]),
                tier_quality=np.array([0.7, 0.9]),
                versus=versus(interval(-0.05), ("small", "large")),
            ),
        ),
    )
    front = {"quality": np.array([0.72, 0.85]), "latency_p95_s": np.array([1.3, 2.6])}
    tuned = {"quality": 0.85, "latency_p95_s": 2.6}
    changes = {"front": front, "chosen_tune": tuned, "params": {"t_1": 0.5}, "zero_validate": None}
    return make_record(evidence, front_validate={}, **changes)


def make_wide_record(n_tiers: int = 11, n_slices: int = 60) -> RunRecord:
    """Many tiers with long names and many slices."""
    tiers = tuple(f"tier-{k}" for k in range(n_tiers))
    cost, quality = np.geomspace(3e-5, 2e-2, n_tiers), np.linspace(0.5, 0.9, n_tiers)
    gaps = np.linspace(-0.1, 0.1, n_slices)
    slices = tuple(
        make_slice(f"a-slice-with-quite-a-long-name-{i}", interval(gap, 0.03), k=n_tiers) for i, gap in enumerate(gaps)
    )
    evidence = make_evidence(
        tiers=tiers,
        tier_shares=np.full(n_tiers, 1 / n_tiers),
        tier_quality=quality,
        tier_cost_usd=cost,
        tier_latency_p95_s=np.full(n_tiers, NAN),
        cheapest=tiers[0],
        dearest=tiers[-1],
        best_single=tiers[-1],
        versus=versus(interval(-0.05), tiers),
        information_tier=tiers[-1],
        slices=slices,
    )
    params = {f"t_{k}": float(k) for k in range(1, n_tiers)}
    return make_record(evidence, params=params, zero_validate=zero_router(cost, quality))


@functools.cache
def default_page() -> str:
    return render(make_record())


@functools.cache
def latency_page() -> str:
    return render(make_latency_record())


def text_of(record: RunRecord) -> str:
    return "\n".join(plain_sentences(record))


class TestSentences:
    def test_every_sentence_is_one(self) -> None:
        for record in (make_record(), make_latency_record(), make_wide_record()):
            for sentence in plain_sentences(record):
                assert sentence[0].isupper() or sentence[0].isdigit()
                assert sentence.endswith(".")
                assert "nan" not in sentence

    def test_saving_against_best_single_and_dearest(self) -> None:
        record = make_record(make_evidence(best_single="flash", versus=versus(interval(-0.011, 0.004))))
        assert "the policy costs $0.500 [$0.450, $0.550] per 1,000 queries." in text_of(record)
        assert (
            "It costs 44.4 % less than the best single tier flash ($0.900), which saves $0.400 per 1,000 queries."
        ) in plain_sentences(record)
        assert "It costs 96.7 % less than the dearest tier pro ($15.00), which saves $14.50" in text_of(record)

    def test_a_dearer_policy_adds_cost(self) -> None:
        record = make_record(make_evidence(best_single="llama"))
        assert "It costs 1,624 % more than the best single and cheapest tier llama ($0.0290), which adds" in text_of(
            record
        )

    def test_difference_within_the_cost_interval_is_said(self) -> None:
        record = make_record(make_evidence(best_single="mistral", versus=versus(interval(0.0))))
        assert "It costs 2.0 % more than the best single tier mistral" in text_of(record)
        assert "a difference within the interval of its own cost." in text_of(record)

    def test_quality_loss_gain_and_no_evidence(self) -> None:
        for gap, expected in (
            (
                interval(-0.02),
                "Its quality is lower than that of the best single and dearest tier pro: -0.020 [-0.030, -0.010]",
            ),
            (
                interval(0.02),
                "Its quality is higher than that of the best single and dearest tier pro: +0.020 [+0.010, +0.030]",
            ),
            (
                interval(0.0),
                "No evidence of a difference in quality to the best single and dearest tier pro: +0.000 [-0.010",
            ),
            (interval(0.0), "a loss of up to 0.010 is not ruled out."),
            (
                Interval(mean=0, low=0, high=0),
                "On every query its quality equals that of the best single and dearest tier pro.",
            ),
        ):
            assert expected in text_of(make_record(make_evidence(versus=versus(gap))))

    def test_zero_router(self) -> None:
        expected = "No evidence that routing beats mixing tiers at random: +0.003 [-0.004, +0.010]"
        assert expected in text_of(make_record())
        gain = make_record(make_evidence(zero_difference=interval(0.02)))
        assert "Routing beats mixing tiers at random: +0.020 [+0.010, +0.030]" in text_of(gain)
        loss = make_record(make_evidence(zero_difference=interval(-0.02)))
        assert "Routing is worse than mixing tiers at random: -0.020" in text_of(loss)

    @pytest.mark.parametrize("bounds", [(0.0, 0.02), (-0.02, 0.0), (NAN, NAN)])
    def test_an_interval_that_touches_zero_is_no_evidence(self, bounds: tuple[float, float]) -> None:
        touching = Interval(mean=0.01, low=bounds[0], high=bounds[1])
        assert "No evidence that routing beats" in text_of(make_record(make_evidence(zero_difference=touching)))

    def test_cost_unknown(self) -> None:
        text = text_of(make_latency_record())
        assert "Costs are unknown" in text
        assert "$" not in text and "at random:" not in text and "cheapest" not in text and "dearest" not in text
        assert "95 % of its answers come within 2.5 s, against 6 s for the best single and last tier large." in text

    def test_cheapest_is_best(self) -> None:
        text = text_of(make_record(make_evidence(best_single="llama")))
        assert "The best single tier, llama, is also the cheapest: routing can only help by finding" in text
        assert "is also the cheapest" not in text_of(make_record())

    def test_single_tier_policy(self) -> None:
        shares = np.array([0.0, 0.995, 0.005, 0.0])
        text = text_of(make_record(make_evidence(tier_shares=shares)))
        assert "The policy sends 99.5 % of the queries to mistral: in effect it is that tier." in text
        assert "in effect" not in text_of(make_record(make_evidence(tier_shares=np.array([0.01, 0.99, 0.0, 0.0]))))

    def test_information(self) -> None:
        expected = "The score carries weak information about where pro answers better than llama: rank correlation with"
        assert expected in text_of(make_record())
        nothing = make_record(make_evidence(information=interval(0.02, 0.05)))
        assert "No evidence that the score carries information about where pro answers better than llama" in text_of(
            nothing
        )
        assert "The score points the wrong way (weak)" in text_of(
            make_record(make_evidence(information=interval(-0.2)))
        )
        constant = make_record(make_evidence(information=Interval(mean=0.0, low=-1.0, high=1.0)))
        assert "the score or the gain does not vary" in text_of(constant)

    def test_stock(self) -> None:
        stock = StockPolicy(name="LiteLLM stock boundaries", cost_usd=1.3e-3, quality=0.86)
        assert "It beats stock." in plain_sentences(
            make_record(stock_validate=stock, stock_difference="It beats stock.")
        )
        shown = "LiteLLM stock boundaries reach quality 0.860 at $1.30 per 1,000 queries on validation (no interval)."
        assert shown in plain_sentences(make_record(stock_validate=stock))


class TestConstraintSentences:
    def constrained(self, text: str, value: float, holds: bool, **changes: object) -> str:
        found = ConstraintEvidence(text=text, value=value, holds=holds)
        return text_of(make_record(make_evidence(constraints=(found,), **changes)))

    def test_missed_floor_that_was_met_on_tune(self) -> None:
        text = self.constrained("quality >= 0.92", 0.9, False, quality=interval(0.9))
        assert "The constraint quality >= 0.92 is missed on validation: 0.900 [0.890, 0.910]" in text
        assert "although it was met on the tune split (0.926)." in text

    def test_a_narrow_miss_is_not_rounded_away(self) -> None:
        text = self.constrained("quality >= 0.92", 0.9198, False, quality=interval(0.9198))
        assert "is missed on validation: 0.9198" in text
        assert "the interval contains the limit, so other queries may meet it." in text

    def test_holds_with_its_uncertainty(self) -> None:
        assert (
            "quality >= 0.92 holds on validation: 0.925 [0.915, 0.935]; the interval contains the limit, so other "
            in (self.constrained("quality >= 0.92", 0.925, True))
        )
        assert "quality >= 0.8 holds on validation: 0.925 [0.915, 0.935]." in self.constrained(
            "quality >= 0.8", 0.925, True
        )

    def test_money_is_per_1000_queries(self) -> None:
        assert "cost per 1,000 queries <= $4.00 holds on validation: $0.500 [" in self.constrained(
            "cost_usd <= 0.004", 5e-4, True
        )

    def test_slice_floor_and_unknown_value(self) -> None:
        text = self.constrained("quality[maths] >= 0.95", 0.9, False)
        assert "quality in slice maths >= 0.95 is missed on validation: 0.900 [0.890, 0.910]." in text
        text = self.constrained("quality[a slice] >= 0.9", NAN, False)
        assert "quality in slice a slice >= 0.9 cannot be judged on validation and counts as missed" in text

    def test_share_over(self) -> None:
        text = self.constrained("share_over_2s <= 0.05", 0.032, True)
        assert "share slower than 2 s <= 5.0 % holds on validation: 3.2 %." in text


class TestSliceSentences:
    def test_losses_worst_first_and_gains(self) -> None:
        slices = (
            make_slice("fair", interval(0.0)),
            make_slice("bad", interval(-0.02)),
            make_slice("worst", interval(-0.08), quality=0.6),
            make_slice("good", interval(0.04), n=40),
        )
        text = text_of(make_record(make_evidence(slices=slices)))
        assert (
            "It loses quality to pro in 2 of 4 covered slices, worst first: "
            "worst -0.080 [-0.090, -0.070] (n = 100), bad -0.020 [-0.030, -0.010] (n = 100)."
        ) in text
        assert "It gains quality over pro in 1 of 4 covered slices: good +0.040 [+0.030, +0.050] (n = 40)." in text
        assert "The worst covered slice is worst with quality 0.600 [0.590, 0.610] on 100 queries; pro alone" in text

    def test_no_loss_is_not_called_equality(self) -> None:
        slices = (make_slice("a", interval(0.0)), make_slice("b", interval(0.0)))
        text = text_of(make_record(make_evidence(slices=slices)))
        assert "It is not shown to lose quality to pro in any of the 2 covered slices." in text

    def test_many_intervals_come_with_a_warning(self) -> None:
        assert "about 3 of 60 would exclude 0 by chance" in text_of(make_wide_record())
        assert "by chance" not in text_of(make_record())

    def test_small_slices_are_named_with_counts(self) -> None:
        text = text_of(make_record(make_evidence(uncovered={"tiny": 1, "small": 12})))
        assert (
            "2 slices are too small to judge alone, and too small together: small (12 queries), tiny (1 query)." in text
        )
        merged = (make_slice("other", interval(0.0), n=31),)
        into = {"a": "other", "b": "other", "math/sums": "math", "math/sets": "math", "odd": None}
        small = {"a": 16, "b": 15, "math/sums": 20, "math/sets": 11, "odd": 2}
        text = text_of(make_record(make_evidence(slices=merged, uncovered=small, merged_into=into)))
        assert "judged only together, as other: a (16 queries), b (15 queries)." in text
        assert "judged only together, as math: math/sums (20 queries), math/sets (11 queries)." in text
        assert "1 slice is too small to judge alone, and too small together: odd (2 queries)." in text

    def test_no_covered_slice(self) -> None:
        assert "covered slice" not in text_of(make_record(make_evidence(slices=())))


class TestFormats:
    def test_money(self) -> None:
        shown = [usd_per_1000(v) for v in (0.0, 2.9e-8, 2.9e-5, 4.9e-4, 1.5e-2, 1.25, NAN)]
        assert shown == ["$0", "$0.0000290", "$0.0290", "$0.490", "$15.00", "$1,250", "unknown"]

    def test_percent(self) -> None:
        assert [percent(v) for v in (0, 1e-5, 0.456, 0.99999, 1, 16.2)] == [
            "0 %",
            "<0.1 %",
            "45.6 %",
            ">99.9 %",
            "100 %",
            "1,620 %",
        ]

    def test_a_shown_difference_never_reads_as_zero(self) -> None:
        assert signed_difference(Interval(mean=0.0003, low=0.00004, high=0.002)) == "+0.0003 [+0.00004, +0.002]"
        assert signed_difference(Interval(mean=-1e-9, low=-0.001, high=0.001)) == "+0.000 [-0.001, +0.001]"

    def test_summary_rows(self) -> None:
        floor = ConstraintEvidence(text="quality >= 0.92", value=0.925, holds=True)
        rows = dict(summary_rows(make_record(make_evidence(constraints=(floor,)))))
        assert rows["parameters"] == "t_1 = -0.4, t_2 = 0.7, t_3 = +∞"
        assert rows["quality"] == "tune 0.926, validate 0.925 [0.915, 0.935]"
        assert rows["cost per 1,000 queries"] == "tune $0.490, validate $0.500 [$0.450, $0.550]"
        assert rows["tier shares"] == "llama 10.0 %, mistral 80.0 %, flash 10.0 %, pro 0 %"
        assert rows["against mixing at random"] == "no evidence: +0.003 [-0.004, +0.010]"
        assert rows["quality >= 0.92"].startswith("holds on validation: 0.925")
        rows = dict(summary_rows(make_latency_record()))
        assert rows["p95 latency"] == "tune 2.60 s, validate 2.50 s"
        assert "cost per 1,000 queries" not in rows and "against mixing at random" not in rows


class Nesting(HTMLParser):
    """Fails on a tag that closes another one than the last opened; collects texts and references."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "action"}]
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def parse(page: str) -> Nesting:
    parser = Nesting()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without figures, for tests of their text."""
    for name in ("front_figure", "slices_figure"):
        monkeypatch.setattr(f"toolkit.report.html.{name}", lambda record: None)
    monkeypatch.setattr("toolkit.report.html.png_bytes", lambda figure: PNG_SIGNATURE)


class TestHtml:
    def test_well_formed_and_self_contained(self) -> None:
        for page in (default_page(), latency_page()):
            parsed = parse(page)
            assert "http://" not in page and "https://" not in page and "@import" not in page and "url(" not in page
            assert "script" not in parsed.tags and "link" not in parsed.tags
            assert len(parsed.references) == 2
            assert all(reference.startswith("data:image/png;base64,") for reference in parsed.references)

    def test_names_are_escaped(self, no_pictures: None) -> None:
        name = '<b>&"x'
        evidence = make_evidence(slices=(make_slice(name, interval(-0.05)),), uncovered={"<i>": 2})
        page = render(make_record(evidence, title="<script>", notes=("<u>",)))
        parsed = parse(page)
        assert not {"b", "i", "u", "script"} & parsed.tags
        assert "&lt;b&gt;&amp;&quot;x" in page
        assert name in parsed.texts

    def test_says_what_the_sentences_say(self) -> None:
        texts = {text.replace("\u00a0", " ") for text in parse(default_page()).texts}
        assert set(plain_sentences(make_record())) <= texts

    def test_unreachable_thresholds(self, no_pictures: None) -> None:
        params = {"t_1": -sys.float_info.max, "t_2": 0.7, "t_3": sys.float_info.max}
        texts = parse(render(make_record(params=params))).texts
        assert "−∞" in texts and "+∞" in texts
        assert "No query goes to pro by its score." in texts
        assert "Every query goes to mistral or a tier after it by its score, none to llama." in texts

    def test_utility_parameters(self, no_pictures: None) -> None:
        params = {"lambda": 20.0, "b_1": 0.0, "b_2": 0.01, "b_3": 0.0}
        texts = parse(render(make_record(policy="utility", params=params))).texts
        assert "Quality per USD: 0.01 of predicted quality is worth $0.500 per 1,000 queries." in texts
        assert "Added to the predicted quality of flash before tiers are compared." in texts

    def test_losses_are_marked_and_worded(self, no_pictures: None) -> None:
        assert re.search(r'<td class="loss">loss\n-0\.050 \[-0\.060, -0\.040\]</td>', default_page())
        missed = ConstraintEvidence(text="quality >= 0.95", value=0.925, holds=False)
        assert '<td class="loss">quality &gt;= 0.95 is missed</td>' in render(
            make_record(make_evidence(constraints=(missed,)))
        )

    def test_unknown_columns_are_left_out(self) -> None:
        assert "p95 latency" not in default_page()
        assert "cost per 1,000 queries" not in latency_page()

    def test_no_covered_slice(self, no_pictures: None) -> None:
        page = render(make_record(make_evidence(slices=(), uncovered={"tiny": 4})))
        assert "No slice has enough queries to be judged." in page
        assert "tiny (4 queries)" in page


class TestFigures:
    @pytest.mark.parametrize("make", [make_record, make_latency_record, make_wide_record])
    def test_png(self, make: Callable[[], RunRecord]) -> None:
        for draw in (front_figure, slices_figure):
            assert png_bytes(draw(make()), dpi=50).startswith(PNG_SIGNATURE)

    def test_equal_records_give_equal_pictures(self) -> None:
        first, second = (png_bytes(front_figure(make_record()), dpi=50) for _ in range(2))
        assert first == second

    def test_matplotlib_state_is_untouched(self) -> None:
        before, had_pyplot = dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules
        for draw in (front_figure, slices_figure):
            png_bytes(draw(make_record()), dpi=30)
        assert dict(matplotlib.rcParams) == before
        assert ("matplotlib.pyplot" in sys.modules) == had_pyplot

    def test_the_zero_router_is_a_chord_in_linear_cost(self) -> None:
        line = next(line for line in front_figure(make_record()).axes[0].lines if "Zero" in str(line.get_label()))
        x, y = np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)
        assert len(x) > 200
        assert (np.diff(x) > 0).all()
        np.testing.assert_allclose(y, np.interp(x, 1000 * np.array(COST_USD), QUALITY), atol=1e-12)

    @pytest.mark.parametrize("n_tiers", [2, 4, 11])
    def test_labels_do_not_overlap(self, n_tiers: int) -> None:
        figure = front_figure(make_wide_record(n_tiers=n_tiers, n_slices=1))
        figure.draw_without_rendering()
        boxes = [label.get_window_extent() for label in figure.axes[0].texts]
        assert len(boxes) == n_tiers
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])

    def test_any_name_can_be_drawn(self) -> None:
        names = ("$x^$", "模型", "a\nb", "\\frac{", "x" * 300, "_%#&~")
        slices = tuple(make_slice(name, interval(0.0), k=len(names)) for name in names)
        wide = make_wide_record(len(names), 1)
        gaps = versus(interval(0.0), (*names, *wide.evidence.tiers))
        evidence = dataclasses.replace(wide.evidence, tiers=names, slices=slices, versus=gaps)
        record = make_record(evidence)
        assert png_bytes(slices_figure(record), dpi=30).startswith(PNG_SIGNATURE)
        assert png_bytes(front_figure(record), dpi=30).startswith(PNG_SIGNATURE)

    def test_free_tiers_and_missing_intervals(self) -> None:
        lone = Interval(mean=0.9, low=NAN, high=NAN)
        cost = np.array([0.0, *COST_USD[1:]])
        evidence = make_evidence(tier_cost_usd=cost, quality=lone, slices=(make_slice("one", lone),))
        record = make_record(evidence, zero_validate=zero_router(cost, np.array(QUALITY)))
        for draw in (front_figure, slices_figure):
            assert png_bytes(draw(record), dpi=30).startswith(PNG_SIGNATURE)

    def test_no_slices_and_a_stock_policy(self) -> None:
        assert png_bytes(slices_figure(make_record(make_evidence(slices=()))), dpi=30).startswith(PNG_SIGNATURE)
        stock = StockPolicy(name="stock", cost_usd=1e-3, quality=0.86)
        labels = [line.get_label() for line in front_figure(make_record(stock_validate=stock)).axes[0].lines]
        assert "stock" in labels

    def test_neither_cost_nor_latency(self) -> None:
        record = dataclasses.replace(make_latency_record(), front={"quality": np.array([0.8])})
        assert png_bytes(front_figure(record), dpi=30).startswith(PNG_SIGNATURE)
        record = dataclasses.replace(record, front={"quality": np.array([0.8]), "latency_mean_s": np.array([1.0])})
        assert png_bytes(front_figure(record), dpi=30).startswith(PNG_SIGNATURE)
