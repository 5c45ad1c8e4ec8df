"""The feed-forward queues as SimPy, ciw and a plain heap loop have them: peers in bench, references in tests.

Each takes one candidate: `R` ready instants, holds and stations (-1: goes nowhere), and `J` numbers of slots.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from simulators.outcomes import FloatArray, IntArray

PeerWaits = Callable[[FloatArray, FloatArray, IntArray, IntArray], FloatArray]


def heap_waits(ready_s: FloatArray, hold_s: FloatArray, station: IntArray, slots: IntArray) -> FloatArray:
    """The shortest loop that gives every wait; stations need slots."""
    free = [[-math.inf] * c for c in slots.tolist()]
    waits = []
    for now, hold, j in zip(ready_s.tolist(), hold_s.tolist(), station.tolist(), strict=True):
        if j < 0:
            waits.append(0.0)
            continue
        first = free[j][0]
        start = first if first > now else now
        heapq.heapreplace(free[j], start + hold)
        waits.append(start - now)
    return np.array(waits)


def simpy_waits(ready_s: FloatArray, hold_s: FloatArray, station: IntArray, slots: IntArray) -> FloatArray:
    """One process per request; a station is a `Resource`."""
    import simpy

    environment = simpy.Environment()
    stations = [simpy.Resource(environment, capacity=int(c)) if c else None for c in slots]
    waits = [0.0] * len(ready_s)

    def request(i: int, hold: float, resource: Any) -> Iterator[Any]:
        arrived = environment.now
        with resource.request() as slot:
            yield slot
            waits[i] = environment.now - arrived
            yield environment.timeout(hold)

    def source() -> Iterator[Any]:
        for i, (at, hold, j) in enumerate(zip(ready_s.tolist(), hold_s.tolist(), station.tolist(), strict=True)):
            yield environment.timeout(max(0.0, at - environment.now))
            if j >= 0 and stations[j] is not None:
                environment.process(request(i, hold, stations[j]))

    environment.process(source())
    environment.run()
    return np.array(waits)


def ciw_waits(ready_s: FloatArray, hold_s: FloatArray, station: IntArray, slots: IntArray) -> FloatArray:
    """One node per station, with the given gaps and holds in sequence; every station needs a request."""
    import ciw

    members = [np.flatnonzero(station == j) for j in range(len(slots))]
    gaps = [np.diff(ready_s[own], prepend=0.0).tolist() for own in members]
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Sequential([*gap, math.inf]) for gap in gaps],
        service_distributions=[ciw.dists.Sequential(hold_s[own].tolist()) for own in members],
        number_of_servers=[int(c) or math.inf for c in slots],
        routing=[[0.0] * len(slots) for _ in slots],
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(sum(map(len, members)), method="Finish")
    waits = np.zeros(len(ready_s))
    records = simulation.get_all_records(only=["service"])
    for j, own in enumerate(members):
        served = sorted((r.id_number, r.waiting_time) for r in records if r.node == j + 1)
        waits[own] = [wait for _, wait in served]
    return waits
