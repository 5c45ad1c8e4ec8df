"""Figures of a comparison: fronts in natural units, and how fast each controller found its own.

Colours are those of Okabe and Ito (2008), safe for colour-blind readers; markers and labels tell controllers apart too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes as Panel
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy.optimize import isotonic_regression

from simulators.outcomes import FloatArray, IntArray
from toolkit.pareto.axes import Axes, Axis
from toolkit.pareto.comparison import LEVEL, Comparison, Group, RunFigures
from toolkit.pareto.front import non_dominated
from toolkit.report.figures import png_bytes
from toolkit.report.wording import column_label

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6E6E6E")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", ":")
_LONGEST_LABEL = 30
_MOST_PANELS, _MOST_CORNERS = 6, 60

_Set = tuple[FloatArray, FloatArray]  # coordinates and natural values, `k x m` each


@dataclass(frozen=True, kw_only=True)
class _Look:
    """How a controller is drawn, everywhere the same."""

    colour: str
    marker: str
    line: str


_OTHERS = _Look(colour="#D0D0D0", marker="", line="-")


def draw_comparison(comparison: Comparison) -> dict[str, bytes]:
    """The figures as PNG, by name: `fronts` and `hypervolume`; equal comparisons give equal bytes."""
    return {
        "fronts": png_bytes(fronts_figure(comparison)),
        "hypervolume": png_bytes(hypervolume_figure(comparison)),
    }


def thinned(n: int, most: int = 200) -> IntArray:
    """Some of 1..n, first and last among them, even on a log axis."""
    return np.unique(np.geomspace(1, max(n, 1), most).round().astype(np.int64))


def natural_points(axes: Axes, Z: FloatArray) -> FloatArray:
    """`k x m` natural values of coordinates `Z: k x m`."""
    return np.array([[axes.natural(j, float(z)) for j, z in enumerate(row)] for row in Z]).reshape(Z.shape)


def fronts_figure(comparison: Comparison) -> Figure:
    """Fronts in natural units: controllers side by side and their medians; by pairs of objectives if there are more."""
    axes, m = comparison.axes, len(comparison.axes.axes)
    several = any(len(group.members) > 1 for group in comparison.groups)
    if m == 1:
        return _single_objective(comparison)
    pairs = [_orient(axes, pair) for pair in combinations(range(m), 2)][:_MOST_PANELS]
    if m == 2 and several:
        return _side_by_side(comparison, pairs[0])
    surfaces = any(group.surface is not None for group in comparison.groups)
    kinds = (False, True) if surfaces else (False,)
    figure, panels = _panels(len(pairs), len(kinds))
    for row, pair in zip(panels, pairs, strict=True):
        for panel, medians in zip(row, kinds, strict=True):
            _draw_fronts(panel, comparison, pair, medians=medians)
            title = "median over seeds" if medians else "front of each run"
            panel.set_title(title + (", projected" if m > 2 else ""), fontsize=10.5, loc="left")
    _label_right(figure, [panel for row in panels for panel in row], comparison)
    return figure


def _side_by_side(comparison: Comparison, pair: tuple[int, int]) -> Figure:
    """One panel per controller, its runs before those of all others; in the last panel the medians."""
    n = len(comparison.groups) + 1
    columns = min(n, 3)
    figure, rows = _panels(math.ceil(n / columns), columns, width=5.2, height=3.9, share=True)
    panels = [panel for row in rows for panel in row]
    fronts = [points for group in comparison.groups for points in _drawn(comparison.axes, group, medians=False)]
    for panel, group, look in zip(panels, comparison.groups, _looks(comparison), strict=False):
        for points in fronts:
            _draw_set(panel, comparison.axes, points, pair, _OTHERS, strong=False)
        for points in _drawn(comparison.axes, group, medians=False):
            _draw_set(panel, comparison.axes, points, pair, look, strong=len(group.members) == 1)
        panel.set_title(_name(group), fontsize=10.5, loc="left", color=look.colour)
        _scale(panel, comparison.axes, pair)
    panels[0].annotate(
        "grey: all runs", (0.98, 0.03), xycoords="axes fraction", ha="right", fontsize=9, color="#6E6E6E"
    )
    _draw_fronts(panels[n - 1], comparison, pair, medians=True)
    panels[n - 1].set_title("median over seeds", fontsize=10.5, loc="left")
    for i, panel in enumerate(panels):
        panel.set_visible(i < n)
        panel.tick_params(labelbottom=i + columns >= n)
        panel.set_xlabel(panel.get_xlabel() if i + columns >= n else "")
        panel.set_ylabel(panel.get_ylabel() if i % columns == 0 else "")
    _label_right(figure, [panels[n - 1]], comparison, make_room=n % columns == 0)
    return figure


def hypervolume_figure(comparison: Comparison) -> Figure:
    """Hypervolume and efficiency against evaluations: median and range per controller."""
    figure, ((left, right),) = _panels(1, 2)
    for group, look in zip(comparison.groups, _looks(comparison), strict=True):
        _draw_course(left, [f.trace for f in group.members], look)
        _draw_course(right, [f.efficiency for f in group.members], look)
    right.axhline(LEVEL, color="black", lw=0.9, ls=(0, (4, 3)), zorder=1)
    right.annotate(f"{100 * LEVEL:g} %", (0.01, LEVEL), (0, 2), ("axes fraction", "data"), "offset points", fontsize=9)
    right.set_ylim(bottom=min(0.0, right.get_ylim()[0]), top=max(1.02, right.get_ylim()[1]))
    longest = max(len(f.trace) for f in comparison.runs)
    for panel, title in ((left, "hypervolume"), (right, "share of what the best points could cover")):
        panel.set_xscale("log")
        panel.set_xlim(0.9, max(longest, 2) * 1.05)
        panel.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_xlabel("evaluations", fontsize=10.5)
        panel.set_title(title, fontsize=10.5, loc="left")
    _label_right(figure, [left, right], comparison)
    return figure


def _panels(
    rows: int, columns: int, *, width: float = 6.6, height: float = 4.4, share: bool = False
) -> tuple[Figure, list[list[Panel]]]:
    size = (width * columns if columns > 1 else 8.4, height * rows)
    figure = Figure(figsize=size, dpi=100)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.09, h_pad=0.06)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
    panels: list[list[Panel]] = [list(row) for row in grid]
    for panel in (panel for row in panels for panel in row):
        panel.grid(color="#E4E4E4", linewidth=0.7)
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=9.5)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _looks(comparison: Comparison) -> list[_Look]:
    """One look per controller; exact is black."""
    looks: list[_Look] = []
    i = 0
    for group in comparison.groups:
        if group.members[0].run.controller == "exact" and not any(look.colour == "black" for look in looks):
            looks.append(_Look(colour="black", marker=".", line="-"))
            continue
        looks.append(_Look(colour=_COLOURS[i % 7], marker=_MARKERS[i % 7], line=_LINES[i // 7 % 3]))
        i += 1
    return looks


def _orient(axes: Axes, pair: tuple[int, int]) -> tuple[int, int]:
    """Which axis lies along x: one that is minimised, cost before others."""
    first, second = sorted(pair, key=lambda j: (axes.axes[j].maximise, axes.axes[j].column != "cost_usd", j))
    return first, second


def _draw_fronts(panel: Panel, comparison: Comparison, pair: tuple[int, int], *, medians: bool) -> None:
    for group, look in zip(comparison.groups, _looks(comparison), strict=True):
        for points in _drawn(comparison.axes, group, medians=medians):
            _draw_set(panel, comparison.axes, points, pair, look, strong=medians or len(group.members) == 1)
    _scale(panel, comparison.axes, pair)


def _scale(panel: Panel, axes: Axes, pair: tuple[int, int]) -> None:
    """Scales, ticks and labels of both axes; then every staircase is prolonged to the edge."""
    x, y = (axes.axes[j] for j in pair)
    for axis, set_scale, ticks, set_label in (
        (x, panel.set_xscale, panel.xaxis, panel.set_xlabel),
        (y, panel.set_yscale, panel.yaxis, panel.set_ylabel),
    ):
        if axis.log:
            set_scale("log")
            ticks.set_major_formatter(FuncFormatter(lambda v, _: np.format_float_positional(v, precision=9, trim="-")))
            ticks.set_minor_formatter(NullFormatter())
            low, high = ticks.get_view_interval()
            if high / low < 300:
                ticks.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low > 8 else (1, 1.5, 2, 3, 4, 5, 7)))
        set_label(_axis_label(axis), fontsize=10.5)
    _extend(panel, maximised=x.maximise)


def _drawn(axes: Axes, group: Group, *, medians: bool) -> list[_Set]:
    """The sets to draw: each run's front, or the controller's median (a single run's own front); none is empty."""
    if medians and group.surface is not None:
        return [(group.surface, natural_points(axes, group.surface))] if len(group.surface) else []
    return [(f.run.Z[f.run.front], _natural_front(axes, f)) for f in group.members if len(f.run.front)]


def _natural_front(axes: Axes, figures: RunFigures) -> FloatArray:
    """`k x m` natural values of a run's front."""
    return np.stack([figures.run.columns[a.column][figures.run.front] for a in axes.axes], axis=1)


def _draw_set(panel: Panel, axes: Axes, drawn: _Set, pair: tuple[int, int], look: _Look, *, strong: bool) -> None:
    """The staircase of what `k x m` points attain on two axes, with its corners where they are few."""
    Z, natural = drawn[0][:, list(pair)], drawn[1][:, list(pair)] * [_unit(axes.axes[j]) for j in pair]
    edge = non_dominated(Z)
    order = np.argsort(natural[edge, 0], kind="stable")
    step = "steps-pre" if axes.axes[pair[0]].maximise else "steps-post"
    width, alpha = (1.8, 1.0) if strong else (0.9, 0.6)
    stairs = natural[edge][order]
    line = {"color": look.colour, "lw": width, "alpha": alpha, "ls": look.line, "drawstyle": step}
    panel.plot(stairs[:, 0], stairs[:, 1], gid="stairs", **line)  # type: ignore[arg-type]
    if look.marker and len(stairs) < _MOST_CORNERS:
        panel.plot(stairs[:, 0], stairs[:, 1], look.marker, color=look.colour, ms=3.5, mew=0, alpha=alpha)


def _extend(panel: Panel, *, maximised: bool) -> None:
    """Prolong every staircase to the edge: what is attained at a cost is attained at any higher one."""
    low, high = panel.get_xlim()
    for line in panel.lines:
        if line.get_gid() == "stairs":
            x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
            along = (np.append(low, x), np.append(y[0], y)) if maximised else (np.append(x, high), np.append(y, y[-1]))
            line.set_data(*along)
    panel.set_xlim(low, high)


def _draw_course(panel: Panel, courses: Sequence[FloatArray], look: _Look) -> None:
    """Median and range, as far as the shortest course reaches."""
    at = thinned(min(map(len, courses)))
    values = np.stack([course[at - 1] for course in courses])
    known = np.isfinite(values).all(axis=0)
    at, values = at[known], values[:, known]
    if len(at) == 0:
        return
    if len(values) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        panel.fill_between(at, low, high, step="post", color=look.colour, alpha=0.16, lw=0)
    mark = look.marker if len(at) == 1 else ""
    style = {"color": look.colour, "ls": look.line, "lw": 1.8, "drawstyle": "steps-post", "marker": mark}
    panel.plot(at, np.median(values, axis=0), gid="course", **style)  # type: ignore[arg-type]


def _label_right(figure: Figure, panels: Sequence[Panel], comparison: Comparison, *, make_room: bool = True) -> None:
    """Name each controller at the right edge, beside where its line ends, without overlaps."""
    looks = _looks(comparison)
    labels = []
    for panel in panels:
        for group, look in zip(comparison.groups, looks, strict=True):
            if (end := _line_end(panel, look)) is not None:
                style = {"transform": panel.transAxes, "color": look.colour, "fontsize": 9.5, "va": "center"}
                text = panel.text(1.05, end, _name(group), **style)  # type: ignore[arg-type]
                text.set_in_layout(make_room)
                labels.append((panel, text, end, look))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for panel in panels:
        own = sorted((item for item in labels if item[0] is panel), key=lambda item: item[2])
        gap = 13.0 * figure.dpi / 72.0 / panel.bbox.height
        places = _spread(np.array([item[2] for item in own]), gap)
        for (_, text, end, look), place in zip(own, places, strict=True):
            text.set_y(place)
            ends = ([1.0, 1.04], [end, place])
            panel.plot(*ends, transform=panel.transAxes, color=look.colour, lw=0.8, clip_on=False)


def _name(group: Group) -> str:
    return _shown(group.name) + (f" ({len(group.members)} runs)" if len(group.members) > 1 else "")


def _line_end(panel: Panel, look: _Look) -> float | None:
    """Mean height at which the lines of one look end on the right, as a fraction of the panel."""
    lines = [line for line in panel.lines if line.get_gid() and line.get_color() == look.colour]
    lines = [line for line in lines if line.get_linestyle() == look.line]
    if not lines:
        return None
    last = np.array([np.asarray(line.get_xydata())[-1] for line in lines])
    ends = panel.transData.transform(last)[:, 1]
    return float(np.clip((np.mean(ends) - panel.bbox.y0) / panel.bbox.height, 0.0, 1.0))


def _spread(wanted: FloatArray, gap: float) -> FloatArray:
    """Rising heights at least `gap` apart and as near as can be to the `wanted: k` rising ones, inside [0, 1]."""
    if len(wanted) == 0:
        return wanted
    steps = gap * np.arange(len(wanted))
    places = np.asarray(isotonic_regression(wanted - steps).x) + steps
    places = places + max(0.0, -places[0])
    return np.asarray(places - max(0.0, places[-1] - 1.0))


def _single_objective(comparison: Comparison) -> Figure:
    """With one objective a front is one value: that of each run, by controller."""
    axis = comparison.axes.axes[0]
    figure, ((panel,),) = _panels(1, 1)
    for i, (group, look) in enumerate(zip(comparison.groups, _looks(comparison), strict=True)):
        values = [_natural_front(comparison.axes, f)[:, 0] * _unit(axis) for f in group.members]
        found = np.concatenate([np.zeros(0), *values])
        panel.plot(found, np.full(len(found), i), look.marker, color=look.colour, ms=7, alpha=0.7)
    panel.set_yticks(range(len(comparison.groups)), [_shown(group.name) for group in comparison.groups])
    panel.set_ylim(-0.6, len(comparison.groups) - 0.4)
    panel.set_xlabel(_axis_label(axis), fontsize=10.5)
    panel.set_title("best value of each run", fontsize=10.5, loc="left")
    return figure


def _unit(axis: Axis) -> float:
    return 1000.0 if axis.column.startswith("cost_usd") else 1.0


def _axis_label(axis: Axis) -> str:
    unit = ", USD" if axis.column.startswith("cost_usd") else ", seconds" if axis.column.startswith("latency") else ""
    better = "more" if axis.maximise else "less"
    return f"{_shown(column_label(axis.column))}{unit} ({better} is better)"


def _shown(name: str) -> str:
    """A user's name as a label: one line, capped, no mathtext, `?` for what the font cannot draw."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    line = " ".join(name.split())
    line = line if len(line) <= _LONGEST_LABEL else f"{line[: _LONGEST_LABEL - 1]}…"
    return "".join(c if font.get_char_index(ord(c)) else "?" for c in line).replace("$", r"\$")
