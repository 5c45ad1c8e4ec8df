r"""Requested qualities: how a setting is picked for each, and how honestly it is then kept. One rule for all methods.

**Margin.** For a requested quality τ, the cheapest setting whose tune mean (out-of-fold) is at least τ + m, with

    m = z sqrt(s² / n_tune + s² / n_held_out),

s the standard deviation of the setting's own quality and z the normal quantile of a one-sided level. It covers the
error of the tune mean and that of the mean it will be judged by, not that the cheapest of many settings was picked. τ
for which no setting qualifies are *infeasible*: reported apart, never met and never missed.

**By chance.** What sampling error alone would give if the tune figures were the truth: beside an observed compliance,
so that a window of 200 queries is not blamed for being short.

Notation: T requested qualities, n settings, N held-out queries, W windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray
from simulators.seeds import spawn_rng
from toolkit.baselines.base import RouterRun

_ROUNDING = 1e-12
_RESAMPLES = 1_000


@dataclass(frozen=True, kw_only=True)
class MarginRule:
    """How far above a requested quality the tune mean must lie.

    Attributes:
        level: One-sided, in [0.5, 1); None for no margin.
    """

    level: float | None = 0.95

    def __post_init__(self) -> None:
        if self.level is not None and not 0.5 <= self.level < 1.0:
            raise ConfigError(f"the level of a margin must lie in [0.5, 1), or be None; got {self.level:g}")

    @property
    def z(self) -> float:
        """Standard errors."""
        return 0.0 if self.level is None else float(special.ndtri(self.level))


@dataclass(frozen=True, kw_only=True)
class Windows:
    """How held-out queries are cut into windows.

    Attributes:
        size: Queries per window; an incomplete last window is left out.
        orders: Random orders of the queries.
        seed: Of the orders and of what chance would do.
    """

    size: int = 200
    orders: int = 20
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The settings picked for T requested qualities, on tune data.

    Attributes:
        taus: `T` requested qualities.
        setting: `T` rows of the run; -1 where infeasible.
        margin: `T` margin of the picked setting; NaN where infeasible.
        error: `T` standard error of the difference between its tune and its held-out mean; NaN where infeasible.
        tune_quality: `T` its tune mean; NaN where infeasible.
        tune_cost_usd: `T`; NaN where infeasible or unknown.
    """

    taus: FloatArray
    setting: IntArray
    margin: FloatArray
    error: FloatArray
    tune_quality: FloatArray
    tune_cost_usd: FloatArray

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """`T`."""
        return self.setting >= 0


def calibrate(run: RouterRun, taus: FloatArray, *, rule: MarginRule, group: IntArray | None = None) -> Calibration:
    """Pick a setting per requested quality; of the held-out queries only their number is looked at.

    Args:
        run: The run.
        taus: `T` requested qualities.
        rule: The margin.
        group: Codes of tune queries that depend on each other (`OutcomeTable.cluster_code`); None if none do.
    """
    quality, cost = run.tune.mean_quality, run.tune.mean_cost_usd
    error = _spread(run.tune.quality, group) * np.sqrt(
        1 / run.tune.quality.shape[1] + 1 / run.held_out.quality.shape[1]
    )
    margin = rule.z * error
    price = cost if run.tune.has_cost else np.arange(len(quality), dtype=np.float64)
    enough = quality - margin >= taus[:, None] - _ROUNDING
    setting = np.where(enough.any(axis=1), np.where(enough, price, np.inf).argmin(axis=1), -1)
    return Calibration(
        taus=np.asarray(taus, dtype=np.float64),
        setting=setting,
        **{
            name: np.where(setting >= 0, values[setting], np.nan)
            for name, values in (
                *(("margin", margin), ("error", error)),
                *(("tune_quality", quality), ("tune_cost_usd", cost)),
            )
        },
    )


def _spread(values: FloatArray, group: IntArray | None) -> FloatArray:
    """`n` standard deviations of one of the N values in each row, dependence within groups included."""
    deviation = values - values.mean(axis=1, keepdims=True)
    n = values.shape[1]
    if group is not None:
        code = np.unique(group, return_inverse=True)[1]
        member = sparse.csr_matrix((np.ones(n), (np.arange(n), code)))
        deviation = np.asarray(deviation @ member)
    groups = deviation.shape[1]
    return np.asarray(np.sqrt((deviation**2).sum(axis=1) / n * groups / max(groups - 1, 1)))


@dataclass(frozen=True, kw_only=True)
class Compliance:
    """How requested qualities were kept on held-out queries; shares and means are over the feasible ones.

    Attributes:
        n_levels: T.
        n_feasible: How many of them could be asked for; the rest is in no figure below, and all are NaN if none could.
        aggregate: Share whose held-out mean is at least τ.
        aggregate_by_chance: The same, expected from sampling error alone if tune means were true up to their own error.
        windowed: Share of windows whose mean is at least τ, mean over orders; NaN where queries fill no window.
        windowed_by_chance: The same for independent windows of these answers if the tune mean were the true one.
        windowed_at_level: The same for answers whose true mean is exactly τ: about a half, whatever is done.
        window_error: Standard error of a window's mean.
        shortfall: Mean of `max(0, τ - held-out mean)`.
        windowed_shortfall: Mean of `max(0, τ - mean)` over windows and orders.
        overshoot: Mean of `max(0, held-out mean - τ)`.
        within_2: Share with a held-out mean within 0.02 of τ, on either side.
        within_5: The same for 0.05.
        n_windows: W of each order.
    """

    n_levels: int
    n_feasible: int
    aggregate: float
    aggregate_by_chance: float
    windowed: float
    windowed_by_chance: float
    windowed_at_level: float
    window_error: float
    shortfall: float
    windowed_shortfall: float
    overshoot: float
    within_2: float
    within_5: float
    n_windows: int


def comply(run: RouterRun, calibration: Calibration, *, windows: Windows | None = None) -> Compliance:
    """Compliance of the picked settings on the held-out queries."""
    windows = Windows() if windows is None else windows
    ok = calibration.feasible
    taus = calibration.taus[ok]
    quality = run.held_out.quality[calibration.setting[ok]]
    means = quality.mean(axis=1)
    n_windows = quality.shape[1] // windows.size
    in_windows = _window_means(quality, windows, n_windows) - taus[:, None]
    room = calibration.tune_quality[ok] - taus
    return Compliance(
        n_levels=len(ok),
        n_feasible=int(ok.sum()),
        aggregate=_mean(_reached(means - taus)),
        aggregate_by_chance=_mean(_normal(room, calibration.error[ok])),
        windowed=_mean(_reached(in_windows)),
        windowed_by_chance=_by_chance(quality, room, windows) if n_windows else np.nan,
        windowed_at_level=_by_chance(quality, np.zeros(len(taus)), windows) if n_windows else np.nan,
        window_error=_mean(_spread(quality, None) / np.sqrt(windows.size)),
        shortfall=_mean(np.maximum(taus - means, 0.0)),
        windowed_shortfall=_mean(np.maximum(-in_windows, 0.0)),
        overshoot=_mean(np.maximum(means - taus, 0.0)),
        within_2=_mean(np.abs(means - taus) <= 0.02 + _ROUNDING),
        within_5=_mean(np.abs(means - taus) <= 0.05 + _ROUNDING),
        n_windows=n_windows,
    )


def _reached(distance: FloatArray) -> NDArray[np.bool_]:
    return np.asarray(distance >= -_ROUNDING)


def _mean(values: FloatArray | NDArray[np.bool_]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _normal(room: FloatArray, error: FloatArray) -> FloatArray:
    """`T` probabilities that a mean with this room and error stays at or above its level."""
    steps = np.divide(room, error, out=np.where(room >= 0, np.inf, -np.inf), where=error > 0)
    return np.asarray(special.ndtr(steps))


def _window_means(quality: FloatArray, windows: Windows, n_windows: int) -> FloatArray:
    """`T x (orders * W)` means of consecutive windows in random orders, the same for all T."""
    rng = spawn_rng(windows.seed, "windows")
    shape = (len(quality), n_windows, windows.size)
    orders = [rng.permutation(quality.shape[1])[: n_windows * windows.size] for _ in range(windows.orders)]
    return np.concatenate([quality[:, rows].reshape(shape).mean(axis=2) for rows in orders], axis=1)


def _by_chance(quality: FloatArray, room: FloatArray, windows: Windows) -> float:
    """Share of independent windows of these answers, shifted to a mean of τ + room, that reach τ."""
    rng = spawn_rng(windows.seed, "chance")
    rows = rng.integers(quality.shape[1], size=(_RESAMPLES, windows.size))
    shares = [
        _mean(_reached(answers[rows].mean(axis=1) - answers.mean() + extra))
        for answers, extra in zip(quality, room, strict=True)
    ]
    return float(np.mean(shares)) if shares else float("nan")


@dataclass(frozen=True, kw_only=True)
class Response:
    """What asking for more brings, over the feasible requested qualities.

    Attributes:
        slope: Least-squares slope of held-out quality on τ: 1 where every point asked for is a point gained.
        quality_range: Largest minus smallest held-out quality.
        tau_range: Largest minus smallest feasible τ.
        correlation_knob: Pearson, knob and τ. Blind to scale: 1 even where the knob barely moves.
        correlation_quality: Pearson, held-out quality and τ. Blind to scale too.
        cost_ratio: Largest over smallest held-out mean cost.
    """

    slope: float
    quality_range: float
    tau_range: float
    correlation_knob: float
    correlation_quality: float
    cost_ratio: float


def respond(run: RouterRun, calibration: Calibration) -> Response:
    """Response of the picked settings; NaN where there is too little to tell."""
    ok = calibration.feasible
    taus, picked = calibration.taus[ok], calibration.setting[ok]
    quality, cost = run.held_out.mean_quality[picked], run.held_out.mean_cost_usd[picked]
    spread = np.ptp(taus) if len(taus) else np.nan
    centred = taus - taus.mean() if len(taus) else taus
    return Response(
        slope=float(centred @ (quality - quality[0]) / (centred @ centred)) if spread > 0 else np.nan,
        quality_range=float(np.ptp(quality)) if len(taus) else np.nan,
        tau_range=float(spread),
        correlation_knob=_pearson(run.settings[picked], taus),
        correlation_quality=_pearson(quality, taus),
        cost_ratio=float(cost.max() / cost.min()) if len(taus) and cost.min() > 0 else np.nan,
    )


def _pearson(a: FloatArray, b: FloatArray) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """One method against T requested qualities.

    Attributes:
        calibration: What was picked on tune.
        compliance: How it was kept.
        response: What asking for more brought.
        quality: `T` held-out means; NaN where infeasible.
        cost_usd: `T` held-out means; NaN where infeasible or unknown.
    """

    calibration: Calibration
    compliance: Compliance
    response: Response
    quality: FloatArray
    cost_usd: FloatArray


def assess(
    run: RouterRun,
    taus: FloatArray,
    *,
    rule: MarginRule,
    windows: Windows | None = None,
    group: IntArray | None = None,
) -> Assessment:
    """`calibrate`, `comply` and `respond` in one; arguments as there."""
    calibration = calibrate(run, taus, rule=rule, group=group)
    picked, ok = calibration.setting, calibration.feasible
    return Assessment(
        calibration=calibration,
        compliance=comply(run, calibration, windows=windows),
        response=respond(run, calibration),
        quality=np.where(ok, run.held_out.mean_quality[picked], np.nan),
        cost_usd=np.where(ok, run.held_out.mean_cost_usd[picked], np.nan),
    )
