"""What the intervals of a comparison of controllers say, and what they rest on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.control_methods import PACING
from toolkit.baselines.window_front import interval

KNOWING = "clairvoyant"
"""Knows the unseen traffic, which no controller can: no verdict is given on it."""
MARK = "†"
"""Of a method whose mean quality on the unseen traffic is below the floor."""

Row = Mapping[str, Any]
Rows = Mapping[Any, Row]


def shown_name(method: str, row: Row) -> str:
    """Name in tables and figures."""
    name = "clairvoyant thresholds (local optimum)" if method == KNOWING else method
    return f"{name} {MARK}" if row["below_floor"] else name


def notes_of(rows: Rows) -> list[str]:
    """Sentences on all methods.

    Args:
        rows: Method -> its row of the summary.
    """
    judged = {m: r for m, r in rows.items() if m not in ("static", KNOWING) and r["advantage"] is not None}
    return [*_against_static(judged), *_against_pacing(judged), *_below_floor(rows), *_at_edge(rows)]


def _against_static(rows: Rows) -> list[str]:
    def named(column: str, holds: Callable[[Mapping[str, float]], bool]) -> str:
        return ", ".join(shown_name(m, r) for m, r in rows.items() if holds(r[column]))

    ahead, behind = named("advantage", _above), named("advantage", _under)
    own_ahead, own_behind = named("same_quality", _above), named("same_quality", _under)
    found = [
        f"Beyond the static front by an interval that excludes 0: {ahead}."
        if ahead
        else "No controller is shown to be beyond the static front."
    ]
    if behind:
        found.append(f"Behind it by an interval that excludes 0: {behind}.")
    if rows:
        found.append(f"Beyond static thresholds of its own quality: {own_ahead or 'none'}.")
    if own_behind:
        found.append(f"Behind static thresholds of its own quality: {own_behind}.")
    return found


def _above(value: Mapping[str, float]) -> bool:
    return value["low"] > 0


def _under(value: Mapping[str, float]) -> bool:
    return value["high"] < 0


def _against_pacing(rows: Rows) -> list[str]:
    paced = [m for m in PACING if m in rows]
    if not paced:
        return []
    best = max(paced, key=lambda m: rows[m]["advantage"]["mean"])
    name, values = shown_name(best, rows[best]), rows[best]["by_seed"]
    ahead = [
        shown_name(m, r)
        for m, r in rows.items()
        if m not in PACING and _above(vars(interval(np.subtract(r["by_seed"], values))))
    ]
    if ahead:
        return [f"Further beyond it than {name}, the best pacing rule, pairwise by seed: {', '.join(ahead)}."]
    if _above(rows[best]["advantage"]):
        return [f"Pacing suffices: nothing is shown to be further beyond the front than {name}."]
    return [f"Nothing is shown to be better than {name}, the best pacing rule, nor that one better than static."]


def _below_floor(rows: Rows) -> list[str]:
    """Which rows miss the floor, and what is said of them all the same."""
    below = {m: r for m, r in rows.items() if r["below_floor"]}
    if not below:
        return []
    kept = ", ".join(f"{m} (kept on {r['seeds_at_floor']} of {r['seeds']} traffics)" for m, r in below.items())
    found = [f"{MARK} The floor was kept on the training traffic; mean quality on the unseen one is below it: {kept}."]
    judged = {m: r for m, r in below.items() if m not in ("static", KNOWING) and r["advantage"] is not None}
    resting = [m for m, r in judged.items() if _above(r["advantage"])]
    if resting:
        found.append(
            f"Beyond the front, but not shown to be so at the floor: {', '.join(resting)}. Static thresholds were held "
            "to no more than the method's own quality there."
        )
    return found


def _at_edge(rows: Rows) -> list[str]:
    found = [f"{m} ({'; '.join(r['at_edge'])})" for m, r in rows.items() if r["at_edge"]]
    return [f"Chosen on the edge of what was tried: {', '.join(found)}."] if found else []
