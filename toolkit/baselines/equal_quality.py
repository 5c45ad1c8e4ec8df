"""Cost at equal held-out quality: two methods compared where they deliver the same, whatever was asked of them.

The path of a method holds the settings that nothing dominates on *tune*, in order of tune cost; between neighbours
traffic is shared in time. Their held-out qualities go up and down by chance, so neighbours that are out of order are
pooled (isotonic regression) into their mean quality and mean cost: picking the luckiest setting at a quality would be
hindsight, the more so the finer the knob.

Notation: n settings, T qualities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from toolkit.baselines.base import RouterRun


@dataclass(frozen=True, kw_only=True)
class CostComparison:
    """Cost of one method over that of another at T held-out qualities.

    Attributes:
        ratio: Mean over the qualities that both reach: below 1 where the method is cheaper. NaN if there is none.
        median: Median over the same; where quality no longer rises with cost, a few levels rule the mean.
        per_level: `T` ratios; NaN where one of the two does not reach the quality.
        n_compared: How many are no NaN.
    """

    ratio: float
    median: float
    per_level: FloatArray
    n_compared: int


def cost_at_equal_quality(run: RouterRun, reference: RouterRun, qualities: FloatArray) -> CostComparison:
    """Compare costs where held-out qualities are equal.

    Args:
        run: The method.
        reference: What it is compared with.
        qualities: `T` held-out qualities, usually those that the reference reached at the requested ones; NaN is left
            out.
    """
    cost, other = (cost_at(which, qualities) for which in (run, reference))
    per_level = np.divide(cost, other, out=np.full(len(cost), np.nan), where=other > 0)
    known = per_level[np.isfinite(per_level)]
    ratio, median = (float(known.mean()), float(np.median(known))) if len(known) else (np.nan, np.nan)
    return CostComparison(ratio=ratio, median=median, per_level=per_level, n_compared=len(known))


def cost_at(run: RouterRun, qualities: FloatArray) -> FloatArray:
    """`T` costs for at least these held-out qualities: the cheapest end's below the path, NaN above it."""
    quality, cost = held_out_path(run)
    return np.asarray(np.interp(qualities, quality, cost, right=np.nan))


def held_out_path(run: RouterRun) -> tuple[FloatArray, FloatArray]:
    """Held-out quality (increasing) and cost along the front of the tune figures.

    Raises:
        ConfigError: If costs are unknown.
    """
    if not (run.tune.has_cost and run.held_out.has_cost):
        raise ConfigError(f"{run.name}: costs are unknown, so there is no cost at equal quality")
    front = _front(run.tune.mean_cost_usd, run.tune.mean_quality)
    quality, cost = run.held_out.mean_quality[front], run.held_out.mean_cost_usd[front]
    pooled = isotonic_regression(quality)
    block = np.repeat(np.arange(len(pooled.weights)), np.diff(pooled.blocks))
    mean_cost = np.bincount(block, weights=cost) / np.bincount(block)
    return np.asarray(pooled.x[pooled.blocks[:-1]]), mean_cost


def _front(cost: FloatArray, quality: FloatArray) -> np.ndarray:
    """Rows that nothing dominates, by ascending cost."""
    order = np.lexsort((-quality, cost))
    best = np.maximum.accumulate(quality[order])
    return np.asarray(order[np.concatenate([[True], quality[order][1:] > best[:-1]])])
