"""The router's own time and money, from the settings: what `prepare` puts into the table and `policy.json` keeps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.router_settings import StrategyScorerSettings
from experiments.settings import RecordedData, ScenarioData, TuneSettings
from simulators.errors import ConfigError
from simulators.outcomes import OutcomeTable
from toolkit.scorers.overhead import RouterOverhead
from toolkit.scorers.signals import SignalScorer
from toolkit.scorers.strategy import delay_signal, strategy_scorer

if TYPE_CHECKING:
    from simulators.scenario_spec import ScenarioSpec
    from simulators.strategies import StrategySpec


def overhead_of(settings: TuneSettings, tiers: tuple[str, ...]) -> RouterOverhead | None:
    """What deciding takes: as stated in `router`, for a router of the scenario else its own; None where neither is.

    Raises:
        ConfigError: If a token tax has no prices, or the scenario has no such router.
    """
    stated, chosen = settings.router, settings.scorer
    own = strategy_of(settings, chosen) if isinstance(chosen, StrategyScorerSettings) else None
    if own is None and not stated.stated:
        return None
    signal = delay_signal(chosen.strategy) if isinstance(chosen, StrategyScorerSettings) else None
    tax = _first(stated.token_tax, own.token_tax if own else 0.0)
    return RouterOverhead(
        delay_s=stated.delay_s,
        delay_signal=signal if stated.delay_s is None else None,
        usd_per_query=_first(stated.usd_per_query, own.usd_per_query if own else 0.0),
        token_tax=tax,
        input_usd_per_mtok=_input_prices(settings, tiers, tax) if tax > 0 else None,
        budgets_s=tuple(stated.budgets_s),
    )


def behind_router(overhead: RouterOverhead | None, table: OutcomeTable) -> OutcomeTable:
    """The table with the overhead in it."""
    return table if overhead is None else overhead.apply(table)


def budgets_of(overhead: RouterOverhead | None) -> tuple[float, ...]:
    """Delays that the router's p95 is held against in reports."""
    return () if overhead is None else overhead.budgets_s


def base_kind(description: Mapping[str, object]) -> str:
    """Kind of the scorer that the others wrap, from what a scorer describes of itself."""
    base = description.get("base")
    return base_kind(base) if isinstance(base, Mapping) else str(description.get("kind"))


def make_strategy_scorer(settings: TuneSettings, chosen: StrategyScorerSettings) -> SignalScorer:
    """The scorer of a router of the scenario.

    Raises:
        ConfigError: If the data is recorded, or the scenario has no such router.
    """
    return strategy_scorer(chosen.strategy, confidence=strategy_of(settings, chosen).confidence)


def strategy_of(settings: TuneSettings, chosen: StrategyScorerSettings) -> StrategySpec:
    """The router of the scenario that the scorer names.

    Raises:
        ConfigError: If the data is recorded, or the scenario has no such router.
    """
    name = chosen.strategy
    if not isinstance(settings.data, ScenarioData):
        raise ConfigError(
            f"this scorer is the router {name} of a scenario and needs data=scenario; for recorded data use "
            "scorer=text, litellm or column, and state what deciding takes as router.delay_s and router.usd_per_query"
        )
    spec = _scenario(settings)
    if name not in spec.routers:
        has = ", ".join(sorted(spec.routers)) or "none; add some with +routers@scenario.routers=s1"
        raise ConfigError(f"this scorer is the router {name} of a scenario, but {spec.name} has {has}")
    return spec.routers[name]


def _scenario(settings: TuneSettings) -> ScenarioSpec:
    from simulators.scenario import parse_scenario

    if settings.scenario is None:
        raise ConfigError("data=scenario needs scenario=NAME, such as scenario=hybrid_api")
    return parse_scenario(settings.scenario)


def _input_prices(settings: TuneSettings, tiers: tuple[str, ...], tax: float) -> dict[str, float]:
    """Tier -> USD per million input tokens, of every tier."""
    data = settings.data
    known = _recorded_prices(data, tax) if isinstance(data, RecordedData) else _scenario_prices(settings)
    missing = [tier for tier in tiers if tier not in known]
    if missing:
        raise ConfigError(f"router.token_tax={tax:g} needs the input price of every tier; there is none of {missing}")
    return {tier: known[tier] for tier in tiers}


def _recorded_prices(data: RecordedData, tax: float) -> dict[str, float]:
    from simulators.recorded import read_price_card

    if data.prices is None:
        raise ConfigError(
            f"router.token_tax={tax:g} is billed at the tiers' input prices, which this data does not have; give "
            "data.prices=FILE, or state the money as router.usd_per_query"
        )
    return read_price_card(Path(data.prices)).input_usd_per_mtok


def _scenario_prices(settings: TuneSettings) -> dict[str, float]:
    from simulators.tiers import arms

    return {name: tier.input_usd_per_mtok for name, tier in arms(_scenario(settings).tiers).items()}


def _first(stated: float | None, own: float) -> float:
    return own if stated is None else stated
