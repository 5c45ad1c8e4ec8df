"""Offline phase, stage 2: how the requests of a tier are split over unequal groups of replicas [Boute2026]_.

The split minimises the quantile of the slowest replica. That quantile rises with a replica's load, so the best split
fills all replicas to one common level, as water fills vessels: at a level, each carries the largest load whose quantile
is within it, and the level is the smallest at which together they carry everything. For the tables this is exact, while
the paper's enumeration of splits on a grid is exact only on its grid.

Notation: L total loads, G groups of `replicas` equal replicas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Literal, get_args

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray
from toolkit.deployment.offline import ReplicaTable

LoadSplit = Literal["waterfill", "enumerate", "capacity"]
_BISECTIONS = 60
_PARTS = 20
_MOST_SPLITS = 2_000


@dataclass(frozen=True, kw_only=True)
class Split:
    """A split of L total loads over G groups.

    Attributes:
        level_s: `L` quantiles of the slowest replica; infinite where the replicas cannot carry the load.
        load_per_s: `L x G` loads of one replica of each group; they carry the total even where the level is infinite.
    """

    level_s: FloatArray
    load_per_s: FloatArray

    def shares(self, replicas: FloatArray | IntArray) -> FloatArray:
        """`L x G` fractions of the requests that each group takes."""
        carried = self.load_per_s * replicas
        return np.asarray(carried / carried.sum(axis=1, keepdims=True))


def split_load(
    tables: Sequence[ReplicaTable], replicas: Sequence[int], loads_per_s: FloatArray, *, method: LoadSplit = "waterfill"
) -> Split:
    """Split total loads over groups.

    Args:
        tables: G tables.
        replicas: Replicas of each group.
        loads_per_s: `L` positive totals.
        method: `waterfill`; `enumerate`: the best of all splits in parts of 1/20, coarser
            for five groups and more; `capacity`: in proportion to the
            throughput when overloaded.

    Raises:
        ConfigError: If the method is unknown.
    """
    if method not in get_args(LoadSplit):
        raise ConfigError(f"load_split is one of {', '.join(get_args(LoadSplit))}; got {method!r}")
    counts = np.asarray(replicas, dtype=np.float64)
    loads = np.asarray(loads_per_s, dtype=np.float64)
    if method == "enumerate" and len(tables) > 1:
        return _split_by(tables, counts, loads, simplex_grid(len(tables), _PARTS))
    if method == "waterfill":
        return _filled(tables, counts, loads)
    return _split_by(tables, counts, loads, _by_capacity(tables, counts)[None, :])


def _filled(tables: Sequence[ReplicaTable], counts: FloatArray, loads: FloatArray) -> Split:
    top = counts @ np.array([table.top_per_s for table in tables])
    fits = loads <= top * (1 + 1e-9)
    if not fits.any():
        return _overloaded(tables, counts, loads)
    finite = np.concatenate([table.p95_s[np.isfinite(table.p95_s)] for table in tables])
    low = np.full(len(loads), np.log(finite.min()) - 1e-9)
    high = np.full(len(loads), np.log(finite.max()) + 1e-9)
    wanted = np.minimum(loads, top * (1 - 1e-12))
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        enough = _carried(tables, np.exp(middle)) @ counts >= wanted
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    carried = _carried(tables, np.exp(high))
    total = (carried @ counts)[:, None]
    load = np.where(fits[:, None], carried * loads[:, None] / total, _overloaded(tables, counts, loads).load_per_s)
    return Split(level_s=np.where(fits, _worst(tables, load), np.inf), load_per_s=load)


def _carried(tables: Sequence[ReplicaTable], level_s: FloatArray) -> FloatArray:
    return np.stack([table.load_at(level_s) for table in tables], axis=1)


def _worst(tables: Sequence[ReplicaTable], load: FloatArray) -> FloatArray:
    """`L` quantiles of the slowest group that has requests (`load: L x G`)."""
    each = np.stack([table.p95_at(load[:, g]) for g, table in enumerate(tables)], axis=1)
    return np.asarray(np.where(load > 0, each, 0.0).max(axis=1))


def _overloaded(tables: Sequence[ReplicaTable], counts: FloatArray, loads: FloatArray) -> Split:
    """In proportion to what each could carry."""
    share = _by_capacity(tables, counts)
    return Split(level_s=np.full(len(loads), np.inf), load_per_s=loads[:, None] * share / counts)


def _by_capacity(tables: Sequence[ReplicaTable], counts: FloatArray) -> FloatArray:
    capacity = counts * np.array([table.capacity_per_s for table in tables])
    return np.asarray(capacity / capacity.sum())


def _split_by(tables: Sequence[ReplicaTable], counts: FloatArray, loads: FloatArray, shares: FloatArray) -> Split:
    """The best of `S x G` shares for each load."""
    load = loads[:, None, None] * shares / counts  # L x S x G
    flat = load.reshape(-1, len(tables))
    level = _worst(tables, flat).reshape(len(loads), len(shares))
    best = level.argmin(axis=1)
    rows = np.arange(len(loads))
    found = Split(level_s=level[rows, best], load_per_s=load[rows, best])
    over = np.isinf(found.level_s)
    carried = np.where(over[:, None], _overloaded(tables, counts, loads).load_per_s, found.load_per_s)
    return Split(level_s=found.level_s, load_per_s=carried)


def simplex_grid(groups: int, parts: int) -> FloatArray:
    """`S x G` shares that are multiples of `1 / parts` and sum to 1; coarser where that would be more than 2,000."""
    if groups == 1:
        return np.ones((1, 1))
    while parts > 2 and comb(parts + groups - 1, groups - 1) > _MOST_SPLITS:
        parts -= 1
    axes = np.meshgrid(*[np.arange(parts + 1)] * (groups - 1), indexing="ij")
    first = np.stack([axis.ravel() for axis in axes], axis=1)
    last = parts - first.sum(axis=1)
    return np.asarray(np.column_stack([first, last])[last >= 0] / parts)
