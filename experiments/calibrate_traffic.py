"""The `traffic` of a calibrated scenario: arrivals from a trace or a stated rate, capacity and errors."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.calibrate_data import Recorded, tier_index
from experiments.calibrate_settings import CalibrateSettings
from experiments.calibrate_times import TierTimes
from experiments.calibrate_yaml import Node, Sourced, sourced
from simulators.arrivals import parse_arrivals, sample_arrivals
from simulators.arrivals.fitting import ArrivalFit, fit_arrivals
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from simulators.seeds import spawn_rng
from simulators.traces import Trace, describe, read_trace

_MOST_TIED = 0.05


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """A traffic section and what it was fitted to.

    Attributes:
        node: The section, or None where the data hold no arrivals.
        gap_s: Recorded and fitted gaps between arrivals, seconds; None without a trace or with its replay.
        figures: What the trace looks like; empty without one.
        notes: Sentences.
    """

    node: dict[str, Node] | None
    gap_s: tuple[FloatArray, FloatArray] | None
    figures: dict[str, Any]
    notes: tuple[str, ...]


def open_trace(settings: CalibrateSettings) -> Trace | None:
    """The trace of the settings, if one is given.

    Raises:
        ConfigError: If arrivals are asked for that need a trace.
    """
    if settings.traces is None:
        if settings.arrivals != "auto" and not (settings.arrivals == "poisson" and settings.rate_per_s):
            raise ConfigError(f"arrivals={settings.arrivals} is fitted to a trace; give traces=FILE")
        return None
    if settings.rate_per_s is not None:
        raise ConfigError("traces and rate_per_s both state the arrivals; unset one of them")
    return read_trace(Path(settings.traces))


def written_path(path: str, output: Path) -> str:
    """A path as the scenario file should name it: relative to its folder where it lies below, else absolute."""
    whole, folder = Path(path).resolve(), output.resolve().parent
    return os.path.relpath(whole, folder) if whole.is_relative_to(folder) else str(whole)


def fit_traffic(
    trace: Trace | None, recorded: Recorded, times: list[TierTimes], settings: CalibrateSettings, output: Path
) -> Traffic:
    """The section, as far as the data or the options hold it.

    Raises:
        ConfigError: If options contradict each other, or a rate is given without a duration.
        InputDataError: If arrivals cannot be fitted to the trace.
    """
    stations = _stations(recorded, times, settings)
    if trace is None and settings.rate_per_s is None:
        if settings.slots:
            raise ConfigError("slots need traffic: give traces=FILE, or rate_per_s= and duration_s=")
        note = "No traces were given, so the scenario has no traffic section: nobody waits and nothing fails."
        failing = [name for name, node in stations.items() if isinstance(node, dict) and "error_rate" in node]
        more = f" Measured error rates ({', '.join(failing)}) are in the report only." if failing else ""
        more += " Recorded failures count in the quality, with their scores." if recorded.n_failed.any() else ""
        return Traffic(node=None, gap_s=None, figures={}, notes=(note + more,))
    arrivals, gap_s, figures, notes = _stated(settings) if trace is None else _fitted(trace, settings, output)
    duration_s = settings.duration_s or float(figures.get("duration_s", np.nan))
    if not np.isfinite(duration_s):
        raise ConfigError("rate_per_s says how often requests come, not how long: give duration_s= too")
    said = (
        "duration_s"
        if settings.duration_s
        else f"{Path(str(settings.traces)).name}: from the first request to the last"
    )
    node: dict[str, Node] = {
        "duration_s": Sourced(float(f"{duration_s:.6g}"), said),
        "warmup_s": Sourced(settings.warmup_s, "warmup_s"),
        "arrivals": arrivals,
    }
    if stations:
        node["stations"] = stations
    if not settings.slots:
        notes = (*notes, "No slots were given: requests come as recorded, but nobody waits (slots={TIER: N}).")
    return Traffic(node=node, gap_s=gap_s, figures=figures, notes=notes)


def _stations(recorded: Recorded, times: list[TierTimes], settings: CalibrateSettings) -> dict[str, Node]:
    table = recorded.table
    slots = {tier_index(t, recorded.models, table.tiers, "slots"): n for t, n in (settings.slots or {}).items()}
    stations: dict[str, Node] = {}
    for k, tier in enumerate(table.tiers):
        node: dict[str, Node] = {}
        if k in slots:
            node["slots"] = Sourced(slots[k], "assumption (slots)")
        measured, n, n_failed = times[k].measured, table.n_queries, int(recorded.n_failed[k])
        if measured is not None and measured.n_failed:
            node["error_rate"] = sourced(
                measured.error_rate,
                f"latency file: {measured.n_failed} of {measured.n_served} requests carry an error",
                3,
            )
        elif n_failed:
            source = f"{recorded.source}, {recorded.models[k]}: {n_failed} of {n} answers failed"
            node["error_rate"] = sourced(n_failed / n, source, 3)
        if node:
            stations[tier] = node
    return stations


_Arrivals = tuple[dict[str, Node], tuple[FloatArray, FloatArray] | None, dict[str, Any], tuple[str, ...]]


def _stated(settings: CalibrateSettings) -> _Arrivals:
    assert settings.rate_per_s is not None
    arrivals: dict[str, Node] = {
        "kind": Sourced("poisson", "assumption (rate_per_s)"),
        "rate_per_s": Sourced(settings.rate_per_s, "assumption (rate_per_s)"),
    }
    return arrivals, None, {}, ()


def _fitted(trace: Trace, settings: CalibrateSettings, output: Path) -> _Arrivals:
    figures = describe(trace)
    shown: dict[str, Any] = {
        name: getattr(figures, name) for name in ("n_requests", "duration_s", "rate_per_s", "gap_cv", "tied")
    }
    shown |= {"idc": {f"{w:g} s": v for w, v in figures.idc.items()}, "mean_tokens": figures.mean_tokens}
    name = Path(str(settings.traces)).name
    if settings.arrivals == "replay":
        return _replay(trace, settings, output, figures.tied), None, shown, ()
    fit = fit_arrivals(trace.arrival_s, curve=settings.arrivals in {"auto", "diurnal"})
    spec = _chosen(fit, settings)
    said = (
        f"{name}, n {figures.n_requests:,}: {_family(fit, settings)}"
        + (f", KS distance {d:.3f}" if (d := _distance(fit, settings)) is not None else "")
        + f"; recorded cv of the gaps {figures.gap_cv:.3g}, dispersion of counts per minute {fit.idc[60.0]:.3g}"
    )
    arrivals: dict[str, Node] = {}
    for key, value in spec.items():
        digits = sourced(value, said, 5) if isinstance(value, float) else None
        arrivals[key] = Sourced(value, said) if key == "kind" else digits or value
    duration_s = figures.duration_s
    drawn = sample_arrivals(
        parse_arrivals(spec), duration_s=duration_s, load=1.0, rng=spawn_rng(settings.seed, "calibrate", "arrivals")
    ).arrival_s
    gaps = (np.diff(trace.arrival_s), np.diff(drawn)) if figures.tied <= _MOST_TIED and len(drawn) > 1 else None
    return arrivals, gaps, shown, fit.notes


def _replay(trace: Trace, settings: CalibrateSettings, output: Path, tied: float) -> dict[str, Node]:
    path, start_s = str(settings.traces), _start_s(float(trace.arrival_s[0]))
    source = f"{Path(path).name}: {len(trace.arrival_s):,} requests as recorded"
    node: dict[str, Node] = {
        "kind": Sourced("trace", source),
        "path": written_path(path, output),
        **({"start_s": Sourced(start_s, "first stamp of the trace")} if start_s > 0 else {}),
        "repeat": Sourced(True, "a longer simulation starts it again"),
    }
    gaps = np.diff(trace.arrival_s)
    if tied > _MOST_TIED:
        step_s = float(np.median(gaps[gaps > 0]))
        node["spread_s"] = sourced(step_s, f"stamps come in steps; {tied:.0%} of the gaps are 0", 4)
    return node


def _start_s(first_s: float) -> float:
    """The first stamp, at the millisecond before it: never past it, and written in full."""
    start_s = math.floor(1000.0 * first_s) / 1000.0
    return start_s if start_s <= first_s else start_s - 0.001


def _chosen(fit: ArrivalFit, settings: CalibrateSettings) -> dict[str, Any]:
    """The spec of the family that was asked for, as a mapping without defaults."""
    spec = fit.spec.model_dump(exclude_defaults=True, mode="json") | {"kind": fit.spec.kind}
    wanted = settings.arrivals
    if wanted == "diurnal" and fit.spec.kind != "diurnal":
        raise ConfigError(
            f"arrivals=diurnal: the trace's rate does not move (p = {fit.rate_p_value:.2g}); give arrivals=auto"
        )
    if wanted in {"auto", "diurnal"} or wanted == fit.spec.kind:
        return {"kind": spec.pop("kind"), **spec}
    if wanted not in fit.families:
        raise ConfigError(
            f"arrivals={wanted}: the stamps are too coarse to fit the gaps; give arrivals=auto or arrivals=replay"
        )
    rate: dict[str, Any] = {"kind": wanted, "rate_per_s": spec["rate_per_s"]}
    return rate if wanted == "poisson" else {**rate, "cv": float(f"{fit.families[wanted].law.cv:.6g}")}


def _family(fit: ArrivalFit, settings: CalibrateSettings) -> str:
    return fit.chosen if settings.arrivals in {"auto", "diurnal"} else settings.arrivals


def _distance(fit: ArrivalFit, settings: CalibrateSettings) -> float | None:
    family = fit.families.get(_family(fit, settings))
    return None if family is None else family.distance
