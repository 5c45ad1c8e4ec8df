"""Three GPU types, 24 GPUs, every deployment enumerated: does `boute` find the optimum, and do its candidates hold it?

The optimum is the lowest p95 by the offline tables that a quality floor allows, over *every* mixture of replicas, not
over the candidate sets alone, at the boundaries where the candidates do best: `within` says how much worse than the
optimum the candidates are at the last of these, so that a mixture that is no candidate would have to gain more than
that to be overlooked.
"""

from __future__ import annotations

import itertools
import time
from functools import lru_cache
from typing import Any

import numpy as np

from experiments.loading import load_data
from experiments.pipeline import prepare
from experiments.reproduce_boute_data import compose_tune
from experiments.reproduce_boute_search import stopped_at
from experiments.reproduce_boute_settings import BouteReproduceSettings
from experiments.settings import TuneSettings, parse_settings
from simulators.outcomes import FloatArray, IntArray
from toolkit.deployment.candidates import Candidates, tabulate
from toolkit.deployment.database import OfflineDatabase
from toolkit.deployment.joint import joint_choices
from toolkit.deployment.problem import DeploymentProblem
from toolkit.evaluation.constraints import parse_constraints
from toolkit.pareto.axes import Axes
from toolkit.search.base import run_search
from toolkit.search.registry import make_searcher

FOUND_WITHIN = 0.01
"""A latency this far above the optimum counts as found."""

_MOST_JOINT = 5_000_000
_BOUNDARIES = 120
"""Boundaries, the best ones of the candidates, at which every deployment is looked up."""


def run_small(settings: BouteReproduceSettings, seed: int) -> dict[str, Any]:
    """One search of one seed with its whole budget, and when the paper's rule would have stopped it."""
    chosen = settings.search
    problem, axes = small_problem(chosen.small, chosen.n_queries)
    best = optimum(chosen.small, chosen.n_queries)
    start = time.perf_counter()
    controller = make_searcher("boute", problem, axes=axes, budget=chosen.budget, seed=seed, patience=None)
    found = run_search(problem, controller).evaluation
    seconds = time.perf_counter() - start
    p95_s = np.minimum.accumulate(np.where(found.feasible, found.columns["latency_p95_s"], np.inf))
    stop = stopped_at(problem, axes, found, chosen.patience) or len(found)
    within = np.flatnonzero(p95_s <= best["p95_s"] * (1.0 + FOUND_WITHIN))
    return {
        **best,
        "stopped_at": stop,
        "p95_at_stop_s": float(p95_s[stop - 1]),
        "p95_at_budget_s": float(p95_s[-1]),
        "evaluations": len(found),
        "found_after": int(within[0]) + 1 if len(within) else None,
        "seconds": seconds,
    }


@lru_cache(maxsize=1)
def small_problem(gpus: str, n_queries: int) -> tuple[DeploymentProblem, Axes]:
    """`self_hosted` under the floor halfway between the two models."""
    raw = compose_tune(
        "scenario=self_hosted",
        f"gpus@scenario.fleet.gpus={gpus}",
        f"data.n_queries={n_queries}",
        "space=deployment",
        "space.evaluate=table",
        "controller=boute",
        "objectives=[latency_p95]",
    )
    settings = parse_settings(TuneSettings, raw)
    table = load_data(settings.data, settings.scenario, settings.seed).table
    floor = float(table.quality.mean(axis=0).mean())
    found = prepare(settings, table, parse_constraints({**settings.constraints, "quality_floor": floor}))
    assert isinstance(found.problem, DeploymentProblem)
    return found.problem, found.axes


@lru_cache(maxsize=1)
def optimum(gpus: str, n_queries: int) -> dict[str, Any]:
    """The optimum over every deployment, and over the candidates."""
    problem, _ = small_problem(gpus, n_queries)
    boundaries = np.arange(len(problem.deployments.routing.order.boundaries))
    of_candidates_s = _best_of(problem, problem.database, problem.database.joint_choices(), boundaries)
    everything = every_deployment(problem.database)
    start = time.perf_counter()
    pairs = [(tier.gpus, tier.usd_per_hour) for tier in everything.tiers]
    every = joint_choices(pairs, everything.counts, everything.fleet.budget_usd_per_hour, _MOST_JOINT)
    promising = np.argsort(of_candidates_s, kind="stable")[:_BOUNDARIES]
    p95_s = _best_of(problem, everything, every, promising)
    return {
        "p95_s": float(p95_s.min()),
        "candidates_p95_s": float(of_candidates_s.min()),
        "deployments": len(every),
        "candidate_deployments": len(problem.choices),
        "floor": problem.constraints[0].limit,
        "within": float(of_candidates_s[promising[-1]] / p95_s.min() - 1.0),
        "enumeration_s": time.perf_counter() - start,
    }


def _best_of(problem: DeploymentProblem, database: OfflineDatabase, choices: IntArray, at: IntArray) -> FloatArray:
    """Lowest p95 at each of the boundaries `at`; infinite where the floor is not kept."""
    family = problem.deployments
    thresholds = family.routing.order.boundaries[at][:, None]
    params = family.assemble(thresholds, np.tile(choices[:1], (len(at), 1)))
    keeps = problem.exact(params)["quality"] >= problem.constraints[0].limit
    found = np.full(len(at), np.inf)
    found[keeps], _ = database.best(family.fractions(params)[keeps], choices)
    return found


def every_deployment(database: OfflineDatabase) -> OfflineDatabase:
    """The database with every mixture of replicas as a candidate: one shape and any number of replicas per GPU type."""
    tiers = tuple(_every(database, tier) for tier in database.tiers)
    return OfflineDatabase(
        fleet=database.fleet,
        recipe=database.recipe,
        candidate_recipe=database.candidate_recipe,
        edges_s=database.edges_s,
        tiers=tiers,
        suitability=database.suitability,
    )


def _every(database: OfflineDatabase, tier: Candidates) -> Candidates:
    of_type: list[list[tuple[int, int]]] = []
    for name, gpu in database.fleet.gpus.items():
        options = [(-1, 0)]
        for t, table in enumerate(tier.tables):
            if table.replica.gpu == name:
                options += [(t, n) for n in range(1, gpu.count // table.replica.n_gpus + 1)]
        of_type.append(options)
    rows = np.array(list(itertools.product(*of_type)), dtype=np.int64)  # the first row is "no GPUs"
    return tabulate(
        database.fleet,
        tier.tier,
        tier.tables,
        (rows[:, :, 0], rows[:, :, 1]),
        recipe=database.candidate_recipe,
        offline=database.recipe,
    )
