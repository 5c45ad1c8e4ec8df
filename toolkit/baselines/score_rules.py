"""Routers on the scores of a split: thresholds, utility, CARROT, RouteLLM's quantiles.

References:
    [Somerstep2025] Somerstep et al., CARROT: a cost aware rate optimal router, arXiv 2502.03261.
    [Ong2024] I. Ong et al., RouteLLM: learning to route LLMs with preference data, arXiv 2406.18665.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from toolkit.baselines.base import RouterRun, Split
from toolkit.baselines.common import (
    MOST_SETTINGS,
    complete,
    default_lanes,
    effort,
    looked_up,
    pin,
    thin,
    tier_number,
)
from toolkit.baselines.threshold_front import threshold_front
from toolkit.evaluation.path import LambdaPath
from toolkit.evaluation.thresholds import ScoreOrder
from toolkit.policies.thresholds import UNREACHABLE, ThresholdPolicy
from toolkit.policies.utility import UtilityPolicy, predictions
from toolkit.scorers.base import ScoreTable


def thresholds(split: Split, *, settings: int = MOST_SETTINGS) -> RouterRun:
    """All K-1 boundaries on the score: of all vectors those that nothing dominates on tune, by their tune cost.

    Args:
        split: The split.
        settings: Most points of the front that are looked up.
    """
    started = time.perf_counter()
    table, lanes = split.tune, default_lanes(split.tune.n_tiers)
    params = threshold_front(ScoreOrder(split.tune_scores, lanes), table.quality, effort(table))
    params = params[thin(len(params), settings)]
    tune, held_out = (
        ThresholdPolicy().assign(params, scores, lanes) for scores in (split.tune_scores, split.held_out_scores)
    )
    spent = effort(table)[np.arange(table.n_queries), tune].mean(axis=1)
    knob = "tune cost, USD per query" if table.has_cost else "tune effort, mean rank of tier"
    return looked_up(split, name="thresholds", knob=knob, settings=spent, tune=tune, held_out=held_out, started=started)


def utility(split: Split, *, settings: int = MOST_SETTINGS) -> RouterRun:
    """`argmax_k p_k - λ c_k` on the predictions, for every λ of the tune queries' path.

    Args:
        split: The split; scores must predict quality.
        settings: Most λ that are looked up.
    """
    return utility_on(split, split.tune_scores, split.held_out_scores, name="utility", settings=settings)


def utility_on(
    split: Split,
    tune_scores: ScoreTable,
    held_out_scores: ScoreTable,
    *,
    name: str,
    settings: int,
    started: float | None = None,
) -> RouterRun:
    """`utility` on given predictions."""
    started = time.perf_counter() if started is None else started
    k, lanes = split.tune.n_tiers, default_lanes(split.tune.n_tiers)
    tune, held_out = complete(tune_scores, k), complete(held_out_scores, k)
    lambdas = LambdaPath(tune, lanes).lambdas[::-1]
    lambdas = lambdas[thin(len(lambdas), settings)]
    params = np.concatenate([lambdas[:, None], np.zeros((len(lambdas), k - 1))], axis=1)
    return looked_up(
        split,
        name=name,
        knob="λ, quality per USD" if split.tune.has_cost else "λ, quality per rank of tier",
        settings=lambdas,
        tune=UtilityPolicy().assign(params, tune, lanes),
        held_out=UtilityPolicy().assign(params, held_out, lanes),
        started=started,
    )


def carrot(split: Split, *, step: float = 0.001, cost_factor: float = 1.0) -> RouterRun:
    """`argmax_k (1-μ) p_k - μ f c_k` for μ from 1 to 0 [Somerstep2025]_.

    Args:
        split: The split; scores must predict quality.
        step: Of μ.
        cost_factor: f: 1 as in the paper, 100 as in the published code.

    Raises:
        ConfigError: If step or factor make no sense.
    """
    if not 0 < step <= 1 or cost_factor <= 0:
        raise ConfigError(f"carrot needs a step in (0, 1] and a cost_factor > 0; got {step:g} and {cost_factor:g}")
    started = time.perf_counter()
    mu = np.linspace(1.0, 0.0, round(1.0 / step) + 1)
    tiers = [
        _weighted(complete(scores, split.tune.n_tiers), mu, cost_factor)
        for scores in (split.tune_scores, split.held_out_scores)
    ]
    return looked_up(split, name="carrot", knob="μ", settings=mu, tune=tiers[0], held_out=tiers[1], started=started)


def _weighted(scores: ScoreTable, mu: FloatArray, cost_factor: float) -> NDArray[np.int8]:
    """`n x N` tiers; ties go to the first tier, which is the cheaper one on average."""
    p, c = predictions(scores)
    best = np.full((len(mu), len(p)), -np.inf)
    tier = np.zeros(best.shape, dtype=np.int8)
    for k in range(p.shape[1]):
        value = np.outer(1.0 - mu, p[:, k]) - np.outer(mu * cost_factor, c[:, k])
        better = value > best
        best[better], tier[better] = value[better], k
    return pin(tier, scores, p.shape[1])


def routellm(
    split: Split, *, weak: str | int | None = None, strong: str | int | None = None, settings: int = 101
) -> RouterRun:
    """Two tiers; the share of strong calls sets the quantile of the tune scores from which strong is asked [Ong2024]_.

    The score is the predicted gain of strong over weak where quality is predicted, else the scorer's own.

    Args:
        split: The split.
        weak: Name or number; the cheapest tier by default.
        strong: Name or number; the best tier on tune by default.
        settings: Shares, evenly spaced in [0, 1].

    Raises:
        ConfigError: If both are the same tier.
    """
    started = time.perf_counter()
    table = split.tune
    low = tier_number(weak, 0, table)
    others = np.delete(np.arange(table.n_tiers), low)
    high = tier_number(strong, int(others[table.quality.mean(axis=0)[others].argmax()]), table)
    if low == high:
        raise ConfigError(f"routellm needs two tiers; both are {table.tiers[low]!r}")
    shares = np.linspace(0.0, 1.0, settings)
    gains = [_gain(scores, low, high) for scores in (split.tune_scores, split.held_out_scores)]
    boundary = np.nanquantile(gains[0], 1.0 - shares)
    boundary[0], boundary[-1] = UNREACHABLE, -UNREACHABLE
    tune, held_out = (np.where(~(gain[None] < boundary[:, None]), high, low).astype(np.int8) for gain in gains)
    return looked_up(
        split,
        name="routellm",
        knob=f"share of {table.tiers[high]} on tune",
        settings=shares,
        tune=tune,
        held_out=held_out,
        started=started,
    )


def _gain(scores: ScoreTable, low: int, high: int) -> FloatArray:
    """`N`; NaN where the scorer failed, which counts as hard."""
    return scores.score if scores.quality is None else scores.quality[:, high] - scores.quality[:, low]
