"""Robust figures over covered groups: known answers, properties, the same on every estimator, and in a whole tune."""

import dataclasses
import gc
import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import make_table, run_cli
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments import tune_output
from simulators.errors import ConfigError
from toolkit.certify.evidence import gather_evidence
from toolkit.evaluation import robust
from toolkit.evaluation.constraints import parse_constraints, restore_constraints
from toolkit.evaluation.contention import ContendedEstimator, make_queue_world
from toolkit.evaluation.estimators import AssignmentEstimator
from toolkit.evaluation.metrics import HEADLINE, parse_metric
from toolkit.evaluation.path import LambdaPath, PathEstimator
from toolkit.evaluation.slices import coverage
from toolkit.evaluation.thresholds import ScoreOrder, ThresholdEstimator
from toolkit.families.make import policy_family
from toolkit.pareto.axes import make_axes, restore_axes
from toolkit.pareto.choose import choose
from toolkit.policies.lanes import Lanes
from toolkit.problem import RoutingProblem
from toolkit.report.wording import column_label
from toolkit.scorers.base import ScoreTable
from toolkit.search.base import run_search
from toolkit.search.exact import ExactController
from toolkit.search.mobo import MoboController, MoboOptions
from toolkit.search.sensitivity import Tolerance, sensitivities
from toolkit.search.sobol import SobolController
from toolkit.statistics import DISTINCT, estimate_mean

LANES = Lanes(fallback_tier=0, low_confidence_tier=0)
ROBUST = ("worst_slice_lcb", "slice_cvar:0.3", "slice_loss:tier2", "slice_loss_ucb:tier2")


def slices_of(*groups):
    """A table of slices `s0`, `s1`, ...; each group is `N_g x K` qualities."""
    quality = np.concatenate([np.asarray(g, dtype=np.float64) for g in groups])
    n, k = quality.shape
    table = make_table(np.random.default_rng(0), n=n, k=k)
    return dataclasses.replace(
        table,
        quality=quality,
        slices=tuple(f"s{g}" for g in range(len(groups))),
        slice_code=np.repeat(np.arange(len(groups)), [len(g) for g in groups]),
        _hash=[],
    )


def constant(n, *quality):
    """`n x K`, every query alike."""
    return np.tile(quality, (n, 1))


def value(table, name, tier=0, minimum=1):
    """One metric where the policy is one tier, or `tier: N`."""
    assignment = np.broadcast_to(np.asarray(tier, dtype=np.int8), (1, table.n_queries))
    return float(AssignmentEstimator(table, coverage(table, minimum), assignment).value(parse_metric(name))[0])


# CVaR over groups


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (1e-9, 0.2),
        (0.05, 0.2),
        (0.1, 0.2),
        (0.2, (10 * 0.2 + 10 * 0.5) / 20),  # half of the second group
        (0.3, (10 * 0.2 + 20 * 0.5) / 30),
        (0.65, (10 * 0.2 + 20 * 0.5 + 35 * 0.9) / 65),
        (1.0, (10 * 0.2 + 20 * 0.5 + 70 * 0.9) / 100),
    ],
)
def test_cvar_counts_the_last_group_in_part(share, expected):
    table = slices_of(constant(70, 0.9, 1.0), constant(10, 0.2, 1.0), constant(20, 0.5, 1.0))
    assert value(table, f"slice_cvar:{share}") == pytest.approx(expected, rel=1e-12)


def test_cvar_looks_at_covered_traffic_and_takes_merged_slices_as_one_group():
    """Slices of 12 and 8 queries are one group of 20 at 0.44; one of 5 with no other small one is in no group."""
    table = slices_of(constant(60, 0.8, 1.0), constant(12, 0.6, 1.0), constant(8, 0.2, 1.0))
    assert coverage(table, 20).groups == ("s0", "other")
    assert value(table, "slice_cvar:0.25", minimum=20) == pytest.approx(0.44)
    assert value(table, "slice_cvar:1", minimum=20) == pytest.approx((60 * 0.8 + 20 * 0.44) / 80)
    few = slices_of(constant(60, 0.8, 1.0), constant(5, 0.0, 1.0))
    assert coverage(few, 20).groups == ("s0",)
    assert value(few, "slice_cvar:1", minimum=20) == pytest.approx(0.8)


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_one_group_is_its_own_tail(share):
    assert value(slices_of(constant(30, 0.7, 1.0)), f"slice_cvar:{share}") == pytest.approx(0.7)
    assert robust.cvar_of_means(np.array([0.7]), np.array([30]), share) == pytest.approx(0.7)


# Bounds of the worst group


def test_lower_bound_of_thirty_right_answers():
    """No spread at all, so two pseudo-observations lie at 0: 30 of 32, t with 29 degrees of freedom."""
    centre = 30 / 32
    half = stats.t.ppf(0.95, 29) * math.sqrt(30 / 29 * centre * (1 - centre) / 32)
    assert value(slices_of(constant(30, 1.0, 1.0)), "worst_slice_lcb") == pytest.approx(centre - half, rel=1e-12)
    assert centre - half < 0.05 ** (1 / 30), "not above the exact bound"


def test_the_lowest_bound_may_belong_to_the_smaller_group_not_to_the_lower_mean():
    right = np.zeros((1000, 2))
    right[:880] = 1.0
    small = np.zeros((20, 2))
    small[:18] = 1.0
    large, both = slices_of(right), slices_of(right, small)
    assert value(both, "worst_slice") == value(large, "worst_slice") == 0.88
    assert value(both, "worst_slice_lcb") == pytest.approx(value(slices_of(small), "worst_slice_lcb"), rel=1e-12)
    assert value(both, "worst_slice_lcb") < value(large, "worst_slice_lcb") < 0.88


def test_the_bound_is_that_of_the_group_alone():
    rng = np.random.default_rng(3)
    quality = rng.uniform(0.2, 0.8, (50, 2))
    quality[0, 1], quality[1, 1] = 0.1, 0.9  # the ends come from all tiers, not from the chosen one
    table = slices_of(quality, constant(200, 1.0, 1.0))
    values = np.append(quality[:, 0], 0.1)
    error = math.sqrt(50 / 49 * ((values - values.mean()) ** 2).sum()) / 51
    expected = values.mean() - stats.t.ppf(0.95, 49) * error
    assert value(table, "worst_slice_lcb") == pytest.approx(expected, rel=1e-12)
    quality[:2, 1] = quality[:2, 0].min(), quality[:, 0].max()
    quality[:, 1] = np.clip(quality[:, 1], quality[:, 0].min(), quality[:, 0].max())
    known = estimate_mean(quality[:, 0], bounds=(0.0, 1.0)).lower(0.05)
    assert value(slices_of(quality), "worst_slice_lcb") == pytest.approx(known, rel=1e-12)


@pytest.mark.parametrize(("different", "expected"), [(DISTINCT - 1, (0.0, 1.0, 2)), (DISTINCT, (0.4, 0.6, 1))])
def test_a_group_shows_its_range_with_enough_values_that_differ(different, expected):
    quality = constant(40, 0.5, 0.5)
    quality.ravel()[:different] = np.linspace(0.4, 0.6, different)
    table = slices_of(quality, constant(40, 0.5, 0.5))
    ends = robust.quality_ends(table, coverage(table, 20))
    assert (ends.low[0], ends.high[0], ends.pseudo[0]) == expected
    assert (ends.low[1], ends.high[1], ends.pseudo[1]) == (0.0, 1.0, 2)


def test_the_ends_are_looked_up_once_per_table_and_forgotten_with_it(monkeypatch):
    looked, look = [], robust._look
    monkeypatch.setattr(robust, "_look", lambda *args: looked.append(args[2]) or look(*args))
    table = slices_of(constant(40, 0.5, 0.7))
    cover, assignment, before = coverage(table, 20), np.zeros((1, 40), dtype=np.int8), len(robust._KNOWN)
    for _ in range(3):
        estimator = AssignmentEstimator(table, cover, assignment)
        for name in ("worst_slice_lcb", "slice_loss_ucb:tier0", "slice_loss_ucb:tier1"):
            estimator.value(parse_metric(name))
    assert looked == [None, 0, 1]
    assert len(robust._KNOWN) == before + 3
    del table, cover, estimator
    gc.collect()
    assert len(robust._KNOWN) <= before


def test_one_query_shows_nothing():
    table = slices_of(constant(1, 0.9, 0.8), constant(30, 0.9, 0.8))
    assert value(table, "worst_slice_lcb") == 0.0
    assert value(table, "slice_loss_ucb:tier1") == 1.0


def test_the_bound_of_the_worst_of_many_groups_needs_no_correction():
    """Twenty groups, 4,000 draws: the smallest bound is too high at most as often as the worst group's own."""
    rng = np.random.default_rng(0)
    truth, n = np.linspace(0.8, 0.95, 20), 60
    right = rng.binomial(n, truth, (4000, 20)).astype(np.float64)
    ends = robust.Ends(low=np.zeros(20), high=np.ones(20), pseudo=np.full(20, 2), least=0.0, most=1.0)
    bounds = robust.lower_bounds(np.full(20, n), right, right, ends)
    assert (bounds.min(axis=1) > truth[0]).mean() <= (bounds[:, 0] > truth[0]).mean() <= 0.05


# Losses against a tier


def test_the_largest_loss_is_that_of_one_slice_and_may_be_negative():
    table = slices_of(constant(30, 0.8, 0.9), constant(50, 0.7, 0.5))
    assert value(table, "slice_loss:tier1") == pytest.approx(0.1)  # the gain elsewhere does not make up for it
    better = slices_of(constant(30, 0.8, 0.7), constant(50, 0.7, 0.5))
    assert value(better, "slice_loss:tier1") == pytest.approx(-0.1)
    mixed = np.repeat([0, 1, 0], [15, 15, 50])
    assert value(table, "slice_loss:tier1", mixed) == pytest.approx(0.05)
    assert value(slices_of(constant(30, 0.8, 0.9)), "slice_loss:tier1") == pytest.approx(0.1)


def test_a_loss_in_a_merged_slice_is_that_of_the_group():
    table = slices_of(constant(60, 0.9, 0.9), constant(12, 0.5, 0.9), constant(8, 0.9, 0.5))
    assert value(table, "slice_loss:tier1", minimum=1) == pytest.approx(0.4)
    assert value(table, "slice_loss:tier1", minimum=20) == pytest.approx((12 * 0.4 - 8 * 0.4) / 20)


def test_upper_bound_of_a_loss():
    """Ten of forty queries lose 1, the rest nothing; too few differ, so two pseudo-observations lie at 1."""
    quality = constant(40, 1.0, 1.0)
    quality[:10, 0] = 0.0
    centre = 12 / 42
    half = stats.t.ppf(0.95, 39) * math.sqrt(40 / 39 * (12 / 42 - centre**2) / 42)
    assert value(slices_of(quality), "slice_loss_ucb:tier1") == pytest.approx(centre + half, rel=1e-12)
    assert value(slices_of(quality), "slice_loss:tier1") == 0.25


def test_a_slice_that_goes_to_the_tier_entirely_loses_nothing_to_it_for_sure():
    table = slices_of(constant(30, 0.4, 0.9), constant(30, 0.4, 0.9))
    assert value(table, "slice_loss_ucb:tier1", tier=1) == 0.0
    nearly = np.repeat([1, 0, 1], [30, 1, 29])
    assert value(table, "slice_loss_ucb:tier1", nearly) > 0.5 / 30


# Properties, on all estimators


def estimators(seed):
    """A fast estimator of each kind with the reference for the same candidates, single tiers among them."""
    rng = np.random.default_rng(seed)
    n, k = 60, 3
    table = make_table(rng, n=n, k=k, n_slices=3)
    cover = coverage(table, int(rng.integers(1, 25)))
    predicted = np.clip(table.quality + rng.normal(scale=0.2, size=(n, k)), 0, 1)
    scores = ScoreTable(score=rng.normal(size=n), quality=predicted, cost_usd=table.cost_usd)
    thresholds = policy_family("thresholds", scores, LANES, k)
    params = np.concatenate([thresholds.corners(), np.sort(rng.normal(size=(20, 2)), axis=1)])
    path = LambdaPath(scores, LANES)
    utility = np.concatenate([path.lambdas[:, None], np.zeros((len(path.lambdas), k))], axis=1)[:, :k]
    assigned = thresholds.assign(params)
    order = ThresholdEstimator(table, cover, ScoreOrder(scores, LANES), params)
    world = make_queue_world(table, rate_per_s=1.0, slots={"tier0": 1}, rng=rng)
    return [
        (order, AssignmentEstimator(table, cover, assigned)),
        (ContendedEstimator(order, world, assigned), AssignmentEstimator(table, cover, assigned)),
        (
            PathEstimator(table, cover, path, path.lambdas),
            AssignmentEstimator(table, cover, policy_family("utility", scores, LANES, k).assign(utility)),
        ),
    ]


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_every_estimator_gives_the_reference_and_keeps_the_order_of_the_figures(seed):
    for fast, slow in estimators(seed):
        if not fast.coverage.groups:
            continue
        names = (*ROBUST, "slice_cvar:0.01", "slice_cvar:0.7", "slice_cvar:1", "slice_loss:tier0", "worst_slice")
        found = {name: fast.value(parse_metric(name)) for name in names}
        for name, values in found.items():
            np.testing.assert_allclose(values, slow.value(parse_metric(name)), rtol=1e-10, err_msg=name)
        assert (found["worst_slice_lcb"] <= found["worst_slice"] + 1e-12).all()
        assert (found["worst_slice_lcb"] >= 0).all()
        shares = ["worst_slice", "slice_cvar:0.01", "slice_cvar:0.3", "slice_cvar:0.7", "slice_cvar:1"]
        tails = np.stack([found[name] for name in shares])
        assert (np.diff(tails, axis=0) >= -1e-12).all()
        covered = (fast.coverage.group_of_rows(fast.table) >= 0)[:, None] * np.ones(fast.table.n_tiers)
        mean = fast.total_sums(fast.table.quality * covered) / covered[:, 0].sum()
        np.testing.assert_allclose(tails[-1], mean)
        assert (found["slice_loss_ucb:tier2"] >= found["slice_loss:tier2"]).all()
        assert (found["slice_loss_ucb:tier2"] <= 1).all()


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=10)
def test_a_tier_loses_exactly_nothing_to_itself(seed):
    """Whatever the order in which sums are taken: `slice_loss:TIER <= 0` must admit the tier."""
    for fast, slow in estimators(seed):
        if fast.coverage.groups:
            for k in range(3):
                alone = fast.tier_counts()[:, k] == fast.table.n_queries
                for estimator in (fast, slow):
                    for base in ("slice_loss", "slice_loss_ucb"):
                        assert (estimator.value(parse_metric(f"{base}:tier{k}"))[alone] == 0.0).all()


# Names, constraints, axes


@pytest.mark.parametrize(
    ("name", "column", "maximise"),
    [
        ("worst_slice_lcb", "worst_slice_lcb_quality", True),
        ("slice_cvar:0.30", "slice_cvar_0.3_quality", True),
        ("slice_cvar:1", "slice_cvar_1_quality", True),
        ("slice_loss:openai/gpt-4.1-mini", "slice_loss[openai/gpt-4.1-mini]", False),
        ("slice_loss_ucb:claude@20240620", "slice_loss_ucb[claude@20240620]", False),
    ],
)
def test_names(name, column, maximise):
    metric = parse_metric(name)
    assert (metric.column, metric.maximise, metric.slice_name) == (column, maximise, None)
    assert metric.over_slices and metric.in_points and not metric.needs_latency
    assert metric.base not in HEADLINE


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("worst_slice_lcb@a", "over all slices"),
        ("slice_cvar:0.3@a", "over all slices"),
        ("slice_cvar@a", "over all slices"),
        ("slice_loss@a", "over all slices"),
        ("slice_cvar", r"slice_cvar:SHARE with a number in \(0, 1\]"),
        ("slice_cvar:0", r"\(0, 1\]"),
        ("slice_cvar:1.1", r"\(0, 1\]"),
        ("slice_cvar:nan", r"\(0, 1\]"),
        ("slice_cvar:30%", r"\(0, 1\]"),
        ("slice_loss", "slice_loss:TIER"),
        ("slice_loss_ucb:", "slice_loss_ucb:TIER"),
        ("slice_los:tier0", "slice_loss:TIER"),
    ],
)
def test_names_that_are_refused(name, said):
    with pytest.raises(ConfigError, match=said):
        parse_metric(name)


def test_what_the_table_cannot_answer_is_refused():
    table = slices_of(constant(30, 0.4, 0.9))
    with pytest.raises(ConfigError, match="'large' is not a tier of the data, which has tier0, tier1"):
        value(table, "slice_loss:large")
    with pytest.raises(ConfigError, match="'tier1@s0' is not a tier .* takes no @SLICE"):
        value(table, "slice_loss_ucb:tier1@s0")
    for name in ("worst_slice_lcb", "slice_cvar:0.3", "slice_loss:tier1", "slice_loss_ucb:tier1"):
        with pytest.raises(ConfigError, match="no slice reaches the minimum coverage of 31"):
            value(table, name, minimum=31)


def test_constraints_survive_policy_json_and_have_limits_in_the_unit_interval():
    bounds = ["slice_cvar:0.3 >= 0.85", "slice_loss:a/b-1.5 <= 0", "slice_loss_ucb:a/b-1.5 <= 0.05"]
    found = parse_constraints({"slice_floor_lcb": 0.8, "bounds": bounds})
    assert [c.text for c in found] == [
        "worst_slice_lcb_quality >= 0.8",
        "slice_cvar_0.3_quality >= 0.85",
        "slice_loss[a/b-1.5] <= 0",
        "slice_loss_ucb[a/b-1.5] <= 0.05",
    ]
    stored = json.loads(json.dumps({c.name: c.limit for c in found}))
    assert restore_constraints(stored) == found
    np.testing.assert_array_equal(found[2].slack(np.array([-0.1, 0.0, 0.1])) >= 0, [True, True, False])


@pytest.mark.parametrize(
    "raw",
    [
        {"slice_floor_lcb": 1.1},
        {"bounds": ["worst_slice_lcb <= 0.5"]},
        {"bounds": ["slice_cvar:0.3 <= 0.5"]},
        {"bounds": ["slice_loss:a >= 0.1"]},
        {"bounds": ["slice_loss:a <= -0.1"]},
        {"bounds": ["slice_loss_ucb:a <= 1.1"]},
    ],
)
def test_senseless_constraints_are_refused(raw):
    with pytest.raises(ConfigError):
        parse_constraints(raw)


def make_problem(objectives, constraints=None, kind="thresholds"):
    rng = np.random.default_rng(4)
    table = make_table(rng, n=150, k=3)
    predicted = np.clip(table.quality + rng.normal(scale=0.2, size=table.quality.shape), 0, 1)
    score = table.queries.signals["difficulty"]
    scores = ScoreTable(score=score, quality=predicted, cost_usd=table.cost_usd)
    return RoutingProblem(
        table=table,
        family=policy_family(kind, scores, LANES, 3),
        objectives=tuple(parse_metric(name) for name in objectives),
        constraints=parse_constraints(constraints or {}),
        coverage=coverage(table, 20),
    )


@pytest.mark.parametrize("name", ROBUST)
def test_axes_are_linear_with_the_single_tiers_at_their_ends(name):
    problem = make_problem(("cost", name))
    single = problem.evaluate_params(problem.corners())
    axes = make_axes(problem.objectives, single.columns, margin=0.1)
    Z = axes.scale(single.Y)[:, 1]
    assert (Z.min(), Z.max()) == pytest.approx((0.0, 1.0), abs=1e-12)
    np.testing.assert_array_equal(np.argsort(Z), np.argsort(single.Y[:, 1]))
    natural = single.columns[problem.objectives[1].column]
    half = (natural.min() + natural.max()) / 2
    assert axes.scale_column(1, np.array([half])) == pytest.approx(0.5)
    assert axes.natural(1, 0.5) == pytest.approx(half)
    assert not axes.axes[1].log and axes.axes[1].maximise == problem.objectives[1].maximise
    assert restore_axes(json.loads(json.dumps(axes.describe()))).same_as(axes)


CONTROLLERS = {
    "exact": lambda problem, axes: ExactController(problem, boundaries="auto", max_evaluations=400),
    "sobol": lambda problem, axes: SobolController(problem, budget=64, rng=np.random.default_rng(7)),
    "mobo": lambda problem, axes: MoboController(
        problem,
        axes=axes,
        budget=14,
        options=MoboOptions(model="grey"),
        design_rng=np.random.default_rng(1),
        rng=np.random.default_rng(2),
    ),
}
BOUNDS = ["worst_slice_lcb >= 0.6", "slice_cvar:0.3 >= 0.6", "slice_loss:tier2 <= 0.2", "slice_loss_ucb:tier2 <= 0.3"]


@pytest.mark.parametrize("controller", CONTROLLERS)
@pytest.mark.parametrize(("name", "bound"), list(zip(ROBUST, BOUNDS, strict=True)))
def test_every_controller_optimises_and_bounds_them(controller, name, bound):
    problem = make_problem(("cost", name), {"bounds": [bound]})
    column = problem.objectives[1].column
    assert column in problem.exact_columns
    axes = make_axes(problem.objectives, problem.evaluate_params(problem.corners()).columns, margin=0.1)
    result = run_search(problem, CONTROLLERS[controller](problem, axes))
    assert result.n_failed == 0 and len(result.front) > 0
    found, limit = result.evaluation.columns[column][result.front], problem.constraints[0].limit
    assert (found >= limit).all() if problem.objectives[1].maximise else (found <= limit).all()


def test_only_what_is_asked_for_is_computed(monkeypatch):
    for name in ("lower_bounds", "upper_bounds", "cvar", "_look"):
        monkeypatch.setattr(robust, name, None)
    problem = make_problem(("cost", "quality"), {"slice_floor": 0.5, "bounds": ["slice_loss:tier2 <= 0.3"]})
    assert len(run_search(problem, CONTROLLERS["exact"](problem, None)).front) > 0


def test_a_loss_below_zero_moves_in_points_when_a_parameter_does():
    """Whether it stays within tolerance is a matter of points: 5 % of a negative loss would be no tolerance at all."""
    problem = make_problem(("slice_loss:tier0",))
    params = problem.family.space.decode(np.array([[0.3, 0.6]]))[0]
    assert problem.evaluate_params(params[None, :]).Y[0, 0] > 0.05  # better than tier0 in every slice
    for found in sensitivities(problem, params, Tolerance(share=0.05)):
        assert found.low < found.value < found.high


@pytest.mark.parametrize(
    ("bound", "rule"), [("slice_loss:tier2 <= 0.1", "min_cost"), ("share_over:9 <= 0.5", "max_quality")]
)
def test_a_ceiling_on_a_loss_of_quality_is_a_floor(bound, rule):
    problem = make_problem(("cost", "quality"), {"bounds": [bound]})
    result = run_search(problem, CONTROLLERS["exact"](problem, None))
    assert choose(result.evaluation, result.front, "auto", problem.constraints).rule == rule


# On new data


def judged(table, bounds, minimum=20):
    found = gather_evidence(
        table,
        np.zeros(table.n_queries, dtype=np.int64),
        np.arange(float(table.n_queries)),
        coverage=coverage(table, minimum),
        constraints=parse_constraints({"bounds": bounds}),
        best_single=1,
    )
    return [(c.value, c.holds) for c in found.constraints]


def test_evidence_gives_the_value_on_new_data_and_nan_where_there_is_none():
    table = slices_of(constant(60, 0.8, 0.9), constant(30, 0.7, 0.9))
    names = ["slice_loss:tier1 <= 0.15", "slice_cvar:1 >= 0.76", "slice_loss:gone <= 0.1", "slice_loss_ucb:tier1 <= 1"]
    (loss, missed), (mean, held), (unknown, gone), (bound, _) = judged(table, names)
    assert loss == pytest.approx(0.2) and mean == pytest.approx(0.76666666667) and 0.2 < bound < 0.4
    assert held and not missed
    assert math.isnan(unknown) and not gone
    for bound in BOUNDS:
        ((alone, holds),) = judged(table, [bound.replace("tier2", "tier1")], minimum=100)
        assert math.isnan(alone) and not holds


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("worst_slice_lcb", "lower bound of the worst slice"),
        ("slice_cvar:0.3", "quality of the worst 30 % of the traffic by slice"),
        ("slice_cvar:0.125", "quality of the worst 12.5 % of the traffic by slice"),
        ("slice_loss:gpt-4[a]", "largest loss to gpt-4[a] in a slice"),
        ("slice_loss_ucb:a/b", "upper bound of the largest loss to a/b in a slice"),
    ],
)
def test_labels(name, label):
    assert column_label(parse_metric(name).column) == label


# A whole tune


SMALL = ("data.n_queries=600", "controller.max_evaluations=500", "slices.minimum=20")
TUNED = {
    "worst_slice_lcb": "constraints.slice_floor_lcb=0.7",
    "slice_cvar:0.3": 'constraints.bounds=["slice_cvar:0.3 >= 0.8"]',
    "slice_loss:reasoning": 'constraints.bounds=["slice_loss:reasoning <= 0.1"]',
    "slice_loss_ucb:reasoning": 'constraints.bounds=["slice_loss_ucb:reasoning <= 0.2"]',
}


def tune(folder, name, *args):
    """One small run; the figures of its chosen point and the run folder."""
    result = run_cli("tune", *SMALL, *args, f"out={name}", "--json", cwd=folder)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout), folder / name


@pytest.mark.parametrize("name", TUNED)
@pytest.mark.slow
def test_tune_with_each_as_objective_and_constraint(name, tmp_path, monkeypatch):
    monkeypatch.setattr(tune_output, "write_report", lambda path, record: {})
    _, folder = tune(tmp_path, "run", f"objectives=[cost,{name}]", TUNED[name])
    front = pq.read_table(folder / "front.parquet").to_pydict()
    column = parse_metric(name).column
    policy = json.loads((folder / "policy.json").read_text())
    (only,) = restore_constraints(policy["constraints"])
    assert only.metric == parse_metric(name)
    assert (only.slack(np.array(front[column])) >= 0).all()
    assert len(front[column]) > 1


def test_the_report_of_a_tune_names_them(tmp_path):
    _, folder = tune(tmp_path, "run", "objectives=[cost,slice_loss:reasoning]", TUNED["worst_slice_lcb"])
    page = (folder / "report.html").read_text()
    assert "largest loss to reasoning in a slice" in page
    assert "lower bound of the worst slice" in page and "worst_slice_lcb_quality</" not in page


def test_a_floor_on_the_bound_chooses_a_safer_worst_slice(tmp_path, monkeypatch):
    """The same limit: the bound keeps a distance from it that grows as slices shrink."""
    monkeypatch.setattr(tune_output, "write_report", lambda path, record: {})
    chosen = {}
    for name in ("slice_floor", "slice_floor_lcb"):
        _, folder = tune(tmp_path, name, f"constraints.{name}=0.75")
        policy = json.loads((folder / "policy.json").read_text())
        front = pq.read_table(folder / "front.parquet").to_pydict()
        row = front["cost_usd"].index(min(front["cost_usd"]))
        assert [front["t_1"][row], front["t_2"][row]] == policy["thresholds"]
        chosen[name] = front["worst_slice_quality"][row]
    assert 0.75 <= chosen["slice_floor"] < 0.8 < chosen["slice_floor_lcb"]


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        ("slice_loss:large <= 0.05", "'large' is not a tier of the data, which has fast, standard, reasoning"),
        ("slice_loss:reasoning@code <= 0.05", "takes no @SLICE"),
        ("slice_loss:reasoning <= 1.5", "must lie in [0, 1]"),
        ("slice_loss:reasoning >= 0.1", "takes a ceiling (<=)"),
        ("slice_cvar:1.5 >= 0.2", "slice_cvar:SHARE with a number in (0, 1]"),
        ("worst_slice_lcb@code >= 0.2", "over all slices"),
    ],
)
def test_a_bad_bound_is_one_line(bound, said, tmp_path):
    result = run_cli("tune", *SMALL, f'constraints.bounds=["{bound}"]', "out=run", cwd=tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and said in line
    assert not (tmp_path / "run").exists()
