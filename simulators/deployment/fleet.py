"""All replicas of a plan under one stream of requests.

Within a tier, requests go to the groups in turn so that each has its share at any time (the group that is furthest
behind takes the next one, the first of those equally far), and within a group to its replicas in turn.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from simulators.deployment.batching import Served, serve
from simulators.deployment.performance import Speed, replica_speed
from simulators.deployment.plan import FleetPlan, Replica, TierPlan
from simulators.deployment.specs import FleetSpec
from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import FloatArray, IntArray


def simulate_tier(
    fleet: FleetSpec,
    tier: str,
    plan: TierPlan,
    arrival_s: FloatArray,
    input_tokens: FloatArray,
    output_tokens: FloatArray,
) -> Served:
    """Serve one tier's requests with its groups.

    Args:
        fleet: GPUs, models, engine.
        tier: Which model.
        plan: Its groups; empty: nothing is served.
        arrival_s: `R` instants, seconds, not decreasing.
        input_tokens, output_tokens: `R` lengths.

    Raises:
        ConfigError: If the fleet has no such tier or GPU type, or a replica does not fit.
        InputDataError: As `serve`.
    """
    first_s, done_s = np.full(len(arrival_s), np.nan), np.full(len(arrival_s), np.nan)
    if plan:
        group_of = turns(np.array([group.share for group in plan]), len(arrival_s))
        for g, group in enumerate(plan):
            speed = speed_of(fleet, tier, group.replica)
            mine = np.flatnonzero(group_of == g)
            for r in range(group.replicas):
                of = mine[r :: group.replicas]
                served = serve(speed, arrival_s[of], input_tokens[of], output_tokens[of])
                first_s[of], done_s[of] = served.first_s, served.done_s
    return Served(first_s=first_s, done_s=done_s)


def simulate_plan(
    fleet: FleetSpec,
    plan: FleetPlan,
    arrival_s: FloatArray,
    tier: IntArray,
    input_tokens: FloatArray,
    output_tokens: FloatArray,
) -> Served:
    """Serve all requests, each by its tier.

    Args:
        fleet: GPUs, models, engine.
        plan: M tiers and their groups.
        arrival_s: `R` instants, seconds, not decreasing.
        tier: `R` tiers by number; -1: none.
        input_tokens, output_tokens: `R x M` lengths on each tier.

    Returns:
        NaN for a request of a tier without replicas.

    Raises:
        ConfigError: If a tier does not exist or a replica does not fit.
        InputDataError: If shapes do not agree, or as `serve`.
    """
    shape = (len(arrival_s), len(plan.tiers))
    if not input_tokens.shape == output_tokens.shape == shape or tier.shape != shape[:1]:
        raise InputDataError(f"expected lengths of shape {shape}; got {input_tokens.shape} and {output_tokens.shape}")
    if len(tier) and not -1 <= tier.min() <= tier.max() < shape[1]:
        raise ConfigError(f"tiers should be numbers below {shape[1]}; got {tier.min()} to {tier.max()}")
    first_s, done_s = np.full(shape[0], np.nan), np.full(shape[0], np.nan)
    for m, (name, groups) in enumerate(zip(plan.tiers, plan.groups, strict=True)):
        of = np.flatnonzero(tier == m)
        served = simulate_tier(fleet, name, groups, arrival_s[of], input_tokens[of, m], output_tokens[of, m])
        first_s[of], done_s[of] = served.first_s, served.done_s
    return Served(first_s=first_s, done_s=done_s)


def speed_of(fleet: FleetSpec, tier: str, replica: Replica) -> Speed:
    """Times and room of one replica of the fleet.

    Raises:
        ConfigError: If the fleet has no such tier or GPU type, or the replica does not fit.
    """
    for name, known, what in ((tier, fleet.models, "tiers"), (replica.gpu, fleet.gpus, "GPU types")):
        if name not in known:
            raise ConfigError(f"the fleet has no {name}; its {what} are {', '.join(known)}")
    speed = replica_speed(fleet.models[tier], fleet.gpus[replica.gpu], replica, fleet.engine)
    if speed is None:
        raise ConfigError(f"{tier} does not fit on {replica.text}; use more GPUs or another type")
    return speed


def turns(shares: FloatArray, n: int) -> IntArray:
    """Weighted round robin: the group of each of `n` requests. Each group has its share at any time, within one."""
    group: IntArray = _turns(np.ascontiguousarray(shares, dtype=np.float64), n)
    return group


@njit(cache=True)
def _turns(shares: FloatArray, n: int) -> IntArray:
    credit, taken = np.zeros(len(shares)), np.empty(n, np.int64)
    for j in range(n):
        credit += shares
        taken[j] = np.argmax(credit)
        credit[taken[j]] -= 1.0
    return taken
