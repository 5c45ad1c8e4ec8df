"""The fitted scenario, drawn and held against what it was fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.calibrate_data import Recorded
from experiments.calibrate_settings import CalibrateSettings
from experiments.calibrate_times import TierTimes
from simulators.calibration import recorded_means
from simulators.calibration_distance import Distance, compare
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.scenario import ScenarioSpec, sample_scenario
from simulators.seeds import spawn_rng

_FEWEST = 10
_TIMES_DRAWN = 20_000
_RECORDED = {
    "cost_usd": ("cost", "USD"),
    "latency_s": ("latency", "s"),
    "ttft_s": ("recorded time to first token", "s"),
}


def draw_check(spec: ScenarioSpec, recorded: Recorded, settings: CalibrateSettings) -> OutcomeTable:
    """Outcomes of the fitted scenario, tiers in the recording's order."""
    rng = spawn_rng(settings.seed, "calibrate", "check")
    drawn = sample_scenario(spec, n_queries=settings.check_queries, rng=rng)
    order: IntArray = np.array([drawn.tiers.index(tier) for tier in recorded.table.tiers], dtype=np.int64)
    return drawn.take_tiers(order)


def tier_rows(recorded: OutcomeTable, drawn: OutcomeTable) -> list[dict[str, Any]]:
    """Means and latency quantiles per tier, recorded beside simulated; None where the recording has none.

    Answers with an error are in none of them.
    """
    rows = []
    for k, tier in enumerate(recorded.tiers):
        rows.append(
            {
                "tier": tier,
                "quality": _pair(recorded.quality[~recorded.error[:, k], k].mean(), drawn.quality[:, k].mean()),
                "cost_usd": _pair(_mean(recorded.cost_usd[:, k]), drawn.cost_usd[:, k].mean()),
                "output_tokens": _pair(_mean(recorded.output_tokens[:, k]), drawn.output_tokens[:, k].mean()),
                "latency_p50_s": _pair(
                    _quantile(recorded.latency_s[:, k], 0.5), np.quantile(drawn.latency_s[:, k], 0.5)
                ),
                "latency_p95_s": _pair(
                    _quantile(recorded.latency_s[:, k], 0.95), np.quantile(drawn.latency_s[:, k], 0.95)
                ),
            }
        )
    return rows


def _pair(recorded: float, simulated: float) -> dict[str, float | None]:
    known = bool(np.isfinite(recorded))
    return {
        "recorded": float(recorded) if known else None,
        "simulated": float(simulated),
        "relative_error": float(simulated / recorded - 1.0) if known and recorded else None,
    }


def _mean(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan


def _quantile(values: FloatArray, level: float) -> float:
    known = values[np.isfinite(values)]
    return float(np.quantile(known, level)) if len(known) else np.nan


def slice_rows(recorded: OutcomeTable, fitted: FloatArray, additive: FloatArray, z: FloatArray) -> list[dict[str, Any]]:
    """Quality per tier and slice: recorded, fitted, without shifts."""
    means = recorded_means(recorded)
    rows = []
    for s, name in enumerate(recorded.slices):
        for k, tier in enumerate(recorded.tiers):
            quality = recorded.quality[(recorded.slice_code == s) & ~recorded.error[:, k], k]
            rows.append(
                {
                    "slice": name,
                    "tier": tier,
                    "n": len(quality),
                    "recorded": float(means[s, k]),
                    "se": float(quality.std(ddof=1) / np.sqrt(len(quality))),
                    "fitted": float(fitted[s, k]),
                    "without_shift": float(additive[s, k]),
                    "shift_z": None if np.isnan(z[s, k]) else float(z[s, k]),
                }
            )
    return rows


def distances(
    recorded: Recorded, drawn: OutcomeTable, times: list[TierTimes], settings: CalibrateSettings
) -> dict[str, list[Distance]]:
    """By group: tokens per slice; cost, latency and TTFT of the answers and times of the latency file per tier."""
    table = recorded.table
    found: dict[str, list[Distance]] = {"input tokens": [], "output tokens": []}
    if recorded.reference is not None and settings.lengths != "trace":
        for side, tokens in zip(("input", "output"), recorded.reference_tokens(), strict=True):
            found[f"{side} tokens"] = _by_slice(
                recorded, drawn, tokens, getattr(drawn, f"{side}_tokens")[:, recorded.reference]
            )
    for k, tier in enumerate(table.tiers):
        rng = spawn_rng(settings.seed, "calibrate", "times", tier)
        _times_of(found, tier, times[k], rng)
        for name, (group, unit) in _RECORDED.items():
            values = getattr(table, name)[:, k]
            if (np.isfinite(values) & (values > 0)).sum() >= _FEWEST:
                found.setdefault(group, []).append(compare(tier, unit, values, getattr(drawn, name)[:, k]))
    return {name: rows for name, rows in found.items() if rows}


def _by_slice(recorded: Recorded, drawn: OutcomeTable, tokens: FloatArray, fitted: FloatArray) -> list[Distance]:
    table, rows = recorded.table, []
    for s, name in enumerate(table.slices):
        own, other = tokens[table.slice_code == s], fitted[drawn.slice_code == drawn.slices.index(name)]
        own = own[own > 0]
        if len(own) >= 2 and len(other):
            rows.append(compare(name, "tokens", own, other))
    return rows


def _times_of(found: dict[str, list[Distance]], tier: str, times: TierTimes, rng: np.random.Generator) -> None:
    """TTFT, speed and end-to-end time of the latency file, at the file's own lengths.

    Reasoning is not split off there, so such a tier has the end-to-end time alone.
    """
    measured, fit = times.measured, times.fit
    if measured is None or fit is None:
        return
    rows = rng.integers(0, len(measured.ttft_s), _TIMES_DRAWN)
    ttft_s = fit.ttft.median * np.exp(fit.ttft.sigma * rng.standard_normal(_TIMES_DRAWN))
    speed = fit.tokens_per_s * np.exp(fit.speed_sigma * rng.standard_normal(_TIMES_DRAWN))
    if not times.hidden:
        found.setdefault("time to first token", []).append(compare(tier, "s", measured.ttft_s, ttft_s))
        found.setdefault("decode speed", []).append(compare(tier, "tokens/s", measured.speed, speed))
    tokens = measured.output_tokens[rows]
    if np.isfinite(tokens).all():
        whole = compare(tier, "s", measured.latency_s, ttft_s + tokens / speed)
        found.setdefault("measured end-to-end time", []).append(whole)
