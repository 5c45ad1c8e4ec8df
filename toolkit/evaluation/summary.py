"""`metrics.json`: the figures of one policy on one table, in the shape other tools read."""

from __future__ import annotations

import numpy as np

from simulators.outcomes import IntArray, OutcomeTable
from toolkit.zero_router import zero_router_of


def metrics_summary(table: OutcomeTable, tier: IntArray, *, n_dropped: int) -> dict[str, object]:
    """Figures of an assignment (`tier: N`): policy, slices, single tiers, Zero router at equal cost.

    Keys whose data is unknown (cost, latency, router) are absent, except `zero_router_quality_at_cost`, which is null
    then. Policy and slices include what the router takes, single tiers and the Zero router do not.
    """
    everything = np.arange(table.n_queries)
    policy = _figures(table, everything, tier)
    shares = np.bincount(tier, minlength=table.n_tiers) / table.n_queries
    policy["tier_shares"] = dict(zip(table.tiers, shares.tolist(), strict=True))
    slices = {}
    for code, name in enumerate(table.slices):
        rows = np.flatnonzero(table.slice_code == code)
        if len(rows):
            slices[name] = {"n": len(rows), **_figures(table, rows, tier[rows])}
            part = np.bincount(tier[rows], minlength=table.n_tiers) / len(rows)
            slices[name]["tier_shares"] = dict(zip(table.tiers, part.tolist(), strict=True))
    bare = table.bare
    single = {name: _figures(bare, everything, np.full(table.n_queries, k)) for k, name in enumerate(table.tiers)}
    cost = policy.get("cost_usd")
    zero = zero_router_of(table).quality_at(cost) if isinstance(cost, float) else None
    router = router_summary(table, tier)
    return {
        "policy": policy,
        "slices": slices,
        "tiers": single,
        **({"router": router} if router else {}),
        "zero_router_quality_at_cost": zero,
        "n": table.n_queries,
        "dropped": n_dropped,
    }


def _figures(table: OutcomeTable, rows: IntArray, tier: IntArray) -> dict[str, object]:
    figures: dict[str, object] = {"quality": float(table.quality[rows, tier].mean())}
    if table.has_cost:
        figures["cost_usd"] = float(table.cost_usd[rows, tier].mean())
    if table.has_latency:
        figures["latency_s"] = latency_summary(table, rows, tier)
    return figures


def latency_summary(table: OutcomeTable, rows: IntArray, tier: IntArray) -> dict[str, float]:
    """`mean`, `p50`, `p95`, `p99` of the answers of `tier` at `rows`, seconds; empty where latency is unknown."""
    if not table.has_latency:
        return {}
    chosen = table.latency_s[rows, tier]
    p50, p95, p99 = (float(v) for v in np.quantile(chosen, [0.5, 0.95, 0.99]))
    return {"mean": float(chosen.mean()), "p50": p50, "p95": p95, "p99": p99}


def router_summary(table: OutcomeTable, tier: IntArray) -> dict[str, float]:
    """`delay_p50_s` and `delay_p95_s` of the router, its mean `cost_usd` and the `cost_share` that is of the policy's.

    All are parts of the policy's figures; empty where the table has no router, without what is not known.
    """
    found: dict[str, float] = {}
    if table.router_delay_s is not None:
        p50, p95 = (float(v) for v in np.quantile(table.router_delay_s, [0.5, 0.95]))
        found |= {"delay_p50_s": p50, "delay_p95_s": p95}
    if table.router_cost_usd is not None:
        rows = np.arange(table.n_queries)
        found["cost_usd"] = float(table.router_cost_usd[rows, tier].mean())
        total = float(table.cost_usd[rows, tier].mean())
        if table.has_cost and total > 0:
            found["cost_share"] = found["cost_usd"] / total
    return found
