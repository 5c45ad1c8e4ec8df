"""From settings to objects: tables, scorers, policies, controllers."""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.lane_settings import BothLanes, ConfidenceLane, HeadSettings
from experiments.proteus import Training, proteus_controller, with_policy
from experiments.rl_settings import PpoLagrangianSettings, ProteusSettings
from experiments.router import make_strategy_scorer
from experiments.router_settings import StrategyScorerSettings
from experiments.settings import (
    ColumnScorerSettings,
    ExactSettings,
    LiteLLMScorerSettings,
    RecordedData,
    ScenarioData,
    TextScorerSettings,
    TuneSettings,
)
from simulators.errors import ConfigError, MissingDependencyError
from simulators.outcomes import FloatArray, OutcomeTable
from simulators.seeds import spawn_rng
from toolkit.deployment.problem import DeploymentProblem
from toolkit.pareto.axes import Axes
from toolkit.policies.lanes import Lanes
from toolkit.problem import Problem, RoutingProblem
from toolkit.scorers.base import Scorer, ScoreTable
from toolkit.search.base import Controller


@dataclass(frozen=True, kw_only=True)
class LoadedData:
    """A table and what a user should know about how it came about.

    Attributes:
        table: The outcomes.
        n_dropped: Queries left out.
        notes: Sentences.
        repeat: `N x K` quality of a second answer, NaN where a query has none; None without `data.repeats`.
    """

    table: OutcomeTable
    n_dropped: int
    notes: tuple[str, ...]
    repeat: FloatArray | None = None


def required(value: str | None, option: str) -> str:
    """The value of an option that must be set.

    Raises:
        ConfigError: If it is not.
    """
    if not value:
        raise ConfigError(f"{option} is not set; give {option}=...")
    return value


def data_files(data: ScenarioData | RecordedData) -> list[str | None]:
    """The files that the settings read."""
    return [] if isinstance(data, ScenarioData) else [data.queries, data.outcomes, data.prices, data.repeats]


def load_data(
    data: ScenarioData | RecordedData,
    scenario: dict[str, object] | None,
    seed: int,
    tiers: list[str] | None = None,
    *,
    with_repeats: bool = False,
) -> LoadedData:
    """The outcome table that the settings describe.

    Args:
        data: Where from.
        scenario: The scenario group, for `data=scenario`.
        seed: Seed of a scenario's draw, unless the settings give one.
        tiers: Tiers of an existing policy, in its order, or None to follow the settings.
        with_repeats: Whether the command reads second answers.

    Raises:
        ConfigError: If second answers are given to a command that does not read them.
    """
    if isinstance(data, ScenarioData):
        return _draw(data, scenario, seed if data.seed is None else data.seed, tiers)
    from simulators.recorded import read_price_card, read_recording

    queries = Path(required(data.queries, "data.queries"))
    outcomes = Path(required(data.outcomes, "data.outcomes"))
    chosen = tiers if tiers is not None else None if data.tiers == "auto" else list(data.tiers)
    prices = None if data.prices is None else read_price_card(Path(data.prices))
    recording = read_recording(queries, outcomes, chosen, prices=prices, keep_order=tiers is not None)
    if data.repeats is not None and not with_repeats:
        raise ConfigError("data.repeats measures label noise in a tuning run; unset it for this command")
    repeat = None if data.repeats is None else _second_answers(queries, Path(data.repeats), recording.table)
    return LoadedData(table=recording.table, n_dropped=recording.n_dropped, notes=recording.notes, repeat=repeat)


def _second_answers(queries: Path, path: Path, table: OutcomeTable) -> FloatArray:
    """`N x K` quality of the answers in a second outcomes file; NaN for a query without one of every tier."""
    from simulators.recorded import read_recording

    second = read_recording(queries, path, list(table.tiers), keep_order=True).table
    row_of = {name: row for row, name in enumerate(second.queries.query_id.tolist())}
    at = np.array([row_of.get(name, -1) for name in table.queries.query_id.tolist()], dtype=np.int64)
    return np.where(at[:, None] >= 0, second.quality[at], np.nan)


def _draw(data: ScenarioData, scenario: dict[str, object] | None, seed: int, tiers: list[str] | None) -> LoadedData:
    from simulators.scenario import parse_scenario, sample_scenario

    if scenario is None:
        raise ConfigError("data=scenario needs scenario=NAME, such as scenario=hybrid_api")
    spec = parse_scenario(scenario)
    table = sample_scenario(spec, n_queries=data.n_queries, rng=spawn_rng(seed, "scenario"))
    if tiers is not None and list(table.tiers) != tiers:
        raise ConfigError(f"the policy routes to {tiers}, but scenario {spec.name} has the tiers {list(table.tiers)}")
    return LoadedData(table=table, n_dropped=0, notes=())


def make_scorer(settings: TuneSettings, table: OutcomeTable, training: Training | None = None) -> Scorer:
    """The scorer recipe; wrapped where the policy needs predictions or training, or a lane an eligibility head.

    Args:
        settings: The settings.
        table: The tune split.
        training: Where a training keeps its state, and whom it tells; or None.
    """
    scorer = _calibrated(settings, _base_scorer(settings))
    if settings.policy.kind in {"utility", "target"}:
        scorer = with_predictions(settings, scorer)
    if settings.policy.kind == "target":
        scorer = with_policy(settings, scorer, table, training)
    lane = settings.lane
    if not isinstance(lane, HeadSettings):
        return scorer
    from toolkit.scorers.eligibility import EligibilityScorer

    seed = int(spawn_rng(settings.seed, "eligibility").integers(2**31))
    return EligibilityScorer(base=scorer, tier=lane.tier, against=lane.against, margin=lane.margin, seed=seed)


def quality_head(settings: TuneSettings) -> Scorer:
    """The scorer that predicts quality and cost per tier, without lanes."""
    return with_predictions(settings, _calibrated(settings, _base_scorer(settings)))


def with_predictions(settings: TuneSettings, scorer: Scorer) -> Scorer:
    """The scorer with predicted quality and cost per tier: its own, or means over bins of its score."""
    if isinstance(settings.scorer, TextScorerSettings):
        return scorer
    from toolkit.scorers.binned import BinnedScorer

    return BinnedScorer(base=scorer)


def _calibrated(settings: TuneSettings, scorer: Scorer) -> Scorer:
    """The scorer with a confidence from its calibrated score, where one is asked for."""
    if settings.calibration == "none":
        return scorer
    if settings.space.kind == "litellm":
        raise ConfigError(
            "space=litellm changes LiteLLM's score with every candidate, so there is no one score to calibrate; "
            "use calibration=none, or space=policy"
        )
    if isinstance(settings.scorer, ColumnScorerSettings) and settings.scorer.confidence_column is not None:
        raise ConfigError("scorer.confidence_column and calibration both state a confidence; unset one of them")
    from toolkit.scorers.calibrated import CalibratedScorer

    return CalibratedScorer(
        base=scorer,
        method=settings.calibration,
        margin=settings.gain_margin,
        folds=settings.folds,
        seed=settings.seed,
        replace=True,
    )


def _base_scorer(settings: TuneSettings) -> Scorer:
    chosen = settings.scorer
    if isinstance(chosen, TextScorerSettings):
        from toolkit.scorers.text import TextScorer

        return TextScorer(
            ridge_alpha=chosen.ridge_alpha,
            neighbours=chosen.neighbours,
            neighbour_weight=chosen.neighbour_weight,
            seed=int(spawn_rng(settings.seed, "features").integers(2**31)),
        )
    if isinstance(chosen, LiteLLMScorerSettings):
        from toolkit.scorers.litellm import LiteLLMScorer

        return LiteLLMScorer()
    if isinstance(chosen, StrategyScorerSettings):
        return make_strategy_scorer(settings, chosen)
    from toolkit.scorers.signals import SignalScorer

    if isinstance(chosen, ColumnScorerSettings):
        column = required(chosen.column, "scorer.column")
        return SignalScorer(column=column, confidence_column=chosen.confidence_column)
    if not isinstance(settings.data, ScenarioData):
        raise ConfigError("scorer=scenario needs data=scenario; for recorded data use scorer=text, litellm or column")
    return SignalScorer(column="difficulty_score", confidence_column="confidence", kind="scenario")


def make_lanes(settings: TuneSettings, tiers: tuple[str, ...]) -> Lanes:
    """Lanes with tier names resolved; `policy.confidence_floor` goes before the lane's own."""
    policy, lane = settings.policy, settings.lane
    floor = lane.confidence_floor if isinstance(lane, ConfidenceLane | BothLanes) else None
    head = lane if isinstance(lane, HeadSettings) else None
    return Lanes(
        fallback_tier=_tier(policy.fallback_tier, "policy.fallback_tier", tiers, len(tiers) // 2),
        low_confidence_tier=_tier(policy.low_confidence_tier, "policy.low_confidence_tier", tiers, len(tiers) - 1),
        confidence_floor=floor if policy.confidence_floor is None else policy.confidence_floor,
        eligible_tier=None if head is None else _tier(head.tier, "lane.tier", tiers, len(tiers) - 1),
        eligibility_threshold=None if head is None else head.threshold,
    )


def with_recall(settings: TuneSettings, lanes: Lanes, scores: ScoreTable, table: OutcomeTable) -> Lanes:
    """The lanes with the eligibility threshold that reaches `lane.recall`, where one is asked for.

    Args:
        settings: The settings.
        lanes: Lanes with `lane.threshold`.
        scores: Out-of-fold scores of the tune split.
        table: The tune split.

    Raises:
        ConfigError: If the recall has no meaning or cannot be reached.
    """
    lane = settings.lane
    if not isinstance(lane, HeadSettings) or lane.recall is None:
        return lanes
    from toolkit.scorers.eligibility import make_target, threshold_for_recall

    assert scores.eligibility is not None
    worthwhile = make_target(table, lane.tier, lane.against, lane.margin).worthwhile(table)
    eligibility = np.where(lanes.failed(scores), np.nan, scores.eligibility)
    threshold = threshold_for_recall(eligibility, worthwhile, lane.recall)
    return dataclasses.replace(lanes, eligibility_threshold=threshold)


def _tier(name: str | None, option: str, tiers: tuple[str, ...], default: int) -> int:
    if name is None:
        return default
    if name not in tiers:
        raise ConfigError(f"{option}={name} is none of the tiers {list(tiers)}")
    return tiers.index(name)


def make_controller(
    settings: TuneSettings, problem: Problem, axes: Axes, training: Training | None = None
) -> Controller:
    """The controller of the settings; one that learns leaves its state in `training`."""
    chosen = settings.controller
    if isinstance(chosen, ExactSettings):
        from toolkit.search.exact import ExactController

        if not isinstance(problem, RoutingProblem):
            raise ConfigError("controller=exact enumerates policies on a table; use controller=mobo here")
        if isinstance(problem, DeploymentProblem):
            from toolkit.search.exact_deployment import DeploymentExactController

            return DeploymentExactController(problem, boundaries=chosen.boundaries)
        return ExactController(problem, boundaries=chosen.boundaries, max_evaluations=chosen.max_evaluations)
    if isinstance(chosen, ProteusSettings | PpoLagrangianSettings):
        if not isinstance(problem, RoutingProblem):
            raise ConfigError(f"controller={chosen.kind} learns on a table; use controller=mobo here")
        if isinstance(chosen, ProteusSettings):
            return proteus_controller(settings, problem)
        return _window_controller(settings, problem, training)
    from toolkit.search.registry import make_searcher

    options = chosen.model_dump(exclude={"kind"})
    return make_searcher(chosen.kind, problem, axes=axes, budget=settings.budget, seed=settings.seed, **options)


def _window_controller(settings: TuneSettings, problem: RoutingProblem, training: Training | None) -> Controller:
    if importlib.util.find_spec("gymnasium") is None:
        raise MissingDependencyError(
            "controller=ppo_lagrangian needs gymnasium and torch: pip install 'routefront[rl]'"
        )
    from experiments.window_training import ppo_controller

    return ppo_controller(settings, problem, training)
