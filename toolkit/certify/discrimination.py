"""How well a score tells two kinds of queries apart: AUC and average precision, each with an interval.

Notation: n queries, m of them positive; a higher score should mean positive.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from simulators.outcomes import FloatArray, IntArray
from toolkit.certify.intervals import CONFIDENCE, UNKNOWN, Interval

RESAMPLES = 400
_CHUNK_ELEMENTS = 4_000_000
Labels = NDArray[np.bool_]


def auc_interval(score: FloatArray, label: Labels, group: IntArray, confidence: float = CONFIDENCE) -> Interval:
    """Area under the ROC curve: the probability that a positive query scores above a negative one, ties counting half.

    The interval inverts Hanley and McNeil's variance at the true area (Newcombe 2006, method 5), so that it has a width
    at an area of 1 too. Where queries of one group depend on each other, the variance is inflated by the ratio of
    DeLong's variance over groups to that over queries.

    Args:
        score: `n` finite scores.
        label: `n`.
        group: `n` codes of queries that are not independent of each other.
        confidence: Level.

    Returns:
        NaN throughout where only one kind of query is there.
    """
    m, k = int(label.sum()), int((~label).sum())
    if m == 0 or k == 0:
        return UNKNOWN
    influence, area = _influences(score, label)
    inflation = _inflation(influence, group)
    z = float(stats.norm.isf((1 - confidence) / 2)) * np.sqrt(inflation)
    return Interval(mean=area, low=_newcombe_low(area, m, k, z), high=1 - _newcombe_low(1 - area, m, k, z))


def _influences(score: FloatArray, label: Labels) -> tuple[FloatArray, float]:
    """`n` influences of each query on the area (DeLong's components), and the area."""
    ranks, m = stats.rankdata(score), int(label.sum())
    within = np.empty(len(score))
    within[label], within[~label] = stats.rankdata(score[label]), stats.rankdata(score[~label])
    k = len(score) - m
    placement = np.where(label, (ranks - within) / k, 1 - (ranks - within) / m)
    area = float(placement[label].mean())
    return (placement - area) / np.where(label, m, k), area


def _inflation(influence: FloatArray, group: IntArray) -> float:
    """Variance over groups, relative to that over queries; at least 1."""
    alone = float((influence**2).sum())
    _, code = np.unique(group, return_inverse=True)
    together = float((np.bincount(code, weights=influence) ** 2).sum())
    return max(1.0, together / alone) if alone > 0 else max(1.0, len(code) / (int(code.max()) + 1))


def _newcombe_low(area: float, m: int, k: int, z: float) -> float:
    """The smallest area A with `|area - A| <= z sd(A)`."""
    if area <= 0:
        return 0.0
    balance = (m + k) / 2 - 1

    def excess(a: float) -> float:
        variance = a * (1 - a) * (1 + balance * (1 - a) / (2 - a) + balance * a / (1 + a)) / (m * k)
        return (area - a) ** 2 - z**2 * variance

    below = area * (1 - 1e-9)
    return float(optimize.brentq(excess, 0.0, below)) if excess(below) < 0 else float(area)


def average_precision_interval(
    score: FloatArray,
    label: Labels,
    group: IntArray,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Average precision: mean precision over the positives met while going down the score; the base rate for a coin.

    The interval is that of the percentile bootstrap over groups.

    Args:
        score: `n` finite scores.
        label: `n`.
        group: `n` codes of queries that are drawn together.
        rng: Source of the resamples.
        resamples: Number of resamples.
        confidence: Level.

    Returns:
        NaN throughout where only one kind of query is there; NaN ends with fewer than two groups.
    """
    if label.all() or not label.any():
        return UNKNOWN
    ladder = _Ladder(score, label)
    (mean,) = ladder.average_precision(np.ones((1, len(score))))
    _, code = np.unique(group, return_inverse=True)
    n_groups = int(code.max()) + 1
    if n_groups < 2:
        return Interval(mean=float(mean), low=np.nan, high=np.nan)
    found, step = [], max(1, _CHUNK_ELEMENTS // len(score))
    for start in range(0, resamples, step):
        draws = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=min(step, resamples - start))
        found.append(ladder.average_precision(draws[:, code].astype(np.float64)))
    alpha = (1 - confidence) / 2
    low, high = np.nanquantile(np.concatenate(found), [alpha, 1 - alpha])
    return Interval(mean=float(mean), low=min(float(low), float(mean)), high=max(float(high), float(mean)))


class _Ladder:
    """Queries by falling score, one rung per distinct score."""

    def __init__(self, score: FloatArray, label: Labels) -> None:
        self._order = np.argsort(-score, kind="stable")
        ordered = score[self._order]
        self._last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
        self._positive = label[self._order].astype(np.float64)

    def average_precision(self, weights: FloatArray) -> FloatArray:
        """`B` values under `weights: B x n`; NaN where no positive query has weight."""
        weights = weights[:, self._order]
        taken = np.cumsum(weights, axis=1)[:, self._last]
        hits = np.cumsum(weights * self._positive, axis=1)[:, self._last]
        gained = np.diff(hits, axis=1, prepend=0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(taken > 0, hits / taken, 0.0)
            return np.asarray((gained * precision).sum(axis=1) / hits[:, -1])
