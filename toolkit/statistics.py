r"""Means of bounded quantities: intervals and one-sided tests that cover where Student's do not.

Scores lie in [0, 1], differences of scores in [-1, 1]; many are exactly 0 or 1, and a slice may hold 30 of them.
Student's interval then covers far too rarely: a slice of 30 right answers has a standard error of zero. One
pseudo-observation at each end of the range before the t interval is taken repairs that, as [AgrestiCoull1998]_ do for a
proportion. Where at least `DISTINCT` values differ from the most common one, the sample itself shows how far values
reach, and the pseudo-observations lie at its own smallest and largest value.

Notation: n values in G groups of values that depend on each other (repeats of a prompt, turns of a session).

References:
    [AgrestiCoull1998] A. Agresti, B. A. Coull, Approximate is better than "exact" for interval estimation of binomial
        proportions, The American Statistician 52.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from simulators.outcomes import FloatArray, IntArray

DISTINCT = 30
PSEUDO = 2
"""Pseudo-observations in all: one at each end of the range."""


@dataclass(frozen=True, kw_only=True)
class MeanEstimate:
    """A mean, and what is needed to test it.

    Attributes:
        mean: Mean of the n values themselves.
        centre: Mean with the pseudo-observations: the middle of the intervals.
        error: Standard error of `centre`; NaN with fewer than two groups.
        df: Degrees of freedom, G - 1.
        n: Number of values.
        sd: Standard deviation of one value, dependence within groups included; NaN with fewer than two groups.
        reach: Root mean square of the pseudo-observations' distances from 0.
        low, high: Ends of the possible range; infinite where there is none.
    """

    mean: float
    centre: float
    error: float
    df: int
    n: int
    sd: float
    reach: float
    low: float = -np.inf
    high: float = np.inf

    def lower(self, alpha: float) -> float:
        """One-sided bound that the true mean falls below with probability alpha."""
        bound = self.centre - self._quantile(alpha) * self.error
        return float(np.maximum(self.low, np.minimum(self.mean, bound)))

    def upper(self, alpha: float) -> float:
        """One-sided bound that the true mean exceeds with probability alpha."""
        bound = self.centre + self._quantile(alpha) * self.error
        return float(np.minimum(self.high, np.maximum(self.mean, bound)))

    def p_above(self, limit: float) -> float:
        """p-value against "the mean is at most `limit`": small where it is shown to lie above."""
        return self._p(self.centre - limit)

    def p_below(self, limit: float) -> float:
        """p-value against "the mean is at least `limit`": small where it is shown to lie below."""
        return self._p(limit - self.centre)

    def _p(self, distance: float) -> float:
        if not np.isfinite(self.error):
            return 1.0
        if self.error == 0:
            return 0.0 if distance > 0 else 1.0
        return float(special.stdtr(self.df, -distance / self.error))

    def _quantile(self, alpha: float) -> float:
        return _student(self.df, alpha) if self.df > 0 else np.nan


def estimate_mean(
    values: FloatArray, group: IntArray | None = None, bounds: tuple[float, float] | None = None
) -> MeanEstimate:
    """Estimate the mean of n values.

    Args:
        values: `n`, at least one.
        group: `n` codes of values that are not independent of each other; None if all are. The standard error is that
            of the groups' sums of deviations, with G - 1 degrees of freedom, and a pseudo-observation weighs as much as
            a group does on average.
        bounds: Ends of the possible range, such as `(0, 1)`; None where there is none, as for costs.
    """
    n, low, high = len(values), float(values.min()), float(values.max())
    mean, offset = float(np.clip(values.mean(), low, high)), low  # equal values have exactly their value as mean
    if bounds is not None and not _shows_its_range(values, group):
        low, high = bounds
    weight = n / _n_groups(values, group)
    total = n + PSEUDO * weight
    centre = offset + (float((values - offset).sum()) + weight * (low - offset + high - offset)) / total
    g, around_centre = _squares(values - centre, group)
    squares = around_centre + weight**2 * ((low - centre) ** 2 + (high - centre) ** 2)
    widening = g / (g - 1) if g > 1 else np.nan
    limits = (-np.inf, np.inf) if bounds is None else bounds
    return MeanEstimate(
        mean=mean,
        centre=centre,
        error=float(np.sqrt(widening * squares) / total),
        df=g - 1,
        n=n,
        sd=float(np.sqrt(widening * _squares(values - mean, group)[1] / n)),
        reach=float(np.sqrt((low**2 + high**2) / 2)),
        low=limits[0],
        high=limits[1],
    )


def _n_groups(values: FloatArray, group: IntArray | None) -> int:
    return len(values) if group is None else len(np.unique(group))


def _squares(deviation: FloatArray, group: IntArray | None) -> tuple[int, float]:
    """Number of groups, and the sum of squares of their summed deviations."""
    if group is not None:
        _, code = np.unique(group, return_inverse=True)
        deviation = np.bincount(code, weights=deviation).astype(np.float64)
    return len(deviation), float((deviation**2).sum())


def _student(df: int, alpha: float) -> float:
    """The value that Student's t exceeds with probability alpha."""
    return -float(special.stdtrit(df, alpha))


def _shows_its_range(values: FloatArray, group: IntArray | None) -> bool:
    """Whether in at least `DISTINCT` groups a value differs from the most common one."""
    if _n_groups(values, group) < DISTINCT:
        return False
    _, code, counts = np.unique(values, return_inverse=True, return_counts=True)
    other = code != counts.argmax()
    return _n_groups(values[other], None if group is None else group[other]) >= DISTINCT


def bound_from_sums(
    n: FloatArray | IntArray, sums: FloatArray, squares: FloatArray, low: FloatArray, high: FloatArray, alpha: float
) -> tuple[FloatArray, FloatArray]:
    """Lower and upper one-sided bounds of many means at once, from sums; values are taken as independent.

    Args:
        n: Number of values of each mean, at least 2.
        sums, squares: Sums of the values and of their squares.
        low, high: Where the pseudo-observations lie.
        alpha: Level of each bound.

    Returns:
        Lower and upper bounds, broadcast over all arguments.
    """
    total = n + PSEUDO
    centre = (sums + low + high) / total
    variance = np.maximum((squares + low**2 + high**2) / total - centre**2, 0.0)
    half = -special.stdtrit(n - 1, alpha) * np.sqrt(n / (n - 1) * variance / total)
    return np.asarray(centre - half), np.asarray(centre + half)


def labels_needed(sd: float, margin: float, *, alpha: float, power: float, reach: float = 1.0) -> int:
    """Values needed to show with probability `power` that a mean of 0 lies below `margin`, one-sided at level alpha.

    Accounts for the pseudo-observations (at `-reach` and `reach`) and for Student's quantiles.

    Args:
        sd: Standard deviation of the values.
        margin: Positive.
        alpha: Level.
        power: Probability of success.
        reach: Half the range of the values, such as 1 for differences of scores.
    """

    normal = float(special.ndtri(power))

    def enough(n: int) -> bool:
        return (_student(n - 1, alpha) + normal) * _error(sd, n, reach) <= margin

    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def power_to_show(sd: float, n: int, margin: float, *, alpha: float, reach: float = 1.0) -> float:
    """Probability that n values show a mean of 0 to lie below `margin`; the inverse of `labels_needed`."""
    if n < 2:
        return 0.0
    return float(special.ndtr(margin / _error(sd, n, reach) - _student(n - 1, alpha)))


def resolved_margin(sd: float, n: int, *, alpha: float, power: float, reach: float = 1.0) -> float:
    """The smallest margin that `n` values can show with probability `power` if the mean is 0; see `labels_needed`."""
    if n < 2:
        return np.inf
    return float((_student(n - 1, alpha) + special.ndtri(power)) * _error(sd, n, reach))


def _error(sd: float, n: int, reach: float) -> float:
    """Standard error of n values with pseudo-observations at `-reach` and `reach`."""
    total = n + PSEUDO
    return float(np.sqrt((n * sd**2 + PSEUDO * reach**2) / total * n / (n - 1) / total))
