"""Traffic window by window under thresholds or tiers that may change with every window; no Gymnasium here.

Notation: n candidates (n first in every shape), R requests of a world, m of them in a window, K tiers, S slices.

A request counts in the window in which it ended, and what a request did while the world warmed up is simulated, seen
and not counted. Once all have ended, the sums are those of one simulation of the whole (`simulators.simulate`) with the
same tiers, however time was split into windows.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulators.envs.figures import Figures, count_by, sum_by
from simulators.envs.telemetry import Telemetry, silence
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.seeds import spawn_rng
from simulators.simulate import answers_of
from simulators.world import REASONS, World

if TYPE_CHECKING:
    from simulators.events.simulator import Window

FREE = -1


@dataclass(frozen=True, kw_only=True)
class Coming:
    """The requests of the next window, for controllers that decide one by one; a router meets them one at a time.

    Attributes:
        requests: Where they are among the world's R.
        row: `m` rows of the table.
        ready_s: `m` instants at which they reach the tiers.
        score: `m`, NaN without a score.
    """

    requests: slice
    row: IntArray
    ready_s: FloatArray
    score: FloatArray


class _Ended(NamedTuple):
    """Requests of all candidates that ended in a window, one after the other."""

    who: IntArray
    request: IntArray
    answered: NDArray[np.bool_]
    late: NDArray[np.bool_]
    latency_s: FloatArray
    quality: FloatArray
    sent: IntArray
    served: IntArray


class WindowSimulator:
    """n candidates in one world, one window after the other.

    `coming(until_s)` says which requests the next window brings, `step(until_s, decision)` routes them and lets time
    run, `telemetry` is what there is to see then, `totals` what has been counted so far.

    Args:
        world: The requests and what stands in their way.
        table: What the tiers answer.
        score: `N` scores of the table's rows; None where every decision is one of tiers.
        n: Candidates.
        latency_limit_s: Beyond it a request is late.
        label_share: Share of the answers that get a quality label, the same ones for all candidates.
        label_lag: Windows between the one in which an answer ended and the one in which its label is seen.
        pinned: `N` tiers of rows that no threshold decides, -1 elsewhere; None: no such rows.

    Raises:
        ConfigError: If an argument makes no sense.
        InputDataError: If the table lacks what the world needs.
    """

    def __init__(
        self,
        world: World,
        table: OutcomeTable,
        score: FloatArray | None,
        n: int,
        *,
        latency_limit_s: float = math.inf,
        label_share: float = 1.0,
        label_lag: int = 1,
        pinned: IntArray | None = None,
    ) -> None:
        from simulators.events.simulator import EventSimulator  # numba is slow to import

        _check(table, score, latency_limit_s, label_share, label_lag)
        self.world, self.n_tiers, self.n_slices = world, table.n_tiers, len(table.slices)
        self._table, self._limit_s = table, latency_limit_s
        self._events = EventSimulator(world, answers_of(table, world), n)
        self._score = np.full(world.n_requests, np.nan) if score is None else score[world.row]
        self._pinned = None if pinned is None or (pinned == FREE).all() else pinned[world.row].astype(np.int8)
        self._counted = world.arrival_s >= world.warmup_s
        self._slice = table.slice_code[world.row]
        self._labelled = spawn_rng(world.seed, "labels").random(world.n_requests) < label_share
        self._labels: deque[tuple[IntArray, FloatArray]] = deque([self._no_labels()] * label_lag)
        slots = np.array([station.slots or 0 for station in world.stations], dtype=np.int64)
        self.telemetry: Telemetry = silence(n, self.n_tiers, slots)
        self.totals: Figures = self._figures(self._look(tuple(np.empty(0, dtype=np.int32) for _ in range(n))))
        self._at_s = 0.0

    @property
    def n(self) -> int:
        """Candidates."""
        return self._events.n

    @property
    def done(self) -> bool:
        """Whether everything has ended."""
        return self._at_s == math.inf

    def coming(self, until_s: float) -> Coming:
        """The requests that `step(until_s, ...)` routes."""
        requests = self._events.requests_before(until_s)
        world = self.world
        return Coming(
            requests=requests,
            row=world.row[requests],
            ready_s=world.ready_s[requests],
            score=self._score[requests],
        )

    def step(self, until_s: float, decision: NDArray[np.floating | np.integer]) -> Figures:
        """Let a window pass.

        Args:
            until_s: Its end; `inf` brings all requests that are left and lets them end.
            decision: `n x (K-1)` thresholds for the requests of the window, or `n x m` tiers of them, told apart by
                their type: thresholds are floating-point numbers, tiers are integers, -1 of a request that is refused.

        Returns:
            The counted requests that ended in it.

        Raises:
            ConfigError: If the decision has the wrong shape or order, time would run back, or everything has ended.
        """
        if self.done:
            raise ConfigError("everything in this world has ended; start another simulator")
        requests = self._events.requests_before(until_s)
        window = self._events.advance(until_s, self._tiers(decision, requests))
        ended = self._look(window.ended)
        figures = self._figures(ended)
        self._label(ended)
        self.telemetry = self._seen(window, ended)
        self._at_s = until_s
        self.totals = self.totals + figures
        return figures

    def _seen(self, window: Window, ended: _Ended) -> Telemetry:
        shape, labels = (self.n, self.n_tiers), self._labels.popleft()
        tier = self._events.tier[:, window.requests]
        sent = (np.arange(self.n)[:, None] * self.n_tiers + tier)[tier >= 0]
        asked = ended.sent >= 0
        by_tier = ended.who * self.n_tiers + ended.sent
        answered = asked & ended.answered
        end_s = window.until_s if math.isfinite(window.until_s) else max(self.world.duration_s, self._at_s)
        return Telemetry(
            at_s=end_s,
            window_s=end_s - self._at_s,
            arrived=window.requests.stop - window.requests.start,
            slots=self.telemetry.slots,
            held=window.held,
            waiting=window.waiting,
            outcomes=window.outcomes,
            sent=count_by(sent, shape),
            ended=count_by(by_tier[asked], shape),
            late=count_by(by_tier[asked & ended.late], shape),
            failed=count_by(by_tier[asked & ~ended.answered], shape),
            latency_s=sum_by(by_tier[answered], ended.latency_s[answered], shape),
            labels=labels[0],
            label_quality=labels[1],
        )

    def _tiers(self, decision: NDArray[np.floating | np.integer], requests: slice) -> NDArray[np.int8]:
        if np.issubdtype(decision.dtype, np.integer):
            return np.ascontiguousarray(decision, dtype=np.int8)
        thresholds = np.asarray(decision, dtype=np.float64)
        if thresholds.shape != (self.n, self.n_tiers - 1):
            raise ConfigError(f"expected {self.n} x {self.n_tiers - 1} thresholds; got shape {thresholds.shape}")
        if np.isnan(thresholds).any() or (thresholds[:, 1:] < thresholds[:, :-1]).any():
            raise ConfigError("thresholds must be numbers that never decrease from one tier to the next")
        score = self._score[requests]
        tier = np.zeros((self.n, len(score)), dtype=np.int8)
        for threshold in thresholds.T:
            tier += score >= threshold[:, None]
        if self._pinned is not None:
            pinned = self._pinned[requests]
            tier[:, pinned != FREE] = pinned[pinned != FREE]
        return tier

    def _look(self, ended: tuple[NDArray[np.int32], ...]) -> _Ended:
        who = np.repeat(np.arange(self.n), [len(requests) for requests in ended])
        request = np.concatenate(ended).astype(np.int64)
        at = (who, request)
        out = self._events.results
        served = out.served[at].astype(np.int64)
        row, answered = self.world.row[request], served >= 0
        tier = np.maximum(served, 0)
        quality = self._table.quality[row, tier]
        if self._table.unchecked is not None:
            quality = np.where(out.checked[at], quality, self._table.unchecked[row, tier])
        latency_s = out.e2e_s[at]
        return _Ended(
            who=who,
            request=request,
            answered=answered,
            late=~answered | (latency_s > self._limit_s),
            latency_s=latency_s,
            quality=np.where(answered, quality, 0.0),
            sent=self._events.tier[at].astype(np.int64),
            served=served,
        )

    def _figures(self, ended: _Ended) -> Figures:
        counts = self._counted[ended.request]
        e = _Ended._make(values[counts] for values in ended)
        at, out = (e.who, e.request), self._events.results
        by_slice, slices = e.who * self.n_slices + self._slice[e.request], (self.n, self.n_slices)
        reason = e.who * len(REASONS) + out.reason[at]
        sent = (e.who * self.n_tiers + e.sent)[e.sent >= 0]
        return Figures(
            requests=count_by(by_slice, slices),
            late=count_by(by_slice[e.late], slices),
            failed=count_by(by_slice[~e.answered], slices),
            quality=sum_by(by_slice, e.quality, slices),
            cost_usd=sum_by(by_slice, out.cost_usd[at] + self._once_usd(e), slices),
            latency_s=sum_by(e.who[e.answered], e.latency_s[e.answered], (self.n,)),
            reasons=count_by(reason, (self.n, len(REASONS))),
            sent=count_by(sent, (self.n, self.n_tiers)),
        )

    def _once_usd(self, e: _Ended) -> FloatArray | float:
        """What a request costs whatever becomes of it; see `simulators.simulate.simulate`."""
        table = self._table
        if table.router_cost_usd is None:
            return table.fixed_usd
        decided = (e.sent >= 0) & ~self.world.router_down[e.request]
        router_usd = table.router_cost_usd[self.world.row[e.request], np.maximum(e.sent, 0)]
        return np.where(decided, router_usd, 0.0) + table.fixed_usd

    def _label(self, ended: _Ended) -> None:
        seen = ended.answered & self._labelled[ended.request]
        code, shape = (ended.who * self.n_tiers + ended.served)[seen], (self.n, self.n_tiers)
        self._labels.append((count_by(code, shape), sum_by(code, ended.quality[seen], shape)))

    def _no_labels(self) -> tuple[IntArray, FloatArray]:
        shape = (self._events.n, self.n_tiers)
        return np.zeros(shape, dtype=np.int64), np.zeros(shape)


def _check(table: OutcomeTable, score: FloatArray | None, limit_s: float, label_share: float, label_lag: int) -> None:
    if score is not None and score.shape != (table.n_queries,):
        raise ConfigError(f"expected one score for each of {table.n_queries} rows; got an array of shape {score.shape}")
    if not limit_s > 0:
        raise ConfigError(f"latency_limit_s must be positive; got {limit_s:g}")
    if not 0 <= label_share <= 1 or label_lag < 0:
        raise ConfigError(f"label_share must lie in [0, 1] and label_lag be 0 or more; got {label_share}, {label_lag}")


Controller = Callable[[Telemetry, Coming], NDArray[np.floating | np.integer]]
"""What there is to see and what comes -> a decision as `WindowSimulator.step` takes it."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """One episode.

    Attributes:
        totals: Figures of the whole.
        windows: Those of each window; empty unless kept.
        decisions: What the controller said for each window; empty unless kept.
    """

    totals: Figures
    windows: tuple[Figures, ...] = ()
    decisions: tuple[NDArray[np.floating | np.integer], ...] = ()


def play(
    world: World,
    table: OutcomeTable,
    score: FloatArray | None,
    controller: Controller,
    *,
    window_s: float,
    n: int = 1,
    latency_limit_s: float = math.inf,
    label_share: float = 1.0,
    label_lag: int = 1,
    pinned: IntArray | None = None,
    keep: bool = False,
) -> Played:
    """One episode of n candidates under a controller; arguments as for `WindowSimulator`.

    Args:
        world, table, score, n, latency_limit_s, label_share, label_lag, pinned: See there.
        controller: Called once per window, before it.
        window_s: Length of a window; the last one goes on until everything has ended.
        keep: Whether to keep figures and decisions of every window.
    """
    simulator = WindowSimulator(
        world,
        table,
        score,
        n,
        latency_limit_s=latency_limit_s,
        label_share=label_share,
        label_lag=label_lag,
        pinned=pinned,
    )
    windows, decisions = [], []
    for until_s in window_ends(world.duration_s, window_s):
        decision = controller(simulator.telemetry, simulator.coming(until_s))
        figures = simulator.step(until_s, decision)
        if keep:
            windows.append(figures)
            decisions.append(np.array(decision))
    return Played(totals=simulator.totals, windows=tuple(windows), decisions=tuple(decisions))


def window_ends(duration_s: float, window_s: float) -> Iterator[float]:
    """Ends of the windows of a world; the last one is `inf`."""
    for i in range(1, n_windows(duration_s, window_s)):
        yield i * window_s
    yield math.inf


def n_windows(duration_s: float, window_s: float) -> int:
    """How many windows a world has.

    Raises:
        ConfigError: If a window has no positive length.
    """
    if not 0 < window_s < math.inf:
        raise ConfigError(f"window_s must be a positive number of seconds; got {window_s:g}")
    return max(1, math.ceil(duration_s / window_s - 1e-9))
