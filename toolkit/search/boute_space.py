"""What `boute` needs to know of a problem, and how it looks at one.

Notation: n candidates, p parameters, M tiers, J joint choices, R routing coordinates, D deployment features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray
from toolkit.pareto.axes import Axes
from toolkit.problem import Evaluation, Problem
from toolkit.search.boute_kernel import Layout

_MOST_CHOICES_LOOKED_AT = 4096
_MOST_OVER_WORST = 2.0


class Features(Protocol):
    """Features of n candidates.

    Attributes:
        routing: `n x R` coordinates of the thresholds.
        deployment: `n x D` in [0, 1].
        preference: `n` in [0, 1].
    """

    @property
    def routing(self) -> FloatArray: ...
    @property
    def deployment(self) -> FloatArray: ...
    @property
    def preference(self) -> FloatArray: ...


@runtime_checkable
class StructuredProblem(Problem, Protocol):
    """A problem whose parameters are thresholds, then the index of one deployment per tier.

    The cube has as many coordinates as parameters: R for the thresholds, then M.
    """

    @property
    def choices(self) -> IntArray:
        """`J x M` joint choices of deployments that may be picked."""
        ...

    def features(self, params: FloatArray) -> Features:
        """What a model may look at."""
        ...


def structured(problem: Problem) -> StructuredProblem:
    """The problem, if it has the structure.

    Raises:
        ConfigError: If not.
    """
    if not isinstance(problem, StructuredProblem):
        names = ", ".join(problem.parameter_names)
        raise ConfigError(
            f"controller=boute needs thresholds and deployments to choose from (space=deployment); this space has "
            f"{names}; use controller=mobo there"
        )
    return problem


class FeatureSpace:
    """Rows that models see: `[routing | deployment | preference | params]`.

    The kernel ignores the parameters at the end; they make the encoding invertible. Deployment features that all
    choices share are left out.

    Args:
        problem: The problem.
        choices: Its `J x M` joint choices.
    """

    def __init__(self, problem: StructuredProblem, choices: IntArray) -> None:
        self._problem, self._p = problem, len(problem.parameter_names)
        step = -(-len(choices) // _MOST_CHOICES_LOOKED_AT)
        some = choices[::step].astype(np.float64)
        middle = problem.space.decode(np.full((1, problem.space.dim), 0.5))[:, : self._p - choices.shape[1]]
        found = problem.features(np.concatenate([np.repeat(middle, len(some), axis=0), some], axis=1))
        self._kept = np.flatnonzero(np.ptp(found.deployment, axis=0) > 0)
        self.n_routing, self.n_deployment = found.routing.shape[1], len(self._kept)
        self.dim = self.n_routing + self.n_deployment + 1 + self._p

    def encode(self, params: FloatArray) -> FloatArray:
        """`n x dim` rows of `params: n x p`."""
        found = self._problem.features(params)
        parts = [found.routing, found.deployment[:, self._kept], found.preference[:, None], params]
        return np.concatenate(parts, axis=1)

    def decode(self, X: FloatArray) -> FloatArray:
        """`n x p` parameters in the rows."""
        return X[:, -self._p :]

    def layout(self, *, joint: bool, preference: bool, interaction: bool) -> Layout:
        """Columns and terms of a kernel on these rows; without deployments to tell apart it sees routing alone."""
        return Layout(
            n_routing=self.n_routing,
            n_deployment=self.n_deployment,
            joint=joint and self.n_deployment > 0,
            preference=preference,
            interaction=interaction,
        )


class FeatureView:
    """A structured problem whose cube is replaced by its features, and whose latencies are cut where they are hopeless.

    An overloaded fleet answers late without bound, or never (`inf`). A model sees twice the worst of the latency
    axis and of the limits at most, so that one such evaluation does not decide its scale.

    Args:
        problem: The problem.
        choices: Its `J x M` joint choices.
        axes: Axes of the objectives.
    """

    def __init__(self, problem: StructuredProblem, choices: IntArray, axes: Axes) -> None:
        self._problem = problem
        self.space = FeatureSpace(problem, choices)
        self.parameter_names, self.objectives = problem.parameter_names, problem.objectives
        self.constraints, self.metrics = problem.constraints, problem.metrics
        self.exact_columns, self.noisy = problem.exact_columns, problem.noisy
        self._most = {m.column: np.inf for m in problem.metrics if m.base.startswith("latency")}
        ends = [(axis.column, axis.worst) for axis in axes.axes] + [
            (c.metric.column, c.limit) for c in problem.constraints
        ]
        for column in self._most:
            known = [end for name, end in ends if name == column and end > 0]
            self._most[column] = _MOST_OVER_WORST * max(known, default=np.inf)

    def evaluate_params(self, params: FloatArray) -> Evaluation:
        """See `Problem`."""
        return self._problem.evaluate_params(params)

    def exact(self, params: FloatArray) -> dict[str, FloatArray]:
        """See `Problem`."""
        return self._problem.exact(params)

    def approximate(self, params: FloatArray) -> dict[str, FloatArray]:
        """See `Problem`; cut."""
        return self.cut(self._problem.approximate(params))

    def corners(self) -> FloatArray:
        """See `Problem`."""
        return self._problem.corners()

    def cut(self, columns: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Columns with latencies cut; NaN stays NaN."""
        return {name: np.minimum(values, self._most.get(name, np.inf)) for name, values in columns.items()}

    def usable(self, data: Evaluation) -> Evaluation:
        """The evaluations that a model can learn from, latencies cut: those in which nothing is missing."""
        columns = self.cut(data.columns)
        needed = {m.column for m in (*self.objectives, *(c.metric for c in self.constraints))}
        finite = np.all([np.isfinite(columns[name]) for name in sorted(needed)], axis=0)
        rows = np.flatnonzero(finite & ~np.isnan(data.Y).any(axis=1))
        taken = data.take(rows)
        return Evaluation(
            params=taken.params,
            Y=taken.Y,
            slack=taken.slack,
            columns={name: values[rows] for name, values in columns.items()},
            tier_shares=taken.tier_shares,
        )
