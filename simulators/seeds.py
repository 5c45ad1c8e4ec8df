"""One `SeedSequence` per run, split by name, so that adding a consumer never shifts another one."""

from __future__ import annotations

import zlib

import numpy as np


def spawn_rng(seed: int, *names: str) -> np.random.Generator:
    """Independent generator for one named purpose of a run.

    Args:
        seed: The run's seed, a non-negative integer.
        names: What the numbers are for, such as `"split"`; the same names give the same stream.

    Returns:
        A generator whose stream depends on `seed` and `names` alone.
    """
    key = tuple(zlib.crc32(name.encode()) for name in names)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
