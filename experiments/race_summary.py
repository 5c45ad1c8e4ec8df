"""What a race found: efficiency against evaluations, evaluations to a target, seconds per suggestion."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.console import print_rows
from experiments.files import write_bytes, write_json, write_text
from experiments.race import Posed, pose, reference_points
from experiments.race_settings import RaceSettings
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from toolkit.pareto.front import non_dominated
from toolkit.pareto.indicators import best_subset_hypervolume, efficiency, evaluations_to, hypervolume_trace

_MOST_POINTS = 1_500
_RESAMPLES = 2_000


@dataclass(frozen=True, kw_only=True)
class Runs:
    """All seeds of one searcher on one problem.

    Attributes:
        seeds: Which seeds ran.
        Z: `n x m` coordinates per seed.
        feasible: `n` per seed.
        overhead_s: Seconds per suggestion, per seed.
    """

    seeds: list[int]
    Z: list[FloatArray]
    feasible: list[np.ndarray]
    overhead_s: list[FloatArray]


def summarise(settings: RaceSettings, output: Path, *, quiet: bool) -> dict[str, Any]:
    """Tables and figure of all finished cells; written below `output` and returned."""
    from toolkit.report.race_figure import race_figure

    levels = [n for n in settings.levels if n <= settings.budget]
    found: dict[str, Any] = {"target": settings.target, "levels": levels, "problems": {}}
    curves: dict[str, dict[str, list[FloatArray]]] = {}
    for name in settings.problems:
        posed = pose(settings, name)
        runs = {s: r for s in settings.searchers if (r := _read(output / "cells" / name / s, posed)).seeds}
        if not runs:
            continue
        traces = _efficiencies(settings, name, posed, runs, output)
        curves[name] = traces
        rows = {s: _row(settings, traces[s], runs[s]) for s in runs}
        found["problems"][name] = {
            "d": posed.problem.space.dim,
            "objectives": [m.column for m in posed.problem.objectives],
            "axes": posed.axes.describe(),
            "enumerable": posed.enumerable,
            "searchers": rows,
        }
    write_json(output / "summary.json", found)
    write_bytes(output / "race.png", race_figure(curves, target=settings.target))
    write_text(output / "summary.md", as_markdown(found))
    return {"output": str(output), **found}


def _read(folder: Path, posed: Posed) -> Runs:
    runs = Runs(seeds=[], Z=[], feasible=[], overhead_s=[])
    for path in sorted(folder.glob("*.json"), key=lambda p: int(p.stem)):
        cell = json.loads(path.read_text(encoding="utf-8"))
        if cell.get("data_hash", posed.data_hash) != posed.data_hash:
            raise ConfigError(f"{path} was run on other data; name a new output folder")
        natural = [np.array(cell["columns"][m.column], dtype=np.float64) for m in posed.problem.objectives]
        Z = np.stack([posed.axes.scale_column(j, values) for j, values in enumerate(natural)], axis=1)
        runs.seeds.append(int(path.stem))
        runs.Z.append(Z)
        runs.feasible.append(np.array(cell["feasible"], dtype=bool))
        runs.overhead_s.append(np.array(cell["overhead_s"]))
    return runs


def _efficiencies(
    settings: RaceSettings, name: str, posed: Posed, runs: dict[str, Runs], output: Path
) -> dict[str, list[FloatArray]]:
    """Searcher -> efficiency of the first 1, 2, ... evaluations, per seed."""
    stored = output / "reference" / f"{name}.json"
    known = json.loads(stored.read_text(encoding="utf-8")) if stored.is_file() else {}
    if known.get("points") == settings.reference and known.get("data_hash") == posed.data_hash:
        R = np.array(known["front"])
    else:
        R = reference_points(settings, name)
        R = R[non_dominated(R)]
        write_json(stored, {"points": settings.reference, "data_hash": posed.data_hash, "front": R.tolist()})
    everything = [R, *(Z[ok] for r in runs.values() for Z, ok in zip(r.Z, r.feasible, strict=True))]
    front = np.concatenate(everything)
    front = _thinned(front[non_dominated(front)])
    longest = max(len(Z) for r in runs.values() for Z in r.Z)
    best = best_subset_hypervolume(front, longest, posed.axes.reference)
    return {
        s: [
            efficiency(hypervolume_trace(Z, ok, posed.axes.reference), best[: len(Z)])
            for Z, ok in zip(r.Z, r.feasible, strict=True)
        ]
        for s, r in runs.items()
    }


def _thinned(front: FloatArray) -> FloatArray:
    """At most `_MOST_POINTS` points, every so-manieth along the first axis: neighbours are nearly equal."""
    order = np.argsort(front[:, 0], kind="stable")
    if len(front) <= _MOST_POINTS:
        return front
    return np.asarray(front[order[np.linspace(0, len(front) - 1, _MOST_POINTS).round().astype(int)]])


def _row(settings: RaceSettings, traces: list[FloatArray], runs: Runs) -> dict[str, Any]:
    levels = [n for n in settings.levels if n <= min(len(t) for t in traces)]
    reached = [evaluations_to(t, settings.target, for_good=True) for t in traces]
    late = np.concatenate([o[len(o) // 2 :] for o in runs.overhead_s])
    return {
        "seeds": len(traces),
        "evaluations": min(len(t) for t in traces),
        "efficiency": {str(n): _interval(np.array([t[n - 1] for t in traces])) for n in levels},
        "to_target": {
            "reached": sum(r is not None for r in reached),
            "median": _median([r if r is not None else np.inf for r in reached]),
            "each": reached,
        },
        "overhead_s": {"median": float(np.median(late)), "p90": float(np.quantile(late, 0.9))},
    }


def _median(values: list[float]) -> float | None:
    """The median, None where it was not reached."""
    middle = float(np.median(np.sort(values))) if np.isfinite(np.sort(values)[len(values) // 2]) else np.inf
    return middle if np.isfinite(middle) else None


def _interval(values: FloatArray) -> dict[str, float]:
    """Median over seeds with a 95 % percentile bootstrap interval."""
    rng = np.random.default_rng(0)
    medians = np.median(values[rng.integers(len(values), size=(_RESAMPLES, len(values)))], axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return {"median": float(np.median(values)), "low": float(low), "high": float(high)}


def as_markdown(found: dict[str, Any]) -> str:
    """One table per problem."""
    lines = []
    for name, problem in found["problems"].items():
        exact = "; enumerable: `controller=exact`, no search needed" if problem["enumerable"] else ""
        lines += [f"**{name}** (d = {problem['d']}, {', '.join(problem['objectives'])}{exact})", ""]
        levels = found["levels"]
        lines.append(
            f"| searcher | seeds | {' | '.join(str(n) for n in levels)} | to {found['target']:g} | s/iteration |"
        )
        lines.append("|---" * (len(levels) + 4) + "|")
        for s, row in problem["searchers"].items():
            lines.append(f"| {s} | {row['seeds']} | {' | '.join(_cell(row, n) for n in levels)} | {_to(row)} | "
                         f"{row['overhead_s']['median']:.3g} |")  # fmt: skip
        lines.append("")
    return "\n".join(lines)


def _cell(row: dict[str, Any], n: int) -> str:
    e = row["efficiency"].get(str(n))
    return "–" if e is None else f"{e['median']:.3f} [{e['low']:.3f}, {e['high']:.3f}]"


def _to(row: dict[str, Any]) -> str:
    t = row["to_target"]
    middle = f"> {row['evaluations']}" if t["median"] is None else f"{t['median']:g}"
    return f"{middle} ({t['reached']}/{row['seeds']})"


def show_race(result: dict[str, Any]) -> None:
    """The tables on the terminal."""
    for name, problem in result["problems"].items():
        levels = result["levels"]
        header = ("searcher", "seeds", *(str(n) for n in levels), f"to {result['target']:g}", "s/iteration")
        rows = [
            (s, str(r["seeds"]), *(_cell(r, n) for n in levels), _to(r), f"{r['overhead_s']['median']:.3g}")
            for s, r in problem["searchers"].items()
        ]
        print_rows(f"{name} (d = {problem['d']}): efficiency, median over seeds and its 95 % interval", rows, header)
    print(f"\nWrote {result['output']}/summary.json, summary.md and race.png.")
