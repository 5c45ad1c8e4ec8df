"""Median times of repeated work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

Found = TypeVar("Found")


def median_seconds(work: Callable[[], Found], runs: int) -> tuple[float, Found]:
    """Median seconds of `runs` (at least one) runs, and what the last one found."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), found
