"""Which replica runs on which GPUs of which machine; tensor parallelism never crosses one.

Machines of a GPU type have `per_machine` GPUs each, the last one what is left of the count. Replicas are placed by
falling tensor parallelism: with powers of two every stage then finds its GPUs. A replica stays in one machine if it
can; else its stages are divided equally over as few machines as possible, because vLLM's own start over several
machines (`--nnodes`) takes equally many GPUs of each; else as they come, which needs Ray.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from simulators.deployment.plan import Replica
from simulators.errors import ExportError
from toolkit.export.deployment_schema import DeploymentFile


@dataclass(frozen=True, kw_only=True)
class Part:
    """What of one machine a replica takes.

    Attributes:
        machine: Name of the machine, `<gpu type>-<number from 1>`.
        gpus: Indices of the GPUs there, stage by stage.
    """

    machine: str
    gpus: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PlacedReplica:
    """One replica and its GPUs.

    Attributes:
        tier: Name of the tier.
        replica: GPU type and parallelism.
        share: Fraction of the tier's requests that this replica takes.
        parts: Its machines; the first one answers requests.
    """

    tier: str
    replica: Replica
    share: float
    parts: tuple[Part, ...]

    @property
    def even(self) -> bool:
        """Whether every machine gives equally many GPUs."""
        return len({len(part.gpus) for part in self.parts}) == 1


class _Machine:
    """GPUs of one machine that are still free, lowest first."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.free = name, list(range(size))

    def take(self, n: int) -> Part:
        gpus, self.free = tuple(self.free[:n]), self.free[n:]
        return Part(machine=self.name, gpus=gpus)


def place(deployment: DeploymentFile) -> tuple[PlacedReplica, ...]:
    """All replicas in the order of tiers and groups.

    Raises:
        ExportError: If no machine has room for some stage.
    """
    wanted = list(_replicas(deployment))
    machines = {name: _machines(name, gpu.available, gpu.per_machine) for name, gpu in deployment.gpus.items()}
    order = sorted(range(len(wanted)), key=lambda i: (-wanted[i][1].tensor_parallel, -wanted[i][1].n_gpus, i))
    parts = {i: _parts(wanted[i][1], machines[wanted[i][1].gpu]) for i in order}
    return tuple(
        PlacedReplica(tier=tier, replica=replica, share=share, parts=parts[i])
        for i, (tier, replica, share) in enumerate(wanted)
    )


def _replicas(deployment: DeploymentFile) -> Iterator[tuple[str, Replica, float]]:
    for tier in deployment.tiers:
        for group in tier.groups:
            for _ in range(group.replicas):
                yield tier.name, group.replica, group.share / group.replicas


def _machines(gpu: str, available: int, per_machine: int) -> list[_Machine]:
    n = math.ceil(available / per_machine)
    return [_Machine(f"{gpu}-{i + 1}", min(per_machine, available - i * per_machine)) for i in range(n)]


def _parts(replica: Replica, machines: list[_Machine]) -> tuple[Part, ...]:
    stages = replica.pipeline_parallel
    for n_machines in (k for k in range(1, stages + 1) if stages % k == 0):
        each = replica.n_gpus // n_machines
        roomy = sorted((m for m in machines if len(m.free) >= each), key=lambda m: len(m.free))
        if len(roomy) >= n_machines:
            return tuple(m.take(each) for m in sorted(roomy[:n_machines], key=machines.index))
    return _uneven(replica, machines)


def _uneven(replica: Replica, machines: list[_Machine]) -> tuple[Part, ...]:
    """As many stages as fit, from the machine with most room on."""
    left, parts = replica.pipeline_parallel, []
    for machine in sorted(machines, key=lambda m: -len(m.free)):
        stages = min(left, len(machine.free) // replica.tensor_parallel)
        if stages:
            parts.append(machine.take(stages * replica.tensor_parallel))
            left -= stages
    if left:
        raise ExportError(
            f"no machine has {replica.tensor_parallel} free GPUs for a stage of a {replica.text}; tensor parallelism "
            "and per_machine should be powers of two, else export target=deployment and place the replicas yourself"
        )
    return tuple(parts)
