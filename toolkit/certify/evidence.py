"""What a policy does on data it was not tuned on: overall, per slice, and against what anybody could have."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from toolkit.certify.intervals import (
    UNIT,
    UNKNOWN,
    Interval,
    group_estimates,
    mean_interval,
    paired_quality,
    rank_correlation,
    worst_interval,
    zero_difference,
)
from toolkit.certify.lanes import EligibilityEvidence, LaneEvidence, eligibility_evidence, lane_evidence
from toolkit.certify.router import RouterEvidence, router_evidence
from toolkit.certify.zero_load import ZeroUnderLoad
from toolkit.evaluation.constraints import Constraint
from toolkit.evaluation.contention import ContendedEstimator
from toolkit.evaluation.estimators import AssignmentEstimator
from toolkit.evaluation.metrics import ROUTER_DELAYS
from toolkit.evaluation.slices import Coverage
from toolkit.evaluation.summary import latency_summary
from toolkit.policies.lanes import Lanes
from toolkit.scorers.eligibility import EligibilityTarget
from toolkit.zero_router import zero_router_of


@dataclass(frozen=True, kw_only=True)
class SliceEvidence:
    """One slice.

    Attributes:
        name: Slice, or `other` for the merged small ones.
        n: Queries.
        quality: The policy's mean quality.
        cost_usd: The policy's mean cost per query; NaN where unknown.
        tier_shares: `K`.
        tier_quality: `K` mean quality of each single tier.
        versus: Tier name -> the policy's quality minus that tier's, paired.
    """

    name: str
    n: int
    quality: Interval
    cost_usd: float
    tier_shares: FloatArray
    tier_quality: FloatArray
    versus: dict[str, Interval]


@dataclass(frozen=True, kw_only=True)
class ConstraintEvidence:
    """How one constraint fares on new data.

    Attributes:
        text: The constraint.
        value: The figure on this table; NaN where it cannot be computed.
        holds: Whether the point estimate meets it.
    """

    text: str
    value: float
    holds: bool


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Figures of one policy on one table.

    Attributes:
        n: Queries.
        tiers: K names, cheapest first.
        quality: Mean quality.
        cost_usd: Mean cost per query; NaN where unknown.
        latency_s: `mean`, `p50`, `p95`, `p99`, or empty where unknown.
        tier_shares: `K`.
        tier_quality: `K` single tiers.
        tier_cost_usd: `K` single tiers; NaN where unknown.
        tier_latency_p95_s: `K` single tiers; NaN where unknown.
        cheapest, dearest, best_single: Tier names; the best single one was chosen on the tune split.
        versus: Tier name -> quality minus that tier's, paired over queries.
        zero_quality: The Zero router's quality at the policy's cost; NaN where costs are unknown.
        zero_difference: Quality minus the Zero router's at equal cost, or None where costs are unknown.
        zero_latency_p95_s: The Zero router's p95 latency under the same load; NaN where nobody looked.
        information: Rank correlation of the score with the gain of `information_tier` over the cheapest.
        information_tier: The tier whose gain the score is held against.
        oracle_quality: Mean of the best tier per query: what no router can exceed.
        slices: Covered slices, largest first.
        uncovered: Slice -> queries, for those too small to stand alone.
        worst: Quality of the worst covered slice, whichever it truly is; NaN where none is covered.
        merged_into: The same slices -> the group that judges them, None where nothing does.
        constraints: Each constraint on this table.
        lanes: Each lane apart, the first to take queries first; empty where the policy decides every query.
        eligibility: The eligibility head on this table, or None without one.
        router: What deciding takes, a part of the policy's figures and of no other; None where nothing is known.
    """

    n: int
    tiers: tuple[str, ...]
    quality: Interval
    cost_usd: Interval
    latency_s: dict[str, float]
    tier_shares: FloatArray
    tier_quality: FloatArray
    tier_cost_usd: FloatArray
    tier_latency_p95_s: FloatArray
    cheapest: str
    dearest: str
    best_single: str
    versus: dict[str, Interval]
    zero_quality: float
    zero_difference: Interval | None
    information: Interval
    information_tier: str
    oracle_quality: float
    slices: tuple[SliceEvidence, ...]
    uncovered: dict[str, int]
    constraints: tuple[ConstraintEvidence, ...]
    worst: Interval = UNKNOWN
    merged_into: dict[str, str | None] = field(default_factory=dict)
    lanes: tuple[LaneEvidence, ...] = ()
    eligibility: EligibilityEvidence | None = None
    router: RouterEvidence | None = None
    zero_latency_p95_s: float = np.nan


def gather_evidence(
    table: OutcomeTable,
    tier: IntArray,
    score: FloatArray,
    *,
    coverage: Coverage,
    constraints: tuple[Constraint, ...],
    best_single: int,
    tier_latency_p95_s: FloatArray | None = None,
    contended: ContendedEstimator | None = None,
    zero: ZeroUnderLoad | None = None,
    lanes: tuple[Lanes, IntArray] | None = None,
    target: EligibilityTarget | None = None,
    router_budgets_s: tuple[float, ...] = (),
) -> Evidence:
    """Evidence for one assignment.

    Args:
        table: Data the policy was not tuned on.
        tier: `N` chosen tiers.
        score: `N` scores, NaN where the scorer failed.
        coverage: Covered groups of `table`.
        constraints: What the policy was tuned to meet.
        best_single: Index of the single tier that was best on the tune split.
        tier_latency_p95_s: `K` p95 latencies of the single tiers, where they are not those of `table` (load).
        contended: Figures of the same assignment over its requests, where requests wait for each other: latencies and
            constraints are then theirs.
        lanes: The policy's lanes, and `N` which lane took each query; None: nothing is said on lanes.
        target: What the eligibility head predicts, or None without one.
        zero: The Zero router, where requests wait for each other.
        router_budgets_s: Delays that the router's p95 is held against.
    """
    everything = np.arange(table.n_queries)
    known = table.has_cost
    compared = tuple(dict.fromkeys((0, table.n_tiers - 1, best_single)))
    upgrade = best_single if best_single > 0 else table.n_tiers - 1
    usable = np.isfinite(score)
    gain = table.quality[:, upgrade] - table.quality[:, 0]
    cost = table.cost_usd[everything, tier]
    return Evidence(
        n=table.n_queries,
        tiers=table.tiers,
        quality=mean_interval(table.quality[everything, tier], table.cluster_code, bounds=UNIT),
        cost_usd=mean_interval(cost, table.cluster_code) if known else UNKNOWN,
        latency_s=latency_summary(table, everything, tier) if contended is None else contended.latency_summary(),
        tier_shares=np.bincount(tier, minlength=table.n_tiers) / table.n_queries,
        tier_quality=table.bare.quality.mean(axis=0),
        tier_cost_usd=table.bare.cost_usd.mean(axis=0) if known else np.full(table.n_tiers, np.nan),
        tier_latency_p95_s=np.quantile(table.bare.latency_s, 0.95, axis=0)
        if tier_latency_p95_s is None
        else tier_latency_p95_s,
        cheapest=table.tiers[0],
        dearest=table.tiers[-1],
        best_single=table.tiers[best_single],
        versus={table.tiers[k]: paired_quality(table, tier, k, everything) for k in compared},
        zero_quality=zero.quality
        if zero is not None
        else zero_router_of(table).quality_at(float(cost.mean()))
        if known
        else np.nan,
        zero_latency_p95_s=np.nan if zero is None else zero.latency_p95_s,
        zero_difference=zero.difference if zero is not None else zero_difference(table, tier) if known else None,
        information=rank_correlation(score[usable], gain[usable]),
        information_tier=table.tiers[upgrade],
        oracle_quality=float(table.quality.max(axis=1).mean()),
        slices=_slice_evidence(table, tier, coverage, compared),
        uncovered={name: int(coverage.counts[table.slices.index(name)]) for name in coverage.merged},
        constraints=_constraint_evidence(table, tier, coverage, constraints, contended),
        worst=_worst(table, tier, coverage),
        merged_into=coverage.merged_into(table),
        lanes=() if lanes is None else lane_evidence(table, tier, lanes[1], lanes[0], best_single),
        eligibility=None
        if lanes is None or target is None
        else eligibility_evidence(table, lanes[1], lanes[0], target),
        router=router_evidence(table, tier, router_budgets_s),
    )


def _slice_evidence(
    table: OutcomeTable, tier: IntArray, coverage: Coverage, compared: tuple[int, ...]
) -> tuple[SliceEvidence, ...]:
    group = coverage.group_of_slice[table.slice_code]
    found = []
    for g, name in enumerate(coverage.groups):
        rows = np.flatnonzero(group == g)
        chosen = tier[rows]
        found.append(
            SliceEvidence(
                name=name,
                n=len(rows),
                quality=mean_interval(table.quality[rows, chosen], table.cluster_code[rows], bounds=UNIT),
                cost_usd=float(table.cost_usd[rows, chosen].mean()),
                tier_shares=np.bincount(chosen, minlength=table.n_tiers) / len(rows),
                tier_quality=table.bare.quality[rows].mean(axis=0),
                versus={table.tiers[k]: paired_quality(table, tier, k, rows) for k in compared},
            )
        )
    return tuple(sorted(found, key=lambda s: -s.n))


def _worst(table: OutcomeTable, tier: IntArray, coverage: Coverage) -> Interval:
    """Corrected for the worst slice having been picked as the worst."""
    quality = table.quality[np.arange(table.n_queries), tier]
    return worst_interval(list(group_estimates(table, coverage, quality, UNIT).values()))


def _constraint_evidence(
    table: OutcomeTable,
    tier: IntArray,
    coverage: Coverage,
    constraints: tuple[Constraint, ...],
    contended: ContendedEstimator | None,
) -> tuple[ConstraintEvidence, ...]:
    estimator = contended or AssignmentEstimator(table, coverage, tier[None, :].astype(np.int8))
    found = []
    for constraint in constraints:
        name = constraint.metric.slice_name
        absent = name is not None and (name not in table.slices or coverage.counts[table.slices.index(name)] == 0)
        unknown = constraint.metric.needs_latency and not table.has_latency
        unknown |= constraint.metric.base == "cost" and not table.has_cost
        unknown |= constraint.metric.base in ROUTER_DELAYS and table.router_delay_s is None
        unknown |= constraint.metric.tier is not None and constraint.metric.tier not in table.tiers
        if absent or unknown or (constraint.metric.over_slices and not coverage.groups):
            value = np.nan
        else:
            value = float(estimator.value(constraint.metric)[0])
        holds = bool(constraint.slack(np.array([value]))[0] >= 0)
        found.append(ConstraintEvidence(text=constraint.text, value=value, holds=holds))
    return tuple(found)
