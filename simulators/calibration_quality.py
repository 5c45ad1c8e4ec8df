r"""Quality with shifts: where a tier is better or worse on a slice than capability minus difficulty can say.

Forward selection. After the additive fit, the cell (s, k) whose recorded mean lies farthest from the fitted one gets a
shift of its own and the rest is fitted again, until no cell stands out. The distance is that of the contrast between
tier k and the unshifted other tiers of the slice, so the slice's own difficulty cancels; with $r$ the residuals,

    $z_{sk} = (r_{sk} - \bar r_{s, -k}) / (\mathrm{se}_{sk} \sqrt{1 - w_s}), \quad
      \mathrm{se}_{sk}^2 = \mathrm{Var}_i(q_{ik} - \bar q_{i, -k}) / n_s$

over the queries that both sides answered without error (the capability was fitted to the slice too, hence
$1 - w_s$). A cell stands out if $|z|$ exceeds the two-sided 5 % point of the normal over all S K cells (Bonferroni).
Shifts are shrunken by $1 - 1 / z^2$: a cell was chosen because it stands out, so it tends to be overstated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from simulators.calibration import QualityFit, fit_quality, logistic_normal_moments, recorded_means
from simulators.outcomes import FloatArray, OutcomeTable

LEVEL = 0.05
"""Probability that an additive world gets any shift at all."""

_PSEUDO_QUERIES, _PSEUDO_VARIANCE = 2.0, 0.25


@dataclass(frozen=True, kw_only=True)
class ShiftedQuality:
    """An additive fit with the shifts that the data demand.

    Attributes:
        fit: The fit; `shift` is shrunken.
        z: `S x K`, distance of each shifted cell from the additive model when it was chosen, in s.e.; NaN elsewhere.
        critical: What `|z|` had to exceed.
        additive: Means of the model without any shift, `S x K`.
    """

    fit: QualityFit
    z: FloatArray
    critical: float
    additive: FloatArray


def fit_shifted_quality(table: OutcomeTable, *, level: float = LEVEL) -> ShiftedQuality:
    """Capability, difficulty and the significant shifts.

    Raises:
        InputDataError: As `fit_quality`.
    """
    recorded = recorded_means(table)
    s, k = recorded.shape
    critical = float(norm.isf(level / (2 * s * k)))
    shifted = np.zeros((s, k), dtype=np.bool_)
    z = np.full((s, k), np.nan)
    fit = fit_quality(table)
    additive = fit.mean_quality
    while True:
        found = np.where(_may_be_shifted(shifted), np.abs(_contrasts(table, recorded - fit.mean_quality, shifted)), 0.0)
        if not found.max() > critical:
            break
        at = s * k - 1 - int(np.argmax(found.ravel()[::-1]))  # of equals the last: of two tiers the dearer one
        z.ravel()[at], shifted.ravel()[at] = found.ravel()[at], True
        fit = fit_quality(table, shifted=shifted)
    return ShiftedQuality(fit=_shrunken(fit, z), z=z, critical=critical, additive=additive)


def _may_be_shifted(shifted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells whose shift leaves its slice and its tier another cell to be fitted by."""
    free = ~shifted
    return np.asarray(free & (free.sum(axis=1, keepdims=True) > 1) & (free.sum(axis=0, keepdims=True) > 1))


def _contrasts(table: OutcomeTable, residual: FloatArray, shifted: NDArray[np.bool_]) -> FloatArray:
    """`S x K` values of z; 0 where there is no other unshifted tier."""
    z = np.zeros(residual.shape)
    for s in range(len(residual)):
        rows = table.slice_code == s
        quality = np.ma.masked_array(table.quality[rows], mask=table.error[rows])
        weight = len(quality) / table.n_queries
        for k in range(residual.shape[1]):
            others = np.flatnonzero(~shifted[s] & (np.arange(residual.shape[1]) != k))
            if len(others) == 0 or weight == 1.0:
                continue
            contrast = (quality[:, k] - quality[:, others].mean(axis=1)).compressed()  # neither is an error
            n, spread = len(contrast), float(contrast.var()) if len(contrast) else 0.0
            variance = (n * spread + _PSEUDO_QUERIES * _PSEUDO_VARIANCE) / (n + _PSEUDO_QUERIES)
            distance = residual[s, k] - residual[s, others].mean()
            z[s, k] = distance / np.sqrt(variance / max(n, 1) * (1.0 - weight))
    return z


def _shrunken(fit: QualityFit, z: FloatArray) -> QualityFit:
    factor = np.where(np.isnan(z), 0.0, 1.0 - 1.0 / np.nan_to_num(z, nan=1.0) ** 2)
    shift = fit.shift * factor
    mean, _ = logistic_normal_moments(fit.capability, fit.difficulty, fit.difficulty_sd, shift)
    return replace(fit, mean_quality=mean, shift=shift)
