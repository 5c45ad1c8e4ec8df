"""Figures of a policy where requests wait for each other."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from experiments.settings import TuneSettings
from experiments.world_settings import AutoWorld, NoWorld, QueueSettings, TrafficSettings
from experiments.world_settings import World as WorldOptions
from simulators.arrivals import mean_rate
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.seeds import spawn_rng
from simulators.traffic import TrafficSpec, make_world, parse_traffic
from simulators.world import World
from toolkit.certify.zero_load import ZeroUnderLoad, zero_under_load
from toolkit.evaluation import contention
from toolkit.evaluation.contention import ContendedEstimator, make_queue_world, without_router
from toolkit.evaluation.estimators import AssignmentEstimator
from toolkit.evaluation.metrics import Metric
from toolkit.evaluation.slices import Coverage, coverage
from toolkit.evaluation.summary import metrics_summary

FLEET = "fleet"


def with_world(settings: TuneSettings) -> TuneSettings:
    """The settings with `world=auto` decided and the traffic filled in, so that a run says what it simulated.

    Raises:
        ConfigError: If `world=traffic` has no traffic to follow.
    """
    chosen, scenario = settings.world, settings.scenario or {}
    if isinstance(chosen, NoWorld | QueueSettings):
        return settings
    if isinstance(chosen, AutoWorld):
        if settings.data.kind != "scenario" or not scenario.get("tune_under_load"):
            if chosen.load != 1.0:
                raise ConfigError(
                    f"world.load={chosen.load:g} has no effect: world=auto judges this data without load; use "
                    "world=traffic"
                )
            return settings.model_copy(update={"world": NoWorld(kind="none")})
        chosen = TrafficSettings(kind="traffic", load=chosen.load, loads=chosen.loads)
    if chosen.traffic is None:
        chosen = chosen.model_copy(update={"traffic": scenario_traffic(scenario).model_dump(mode="json")})
    return settings.model_copy(update={"world": chosen})


def scenario_traffic(scenario: dict[str, Any]) -> TrafficSpec:
    """The traffic of a scenario group.

    Raises:
        ConfigError: If it has none.
    """
    from simulators.scenario import parse_scenario, traffic_of

    spec = parse_scenario(scenario)
    if spec.traffic is None:
        raise ConfigError(f"scenario {spec.name} has no traffic; give it a traffic section, or use world=queue or none")
    return traffic_of(spec)


def world_on(options: object, table: OutcomeTable, rng: np.random.Generator) -> World | None:
    """Contention on one table, or None.

    Args:
        options: The `world` group, with traffic filled in (`with_world`).
        table: The queries that requests ask.
        rng: Source of arrivals.
    """
    if isinstance(options, QueueSettings):
        return make_queue_world(table, rate_per_s=options.rate_per_s, slots=options.slots, rng=rng)
    if isinstance(options, TrafficSettings) and options.traffic is not None:
        return make_world(table, parse_traffic(options.traffic), load=options.load, rng=rng)
    return None


def world_note(settings: TuneSettings, world: World) -> str:
    """What a reader of the figures should know about the traffic."""
    if isinstance(settings.world, QueueSettings):
        return (
            f"Latencies include waits: Poisson arrivals at {settings.world.rate_per_s:g} per second, first come first "
            "served in each tier's slots."
        )
    rate = world.n_requests / world.duration_s
    fate = (
        "wait first come first served in each station's slots; nothing else happens to them"
        if contention.only_waits(world)
        else "wait, are refused, time out, fail and fall back as the scenario says: quality and cost include it"
    )
    return (
        f"Under load {world.load:g}: {world.n_requests:,} requests in {world.duration_s:g} s ({rate:.3g} per second) "
        f"ask the queries of a split again and again; they {fate}. Latencies are those of the answered requests."
    )


def world_file(world: object) -> dict[str, object] | None:
    """The world as `policy.json` and `run.json` hold it."""
    return world.model_dump() if isinstance(world, QueueSettings | TrafficSettings) else None


def world_record(settings: TuneSettings) -> dict[str, object] | None:
    """The world as `policy.json` and `run.json` hold it; a fleet that is searched is one."""
    space = settings.space
    if space.kind != "deployment":
        return world_file(settings.world)
    fleet = (settings.scenario or {}).get("fleet") or {}
    return {
        "kind": FLEET,
        "rate_per_s": space.rate_per_s or fleet.get("rate_per_s"),
        "budget_usd_per_hour": space.budget_usd_per_hour or fleet.get("budget_usd_per_hour"),
        "gpus": {name: gpu["count"] for name, gpu in (fleet.get("gpus") or {}).items()},
        "gpu_types": space.gpu_types,
        "evaluate": space.evaluate,
        "system_latency": space.system_latency,
    }


def is_fleet(stored: dict[str, object] | None) -> bool:
    """Whether `world_record` stored a fleet: latency then comes from a deployment, not from recorded answers."""
    return stored is not None and stored.get("kind") == FLEET


def world_from_file(stored: dict[str, object] | None) -> WorldOptions:
    """The options that `world_file` stored.

    Raises:
        ValidationError: If they cannot be read.
    """
    if stored is None:
        return NoWorld(kind="none")
    model = TrafficSettings if stored.get("kind") == "traffic" else QueueSettings
    return model.model_validate(stored)


def under_load(table: OutcomeTable, world: World | None, tier: IntArray) -> OutcomeTable:
    """The table with what one assignment (`tier: N`) meets in the cells that it chose."""
    return table if world is None else contention.under_load(table, world, tier)


def judged(table: OutcomeTable, world: World | None, tier: IntArray) -> OutcomeTable:
    """`under_load`, with the single tiers as all traffic on each of them would find them (`OutcomeTable.bare`)."""
    if world is None:
        return table
    return dataclasses.replace(under_load(table, world, tier), alone=single_tiers(table, world), _hash=[])


def zero_in_world(
    table: OutcomeTable, world: World | None, loaded: OutcomeTable, tier: IntArray
) -> ZeroUnderLoad | None:
    """The Zero router under load, at the cost of an assignment (`tier: N`); None without a world or without costs.

    Args:
        table: The outcomes as recorded.
        world: Requests, or None.
        loaded: What `under_load` made of the table.
        tier: The assignment.
    """
    if world is None or not table.has_cost:
        return None
    return zero_under_load(table, world, loaded, tier, spawn_rng(world.seed, "zero"))


def estimator_under_load(
    table: OutcomeTable, world: World | None, tier: IntArray, cover: Coverage
) -> ContendedEstimator | None:
    """Figures of one assignment (`tier: N`) over its requests, or None where nobody waits."""
    if world is None:
        return None
    assignment = tier[None, :].astype(np.int8)
    return ContendedEstimator(AssignmentEstimator(table, cover, assignment), world, assignment)


def single_tiers(table: OutcomeTable, world: World) -> OutcomeTable:
    """The table with, in each tier's column, what all traffic on that tier alone would meet."""
    alone = without_router(world)
    every = [under_load(table.bare, alone, np.full(table.n_queries, k)) for k in range(table.n_tiers)]
    return dataclasses.replace(
        table.bare,
        latency_s=np.stack([t.latency_s[:, k] for k, t in enumerate(every)], axis=1),
        quality=np.stack([t.quality[:, k] for k, t in enumerate(every)], axis=1),
        cost_usd=np.stack([t.cost_usd[:, k] for k, t in enumerate(every)], axis=1),
        _hash=[],
    )


def best_single(table: OutcomeTable, world: World | None) -> int:
    """Index of the single tier of highest quality, where requests fail under its own load."""
    failing = world is not None and not contention.only_waits(world)
    alone = single_tiers(table, world) if world is not None and failing else table
    return int(np.argmax(alone.quality.mean(axis=0)))


def single_tier_estimator(table: OutcomeTable, world: World) -> ContendedEstimator:
    """Figures of all traffic on each tier alone, one candidate per tier, over its requests."""
    every = np.repeat(np.arange(table.n_tiers, dtype=np.int8)[:, None], table.n_queries, axis=1)
    exact = AssignmentEstimator(table.bare, coverage(table, 2), every)
    return ContendedEstimator(exact, without_router(world), every)


def metrics_under_load(table: OutcomeTable, world: World | None, tier: IntArray, n_dropped: int) -> dict[str, Any]:
    """`metrics_summary`; under load, latencies are over the requests, and a single tier's figures its own load's.

    A batch slice keeps the latencies that were recorded.
    """
    loaded = under_load(table, world, tier)
    found: dict[str, Any] = metrics_summary(loaded, tier, n_dropped=n_dropped)
    if world is None:
        return found
    if not contention.only_waits(world) and (zero := zero_in_world(table, world, loaded, tier)) is not None:
        found["zero_router_quality_at_cost"] = zero.quality
    estimator = estimator_under_load(table, world, tier, coverage(table, 2))
    assert estimator is not None
    found["policy"]["latency_s"] = estimator.latency_summary()
    for name, latency in estimator.slice_latencies().items():
        found["slices"][name]["latency_s"] = latency
    found["tiers"] = metrics_summary(single_tiers(table, world), tier, n_dropped=n_dropped)["tiers"]
    alone = single_tier_estimator(table, world)
    for k, name in enumerate(table.tiers):
        found["tiers"][name]["latency_s"] = alone.latency_summary(k)
    return found


def single_tier_p95(table: OutcomeTable, world: World | None) -> FloatArray | None:
    """`K` p95 latencies of all traffic on each tier alone, over its requests; None where nobody waits."""
    if world is None:
        return None
    return single_tier_estimator(table, world).value(Metric("latency_p95"))


def capacity_usd(world: object) -> float:
    """Fixed price of all capacity per request, at the expected rate of requests; 0 without traffic."""
    if not isinstance(world, TrafficSettings) or world.traffic is None:
        return 0.0
    spec = parse_traffic(world.traffic)
    per_hour = sum(station.usd_per_hour for station in spec.stations.values())
    return per_hour / 3600 / (mean_rate(spec.arrivals) * world.load) if per_hour else 0.0
