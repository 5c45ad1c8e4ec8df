r"""Rates that change: points of a unit-rate process, carried to real time by inverting the integrated rate.

With $\Lambda(t) = \int_0^t \lambda$, points $u_i$ of a process with one arrival per unit of time become
$t_i = \Lambda^{-1}(u_i)$. Poisson points become a Poisson process with rate $\lambda(t)$; other renewal points keep
their gaps in units of the local mean gap. Rates here are linear between knots, so the inverse is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.arrivals.specs import DiurnalSpec, MmppSpec
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray

_MOST_STAYS = 20_000_000
_FIRST_BLOCK = 64


@dataclass(frozen=True, kw_only=True)
class RateCurve:
    """A rate that is linear on each of J pieces.

    Attributes:
        knot_s: `J + 1` ascending instants, the first 0.
        left, right: `J` rates at the two ends of each piece, per second.
    """

    knot_s: FloatArray
    left: FloatArray
    right: FloatArray

    @property
    def integral(self) -> FloatArray:
        """`J + 1` values of the integrated rate at the knots."""
        area = 0.5 * (self.left + self.right) * np.diff(self.knot_s)
        return np.concatenate([[0.0], np.cumsum(area)])

    def integrated(self, t_s: FloatArray) -> FloatArray:
        """Integrated rate up to each instant within the knots."""
        j = np.clip(np.searchsorted(self.knot_s, t_s, side="right") - 1, 0, len(self.left) - 1)
        u = t_s - self.knot_s[j]
        slope = (self.right - self.left)[j] / np.diff(self.knot_s)[j]
        return np.asarray(self.integral[j] + u * (self.left[j] + 0.5 * slope * u))

    def inverse(self, area: FloatArray) -> FloatArray:
        """Instant at which the integrated rate reaches each `area` in [0, total)."""
        integral = self.integral
        j = np.clip(np.searchsorted(integral, area, side="right") - 1, 0, len(self.left) - 1)
        rest = area - integral[j]
        width = np.diff(self.knot_s)[j]
        slope = (self.right - self.left)[j] / width
        root = np.sqrt(np.maximum(self.left[j] ** 2 + 2.0 * slope * rest, 0.0))
        divisor = self.left[j] + root
        u = np.divide(2.0 * rest, divisor, out=np.zeros_like(rest), where=divisor > 0.0)
        return np.asarray(self.knot_s[j] + np.minimum(u, width))


def day_curve(spec: DiurnalSpec) -> RateCurve:
    """One period of a diurnal rate, at load 1."""
    curve = np.array(spec.curve)
    following = np.roll(curve, -1) if spec.interpolation == "linear" else curve
    unit = spec.rate_per_s / float(np.mean(0.5 * (curve + following)))
    knot_s = np.linspace(0.0, spec.period_s, len(curve) + 1)
    return RateCurve(knot_s=knot_s, left=curve * unit, right=following * unit)


def day_area(spec: DiurnalSpec, curve: RateCurve, t_s: float) -> float:
    """Integrated rate from the start of the period that holds instant 0 to `t_s` after it."""
    rounds, rest = divmod(t_s, spec.period_s)
    return float(rounds * spec.rate_per_s * spec.period_s + curve.integrated(np.array([rest]))[0])


def day_instants(spec: DiurnalSpec, curve: RateCurve, area: FloatArray) -> FloatArray:
    """Inverse of `day_area`."""
    rounds, rest = np.divmod(area, curve.integral[-1])
    return np.asarray(rounds * spec.period_s + curve.inverse(rest))


def stationary_shares(spec: MmppSpec) -> FloatArray:
    """Share of time in each state; both ways of switching visit all states equally often."""
    stay_s = np.array(spec.mean_stay_s)
    return np.asarray(stay_s / stay_s.sum())


def state_path(spec: MmppSpec, duration_s: float, rng: np.random.Generator) -> RateCurve:
    """The rate over one path of the states, from stationarity to at least `duration_s`, at load 1.

    An exponential stay has no memory, so the first one needs no correction.

    Raises:
        ConfigError: If the states change so often that the path would not fit in memory.
    """
    if duration_s / min(spec.mean_stay_s) > _MOST_STAYS:
        raise ConfigError(
            f"mmpp: a stay of {min(spec.mean_stay_s):g} s is too short for {duration_s:g} s of simulation; "
            f"the most is {_MOST_STAYS:,} stays"
        )
    stay_rng, jump_rng = rng.spawn(2)
    first = int(jump_rng.choice(len(spec.rates_per_s), p=stationary_shares(spec)))
    states, stays_s, total_s, size = [], [], 0.0, _FIRST_BLOCK
    while total_s < duration_s:
        block = _next_states(spec, first, size, jump_rng)
        first = int(block[-1])
        states.append(block[:-1])
        stays_s.append(np.array(spec.mean_stay_s)[block[:-1]] * stay_rng.standard_exponential(size))
        total_s, size = total_s + float(stays_s[-1].sum()), 2 * size
    rate = np.array(spec.rates_per_s)[np.concatenate(states)]
    knot_s = np.concatenate([[0.0], np.cumsum(np.concatenate(stays_s))])
    return RateCurve(knot_s=knot_s, left=rate, right=rate)


def _next_states(spec: MmppSpec, first: int, n: int, rng: np.random.Generator) -> IntArray:
    """`n + 1` states from `first` on."""
    m = len(spec.rates_per_s)
    steps = np.ones(n, dtype=np.int64) if spec.switching == "cyclic" else rng.integers(1, m, n)
    return np.asarray((first + np.concatenate([[0], np.cumsum(steps)])) % m, dtype=np.int64)
