"""The loop of `routefront simulate`: replications, and within each the loads, on common random numbers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from experiments.simulate_figures import (
    Ledger,
    Requests,
    StationCount,
    batch_requests,
    counted_requests,
    ends_of,
    repeated_share,
    series_of,
    station_count,
    station_figures,
    tier_shares,
    with_batch,
)
from experiments.simulate_output import SingleTiers, single_tier_figures
from experiments.simulate_policy import Router, in_order
from experiments.simulate_settings import SimulateSettings
from experiments.simulate_skills import SkillCount, check_figures, skill_count, success_shares
from experiments.simulate_timeline import make_timeline
from simulators.errors import ConfigError
from simulators.journeys import Journeys
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.sampling import expected_success
from simulators.scenario import ScenarioSpec, sample_scenario
from simulators.seeds import spawn_rng
from simulators.traffic import TrafficSpec, make_world
from simulators.world import World
from toolkit.certify.zero_load import zero_under_load
from toolkit.evaluation.contention import only_waits, run, under_load, without_router
from toolkit.report.simulation import LoadFigures, SimulationReport, Timeline, nearest_one
from toolkit.zero_router import zero_router

ROWS = 20_000
_MOST_ROWS = 500_000
_MOST_MIXED = 200_000  # requests of a world in which hundreds of mixtures of tiers are simulated for the Zero router
_SPARE = 1.05  # rows are drawn at random over slices and change points, so a few more than requests are needed


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What stays the same over loads and replications.

    Attributes:
        settings: As given.
        spec, traffic: The scenario and its traffic.
        router: Who routes.
        tiers: K names in the router's order.
    """

    settings: SimulateSettings
    spec: ScenarioSpec
    traffic: TrafficSpec
    router: Router
    tiers: tuple[str, ...]

    def table(self, replication: int, n: int) -> OutcomeTable:
        """`n` queries behind the router."""
        rng = spawn_rng(self.settings.seed, "simulate", str(replication), "table")
        return self.router.behind_router(in_order(sample_scenario(self.spec, n_queries=n, rng=rng), self.tiers))

    def world(self, table: OutcomeTable, load: float, replication: int) -> World:
        """Requests on the table: of one replication the same random numbers at every load."""
        rng = spawn_rng(self.settings.seed, "simulate", str(replication), "world")
        return make_world(table, self.traffic, load=load, rng=rng)

    def run(self, table: OutcomeTable, tier: IntArray, load: float, replication: int) -> tuple[World, Journeys]:
        """The journeys of one assignment (`tier: N`)."""
        world = self.world(table, load, replication)
        return world, run(world, table, tier[None, :].astype(np.int8))


@dataclass(kw_only=True)
class _Load:
    """What is kept of one load while replications come in; one value per replication."""

    load: float
    ledger: Ledger
    requests: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    capacity_usd: list[float] = field(default_factory=list)
    counts: list[StationCount] = field(default_factory=list)
    ends: list[dict[str, float]] = field(default_factory=list)
    sent: list[FloatArray] = field(default_factory=list)
    served: list[FloatArray] = field(default_factory=list)
    skills: list[SkillCount] = field(default_factory=list)
    world: World | None = None


@dataclass(kw_only=True)
class _Main:
    """What is kept of the load nearest 1 beside."""

    timeline: Timeline | None = None
    shares: list[FloatArray] = field(default_factory=list)
    single: list[dict[str, dict[str, Any]]] = field(default_factory=list)
    cost_usd: list[FloatArray] = field(default_factory=list)
    quality: list[FloatArray] = field(default_factory=list)
    zero_quality: float | None = None
    notes: tuple[str, ...] = ()
    rows: int = 0


def simulate_loads(setup: Setup, update: Callable[[int, int | None], None]) -> tuple[SimulationReport, SingleTiers]:
    """All replications at all loads; `update` is told how many of them are done."""
    settings, began = setup.settings, time.perf_counter()
    loads = [_Load(load=load, ledger=Ledger(replications=settings.replications)) for load in settings.load]
    main, kept = loads[nearest_one(settings.load)], _Main()
    for replication in range(settings.replications):
        table = _draw(setup, replication)
        tier = setup.router.assign(table)
        for i, state in enumerate(loads):
            world, journeys = setup.run(table, tier, state.load, replication)
            _note(setup, state, table, tier, world, journeys)
            if state is main:
                kept.timeline = kept.timeline or make_timeline(setup.spec, world, journeys)
                _note_singles(setup, kept, table, tier, state.load, replication)
                if replication == 0 and not only_waits(world):
                    _note_zero(setup, kept, table, world, tier)
            update(replication * len(loads) + i + 1, settings.replications * len(loads))
    report = _report(setup, loads, kept, time.perf_counter() - began)
    return report, _singles(setup, report, kept)


def compile_kernel(setup: Setup) -> None:
    """Simulate two requests, so that the kernel that this traffic needs is compiled, or loaded from the cache."""
    from simulators.simulate import simulate

    table = setup.table(0, setup.settings.n_queries or ROWS)
    world = setup.world(table, max(setup.settings.load), 0)
    few = {name: getattr(world, name)[:2] for name in ("arrival_s", "ready_s", "row", "router_down")}
    simulate(dataclasses.replace(world, **few), table, np.zeros((1, table.n_queries), np.int8), per_request=False)


def _draw(setup: Setup, replication: int) -> OutcomeTable:
    """The replication's queries; with one replication enough for every request to ask its own."""
    settings = setup.settings
    table = setup.table(replication, settings.n_queries or ROWS)
    if settings.n_queries is not None or settings.replications > 1:
        return table
    world = setup.world(table, max(settings.load), replication)
    needed = min(int(_SPARE * world.n_requests / (1.0 - _batch_share(table))), _MOST_ROWS)
    return table if needed <= table.n_queries else setup.table(replication, needed)


def _capacity_usd(world: World) -> float:
    """Fixed price of all capacity per request."""
    return world.usd_per_hour * world.duration_s / 3600 / world.n_requests


def _note(setup: Setup, state: _Load, table: OutcomeTable, tier: IntArray, world: World, journeys: Journeys) -> None:
    """Take one replication's figures into the load's books."""
    requests, batch = counted_requests(table, world, journeys), batch_requests(table, tier, setup.spec.batch_delay_s)
    if len(requests) == 0:
        raise ConfigError(f"load={state.load:g}: no request arrives after the warm-up of {world.warmup_s:g} s")
    share, repeated, capacity_usd = _batch_share(table), repeated_share(world), _capacity_usd(world)
    interactive = series_of(requests, slo_s=setup.settings.slo_s, capacity_usd=capacity_usd)
    overall = interactive
    if batch is not None:
        overall = with_batch(interactive, batch, share)
        state.ledger.add(("class", "batch"), len(batch), series_of(batch, slo_s=None))
        _note_slices(state, table, batch, slo_s=None)
    state.ledger.add(("all", "all"), len(requests), overall, repeated=repeated)
    state.ledger.add(("class", "interactive"), len(requests), interactive, repeated=repeated)
    slo_s = setup.settings.slo_s
    _note_slices(state, table, requests, slo_s=slo_s, capacity_usd=capacity_usd, repeated=repeated)
    _note_tiers(setup, state, requests, repeated, capacity_usd)
    state.world = world
    state.requests.append(len(requests))
    state.rates.append(world.n_requests / world.duration_s)
    state.capacity_usd.append((1.0 - share) * capacity_usd)
    state.counts.append(station_count(world, journeys))
    state.ends.append(ends_of(requests))
    state.sent.append(_shares(requests.sent, len(setup.tiers)))
    state.served.append(_shares(requests.served, len(setup.tiers)))
    state.skills.append(skill_count(requests, table))


def _note_tiers(setup: Setup, state: _Load, requests: Requests, repeated: float, capacity_usd: float) -> None:
    for code, name in enumerate(setup.tiers):
        part = requests.take(requests.sent == code)
        if len(part):
            series = series_of(part, slo_s=setup.settings.slo_s, capacity_usd=capacity_usd)
            state.ledger.add(("tier", name), len(part), series, repeated=repeated)


def _batch_share(table: OutcomeTable) -> float:
    return 0.0 if table.batch is None else float(table.batch.mean())


def _note_slices(
    state: _Load,
    table: OutcomeTable,
    requests: Requests,
    *,
    slo_s: float | None,
    capacity_usd: float = 0.0,
    repeated: float = 0.0,
) -> None:
    for code, name in enumerate(table.slices):
        part = requests.take(requests.slice_code == code)
        if len(part):
            series = series_of(part, slo_s=slo_s, capacity_usd=capacity_usd) | tier_shares(part, table.tiers)
            state.ledger.add(("slice", name), len(part), series, repeated=repeated)


def _shares(tier: IntArray, k: int) -> FloatArray:
    """`K` shares of the requests; those of no tier (-1) count in the whole only."""
    return np.bincount(tier[tier >= 0], minlength=k) / len(tier)


def _note_singles(
    setup: Setup, kept: _Main, table: OutcomeTable, tier: IntArray, load: float, replication: int
) -> None:
    """All traffic on each tier alone, without a router, and mean cost and quality of the tiers without load."""
    plain, found = table.bare, {}
    for k, name in enumerate(setup.tiers):
        alone = np.full(table.n_queries, k)
        world = without_router(setup.world(plain, load, replication))
        journeys = run(world, plain, alone[None, :].astype(np.int8))
        requests, batch = counted_requests(plain, world, journeys), batch_requests(plain, alone, 0.0)
        series = series_of(requests, slo_s=setup.settings.slo_s, capacity_usd=_capacity_usd(world))
        if batch is not None:
            series = with_batch(series, batch, _batch_share(plain))
        found[name] = single_tier_figures(series)
    kept.single.append(found)
    kept.cost_usd.append(plain.cost_usd.mean(axis=0))
    kept.quality.append(plain.quality.mean(axis=0))
    kept.shares.append(_shares(tier, len(setup.tiers)))
    kept.rows = table.n_queries


def _note_zero(setup: Setup, kept: _Main, table: OutcomeTable, world: World, tier: IntArray) -> None:
    """Mixing at random in a world where requests fail; unknown where that would take too long."""
    if world.n_requests > _MOST_MIXED:
        kept.zero_quality = np.nan
        kept.notes += (
            f"The Zero router is not simulated: {world.n_requests:,} requests are more than the {_MOST_MIXED:,} for "
            "which that is done; a shorter traffic.duration_s would do.",
        )
        return
    loaded = under_load(table, world, tier)
    rng = spawn_rng(setup.settings.seed, "simulate", "0", "zero")
    kept.zero_quality = zero_under_load(table, world, loaded, tier, rng).quality


def _report(setup: Setup, loads: list[_Load], kept: _Main, seconds: float) -> SimulationReport:
    assert kept.timeline is not None
    settings = setup.settings
    return SimulationReport(
        scenario=setup.spec.name,
        policy=setup.router.text,
        tiers=setup.tiers,
        tier_shares=_named(setup, kept.shares),
        slo_s=settings.slo_s,
        replications=settings.replications,
        seed=settings.seed,
        n_queries=kept.rows,
        duration_s=setup.traffic.duration_s,
        warmup_s=setup.traffic.warmup_s,
        seconds=seconds,
        loads=tuple(_figures(setup, state) for state in loads),
        timeline=kept.timeline,
        success=expected_success(setup.spec),
        notes=kept.notes,
    )


def _figures(setup: Setup, state: _Load) -> LoadFigures:
    assert state.world is not None
    ledger = state.ledger
    return LoadFigures(
        load=state.load,
        requests=float(np.mean(state.requests)),
        rate_per_s=float(np.mean(state.rates)),
        overall=ledger.group(("all", "all")),
        by_class=ledger.groups("class", ("interactive", "batch")),
        by_slice=ledger.groups("slice", tuple(sorted(setup.spec.slices))),
        by_tier=ledger.groups("tier", setup.tiers),
        sent=_named(setup, state.sent),
        served=_named(setup, state.served),
        stations=station_figures(state.world, state.counts),
        ends={name: float(np.mean([ends[name] for ends in state.ends])) for name in state.ends[0]},
        capacity_usd=float(np.mean(state.capacity_usd)),
        checks=check_figures(state.world, setup.tiers, state.skills),
        success=success_shares(setup.spec, setup.tiers, state.skills),
    )


def _named(setup: Setup, values: list[FloatArray]) -> dict[str, float]:
    """Tier -> mean over replications."""
    return dict(zip(setup.tiers, np.mean(values, axis=0).tolist(), strict=True))


def _singles(setup: Setup, report: SimulationReport, kept: _Main) -> SingleTiers:
    figures = {name: _mean_of([found[name] for found in kept.single]) for name in setup.tiers}
    zero_quality = kept.zero_quality
    if zero_quality is None:
        hull = zero_router(np.mean(kept.cost_usd, axis=0), np.mean(kept.quality, axis=0))
        zero_quality = hull.quality_at(report.main.overall.figures["cost_usd"].value - report.main.capacity_usd)
    return SingleTiers(figures=figures, zero_quality=zero_quality)


def _mean_of(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of nested figures with the same names."""
    return {
        name: _mean_of([one[name] for one in figures])
        if isinstance(value, dict)
        else float(np.mean([one[name] for one in figures]))
        for name, value in figures[0].items()
    }
