"""Typed settings of `routefront reproduce`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Part = Literal["methods", "ablations", "leaks"]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SetSettings(_Settings):
    """One data set: which models are tiers, and what stands in for costs that nobody recorded.

    Attributes:
        tiers: Models; None: all.
        stand_in: Model -> price of one answer in `unit`, for data without costs.
        unit: What a stand-in price is.
        why: One sentence on the choice.
    """

    tiers: list[str] | None = None
    stand_in: dict[str, Annotated[float, Field(gt=0)]] | None = None
    unit: str = ""
    why: str = ""


class ScorerSettings(_Settings):
    """The text scorer below all methods."""

    ridge_alpha: Annotated[float, Field(gt=0)]
    neighbours: Annotated[int, Field(ge=1)]
    neighbour_weight: Annotated[float, Field(ge=0, le=1)]
    folds: Annotated[int, Field(ge=2)]


class ReproduceSettings(_Settings):
    """`routefront reproduce`."""

    paper: Literal["proteus"]
    data_dir: str | None
    output: str | None
    sets: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[int, Field(ge=1)]
    parts: Annotated[list[Part], Field(min_length=1)]
    methods: list[str]
    only: list[str]
    levels: Annotated[int, Field(ge=3)]
    paper_range: Annotated[list[float], Field(min_length=2, max_length=2)]
    margin_level: Annotated[float, Field(gt=0.5, lt=1)]
    window: Annotated[int, Field(ge=2)]
    changing_queries: Annotated[int, Field(ge=10)]
    steps: Annotated[int, Field(ge=1)] | None
    learning_rate: Annotated[float, Field(gt=0)] | None
    rounds: Annotated[int, Field(ge=1)] | None
    policy_folds: Annotated[int, Field(ge=2)]
    workers: Annotated[int, Field(ge=1)]
    scorer: ScorerSettings
    definitions: dict[str, SetSettings]
