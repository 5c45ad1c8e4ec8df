"""From a score to a probability, and from that to a confidence.

A calibrator maps one score to the probability of a label: Platt's logistic curve, or the best non-decreasing step
function (isotonic). `CalibratedScorer` puts one behind any scorer: with p the probability that the step from the
cheapest tier to the best other one gives a better answer, its confidence is `max(p, 1 - p)`, so that
`policy.confidence_floor` works with scores that state no confidence of their own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, OutcomeTable, QueryBatch
from simulators.seeds import spawn_rng
from toolkit.scorers.base import FittedScorer, Scorer, ScoreTable, cross_fit

_FARTHEST = 50.0
"""Scores farther from the median than this many scales count as that far while a slope is fitted."""
_LARGEST, _SMALLEST_SCALE = 1e300, 1e-300
_PENALTY = 0.01


@dataclass(frozen=True, kw_only=True)
class PlattCalibrator:
    """`p = 1 / (1 + exp(-(slope * score + intercept)))`; falling where the score points the wrong way.

    Attributes:
        slope: Change of the log-odds per unit of score.
        intercept: Log-odds at score 0.
    """

    slope: float
    intercept: float
    method: ClassVar[str] = "platt"

    @staticmethod
    def fit(score: FloatArray, label: NDArray[np.bool_]) -> PlattCalibrator:
        """Logistic regression on the score.

        Labels are smoothed as by Platt (1999), to `(n_1 + 1) / (n_1 + 2)` and `1 / (n_0 + 2)`, so that separable labels
        and labels of one kind give finite numbers. The slope, per median distance from the median score, carries a
        light quadratic penalty.

        Args:
            score: `n`; those that are not finite are left out.
            label: `n`.

        Raises:
            ConfigError: If no score is finite.
        """
        x, y = _usable(score, label)
        x = np.clip(x, -_LARGEST, _LARGEST)
        centre = float(np.median(x))
        away = np.abs(x - centre)
        scale = max(float(np.median(away[away > 0])), _SMALLEST_SCALE) if away.any() else 1.0
        with np.errstate(over="ignore"):
            z = np.clip((x - centre) / scale, -_FARTHEST, _FARTHEST)
        n1, n0 = int(y.sum()), int((~y).sum())
        target = np.where(y, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))

        def loss(w: FloatArray) -> tuple[float, FloatArray]:
            u = w[0] * z + w[1]
            residual = special.expit(u) - target
            value = float((np.logaddexp(0.0, u) - target * u).sum() + _PENALTY * w[0] ** 2 / 2)
            return value / len(z), np.array([residual @ z + _PENALTY * w[0], residual.sum()]) / len(z)

        start = np.array([0.0, special.logit(target.mean())])
        slope, level = optimize.minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9}).x
        return PlattCalibrator(slope=float(slope / scale), intercept=float(level - slope * (centre / scale)))

    def predict(self, score: FloatArray) -> FloatArray:
        """`n` probabilities; NaN where a score is not finite."""
        usable = np.isfinite(score)
        with np.errstate(over="ignore"):
            found = special.expit(self.slope * np.where(usable, score, 0.0) + self.intercept)
        return np.where(usable, found, np.nan)

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return {"method": self.method, "slope": self.slope, "intercept": self.intercept}


@dataclass(frozen=True, kw_only=True)
class IsotonicCalibrator:
    """The non-decreasing step function that fits the labels best; a score on a cut belongs to the step above.

    Attributes:
        cuts: `B - 1` ascending scores.
        probability: `B` ascending probabilities.
    """

    cuts: FloatArray
    probability: FloatArray
    method: ClassVar[str] = "isotonic"

    @staticmethod
    def fit(score: FloatArray, label: NDArray[np.bool_]) -> IsotonicCalibrator:
        """Isotonic regression; queries of one score are one point, so ties cannot be told apart.

        Args:
            score: `n`; those that are not finite are left out.
            label: `n`.

        Raises:
            ConfigError: If no score is finite.
        """
        x, y = _usable(score, label)
        distinct, code, counts = np.unique(x, return_inverse=True, return_counts=True)
        share = np.bincount(code, weights=y.astype(np.float64)) / counts
        level = np.clip(optimize.isotonic_regression(share, weights=counts).x, 0.0, 1.0)
        first = np.flatnonzero(np.diff(level) > 0) + 1
        low, high = distinct[first - 1], distinct[first]
        middle = low / 2 + high / 2
        return IsotonicCalibrator(
            cuts=np.where((middle > low) & (middle <= high), middle, high), probability=level[np.append(0, first)]
        )

    def predict(self, score: FloatArray) -> FloatArray:
        """`n` probabilities; NaN where a score is not finite."""
        found = self.probability[np.searchsorted(self.cuts, score, side="right")]
        return np.where(np.isfinite(score), found, np.nan)

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return {"method": self.method, "cuts": self.cuts.tolist(), "probability": self.probability.tolist()}


Calibrator = PlattCalibrator | IsotonicCalibrator
Method = Literal["platt", "isotonic"]


def fit_calibrator(method: str, score: FloatArray, label: NDArray[np.bool_]) -> Calibrator:
    """The calibrator of one method (`platt` or `isotonic`), fitted.

    Raises:
        ConfigError: If the method is unknown or no score is finite.
    """
    if method == "platt":
        return PlattCalibrator.fit(score, label)
    if method == "isotonic":
        return IsotonicCalibrator.fit(score, label)
    raise ConfigError(f"calibration must be none, platt or isotonic; got {method!r}")


def save_calibrator(calibrator: Calibrator, path: Path) -> None:
    """Write a calibrator as JSON."""
    path.write_text(json.dumps(calibrator.as_dict()), encoding="utf-8")


def load_calibrator(path: Path) -> Calibrator:
    """The calibrator that `save_calibrator` wrote; it predicts identically.

    Raises:
        ValueError, KeyError: If the file does not hold one.
    """
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored["method"] == "platt":
        return PlattCalibrator(slope=float(stored["slope"]), intercept=float(stored["intercept"]))
    if stored["method"] != "isotonic":
        raise ValueError(f"unknown calibration {stored['method']!r}")
    cuts, probability = (np.array(stored[name], dtype=np.float64) for name in ("cuts", "probability"))
    if len(probability) != len(cuts) + 1 or (np.diff(cuts) <= 0).any() or (np.diff(probability) <= 0).any():
        raise ValueError("an isotonic calibration needs ascending cuts and one more ascending probability")
    return IsotonicCalibrator(cuts=cuts, probability=probability)


def _usable(score: FloatArray, label: NDArray[np.bool_]) -> tuple[FloatArray, NDArray[np.bool_]]:
    usable = np.isfinite(score)
    if not usable.any():
        raise ConfigError("a calibration needs scores; the scorer gave no usable one")
    return score[usable], np.asarray(label[usable], dtype=np.bool_)


def upgrade_tier(table: OutcomeTable) -> int:
    """The best single tier, or the best of the others where that is the cheapest."""
    return 1 + int(np.argmax(table.quality.mean(axis=0)[1:]))


def better_by(table: OutcomeTable, low: int, high: int, margin: float) -> NDArray[np.bool_]:
    """`N`, True where tier `high` answers better than tier `low` by more than the margin."""
    return np.asarray(table.quality[:, high] - table.quality[:, low] > margin)


@dataclass(frozen=True, kw_only=True)
class CalibratedScorer:
    """Recipe: any scorer, with a confidence from its calibrated score.

    Attributes:
        base: The scorer of the score.
        method: `platt` or `isotonic`.
        margin: Quality by which the dearer answer must be better to count as better.
        folds: Folds of the inner out-of-fold scores, for a base that learns.
        seed: Seed of these folds.
        replace: Whether a confidence that the base states is replaced.
    """

    base: Scorer
    method: Method
    margin: float
    folds: int
    seed: int = 0
    replace: bool = False
    learned = True

    def fit(self, table: OutcomeTable) -> FittedCalibratedScorer:
        """Fit the base on `table`, and the calibrator on scores that did not see their own label.

        Raises:
            ConfigError: If no query has a usable score.
        """
        score = cross_fit(self.base, table, folds=self.folds, rng=spawn_rng(self.seed, "calibration")).score
        upgrade = upgrade_tier(table)
        return FittedCalibratedScorer(
            base=self.base.fit(table),
            calibrator=fit_calibrator(self.method, score, better_by(table, 0, upgrade, self.margin)),
            step=(table.tiers[0], table.tiers[upgrade]),
            margin=self.margin,
            replace=self.replace,
        )


@dataclass(frozen=True, kw_only=True)
class FittedCalibratedScorer:
    """The fitted scorer.

    Attributes:
        base: The scorer of the score.
        calibrator: Score to probability.
        step: The two tiers whose answers are compared.
        margin: Quality by which the second must be better.
        replace: Whether a confidence that the base states is replaced.
    """

    base: FittedScorer
    calibrator: Calibrator
    step: tuple[str, str]
    margin: float
    replace: bool
    kind = "calibrated"

    def predict(self, queries: QueryBatch) -> ScoreTable:
        """The base's scores with the confidence beside them; 0 where there is no score."""
        found = self.base.predict(queries)
        if found.confidence is not None and not self.replace:
            return found
        p = self.calibrator.predict(found.score)
        return replace(found, confidence=np.nan_to_num(np.maximum(p, 1 - p)))

    def save(self, folder: Path) -> None:
        """The calibrator as JSON; the base beside it."""
        save_calibrator(self.calibrator, folder / "calibrator.json")
        self.base.save(folder)

    def describe(self) -> dict[str, object]:
        """Kind, base, step, and the calibrator where it is two numbers."""
        described: dict[str, object] = {
            "kind": self.kind,
            "base": self.base.describe(),
            "method": self.calibrator.method,
            "step": list(self.step),
            "margin": self.margin,
            "replace": self.replace,
        }
        if isinstance(self.calibrator, PlattCalibrator):
            described |= {"slope": self.calibrator.slope, "intercept": self.calibrator.intercept}
        return described


def load_calibrated(description: dict[str, object], base: FittedScorer, folder: Path) -> FittedCalibratedScorer:
    """The scorer that `save` wrote into `folder`.

    Args:
        description: What `describe` returned when it was saved.
        base: Its base, loaded.
        folder: Where `save` wrote it.
    """
    step, margin = description["step"], description["margin"]
    if not isinstance(step, list) or len(step) != 2 or not isinstance(margin, int | float):
        raise ValueError("a calibrated scorer needs its step and margin")
    return FittedCalibratedScorer(
        base=base,
        calibrator=load_calibrator(folder / "calibrator.json"),
        step=(str(step[0]), str(step[1])),
        margin=float(margin),
        replace=bool(description["replace"]),
    )
