"""The world as flat arrays, and the records in which the kernel keeps what is under way.

Notation: n candidates, R requests, N rows, K tiers, J stations. A *job* is a request that has arrived and is not over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulators.errors import InputDataError
from simulators.events.draws import mixed
from simulators.outcomes import FloatArray, IntArray
from simulators.world import REASONS, Station, World

MOST_TIERS = 63
_UNBOUNDED = np.iinfo(np.int64).max

Records = NDArray[Any]

REQUEST = np.dtype([("arrival_s", "f8"), ("ready_s", "f8"), ("row", "i8")])
ANSWER = np.dtype([(name, "f8") for name in ("hold_s", "first_s", "extra_s", "tokens", "cost_usd")])
RULE = np.dtype(
    [
        *((name, "f8") for name in ("timeout_s", "backoff_s", "backoff_factor", "second_share")),
        *((name, "i8") for name in ("station", "retries", "fallback", "second", "second_async")),
    ]
)
STATION = np.dtype(
    [
        *((name, "f8") for name in ("request_limit", "token_limit", "request_rate", "token_rate")),  # rates per second
        *((name, "f8") for name in ("error_rate", "error_rise")),
        *((name, "i8") for name in ("slots", "buffer")),  # 0 slots: no limit
    ]
)
JOB = np.dtype(
    [
        ("began_s", "f8"),  # of the attempt
        ("start_s", "f8"),  # of its service
        ("hold_s", "f8"),
        ("pause_s", "f8"),  # before the next retry
        ("share", "f8"),  # of a whole answer: 1 but in a second stage
        ("cost_usd", "f8"),
        ("e2e_s", "f8"),
        ("ttft_s", "f8"),
        ("extra_s", "f8"),  # of the tier that will have answered
        ("tried", "i8"),  # one bit per tier
        ("request", "i4"),
        ("row", "i4"),
        ("line_next", "i4"),  # in the station's waiting line; of a job that is over, the next free one
        ("line_before", "i4"),
        ("patience_next", "i4"),  # among those waiting for the same tier, in the order in which they give up
        ("patience_before", "i4"),
        ("attempts", "i2"),
        ("retries", "i2"),
        ("tier", "i1"),
        ("served", "i1"),  # the tier that answered or will have when the second stage has ended, else -1
        ("stage", "i1"),
        ("error", "i1"),  # whether the answer being made will be one
    ],
    align=True,
)
EVENT = np.dtype([("at_s", "f8"), ("code", "i8")])
LINE = np.dtype(
    [
        *((name, "f8") for name in ("request_level", "request_seen", "token_level", "token_seen", "busy_s")),
        *((name, "i8") for name in ("held", "waiting", "longest")),
        *((name, "i8") for name in ("outage", "outage_stop")),  # the next one to end; the last one's successor
        *((name, "i8") for name in ("head", "tail")),
    ]
)
PATIENCE = np.dtype([("at_s", "f8"), ("code", "i8"), ("head", "i8"), ("tail", "i8")])  # who gives up first, and when
CLOCK = np.dtype([*((name, "i8") for name in ("arrived", "events", "jobs", "free", "ended", "fetched")), ("sum", "f8")])


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one attempt takes, for every row and tier.

    Attributes:
        hold_s: `N x K` seconds that a slot is held.
        first_s: `N x K` from start of service to the first visible token; may be NaN.
        extra_s: `N x K` after the slot is free, until the client has everything.
        tokens: `N x K` that a token limit counts; NaN only where no station has one.
        cost_usd: `N x K`; NaN where unknown, and then so is the cost of the request.
    """

    hold_s: FloatArray
    first_s: FloatArray
    extra_s: FloatArray
    tokens: FloatArray
    cost_usd: FloatArray

    def check(self, world: World) -> None:
        """Raise `InputDataError` where `world` needs what is missing here."""
        n, k = self.hold_s.shape
        if k != len(world.rules):
            raise InputDataError(f"the world has rules for {len(world.rules)} tiers, the table has {k}")
        if k > MOST_TIERS:
            raise InputDataError(f"at most {MOST_TIERS} tiers can be simulated; got {k}")
        if world.row.max() >= n:
            raise InputDataError(f"a request asks row {int(world.row.max())} of a table with {n} rows")
        if not (np.isfinite(self.hold_s) & np.isfinite(self.extra_s)).all():
            raise InputDataError("a world under load needs a latency of every query on every tier; some are missing")
        limited = [k for k, rule in enumerate(world.rules) if world.stations[rule.station].tokens_per_min is not None]
        if np.isnan(self.tokens[:, limited]).any():
            raise InputDataError("a token limit needs input and output tokens of every query; some are missing")


class WorldArrays(NamedTuple):
    """A `World` for the kernel: records of `R` requests, `N x K` answers, `K` rules, `J` stations.

    `outages` are the starts and ends of all stations, one after the other.
    """

    requests: Records
    answers: Records
    rules: Records
    stations: Records
    outages: FloatArray
    seed: np.uint64


class Under(NamedTuple):
    """What is under way, per candidate: n first in every shape, room for `P` jobs.

    Attributes:
        clock: `n` counts of arrived requests, events on the heap, places ever used, ended requests; the first free one;
            up to which request answers have been fetched, and a sum without meaning that keeps the fetching alive.
        jobs: `n x P`.
        events: `n x P` binary heap.
        lines: `n x J`.
        patience: `n x K`.
        outcomes: `n x J x 7` attempts that are over, by reason.
    """

    clock: Records
    jobs: Records
    events: Records
    lines: Records
    patience: Records
    outcomes: IntArray


class Results(NamedTuple):
    """Arrays of `Journeys` that the kernel fills in, and `ended`: `n x R` requests in the order of their ends."""

    e2e_s: FloatArray
    ttft_s: FloatArray
    served: NDArray[np.int8]
    cost_usd: FloatArray
    attempts: NDArray[np.int16]
    reason: NDArray[np.int8]
    checked: NDArray[np.bool_]
    ended: NDArray[np.int32]


def world_arrays(world: World, answers: Answers) -> WorldArrays:
    """The records of `world`, checked against `answers`."""
    answers.check(world)
    requests = np.zeros(world.n_requests, dtype=REQUEST)
    requests["arrival_s"], requests["ready_s"], requests["row"] = world.arrival_s, world.ready_s, world.row
    table = np.zeros(answers.hold_s.shape, dtype=ANSWER)
    for name in ANSWER.names or ():
        table[name] = getattr(answers, name)
    return WorldArrays(
        requests=requests,
        answers=table,
        rules=np.array([tuple(getattr(rule, name) for name in RULE.names or ()) for rule in world.rules], dtype=RULE),
        stations=np.array([_station(station) for station in world.stations], dtype=STATION),
        outages=np.array([span for j in range(len(world.stations)) for span in world.spans(j)]).reshape(-1, 2),
        seed=np.uint64(mixed(0, world.seed)),
    )


def _station(station: Station) -> tuple[float, ...]:
    requests, tokens = station.requests_per_min or math.inf, station.tokens_per_min or math.inf
    return (
        requests,
        tokens,
        requests / 60.0,
        tokens / 60.0,
        station.error_rate,
        station.error_rate_busy - station.error_rate,
        station.slots or 0,
        _UNBOUNDED if station.buffer is None else station.buffer,
    )


def nothing_under_way(n: int, world: World, places: int) -> Under:
    """Empty lines and full buckets for `n` candidates, with room for `places` jobs each."""
    lines = np.zeros((n, len(world.stations)), dtype=LINE)
    for j, station in enumerate(world.stations):
        lines["request_level"][:, j] = station.requests_per_min or math.inf
        lines["token_level"][:, j] = station.tokens_per_min or math.inf
    lines["request_seen"] = lines["token_seen"] = -np.inf
    lines["head"] = lines["tail"] = -1
    stops = np.cumsum([0, *(len(world.spans(j)) for j in range(len(world.stations)))])
    lines["outage"], lines["outage_stop"] = stops[:-1], stops[1:]
    patience = np.zeros((n, len(world.rules)), dtype=PATIENCE)
    patience["head"] = patience["tail"] = -1
    patience["at_s"] = np.inf
    clock = np.zeros(n, dtype=CLOCK)
    clock["free"] = -1
    return Under(
        clock=clock,
        jobs=np.zeros((n, places), dtype=JOB),
        events=np.zeros((n, places), dtype=EVENT),
        lines=lines,
        patience=patience,
        outcomes=np.zeros((n, len(world.stations), len(REASONS)), dtype=np.int64),
    )


def more_places(under: Under) -> Under:
    """The same with room for twice as many jobs."""

    def doubled(values: Records) -> Records:
        grown = np.zeros((len(values), 2 * values.shape[1]), dtype=values.dtype)  # pages are made when first used
        grown[:, : values.shape[1]] = values
        return grown

    return under._replace(jobs=doubled(under.jobs), events=doubled(under.events))


def no_results(n: int, world: World) -> Results:
    """Arrays of requests that all are still to come (`reason` -1)."""
    shape = (n, world.n_requests)
    return Results(
        e2e_s=np.zeros(shape),
        ttft_s=np.zeros(shape),
        served=np.zeros(shape, dtype=np.int8),
        cost_usd=np.zeros(shape),
        attempts=np.zeros(shape, dtype=np.int16),
        reason=np.full(shape, -1, dtype=np.int8),
        checked=np.ones(shape, dtype=np.bool_),
        ended=np.zeros(shape, dtype=np.int32),
    )
