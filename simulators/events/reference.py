"""The life of a request as `simulators/world.py` tells it, in plain Python for one candidate: slow and obvious."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from simulators.events.arrays import Answers
from simulators.events.draws import uniform
from simulators.journeys import Journeys
from simulators.world import ERROR, FULL, LIMIT, OUTAGE, ROUTER, SERVED, TIMEOUT, Station, World

_END, _TIMEOUT, _ATTEMPT = range(3)


@dataclass(kw_only=True)
class _Bucket:
    """One minute's worth of requests or tokens."""

    limit: float | None
    level: float = 0.0
    seen_s: float = -math.inf

    def fill(self, now: float) -> None:
        if self.limit is not None:
            self.level = min(self.limit, self.level + (now - self.seen_s) * (self.limit / 60.0))
            self.seen_s = now

    def holds(self, amount: float) -> bool:
        return self.limit is None or self.level >= amount

    def take(self, amount: float) -> None:
        self.level -= amount


@dataclass(kw_only=True)
class _Line:
    """What happens at one station."""

    station: Station
    outages: list[tuple[float, float]]
    requests: _Bucket
    tokens: _Bucket
    held: int = 0
    waiting: deque[_Job] = field(default_factory=deque)
    busy_s: float = 0.0
    longest: int = 0
    outcomes: list[int] = field(default_factory=lambda: [0] * 7)

    def out(self, now: float) -> bool:
        return any(start <= now < end for start, end in self.outages)

    @property
    def full(self) -> bool:
        return self.station.slots is not None and self.held >= self.station.slots


@dataclass(kw_only=True, eq=False)
class _Job:
    """One request that is under way."""

    request: int
    tier: int
    first: int | None = None
    tried: set[int] = field(default_factory=set)
    retries: int = 0
    attempts: int = 0
    began: float = 0.0
    start: float | None = None
    error: bool = False
    cost: float = 0.0


class _Simulation:
    def __init__(self, world: World, answers: Answers, tier: Sequence[int]) -> None:
        self.world, self.answers = world, answers
        self.lines = [
            _Line(
                station=station,
                outages=[(o.start_s, o.end_s) for o in world.outages if j in o.stations],
                requests=_Bucket(limit=station.requests_per_min),
                tokens=_Bucket(limit=station.tokens_per_min),
            )
            for j, station in enumerate(world.stations)
        ]
        self.events: list[tuple[float, int, int, int, _Job]] = []
        self.stamp: dict[int, int] = {}  # request -> number of its latest event: older ones are void
        r = world.n_requests
        self.e2e, self.ttft, self.cost = [math.nan] * r, [math.nan] * r, [0.0] * r
        self.served, self.attempts, self.reason, self.checked = [-1] * r, [0] * r, [-1] * r, [True] * r
        for i, k in enumerate(tier):
            if k < 0:
                self.reason[i], self.e2e[i] = ROUTER, float(world.ready_s[i] - world.arrival_s[i])
            else:
                job = _Job(request=i, tier=int(k), tried={int(k)})
                self.push(float(world.ready_s[i]), _ATTEMPT, job)

    def run(self) -> None:
        while self.events:
            now, kind, request, stamp, job = heapq.heappop(self.events)
            if self.stamp[request] == stamp:
                (self.end, self.give_up, self.attempt)[kind](now, job)

    def push(self, now: float, kind: int, job: _Job) -> None:
        """Plan the only event that this job waits for."""
        stamp = self.stamp[job.request] = self.stamp.get(job.request, 0) + 1
        heapq.heappush(self.events, (now, kind, job.request, stamp, job))

    def line(self, job: _Job) -> _Line:
        return self.lines[self.world.rules[job.tier].station]

    def share(self, job: _Job) -> float:
        return 1.0 if job.first is None else self.world.rules[job.first].second_share

    def hold(self, job: _Job) -> float:
        return float(self.answers.hold_s[self.world.row[job.request], job.tier]) * self.share(job)

    def price(self, job: _Job) -> float:
        return float(self.answers.cost_usd[self.world.row[job.request], job.tier]) * self.share(job)

    def deadline(self, job: _Job) -> float:
        return job.began + self.world.rules[job.tier].timeout_s

    def attempt(self, now: float, job: _Job) -> None:
        line = self.line(job)
        job.attempts, job.began, job.start = job.attempts + 1, now, None
        tokens = float(self.answers.tokens[self.world.row[job.request], job.tier]) * self.share(job)
        refused = self.refusal(now, line, tokens)
        if refused is not None:
            self.go_on(now, job, refused)
        elif not line.full:
            self.begin(now, job)
        else:
            line.waiting.append(job)
            line.longest = max(line.longest, len(line.waiting))
            self.push(self.deadline(job), _TIMEOUT, job)

    def refusal(self, now: float, line: _Line, tokens: float) -> int | None:
        if line.out(now):
            return OUTAGE
        line.requests.fill(now)
        line.tokens.fill(now)
        if not (line.requests.holds(1.0) and line.tokens.holds(tokens)):
            return LIMIT
        line.requests.take(1.0)
        line.tokens.take(tokens)
        buffer = line.station.buffer
        return FULL if line.full and buffer is not None and len(line.waiting) >= buffer else None

    def begin(self, now: float, job: _Job) -> None:
        line = self.line(job)
        slots, low, high = line.station.slots, line.station.error_rate, line.station.error_rate_busy
        share = line.held / (slots - 1) if slots is not None and slots > 1 else 0.0
        job.error = uniform(self.world.seed, job.request, job.attempts) < low + (high - low) * share
        line.held += 1
        job.start = now
        end = now + self.hold(job)
        if end <= self.deadline(job):
            self.push(end, _END, job)
        else:
            self.push(self.deadline(job), _TIMEOUT, job)

    def next_of_line(self, now: float, line: _Line) -> None:
        """A slot has become free."""
        while line.waiting and not line.full:
            job = line.waiting.popleft()
            if line.out(now):
                self.go_on(now, job, OUTAGE)
            else:
                self.begin(now, job)

    def end(self, now: float, job: _Job) -> None:
        line = self.line(job)
        line.held -= 1
        line.busy_s += self.hold(job)
        self.next_of_line(now, line)
        if job.error:
            self.go_on(now, job, ERROR)
        else:
            self.answer(now, job)

    def give_up(self, now: float, job: _Job) -> None:
        line = self.line(job)
        if job.start is None:
            line.waiting.remove(job)
        else:
            line.held -= 1
            line.busy_s += now - job.start
            job.cost += self.price(job) * ((now - job.start) / self.hold(job))
            self.next_of_line(now, line)
        self.go_on(now, job, TIMEOUT)

    def answer(self, now: float, job: _Job) -> None:
        self.line(job).outcomes[SERVED] += 1
        job.cost += self.price(job)
        rule = self.world.rules[job.tier]
        if job.first is not None:
            if not self.world.rules[job.first].second_async:
                self.delivered(now, job, job.first)
            self.close(job, SERVED)
        elif rule.second < 0:
            self.delivered(now, job, job.tier)
            self.close(job, SERVED)
        else:
            if rule.second_async:
                self.delivered(now, job, job.tier)
            job.first, job.tier, job.retries = job.tier, rule.second, 0
            self.push(now, _ATTEMPT, job)

    def go_on(self, now: float, job: _Job, reason: int) -> None:
        """After an attempt that came to nothing."""
        self.line(job).outcomes[reason] += 1
        rule = self.world.rules[job.tier]
        if job.retries < rule.retries:
            job.retries += 1
            self.push(now + rule.pause_s(job.retries - 1), _ATTEMPT, job)
        elif job.first is not None and self.world.rules[job.first].second_async:
            self.checked[job.request] = False
            self.close(job, SERVED)
        elif job.first is None and rule.fallback >= 0 and rule.fallback not in job.tried:
            job.tier, job.retries = rule.fallback, 0
            job.tried.add(job.tier)
            self.push(now, _ATTEMPT, job)
        else:
            self.e2e[job.request] = now - float(self.world.arrival_s[job.request])
            self.close(job, reason)

    def delivered(self, now: float, job: _Job, tier: int) -> None:
        i, row = job.request, self.world.row[job.request]
        assert job.start is not None
        self.e2e[i] = now - float(self.world.arrival_s[i]) + float(self.answers.extra_s[row, tier])
        first_s = float(self.answers.first_s[row, job.tier]) * self.share(job)
        self.ttft[i] = job.start - float(self.world.arrival_s[i]) + first_s
        self.served[i] = tier

    def close(self, job: _Job, reason: int) -> None:
        i = job.request
        self.cost[i], self.attempts[i], self.reason[i] = job.cost, job.attempts, reason
        self.stamp[i] = -1


def simulate_plainly(world: World, answers: Answers, tier: Sequence[int]) -> Journeys:
    """Journeys of one candidate (n = 1).

    Args:
        world: The requests and what stands in their way.
        answers: What an attempt takes, `N x K`.
        tier: `R` tiers as the router chose them; -1 fails at once.
    """
    answers.check(world)
    sent = world.reached(np.asarray(tier, dtype=np.int8)[None])
    run = _Simulation(world, answers, sent[0].tolist())
    run.run()
    return Journeys(
        e2e_s=np.array([run.e2e]),
        ttft_s=np.array([run.ttft]),
        served=np.array([run.served], dtype=np.int8),
        cost_usd=np.array([run.cost]),
        attempts=np.array([run.attempts], dtype=np.int16),
        reason=np.array([run.reason], dtype=np.int8),
        tier=sent,
        busy_s=np.array([[line.busy_s for line in run.lines]]),
        outcomes=np.array([[line.outcomes for line in run.lines]], dtype=np.int64),
        longest_line=np.array([[line.longest for line in run.lines]], dtype=np.int64),
        checked=np.array([run.checked]),
    )
