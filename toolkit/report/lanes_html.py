"""The section on lanes: each lane of the policy apart, and how well the eligibility head tells."""

from __future__ import annotations

import math

from toolkit.certify.evidence import Evidence
from toolkit.certify.lanes import EligibilityEvidence, LaneEvidence
from toolkit.report.markup import UNKNOWN, Cell, escaped, shown_value, table_html, verdict_cell
from toolkit.report.wording import percent, with_interval

_ORDER = (
    "The first lane of this table that takes a query keeps it, whatever the thresholds, the cost or the latency say; "
    "budget is what is left for the policy."
)


def lane_section(evidence: Evidence) -> list[str]:
    """Heading and tables; nothing where the policy decides every query."""
    if not evidence.lanes:
        return []
    head = [
        "lane",
        "queries",
        "share",
        "quality",
        "cost per 1,000 queries",
        "p95 latency",
        f"difference to {evidence.best_single} (best single)",
    ]
    parts = [
        "<h2>Lanes, validation split</h2>",
        table_html(head, [_lane_row(lane) for lane in evidence.lanes]),
        f'<p class="soft">{escaped(_ORDER)}</p>',
    ]
    return parts if evidence.eligibility is None else [*parts, *_head_table(evidence.eligibility)]


def _lane_row(lane: LaneEvidence) -> list[str | Cell]:
    known = math.isfinite(lane.quality.mean)
    return [
        lane.name,
        f"{lane.n:,}",
        percent(lane.share),
        with_interval(lane.quality) if known else UNKNOWN,
        shown_value("cost_usd", lane.cost_usd),
        shown_value("latency_p95_s", lane.latency_p95_s),
        verdict_cell(lane.versus) if known else UNKNOWN,
    ]


def _head_table(found: EligibilityEvidence) -> list[str]:
    better = f"{found.tier} is better than {found.against} by more than {found.margin:g}"
    rows = [
        ["eligible, with hindsight", percent(found.base_rate), f"of {found.n:,} queries: {better}"],
        ["recall", with_interval(found.recall, percent), f"of {found.n_eligible:,} eligible queries are in the lane"],
        ["precision", with_interval(found.precision, percent), f"of {found.n_pinned:,} in the lane are eligible"],
    ]
    said = f"The eligibility head on the validation split; it pins from a probability of {found.threshold:.3g} on."
    return [f"<p>{escaped(said)}</p>", table_html(["", "share", "of what"], rows)]
