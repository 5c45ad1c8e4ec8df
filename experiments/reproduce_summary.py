"""Figures of a reproduction from its cells: per split first, then over splits."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, get_args

import numpy as np

from experiments.console import print_rows
from experiments.files import write_bytes, write_json, write_text
from experiments.reproduce_changing import SCHEDULES, Served, inside, judge, rolling, schedule, serve
from experiments.reproduce_data import DataSet, Halves, halve, read_set, requested
from experiments.reproduce_methods import PROTEUS, REFERENCE, names_of, requested_setting
from experiments.reproduce_numbers import (
    as_requested,
    best_setting,
    compliance_numbers,
    equal_compliance,
    mu_numbers,
    over_seeds_of,
    spread_over,
)
from experiments.reproduce_settings import Part, ReproduceSettings
from experiments.reproduce_store import Stored, load_run
from simulators.outcomes import FloatArray
from toolkit.baselines.base import Routed, RouterRun
from toolkit.baselines.compliance import Calibration, MarginRule, Windows, calibrate
from toolkit.baselines.figures import oracle_gap, routing_efficiency, routing_performance_index

_GRID = 61
_STRICT = 0.99
_ANSWER_S = 1.0
"""Seconds of an answer in RPI: no set records them; at a millisecond of routing the factor is 0.999 either way."""
CARROT_SETTINGS = (0.1, 0.5, 0.9)
_OWN_PREDICTIONS = {"avengers_pro", "knn", "mlp", "omnirouter"}
"""Methods whose decision takes something else than the scorer's time, and was not timed."""
_FREE = frozenset({"cheapest", "best_fixed", "random", "fixed", "zero_router", "oracle", "oracle_path", "cascade"})


def summarise(settings: ReproduceSettings, output: Path) -> dict[str, Any]:
    """Tables and figures of all finished cells; written below `output` and returned."""
    from experiments.reproduce_figures import changing_figure, compliance_figure
    from experiments.reproduce_tables import as_markdown

    found: dict[str, Any] = {"paper": settings.paper, "seeds": settings.seeds, "sets": {}}
    traces: dict[str, Any] = {}
    for name in settings.sets:
        data = read_set(settings, name)
        rows = []
        for seed in range(settings.seeds):
            halves = halve(data, seed)
            runs: dict[str, dict[str, Stored]] = {
                part: _load(settings, output, halves, name, seed, part) for part in get_args(Part)
            }
            if REFERENCE in runs.get("methods", {}):
                rows.append(seed_numbers(settings, data, halves, runs, seed))
        if rows:
            traces[name] = rows[0].pop("_traces", {})
            for row in rows[1:]:
                row.pop("_traces", None)
            found["sets"][name] = {**_header(data), "n_seeds": len(rows), **over_seeds_of(rows)}
    write_json(output / "summary.json", found)
    write_text(output / "summary.md", as_markdown(found))
    write_bytes(output / "compliance.png", compliance_figure(found["sets"]))
    write_bytes(output / "changing.png", changing_figure(traces, window=settings.window))
    return {"output": str(output), **found}


def _load(
    settings: ReproduceSettings, output: Path, halves: Halves, name: str, seed: int, part: str
) -> dict[str, Stored]:
    folder = output / "cells" / name / str(seed) / part
    known = [method for method in names_of(settings, part) if (folder / f"{method}.npz").is_file()]
    return {method: load_run(folder / f"{method}.npz", halves) for method in known}


def _header(data: DataSet) -> dict[str, Any]:
    return {
        "tiers": list(data.table.tiers),
        "n": data.table.n_queries,
        "unit": data.unit,
        "why": data.why,
        "notes": list(data.notes),
        "tier_quality": data.table.quality.mean(axis=0).tolist(),
        "tier_cost_usd": data.table.cost_usd.mean(axis=0).tolist(),
    }


def seed_numbers(
    settings: ReproduceSettings, data: DataSet, halves: Halves, runs: dict[str, dict[str, Stored]], seed: int
) -> dict[str, Any]:
    """Every figure of one split."""
    methods = {name: stored.run for name, stored in runs["methods"].items()}
    taus = requested(halves, float(methods[REFERENCE].tune.mean_quality.max()), settings.levels)
    rule, none = MarginRule(level=settings.margin_level), MarginRule(level=None)
    windows, group = Windows(size=settings.window, seed=seed), halves.tune.cluster_code
    pool = _pool(halves)
    judged = {}
    for name, run in methods.items():
        judged[name] = {
            "margin": compliance_numbers(run, calibrate(run, taus, rule=rule, group=group), windows),
            "no_margin": compliance_numbers(run, calibrate(run, taus, rule=none, group=group), windows),
            "equal": equal_compliance(run, methods[REFERENCE], taus, rule=rule, group=group),
            "best": _band(*best_setting(run), pool),
            "seconds": runs["methods"][name].extra["cpu_s"],
        }
    found = {"taus": taus.tolist(), "pool": pool, "methods": judged}
    found["table2"] = _table2(runs["methods"], taus, halves, pool)
    if "proteus" in methods:
        found["requested"] = _requested(runs["methods"]["proteus"], taus, windows)
        found["paper_range"] = _paper_range(settings, methods, halves)
        found["changing"], found["_traces"] = changing(settings, methods, halves, taus, seed)
        if runs.get("ablations"):
            found["table4"] = _table4({"proteus": runs["methods"]["proteus"], **runs["ablations"]}, taus, windows)
    if runs.get("leaks"):
        found["leaks"] = _leaks(settings, runs, halves, pool)
    return found


def _pool(halves: Halves) -> dict[str, float]:
    """What the pool itself gives on the held-out queries."""
    best = int(halves.tune.quality.mean(axis=0).argmax())
    held_out = halves.held_out
    return {
        "cheapest": float(held_out.quality[:, 0].mean()),
        "best_single": float(held_out.quality[:, best].mean()),
        "best_single_cost_usd": float(held_out.cost_usd[:, best].mean()),
        "random": float(held_out.quality.mean()),
        "oracle": float(held_out.quality.max(axis=1).mean()),
        "largest_cost_usd": float(held_out.cost_usd.mean(axis=0).max()),
    }


def _band(quality: float, cost: float, pool: dict[str, float]) -> dict[str, float]:
    """A quality as a share of the way from the best single tier to the oracle."""
    width = pool["oracle"] - pool["best_single"]
    share = (quality - pool["best_single"]) / width if width > 0 else math.nan
    return {"quality": quality, "cost_usd": cost, "share_of_band": share}


def _table2(stored: dict[str, Stored], taus: FloatArray, halves: Halves, pool: dict[str, float]) -> dict[str, Any]:
    """Quality, cost, RE, RPI and oracle gap; knobs averaged over the requests, calibrated without a margin."""
    none, group = MarginRule(level=None), halves.tune.cluster_code
    base_s = float(str(stored[REFERENCE].extra["decision_ms"])) / 1e3
    points = {name: spread_over(s.run, taus, rule=none, group=group) for name, s in stored.items()}
    if "carrot" in stored:
        run = stored["carrot"].run
        for mu in CARROT_SETTINGS:
            row = int(np.abs(run.settings - mu).argmin())
            points[f"carrot {mu:g}"] = float(run.held_out.mean_quality[row]), float(run.held_out.mean_cost_usd[row])
    found = {}
    for name, (quality, cost) in points.items():
        extra = stored[name].extra if name in stored else {}
        unmeasured = math.nan if name in _OWN_PREDICTIONS else 1e3 * base_s
        router_s = 0.0 if name in _FREE else float(str(extra.get("decision_ms", unmeasured))) / 1e3
        found[name] = {
            **_band(quality, cost, pool),
            "re": routing_efficiency(quality=quality, random_quality=pool["random"], router_s=router_s),
            "rpi": routing_performance_index(
                quality=quality,
                oracle_quality=pool["oracle"],
                cost_usd=cost,
                largest_cost_usd=pool["largest_cost_usd"],
                router_s=router_s,
                answer_s=_ANSWER_S,
            ),
            "oracle_gap": oracle_gap(quality=quality, oracle_quality=pool["oracle"]),
            "router_ms": 1e3 * router_s,
        }
    return found


def _requested(stored: Stored, taus: FloatArray, windows: Windows) -> dict[str, Any]:
    """The policy asked for as it is, as in the paper."""
    mu = stored.extra["mu"]
    assert isinstance(mu, list)
    kept = compliance_numbers(stored.run, as_requested(stored.run, taus), windows)
    return {**kept, **mu_numbers(stored.run, mu, taus), "seconds": stored.extra["cpu_s"],
            "aggregate_by_chance": math.nan,
            **{name: stored.extra[name] for name in ("decision_ms", "batch_ms", "gamma")}}  # fmt: skip


def _paper_range(settings: ReproduceSettings, methods: dict[str, RouterRun], halves: Halves) -> dict[str, Any]:
    """How many of the paper's own requests are feasible, and what asking for them gives."""
    taus = _paper_taus(settings)
    found: dict[str, Any] = {}
    for name in ("proteus", REFERENCE):
        for label, level in (("no_margin", None), ("margin", settings.margin_level)):
            rule = MarginRule(level=level)
            ok = calibrate(methods[name], taus, rule=rule, group=halves.tune.cluster_code).feasible
            found[f"{name}_{label}"] = float(ok.sum())
    rows = requested_setting(methods["proteus"], taus)
    found["proteus_quality"] = float(methods["proteus"].held_out.mean_quality[rows].mean())
    return found


def _paper_taus(settings: ReproduceSettings) -> FloatArray:
    low, high = settings.paper_range
    return np.linspace(low, high, settings.levels)


def _table4(stored: dict[str, Stored], taus: FloatArray, windows: Windows) -> dict[str, Any]:
    """Ablations, asked for as they are; changes against `proteus`."""
    rows = {name: _requested(s, taus, windows) for name, s in stored.items()}
    full = rows["proteus"]
    kept = ("quality", "cost_usd", "aggregate", "slope", "quality_range", "shortfall", "correlation_mu", "range_mu",
            "seconds", "gamma")  # fmt: skip
    return {
        name: {
            **{key: row[key] for key in kept},
            "quality_change": row["quality"] - full["quality"],
            "cost_change": row["cost_usd"] / full["cost_usd"] - 1.0,
        }
        for name, row in rows.items()
    }


def _leaks(
    settings: ReproduceSettings, runs: dict[str, dict[str, Stored]], halves: Halves, pool: dict[str, float]
) -> dict[str, Any]:
    """The most quality each way of predicting gives, and what it reports over the paper's requests."""
    taus = _paper_taus(settings)
    none, group = MarginRule(level=None), halves.tune.cluster_code
    honest = {name: s for name, s in runs["methods"].items() if not s.run.uses_labels}
    found = {}
    for name, stored in {**honest, **runs["leaks"]}.items():
        quality, cost = best_setting(stored.run)
        over, _ = spread_over(stored.run, taus, rule=none, group=group)
        found[name] = {**_band(quality, cost, pool), "over_paper_range": over}
    return found


# Changing requests --------------------------------------------------------------------------------


def changing(
    settings: ReproduceSettings, methods: dict[str, RouterRun], halves: Halves, taus: FloatArray, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Every schedule inside what PROTEUS and the reference can promise of a window; also for the paper's range.

    Returns:
        Figures by schedule and way of asking, and traces for the figure.
    """
    grid = np.linspace(taus[0], taus[-1], _GRID)
    rule, none = MarginRule(level=settings.margin_level), MarginRule(level=None)
    group = halves.tune.cluster_code
    pair = {name: methods[name] for name in ("proteus", REFERENCE)}
    shares = (settings.margin_level, _STRICT)
    margins = {
        (name, share): calibrate(_window_run(run, settings.window), grid, rule=MarginRule(level=share), group=group)
        for name, run in pair.items()
        for share in shares
    }
    top = min((found for found in map(_top, margins.values()) if math.isfinite(found)), default=math.nan)
    low, high = inside(float(grid[0]), top if math.isfinite(top) else float(grid[-1]))
    ways: dict[str, tuple[RouterRun, Calibration]] = {
        "proteus, as asked": (pair["proteus"], as_requested(pair["proteus"], grid))
    }
    for name, run in pair.items():
        ways[f"{name}, calibrated"] = run, calibrate(run, grid, rule=none, group=group)
        ways[f"{name}, margin"] = run, calibrate(run, grid, rule=rule, group=group)
        for share in shares:
            ways[f"{name}, window margin {100 * share:g} %"] = run, margins[name, share]
    found: dict[str, Any] = {"low": low, "high": high}
    traces: dict[str, Any] = {}
    for shape in SCHEDULES:
        tau = schedule(shape, settings.changing_queries, low, high)
        served = {way: serve(run, found_, tau, seed=seed) for way, (run, found_) in ways.items()}
        found[shape] = {way: judge(one, window=settings.window) for way, one in served.items()}
        traces[shape] = {way: _trace(one, settings.window) for way, one in served.items()}
    found["all"] = {
        way: {key: float(np.mean([found[shape][way][key] for shape in SCHEDULES])) for key in found["step"][way]}
        for way in ways
    }
    low, high = settings.paper_range
    tau = schedule("drift", settings.changing_queries, low, high)
    wide = np.linspace(low, high, _GRID)
    found["paper_range"] = {}
    for name, run in pair.items():
        asked = calibrate(_window_run(run, settings.window), wide, rule=rule, group=group)
        one = judge(serve(run, asked, tau, seed=seed), window=settings.window)
        found["paper_range"][f"{name}, window margin {100 * settings.margin_level:g} %"] = one
    return found, traces


def _window_run(run: RouterRun, window: int) -> RouterRun:
    """The run as if it were judged on one window: its margin covers the sampling error of that."""
    held_out = run.held_out
    columns = np.arange(min(window, held_out.quality.shape[1]))
    part = Routed(
        tier=held_out.tier[:, columns], quality=held_out.quality[:, columns], cost_usd=held_out.cost_usd[:, columns]
    )
    return dataclasses.replace(run, held_out=part)


def _top(calibration: Calibration) -> float:
    return float(calibration.taus[calibration.feasible].max()) if calibration.feasible.any() else math.nan


def _trace(served: Served, window: int) -> dict[str, FloatArray]:
    return {"tau": rolling(served.tau, window), "quality": rolling(served.quality, window)}


def show_reproduce(result: dict[str, Any]) -> None:
    """The short of it on the terminal."""
    for name, found in result["sets"].items():
        rows = []
        for method in (*PROTEUS, *(m for m in found["methods"] if m not in PROTEUS)):
            if method not in found["methods"]:
                continue
            row = found["methods"][method]
            rows.append((method, *_shown(row)))
        header = ("method", "floor kept", "windows kept", "slope", "cost, equal quality", "training s")
        print_rows(f"{name}: {found['n_seeds']} splits, margin on tune", rows, header)
    print(f"\nWrote {result['output']}/summary.json, summary.md, compliance.png and changing.png.")


def _shown(row: dict[str, Any]) -> tuple[str, ...]:
    margin = row["margin"]
    values = (
        margin["aggregate"],
        margin["windowed"],
        margin["slope"],
        row["equal"]["equal_quality_cost"],
        row["seconds"],
    )
    return tuple("–" if not math.isfinite(v["mean"]) else f"{v['mean']:.3g}" for v in values)
