"""Typed settings of `routefront race`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SearcherSettings(_Settings):
    """A controller with options; `budget` and `seeds` cap what the race asks for."""

    kind: Literal["mobo", "tutorial", "parego", "nsga2", "tpe", "sobol", "random"]
    model: Literal["auto", "grey", "gp"] | None = None
    acquisition: Literal["auto", "closed", "qlognehvi"] | None = None
    fit: Literal["map", "botorch"] | None = None
    quality_axis: Literal["linear", "logit"] | None = None
    n_initial: int | None = None
    q: int | None = None
    population: int | None = None
    budget: Annotated[int, Field(ge=1)] | None = None
    seeds: Annotated[int, Field(ge=1)] | None = None


class SyntheticSettings(_Settings):
    """The synthetic problem."""

    dim: Annotated[int, Field(ge=3)]
    quality_sd: Annotated[float, Field(ge=0)]
    latency_log_sd: Annotated[float, Field(ge=0)]
    quality_floor: Annotated[float, Field(ge=0, le=1)]


class RaceSettings(_Settings):
    """`routefront race`."""

    data_dir: str | None
    output: str | None
    problems: Annotated[list[str], Field(min_length=1)]
    only: list[str]
    budget: Annotated[int, Field(ge=2)]
    seeds: Annotated[int, Field(ge=1)]
    levels: list[int]
    target: Annotated[float, Field(gt=0, le=1)]
    workers: Annotated[int, Field(ge=1)]
    reference: Annotated[int, Field(ge=100)]
    searchers: dict[str, SearcherSettings]
    definitions: dict[str, list[str]]
    synthetic: SyntheticSettings
