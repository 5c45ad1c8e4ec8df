"""Thresholds on one score together with the threshold of the eligibility lane (`eligibility`)."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, QueryBatch
from toolkit.dimensions import BoxSpace, Dimension
from toolkit.families.base import Deployment, Family, boundary_sweep, dimension_sweep
from toolkit.families.thresholds import ThresholdFamily, threshold_corners
from toolkit.policies.lanes import Lanes
from toolkit.scorers.base import ScoreTable
from toolkit.spaces import JoinedSpace, SearchSpace


class EligibilityFamily(Family):
    """Boundaries, and from which eligibility on a query is pinned.

    Boundaries are load fractions of all queries that the other lanes leave, so that they keep their meaning when the
    lane's threshold moves.

    Args:
        scores: Scores of the N queries, with eligibilities.
        lanes: Lanes with an eligible tier; its threshold is searched.
        n_tiers: K.
        threshold: Bounds of the threshold; 1 pins nobody.

    Raises:
        ConfigError: If there is no eligibility lane.
    """

    kind = "eligibility"

    def __init__(self, scores: ScoreTable, lanes: Lanes, n_tiers: int, threshold: tuple[float, float]) -> None:
        if scores.eligibility is None or lanes.eligible_tier is None:
            raise ConfigError("space=eligibility searches the threshold of a lane; use lane=eligibility or lane=both")
        self.scores, self.lanes, self.n_tiers, self._bounds = scores, lanes, n_tiers, threshold
        self._plain = ThresholdFamily(scores, dataclasses.replace(lanes, eligibility_threshold=None), n_tiers)
        self.parameter_names = (*self._plain.parameter_names, "eligibility_threshold")

    @cached_property
    def _lane(self) -> BoxSpace:
        return BoxSpace((Dimension(name="eligibility_threshold", low=self._bounds[0], high=self._bounds[1]),))

    @cached_property
    def space(self) -> SearchSpace:
        """Load fractions, and the threshold."""
        return JoinedSpace([(self._plain.space, self.n_tiers - 1), (self._lane, 1)])

    def assign(self, params: FloatArray) -> NDArray[np.int8]:
        """See `Family`."""
        eligibility, tier = self.scores.eligibility, self._plain.assign(params[:, :-1])
        assert eligibility is not None and self.lanes.eligible_tier is not None
        pinned = (eligibility[None, :] >= params[:, -1:]) & ~Lanes.failed(self.scores)[None, :]
        tier[pinned] = self.lanes.eligible_tier
        return tier

    def corners(self) -> FloatArray:
        """All traffic on each tier, with the highest threshold: where that is 1, nobody is pinned."""
        return self.space.decode(np.concatenate([threshold_corners(self.n_tiers), np.ones((self.n_tiers, 1))], axis=1))

    def sweep(self, params: FloatArray, i: int, steps: int) -> FloatArray:
        """See `Family`."""
        d = self.n_tiers - 1
        if i < d:
            return boundary_sweep(self._plain.order, params, i, steps, first=0, last=d)
        return dimension_sweep(self._lane.dimensions[0], params, i, steps)

    def transfer(self, scores: ScoreTable, queries: QueryBatch) -> EligibilityFamily:
        """See `Family`."""
        return EligibilityFamily(scores, self.lanes, self.n_tiers, self._bounds)

    def deploy(self, params: FloatArray) -> Deployment:
        """See `Family`."""
        values = dict(zip(self._plain.parameter_names, params[:-1].tolist(), strict=True))
        lanes = dataclasses.replace(self.lanes, eligibility_threshold=float(params[-1]))
        return Deployment(policy="thresholds", values=values, lanes=lanes)
