"""`target`: a trained policy that takes a requested quality and says the tier of each query.

The scorer predicts the tier for every requested quality of a grid (`ScoreTable.levels`); the parameter `tau` picks the
requested quality. What a request really gives is measured, never assumed: a `tau` is a setting like any other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray
from toolkit.policies.lanes import FREE, Lanes
from toolkit.scorers.base import ScoreTable


class TargetPolicy:
    """Parameter: `tau`, requested quality in [0, 1]; the level of the grid that is nearest decides."""

    kind = "target"

    def parameter_names(self, n_tiers: int) -> tuple[str, ...]:
        """`tau`."""
        return ("tau",)

    def assign(self, params: FloatArray, scores: ScoreTable, lanes: Lanes) -> NDArray[np.int8]:
        """`n x N` tiers that the policy says for each requested quality."""
        levels, targets = trained_levels(scores)
        tier = np.ascontiguousarray(levels[:, nearest_level(targets, params[:, 0])].T)
        pinned = lanes.pinned(scores)
        tier[:, pinned != FREE] = pinned[pinned != FREE]
        return tier

    def reasons(self, params: FloatArray, scores: ScoreTable) -> list[str]:
        """The requested quality, and the smallest one from which on the query gets this tier."""
        levels, targets = trained_levels(scores)
        at = int(nearest_level(targets, params[:1])[0])
        same = levels == levels[:, [at]]
        differs = ~same[:, : at + 1]
        first = np.where(differs.any(axis=1), at + 1 - np.argmax(differs[:, ::-1], axis=1), 0)
        return [f"tau {targets[at]:.4f}, this tier from tau {targets[i]:.4f} on" for i in first.tolist()]


def trained_levels(scores: ScoreTable) -> tuple[NDArray[np.int8], FloatArray]:
    """`N x T` tiers and the `T` requested qualities that they are for.

    Raises:
        ConfigError: If the scorer holds no trained policy.
    """
    if scores.levels is None or scores.level_targets is None:
        raise ConfigError("policy=target needs a trained policy; tune with controller=proteus")
    return scores.levels, scores.level_targets


def nearest_level(targets: FloatArray, tau: FloatArray) -> IntArray:
    """Index of the level nearest to each `tau`; the higher one of two that are equally near."""
    middle = (targets[:-1] + targets[1:]) / 2
    return np.asarray(np.searchsorted(middle, tau, side="right"), dtype=np.int64)
