"""How flat is the optimum: known answers on a problem whose figures are linear in the traffic sent up."""

import dataclasses
import json

import numpy as np
import pytest
from helpers import make_table, run_cli

from toolkit.evaluation.constraints import parse_constraints
from toolkit.evaluation.metrics import parse_metric
from toolkit.evaluation.slices import coverage
from toolkit.families.thresholds import ConfidenceFamily, ThresholdFamily
from toolkit.families.utility import UtilityFamily
from toolkit.policies.lanes import Lanes
from toolkit.policies.thresholds import UNREACHABLE
from toolkit.problem import RoutingProblem
from toolkit.scorers.base import ScoreTable
from toolkit.search.sensitivity import Tolerance, sensitivities

LANES = Lanes(fallback_tier=0, low_confidence_tier=0)
QUALITY, COST_USD, LATENCY_S = (0.8, 1.0), (0.012, 0.112), (2.0, 6.0)


def linear_problem(*, n=1000, constraints=None, objectives=("cost", "quality"), make_family=None):
    """Scores 0 ... n-1. With the share u on the second tier: quality 0.8 + 0.2 u, cost 0.012 + 0.1 u USD."""
    table = make_table(np.random.default_rng(0), n=n, k=2, n_slices=1)
    rows = np.ones((n, 1))
    table = dataclasses.replace(
        table, quality=rows * QUALITY, cost_usd=rows * COST_USD, latency_s=rows * LATENCY_S, _hash=[]
    )
    scores = ScoreTable(
        score=np.arange(float(n)),
        confidence=np.linspace(0, 1, n),
        quality=rows * QUALITY,
        cost_usd=rows * COST_USD,
    )
    return RoutingProblem(
        table=table,
        family=ThresholdFamily(scores, LANES, 2) if make_family is None else make_family(scores),
        objectives=tuple(parse_metric(name) for name in objectives),
        constraints=parse_constraints(constraints or {}),
        coverage=coverage(table, 20),
    )


def found(problem, t=499.5, tolerance=None):
    """Sensitivity of the one boundary; 499.5 sends half of the thousand queries up."""
    (only,) = sensitivities(problem, np.array([t]), tolerance or Tolerance())
    return only


def test_known_steps_and_range():
    """One step is ten queries. Quality may lose 0.005: two steps up lose 0.004, three 0.006.

    Cost may rise by 5 % of 0.062 USD, 0.0031: three steps down add 0.003, four 0.004.
    """
    s = found(linear_problem())
    assert (s.name, s.value) == ("t_1", 499.5)
    assert s.up == pytest.approx({"cost_usd": -0.001, "quality": -0.002})
    assert s.down == pytest.approx({"cost_usd": 0.001, "quality": 0.002})
    assert (s.low, s.high) == (469.5, 519.5)
    assert not s.at_edge_low and not s.at_edge_high


def test_the_tolerance_sets_the_range():
    s = found(linear_problem(), tolerance=Tolerance(share=0.009, factor=0.02))
    assert (s.low, s.high) == (489.5, 539.5)


def test_only_objectives_count():
    quality = found(linear_problem(objectives=("quality",)))
    assert (quality.low, quality.high) == (299.5, 519.5) and quality.at_edge_low
    assert set(quality.up) == {"quality"}
    cost = found(linear_problem(objectives=("cost",)))
    assert (cost.low, cost.high) == (469.5, 699.5) and cost.at_edge_high and not cost.at_edge_low


def test_a_latency_counts_by_its_factor_and_a_share_by_its_points():
    """Mean latency 2 + 4 u = 4 s may rise by 0.2 s: five steps down, 0.04 s each, the last exactly at the limit."""
    latency = found(linear_problem(objectives=("latency_mean",)), tolerance=Tolerance(factor=0.045))
    assert latency.low == 459.5
    share = found(linear_problem(objectives=("share_over:3",)), tolerance=Tolerance(share=0.025))
    assert share.low == 479.5 and share.at_edge_high
    assert share.down == pytest.approx({"share_over_3s": 0.01})


def test_constraints_that_hold_go_on_holding():
    assert found(linear_problem(constraints={"quality_floor": 0.897})).high == 509.5
    assert found(linear_problem(constraints={"cost_ceiling_usd": 0.0635})).low == 489.5
    both = found(linear_problem(constraints={"quality_floor": 0.8995, "cost_ceiling_usd": 0.0625}))
    assert (both.low, both.value, both.high) == (499.5, 499.5, 499.5)
    assert both.up and both.down


def test_a_constraint_that_is_missed_anyway_does_not_count():
    s = found(linear_problem(constraints={"quality_floor": 0.95}))
    assert (s.low, s.high) == (469.5, 519.5)


def test_where_nothing_changes_the_range_reaches_the_last_step_and_says_so():
    problem = linear_problem(objectives=("quality",))
    object.__setattr__(problem.table, "quality", np.full((1000, 2), 0.9))
    s = found(problem)
    assert (s.low, s.high, s.at_edge_low, s.at_edge_high) == (299.5, 699.5, True, True)


def test_at_the_end_of_the_traffic_there_is_no_step():
    down = found(linear_problem(), t=-UNREACHABLE)
    assert down.down == {} and down.at_edge_low and down.low == -UNREACHABLE
    assert down.up == pytest.approx({"cost_usd": -0.001, "quality": -0.002})
    up = found(linear_problem(), t=UNREACHABLE)
    assert up.up == {} and up.at_edge_high and up.high == UNREACHABLE


@pytest.mark.parametrize("t", [-UNREACHABLE, UNREACHABLE])
def test_with_few_queries_a_sweep_spans_both_unreachable_boundaries(t):
    """Their difference overflows, so the point is not to be found by distance."""
    s = found(linear_problem(n=20), t=t)
    assert s.value == t
    assert s.down == {} if t < 0 else s.up == {}


def test_one_boundary_of_a_group_moves_between_its_neighbours():
    problem = linear_problem(make_family=lambda scores: ThresholdFamily(scores, LANES, 3), objectives=("quality",))
    table = make_table(np.random.default_rng(0), n=1000, k=3, n_slices=1)
    object.__setattr__(problem, "table", dataclasses.replace(table, quality=np.full((1000, 3), 0.9)))
    first, second = sensitivities(problem, np.array([399.5, 429.5]), Tolerance())
    assert (first.name, first.high, second.low) == ("t_1", 429.5, 399.5)
    assert first.low == 199.5 and second.high == 629.5


def test_a_categorical_parameter_is_left_out():
    problem = linear_problem(make_family=lambda scores: ConfidenceFamily(scores, LANES, ("a", "b"), (0.0, 1.0)))
    found = sensitivities(problem, np.array([499.5, 0.5, 1.0]), Tolerance())
    assert [s.name for s in found] == ["t_1", "confidence_floor"]
    floor = found[1]  # below a floor of 0.5 all goes up, and so does all above it by its score
    assert floor.value == 0.5 and floor.up == pytest.approx({"cost_usd": 0.0, "quality": 0.0}, abs=1e-12)
    assert floor.down == pytest.approx({"cost_usd": -0.001, "quality": -0.002})  # ten queries of low score
    assert floor.low == pytest.approx(0.48) and floor.at_edge_high


def test_lambda_and_offsets():
    """All queries leave the second tier at λ = 0.2 / 0.1 = 2; at λ = 1.855 it is 0.0145 of quality ahead.

    λ is searched from 1 to 4, so a step multiplies it by 4^0.01.
    """
    problem = linear_problem(make_family=lambda scores: UtilityFamily(scores, LANES, 2, 0.1))
    lam, offset = sensitivities(problem, np.array([1.855, 0.0]), Tolerance())
    assert (lam.name, offset.name) == ("lambda", "b_1")
    assert lam.high == pytest.approx(1.855 * 4**0.05) and not lam.at_edge_high
    assert lam.low == pytest.approx(1.855 * 4**-0.2) and lam.at_edge_low
    assert lam.up == offset.up == {"cost_usd": 0.0, "quality": 0.0}
    assert offset.low == pytest.approx(-0.014) and not offset.at_edge_low
    assert offset.high == pytest.approx(0.02) and offset.at_edge_high


@pytest.mark.slow
def test_a_run_writes_it_and_its_report_shows_it(tmp_path):
    options = ("data.n_queries=400", "controller.max_evaluations=200", "constraints.quality_floor=0.85")
    result = run_cli("tune", *options, "out=run", cwd=tmp_path)
    assert result.exit_code == 0, result.stderr
    stored = json.loads((tmp_path / "run" / "sensitivity.json").read_text())
    chosen = json.loads((tmp_path / "run" / "policy.json").read_text())["thresholds"]
    assert [s["name"] for s in stored] == ["t_1", "t_2"]
    assert [s["value"] for s in stored] == chosen
    for s in stored:
        assert s["low"] <= s["value"] <= s["high"]
        assert all(set(change) <= {"cost_usd", "quality"} for change in (s["up"], s["down"]))
        assert s["up"] or s["down"]
    report = (tmp_path / "run" / "report.html").read_text()
    assert "range that changes little" in report and "a step up" in report
