"""A deployment: which model runs on which GPUs, in how many replicas, and what share of its requests each group takes.

Notation: M tiers (one model each), N GPU types. A *replica* is one copy of a model on `tensor_parallel x
pipeline_parallel` GPUs of one type; a *group* is several equal replicas that take turns (round robin).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from simulators.errors import ConfigError

_SHARE_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True, order=True)
class Replica:
    """One copy of a model.

    Attributes:
        gpu: Name of the GPU type.
        tensor_parallel: GPUs that share every layer; within one machine.
        pipeline_parallel: Stages that hold the layers one after the other.
    """

    gpu: str
    tensor_parallel: int = 1
    pipeline_parallel: int = 1

    def __post_init__(self) -> None:
        if self.tensor_parallel < 1 or self.pipeline_parallel < 1:
            raise ConfigError(f"a replica needs at least one GPU; got {self.text}")

    @property
    def n_gpus(self) -> int:
        """GPUs of one replica."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def text(self) -> str:
        """`h100 TP4 PP2`."""
        return f"{self.gpu} TP{self.tensor_parallel} PP{self.pipeline_parallel}"


@dataclass(frozen=True, kw_only=True)
class ReplicaGroup:
    """Equal replicas of one tier (data parallelism).

    Attributes:
        replica: What each of them is.
        replicas: How many.
        share: Fraction of the tier's requests that the group takes.
    """

    replica: Replica
    replicas: int
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.replicas < 1 or not 0 <= self.share <= 1:
            raise ConfigError(f"a group needs a replica and a share in [0, 1]; got {self.replicas}, {self.share:g}")

    @property
    def n_gpus(self) -> int:
        """GPUs of the group."""
        return self.replicas * self.replica.n_gpus


TierPlan = tuple[ReplicaGroup, ...]
"""The groups of one tier; empty where the tier is not deployed. Shares sum to 1."""


@dataclass(frozen=True, kw_only=True)
class FleetPlan:
    """All tiers.

    Attributes:
        tiers: M names.
        groups: M tuples of groups.
    """

    tiers: tuple[str, ...]
    groups: tuple[TierPlan, ...]

    def __post_init__(self) -> None:
        if len(self.tiers) != len(self.groups):
            raise ConfigError(f"{len(self.tiers)} tiers but {len(self.groups)} plans")
        for tier, plan in zip(self.tiers, self.groups, strict=True):
            total = sum(group.share for group in plan)
            if plan and not math.isclose(total, 1.0, abs_tol=_SHARE_TOLERANCE):
                raise ConfigError(f"the shares of {tier}'s groups should sum to 1; they sum to {total:g}")

    @property
    def gpus(self) -> dict[str, int]:
        """GPU type -> GPUs in use."""
        return gpus_of(tuple(group for plan in self.groups for group in plan))

    def usd_per_hour(self, prices: Mapping[str, float]) -> float:
        """Price of all GPUs in use, at USD per GPU and hour by type."""
        return sum(prices[gpu] * n for gpu, n in self.gpus.items())


def gpus_of(plan: TierPlan) -> dict[str, int]:
    """GPU type -> GPUs that the groups use."""
    found: dict[str, int] = {}
    for group in plan:
        found[group.replica.gpu] = found.get(group.replica.gpu, 0) + group.n_gpus
    return found
