"""From traffic to figures: worlds made of tables, estimators on them, enumeration and fronts at several loads."""

import dataclasses
import json

import numpy as np
import pytest
import yaml
from helpers import make_table, run_cli
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from experiments.under_load import best_single, metrics_under_load, single_tier_p95
from simulators.errors import ConfigError
from simulators.scenario import parse_scenario, sample_scenario, traffic_of
from simulators.simulate import simulate
from simulators.traffic import make_world, parse_traffic
from simulators.world import ERROR, ROUTER, Station, TierRule, World
from toolkit.certify.zero_load import zero_under_load
from toolkit.evaluation.approximation import approximate_latency
from toolkit.evaluation.constraints import parse_constraints
from toolkit.evaluation.contention import (
    ContendedEstimator,
    PerQuery,
    make_queue_world,
    only_waits,
    run,
    under_load,
    with_capacity,
)
from toolkit.evaluation.estimators import AssignmentEstimator
from toolkit.evaluation.metrics import parse_metric
from toolkit.evaluation.slices import coverage
from toolkit.families.thresholds import ThresholdFamily
from toolkit.policies.lanes import Lanes
from toolkit.problem import RoutingProblem
from toolkit.scorers.base import ScoreTable
from toolkit.search.exact import ExactController
from toolkit.zero_router import zero_router_of

PLAIN = Lanes(fallback_tier=0, low_confidence_tier=0)
POISSON = {"kind": "poisson", "rate_per_s": 2.0}
SCENARIOS = ("hybrid_api", "dual_lane", "peak_hours", "outage", "drift", "effort_levels")


def rng(seed=0):
    return np.random.default_rng(seed)


def traffic(**changes):
    return parse_traffic({"duration_s": 500.0, "arrivals": POISSON, **changes})


def failing_world(table, **changes):
    """Everybody is served at once, and one answer in five fails."""
    stations = tuple(Station(name=t, error_rate=0.2, error_rate_busy=0.2) for t in table.tiers)
    n = 4 * table.n_queries
    arrival_s = np.arange(n, dtype=np.float64)
    found = {
        "arrival_s": arrival_s,
        "ready_s": arrival_s,
        "row": np.arange(n) % table.n_queries,
        "router_down": np.zeros(n, dtype=bool),
        "stations": stations,
        "rules": tuple(TierRule(station=k) for k in range(table.n_tiers)),
        "duration_s": float(n),
        "seed": 7,
    }
    return World(**(found | changes))


# --- worlds -----------------------------------------------------------------------------------------------------------


def test_every_query_is_asked_equally_often():
    table = make_table(rng(), n=90, k=2)
    world = make_world(table, traffic(), load=1.0, rng=rng(1))
    asked = np.bincount(world.row, minlength=90)
    assert np.ptp(asked) <= 1 and asked.sum() == world.n_requests
    assert world.n_requests == pytest.approx(1000, abs=5 * np.sqrt(1000))


def test_more_load_is_more_requests_in_the_same_time():
    table = make_table(rng(), n=90, k=2)
    low, high = (make_world(table, traffic(), load=load, rng=rng(1)) for load in (1.0, 4.0))
    assert high.n_requests == pytest.approx(4 * low.n_requests, rel=0.1)
    assert high.duration_s == low.duration_s and high.arrival_s.max() < 500


def test_batch_rows_take_no_part():
    table = make_table(rng(), n=60, k=2)
    batch = np.arange(60) % 3 == 0
    world = make_world(dataclasses.replace(table, batch=batch), traffic(), load=1.0, rng=rng(1))
    assert set(world.row.tolist()) == set(np.flatnonzero(~batch).tolist())
    with pytest.raises(ConfigError, match="all queries are batch traffic"):
        make_world(dataclasses.replace(table, batch=np.ones(60, dtype=bool)), traffic(), load=1.0, rng=rng(1))


def test_a_request_asks_a_row_that_holds_at_its_time():
    table = make_table(rng(), n=60, k=2)
    since = np.where(np.arange(60) < 20, 0.0, 200.0)
    world = make_world(dataclasses.replace(table, asked_s=since), traffic(), load=1.0, rng=rng(1))
    np.testing.assert_array_equal(since[world.row], np.where(world.arrival_s < 200, 0.0, 200.0))


def test_a_router_of_one_server_is_a_queue():
    """Each decision takes 1 s and one request comes every half second: the n-th waits (n - 1) / 2 s."""
    table = make_table(rng(), n=30, k=2)
    table = table.with_router(delay_s=np.ones(30), cost_usd=np.zeros((30, 2)))
    spec = traffic(router={"servers": 1}, duration_s=10.0)
    world = make_world(table, spec, load=1.0, rng=rng(1))
    assert (np.diff(world.ready_s) >= 1 - 1e-9).all()
    alone = make_world(table, traffic(duration_s=10.0), load=1.0, rng=rng(1))
    np.testing.assert_allclose(alone.ready_s - alone.arrival_s, 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stations": {"nobody": {"slots": 2}}}, "nobody"),
        ({"tiers": {"tier9": {"retries": 1}}}, "tier9"),
        ({"tiers": {"tier0": {"fallback": "tier9"}}}, "tier9"),
        ({"tiers": {"tier0": {"station": "pool"}}}, "pool"),
        ({"outages": [{"stations": ["pool"], "start_s": 1, "end_s": 2}]}, "pool"),
        ({"router": {"outages": [], "on_outage": "tier9"}}, "tier9"),
        (
            {
                "stations": {"tier0": {"slots": 1}},
                "outages": [
                    {"stations": ["tier0"], "start_s": 1, "end_s": 5},
                    {"stations": ["tier0"], "start_s": 4, "end_s": 9},
                ],
            },
            "overlap",
        ),
    ],
)
def test_names_that_fit_nothing_are_refused_in_one_line(changes, message):
    table = make_table(rng(), n=30, k=2)
    with pytest.raises(ConfigError) as caught:
        make_world(table, traffic(**changes), load=1.0, rng=rng())
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"duration_s": 0}, "duration_s"),
        ({"warmup_s": 500.0}, "warmup_s"),
        ({"arrivals": {"kind": "poisson", "rate_per_s": 0}}, "rate_per_s"),
        ({"stations": {"tier0": {"slots": 0}}}, "slots"),
        ({"stations": {"tier0": {"slot_usd_per_hour": 2.0}}}, "slots must be a number"),
        ({"stations": {"tier0": {"gpus": 2}}}, "unpriced GPU is not free"),
        ({"outages": [{"stations": ["tier0"], "start_s": 5, "end_s": 5}]}, "start_s < end_s"),
    ],
)
def test_traffic_that_makes_no_sense_is_refused_in_one_line(changes, message):
    with pytest.raises(ConfigError) as caught:
        traffic(**changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("load", [0.0, -1.0, float("nan"), float("inf")])
def test_a_load_is_a_positive_factor(load):
    with pytest.raises(ConfigError, match="load"):
        make_world(make_table(rng(), n=30, k=2), traffic(), load=load, rng=rng())


# --- scenarios --------------------------------------------------------------------------------------------------------


def scenario(name):
    with initialize_config_module("conf", version_base="1.3"):
        raw = OmegaConf.to_container(compose("tune", overrides=[f"scenario={name}"]), resolve=True)
    return parse_scenario(raw["scenario"])


@pytest.mark.parametrize("name", SCENARIOS)
def test_without_contention_a_request_meets_what_the_table_says(name):
    """Unlimited stations, nothing fails: both stages of a two-stage path add up to the table's own figures."""
    spec = scenario(name)
    table = sample_scenario(spec, n_queries=300, rng=rng(3))
    calm = traffic().model_copy(update={"second": traffic_of(spec).second})
    world = make_world(table, calm, load=1.0, rng=rng(4))
    rows = world.row
    for k in range(table.n_tiers):
        found = simulate(world, table, np.full((1, 300), k, dtype=np.int8), per_request=False)
        assert (found.served == k).all()
        np.testing.assert_allclose(found.e2e_s[0], table.latency_s[rows, k], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found.ttft_s[0], table.ttft_s[rows, k], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found.cost_usd[0], table.cost_usd[rows, k], rtol=1e-9, atol=1e-15)


# --- figures ----------------------------------------------------------------------------------------------------------


def contended(table, world, assignment):
    return ContendedEstimator(AssignmentEstimator(table, coverage(table, 20), assignment), world, assignment)


def test_failed_requests_are_worth_nothing_and_cost_nothing():
    table = make_table(rng(), n=200, k=2)
    world, tier = failing_world(table), np.ones((1, 200), dtype=np.int8)
    journeys = run(world, table, tier)
    failed = journeys.failed[0]
    assert failed.mean() == pytest.approx(0.2, abs=0.06) and (journeys.reason[0][failed] == ERROR).all()
    names = ("quality", "cost", "quality@slice1", "cost@slice1", "worst_slice", "share_within:3", "share_over:3", "p95")
    found = contended(table, world, tier).values(tuple(parse_metric(name) for name in names))
    value = np.where(failed, 0.0, table.quality[world.row, 1]).reshape(4, 200).mean(axis=0)
    bill = np.where(failed, 0.0, table.cost_usd[world.row, 1]).reshape(4, 200).mean(axis=0)
    inside = table.slice_code == 1
    assert found["quality"][0] == pytest.approx(value.mean())
    assert found["cost_usd"][0] == pytest.approx(bill.mean())
    assert found["quality[slice1]"][0] == pytest.approx(value[inside].mean())
    assert found["cost_usd[slice1]"][0] == pytest.approx(bill[inside].mean())
    groups = [value[table.slice_code == s].mean() for s in np.unique(table.slice_code)]
    assert found["worst_slice_quality"][0] == pytest.approx(min(groups))
    in_time = ~failed & (table.latency_s[world.row, 1] <= 3)
    assert found["share_within_3s"][0] == pytest.approx(in_time.mean())
    assert found["share_over_3s"][0] == pytest.approx(1 - in_time.mean())
    answered = table.latency_s[world.row, 1][~failed]
    assert found["latency_p95_s"][0] == pytest.approx(np.quantile(answered, 0.95))


def test_a_problem_where_requests_fail_knows_that_nothing_is_exact():
    table = make_table(rng(), n=200, k=2)
    problem = RoutingProblem(
        table=table,
        family=ThresholdFamily(ScoreTable(score=rng(1).normal(size=200)), PLAIN, 2),
        objectives=(parse_metric("cost"), parse_metric("quality")),
        constraints=parse_constraints({"p95_ceiling_s": 6.0}),
        coverage=coverage(table, 20),
        world=failing_world(table),
    )
    assert problem.exact_columns == frozenset()
    guess, found = problem.approximate(problem.corners()), problem.evaluate_params(problem.corners())
    assert set(guess) == {m.column for m in problem.metrics}
    np.testing.assert_allclose(found.columns["quality"], 0.8 * guess["quality"], rtol=0.1)


def test_router_outage_alone_changes_quality_too():
    table = make_table(rng(), n=100, k=2)
    world = failing_world(table, stations=tuple(Station(name=t) for t in table.tiers))
    down = np.zeros(world.n_requests, dtype=bool)
    down[:100] = True
    world = dataclasses.replace(world, router_down=down)
    assert world.feed_forward and not only_waits(world)
    tier = np.ones((1, 100), dtype=np.int8)
    assert (run(world, table, tier).reason[0, :100] == ROUTER).all()
    found = contended(table, world, tier).value(parse_metric("quality"))[0]
    assert found == pytest.approx(0.75 * table.quality[:, 1].mean())
    world = dataclasses.replace(world, router_fallback=0)
    found = contended(table, world, tier).value(parse_metric("quality"))[0]
    assert found == pytest.approx(0.75 * table.quality[:, 1].mean() + 0.25 * table.quality[:, 0].mean())


def test_the_table_under_load_holds_what_the_requests_met():
    table = make_table(rng(), n=100, k=2)
    world, tier = failing_world(table), np.ones(100, dtype=np.int64)
    loaded = under_load(table, world, tier)
    per_query = PerQuery(world, table, tier[None, :].astype(np.int8), run(world, table, tier[None, :].astype(np.int8)))
    np.testing.assert_allclose(loaded.quality[:, 1], per_query.quality[0])
    np.testing.assert_array_equal(loaded.quality[:, 0], table.quality[:, 0])
    np.testing.assert_array_equal(loaded.latency_s[:, 0], table.latency_s[:, 0])


def test_fixed_capacity_is_paid_once_per_request_whatever_the_routing():
    """Two slots at 18 USD an hour for 400 s are 4 USD over 400 requests; a failed request pays its part too."""
    table = make_table(rng(), n=100, k=2)
    stations = (Station(name="a", slots=2, usd_per_hour=36.0, error_rate=1.0, error_rate_busy=1.0), Station(name="b"))
    world = failing_world(table, stations=stations)
    charged = with_capacity(table, world)
    np.testing.assert_allclose(charged.cost_usd - table.cost_usd, 0.01)
    assert with_capacity(charged, world) is charged
    failing, free = (run(world, charged, np.full((1, 100), k, dtype=np.int8)) for k in (0, 1))
    np.testing.assert_allclose(failing.cost_usd, 0.01)
    np.testing.assert_allclose(free.cost_usd[0], charged.cost_usd[world.row, 1])


def test_without_failures_the_simulated_zero_router_is_the_hull():
    table = make_table(rng(), n=2000, k=3)
    calm = failing_world(table, stations=tuple(Station(name=t) for t in table.tiers))
    hull = zero_router_of(table)
    cost = float(np.mean(hull.cost_usd))
    assert not only_waits(dataclasses.replace(calm, router_down=~calm.router_down, router_fallback=0))
    down = calm.router_down.copy()
    down[0] = True  # the mixture has no router, so nothing fails; but the world is simulated
    tier = np.argmin(np.abs(table.cost_usd - cost), axis=1)
    loaded = dataclasses.replace(table, cost_usd=np.full_like(table.cost_usd, cost), alone=table)
    found = zero_under_load(table, dataclasses.replace(calm, router_down=down), loaded, tier, rng(5))
    assert found.quality == pytest.approx(hull.quality_at(cost), abs=0.01)
    exact = zero_under_load(table, calm, loaded, tier, rng(5))
    assert exact.quality == pytest.approx(hull.quality_at(cost), abs=1e-12)
    assert found.difference.mean == pytest.approx(exact.difference.mean, abs=0.01)
    assert exact.latency_p95_s == pytest.approx(found.latency_p95_s, rel=0.02)


def test_the_zero_router_fails_as_the_policy_does():
    table = make_table(rng(), n=1000, k=2)
    world = failing_world(table)
    tier = np.ones(1000, dtype=np.int64)
    loaded = under_load(table, world, tier)
    found = zero_under_load(table, world, loaded, tier, rng(5))
    if zero_router_of(table).tier[-1] == 1:
        assert found.difference.mean == pytest.approx(0.0, abs=0.02)
    assert found.quality < 0.9 * zero_router_of(table).quality_at(float(table.cost_usd[:, 1].mean()))


def test_the_zero_router_is_no_worse_than_a_cheap_tier_that_does_not_fail():
    """The dearer tier always fails: neither cost nor quality rises towards it; mixing stays with the other."""
    table = make_table(rng(), n=500, k=2)
    stations = (Station(name="a"), Station(name="b", error_rate=1.0, error_rate_busy=1.0))
    world = failing_world(table, stations=stations)
    tier = np.where(np.arange(500) < 250, 0, 1)
    found = zero_under_load(table, world, under_load(table, world, tier), tier, rng(5))
    assert found.quality >= 0.5 * table.quality[:, 0].mean()
    everything = zero_under_load(table, world, under_load(table, world, tier * 0), tier * 0, rng(5))
    assert everything.quality == pytest.approx(table.quality[:, 0].mean())


def test_queries_that_nobody_asks_count_as_load_made_the_others():
    """With ten times the rows, nine tenths are asked by no request; quality and cost stay what failures leave."""
    table = make_table(rng(), n=2000, k=2)
    whole, few = failing_world(table), failing_world(table)
    few = dataclasses.replace(
        few, **{name: getattr(few, name)[:200] for name in ("arrival_s", "ready_s", "row", "router_down")}
    )
    tier = np.ones((1, 2000), dtype=np.int8)
    metrics = (parse_metric("quality"), parse_metric("cost"))
    asked_all, asked_some = (contended(table, world, tier).values(metrics) for world in (whole, few))
    assert asked_some["quality"][0] == pytest.approx(asked_all["quality"][0], rel=0.1)
    assert asked_some["cost_usd"][0] == pytest.approx(asked_all["cost_usd"][0], rel=0.15)
    assert asked_all["quality"][0] == pytest.approx(0.8 * table.quality[:, 1].mean(), rel=0.03)


def test_single_tiers_and_slices_are_judged_over_all_requests():
    """A rush at the end: the first requests wait for nothing, and a sample of them would not see it."""
    table = make_table(rng(), n=200, k=2)
    n = 2000
    arrival_s = np.concatenate([np.arange(n // 2) * 10.0, 10.0 * (n // 2) + np.arange(n // 2) * 0.5])
    world = failing_world(
        table,
        arrival_s=arrival_s,
        ready_s=arrival_s,
        row=np.arange(n) % 200,
        router_down=np.zeros(n, dtype=bool),
        stations=tuple(Station(name=t, slots=2) for t in table.tiers),
        duration_s=float(arrival_s[-1]),
    )
    tier = np.ones(200, dtype=np.int64)
    found = metrics_under_load(table, world, tier, 0)
    e2e = run(world, table, tier[None, :].astype(np.int8)).e2e_s[0]
    assert found["policy"]["latency_s"]["p95"] == pytest.approx(np.quantile(e2e, 0.95))
    assert found["tiers"]["tier1"]["latency_s"] == pytest.approx(found["policy"]["latency_s"])
    inside = table.slice_code[world.row] == 1
    assert found["slices"]["slice1"]["latency_s"]["p95"] == pytest.approx(np.quantile(e2e[inside], 0.95))
    assert single_tier_p95(table, world)[1] == pytest.approx(np.quantile(e2e, 0.95))
    sampled = under_load(table, world, tier).latency_s[:, 1]
    assert sampled.mean() == pytest.approx(e2e.mean(), rel=0.25)


def test_batch_rows_pay_for_no_capacity_and_hold_no_slot():
    table = dataclasses.replace(make_table(rng(), n=100, k=2), batch=np.arange(100) < 40)
    stations = (Station(name="a", slots=2, usd_per_hour=36.0), Station(name="b"))
    world = failing_world(table, stations=stations)
    paid = with_capacity(table, world).cost_usd - table.cost_usd
    np.testing.assert_allclose(paid, np.where(table.batch, 0.0, 0.01)[:, None] * np.ones(2))
    again = with_capacity(with_capacity(table, world), dataclasses.replace(world, duration_s=2 * world.duration_s))
    np.testing.assert_allclose(again.cost_usd - table.cost_usd, 2 * paid, atol=1e-12)
    queue = make_queue_world(table, rate_per_s=1.0, slots={"tier0": 2}, rng=rng())
    assert set(queue.row.tolist()) == set(range(40, 100))


def test_a_batch_slice_has_no_latency_under_load():
    table = make_table(rng(), n=100, k=2)
    table = dataclasses.replace(table, batch=table.slice_code == 1)
    world = make_queue_world(table, rate_per_s=1.0, slots={"tier0": 2}, rng=rng())
    with pytest.raises(ConfigError, match="batch traffic waits for nothing"):
        contended(table, world, np.zeros((1, 100), dtype=np.int8)).value(parse_metric("p95@slice1"))


def test_bare_is_what_single_tiers_meet():
    table = make_table(rng(), n=50, k=2)
    alone = dataclasses.replace(table, quality=table.quality / 2, _hash=[])
    loaded = dataclasses.replace(table, alone=alone, _hash=[])
    assert loaded.bare is alone
    some = loaded.take(np.arange(10))
    np.testing.assert_array_equal(some.bare.quality, alone.quality[:10])
    np.testing.assert_array_equal(loaded.take_tiers(np.array([1, 0])).bare.quality, alone.quality[:, ::-1])


# --- enumeration ------------------------------------------------------------------------------------------------------


def queue_problem(n=2000, rate=2.0):
    table = make_table(rng(), n=n, k=3)
    world = make_queue_world(table, rate_per_s=rate, slots={"tier1": 8, "tier2": 6}, rng=rng(2))
    return RoutingProblem(
        table=table,
        family=ThresholdFamily(ScoreTable(score=rng(1).normal(size=n)), PLAIN, 3),
        objectives=tuple(parse_metric(name) for name in ("cost", "quality", "share_within:4")),
        constraints=parse_constraints({"p95_ceiling_s": 9.0, "p99_ceiling_s": 20.0}),
        coverage=coverage(table, 20),
        world=world,
    )


def test_single_precision_is_within_a_thousandth():
    problem = queue_problem()
    params = problem.space.decode(rng(3).random((300, problem.space.dim)))
    double = problem.evaluate_params(params)
    problem.single_precision = True
    single = problem.evaluate_params(params)
    for name in ("latency_mean_s", "latency_p95_s", "latency_p99_s"):
        np.testing.assert_allclose(single.columns[name], double.columns[name], rtol=2e-3, err_msg=name)
    np.testing.assert_allclose(single.columns["share_within_4s"], double.columns["share_within_4s"], atol=1e-3)
    for name in problem.exact_columns:
        np.testing.assert_array_equal(single.columns[name], double.columns[name])
    assert problem.exact_columns == {"cost_usd", "quality", "worst_slice_quality"}


def test_in_single_precision_a_figure_does_not_depend_on_its_batch():
    problem = queue_problem(n=400)
    problem.single_precision = True
    params = problem.space.decode(rng(3).random((70, problem.space.dim)))
    whole = problem.evaluate_params(params)
    for i in (0, 33, 69):
        np.testing.assert_array_equal(problem.evaluate_params(params[[i]]).Y[0], whole.Y[i])


def test_thresholds_are_enumerated_under_load_too():
    problem = queue_problem()
    controller = ExactController(problem, boundaries="auto", max_evaluations=100_000)
    assert problem.single_precision and controller.total > 10_000
    assert "simulated for each in single precision" in controller.exactness
    small = queue_problem(n=200)
    assert "single precision" not in ExactController(small, boundaries=20, max_evaluations=100_000).exactness


def test_an_enumeration_beyond_the_limit_is_refused_and_auto_stays_within():
    table = make_table(rng(), n=300, k=3)
    problem = queue_problem(n=300)
    problem.world = failing_world(table)
    controller = ExactController(problem, boundaries="auto", max_evaluations=10**9)
    assert controller.total * problem.world.n_requests <= 2e7
    with pytest.raises(ConfigError, match="would have to be simulated"):
        ExactController(problem, boundaries="all", max_evaluations=10**9)


def test_the_approximation_knows_shared_stations_and_many_requests():
    table = make_table(rng(), n=100, k=2)
    shared = (Station(name="pool", slots=3),)
    n = 3000
    arrival_s = np.sort(rng(1).random(n) * 3000)
    world = World(
        arrival_s=arrival_s,
        ready_s=arrival_s,
        row=rng(2).integers(0, 100, n),
        router_down=np.zeros(n, dtype=bool),
        stations=shared,
        rules=(TierRule(station=0), TierRule(station=0)),
        duration_s=3000.0,
    )
    tier = rng(3).integers(0, 2, (2, 100)).astype(np.int8)
    metrics = (parse_metric("latency_mean"),)
    guess = approximate_latency(table, world, tier, metrics)["latency_mean_s"]
    found = contended(table, world, tier).values(metrics)["latency_mean_s"]
    np.testing.assert_allclose(guess, found, rtol=0.5)


# --- the command ------------------------------------------------------------------------------------------------------

SMALL = {
    "duration_s": 600.0,
    "warmup_s": 30.0,
    "arrivals": {"kind": "poisson", "rate_per_s": 1.0},
    "stations": {"reasoning": {"slots": 4, "buffer": 10}, "standard": {"slots": 6}},
    "tiers": {"reasoning": {"timeout_s": 60.0, "fallback": "standard"}},
}
RUN = ("tune", "data.n_queries=600", "world=traffic", "controller.boundaries=12")


def as_option(value):
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).strip().replace(": ", ":").replace("'", "")


@pytest.mark.slow
def test_a_run_under_traffic_says_what_other_loads_do(tmp_path):
    world = f"world.traffic={as_option(SMALL)}"
    done = run_cli(
        *RUN, world, "constraints.p95_ceiling_s=40", "constraints.quality_floor=0.7", "out=run", "--json", cwd=tmp_path
    )
    assert done.exit_code == 0, done.stderr
    loads = json.loads((tmp_path / "run" / "loads.json").read_text())
    assert [at["load"] for at in loads] == [0.5, 1.0, 2.0, 4.0]
    assert (tmp_path / "run" / "figures" / "loads.png").stat().st_size > 10_000
    assert "What another load does" in (tmp_path / "run" / "report.html").read_text()
    policy = json.loads((tmp_path / "run" / "policy.json").read_text())
    assert policy["world"]["kind"] == "traffic" and policy["world"]["traffic"]["duration_s"] == 600
    again = run_cli("evaluate", "run=run", "data=scenario", "output=m.json", "--json", cwd=tmp_path)
    assert again.exit_code == 0, again.stderr
    assert json.loads((tmp_path / "m.json").read_text())["policy"]["latency_s"]["p95"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [s for s in SCENARIOS if s != "hybrid_api"])
def test_tune_works_on_every_scenario_under_load(name, tmp_path):
    aims = ("objectives=[cost,quality,'share_within:20']", "constraints.p99_ceiling_s=100000")
    size = ("data.n_queries=400", "controller.boundaries=6", "world.loads=[2]")
    found = run_cli("tune", f"scenario={name}", *size, *aims, "out=run", "--json", cwd=tmp_path)
    assert found.exit_code == 0, found.stderr
    policy = json.loads((tmp_path / "run" / "policy.json").read_text())
    assert policy["world"]["kind"] == "traffic"
    assert [at["load"] for at in json.loads((tmp_path / "run" / "loads.json").read_text())] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("world.load=2",), "world.load=2 has no effect"),
        (("world=traffic", "scenario.traffic.warmup_s=3999.99", "scenario.traffic.duration_s=4000"), "warmup_s"),
        (("world=traffic", "choose=certified", "scenario=outage", "constraints.quality_floor=0.5"), "choose=certified"),
        (("scenario=peak_hours", 'constraints.bounds=["latency_p95@puzzles <= 200"]'), "batch traffic"),
    ],
)
def test_what_load_cannot_answer_is_one_line(options, message, tmp_path):
    code, _, err = run_cli("tune", "data.n_queries=300", "controller.boundaries=4", *options, "out=run", cwd=tmp_path)
    assert code == 2 and message in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_certify_compares_what_requests_meet_where_they_fail(tmp_path):
    outage = ("scenario=outage", "data.n_queries=800")
    bounds = ("controller.boundaries=10", "constraints.quality_floor=0.8")
    done = run_cli("tune", *outage, *bounds, "out=run", cwd=tmp_path)
    assert done.exit_code == 0, done.stderr
    found = run_cli(
        *("certify", "run=run", "data=scenario", *outage, "baseline=reasoning", "seed=3", "output=c.json", "--json"),
        cwd=tmp_path,
    )
    assert found.exit_code in (0, 3, 4), found.stderr
    evaluated = run_cli("evaluate", "run=run", "data=scenario", *outage, "seed=3", "output=e.json", cwd=tmp_path)
    assert evaluated.exit_code == 0, evaluated.stderr
    certificate, metrics = (json.loads((tmp_path / name).read_text()) for name in ("c.json", "e.json"))
    assert certificate["quality"]["mean"] == pytest.approx(metrics["policy"]["quality"], abs=0.02)
    assert certificate["baseline_quality"]["mean"] < metrics["evidence"]["versus"]["reasoning"]["mean"] + 1


@pytest.mark.slow
def test_hybrid_api_is_judged_without_load_unless_asked(tmp_path):
    done = run_cli("tune", "data.n_queries=300", "controller.boundaries=6", "out=run", "--json", cwd=tmp_path)
    assert done.exit_code == 0, done.stderr
    assert json.loads((tmp_path / "run" / "policy.json").read_text())["world"] is None
    assert not (tmp_path / "run" / "loads.json").exists()


def test_another_kind_of_arrivals_replaces_the_old_one_whole(tmp_path):
    swap = ("simulate", "scenario=peak_hours", "shares=[1,0,0]", "output=x.json")
    code, _, err = run_cli(*swap, "scenario.traffic.arrivals={kind:trace,path:none.csv}", cwd=tmp_path)
    assert code == 2 and "'~scenario.traffic.arrivals' '+scenario.traffic.arrivals={...}'" in err
    new = ("~scenario.traffic.arrivals", "+scenario.traffic.arrivals={kind:trace,path:none.csv}")
    code, _, err = run_cli(*swap, *new, cwd=tmp_path)
    assert code == 2 and "none.csv" in err and len(err.strip().splitlines()) == 1


def test_the_best_single_tier_is_the_best_under_its_own_load():
    table = make_table(rng(), n=200, k=2)
    better = int(np.argmax(table.quality.mean(axis=0)))
    rates = [float(k == better) for k in range(2)]
    fails = tuple(Station(name=t, error_rate=r, error_rate_busy=r) for t, r in zip("ab", rates, strict=True))
    assert best_single(table, None) == better
    assert best_single(table, failing_world(table, stations=fails)) == 1 - better
