"""Multiple-choice knapsack: at most one option per GPU type, most throughput for the money [Boute2026]_.

Within a latency level every option has a throughput, so "lowest latency within a budget" becomes "most throughput
within a budget" at one level after the other. Merging the types one by one and dropping what is dear and slow at once
is exact, and gives the answer for all budgets together.

Notation: N types, P_n options of type n (option 0 is "none of it"), F points of a frontier.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.outcomes import FloatArray, IntArray

_SLACK = 1e-9


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """Non-dominated sums of options, cheapest first.

    Attributes:
        cost: `F` rising.
        value: `F` rising.
        picks: `F x n` option of each type merged so far.
    """

    cost: FloatArray
    value: FloatArray
    picks: IntArray

    def within(self, budget: FloatArray) -> IntArray:
        """Point of most value (same shape as `budget`) that costs at most that; -1 where even the first costs more."""
        return np.asarray(np.searchsorted(self.cost, budget * (1 + _SLACK) + _SLACK, "right") - 1)

    def cheapest(self, value: float) -> int:
        """First point of at least that value."""
        return int(np.searchsorted(self.value, value * (1 - _SLACK), "left"))


NOTHING = Frontier(cost=np.zeros(1), value=np.zeros(1), picks=np.zeros((1, 0), dtype=np.int64))
"""The frontier before any type is merged."""


def merge(frontier: Frontier, cost: FloatArray, value: FloatArray, budget: float) -> Frontier:
    """Add one type.

    Args:
        frontier: Types merged so far.
        cost, value: `P` of the type's options, none (0, 0) included.
        budget: Most that a point may cost.
    """
    costs = (frontier.cost[:, None] + cost).ravel()
    values = (frontier.value[:, None] + value).ravel()
    order = np.lexsort((-values, costs))
    order = order[costs[order] <= budget * (1 + _SLACK) + _SLACK]
    best = np.maximum.accumulate(values[order])
    better = np.append(True, best[1:] > best[:-1] * (1 + _SLACK))
    keep = order[better]
    before, option = np.divmod(keep, len(cost))
    return Frontier(
        cost=costs[keep], value=values[keep], picks=np.column_stack([frontier.picks[before], option]).astype(np.int64)
    )
