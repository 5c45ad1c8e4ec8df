"""Constraints: a metric, a limit, and `slack >= 0` where it holds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from toolkit.evaluation.metrics import FLEET, Metric, parse_metric

_NAMED = {
    "quality_floor": "quality",
    "slice_floor": "worst_slice",
    "slice_floor_lcb": "worst_slice_lcb",
    "cost_ceiling_usd": "cost",
    "mean_latency_ceiling_s": "latency_mean",
    "p50_ceiling_s": "latency_p50",
    "p95_ceiling_s": "latency_p95",
    "p99_ceiling_s": "latency_p99",
    "router_budget_s": "router_delay_p95",
    "fleet_ceiling_usd_per_hour": "fleet_cost",
}


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """One bound on one metric.

    Attributes:
        name: As the user wrote it, such as `quality_floor` or `quality@gsm8k`.
        metric: What is bounded.
        limit: The bound in natural units; a floor for metrics that are maximised, a ceiling otherwise.
    """

    name: str
    metric: Metric
    limit: float

    def slack(self, values: FloatArray) -> FloatArray:
        """Distance to the bound in natural units, `>= 0` is feasible; NaN stays NaN."""
        return values - self.limit if self.metric.maximise else self.limit - values

    @property
    def text(self) -> str:
        """`quality >= 0.9`."""
        return f"{self.metric.column} {'>=' if self.metric.maximise else '<='} {self.limit:.10g}"


def parse_constraints(raw: Mapping[str, object]) -> tuple[Constraint, ...]:
    """Read the `constraints` of a config; None means unset.

    Named ones are listed in `_NAMED`; `bounds` is a list of `METRIC >= VALUE` or `METRIC <= VALUE`.

    Raises:
        ConfigError: If a name, a metric or a limit does not make sense.
    """
    found = []
    for name, value in raw.items():
        if value is None:
            continue
        if name in _NAMED:
            found.append(_constraint(name, parse_metric(_NAMED[name]), value))
        elif name == "bounds" and isinstance(value, Sequence) and not isinstance(value, str):
            found += [_parse_bound(str(text)) for text in value]
        else:
            known = ", ".join([*_NAMED, 'bounds=["METRIC >= VALUE"]'])
            raise ConfigError(f"unknown constraint constraints.{name}={value!r}; known: {known}")
    names = [c.name for c in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"constraints bound {twice} more than once; keep one bound each")
    return tuple(found)


def restore_constraints(stored: Mapping[str, float]) -> tuple[Constraint, ...]:
    """Constraints from the name -> limit form that `policy.json` holds."""
    return tuple(_constraint(name, parse_metric(_NAMED.get(name, name)), limit) for name, limit in stored.items())


def on_answers(constraints: tuple[Constraint, ...]) -> tuple[Constraint, ...]:
    """Those that answers can break; the price of a fleet is known and the same for every answer."""
    return tuple(c for c in constraints if c.metric.base not in FLEET)


def _parse_bound(text: str) -> Constraint:
    parts = re.fullmatch(r"\s*(.+?)\s*(>=|<=)\s*(\S+)\s*", text)
    if parts is None:
        raise ConfigError(f'constraints.bounds: expected "METRIC >= VALUE" or "METRIC <= VALUE"; got {text!r}')
    name, sign, number = parts.groups()
    metric = parse_metric(name)
    if metric.maximise != (sign == ">="):
        raise ConfigError(f"constraints.bounds: {name} takes {'a floor (>=)' if metric.maximise else 'a ceiling (<=)'}")
    try:
        limit: object = float(number)
    except ValueError:
        limit = number
    return _constraint(name, metric, limit)


def _constraint(name: str, metric: Metric, value: object) -> Constraint:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"constraints.{name} must be a number; got {value!r}")
    if metric.in_points and not 0 <= value <= 1:
        raise ConfigError(f"constraints.{name} must lie in [0, 1]; got {value:g}")
    if not metric.in_points and value <= 0:
        raise ConfigError(f"constraints.{name} must be positive; got {value:g}")
    return Constraint(name=name, metric=metric, limit=float(value))


def slack_matrix(constraints: tuple[Constraint, ...], columns: Mapping[str, FloatArray], n: int) -> FloatArray:
    """`n x c` slack of n candidates, from their columns in natural units."""
    if not constraints:
        return np.empty((n, 0))
    return np.stack([c.slack(columns[c.metric.column]) for c in constraints], axis=1)
