"""What deciding takes, in words."""

from __future__ import annotations

import math

from toolkit.certify.router import RouterEvidence
from toolkit.report.wording import delay, percent, usd_per_1000


def router_sentences(router: RouterEvidence | None) -> list[str]:
    """Delay, cost and budgets of the router; nothing where nothing is known of it."""
    if router is None:
        return []
    known = math.isfinite(router.delay_p95_s)
    time = "takes a time that is not stated"
    if known:
        time = f"takes {delay(router.delay_p50_s)} (p50) and {delay(router.delay_p95_s)} (p95)"
    share = f", {percent(router.cost_share)} of the policy's cost" if math.isfinite(router.cost_share) else ""
    sentences = [f"To decide, the router {time} and costs {usd_per_1000(router.cost_usd)} per 1,000 queries{share}."]
    if known and router.budgets_s:
        kept = [f"{'within' if router.within(b) else 'over'} the budget of {delay(b)}" for b in router.budgets_s]
        sentences.append(f"Its p95 is {' and '.join(kept)}.")
    sentences.append("Both are in every figure of the policy, and in none of single tiers or of mixing at random.")
    return sentences


def router_row(router: RouterEvidence | None) -> list[tuple[str, str]]:
    """The row of the table that ends a run in the terminal."""
    if router is None:
        return []
    taken = f"p95 {delay(router.delay_p95_s)}, {usd_per_1000(router.cost_usd)} per 1,000 queries"
    return [("the router's own", taken)]
