"""Intervals for means over queries, paired where policies are compared; queries of one cluster count together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from toolkit.evaluation.slices import Coverage
from toolkit.statistics import MeanEstimate, estimate_mean
from toolkit.zero_router import zero_router_of

CONFIDENCE = 0.95
_ROUNDING = 1e-12
UNIT = (0.0, 1.0)
"""Range of a score or a share."""
DIFFERENCE = (-1.0, 1.0)
"""Range of a difference of two scores."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and its two-sided interval.

    Attributes:
        mean: The estimate.
        low: Lower end; NaN where fewer than two clusters leave no interval.
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


UNKNOWN = Interval(mean=np.nan, low=np.nan, high=np.nan)


def two_sided(estimate: MeanEstimate, confidence: float = CONFIDENCE) -> Interval:
    """The two-sided interval of a mean."""
    alpha = (1 - confidence) / 2
    return Interval(mean=estimate.mean, low=estimate.lower(alpha), high=estimate.upper(alpha))


def mean_interval(
    values: FloatArray,
    group: IntArray | None = None,
    confidence: float = CONFIDENCE,
    bounds: tuple[float, float] | None = None,
) -> Interval:
    """Interval of a mean over queries.

    Args:
        values: `N`.
        group: `N` codes of queries that are not independent of each other, such as repeats of one prompt.
        confidence: Level.
        bounds: `UNIT` or `DIFFERENCE` where the values cannot lie outside; see `toolkit.statistics`.
    """
    return two_sided(estimate_mean(values, group, bounds), confidence)


def worst_interval(estimates: Sequence[MeanEstimate], confidence: float = CONFIDENCE) -> Interval:
    """Interval of the smallest of S true means, corrected for the smallest having been picked.

    Low end: the smallest of the single lower bounds. It is wrong only if the bound of the truly worst mean is wrong, so
    it needs no correction for S. High end: the smallest of the single upper bounds; any of the S may be wrong, so each
    is taken at a level S times stricter (Bonferroni). The percentile bootstrap of the smallest mean has no such
    guarantee: the smallest of S noisy means lies below the smallest true mean on average.

    Args:
        estimates: S means.
        confidence: Level of the whole interval.

    Returns:
        The interval; NaN ends where some mean rests on fewer than two clusters.
    """
    if not estimates:
        return UNKNOWN
    alpha = (1 - confidence) / 2
    return Interval(
        mean=min(e.mean for e in estimates),
        low=float(np.min([e.lower(alpha) for e in estimates])),
        high=float(np.min([e.upper(alpha / len(estimates)) for e in estimates])),
    )


def quantile_interval(
    values: FloatArray, level: float, group: IntArray | None = None, confidence: float = CONFIDENCE
) -> Interval:
    """Interval of a quantile between two order statistics, without assumptions on the distribution.

    The number of values below the true quantile is binomial, so its quantiles are the ranks. Where values depend on
    each other within groups, the binomial is that of the effective number of values: n over the variance inflation of
    the share below the estimated quantile.

    Args:
        values: `N`.
        level: In (0, 1).
        group: `N` codes, or None if all values are independent.
        confidence: Level; the true coverage is at least that for independent values.

    Returns:
        The quantile; an end is infinite where N is too small to bound it, NaN with fewer than two groups.
    """
    ordered, n = np.sort(values), len(values)
    middle = float(np.quantile(ordered, level))
    effective = float(n) if group is None else _effective_size(values <= middle, group)
    if not np.isfinite(effective) or effective < 2:
        return Interval(mean=middle, low=np.nan, high=np.nan)
    alpha, size = (1 - confidence) / 2, max(2, round(effective))
    below = int(stats.binom.ppf(alpha, size, level))
    above = int(stats.binom.isf(alpha, size, level)) + 1
    scale = n / size
    low_rank, high_rank = int(np.floor(below * scale)), int(np.ceil(above * scale))
    return Interval(
        mean=middle,
        low=float(ordered[low_rank - 1]) if low_rank >= 1 else -np.inf,
        high=float(ordered[high_rank - 1]) if high_rank <= n else np.inf,
    )


def _effective_size(indicator: np.ndarray, group: IntArray) -> float:
    """Independent values that would give a share the same variance."""
    values = indicator.astype(np.float64)
    variance = float(values.var())
    _, code = np.unique(group, return_inverse=True)
    g = int(code.max()) + 1
    if g < 2 or variance == 0:
        return float(g) if g > 1 else np.nan
    sums, n = np.bincount(code, weights=values - values.mean()), len(values)
    inflation = g / (g - 1) * float((sums**2).sum()) / (n / (n - 1) * n * variance)
    return n / max(inflation, 1.0)


def group_estimates(
    table: OutcomeTable, coverage: Coverage, values: FloatArray, bounds: tuple[float, float]
) -> dict[str, MeanEstimate]:
    """Covered group -> estimate of the mean of `values: N` over its queries."""
    group = coverage.group_of_rows(table)
    members = {name: np.flatnonzero(group == g) for g, name in enumerate(coverage.groups)}
    return {name: estimate_mean(values[rows], table.cluster_code[rows], bounds) for name, rows in members.items()}


def paired_quality(table: OutcomeTable, tier: IntArray, other: int, rows: IntArray) -> Interval:
    """Quality minus that of one tier over the queries at `rows`; exactly 0 where the policy is that tier on each.

    Args:
        table: The outcomes.
        tier: `N` chosen tiers.
        other: Index of the tier.
        rows: Queries, at least one.
    """
    if (tier[rows] == other).all():
        return Interval(mean=0.0, low=0.0, high=0.0)
    difference = table.quality[rows, tier[rows]] - table.bare.quality[rows, other]
    return mean_interval(difference, table.cluster_code[rows], bounds=DIFFERENCE)


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
    extra_cost = cost - table.bare.cost_usd[:, members] @ share
    influence = quality - table.bare.quality[:, members] @ share - slope * extra_cost
    influence[np.abs(influence) < _ROUNDING] = 0.0  # a single tier on the hull differs from itself by nothing
    return mean_interval(influence, table.cluster_code)


def rank_correlation(a: FloatArray, b: FloatArray) -> Interval:
    """Spearman's rank correlation with Fisher's interval (variance as in Bonett and Wright, 2000)."""
    n = len(a)
    if n < 10 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Interval(mean=0.0, low=-1.0, high=1.0)
    rho = float(stats.spearmanr(a, b).statistic)
    half = stats.norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt((1 + rho**2 / 2) / (n - 3))
    centre = np.arctanh(np.clip(rho, -0.999999, 0.999999))
    return Interval(mean=rho, low=float(np.tanh(centre - half)), high=float(np.tanh(centre + half)))
