"""An exact Gaussian process with `boute`'s kernel, and its MAP fit.

Notation as in `boute_kernel`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.linalg import lapack, solve_triangular
from scipy.optimize import Bounds, minimize

from simulators.outcomes import FloatArray
from toolkit.search.boute_kernel import Hyper, Layout, MapObjective, hyper_of, kernel_matrix, prior_variance
from toolkit.search.gaussian_process import checked_data, factor_of, standardisation

_VARIANCE_FLOOR = 1e-12  # of the standardised latent function


@dataclass(frozen=True, eq=False, kw_only=True)
class StructuredProcess:
    """A posterior at fixed hyper-parameters.

    Attributes:
        layout: Columns and terms of the kernel.
        X: `n x (R + D + 1 ...)` inputs.
        y: `n` targets, in their own units.
        y_mean, y_scale: What standardises `y`; the scale is 1 for a constant target.
        hyper: Hyper-parameters, of the standardised targets.
        constant: Prior mean of the standardised targets.
        objective: Value of the fit's objective (per data point); `condition_on` leaves it as it was.
        theta: Where the fit ended.
    """

    layout: Layout
    X: FloatArray
    y: FloatArray
    y_mean: float
    y_scale: float
    hyper: Hyper
    constant: float
    objective: float
    theta: FloatArray
    _factor: FloatArray = field(init=False, repr=False)
    _alpha: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        K = kernel_matrix(self.layout, self.hyper, self.X, self.X)
        K.flat[:: len(K) + 1] = prior_variance(self.layout, self.hyper, self.X) + self.hyper.noise
        factor = factor_of(K)
        residual = (self.y - self.y_mean) / self.y_scale - self.constant
        object.__setattr__(self, "_factor", factor)
        object.__setattr__(self, "_alpha", lapack.dpotrs(factor, residual, lower=1)[0])

    def predict(self, Xs: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Posterior of the latent function in the units of `y`: `r` means and `r` positive standard deviations."""
        k = kernel_matrix(self.layout, self.hyper, Xs, self.X)
        v = solve_triangular(self._factor, k.T, lower=True, check_finite=False, overwrite_b=False)
        variance = prior_variance(self.layout, self.hyper, Xs) - np.einsum("nr,nr->r", v, v)
        mean = self.y_mean + self.y_scale * (self.constant + k @ self._alpha)
        return mean, self.y_scale * np.sqrt(np.maximum(variance, _VARIANCE_FLOOR))

    def predict_with_gradient(self, Xs: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Not offered: deployments are discrete, and load fractions are searched on what can be realised."""
        raise NotImplementedError

    def condition_on(self, X_new: FloatArray, y_new: FloatArray) -> StructuredProcess:
        """The posterior after further observations; hyper-parameters and standardisation stay.

        Args:
            X_new: `q x (R + D + 1 ...)` inputs.
            y_new: `q` targets, in the units of `y`.
        """
        X_new, y_new = checked_data(X_new, y_new, d=self.X.shape[1])
        return replace(self, X=np.vstack([self.X, X_new]), y=np.concatenate([self.y, y_new]))


def fit_structured(
    layout: Layout,
    X: FloatArray,
    y: FloatArray,
    *,
    starts: Sequence[FloatArray] = (),
    draws: int = 0,
    rng: np.random.Generator | None = None,
    most_steps: int = 60,
    default: bool = True,
) -> StructuredProcess:
    """Fit hyper-parameters by maximum a posteriori from the best of several local searches.

    Args:
        layout: Columns and terms of the kernel.
        X: `n x (R + D + 1 ...)` inputs; features in [0, 1].
        y: `n` targets.
        starts: Thetas to start from.
        draws: Further starts, drawn from the prior with `rng`.
        rng: Source of the draws; needed if there are any.
        most_steps: Iterations of each local search.
        default: Whether the prior's default is a start too.

    Raises:
        ValueError: If a value is not finite, shapes do not fit, or there is no start.
    """
    X, y = checked_data(X, y)
    y_mean, y_scale = standardisation(y)
    target = MapObjective(layout, X, (y - y_mean) / y_scale)
    begin = [*([target.default()] if default else []), *starts]
    begin += [target.draw(rng) for _ in range(draws)] if rng is not None else []
    if not begin:
        raise ValueError("a fit needs at least one start")
    found = [_search(target, start, most_steps) for start in begin]
    value, theta = min(found, key=lambda pair: pair[0])
    return StructuredProcess(
        layout=layout,
        X=X,
        y=y,
        y_mean=y_mean,
        y_scale=y_scale,
        hyper=hyper_of(layout, theta),
        constant=target.constant(theta),
        objective=-value,
        theta=theta,
    )


def _search(target: MapObjective, start: FloatArray, most_steps: int) -> tuple[float, FloatArray]:
    result = minimize(
        target,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(*target.bounds.T),
        options={"maxiter": most_steps, "ftol": 1e-6, "gtol": 1e-4},
    )
    return float(result.fun), np.asarray(result.x, dtype=np.float64)
