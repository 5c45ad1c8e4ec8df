"""Figures of a reproduction: what is asked for against what is delivered and paid, and a request that changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes as Panel
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from toolkit.report.figures import png_bytes

_STYLES = {
    "proteus": ("#D55E00", "-", 2.4),
    "utility": ("#0072B2", "-", 2.4),
    "proteus_utility": ("#56B4E9", "-", 1.4),
    "proteus_thresholds": ("#CC79A7", "-", 1.4),
    "thresholds": ("#CC79A7", "--", 1.4),
    "carrot": ("#009E73", "--", 1.4),
    "omnirouter": ("#E69F00", "--", 1.4),
    "zero_router": ("#8C8C8C", ":", 1.8),
}
_WAYS = {
    "proteus, as asked": ("#E69F00", "-", 1.2),
    "proteus, window margin 99 %": ("#D55E00", "-", 1.8),
    "utility, window margin 99 %": ("#0072B2", "-", 1.8),
}


def compliance_figure(sets: Mapping[str, Mapping[str, Any]]) -> bytes:
    """PNG: per data set (columns) held-out quality and cost against the request, calibrated with the margin.

    Args:
        sets: Name -> summary of the set; means over splits are drawn.
    """
    n = max(len(sets), 1)
    figure = Figure(figsize=(3.9 * n, 6.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, n, squeeze=False, sharex="col")
    for column, (name, found) in enumerate(sets.items()):
        _draw_set(panels[0, column], panels[1, column], name, found)
    panels[0, 0].set_ylabel("held-out quality")
    _legend(figure, panels.ravel(), min(2 * n, 5))
    return png_bytes(figure)


def _draw_set(top: Panel, bottom: Panel, name: str, found: Mapping[str, Any]) -> None:
    taus = np.array(found["taus"])
    top.plot(taus, taus, color="black", lw=0.9, ls="--", label="asked for")
    for method, (colour, line, width) in _STYLES.items():
        if method in found["methods"]:
            row = found["methods"][method]["margin"]
            top.plot(taus, row["qualities"], line, color=colour, lw=width, marker=".", ms=4, label=method)
            bottom.plot(taus, 1e3 * np.array(row["costs_usd"]), line, color=colour, lw=width, marker=".", ms=4)
    if "requested" in found:
        row = found["requested"]
        top.plot(taus, row["qualities"], "-.", color="#D55E00", lw=1.2, label="proteus as asked, no calibration")
        bottom.plot(taus, 1e3 * np.array(row["costs_usd"]), "-.", color="#D55E00", lw=1.2)
    top.set_title(name, fontsize=10.5)
    bottom.set_yscale("log")
    bottom.set_xlabel("requested quality")
    bottom.set_ylabel("stand-in price per query" if found["unit"] else "USD per 1,000 queries")
    for panel in (top, bottom):
        _tidy(panel)


def changing_figure(traces: Mapping[str, Mapping[str, Any]], *, window: int) -> bytes:
    """PNG: rolling means of request and quality, one split, per data set (rows) and schedule (columns).

    Args:
        traces: Set -> schedule -> way of asking -> `tau` and `quality`.
        window: Queries of a mean.
    """
    rows = [(name, shapes) for name, shapes in traces.items() if shapes]
    n_columns = max((len(shapes) for _, shapes in rows), default=1)
    figure = Figure(figsize=(3.4 * n_columns, 2.5 * max(len(rows), 1) + 0.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(max(len(rows), 1), n_columns, squeeze=False, sharey="row")
    for row, (name, shapes) in enumerate(rows):
        for panel, (shape, ways) in zip(panels[row], shapes.items(), strict=False):
            _draw_trace(panel, f"{name}: {shape}", ways)
        panels[row, 0].set_ylabel(f"mean of {window}")
    for panel in panels[-1]:
        panel.set_xlabel("query")
    _legend(figure, panels.ravel(), 4)
    return png_bytes(figure)


def _draw_trace(panel: Panel, title: str, ways: Mapping[str, Any]) -> None:
    for way, (colour, line, width) in _WAYS.items():
        if way in ways:
            panel.plot(ways[way]["quality"], line, color=colour, lw=width, label=way)
            panel.plot(ways[way]["tau"], color="black", lw=1.2, ls="--", label="asked for")
    panel.set_title(title, fontsize=9.5)
    _tidy(panel)


def _tidy(panel: Panel) -> None:
    panel.grid(color="#EEEEEE", lw=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, panels: Any, columns: int) -> None:
    handles = {h.get_label(): h for panel in panels for h in panel.get_lines() if not h.get_label().startswith("_")}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False)
