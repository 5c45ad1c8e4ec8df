"""Are calibrated probabilities right: reliability curve, expected calibration error, Brier score.

References are the base-rate predictor, which says the share of positives of the data it was fitted on to every query,
and for the calibration error what chance alone would give: with few queries per bin no curve lies on the diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.outcomes import FloatArray, IntArray
from toolkit.certify.intervals import UNIT, Interval, mean_interval

BINS = 10


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Queries of about equal probability.

    Attributes:
        n: Queries.
        predicted: Their mean probability.
        observed: Share of positives among them.
    """

    n: int
    predicted: float
    observed: Interval


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Calibrated probabilities against what happened.

    Attributes:
        method: `platt` or `isotonic`.
        n: Queries.
        bins: Equal-mass bins by ascending probability, merged for ties.
        ece: Expected calibration error: mean over queries of |predicted - observed| of their bin.
        ece_by_chance: What it would be on average for right probabilities.
        brier: Mean squared error of the probabilities.
        brier_base_rate: That of the base rate of the data the calibrator was fitted on.
        brier_gain: The base rate's minus the calibrator's, paired: positive where the score helps.
    """

    method: str
    n: int
    bins: tuple[ReliabilityBin, ...]
    ece: float
    ece_by_chance: float
    brier: float
    brier_base_rate: float
    brier_gain: Interval


def reliability(
    method: str, probability: FloatArray, label: NDArray[np.bool_], group: IntArray, *, base_rate: float
) -> Reliability:
    """Judge probabilities on queries that their calibrator has not seen.

    Args:
        method: Name of the calibrator.
        probability: `n`, at least one, none NaN.
        label: `n`.
        group: `n` codes of queries that are not independent of each other.
        base_rate: Share of positives that the base-rate predictor says.
    """
    happened = label.astype(np.float64)
    bins, error, chance = [], 0.0, 0.0
    code = equal_mass_bins(probability, BINS)
    for b in range(int(code.max()) + 1):
        rows = np.flatnonzero(code == b)
        predicted = float(probability[rows].mean())
        observed = mean_interval(happened[rows], group[rows], bounds=UNIT)
        bins.append(ReliabilityBin(n=len(rows), predicted=predicted, observed=observed))
        error += len(rows) * abs(predicted - observed.mean)
        spread = float((probability[rows] * (1 - probability[rows])).sum())
        chance += np.sqrt(2 / np.pi * spread)  # mean absolute deviation of a normal with this variance
    squared, baseline = (probability - happened) ** 2, (base_rate - happened) ** 2
    return Reliability(
        method=method,
        n=len(label),
        bins=tuple(bins),
        ece=error / len(label),
        ece_by_chance=float(chance / len(label)),
        brier=float(squared.mean()),
        brier_base_rate=float(baseline.mean()),
        brier_gain=mean_interval(baseline - squared, group),
    )


def equal_mass_bins(values: FloatArray, n_bins: int) -> IntArray:
    """`n` codes `0 .. B-1` of at most `n_bins` groups of about equal size, ascending; equal values share a group.

    A group of less than half that size is merged with the smaller of its neighbours.
    """
    _, code, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / len(values)
    group = np.unique(np.minimum((n_bins * middle).astype(np.int64), n_bins - 1), return_inverse=True)[1]
    sizes = np.bincount(group, weights=counts).tolist()
    bins = [[g] for g in range(len(sizes))]
    while len(sizes) > 1 and min(sizes) < len(values) / n_bins / 2:
        small = int(np.argmin(sizes))
        left = small > 0 and (small == len(sizes) - 1 or sizes[small - 1] <= sizes[small + 1])
        into = small - 1 if left else small
        bins[into : into + 2] = [bins[into] + bins[into + 1]]
        sizes[into : into + 2] = [sizes[into] + sizes[into + 1]]
    merged = np.repeat(np.arange(len(bins)), [len(b) for b in bins])
    return np.asarray(merged[group][code], dtype=np.int64)
