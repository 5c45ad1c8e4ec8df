"""Metrics of many candidates at once, from three primitives.

An estimator knows, for n candidates, (a) sums of any `N x K` quantity over the queries of each slice, (b) latency
quantiles, (c) how many queries each tier gets. Everything else follows here, once. `AssignmentEstimator` computes
the primitives from explicit assignments: slow, obvious, and the reference that the exact ones are tested against.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from toolkit.evaluation import robust
from toolkit.evaluation.metrics import FLEET, HEADLINE, QUANTILES, ROUTER_DELAYS, Metric
from toolkit.evaluation.slices import Coverage

_CHUNK_ELEMENTS = 8_000_000


class Estimator(ABC):
    """Figures of n candidates on one table.

    Attributes:
        table: The outcomes.
        coverage: The groups a worst slice is taken over.
    """

    def __init__(self, table: OutcomeTable, coverage: Coverage) -> None:
        self.table = table
        self.coverage = coverage
        self._quality_by_slice: FloatArray | None = None

    @abstractmethod
    def slice_sums(self, values: FloatArray) -> FloatArray:
        """Sum of `values: N x K` at the chosen tiers, per slice: `n x S`."""

    @abstractmethod
    def total_sums(self, values: FloatArray) -> FloatArray:
        """Sum of `values: N x K` at the chosen tiers over all queries: `n`."""

    @abstractmethod
    def latency_quantiles(self, levels: tuple[float, ...], rows: IntArray) -> FloatArray:
        """Latency quantiles (linear interpolation) over the queries at `rows`: `n x len(levels)`, seconds."""

    @abstractmethod
    def tier_counts(self) -> IntArray:
        """Queries per tier: `n x K`."""

    def value(self, metric: Metric) -> FloatArray:
        """`n` values of one metric in natural units.

        Raises:
            ConfigError: If the table cannot answer (unknown slice, tier, cost or latency).
        """
        if metric.over_slices:
            return self._over_slices(metric)
        if metric.base in FLEET:
            raise ConfigError(f"{metric.column} needs a fleet to deploy: use a scenario with one and space=deployment")
        if metric.base in ROUTER_DELAYS:
            return np.full(len(self.tier_counts()), self._router_delay(metric))
        if metric.needs_latency and not self.table.has_latency:
            raise ConfigError(f"{metric.column} needs latency_s of every answer, which this data does not have")
        if metric.base in QUANTILES:
            return self.latency_quantiles((QUANTILES[metric.base],), self._rows(metric))[:, 0]
        return self._mean(self._quantity(metric), metric)

    def values(self, metrics: tuple[Metric, ...]) -> dict[str, FloatArray]:
        """Column name -> `n` values; overall quantiles share one pass."""
        found = {m.column: self.value(m) for m in metrics if m.base not in QUANTILES or m.slice_name is not None}
        overall = [m for m in metrics if m.base in QUANTILES and m.slice_name is None]
        if overall:
            if not self.table.has_latency:
                self.value(overall[0])
            levels = tuple(QUANTILES[m.base] for m in overall)
            quantiles = self.latency_quantiles(levels, np.arange(self.table.n_queries))
            found.update({m.column: quantiles[:, i] for i, m in enumerate(overall)})
        return {m.column: found[m.column] for m in metrics}

    def _router_delay(self, metric: Metric) -> float:
        delay_s = self.table.router_delay_s
        if delay_s is None:
            raise ConfigError(
                f"{metric.column} needs the router's delay, which is not known; state router.delay_s=SECONDS, or take "
                "a router of a scenario, such as scorer=classifier"
            )
        return float(np.quantile(delay_s[self._rows(metric)], ROUTER_DELAYS[metric.base]))

    def _quantity(self, metric: Metric) -> FloatArray:
        if metric.base == "quality":
            return self.table.quality
        if metric.base == "cost":
            if not self.table.has_cost:
                raise ConfigError(
                    "this data has no cost_usd: give data.prices=FILE, or name other objectives, "
                    "such as objectives=[latency_mean,quality]"
                )
            return self.table.cost_usd
        if metric.base == "latency_mean":
            return self.table.latency_s
        assert metric.limit_s is not None
        late = self.table.latency_s > metric.limit_s
        return (~late if metric.maximise else late).astype(np.float64)

    def _mean(self, values: FloatArray, metric: Metric) -> FloatArray:
        if metric.slice_name is None:
            return self.total_sums(values) / self.table.n_queries
        code, count = self._slice(metric.slice_name)
        return self.slice_sums(values)[:, code] / count

    def _slice(self, name: str) -> tuple[int, int]:
        if name not in self.table.slices:
            shown = ", ".join(self.table.slices[:12]) + (", ..." if len(self.table.slices) > 12 else "")
            raise ConfigError(f"slice {name!r} is not in the data; it has {shown}")
        code = self.table.slices.index(name)
        count = int(self.coverage.counts[code])
        if count == 0:
            raise ConfigError(f"slice {name!r} has no query in this split; give more data or name another slice")
        return code, count

    def _rows(self, metric: Metric) -> IntArray:
        if metric.slice_name is None:
            return np.arange(self.table.n_queries)
        return np.flatnonzero(self.table.slice_code == self._slice(metric.slice_name)[0])

    def quality_by_slice(self) -> FloatArray:
        """Sum of quality per slice, `n x S`; computed once."""
        if self._quality_by_slice is None:
            self._quality_by_slice = self.slice_sums(self.table.quality)
        return self._quality_by_slice

    def _over_slices(self, metric: Metric) -> FloatArray:
        """`n` values of a metric over the covered groups; see `toolkit.evaluation.robust`."""
        counts = self._group_counts()
        if metric.tier is not None:
            return self._largest_loss(metric, self._tier(metric))
        sums = self._grouped(self.quality_by_slice())
        if metric.share is not None:
            return robust.cvar(sums / counts, counts, metric.share)
        if metric.base == "worst_slice":
            return np.asarray((sums / counts).min(axis=1))
        squares = self._grouped(self.slice_sums(self.table.quality**2))
        ends = robust.quality_ends(self.table, self.coverage)
        return np.asarray(robust.lower_bounds(counts, sums, squares, ends).min(axis=1))

    def _largest_loss(self, metric: Metric, tier: int) -> FloatArray:
        table, counts = self.table, self._group_counts()
        alone = np.bincount(table.slice_code, weights=table.quality[:, tier], minlength=len(table.slices))
        sums = self._grouped(alone[None, :].astype(np.float64)) - self._grouped(self.quality_by_slice())
        if metric.base == "slice_loss":
            return np.asarray(robust.clean(sums / counts).max(axis=1))
        squares = self._grouped(self.slice_sums((table.quality[:, [tier]] - table.quality) ** 2))
        on_tier = np.broadcast_to(np.eye(table.n_tiers)[tier], table.quality.shape)
        same = self._grouped(self.slice_sums(on_tier)) == counts
        ends = robust.loss_ends(table, self.coverage, tier)
        return np.asarray(np.where(same, 0.0, robust.upper_bounds(counts, sums, squares, ends)).max(axis=1))

    def _tier(self, metric: Metric) -> int:
        if metric.tier not in self.table.tiers:
            raise ConfigError(
                f"{metric.base}:{metric.tier}: {metric.tier!r} is not a tier of the data, which has "
                f"{', '.join(self.table.tiers)}"
                + ("; a loss is over all slices and takes no @SLICE" if "@" in str(metric.tier) else "")
            )
        return self.table.tiers.index(metric.tier)

    def _group_counts(self) -> IntArray:
        """Queries per covered group, `G`; at least one group."""
        cover = self.coverage
        if not cover.groups:
            raise ConfigError(
                f"no slice reaches the minimum coverage of {cover.minimum} queries; lower slices.minimum or add data"
            )
        inside = cover.group_of_slice >= 0
        return np.bincount(cover.group_of_slice[inside], weights=cover.counts[inside]).astype(np.int64)

    def _grouped(self, sums: FloatArray) -> FloatArray:
        """Sums per covered group, `n x G`, from `sums: n x S`."""
        group = self.coverage.group_of_slice
        return np.stack([_row_sums(sums[:, group == g]) for g in range(len(self.coverage.groups))], axis=1)


def _row_sums(values: FloatArray) -> FloatArray:
    """Row sums in a fixed order: those of `sum` and `@` depend on the number of rows, which a resume changes."""
    return np.asarray(np.cumsum(values, axis=1)[:, -1])


def headline_metrics(table: OutcomeTable, cover: Coverage) -> tuple[Metric, ...]:
    """The metrics that every evaluation records, as far as the data knows them."""
    metrics = [Metric(base) for base in HEADLINE]
    metrics = [m for m in metrics if table.has_latency or not m.needs_latency]
    metrics = [m for m in metrics if table.has_cost or m.base != "cost"]
    return tuple(m for m in metrics if cover.groups or m.base != "worst_slice")


class AssignmentEstimator(Estimator):
    """Primitives by looking every answer up: the reference, O(n N) per quantity.

    Args:
        table: The outcomes.
        coverage: The covered groups.
        assignment: `n x N` tier indices.
    """

    def __init__(self, table: OutcomeTable, coverage: Coverage, assignment: NDArray[np.int8]) -> None:
        super().__init__(table, coverage)
        self._assignment = assignment

    def _chosen(self, values: FloatArray, rows: IntArray) -> FloatArray:
        return values[rows[None, :], self._assignment[:, rows]]

    def _chunks(self) -> list[AssignmentEstimator]:
        step = max(1, _CHUNK_ELEMENTS // self.table.n_queries)
        starts = range(0, len(self._assignment), step)
        return [AssignmentEstimator(self.table, self.coverage, self._assignment[i : i + step]) for i in starts]

    def slice_sums(self, values: FloatArray) -> FloatArray:
        """See `Estimator`."""
        out = np.zeros((len(self._assignment), len(self.table.slices)))
        for code in np.flatnonzero(self.coverage.counts):
            rows = np.flatnonzero(self.table.slice_code == code)
            out[:, code] = np.concatenate([_row_sums(chunk._chosen(values, rows)) for chunk in self._chunks()])
        return out

    def total_sums(self, values: FloatArray) -> FloatArray:
        """See `Estimator`."""
        rows = np.arange(self.table.n_queries)
        return np.concatenate([_row_sums(chunk._chosen(values, rows)) for chunk in self._chunks()])

    def latency_quantiles(self, levels: tuple[float, ...], rows: IntArray) -> FloatArray:
        """See `Estimator`."""
        parts = [np.quantile(chunk._chosen(self.table.latency_s, rows), levels, axis=1).T for chunk in self._chunks()]
        return np.concatenate(parts)

    def tier_counts(self) -> IntArray:
        """See `Estimator`."""
        return np.stack([(self._assignment == k).sum(axis=1) for k in range(self.table.n_tiers)], axis=1)
