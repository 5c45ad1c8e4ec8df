"""LiteLLM's own word on an exported config: its schemas, its router, its classifier."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from simulators.errors import ExportError
from toolkit.export.litellm import check_config, find_router
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
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ExportError(f"LiteLLM {version} rejects the config at {where}: {first['msg']}") from error
    except (ValueError, TypeError) as error:
        raise ExportError(f"LiteLLM {version} rejects the config: {str(error).splitlines()[0]}") from error
    lost = {entry["model_name"] for entry in config["model_list"]} - set(router.get_model_names())
    if lost:
        raise ExportError(f"LiteLLM {version} silently drops the deployments {sorted(lost)}")
    return version


def replay(config: Mapping[str, Any], prompts: tuple[str, ...]) -> list[str]:
    """The model that LiteLLM sends each prompt to as the first message of a conversation.

    Asks the hook that routes in production, not the classifier alone: rules ahead of the score (escalation keywords,
    housekeeping, reminder blocks, empty prompts) decide too.
    """
    name, _ = find_router(config)
    with quiet_litellm():
        hook = _router(config).complexity_routers[name][0].strategy.async_pre_routing_hook

        async def ask() -> list[str]:
            answers = [await hook(name, {}, [{"role": "user", "content": prompt}]) for prompt in prompts]
            return [str(answer.model) for answer in answers]

        return asyncio.run(ask())


def _router(config: Mapping[str, Any]) -> Any:
    with quiet_litellm():
        from litellm import Router

        return Router(model_list=copy.deepcopy(config["model_list"]), **(config.get("router_settings") or {}))
