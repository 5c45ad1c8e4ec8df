"""Thresholds and GPUs together: from settings to a `DeploymentProblem`, and what a chosen deployment meets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.files import write_atomically
from experiments.fleet_settings import DeploymentSpaceSettings
from simulators.deployment.specs import FleetSpec
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, OutcomeTable
from simulators.scenario import parse_scenario
from simulators.seeds import spawn_rng
from toolkit.deployment.choices import FreeChoices, JointChoices
from toolkit.deployment.database import OfflineDatabase
from toolkit.deployment.database import make_database as make_offline
from toolkit.deployment.family import DeploymentFamily
from toolkit.deployment.needs import CandidateRecipe
from toolkit.deployment.offline import OfflineRecipe
from toolkit.deployment.problem import DeploymentProblem, FleetEstimator
from toolkit.deployment.requests import Requests, check_tokens, draw_requests
from toolkit.evaluation.constraints import Constraint
from toolkit.evaluation.metrics import Metric
from toolkit.evaluation.slices import Coverage
from toolkit.pareto.axes import Axes, make_axes
from toolkit.policies.lanes import Lanes
from toolkit.problem import RoutingProblem
from toolkit.scorers.base import ScoreTable

if TYPE_CHECKING:
    from experiments.settings import TuneSettings

OFFLINE = "offline.npz"
WARMUP = 0.25
"""Traffic simulated before the counted horizon, as a share of it."""


@dataclass(frozen=True, kw_only=True)
class Offline:
    """Where the offline phase keeps its tables, and whom it tells.

    Attributes:
        stored: A file, so that a resumed run need not make them again; or None.
        on_progress: Called with (done, total).
    """

    stored: Path | None = None
    on_progress: Callable[[int, int | None], None] = lambda done, total: None


@dataclass(frozen=True, kw_only=True)
class Posed:
    """What a problem on the tune split is made of.

    Attributes:
        table: The tune split.
        scores: Its out-of-fold scores.
        lanes: Fallbacks.
        objectives, constraints: What is searched.
        coverage: The covered groups.
    """

    table: OutcomeTable
    scores: ScoreTable
    lanes: Lanes
    objectives: tuple[Metric, ...]
    constraints: tuple[Constraint, ...]
    coverage: Coverage


def is_deployment(settings: TuneSettings) -> bool:
    """Whether GPUs are searched together with the thresholds."""
    return settings.space.kind == "deployment"


def fleet_of(settings: TuneSettings, tiers: tuple[str, ...]) -> FleetSpec:
    """The fleet of the scenario group, with the changes that `space` asks for.

    Raises:
        ConfigError: If there is none, or its models are not the data's tiers.
    """
    space = settings.space
    assert isinstance(space, DeploymentSpaceSettings)
    scenario = None if settings.scenario is None else parse_scenario(settings.scenario)
    if scenario is None or scenario.fleet is None:
        name = "no scenario" if scenario is None else f"scenario {scenario.name}"
        raise ConfigError(f"space=deployment needs a scenario with a fleet, such as self_hosted; got {name}")
    fleet = scenario.fleet
    missing = sorted(set(tiers) - set(fleet.models))
    if missing:
        raise ConfigError(f"scenario.fleet.models has no model for the tiers {missing}; it has {list(fleet.models)}")
    unknown = sorted(set(space.gpu_types or []) - set(fleet.gpus))
    if unknown:
        raise ConfigError(f"space.gpu_types={unknown} are no GPU types of the fleet; it has {list(fleet.gpus)}")
    gpus = {name: gpu for name, gpu in fleet.gpus.items() if space.gpu_types is None or name in space.gpu_types}
    return fleet.model_copy(
        update={
            "gpus": gpus,
            "models": {tier: fleet.models[tier] for tier in tiers},
            "rate_per_s": space.rate_per_s or fleet.rate_per_s,
            "budget_usd_per_hour": space.budget_usd_per_hour or fleet.budget_usd_per_hour,
        }
    )


def make_deployment_problem(settings: TuneSettings, posed: Posed, offline: Offline | None) -> DeploymentProblem:
    """The offline phase, and the problem on it.

    Raises:
        ConfigError: If an option does not fit a fleet.
    """
    space, table = settings.space, posed.table
    assert isinstance(space, DeploymentSpaceSettings)
    if settings.policy.kind != "thresholds":
        raise ConfigError("space=deployment searches thresholds; use policy=thresholds")
    if settings.world.kind not in {"none", "auto"}:
        raise ConfigError("space=deployment simulates the fleet itself; use world=none")
    if settings.controller.kind == "ppo_lagrangian":
        raise ConfigError("controller=ppo_lagrangian learns in traffic; use space=policy, not deployment")
    check_tokens(table)
    fleet = fleet_of(settings, table.tiers)
    database = make_database(settings, fleet, table, offline or Offline())
    family = DeploymentFamily(
        posed.scores,
        posed.lanes,
        table.tiers,
        make_choices(space, database),
        raw_thresholds=space.thresholds == "raw",
    )
    return DeploymentProblem(
        table=table,
        family=family,
        objectives=posed.objectives,
        constraints=(*posed.constraints, *budget_constraint(space, fleet)),
        coverage=posed.coverage,
        database=database,
        requests=requests_on(settings, fleet, table, "tune"),
        evaluate=space.evaluate,
        approximate=space.approximate,
        system_latency=space.system_latency,
        unfit=not space.exclude,
        load_features=space.load_features,
    )


def make_database(settings: TuneSettings, fleet: FleetSpec, table: OutcomeTable, offline: Offline) -> OfflineDatabase:
    """The offline tables: those of an interrupted run where it left some for the same fleet, else new ones."""
    space = settings.space
    assert isinstance(space, DeploymentSpaceSettings)
    chosen, stored = space.offline, offline.stored
    recipe = OfflineRecipe(load_grid=chosen.load_grid, requests=chosen.requests, warmup=WARMUP)
    candidates = CandidateRecipe(
        method=chosen.candidates, caps=chosen.caps, most=chosen.most, load_split=chosen.load_split
    )
    source = f"{table.data_hash} seed {settings.seed}"
    if stored is not None and stored.is_file():
        found = OfflineDatabase.load(stored)
        if (found.fleet, found.recipe, found.candidate_recipe, found.source) == (fleet, recipe, candidates, source):
            return found
    lengths = [(table.input_tokens[:, m], table.output_tokens[:, m]) for m in range(table.n_tiers)]
    made = make_offline(
        fleet,
        lengths,
        recipe=recipe,
        candidates=candidates,
        seed=settings.seed,
        source=source,
        on_progress=offline.on_progress,
    )
    if stored is not None:
        write_atomically(stored, made.save)
    return made


def make_choices(space: DeploymentSpaceSettings, database: OfflineDatabase) -> JointChoices | FreeChoices:
    """What fits, or everything."""
    prices = tuple(tier.usd_per_hour for tier in database.tiers)
    empty = tuple(int(np.flatnonzero(tier.gpus.sum(axis=1) == 0)[0]) for tier in database.tiers)
    if not space.exclude:
        return FreeChoices(prices, empty)
    return JointChoices(database.joint_choices(), prices, empty)


def budget_constraint(space: DeploymentSpaceSettings, fleet: FleetSpec) -> tuple[Constraint, ...]:
    """The budget as a constraint like others, where the space does not keep it."""
    if space.exclude:
        return ()
    return (Constraint(name="fleet_budget", metric=Metric("fleet_cost"), limit=fleet.budget_usd_per_hour),)


def requests_on(settings: TuneSettings, fleet: FleetSpec, table: OutcomeTable, part: str) -> Requests:
    """Traffic that asks the queries of one split."""
    rng = spawn_rng(settings.seed, "fleet", part)
    return draw_requests(table, rate_per_s=fleet.rate_per_s, horizon_s=fleet.horizon_s, warmup=WARMUP, rng=rng)


def fleet_axes(settings: TuneSettings, problem: RoutingProblem) -> Axes:
    """Axes from the single tiers, each on every deployment of it within the budget.

    A tier alone stands for its best deployment by the tables; a slice's latency is simulated. Latency spans from the
    fastest tier alone to twice the slowest: routing between tiers can be slower than either of them.
    """
    assert isinstance(problem, DeploymentProblem)
    rows = [single_tier_params(problem, k) for k in range(problem.table.n_tiers)]
    sliced = () if problem.looked_up else tuple(m for m in problem.objectives if m.needs_latency and m.slice_name)
    plain = tuple(m for m in problem.objectives if m not in sliced)
    columns = FleetEstimator(problem, np.stack(rows), looked_up=True).values(plain)
    columns |= FleetEstimator(problem, np.stack(rows), looked_up=False).values(sliced)
    for metric in problem.objectives:
        if metric.needs_latency and not metric.maximise:
            columns[metric.column] = np.append(columns[metric.column], 2.0 * columns[metric.column].max())
    return make_axes(problem.objectives, columns, margin=settings.axes.margin, bounds=settings.axes.bounds)


def single_tier_params(problem: DeploymentProblem, k: int) -> FloatArray:
    """`p` parameters of all traffic on tier k, on the affordable deployment whose p95 is lowest by the tables."""
    database, family = problem.database, problem.deployments
    empty = [int(np.flatnonzero(tier.gpus.sum(axis=1) == 0)[0]) for tier in database.tiers]
    fits = np.flatnonzero(database.tiers[k].usd_per_hour <= database.fleet.budget_usd_per_hour)
    choice = np.tile(empty, (len(fits), 1))
    choice[:, k] = fits
    thresholds = family.routing.corners()[k]
    params = family.assemble(np.tile(thresholds, (len(fits), 1)), choice)
    p95_s = FleetEstimator(problem, params, looked_up=True).value(Metric("latency_p95"))
    return np.asarray(params[int(np.argmin(p95_s))])
