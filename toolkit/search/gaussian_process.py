r"""Exact Gaussian-process regression with a fast MAP fit.

The model is BoTorch's default `SingleTaskGP` (0.18), written in NumPy and LAPACK: standardised targets, constant
mean, RBF kernel with one lengthscale per coordinate and no output scale, Gaussian noise, LogNormal priors.

Notation:
    X: n x d      inputs, in the unit cube
    y: n          targets, in their own units
    z: n          standardised targets, `(y - y_mean) / y_scale`
    S: n x d      inputs divided by the lengthscales, centred
    l: d          lengthscales
    v             noise variance of z
    mu            constant mean of z
    theta         (log l_1, ..., log l_d, log v), the last one only where the noise is fitted
    K: n x n      k(X, X) + v I = F F^T, with F lower triangular
    alpha: n      K^-1 (z - mu)
    X*: r x d     where to predict; k*: r x n its kernel with X

The fit maximises, over theta and mu,

    [ log N(z | mu, K) + sum_i log p(l_i) + log p(v) ] / n

where p is the density of l and v themselves, not of their logarithms: theta only reparameterises. The best mu for a
theta is the generalised least squares value, so the gradient in theta is the one at fixed mu (envelope theorem).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack, solve_triangular
from scipy.optimize import Bounds, minimize

from simulators.outcomes import FloatArray

# Priors and bounds of the model: log l ~ N(sqrt(2) + log(d) / 2, 3), log v ~ N(-4, 1).
_LENGTHSCALE_LOC, _LENGTHSCALE_SCALE = math.sqrt(2.0), math.sqrt(3.0)
_NOISE_LOC, _NOISE_SCALE = -4.0, 1.0
_LENGTHSCALE_BOUNDS, _NOISE_BOUNDS = (0.025, 1e6), (1e-4, 1e3)  # the upper ends only keep exp() finite

_CONSTANT_SPREAD = 1e-12  # a standard deviation below this share of max|y| is rounding: the target is constant
_JITTERS = (0.0, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2)
_VARIANCE_FLOOR = 1e-12  # of the standardised latent function


@dataclass(frozen=True, eq=False, kw_only=True)
class GaussianProcess:
    """A posterior at fixed hyper-parameters.

    Attributes:
        X: `n x d` inputs.
        y: `n` targets, in their own units.
        y_mean: Mean that standardises `y`.
        y_scale: Standard deviation that standardises `y`; 1 for a constant target.
        lengthscales: `d` lengthscales.
        noise: Noise variance of the standardised targets.
        constant: Prior mean of the standardised targets.
        objective: Value of the fit's objective (per data point); `condition_on` leaves it as it was.
    """

    X: FloatArray
    y: FloatArray
    y_mean: float
    y_scale: float
    lengthscales: FloatArray
    noise: float
    constant: float
    objective: float
    _centre: FloatArray = field(init=False, repr=False)
    _scaled: FloatArray = field(init=False, repr=False)
    _factor: FloatArray = field(init=False, repr=False)
    _alpha: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        centre = self.X.mean(axis=0)
        scaled = (self.X - centre) / self.lengthscales
        factor = factor_of(_noisy(_kernel(scaled, scaled), self.noise))
        residual = (self.y - self.y_mean) / self.y_scale - self.constant
        alpha = lapack.dpotrs(factor, residual, lower=1)[0]
        for name, value in (("_centre", centre), ("_scaled", scaled), ("_factor", factor), ("_alpha", alpha)):
            object.__setattr__(self, name, value)

    def predict(self, Xs: FloatArray) -> tuple[FloatArray, FloatArray]:
        r"""Posterior of the latent, noise-free function, in the units of `y`.

        $m = \mu + k_* \alpha$ and $s^2 = 1 - |F^{-1} k_*|^2$.

        Args:
            Xs: `r x d` inputs.

        Returns:
            `r` means and `r` standard deviations, the latter positive.
        """
        k = _kernel(self._scale(Xs), self._scaled)
        v = solve_triangular(self._factor, k.T, lower=True, check_finite=False)
        sd = np.sqrt(np.maximum(1.0 - np.einsum("nr,nr->r", v, v), _VARIANCE_FLOOR))
        return self._restore(k @ self._alpha), self.y_scale * sd

    def predict_with_gradient(self, Xs: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        r"""The same with derivatives in the inputs, from $\partial k_{*j} = k_{*j} (S_j - S_*) / l$.

        Args:
            Xs: `r x d` inputs.

        Returns:
            `r` means, `r` standard deviations, `r x d` derivatives of either; where the standard deviation is at its
            floor its derivative is zero.
        """
        S = self._scale(Xs)
        k = _kernel(S, self._scaled)
        v = solve_triangular(self._factor, k.T, lower=True, check_finite=False)
        variance = 1.0 - np.einsum("nr,nr->r", v, v)
        sd = np.sqrt(np.maximum(variance, _VARIANCE_FLOOR))
        half_slope = -self._slope(k * solve_triangular(self._factor, v, lower=True, trans="T", check_finite=False).T, S)
        dsd = np.where((variance > _VARIANCE_FLOOR)[:, None], half_slope / sd[:, None], 0.0)
        dmean = self._slope(k * self._alpha, S)
        return self._restore(k @ self._alpha), self.y_scale * sd, self.y_scale * dmean, self.y_scale * dsd

    def condition_on(self, X_new: FloatArray, y_new: FloatArray) -> GaussianProcess:
        """The posterior after further observations; hyper-parameters and standardisation stay.

        Args:
            X_new: `q x d` inputs.
            y_new: `q` targets, in the units of `y`.

        Raises:
            ValueError: If a value is not finite or shapes do not fit.
        """
        X_new, y_new = checked_data(X_new, y_new, d=self.X.shape[1])
        return replace(self, X=np.vstack([self.X, X_new]), y=np.concatenate([self.y, y_new]))

    def _scale(self, Xs: FloatArray) -> FloatArray:
        scaled: FloatArray = (np.asarray(Xs, dtype=np.float64) - self._centre) / self.lengthscales
        return scaled

    def _restore(self, mean: FloatArray) -> FloatArray:
        return self.y_mean + self.y_scale * (self.constant + mean)

    def _slope(self, weights: FloatArray, S: FloatArray) -> FloatArray:
        """`r x d`, sum over j of `weights: r x n` times `(S_j - S) / l` for `S: r x d`."""
        slope: FloatArray = (weights @ self._scaled - weights.sum(axis=1)[:, None] * S) / self.lengthscales
        return slope


def fit_gp(
    X: FloatArray, y: FloatArray, *, rng: np.random.Generator, n_starts: int = 2, noise: float | None = None
) -> GaussianProcess:
    """Fit hyper-parameters by maximum a posteriori.

    The starts are the mode of the prior, where BoTorch starts too, and draws from the prior. Nothing is remembered
    between calls: the result is a function of the arguments alone.

    Args:
        X: `n x d` inputs in the unit cube.
        y: `n` targets.
        rng: Source of the starts after the first one.
        n_starts: Number of local searches, at least 1.
        noise: Noise variance of the standardised targets; None fits it.

    Raises:
        ValueError: If a value is not finite, shapes do not fit, or an option is out of range.
    """
    X, y = checked_data(X, y)
    if len(y) < 1 or n_starts < 1 or (noise is not None and not 0.0 <= noise < math.inf):
        raise ValueError(f"need n >= 1, n_starts >= 1, finite noise >= 0; got {len(y)}, {n_starts}, {noise}")
    y_mean, y_scale = standardisation(y)
    target = _MapObjective(X, (y - y_mean) / y_scale, noise)
    theta = min((_search(target, start) for start in target.starts(rng, n_starts)), key=target.value)
    value, constant = -target.value(theta), target.constant(theta)
    lengthscales, variance = target.split(theta)
    return GaussianProcess(
        X=X,
        y=y,
        y_mean=y_mean,
        y_scale=y_scale,
        lengthscales=lengthscales,
        noise=variance,
        constant=constant,
        objective=value,
    )


class _Solved(NamedTuple):
    """What the value and the gradient share: `S`, `K`, its factor, `mu`, `alpha` and `v`."""

    S: FloatArray
    K: FloatArray
    factor: FloatArray
    constant: float
    alpha: FloatArray
    noise: float


class _MapObjective:
    """Negative MAP objective per data point, as a function of theta.

    Args:
        X: `n x d` inputs.
        z: `n` standardised targets.
        noise: Fixed noise variance, or None to fit it.
    """

    def __init__(self, X: FloatArray, z: FloatArray, noise: float | None) -> None:
        n, d = X.shape
        self._X, self._z, self._noise = X - X.mean(axis=0), z, noise
        self._right = np.asfortranarray(np.stack([np.ones(n), z], axis=1))
        fitted = int(noise is None)
        self._loc = np.r_[np.full(d, _LENGTHSCALE_LOC + 0.5 * math.log(d)), np.full(fitted, _NOISE_LOC)]
        self._spread = np.r_[np.full(d, _LENGTHSCALE_SCALE), np.full(fitted, _NOISE_SCALE)]
        self.bounds = np.log([_LENGTHSCALE_BOUNDS] * d + [_NOISE_BOUNDS] * fitted)

    def starts(self, rng: np.random.Generator, count: int) -> Iterator[FloatArray]:
        """The mode of the prior, then draws from the prior, clipped to the bounds."""
        lower, upper = self.bounds.T
        yield np.clip(self._loc - self._spread**2, lower, upper)
        for _ in range(count - 1):
            yield np.clip(rng.normal(self._loc, self._spread), lower, upper)

    def split(self, theta: FloatArray) -> tuple[FloatArray, float]:
        """`d` lengthscales and the noise variance."""
        d = self._X.shape[1]
        return np.exp(theta[:d]), math.exp(theta[d]) if self._noise is None else self._noise

    def value(self, theta: FloatArray) -> float:
        """The objective alone."""
        return self._value(theta, self._solve(theta))

    def constant(self, theta: FloatArray) -> float:
        """The best `mu` for a theta."""
        return self._solve(theta).constant

    def __call__(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """The objective and its gradient."""
        solved = self._solve(theta)
        slope = self._likelihood_slope(solved) - 1.0 - (theta - self._loc) / self._spread**2
        return self._value(theta, solved), -slope / len(self._z)

    def _solve(self, theta: FloatArray) -> _Solved:
        """Factor K; `mu = 1^T K^-1 z / 1^T K^-1 1`."""
        lengthscales, noise = self.split(theta)
        S = self._X / lengthscales
        K = _noisy(_kernel(S, S), noise)
        factor = factor_of(K)
        ones, targets = lapack.dpotrs(factor, self._right, lower=1)[0].T
        constant = float(targets.sum() / ones.sum())
        return _Solved(S, K, factor, constant, targets - constant * ones, noise)

    def _value(self, theta: FloatArray, solved: _Solved) -> float:
        n = len(self._z)
        fit = 0.5 * float(solved.alpha @ (self._z - solved.constant)) + float(np.log(solved.factor.diagonal()).sum())
        standard = (theta - self._loc) / self._spread
        prior = float((theta + np.log(self._spread) + 0.5 * standard**2).sum())
        return (fit + prior + 0.5 * math.log(2.0 * math.pi) * (n + len(theta))) / n

    def _likelihood_slope(self, solved: _Solved) -> FloatArray:
        r"""Derivatives of the log marginal likelihood in theta, $\frac12 tr[(\alpha \alpha^T - K^{-1}) \partial K]$.

        With $A = \frac12 (\alpha \alpha^T - K^{-1}) \circ K$ the lengthscale $k$ has $\sum_{ij} A_{ij} (S_{ik} -
        S_{jk})^2 = \sum_i S_{ik}^2 a_i - 2 \sum_i S_{ik} (A S)_{ik}$, $a$ the row plus column sums of $A$: two matrix
        products. LAPACK gives one triangle of the inverse, which counts twice here.
        """
        inverse = lapack.dpotri(solved.factor, lower=1)[0].T
        alpha = solved.alpha
        A = np.multiply.outer(0.5 * alpha, alpha)
        A -= inverse
        A *= solved.K
        np.fill_diagonal(A, 0.0)
        S = solved.S
        slope: FloatArray = (A.sum(axis=0) + A.sum(axis=1)) @ S**2 - 2.0 * np.einsum("nd,nd->d", S, A @ S)
        if self._noise is not None:
            return slope
        return np.append(slope, 0.5 * solved.noise * (alpha @ alpha - inverse.trace()))


def _search(target: _MapObjective, start: FloatArray) -> FloatArray:
    result = minimize(
        target,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(*target.bounds.T),
        options={"maxiter": 200, "ftol": 1e-8, "gtol": 1e-5},
    )
    return np.asarray(result.x, dtype=np.float64)


def _kernel(A: FloatArray, B: FloatArray) -> FloatArray:
    """`a x b`, `exp(-|A_i - B_j|^2 / 2)` of scaled inputs `A: a x d`, `B: b x d`."""
    K = A @ B.T
    K -= 0.5 * np.einsum("ad,ad->a", A, A)[:, None]
    K -= 0.5 * np.einsum("bd,bd->b", B, B)
    return np.exp(np.minimum(K, 0.0, out=K), out=K)


def _noisy(K: FloatArray, noise: float) -> FloatArray:
    """`K: n x n` with its diagonal set to `1 + noise`, in place."""
    np.fill_diagonal(K, 1.0 + noise)
    return K


def factor_of(K: FloatArray) -> FloatArray:
    """Lower factor of `K: n x n`, with the smallest jitter of the ladder that makes it positive definite."""
    for jitter in _JITTERS:
        noisy = K.T if jitter == 0.0 else K.T + jitter * np.eye(len(K))
        factor: FloatArray
        factor, info = lapack.dpotrf(noisy, lower=1, clean=1)
        if info == 0:
            return factor
    raise np.linalg.LinAlgError(f"the kernel matrix of {len(K)} points is not positive definite, even with jitter")


def checked_data(X: FloatArray, y: FloatArray, d: int | None = None) -> tuple[FloatArray, FloatArray]:
    X, y = np.array(X, dtype=np.float64), np.array(y, dtype=np.float64)
    if X.ndim != 2 or y.ndim != 1 or len(X) != len(y) or X.shape[1] < 1 or d not in (None, X.shape[1]):
        raise ValueError(f"expected X: n x {d or 'd'} and y: n; got {X.shape} and {y.shape}")
    if not (np.isfinite(X).all() and np.isfinite(y).all()):
        raise ValueError("X and y must be finite; drop failed evaluations before the fit")
    return X, y


def standardisation(y: FloatArray) -> tuple[float, float]:
    """Mean and sample standard deviation of `y: n`; the latter 1 where `y` is constant up to rounding.

    BoTorch compares the deviation with 1e-8, whatever the unit; the comparison with `max|y|` lets a target in tiny
    units, such as a price per token, be standardised too.
    """
    largest = float(np.abs(y).max()) or 1.0
    share = y / largest
    spread = float(share.std(ddof=1)) if len(y) > 1 else 0.0
    return float(share.mean()) * largest, spread * largest if spread > _CONSTANT_SPREAD else 1.0
