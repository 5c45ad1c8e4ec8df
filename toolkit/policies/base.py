"""Policies: parameters and scores in, a tier per query out, for many candidates at once.

Notation: n candidates with p parameters each, N queries, K tiers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulators.outcomes import FloatArray, IntArray
from toolkit.policies.lanes import BUDGET, ELIGIBLE, FALLBACK, LOW_CONFIDENCE, Lanes
from toolkit.scorers.base import ScoreTable

_LANE_REASONS = {
    FALLBACK: "no usable score: fallback tier",
    ELIGIBLE: "eligible: pinned to the reasoning lane",
    LOW_CONFIDENCE: "confidence below the floor",
}


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
        lane: `N` lanes, as `Lanes.lane` gives them.
    """

    tier: IntArray
    score: FloatArray
    reason: tuple[str, ...]
    lane: IntArray


def decide(policy: Policy, params: FloatArray, scores: ScoreTable, lanes: Lanes) -> Decisions:
    """Route each query with one candidate (`params: p`) and say why."""
    tier = policy.assign(params[None, :], scores, lanes)[0].astype(np.int64)
    reason = policy.reasons(params, scores)
    lane = lanes.lane(scores)
    for row in np.flatnonzero(lane != BUDGET):
        reason[row] = _LANE_REASONS[int(lane[row])]
    return Decisions(tier=tier, score=scores.score, reason=tuple(reason), lane=lane)
