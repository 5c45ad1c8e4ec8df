"""The Zero router where requests fail under load: mixing at random, simulated in the same world at the same cost.

Where requests only wait, quality and cost are those recorded and `toolkit.zero_router` is exact. Where they are refused
or fail, what a random mixture is worth depends on the load it puts on each station, so it has to be simulated too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.world import World
from toolkit.certify.intervals import DIFFERENCE, Interval, mean_interval
from toolkit.evaluation.contention import PerQuery, run, without_router
from toolkit.zero_router import ZeroRouter, zero_router_of

_DRAWS = 8
_HALVINGS = 16


@dataclass(frozen=True, kw_only=True)
class ZeroUnderLoad:
    """Mixing at random in one world, at the mean cost of a policy.

    Attributes:
        quality: Mean over the queries.
        difference: The policy's quality minus it, paired.
    """

    quality: float
    difference: Interval


def zero_under_load(
    table: OutcomeTable, world: World, quality: FloatArray, cost_usd: float, rng: np.random.Generator
) -> ZeroUnderLoad:
    """The mixture of the uncontended hull whose simulated cost is nearest to that of the policy, by bisection.

    Args:
        table: The outcomes as recorded.
        world: Where the policy was simulated; the mixture needs no router there.
        quality: `N` qualities of the policy under load.
        cost_usd: Its mean cost under load.
        rng: Source of the mixing, 8 draws with common random numbers.
    """
    bare, hull, free = table.bare, zero_router_of(table), without_router(world)
    uniform = rng.random((_DRAWS, table.n_queries))
    low, high = float(hull.cost_usd[0]), float(hull.cost_usd[-1])
    found = _mixed(bare, free, hull, high, uniform)
    if found.cost_usd.mean() > cost_usd:
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            found = _mixed(bare, free, hull, middle, uniform)
            low, high = (middle, high) if found.cost_usd.mean() < cost_usd else (low, middle)
    zero = found.quality.mean(axis=0)
    difference = mean_interval(quality - zero, table.cluster_code, bounds=DIFFERENCE)
    return ZeroUnderLoad(quality=float(zero.mean()), difference=difference)


def _mixed(table: OutcomeTable, world: World, hull: ZeroRouter, cost_usd: float, uniform: FloatArray) -> PerQuery:
    share, _ = hull.mixture_at(cost_usd)
    members: IntArray = np.asarray(hull.tier)
    assignment = members[np.minimum(np.searchsorted(np.cumsum(share), uniform, side="right"), len(members) - 1)]
    chosen = assignment.astype(np.int8)
    return PerQuery(world, table, chosen, run(world, table, chosen))
