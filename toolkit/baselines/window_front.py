r"""Is a rule beyond the static front? It is held against time-shared static points of the same cost and quality.

Notation: n static points, S seeds; A attainment, C cost in USD per request, Q quality. Static points may be shared over
time with weights w. At a cost c and a quality q

$$A^*(c, q) = \max_{w \ge 0}\; w^\top A \quad \text{s.t.} \quad w^\top C \le c,\; w^\top Q \ge q,\; 1^\top w = 1,$$

with the means over seeds; $y_c$ and $y_q$ are what a unit of cost and of quality is worth there. With c and q those of
a rule, its advantage on seed s is $A_s - w^\top A_s - y_c (C_s - w^\top C_s) + y_q (Q_s - w^\top Q_s)$: the mean is the
distance to the front, the spread that of paired differences. Where q is a floor that the rule exceeds, the last term
goes, and the rule gets nothing for its better quality. The weights are the best ones in hindsight, on the very
seeds of the comparison, which favours the static front.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from simulators.outcomes import FloatArray
from toolkit.baselines.windows import Service


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A time-sharing of static points.

    Attributes:
        weight: `n`.
        attainment, cost_usd: Means of the mixture.
        usd_value: Attainment per USD per request there, `y_c >= 0`.
        quality_value: Attainment per unit of quality there, `y_q >= 0`.
    """

    weight: FloatArray
    attainment: float
    cost_usd: float
    usd_value: float
    quality_value: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean of S paired differences with Student's 95 % interval; NaN where there is none."""

    mean: float
    low: float
    high: float

    @property
    def beyond(self) -> bool:
        """Whether it is shown to be above 0."""
        return self.low > 0


def shared(static: Service, *, cost_usd: float, quality: float) -> Mixture | None:
    """The best attainment of static points shared over time; None where no mixture costs so little at that quality."""
    found = _mix(-static.attainment, [(static.cost_usd, cost_usd), (-static.quality, -quality)])
    if found is None:
        return None
    weight, (cost_value, quality_value) = found
    return Mixture(
        weight=weight,
        attainment=float(weight @ static.attainment),
        cost_usd=float(weight @ static.cost_usd),
        usd_value=cost_value,
        quality_value=quality_value,
    )


def cheapest_share(static: Service, *, attainment: float, quality: float) -> Mixture | None:
    """The cheapest mixture that attains as much; None where none does."""
    found = _mix(static.cost_usd, [(-static.attainment, -attainment), (-static.quality, -quality)])
    if found is None:
        return None
    weight, _ = found
    return Mixture(
        weight=weight,
        attainment=float(weight @ static.attainment),
        cost_usd=float(weight @ static.cost_usd),
        usd_value=math.nan,
        quality_value=math.nan,
    )


def _mix(value: FloatArray, limits: list[tuple[FloatArray, float]]) -> tuple[FloatArray, tuple[float, ...]] | None:
    """Weights of least `value`, and what each limit is worth; every row is scaled to about 1 for the solver."""
    scale = [float(np.abs(row).max()) or 1.0 for row, _ in limits]
    size = float(np.abs(value).max()) or 1.0
    found = optimize.linprog(
        value / size,
        A_ub=np.array([row / s for (row, _), s in zip(limits, scale, strict=True)]),
        b_ub=np.array([limit / s for (_, limit), s in zip(limits, scale, strict=True)]),
        A_eq=np.ones((1, len(value))),
        b_eq=np.ones(1),
        method="highs",
    )
    if not found.success:
        return None
    worth = tuple(float(-m * size / s) for m, s in zip(found.ineqlin.marginals, scale, strict=True))
    return np.asarray(found.x), worth


@dataclass(frozen=True, kw_only=True)
class Advantage:
    """How far a rule lies beyond the static front, in attainment.

    Attributes:
        values: `S`, by seed.
        equal_cost: Whether the static mixture costs what the rule costs (or less, where more money buys nothing). Else
            no mixture costs so little, and the cheapest one of that quality, dearer than the rule, stands in.
    """

    values: FloatArray
    equal_cost: bool


def advantage(own: FloatArray, static: FloatArray, *, quality_floor: float | None = None) -> Advantage | None:
    """Compare a rule with the best static mixture of its cost.

    Args:
        own: `S x 3` attainment, cost and quality of the rule, by seed.
        static: `S x n x 3` of the static points, on the same seeds.
        quality_floor: Quality that is enough for the static mixture; None, or above the rule's own: the rule's own.

    Returns:
        None where no static mixture has that quality at any cost.
    """
    mean, points = own.mean(axis=0), _service(static.mean(axis=0))
    quality = float(mean[2]) if quality_floor is None else min(quality_floor, float(mean[2]))
    found, equal_cost = shared(points, cost_usd=float(mean[1]), quality=quality), True
    if found is None:
        found, equal_cost = cheapest_share(points, attainment=0.0, quality=quality), False
    if found is None:
        return None
    gap = own - np.einsum("n,snk->sk", found.weight, static)
    values = gap[:, 0]
    if equal_cost:
        usd_value, quality_value = _worth(points, own, quality, found)
        values = values - usd_value * gap[:, 1]
        if quality == mean[2]:
            values = values + quality_value * gap[:, 2]
    return Advantage(values=np.asarray(values), equal_cost=equal_cost)


def _worth(points: Service, own: FloatArray, quality: float, at: Mixture) -> tuple[float, float]:
    """What cost and quality are worth, `y_c` and `y_q`: over the half widths of the rule's own intervals.

    The slope at the point itself is no guide where the front ends in a cliff: below some cost no mixture keeps the
    quality. With one seed there are no intervals, and the slopes at the point stand in.
    """
    cost, known = interval(own[:, 1]), interval(own[:, 2])
    if math.isnan(cost.high):
        return at.usd_value, at.quality_value
    more_usd, less_quality = cost.high - cost.mean, known.mean - known.low
    dearer = shared(points, cost_usd=cost.high, quality=quality) if more_usd > 0 else None
    worse = shared(points, cost_usd=cost.mean, quality=quality - less_quality) if less_quality > 0 else None
    return (
        at.usd_value if dearer is None else (dearer.attainment - at.attainment) / more_usd,
        at.quality_value if worse is None else (worse.attainment - at.attainment) / less_quality,
    )


def cost_ratio(own: FloatArray, static: FloatArray) -> float | None:
    """Cost of a rule over that of the cheapest static mixture with its attainment and quality; None: no mixture has it.

    Args:
        own, static: As for `advantage`.
    """
    mean, points = own.mean(axis=0), _service(static.mean(axis=0))
    found = cheapest_share(points, attainment=float(mean[0]), quality=float(mean[2]))
    return None if found is None else float(mean[1]) / found.cost_usd


def interval(values: FloatArray, level: float = 0.95) -> Difference:
    """Mean of `values: S` and Student's interval; no interval with one seed."""
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return Difference(mean=mean, low=math.nan, high=math.nan)
    half = float(stats.t.ppf(0.5 + level / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
    return Difference(mean=mean, low=mean - half, high=mean + half)


def not_dominated(points: Service) -> NDArray[np.bool_]:
    """`n`: no other point attains as much for as little at as good a quality, and is better in one of the three."""
    values = np.stack([points.attainment, -points.cost_usd, points.quality], axis=1)
    at_least = (values[:, None, :] >= values[None, :, :]).all(axis=2)
    better = (values[:, None, :] > values[None, :, :]).any(axis=2)
    return np.asarray(~(at_least & better).any(axis=0))


def _service(points: FloatArray) -> Service:
    return Service(attainment=points[:, 0], cost_usd=points[:, 1], quality=points[:, 2], failed=np.zeros(len(points)))
