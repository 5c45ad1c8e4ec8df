"""The lanes of a policy, each reported apart: what goes ahead of the budget logic is not hidden in an average."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from toolkit.certify.intervals import UNIT, UNKNOWN, Interval, mean_interval, paired_quality
from toolkit.policies.lanes import BUDGET, ELIGIBLE, FALLBACK, LANE_NAMES, LOW_CONFIDENCE, Lanes
from toolkit.scorers.eligibility import EligibilityTarget


@dataclass(frozen=True, kw_only=True)
class LaneEvidence:
    """The queries of one lane.

    Attributes:
        name: `eligible`, `low confidence`, `fallback`, or `budget` for those that the policy decides.
        n: Queries.
        share: Of all queries.
        quality: Mean quality; NaN without a query.
        cost_usd: Mean cost per query; NaN where unknown.
        latency_p95_s: NaN where unknown.
        versus: Quality minus that of the best single tier on the same queries, paired.
    """

    name: str
    n: int
    share: float
    quality: Interval
    cost_usd: float
    latency_p95_s: float
    versus: Interval

    def as_dict(self) -> dict[str, object]:
        """JSON form, without the name; NaN becomes null."""
        return {
            "n": self.n,
            "share": self.share,
            "quality": self.quality.as_dict(),
            "cost_usd": _finite(self.cost_usd),
            "latency_p95_s": _finite(self.latency_p95_s),
            "versus_best_single": self.versus.as_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class EligibilityEvidence:
    """How well the eligibility head tells on which queries its tier is worth it.

    Attributes:
        tier, against, margin: A query is eligible if `tier` is better than `against` by more than `margin`.
        threshold: Eligibility from which on a query is pinned.
        n: Queries.
        n_eligible: Queries that are eligible, with hindsight.
        n_pinned: Queries in the lane.
        base_rate: `n_eligible / n`.
        recall: Share of the eligible queries that are in the lane; NaN without one.
        precision: Share of the queries in the lane that are eligible; NaN without one.
    """

    tier: str
    against: str
    margin: float
    threshold: float
    n: int
    n_eligible: int
    n_pinned: int
    base_rate: float
    recall: Interval
    precision: Interval

    def as_dict(self) -> dict[str, object]:
        """JSON form; NaN becomes null."""
        plain = {name: value for name, value in vars(self).items() if name not in {"recall", "precision"}}
        return {**plain, "recall": self.recall.as_dict(), "precision": self.precision.as_dict()}


def lane_evidence(
    table: OutcomeTable, tier: IntArray, lane: IntArray, lanes: Lanes, best_single: int
) -> tuple[LaneEvidence, ...]:
    """Each lane that exists, in the order in which they take queries; none where the policy decides everything.

    Args:
        table: Data the policy was not tuned on.
        tier: `N` chosen tiers.
        lane: `N` lanes, as `Lanes.lane` gives them.
        lanes: The lanes of the policy.
        best_single: Index of the single tier that was best on the tune split.
    """
    there = [FALLBACK, BUDGET]
    there += [ELIGIBLE] if lanes.eligible_tier is not None else []
    there += [LOW_CONFIDENCE] if lanes.confidence_floor is not None else []
    if len(there) == 2 and (lane == BUDGET).all():
        return ()
    return tuple(
        _one_lane(table, tier, np.flatnonzero(lane == code), LANE_NAMES[code], best_single)
        for code in sorted(there, reverse=True)
    )


def _one_lane(table: OutcomeTable, tier: IntArray, rows: IntArray, name: str, best_single: int) -> LaneEvidence:
    there = len(rows) > 0
    return LaneEvidence(
        name=name,
        n=len(rows),
        share=len(rows) / table.n_queries,
        quality=_mean(table.quality[rows, tier[rows]], table.cluster_code[rows]),
        cost_usd=float(table.cost_usd[rows, tier[rows]].mean()) if there else np.nan,
        latency_p95_s=float(np.quantile(table.latency_s[rows, tier[rows]], 0.95)) if there else np.nan,
        versus=paired_quality(table, tier, best_single, rows) if there else UNKNOWN,
    )


def eligibility_evidence(
    table: OutcomeTable, lane: IntArray, lanes: Lanes, target: EligibilityTarget
) -> EligibilityEvidence:
    """Recall and precision of the lane on one table.

    Args:
        table: Data the head was not fitted on.
        lane: `N` lanes, as `Lanes.lane` gives them.
        lanes: The lanes of the policy, with an eligible tier.
        target: What the head predicts.
    """
    assert lanes.eligibility_threshold is not None
    eligible, pinned, group = target.worthwhile(table), lane == ELIGIBLE, table.cluster_code
    return EligibilityEvidence(
        tier=target.tier,
        against=target.against,
        margin=target.margin,
        threshold=lanes.eligibility_threshold,
        n=table.n_queries,
        n_eligible=int(eligible.sum()),
        n_pinned=int(pinned.sum()),
        base_rate=float(eligible.mean()),
        recall=_share(pinned[eligible], group[eligible]),
        precision=_share(eligible[pinned], group[pinned]),
    )


def _share(members: NDArray[np.bool_], group: IntArray) -> Interval:
    return _mean(members.astype(np.float64), group)


def _mean(values: FloatArray, group: IntArray) -> Interval:
    return mean_interval(values, group, bounds=UNIT) if len(values) else UNKNOWN


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
