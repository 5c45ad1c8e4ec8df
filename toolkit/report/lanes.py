"""Sentences on the lanes of a policy, each lane apart."""

from __future__ import annotations

import math

from toolkit.certify.evidence import Evidence
from toolkit.certify.lanes import EligibilityEvidence, LaneEvidence
from toolkit.report.wording import percent, signed_difference, usd_per_1000, with_interval


def lane_sentences(evidence: Evidence) -> list[str]:
    """Share, quality, cost and p95 of each lane that took a query; recall and precision of the eligibility head."""
    budget = next((lane for lane in evidence.lanes if lane.name == "budget"), None)
    taken = [lane for lane in evidence.lanes if lane.n > 0]
    found = [] if taken == [budget] else [_lane(lane, budget, evidence.best_single) for lane in taken]
    return found if evidence.eligibility is None else [*found, *_head(evidence.eligibility)]


def _lane(lane: LaneEvidence, budget: LaneEvidence | None, best_single: str) -> str:
    what = "are decided by the policy itself (budget lane)" if lane is budget else f"go through the {lane.name} lane"
    parts = [f"quality {with_interval(lane.quality)}"]
    if math.isfinite(lane.cost_usd):
        parts.append(f"{usd_per_1000(lane.cost_usd)} per 1,000 queries")
    if math.isfinite(lane.latency_p95_s):
        parts.append(f"p95 latency {lane.latency_p95_s:.3g} s{_by_design(lane, budget)}")
    same = lane.versus.low == lane.versus.high == 0
    parts.append(f"{'no difference' if same else signed_difference(lane.versus)} in quality to {best_single}")
    return f"{percent(lane.share)} of the queries ({lane.n:,}) {what}: {'; '.join(parts)}."


def _by_design(lane: LaneEvidence, budget: LaneEvidence | None) -> str:
    if lane.name != "eligible" or budget is None or not lane.latency_p95_s > budget.latency_p95_s:
        return ""
    return f", against {budget.latency_p95_s:.3g} s of the budget lane: its p95 is worse by design"


def _head(found: EligibilityEvidence) -> list[str]:
    better = f"{found.tier} answers better than {found.against} by more than {found.margin:g}"
    base = f"With hindsight, {better} on {percent(found.base_rate)} of the queries ({found.n_eligible:,})"
    if found.n_pinned == 0:
        return [f"{base}; the eligibility lane takes none of them, as no probability reaches {found.threshold:.3g}."]
    precision = f"{with_interval(found.precision, percent)} of what it takes are such queries (precision)"
    if found.n_eligible == 0:
        return [f"{base}; {precision}."]
    recall = f"the eligibility lane finds {with_interval(found.recall, percent)} of them (recall)"
    return [f"{base}; {recall}, and {precision}."]
