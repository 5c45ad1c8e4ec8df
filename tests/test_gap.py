"""Where the gap goes: the parts sum to it, each is 0 where it must be, hindsight is the optimum it claims to be."""

import dataclasses
import json

import numpy as np
import pytest
from helpers import make_table, recording_columns, run_cli, write_columns, write_recording
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from toolkit.certify.gap import PUBLISHED_NOISE, decompose_gap, label_noise, score_cells
from toolkit.certify.hindsight import SupportedThresholds, best_at_cost, class_candidates, mean_figures
from toolkit.evaluation.metrics import Metric
from toolkit.evaluation.slices import coverage
from toolkit.families.make import policy_family
from toolkit.families.thresholds import SliceThresholdFamily, ThresholdFamily
from toolkit.policies.lanes import Lanes
from toolkit.policies.thresholds import UNREACHABLE
from toolkit.problem import RoutingProblem
from toolkit.report.diagnostics_figures import gap_figure
from toolkit.report.diagnostics_sentences import gap_sentences
from toolkit.report.figures import png_bytes
from toolkit.scorers.base import ScoreTable
from toolkit.search.base import run_search
from toolkit.search.exact import ExactController

LANES = Lanes(fallback_tier=1, low_confidence_tier=0)


def each(table):
    return np.arange(table.n_queries)


def problem_of(table, family):
    objectives = (Metric("cost"), Metric("quality")) if table.has_cost else (Metric("quality"),)
    return RoutingProblem(
        table=table, family=family, objectives=objectives, constraints=(), coverage=coverage(table, 2)
    )


def all_vectors(table, family):
    exact, blocks = ExactController(problem_of(table, family), boundaries="all", max_evaluations=10**6), []
    while (part := exact.ask()) is not None:
        blocks.append(part)
    return np.concatenate(blocks)


# --- hindsight --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_the_best_assignment_is_that_of_a_linear_programme(seed):
    rng = np.random.default_rng(seed)
    table = make_table(rng, n=40, k=3)
    cell = np.unique(rng.integers(0, 9, 40), return_inverse=True)[1]
    n_cells, (low, _, high) = int(cell.max()) + 1, table.cost_usd.mean(axis=0)
    budget = rng.uniform(low, high)
    gain, price = (
        np.stack([np.bincount(cell, v, n_cells) for v in x.T], axis=1) / 40 for x in (table.quality, table.cost_usd)
    )
    peer = linprog(
        -gain.ravel(), price.ravel()[None] / budget, [1.0], np.kron(np.eye(n_cells), np.ones(3)), np.ones(n_cells)
    )
    found = best_at_cost(table.quality, table.cost_usd, cell, budget)
    assert found.quality == pytest.approx(-peer.fun, abs=1e-9)
    assert (found.share * price).sum() <= budget * (1 + 1e-8) and np.allclose(found.share.sum(axis=1), 1)
    assert ((found.share > 0) & (found.share < 1)).any(axis=1).sum() <= 1


def test_the_best_assignment_at_the_ends():
    table = make_table(np.random.default_rng(0), n=50, k=3)
    anything = best_at_cost(table.quality, table.cost_usd, each(table), None)
    assert anything.quality == pytest.approx(table.quality.max(axis=1).mean())
    rich = best_at_cost(table.quality, table.cost_usd, each(table), 1e9)
    assert rich.quality == pytest.approx(anything.quality)
    poor = best_at_cost(table.quality, table.cost_usd, each(table), 0.0)
    assert poor.quality == pytest.approx(table.quality[each(table), table.cost_usd.argmin(axis=1)].mean())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [2, 3, 4])
def test_supported_thresholds_are_the_best_of_all_vectors(seed, k):
    rng = np.random.default_rng(seed)
    table = make_table(rng, n=25, k=k)
    score = np.round(table.queries.signals["difficulty"], 1)
    score[:2] = np.nan
    family = ThresholdFamily(ScoreTable(score=score), LANES, k)
    quality, cost = mean_figures(table, family, all_vectors(table, family))
    supported = SupportedThresholds(table, family.order)
    for slope in (0.0, 1.0, 50.0, 2000.0, 1e6):
        q, c = mean_figures(table, family, supported.best(slope)[None])
        assert q[0] - slope * c[0] == pytest.approx((quality - slope * cost).max(), rel=1e-12, abs=1e-12)
    budget = float(np.quantile(cost, 0.4))
    near = mean_figures(table, family, supported.around(budget))
    assert hull_at(*near, budget) == pytest.approx(hull_at(quality, cost, budget), abs=1e-9)


def hull_at(quality, cost, budget):
    return -linprog(-quality, cost[None] / budget, [1.0], np.ones((1, len(quality))), [1.0]).fun


def test_candidates_hold_what_was_given_and_keep_the_budget():
    table = make_table(np.random.default_rng(1), n=60, k=2)
    family = ThresholdFamily(ScoreTable(score=table.queries.signals["difficulty"]), LANES, 2)
    quality, cost = mean_figures(table, family, all_vectors(table, family))
    budget = float(np.median(cost))
    found = class_candidates(table, family, np.array([[0.123]]), budget)
    best = found.best_within(budget)
    assert found.whole and found.cost_usd[best] <= budget * (1 + 1e-8) and [0.123] in found.params.tolist()
    assert found.quality[best] == pytest.approx(quality[cost <= budget].max())


def test_cells_are_intervals_of_the_score_by_tier():
    score = np.concatenate([np.linspace(0, 1, 100), [np.nan, np.nan]])
    tier = np.concatenate([np.zeros(50), np.ones(50), [0, 1]]).astype(int)
    cell = score_cells(score, tier, 2)
    assert int(cell.max()) + 1 == 20 + 2 and len(set(cell[-2:]) | set(cell[:100])) == 22
    assert all(len(np.unique(tier[cell == c])) == 1 for c in range(22))


# --- the split --------------------------------------------------------------------------------------------------------


def halves(table):
    return table.take(np.arange(0, table.n_queries, 2)), table.take(np.arange(1, table.n_queries, 2))


def split(tune, validate, params, *, score=None, policy="thresholds", lanes=LANES, **options):
    """The gap of a policy on scores made from each table."""
    make = (lambda t: ScoreTable(score=t.queries.signals["difficulty"])) if score is None else score
    family, other = (policy_family(policy, make(t), lanes, t.n_tiers) for t in (tune, validate))
    empty = np.empty((0, len(params)))
    return decompose_gap(
        tune, validate, family=family, validate_family=other, params=np.asarray(params, dtype=float),
        evaluated=options.pop("evaluated", empty), score=other.scores.score, **options,
    )  # fmt: skip


def check(gap):
    assert gap.chosen <= gap.by_class <= gap.by_score <= gap.oracle
    assert sum(gap.components.values()) == pytest.approx(gap.total, abs=1e-12)
    assert all(value >= 0 for name, value in gap.components.items() if name != "generalisation")
    assert png_bytes(gap_figure(gap)).startswith(b"\x89PNG")
    assert all(gap_sentences(gap)) and json.dumps(gap.as_dict(), allow_nan=not np.isfinite(gap.cost_usd))


@given(
    seed=st.integers(0, 50),
    k=st.integers(2, 4),
    cuts=st.lists(st.floats(-0.5, 1.5), min_size=3, max_size=3),
    cost=st.booleans(),
    missing=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_parts_of_any_thresholds_sum_to_the_gap(seed, k, cuts, cost, missing):
    tune, validate = halves(make_table(np.random.default_rng(seed), n=60, k=k, cost=cost))
    if missing:
        validate.queries.signals["difficulty"][::3] = np.nan
    gap = split(tune, validate, sorted(cuts)[: k - 1], grid=50)
    assert list(gap.components) == ["score", "policy class", "search", "generalisation"]
    check_figures_apart(gap)


def check_figures_apart(gap):
    """`check`, without the picture that takes most of its time."""
    assert gap.chosen <= gap.by_class <= gap.by_score <= gap.oracle
    assert sum(gap.components.values()) == pytest.approx(gap.total, abs=1e-12)
    assert all(value >= 0 for name, value in gap.components.items() if name != "generalisation")
    assert all(gap_sentences(gap))


def test_parts_of_a_utility_sum_to_the_gap():
    tune, validate = halves(make_table(np.random.default_rng(0), n=200, k=3))
    rng = np.random.default_rng(1)

    def predicted(table):
        noisy = table.quality + 0.1 * rng.standard_normal(table.quality.shape)
        return ScoreTable(score=noisy[:, 2] - noisy[:, 0], quality=noisy, cost_usd=table.cost_usd)

    gap = split(tune, validate, [100.0, 0.0, 0.0], policy="utility", score=predicted)
    check(gap)
    assert "λ path" in gap.enumerated and gap.form == "utility"
    offsets = split(tune, validate, [0.0, -1.0, 0.0], policy="utility", score=predicted, evaluated=np.full((3, 3), 0.1))
    check_figures_apart(offsets)  # offsets are searched beside the path


def planted(n=400, seed=0):
    """Two tiers of constant cost; tier 1 gains one of ten amounts, and the score is that amount."""
    rng = np.random.default_rng(seed)
    table = make_table(rng, n=n, k=2)
    gain = rng.integers(0, 10, n) / 20
    quality = np.stack([np.full(n, 0.4), 0.4 + gain], axis=1)
    queries = dataclasses.replace(table.queries, signals={"difficulty": gain})
    return dataclasses.replace(
        table, quality=quality, cost_usd=np.tile([1e-4, 1e-3], (n, 1)), queries=queries, _hash=[]
    )


def test_a_perfect_score_tuned_exactly_leaves_no_gap():
    tune, validate = halves(planted())
    gap = split(tune, validate, [0.225])
    check(gap)
    assert gap.total == pytest.approx(0.0, abs=1e-12) and set(gap.components.values()) == {0.0}
    assert gap_sentences(gap) == ["On the validation split nothing separates the policy from the oracle at its cost."]


def test_an_exact_search_misses_nothing():
    table = make_table(np.random.default_rng(3), n=120, k=2)
    tune, validate = halves(table)
    family = ThresholdFamily(ScoreTable(score=tune.queries.signals["difficulty"]), LANES, 2)
    problem = problem_of(tune, family)
    result = run_search(problem, ExactController(problem, boundaries="all", max_evaluations=10_000))
    for row in result.front:
        gap = split(tune, validate, result.evaluation.params[row], evaluated=result.evaluation.params)
        assert gap.components["search"] == 0.0
        check_figures_apart(gap)


def test_a_search_that_stopped_early_is_seen():
    rng = np.random.default_rng(2)
    table = planted(600)
    queries = dataclasses.replace(table.queries, signals={"difficulty": -table.queries.signals["difficulty"]})
    table = dataclasses.replace(
        table, queries=queries, cost_usd=table.cost_usd * rng.uniform(0.9, 1.1, (600, 1)), _hash=[]
    )
    tune, validate = halves(table)
    cost = np.concatenate([tune.cost_usd[:, :1], tune.cost_usd[:, :1]], axis=1)
    free = [dataclasses.replace(t, cost_usd=t.cost_usd[:, [0, 0]], _hash=[]) for t in (tune, validate)]
    assert (free[0].cost_usd == cost).all()
    gap = split(*free, [-0.125])  # at equal costs everything should go to tier 1
    check(gap)
    assert max(gap.components, key=gap.components.get) == "search" and "What the search left" in gap_sentences(gap)[0]
    assert gap.components["policy class"] == gap.components["score"] == 0.0
    aims = dataclasses.replace(gap, other_aims=("latency_p95_s",))
    assert "The price of p95 latency" in gap_sentences(aims)[0]


def test_a_rule_that_no_threshold_can_follow_is_the_class():
    """Only queries of middling score gain: one boundary must take the easy or the hard ones along."""
    table = planted(600)
    gain = table.queries.signals["difficulty"]
    quality = np.stack([np.full(600, 0.4), np.where((gain > 0.1) & (gain < 0.3), 0.9, 0.4)], axis=1)
    tune, validate = halves(dataclasses.replace(table, quality=quality, _hash=[]))
    gap = split(tune, validate, [0.225])
    check(gap)
    assert gap.components["policy class"] > 0.8 * gap.total > 0.02
    assert gap.components["score"] == 0.0 and "form of the policy" in gap_sentences(gap)[0]


def test_a_score_of_noise_is_the_bottleneck():
    table = planted(2000)
    noise = np.random.default_rng(5).normal(size=2000)
    queries = dataclasses.replace(table.queries, signals={"difficulty": noise})
    tune, validate = halves(dataclasses.replace(table, queries=queries, _hash=[]))
    gap = split(tune, validate, [0.0])
    check(gap)
    assert gap.components["score"] > 0.7 * gap.total
    assert gap_sentences(gap)[0].startswith("The score is the bottleneck, not the thresholds: ")


def test_what_is_best_on_one_split_only_is_generalisation():
    tune, validate = halves(dataclasses.replace(planted(400), cost_usd=np.full((400, 2), 1e-4), _hash=[]))
    worse = dataclasses.replace(validate, quality=0.9 - validate.quality, _hash=[])
    gap = split(tune, worse, [-UNREACHABLE])
    check(gap)
    assert gap.components["generalisation"] > 0.9 * gap.total > 0.02 and gap.components["search"] == 0.0


def test_without_costs_nothing_is_held_equal():
    tune, validate = halves(make_table(np.random.default_rng(0), n=200, k=3, cost=False))
    gap = split(tune, validate, [0.3, 0.6])
    check(gap)
    assert np.isnan(gap.cost_usd) and gap.oracle == pytest.approx(validate.quality.max(axis=1).mean())
    assert "costs are unknown" in gap_sentences(gap)[0]


def test_a_family_that_cannot_be_enumerated_is_not_split():
    table = make_table(np.random.default_rng(0), n=300, k=2)
    queries = dataclasses.replace(table.queries, slice=np.array([f"slice{c}" for c in table.slice_code]))
    tune, validate = halves(dataclasses.replace(table, queries=queries, _hash=[]))
    family, other = (
        SliceThresholdFamily(ScoreTable(score=t.queries.signals["difficulty"]), t.queries, LANES, 2, ("slice0",))
        for t in (tune, validate)
    )
    evaluated = np.random.default_rng(1).uniform(0, 1, (20, 2))
    gap = decompose_gap(
        tune, validate, family=family, validate_family=other, params=np.array([0.4, 0.6]), evaluated=evaluated,
        score=other.scores.score,
    )  # fmt: skip
    check(gap)
    assert list(gap.components) == ["score", "policy class and search", "generalisation"]
    assert gap.enumerated == "the 21 candidates that the search evaluated"


# --- noise of the labels ----------------------------------------------------------------------------------------------


def coins(n=4000, seed=0):
    """Both tiers are right by a fair coin: the oracle has 3/4, and nothing of it is real."""
    rng = np.random.default_rng(seed)
    table = make_table(rng, n=n, k=2, cost=False)
    return dataclasses.replace(table, quality=rng.integers(0, 2, (n, 2)).astype(float), _hash=[]), rng


def test_repeats_measure_the_luck_of_the_oracle():
    table, rng = coins()
    oracle = best_at_cost(table.quality, table.cost_usd, each(table), None)
    found = label_noise(table, oracle, 0.25, rng.integers(0, 2, (4000, 2)).astype(float))
    assert found.drop.low < 0.25 < found.drop.high and found.drop.high - found.drop.low < 0.06
    assert (found.n, found.n_without, found.low) == (4000, 0, found.drop.low)
    same = label_noise(table, oracle, 0.25, table.quality)
    assert same.drop.mean == 0.0 and same.low == 0.0


def test_queries_without_a_repeat_are_counted():
    table, rng = coins(400)
    repeat = rng.integers(0, 2, (400, 2)).astype(float)
    repeat[:100, 1] = np.nan
    tune, validate = halves(table)
    gap = split(tune, validate, [0.5], repeat=repeat[1::2])
    check(gap)
    assert (gap.noise.n, gap.noise.n_without) == (150, 50)
    assert "150 queries (50 others have none)" in gap_sentences(gap)[1]
    nothing = split(tune, validate, [0.5], repeat=np.full((200, 2), np.nan))
    assert nothing.noise.drop is None


def test_without_repeats_the_published_range_is_stated_and_not_subtracted():
    tune, validate = halves(make_table(np.random.default_rng(0), n=200, k=3))
    gap = split(tune, validate, [0.3, 0.6])
    low, high = PUBLISHED_NOISE
    assert (gap.noise.low, gap.noise.high) == (pytest.approx(low * gap.total), pytest.approx(high * gap.total))
    assert sum(gap.components.values()) == pytest.approx(gap.total, abs=1e-12)
    assert "12 to 43 %" in gap_sentences(gap)[1] and "data.repeats=FILE" in gap_sentences(gap)[1]


def test_the_oracle_of_the_noise_is_the_one_at_equal_cost():
    tune, validate = halves(planted(400))
    lucky = np.where(np.arange(200)[:, None] % 2 == 0, validate.quality, validate.quality - [0.0, 0.1]).clip(0, 1)
    gap = split(tune, validate, [0.225], repeat=lucky)
    share = float((validate.queries.signals["difficulty"] >= 0.225)[1::2].mean()) / 2
    assert gap.noise.drop.mean == pytest.approx(0.1 * share, abs=0.003)


# --- from end to end --------------------------------------------------------------------------------------------------

RECORDED = ("data=recorded", "data.queries=queries.csv", "data.outcomes=outcomes.csv")
HARDNESS = ("scorer=column", "scorer.column=hardness")


@pytest.fixture
def recording(tmp_path, monkeypatch):
    from experiments import tune_output

    monkeypatch.setattr(tune_output, "write_report", lambda path, record: {})  # figures take most of a small run's time
    write_recording(tmp_path, ".csv", n=240)
    _, outcomes = recording_columns(n=240)
    rng = np.random.default_rng(9)
    outcomes["score"] = np.clip(np.array(outcomes["score"]) + 0.1 * rng.standard_normal(720), 0, 1).round(4).tolist()
    write_columns(tmp_path / "repeats.csv", {name: values[30:] for name, values in outcomes.items()})
    return tmp_path


@pytest.mark.slow
def test_tune_measures_noise_with_a_second_outcomes_file(recording):
    code, out, err = run_cli("tune", *RECORDED, *HARDNESS, "data.repeats=repeats.csv", "out=run", cwd=recording)
    assert code == 0, err
    gap = json.loads((recording / "run" / "gap.json").read_text())
    assert sum(gap["components"].values()) == pytest.approx(gap["total"], abs=1e-9)
    assert gap["noise"]["n"] + gap["noise"]["n_without"] == gap["n"] == 120 and gap["noise"]["n_without"] <= 10
    assert gap["noise"]["drop"]["mean"] != 0 and "second answer" in out
    code, out, err = run_cli("tune", *RECORDED, *HARDNESS, "out=plain", "--json", cwd=recording)
    assert code == 0, err
    plain = json.loads(out)
    assert plain["gap"]["noise"]["drop"] is None and plain["gap"]["components"] == gap["components"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tune", "data.repeats=absent.csv"), "absent.csv"),
        (("tune", "data.repeats=queries.csv"), "queries.csv"),
        (("study", "data.repeats=repeats.csv"), "data.repeats"),
    ],
)
def test_repeats_that_cannot_be_read_are_refused_in_one_line(recording, words, said):
    command, *options = words
    code, out, err = run_cli(command, *RECORDED, *HARDNESS, *options, cwd=recording)
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err
