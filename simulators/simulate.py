"""A world on an outcome table: what becomes of every request under each candidate's routing."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from simulators.errors import InputDataError
from simulators.events.arrays import Answers
from simulators.journeys import Journeys
from simulators.outcomes import FloatArray, OutcomeTable
from simulators.world import World


def answers_of(table: OutcomeTable, world: World) -> Answers:
    """What one attempt takes on every row and tier.

    Without the router's own time and money, without the fixed price of capacity, and without second stages: the table
    holds the sums of both stages, and the kernels add the second one themselves.
    """
    bare = table.bare
    extra_s, cost_usd = bare.latency_s - bare.hold_s, bare.cost_usd - bare.fixed_usd
    whole_cost_usd = cost_usd.copy()
    for k, rule in enumerate(world.rules):
        if rule.second < 0:
            continue
        cost_usd[:, k] -= rule.second_share * whole_cost_usd[:, rule.second]
        if not rule.second_async:
            extra_s[:, k] -= rule.second_share * bare.hold_s[:, rule.second]
    return Answers(
        hold_s=bare.hold_s,
        first_s=bare.ttft_s,
        extra_s=_not_negative(extra_s),
        tokens=bare.input_tokens + bare.output_tokens,
        cost_usd=_not_negative(cost_usd),
    )


def _not_negative(values: FloatArray) -> FloatArray:
    """Differences of sums may be a rounding error below 0; what is unknown stays so."""
    return np.where(values < 0, 0.0, values)


def simulate(world: World, table: OutcomeTable, tier: NDArray[np.int8], *, per_request: bool) -> Journeys:
    """Journeys of n candidates: the feed-forward kernel where it suffices, else the event-order kernel.

    About 60 bytes per candidate and request at the peak; give candidates in chunks where that is too much.

    Args:
        world: Requests on the rows of `table`.
        table: Its outcomes; the router's money, where known, is paid once per request that it decided, and the
            fixed price of capacity once per request.
        tier: `n x N` tier of each row, or `n x R` of each request; -1 fails at once.
        per_request: Which of the two.

    Raises:
        InputDataError: If `tier` has another shape, or a latency (or a limited tier's token count) is missing.
    """
    expected = world.n_requests if per_request else table.n_queries
    if tier.ndim != 2 or tier.shape[1] != expected:
        raise InputDataError(f"expected one tier for each of {expected} columns; got an array of shape {tier.shape}")
    if tier.size and not -1 <= tier.min() <= tier.max() < table.n_tiers:
        raise InputDataError(f"tiers must lie in -1 ... {table.n_tiers - 1}; got {tier.min()} ... {tier.max()}")
    answers = answers_of(table, world)
    answers.check(world)
    chosen = tier if per_request else tier[:, world.row]
    journeys = _journeys(world, answers, np.ascontiguousarray(chosen, dtype=np.int8))
    if table.router_cost_usd is None and table.fixed_usd == 0:
        return journeys
    once = table.fixed_usd + (0.0 if table.router_cost_usd is None else _router_cost(world, table, chosen))
    return dataclasses.replace(journeys, cost_usd=journeys.cost_usd + once)


def _journeys(world: World, answers: Answers, tier: NDArray[np.int8]) -> Journeys:
    if world.feed_forward:
        from simulators.events.direct import simulate_directly  # numba is slow to import

        return simulate_directly(world, answers, tier)
    from simulators.events.simulator import simulate_events

    return simulate_events(world, answers, tier)


def _router_cost(world: World, table: OutcomeTable, tier: NDArray[np.int8]) -> NDArray[np.float64]:
    """`n x R` USD of the decision; 0 where the router was down or refused."""
    assert table.router_cost_usd is not None
    cost = table.router_cost_usd[world.row, np.maximum(tier, 0)]
    return np.where(world.router_down | (tier < 0), 0.0, cost)
