"""The tables of a reproduction as Markdown, theirs beside ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from experiments.reproduce_changing import SCHEDULES
from experiments.reproduce_numbers import THIRDS
from experiments.reproduce_paper import BAND, CHANGING, TABLE_1, TABLE_2, TABLE_4

Show = Callable[[float], str]
_READ_LABELS = {"cascade", "oracle", "oracle_path"}


def as_markdown(found: Mapping[str, Any]) -> str:
    """All tables."""
    sets = found["sets"]
    parts = [_header(found), _sets(sets), _table_1(sets), _table_2(sets), _table_4(sets), _methods(sets)]
    parts += [_changing(sets), _account(sets)]
    return "\n".join(part for part in parts if part)


def _header(found: Mapping[str, Any]) -> str:
    return (
        f"Mean over {found['seeds']} splits by prompt, half to tune and half to judge, [95 % corrected resampled t "
        'interval]. USD are per 1,000 queries; `*` marks stand-in prices, which are no costs. "–": not defined.\n'
    )


def percent(value: float) -> str:
    """A share or a quality; its interval ends at 0 and 1."""
    return f"{100 * value:.1f} %"


def share(value: float) -> str:
    """A fraction that may lie outside [0, 1]."""
    return f"{100 * value:.0f} %"


def points(value: float) -> str:
    """A difference of fractions, in points."""
    return f"{100 * value:+.1f}"


def number(value: float) -> str:
    """Three digits."""
    return f"{0.0 if abs(value) < 1e-9 else value:.3g}"


def per_thousand(value: float) -> str:
    """USD per query as USD per 1,000."""
    return f"{1e3 * value:.3g}"


def cell(value: Mapping[str, float] | None, show: Show, *, interval: bool = False) -> str:
    """A mean, with its interval if asked for."""
    if value is None or value["mean"] is None or not math.isfinite(value["mean"]):
        return "–"
    text = show(value["mean"])
    if interval and math.isfinite(value["low"]):
        ends = (value["low"], value["high"])
        low, high = (min(max(end, 0.0), 1.0) for end in ends) if show is percent else ends
        text += f" [{show(low).removesuffix(' %')}, {show(high).removesuffix(' %')}]"
    return text


def table(title: str, header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """One Markdown table."""
    header, lines = list(header), [list(row) for row in rows]
    out = [f"**{title}**", "", "| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    out += ["| " + " | ".join(row) + " |" for row in lines]
    return "\n".join([*out, ""])


def _star(found: Mapping[str, Any]) -> str:
    return "*" if found["unit"] else ""


def _sets(sets: Mapping[str, Any]) -> str:
    rows = []
    for name, s in sets.items():
        pool, taus = s["pool"], s["taus"]
        price = f"stand-in: {s['unit']}" if s["unit"] else "recorded"
        qualities = (cell(pool[key], percent) for key in ("cheapest", "random", "best_single", "oracle"))
        tiers = f"{len(s['tiers'])} ({s['why']})" if s["why"] else str(len(s["tiers"]))
        rows.append([name, f"{s['n']:,}", tiers, price, *qualities, f"{taus[0]:.3f}–{taus[-1]:.3f}"])
    header = ("set", "queries", "tiers", "cost", "cheapest", "random", "best single", "oracle", "requested")
    return table("The sets, on held-out queries", header, rows)


def _table_1(sets: Mapping[str, Any]) -> str:
    known = {name: s for name, s in sets.items() if "requested" in s}
    if not known:
        return ""
    parts = []
    for title, pick in (
        ("Table 1, asked for as in the paper (no calibration)", lambda s: s["requested"]),
        ("Table 1, calibrated on tune, no margin", lambda s: s["methods"]["proteus"]["no_margin"]),
        ("Table 1, calibrated on tune with the margin", lambda s: s["methods"]["proteus"]["margin"]),
    ):
        rows = [row for one in _ROWS_1 if (row := _row_1(*one, known, pick)) is not None]
        rows += [_tier_row(third, known, pick) for third in THIRDS]
        parts.append(table(title, ("", *known, "paper RB", "paper SP"), rows))
    return "\n".join([*parts, _paper_range(known)])


_ROWS_1: tuple[tuple[str, str, Show], ...] = (
    ("correlation of mu", "correlation_mu", number),
    ("slope of mu", "slope_mu", number),
    ("range of mu", "range_mu", number),
    ("correlation of quality", "correlation_quality", number),
    ("slope of quality", "slope", number),
    ("range of quality", "quality_range", number),
    ("requests feasible", "feasible", percent),
    ("floor kept", "aggregate", percent),
    ("floor kept, by chance", "aggregate_by_chance", percent),
    ("windows of 200 kept", "windowed", percent),
    ("shortfall, points", "shortfall", points),
    ("within 5 %", "within_5", percent),
    ("within 2 %", "within_2", percent),
    ("max/min cost", "cost_ratio", number),
)


def _row_1(label: str, key: str, show: Show, sets: Mapping[str, Any], pick: Callable[[Any], Any]) -> list[str] | None:
    ours = [cell(pick(s).get(key), show, interval=True) for s in sets.values()]
    if set(ours) == {"–"}:
        return None
    return [label, *ours, *TABLE_1.get(label, ("–", "–"))]


def _tier_row(third: str, sets: Mapping[str, Any], pick: Callable[[Any], Any]) -> list[str]:
    ours = []
    for s in sets.values():
        tier = pick(s)["tiers"][third]
        ours.append(f"{cell(tier['quality'], percent)}, {cell(tier['cost_usd'], per_thousand)}{_star(s)} "
                    f"(asked {cell(tier['tau'], percent)})")  # fmt: skip
    return [third, *ours, *TABLE_1[third]]


def _paper_range(sets: Mapping[str, Any]) -> str:
    rows = []
    for name, s in sets.items():
        found = s["paper_range"]
        counts = (cell(found[key], number) for key in
                  ("proteus_no_margin", "proteus_margin", "utility_no_margin", "utility_margin"))  # fmt: skip
        rows.append([name, *counts, cell(found["proteus_quality"], percent, interval=True)])
    header = ("set", "proteus", "with margin", "utility", "with margin", "proteus delivers, as asked")
    return table("How many of the paper's nine requests, 0.85 to 0.91, are feasible", header, rows)


def _table_2(sets: Mapping[str, Any]) -> str:
    parts = []
    for name, s in sets.items():
        rows = []
        ranked = sorted(s["table2"], key=lambda m: (m not in TABLE_2, list(TABLE_2).index(m) if m in TABLE_2 else 0))
        for method in ranked:
            row = s["table2"][method]
            ours = (cell(row["quality"], percent, interval=True), cell(row["cost_usd"], per_thousand) + _star(s),
                    cell(row["re"], number), cell(row["rpi"], number), cell(row["oracle_gap"], points),
                    cell(row["router_ms"], number))  # fmt: skip
            rows.append([_marked(method), *ours, *_theirs_2(method)])
        header = ("method", "quality", "cost", "RE", "RPI", "oracle gap", "router ms", "paper RB", "paper SP")
        title = f"Table 2, {name}: knobs averaged over the requests, the best one where none reaches; no margin"
        parts.append(table(title, header, rows))
    return "\n".join(parts)


def _marked(method: str) -> str:
    """The name, with a word where the method reads what no router can."""
    return f"{method} (reads labels)" if method in _READ_LABELS else method


def _theirs_2(method: str) -> tuple[str, str]:
    if method not in TABLE_2:
        return "–", "–"
    texts = []
    for quality, cost, efficiency, index in TABLE_2[method]:
        shown = "–" if efficiency is None else f"{efficiency:g}"
        texts.append(f"{100 * quality:.1f} %, {cost:g}, RE {shown}, RPI {index:g}")
    return texts[0], texts[1]


def _table_4(sets: Mapping[str, Any]) -> str:
    parts = []
    for name, s in sets.items():
        if "table4" not in s:
            continue
        rows = []
        for variant, row in s["table4"].items():
            theirs = TABLE_4.get(variant, (("–", "–"), ("–", "–")))
            rows.append([
                variant, cell(row["quality_change"], points, interval=True),
                cell(row["cost_change"], lambda v: f"{100 * v:+.0f} %"), cell(row["slope"], number),
                cell(row["correlation_mu"], number), cell(row["range_mu"], number), cell(row["aggregate"], percent),
                cell(row["gamma"], number), cell(row["seconds"], number),
                *(f"{quality}, {cost}" for quality, cost in theirs),
            ])  # fmt: skip
        header = ("variant", "quality, points", f"cost{_star(s)}", "slope", "corr. mu", "range mu", "floor kept",
                  "gamma", "training s", "paper RB", "paper SP")  # fmt: skip
        parts.append(table(f"Table 4, {name}: ablations, asked for as they are, against `proteus`", header, rows))
    return "\n".join(parts)


def _methods(sets: Mapping[str, Any]) -> str:
    parts = []
    for name, s in sets.items():
        rows = []
        for method, m in s["methods"].items():
            margin, equal = m["margin"], m["equal"]
            rows.append([
                _marked(method), cell(margin["feasible"], percent), cell(margin["aggregate"], percent, interval=True),
                cell(margin["windowed"], percent), cell(margin["windowed_by_chance"], percent),
                cell(margin["shortfall"], points), cell(margin["slope"], number, interval=True),
                cell(margin["cost_usd"], per_thousand) + _star(s), cell(equal["calibrated_cost"], number),
                cell(equal["equal_quality_cost"], number, interval=True), cell(m["seconds"], number),
            ])  # fmt: skip
        header = ("method", "feasible", "floor kept", "windows kept", "by chance", "shortfall", "slope",
                  "cost of what it reaches", "cost / utility's, as calibrated", "the same at equal quality",
                  "training s")  # fmt: skip
        parts.append(table(f"Every method with the same margin, {name}", header, rows))
    return "\n".join(parts)


def _changing(sets: Mapping[str, Any]) -> str:
    parts = []
    for name, s in sets.items():
        if "changing" not in s:
            continue
        found, rows = s["changing"], []
        for way, row in found["all"].items():
            shapes = (cell(found[shape][way]["kept"], percent) for shape in SCHEDULES)
            rows.append([way, *shapes, cell(row["kept"], percent, interval=True), *_served(row, s)])
        for way, row in found["paper_range"].items():
            kept = cell(row["kept"], percent, interval=True)
            rows.append([f"{way}; drift, 0.85 to 0.91", "–", kept, "–", "–", "–", *_served(row, s)])
        ends = f"{cell(found['low'], percent)} to {cell(found['high'], percent)}"
        title = f"Changing requests, {name}, {ends}: share of rolling windows kept (paper: {CHANGING})"
        header = ("method", *SCHEDULES, "all", "overshoot", "shortfall", "cost", "infeasible")
        parts.append(table(title, header, rows))
    return "\n".join(parts)


def _served(row: Mapping[str, Any], s: Mapping[str, Any]) -> tuple[str, ...]:
    gaps = (cell(row[key], points) for key in ("overshoot", "shortfall"))
    return (*gaps, cell(row["cost_usd"], per_thousand) + _star(s), cell(row["infeasible"], percent))


def _account(sets: Mapping[str, Any]) -> str:
    parts = []
    for name, s in sets.items():
        if "leaks" not in s:
            continue
        rows = [
            [method, cell(row["quality"], percent, interval=True), cell(row["share_of_band"], share, interval=True),
             cell(row["over_paper_range"], percent)]
            for method, row in s["leaks"].items()
        ]  # fmt: skip
        for label, (best, theirs, oracle) in BAND.items():
            rows.append([f"paper's PROTEUS, {label}", percent(theirs), share((theirs - best) / (oracle - best)), "–"])
        header = ("router", "most quality", "share of best single to oracle", "over the paper's requests")
        parts.append(table(f"What is reachable, {name}; labels_ and rows_ leak", header, rows))
    return "\n".join(parts)
