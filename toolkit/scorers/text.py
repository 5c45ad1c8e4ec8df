"""`text`: quality and cost per tier, learned from the prompts of the tune split.

Ridge regression (and, if asked for, the nearest neighbours) from prompt features to the K qualities and the K log
costs. The scalar score is the predicted gain in quality per extra USD of leaving the cheapest tier for the next one
on the Zero router's hull: the λ at which a utility policy would make that step. Thresholds on it therefore spend
where a dollar buys most, which a predicted difficulty does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.linear_model import Ridge

from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import FloatArray, OutcomeTable, QueryBatch
from toolkit.scorers.base import ScoreTable
from toolkit.scorers.features import PromptFeatures
from toolkit.zero_router import zero_router_of

_SMALLEST_COST_USD = 1e-9


@dataclass(frozen=True, kw_only=True)
class TextScorer:
    """Recipe of the text scorer.

    Attributes:
        ridge_alpha: Penalty of the ridge regression.
        neighbours: Number of nearest neighbours.
        neighbour_weight: Share of the prediction that comes from the neighbours, in [0, 1].
        seed: Seed of the feature landmarks.
    """

    ridge_alpha: float
    neighbours: int
    neighbour_weight: float
    seed: int
    learned = True

    def __post_init__(self) -> None:
        if self.ridge_alpha <= 0 or self.neighbours < 1 or not 0 <= self.neighbour_weight <= 1:
            raise ConfigError(
                "scorer=text needs ridge_alpha > 0, neighbours >= 1 and neighbour_weight in [0, 1]; got "
                f"{self.ridge_alpha:g}, {self.neighbours}, {self.neighbour_weight:g}"
            )

    def fit(self, table: OutcomeTable) -> FittedTextScorer:
        """Fit features and regression on `table`."""
        prompts = _prompts(table.queries)
        features = PromptFeatures.fit(prompts, seed=self.seed)
        X = features.transform(prompts)
        targets = [table.quality]
        if table.has_cost:
            targets.append(np.log(np.maximum(table.cost_usd, _SMALLEST_COST_USD)))
        Y = np.hstack(targets)
        ridge = Ridge(alpha=self.ridge_alpha, solver="sparse_cg", tol=1e-6).fit(X, Y)
        arrays = {"coef": ridge.coef_, "intercept": ridge.intercept_, "upgrade": np.array([0, _upgrade(table)])}
        if self.neighbour_weight > 0:
            arrays["neighbour_targets"] = Y
        fitted = FittedTextScorer(
            features=features,
            arrays=arrays,
            neighbour_features=X if self.neighbour_weight > 0 else None,
            settings={
                "neighbours": self.neighbours,
                "neighbour_weight": self.neighbour_weight,
                "n_tiers": table.n_tiers,
            },
        )
        if table.has_cost:
            predicted = np.exp(fitted.targets(X)[:, table.n_tiers :])
            arrays["smearing"] = table.cost_usd.mean(axis=0) / predicted.mean(axis=0)
        return fitted


def _upgrade(table: OutcomeTable) -> int:
    """The tier whose gain over the cheapest one the score measures."""
    hull = zero_router_of(table).tier if table.has_cost else ()
    return hull[1] if len(hull) > 1 and hull[0] == 0 else 1 + int(np.argmax(table.quality.mean(axis=0)[1:]))


def _prompts(queries: QueryBatch) -> tuple[str, ...]:
    if queries.prompt is None:
        raise InputDataError(
            "scorer=text needs a prompt column in the queries file; use scorer=column with a signal instead"
        )
    return queries.prompt


@dataclass(frozen=True, kw_only=True)
class FittedTextScorer:
    """The fitted scorer; everything it knows is in `features`, `arrays` and `settings`."""

    features: PromptFeatures
    arrays: dict[str, FloatArray]
    neighbour_features: sparse.csr_matrix | None
    settings: Mapping[str, float]
    kind = "text"

    def targets(self, X: sparse.csr_matrix) -> FloatArray:
        """`N x K` or `N x 2K`: predicted qualities, then log costs."""
        linear = np.asarray(X @ self.arrays["coef"].T) + self.arrays["intercept"]
        weight = self.settings["neighbour_weight"]
        if self.neighbour_features is None:
            return linear
        return (1 - weight) * linear + weight * self._neighbours(X)

    def _neighbours(self, X: sparse.csr_matrix) -> FloatArray:
        known = self.arrays["neighbour_targets"]
        k = min(int(self.settings["neighbours"]), len(known))
        assert self.neighbour_features is not None
        parts = []
        for start in range(0, X.shape[0], 1024):
            similarity = (X[start : start + 1024] @ self.neighbour_features.T).toarray()
            nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
            weight = np.maximum(np.take_along_axis(similarity, nearest, axis=1), 0.0) + 1e-6
            parts.append((known[nearest] * weight[..., None]).sum(axis=1) / weight.sum(axis=1, keepdims=True))
        return np.concatenate(parts)

    def predict(self, queries: QueryBatch) -> ScoreTable:
        """Score, confidence (share of known tokens), quality and cost; NaN for a prompt without any token."""
        prompts, k = _prompts(queries), int(self.settings["n_tiers"])
        if not prompts:
            return ScoreTable(score=np.empty(0), confidence=np.empty(0))
        targets = self.targets(self.features.transform(prompts))
        known = self.features.known_share(prompts)
        targets[np.isnan(known)] = np.nan
        quality, upgrade = targets[:, :k], int(self.arrays["upgrade"][1])
        gain = quality[:, upgrade] - quality[:, 0]
        confidence = np.nan_to_num(known)
        if "smearing" not in self.arrays:
            return ScoreTable(score=gain, confidence=confidence, quality=quality)
        cost = np.exp(targets[:, k:]) * self.arrays["smearing"]
        extra = cost[:, upgrade] - cost[:, 0]
        return ScoreTable(score=gain / np.maximum(extra, 1e-7), confidence=confidence, quality=quality, cost_usd=cost)

    def save(self, folder: Path) -> None:
        """Arrays as .npz without pickle, vocabulary and settings as JSON."""
        _save_arrays(folder / "text.npz", self.arrays)
        _save_arrays(folder / "features.npz", self.features.arrays)
        text = json.dumps({"vocabulary": dict(self.features.vocabulary), "settings": dict(self.settings)})
        (folder / "text.json").write_text(text, encoding="utf-8")
        if self.neighbour_features is not None:
            sparse.save_npz(folder / "neighbours.npz", self.neighbour_features)

    @staticmethod
    def load(folder: Path) -> FittedTextScorer:
        """The scorer that `save` wrote; it scores identically."""
        raw = json.loads((folder / "text.json").read_text(encoding="utf-8"))
        stored = folder / "neighbours.npz"
        return FittedTextScorer(
            features=PromptFeatures(vocabulary=raw["vocabulary"], arrays=_load_arrays(folder / "features.npz")),
            arrays=_load_arrays(folder / "text.npz"),
            neighbour_features=sparse.csr_matrix(sparse.load_npz(stored)) if stored.exists() else None,
            settings=raw["settings"],
        )

    def describe(self) -> dict[str, object]:
        """Kind and settings."""
        return {"kind": self.kind, "n_features": int(self.arrays["coef"].shape[1]), **self.settings}


def _save_arrays(path: Path, arrays: Mapping[str, FloatArray]) -> None:
    np.savez_compressed(path, allow_pickle=False, **dict(arrays))


def _load_arrays(path: Path) -> dict[str, FloatArray]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
