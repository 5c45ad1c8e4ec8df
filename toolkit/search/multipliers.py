r"""Multipliers of constraints: dual ascent, and the PID form of it.

Notation: shape `s` is any (one multiplier, one per constraint, one per constraint and bin of the target). `shortfall`
is `-slack`: positive where a constraint is violated. Multipliers are never negative.

References:
    [Stooke2020] A. Stooke, J. Achiam, P. Abbeel, Responsive safety in reinforcement learning by PID Lagrangian methods,
    ICML 2020.
    [Proteus2026] A. Bhatti, V. Vaddina, D. Birru, PROTEUS, arXiv 2601.19402, 2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray


@dataclass(frozen=True, kw_only=True)
class DualState:
    """Multipliers and what their rule remembers, all of one shape `s`.

    Attributes:
        value: The multipliers, >= 0.
        integral: Sum of past shortfalls, in multiplier units for `PidDual`; unused by `GradientDual`.
        previous: The last shortfall; NaN before the first.
    """

    value: FloatArray
    integral: FloatArray
    previous: FloatArray


class Dual(Protocol):
    """A rule for multipliers; the state is explicit, so that it can be stored."""

    def init(self, shape: tuple[int, ...]) -> DualState:
        """Multipliers at their start."""
        ...

    def step(self, state: DualState, shortfall: FloatArray) -> DualState:
        """Multipliers after one observation of `shortfall: s`; NaN leaves an entry as it is."""
        ...


@dataclass(frozen=True, kw_only=True)
class GradientDual:
    r"""$\lambda \leftarrow \min(\bar\lambda, \max(0, \lambda + \eta\, w\, e))$, eq. (3) of [Proteus2026]_ with $w = 1$.

    Attributes:
        step_size: eta.
        relative: `w = 1 + lambda` instead of 1: steps in proportion, for multipliers that span orders of magnitude.
        start: Multiplier at the start.
        most: Upper limit, for constraints that nothing meets.
    """

    step_size: float = 0.4
    relative: bool = False
    start: float = 0.0
    most: float = 1e4

    def __post_init__(self) -> None:
        if not (self.step_size > 0 and 0 <= self.start <= self.most):
            got = f"{self.step_size}, {self.start}, {self.most}"
            raise ConfigError(f"a multiplier needs step_size > 0 and 0 <= start <= most; got {got}")

    def init(self, shape: tuple[int, ...]) -> DualState:
        """See `Dual`."""
        return _start(shape, self.start)

    def step(self, state: DualState, shortfall: FloatArray) -> DualState:
        """See `Dual`."""
        weight = 1.0 + state.value if self.relative else 1.0
        moved = np.clip(state.value + self.step_size * weight * shortfall, 0.0, self.most)
        known = np.isfinite(shortfall)
        return DualState(
            value=np.where(known, moved, state.value),
            integral=state.integral,
            previous=np.where(known, shortfall, state.previous),
        )


@dataclass(frozen=True, kw_only=True)
class PidDual:
    r"""$\lambda = \max(0, K_P e + I + K_D \max(0, e - e'))$ with $I \leftarrow \max(0, I + K_I e)$ [Stooke2020]_.

    Attributes:
        proportional, integral, derivative: The gains; the derivative only brakes a growing violation.
        relative: All three terms move in proportion to `1 + I`, I being the integral before the step.
        start: Integral at the start.
        most: Upper limit of multiplier and integral.
    """

    proportional: float = 1.0
    integral: float = 0.4
    derivative: float = 1.0
    relative: bool = False
    start: float = 0.0
    most: float = 1e4

    def __post_init__(self) -> None:
        gains = (self.proportional, self.integral, self.derivative)
        if not (min(gains) >= 0 and self.integral > 0 and 0 <= self.start <= self.most):
            raise ConfigError(f"a PID multiplier needs gains >= 0 and an integral gain > 0; got {gains}")

    def init(self, shape: tuple[int, ...]) -> DualState:
        """See `Dual`."""
        return _start(shape, self.start)

    def step(self, state: DualState, shortfall: FloatArray) -> DualState:
        """See `Dual`."""
        weight = 1.0 + state.integral if self.relative else 1.0
        integral = np.clip(state.integral + self.integral * weight * shortfall, 0.0, self.most)
        growth = np.where(np.isnan(state.previous), 0.0, np.maximum(0.0, shortfall - state.previous))
        value = np.clip(integral + weight * (self.proportional * shortfall + self.derivative * growth), 0.0, self.most)
        known = np.isfinite(shortfall)
        return DualState(
            value=np.where(known, value, state.value),
            integral=np.where(known, integral, state.integral),
            previous=np.where(known, shortfall, state.previous),
        )


def _start(shape: tuple[int, ...], value: float) -> DualState:
    return DualState(value=np.full(shape, value), integral=np.full(shape, value), previous=np.full(shape, np.nan))
