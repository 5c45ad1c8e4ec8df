"""Search dimensions: a name, a kind, bounds and a scale; the unit interval on the other side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One parameter that is searched.

    Attributes:
        name: Name of the parameter.
        kind: `float`; `integer`, every whole number between the bounds; `categorical`, the index of a choice.
        low, high: Bounds in natural units, both included.
        scale: `linear`, or `log` for positive parameters that span orders of magnitude.
        choices: Names of the choices of a categorical dimension.
    """

    name: str
    kind: Literal["float", "integer", "categorical"] = "float"
    low: float = 0.0
    high: float = 1.0
    scale: Literal["linear", "log"] = "linear"
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind == "categorical":
            if not self.choices or len(set(self.choices)) < len(self.choices):
                raise ConfigError(f"{self.name}: a categorical dimension needs distinct choices; got {self.choices}")
            object.__setattr__(self, "low", 0.0)
            object.__setattr__(self, "high", float(len(self.choices) - 1))
        if not (math.isfinite(self.low) and math.isfinite(self.high)) or self.low > self.high:
            raise ConfigError(f"{self.name}: bounds must be finite, low <= high; got [{self.low:g}, {self.high:g}]")
        if self.scale == "log" and self.low <= 0:
            raise ConfigError(f"{self.name}: a log scale needs positive bounds; got [{self.low:g}, {self.high:g}]")
        if self.kind == "integer" and (self.low != round(self.low) or self.high != round(self.high)):
            raise ConfigError(f"{self.name}: integer bounds must be whole; got [{self.low:g}, {self.high:g}]")

    def decode(self, x: FloatArray) -> FloatArray:
        """Natural values of cube coordinates in [0, 1]; whole numbers own equal parts of their scale."""
        low, high = self._span()
        value = low + np.clip(x, 0.0, 1.0) * (high - low)
        value = np.exp(value) if self.scale == "log" else value
        return np.asarray(np.clip(value if self.kind == "float" else np.round(value), self.low, self.high))

    def encode(self, value: FloatArray) -> FloatArray:
        """Cube coordinates that decode to `value`."""
        low, high = self._span()
        value = np.log(value) if self.scale == "log" else value
        return np.asarray((value - low) / (high - low) if high > low else np.zeros_like(value))

    def _span(self) -> tuple[float, float]:
        """Ends of the scaled interval; those of a whole number reach half a step further out."""
        half = 0.0 if self.kind == "float" else 0.5 - 1e-9
        low, high = self.low - half, self.high + half
        return (math.log(low), math.log(high)) if self.scale == "log" else (low, high)


class BoxSpace:
    """A product of dimensions.

    Args:
        dimensions: d dimensions; the parameters are theirs, in order.
    """

    def __init__(self, dimensions: Sequence[Dimension]) -> None:
        self.dimensions = tuple(dimensions)
        self.dim = len(self.dimensions)

    def decode(self, X: FloatArray) -> FloatArray:
        """See `SearchSpace`."""
        return np.stack([d.decode(X[:, i]) for i, d in enumerate(self.dimensions)], axis=1)

    def encode(self, params: FloatArray) -> FloatArray:
        """See `SearchSpace`."""
        return np.stack([d.encode(params[:, i]) for i, d in enumerate(self.dimensions)], axis=1)
