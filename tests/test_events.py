"""The event-order kernel: the plain reference, SimPy, closed forms, windows, and the rules of `simulators/world.py`."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from helpers import make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import event_bench
from experiments.event_peers import simulate_simpy
from simulators.errors import ConfigError, InputDataError
from simulators.events.arrays import Answers
from simulators.events.draws import uniform
from simulators.events.reference import simulate_plainly
from simulators.events.simulator import EventSimulator, simulate_events
from simulators.journeys import PENDING, Journeys
from simulators.queueing import probability_of_wait
from simulators.simulate import simulate
from simulators.world import (
    ERROR,
    FULL,
    LIMIT,
    OUTAGE,
    ROUTER,
    SERVED,
    TIMEOUT,
    Outage,
    Station,
    TierRule,
    World,
)
from toolkit.evaluation.contention import PerQuery

FIELDS = [field.name for field in dataclasses.fields(Journeys)]


def make_world(ready_s, stations, rules, *, row=None, **options):
    ready_s = np.asarray(ready_s, dtype=np.float64)
    n = len(ready_s)
    given_ = {
        "arrival_s": ready_s,
        "row": np.zeros(n, dtype=np.int64) if row is None else row,
        "router_down": np.zeros(n, dtype=bool),
        "duration_s": float(ready_s[-1]) + 1.0,
    }
    return World(ready_s=ready_s, stations=tuple(stations), rules=tuple(rules), **(given_ | options))


def make_answers(hold_s, **columns):
    hold_s = np.atleast_2d(np.asarray(hold_s, dtype=np.float64))
    plain = {
        "first_s": hold_s / 4,
        "extra_s": np.zeros_like(hold_s),
        "tokens": np.full_like(hold_s, 100.0),
        "cost_usd": np.ones_like(hold_s),
    }
    return Answers(hold_s=hold_s, **{k: np.asarray(v, dtype=np.float64) for k, v in (plain | columns).items()})


def run(world, answers, tier):
    """One candidate, by the kernel and by the reference, which must agree."""
    tier = np.asarray(tier, dtype=np.int8)
    found = simulate_events(world, answers, tier[None])
    assert_equal(found, simulate_plainly(world, answers, tier))
    return found


def assert_equal(found, expected, *, atol=1e-9):
    for name in FIELDS:
        a, b = getattr(found, name), getattr(expected, name)
        if a.dtype.kind in "ib":
            np.testing.assert_array_equal(a, b, err_msg=name)
        else:
            np.testing.assert_allclose(a, b, atol=atol, rtol=1e-12, err_msg=name)


def candidate(journeys, c):
    return Journeys(**{name: getattr(journeys, name)[c : c + 1] for name in FIELDS})


# --- worlds of all kinds ----------------------------------------------------------------------------------------------


def random_station(rng, name, ties):
    def sometimes(value):
        return value if rng.random() < 0.5 else None

    return Station(
        name=name,
        slots=int(rng.integers(1, 4)) if rng.random() < 0.8 else None,
        buffer=sometimes(int(rng.integers(0, 4))),
        requests_per_min=sometimes(float(rng.integers(2, 40))),
        tokens_per_min=sometimes(float(rng.integers(300, 4000))),
        error_rate=float(rng.choice([0.0, 0.1])),
        error_rate_busy=float(rng.choice([0.0, 0.5])),
    )


def random_rule(rng, tier, n_tiers, n_stations, ties):
    others = [-1, *(k for k in range(n_tiers) if k != tier)]
    return TierRule(
        station=int(rng.integers(n_stations)),
        timeout_s=float(
            rng.choice([math.inf, 1.0, 3.0]) if ties else rng.choice([math.inf, rng.exponential(3.0) + 0.1])
        ),
        retries=int(rng.integers(0, 4)),
        backoff_s=float(rng.choice([0.0, 1.0]) if ties else rng.exponential(1.0) + 0.01),
        backoff_factor=float(rng.choice([1.0, 2.0])),
        fallback=int(rng.choice(others)),
        second=int(rng.choice(others)) if rng.random() < 0.4 else -1,
        second_share=float(rng.choice([0.5, 1.0])),
        second_async=bool(rng.random() < 0.5),
    )


def random_case(seed, *, ties, n_requests=60, n=2):
    """World, answers and tiers with every feature; with `ties`, all instants are multiples of a half."""
    rng = np.random.default_rng(seed)
    n_tiers, n_stations, n_rows = int(rng.integers(2, 5)), int(rng.integers(1, 4)), 20
    gap, hold_s = rng.exponential(0.4, n_requests), rng.exponential(1.5, (n_rows, n_tiers))
    delay = rng.exponential(0.05, n_requests)
    if ties:
        gap, hold_s, delay = np.floor(gap * 4) / 2, np.floor(hold_s * 2) / 2, np.zeros(n_requests)
    arrival_s = np.cumsum(gap)
    order = np.argsort(arrival_s + delay, kind="stable")
    end_s = arrival_s[-1]
    world = World(
        arrival_s=arrival_s[order],
        ready_s=(arrival_s + delay)[order],
        row=rng.integers(0, n_rows, n_requests),
        router_down=rng.random(n_requests) < 0.05,
        router_fallback=int(rng.integers(-1, n_tiers)),
        stations=tuple(random_station(rng, f"s{j}", ties) for j in range(n_stations)),
        rules=tuple(random_rule(rng, k, n_tiers, n_stations, ties) for k in range(n_tiers)),
        outages=(
            Outage(stations=(0,), start_s=np.floor(end_s / 4), end_s=np.floor(end_s / 4) + 2.0),
            Outage(stations=tuple(range(n_stations)), start_s=np.floor(end_s / 2) + 2, end_s=np.floor(end_s / 2) + 4.0),
        ),
        duration_s=end_s + 1.0,
        seed=int(rng.integers(2**62)),
    )
    answers = make_answers(
        hold_s,
        first_s=hold_s * 0.3,
        extra_s=rng.random((n_rows, n_tiers)),
        tokens=rng.integers(10, 400, (n_rows, n_tiers)),
        cost_usd=rng.random((n_rows, n_tiers)),
    )
    tier = rng.integers(-1 if rng.random() < 0.3 else 0, n_tiers, (n, n_requests)).astype(np.int8)
    return world, answers, tier


@given(st.integers(0, 10**6), st.booleans())
@settings(deadline=None, max_examples=100)
def test_kernel_equals_reference(seed, ties):
    world, answers, tier = random_case(seed, ties=ties)
    found = simulate_events(world, answers, tier)
    for c in range(len(tier)):
        assert_equal(candidate(found, c), simulate_plainly(world, answers, tier[c]))


def without_ties(world, seed):
    """No outages, in which a whole line is refused at one instant, and retries or timeouts of a tier but not both.

    Clients with the same patience and the same pauses meet at instants that are equal up to rounding.
    """
    change = {"retries": 0} if seed % 2 else {"timeout_s": math.inf}
    rules = tuple(dataclasses.replace(rule, **change) if rule.retries else rule for rule in world.rules)
    return dataclasses.replace(world, outages=(), rules=rules)


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_kernel_equals_simpy_with_every_rule_at_once(seed):
    world, answers, tier = random_case(seed, ties=False)
    world = without_ties(world, seed)
    assert_equal(simulate_events(world, answers, tier[:1]), simulate_simpy(world, answers, tier[0]))


@given(st.integers(0, 10**6), st.booleans(), st.lists(st.integers(0, 80), max_size=6))
@settings(deadline=None, max_examples=60)
def test_any_windows_equal_one_run(seed, ties, ends):
    world, answers, tier = random_case(seed, ties=ties)
    simulator = EventSimulator(world, answers, len(tier))
    ended, outcomes = [[] for _ in tier], 0
    for end_s in [*sorted(end / 2 for end in ends), math.inf]:
        requests = simulator.requests_before(end_s)
        window = simulator.advance(end_s, tier[:, requests])
        outcomes = outcomes + window.outcomes
        for c, numbers in enumerate(window.ended):
            ended[c] += numbers.tolist()
        so_far = simulator.journeys()
        for c in range(len(tier)):
            assert sorted(ended[c]) == np.flatnonzero(so_far.reason[c] != PENDING).tolist()
    assert_equal(simulator.journeys(), simulate_events(world, answers, tier))
    np.testing.assert_array_equal(outcomes, simulator.journeys().outcomes)
    assert (window.held == 0).all() and (window.waiting == 0).all()


@given(st.integers(0, 10**6), st.booleans())
@settings(deadline=None, max_examples=60)
def test_what_must_add_up(seed, ties):
    world, answers, tier = random_case(seed, ties=ties)
    found = simulate_events(world, answers, tier)
    assert (found.reason >= 0).all() and (found.failed == (found.served < 0)).all()
    assert (np.isnan(found.ttft_s) == found.failed).all() and (found.e2e_s >= 0).all()
    np.testing.assert_array_equal(found.outcomes.sum((1, 2)), found.attempts.sum(1))
    assert (found.attempts[found.reason == ROUTER] == 0).all()
    most = sum(rule.retries + 1 for rule in world.rules) + max(rule.retries + 1 for rule in world.rules)
    assert found.attempts.max() <= most
    for j, station in enumerate(world.stations):
        if station.buffer is not None:
            assert (found.longest_line[:, j] <= station.buffer).all()
    assert (found.busy_s[:, :] >= 0).all()


@pytest.mark.slow
def test_kernel_equals_reference_and_simpy_on_many_worlds():
    for seed in range(1_000):
        for ties in (False, True):
            world, answers, tier = random_case(seed, ties=ties, n_requests=150, n=1)
            found = simulate_events(world, answers, tier)
            assert_equal(found, simulate_plainly(world, answers, tier[0]))
            if not ties:
                world = without_ties(world, seed)
                assert_equal(simulate_events(world, answers, tier), simulate_simpy(world, answers, tier[0]))


# --- one rule at a time, against SimPy --------------------------------------------------------------------------------

FEATURES = {
    "plain": ({}, {}, {}),
    "buffer": ({"buffer": 2}, {}, {}),
    "timeout": ({}, {"timeout_s": 1.3}, {}),
    "retries": ({"buffer": 0}, {"retries": 3, "backoff_s": 0.7, "backoff_factor": 1.7}, {}),
    "fallback": ({"buffer": 1}, {"fallback": 1}, {}),
    "requests": ({"requests_per_min": 30.0}, {"retries": 1}, {}),
    "tokens": ({"tokens_per_min": 4_000.0}, {"retries": 1}, {}),
    "outages": ({}, {"retries": 2}, {"outages": (Outage(stations=(0, 1), start_s=20.1, end_s=33.3),)}),
    "errors": ({"error_rate": 0.05, "error_rate_busy": 0.6}, {"retries": 1}, {}),
    "formatted": ({}, {"second": 1, "second_share": 0.4}, {}),
    "checked": ({}, {"second": 1, "second_share": 0.4, "second_async": True}, {}),
}
USED = {
    "buffer": FULL,
    "timeout": TIMEOUT,
    "retries": FULL,
    "fallback": FULL,
    "requests": LIMIT,
    "tokens": LIMIT,
    "outages": OUTAGE,
    "errors": ERROR,
}


@pytest.mark.parametrize("feature", FEATURES)
def test_kernel_equals_simpy_on(feature):
    station, rule, options = FEATURES[feature]
    rng = np.random.default_rng(5)
    world = make_world(
        np.cumsum(rng.exponential(0.3, 300)),
        [Station(name="a", slots=3, **station), Station(name="b", slots=2)],
        [TierRule(station=0, **rule), TierRule(station=1)],
        row=np.arange(300),
        **options,
    )
    answers = make_answers(rng.exponential(1.0, (300, 2)), tokens=rng.integers(50, 400, (300, 2)))
    tier = (rng.random(300) < 0.2).astype(np.int8)
    found = run(world, answers, tier)
    assert_equal(found, simulate_simpy(world, answers, tier))
    assert found.outcomes[0, 0, USED.get(feature, SERVED)] > 5


# --- the rules, one known answer each ---------------------------------------------------------------------------------


def test_a_timeout_in_line_and_one_in_service():
    """One slot, ten seconds each, patience six: the second leaves the line, the first is cut and billed for 6 of 10."""
    found = run(make_world([0, 1], [Station(name="a", slots=1)], [TierRule(station=0, timeout_s=6.0)]), TEN, [0, 0])
    assert found.e2e_s.tolist() == [[6.0, 6.0]] and (found.reason == TIMEOUT).all()
    assert found.busy_s.tolist() == [[7.0]]  # at 6 the slot goes on to the second, who leaves at 7
    np.testing.assert_allclose(found.cost_usd, [[0.6, 0.1]])


def test_an_end_comes_before_a_timeout_and_a_timeout_before_an_attempt():
    world = make_world([0, 10], [Station(name="a", slots=1, buffer=0)], [TierRule(station=0, timeout_s=10.0)])
    assert run(world, TEN, [0, 0]).reason.tolist() == [[SERVED, SERVED]]
    world = make_world([0, 5], [Station(name="a", slots=1, buffer=0)], [TierRule(station=0, timeout_s=5.0)])
    assert run(world, TEN, [0, 0]).attempts.tolist() == [[1, 1]]
    assert run(world, TEN, [0, 0]).reason.tolist() == [[TIMEOUT, TIMEOUT]]  # not FULL: the slot was free again


def test_retries_back_off_and_a_tier_is_tried_once():
    """Down until 100: attempts at 0, 1, 3 and 7, then the other tier at 7, 7 and back to none."""
    world = make_world(
        [0.0],
        [Station(name="a"), Station(name="b")],
        [TierRule(station=0, retries=3, fallback=1), TierRule(station=1, retries=1, backoff_s=0.5, fallback=0)],
        outages=(Outage(stations=(0, 1), start_s=0.0, end_s=100.0),),
    )
    found = run(world, make_answers([[1.0, 1.0]]), [0])
    assert found.e2e_s[0, 0] == 7.5 and found.outcomes[0, :, OUTAGE].tolist() == [4, 2]
    assert found.reason[0, 0] == OUTAGE and found.cost_usd[0, 0] == 0.0


def test_the_line_is_refused_when_a_slot_becomes_free_in_an_outage():
    world = make_world(
        [0.0, 1.0, 2.0],
        [Station(name="a", slots=1)],
        [TierRule(station=0)],
        outages=(Outage(stations=(0,), start_s=5.0, end_s=10.5),),
    )
    found = run(world, TEN, [0, 0, 0])
    assert found.reason.tolist() == [[SERVED, OUTAGE, OUTAGE]] and found.e2e_s.tolist() == [[10.0, 9.0, 8.0]]


def test_buckets_start_full_and_fill_continuously():
    """60 a minute: 60 at once, the 61st is refused; half a second later there is none, a second later one."""
    world = make_world([0.0] * 61 + [0.5, 1.0], [Station(name="a", requests_per_min=60.0)], [TierRule(station=0)])
    assert np.flatnonzero(run(world, TEN, [0] * 63).reason[0] == LIMIT).tolist() == [60, 61]
    station = Station(name="a", requests_per_min=60.0, tokens_per_min=250.0)
    world = make_world([0.0] * 3 + [12.0], [station], [TierRule(station=0)])
    assert np.flatnonzero(run(world, TEN, [0] * 4).reason[0] == LIMIT).tolist() == [2]


def test_a_refusal_by_one_bucket_leaves_the_other():
    """Two requests fit. The first two ask for too many tokens, so that the third and the fourth still pass."""
    station = Station(name="a", requests_per_min=2.0, tokens_per_min=250.0)
    world = make_world([0.0] * 4, [station], [TierRule(station=0)], row=np.array([0, 0, 1, 1]))
    answers = make_answers([[1.0], [1.0]], tokens=[[300.0], [100.0]])
    assert run(world, answers, [0] * 4).reason.tolist() == [[LIMIT, LIMIT, SERVED, SERVED]]


def test_an_attempt_that_finds_the_line_full_is_charged():
    station = Station(name="a", slots=1, buffer=0, requests_per_min=2.0)
    world = make_world([0.0, 0.0, 0.0], [station], [TierRule(station=0)])
    assert run(world, TEN, [0] * 3).reason.tolist() == [[SERVED, FULL, LIMIT]]


def test_errors_rise_with_the_share_of_other_slots():
    """Two slots: alone nobody fails, beside another everybody does; the slot is held to the end and nothing billed."""
    station = Station(name="a", slots=2, error_rate=0.0, error_rate_busy=1.0)
    found = run(make_world([0.0, 1.0], [station], [TierRule(station=0)]), TEN, [0, 0])
    assert found.reason.tolist() == [[SERVED, ERROR]] and found.cost_usd.tolist() == [[1.0, 0.0]]
    assert found.busy_s[0, 0] == 20.0 and found.e2e_s[0, 1] == 10.0


def test_draws_of_errors_are_uniform_and_the_same_for_all_candidates():
    draws = np.array([uniform(3, r, a) for r in range(3_000) for a in (1, 2)])
    assert abs(draws.mean() - 0.5) < 0.02 and abs(np.corrcoef(draws[::2], draws[1::2])[0, 1]) < 0.06
    world = make_world(
        np.arange(500.0), [Station(name="a", error_rate=0.3, error_rate_busy=0.3)], [TierRule(station=0)]
    )
    found = simulate_events(world, TEN, np.zeros((2, 500), dtype=np.int8))
    assert 0.2 < found.failed.mean() < 0.4 and (found.reason[0] == found.reason[1]).all()


@pytest.mark.parametrize(("second_async", "e2e", "ttft"), [(False, 3.5, 2.25), (True, 2.5, 0.5)])
def test_second_stage(second_async, e2e, ttft):
    rule = TierRule(station=0, second=1, second_share=0.25, second_async=second_async)
    answers = make_answers([[2.0, 4.0]], extra_s=[[0.5, 9.0]])
    found = run(make_world([0.0], [Station(name="a"), Station(name="b")], [rule, TierRule(station=1)]), answers, [0])
    assert (found.e2e_s[0, 0], found.ttft_s[0, 0], found.cost_usd[0, 0]) == (e2e, ttft, 1.25)
    assert found.served[0, 0] == 0 and found.attempts[0, 0] == 2 and found.busy_s.tolist() == [[2.0, 1.0]]
    np.testing.assert_array_equal(found.quality(np.array([[0.7, 0.9]]), np.array([0])), [[0.7]])


@pytest.mark.parametrize("second_async", [False, True])
def test_a_lost_second_stage(second_async):
    """Without its formatting the answer is lost, though paid; a check that never came corrects nothing."""
    rule = TierRule(station=0, second=1, second_async=second_async)
    outage = Outage(stations=(1,), start_s=0.0, end_s=50.0)
    stations = [Station(name="a"), Station(name="b")]
    world = make_world([0.0], stations, [rule, TierRule(station=1, fallback=0)], outages=(outage,))
    found = run(world, make_answers([[2.0, 4.0]]), [0])
    assert found.cost_usd[0, 0] == 1.0 and found.e2e_s[0, 0] == 2.0
    assert found.reason[0, 0] == (SERVED if second_async else OUTAGE)
    assert found.checked[0, 0] != second_async
    table, unchecked = np.array([[0.7, 0.9]]), np.array([[0.6, 0.9]])
    assert found.quality(table, np.array([0]), unchecked)[0, 0] == (0.6 if second_async else 0.0)
    assert found.quality(table, np.array([0]))[0, 0] == (0.7 if second_async else 0.0)


def test_only_served_checks_count_as_checks():
    """Ten seconds per check on one slot without a line: the second check finds it busy and its retry does not."""
    rules = [TierRule(station=0, second=1, second_async=True), TierRule(station=1, retries=1, backoff_s=4.0)]
    stations = [Station(name="a"), Station(name="b", slots=1, buffer=0)]
    world = make_world([0.0, 7.0, 9.0, 30.0], stations, rules)
    found = run(world, make_answers([[1.0, 10.0]]), [0, 0, 0, 1])
    assert found.checked.tolist() == [[True, True, False, True]] and (found.served[0, :3] == 0).all()
    np.testing.assert_array_equal(
        found.quality(np.array([[0.7, 0.9]]), world.row, np.array([[0.6, 0.9]])), [[0.7, 0.7, 0.6, 0.9]]
    )


def test_router_outages():
    down = {"router_down": np.array([True, False]), "arrival_s": np.array([0.0, 0.5])}
    stations, rules = [Station(name="a"), Station(name="b")], [TierRule(station=0), TierRule(station=1)]
    answers = make_answers([[2.0, 4.0]])
    lost = run(make_world([1.0, 1.0], stations, rules, **down), answers, [0, 0])
    assert lost.reason.tolist() == [[ROUTER, SERVED]] and lost.e2e_s.tolist() == [[1.0, 2.5]]
    saved = run(make_world([1.0, 1.0], stations, rules, router_fallback=1, **down), answers, [0, 0])
    assert saved.served.tolist() == [[1, 0]] and not saved.fell_back.any()


def test_fallbacks_are_seen():
    stations = [Station(name="a", slots=1, buffer=0), Station(name="b")]
    world = make_world([0.0, 1.0], stations, [TierRule(station=0, fallback=1), TierRule(station=1)])
    found = run(world, make_answers([[10.0, 4.0]]), [0, 0])
    assert found.fell_back.tolist() == [[False, True]] and found.served.tolist() == [[0, 1]]
    np.testing.assert_allclose(found.utilisation(world), [[10.0 / 2.0, np.nan]])


def test_a_long_line_needs_more_places_than_there_were():
    """3,000 requests at once for one slot: far more under way than the kernel has room for at first."""
    world = make_world(np.zeros(3_000), [Station(name="a", slots=1)], [TierRule(station=0, timeout_s=15_005.0)])
    found = simulate_events(world, TEN, np.zeros((2, 3_000), dtype=np.int8))
    assert (found.longest_line == 2_999).all() and (found.reason[0, :1_500] == SERVED).all()
    assert (found.reason[0, 1_500:] == TIMEOUT).all()


def test_what_an_operator_sees_at_the_end_of_a_window():
    world = make_world([0.0, 1.0, 2.0, 30.0], [Station(name="a", slots=1)], [TierRule(station=0)])
    simulator = EventSimulator(world, TEN, 1)
    assert simulator.requests_before(12.0) == slice(0, 3)
    window = simulator.advance(12.0, np.zeros((1, 3), dtype=np.int8))
    assert (window.held.tolist(), window.waiting.tolist(), window.busy_s.tolist()) == ([[1]], [[1]], [[10.0]])
    assert [numbers.tolist() for numbers in window.ended] == [[0]] and window.outcomes.sum() == 1
    assert simulator.journeys().reason.tolist() == [[SERVED, PENDING, PENDING, PENDING]]
    assert np.isnan(simulator.journeys().e2e_s[0, 1:]).all()
    with pytest.raises(ConfigError, match="time cannot run back from 12 to 3 s"):
        simulator.advance(3.0, np.zeros((1, 0), dtype=np.int8))
    with pytest.raises(ConfigError, match=r"expected tiers of shape \(1, 1\)"):
        simulator.advance(31.0, np.zeros((1, 2), dtype=np.int8))


# --- closed forms -----------------------------------------------------------------------------------------------------


def poisson_case(n, *, rate, mean_s, station, rule, seed):
    rng = np.random.default_rng(seed)
    world = make_world(np.cumsum(rng.exponential(1 / rate, n)), [station], [rule], row=np.arange(n))
    return simulate_events(world, make_answers(rng.exponential(mean_s, (n, 1))), np.zeros((1, n), dtype=np.int8)), world


def erlang_b(offered, servers):
    blocked = 1.0
    for c in range(1, servers + 1):
        blocked = offered * blocked / (c + offered * blocked)
    return blocked


@pytest.mark.parametrize(("slots", "offered"), [(1, 0.7), (4, 3.5), (16, 14.0)])
def test_losses_follow_erlang_b(slots, offered):
    station = Station(name="a", slots=slots, buffer=0)
    found, _ = poisson_case(200_000, rate=offered, mean_s=1.0, station=station, rule=TierRule(station=0), seed=1)
    assert found.failed.mean() == pytest.approx(erlang_b(offered, slots), rel=0.03)


@pytest.mark.parametrize(("slots", "buffer", "offered"), [(1, 4, 0.8), (1, 4, 1.5), (3, 5, 2.7)])
def test_losses_and_line_of_a_finite_buffer(slots, buffer, offered):
    """M/M/c/K: birth and death; K = slots + buffer."""
    weight = np.cumprod([1.0, *(offered / min(k, slots) for k in range(1, slots + buffer + 1))])
    share = weight / weight.sum()
    station = Station(name="a", slots=slots, buffer=buffer)
    found, world = poisson_case(300_000, rate=offered, mean_s=1.0, station=station, rule=TierRule(station=0), seed=2)
    assert found.failed.mean() == pytest.approx(share[-1], rel=0.04)
    inside = share @ np.arange(slots + buffer + 1)
    assert found.e2e_s[~found.failed].sum() / world.duration_s == pytest.approx(inside, rel=0.03)  # Little's law
    assert found.utilisation(world)[0, 0] == pytest.approx(
        share @ np.minimum(np.arange(len(share)), slots) / slots, rel=0.02
    )


def test_waiting_follows_erlang_c():
    station = Station(name="a", slots=4, buffer=10_000)
    found, _ = poisson_case(300_000, rate=3.0, mean_s=1.0, station=station, rule=TierRule(station=0), seed=3)
    waited = found.ttft_s > 0
    assert waited.all()
    assert found.e2e_s.mean() == pytest.approx(1.0 + probability_of_wait(3.0, 4), rel=0.04)  # / (c - a) = 1


def test_losses_of_impatient_customers():
    """M/M/1 whose customers leave after a fixed time tau, waiting or served: the finite dam.

    An arrival at workload V adds min(S, tau - V), so that with idle probability p the density of V is
    p rate exp(-(1 - rate) v) on [0, tau], and it is served in time if V + S <= tau.
    """
    rate, tau = 0.9, 3.0
    found, _ = poisson_case(
        300_000,
        rate=rate,
        mean_s=1.0,
        station=Station(name="a", slots=1),
        rule=TierRule(station=0, timeout_s=tau),
        seed=4,
    )
    idle = 1.0 / (1.0 + rate * (1.0 - math.exp(-(1.0 - rate) * tau)) / (1.0 - rate))
    v = (np.arange(20_000) + 0.5) * tau / 20_000
    late = idle * math.exp(-tau) + (idle * rate * np.exp(-(1 - rate) * v) * np.exp(-(tau - v))).mean() * tau
    assert found.failed.mean() == pytest.approx(late, rel=0.02)


# --- both kernels through `simulate` ----------------------------------------------------------------------------------

TEN = make_answers([[10.0]])


def table_of(n=40, **columns):
    rng = np.random.default_rng(8)
    latency = rng.exponential(1.0, (n, 3))
    return dataclasses.replace(
        make_table(rng, n=n, k=3),
        latency_s=latency,
        ttft_s=latency / 3,
        occupied_s=latency * 0.9,
        **columns,
    )


@given(st.integers(0, 10**6), st.booleans())
@settings(deadline=None, max_examples=40)
def test_both_kernels_agree_where_routing_is_all(seed, ties):
    world, answers, tier = random_case(seed, ties=ties)
    stations = tuple(Station(name=s.name, slots=s.slots) for s in world.stations)
    rules = tuple(TierRule(station=r.station, retries=2, fallback=r.fallback) for r in world.rules)
    world = dataclasses.replace(world, stations=stations, rules=rules, outages=())
    assert world.feed_forward
    from simulators.events.direct import simulate_directly

    assert_equal(simulate_directly(world, answers, tier), simulate_events(world, answers, tier))


def test_simulate_takes_tiers_by_row_and_by_request():
    table, rng = table_of(), np.random.default_rng(0)
    row, tier = rng.integers(0, 40, 200), rng.integers(0, 3, (3, 40)).astype(np.int8)
    for station in (Station(name="a", slots=2), Station(name="a", slots=2, buffer=3)):
        world = make_world(np.cumsum(rng.exponential(0.5, 200)), [station], [TierRule(station=0)] * 3, row=row)
        assert world.feed_forward == (station.buffer is None)
        by_row = simulate(world, table, tier, per_request=False)
        assert_equal(by_row, simulate(world, table, tier[:, row], per_request=True))
        assert_equal(candidate(by_row, 1), simulate_plainly(world, _answers_of(table), tier[1, row]))


def _answers_of(table):
    return Answers(
        hold_s=table.occupied_s,
        first_s=table.ttft_s,
        extra_s=table.latency_s - table.occupied_s,
        tokens=table.input_tokens + table.output_tokens,
        cost_usd=table.cost_usd,
    )


def test_the_router_is_paid_once_and_only_where_it_decided():
    table = table_of()
    dear = table.with_router(delay_s=np.full(40, 0.01), cost_usd=np.full((40, 3), 0.125))
    world = make_world([0.0, 1.0], [Station(name="a")], [TierRule(station=0)] * 3, router_down=np.array([True, False]))
    tier = np.zeros((1, 40), dtype=np.int8)
    a, b = (simulate(world, t, tier, per_request=False) for t in (table, dear))
    np.testing.assert_allclose(b.cost_usd - a.cost_usd, [[0.0, 0.125]])
    np.testing.assert_allclose(a.e2e_s, b.e2e_s)


def test_a_check_that_never_came_corrects_nothing_in_the_figures():
    """The checker is down for as long as the second half of the requests lasts."""
    table = table_of(quality=np.full((40, 3), 0.8), unchecked=np.tile([0.5, 0.8, 0.8], (40, 1)))
    rules = [TierRule(station=0, second=1, second_async=True), TierRule(station=1), TierRule(station=0)]
    world = make_world(
        100.0 * np.arange(40.0),
        [Station(name="a"), Station(name="b")],
        rules,
        row=np.arange(40),
        outages=(Outage(stations=(1,), start_s=2_000.0, end_s=9_000.0),),
    )
    tier = np.array([[0] * 40, [2] * 40], dtype=np.int8)
    found = PerQuery(world, table, tier, simulate(world, table, tier, per_request=False)).quality
    assert found[0].tolist() == [0.8] * 20 + [0.5] * 20 and found[1].tolist() == [0.8] * 40
    small = table.take(np.arange(3)).take_tiers(np.array([1, 0]))
    assert small.unchecked is not None and small.unchecked.tolist() == [[0.8, 0.5]] * 3
    assert table.data_hash == dataclasses.replace(table, unchecked=None, _hash=[]).data_hash


def test_the_bench_case_compares_equal_work(monkeypatch):
    monkeypatch.setattr(event_bench, "EVENT_CASES", {"contention-event": (600, 2)})
    monkeypatch.setattr(event_bench, "_PEER_REQUESTS", {"SimPy": 300, "plain Python": 300})
    rows = event_bench.run_event_case("contention-event", runs=1, seed=0)
    assert [row["ours"] for row in rows if row["metric"] == "requests that end otherwise"] == [0.0, 0.0]
    assert all(row["ratio"] > 0 for row in rows if row["ratio"] is not None)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_senseless_tables_and_tiers_are_refused():
    table = table_of()
    world = make_world([0.0], [Station(name="a", tokens_per_min=100.0)], [TierRule(station=0)] * 3)
    tier = np.zeros((1, 40), dtype=np.int8)
    nothing = np.full((40, 3), np.nan)
    with pytest.raises(InputDataError, match="a token limit needs input and output tokens"):
        simulate(world, dataclasses.replace(table, input_tokens=nothing), tier, per_request=False)
    with pytest.raises(InputDataError, match="needs a latency of every query"):
        simulate(world, dataclasses.replace(table, latency_s=nothing), tier, per_request=False)
    with pytest.raises(
        InputDataError, match=r"expected one tier for each of 40 columns; got an array of shape \(1, 2\)"
    ):
        simulate(world, table, tier[:, :2], per_request=False)
    with pytest.raises(InputDataError, match="tiers must lie in -1 ... 2; got 3 ... 3"):
        simulate(world, table, tier + np.int8(3), per_request=False)
    with pytest.raises(InputDataError, match="asks row 40 of a table with 40 rows"):
        simulate(dataclasses.replace(world, row=np.array([40])), table, tier, per_request=False)
    with pytest.raises(InputDataError, match="rules for 2 tiers, the table has 3"):
        simulate(dataclasses.replace(world, rules=world.rules[:2]), table, tier, per_request=False)


def test_an_unknown_cost_stays_unknown_and_unknown_tokens_do_not_matter():
    nothing = np.full((40, 3), np.nan)
    table = table_of(cost_usd=nothing, input_tokens=nothing)
    world = make_world([0.0], [Station(name="a", slots=1, buffer=1)], [TierRule(station=0)] * 3)
    found = simulate(world, table, np.zeros((1, 40), dtype=np.int8), per_request=False)
    assert np.isnan(found.cost_usd).all() and found.reason[0, 0] == SERVED


TWICE = (Outage(stations=(0,), start_s=1.0, end_s=3.0), Outage(stations=(0,), start_s=2.0, end_s=4.0))


@pytest.mark.parametrize(
    ("station", "rule", "options", "message"),
    [
        ({}, {}, {"outages": TWICE}, "outages of a overlap at 2 s"),
        ({}, {}, {"outages": (Outage(stations=(0,), start_s=3.0, end_s=2.0),)}, "must end after it starts; got 3 to 2"),
        ({}, {}, {"outages": (Outage(stations=(1,), start_s=1.0, end_s=2.0),)}, r"names stations \[1\] of 1"),
        ({"slots": 0}, {}, {}, "station a: slots and rate limits must be positive"),
        ({"buffer": -1}, {}, {}, "station a: slots and rate limits must be positive, a buffer not negative"),
        ({"tokens_per_min": 0.0}, {}, {}, "station a: slots and rate limits must be positive"),
        ({"requests_per_min": 0.5}, {}, {}, "with less than 1 request per minute none ever passes"),
        ({"error_rate": 1.5}, {}, {}, "error rates must lie in"),
        ({}, {"station": 2}, {}, "tier 0 names station 2 of 1"),
        ({}, {"fallback": 0}, {}, "tier 0 cannot fall back to 0"),
        ({}, {"second": 7}, {}, "have second stage 7"),
        ({}, {"timeout_s": 0.0}, {}, "timeouts must be positive"),
        ({}, {"timeout_s": math.nan}, {}, "timeouts must be positive"),
        ({}, {"retries": 101}, {}, "0 to 100 retries with finite pauses; got 101"),
        ({}, {"retries": 100, "backoff_factor": 1e9}, {}, "0 to 100 retries with finite pauses; got 100"),
        ({}, {"second_share": -1.0}, {}, "a share of 0 or more; got -1"),
        ({}, {}, {"router_fallback": 3}, "the router cannot fall back to tier 3 of 2"),
        ({}, {}, {"ready_s": np.array([2.0, 1.0]), "arrival_s": np.zeros(2)}, "must come in the order"),
        ({}, {}, {"arrival_s": np.array([0.0, np.nan])}, "cannot reach a tier before it arrived"),
        ({}, {}, {"duration_s": 0.0}, "must last a positive time; got 0 s"),
    ],
)
def test_senseless_worlds_are_refused(station, rule, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        ready_s = options.pop("ready_s", np.array([0.0, 1.0]))
        rules = [TierRule(**({"station": 0} | rule)), TierRule(station=0)]
        make_world(ready_s, [Station(name="a", **station)], rules, **options)
    assert "\n" not in str(caught.value)
