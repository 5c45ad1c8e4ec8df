"""Journeys of feed-forward worlds: their waits come from `simulators.contention`, and nothing else can happen."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from simulators.contention.exact import waits
from simulators.contention.inputs import side_by_side
from simulators.events.arrays import Answers
from simulators.journeys import Journeys
from simulators.outcomes import FloatArray, IntArray
from simulators.world import REASONS, ROUTER, SERVED, World


def simulate_directly(world: World, answers: Answers, tier: NDArray[np.int8]) -> Journeys:
    """Journeys of n candidates in a feed-forward world.

    Args:
        world: The requests and what stands in their way.
        answers: What an answer takes, `N x K`.
        tier: `n x R` tiers as each candidate chose them; -1 fails at once.
    """
    answers.check(world)
    sent = np.array(world.reached(tier), order="C")
    station = np.array([rule.station for rule in world.rules], dtype=np.int64)
    slots = np.array([s.slots or 0 for s in world.stations], dtype=np.int64)
    wait_s, _ = waits(world.ready_s, answers.hold_s, world.row, sent, station, slots)
    asked, busy_s, longest = _per_station(world, answers.hold_s, sent, station, slots, wait_s)
    there, at, row = sent >= 0, np.maximum(sent, 0), world.row
    before_s = world.ready_s - world.arrival_s + wait_s
    outcomes = np.zeros((*asked.shape, len(REASONS)), dtype=np.int64)
    outcomes[:, :, SERVED] = asked
    return Journeys(
        e2e_s=before_s + np.where(there, (answers.hold_s + answers.extra_s)[row, at], 0.0),
        ttft_s=np.where(there, before_s + answers.first_s[row, at], np.nan),
        served=sent,
        cost_usd=np.where(there, answers.cost_usd[row, at], 0.0),
        attempts=there.astype(np.int16),
        reason=np.where(there, SERVED, ROUTER).astype(np.int8),
        tier=sent,
        busy_s=busy_s,
        outcomes=outcomes,
        longest_line=longest,
        checked=np.ones(sent.shape, dtype=np.bool_),  # a second stage takes the event-order kernel
    )


def _per_station(
    world: World,
    hold_s: FloatArray,
    tier: NDArray[np.int8],
    station: IntArray,
    slots: IntArray,
    wait_s: FloatArray,
) -> tuple[IntArray, FloatArray, IntArray]:
    """`n x J` answers, slot seconds and most in line."""
    shape = (len(tier), len(slots))
    asked, busy_s, longest = np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape, np.int64)

    def work(c: int) -> None:
        _add_up(world.ready_s, hold_s, world.row, tier[c], station, slots, wait_s[c], asked[c], busy_s[c], longest[c])

    side_by_side(lambda: work, range(len(tier)))
    return asked, busy_s, longest


@njit(cache=True, nogil=True)
def _add_up(
    ready_s: FloatArray,
    hold_s: FloatArray,
    row: IntArray,
    tier: NDArray[np.int8],
    station: IntArray,
    slots: IntArray,
    wait_s: FloatArray,
    asked: IntArray,
    busy_s: FloatArray,
    longest: IntArray,
) -> None:
    """One candidate, in place."""
    for r in range(len(ready_s)):
        if tier[r] >= 0:
            j = station[tier[r]]
            asked[j] += 1
            busy_s[j] += hold_s[row[r], tier[r]]
    for j in range(len(slots)):
        if slots[j] > 0:
            longest[j] = _longest_line(ready_s, tier, station, j, wait_s)


@njit(cache=True)
def _longest_line(ready_s: FloatArray, tier: NDArray[np.int8], station: IntArray, j: int, wait_s: FloatArray) -> int:
    """Most requests at station j that had come and not begun: they begin in the order in which they come."""
    longest, waiting, oldest = 0, 0, 0
    for r in range(len(ready_s)):
        if tier[r] < 0 or station[tier[r]] != j:
            continue
        waiting += 1
        while oldest <= r:
            if tier[oldest] >= 0 and station[tier[oldest]] == j:
                if ready_s[oldest] + wait_s[oldest] > ready_s[r]:
                    break
                waiting -= 1
            oldest += 1
        longest = max(longest, waiting)
    return longest
