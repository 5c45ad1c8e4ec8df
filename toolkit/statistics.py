r"""Means of bounded quantities: one-sided bounds and tests that keep their level where Student's do not.

Scores lie in [0, 1], differences of scores in [-1, 1]; many are exactly 0 or 1, and a slice may hold 30 of them.
Student's interval then covers far too rarely: a slice of 30 right answers has a standard error of zero. Two
pseudo-observations before the t interval is taken repair that, as [AgrestiCoull1998]_ do for a proportion. Theirs lie
at both ends of the range; ours at the unfavourable one: the low end for a lower bound, the high end for an upper one.
With one at each end, "the loss is below 2 points" was shown at level 0.10 instead of 0.05 where a cheap tier is never
better than the baseline; with both at the unfavourable end the level is at most 0.056. Where values of at least
`DISTINCT` groups differ from the most common one, the sample itself shows how far values reach, and one
pseudo-observation at its own smallest or largest value will do.

Notation: n values in G groups of values that depend on each other (repeats of a prompt, turns of a session).

References:
    [AgrestiCoull1998] A. Agresti, B. A. Coull, Approximate is better than "exact" for interval estimation of binomial
        proportions, The American Statistician 52.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from simulators.outcomes import FloatArray, IntArray

DISTINCT = 30
SPARSE, DENSE = 2, 1
"""Pseudo-observations, at the unfavourable end of the range: where few values differ, and where many do."""


@dataclass(frozen=True, kw_only=True)
class Adjusted:
    """A mean with its pseudo-observations.

    Attributes:
        centre: The mean.
        error: Its standard error; NaN with fewer than two groups.
    """

    centre: float
    error: float


@dataclass(frozen=True, kw_only=True)
class MeanEstimate:
    """A mean, and what is needed to test it.

    Attributes:
        mean: Mean of the n values themselves.
        from_below: With the pseudo-observations at the low end: for lower bounds, and to show that a mean is high.
        from_above: With the pseudo-observations at the high end: for upper bounds, and to show that a mean is low.
        df: Degrees of freedom: the effective number of groups minus 1. That number is `n^2 / sum of squared group
            sizes`: G for equal groups, near 1 where one group holds nearly everything and little can be learned.
        n: Number of values.
        sd: Standard deviation of one value, dependence within groups included; NaN with fewer than two groups.
        reach: Distance of the low pseudo-observations from 0.
        pseudo: Their number.
        low, high: Ends of the possible range; infinite where there is none.
    """

    mean: float
    from_below: Adjusted
    from_above: Adjusted
    df: float
    n: int
    sd: float
    reach: float
    pseudo: int = SPARSE
    low: float = -np.inf
    high: float = np.inf

    def lower(self, alpha: float) -> float:
        """One-sided bound that the true mean falls below with probability alpha."""
        bound = self.from_below.centre - self._quantile(alpha) * self.from_below.error
        return float(np.maximum(self.low, np.minimum(self.mean, bound)))

    def upper(self, alpha: float) -> float:
        """One-sided bound that the true mean exceeds with probability alpha."""
        bound = self.from_above.centre + self._quantile(alpha) * self.from_above.error
        return float(np.minimum(self.high, np.maximum(self.mean, bound)))

    def p_above(self, limit: float) -> float:
        """p-value against "the mean is at most `limit`": small where it is shown to lie above."""
        return self._p(self.from_below.centre - limit, self.from_below.error)

    def p_below(self, limit: float) -> float:
        """p-value against "the mean is at least `limit`": small where it is shown to lie below."""
        return self._p(limit - self.from_above.centre, self.from_above.error)

    def _p(self, distance: float, error: float) -> float:
        if not np.isfinite(error) or self.df <= 0:
            return 1.0
        if error == 0:
            return 0.0 if distance > 0 else 1.0
        return float(special.stdtr(self.df, -distance / error))

    def _quantile(self, alpha: float) -> float:
        return _student(self.df, alpha) if self.df > 0 else np.nan


def estimate_mean(
    values: FloatArray, group: IntArray | None = None, bounds: tuple[float, float] | None = None
) -> MeanEstimate:
    """Estimate the mean of n values.

    Args:
        values: `n`, at least one.
        group: `n` codes of values that are not independent of each other; None if all are. The standard error is that
            of the groups' sums of deviations, and a pseudo-observation weighs as much as a group does on average.
        bounds: Ends of the possible range, such as `(0, 1)`; None where there is none, as for costs.
    """
    n, low, high = len(values), float(values.min()), float(values.max())
    mean = float(np.clip(values.mean(), low, high))  # equal values have exactly their value as mean
    pseudo = DENSE
    if bounds is not None and not _shows_its_range(values, group):
        (low, high), pseudo = bounds, SPARSE
    sizes = np.ones(n) if group is None else np.unique(group, return_counts=True)[1].astype(np.float64)
    g = len(sizes)
    widening = g / (g - 1) if g > 1 else np.nan
    limits = (-np.inf, np.inf) if bounds is None else bounds
    return MeanEstimate(
        mean=mean,
        from_below=_adjusted(values, group, low, pseudo, n / g, widening),
        from_above=_adjusted(values, group, high, pseudo, n / g, widening),
        df=float(n**2 / (sizes**2).sum() - 1) if g > 1 else 0.0,
        n=n,
        sd=float(np.sqrt(widening * _squares(values - mean, group) / n)),
        reach=abs(low),
        pseudo=pseudo,
        low=limits[0],
        high=limits[1],
    )


def _adjusted(
    values: FloatArray, group: IntArray | None, end: float, pseudo: int, weight: float, widening: float
) -> Adjusted:
    """The mean with `pseudo` observations of a given weight at one end."""
    total = len(values) + pseudo * weight
    centre = end + float((values - end).sum()) / total
    squares = _squares(values - centre, group) + pseudo * (weight * (end - centre)) ** 2
    return Adjusted(centre=centre, error=float(np.sqrt(widening * squares) / total))


def _n_groups(values: FloatArray, group: IntArray | None) -> int:
    return len(values) if group is None else len(np.unique(group))


def _squares(deviation: FloatArray, group: IntArray | None) -> float:
    """Sum of squares of the groups' summed deviations."""
    if group is not None:
        _, code = np.unique(group, return_inverse=True)
        deviation = np.bincount(code, weights=deviation).astype(np.float64)
    return float((deviation**2).sum())


def _student(df: float, alpha: float) -> float:
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
    n: FloatArray | IntArray,
    sums: FloatArray,
    squares: FloatArray,
    *,
    low: FloatArray,
    high: FloatArray,
    pseudo: IntArray,
    alpha: float,
) -> tuple[FloatArray, FloatArray]:
    """Lower and upper one-sided bounds of many means at once, from sums; values are taken as independent.

    Args:
        n: Number of values of each mean, at least 2.
        sums, squares: Sums of the values and of their squares.
        low, high: Where the pseudo-observations lie.
        pseudo: Their number: `SPARSE` or `DENSE`.
        alpha: Level of each bound.

    Returns:
        Lower and upper bounds, broadcast over all arguments.
    """
    t = -np.asarray(special.stdtrit(n - 1, alpha), dtype=np.float64)
    bounds = []
    for end, steps in ((low, -t), (high, t)):
        total = n + pseudo
        centre = (sums + pseudo * end) / total
        variance = np.maximum((squares + pseudo * end**2) / total - centre**2, 0.0)
        bounds.append(np.asarray(centre + steps * np.sqrt(n / (n - 1) * variance / total)))
    return bounds[0], bounds[1]


def labels_needed(sd: float, margin: float, *, alpha: float, power: float, reach: float = 1.0) -> int:
    """Values needed to show with probability `power` that a mean of 0 lies below `margin`, one-sided at level alpha.

    Accounts for the pseudo-observations (at `-reach`) and for Student's quantiles.

    Args:
        sd: Standard deviation of the values.
        margin: Positive.
        alpha: Level.
        power: Probability of success.
        reach: Half the range of the values, such as 1 for differences of scores.
    """

    normal = float(special.ndtri(power))

    def enough(n: int) -> bool:
        return _shift(n, reach) + (_student(n - 1, alpha) + normal) * _error(sd, n, reach) <= margin

    return smallest(enough)


def smallest(enough: Callable[[int], bool]) -> int:
    """The smallest whole number, at least 2, from which on `enough` holds."""
    low, high = 1, 2
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def power_to_show(sd: float, n: float, margin: float, *, alpha: float, reach: float = 1.0) -> float:
    """Probability that n values show a mean of 0 to lie below `margin`; the inverse of `labels_needed`."""
    if n < 2:
        return 0.0
    return float(special.ndtr((margin - _shift(n, reach)) / _error(sd, n, reach) - _student(n - 1, alpha)))


def resolved_margin(sd: float, n: float, *, alpha: float, power: float, reach: float = 1.0) -> float:
    """The smallest margin that `n` values can show with probability `power` if the mean is 0; see `labels_needed`."""
    if n < 2:
        return np.inf
    return _shift(n, reach) + float((_student(n - 1, alpha) + special.ndtri(power)) * _error(sd, n, reach))


def _shift(n: float, reach: float) -> float:
    """By how much pseudo-observations at `-reach` lower a mean of 0."""
    return SPARSE * reach / (n + SPARSE)


def _error(sd: float, n: float, reach: float) -> float:
    """Standard error of n values of mean 0 with pseudo-observations at `-reach`."""
    centre = -_shift(n, reach)
    squares = n * (sd**2 + centre**2) + SPARSE * (reach + centre) ** 2
    return float(np.sqrt(n / (n - 1) * squares) / (n + SPARSE))
