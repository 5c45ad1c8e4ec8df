"""What a comparison of controllers comes to: tables, figures, sentences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from experiments.console import print_rows
from experiments.control import Book
from experiments.control_methods import at_edge
from experiments.control_notes import KNOWING, MARK, notes_of, shown_name
from experiments.control_ppo import late_limits
from experiments.control_settings import Method
from experiments.files import write_bytes, write_json, write_text
from simulators.outcomes import FloatArray
from toolkit.baselines.window_front import advantage, cost_ratio, interval
from toolkit.baselines.windows import Service

_EXPLAINED = (
    "Each method stands at the setting that was best on the training traffic: attainment less {weight:g} per USD "
    "per 1,000 requests, of those that kept the floor there. {mark}: its mean quality on the unseen traffic is below "
    "the floor. In brackets: on how many traffics it is not, where that is not all of them. Beyond static: points of "
    "attainment over the best time-sharing of static thresholds of the same cost and at least the floor's quality (the "
    "method's own where that is lower), paired by seed; then the same for static thresholds of at least the method's "
    "own quality. *: no static mixture of that quality is so cheap, and the cheapest one stands in. Cost ratio: cost "
    "over that of the cheapest static mixture of the same attainment and quality; none: no mixture has them. "
    "Clairvoyant thresholds know the unseen traffic; they are a local optimum of thresholds per window at the cost of "
    "one static point: knowledge could do at least as well, and rules that decide per request are not bounded by it. "
    "The static row is the point that others start from. Intervals are over traffics, for one choice of settings and "
    "one trained policy: what another training traffic or another training run would give is not in them."
)
_COLUMNS = (
    "method",
    "within the limit",
    "USD / 1,000",
    "quality",
    "failed",
    "beyond static",
    "beyond static of its quality",
    "cost ratio",
)


def summarise(book: Book) -> dict[str, Any]:
    """Tables and figures of all methods that are done; written into the folder."""
    from experiments.control_figures import front_figure, timeline_figure
    from experiments.control_timeline import timelines

    settings = book.site.settings
    methods = [m for m in settings.methods if book.done(m)]
    rows = {m: _row(book, m) for m in methods}
    found: dict[str, Any] = {
        "output": str(book.output),
        "scenario": book.site.spec.name,
        "slo_s": settings.slo_s,
        "quality_floor": settings.quality_floor,
        "cost_weight": settings.cost_weight,
        "seeds": settings.seeds,
        "train_seeds": settings.train_seeds,
        "methods": rows,
        "curves": {m: _curve(book, m) for m in methods},
        "notes": notes_of(rows),
    }
    write_json(book.output / "summary.json", found)
    write_text(book.output / "summary.md", as_markdown(found))
    write_bytes(book.output / "front.png", front_figure(found))
    if len(methods) > 1:
        write_bytes(book.output / "timeline.png", timeline_figure(timelines(book, rows), book.site.train_table.tiers))
    return found


def _row(book: Book, method: Method) -> dict[str, Any]:
    """One method at the setting that is best on the training traffic, at the price of cost."""
    i = _picked(book, method)
    own = _by_seed(book, method)[:, i]
    cell = book.unseen(method, 0)
    row: dict[str, Any] = {"setting": cell.labels[i], "number": int(cell.rows[i]), "settings": len(cell.rows)}
    for name, values in zip(("attainment", "cost_usd", "quality", "failed"), own.T, strict=True):
        row[name] = vars(interval(values))
    floor = book.site.settings.quality_floor
    row |= {
        "below_floor": bool(row["quality"]["mean"] < floor),
        "seeds_at_floor": int((own[:, 2] >= floor).sum()),
        "seeds": len(own),
        "at_edge": _edges(book, method, row["number"]),
    }
    none = dict.fromkeys(
        ("advantage", "by_seed", "equal_cost", "same_quality", "same_quality_equal_cost", "cost_ratio")
    )
    if method == "static":
        return row | none
    static = _by_seed(book, "static")[:, :, :3]
    found = advantage(own[:, :3], static, quality_floor=floor)
    same = advantage(own[:, :3], static)
    if found is None or same is None:
        return row | none
    return row | {
        "advantage": vars(interval(found.values)),
        "by_seed": found.values.tolist(),
        "equal_cost": found.equal_cost,
        "same_quality": vars(interval(same.values)),
        "same_quality_equal_cost": same.equal_cost,
        "cost_ratio": cost_ratio(own[:, :3], static),
    }


def _picked(book: Book, method: Method) -> int:
    """Which of the settings that were played on unseen traffic is the best one on the training traffic."""
    if method == KNOWING:
        return 0
    rows = book.unseen(method, 0).rows
    if method == "static":
        return int(np.flatnonzero(rows == book.plan.home)[0])
    return int(np.argmax(book.plan.worth(Service.of(book.trained(method).stacked()[rows]))))


def _edges(book: Book, method: Method, number: int) -> list[str]:
    """Knobs of a setting that lie on the edge of what was tried; of what has no grid of its own, none."""
    if method in ("static", KNOWING):
        return []
    if method == "ppo_lagrangian":
        return at_edge({"limit of the late share": np.array(late_limits(book.plan))}, number)
    return at_edge(book.plan.sweep(method).knobs, number)


def _by_seed(book: Book, method: Method) -> FloatArray:
    """`S x n x 4` on the unseen traffic."""
    return np.stack([book.unseen(method, s).service.stacked() for s in range(book.site.settings.seeds)])


def _curve(book: Book, method: Method) -> dict[str, Any]:
    """Means over the unseen seeds of all settings that were played."""
    mean = _by_seed(book, method).mean(axis=0)
    names = ("attainment", "cost_usd", "quality", "failed")
    found: dict[str, Any] = dict(zip(names, mean.T.tolist(), strict=True))
    return found | {"settings": list(book.unseen(method, 0).labels)}


def as_markdown(found: dict[str, Any]) -> str:
    """The table and what it says."""
    lines = [
        f"**{found['scenario']}**: limit {found['slo_s']:g} s, quality floor {found['quality_floor']:g}, "
        f"{found['seeds']} unseen traffics with queries of their own; means with 95 % intervals over them.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
    ]
    lines += [f"| {' | '.join(_cells(method, row))} |" for method, row in found["methods"].items()]
    lines += ["", *(f"- {note}" for note in found["notes"]), ""]
    lines += [f"- {method}: {row['setting']}." for method, row in found["methods"].items()]
    lines += ["", _EXPLAINED.format(weight=found["cost_weight"], mark=MARK)]
    return "\n".join(lines) + "\n"


def _cells(method: str, row: dict[str, Any]) -> tuple[str, ...]:
    ratio, compared = row["cost_ratio"], row["advantage"] is not None
    return (
        shown_name(method, row),
        _with_half(row["attainment"], 100, 2, " %"),
        _with_half(row["cost_usd"], 1000, 3, ""),
        _with_half(row["quality"], 1, 4, _kept_by(row)),
        f"{100 * row['failed']['mean']:.2f} %",
        _points(row["advantage"], row["equal_cost"]) if compared else "",
        _points(row["same_quality"], row["same_quality_equal_cost"]) if compared else "",
        "" if not compared else "none" if ratio is None else f"{ratio:.2f}",
    )


def _kept_by(row: dict[str, Any]) -> str:
    kept, seeds = row["seeds_at_floor"], row["seeds"]
    return "" if kept == seeds else f" ({kept} of {seeds})"


def _with_half(value: dict[str, float], scale: float, digits: int, unit: str) -> str:
    half = scale * (value["high"] - value["mean"])
    spread = f" ± {half:.{digits}f}" if math.isfinite(half) else ""
    return f"{scale * value['mean']:.{digits}f}{spread}{unit}"


def _points(value: dict[str, float], equal_cost: bool) -> str:
    ends = f" [{100 * value['low']:+.2f}, {100 * value['high']:+.2f}]" if math.isfinite(value["low"]) else ""
    return f"{100 * value['mean']:+.2f}{ends}{'' if equal_cost else ' *'}"


def show_control(result: dict[str, Any]) -> None:
    """The table on the terminal."""
    title = f"{result['scenario']}: within {result['slo_s']:g} s, quality floor {result['quality_floor']:g}"
    print_rows(title, [_cells(method, row) for method, row in result["methods"].items()], _COLUMNS)
    for note in result["notes"]:
        print(f"- {note}")
    print(f"\nWrote {result['output']}/summary.json, summary.md, front.png and timeline.png.")
