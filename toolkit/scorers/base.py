"""What a scorer is: query in, numbers out, before any answer exists.

A scorer sees a `QueryBatch`, which holds no outcome, so a label cannot reach a score. A learned scorer is fitted on
the tune split; its scores *on that split* are out-of-fold (`cross_fit`), because thresholds tuned on in-sample
scores miss their floors on new queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulators.outcomes import FloatArray, IntArray, OutcomeTable, QueryBatch, split_by_prompt


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """Scores of N queries.

    Attributes:
        score: `N`, higher means harder (more to gain from a dearer tier); NaN where the scorer failed.
        confidence: `N` in [0, 1], or None where the scorer states none.
        quality: `N x K` predicted quality, or None where the scorer predicts none.
        cost_usd: `N x K` predicted billed cost, or None where the scorer predicts none.
        eligibility: `N` in [0, 1], probability that one named tier answers meaningfully better, or None without a head.
        levels: `N x T` tier of each query for each of T requested qualities, or None without a trained policy.
        level_targets: `T` requested qualities, ascending; the same for all queries.
    """

    score: FloatArray
    confidence: FloatArray | None = None
    quality: FloatArray | None = None
    cost_usd: FloatArray | None = None
    eligibility: FloatArray | None = None
    levels: NDArray[np.int8] | None = None
    level_targets: FloatArray | None = None

    def take(self, rows: IntArray) -> ScoreTable:
        """The scores at `rows`, in that order."""
        return ScoreTable(
            score=self.score[rows],
            confidence=None if self.confidence is None else self.confidence[rows],
            quality=None if self.quality is None else self.quality[rows],
            cost_usd=None if self.cost_usd is None else self.cost_usd[rows],
            eligibility=None if self.eligibility is None else self.eligibility[rows],
            levels=None if self.levels is None else self.levels[rows],
            level_targets=self.level_targets,
        )


class FittedScorer(Protocol):
    """A scorer that is ready to score, and can be saved without pickle and loaded with identical scores."""

    @property
    def kind(self) -> str:
        """Name under which it is loaded again."""
        ...

    def predict(self, queries: QueryBatch) -> ScoreTable:
        """Scores of each query."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything `load` needs into an existing, empty folder."""
        ...

    def describe(self) -> dict[str, object]:
        """What a reader of `policy.json` should know: kind, versions, settings."""
        ...


class Scorer(Protocol):
    """A recipe for a scorer."""

    @property
    def learned(self) -> bool:
        """Whether `fit` looks at outcomes, so that tune scores must be out-of-fold."""
        ...

    def fit(self, table: OutcomeTable) -> FittedScorer:
        """Fit on a table; a scorer with nothing to learn only checks that it can score."""
        ...


def cross_fit(scorer: Scorer, table: OutcomeTable, *, folds: int, rng: np.random.Generator) -> ScoreTable:
    """Out-of-fold scores: each query is scored by a fit that saw neither it nor a query linked to it (`split_code`).

    Args:
        scorer: The recipe; one that learns nothing is simply applied.
        table: The tune split.
        folds: Number of folds, at least 2.
        rng: Source of the fold assignment.

    Returns:
        Scores of all N queries of `table`.
    """
    if not scorer.learned:
        return scorer.fit(table).predict(table.queries)
    parts = split_by_prompt(table, {str(i): 1.0 / folds for i in range(folds)}, rng)
    everything = np.arange(table.n_queries)
    pieces = []
    for rows in parts.values():
        fitted = scorer.fit(table.take(np.setdiff1d(everything, rows)))
        pieces.append(fitted.predict(table.queries.take(rows)))
    back = np.argsort(np.concatenate(list(parts.values())), kind="stable")
    return _concatenate(pieces).take(back)


def _concatenate(pieces: list[ScoreTable]) -> ScoreTable:
    def join(parts: list[FloatArray | None]) -> FloatArray | None:
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if known else None

    targets = [piece.level_targets for piece in pieces if piece.level_targets is not None]
    return ScoreTable(
        score=np.concatenate([piece.score for piece in pieces]),
        confidence=join([piece.confidence for piece in pieces]),
        quality=join([piece.quality for piece in pieces]),
        cost_usd=join([piece.cost_usd for piece in pieces]),
        eligibility=join([piece.eligibility for piece in pieces]),
        levels=np.concatenate([piece.levels for piece in pieces if piece.levels is not None]) if targets else None,
        level_targets=targets[0] if targets else None,
    )
