"""Typed settings of `routefront reproduce paper=boute`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from experiments.reproduce_settings import ScorerSettings

Part = Literal["deploy", "control", "small", "search"]
Router = Literal["text", "random"]
_Positive = Annotated[float, Field(gt=0)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FleetSettings(_Settings):
    """The GPUs of the tables of cost.

    Attributes:
        gpus: A file of `conf/gpus/`.
        engine: A file of `conf/engine/`.
        count: GPUs of each type.
        replica_gpus: GPUs of one replica, at most.
        homogeneous: Type of the homogeneous methods.
        budget_usd_per_hour: Budget of the main comparison, and what fixes the load.
        most_usd_per_hour: Dearest deployment that the tables of cost look at.
        requests_per_s: Load, where the large model alone can carry it within the budget.
        used: Else this share of what it can carry.
        horizon_s: Counted seconds of traffic.
        requests: Requests simulated per point of an offline table.
        most: Candidates of a model.
    """

    gpus: str
    engine: str
    count: Annotated[int, Field(ge=2)]
    replica_gpus: Annotated[int, Field(ge=1)]
    homogeneous: str
    budget_usd_per_hour: _Positive
    most_usd_per_hour: _Positive
    requests_per_s: _Positive
    used: Annotated[float, Field(gt=0, lt=1)]
    horizon_s: _Positive
    requests: Annotated[int, Field(ge=200)]
    most: Annotated[int, Field(ge=4)]


class SearcherSettings(_Settings):
    """One searcher of the comparison.

    Attributes:
        kind: A controller.
        options: Its own options.
        space: Options of `space=deployment` that differ.
        types: Numbers of GPU types it runs on; None: all.
    """

    kind: Literal["boute", "mobo", "nsga2", "tpe", "sobol", "random"]
    options: dict[str, Any] = {}
    space: dict[str, Any] = {}
    types: list[int] | None = None


class SearchSettings(_Settings):
    """The comparison of searchers on `scenario=self_hosted`.

    Attributes:
        types: Numbers of GPU types: `types_N` of `conf/gpus/`.
        small: Catalogue on which every deployment is enumerated.
        budget: Evaluations of each searcher.
        control_budget: Evaluations of a search for the least cost.
        patience: Of the paper's stopping rule, which is applied to every searcher afterwards.
        n_queries: Queries of the scenario, before the split.
        boundaries: Boundaries of the enumeration that is the reference.
        only: Searchers to run now; empty: all.
        searchers: Name -> searcher.
    """

    types: Annotated[list[int], Field(min_length=1)]
    small: str
    budget: Annotated[int, Field(ge=12)]
    control_budget: Annotated[int, Field(ge=12)]
    patience: Annotated[int, Field(ge=1)]
    n_queries: Annotated[int, Field(ge=100)]
    boundaries: Annotated[int, Field(ge=5)]
    only: list[str]
    searchers: dict[str, SearcherSettings]


class BouteReproduceSettings(_Settings):
    """`routefront reproduce paper=boute`.

    Attributes:
        workloads: Slices of the zeroeval recording.
        seeds: Splits, scores, arrivals and searches.
        fractions: Load fractions of the enumeration, evenly from 0 to 1.
        error_sd: Standard deviation of the log of the factor by which a wrong engine model is off.
    """

    paper: Literal["boute"]
    data_dir: str | None
    output: str | None
    workloads: Annotated[list[Literal["gsm", "crux"]], Field(min_length=1)]
    seeds: Annotated[int, Field(ge=1)]
    parts: Annotated[list[Part], Field(min_length=1)]
    routers: Annotated[list[Router], Field(min_length=1)]
    fractions: Annotated[int, Field(ge=3)]
    error_sd: Annotated[float, Field(ge=0)]
    workers: Annotated[int, Field(ge=1)]
    scorer: ScorerSettings
    fleet: FleetSettings
    search: SearchSettings
