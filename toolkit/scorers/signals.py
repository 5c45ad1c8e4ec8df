"""Scorers that learn nothing: a column of the file, and the classifier and the routers of a scenario."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from simulators.errors import InputDataError
from simulators.outcomes import FloatArray, OutcomeTable, QueryBatch
from toolkit.scorers.base import ScoreTable


@dataclass(frozen=True, kw_only=True)
class SignalScorer:
    """A numeric signal that comes with the queries; higher must mean harder.

    Attributes:
        column: Name of the signal.
        confidence_column: Name of a signal in [0, 1] that states confidence, or None.
        kind: Kind of the scorer in configs: `column`, `scenario` or `strategy`.
    """

    column: str
    confidence_column: str | None = None
    kind: str = "column"
    learned = False

    def fit(self, table: OutcomeTable) -> SignalScorer:
        """Check that the signal is there."""
        self.predict(table.queries)
        return self

    def predict(self, queries: QueryBatch) -> ScoreTable:
        """The signal as it is; NaN stays NaN."""
        confidence = None if self.confidence_column is None else self._signal(queries, self.confidence_column)
        if confidence is not None and ((confidence < 0) | (confidence > 1)).any():
            raise InputDataError(f"column {self.confidence_column!r} states confidence, so it must lie in [0, 1]")
        return ScoreTable(score=self._signal(queries, self.column), confidence=confidence)

    def _signal(self, queries: QueryBatch, name: str) -> FloatArray:
        if name not in queries.signals:
            have = ", ".join(queries.signals) or "none"
            raise InputDataError(f"scorer={self.kind} reads the numeric column {name!r}; the queries have: {have}")
        return queries.signals[name]

    def save(self, folder: Path) -> None:
        """The names, as JSON."""
        (folder / "signal.json").write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> SignalScorer:
        """The scorer that `save` wrote."""
        return SignalScorer(**json.loads((folder / "signal.json").read_text(encoding="utf-8")))

    def describe(self) -> dict[str, object]:
        """Kind and columns."""
        return asdict(self)
