"""The initial design that all searchers share: the single-tier corners, then a scrambled Sobol sequence."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.stats import qmc

from simulators.outcomes import FloatArray
from toolkit.problem import Evaluation, Problem

_BLOCK = 64
_SMALLEST_DRAW = 16
_DRAWS = 50


def vector_key(row: FloatArray) -> bytes:
    """What tells realised vectors apart; 0.0 and -0.0 are one number."""
    return (np.ascontiguousarray(row, dtype=np.float64) + 0.0).tobytes()


class Seen:
    """Realised parameter vectors that were asked for: none is evaluated twice.

    Args:
        other: Vectors known already; they are copied.
    """

    def __init__(self, other: Seen | None = None) -> None:
        self._known: set[bytes] = set() if other is None else set(other._known)

    def add(self, row: FloatArray) -> bool:
        """Whether `row: p` is new; it is known from now on."""
        key = vector_key(row)
        new = key not in self._known
        self._known.add(key)
        return new

    def new_rows(self, params: FloatArray) -> list[int]:
        """Rows of `params: n x p` that are not known yet, each vector once; nothing is added."""
        keys = [vector_key(row) for row in params]
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        return sorted(i for key, i in first.items() if key not in self._known)


def default_initial(problem: Problem) -> int:
    """Size of the initial design where none is given: corners and `2 (d + 1)` points of the sequence."""
    return len(problem.corners()) + 2 * (problem.space.dim + 1)


def sequence(problem: Problem, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Corners, then a scrambled Sobol sequence without end, one realised vector (`p`) after the other."""
    yield from problem.corners()
    sampler = qmc.Sobol(problem.space.dim, scramble=True, rng=rng)
    while True:
        yield from problem.space.decode(sampler.random(_BLOCK))


def initial_design(problem: Problem, n: int, rng: np.random.Generator) -> FloatArray:
    """`<= n x p` distinct realised vectors; fewer where the space holds no more that the sequence hits."""
    seen, rows = Seen(), []
    for tried, row in enumerate(sequence(problem, rng)):
        if seen.add(row):
            rows.append(row)
        if len(rows) == n or tried > 50 * n + _BLOCK:
            break
    return np.stack(rows)


def uniform_unseen(problem: Problem, seen: Seen, n: int, rng: np.random.Generator) -> FloatArray:
    """`<= n x p` distinct realised vectors, uniform in the cube and not seen; fewer where many draws hit no more."""
    found = np.empty((0, len(problem.parameter_names)))
    for _ in range(_DRAWS):
        drawn = problem.space.decode(rng.random((max(n, _SMALLEST_DRAW), problem.space.dim)))
        found = np.concatenate([found, drawn])
        found = found[seen.new_rows(found)][:n]
        if len(found) == n:
            break
    return found


def whole_batches(known: Evaluation, design: FloatArray, *, budget: int, q: int) -> int:
    """Evaluations of an interrupted run that are its design and whole batches of q; 0 if the design is another."""
    n, start = min(len(known), budget), len(design)
    if n < start or not np.array_equal(known.params[:start], design):
        return 0
    return start + (n - start) // q * q
