"""The tables of `reproduce paper=boute` as Markdown, theirs beside ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from experiments.reproduce_boute_choice import METHODS
from experiments.reproduce_boute_paper import LEVELS, MORE_EVALUATIONS, MOTIVATING, SAVINGS, TABLE_2, TARGETS
from experiments.reproduce_tables import cell, number, percent, share, table

LABELS = {
    "large_homogeneous": "70B on H100",
    "large": "70B on any GPUs",
    "routed_uniform": "routing, even H100s",
    "boute_homogeneous": "BOute-Homo (H100)",
    "boute": "BOute",
    "large_alone": "70B alone",
    "small_alone": "8B alone",
    "stand_alone": "70B alone, both",
}
_WAYS = {
    "true usd_per_hour": "by the tables",
    "true tried_usd_per_hour": "after trial runs",
    "wrong usd_per_hour": "by the tables of a wrong engine model",
    "wrong tried_usd_per_hour": "wrong engine model, after trial runs",
}


def as_markdown(found: Mapping[str, Any]) -> str:
    """All tables."""
    parts = [_header(found)]
    for name, of in found["workloads"].items():
        parts.append(_load(name, of))
        for router, rows in of["routers"].items():
            title = f"{name}, {router} router"
            parts += [_motivating(title, name, rows), _table_1(title, name, rows)]
            parts += [_table_3(title, name, rows["table_3"][i], i) for i in range(len(TARGETS))]
    parts += [_savings(found), _control(found)]
    parts.append(_small(found.get("small") or {}))
    for n, of in found["search"].items():
        parts.append(_search(n, of))
    parts.append(_table_2(found["search"]))
    return "\n".join(part for part in parts if part)


def _header(found: Mapping[str, Any]) -> str:
    return (
        f"Mean over {found['seeds']} seeds (split by prompt, scores, arrivals; of searchers the search alone, on one "
        "instance per number of types), [95 % corrected resampled t interval]; medians of searches with [quartiles]. "
        '"–": not defined, or reached by fewer than half.\n'
    )


def saved(value: float) -> str:
    """A saving: it may be negative, and an interval of it may reach below 0."""
    return f"{100 * value:.1f} %"


def usd(value: float) -> str:
    """USD per hour."""
    return f"{value:.2f}"


def seconds(value: float) -> str:
    """Three digits and the unit."""
    return f"{value:.3g} s"


def _load(name: str, of: Mapping[str, Any]) -> str:
    parts = (("requests per second", "rate_per_s", number), ("saturation of the 70B alone", "saturation_per_s", number),
             ("P95 of the 70B without load", "idle_s", seconds), ("P95 of the 70B on the budget", "sized_s", seconds),
             ("offline phase", "offline_s", seconds))  # fmt: skip
    rows = [[label, cell(of[key], show)] for label, key, show in parts]
    small, large = (
        ", ".join(f"{value:.2f}" for value in values) for values in of["suitability"]
    )  # in the order of the catalogue
    rows += [["requests per USD by GPU type, 8B", small], ["the same, 70B", large]]
    return table(f"{name}: load", ("", "ours"), rows)


def _motivating(title: str, name: str, rows: Mapping[str, Any]) -> str:
    lines = []
    for key, row in rows["motivating"].items():
        theirs = MOTIVATING[key] if name == "gsm" else ("–", "–", "–")
        lines.append(
            [
                LABELS[key], cell(row["p95_s"], seconds, interval=True), cell(row["held_out_p95_s"], seconds),
                cell(row["held_out_quality"], percent), cell(row["usd_per_hour"], usd),
                cell(row["share_of_load"], percent), row["text"], *theirs,
            ]
        )  # fmt: skip
    header = ("", "P95, tables", "held out", "quality", "USD/h", "8B load", "most frequent: 8B / 70B",
              "paper P95", "paper quality", "paper")  # fmt: skip
    held = "; ".join(f"{pair} in {percent(value)}" for pair, value in rows["orders"].items())
    return table(f"Motivating example, {title}", header, lines) + f"\nThe paper's order: {held} of seeds.\n"


def _table_1(title: str, name: str, rows: Mapping[str, Any]) -> str:
    lines = []
    for level, row in zip(LEVELS, rows["table_1"], strict=True):
        load, budget, *gpus = level.table_1[name]
        ours = " / ".join(_gpus(tier) for tier in row["gpus"]) or "–"
        lines.append([
            f"{level.name} ({share(level.share_of_gap)} of the gap)",
            cell(row["share_of_load"], percent, interval=True), cell(row["share_of_budget"], percent, interval=True),
            ours, cell(row["p95_s"], seconds), percent(load), percent(budget), " / ".join(gpus),
        ])  # fmt: skip
    header = ("floor", "8B load", "8B budget", "mean GPUs: 8B / 70B", "P95", "paper load", "paper budget", "paper GPUs")
    falls = rows["falls"]
    said = "; ".join(
        f"{what} falls from the lowest floor to the highest in {percent(falls[key]['overall'])} of seeds, at every "
        f"step in {percent(falls[key]['every_step'])}"
        for what, key in (("the load share", "share_of_load"), ("the budget share", "share_of_budget"))
    )
    beside = "" if name == "gsm" else " (paper: MT-Bench)"
    return table(f"Table 1, {title}{beside}", header, lines) + f"\n{said}.\n".replace("the load", "The load", 1)


def _gpus(tier: Mapping[str, float]) -> str:
    return " + ".join(f"{n:.1f} {gpu}" for gpu, n in tier.items() if n >= 0.05)


def _table_3(title: str, name: str, of: Mapping[str, Any], i: int) -> str:
    theirs = TARGETS[i].usd_per_hour[name]
    lines = []
    for method, paper in zip(METHODS, theirs, strict=True):
        true, wrong = of["methods"][method]["true"], of["methods"][method]["wrong"]
        lines.append([
            LABELS[method], cell(true["usd_per_hour"], usd, interval=True), _n(true["usd_per_hour"]),
            cell(true["trial_met"], percent), cell(true["met"], percent), _ratio(true["held_out_p95_ratio"]),
            cell(true["tried_usd_per_hour"], usd, interval=True), cell(true["tried_met"], percent),
            cell(wrong["usd_per_hour"], usd), cell(wrong["met"], percent),
            cell(wrong["tried_usd_per_hour"], usd, interval=True), f"{paper:.2f}",
        ])  # fmt: skip
    header = ("method", "USD/h, tables", "seeds", "P95 met, trial", "held out", "median P95 / target",
              "USD/h after trials", "P95 met held out", "wrong model: USD/h", "P95 met held out", "after trials",
              "paper USD/h")  # fmt: skip
    target = f"P95 {cell(of['target_s'], seconds)}, quality {cell(of['floor'], percent)}"
    return table(f"Table 3, {title}: {TARGETS[i].name} ({target})", header, lines)


def _ratio(value: float) -> str:
    return number(value) if math.isfinite(value) else "–"


def _n(value: Mapping[str, Any]) -> str:
    return str(value["n"])


def _savings(found: Mapping[str, Any]) -> str:
    if not found["workloads"]:
        return ""
    names = ("stand_alone", "routed_uniform", "boute_homogeneous")
    rows = [
        [router, _WAYS[way], *(cell(values.get(n), saved, interval=True) for n in names),
         cell(values.get("missing"), percent)]
        for router, ways in found["savings"].items()
        for way, values in ways.items()
    ]  # fmt: skip
    rows.append(["paper", "", *(percent(SAVINGS[n]) for n in names), "–"])
    header = ("router", "cost", *(LABELS[n] for n in names), "rows with a gap")
    return table("What BOute saves against each, mean over the rows of Table 3", header, rows)


def _control(found: Mapping[str, Any]) -> str:
    rows = []
    for name, targets in found["control"].items():
        for target, of in zip(TARGETS, targets, strict=True):
            for method, row in of.items():
                rows.append([
                    f"{name}, {target.name}", LABELS[method], cell(row["ratio"], number, interval=True),
                    percent(row["within_1_percent"]), percent(row["none_found"]),
                    cell(row["evaluations_to_it"], number), cell(row["evaluations"], number),
                    cell(row["seconds"], seconds),
                ])  # fmt: skip
    header = ("row of Table 3", "space", "cost / exact", "within 1 %", "nothing feasible", "evaluations to it",
              "in all", "time")  # fmt: skip
    return table("The same costs by the controller, over those of the enumeration", header, rows) if rows else ""


def _spread(value: Mapping[str, Any]) -> str:
    if not math.isfinite(value["median"]):
        return f"– ({value['reached']} did)"
    ends = [f"{end:.3g}" if math.isfinite(end) else "–" for end in (value["low"], value["high"])]
    return f"{value['median']:.3g} [{ends[0]}, {ends[1]}]"


def _search(n: str, of: Mapping[str, Any]) -> str:
    rows = [
        [name, str(row["n"]), _spread(row["evaluations"]), _spread(row["evaluations_share"]),
         _spread(row["seconds_share"]), cell(row["final"], percent, interval=True), _spread(row["stop"]),
         cell(row["seconds_stop"], seconds), cell(row["share_at_stop"], percent), cell(row["seconds_each"], seconds),
         cell(row["infeasible"], percent)]
        for name, row in of["searchers"].items()
    ]  # fmt: skip
    header = ("searcher", "seeds", "evaluations to efficiency 95 %", "to 95 % of the front", "seconds to that",
              "share at the end", "stops at", "after", "with a share of", "per evaluation", "infeasible")  # fmt: skip
    title = (
        f"Searchers, {n} GPU types, {of['gpus']} GPUs: {of['choices']:,} deployments; offline {of['offline_s']:.1f} s, "
        f"enumeration {of['exact_s']:.1f} s for {of['looked_up']:,} look-ups"
    )
    return table(title, header, rows)


def _small(of: Mapping[str, Any]) -> str:
    if not of:
        return ""
    within = math.nan if of["within"] is None else of["within"]
    left_out = percent(within) if math.isfinite(within) else "none was"
    rows = [
        ["joint deployments: all / of the candidates", f"{of['deployments']:,} / {of['candidate_deployments']:,}"],
        [
            "lowest P95 above the floor: all / candidates",
            f"{of['p95_s']:.2f} s / {of['candidates_p95_s']:.2f} s",
        ],
        ["a boundary left out would have to beat the candidates by", left_out],
        ["found within 1 %, at the stopping rule", f"{of['found_at_stop']} of {of['n']}"],
        ["found within 1 %, with the whole budget", f"{of['found_at_budget']} of {of['n']}"],
        ["farthest from it at the stopping rule", percent(of["worst_at_stop"])],
        ["evaluations until the stop / until found, median", f"{of['stopped_at']:.0f} / {of['found_after']:.0f}"],
        ["seconds until the stop, median, about", f"{of['seconds_to_stop']:.1f}"],
    ]
    return table(
        "The optimum over every mixture, one parallelism per model and type, 3 types, 24 GPUs", ("", "ours"), rows
    )


def _table_2(search: Mapping[str, Any]) -> str:
    names = ("boute", "boute_paper", "boute_unstructured", "boute_no_table")
    rows = []
    for n, of in search.items():
        ours = [_converged(of["searchers"].get(name)) for name in names]
        theirs = TABLE_2.get(int(n), ("–", "–", "–"))
        rows.append([f"{n} / {of['gpus']}", f"{of['offline_s']:.1f} s", *ours, *theirs])
    if not rows:
        return ""
    header = (
        "GPU types / GPUs",
        "offline",
        *(f"ours: {name}" for name in names),
        *(f"paper: {what}" for what in ("BOute", "unstructured", "no database")),
    )
    said = f"\nThe paper: without structural information {MORE_EVALUATIONS} more evaluations.\n"
    return (
        table("Table 2: search time until the stopping rule or 100 evaluations (share of the front then)", header, rows)
        + said
    )


def _converged(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "–"
    took, reached = cell(row["seconds_stop"], seconds), cell(row["share_at_stop"], percent)
    return f"{took}, {_spread(row['stop'])} evaluations ({reached})"


def in_short(found: Mapping[str, Any]) -> str:
    """The claims of the paper as a list, each with our figure."""
    lines = [*_short_orders(found), *_short_savings(found), *_short_search(found)]
    return "\n".join(f"* {line}" for line in lines) + ("\n" if lines else "")


def _short_orders(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, of in found["workloads"].items():
        for router, rows in of["routers"].items():
            held = ", ".join(f"{_pair(pair)} in {percent(value)}" for pair, value in rows["orders"].items())
            falls = rows["falls"]
            lines.append(
                f"{name}, {router} router: P95 of {held} of the seeds. From the lowest floor to the highest the 8B's "
                f"share of the load falls in {percent(falls['share_of_load']['overall'])}, that of the budget in "
                f"{percent(falls['share_of_budget']['overall'])}."
            )
    return lines


def _pair(text: str) -> str:
    return " below ".join(LABELS[name] for name in text.split(" < "))


def _short_savings(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for router, ways in found["savings"].items() if found["workloads"] else ():
        for way, values in ways.items():
            parts = [
                f"{cell(values.get(n), saved, interval=True)} against {LABELS[n]} (paper {percent(theirs)})"
                for n, theirs in SAVINGS.items()
            ]
            lines.append(f"Saved, {router} router, {_WAYS[way]}: {', '.join(parts)}.")
    return lines


def _short_search(found: Mapping[str, Any]) -> list[str]:
    lines = []
    if small := found.get("small"):
        lines.append(
            f"The lowest P95 over every mixture of 3 types and 24 GPUs ({small['deployments']:,} joint ones): found "
            f"within 1 % in {small['found_at_stop']} of {small['n']} seeds at the stopping rule, in "
            f"{small['found_at_budget']} with {found['search_budget']} evaluations."
        )
    for n, of in found["search"].items():
        parts = [
            f"{name} {_spread(row['evaluations_share'])}"
            for name, row in of["searchers"].items()
            if name in {"boute", "boute_paper", "boute_unstructured", "mobo_grey", "nsga2", "tpe", "random"}
        ]
        lines.append(f"Evaluations to 95 % of the front, {n} GPU types: {'; '.join(parts)}.")
    return lines
