"""`target=litellm`: the complexity router of LiteLLM's proxy, with our boundaries in its `tier_boundaries`.

LiteLLM has four fixed tiers. A policy that uses fewer maps neighbouring names to one model; boundaries nobody crosses
are dropped, because LiteLLM accepts descending or equal boundaries in silence and then strands a tier. Its own check
(`--validate_config`) also lets misspelt keys and unknown models pass, so `check_config` is stricter, and
`toolkit.export.litellm_replay` asks the real classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError

from simulators.errors import ExportError
from toolkit.export.schema import PolicyFile
from toolkit.policies.thresholds import UNREACHABLE
from toolkit.scorers.litellm import STOCK, TIER_NAMES, LiteLLMSettings

BOUNDARY_NAMES = ("simple_medium", "medium_complex", "complex_reasoning")
ROUTER_NAME = "routefront"
TIER_OF_NAME = {1: (0, 0, 0, 0), 2: (0, 1, 1, 1), 3: (0, 1, 1, 2), 4: (0, 1, 2, 3)}
"""Number of models -> which of them each of LiteLLM's four names gets, cheapest first."""
_ABSENT_MARKERS = ("<routefront:no-such-marker>", "</routefront:no-such-marker>")


def refuse_inexpressible(policy: PolicyFile) -> None:
    """Say why LiteLLM cannot run this policy, if it cannot.

    Raises:
        ExportError: With the reason and the remedy.
    """
    if policy.policy != "thresholds":
        cannot = "run a policy trained per query" if policy.policy == "target" else "compute a utility per tier"
        raise ExportError(
            f"LiteLLM routes by boundaries on one score and cannot {cannot}; "
            "tune with policy=thresholds scorer=litellm, or use target=json"
        )
    if policy.lanes.eligible_tier is not None:
        raise ExportError(
            "LiteLLM has no lane ahead of its boundaries and cannot run the eligibility head; "
            "tune with lane=none, or use target=json"
        )
    if policy.scorer.get("kind") == "calibrated":
        raise ExportError(
            "LiteLLM cannot turn its score into a confidence; tune with calibration=none, or use target=json"
        )
    if policy.scorer.get("kind") != "litellm":
        raise ExportError(
            f"the thresholds were tuned on scorer={policy.scorer.get('kind')}, a score that LiteLLM cannot compute; "
            "tune with scorer=litellm, or use target=json"
        )
    if policy.slice_thresholds:
        raise ExportError("LiteLLM has one set of boundaries for all queries; tune with space=policy or space=litellm")
    if policy.lanes.confidence_floor is not None:
        raise ExportError(
            "LiteLLM's heuristic states no confidence, so policy.confidence_floor cannot be exported; unset it"
        )
    used = len(reachable_tiers(policy)[0])
    if used > len(TIER_NAMES):
        raise ExportError(
            f"LiteLLM has {len(TIER_NAMES)} complexity tiers; this policy uses {used}: tune with fewer tiers"
        )


def reachable_tiers(policy: PolicyFile) -> tuple[list[str], list[float]]:
    """Tiers that some score reaches, and the boundaries between them, strictly ascending."""
    edges = np.concatenate([[-UNREACHABLE], policy.params, [UNREACHABLE]])
    used = [k for k in range(len(policy.tiers)) if edges[k] < edges[k + 1]]
    return [policy.tiers[k] for k in used], [float(edges[k]) for k in used[1:]]


def tuned_settings(policy: PolicyFile) -> LiteLLMSettings:
    """Weights, token thresholds and override that the policy was tuned with; stock if it says nothing.

    Raises:
        ExportError: If the policy's `scorer.settings` are none of LiteLLM's.
    """
    stored = policy.scorer.get("settings")
    try:
        return STOCK if stored is None else LiteLLMSettings.model_validate(stored)
    except ValidationError as error:
        raise ExportError(f"the policy's scorer.settings cannot be exported: {_first_problem(error)}") from error


def complexity_config(policy: PolicyFile) -> dict[str, Any]:
    """LiteLLM's `complexity_router_config` for a policy it can express.

    Everything that would overrule the boundaries is switched off: the reasoning override (two reasoning keywords)
    unless it was tuned, the escalation keyword, the shortcut for coding agents' housekeeping calls, and the stripping
    of reminder blocks.

    Raises:
        ExportError: If the policy's `scorer.settings` are none of LiteLLM's.
    """
    models, cuts = reachable_tiers(policy)
    names, boundaries = _four_tiers(cuts)
    return {
        "classifier_type": "heuristic",
        "tiers": {tier: models[index] for tier, index in zip(TIER_NAMES, names, strict=True)},
        "tier_boundaries": dict(zip(BOUNDARY_NAMES, boundaries, strict=True)),
        **tuned_settings(policy).router_config(),
        "escalation_keywords": [],
        "route_housekeeping_to_cheapest_tier": False,
        "reminder_markers": [{"open": _ABSENT_MARKERS[0], "close": _ABSENT_MARKERS[1]}],
    }


def _four_tiers(cuts: list[float]) -> tuple[tuple[int, ...], list[float]]:
    """Which model each of LiteLLM's four names gets, and three strictly ascending boundaries."""
    names = TIER_OF_NAME[len(cuts) + 1]
    if len(cuts) == 0:
        return names, [0.15, 0.35, 0.60]
    if len(cuts) == 1:
        return names, [cuts[0], cuts[0] + 1.0, cuts[0] + 2.0]
    if len(cuts) == 2:
        middle = cuts[0] + (cuts[1] - cuts[0]) / 2
        if cuts[0] < middle < cuts[1]:
            return names, [cuts[0], middle, cuts[1]]
        return (0, 1, 2, 2), [cuts[0], cuts[1], cuts[1] + 1.0]
    return names, cuts


def build_config(policy: PolicyFile, models: Mapping[str, str], router_name: str = ROUTER_NAME) -> dict[str, Any]:
    """The whole proxy config.

    Args:
        policy: A policy that LiteLLM can express.
        models: Tier name -> LiteLLM model string; a tier without one gets `openai/<tier>`.
        router_name: Model name that clients call.

    Raises:
        ExportError: If LiteLLM cannot express the policy or a name clashes.
    """
    refuse_inexpressible(policy)
    unknown = sorted(set(models) - set(policy.tiers))
    if unknown:
        raise ExportError(f"models names tiers {unknown} that the policy does not have; it has {policy.tiers}")
    if router_name in policy.tiers:
        raise ExportError(f"router_name={router_name!r} is also a tier's name; choose another")
    deployments: list[dict[str, Any]] = [
        {"model_name": tier, "litellm_params": {"model": models.get(tier, f"openai/{tier}")}} for tier in policy.tiers
    ]
    router = {
        "model": "auto_router/complexity_router",
        "complexity_router_default_model": policy.lanes.fallback_tier,
        "complexity_router_config": complexity_config(policy),
    }
    deployments.append({"model_name": router_name, "litellm_params": router})
    return {
        "model_list": deployments,
        "router_settings": {"routing_strategy": "simple-shuffle", "num_retries": 2},
        "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
    }


def find_router(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and `litellm_params` of the one complexity router of a proxy config.

    Raises:
        ExportError: If there is none, or more than one.
    """
    entries = config.get("model_list")
    entries = entries if isinstance(entries, list) else []
    found = [
        (str(entry.get("model_name")), entry["litellm_params"])
        for entry in entries
        if isinstance(entry, dict)
        and isinstance(entry.get("litellm_params"), dict)
        and entry["litellm_params"].get("model") == "auto_router/complexity_router"
    ]
    if len(found) != 1:
        raise ExportError(f"expected one auto_router/complexity_router deployment in the config; found {len(found)}")
    return found[0]


def check_config(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with a config that LiteLLM's own check would let pass; empty if nothing."""
    _, params = find_router(config)
    odd = [entry for entry in config["model_list"] if not isinstance(entry, dict) or "model_name" not in entry]
    if odd:
        return [f"every entry of model_list must be a mapping with a model_name; got {odd[0]!r}"]
    crc = _mapping(params.get("complexity_router_config"))
    known = {entry["model_name"] for entry in config["model_list"]}
    problems = []
    boundaries = _mapping(crc.get("tier_boundaries"))
    values = [boundaries[name] for name in BOUNDARY_NAMES if isinstance(boundaries.get(name), int | float)]
    if set(boundaries) != set(BOUNDARY_NAMES) or len(values) < len(BOUNDARY_NAMES):
        problems.append(f"tier_boundaries must hold the numbers {list(BOUNDARY_NAMES)}; got {boundaries}")
    elif not values[0] < values[1] < values[2] or not np.isfinite(values).all():
        problems.append(f"tier_boundaries must be finite and strictly ascending; got {values}")
    tiers = _mapping(crc.get("tiers"))
    if set(tiers) != set(TIER_NAMES):
        problems.append(f"tiers must name {list(TIER_NAMES)}; got {sorted(tiers)}")
    for value in [*tiers.values(), params.get("complexity_router_default_model")]:
        if model_of(value) not in known:
            problems.append(f"tier or default model {value!r} is no model_name of the config")
    return problems + _settings_problems(crc)


def _settings_problems(crc: Mapping[str, Any]) -> list[str]:
    """What is wrong with weights, token thresholds and override; where the config has none, LiteLLM's own apply."""
    try:
        LiteLLMSettings.model_validate({name: crc[name] for name in LiteLLMSettings.model_fields if name in crc})
    except ValidationError as error:
        return [_first_problem(error)]
    return []


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}; got {first['input']!r}"


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def model_of(value: object) -> str | None:
    """The one model that a tier's entry names, in any of LiteLLM's spellings; None for a random pool."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("model_name")
    return value if isinstance(value, str) else None
