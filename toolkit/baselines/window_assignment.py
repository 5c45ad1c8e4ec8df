r"""Assignment by a linear programme per window, after OmniRouter: least cost under a mean quality and the slots.

Requests of a window are not known before they come, so the programme plans for bins of equal traffic:

$$\min \sum_{bk} x_{bk} c_{bk} \quad \text{s.t.} \quad \sum_{bk} x_{bk} p_{bk} \ge \tau, \quad
\sum_{b, k \in j} r\, x_{bk} h_{bk} + l_j / w \le \rho\, s_j, \quad \sum_k x_{bk} = 1 / B$$

with r the recent arrival rate, l the work in line at station j, w the window and s its slots. Where that has no
solution, overload is avoided first and the missing quality is kept small next. Of a bin, the easier queries get the
cheaper tiers.

OmniRouter is arXiv 2502.20576: mean predicted performance and concurrency per model as limits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, sparse

from simulators.envs.telemetry import Telemetry
from simulators.envs.windows import Coming
from simulators.outcomes import FloatArray, IntArray
from toolkit.baselines.windows import Decide, Episode, Known, Tiers

_FORGET = 0.3
_OVERLOAD, _SHORTFALL = 1e4, 1e2  # against costs in units of the dearest bin's


@dataclass(frozen=True, kw_only=True)
class Bins:
    """B bins of equal traffic, by rank.

    Attributes:
        quality, cost_usd, hold_s: `B x K` mean predictions.
    """

    quality: FloatArray
    cost_usd: FloatArray
    hold_s: FloatArray

    def __len__(self) -> int:
        return len(self.quality)


def make_bins(known: Known, n_bins: int) -> Bins:
    """Bins of the training queries."""
    code = np.minimum((known.rank * n_bins).astype(np.int64), n_bins - 1)
    count = np.maximum(np.bincount(code, minlength=n_bins), 1)[:, None]
    member = np.eye(n_bins)[code].T
    values = (known.quality, known.cost_usd, known.hold_s)
    quality, cost_usd, hold_s = (np.asarray(member @ v / count) for v in values)
    return Bins(quality=quality, cost_usd=cost_usd, hold_s=hold_s)


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The programme's rule.

    Attributes:
        floor: `n` mean qualities tau.
        load: `n` shares rho of the slots that may be busy.
        bins: Of the training queries.
    """

    floor: FloatArray
    load: FloatArray
    bins: Bins
    window_s: float

    @property
    def n(self) -> int:
        """See `Rule`."""
        return len(self.floor)

    def begin(self, episode: Episode) -> Decide:
        """See `Rule`."""
        rate, n_bins = math.nan, len(self.bins)
        code = np.minimum((episode.known.rank * n_bins).astype(np.int64), n_bins - 1)
        within = episode.known.rank * n_bins - code

        def decide(telemetry: Telemetry, coming: Coming) -> Tiers:
            nonlocal rate
            if telemetry.window_s > 0:
                seen = telemetry.arrived / telemetry.window_s
                rate = seen if math.isnan(rate) else rate + _FORGET * (seen - rate)
            steps = np.cumsum(self.plan(episode, np.nan_to_num(rate), telemetry.waiting), axis=2) * n_bins
            return np.asarray((within[coming.row, None] >= steps[:, code[coming.row], :-1]).sum(axis=2), dtype=np.int8)

        return decide

    def plan(self, episode: Episode, rate_per_s: float, waiting: IntArray) -> FloatArray:
        """`n x B x K` shares of the traffic, for a rate and `waiting: n x J`."""
        shape = (self.n, len(self.bins), episode.known.quality.shape[1])
        served = np.isin(np.arange(len(episode.slots)), episode.station)
        bounded = np.flatnonzero(np.isfinite(episode.slots) & served)
        n_shares, n_slack = math.prod(shape[1:]), 1 + len(bounded)
        hold_s = np.array([self.bins.hold_s[:, episode.station == j].mean() for j in bounded])
        room = self.load[:, None] * episode.slots[bounded] - waiting[:, bounded] * hold_s / self.window_s
        loads = [(rate_per_s * self.bins.hold_s * (episode.station == j)).ravel() for j in bounded]
        limited = np.hstack([np.array([-self.bins.quality.ravel(), *loads]), -np.eye(n_slack)])
        each = np.hstack([np.kron(np.eye(shape[1]), np.ones((1, shape[2]))), np.zeros((shape[1], n_slack))])
        cost = (self.bins.cost_usd / self.bins.cost_usd.max()).ravel()
        found = optimize.linprog(  # type: ignore[call-overload]  # the stubs know no list of blocks
            np.tile(np.concatenate([cost, [_SHORTFALL], np.full(len(bounded), _OVERLOAD)]), self.n),
            A_ub=sparse.block_diag([limited] * self.n, format="csc"),
            b_ub=np.hstack([-self.floor[:, None], np.maximum(room, 0.0)]).ravel(),
            A_eq=sparse.block_diag([each] * self.n, format="csc"),
            b_eq=np.full(self.n * shape[1], 1.0 / shape[1]),
            method="highs",
        )
        x = found.x.reshape(self.n, n_shares + n_slack)[:, :n_shares]
        return np.asarray(x.reshape(shape))
