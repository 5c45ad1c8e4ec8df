"""A deployment as a file: built from a plan and the policy that it was chosen with, and exported as YAML."""

from __future__ import annotations

from collections.abc import Sequence

import yaml
from pydantic import ValidationError

from simulators.deployment.plan import FleetPlan, ReplicaGroup
from simulators.deployment.specs import FleetSpec
from simulators.errors import ConfigError, ExportError
from simulators.spec import one_line
from toolkit.export.deployment_schema import DeploymentFile, EngineFile, Expected
from toolkit.export.provenance import provenance_lines
from toolkit.export.schema import PolicyFile


def build_deployment(
    fleet: FleetSpec,
    plan: FleetPlan,
    *,
    policy: PolicyFile,
    shares: Sequence[float],
    engine: EngineFile,
    expected: Expected,
    evidence: str,
) -> DeploymentFile:
    """The file of a plan and the policy that it was chosen with.

    Args:
        fleet: GPU types, models, rate and budget.
        plan: The deployment, tiers in the policy's order.
        policy: Thresholds over the same tiers.
        shares: `K` fractions of all requests, summing to 1.
        engine: Assumptions about the engine.
        expected: Figures of the search.
        evidence: One sentence.

    Raises:
        ConfigError: If they contradict each other.
    """
    if policy.policy != "thresholds" or policy.thresholds is None or policy.slice_thresholds:
        raise ConfigError("a deployment is for one set of thresholds; tune with policy=thresholds space=deployment")
    if len(shares) != len(plan.tiers):
        raise ConfigError(f"expected one share of the requests per tier, {len(plan.tiers)}; got {len(shares)}")
    fields = {
        "tiers": [_tier(fleet, plan, k, float(share)) for k, share in enumerate(shares)],
        "gpus": {name: _gpu(fleet, name, used) for name, used in plan.gpus.items()},
        "fleet_usd_per_hour": plan.usd_per_hour({name: gpu.usd_per_hour for name, gpu in fleet.gpus.items()}),
        "budget_usd_per_hour": fleet.budget_usd_per_hour,
        "rate_per_s": fleet.rate_per_s,
        "router": {"scorer": str(policy.scorer.get("kind")), "thresholds": policy.thresholds},
        "engine": engine,
        "expected": expected,
        "evidence": evidence,
        "data_hash": policy.data_hash,
        "provenance": policy.provenance,
    }
    try:
        made = DeploymentFile.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(one_line(error, "deployment", DeploymentFile)) from error
    check_policy(made, policy)
    return made


def engine_file(fleet: FleetSpec, fitted_on: str | None = None) -> EngineFile:
    """What the fleet's engine assumes, in the engine's own terms.

    Args:
        fleet: With its engine.
        fitted_on: One sentence on where the constants come from, if there is more to say than `basis`.
    """
    engine = fleet.engine
    return EngineFile(
        basis=engine.basis,
        max_num_seqs=engine.max_batch,
        max_num_batched_tokens=max(engine.prefill_tokens, engine.max_batch),  # vLLM refuses fewer tokens than sequences
        max_model_len=engine.context_tokens,
        gpu_memory_utilization=engine.memory_utilisation,
        fitted_on=fitted_on,
    )


def check_policy(deployment: DeploymentFile, policy: PolicyFile) -> None:
    """That the deployment is the one this policy was tuned with.

    Raises:
        ConfigError: If tiers or thresholds differ: the loads would be others.
    """
    tiers = [tier.name for tier in deployment.tiers]
    if tiers != policy.tiers:
        raise ConfigError(f"the deployment serves the tiers {tiers}, the policy has {policy.tiers}; tune again")
    if list(deployment.router.thresholds) != policy.thresholds:
        raise ConfigError(
            f"the deployment was tuned for the thresholds {list(deployment.router.thresholds)}, "
            f"the policy has {policy.thresholds}; tune again"
        )


def deployment_yaml(deployment: DeploymentFile, policy: PolicyFile) -> str:
    """The deployment as YAML, below lines on where it comes from.

    Raises:
        ConfigError: If the policy is another one.
        ExportError: If the text would not read back as the deployment.
    """
    check_policy(deployment, policy)
    lines = provenance_lines(policy, remarks(deployment))
    fields = deployment.model_dump(mode="json")
    text = "".join(f"# {line}\n" for line in lines) + yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    if yaml.safe_load(text) != fields:
        raise ExportError("the file would not read back as the deployment; rename odd models")
    return text


def remarks(deployment: DeploymentFile) -> tuple[str, ...]:
    """What an exported file says about cost, latency and what of it nobody measured."""
    expected, engine = deployment.expected, deployment.engine
    times = {"by table": expected.latency_p95_table_s, "by simulation": expected.latency_p95_simulated_s}
    p95 = ", ".join(f"{seconds:.3g} s {how}" for how, seconds in times.items() if seconds is not None)
    guessed = ", ".join(deployment.extrapolated)
    lines = (
        f"Fleet: {deployment.fleet_usd_per_hour:.2f} USD per hour of at most {deployment.budget_usd_per_hour:.2f}, "
        f"tuned for {deployment.rate_per_s:g} requests per second.",
        f"Expected P95 latency of all requests: {p95 or 'not computed'}.",
        f"Constants of the engine ({engine.name}): {engine.basis}. {engine.fitted_on or ''}",
        f"EXTRAPOLATED, not measured: the speed of {guessed}. Measure before you rely on it." if guessed else "",
        f"Evidence: {deployment.evidence}",
    )
    return tuple(line for line in lines if line)


def _tier(fleet: FleetSpec, plan: FleetPlan, k: int, share: float) -> dict[str, object]:
    name = plan.tiers[k]
    if name not in fleet.models:
        raise ConfigError(f"the fleet has no model for the tier {name}; it has {', '.join(fleet.models)}")
    model, load = fleet.models[name], share * fleet.rate_per_s
    return {
        "name": name,
        "weights": model.weights,
        "basis": model.basis,
        "share": share,
        "load_per_s": load,
        "groups": [_group(group, load) for group in plan.groups[k]],
    }


def _group(group: ReplicaGroup, load_per_s: float) -> dict[str, object]:
    return {
        "gpu": group.replica.gpu,
        "tensor_parallel": group.replica.tensor_parallel,
        "pipeline_parallel": group.replica.pipeline_parallel,
        "replicas": group.replicas,
        "share": group.share,
        "load_per_replica_per_s": load_per_s * group.share / group.replicas,
    }


def _gpu(fleet: FleetSpec, name: str, used: int) -> dict[str, object]:
    if name not in fleet.gpus:
        raise ConfigError(f"the fleet has no GPU type {name}; it has {', '.join(fleet.gpus)}")
    gpu = fleet.gpus[name]
    kept = gpu.model_dump(include={"per_machine", "memory_gb", "usd_per_hour", "basis"})
    return {"used": used, "available": gpu.count, **kept}
