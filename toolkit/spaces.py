"""Search spaces: the unit cube on one side, parameters of a policy on the other.

Thresholds are searched as *load fractions* by stick-breaking, so that the cube has no mirror copies and equal steps
move equal traffic. Under ties only some fractions can be realised: `decode` gives the nearest realisable vector and
`encode` its coordinates, which is what the journal holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from toolkit.evaluation.path import LambdaPath
from toolkit.evaluation.thresholds import ScoreOrder


class SearchSpace(Protocol):
    """A map between `[0, 1]^d` and parameters."""

    @property
    def dim(self) -> int:
        """d."""
        ...

    def decode(self, X: FloatArray) -> FloatArray:
        """`n x d` cube points to `n x p` parameters."""
        ...

    def encode(self, params: FloatArray) -> FloatArray:
        """`n x p` parameters to `n x d` cube points; `decode(encode(p))` acts as `p` does."""
        ...


def fractions_from_cube(X: FloatArray) -> FloatArray:
    """Stick-breaking: uniform on the cube becomes uniform on the simplex.

    `f_1 = 1 - (1 - x_1)^(1/d)`, then the same with what is left of the stick.

    Args:
        X: `n x d` in [0, 1].

    Returns:
        `n x (d+1)` fractions that sum to one.
    """
    d = X.shape[1]
    broken = 1.0 - (1.0 - X) ** (1.0 / np.arange(d, 0, -1))
    left = np.cumprod(1.0 - broken, axis=1)
    before = np.concatenate([np.ones((len(X), 1)), left], axis=1)
    return np.asarray(before * np.concatenate([broken, np.ones((len(X), 1))], axis=1))


def cube_from_fractions(fractions: FloatArray) -> FloatArray:
    """Inverse of `fractions_from_cube`; where no stick is left, 0."""
    d = fractions.shape[1] - 1
    left = 1.0 - np.concatenate([np.zeros((len(fractions), 1)), np.cumsum(fractions, axis=1)[:, :-2]], axis=1)
    share = np.divide(fractions[:, :-1], left, out=np.zeros_like(left), where=left > 1e-12)
    return np.asarray(1.0 - np.clip(1.0 - share, 0.0, 1.0) ** np.arange(d, 0, -1))


class ThresholdSpace:
    """Load fractions of the K tiers, on the free queries of the tune split.

    Args:
        order: The sorted scores.
        n_tiers: K.
    """

    def __init__(self, order: ScoreOrder, n_tiers: int) -> None:
        self._order = order
        self.dim = n_tiers - 1

    def decode(self, X: FloatArray) -> FloatArray:
        """See `SearchSpace`."""
        wanted = np.cumsum(fractions_from_cube(X), axis=1)[:, :-1] * len(self._order.order)
        positions = self._order.positions
        right = np.clip(np.searchsorted(positions, wanted), 1, len(positions) - 1)
        nearer_left = wanted - positions[right - 1] <= positions[right] - wanted
        return np.asarray(self._order.boundaries[right - nearer_left])

    def encode(self, params: FloatArray) -> FloatArray:
        """See `SearchSpace`."""
        n = max(len(self._order.order), 1)
        edges = np.concatenate(
            [np.zeros((len(params), 1)), self._order.position(params) / n, np.ones((len(params), 1))], axis=1
        )
        return cube_from_fractions(np.diff(edges, axis=1))


class UtilitySpace:
    """`log λ` over the span of the λ path, and offsets in `[-offset_range, offset_range]`.

    Args:
        path: The λ path, which bounds λ.
        n_tiers: K.
        offset_range: Half-width of each offset, in quality.
    """

    def __init__(self, path: LambdaPath, n_tiers: int, offset_range: float) -> None:
        if not 0 <= offset_range <= 1:
            raise ConfigError(f"policy.offset_range is in units of quality, in [0, 1]; got {offset_range:g}")
        self._low, self._high = np.log(path.lambdas[0]), np.log(path.lambdas[-1])
        self._range = offset_range
        self._n_offsets = n_tiers - 1
        self.dim = n_tiers if offset_range > 0 else 1

    def decode(self, X: FloatArray) -> FloatArray:
        """See `SearchSpace`."""
        lam = np.exp(self._low + X[:, :1] * (self._high - self._low))
        offsets = self._range * (2.0 * X[:, 1:] - 1.0) if self.dim > 1 else np.zeros((len(X), self._n_offsets))
        return np.asarray(np.concatenate([lam, offsets], axis=1))

    def encode(self, params: FloatArray) -> FloatArray:
        """See `SearchSpace`."""
        width = self._high - self._low
        x = (np.log(params[:, :1]) - self._low) / width if width > 0 else np.zeros((len(params), 1))
        if self.dim == 1:
            return np.asarray(np.clip(x, 0.0, 1.0))
        return np.asarray(np.clip(np.concatenate([x, (params[:, 1:] / self._range + 1.0) / 2.0], axis=1), 0.0, 1.0))


class JoinedSpace:
    """Spaces side by side: coordinates and parameters of the first, then those of the next.

    Args:
        parts: `(space, number of its parameters)`.
    """

    def __init__(self, parts: Sequence[tuple[SearchSpace, int]]) -> None:
        self._spaces = [space for space, _ in parts]
        self._d_edges = np.cumsum([space.dim for space in self._spaces])[:-1]
        self._p_edges = np.cumsum([p for _, p in parts])[:-1]
        self.dim = sum(space.dim for space in self._spaces)

    def decode(self, X: FloatArray) -> FloatArray:
        """See `SearchSpace`."""
        pieces = np.split(X, self._d_edges, axis=1)
        return np.concatenate([s.decode(x) for s, x in zip(self._spaces, pieces, strict=True)], axis=1)

    def encode(self, params: FloatArray) -> FloatArray:
        """See `SearchSpace`."""
        pieces = np.split(params, self._p_edges, axis=1)
        return np.concatenate([s.encode(p) for s, p in zip(self._spaces, pieces, strict=True)], axis=1)
