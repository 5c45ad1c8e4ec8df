"""Clairvoyant thresholds: cuts per window, searched on one known stretch of traffic, which no controller can do.

It knows when everybody comes, what they ask and what every tier would answer. From static cuts on, each window's cuts
are moved one by one; a linear programme over the moves' effects picks a set that keeps quality and cost, and the best
part of that set, simulated as a whole, is taken. It ends in a local optimum of cuts per window: perfect knowledge could
do at least as well with them. Nothing is bounded from above, least of all rules that decide per request; queries of one
window are told apart by the score alone.

Notation: W windows, K tiers, n candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize

from simulators.outcomes import FloatArray, IntArray
from simulators.simulate import simulate
from toolkit.baselines.windows import Episode, Service, Tiers, service_in

_SHARES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05)
_STEPS = (0.16, 0.08, 0.04, 0.02)
_CHUNK_ELEMENTS = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """Where the search ended.

    Attributes:
        cuts: `W x (K-1)`.
        service: Of one candidate.
        passes: How often all moves were tried.
    """

    cuts: FloatArray
    service: Service
    passes: int


def clairvoyant(
    episode: Episode, start: FloatArray, *, n_windows: int, quality_floor: float, cost_usd: float, passes: int
) -> Optimum:
    """Improve static cuts window by window with full knowledge of the episode.

    Args:
        episode: The traffic.
        start: `K-1` static cuts.
        n_windows: W.
        quality_floor: Least mean quality; the start's own where that is lower.
        cost_usd: Most mean cost per request; the start's own where that is higher.
        passes: Most rounds over all moves.
    """
    window = window_of(episode, n_windows)
    cuts = np.tile(start, (n_windows, 1))
    now = _value(episode, window, cuts[None])
    floor = min(quality_floor, float(now.quality[0]))
    most_usd = max(cost_usd, float(now.cost_usd[0]))
    done = 0
    for step in _STEPS:
        while done < passes:
            done += 1
            moves = _moves(cuts, step)
            effect = _value(episode, window, moves).stacked() - now.stacked()
            chosen = _chosen(cuts, moves, effect, floor - float(now.quality[0]), most_usd - float(now.cost_usd[0]))
            if not len(chosen):
                break
            parts = np.array([_applied(cuts, moves[chosen[: max(1, round(s * len(chosen)))]]) for s in _SHARES])
            found = _value(episode, window, parts)
            kept = (found.quality >= floor) & (found.cost_usd <= most_usd)
            best = int(np.argmax(np.where(kept, found.attainment, -1.0)))
            if not kept[best] or found.attainment[best] <= now.attainment[0]:
                break
            cuts, now = parts[best], Service.of(found.stacked()[[best]])
    return Optimum(cuts=cuts, service=now, passes=done)


def window_of(episode: Episode, n_windows: int) -> IntArray:
    """`R` window of each request."""
    world = episode.world
    return np.minimum((world.ready_s / world.duration_s * n_windows).astype(np.int64), n_windows - 1)


def path_tiers(episode: Episode, window: IntArray, cuts: FloatArray) -> Tiers:
    """`n x R` tiers under `cuts: n x W x (K-1)`."""
    rank = episode.known.rank[episode.world.row]
    tier = np.zeros((len(cuts), len(rank)), dtype=np.int8)
    for k in range(cuts.shape[2]):
        tier += rank >= cuts[:, window, k]
    return tier


def _value(episode: Episode, window: IntArray, cuts: FloatArray) -> Service:
    found = []
    step = max(1, _CHUNK_ELEMENTS // episode.world.n_requests)
    for start in range(0, len(cuts), step):
        tier = path_tiers(episode, window, cuts[start : start + step])
        found.append(service_in(episode, simulate(episode.world, episode.table, tier, per_request=True)).stacked())
    return Service.of(np.concatenate(found))


def _moves(cuts: FloatArray, step: float) -> FloatArray:
    """`n x W x (K-1)`: one cut of one window up or down, the others of the window pushed along."""
    w, d = cuts.shape
    found = []
    for i in range(w):
        for k in range(d):
            for sign in (-step, step):
                moved = cuts.copy()
                moved[i, k] = np.clip(cuts[i, k] + sign, 0.0, 1.0)
                moved[i, :k] = np.minimum(moved[i, :k], moved[i, k])
                moved[i, k + 1 :] = np.maximum(moved[i, k + 1 :], moved[i, k])
                found.append(moved)
    return np.array(found)


def _chosen(cuts: FloatArray, moves: FloatArray, effect: FloatArray, quality: float, cost_usd: float) -> IntArray:
    """Moves that together promise most attainment, at most one per window, best first.

    Args:
        cuts: `W x (K-1)`.
        moves: `n x W x (K-1)`.
        effect: `n x 4` changes of attainment, cost, quality and failures.
        quality: Change of quality that must be reached, at most 0.
        cost_usd: Change of cost that must be kept, at least 0.
    """
    window = np.argmax((moves != cuts).any(axis=2), axis=1)
    unit = float(np.abs(effect[:, 1]).max()) or 1.0
    once = (np.arange(len(cuts))[:, None] == window).astype(np.float64)
    limits = np.concatenate([[effect[:, 1] / unit, -effect[:, 2]], once])
    bounds = np.concatenate([[cost_usd / unit, -quality], np.ones(len(cuts))])
    found = optimize.linprog(-effect[:, 0], A_ub=limits, b_ub=bounds, bounds=(0.0, 1.0), method="highs")
    if found.x is None:
        return np.empty(0, dtype=np.int64)
    picked = np.flatnonzero(found.x > 0.5)
    price = -found.ineqlin.marginals
    worth = effect[:, 0] - price[0] * effect[:, 1] / unit + price[1] * effect[:, 2]
    return np.asarray(picked[np.argsort(-worth[picked], kind="stable")])


def _applied(cuts: FloatArray, moves: FloatArray) -> FloatArray:
    """`W x (K-1)` cuts with all of the moves made, each in a window of its own."""
    found = cuts.copy()
    for moved in moves:
        changed = (moved != cuts).any(axis=1)
        found[changed] = moved[changed]
    return found
