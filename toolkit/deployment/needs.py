"""What a tier may be asked for, and what meets it best.

For a GPU type and a number of its GPUs the best homogeneous deployment within a latency level is the (TP, PP) whose
replicas carry most; the knapsack joins types. Every *need* (GPUs left over, budget, load) asks for the deployment of
lowest latency. The paper's needs are a grid of budgets and loads with all GPUs at hand [Boute2026]_. Tiers compete for
the same GPUs, so needs with half or none of a type are asked too, and with what another tier leaves over (`caps`).

Notation: M tiers, N GPU types, d_n GPUs of type n, T tables, K latency levels, V groups of needs, S needs.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from simulators.deployment.specs import FleetSpec
from simulators.errors import ConfigError, InputDataError
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
            combinations would be more than 81; `response`: also with what each of the first candidates of another
            tier leaves, found by `lattice`.
        responses: How many of another tier's candidates are answered.
        budgets: Budgets asked for, evenly up to the whole.
        loads: Loads asked for, evenly up to the whole rate or to what the tier can carry with all GPUs, and a tenth and
            a half of the first.
        levels: K.
        most: C at most, the empty one not counted.
        load_points: L of a candidate's table.
        load_split: How requests are split over unequal replicas.
    """

    method: Method = "pareto_knapsack"
    caps: Literal["none", "lattice", "response"] = "response"
    responses: int = 40
    budgets: int = 15
    loads: int = 20
    levels: int = 64
    most: int = 300
    load_points: int = 24
    load_split: LoadSplit = "waterfill"

    def __post_init__(self) -> None:
        sizes = min(self.budgets, self.loads, self.levels - 1, self.most, self.load_points)
        if self.method not in get_args(Method) or self.caps not in {"none", "lattice", "response"} or sizes < 1:
            raise ConfigError(
                f"candidates need method {get_args(Method)}, caps none, lattice or response, sizes >= 1; got {self}"
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
        """`C x loads` logarithms of the level at which a load is carried; infinite where none is high enough.

        Args:
            table, replicas: `C x N`, deployments.
            loads_per_s: Loads.
        """
        carries, log = np.einsum("cn,cnk->ck", replicas, self.carries[table]), np.log(self.level_s)
        enough = carries[:, :, None] >= loads_per_s * (1 - 1e-9)
        high = enough.argmax(axis=1)
        low = np.maximum(high - 1, 0)
        rows = np.arange(len(carries))[:, None]
        rise = carries[rows, high] - carries[rows, low]
        share = np.where(high > 0, (loads_per_s - carries[rows, low]) / np.where(rise > 0, rise, 1.0), 1.0)
        found = log[low] + np.clip(share, 0.0, 1.0) * (log[high] - log[low])
        return np.asarray(np.where(enough.any(axis=1), found, np.inf))


def make_options(fleet: FleetSpec, tables: tuple[ReplicaTable, ...], levels: int) -> Options:
    """Tabulate what every type can do within each level.

    Args:
        fleet: GPU types.
        tables: T replicas of the tier.
        levels: K.

    Raises:
        InputDataError: If no table has a finite quantile.
    """
    finite = np.concatenate([table.p95_s[np.isfinite(table.p95_s)] for table in tables])
    if not len(finite):
        raise InputDataError("no replica serves enough requests to have a p95: they are too long for every GPU type")
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


def make_needs(fleet: FleetSpec, recipe: CandidateRecipe, options: Options) -> Needs:
    """The needs of a recipe, but for what another tier leaves over."""
    counts = np.array([gpu.count for gpu in fleet.gpus.values()], dtype=np.int64)
    prices = np.array([gpu.usd_per_hour for gpu in fleet.gpus.values()])
    budget, tiers = fleet.budget_usd_per_hour, len(fleet.models)
    grid = _budgets(fleet, recipe)
    single = np.diag(counts)
    stairs = [np.minimum(price * np.arange(1, d + 1), budget) for price, d in zip(prices, counts, strict=True) if d]
    single = single[counts > 0]
    if recipe.method == "uniform":
        caps, budgets = (counts // tiers)[None, :], [np.array([budget / tiers])]
    elif recipe.method == "homogeneous":
        caps, budgets = single, stairs
    else:
        mixed = counts[None, :] if recipe.caps == "none" else cap_lattice(counts)
        caps, budgets = np.concatenate([mixed, single]), [*([grid] * len(mixed)), *stairs]
    return Needs(
        caps=caps, budgets_usd_per_hour=tuple(map(np.unique, budgets)), loads_per_s=_loads(fleet, recipe, options)
    )


def leftover_needs(fleet: FleetSpec, recipe: CandidateRecipe, options: Options, taken: IntArray) -> Needs:
    """What is left of GPUs and money where other tiers take `A x N` GPUs, each row a group of its own.

    The money is what is left of each budget of the grid: a search may be asked to spend less than the whole.
    """
    counts = np.array([gpu.count for gpu in fleet.gpus.values()], dtype=np.int64)
    prices = np.array([gpu.usd_per_hour for gpu in fleet.gpus.values()])
    rows = np.unique(taken, axis=0)
    rows = rows[((rows <= counts).all(axis=1)) & (rows @ prices < fleet.budget_usd_per_hour)]
    spent = rows @ prices
    money = tuple(left[left > 0] for left in _budgets(fleet, recipe) - spent[:, None])
    return Needs(caps=counts - rows, budgets_usd_per_hour=money, loads_per_s=_loads(fleet, recipe, options))


def _budgets(fleet: FleetSpec, recipe: CandidateRecipe) -> FloatArray:
    return np.asarray(fleet.budget_usd_per_hour * np.arange(1, recipe.budgets + 1) / recipe.budgets)


def _loads(fleet: FleetSpec, recipe: CandidateRecipe, options: Options) -> FloatArray:
    """Loads asked for, none where nothing can be carried; the first two are those of a tier that gets little."""
    counts = np.array([[gpu.count for gpu in fleet.gpus.values()]], dtype=np.int64)
    top = options.frontiers(counts, len(options.level_s) - 1, fleet.budget_usd_per_hour)[0].value[-1]
    shares = np.append([0.1, 0.5], np.arange(1, recipe.loads + 1)) / recipe.loads
    return np.asarray(min(fleet.rate_per_s, float(top)) * shares) if top > 0 else np.zeros(0)


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
    """S needs that can be met, and A different deployments that meet them best.

    Attributes:
        cap: `S x N`.
        budget: `S`.
        load: `S` index into the loads.
        own: `S x 2` answers to each need.
        table: `A x N` tables of the answers; -1 where a type is not used.
        gpus: `A x N` their GPUs.
    """

    cap: IntArray
    budget: FloatArray
    load: IntArray
    own: IntArray
    table: IntArray
    gpus: IntArray


def ask(options: Options, needs: Needs) -> Asked:
    """Meet every need at the lowest level that carries its load within its budget.

    It has two answers there: what carries most, and what is cheapest. Needs that nothing meets are left out.
    """
    N = len(options.usd_per_hour)
    most = max(float(b.max()) for b in needs.budgets_usd_per_hour)
    by_level = [options.frontiers(needs.caps, k, most) for k in range(len(options.level_s))]
    rows: list[tuple[int, int, float]] = []
    found: list[IntArray] = []
    for v, budgets in enumerate(needs.budgets_usd_per_hour):
        frontiers = [of[v] for of in by_level]
        within = np.stack([frontier.within(budgets) for frontier in frontiers])  # K x budgets
        value = np.stack([frontier.value[w] for frontier, w in zip(frontiers, within, strict=True)])
        for i, load in enumerate(needs.loads_per_s):
            enough = value >= load * (1 - 1e-9)
            for o in np.flatnonzero(enough.any(axis=0)):
                k = int(enough[:, o].argmax())
                rows.append((v, i, float(budgets[o])))
                for point in (within[k, o], frontiers[k].cheapest(load)):
                    gpus = frontiers[k].picks[point]
                    found.append(np.concatenate([[t[k, g] for t, g in zip(options.table, gpus, strict=True)], gpus]))
    both = np.array(found, dtype=np.int64).reshape(-1, 2 * N)
    answers, own = np.unique(both, axis=0, return_inverse=True)
    group, load_index = (np.array([row[i] for row in rows], dtype=np.int64) for i in (0, 1))
    return Asked(
        cap=needs.caps[group],
        budget=np.array([row[2] for row in rows], dtype=np.float64),
        load=load_index,
        own=own.reshape(-1, 2),
        table=answers[:, :N],
        gpus=answers[:, N:],
    )


def both(first: Asked, second: Asked) -> Asked:
    """The needs of both, and their answers; answers of both count twice."""
    return Asked(
        cap=np.concatenate([first.cap, second.cap]),
        budget=np.concatenate([first.budget, second.budget]),
        load=np.concatenate([first.load, second.load]),
        own=np.concatenate([first.own, second.own + len(first.gpus)]),
        table=np.concatenate([first.table, second.table]),
        gpus=np.concatenate([first.gpus, second.gpus]),
    )
