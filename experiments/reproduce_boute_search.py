"""Searchers on `scenario=self_hosted`: the cells `search` of `reproduce paper=boute`.

All searchers are judged on the same axes by the same offline tables, whatever they saw themselves. The reference is the
enumeration of all deployments that fit at a grid of boundaries.
"""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from experiments.fleet import Offline
from experiments.loading import load_data
from experiments.pipeline import prepare
from experiments.reproduce_boute_data import compose_tune
from experiments.reproduce_boute_settings import BouteReproduceSettings, SearcherSettings
from experiments.settings import TuneSettings, parse_settings
from simulators.outcomes import FloatArray
from toolkit.deployment.problem import DeploymentProblem
from toolkit.evaluation.constraints import parse_constraints
from toolkit.pareto.axes import Axes
from toolkit.problem import Evaluation
from toolkit.search.base import Controller
from toolkit.search.boute_stopping import SolutionWatch
from toolkit.search.exact_deployment import DeploymentExactController
from toolkit.search.registry import make_searcher

REFERENCE = "reference"
_MOST_LOOKED_UP = 100_000_000


@lru_cache(maxsize=8)
def pose(n_types: int, n_queries: int, space: tuple[tuple[str, Any], ...], stored: Path | None) -> tuple[
    DeploymentProblem, Axes
]:  # fmt: skip
    """The problem with these options of the space; the data and the tables are the same for every seed.

    Args:
        n_types: GPU types.
        n_queries: Of the scenario.
        space: Options that differ from `space=deployment`, evaluated by the tables.
        stored: Where the offline tables are kept; None keeps none.
    """
    options = {"evaluate": "table", **dict(space)}
    raw = compose_tune(
        "scenario=self_hosted",
        f"gpus@scenario.fleet.gpus=types_{n_types}",
        f"data.n_queries={n_queries}",
        "space=deployment",
        "controller=boute",
        "objectives=[latency_p95,quality]",
    )
    raw["space"] |= {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    settings = parse_settings(TuneSettings, raw)
    table = load_data(settings.data, settings.scenario, settings.seed).table
    found = prepare(settings, table, parse_constraints(settings.constraints), offline=Offline(stored=stored))
    assert isinstance(found.problem, DeploymentProblem)
    return found.problem, found.axes


def run_reference(settings: BouteReproduceSettings, n_types: int, output: Path) -> dict[str, Any]:
    """The enumeration on the offline tables, and what the offline phase takes."""
    chosen = settings.search
    stored = output / "offline" / f"types_{n_types}.npz"
    stored.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    problem, axes = pose(n_types, chosen.n_queries, (), stored)
    offline_s = time.perf_counter() - start
    start = time.perf_counter()
    controller = DeploymentExactController(problem, boundaries=chosen.boundaries, most=_MOST_LOOKED_UP)
    front = problem.evaluate_params(controller.front())
    return {
        "offline_s": offline_s,
        "exact_s": time.perf_counter() - start,
        "looked_up": controller.n_looked_up,
        "choices": len(problem.choices),
        "candidates": [len(tier) for tier in problem.database.tiers],
        "gpus": int(problem.database.counts.sum()),
        "Z": axes.scale(front.Y[front.feasible]).tolist(),
        "reference_point": axes.reference.tolist(),
    }


def run_searcher(settings: BouteReproduceSettings, n_types: int, name: str, seed: int, output: Path) -> dict[str, Any]:
    """One search with its whole budget; when the paper's rule would have stopped it is worked out afterwards."""
    chosen, searcher = settings.search, settings.search.searchers[name]
    stored = output / "offline" / f"types_{n_types}.npz"
    base, axes = pose(n_types, chosen.n_queries, (), stored)
    problem = _problem_of(settings, searcher, n_types, output)
    options = dict(searcher.options) | ({"patience": None} if searcher.kind == "boute" else {})
    controller = make_searcher(searcher.kind, problem, axes=axes, budget=chosen.budget, seed=seed, **options)
    evaluation, seconds = _timed(problem, controller)
    truth = evaluation if problem.looked_up else base.evaluate_params(evaluation.params)
    return {
        "Z": axes.scale(truth.Y).tolist(),
        "feasible": (truth.feasible & evaluation.feasible).tolist(),
        "seconds": seconds.tolist(),
        "stopped_at": stopped_at(problem, axes, evaluation, chosen.patience),
    }


def _problem_of(
    settings: BouteReproduceSettings, searcher: SearcherSettings, n_types: int, output: Path
) -> DeploymentProblem:
    space = tuple(
        (key, tuple(value) if isinstance(value, list) else value) for key, value in sorted(searcher.space.items())
    )
    few = "gpu_types" in searcher.space
    name = f"types_{n_types}_{'_'.join(searcher.space['gpu_types'])}.npz" if few else f"types_{n_types}.npz"
    return pose(n_types, settings.search.n_queries, space, output / "offline" / name)[0]


def _timed(problem: DeploymentProblem, controller: Controller) -> tuple[Evaluation, FloatArray]:
    """All evaluations, and the seconds since the start after each; those of a batch share its time."""
    from toolkit.problem import concatenate

    parts, seconds, spent = [], [], 0.0
    start = time.perf_counter()
    while (params := controller.ask()) is not None:
        part = problem.evaluate_params(params)
        controller.tell(part)
        now = time.perf_counter() - start
        seconds.append(spent + (now - spent) * np.arange(1, len(part) + 1) / len(part))
        spent = now
        parts.append(part)
    return concatenate(parts), np.concatenate(seconds)


def stopped_at(problem: DeploymentProblem, axes: Axes, evaluation: Evaluation, patience: int) -> int | None:
    """Evaluations after which the front had not changed for `patience` ones; None where that never was.

    Those of an initial design of `2 (d + 1)` are not counted, whatever the searcher.
    """
    watch = SolutionWatch(
        problem, axes, stop_on="front", patience=patience, n_initial=min(len(evaluation), 2 * (problem.space.dim + 1))
    )
    for i in range(len(evaluation)):
        watch.tell(evaluation.take(np.array([i])))
        if watch.stopped:
            return i + 1
    return None
