"""The world under load: which requests arrive when, and what stands in their way.

Notation: R requests in order of the instant at which they reach the tiers, N rows of an outcome table, K tiers, J
stations. A request asks the query of one row; many requests may ask the same one. A *station* is capacity that waits
in one line (a provider's account, a pool of GPUs); several tiers may share one, such as the thinking modes of a model.

What happens to a request, in full; both kernels (`simulators/contention/`, `simulators/events/`) mean this:

1. It arrives at the router at `arrival_s` and reaches its tier at `ready_s` (the router's time in between). While the
   router is down it goes to `router_fallback`, or fails at `ready_s` where that is -1 (`ROUTER`, no attempt).
2. An *attempt* at tier k is refused at once if the station is in an outage (`OUTAGE`; start included, end not), if the
   account's request or token bucket is short (`LIMIT`), or if all slots are busy and the waiting line holds `buffer`
   already (`FULL`), tested in this order. A bucket holds one minute's worth, starts full, fills continuously and is
   only charged when both the request and the token bucket suffice, for an attempt that is then `FULL` too; the charge
   in tokens is that of row and tier, so that a request of more tokens than the bucket holds never passes.
3. Else it waits, first come first served, and holds one slot for `hold_s`. A waiting attempt that would get a slot
   during an outage is refused then (`OUTAGE`); one that is being served is served to its end.
4. The client gives up `timeout_s` after the attempt began (`TIMEOUT`): it leaves the line, or frees the slot. The part
   of the answer that was served, `served / hold_s`, is billed. An answer that ends at that instant is in time.
5. A served answer is an error (`ERROR`) with probability `error_rate + (error_rate_busy - error_rate) * b`, where b is
   the share of the station's other slots that were held when its service began (0 with one slot or without a limit).
   It holds its slot to the end and is not billed.
6. After a refused, timed-out or failed attempt: another one at the same tier `backoff_s * backoff_factor ** i` later
   (i = 0, 1, ... retries of this tier so far), as long as fewer than `retries` were made; then at once the `fallback`
   tier, with retries of its own; a tier is tried once per request. Where there is none, the request has failed then.
7. A served answer of a tier with a `second` tier goes there at once, as an attempt with the same rules (refusals,
   retries, no fallback and no third stage: the rules of `second`, its hold, tokens and cost those of `second` on that
   row times `second_share` of the first tier). With `second_async` the request is over before, and what comes of the
   second stage changes no time, only attempts, cost, load and what the check corrects (an asynchronous check; one that
   is never served corrects nothing); else the answer arrives when the second stage has ended, and without it the
   request has failed, the first stage being paid. The tier that answered is the first one in any case.
8. `ttft` counts from `arrival_s` to the first visible token: start of the successful service + `first_s` of that tier
   (of the second stage, times `second_share`, where there is a synchronous one). `e2e` counts to the end of the
   last stage plus `extra_s` of the tier that answered (the client's network; no slot is held); of a failed request, to
   the last refusal, timeout or error, when the client knew.

Simultaneous events: ends of service first, then timeouts, then attempts; among equals the smaller request number. What
happens *at once* is an event of the same instant. A slot that becomes free takes the next of the line within the event.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray

SERVED, OUTAGE, LIMIT, FULL, TIMEOUT, ERROR, ROUTER = range(7)
REASONS = ("served", "outage", "limit", "full", "timeout", "error", "router")
MOST_RETRIES = 100


@dataclass(frozen=True, kw_only=True)
class Station:
    """One waiting line and its limits.

    Attributes:
        name: As in the scenario.
        slots: Requests served at once; None: nobody ever waits.
        buffer: Most requests that may wait; None: unbounded.
        requests_per_min, tokens_per_min: Rate limits of the account; None: none.
        error_rate: Probability that an answer fails when nobody else is served.
        error_rate_busy: The same when all other slots are busy; linear in between.
        usd_per_hour: Fixed price of the capacity (provisioned slots, GPU hours).
    """

    name: str
    slots: int | None = None
    buffer: int | None = None
    requests_per_min: float | None = None
    tokens_per_min: float | None = None
    error_rate: float = 0.0
    error_rate_busy: float = 0.0
    usd_per_hour: float = 0.0

    @property
    def feed_forward(self) -> bool:
        """Whether its waits follow from arrivals and holds alone."""
        limits = (self.buffer, self.requests_per_min, self.tokens_per_min)
        return all(limit is None for limit in limits) and self.error_rate == self.error_rate_busy == 0.0


@dataclass(frozen=True, kw_only=True)
class TierRule:
    """How requests for one tier behave; see the module's text.

    Attributes:
        station: Index of its station.
        timeout_s: Patience per attempt; `inf`: endless.
        retries: Further attempts at this tier.
        backoff_s, backoff_factor: Pause before the first retry; growth per retry.
        fallback: Tier that is tried next, or -1.
        second: Tier of the second stage, or -1.
        second_share: Hold, first token and cost of the second stage over those of a whole answer of that tier.
        second_async: Whether the answer leaves before the second stage.
    """

    station: int
    timeout_s: float = math.inf
    retries: int = 0
    backoff_s: float = 1.0
    backoff_factor: float = 2.0
    fallback: int = -1
    second: int = -1
    second_share: float = 1.0
    second_async: bool = False

    def pause_s(self, i: int) -> float:
        """Seconds before retry `i`, counted from 0."""
        return math.prod([self.backoff_s, *[self.backoff_factor] * i])


@dataclass(frozen=True, kw_only=True)
class Outage:
    """Stations that refuse everything from `start_s` to `end_s`; several at once are a provider's common failure."""

    stations: tuple[int, ...]
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class World:
    """Requests of one table, and what stands in their way.

    Attributes:
        arrival_s: `R` instants at the router.
        ready_s: `R` instants at the tiers, ascending; not before `arrival_s`.
        row: `R` rows of the table.
        router_down: `R`, True where the router could not decide.
        router_fallback: Tier that gets those requests, or -1: they fail.
        stations: J.
        rules: K, in the table's tier order.
        outages: Those of one station do not overlap.
        warmup_s: Requests that arrive earlier are simulated and not counted.
        duration_s: End of the arrivals.
        seed: Of the draws of step 5, one per request and attempt, the same for all candidates; 0 or more.
        load: Factor that the arrival rates were scaled by.
    """

    arrival_s: FloatArray
    ready_s: FloatArray
    row: IntArray
    router_down: NDArray[np.bool_]
    router_fallback: int = -1
    stations: tuple[Station, ...]
    rules: tuple[TierRule, ...]
    outages: tuple[Outage, ...] = ()
    warmup_s: float = 0.0
    duration_s: float
    seed: int = 0
    load: float = 1.0

    def __post_init__(self) -> None:
        _check_times(self)
        _check_rules(self)
        _check_outages(self)

    @property
    def n_requests(self) -> int:
        """R."""
        return len(self.ready_s)

    @property
    def counted(self) -> IntArray:
        """Requests after the warm-up."""
        return np.flatnonzero(self.arrival_s >= self.warmup_s)

    @property
    def feed_forward(self) -> bool:
        """Whether routing alone decides who waits where: no limit, time-out, error, outage or second stage."""
        patient = all(math.isinf(rule.timeout_s) and rule.second < 0 for rule in self.rules)
        return patient and not self.outages and all(station.feed_forward for station in self.stations)

    @property
    def usd_per_hour(self) -> float:
        """Fixed price of all capacity."""
        return sum(station.usd_per_hour for station in self.stations)

    def spans(self, station: int) -> list[tuple[float, float]]:
        """Outages of one station, in order of time."""
        return sorted((o.start_s, o.end_s) for o in self.outages if station in o.stations)

    def reached(self, tier: NDArray[np.int8], requests: slice = slice(None)) -> NDArray[np.int8]:
        """`n x R` tiers that requests sent to `tier: n x R` reach: `router_fallback` while the router is down."""
        down = self.router_down[requests]
        return np.where(down, np.int8(self.router_fallback), tier) if down.any() else tier


def _check_times(world: World) -> None:
    shapes = {len(world.arrival_s), len(world.ready_s), len(world.row), len(world.router_down)}
    if len(shapes) > 1 or shapes == {0}:
        raise ConfigError(f"a world needs one instant and one row per request; got lengths {sorted(shapes)}")
    if not np.isfinite(world.ready_s).all() or (np.diff(world.ready_s) < 0).any():
        raise ConfigError("requests must come in the order in which they reach the tiers")
    if not (world.arrival_s <= world.ready_s).all() or (world.row < 0).any():
        raise ConfigError("a request cannot reach a tier before it arrived, or ask a negative row")
    if not 0 < world.duration_s < math.inf:
        raise ConfigError(f"a world must last a positive time; got {world.duration_s:g} s")


def _check_rules(world: World) -> None:
    for tier, rule in enumerate(world.rules):
        _check_rule(world, tier, rule)
    for station in world.stations:
        _check_station(station)
    if not -1 <= world.router_fallback < len(world.rules):
        raise ConfigError(f"the router cannot fall back to tier {world.router_fallback} of {len(world.rules)}")


def _check_rule(world: World, tier: int, rule: TierRule) -> None:
    tiers = range(-1, len(world.rules))
    if not 0 <= rule.station < len(world.stations):
        raise ConfigError(f"tier {tier} names station {rule.station} of {len(world.stations)}")
    if rule.fallback not in tiers or rule.second not in tiers or tier in (rule.fallback, rule.second):
        raise ConfigError(f"tier {tier} cannot fall back to {rule.fallback} or have second stage {rule.second}")
    if not rule.timeout_s > 0 or not rule.backoff_s >= 0 or not rule.backoff_factor >= 0:
        raise ConfigError(f"tier {tier}: timeouts must be positive, back-off not negative")
    if not 0 <= rule.retries <= MOST_RETRIES or not math.isfinite(rule.pause_s(max(rule.retries - 1, 0))):
        raise ConfigError(f"tier {tier}: 0 to {MOST_RETRIES} retries with finite pauses; got {rule.retries}")
    if not 0 <= rule.second_share < math.inf:
        raise ConfigError(f"tier {tier}: a second stage takes a share of 0 or more; got {rule.second_share:g}")


def _check_station(station: Station) -> None:
    limits = (station.slots, station.requests_per_min, station.tokens_per_min)
    if any(limit is not None and not limit > 0 for limit in limits) or (station.buffer or 0) < 0:
        raise ConfigError(f"station {station.name}: slots and rate limits must be positive, a buffer not negative")
    if station.requests_per_min is not None and station.requests_per_min < 1:
        raise ConfigError(f"station {station.name}: with less than 1 request per minute none ever passes")
    if not 0 <= station.error_rate <= 1 or not 0 <= station.error_rate_busy <= 1:
        raise ConfigError(f"station {station.name}: error rates must lie in [0, 1]")


def _check_outages(world: World) -> None:
    for outage in world.outages:
        if not all(0 <= j < len(world.stations) for j in outage.stations):
            raise ConfigError(f"an outage names stations {list(outage.stations)} of {len(world.stations)}")
        if not 0 <= outage.start_s < outage.end_s:
            raise ConfigError(f"an outage must end after it starts; got {outage.start_s:g} to {outage.end_s:g} s")
    for j, station in enumerate(world.stations):
        for (_, end), (start, _) in itertools.pairwise(world.spans(j)):
            if start < end:
                raise ConfigError(f"outages of {station.name} overlap at {start:g} s; merge them")
