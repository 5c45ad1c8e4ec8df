"""Contract of every controller; enumeration against brute force; spaces, journal, choice."""

import itertools
import json
import math

import numpy as np
import pytest
from helpers import make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.errors import ConfigError, InfeasibleError, InputDataError
from toolkit.evaluation.constraints import parse_constraints, restore_constraints
from toolkit.evaluation.metrics import parse_metric
from toolkit.evaluation.slices import coverage
from toolkit.families.make import policy_family
from toolkit.pareto.axes import make_axes
from toolkit.pareto.choose import RULES, choose
from toolkit.pareto.front import feasible_front, non_dominated
from toolkit.policies.lanes import Lanes
from toolkit.problem import RoutingProblem
from toolkit.scorers.base import ScoreTable
from toolkit.search.base import run_search
from toolkit.search.exact import ExactController
from toolkit.search.journal import Journal
from toolkit.search.lagrangian import LagrangianController, LagrangianOptions
from toolkit.search.mobo import MoboController, MoboOptions
from toolkit.search.sobol import SobolController
from toolkit.spaces import cube_from_fractions, fractions_from_cube


def make_problem(
    kind="thresholds", *, n=80, k=3, constraints=None, objectives=("cost", "quality"), levels=None, seed=0
):
    rng = np.random.default_rng(seed)
    table = make_table(rng, n=n, k=k)
    score = rng.normal(size=n) if levels is None else rng.integers(0, levels, n) / levels
    predicted = np.clip(table.quality + rng.normal(scale=0.3, size=table.quality.shape), 0, 1)
    scores = ScoreTable(score=score, quality=predicted, cost_usd=table.cost_usd * rng.uniform(0.8, 1.2, (n, k)))
    return RoutingProblem(
        table=table,
        family=policy_family(kind, scores, Lanes(fallback_tier=0, low_confidence_tier=0), k, offset_range=0.1),
        objectives=tuple(parse_metric(name) for name in objectives),
        constraints=parse_constraints(constraints or {}),
        coverage=coverage(table, 5),
    )


CONTROLLERS = {
    "exact": lambda problem: ExactController(problem, boundaries="auto", max_evaluations=400),
    "sobol": lambda problem: SobolController(problem, budget=100, rng=np.random.default_rng(7)),
    "mobo": lambda problem: MoboController(
        problem,
        axes=make_axes(problem.objectives, problem.evaluate_params(problem.corners()).columns, margin=0.1),
        budget=20,
        options=MoboOptions(model="gp"),
        design_rng=np.random.default_rng(1),
        rng=np.random.default_rng(2),
    ),
    "proteus": lambda problem: LagrangianController(
        problem,
        options=LagrangianOptions(rounds=8, steps=5),
        targets=np.linspace(0.6, 0.8, 10),
        rng=np.random.default_rng(3),
    ),
}


@pytest.mark.parametrize("kind", ["thresholds", "utility"])
@pytest.mark.parametrize("name", CONTROLLERS)
class TestControllerContract:
    def test_runs_to_its_end_and_counts(self, name, kind):
        problem = make_problem(kind)
        seen = []
        controller = CONTROLLERS[name](problem)
        result = run_search(problem, controller, on_progress=lambda done, total: seen.append((done, total)))
        assert result.controller == name == controller.name
        assert len(result.evaluation) == seen[-1][0] <= seen[-1][1]
        assert result.n_failed == 0 and result.exactness
        assert len(result.front) > 0

    def test_no_vector_twice(self, name, kind):
        result = run_search(problem := make_problem(kind), CONTROLLERS[name](problem))
        rows = {row.tobytes() for row in result.evaluation.params}
        assert len(rows) == len(result.evaluation)

    @pytest.mark.slow
    def test_same_seed_same_result(self, name, kind):
        first, second = (run_search(p, CONTROLLERS[name](p)) for p in (make_problem(kind), make_problem(kind)))
        np.testing.assert_array_equal(first.evaluation.params, second.evaluation.params)
        np.testing.assert_array_equal(first.evaluation.Y, second.evaluation.Y)

    def test_a_cut_off_journal_ends_with_the_same_result(self, name, kind, tmp_path):
        path, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
        problem = make_problem(kind, constraints={"quality_floor": 0.5})
        whole = run_search(problem, CONTROLLERS[name](problem), Journal(path))
        raw = path.read_bytes()
        cut.write_bytes(raw[: int(len(raw) * 0.6)])
        resumed = run_search(problem, CONTROLLERS[name](problem), Journal(cut))
        assert 0 < resumed.n_replayed < len(whole.evaluation)
        np.testing.assert_array_equal(whole.evaluation.Y, resumed.evaluation.Y)
        np.testing.assert_array_equal(whole.front, resumed.front)
        keep = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in path.read_text().splitlines()]
        back = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in cut.read_text().splitlines()]
        assert keep == back

    def test_no_candidate_beats_the_front(self, name, kind):
        result = run_search(problem := make_problem(kind), CONTROLLERS[name](problem))
        front = result.evaluation.Y[result.front]
        for y in result.evaluation.Y:
            assert ((front >= y - 1e-12).all(axis=1)).any()


def test_exact_enumerates_every_assignment_that_thresholds_can_make():
    problem = make_problem(n=12, k=3, levels=5)
    controller = ExactController(problem, boundaries="all", max_evaluations=1000)
    result = run_search(problem, controller)
    assigned = problem.family.assign(result.evaluation.params)
    found = {row.tobytes() for row in assigned}
    cuts = [-1.0, *np.unique(problem.family.scores.score), 2.0]
    for pair in itertools.combinations_with_replacement(cuts, 2):
        row = problem.family.assign(np.array([pair]))[0]
        assert row.tobytes() in found
    d, b = 2, len(problem.family.order.boundaries)
    assert len(result.evaluation) == math.comb(b + d - 1, d) == controller.total


def test_exact_limits_are_stated():
    problem = make_problem(n=200, k=4)
    with pytest.raises(
        ConfigError, match=r"201 boundaries give 1,373,701 threshold vectors .* controller.boundaries=\d+"
    ):
        ExactController(problem, boundaries="all", max_evaluations=20_000)
    controller = ExactController(problem, boundaries="auto", max_evaluations=20_000)
    assert 15_000 < controller.total <= 20_000
    assert "grid of 48 of 201" in controller.exactness
    with pytest.raises(ConfigError, match="distinct policies, over controller.max_evaluations=10"):
        ExactController(make_problem("utility"), boundaries="all", max_evaluations=10)
    for boundaries, total in (("auto", 10), (7, 7)):
        controller = ExactController(make_problem("utility"), boundaries=boundaries, max_evaluations=10)
        assert controller.total == total and f"{total} of the" in controller.exactness
    with pytest.raises(ConfigError, match="at least 2"):
        ExactController(make_problem(), boundaries=1, max_evaluations=10)


def test_a_sampler_never_beats_full_enumeration():
    problem = make_problem(n=40, k=3)
    exact = run_search(problem, ExactController(problem, boundaries="all", max_evaluations=10_000))
    sample = run_search(problem, SobolController(problem, budget=200, rng=np.random.default_rng(0)))
    front = exact.evaluation.Y[exact.front]
    assert all((front >= y - 1e-12).all(axis=1).any() for y in sample.evaluation.Y)


def test_sobol_starts_with_the_single_tiers_and_stops_when_the_space_is_empty():
    problem = make_problem(n=50, k=3, levels=2)
    result = run_search(problem, SobolController(problem, budget=300, rng=np.random.default_rng(0)))
    assert (result.evaluation.tier_shares[:3].max(axis=1) == 1).all()
    assert len(result.evaluation) == 6
    assert "no more distinct" in result.exactness


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
@settings(deadline=None)
def test_stick_breaking_round_trip(row):
    X = np.array([row])
    fractions = fractions_from_cube(X)
    assert fractions.sum() == pytest.approx(1.0)
    assert (fractions >= -1e-15).all()
    np.testing.assert_allclose(fractions_from_cube(cube_from_fractions(fractions)), fractions, atol=1e-7)


def test_stick_breaking_is_uniform_on_the_simplex():
    fractions = fractions_from_cube(np.random.default_rng(0).random((20_000, 3)))
    np.testing.assert_allclose(fractions.mean(axis=0), 0.25, atol=0.01)
    np.testing.assert_allclose(fractions.var(axis=0), 3 / (16 * 5), atol=0.003)


@pytest.mark.parametrize("kind", ["thresholds", "utility"])
def test_decode_of_encode_acts_the_same(kind):
    problem = make_problem(kind, levels=7)
    params = problem.space.decode(np.random.default_rng(1).random((50, problem.space.dim)))
    again = problem.space.decode(problem.space.encode(params))
    np.testing.assert_allclose(problem.evaluate_params(again).Y, problem.evaluate_params(params).Y, rtol=1e-9)
    np.testing.assert_allclose(problem.evaluate(problem.space.encode(params)).Y, problem.evaluate_params(params).Y)


def test_signs():
    problem = make_problem(constraints={"quality_floor": 0.5, "cost_ceiling_usd": 1.0, "p95_ceiling_s": 3.0})
    found = problem.evaluate(np.array([[0.5, 0.5]]))
    cost, quality, p95 = (found.columns[name][0] for name in ("cost_usd", "quality", "latency_p95_s"))
    np.testing.assert_allclose(found.Y[0], [-cost, quality])
    np.testing.assert_allclose(found.slack[0], [quality - 0.5, 1.0 - cost, 3.0 - p95])


def test_front_known_answer():
    Y = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0], [0.5, 0.5], [1.0, 1.0]])
    assert non_dominated(Y).tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_chooses_on_the_front(rule):
    problem = make_problem(constraints={"quality_floor": 0.5})
    result = run_search(problem, CONTROLLERS["exact"](problem))
    if rule == "min_fleet_cost":  # tests/test_fleet_choice.py has a fleet
        with pytest.raises(ConfigError, match="needs a fleet"):
            choose(result.evaluation, result.front, rule, problem.constraints)
        return
    found = choose(result.evaluation, result.front, rule, problem.constraints)
    assert found.row in result.front and found.because
    columns = result.evaluation.columns
    if rule in {"min_cost", "auto"}:
        assert columns["cost_usd"][found.row] == columns["cost_usd"][result.evaluation.feasible].min()
    if rule == "max_quality":
        assert columns["quality"][found.row] == columns["quality"][result.evaluation.feasible].max()


def test_infeasible_names_what_binds_and_the_closest_point():
    problem = make_problem(constraints={"quality_floor": 0.999, "cost_ceiling_usd": 1e9})
    result = run_search(problem, CONTROLLERS["exact"](problem))
    assert len(feasible_front(result.evaluation)) == 0
    with pytest.raises(InfeasibleError) as error:
        choose(result.evaluation, result.front, "auto", problem.constraints)
    text = str(error.value)
    assert "quality_floor=0.999 binds (out of reach alone" in text and "Closest point: quality=" in text
    assert "cost_ceiling_usd" not in text and "\n" not in text


def test_a_foreign_journal_is_refused(tmp_path):
    path = tmp_path / "e.jsonl"
    run_search(problem := make_problem(), CONTROLLERS["exact"](problem), Journal(path))
    with pytest.raises(InputDataError, match="another search|not a journal"):
        run_search(problem := make_problem(seed=1), CONTROLLERS["exact"](problem), Journal(path))
    path.write_text("not json\n")
    with pytest.raises(InputDataError, match="not a journal"):
        run_search(problem, CONTROLLERS["exact"](problem), Journal(path))


def test_failed_evaluations_are_counted_not_zero(tmp_path):
    problem = make_problem()
    path = tmp_path / "e.jsonl"

    class Failing(RoutingProblem):
        def evaluate_params(self, params):
            found = super().evaluate_params(params)
            found.Y[0] = np.nan
            found.columns["quality"][0] = np.nan
            return found

    problem.__class__ = Failing
    result = run_search(problem, CONTROLLERS["sobol"](problem), Journal(path))
    assert result.n_failed > 0
    failed = [json.loads(line) for line in path.read_text().splitlines() if '"failed"' in line]
    assert len(failed) == result.n_failed
    assert failed[0]["objectives"]["quality"] is None
    assert not set(np.flatnonzero(~result.evaluation.ok)) & set(result.front)


@pytest.mark.parametrize(
    "raw",
    [
        {"quality_floor": 1.2},
        {"quality_floor": True},
        {"cost_ceiling_usd": 0},
        {"p95_ceiling_s": -1},
        {"quality_flor": 0.9},
        {"bounds": ["quality <= 0.5"]},
        {"bounds": ["cost >= 0.5"]},
        {"bounds": ["cost < 1"]},
        {"bounds": ["cost <= abc"]},
        {"quality_floor": 0.5, "bounds": ["quality >= 0.5", "quality >= 0.6"]},
    ],
)
def test_senseless_constraints_are_refused(raw):
    with pytest.raises(ConfigError):
        parse_constraints(raw)


def test_constraints_survive_policy_json():
    found = parse_constraints({"quality_floor": 0.9, "bounds": ["quality@a/b >= 0.8", "share_over:5 <= 0.1"]})
    assert restore_constraints({c.name: c.limit for c in found}) == found
