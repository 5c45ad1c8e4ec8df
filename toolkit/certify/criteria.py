r"""Is a constraint shown to hold, or shown to be broken? One test per constraint, on data that nobody tuned on.

Both answers are p-values: `p_holds` against "the constraint is broken", `p_broken` against "the constraint holds". What
is small is shown; what is not small is not refuted.

* Means (quality, cost, shares, mean latency): one-sided t tests over clusters, see `toolkit.statistics`.
* Quantiles: $q_{0.95} \le L$ says that at most 5 % of the answers are slower than L, which is a test of a share.
* The worst of S slices: it is above a floor if *every* slice is (intersection-union, no correction [Berger1982]_), and
  below if *some* slice is (Bonferroni).
* Averages over the worst slices: from bounds of all slices that hold together (Bonferroni).

References:
    [Berger1982] R. L. Berger, Multiparameter hypothesis testing and acceptance sampling, Technometrics 24.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from toolkit.certify.intervals import (
    CONFIDENCE,
    DIFFERENCE,
    UNIT,
    UNKNOWN,
    Interval,
    group_estimates,
    quantile_interval,
    two_sided,
    worst_interval,
)
from toolkit.evaluation.constraints import Constraint
from toolkit.evaluation.metrics import QUANTILES, ROUTER_DELAYS, Metric
from toolkit.evaluation.robust import cvar_of_means
from toolkit.evaluation.slices import Coverage
from toolkit.statistics import MeanEstimate, estimate_mean

_SMALLEST_P = 1e-12


@dataclass(frozen=True, kw_only=True)
class ConstraintTest:
    """One constraint on new data.

    Attributes:
        text: The constraint, such as `quality >= 0.9`.
        value: The figure, with its interval where there is one.
        p_holds: Small where the constraint is shown to hold.
        p_broken: Small where it is shown to be broken.
        note: Why nothing can be said, or empty.
    """

    text: str
    value: Interval
    p_holds: float
    p_broken: float
    note: str = ""


class Judge:
    """Tests of constraints for one table, any number of policies.

    Args:
        table: Data that the policies were not tuned on.
        coverage: Its covered groups.
        simulated_latency: Whether latencies are a simulation under load: they are then shown, not tested.
    """

    def __init__(self, table: OutcomeTable, coverage: Coverage, *, simulated_latency: bool = False) -> None:
        self._table, self._coverage, self._simulated = table, coverage, simulated_latency
        self._rows = np.arange(table.n_queries)
        self._cluster = table.cluster_code

    def test(self, constraint: Constraint, tier: IntArray) -> ConstraintTest:
        """Test one constraint for the policy that sends query i to `tier[i]`."""
        metric, limit = constraint.metric, constraint.limit
        reason = self._unknown(metric)
        if reason:
            return ConstraintTest(text=constraint.text, value=UNKNOWN, p_holds=1.0, p_broken=1.0, note=reason)
        if metric.base in {"worst_slice", "worst_slice_lcb"}:
            value, above, below = self._worst(self._per_group(self._quality(tier), UNIT), limit)
        elif metric.base == "slice_cvar":
            assert metric.share is not None
            value, above, below = self._cvar(self._per_group(self._quality(tier), UNIT), metric.share, limit)
        elif metric.base in {"slice_loss", "slice_loss_ucb"}:
            assert metric.tier is not None
            gain = self._quality(tier) - self._table.quality[:, self._table.tiers.index(metric.tier)]
            flipped, above, below = self._worst(self._per_group(gain, DIFFERENCE), -limit)
            value = Interval(mean=0.0 - flipped.mean, low=0.0 - flipped.high, high=0.0 - flipped.low)
            below, above = above, below
        elif metric.base in {**QUANTILES, **ROUTER_DELAYS}:
            value, above, below = self._quantile(tier, metric, limit)
        else:
            values, bounds = self._values(tier, metric)
            rows = self._in_slice(metric)
            found = estimate_mean(values[rows], self._cluster[rows], bounds)
            value, above, below = two_sided(found), found.p_above(limit), found.p_below(limit)
        holds, broken = (above, below) if metric.maximise else (below, above)
        return ConstraintTest(text=constraint.text, value=value, p_holds=holds, p_broken=broken)

    def _unknown(self, metric: Metric) -> str:
        """Why a metric cannot be tested here, or nothing."""
        table = self._table
        if metric.needs_latency and self._simulated:
            return "latency under load is simulated and has no interval here"
        if metric.needs_latency and not table.has_latency:
            return "this data has no latency_s of every answer"
        if metric.base in ROUTER_DELAYS and table.router_delay_s is None:
            return "the router's delay is not known here"
        if metric.base == "cost" and not table.has_cost:
            return "this data has no cost_usd"
        if metric.tier is not None and metric.tier not in table.tiers:
            return f"this data has no tier {metric.tier}"
        if metric.over_slices and not self._coverage.groups:
            return f"no slice reaches {self._coverage.minimum} queries"
        if metric.slice_name is not None and len(self._in_slice(metric)) < self._coverage.minimum:
            return f"slice {metric.slice_name} has fewer than {self._coverage.minimum} queries here"
        return ""

    def _quality(self, tier: IntArray) -> FloatArray:
        return self._table.quality[self._rows, tier]

    def _in_slice(self, metric: Metric) -> IntArray:
        if metric.slice_name is None:
            return self._rows
        if metric.slice_name not in self._table.slices:
            return self._rows[:0]
        return np.flatnonzero(self._table.slice_code == self._table.slices.index(metric.slice_name))

    def _values(self, tier: IntArray, metric: Metric) -> tuple[FloatArray, tuple[float, float] | None]:
        """`N` values whose mean the metric is, and their range."""
        if metric.base == "quality":
            return self._quality(tier), UNIT
        if metric.base == "cost":
            return self._table.cost_usd[self._rows, tier], None
        latency = self._table.latency_s[self._rows, tier]
        if metric.base == "latency_mean":
            return latency, None
        assert metric.limit_s is not None
        late = latency > metric.limit_s
        return (~late if metric.maximise else late).astype(np.float64), UNIT

    def _per_group(self, values: FloatArray, bounds: tuple[float, float]) -> list[MeanEstimate]:
        """An estimate per covered group."""
        return list(group_estimates(self._table, self._coverage, values, bounds).values())

    @staticmethod
    def _worst(groups: list[MeanEstimate], limit: float) -> tuple[Interval, float, float]:
        above = max(e.p_above(limit) for e in groups)
        below = min(1.0, len(groups) * min(e.p_below(limit) for e in groups))
        return worst_interval(groups), above, below

    @staticmethod
    def _cvar(groups: list[MeanEstimate], share: float, limit: float) -> tuple[Interval, float, float]:
        n, s = np.array([e.n for e in groups]), len(groups)

        def tail(means: list[float]) -> float:
            return cvar_of_means(np.array(means), n, share)

        if min(e.df for e in groups) <= 0:  # a group of one cluster may lie anywhere
            return Interval(mean=tail([e.mean for e in groups]), low=np.nan, high=np.nan), 1.0, 1.0

        def low(alpha: float) -> float:
            return tail([e.lower(alpha / s) for e in groups])

        def high(alpha: float) -> float:
            return tail([e.upper(alpha / s) for e in groups])

        alpha = (1 - CONFIDENCE) / 2
        value = Interval(mean=tail([e.mean for e in groups]), low=low(alpha), high=high(alpha))
        return value, _p_of_bound(lambda a: low(a) - limit), _p_of_bound(lambda a: limit - high(a))

    def _quantile(self, tier: IntArray, metric: Metric, limit: float) -> tuple[Interval, float, float]:
        rows = self._in_slice(metric)
        latency, level = self._table.latency_s[rows, tier[rows]], {**QUANTILES, **ROUTER_DELAYS}[metric.base]
        if metric.base in ROUTER_DELAYS:
            assert self._table.router_delay_s is not None
            latency = self._table.router_delay_s[rows]
        slower = estimate_mean((latency > limit).astype(np.float64), self._cluster[rows], UNIT)
        # A ceiling on the quantile: above it if more than 1 - level are slower.
        return (
            quantile_interval(latency, level, self._cluster[rows]),
            slower.p_above(1 - level),
            slower.p_below(1 - level),
        )


def _p_of_bound(distance: Callable[[float], float]) -> float:
    """The smallest level at which a bound lies on the right side; `distance` grows with the level."""
    if distance(_SMALLEST_P) > 0:
        return _SMALLEST_P
    if distance(1 - 1e-9) <= 0:
        return 1.0
    return float(brentq(distance, _SMALLEST_P, 1 - 1e-9, xtol=1e-10))
