"""Non-dominated sets."""

from __future__ import annotations

import numpy as np

from simulators.outcomes import FloatArray, IntArray
from toolkit.problem import Evaluation


def non_dominated(Y: FloatArray) -> np.ndarray:
    """`n`, True for the rows of `Y: n x m` (maximised) that no other row dominates; one of equal rows is kept."""
    import moocore

    if len(Y) == 0:
        return np.zeros(0, dtype=bool)
    return np.asarray(moocore.is_nondominated(Y, maximise=True, keep_weakly=False))


def feasible_front(evaluation: Evaluation) -> IntArray:
    """Rows of the non-dominated feasible candidates, ordered by the first objective."""
    rows = np.flatnonzero(evaluation.feasible)
    front = rows[non_dominated(evaluation.Y[rows])]
    return np.asarray(front[np.lexsort(evaluation.Y[front].T[::-1])])
