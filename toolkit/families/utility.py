"""`utility`: λ, with the offsets of the tiers where a range is given."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from simulators.outcomes import FloatArray, OutcomeTable, QueryBatch
from toolkit.dimensions import Dimension
from toolkit.evaluation.estimators import AssignmentEstimator, Estimator
from toolkit.evaluation.path import LambdaPath, PathEstimator
from toolkit.evaluation.slices import Coverage
from toolkit.families.base import Deployment, Family, dimension_sweep, moved
from toolkit.policies.lanes import Lanes
from toolkit.policies.utility import UtilityPolicy
from toolkit.scorers.base import ScoreTable
from toolkit.spaces import SearchSpace, UtilitySpace

_POLICY = UtilityPolicy()


class UtilityFamily(Family):
    """`argmax_k p_k + b_k - λ c_k`.

    Args:
        scores: Scores of the N queries, with predicted quality and cost.
        lanes: Fallback and confidence lanes.
        n_tiers: K.
        offset_range: Half-width of the offsets that may be searched, in quality; 0 keeps them at 0.
    """

    kind = "utility"

    def __init__(self, scores: ScoreTable, lanes: Lanes, n_tiers: int, offset_range: float) -> None:
        self.scores, self.lanes, self.n_tiers, self._range = scores, lanes, n_tiers, offset_range
        self.parameter_names = _POLICY.parameter_names(n_tiers)

    @cached_property
    def path(self) -> LambdaPath:
        """The λ path of the predictions."""
        return LambdaPath(self.scores, self.lanes)

    @cached_property
    def space(self) -> SearchSpace:
        """`log λ` over the span of the path, and offsets."""
        return UtilitySpace(self.path, self.n_tiers, self._range)

    def assign(self, params: FloatArray) -> NDArray[np.int8]:
        """See `Family`."""
        return _POLICY.assign(params, self.scores, self.lanes)

    def corners(self) -> FloatArray:
        """The two ends of the path: a utility without large offsets reaches no other single tier."""
        ends = np.full((2, self.space.dim), 0.5)
        ends[:, 0] = [0.0, 1.0]
        return self.space.decode(ends)

    def transfer(self, scores: ScoreTable, queries: QueryBatch) -> UtilityFamily:
        """See `Family`."""
        return UtilityFamily(scores, self.lanes, self.n_tiers, self._range)

    def deploy(self, params: FloatArray) -> Deployment:
        """See `Family`."""
        values = dict(zip(self.parameter_names, params.tolist(), strict=True))
        return Deployment(policy="utility", values=values, lanes=self.lanes)

    def sweep(self, params: FloatArray, i: int, steps: int) -> FloatArray:
        """See `Family`; λ moves by 1 % of the span of its logarithm on the path, an offset by 0.001 of quality."""
        if i == 0:
            ends = self.path.lambdas[[0, -1]]
            low, high = min(ends[0], params[0]), max(ends[1], params[0])
            lam = Dimension(name="lambda", low=max(low, 1e-300), high=high, scale="log")
            return dimension_sweep(lam, params, i, steps)
        return moved(params, i, params[i] + 0.001 * np.arange(-steps, steps + 1))

    def estimate(self, table: OutcomeTable, coverage: Coverage, params: FloatArray) -> Estimator:
        """Exact, by the events of the λ path where all offsets are 0."""
        if not params[:, 1:].any():
            return PathEstimator(table, coverage, self.path, params[:, 0])
        return AssignmentEstimator(table, coverage, self.assign(params))
