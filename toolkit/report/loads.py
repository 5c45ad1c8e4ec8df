"""How the front moves with load: the same candidates judged again at other arrival rates, drawn and said in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from toolkit.report.markup import Row, escaped, image_html, shown_value, table_html
from toolkit.report.record import FrontAtLoad
from toolkit.report.wording import bound_label, column_label

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#4D4D4D")
_MARKERS = "osD^vP*"
_TIME = "latency_p95_s"


def load_sentences(loads: Sequence[FrontAtLoad], *, bounded: bool) -> list[str]:
    """What another load does to the chosen point and to the best one.

    Args:
        loads: Ascending.
        bounded: Whether there are constraints that a load may break.
    """
    return [_at_load(at, bounded) for at in loads]


def _at_load(at: FrontAtLoad, bounded: bool) -> str:
    fate = "keeps every constraint" if not at.broken else f"breaks {', '.join(map(bound_label, at.broken))}"
    said = f"At load {at.load:g} (tune split) the chosen point {fate if bounded else 'has'}"
    said += _seconds(at.chosen, bounded)
    full = [name for name, share in at.utilisation.items() if share >= 1]
    if full:
        said += f"; {' and '.join(full)} cannot keep up (utilisation over 1): the figures depend on the duration"
    if at.best is None:
        said += f"; none of the {at.n_candidates:,} candidates keeps every constraint"
    elif at.broken and "cost_usd" in at.best:
        said += f"; the best that does costs {shown_value('cost_usd', at.best['cost_usd'])} per 1,000 queries"
        said += f" at quality {at.best['quality']:.3f}"
    return said + "."


def _seconds(columns: dict[str, float], bounded: bool) -> str:
    value = columns.get(_TIME, math.nan)
    number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    shown = f"p95 {number} s" if math.isfinite(value) else "p95 unknown"
    return f" ({shown})" if bounded else f" {shown}"


def loads_section(loads: Sequence[FrontAtLoad], picture: bytes | None) -> list[str]:
    """The part of the page on load."""
    if not loads or picture is None:
        return []
    columns = [c for c in ("quality", "cost_usd", _TIME) if c in loads[0].chosen]
    rows: list[Row] = []
    for at in loads:
        shown = [shown_value(c, at.chosen[c]) for c in columns]
        best = ["none feasible"] if at.best is None else [shown_value(c, at.best[c]) for c in columns]
        best += [""] * (len(columns) - len(best))
        busiest = max(at.utilisation.items(), key=lambda pair: pair[1], default=("", math.nan))
        fullest = f"{busiest[0]} {100 * busiest[1]:.0f} %" if busiest[0] else "unlimited"
        rows.append([f"{at.load:g}", *shown, "; ".join(map(bound_label, at.broken)) or "none", *best, fullest])
    head = ["load", *(f"chosen: {column_label(c)}" for c in columns), "breaks"]
    head += [*(f"best there: {column_label(c)}" for c in columns), "busiest station (chosen point)"]
    lead = (
        f"The {loads[0].n_candidates:,} candidates that stand for the search, judged again at other arrival rates on "
        "the same queries (tune split). Best there: what the same rule would choose at that load."
    )
    return [
        "<h2>What another load does</h2>",
        f'<p class="soft">{escaped(lead)}</p>',
        image_html(picture, "Fronts and the chosen point at several loads"),
        table_html(head, rows),
    ]


def loads_figure(loads: Sequence[FrontAtLoad]) -> Figure:
    """Left: the quality that a p95 latency allows at each load. Right: p95 of the chosen and of the best point."""
    figure = Figure(figsize=(10.0, 4.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for i, at in enumerate(loads):
        _draw_reach(left, at, _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)])
    left.set_xlabel("p95 latency, seconds")
    if any(np.isfinite(at.candidates.get(_TIME, np.empty(0))).any() for at in loads):
        left.set_xscale("log")
    left.set_ylabel("mean quality")
    left.set_title("best quality within a p95 latency; large marks: the chosen point", fontsize=10)
    left.legend(fontsize=8, title="load", loc="lower right")
    _draw_times(right, loads)
    return figure


def _draw_reach(axes: Axes, at: FrontAtLoad, colour: str, marker: str) -> None:
    seconds, quality = at.candidates.get(_TIME, np.empty(0)), at.candidates.get("quality", np.empty(0))
    known = np.flatnonzero(np.isfinite(seconds) & np.isfinite(quality)) if len(seconds) else np.empty(0, dtype=np.int64)
    order = known[np.argsort(seconds[known], kind="stable")]
    best = np.maximum.accumulate(quality[order]) if len(order) else quality[order]
    label = f"{at.load:g}" + ("" if at.n_feasible else " (no candidate keeps the constraints)")
    axes.step(seconds[order], best, where="post", color=colour, linewidth=1.6, label=label)
    edge = "#A63D00" if at.broken else "black"
    at_x, at_y = [at.chosen.get(_TIME, math.nan)], [at.chosen["quality"]]
    axes.plot(at_x, at_y, marker=marker, markersize=9, color=colour, mec=edge, mew=1.4, linestyle="none")


def _draw_times(axes: Axes, loads: Sequence[FrontAtLoad]) -> None:
    at = [one.load for one in loads]
    axes.plot(at, [one.chosen.get(_TIME, np.nan) for one in loads], "o-", color=_COLOURS[0], label="chosen point")
    best = [np.nan if one.best is None else one.best.get(_TIME, np.nan) for one in loads]
    axes.plot(at, best, "s--", color=_COLOURS[2], label="best at that load")
    for one in loads:
        if one.broken:
            axes.plot([one.load], [one.chosen.get(_TIME, np.nan)], "x", color="#A63D00", markersize=12, mew=2)
    axes.set_xscale("log", base=2)
    if any(math.isfinite(one.chosen.get(_TIME, math.nan)) for one in loads):
        axes.set_yscale("log")
    axes.set_xticks(at, [f"{value:g}" for value in at])
    axes.minorticks_off()
    axes.set_xlabel("load (factor of the arrival rates)")
    axes.set_ylabel("p95 latency, seconds")
    axes.set_title("crosses: the chosen point breaks a constraint", fontsize=10)
    axes.legend(fontsize=8)
