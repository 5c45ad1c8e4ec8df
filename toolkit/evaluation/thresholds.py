"""Exact evaluation of threshold vectors by prefix sums over the sorted scores.

Sort the queries by score; a boundary is then a position j (queries before it score below it). With `P_k(j)` the sum
of a quantity on tier k over the first j queries, a candidate with positions `j_1 <= ... <= j_{K-1}` has the total

    P_{K-1}(N) + sum_k [P_{k-1}(j_k) - P_k(j_k)],

a sum of one table look-up per boundary, whatever N is: per slice too, hence the worst slice is exact. Latency
quantiles come from `RangeUnionOrderStatistics`. Queries in a lane (pinned) add a constant.
"""

from __future__ import annotations

import numpy as np

from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from toolkit.evaluation.estimators import Estimator
from toolkit.evaluation.order_statistics import RangeUnionOrderStatistics
from toolkit.evaluation.prefix import grouped_prefix_sums
from toolkit.evaluation.slices import Coverage
from toolkit.policies.lanes import FREE, Lanes
from toolkit.policies.thresholds import UNREACHABLE
from toolkit.scorers.base import ScoreTable

_CHUNK = 16_384
_SAME_SCORE = 1e-12
"""Scores closer than this, relative to the median size, are one score: weighted sums differ in their last bits."""


class ScoreOrder:
    """Queries sorted by score, and their distinct boundaries.

    Attributes:
        order: Free (not pinned) queries by ascending score.
        boundaries: `B` thresholds that differ in what they do, ascending: everything above, midpoints between
            neighbouring distinct scores, nothing above.
        positions: `B` number of free queries below each boundary.
    """

    def __init__(self, scores: ScoreTable, lanes: Lanes) -> None:
        self.pinned_tier = lanes.pinned(scores)
        free = np.flatnonzero(self.pinned_tier == FREE)
        self.order: IntArray = free[np.argsort(scores.score[free], kind="stable")]
        self.sorted_scores: FloatArray = scores.score[self.order]
        distinct, first = np.unique(self.sorted_scores, return_index=True)
        apart = np.diff(distinct) > _SAME_SCORE * (np.median(np.abs(distinct)) if len(distinct) else 0.0)
        low, high = distinct[:-1][apart], distinct[1:][apart]
        middle = low + (high - low) / 2
        middle = np.where((middle > low) & (middle <= high), middle, high)
        self.boundaries: FloatArray = np.concatenate([[-UNREACHABLE], middle, [UNREACHABLE]])
        self.positions: IntArray = np.concatenate([[0], first[1:][apart], [len(free)]])

    def position(self, thresholds: FloatArray) -> IntArray:
        """Free queries that score below each threshold."""
        return np.asarray(np.searchsorted(self.sorted_scores, thresholds, side="left"))


class ThresholdEstimator(Estimator):
    """Metrics of threshold vectors, exact and independent of N per candidate.

    Args:
        table: The outcomes.
        coverage: The covered groups.
        order: The sorted scores of the same queries.
        params: `n x (K-1)` non-decreasing thresholds.
    """

    def __init__(self, table: OutcomeTable, coverage: Coverage, order: ScoreOrder, params: FloatArray) -> None:
        super().__init__(table, coverage)
        self._order = order
        positions = order.position(params)
        self._used, index = np.unique(positions, return_inverse=True)
        self._index: IntArray = index.reshape(positions.shape)
        n_free = len(order.order)
        self._edges: IntArray = np.concatenate(
            [np.zeros((len(params), 1), int), positions, np.full((len(params), 1), n_free)], axis=1
        )
        self._pinned = np.flatnonzero(order.pinned_tier != FREE)

    def _sums(self, values: FloatArray, code: IntArray, n_codes: int) -> FloatArray:
        """`n x n_codes` sums at the chosen tiers, grouped by `code: N`."""
        rows, k_max = self._order.order, self.table.n_tiers
        positions = np.append(self._used, len(rows))
        prefix = np.stack([grouped_prefix_sums(values[rows, k], code[rows], n_codes, positions) for k in range(k_max)])
        below, constant = prefix[:, :-1], prefix[-1, -1]
        if len(self._pinned):
            tier = self._order.pinned_tier[self._pinned]
            weights = values[self._pinned, tier]
            constant = constant + np.bincount(code[self._pinned], weights=weights, minlength=n_codes)
        steps = below[:-1] - below[1:]
        out = np.empty((len(self._index), n_codes))
        for start in range(0, len(out), _CHUNK):
            part = self._index[start : start + _CHUNK]
            out[start : start + _CHUNK] = constant
            for k in range(k_max - 1):
                out[start : start + _CHUNK] += steps[k][part[:, k]]
        return out

    def slice_sums(self, values: FloatArray) -> FloatArray:
        """See `Estimator`."""
        return self._sums(values, self.table.slice_code, len(self.table.slices))

    def total_sums(self, values: FloatArray) -> FloatArray:
        """See `Estimator`."""
        return self._sums(values, np.zeros(self.table.n_queries, dtype=np.int64), 1)[:, 0]

    def latency_quantiles(self, levels: tuple[float, ...], rows: IntArray) -> FloatArray:
        """See `Estimator`."""
        wanted = np.zeros(self.table.n_queries, dtype=bool)
        wanted[rows] = True
        inside = wanted[self._order.order]
        members = self._order.order[inside]
        pinned = self._pinned[wanted[self._pinned]]
        sequences = [self.table.latency_s[members, k] for k in range(self.table.n_tiers)]
        sequences.append(self.table.latency_s[pinned, self._order.pinned_tier[pinned]])
        statistics = RangeUnionOrderStatistics(sequences)
        edges = np.concatenate([[0], np.cumsum(inside)])[self._edges]
        lane = np.zeros((len(edges), 1), dtype=np.int64)
        starts = np.concatenate([edges[:, :-1], lane], axis=1)
        ends = np.concatenate([edges[:, 1:], lane + len(pinned)], axis=1)
        chunks = range(0, len(edges), _CHUNK)
        return np.concatenate(
            [statistics.quantiles(starts[i : i + _CHUNK], ends[i : i + _CHUNK], levels) for i in chunks]
        )

    def tier_counts(self) -> IntArray:
        """See `Estimator`."""
        counts = np.diff(self._edges, axis=1)
        lanes = np.bincount(self._order.pinned_tier[self._pinned], minlength=self.table.n_tiers)
        return np.asarray(counts + lanes)
