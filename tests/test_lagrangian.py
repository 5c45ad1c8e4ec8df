"""`proteus` on thresholds and utilities: known answers, exact optima, constraints, targets out of reach."""

import dataclasses

import numpy as np
import pytest
from helpers import make_table

from simulators.errors import ConfigError
from simulators.recorded import read_recording
from toolkit.evaluation.constraints import parse_constraints
from toolkit.evaluation.contention import make_queue_world
from toolkit.evaluation.metrics import parse_metric
from toolkit.evaluation.slices import coverage
from toolkit.families.make import policy_family
from toolkit.families.thresholds import ConfidenceFamily
from toolkit.policies.lanes import Lanes
from toolkit.problem import RoutingProblem
from toolkit.scorers.base import ScoreTable, cross_fit
from toolkit.scorers.text import TextScorer
from toolkit.search.base import run_search
from toolkit.search.exact import ExactController
from toolkit.search.journal import Journal
from toolkit.search.lagrangian import LagrangianController, LagrangianOptions, objective_of
from toolkit.search.lagrangian_surrogate import SoftFigures, soften

SMALL = LagrangianOptions(rounds=20, steps=8)


def make_problem(
    kind="thresholds", *, n=300, k=3, constraints=None, objectives=("cost", "quality"), offset_range=0.0, noise=0.3
):
    rng = np.random.default_rng(0)
    table = make_table(rng, n=n, k=k)
    predicted = np.clip(table.quality + rng.normal(scale=noise, size=table.quality.shape), 0, 1)
    cost = table.cost_usd * rng.uniform(0.8, 1.2, (n, k))
    score = 1.0 - table.quality[:, 0] + rng.normal(scale=noise, size=n)
    return problem_of(
        table, kind, ScoreTable(score=score, quality=predicted, cost_usd=cost), constraints, objectives, offset_range
    )


def problem_of(table, kind, scores, constraints=None, objectives=("cost", "quality"), offset_range=0.0, lanes=None):
    lanes = lanes or Lanes(fallback_tier=0, low_confidence_tier=0)
    return RoutingProblem(
        table=table,
        family=policy_family(kind, scores, lanes, table.n_tiers, offset_range=offset_range),
        objectives=tuple(parse_metric(name) for name in objectives),
        constraints=parse_constraints(constraints or {}),
        coverage=coverage(table, 5),
    )


def two_tiers(n=2000):
    """Score s uniform on [0, 1]; the dearer tier costs 0.001 USD more and is better by 0.4 s."""
    table = make_table(np.random.default_rng(0), n=n, k=2, n_slices=1)
    s = (np.arange(n) + 0.5) / n
    table = dataclasses.replace(
        table,
        quality=np.stack([np.full(n, 0.5), 0.5 + 0.4 * s], axis=1),
        cost_usd=np.tile([0.001, 0.002], (n, 1)),
    )
    return table, ScoreTable(score=s, quality=table.quality, cost_usd=table.cost_usd)


def controller_of(problem, targets, options=SMALL, seed=3):
    return LagrangianController(
        problem, options=options, targets=np.asarray(targets, dtype=float), rng=np.random.default_rng(seed)
    )


def search(problem, targets, options=SMALL, seed=3):
    controller = controller_of(problem, targets, options, seed)
    return controller, run_search(problem, controller)


def optimum(problem, targets, boundaries="all"):
    """Objective of the best enumerated candidate for each target; infinite where none will do."""
    controller, parts = ExactController(problem, boundaries=boundaries, max_evaluations=2_000_000), []
    while (params := controller.ask()) is not None:
        parts.append(problem.evaluate_params(params))
    column = objective_of(problem).column
    best = np.full(len(targets), np.inf)
    for part in parts:
        good = part.feasible[None, :] & (part.columns["quality"][None, :] >= np.asarray(targets)[:, None])
        best = np.minimum(best, np.where(good, part.columns[column][None, :], np.inf).min(axis=1))
    return best


@pytest.mark.parametrize("kind", ["thresholds", "utility"])
@pytest.mark.parametrize("multiplier", ["gradient", "pid"])
@pytest.mark.slow
def test_two_tiers_known_threshold_and_multiplier(kind, multiplier):
    table, scores = two_tiers()
    targets = np.array([0.55, 0.60, 0.65])
    options = dataclasses.replace(SMALL, rounds=30, multiplier=multiplier)
    controller, _ = search(problem_of(table, kind, scores), targets, options)
    found = controller.map
    t = np.sqrt(1.0 - (targets - 0.5) / 0.2)  # E[0.4 s; s >= t] = τ - 0.5
    expected = t if kind == "thresholds" else 0.4 * t / 0.001
    np.testing.assert_allclose(found.params[:, 0], expected, rtol=0.01)
    np.testing.assert_allclose(found.objective, 0.001 * (2.0 - t), rtol=0.003)
    np.testing.assert_allclose(found.multipliers[:, -1], 0.001 / (0.4 * t), rtol=0.03)  # dC/dQ at the margin


def test_complementary_slackness_at_the_end():
    problem = make_problem(n=600, constraints={"cost_ceiling_usd": 1.0, "bounds": ["quality@slice1 >= 0.6"]})
    targets = np.linspace(0.72, 0.78, 4)
    controller, _ = search(problem, targets, dataclasses.replace(SMALL, rounds=40))
    found = controller.map
    assert found.constraints == ("cost_ceiling_usd", "quality@slice1", "target")
    assert found.feasible.all() and (found.multipliers >= 0).all()
    slack = problem.evaluate_params(found.params)
    assert (slack.slack[:, 0] > 0.9).all() and (found.multipliers[:, 0] == 0).all()  # far from binding: price 0
    assert (found.multipliers[:, -1] > 0).all()
    paid = found.multipliers[:, -1] * (found.quality - targets)
    assert (np.abs(paid) <= 0.05 * found.objective).all()


@pytest.mark.parametrize(
    ("kind", "k", "n", "most"),
    [
        ("thresholds", 2, 300, 0.005),
        ("thresholds", 3, 200, 0.03),
        ("utility", 2, 300, 0.005),
        ("utility", 3, 300, 0.01),
    ],
)
def test_close_to_the_exact_optimum(kind, k, n, most):
    problem = make_problem(kind, k=k, n=n)
    qualities = problem.evaluate_params(problem.corners()).columns["quality"]
    targets = np.linspace(qualities.min() + 0.01, qualities.max() - 0.01, 8)
    controller, result = search(problem, targets, dataclasses.replace(SMALL, rounds=30))
    best = optimum(problem, targets)
    assert np.isfinite(best).all()
    ratio = controller.map.objective / best
    assert (ratio >= 1 - 1e-9).all() and (ratio <= 1 + most).all(), ratio
    assert len(result.evaluation) <= controller.total == 240


@pytest.mark.parametrize("kind", ["thresholds", pytest.param("utility", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "constraints",
    [
        {"cost_ceiling_usd": 4e-4, "slice_floor": 0.68},
        {"bounds": ["share_over:4 <= 0.15"]},
        {"p95_ceiling_s": 4.5, "bounds": ["quality@slice0 >= 0.7"]},
        {"bounds": ["slice_loss:tier2 <= 0.12", "slice_cvar:0.5 >= 0.65"], "mean_latency_ceiling_s": 2.4},
        {"slice_floor_lcb": 0.6, "p50_ceiling_s": 2.2},
    ],
)
@pytest.mark.slow
def test_constraints_together(kind, constraints):
    problem = make_problem(kind, n=150, constraints=constraints)
    targets = np.array([0.66, 0.69, 0.72, 0.75, 0.9])
    controller, _ = search(problem, targets, dataclasses.replace(SMALL, rounds=30))
    found, best = controller.map, optimum(problem, targets)
    np.testing.assert_array_equal(found.feasible, np.isfinite(best))
    ok = found.feasible
    assert ok.any() and not ok.all()
    assert problem.evaluate_params(found.params[ok]).feasible.all()
    assert (found.objective[ok] <= 1.05 * best[ok]).all(), found.objective[ok] / best[ok]


@pytest.mark.parametrize("kind", ["thresholds", "utility"])
def test_a_target_out_of_reach_is_said_to_be(kind):
    problem = make_problem(kind)
    controller, result = search(problem, [0.6, 0.7, 0.95])
    found, quality = controller.map, result.evaluation.columns["quality"]
    assert found.feasible.tolist() == [True, True, False] and found.reachable == 0.7
    assert np.isnan(found.params[2]).all() and np.isnan(found.objective[2])
    assert found.quality[2] == quality.max() < 0.95
    nothing = controller_of(problem_of(problem.table, kind, problem.family.scores, {"quality_floor": 0.99}), [0.6])
    run_search(nothing._problem, nothing)
    assert not nothing.map.feasible.any() and np.isnan(nothing.map.reachable) and np.isnan(nothing.map.quality[0])


def test_the_map_is_monotone_and_asks_for_what_the_family_can_run():
    problem = make_problem(k=4, n=200)
    controller, result = search(problem, np.linspace(0.5, 0.8, 10))
    found = controller.map
    assert (np.diff(found.objective[found.feasible]) >= 0).all()
    assert (np.diff(result.evaluation.params, axis=1) >= 0).all()
    assert np.isin(result.evaluation.params, problem.family.order.boundaries).all()


def test_offsets_are_searched_where_the_family_has_them():
    plain, free = make_problem("utility"), make_problem("utility", offset_range=0.3)
    targets = np.linspace(0.64, 0.78, 8)
    options = dataclasses.replace(SMALL, rounds=40)
    a, b = search(plain, targets, options)[0].map, search(free, targets, options)[0].map
    assert not a.params[:, 1:].any() and b.params[:, 1:].any() and (np.abs(b.params[:, 1:]) <= 0.3).all()
    assert (b.objective <= 1.01 * a.objective).all() and b.objective.mean() < 0.95 * a.objective.mean()


def test_another_objective():
    problem = make_problem("utility", objectives=("latency_mean", "quality"))
    controller, _ = search(problem, [0.68, 0.72])
    assert "minimising latency_mean_s" in controller.exactness
    np.testing.assert_allclose(controller.map.objective, optimum(problem, [0.68, 0.72]), rtol=0.02)
    assert objective_of(make_problem(objectives=("quality", "worst_slice"))).column == "cost_usd"
    within = make_problem(objectives=("share_within:2", "quality"))
    found = search(within, [0.6])[0].map
    assert found.objective[0] == pytest.approx(
        search(within, [0.6])[1].evaluation.columns["share_within_2s"].max(), abs=0.2
    )


@pytest.mark.slow
def test_latency_under_load_is_the_simulated_one():
    free = make_problem(n=150, constraints={"p95_ceiling_s": 8.0})
    world = make_queue_world(free.table, rate_per_s=2.0, slots={"tier2": 1}, rng=np.random.default_rng(5))
    problem = RoutingProblem(
        table=free.table,
        family=free.family,
        objectives=free.objectives,
        constraints=free.constraints,
        coverage=free.coverage,
        world=world,
    )
    targets = np.array([0.76, 0.82, 0.85])
    found, recorded = search(problem, targets)[0].map, search(free, targets)[0].map
    best = optimum(problem, targets, 40)
    np.testing.assert_array_equal(found.feasible, np.isfinite(best))
    assert recorded.feasible.all() and found.feasible.tolist() == [True, True, False]  # the queue is what forbids it
    assert problem.evaluate_params(found.params[:2]).feasible.all()
    assert (found.objective[:2] <= 1.05 * best[:2]).all()


def test_pinned_queries_count_but_do_not_move():
    problem = make_problem()
    score = problem.family.scores.score.copy()
    score[:100] = np.nan
    scores = dataclasses.replace(problem.family.scores, score=score)
    pinned = problem_of(problem.table, "thresholds", scores, lanes=Lanes(fallback_tier=2, low_confidence_tier=0))
    soft = soften(pinned.family, 2048, np.random.default_rng(0))
    figures = SoftFigures(pinned, parse_metric("cost"), soft)
    x = np.array([[0.3, 0.6]])
    soft_cost = figures.values(soft.probabilities(x, 1e-6))[0, 0]
    assert soft_cost == pytest.approx(pinned.evaluate_params(soft.params(x)).columns["cost_usd"][0], rel=1e-6)
    none_free = dataclasses.replace(scores, score=np.full(300, np.nan))
    search(problem_of(problem.table, "thresholds", none_free), [0.5], LagrangianOptions(rounds=3, steps=2))


CONSTRAINTS = {"slice_floor": 0.5, "p95_ceiling_s": 4.0, "bounds": ["share_over:3 <= 0.2", "cost@slice1 <= 0.001"]}


@pytest.mark.parametrize("kind", ["thresholds", "utility"])
def test_gradients_against_finite_differences(kind):
    problem = make_problem(kind, offset_range=0.2, constraints=CONSTRAINTS)
    soft = soften(problem.family, 2048, np.random.default_rng(0))
    figures = SoftFigures(problem, parse_metric("cost"), soft)
    rng = np.random.default_rng(1)
    x = soft.project(rng.uniform(0.3, 0.7, (4, len(problem.space.encode(problem.corners())[0]))))
    weights = rng.normal(size=(4, figures.singles.shape[1])) / np.abs(figures.singles).max(axis=0)

    def value(at):
        return (figures.values(soft.probabilities(at, 0.3)) * weights).sum(axis=1)

    gradient = soft.pull_back(x, soft.probabilities(x, 0.3), figures.gain(weights), 0.3)
    for i in range(1 if kind == "utility" else 0, x.shape[1]):  # the path's own slope is smoothed on purpose
        step = np.zeros_like(x)
        step[:, i] = 1e-5
        np.testing.assert_allclose(gradient[:, i], (value(x + step) - value(x - step)) / 2e-5, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("kind", ["thresholds", "utility"])
def test_cold_soft_figures_are_the_hard_ones(kind):
    problem = make_problem(kind, constraints={"bounds": ["share_over:3 <= 0.2", "quality@slice1 >= 0.5"]})
    soft = soften(problem.family, 2048, np.random.default_rng(0))
    figures = SoftFigures(problem, parse_metric("cost"), soft)
    x = np.sort(np.random.default_rng(2).random((5, 2 if kind == "thresholds" else 1)), axis=1)
    params = soft.params(x)
    if kind == "utility":
        at = np.searchsorted(problem.family.path.lambdas, params[:, 0])
        x = 1.0 - at[:, None] / (len(problem.family.path.lambdas) - 1)
    values = figures.values(soft.probabilities(x, 1e-7))
    hard = problem.evaluate_params(params)
    np.testing.assert_allclose(values[:, 0], hard.columns["cost_usd"], rtol=0.02)
    short = figures.shortfalls(values, np.full(5, 0.7))[0]
    np.testing.assert_allclose(short[:, :2], -hard.slack, atol=0.01)
    np.testing.assert_allclose(short[:, 2], 0.7 - hard.columns["quality"], atol=0.01)


def test_a_failed_evaluation_leaves_its_multipliers_alone():
    problem = make_problem()

    class Failing(RoutingProblem):
        def evaluate_params(self, params):
            found = super().evaluate_params(params)
            found.Y[0], found.columns["quality"][0] = np.nan, np.nan
            return found

    problem.__class__ = Failing
    controller = controller_of(problem, [0.75, 0.76])
    before = controller.multipliers.copy()
    controller.tell(problem.evaluate_params(controller.ask()))
    after = controller.multipliers
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[1] != after[1]).any()
    result = run_search(problem, controller_of(problem, [0.75, 0.76]))
    assert result.n_failed > 0


@pytest.mark.parametrize("kind", ["thresholds", "utility"])
def test_same_seed_same_run_and_a_journal_is_replayed(kind, tmp_path):
    targets = [0.65, 0.7, 0.75]
    problem = make_problem(kind, constraints={"slice_floor": 0.5})
    first, whole = controller_of(problem, targets), None
    whole = run_search(problem, first, Journal(tmp_path / "a.jsonl"))
    raw = (tmp_path / "a.jsonl").read_bytes()
    (tmp_path / "b.jsonl").write_bytes(raw[: len(raw) // 2])
    for name, replayed in (("a", len(whole.evaluation)), ("b", None)):
        again = controller_of(problem, targets)
        result = run_search(problem, again, Journal(tmp_path / f"{name}.jsonl"))
        assert 0 < result.n_replayed == (replayed or result.n_replayed)
        np.testing.assert_array_equal(whole.evaluation.params, result.evaluation.params)
        np.testing.assert_array_equal(first.map.params, again.map.params)
        np.testing.assert_array_equal(first.map.multipliers, again.map.multipliers)


@pytest.mark.parametrize(
    "options",
    [{"rounds": 0}, {"step": (0.1, 0.2)}, {"temperature": (0.1, 0.0)}, {"multiplier": "newton"}, {"dual_step": 0.0}],
)
def test_senseless_options_are_refused(options):
    with pytest.raises(ConfigError, match="controller"):
        LagrangianOptions(**options)


def test_senseless_targets_and_families_are_refused():
    for targets in ([], [1.2], [np.nan]):
        with pytest.raises(ConfigError, match="requested qualities"):
            controller_of(make_problem(), targets)
    problem = make_problem()
    scores = dataclasses.replace(problem.family.scores, confidence=np.full(300, 0.5))
    problem.family = ConfidenceFamily(scores, problem.family.lanes, problem.table.tiers, (0.0, 1.0))
    with pytest.raises(ConfigError, match="space=confidence cannot be softened"):
        controller_of(problem, [0.6])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "boundaries", "most"), [("utility", "all", 0.02), ("thresholds", 100, 0.05)])
def test_paretobandit_against_the_exact_optimum(kind, boundaries, most, data_dir):
    folder = data_dir / "outcomes"
    table = read_recording(
        folder / "paretobandit_queries.parquet", folder / "paretobandit_outcomes.parquet", None
    ).table
    table = table.take(np.sort(np.random.default_rng(0).permutation(table.n_queries)[:1200]))
    scorer = TextScorer(ridge_alpha=1.0, neighbours=20, neighbour_weight=0.5, seed=0)
    problem = problem_of(table, kind, cross_fit(scorer, table, folds=5, rng=np.random.default_rng(1)))
    targets = np.linspace(0.80, 0.925, 8)
    controller, _ = search(problem, targets, LagrangianOptions())
    assert (controller.map.objective <= (1 + most) * optimum(problem, targets, boundaries)).all()
