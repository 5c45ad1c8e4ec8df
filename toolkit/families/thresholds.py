"""Thresholds on one score: boundaries alone (`thresholds`), with the confidence floor (`confidence`), or per slice."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable, QueryBatch
from toolkit.dimensions import BoxSpace, Dimension
from toolkit.evaluation.estimators import Estimator
from toolkit.evaluation.slices import Coverage
from toolkit.evaluation.thresholds import ScoreOrder, ThresholdEstimator
from toolkit.families.base import Deployment, Family, boundary_sweep, dimension_sweep
from toolkit.policies.lanes import FREE, Lanes
from toolkit.policies.thresholds import ThresholdPolicy
from toolkit.scorers.base import ScoreTable
from toolkit.spaces import JoinedSpace, SearchSpace, ThresholdSpace

_POLICY = ThresholdPolicy()


def threshold_corners(n_tiers: int) -> FloatArray:
    """`K x (K-1)` cube points of load fractions: all traffic on tier 0, 1, ..."""
    d = n_tiers - 1
    return (np.arange(d) >= np.arange(d + 1)[:, None]).astype(np.float64)


class ThresholdFamily(Family):
    """Boundaries as load fractions.

    Args:
        scores: Scores of the N queries.
        lanes: Fallback and confidence lanes.
        n_tiers: K.
    """

    kind = "thresholds"

    def __init__(self, scores: ScoreTable, lanes: Lanes, n_tiers: int) -> None:
        self.scores, self.lanes, self.n_tiers = scores, lanes, n_tiers
        self.parameter_names = _POLICY.parameter_names(n_tiers)

    @cached_property
    def order(self) -> ScoreOrder:
        """Queries sorted by score; the boundaries that differ."""
        return ScoreOrder(self.scores, self.lanes)

    @cached_property
    def space(self) -> SearchSpace:
        """Load fractions by stick-breaking."""
        return ThresholdSpace(self.order, self.n_tiers)

    def assign(self, params: FloatArray) -> NDArray[np.int8]:
        """See `Family`."""
        return _POLICY.assign(params, self.scores, self.lanes)

    def corners(self) -> FloatArray:
        """See `Family`."""
        return self.space.decode(threshold_corners(self.n_tiers))

    def transfer(self, scores: ScoreTable, queries: QueryBatch) -> ThresholdFamily:
        """See `Family`."""
        return ThresholdFamily(scores, self.lanes, self.n_tiers)

    def deploy(self, params: FloatArray) -> Deployment:
        """See `Family`."""
        values = dict(zip(self.parameter_names, params.tolist(), strict=True))
        return Deployment(policy="thresholds", values=values, lanes=self.lanes)

    def sweep(self, params: FloatArray, i: int, steps: int) -> FloatArray:
        """See `Family`."""
        return boundary_sweep(self.order, params, i, steps, first=0, last=self.n_tiers - 1)

    def estimate(self, table: OutcomeTable, coverage: Coverage, params: FloatArray) -> Estimator:
        """Exact, by prefix sums."""
        return ThresholdEstimator(table, coverage, self.order, params)


class ConfidenceFamily(Family):
    """Boundaries, the confidence floor, and the tier of queries below it.

    Args:
        scores: Scores of the N queries, with confidences.
        lanes: The fallback; floor and tier are searched.
        tiers: K names.
        floor: Bounds of the floor.

    Raises:
        ConfigError: If the scorer states no confidence.
    """

    kind = "confidence"

    def __init__(self, scores: ScoreTable, lanes: Lanes, tiers: tuple[str, ...], floor: tuple[float, float]) -> None:
        if scores.confidence is None:
            raise ConfigError("space=confidence needs a scorer that states its confidence; this one does not")
        self.scores, self.lanes, self.n_tiers = scores, lanes, len(tiers)
        self._tiers, self._floor = tiers, floor
        self.parameter_names = (*_POLICY.parameter_names(len(tiers)), "confidence_floor", "low_confidence_tier")
        self._plain = ThresholdFamily(scores, dataclasses.replace(lanes, confidence_floor=None), len(tiers))

    @cached_property
    def _lane(self) -> BoxSpace:
        return BoxSpace(
            (
                Dimension(name="confidence_floor", low=self._floor[0], high=self._floor[1]),
                Dimension(name="low_confidence_tier", kind="categorical", choices=self._tiers),
            )
        )

    @cached_property
    def space(self) -> SearchSpace:
        """Load fractions of all scored queries, the floor, the tier below it."""
        return JoinedSpace([(self._plain.space, self.n_tiers - 1), (self._lane, 2)])

    def sweep(self, params: FloatArray, i: int, steps: int) -> FloatArray:
        """See `Family`."""
        d = self.n_tiers - 1
        if i < d:
            return boundary_sweep(self._plain.order, params, i, steps, first=0, last=d)
        return dimension_sweep(self._lane.dimensions[i - d], params, i, steps)

    def _lanes(self, row: FloatArray) -> Lanes:
        return dataclasses.replace(
            self.lanes, confidence_floor=float(row[-2]), low_confidence_tier=round(float(row[-1]))
        )

    def assign(self, params: FloatArray) -> NDArray[np.int8]:
        """See `Family`."""
        d = self.n_tiers - 1
        tier = self._plain.assign(params[:, :d])
        confidence = self.scores.confidence
        assert confidence is not None
        free = self._plain.lanes.pinned(self.scores) == FREE  # not failed, not eligible
        low = (confidence[None, :] < params[:, d, None]) & free[None, :]
        return np.asarray(np.where(low, params[:, d + 1, None].astype(np.int8), tier), dtype=np.int8)

    def corners(self) -> FloatArray:
        """All traffic on each tier: that tier for low confidence too."""
        d = self.n_tiers - 1
        X = np.concatenate([threshold_corners(self.n_tiers), np.zeros((self.n_tiers, 2))], axis=1)
        params = self.space.decode(X)
        params[:, d + 1] = np.arange(self.n_tiers)
        return params

    def transfer(self, scores: ScoreTable, queries: QueryBatch) -> ConfidenceFamily:
        """See `Family`."""
        return ConfidenceFamily(scores, self.lanes, self._tiers, self._floor)

    def deploy(self, params: FloatArray) -> Deployment:
        """See `Family`."""
        values = dict(zip(self.parameter_names[:-2], params[:-2].tolist(), strict=True))
        return Deployment(policy="thresholds", values=values, lanes=self._lanes(params))


class SliceThresholdFamily(Family):
    """Boundaries per slice, where the router knows the slice of a query; other queries keep the common ones.

    Args:
        scores: Scores of the N queries.
        queries: The same queries, with slices.
        lanes: Fallback and confidence lanes.
        n_tiers: K.
        slices: Names of the G slices with boundaries of their own.

    Raises:
        ConfigError: If queries carry no slice or none is named.
    """

    kind = "slice_thresholds"

    def __init__(
        self, scores: ScoreTable, queries: QueryBatch, lanes: Lanes, n_tiers: int, slices: tuple[str, ...]
    ) -> None:
        if queries.slice is None:
            raise ConfigError(
                "space=slice_thresholds needs a slice column in the queries file: the router must know it"
            )
        if not slices or len(set(slices)) < len(slices):
            raise ConfigError(f"space.slices must name distinct slices of {_names(queries)}; got {list(slices)}")
        self.scores, self.lanes, self.n_tiers, self._slices = scores, lanes, n_tiers, slices
        self._queries = queries
        index = {name: g + 1 for g, name in enumerate(slices)}
        self._group: IntArray = np.array([index.get(str(s), 0) for s in queries.slice], dtype=np.int64)
        base = _POLICY.parameter_names(n_tiers)
        self.parameter_names = tuple(f"{t}[{g}]" if g else t for g in ("", *slices) for t in base)

    @cached_property
    def _parts(self) -> list[ThresholdFamily]:
        parts = []
        for g in range(len(self._slices) + 1):
            rows = np.flatnonzero(self._group == g)
            if len(rows) == 0 and g > 0:
                raise ConfigError(
                    f"space.slices names {self._slices[g - 1]!r}, which no query of this split has; "
                    f"they have {_names(self._queries)}"
                )
            parts.append(ThresholdFamily(self.scores.take(rows), self.lanes, self.n_tiers))
        return parts

    @cached_property
    def space(self) -> SearchSpace:
        """Load fractions of each group's own queries."""
        return JoinedSpace([(part.space, self.n_tiers - 1) for part in self._parts])

    def assign(self, params: FloatArray) -> NDArray[np.int8]:
        """See `Family`."""
        d = self.n_tiers - 1
        tier = np.empty((len(params), len(self._group)), dtype=np.int8)
        for g in range(len(self._slices) + 1):
            rows = np.flatnonzero(self._group == g)
            tier[:, rows] = _POLICY.assign(params[:, g * d : (g + 1) * d], self.scores.take(rows), self.lanes)
        return tier

    def corners(self) -> FloatArray:
        """See `Family`."""
        return self.space.decode(np.tile(threshold_corners(self.n_tiers), (1, len(self._slices) + 1)))

    def sweep(self, params: FloatArray, i: int, steps: int) -> FloatArray:
        """See `Family`."""
        d = self.n_tiers - 1
        group = i // d
        return boundary_sweep(self._parts[group].order, params, i, steps, first=group * d, last=(group + 1) * d)

    def transfer(self, scores: ScoreTable, queries: QueryBatch) -> SliceThresholdFamily:
        """See `Family`."""
        return SliceThresholdFamily(scores, queries, self.lanes, self.n_tiers, self._slices)

    def deploy(self, params: FloatArray) -> Deployment:
        """See `Family`."""
        d = self.n_tiers - 1
        own = {name: params[(g + 1) * d : (g + 2) * d].tolist() for g, name in enumerate(self._slices)}
        values = dict(zip(self.parameter_names[:d], params[:d].tolist(), strict=True))
        return Deployment(policy="thresholds", values=values, lanes=self.lanes, slice_thresholds=own)


def _names(queries: QueryBatch) -> str:
    """The first slices of the queries, by name."""
    names = np.unique(np.asarray([] if queries.slice is None else queries.slice, dtype=np.str_)).tolist()
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
