"""Which deployments a candidate may take: one candidate set per tier, joined so that the whole fits.

Notation: n candidates, M tiers, C_m deployments of tier m, J joint choices (one deployment per tier).

A *joint choice* is structurally feasible where its GPUs can be had and paid for. `JointChoices` maps the unit cube onto
those only: the first coordinate picks the first tier's deployment among those that leave room for the others, the next
one that of the second tier among what is left, and so on; a tier without requests takes no GPU, and one with requests
takes some. `FreeChoices` lets every tier pick for itself, so that most picks do not fit: the ablation without
structural exclusion.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulators.errors import InfeasibleError
from simulators.outcomes import FloatArray, IntArray

BoolArray = NDArray[np.bool_]
_NOTHING_FITS = "no deployment of all tiers fits the GPUs and the budget; raise space.budget_usd_per_hour or the counts"


class Choices(Protocol):
    """A map between `[0, 1]^M` and joint choices."""

    @property
    def all(self) -> IntArray:
        """`J x M` choices in which every tier is deployed."""
        ...

    def fitting(self, needed: BoolArray) -> IntArray:
        """Choices where the tiers of `needed: M` get requests; all of them where deployments ignore that."""
        ...

    def decode(self, X: FloatArray, needed: BoolArray) -> IntArray:
        """`n x M` choices for `X: n x M`; `needed: n x M` says which tiers get requests."""
        ...

    def encode(self, choice: IntArray, needed: BoolArray) -> FloatArray:
        """`n x M` cube points that `decode` maps to `choice: n x M`."""
        ...


class FreeChoices:
    """Every tier picks among all its deployments, whether or not they fit together.

    Args:
        usd_per_hour: For each tier its `C_m` prices; the order along its coordinate.
        empty: For each tier the index of "no GPUs".

    Raises:
        InfeasibleError: If a tier has no deployment.
    """

    def __init__(self, usd_per_hour: tuple[FloatArray, ...], empty: tuple[int, ...]) -> None:
        orders = [np.argsort(price, kind="stable") for price in usd_per_hour]
        self._order = [order[order != e] for order, e in zip(orders, empty, strict=True)]
        if not all(len(order) for order in self._order):
            raise InfeasibleError(_NOTHING_FITS)
        self._rank = [_inverse(order, len(price)) for order, price in zip(self._order, usd_per_hour, strict=True)]

    @property
    def all(self) -> IntArray:
        """See `Choices`."""
        grids = np.meshgrid(*self._order, indexing="ij")
        return np.stack([grid.ravel() for grid in grids], axis=1)

    def fitting(self, needed: BoolArray) -> IntArray:
        """See `Choices`."""
        return self.all

    def decode(self, X: FloatArray, needed: BoolArray) -> IntArray:
        """See `Choices`; `needed` changes nothing."""
        picks = [order[_slot(X[:, m], len(order))] for m, order in enumerate(self._order)]
        return np.stack(picks, axis=1)

    def encode(self, choice: IntArray, needed: BoolArray) -> FloatArray:
        """See `Choices`."""
        ranks = [(rank[choice[:, m]] + 0.5) / len(self._order[m]) for m, rank in enumerate(self._rank)]
        return np.stack(ranks, axis=1)


class JointChoices:
    """Only what fits.

    Args:
        feasible: `J x M` structurally feasible joint choices, those with undeployed tiers among them.
        usd_per_hour: For each tier its `C_m` prices; the order along its coordinate.
        empty: For each tier the index of "no GPUs".

    Raises:
        InfeasibleError: If no choice deploys every tier.
    """

    def __init__(self, feasible: IntArray, usd_per_hour: tuple[FloatArray, ...], empty: tuple[int, ...]) -> None:
        self._rank = [_inverse(np.argsort(price, kind="stable"), len(price)) for price in usd_per_hour]
        self._n_tiers = len(usd_per_hour)
        deployed = feasible != np.array(empty)
        code = deployed @ (1 << np.arange(self._n_tiers))
        self._trees = {int(c): _Tree(feasible[code == c], self._rank) for c in np.unique(code)}
        self._full = (1 << self._n_tiers) - 1
        if self._full not in self._trees:
            raise InfeasibleError(_NOTHING_FITS)

    @property
    def all(self) -> IntArray:
        """See `Choices`."""
        return self._trees[self._full].choices

    def fitting(self, needed: BoolArray) -> IntArray:
        """See `Choices`."""
        return self._trees[int(self._codes(needed[None, :])[0])].choices

    def _codes(self, needed: BoolArray) -> IntArray:
        """`n` sets of deployed tiers; where nothing fits exactly those, all tiers."""
        code = needed @ (1 << np.arange(self._n_tiers))
        return np.where(np.isin(code, list(self._trees)), code, self._full)

    def decode(self, X: FloatArray, needed: BoolArray) -> IntArray:
        """See `Choices`."""
        found = np.empty((len(X), self._n_tiers), dtype=np.int64)
        code = self._codes(needed)
        for c in np.unique(code):
            rows = code == c
            found[rows] = self._trees[int(c)].decode(X[rows])
        return found

    def encode(self, choice: IntArray, needed: BoolArray) -> FloatArray:
        """See `Choices`; a choice that does not fit lands on a neighbour of its."""
        found = np.empty((len(choice), self._n_tiers))
        code = self._codes(needed)
        for c in np.unique(code):
            rows = code == c
            found[rows] = self._trees[int(c)].encode(choice[rows])
        return found


class _Tree:
    """Joint choices in lexicographic order of their tiers' prices: a coordinate picks among equal shares of branches.

    Args:
        choices: `J x M`.
        rank: For each tier, `C_m` positions by price.
    """

    def __init__(self, choices: IntArray, rank: list[IntArray]) -> None:
        keys = np.stack([r[choices[:, m]] for m, r in enumerate(rank)], axis=1)
        order = np.lexsort(keys.T[::-1])
        self.choices: IntArray = np.asarray(choices[order])
        self._keys, self._rank = keys[order], rank
        changed = np.cumsum(np.diff(self._keys, axis=0, prepend=-1) != 0, axis=1) > 0
        self._starts = [np.flatnonzero(changed[:, m]) for m in range(choices.shape[1])]  # first rows of branches
        self._codes = []  # of branches: the first one with the same parent, then the tier's own rank; ascending
        for m, starts in enumerate(self._starts):
            parents = self._starts[m - 1] if m else np.zeros(1, dtype=np.int64)
            parent = parents[np.searchsorted(parents, starts, side="right") - 1]
            first = np.searchsorted(starts, parent)
            self._codes.append(first * len(rank[m]) + self._keys[starts, m])

    def _branches(self, m: int, low: IntArray, high: IntArray) -> tuple[IntArray, IntArray]:
        """Range of level-m branches inside the rows `low ... high - 1`."""
        starts = self._starts[m]
        return np.searchsorted(starts, low), np.searchsorted(starts, high)

    def decode(self, X: FloatArray) -> IntArray:
        low, high = np.zeros(len(X), dtype=np.int64), np.full(len(X), len(self.choices))
        for m, starts in enumerate(self._starts):
            first, last = self._branches(m, low, high)
            pick = first + np.minimum((X[:, m] * (last - first)).astype(np.int64), last - first - 1)
            ends = np.append(starts, len(self.choices))
            low, high = ends[pick], np.minimum(ends[pick + 1], high)
        return np.asarray(self.choices[low])

    def encode(self, choice: IntArray) -> FloatArray:
        found = np.empty(choice.shape)
        low, high = np.zeros(len(choice), dtype=np.int64), np.full(len(choice), len(self.choices))
        for m, starts in enumerate(self._starts):
            first, last = self._branches(m, low, high)
            wanted = first * len(self._rank[m]) + self._rank[m][choice[:, m]]
            pick = np.minimum(np.searchsorted(self._codes[m], wanted), last - 1)
            found[:, m] = (pick - first + 0.5) / (last - first)
            ends = np.append(starts, len(self.choices))
            low, high = ends[pick], np.minimum(ends[pick + 1], high)
        return found


def _slot(x: FloatArray, n: int) -> IntArray:
    return np.minimum((x * n).astype(np.int64), n - 1)


def _inverse(order: IntArray, n: int) -> IntArray:
    """Position of every index in an order; 0 for one that is not in it."""
    rank = np.zeros(n, dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank
