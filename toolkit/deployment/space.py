"""The search space of thresholds and deployments together.

Parameters: `t_1 ... t_{K-1}`, then `deploy_<tier>`, the index of the tier's deployment in its candidate set. The unit
cube has one coordinate for each: load fractions (or raw scores), then a pick per tier (`toolkit.deployment.choices`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simulators.outcomes import FloatArray
from toolkit.deployment.choices import BoolArray, Choices
from toolkit.evaluation.thresholds import ScoreOrder
from toolkit.spaces import SearchSpace


class RawThresholdSpace:
    """Thresholds between the lowest and the highest score, sorted: equal steps move unequal traffic.

    The ablation of load fractions; in more than one dimension it has mirror copies, too.

    Args:
        order: The sorted scores.
        n_tiers: K.
    """

    def __init__(self, order: ScoreOrder, n_tiers: int) -> None:
        self.dim = n_tiers - 1
        self._order = order
        ends = order.sorted_scores[[0, -1]] if len(order.sorted_scores) else np.zeros(2)
        self._low, self._high = float(ends[0]), float(ends[1])

    def decode(self, X: FloatArray) -> FloatArray:
        """See `SearchSpace`; 1 sends all traffic below the boundary."""
        wanted = np.sort(self._low * (1.0 - X) + self._high * X, axis=1)
        position = np.where(wanted >= self._high, len(self._order.order), self._order.position(wanted))
        return np.asarray(self._order.boundaries[np.searchsorted(self._order.positions, position)])

    def encode(self, params: FloatArray) -> FloatArray:
        """See `SearchSpace`."""
        width = self._high - self._low
        x = (params - self._low) / width if width > 0 else np.zeros_like(params)
        return np.asarray(np.clip(x, 0.0, 1.0))


class DeploymentSpace:
    """Thresholds and one deployment per tier.

    Args:
        routing: Space of the `K-1` thresholds.
        choices: Deployments that can be picked.
        needed: `n x (K-1)` thresholds -> `n x M`, True where a tier gets requests.
        n_tiers: K = M.
    """

    def __init__(
        self, routing: SearchSpace, choices: Choices, needed: Callable[[FloatArray], BoolArray], n_tiers: int
    ) -> None:
        self._routing, self._choices, self._needed = routing, choices, needed
        self._d = n_tiers - 1
        self.dim = routing.dim + n_tiers

    def decode(self, X: FloatArray) -> FloatArray:
        """See `SearchSpace`."""
        thresholds = self._routing.decode(X[:, : self._routing.dim])
        choice = self._choices.decode(X[:, self._routing.dim :], self._needed(thresholds))
        return np.concatenate([thresholds, choice.astype(np.float64)], axis=1)

    def encode_routing(self, params: FloatArray) -> FloatArray:
        """`n x (K-1)` coordinates of the thresholds alone."""
        return self._routing.encode(params[:, : self._d])

    def encode(self, params: FloatArray) -> FloatArray:
        """See `SearchSpace`."""
        thresholds, choice = params[:, : self._d], params[:, self._d :].astype(np.int64)
        picks = self._choices.encode(choice, self._needed(thresholds))
        return np.concatenate([self._routing.encode(thresholds), picks], axis=1)
