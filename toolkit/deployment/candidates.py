"""Online phase, stage 1: which deployments a tier may get [Boute2026]_.

The candidates are the answers to all needs (`needs.py`). Where answers are too many, those stay that cost the needs
least (greedy), and candidates are in that order, after the empty one: the first few are a coarser set.

Notation: N GPU types, T tables, C candidates, L loads, B edges, S needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulators.deployment.plan import ReplicaGroup, TierPlan
from simulators.deployment.specs import FleetSpec
from simulators.outcomes import FloatArray, IntArray
from toolkit.deployment.cover import cover
from toolkit.deployment.load_split import LoadSplit, split_load
from toolkit.deployment.needs import (
    Asked,
    CandidateRecipe,
    Options,
    ask,
    both,
    leftover_needs,
    make_needs,
    make_options,
)
from toolkit.deployment.offline import OfflineRecipe, ReplicaTable, load_shares, quantile_of

_REGRET = float(np.log(4.0))
"""A need that is met four times too slowly counts like one that is not met."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Deployments of one tier; number 0 is "no GPUs".

    Attributes:
        tier: Its name.
        tables: T replicas.
        load_split: How requests are split over unequal replicas.
        table: `C x N` index into `tables`, -1 where a type is not used.
        replicas: `C x N`, 0 where a type is not used.
        gpus: `C x N` GPUs in use.
        usd_per_hour: `C` prices.
        loads_per_s: `C x L` rising loads, up to the whole rate or as far as the tables go.
        cdf: `C x L x B` latency of the tier's requests; 0 for "no GPUs".
        p95_s: `C x L` its quantile at the recipe's level.
    """

    tier: str
    tables: tuple[ReplicaTable, ...]
    load_split: LoadSplit
    table: IntArray
    replicas: IntArray
    gpus: IntArray
    usd_per_hour: FloatArray
    loads_per_s: FloatArray
    cdf: FloatArray
    p95_s: FloatArray

    def __len__(self) -> int:
        return len(self.usd_per_hour)

    def plan(self, c: int, load_per_s: float | None = None) -> TierPlan:
        """Groups of candidate c, with the split at a load; None or 0: in proportion to throughput."""
        used = np.flatnonzero(self.replicas[c])
        if not len(used):
            return ()
        tables, counts = [self.tables[t] for t in self.table[c, used]], self.replicas[c, used]
        method: LoadSplit = self.load_split if load_per_s else "capacity"
        shares = split_load(tables, counts.tolist(), np.array([load_per_s or 1.0]), method=method).shares(counts)[0]
        return tuple(
            ReplicaGroup(replica=table.replica, replicas=int(count), share=float(share))
            for table, count, share in zip(tables, counts, shares, strict=True)
        )


def make_candidates(
    fleet: FleetSpec, tables: Sequence[tuple[ReplicaTable, ...]], *, recipe: CandidateRecipe, offline: OfflineRecipe
) -> tuple[Candidates, ...]:
    """The candidate deployments of all tiers.

    Args:
        fleet: GPUs, models, rate and budget.
        tables: M sets of replicas.
        recipe: How.
        offline: How the tables were made.

    Returns:
        M sets; only "no GPUs" for a tier that nothing within the budget carries even a little of.
    """
    options = [make_options(fleet, of, recipe.levels) for of in tables]
    needs = [make_needs(fleet, recipe, option) for option in options]
    asked = [ask(option, need) for option, need in zip(options, needs, strict=True)]

    def chosen(most: int) -> list[tuple[IntArray, IntArray]]:
        each = zip(options, asked, needs, tables, strict=True)
        return [select(option, met, need.loads_per_s, of, most) for option, met, need, of in each]

    if recipe.method == "pareto_knapsack" and recipe.caps == "response":
        first = [_gpus(of, *pick) for of, pick in zip(tables, chosen(recipe.responses), strict=True)]
        for m, option in enumerate(options):
            left = leftover_needs(fleet, recipe, option, np.concatenate(first[:m] + first[m + 1 :]))
            if len(left.caps):
                asked[m] = both(asked[m], ask(option, left))
    return tuple(
        tabulate(fleet, tier, of, _with_empty(*pick), recipe=recipe, offline=offline)
        for tier, of, pick in zip(fleet.models, tables, chosen(recipe.most), strict=True)
    )


def select(
    options: Options, asked: Asked, loads_per_s: FloatArray, tables: tuple[ReplicaTable, ...], most: int
) -> tuple[IntArray, IntArray]:
    """The best answers to the needs, those that gain most first.

    Args:
        options: What every type can do.
        asked: Needs and answers.
        loads_per_s: The loads that needs point to.
        tables: T replicas.
        most: C at most.

    Returns:
        `C x N` tables and `C x N` replicas.
    """
    replicas = asked.gpus // np.array([t.replica.n_gpus for t in tables])[asked.table]
    took = options.log_latency(asked.table, replicas, loads_per_s)
    best = took[asked.own, asked.load[:, None]].min(axis=1)
    usd, unmet = asked.gpus @ options.usd_per_hour, np.full(len(best), 2.0 * _REGRET)

    def loss(c: int) -> FloatArray:
        fits = (asked.gpus[c] <= asked.cap).all(axis=1) & (usd[c] <= asked.budget * (1 + 1e-9))
        return np.where(fits, np.clip(took[c, asked.load] - best, 0.0, _REGRET), unmet)

    keep = cover(len(replicas), loss, unmet, most)
    return asked.table[keep], replicas[keep]


def _gpus(tables: tuple[ReplicaTable, ...], table: IntArray, replicas: IntArray) -> IntArray:
    return np.asarray(replicas * np.array([t.replica.n_gpus for t in tables])[table])


def _with_empty(table: IntArray, replicas: IntArray) -> tuple[IntArray, IntArray]:
    none = np.zeros((1, table.shape[1]), dtype=np.int64)
    return np.concatenate([none - 1, table]), np.concatenate([none, replicas])


def tabulate(
    fleet: FleetSpec,
    tier: str,
    tables: tuple[ReplicaTable, ...],
    deployed: tuple[IntArray, IntArray],
    *,
    recipe: CandidateRecipe,
    offline: OfflineRecipe,
) -> Candidates:
    """Latency of deployments over the tier's load.

    Args:
        fleet: GPUs and rate.
        tier: Its name.
        tables: T replicas.
        deployed: `C x N` tables (-1: none) and `C x N` replicas.
        recipe, offline: How candidates and tables were made.
    """
    table, replicas = deployed
    gpus = _gpus(tables, table, replicas)
    loads, cdf = zip(
        *[_over_load(fleet, tables, t, r, recipe, offline) for t, r in zip(*deployed, strict=True)], strict=True
    )
    return Candidates(
        tier=tier,
        tables=tables,
        load_split=recipe.load_split,
        table=table,
        replicas=replicas,
        gpus=gpus,
        usd_per_hour=gpus @ np.array([gpu.usd_per_hour for gpu in fleet.gpus.values()]),
        loads_per_s=np.stack(loads),
        cdf=np.stack(cdf),
        p95_s=quantile_of(np.stack(cdf), offline.edges_s, offline.level),
    )


def _over_load(
    fleet: FleetSpec,
    tables: tuple[ReplicaTable, ...],
    table: IntArray,
    replicas: IntArray,
    recipe: CandidateRecipe,
    offline: OfflineRecipe,
) -> tuple[FloatArray, FloatArray]:
    """`L` loads and `L x B` distributions of one deployment (`N` tables, `N` replicas)."""
    used = np.flatnonzero(replicas)
    groups, counts = [tables[t] for t in table[used]], replicas[used]
    top = min(fleet.rate_per_s, float(sum(n * g.top_per_s for n, g in zip(counts, groups, strict=True))))
    if top <= 0.0:
        return fleet.rate_per_s * load_shares(recipe.load_points, 1.0), np.zeros((recipe.load_points, offline.edges))
    capacity = float(sum(n * g.capacity_per_s for n, g in zip(counts, groups, strict=True)))
    loads = capacity * load_shares(recipe.load_points, top / capacity)
    split = split_load(groups, counts.tolist(), loads, method=recipe.load_split)
    shares = split.shares(counts)
    each = [shares[:, g, None] * group.cdf_at(split.load_per_s[:, g]) for g, group in enumerate(groups)]
    return loads, np.sum(each, axis=0)
