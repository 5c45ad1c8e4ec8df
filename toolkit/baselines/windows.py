"""Rules that decide anew in every window of traffic: what they know beforehand, and how an episode is played.

A *rule* has n settings, and all of them play the same episode at once, each against its own queues. At the start of a
window it sees `Telemetry`, what a production router can see, and gives a tier to each request of the window.

Notation: n settings, R requests, m of them in a window, N rows, K tiers, J stations. The *rank* of a query is the
share of training queries with a lower score; thresholds are written as ranks (`cuts: n x (K-1)`), which are load
fractions: tier k serves the ranks from `cuts[k-1]` up to `cuts[k]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulators.envs.telemetry import Telemetry
from simulators.envs.windows import Coming, play
from simulators.errors import ConfigError
from simulators.journeys import Journeys
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.simulate import simulate
from simulators.world import World

_BELOW_ONE = 1.0 - 1e-9
_CHUNK_ELEMENTS = 4_000_000

Tiers = NDArray[np.int8]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a router knows of N queries before any answer exists, from training queries only.

    Attributes:
        rank: `N` in [0, 1).
        quality, cost_usd, hold_s: `N x K` predicted quality, USD and seconds that an answer holds a slot.
    """

    rank: FloatArray
    quality: FloatArray
    cost_usd: FloatArray
    hold_s: FloatArray


@dataclass(frozen=True, kw_only=True)
class Episode:
    """Traffic on some queries, and what the router knows of them.

    Attributes:
        table: What every tier would answer; only the simulator looks at it.
        world: The requests.
        known: Of the table's queries.
        slo_s: Limit of the service level, seconds from arrival to the whole answer.
    """

    table: OutcomeTable
    world: World
    known: Known
    slo_s: float

    @cached_property
    def slots(self) -> FloatArray:
        """`J` requests served at once; infinite without a limit."""
        return np.array([math.inf if s.slots is None else s.slots for s in self.world.stations], dtype=np.float64)

    @cached_property
    def station(self) -> IntArray:
        """`K` station of each tier."""
        return np.array([rule.station for rule in self.world.rules], dtype=np.int64)


Decide = Callable[[Telemetry, Coming], Tiers]
"""What a rule does in one episode: `n x m` tiers of the requests that come."""


class Rule(Protocol):
    """A way to decide, with n settings of its knobs."""

    @property
    def n(self) -> int:
        """Settings."""
        ...

    @property
    def window_s(self) -> float:
        """How often it decides, seconds."""
        ...

    def begin(self, episode: Episode) -> Decide:
        """A fresh start; of the episode it may use `known`, `slots`, `station` and the limit."""
        ...


@dataclass(frozen=True, kw_only=True)
class Service:
    """What the counted requests of an episode met, for each of n settings.

    Attributes:
        attainment: `n` share that was answered within the limit; a failed request was not.
        cost_usd: `n` mean bill, all attempts included.
        quality: `n` mean quality; a failed request counts 0.
        failed: `n` share that nobody answered.
    """

    attainment: FloatArray
    cost_usd: FloatArray
    quality: FloatArray
    failed: FloatArray

    def __len__(self) -> int:
        return len(self.attainment)

    def stacked(self) -> FloatArray:
        """`n x 4`, in the order of the attributes."""
        return np.stack([self.attainment, self.cost_usd, self.quality, self.failed], axis=1)

    @classmethod
    def of(cls, stacked: FloatArray) -> Service:
        """The figures of `stacked: n x 4`."""
        return cls(**dict(zip(("attainment", "cost_usd", "quality", "failed"), stacked.T, strict=True)))


def tiers_of(cuts: FloatArray, rank: FloatArray) -> Tiers:
    """`n x m` tiers of queries with `rank: m` under `cuts: n x (K-1)`; a rank on a cut goes up."""
    tier = np.zeros((len(cuts), len(rank)), dtype=np.int8)
    for cut in cuts.T:
        tier += np.minimum(rank, _BELOW_ONE)[None, :] >= cut[:, None]
    return tier


def service_of(episode: Episode, rule: Rule) -> Service:
    """What the requests meet under each of the rule's settings.

    Raises:
        ConfigError: If the rule's window is longer than the traffic.
    """
    world = episode.world
    if not 0 < rule.window_s <= world.duration_s:
        raise ConfigError(f"a window must last between 0 and {world.duration_s:g} s; got {rule.window_s:g}")
    done = play(
        world,
        episode.table,
        None,
        rule.begin(episode),
        window_s=rule.window_s,
        n=rule.n,
        latency_limit_s=episode.slo_s,
        label_share=0.0,
    ).totals
    return Service(
        attainment=1.0 - done.share_late,
        cost_usd=done.cost_per_query_usd,
        quality=done.mean_quality,
        failed=done.share_failed,
    )


def service_in(episode: Episode, journeys: Journeys) -> Service:
    """The same from whole journeys."""
    counted = episode.world.counted
    answered = journeys.served[:, counted] >= 0
    in_time = answered & (journeys.e2e_s[:, counted] <= episode.slo_s)
    quality = journeys.quality(episode.table.quality, episode.world.row, episode.table.unchecked)[:, counted]
    return Service(
        attainment=np.asarray(in_time.mean(axis=1)),
        cost_usd=np.asarray(journeys.cost_usd[:, counted].mean(axis=1)),
        quality=np.asarray(quality.mean(axis=1)),
        failed=np.asarray(1.0 - answered.mean(axis=1)),
    )


def static_service(episode: Episode, cuts: FloatArray) -> Service:
    """Figures of `cuts: n x (K-1)` that never change."""
    found = []
    step = max(1, _CHUNK_ELEMENTS // episode.world.n_requests)
    for start in range(0, len(cuts), step):
        tier = tiers_of(cuts[start : start + step], episode.known.rank)
        found.append(service_in(episode, simulate(episode.world, episode.table, tier, per_request=False)).stacked())
    return Service.of(np.concatenate(found))


def expected_wait_s(episode: Episode, telemetry: Telemetry, hold_s: FloatArray) -> FloatArray:
    """`n x J` wait of a request that came now: those ahead of it times their mean hold over the slots.

    Args:
        episode: Its slots.
        telemetry: Queues as last seen.
        hold_s: `J` mean hold of a request at each station, seconds.
    """
    ahead = telemetry.waiting + (telemetry.held >= episode.slots)
    return np.asarray(np.where(np.isfinite(episode.slots), ahead * hold_s / episode.slots, 0.0))
