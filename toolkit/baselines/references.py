"""Routers that read no prompt (single tiers, mixtures of them), and bounds that read the answers (oracle, cascade).

References:
    [Hu2024] Q. J. Hu et al., RouterBench: a benchmark for multi-LLM routing systems, arXiv 2403.12031.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, OutcomeTable
from simulators.seeds import spawn_rng
from toolkit.baselines.base import Routed, RouterRun, Split
from toolkit.baselines.common import MOST_SETTINGS, default_lanes, effort, looked_up, thin
from toolkit.evaluation.path import LambdaPath
from toolkit.policies.utility import UtilityPolicy
from toolkit.scorers.base import ScoreTable
from toolkit.zero_router import zero_router as hull_of


def fixed(split: Split) -> RouterRun:
    """Each tier alone."""
    return _single(split, "fixed", np.arange(split.tune.n_tiers))


def cheapest(split: Split) -> RouterRun:
    """The tier of least mean cost on tune."""
    return _single(split, "cheapest", effort(split.tune.bare).mean(axis=0).argmin())


def best_fixed(split: Split) -> RouterRun:
    """The tier of most mean quality on tune; among equals the first, which is the cheaper one."""
    return _single(split, "best_fixed", split.tune.bare.quality.mean(axis=0).argmax())


def _single(split: Split, name: str, tiers: np.intp | NDArray[np.int64]) -> RouterRun:
    shares = np.eye(split.tune.n_tiers)[np.atleast_1d(tiers)]
    return _mixed(split, name, "tier", np.atleast_1d(tiers).astype(np.float64), shares)


def random(split: Split) -> RouterRun:
    """Every tier equally likely; figures are expectations."""
    k = split.tune.n_tiers
    return _mixed(split, "random", "share of each tier", np.array([1.0 / k]), np.full((1, k), 1.0 / k))


def zero_router(split: Split, *, settings: int = 201) -> RouterRun:
    """Mixtures of neighbours on the hull of the single tiers' tune figures [Hu2024]_; figures are expectations.

    Args:
        split: The split.
        settings: Mixtures, evenly spaced in quality between the ends of the hull; the hull's tiers come on top.
    """
    table = split.tune.bare
    hull = hull_of(effort(table).mean(axis=0), table.quality.mean(axis=0))
    levels = np.union1d(np.linspace(hull.quality[0], hull.quality[-1], settings), hull.quality)
    weights = [np.interp(levels, hull.quality, row) for row in np.eye(len(hull.tier))]
    shares = np.zeros((len(levels), table.n_tiers))
    shares[:, hull.tier] = np.stack(weights, axis=1)
    return _mixed(split, "zero_router", "expected tune quality", levels, shares)


def _mixed(split: Split, name: str, knob: str, settings: FloatArray, shares: FloatArray) -> RouterRun:
    """Tiers by the toss of a coin (`shares: n x K`), as expectations; no router is paid for."""
    started = time.perf_counter()
    tune, held_out = (_expect(table.bare, shares) for table in (split.tune, split.held_out))
    seconds = time.perf_counter() - started
    return RouterRun(name=name, knob=knob, settings=settings, tune=tune, held_out=held_out, seconds=seconds)


def _expect(table: OutcomeTable, shares: FloatArray) -> Routed:
    pure = shares.max(axis=1) == 1.0
    tier = np.where(pure, shares.argmax(axis=1), -1).astype(np.int8)
    return Routed(
        tier=np.repeat(tier[:, None], table.n_queries, axis=1),
        quality=np.clip(shares @ table.quality.T, 0.0, 1.0),
        cost_usd=shares @ table.cost_usd.T,
        mixture=shares,
    )


def oracle(split: Split) -> RouterRun:
    """The cheapest tier of most true quality, per query."""
    started = time.perf_counter()
    tiers = [_first_best(table)[None, :] for table in (split.tune, split.held_out)]
    return looked_up(
        split,
        name="oracle",
        knob="none",
        settings=np.zeros(1),
        tune=tiers[0],
        held_out=tiers[1],
        started=started,
        uses_labels=True,
    )


def _first_best(table: OutcomeTable) -> NDArray[np.int8]:
    best = table.quality == table.quality.max(axis=1, keepdims=True)
    return np.asarray(np.where(best, effort(table), np.inf).argmin(axis=1), dtype=np.int8)


def oracle_path(split: Split, *, settings: int = MOST_SETTINGS) -> RouterRun:
    """`argmax_k q_k - λ c_k` on true quality and cost, for the λ of the tune queries' path."""
    started = time.perf_counter()
    truth = [_true_scores(table) for table in (split.tune, split.held_out)]
    lanes = default_lanes(split.tune.n_tiers)
    lambdas = LambdaPath(truth[0], lanes).lambdas[::-1]
    lambdas = lambdas[thin(len(lambdas), settings)]
    params = np.concatenate([lambdas[:, None], np.zeros((len(lambdas), split.tune.n_tiers - 1))], axis=1)
    tune, held_out = (UtilityPolicy().assign(params, scores, lanes) for scores in truth)
    knob = "λ, quality per USD" if split.tune.has_cost else "λ, quality per rank of tier"
    return looked_up(
        split,
        name="oracle_path",
        knob=knob,
        settings=lambdas,
        tune=tune,
        held_out=held_out,
        started=started,
        uses_labels=True,
    )


def _true_scores(table: OutcomeTable) -> ScoreTable:
    return ScoreTable(score=np.zeros(table.n_queries), quality=table.quality, cost_usd=effort(table))


def cascade(
    split: Split, *, error_rate: float = 0.0, settings: int = 51, max_cost_usd: float | None = None
) -> RouterRun:
    """RouterBench's cascade: tiers by price, stop at an answer that is judged good enough; all asked are paid.

    An answer is good enough if its *true* quality reaches the threshold, and the judge says the opposite with
    probability `error_rate`: no router, but what a cascade with such a judge would be worth. The last tier's answer is
    taken as it is, and so is the one after which `max_cost_usd` is spent.

    Args:
        split: The split.
        error_rate: Of the judge.
        settings: Thresholds, evenly spaced in [0, 1].
        max_cost_usd: No further tier once a query has cost this much; None for no limit.

    Raises:
        ConfigError: If the rate is no probability, or a cost is bounded that is unknown.
    """
    if not 0 <= error_rate <= 1:
        raise ConfigError(f"error_rate must lie in [0, 1]; got {error_rate:g}")
    if max_cost_usd is not None and not (split.tune.has_cost and split.held_out.has_cost):
        raise ConfigError("max_cost_usd needs recorded costs; unset it")
    started = time.perf_counter()
    thresholds = np.linspace(0.0, 1.0, settings)
    limit = np.inf if max_cost_usd is None else max_cost_usd
    parts = []
    for name, table in (("tune", split.tune), ("held_out", split.held_out)):
        wrong = spawn_rng(split.seed, "cascade", name).random(table.quality.shape) < error_rate
        parts.append(_cascade(table, thresholds, wrong, limit))
    return RouterRun(
        name="cascade",
        knob="threshold on true quality",
        settings=thresholds,
        tune=parts[0],
        held_out=parts[1],
        uses_labels=True,
        seconds=time.perf_counter() - started,
    )


def _cascade(table: OutcomeTable, thresholds: FloatArray, wrong: NDArray[np.bool_], limit: float) -> Routed:
    """Tiers are in order of price already. `wrong: N x K` where the judge errs."""
    every, k = np.arange(table.n_queries), table.n_tiers
    spent = np.cumsum(table.cost_usd, axis=1)
    accepted = (table.quality[None] >= thresholds[:, None, None]) != wrong[None]
    accepted |= np.nan_to_num(spent)[None] >= limit
    accepted[:, :, k - 1] = True
    tier = accepted.argmax(axis=2).astype(np.int8)
    return Routed(tier=tier, quality=table.quality[every, tier], cost_usd=spent[every, tier])
