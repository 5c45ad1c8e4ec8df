"""Draws from any arrival process, at any load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import numpy as np

from simulators.arrivals.modulated import day_area, day_curve, day_instants, state_path, stationary_shares
from simulators.arrivals.renewal import GapLaw, check_size, gap_law, unit_points
from simulators.arrivals.replay import cut_trace, replayed
from simulators.arrivals.servegen import read_clients, sample_clients
from simulators.arrivals.specs import (
    ArrivalSpec,
    ClientsSpec,
    DiurnalSpec,
    GammaSpec,
    MmppSpec,
    PoissonSpec,
    ServeGenSpec,
    TraceSpec,
    WeibullSpec,
)
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray

_EXPONENTIAL = GapLaw(family="gamma", shape=1.0)


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """R requests in order of arrival.

    Attributes:
        arrival_s: `R` instants, ascending, in `[0, duration_s)`.
        client: `R` indices into `client_names`.
        client_names: Who sends; one name unless the process is a superposition.
        input_tokens, output_tokens, cached_tokens: `R` counts of a replayed trace, NaN for clients without; None where
            no client has them.
    """

    arrival_s: FloatArray
    client: IntArray
    client_names: tuple[str, ...]
    input_tokens: FloatArray | None = None
    output_tokens: FloatArray | None = None
    cached_tokens: FloatArray | None = None

    @property
    def n_requests(self) -> int:
        """R."""
        return len(self.arrival_s)


def sample_arrivals(
    spec: ArrivalSpec, *, duration_s: float, load: float, rng: np.random.Generator, folder: Path | None = None
) -> Arrivals:
    """Requests of one simulation; the same `rng` gives the same ones.

    Loads share their random numbers. For renewal processes and traces the requests at load 2 are those at load 1 at
    half the distance, and more of them; under a rate curve, modulating states or windows these stay where they are in
    time and the points between them are shared in units of the integrated rate.

    Args:
        spec: The process.
        duration_s: Length of the simulation.
        load: Factor of the rates; a trace runs faster by it and is cut to the duration, or repeated if it may be.
        rng: Source of every number.
        folder: Where relative paths start.

    Raises:
        ConfigError: If duration or load is not positive, or a recording is shorter than the simulation.
        InputDataError: If a file cannot be used.
    """
    for name, value in (("duration_s", duration_s), ("load", load)):
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name}: expected a positive number; got {value:g}")
    match spec:
        case ClientsSpec():
            streams = rng.spawn(len(spec.clients))
            parts = [
                sample_arrivals(inner, duration_s=duration_s, load=load, rng=stream, folder=folder)
                for inner, stream in zip(spec.clients.values(), streams, strict=True)
            ]
            return _superposed(parts, tuple(spec.clients))
        case ServeGenSpec():
            instants, client, names = sample_clients(spec, duration_s=duration_s, load=load, rng=rng, folder=folder)
            order = np.argsort(instants, kind="stable")
            return Arrivals(arrival_s=instants[order], client=client[order], client_names=names)
        case TraceSpec():
            return _replay(spec, duration_s, load, rng, folder)
        case _:
            instants = _instants(spec, duration_s, load, rng)
            return _single(instants[instants < duration_s])


def _instants(
    spec: PoissonSpec | GammaSpec | WeibullSpec | DiurnalSpec | MmppSpec,
    duration_s: float,
    load: float,
    rng: np.random.Generator,
) -> FloatArray:
    match spec:
        case PoissonSpec() | GammaSpec() | WeibullSpec():
            law = _EXPONENTIAL if isinstance(spec, PoissonSpec) else gap_law(spec.kind, spec.cv)
            rate_per_s = spec.rate_per_s * load
            return unit_points(law, rate_per_s * duration_s, rng) / rate_per_s
        case DiurnalSpec():
            curve = day_curve(spec)
            before, after = (day_area(spec, curve, t_s) for t_s in (spec.start_s, spec.start_s + duration_s))
            points = unit_points(gap_law(spec.family, spec.cv), (after - before) * load, rng)
            return np.maximum(day_instants(spec, curve, before + points / load) - spec.start_s, 0.0)
        case MmppSpec():
            path_rng, point_rng = rng.spawn(2)
            path = state_path(spec, duration_s, path_rng)
            area = float(path.integrated(np.array([duration_s]))[0])
            return path.inverse(unit_points(_EXPONENTIAL, area * load, point_rng) / load)
        case _:
            assert_never(spec)


def _single(arrival_s: FloatArray) -> Arrivals:
    return Arrivals(arrival_s=arrival_s, client=np.zeros(len(arrival_s), dtype=np.int64), client_names=("all",))


def _replay(spec: TraceSpec, duration_s: float, load: float, rng: np.random.Generator, folder: Path | None) -> Arrivals:
    cut = cut_trace(spec, folder, rng)
    arrival_s, rows = replayed(cut, spec, duration_s, load)
    columns = (cut.trace.input_tokens, cut.trace.output_tokens, cut.trace.cached_tokens)
    input_tokens, output_tokens, cached_tokens = (None if tokens is None else tokens[rows] for tokens in columns)
    return Arrivals(
        arrival_s=arrival_s,
        client=np.zeros(len(rows), dtype=np.int64),
        client_names=("all",),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=cached_tokens,
    )


def _superposed(parts: Sequence[Arrivals], names: tuple[str, ...]) -> Arrivals:
    check_size(sum(part.n_requests for part in parts))
    arrival_s = np.concatenate([part.arrival_s for part in parts])
    order = np.argsort(arrival_s, kind="stable")
    client = np.repeat(np.arange(len(parts)), [part.n_requests for part in parts])
    return Arrivals(
        arrival_s=arrival_s[order],
        client=client[order],
        client_names=names,
        input_tokens=_joined([part.input_tokens for part in parts], parts, order),
        output_tokens=_joined([part.output_tokens for part in parts], parts, order),
        cached_tokens=_joined([part.cached_tokens for part in parts], parts, order),
    )


def _joined(tokens: Sequence[FloatArray | None], parts: Sequence[Arrivals], order: IntArray) -> FloatArray | None:
    if all(values is None for values in tokens):
        return None
    filled = [
        np.full(part.n_requests, np.nan) if values is None else values
        for values, part in zip(tokens, parts, strict=True)
    ]
    return np.asarray(np.concatenate(filled)[order])


def mean_rate(spec: ArrivalSpec, folder: Path | None = None) -> float:
    """Requests per second at load 1: over a whole period for a rate curve, over the cut for a recording.

    Raises:
        InputDataError: If a file cannot be used.
    """
    match spec:
        case ClientsSpec():
            return sum(mean_rate(inner, folder) for inner in spec.clients.values())
        case ServeGenSpec():
            windows = read_clients(spec, folder)
            return float(windows.rate_per_s @ windows.length_s) / windows.period_s
        case TraceSpec():
            cut = cut_trace(spec, folder, None)
            return spec.rate_scale * len(cut.rows) / cut.period_s
        case MmppSpec():
            return float(stationary_shares(spec) @ np.array(spec.rates_per_s))
        case _:
            return spec.rate_per_s
