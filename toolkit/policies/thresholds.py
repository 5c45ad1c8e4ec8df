"""`thresholds`: tier k if `t_k <= score < t_{k+1}`; what gateways take."""

from __future__ import annotations

import itertools
import sys

import numpy as np
from numpy.typing import NDArray

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from toolkit.policies.lanes import FREE, Lanes
from toolkit.scorers.base import ScoreTable

UNREACHABLE = sys.float_info.max
"""A boundary no score reaches; its negative is one every score reaches. Finite, so that JSON stays JSON."""


class ThresholdPolicy:
    """Non-decreasing boundaries `t_1 <= ... <= t_{K-1}` on one score; a higher score means a harder query."""

    kind = "thresholds"

    def parameter_names(self, n_tiers: int) -> tuple[str, ...]:
        """`t_1 ... t_{K-1}`."""
        return tuple(f"t_{k}" for k in range(1, n_tiers))

    def assign(self, params: FloatArray, scores: ScoreTable, lanes: Lanes) -> NDArray[np.int8]:
        """`n x N` tiers: the number of boundaries at or below each score.

        Raises:
            ConfigError: If boundaries decrease or one is not a number.
        """
        if np.isnan(params).any() or (params[:, 1:] < params[:, :-1]).any():
            raise ConfigError("thresholds must be numbers that never decrease from one tier to the next")
        tier = np.zeros((len(params), len(scores.score)), dtype=np.int8)
        for boundary in params.T:
            tier += scores.score[None, :] >= boundary[:, None]
        pinned = lanes.pinned(scores)
        tier[:, pinned != FREE] = pinned[pinned != FREE]
        return tier

    def reasons(self, params: FloatArray, scores: ScoreTable) -> list[str]:
        """The band each score falls into."""
        edges = ["-inf" if t <= -UNREACHABLE else "inf" if t >= UNREACHABLE else f"{t:.6g}" for t in params]
        bands = [f"score < {edges[0]}"]
        bands += [f"{low} <= score < {high}" for low, high in itertools.pairwise(edges)]
        bands += [f"score >= {edges[-1]}"]
        tier = np.searchsorted(params, scores.score, side="right")
        return [bands[k] for k in tier]
