"""One simulated stretch of traffic, window by window."""

from __future__ import annotations

import math

import numpy as np

from simulators.journeys import Journeys
from simulators.outcomes import FloatArray, IntArray
from simulators.scenario import ScenarioSpec
from simulators.world import World
from toolkit.report.simulation import Timeline

_WIDTHS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 43_200)
_MOST_WINDOWS = 150
_FEWEST = 5  # answers behind a p95


def make_timeline(spec: ScenarioSpec, world: World, journeys: Journeys) -> Timeline:
    """The only candidate of some journeys over the whole of its traffic, warm-up included."""
    width = window_s(world.duration_s)
    n = math.ceil(world.duration_s / width)
    window = np.minimum((world.arrival_s / width).astype(np.int64), n - 1)
    came = np.bincount(window, minlength=n)
    answered = journeys.served[0] >= 0
    failed = np.bincount(window[~answered], minlength=n)
    return Timeline(
        load=world.load,
        width_s=width,
        start_s=width * np.arange(n, dtype=np.float64),
        arrivals_per_min=came * 60.0 / np.minimum(width, world.duration_s - width * np.arange(n)),
        p95_s=_p95(journeys.e2e_s[0][answered], window[answered], n),
        error_share=np.where(came > 0, failed / np.maximum(came, 1), np.nan),
        warmup_s=world.warmup_s,
        outages=_outages(spec, world),
        changes=tuple((change.at_s, _change(change)) for change in spec.changes),
    )


def window_s(duration_s: float) -> float:
    """A round width of at most `_MOST_WINDOWS` windows."""
    return float(next((w for w in _WIDTHS_S if duration_s / w <= _MOST_WINDOWS), duration_s / _MOST_WINDOWS))


def _p95(latency_s: FloatArray, window: IntArray, n: int) -> FloatArray:
    """`n` p95 latencies; NaN where a window has few answers."""
    order = np.argsort(window, kind="stable")
    parts = np.split(latency_s[order], np.searchsorted(window[order], np.arange(1, n)))
    return np.array([np.quantile(part, 0.95) if len(part) >= _FEWEST else np.nan for part in parts])


def _outages(spec: ScenarioSpec, world: World) -> tuple[tuple[str, float, float], ...]:
    found = [
        (", ".join(world.stations[j].name for j in outage.stations), outage.start_s, outage.end_s)
        for outage in world.outages
    ]
    router = () if spec.traffic is None else spec.traffic.router.outages
    return (*found, *(("router", span.start_s, span.end_s) for span in router))


def _change(change: object) -> str:
    """What a change point does, in a few words."""
    tiers = getattr(change, "tiers", None)
    shift, speed, price = (float(getattr(change, name)) for name in ("quality_shift", "speed_factor", "price_factor"))
    said = [f"quality {shift:+g} logits"] if shift else []
    said += [f"speed x{speed:g}"] if speed != 1 else []
    said += [f"price x{price:g}"] if price != 1 else []
    return f"{'all tiers' if tiers is None else ', '.join(tiers)}: {', '.join(said) or 'no change'}"
