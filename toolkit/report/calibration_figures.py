"""Figures of a calibration: quantiles recorded against fitted, and quality per tier and slice.

Colours are those of Okabe and Ito (2008); whatever differs in colour differs in marker as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from simulators.calibration_distance import LEVELS, Distance
from simulators.outcomes import FloatArray
from toolkit.report.figures import shown_name

MOST_PANELS = 12
"""Panels of one figure; the recordings with most values are drawn."""

_BLUE, _RED, _GREY, _PALE = "#0072B2", "#D55E00", "#6E6E6E", "#E4E4E4"
_TIERS = (
    ("#0072B2", "o"),
    ("#E69F00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#4D4D4D", "v"),
    ("#56B4E9", "P"),
    ("#D55E00", "X"),
)
_COLUMNS = 4
_TOLERANCE = 0.10
_MARKED = (0.5, 0.95)


def quantile_figure(distances: Sequence[Distance]) -> Figure:
    """One panel each: fitted quantile over recorded quantile; on the diagonal they are equal."""
    drawn = panels(distances)
    rows = math.ceil(len(drawn) / _COLUMNS)
    columns = min(_COLUMNS, len(drawn))
    figure = Figure(figsize=(2.75 * columns + 0.3, 2.75 * rows + 0.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for panel, distance in zip(axes, drawn, strict=False):
        _draw_quantiles(panel, distance)
    for panel in axes[len(drawn) :]:
        panel.set_axis_off()
    figure.supxlabel(f"recorded quantile, {drawn[0].unit}", fontsize=10.5)
    figure.supylabel(f"fitted quantile, {drawn[0].unit}", fontsize=10.5)
    return figure


def panels(distances: Sequence[Distance]) -> list[Distance]:
    """What a figure shows of a group: all, or those with most values, in the order given."""
    kept = sorted(distances, key=lambda d: -d.n)[:MOST_PANELS]
    return [d for d in distances if any(d is k for k in kept)]


def _draw_quantiles(axes: Axes, distance: Distance) -> None:
    recorded, fitted = distance.recorded, distance.fitted
    both = np.concatenate([recorded, fitted])
    positive = both[both > 0]
    logarithmic = bool(
        len(positive) and positive.max() > 8 * np.quantile(positive, 0.02) and (recorded > 0).mean() > 0.9
    )
    low, high = _limits(positive if logarithmic else both, logarithmic)
    line = np.array([low, high])
    if logarithmic:
        axes.fill_between(line, line * (1 - _TOLERANCE), line * (1 + _TOLERANCE), color=_PALE, lw=0)
    else:
        axes.fill_between(line, line - _TOLERANCE * np.abs(line), line + _TOLERANCE * np.abs(line), color=_PALE, lw=0)
    axes.plot(line, line, color=_GREY, lw=0.9)
    colour, marker = (_RED, "v") if distance.bad else (_BLUE, "o")
    axes.plot(recorded, fitted, marker, color=colour, ms=3.2, mew=0)
    at = [int(np.argmin(np.abs(LEVELS - level))) for level in _MARKED]
    axes.plot(recorded[at], fitted[at], marker, ms=8, mfc="none", mec="black", mew=1.1)
    if logarithmic:
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            decades = math.log10(high / low)
            axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2 else (1.0, 3.0), numticks=6))
            axis.set_minor_locator(NullLocator())
            axis.set_minor_formatter(NullFormatter())
            axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_box_aspect(1)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    verdict = "  BAD" if distance.bad else ""
    axes.set_title(f"{shown_name(distance.name)}\nn {distance.n:,}, KS {distance.ks:.3f}{verdict}", fontsize=8.5)


def _limits(values: FloatArray, logarithmic: bool) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if logarithmic:
        return low / 1.15, high * 1.15
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def quality_figure(slices: Sequence[Mapping[str, Any]]) -> Figure:
    """Mean quality per tier and slice: fitted over recorded with two standard errors; shifted cells are ringed."""
    tiers = list(dict.fromkeys(row["tier"] for row in slices))
    figure = Figure(figsize=(7.4, 5.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for i, tier in enumerate(tiers):
        colour, marker = _TIERS[i % len(_TIERS)]
        own = [row for row in slices if row["tier"] == tier]
        x = [row["recorded"] for row in own]
        y = [row["fitted"] for row in own]
        arms = [2 * row["se"] for row in own]
        axes.errorbar(x, y, None, arms, marker, color=colour, ms=6, lw=0.8, capsize=2, label=shown_name(tier))
    shifted = [row for row in slices if row["shift_z"] is not None]
    if shifted:
        x, before, after = ([row[name] for row in shifted] for name in ("recorded", "without_shift", "fitted"))
        axes.plot(x, after, "o", ms=13, mfc="none", mec="black", mew=1.2, label="with a shift")
        axes.plot(x, before, "_", color="black", ms=11, mew=1.6, label="the same without it")
        axes.vlines(x, before, after, color="black", lw=0.8)
    values = [row[name] for row in slices for name in ("recorded", "fitted")]
    low, high = max(min(values) - 0.05, 0.0), min(max(values) + 0.03, 1.01)
    axes.plot([low, high], [low, high], color=_GREY, lw=0.9)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_xlabel("recorded mean quality of a slice on a tier, ± 2 s.e.", fontsize=10.5)
    axes.set_ylabel("fitted", fontsize=10.5)
    axes.grid(color=_PALE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9, frameon=False, loc="upper left")
    return figure
