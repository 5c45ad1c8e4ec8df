"""What a tier may be asked for, and what meets it best.

For a GPU type and a number of its GPUs the best homogeneous deployment within a latency level is the (TP, PP) whose
replicas carry most; the knapsack joins types. Every *need* (GPUs left over, budget, load) asks for the deployment of
lowest latency. The paper's needs are a grid of budgets and loads with all GPUs at hand [Boute2026]_. Tiers compete for
the same GPUs, so needs with half or none of a type are asked too (`caps`).

Notation: M tiers, N GPU types, d_n GPUs of type n, T tables, K latency levels, V groups of needs, S needs.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from simulators.deployment.specs import FleetSpec
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray
from toolkit.deployment.knapsack import NOTHING, Frontier, merge
from toolkit.deployment.load_split import LoadSplit
from toolkit.deployment.offline import ReplicaTable

Method = Literal["pareto_knapsack", "homogeneous", "uniform"]
_ALL_CAPS = 81


@dataclass(frozen=True, kw_only=True)
class CandidateRecipe:
    """How candidates are made.

    Attributes:
        method: `pareto_knapsack`: any mixture of types; `homogeneous`: one type per tier; `uniform`: GPUs and budget
            split evenly over tiers.
        caps: `none`: needs with all GPUs; `lattice`: also with half or none of a type, of at most two types where all
            combinations would be more than 81.
        budgets: Budgets asked for, evenly up to the whole.
        loads: Loads asked for, evenly up to the whole rate, and half the first.
        levels: K.
        most: C at most, the empty one not counted.
        load_points: L of a candidate's table.
        load_split: How requests are split over unequal replicas.
    """

    method: Method = "pareto_knapsack"
    caps: Literal["none", "lattice"] = "lattice"
    budgets: int = 15
    loads: int = 10
    levels: int = 96
    most: int = 300
    load_points: int = 24
    load_split: LoadSplit = "waterfill"

    def __post_init__(self) -> None:
        sizes = min(self.budgets, self.loads, self.levels - 1, self.most, self.load_points)
        if self.method not in get_args(Method) or self.caps not in {"none", "lattice"} or sizes < 1:
            raise ConfigError(
                f"candidates need method {get_args(Method)}, caps none or lattice, sizes >= 1; got {self}"
            )


@dataclass(frozen=True, kw_only=True)
class Options:
    """Homogeneous deployments of a tier: the best (TP, PP) for each number of GPUs of a type, by latency level.

    Attributes:
        level_s: `K` levels.
        usd_per_hour: `N` prices of a GPU.
        carries: `T x K`, requests per second of one replica within the level.
        value: N arrays `K x (d_n + 1)`, requests per second within the level.
        table: N arrays `K x (d_n + 1)`, index of the table that gives it; -1 where none does.
    """

    level_s: FloatArray
    usd_per_hour: FloatArray
    carries: FloatArray
    value: tuple[FloatArray, ...]
    table: tuple[IntArray, ...]

    def frontiers(self, caps: IntArray, k: int, budget: float) -> list[Frontier]:
        """Knapsacks at level k under each of `V x N` caps; what caps have in common is merged once."""
        known: dict[tuple[int, ...], Frontier] = {(): NOTHING}
        for cap in map(tuple, caps.tolist()):
            for n in range(len(cap)):
                if cap[: n + 1] not in known:
                    value = self.value[n][k, : cap[n] + 1]
                    cost = self.usd_per_hour[n] * np.arange(len(value))
                    known[cap[: n + 1]] = merge(known[cap[:n]], cost, value, budget)
        return [known[tuple(cap)] for cap in caps.tolist()]

    def log_latency(self, table: IntArray, replicas: IntArray, loads_per_s: FloatArray) -> FloatArray:
        """`C x loads` logarithms of the first level that carries a load; infinite where none does.

        Args:
            table, replicas: `C x N`, deployments.
            loads_per_s: Loads.
        """
        carries = np.einsum("cn,cnk->ck", replicas, self.carries[table])
        enough = carries[:, :, None] >= loads_per_s * (1 - 1e-9)
        return np.where(enough.any(axis=1), np.log(self.level_s)[enough.argmax(axis=1)], np.inf)


def make_options(fleet: FleetSpec, tables: tuple[ReplicaTable, ...], levels: int) -> Options:
    """Tabulate what every type can do within each level.

    Args:
        fleet: GPU types.
        tables: T replicas of the tier.
        levels: K.
    """
    finite = np.concatenate([table.p95_s[np.isfinite(table.p95_s)] for table in tables])
    level_s = np.geomspace(finite.min() * (1 + 1e-9), max(finite.max(), finite.min() * 1.01), levels)
    carries = np.stack([table.load_at(level_s) for table in tables])
    values, best = [], []
    for name, gpu in fleet.gpus.items():
        value, which = np.zeros((levels, gpu.count + 1)), np.full((levels, gpu.count + 1), -1)
        for t, table in enumerate(tables):
            size = table.replica.n_gpus
            if table.replica.gpu == name:
                counts = np.arange(0, gpu.count + 1, size)
                found = np.outer(carries[t], counts // size)
                better = found > value[:, counts]
                value[:, counts] = np.where(better, found, value[:, counts])
                which[:, counts] = np.where(better, t, which[:, counts])
        values.append(value)
        best.append(which.astype(np.int64))
    prices = np.array([gpu.usd_per_hour for gpu in fleet.gpus.values()])
    return Options(level_s=level_s, usd_per_hour=prices, carries=carries, value=tuple(values), table=tuple(best))


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What may be asked of a tier: each of V groups has its own GPUs left and its own budgets.

    Attributes:
        caps: `V x N` GPUs left over.
        budgets_usd_per_hour: V arrays.
        loads_per_s: Loads asked for in every group.
    """

    caps: IntArray
    budgets_usd_per_hour: tuple[FloatArray, ...]
    loads_per_s: FloatArray


def make_needs(fleet: FleetSpec, recipe: CandidateRecipe) -> Needs:
    """The needs of a recipe."""
    counts = np.array([gpu.count for gpu in fleet.gpus.values()])
    prices = np.array([gpu.usd_per_hour for gpu in fleet.gpus.values()])
    budget, tiers = fleet.budget_usd_per_hour, len(fleet.models)
    grid = budget * np.arange(1, recipe.budgets + 1) / recipe.budgets
    single = np.diag(counts)
    stairs = [np.minimum(price * np.arange(1, d + 1), budget) for price, d in zip(prices, counts, strict=True)]
    if recipe.method == "uniform":
        caps, budgets = (counts // tiers)[None, :], [np.array([budget / tiers])]
    elif recipe.method == "homogeneous":
        caps, budgets = single, stairs
    else:
        mixed = cap_lattice(counts) if recipe.caps == "lattice" else counts[None, :]
        caps, budgets = np.concatenate([mixed, single]), [*([grid] * len(mixed)), *stairs]
    loads = fleet.rate_per_s * np.append(0.5, np.arange(1, recipe.loads + 1)) / recipe.loads
    return Needs(caps=caps.astype(np.int64), budgets_usd_per_hour=tuple(map(np.unique, budgets)), loads_per_s=loads)


def cap_lattice(counts: IntArray) -> IntArray:
    """`V x N` caps: all, half or none of each type; at most two types reduced where that is more than 81."""
    steps = [np.unique([d, d // 2, 0])[::-1] for d in counts]
    if np.prod([len(s) for s in steps]) <= _ALL_CAPS:
        found = list(itertools.product(*steps))
    else:
        found = [tuple(counts)]
        for kept in itertools.combinations(range(len(counts)), len(counts) - 2):
            found += itertools.product(*[[d] if n in kept else steps[n] for n, d in enumerate(counts)])
    return np.unique(np.array(found)[np.array(found).sum(axis=1) > 0], axis=0)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """S needs that can be met, each with the deployment that meets it best.

    Attributes:
        cap: `S x N`.
        budget: `S`.
        load: `S` index into the loads.
        level: `S` index into the levels.
        gpus: `S x N` GPUs of the deployment.
        table: `S x N` its tables; -1 where a type is not used.
    """

    cap: IntArray
    budget: FloatArray
    load: IntArray
    level: IntArray
    gpus: IntArray
    table: IntArray


def ask(options: Options, needs: Needs) -> Asked:
    """Meet every need: the lowest level whose knapsack carries the load within the budget, then its cheapest point."""
    most = max(float(b.max()) for b in needs.budgets_usd_per_hour)
    K = len(options.level_s)
    frontiers = [options.frontiers(needs.caps, k, most) for k in range(K)]
    rows: list[tuple[int, float, int, int]] = []
    picks = []
    for v, budgets in enumerate(needs.budgets_usd_per_hour):
        value = np.stack([frontiers[k][v].value[frontiers[k][v].within(budgets)] for k in range(K)])
        for i, load in enumerate(needs.loads_per_s):
            enough = value >= load * (1 - 1e-9)
            for o in np.flatnonzero(enough.any(axis=0)):
                k = int(enough[:, o].argmax())
                rows.append((v, float(budgets[o]), i, k))
                picks.append(frontiers[k][v].picks[frontiers[k][v].cheapest(load)])
    gpus = np.array(picks, dtype=np.int64).reshape(len(rows), len(options.usd_per_hour))
    group, load, level = (np.array([row[i] for row in rows], dtype=np.int64) for i in (0, 2, 3))
    table = np.stack([t[level, gpus[:, n]] for n, t in enumerate(options.table)], axis=1)
    return Asked(
        cap=needs.caps[group],
        budget=np.array([row[1] for row in rows], dtype=np.float64),
        load=load,
        level=level,
        gpus=gpus,
        table=table,
    )
