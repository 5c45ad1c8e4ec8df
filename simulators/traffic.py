"""Traffic: arrivals, capacity and faults as a scenario's YAML states them, and the `World` they make of a table.

Requests ask the rows of the table in random order, again and again where there are more requests than rows; batch rows
wait for nothing and take no part. Where rows hold from some instant on (`OutcomeTable.asked_s`), a request asks one of
those that hold when it arrives.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from simulators.arrivals import ArrivalSpec, sample_arrivals
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.queueing import waiting_times
from simulators.spec import one_line
from simulators.world import Outage, Station, TierRule, World

MOST_REQUESTS = 20_000_000

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StationSpec(_Spec):
    """Capacity that waits in one line; None is "no limit".

    Attributes:
        slots: Requests served at once.
        buffer: Most requests that may wait.
        requests_per_min, tokens_per_min: Rate limits.
        error_rate, error_rate_busy: Probability that an answer fails on the idle and on the full station.
        slot_usd_per_hour: Provisioned throughput: price of one slot.
        gpus, gpu_usd_per_hour: Self-hosted: number of GPUs, price of one.
    """

    slots: Annotated[int, Field(gt=0)] | None = None
    buffer: Annotated[int, Field(ge=0)] | None = None
    requests_per_min: Positive | None = None
    tokens_per_min: Positive | None = None
    error_rate: Share = 0.0
    error_rate_busy: Share | None = None
    slot_usd_per_hour: NotNegative = 0.0
    gpus: Annotated[int, Field(ge=0)] = 0
    gpu_usd_per_hour: NotNegative = 0.0

    @model_validator(mode="after")
    def _priced(self) -> StationSpec:
        if self.slot_usd_per_hour and self.slots is None:
            raise ValueError("slot_usd_per_hour prices slots, so slots must be a number")
        if (self.gpus > 0) != (self.gpu_usd_per_hour > 0):
            raise ValueError("gpus and gpu_usd_per_hour belong together; an unpriced GPU is not free")
        return self

    @property
    def usd_per_hour(self) -> float:
        """Fixed price of the capacity."""
        return self.slot_usd_per_hour * (self.slots or 0) + self.gpus * self.gpu_usd_per_hour


class ConductSpec(_Spec):
    """What a client of one tier does; see `simulators/world.py`.

    Attributes:
        station: Name of the station; None: one of the tier's own name.
        timeout_s: Patience per attempt; None: endless.
        retries, backoff_s, backoff_factor: Further attempts, pause before the first, growth of the pause.
        fallback: Tier that is tried next.
    """

    station: str | None = None
    timeout_s: Positive | None = None
    retries: Annotated[int, Field(ge=0, le=20)] = 0
    backoff_s: NotNegative = 1.0
    backoff_factor: NotNegative = 2.0
    fallback: str | None = None


class SpanSpec(_Spec):
    """From `start_s` to `end_s` of the traffic."""

    start_s: NotNegative
    end_s: Positive

    @model_validator(mode="after")
    def _ordered(self) -> SpanSpec:
        if self.end_s <= self.start_s:
            raise ValueError(f"expected start_s < end_s; got {self.start_s:g} and {self.end_s:g}")
        return self


class OutageSpec(SpanSpec):
    """Stations that refuse everything for a while; several at once are a provider's common failure."""

    stations: Annotated[tuple[str, ...], Field(min_length=1)]


class RouterSpec(_Spec):
    """The router as a part of the world.

    Attributes:
        servers: Queries it decides at once, each for its own delay; None: never a wait.
        outages: When it is down.
        on_outage: `fail`, or the tier that gets the queries then.
    """

    servers: Annotated[int, Field(gt=0)] | None = None
    outages: tuple[SpanSpec, ...] = ()
    on_outage: str = "fail"


class SecondStage(_Spec):
    """What happens to a tier's answers afterwards: formatted by another tier, or checked by it.

    Attributes:
        tier: The tier of the second stage.
        share: Its time, tokens and cost over those of a whole answer of that tier.
        kind: `format`: the answer waits for it; `check`: it is on its way already (act now, verify later).
        correction_rate: `check` only: share of the quality that the checking tier would add and that is made good.
    """

    tier: str
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    kind: Literal["format", "check"] = "format"
    correction_rate: Share = 0.0


class TrafficSpec(_Spec):
    """The `traffic` of a scenario.

    Attributes:
        duration_s: Length of the arrivals.
        warmup_s: Requests before it are simulated and not counted.
        arrivals: When requests come, at load 1.
        stations: Capacity by name; a tier without one never makes anybody wait.
        tiers: Conduct by tier.
        outages: Of stations.
        router: The router's capacity and outages.
        second: Second stages by tier (filled in from the scenario's tiers).
    """

    duration_s: Annotated[float, Field(gt=0, le=31 * 86_400)]
    warmup_s: NotNegative = 0.0
    arrivals: ArrivalSpec
    stations: Mapping[str, StationSpec] = {}
    tiers: Mapping[str, ConductSpec] = {}
    outages: tuple[OutageSpec, ...] = ()
    router: RouterSpec = RouterSpec()
    second: Mapping[str, SecondStage] = {}

    @model_validator(mode="after")
    def _consistent(self) -> TrafficSpec:
        if self.warmup_s >= self.duration_s:
            raise ValueError(f"expected warmup_s below duration_s={self.duration_s:g}; got {self.warmup_s:g}")
        return self


def parse_traffic(raw: Mapping[str, object]) -> TrafficSpec:
    """The validated traffic of a plain mapping.

    Raises:
        ConfigError: On the first wrong field, in one line.
    """
    try:
        return TrafficSpec.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(one_line(error, "traffic", TrafficSpec)) from error


def make_world(
    table: OutcomeTable, traffic: TrafficSpec, *, load: float, rng: np.random.Generator, folder: Path | None = None
) -> World:
    """Requests to the table's queries under some traffic.

    Args:
        table: The outcomes; latencies must be known.
        traffic: Arrivals, capacity, faults.
        load: Factor of the arrival rates.
        rng: Source of arrivals, order of the queries and errors, each with a child stream of its own.
        folder: Where the relative path of a trace starts.

    Raises:
        ConfigError: If latencies are unknown, a name is no tier or station, or nobody comes.
    """
    if not table.has_latency:
        raise ConfigError("traffic needs latency_s of every answer, which this data does not have")
    if not load > 0 or not np.isfinite(load):
        raise ConfigError(f"load: expected a positive factor of the arrival rates; got {load:g}")
    arrival_rng, row_rng, error_rng = rng.spawn(3)
    arrival_s = sample_arrivals(
        traffic.arrivals, duration_s=traffic.duration_s, load=load, rng=arrival_rng, folder=folder
    ).arrival_s
    if not 0 < len(arrival_s) <= MOST_REQUESTS:
        raise ConfigError(
            f"traffic: expected 1 to {MOST_REQUESTS:,} requests in {traffic.duration_s:g} s; got {len(arrival_s):,}; "
            "change traffic.duration_s, the rate or load"
        )
    if not (arrival_s >= traffic.warmup_s).any():
        raise ConfigError(
            f"traffic: no request comes after warmup_s={traffic.warmup_s:g}, so nothing would be counted; shorten it"
        )
    row = _rows(table, arrival_s, row_rng)
    ready_s = _ready(table, traffic, arrival_s, row)
    order = np.argsort(ready_s, kind="stable")
    down = np.zeros(len(arrival_s), dtype=np.bool_)
    for span in traffic.router.outages:
        down |= (arrival_s >= span.start_s) & (arrival_s < span.end_s)
    stations, rules = _stations(table, traffic)
    names = [station.name for station in stations]
    return World(
        arrival_s=arrival_s[order],
        ready_s=ready_s[order],
        row=row[order],
        router_down=down[order],
        router_fallback=_router_fallback(table, traffic),
        stations=stations,
        rules=rules,
        outages=tuple(
            Outage(stations=tuple(names.index(s) for s in o.stations), start_s=o.start_s, end_s=o.end_s)
            for o in _known_outages(traffic, names)
        ),
        warmup_s=traffic.warmup_s,
        duration_s=traffic.duration_s,
        seed=int(error_rng.integers(2**63)),
        load=load,
    )


def _rows(table: OutcomeTable, arrival_s: FloatArray, rng: np.random.Generator) -> IntArray:
    """`R` rows: every row equally often, in random order, among those that hold at the time."""
    waits = np.ones(table.n_queries, dtype=np.bool_) if table.batch is None else ~table.batch
    if not waits.any():
        raise ConfigError("all queries are batch traffic, which waits for nothing; give an interactive slice")
    if table.asked_s is None:
        return _cycle(np.flatnonzero(waits), len(arrival_s), rng)
    since = np.unique(table.asked_s)
    segment = np.maximum(np.searchsorted(since, arrival_s, side="right") - 1, 0)
    row = np.empty(len(arrival_s), dtype=np.int64)
    for i, start_s in enumerate(since):
        here = np.flatnonzero(segment == i)
        rows = np.flatnonzero(waits & (table.asked_s == start_s))
        if len(here) and not len(rows):
            raise ConfigError(f"no interactive query holds from {start_s:g} s on; sample more queries")
        row[here] = _cycle(rows, len(here), rng)
    return row


def _cycle(rows: IntArray, n: int, rng: np.random.Generator) -> IntArray:
    rounds = -(-n // max(len(rows), 1))
    return np.concatenate([np.empty(0, dtype=np.int64), *(rng.permutation(rows) for _ in range(rounds))])[:n]


def _ready(table: OutcomeTable, traffic: TrafficSpec, arrival_s: FloatArray, row: IntArray) -> FloatArray:
    """`R` instants at which the router has decided."""
    if table.router_delay_s is None:
        return arrival_s
    delay_s = table.router_delay_s[row]
    servers = traffic.router.servers
    wait_s = 0.0 if servers is None else waiting_times(arrival_s, delay_s, servers=servers)
    return np.asarray(arrival_s + wait_s + delay_s)


def _stations(table: OutcomeTable, traffic: TrafficSpec) -> tuple[tuple[Station, ...], tuple[TierRule, ...]]:
    _check_names(table, traffic)
    named = {tier: traffic.tiers.get(tier, ConductSpec()).station or tier for tier in table.tiers}
    names = list(dict.fromkeys([*traffic.stations, *named.values()]))
    unknown = sorted({s for t, s in named.items() if s != t} - set(traffic.stations))
    if unknown:
        raise ConfigError(f"traffic.tiers names the stations {unknown}; known: {sorted(traffic.stations)}")
    stations = []
    for name in names:
        spec = traffic.stations.get(name, StationSpec())
        busy = spec.error_rate if spec.error_rate_busy is None else spec.error_rate_busy
        limits = spec.model_dump(include={"slots", "buffer", "requests_per_min", "tokens_per_min", "error_rate"})
        stations.append(Station(name=name, error_rate_busy=busy, usd_per_hour=spec.usd_per_hour, **limits))
    return tuple(stations), tuple(_rule(table, traffic, tier, names.index(named[tier])) for tier in table.tiers)


def _check_names(table: OutcomeTable, traffic: TrafficSpec) -> None:
    tiers, second = list(table.tiers), traffic.second
    named = {*traffic.tiers, *second, *(s.tier for s in second.values())}
    named |= {c.fallback for c in traffic.tiers.values() if c.fallback is not None}
    strange = sorted(named - set(tiers))
    if strange:
        raise ConfigError(f"traffic names {strange}, which are none of the tiers {tiers}")
    used = {traffic.tiers.get(tier, ConductSpec()).station or tier for tier in tiers}
    idle = sorted(set(traffic.stations) - used)
    if idle:
        raise ConfigError(f"traffic.stations has {idle}, which no tier of {tiers} uses; name them in traffic.tiers")


def _rule(table: OutcomeTable, traffic: TrafficSpec, tier: str, station: int) -> TierRule:
    conduct = traffic.tiers.get(tier, ConductSpec())
    second = traffic.second.get(tier)
    return TierRule(
        station=station,
        timeout_s=np.inf if conduct.timeout_s is None else conduct.timeout_s,
        retries=conduct.retries,
        backoff_s=conduct.backoff_s,
        backoff_factor=conduct.backoff_factor,
        fallback=-1 if conduct.fallback is None else table.tiers.index(conduct.fallback),
        second=-1 if second is None else table.tiers.index(second.tier),
        second_share=1.0 if second is None else second.share,
        second_async=second is not None and second.kind == "check",
    )


def _known_outages(traffic: TrafficSpec, names: list[str]) -> tuple[OutageSpec, ...]:
    strange = sorted({s for outage in traffic.outages for s in outage.stations} - set(names))
    if strange:
        raise ConfigError(f"traffic.outages names {strange}; known stations: {names}")
    return traffic.outages


def _router_fallback(table: OutcomeTable, traffic: TrafficSpec) -> int:
    on_outage = traffic.router.on_outage
    if on_outage == "fail":
        return -1
    if on_outage not in table.tiers:
        raise ConfigError(f"traffic.router.on_outage: expected fail or one of {list(table.tiers)}; got {on_outage}")
    return table.tiers.index(on_outage)
