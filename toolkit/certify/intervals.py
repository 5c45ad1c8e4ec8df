"""Intervals for means over queries, paired where policies are compared; repeats of a prompt count as one draw."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from toolkit.zero_router import zero_router_of

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and its two-sided interval.

    Attributes:
        mean: The estimate.
        low: Lower end; NaN where fewer than two queries leave no interval.
        high: Upper end.
    """

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`gain` or `loss` if zero is outside, else `no evidence`."""
        if self.low > 0:
            return "gain"
        return "loss" if self.high < 0 else "no evidence"

    def as_dict(self) -> dict[str, float | None]:
        """JSON form; NaN becomes null."""
        return {name: (value if np.isfinite(value) else None) for name, value in asdict(self).items()}


def mean_interval(values: FloatArray, group: IntArray | None = None, confidence: float = CONFIDENCE) -> Interval:
    """Student interval of a mean over queries, robust to repeats of a prompt.

    Args:
        values: `N`.
        group: `N` codes of queries that are not independent of each other, such as repeats of one prompt; None if all
            are. With G groups the standard error is that of the sum of their deviations, with G - 1 degrees of freedom.
        confidence: Level.
    """
    mean, n = float(values.mean()), len(values)
    deviation = values - mean
    if group is not None:
        _, code = np.unique(group, return_inverse=True)
        deviation = np.bincount(code, weights=deviation).astype(np.float64)
    g = len(deviation)
    if g < 2:
        return Interval(mean=mean, low=np.nan, high=np.nan)
    error = np.sqrt(g / (g - 1) * (deviation**2).sum()) / n
    half = float(stats.t.ppf((1 + confidence) / 2, g - 1) * error)
    return Interval(mean=mean, low=mean - half, high=mean + half)


def zero_difference(table: OutcomeTable, tier: IntArray) -> Interval:
    """Quality of a policy minus the Zero router's at equal cost, with its interval.

    The mixture that costs as much as the policy depends on the policy's own mean cost, so a query moves the
    difference through its quality *and*, times the hull's slope, through its cost: the interval is that of the mean
    of these influences (delta method).

    Args:
        table: The outcomes.
        tier: `N` chosen tiers.
    """
    rows = np.arange(table.n_queries)
    quality, cost = table.quality[rows, tier], table.cost_usd[rows, tier]
    hull = zero_router_of(table)
    share, slope = hull.mixture_at(float(cost.mean()))
    members = list(hull.tier)
    extra_cost = cost - table.cost_usd[:, members] @ share
    return mean_interval(quality - table.quality[:, members] @ share - slope * extra_cost, table.prompt_code)


def rank_correlation(a: FloatArray, b: FloatArray) -> Interval:
    """Spearman's rank correlation with Fisher's interval (variance as in Bonett and Wright, 2000)."""
    n = len(a)
    if n < 10 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Interval(mean=0.0, low=-1.0, high=1.0)
    rho = float(stats.spearmanr(a, b).statistic)
    half = stats.norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt((1 + rho**2 / 2) / (n - 3))
    centre = np.arctanh(np.clip(rho, -0.999999, 0.999999))
    return Interval(mean=rho, low=float(np.tanh(centre - half)), high=float(np.tanh(centre + half)))
