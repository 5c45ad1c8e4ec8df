"""Budget pacing: a multiplier on cost that follows the bills, query by query.

    tier      argmax_k p_k - (w + λ) c~_k,
    bill      m <- (1 - e) m + e c,
    dual      λ <- clip(λ + step (m / B - 1), 0, most),

with c~ the logarithm of the predicted cost, scaled so that the tune predictions span [0, 1], and B the budget per query
(ParetoBandit, arXiv 2604.00136, on the predictions of the split instead of a bandit's).

Notation: n budgets, N queries, K tiers.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray
from simulators.seeds import spawn_rng
from toolkit.baselines.base import RouterRun, Split
from toolkit.baselines.common import SMALLEST_COST_USD, default_lanes, looked_up
from toolkit.policies.lanes import FREE
from toolkit.policies.utility import predictions
from toolkit.scorers.base import ScoreTable


class Pacer:
    """n multipliers side by side, one per budget.

    Args:
        budget_usd: `n` budgets per query.
        static_weight: w.
        step: Of the multiplier.
        memory: e, the weight of the newest bill.
        most: Largest multiplier.
    """

    def __init__(
        self, *, budget_usd: FloatArray, static_weight: float, step: float, memory: float, most: float
    ) -> None:
        self.budget_usd, self._weight = budget_usd, static_weight
        self._step, self._memory, self._most = step, memory, most
        self.mean_usd: FloatArray = budget_usd.copy()
        self.multiplier: FloatArray = np.zeros(len(budget_usd))

    def bill(self, cost_usd: FloatArray) -> None:
        """Take the bills of one query (`cost_usd: n`)."""
        self.mean_usd = (1.0 - self._memory) * self.mean_usd + self._memory * cost_usd
        change = self._step * (self.mean_usd / self.budget_usd - 1.0)
        self.multiplier = np.clip(self.multiplier + change, 0.0, self._most)

    def choose(self, quality: FloatArray, relative_cost: FloatArray) -> NDArray[np.int8]:
        """`n` tiers of one query (`quality`, `relative_cost`: `K`); among equals the first."""
        utility = quality - (self._weight + self.multiplier)[:, None] * relative_cost
        return np.asarray(utility.argmax(axis=1), dtype=np.int8)


def budget_pacing(
    split: Split,
    *,
    settings: int = 60,
    static_weight: float = 0.0,
    step: float = 0.05,
    memory: float = 0.05,
    most: float = 5.0,
) -> RouterRun:
    """A budget per query kept online, as ParetoBandit does.

    Queries come in a random order by the split's seed. The tune queries pass twice, the first time to warm up; held-out
    queries start from the multiplier that this leaves. Decisions look at bills of earlier queries, never at quality.

    Args:
        split: The split; scores must predict quality and cost.
        settings: Budgets B, evenly spaced in their logarithm between the cheapest and the dearest tier's tune cost.
        static_weight: w; ParetoBandit has 0.3, which keeps good tiers out of reach where qualities differ little.
        step: Of the multiplier.
        memory: e.
        most: Largest multiplier.

    Raises:
        ConfigError: If costs are unknown.
    """
    if not split.tune.has_cost or not split.held_out.has_cost or split.tune_scores.cost_usd is None:
        raise ConfigError("budget_pacing needs recorded and predicted costs; leave it out where costs are unknown")
    started = time.perf_counter()
    ends = np.sort(split.tune.cost_usd.mean(axis=0))[[0, -1]]
    budgets = np.geomspace(max(ends[0], SMALLEST_COST_USD), ends[1], settings)
    pacer = Pacer(budget_usd=budgets, static_weight=static_weight, step=step, memory=memory, most=most)
    scale = _span(split.tune_scores)
    tune = (split.tune_scores, split.tune.cost_usd)
    passes = {"warm-up": tune, "tune": tune, "held_out": (split.held_out_scores, split.held_out.cost_usd)}
    tiers = {}
    for name, (scores, cost) in passes.items():
        order = spawn_rng(split.seed, "pacing", name).permutation(len(cost))
        tiers[name] = _walk(pacer, scores, cost, scale, order)
    return looked_up(
        split,
        name="budget_pacing",
        knob="budget, USD per query",
        settings=budgets,
        tune=tiers["tune"],
        held_out=tiers["held_out"],
        started=started,
    )


def _span(scores: ScoreTable) -> tuple[float, float]:
    """Lowest and highest logarithm of a predicted cost."""
    log = _log(predictions(scores)[1])
    return float(np.nanmin(log)), float(np.nanmax(log))


def _log(cost: FloatArray) -> FloatArray:
    return np.log(np.maximum(cost, SMALLEST_COST_USD))


def _walk(
    pacer: Pacer, scores: ScoreTable, cost_usd: FloatArray, span: tuple[float, float], order: IntArray
) -> NDArray[np.int8]:
    """`n x N` tiers, by column in the order of the table; the pacer moves on."""
    quality, predicted = predictions(scores)
    relative = np.clip((_log(predicted) - span[0]) / max(span[1] - span[0], 1e-12), 0.0, 1.0)
    pinned = default_lanes(quality.shape[1]).pinned(scores)
    tier = np.empty((len(pacer.budget_usd), len(quality)), dtype=np.int8)
    for i in order:
        tier[:, i] = pacer.choose(quality[i], relative[i]) if pinned[i] == FREE else pinned[i]
        pacer.bill(cost_usd[i, tier[:, i]])
    return tier
