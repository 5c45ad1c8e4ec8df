"""The queues as a plain loop over requests and a heap per station: what the compiled kernels must equal."""

from __future__ import annotations

import heapq
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from simulators.contention.inputs import FeedForwardState, Queues, checked
from simulators.outcomes import FloatArray, IntArray


def reference_waits(
    ready_s: FloatArray,
    hold_s: FloatArray,
    row: IntArray,
    tier: NDArray[np.int8],
    station_of: IntArray,
    slots: IntArray,
    *,
    state: FeedForwardState | None = None,
) -> tuple[FloatArray, FeedForwardState]:
    """As `exact.waits`, about fifty times slower."""
    queues = checked(ready_s, hold_s, row, tier, station_of, slots, state)
    found = [_one_candidate(queues, candidate) for candidate in range(len(queues.tier))]
    waits = np.array([waits for waits, _ in found]).reshape(queues.tier.shape)
    free = np.array([free for _, free in found]).reshape(queues.free_s.shape)
    return waits, FeedForwardState(free_s=free)


def _one_candidate(queues: Queues, candidate: int) -> tuple[list[float], list[float]]:
    """The waits of all requests, and when each slot is free afterwards."""
    bounds = queues.first_slot.tolist()
    free = queues.free_s[candidate].tolist()
    stations = [free[start:end] for start, end in pairwise(bounds)]
    waits = []
    for now, row, k in zip(queues.ready_s.tolist(), queues.row.tolist(), queues.tier[candidate].tolist(), strict=True):
        slots = stations[queues.station_of[k]] if k >= 0 else []
        if not slots:
            waits.append(0.0)
            continue
        start = max(slots[0], now)
        heapq.heapreplace(slots, start + queues.hold_s[row, k])
        waits.append(start - now)
    return waits, [instant for slots in stations for instant in sorted(slots)]
