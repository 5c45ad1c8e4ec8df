"""Figures of `routefront control`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes as Panel
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.control_notes import MARK, shown_name
from experiments.control_timeline import Course
from toolkit.baselines.window_front import shared
from toolkit.baselines.windows import Service
from toolkit.report.figures import png_bytes

_COLOURS = {
    "budget_pacing": "#CC79A7",
    "latency_pacing": "#56B4E9",
    "queue_pacing": "#0072B2",
    "index": "#009E73",
    "assignment": "#E69F00",
    "ppo_lagrangian": "#D55E00",
    "clairvoyant": "#8C8C8C",
}
_TIERS = ("#CFE3F3", "#7FB2DB", "#2C6CA3", "#123B61", "#0A2036")


def front_figure(found: Mapping[str, Any]) -> bytes:
    """PNG: attainment against cost, the time-shared static front as a line, the others as points with intervals."""
    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    _static_line(panel, found)
    for method, row in found["methods"].items():
        if method == "static":
            continue
        colour, curve = _COLOURS[method], found["curves"][method]
        panel.plot(
            1000 * np.array(curve["cost_usd"]), 100 * np.array(curve["attainment"]), ".", color=colour, alpha=0.4
        )
        x, y = 1000 * row["cost_usd"]["mean"], 100 * row["attainment"]["mean"]
        half = 100 * (row["attainment"]["high"] - row["attainment"]["mean"])
        bar = None if not np.isfinite(half) else half
        marker = "D" if method == "clairvoyant" else "o"
        panel.errorbar(x, y, yerr=bar, fmt=marker, color=colour, label=shown_name(method, row), capsize=3)
    panel.set_xscale("log")
    panel.set_xlabel("USD per 1,000 requests")
    panel.set_ylabel(f"answered within {found['slo_s']:g} s, %")
    floor = f"quality floor {found['quality_floor']:g} ({MARK} below it here)"
    panel.set_title(f"{found['scenario']}: unseen traffic, {floor}", fontsize=11)
    panel.grid(color="#EEEEEE", lw=0.7)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, fontsize=8, loc="lower right")
    return png_bytes(figure)


def _static_line(panel: Panel, found: Mapping[str, Any]) -> None:
    curve = found["curves"].get("static")
    if curve is None:
        return
    points = Service(**{name: np.array(curve[name]) for name in ("attainment", "cost_usd", "quality", "failed")})
    costs = np.geomspace(max(points.cost_usd.min(), 1e-9), points.cost_usd.max(), 60)
    line = [(c, m.attainment) for c in costs if (m := shared(points, cost_usd=c, quality=found["quality_floor"]))]
    if line:
        x, y = np.array(line).T
        panel.plot(1000 * x, 100 * y, color="black", lw=1.8, label="static front, shared over time")
        panel.set_ylim(max(0.0, 100 * y.min() - 5), 100.5)
    row = found["methods"]["static"]
    x0, y0 = 1000 * row["cost_usd"]["mean"], 100 * row["attainment"]["mean"]
    panel.plot(x0, y0, "s", color="black", label="static point that others start from")


def timeline_figure(courses: Mapping[str, Course], tiers: tuple[str, ...]) -> bytes:
    """PNG: for each method the tiers' shares over time and the late share; the load on top."""
    figure = Figure(figsize=(9, 1.6 * (len(courses) + 1) + 0.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(courses) + 1, 1, sharex=True)
    first = next(iter(courses.values()))
    panels[0].step(first.at_s / 3600, first.requests, where="pre", color="black")
    panels[0].set_ylabel("answers")
    panels[0].set_title(
        "one unseen episode: load, then shares of the tiers and late share (red) by method", fontsize=10
    )
    for panel, (method, course) in zip(panels[1:], courses.items(), strict=True):
        shares = np.nan_to_num(course.sent)
        colours = [_TIERS[min(k, len(_TIERS) - 1)] for k in range(len(tiers))]
        panel.stackplot(course.at_s / 3600, shares.T, colors=colours, labels=tiers, step="pre")
        panel.step(course.at_s / 3600, course.late, where="pre", color="#D00000", lw=1.6, label="late")
        panel.set_ylim(0, 1)
        panel.set_ylabel(method, fontsize=8)
    panels[-1].set_xlabel("hours")
    panels[-1].legend(loc="upper left", fontsize=7, ncols=len(tiers) + 1)
    return png_bytes(figure)
