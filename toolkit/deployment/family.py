"""The family `deployment`: thresholds of the router, and one deployment per tier."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from simulators.outcomes import FloatArray, IntArray, OutcomeTable, QueryBatch
from toolkit.deployment.choices import BoolArray, Choices
from toolkit.deployment.space import DeploymentSpace, RawThresholdSpace
from toolkit.evaluation.estimators import Estimator
from toolkit.evaluation.slices import Coverage
from toolkit.families.base import Deployment, Family
from toolkit.families.thresholds import ThresholdFamily, threshold_corners
from toolkit.policies.lanes import Lanes
from toolkit.scorers.base import ScoreTable
from toolkit.spaces import SearchSpace


class DeploymentFamily(Family):
    """Boundaries and deployments.

    Args:
        scores: Scores of the N queries.
        lanes: Fallback and confidence lanes.
        tiers: K = M names.
        choices: Deployments that can be picked.
        raw_thresholds: Search raw scores instead of load fractions.
    """

    kind = "deployment"

    def __init__(
        self,
        scores: ScoreTable,
        lanes: Lanes,
        tiers: tuple[str, ...],
        choices: Choices,
        *,
        raw_thresholds: bool = False,
    ) -> None:
        self.scores, self.lanes, self.n_tiers = scores, lanes, len(tiers)
        self.routing = ThresholdFamily(scores, lanes, len(tiers))
        self.choices, self._tiers, self._raw = choices, tiers, raw_thresholds
        self.n_routing = len(tiers) - 1
        self.parameter_names = (*self.routing.parameter_names, *(f"deploy_{tier}" for tier in tiers))

    @cached_property
    def space(self) -> DeploymentSpace:
        """Load fractions (or raw scores), then a pick per tier."""
        routing: SearchSpace = self.routing.space
        if self._raw:
            routing = RawThresholdSpace(self.routing.order, self.n_tiers)
        return DeploymentSpace(routing, self.choices, self._needed, self.n_tiers)

    def thresholds(self, params: FloatArray) -> FloatArray:
        """`n x (K-1)` thresholds of `params: n x p`."""
        return params[:, : self.n_routing]

    def choice(self, params: FloatArray) -> IntArray:
        """`n x M` deployments of `params: n x p`."""
        return np.asarray(np.rint(params[:, self.n_routing :]), dtype=np.int64)

    def fractions(self, params: FloatArray) -> FloatArray:
        """`n x K` share of the queries that each tier gets, lanes included."""
        return self._fractions(self.thresholds(params))

    def _fractions(self, thresholds: FloatArray) -> FloatArray:
        order = self.routing.order
        n_free = len(order.order)
        ends = np.full((len(thresholds), 1), n_free)
        edges = np.concatenate([np.zeros((len(thresholds), 1)), order.position(thresholds), ends], axis=1)
        pinned = np.bincount(order.pinned_tier[order.pinned_tier >= 0], minlength=self.n_tiers)
        return np.asarray((np.diff(edges, axis=1) + pinned) / len(order.pinned_tier))

    def _needed(self, thresholds: FloatArray) -> BoolArray:
        return np.asarray(self._fractions(thresholds) > 0)

    def assemble(self, thresholds: FloatArray, choice: IntArray) -> FloatArray:
        """`n x p` parameters from `n x (K-1)` thresholds and `n x M` deployments."""
        return np.concatenate([thresholds, choice.astype(np.float64)], axis=1)

    def assign(self, params: FloatArray) -> NDArray[np.int8]:
        """See `Family`; deployments do not touch it."""
        return self.routing.assign(self.thresholds(params))

    def corners(self) -> FloatArray:
        """All traffic on each tier, on the dearest deployment of it that fits."""
        d = self.n_routing
        thresholds = self.routing.space.decode(threshold_corners(self.n_tiers))
        choice = self.choices.decode(np.ones((len(thresholds), self.n_tiers)), self._needed(thresholds))
        assert thresholds.shape[1] == d
        return self.assemble(thresholds, choice)

    def transfer(self, scores: ScoreTable, queries: QueryBatch) -> DeploymentFamily:
        """See `Family`."""
        return DeploymentFamily(scores, self.lanes, self._tiers, self.choices, raw_thresholds=self._raw)

    def deploy(self, params: FloatArray) -> Deployment:
        """See `Family`; the policy alone."""
        return self.routing.deploy(params[: self.n_routing])

    def sweep(self, params: FloatArray, i: int, steps: int) -> FloatArray:
        """See `Family`; a deployment has no order and stands alone."""
        if i >= self.n_routing:
            return params[None, :].copy()
        moved = self.routing.sweep(params[: self.n_routing], i, steps)
        return np.concatenate([moved, np.tile(params[self.n_routing :], (len(moved), 1))], axis=1)

    def estimate(self, table: OutcomeTable, coverage: Coverage, params: FloatArray) -> Estimator:
        """Exact figures of the routing alone, by prefix sums."""
        return self.routing.estimate(table, coverage, self.thresholds(params))
