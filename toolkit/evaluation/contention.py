"""Figures where requests wait for each other, are refused or fail: simulated, candidate by candidate, on one world.

Where routing alone decides who waits where (`World.feed_forward`), costs and qualities do not depend on waits, so they
stay exact and only latency is simulated. Else errors and fallbacks enter quality and cost: each query then counts with
the mean over its counted requests, a failed one being worth 0 (`PerQuery`).

Latencies are over counted requests, which batch traffic is not among: quantiles and means over the answered ones,
shares over a limit with the failed ones as too late.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.queueing import poisson_arrivals
from simulators.seeds import spawn_rng
from simulators.world import Station, TierRule, World
from toolkit.evaluation.estimators import Estimator
from toolkit.evaluation.metrics import QUANTILES, ROUTER_DELAYS, Metric

if TYPE_CHECKING:
    from simulators.journeys import Journeys

MOST_SIMULATED = {True: 4e9, False: 2e7}
"""Candidates x requests that an enumeration may simulate, where routing alone decides who waits, and elsewhere."""

_CHUNK_ELEMENTS = 4_000_000
_LANE_CHUNK = 1_024

_SUMMARY = {name: Metric(f"latency_{name}") for name in ("mean", "p50", "p95", "p99")}

Assignment = NDArray[np.int8]


def make_queue_world(
    table: OutcomeTable, *, rate_per_s: float, slots: Mapping[str, int], rng: np.random.Generator
) -> World:
    """One request per interactive query in the order of the table, Poisson arrivals, slots by tier name.

    Raises:
        ConfigError: If latencies are unknown, or a name is no tier.
    """
    if not table.has_latency:
        raise ConfigError("world=queue needs latency_s of every answer, which this data does not have")
    unknown = sorted(set(slots) - set(table.tiers))
    if unknown:
        raise ConfigError(f"world.slots names {unknown}, which are none of the tiers {list(table.tiers)}")
    rows = np.arange(table.n_queries) if table.batch is None else np.flatnonzero(~table.batch)
    if not len(rows):
        raise ConfigError("world=queue: all queries are batch traffic, which waits for nothing")
    arrival_s = poisson_arrivals(len(rows), rate_per_s=rate_per_s, rng=rng)
    ready_s = arrival_s + (0.0 if table.router_delay_s is None else table.router_delay_s[rows])
    order = np.argsort(ready_s, kind="stable")
    return World(
        arrival_s=arrival_s[order],
        ready_s=ready_s[order],
        row=rows[order],
        router_down=np.zeros(len(rows), dtype=np.bool_),
        stations=tuple(Station(name=tier, slots=slots.get(tier)) for tier in table.tiers),
        rules=tuple(TierRule(station=k) for k in range(table.n_tiers)),
        duration_s=float(arrival_s[-1]),
    )


def with_capacity(table: OutcomeTable, world: World | None) -> OutcomeTable:
    """The table with each request's part of the fixed price of all capacity in its cost: the same for every tier.

    Batch rows hold no slot and pay for none. What an earlier world charged is taken out first.
    """
    per_request = 0.0 if world is None else world.usd_per_hour * world.duration_s / 3600 / world.n_requests
    return charged(table, per_request)


def charged(table: OutcomeTable, per_request_usd: float) -> OutcomeTable:
    """The table with this fixed price per request in the cost of every interactive row, instead of the one so far."""
    if table.fixed_usd == per_request_usd:
        return table
    interactive = np.ones(table.n_queries) if table.batch is None else (~table.batch).astype(np.float64)
    cost_usd = np.maximum(table.cost_usd + (per_request_usd - table.fixed_usd) * interactive[:, None], 0.0)
    return dataclasses.replace(table, cost_usd=cost_usd, fixed_usd=per_request_usd, _hash=[])


class ContendedEstimator(Estimator):
    """An exact estimator for what contention does not touch, a simulation for the rest.

    Args:
        exact: The estimator of the same candidates without contention.
        world: Requests and what stands in their way.
        assignment: `n x N` tiers.
        single_precision: Whether many candidates at once may be simulated in single precision, where routing alone
            decides who waits; `simulators.contention.lanes` states the error.
    """

    def __init__(
        self, exact: Estimator, world: World, assignment: Assignment, *, single_precision: bool = False
    ) -> None:
        super().__init__(exact.table, exact.coverage)
        self._single_precision = single_precision
        self._exact, self._world, self._assignment = exact, world, assignment
        self._cost_by_slice: FloatArray | None = None

    def value(self, metric: Metric) -> FloatArray:
        """See `Estimator`."""
        return self.values((metric,))[metric.column]

    def values(self, metrics: tuple[Metric, ...]) -> dict[str, FloatArray]:
        """See `Estimator`; one simulation per candidate serves all metrics."""
        timed = tuple(m for m in metrics if m.needs_latency)
        untouched = only_waits(self._world)
        simulated = timed or (not untouched and self._cost_by_slice is None)
        found = self._simulate(timed) if simulated else {}
        for m in metrics:
            if not m.needs_latency:
                found[m.column] = self._exact.value(m) if untouched else self._from_requests(m)
        return {m.column: found[m.column] for m in metrics}

    def latency_summary(self, candidate: int = 0) -> dict[str, float]:
        """`mean`, `p50`, `p95`, `p99` over the answered requests of one candidate, seconds."""
        found = self.values(tuple(_SUMMARY.values()))
        return {name: float(found[m.column][candidate]) for name, m in _SUMMARY.items()}

    def slice_latencies(self) -> dict[str, dict[str, float]]:
        """The same for each slice that counted requests ask, of the first candidate."""
        asked = np.unique(self.table.slice_code[self._world.row[self._world.counted]])
        names = [self.table.slices[code] for code in asked]
        wanted = {(s, key): dataclasses.replace(m, slice_name=s) for s in names for key, m in _SUMMARY.items()}
        found = self.values(tuple(wanted.values()))
        return {s: {key: float(found[wanted[s, key].column][0]) for key in _SUMMARY} for s in names}

    def _from_requests(self, metric: Metric) -> FloatArray:
        if metric.over_slices:
            return self._over_slices(metric)
        if metric.base in ROUTER_DELAYS or (metric.base == "cost" and not self.table.has_cost):
            return self._exact.value(metric)
        assert self._cost_by_slice is not None
        sums = self.quality_by_slice() if metric.base == "quality" else self._cost_by_slice
        if metric.slice_name is None:
            return np.asarray(sums.sum(axis=1) / self.table.n_queries)
        code, count = self._slice(metric.slice_name)
        return np.asarray(sums[:, code] / count)

    def _simulate(self, timed: tuple[Metric, ...]) -> dict[str, FloatArray]:
        if self._can_use_lanes(timed):
            return self._in_lanes(timed)
        keep = not only_waits(self._world)
        parts: list[dict[str, FloatArray]] = []
        quality, cost = [], []
        for chunk in chunks(self._assignment, self._world.n_requests):
            journeys = run(self._world, self.table, chunk)
            parts.append(self._latencies(journeys, timed))
            if keep:
                per_query = PerQuery(self._world, self.table, chunk, journeys)
                quality.append(self._slice_sums_of(per_query.quality))
                cost.append(self._slice_sums_of(per_query.cost_usd))
        if keep:
            self._quality_by_slice, self._cost_by_slice = np.concatenate(quality), np.concatenate(cost)
        return {m.column: np.concatenate([part[m.column] for part in parts]) for m in timed}

    def _latencies(self, journeys: Journeys, timed: tuple[Metric, ...]) -> dict[str, FloatArray]:
        code = self.table.slice_code[self._world.row]
        counted = self._world.arrival_s >= self._world.warmup_s
        found = {}
        for m in timed:
            rows = counted if m.slice_name is None else counted & (code == self._slice(m.slice_name)[0])
            if not rows.any():
                raise ConfigError(
                    f"{m.column}: no counted request asks slice {m.slice_name}; batch traffic waits for nothing and "
                    "has no latency under load, so name another slice"
                )
            late = np.where(journeys.served[:, rows] < 0, np.inf, journeys.e2e_s[:, rows])
            found[m.column] = latency_value(late, m)
        return found

    def _slice_sums_of(self, values: FloatArray) -> FloatArray:
        """`c x S` sums of `values: c x N`."""
        member = np.eye(len(self.table.slices))[self.table.slice_code]
        return np.asarray(values @ member)

    def _can_use_lanes(self, timed: tuple[Metric, ...]) -> bool:
        whole = all(m.slice_name is None for m in timed)
        return self._single_precision and whole and only_waits(self._world)

    def _in_lanes(self, timed: tuple[Metric, ...]) -> dict[str, FloatArray]:
        """Many candidates at once in single precision; `simulators.contention.lanes` states the error."""
        from simulators.contention.lanes import summarise

        world, table = self._world, self.table.bare
        levels = tuple(QUANTILES.values())
        limits = tuple(m.limit_s for m in timed if m.limit_s is not None)
        parts = []
        for start in range(0, len(self._assignment), _LANE_CHUNK):
            parts.append(
                summarise(
                    world.ready_s,
                    table.hold_s,
                    table.latency_s,
                    world.row,
                    np.ascontiguousarray(self._assignment[start : start + _LANE_CHUNK][:, world.row]),
                    np.array([rule.station for rule in world.rules], dtype=np.int64),
                    np.array([station.slots or 0 for station in world.stations], dtype=np.int64),
                    counted=world.arrival_s >= world.warmup_s,
                    offset_s=world.ready_s - world.arrival_s,
                    levels=levels,
                    limits_s=limits,
                )
            )
        mean = np.concatenate([p.mean_s for p in parts])
        quantiles = np.concatenate([p.quantiles_s for p in parts])
        over = np.concatenate([p.over for p in parts])
        found = {}
        for m in timed:
            if m.base in QUANTILES:
                found[m.column] = quantiles[:, list(QUANTILES).index(m.base)]
            elif m.limit_s is not None:
                late = over[:, limits.index(m.limit_s)]
                found[m.column] = 1.0 - late if m.maximise else late
            else:
                found[m.column] = mean
        return {name: np.asarray(values, dtype=np.float64) for name, values in found.items()}

    def quality_by_slice(self) -> FloatArray:
        """See `Estimator`."""
        if only_waits(self._world):
            return self._exact.quality_by_slice()
        if self._quality_by_slice is None:
            self._simulate(())
        assert self._quality_by_slice is not None
        return self._quality_by_slice

    def slice_sums(self, values: FloatArray) -> FloatArray:
        """See `Estimator`; of recorded values, whatever happens to the requests."""
        return self._exact.slice_sums(values)

    def total_sums(self, values: FloatArray) -> FloatArray:
        """See `Estimator`; of recorded values, whatever happens to the requests."""
        return self._exact.total_sums(values)

    def latency_quantiles(self, levels: tuple[float, ...], rows: IntArray) -> FloatArray:
        """See `Estimator`; over the counted requests that ask one of the queries at `rows`."""
        asked = np.isin(self._world.row, rows) & (self._world.arrival_s >= self._world.warmup_s)
        parts = []
        for chunk in chunks(self._assignment, self._world.n_requests):
            journeys = run(self._world, self.table, chunk)
            late = np.where(journeys.served[:, asked] < 0, np.inf, journeys.e2e_s[:, asked])
            parts.append(_quantiles(late, levels))
        return np.concatenate(parts)

    def tier_counts(self) -> IntArray:
        """See `Estimator`: where the policy sends the queries, wherever they end."""
        return self._exact.tier_counts()


def only_waits(world: World) -> bool:
    """Whether requests wait and nothing worse, so that quality and cost are those recorded."""
    return world.feed_forward and not bool(world.router_down.any())


def without_router(world: World) -> World:
    """The same requests, each at its tier the instant it arrives: what traffic without a router meets."""
    order = np.argsort(world.arrival_s, kind="stable")
    arrival_s, up = world.arrival_s[order], np.zeros(world.n_requests, dtype=np.bool_)
    return dataclasses.replace(
        world, arrival_s=arrival_s, ready_s=arrival_s, row=world.row[order], router_down=up, router_fallback=-1
    )


def run(world: World, table: OutcomeTable, assignment: Assignment) -> Journeys:
    """Every request of a few candidates (`assignment: c x N`)."""
    from simulators.simulate import simulate

    return simulate(world, table, np.asarray(assignment, dtype=np.int8), per_request=False)


def chunks(assignment: Assignment, n_requests: int) -> Iterator[Assignment]:
    """The candidates in parts whose requests fit into memory."""
    step = max(1, _CHUNK_ELEMENTS // n_requests)
    for start in range(0, len(assignment), step):
        yield assignment[start : start + step]


class PerQuery:
    """What became of each query: the mean over its counted requests.

    Batch queries count as recorded. An interactive query that no counted request asks is worth what was recorded times
    what load made of the others of its tier (their sum under load over their sum as recorded).

    Attributes:
        quality, cost_usd: `c x N`.
    """

    def __init__(self, world: World, table: OutcomeTable, assignment: Assignment, journeys: Journeys) -> None:
        self._world, self._table, self._assignment = world, table, assignment
        asked, mean = self._mean_over_requests
        self._asked = asked
        every = np.arange(table.n_queries)
        quality = journeys.quality(table.quality, world.row, table.unchecked)
        self.quality = self._filled(np.asarray(mean @ quality.T).T, table.quality[every, assignment])
        self.quality = np.minimum(self.quality, 1.0)
        self.cost_usd = table.cost_usd[every, assignment]
        if table.has_cost:
            self.cost_usd = self._filled(np.asarray(mean @ journeys.cost_usd.T).T, self.cost_usd)

    def _filled(self, met: FloatArray, recorded: FloatArray) -> FloatArray:
        """`c x N`: what was met where it is known, else by ratio, else as recorded."""
        asked, table = self._asked, self._table
        interactive = np.ones(len(asked), dtype=np.bool_) if table.batch is None else ~table.batch
        found = np.where(asked, met, recorded)
        missing = interactive & ~asked
        if missing.any():
            overall = _ratio(met * asked, recorded * asked, np.ones(met.shape[0]))
            for k in range(table.n_tiers):
                here = self._assignment == k
                ratio = _ratio(met * (asked & here), recorded * (asked & here), overall)
                found = np.where(missing & here, recorded * ratio[:, None], found)
        return found

    @cached_property
    def _mean_over_requests(self) -> tuple[NDArray[np.bool_], sparse.csr_matrix]:
        """`N` whether a counted request asks the query, and the `N x R` matrix that takes the mean over them."""
        counted, n = self._world.counted, self._table.n_queries
        row = self._world.row[counted]
        times = np.bincount(row, minlength=n)
        shape = (n, self._world.n_requests)
        return times > 0, sparse.csr_matrix((1.0 / times[row], (row, counted)), shape=shape)


def _ratio(above: FloatArray, below: FloatArray, otherwise: FloatArray) -> FloatArray:
    """`c` ratios of row sums, `otherwise` where nothing was summed."""
    total = below.sum(axis=1)
    return np.asarray(np.where(total > 0, above.sum(axis=1) / np.where(total > 0, total, 1.0), otherwise))


def under_load(table: OutcomeTable, world: World, tier: IntArray) -> OutcomeTable:
    """The table with what contention makes of one assignment (`tier: N`) in the cells that it chose.

    The latency of a query is that of one of its counted requests, picked at random (as recorded where none asks it): a
    sample, for figures that need one latency per query. Means and quantiles over all requests: `ContendedEstimator`.
    """
    assignment = tier[None, :].astype(np.int8)
    journeys = run(world, table, assignment)
    every = np.arange(table.n_queries)
    counted = spawn_rng(world.seed, "sample").permutation(world.counted)
    asked, some = np.unique(world.row[counted], return_index=True)
    latency_s, quality, cost_usd = table.latency_s.copy(), table.quality, table.cost_usd
    latency_s[asked, tier[asked]] = journeys.e2e_s[0, counted[some]]
    if not only_waits(world):
        per_query = PerQuery(world, table, assignment, journeys)
        quality, cost_usd = quality.copy(), cost_usd.copy()
        quality[every, tier] = np.clip(per_query.quality[0], 0.0, 1.0)
        cost_usd[every, tier] = per_query.cost_usd[0]
    return dataclasses.replace(
        table, latency_s=latency_s, quality=quality, cost_usd=cost_usd, occupied_s=table.hold_s, _hash=[]
    )


def latency_value(latency_s: FloatArray, metric: Metric) -> FloatArray:
    """`n` values of a latency metric from `n x R` latencies, infinite where a request failed."""
    if metric.base in QUANTILES:
        return _quantiles(latency_s, (QUANTILES[metric.base],))[:, 0]
    if metric.base == "latency_mean":
        answered = np.isfinite(latency_s)
        n = np.maximum(answered.sum(axis=1), 1)
        mean = np.where(answered, latency_s, 0.0).sum(axis=1) / n
        return np.where(answered.any(axis=1), mean, np.nan)
    assert metric.limit_s is not None
    late = (latency_s > metric.limit_s).mean(axis=1) if latency_s.shape[1] else np.full(len(latency_s), np.nan)
    return np.asarray(1.0 - late if metric.maximise else late)


def _quantiles(latency_s: FloatArray, levels: tuple[float, ...]) -> FloatArray:
    """`n x len(levels)` over the finite latencies; NaN where there is none."""
    if latency_s.shape[1] and np.isfinite(latency_s).all():
        return np.asarray(np.quantile(latency_s, levels, axis=1).T)
    rows = [row[np.isfinite(row)] for row in latency_s]
    return np.array([np.quantile(row, levels) if len(row) else np.full(len(levels), np.nan) for row in rows])
