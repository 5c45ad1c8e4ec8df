"""Typed settings of `space=deployment`: thresholds and GPUs searched together."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OfflineSettings(_Settings):
    """The latency tables and the candidate deployments made from them.

    Attributes:
        requests: Requests that one point of a table is simulated with.
        load_grid: Loads of a table as shares of the replica's own capacity, or the paper's 2, 4, ..., 40 per second.
        load_split: How the requests of a tier are split over unequal replicas.
        candidates: Which deployments a tier may get.
        caps: Whether candidates are also made for the case that other tiers take GPUs: half or none of each type
            (`lattice`), and also what their own candidates leave (`response`).
        most: Candidates of a tier at most.
    """

    requests: Annotated[int, Field(ge=200, le=1_000_000)]
    load_grid: Literal["capacity", "fixed"]
    load_split: Literal["waterfill", "enumerate", "capacity"]
    candidates: Literal["pareto_knapsack", "homogeneous", "uniform"]
    caps: Literal["none", "lattice", "response"]
    most: Annotated[int, Field(ge=1, le=10_000)]


class BouteSettings(_Settings):
    """`controller=boute`; see `toolkit.search.boute.BouteOptions`."""

    kind: Literal["boute"]
    model: Literal["auto", "grey", "gp"]
    acquisition: Literal["auto", "closed", "qlognehvi"]
    fit: Literal["map", "botorch"]
    transforms: bool
    preference: bool
    interaction: bool
    quality_kernel: Literal["routing", "joint"]
    q: Annotated[int, Field(ge=1)]
    n_initial: Annotated[int, Field(ge=1)] | None
    stop_on: Literal["front", "choice"]
    patience: Annotated[int, Field(ge=1)] | None


class DeploymentSpaceSettings(_Settings):
    """`space=deployment`.

    Attributes:
        budget_usd_per_hour: Most that all GPUs may cost; None: the scenario's.
        rate_per_s: Requests per second; None: the scenario's.
        gpu_types: GPU types that may be used; None: all of the scenario's.
        evaluate: Latency from the offline tables, or from a simulation of the whole fleet.
        approximate: Whether a grey-box search knows the tables' latency where it is simulated.
        exclude: Whether deployments that do not fit GPUs and budget are left out of the space; else they are
            constraints.
        thresholds: Searched as load fractions or as raw scores.
        load_features: Whether controller=boute sees each tier's utilisation by the tables; the paper's model does not.
        system_latency: Quantiles of all requests together, or the largest of the tiers' own.
        offline: The tables.
    """

    kind: Literal["deployment"]
    budget_usd_per_hour: Annotated[float, Field(gt=0)] | None
    rate_per_s: Annotated[float, Field(gt=0)] | None
    gpu_types: Annotated[list[str], Field(min_length=1)] | None
    evaluate: Literal["table", "simulate"]
    approximate: bool
    exclude: bool
    thresholds: Literal["fractions", "raw"]
    load_features: bool
    system_latency: Literal["pooled", "max"]
    offline: OfflineSettings
