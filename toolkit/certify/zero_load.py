"""The Zero router where requests fail under load: mixing at random, simulated in the same world at the same cost.

Where requests only wait, quality and cost are those recorded, `toolkit.zero_router` is exact and its latency alone is
simulated. Where they are refused or fail, what a mixture is worth depends on the load it puts on each station too.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.world import World
from toolkit.certify.intervals import DIFFERENCE, Interval, mean_interval, zero_difference
from toolkit.evaluation.contention import PerQuery, only_waits, run, without_router
from toolkit.zero_router import zero_router, zero_router_of

_DRAWS = 4
_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class ZeroUnderLoad:
    """Mixing at random in one world, for no more than the mean cost of a policy.

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
    """What mixing at random gives at the cost of the policy; it needs no router.

    Where requests only wait that is the hull of the single tiers. Where they fail, what a mixture gives depends on the
    load it makes, so all pairs of tiers in steps of a tenth are simulated, and the hull is that of these mixtures.

    Args:
        table: The outcomes as recorded.
        world: Where the policy was simulated.
        loaded: What `toolkit.evaluation.contention.under_load` made of the table.
        tier: `N` tiers of the policy.
        rng: Source of the mixing, the same draws for all mixtures.
    """
    rows = np.arange(table.n_queries)
    cost_usd = float(loaded.cost_usd[rows, tier].mean())
    mixing = _Mixing(table.bare, without_router(world), rng.random((_DRAWS, table.n_queries)))
    if only_waits(world):
        share = np.zeros(table.n_tiers)
        hull = zero_router_of(table)
        share[list(hull.tier)] = hull.mixture_at(cost_usd)[0]
        quality, difference = hull.quality_at(cost_usd), zero_difference(loaded, tier)
        return ZeroUnderLoad(quality=quality, difference=difference, latency_p95_s=mixing.of(share).latency_p95_s)
    found = _at_cost(mixing, table.n_tiers, cost_usd)
    difference = mean_interval(loaded.quality[rows, tier] - found.quality, table.cluster_code, bounds=DIFFERENCE)
    return ZeroUnderLoad(quality=float(found.quality.mean()), difference=difference, latency_p95_s=found.latency_p95_s)


@dataclass(frozen=True, kw_only=True)
class _Mixed:
    quality: FloatArray  # N, mean over the draws
    cost_usd: float
    latency_p95_s: float


class _Mixing:
    def __init__(self, table: OutcomeTable, world: World, uniform: FloatArray) -> None:
        self._table, self._world, self._uniform = table, world, uniform

    def of(self, share: FloatArray) -> _Mixed:
        """The mixture with these shares of the tiers (`K`), simulated."""
        place = np.searchsorted(np.cumsum(share), self._uniform, side="right")
        last = int(np.flatnonzero(share > 0)[-1])  # rounding may leave the sum below 1
        assignment = np.minimum(place, last).astype(np.int8)
        journeys = run(self._world, self._table, assignment)
        per_query = PerQuery(self._world, self._table, assignment, journeys)
        counted = self._world.counted
        late = journeys.e2e_s[:, counted][journeys.served[:, counted] >= 0]
        return _Mixed(
            quality=per_query.quality.mean(axis=0),
            cost_usd=float(per_query.cost_usd.mean()),
            latency_p95_s=float(np.quantile(late, 0.95)) if len(late) else np.nan,
        )


def _mixtures(k: int) -> list[FloatArray]:
    """Shares of the single tiers, and of all pairs in steps of a tenth."""
    alone = list(np.eye(k))
    steps = np.arange(1, _STEPS) / _STEPS
    return alone + [w * alone[i] + (1 - w) * alone[j] for i, j in itertools.combinations(range(k), 2) for w in steps]


def _at_cost(mixing: _Mixing, k: int, cost_usd: float) -> _Mixed:
    """The hull of the simulated mixtures at this cost, and the latency of the mixture with the same shares."""
    shares = _mixtures(k)
    mixed = [mixing.of(share) for share in shares]
    hull = zero_router(np.array([m.cost_usd for m in mixed]), np.array([m.quality.mean() for m in mixed]))
    weight, _ = hull.mixture_at(cost_usd)
    quality = np.sum([w * mixed[i].quality for w, i in zip(weight, hull.tier, strict=True)], axis=0)
    share = np.sum([w * shares[i] for w, i in zip(weight, hull.tier, strict=True)], axis=0)
    return _Mixed(quality=quality, cost_usd=cost_usd, latency_p95_s=mixing.of(share).latency_p95_s)
