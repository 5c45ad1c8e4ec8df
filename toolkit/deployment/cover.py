"""Greedy cover: the few that serve many needs almost as well as all would."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np

from simulators.outcomes import FloatArray

_NO_GAIN = 1e-9


def cover(n: int, loss: Callable[[int], FloatArray], worst: FloatArray, most: int) -> list[int]:
    """Pick one after the other what lowers the total loss most.

    A need's loss is the smallest of those picked. Gains only shrink as more is picked, so a gain computed earlier
    bounds today's, and few are computed anew (lazy greedy). Equal gains go to the lower index.

    Args:
        n: Things to pick from.
        loss: Thing -> `S` losses.
        worst: `S` losses with nothing picked.
        most: Picks at most; fewer where the rest gains nothing.

    Returns:
        Picks in order.
    """
    left = worst.copy()
    heap = [(-float(np.maximum(left - loss(c), 0.0).sum()), c) for c in range(n)]
    heapq.heapify(heap)
    picked: list[int] = []
    while heap and len(picked) < most:
        _, c = heapq.heappop(heap)
        found = loss(c)
        gain = float(np.maximum(left - found, 0.0).sum())
        if heap and (-gain, c) > heap[0]:
            heapq.heappush(heap, (-gain, c))
        elif gain > _NO_GAIN:
            picked.append(c)
            left = np.minimum(left, found)
    return picked
