r"""All threshold vectors at once: the exact (cost, quality) front over every set of K-1 boundaries on one score.

The total of a candidate is a sum of one look-up per boundary (`toolkit.evaluation.thresholds`). So a dominated choice
of the first k boundaries stays dominated however the others are chosen, and with $s_k(b)$ the step of boundary k at
position b,

    F_k(b) = ND( F_k(b-1) ∪ { x + s_k(b) : x in F_{k-1}(b) } ),   F_0(b) = {0},

gives the front $F_{K-1}$ over all $\binom{B+K-2}{K-1}$ vectors in $(K-1) B$ merges of fronts. The grid of
`controller=exact` is not needed.

Notation: N queries, K tiers, B distinct boundaries, P points on a front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.outcomes import FloatArray
from toolkit.evaluation.thresholds import ScoreOrder

_MOST_POINTS = 2_000


@dataclass(frozen=True, kw_only=True)
class _Front:
    """Partial sums that nothing dominates, by ascending cost and quality.

    Attributes:
        cost, quality: `P` sums.
        chosen: `P x k` indices of the boundaries so far.
    """

    cost: FloatArray
    quality: FloatArray
    chosen: NDArray[np.int32]


def threshold_front(order: ScoreOrder, quality: FloatArray, cost: FloatArray, most: int = _MOST_POINTS) -> FloatArray:
    """`P x (K-1)` thresholds of the front, by ascending cost.

    Args:
        order: Sorted scores of N queries.
        quality: `N x K`.
        cost: `N x K`.
        most: Longer partial fronts are thinned evenly to this many points, so that few tiers are exact and many stay
            affordable.
    """
    steps_quality, steps_cost = _steps(order, quality), _steps(order, cost)
    n_boundaries, n_steps = steps_cost.shape[1], len(steps_cost)
    nothing = _Front(cost=np.zeros(1), quality=np.zeros(1), chosen=np.zeros((1, 0), dtype=np.int32))
    before = [nothing] * n_boundaries
    for k in range(n_steps):
        after: list[_Front] = []
        for b in range(n_boundaries):
            here = _extend(before[b], float(steps_cost[k, b]), float(steps_quality[k, b]), b)
            after.append(_merge(after[-1], here, most) if after else here)
        before = after
    return np.asarray(order.boundaries[before[-1].chosen])


def _steps(order: ScoreOrder, values: FloatArray) -> FloatArray:
    """`(K-1) x B`: what boundary k at each position adds to the total of all on the dearest tier."""
    rows = order.order
    prefix = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values[rows], axis=0)])[order.positions]
    return np.asarray((prefix[:, :-1] - prefix[:, 1:]).T)


def _extend(front: _Front, cost: float, quality: float, b: int) -> _Front:
    last = np.full((len(front.cost), 1), b, dtype=np.int32)
    return _Front(
        cost=front.cost + cost, quality=front.quality + quality, chosen=np.concatenate([front.chosen, last], axis=1)
    )


def _merge(a: _Front, b: _Front, most: int) -> _Front:
    cost, quality = np.concatenate([a.cost, b.cost]), np.concatenate([a.quality, b.quality])
    order = np.lexsort((-quality, cost))
    best = np.maximum.accumulate(quality[order])
    keep = order[np.concatenate([[True], quality[order][1:] > best[:-1]])]
    if len(keep) > most:
        keep = keep[np.linspace(0, len(keep) - 1, most).round().astype(np.int64)]
    chosen = np.concatenate([a.chosen, b.chosen])
    return _Front(cost=cost[keep], quality=quality[keep], chosen=chosen[keep])
