"""Names of what can be optimised or bounded: `cost`, `quality`, `worst_slice`, `latency_p95`, `quality@gsm8k`, ...

Grammar: `BASE[@SLICE]`, where BASE is one of the names below, `share_over:SECONDS`, the share of queries slower than
that, or `share_within:SECONDS`, the rest (attainment of a service level). `slice:NAME` is another way to write
`quality@NAME`. Without `@SLICE`, because they are over all covered slices: `worst_slice`, `worst_slice_lcb`,
`slice_cvar:SHARE`, `slice_loss:TIER` and `slice_loss_ucb:TIER`.
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
    "worst_slice_lcb": "worst_slice_lcb_quality",
    "router_delay_p95": "router_delay_p95_s",
    "fleet_cost": "fleet_usd_per_hour",
    "gpus_short": "gpus_short",
}
_ALIASES = {"latency": "latency_mean", "p50": "latency_p50", "p95": "latency_p95", "p99": "latency_p99"}
ROUTER_DELAYS = {"router_delay_p95": 0.95}
"""Quantiles of what the router itself takes; the same for every policy behind it."""
FLEET = ("fleet_cost", "gpus_short")
"""Figures of a deployment: USD per hour of its GPUs, and how many more of a type it takes than can be had."""
HEADLINE = tuple(base for base in _COLUMNS if base not in {"worst_slice_lcb", *ROUTER_DELAYS, *FLEET})
_LOSSES = ("slice_loss", "slice_loss_ucb")
_SHARES = ("share_over", "share_within")
_OVER_SLICES = frozenset({"worst_slice", "worst_slice_lcb", "slice_cvar", *_LOSSES})


@dataclass(frozen=True)
class Metric:
    """One figure of a policy.

    Attributes:
        base: Name without the slice, such as `latency_p95`.
        slice_name: The slice it is restricted to, or None for all queries.
        limit_s: The limit of `share_over` and `share_within`, seconds.
        share: The share of the traffic that `slice_cvar` looks at, in (0, 1].
        tier: The tier that `slice_loss` and `slice_loss_ucb` compare with.
    """

    base: str
    slice_name: str | None = None
    limit_s: float | None = None
    share: float | None = None
    tier: str | None = None

    @property
    def maximise(self) -> bool:
        """Whether more is better."""
        return self.base == "share_within" or (self.of_quality and self.base not in _LOSSES)

    @property
    def of_quality(self) -> bool:
        """Whether it is a quality or a loss of quality, so that a bound on it is a floor under quality."""
        return self.base == "quality" or self.over_slices

    @property
    def over_slices(self) -> bool:
        """Whether it is taken over the covered slices."""
        return self.base in _OVER_SLICES

    @property
    def in_points(self) -> bool:
        """Whether it is a quality, a share or a loss: limits in [0, 1], changes counted in points."""
        return self.of_quality or self.base in _SHARES

    @property
    def column(self) -> str:
        """Name in natural units, as in `front.parquet`."""
        if self.base in _LOSSES:
            return f"{self.base}[{self.tier}]"
        if self.base == "slice_cvar":
            return f"slice_cvar_{self.share:.12g}_quality"
        column = f"{self.base}_{self.limit_s:g}s" if self.base in _SHARES else _COLUMNS[self.base]
        return column if self.slice_name is None else f"{column}[{self.slice_name}]"

    @property
    def needs_latency(self) -> bool:
        """Whether latency must be known."""
        return self.base.startswith("latency") or self.base in _SHARES


def parse_metric(text: str) -> Metric:
    """Read a metric's name.

    Raises:
        ConfigError: If the name is none of the grammar's.
    """
    if text.startswith("slice:"):
        return Metric("quality", text.removeprefix("slice:"))
    kind, _, tier = text.partition(":")
    if kind in _LOSSES:  # before `@` is looked for: it may be part of a tier's name
        return Metric(kind, tier=_tier(tier, text))
    base, _, slice_name = text.partition("@")
    base = _ALIASES.get(base, base)
    kind, _, number = base.partition(":")
    if slice_name and kind in FLEET:
        raise ConfigError(f"{text!r}: a fleet serves all slices; use {kind}")
    if slice_name and kind in _OVER_SLICES:
        raise ConfigError(f"{text!r}: {kind} is over all slices; use quality@{slice_name}")
    if base in _COLUMNS:
        return Metric(base, slice_name or None)
    if kind in _SHARES:
        return Metric(kind, slice_name or None, _seconds(number, text))
    if kind == "slice_cvar":
        return Metric("slice_cvar", share=_share(number, text))
    shares = (f"{name}:SECONDS" for name in _SHARES)
    plain = (name for name in _COLUMNS if name not in _OVER_SLICES and name != "gpus_short")
    known = ", ".join([*plain, *shares, "slice:NAME"])
    over = "worst_slice, worst_slice_lcb, slice_cvar:SHARE, slice_loss:TIER, slice_loss_ucb:TIER"
    raise ConfigError(f"unknown objective or metric {text!r}; known: {known}, each also as NAME@SLICE; {over}")


def _tier(text: str, whole: str) -> str:
    if not text:
        raise ConfigError(f"{whole!r}: expected slice_loss:TIER or slice_loss_ucb:TIER with the name of a tier")
    return text


def _seconds(text: str, whole: str) -> float:
    value = _number(text)
    if not 0 < value < float("inf"):
        raise ConfigError(f"{whole!r}: expected NAME:SECONDS with a positive number, such as share_over:2.5")
    return value


def _share(text: str, whole: str) -> float:
    value = _number(text)
    if not 0 < value <= 1:
        raise ConfigError(f"{whole!r}: expected slice_cvar:SHARE with a number in (0, 1], such as slice_cvar:0.3")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0
