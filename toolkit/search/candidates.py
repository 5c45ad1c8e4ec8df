"""Maximising an acquisition over a unit cube in which only some points can be realised.

Candidates come in rounds: a scrambled Sobol sequence and the neighbourhood of the front, then ever smaller steps around
the best ones; where gradients are known, a joint L-BFGS-B from the best starts. What is scored is always what the
policy would do: the realised vector, not the point that asked for it.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy.optimize import minimize
from scipy.stats import qmc

from simulators.outcomes import FloatArray
from toolkit.problem import Problem
from toolkit.search.design import Seen, uniform_unseen

_SPREAD = 256
_AROUND = 256
_STARTS = 6
_STEPS = (0.1, 0.03, 0.01)
_PER_STEP = 96
_MOST_ITERATIONS = 30


class Acquisition(Protocol):
    """What is maximised."""

    @property
    def differentiable(self) -> bool:
        """Whether `value_and_gradient` works."""
        ...

    def value(self, X: FloatArray, params: FloatArray) -> FloatArray:
        """`r` values at `X: r x d`, which realise `params: r x p`."""
        ...

    def value_and_gradient(self, X: FloatArray) -> tuple[FloatArray, FloatArray]:
        """`r` values and `r x d` gradients."""
        ...


def propose(
    problem: Problem, acquisition: Acquisition, front_X: FloatArray, seen: Seen, rng: np.random.Generator
) -> FloatArray | None:
    """The best realised vector (`p`) that was not evaluated yet, or None where none was found.

    Args:
        problem: The problem.
        acquisition: What is maximised.
        front_X: `F x d` evaluated points worth staying near.
        seen: Vectors not to be proposed.
        rng: Source of candidates.
    """
    pool = _Pool(problem, acquisition, seen)
    pool.add(_first_round(problem.space.dim, front_X, rng))
    if acquisition.differentiable and len(pool.X):
        pool.add(_climb(acquisition, pool.best_X(_STARTS)))
    steps = _STEPS[-1:] if acquisition.differentiable else _STEPS
    for step in steps:
        if len(pool.X):
            pool.add(_neighbours(pool.best_X(_STARTS), step, _PER_STEP, rng))
    if len(pool.X) == 0:
        rows = uniform_unseen(problem, seen, 1, rng)
        return rows[0] if len(rows) else None
    return np.asarray(pool.params[int(np.argmax(pool.value))])


class _Pool:
    """Scored, realised, unseen candidates."""

    def __init__(self, problem: Problem, acquisition: Acquisition, seen: Seen) -> None:
        self._problem, self._acquisition, self._seen = problem, acquisition, Seen(seen)
        self.X: FloatArray = np.empty((0, problem.space.dim))
        self.params: FloatArray = np.empty((0, len(problem.parameter_names)))
        self.value: FloatArray = np.empty(0)

    def add(self, X: FloatArray) -> None:
        """Realise and score `X: r x d`, leaving out what is known."""
        params = self._problem.space.decode(X)
        fresh = [i for i, row in enumerate(params) if self._seen.add(row)]
        if not fresh:
            return
        params = params[fresh]
        realised = self._problem.space.encode(params)
        value = self._acquisition.value(realised, params)
        self.X = np.concatenate([self.X, realised])
        self.params = np.concatenate([self.params, params])
        self.value = np.concatenate([self.value, np.nan_to_num(value, nan=-np.inf)])

    def best_X(self, n: int) -> FloatArray:
        """`n x d` best so far."""
        return np.asarray(self.X[np.argsort(-self.value, kind="stable")[:n]])


def _first_round(d: int, front_X: FloatArray, rng: np.random.Generator) -> FloatArray:
    spread = qmc.Sobol(d, scramble=True, rng=rng).random(_SPREAD)
    if len(front_X) == 0:
        return np.asarray(spread)
    near = _neighbours(front_X, 0.1, _AROUND // 2, rng)
    # Along single coordinates too: in many dimensions a step in all of them at once rarely helps.
    one = front_X[rng.integers(len(front_X), size=_AROUND // 2)].copy()
    axis = rng.integers(d, size=len(one))
    one[np.arange(len(one)), axis] = rng.random(len(one))
    return np.concatenate([spread, near, one])


def _neighbours(X: FloatArray, step: float, n: int, rng: np.random.Generator) -> FloatArray:
    """`n x d` points around `X`; steps that would leave the cube are reflected."""
    centre = X[rng.integers(len(X), size=n)]
    moved = np.abs(centre + step * rng.standard_normal(centre.shape))
    return np.asarray(np.clip(np.where(moved > 1.0, 2.0 - moved, moved), 0.0, 1.0))


def _climb(acquisition: Acquisition, starts: FloatArray) -> FloatArray:
    """`r x d` ends of one L-BFGS-B run on the sum over starts (they do not interact)."""
    shape = starts.shape

    def negative(flat: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = acquisition.value_and_gradient(flat.reshape(shape))
        usable = np.isfinite(value) & np.isfinite(gradient).all(axis=1)
        return -float(value[usable].sum()), -np.where(usable[:, None], gradient, 0.0).ravel()

    bounds = [(0.0, 1.0)] * starts.size
    found = minimize(
        negative, starts.ravel(), jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": _MOST_ITERATIONS}
    )
    return np.asarray(np.clip(found.x, 0.0, 1.0).reshape(shape))
