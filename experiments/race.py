"""`routefront race`: every searcher on the same problems, from the same initial designs."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from experiments.console import busy, progress
from experiments.controllers import controller_settings
from experiments.files import write_json
from experiments.loading import load_data, make_controller, required
from experiments.pipeline import prepare
from experiments.race_settings import RaceSettings, SearcherSettings
from experiments.settings import ControllerSettings, TuneSettings, parse_settings
from experiments.under_load import with_world
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from toolkit.evaluation.constraints import parse_constraints
from toolkit.pareto.axes import Axes, make_axes
from toolkit.problem import Evaluation, Problem
from toolkit.search.base import run_search
from toolkit.synthetic import SyntheticProblem


@dataclass(frozen=True, kw_only=True)
class Posed:
    """A problem of the race.

    Attributes:
        problem: What is searched.
        axes: Where hypervolume is measured.
        settings: The settings that its controllers are made from.
        simulated: Whether an evaluation simulates traffic.
        enumerable: Whether `controller=exact` covers the space.
        data_hash: Of the table; empty where there is none.
    """

    problem: Problem
    axes: Axes
    settings: TuneSettings
    simulated: bool
    enumerable: bool
    data_hash: str = ""

    def truth(self, params: FloatArray) -> Evaluation:
        """Figures without noise."""
        if isinstance(self.problem, SyntheticProblem):
            return self.problem.truth(params)
        return self.problem.evaluate_params(params)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One searcher on one problem with one seed."""

    problem: str
    searcher: str
    seed: int
    budget: int

    def path(self, output: Path) -> Path:
        """Where its result lies."""
        return output / "cells" / self.problem / self.searcher / f"{self.seed}.json"


def run_race(settings: RaceSettings, *, quiet: bool = False) -> dict[str, Any]:
    """Run all cells that are not done, then summarise.

    Raises:
        ConfigError: If a name is unknown or the folder holds another race.
    """
    from experiments.race_summary import summarise

    output = Path(required(settings.output, "output"))
    _check(settings)
    with busy("Reading the problems", quiet=quiet):
        for name in settings.problems:
            pose(settings, name)
    _claim(settings, output)
    cells = [cell for cell in plan(settings) if not _done(cell, output)]
    with progress("race", quiet=quiet) as update:
        if settings.workers == 1:
            for i, cell in enumerate(cells):
                run_cell(settings, cell, output)
                update(i + 1, len(cells))
        else:
            context = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(settings.workers, mp_context=context) as pool:
                waiting = [pool.submit(run_cell, settings, cell, output) for cell in cells]
                for i, job in enumerate(concurrent.futures.as_completed(waiting)):
                    job.result()
                    update(i + 1, len(cells))
    return summarise(settings, output, quiet=quiet)


def plan(settings: RaceSettings) -> list[Cell]:
    """All cells, seeds first, so that an interrupted race has whole seeds."""
    names = settings.only or list(settings.searchers)
    cells = []
    for seed in range(settings.seeds):
        for problem in settings.problems:
            for name in names:
                cap = settings.searchers[name]
                if cap.seeds is None or seed < cap.seeds:
                    budget = min(settings.budget, cap.budget or settings.budget)
                    cells.append(Cell(problem=problem, searcher=name, seed=seed, budget=budget))
    return cells


def _check(settings: RaceSettings) -> None:
    unknown = sorted(set(settings.problems) - set(settings.definitions))
    if unknown:
        raise ConfigError(f"problems={unknown} are not defined; known: {list(settings.definitions)}")
    unknown = sorted(set(settings.only) - set(settings.searchers))
    if unknown:
        raise ConfigError(f"only={unknown} are no searchers; known: {list(settings.searchers)}")
    for name in settings.problems:
        if settings.data_dir is None and any("DATA/" in word for word in settings.definitions[name]):
            raise ConfigError(f"problem {name} needs data_dir=DIR, the folder that holds outcomes/")
    for name, searcher in settings.searchers.items():
        searcher_settings(name, searcher)


def _claim(settings: RaceSettings, output: Path) -> None:
    """Refuse a folder that is not this race's; what only widens a race may change."""
    wanted = {"definitions": settings.definitions, "synthetic": settings.synthetic.model_dump()}
    wanted["searchers"] = {
        name: s.model_dump(exclude={"budget", "seeds"}, exclude_none=True) for name, s in settings.searchers.items()
    }
    stamp = output / "race.json"
    if stamp.is_file():
        if json.loads(stamp.read_text(encoding="utf-8")) != wanted:
            raise ConfigError(f"output={output} holds a race with other definitions; name a new folder")
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"output={output} exists and is no race; name a new folder")
    write_json(stamp, wanted)


def _done(cell: Cell, output: Path) -> bool:
    path = cell.path(output)
    if not path.is_file():
        return False
    found = json.loads(path.read_text(encoding="utf-8"))
    return bool(max(found.get("budget", 0), len(found["overhead_s"])) >= cell.budget)


@lru_cache(maxsize=8)
def _pose(name: str, definition: tuple[str, ...], data: str, synthetic: str, seed: int) -> Posed:
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    overrides = [word.replace("DATA/", f"{data}/") for word in definition]
    ready = GlobalHydra.instance().is_initialized()  # in a worker process it is not
    with nullcontext() if ready else initialize_config_module("conf", version_base="1.3"):
        raw = OmegaConf.to_container(compose(config_name="tune", overrides=overrides), resolve=True)
    assert isinstance(raw, dict)
    settings = with_world(parse_settings(TuneSettings, {str(k): v for k, v in raw.items()}))
    if name == "synthetic":
        problem = SyntheticProblem(**json.loads(synthetic), seed=seed)
        corners = problem.truth(problem.corners()).columns
        axes = make_axes(problem.objectives, corners, margin=settings.axes.margin)
        return Posed(problem=problem, axes=axes, settings=settings, simulated=False, enumerable=False)
    table = load_data(settings.data, settings.scenario, 0).table
    prepared = prepare(settings, table, parse_constraints(settings.constraints))
    simulated = prepared.problem.world is not None
    enumerable = settings.space.kind == "policy" and not simulated
    return Posed(
        problem=prepared.problem,
        axes=prepared.axes,
        settings=settings,
        simulated=simulated,
        enumerable=enumerable,
        data_hash=table.data_hash,
    )


def pose(settings: RaceSettings, name: str, seed: int = 0) -> Posed:
    """The problem of this name; a seed changes nothing but noise."""
    noise = settings.synthetic.model_dump_json()
    return _pose(
        name, tuple(settings.definitions[name]), str(settings.data_dir), noise, seed if name == "synthetic" else 0
    )


def run_cell(settings: RaceSettings, cell: Cell, output: Path) -> None:
    """Run one searcher and write what it evaluated, without noise, and how long each suggestion took."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        posed = pose(settings, cell.problem, cell.seed)
        timed = search_timed(posed, settings.searchers[cell.searcher], cell.budget, cell.seed)
    evaluation, overhead = timed
    truth = posed.truth(evaluation.params)
    columns = {m.column: truth.columns[m.column].tolist() for m in posed.problem.objectives}
    found = {
        "columns": columns,
        "feasible": truth.feasible.tolist(),
        "overhead_s": overhead,
        "budget": cell.budget,
        "data_hash": posed.data_hash,
    }
    write_json(cell.path(output), found)


def searcher_settings(name: str, searcher: SearcherSettings) -> ControllerSettings:
    """The controller of one searcher, with the defaults of `conf/controller/`."""
    options = searcher.model_dump(exclude={"budget", "seeds"}, exclude_none=True)
    return controller_settings(f"searchers.{name}", options)


def search_timed(posed: Posed, searcher: SearcherSettings, budget: int, seed: int) -> tuple[Evaluation, list[float]]:
    """Evaluations in order, and the seconds that the searcher itself took for each."""
    settings = posed.settings.model_copy(
        update={"controller": searcher_settings(searcher.kind, searcher), "budget": budget, "seed": seed}
    )
    controller = make_controller(settings, posed.problem, posed.axes)
    watch = _Stopwatch(controller)
    result = run_search(posed.problem, watch)
    return result.evaluation, watch.seconds


class _Stopwatch:
    """A controller, timed: the seconds of `ask` and `tell`, spread over the batch."""

    def __init__(self, controller: Any) -> None:
        self._inner = controller
        self.name = controller.name
        self.seconds: list[float] = []
        self._spent = 0.0

    @property
    def total(self) -> int | None:
        return self._inner.total  # type: ignore[no-any-return]

    @property
    def exactness(self) -> str:
        return str(self._inner.exactness)

    def ask(self) -> FloatArray | None:
        start = time.perf_counter()
        batch: FloatArray | None = self._inner.ask()
        self._spent = time.perf_counter() - start
        return batch

    def tell(self, evaluation: Evaluation) -> None:
        start = time.perf_counter()
        self._inner.tell(evaluation)
        self._spent += time.perf_counter() - start
        self.seconds += [self._spent / len(evaluation)] * len(evaluation)


def reference_points(settings: RaceSettings, name: str) -> FloatArray:
    """`R x m` coordinates of feasible points: an exact grid where the space can be enumerated, else by NSGA-II."""
    posed = pose(settings, name)
    found = []
    size = settings.reference // (10 if posed.simulated else 1)
    long = SearcherSettings(kind="nsga2", population=100)
    if posed.enumerable:
        from toolkit.search.exact import ExactController

        exact = ExactController(posed.problem, boundaries="auto", max_evaluations=size)  # type: ignore[arg-type]
        found.append(run_search(posed.problem, exact).evaluation)
    else:
        found.append(posed.truth(search_timed(posed, long, size, 10**6)[0].params))
    return np.concatenate([posed.axes.scale(e.Y[e.feasible]) for e in found])
