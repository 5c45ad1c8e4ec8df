r"""Batch assignment by a linear programme, as OmniRouter (arXiv 2502.20576) poses it.

For a batch of n queries with predicted quality p and cost c,

    min  Σ_ik c_ik x_ik   s.t.  Σ_k x_ik = 1,  Σ_ik p_ik x_ik >= n α,  Σ_i x_ik <= L_k,  x >= 0,

solved by HiGHS (through SciPy's `milp` without whole numbers: a third of the overhead of `linprog`). A basic solution
divides few queries between tiers; they are rounded one by one to a tier with room. Where α is beyond the batch, it gets
the best predicted quality that the limits allow, and the run says so.

Notation: n queries in a batch, K tiers.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray
from simulators.seeds import spawn_rng
from toolkit.baselines.base import RouterRun, Split
from toolkit.baselines.common import complete, filled, looked_up

_WHOLE = 1e-6
_INFEASIBLE = 2
_ROUNDINGS = ("random", "largest")


def omnirouter(
    split: Split,
    *,
    batch: int = 64,
    limit: int | None = None,
    settings: int = 40,
    rounding: str = "random",
) -> RouterRun:
    """Cheapest assignment of each batch whose mean predicted quality reaches α, under concurrency limits.

    Args:
        split: The split; scores must predict quality.
        batch: Queries that are decided together, in a random order by the split's seed.
        limit: L, most queries of a batch per tier; None for no limit, which is fair towards methods that know none.
        settings: Values of α, evenly spaced between the worst and the best mean predicted quality on tune.
        rounding: `random` draws a tier by its share, `largest` takes the largest share.

    Raises:
        ConfigError: If an option makes no sense, or the limits leave queries without a tier.
    """
    k = split.tune.n_tiers
    most = batch if limit is None else limit
    if batch < 1 or most * k < batch or rounding not in _ROUNDINGS:
        raise ConfigError(
            f"omnirouter needs batch >= 1, limit * {k} tiers >= batch and rounding in {_ROUNDINGS}; "
            f"got {batch}, {most} and {rounding!r}"
        )
    started = time.perf_counter()
    tune = complete(split.tune_scores, k)
    parts = {"tune": filled(tune, tune), "held_out": filled(complete(split.held_out_scores, k), tune)}
    p = parts["tune"][0]
    alphas = np.linspace(p.mean(axis=0).min(), p.max(axis=1).mean(), settings)
    tiers, short = {}, {}
    for name, (quality, cost) in parts.items():
        rng = spawn_rng(split.seed, "omnirouter", name)
        order = rng.permutation(len(quality))
        tiers[name], short[name] = _assign(quality, cost, order, alphas, batch, most, rounding, rng)
    return looked_up(
        split,
        name="omnirouter",
        knob="α, mean predicted quality",
        settings=alphas,
        tune=tiers["tune"],
        held_out=tiers["held_out"],
        started=started,
        unreached=short["held_out"],
    )


def _assign(
    quality: FloatArray,
    cost: FloatArray,
    order: IntArray,
    alphas: FloatArray,
    batch: int,
    limit: int,
    rounding: str,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int8], FloatArray]:
    """`n x N` tiers, and per α the share of the queries in batches that cannot reach it."""
    tier = np.empty((len(alphas), len(quality)), dtype=np.int8)
    short = np.zeros(len(alphas))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        programme = Programme(quality[rows], cost[rows], limit=limit)
        for i, alpha in enumerate(alphas):
            share, reached = programme.solve(float(alpha))
            tier[i, rows] = round_shares(share, limit=limit, rng=rng if rounding == "random" else None)
            short[i] += 0 if reached else len(rows)
    return tier, short / len(order)


class Programme:
    """The programme of one batch, for any α.

    Args:
        quality: `n x K` predicted.
        cost: `n x K` predicted.
        limit: Most queries per tier.
    """

    def __init__(self, quality: FloatArray, cost: FloatArray, *, limit: int) -> None:
        n, k = quality.shape
        self._quality, self._cost, self._limited = quality, cost / max(float(cost.max()), 1e-30), limit < n
        rows = [
            sparse.csr_matrix(quality.reshape(1, -1)),
            sparse.kron(sparse.eye(n), np.ones((1, k))),
            sparse.kron(np.ones((1, n)), sparse.eye(k)),
        ]
        self._matrix = sparse.csc_matrix(sparse.vstack(rows))
        self._low = np.concatenate([[0.0], np.ones(n), np.zeros(k)])
        self._high = np.concatenate([[np.inf], np.ones(n), np.full(k, float(limit))])

    def solve(self, alpha: float) -> tuple[FloatArray, bool]:
        """`n x K` shares of the cheapest assignment, and whether α can be reached.

        If it cannot, they are those of the best predicted quality within the limits.
        """
        best = self._quality.max(axis=1)
        if not self._limited and best.mean() < alpha:
            top = self._quality == best[:, None]
            tier = np.where(top, self._cost, np.inf).argmin(axis=1)
            return np.eye(self._quality.shape[1])[tier], False
        low = self._low.copy()
        low[0] = alpha * len(best)
        found = self._optimum(self._cost, low)
        if found is not None:
            return found, True
        found = self._optimum(-self._quality, self._low)
        assert found is not None
        return found, False

    def _optimum(self, objective: FloatArray, low: FloatArray) -> FloatArray | None:
        """`n x K` shares, or None where there are none."""
        found = milp(
            objective.ravel(),
            constraints=LinearConstraint(self._matrix, low, self._high),
            bounds=Bounds(0.0, np.inf),
        )
        if found.status == _INFEASIBLE:
            return None
        if found.status != 0:
            raise ConfigError(f"the linear programme of a batch was not solved: {found.message}; use a smaller batch")
        return np.asarray(found.x).reshape(objective.shape)


def round_shares(share: FloatArray, *, limit: int, rng: np.random.Generator | None) -> NDArray[np.int8]:
    """`n` whole tiers; divided queries go to one of their tiers with room, else to the first tier with room.

    Args:
        share: `n x K`.
        limit: Most queries per tier.
        rng: To draw by share; None takes the largest share.
    """
    whole = share.max(axis=1) > 1.0 - _WHOLE
    tier = share.argmax(axis=1)
    room = limit - np.bincount(tier[whole], minlength=share.shape[1])
    for i in np.flatnonzero(~whole):
        weight = np.where(room > 0, np.maximum(share[i], 0.0), 0.0)
        if weight.sum() == 0:
            weight = (room > 0).astype(np.float64)
            weight[weight.argmax() + 1 :] = 0.0
        tier[i] = weight.argmax() if rng is None else rng.choice(len(weight), p=weight / weight.sum())
        room[tier[i]] -= 1
    return np.asarray(tier, dtype=np.int8)
