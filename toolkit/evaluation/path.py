"""The λ path: every distinct policy `argmax_k p_k - λ c_k`, evaluated by its events.

For one query the utilities are K lines in λ, and the chosen tier walks down their upper envelope to ever cheaper
tiers as λ grows: at most K-1 events. All events of N queries, sorted, cut [0, ∞) into at most N(K-1) + 1 pieces on
which nothing changes, so cumulative sums over events give every mean, per slice too, of every policy of the path.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from toolkit.evaluation.estimators import AssignmentEstimator, Estimator
from toolkit.evaluation.prefix import grouped_prefix_sums
from toolkit.evaluation.slices import Coverage
from toolkit.policies.lanes import FREE, Lanes
from toolkit.policies.utility import UtilityPolicy, predictions
from toolkit.scorers.base import ScoreTable

_MERGE = 1e-12
"""Events closer than this, relatively, count as one: floating point cannot put a λ between them."""


class LambdaPath:
    """Events of a path.

    Attributes:
        first_tier: `N` tiers at λ = 0.
        event_lambda: `E` ascending λ at which a query changes tier.
        event_query: `E` which query.
        event_from, event_to: `E` tiers before and after.
        lambdas: One λ inside each piece on which no decision changes, ascending and positive.
    """

    def __init__(self, scores: ScoreTable, lanes: Lanes) -> None:
        quality, cost = predictions(scores)
        pinned = lanes.pinned(scores)
        free = pinned == FREE
        self.scores, self.lanes = scores, lanes
        self.first_tier = np.where(free, _cheapest_best(quality, cost), pinned)
        events = _envelope_events(quality, cost, self.first_tier, free)
        order = np.lexsort((events[1], events[0]))
        self.event_lambda: FloatArray = events[0][order]
        self.event_query, self.event_from, self.event_to = (e[order].astype(np.int64) for e in events[1:])
        self.lambdas = self._representatives()

    def _representatives(self) -> FloatArray:
        lam = self.event_lambda[self.event_lambda > 0]
        if len(lam) == 0:
            return np.ones(1)
        apart = np.diff(lam) > _MERGE * lam[1:]
        last, first = lam[:-1][apart], lam[1:][apart]
        return np.concatenate([[lam[0] / 2], last + (first - last) / 2, [2.0 * lam[-1]]])

    def n_events_before(self, lambdas: FloatArray) -> IntArray:
        """Events that have happened at each λ."""
        return np.asarray(np.searchsorted(self.event_lambda, lambdas, side="right"))


def _cheapest_best(quality: FloatArray, cost: FloatArray) -> IntArray:
    """Tier of highest predicted quality; among equals the cheapest, then the first."""
    best = quality == np.nanmax(np.where(np.isnan(quality), -np.inf, quality), axis=1, keepdims=True)
    return np.asarray(np.argmin(np.where(best, cost, np.inf), axis=1))


def _envelope_events(
    quality: FloatArray, cost: FloatArray, tier: IntArray, free: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """`(λ, query, from, to)` of all changes of tier."""
    parts = []
    current, rows = tier.copy(), np.flatnonzero(free)
    while len(rows):
        here = current[rows]
        p, c = quality[rows, here], cost[rows, here]
        cheaper = cost[rows] < c[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            switch = np.where(cheaper, (p[:, None] - quality[rows]) / (c[:, None] - cost[rows]), np.inf)
        lam = switch.min(axis=1)
        target = np.argmin(np.where(switch == lam[:, None], cost[rows], np.inf), axis=1)
        moves = np.isfinite(lam)
        parts.append(np.stack([np.maximum(lam, 0.0), rows, here, target])[:, moves])
        current[rows[moves]] = target[moves]
        rows = rows[moves]
    joined = np.concatenate(parts, axis=1) if parts else np.zeros((4, 0))
    return joined[0], joined[1], joined[2], joined[3]


class PathEstimator(Estimator):
    """Metrics of policies on a λ path, by cumulative sums over its events.

    Args:
        table: The outcomes.
        coverage: The covered groups.
        path: The path of the same queries.
        lambdas: `n` values of λ.
    """

    def __init__(self, table: OutcomeTable, coverage: Coverage, path: LambdaPath, lambdas: FloatArray) -> None:
        super().__init__(table, coverage)
        self._path = path
        self._lambdas = lambdas
        self._state, self._state_of = np.unique(path.n_events_before(lambdas), return_inverse=True)

    def _sums(self, values: FloatArray, code: IntArray, n_codes: int) -> FloatArray:
        path = self._path
        rows = np.arange(self.table.n_queries)
        start = np.bincount(code, weights=values[rows, path.first_tier], minlength=n_codes)
        change = values[path.event_query, path.event_to] - values[path.event_query, path.event_from]
        moved = grouped_prefix_sums(change, code[path.event_query], n_codes, self._state)
        return np.asarray((start + moved)[self._state_of])

    def slice_sums(self, values: FloatArray) -> FloatArray:
        """See `Estimator`."""
        return self._sums(values, self.table.slice_code, len(self.table.slices))

    def total_sums(self, values: FloatArray) -> FloatArray:
        """See `Estimator`."""
        return self._sums(values, np.zeros(self.table.n_queries, dtype=np.int64), 1)[:, 0]

    def latency_quantiles(self, levels: tuple[float, ...], rows: IntArray) -> FloatArray:
        """See `Estimator`: by explicit assignment, O(n N)."""
        path, step = self._path, max(1, 8_000_000 // self.table.n_queries)
        parts = []
        for i in range(0, len(self._lambdas), step):
            part = self._lambdas[i : i + step, None]
            params = np.concatenate([part, np.zeros((len(part), self.table.n_tiers - 1))], axis=1)
            assignment = UtilityPolicy().assign(params, path.scores, path.lanes)
            parts.append(AssignmentEstimator(self.table, self.coverage, assignment).latency_quantiles(levels, rows))
        return np.concatenate(parts)

    def tier_counts(self) -> IntArray:
        """See `Estimator`."""
        one_hot = np.eye(self.table.n_tiers)
        counts = [self.total_sums(np.broadcast_to(row, self.table.quality.shape)) for row in one_hot]
        return np.round(np.stack(counts, axis=1)).astype(np.int64)
