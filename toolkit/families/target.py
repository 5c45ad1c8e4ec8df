"""A trained policy, by the quality that is requested of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.outcomes import FloatArray, QueryBatch
from toolkit.dimensions import BoxSpace, Dimension
from toolkit.families.base import Deployment, Family, moved
from toolkit.policies.lanes import Lanes
from toolkit.policies.target import TargetPolicy, nearest_level, trained_levels
from toolkit.scorers.base import ScoreTable
from toolkit.spaces import SearchSpace

_POLICY = TargetPolicy()


class TargetFamily(Family):
    """Requested qualities of a trained policy.

    Args:
        scores: Scores of the N queries, with the trained policy's levels.
        lanes: Fallback and confidence lanes.
        n_tiers: K.

    Attributes:
        targets: `T x 1` every candidate there is.
    """

    kind = "target"
    parameter_names = ("tau",)

    def __init__(self, scores: ScoreTable, lanes: Lanes, n_tiers: int) -> None:
        self.scores, self.lanes, self.n_tiers = scores, lanes, n_tiers
        self.targets = trained_levels(scores)[1][:, None]

    @property
    def space(self) -> SearchSpace:
        """The requested quality, over the range that was trained."""
        low, high = self.targets[[0, -1], 0].tolist()
        return BoxSpace((Dimension(name="tau", low=low, high=high),))

    def assign(self, params: FloatArray) -> NDArray[np.int8]:
        """See `Family`."""
        return _POLICY.assign(params, self.scores, self.lanes)

    def corners(self) -> FloatArray:
        """The two ends of the range."""
        return self.targets[[0, -1]]

    def transfer(self, scores: ScoreTable, queries: QueryBatch) -> TargetFamily:
        """See `Family`."""
        return TargetFamily(scores, self.lanes, self.n_tiers)

    def deploy(self, params: FloatArray) -> Deployment:
        """See `Family`."""
        return Deployment(policy="target", values={"tau": float(params[0])}, lanes=self.lanes)

    def sweep(self, params: FloatArray, i: int, steps: int) -> FloatArray:
        """See `Family`; one level of the grid per step."""
        at = int(nearest_level(self.targets[:, 0], params[:1])[0])
        near = self.targets[max(0, at - steps) : at + steps + 1, 0]
        return moved(params, i, np.append(np.delete(near, min(at, steps)), params[0]))
