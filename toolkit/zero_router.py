"""What a router must beat: single tiers, and the Zero router that mixes them at random.

The Zero router [Hu2024]_ is the non-decreasing upper concave hull of the single tiers in the (cost, quality) plane:
anybody can have it without looking at a prompt. It exists for additive objectives only; a quantile of a mixture is
not a mixture of quantiles.

References:
    [Hu2024] Q. J. Hu et al., RouterBench: a benchmark for multi-LLM routing systems, arXiv 2403.12031.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.outcomes import FloatArray, OutcomeTable


@dataclass(frozen=True, kw_only=True)
class ZeroRouter:
    """The hull of the single tiers.

    Attributes:
        tier: `H` indices of the tiers on the hull, cheapest first.
        cost_usd: `H` their mean cost.
        quality: `H` their mean quality, increasing.
    """

    tier: tuple[int, ...]
    cost_usd: FloatArray
    quality: FloatArray

    def quality_at(self, cost_usd: float) -> float:
        """Quality of the best mixture at this mean cost; the cheapest tier's below its cost."""
        return float(np.interp(cost_usd, self.cost_usd, self.quality))

    def mixture_at(self, cost_usd: float) -> tuple[FloatArray, float]:
        """Share of each hull tier at this mean cost (`H`), and the local slope in quality per USD."""
        share = np.zeros(len(self.tier))
        if not self.cost_usd[0] < cost_usd < self.cost_usd[-1]:
            share[0 if cost_usd <= self.cost_usd[0] else -1] = 1.0
            return share, 0.0
        right = int(np.searchsorted(self.cost_usd, cost_usd, side="left"))
        width = self.cost_usd[right] - self.cost_usd[right - 1]
        share[right] = (cost_usd - self.cost_usd[right - 1]) / width
        share[right - 1] = 1.0 - share[right]
        return share, float((self.quality[right] - self.quality[right - 1]) / width)


def zero_router(cost_usd: FloatArray, quality: FloatArray) -> ZeroRouter:
    """Hull of K single tiers.

    Args:
        cost_usd: `K` mean costs.
        quality: `K` mean qualities.
    """
    hull: list[int] = []
    for k in np.lexsort((-quality, cost_usd)):
        if hull and quality[k] <= quality[hull[-1]]:
            continue
        while len(hull) > 1 and _slope(cost_usd, quality, hull[-2], hull[-1]) <= _slope(cost_usd, quality, hull[-1], k):
            hull.pop()
        hull.append(int(k))
    return ZeroRouter(tier=tuple(hull), cost_usd=cost_usd[hull], quality=quality[hull])


def _slope(cost: FloatArray, quality: FloatArray, a: int, b: int) -> float:
    rise = float(quality[b] - quality[a])
    run = float(cost[b] - cost[a])
    return rise / run if run > 0 else float("inf")


def zero_router_of(table: OutcomeTable) -> ZeroRouter:
    """The Zero router of a table's own mean costs and qualities; mixing at random takes no router and pays for none."""
    return zero_router(table.bare.cost_usd.mean(axis=0), table.bare.quality.mean(axis=0))
