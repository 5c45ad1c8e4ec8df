"""Policies: parameters and scores in, a tier per query out, for many candidates at once.

Notation: n candidates with p parameters each, N queries, K tiers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulators.outcomes import FloatArray, IntArray
from toolkit.policies.lanes import FREE, Lanes
from toolkit.scorers.base import ScoreTable


class Policy(Protocol):
    """A family of routing rules."""

    @property
    def kind(self) -> str:
        """`thresholds` or `utility`."""
        ...

    def parameter_names(self, n_tiers: int) -> tuple[str, ...]:
        """Names of the p parameters."""
        ...

    def assign(self, params: FloatArray, scores: ScoreTable, lanes: Lanes) -> NDArray[np.int8]:
        """`n x N` tier of every query under every candidate (`params: n x p`)."""
        ...

    def reasons(self, params: FloatArray, scores: ScoreTable) -> list[str]:
        """`N` short reasons for the decisions of one candidate (`params: p`), lanes aside."""
        ...


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What one policy does with N queries.

    Attributes:
        tier: `N` tier indices.
        score: `N` scores the decision was based on; NaN where the scorer failed.
        reason: `N` short sentences.
    """

    tier: IntArray
    score: FloatArray
    reason: tuple[str, ...]


def decide(policy: Policy, params: FloatArray, scores: ScoreTable, lanes: Lanes) -> Decisions:
    """Route each query with one candidate (`params: p`) and say why."""
    tier = policy.assign(params[None, :], scores, lanes)[0].astype(np.int64)
    reason = policy.reasons(params, scores)
    failed = lanes.failed(scores)
    for row in np.flatnonzero(lanes.pinned(scores) != FREE):
        reason[row] = "no usable score: fallback tier" if failed[row] else "confidence below the floor"
    return Decisions(tier=tier, score=scores.score, reason=tuple(reason))
