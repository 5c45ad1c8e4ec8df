"""Queues: requests x candidates per second of the fast path, beside a heap loop, SimPy, ciw and compiled float64."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.outcomes import FloatArray, IntArray
from simulators.seeds import spawn_rng

UTILISATIONS = (0.5, 0.8, 0.95)
GROWTH = ((10_000, (1, 64, 256, 1024)), (100_000, (1, 64, 256, 1024)), (1_000_000, (1, 64, 256, 1024)))
"""Requests, and with how many candidates each."""
_LEVELS = (0.5, 0.95, 0.99)


@dataclass(frozen=True, kw_only=True)
class Size:
    """Slots per tier, and on how much of the work each peer is timed: (requests, candidates)."""

    slots: tuple[int, ...]
    n_requests: int
    n_candidates: int
    heap: tuple[int, int]
    simpy: tuple[int, int]
    ciw: tuple[int, int]
    scalar: int


CONTENTION_CASES: dict[str, Size | None] = {
    "contention-small": Size(
        slots=(4, 8, 16),
        n_requests=100_000,
        n_candidates=256,
        heap=(100_000, 3),
        simpy=(20_000, 1),
        ciw=(4_000, 1),
        scalar=16,
    ),
    "contention-large": Size(
        slots=(64, 64, 128),
        n_requests=100_000,
        n_candidates=64,
        heap=(100_000, 3),
        simpy=(20_000, 1),
        ciw=(4_000, 1),
        scalar=16,
    ),
    "contention-growth": None,
}


@dataclass(frozen=True, kw_only=True)
class Work:
    """Requests and the tiers that candidates send them to; one row per request, one tier per station."""

    ready_s: FloatArray
    hold_s: FloatArray
    tier: NDArray[np.int8]
    slots: IntArray

    @property
    def args(self) -> tuple[Any, ...]:
        """In the order of `summarise`; the value is wait + hold."""
        row, stations = np.arange(len(self.ready_s)), np.arange(len(self.slots))
        return self.ready_s, self.hold_s, self.hold_s, row, self.tier, stations, self.slots

    def one(self, candidate: int, n_requests: int) -> tuple[FloatArray, FloatArray, IntArray, IntArray]:
        """A candidate's first requests, as the peers take them."""
        tier = self.tier[candidate, :n_requests].astype(np.int64)
        return self.ready_s[:n_requests], self.hold_s[np.arange(n_requests), tier], tier, self.slots


def make_work(
    slots: tuple[int, ...], n_requests: int, n_candidates: int, utilisation: float, seed: int, *, alike: bool = True
) -> Work:
    """Poisson arrivals and exponential holds of mean 1 s; each tier's share of the traffic follows its slots.

    Args:
        utilisation: Of every tier, on average over candidates.
        alike: Whether candidates are thresholds on one score, spread by 2 % of the traffic about the shares, as a
            search has them; else each sends every request to a tier of its own draw.
    """
    rng = spawn_rng(seed, f"contention-{utilisation}")
    share = np.array(slots) / sum(slots)
    ready_s = np.cumsum(rng.exponential(1.0 / (utilisation * sum(slots)), n_requests))
    hold_s = rng.exponential(1.0, (n_requests, len(slots)))
    cuts = np.cumsum(share)[:-1] + rng.uniform(-0.02, 0.02, (n_candidates, len(slots) - 1))
    score = rng.random(n_requests)
    tier = np.empty((n_candidates, n_requests), np.int8)
    for i, own in enumerate(cuts):
        at = score if alike else rng.random(n_requests)
        tier[i] = sum((at >= cut).astype(np.int8) for cut in own)
    return Work(ready_s=ready_s, hold_s=hold_s, tier=tier, slots=np.array(slots))


def run_contention_case(name: str, runs: int, seed: int) -> list[dict[str, Any]]:
    """Rows of one case; compiling is not timed."""
    from simulators.contention.compile import compile_kernels

    compile_kernels()
    size = CONTENTION_CASES[name]
    if size is None:
        return _growth(runs, seed)
    rows = []
    for utilisation in UTILISATIONS:
        rows += _compare(name, size, utilisation, runs, seed)
    return rows


def _compare(name: str, size: Size, utilisation: float, runs: int, seed: int) -> list[dict[str, Any]]:
    from experiments.contention_peers import ciw_waits, heap_waits, simpy_waits

    work = make_work(size.slots, size.n_requests, size.n_candidates, utilisation, seed)
    mixed = make_work(size.slots, size.n_requests, size.n_candidates, utilisation, seed, alike=False)
    slots = "/".join(map(str, size.slots))
    case = f"{name} ({size.n_requests:,} requests, {size.n_candidates} candidates, {slots} slots at {utilisation:g})"
    rates, peers = _rates(work, mixed, size, max(runs, 3)), {}
    for peer, function, (requests, candidates) in (
        ("heap loop", heap_waits, size.heap),
        ("SimPy", simpy_waits, size.simpy),
        ("ciw", ciw_waits, size.ciw),
    ):
        times = [_seconds(partial(_figures, function, *work.one(i, requests))) for i in range(candidates)]
        peers[f"{peer}, {candidates} x {requests:,}"] = requests / float(np.median(times)) / 1e6
    peers[f"compiled float64, {size.scalar} x {size.n_requests:,}"] = rates.scalar
    metric = "M requests x candidates / s"
    rows = [_row(case, metric, rates.alike, peer, value, runs) for peer, value in peers.items()]
    heap, value = next(iter(peers.items()))
    rows.append(_row(case, f"{metric}, candidates unlike each other", rates.mixed, heap, value, runs))
    return rows + _errors(case, work, size.scalar, runs)


@dataclass(frozen=True)
class _Rates:
    alike: float
    mixed: float
    scalar: float


def _rates(work: Work, mixed: Work, size: Size, runs: int) -> _Rates:
    """Medians of ours and of the float64 kernel, turn by turn."""
    from simulators.contention.exact import waits
    from simulators.contention.lanes import summarise

    ready_s, hold_s, _, row, tier, station_of, slots = work.args
    few = tier[: size.scalar]
    alike, unlike, scalar = [], [], []
    for _ in range(runs):
        alike.append(_seconds(lambda: summarise(*work.args, levels=_LEVELS)))
        unlike.append(_seconds(lambda: summarise(*mixed.args, levels=_LEVELS)))
        scalar.append(_seconds(lambda: waits(ready_s, hold_s, row, few, station_of, slots)))
    whole = work.tier.size / 1e6
    return _Rates(
        float(whole / np.median(alike)), float(whole / np.median(unlike)), float(few.size / 1e6 / np.median(scalar))
    )


def _figures(function: Callable[..., FloatArray], *inputs: Any) -> FloatArray:
    """Mean and quantiles of wait + hold, as ours gives them."""
    values = function(*inputs) + inputs[1]
    return np.array([values.mean(), *np.quantile(values, _LEVELS)])


def _errors(case: str, work: Work, n: int, runs: int) -> list[dict[str, Any]]:
    """Largest relative differences of float32 from float64."""
    from simulators.contention.exact import waits
    from simulators.contention.lanes import summarise

    ready_s, hold_s, value_s, row, tier, station_of, slots = work.args
    own = tier[:n]
    found = summarise(ready_s, hold_s, value_s, row, own, station_of, slots, levels=_LEVELS)
    values = waits(ready_s, hold_s, row, own, station_of, slots)[0] + hold_s[row[None], own]
    mean = float(np.abs(found.mean_s / values.mean(axis=1) - 1).max())
    p99 = float(np.abs(found.quantiles_s[:, -1] / np.quantile(values, _LEVELS[-1], axis=1) - 1).max())
    return [
        _row(case, "relative error of the mean", mean, "float64", 0.0, runs) | {"ratio": None},
        _row(case, "relative error of p99", p99, "float64", 0.0, runs) | {"ratio": None},
    ]


def _growth(runs: int, seed: int) -> list[dict[str, Any]]:
    from simulators.contention.lanes import summarise

    rows = []
    for n_requests, sizes in GROWTH:
        for n in sizes:
            work = make_work((4, 8, 16), n_requests, n, 0.8, seed)
            turns = runs if work.tier.size < 10**8 else 1
            with _PeakMemory() as memory:
                seconds = [_seconds(partial(summarise, *work.args)) for _ in range(turns)]
            case = f"contention-growth ({n_requests:,} requests, {n} candidates, 4/8/16 slots at 0.8)"
            rate = work.tier.size / 1e6 / float(np.median(seconds))
            rows.append(_row(case, "M requests x candidates / s", rate, None, None, turns))
            rows.append(_row(case, "peak memory of the process, MiB", memory.peak_mib, None, None, turns))
    return rows


class _PeakMemory:
    """The process's largest resident size while it runs, sampled every 5 ms; inputs included."""

    peak_mib = 0.0

    def __enter__(self) -> _PeakMemory:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.peak_mib = max(self.peak_mib, _resident_mib())
            if self._done.wait(0.005):
                return


def _resident_mib() -> float:
    """Now, where the system tells; else the largest so far."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _row(case: str, metric: str, ours: float, peer: str | None, value: float | None, runs: int) -> dict[str, Any]:
    return {
        "case": case,
        "metric": metric,
        "ours": ours,
        "peer": peer,
        "peer_value": value,
        "ratio": ours / value if value else None,
        "runs": runs,
    }
