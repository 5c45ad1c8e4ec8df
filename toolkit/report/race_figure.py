"""Efficiency against evaluations, one panel per problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes as Panel
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from simulators.outcomes import FloatArray
from toolkit.report.figures import png_bytes

_STYLES = {
    "mobo_grey": ("#D55E00", "-", 2.4),
    "mobo_gp": ("#0072B2", "-", 2.2),
    "tutorial": ("#000000", "-", 1.6),
    "parego": ("#CC79A7", "-", 1.6),
    "tpe": ("#009E73", "--", 1.6),
    "nsga2": ("#56B4E9", "--", 1.6),
    "sobol": ("#8C8C8C", "--", 1.4),
    "random": ("#8C8C8C", ":", 1.4),
}
_OTHER = ("#E69F00", "-.", 1.6)


def race_figure(curves: Mapping[str, Mapping[str, Sequence[FloatArray]]], *, target: float) -> bytes:
    """PNG of median efficiency over seeds with the quartiles as a band.

    Args:
        curves: Problem -> searcher -> efficiency of the first 1, 2, ... evaluations, one array per seed.
        target: Efficiency drawn as a line.
    """
    n = max(len(curves), 1)
    columns = min(n, 3)
    rows = -(-n // columns)
    figure = Figure(figsize=(4.3 * columns, 3.5 * rows + 0.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (name, searchers) in zip(panels, curves.items(), strict=False):
        _draw(panel, name, searchers, target)
    for panel in panels[len(curves) :]:
        panel.set_visible(False)
    handles = {h.get_label(): h for panel in panels for h in panel.get_lines() if not h.get_label().startswith("_")}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, frameon=False)
    return png_bytes(figure)


def _draw(panel: Panel, name: str, searchers: Mapping[str, Sequence[FloatArray]], target: float) -> None:
    for searcher, traces in searchers.items():
        colour, line, width = _STYLES.get(searcher, _OTHER)
        length = min(len(t) for t in traces)
        E = np.stack([t[:length] for t in traces])
        x = np.arange(1, length + 1)
        low, middle, high = np.quantile(E, [0.25, 0.5, 0.75], axis=0)
        shown = x >= 5
        panel.fill_between(x[shown], low[shown], high[shown], color=colour, alpha=0.12, lw=0)
        panel.plot(x[shown], middle[shown], line, color=colour, lw=width, label=searcher)
    panel.axhline(target, color="#BBBBBB", lw=0.8, zorder=0)
    panel.set_xscale("log")
    ticks = [5, 10, 20, 40, 100, 200]
    panel.set_xticks(ticks, [str(t) for t in ticks])
    panel.minorticks_off()
    lowest = float(panel.dataLim.y0)
    panel.set_ylim(max(0.0, min(lowest - 0.06, 0.9)), 1.02)
    panel.set_title(name, fontsize=10.5)
    panel.set_xlabel("evaluations")
    panel.set_ylabel("efficiency")
    panel.grid(color="#EEEEEE", lw=0.7)
    panel.spines[["top", "right"]].set_visible(False)
