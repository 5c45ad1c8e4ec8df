"""LiteLLM's own word on an exported config: its schemas, its router, its classifier."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from simulators.errors import ExportError
from toolkit.export.litellm import check_config, find_router, model_of
from toolkit.scorers.litellm import quiet_litellm, require_litellm


def check_with_litellm(config: Mapping[str, Any]) -> str:
    """Check a config with our rules and with LiteLLM's classes.

    Returns:
        The version of LiteLLM that accepted it.

    Raises:
        ExportError: With the first thing that is wrong.
        MissingDependencyError: If LiteLLM is not installed.
    """
    version = require_litellm()
    problems = check_config(config)
    if problems:
        raise ExportError("the config would not route as tuned: " + "; ".join(problems))
    with quiet_litellm():
        from litellm.proxy._types import ConfigYAML
        from litellm.router_strategy.complexity_router.config import ComplexityRouterConfig

    _, params = find_router(config)
    crc = params["complexity_router_config"]
    unknown = sorted(set(crc) - set(ComplexityRouterConfig.model_fields))
    if unknown:
        raise ExportError(f"LiteLLM {version} does not know the complexity router's keys {unknown}")
    try:
        with quiet_litellm():
            ConfigYAML.model_validate(copy.deepcopy(dict(config)))
            ComplexityRouterConfig.model_validate(copy.deepcopy(crc))
        router = _router(config)
    except (ValidationError, ValueError) as error:
        raise ExportError(f"LiteLLM {version} rejects the config: {str(error).splitlines()[0]}") from error
    lost = {entry["model_name"] for entry in config["model_list"]} - set(router.get_model_names())
    if lost:
        raise ExportError(f"LiteLLM {version} silently drops the deployments {sorted(lost)}")
    return version


def replay(config: Mapping[str, Any], prompts: tuple[str, ...]) -> list[str | None]:
    """The model that LiteLLM's own classification sends each prompt to.

    An empty prompt never reaches the classifier: LiteLLM sends it to the default model.
    """
    name, params = find_router(config)
    router = _router(config)
    classifier = router.complexity_routers[name][0].strategy
    tiers = {tier: model_of(value) for tier, value in params["complexity_router_config"]["tiers"].items()}
    default = params["complexity_router_default_model"]
    return [tiers[classifier.classify(p)[0].value] if p.strip() else default for p in prompts]


def _router(config: Mapping[str, Any]) -> Any:
    with quiet_litellm():
        from litellm import Router

        return Router(model_list=copy.deepcopy(config["model_list"]), **config.get("router_settings", {}))
