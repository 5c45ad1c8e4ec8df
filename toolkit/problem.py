"""The only door between search and world: candidates in, objectives and slack out.

Signs: `Y` is maximised (cost and latency enter negated, here), `slack >= 0` is feasible.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, OutcomeTable
from toolkit.evaluation.constraints import Constraint, slack_matrix
from toolkit.evaluation.estimators import AssignmentEstimator, Estimator, headline_metrics
from toolkit.evaluation.metrics import Metric
from toolkit.evaluation.path import LambdaPath, PathEstimator
from toolkit.evaluation.slices import Coverage
from toolkit.evaluation.thresholds import ScoreOrder, ThresholdEstimator
from toolkit.policies.base import Policy
from toolkit.policies.lanes import Lanes
from toolkit.scorers.base import ScoreTable
from toolkit.spaces import SearchSpace, ThresholdSpace, UtilitySpace


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures of n candidates.

    Attributes:
        params: `n x p` natural parameters.
        Y: `n x m` objectives, maximised; NaN where an evaluation failed.
        slack: `n x c`, `>= 0` is feasible.
        columns: Natural name -> `n` values, objectives, constrained metrics and headline figures alike.
        tier_shares: `n x K` share of the queries per tier.
    """

    params: FloatArray
    Y: FloatArray
    slack: FloatArray
    columns: dict[str, FloatArray]
    tier_shares: FloatArray

    def __len__(self) -> int:
        return len(self.params)

    @property
    def ok(self) -> np.ndarray:
        """`n`, True where every objective and slack is a number."""
        return np.asarray(np.isfinite(self.Y).all(axis=1) & np.isfinite(self.slack).all(axis=1))

    @property
    def feasible(self) -> np.ndarray:
        """`n`, True where the evaluation succeeded and every constraint holds."""
        return np.asarray(self.ok & (self.slack >= 0).all(axis=1))

    def take(self, rows: np.ndarray) -> Evaluation:
        """The candidates at `rows`."""
        return Evaluation(
            params=self.params[rows],
            Y=self.Y[rows],
            slack=self.slack[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
            tier_shares=self.tier_shares[rows],
        )


def concatenate(parts: list[Evaluation]) -> Evaluation:
    """Several evaluations of one problem as one, in order."""
    return Evaluation(
        params=np.concatenate([p.params for p in parts]),
        Y=np.concatenate([p.Y for p in parts]),
        slack=np.concatenate([p.slack for p in parts]),
        columns={name: np.concatenate([p.columns[name] for p in parts]) for name in parts[0].columns},
        tier_shares=np.concatenate([p.tier_shares for p in parts]),
    )


class RoutingProblem:
    """Which parameters of one policy family are best on one table of outcomes.

    Args:
        table: The tune split.
        scores: Scores of the same queries, out-of-fold where the scorer learned from them.
        policy: The family.
        lanes: Fallback and confidence lanes.
        objectives: The m metrics to optimise.
        constraints: The c bounds.
        coverage: The groups a worst slice is taken over.
        offset_range: Half-width of the offsets a utility may search, in quality.
    """

    def __init__(
        self,
        *,
        table: OutcomeTable,
        scores: ScoreTable,
        policy: Policy,
        lanes: Lanes,
        objectives: tuple[Metric, ...],
        constraints: tuple[Constraint, ...],
        coverage: Coverage,
        offset_range: float = 0.0,
    ) -> None:
        if len({m.column for m in objectives}) < len(objectives) or not objectives:
            raise ConfigError(f"name one or more distinct objectives; got {[m.column for m in objectives]}")
        if len(scores.score) != table.n_queries:
            raise ConfigError(f"{table.n_queries} queries but {len(scores.score)} scores")
        self.table, self.scores, self.policy, self.lanes = table, scores, policy, lanes
        self.objectives, self.constraints, self.coverage = objectives, constraints, coverage
        wanted = (*objectives, *(c.metric for c in constraints), *headline_metrics(table, coverage))
        self.metrics: tuple[Metric, ...] = tuple(dict.fromkeys(wanted))
        self.parameter_names = policy.parameter_names(table.n_tiers)
        self._offset_range = offset_range

    @cached_property
    def order(self) -> ScoreOrder:
        """Queries sorted by score; the boundaries that differ."""
        return ScoreOrder(self.scores, self.lanes)

    @cached_property
    def path(self) -> LambdaPath:
        """The λ path of the predictions."""
        return LambdaPath(self.scores, self.lanes)

    @cached_property
    def space(self) -> SearchSpace:
        """The unit cube that samplers and optimisers see."""
        if self.policy.kind == "thresholds":
            return ThresholdSpace(self.order, self.table.n_tiers)
        return UtilitySpace(self.path, self.table.n_tiers, self._offset_range)

    def evaluate(self, X: FloatArray) -> Evaluation:
        """Evaluate `X: n x d` in the unit cube."""
        return self.evaluate_params(self.space.decode(X))

    def evaluate_params(self, params: FloatArray) -> Evaluation:
        """Evaluate `params: n x p` in natural units."""
        if params.shape[1:] != (len(self.parameter_names),):
            raise ConfigError(f"expected parameters {self.parameter_names}; got shape {params.shape}")
        estimator = self.estimate(params)
        columns = estimator.values(self.metrics)
        Y = np.stack([columns[m.column] * (1 if m.maximise else -1) for m in self.objectives], axis=1)
        return Evaluation(
            params=params,
            Y=Y,
            slack=slack_matrix(self.constraints, columns, len(params)),
            columns=columns,
            tier_shares=estimator.tier_counts() / self.table.n_queries,
        )

    def estimate(self, params: FloatArray) -> Estimator:
        """The estimator that is exact for these parameters."""
        if self.policy.kind == "thresholds":
            return ThresholdEstimator(self.table, self.coverage, self.order, params)
        if not params[:, 1:].any():
            return PathEstimator(self.table, self.coverage, self.path, params[:, 0])
        assignment = self.policy.assign(params, self.scores, self.lanes)
        return AssignmentEstimator(self.table, self.coverage, assignment)
