"""The only door between search and world: candidates in, objectives and slack out.

Signs: `Y` is maximised (cost and latency enter negated, here), `slack >= 0` is feasible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, OutcomeTable
from simulators.world import World
from toolkit.evaluation.approximation import approximate_latency
from toolkit.evaluation.constraints import Constraint, slack_matrix
from toolkit.evaluation.contention import ContendedEstimator, only_waits
from toolkit.evaluation.estimators import Estimator, headline_metrics
from toolkit.evaluation.metrics import Metric
from toolkit.evaluation.slices import Coverage
from toolkit.families.base import Family
from toolkit.spaces import SearchSpace


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


class Problem(Protocol):
    """What a searcher sees: candidates in, objectives and slack out.

    Attributes:
        space: The unit cube.
        parameter_names: Names of the p parameters.
        objectives, constraints: m objectives and c constraints.
        metrics: Everything an evaluation records.
        exact_columns: Columns that `exact` gives; the others must be evaluated.
        noisy: Whether evaluating twice gives two answers.
    """

    @property
    def space(self) -> SearchSpace: ...
    @property
    def parameter_names(self) -> tuple[str, ...]: ...
    @property
    def objectives(self) -> tuple[Metric, ...]: ...
    @property
    def constraints(self) -> tuple[Constraint, ...]: ...
    @property
    def metrics(self) -> tuple[Metric, ...]: ...
    @property
    def exact_columns(self) -> frozenset[str]: ...
    @property
    def noisy(self) -> bool: ...

    def evaluate_params(self, params: FloatArray) -> Evaluation:
        """Evaluate `params: n x p` in natural units."""
        ...

    def exact(self, params: FloatArray) -> dict[str, FloatArray]:
        """The exact columns of n candidates, without an evaluation: cheap, and in bulk."""
        ...

    def approximate(self, params: FloatArray) -> dict[str, FloatArray]:
        """An analytic approximation of the other columns, as far as there is one."""
        ...

    def corners(self) -> FloatArray:
        """Candidates that send all traffic to one tier."""
        ...


class RoutingProblem:
    """Which parameters of one family are best on one table of outcomes.

    Args:
        table: The tune split.
        family: What is searched, bound to the scores of `table` (out-of-fold where the scorer learned from it).
        objectives: The m metrics to optimise.
        constraints: The c bounds.
        coverage: The groups a worst slice is taken over.
        world: Contention between requests, or None: every answer then takes as long as recorded.
    """

    noisy = False

    def __init__(
        self,
        *,
        table: OutcomeTable,
        family: Family,
        objectives: tuple[Metric, ...],
        constraints: tuple[Constraint, ...],
        coverage: Coverage,
        world: World | None = None,
    ) -> None:
        if len({m.column for m in objectives}) < len(objectives) or not objectives:
            raise ConfigError(f"name one or more distinct objectives; got {[m.column for m in objectives]}")
        if len(family.scores.score) != table.n_queries:
            raise ConfigError(f"{table.n_queries} queries but {len(family.scores.score)} scores")
        self.table, self.family, self.world = table, family, world
        self.single_precision = False  # of simulations; an enumeration may ask for it
        self.objectives, self.constraints, self.coverage = objectives, constraints, coverage
        wanted = (*objectives, *(c.metric for c in constraints), *headline_metrics(table, coverage))
        self.metrics: tuple[Metric, ...] = tuple(dict.fromkeys(wanted))
        self.parameter_names = family.parameter_names
        touched = world is not None and not only_waits(world)  # by errors and fallbacks, quality and cost included
        exact = [m.column for m in self.metrics if world is None or not (m.needs_latency or touched)]
        self.exact_columns = frozenset(exact)

    @property
    def space(self) -> SearchSpace:
        """The unit cube that samplers and optimisers see."""
        return self.family.space

    def evaluate(self, X: FloatArray) -> Evaluation:
        """Evaluate `X: n x d` in the unit cube."""
        return self.evaluate_params(self.space.decode(X))

    def evaluate_params(self, params: FloatArray) -> Evaluation:
        """Evaluate `params: n x p` in natural units."""
        if params.shape[1:] != (len(self.parameter_names),):
            raise ConfigError(f"expected parameters {self.parameter_names}; got shape {params.shape}")
        estimator = self.estimate(params)
        return make_evaluation(
            self, params, estimator.values(self.metrics), estimator.tier_counts() / self.table.n_queries
        )

    def estimate(self, params: FloatArray) -> Estimator:
        """The estimator that is exact for these parameters, simulating where requests contend."""
        estimator = self.family.estimate(self.table, self.coverage, params)
        if self.world is None:
            return estimator
        return ContendedEstimator(
            estimator, self.world, self.family.assign(params), single_precision=self.single_precision
        )

    def exact(self, params: FloatArray) -> dict[str, FloatArray]:
        """See `Problem`."""
        metrics = tuple(m for m in self.metrics if m.column in self.exact_columns)
        return self.family.estimate(self.table, self.coverage, params).values(metrics)

    def approximate(self, params: FloatArray) -> dict[str, FloatArray]:
        """Latency by formulas of queueing theory, quality and cost as recorded; nothing where all is exact."""
        metrics = tuple(m for m in self.metrics if m.column not in self.exact_columns)
        if self.world is None or not metrics:
            return {}
        timed = tuple(m for m in metrics if m.needs_latency)
        recorded = tuple(m for m in metrics if not m.needs_latency)
        found = self.family.estimate(self.table, self.coverage, params).values(recorded)
        return found | approximate_latency(self.table, self.world, self.family.assign(params), timed)

    def corners(self) -> FloatArray:
        """See `Problem`."""
        return self.family.corners()


def make_evaluation(
    problem: Problem, params: FloatArray, columns: dict[str, FloatArray], tier_shares: FloatArray
) -> Evaluation:
    """An evaluation from natural columns, with the signs of this project."""
    Y = np.stack([columns[m.column] * (1 if m.maximise else -1) for m in problem.objectives], axis=1)
    slack = slack_matrix(problem.constraints, columns, len(params))
    return Evaluation(params=params, Y=Y, slack=slack, columns=columns, tier_shares=tier_shares)
