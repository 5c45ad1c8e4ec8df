"""`sobol`: a scrambled Sobol sequence over the search space, after the single-tier corners.

It serves as a baseline and where a space cannot be enumerated. No realised parameter vector is evaluated twice.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import qmc

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from toolkit.problem import Evaluation, RoutingProblem

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

    def __init__(self, problem: RoutingProblem, *, budget: int, rng: np.random.Generator) -> None:
        if budget < 1:
            raise ConfigError(f"budget must be at least 1; got {budget}")
        self._space, self._budget = problem.space, budget
        self._sampler = qmc.Sobol(problem.space.dim, scramble=True, rng=rng)
        self._queue = _corners(problem)
        self._seen: set[bytes] = set()
        self._asked, self._drawn = 0, 0

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
        batch: list[FloatArray] = []
        wanted = min(_BATCH, self._budget - self._asked)
        while len(batch) < wanted and self._drawn < _DRAWS_PER_EVALUATION * self._budget:
            if len(self._queue) == 0:
                self._queue = self._space.decode(self._sampler.random(_BATCH))
                self._drawn += _BATCH
            row, self._queue = self._queue[0], self._queue[1:]
            if row.tobytes() not in self._seen:
                self._seen.add(row.tobytes())
                batch.append(row)
        self._asked += len(batch)
        return np.stack(batch) if batch else None

    def tell(self, evaluation: Evaluation) -> None:
        """A quasi-random sequence learns nothing."""


def _corners(problem: RoutingProblem) -> FloatArray:
    """All traffic on one tier, for each tier that the space can express so."""
    d = problem.space.dim
    if problem.policy.kind == "thresholds":
        corners = (np.arange(d) >= np.arange(d + 1)[:, None]).astype(np.float64)
        return problem.space.decode(corners)
    ends = np.full((2, d), 0.5)
    ends[:, 0] = [0.0, 1.0]
    return problem.space.decode(ends)
