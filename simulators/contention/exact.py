"""The queues in compiled float64: every wait of every candidate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from simulators.contention.inputs import FeedForwardState, checked, side_by_side
from simulators.outcomes import FloatArray, IntArray


def waits(
    ready_s: FloatArray,
    hold_s: FloatArray,
    row: IntArray,
    tier: NDArray[np.int8],
    station_of: IntArray,
    slots: IntArray,
    *,
    state: FeedForwardState | None = None,
) -> tuple[FloatArray, FeedForwardState]:
    """Wait of each request before a slot of its station takes it, first come first served.

    Args:
        ready_s: `R` instants at the tiers, seconds, ascending; equal ones are served in the order given.
        hold_s: `N x K` seconds that an answer holds a slot.
        row: `R` rows of `hold_s`.
        tier: `n x R` tier of each request, -1 where it goes nowhere.
        station_of: `K` station of each tier; tiers of one station share a line.
        slots: `J`; 0: no limit, so nobody waits.
        state: What an earlier call left; later requests then continue that run exactly.

    Returns:
        `n x R` waits, seconds (0 at tier -1), and the state after the last request.

    Raises:
        ConfigError: If stations or slots make no sense.
        InputDataError: If shapes differ, times decrease or a row, tier or hold does not exist.
    """
    queues = checked(ready_s, hold_s, row, tier, station_of, slots, state)
    found = np.zeros(queues.tier.shape)

    def make_worker() -> Callable[[int], None]:
        def work(candidate: int) -> None:
            _serve(
                queues.ready_s,
                queues.hold_s,
                queues.row,
                queues.tier[candidate],
                queues.station_of,
                queues.first_slot,
                queues.free_s[candidate],
                found[candidate],
            )

        return work

    side_by_side(make_worker, range(len(found)))
    return found, FeedForwardState(free_s=queues.free_s)


@njit(cache=True, nogil=True)
def _serve(
    ready_s: FloatArray,
    hold_s: FloatArray,
    row: IntArray,
    tier: NDArray[np.int8],
    station_of: IntArray,
    first_slot: IntArray,
    free_s: FloatArray,
    waits_s: FloatArray,
) -> None:
    """One candidate; `free_s` holds a heap per station and is left sorted."""
    for r in range(len(ready_s)):
        k = tier[r]
        if k < 0:
            continue
        j = station_of[k]
        low, high = first_slot[j], first_slot[j + 1]
        if low < high:
            start = max(free_s[low], ready_s[r])
            waits_s[r] = start - ready_s[r]
            _replace_first(free_s[low:high], start + hold_s[row[r], k])
    for j in range(len(first_slot) - 1):
        free_s[first_slot[j] : first_slot[j + 1]].sort()


@njit(cache=True, nogil=True)
def _replace_first(heap: FloatArray, value: float) -> None:
    """Take the smallest element out, put `value` in."""
    at, child = 0, 1
    while child < len(heap):
        if child + 1 < len(heap) and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[at] = heap[child]
        at, child = child, 2 * child + 1
    heap[at] = value
