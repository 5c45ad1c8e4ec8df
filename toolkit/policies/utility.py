"""`utility`: `argmax_k p_k(x) + b_k - λ c_k(x)` on predicted quality and cost per tier.

One scalar score must serve every threshold; a utility need not. Its solutions for all λ form a path that
`toolkit.evaluation.path` walks exactly. Members of this family: [Somerstep2025]_ (CARROT), the Lagrangian rule of
cascade routing.

References:
    [Somerstep2025] Somerstep et al., CARROT: a cost aware rate optimal router, arXiv 2502.03261.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from toolkit.policies.lanes import FREE, Lanes
from toolkit.scorers.base import ScoreTable


class UtilityPolicy:
    """Parameters: `lambda` (quality per USD, >= 0) and offsets `b_1 ... b_{K-1}` (`b_0 = 0`)."""

    kind = "utility"

    def parameter_names(self, n_tiers: int) -> tuple[str, ...]:
        """`lambda`, then one offset per tier above the cheapest."""
        return ("lambda", *(f"b_{k}" for k in range(1, n_tiers)))

    def assign(self, params: FloatArray, scores: ScoreTable, lanes: Lanes) -> NDArray[np.int8]:
        """`n x N` tiers of highest utility; ties go to the tier that is cheaper on average."""
        quality, cost = predictions(scores)
        best = np.full((len(params), len(scores.score)), -np.inf)
        tier = np.zeros(best.shape, dtype=np.int8)
        for k in range(quality.shape[1]):
            offset = params[:, [k]] if k else 0.0
            utility = quality[:, k] + offset - params[:, [0]] * cost[:, k]
            better = utility > best
            best[better] = utility[better]
            tier[better] = k
        pinned = lanes.pinned(scores)
        tier[:, pinned != FREE] = pinned[pinned != FREE]
        return tier

    def reasons(self, params: FloatArray, scores: ScoreTable) -> list[str]:
        """The utility that won and the runner-up."""
        quality, cost = predictions(scores)
        utility = quality + np.concatenate([[0.0], params[1:]]) - params[0] * cost
        ranked = np.sort(utility, axis=1)
        return [f"utility {a:.4f}, next {b:.4f}" for a, b in zip(ranked[:, -1], ranked[:, -2], strict=True)]


def predictions(scores: ScoreTable) -> tuple[FloatArray, FloatArray]:
    """Predicted quality and cost, both `N x K`.

    Raises:
        ConfigError: If the scorer predicts neither.
    """
    if scores.quality is None or scores.cost_usd is None:
        raise ConfigError("policy=utility needs predicted quality and cost per tier; this scorer gives a score only")
    return scores.quality, scores.cost_usd
