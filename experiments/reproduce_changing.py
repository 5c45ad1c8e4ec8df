"""A requested quality that changes from query to query: steps, drift, waves, peak hours.

Held-out queries are drawn with replacement in a seeded order; every method meets the same ones. A window is kept if its
mean quality is at least its mean request, as the paper counts.

Notation: Q queries, T requests of the calibrated grid, W rolling windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.outcomes import FloatArray
from simulators.seeds import spawn_rng
from toolkit.baselines.base import RouterRun
from toolkit.baselines.compliance import Calibration

SCHEDULES = ("step", "drift", "sinusoid", "peak")
_INSIDE = (0.1, 0.9)
_PEAKS = ((0.15, 0.3), (0.45, 0.6), (0.8, 0.95))


def schedule(name: str, n: int, low: float, high: float) -> FloatArray:
    """`n` requests between `low` and `high`.

    `step`: one step up half-way. `drift`: linear. `sinusoid`: two periods. `peak`: three peaks of 15 % of the queries.
    """
    at = (np.arange(n) + 0.5) / n
    if name == "step":
        shape = (at >= 0.5).astype(np.float64)
    elif name == "drift":
        shape = at
    elif name == "sinusoid":
        shape = 0.5 - 0.5 * np.cos(4.0 * np.pi * at)
    else:
        shape = np.zeros(n)
        for first, last in _PEAKS:
            shape[(at >= first) & (at < last)] = 1.0
    return np.asarray(low + (high - low) * shape)


def inside(low: float, high: float) -> tuple[float, float]:
    """The middle four fifths of a range."""
    return low + _INSIDE[0] * (high - low), low + _INSIDE[1] * (high - low)


@dataclass(frozen=True, kw_only=True)
class Served:
    """What Q queries got.

    Attributes:
        tau, quality, cost_usd: `Q` each.
        infeasible: Share of the queries whose request was out of reach and that got the best setting.
    """

    tau: FloatArray
    quality: FloatArray
    cost_usd: FloatArray
    infeasible: float


def serve(run: RouterRun, calibration: Calibration, tau: FloatArray, *, seed: int) -> Served:
    """Serve held-out queries; a request gets the setting of the next higher level of the calibrated grid.

    Args:
        run: The method.
        calibration: Its settings for a grid of requests, ascending.
        tau: `Q` requests.
        seed: Of the order of the queries.
    """
    rows = spawn_rng(seed, "changing").integers(run.held_out.quality.shape[1], size=len(tau))
    level = np.searchsorted(calibration.taus, tau - 1e-9)
    beyond = level >= len(calibration.taus)
    setting = calibration.setting[np.minimum(level, len(calibration.taus) - 1)]
    infeasible = beyond | (setting < 0)
    setting = np.where(infeasible, int(run.tune.mean_quality.argmax()), setting)
    return Served(
        tau=tau,
        quality=run.held_out.quality[setting, rows],
        cost_usd=run.held_out.cost_usd[setting, rows],
        infeasible=float(infeasible.mean()),
    )


def rolling(values: FloatArray, size: int) -> FloatArray:
    """`W` means of every `size` consecutive values."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    size = min(size, len(values))
    return np.asarray((total[size:] - total[:-size]) / size)


def judge(served: Served, *, window: int) -> dict[str, float]:
    """Share of rolling windows that were kept, how far quality lay above the request, shortfall, cost."""
    gap = rolling(served.quality, window) - rolling(served.tau, window)
    return {
        "kept": float((gap >= -1e-12).mean()),
        "overshoot": float(served.quality.mean() - served.tau.mean()),
        "shortfall": float(np.maximum(-gap, 0.0).mean()),
        "cost_usd": float(served.cost_usd.mean()),
        "infeasible": served.infeasible,
    }
