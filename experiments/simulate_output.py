"""The JSON of a simulation: `metrics.json`'s keys for the load nearest 1, and all loads with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.simulate_figures import Series
from toolkit.evaluation.steady_state import SteadyEstimate
from toolkit.report.simulation import Group, LoadFigures, SimulationReport, StationFigures, Timeline


@dataclass(frozen=True, kw_only=True)
class SingleTiers:
    """What the policy is held against.

    Attributes:
        figures: Tier -> figures where all traffic goes to it, at the load nearest 1.
        zero_quality: Quality of the Zero router at what the policy spends apart from capacity: of the recorded answers
            where requests only wait, else simulated in the first replication; NaN where that would take too long.
    """

    figures: Mapping[str, Mapping[str, Any]]
    zero_quality: float


_SINGLE = ("quality", "cost_usd", "latency_s", "slo_share", "error_share")


def report_json(report: SimulationReport, single: SingleTiers) -> dict[str, Any]:
    """Everything, as plain containers; a figure without an interval has `low` and `high` null and a `note`."""
    main = report.main
    policy = _plain(main.overall) | {"tier_shares": dict(report.tier_shares), "capacity_usd": main.capacity_usd}
    return {
        "policy": policy,
        "slices": {name: {"n": group.n, **_plain(group)} for name, group in main.by_slice.items()},
        "tiers": {name: {**figures, **_success(report, name)} for name, figures in single.figures.items()},
        "zero_router_quality_at_cost": single.zero_quality,
        "n": main.overall.n,
        "dropped": 0,
        "load": main.load,
        "loads": [_load(found) for found in report.loads],
        "timeline": _timeline(report.timeline),
        "scenario": report.scenario,
        "router": report.policy,
        "slo_s": report.slo_s,
        "replications": report.replications,
        "n_queries": report.n_queries,
        "seed": report.seed,
        "seconds": report.seconds,
    }


def _success(report: SimulationReport, tier: str) -> dict[str, Any]:
    """What the scenario expects of the tier's answers, where it says so."""
    known = {need: of_tier[tier] for need, of_tier in report.success.items()}
    return {"expected_success": known} if known else {}


def single_tier_figures(series: Mapping[str, Series]) -> dict[str, Any]:
    """Figures of one tier that all traffic goes to, nested and without intervals."""
    return _nested({n: s.value() for n, s in series.items() if n.split(".", 1)[0] in _SINGLE})


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`a.b` -> a mapping within the mapping."""
    found: dict[str, Any] = {}
    for name, value in flat.items():
        outer, _, inner = name.partition(".")
        if inner:
            found.setdefault(outer, {})[inner] = value
        else:
            found[outer] = value
    return found


def _plain(group: Group) -> dict[str, Any]:
    return _nested({name: estimate.value for name, estimate in group.figures.items()})


def _estimate(found: SteadyEstimate) -> dict[str, Any]:
    note = {"note": found.note} if found.note else {}
    return {"value": found.value, "low": found.low, "high": found.high, **note}


def _group(group: Group) -> dict[str, Any]:
    return {"n": group.n, **_nested({name: _estimate(one) for name, one in group.figures.items()})}


def _load(found: LoadFigures) -> dict[str, Any]:
    by_tier = {
        name: {"sent_share": found.sent[name], "served_share": found.served[name], **_checks(found, name)}
        | (_group(found.by_tier[name]) if name in found.by_tier else {"n": 0})
        for name in found.sent
    }
    return {
        "load": found.load,
        "requests": found.requests,
        "rate_per_s": found.rate_per_s,
        "policy": _group(found.overall),
        "capacity_usd": found.capacity_usd,
        "classes": {name: _group(group) for name, group in found.by_class.items()},
        "slices": {name: _group(group) for name, group in found.by_slice.items()},
        "tiers": by_tier,
        "stations": {station.name: _station(station) for station in found.stations},
        "ends": dict(found.ends),
        "expected_success": dict(found.success),
        "overloaded": [station.name for station in found.overloaded],
    }


def _checks(found: LoadFigures, tier: str) -> dict[str, float]:
    checks = found.checks.get(tier)
    return {} if checks is None else {"checked_share": checks.done, "corrected_share": checks.corrected}


def _station(found: StationFigures) -> dict[str, Any]:
    return {
        "slots": found.slots,
        "utilisation": _estimate(found.utilisation),
        "longest_line": found.longest_line,
        "attempts": found.attempts,
        "lost": dict(found.lost),
    }


def _timeline(found: Timeline) -> dict[str, Any]:
    arrays = {
        name: np.asarray(getattr(found, name)).tolist()
        for name in ("start_s", "arrivals_per_min", "p95_s", "error_share")
    }
    return {
        "load": found.load,
        "width_s": found.width_s,
        **arrays,
        "outages": [{"name": name, "start_s": start, "end_s": end} for name, start, end in found.outages],
        "changes": [{"at_s": at, "what": what} for at, what in found.changes],
    }
