"""Queues with limits, timeouts, retries and fallback: requests x candidates per second of the event-order kernel."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.timing import median_seconds
from simulators.events.arrays import Answers
from simulators.journeys import Journeys
from simulators.seeds import spawn_rng
from simulators.world import Station, TierRule, World

EVENT_CASES = {"contention-event": (100_000, 16)}
"""Case -> requests and candidates."""
_PEER_REQUESTS = {"SimPy": 100_000, "plain Python": 100_000}
_SLOTS, _MEAN_HOLD_S, _OFFERED = (4, 8, 16), (1.0, 2.0, 6.0), (0.5, 0.8, 0.95)
_ROWS = 20_000

Work = tuple[World, Answers, NDArray[np.int8]]


def run_event_case(name: str, runs: int, seed: int) -> list[dict[str, Any]]:
    """Rows of one case; each peer simulates the first candidate on the first requests."""
    from experiments.event_peers import simulate_simpy
    from simulators.events.reference import simulate_plainly
    from simulators.events.simulator import simulate_events

    n_requests, n = EVENT_CASES[name]
    work = event_work(n_requests, n, seed)
    simulate_events(*event_work(100, 2, seed))  # compiled or loaded
    ours_s, found = median_seconds(lambda: simulate_events(*work), max(runs, 3))
    rate = n_requests * n / ours_s / 1e6
    case = f"{name} ({n_requests:,} requests, {n} candidates, {_described(work[0], found)})"
    rows = []
    for peer, simulate in (("SimPy", simulate_simpy), ("plain Python", simulate_plainly)):
        size = _PEER_REQUESTS[peer]
        world, answers, tier = _first(work, size)
        peer_s, expected = median_seconds(partial(simulate, world, answers, tier[0]), 1)
        label, peer_rate = f"{peer}, 1 x {size:,}, 1 run", size / peer_s / 1e6
        differ = _differ(simulate_events(world, answers, tier), expected)
        rows += [
            ("M requests x candidates / s", rate, label, peer_rate, rate / peer_rate),
            ("requests that end otherwise", float(differ), label, 0.0, None),
        ]
    names = ("metric", "ours", "peer", "peer_value", "ratio")
    return [{"case": case, **dict(zip(names, row, strict=True)), "runs": runs} for row in rows]


def event_work(n_requests: int, n: int, seed: int) -> Work:
    """Poisson arrivals at three tiers that offer 0.5, 0.8 and 0.95 of their slots' time, give or take by candidate."""
    rng = spawn_rng(seed, "bench", "events")
    mean_s = np.array(_MEAN_HOLD_S)
    offered = np.array(_OFFERED) * np.array(_SLOTS) / mean_s  # requests per second
    hold_s = rng.lognormal(-0.32, 0.8, (_ROWS, 3)) * mean_s
    ready_s = np.cumsum(rng.exponential(1.0 / offered.sum(), n_requests))
    world = World(
        arrival_s=ready_s,
        ready_s=ready_s,
        row=rng.integers(0, _ROWS, n_requests),
        router_down=np.zeros(n_requests, dtype=np.bool_),
        stations=_stations(),
        rules=(
            TierRule(station=0, timeout_s=4.0, retries=2, backoff_s=0.5, fallback=1),
            TierRule(station=1, timeout_s=10.0, retries=2, backoff_s=1.0, fallback=2),
            TierRule(station=2, timeout_s=20.0, retries=3, backoff_s=2.0, fallback=1),
        ),
        duration_s=float(ready_s[-1]),
        seed=seed,
    )
    answers = Answers(
        hold_s=hold_s,
        first_s=hold_s * 0.2,
        extra_s=np.full_like(hold_s, 0.05),
        tokens=hold_s * 100.0,
        cost_usd=hold_s * 1e-3,
    )
    score, edges = rng.random(n_requests), np.cumsum(offered / offered.sum())[:2]
    shifted = edges + np.linspace(-0.03, 0.03, n)[:, None]
    tier = (score > shifted[:, :1]).astype(np.int8) + (score > shifted[:, 1:]).astype(np.int8)
    return world, answers, tier.astype(np.int8)


def _stations() -> tuple[Station, ...]:
    limits: tuple[dict[str, float], ...] = ({}, {"requests_per_min": 200.0}, {"tokens_per_min": 85_000.0})
    return tuple(
        Station(name=f"tier-{k}", slots=slots, buffer=2 * slots, error_rate=0.005, error_rate_busy=0.03, **limit)
        for k, (slots, limit) in enumerate(zip(_SLOTS, limits, strict=True))
    )


def _first(work: Work, n_requests: int) -> Work:
    """The first requests and candidate."""
    world, answers, tier = work
    names = ("arrival_s", "ready_s", "row", "router_down")
    fewer = dataclasses.replace(world, **{name: getattr(world, name)[:n_requests] for name in names})
    return fewer, answers, np.ascontiguousarray(tier[:1, :n_requests])


def _described(world: World, found: Journeys) -> str:
    busy = "/".join(f"{value:.2f}" for value in found.utilisation(world).mean(axis=0))
    slots = "/".join(map(str, _SLOTS))
    return (
        f"{slots} slots at {busy}, {found.attempts.mean():.2f} attempts per request, "
        f"{found.fell_back.mean():.1%} fell back, {found.failed.mean():.2%} failed"
    )


def _differ(ours: Journeys, peer: Journeys) -> int:
    same = np.isclose(ours.e2e_s, peer.e2e_s, rtol=0.0, atol=1e-6) & (ours.served == peer.served)
    return int((~same).sum())
