"""Predicted quality and cost from a scalar score alone, so that `policy=utility` works with any scorer.

A small regression tree cuts the score into at most 16 intervals with enough queries each and predicts each tier's
mean quality and cost in each: a calibration curve per tier that may bend either way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.tree import DecisionTreeRegressor

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, OutcomeTable, QueryBatch
from toolkit.scorers.base import FittedScorer, Scorer, ScoreTable

_MAX_INTERVALS = 16
_MIN_QUERIES = 30


@dataclass(frozen=True, kw_only=True)
class BinnedScorer:
    """Recipe: a scorer that gives scores only, plus the calibration."""

    base: Scorer
    learned = True

    def fit(self, table: OutcomeTable) -> FittedBinnedScorer:
        """Fit the base scorer and the intervals on `table`."""
        if not table.has_cost:
            raise ConfigError(
                "policy=utility needs cost_usd in the data; use policy=thresholds or give data.prices=FILE"
            )
        base = self.base.fit(table)
        score = base.predict(table.queries).score
        usable = np.isfinite(score)
        if not usable.any():
            raise ConfigError("the scorer gave no usable score for any query of the tune split")
        scale = table.cost_usd.std(axis=0) + 1e-12
        Y = np.hstack([table.quality, table.cost_usd / scale])[usable]
        tree = DecisionTreeRegressor(max_leaf_nodes=_MAX_INTERVALS, min_samples_leaf=_MIN_QUERIES, random_state=0)
        limit = float(np.finfo(np.float32).max)  # the tree compares in single precision
        tree.fit(np.clip(score[usable, None], -limit, limit), Y)
        cuts = np.sort(tree.tree_.threshold[tree.tree_.feature >= 0])
        interval = np.searchsorted(cuts, score[usable], side="left")
        means = np.stack([Y[interval == i].mean(axis=0) for i in range(len(cuts) + 1)])
        k = table.n_tiers
        return FittedBinnedScorer(base=base, cuts=cuts, quality=means[:, :k], cost_usd=means[:, k:] * scale)


@dataclass(frozen=True, kw_only=True)
class FittedBinnedScorer:
    """Intervals of the score with each tier's mean quality and cost.

    Attributes:
        base: The scorer of the scalar.
        cuts: `I - 1` ascending cuts; a score on a cut belongs to the interval below.
        quality: `I x K`.
        cost_usd: `I x K`.
    """

    base: FittedScorer
    cuts: FloatArray
    quality: FloatArray
    cost_usd: FloatArray
    kind = "binned"

    def predict(self, queries: QueryBatch) -> ScoreTable:
        """The base scorer's score with predictions beside it."""
        found = self.base.predict(queries)
        interval = np.searchsorted(self.cuts, found.score, side="left")
        quality, cost = self.quality[interval], self.cost_usd[interval]
        bad = ~np.isfinite(found.score)
        quality[bad], cost[bad] = np.nan, np.nan
        return replace(found, quality=quality, cost_usd=cost)

    def save(self, folder: Path) -> None:
        """Arrays as .npz without pickle; the base scorer beside them."""
        np.savez_compressed(folder / "binned.npz", cuts=self.cuts, quality=self.quality, cost_usd=self.cost_usd)
        self.base.save(folder)

    def describe(self) -> dict[str, object]:
        """The base scorer, and how many intervals."""
        return {"kind": self.kind, "base": self.base.describe(), "intervals": len(self.quality)}
