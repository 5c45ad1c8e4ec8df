"""Thresholds and deployments as one problem: the maps to the cube, and figures that agree with their parts."""

import dataclasses
import functools
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import make_table
from hypothesis import given, settings
from hypothesis import strategies as st
from offline_toy import database, lengths

from simulators.deployment.fleet import simulate_plan
from simulators.deployment.plan import Replica, ReplicaGroup
from simulators.errors import ConfigError, InfeasibleError, InputDataError
from toolkit.deployment.choices import FreeChoices, JointChoices
from toolkit.deployment.family import DeploymentFamily
from toolkit.deployment.problem import DeploymentProblem, plan_at
from toolkit.deployment.requests import draw_requests
from toolkit.deployment.space import RawThresholdSpace
from toolkit.evaluation.constraints import parse_constraints
from toolkit.evaluation.metrics import parse_metric
from toolkit.evaluation.slices import coverage
from toolkit.evaluation.thresholds import ScoreOrder
from toolkit.pareto.front import non_dominated
from toolkit.policies.lanes import Lanes
from toolkit.scorers.base import ScoreTable
from toolkit.search.exact_deployment import DeploymentExactController

LANES = Lanes(fallback_tier=1, low_confidence_tier=0, confidence_floor=0.1)
N = 60


@functools.cache
def db():
    return database(budget=6.0, rate_per_s=12.0)


def table(n=N):
    found = make_table(np.random.default_rng(0), n=n, k=2)
    pairs = lengths(n)
    reads, writes = (np.stack([pair[i] for pair in pairs], axis=1) for i in (0, 1))
    return dataclasses.replace(
        found, tiers=("small", "large"), input_tokens=reads, output_tokens=writes * [1.0, 2.0], _hash=[]
    )


def scores(seed=0, *, decimals=2, n=N):
    """Scores with ties, some missing, and confidences of which some are low."""
    rng = np.random.default_rng(seed)
    score = np.round(rng.normal(size=n), decimals)
    score[rng.random(n) < 0.1] = np.nan
    score[0] = 0.5
    return ScoreTable(score=score, confidence=np.where(np.arange(n) == 0, 1.0, rng.random(n)))


def choices(*, free=False):
    prices = tuple(tier.usd_per_hour for tier in db().tiers)
    empty = tuple(int(np.flatnonzero(tier.gpus.sum(axis=1) == 0)[0]) for tier in db().tiers)
    return FreeChoices(prices, empty) if free else JointChoices(db().joint_choices(), prices, empty)


def family(score=None, *, free=False, raw=False, lanes=LANES):
    return DeploymentFamily(score or scores(), lanes, ("small", "large"), choices(free=free), raw_thresholds=raw)


def problem(objectives=("latency_p95", "quality"), constraints=None, *, free=False, raw=False, score=None, **options):
    world = table()
    requests = draw_requests(
        world, rate_per_s=db().fleet.rate_per_s, horizon_s=40.0, warmup=0.25, rng=np.random.default_rng(1)
    )
    return DeploymentProblem(
        table=world,
        family=family(score, free=free, raw=raw),
        objectives=tuple(parse_metric(name) for name in objectives),
        constraints=parse_constraints(constraints or {}),
        coverage=coverage(world, 5),
        database=db(),
        requests=requests,
        unfit=free,
        **options,
    )


def points(made, n=12, seed=0):
    X = np.random.default_rng(seed).random((n, made.space.dim))
    return made.space.decode(np.concatenate([X, np.zeros((1, made.space.dim)), np.ones((1, made.space.dim))]))


class TestSpaces:
    @given(seed=st.integers(0, 10_000), decimals=st.integers(0, 6), k=st.integers(2, 4))
    @settings(max_examples=50, deadline=None)
    def test_raw_thresholds_are_found_again_and_span_the_traffic(self, seed, decimals, k):
        order = ScoreOrder(scores(seed, decimals=decimals), LANES)
        space = RawThresholdSpace(order, k)
        X = np.random.default_rng(seed).random((30, k - 1))
        params = space.decode(X)
        assert (np.diff(params, axis=1) >= 0).all() and np.isin(params, order.boundaries).all()
        np.testing.assert_array_equal(space.decode(space.encode(params)), params)
        ends = np.stack([np.zeros(k - 1), np.ones(k - 1)])
        np.testing.assert_array_equal(order.position(space.decode(ends)[:, 0]), [0, len(order.order)])

    def test_every_boundary_is_reached_by_a_raw_threshold(self):
        order = ScoreOrder(scores(), LANES)
        space = RawThresholdSpace(order, 2)
        np.testing.assert_array_equal(space.decode(space.encode(order.boundaries[:, None]))[:, 0], order.boundaries)

    def test_raw_steps_are_steps_of_the_score(self):
        """Fractions move equal traffic, raw scores do not: the ablation is one."""
        score = ScoreTable(score=np.concatenate([np.linspace(0, 1, 59), [100.0]]), confidence=np.ones(N))
        half = np.array([[0.5, 0.5, 0.5]])
        shares = [made.fractions(made.space.decode(half))[0, 0] for made in (family(score), family(score, raw=True))]
        np.testing.assert_allclose(shares, [0.5, 59 / 60])

    def test_raw_thresholds_where_no_query_has_a_score(self):
        order = ScoreOrder(ScoreTable(score=np.full(5, np.nan)), Lanes(fallback_tier=0, low_confidence_tier=0))
        assert np.isfinite(
            RawThresholdSpace(order, 2).encode(RawThresholdSpace(order, 2).decode(np.array([[0.3]])))
        ).all()

    @given(st.integers(0, 10_000), st.booleans(), st.booleans())
    @settings(max_examples=30, deadline=None)
    def test_decode_undoes_encode(self, seed, free, raw):
        made = family(scores(seed % 7), free=free, raw=raw)
        params = made.space.decode(np.random.default_rng(seed).random((40, 3)))
        X = made.space.encode(params)
        assert X.shape == (40, made.space.dim) and ((X >= 0) & (X <= 1)).all()
        np.testing.assert_array_equal(made.space.decode(X), params)

    @given(st.integers(0, 10_000))
    @settings(max_examples=20, deadline=None)
    def test_what_is_decoded_fits_and_serves(self, seed):
        made = family(scores(seed % 5), lanes=Lanes(fallback_tier=0, low_confidence_tier=0))
        X = np.random.default_rng(seed).random((60, 3))
        X[:3, 0] = (0.0, 0.5, 1.0)
        params = made.space.decode(X)
        usd, gpus = db().structural(made.choice(params))
        assert (usd >= -1e-9).all() and (gpus >= 0).all()
        served = np.stack(
            [tier.gpus[c].sum(axis=1) > 0 for tier, c in zip(db().tiers, made.choice(params).T, strict=True)], axis=1
        )
        np.testing.assert_array_equal(served, made.fractions(params) > 0)


class TestFamily:
    @given(st.integers(0, 10_000), st.integers(0, 3))
    @settings(max_examples=40, deadline=None)
    def test_fractions_are_the_shares_of_the_assignment(self, seed, decimals):
        made = family(scores(seed, decimals=decimals))
        params = made.space.decode(np.random.default_rng(seed).random((20, 3)))
        tier = made.assign(params)
        shares = np.stack([(tier == k).mean(axis=1) for k in range(2)], axis=1)
        np.testing.assert_allclose(made.fractions(params), shares)

    def test_corners_send_all_that_is_free_to_one_tier(self):
        made = family(lanes=Lanes(fallback_tier=1, low_confidence_tier=0))
        corners = made.corners()
        missing = np.isnan(made.scores.score).mean()
        np.testing.assert_allclose(made.fractions(corners)[:, 0], sorted([1 - missing, 0.0])[::-1])
        np.testing.assert_array_equal(made.space.decode(made.space.encode(corners)), corners)

    def test_a_sweep_moves_one_threshold_and_leaves_deployments(self):
        made = problem()
        at = points(made, 1)[0]
        moved = made.family.sweep(at, 0, 9)
        assert len(moved) > 3 and (np.diff(moved[:, 0]) >= 0).all() and (moved[:, 1:] == at[1:]).all()
        for i in (1, 2):
            np.testing.assert_array_equal(made.family.sweep(at, i, 9), at[None, :])

    def test_transfer_keeps_the_deployments(self):
        made = family(raw=True)
        other = made.transfer(scores(9), table().queries)
        params = made.space.decode(np.random.default_rng(0).random((5, 3)))
        np.testing.assert_array_equal(other.choice(params), made.choice(params))
        assert other.parameter_names == ("t_1", "deploy_small", "deploy_large")


class TestFigures:
    def test_by_table_is_the_look_up(self):
        made = problem(("latency_p95", "quality", "latency_p50"), evaluate="table")
        params = points(made)
        found = made.evaluate_params(params)
        fractions, choice = made.deployments.fractions(params), made.deployments.choice(params)
        longest = db().edges_s[-1]
        for column, q in (("latency_p95_s", 0.95), ("latency_p50_s", 0.5)):
            np.testing.assert_array_equal(
                found.columns[column], np.minimum(db().latency_s(q, fractions, choice), longest)
            )
        np.testing.assert_array_equal(found.Y[:, 0], -found.columns["latency_p95_s"])
        np.testing.assert_array_equal(found.Y[:, 1], found.columns["quality"])

    def test_by_simulation_is_the_fleet_under_the_same_requests(self):
        made = problem(evaluate="simulate")
        params = points(made, 4)
        found = made.evaluate_params(params).columns["latency_p95_s"]
        requests, tier = made.requests, made.family.assign(params).astype(np.int64)
        for i, row in enumerate(params):
            served = simulate_plan(
                db().fleet,
                made.plan(row),
                requests.arrival_s,
                tier[i][requests.row],
                requests.input_tokens,
                requests.output_tokens,
            )
            met = np.minimum(served.done_s - requests.arrival_s, db().edges_s[-1])[requests.counted]
            assert found[i] == pytest.approx(np.quantile(met, 0.95))
        assert not np.allclose(found, made.approximate(params)["latency_p95_s"])

    def test_quality_is_that_of_the_assignment(self):
        made = problem(evaluate="table")
        params = points(made)
        tier = made.family.assign(params)
        wanted = [made.table.quality[np.arange(N), row].mean() for row in tier]
        np.testing.assert_allclose(made.evaluate_params(params).columns["quality"], wanted)

    @pytest.mark.parametrize("evaluate", ["table", "simulate"])
    def test_what_is_exact_or_approximate_agrees(self, evaluate):
        made = problem(("latency_p95", "quality", "fleet_cost"), {"p95_ceiling_s": 5.0}, evaluate=evaluate)
        params = points(made, 6)
        found, exact, near = made.evaluate_params(params).columns, made.exact(params), made.approximate(params)
        assert set(exact) == made.exact_columns >= {"quality", "fleet_usd_per_hour"}
        for name, value in exact.items():
            np.testing.assert_array_equal(value, found[name])
        if evaluate == "table":
            assert near == {}
        else:
            assert near and not set(near) & made.exact_columns
            by_table = problem(evaluate="table").evaluate_params(params).columns
            np.testing.assert_array_equal(near["latency_p95_s"], by_table["latency_p95_s"])
        assert problem(evaluate="simulate", approximate=False).approximate(params) == {}

    def test_the_price_is_that_of_the_plan(self):
        made = problem(evaluate="table")
        params = points(made)
        usd = made.evaluate_params(params).columns["fleet_usd_per_hour"]
        price = {name: gpu.usd_per_hour for name, gpu in db().fleet.gpus.items()}
        wanted = [sum(n * price[gpu] for gpu, n in made.plan(row).gpus.items()) for row in params]
        np.testing.assert_allclose(usd, wanted)
        assert (usd <= db().fleet.budget_usd_per_hour + 1e-9).all()

    @pytest.mark.parametrize("evaluate", ["table", "simulate"])
    def test_no_latency_is_missing_or_infinite(self, evaluate):
        """Overload and a tier that gets requests without a GPU are as long as the tables reach."""
        made = problem(("latency_p95", "latency_mean", "share_within:2"), evaluate=evaluate)
        empty = [int(np.flatnonzero(tier.gpus.sum(axis=1) == 0)[0]) for tier in db().tiers]
        unserved = np.array([[0.0, *empty]])
        params = np.concatenate([points(made, 8), unserved])
        found = made.evaluate_params(params)
        assert np.isfinite(found.Y).all() and all(np.isfinite(v).all() for v in found.columns.values())
        assert found.columns["latency_p95_s"][-1] == pytest.approx(db().edges_s[-1])

    @pytest.mark.parametrize("evaluate", ["table", "simulate"])
    def test_the_slowest_tier_is_no_faster_than_all_requests_together(self, evaluate):
        names = ("latency_p95", "latency_mean", "share_within:2")
        pooled, slowest = (problem(names, evaluate=evaluate, system_latency=s) for s in ("pooled", "max"))
        params = points(pooled, 10)
        a, b = pooled.evaluate_params(params).columns, slowest.evaluate_params(params).columns
        assert (b["latency_p95_s"] >= a["latency_p95_s"] - 1e-9).all() and (
            b["latency_p95_s"] > a["latency_p95_s"]
        ).any()
        for same in {m.column for m in pooled.objectives[1:]}:
            np.testing.assert_allclose(a[same], b[same])

    def test_a_slice_needs_a_simulation(self):
        names = ("latency_p95@slice1", "quality")
        with pytest.raises(
            ConfigError, match=r"latency_p95_s\[slice1\]: the offline tables know no slices; use space.eval"
        ) as caught:
            made = problem(names, evaluate="table")
            made.evaluate_params(points(made, 1))
        assert "\n" not in str(caught.value)
        made = problem(names, evaluate="simulate")
        params = points(made, 2)
        found = made.evaluate_params(params).columns["latency_p95_s[slice1]"]
        assert np.isfinite(found).all() and "latency_p95_s[slice1]" not in made.approximate(params)

    def test_tokens_are_needed(self):
        bare = make_table(np.random.default_rng(0), n=20, k=2)
        with pytest.raises(InputDataError, match="needs input_tokens and output_tokens of every answer"):
            draw_requests(bare, rate_per_s=1.0, horizon_s=9.0, warmup=0.0, rng=np.random.default_rng(0))

    def test_queries_are_asked_equally_often(self):
        found = draw_requests(table(), rate_per_s=50.0, horizon_s=10.0, warmup=0.2, rng=np.random.default_rng(0))
        asked = np.bincount(found.row, minlength=N)
        assert len(found.row) == 600 and asked.min() == asked.max() == 10
        assert (found.arrival_s[found.counted] >= 2.0).all() and not found.counted[found.arrival_s < 2.0].any()


class TestWithoutExclusion:
    def test_what_does_not_fit_breaks_a_constraint(self):
        made = problem(constraints={"quality_floor": 0.3}, free=True, evaluate="table")
        params = points(made, 200)
        found = made.evaluate_params(params)
        names = [c.name for c in made.constraints]
        assert names[-1] == "gpus_short"
        _, left = db().structural(made.deployments.choice(params))
        short = (left < 0).any(axis=1)
        np.testing.assert_array_equal(found.slack[:, -1] < 0, short)
        assert short.any() and not short.all()
        assert {"gpus_short", "fleet_usd_per_hour"} <= made.exact_columns

    def test_a_budget_is_a_bound_on_the_price(self):
        made = problem(constraints={"fleet_ceiling_usd_per_hour": 4.0}, evaluate="table")
        found = made.evaluate_params(points(made, 60))
        np.testing.assert_array_equal(found.feasible, found.columns["fleet_usd_per_hour"] <= 4.0)
        assert found.feasible.any() and not found.feasible.all()

    def test_a_tier_that_no_gpu_serves_is_an_error_of_one_line(self):
        with pytest.raises(InfeasibleError, match="no deployment of all tiers fits") as caught:
            FreeChoices((np.array([0.0]), np.array([0.0, 1.0])), (0, 0))
        assert "\n" not in str(caught.value)


class TestFeatures:
    @pytest.mark.parametrize("raw", [False, True])
    def test_all_are_in_the_unit_cube(self, raw):
        made = problem(free=True, raw=raw)
        params = points(made, 100)
        found = made.features(params)
        for part in (found.routing, found.deployment, found.preference):
            assert np.isfinite(part).all() and (part >= 0).all() and (part <= 1).all()
        assert found.routing.shape == (len(params), 1) and len(np.unique(found.preference)) > 3

    def test_the_load_is_a_feature_that_can_be_left_out(self):
        params = points(problem(), 30)
        busy, bare = (problem(load_features=on).features(params).deployment for on in (True, False))
        assert busy.shape[1] == bare.shape[1] + 2
        np.testing.assert_array_equal(busy[:, :-2], bare)

    def test_the_preference_is_the_mean_suitability_of_the_gpu_shares_in_use(self):
        made = problem()
        params = points(made, 40)
        choice = made.deployments.choice(params)
        used = np.stack([tier.gpus[choice[:, m]] / db().counts for m, tier in enumerate(db().tiers)], axis=1)
        wanted = (used * db().suitability).sum(axis=(1, 2)) / used.sum(axis=(1, 2))
        np.testing.assert_allclose(made.features(params).preference, wanted)


class TestExact:
    @pytest.mark.parametrize("constraints", [{}, {"quality_floor": 0.72, "fleet_ceiling_usd_per_hour": 5.0}])
    def test_the_front_is_that_of_everything(self, constraints):
        made = problem(constraints=constraints, evaluate="table")
        controller = DeploymentExactController(made, boundaries="all")
        front = made.evaluate_params(controller.ask())
        assert controller.ask() is None
        order, of = made.deployments.routing.order, made.deployments
        rows = []
        for t in order.boundaries:
            needed = of.fractions(np.array([[t, 0.0, 0.0]]))[0] > 0
            rows += [[t, *choice] for choice in of.choices.fitting(needed)]
        every = made.evaluate_params(np.array(rows, dtype=np.float64))
        assert controller.n_looked_up == len(every)
        best = every.Y[every.feasible]
        best = best[non_dominated(best)]
        assert front.feasible.all() and len(front) > 3
        wanted, got = ({tuple(row) for row in np.round(Y, 9).tolist()} for Y in (best, front.Y))
        assert got == wanted

    def test_the_nearest_where_nothing_is_feasible(self):
        made = problem(constraints={"quality_floor": 0.9999}, evaluate="table")
        front = made.evaluate_params(DeploymentExactController(made, boundaries=9).ask())
        assert len(front) == 1 and not front.feasible.any()
        assert front.columns["quality"][0] == pytest.approx(
            max(made.evaluate_params(points(made, 50)).columns["quality"].max(), front.columns["quality"][0])
        )

    def test_too_many_look_ups_are_one_line_at_once(self):
        made = problem(evaluate="table")
        with pytest.raises(
            ConfigError, match="look-ups, too many to enumerate; use controller.boundaries=NUMBER"
        ) as caught:
            DeploymentExactController(made, boundaries="all", most=10)
        assert "\n" not in str(caught.value)

    def test_too_many_vectors_are_counted_before_they_are_made(self, monkeypatch):
        def made(*args):
            raise AssertionError("made the grid first")

        monkeypatch.setattr(itertools, "combinations_with_replacement", made)
        with pytest.raises(ConfigError, match="too many to enumerate"):
            DeploymentExactController(problem(), boundaries=40, most=100)

    def test_slices_are_refused(self):
        made = problem(("latency_p95@slice1", "quality"), evaluate="simulate")
        with pytest.raises(ConfigError, match=r"know no slices; latency_p95_s\[slice1\] needs controller=boute"):
            DeploymentExactController(made, boundaries=5)


def test_replicas_that_get_no_request_are_not_deployed():
    group = ReplicaGroup(replica=Replica(gpu="h100"), replicas=2, share=1.0)
    idle = ReplicaGroup(replica=Replica(gpu="rtx_5090"), replicas=8, share=0.0)
    stub = SimpleNamespace(fleet=SimpleNamespace(rate_per_s=4.0), tier_plan=lambda m, c, load: (group, idle))
    plan = plan_at(stub, np.array([0.5, 0.5]), np.array([1, 1]), ("small", "large"))
    assert plan.groups == ((group,), (group,)) and plan.gpus == {"h100": 4}
