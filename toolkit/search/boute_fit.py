"""When `boute` fits from scratch, and where its other fits start.

A fit from scratch (the prior's default and two draws from the prior) is made at every fifth number of evaluations, an
*anchor*; in between a fit starts from the last anchor's end and from the default again, for a few steps: from its own
past alone it would stay in a poor optimum. An anchor sees the first evaluations alone, so that a resumed search finds
the same one without having been there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from simulators.outcomes import FloatArray
from toolkit.search.boute_kernel import Layout
from toolkit.search.boute_process import StructuredProcess, fit_structured
from toolkit.search.surrogate import Fit

_EVERY = 5
_DRAWS = 2
_MOST_STEPS, _MOST_STEPS_BETWEEN = 60, 15


class Fits:
    """Fits of all outputs of one search.

    Args:
        layouts: Kernel of each output.
        root: Seed of the draws.
        by_botorch: Whether BoTorch fits, each time from the default.
    """

    def __init__(self, layouts: Sequence[Layout], *, root: int, by_botorch: bool) -> None:
        self._layouts, self._root, self._by_botorch = layouts, root, by_botorch
        self._anchors: dict[tuple[int, int], FloatArray] = {}

    def all(self) -> list[Fit]:
        """One fit per output."""
        return [partial(self._fit, i) for i in range(len(self._layouts))]

    def _fit(self, i: int, X: FloatArray, y: FloatArray) -> StructuredProcess:
        if self._by_botorch:
            from toolkit.search.boute_botorch import fit_by_botorch

            return fit_by_botorch(self._layouts[i], X, y)
        n = len(y) - len(y) % _EVERY
        if n in (0, len(y)):
            found = self._from_scratch(i, X, y)
            self._anchors[i, n] = found.theta
            return found
        if (i, n) not in self._anchors:
            self._anchors[i, n] = self._from_scratch(i, X[:n], y[:n]).theta
        return fit_structured(self._layouts[i], X, y, starts=[self._anchors[i, n]], most_steps=_MOST_STEPS_BETWEEN)

    def _from_scratch(self, i: int, X: FloatArray, y: FloatArray) -> StructuredProcess:
        rng = np.random.default_rng(np.random.SeedSequence(self._root, spawn_key=(1, i, len(y))))
        return fit_structured(self._layouts[i], X, y, draws=_DRAWS, rng=rng, most_steps=_MOST_STEPS)
