"""Window by window: the sums are those of one simulation, and a router sees only what one can see."""

import dataclasses
import math

import numpy as np
import pytest
from helpers import make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.envs.load_scale import UNREACHABLE, LoadScale
from simulators.envs.telemetry import Observer, Scales
from simulators.envs.windows import WindowSimulator, n_windows, play, window_ends
from simulators.errors import ConfigError, InputDataError
from simulators.seeds import spawn_rng
from simulators.simulate import simulate
from simulators.traffic import make_world, parse_traffic
from simulators.world import SERVED, Station, TierRule, World

LIMIT_S = 4.0
PLAIN = {
    "duration_s": 300.0,
    "warmup_s": 30.0,
    "arrivals": {"kind": "poisson", "rate_per_s": 2.0},
    "stations": {f"tier{k}": {"slots": 3} for k in range(3)},
}
# Every way in which a request can fail, fall back, be checked or come late to its tier.
MESSY = PLAIN | {
    "stations": {
        "tier0": {"slots": 2, "buffer": 3, "error_rate": 0.05},
        "tier1": {"slots": 2, "requests_per_min": 60},
        "tier2": {"slots": 2},
    },
    "tiers": {
        "tier0": {"retries": 1, "fallback": "tier2"},
        "tier1": {"fallback": "tier2"},
        "tier2": {"timeout_s": 6.0},
    },
    "outages": [{"stations": ["tier1"], "start_s": 100.0, "end_s": 150.0}],
    "router": {"servers": 2, "outages": [{"start_s": 200.0, "end_s": 210.0}]},
    "second": {"tier1": {"tier": "tier0", "share": 0.2, "kind": "check", "correction_rate": 0.5}},
}


def make_case(raw: dict, seed: int = 0):
    """World, table and score; the messy table has a router of its own, fixed costs and checks."""
    rng = spawn_rng(seed, "table")
    table = make_table(rng, n=200)
    if raw is MESSY:
        table = table.with_router(delay_s=rng.uniform(0.0, 0.3, 200), cost_usd=rng.uniform(0.0, 1e-5, (200, 3)))
        table = dataclasses.replace(table, fixed_usd=1e-5, unchecked=0.8 * table.quality, _hash=[])
    world = make_world(table, parse_traffic(raw), load=1.0, rng=spawn_rng(seed, "traffic"))
    return world, table, table.queries.signals["difficulty"]


def whole(world, table, tier):
    """Shares and means over the counted requests of one simulation in one go."""
    journeys = simulate(world, table, tier, per_request=True)
    counted, code = world.counted, table.slice_code[world.row]
    failed = journeys.served < 0
    late = failed | (journeys.e2e_s > LIMIT_S)
    quality = journeys.quality(table.quality, world.row, table.unchecked)
    in_slice = [np.intersect1d(counted, np.flatnonzero(code == s)) for s in range(len(table.slices))]
    return {
        "share_late": late[:, counted].mean(axis=1),
        "share_failed": failed[:, counted].mean(axis=1),
        "mean_quality": quality[:, counted].mean(axis=1),
        "cost_per_query_usd": journeys.cost_usd[:, counted].mean(axis=1),
        "slice_late": np.stack([late[:, rows].mean(axis=1) for rows in in_slice], axis=1),
        "slice_wrong": np.stack([1.0 - quality[:, rows].mean(axis=1) for rows in in_slice], axis=1),
        "mean_latency_s": np.array(
            [e[counted][~f[counted]].mean() for e, f in zip(journeys.e2e_s, failed, strict=True)]
        ),
        "reasons": np.stack([np.bincount(r[counted], minlength=7) for r in journeys.reason]),
    }


def assert_same(totals, expected) -> None:
    n_slices = totals.requests.shape[1]
    found = {name: getattr(totals, name) for name in expected if not name.startswith("slice")}
    for kind in ("late", "wrong"):
        found[f"slice_{kind}"] = np.stack([totals.slice_share(kind, s) for s in range(n_slices)], axis=1)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-9, atol=1e-15, err_msg=name)
    np.testing.assert_allclose(totals.share_wrong, 1.0 - expected["mean_quality"], rtol=1e-9)


@pytest.mark.parametrize("raw", [PLAIN, MESSY], ids=["plain", "messy"])
@pytest.mark.parametrize("window_s", [0.7, 15.0, 1e6])
@pytest.mark.slow
def test_any_split_gives_the_figures_of_one_simulation(raw, window_s):
    world, table, score = make_case(raw)
    thresholds = np.array([[0.3, 0.6], [0.1, 0.2], [0.9, 2.0]])
    played = play(
        world, table, score, lambda *_: thresholds, window_s=window_s, n=3, latency_limit_s=LIMIT_S, keep=True
    )
    tier = (score[world.row][None, :, None] >= thresholds[:, None, :]).sum(axis=2).astype(np.int8)
    expected = whole(world, table, tier)
    assert_same(played.totals, expected)
    assert len(played.windows) == len(played.decisions) == n_windows(world.duration_s, window_s)
    assert sum(w.total_requests for w in played.windows).tolist() == [len(world.counted)] * 3
    if raw is MESSY:  # the case is what it is meant to be
        assert (expected["reasons"].sum(axis=0) > 0)[[0, 4, 6]].all() and (expected["share_failed"] < 0.9).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.floats(2.0, 400.0))
@pytest.mark.slow
def test_tiers_of_single_requests_that_change_with_time_too(seed, window_s):
    world, table, _ = make_case(MESSY, seed % 3)
    tier = np.random.default_rng(seed).integers(-1, 3, (2, world.n_requests)).astype(np.int8)
    played = play(
        world, table, None, lambda _, coming: tier[:, coming.requests], window_s=window_s, n=2, latency_limit_s=LIMIT_S
    )
    assert_same(played.totals, whole(world, table, tier))


def test_thresholds_hold_for_the_requests_that_reach_the_tiers_in_their_window():
    world, table, score = make_case(PLAIN)
    steps = np.random.default_rng(1).uniform(0.0, 1.0, (30, 2, 2)).cumsum(axis=2)
    tier = np.empty((2, world.n_requests), dtype=np.int8)

    def controller(seen, coming):
        assert ((coming.ready_s >= seen.at_s) & (coming.ready_s < seen.at_s + 10.0)).all()
        thresholds = steps[round(seen.at_s / 10.0)]
        tier[:, coming.requests] = (coming.score[None, :, None] >= thresholds[:, None, :]).sum(axis=2)
        return thresholds

    played = play(world, table, score, controller, window_s=10.0, n=2, latency_limit_s=LIMIT_S)
    assert_same(played.totals, whole(world, table, tier))


def one_slot_world(at_s: list[float], warmup_s: float = 0.0) -> World:
    at = np.array(at_s)
    return World(
        arrival_s=at,
        ready_s=at,
        row=np.arange(len(at)),
        router_down=np.zeros(len(at), dtype=np.bool_),
        stations=(Station(name="a", slots=1), Station(name="b")),
        rules=(TierRule(station=0), TierRule(station=1)),
        warmup_s=warmup_s,
        duration_s=40.0,
    )


def one_slot_table():
    """Three queries of ten seconds each on the one slot of tier 0, of one second on tier 1."""
    table = make_table(np.random.default_rng(0), n=3, k=2, n_slices=1)
    return dataclasses.replace(table, latency_s=np.tile([10.0, 1.0], (3, 1)), quality=np.tile([0.5, 1.0], (3, 1)))


def test_a_request_counts_in_the_window_in_which_it_ended():
    simulator = WindowSimulator(one_slot_world([1.0, 2.0, 3.0]), one_slot_table(), None, 1, latency_limit_s=15.0)
    first = simulator.step(10.0, np.array([[0, 0, 1]], dtype=np.int8))
    assert first.total_requests[0] == 1 and first.quality[0, 0] == 1.0
    seen = simulator.telemetry
    assert (seen.at_s, seen.window_s, seen.arrived) == (10.0, 10.0, 3)
    assert seen.slots.tolist() == [1, 0]
    assert seen.held.tolist() == [[1, 0]] and seen.waiting.tolist() == [[1, 0]]
    assert (
        seen.sent.tolist() == [[2, 1]] and seen.ended.tolist() == [[0, 1]] and seen.latency_s.tolist() == [[0.0, 1.0]]
    )
    assert seen.outcomes[0, :, SERVED].tolist() == [0, 1]
    second = simulator.step(20.0, np.empty((1, 0), dtype=np.int8))
    assert second.total_requests[0] == 1 and second.late[0, 0] == 0  # from 1 to 11
    last = simulator.step(math.inf, np.empty((1, 0), dtype=np.int8))
    assert last.total_requests[0] == 1 and last.late[0, 0] == 1  # from 2 to 21
    assert simulator.done and simulator.totals.late.tolist() == [[1]] and simulator.totals.sent.tolist() == [[2, 1]]
    assert simulator.telemetry.at_s == 40.0


def test_the_warm_up_is_seen_and_not_counted():
    simulator = WindowSimulator(one_slot_world([1.0, 2.0, 3.0], warmup_s=2.5), one_slot_table(), None, 1)
    assert simulator.step(20.0, np.array([[1, 1, 1]], dtype=np.int8)).total_requests[0] == 1
    assert simulator.telemetry.ended.tolist() == [[0, 3]]


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_labels_come_so_many_windows_after_the_end(lag):
    world, table, score = make_case(PLAIN)
    simulator = WindowSimulator(world, table, score, 2, label_share=1.0, label_lag=lag)
    answered, labels, sums = [], [], []
    for until_s in window_ends(world.duration_s, 10.0):
        simulator.step(until_s, np.array([[0.3, 0.6], [0.1, 0.2]]))
        answered.append(simulator.telemetry.ended)
        labels.append(simulator.telemetry.labels)
        sums.append(simulator.telemetry.label_quality)
    assert (np.array(labels)[:lag] == 0).all()
    np.testing.assert_array_equal(np.array(labels)[lag:], np.array(answered)[: len(answered) - lag])  # none falls back
    assert (np.array(sums) <= np.array(labels)).all() and np.sum(sums) > 0


def telemetry_of(world, table, score, until_s=math.inf, **options):
    """All the numbers that a router gets to see up to an instant."""
    simulator, found = WindowSimulator(world, table, score, 1, latency_limit_s=LIMIT_S, **options), []
    for end_s in window_ends(world.duration_s, 10.0):
        if end_s > until_s:
            break
        simulator.step(end_s, np.array([[0.3, 0.6]]))
        seen = dataclasses.asdict(simulator.telemetry)
        found.append(np.concatenate([np.ravel(values) for values in seen.values()]))
    return np.array(found)


def test_a_share_of_the_answers_is_labelled_the_same_ones_for_all():
    world, table, score = make_case(PLAIN)
    simulator = WindowSimulator(world, table, score, 2, label_share=0.25, label_lag=0)
    simulator.step(math.inf, np.array([[0.3, 0.6], [0.3, 0.6]]))
    labels = simulator.telemetry.labels
    assert (labels[0] == labels[1]).all() and 0.15 < labels[0].sum() / world.n_requests < 0.35


def test_nothing_tells_of_unlabelled_quality_or_of_what_is_to_come():
    world, table, score = make_case(MESSY)
    other = dataclasses.replace(table, quality=1.0 - table.quality, unchecked=1.0 - 0.8 * table.quality, _hash=[])
    np.testing.assert_array_equal(
        telemetry_of(world, table, score, label_share=0.0), telemetry_of(world, other, score, label_share=0.0)
    )
    assert not np.array_equal(telemetry_of(world, table, score), telemetry_of(world, other, score))
    keep = world.ready_s < 120.0
    cut = {name: getattr(world, name)[keep] for name in ("arrival_s", "ready_s", "row", "router_down")}
    shorter = dataclasses.replace(world, **cut)
    options = {"label_share": 1.0}
    np.testing.assert_array_equal(
        telemetry_of(world, table, score, 120.0, **options), telemetry_of(shorter, table, score, 120.0, **options)
    )


def test_pinned_rows_follow_no_threshold():
    world, table, score = make_case(PLAIN)
    pinned = np.where(np.arange(200) < 50, 2, -1)
    played = play(world, table, score, lambda *_: np.array([[9.0, 9.0]]), window_s=50.0, pinned=pinned)
    expected = np.bincount(np.where(world.row[world.counted] < 50, 2, 0), minlength=3)
    assert played.totals.sent.tolist() == [expected.tolist()]


def test_what_makes_no_sense_is_refused():
    world, table, score = make_case(PLAIN)
    with pytest.raises(ConfigError, match="never decrease"):
        WindowSimulator(world, table, score, 1).step(10.0, np.array([[0.6, 0.3]]))
    with pytest.raises(ConfigError, match="2 x 2 thresholds"):
        WindowSimulator(world, table, score, 2).step(10.0, np.array([[0.3, 0.6]]))
    with pytest.raises(ConfigError, match="tiers of shape"):
        WindowSimulator(world, table, score, 2).step(10.0, np.array([[0, 0]]))
    with pytest.raises(ConfigError, match="one score for each"):
        WindowSimulator(world, table, score[:5], 1)
    with pytest.raises(ConfigError, match="label_share"):
        WindowSimulator(world, table, score, 1, label_share=1.5)
    with pytest.raises(ConfigError, match="latency_limit_s"):
        WindowSimulator(world, table, score, 1, latency_limit_s=0.0)
    with pytest.raises(ConfigError, match="window_s"):
        n_windows(10.0, 0.0)
    over = WindowSimulator(world, table, score, 1)
    over.step(math.inf, np.array([[0.3, 0.6]]))
    with pytest.raises(ConfigError, match="has ended"):
        over.step(math.inf, np.array([[0.3, 0.6]]))


def test_windows_cover_the_traffic():
    assert list(window_ends(60.0, 20.0)) == [20.0, 40.0, math.inf]
    assert list(window_ends(61.0, 20.0)) == [20.0, 40.0, 60.0, math.inf]
    assert list(window_ends(0.3, 0.1)) == pytest.approx([0.1, 0.2, math.inf])
    assert list(window_ends(10.0, 20.0)) == [math.inf]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.booleans())
def test_positions_and_thresholds_lead_to_each_other(seed, m, ties):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 5, m).astype(float) if ties else rng.standard_normal(m)
    scale, positions = LoadScale(scores), rng.uniform(size=(4, 3))
    thresholds = scale.thresholds(positions)
    assert (thresholds[:, 1:] >= thresholds[:, :-1]).all()
    back = scale.positions(thresholds)
    np.testing.assert_array_equal(scale.positions(scale.thresholds(back)), back)
    if not ties:
        np.testing.assert_allclose(back, np.rint(np.sort(positions, axis=1) * m) / m)
    assert scale.thresholds(np.array([0.0, 1.0])).tolist() == [-UNREACHABLE, UNREACHABLE]


def test_a_load_scale_needs_scores():
    with pytest.raises(InputDataError, match="reference scores"):
        LoadScale(np.array([]))
    with pytest.raises(InputDataError, match="all finite; of 2, 1 are"):
        LoadScale(np.array([1.0, np.nan]))


def test_recent_shares_weigh_windows_by_age():
    simulator = WindowSimulator(one_slot_world([1.0, 2.0, 3.0]), one_slot_table(), None, 1, latency_limit_s=0.5)
    observer = Observer(1, 2, 2, 0, Scales(rate_per_s=0.1, latency_s=3.0, clock=True))
    nothing, action = np.zeros((1, 0)), np.array([[0.25]])
    first = observer.see(simulator.telemetry, action, nothing)[0]
    assert first[observer.layout["clock"]].tolist() == [0.0, 1.0] and first[observer.layout["action"]] == 0.25
    assert first[observer.layout["rate"]] == 0.5 and not first[observer.layout["late"]].any()
    simulator.step(10.0, np.array([[0, 0, 1]], dtype=np.int8))
    second = observer.see(simulator.telemetry, action, nothing)[0]
    values = {name: second[columns].tolist() for name, columns in observer.layout.items()}
    assert values["rate"] == pytest.approx([0.75]) and values["busy"] == pytest.approx([1.0, 0.0])
    assert values["waiting"] == pytest.approx([1 / 11, 0.0]) and values["late"] == [0.0, 1.0]
    assert values["latency"] == pytest.approx([0.0, 0.25]) and values["sent"] == pytest.approx([2 / 3, 1 / 3])
    simulator.step(30.0, np.empty((1, 0), dtype=np.int8))
    third = observer.see(simulator.telemetry, action, nothing)[0]
    values = {name: third[columns].tolist() for name, columns in observer.layout.items()}
    assert values["ended"] == pytest.approx([2 / 12, 0.6 / 10.6]) and values["late"] == [1.0, 1.0]
    assert values["label_quality"] == pytest.approx([0.0, 1.0])  # one window late
