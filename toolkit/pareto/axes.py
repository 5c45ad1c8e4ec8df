"""The axes in which fronts are measured: scaled by the single tiers' range, reference a margin outside it.

Cost and latency enter as log10, quality as it is. Axis j is 0 at the worst and 1 at the best single tier, so that 1 is
better on every axis, and the reference point is `-margin` on each. Fixed before a search and stored with it: two
hypervolumes can be compared only if their axes are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.special import expit, logit

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from toolkit.evaluation.metrics import Metric

_EDGE = 1e-4
_LEAST = 1e-3


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis.

    Attributes:
        column: Natural name of the objective.
        maximise: Whether more is better.
        log: Whether the axis is log10 of the natural value.
        worst, best: Natural values at 0 and at 1.
        logit: Whether the axis is the logit of the natural value: for models of a share, never for published figures.
    """

    column: str
    maximise: bool
    log: bool
    worst: float
    best: float
    logit: bool = False


@dataclass(frozen=True, kw_only=True)
class Axes:
    """The m axes of a problem's objectives.

    Attributes:
        axes: One per objective, in order.
        margin: How far outside [0, 1] the reference point lies.
    """

    axes: tuple[Axis, ...]
    margin: float = 0.1

    @property
    def reference(self) -> FloatArray:
        """`m` coordinates of the reference point."""
        return np.full(len(self.axes), -self.margin)

    def scale(self, Y: FloatArray) -> FloatArray:
        """`n x m` maximised objectives as coordinates, 1 is better; NaN stays NaN."""
        parts = [self.scale_column(j, Y[:, j] if a.maximise else -Y[:, j]) for j, a in enumerate(self.axes)]
        return np.stack(parts, axis=1)

    def scale_column(self, j: int, natural: FloatArray) -> FloatArray:
        """Coordinates of natural values on axis j."""
        axis = self.axes[j]
        if axis.log:  # a free answer is a thousand times cheaper than the cheapest tier, not infinitely cheaper
            natural = np.maximum(natural, _LEAST * min(axis.worst, axis.best))
        return np.asarray((_on_axis(axis, natural) - _on_axis(axis, axis.worst)) / _span(axis))

    def natural(self, j: int, coordinate: float) -> float:
        """The natural value at a coordinate of axis j."""
        axis = self.axes[j]
        along = float(_on_axis(axis, axis.worst)) + coordinate * _span(axis)
        return float(10.0**along if axis.log else expit(along) if axis.logit else along)

    def describe(self) -> dict[str, object]:
        """Plain containers, for `run.json`."""
        return {"margin": self.margin, "axes": [asdict(axis) for axis in self.axes]}

    def same_as(self, other: Axes) -> bool:
        """Whether hypervolumes in both can be compared."""
        pairs = zip(self.axes, other.axes, strict=False)
        return (
            self.margin == other.margin
            and len(self.axes) == len(other.axes)
            and all((a.column, a.maximise, a.log) == (b.column, b.maximise, b.log) for a, b in pairs)
            and np.allclose(
                [(a.worst, a.best) for a in self.axes], [(b.worst, b.best) for b in other.axes], rtol=1e-9, atol=0
            )
        )


def _on_axis(axis: Axis, value: FloatArray | float) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        if axis.log:
            return np.asarray(np.log10(value))
        return np.asarray(logit(np.clip(value, _EDGE, 1.0 - _EDGE)) if axis.logit else value, dtype=np.float64)


def _span(axis: Axis) -> float:
    """Signed length of the axis from worst to best; one unit towards better where they are equal."""
    span = float(_on_axis(axis, axis.best) - _on_axis(axis, axis.worst))
    return span if span != 0 else 1.0 if axis.maximise else -1.0


def restore_axes(stored: Mapping[str, object]) -> Axes:
    """Axes from what `describe` gave.

    Raises:
        ConfigError: If it is not that.
    """
    try:
        axes, margin = stored["axes"], stored["margin"]
        assert isinstance(axes, list) and isinstance(margin, int | float)
        return Axes(axes=tuple(Axis(**axis) for axis in axes), margin=float(margin))
    except (KeyError, TypeError, AssertionError) as error:
        raise ConfigError(f"the stored axes cannot be read ({error!r}); run the search again") from error


def make_axes(
    objectives: Sequence[Metric],
    single_tiers: Mapping[str, FloatArray],
    *,
    margin: float,
    bounds: Mapping[str, Sequence[float]] | None = None,
) -> Axes:
    """Axes from the single tiers' figures.

    Args:
        objectives: The m objectives.
        single_tiers: Column -> `K` values of all traffic on each tier.
        margin: See `Axes`.
        bounds: Column -> (worst, best) in natural units, in place of the single tiers' range.

    Raises:
        ConfigError: If bounds name an unknown column or are not two different numbers.
    """
    given = dict(bounds or {})
    unknown = sorted(set(given) - {m.column for m in objectives})
    if unknown:
        raise ConfigError(f"axes.bounds names {unknown}; the objectives are {[m.column for m in objectives]}")
    return Axes(axes=tuple(_axis(m, single_tiers[m.column], given.get(m.column)) for m in objectives), margin=margin)


def _axis(metric: Metric, values: FloatArray, given: Sequence[float] | None) -> Axis:
    known = values[np.isfinite(values)]
    if given is not None:
        usable = len(given) == 2 and bool(np.isfinite(given).all()) and given[0] != given[1]
        if not usable or (given[1] > given[0]) != metric.maximise:
            better = "more" if metric.maximise else "less"
            raise ConfigError(f"axes.bounds.{metric.column} must be [worst, best] with {better} better; got {given}")
        worst, best = float(given[0]), float(given[1])
    elif len(known) == 0:
        worst, best = (0.0, 1.0) if metric.maximise else (1.0, 0.0)
    else:
        low, high = float(known.min()), float(known.max())
        worst, best = (low, high) if metric.maximise else (high, low)
    in_log = (metric.base in {"cost", "fleet_cost"} or metric.base.startswith("latency")) and min(worst, best) > 0
    return Axis(column=metric.column, maximise=metric.maximise, log=in_log, worst=worst, best=best)
