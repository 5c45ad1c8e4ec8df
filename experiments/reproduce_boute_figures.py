"""Figures of `reproduce paper=boute`: cost to meet the targets, and searchers against evaluations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.reproduce_boute_choice import METHODS
from experiments.reproduce_boute_paper import TARGETS
from experiments.reproduce_boute_tables import LABELS
from simulators.outcomes import FloatArray
from toolkit.report.figures import png_bytes

_STYLES = {
    "boute": ("#D55E00", "-", 2.4),
    "boute_paper": ("#D55E00", "--", 1.6),
    "boute_unstructured": ("#E69F00", "--", 1.6),
    "mobo_grey": ("#0072B2", "-", 1.8),
    "mobo_black_box": ("#0072B2", "--", 1.4),
    "nsga2": ("#009E73", "-", 1.4),
    "tpe": ("#CC79A7", "-", 1.4),
    "random": ("#8C8C8C", ":", 1.8),
}
_LEVEL = 0.95


def search_figure(traces: Mapping[str, Mapping[str, Sequence[FloatArray]]]) -> bytes:
    """PNG: efficiency against evaluations, median and quartiles over seeds; one panel per number of GPU types.

    Args:
        traces: GPU types -> searcher -> one curve per seed.
    """
    n = max(len(traces), 1)
    figure = Figure(figsize=(4.2 * n, 4.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, n, squeeze=False, sharey=True)[0]
    for panel, (types, searchers) in zip(panels, traces.items(), strict=False):
        for name, (colour, line, width) in _STYLES.items():
            if name in searchers:
                curves = _padded(searchers[name])
                low, middle, high = np.nanquantile(curves, [0.25, 0.5, 0.75], axis=0)
                at = np.arange(1, curves.shape[1] + 1)
                panel.plot(at, middle, line, color=colour, lw=width, label=name)
                panel.fill_between(at, low, high, color=colour, alpha=0.12, lw=0)
        panel.axhline(_LEVEL, color="black", lw=0.8, ls="--")
        panel.set_title(f"{types} GPU types")
        panel.set_xlabel("evaluations")
        panel.set_ylim(0.0, 1.05)
    panels[0].set_ylabel("efficiency")
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 2 * n), frameon=False)
    return png_bytes(figure)


def _padded(curves: Sequence[FloatArray]) -> FloatArray:
    """A search that ended early keeps its last value."""
    longest = max(map(len, curves))
    return np.stack([np.pad(curve, (0, longest - len(curve)), mode="edge") for curve in curves])


def cost_figure(found: Mapping[str, Any]) -> bytes:
    """PNG: USD per hour of every method, by the tables and after trial runs; one panel per workload and target."""
    panels_of = [(name, i) for name in found["workloads"] for i in range(len(TARGETS))]
    figure = Figure(figsize=(3.6 * len(panels_of), 4.0), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(panels_of), squeeze=False)[0]
    ways = (("true", "usd_per_hour", "#0072B2", "tables"), ("true", "tried_usd_per_hour", "#56B4E9", "after trials"),
            ("wrong", "tried_usd_per_hour", "#E69F00", "wrong model, after trials"))  # fmt: skip
    for panel, (name, i) in zip(panels, panels_of, strict=True):
        methods = next(iter(found["workloads"][name]["routers"].values()))["table_3"][i]["methods"]
        for k, (way, cost, colour, label) in enumerate(ways):
            values = [methods[m][way][cost] for m in METHODS]
            mean = [v["mean"] for v in values]
            error = [0.0 if not math.isfinite(v["high"]) else v["high"] - v["mean"] for v in values]
            at = np.arange(len(METHODS)) + 0.27 * (k - 1)
            panel.barh(at, mean, 0.25, xerr=error, color=colour, label=label, error_kw={"lw": 0.8})
        panel.plot(TARGETS[i].usd_per_hour[name], np.arange(len(METHODS)), "kx", ms=5, label="paper")
        panel.set_yticks(np.arange(len(METHODS)), [LABELS[m] for m in METHODS] if panel is panels[0] else [])
        panel.invert_yaxis()
        panel.set_title(f"{name}, {TARGETS[i].name}", fontsize=9)
        panel.set_xlabel("USD per hour")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return png_bytes(figure)
