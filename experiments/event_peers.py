"""The world under load in SimPy, as somebody would write it with that library: processes, resources, timeouts.

It follows the text of `simulators/world.py` and shares nothing with the kernels but the draws of errors. Events at the
same instant come in SimPy's order, so it is compared on inputs without ties.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

from simulators.events.arrays import Answers
from simulators.events.draws import uniform
from simulators.journeys import Journeys
from simulators.world import ERROR, FULL, LIMIT, OUTAGE, ROUTER, SERVED, TIMEOUT, World

Steps = Generator[Any, Any, Any]


class _Station:
    def __init__(self, env: simpy.Environment, world: World, j: int) -> None:
        station = world.stations[j]
        self.env, self.slots, self.buffer = env, station.slots, station.buffer
        self.resource = simpy.Resource(env, capacity=station.slots or math.inf)
        self.spans = world.spans(j)
        self.rates = (station.error_rate, station.error_rate_busy)
        self.limits = (station.requests_per_min, station.tokens_per_min)
        self.levels = [limit or 0.0 for limit in self.limits]
        self.filled = 0.0
        self.busy_s, self.longest, self.outcomes = 0.0, 0, [0] * 7

    def down(self) -> bool:
        return any(start <= self.env.now < end for start, end in self.spans)

    @property
    def full(self) -> bool:
        return self.slots is not None and self.resource.count >= self.slots

    def charge(self, amounts: tuple[float, float]) -> bool:
        """Take a request and its tokens from the buckets, if both hold enough."""
        elapsed, self.filled = self.env.now - self.filled, self.env.now
        for i, limit in enumerate(self.limits):
            if limit is not None:
                self.levels[i] = min(limit, self.levels[i] + elapsed * limit / 60.0)
        known = [i for i, limit in enumerate(self.limits) if limit is not None]
        if any(self.levels[i] < amounts[i] for i in known):
            return False
        for i in known:
            self.levels[i] -= amounts[i]
        return True

    def error_rate(self) -> float:
        """At the beginning of a service that has its slot already."""
        low, high = self.rates
        share = (self.resource.count - 1) / (self.slots - 1) if self.slots is not None and self.slots > 1 else 0.0
        return low + (high - low) * share


@dataclass
class _Request:
    number: int
    row: int
    e2e_s: float = math.nan
    ttft_s: float = math.nan
    served: int = -1
    cost_usd: float = 0.0
    attempts: int = 0
    reason: int = -1
    checked: bool = True


class _Model:
    def __init__(self, world: World, answers: Answers) -> None:
        self.env, self.world, self.answers = simpy.Environment(), world, answers
        self.stations = [_Station(self.env, world, j) for j in range(len(world.stations))]

    def source(self, tier: list[int], requests: list[_Request]) -> Steps:
        """Start a process for each request when it reaches the tiers."""
        for request, k in zip(requests, tier, strict=True):
            delay = float(self.world.ready_s[request.number]) - self.env.now
            if delay > 0:
                yield self.env.timeout(delay)
            self.env.process(self.life(request, k))

    def life(self, request: _Request, k: int) -> Steps:
        arrival_s = float(self.world.arrival_s[request.number])
        if k < 0:
            request.reason, request.e2e_s = ROUTER, self.env.now - arrival_s
            return
        reason, tried = ROUTER, set()
        while k >= 0 and k not in tried:
            tried.add(k)
            reason, start_s = yield from self.tier(request, k, 1.0)
            if reason == SERVED:
                reason = yield from self.after(request, k, start_s)
                break
            k = self.world.rules[k].fallback
        request.reason = reason
        if reason != SERVED:
            request.e2e_s = self.env.now - arrival_s

    def after(self, request: _Request, k: int, start_s: float) -> Steps:
        """Deliver the answer of tier k, with its second stage."""
        rule, row = self.world.rules[k], request.row
        stage, share, end_s = k, 1.0, self.env.now
        if rule.second >= 0:
            reason, second_start_s = yield from self.tier(request, rule.second, rule.second_share)
            if rule.second_async:
                request.checked = reason == SERVED
            else:
                if reason != SERVED:
                    return reason
                stage, share, start_s, end_s = rule.second, rule.second_share, second_start_s, self.env.now
        arrival_s = float(self.world.arrival_s[request.number])
        request.e2e_s = end_s - arrival_s + float(self.answers.extra_s[row, k])
        request.ttft_s = start_s - arrival_s + float(self.answers.first_s[row, stage]) * share
        request.served = k
        return SERVED

    def tier(self, request: _Request, k: int, share: float) -> Steps:
        """All attempts at one tier: the outcome of the last one, and when its service began."""
        rule = self.world.rules[k]
        station, pause_s = self.stations[rule.station], rule.backoff_s
        for retry in range(rule.retries + 1):
            if retry:
                yield self.env.timeout(pause_s)
                pause_s *= rule.backoff_factor
            request.attempts += 1
            reason, start_s = yield from self.attempt(request, k, share, station)
            station.outcomes[reason] += 1
            if reason == SERVED:
                break
        return reason, start_s

    def attempt(self, request: _Request, k: int, share: float, station: _Station) -> Steps:
        deadline_s = self.env.now + self.world.rules[k].timeout_s
        if station.down():
            return OUTAGE, math.nan
        if not station.charge((1.0, float(self.answers.tokens[request.row, k]) * share)):
            return LIMIT, math.nan
        if station.full and station.buffer is not None and len(station.resource.queue) >= station.buffer:
            return FULL, math.nan
        with station.resource.request() as slot:
            station.longest = max(station.longest, len(station.resource.queue))
            if not slot.triggered:
                yield slot if math.isinf(deadline_s) else slot | self.env.timeout(deadline_s - self.env.now)
                if not slot.triggered:
                    return TIMEOUT, math.nan
                if station.down():
                    return OUTAGE, math.nan
            start_s, error_rate, number = self.env.now, station.error_rate(), request.attempts
            hold_s = float(self.answers.hold_s[request.row, k]) * share
            served_s = min(hold_s, deadline_s - start_s)
            yield self.env.timeout(served_s)
        station.busy_s += served_s
        price = float(self.answers.cost_usd[request.row, k]) * share
        if served_s < hold_s:
            request.cost_usd += price * served_s / hold_s
            return TIMEOUT, math.nan
        if error_rate > 0 and uniform(self.world.seed, request.number, number) < error_rate:
            return ERROR, math.nan
        request.cost_usd += price
        return SERVED, start_s


def simulate_simpy(world: World, answers: Answers, tier: Any) -> Journeys:
    """Journeys of one candidate (n = 1); `tier` has `R` entries, -1 fails at once."""
    model = _Model(world, answers)
    sent = world.reached(np.asarray(tier, dtype=np.int8)[None])
    requests = [_Request(number=i, row=int(row)) for i, row in enumerate(world.row)]
    model.env.process(model.source(sent[0].tolist(), requests))
    model.env.run()

    def column(name: str, kind: type) -> Any:
        return np.array([[getattr(request, name) for request in requests]], dtype=kind)

    return Journeys(
        e2e_s=column("e2e_s", np.float64),
        ttft_s=column("ttft_s", np.float64),
        served=column("served", np.int8),
        cost_usd=column("cost_usd", np.float64),
        attempts=column("attempts", np.int16),
        reason=column("reason", np.int8),
        tier=sent,
        busy_s=np.array([[station.busy_s for station in model.stations]]),
        outcomes=np.array([[station.outcomes for station in model.stations]], dtype=np.int64),
        longest_line=np.array([[station.longest for station in model.stations]], dtype=np.int64),
        checked=column("checked", np.bool_),
    )
