"""How far a fitted distribution is from the recorded one, and whether that is a bad fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, ks_2samp, norm, wasserstein_distance

from simulators.outcomes import FloatArray

LEVELS = np.concatenate([[0.005], np.linspace(0.01, 0.99, 99), [0.995]])
"""Where recorded and fitted quantiles are held against each other."""

BAD_P, BAD_ERROR = 0.01, 0.10


@dataclass(frozen=True, kw_only=True)
class Distance:
    """A recorded sample beside draws of what was fitted to it.

    Attributes:
        name: What is compared.
        unit: `tokens`, `s`, `tokens/s` or `USD`.
        n: Recorded values.
        recorded, fitted: `L` quantiles at `LEVELS`.
        recorded_figures, fitted_figures: `mean`, `p50` and `p95`.
        ks: Largest distance between the two distribution functions.
        p: P-value of that; too large where parameters were fitted to the same values, tiny where there are many.
        wasserstein: Mean distance of equal quantiles over the recorded mean.
        chance: 99 % intervals of the recorded `mean` and `p95` themselves.
    """

    name: str
    unit: str
    n: int
    recorded: FloatArray
    fitted: FloatArray
    recorded_figures: Mapping[str, float]
    fitted_figures: Mapping[str, float]
    ks: float
    p: float
    wasserstein: float
    chance: Mapping[str, tuple[float, float]]

    @property
    def errors(self) -> dict[str, float]:
        """Relative error of mean, p50 and p95."""
        return {
            name: self.fitted_figures[name] / value - 1.0 if value else np.nan
            for name, value in self.recorded_figures.items()
        }

    @property
    def degenerate(self) -> bool:
        """Whether one value was fitted: its KS distance from any spread is large and says nothing."""
        return bool(self.fitted[0] == self.fitted[-1])

    @property
    def bad(self) -> bool:
        """Whether the fit is more than 10 % off, and more than chance.

        Off: the mean or the p95, beyond the 99 % interval of the recorded one; or, where the KS distance has p below
        0.01, the mean, the p95 or equal quantiles on average.
        """
        off = [name for name in ("mean", "p95") if abs(self.errors[name]) > BAD_ERROR]
        beyond = [n for n in off if not self.chance[n][0] <= self.fitted_figures[n] <= self.chance[n][1]]
        return bool(beyond or (self.p < BAD_P and (off or self.wasserstein > BAD_ERROR)))


def compare(name: str, unit: str, recorded: FloatArray, fitted: FloatArray) -> Distance:
    """The distance of `fitted: M` draws from `recorded: N` values; both need one finite value at least."""
    recorded, fitted = recorded[np.isfinite(recorded)], fitted[np.isfinite(fitted)]
    test = ks_2samp(recorded, fitted, method="asymp")
    mean = float(recorded.mean())
    return Distance(
        name=name,
        unit=unit,
        n=len(recorded),
        recorded=np.quantile(recorded, LEVELS),
        fitted=np.quantile(fitted, LEVELS),
        recorded_figures=_figures(recorded),
        fitted_figures=_figures(fitted),
        ks=float(test.statistic),
        p=float(test.pvalue),
        wasserstein=float(wasserstein_distance(recorded, fitted)) / mean if mean else np.nan,
        chance={"mean": _mean_interval(recorded), "p95": _p95_interval(recorded)},
    )


def _mean_interval(values: FloatArray) -> tuple[float, float]:
    half = float(norm.isf(BAD_P / 2) * values.std() / np.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half


def _p95_interval(values: FloatArray) -> tuple[float, float]:
    """Order statistics that enclose the 95 % quantile with 99 % probability; without bound where there are too few."""
    low, high = (int(binom.ppf(p, len(values), 0.95)) for p in (BAD_P / 2, 1 - BAD_P / 2))
    ordered = np.sort(values)
    return float(ordered[max(low - 1, 0)]), float(ordered[high]) if high < len(values) else np.inf


def _figures(values: FloatArray) -> dict[str, float]:
    p50, p95 = np.quantile(values, [0.5, 0.95])
    return {"mean": float(values.mean()), "p50": float(p50), "p95": float(p95)}
