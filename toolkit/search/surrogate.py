"""What a Bayesian search believes about candidates it has not evaluated.

Each objective, and each constraint on something that is no objective, is one *output*: a natural column on an axis
where more is better. An output is

* **known** (`model=grey`): the problem computes the column exactly and in bulk, so nothing is modelled;
* **a residual** (`model=grey`): a Gaussian process on the difference to the problem's analytic approximation;
* **a black box** (`model=gp`): a Gaussian process on the column itself.

Notation: r candidates, n evaluations, m objectives, c constraints on other columns, d dimensions.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from simulators.outcomes import FloatArray
from toolkit.evaluation.constraints import Constraint
from toolkit.pareto.axes import Axes, Axis
from toolkit.pareto.front import non_dominated
from toolkit.problem import Evaluation, Problem

_KNOWN_SD = 1e-6


class Process(Protocol):
    """A Gaussian process at fixed hyper-parameters; `X: r x d`."""

    def predict(self, Xs: FloatArray) -> tuple[FloatArray, FloatArray]:
        """`r` means and `r` positive standard deviations."""
        ...

    def predict_with_gradient(self, Xs: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """The same with their `r x d` derivatives in the inputs."""
        ...

    def condition_on(self, X_new: FloatArray, y_new: FloatArray) -> Process:
        """The posterior after further observations."""
        ...


Fit = Callable[[FloatArray, FloatArray], Process]


@dataclass(frozen=True, kw_only=True)
class Output:
    """One modelled column.

    Attributes:
        axis: Its axis; coordinates grow with what is better.
        known: Whether the problem computes it exactly.
        threshold: Coordinate that a constraint demands, or -inf.
    """

    axis: Axis
    known: bool
    threshold: float

    def coordinate(self, natural: FloatArray) -> FloatArray:
        """Coordinates of natural values."""
        return Axes(axes=(self.axis,)).scale_column(0, natural)


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """All outputs of a problem.

    Attributes:
        objectives: m outputs; their `threshold` is the floor of constraints on the same column.
        constraints: c outputs for constraints on other columns.
        reference: `m` coordinates of the published reference point.
    """

    objectives: tuple[Output, ...]
    constraints: tuple[Output, ...]
    reference: FloatArray

    @property
    def thresholds(self) -> FloatArray:
        """`m + c` coordinates that constraints demand of each output; -inf for none."""
        return np.array([o.threshold for o in (*self.objectives, *self.constraints)])

    @property
    def floor(self) -> FloatArray:
        """`m` coordinates below which an objective breaks a constraint; -inf for none."""
        return np.array([o.threshold for o in self.objectives])


def make_outputs(problem: Problem, axes: Axes, *, grey: bool, logit_quality: bool) -> Outputs:
    """The outputs of a problem on model axes: log10 cost and latency, quality as it is or as a logit."""
    objectives, reference = [], []
    bounds: dict[str, Constraint] = {}
    for c in problem.constraints:
        known = bounds.setdefault(c.metric.column, c)
        tighter = c.limit > known.limit if c.metric.maximise else c.limit < known.limit
        bounds[c.metric.column] = c if tighter else known
    for j, (metric, axis) in enumerate(zip(problem.objectives, axes.axes, strict=True)):
        modelled = dataclasses.replace(axis, logit=logit_quality and metric.base in {"quality", "worst_slice"})
        bound = bounds.pop(metric.column, None)
        output = Output(axis=modelled, known=grey and metric.column in problem.exact_columns, threshold=-np.inf)
        if bound is not None:
            output = dataclasses.replace(output, threshold=float(output.coordinate(np.array([bound.limit]))[0]))
        objectives.append(output)
        reference.append(float(output.coordinate(np.array([axes.natural(j, -axes.margin)]))[0]))
    others = tuple(
        _constraint_output(c, known=grey and c.metric.column in problem.exact_columns) for c in bounds.values()
    )
    return Outputs(objectives=tuple(objectives), constraints=others, reference=np.array(reference))


def _constraint_output(constraint: Constraint, *, known: bool) -> Output:
    """An axis on which the limit is at 0, and 1 is half (or one and a half times) the limit."""
    metric, limit = constraint.metric, constraint.limit
    in_log = (metric.base in {"cost", "fleet_cost"} or metric.base.startswith("latency")) and limit > 0
    best = limit + 0.1 if metric.maximise else limit / 2 if in_log else limit - 0.1
    axis = Axis(column=metric.column, maximise=metric.maximise, log=in_log, worst=limit, best=best)
    return Output(axis=axis, known=known, threshold=0.0)


@dataclass(frozen=True, kw_only=True)
class Belief:
    """Independent Gaussians for r candidates.

    Attributes:
        mean, sd: `r x m` objectives.
        slack_mean, slack_sd: `r x c` constraints on other columns, feasible where >= 0.
    """

    mean: FloatArray
    sd: FloatArray
    slack_mean: FloatArray
    slack_sd: FloatArray


class Surrogate:
    """Beliefs from evaluations.

    Args:
        problem: The problem.
        outputs: Its outputs.
        data: Successful evaluations.
        grey: Whether known columns and approximations are used.
        fit: Fits one process: `(X: n x d, y: n) -> Process`; or one such function per output.
    """

    def __init__(
        self, problem: Problem, outputs: Outputs, data: Evaluation, *, grey: bool, fit: Fit | Sequence[Fit]
    ) -> None:
        self._problem, self.outputs, self._params, self._grey = problem, outputs, data.params, grey
        self._all = (*outputs.objectives, *outputs.constraints)
        self.X: FloatArray = problem.space.encode(data.params)
        columns = data.columns
        self.observed = np.stack([o.coordinate(columns[o.axis.column]) for o in self._all], axis=1)
        residual = self.observed - self.prior(data.params)
        fits = fit if isinstance(fit, Sequence) else [fit] * len(self._all)
        self.processes = [None if o.known else fits[i](self.X, residual[:, i]) for i, o in enumerate(self._all)]

    @property
    def differentiable(self) -> bool:
        """Whether every output is a process without a prior mean, so that gradients in X are known."""
        return not self._grey

    def prior(self, params: FloatArray) -> FloatArray:
        """`r x (m + c)` known coordinates, approximations, and 0 for black boxes."""
        found = np.zeros((len(params), len(self._all)))
        if not self._grey:
            return found
        columns = self._problem.exact(params)
        if not all(o.known for o in self._all):
            columns = {**self._problem.approximate(params), **columns}
        for i, output in enumerate(self._all):
            if output.axis.column in columns:
                found[:, i] = output.coordinate(columns[output.axis.column])
        return found

    def predict(self, X: FloatArray, params: FloatArray) -> Belief:
        """Belief about `X: r x d`, which realise `params: r x p`."""
        mean = self.prior(params)
        sd = np.full_like(mean, _KNOWN_SD)
        for i, process in enumerate(self.processes):
            if process is not None:
                residual, sd[:, i] = process.predict(X)
                mean[:, i] += residual
        return self._belief(mean, sd)

    def predict_with_gradient(self, X: FloatArray) -> tuple[Belief, FloatArray, FloatArray]:
        """Belief, and `r x (m + c) x d` gradients of means and standard deviations; black boxes only."""
        assert self.differentiable
        found = [process.predict_with_gradient(X) for process in self.processes if process is not None]
        mean, sd, d_mean, d_sd = (np.stack(parts, axis=1) for parts in zip(*found, strict=True))
        return self._belief(mean, sd), d_mean, d_sd

    def _belief(self, mean: FloatArray, sd: FloatArray) -> Belief:
        m = len(self.outputs.objectives)
        return Belief(mean=mean[:, :m], sd=sd[:, :m], slack_mean=mean[:, m:], slack_sd=sd[:, m:])

    def believe(self, X: FloatArray, params: FloatArray) -> Surrogate:
        """With pending points (`X: r x d`) taken to turn out at their means: surer there, and their gain is gone."""
        other = copy.copy(self)
        belief = self.predict(X, params)
        mean = np.concatenate([belief.mean, belief.slack_mean], axis=1)
        residual = mean - self.prior(params)
        other.X = np.concatenate([self.X, X])
        other._params = np.concatenate([self._params, params])
        other.observed = np.concatenate([self.observed, mean])
        other.processes = [
            None if process is None else process.condition_on(X, residual[:, i])
            for i, process in enumerate(self.processes)
        ]
        return other

    def _incumbents(self, *, smoothed: bool) -> tuple[FloatArray, np.ndarray]:
        """Coordinates of all evaluations, as observed or as the model believes, and which are feasible."""
        mean = self.observed
        if smoothed:
            belief = self.predict(self.X, self._params)
            mean = np.concatenate([belief.mean, belief.slack_mean], axis=1)
        return mean, np.asarray((mean >= self.outputs.thresholds).all(axis=1))

    def front(self, *, smoothed: bool) -> FloatArray:
        """`F x m` coordinates of the feasible evaluations that none dominates."""
        mean, feasible = self._incumbents(smoothed=smoothed)
        Z = mean[feasible, : len(self.outputs.objectives)]
        return np.asarray(Z[non_dominated(Z)])

    def best_X(self, *, smoothed: bool) -> FloatArray:
        """`F x d` where the front lies; with nothing feasible, the evaluation nearest to it."""
        mean, feasible = self._incumbents(smoothed=smoothed)
        rows = np.flatnonzero(feasible)
        if len(rows) == 0:
            demanded = self.outputs.thresholds
            return self.X[[int(np.argmin(np.maximum(demanded - mean, 0.0).max(axis=1)))]]
        return np.asarray(self.X[rows[non_dominated(mean[rows, : len(self.outputs.objectives)])]])
