r"""How good a set of evaluated policies is: in scaled coordinates, and on the (cost, quality) plane.

Notation:
    `Z: n x m` coordinates of n evaluations, **maximised** (`toolkit.pareto.axes`), `r` the reference point;
    `best` the best-known front; `c`, `q` mean cost and quality; `s` the share of queries that go to the strong tier.
Rows with a coordinate that is not finite are failed evaluations: they count as evaluations and dominate nothing.
moocore minimises; the one place that turns the sign is `_minimised`.

References:
    [Hu2024] Q. J. Hu et al., RouterBench: a benchmark for multi-LLM routing systems, arXiv 2403.12031 (AIQ).
    [Ong2024] I. Ong et al., RouteLLM: learning to route LLMs with preference data (PGR, APGR, CPT).
    [Zitzler2003] E. Zitzler et al., Performance assessment of multiobjective optimizers (hypervolume, epsilon).
    [Ishibuchi2015] H. Ishibuchi et al., Modified distance calculation in generational distance and inverted
        generational distance (IGD+).
    [Fonseca2011] C. M. Fonseca et al., On the computation of the empirical attainment function.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from toolkit.pareto.front import non_dominated
from toolkit.zero_router import zero_router

_ROUNDING = 1e-9


def finite_rows(Z: FloatArray) -> np.ndarray:
    """`n`, True where every coordinate of `Z: n x m` is finite."""
    return np.asarray(np.isfinite(Z).all(axis=1))


def _minimised(Z: FloatArray) -> FloatArray:
    """The successful rows of `Z: n x m` with moocore's sign."""
    return np.ascontiguousarray(-Z[finite_rows(Z)])


def hypervolume(Z: FloatArray, reference: FloatArray) -> float:
    r"""Volume $\lambda(\bigcup_i [r, z_i])$ that `Z: n x m` dominates above `reference: m` [Zitzler2003]_."""
    import moocore

    points = _minimised(Z)
    return float(moocore.hypervolume(points, ref=-reference)) if len(points) else 0.0


def _gain(front: FloatArray, z: FloatArray, reference: FloatArray) -> float:
    r"""What `z: m`, above `reference`, adds to `front: k x m`: $\prod_j (z_j - r_j) - HV(\{\min(f, z)\})$."""
    box = float(np.prod(z - reference))
    return box - hypervolume(np.minimum(front, z), reference) if len(front) else box


def hypervolume_trace(Z: FloatArray, feasible: np.ndarray, reference: FloatArray) -> FloatArray:
    """`n` hypervolumes of the feasible ones among the first 1..n evaluations.

    A row that the front so far dominates costs one comparison; any other one hypervolume of the front cut to its box.

    Args:
        Z: `n x m` coordinates in the order of evaluation.
        feasible: `n`; rows that are not finite count as infeasible.
        reference: `m`.
    """
    gains = np.zeros(len(Z))
    front = np.zeros((len(reference), 0))
    for i in np.flatnonzero(feasible & finite_rows(Z) & (reference < Z).all(axis=1)):
        z = Z[i]
        if (front >= z[:, None]).all(axis=0).any():
            continue
        gains[i] = max(_gain(front.T, z, reference), 0.0)
        front = np.concatenate([front[:, (front > z[:, None]).any(axis=0)], z[:, None]], axis=1)
    return np.cumsum(gains)


def regret(Z: FloatArray, best: FloatArray, reference: FloatArray) -> float:
    """$HV(best) - HV(Z)$: the dominated volume that `Z: n x m` leaves to `best: k x m`; below 0 where Z is better."""
    return hypervolume(best, reference) - hypervolume(Z, reference)


def igd_plus(Z: FloatArray, best: FloatArray) -> float:
    r"""Mean distance by which `Z` falls short: $\frac{1}{k} \sum_b \min_z \|\max(b - z, 0)\|$ [Ishibuchi2015]_.

    0 if and only if `Z: n x m` weakly dominates every point of `best: k x m`. Infinite if Z is empty, NaN if best is.
    """
    import moocore

    points, targets = _minimised(Z), _minimised(best)
    if len(targets) == 0:
        return math.nan
    return float(moocore.igd_plus(points, ref=targets)) if len(points) else math.inf


def epsilon_additive(Z: FloatArray, best: FloatArray) -> float:
    r"""Smallest shift of `Z` that covers `best`: $\max_b \min_z \max_j (b_j - z_j)$ [Zitzler2003]_.

    At most 0 if and only if `Z: n x m` weakly dominates every point of `best: k x m`; below 0 if each is beaten on
    every axis. Infinite if Z is empty, NaN if best is.
    """
    import moocore

    points, targets = _minimised(Z), _minimised(best)
    if len(targets) == 0:
        return math.nan
    return float(moocore.epsilon_additive(points, ref=targets)) if len(points) else math.inf


def best_subset_hypervolume(Z: FloatArray, n: int, reference: FloatArray) -> FloatArray:
    """`n` hypervolumes of the best 1..n points of the best-known front, chosen greedily.

    Hypervolume is submodular, so a point's gain can only fall as others are taken: a stale gain is an upper bound and
    only the head of the queue is computed anew (lazy greedy). One sequence attains every entry; the very best n points,
    taken anew for each n, may exceed it, never by more than a factor 1 / (1 - 1/e). Constant once all are taken.

    Args:
        Z: `k x m` best-known points; dominated ones are ignored.
        n: Entries, at least 0.
        reference: `m`.
    """
    points = Z[finite_rows(Z) & (reference < Z).all(axis=1)]
    points = points[non_dominated(points)]
    chosen = _greedy_plane if len(reference) == 2 else _greedy_lazy
    gains = chosen(points, min(n, len(points)), reference)
    return np.cumsum(np.pad(gains, (0, n - len(gains))))


def _greedy_plane(points: FloatArray, n: int, reference: FloatArray) -> FloatArray:
    """`n` gains of greedy choices among `k x 2`: a gain is a rectangle that the neighbours taken so far leave."""
    x, y = points[np.argsort(points[:, 0])].T - reference[:, None]
    left, below, gains = np.zeros_like(x), np.zeros_like(y), np.zeros(n)
    for count in range(n):
        gain = (x - left) * (y - below)
        i = int(np.argmax(gain))
        gains[count] = gain[i]
        left[i:] = np.maximum(left[i:], x[i])
        below[: i + 1] = np.maximum(below[: i + 1], y[i])
    return gains


def _greedy_lazy(points: FloatArray, n: int, reference: FloatArray) -> FloatArray:
    """`n` gains of greedy choices among `k x m`, by a queue of upper bounds."""
    queue = [(-float(np.prod(z - reference)), i, 0) for i, z in enumerate(points)]
    heapq.heapify(queue)
    taken, gains = np.zeros_like(points), np.zeros(n)
    count = 0
    while count < n:
        gain, i, computed_at = heapq.heappop(queue)
        if computed_at == count:
            taken[count], gains[count] = points[i], -gain
            count += 1
        else:
            heapq.heappush(queue, (-max(_gain(taken[:count], points[i], reference), 0.0), i, count))
    return gains


def efficiency(trace: FloatArray, best_subset: FloatArray) -> FloatArray:
    """`n` ratios of the hypervolume after 1..n evaluations to that of the best n points; NaN where the latter is 0.

    1 is attainable with every n, also with one. Not clipped: see `best_subset_hypervolume` for what may exceed 1.
    """
    if trace.shape != best_subset.shape:
        raise ConfigError(f"a trace of {trace.shape} cannot be divided by one of {best_subset.shape}")
    return np.asarray(np.divide(trace, best_subset, out=np.full(len(trace), np.nan), where=best_subset > 0))


def evaluations_to(efficiency: FloatArray, level: float, *, for_good: bool = False) -> int | None:
    """The first n with `efficiency[n - 1] >= level`, or None if there is none.

    Args:
        efficiency: `n`. It may fall again: the best n points improve as well.
        level: Such as 0.95.
        for_good: Take the first n from which on every entry reaches the level.
    """
    reached = efficiency >= level - _ROUNDING
    if for_good:
        reached = np.logical_and.accumulate(reached[::-1])[::-1]
    return int(np.argmax(reached)) + 1 if reached.any() else None


def attainment_surface(fronts: Sequence[FloatArray], level: float) -> FloatArray:
    """`k x m` non-dominated points that at least a share `level` of the runs attains [Fonseca2011]_.

    A run attains what one of its points weakly dominates. A run without points attains nothing, and counts.

    Args:
        fronts: One `n_i x m` array per run.
        level: In (0, 1]; 0.5 is the median surface.

    Raises:
        ConfigError: If there is no run, the level is not a share, or m is not 1, 2 or 3.
    """
    import moocore

    if not fronts or not 0 < level <= 1 or (m := fronts[0].shape[1]) not in (1, 2, 3):
        raise ConfigError(f"an attainment surface needs runs, 1 to 3 objectives and a level in (0, 1]; got {level}")
    needed = max(1, math.ceil(level * len(fronts) - _ROUNDING))
    sets = [points for front in fronts if len(points := _minimised(front))]
    if len(sets) < needed:
        return np.zeros((0, m))
    if m == 1:
        return np.array([[-np.sort([float(points.min()) for points in sets])[needed - 1]]])
    label = np.repeat(np.arange(len(sets)), [len(points) for points in sets])
    found = moocore.eaf(np.concatenate(sets), label, percentiles=[100.0 * needed / len(sets)])
    surface = -np.asarray(found, dtype=np.float64)[:, :m]
    return surface[np.lexsort(surface.T[::-1])]


def aiq(
    cost_usd: FloatArray,
    quality: FloatArray,
    *,
    c_min: float,
    c_max: float,
    variant: Literal["paper", "code"] = "paper",
) -> float:
    r"""Average improvement in quality: mean height of the front's hull over a range of costs [Hu2024]_.

    $\frac{1}{c_{max} - c_{min}} \int_{c_{min}}^{c_{max}} \tilde R(c)\,dc$ with the non-decreasing concave hull
    $\tilde R$, flat beyond its dearest point and 0 below its cheapest: nothing can be bought there.

    Args:
        cost_usd, quality: `n`; NaN rows are left out.
        c_min, c_max: The range, the same for all that are compared; if it has no width, the height there.
        variant: `paper`, or `code`: divided by `c_max`, and the integral from 0, as the authors' program does.

    Returns:
        NaN without a point.

    Raises:
        ConfigError: If the range is not one.
    """
    if not 0 <= c_min <= c_max < math.inf or variant not in ("paper", "code"):
        raise ConfigError(f"AIQ needs 0 <= c_min <= c_max and variant paper or code; got {c_min}, {c_max}, {variant}")
    rows = np.isfinite(cost_usd) & np.isfinite(quality)
    if not rows.any():
        return math.nan
    hull = zero_router(cost_usd[rows], quality[rows])
    low = 0.0 if variant == "code" else c_min
    start = max(low, float(hull.cost_usd[0]))
    if c_max == low:
        return hull.quality_at(c_max) if start <= c_max else 0.0
    if start >= c_max:
        return 0.0
    inside = hull.cost_usd[(hull.cost_usd > start) & (hull.cost_usd < c_max)]
    along = np.array([start, *inside, c_max])
    return float(np.trapezoid(np.interp(along, hull.cost_usd, hull.quality), along) / (c_max - low))


def pgr(quality: FloatArray, *, weak: float, strong: float) -> FloatArray:
    r"""Performance gap recovered, $(q - q_{weak}) / (q_{strong} - q_{weak})$ [Ong2024]_; NaN unless strong > weak."""
    gap = strong - weak
    return (quality - weak) / (gap if gap > 0 else np.nan)


def apgr(strong_share: FloatArray, quality: FloatArray, *, weak: float, strong: float) -> float:
    r"""Average PGR $\int_0^1 PGR(s)\,ds$ by trapezoids [Ong2024]_: 0.5 at random; NaN unless strong > weak.

    The x axis is the share of calls, not money. All-weak (s = 0) and all-strong (s = 1) are added where missing; of
    several points with one share the best counts.

    Args:
        strong_share: `n` shares in [0, 1].
        quality: `n`.
        weak, strong: Quality of the two tiers alone.
    """
    share, height = _best_per_share(strong_share, pgr(quality, weak=weak, strong=strong))
    if strong <= weak:
        return math.nan
    if len(share) == 0 or share[0] > 0:
        share, height = np.append(0.0, share), np.append(0.0, height)
    if share[-1] < 1:
        share, height = np.append(share, 1.0), np.append(height, 1.0)
    return float(np.trapezoid(height, share))


def cpt(strong_share: FloatArray, quality: FloatArray, *, weak: float, strong: float, level: float) -> float | None:
    """Call-performance threshold: the smallest strong share whose PGR is `level` [Ong2024]_.

    Taken on the running maximum, because interpolation needs a monotone curve; linear between two evaluated shares,
    with nothing assumed outside them.

    Args:
        strong_share, quality, weak, strong: As in `apgr`.
        level: Such as 0.5.

    Returns:
        None if the level is never reached, or PGR is undefined.
    """
    share, height = _best_per_share(strong_share, pgr(quality, weak=weak, strong=strong))
    height = np.maximum.accumulate(height)
    reached = np.flatnonzero(height >= level - _ROUNDING)
    if len(reached) == 0:
        return None
    i = int(reached[0])
    if i == 0:
        return float(share[0])
    return float(np.interp(level, height[i - 1 : i + 1], share[i - 1 : i + 1]))


def _best_per_share(share: FloatArray, height: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Distinct shares in order, and the greatest height at each; NaN rows are left out."""
    rows = np.isfinite(share) & np.isfinite(height)
    distinct, code = np.unique(share[rows], return_inverse=True)
    best = np.full(len(distinct), -np.inf)
    np.maximum.at(best, code, height[rows])
    return distinct, best


def quality_at_cost(cost: FloatArray, quality: FloatArray, at: float) -> float:
    """Best quality among the evaluated points that cost at most `at`; no mixtures. NaN if there is none."""
    affordable = quality[(cost <= at) & np.isfinite(quality)]
    return float(affordable.max()) if len(affordable) else math.nan


def cost_at_quality(cost: FloatArray, quality: FloatArray, at: float) -> float:
    """Least cost among the evaluated points of quality `at` or more; no mixtures. NaN if there is none."""
    reached = cost[(quality >= at) & np.isfinite(cost)]
    return float(reached.min()) if len(reached) else math.nan
