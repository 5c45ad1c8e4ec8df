"""Words and numbers of the report: how a share, a sum of money, an interval or a metric's name is written."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from toolkit.certify.evidence import ConstraintEvidence, Evidence, SliceEvidence
from toolkit.certify.intervals import Interval
from toolkit.policies.thresholds import UNREACHABLE
from toolkit.report.record import RunRecord

_LABELS = {
    "cost_usd": "cost per 1,000 queries",
    "worst_slice_quality": "quality of the worst slice",
    "worst_slice_lcb_quality": "lower bound of the worst slice",
    "latency_mean_s": "mean latency",
    "latency_p50_s": "p50 latency",
    "latency_p95_s": "p95 latency",
    "latency_p99_s": "p99 latency",
    "router_delay_p95_s": "p95 of the router's own delay",
    "fleet_usd_per_hour": "price of the GPUs per hour",
}
_SHARES = ("share_over", "share_within")
_ROUTER = "router_delay"
_FLEET = "fleet_usd_per_hour"
_LOSSES = {
    "slice_loss": "largest loss to {} in a slice",
    "slice_loss_ucb": "upper bound of the largest loss to {} in a slice",
}


def percent(fraction: float) -> str:
    """`45.6 %`; what is small or nearly everything is not rounded to nothing or everything."""
    if not math.isfinite(fraction):
        return "unknown"
    if 0 < fraction < 0.001 or 0.999 < fraction < 1:
        return "<0.1 %" if fraction < 0.5 else ">99.9 %"
    return f"{100 * fraction:,.0f} %" if fraction in {0.0, 1.0} or fraction >= 10 else f"{100 * fraction:.1f} %"


def usd_per_1000(cost_usd: float) -> str:
    """Cost of 1,000 queries from the cost of one, three significant digits: `$0.490`, `$15.00`, `$1,250`."""
    value = 1000 * cost_usd
    if not math.isfinite(value):
        return "unknown"
    if value == 0:
        return "$0"
    decimals = 0 if abs(value) >= 100 else min(max(2, 2 - math.floor(math.log10(abs(value)))), 9)
    return f"{'-' if value < 0 else ''}${abs(value):,.{decimals}f}"


def signed_difference(interval: Interval) -> str:
    """`+0.003 [-0.004, +0.010]`; what is not 0 is never shown as 0 where the interval excludes 0."""
    excludes_zero = interval.verdict != "no evidence"

    def show(value: float) -> str:
        decimals = 3
        while excludes_zero and decimals < 8 and round(value, decimals) == 0:
            decimals += 1
        return f"{round(value, decimals) + 0.0:+.{decimals}f}"

    return with_interval(interval, show)


def with_interval(interval: Interval, show: Callable[[float], str] = "{:.3f}".format) -> str:
    """The estimate, and its interval where there is one."""
    if not math.isfinite(interval.low + interval.high):
        return show(interval.mean)
    return f"{show(interval.mean)} [{show(interval.low)}, {show(interval.high)}]"


def column_label(column: str) -> str:
    """Natural column in words: `p95 latency`, `quality in slice gsm8k`, `largest loss to gpt-4 in a slice`."""
    base, _, slice_name = column.partition("[")
    label = _LABELS.get(base, base)
    if base in _LOSSES:
        return _LOSSES[base].format(slice_name.removesuffix("]"))
    if base.startswith("slice_cvar_"):
        share = float(base.removeprefix("slice_cvar_").removesuffix("_quality"))
        label = f"quality of the worst {100 * share:g} % of the traffic by slice"
    if base.startswith("share_over_"):
        label = f"share slower than {base.removeprefix('share_over_').removesuffix('s')} s"
    if base.startswith("share_within_"):
        label = f"share within {base.removeprefix('share_within_').removesuffix('s')} s"
    return f"{label} in slice {slice_name.removesuffix(']')}" if slice_name else label


def column_value(column: str, value: float, decimals: int = 3) -> str:
    """A value of a natural column with its unit."""
    if not math.isfinite(value):
        return "unknown"
    if column.startswith("cost_usd"):
        return usd_per_1000(value)
    if column == _FLEET:
        return f"${value:.2f}"
    if column.startswith(_SHARES):
        return percent(value)
    if column.startswith(_ROUTER):
        return delay(value)
    return f"{value:.{decimals - 1}f} s" if column.startswith("latency") else f"{value:.{decimals}f}"


def delay(seconds: float) -> str:
    """`12.3 ms`, `1.20 s`."""
    if not math.isfinite(seconds):
        return "unknown"
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def parameter_value(value: float) -> str:
    """A threshold that no score can reach is `+∞`, one that every score reaches `−∞`."""
    if abs(value) >= UNREACHABLE:
        return "+∞" if value > 0 else "−∞"
    return f"{value:.6g}"


def constraint_column(constraint: ConstraintEvidence) -> str:
    """The natural column that a constraint bounds."""
    return constraint.text.rsplit(" ", 2)[0]


def constraint_label(constraint: ConstraintEvidence) -> str:
    """`quality >= 0.92`, money per 1,000 queries."""
    return bound_label(constraint.text)


def bound_label(text: str) -> str:
    """The same for the text of a constraint, such as `cost_usd <= 0.001`."""
    column, sign, limit = text.rsplit(" ", 2)
    shown = column_value(column, float(limit)) if column.startswith(("cost_usd", _FLEET, _ROUTER, *_SHARES)) else limit
    return f"{column_label(column)} {sign} {shown}" + (" s" if column.startswith("latency") else "")


def worst_slice(evidence: Evidence) -> SliceEvidence | None:
    """The covered slice of lowest quality."""
    return min(evidence.slices, key=lambda s: s.quality.mean, default=None)


def on_validation(evidence: Evidence, column: str) -> Interval:
    """The policy's value of a natural column on the validation split; NaN where it is unknown."""
    bounded = {constraint_column(c): c.value for c in evidence.constraints}
    known = {"quality": evidence.quality, "cost_usd": evidence.cost_usd}
    known |= {f"latency_{k}_s": Interval(mean=v, low=np.nan, high=np.nan) for k, v in evidence.latency_s.items()}
    known |= {f"quality[{s.name}]": s.quality for s in evidence.slices}
    if (worst := worst_slice(evidence)) is not None:
        known["worst_slice_quality"] = evidence.worst if math.isfinite(evidence.worst.mean) else worst.quality
    found = known.get(column)
    if found is not None and (column not in bounded or math.isclose(found.mean, bounded[column], rel_tol=1e-9)):
        return found
    return Interval(mean=bounded.get(column, np.nan), low=np.nan, high=np.nan)


def roles(evidence: Evidence) -> dict[str, str]:
    """Tier -> what it is among the single tiers: `best single`, `cheapest`, `dearest`, or several of these.

    Where costs are unknown, tiers stand in the order given, and the ends are called `first` and `last`.
    """
    ends = ("cheapest", "dearest") if math.isfinite(evidence.cost_usd.mean) else ("first", "last")
    found: dict[str, list[str]] = {evidence.best_single: ["best single"]}
    for role, tier in zip(ends, (evidence.cheapest, evidence.dearest), strict=True):
        found.setdefault(tier, []).append(role)
    return {tier: " and ".join(names) for tier, names in found.items()}


def has_costs(record: RunRecord) -> bool:
    """Whether the policy's cost is known."""
    return math.isfinite(record.evidence.cost_usd.mean)
