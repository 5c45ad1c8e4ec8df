"""Latency under load by formulas of queueing theory: what a model of the residual starts from."""

from __future__ import annotations

import numpy as np

from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.queueing import mean_wait, probability_of_wait
from simulators.world import World
from toolkit.evaluation.contention import Assignment, latency_value
from toolkit.evaluation.metrics import Metric

_MOST_ROWS = 1_000
_CRITICAL = 0.97


def approximate_latency(
    table: OutcomeTable, world: World, assignment: Assignment, metrics: tuple[Metric, ...]
) -> dict[str, FloatArray]:
    r"""Latency metrics by formulas, on a subset of the requests: the prior mean that a model of the residual needs.

    A wait is drawn at evenly spread levels from $P(W > t) = C e^{-tC/\bar W}$ (exact for M/M/c), with Erlang's C and
    the two-moment mean. Beyond a utilisation of 0.97 the backlog that a fluid would build up is added. Rates are means
    over the whole duration; limits, time-outs and outages are ignored.

    Args:
        table: The outcomes.
        world: Requests and stations.
        assignment: `n x N` tiers.
        metrics: Latency metrics.
    """
    step = max(1, world.n_requests // _MOST_ROWS)
    some = np.arange(0, world.n_requests, step)
    level = np.modf(0.5 + np.arange(len(some)) * 0.6180339887498949)[0]
    latency = np.stack([_approximate(table, world, tier, some, level) for tier in assignment])
    found = {}
    for m in metrics:
        inside = slice(None)
        if m.slice_name is not None:
            inside = table.slice_code[world.row[some]] == table.slices.index(m.slice_name)
            if not inside.any():
                continue
        found[m.column] = latency_value(latency[:, inside], m)
    return found


def _approximate(table: OutcomeTable, world: World, tier: Assignment, some: IntArray, level: FloatArray) -> FloatArray:
    chosen, hold = tier[world.row], table.hold_s[world.row, tier[world.row]]
    station = np.array([rule.station for rule in world.rules])[chosen]
    latency = table.latency_s[world.row[some], chosen[some]]
    horizon_s = world.duration_s
    for j, slots in enumerate(s.slots for s in world.stations):
        member = station == j
        if slots is None or not member.any():
            continue
        service = hold[member]
        mean, here = float(service.mean()), member[some]
        if mean == 0:
            continue
        offered = float(service.sum()) / horizon_s
        stable = min(offered, _CRITICAL * slots)
        cv2 = float(service.var()) / mean**2
        wait = mean_wait(stable, slots, mean_service_s=mean, cv2_service=cv2)
        share = probability_of_wait(stable, slots)
        excess = np.log(np.maximum(share, 1e-9) / np.maximum(level[here], 1e-9))
        drawn = np.where(level[here] < share, wait / max(share, 1e-9) * excess, 0.0)
        backlog_s = horizon_s * max(0.0, offered / slots - _CRITICAL)
        latency[here] += drawn + backlog_s * level[here]
    return np.asarray(latency)
