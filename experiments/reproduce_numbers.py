"""Figures of one method on one split, and their summary over splits.

References:
    [NadeauBengio2003] C. Nadeau, Y. Bengio, Inference for the generalization error, Machine Learning 52.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from experiments.reproduce_methods import part_of, requested_setting
from simulators.outcomes import FloatArray, IntArray
from toolkit.baselines.base import Routed, RouterRun
from toolkit.baselines.compliance import Calibration, MarginRule, Windows, assess, calibrate, comply, respond
from toolkit.baselines.equal_quality import cost_at_equal_quality

Numbers = dict[str, float]
_TRAIN_TEST_RATIO = 1.0
"""Held-out over tune queries of a split."""
THIRDS = ("economy", "standard", "premium")


def over_seeds(values: Sequence[float]) -> dict[str, float]:
    """Mean over splits with the corrected resampled t interval [NadeauBengio2003]_; NaN values are left out.

    The splits overlap, so the variance of their mean is taken as `1/R + n_held_out/n_tune` of theirs, not `1/R`.
    """
    known = np.array([v for v in values if v is not None and math.isfinite(v)])
    n = len(known)
    if n == 0:
        return {"mean": math.nan, "low": math.nan, "high": math.nan, "n": 0}
    half = math.nan
    if n > 1:
        half = float(stats.t.ppf(0.975, n - 1) * known.std(ddof=1) * math.sqrt(1 / n + _TRAIN_TEST_RATIO))
    mean = float(known.mean())
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def over_seeds_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`over_seeds` of every number in equal dictionaries, however nested; lists position by position."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        values = [row[name] for row in rows if name in row]
        if isinstance(values[0], dict):
            found[name] = over_seeds_of(values)
        elif isinstance(values[0], list):
            found[name] = [over_seeds(column)["mean"] for column in zip(*values, strict=True)]
        else:
            found[name] = over_seeds(values)
    return found


def as_requested(run: RouterRun, taus: FloatArray) -> Calibration:
    """The settings that were trained for these requests, uncalibrated: how the paper uses its policy."""
    rows = requested_setting(run, taus)
    nan = np.full(len(taus), np.nan)
    return Calibration(
        taus=taus,
        setting=rows.astype(np.int64),
        margin=nan,
        error=np.zeros(len(taus)),
        tune_quality=run.tune.mean_quality[rows],
        tune_cost_usd=run.tune.mean_cost_usd[rows],
    )


def compliance_numbers(run: RouterRun, calibration: Calibration, windows: Windows) -> dict[str, Any]:
    """Compliance and response of picked settings, and what the three thirds of the range got."""
    kept, response = comply(run, calibration, windows=windows), respond(run, calibration)
    ok = calibration.feasible
    rows = part_of(run, calibration.setting[ok])
    quality, cost = np.full(len(ok), np.nan), np.full(len(ok), np.nan)
    quality[ok], cost[ok] = rows.mean_quality, rows.mean_cost_usd
    return {
        "feasible": float(ok.mean()),
        "aggregate": kept.aggregate,
        "aggregate_by_chance": kept.aggregate_by_chance,
        "windowed": kept.windowed,
        "windowed_by_chance": kept.windowed_by_chance,
        "shortfall": kept.shortfall,
        "windowed_shortfall": kept.windowed_shortfall,
        "overshoot": kept.overshoot,
        "within_2": kept.within_2,
        "within_5": kept.within_5,
        "slope": response.slope,
        "quality_range": response.quality_range,
        "correlation_quality": response.correlation_quality,
        "cost_ratio": response.cost_ratio,
        "quality": _mean(quality),
        "cost_usd": _mean(cost),
        "tiers": _thirds(calibration.taus, quality, cost),
        "taus": calibration.taus.tolist(),
        "qualities": quality.tolist(),
        "costs_usd": cost.tolist(),
    }


def _thirds(taus: FloatArray, quality: FloatArray, cost: FloatArray) -> dict[str, Any]:
    """Accuracy, cost and floor of each third of the requested range."""
    third = np.minimum((3 * np.arange(len(taus))) // len(taus), 2)
    return {
        name: {
            "tau": _mean(taus[(third == i) & np.isfinite(quality)]),
            "quality": _mean(quality[third == i]),
            "cost_usd": _mean(cost[third == i]),
        }
        for i, name in enumerate(THIRDS)
    }


def _mean(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def mu_numbers(run: RouterRun, mu: Sequence[float], taus: FloatArray) -> Numbers:
    """How the mean of mu follows the request: correlation, slope and range."""
    values = np.array(mu)[requested_setting(run, taus)]
    moved = np.ptp(values)
    centred = taus - taus.mean()
    return {
        "correlation_mu": float(np.corrcoef(taus, values)[0, 1]) if moved > 1e-12 and np.ptp(taus) > 0 else math.nan,
        "slope_mu": float(centred @ values / (centred @ centred)) if np.ptp(taus) > 0 else math.nan,
        "range_mu": float(moved),
    }


def equal_compliance(
    run: RouterRun, reference: RouterRun, taus: FloatArray, *, rule: MarginRule, group: IntArray
) -> Numbers:
    """Cost over that of the reference: both calibrated by the rule, and at the held-out qualities of the reference."""
    mine, theirs = (assess(r, taus, rule=rule, group=group) for r in (run, reference))
    both = np.isfinite(mine.cost_usd) & np.isfinite(theirs.cost_usd)
    ratio = mine.cost_usd[both] / theirs.cost_usd[both]
    equal = cost_at_equal_quality(run, reference, theirs.quality)
    return {
        "calibrated_cost": float(ratio.mean()) if both.any() else math.nan,
        "calibrated_quality": _mean(mine.quality[both] - theirs.quality[both]),
        "equal_quality_cost": equal.ratio,
        "n_compared": float(equal.n_compared),
    }


def best_setting(run: RouterRun) -> tuple[float, float]:
    """Held-out quality and cost of the setting that is best on tune."""
    row = int(run.tune.mean_quality.argmax())
    return float(run.held_out.mean_quality[row]), float(run.held_out.mean_cost_usd[row])


def spread_over(run: RouterRun, taus: FloatArray, *, rule: MarginRule, group: IntArray) -> tuple[float, float]:
    """Held-out quality and cost, mean over requests; a request that is infeasible gets the best setting."""
    found = calibrate(run, taus, rule=rule, group=group)
    rows = np.where(found.feasible, found.setting, int(run.tune.mean_quality.argmax()))
    picked: Routed = part_of(run, rows)
    return float(picked.mean_quality.mean()), float(picked.mean_cost_usd.mean())
