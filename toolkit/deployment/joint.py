"""Joint choices: which combinations of the tiers' candidates GPUs and budget allow.

Notation: M tiers, N GPU types, C_m candidates of tier m, J joint choices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray

_SLACK = 1e-9
_BLOCK = 2_000_000


def joint_choices(
    tiers: Sequence[tuple[IntArray, FloatArray]], counts: IntArray, budget_usd_per_hour: float, limit: int
) -> IntArray:
    """All joint choices that fit, at least one tier with GPUs.

    Where they would be more than `limit`, every tier keeps its first few candidates only, the same share of each set,
    the largest for which the choices are few enough. Candidates are in the order of what they add, so the last ones add
    least.

    Args:
        tiers: For each tier its `C x N` GPUs and `C` prices; candidate 0 is "no GPUs".
        counts: `N` GPUs that can be had.
        budget_usd_per_hour: Most that all may cost.
        limit: Choices at most.

    Returns:
        `J x M`, in lexicographic order.

    Raises:
        ConfigError: If `limit` is not positive.
    """
    if limit < 1:
        raise ConfigError(f"the limit of joint choices should be at least 1; got {limit}")
    longest = max(len(usd) for _, usd in tiers)
    found = _within(tiers, counts, budget_usd_per_hour, longest, longest, limit)
    low, high = 0, longest
    if found is None:
        while high - low > 1:
            middle = (low + high) // 2
            tried = _within(tiers, counts, budget_usd_per_hour, middle, longest, limit)
            if tried is None:
                high = middle
            else:
                low, found = middle, tried
    return np.zeros((0, len(tiers)), dtype=np.int64) if found is None else found


def _within(
    tiers: Sequence[tuple[IntArray, FloatArray]],
    counts: IntArray,
    budget: float,
    part: int,
    of: int,
    limit: int,
) -> IntArray | None:
    """Choices among the first `part / of` of every set; None where they are more than `limit`."""
    chosen, gpus, usd = np.zeros((1, 0), dtype=np.int64), np.zeros((1, len(counts)), dtype=np.int64), np.zeros(1)
    for tier_gpus, tier_usd in tiers:
        first = max(1, -(-len(tier_usd) * part // of))
        step = max(1, _BLOCK // first)
        blocks = [
            _joined(
                chosen[i : i + step],
                gpus[i : i + step],
                usd[i : i + step],
                tier_gpus[:first],
                tier_usd[:first],
                counts,
                budget,
            )
            for i in range(0, len(chosen), step)
        ]
        chosen, gpus, usd = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        if len(chosen) > limit + 1:  # every partial choice goes on with "no GPUs"
            return None
    return chosen[(chosen > 0).any(axis=1)]


def _joined(
    chosen: IntArray,
    gpus: IntArray,
    usd: FloatArray,
    more: IntArray,
    price: FloatArray,
    counts: IntArray,
    budget: float,
) -> tuple[IntArray, IntArray, FloatArray]:
    """Partial choices times one more tier, those that fit."""
    fits = usd[:, None] + price <= budget * (1 + _SLACK)
    for n in range(len(counts)):
        fits &= gpus[:, n, None] + more[:, n] <= counts[n]
    before, pick = np.nonzero(fits)
    return np.column_stack([chosen[before], pick]), gpus[before] + more[pick], usd[before] + price[pick]
