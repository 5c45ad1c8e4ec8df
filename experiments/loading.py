"""From settings to objects: tables, scorers, policies, controllers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.settings import (
    ColumnScorerSettings,
    ExactSettings,
    LiteLLMScorerSettings,
    PolicySettings,
    RecordedData,
    ScenarioData,
    TextScorerSettings,
    TuneSettings,
)
from simulators.errors import ConfigError
from simulators.outcomes import OutcomeTable
from simulators.seeds import spawn_rng
from toolkit.pareto.axes import Axes
from toolkit.policies.lanes import Lanes
from toolkit.problem import Problem, RoutingProblem
from toolkit.scorers.base import Scorer
from toolkit.search.base import Controller


@dataclass(frozen=True, kw_only=True)
class LoadedData:
    """A table and what a user should know about how it came about."""

    table: OutcomeTable
    n_dropped: int
    notes: tuple[str, ...]


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
    return [] if isinstance(data, ScenarioData) else [data.queries, data.outcomes, data.prices]


def load_data(
    data: ScenarioData | RecordedData,
    scenario: dict[str, object] | None,
    seed: int,
    tiers: list[str] | None = None,
) -> LoadedData:
    """The outcome table that the settings describe.

    Args:
        data: Where from.
        scenario: The scenario group, for `data=scenario`.
        seed: Seed of a scenario's draw, unless the settings give one.
        tiers: Tiers of an existing policy, in its order, or None to follow the settings.
    """
    if isinstance(data, ScenarioData):
        return _draw(data, scenario, seed if data.seed is None else data.seed, tiers)
    from simulators.recorded import read_price_card, read_recording

    queries = Path(required(data.queries, "data.queries"))
    outcomes = Path(required(data.outcomes, "data.outcomes"))
    chosen = tiers if tiers is not None else None if data.tiers == "auto" else list(data.tiers)
    prices = None if data.prices is None else read_price_card(Path(data.prices))
    recording = read_recording(queries, outcomes, chosen, prices=prices, keep_order=tiers is not None)
    return LoadedData(table=recording.table, n_dropped=recording.n_dropped, notes=recording.notes)


def _draw(data: ScenarioData, scenario: dict[str, object] | None, seed: int, tiers: list[str] | None) -> LoadedData:
    from simulators.scenario import parse_scenario, sample_scenario

    if scenario is None:
        raise ConfigError("data=scenario needs scenario=NAME, such as scenario=hybrid_api")
    spec = parse_scenario(scenario)
    table = sample_scenario(spec, n_queries=data.n_queries, rng=spawn_rng(seed, "scenario"))
    if tiers is not None and list(table.tiers) != tiers:
        raise ConfigError(f"the policy routes to {tiers}, but scenario {spec.name} has the tiers {list(table.tiers)}")
    return LoadedData(table=table, n_dropped=0, notes=())


def make_scorer(settings: TuneSettings) -> Scorer:
    """The scorer recipe; wrapped so that it predicts quality and cost where the policy needs them."""
    scorer = _base_scorer(settings)
    if settings.policy.kind == "utility" and not isinstance(settings.scorer, TextScorerSettings):
        from toolkit.scorers.binned import BinnedScorer

        return BinnedScorer(base=scorer)
    return scorer


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
    from toolkit.scorers.signals import SignalScorer

    if isinstance(chosen, ColumnScorerSettings):
        column = required(chosen.column, "scorer.column")
        return SignalScorer(column=column, confidence_column=chosen.confidence_column)
    if not isinstance(settings.data, ScenarioData):
        raise ConfigError("scorer=scenario needs data=scenario; for recorded data use scorer=text, litellm or column")
    return SignalScorer(column="difficulty_score", confidence_column="confidence", kind="scenario")


def make_lanes(policy: PolicySettings, tiers: tuple[str, ...]) -> Lanes:
    """Lanes with tier names resolved."""
    return Lanes(
        fallback_tier=_tier(policy.fallback_tier, "policy.fallback_tier", tiers, len(tiers) // 2),
        low_confidence_tier=_tier(policy.low_confidence_tier, "policy.low_confidence_tier", tiers, len(tiers) - 1),
        confidence_floor=policy.confidence_floor,
    )


def _tier(name: str | None, option: str, tiers: tuple[str, ...], default: int) -> int:
    if name is None:
        return default
    if name not in tiers:
        raise ConfigError(f"{option}={name} is none of the tiers {list(tiers)}")
    return tiers.index(name)


def make_controller(settings: TuneSettings, problem: Problem, axes: Axes) -> Controller:
    """The controller of the settings."""
    chosen = settings.controller
    if isinstance(chosen, ExactSettings):
        from toolkit.search.exact import ExactController

        if not isinstance(problem, RoutingProblem):
            raise ConfigError("controller=exact enumerates policies on a table; use controller=mobo here")
        return ExactController(problem, boundaries=chosen.boundaries, max_evaluations=chosen.max_evaluations)
    from toolkit.search.registry import make_searcher

    options = chosen.model_dump(exclude={"kind"})
    return make_searcher(chosen.kind, problem, axes=axes, budget=settings.budget, seed=settings.seed, **options)
