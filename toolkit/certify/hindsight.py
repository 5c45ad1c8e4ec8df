"""The best that could have been done at a mean cost: per cell of queries, and within a class of policies.

Hindsight sees the answers that it chooses among, so what it finds bounds a router from above and is not to be had.

Notation: N queries, K tiers, C cells (queries that are routed alike; single queries for the oracle), B boundaries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from toolkit.evaluation.metrics import Metric
from toolkit.evaluation.path import LambdaPath
from toolkit.evaluation.slices import coverage
from toolkit.evaluation.thresholds import ScoreOrder
from toolkit.families.base import Family
from toolkit.families.thresholds import ThresholdFamily
from toolkit.families.utility import UtilityFamily
from toolkit.policies.lanes import FREE, Lanes
from toolkit.problem import RoutingProblem
from toolkit.scorers.base import ScoreTable
from toolkit.search.exact import ExactController

GRID = 5_000
"""Most threshold vectors of an enumeration; supported vectors over all boundaries come on top."""
_MOST_STEPS = 60
_SAME = 1e-9


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best assignment of cells to tiers.

    Attributes:
        quality: Mean over the N queries.
        share: `C x K` share of each cell that goes to each tier; only one cell is divided.
    """

    quality: float
    share: FloatArray


def best_at_cost(
    quality: FloatArray, cost_usd: FloatArray, cell: IntArray, budget_usd: float | None, slack: float = _SAME
) -> Best:
    """The best distribution over tiers for each cell such that the mean cost is at most a budget.

    The linear programme's exact solution: the optimum for a price λ of cost, walked along λ until the budget holds,
    with the last cell to move divided between its two tiers.

    Args:
        quality: `N x K`.
        cost_usd: `N x K`; not looked at without a budget.
        cell: `N` codes `0 .. C-1`.
        budget_usd: Mean USD per query, or None for none. Below the cheapest possible cost it counts as that.
        slack: Relative tolerance of the budget.
    """
    n, n_cells = len(cell), int(cell.max()) + 1
    gain = _cell_sums(quality, cell, n_cells)
    if budget_usd is None:
        share = np.zeros_like(gain)
        share[np.arange(n_cells), gain.argmax(axis=1)] = 1.0
        return Best(quality=float(gain.max(axis=1).sum()) / n, share=share)
    price = _cell_sums(cost_usd, cell, n_cells)
    path = LambdaPath(
        ScoreTable(score=np.zeros(n_cells), quality=gain, cost_usd=price), Lanes(fallback_tier=0, low_confidence_tier=0)
    )
    rows, at, start, end = np.arange(n_cells), path.event_query, path.event_from, path.event_to
    change = price[at, end] - price[at, start]
    cost = price[rows, path.first_tier].sum() + np.concatenate([[0.0], np.cumsum(change)])
    within = np.flatnonzero(cost <= n * budget_usd * (1 + slack))
    n_moves = int(within[0]) if len(within) else len(change)
    tier = path.first_tier.copy()
    for i in range(n_moves):
        tier[at[i]] = end[i]
    share = np.zeros_like(gain)
    share[rows, tier] = 1.0
    if n_moves and len(within):
        i = n_moves - 1
        stay = float(np.clip((n * budget_usd - cost[i + 1]) / (cost[i] - cost[i + 1]), 0.0, 1.0))
        share[at[i], start[i]], share[at[i], end[i]] = stay, 1.0 - stay
    return Best(quality=float((share * gain).sum()) / n, share=share)


def _cell_sums(values: FloatArray, cell: IntArray, n_cells: int) -> FloatArray:
    return np.stack([np.bincount(cell, weights=column, minlength=n_cells) for column in values.T], axis=1)


class SupportedThresholds:
    """The best threshold vectors for a price of cost, over all boundaries, whatever K.

    With `V(j, k)` the value of tiers `0 .. k` on the first j queries, `V(j, k) = max_{i <= j} V(i, k-1) + v_k(i .. j)`.

    Args:
        table: The outcomes; costs count as 0 where they are unknown.
        order: The sorted scores of the same queries.
    """

    def __init__(self, table: OutcomeTable, order: ScoreOrder) -> None:
        self._boundaries = order.boundaries
        self._quality = _prefix_sums(table.quality, order)
        cost = table.cost_usd if table.has_cost else np.zeros_like(table.quality)
        self._cost = _prefix_sums(cost, order)
        pinned = np.flatnonzero(order.pinned_tier != FREE)
        self._pinned_cost = float(cost[pinned, order.pinned_tier[pinned]].sum())
        self._n = table.n_queries

    def best(self, slope: float) -> FloatArray:
        """`K-1` thresholds of the largest mean quality minus `slope` (quality per USD) times mean cost."""
        return self._boundaries[self._best(1.0, slope)]

    def _best(self, worth: float, slope: float) -> IntArray:
        value = worth * self._quality - slope * self._cost
        best, chosen = value[:, 0], []
        for k in range(1, value.shape[1]):
            gain = best - value[:, k]
            running = np.maximum.accumulate(gain)
            chosen.append(np.maximum.accumulate(np.where(gain >= running, np.arange(len(gain)), 0)))
            best = running + value[:, k]
        found, at = [], len(value) - 1
        for source in reversed(chosen):
            at = int(source[at])
            found.append(at)
        return np.array(found[::-1], dtype=np.int64)

    def around(self, budget_usd: float) -> FloatArray:
        """`n x (K-1)` vectors on the concave hull of (cost, quality), closing in on a mean cost from both sides."""
        dear, cheap = self._best(1.0, 0.0), self._best(0.0, 1.0)
        found = [dear, cheap]
        for _ in range(_MOST_STEPS):
            (q1, c1), (q0, c0) = self._totals(dear), self._totals(cheap)
            if c1 <= budget_usd * self._n or c1 <= c0 or q1 <= q0:
                break
            slope = (q1 - q0) / (c1 - c0)
            middle = self._best(1.0, slope)
            q, c = self._totals(middle)
            if q - slope * c <= q1 - slope * c1 + _SAME:
                break
            found.append(middle)
            dear, cheap = (dear, middle) if c <= budget_usd * self._n else (middle, cheap)
        return self._boundaries[np.unique(np.array(found), axis=0)]

    def _totals(self, cut: IntArray) -> tuple[float, float]:
        """Sum of quality over the free queries, and of cost over all."""
        edges = np.concatenate([[0], cut, [len(self._boundaries) - 1]])
        k = np.arange(len(edges) - 1)
        quality = (self._quality[edges[1:], k] - self._quality[edges[:-1], k]).sum()
        cost = (self._cost[edges[1:], k] - self._cost[edges[:-1], k]).sum()
        return float(quality), float(cost) + self._pinned_cost


def _prefix_sums(values: FloatArray, order: ScoreOrder) -> FloatArray:
    """`B x K` sums over the free queries below each boundary."""
    running = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values[order.order], axis=0)])
    return np.asarray(running[order.positions])


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Policies of a class on one table.

    Attributes:
        params: `n x p`.
        quality, cost_usd: `n` means; cost is NaN where unknown.
        whole: Whether they cover the class: what a search could have found, or at least its best at each cost.
        said: What was enumerated.
    """

    params: FloatArray
    quality: FloatArray
    cost_usd: FloatArray
    whole: bool
    said: str

    def best_within(self, budget_usd: float | None) -> int:
        """Row of the highest quality at a mean cost of at most the budget; the cheapest of equals."""
        affordable = np.ones(len(self.quality), dtype=bool)
        if budget_usd is not None:
            affordable = self.cost_usd <= budget_usd * (1 + _SAME)
        rows = np.flatnonzero(affordable) if affordable.any() else np.array([int(np.argmin(self.cost_usd))])
        best = rows[self.quality[rows] >= self.quality[rows].max()]
        return int(best[0] if budget_usd is None else best[np.argmin(self.cost_usd[best])])


def class_candidates(
    table: OutcomeTable, family: Family, known: FloatArray, budget_usd: float | None, grid: int = GRID
) -> Candidates:
    """The candidates of a family on a table: those given, and the whole class where it can be enumerated.

    Args:
        table: The outcomes.
        family: Bound to scores of the same queries.
        known: `n x p` candidates that must be among them, such as those that a search evaluated.
        budget_usd: Mean cost around which to look closest; None where costs do not matter.
        grid: Most threshold vectors of the enumeration.
    """
    blocks = [known]
    if isinstance(family, ThresholdFamily):
        enumeration = ExactController(_problem(table, family), boundaries="auto", max_evaluations=grid)
        while (part := enumeration.ask()) is not None:
            blocks.append(part)
        supported = SupportedThresholds(table, family.order)
        blocks.append(supported.best(0.0)[None, :] if budget_usd is None else supported.around(budget_usd))
        said = f"{enumeration.total:,} threshold vectors spread over the traffic, and the best over all boundaries"
    elif isinstance(family, UtilityFamily):
        lambdas = family.path.lambdas
        blocks.append(np.concatenate([lambdas[:, None], np.zeros((len(lambdas), table.n_tiers - 1))], axis=1))
        said = f"every distinct policy of the λ path ({len(lambdas):,})"
    else:
        said = f"the {len(known):,} candidates that the search evaluated"
    figures = [mean_figures(table, family, block) for block in blocks]
    return Candidates(
        params=np.concatenate(blocks),
        quality=np.concatenate([quality for quality, _ in figures]),
        cost_usd=np.concatenate([cost for _, cost in figures]),
        whole=isinstance(family, ThresholdFamily | UtilityFamily),
        said=said,
    )


def mean_figures(table: OutcomeTable, family: Family, params: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean quality and mean cost (NaN where unknown) of `params: n x p`."""
    estimator = family.estimate(table, coverage(table, 2), params)
    quality = estimator.total_sums(table.quality) / table.n_queries
    if not table.has_cost:
        return quality, np.full(len(params), np.nan)
    return quality, estimator.total_sums(table.cost_usd) / table.n_queries


def _problem(table: OutcomeTable, family: Family) -> RoutingProblem:
    return RoutingProblem(
        table=table, family=family, objectives=(Metric("quality"),), constraints=(), coverage=coverage(table, 2)
    )
