"""Figures of `reproduce paper=boute` from its cells: per seed first, then over seeds."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.console import print_rows
from experiments.files import write_bytes, write_json, write_text
from experiments.reproduce_boute import Cell, searchers_of
from experiments.reproduce_boute_choice import METHODS
from experiments.reproduce_boute_paper import LEVELS, TARGETS
from experiments.reproduce_boute_search import REFERENCE
from experiments.reproduce_boute_settings import BouteReproduceSettings
from experiments.reproduce_boute_small import FOUND_WITHIN
from experiments.reproduce_numbers import over_seeds
from simulators.outcomes import FloatArray
from toolkit.pareto.indicators import (
    best_subset_hypervolume,
    efficiency,
    evaluations_to,
    hypervolume,
    hypervolume_trace,
)

LEVEL = 0.95
_STAND_ALONE = ("large_homogeneous", "large")
SHOWN = ("share_of_load", "share_of_budget", "usd_per_hour", "p95_s", "held_out_p95_s", "held_out_quality")
COSTS = ("usd_per_hour", "tried_usd_per_hour", "share_of_load", "trial_met", "met", "tried_met", "asked")


def summarise(settings: BouteReproduceSettings, output: Path) -> dict[str, Any]:
    """Tables and figures of all finished cells; written below `output` and returned."""
    from experiments.reproduce_boute_figures import cost_figure, search_figure
    from experiments.reproduce_boute_tables import as_markdown

    found: dict[str, Any] = {"paper": settings.paper, "seeds": settings.seeds, "workloads": {}, "control": {}}
    found["search_budget"] = settings.search.budget
    for name in settings.workloads:
        deployed = _cells(output, "deploy", name, settings.seeds)
        if deployed:
            found["workloads"][name] = workload_numbers(deployed)
        searched = _cells(output, "control", name, settings.seeds)
        if searched:
            found["control"][name] = control_numbers(searched)
    found["savings"] = savings(
        {name: _cells(output, "deploy", name, settings.seeds) for name in settings.workloads}, settings.routers
    )
    found["small"] = small_numbers(_cells(output, "small", settings.search.small, settings.seeds))
    found["search"], traces = search_numbers(settings, output)
    write_json(output / "summary.json", found)
    write_text(output / "summary.md", as_markdown(found))
    if found["workloads"]:
        write_bytes(output / "costs.png", cost_figure(found))
    if traces:
        write_bytes(output / "search.png", search_figure(traces))
    return {"output": str(output), **found}


def _cells(output: Path, part: str, of: str, seeds: int, searcher: str = "") -> list[dict[str, Any]]:
    paths = [Cell(part=part, of=of, seed=seed, searcher=searcher).path(output) for seed in range(seeds)]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _over(rows: Sequence[Mapping[str, Any]], *names: str) -> dict[str, Any]:
    """Means with intervals; what a row lacks is left out, and `n` counts what is there."""
    return {name: over_seeds([_number(row.get(name)) for row in rows]) for name in names}


def workload_numbers(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """One workload: load, targets, and every table for each router."""
    found: dict[str, Any] = {"n_seeds": len(cells)}
    found |= _over(cells, "rate_per_s", "saturation_per_s", "idle_s", "sized_s", "offline_s")
    found["suitability"] = np.mean([cell["suitability"] for cell in cells], axis=0).tolist()
    found["routers"] = {name: router_numbers([c["routers"][name] for c in cells]) for name in cells[0]["routers"]}
    return found


def router_numbers(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One router: each figure over seeds, and how often an order held."""
    motivating = {
        name: {**_over([row["motivating"][name] for row in rows], *SHOWN), "text": _usual(rows, name)}
        for name in rows[0]["motivating"]
    }
    table_1 = [
        {**_over([row["table_1"][i] for row in rows], *SHOWN), "gpus": _mean_gpus([row["table_1"][i] for row in rows])}
        for i in range(len(LEVELS))
    ]
    return {
        "quality": [over_seeds(values) for values in zip(*[row["quality"] for row in rows], strict=True)],
        "share_by_quality": [over_seeds(values) for values in zip(*[row["gap_at"] for row in rows], strict=True)],
        "motivating": motivating,
        "orders": orders(rows),
        "table_1": table_1,
        "falls": {name: _falls(rows, name) for name in ("share_of_load", "share_of_budget")},
        "table_3": [_table_3([row["table_3"][i] for row in rows]) for i in range(len(TARGETS))],
    }


def _usual(rows: list[dict[str, Any]], name: str) -> str:
    """The most frequent deployment: small model / large model."""
    texts = [" / ".join(row["motivating"][name]["text"]) for row in rows if row["motivating"][name]["feasible"]]
    return max(sorted(set(texts)), key=texts.count) if texts else "–"


def _mean_gpus(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Mean GPUs per type and model."""
    known = [row["gpus"] for row in rows if row["feasible"]]
    names = list(dict.fromkeys(gpu for gpus in known for tier in gpus for gpu in tier))
    return [{n: float(np.mean([gpus[m].get(n, 0) for gpus in known])) for n in names} for m in range(2) if known]


def orders(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Share of seeds in which neighbours of the paper's order of P95, fastest first, held by the tables."""
    names = ("small_alone", "boute", "boute_homogeneous", "large_alone", "routed_uniform")
    found = {}
    for faster, slower in itertools.pairwise(names):
        pairs = [[_number(row["motivating"][name].get("p95_s")) for name in (faster, slower)] for row in rows]
        known = [(a, b) for a, b in pairs if not math.isnan(a)]
        found[f"{faster} < {slower}"] = float(np.mean([not b <= a for a, b in known])) if known else math.nan
    return found


def _falls(rows: list[dict[str, Any]], name: str) -> dict[str, float]:
    """Share of seeds in which a share never rises from floor to floor, and in which it falls from first to last."""
    values = np.array([[_number(level.get(name)) for level in row["table_1"]] for row in rows])
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        return {"every_step": math.nan, "overall": math.nan}
    steps = np.diff(values, axis=1) <= 1e-9
    return {"every_step": float(steps.all(axis=1).mean()), "overall": float((values[:, -1] < values[:, 0]).mean())}


def _table_3(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        **_over(rows, "target_s", "floor"),
        "methods": {
            method: {way: _costs([row["methods"][method][way] for row in rows]) for way in ("true", "wrong")}
            for method in METHODS
        },
    }


def _costs(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means, but the median of P95 over the target: one overloaded fleet would hide all others in a mean."""
    ratios = [_number(row.get("held_out_p95_ratio")) for row in rows]
    known = [ratio for ratio in ratios if math.isfinite(ratio)]
    return {**_over(rows, *COSTS), "held_out_p95_ratio": float(np.median(known)) if known else math.nan}


def savings(cells: Mapping[str, list[dict[str, Any]]], routers: Sequence[str]) -> dict[str, Any]:
    """Mean saving of `boute` over the rows of Table 3, per seed and then over seeds: by tables, after trials, and both
    with a wrong engine model. Where `boute` has no plan that passes its trials, it falls back to the homogeneous one's,
    which it could have taken too. Rows in which a method still reaches the target at no price are left out and counted.
    """
    found: dict[str, Any] = {}
    for router in routers:
        found[router] = {}
        for way in ("true", "wrong"):
            for cost in ("usd_per_hour", "tried_usd_per_hour"):
                per_seed = [_saved(cells, router, way, cost, seed) for seed in range(_most_seeds(cells))]
                names = sorted({name for row in per_seed for name in row})
                found[router][f"{way} {cost}"] = {
                    name: over_seeds([row.get(name, math.nan) for row in per_seed]) for name in names
                }
    return found


def _most_seeds(cells: Mapping[str, list[dict[str, Any]]]) -> int:
    return min((len(rows) for rows in cells.values() if rows), default=0)


def _saved(cells: Mapping[str, list[dict[str, Any]]], router: str, way: str, cost: str, seed: int) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for rows in (rows for rows in cells.values() if rows):
        for row in rows[seed]["routers"][router]["table_3"]:
            usd = {m: _number(row["methods"][m][way].get(cost)) for m in METHODS}
            if math.isnan(usd["boute"]):  # its options include the homogeneous ones
                usd["boute"] = usd["boute_homogeneous"]
            for method in METHODS[:-1]:
                group = "stand_alone" if method in _STAND_ALONE else method
                values.setdefault(group, []).append(1.0 - usd["boute"] / usd[method])
            values.setdefault("missing", []).append(float(np.isnan(list(usd.values())).any()))
    return {name: float(np.nanmean(v)) if np.isfinite(v).any() else math.nan for name, v in values.items()}


def small_numbers(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """How often a search found the optimum over every deployment: at the paper's stop, and with the whole budget."""
    if not cells:
        return {}
    best = [cell["p95_s"] * (1.0 + FOUND_WITHIN) for cell in cells]
    known = ("p95_s", "candidates_p95_s", "deployments", "candidate_deployments", "within", "enumeration_s")
    return {
        "n": len(cells),
        **{name: cells[0][name] for name in known},
        "found_at_stop": sum(cell["p95_at_stop_s"] <= b for cell, b in zip(cells, best, strict=True)),
        "found_at_budget": sum(cell["p95_at_budget_s"] <= b for cell, b in zip(cells, best, strict=True)),
        "worst_at_stop": max(cell["p95_at_stop_s"] / cell["p95_s"] - 1.0 for cell in cells),
        "stopped_at": float(np.median([cell["stopped_at"] for cell in cells])),
        "found_after": float(np.median([cell["found_after"] or math.inf for cell in cells])),
        "seconds_to_stop": float(np.median([c["seconds"] * c["stopped_at"] / c["evaluations"] for c in cells])),
    }


def control_numbers(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The least cost by the controller over that of the enumeration, row by row of Table 3."""
    found = []
    for i in range(len(TARGETS)):
        row = {}
        for method in cells[0]["rows"][i]:
            of = [cell["rows"][i][method] for cell in cells]
            ratio = [_number(one["found"]) / _number(one["exact"]) for one in of]
            row[method] = {
                "ratio": over_seeds(ratio),
                "within_1_percent": float(np.mean([r <= 1.01 for r in ratio])),
                "none_found": float(np.mean([one["found"] is None for one in of])),
                **_over(of, "evaluations", "evaluations_to_it", "seconds"),
            }
        found.append(row)
    return found


def search_numbers(settings: BouteReproduceSettings, output: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Per number of GPU types: the reference, and every searcher against it; and the curves to draw."""
    found: dict[str, Any] = {}
    traces: dict[str, Any] = {}
    for n in settings.search.types:
        references = _cells(output, REFERENCE, str(n), 1)
        if not references:
            continue
        about = references[0]
        Z, point = np.array(about.pop("Z"), dtype=np.float64), np.array(about.pop("reference_point"))
        best = best_subset_hypervolume(Z, settings.search.budget, point)
        whole = hypervolume(Z, point)
        found[str(n)] = {**about, "searchers": {}}
        traces[str(n)] = {}
        for name in searchers_of(settings, n):
            cells = _cells(output, "search", str(n), settings.seeds, name)
            if cells:
                rows = [searcher_row(cell, point, whole, best) for cell in cells]
                traces[str(n)][name] = [row.pop("efficiency") for row in rows]
                found[str(n)]["searchers"][name] = searcher_numbers(rows)
    return found, traces


def searcher_row(cell: dict[str, Any], point: FloatArray, whole: float, best: FloatArray) -> dict[str, Any]:
    """One run: its share of the whole reference and of the best points as many, and what each took.

    Args:
        cell: What the search evaluated.
        point: Reference point of hypervolume.
        whole: Hypervolume of the whole reference.
        best: That of its best n points, n = 1, 2, ...
    """
    Z, feasible = np.array(cell["Z"], dtype=np.float64), np.array(cell["feasible"], dtype=bool)
    trace = hypervolume_trace(Z, feasible, point)
    seconds = np.array(cell["seconds"])
    efficient = efficiency(trace, best[: len(trace)])
    share = trace / whole
    at, at_share = evaluations_to(efficient, LEVEL), evaluations_to(share, LEVEL)
    stop = cell["stopped_at"]
    end = len(trace) if stop is None else stop
    return {
        "efficiency": efficient,
        "evaluations": at,
        "evaluations_share": at_share,
        "seconds_share": None if at_share is None else float(seconds[at_share - 1]),
        "final": float(share[-1]),
        "stop": stop,
        "seconds_stop": float(seconds[end - 1]),
        "share_at_stop": float(share[end - 1]),
        "seconds_each": float(seconds[-1] / len(seconds)),
        "infeasible": float(1.0 - feasible.mean()),
    }


def searcher_numbers(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians and quartiles over seeds; a run that never reaches the level counts as infinite."""
    found: dict[str, Any] = {"n": len(rows)}
    for name in ("evaluations", "evaluations_share", "seconds_share", "stop"):
        values = np.array([np.inf if row[name] is None else row[name] for row in rows], dtype=np.float64)
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], method="inverted_cdf")
        reached = int(np.isfinite(values).sum())
        found[name] = {"median": float(middle), "low": float(low), "high": float(high), "reached": reached}
    return found | _over(rows, "final", "seconds_stop", "share_at_stop", "seconds_each", "infeasible")


def show_boute(result: dict[str, Any]) -> None:
    """The short of it on the terminal."""
    for router, ways in result["savings"].items():
        rows = [
            (way, *(_percent(values.get(n)) for n in ("stand_alone", "routed_uniform", "boute_homogeneous")))
            for way, values in ways.items()
        ]
        header = ("costs", "one model", "routed, even GPUs", "homogeneous")
        print_rows(f"Saved by co-optimisation, router {router}", rows, header)
    for n, found in result["search"].items():
        rows = [
            (name, _count(row["evaluations"]), _count(row["evaluations_share"]), f"{row['final']['mean']:.1%}")
            for name, row in found["searchers"].items()
        ]
        header = ("searcher", "evaluations to 95 %", "of the whole front", "final share")
        print_rows(f"{n} GPU types", rows, header)
    print(f"\nWrote {result['output']}/summary.json, summary.md and figures.")


def _percent(value: Mapping[str, Any] | None) -> str:
    return "–" if value is None or not math.isfinite(value["mean"]) else f"{value['mean']:.1%}"


def _count(value: Mapping[str, Any]) -> str:
    return "–" if not math.isfinite(value["median"]) else f"{value['median']:.0f}"
