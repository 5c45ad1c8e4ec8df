"""The candidates of a search at other loads: does the front stay where it was?"""

from __future__ import annotations

import numpy as np

from experiments.pipeline import Prepared
from experiments.settings import TuneSettings
from experiments.under_load import world_on
from experiments.world_settings import TrafficSettings
from simulators.errors import InfeasibleError
from simulators.outcomes import IntArray
from simulators.seeds import spawn_rng
from simulators.world import World
from toolkit.evaluation.contention import only_waits, run, with_capacity
from toolkit.pareto.choose import choose
from toolkit.pareto.front import feasible_front
from toolkit.problem import Evaluation, RoutingProblem
from toolkit.report.record import FrontAtLoad
from toolkit.search.base import SearchResult

_MOST_CANDIDATES = {True: 512, False: 128}  # where requests only wait, and where the slower event kernel is needed


def fronts_at_loads(
    settings: TuneSettings, prepared: Prepared, result: SearchResult, chosen_row: int, rule: str
) -> tuple[FrontAtLoad, ...]:
    """The search's load and the others of `world.loads`, ascending; nothing without traffic.

    Up to 512 candidates (128 where requests fail) stand for the search: the chosen point, the front, and others evenly
    spread over it.
    """
    world = settings.world
    if not isinstance(world, TrafficSettings) or not world.loads:
        return ()
    assert prepared.problem.world is not None
    most = _MOST_CANDIDATES[only_waits(prepared.problem.world)]
    params = result.evaluation.params[_sample(result, chosen_row, most)]
    factors = sorted({1.0, *world.loads})
    return tuple(_at(settings, prepared, params, world.load * factor, rule) for factor in factors)


def _sample(result: SearchResult, chosen_row: int, most: int) -> IntArray:
    """Rows to judge again, the chosen one first."""
    front = _spread(np.asarray(result.front), most // 2)
    rest = _spread(np.flatnonzero(result.evaluation.ok), most - len(front) - 1)
    rows = np.unique(np.concatenate([front, rest]))
    return np.concatenate([[chosen_row], rows[rows != chosen_row]]).astype(np.int64)


def _spread(rows: IntArray, most: int) -> IntArray:
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def _at(settings: TuneSettings, prepared: Prepared, params: np.ndarray, load: float, rule: str) -> FrontAtLoad:
    problem = prepared.problem
    options = settings.world.model_copy(update={"load": load})
    world = world_on(options, problem.table, spawn_rng(settings.seed, "arrivals", "tune"))
    assert world is not None
    there = RoutingProblem(
        table=with_capacity(problem.table, world),
        family=problem.family,
        objectives=problem.objectives,
        constraints=problem.constraints,
        coverage=problem.coverage,
        world=world,
    )
    found = there.evaluate_params(params)
    rows = feasible_front(found)
    rows = rows[np.argsort(found.columns.get("cost_usd", -found.Y[:, 0])[rows], kind="stable")]
    slack = found.slack[0]
    return FrontAtLoad(
        load=load,
        n_candidates=len(params),
        n_feasible=int(found.feasible.sum()),
        front={name: values[rows] for name, values in found.columns.items()},
        candidates=found.columns,
        chosen={name: float(values[0]) for name, values in found.columns.items()},
        broken=tuple(c.text for c, s in zip(problem.constraints, slack, strict=True) if not s >= 0),
        best=_best(found, rows, rule, there),
        utilisation=_utilisation(there, params[:1], world),
    )


def _best(found: Evaluation, rows: IntArray, rule: str, problem: RoutingProblem) -> dict[str, float] | None:
    try:
        row = choose(found, rows, "auto" if rule == "certified" else rule, problem.constraints).row
    except InfeasibleError:
        return None
    return {name: float(values[row]) for name, values in found.columns.items()}


def _utilisation(problem: RoutingProblem, params: np.ndarray, world: World) -> dict[str, float]:
    """Station -> utilisation under the first candidate, where slots are limited."""
    journeys = run(world, problem.table, problem.family.assign(params))
    shares = journeys.utilisation(world)[0]
    return {s.name: float(u) for s, u in zip(world.stations, shares, strict=True) if np.isfinite(u)}
