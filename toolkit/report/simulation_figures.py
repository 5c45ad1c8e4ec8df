"""Figures of a simulation, drawn with matplotlib's object-oriented API.

Colours are those of Okabe and Ito (2008), safe for colour-blind readers; lines differ in marker as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator, PercentFormatter

from simulators.outcomes import FloatArray
from toolkit.evaluation.steady_state import SteadyEstimate
from toolkit.report.figures import shown_name
from toolkit.report.simulation import SimulationReport, Timeline

_BLUE, _RED, _GREEN, _GREY, _ORANGE = "#0072B2", "#D55E00", "#009E73", "#6E6E6E", "#E69F00"
_LINES = ((_BLUE, "o"), (_RED, "^"), (_GREEN, "s"), ("#CC79A7", "D"), (_ORANGE, "v"), ("#4D4D4D", "P"))
_ENDS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#CC79A7", "#F0E442", "#6E6E6E", "#4D4D4D")
_HATCHES = ("", "", "///", "...", "xxx", "", "\\\\\\", "")
_LATENCIES = (("latency_s.p50", "p50"), ("latency_s.p95", "p95"), ("latency_s.p99", "p99"))
_NARROWEST = 0.06  # of the axis of quality: noise should not look like a trend
_FAR = 20.0  # largest over smallest latency from which on the axis is logarithmic


def latency_figure(report: SimulationReport) -> Figure:
    """Quantiles of the latency against the load, with their intervals as bands."""
    figure, (axes,) = _figure(1, height=3.9)
    for (name, label), look in zip(_LATENCIES, _LINES, strict=False):
        _line(axes, report, [found.overall.figures[name] for found in report.loads], label, look)
    axes.axhline(report.slo_s, color=_GREY, linestyle="--", linewidth=1.2, label=f"limit, {report.slo_s:g} s")
    values = [found.overall.figures[name].value for found in report.loads for name, _ in _LATENCIES]
    if np.nanmax(values) > _FAR * np.nanmin(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    else:
        axes.set_ylim(bottom=0.0)
    axes.set_ylabel("latency, seconds", fontsize=10.5)
    _load_axis(axes, report)
    _legend(figure, 4)
    return figure


def utilisation_figure(report: SimulationReport) -> Figure:
    """Share of each station's slots in use against the load."""
    figure, (axes,) = _figure(1, height=3.6)
    limited = [station.name for station in report.loads[0].stations if station.slots is not None]
    for i, name in enumerate(limited):
        found = [next(s for s in load.stations if s.name == name).utilisation for load in report.loads]
        _line(axes, report, found, shown_name(name), _LINES[i % len(_LINES)])
    axes.axhline(1.0, color="black", linewidth=1.0, linestyle="--", label="all slots, all the time")
    axes.set_ylim(bottom=0.0, top=max(1.1, axes.get_ylim()[1]))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
    axes.set_ylabel("slots in use", fontsize=10.5)
    _load_axis(axes, report)
    _legend(figure, 4)
    return figure


def quality_figure(report: SimulationReport) -> Figure:
    """Quality and cost against the load, side by side."""
    figure, (left, right) = _figure(2, height=3.4)
    _line(left, report, [found.overall.figures["quality"] for found in report.loads], "", _LINES[0])
    low, high = left.get_ylim()
    spare = max(0.0, _NARROWEST - (high - low)) / 2
    left.set_ylim(low - spare, min(high + spare, 1.0))
    left.set_ylabel("quality (a failed request: 0)", fontsize=10.5)
    cost = [_scaled(found.overall.figures["cost_usd"], 1000.0) for found in report.loads]
    _line(right, report, cost, "all", _LINES[1])
    if any(found.capacity_usd for found in report.loads):
        fixed = [SteadyEstimate(value=1000.0 * found.capacity_usd) for found in report.loads]
        _line(right, report, fixed, "of which capacity", _LINES[2])
        right.legend(fontsize=9.5, frameon=False)
    right.set_ylim(0.0, 1.12 * right.get_ylim()[1])
    right.set_ylabel("cost per 1,000 queries, USD", fontsize=10.5)
    for axes in (left, right):
        _load_axis(axes, report)
    return figure


def ends_figure(report: SimulationReport) -> Figure:
    """How the requests ended, one bar per load."""
    names = [n for n in report.loads[0].ends if any(found.ends[n] > 0 for found in report.loads)]
    figure, (axes,) = _figure(1, height=1.6 + 0.42 * len(report.loads) + 0.2 * (len(names) // 4))
    rows = np.arange(len(report.loads))
    start = np.zeros(len(rows))
    order = list(report.loads[0].ends)
    for name in names:
        share = np.array([found.ends[name] for found in report.loads])
        look = order.index(name) % len(_ENDS)
        axes.barh(rows, share, 0.66, start, color=_ENDS[look], hatch=_HATCHES[look], edgecolor="white", label=name)
        start += share
    axes.set_yticks(rows, [f"load {found.load:g}" for found in report.loads])
    axes.invert_yaxis()
    axes.set_xlim(0.0, 1.0)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
    axes.set_xlabel("share of the requests", fontsize=10.5)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    _legend(figure, 4)
    return figure


def timeline_figure(report: SimulationReport) -> Figure:
    """Arrivals, p95 latency and failures over the traffic of one replication."""
    found = report.timeline
    figure = Figure(figsize=(9.5, 6.0), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    scale, unit = _time_unit(report.duration_s)
    all_axes = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    edges = np.append(found.start_s, report.duration_s) / scale
    middle = (edges[:-1] + edges[1:]) / 2
    arrivals, latency, failed = all_axes
    arrivals.stairs(found.arrivals_per_min, edges, color=_BLUE, fill=True, alpha=0.55)
    arrivals.set_ylabel("arrivals\nper minute", fontsize=10.5)
    latency.plot(middle, found.p95_s, color=_RED, linewidth=1.4, marker=".", markersize=3)
    latency.axhline(report.slo_s, color=_GREY, linestyle="--", linewidth=1.2, label=f"limit, {report.slo_s:g} s")
    latency.set_ylabel("p95 latency,\nseconds", fontsize=10.5)
    _log_if_far(latency, found.p95_s)
    failed.stairs(np.nan_to_num(found.error_share), edges, color=_RED, fill=True, alpha=0.75)
    failed.set_ylim(0.0, max(0.01, 1.1 * float(np.nanmax(np.append(found.error_share, 0.0)))))
    failed.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    failed.set_ylabel("failed", fontsize=10.5)
    failed.set_xlabel(unit, fontsize=10.5)
    failed.set_xlim(0.0, report.duration_s / scale)
    for axes in all_axes:
        _plain(axes)
        _mark(axes, found, scale)
    _legend_of(figure, latency)
    return figure


def _mark(axes: Axes, found: Timeline, scale: float) -> None:
    """Warm-up and outages as shades, change points as lines, each named once."""
    if found.warmup_s > 0:
        axes.axvspan(0.0, found.warmup_s / scale, color="#BBBBBB", alpha=0.35, lw=0, label="warm-up, not counted")
    for i, name in enumerate(dict.fromkeys(name for name, _, _ in found.outages)):
        colour, _ = _LINES[(i + 3) % len(_LINES)]
        for label, (start, end) in _labelled(
            f"outage of {shown_name(name)}", [(s, e) for n, s, e in found.outages if n == name]
        ):
            axes.axvspan(start / scale, end / scale, color=colour, alpha=0.25, lw=0, label=label)
    for i, (at, what) in enumerate(found.changes):
        style = ("-", "--", ":", "-.")[i % 4]
        axes.axvline(at / scale, color="black", linewidth=1.2, linestyle=style, label=_short(what))


def _labelled(label: str, spans: Sequence[tuple[float, float]]) -> list[tuple[str, tuple[float, float]]]:
    return [(label if i == 0 else "_", span) for i, span in enumerate(spans)]


def _short(text: str) -> str:
    line = text.replace("$", r"\$")
    return line if len(line) <= 60 else f"{line[:57]}…"


def _log_if_far(axes: Axes, values: FloatArray) -> None:
    known = values[np.isfinite(values) & (values > 0)]
    if len(known) and known.max() > _FAR * known.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _time_unit(duration_s: float) -> tuple[float, str]:
    for scale, unit, least in ((86_400.0, "days", 3.0), (3600.0, "hours", 2.0), (60.0, "minutes", 3.0)):
        if duration_s >= least * scale:
            return scale, f"{unit} of traffic"
    return 1.0, "seconds of traffic"


def _figure(n: int, *, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(9.5, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    found = [figure.add_subplot(1, n, i + 1) for i in range(n)]
    for axes in found:
        _plain(axes)
    return figure, found


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=10)
    axes.grid(color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _line(
    axes: Axes, report: SimulationReport, found: Sequence[SteadyEstimate], label: str, look: tuple[str, str]
) -> None:
    colour, marker = look
    loads = [load.load for load in report.loads]
    axes.plot(loads, [e.value for e in found], color=colour, marker=marker, ms=6, linewidth=1.6, label=label or None)
    low = np.array([e.low for e in found])
    axes.fill_between(loads, low, [e.high for e in found], color=colour, alpha=0.2, linewidth=0)


def _scaled(found: SteadyEstimate, factor: float) -> SteadyEstimate:
    return SteadyEstimate(value=factor * found.value, low=factor * found.low, high=factor * found.high, n=found.n)


def _load_axis(axes: Axes, report: SimulationReport) -> None:
    """The loads themselves as ticks; far apart ones on a logarithmic axis."""
    loads = [found.load for found in report.loads]
    if loads[-1] >= 4 * loads[0]:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(loads, [f"{load:g}" for load in loads])
    axes.set_xlabel("load (factor of the arrival rates)", fontsize=10.5)


def _legend(figure: Figure, columns: int) -> None:
    figure.legend(loc="outside upper center", ncols=columns, fontsize=9.5, frameon=False)


def _legend_of(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=9.5, frameon=False)
