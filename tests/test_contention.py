"""Queues: brute force, Lindley and closed forms; latency under load in estimators, approximations and problems."""

import dataclasses
import math

import numpy as np
import pytest
from helpers import make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.errors import ConfigError, InputDataError
from simulators.queueing import mean_wait, poisson_arrivals, probability_of_wait, waiting_times
from simulators.world import World
from toolkit.evaluation.approximation import approximate_latency
from toolkit.evaluation.constraints import parse_constraints
from toolkit.evaluation.contention import (
    ContendedEstimator,
    make_queue_world,
    run,
)
from toolkit.evaluation.estimators import AssignmentEstimator, headline_metrics
from toolkit.evaluation.metrics import parse_metric
from toolkit.evaluation.slices import coverage
from toolkit.families.thresholds import ThresholdFamily
from toolkit.policies.lanes import Lanes
from toolkit.problem import RoutingProblem
from toolkit.scorers.base import ScoreTable

PLAIN = Lanes(fallback_tier=0, low_confidence_tier=0)
LATENCY = tuple(parse_metric(name) for name in ("latency_mean", "p50", "p95", "p99", "share_over:3"))


# --- the queue itself -------------------------------------------------------------------------------------------------


def brute_force(arrival_s, service_s, servers):
    """A request starts when fewer than `servers` of the requests before it have still to leave."""
    departure_s = []
    for arrival, service in zip(arrival_s, service_s, strict=True):
        busy_until = sorted(departure_s)[-servers] if len(departure_s) >= servers else arrival
        departure_s.append(max(arrival, busy_until) + service)
    return np.array(departure_s) - service_s - arrival_s


@st.composite
def traffic(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n, integers = draw(st.integers(0, 60)), draw(st.booleans())
    gap, service = rng.exponential(1.0, n), rng.lognormal(0.0, 1.0, n) * draw(st.sampled_from([0.3, 1.0, 4.0]))
    if integers:  # ties: arrivals together, a slot that becomes free as a request comes
        gap, service = np.floor(gap), np.floor(service)
    return np.cumsum(gap) + draw(st.sampled_from([0.0, -100.0, 7.0])), service, draw(st.integers(1, 6))


@given(traffic())
@settings(deadline=None)
def test_waits_equal_brute_force(case):
    arrival_s, service_s, servers = case
    waits = waiting_times(arrival_s, service_s, servers=servers)
    np.testing.assert_allclose(waits, brute_force(arrival_s, service_s, servers), atol=1e-9)


@given(traffic())
@settings(deadline=None)
def test_nobody_waits_a_negative_time_or_beside_a_free_slot(case):
    arrival_s, service_s, servers = case
    waits = waiting_times(arrival_s, service_s, servers=servers)
    start, end = arrival_s + waits, arrival_s + waits + service_s
    assert (waits >= 0).all()
    assert (np.diff(start) >= -1e-9).all()
    for i in range(len(start)):
        inside = ((start <= start[i] + 1e-9) & (end > start[i] + 1e-9)).sum()
        assert inside <= servers
        if waits[i] > 1e-9:  # while it waits, all slots are taken
            just_before = start[i] - min(1e-9, waits[i] / 2)
            assert ((start <= just_before + 1e-9) & (end >= just_before - 1e-9))[:i].sum() >= servers


@given(traffic())
@settings(deadline=None)
def test_one_server_follows_lindley(case):
    arrival_s, service_s, _ = case
    waits, expected = waiting_times(arrival_s, service_s, servers=1), []
    for i in range(len(arrival_s)):
        before = expected[-1] + service_s[i - 1] - (arrival_s[i] - arrival_s[i - 1]) if i else 0.0
        expected.append(max(0.0, before))
    np.testing.assert_allclose(waits, expected, atol=1e-9)


def test_known_waits():
    """Three requests of two seconds each come one second apart."""
    arrival_s, service_s = np.array([0.0, 1.0, 2.0]), np.full(3, 2.0)
    assert waiting_times(arrival_s, service_s, servers=1).tolist() == [0.0, 1.0, 2.0]
    assert waiting_times(arrival_s, service_s, servers=2).tolist() == [0.0, 0.0, 0.0]
    assert waiting_times(np.zeros(3), service_s, servers=2).tolist() == [0.0, 0.0, 2.0]


def test_senseless_queues_are_refused():
    one = np.ones(1)
    with pytest.raises(InputDataError, match="at least one server"):
        waiting_times(one, one, servers=0)
    with pytest.raises(InputDataError, match="must not decrease"):
        waiting_times(np.array([1.0, 0.5]), np.ones(2), servers=1)
    with pytest.raises(InputDataError, match="one service time"):
        waiting_times(one, np.ones(2), servers=1)
    for rate in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputDataError, match="arrival rate must be positive"):
            poisson_arrivals(3, rate_per_s=rate, rng=np.random.default_rng(0))


def test_arrivals_are_poisson_in_mean_and_tail():
    """No gap is cut: e^-3 of them exceed three means, and the longest of n is near log n means."""
    n, rate = 200_000, 2.5
    arrival_s = poisson_arrivals(n, rate_per_s=rate, rng=np.random.default_rng(0))
    gap = np.diff(arrival_s, prepend=0.0)
    assert (gap >= 0).all()
    assert gap.mean() * rate == pytest.approx(1.0, abs=4 / math.sqrt(n))
    assert gap.std() / gap.mean() == pytest.approx(1.0, abs=0.01)
    for k in (1, 3, 6):
        p = math.exp(-k)
        assert (gap * rate > k).mean() == pytest.approx(p, abs=4 * math.sqrt(p / n))
    assert math.log(n) - 3 < gap.max() * rate < math.log(n) + 6
    in_second = np.bincount(arrival_s[arrival_s < 70_000].astype(int), minlength=70_000)
    assert in_second.var() / in_second.mean() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize(
    ("offered", "servers", "expected"),
    [(0.3, 1, 0.3), (0.95, 1, 0.95), (1.0, 2, 1 / 3), (2.0, 3, 4 / 9), (8.0, 10, 0.40918), (0.0, 4, 0.0)],
)
def test_erlang_c_known_values(offered, servers, expected):
    assert probability_of_wait(offered, servers) == pytest.approx(expected, abs=1e-5)


@given(st.floats(0.01, 0.99), st.integers(1, 30))
def test_erlang_c_equals_its_sum(utilisation, servers):
    a = utilisation * servers
    top = a**servers / math.factorial(servers) / (1 - utilisation)
    below = sum(a**k / math.factorial(k) for k in range(servers))
    assert probability_of_wait(a, servers) == pytest.approx(top / (below + top), rel=1e-9)


def test_mean_waits_known_answers():
    assert mean_wait(0.5, 1, mean_service_s=2.0, cv2_service=1.0) == pytest.approx(2.0)  # rho / (1 - rho) * E[S]
    assert mean_wait(0.5, 1, mean_service_s=2.0, cv2_service=0.0) == pytest.approx(1.0)  # Pollaczek and Khinchine
    assert mean_wait(1.0, 2, mean_service_s=3.0, cv2_service=1.0) == pytest.approx(1.0)  # C = 1/3


@pytest.mark.parametrize(
    ("utilisation", "servers", "cv2"), [(0.5, 1, 1.0), (0.7, 1, 1.0), (0.7, 4, 1.0), (0.6, 10, 1.0), (0.7, 1, 0.0)]
)
def test_long_runs_meet_the_closed_forms(utilisation, servers, cv2):
    """M/M/1, M/M/c and M/D/1, mean and share of waits; the sampling error of 150,000 waits is below 2 %."""
    rng, n, mean_s = np.random.default_rng(1), 150_000, 1.5
    service_s = rng.exponential(mean_s, n) if cv2 else np.full(n, mean_s)
    offered = utilisation * servers
    waits = waiting_times(poisson_arrivals(n, rate_per_s=offered / mean_s, rng=rng), service_s, servers=servers)
    expected = mean_wait(offered, servers, mean_service_s=mean_s, cv2_service=cv2)
    if servers == 1:
        assert expected == pytest.approx(utilisation / (1 - utilisation) * mean_s * (1 + cv2) / 2)
    assert waits.mean() == pytest.approx(expected, rel=0.06)
    if cv2:
        assert (waits > 0).mean() == pytest.approx(probability_of_wait(offered, servers), rel=0.03)
        long = math.exp(-1) * probability_of_wait(offered, servers)  # a wait is exponential, given that there is one
        assert (waits > mean_s / (servers - offered)).mean() == pytest.approx(long, rel=0.06)


def contended_latency(table, world, tier):
    """`N` latencies of one assignment; request i of a queue world asks row i."""
    return run(world, table, tier[None, :].astype(np.int8)).e2e_s[0]


# --- latency under load -----------------------------------------------------------------------------------------------


def case(*, n=300, rate_per_s=1.0, slots=None, seed=0):
    """A table, a world on it and a few random assignments."""
    rng = np.random.default_rng(seed)
    table = make_table(rng, n=n, k=3)
    world = make_queue_world(table, rate_per_s=rate_per_s, slots=slots or {}, rng=rng)
    return table, world, rng.integers(0, 3, (6, n)).astype(np.int8)


def figures(table):
    in_slice = [parse_metric(f"{name}@slice1") for name in ("p95", "latency_mean", "quality", "cost", "share_over:3")]
    return tuple(dict.fromkeys((*headline_metrics(table, coverage(table, 20)), *LATENCY, *in_slice)))


def estimators(table, world, assignment):
    exact = AssignmentEstimator(table, coverage(table, 20), assignment)
    return exact, ContendedEstimator(exact, world, assignment)


@pytest.mark.parametrize("slots", [{}, {"tier0": 1000, "tier1": 1000, "tier2": 1000}])
def test_without_waits_every_figure_is_the_uncontended_one(slots):
    table, world, assignment = case(slots=slots)
    exact, contended = estimators(table, world, assignment)
    for name, values in contended.values(figures(table)).items():
        np.testing.assert_allclose(values, exact.values(figures(table))[name], rtol=1e-12, err_msg=name)


def test_waits_touch_latency_alone():
    table, world, assignment = case(slots={"tier1": 1, "tier2": 1}, rate_per_s=3.0)
    exact, contended = estimators(table, world, assignment)
    before, after = exact.values(figures(table)), contended.values(figures(table))
    for metric in figures(table):
        if metric.needs_latency:
            assert (after[metric.column] >= before[metric.column]).all(), metric
        else:
            np.testing.assert_array_equal(after[metric.column], before[metric.column], err_msg=metric.column)
    assert (after["latency_mean_s"] > 2 * before["latency_mean_s"]).all()
    np.testing.assert_array_equal(contended.tier_counts(), exact.tier_counts())


def test_figures_per_slice_and_overall_are_those_of_the_simulated_latencies():
    table, world, assignment = case(slots={"tier2": 2}, rate_per_s=2.0)
    _, contended = estimators(table, world, assignment)
    latency = np.stack([contended_latency(table, world, row) for row in assignment])
    inside = table.slice_code == 1
    found = contended.values(figures(table))
    np.testing.assert_allclose(found["latency_p95_s"], np.quantile(latency, 0.95, axis=1))
    np.testing.assert_allclose(found["latency_p95_s[slice1]"], np.quantile(latency[:, inside], 0.95, axis=1))
    np.testing.assert_allclose(found["latency_mean_s[slice1]"], latency[:, inside].mean(axis=1))
    np.testing.assert_allclose(found["share_over_3s[slice1]"], (latency[:, inside] > 3).mean(axis=1))


def test_each_tier_is_a_queue_of_its_own():
    table, world, assignment = case(slots={"tier0": 2, "tier2": 1}, rate_per_s=3.0)
    tier, rows = assignment[0], np.arange(table.n_queries)
    wait = contended_latency(table, world, tier) - table.latency_s[rows, tier]
    assert not wait[tier == 1].any()
    for k, servers in ((0, 2), (2, 1)):
        member = tier == k
        expected = brute_force(world.arrival_s[member], table.latency_s[member, k], servers)
        np.testing.assert_allclose(wait[member], expected, atol=1e-9)
        assert expected.any()


def test_a_world_that_does_not_fit_the_table_is_refused():
    table, _, _ = case()
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match=r"world\.slots names \['tier9'\], which are none of the tiers"):
        make_queue_world(table, rate_per_s=1.0, slots={"tier9": 2, "tier0": 1}, rng=rng)
    unknown = make_table(rng, latency=False)
    with pytest.raises(ConfigError, match="world=queue needs latency_s"):
        make_queue_world(unknown, rate_per_s=1.0, slots={"tier0": 2}, rng=rng)
    world = make_queue_world(table, rate_per_s=1.0, slots={"tier2": 2}, rng=rng)
    assert [station.slots for station in world.stations] == [None, None, 2] and len(world.arrival_s) == table.n_queries


# --- the approximation ------------------------------------------------------------------------------------------------


def exponential_case(utilisation, servers, *, n=4000, seed=0):
    """All traffic on one tier whose service times are exponential, of mean one second."""
    rng = np.random.default_rng(seed)
    table = make_table(rng, n=n, k=2)
    table = dataclasses.replace(table, latency_s=rng.exponential(1.0, (n, 2)))
    world = make_queue_world(table, rate_per_s=utilisation * servers, slots={"tier1": servers}, rng=rng)
    return table, world, np.ones((1, n), dtype=np.int8)


@pytest.mark.parametrize("slots", [{}, {"tier0": 1000, "tier1": 1000, "tier2": 1000}, {"tier1": 60}])
def test_the_approximation_is_exact_where_nobody_waits(slots):
    table, world, assignment = case(slots=slots)
    _, contended = estimators(table, world, assignment)
    metrics = tuple(m for m in figures(table) if m.needs_latency)
    found = approximate_latency(table, world, assignment, metrics)
    assert set(found) == {m.column for m in metrics}
    for name, values in contended.values(metrics).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("servers", [1, 4])
@pytest.mark.parametrize("utilisation", [0.5, 0.7, 0.9])
def test_the_approximation_is_within_a_factor_of_two(utilisation, servers):
    table, world, assignment = exponential_case(utilisation, servers)
    _, contended = estimators(table, world, assignment)
    found, simulated = approximate_latency(table, world, assignment, LATENCY), contended.values(LATENCY)
    for name, values in simulated.items():
        assert 0.5 < found[name][0] / values[0] < 2.0, (name, found[name], values)


@pytest.mark.parametrize("utilisation", [1.2, 2.0, 5.0])
def test_in_overload_the_approximation_grows_like_the_backlog(utilisation):
    table, world, assignment = exponential_case(utilisation, 2)
    _, contended = estimators(table, world, assignment)
    found, simulated = approximate_latency(table, world, assignment, LATENCY), contended.values(LATENCY)
    for metric in LATENCY[:4]:
        assert 0.5 < found[metric.column][0] / simulated[metric.column][0] < 2.0, metric


def test_the_approximation_orders_loads_as_the_simulation_does():
    table, world, _ = exponential_case(1.5, 2)
    up = np.argsort(np.random.default_rng(1).random(table.n_queries))
    loads = np.stack([(up < share * table.n_queries).astype(np.int8) for share in (0.1, 0.3, 0.5, 0.7, 0.9)])
    _, contended = estimators(table, world, loads)
    found, simulated = approximate_latency(table, world, loads, LATENCY), contended.values(LATENCY)
    for name in ("latency_mean_s", "latency_p95_s"):
        assert (np.diff(found[name]) > 0).all() and (np.diff(simulated[name]) > 0).all()


def test_a_tier_that_answers_at_once_makes_nobody_wait():
    table, world, assignment = case(slots={"tier1": 1})
    table = dataclasses.replace(table, latency_s=table.latency_s * np.array([1.0, 0.0, 1.0]))
    exact, contended = estimators(table, world, assignment)
    expected = exact.values(LATENCY)["latency_mean_s"]
    np.testing.assert_allclose(contended.values(LATENCY)["latency_mean_s"], expected)
    np.testing.assert_allclose(approximate_latency(table, world, assignment, LATENCY)["latency_mean_s"], expected)


def test_a_slice_outside_the_subset_has_no_approximation():
    table, world, assignment = exponential_case(0.5, 1)
    code = np.zeros(table.n_queries, dtype=np.int64)
    code[1::4] = 1  # of 4,000 queries every fourth is looked at: never these
    table = dataclasses.replace(table, slice_code=code)
    metrics = (parse_metric("p95@slice1"), parse_metric("p95@slice0"))
    assert set(approximate_latency(table, world, assignment, metrics)) == {"latency_p95_s[slice0]"}


# --- the problem ------------------------------------------------------------------------------------------------------


def problem(world_slots):
    table, world, _ = case(slots=world_slots or {}, rate_per_s=2.0)
    score = ScoreTable(score=np.random.default_rng(1).normal(size=table.n_queries))
    return RoutingProblem(
        table=table,
        family=ThresholdFamily(score, PLAIN, 3),
        objectives=tuple(parse_metric(name) for name in ("cost", "quality", "p95")),
        constraints=parse_constraints({"p95_ceiling_s": 6.0, "quality_floor": 0.5}),
        coverage=coverage(table, 20),
        world=None if world_slots is None else world,
    )


def test_a_problem_under_load_knows_what_is_exact():
    loaded, free = problem({"tier2": 1}), problem(None)
    assert loaded.exact_columns == {"cost_usd", "quality", "worst_slice_quality"}
    assert free.exact_columns == {m.column for m in free.metrics} > loaded.exact_columns
    params = loaded.space.decode(np.random.default_rng(0).random((15, loaded.space.dim)))
    found, exact, guess = loaded.evaluate_params(params), loaded.exact(params), loaded.approximate(params)
    assert set(exact) == loaded.exact_columns
    assert set(guess) == {m.column for m in loaded.metrics} - loaded.exact_columns
    for name, values in exact.items():
        np.testing.assert_array_equal(values, found.columns[name], err_msg=name)
        np.testing.assert_array_equal(values, free.evaluate_params(params).columns[name])
    assert free.approximate(params) == {}
    assert set(free.exact(params)) == free.exact_columns


def test_waits_enter_objectives_and_constraints():
    loaded, free = problem({"tier2": 1}), problem(None)
    params = loaded.corners()
    under, without = loaded.evaluate_params(params), free.evaluate_params(params)
    np.testing.assert_array_equal(under.Y[:, :2], without.Y[:, :2])
    np.testing.assert_allclose(under.Y[:2, 2], without.Y[:2, 2])  # no slots there, no waits
    assert under.Y[2, 2] < 2 * without.Y[2, 2] < 0
    np.testing.assert_allclose(under.Y[:, 2], -under.columns["latency_p95_s"])
    row = [c.name for c in loaded.constraints].index("p95_ceiling_s")
    np.testing.assert_allclose(under.slack[:, row], 6.0 - under.columns["latency_p95_s"])


def test_a_simulated_figure_does_not_depend_on_its_batch():
    loaded = problem({"tier1": 2, "tier2": 1})
    params = loaded.space.decode(np.random.default_rng(0).random((7, loaded.space.dim)))
    whole = loaded.evaluate_params(params)
    for i in range(7):
        np.testing.assert_array_equal(loaded.evaluate_params(params[[i]]).Y[0], whole.Y[i])


def test_a_world_without_slots_is_no_world():
    params = problem(None).corners()
    np.testing.assert_allclose(problem({}).evaluate_params(params).Y, problem(None).evaluate_params(params).Y)
    arrival_s = problem({}).world.arrival_s
    assert isinstance(problem({}).world, World) and (np.diff(arrival_s) >= 0).all()
