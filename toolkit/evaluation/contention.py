"""Latency where requests wait for each other: tiers with slots, first come, first served.

Costs and qualities do not depend on waits, so they stay exact; only latency metrics are simulated. Routing does not
look at queues here, so each tier is a queue of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.queueing import mean_wait, poisson_arrivals, probability_of_wait, waiting_times
from toolkit.evaluation.estimators import Estimator
from toolkit.evaluation.metrics import QUANTILES, Metric

_MOST_ROWS = 1_000
_CRITICAL = 0.97


@dataclass(frozen=True, kw_only=True)
class QueueWorld:
    """Arrivals of the N queries of one table, and the slots of each tier.

    Attributes:
        arrival_s: `N` arrival instants, ascending, in the order of the table.
        servers: `K` slots; None where a tier never makes anybody wait.
    """

    arrival_s: FloatArray
    servers: tuple[int | None, ...]


def make_queue_world(
    table: OutcomeTable, *, rate_per_s: float, slots: Mapping[str, int], rng: np.random.Generator
) -> QueueWorld:
    """Poisson arrivals in the order of the table, and slots by tier name.

    Raises:
        ConfigError: If latencies are unknown, or a name is no tier.
    """
    if not table.has_latency:
        raise ConfigError("world=queue needs latency_s of every answer, which this data does not have")
    unknown = sorted(set(slots) - set(table.tiers))
    if unknown:
        raise ConfigError(f"world.slots names {unknown}, which are none of the tiers {list(table.tiers)}")
    arrival_s = poisson_arrivals(table.n_queries, rate_per_s=rate_per_s, rng=rng)
    return QueueWorld(arrival_s=arrival_s, servers=tuple(slots.get(tier) for tier in table.tiers))


def contended_latency(table: OutcomeTable, world: QueueWorld, tier: NDArray[np.int8] | IntArray) -> FloatArray:
    """`N` latencies, waits included, of one assignment (`tier: N`), seconds."""
    latency = table.latency_s[np.arange(table.n_queries), tier]
    for k, servers in enumerate(world.servers):
        rows = np.flatnonzero(tier == k)
        if servers is not None and len(rows):
            latency[rows] += waiting_times(world.arrival_s[rows], latency[rows], servers=servers)
    return latency


class ContentionEstimator(Estimator):
    """An exact estimator for what contention does not touch, a simulation for latencies.

    Args:
        exact: The estimator of the same candidates without contention.
        world: The queues.
        assignment: `n x N` tiers.
    """

    def __init__(self, exact: Estimator, world: QueueWorld, assignment: NDArray[np.int8]) -> None:
        super().__init__(exact.table, exact.coverage)
        self._exact, self._world, self._assignment = exact, world, assignment
        self._latency: FloatArray | None = None

    def _simulated(self) -> FloatArray:
        """`n x N` latencies; simulated once."""
        if self._latency is None:
            self._latency = np.stack([contended_latency(self.table, self._world, row) for row in self._assignment])
        return self._latency

    def value(self, metric: Metric) -> FloatArray:
        """See `Estimator`."""
        if not metric.needs_latency:
            return self._exact.value(metric)
        rows = self._rows(metric)
        return latency_value(self._simulated()[:, rows], metric)

    def slice_sums(self, values: FloatArray) -> FloatArray:
        """See `Estimator`."""
        return self._exact.slice_sums(values)

    def total_sums(self, values: FloatArray) -> FloatArray:
        """See `Estimator`."""
        return self._exact.total_sums(values)

    def latency_quantiles(self, levels: tuple[float, ...], rows: IntArray) -> FloatArray:
        """See `Estimator`."""
        return np.quantile(self._simulated()[:, rows], levels, axis=1).T

    def tier_counts(self) -> IntArray:
        """See `Estimator`."""
        return self._exact.tier_counts()


def latency_value(latency_s: FloatArray, metric: Metric) -> FloatArray:
    """`n` values of a latency metric from `n x N` latencies."""
    if metric.base in QUANTILES:
        return np.asarray(np.quantile(latency_s, QUANTILES[metric.base], axis=1))
    if metric.base == "latency_mean":
        return np.asarray(latency_s.mean(axis=1))
    assert metric.limit_s is not None
    return np.asarray((latency_s > metric.limit_s).mean(axis=1))


def approximate_latency(
    table: OutcomeTable, world: QueueWorld, assignment: NDArray[np.int8], metrics: tuple[Metric, ...]
) -> dict[str, FloatArray]:
    r"""Latency metrics by formulas, on a subset of the queries: the prior mean that a model of the residual needs.

    A wait is drawn at evenly spread levels from $P(W > t) = C e^{-tC/\bar W}$ (exact for M/M/c), with Erlang's C and
    the two-moment mean. Beyond a utilisation of 0.97 the backlog that a fluid would build up is added.

    Args:
        table: The outcomes.
        world: The queues.
        assignment: `n x N` tiers.
        metrics: Latency metrics.
    """
    step = max(1, table.n_queries // _MOST_ROWS)
    rows = np.arange(0, table.n_queries, step)
    level = np.modf(0.5 + np.arange(len(rows)) * 0.6180339887498949)[0]
    latency = np.stack([_approximate_row(table, world, tier, rows, level) for tier in assignment])
    found = {}
    for m in metrics:
        inside = slice(None)
        if m.slice_name is not None:
            inside = table.slice_code[rows] == table.slices.index(m.slice_name)
            if not inside.any():
                continue
        found[m.column] = latency_value(latency[:, inside], m)
    return found


def _approximate_row(
    table: OutcomeTable, world: QueueWorld, tier: NDArray[np.int8], rows: IntArray, level: FloatArray
) -> FloatArray:
    latency = table.latency_s[rows, tier[rows]]
    horizon_s = float(world.arrival_s[-1])
    for k, servers in enumerate(world.servers):
        member = tier == k
        if servers is None or not member.any():
            continue
        service = table.latency_s[member, k]
        mean, here = float(service.mean()), tier[rows] == k
        if mean == 0:
            continue
        offered = service.sum() / horizon_s
        stable = min(offered, _CRITICAL * servers)
        cv2 = float(service.var()) / mean**2
        wait = mean_wait(stable, servers, mean_service_s=mean, cv2_service=cv2)
        share = probability_of_wait(stable, servers)
        excess = np.log(np.maximum(share, 1e-9) / np.maximum(level[here], 1e-9))
        drawn = np.where(level[here] < share, wait / max(share, 1e-9) * excess, 0.0)
        backlog_s = horizon_s * max(0.0, offered / servers - _CRITICAL)
        latency[here] += drawn + backlog_s * level[here]
    return np.asarray(latency)
