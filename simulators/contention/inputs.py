"""What all feed-forward kernels take, checked once; and the state that one window hands to the next.

Notation: R requests in the order of `ready_s`, N rows, K tiers, J stations, n candidates, S slots of all stations.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True)
class FeedForwardState:
    """When each slot becomes free.

    Attributes:
        free_s: `n x S`, station by station, ascending within each; `-inf` before the first request. The same clock as
            `ready_s`.
    """

    free_s: FloatArray


@dataclass(frozen=True, kw_only=True)
class Queues:
    """Checked inputs; see `exact.waits` for what they mean.

    Attributes:
        first_slot: `J + 1` column of `free_s` where each station begins.
        free_s: `n x S`, a copy that a kernel may write to.
    """

    ready_s: FloatArray
    hold_s: FloatArray
    row: IntArray
    tier: NDArray[np.int8]
    station_of: IntArray
    slots: IntArray
    first_slot: IntArray
    free_s: FloatArray


def checked(
    ready_s: FloatArray,
    hold_s: FloatArray,
    row: IntArray,
    tier: NDArray[np.int8],
    station_of: IntArray,
    slots: IntArray,
    state: FeedForwardState | None,
) -> Queues:
    """The inputs in the types that the kernels expect.

    Raises:
        ConfigError: If stations or slots make no sense.
        InputDataError: If shapes differ, times decrease or a row, tier or hold does not exist.
    """
    ready_s, hold_s = np.ascontiguousarray(ready_s, np.float64), np.ascontiguousarray(hold_s, np.float64)
    row, tier = np.ascontiguousarray(row, np.int64), np.ascontiguousarray(tier, np.int8)
    station_of, slots = np.ascontiguousarray(station_of, np.int64), np.ascontiguousarray(slots, np.int64)
    _check_stations(hold_s, station_of, slots)
    _check_requests(ready_s, hold_s, row, tier)
    first_slot = np.concatenate([[0], np.cumsum(slots)])
    return Queues(
        ready_s=ready_s,
        hold_s=hold_s,
        row=row,
        tier=tier,
        station_of=station_of,
        slots=slots,
        first_slot=first_slot,
        free_s=_free(state, len(tier), first_slot),
    )


def _check_stations(hold_s: FloatArray, station_of: IntArray, slots: IntArray) -> None:
    if hold_s.ndim != 2 or not 1 <= hold_s.shape[1] <= 127:
        raise InputDataError(f"hold_s must be N x K with 1 to 127 tiers; got shape {hold_s.shape}")
    if station_of.shape != (hold_s.shape[1],) or (station_of < 0).any() or (station_of >= len(slots)).any():
        raise ConfigError(
            f"each of {hold_s.shape[1]} tiers needs one of {len(slots)} stations; got {station_of.tolist()}"
        )
    if slots.ndim != 1 or (slots < 0).any():
        raise ConfigError(f"slots must be positive, or 0 for a station without a limit; got {slots.tolist()}")


def _check_requests(ready_s: FloatArray, hold_s: FloatArray, row: IntArray, tier: NDArray[np.int8]) -> None:
    n_requests = len(ready_s)
    if tier.ndim != 2 or tier.shape[1] != n_requests or row.shape != (n_requests,):
        raise InputDataError(f"{n_requests} requests need as many rows and n x R tiers; got {row.shape}, {tier.shape}")
    if not np.isfinite(ready_s).all() or (np.diff(ready_s) < 0).any():
        raise InputDataError("requests must come in the order in which they reach the tiers")
    if n_requests and not 0 <= row.min() <= row.max() < len(hold_s):
        raise InputDataError(f"rows must lie in 0 to {len(hold_s) - 1}; got {row.min()} to {row.max()}")
    if tier.size and not -1 <= tier.min() <= tier.max() < hold_s.shape[1]:
        raise InputDataError(f"tiers must lie in -1 to {hold_s.shape[1] - 1}; got {tier.min()} to {tier.max()}")
    check_durations(hold_s, "hold_s")


def check_durations(values: FloatArray, name: str) -> None:
    """Refuse what is negative or not finite.

    Raises:
        InputDataError: With the name and the smallest and largest value.
    """
    if values.size and not (values.min() >= 0 and values.max() < np.inf):
        raise InputDataError(f"{name} must be finite and not negative; got {values.min():g} to {values.max():g}")


def _free(state: FeedForwardState | None, n: int, first_slot: IntArray) -> FloatArray:
    shape = (n, int(first_slot[-1]))
    if state is None:
        return np.full(shape, -np.inf)
    if state.free_s.shape != shape:
        raise InputDataError(f"this state belongs to other candidates or slots: {state.free_s.shape}, not {shape}")
    parts = [np.sort(state.free_s[:, start:end], axis=1) for start, end in pairwise(first_slot)]
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def side_by_side(make_worker: Callable[[], Callable[[int], None]], items: Iterable[int]) -> None:
    """Work off the items on all cores; compiled code must release the interpreter.

    Args:
        make_worker: Called once per thread; gives the function that takes an item.
        items: Each goes to the next free thread.
    """
    left = deque(items)
    n_threads = min(len(left), available_cores())

    def work(_: int) -> None:
        worker = make_worker()
        while left:
            try:
                item = left.popleft()
            except IndexError:
                return
            worker(item)

    if n_threads < 2:
        work(0)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, range(n_threads)))


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
