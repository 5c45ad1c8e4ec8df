"""Typed settings of `routefront control`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Method = Literal[
    "static",
    "budget_pacing",
    "latency_pacing",
    "queue_pacing",
    "index",
    "assignment",
    "ppo_lagrangian",
    "clairvoyant",
]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PpoSettings(_Settings):
    """Training of `ppo_lagrangian`; see `toolkit.search.ppo_options`."""

    iterations: Annotated[int, Field(ge=1)]
    traffics: Annotated[int, Field(ge=1)]
    copies: Annotated[int, Field(ge=1)]
    late_ratios: Annotated[list[Positive], Field(min_length=1)]
    margin: Annotated[float, Field(ge=0, lt=1)]


class ClairvoyantSettings(_Settings):
    """Search with full knowledge of an episode."""

    windows: Annotated[int, Field(ge=2)]
    passes: Annotated[int, Field(ge=1)]


class ControlSettings(_Settings):
    """`routefront control`; `conf/control.yaml` says what the options mean."""

    scenario: dict[str, Any] | None
    slo_s: Positive
    quality_floor: Annotated[float, Field(ge=0, le=1)]
    methods: Annotated[list[Method], Field(min_length=1)]
    only: list[Method]
    seeds: Annotated[int, Field(ge=1)]
    train_seeds: Annotated[int, Field(ge=1)]
    n_queries: Annotated[int, Field(ge=100, le=1_000_000)]
    seed: Annotated[int, Field(ge=0)]
    window_s: Positive | None
    quick_window_s: Positive | None
    boundaries: Annotated[int, Field(ge=3, le=401)]
    cost_weight: Annotated[float, Field(ge=0)]
    ppo: PpoSettings
    clairvoyant: ClairvoyantSettings
    output: str | None
