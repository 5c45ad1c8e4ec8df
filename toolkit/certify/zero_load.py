"""The Zero router where requests fail under load: mixing at random, simulated in the same world at the same cost.

Where requests only wait, quality and cost are those recorded, `toolkit.zero_router` is exact and its latency alone is
simulated. Where they are refused or fail, what a mixture is worth depends on the load it puts on each station too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.world import World
from toolkit.certify.intervals import DIFFERENCE, Interval, mean_interval, zero_difference
from toolkit.evaluation.contention import PerQuery, only_waits, run, without_router
from toolkit.zero_router import zero_router_of

_DRAWS = 8
_HALVINGS = 16


@dataclass(frozen=True, kw_only=True)
class ZeroUnderLoad:
    """Mixing at random in one world, at the mean cost of a policy.

    Attributes:
        quality: Mean over the queries.
        difference: The policy's quality minus it, paired.
        latency_p95_s: Over the answered requests; its own waits, not the policy's.
    """

    quality: float
    difference: Interval
    latency_p95_s: float


def zero_under_load(
    table: OutcomeTable, world: World, loaded: OutcomeTable, tier: IntArray, rng: np.random.Generator
) -> ZeroUnderLoad:
    """The mixture of the uncontended hull that costs as much as the policy; it needs no router.

    Where requests fail, the mixture is the one whose simulated cost is nearest, by bisection.

    Args:
        table: The outcomes as recorded.
        world: Where the policy was simulated.
        loaded: What `toolkit.evaluation.contention.under_load` made of the table.
        tier: `N` tiers of the policy.
        rng: Source of the mixing, 8 draws with common random numbers.
    """
    rows = np.arange(table.n_queries)
    cost_usd = float(loaded.cost_usd[rows, tier].mean())
    mixing = _Mixing(table.bare, without_router(world), rng.random((_DRAWS, table.n_queries)))
    if only_waits(world):
        found = mixing.at(cost_usd)
        quality, difference = zero_router_of(table).quality_at(cost_usd), zero_difference(loaded, tier)
        return ZeroUnderLoad(quality=quality, difference=difference, latency_p95_s=found.latency_p95_s)
    found = _at_cost(mixing, cost_usd)
    zero = found.per_query.quality.mean(axis=0)
    difference = mean_interval(loaded.quality[rows, tier] - zero, table.cluster_code, bounds=DIFFERENCE)
    return ZeroUnderLoad(quality=float(zero.mean()), difference=difference, latency_p95_s=found.latency_p95_s)


@dataclass(frozen=True, kw_only=True)
class _Mixed:
    per_query: PerQuery
    latency_p95_s: float


class _Mixing:
    def __init__(self, table: OutcomeTable, world: World, uniform: FloatArray) -> None:
        self._table, self._world, self._uniform = table, world, uniform
        self.hull = zero_router_of(table)

    def at(self, cost_usd: float) -> _Mixed:
        """The mixture of this uncontended mean cost, simulated."""
        share, _ = self.hull.mixture_at(cost_usd)
        members: IntArray = np.asarray(self.hull.tier)
        place = np.searchsorted(np.cumsum(share), self._uniform, side="right")
        assignment = members[np.minimum(place, len(members) - 1)].astype(np.int8)
        journeys = run(self._world, self._table, assignment)
        counted = self._world.counted
        late = journeys.e2e_s[:, counted][journeys.served[:, counted] >= 0]
        return _Mixed(
            per_query=PerQuery(self._world, self._table, assignment, journeys),
            latency_p95_s=float(np.quantile(late, 0.95)) if len(late) else np.nan,
        )


def _at_cost(mixing: _Mixing, cost_usd: float) -> _Mixed:
    low, high = float(mixing.hull.cost_usd[0]), float(mixing.hull.cost_usd[-1])
    found = mixing.at(high)
    if found.per_query.cost_usd.mean() <= cost_usd:
        return found
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found = mixing.at(middle)
        low, high = (middle, high) if found.per_query.cost_usd.mean() < cost_usd else (low, middle)
    return found
