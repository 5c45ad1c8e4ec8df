r"""The kernel of `boute` and the objective of its MAP fit.

    k = a_tau k_tau(tau, tau') + a_c w(c) w(c') k_c(c, c') + phi k_tau(tau, tau') k_c(c, c'),    w(c) = exp(beta p(c))

with k_tau an ARD Matern-5/2 and k_c an ARD Matern-3/2 kernel, which the terms share ([Boute2026]_, section 4).

Notation:
    X: n x (R + D + 1 ...)  inputs: R routing features, D deployment features, the preference p; more is ignored
    z: n                    standardised targets
    S: n x R or n x D       features divided by the lengthscales
    T, C: n x n             k_tau and k_c of the inputs
    W: n x n                w w^T
    v                       noise variance of z, kept small: what the terms cannot follow, evaluations are noise-free
    mu                      constant mean of z, at its generalised least squares value
    theta                   log l_tau (R), log l_c (D), log a_tau, log a_c, log phi, beta, log v; without what is off

The fit maximises [ log N(z | mu, K + v I) + log priors ] / n. Priors are on the values, not on their logarithms, as in
BoTorch: l ~ LogNormal(sqrt 2 + log(d) / 2, sqrt 3) with d the features of its kernel (BoTorch's own),
a ~ LogNormal(log 1/2, 1), phi ~ LogNormal(log 0.05, 1), beta ~ N(0, 1), v ~ LogNormal(-4, 1) (BoTorch's own).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from simulators.outcomes import FloatArray
from toolkit.search.gaussian_process import factor_of

_ROOT_3, _ROOT_5 = math.sqrt(3.0), math.sqrt(5.0)
LENGTHSCALE_LOC, LENGTHSCALE_SCALE = math.sqrt(2.0), math.sqrt(3.0)
SCALE_LOC, PHI_LOC, NOISE_LOC, SPREAD = math.log(0.5), math.log(0.05), -4.0, 1.0
LENGTHSCALE_BOUNDS, SCALE_BOUNDS, PHI_BOUNDS = (0.025, 1e3), (1e-3, 1e2), (1e-4, 10.0)
BETA_BOUNDS = (-2.0, 2.0)
NOISE_BOUNDS = (1e-4, 1e-1)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which columns of X are what, and which terms the kernel has.

    Attributes:
        n_routing, n_deployment: R and D.
        joint: Whether the kernel sees deployments at all; `a_tau k_tau` alone where not.
        preference: Whether beta is fitted; 0 where not.
        interaction: Whether phi is fitted; 0 where not.
    """

    n_routing: int
    n_deployment: int
    joint: bool = True
    preference: bool = True
    interaction: bool = True

    @property
    def dims(self) -> tuple[int, int]:
        """Numbers of lengthscales of k_tau and of k_c."""
        return self.n_routing, self.n_deployment if self.joint else 0

    def split(self, X: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """`n x R` routing features, `n x D` deployment features, `n` preferences."""
        end = self.n_routing + self.n_deployment
        return X[:, : self.n_routing], X[:, self.n_routing : end], X[:, end]


@dataclass(frozen=True, kw_only=True, eq=False)
class Hyper:
    """Hyper-parameters; letters as in the module.

    Attributes:
        l_tau, l_c: `R` and `D` lengthscales; the latter empty where deployments are not seen.
        a_tau, a_c, phi, beta, noise: Scales of the terms, slope of the log weight, noise variance.
    """

    l_tau: FloatArray
    l_c: FloatArray
    a_tau: float
    a_c: float = 0.0
    phi: float = 0.0
    beta: float = 0.0
    noise: float = NOISE_BOUNDS[0]


class Parameter(NamedTuple):
    """One entry of theta: prior location and spread, bounds, and whether it is the log of a positive number."""

    loc: float
    spread: float
    bounds: tuple[float, float]
    log: bool = True


def parameters(layout: Layout) -> list[Parameter]:
    """The entries of theta, in order."""
    found = []
    for d in layout.dims:
        found += [Parameter(LENGTHSCALE_LOC + 0.5 * math.log(max(d, 1)), LENGTHSCALE_SCALE, LENGTHSCALE_BOUNDS)] * d
    found.append(Parameter(SCALE_LOC, SPREAD, SCALE_BOUNDS))
    if layout.joint:
        found.append(Parameter(SCALE_LOC, SPREAD, SCALE_BOUNDS))
        found += [Parameter(PHI_LOC, SPREAD, PHI_BOUNDS)] * layout.interaction
        found += [Parameter(0.0, 1.0, BETA_BOUNDS, log=False)] * layout.preference
    return [*found, Parameter(NOISE_LOC, SPREAD, NOISE_BOUNDS)]


def hyper_of(layout: Layout, theta: FloatArray) -> Hyper:
    """Hyper-parameters of a theta."""
    R, D = layout.dims
    rest = iter(theta[R + D :].tolist())
    a_tau = math.exp(next(rest))
    a_c = math.exp(next(rest)) if layout.joint else 0.0
    phi = math.exp(next(rest)) if layout.joint and layout.interaction else 0.0
    beta = next(rest) if layout.joint and layout.preference else 0.0
    lengthscales = np.exp(theta[: R + D])
    return Hyper(
        l_tau=lengthscales[:R],
        l_c=lengthscales[R:],
        a_tau=a_tau,
        a_c=a_c,
        phi=phi,
        beta=beta,
        noise=math.exp(next(rest)),
    )


def theta_of(layout: Layout, hyper: Hyper) -> FloatArray:
    """The theta of hyper-parameters."""
    logs = [*np.log(hyper.l_tau), *np.log(hyper.l_c), math.log(hyper.a_tau)]
    if layout.joint:
        logs.append(math.log(hyper.a_c))
        logs += [math.log(hyper.phi)] if layout.interaction else []
        logs += [hyper.beta] if layout.preference else []
    return np.array([*logs, math.log(hyper.noise)])


def kernel_matrix(layout: Layout, hyper: Hyper, A: FloatArray, B: FloatArray) -> FloatArray:
    """`a x b`, k between inputs `A: a x ...` and `B: b x ...`, without noise."""
    (A_tau, A_c, A_p), (B_tau, B_c, B_p) = layout.split(A), layout.split(B)
    T = _matern_5(_distances(A_tau / hyper.l_tau, B_tau / hyper.l_tau))[0]
    if not layout.joint:
        return hyper.a_tau * T
    C = _matern_3(_distances(A_c / hyper.l_c, B_c / hyper.l_c))[0]
    own = np.multiply.outer(hyper.a_c * np.exp(hyper.beta * A_p), np.exp(hyper.beta * B_p))
    own += hyper.phi * T
    own *= C
    T *= hyper.a_tau
    own += T
    return own


def prior_variance(layout: Layout, hyper: Hyper, A: FloatArray) -> FloatArray:
    """`a`, k of each input with itself."""
    preference = layout.split(A)[2] if layout.joint else np.zeros(len(A))
    return np.asarray(hyper.a_tau + hyper.phi + hyper.a_c * np.exp(2.0 * hyper.beta * preference))


class MapObjective:
    """Negative MAP objective per data point, as a function of theta.

    Args:
        layout: Columns and terms.
        X: `n x (R + D + 1 ...)` inputs.
        z: `n` standardised targets.
    """

    def __init__(self, layout: Layout, X: FloatArray, z: FloatArray) -> None:
        self._layout, self._z = layout, z
        tau, c, self._p = layout.split(X)
        self._tau, self._c = tau - tau.mean(axis=0), c - c.mean(axis=0)
        self._right = np.asfortranarray(np.stack([np.ones(len(z)), z], axis=1))
        entries = parameters(layout)
        self._loc = np.array([e.loc for e in entries])
        self._spread = np.array([e.spread for e in entries])
        self._log = np.array([e.log for e in entries], dtype=np.float64)
        self.bounds = np.array([np.log(e.bounds) if e.log else e.bounds for e in entries])

    def default(self) -> FloatArray:
        """The mode of the lengthscales' prior, where BoTorch starts too, and the medians of the others."""
        start = self._loc.copy()
        n_lengthscales = sum(self._layout.dims)
        start[:n_lengthscales] -= self._spread[:n_lengthscales] ** 2
        return self._inside(start)

    def draw(self, rng: np.random.Generator) -> FloatArray:
        """A draw from the prior, clipped to the bounds."""
        return self._inside(rng.normal(self._loc, self._spread))

    def _inside(self, theta: FloatArray) -> FloatArray:
        return np.asarray(np.clip(theta, self.bounds[:, 0], self.bounds[:, 1]))

    def value(self, theta: FloatArray) -> float:
        """The objective alone."""
        return self(theta)[0]

    def constant(self, theta: FloatArray) -> float:
        """The best `mu` for a theta."""
        return self._solve(hyper_of(self._layout, theta))[1]

    def __call__(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """The objective and its gradient."""
        n = len(self._z)
        solved, mu, factor, alpha = self._solve(hyper_of(self._layout, theta))
        standard = (theta - self._loc) / self._spread
        fit = 0.5 * float(alpha @ (self._z - mu)) + float(np.log(factor.diagonal()).sum())
        prior = float((self._log * theta + np.log(self._spread) + 0.5 * standard**2).sum())
        value = (fit + prior + 0.5 * math.log(2.0 * math.pi) * (n + len(theta))) / n
        slope = self._likelihood_slope(solved, factor, alpha) - self._log - standard / self._spread
        return value, -slope / n

    def _solve(self, hyper: Hyper) -> tuple[_Terms, float, FloatArray, FloatArray]:
        """The terms, mu, the factor of K + v I, and alpha = (K + v I)^-1 (z - mu)."""
        terms = self._terms(hyper)
        noisy = terms.K.copy()
        noisy.flat[:: len(noisy) + 1] += hyper.noise
        factor = factor_of(noisy)
        ones, targets = lapack.dpotrs(factor, self._right, lower=1)[0].T
        mu = float(targets.sum() / ones.sum())
        return terms, mu, factor, targets - mu * ones

    def _terms(self, hyper: Hyper) -> _Terms:
        S_tau = self._tau / hyper.l_tau
        T, dT = _matern_5(_distances(S_tau, S_tau))
        if not self._layout.joint:
            empty = np.empty((0, 0))
            return _Terms(hyper, hyper.a_tau * T, S_tau, S_tau, T, dT, empty, empty, empty)
        S_c = self._c / hyper.l_c
        C, dC = _matern_3(_distances(S_c, S_c))
        w = np.exp(hyper.beta * self._p)
        weight = np.multiply.outer(hyper.a_c * w, w)
        K = hyper.a_tau * T + (weight + hyper.phi * T) * C
        return _Terms(hyper, K, S_tau, S_c, T, dT, C, dC, weight)

    def _likelihood_slope(self, terms: _Terms, factor: FloatArray, alpha: FloatArray) -> FloatArray:
        r"""Derivatives of the log marginal likelihood in theta, $\frac12 tr[(\alpha\alpha^T - K^{-1}) \partial K]$."""
        lower = lapack.dpotri(factor, lower=1)[0]
        A = np.multiply.outer(0.5 * alpha, alpha)
        A -= 0.5 * (lower + lower.T)
        A.flat[:: len(A) + 1] += 0.5 * lower.diagonal()
        hyper, layout = terms.hyper, self._layout
        AT = A * terms.T
        scales = [hyper.a_tau * AT.sum()]
        noise = hyper.noise * A.trace()
        if not layout.joint:
            return np.concatenate([_slope(hyper.a_tau * A * terms.dT, terms.S_tau), scales, [noise]])
        own = A * terms.weight
        own_C = own * terms.C
        scales.append(own_C.sum())
        if layout.interaction:
            scales.append(hyper.phi * float(np.vdot(AT, terms.C)))
        if layout.preference:
            scales.append(2.0 * float(self._p @ own_C.sum(axis=1)))
        by_tau = _slope((hyper.a_tau + hyper.phi * terms.C) * A * terms.dT, terms.S_tau)
        by_c = _slope((own + hyper.phi * AT) * terms.dC, terms.S_c)
        return np.concatenate([by_tau, by_c, scales, [noise]])


class _Terms(NamedTuple):
    """K and its parts; `dT` and `dC` are the derivatives of T and C in a log lengthscale, over its squared step."""

    hyper: Hyper
    K: FloatArray
    S_tau: FloatArray
    S_c: FloatArray
    T: FloatArray
    dT: FloatArray
    C: FloatArray
    dC: FloatArray
    weight: FloatArray


def _slope(W: FloatArray, S: FloatArray) -> FloatArray:
    """`d`, sum over i, j of `W_ij (S_ik - S_jk)^2` for a symmetric `W: n x n`: two matrix products."""
    return np.asarray(2.0 * (W.sum(axis=1) @ S**2 - np.einsum("nd,nd->d", S, W @ S)))


def _distances(A: FloatArray, B: FloatArray) -> FloatArray:
    """`a x b` Euclidean distances of scaled inputs."""
    squared = A @ (-2.0 * B.T)
    squared += np.einsum("ad,ad->a", A, A)[:, None]
    squared += np.einsum("bd,bd->b", B, B)
    np.maximum(squared, 0.0, out=squared)
    if A is B:
        np.fill_diagonal(squared, 0.0)
    return np.sqrt(squared, out=squared)


def _matern_5(r: FloatArray) -> tuple[FloatArray, FloatArray]:
    """`(1 + s + s^2 / 3) exp(-s)` with `s = sqrt(5) r`, and `5/3 (1 + s) exp(-s)`."""
    s = _ROOT_5 * r
    decay = np.exp(-s)
    slope = (1.0 + s) * decay
    return slope + s * s / 3.0 * decay, 5.0 / 3.0 * slope


def _matern_3(r: FloatArray) -> tuple[FloatArray, FloatArray]:
    """`(1 + s) exp(-s)` with `s = sqrt(3) r`, and `3 exp(-s)`."""
    s = _ROOT_3 * r
    decay = np.exp(-s)
    return (1.0 + s) * decay, 3.0 * decay
