"""Is the score any good? Asked before the search, of scores and recorded answers alone.

For each step between tiers, "the dearer answer is better" is a yes or no per query, and a score should say which: AUC
and average precision tell how well it ranks, calibration what its values mean. Then what no threshold can mend:
queries without a score, or with one that many others share. Last the best policy that the score allows at all.

Whatever is fitted or picked here is so on the tune split, from out-of-fold scores, and judged on the validation split.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulators.outcomes import FloatArray, OutcomeTable
from toolkit.certify.discrimination import auc_interval, average_precision_interval
from toolkit.certify.hindsight import SupportedThresholds, best_at_cost, mean_figures
from toolkit.certify.intervals import DIFFERENCE, UNKNOWN, Interval, mean_interval, zero_difference
from toolkit.certify.reliability import BINS, Reliability, equal_mass_bins, reliability
from toolkit.evaluation.thresholds import ScoreOrder
from toolkit.families.base import Family
from toolkit.families.thresholds import ThresholdFamily
from toolkit.families.utility import UtilityFamily
from toolkit.policies.lanes import Lanes
from toolkit.scorers.base import ScoreTable
from toolkit.scorers.calibrated import better_by, fit_calibrator, upgrade_tier
from toolkit.zero_router import ZeroRouter, zero_router_of

METHODS = ("platt", "isotonic")
_NOTHING = 1e-12


@dataclass(frozen=True, kw_only=True)
class StepDiagnostics:
    """One step from a tier to a dearer one.

    Attributes:
        low, high: The two tiers.
        n: Validation queries with a score.
        better: Share of them where `high` answers better by more than the margin: the base rate.
        worse: Share of them where it answers worse by more than the margin.
        auc: Area under the ROC curve; NaN for the reason given.
        average_precision: Average precision; for a coin it is the base rate.
        calibration: One per method, or empty for the reason given.
        reason: Why figures are missing, or empty.
    """

    low: str
    high: str
    n: int
    better: float
    worse: float
    auc: Interval
    average_precision: Interval
    calibration: tuple[Reliability, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Signal:
    """What no boundary can tell apart.

    Attributes:
        n: Validation queries.
        missing_share: Share of them without a usable score.
        n_distinct: Distinct scores.
        common_score: The most common one; NaN where there is none.
        common_share: Share of the queries that have it.
    """

    n: int
    missing_share: float
    n_distinct: int
    common_score: float
    common_share: float


@dataclass(frozen=True, kw_only=True)
class BestGain:
    """The best that policies on this score gain over not looking at prompts.

    Attributes:
        policy: `thresholds` or `utility`.
        over: `zero router` (at equal cost), or `best single tier` where costs are unknown.
        params: Name -> value of the policy that gained most on the tune split.
        tune: Its gain there, where it was picked.
        validate: Its gain on the validation split: an honest estimate.
        cost_usd: Its mean cost on the validation split; NaN where unknown.
        oracle: What a perfect score could gain there at the same cost (with hindsight, so noise of labels is in it).
        oracle_at_any_cost: What it could gain over the best single tier of that split if costs did not matter.
    """

    policy: str
    over: str
    params: dict[str, float]
    tune: float
    validate: Interval
    cost_usd: float
    oracle: float
    oracle_at_any_cost: float


@dataclass(frozen=True, kw_only=True)
class Band:
    """Validation queries of about equal score.

    Attributes:
        n: Queries.
        low, high: Their smallest and largest score.
        quality: `K` mean quality of each tier on them.
    """

    n: int
    low: float
    high: float
    quality: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """Everything that can be said of a score before a search.

    Attributes:
        tiers: K names, cheapest first.
        margin: Gain in quality that counts as better.
        n_tune: Queries that calibrators and the best policy were fitted on.
        upgrade: The best single tier on the tune split, or the best of the others where that is the cheapest.
        cheapest_is_best: Whether the cheapest tier is also the best single one on the tune split.
        steps: Neighbouring tiers, then the cheapest and `upgrade` where these are not neighbours.
        signal: What cannot be told apart.
        bands: Each tier's quality along the score.
        gain: The best policy.
    """

    tiers: tuple[str, ...]
    margin: float
    n_tune: int
    upgrade: str
    cheapest_is_best: bool
    steps: tuple[StepDiagnostics, ...]
    signal: Signal
    bands: tuple[Band, ...]
    gain: BestGain

    @property
    def main(self) -> StepDiagnostics:
        """The step from the cheapest tier to `upgrade`."""
        return next(s for s in self.steps if (s.low, s.high) == (self.tiers[0], self.upgrade))

    def as_dict(self) -> dict[str, Any]:
        """Plain containers; NaN stays NaN."""
        return dataclasses.asdict(self)


def diagnose(
    tune: OutcomeTable,
    validate: OutcomeTable,
    *,
    family: Family,
    validate_family: Family,
    margin: float,
    rng: np.random.Generator,
) -> Diagnostics:
    """Diagnose the score of a family of thresholds or utilities.

    Args:
        tune: The tune split.
        validate: The validation split.
        family: Bound to out-of-fold scores of `tune`.
        validate_family: Bound to scores of `validate` by a scorer fitted on `tune`.
        margin: Gain in quality that counts as better, in [0, 1).
        rng: Source of the resamples.
    """
    upgrade = upgrade_tier(tune)
    pairs = [(k, k + 1) for k in range(tune.n_tiers - 1)]
    pairs += [(0, upgrade)] if upgrade > 1 else []
    scores, validate_scores = family.scores.score, validate_family.scores.score
    return Diagnostics(
        tiers=tune.tiers,
        margin=margin,
        n_tune=tune.n_queries,
        upgrade=tune.tiers[upgrade],
        cheapest_is_best=int(np.argmax(tune.quality.mean(axis=0))) == 0,
        steps=tuple(_step(tune, scores, validate, validate_scores, a, b, margin, rng) for a, b in pairs),
        signal=signal_of(validate_scores),
        bands=_bands(validate, validate_scores),
        gain=best_gain(tune, validate, family, validate_family),
    )


def _step(
    tune: OutcomeTable,
    score: FloatArray,
    validate: OutcomeTable,
    validate_score: FloatArray,
    low: int,
    high: int,
    margin: float,
    rng: np.random.Generator,
) -> StepDiagnostics:
    rows = np.flatnonzero(np.isfinite(validate_score))
    x, group = validate_score[rows], validate.cluster_code[rows]
    label = better_by(validate, low, high, margin)[rows]
    fitted = better_by(tune, low, high, margin)
    usable = np.isfinite(score)
    calibration: list[Reliability] = []
    if len(rows) and usable.any():
        for method in METHODS:
            probability = fit_calibrator(method, score, fitted).predict(x)
            base_rate = float(fitted[usable].mean())
            calibration.append(reliability(method, probability, label, group, base_rate=base_rate))
    one_kind = bool(label.all() or not label.any())
    return StepDiagnostics(
        low=validate.tiers[low],
        high=validate.tiers[high],
        n=len(rows),
        better=float(label.mean()) if len(rows) else np.nan,
        worse=float(better_by(validate, high, low, margin)[rows].mean()) if len(rows) else np.nan,
        auc=UNKNOWN if one_kind else auc_interval(x, label, group),
        average_precision=UNKNOWN if one_kind else average_precision_interval(x, label, group, rng),
        calibration=tuple(calibration),
        reason=_reason(len(rows), bool(label.any()), one_kind),
    )


def _reason(n: int, some_better: bool, one_kind: bool) -> str:
    if n == 0:
        return "no query of the validation split has a usable score"
    if not one_kind:
        return ""
    return "the dearer tier is better on every query" if some_better else "the dearer tier is better on no query"


def signal_of(score: FloatArray) -> Signal:
    """Missing and shared scores (`score: N`); scores that differ in their last bits only count as one."""
    order = ScoreOrder(ScoreTable(score=score), Lanes(fallback_tier=0, low_confidence_tier=0))
    counts = np.diff(order.positions)
    if not len(order.order):
        return Signal(n=len(score), missing_share=1.0, n_distinct=0, common_score=np.nan, common_share=0.0)
    most = int(np.argmax(counts))
    return Signal(
        n=len(score),
        missing_share=1.0 - len(order.order) / len(score),
        n_distinct=len(counts),
        common_score=float(order.sorted_scores[order.positions[most]]),
        common_share=float(counts[most]) / len(score),
    )


def _bands(validate: OutcomeTable, score: FloatArray) -> tuple[Band, ...]:
    rows = np.flatnonzero(np.isfinite(score))
    if len(rows) == 0:
        return ()
    code = equal_mass_bins(score[rows], BINS)
    members = [rows[code == b] for b in range(int(code.max()) + 1)]
    return tuple(
        Band(
            n=len(m),
            low=float(score[m].min()),
            high=float(score[m].max()),
            quality=tuple(validate.quality[m].mean(axis=0).tolist()),
        )
        for m in members
    )


def best_gain(tune: OutcomeTable, validate: OutcomeTable, family: Family, validate_family: Family) -> BestGain:
    """Pick the policy that gains most on `tune`, and see what it gains on `validate`.

    Over the Zero router the gain of a policy of mean quality q and cost c is `max_i (q - s_i c - a_i)` over the lines
    `a_i + s_i c` of the hull's edges, so the best policies for the prices `s_i` hold the best of the class: all
    boundaries are covered, whatever the number of tiers.
    """
    single = tune.quality.mean(axis=0)
    hull = zero_router_of(tune) if tune.has_cost else None
    params = _contenders(tune, family, hull)
    quality, cost = mean_figures(tune, family, params)
    reference = np.interp(cost, hull.cost_usd, hull.quality) if hull is not None else np.full(len(params), single.max())
    picked = int(np.argmax(quality - reference))
    tier = np.asarray(validate_family.assign(params[[picked]])[0], dtype=np.int64)
    rows = np.arange(validate.n_queries)
    validate_cost = float(validate.cost_usd[rows, tier].mean()) if hull is not None else np.nan
    best = best_at_cost(validate.quality, validate.cost_usd, rows, None if hull is None else validate_cost)
    if hull is not None:
        gain, zero = zero_difference(validate, tier), zero_router_of(validate).quality_at(validate_cost)
    else:
        at = int(np.argmax(single))
        difference = validate.quality[rows, tier] - validate.quality[:, at]
        gain = mean_interval(difference, validate.cluster_code, bounds=DIFFERENCE)
        zero = float(validate.quality[:, at].mean())
    return BestGain(
        policy="utility" if isinstance(family, UtilityFamily) else "thresholds",
        over="zero router" if hull is not None else "best single tier",
        params=dict(zip(family.parameter_names, params[picked].tolist(), strict=True)),
        tune=float((quality - reference)[picked]),
        validate=gain,
        cost_usd=validate_cost,
        oracle=_above(best.quality, zero),
        oracle_at_any_cost=float(validate.quality.max(axis=1).mean() - validate.quality.mean(axis=0).max()),
    )


def _above(quality: float, reference: float) -> float:
    """What hindsight adds; it cannot lose, rounding aside."""
    return quality - reference if quality - reference > _NOTHING else 0.0


def _contenders(tune: OutcomeTable, family: Family, hull: ZeroRouter | None) -> FloatArray:
    """Policies among which the best of the class is; a family beyond thresholds and utilities offers its corners."""
    if isinstance(family, UtilityFamily):
        lambdas = family.path.lambdas
        return np.concatenate([lambdas[:, None], np.zeros((len(lambdas), tune.n_tiers - 1))], axis=1)
    if not isinstance(family, ThresholdFamily):
        return family.corners()
    slopes = [0.0] if hull is None else [0.0, *(np.diff(hull.quality) / np.diff(hull.cost_usd)).tolist()]
    supported = SupportedThresholds(tune, family.order)
    return np.unique(np.array([supported.best(slope) for slope in slopes]), axis=0)
