r"""Renewal processes in stationarity, in units of the mean gap.

Notation: X a gap with mean 1 and coefficient of variation c; k its shape, s its scale.

    gamma      $k = 1 / c^2$, $s = 1 / k$
    Weibull    $c^2 = \Gamma(1 + 2/k) / \Gamma(1 + 1/k)^2 - 1$ solved for k, $s = 1 / \Gamma(1 + 1/k)$

The first arrival is an equilibrium residual: U times a length-biased gap (gamma: shape k + 1; Weibull:
$s G^{1/k}$ with G gamma of shape $1 + 1/k$). So the process looks the same from every instant, and the expected number
of arrivals in any span is rate times length, however bursty the gaps are. An ordinary start would put a cluster at 0.

Points are drawn in blocks that do not depend on how many are wanted: a longer simulation, or a higher load, continues
the same sequence to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import elementwise
from scipy.special import gammainc, gammaincinv, gammaln

from simulators.arrivals.specs import Family
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray

MOST_ARRIVALS = 50_000_000

_FIRST_BLOCK, _LARGEST_BLOCK = 64, 1 << 20
_LOG_WEIBULL_SHAPES = (-4.0, 12.0)  # cv from over 1e6 down to 1e-5


@dataclass(frozen=True, kw_only=True)
class GapLaw:
    """Distribution of the gaps, with mean 1.

    Attributes:
        family: Gamma (with shape 1: exponential) or Weibull.
        shape: k.
    """

    family: Family
    shape: float

    @property
    def cv(self) -> float:
        """Standard deviation over mean."""
        if self.family == "gamma":
            return 1.0 / math.sqrt(self.shape)
        return math.sqrt(math.expm1(_log_second_moment(self.shape)))

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """`n` gaps."""
        if self.family == "gamma":
            return rng.standard_exponential(n) if self.shape == 1.0 else rng.standard_gamma(self.shape, n) / self.shape
        return rng.weibull(self.shape, n) * self._scale

    def residual(self, rng: np.random.Generator) -> float:
        """Time to the next arrival at an instant chosen without regard to the arrivals."""
        if self.family == "gamma":
            biased = rng.standard_gamma(self.shape + 1.0) / self.shape
        else:
            biased = self._scale * rng.standard_gamma(1.0 + 1.0 / self.shape) ** (1.0 / self.shape)
        return float(rng.random() * biased)

    def cdf(self, gaps: FloatArray) -> FloatArray:
        """P(X <= gap) of each gap."""
        if self.family == "gamma":
            return np.asarray(gammainc(self.shape, gaps * self.shape))
        return np.asarray(-np.expm1(-((gaps / self._scale) ** self.shape)))

    def quantile(self, p: FloatArray) -> FloatArray:
        """Gaps at the levels `p` in [0, 1)."""
        if self.family == "gamma":
            return np.asarray(gammaincinv(self.shape, p) / self.shape)
        return np.asarray(self._scale * (-np.log1p(-p)) ** (1.0 / self.shape))

    def log_density(self, gaps: FloatArray) -> FloatArray:
        """Of positive gaps."""
        k = self.shape
        if self.family == "gamma":
            return np.asarray((k - 1.0) * np.log(gaps) - gaps * k + k * math.log(k) - gammaln(k))
        scaled = gaps / self._scale
        return np.asarray(math.log(k / self._scale) + (k - 1.0) * np.log(scaled) - scaled**k)

    @property
    def _scale(self) -> float:
        return math.exp(-float(gammaln(1.0 + 1.0 / self.shape)))


def gap_law(family: Family, cv: float) -> GapLaw:
    """The law with mean 1 and this coefficient of variation."""
    shape = 1.0 if cv == 1.0 else cv**-2.0 if family == "gamma" else float(weibull_shapes(np.array([cv]))[0])
    return GapLaw(family=family, shape=shape)


def weibull_shapes(cv: FloatArray) -> FloatArray:
    """Weibull shapes with these coefficients of variation."""
    wanted = np.log1p(cv**2)
    low, high = (np.full(len(cv), bound) for bound in _LOG_WEIBULL_SHAPES)
    found = elementwise.find_root(_excess, (low, high), args=(wanted,))
    return np.asarray(np.exp(found.x))


def _excess(log_shape: FloatArray, wanted: FloatArray) -> FloatArray:
    return _log_second_moment(np.exp(log_shape)) - wanted


def _log_second_moment(shape: FloatArray | float) -> FloatArray:
    """log E X^2 of a Weibull gap with mean 1."""
    return np.asarray(gammaln(1.0 + 2.0 / shape) - 2.0 * gammaln(1.0 + 1.0 / shape))


def unit_points(law: GapLaw, end: float, rng: np.random.Generator) -> FloatArray:
    """Arrivals in `[0, end)` of the stationary process with one arrival per unit of time, ascending.

    Raises:
        ConfigError: If there would be more than `MOST_ARRIVALS`.
    """
    check_size(end)
    last, size = law.residual(rng), _FIRST_BLOCK
    blocks = [np.array([last])]
    while last < end:
        blocks.append(last + np.cumsum(law.draw(size, rng)))
        last, size = float(blocks[-1][-1]), min(2 * size, _LARGEST_BLOCK)
    points = np.concatenate(blocks)
    return points[: np.searchsorted(points, end, side="left")]


def check_size(expected: float) -> None:
    """Raise ConfigError if a simulation would draw more than `MOST_ARRIVALS`."""
    if expected > MOST_ARRIVALS:
        raise ConfigError(
            f"arrivals: this asks for about {expected:.2g} requests, the most is {MOST_ARRIVALS:,}; lower the rate, "
            "the load or the duration"
        )
