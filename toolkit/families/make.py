"""A family by its name."""

from __future__ import annotations

from toolkit.families.target import TargetFamily
from toolkit.families.thresholds import ThresholdFamily
from toolkit.families.utility import UtilityFamily
from toolkit.policies.lanes import Lanes
from toolkit.scorers.base import ScoreTable


def policy_family(
    policy: str, scores: ScoreTable, lanes: Lanes, n_tiers: int, *, offset_range: float = 0.0
) -> ThresholdFamily | UtilityFamily | TargetFamily:
    """The family that varies exactly the parameters of a policy."""
    if policy == "thresholds":
        return ThresholdFamily(scores, lanes, n_tiers)
    if policy == "target":
        return TargetFamily(scores, lanes, n_tiers)
    return UtilityFamily(scores, lanes, n_tiers, offset_range)
