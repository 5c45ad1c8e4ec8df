"""First come, first served, with a fixed number of slots: the simplest contention there is."""

from __future__ import annotations

import heapq
import math

import numpy as np

from simulators.errors import InputDataError
from simulators.outcomes import FloatArray


def poisson_arrivals(n: int, *, rate_per_s: float, rng: np.random.Generator) -> FloatArray:
    """`n` arrival instants of a Poisson process, seconds, ascending."""
    if not rate_per_s > 0 or not math.isfinite(rate_per_s):
        raise InputDataError(f"an arrival rate must be positive; got {rate_per_s:g} per second")
    return np.cumsum(rng.exponential(1.0 / rate_per_s, n))


def waiting_times(arrival_s: FloatArray, service_s: FloatArray, *, servers: int) -> FloatArray:
    r"""Delay of each request at a first-come-first-served station.

    The earliest slot to become free takes the next request; for one server this is Lindley's
    $W_{n+1} = \max(0, W_n + S_n - (A_{n+1} - A_n))$.

    Args:
        arrival_s: `n` arrival instants, seconds, non-decreasing.
        service_s: `n` service times, seconds.
        servers: Number of slots, at least 1.

    Returns:
        `n` delays between arrival and start of service, seconds.

    Raises:
        InputDataError: If shapes differ, arrivals decrease, or there is no server.
    """
    if servers < 1:
        raise InputDataError(f"a station needs at least one server; got {servers}")
    if arrival_s.shape != service_s.shape or (np.diff(arrival_s) < 0).any():
        raise InputDataError("arrivals must not decrease, and each needs one service time")
    free = [-math.inf] * servers
    waits = []
    for arrival, service in zip(arrival_s.tolist(), service_s.tolist(), strict=True):
        start = max(free[0], arrival)
        heapq.heapreplace(free, start + service)
        waits.append(start - arrival)
    return np.array(waits, dtype=np.float64)


def probability_of_wait(offered: float, servers: int) -> float:
    r"""Erlang's C formula: the share of requests that find all slots busy in M/M/c.

    Args:
        offered: Offered load $a = \lambda E[S]$, below `servers`.
        servers: c.
    """
    blocking = 1.0
    for c in range(1, servers + 1):
        blocking = offered * blocking / (c + offered * blocking)
    utilisation = offered / servers
    return blocking / (1.0 - utilisation * (1.0 - blocking))


def mean_wait(offered: float, servers: int, *, mean_service_s: float, cv2_service: float) -> float:
    r"""Mean delay in M/G/c: M/M/c times $(1 + c_S^2) / 2$; exact for one server and for exponential service.

    Args:
        offered: Offered load, below `servers`.
        servers: c.
        mean_service_s: E[S], seconds.
        cv2_service: Squared coefficient of variation of S.
    """
    waiting = probability_of_wait(offered, servers)
    return waiting * mean_service_s / (servers - offered) * (1.0 + cv2_service) / 2.0
