"""Order statistics of unions of ranges: exact latency quantiles of threshold policies without visiting queries.

Under thresholds, the queries of tier k are a *contiguous range* of the queries sorted by score. The m-th smallest
latency of a candidate is therefore the m-th smallest element of a union of K ranges, one in each tier's sequence
of latencies. A wavelet matrix [Claude2012]_ per tier answers this in `O(K log M)`, M distinct latencies, and all
candidates walk the levels together.

References:
    [Claude2012] F. Claude, G. Navarro, The wavelet matrix, SPIRE 2012.
"""

from __future__ import annotations

import numpy as np

from simulators.outcomes import FloatArray, IntArray


class RangeUnionOrderStatistics:
    """Order statistics over unions of ranges of several sequences.

    Args:
        sequences: Arrays of values, one per sequence, any lengths.
    """

    def __init__(self, sequences: list[FloatArray]) -> None:
        self._values, ranks = np.unique(np.concatenate(sequences), return_inverse=True)
        cuts = np.cumsum([len(s) for s in sequences])[:-1]
        self._n_levels = max(1, int(len(self._values) - 1).bit_length())
        self._zeros_before: list[list[IntArray]] = []
        for rank in np.split(ranks, cuts):
            self._zeros_before.append(self._build(rank))

    def _build(self, rank: IntArray) -> list[IntArray]:
        """Per level, from the highest bit: prefix counts of zeros; zeros then move before ones, stably."""
        levels = []
        for bit in range(self._n_levels - 1, -1, -1):
            ones = (rank >> bit) & 1
            levels.append(np.concatenate([[0], np.cumsum(1 - ones)]))
            rank = np.concatenate([rank[ones == 0], rank[ones == 1]])
        return levels

    def select(self, starts: IntArray, ends: IntArray, position: IntArray) -> FloatArray:
        """The element at `position` (from 0) of each sorted union.

        Args:
            starts: `n x J` first index of the range in each of J sequences.
            ends: `n x J` index behind the last one.
            position: `n`, below the size of the union.

        Returns:
            `n` values.
        """
        start, end, left = starts.copy(), ends.copy(), position.copy()
        rank = np.zeros(len(position), dtype=np.int64)
        for level in range(self._n_levels):
            tables = [zeros[level] for zeros in self._zeros_before]
            zeros_start = np.stack([t[start[:, j]] for j, t in enumerate(tables)], axis=1)
            zeros_end = np.stack([t[end[:, j]] for j, t in enumerate(tables)], axis=1)
            n_zeros = (zeros_end - zeros_start).sum(axis=1)
            goes_right = left >= n_zeros
            totals = np.array([t[-1] for t in tables])
            right = goes_right[:, None]
            start = np.where(right, totals + start - zeros_start, zeros_start)
            end = np.where(right, totals + end - zeros_end, zeros_end)
            left = np.where(goes_right, left - n_zeros, left)
            rank = 2 * rank + goes_right
        return np.asarray(self._values[rank])

    def quantiles(self, starts: IntArray, ends: IntArray, levels: tuple[float, ...]) -> FloatArray:
        """Quantiles by linear interpolation (NumPy's default), `n x len(levels)`."""
        size = (ends - starts).sum(axis=1)
        out = np.empty((len(size), len(levels)))
        for i, level in enumerate(levels):
            place = (size - 1) * level
            low = np.floor(place).astype(np.int64)
            below = self.select(starts, ends, low)
            above = self.select(starts, ends, np.minimum(low + 1, size - 1))
            out[:, i] = below + (above - below) * (place - low)
        return out
