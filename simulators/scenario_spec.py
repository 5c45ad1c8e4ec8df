"""A scenario as its YAML states it; `docs/scenarios.md` explains every field, `simulators/scenario.py` the formulas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field, field_validator, model_validator

from simulators.conduct import filled_in, station_of, traffic_problems
from simulators.deployment.specs import FleetSpec
from simulators.lengths import LengthSpec
from simulators.spec import Name, Spec
from simulators.strategies import StrategySpec, signal_names
from simulators.tiers import LogSd, Need, Problem, Share, TierSpec, arms, errors_at, names_of_arms
from simulators.traffic import SecondStage, StationSpec, TrafficSpec

OWN_SIGNALS = ("difficulty_score", "confidence")

_SHARE_TOLERANCE = 1e-5
_UNPRICED = (
    "an unpriced model is not free; expected a price above 0, or traffic whose station of this tier has a "
    "slot_usd_per_hour or gpu_usd_per_hour"
)

Factor = Annotated[float, Field(gt=0, le=1e6)]
Tokens = Annotated[float, Field(ge=1, le=1e6)]


class SliceSpec(Spec):
    """One kind of work: how often, how hard, how long.

    Attributes:
        share: Fraction of the queries.
        difficulty: Mean latent difficulty, logits.
        input_tokens_median, input_tokens_sigma: Lognormal input tokens: median, log sd.
        output_tokens_median, output_tokens_sigma: Lognormal visible output tokens at verbosity 1.
        input_length, output_length: Any law of `simulators/lengths.py` instead of the lognormal one.
        batch: Whether nobody waits for the answers.
        cached_share: Share of the input tokens that the provider has cached.
        needs: What an answer must also get right.
    """

    share: Annotated[float, Field(gt=0, le=1)]
    difficulty: float
    input_tokens_median: Tokens | None = None
    input_tokens_sigma: LogSd | None = None
    output_tokens_median: Tokens | None = None
    output_tokens_sigma: LogSd | None = None
    input_length: LengthSpec | None = None
    output_length: LengthSpec | None = None
    batch: bool = False
    cached_share: Share = 0.0
    needs: tuple[Need, ...] = ()

    @model_validator(mode="after")
    def _one_law_each(self) -> SliceSpec:
        problems: list[Problem] = []
        for side in ("input", "output"):
            median, sigma = f"{side}_tokens_median", f"{side}_tokens_sigma"
            given = [name for name in (median, sigma, f"{side}_length") if getattr(self, name) is not None]
            if given not in ([median, sigma], [f"{side}_length"]):
                expected = f"expected either {median} and {sigma}, or {side}_length"
                problems.append(((), expected, " and ".join(given) or "none of them"))
        if problems:
            raise errors_at(problems)
        return self


class NetworkSpec(Spec):
    """Clients behind a slow network (S2: it makes slow answers 2 to 3 times slower).

    Attributes:
        share: Of the queries.
        factor: Their whole response, over what it takes the tier; no slot is held for the difference.
    """

    share: Share
    factor: Annotated[float, Field(ge=1, le=1000)]


class ChangeSpec(Spec):
    """From some instant of the traffic on, tiers are different; changes add up.

    Attributes:
        at_s: When, after the start of the traffic.
        tiers: Names of tiers (all modes of a tier that has some) or of single modes; None: all.
        quality_shift: Logits on top of the capability.
        speed_factor: All times of the tier are divided by it.
        price_factor: All its token prices are multiplied by it.
    """

    at_s: Annotated[float, Field(gt=0)]
    tiers: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    quality_shift: float = 0.0
    speed_factor: Factor = 1.0
    price_factor: Factor = 1.0

    @model_validator(mode="after")
    def _changes_something(self) -> ChangeSpec:
        if (self.quality_shift, self.speed_factor, self.price_factor) == (0.0, 1.0, 1.0):
            raise errors_at([((), "expected a quality_shift, speed_factor or price_factor", "none of them")])
        return self


class ScenarioSpec(Spec):
    """A whole scenario; its YAML in `conf/scenario/` has these keys at the top level.

    Attributes:
        name: What query identifiers start with.
        difficulty_sd: Standard deviation of the difficulty within a slice, logits.
        quality_precision: $\\phi$ of the Beta judge score; larger is less noise.
        classifier_agreement: Share of queries that the scenario's own classifier puts on the right side of the median
            difficulty; 0.5 would be a coin, 1 an oracle, and neither is a classifier.
        tiers, slices: Tiers and S slices by name, in any order; the slices' shares sum to 1. K counts thinking modes.
        traffic: Arrivals, capacity and faults, or None.
        tune_under_load: Whether tuning and evaluation simulate the traffic unless told otherwise.
        network: Clients behind a slow network, or None.
        batch_delay_s: How long batch work waits at the provider; no part of the table's latencies.
        changes: What becomes different during the traffic.
        routers: Router strategies by name; each gives signals.
        fleet: GPUs, models and load of self-hosted tiers, whose deployment can then be searched, or None.
    """

    name: Name
    difficulty_sd: Annotated[float, Field(gt=0)]
    quality_precision: Annotated[float, Field(gt=0)]
    classifier_agreement: Annotated[float, Field(gt=0.5, lt=1)]
    tiers: Annotated[Mapping[Name, TierSpec], Field(min_length=1)]
    slices: Annotated[Mapping[Name, SliceSpec], Field(min_length=1)]
    tune_under_load: bool = False
    traffic: TrafficSpec | None = None
    network: NetworkSpec | None = None
    batch_delay_s: Annotated[float, Field(ge=0)] = 0.0
    changes: tuple[ChangeSpec, ...] = ()
    routers: Mapping[Name, StrategySpec] = {}
    fleet: FleetSpec | None = None

    @field_validator("tiers")
    @classmethod
    def _two_arms(cls, tiers: Mapping[str, TierSpec]) -> Mapping[str, TierSpec]:
        names = [arm for of_tier in names_of_arms(tiers).values() for arm in of_tier]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"expected every tier and thinking mode to have a name of its own; {twice[0]} comes twice")
        if len(names) < 2:
            raise ValueError("expected at least 2 tiers, thinking modes counted")
        return tiers

    @field_validator("slices")
    @classmethod
    def _shares_sum_to_one(cls, slices: Mapping[str, SliceSpec]) -> Mapping[str, SliceSpec]:
        total = sum(spec.share for spec in slices.values())
        if abs(total - 1.0) > _SHARE_TOLERANCE:
            raise ValueError(f"the shares of all slices should sum to 1, these sum to {total:.6g}")
        return slices

    @model_validator(mode="after")
    def _names_exist(self) -> ScenarioSpec:
        problems = [*_tier_problems(self), *_change_problems(self), *_fleet_problems(self), *_other_problems(self)]
        if self.traffic is not None:
            problems += traffic_problems(self.traffic, self.tiers)
        problems = problems or list(_price_problems(self))
        if problems:
            raise errors_at(_once(problems))
        return self

    @property
    def difficulty_moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the difficulty over all slices."""
        slices = list(self.slices.values())
        shares = np.array([s.share for s in slices])
        means = np.array([s.difficulty for s in slices])
        centre = float(np.average(means, weights=shares))
        return centre, float(np.sqrt(self.difficulty_sd**2 + np.average((means - centre) ** 2, weights=shares)))


def _once(problems: list[Problem]) -> list[Problem]:
    """The first problem of every place: modes share what their tier states."""
    return list({problem[0]: problem for problem in reversed(problems)}.values())[::-1]


@dataclass(frozen=True, kw_only=True)
class _Arm:
    """A tier or thinking mode, and where its fields stand in the YAML."""

    name: str
    tier: TierSpec
    base: str
    own: Mapping[str, object]
    mode: str | None

    def at(self, field: str, *more: str) -> tuple[str, ...]:
        """Path of a field: in the mode if that states it, else in the tier."""
        under = () if self.mode is None or field not in self.own else ("modes", self.mode)
        return ("tiers", self.base, *under, field, *more)


def _arms(tiers: Mapping[str, TierSpec]) -> Iterator[_Arm]:
    for base, tier in tiers.items():
        if not tier.modes:
            yield _Arm(name=base, tier=tier, base=base, own={}, mode=None)
        for mode, own in tier.modes.items():
            yield _Arm(name=f"{base}-{mode}", tier=tier.mode(mode), base=base, own=own, mode=mode)


def _tier_problems(spec: ScenarioSpec) -> Iterator[Problem]:
    for arm in _arms(spec.tiers):
        for name in arm.tier.quality_shift:
            if name not in spec.slices:
                yield arm.at("quality_shift", name), f"expected one of the slices {', '.join(spec.slices)}", name
        if arm.tier.second is not None:
            yield from _second_problems(arm, arm.tier.second, arms(spec.tiers))


def _second_problems(arm: _Arm, second: SecondStage, known: Mapping[str, TierSpec]) -> Iterator[Problem]:
    others = [name for name in known if name != arm.name]
    if second.tier not in others:
        yield arm.at("second", "tier"), f"expected one of the other tiers {', '.join(others)}", second.tier
    elif known[second.tier].second is not None:
        yield arm.at("second", "tier"), "expected a tier without a second stage, for there is no third", second.tier
    if second.kind == "format" and second.correction_rate:
        expected = "expected 0, for only a second stage of kind check corrects"
        yield arm.at("second", "correction_rate"), expected, second.correction_rate


def _change_problems(spec: ScenarioSpec) -> Iterator[Problem]:
    known = {**arms(spec.tiers), **spec.tiers}
    if spec.changes and spec.traffic is None:
        yield ("changes",), "expected traffic beside it, because at_s counts from its start", f"{len(spec.changes)}"
    for i, change in enumerate(spec.changes):
        for name in change.tiers or ():
            if name not in known:
                yield ("changes", i, "tiers"), f"expected some of {', '.join(known)}", name
        if spec.traffic is not None and change.at_s >= spec.traffic.duration_s:
            expected = f"expected an instant before the end of the traffic at {spec.traffic.duration_s:g} s"
            yield ("changes", i, "at_s"), expected, change.at_s


def _fleet_problems(spec: ScenarioSpec) -> Iterator[Problem]:
    """A fleet serves one model per tier, and every answer is one request to it."""
    if spec.fleet is None:
        return
    for name in spec.fleet.models:
        if name not in spec.tiers:
            yield ("fleet", "models", name), f"expected one of the tiers {', '.join(spec.tiers)}", name
    for name, tier in spec.tiers.items():
        if name not in spec.fleet.models:
            yield ("fleet", "models"), f"expected a model for every tier; {name} has none", list(spec.fleet.models)
        if tier.modes:
            yield ("tiers", name, "modes"), "expected no thinking modes beside a fleet", list(tier.modes)
        if tier.second is not None:
            yield ("tiers", name, "second"), "expected no second stage beside a fleet", tier.second.tier


def _other_problems(spec: ScenarioSpec) -> Iterator[Problem]:
    if spec.tune_under_load and spec.traffic is None:
        yield ("tune_under_load",), "expected false, because the scenario has no traffic", True
    if spec.batch_delay_s and not any(s.batch for s in spec.slices.values()):
        yield ("batch_delay_s",), "expected 0, because no slice has batch: true", spec.batch_delay_s
    for name in spec.routers:
        clash = sorted(set(OWN_SIGNALS) & set(signal_names(name)))
        if clash:
            yield ("routers", name), f"expected another name, because the signal {clash[0]} is taken", name


def _price_problems(spec: ScenarioSpec) -> Iterator[Problem]:
    """Free tokens, unless the capacity behind them has a price."""
    traffic = None if spec.traffic is None else filled_in(spec.traffic, spec.tiers)
    for arm in _arms(spec.tiers):
        if traffic is not None and traffic.stations.get(station_of(traffic, arm.name), StationSpec()).usd_per_hour > 0:
            continue
        for field in ("input_usd_per_mtok", "output_usd_per_mtok"):
            if getattr(arm.tier, field) == 0.0:
                yield arm.at(field), _UNPRICED, 0.0
