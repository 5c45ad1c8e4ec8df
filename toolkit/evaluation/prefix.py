"""Prefix sums per group, read off at chosen positions."""

from __future__ import annotations

import numpy as np

from simulators.outcomes import FloatArray, IntArray


def grouped_prefix_sums(values: FloatArray, group: IntArray, n_groups: int, positions: IntArray) -> FloatArray:
    """Sum of the first `positions` values of a sequence, per group.

    Each figure is one running sum in sequence order, so it does not depend on which other positions are asked for:
    a resumed search repeats the uninterrupted one to the last bit.

    Args:
        values: `N` values.
        group: `N` group of each value.
        n_groups: Number of groups.
        positions: `P` prefix lengths in `0 .. N`.

    Returns:
        `P x n_groups`.
    """
    out = np.zeros((len(positions), n_groups))
    by_group = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[by_group], np.arange(n_groups + 1))
    for g in range(n_groups):
        members = by_group[starts[g] : starts[g + 1]]
        if len(members):
            running = np.concatenate([[0.0], np.cumsum(values[members])])
            out[:, g] = running[np.searchsorted(members, positions, side="left")]
    return out
