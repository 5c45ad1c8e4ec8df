r"""Logarithm of the constrained expected hypervolume improvement in closed form, for independent Gaussians.

Everything is maximised, and a constraint holds where its slack is not negative.

Notation:
    mean, sd: r x m        objectives y_i ~ N(mean_i, sd_i^2) at r points
    slack: r x c           outcome constraints, N(slack_mean, slack_sd^2)
    floor: m               y_i must reach it as well; -inf for none
    lower, upper: B x m    disjoint boxes [l, u) that tile what lies above the reference and is not dominated
    z                      (mean - t) / sd, for a level t
    phi, Phi               density and distribution function of N(0, 1)
    h(z)                   phi(z) + z Phi(z), so that E[(y - t)_+] = sd h(z)

With L the floor, p = max(l, L), z_p and z_u the z of p and u, the expected length of a box along one axis is

    f = E[(min(y, u) - l)_+ 1{y >= L}] = (min(p, u) - l) Phi(z_p) + 1{p < u} sd [h(z_p) - h(z_u)]

and

    EHVI = sum over boxes of prod_i f_i, times prod_j Phi(slack_mean_j / slack_sd_j)

the sum over a box decomposition as in [Daulton2020]_, in logarithms as in [Ament2023]_ so that its gradient does not
vanish far from the front. Numerics: with n = max(-z_p, 0), every term of f is held divided by exp(-n^2 / 2), through
erfcx, so that the logarithm is taken of a number of ordinary size. Differences over short steps use a Taylor series.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx

from simulators.outcomes import FloatArray
from toolkit.pareto.front import non_dominated

_PHI_0 = 1.0 / math.sqrt(2.0 * math.pi)
_SMALLEST_SD = 1e-60
_LARGEST_Z = 1e75  # its square and its fourth power stay finite
_ASYMPTOTIC = 30.0  # from here on the Mills ratio is a six-term series to 1e-13
_SHORT_STEP = 1e-3  # relative to max(1, |z|)
_ELEMENTS = 16_384  # boxes times points held at once: what fits the cache


@dataclass(frozen=True, eq=False)
class Boxes:
    """Disjoint boxes.

    Attributes:
        lower: `B x m` finite lower corners, included.
        upper: `B x m` upper corners, excluded; may be `+inf`.
    """

    lower: FloatArray
    upper: FloatArray

    def __len__(self) -> int:
        return len(self.lower)


# ---------------------------------------------------------------------------------------------------------------------
# Decomposition
# ---------------------------------------------------------------------------------------------------------------------


def non_dominated_boxes(front: FloatArray, reference: FloatArray) -> Boxes:
    """Tile the region above the reference that no point of the front dominates.

    `F + 1` boxes for two objectives and at most `2 F + 1` for three; more objectives use a plain recursive split.

    Args:
        front: `F x m` points; dominated ones, duplicates and those not above the reference have no effect.
        reference: `m` coordinates of the reference point.

    Raises:
        ValueError: If a value is not finite or shapes do not fit.
    """
    front, reference = np.asarray(front, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    m = len(reference)
    if m < 1 or front.ndim != 2 or front.shape[1] != m:
        raise ValueError(f"expected front: F x m and reference: m; got {front.shape} and {reference.shape}")
    if not (np.isfinite(front).all() and np.isfinite(reference).all()):
        raise ValueError("the front and the reference must be finite; drop failed evaluations first")
    front = front[(front > reference).all(axis=1)]
    front = front[non_dominated(front)]
    front = front[np.lexsort(front.T)[::-1]]  # by the last objective, best first
    if m == 1:
        return _open_boxes(front[:1] if len(front) else reference[None])
    if m == 2:
        return _strips(front, reference)
    return _sweep(front, reference) if m == 3 else _split(front, reference)


def _open_boxes(lower: FloatArray) -> Boxes:
    return Boxes(lower, np.full_like(lower, np.inf))


def _strips(front: FloatArray, reference: FloatArray) -> Boxes:
    """Two objectives, `front` in order of the second one: a strip between neighbours along the first one."""
    first = np.r_[reference[0], front[:, 0]]
    boxes = _open_boxes(np.stack([first, np.r_[front[:, 1], reference[1]]], axis=1))
    boxes.upper[:-1, 0] = first[1:]
    return boxes


class _Strip(NamedTuple):
    """`[start, next start) x [height, inf)` of the first two objectives, not dominated below `top` in the third."""

    start: float
    height: float
    top: float


def _sweep(front: FloatArray, reference: FloatArray) -> Boxes:
    """Three objectives, `front` in order of the third one, best first.

    Going down the third axis, the strips form a staircase with heights that fall. A point `(x, y, z)` closes the
    strips that it dominates at level z, cuts the one around x, and opens one strip in their place.
    """
    strips = [_Strip(float(reference[0]), float(reference[1]), math.inf)]
    rows: list[tuple[float, ...]] = []
    for x, y, z in front.tolist():
        i = bisect_right(strips, -y, key=lambda strip: -strip.height)
        j = bisect_left(strips, x, key=lambda strip: strip.start)
        end = strips[j].start if j < len(strips) else math.inf
        rows += _closed(strips[i:j], x, z)
        rest = [_Strip(x, *strips[j - 1][1:])] if x < end else []
        strips[i:j] = [_Strip(strips[i].start, y, z), *rest]
    rows += _closed(strips, math.inf, float(reference[2]))
    table = np.array(rows)
    return Boxes(np.ascontiguousarray(table[:, :3]), np.ascontiguousarray(table[:, 3:]))


def _closed(strips: list[_Strip], end: float, bottom: float) -> Iterator[tuple[float, ...]]:
    """Corners of the boxes above neighbouring strips, the last one cut at `end`, down to `bottom`."""
    ends = [strip.start for strip in strips[1:]] + [end]
    for (start, height, top), stop in zip(strips, ends, strict=True):
        if bottom < top:
            yield start, height, bottom, stop, math.inf, top


def _split(front: FloatArray, reference: FloatArray) -> Boxes:
    """Any number of objectives: each point cuts every box that it dominates in part into at most m pieces.

    Piece i lies above the point in objective i and below it in the objectives before i.
    """
    lower, upper = reference[None], np.full((1, len(reference)), np.inf)
    for point in front:
        cut = (lower < point).all(axis=1)
        pieces = [(lower[~cut], upper[~cut])]
        for i, level in enumerate(point):
            above = cut & (upper[:, i] > level)
            low, high = lower[above].copy(), upper[above].copy()
            low[:, i] = level
            high[:, :i] = np.minimum(high[:, :i], point[:i])
            pieces.append((low, high))
        lower, upper = (np.concatenate(side) for side in zip(*pieces, strict=True))
    return Boxes(lower, upper)


# ---------------------------------------------------------------------------------------------------------------------
# Expectation
# ---------------------------------------------------------------------------------------------------------------------


def log_ehvi(
    mean: FloatArray,
    sd: FloatArray,
    boxes: Boxes,
    floor: FloatArray,
    slack_mean: FloatArray,
    slack_sd: FloatArray,
) -> FloatArray:
    """Logarithm of the constrained expected hypervolume improvement.

    Args:
        mean: `r x m` means of the objectives.
        sd: `r x m` standard deviations, positive.
        boxes: `B` boxes that tile the region to be gained.
        floor: `m` values that the objectives must reach; `-inf` for none.
        slack_mean: `r x c` means of the slacks; `c` may be 0.
        slack_sd: `r x c` standard deviations, positive.

    Returns:
        `r` finite logarithms.

    Raises:
        ValueError: If shapes do not fit.
    """
    _check_shapes(mean, sd, boxes, floor, slack_mean, slack_sd)
    value = _log_feasibility(slack_mean, slack_sd)[0]
    for rows in _chunks(len(mean), len(boxes)):
        value[rows] += _log_sum(mean[rows].T, sd[rows].T, boxes, floor, gradient=False)[0]
    return value


def log_ehvi_with_gradient(
    mean: FloatArray,
    sd: FloatArray,
    boxes: Boxes,
    floor: FloatArray,
    slack_mean: FloatArray,
    slack_sd: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """`log_ehvi` and its derivatives.

    Args:
        mean: As in `log_ehvi`, like all others.

    Returns:
        `r` values, then derivatives in `mean` and `sd: r x m`, and in `slack_mean` and `slack_sd: r x c`.

    Raises:
        ValueError: If shapes do not fit.
    """
    _check_shapes(mean, sd, boxes, floor, slack_mean, slack_sd)
    value, d_slack_mean, d_slack_sd = _log_feasibility(slack_mean, slack_sd)
    d_mean, d_sd = np.empty(mean.shape), np.empty(mean.shape)
    for rows in _chunks(len(mean), len(boxes)):
        log_sum, by_mean, by_sd = _log_sum(mean[rows].T, sd[rows].T, boxes, floor, gradient=True)
        value[rows] += log_sum
        d_mean[rows], d_sd[rows] = by_mean.T, by_sd.T
    return value, d_mean, d_sd, d_slack_mean, d_slack_sd


def _check_shapes(
    mean: FloatArray, sd: FloatArray, boxes: Boxes, floor: FloatArray, slack_mean: FloatArray, slack_sd: FloatArray
) -> None:
    r, m = mean.shape
    if sd.shape != (r, m) or boxes.lower.shape[1] != m or floor.shape != (m,):
        raise ValueError(f"objectives do not fit: {mean.shape}, {sd.shape}, {boxes.lower.shape}, {floor.shape}")
    if slack_mean.ndim != 2 or len(slack_mean) != r or slack_sd.shape != slack_mean.shape:
        raise ValueError(f"slacks of {r} points do not fit: {slack_mean.shape} and {slack_sd.shape}")


def _chunks(r: int, boxes: int) -> Iterator[slice]:
    step = max(1, _ELEMENTS // boxes)
    for start in range(0, r, step):
        yield slice(start, start + step)


def _log_feasibility(mean: FloatArray, sd: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`r` sums over c of `log Phi(mean / sd)`, and their `r x c` derivatives in either argument."""
    sd = np.maximum(sd, _SMALLEST_SD)
    at = _tail(mean / sd)
    log_probability = np.log(at.step + at.remainder) - 0.5 * at.depth**2
    d_mean = at.density / (at.step + at.remainder) / sd
    return log_probability.sum(axis=1), d_mean, -d_mean * at.z


class _Tail(NamedTuple):
    """Gaussian functions of an array z, all divided by `exp(-depth^2 / 2)`: ordinary numbers however deep z lies.

    Attributes:
        z: The argument, clipped to where powers of it are finite.
        depth: `max(-z, 0)`.
        density: `phi(z)`.
        step: 1 where z >= 0, else 0.
        remainder: `Phi(z) - step`.
        excess: `h(z) - max(z, 0)`, which is `h(-|z|)`.
    """

    z: FloatArray
    depth: FloatArray
    density: FloatArray
    step: FloatArray
    remainder: FloatArray
    excess: FloatArray

    def take(self, index: NDArray[np.intp]) -> _Tail:
        """The rows `index`."""
        return _Tail(*(part.take(index, axis=0) for part in self))


def _tail(z: FloatArray) -> _Tail:
    """Evaluate `_Tail`; with `x = |z|`, `t = Phi(-x) exp(x^2 / 2) = erfcx(x / sqrt 2) / 2` and `h(-x) = phi(x) - x t`.

    For large x the latter cancels, and `phi(0) (x^-2 - 3 x^-4 + 15 x^-6 - ...)` takes its place.
    """
    z = np.clip(z, -_LARGEST_Z, _LARGEST_Z)
    x = np.abs(z)
    depth = np.maximum(-z, 0.0)
    shrink = np.exp(-0.5 * (x - depth) ** 2)
    tail = 0.5 * erfcx(x / math.sqrt(2.0))
    excess = _PHI_0 - x * tail
    far = x > _ASYMPTOTIC
    if far.any():
        w = x[far] ** -2.0
        excess[far] = _PHI_0 * w * (1 - w * (3 - w * (15 - w * (105 - w * (945 - w * 10395)))))
    step = (z >= 0.0).astype(np.float64)
    return _Tail(z, depth, _PHI_0 * shrink, step, np.where(z < 0.0, tail, -shrink * tail), shrink * excess)


def _log_sum(
    mean: FloatArray, sd: FloatArray, boxes: Boxes, floor: FloatArray, *, gradient: bool
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`r` logarithms of the sum over boxes for `mean, sd: m x r`, with `m x r` derivatives (empty if not wanted)."""
    axes = [
        _log_length(mean[i], np.maximum(sd[i], _SMALLEST_SD), boxes.lower[:, i], boxes.upper[:, i], floor[i], gradient)
        for i in range(len(mean))
    ]
    total = sum((axis[0] for axis in axes[1:]), start=axes[0][0])
    largest = total.max(axis=0)
    weight = np.exp(total - largest)
    norm = weight.sum(axis=0)
    value = largest + np.log(norm)
    if not gradient:
        return value, np.empty(0), np.empty(0)
    weight /= norm
    d_mean, d_sd = (np.stack([np.einsum("br,br->r", weight, axis[k]) for axis in axes]) for k in (1, 2))
    return value, d_mean, d_sd


def _log_length(
    mean: FloatArray, sd: FloatArray, lower: FloatArray, upper: FloatArray, floor: float, gradient: bool
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`B x r` logarithms of f for one objective `mean, sd: r`, with derivatives in both (empty if not wanted)."""
    start = np.maximum(lower, floor)
    levels, index = np.unique(np.concatenate([start, upper]), return_inverse=True)
    at = _tail((mean - levels[:, None]) / sd)
    p, u = at.take(index[: len(lower)]), at.take(index[len(lower) :])
    step = np.maximum(upper - start, 0.0)[:, None] / sd
    gap = (np.minimum(start, upper) - lower)[:, None]  # zero where the floor is below the box
    decay = np.exp(-0.5 * np.minimum(step, u.depth) * (u.depth + p.depth))  # exp of (z_p^2 - z_u^2) / 2, negative z
    rise = np.minimum(step, np.maximum(p.z, 0.0)) + p.excess - decay * u.excess  # h(z_p) - h(z_u)
    short = np.nonzero(step * np.maximum(np.abs(p.z), 1.0) < _SHORT_STEP)
    near = _Tail(*(part[short] for part in p))
    rise[short] = _short_rise(near, step[short])
    size = sd * rise + gap * (p.step + p.remainder)
    log_length = np.log(size) - 0.5 * p.depth**2
    if not gradient:
        return log_length, np.empty(0), np.empty(0)
    d_phi, d_density = p.step - decay * u.step + (p.remainder - decay * u.remainder), p.density - decay * u.density
    d_phi[short], d_density[short] = _short_slopes(near, step[short])
    at_floor = gap * p.density / sd
    return log_length, (at_floor + d_phi) / size, (d_density - at_floor * p.z) / size


def _short_rise(p: _Tail, step: FloatArray) -> FloatArray:
    """`h(z) - h(z - step)` to fourth order, from `h' = Phi` and `phi' = -z phi`."""
    bend = step / 2 * (1 + step * p.z / 3 + step**2 * (p.z**2 - 1) / 12)
    return step * (p.step + p.remainder - p.density * bend)


def _short_slopes(p: _Tail, step: FloatArray) -> tuple[FloatArray, FloatArray]:
    """`Phi(z) - Phi(z - step)` and `phi(z) - phi(z - step)` to third order."""
    z, mass = p.z, step * p.density
    d_phi = mass * (1 + step * z / 2 + step**2 * (z**2 - 1) / 6)
    return d_phi, -mass * (z + step * (z**2 - 1) / 2 + step**2 * (z**3 - 3 * z) / 6)
