"""`deployment.json`: the versioned schema of a deployment, written beside `policy.json`, and reading one back.

Says which model runs on which GPUs, with which parallelism and how many replicas, for which router thresholds, what it
costs, what was expected of it, and which of the constants behind that were measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

from simulators.deployment.plan import FleetPlan, Replica, ReplicaGroup, gpus_of
from simulators.deployment.specs import Fraction, Positive
from simulators.errors import InputDataError
from simulators.spec import Name, Spec, one_line
from toolkit.export.schema import Provenance

SCHEMA_VERSION: Literal[1] = 1
FILE_NAME = "deployment.json"
Basis = Literal["measured", "extrapolated"]
Share = Annotated[float, Field(ge=0, le=1)]
Load = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Weights = Annotated[str, StringConstraints(pattern=r"^[^\s-][^\r\n]*$")]
_TOLERANCE = 1e-6


class GpuUse(Spec):
    """One GPU type in use.

    Attributes:
        used: GPUs that the deployment takes.
        available: GPUs that there are.
        per_machine: GPUs in one machine.
        memory_gb: Memory of one GPU, 1e9 bytes.
        usd_per_hour: Price of one GPU.
        basis: Whether the speed of this type was measured or follows from its data sheet.
    """

    used: Count
    available: Count
    per_machine: Count
    memory_gb: Positive
    usd_per_hour: Positive
    basis: Basis


class GroupFile(Spec):
    """Equal replicas of one tier.

    Attributes:
        gpu: Name of the GPU type.
        tensor_parallel: GPUs that share every layer.
        pipeline_parallel: Stages.
        replicas: How many.
        share: Fraction of the tier's requests.
        load_per_replica_per_s: Requests per second that one replica is expected to get.
    """

    gpu: Name
    tensor_parallel: Count
    pipeline_parallel: Count
    replicas: Count
    share: Share
    load_per_replica_per_s: Load

    @property
    def replica(self) -> Replica:
        """What each replica is."""
        return Replica(gpu=self.gpu, tensor_parallel=self.tensor_parallel, pipeline_parallel=self.pipeline_parallel)


class TierFile(Spec):
    """One tier and what serves it.

    Attributes:
        name: As the router calls it.
        weights: Name that the engine loads the model by.
        basis: Whether the speed of this model was measured or follows from its dimensions.
        share: Fraction of all requests, as the thresholds divided the tune split.
        load_per_s: Requests per second.
        groups: Its replicas; empty where the tier is not deployed.
    """

    name: Name
    weights: Weights
    basis: Basis
    share: Share
    load_per_s: Load
    groups: tuple[GroupFile, ...]


class RouterFile(Spec):
    """How requests are divided among the tiers.

    Attributes:
        scorer: Kind of the scorer whose score the thresholds cut; its files are in the run's `scorer` folder.
        thresholds: `K-1` boundaries, as in `policy.json`.
    """

    scorer: str
    thresholds: tuple[float, ...]


class EngineFile(Spec):
    """What the latencies take for granted about the engine; null: its own default.

    Attributes:
        name: The engine.
        basis: Where its constants come from.
        max_num_seqs: Most requests in one batch.
        max_num_batched_tokens: Most tokens of prompts in one step.
        max_model_len: Most tokens of prompt and answer together.
        gpu_memory_utilization: Share of the GPU's memory that the engine takes.
        fitted_on: One sentence: what the constants were fitted on, and how far off they were there.
    """

    name: str = "vllm"
    basis: Literal["measured", "assumed"]
    max_num_seqs: Count | None = None
    max_num_batched_tokens: Count | None = None
    max_model_len: Count | None = None
    gpu_memory_utilization: Fraction | None = None
    fitted_on: str | None = None


class Expected(Spec):
    """What the search expected of policy and deployment together; null: not computed.

    Attributes:
        quality: Mean quality.
        latency_p95_table_s: P95 latency of all requests, from the tables of the offline phase.
        latency_p95_simulated_s: The same from a simulation of the whole fleet.
    """

    quality: float | None = None
    latency_p95_table_s: Positive | None = None
    latency_p95_simulated_s: Positive | None = None


class DeploymentFile(Spec):
    """A chosen deployment.

    Attributes:
        schema_version: Version of this schema.
        tiers: Tiers, cheapest first.
        gpus: GPU types in use, by name.
        fleet_usd_per_hour: Price of all GPUs in use.
        budget_usd_per_hour: Most that they might have cost.
        rate_per_s: Requests per second that the deployment was tuned for.
        router: Thresholds.
        engine: Assumptions about the engine.
        expected: Figures of the search.
        evidence: One sentence.
        data_hash: Hash of the table that the run was tuned on.
        provenance: Versions, seed, date.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    tiers: Annotated[tuple[TierFile, ...], Field(min_length=2)]
    gpus: dict[Name, GpuUse]
    fleet_usd_per_hour: Positive
    budget_usd_per_hour: Positive
    rate_per_s: Positive
    router: RouterFile
    engine: EngineFile
    expected: Expected
    evidence: str
    data_hash: str
    provenance: Provenance

    @model_validator(mode="after")
    def _consistent(self) -> DeploymentFile:
        wrong = next(_problems(self), None)
        if wrong is not None:
            raise ValueError(wrong)
        return self

    @property
    def plan(self) -> FleetPlan:
        """The deployment as the simulators take it."""
        return FleetPlan(tiers=tuple(t.name for t in self.tiers), groups=tuple(_groups(t) for t in self.tiers))

    @property
    def extrapolated(self) -> list[str]:
        """Names of GPU types and models whose speed nobody measured."""
        gpus = [name for name, gpu in self.gpus.items() if gpu.basis == "extrapolated"]
        return gpus + [t.weights for t in self.tiers if t.groups and t.basis == "extrapolated"]


def read_deployment(path: Path) -> DeploymentFile:
    """Read a deployment, `.json` or YAML.

    Raises:
        InputDataError: If it is missing or not a deployment of this schema.
    """
    if not path.is_file():
        raise InputDataError(
            f"expected a deployment at {path}, but there is none; tune with space=deployment on a scenario with a fleet"
        )
    try:
        text = path.read_text(encoding="utf-8")
        return DeploymentFile.model_validate(json.loads(text) if path.suffix == ".json" else yaml.safe_load(text))
    except ValidationError as error:
        said = one_line(error, "deployment", DeploymentFile)
        raise InputDataError(f"{path} is not a deployment of schema {SCHEMA_VERSION}: {said}") from error
    except (json.JSONDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise InputDataError(f"{path} cannot be read ({said}); restore it or run routefront tune again") from error


def _groups(tier: TierFile) -> tuple[ReplicaGroup, ...]:
    return tuple(ReplicaGroup(replica=g.replica, replicas=g.replicas, share=g.share) for g in tier.groups)


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)


def _problems(made: DeploymentFile) -> Iterator[str]:
    """What contradicts what, first things first."""
    names = [tier.name for tier in made.tiers]
    if len(set(names)) < len(names):
        yield f"expected every tier once; got {names}"
    t = made.router.thresholds
    if len(t) != len(names) - 1 or not np.isfinite(t).all() or list(t) != sorted(t):
        yield f"router.thresholds must be {len(names) - 1} finite numbers that never decrease; got {list(t)}"
    total = sum(tier.share for tier in made.tiers)
    if not _close(total, 1.0):
        yield f"the tiers' shares of the requests should sum to 1; they sum to {total:g}"
    for tier in made.tiers:
        yield from _tier_problems(tier, made)
    yield from _gpu_problems(made)


def _tier_problems(tier: TierFile, made: DeploymentFile) -> Iterator[str]:
    if not _close(tier.load_per_s, tier.share * made.rate_per_s):
        yield f"{tier.name} gets {tier.share:g} of {made.rate_per_s:g} requests per second, not {tier.load_per_s:g}"
    if tier.share > 0 and not tier.groups:
        yield f"{tier.name} gets {tier.share:g} of the requests and has no replica"
    total = sum(group.share for group in tier.groups)
    if tier.groups and not _close(total, 1.0):
        yield f"the shares of {tier.name}'s groups should sum to 1; they sum to {total:g}"
    for group in tier.groups:
        load = tier.load_per_s * group.share / group.replicas
        if not _close(group.load_per_replica_per_s, load):
            said = group.load_per_replica_per_s
            yield f"a {group.replica.text} of {tier.name} gets {load:g} requests per second, not {said:g}"


def _gpu_problems(made: DeploymentFile) -> Iterator[str]:
    used = gpus_of(tuple(group for tier in made.tiers for group in _groups(tier)))
    if used != {name: gpu.used for name, gpu in made.gpus.items()}:
        yield f"the groups use {used}, gpus says { ({name: gpu.used for name, gpu in made.gpus.items()}) }"
        return
    for name, gpu in made.gpus.items():
        if gpu.used > gpu.available:
            yield f"{gpu.used} GPUs of type {name} are in use and {gpu.available} available"
    for tier in made.tiers:
        for g in tier.groups:
            if g.tensor_parallel > made.gpus[g.gpu].per_machine:
                yield f"{g.replica.text} of {tier.name} would cross machines of {made.gpus[g.gpu].per_machine} GPUs"
    cost = sum(gpu.used * gpu.usd_per_hour for gpu in made.gpus.values())
    if not _close(cost, made.fleet_usd_per_hour):
        yield f"the GPUs in use cost {cost:g} USD per hour, fleet_usd_per_hour says {made.fleet_usd_per_hour:g}"
    if cost > made.budget_usd_per_hour * (1 + _TOLERANCE):
        yield f"the GPUs in use cost {cost:g} USD per hour, more than the budget of {made.budget_usd_per_hour:g}"
