"""Figures of merit that the PROTEUS paper prints, section 3.1 of [Proteus2026]_; latencies are given by the caller.

References:
    [Proteus2026] Bhatti, Vaddina, Birru, PROTEUS, arXiv 2601.19402.
"""

from __future__ import annotations


def routing_efficiency(*, quality: float, random_quality: float, router_s: float) -> float:
    """RE: points of quality above a random router per millisecond of router time; NaN if that is 0."""
    return _over(100.0 * (quality - random_quality), 1000.0 * router_s)


def routing_performance_index(
    *,
    quality: float,
    oracle_quality: float,
    cost_usd: float,
    largest_cost_usd: float,
    router_s: float,
    answer_s: float,
) -> float:
    """RPI: `100 (quality / oracle) (1 - cost / largest cost) (1 - router time / answer time)`."""
    parts = 1.0 - _over(cost_usd, largest_cost_usd), 1.0 - _over(router_s, answer_s)
    return 100.0 * _over(quality, oracle_quality) * parts[0] * parts[1]


def oracle_gap(*, quality: float, oracle_quality: float) -> float:
    """What the oracle has more."""
    return oracle_quality - quality


def cost_saving(*, cost_usd: float, best_fixed_cost_usd: float) -> float:
    """Share of the best single tier's cost that is not spent; NaN where that costs nothing."""
    return 1.0 - _over(cost_usd, best_fixed_cost_usd)


def _over(a: float, b: float) -> float:
    return a / b if b != 0 else float("nan")
