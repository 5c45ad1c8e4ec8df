"""Compiling ahead, so that a caller can say what it is waiting for."""

from __future__ import annotations

import numpy as np

from simulators.contention.exact import waits
from simulators.contention.lanes import summarise


def compile_kernels() -> None:
    """Compile both kernels, or load them where an earlier process on this machine has: half a minute, or a second."""
    ready_s, hold_s, row = np.array([0.0, 1.0]), np.ones((1, 1)), np.zeros(2, np.int64)
    tier, station_of, slots = np.zeros((1, 2), np.int8), np.zeros(1, np.int64), np.ones(1, np.int64)
    waits(ready_s, hold_s, row, tier, station_of, slots)
    summarise(ready_s, hold_s, hold_s, row, tier, station_of, slots, limits_s=(1.0,))
