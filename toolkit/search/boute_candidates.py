"""Maximising an acquisition over load fractions and joint choices of deployments.

Staged, and on what can be realised only:

1. random choices (all, where there are few) at fractions of a scrambled Sobol sequence; candidates of the cube with
   tiers that get nothing; around every point of the front the same fractions with one tier's deployment swapped, and
   the same choice with other fractions;
2. three times, around the best so far: smaller steps of the fractions, and swaps of one tier's deployment;
3. the best ones as the problem itself would write them (a tier without requests takes no GPU), the best of which wins.

Vectors that were evaluated are never proposed. Notation: J joint choices of M tiers, R routing coordinates.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import qmc

from simulators.outcomes import FloatArray, IntArray
from toolkit.problem import Problem
from toolkit.search.boute_space import StructuredProblem
from toolkit.search.candidates import Acquisition
from toolkit.search.design import Seen, uniform_unseen

_SPREAD, _EDGES, _JITTERED, _SWAPPED = 1024, 64, 128, 24
_FRONT, _STARTS, _LAST = 16, 8, 16
_STEPS = (0.1, 0.03, 0.01)


class ChoiceIndex:
    """Joint choices, and those that differ in one tier alone.

    Args:
        choices: `J x M`.
    """

    def __init__(self, choices: IntArray) -> None:
        self.choices = choices
        self._base = np.cumprod(np.r_[1, choices.max(axis=0)[:-1] + 1])
        code = choices @ self._base
        self._sorted = np.argsort(code, kind="stable")
        self._code = code[self._sorted]
        self._groups = [self._group(code - choices[:, m] * self._base[m]) for m in range(choices.shape[1])]

    @staticmethod
    def _group(rest: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """`J` rows ordered by group, `J` group of each row, first position of each group (and the end)."""
        order = np.argsort(rest, kind="stable")
        _, group, size = np.unique(rest, return_inverse=True, return_counts=True)
        return order, group, np.r_[0, np.cumsum(size)]

    def find(self, choice: IntArray) -> IntArray:
        """`n` rows of `choice: n x M`; -1 for one that is not among them."""
        inside = (choice <= self.choices.max(axis=0)).all(axis=1)
        code = choice @ self._base
        at = np.minimum(np.searchsorted(self._code, code), len(self._code) - 1)
        return np.where(inside & (self._code[at] == code), self._sorted[at], -1)

    def swaps(self, row: int, most: int, rng: np.random.Generator) -> IntArray:
        """Rows that differ from `row` in one tier; at most `most` per tier, drawn at random where there are more."""
        found = []
        for order, group, start in self._groups:
            others = order[start[group[row]] : start[group[row] + 1]]
            found.append(others if len(others) <= most else rng.choice(others, most, replace=False))
        rows = np.concatenate(found)
        return np.asarray(rows[rows != row])


class StructuredSearch:
    """The maximiser.

    Args:
        problem: The problem.
        choices: Its `J x M` joint choices.
        effort: Candidates per suggestion, as a share of the usual number.
    """

    def __init__(self, problem: StructuredProblem, choices: IntArray, *, effort: float = 1.0) -> None:
        self._problem, self._index, self._effort = problem, ChoiceIndex(choices), effort
        self._m = choices.shape[1]
        self._r = problem.space.dim - self._m

    def propose(
        self, view: Problem, acquisition: Acquisition, front_X: FloatArray, seen: Seen, rng: np.random.Generator
    ) -> FloatArray | None:
        """The best realised vector (`p`) that was not evaluated yet, or None where none was found.

        Args:
            view: The problem as models see it; its space encodes what the acquisition is asked for.
            acquisition: What is maximised.
            front_X: `F x dim` evaluated rows of the view worth staying near.
            seen: Vectors not to be proposed.
            rng: Source of candidates.
        """
        pool = _Pool(view, acquisition, seen)
        front = view.space.decode(front_X)
        if len(front) > _FRONT:
            front = front[rng.choice(len(front), _FRONT, replace=False)]
        edges = self._edges(self._count(_EDGES), rng)
        pool.add(np.concatenate([self._spread(rng), edges, self._around(front, 0.1, rng)]))
        for step in _STEPS:
            pool.add(self._around(pool.best(_STARTS), step, rng))
        row = self._realised(pool, view, acquisition, seen)
        if row is None:
            rows = uniform_unseen(self._problem, seen, 1, rng)
            return rows[0] if len(rows) else None
        return row

    def _count(self, usual: int) -> int:
        return max(4, round(usual * self._effort))

    def _thresholds(self, x: FloatArray) -> FloatArray:
        """Realised thresholds of `x: n x R`."""
        middle = np.full((len(x), self._m), 0.5)
        return self._problem.space.decode(np.concatenate([x, middle], axis=1))[:, : -self._m]

    def _coordinates(self, params: FloatArray) -> FloatArray:
        """`n x R` routing coordinates of `params: n x p`."""
        return self._problem.features(params).routing

    def _join(self, thresholds: FloatArray, rows: IntArray) -> FloatArray:
        return np.concatenate([thresholds, self._index.choices[rows].astype(np.float64)], axis=1)

    def _spread(self, rng: np.random.Generator) -> FloatArray:
        n, J = self._count(_SPREAD), len(self._index.choices)
        rows = rng.choice(J, n, replace=False) if n < J else rng.permutation(np.arange(n) % J)
        return self._join(self._thresholds(_sobol(n, self._r, rng)), rows)

    def _edges(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Candidates of the cube, most with tiers that get all or nothing."""
        X = rng.random((n, self._r + self._m))
        rounded = rng.random((n, self._r)) < 0.75
        X[:, : self._r] = np.where(rounded, np.round(X[:, : self._r]), X[:, : self._r])
        return self._problem.space.decode(X)

    def _around(self, params: FloatArray, step: float, rng: np.random.Generator) -> FloatArray:
        """Other fractions for the same choices, and other deployments of one tier at the same fractions."""
        if len(params) == 0:
            return params
        thresholds, choice = params[:, : -self._m], params[:, -self._m :].astype(np.int64)
        x = self._coordinates(params)
        picked = rng.integers(len(params), size=self._count(_JITTERED))
        moved = np.abs(x[picked] + step * rng.standard_normal((len(picked), self._r)))
        moved = np.clip(np.where(moved > 1.0, 2.0 - moved, moved), 0.0, 1.0)
        parts = [np.concatenate([self._thresholds(moved), choice[picked].astype(np.float64)], axis=1)]
        for i, row in enumerate(self._index.find(choice)):
            if row >= 0:
                rows = self._index.swaps(int(row), self._count(_SWAPPED), rng)
                parts.append(self._join(np.repeat(thresholds[[i]], len(rows), axis=0), rows))
        return np.concatenate(parts)

    def _realised(self, pool: _Pool, view: Problem, acquisition: Acquisition, seen: Seen) -> FloatArray | None:
        """The best of the pool's best in the problem's own writing."""
        space = self._problem.space
        last = _Pool(view, acquisition, seen)
        if len(pool.params):
            last.add(space.decode(space.encode(pool.best(_LAST))))
        return last.best(1)[0] if len(last.params) else None


class _Pool:
    """Scored unseen candidates."""

    def __init__(self, view: Problem, acquisition: Acquisition, seen: Seen) -> None:
        self._view, self._acquisition, self._seen = view, acquisition, Seen(seen)
        self.params: FloatArray = np.empty((0, len(view.parameter_names)))
        self._value: FloatArray = np.empty(0)

    def add(self, params: FloatArray) -> None:
        """Score `params: r x p`, leaving out what is known."""
        fresh = [i for i, row in enumerate(params) if self._seen.add(row)]
        if not fresh:
            return
        params = params[fresh]
        value = self._acquisition.value(self._view.space.encode(params), params)
        self.params = np.concatenate([self.params, params])
        self._value = np.concatenate([self._value, np.nan_to_num(value, nan=-np.inf)])

    def best(self, n: int) -> FloatArray:
        """`<= n x p` best so far."""
        return np.asarray(self.params[np.argsort(-self._value, kind="stable")[:n]])


def _sobol(n: int, d: int, rng: np.random.Generator) -> FloatArray:
    """`n x d` of a scrambled Sobol sequence; drawn as a power of two and cut."""
    return np.asarray(qmc.Sobol(d, scramble=True, rng=rng).random_base2(max(n - 1, 1).bit_length())[:n])
