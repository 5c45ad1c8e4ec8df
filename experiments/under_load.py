"""Figures of a policy where requests wait for each other."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from experiments.settings import NoWorld, QueueSettings
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from toolkit.evaluation.contention import QueueWorld, contended_latency, make_queue_world
from toolkit.evaluation.summary import metrics_summary


def make_world(world: NoWorld | QueueSettings, table: OutcomeTable, rng: np.random.Generator) -> QueueWorld | None:
    """Contention on one table, or None."""
    if isinstance(world, NoWorld):
        return None
    return make_queue_world(table, rate_per_s=world.rate_per_s, slots=world.slots, rng=rng)


def world_file(world: NoWorld | QueueSettings) -> dict[str, object] | None:
    """The world as `policy.json` and `run.json` hold it."""
    return None if isinstance(world, NoWorld) else world.model_dump()


def under_load(table: OutcomeTable, world: QueueWorld | None, tier: IntArray) -> OutcomeTable:
    """The table with the waits of one assignment in the latencies of the tiers it chose (`tier: N`)."""
    if world is None:
        return table
    latency = table.latency_s.copy()
    latency[np.arange(table.n_queries), tier] = contended_latency(table, world, tier)
    return dataclasses.replace(table, latency_s=latency, _hash=[])


def single_tiers(table: OutcomeTable, world: QueueWorld) -> FloatArray:
    """`N x K` latencies of all traffic on each tier alone, waits included."""
    every = [np.full(table.n_queries, k) for k in range(table.n_tiers)]
    return np.stack([contended_latency(table, world, single) for single in every], axis=1)


def metrics_under_load(table: OutcomeTable, world: QueueWorld | None, tier: IntArray, n_dropped: int) -> dict[str, Any]:
    """`metrics_summary`; under load, a single tier's latencies are those of all traffic on that tier."""
    found = metrics_summary(under_load(table, world, tier), tier, n_dropped=n_dropped)
    if world is not None:
        alone = dataclasses.replace(table, latency_s=single_tiers(table, world), _hash=[])
        found["tiers"] = metrics_summary(alone, tier, n_dropped=n_dropped)["tiers"]
    return found


def single_tier_p95(table: OutcomeTable, world: QueueWorld | None) -> FloatArray | None:
    """`K` p95 latencies of the single tiers under load; None where nobody waits."""
    return None if world is None else np.quantile(single_tiers(table, world), 0.95, axis=0)
