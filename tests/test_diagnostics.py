"""Diagnostics of a score: known answers, honest intervals, what is said of them, and the command from end to end."""

import dataclasses
import json

import numpy as np
import pytest
from helpers import make_table, run_cli, write_recording
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from sklearn.metrics import average_precision_score, roc_auc_score

from toolkit.certify.diagnostics import best_gain, diagnose, signal_of
from toolkit.certify.discrimination import _Ladder, auc_interval, average_precision_interval
from toolkit.certify.hindsight import mean_figures
from toolkit.certify.intervals import Interval
from toolkit.certify.reliability import equal_mass_bins, reliability
from toolkit.evaluation.metrics import Metric
from toolkit.evaluation.slices import coverage
from toolkit.families.make import policy_family
from toolkit.policies.lanes import Lanes
from toolkit.problem import RoutingProblem
from toolkit.report.diagnostics_figures import score_figure
from toolkit.report.diagnostics_html import step_rows
from toolkit.report.diagnostics_sentences import score_headline, score_sentences
from toolkit.report.figures import png_bytes
from toolkit.scorers.base import ScoreTable
from toolkit.search.exact import ExactController
from toolkit.zero_router import zero_router_of

LANES = Lanes(fallback_tier=0, low_confidence_tier=0)


def labels(rng, score, slope=1.0):
    return rng.random(len(score)) < special.expit(slope * score)


def each(n):
    return np.arange(n)


# --- ranking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_auc_and_average_precision_are_those_of_scikit_learn(decimals):
    rng = np.random.default_rng(0)
    score = np.round(rng.normal(size=400), decimals)
    label = labels(rng, score)
    assert auc_interval(score, label, each(400)).mean == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    found = average_precision_interval(score, label, each(400), rng, resamples=50)
    assert found.mean == pytest.approx(average_precision_score(label, score), abs=1e-12)
    weights = rng.integers(0, 4, (3, 400)).astype(float)
    ours = _Ladder(score, label).average_precision(weights)
    theirs = [average_precision_score(label, score, sample_weight=w) for w in weights]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_a_perfect_score_has_area_1_and_still_an_interval():
    label = each(60) < 20
    found = auc_interval(label.astype(float), label, each(60))
    assert found.mean == found.high == 1.0 and 0.85 < found.low < 0.97
    wrong = auc_interval(1.0 - label, label, each(60))
    assert wrong.mean == wrong.low == 0.0 and wrong.high == pytest.approx(1 - found.low)


def test_a_random_score_covers_one_half():
    covered = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        found = auc_interval(rng.normal(size=100), rng.random(100) < 0.3, each(100))
        covered.append(found.low <= 0.5 <= found.high)
    assert np.mean(covered) >= 0.91


@pytest.mark.slow
@pytest.mark.parametrize(("n", "shift"), [(60, 0.5), (60, 2.5), (300, 1.0)])
def test_intervals_of_area_cover_the_truth_with_repeats_too(n, shift):
    truth, alone, together = stats.norm.cdf(shift / np.sqrt(2)), [], []
    for seed in range(600):
        rng = np.random.default_rng(seed)
        label = rng.random(n) < 0.3
        score = rng.normal(size=n) + shift * label
        group = np.repeat(each(n), rng.integers(1, 6, n))
        for found, where in ((auc_interval(score, label, each(n)), alone),
                             (auc_interval(score[group], label[group], group), together)):  # fmt: skip
            where.append(found.low <= truth <= found.high)
    assert min(np.mean(alone), np.mean(together)) >= 0.92


def test_repeats_of_a_prompt_count_once():
    rng = np.random.default_rng(1)
    score = rng.normal(size=150)
    label = labels(rng, score)
    four = np.repeat(each(150), 4)
    once, clustered = auc_interval(score, label, each(150)), auc_interval(score[four], label[four], four)
    naive = auc_interval(score[four], label[four], each(600))
    assert clustered.high - clustered.low == pytest.approx(once.high - once.low, rel=0.05)
    assert naive.high - naive.low < 0.6 * (once.high - once.low)


def test_one_kind_of_label_gives_no_figure():
    assert np.isnan(auc_interval(each(9) * 1.0, np.ones(9, bool), each(9)).mean)
    rng = np.random.default_rng(0)
    assert np.isnan(average_precision_interval(each(9) * 1.0, np.zeros(9, bool), each(9), rng).mean)


# --- calibration ------------------------------------------------------------------------------------------------------


def test_right_probabilities_are_off_by_chance_alone():
    off, chance, gain = [], [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        p = rng.uniform(0.1, 0.9, 400)
        found = reliability("platt", p, rng.random(400) < p, each(400), base_rate=0.5)
        off.append(found.ece)
        chance.append(found.ece_by_chance)
        gain.append(found.brier_gain.mean)
    assert np.mean(off) == pytest.approx(np.mean(chance), rel=0.1)
    assert np.mean(gain) == pytest.approx(0.8**2 / 12, rel=0.1)


def test_wrong_probabilities_are_off_by_what_they_are_off():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.3, 0.6, 5000)
    found = reliability("platt", p + 0.2, rng.random(5000) < p, each(5000), base_rate=0.45)
    assert found.ece == pytest.approx(0.2, abs=0.02) and found.brier_gain.verdict == "loss"
    assert sum(b.n for b in found.bins) == found.n == 5000
    assert all(b.observed.low <= b.observed.mean <= b.observed.high for b in found.bins)


@given(
    values=st.lists(st.one_of(st.floats(-1, 1), st.sampled_from([0.0, 0.5])), min_size=1, max_size=200),
    n_bins=st.integers(1, 12),
)
@settings(max_examples=60, deadline=None)
def test_bins_keep_order_and_ties_together(values, n_bins):
    x = np.array(values)
    code = equal_mass_bins(x, n_bins)
    assert set(code.tolist()) == set(range(int(code.max()) + 1)) and code.max() < n_bins
    order = np.argsort(x, kind="stable")
    assert (np.diff(code[order]) >= 0).all()
    assert all(len(set(code[x == v].tolist())) == 1 for v in np.unique(x))
    sizes = np.bincount(code)
    assert len(sizes) == 1 or sizes.min() >= len(x) / n_bins / 2


# --- what no boundary can tell apart ----------------------------------------------------------------------------------


def test_shared_and_missing_scores_are_counted():
    score = np.concatenate([np.zeros(30), np.full(10, np.nan), np.linspace(1, 2, 60)])
    found = signal_of(score)
    assert (found.n, found.n_distinct, found.common_score) == (100, 61, 0.0)
    assert (found.missing_share, found.common_share) == (pytest.approx(0.1), 0.3)


def test_scores_that_differ_in_their_last_bits_are_one():
    found = signal_of(np.array([0.1 + 0.2, 0.3, 0.3, 0.9]))
    assert (found.n_distinct, found.common_share) == (2, 0.75)
    nothing = signal_of(np.full(4, np.nan))
    assert (nothing.missing_share, nothing.n_distinct, nothing.common_share) == (1.0, 0, 0.0)


# --- the best gain ----------------------------------------------------------------------------------------------------


def split_table(n=400, k=3, seed=0, **changes):
    table = make_table(np.random.default_rng(seed), n=n, k=k, **changes)
    return table.take(np.arange(0, n, 2)), table.take(np.arange(1, n, 2))


def families(tune, validate, name="difficulty", score=None):
    """Threshold families of both halves on a signal, or on scores made from a table."""
    make = (lambda t: t.queries.signals[name]) if score is None else score
    found = [policy_family("thresholds", ScoreTable(score=make(t)), LANES, t.n_tiers) for t in (tune, validate)]
    return {"family": found[0], "validate_family": found[1]}


def gain_of_score(table):
    return table.quality[:, -1] - table.quality[:, 0]


@pytest.mark.parametrize("seed", range(4))
def test_the_best_gain_is_that_of_an_enumeration(seed):
    tune, validate = split_table(80, seed=seed)
    both = families(tune, validate)
    problem = RoutingProblem(
        table=tune, family=both["family"], objectives=(Metric("quality"),), constraints=(), coverage=coverage(tune, 2)
    )
    exact, blocks = ExactController(problem, boundaries="all", max_evaluations=10_000), []
    while (part := exact.ask()) is not None:
        blocks.append(part)
    quality, cost = mean_figures(tune, both["family"], np.concatenate(blocks))
    hull = zero_router_of(tune)
    gains = [q - hull.quality_at(c) for q, c in zip(quality, cost, strict=True) if c >= hull.cost_usd[0]]
    found = best_gain(tune, validate, **both)
    assert found.tune == pytest.approx(max(gains), abs=1e-12) and found.over == "zero router"


def test_a_perfect_score_gains_as_much_as_the_oracle_and_noise_gains_nothing():
    tune, validate = split_table(2000, k=2)
    perfect = best_gain(tune, validate, **families(tune, validate, score=gain_of_score))
    assert perfect.validate.verdict == "gain" and perfect.validate.mean == pytest.approx(perfect.oracle, rel=0.15)
    rng = np.random.default_rng(0)
    noise = best_gain(tune, validate, **families(tune, validate, score=lambda t: rng.normal(size=t.n_queries)))
    assert noise.validate.verdict == "no evidence" and noise.oracle > 0.02


def test_a_utility_is_judged_on_its_path():
    tune, validate = split_table(600)
    both = [
        policy_family("utility", ScoreTable(score=t.quality[:, 0], quality=t.quality, cost_usd=t.cost_usd), LANES, 3)
        for t in (tune, validate)
    ]
    found = best_gain(tune, validate, both[0], both[1])
    assert found.policy == "utility" and found.validate.verdict == "gain"
    assert found.validate.mean == pytest.approx(found.oracle, abs=1e-3)  # it predicts what it is judged by


def test_without_costs_the_gain_is_over_the_best_single_tier():
    tune, validate = split_table(600, cost=False)
    found = best_gain(tune, validate, **families(tune, validate, score=lambda t: -t.quality[:, 0]))
    assert found.over == "best single tier" and np.isnan(found.cost_usd)
    assert found.oracle == pytest.approx(found.oracle_at_any_cost, abs=0.01)


# --- all of it, and what is said --------------------------------------------------------------------------------------


def found_for(tune, validate, **score):
    rng = np.random.default_rng(0)
    return diagnose(tune, validate, **families(tune, validate, **score), margin=0.05, rng=rng)


def test_every_step_is_judged_and_the_same_generator_gives_the_same_figures():
    tune, validate = split_table(800)
    first, again = found_for(tune, validate), found_for(tune, validate)
    assert json.dumps(first.as_dict()) == json.dumps(again.as_dict())
    assert [(s.low, s.high) for s in first.steps] == [("tier0", "tier1"), ("tier1", "tier2"), ("tier0", "tier2")]
    assert first.main is first.steps[2] and first.main.auc.low > 0.6
    assert [c.method for c in first.main.calibration] == ["platt", "isotonic"]
    assert all(c.brier_gain.verdict == "gain" for c in first.main.calibration)
    assert sum(band.n for band in first.bands) == validate.n_queries
    assert first.main.better + first.main.worse <= 1


def test_calibrators_are_fitted_on_tune_alone():
    tune, validate = split_table(800)
    before = found_for(tune, validate).main.calibration[0]
    changed = dataclasses.replace(validate, quality=validate.quality[:, ::-1].copy(), _hash=[])
    after = found_for(tune, changed).main.calibration[0]
    assert [b.predicted for b in before.bins] == [b.predicted for b in after.bins]
    assert before.brier < after.brier


def test_a_step_without_two_kinds_says_why():
    tune, validate = split_table(200, k=2)
    flat = [dataclasses.replace(t, quality=np.full((t.n_queries, 2), 0.5), _hash=[]) for t in (tune, validate)]
    found = found_for(*flat)
    assert np.isnan(found.main.auc.mean) and "on no query" in found.main.reason
    assert any("Nothing to rank" in s and "on no query" in s for s in score_sentences(found))
    assert "–" in step_rows(found)[0]
    better = [dataclasses.replace(t, quality=np.tile([0.2, 0.9], (t.n_queries, 1)), _hash=[]) for t in (tune, validate)]
    assert "on every query" in found_for(*better).main.reason


def test_queries_without_a_score_are_left_out_and_said():
    tune, validate = split_table(400)

    def half(table):
        return np.where(np.arange(table.n_queries) % 2 == 0, np.nan, table.queries.signals["difficulty"])

    found = found_for(tune, validate, score=half)
    assert found.main.n == 100 and found.signal.missing_share == 0.5
    assert any(s.startswith("50.0 % of the queries have no usable score") for s in score_headline(found))
    nothing = found_for(tune, validate, score=lambda t: half(t) if t is tune else np.full(t.n_queries, np.nan))
    assert nothing.main.n == 0 and "no query" in nothing.main.reason and nothing.bands == ()
    assert png_bytes(score_figure(nothing)).startswith(b"\x89PNG")


def test_shared_scores_are_said():
    tune, validate = split_table(400)

    def coarse(table):
        return np.where(np.arange(table.n_queries) % 3 == 0, 0.0, table.queries.signals["difficulty"])

    said = " ".join(score_headline(found_for(tune, validate, score=coarse)))
    assert "33.5 % of the queries share one score (0): no boundary can tell them apart" in said


def with_gain(found, **changes):
    return dataclasses.replace(found, gain=dataclasses.replace(found.gain, **changes))


def test_what_is_said_of_the_gain():
    found = dataclasses.replace(found_for(*split_table(400)), cheapest_is_best=False)
    none = with_gain(found, tune=0.01, validate=Interval(mean=0.004, low=-0.007, high=0.015), oracle=0.05)
    (said, *_) = score_headline(none)
    assert said.startswith(
        "No threshold on this score is shown to beat mixing tiers at random at equal cost: best +0.004"
    )
    assert said.endswith("a perfect score could add +0.050 at that cost.")
    (said, *_) = score_headline(with_gain(found, validate=Interval(mean=0.02, low=0.01, high=0.03)))
    assert said.startswith("The best threshold on this score beats mixing tiers at random")
    (said, *_) = score_headline(with_gain(found, tune=0.01, validate=Interval(mean=-0.02, low=-0.03, high=-0.01)))
    assert "loses to mixing tiers at random" in said
    useless = with_gain(found, tune=0.0, validate=Interval(mean=0.0, low=0.0, high=0.0), oracle=0.0)
    (said, *_) = score_headline(dataclasses.replace(useless, cheapest_is_best=True))
    assert "the cheapest tier, tier0, is also the best single tier, and the score does not find the exceptions" in said
    assert "at a higher cost" in said


def test_a_cheapest_tier_that_is_best_is_recognised():
    tune, validate = split_table(600, k=2)
    rng = np.random.default_rng(3)
    both = [
        dataclasses.replace(t, quality=t.quality[:, ::-1].copy(), _hash=[], queries=dataclasses.replace(
            t.queries, signals={"difficulty": rng.normal(size=t.n_queries)})) for t in (tune, validate)
    ]  # fmt: skip
    found = found_for(*both)
    assert found.cheapest_is_best and found.upgrade == "tier1"
    assert "is also the best single tier" in score_headline(found)[0]


# --- the command ------------------------------------------------------------------------------------------------------

RECORDED = ("data=recorded", "data.queries=queries.csv", "data.outcomes=outcomes.csv")


@pytest.fixture
def recording(tmp_path):
    write_recording(tmp_path, ".csv", n=240)
    return tmp_path


def test_diagnose_from_end_to_end(recording):
    options = (*RECORDED, "scorer=column", "scorer.column=hardness")
    code, out, err = run_cli("diagnose", *options, cwd=recording)
    assert code == 0, err
    assert "small → large" in out and "Wrote diagnostics.json" in out and "AUC" in out
    stored = json.loads((recording / "diagnostics.json").read_text())
    assert stored["signal"]["n"] == stored["n_validate"] == 120 and len(stored["steps"]) == 3
    assert stored["sentences"][0] in out and stored["margin"] == 0.05
    code, out, err = run_cli("diagnose", *options, "policy=utility", "gain_margin=0.2", "--json", cwd=recording)
    assert code == 0, err
    found = json.loads(out)
    assert found["margin"] == 0.2 and found["gain"]["policy"] == "utility"
    assert not [name for name in found if name.startswith("_")]


@pytest.mark.slow
def test_tune_keeps_and_shows_the_same_diagnostics(recording):
    options = (*RECORDED, "scorer=text")
    code, out, err = run_cli("tune", *options, "out=run", cwd=recording)
    assert code == 0, err
    kept = json.loads((recording / "run" / "diagnostics.json").read_text())
    assert run_cli("diagnose", *options, cwd=recording).exit_code == 0
    alone = json.loads((recording / "diagnostics.json").read_text())
    assert all(alone[name] == value for name, value in kept.items())
    page = (recording / "run" / "report.html").read_text()
    assert "Is the score any good?" in page and "Where the gap goes" in page
    assert kept["sentences"][0] in out
    for name in ("score", "gap"):
        assert (recording / "run" / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("constraints.quality_floor=0.9",), "constraints.quality_floor"),
        (("world=queue", "world.slots={large: 2}"), "world=none"),
        (("out=run",), "out"),
        (("output=outcomes.csv",), "outcomes.csv"),
        (("gain_margin=-1",), "gain_margin"),
        (("data.repeats=outcomes.csv",), "data.repeats"),
        (("scorer.column=absent",), "absent"),
    ],
)
@pytest.mark.slow
def test_what_diagnose_does_not_read_is_refused_in_one_line(recording, options, said):
    code, out, err = run_cli("diagnose", *RECORDED, "scorer=column", "scorer.column=hardness", *options, cwd=recording)
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err
    assert not (recording / "diagnostics.json").exists()
