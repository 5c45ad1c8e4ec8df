"""`routefront reproduce`: a paper's tables on our data and rules, theirs beside ours.

A cell is one method on one split of one data set. Cells that are done are kept; figures are computed from them.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.console import busy, progress
from experiments.files import write_json
from experiments.loading import required
from experiments.reproduce_data import make_split, read_set
from experiments.reproduce_methods import halves_of, names_of, run_method
from experiments.reproduce_settings import ReproduceSettings
from experiments.reproduce_store import save_run
from simulators.errors import ConfigError
from toolkit.baselines.routers import ROUTERS

_CHANGEABLE = {"sets", "seeds", "parts", "methods", "only", "workers", "output", "data_dir", "window", "margin_level",
               "changing_queries", "levels", "paper_range"}  # fmt: skip
"""Options that widen a reproduction or its figures without touching a cell."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method on one split."""

    set: str
    seed: int
    part: str
    method: str

    def path(self, output: Path) -> Path:
        """Where its run lies."""
        return output / "cells" / self.set / str(self.seed) / self.part / f"{self.method}.npz"


def run_reproduce(settings: ReproduceSettings, *, quiet: bool = False) -> dict[str, Any]:
    """Run all cells that are not done, then write tables and figures.

    Raises:
        ConfigError: If a name is unknown, data is missing or the folder holds another reproduction.
    """
    from experiments.reproduce_summary import summarise

    output = Path(required(settings.output, "output"))
    with busy("Reading the data", quiet=quiet):
        _check(settings)
    _claim(settings, output)
    cells = [cell for cell in plan(settings) if not cell.path(output).is_file()]
    _run(settings, cells, output, quiet=quiet)
    with busy("Tables and figures", quiet=quiet):
        return summarise(settings, output)


def plan(settings: ReproduceSettings) -> list[Cell]:
    """All cells: methods before ablations and leaks, and seed by seed, so that an interrupted run has whole seeds."""
    return [
        Cell(set=name, seed=seed, part=part, method=method)
        for part in settings.parts
        for seed in range(settings.seeds)
        for name in settings.sets
        if part == "methods" or not settings.only or name in settings.only
        for method in names_of(settings, part)
    ]


def _check(settings: ReproduceSettings) -> None:
    unknown = sorted(set(settings.methods) - set(ROUTERS))
    if unknown:
        raise ConfigError(f"methods={unknown} are unknown; known: {list(ROUTERS)}")
    unknown = sorted(set(settings.only) - set(settings.sets))
    if unknown:
        raise ConfigError(f"only={unknown} are not among sets={settings.sets}")
    low, high = settings.paper_range
    if not 0 <= low < high <= 1:
        raise ConfigError(f"paper_range must be [low, high] within [0, 1]; got {settings.paper_range}")
    for name in settings.sets:
        read_set(settings, name)


def _claim(settings: ReproduceSettings, output: Path) -> None:
    """Refuse a folder that is not this reproduction's."""
    wanted = settings.model_dump(mode="json", exclude=_CHANGEABLE)
    stamp = output / "reproduce.json"
    if stamp.is_file():
        if json.loads(stamp.read_text(encoding="utf-8")) != wanted:
            raise ConfigError(f"output={output} holds a reproduction with other options; name a new folder")
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"output={output} exists and is no reproduction; name a new folder")
    write_json(stamp, wanted)


def _run(settings: ReproduceSettings, cells: list[Cell], output: Path, *, quiet: bool) -> None:
    with progress("reproduce", quiet=quiet) as update:
        if settings.workers == 1 or len(cells) < 2:
            for i, cell in enumerate(cells):
                run_cells(settings, [cell], output)
                update(i + 1, len(cells))
            return
        groups: dict[tuple[str, int, bool], list[Cell]] = {}
        for cell in cells:  # one worker per split and part, so that its scores are made once
            groups.setdefault((cell.set, cell.seed, cell.part == "methods"), []).append(cell)
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(settings.workers, mp_context=context) as pool:
            waiting = {pool.submit(run_cells, settings, group, output): len(group) for group in groups.values()}
            done = 0
            for job in concurrent.futures.as_completed(waiting):
                job.result()
                done += waiting[job]
                update(done, len(cells))


def run_cells(settings: ReproduceSettings, cells: list[Cell], output: Path) -> None:
    """Run methods one after the other on one thread, and write each as soon as it is done."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        for cell in cells:
            split = make_split(settings.model_dump_json(), cell.set, cell.seed)
            stored = run_method(settings, split, cell.part, cell.method)
            save_run(cell.path(output), stored, halves_of(split))
