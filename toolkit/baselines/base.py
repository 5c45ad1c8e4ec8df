"""Routers with one knob, on recorded answers: every method of a comparison is judged through these records.

A *router run* is one method on one split: what each setting of its knob does with the tune queries (out-of-fold where
something was learned) and with the held-out ones. How a setting is picked for a requested quality is the same rule for
all of them (`toolkit.baselines.compliance`).

Notation: n settings of a knob, N queries, K tiers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.errors import InputDataError
from simulators.outcomes import FloatArray, OutcomeTable
from toolkit.scorers.base import ScoreTable


@dataclass(frozen=True, kw_only=True)
class Routed:
    """What n settings of one router do with N queries.

    Attributes:
        tier: `n x N` tier that gave the answer; -1 where an answer is a mixture of tiers.
        quality: `n x N` in [0, 1].
        cost_usd: `n x N` billed, every tier that was asked included; all NaN where unknown.
        mixture: `n x K` share of each tier in the answers where these are mixtures, or None: there are none.
    """

    tier: NDArray[np.int8]
    quality: FloatArray
    cost_usd: FloatArray
    mixture: FloatArray | None = None

    def __post_init__(self) -> None:
        if not self.tier.shape == self.quality.shape == self.cost_usd.shape or self.tier.ndim != 2:
            raise InputDataError(
                "expected n x N arrays of one shape; got "
                f"{self.tier.shape}, {self.quality.shape}, {self.cost_usd.shape}"
            )

    @property
    def mean_quality(self) -> FloatArray:
        """`n`."""
        return np.asarray(self.quality.mean(axis=1))

    @property
    def mean_cost_usd(self) -> FloatArray:
        """`n`."""
        return np.asarray(self.cost_usd.mean(axis=1))

    @property
    def has_cost(self) -> bool:
        """Whether every answer has a known cost."""
        return bool(np.isfinite(self.cost_usd).all())

    def tier_shares(self, n_tiers: int) -> FloatArray:
        """`n x K` share of the queries that each tier answered."""
        if self.mixture is not None:
            return self.mixture
        return np.stack([(self.tier == k).mean(axis=1) for k in range(n_tiers)], axis=1)


def look_up(table: OutcomeTable, tier: NDArray[np.int8]) -> Routed:
    """The recorded answers of `tier: n x N`."""
    every = np.arange(table.n_queries)
    return Routed(tier=tier, quality=table.quality[every, tier], cost_usd=table.cost_usd[every, tier])


@dataclass(frozen=True, kw_only=True)
class Split:
    """What a method may use and what it is judged on.

    Attributes:
        tune: Queries with answers, to learn and to set knobs on.
        tune_scores: Out-of-fold scores of those, with predicted quality (and cost where known).
        held_out: Queries to be judged on; routers see `held_out.queries` only, references also the answers.
        held_out_scores: Their scores, by a scorer that was fitted on all of `tune`.
        folds: For methods that learn something of their own.
        seed: Of everything random in a method.
    """

    tune: OutcomeTable
    tune_scores: ScoreTable
    held_out: OutcomeTable
    held_out_scores: ScoreTable
    folds: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class RouterRun:
    """One method on one split.

    Settings go from cheap to dear as far as the knob tells beforehand; where costs are unknown, that order stands in.

    Attributes:
        name: Of the method.
        knob: Name and unit of what the settings are values of.
        settings: `n` values of the knob.
        tune: What the settings do with the tune queries; out-of-fold where something was learned.
        held_out: What they do with the held-out queries.
        uses_labels: Whether decisions look at the answers' true quality: a bound (oracle) or a judge (cascade), no
            router.
        seconds: Time to fit, folds included.
        unreached: `n` share of the held-out queries whose request was beyond what the predictions allow, so that they
            got the best that was left; None for methods that cannot tell.
    """

    name: str
    knob: str
    settings: FloatArray
    tune: Routed
    held_out: Routed
    uses_labels: bool = False
    seconds: float = 0.0
    unreached: FloatArray | None = None
