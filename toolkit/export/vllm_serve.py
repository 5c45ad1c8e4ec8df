"""`target=vllm`: one shell script that starts every replica with `vllm serve`, and prints what balances over them.

One server per replica: vLLM runs independent servers for dense models instead of data-parallel ranks, and replicas of
different shape cannot share one anyway. The names of the flags are those of vLLM's own argument parser (see `VLLM`).
A replica over several machines starts once per machine; only the first answers, the others are `--headless`.

Balancing: nginx takes turns by weight, as the latencies take for granted. LiteLLM's `simple-shuffle` draws at random
with the same weights, so waits are somewhat longer than expected; it gives all tiers one address.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from simulators.errors import ConfigError
from toolkit.export.deployment import check_policy, remarks
from toolkit.export.deployment_schema import DeploymentFile
from toolkit.export.machines import PlacedReplica, place
from toolkit.export.provenance import provenance_lines
from toolkit.export.schema import PolicyFile

VLLM = "0.32"
"""The version whose argument parser the flags were compared with; `--nnodes` came with 0.12."""
FIRST_PORT = 8000
FIRST_BALANCER_PORT = 9000
_FIRST_MASTER_PORT, _FIRST_RAY_PORT = 29501, 6379
_LARGEST_WEIGHT = 1000
_END = "END OF CONFIG"
_HOST = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9_.:\]-]*")


@dataclass(frozen=True, kw_only=True)
class Site:
    """A deployment on machines.

    Attributes:
        deployment: What runs.
        placed: Its replicas; replica i answers on port `FIRST_PORT + i`.
        address: Machine in use -> host name or IP address.
    """

    deployment: DeploymentFile
    placed: tuple[PlacedReplica, ...]
    address: dict[str, str]

    def head(self, i: int) -> str:
        """Address of the machine where replica i answers."""
        return self.address[self.placed[i].parts[0].machine]

    def endpoint(self, i: int) -> str:
        """`host:port` of replica i."""
        return f"{self.head(i)}:{FIRST_PORT + i}"


def lay_out(deployment: DeploymentFile, hosts: Mapping[str, str] | None = None) -> Site:
    """Place all replicas.

    Args:
        deployment: What to run.
        hosts: Machine, such as `h100-1` -> its address; a machine without one is called by its own name.

    Raises:
        ConfigError: If `hosts` names a machine that is not in use, or holds no address.
        ExportError: If a replica cannot be placed.
    """
    placed, hosts = place(deployment), hosts or {}
    machines = sorted({part.machine for replica in placed for part in replica.parts}, key=_by_number)
    unknown = sorted(set(hosts) - set(machines))
    if unknown:
        raise ConfigError(f"hosts names {', '.join(unknown)}; the machines in use are {', '.join(machines)}")
    odd = [host for host in hosts.values() if not _HOST.fullmatch(host)]
    if odd:
        raise ConfigError(f"hosts should hold host names or IP addresses; got {odd[0]!r}")
    address = {machine: hosts.get(machine, machine) for machine in machines}
    return Site(deployment=deployment, placed=placed, address=address)


def vllm_script(deployment: DeploymentFile, policy: PolicyFile, hosts: Mapping[str, str] | None = None) -> str:
    """The script; see `lay_out` for `hosts` and further errors.

    Raises:
        ConfigError: If the policy is not the one that the deployment was tuned with.
    """
    check_policy(deployment, policy)
    site = lay_out(deployment, hosts)
    lines = ["#!/bin/sh", *(f"# {line}" for line in provenance_lines(policy, (*remarks(deployment), *_usage(site))))]
    lines += ["set -eu", 'case "${1-}" in']
    for machine in site.address:
        lines += [f"{shlex.quote(machine)})", *_starts(site, machine), "    wait", "    ;;"]
    lines += _prints("nginx", nginx_config(site))
    lines += _prints("litellm", yaml.safe_dump(litellm_config(site), sort_keys=False))
    usage = f"usage: sh FILE {' | '.join((*site.address, 'nginx', 'litellm'))}"
    lines += ["*)", f"    echo {shlex.quote(usage)} >&2", "    exit 2", "    ;;", "esac"]
    return "\n".join(lines) + "\n"


def litellm_config(site: Site) -> dict[str, Any]:
    """A LiteLLM proxy that offers each tier by its name, its replicas drawn by weight."""
    models = [
        {
            "model_name": replica.tier,
            "litellm_params": {
                "model": f"hosted_vllm/{replica.tier}",
                "api_base": f"http://{site.endpoint(i)}/v1",
                "weight": weight,
            },
        }
        for i, (replica, weight) in enumerate(zip(site.placed, weights(site.placed), strict=True))
        if weight > 0
    ]
    return {
        "model_list": models,
        "router_settings": {"routing_strategy": "simple-shuffle", "num_retries": 2},
        "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
    }


def nginx_config(site: Site) -> str:
    """For nginx's `http` block: one port per tier, replicas in turn by weight, one state for all worker processes."""
    lines = []
    weighted = list(enumerate(zip(site.placed, weights(site.placed), strict=True)))
    for k, tier in enumerate(site.deployment.tiers):
        servers = [
            f"    server {site.endpoint(i)} weight={weight};"
            for i, (replica, weight) in weighted
            if replica.tier == tier.name and weight > 0
        ]
        if servers:
            lines += [f"upstream {tier.name} {{", f"    zone {tier.name} 64k;", *servers, "}"]
            lines += ["server {", f"    listen {FIRST_BALANCER_PORT + k};", "    location / {"]
            lines += [f"        proxy_pass http://{tier.name};", "        proxy_buffering off;"]
            lines += ["        proxy_http_version 1.1;", "        proxy_read_timeout 600s;"]
            lines += ["        client_max_body_size 0;", "    }", "}"]
    return "\n".join(lines) + "\n"


def weights(placed: Sequence[PlacedReplica]) -> list[int]:
    """Whole numbers in proportion to each replica's share of its tier, the largest of a tier at most 1000."""
    largest: dict[str, float] = {}
    for replica in placed:
        largest[replica.tier] = max(largest.get(replica.tier, 0.0), replica.share)
    raw = [_weight(replica.share / largest[replica.tier]) for replica in placed]
    common = {tier: math.gcd(*(w for w, r in zip(raw, placed, strict=True) if r.tier == tier)) for tier in largest}
    return [w // common[replica.tier] for w, replica in zip(raw, placed, strict=True)]


def _weight(relative: float) -> int:
    return max(1, round(_LARGEST_WEIGHT * relative)) if relative > 0 else 0


def _by_number(machine: str) -> tuple[str, int]:
    gpu, _, number = machine.rpartition("-")
    return gpu, int(number)


def _starts(site: Site, machine: str) -> list[str]:
    """The lines that start what runs on one machine."""
    lines = []
    for i, replica in enumerate(site.placed):
        for rank, part in enumerate(replica.parts):
            if part.machine == machine:
                lines += [f"    # {_what(site, i, rank)}", f"    {_start(site, i, rank)}"]
    return lines


def _start(site: Site, i: int, rank: int) -> str:
    part, head = site.placed[i].parts[rank], f"{site.head(i)}:{_FIRST_RAY_PORT + i}"
    visible = f"CUDA_VISIBLE_DEVICES={','.join(str(gpu) for gpu in part.gpus)}"
    if site.placed[i].even:
        return f"{visible} {shlex.join(serve_command(site, i, rank))} &"
    if rank > 0:
        return f"{visible} ray start --address={shlex.quote(head)}"
    start = f"{visible} ray start --head --port={_FIRST_RAY_PORT + i}"
    return f"{start} && RAY_ADDRESS={shlex.quote(head)} {shlex.join(serve_command(site, i))} &"


def serve_command(site: Site, i: int, rank: int = 0) -> list[str]:
    """`vllm serve` and its arguments for part `rank` of replica i."""
    engine, replica = site.deployment.engine, site.placed[i]
    flags: dict[str, object] = {
        "--served-model-name": replica.tier,
        "--port": FIRST_PORT + i,
        "--tensor-parallel-size": replica.replica.tensor_parallel,
        "--pipeline-parallel-size": replica.replica.pipeline_parallel,
        "--max-num-seqs": engine.max_num_seqs,
        "--max-num-batched-tokens": engine.max_num_batched_tokens,
        "--max-model-len": engine.max_model_len,
        "--gpu-memory-utilization": engine.gpu_memory_utilization,
    }
    if not replica.even:
        flags["--distributed-executor-backend"] = "ray"
    elif len(replica.parts) > 1:
        flags["--nnodes"], flags["--node-rank"] = len(replica.parts), rank
        flags["--master-addr"], flags["--master-port"] = site.head(i), _FIRST_MASTER_PORT + i
    said = [str(word) for flag, value in flags.items() if value is not None for word in (flag, value)]
    model = next(tier.weights for tier in site.deployment.tiers if tier.name == replica.tier)
    return ["vllm", "serve", model, *said, *(["--headless"] if rank else [])]


def _what(site: Site, i: int, rank: int) -> str:
    replica = site.placed[i]
    load = replica.share * next(tier.load_per_s for tier in site.deployment.tiers if tier.name == replica.tier)
    said = f"{replica.tier}: {replica.replica.text}, {load:.3g} requests per second"
    if len(replica.parts) == 1:
        return said
    how = "" if replica.even else "; unequal parts need Ray: start this machine after the first of them"
    return f"{said}; part {rank + 1} of {len(replica.parts)}, on {', '.join(p.machine for p in replica.parts)}{how}"


def _prints(name: str, text: str) -> list[str]:
    """A branch of the script that prints a text."""
    return [f"{name})", f"    cat <<'{_END}'", *text.rstrip("\n").split("\n"), _END, "    ;;"]


def _usage(site: Site) -> tuple[str, ...]:
    lines = [
        f"Flags of vLLM {VLLM}, one server per replica. On each machine: sh FILE MACHINE, or give its lines to your "
        "supervisor.",
        "Machines call each other by these names: put them into DNS, or export with hosts={MACHINE: ADDRESS}.",
        "Balancing over replicas: sh FILE nginx (in turn by weight, as tuned; one port per tier) or sh FILE litellm",
        "(one address; drawn at random by weight, so waits are somewhat longer than expected).",
        "The servers listen on all interfaces and without a key: keep them in a private network, or set VLLM_API_KEY.",
    ]
    if any(len(replica.parts) > 1 for replica in site.placed):
        lines.append("Some replicas span machines: start all parts, with the same vLLM and weights, all ports open.")
    return tuple(lines)
