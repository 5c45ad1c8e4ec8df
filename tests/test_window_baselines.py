"""Rules per window, the static front they are held against, and thresholds that know the traffic."""

import dataclasses

import numpy as np
import pytest
from helpers import make_table
from hypothesis import given
from hypothesis import strategies as st

from simulators.envs.telemetry import silence
from simulators.envs.windows import Coming
from simulators.errors import ConfigError
from toolkit.baselines.window_assignment import Assignment, Bins, make_bins
from toolkit.baselines.window_front import (
    advantage,
    cheapest_share,
    cost_ratio,
    interval,
    not_dominated,
    shared,
)
from toolkit.baselines.window_optimum import clairvoyant, path_tiers, window_of
from toolkit.baselines.window_rules import IndexRule, Pacer, Pacing, station_holds
from toolkit.baselines.windows import (
    Episode,
    Known,
    Service,
    expected_wait_s,
    service_of,
    static_service,
    tiers_of,
)
from toolkit.evaluation.contention import make_queue_world

SLO_S = 6.0


@pytest.fixture(scope="module")
def episode():
    table = make_table(np.random.default_rng(3), n=400)
    table = dataclasses.replace(table, latency_s=np.maximum(table.latency_s, 0.1), _hash=[])
    names = table.tiers
    slots = {names[0]: 2, names[1]: 2, names[2]: 3}
    world = make_queue_world(table, rate_per_s=1.2, slots=slots, rng=np.random.default_rng(4))
    score = table.queries.signals["difficulty"]
    rank = np.argsort(np.argsort(score)) / len(score)
    bins = (rank * 8).astype(int)
    quality, cost, hold = (
        np.stack([v[bins == b].mean(axis=0) for b in range(8)])[bins]
        for v in (table.quality, table.cost_usd, table.hold_s)
    )
    return Episode(
        table=table, world=world, known=Known(rank=rank, quality=quality, cost_usd=cost, hold_s=hold), slo_s=SLO_S
    )


@pytest.fixture(scope="module")
def holds(episode):
    return station_holds(episode.known, episode.station, len(episode.slots))


def pacing(holds, cuts, target, shift, signal="wait"):
    return Pacing(
        cuts=np.array(cuts),
        target=np.array(target),
        shift=np.array(shift),
        signal=signal,
        hold_s=holds,
        window_s=20.0,
    )


def test_a_rank_on_a_cut_goes_up_and_a_cut_of_one_lets_nobody_pass():
    cuts = np.array([[0.25, 0.75], [0.0, 1.0], [1.0, 1.0]])
    found = tiers_of(cuts, np.array([0.0, 0.25, 0.7, 0.75, 1.0]))
    assert found.tolist() == [[0, 1, 1, 2, 2], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]


class TestPacer:
    def test_moves_by_a_twentieth_of_the_relative_excess(self):
        pacer = Pacer(np.array([1.0, 1.0, 2.0]))
        for _ in range(4):
            pacer.update(np.array([2.0, 0.5, 2.0]))
        assert pacer.multiplier == pytest.approx([0.2, 0.0, 0.0])

    def test_averages_over_windows(self):
        pacer = Pacer(np.array([1.0]))
        pacer.update(np.array([1.0]))
        pacer.update(np.array([3.0]))  # average 1.1
        assert pacer.multiplier == pytest.approx([0.05 * 0.1])

    def test_stays_within_its_limits_and_ignores_what_was_not_seen(self):
        pacer = Pacer(np.array([1.0, 1.0]))
        for _ in range(50):
            pacer.update(np.array([1e3, np.nan]))
        assert pacer.multiplier.tolist() == [5.0, 0.0]


class TestPacing:
    def test_without_pressure_it_is_the_static_point(self, episode, holds):
        cuts = [[0.3, 0.8], [0.1, 0.5]]
        never = service_of(episode, pacing(holds, cuts, [1e9, 1e9], [0.3, 0.3]))
        assert never.stacked() == pytest.approx(static_service(episode, np.array(cuts)).stacked())

    @pytest.mark.parametrize(("signal", "target"), [("cost", 1e-5), ("late", 1e-3), ("wait", 0.01)])
    def test_pressure_takes_traffic_from_dearer_tiers(self, episode, holds, signal, target):
        cuts = [[0.1, 0.5]]
        plain = static_service(episode, np.array(cuts))
        pressed = service_of(episode, pacing(holds, cuts, [target], [0.5], signal))
        assert pressed.cost_usd[0] < 0.9 * plain.cost_usd[0]

    def test_sees_no_answer(self, episode, holds):
        """Qualities reach figures only: other ones change no decision."""
        other = dataclasses.replace(episode.table, quality=1.0 - episode.table.quality, _hash=[])
        blind = dataclasses.replace(episode, table=other)
        for rule in (
            pacing(holds, [[0.2, 0.6]], [0.05], [0.3], "late"),
            IndexRule(usd_price=np.ones(1), wait_price=np.full(1, 0.01), hold_s=holds, window_s=20.0),
        ):
            a, b = service_of(episode, rule), service_of(blind, rule)
            assert a.attainment == b.attainment and a.cost_usd == b.cost_usd and a.quality != b.quality


class TestIndex:
    def test_without_a_price_of_waiting_it_is_a_utility(self, episode, holds):
        prices = np.array([0.0, 20.0])
        rule = IndexRule(usd_price=prices, wait_price=np.zeros(2), hold_s=holds, window_s=50.0)
        every = np.arange(episode.table.n_queries)
        for i, price in enumerate(prices):
            best = (episode.known.quality - price * episode.known.cost_usd).argmax(axis=1)
            wanted = episode.table.cost_usd[every, best][episode.world.row].mean()
            assert service_of(episode, rule).cost_usd[i] == pytest.approx(wanted)

    def test_a_price_of_waiting_gives_more_answers_in_time(self, episode, holds):
        rule = IndexRule(usd_price=np.zeros(2), wait_price=np.array([0.0, 0.02]), hold_s=holds, window_s=10.0)
        without, with_price = service_of(episode, rule).attainment
        assert with_price > without + 0.1

    def test_sends_what_it_sent_itself_elsewhere(self, episode, holds):
        """Of simultaneous requests that all prefer one tier, some go elsewhere once its slots are taken."""
        rule = IndexRule(usd_price=np.zeros(1), wait_price=np.full(1, 10.0), hold_s=holds, window_s=10.0)
        decide = rule.begin(episode)
        n, same = 12, np.zeros(12, dtype=np.int64)
        coming = Coming(requests=slice(0, n), row=same, ready_s=np.full(n, 1.0), score=np.full(n, np.nan))
        slots = np.array([2, 2, 3])
        tier = decide(silence(1, 3, slots), coming)[0]
        assert set(tier.tolist()) == {0, 1, 2}
        assert (np.bincount(tier[: int(slots.sum())], minlength=3) == slots).all()  # nobody waits while a slot is free

    def test_a_station_without_tiers_changes_nothing(self, episode, holds):
        slots, n = np.array([2, 2, 3, 5]), 12
        wider = dataclasses.replace(episode)
        wider.__dict__.update(slots=slots.astype(float), station=episode.station)
        found = station_holds(episode.known, episode.station, 4)
        assert found == pytest.approx([*holds, 0.0])
        coming = Coming(requests=slice(0, n), row=np.arange(n), ready_s=np.arange(n) * 0.5, score=np.full(n, np.nan))
        tiers = [
            IndexRule(usd_price=np.zeros(1), wait_price=np.full(1, 10.0), hold_s=hold_s, window_s=10.0).begin(where)(
                silence(1, 3, where.slots.astype(int)), coming
            )
            for hold_s, where in ((holds, episode), (found, wider))
        ]
        assert (tiers[0] == tiers[1]).all()


def test_expected_wait_counts_those_ahead(episode, holds):
    slots = np.array([2, 2, 3])
    seen = dataclasses.replace(silence(1, 3, slots), waiting=np.array([[3, 0, 0]]), held=np.array([[2, 2, 2]]))
    assert expected_wait_s(episode, seen, np.array([4.0, 6.0, 9.0])).tolist() == [[8.0, 3.0, 0.0]]


class TestAssignment:
    BINS = Bins(
        quality=np.array([[0.9, 1.0], [0.5, 1.0]]),
        cost_usd=np.array([[1.0, 2.0], [1.0, 2.0]]),
        hold_s=np.array([[1.0, 4.0], [1.0, 4.0]]),
    )

    def planned(self, episode, floor, load, rate=0.0, slots=(np.inf, 2.0)):
        rule = Assignment(floor=np.array([floor]), load=np.array([load]), bins=self.BINS, window_s=60.0)
        known = dataclasses.replace(episode.known, quality=episode.known.quality[:, :2])
        two = dataclasses.replace(episode, known=known)
        two.__dict__.update(slots=np.array(slots), station=np.array([0, 1]))
        return rule.plan(two, rate, np.zeros((1, len(slots)), dtype=np.int64))[0]

    def test_least_cost_at_a_quality(self, episode):
        """The hard bin gains five times as much per dollar, so it is served first: 0.7 + 0.5 x = 0.9."""
        assert self.planned(episode, 0.9, 1.0) == pytest.approx(np.array([[0.5, 0.0], [0.1, 0.4]]))

    def test_slots_come_before_quality(self, episode):
        """One request a second of 4 s on 2 slots, half of them used: a quarter may pass."""
        found = self.planned(episode, 0.9, 0.5, rate=1.0)
        assert found[:, 1].sum() == pytest.approx(0.25) and found.sum() == pytest.approx(1.0)

    def test_a_station_without_tiers_changes_nothing(self, episode):
        plain = self.planned(episode, 0.9, 0.5, rate=1.0)
        assert self.planned(episode, 0.9, 0.5, rate=1.0, slots=(np.inf, 2.0, 4.0)) == pytest.approx(plain)

    def test_bins_are_means_by_rank(self, episode):
        bins = make_bins(episode.known, 4)
        assert len(bins) == 4
        first = episode.known.rank < 0.25
        assert bins.quality[0] == pytest.approx(episode.known.quality[first].mean(axis=0))

    def test_plays(self, episode):
        bins = make_bins(episode.known, 8)
        rule = Assignment(floor=np.array([0.6, 0.8]), load=np.array([0.9, 0.9]), bins=bins, window_s=50.0)
        found = service_of(episode, rule)
        assert found.cost_usd[0] < found.cost_usd[1] and found.quality[0] < found.quality[1]


POINTS = Service(
    attainment=np.array([0.6, 0.8, 0.9]),
    cost_usd=np.array([1.0, 2.0, 4.0]),
    quality=np.array([0.9, 0.9, 0.8]),
    failed=np.zeros(3),
)


class TestFront:
    def test_time_sharing_by_hand(self):
        found = shared(POINTS, cost_usd=3.0, quality=0.0)
        assert found.weight == pytest.approx([0, 0.5, 0.5]) and found.attainment == pytest.approx(0.85)
        assert found.usd_value == pytest.approx(0.05)

    def test_quality_binds(self):
        found = shared(POINTS, cost_usd=10.0, quality=0.85)
        assert found.attainment == pytest.approx(0.85) and found.quality_value == pytest.approx(1.0)

    def test_nothing_costs_so_little(self):
        assert shared(POINTS, cost_usd=0.5, quality=0.0) is None
        assert cheapest_share(POINTS, attainment=0.95, quality=0.0) is None

    def test_cheapest_mixture(self):
        assert cheapest_share(POINTS, attainment=0.7, quality=0.0).cost_usd == pytest.approx(1.5)

    def test_advantage_is_the_distance_with_paired_spread(self):
        static = np.stack([POINTS.stacked()[:, :3]] * 2)
        shift = np.array([0.01, -0.01])
        static = static + shift[:, None, None] * [1.0, 0.0, 0.0]
        own = np.array([[0.93, 3.0, 0.8], [0.87, 3.0, 0.8]])
        found = advantage(own, static)
        assert found.values == pytest.approx([0.07, 0.03]) and found.equal_cost

    def test_a_cliff_of_the_front_is_no_price_of_cost(self):
        """At 1 USD another cent of a hundredth buys 0.4; over the rule's own spread of costs it buys 16 per USD."""
        static = np.tile(np.array([[[0.5, 1.0, 0.9], [0.9, 1.0001, 0.9]]]), (3, 1, 1))
        own = np.array([[0.9, 0.99, 0.9], [0.9, 1.0, 0.9], [0.9, 1.01, 0.9]])
        half = interval(own[:, 1]).high - 1.0
        found = advantage(own, static)
        assert found.values.mean() == pytest.approx(0.4) and np.ptp(found.values) == pytest.approx(0.4 * 0.02 / half)

    def test_a_point_of_the_front_is_on_it(self):
        static = POINTS.stacked()[None, :, :3]
        own = np.array([[0.9, 4.0, 0.8]])
        assert advantage(own, static).values == pytest.approx([0.0])

    def test_quality_above_the_floor_counts_only_at_equal_quality(self):
        static = POINTS.stacked()[None, :, :3]
        own = np.array([[0.85, 4.0, 0.9]])
        assert advantage(own, static).values == pytest.approx([0.05])
        assert advantage(own, static, quality_floor=0.8).values == pytest.approx([-0.05])

    def test_the_cheapest_mixture_stands_in_for_one_that_costs_so_little(self):
        static = POINTS.stacked()[None, :, :3]
        found = advantage(np.array([[0.65, 0.5, 0.85]]), static)
        assert found.values == pytest.approx([0.05]) and not found.equal_cost
        assert advantage(np.array([[0.65, 0.5, 0.99]]), static) is None
        assert cost_ratio(np.array([[0.95, 0.5, 0.85]]), static) is None

    @given(st.integers(0, 2**32 - 1))
    @pytest.mark.slow
    def test_no_static_point_is_beyond_its_own_front(self, seed):
        rng = np.random.default_rng(seed)
        static = rng.random((3, 6, 3)) + 0.1
        i = int(rng.integers(6))
        found = advantage(static[:, i], static)
        assert found is not None and found.values.mean() <= 1e-7
        assert (cost_ratio(static[:, i], static) or 0.0) >= 1 - 1e-7

    def test_not_dominated(self):
        points = np.array([[0.6, 1.0, 0.9, 0.0], [0.6, 2.0, 0.9, 0.0], [0.5, 1.0, 0.95, 0.0], [0.6, 1.0, 0.9, 0.0]])
        assert not_dominated(Service.of(points)).tolist() == [True, False, True, True]

    def test_interval_is_students(self):
        found = interval(np.array([0.0, 2.0]))
        assert found.mean == 1.0 and found.high - 1.0 == pytest.approx(12.706, abs=1e-3) and not found.beyond
        assert interval(np.array([1.0, 1.0])).beyond and np.isnan(interval(np.array([1.0])).low)


class TestClairvoyant:
    def test_is_no_worse_than_its_start_and_keeps_its_limits(self, episode):
        start = np.array([0.3, 0.7])
        plain = static_service(episode, start[None, :])
        found = clairvoyant(episode, start, n_windows=4, quality_floor=0.0, cost_usd=float(plain.cost_usd[0]), passes=6)
        assert found.service.attainment[0] > plain.attainment[0]
        assert found.service.cost_usd[0] <= plain.cost_usd[0] and found.passes <= 6
        assert (np.diff(found.cuts, axis=1) >= 0).all()

    def test_a_floor_that_the_start_misses_becomes_its_own(self, episode):
        start = np.array([0.5, 0.9])
        plain = static_service(episode, start[None, :])
        found = clairvoyant(episode, start, n_windows=2, quality_floor=1.0, cost_usd=0.0, passes=2)
        assert found.service.quality[0] >= plain.quality[0] and found.service.cost_usd[0] <= plain.cost_usd[0]

    def test_a_constant_path_is_static(self, episode):
        cuts = np.array([0.3, 0.7])
        window = window_of(episode, 5)
        path = path_tiers(episode, window, np.tile(cuts, (1, 5, 1)))
        assert (path == tiers_of(cuts[None], episode.known.rank)[:, episode.world.row]).all()


def test_a_window_longer_than_the_traffic_is_refused(episode, holds):
    rule = IndexRule(usd_price=np.zeros(1), wait_price=np.zeros(1), hold_s=holds, window_s=1e9)
    with pytest.raises(ConfigError, match="a window must last between 0 and"):
        service_of(episode, rule)
