"""`routefront compare`: several finished runs side by side, in the axes that they share."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from experiments.compare_settings import CompareSettings
from experiments.console import busy, print_rows
from experiments.files import jsonable, write_bytes, write_json, write_text
from experiments.tracking import open_tracker
from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import FloatArray
from toolkit.pareto.axes import Axes, restore_axes
from toolkit.pareto.comparison import Comparison, RunFront, compare_runs

_OUTPUT = "comparison.json"


class Tracker(Protocol):
    """Where results are logged as well, such as Weights & Biases."""

    def log_picture(self, name: str, png: bytes) -> None: ...
    def summary(self, values: dict[str, Any]) -> None: ...
    def artifact(self, name: str, files: Sequence[Path]) -> None: ...


class _Info(BaseModel):
    """What compare needs of `run.json`."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    status: str
    seed: int
    data_hash: str
    controller: str
    problem: str
    objectives: list[str]
    axes: dict[str, Any]
    config_hash: str | None = None
    world: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """A finished run as it lies on disk.

    Attributes:
        path: Its folder.
        info: Its `run.json`.
        axes: The axes it was tuned in.
        columns: Natural column -> `n` values.
        feasible: `n`.
        seconds: Time spent evaluating.
    """

    path: Path
    info: _Info
    axes: Axes
    columns: dict[str, FloatArray]
    feasible: np.ndarray
    seconds: float


def tracked_compare(settings: CompareSettings, raw: dict[str, Any], *, quiet: bool = False) -> dict[str, Any]:
    """`run_compare`, recorded by the tracker of the settings; its files go below the output folder.

    Args:
        settings: Validated settings.
        raw: The resolved config.
        quiet: No progress.
    """
    found, pictures, files = _compare(settings, quiet=quiet)
    output = Path(found["output"])
    tracker = open_tracker(
        settings.tracking, config=raw, out=output, controller="compare", problem=output.name, seed=settings.seed
    )
    with tracker:
        _track(tracker, found, pictures, files)
    return found


def run_compare(settings: CompareSettings, *, quiet: bool = False, tracker: Tracker | None = None) -> dict[str, Any]:
    """Compare the runs and write the output folder.

    Returns:
        What `comparison.json` holds, and where the report is.

    Raises:
        RoutefrontError: If runs are missing, unfinished, doubled or not comparable, or the output is not free.
    """
    found, pictures, files = _compare(settings, quiet=quiet)
    if tracker is not None:
        _track(tracker, found, pictures, files)
    return found


def _compare(settings: CompareSettings, *, quiet: bool) -> tuple[dict[str, Any], dict[str, bytes], list[Path]]:
    output = _checked_folder(settings.output)
    with busy("Comparing runs", quiet=quiet):
        folders, skipped = _expand([settings.runs] if isinstance(settings.runs, str) else settings.runs)
        stored = [_read_run(path) for path in folders]
        _refuse_doubles(stored)
        different = _differences(stored)
        if different and not settings.allow_different:
            raise ConfigError(f"{different[0]}; compare like with like, or set allow_different=true")
        runs = [_run_front(run, name, stored[0].axes) for run, name in zip(stored, _names(folders), strict=True)]
        comparison = compare_runs(runs, stored[0].axes, resamples=settings.resamples, seed=settings.seed)
        found, pictures, page = _present(settings, comparison, folders, different, skipped)
        files = _write(output, found, pictures, page)
    return {"output": str(output), "report": str(output / "report.html"), **jsonable(found)}, pictures, files


def _present(
    settings: CompareSettings,
    comparison: Comparison,
    folders: Sequence[Path],
    different: Sequence[str],
    skipped: Sequence[str],
) -> tuple[dict[str, Any], dict[str, bytes], str]:
    """The record, the pictures and the page."""
    from toolkit.report import comparison_html as html
    from toolkit.report.comparison_figures import draw_comparison

    loud = _loud(different, comparison.runs[0].run.name)
    notes = [*loud, *html.comparison_notes(comparison), *(f"Left out: {job}." for job in skipped)]
    found = {
        "command": "compare",
        "schema_version": 1,
        "allow_different": settings.allow_different,
        "bootstrap": {"resamples": settings.resamples, "seed": settings.seed},
        "different": different,
        "skipped": skipped,
        "notes": notes,
        "sentences": html.comparison_sentences(comparison),
        **html.comparison_dict(comparison, [str(path) for path in folders]),
    }
    pictures = draw_comparison(comparison)
    return found, pictures, html.render_comparison(comparison, notes, pictures, warned=bool(different))


def _checked_folder(output: str | None) -> Path:
    if not output:
        raise ConfigError("output is not set; give output=DIR")
    path = Path(output)
    if path.exists() and not path.is_dir():
        raise ConfigError(f"output={path} is a file; name a folder")
    if path.is_dir() and any(path.iterdir()) and not _is_ours(path / _OUTPUT):
        raise ConfigError(f"output={path} exists and is not an earlier comparison; name a new folder or remove it")
    return path


def _is_ours(path: Path) -> bool:
    try:
        return _read_json(path, {}).get("command") == "compare"
    except InputDataError:
        return False


def _expand(given: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Finished run folders, and sentences on the jobs of a sweep that did not finish."""
    folders: list[Path] = []
    skipped: list[str] = []
    for path in map(Path, given):
        if not path.is_dir():
            raise InputDataError(f"runs: {path} is not a folder; give the out=DIR of a routefront tune")
        jobs = sorted((p for p in path.iterdir() if p.is_dir() and p.name.isdecimal()), key=lambda p: int(p.name))
        if (path / "run.json").is_file() or not jobs:
            if (why := _unfinished(path)) is not None:
                raise InputDataError(f"runs: {why}; finish it or leave it out")
            folders.append(path)
            continue
        for job in jobs:
            why = _unfinished(job)
            folders += [job] if why is None else []
            skipped += [] if why is None else [why]
    if len(folders) < 2:
        left = f" ({'; '.join(skipped)})" if skipped else ""
        raise ConfigError(f"compare needs two or more finished runs; runs=[...] gives {len(folders)}{left}")
    return folders, skipped


def _unfinished(path: Path) -> str | None:
    """Why this is no finished run, or None if it is one."""
    if not (path / "run.json").is_file():
        return f"{path} has failed" if (path / "error.txt").is_file() else f"{path} is not a run (no run.json)"
    status = _read_json(path / "run.json").get("status")
    return None if status == "done" else f"{path} has not finished (its status is {status})"


def _read_json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """A JSON object; the default where there is no file."""
    if default is not None and not path.is_file():
        return default
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputDataError(f"{path} cannot be read ({error}); run the search again") from error
    if not isinstance(value, dict):
        raise InputDataError(f"{path} is not a JSON object; run the search again")
    return value


def _read_run(path: Path) -> _Stored:
    try:
        info = _Info.model_validate(_read_json(path / "run.json"))
    except ValidationError as error:
        first = error.errors()[0]
        raise InputDataError(
            f"{path / 'run.json'}: {first['loc'][0]}: {first['msg']}; it is of another version, run tune again"
        ) from error
    journal = path / "evaluations.jsonl"
    try:
        records = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
        names = dict.fromkeys(name for record in records for name in record["objectives"])
        columns = {name: _floats([r["objectives"].get(name) for r in records]) for name in names}
        slack = [all(v is not None and v >= 0 for v in r["slack"].values()) for r in records]
        ok = [r["status"] == "ok" for r in records]
        seconds = float(sum(r["seconds"] for r in records))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputDataError(f"{journal} cannot be read ({error!r}); run the search again") from error
    axes = restore_axes(info.axes)
    missing = [a.column for a in axes.axes if a.column not in columns]
    if not records or missing:
        raise InputDataError(f"{journal} holds no {' and no '.join(missing) or 'evaluation'}; run the search again")
    feasible = np.array(ok, dtype=bool) & np.array(slack, dtype=bool)
    return _Stored(path=path, info=info, axes=axes, columns=columns, feasible=feasible, seconds=seconds)


def _floats(values: Sequence[float | None]) -> FloatArray:
    return np.array([math.nan if v is None else v for v in values], dtype=np.float64)


def _refuse_doubles(runs: Sequence[_Stored]) -> None:
    seen: dict[object, Path] = {}
    for run in runs:
        search = (run.info.config_hash, run.info.data_hash) if run.info.config_hash else None
        for key in (run.path.resolve(), search):
            if key is not None and key in seen:
                raise ConfigError(f"runs: {run.path} and {seen[key]} are the same run; name each once")
            seen[key] = run.path


def _differences(runs: Sequence[_Stored]) -> list[str]:
    """Sentences, one per run that cannot be compared with the first."""
    first, found = runs[0], []
    for run in runs[1:]:
        parts = []
        if run.info.data_hash != first.info.data_hash:
            parts.append(f"data ({run.info.data_hash[:12]} instead of {first.info.data_hash[:12]})")
        if run.info.objectives != first.info.objectives:
            parts.append(f"objectives ({', '.join(run.info.objectives)} instead of {', '.join(first.info.objectives)})")
        if run.info.world != first.info.world:
            parts.append(f"world ({_world_text(run.info.world)} instead of {_world_text(first.info.world)})")
        if not run.axes.same_as(first.axes):
            parts.append(f"axes ({_axes_text(run.axes)} instead of {_axes_text(first.axes)})")
        if parts:
            found.append(f"{run.path} differs from {first.path} in {' and '.join(parts)}")
    return found


def _world_text(world: dict[str, Any] | None) -> str:
    return "none" if world is None else ", ".join(f"{name} {value}" for name, value in world.items())


def _axes_text(axes: Axes) -> str:
    ends = ", ".join(f"{a.column} {a.worst:.6g} to {a.best:.6g}{' log' if a.log else ''}" for a in axes.axes)
    return f"{ends}, margin {axes.margin:g}"


def _names(folders: Sequence[Path]) -> list[str]:
    """The ends of the paths, as long as needed to tell them apart; a job's number with its sweep's folder."""
    parts = [path.resolve().parts for path in folders]
    depth = 2 if any(part[-1].isdecimal() for part in parts) else 1
    while len({part[-depth:] for part in parts}) < len(parts):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def _run_front(run: _Stored, name: str, axes: Axes) -> RunFront:
    """The run in the common axes."""
    if missing := [a.column for a in axes.axes if a.column not in run.columns]:
        raise InputDataError(f"{run.path} did not record {', '.join(missing)}, so it cannot be compared; leave it out")
    Y = np.stack([run.columns[a.column] * (1 if a.maximise else -1) for a in axes.axes], axis=1)
    policy = _read_json(run.path / "metrics.json", {}).get("policy", {})
    validation = {name: policy.get(name) for name in ("quality", "cost_usd")}
    validation["latency_p95_s"] = policy.get("latency_s", {}).get("p95")
    constraints = _read_json(run.path / "policy.json", {}).get("constraints", {})
    tuned_on = _read_json(run.path / "prompts_seen.json", {}).get("tune", [])
    return RunFront(
        name=name,
        controller=run.info.controller,
        problem=run.info.problem,
        seed=run.info.seed,
        instance=hashlib.sha256(json.dumps([run.info.data_hash, tuned_on, run.info.world]).encode()).hexdigest()[:16],
        columns=run.columns,
        Z=axes.scale(Y),
        feasible=run.feasible,
        constraints={k: float(v) for k, v in constraints.items() if isinstance(v, int | float)},
        validation={name: float(value) for name, value in validation.items() if value is not None},
        seconds=run.seconds,
    )


def _loud(different: Sequence[str], first: str) -> list[str]:
    if not different:
        return []
    lead = f"NOT COMPARABLE AS THEY STAND (allow_different=true): every figure is in the axes of {first}."
    return [lead, *(f"{sentence}." for sentence in different)]


def _write(output: Path, found: dict[str, Any], pictures: dict[str, bytes], page: str) -> list[Path]:
    """Write everything beside the output first, then move it in; comparison.json comes last and makes it whole."""
    staged = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        for name, picture in pictures.items():
            write_bytes(staged / "figures" / f"{name}.png", picture)
        write_bytes(staged / "table.csv", _csv(found["runs"]))
        write_text(staged / "report.html", page)
        write_json(staged / _OUTPUT, found)
        names = [*(f"figures/{name}.png" for name in pictures), "table.csv", "report.html", _OUTPUT]
        (output / "figures").mkdir(parents=True, exist_ok=True)
        for name in names:
            os.replace(staged / name, output / name)
    except OSError as error:
        raise ConfigError(f"cannot write output={output}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return [output / name for name in names]


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    flat = [{k: v for k, v in row.items() if not isinstance(v, dict)} for row in map(jsonable, rows)]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(name for row in flat for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return buffer.getvalue().encode("utf-8")


def _track(tracker: Tracker, found: dict[str, Any], pictures: dict[str, bytes], files: Sequence[Path]) -> None:
    for name, picture in pictures.items():
        tracker.log_picture(name, picture)
    tracker.summary({f"{g['controller']}/hypervolume": g["hypervolume"]["mean"] for g in found["controllers"]})
    tracker.artifact("comparison", [path for path in files if path.name == _OUTPUT])


def show_compare(result: dict[str, Any]) -> None:
    """Print the runs, what follows and where the report is."""
    header = ("run", "controller", "seed", "evaluations", "hypervolume", "regret", "to 95 %", "validation")
    rows = [
        (
            run["run"],
            run["controller"],
            str(run["seed"]),
            str(run["evaluations"]),
            f"{run['hypervolume']:.4f}",
            f"{round(run['regret'], 4) + 0.0:.4f}",
            _to_95(run),
            _on_validation(run),
        )
        for run in result["runs"]
    ]
    print_rows("compare (hypervolume on the tune split above the common reference point; more is better)", rows, header)
    for line in (*result["notes"], *result["sentences"]):
        print(f"- {line}")
    print(f"\nReport: {result['report']}")


def _to_95(run: dict[str, Any]) -> str:
    """Evaluations from which on the efficiency stays at 95 %; an enumeration has no such course."""
    if str(run["controller"]).startswith("exact"):
        return "–"
    return "not reached" if run["evaluations_to_95"] is None else str(run["evaluations_to_95"])


def _on_validation(run: dict[str, Any]) -> str:
    """The chosen point on new queries."""
    quality, cost = run.get("validation_quality"), run.get("validation_cost_usd")
    shown = "" if quality is None else f"quality {quality:.4f}"
    return shown if cost is None else f"{shown}, {1000 * cost:.4g} USD / 1,000"
