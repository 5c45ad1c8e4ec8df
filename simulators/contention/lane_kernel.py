"""One group of lanes through all requests: the inner loops of `lanes`.

A station is a block of rows of `free`, one row per slot plus a last one of infinity, one lane per candidate, each
lane's column ascending. With the first entry f_0 the start is max(f_0, now), and to replace f_0 by x = start + hold

    f_i <- max(f_i, min(f_{i+1}, x))    for all i

keeps the column sorted: no branch, no position. x = -inf changes nothing; lanes routed elsewhere get it. Rows from
which no lane has f_i < x change nothing either and are left out, as are stations that no lane goes to: candidates
that are alike share much work.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from simulators.contention.histogram import SHIFT
from simulators.contention.vectors import (
    LANES,
    add,
    any_above,
    any_equal,
    bins,
    count_above,
    larger,
    load,
    load_word,
    smaller,
    spread,
    store,
    store_word,
    subtract,
    where_equal,
    where_routed,
)
from simulators.outcomes import FloatArray, IntArray

BLOCK = 512
"""Requests between two shifts of the clock's origin."""
_ROWS = 16
"""Rows that are moved before the next look whether the rest can stay."""
_WAITING = 32
"""Requests whose bins are kept before they are counted: a load right after a wide store would stall."""
_ZERO, _NEVER, _NONE = np.float32(0), np.float32(-np.inf), np.float32(np.nan)
_SHIFT = np.int32(SHIFT)
_BYTE, _PAIR, _HALF = np.uint64(8), np.uint64(16), np.uint64(32)
_BYTES, _PAIRS = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)
_HALVES = np.uint64(0x00000000FFFFFFFF)

Float32s = NDArray[np.float32]
Int32s = NDArray[np.int32]
Int8s = NDArray[np.int8]


@njit(cache=True, nogil=True)
def simulate(
    ready_s: FloatArray,
    row: IntArray,
    hold_s: FloatArray,
    value_s: FloatArray,
    offset_s: FloatArray,
    counted: NDArray[np.bool_],
    block_s: float,
    tier: Int8s,
    lanes: IntArray,
    tiers: IntArray,
    first_tier: IntArray,
    slots: IntArray,
    first_row: IntArray,
    limits: Float32s,
    low: np.int32,
    high: np.int32,
    free: Float32s,
    histogram: NDArray[np.uint32],
    total_s: FloatArray,
    busy_s: FloatArray,
    over: Int32s,
) -> tuple[float, float]:
    """All requests, for the candidates in `lanes`.

    Args:
        hold_s, value_s: `N x K`.
        block_s: Longest block; times within one are float32 seconds from its begin.
        tier: All candidates' tiers, flat.
        lanes: `LANES` candidates.
        tiers, first_tier: Tiers by station, and where each station's begin (`J + 1`).
        first_row: `J` first row of each station in `free`.
        low, high: Codes of the first and last bin.
        free: Flat rows of `LANES`, seconds from `ready_s[0]`; changed.
        histogram: `LANES` runs of bins, flat; added to.
        total_s: `LANES` sums of values; added to.
        busy_s: `J x LANES` sums of holds, flat; added to.
        over: `len(limits) x LANES` values above each limit, flat; added to.

    Returns:
        The origin of the times in `free`, seconds, and the largest value.
    """
    n_tiers, n_bins = hold_s.shape[1], int(high - low) + 1
    codes, waiting = np.empty(BLOCK * LANES, np.int8), np.empty(_WAITING * LANES, np.int32)
    offsets = (np.arange(LANES) * n_bins).astype(np.int32)
    hold, value = np.empty(BLOCK * n_tiers, np.float32), np.empty(BLOCK * n_tiers, np.float32)
    busy, sums = np.empty(len(slots) * LANES, np.float32), np.empty(LANES, np.float32)
    begin, n_waiting, origin = 0, 0, ready_s[0]
    top = spread(_ZERO)
    while begin < len(ready_s):
        step = np.float32(ready_s[begin] - origin)
        origin += step
        _shift(free, step)
        end = _block_end(ready_s, begin, block_s)
        _transpose(tier, len(ready_s), lanes, begin, end, codes)
        _gather(row, hold_s, value_s, offset_s, begin, end, hold, value)
        busy[:] = 0
        total = spread(_ZERO)
        for r in range(begin, end):
            here = load(codes, (r - begin) * LANES)
            now = spread(np.float32(ready_s[r] - origin))
            seen = spread(_NONE)
            for j in range(len(slots)):
                at = first_row[j] * LANES
                first = load(free, at) if slots[j] > 0 else spread(_NEVER)
                until = spread(_NEVER)
                for i in range(first_tier[j], first_tier[j + 1]):
                    k = np.int8(tiers[i])
                    if any_equal(here, k):
                        start = larger(first, now)
                        held = spread(hold[(r - begin) * n_tiers + k])
                        until = where_equal(here, k, add(start, held), until)
                        store(busy, j * LANES, add(load(busy, j * LANES), where_equal(here, k, held, spread(_ZERO))))
                        own = spread(value[(r - begin) * n_tiers + k])
                        seen = where_equal(here, k, add(subtract(start, now), own), seen)
                left = slots[j]
                while left > 0 and any_above(until, first):
                    for _ in range(min(left, _ROWS)):
                        following = load(free, at + LANES)
                        store(free, at, larger(first, smaller(following, until)))
                        first = following
                        at += LANES
                    left -= _ROWS
            if counted[r]:
                known = where_routed(here, seen, spread(_ZERO))
                total = add(total, known)
                top = larger(top, known)
                for m in range(len(limits)):
                    store(over, m * LANES, count_above(seen, limits[m], load(over, m * LANES)))
                store(waiting, n_waiting * LANES, add(bins(seen, _SHIFT, low, high), load(offsets, 0)))
                n_waiting += 1
                if n_waiting == _WAITING:
                    _count(waiting, n_waiting * LANES, histogram)
                    n_waiting = 0
        store(sums, 0, total)
        total_s += sums
        busy_s += busy
        begin = end
    _count(waiting, n_waiting * LANES, histogram)
    store(sums, 0, top)
    return origin, np.float64(sums.max())


@njit(cache=True, nogil=True)
def _block_end(ready_s: FloatArray, begin: int, block_s: float) -> int:
    end = begin + 1
    while end < min(begin + BLOCK, len(ready_s)) and ready_s[end] - ready_s[begin] <= block_s:
        end += 1
    return end


@njit(cache=True, nogil=True)
def _shift(free: Float32s, step: np.float32) -> None:
    for i in range(len(free)):
        free[i] -= step


@njit(cache=True, nogil=True)
def _gather(
    row: IntArray,
    hold_s: FloatArray,
    value_s: FloatArray,
    offset_s: FloatArray,
    begin: int,
    end: int,
    hold: Float32s,
    value: Float32s,
) -> None:
    """The block's holds and values, `requests x K`, flat."""
    n_tiers = hold_s.shape[1]
    for r in range(begin, end):
        for k in range(n_tiers):
            hold[(r - begin) * n_tiers + k] = np.float32(hold_s[row[r], k])
            value[(r - begin) * n_tiers + k] = np.float32(value_s[row[r], k] + offset_s[r])


@njit(cache=True, nogil=True)
def _count(waiting: Int32s, n: int, histogram: NDArray[np.uint32]) -> None:
    """Add one at each of `n` places; four at a time, and unsigned, for speed."""
    for i in range(0, n, 4):
        at = np.uint64(i)
        a, b = np.uint64(waiting[at]), np.uint64(waiting[at + np.uint64(1)])
        c, d = np.uint64(waiting[at + np.uint64(2)]), np.uint64(waiting[at + np.uint64(3)])
        in_a, in_b, in_c, in_d = histogram[a], histogram[b], histogram[c], histogram[d]
        histogram[a], histogram[b] = in_a + np.uint32(1), in_b + np.uint32(1)
        histogram[c], histogram[d] = in_c + np.uint32(1), in_d + np.uint32(1)


@njit(cache=True, nogil=True)
def _transpose(tier: Int8s, n_requests: int, lanes: IntArray, begin: int, end: int, codes: Int8s) -> None:
    """Tiers of a block as `requests x LANES`, 8 x 8 bytes at a time."""
    whole = (end - begin) // 8 * 8
    for first in range(0, whole, 8):
        for lane in range(0, LANES, 8):
            _transpose_tile(tier, n_requests, lanes, lane, begin + first, codes, first * LANES + lane)
    for i in range(whole, end - begin):
        for lane in range(LANES):
            codes[i * LANES + lane] = tier[lanes[lane] * n_requests + begin + i]


@njit(cache=True, nogil=True)
def _transpose_tile(
    tier: Int8s, n_requests: int, lanes: IntArray, lane: int, request: int, codes: Int8s, to: int
) -> None:
    a = load_word(tier, lanes[lane] * n_requests + request)
    b = load_word(tier, lanes[lane + 1] * n_requests + request)
    c = load_word(tier, lanes[lane + 2] * n_requests + request)
    d = load_word(tier, lanes[lane + 3] * n_requests + request)
    e = load_word(tier, lanes[lane + 4] * n_requests + request)
    f = load_word(tier, lanes[lane + 5] * n_requests + request)
    g = load_word(tier, lanes[lane + 6] * n_requests + request)
    h = load_word(tier, lanes[lane + 7] * n_requests + request)
    (a, b), (c, d) = _swap(a, b, _BYTE, _BYTES), _swap(c, d, _BYTE, _BYTES)
    (e, f), (g, h) = _swap(e, f, _BYTE, _BYTES), _swap(g, h, _BYTE, _BYTES)
    (a, c), (b, d) = _swap(a, c, _PAIR, _PAIRS), _swap(b, d, _PAIR, _PAIRS)
    (e, g), (f, h) = _swap(e, g, _PAIR, _PAIRS), _swap(f, h, _PAIR, _PAIRS)
    (a, e), (b, f) = _swap(a, e, _HALF, _HALVES), _swap(b, f, _HALF, _HALVES)
    (c, g), (d, h) = _swap(c, g, _HALF, _HALVES), _swap(d, h, _HALF, _HALVES)
    store_word(codes, to, a)
    store_word(codes, to + LANES, b)
    store_word(codes, to + 2 * LANES, c)
    store_word(codes, to + 3 * LANES, d)
    store_word(codes, to + 4 * LANES, e)
    store_word(codes, to + 5 * LANES, f)
    store_word(codes, to + 6 * LANES, g)
    store_word(codes, to + 7 * LANES, h)


@njit(cache=True, nogil=True)
def _swap(x: np.uint64, y: np.uint64, shift: np.uint64, mask: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Exchange the upper parts of x with the lower parts of y."""
    change = ((x >> shift) ^ y) & mask
    return x ^ (change << shift), y ^ change
