"""Lanes ahead of a policy: queries whose tier does not depend on thresholds at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import IntArray
from toolkit.scorers.base import ScoreTable

FREE = -1


@dataclass(frozen=True, kw_only=True)
class Lanes:
    """Where a query goes when its score cannot be used.

    Attributes:
        fallback_tier: Tier of a query without a score (NaN, scorer failure).
        low_confidence_tier: Tier of a query whose confidence is below the floor.
        confidence_floor: In [0, 1], or None for no such lane.
    """

    fallback_tier: int
    low_confidence_tier: int
    confidence_floor: float | None = None

    def pinned(self, scores: ScoreTable) -> IntArray:
        """`N` tiers of pinned queries, `FREE` for those that the policy decides.

        Raises:
            ConfigError: If a confidence floor is set and the scorer states no confidence.
        """
        tier = np.full(len(scores.score), FREE, dtype=np.int64)
        if self.confidence_floor is not None:
            if scores.confidence is None:
                raise ConfigError(
                    f"policy.confidence_floor={self.confidence_floor:g} needs a scorer that states its confidence; "
                    "this one does not: unset the floor or use another scorer"
                )
            tier[scores.confidence < self.confidence_floor] = self.low_confidence_tier
        tier[self.failed(scores)] = self.fallback_tier
        return tier

    @staticmethod
    def failed(scores: ScoreTable) -> np.ndarray:
        """`N`, True where the scorer gave no usable number."""
        bad = ~np.isfinite(scores.score)
        for part in (scores.quality, scores.cost_usd):
            if part is not None:
                bad |= ~np.isfinite(part).all(axis=1)
        if scores.confidence is not None:
            bad |= np.isnan(scores.confidence)
        return bad
