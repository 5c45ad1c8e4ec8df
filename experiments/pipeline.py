"""The steps that `tune` and `study` share: split, score, search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.fleet import Offline, Posed, fleet_axes, is_deployment, make_deployment_problem
from experiments.lane_settings import BothLanes, ConfidenceLane, HeadSettings
from experiments.loading import make_lanes, make_scorer, with_recall
from experiments.proteus import Training, check_proteus
from experiments.router import behind_router, overhead_of
from experiments.settings import ConfidenceSpace, EligibilitySpace, LiteLLMSpace, PolicySpace, SliceSpace, TuneSettings
from experiments.under_load import capacity_usd, world_on
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable, split_by_prompt
from simulators.seeds import spawn_rng
from simulators.world import World
from toolkit.certify.labels import LabelPlan, plan_labels, widest_differences
from toolkit.dimensions import Dimension
from toolkit.evaluation.constraints import Constraint
from toolkit.evaluation.contention import charged, with_capacity
from toolkit.evaluation.estimators import AssignmentEstimator
from toolkit.evaluation.metrics import ROUTER_DELAYS, Metric, parse_metric
from toolkit.evaluation.slices import coverage
from toolkit.families.base import Deployment, Family
from toolkit.families.eligibility import EligibilityFamily
from toolkit.families.make import policy_family
from toolkit.families.thresholds import ConfidenceFamily, SliceThresholdFamily
from toolkit.pareto.axes import Axes, make_axes
from toolkit.policies.lanes import Lanes
from toolkit.problem import RoutingProblem
from toolkit.scorers.base import FittedScorer, ScoreTable, cross_fit
from toolkit.scorers.overhead import RouterOverhead


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything a search needs, and what is kept for validation.

    Attributes:
        rows: Split name -> rows of the full table.
        tune: The tune split.
        validate: The validation split, unseen by scorer and search (the axes' scale aside).
        scorer: Fitted on the tune split.
        validate_scores: Scores of the validation split.
        lanes: Fallbacks.
        problem: The problem on the tune split, with out-of-fold scores.
        validate_family: The problem's family on the validation split.
        validate_world: Contention on the validation split, or None.
        axes: Axes and reference point, from the single tiers on all data.
        router: The time and money of the router that is in both splits, or None.
    """

    rows: dict[str, IntArray]
    tune: OutcomeTable
    validate: OutcomeTable
    scorer: FittedScorer
    validate_scores: ScoreTable
    lanes: Lanes
    problem: RoutingProblem
    validate_family: Family
    validate_world: World | None
    axes: Axes
    router: RouterOverhead | None = None

    def decide(self, params: FloatArray) -> IntArray:
        """`N` tiers of the validation split under one candidate (`params: p`)."""
        return np.asarray(self.validate_family.assign(params[None, :])[0], dtype=np.int64)


def prepare(
    settings: TuneSettings,
    table: OutcomeTable,
    constraints: tuple[Constraint, ...],
    training: Training | None = None,
    offline: Offline | None = None,
) -> Prepared:
    """Put the router's time and money into the table, split it, fit the scorer on tune and pose the problem.

    Raises:
        ConfigError: If the splits overlap or an option does not fit the data.
    """
    check_proteus(settings)
    shares = {"tune": settings.split.tune, "validate": settings.split.validate_}
    if sum(shares.values()) > 1 + 1e-9:
        raise ConfigError(f"split.tune + split.validate must not exceed 1; got {sum(shares.values()):g}")
    router = overhead_of(settings, table.tiers)
    table = behind_router(router, table)
    rows = split_by_prompt(table, shares, spawn_rng(settings.seed, "split"))
    tune, validate = table.take(rows["tune"]), table.take(rows["validate"])
    worlds = [
        world_on(settings.world, part, spawn_rng(settings.seed, "arrivals", name))
        for name, part in (("tune", tune), ("validate", validate))
    ]
    tune, validate = with_capacity(tune, worlds[0]), with_capacity(validate, worlds[1])
    objectives = tuple(parse_metric(name) for name in settings.objectives)
    _check_objectives(objectives)
    recipe = make_scorer(settings, tune, training)
    lanes = make_lanes(settings, table.tiers)
    _check_lane(settings)
    scores = cross_fit(recipe, tune, folds=settings.folds, rng=spawn_rng(settings.seed, "folds"))
    if not np.isfinite(scores.score).any():
        raise ConfigError("the scorer gave no usable score for any query of the tune split; use another scorer")
    lanes = with_recall(settings, lanes, scores, tune)
    posed = Posed(
        table=tune,
        scores=scores,
        lanes=lanes,
        objectives=objectives,
        constraints=constraints,
        coverage=coverage(tune, settings.slices.minimum),
    )
    problem = pose(settings, posed, worlds[0], offline)
    scorer = recipe.fit(tune)
    validate_scores = scorer.predict(validate.queries)
    return Prepared(
        rows=rows,
        tune=tune,
        validate=validate,
        scorer=scorer,
        validate_scores=validate_scores,
        lanes=lanes,
        problem=problem,
        validate_family=problem.family.transfer(validate_scores, validate.queries),
        validate_world=worlds[1],
        axes=fleet_axes(settings, problem) if is_deployment(settings) else axes_of(settings, table, objectives),
        router=router,
    )


def pose(settings: TuneSettings, posed: Posed, world: World | None, offline: Offline | None) -> RoutingProblem:
    """The problem of the `space` group on the tune split."""
    if is_deployment(settings):
        return make_deployment_problem(settings, posed, offline)
    return RoutingProblem(
        table=posed.table,
        family=make_family(settings, posed.scores, posed.table, posed.lanes),
        objectives=posed.objectives,
        constraints=posed.constraints,
        coverage=posed.coverage,
        world=world,
    )


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """The policy that one candidate stands for, ready to run.

    Attributes:
        deployment: Its parameters and lanes.
        scorer: The fitted scorer, with the settings that the search found.
        validate_scores: Scores of the validation split by that scorer.
    """

    deployment: Deployment
    scorer: FittedScorer
    validate_scores: ScoreTable


def deploy(prepared: Prepared, params: FloatArray) -> Deployed:
    """The policy of one candidate (`params: p`)."""
    found = prepared.problem.family.deploy(params)
    if not found.scorer:
        return Deployed(deployment=found, scorer=prepared.scorer, validate_scores=prepared.validate_scores)
    from toolkit.scorers.litellm import LiteLLMScorer, LiteLLMSettings

    assert isinstance(prepared.scorer, LiteLLMScorer)
    scorer = LiteLLMScorer(version=prepared.scorer.version, settings=LiteLLMSettings.model_validate(found.scorer))
    return Deployed(deployment=found, scorer=scorer, validate_scores=scorer.predict(prepared.validate.queries))


def labels_before_search(settings: TuneSettings, prepared: Prepared) -> LabelPlan | None:
    """Labels that a certificate against the best single tier takes, whatever the search finds."""
    tune, cover = prepared.tune, prepared.problem.coverage
    if not cover.groups:
        return None
    best = np.full(tune.n_queries, int(np.argmax(tune.quality.mean(axis=0))))
    differences, _ = widest_differences(tune, best, cover)
    return plan_labels(differences, tune.n_queries, margin=settings.margin, alpha=settings.alpha, power=settings.power)


def axes_of(settings: TuneSettings, table: OutcomeTable, objectives: tuple[Metric, ...]) -> Axes:
    """Axes from the single tiers on the whole table, so that runs on the same data share them whatever their split.

    Contention and the router are left out: the range is that of the tiers themselves, with their part of the capacity's
    fixed price.
    """
    table = charged(table, capacity_usd(settings.world))
    cover = coverage(table, settings.slices.minimum)
    single = np.repeat(np.arange(table.n_tiers, dtype=np.int8)[:, None], table.n_queries, axis=1)
    values = AssignmentEstimator(table.bare, cover, single).values(objectives)
    return make_axes(objectives, values, margin=settings.axes.margin, bounds=settings.axes.bounds)


def _check_objectives(objectives: tuple[Metric, ...]) -> None:
    """Refuse what no policy changes.

    Raises:
        ConfigError: If the router's delay is an objective.
    """
    fixed = [m.column for m in objectives if m.base in ROUTER_DELAYS]
    if fixed:
        raise ConfigError(
            f"objectives: {fixed[0]} is the same for every policy behind a router; bound it with "
            "constraints.router_budget_s"
        )


def _check_lane(settings: TuneSettings) -> None:
    """Refuse what a space would ignore or replace.

    Raises:
        ConfigError: If space and lane do not fit.
    """
    lane, space = settings.lane, settings.space
    if isinstance(space, ConfidenceSpace) and isinstance(lane, ConfidenceLane | BothLanes):
        raise ConfigError(f"space=confidence searches the floor that lane={lane.kind} sets; use another lane")
    if isinstance(space, EligibilitySpace):
        if not isinstance(lane, HeadSettings):
            raise ConfigError("space=eligibility searches the threshold of a lane; use lane=eligibility or lane=both")
        if lane.recall is not None:
            raise ConfigError("space=eligibility searches the threshold that lane.recall would set; unset lane.recall")
    if space.kind == "litellm" and isinstance(lane, HeadSettings):
        raise ConfigError(
            f"space=litellm replaces the scorer with every candidate, and lane={lane.kind} needs its head on one "
            "scorer; use lane=none, or space=policy"
        )


def make_family(settings: TuneSettings, scores: ScoreTable, table: OutcomeTable, lanes: Lanes) -> Family:
    """The family that the `space` group names, on one table.

    Raises:
        ConfigError: If space and policy do not fit.
    """
    space, k = settings.space, table.n_tiers
    if isinstance(space, PolicySpace):
        return policy_family(settings.policy.kind, scores, lanes, k, offset_range=settings.policy.offset_range)
    if settings.policy.kind != "thresholds":
        raise ConfigError(f"space={space.kind} searches thresholds; use policy=thresholds, or space=policy")
    if isinstance(space, ConfidenceSpace):
        if settings.policy.confidence_floor is not None or settings.policy.low_confidence_tier is not None:
            raise ConfigError(
                "space=confidence searches the floor and its tier; unset policy.confidence_floor and "
                "policy.low_confidence_tier, or bound the floor with space.confidence_floor=[LOW, HIGH]"
            )
        return ConfidenceFamily(scores, lanes, table.tiers, space.confidence_floor)
    if isinstance(space, EligibilitySpace):
        return EligibilityFamily(scores, lanes, k, space.eligibility_threshold)
    if isinstance(space, SliceSpace):
        return SliceThresholdFamily(scores, table.queries, lanes, k, tuple(space.slices))
    assert isinstance(space, LiteLLMSpace)
    if settings.scorer.kind != "litellm":
        raise ConfigError("space=litellm re-weights LiteLLM's score; use scorer=litellm")
    from toolkit.families.litellm import LiteLLMFamily
    from toolkit.scorers.litellm_signals import raw_signals

    dimensions = tuple(Dimension(name=name, **d.model_dump()) for name, d in space.parameters.items())
    return LiteLLMFamily(scores, raw_signals(table.queries), lanes, k, dimensions)
