"""Where the gap between a policy and the oracle goes: score, policy class, search, generalisation, and label noise.

On the validation split, at the policy's own mean cost c, four mean qualities that cannot fall:

    chosen <= by_class <= by_score <= oracle

`oracle` is the best assignment of queries at mean cost c with hindsight. `by_score` is the best rule, with hindsight,
that sees the score cut into intervals only (and the tier that the best policy of the class picks, so that the class is
contained). `by_class` is the best policy of the class with hindsight. What the search missed is measured where it
searched, on the tune split: the best of the class at the policy's cost there, minus the policy. The rest of
`by_class - chosen` is generalisation: what was best on one split is not best on the other.

The oracle picks lucky answers: part of the gap is noise of single answers that no score could see. A second answer to
the same queries measures that part; it is stated beside the components, which sum to the gap without it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from toolkit.certify.hindsight import GRID, Best, best_at_cost, class_candidates
from toolkit.certify.intervals import DIFFERENCE, Interval, mean_interval
from toolkit.certify.reliability import equal_mass_bins
from toolkit.families.base import Family

INTERVALS = 20
"""Intervals of the score that the best rule on the score may tell apart."""
PUBLISHED_NOISE = (0.12, 0.43)
"""Share of router-to-oracle gaps that repeats showed to be noise of single answers, as published (arXiv 2607.03436)."""
SCORE, CLASS, SEARCH, GENERALISATION = "score", "policy class", "search", "generalisation"
CLASS_AND_SEARCH = "policy class and search"
_NOTHING = 1e-12


@dataclass(frozen=True, kw_only=True)
class LabelNoise:
    """How much of the gap the luck of single answers may be.

    Attributes:
        low, high: In quality. From repeats, the interval of the drop of the oracle's quality on a second answer, which
            is at least the optimism of the oracle; else the published range times the gap.
        drop: That drop, or None without repeats.
        n: Queries with a second answer of every tier.
        n_without: Queries without.
    """

    low: float
    high: float
    drop: Interval | None
    n: int
    n_without: int


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The gap of one policy to the oracle, split.

    Attributes:
        n: Validation queries.
        cost_usd: The policy's mean cost, at which everything is compared; NaN where costs are unknown: nothing is then.
        chosen, by_class, by_score, oracle: Mean qualities on the validation split, ascending.
        components: Name -> part of `oracle - chosen`, in quality; they sum to it.
        noise: What part of it may be noise of the labels.
        form: Kind of the family, such as `thresholds`.
        enumerated: What the class was taken to be.
        other_aims: What the policy serves beside cost and quality; their price is in what the search missed.
    """

    n: int
    cost_usd: float
    chosen: float
    by_class: float
    by_score: float
    oracle: float
    components: dict[str, float]
    noise: LabelNoise
    form: str
    enumerated: str
    other_aims: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """`oracle - chosen`."""
        return self.oracle - self.chosen

    def as_dict(self) -> dict[str, Any]:
        """Plain containers; NaN stays NaN."""
        return dataclasses.asdict(self) | {"total": self.total}


def decompose_gap(
    tune: OutcomeTable,
    validate: OutcomeTable,
    *,
    family: Family,
    validate_family: Family,
    params: FloatArray,
    evaluated: FloatArray,
    score: FloatArray,
    repeat: FloatArray | None = None,
    other_aims: tuple[str, ...] = (),
    grid: int = GRID,
) -> Gap:
    """Split the gap of one policy.

    Args:
        tune: The tune split.
        validate: The validation split.
        family: What was searched, on scores of `tune`.
        validate_family: The same on scores of `validate`.
        params: `p` parameters of the policy.
        evaluated: `n x p` candidates that the search evaluated: the class, where it cannot be enumerated.
        score: `N` scores of `validate`.
        repeat: `N x K` quality of a second answer to the queries of `validate`; NaN where there is none.
        other_aims: Objectives and constraints beside cost and quality, by name.
        grid: Most threshold vectors of an enumeration.
    """
    known = np.concatenate([params[None, :], evaluated])
    rows = np.arange(validate.n_queries)
    tier = np.asarray(validate_family.assign(params[None, :])[0], dtype=np.int64)
    chosen = float(validate.quality[rows, tier].mean())
    budget = float(validate.cost_usd[rows, tier].mean()) if validate.has_cost else None
    found = class_candidates(validate, validate_family, known, budget, grid)
    best = found.best_within(budget)
    by_class = _at_least(chosen, float(found.quality[best]))
    best_tier = np.asarray(validate_family.assign(found.params[[best]])[0], dtype=np.int64)
    cells = score_cells(score, best_tier, validate.n_tiers)
    by_score = _at_least(by_class, best_at_cost(validate.quality, validate.cost_usd, cells, budget).quality)
    oracle = best_at_cost(validate.quality, validate.cost_usd, rows, budget)
    top = _at_least(by_score, oracle.quality)
    components = {SCORE: top - by_score}
    if found.whole:
        missed = search_loss(tune, family, params, evaluated, grid)
        rest = (by_class - chosen) - missed
        components |= {CLASS: by_score - by_class, SEARCH: missed, GENERALISATION: rest}
    else:
        components |= {CLASS_AND_SEARCH: by_score - by_class, GENERALISATION: by_class - chosen}
    return Gap(
        n=validate.n_queries,
        cost_usd=np.nan if budget is None else budget,
        chosen=chosen,
        by_class=by_class,
        by_score=by_score,
        oracle=top,
        components=components,
        noise=label_noise(validate, oracle, top - chosen, repeat),
        form=family.kind,
        enumerated=found.said,
        other_aims=other_aims,
    )


def search_loss(
    tune: OutcomeTable, family: Family, params: FloatArray, evaluated: FloatArray, grid: int = GRID
) -> float:
    """Quality on the tune split of the best of the class at the policy's cost there, minus the policy's: at least 0."""
    rows = np.arange(tune.n_queries)
    tier = np.asarray(family.assign(params[None, :])[0], dtype=np.int64)
    quality = float(tune.quality[rows, tier].mean())
    budget = float(tune.cost_usd[rows, tier].mean()) if tune.has_cost else None
    found = class_candidates(tune, family, np.concatenate([params[None, :], evaluated]), budget, grid)
    return _at_least(quality, float(found.quality[found.best_within(budget)])) - quality


def _at_least(bound: float, value: float) -> float:
    """The value, or the bound where it does not exceed that by more than rounding."""
    return value if value - bound > _NOTHING else bound


def score_cells(score: FloatArray, tier: IntArray, n_tiers: int) -> IntArray:
    """`N` cells: intervals of the score of about equal mass, each by tier; queries without a score are one interval."""
    interval = np.full(len(score), INTERVALS, dtype=np.int64)
    usable = np.isfinite(score)
    if usable.any():
        interval[usable] = equal_mass_bins(score[usable], INTERVALS)
    return np.asarray(np.unique(interval * n_tiers + tier, return_inverse=True)[1], dtype=np.int64)


def label_noise(validate: OutcomeTable, oracle: Best, gap: float, repeat: FloatArray | None) -> LabelNoise:
    """The oracle's quality on the answers it chose by, minus that on a second answer of the same tiers.

    With `a_i` the oracle's tier, the mean of `q_i(a_i) - q'_i(a_i)`. An oracle that knew the expected quality of each
    answer would do at least as well as `a_i` on new answers, so its optimism is at most that.
    """
    n = validate.n_queries
    rows = np.array([], dtype=np.int64) if repeat is None else np.flatnonzero(np.isfinite(repeat).all(axis=1))
    if repeat is None or len(rows) == 0:
        low, high = (share * gap for share in PUBLISHED_NOISE)
        return LabelNoise(low=low, high=high, drop=None, n=0, n_without=n)
    lost = (oracle.share[rows] * (validate.quality[rows] - repeat[rows])).sum(axis=1)
    drop = mean_interval(lost, validate.cluster_code[rows], bounds=DIFFERENCE)
    return LabelNoise(low=max(drop.low, 0.0), high=max(drop.high, 0.0), drop=drop, n=len(rows), n_without=n - len(rows))
