"""Who routes in a simulation: a run, a lone policy file, or shares by the scenario's own classifier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from experiments.runs import FinishedRun, open_finished, open_policy
from experiments.simulate_settings import SimulateSettings
from simulators.errors import ConfigError
from simulators.outcomes import IntArray, OutcomeTable
from toolkit.export.schema import PolicyFile, read_policy
from toolkit.scorers.base import FittedScorer
from toolkit.scorers.registry import load_scorer
from toolkit.scorers.signals import SignalScorer

_SIGNAL = "difficulty_score"
_READ_PROMPTS = {"text", "litellm"}


class Router(Protocol):
    """Whatever sends queries to tiers."""

    @property
    def text(self) -> str:
        """One line that says what it is."""
        ...

    def tiers(self, known: tuple[str, ...], scenario: str) -> tuple[str, ...]:
        """The tiers in the router's order, cheapest first; `ConfigError` if they are not those of the scenario."""
        ...

    def behind_router(self, table: OutcomeTable) -> OutcomeTable:
        """The table with the router's own time and money."""
        ...

    def assign(self, table: OutcomeTable) -> IntArray:
        """`N` tiers."""
        ...


@dataclass(frozen=True, kw_only=True)
class PolicyRouter:
    """A chosen policy.

    Attributes:
        run: Policy and scorer.
        source: Where they come from.
    """

    run: FinishedRun
    source: str

    @property
    def text(self) -> str:
        """Family, scorer and place."""
        policy = self.run.policy
        return f"{policy.policy} on scorer={policy.scorer.get('kind')}, {self.source}"

    def tiers(self, known: tuple[str, ...], scenario: str) -> tuple[str, ...]:
        """The policy's tiers."""
        tiers = tuple(self.run.policy.tiers)
        if set(tiers) != set(known):
            raise ConfigError(
                f"the policy routes to {list(tiers)}, but scenario {scenario} has the tiers {list(known)}"
            )
        return tiers

    def behind_router(self, table: OutcomeTable) -> OutcomeTable:
        """With what the policy's file states."""
        return self.run.policy.behind_router(table)

    def assign(self, table: OutcomeTable) -> IntArray:
        """As the run decides."""
        return np.asarray(self.run.decide(table.queries).tier, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class SharesRouter:
    """Fixed shares of the queries per tier, cheapest first: the harder by the scenario's classifier, the dearer."""

    shares: tuple[float, ...]

    @property
    def text(self) -> str:
        """The shares."""
        parts = " / ".join(f"{100 * share:g} %" for share in self.shares)
        return f"{parts} of the queries, cheapest tier first, by the scenario's own classifier"

    def tiers(self, known: tuple[str, ...], scenario: str) -> tuple[str, ...]:
        """The scenario's own order."""
        if len(known) != len(self.shares):
            raise ConfigError(
                f"shares: expected {len(known)} values, one per tier of scenario {scenario} {list(known)}; "
                f"got {len(self.shares)}"
            )
        return known

    def behind_router(self, table: OutcomeTable) -> OutcomeTable:
        """The table as it is: such a router is free."""
        return table

    def assign(self, table: OutcomeTable) -> IntArray:
        """By quantiles of the score; ties keep the order of the table."""
        order = np.argsort(table.queries.signals[_SIGNAL], kind="stable")
        edges = np.round(np.cumsum(self.shares) * table.n_queries).astype(np.int64)
        tier = np.empty(table.n_queries, dtype=np.int64)
        tier[order] = np.minimum(np.searchsorted(edges, np.arange(table.n_queries), side="right"), len(edges) - 1)
        return tier


def open_router(settings: SimulateSettings) -> Router:
    """The router that the settings name."""
    if settings.shares is not None:
        return SharesRouter(shares=tuple(settings.shares))
    if settings.run is not None:
        _check_signals(open_policy(settings.run)[1])
        return PolicyRouter(run=open_finished(settings.run), source=settings.run)
    assert settings.policy_file is not None
    path = Path(settings.policy_file)
    policy = read_policy(path)
    _check_signals(policy)
    scorer = _scorer(policy, path.parent / "scorer")
    return PolicyRouter(run=FinishedRun(path=path.parent, policy=policy, scorer=scorer), source=settings.policy_file)


def _check_signals(policy: PolicyFile) -> None:
    """Raise `ConfigError` if the policy's scorer reads what no query of a scenario has."""
    layer: object = policy.scorer
    while isinstance(layer, dict):
        if layer.get("kind") in _READ_PROMPTS or layer.get("reads") == "prompts":
            raise ConfigError(
                f"the policy's scorer ({layer.get('kind')}) reads prompts, and the queries of a scenario have none; "
                "simulate a policy that was tuned on it (tune scenario=NAME scorer=scenario, classifier, llm_router, "
                "...), or give shares=[0.6,0.3,0.1]"
            )
        layer = layer.get("base")


def _scorer(policy: PolicyFile, folder: Path) -> FittedScorer:
    """The policy's scorer; one that only names signals needs no folder."""
    if not folder.is_dir() and policy.scorer.get("kind") in {"scenario", "column", "strategy"}:
        known = {name: policy.scorer.get(name) for name in ("column", "confidence_column", "kind")}
        return SignalScorer(**known)  # type: ignore[arg-type]
    return load_scorer(policy.scorer, folder)


def in_order(table: OutcomeTable, tiers: tuple[str, ...]) -> OutcomeTable:
    """The table with its tiers in a given order: which one is cheapest may differ from draw to draw."""
    if table.tiers == tiers:
        return table
    return table.take_tiers(np.array([table.tiers.index(name) for name in tiers], dtype=np.int64))
