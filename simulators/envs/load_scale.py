"""Thresholds as cumulative load positions: the share of reference queries that score below each of them."""

from __future__ import annotations

import sys

import numpy as np

from simulators.errors import InputDataError
from simulators.outcomes import FloatArray

UNREACHABLE = sys.float_info.max
"""A threshold that no score reaches; its negative is one that every score reaches. Finite, so that JSON stays JSON."""


class LoadScale:
    """Positions in [0, 1] and thresholds on a score, both ways.

    A position `p` is the threshold that `round(p M)` of the M reference scores lie below: the middle between its two
    neighbours. Queries with one and the same score cannot be parted, so they all stay above.

    Args:
        reference: Scores of the traffic to be expected, at least one.

    Raises:
        InputDataError: If there is none, or one is not finite.
    """

    def __init__(self, reference: FloatArray) -> None:
        finite = int(np.isfinite(reference).sum())
        if not len(reference) or finite < len(reference):
            raise InputDataError(
                f"a load scale needs one or more reference scores, all finite; of {len(reference)}, {finite} are: "
                "leave out queries without a score"
            )
        self._sorted = np.sort(np.asarray(reference, dtype=np.float64))
        low, high = self._sorted[:-1], self._sorted[1:]
        middle = low + (high - low) / 2
        middle = np.where(middle > low, middle, high)
        self._edges: FloatArray = np.concatenate([[-UNREACHABLE], middle, [UNREACHABLE]])

    def thresholds(self, positions: FloatArray) -> FloatArray:
        """Non-decreasing thresholds of `... x (K-1)` positions in any order; those outside [0, 1] count as its ends."""
        ascending = np.sort(np.clip(np.asarray(positions, dtype=np.float64), 0.0, 1.0), axis=-1)
        return self._edges[np.rint(ascending * len(self._sorted)).astype(np.int64)]

    def positions(self, thresholds: FloatArray) -> FloatArray:
        """Shares of the reference that lie below each threshold."""
        below = np.searchsorted(self._sorted, np.asarray(thresholds, dtype=np.float64), side="left")
        return np.asarray(below / len(self._sorted))
