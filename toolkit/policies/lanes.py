"""Lanes ahead of a policy: queries whose tier does not depend on thresholds at all.

The first lane that takes a query keeps it: no usable score (fallback), then eligible, then low confidence. What no lane
takes, the policy decides within its budget.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.errors import ConfigError
from simulators.outcomes import IntArray
from toolkit.scorers.base import ScoreTable

FREE = -1
BUDGET, LOW_CONFIDENCE, ELIGIBLE, FALLBACK = range(4)
LANE_NAMES = ("budget", "low confidence", "eligible", "fallback")
"""By lane: the policy's own queries, then each lane after those that it goes ahead of."""


@dataclass(frozen=True, kw_only=True)
class Lanes:
    """Where a query goes when the policy does not decide.

    Attributes:
        fallback_tier: Tier of a query without a score (NaN, scorer failure).
        low_confidence_tier: Tier of a query whose confidence is below the floor.
        confidence_floor: In [0, 1], or None for no such lane.
        eligible_tier: Tier of a query whose eligibility reaches the threshold, or None for no such lane.
        eligibility_threshold: In [0, 1]; set together with `eligible_tier`.
    """

    fallback_tier: int
    low_confidence_tier: int
    confidence_floor: float | None = None
    eligible_tier: int | None = None
    eligibility_threshold: float | None = None

    @property
    def configured(self) -> bool:
        """Whether there is a lane beside the fallback."""
        return self.confidence_floor is not None or self.eligibility_threshold is not None

    def pinned(self, scores: ScoreTable) -> IntArray:
        """`N` tiers of pinned queries, `FREE` for those that the policy decides.

        Raises:
            ConfigError: If a lane is set and the scorer does not state what it looks at.
        """
        eligible = FREE if self.eligible_tier is None else self.eligible_tier
        return np.array([FREE, self.low_confidence_tier, eligible, self.fallback_tier])[self.lane(scores)]

    def lane(self, scores: ScoreTable) -> IntArray:
        """`N` lanes: `BUDGET`, `LOW_CONFIDENCE`, `ELIGIBLE` or `FALLBACK`.

        Raises:
            ConfigError: If a lane is set and the scorer does not state what it looks at.
        """
        lane = np.full(len(scores.score), BUDGET, dtype=np.int64)
        if self.confidence_floor is not None:
            if scores.confidence is None:
                raise ConfigError(
                    f"policy.confidence_floor={self.confidence_floor:g} (or the lane's) needs a scorer that states its "
                    "confidence; this one does not: unset the floor (lane=none), set calibration, or use another scorer"
                )
            lane[scores.confidence < self.confidence_floor] = LOW_CONFIDENCE
        if self.eligible_tier is not None and self.eligibility_threshold is not None:
            if scores.eligibility is None:
                raise ConfigError("the eligibility lane needs a scorer with its head; tune with lane=eligibility")
            lane[scores.eligibility >= self.eligibility_threshold] = ELIGIBLE
        lane[self.failed(scores)] = FALLBACK
        return lane

    @staticmethod
    def failed(scores: ScoreTable) -> NDArray[np.bool_]:
        """`N`, True where the scorer gave no usable number."""
        bad = ~np.isfinite(scores.score)
        for part in (scores.quality, scores.cost_usd):
            if part is not None:
                bad |= ~np.isfinite(part).all(axis=1)
        if scores.confidence is not None:
            bad |= np.isnan(scores.confidence)
        return bad
