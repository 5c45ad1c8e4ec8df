"""The steps that `tune` and `study` share: split, score, search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.loading import make_lanes, make_scorer
from experiments.settings import TuneSettings
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable, split_by_prompt
from simulators.seeds import spawn_rng
from toolkit.evaluation.constraints import Constraint
from toolkit.evaluation.metrics import parse_metric
from toolkit.evaluation.slices import coverage
from toolkit.policies.base import Policy
from toolkit.policies.lanes import Lanes
from toolkit.policies.thresholds import ThresholdPolicy
from toolkit.policies.utility import UtilityPolicy
from toolkit.problem import RoutingProblem
from toolkit.scorers.base import FittedScorer, ScoreTable, cross_fit


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything a search needs, and what is kept for validation.

    Attributes:
        rows: Split name -> rows of the full table.
        tune: The tune split.
        validate: The validation split, unseen by scorer and search.
        scorer: Fitted on the tune split.
        validate_scores: Scores of the validation split.
        lanes: Fallbacks.
        problem: The problem on the tune split, with out-of-fold scores.
    """

    rows: dict[str, IntArray]
    tune: OutcomeTable
    validate: OutcomeTable
    scorer: FittedScorer
    validate_scores: ScoreTable
    lanes: Lanes
    problem: RoutingProblem

    def decide(self, params: FloatArray) -> IntArray:
        """`N` tiers of the validation split under one candidate (`params: p`)."""
        tiers = self.problem.policy.assign(params[None, :], self.validate_scores, self.lanes)[0]
        return np.asarray(tiers, dtype=np.int64)


def make_policy(kind: str) -> Policy:
    """The policy family of this name."""
    return ThresholdPolicy() if kind == "thresholds" else UtilityPolicy()


def prepare(settings: TuneSettings, table: OutcomeTable, constraints: tuple[Constraint, ...]) -> Prepared:
    """Split the table, fit the scorer on the tune split and pose the problem.

    Raises:
        ConfigError: If the splits overlap or an option does not fit the data.
    """
    shares = {"tune": settings.split.tune, "validate": settings.split.validate_}
    if sum(shares.values()) > 1 + 1e-9:
        raise ConfigError(f"split.tune + split.validate must not exceed 1; got {sum(shares.values()):g}")
    rows = split_by_prompt(table, shares, spawn_rng(settings.seed, "split"))
    tune, validate = table.take(rows["tune"]), table.take(rows["validate"])
    objectives = tuple(parse_metric(name) for name in settings.objectives)
    recipe = make_scorer(settings)
    lanes = make_lanes(settings.policy, table.tiers)
    scores = cross_fit(recipe, tune, folds=settings.folds, rng=spawn_rng(settings.seed, "folds"))
    if not np.isfinite(scores.score).any():
        raise ConfigError("the scorer gave no usable score for any query of the tune split; use another scorer")
    problem = RoutingProblem(
        table=tune,
        scores=scores,
        policy=make_policy(settings.policy.kind),
        lanes=lanes,
        objectives=objectives,
        constraints=constraints,
        coverage=coverage(tune, settings.slices.minimum),
        offset_range=settings.policy.offset_range,
    )
    scorer = recipe.fit(tune)
    return Prepared(
        rows=rows,
        tune=tune,
        validate=validate,
        scorer=scorer,
        validate_scores=scorer.predict(validate.queries),
        lanes=lanes,
        problem=problem,
    )
