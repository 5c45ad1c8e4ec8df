"""Quantiles of float32 numbers without storing them.

A positive float's bits, read as an integer, grow with the number. The leading bits are thus a bin: 1,024 bins per
factor of two, none wider than 0.1 % of its lower edge. An order statistic is placed within its bin as if the numbers
there were spread evenly, so it is off by less than that width, whatever the distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from simulators.outcomes import FloatArray

SHIFT = 13
"""Bits of a float32 that do not count: 23 of the fraction less 10."""

_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Bins up to a bound; one more at the end is for what is not counted.

    Attributes:
        low: Code of the first bin, which also takes everything smaller.
        n_bins: The last one for no number included.
        edges: `n_bins` lower edges.
    """

    low: int
    n_bins: int
    edges: FloatArray


def make_bins(smallest: float, largest: float) -> Bins:
    """Bins that tell numbers between `smallest` and `largest` apart; smaller ones count as about `smallest`."""
    low, high = (int(np.float32(value).view(np.int32) >> SHIFT) for value in (smallest, largest))
    codes = np.arange(low, high + 2, dtype=np.int32)
    edges = (codes << SHIFT).astype(np.int32).view(np.float32).astype(np.float64)
    return Bins(low=low, n_bins=len(codes), edges=edges)


@njit(cache=True, nogil=True)
def quantiles(counts: NDArray[np.uint32], edges: FloatArray, levels: FloatArray, found: FloatArray) -> int:
    """Quantiles as `np.quantile` has them: between the two neighbours of rank `level * (count - 1)`.

    Args:
        counts: `B` numbers per bin.
        edges: At least `B + 1` edges.
        levels: Each in [0, 1].
        found: As many results; NaN without numbers.

    Returns:
        The count of all numbers.
    """
    sums = _sums(counts)
    total = int(sums.sum())
    if total == 0:
        found[:] = np.nan
        return 0
    ranks = np.empty(2 * len(levels))
    for i in range(len(levels)):
        ranks[2 * i] = np.floor(levels[i] * (total - 1))
        ranks[2 * i + 1] = min(ranks[2 * i] + 1, total - 1)
    values = _order_statistics(counts, sums, edges, ranks)
    for i in range(len(levels)):
        share = levels[i] * (total - 1) - ranks[2 * i]
        found[i] = values[2 * i] + share * (values[2 * i + 1] - values[2 * i])
    return total


@njit(cache=True, nogil=True)
def _sums(counts: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Sums of `_CHUNK` bins each: most of the range is empty, and is passed over in large steps."""
    sums = np.zeros((len(counts) + _CHUNK - 1) // _CHUNK, np.int64)
    for c in range(len(sums)):
        own = counts[c * _CHUNK : (c + 1) * _CHUNK]
        total = np.uint32(0)
        for b in range(len(own)):
            total += own[b]
        sums[c] = total
    return sums


@njit(cache=True, nogil=True)
def _order_statistics(
    counts: NDArray[np.uint32], sums: NDArray[np.int64], edges: FloatArray, ranks: FloatArray
) -> FloatArray:
    """The numbers at these ranks, each of which is below the sum of all."""
    values = np.empty(len(ranks))
    for i in range(len(ranks)):
        left, c = ranks[i], 0
        while left >= sums[c]:
            left -= sums[c]
            c += 1
        b = c * _CHUNK
        while left >= counts[b]:
            left -= counts[b]
            b += 1
        values[i] = edges[b] + (left + 0.5) / counts[b] * (edges[b + 1] - edges[b])
    return values
