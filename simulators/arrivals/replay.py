"""Replay of a recorded trace, faster or slower, once or again and again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulators.arrivals.renewal import check_size
from simulators.arrivals.specs import TraceSpec
from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import FloatArray, IntArray
from simulators.traces import Trace, read_trace


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The part of a trace that is replayed.

    Attributes:
        trace: All of it.
        rows: Requests within the cut, in order of arrival.
        arrival_s: Their instants from the start of the cut on.
        period_s: Length of the cut.
    """

    trace: Trace
    rows: IntArray
    arrival_s: FloatArray
    period_s: float


def cut_trace(spec: TraceSpec, folder: Path | None, rng: np.random.Generator | None) -> Cut:
    """Reads, spreads (with `rng`) and cuts a trace.

    Raises:
        InputDataError: If the file cannot be used, or the cut holds no request.
    """
    path = located(spec.path, folder)
    trace = read_trace(path, column=spec.column)
    arrival_s = trace.arrival_s
    if spec.spread_s > 0 and rng is not None:
        arrival_s = arrival_s + spec.spread_s * rng.random(len(arrival_s))
    end_s = _end(trace.arrival_s, spec, path) if spec.end_s is None else spec.end_s
    rows = np.flatnonzero((arrival_s >= spec.start_s) & (arrival_s < end_s))
    if len(rows) == 0:
        raise InputDataError(
            f"{path} has no request from {spec.start_s:g} to {end_s:g} s; its stamps run from "
            f"{trace.arrival_s[0]:g} to {trace.arrival_s[-1]:g} s"
        )
    rows = rows[np.argsort(arrival_s[rows], kind="stable")]
    return Cut(trace=trace, rows=rows, arrival_s=arrival_s[rows] - spec.start_s, period_s=end_s - spec.start_s)


def _end(arrival_s: FloatArray, spec: TraceSpec, path: Path) -> float:
    """One mean gap, or one step of the stamps, after the last request."""
    mean_gap_s = float(arrival_s[-1] - arrival_s[0]) / max(len(arrival_s) - 1, 1)
    if mean_gap_s == 0.0:
        raise InputDataError(f"all {len(arrival_s)} requests of {path} have one instant; give end_s")
    return float(arrival_s[-1]) + max(mean_gap_s, spec.spread_s)


def replayed(cut: Cut, spec: TraceSpec, duration_s: float, load: float) -> tuple[FloatArray, IntArray]:
    """Instants in `[0, duration_s)` and rows of the trace, with time compressed by `rate_scale` times `load`.

    Raises:
        ConfigError: If the trace ends before, and may not be repeated.
    """
    factor = spec.rate_scale * load
    rounds = check_length(duration_s * factor, cut.period_s, spec.repeat, f"the trace {spec.path}", factor)
    check_size(float(rounds) * len(cut.rows))
    shifts_s = cut.period_s * np.arange(rounds)
    arrival_s = (cut.arrival_s + shifts_s[:, None]).ravel() / factor
    n = int(np.searchsorted(arrival_s, duration_s, side="left"))
    return arrival_s[:n], np.tile(cut.rows, rounds)[:n]


def check_length(wanted_s: float, period_s: float, repeat: bool, what: str, factor: float) -> int:
    """Rounds of a recording of length `period_s` that a simulation of `wanted_s` (in its time) needs, at least 1."""
    rounds = max(math.ceil(wanted_s / period_s * (1.0 - 1e-12)), 1)
    if rounds > 1 and not repeat:
        faster = "" if factor == 1.0 else f" at {factor:g} times its speed"
        raise ConfigError(
            f"arrivals: {what} lasts {period_s / factor:.6g} s{faster}, the simulation {wanted_s / factor:.6g} s; "
            "shorten duration_s or set repeat: true"
        )
    return rounds


def located(path: str, folder: Path | None) -> Path:
    """A path of a specification; relative ones start at `folder`."""
    return Path(path) if folder is None else folder / path
