"""A world that runs window by window: what is under way when a window ends goes on in the next one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from simulators.contention.inputs import available_cores, side_by_side
from simulators.errors import ConfigError
from simulators.events.arrays import (
    Answers,
    Results,
    more_places,
    no_results,
    nothing_under_way,
    world_arrays,
)
from simulators.events.kernel import advance
from simulators.journeys import PENDING, Journeys
from simulators.outcomes import FloatArray, IntArray
from simulators.world import World

_PLACES, _BLOCKS = 512, 8


@dataclass(frozen=True, kw_only=True)
class Window:
    """What an operator sees when a window has ended.

    Attributes:
        until_s: Its end.
        requests: Those that reached the tiers within it.
        ended: n arrays of requests that ended within it, in that order; they may have come earlier.
        held: `n x J` slots that are busy.
        waiting: `n x J` attempts in line.
        outcomes: `n x J x 7` attempts by reason that ended within the window.
        busy_s: `n x J` slot seconds of the services that ended within the window.
    """

    until_s: float
    requests: slice
    ended: tuple[NDArray[np.int32], ...]
    held: IntArray
    waiting: IntArray
    outcomes: IntArray
    busy_s: FloatArray


class EventSimulator:
    """The event-order kernel on one world for n candidates.

    `requests_before(t)` says which requests come next, `advance(t, tier)` routes them and lets time run to `t`,
    `journeys()` gives what has become of all requests so far. However time is split, the results are the same.

    Memory: 34 bytes per candidate and request for results, 128 per request that is under way.
    """

    def __init__(self, world: World, answers: Answers, n: int) -> None:
        self.world = world
        self._arrays = world_arrays(world, answers)
        self._under = nothing_under_way(n, world, min(_PLACES, world.n_requests))
        self._results = no_results(n, world)
        self._tier = np.full((n, world.n_requests), -1, dtype=np.int8)
        self._now, self._known = -math.inf, 0

    @property
    def n(self) -> int:
        """Candidates."""
        return len(self._tier)

    @property
    def tier(self) -> NDArray[np.int8]:
        """`n x R` tiers that requests reached first, -1 of those that reached none or are still to come. Not copied."""
        return self._tier

    @property
    def results(self) -> Results:
        """What the kernel has filled in, not copied; entries of requests that are not over mean nothing yet."""
        return self._results

    def requests_before(self, until_s: float) -> slice:
        """The requests that `advance(until_s, ...)` must be given tiers for."""
        stop = int(np.searchsorted(self.world.ready_s, until_s, side="left"))
        return slice(self._known, max(stop, self._known))

    def advance(self, until_s: float, tier: NDArray[np.int8]) -> Window:
        """Let everything happen that happens before `until_s` (`inf`: to the end).

        Args:
            until_s: End of the window; what happens at that instant belongs to the next one.
            tier: `n x m` tiers of the requests in `requests_before(until_s)`; -1: the request fails at once.

        Raises:
            ConfigError: If time would run back, or `tier` has another shape or names no tier.
        """
        requests = self._checked(until_s, tier)
        self._tier[:, requests] = self.world.reached(tier, requests)
        known = np.ascontiguousarray(self._tier[:, requests])
        ended, outcomes = self._under.clock["ended"].copy(), self._under.outcomes.copy()
        busy_s = self._under.lines["busy_s"].copy()
        self._run(known, requests.start, until_s)
        self._now, self._known = until_s, requests.stop
        spans = zip(ended, self._under.clock["ended"], strict=True)
        return Window(
            until_s=until_s,
            requests=requests,
            ended=tuple(self._results.ended[c, a:b].copy() for c, (a, b) in enumerate(spans)),
            held=self._under.lines["held"].copy(),
            waiting=self._under.lines["waiting"].copy(),
            outcomes=self._under.outcomes - outcomes,
            busy_s=self._under.lines["busy_s"] - busy_s,
        )

    def _run(self, known: NDArray[np.int8], offset: int, until_s: float) -> None:
        ends = np.linspace(0, self.n, min(self.n, _BLOCKS * available_cores()) + 1).astype(int).tolist()
        blocks = list(pairwise(ends))
        stopped = np.ones(len(blocks), dtype=np.bool_)

        def work(i: int) -> None:
            stopped[i] = advance(self._arrays, self._under, self._results, known, offset, until_s, blocks[i])

        while True:
            side_by_side(lambda: work, np.flatnonzero(stopped).tolist())
            if not stopped.any():
                return
            self._under = more_places(self._under)

    def _checked(self, until_s: float, tier: NDArray[np.int8]) -> slice:
        if not until_s >= self._now:
            raise ConfigError(f"time cannot run back from {self._now:g} to {until_s:g} s")
        requests = self.requests_before(until_s)
        shape = (self.n, requests.stop - requests.start)
        if tier.shape != shape:
            raise ConfigError(f"expected tiers of shape {shape} up to {until_s:g} s; got {tier.shape}")
        if tier.size and not -1 <= tier.min() <= tier.max() < len(self.world.rules):
            raise ConfigError(
                f"tiers must lie in -1 ... {len(self.world.rules) - 1}; got {tier.min()} ... {tier.max()}"
            )
        return requests

    def journeys(self) -> Journeys:
        """All requests; those under way or still to come have the reason `PENDING`. The arrays are not copied."""
        out, lines = self._results, self._under.lines
        if (open_ := out.reason == PENDING).any():
            out.e2e_s[open_] = out.ttft_s[open_] = np.nan
            out.served[open_] = -1
        return Journeys(
            e2e_s=out.e2e_s,
            ttft_s=out.ttft_s,
            served=out.served,
            cost_usd=out.cost_usd,
            attempts=out.attempts,
            reason=out.reason,
            tier=self._tier,
            busy_s=lines["busy_s"].copy(),
            outcomes=self._under.outcomes.copy(),
            longest_line=lines["longest"].copy(),
            checked=out.checked,
        )


def simulate_events(world: World, answers: Answers, tier: NDArray[np.int8]) -> Journeys:
    """Journeys of n candidates in one go.

    Args:
        world: The requests and what stands in their way.
        answers: What an attempt takes, `N x K`.
        tier: `n x R` tiers as each candidate chose them; -1 fails at once.
    """
    simulator = EventSimulator(world, answers, len(tier))
    simulator.advance(math.inf, tier)
    return simulator.journeys()
