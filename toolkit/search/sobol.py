"""`sobol`: the single-tier corners, then a scrambled Sobol sequence over the search space.

It serves as a baseline and where a space cannot be enumerated. No realised parameter vector is evaluated twice.
"""

from __future__ import annotations

import itertools

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from toolkit.problem import Evaluation, Problem
from toolkit.search.design import Seen, sequence

_BATCH = 64
_DRAWS_PER_EVALUATION = 50


class SobolController:
    """Quasi-random candidates.

    Args:
        problem: The problem.
        budget: Number of evaluations.
        rng: Source of the scrambling.
    """

    name = "sobol"

    def __init__(self, problem: Problem, *, budget: int, rng: np.random.Generator) -> None:
        if budget < 1:
            raise ConfigError(f"budget must be at least 1; got {budget}")
        self._budget = budget
        self._candidates = itertools.islice(sequence(problem, rng), _DRAWS_PER_EVALUATION * budget + _BATCH)
        self._seen = Seen()
        self._asked = 0

    @property
    def total(self) -> int:
        """The budget."""
        return self._budget

    @property
    def exactness(self) -> str:
        """A sample, and how large."""
        short = "" if self._asked == self._budget else " (the space holds no more distinct ones that the sequence hit)"
        return f"a sample of {self._asked:,} parameter vectors{short}: better ones may exist"

    def ask(self) -> FloatArray | None:
        """Next batch of realised vectors not seen before."""
        wanted = min(_BATCH, self._budget - self._asked)
        fresh = (row for row in self._candidates if self._seen.add(row))
        batch = list(itertools.islice(fresh, wanted)) if wanted else []
        self._asked += len(batch)
        return np.stack(batch) if batch else None

    def tell(self, evaluation: Evaluation) -> None:
        """A quasi-random sequence learns nothing."""
