"""A plan under one stream of requests: who serves whom, and that nothing but that differs from single replicas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_deployment_performance import fleet_of

from simulators.deployment.batching import serve
from simulators.deployment.fleet import simulate_plan, simulate_tier, speed_of, turns
from simulators.deployment.plan import FleetPlan, Replica, ReplicaGroup
from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import FloatArray

FLEET = fleet_of()
H100, CARD = Replica(gpu="h100"), Replica(gpu="rtx_4090")
BIG = Replica(gpu="h100", tensor_parallel=4)


def requests(n: int, rate: float = 20.0) -> tuple[FloatArray, FloatArray, FloatArray]:
    rng = np.random.default_rng(4)
    arrival_s = np.cumsum(rng.exponential(1 / rate, n))
    return arrival_s, rng.integers(1, 900, n).astype(float), rng.integers(1, 300, n).astype(float)


class TestTurns:
    def test_by_hand(self) -> None:
        assert turns(np.array([0.5, 0.25, 0.25]), 8).tolist() == [0, 1, 2, 0, 0, 1, 2, 0]
        assert turns(np.array([1.0]), 3).tolist() == [0, 0, 0]

    @given(st.lists(st.floats(0.01, 1), min_size=1, max_size=5), st.integers(1, 300))
    @settings(deadline=None)
    def test_every_group_has_its_share_at_any_time(self, weights: list[float], n: int) -> None:
        shares = np.array(weights) / sum(weights)
        taken = turns(shares, n)[:, None] == np.arange(len(shares))
        owed = np.arange(1, n + 1)[:, None] * shares
        assert (np.abs(np.cumsum(taken, axis=0) - owed) < max(len(shares) - 1, 1)).all()

    def test_no_share_no_request(self) -> None:
        assert set(turns(np.array([0.0, 1.0]), 50).tolist()) == {1}


class TestTier:
    def test_replicas_take_turns(self) -> None:
        arrival_s, prompt, answer = requests(600)
        plan = (ReplicaGroup(replica=H100, replicas=3),)
        served = simulate_tier(FLEET, "small", plan, arrival_s, prompt, answer)
        for r in range(3):
            alone = serve(speed_of(FLEET, "small", H100), arrival_s[r::3], prompt[r::3], answer[r::3])
            np.testing.assert_array_equal(served.first_s[r::3], alone.first_s)
            np.testing.assert_array_equal(served.done_s[r::3], alone.done_s)

    def test_groups_take_their_shares(self) -> None:
        arrival_s, prompt, answer = requests(900)
        plan = (
            ReplicaGroup(replica=H100, replicas=1, share=2 / 3),
            ReplicaGroup(replica=CARD, replicas=2, share=1 / 3),
        )
        served = simulate_tier(FLEET, "small", plan, arrival_s, prompt, answer)
        of = turns(np.array([2 / 3, 1 / 3]), 900)
        assert (of == 0).sum() == 600
        mine = np.flatnonzero(of == 1)[1::2]
        alone = serve(speed_of(FLEET, "small", CARD), arrival_s[mine], prompt[mine], answer[mine])
        np.testing.assert_array_equal(served.done_s[mine], alone.done_s)

    def test_a_second_replica_helps(self) -> None:
        arrival_s, prompt, answer = requests(2000, rate=40.0)
        waits = [
            np.quantile(
                simulate_tier(
                    FLEET, "small", (ReplicaGroup(replica=CARD, replicas=n),), arrival_s, prompt, answer
                ).done_s
                - arrival_s,
                0.95,
            )
            for n in (1, 2, 4, 8)
        ]
        assert waits == sorted(waits, reverse=True) and waits[0] > 2 * waits[-1]

    def test_without_groups_nothing_is_served(self) -> None:
        assert np.isnan(simulate_tier(FLEET, "small", (), *requests(5)).done_s).all()


class TestPlan:
    PLAN = FleetPlan(
        tiers=("small", "large"),
        groups=((ReplicaGroup(replica=CARD, replicas=2),), (ReplicaGroup(replica=BIG, replicas=1),)),
    )

    def test_every_request_goes_to_its_tier(self) -> None:
        arrival_s, prompt, answer = requests(400, rate=5.0)
        tier = np.random.default_rng(0).integers(-1, 2, 400)
        lengths = np.stack([prompt, prompt + 7], axis=1), np.stack([answer, 2 * answer], axis=1)
        served = simulate_plan(FLEET, self.PLAN, arrival_s, tier, *lengths)
        for m, name in enumerate(self.PLAN.tiers):
            of = tier == m
            groups = self.PLAN.groups[m]
            alone = simulate_tier(FLEET, name, groups, arrival_s[of], lengths[0][of, m], lengths[1][of, m])
            np.testing.assert_array_equal(served.done_s[of], alone.done_s)
            np.testing.assert_array_equal(served.first_s[of], alone.first_s)
        np.testing.assert_array_equal(np.isnan(served.done_s), tier == -1)

    def test_a_tier_without_replicas_serves_nobody(self) -> None:
        plan = FleetPlan(tiers=self.PLAN.tiers, groups=(self.PLAN.groups[0], ()))
        arrival_s, prompt, answer = requests(10)
        lengths = np.stack([prompt] * 2, axis=1), np.stack([answer] * 2, axis=1)
        served = simulate_plan(FLEET, plan, arrival_s, np.arange(10) % 2, *lengths)
        np.testing.assert_array_equal(np.isnan(served.done_s), np.arange(10) % 2 == 1)

    def test_bad_input(self) -> None:
        arrival_s, prompt, _ = requests(4)
        lengths = np.stack([prompt] * 2, axis=1)
        with pytest.raises(ConfigError, match="tiers should be numbers below 2; got 0 to 2"):
            simulate_plan(FLEET, self.PLAN, arrival_s, np.array([0, 1, 2, 0]), lengths, lengths)
        with pytest.raises(InputDataError, match="expected lengths of shape"):
            simulate_plan(FLEET, self.PLAN, arrival_s, np.zeros(4, np.int64), lengths[:, :1], lengths)
        for tier, replica, said in (
            ("huge", CARD, "the fleet has no huge; its tiers are small, large"),
            ("small", Replica(gpu="tpu"), "the fleet has no tpu; its GPU types are h100"),
            ("large", CARD, "large does not fit on rtx_4090 TP1 PP1; use more GPUs"),
        ):
            with pytest.raises(ConfigError, match=said):
                speed_of(FLEET, tier, replica)
