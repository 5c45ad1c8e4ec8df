"""Every method on recorded answers: known answers on tiny tables, a contract for all, labels that reach nothing."""

import dataclasses
import itertools

import numpy as np
import pytest
from helpers import make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import OutcomeTable, QueryBatch
from simulators.seeds import spawn_rng
from toolkit.baselines.base import Routed, Split
from toolkit.baselines.common import default_lanes, effort
from toolkit.baselines.learned import cross_predict
from toolkit.baselines.omnirouter import Programme, round_shares
from toolkit.baselines.pacing import Pacer
from toolkit.baselines.result import as_search_result
from toolkit.baselines.routers import NEEDS_COST, ROUTERS
from toolkit.baselines.threshold_front import threshold_front
from toolkit.evaluation.constraints import parse_constraints
from toolkit.evaluation.metrics import parse_metric
from toolkit.evaluation.slices import coverage
from toolkit.evaluation.thresholds import ScoreOrder
from toolkit.policies.thresholds import ThresholdPolicy
from toolkit.scorers.base import ScoreTable, cross_fit
from toolkit.scorers.binned import BinnedScorer
from toolkit.scorers.signals import SignalScorer
from toolkit.zero_router import zero_router_of

LIGHT = {
    "omnirouter": {"batch": 32, "settings": 5},
    "budget_pacing": {"settings": 7},
    "mlp": {"epochs": 3, "hidden": (8, 8), "dimensions": 8},
    "knn": {"dimensions": 8},
    "carrot": {"step": 0.02},
    "zero_router": {"settings": 21},
    "avengers_pro": {"clusters": 4, "dimensions": 8, "settings": 9},
}
LABELLED = {"cascade", "oracle", "oracle_path"}


def split_of(seed=0, *, n=160, prompts=False, cost=True, k=3) -> Split:
    rng = np.random.default_rng(seed)
    table = make_table(rng, n=n, k=k, prompts=prompts)
    tune, held_out = table.take(np.arange(0, n, 2)), table.take(np.arange(1, n, 2))
    scorer = BinnedScorer(base=SignalScorer(column="difficulty"))
    split = Split(
        tune=tune,
        tune_scores=cross_fit(scorer, tune, folds=3, rng=rng),
        held_out=held_out,
        held_out_scores=scorer.fit(tune).predict(held_out.queries),
        folds=3,
        seed=seed,
    )
    return split if cost else without_costs(split)


def without_costs(split) -> Split:
    """The same split where nobody knows a cost."""
    unknown = {
        name: dataclasses.replace(getattr(split, name), cost_usd=np.full_like(getattr(split, name).cost_usd, np.nan))
        for name in ("tune", "held_out")
    }
    scores = {
        name: dataclasses.replace(getattr(split, name), cost_usd=None) for name in ("tune_scores", "held_out_scores")
    }
    return dataclasses.replace(split, **unknown, **scores)


def table_of(quality, cost) -> OutcomeTable:
    """A table of hand-written answers."""
    quality, cost = (np.asarray(x, dtype=float) for x in (quality, cost))
    cost = np.broadcast_to(cost, quality.shape).copy()
    n, k = quality.shape
    unknown = np.full((n, k), np.nan)
    return OutcomeTable(
        tiers=tuple("abcdefgh"[:k]),
        queries=QueryBatch(query_id=np.array([f"q{i}" for i in range(n)]), prompt=None, signals={}),
        quality=quality,
        cost_usd=cost,
        latency_s=unknown,
        ttft_s=unknown,
        input_tokens=unknown,
        output_tokens=unknown,
        error=np.zeros((n, k), dtype=bool),
        slices=("all",),
        slice_code=np.zeros(n, dtype=np.int64),
    )


def toy(quality, cost, *, p=None, c=None, score=None) -> Split:
    """A split whose tune and held-out queries are the same ones, with given predictions."""
    table = table_of(quality, cost)
    scores = ScoreTable(
        score=np.zeros(table.n_queries) if score is None else np.asarray(score, dtype=float),
        quality=table.quality if p is None else np.asarray(p, dtype=float),
        cost_usd=table.cost_usd if c is None else np.broadcast_to(np.asarray(c, dtype=float), table.quality.shape),
    )
    return Split(tune=table, tune_scores=scores, held_out=table, held_out_scores=scores, folds=2, seed=0)


def run(name, split, **options):
    return ROUTERS[name](split, **(LIGHT.get(name, {}) | options))


@pytest.mark.parametrize("name", ROUTERS)
class TestContract:
    """What every method keeps to."""

    def test_shapes_names_and_figures(self, name):
        split = split_of()
        found = run(name, split)
        n = len(found.settings)
        assert found.name == name and found.knob and found.seconds >= 0 and n >= 1
        assert found.uses_labels == (name in LABELLED)
        for routed, table in ((found.tune, split.tune), (found.held_out, split.held_out)):
            assert routed.tier.shape == (n, table.n_queries) and routed.tier.dtype == np.int8
            assert np.isfinite(routed.quality).all() and (routed.cost_usd > 0).all()
            assert routed.tier_shares(3).sum(axis=1) == pytest.approx(1.0)
            i, q = np.nonzero(routed.tier >= 0)
            assert routed.quality[i, q] == pytest.approx(table.quality[q, routed.tier[i, q]])
        cost = found.tune.mean_cost_usd
        assert cost[0] <= cost[-1] + 1e-15 or name in {"random", "cheapest", "best_fixed", "oracle"}

    def test_the_same_seed_gives_the_same_run(self, name):
        a, b = (run(name, split_of(seed=3)) for _ in range(2))
        assert np.array_equal(a.held_out.tier, b.held_out.tier) and np.array_equal(a.tune.tier, b.tune.tier)
        assert np.array_equal(a.settings, b.settings)

    def test_held_out_quality_moves_no_decision(self, name):
        split = split_of(seed=1)
        rows = np.random.default_rng(0).permutation(split.held_out.n_queries)
        other = dataclasses.replace(split.held_out, quality=split.held_out.quality[rows][:, ::-1].copy())
        plain, moved = run(name, split), run(name, dataclasses.replace(split, held_out=other))
        same = np.array_equal(plain.held_out.tier, moved.held_out.tier)
        assert same == (name not in LABELLED)
        assert np.array_equal(plain.settings, moved.settings) and np.array_equal(plain.tune.tier, moved.tune.tier)

    def test_a_held_out_bill_moves_no_decision_but_later_ones(self, name):
        split = split_of(seed=1)
        other = dataclasses.replace(split.held_out, cost_usd=split.held_out.cost_usd[::-1] * 3)
        plain, moved = run(name, split), run(name, dataclasses.replace(split, held_out=other))
        if name == "budget_pacing":
            first = spawn_rng(split.seed, "pacing", "held_out").permutation(split.held_out.n_queries)[0]
            assert np.array_equal(plain.held_out.tier[:, first], moved.held_out.tier[:, first])
        elif name not in LABELLED:
            assert np.array_equal(plain.held_out.tier, moved.held_out.tier)

    def test_without_costs(self, name):
        split = split_of(cost=False)
        if name in NEEDS_COST:
            with pytest.raises(ConfigError, match="needs recorded and predicted costs"):
                run(name, split)
            return
        found = run(name, split)
        assert not found.tune.has_cost and np.isfinite(found.held_out.quality).all()

    def test_no_router_beats_the_oracle(self, name):
        split = split_of(seed=2)
        best, bound, found = run("oracle", split), run("oracle_path", split, settings=10_000), run(name, split)
        assert (found.held_out.quality <= best.held_out.quality + 1e-12).all()
        lam = bound.settings[:, None]  # the path maximises the mean of quality - λ cost for each of its own λ
        reached = bound.held_out.mean_quality[:, None] - lam * bound.held_out.mean_cost_usd[:, None]
        others = found.held_out.mean_quality - lam * found.held_out.mean_cost_usd
        assert (others <= reached + 1e-9).all()

    def test_as_the_result_of_a_search(self, name):
        split = split_of()
        found = run(name, split)
        result = as_search_result(
            found, split.held_out, held_out=True, constraints=parse_constraints({"quality_floor": 0.6})
        )
        figures = result.evaluation
        assert result.controller == name and result.n_failed == 0
        assert np.array_equal(figures.Y[:, 0], found.held_out.mean_quality)
        assert np.array_equal(figures.Y[:, 1], -found.held_out.mean_cost_usd)
        assert figures.slack[:, 0] == pytest.approx(found.held_out.mean_quality - 0.6)
        assert np.array_equal(figures.params[:, 0], found.settings)
        assert set(result.front) <= set(np.flatnonzero(figures.slack[:, 0] >= 0))


def test_single_tiers():
    split = toy([[0, 1, 1], [0, 0, 1], [1, 1, 0]], [1, 3, 9])
    found = run("fixed", split)
    assert found.settings.tolist() == [0, 1, 2] and found.tune.mean_cost_usd.tolist() == [1, 3, 9]
    assert found.held_out.mean_quality == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert run("cheapest", split).held_out.tier.tolist() == [[0, 0, 0]]
    assert run("best_fixed", split).held_out.tier.tolist() == [[1, 1, 1]]  # the cheaper of two equals
    found = run("random", split)
    assert (found.held_out.tier == -1).all() and found.held_out.mean_cost_usd == pytest.approx(13 / 3)


def test_zero_router_lies_on_the_hull_of_tune():
    split = split_of(seed=4, n=400)
    found, hull = run("zero_router", split, settings=17), zero_router_of(split.tune)
    for cost, quality in zip(found.tune.mean_cost_usd, found.tune.mean_quality, strict=True):
        assert quality == pytest.approx(hull.quality_at(cost), abs=1e-12)
    pure = found.tune.mixture.max(axis=1) == 1.0
    assert pure.sum() == len(hull.tier) and (found.held_out.tier[pure] >= 0).all()
    assert (found.held_out.tier[~pure] == -1).all()


def test_zero_router_skips_a_tier_below_the_hull():
    split = toy([[0.2, 0.3, 1.0]] * 4, [1, 5, 6])
    assert run("zero_router", split).tune.tier_shares(3)[:, 1].max() == 0.0


def brute_front(order, quality, cost, scores, k):
    params = np.array(list(itertools.combinations_with_replacement(order.boundaries, k - 1)))
    tier = ThresholdPolicy().assign(params, scores, default_lanes(k))
    rows = np.arange(len(quality))
    return cost[rows, tier].sum(axis=1), quality[rows, tier].sum(axis=1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 4), st.integers(1, 9))
def test_threshold_front_against_every_vector(seed, k, n):
    rng = np.random.default_rng(seed)
    quality, cost = rng.random((n, k)), rng.random((n, k))
    score = rng.integers(0, 5, n).astype(float)
    score[rng.random(n) < 0.2] = np.nan  # pinned queries add a constant
    scores = ScoreTable(score=score)
    order = ScoreOrder(scores, default_lanes(k))
    every_cost, every_quality = brute_front(order, quality, cost, scores, k)
    tier = ThresholdPolicy().assign(threshold_front(order, quality, cost), scores, default_lanes(k))
    got_cost, got_quality = (x[np.arange(n), tier].sum(axis=1) for x in (cost, quality))
    for c, q in zip(every_cost, every_quality, strict=True):
        assert ((got_cost <= c + 1e-9) & (got_quality >= q - 1e-9)).any()
    assert (np.diff(got_cost) > 0).all() and (np.diff(got_quality) > 0).all()


def test_long_fronts_are_thinned_with_their_ends():
    rng = np.random.default_rng(0)
    quality, cost = np.sort(rng.random((200, 2)), axis=1), np.sort(rng.random((200, 2)), axis=1)
    order = ScoreOrder(ScoreTable(score=rng.random(200)), default_lanes(2))
    whole, few = (threshold_front(order, quality, cost, most) for most in (10_000, 20))
    assert len(few) <= 20 < len(whole)
    assert np.array_equal(few[-1], whole[-1])


def test_utility_by_hand():
    found = run("utility", toy([[0, 1], [0, 1]], [1, 2], p=[[0.5, 0.6], [0.5, 0.9]]))
    assert found.held_out.tier.tolist() == [[0, 0], [0, 1], [1, 1]]
    assert (np.diff(found.settings) < 0).all()
    assert 0.1 < found.settings[1] < 0.4


def test_carrot_by_hand():
    split = toy([[0, 1]], [1, 2], p=[[0.5, 0.9]])
    found = run("carrot", split, step=0.1)
    # (1-μ) 0.9 - 2 μ > (1-μ) 0.5 - μ  iff  μ < 0.4 / 1.4
    assert found.held_out.tier[:, 0].tolist() == [int(mu < 0.4 / 1.4) for mu in found.settings]
    code = run("carrot", split, step=0.001, cost_factor=100.0)
    assert found.settings[0] == 1.0 and found.settings[-1] == 0.0
    assert code.settings[code.held_out.tier[:, 0] == 1].max() == pytest.approx(0.003)  # 0.4 / 100.4
    with pytest.raises(ConfigError, match="cost_factor"):
        run("carrot", split, cost_factor=0.0)


def test_routellm_shares_are_quantiles_of_tune():
    p = np.stack([np.zeros(20), np.full(20, 0.5), np.arange(20) / 20], axis=1)
    split = toy(np.ones((20, 3)) * [0.1, 0.2, 0.9], [1, 2, 3], p=p)
    found = run("routellm", split)
    assert set(np.unique(found.tune.tier)) == {0, 2}
    share = (found.tune.tier == 2).mean(axis=1)
    assert share == pytest.approx(found.settings, abs=1 / 20)
    assert share[0] == 0.0 and share[-1] == 1.0
    assert found.tune.tier[50].tolist() == [0] * 10 + [2] * 10
    other = run("routellm", split, weak="b", strong=0)
    assert set(np.unique(other.tune.tier)) == {0, 1}
    for names, message in (({"weak": "z"}, "none of"), ({"weak": 7}, "numbered"), ({"weak": 2, "strong": 2}, "both")):
        with pytest.raises(ConfigError, match=message):
            run("routellm", split, **names)


def test_a_query_without_a_score_counts_as_hard():
    split = toy(np.ones((4, 2)) * [0.1, 0.9], [1, 2], p=[[0.0, np.nan], [0, 0.1], [0, 0.2], [0, 0.3]])
    assert run("routellm", split).held_out.tier[:, 0].all()
    assert (run("utility", split).held_out.tier[:, 0] == 1).all()  # the fallback tier


def test_omnirouter_takes_the_mean_prediction_for_a_query_without_a_score():
    quality, cost = [[0.2, 0.8]] * 4, [1, 2]
    gap, mean = ([[first, 0.8], [0.1, 0.8], [0.2, 0.8], [0.3, 0.8]] for first in (np.nan, 0.2))
    mean[0] = [0.2, 0.8]
    found, wanted = (run("omnirouter", toy(quality, cost, p=p)) for p in (gap, mean))
    assert np.array_equal(found.held_out.tier, wanted.held_out.tier) and (found.held_out.tier[:, 0] == 0).any()


@pytest.mark.parametrize("alpha", [0.2, 0.4, 0.5, 0.6])
def test_assignment_against_every_assignment(alpha):
    rng = np.random.default_rng(round(alpha * 100))
    quality, cost = rng.random((6, 3)), rng.random((6, 3)) * [1, 2, 3]
    limit, rows = 3, np.arange(6)
    share, reached = Programme(quality, cost, limit=limit).solve(alpha)
    allowed = [
        np.array(tiers)
        for tiers in itertools.product(range(3), repeat=6)
        if max(np.bincount(tiers, minlength=3)) <= limit and quality[rows, tiers].mean() >= alpha
    ]
    cheapest = min(cost[rows, tiers].sum() for tiers in allowed)
    assert reached and share.sum(axis=1) == pytest.approx(1.0) and (share >= -1e-9).all()
    assert (share * quality).sum() >= 6 * alpha - 1e-7 and (share.sum(axis=0) <= limit + 1e-7).all()
    assert (share * cost).sum() <= cheapest + 1e-7  # a relaxation
    fractional = (share.max(axis=1) < 1 - 1e-6).sum()
    assert fractional <= 4  # at most one divided query per row that binds
    tier = round_shares(share, limit=limit, rng=np.random.default_rng(0))
    assert np.bincount(tier, minlength=3).max() <= limit


def test_whole_assignments_are_optimal():
    quality, cost = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 0.5]]), np.array([[1.0, 2.0], [1.0, 4.0], [1.0, 9.0]])
    share, reached = Programme(quality, cost, limit=3).solve(2 / 3)
    assert reached and share.argmax(axis=1).tolist() == [1, 1, 0]
    share, reached = Programme(quality, cost, limit=3).solve(0.9)
    assert not reached and share.argmax(axis=1).tolist() == [1, 1, 1]
    share, reached = Programme(quality, cost, limit=2).solve(0.9)
    assert not reached and share.argmax(axis=1).tolist() == [1, 1, 0]


def test_rounding():
    share = np.array([[1.0, 0.0], [0.4, 0.6], [0.6, 0.4]])
    assert round_shares(share, limit=3, rng=None).tolist() == [0, 1, 0]
    assert round_shares(share, limit=2, rng=None).tolist() == [0, 1, 0]
    full = np.array([[1.0, 0.0, 0.0], [0.6, 0.4, 0.0], [0.6, 0.4, 0.0]])
    assert round_shares(full, limit=1, rng=None).tolist() == [0, 1, 2]  # no room where its shares are
    rng = np.random.default_rng(0)
    drawn = [round_shares(share[1:2], limit=1, rng=rng)[0] for _ in range(300)]
    assert np.mean(drawn) == pytest.approx(0.6, abs=0.08)


def test_omnirouter_says_what_it_could_not_reach():
    split = split_of()
    found = run("omnirouter", split, settings=9, limit=12)
    assert found.unreached[0] == 0.0 and found.unreached[-1] > 0.0
    for rows in (found.tune.tier, found.held_out.tier):
        assert np.stack([(rows == k).sum(axis=1) for k in range(3)]).max() <= 3 * 12  # three batches
    with pytest.raises(ConfigError, match="limit"):
        run("omnirouter", split, limit=5)
    with pytest.raises(ConfigError, match="rounding"):
        run("omnirouter", split, rounding="up")


def test_pacing_by_hand():
    pacer = Pacer(budget_usd=np.array([1.0, 4.0]), static_weight=0.0, step=0.05, memory=0.05, most=5.0)
    pacer.bill(np.array([3.0, 3.0]))
    assert pacer.mean_usd == pytest.approx([1.1, 3.95])  # 0.95 B + 0.05 · 3
    assert pacer.multiplier == pytest.approx([0.05 * 0.1, 0.0])
    pacer.bill(np.array([0.0, 400.0]))
    assert pacer.mean_usd == pytest.approx([1.045, 23.7525])
    assert pacer.multiplier == pytest.approx([0.005 + 0.05 * 0.045, 0.05 * (23.7525 / 4 - 1)])
    assert pacer.choose(np.array([0.5, 0.6]), np.array([0.0, 1.0])).tolist() == [1, 0]
    for _ in range(2_000):
        pacer.bill(np.array([1e6, 1e6]))
    assert pacer.multiplier.tolist() == [5.0, 5.0]


def test_pacing_spends_its_budget():
    rng = np.random.default_rng(0)
    n = 4_000
    p = np.stack([np.full(n, 0.5), 0.5 + 0.5 * rng.random(n)], axis=1)
    split = toy(p, [1.0, 10.0], p=p)
    found = run("budget_pacing", split, settings=9)
    inner = (found.settings > 1.5) & (found.settings < 9.0)
    assert found.held_out.mean_cost_usd[inner] == pytest.approx(found.settings[inner], rel=0.05)
    assert found.held_out.mean_cost_usd[-1] == pytest.approx(10.0)  # the budget never binds


def test_cascade_with_a_perfect_judge_and_a_perverse_one():
    split = toy([[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]], [1, 2, 4])
    found = run("cascade", split, settings=2)
    assert found.settings.tolist() == [0.0, 1.0]
    assert found.held_out.tier.tolist() == [[0, 0, 0, 0], [0, 1, 2, 2]]
    assert found.held_out.cost_usd[1].tolist() == [1, 3, 7, 7]  # everything that was asked
    perverse = run("cascade", split, settings=2, error_rate=1.0)
    assert perverse.held_out.tier.tolist() == [[2, 2, 2, 2], [2, 0, 0, 0]]
    assert perverse.held_out.mean_quality[1] == 0.25
    bounded = run("cascade", split, settings=2, max_cost_usd=3.0)
    assert bounded.held_out.tier[1].tolist() == [0, 1, 1, 1]
    with pytest.raises(ConfigError, match="error_rate"):
        run("cascade", split, error_rate=1.5)
    with pytest.raises(ConfigError, match="max_cost_usd"):
        run("cascade", split_of(cost=False), max_cost_usd=1.0)


def test_a_worse_judge_is_worth_less():
    split = split_of(seed=5, n=600)
    quality = [
        np.interp(3e-4, found.held_out.mean_cost_usd, found.held_out.mean_quality)
        for found in (run("cascade", split, error_rate=rate) for rate in (0.0, 0.3))
    ]
    assert quality[0] > quality[1]


def test_oracle_by_hand():
    split = toy([[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]], [1, 2, 4])
    assert run("oracle", split).held_out.tier.tolist() == [[0, 1, 2, 0]]
    path = run("oracle_path", split)
    assert path.held_out.tier[0].tolist() == [0, 0, 0, 0]
    assert path.held_out.tier[-1].tolist() == [0, 1, 2, 0]


def test_avengers_pro_by_hand():
    """Two clusters by a signal: in one the cheap tier is as good, in the other the dear one is needed."""
    group = np.arange(40) % 2
    table = table_of(np.where(group[:, None] == 0, [0.9, 0.8], [0.1, 0.9]), [1.0, 3.0])
    queries = dataclasses.replace(table.queries, signals={"x": 10.0 * group})
    table = dataclasses.replace(table, queries=queries)
    scores = ScoreTable(score=np.zeros(40))
    split = Split(tune=table, tune_scores=scores, held_out=table, held_out_scores=scores, folds=2, seed=0)
    found = run("avengers_pro", split, clusters=2, settings=5)
    # scaled over two tiers: p~ = (1, 0) or (0, 1), q~ = (0, 1); the dear tier wins where α > 1 - α in the second
    assert found.held_out.tier[:, 0].tolist() == [0, 0, 0, 0, 0]
    assert found.held_out.tier[:, 1].tolist() == [0, 0, 0, 1, 1]


def test_learned_predictions_are_out_of_fold():
    """Labels of pure noise cannot be predicted: in-sample nearest neighbours would."""
    rng = np.random.default_rng(0)
    table = make_table(rng, n=400, k=2)
    table = dataclasses.replace(table, quality=rng.integers(0, 2, (400, 2)).astype(float))
    half = table.take(np.arange(200))
    scores = ScoreTable(score=np.zeros(200))
    split = Split(
        tune=half, tune_scores=scores, held_out=table.take(np.arange(200, 400)), held_out_scores=scores, folds=4, seed=0
    )
    found = run("knn", split, neighbours=1)
    assert found.tune.mean_quality[-1] == pytest.approx(half.quality.mean(), abs=0.12)


@pytest.mark.parametrize("name", ["knn", "mlp", "avengers_pro"])
def test_prompts_are_enough(name):
    found = run(name, split_of(prompts=True, n=120))
    assert found.held_out.mean_quality[-1] > 0.5


def test_learned_methods_need_something_to_look_at():
    split = toy([[0, 1]] * 8, [1, 2])
    with pytest.raises(ConfigError, match="prompts or numeric signals"):
        run("knn", split)


def test_methods_on_predictions_need_them():
    split = split_of()
    bare = dataclasses.replace(
        split,
        tune_scores=ScoreTable(score=split.tune_scores.score),
        held_out_scores=ScoreTable(score=split.held_out_scores.score),
    )
    for name in ("utility", "carrot", "omnirouter"):
        with pytest.raises(ConfigError, match="predicted quality"):
            run(name, bare)
    assert len(run("thresholds", bare).settings) > 10 and len(run("routellm", bare).settings) == 101


def test_folds_of_learned_methods_keep_linked_queries_together():
    split = split_of(prompts=True, n=80)
    seen = []

    def learn(X, table, seed):
        seen.append(set(table.queries.prompt))

        def predict(Y):
            return np.zeros((len(Y), 3)), np.ones((len(Y), 3))

        return predict

    doubled = split.tune.take(np.repeat(np.arange(split.tune.n_queries), 2))
    cross_predict(dataclasses.replace(split, tune=doubled), learn, name="x", dimensions=4)
    assert len(seen) == 4  # three folds, and once for the held-out queries
    left_out = [set(doubled.queries.prompt) - prompts for prompts in seen[:3]]
    assert sum(map(len, left_out)) == len(set(doubled.queries.prompt)) and all(left_out)


def test_results_need_the_right_queries_and_figures():
    split = split_of()
    with pytest.raises(ConfigError, match="routed 80 queries"):
        as_search_result(run("fixed", split), split.tune.take(np.arange(5)))
    worst = (parse_metric("quality"), parse_metric("worst_slice"))
    cover = coverage(split.tune, 5)
    with pytest.raises(ConfigError, match="one tier per answer"):
        as_search_result(run("zero_router", split), split.tune, objectives=worst, coverage=cover)
    found = as_search_result(run("utility", split), split.tune, objectives=worst, coverage=cover)
    assert (found.evaluation.Y[:, 1] <= found.evaluation.Y[:, 0] + 1e-12).all()
    unknown = split_of(cost=False)
    assert as_search_result(run("utility", unknown), unknown.tune).evaluation.Y.shape[1] == 1


def test_routed_refuses_shapes_that_differ():
    with pytest.raises(InputDataError, match="one shape"):
        Routed(tier=np.zeros((1, 2), dtype=np.int8), quality=np.zeros((1, 3)), cost_usd=np.zeros((1, 3)))


def test_effort_is_cost_or_rank():
    split = split_of(cost=False)
    assert effort(split.tune)[0].tolist() == [0.0, 1.0, 2.0]
    known = split_of().tune
    assert np.array_equal(effort(known), known.cost_usd)
