"""Offline phase, stage 1: how the latency of one replica grows with its load [Boute2026]_.

Every replica that fits is simulated alone at a grid of loads, from empty, in windows as long as those that a fleet is
judged on: a warm-up, then the counted horizon. So an overloaded replica has a finite latency too, the one that such a
window shows. The same gaps and the same requests serve every replica (common random numbers).

Two things are assumed. Every replica gets its requests at the regularity `cv` of the recipe; replicas that take turns
get them more regularly, so their tables err on the slow side near capacity. And the requests of a tier are drawn from
all queries, not from those that a router sends to it.

Notation: T replicas (tables), L loads, B edges, R requests. `cdf[..., b]` is P(latency <= edges_s[b]).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from scipy.optimize import isotonic_regression

from simulators.deployment.batching import serve
from simulators.deployment.performance import Speed, replica_speed, valid_replicas
from simulators.deployment.plan import Replica
from simulators.deployment.specs import FleetSpec
from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import FloatArray, IntArray
from simulators.seeds import spawn_rng

Lengths = tuple[FloatArray, FloatArray]
"""Input and output tokens of the same queries on one tier, R each."""

Progress = Callable[[int, int | None], None]

_FIXED_LOADS = np.arange(2.0, 41.0, 2.0)
_THREADS = 2
_BATCHES = 8
"""Full batches that a measurement of throughput lasts, at least."""
_APART = 1000.0
"""Idle time between windows, in windows: any backlog is gone."""


@dataclass(frozen=True, kw_only=True)
class OfflineRecipe:
    """How the tables are made.

    Attributes:
        load_grid: `capacity`: shares of the replica's own throughput when overloaded; `fixed`: 2, 4, ..., 40 requests
            per second, as far as `top_load`.
        load_points: L of `capacity`.
        top_load: Largest load of a table, as a share of that throughput; beyond it latency is infinite.
        requests: Requests simulated per load, at least.
        windows: Windows simulated per load, at least.
        warmup: Length of the warm-up, as a share of the horizon.
        cv: Coefficient of variation of the gaps between requests; 1 is Poisson.
        level: Quantile that `p95_s` means and that load splits equalise.
        edges: B, spaced evenly in the logarithm between `shortest_s` and `longest_s`.
    """

    load_grid: Literal["capacity", "fixed"] = "capacity"
    load_points: int = 20
    top_load: float = 1.3
    requests: int = 2000
    windows: int = 4
    warmup: float = 0.25
    cv: float = 1.0
    level: float = 0.95
    edges: int = 240
    shortest_s: float = 0.02
    longest_s: float = 3000.0

    def __post_init__(self) -> None:
        whole = min(self.load_points, self.windows, self.edges - 1) >= 1 and self.requests >= 100
        real = self.cv > 0 and 0 < self.level < 1 and self.top_load > 0 and self.warmup >= 0
        if not (whole and real and 0 < self.shortest_s < self.longest_s):
            raise ConfigError(f"offline tables need requests >= 100, positive sizes and a level in (0, 1); got {self}")

    @property
    def edges_s(self) -> FloatArray:
        """`B` edges, seconds."""
        return np.geomspace(self.shortest_s, self.longest_s, self.edges)

    def loads(self, capacity_per_s: float) -> FloatArray:
        """`L` loads of a replica; those of `capacity` lie closer above 0.7, where latency bends."""
        if self.load_grid == "fixed":
            return _FIXED_LOADS[: max(1, int(np.searchsorted(_FIXED_LOADS, self.top_load * capacity_per_s, "right")))]
        return capacity_per_s * load_shares(self.load_points, self.top_load)


def load_shares(n: int, top: float) -> FloatArray:
    """`n` rising shares in (0, top], a third of them below 0.7 where `top` is above it."""
    low = n // 3 if top > 0.7 else 0
    knee = 0.7 if low else 0.0
    below = np.linspace(0.0, knee, low + 1)[1:]
    return np.concatenate([below, np.linspace(knee, top, n - low + 1)[1:]])


@dataclass(frozen=True, kw_only=True)
class ReplicaTable:
    """Latency of one replica over its load.

    Attributes:
        replica: What it is.
        capacity_per_s: Requests per second when overloaded.
        loads_per_s: `L` rising loads.
        cdf: `L x B`, falling along L, rising along B.
        p95_s: `L` quantiles at the recipe's level, rising; infinite beyond the edges.
    """

    replica: Replica
    capacity_per_s: float
    loads_per_s: FloatArray
    cdf: FloatArray
    p95_s: FloatArray

    @property
    def top_per_s(self) -> float:
        """Largest load with a finite quantile; 0 where there is none."""
        finite = np.isfinite(self.p95_s)
        return float(self.loads_per_s[finite][-1]) if finite.any() else 0.0

    def load_at(self, level_s: FloatArray) -> FloatArray:
        """Largest load (same shape as `level_s`) whose quantile is at most that; 0 where none is.

        Loads below the first one have its latency.
        """
        finite = np.isfinite(self.p95_s)
        if not finite.any():
            return np.zeros_like(level_s)
        return np.asarray(np.interp(np.log(level_s), np.log(self.p95_s[finite]), self.loads_per_s[finite], left=0.0))

    def p95_at(self, load_per_s: FloatArray) -> FloatArray:
        """Quantile at any load, its logarithm linear between the loads of the table; infinite above the top."""
        finite = np.isfinite(self.p95_s)
        if not finite.any():
            return np.full(np.shape(load_per_s), np.inf)
        inside = np.exp(np.interp(load_per_s, self.loads_per_s[finite], np.log(self.p95_s[finite])))
        return np.asarray(np.where(load_per_s <= self.top_per_s * (1 + 1e-9), inside, np.inf))

    def cdf_at(self, load_per_s: FloatArray) -> FloatArray:
        """`n x B` distributions at `n` loads; 0 above the last.

        Between two loads every quantile is, its logarithm linear in the load.
        """
        grid = self.loads_per_s
        at = np.clip(load_per_s, grid[0], grid[-1])
        high = np.minimum(np.searchsorted(grid, at, "left"), len(grid) - 1)
        low = np.maximum(high - 1, 0)
        weight = (at - grid[low]) / np.where(high > low, grid[high] - grid[low], 1.0)
        rows = [between(self.cdf[i], self.cdf[j], w) for i, j, w in zip(low, high, weight, strict=True)]
        inside = load_per_s <= grid[-1] * (1 + 1e-9)
        return np.where(inside[:, None], np.reshape(rows, (len(at), self.cdf.shape[1])), 0.0)


def between(low: FloatArray, high: FloatArray, weight: float) -> FloatArray:
    """The distribution (`B`) whose quantiles lie the share `weight` of the way from those of `low` to those of `high`.

    Places are counted in edges, which are even in the logarithm.
    """
    if weight <= 0.0 or weight >= 1.0:
        return high if weight >= 1.0 else low
    place = np.arange(len(low), dtype=np.float64)
    level = np.unique(np.concatenate([low, high]))
    level = level[level <= min(low[-1], high[-1])]
    ends = [int((cdf >= cdf[-1]).argmax()) + 1 for cdf in (low, high)]
    start, stop = (np.interp(level, cdf[:end], place[:end]) for cdf, end in zip((low, high), ends, strict=True))
    return np.asarray(np.interp(place, (1.0 - weight) * start + weight * stop, level, left=0.0))


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Requests that every replica of a tier is simulated with.

    Attributes:
        arrival: `R` arrivals at one request per second.
        input_tokens, output_tokens: `R`.
        window_s: Length of a window, warm-up included.
        warmup_s: Length of the warm-up.
    """

    arrival: FloatArray
    input_tokens: FloatArray
    output_tokens: FloatArray
    window_s: float
    warmup_s: float

    def latencies(self, speed: Speed, rate_per_s: float, n_windows: int) -> FloatArray:
        """Sorted latencies of the counted requests; infinite where one never ends.

        The arrivals are stretched so that their number is exactly what the rate says.
        """
        total_s = n_windows * self.window_s
        n = min(max(round(rate_per_s * total_s), 1), len(self.arrival) - 1)
        time_s = self.arrival[:n] * (total_s / self.arrival[n])
        window, within = np.divmod(time_s, self.window_s)
        arrival_s = time_s + window * (_APART * self.window_s)
        served = serve(speed, arrival_s, self.input_tokens[:n], self.output_tokens[:n])
        took = (served.done_s - arrival_s)[within >= self.warmup_s]
        return np.sort(np.where(np.isnan(took), np.inf, took))


def replica_tables(
    fleet: FleetSpec,
    lengths: Iterable[Lengths],
    *,
    recipe: OfflineRecipe,
    seed: int,
    on_progress: Progress = lambda done, total: None,
) -> tuple[tuple[ReplicaTable, ...], ...]:
    """Tables of every valid replica of every tier.

    Args:
        fleet: GPUs, models by tier, engine, horizon.
        lengths: M pairs of token counts, in the order of `fleet.models`.
        recipe: How.
        seed: The run's seed.
        on_progress: Called with (tables done, tables altogether).

    Raises:
        InputDataError: If token counts are missing.
        ConfigError: If a tier fits no GPU type.
    """
    replicas = [valid_replicas(fleet, tier) for tier in fleet.models]
    total, done = sum(map(len, replicas)), 0
    found = []
    for tier, valid, pair in zip(fleet.models, replicas, lengths, strict=True):
        if not valid:
            raise ConfigError(f"{tier} fits none of the GPU types {list(fleet.gpus)}; add larger ones or more of them")
        speeds = [_speed(fleet, tier, replica) for replica in valid]
        capacities = [capacity_per_s(speed, check_lengths(tier, pair), recipe, seed) for speed in speeds]
        work = draw_workload(pair, recipe, horizon_s=fleet.horizon_s, most_per_s=max(capacities), seed=seed)
        with ThreadPoolExecutor(_THREADS) as pool:  # the kernel does not hold the interpreter
            tables = []
            for table in pool.map(partial(replica_table, work=work, recipe=recipe), valid, speeds, capacities):
                tables.append(table)
                done += 1
                on_progress(done, total)
        found.append(tuple(tables))
    return tuple(found)


def replica_table(
    replica: Replica, speed: Speed, capacity: float, *, work: Workload, recipe: OfflineRecipe
) -> ReplicaTable:
    """Simulate one replica at every load.

    Every P(latency <= edge) is made to fall with the load by isotonic regression over the loads, weighted by requests,
    so every quantile rises with it.

    Args:
        replica, speed: The replica.
        capacity: Its requests per second when overloaded.
        work: Requests.
        recipe: How.
    """
    loads, edges = recipe.loads(capacity), recipe.edges_s
    runs = [work.latencies(speed, load, n_windows(recipe, load, work.window_s)) for load in loads]
    raw = np.stack([np.searchsorted(run, edges, "right") / max(len(run), 1) for run in runs])
    weight = np.array([max(len(run), 1) for run in runs], dtype=np.float64)
    cdf = falling(raw, weight)
    return ReplicaTable(
        replica=replica,
        capacity_per_s=capacity,
        loads_per_s=loads,
        cdf=cdf,
        p95_s=quantile_of(cdf, edges, recipe.level),
    )


def falling(raw: FloatArray, weight: FloatArray) -> FloatArray:
    """`L x B` shares, each column replaced by its nearest non-increasing one (weights `L`, least squares)."""
    found = raw.copy()
    for b in np.flatnonzero((np.diff(raw, axis=0) > 0).any(axis=0)):
        found[:, b] = isotonic_regression(raw[:, b], weights=weight, increasing=False).x
    return np.clip(np.maximum.accumulate(found, axis=1), 0.0, 1.0)


def quantile_of(cdf: FloatArray, edges_s: FloatArray, q: float) -> FloatArray:
    """Quantile of `... x B` distributions on the edges, linear in the logarithm between them; inf above the last."""
    reached = cdf >= q
    hi = reached.argmax(axis=-1)
    lo = np.maximum(hi - 1, 0)
    above = np.take_along_axis(cdf, hi[..., None], -1)[..., 0]
    below = np.where(hi > 0, np.take_along_axis(cdf, lo[..., None], -1)[..., 0], 0.0)
    share = np.where(hi > 0, (q - below) / np.where(above > below, above - below, 1.0), 1.0)
    log = np.log(edges_s)
    return np.asarray(np.where(reached.any(axis=-1), np.exp(log[lo] + share * (log[hi] - log[lo])), np.inf))


def capacity_per_s(speed: Speed, lengths: Lengths, recipe: OfflineRecipe, seed: int) -> float:
    """Requests per second of a replica to which all come at once: the middle of that run.

    Raises:
        InputDataError: If it serves none of them.
    """
    rows = _rows(len(lengths[0]), max(recipe.requests, _BATCHES * speed.max_batch), seed)
    done = serve(speed, np.zeros(len(rows)), lengths[0][rows], lengths[1][rows]).done_s
    done = np.sort(done[np.isfinite(done)])
    if not len(done):
        raise InputDataError("a replica that fits serves no request: all are longer; raise engine.context_tokens")
    first, last = np.quantile(done, [0.2, 0.8])
    return float(0.6 * len(done) / (last - first) if last > first else len(done) / last)


def draw_workload(
    lengths: Lengths, recipe: OfflineRecipe, *, horizon_s: float, most_per_s: float, seed: int
) -> Workload:
    """Enough requests for the fastest replica's last load.

    Args:
        lengths: Token counts to draw from.
        recipe: How.
        horizon_s: Counted seconds of a window.
        most_per_s: Capacity of the fastest replica.
        seed: The run's seed.
    """
    window_s = horizon_s * (1.0 + recipe.warmup)
    most = max(n_windows(recipe, load, window_s) * load * window_s for load in recipe.loads(most_per_s))
    n = int(1.1 * max(most, 2.0 * recipe.requests)) + 1000
    shape = recipe.cv**-2.0
    rows = _rows(len(lengths[0]), n, seed)
    return Workload(
        arrival=np.cumsum(spawn_rng(seed, "offline", "gaps").gamma(shape, 1.0 / shape, size=n)),
        input_tokens=lengths[0][rows],
        output_tokens=lengths[1][rows],
        window_s=window_s,
        warmup_s=horizon_s * recipe.warmup,
    )


def n_windows(recipe: OfflineRecipe, load_per_s: float, window_s: float) -> int:
    """Windows to simulate at a load, so that both the windows and the requests suffice."""
    return int(max(recipe.windows, np.ceil(recipe.requests / (load_per_s * window_s))))


def check_lengths(tier: str, lengths: Lengths) -> Lengths:
    """The token counts, if every one is there.

    Raises:
        InputDataError: If not.
    """
    whole = len(lengths[0]) == len(lengths[1]) > 0 and all(np.isfinite(tokens).all() for tokens in lengths)
    if not whole:
        raise InputDataError(f"the offline tables need input and output tokens of every answer of {tier}; some lack")
    return lengths


def _rows(n_queries: int, n: int, seed: int) -> IntArray:
    """`n` queries in shuffled rounds, so that each is asked about equally often."""
    rng = spawn_rng(seed, "offline", "queries")
    return np.concatenate([rng.permutation(n_queries) for _ in range(-(-n // n_queries))])[:n]


def _speed(fleet: FleetSpec, tier: str, replica: Replica) -> Speed:
    speed = replica_speed(fleet.models[tier], fleet.gpus[replica.gpu], replica, fleet.engine)
    assert speed is not None, replica.text
    return speed
