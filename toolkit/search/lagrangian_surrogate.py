r"""Softened policies and their exact expected figures, with gradients: what the inner step of `lagrangian` climbs.

A hard policy changes by jumps. The soft one picks tier k with probability `P_k`:

    thresholds:  P(tier >= k) = 1 / (1 + exp(-(r - x_k) / h))      r: rank of the score in the traffic, in [0, 1]
    utility:     P(tier = k) proportional to exp((p_k + b_k - λ c_k) / (h g))

with temperature h and g the typical gap between predicted qualities where a query changes tier. Coordinates x are in
shares of traffic: `x_k` is boundary k's position among the scores; λ enters by its position on the λ path.

A figure that is a mean over queries is linear in P, so its value and gradient are exact, without sampling. Others have
a stand-in: the worst of the slices for figures over slices, the share of answers over the ceiling (its edge smoothed,
so that it points towards faster tiers even where none is over) for latency quantiles.

Notation: T targets, N queries, n cells (queries that act as one), K tiers, d coordinates, R linear figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import expit, softmax

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from toolkit.evaluation.constraints import Constraint
from toolkit.evaluation.metrics import QUANTILES, ROUTER_DELAYS, Metric
from toolkit.evaluation.slices import Coverage
from toolkit.families.base import Family
from toolkit.families.thresholds import ThresholdFamily
from toolkit.families.utility import UtilityFamily
from toolkit.policies.lanes import FREE
from toolkit.policies.utility import predictions
from toolkit.problem import RoutingProblem
from toolkit.spaces import cube_from_fractions

_EDGE = 0.25
"""Width of the smoothed edge of a latency ceiling, in natural logs of seconds."""


class SoftPolicy(Protocol):
    """A policy with a temperature.

    Attributes:
        dim: d.
    """

    dim: int

    def gather(self, values: FloatArray) -> FloatArray:
        """`n x K x R` sums over each cell of `values: N x K x R`; queries in a lane are in no cell."""
        ...

    def start(self, share: FloatArray) -> FloatArray:
        """`T x d` coordinates that spend little (`share: T` near 0) to much (near 1)."""
        ...

    def probabilities(self, x: FloatArray, temperature: float) -> FloatArray:
        """`T x n x K` probability of each tier in each cell at `x: T x d`."""
        ...

    def pull_back(self, x: FloatArray, P: FloatArray, gain: FloatArray, temperature: float) -> FloatArray:
        """`T x d` gradient in x, given the gradient in P (`gain: T x n x K`)."""
        ...

    def params(self, x: FloatArray) -> FloatArray:
        """`T x p` parameters of the hard policies at `x: T x d`, realisable by the family."""
        ...

    def project(self, x: FloatArray) -> FloatArray:
        """`T x d` coordinates within their bounds and in order."""
        ...


class SoftThresholds:
    """Boundaries by rank; see the module.

    Args:
        family: The family.
        most: Cells at most; more distinct scores than that are taken together with their neighbours.
    """

    def __init__(self, family: ThresholdFamily, most: int) -> None:
        self._family, order = family, family.order
        self.dim = family.n_tiers - 1
        sizes = np.diff(order.positions)
        middle = (order.positions[:-1] + sizes / 2) / max(len(order.order), 1)
        cell = np.arange(len(sizes)) if len(sizes) <= most else np.minimum((middle * most).astype(np.int64), most - 1)
        _, cell = np.unique(cell, return_inverse=True)
        self._cell_of_sorted = np.repeat(cell, sizes)
        self._n = int(cell.max()) + 1
        weight = np.bincount(cell, weights=sizes, minlength=self._n)
        self._rank = np.bincount(cell, weights=sizes * middle, minlength=self._n) / np.maximum(weight, 1.0)

    def gather(self, values: FloatArray) -> FloatArray:
        """See `SoftPolicy`."""
        out = np.zeros((self._n, *values.shape[1:]))
        np.add.at(out, self._cell_of_sorted, values[self._family.order.order])
        return out

    def start(self, share: FloatArray) -> FloatArray:
        """Every tier above the cheapest gets an equal part of what is spent."""
        return np.asarray(1.0 - share[:, None] * np.linspace(1.0, 1.0 / self.dim, self.dim)[None, :])

    def probabilities(self, x: FloatArray, temperature: float) -> FloatArray:
        """See `SoftPolicy`."""
        above = self._above(x, temperature)
        ones = np.ones((len(x), self._n, 1))
        return np.asarray(-np.diff(np.concatenate([ones, above, 0.0 * ones], axis=2), axis=2))

    def _above(self, x: FloatArray, temperature: float) -> FloatArray:
        """`T x n x (K-1)` probability of tier k or higher."""
        return np.asarray(expit((self._rank[None, :, None] - x[:, None, :]) / temperature))

    def pull_back(self, x: FloatArray, P: FloatArray, gain: FloatArray, temperature: float) -> FloatArray:
        """See `SoftPolicy`."""
        above = 1.0 - np.cumsum(P, axis=2)[:, :, :-1]
        return np.asarray(-(np.diff(gain, axis=2) * above * (1.0 - above)).sum(axis=1) / temperature)

    def params(self, x: FloatArray) -> FloatArray:
        """See `SoftPolicy`."""
        edges = np.clip(x, 0.0, 1.0)
        whole = np.concatenate([np.zeros((len(x), 1)), edges, np.ones((len(x), 1))], axis=1)
        return self._family.space.decode(cube_from_fractions(np.diff(whole, axis=1)))

    def project(self, x: FloatArray) -> FloatArray:
        """See `SoftPolicy`; a little beyond 0 and 1, so that a soft tier can be empty."""
        return np.sort(np.clip(x, -0.02, 1.02), axis=1)


class SoftUtility:
    """λ by its position on the path, then the offsets where the family searches them; see the module.

    Args:
        family: The family.
        most: Cells at most; of more queries a random part stands for all.
        rng: Of that part.
    """

    def __init__(self, family: UtilityFamily, most: int, rng: np.random.Generator) -> None:
        self._family, path = family, family.path
        self.dim = family.space.dim
        free = np.flatnonzero(family.lanes.pinned(family.scores) == FREE)
        self._rows = free if len(free) <= most else np.sort(rng.choice(free, most, replace=False))
        self._scale = len(free) / max(len(self._rows), 1)
        quality, cost = predictions(family.scores)
        self._quality, self._cost = quality[self._rows], cost[self._rows]
        every = path.event_query
        gaps = np.abs(quality[every, path.event_from] - quality[every, path.event_to])
        self._gap = float(np.median(gaps[gaps > 0])) if (gaps > 0).any() else 1.0
        self._knots = np.log(path.lambdas[::-1])  # descending, so that more is spent as x grows
        self._offset_range = float(family.space.decode(np.ones((1, self.dim)))[0, 1]) if self.dim > 1 else 0.0

    def gather(self, values: FloatArray) -> FloatArray:
        """See `SoftPolicy`."""
        return np.asarray(values[self._rows] * self._scale)

    def start(self, share: FloatArray) -> FloatArray:
        """Along the path, offsets 0."""
        return np.concatenate([share[:, None], np.full((len(share), self.dim - 1), 0.5)], axis=1)

    def probabilities(self, x: FloatArray, temperature: float) -> FloatArray:
        """See `SoftPolicy`."""
        lam = np.exp(self._log_lambda(x[:, 0]))
        utility = self._quality - lam[:, None, None] * self._cost
        if self.dim > 1:
            utility[:, :, 1:] += self._offset_range * (2.0 * x[:, None, 1:] - 1.0)
        return np.asarray(softmax(utility / (temperature * self._gap), axis=2))

    def _log_lambda(self, x: FloatArray) -> FloatArray:
        return np.asarray(np.interp(x * (len(self._knots) - 1), np.arange(len(self._knots)), self._knots))

    def pull_back(self, x: FloatArray, P: FloatArray, gain: FloatArray, temperature: float) -> FloatArray:
        """See `SoftPolicy`; the slope of log λ is taken over a few per cent of the path, its steps being rough."""
        by_utility = P * (gain - (P * gain).sum(axis=2, keepdims=True)) / (temperature * self._gap)
        by_log = -(by_utility * self._cost).sum(axis=(1, 2)) * np.exp(self._log_lambda(x[:, 0]))
        low, high = np.clip(x[:, 0] - 0.02, 0.0, 1.0), np.clip(x[:, 0] + 0.02, 0.0, 1.0)
        slope = (self._log_lambda(high) - self._log_lambda(low)) / (high - low)
        by_offset = 2.0 * self._offset_range * by_utility.sum(axis=1)[:, 1:] if self.dim > 1 else np.empty((len(x), 0))
        return np.concatenate([(by_log * slope)[:, None], by_offset], axis=1)

    def params(self, x: FloatArray) -> FloatArray:
        """See `SoftPolicy`; λ inside a piece of the path, so that offsets of 0 give each distinct policy once."""
        at = np.round(x[:, 0] * (len(self._knots) - 1)).astype(np.int64)
        lam = self._family.path.lambdas[::-1][at]
        offsets = self._offset_range * (2.0 * x[:, 1:] - 1.0) if self.dim > 1 else np.zeros((len(x), self._n_offsets))
        return np.concatenate([lam[:, None], offsets], axis=1)

    def project(self, x: FloatArray) -> FloatArray:
        """See `SoftPolicy`."""
        return np.clip(x, 0.0, 1.0)

    @property
    def _n_offsets(self) -> int:
        return self._family.n_tiers - 1


def soften(family: Family, most: int, rng: np.random.Generator) -> SoftPolicy:
    """The soft policies of a family.

    Raises:
        ConfigError: If it is neither thresholds nor utility.
    """
    if isinstance(family, ThresholdFamily):
        return SoftThresholds(family, most)
    if isinstance(family, UtilityFamily):
        return SoftUtility(family, most, rng)
    raise ConfigError(
        f"space={family.kind} cannot be softened; use policy=thresholds or policy=utility, or controller=mobo"
    )


@dataclass(frozen=True, kw_only=True)
class Bound:
    """How far a constraint is from being met: `max_r sign_r (limit_r - V_r)`, `<= 0` is met.

    Attributes:
        rows: Indices of its linear figures.
        limit: One limit per row.
        floor: Whether the rows must be above their limits, else below.
        unit: Size of the hard slack that counts as 1: 1 for qualities and shares, else the limit.
        same: Whether the rows measure what the hard slack measures, so that the hard figure can correct the soft one.
    """

    rows: IntArray
    limit: FloatArray
    floor: bool
    unit: float
    same: bool = True


class SoftFigures:
    """Objective, quality and constraints as linear figures of the tier probabilities.

    Args:
        problem: The problem.
        objective: What is minimised.
        soft: The soft policies.

    Attributes:
        bounds: One per constraint, then that of the target's quality, whose limit is the target itself.
        singles: `K x R` figures of the single tiers.
    """

    def __init__(self, problem: RoutingProblem, objective: Metric, soft: SoftPolicy) -> None:
        self._table, self._coverage = problem.table, problem.coverage
        self._columns: list[FloatArray] = []
        self._add(_stand_in(problem.table, problem.coverage, objective) * (-1.0 if objective.maximise else 1.0))
        self._group_rows: IntArray | None = None
        found = [self._bound(c) for c in problem.constraints]
        row = self._add(_share_of_mean(problem.table, problem.coverage, Metric("quality")))
        self.bounds = (*found, Bound(rows=row, limit=np.zeros(1), floor=True, unit=1.0))
        values = np.stack(self._columns, axis=2)
        self.singles: FloatArray = values.sum(axis=0)
        self._weight = soft.gather(values)
        pinned = problem.family.lanes.pinned(problem.family.scores)
        at = np.flatnonzero(pinned != FREE)
        self._constant = values[at, pinned[at]].sum(axis=0)

    def values(self, P: FloatArray) -> FloatArray:
        """`T x R` figures of `P: T x n x K`."""
        R = self._weight.shape[2]
        return np.asarray(P.reshape(len(P), -1) @ self._weight.reshape(-1, R) + self._constant)

    def gain(self, weights: FloatArray) -> FloatArray:
        """`T x n x K` gradient in P of `weights: T x R` times the figures."""
        n, K, R = self._weight.shape
        return np.asarray((weights @ self._weight.reshape(-1, R).T).reshape(len(weights), n, K))

    def shortfalls(self, values: FloatArray, targets: FloatArray) -> tuple[FloatArray, FloatArray]:
        """`T x c` shortfall of each bound, positive where violated, and `T x c x R` its gradient in the figures."""
        short = np.empty((len(values), len(self.bounds)))
        slope = np.zeros((len(values), len(self.bounds), values.shape[1]))
        every = np.arange(len(values))
        for j, bound in enumerate(self.bounds):
            limit = targets[:, None] if j == len(self.bounds) - 1 else bound.limit[None, :]
            sign = (1.0 if bound.floor else -1.0) / (bound.unit if bound.same else 1.0)
            each = sign * (limit - values[:, bound.rows])
            worst = np.argmax(each, axis=1)
            short[:, j] = each[every, worst]
            slope[every, j, bound.rows[worst]] = -sign
        return short, slope

    def _add(self, *columns: FloatArray) -> IntArray:
        first = len(self._columns)
        self._columns += columns
        return np.arange(first, len(self._columns))

    def _bound(self, constraint: Constraint) -> Bound:
        metric, limit = constraint.metric, constraint.limit
        unit = 1.0 if metric.in_points else limit
        if metric.over_slices:
            rows = self._groups()
            floors = np.full(len(rows), limit)
            if metric.tier is not None:
                at = self._table.tiers.index(metric.tier)
                floors = np.array([self._columns[row][:, at].sum() for row in rows]) - limit
            return Bound(rows=rows, limit=floors, floor=True, unit=unit)
        row = self._add(_stand_in(self._table, self._coverage, metric, limit))
        if metric.base in QUANTILES:
            allowed = np.array([1.0 - QUANTILES[metric.base]])
            return Bound(rows=row, limit=allowed, floor=False, unit=unit, same=False)
        same = metric.base not in ROUTER_DELAYS
        return Bound(rows=row, limit=np.array([limit]) * same, floor=metric.maximise, unit=unit, same=same)

    def _groups(self) -> IntArray:
        """Rows of the quality of each covered group; made once."""
        if self._group_rows is None:
            group = self._coverage.group_of_rows(self._table)
            quality = self._table.quality
            inside = [(group == g)[:, None] for g in range(len(self._coverage.groups))]
            self._group_rows = self._add(*(np.where(rows, quality, 0.0) / rows.sum() for rows in inside))
        return self._group_rows


def _stand_in(table: OutcomeTable, cover: Coverage, metric: Metric, limit: float | None = None) -> FloatArray:
    """`N x K` contributions of a metric over queries or, with a limit, of a bound on it."""
    if metric.base in ROUTER_DELAYS:
        return np.zeros(table.quality.shape)  # the same for every policy
    if metric.base not in QUANTILES:
        return _share_of_mean(table, cover, metric)
    latency = _share_of_mean(table, cover, Metric("latency_mean", metric.slice_name))
    if limit is None:
        return latency  # a quantile is lowered by lowering the mean
    over = expit((np.log(np.maximum(table.latency_s, 1e-9)) - np.log(limit)) / _EDGE)
    return np.asarray(over * _inside(table, metric))


def _share_of_mean(table: OutcomeTable, cover: Coverage, metric: Metric) -> FloatArray:
    """`N x K` contributions that sum to the mean over the queries of the metric's slice."""
    if metric.needs_latency and not table.has_latency:
        raise ConfigError(f"{metric.column} needs latency_s of every answer, which this data does not have")
    if metric.base == "cost" and not table.has_cost:
        raise ConfigError("this data has no cost_usd: give data.prices=FILE, or objectives=[latency_mean,quality]")
    if metric.base in {"quality", "cost", "latency_mean"}:
        named = {"quality": table.quality, "cost": table.cost_usd, "latency_mean": table.latency_s}
        return named[metric.base] * _inside(table, metric)
    late = table.latency_s > float(metric.limit_s or 0.0)
    return np.asarray((~late if metric.maximise else late) * _inside(table, metric))


def _inside(table: OutcomeTable, metric: Metric) -> FloatArray:
    """`N x 1` weights of the queries: equal inside the metric's slice, 0 outside."""
    if metric.slice_name is None:
        return np.full((table.n_queries, 1), 1.0 / table.n_queries)
    if metric.slice_name not in table.slices:
        raise ConfigError(f"slice {metric.slice_name!r} is not in the data; it has {', '.join(table.slices[:12])}")
    inside = table.slice_code == table.slices.index(metric.slice_name)
    if not inside.any():
        raise ConfigError(
            f"slice {metric.slice_name!r} has no query in this split; give more data or name another slice"
        )
    return np.asarray(inside[:, None] / inside.sum())
