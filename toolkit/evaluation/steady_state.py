r"""Intervals for figures of requests that wait for each other: over replications, or over batches of one long run.

A wait depends on the waits before it. Where $\rho_k$ is the correlation of waits k requests apart, the variance of a
mean of n waits is $\sigma^2 / n \cdot (1 + 2 \sum_k \rho_k)$; in M/M/1 at a utilisation of 0.8 the bracket is 82. An
interval that takes requests as independent, a bootstrap over them included, is nine times too narrow there. Two things
are independent:

* replications, each with queries, arrivals and errors of its own: Student's t over their values;
* nearly so, the means of long batches of one run. The run is cut into many fine batches; if the lag-1 autocorrelation
  of their means is below `MOST_CORRELATED`, batches ten times as long are as good as independent, and Student's t is
  taken over those. Quantiles are *sectioned*: the spread of the batches' quantiles around the quantile of the whole.

Where too little is known for an interval there is none, and a note says why.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from simulators.outcomes import FloatArray

LEVEL = 0.95
FEWEST_REPLICATIONS = 3
MOST_CORRELATED = 0.4
Bounds = tuple[float, float]

_FINE = (400, 200, 100)  # numbers of fine batches that are tried
_JOINED = 10  # fine batches that make one batch
_FEWEST_EVENTS = 10  # values that differ from the most common one; in each batch, values beyond a quantile
_FEW = "too few requests for batches"
_SAME = "the same in every {}, so nothing is known of its spread"
_DEPENDENT = "batches of this run still depend on each other: the run is too short, or its traffic changes over time"


@dataclass(frozen=True, kw_only=True)
class SteadyEstimate:
    """A figure and its interval.

    Attributes:
        value: The figure; NaN where there was nothing to average.
        low, high: Ends of the interval; NaN where there is none.
        n: Replications or batches behind the interval; 0 where there is none.
        note: Why there is no interval, or empty.
    """

    value: float
    low: float = np.nan
    high: float = np.nan
    n: int = 0
    note: str = ""

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return self.n > 0


def over_replications(
    values: FloatArray, *, level: float = LEVEL, bounds: Bounds = (-np.inf, np.inf)
) -> SteadyEstimate:
    """Mean of one figure over independent replications.

    Args:
        values: One value per replication; NaN where a replication had nothing to average.
        level: Coverage of the interval.
        bounds: Range of possible values; the interval is cut to it.
    """
    found = values[np.isfinite(values)]
    if len(found) == 0:
        return SteadyEstimate(value=np.nan, note="no request of this kind")
    centre = float(np.clip(found.mean(), found.min(), found.max()))
    if len(found) < FEWEST_REPLICATIONS:
        return SteadyEstimate(
            value=centre, note=f"an interval takes at least {FEWEST_REPLICATIONS} replications; got {len(found)}"
        )
    return _student(centre, found - centre, level, bounds, "replication")


def batch_mean(values: FloatArray, *, level: float = LEVEL, bounds: Bounds = (-np.inf, np.inf)) -> SteadyEstimate:
    """Mean of `values: n`, in order of arrival and without the warm-up, with an interval over batches."""
    if len(values) == 0:
        return SteadyEstimate(value=np.nan, note="no request of this kind")
    centre = float(values.mean())
    if (np.ptp(values)) == 0:
        return SteadyEstimate(value=centre, note=_SAME.format("request"))
    if int((values != np.median(values)).sum()) < _FEWEST_EVENTS:
        return SteadyEstimate(value=centre, note="too few requests differ from the others")
    parts, note = _batches(values, values)
    if parts is None:
        return SteadyEstimate(value=centre, note=note)
    return _student(centre, parts.mean(axis=1) - centre, level, bounds, "batch")


def batch_quantile(
    values: FloatArray, q: float, *, level: float = LEVEL, bounds: Bounds = (-np.inf, np.inf)
) -> SteadyEstimate:
    """The q-quantile of `values: n`, as `batch_mean`; batches must be independent in how many values exceed it."""
    if len(values) == 0:
        return SteadyEstimate(value=np.nan, note="no request of this kind")
    centre = float(np.quantile(values, q))
    parts, note = _batches(values, (values > centre).astype(np.float64), fewest=_FEWEST_EVENTS / min(q, 1 - q))
    if parts is None:
        return SteadyEstimate(value=centre, note=note)
    return _student(centre, np.quantile(parts, q, axis=1) - centre, level, bounds, "batch")


def lag_one(values: FloatArray) -> float:
    """Lag-1 autocorrelation of `values`; 0 where all are equal."""
    deviation = values - values.mean()
    squares = float(deviation @ deviation)
    return float(deviation[1:] @ deviation[:-1]) / squares if squares > 0 else 0.0


def _batches(values: FloatArray, judged: FloatArray, *, fewest: float = 1.0) -> tuple[FloatArray | None, str]:
    """`b x m` batches of `values` with nearly independent means of `judged`, or None and why not.

    Args:
        values: `n` in order.
        judged: `n`, what the autocorrelation is taken of.
        fewest: Smallest batch.
    """
    note = _FEW
    for fine in _FINE:
        size = len(values) // fine
        if size < 1 or size * _JOINED < fewest:
            continue
        rest = len(values) - fine * size  # the first few are left out: they are nearest to the warm-up
        if lag_one(judged[rest:].reshape(fine, size).mean(axis=1)) < MOST_CORRELATED:
            return values[rest:].reshape(fine // _JOINED, -1), ""
        note = _DEPENDENT
    return None, note


def _student(centre: float, deviation: FloatArray, level: float, bounds: Bounds, unit: str) -> SteadyEstimate:
    """Student's t interval from the deviations of n nearly independent values."""
    n = len(deviation)
    squares = float(deviation @ deviation)
    if squares == 0:
        return SteadyEstimate(value=centre, note=_SAME.format(unit))
    arm = float(special.stdtrit(n - 1, 0.5 + level / 2) * np.sqrt(squares / (n - 1) / n))
    low, high = max(centre - arm, bounds[0]), min(centre + arm, bounds[1])
    return SteadyEstimate(value=centre, low=low, high=high, n=n)
