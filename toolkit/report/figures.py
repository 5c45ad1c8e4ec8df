"""Figures of one run, drawn with matplotlib's object-oriented API: no pyplot, no global state.

Colours are those of Okabe and Ito (2008), safe for colour-blind readers; verdicts differ in marker as well.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from matplotlib.transforms import Bbox

from simulators.outcomes import FloatArray
from toolkit.certify.evidence import SliceEvidence
from toolkit.certify.intervals import Interval
from toolkit.report.record import RunRecord
from toolkit.report.wording import has_costs, on_validation

_BLUE, _RED, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#6E6E6E"
_TIER_COLOURS = ("#56B4E9", "#E69F00", "#0072B2", "#CC79A7", "#F0E442", "#4D4D4D", "#009E73", "#D55E00")
_DARK = frozenset({"#0072B2", "#4D4D4D", "#009E73", "#D55E00"})
_TIER_HATCHES = ("", "///", "...")
_VERDICTS = {"loss": (_RED, "v"), "no evidence": (_GREY, "o"), "gain": (_GREEN, "^")}
_LONGEST_LABEL, _KEPT_END = 28, 11
_HULL_SAMPLES = 400
_WIDE_ENOUGH = 0.14
_DIRECTIONS = ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 0), (-1, 1), (-1, -1))
_DISTANCES = (7.0, 14.0, 22.0, 32.0, 44.0, 58.0)
_LINE_BEYOND = 10.0


@dataclass(frozen=True, kw_only=True)
class _Horizontal:
    """What lies along x of the front figure, in the units shown.

    Attributes:
        label: Axis label.
        column: Natural column.
        scale: Natural unit to the unit shown.
        tiers: `K` values of the single tiers; NaN where unknown.
        chosen: The chosen policy's value on the validation split.
    """

    label: str
    column: str
    scale: float
    tiers: FloatArray
    chosen: Interval


def front_figure(record: RunRecord) -> Figure:
    """Cost (or latency, where costs are unknown) against quality: policies, single tiers, Zero router, chosen point."""
    figure = Figure(figsize=(8.0, 5.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    x = _horizontal(record)
    _draw_front(axes, record, x)
    if has_costs(record) and record.deployment is None:
        _draw_zero_router(axes, record)
    axes.axhline(record.evidence.oracle_quality, color=_GREEN, linestyle=":", label="oracle (best tier per query)")
    _draw_chosen(axes, record, x)
    _scale_x(axes, x)
    axes.set_xlabel(x.label, fontsize=11)
    axes.set_ylabel("mean quality", fontsize=11)
    axes.margins(x=0.08, y=0.08)
    axes.tick_params(labelsize=10)
    axes.grid(color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    points = _draw_tiers(axes, record, x)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9.5, frameon=False)
    _label_points(figure, axes, points, [shown_name(t) for t in record.evidence.tiers])
    return figure


def _horizontal(record: RunRecord) -> _Horizontal:
    evidence = record.evidence
    if has_costs(record) and record.deployment is None:
        return _Horizontal(
            label="cost per 1,000 queries, USD",
            column="cost_usd",
            scale=1000.0,
            tiers=1000.0 * evidence.tier_cost_usd,
            chosen=_scaled(evidence.cost_usd, 1000.0),
        )
    columns = [c for c in record.front if c.startswith("latency_") and "[" not in c]
    column = "latency_p95_s" if "latency_p95_s" in columns else next(iter(columns), "")
    unknown = np.full(len(evidence.tiers), np.nan)
    kind = column.removeprefix("latency_").removesuffix("_s")
    return _Horizontal(
        label=f"{kind} latency, seconds" if column else "single tiers, and the policy",
        column=column,
        scale=1.0,
        tiers=evidence.tier_latency_p95_s if column == "latency_p95_s" else unknown,
        chosen=on_validation(evidence, column),
    )


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(mean=factor * interval.mean, low=factor * interval.low, high=factor * interval.high)


def _draw_front(axes: Axes, record: RunRecord, x: _Horizontal) -> None:
    tune, validate = record.front, record.front_validate
    if x.column in tune and "quality" in tune:
        along = x.scale * tune[x.column]
        rising = (np.diff(along) >= 0).all() and (np.diff(tune["quality"]) >= 0).all()
        line = "-" if rising else "none"  # with a third objective the points are no line
        axes.plot(
            along, tune["quality"], ".", ls=line, color=_BLUE, alpha=0.35, lw=1.4, ms=3, label="front, tune split"
        )
    if x.column in validate and "quality" in validate:
        along, label = x.scale * validate[x.column], "its policies on validation"
        axes.plot(along, validate["quality"], "o", color=_BLUE, ms=4, mew=0, alpha=0.75, label=label)


def _draw_zero_router(axes: Axes, record: RunRecord) -> None:
    if (hull := record.zero_validate) is None:
        return
    last = max(float(hull.cost_usd[-1]), float(record.evidence.tier_cost_usd.max()))
    cost = np.unique(np.concatenate([hull.cost_usd, _dense(float(hull.cost_usd[0]), last)]))
    quality = np.interp(cost, hull.cost_usd, hull.quality)
    axes.plot(1000.0 * cost, quality, "--", color=_GREY, lw=1.3, label="Zero router (random mixing)")


def _dense(low: float, high: float) -> FloatArray:
    """Costs from `low` to `high`, even on a log axis and on a linear one: a chord is curved on a log axis."""
    positive = low if low > 0 else max(high, 1e-12) * 1e-4
    logarithmic = np.geomspace(positive, max(high, positive), _HULL_SAMPLES)
    return np.asarray(np.clip(np.concatenate([logarithmic, np.linspace(low, high, _HULL_SAMPLES)]), low, high))


def _draw_chosen(axes: Axes, record: RunRecord, x: _Horizontal) -> None:
    quality = record.evidence.quality
    at = x.chosen if math.isfinite(x.chosen.mean) else Interval(mean=len(x.tiers), low=np.nan, high=np.nan)
    label = "chosen point, 95 % interval"
    axes.plot(at.mean, quality.mean, "o", color=_RED, ms=12, mfc="none", mew=2.4, zorder=6, label=label)
    axes.errorbar(at.mean, quality.mean, _arms(quality), _arms(at), "o", color=_RED, ms=2, capsize=3, zorder=6)
    stock = record.stock_validate
    if stock is not None and x.column == "cost_usd" and math.isfinite(stock.cost_usd):
        label = shown_name(stock.name)
        axes.plot(1000.0 * stock.cost_usd, stock.quality, "s", ms=8, mfc="#CC79A7", mec="black", zorder=5, label=label)


def _arms(interval: Interval) -> FloatArray:
    """`2 x 1` lengths of an error bar; 0 where there is no interval."""
    arms = np.array([[interval.mean - interval.low], [interval.high - interval.mean]], dtype=np.float64)
    return np.asarray(np.nan_to_num(np.maximum(arms, 0.0)))


def _scale_x(axes: Axes, x: _Horizontal) -> None:
    if not x.column:
        return
    values = np.array([*x.tiers, x.chosen.mean, *axes.dataLim.intervalx])
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    if len(positive) == 0 or positive.max() < 3 * positive.min():
        axes.xaxis.set_major_locator(MaxNLocator(6))
        return
    ratio = positive.max() / positive.min()
    if (values <= 0).any():
        axes.set_xscale("symlog", linthresh=float(positive.min()), linscale=0.5)
    else:
        axes.set_xscale("log")
        if ratio < 300:
            steps = (1.0, 2.0, 5.0) if ratio > 12 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
            axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: np.format_float_positional(v, precision=9, trim="-")))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw_tiers(axes: Axes, record: RunRecord, x: _Horizontal) -> FloatArray:
    """`K x 2` where the single tiers were drawn; those whose x is unknown stand at the right edge."""
    evidence = record.evidence
    at = x.tiers if x.column else np.arange(len(evidence.tiers), dtype=np.float64)
    if not x.column:
        axes.set_xticks([])
    right = axes.get_xlim()[1]
    known = np.isfinite(at)
    if known.any():
        axes.plot(at[known], evidence.tier_quality[known], "D", ms=6.5, color="black", zorder=4, label="single tiers")
    if not known.all():
        edge = np.full(int((~known).sum()), right)
        label = "single tiers (place along x unknown)"
        axes.plot(edge, evidence.tier_quality[~known], "<", ms=8, color="black", clip_on=False, label=label)
        axes.set_xlim(right=right)
    return np.stack([np.where(known, at, right), evidence.tier_quality], axis=1)


def _label_points(figure: Figure, axes: Axes, points: FloatArray, names: Sequence[str]) -> None:
    """Put a name beside each point (`points: K x 2`), where it covers least of what is drawn already."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    unit = figure.dpi / 72.0
    anchors = np.asarray(axes.transData.transform(points))
    obstacles = np.concatenate([_drawn_pixels(axes), np.repeat(anchors, 40, axis=0)])
    boxes: list[Bbox] = []
    for anchor, (x, y), name in zip(anchors, points, names, strict=True):
        label = axes.annotate(name, (x, y), (0, 0), textcoords="offset points", fontsize=10, zorder=7)
        label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        label.set_in_layout(False)
        candidates = _candidates(anchor, label.get_window_extent(), unit)
        clutter = [_clutter(box, boxes, obstacles, axes.bbox) for box in candidates]
        farther = 4.0 * (np.arange(len(candidates)) // len(_DIRECTIONS))
        box = candidates[int(np.argmin(clutter + farther))]
        boxes.append(box)
        label.set_position(((box.x0 - anchor[0]) / unit, (box.y0 - anchor[1]) / unit))
        _leader(axes, anchor, box, unit)


def _drawn_pixels(axes: Axes) -> FloatArray:
    """`P x 2` pixels along the lines and error bars drawn so far, the oracle's line aside."""
    paths = [np.asarray(line.get_xydata()) for line in axes.lines if line.get_linestyle() != ":"]
    for bars in axes.collections:
        paths += [np.asarray(bar) for bar in bars.get_segments()] if isinstance(bars, LineCollection) else []
    pixels = []
    for path in (np.asarray(axes.transData.transform(path)) for path in paths if len(path)):
        along = np.linspace(0, len(path) - 1, 200 if len(path) > 2 else 30)
        pixels.append(np.stack([np.interp(along, np.arange(len(path)), path[:, i]) for i in (0, 1)], axis=1))
    return np.concatenate(pixels)


def _candidates(anchor: FloatArray, size: Bbox, unit: float) -> list[Bbox]:
    """Where a label of this size could stand around its anchor, in pixels; the preferred places first."""
    boxes = []
    for distance in _DISTANCES:
        for right, up in _DIRECTIONS:
            x = anchor[0] + right * distance * unit + (right - 1) * size.width / 2
            y = anchor[1] + up * distance * unit + (up - 1) * size.height / 2
            boxes.append(Bbox.from_bounds(x, y, size.width, size.height))
    return boxes


def _clutter(box: Bbox, labels: list[Bbox], obstacles: FloatArray, frame: Bbox) -> float:
    """What a label at `box` would cover: other labels and the frame weigh most, then markers, then lines."""
    low, high = np.asarray(box.min), np.asarray(box.max)
    outside = np.maximum(frame.min - low, 0).sum() + np.maximum(high - frame.max, 0).sum()
    covered = ((obstacles > low - 4) & (obstacles < high + 4)).all(axis=1).sum()
    overlaps = sum(box.padded(1).overlaps(other) for other in labels)
    return float(1000.0 * overlaps + 20.0 * outside + covered)


def _leader(axes: Axes, anchor: FloatArray, box: Bbox, unit: float) -> None:
    """A hairline from a point to a label that stands away from it."""
    nearest = np.clip(anchor, box.min, box.max)
    if np.hypot(*(nearest - anchor)) > _LINE_BEYOND * unit:
        ends = axes.transData.inverted().transform(np.stack([anchor, nearest]))
        axes.plot(ends[:, 0], ends[:, 1], color=_GREY, lw=0.7, zorder=3, scalex=False, scaley=False)


def slices_figure(record: RunRecord) -> Figure:
    """Per covered slice: the paired difference to the best single tier, and the share of each tier."""
    evidence = record.evidence
    best = evidence.best_single
    slices = sorted(evidence.slices, key=lambda s: -s.versus[best].mean)
    legend_rows = math.ceil(len(evidence.tiers) / 4)
    height = 1.7 + 0.22 * legend_rows + 0.33 * max(len(slices), 1)
    figure = Figure(figsize=(9.5, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    if not slices:
        left.text(
            0.5, 0.5, "no slice has enough queries", ha="center", va="center", fontsize=11, transform=left.transAxes
        )
    _draw_differences(left, slices, best)
    _draw_shares(right, slices, [shown_name(t) for t in evidence.tiers])
    left.set_yticks(range(len(slices)), [f"{shown_name(s.name)}  (n = {s.n:,})" for s in slices])
    left.set_ylim(-0.7, max(len(slices), 1) - 0.3)
    for axes in (left, right):
        axes.tick_params(labelsize=10)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9.5, frameon=False)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9.5, frameon=False)
    left.set_xlabel(f"quality minus that of {shown_name(best)}, 95 % interval", fontsize=10.5)
    right.set_xlabel("share of the slice's queries", fontsize=10.5)
    return figure


def _draw_differences(axes: Axes, slices: Sequence[SliceEvidence], best: str) -> None:
    axes.axvline(0.0, color="black", linewidth=1.0)
    for verdict, (colour, marker) in _VERDICTS.items():
        rows = [i for i, s in enumerate(slices) if s.versus[best].verdict == verdict]
        gaps = [slices[i].versus[best] for i in rows]
        arms = np.concatenate([_arms(g) for g in gaps], axis=1) if gaps else np.zeros((2, 0))
        label = f"{verdict} ({len(rows)})"
        axes.errorbar([g.mean for g in gaps], rows, None, arms, marker, color=colour, ms=7, capsize=2.5, label=label)
    axes.grid(axis="x", color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def _draw_shares(axes: Axes, slices: Sequence[SliceEvidence], tiers: Sequence[str]) -> None:
    shares = np.array([s.tier_shares for s in slices]).reshape(len(slices), len(tiers))
    start = np.cumsum(shares, axis=1) - shares
    for k, tier in enumerate(tiers):
        colour = _TIER_COLOURS[k % len(_TIER_COLOURS)]
        hatch = _TIER_HATCHES[k // len(_TIER_COLOURS) % len(_TIER_HATCHES)]
        axes.barh(range(len(slices)), shares[:, k], 0.72, start[:, k], color=colour, hatch=hatch, label=tier)
        ink = "white" if colour in _DARK else "black"
        for row, (left, share) in enumerate(zip(start[:, k], shares[:, k], strict=True)):
            if share >= _WIDE_ENOUGH and not hatch:
                axes.text(left + share / 2, row, f"{100 * share:.0f} %", ha="center", va="center", size=8.5, color=ink)
    axes.set_xlim(0.0, 1.0)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))


def shown_name(name: str) -> str:
    """A user's name as a label: one line, capped in its middle, no mathtext, `?` for what the font cannot draw."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    line = " ".join(name.split())
    if len(line) > _LONGEST_LABEL:
        line = f"{line[: _LONGEST_LABEL - _KEPT_END - 1]}…{line[-_KEPT_END:]}"
    return "".join(c if font.get_char_index(ord(c)) else "?" for c in line).replace("$", r"\$")


def png_bytes(figure: Figure, *, dpi: int = 150) -> bytes:
    """The figure as PNG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
