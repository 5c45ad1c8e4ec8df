"""`routefront reproduce paper=boute`: thresholds and GPU deployments together, theirs beside ours [Boute2026]_.

Cells: `deploy` and `control` for a workload and a seed, `small` for a seed, `reference` for a number of GPU types,
`search` for a searcher, a number of types and a seed. Cells that are done are kept; tables and figures are computed
from them.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.console import busy, progress
from experiments.files import jsonable, write_json
from experiments.loading import required
from experiments.reproduce_boute_data import read_workload
from experiments.reproduce_boute_search import REFERENCE
from experiments.reproduce_boute_settings import BouteReproduceSettings
from simulators.errors import ConfigError

_CHANGEABLE = {"workloads", "seeds", "parts", "workers", "output", "data_dir"}
_CHANGEABLE_SEARCH = {"types", "only"}
"""Options that widen a reproduction without touching a cell."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One piece of work.

    Attributes:
        part: `deploy`, `control`, `small`, `reference` or `search`.
        of: Workload, or number of GPU types.
        seed: Its seed.
        searcher: Of `search`.
    """

    part: str
    of: str
    seed: int = 0
    searcher: str = ""

    def path(self, output: Path) -> Path:
        """Where its result lies."""
        return output / "cells" / self.part / self.of / self.searcher / f"{self.seed}.json"


def run_boute(settings: BouteReproduceSettings, *, quiet: bool = False) -> dict[str, Any]:
    """Run all cells that are not done, then write tables and figures.

    Raises:
        ConfigError: If a name is unknown, data is missing or the folder holds another reproduction.
    """
    from experiments.reproduce_boute_summary import summarise

    output = Path(required(settings.output, "output"))
    with busy("Reading the data", quiet=quiet):
        _check(settings)
    _claim(settings, output)
    for wave in waves(settings):
        _run(settings, [[c for c in group if not c.path(output).is_file()] for group in wave], output, quiet=quiet)
    with busy("Tables and figures", quiet=quiet):
        return summarise(settings, output)


def waves(settings: BouteReproduceSettings) -> list[list[list[Cell]]]:
    """Groups of cells, group by group in one process; a wave waits for the one before it.

    Seeds come first, so that an interrupted run has whole seeds; references and their tables come before the searches
    that use them.
    """
    parts = [part for part in ("deploy", "control") if part in settings.parts]
    of_seeds = [
        [Cell(part=part, of=name, seed=seed) for part in parts]
        for seed in range(settings.seeds)
        for name in settings.workloads
    ]
    if "small" in settings.parts:  # in one process, which enumerates once
        of_seeds.append([Cell(part="small", of=settings.search.small, seed=seed) for seed in range(settings.seeds)])
    if "search" not in settings.parts:
        return [of_seeds]
    references = [[Cell(part=REFERENCE, of=str(n))] for n in settings.search.types]
    searches = [
        [Cell(part="search", of=str(n), seed=seed, searcher=name) for name in searchers_of(settings, n)]
        for seed in range(settings.seeds)
        for n in settings.search.types
    ]
    return [of_seeds, references, searches]


def searchers_of(settings: BouteReproduceSettings, n_types: int) -> list[str]:
    """Those that run on so many GPU types."""
    chosen = settings.search
    names = chosen.only or list(chosen.searchers)
    return [n for n in names if chosen.searchers[n].types is None or n_types in (chosen.searchers[n].types or [])]


def _check(settings: BouteReproduceSettings) -> None:
    unknown = sorted(set(settings.search.only) - set(settings.search.searchers))
    if unknown:
        raise ConfigError(f"search.only={unknown} are no searchers; known: {list(settings.search.searchers)}")
    if {"deploy", "control"} & set(settings.parts):
        for name in settings.workloads:
            read_workload(settings, name)


def _claim(settings: BouteReproduceSettings, output: Path) -> None:
    """Refuse a folder that is not this reproduction's; more searchers may be added, none changed."""
    wanted = settings.model_dump(mode="json", exclude=_CHANGEABLE)
    wanted["search"] = {k: v for k, v in wanted["search"].items() if k not in _CHANGEABLE_SEARCH}
    stamp = output / "reproduce.json"
    if stamp.is_file():
        if json.loads(stamp.read_text(encoding="utf-8")) != wanted:
            raise ConfigError(f"output={output} holds a reproduction with other options; name a new folder")
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"output={output} exists and is no reproduction; name a new folder")
    write_json(stamp, wanted)


def _run(settings: BouteReproduceSettings, groups: list[list[Cell]], output: Path, *, quiet: bool) -> None:
    groups = [group for group in groups if group]
    total, done = sum(map(len, groups)), 0
    with progress("reproduce", quiet=quiet) as update:
        if settings.workers == 1 or len(groups) < 2:
            for cell in (cell for group in groups for cell in group):
                run_cells(settings, [cell], output)
                done += 1
                update(done, total)
            return
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(settings.workers, mp_context=context) as pool:
            waiting = {pool.submit(run_cells, settings, group, output): len(group) for group in groups}
            for job in concurrent.futures.as_completed(waiting):
                job.result()
                done += waiting[job]
                update(done, total)


def run_cells(settings: BouteReproduceSettings, cells: list[Cell], output: Path) -> None:
    """Run cells one after the other on one thread, and write each as soon as it is done."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        for cell in cells:
            write_json(cell.path(output), jsonable(_result(settings, cell, output)))


def _result(settings: BouteReproduceSettings, cell: Cell, output: Path) -> dict[str, Any]:
    from experiments.reproduce_boute_deploy import run_control, run_deploy
    from experiments.reproduce_boute_search import run_reference, run_searcher

    if cell.part == "deploy":
        return run_deploy(settings, cell.of, cell.seed)
    if cell.part == "control":
        return run_control(settings, cell.of, cell.seed)
    if cell.part == "small":
        from experiments.reproduce_boute_small import run_small

        return run_small(settings, cell.seed)
    if cell.part == REFERENCE:
        return run_reference(settings, int(cell.of), output)
    return run_searcher(settings, int(cell.of), cell.searcher, cell.seed, output)
