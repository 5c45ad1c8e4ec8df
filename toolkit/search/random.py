"""`random`: the shared initial design, then uniform points; and the frame that every baseline searcher fills in.

Baselines differ in how they choose the next candidates alone: budget, initial design and the rule that no realised
parameter vector is evaluated twice are the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from toolkit.pareto.axes import Axes
from toolkit.problem import Evaluation, Problem
from toolkit.search.design import Seen, default_initial, initial_design, uniform_unseen, vector_key

_BATCH = 64
_FAR = 10.0


class BaselineController(ABC):
    """A searcher that opens with the initial design and spends the rest of its budget by `_propose`.

    Args:
        problem: The problem.
        budget: Number of evaluations.
        n_initial: Size of the initial design; None takes the default of the problem.
        design_rng: Source of the initial design.
        rng: Source of everything after it.

    Attributes:
        name: Name in configs.
        kind: What it does, as a noun with its article, for `exactness`.
    """

    name: str
    kind: str

    def __init__(
        self,
        problem: Problem,
        *,
        budget: int,
        n_initial: int | None,
        design_rng: np.random.Generator,
        rng: np.random.Generator,
    ) -> None:
        if budget < 1:
            raise ConfigError(f"budget must be at least 1; got {budget}")
        if n_initial is not None and n_initial < 1:
            raise ConfigError(f"n_initial must be at least 1, or null for the default; got {n_initial}")
        wanted = default_initial(problem) if n_initial is None else n_initial
        self._problem, self._budget, self._rng = problem, budget, rng
        self._design = initial_design(problem, min(wanted, budget), design_rng)
        self._seen = Seen()
        self._asked = 0

    @property
    def total(self) -> int:
        """The budget."""
        return self._budget

    @property
    def exactness(self) -> str:
        """That it is a sample, and how large."""
        short = "" if self._asked == self._budget else " (no further distinct ones were found)"
        return f"{self.kind} of {self._asked:,} parameter vectors{short}: better ones may exist"

    def ask(self) -> FloatArray | None:
        """The initial design, then what the searcher proposes, as far as the budget goes."""
        left = self._budget - self._asked
        if left == 0:
            return None
        batch = self._design if self._asked == 0 else self._propose(left)
        for row in batch:
            self._seen.add(row)
        self._asked += len(batch)
        return batch if len(batch) else None

    @abstractmethod
    def tell(self, evaluation: Evaluation) -> None:
        """Result of the batch asked last."""

    @abstractmethod
    def _propose(self, left: int) -> FloatArray:
        """`<= left x p` realised vectors that are distinct and not seen before; none ends the search."""


class RandomController(BaselineController):
    """Uniform points of the cube."""

    name = "random"
    kind = "a uniform random sample"

    def tell(self, evaluation: Evaluation) -> None:
        """Chance learns nothing."""

    def _propose(self, left: int) -> FloatArray:
        return uniform_unseen(self._problem, self._seen, min(_BATCH, left), self._rng)


class Ledger:
    """What is known of every vector that was evaluated, so that a library that proposes it again can be told.

    Failed evaluations are held with NaN in every place.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[FloatArray, FloatArray]] = {}

    def add(self, evaluation: Evaluation, axes: Axes) -> None:
        """Enter n evaluations."""
        failed = ~evaluation.ok[:, None]
        coordinates = np.where(failed, np.nan, finite_coordinates(axes, evaluation.Y))
        slack = np.where(failed, np.nan, evaluation.slack)
        for i, row in enumerate(evaluation.params):
            self._known[vector_key(row)] = coordinates[i], slack[i]

    def __contains__(self, row: FloatArray) -> bool:
        return vector_key(row) in self._known

    def __getitem__(self, row: FloatArray) -> tuple[FloatArray, FloatArray]:
        """`m` coordinates and `c` slacks of `row: p`."""
        return self._known[vector_key(row)]


def finite_coordinates(axes: Axes, Y: FloatArray) -> FloatArray:
    """`n x m` scaled coordinates, cut where a cost of nothing would lie infinitely far on a log axis; NaN stays NaN."""
    return np.clip(axes.scale(Y), -_FAR, _FAR)
