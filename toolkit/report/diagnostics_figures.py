"""Figures of the score diagnostics and of the gap, with matplotlib's object-oriented API.

Colours are those of Okabe and Ito (2008); whatever differs in colour differs in marker or place as well.
"""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from toolkit.certify.diagnostics import Diagnostics
from toolkit.certify.gap import Gap
from toolkit.report.figures import shown_name

_BLUE, _RED, _GREEN, _GREY, _PALE = "#0072B2", "#D55E00", "#009E73", "#6E6E6E", "#E4E4E4"
_METHODS = {"platt": (_BLUE, "o"), "isotonic": (_RED, "s")}
_TIERS = (
    ("#56B4E9", "o"),
    ("#E69F00", "s"),
    ("#0072B2", "^"),
    ("#CC79A7", "D"),
    ("#4D4D4D", "v"),
    ("#009E73", "P"),
    ("#D55E00", "X"),
)
_MOST_TIERS = len(_TIERS)


def score_figure(found: Diagnostics) -> Figure:
    """Left: quality of each tier along the score. Right: reliability of the score as a probability."""
    figure = Figure(figsize=(9.5, 4.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1))
    _draw_bands(left, found)
    _draw_reliability(right, found)
    for axes in (left, right):
        axes.grid(color=_PALE, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_bands(axes: Axes, found: Diagnostics) -> None:
    """Where two lines part, routing by this score has something to gain; where they run side by side, it has not."""
    counts = np.array([band.n for band in found.bands], dtype=np.float64)
    if not len(counts):
        _say(axes, "no query has a score")
        return
    middle = (np.cumsum(counts) - counts / 2) / counts.sum()
    for (colour, marker), k in zip(_TIERS, _drawn_tiers(found), strict=False):
        quality = [band.quality[k] for band in found.bands]
        axes.plot(middle, quality, color=colour, marker=marker, ms=5.5, lw=1.4, label=shown_name(found.tiers[k]))
    axes.set_xlim(0.0, 1.0)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
    axes.set_xlabel("queries by rising score", fontsize=10.5)
    axes.set_ylabel("mean quality of each tier", fontsize=10.5)
    axes.set_title("What the tiers do along the score", fontsize=11, loc="left")
    axes.legend(fontsize=9, frameon=False, loc="best")


def _drawn_tiers(found: Diagnostics) -> list[int]:
    """All tiers, or the two ends, the upgrade and the cheapest others where there are too many."""
    k = len(found.tiers)
    wanted = dict.fromkeys([0, found.tiers.index(found.upgrade), k - 1, *range(1, k)])
    return sorted(list(wanted)[:_MOST_TIERS])


def _draw_reliability(axes: Axes, found: Diagnostics) -> None:
    step = found.main
    axes.set_title("The score as a probability: said and seen", fontsize=11, loc="left")
    if not step.calibration:
        _say(axes, step.reason)
        return
    axes.plot([0, 1], [0, 1], color="black", lw=0.9)
    axes.axhline(step.better, color=_GREY, ls="--", lw=1.1, label=f"base rate {step.better:.2f}")
    for calibration in step.calibration:
        colour, marker = _METHODS[calibration.method]
        x = [b.predicted for b in calibration.bins]
        y = np.array([b.observed.mean for b in calibration.bins])
        arms = np.array(
            [[b.observed.mean - b.observed.low, b.observed.high - b.observed.mean] for b in calibration.bins]
        )
        label = f"{calibration.method}: ECE {calibration.ece:.3f}, by chance {calibration.ece_by_chance:.3f}"
        axes.errorbar(x, y, np.nan_to_num(arms.T), color=colour, marker=marker, ms=6, lw=1.2, capsize=2.5, label=label)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(f"probability that {shown_name(step.high)} is better", fontsize=10.5)
    axes.set_ylabel("share where it is", fontsize=10.5)
    axes.legend(fontsize=9, framealpha=0.85, edgecolor="none", loc="upper left" if step.better < 0.5 else "lower right")


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=10, transform=axes.transAxes, wrap=True)
    axes.set_xticks([])
    axes.set_yticks([])


def gap_figure(gap: Gap) -> Figure:
    """From the policy to the oracle, one bar per component, each starting where the one before ends."""
    parts = list(reversed(gap.components.items()))
    figure = Figure(figsize=(9.5, 1.6 + 0.42 * (len(parts) + 2)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_noise(axes, gap)
    reached = gap.chosen
    for row, (_, value) in enumerate(parts, start=1):
        axes.barh(row, value, 0.62, reached, color=_BLUE if value >= 0 else _RED, zorder=3)
        axes.plot([reached + value] * 2, [row - 0.31, row + 1.31], color=_GREY, lw=0.8, zorder=2)
        reached += value
    last = len(parts) + 1
    axes.plot(gap.chosen, 0, "o", color=_RED, ms=9, mfc="none", mew=2.2, zorder=4)
    axes.plot([gap.chosen] * 2, [0.0, 1.31], color=_GREY, lw=0.8, zorder=2)
    axes.plot(gap.oracle, last, "D", color=_GREEN, ms=8, zorder=4)
    for row, (x, text) in enumerate(_labels(gap, parts)):
        axes.annotate(text, (x, row), (8, 0), textcoords="offset points", va="center", fontsize=9.5, zorder=5)
    axes.set_yticks(range(last + 1), ["policy", *(name for name, _ in parts), "oracle"])
    axes.set_ylim(last + 0.6, -0.6)
    low, high = _span(gap, parts)
    axes.set_xlim(low - 0.04 * (high - low), high + 0.16 * (high - low))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    at = "at the policy's cost" if math.isfinite(gap.cost_usd) else "costs unknown, so none is held equal"
    axes.set_xlabel(f"mean quality on the validation split, {at}", fontsize=10.5)
    axes.tick_params(labelsize=10)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=_PALE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(*axes.get_legend_handles_labels(), fontsize=9, frameon=False, loc="lower left")
    return figure


def _draw_noise(axes: Axes, gap: Gap) -> None:
    noise = gap.noise
    if noise.high <= 0:
        return
    source = "published range" if noise.drop is None else "95 % interval of repeats"
    label = f"may be luck of single answers ({source})"
    axes.axvspan(
        gap.oracle - noise.high, gap.oracle - noise.low, color="#F0E442", alpha=0.45, lw=0, label=label, zorder=1
    )


def _labels(gap: Gap, parts: list[tuple[str, float]]) -> list[tuple[float, str]]:
    """Where each row's figure stands, and the figure."""
    found, reached = [(gap.chosen, f"{gap.chosen:.3f}")], gap.chosen
    for _, value in parts:
        found.append((max(reached, reached + value), f"{value + 0.0:+.3f}" if abs(value) >= 5e-4 else "0"))
        reached += value
    return [*found, (gap.oracle, f"{gap.oracle:.3f}")]


def _span(gap: Gap, parts: list[tuple[str, float]]) -> tuple[float, float]:
    ends = gap.chosen + np.concatenate([[0.0], np.cumsum([value for _, value in parts])])
    low, high = float(ends.min()), float(ends.max())
    return (low, high) if high - low > 1e-3 else (low - 5e-4, high + 5e-4)
