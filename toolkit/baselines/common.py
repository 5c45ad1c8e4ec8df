"""What the methods share: what a router knows of a query, stand-ins for what is unknown, and the clock.

Notation: n settings of a knob, N queries, K tiers.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np
from numpy.typing import NDArray

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from toolkit.baselines.base import RouterRun, Split, look_up
from toolkit.policies.lanes import FREE, Lanes
from toolkit.policies.utility import predictions
from toolkit.scorers.base import ScoreTable

SMALLEST_COST_USD = 1e-9
MOST_SETTINGS = 600
"""Settings of a knob that are looked up; a longer path is thinned evenly, ends kept."""


def default_lanes(n_tiers: int) -> Lanes:
    """Queries without a score go to the middle tier, as everywhere in this project."""
    return Lanes(fallback_tier=n_tiers // 2, low_confidence_tier=n_tiers - 1)


def effort(table: OutcomeTable) -> FloatArray:
    """`N x K` what a tier costs; its rank where costs are unknown, so that methods still have an order to save by."""
    if table.has_cost:
        return table.cost_usd
    return np.broadcast_to(np.arange(table.n_tiers, dtype=np.float64), table.quality.shape)


def complete(scores: ScoreTable, n_tiers: int) -> ScoreTable:
    """The scores with predicted costs: ranks of tiers where none are predicted.

    Raises:
        ConfigError: If the scorer predicts no quality.
    """
    if scores.quality is None:
        raise ConfigError("this method needs predicted quality per tier; use scorer=text, or policy=utility's bins")
    if scores.cost_usd is not None:
        return scores
    rank = np.broadcast_to(np.arange(n_tiers, dtype=np.float64), scores.quality.shape)
    return dataclasses.replace(scores, cost_usd=rank)


def filled(scores: ScoreTable, reference: ScoreTable) -> tuple[FloatArray, FloatArray]:
    """Predicted quality and cost, `N x K` each; a failed prediction becomes the mean prediction of `reference`."""
    found = []
    for values, known in zip(predictions(scores), predictions(reference), strict=True):
        mean = known[np.isfinite(known).all(axis=1)].mean(axis=0)
        found.append(np.where(np.isfinite(values), values, mean))
    return found[0], found[1]


def thin(n: int, most: int) -> IntArray:
    """At most `most` of `n` positions, evenly spread, ends kept."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def pin(tier: NDArray[np.int8], scores: ScoreTable, n_tiers: int) -> NDArray[np.int8]:
    """`n x N` tiers with the failed queries on the fallback tier."""
    pinned = default_lanes(n_tiers).pinned(scores)
    return np.where(pinned == FREE, tier, pinned).astype(np.int8)


def tier_number(tier: str | int | None, default: int, table: OutcomeTable) -> int:
    """Number of a tier given by name or number.

    Raises:
        ConfigError: If there is none such.
    """
    if tier is None:
        return default
    if isinstance(tier, str):
        if tier not in table.tiers:
            raise ConfigError(f"tier {tier!r} is none of {list(table.tiers)}")
        return table.tiers.index(tier)
    if not 0 <= tier < table.n_tiers:
        raise ConfigError(f"tiers are numbered 0 to {table.n_tiers - 1}; got {tier}")
    return tier


def looked_up(
    split: Split,
    *,
    name: str,
    knob: str,
    settings: FloatArray,
    tune: NDArray[np.int8],
    held_out: NDArray[np.int8],
    started: float,
    uses_labels: bool = False,
    unreached: FloatArray | None = None,
) -> RouterRun:
    """The run of a method that asks one tier per query.

    Args:
        split: The split.
        name: Of the method.
        knob: Name and unit.
        settings: `n`, cheap to dear.
        tune: `n x N` tiers of the tune queries.
        held_out: Those of the held-out queries.
        started: `time.perf_counter()` when the method began.
        uses_labels: Whether decisions look at true quality.
        unreached: See `RouterRun`.
    """
    seconds = time.perf_counter() - started
    return RouterRun(
        name=name,
        knob=knob,
        settings=settings,
        tune=look_up(split.tune, tune),
        held_out=look_up(split.held_out, held_out),
        uses_labels=uses_labels,
        seconds=seconds,
        unreached=unreached,
    )
