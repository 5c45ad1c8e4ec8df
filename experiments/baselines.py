"""What a policy is compared with: a tier, an earlier run, a gateway's own config, or LiteLLM's stock boundaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml

from experiments.runs import FinishedRun, open_finished
from simulators.errors import ConfigError, ExportError, InputDataError
from simulators.outcomes import IntArray, OutcomeTable, QueryBatch
from toolkit.export.litellm import TIER_OF_NAME, find_router, model_of

STOCK = "litellm-stock"


class Baseline(Protocol):
    """A way to route queries.

    Attributes:
        label: What it is, in words.
        tiers: Tiers that it may send queries to.
    """

    @property
    def label(self) -> str: ...
    @property
    def tiers(self) -> tuple[str, ...]: ...

    def decide(self, table: OutcomeTable) -> IntArray:
        """`N` tiers of `table`."""
        ...


@dataclass(frozen=True, kw_only=True)
class TierBaseline:
    """One tier for everything."""

    tier: str

    @property
    def label(self) -> str:
        """`tier NAME`."""
        return f"tier {self.tier}"

    @property
    def tiers(self) -> tuple[str, ...]:
        """The tier."""
        return (self.tier,)

    def decide(self, table: OutcomeTable) -> IntArray:
        """See `Baseline`."""
        return np.full(table.n_queries, table.tiers.index(self.tier), dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class RunBaseline:
    """The chosen policy of another run."""

    run: FinishedRun

    @property
    def label(self) -> str:
        """`run DIR`."""
        return f"run {self.run.path}"

    @property
    def tiers(self) -> tuple[str, ...]:
        """The run's tiers."""
        return tuple(self.run.policy.tiers)

    def decide(self, table: OutcomeTable) -> IntArray:
        """See `Baseline`."""
        index = np.array([table.tiers.index(tier) for tier in self.run.policy.tiers], dtype=np.int64)
        return np.asarray(index[self.run.decide(table.queries).tier])


@dataclass(frozen=True, kw_only=True)
class StockBaseline:
    """LiteLLM's stock boundaries, with the policy's tiers behind its four names."""

    tiers: tuple[str, ...]
    label = "LiteLLM's stock boundaries"

    def decide(self, table: OutcomeTable) -> IntArray:
        """See `Baseline`."""
        from toolkit.scorers.litellm import stock_tiers

        index = np.array([table.tiers.index(tier) for tier in self.tiers], dtype=np.int64)
        return np.asarray(index[np.array(TIER_OF_NAME[len(self.tiers)])[stock_tiers(_with_prompts(table.queries))]])


@dataclass(frozen=True, kw_only=True)
class ConfigBaseline:
    """A LiteLLM proxy config, decided by LiteLLM itself.

    Attributes:
        path: The file.
        config: What it holds.
        tier_of: Model name of the config -> tier.
    """

    path: Path
    config: Mapping[str, Any]
    tier_of: Mapping[str, str]

    @property
    def label(self) -> str:
        """`config FILE`."""
        return f"config {self.path}"

    @property
    def tiers(self) -> tuple[str, ...]:
        """The tiers that its names stand for."""
        return tuple(dict.fromkeys(self.tier_of.values()))

    def decide(self, table: OutcomeTable) -> IntArray:
        """See `Baseline`."""
        from toolkit.export.litellm_replay import replay

        prompts = _with_prompts(table.queries).prompt
        try:
            names = replay(self.config, prompts or ())
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise ExportError(f"LiteLLM cannot run baseline={self.path}: {said}") from error
        unnamed = sorted(set(names) - set(self.tier_of))
        if unnamed:
            raise ExportError(
                f"LiteLLM sends prompts to {unnamed}, which baseline={self.path} does not name; name a model for each "
                "tier in it"
            )
        return np.array([table.tiers.index(self.tier_of[name]) for name in names], dtype=np.int64)


def _with_prompts(queries: QueryBatch) -> QueryBatch:
    if queries.prompt is None:
        raise InputDataError("LiteLLM routes by prompts, and these queries have none; add a prompt column")
    return queries


def find_baseline(
    text: str, policy_tiers: tuple[str, ...], models: tuple[str, ...], names: Mapping[str, str]
) -> Baseline:
    """The baseline that `baseline=TEXT` names.

    Args:
        text: A tier, a run's folder, a gateway's config file, or `litellm-stock`.
        policy_tiers: Tiers of the policy, cheapest first.
        models: Every model that the data has answers of.
        names: Model name of a gateway's config -> model of the data, where they differ.

    Raises:
        ConfigError: If it is none of these, or its tiers are not in the data.
    """
    found = _find(text, policy_tiers, models, names)
    missing = sorted(set(found.tiers) - set(models))
    if missing:
        raise ConfigError(f"baseline={text} routes to {missing}, but the data has answers of {_listed(models)} only")
    return found


def _find(text: str, policy_tiers: tuple[str, ...], models: tuple[str, ...], names: Mapping[str, str]) -> Baseline:
    path = Path(text)
    if text in models:
        return TierBaseline(tier=text)
    if text == STOCK:
        if len(policy_tiers) not in TIER_OF_NAME:
            raise ConfigError(f"baseline={STOCK} has four names; the policy has {len(policy_tiers)} tiers")
        return StockBaseline(tiers=policy_tiers)
    if path.is_dir():
        return RunBaseline(run=open_finished(text))
    if path.is_file():
        config = read_gateway_config(path, "baseline")
        return ConfigBaseline(path=path, config=config, tier_of=_tier_of(config, path, models, names))
    raise ConfigError(
        f"baseline={text} is no model of the data ({_listed(models)}), no run folder, no config file and not {STOCK}"
    )


def read_gateway_config(path: Path, option: str) -> dict[str, Any]:
    """A gateway's YAML config.

    Raises:
        InputDataError: If it is missing or no mapping.
    """
    if not path.is_file():
        raise InputDataError(f"{option}={path}: there is no such file")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputDataError(f"{option}={path} is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict):
        raise InputDataError(f"{option}={path} holds no mapping; expected a LiteLLM proxy config")
    return config


def _tier_of(
    config: Mapping[str, Any], path: Path, models: tuple[str, ...], names: Mapping[str, str]
) -> dict[str, str]:
    """Every model name that the router may answer -> model of the data."""
    _, params = find_router(config)
    inner = params.get("complexity_router_config")
    tiers = inner.get("tiers") if isinstance(inner, dict) else None
    values = [*(tiers.values() if isinstance(tiers, dict) else ()), params.get("complexity_router_default_model")]
    used = {name for value in values if (name := model_of(value)) is not None}
    if any(value is not None and model_of(value) is None for value in values):
        raise ExportError(f"baseline={path} spreads a tier over several models at random, which cannot be replayed")
    provider = {
        str(entry["model_name"]): str((entry.get("litellm_params") or {}).get("model", ""))
        for entry in config["model_list"]
        if isinstance(entry, dict) and "model_name" in entry
    }
    unknown = sorted({names[name] for name in names} - set(models)) or sorted(set(names) - used)
    if unknown:
        raise ConfigError(
            f"baseline_models: {unknown} is no name that baseline={path} routes to ({_listed(tuple(sorted(used)))}) or "
            f"no model of the data ({_listed(models)}); expected {{NAME: MODEL}}"
        )
    found = {}
    for name in sorted(used):
        candidates = [names.get(name), name, provider.get(name), provider.get(name, "").rpartition("/")[2]]
        tier = next((c for c in candidates if c in models), None)
        if tier is None:
            raise ConfigError(
                f"baseline={path} routes to {name!r}, which is no model of the data ({_listed(models)}); say which one "
                f"it is: 'baseline_models={{{name}: MODEL}}'"
            )
        found[name] = tier
    return found


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
