"""When `boute` stops: when its solution has not changed for more than `patience` evaluations in a row.

The *solution* is the front of feasible evaluations, which changes where its hypervolume on the published axes has grown
by more than a thousandth since it changed last, so that a creep counts once it adds up; or the choice, the feasible
evaluation of least latency. Where no feasible evaluation reaches the reference point there is no volume: any growth of
the feasible set counts as a change then. Evaluations of the initial design are not counted, and without a feasible one
there is no solution that could stay unchanged.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from toolkit.pareto.axes import Axes
from toolkit.pareto.front import non_dominated
from toolkit.pareto.indicators import hypervolume
from toolkit.problem import Evaluation, Problem

_GROWTH = 1e-3


class SolutionWatch:
    """Counts evaluations without a change; a function of the evaluations told, in order.

    Args:
        problem: The problem.
        axes: Published axes.
        stop_on: What the solution is.
        patience: Evaluations without a change that are borne; None bears all.
        n_initial: Evaluations that are not counted.

    Raises:
        ConfigError: If the solution is the choice and no latency is an objective, or patience is negative.
    """

    def __init__(
        self,
        problem: Problem,
        axes: Axes,
        *,
        stop_on: Literal["front", "choice"],
        patience: int | None,
        n_initial: int,
    ) -> None:
        if patience is not None and patience < 1:
            raise ConfigError(f"controller.patience must be at least 1, or null to spend the budget; got {patience}")
        latencies = [j for j, m in enumerate(problem.objectives) if m.base.startswith("latency")]
        if stop_on == "choice" and not latencies:
            names = ", ".join(m.base for m in problem.objectives)
            raise ConfigError(f"controller.stop_on=choice needs a latency among the objectives; got {names}")
        self._axes, self._stop_on, self._patience, self._n_initial = axes, stop_on, patience, n_initial
        self._latency = latencies[0] if latencies else 0
        self._front = np.empty((0, len(problem.objectives)))
        self._size = 0.0
        self._told = 0
        self._changed_at: int | None = None
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether patience has run out; it stays so."""
        return self._stopped

    @property
    def unchanged(self) -> int:
        """Evaluations since the last change, those of the initial design not counted."""
        return 0 if self._changed_at is None else self._told - max(self._changed_at, self._n_initial)

    def tell(self, evaluation: Evaluation) -> None:
        """Look at n further evaluations, one after the other."""
        feasible = evaluation.feasible
        for y, usable in zip(evaluation.Y, feasible, strict=True):
            self._told += 1
            if usable and self._changes(y):
                self._changed_at = self._told
            if self._patience is not None and self.unchanged > self._patience:
                self._stopped = True

    def _changes(self, y: FloatArray) -> bool:
        if self._stop_on == "choice":
            better = self._changed_at is None or bool(y[self._latency] > self._size)
            self._size = float(y[self._latency]) if better else self._size
            return better
        front = np.concatenate([self._front, y[None, :]])
        kept = non_dominated(front)
        if not kept[-1]:
            return False
        self._front = front[kept]
        size = hypervolume(self._axes.scale(self._front), self._axes.reference)
        if size > self._size * (1.0 + _GROWTH) or size == 0.0:
            self._size = size
            return True
        return False
