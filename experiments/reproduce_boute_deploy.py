"""Costs, shares and latencies of one split: the cells `deploy` and `control` of `reproduce paper=boute`."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from experiments.reproduce_boute_choice import METHODS, Choice, Method, Options, alone, cheapest, fastest, options_of
from experiments.reproduce_boute_data import (
    Databases,
    Routing,
    Workload,
    halve,
    idle_p95_s,
    make_databases,
    make_routing,
    read_workload,
)
from experiments.reproduce_boute_paper import (
    LEVELS,
    MOTIVATING_FLOOR,
    MOTIVATING_GPUS,
    TARGETS,
    share_of_gap,
    target_of,
)
from experiments.reproduce_boute_settings import BouteReproduceSettings, Router
from simulators.deployment.performance import perturbed
from simulators.outcomes import OutcomeTable
from simulators.seeds import spawn_rng
from toolkit.deployment.choices import JointChoices
from toolkit.deployment.database import OfflineDatabase
from toolkit.deployment.family import DeploymentFamily
from toolkit.deployment.problem import DeploymentProblem, fleet_latency_s, plan_at
from toolkit.deployment.requests import Requests, draw_requests
from toolkit.evaluation.constraints import parse_constraints
from toolkit.evaluation.metrics import Metric
from toolkit.evaluation.slices import coverage
from toolkit.pareto.axes import make_axes
from toolkit.policies.lanes import Lanes
from toolkit.search.base import run_search
from toolkit.search.registry import make_searcher

TRIALS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
"""Shares of the target that a choice is made for, until a trial run meets the target itself."""
_WARMUP = 0.25
_MARGIN = 0.1


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What the choices of one split are judged on.

    Attributes:
        workload: Data and fleet.
        databases: By the true engine.
        wrong: By an engine model that is off.
        tune, held_out: Traffic that asks each half's queries; tune's is that of a trial run.
        idle_s, sized_s: P95 of the large model alone without load, and on the main budget.
        offline_s: Seconds of the offline phase.
    """

    workload: Workload
    databases: Databases
    wrong: Databases
    tune: Requests
    held_out: Requests
    idle_s: float
    sized_s: float
    offline_s: float


@lru_cache(maxsize=1)
def ground_of(settings_json: str, name: str, seed: int) -> Ground:
    """Kept for the cells that follow in this process; the same for every router."""
    settings = BouteReproduceSettings.model_validate_json(settings_json)
    workload = read_workload(settings, name)
    halves, fleet = halve(settings, name, seed, "random"), workload.fleet
    off = perturbed(fleet, spawn_rng(seed, "reproduce", "boute", "error"), sd=settings.error_sd)
    start = time.perf_counter()
    databases = make_databases(settings, fleet, halves.tune, seed)
    offline_s = time.perf_counter() - start
    sized = fastest(alone(databases.homogeneous, 1), np.array([0]), np.array([0.0, 1.0]), workload.budget_usd_per_hour)
    traffic = {
        part: draw_requests(
            table,
            rate_per_s=fleet.rate_per_s,
            horizon_s=fleet.horizon_s,
            warmup=_WARMUP,
            rng=spawn_rng(seed, "reproduce", "boute", "traffic", part),
        )
        for part, table in (("tune", halves.tune), ("held_out", halves.held_out))
    }
    return Ground(
        workload=workload,
        databases=databases,
        wrong=make_databases(settings, off, halves.tune, seed),
        tune=traffic["tune"],
        held_out=traffic["held_out"],
        idle_s=idle_p95_s(fleet, settings.fleet, halves.tune),
        sized_s=math.inf if sized is None else sized.p95_s,
        offline_s=offline_s,
    )


def run_deploy(settings: BouteReproduceSettings, name: str, seed: int) -> dict[str, Any]:
    """The motivating example, Table 1 and Table 3 of one split, for every router."""
    ground = ground_of(settings.model_dump_json(), name, seed)
    found: dict[str, Any] = {
        "rate_per_s": ground.workload.fleet.rate_per_s,
        "saturation_per_s": ground.workload.saturation_per_s,
        "idle_s": ground.idle_s,
        "sized_s": ground.sized_s,
        "offline_s": ground.offline_s,
        "suitability": ground.databases.every.suitability.tolist(),
        "routers": {},
    }
    true, wrong = ({m: options_of(d, m) for m in METHODS} for d in (ground.databases, ground.wrong))
    for router in settings.routers:
        routing = _routing(settings, name, seed, router)
        found["routers"][router] = {
            "quality": routing.halves.held_out.quality.mean(axis=0).tolist(),
            "gap_at": _gap_at(routing),
            "motivating": motivating(ground, routing, true),
            "table_1": [table_1(ground, routing, true["boute"], level.share_of_gap) for level in LEVELS],
            "table_3": [_table_3(ground, routing, true, wrong, t) for t in range(len(TARGETS))],
        }
    return found


def _routing(settings: BouteReproduceSettings, name: str, seed: int, router: Router) -> Routing:
    return make_routing(halve(settings, name, seed, router), settings.fractions)


def _gap_at(routing: Routing) -> list[float]:
    """Share of the small model at each floor, by quality alone."""
    return [float(routing.fraction[routing.allowed(level.share_of_gap)].max()) for level in LEVELS]


def motivating(ground: Ground, routing: Routing, options: dict[Method, Options]) -> dict[str, Any]:
    """The fastest deployments at the price of the paper's 12 GPUs, one model alone and routed, at its quality floor."""
    price = next(iter(ground.databases.homogeneous.fleet.gpus.values())).usd_per_hour
    usd, allowed = MOTIVATING_GPUS * price, routing.allowed(share_of_gap(MOTIVATING_FLOOR))
    everything = np.arange(len(routing.fraction))
    small = alone(ground.databases.homogeneous, 0)
    rows = {
        "large_alone": fastest(options["large_homogeneous"], everything, routing.fraction, usd),
        "small_alone": fastest(small, everything, routing.fraction, usd),
    }
    routed: tuple[Method, ...] = ("routed_uniform", "boute_homogeneous", "boute")
    for name in routed:
        rows[name] = fastest(options[name], allowed, routing.fraction, usd)
    bases = {"large_alone": "large_homogeneous", "small_alone": "large_homogeneous"}
    return {
        name: _described(ground, routing, options[bases.get(name, name)].database, choice)  # type: ignore[index]
        for name, choice in rows.items()
    }


def table_1(ground: Ground, routing: Routing, options: Options, floor: float) -> dict[str, Any]:
    """Who gets what at a floor: the fastest deployment within the main budget."""
    choice = fastest(options, routing.allowed(floor), routing.fraction, ground.workload.budget_usd_per_hour)
    return _described(ground, routing, options.database, choice)


def _described(ground: Ground, routing: Routing, database: OfflineDatabase, choice: Choice | None) -> dict[str, Any]:
    """Figures of a choice: shares, GPUs, P95 by the tables and on held-out traffic, held-out quality."""
    if choice is None:
        return {"feasible": False}
    usd = [tier.usd_per_hour[c] for tier, c in zip(database.tiers, choice.choice, strict=True)]
    gpus = [
        {gpu: int(n) for gpu, n in zip(database.fleet.gpus, tier.gpus[c], strict=True) if n}
        for tier, c in zip(database.tiers, choice.choice, strict=True)
    ]
    p95_s, quality = judged(ground, routing, database, choice, held_out=True)
    return {
        "feasible": True,
        "share_of_load": float(routing.fraction[choice.f]),
        "share_of_budget": float(usd[0] / sum(usd)),
        "usd_per_hour": choice.usd_per_hour,
        "p95_s": choice.p95_s,
        "held_out_p95_s": p95_s,
        "held_out_quality": quality,
        "gpus": gpus,
        "text": _text(ground, routing, database, choice),
    }


def _text(ground: Ground, routing: Routing, database: OfflineDatabase, choice: Choice) -> list[str]:
    small = float(routing.fraction[choice.f])
    plan = plan_at(database, np.array([small, 1.0 - small]), choice.choice, tuple(ground.workload.fleet.models))
    return [" + ".join(f"{g.replicas} x {g.replica.text}" for g in groups) or "–" for groups in plan.groups]


def judged(
    ground: Ground, routing: Routing, database: OfflineDatabase, choice: Choice, *, held_out: bool
) -> tuple[float, float]:
    """P95 and quality of a choice on simulated traffic of one half, by the true engine.

    Args:
        ground: The true engine and the traffic.
        routing: Thresholds.
        database: Whose candidates and load splits were chosen.
        choice: What was chosen.
        held_out: Which half: held out, or tune as in a trial run.
    """
    small = float(routing.fraction[choice.f])
    fleet = ground.databases.every.fleet
    plan = plan_at(database, np.array([small, 1.0 - small]), choice.choice, tuple(fleet.models))
    requests = ground.held_out if held_out else ground.tune
    tier = routing.held_out_tier(choice.f) if held_out else routing.tune_tier(choice.f)
    table: OutcomeTable = routing.halves.held_out if held_out else routing.halves.tune
    served = _served_by(plan.groups, tier)
    took = fleet_latency_s(ground.databases.every, plan, requests, served[requests.row])[requests.counted]
    return float(np.quantile(took, 0.95)), float(table.quality[np.arange(len(served)), served].mean())


def _served_by(groups: tuple[Any, ...], tier: np.ndarray) -> np.ndarray:
    """A query of a model that is not deployed goes to the other one."""
    if all(groups):
        return tier
    return np.full_like(tier, 0 if groups[0] else 1)


def _table_3(
    ground: Ground, routing: Routing, true: dict[Method, Options], wrong: dict[Method, Options], number: int
) -> dict[str, Any]:
    """One row of Table 3: every method, by the true engine model and by a wrong one."""
    target = TARGETS[number]
    target_s = target_of(target, ground.workload.name, ground.idle_s, ground.sized_s)
    floor = LEVELS[target.level].share_of_gap
    return {
        "target_s": target_s,
        "floor": routing.floor(floor),
        "methods": {
            method: {
                "true": cost_to_meet(ground, routing, true[method], floor, target_s),
                "wrong": cost_to_meet(ground, routing, wrong[method], floor, target_s),
            }
            for method in METHODS
        },
    }


def cost_to_meet(ground: Ground, routing: Routing, options: Options, floor: float, target_s: float) -> dict[str, Any]:
    """USD per hour of the cheapest deployment that keeps the floor and the P95, by the tables and after trial runs.

    A trial run is a simulation on tune traffic by the true engine. Where it misses the target, a stricter one is asked
    of the tables, until a trial meets it or the tables know nothing faster.
    """
    allowed = routing.allowed(floor)
    found: dict[str, Any] = {"usd_per_hour": math.nan, "tried_usd_per_hour": math.nan}
    for share in TRIALS:
        choice = cheapest(options, allowed, routing.fraction, share * target_s)
        if choice is None:
            break
        trial_s, _ = judged(ground, routing, options.database, choice, held_out=False)
        p95_s, quality = judged(ground, routing, options.database, choice, held_out=True)
        if share == 1.0:
            found |= {
                "usd_per_hour": choice.usd_per_hour,
                "share_of_load": float(routing.fraction[choice.f]),
                "trial_met": float(trial_s <= target_s),
                "held_out_p95_ratio": p95_s / target_s,
                "met": float(p95_s <= target_s),
                "held_out_quality": quality,
                "text": _text(ground, routing, options.database, choice),
            }
        if trial_s <= target_s:
            found |= {
                "tried_usd_per_hour": choice.usd_per_hour,
                "asked": share,
                "tried_p95_ratio": p95_s / target_s,
                "tried_met": float(p95_s <= target_s),
            }
            break
    return found


def run_control(settings: BouteReproduceSettings, name: str, seed: int) -> dict[str, Any]:
    """The least cost of Table 3 found by the controller, beside that of the enumeration."""
    ground = ground_of(settings.model_dump_json(), name, seed)
    routing = _routing(settings, name, seed, "text")
    found: dict[str, Any] = {"rows": []}
    for target in TARGETS:
        target_s = target_of(target, name, ground.idle_s, ground.sized_s)
        floor = LEVELS[target.level].share_of_gap
        row: dict[str, Any] = {}
        methods: tuple[Method, ...] = ("boute_homogeneous", "boute")
        for method in methods:
            options = options_of(ground.databases, method)
            exact = cheapest(options, routing.allowed(floor), routing.fraction, target_s)
            least = math.nan if exact is None else exact.usd_per_hour
            row[method] = {"exact": least, **_by_search(settings, ground, routing, options, floor, target_s, seed)}
        found["rows"].append(row)
    return found


def _by_search(
    settings: BouteReproduceSettings,
    ground: Ground,
    routing: Routing,
    options: Options,
    floor: float,
    target_s: float,
    seed: int,
) -> dict[str, Any]:
    """`boute` with cost and P95 as objectives, and the target as constraints; its cheapest feasible evaluation."""
    problem = _posed(ground, routing, options, routing.floor(floor), target_s)
    usd = options.usd_per_hour
    axes = make_axes(
        problem.objectives,
        {"fleet_usd_per_hour": np.array([usd.min(), usd.max()]), "latency_p95_s": np.array([target_s / 2, target_s])},
        margin=_MARGIN,
    )
    start = time.perf_counter()
    controller = make_searcher(
        "boute", problem, axes=axes, budget=settings.search.control_budget, seed=seed, patience=settings.search.patience
    )
    evaluation = run_search(problem, controller).evaluation
    cost = np.where(evaluation.feasible, evaluation.columns["fleet_usd_per_hour"], np.inf)
    least = float(cost.min())
    return {
        "found": least if math.isfinite(least) else math.nan,
        "evaluations": len(evaluation),
        "evaluations_to_it": int(cost.argmin()) + 1,
        "seconds": time.perf_counter() - start,
    }


def _posed(ground: Ground, routing: Routing, options: Options, floor: float, target_s: float) -> DeploymentProblem:
    table, database = routing.halves.tune, options.database
    prices = tuple(tier.usd_per_hour for tier in database.tiers)
    choices = JointChoices(database.joint_choices(), prices, tuple(0 for _ in prices))
    lanes = Lanes(fallback_tier=table.n_tiers - 1, low_confidence_tier=table.n_tiers - 1)
    return DeploymentProblem(
        table=table,
        family=DeploymentFamily(routing.halves.tune_scores, lanes, table.tiers, choices),
        objectives=(Metric("fleet_cost"), Metric("latency_p95")),
        constraints=parse_constraints({"quality_floor": floor, "p95_ceiling_s": target_s}),
        coverage=coverage(table, 1),
        database=database,
        requests=ground.tune,
        evaluate="table",
    )
