"""A simulation in words and in rows, for the terminal and the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from toolkit.evaluation.steady_state import SteadyEstimate
from toolkit.report.markup import UNKNOWN
from toolkit.report.simulation import Group, LoadFigures, SimulationReport, StationFigures
from toolkit.report.wording import percent, usd_per_1000

_WORTH_SAYING = 0.001
_MANY = 0.05


def seconds(value: float) -> str:
    """`12.3 s`, three significant digits."""
    if not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s"


def quality(value: float) -> str:
    """Three decimals."""
    return f"{value:.3f}" if math.isfinite(value) else UNKNOWN


def _money(value: float) -> str:
    return usd_per_1000(value) if math.isfinite(value) else UNKNOWN


def _share(value: float) -> str:
    return percent(value) if math.isfinite(value) else UNKNOWN


def _count(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else UNKNOWN


_ROWS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("quality", "quality", quality),
    ("cost_usd", "cost per 1,000 queries", _money),
    ("latency_s.mean", "mean latency", seconds),
    ("latency_s.p50", "p50 latency", seconds),
    ("latency_s.p95", "p95 latency", seconds),
    ("latency_s.p99", "p99 latency", seconds),
    ("ttft_s.mean", "mean time to first token", seconds),
    ("ttft_s.p50", "p50 time to first token", seconds),
    ("ttft_s.p95", "p95 time to first token", seconds),
    ("ttft_s.p99", "p99 time to first token", seconds),
    ("slo_share", "answered within {slo}", _share),
    ("error_share", "failed", _share),
    ("fallback_share", "answered after a fallback", _share),
    ("retries", "further attempts per request", _count),
)
_COLUMNS = ("quality", "cost_usd", "latency_s.p50", "latency_s.p95", "latency_s.p99", "ttft_s.p95", "slo_share",
            "error_share", "fallback_share")  # fmt: skip
_BRIEF = ("quality", "cost_usd", "latency_s.p50", "latency_s.p95", "slo_share", "error_share")


def shown(estimate: SteadyEstimate | None, show: Callable[[float], str]) -> str:
    """A figure with its interval, where there is one: `12.3 s [11.2, 13.4]`, the unit once."""
    if estimate is None:
        return UNKNOWN
    if not estimate.known:
        return show(estimate.value)
    low, high = (
        show(end).removeprefix("$").removesuffix(" s").removesuffix(" %") for end in (estimate.low, estimate.high)
    )
    return f"{show(estimate.value)} [{low}, {high}]"


def load_rows(report: SimulationReport) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows: one column per load."""
    header = ("", *(f"load {found.load:g}" for found in report.loads))
    rows = [("requests per second", *(_count(found.rate_per_s) for found in report.loads))]
    for name, label, show in _ROWS:
        cells = [shown(found.overall.figures.get(name), show) for found in report.loads]
        if any(cell != UNKNOWN for cell in cells):
            rows.append((label.format(slo=seconds(report.slo_s)), *cells))
        if name == "cost_usd" and any(found.capacity_usd for found in report.loads):
            rows.append(("of which capacity", *(_money(found.capacity_usd) for found in report.loads)))
    for station in report.loads[0].stations:
        if station.slots is not None:
            same = [_station(found, station.name) for found in report.loads]
            rows.append((f"utilisation of {station.name}", *(shown(s.utilisation, _share) for s in same)))
    return header, rows


def group_rows(
    groups: Mapping[str, Group], slo_s: float, first: str, *, brief: bool = False
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows: one row per group, figures in columns; fewer and without intervals if `brief`."""
    names = _BRIEF if brief else _COLUMNS
    chosen = [(name, label.format(slo=seconds(slo_s)), show) for name, label, show in _ROWS if name in names]
    header = (first, "requests", *(label for _, label, _ in chosen))
    rows = [
        (name, f"{group.n:,}", *(_cell(group.figures.get(figure), show, brief=brief) for figure, _, show in chosen))
        for name, group in groups.items()
    ]
    return header, rows


def _cell(estimate: SteadyEstimate | None, show: Callable[[float], str], *, brief: bool) -> str:
    return show(estimate.value) if brief and estimate is not None else shown(estimate, show)


def tier_rows(report: SimulationReport, *, brief: bool = False) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows: what became of the requests that were sent to each tier, at the load nearest 1."""
    main = report.main
    header, rows = group_rows(main.by_tier, report.slo_s, "sent first to", brief=brief)
    shares = {name: (_share(main.sent[name]), _share(main.served[name])) for name in main.sent}
    shared = [(row[0], row[1], *shares[row[0]], *row[2:]) for row in rows]
    idle = [
        (name, "0", *shares[name], *(UNKNOWN for _ in header[2:])) for name in main.sent if name not in main.by_tier
    ]
    return (*header[:2], "sent to it", "answered by it", *header[2:]), [*shared, *idle]


def station_rows(report: SimulationReport) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows: every station at every load."""
    header = ("station", "load", "slots", "utilisation", "longest line", "attempts", "lost attempts")
    rows: list[tuple[str, ...]] = []
    for name in (station.name for station in report.loads[0].stations):
        for found in report.loads:
            station = _station(found, name)
            lost = ", ".join(f"{reason} {_share(share)}" for reason, share in station.lost.items()) or "none"
            slots = "no limit" if station.slots is None else str(station.slots)
            used = shown(station.utilisation, _share) if station.slots is not None else UNKNOWN
            line = f"{station.longest_line:,}"
            rows.append((name, f"{found.load:g}", slots, used, line, f"{station.attempts:,.0f}", lost))
    return header, rows


def fidelity_rows(report: SimulationReport) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows, by the tier that answered, at the load nearest 1; no rows where the scenario has none of it."""
    main = report.main
    checked = ("checked afterwards", "made better by it") if any(found.checks for found in report.loads) else ()
    header = ("answered by", *checked, *(f"{need} right, expected" for need in report.success))
    if len(header) == 1:
        return header, []
    rows = []
    for name in report.tiers:
        checks = main.checks.get(name)
        done = (UNKNOWN, UNKNOWN) if checks is None else (_share(checks.done), _share(checks.corrected))
        rows.append((name, *done[: len(checked)], *(_share(of_tier[name]) for of_tier in report.success.values())))
    if report.success:
        everywhere = (_share(main.success[need]) for need in report.success)
        rows.append(("all answers that need it", *(UNKNOWN for _ in checked), *everywhere))
    return header, rows


def simulation_sentences(report: SimulationReport) -> list[str]:
    """What a reader should take away; what keeps the figures from meaning what they seem to comes first."""
    return [
        *_overload(report),
        _headline(report, report.main),
        *_growth(report),
        *_failures(report),
        *_unchecked(report),
        *_capacity(report),
        _intervals(report),
        *_missing(report),
        *report.notes,
    ]


def _overload(report: SimulationReport) -> list[str]:
    loads: dict[str, list[str]] = {}
    for load in report.loads:
        for station in load.overloaded:
            loads.setdefault(station.name, []).append(f"{load.load:g} ({_share(station.utilisation.value)})")
    found = [f"{name} at load {' and '.join(at)}" for name, at in loads.items()]
    if not found:
        return []
    return [
        f"More work comes than the slots can do, in a line without an end: {', '.join(found)}. Waits there grow as "
        f"long as the traffic lasts: these latencies depend on traffic.duration_s={report.duration_s:g} and describe "
        "no steady state."
    ]


def _headline(report: SimulationReport, found: LoadFigures) -> str:
    figures = found.overall.figures
    return (
        f"At load {found.load:g} ({found.rate_per_s:.3g} requests per second) quality is "
        f"{shown(figures['quality'], quality)} for {shown(figures['cost_usd'], _money)} per 1,000 queries; p95 latency "
        f"is {shown(figures['latency_s.p95'], seconds)}, {shown(figures['slo_share'], _share)} of the requests are "
        f"answered within {seconds(report.slo_s)}, {shown(figures['error_share'], _share)} fail."
    )


def _growth(report: SimulationReport) -> list[str]:
    if len(report.loads) == 1:
        return []
    low, high = report.loads[0], report.loads[-1]
    said = [f"p95 latency goes from {_both('latency_s.p95', seconds, low, high)}"]
    before, after = (quality(found.overall.figures["quality"].value) for found in (low, high))
    said.append(f"quality stays {before}" if before == after else f"quality goes from {before} to {after}")
    if high.overall.figures["error_share"].value > 0:
        said.append(f"the share of failed requests from {_both('error_share', _share, low, high)}")
    return [f"From load {low.load:g} to {high.load:g}, {', '.join(said)}."]


def _both(name: str, show: Callable[[float], str], low: LoadFigures, high: LoadFigures) -> str:
    return f"{show(low.overall.figures[name].value)} to {show(high.overall.figures[name].value)}"


def _failures(report: SimulationReport) -> list[str]:
    parts = []
    for found in report.loads:
        failed = {n.removeprefix("failed: "): s for n, s in found.ends.items() if n.startswith("failed: ") and s > 0}
        total = sum(failed.values())
        if total >= _WORTH_SAYING:
            worst = max(failed, key=lambda name: failed[name])
            most = "all" if len(failed) == 1 else f"{_share(failed[worst] / total)} of them"
            parts.append(f"{_share(total)} at load {found.load:g} ({most} by {_REASONS[worst]})")
    if not parts:
        return []
    said = [f"Requests fail: {', '.join(parts)}."]
    worst_load = max(report.loads, key=lambda found: found.overall.figures["error_share"].value)
    lost = worst_load.overall.figures["error_share"].value
    if lost >= _MANY:
        said.append(
            f"Latencies are those of answered requests. At load {worst_load.load:g} the {_share(lost)} that nobody "
            "answered are missing from them, so they look better than it is; the share within the limit counts all."
        )
    return said


_REASONS = {
    "outage": "an outage of the station asked last",
    "limit": "a rate limit",
    "full": "a full waiting line",
    "timeout": "the client's time-out",
    "error": "an answer that is an error",
    "router": "an outage of the router",
}


def _unchecked(report: SimulationReport) -> list[str]:
    """Checks that never came."""
    said = [
        f"{_share(1.0 - checks.done)} of the answers of {name} at load {found.load:g}"
        for found in report.loads
        for name, checks in found.checks.items()
        if 1.0 - checks.done >= _WORTH_SAYING
    ]
    return [f"Never checked, and so not corrected: {', '.join(said)}."] if said else []


def _capacity(report: SimulationReport) -> list[str]:
    main = report.main
    if not main.capacity_usd:
        return []
    cost = main.overall.figures["cost_usd"].value
    return [
        f"Of {_money(cost)} per 1,000 queries at load {main.load:g}, {_money(main.capacity_usd)} is capacity paid by "
        "the hour, spread over the requests that come: with less traffic each of them costs more."
    ]


def _intervals(report: SimulationReport) -> str:
    if report.replications > 1:
        return (
            f"Intervals are 95 %, Student's t over {report.replications} replications, each with queries, arrivals and "
            "errors of its own; all loads share their seeds."
        )
    return (
        "One replication: intervals are 95 % over batches of consecutive requests, as far as the batches do not depend "
        "on each other; replications=8 needs no such condition."
    )


def _missing(report: SimulationReport) -> list[str]:
    """Figures of all queries that have no interval, and why; one sentence per reason."""
    reasons: dict[str, list[str]] = {}
    labels = {name: label.format(slo=seconds(report.slo_s)) for name, label, _ in _ROWS}
    for found in report.loads:
        for name, estimate in found.overall.figures.items():
            if estimate.note and not estimate.note.startswith("the same in every"):
                reasons.setdefault(estimate.note, []).append(f"{labels[name]} at load {found.load:g}")
    return [f"No interval ({note}): {_few(figures)}." for note, figures in reasons.items()]


def _few(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _station(found: LoadFigures, name: str) -> StationFigures:
    return next(station for station in found.stations if station.name == name)
