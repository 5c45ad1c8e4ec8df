"""Names of what can be optimised or bounded: `cost`, `quality`, `worst_slice`, `latency_p95`, `quality@gsm8k`, ...

Grammar: `BASE[@SLICE]`, where BASE is one of the names below or `share_over:SECONDS`, the share of queries slower
than that. `slice:NAME` is another way to write `quality@NAME`.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulators.errors import ConfigError

QUANTILES = {"latency_p50": 0.50, "latency_p95": 0.95, "latency_p99": 0.99}
_COLUMNS = {
    "cost": "cost_usd",
    "quality": "quality",
    "worst_slice": "worst_slice_quality",
    "latency_mean": "latency_mean_s",
    "latency_p50": "latency_p50_s",
    "latency_p95": "latency_p95_s",
    "latency_p99": "latency_p99_s",
}
_ALIASES = {"latency": "latency_mean", "p50": "latency_p50", "p95": "latency_p95", "p99": "latency_p99"}
HEADLINE = tuple(_COLUMNS)


@dataclass(frozen=True)
class Metric:
    """One figure of a policy.

    Attributes:
        base: Name without the slice, such as `latency_p95`.
        slice_name: The slice it is restricted to, or None for all queries.
        limit_s: The limit of `share_over`, seconds.
    """

    base: str
    slice_name: str | None = None
    limit_s: float | None = None

    @property
    def maximise(self) -> bool:
        """Whether more is better."""
        return self.base in {"quality", "worst_slice"}

    @property
    def column(self) -> str:
        """Name in natural units, as in `front.parquet`."""
        column = f"share_over_{self.limit_s:g}s" if self.base == "share_over" else _COLUMNS[self.base]
        return column if self.slice_name is None else f"{column}[{self.slice_name}]"

    @property
    def needs_latency(self) -> bool:
        """Whether latency must be known."""
        return self.base.startswith("latency") or self.base == "share_over"


def parse_metric(text: str) -> Metric:
    """Read a metric's name.

    Raises:
        ConfigError: If the name is none of the grammar's.
    """
    if text.startswith("slice:"):
        return Metric("quality", text.removeprefix("slice:"))
    base, _, slice_name = text.partition("@")
    base = _ALIASES.get(base, base)
    if slice_name and base == "worst_slice":
        raise ConfigError(f"{text!r}: worst_slice is over all slices; use quality@{slice_name}")
    if base in _COLUMNS:
        return Metric(base, slice_name or None)
    if base.startswith("share_over:"):
        return Metric("share_over", slice_name or None, _seconds(base.removeprefix("share_over:"), text))
    known = ", ".join([*_COLUMNS, "share_over:SECONDS", "slice:NAME"])
    raise ConfigError(f"unknown objective or metric {text!r}; known: {known}, each also as NAME@SLICE")


def _seconds(text: str, whole: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"{whole!r}: expected share_over:SECONDS with a positive number, such as share_over:2.5")
    return value
