r"""Fits of a scenario's parameters to recorded outcomes, tokens and times.

Notation: N queries, K tiers, S slices; $n_s$ queries in slice s, $w_s = n_s / N$. The model is that of
`simulators/scenario.py`: $\mu_k = \sigma(c_k - d_s - \tau z)$ with capability c, difficulty d (share-weighted mean 0,
which makes c and d identifiable) and $\tau$ = `difficulty_sd`; given $\mu$, a score is Beta with precision $\phi$. A
cell (s, k) may have a shift $\delta_{sk}$ of its own, added to $c_k - d_s$.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray
from scipy.optimize import brentq, least_squares
from scipy.special import expit, logit

from simulators.errors import InputDataError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.scenario import INFLATION_REFERENCE_TOKENS

_NODES = 40
_LEAST_PRECISION = 0.01
_LEAST_VARIANCE = 1e-9
_IQR_OF_NORMAL = 1.3489795003921634
_LARGEST_SHIFT = 30.0


@dataclass(frozen=True, kw_only=True)
class QualityFit:
    """Quality parameters of a scenario.

    Attributes:
        capability: `K`, logits, in the table's tier order.
        difficulty: `S`, logits, share-weighted mean zero.
        difficulty_sd: Within-slice standard deviation of the difficulty, logits.
        quality_precision: $\\phi$ of the Beta score.
        mean_quality: `S x K` means that the fitted parameters imply.
        shift: `S x K`, logits; 0 where capability minus difficulty is all.
        capability_se, difficulty_se, difficulty_sd_se: Standard errors by least squares.
    """

    capability: FloatArray
    difficulty: FloatArray
    difficulty_sd: float
    quality_precision: float
    mean_quality: FloatArray
    shift: FloatArray
    capability_se: FloatArray
    difficulty_se: FloatArray
    difficulty_sd_se: float


@dataclass(frozen=True, kw_only=True)
class LognormalFit:
    """Median, and standard deviation of the logarithm."""

    median: float
    sigma: float


@dataclass(frozen=True, kw_only=True)
class InflationFit:
    """Billed per visible token: median at the reference length, slope on log length, log standard deviation."""

    median: float
    exponent: float
    sigma: float


@dataclass(frozen=True, kw_only=True)
class _Moments:
    count: IntArray  # S, queries
    mean: FloatArray  # S x K
    variance: float  # within slices, summed over tiers
    covariance: float  # within slices, mean over pairs of tiers
    covariance_se: float

    @property
    def weight(self) -> FloatArray:
        """`S`, the slices' shares."""
        return np.asarray(self.count / self.count.sum(), dtype=np.float64)


def logistic_normal_moments(
    capability: FloatArray, difficulty: FloatArray, difficulty_sd: float, shift: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    r"""$E[\mu_k]$ and $E[\mu_j \mu_k]$ per slice by Gauss--Hermite quadrature over the difficulty.

    Args:
        capability: `K`, logits.
        difficulty: `S`, logits.
        difficulty_sd: Logits, not negative.
        shift: `S x K`, logits, or None for none.

    Returns:
        `S x K` means and `S x K x K` second moments.
    """
    nodes, weights = hermegauss(_NODES)
    weights = weights / weights.sum()
    level = capability[None, :, None] - difficulty[:, None, None]
    level = level if shift is None else level + shift[:, :, None]
    mu = expit(level - difficulty_sd * nodes)  # S x K x nodes
    return mu @ weights, np.einsum("sjx,skx,x->sjk", mu, mu, weights)


def fit_quality(table: OutcomeTable, *, shifted: NDArray[np.bool_] | None = None) -> QualityFit:
    r"""Capability, difficulty, difficulty_sd and quality_precision by moments.

    Least squares over the slice x tier means, weighted by the slices' shares, and the pooled within-slice covariance
    between tiers, weighted by its standard error: tiers vary together only through the difficulty, so that covariance
    is what identifies $\tau$. What variance is left is the Beta's: $\sum_k (V_k - \mathrm{Var}\,\mu_k) =
    \sum_k E[\mu_k (1 - \mu_k)] / (1 + \phi)$, pooled over slices and tiers. Right-or-wrong scores have $\phi = 0$ and
    come out at a small positive value, whose Beta is right or wrong for all practical purposes. Answers with an error
    are in no moment.

    Args:
        table: The recorded outcomes.
        shifted: `S x K`, cells that get a shift of their own, so that they tell nothing about c and d; None for none.
            Every slice and every tier needs a cell that is not shifted.

    Raises:
        InputDataError: If a slice has fewer than two queries, a tier has fewer than two answers without error on one,
            or the tiers' scores do not vary together within slices.
    """
    recorded = _recorded_moments(table)
    solved = _solve(recorded, shifted)
    capability, difficulty, sd = solved.capability, solved.difficulty, solved.difficulty_sd
    shift = np.zeros(recorded.mean.shape) if shifted is None else _shifts(recorded, solved, shifted)
    mean, second = logistic_normal_moments(capability, difficulty, sd, shift)
    own_second = np.diagonal(second, axis1=1, axis2=2)
    bernoulli = float(recorded.weight @ (mean - own_second).sum(axis=1))
    explained = float(recorded.weight @ (own_second - mean**2).sum(axis=1))
    left = max(recorded.variance - explained, _LEAST_VARIANCE)
    return QualityFit(
        capability=capability,
        difficulty=difficulty,
        difficulty_sd=sd,
        quality_precision=max(bernoulli / left - 1.0, _LEAST_PRECISION),
        mean_quality=mean,
        shift=shift,
        capability_se=solved.capability_se,
        difficulty_se=solved.difficulty_se,
        difficulty_sd_se=solved.difficulty_sd_se,
    )


def _shifts(recorded: _Moments, solved: _Solved, shifted: NDArray[np.bool_]) -> FloatArray:
    """`S x K`: where `shifted`, the shift that gives the recorded mean; a mean of 0 or 1 is drawn in a little."""
    shift = np.zeros(shifted.shape)
    for s, k in np.argwhere(shifted):
        edge = 0.5 / float(recorded.count[s])
        wanted = float(np.clip(recorded.mean[s, k], edge, 1.0 - edge))
        level = solved.capability[[k]] - solved.difficulty[s]

        def excess(x: float, level: FloatArray = level, wanted: float = wanted) -> float:
            return float(logistic_normal_moments(level + x, np.zeros(1), solved.difficulty_sd)[0][0, 0]) - wanted

        shift[s, k] = brentq(excess, -_LARGEST_SHIFT, _LARGEST_SHIFT)
    return shift


def recorded_means(table: OutcomeTable) -> FloatArray:
    """`S x K` mean quality of the answers without error; NaN where there is none."""
    known = ~table.error
    members = np.arange(len(table.slices))[:, None] == table.slice_code  # S x N
    count = members @ known.astype(np.float64)
    total = members @ np.where(known, table.quality, 0.0)
    return np.asarray(np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0), dtype=np.float64)


def _recorded_moments(table: OutcomeTable) -> _Moments:
    n, s = table.n_queries, len(table.slices)
    count = np.bincount(table.slice_code, minlength=s)
    if count.min() < 2:
        raise InputDataError(
            f"every slice needs at least 2 queries; {table.slices[int(count.argmin())]} has {count.min()}; pool slices"
        )
    answered = np.stack([(~table.error[table.slice_code == i]).sum(axis=0) for i in range(s)])  # S x K
    if answered.min() < 2:
        i, k = np.unravel_index(answered.argmin(), answered.shape)
        raise InputDataError(
            f"{table.tiers[k]} has {answered[i, k]} answers without error on {table.slices[i]}; expected at least 2; "
            "pool slices or leave the tier out"
        )
    mean = recorded_means(table)
    known = ~table.error
    rest = np.where(known, table.quality - mean[table.slice_code], 0.0)
    left, right = np.triu_indices(table.n_tiers, k=1)
    dof = n - s
    pair_dof = (known[:, left] & known[:, right]).sum(axis=0) - s
    # N, mean over pairs; a pair with few common answers weighs as much as one with many
    products = (rest[:, left] * rest[:, right] * (dof / np.maximum(pair_dof, 1))).mean(axis=1)
    covariance = float(products.sum() / dof)
    if covariance <= 0:
        raise InputDataError(
            f"within slices the tiers' scores do not vary together (covariance {covariance:.3g}); "
            "difficulty_sd cannot be fitted to them"
        )
    return _Moments(
        count=count,
        mean=mean,
        variance=float(((rest**2).sum(axis=0) / np.maximum(known.sum(axis=0) - s, 1)).sum()),
        covariance=covariance,
        covariance_se=float(products.std() / np.sqrt(n)),
    )


@dataclass(frozen=True, kw_only=True)
class _Solved:
    capability: FloatArray
    difficulty: FloatArray
    difficulty_sd: float
    capability_se: FloatArray
    difficulty_se: FloatArray
    difficulty_sd_se: float


def _solve(recorded: _Moments, shifted: NDArray[np.bool_] | None = None) -> _Solved:
    k = recorded.mean.shape[1]
    upper = np.triu_indices(k, k=1)
    mean_se = np.sqrt(recorded.variance / k / recorded.count)[:, None]  # one scatter for all: weights are shares
    counted = 1.0 if shifted is None else np.where(shifted, 0.0, 1.0)

    def residuals(theta: FloatArray) -> FloatArray:
        capability, difficulty, sd = theta[:k], theta[k:-1], float(np.exp(theta[-1]))
        mean, second = logistic_normal_moments(capability, difficulty, sd)
        between = second - mean[:, :, None] * mean[:, None, :]
        covariance = float(recorded.weight @ between[:, upper[0], upper[1]].mean(axis=1))
        return np.concatenate(
            [
                ((mean - recorded.mean) / mean_se * counted).ravel(),
                [(covariance - recorded.covariance) / max(recorded.covariance_se, 1e-9)],
                [recorded.weight @ difficulty],  # exactly zero at the optimum: capability takes up any shift
            ]
        )

    logits = logit(np.clip(recorded.mean, 0.01, 0.99))
    capability = recorded.weight @ logits
    difficulty = (capability - logits).mean(axis=1)
    start = np.concatenate([capability, difficulty, [0.0]])
    found = least_squares(residuals, start, xtol=1e-12, ftol=1e-12, gtol=1e-12)
    theta = found.x
    centre = recorded.weight @ theta[k:-1]
    se = _standard_errors(np.asarray(found.jac), recorded.weight, k)
    sd = float(np.exp(theta[-1]))
    return _Solved(
        capability=theta[:k] - centre,
        difficulty=theta[k:-1] - centre,
        difficulty_sd=sd,
        capability_se=se[:k],
        difficulty_se=se[k:-1],
        difficulty_sd_se=float(sd * se[-1]),
    )


def _standard_errors(jacobian: FloatArray, weight: FloatArray, k: int) -> FloatArray:
    """`K + S + 1` standard errors of c, d (both centred) and log difficulty_sd; residuals are in units of s.e."""
    covariance = np.linalg.pinv(jacobian.T @ jacobian)
    centring = np.eye(len(covariance))
    centring[:-1, k:-1] -= weight
    return np.sqrt(np.maximum(np.diag(centring @ covariance @ centring.T), 0.0))


def fit_lognormal(values: FloatArray) -> LognormalFit:
    """Lognormal with the sample's mean and the sample's standard deviation of logarithms.

    Mean tokens are what a bill is made of, so the mean is kept exactly; the median follows from it.

    Raises:
        InputDataError: If fewer than two values come, or one is not positive and finite.
    """
    logs = _checked_logs(values)
    sigma = float(logs.std(ddof=1))
    return LognormalFit(median=float(values.mean() * np.exp(-(sigma**2) / 2)), sigma=sigma)


def fit_lognormal_robust(values: FloatArray) -> LognormalFit:
    """Lognormal with the sample's median and interquartile range: for times, whose far tail is another cause.

    Raises:
        InputDataError: If fewer than two values come, or one is not positive and finite.
    """
    low, middle, high = np.quantile(_checked_logs(values), [0.25, 0.5, 0.75])
    return LognormalFit(median=float(np.exp(middle)), sigma=float((high - low) / _IQR_OF_NORMAL))


def fit_inflation(visible_tokens: FloatArray, billed_tokens: FloatArray) -> InflationFit:
    """Regression of log(billed / visible) on log(visible / reference length), one pair per query.

    Args:
        visible_tokens: `N`, positive.
        billed_tokens: `N`, positive.

    Raises:
        InputDataError: If the lengths differ, fewer than three pairs come, all answers are equally long, or a value is
            not positive and finite.
    """
    if len(visible_tokens) != len(billed_tokens) or len(visible_tokens) < 3:
        raise InputDataError(
            f"expected at least three pairs of visible and billed tokens; got {len(visible_tokens)} and "
            f"{len(billed_tokens)}"
        )
    length = _checked_logs(visible_tokens) - np.log(INFLATION_REFERENCE_TOKENS)
    ratio = _checked_logs(billed_tokens) - _checked_logs(visible_tokens)
    spread = float(((length - length.mean()) ** 2).sum())
    if spread == 0.0:
        raise InputDataError("all answers have the same visible length; the slope of inflation cannot be fitted")
    exponent = float(((length - length.mean()) * ratio).sum() / spread)
    level = float(ratio.mean() - exponent * length.mean())
    rest = ratio - level - exponent * length
    return InflationFit(
        median=float(np.exp(level)), exponent=exponent, sigma=float(np.sqrt((rest**2).sum() / (len(rest) - 2)))
    )


def _checked_logs(values: FloatArray) -> FloatArray:
    bad = ~(np.isfinite(values) & (values > 0))
    if len(values) < 2 or bad.any():
        raise InputDataError(
            f"expected at least two values, all positive and finite; got {len(values)} with {int(bad.sum())} bad"
        )
    return np.log(values)
