"""How flat is the optimum: what happens when one parameter of the chosen point moves and the others stay.

A step is 1 % of the traffic for a boundary, and 1 % of its range for any other parameter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.outcomes import FloatArray
from toolkit.problem import Evaluation, RoutingProblem

STEPS = 20


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How much worse a figure may be before a parameter counts as having left its range.

    Attributes:
        share: Loss of a quality or a share, in points.
        factor: Relative rise of a cost or a latency.
    """

    share: float = 0.005
    factor: float = 0.05


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """One parameter of the chosen point.

    Attributes:
        name: The parameter.
        value: Its chosen value.
        low, high: Ends of the range around the value, within the steps tried, in which every objective stays within
            tolerance of the chosen point's and every constraint that holds there still holds.
        at_edge_low, at_edge_high: Whether the range reaches the last step tried, so that it may be wider.
        down, up: Objective column -> change from the value to the next step below and above; empty where none is.
    """

    name: str
    value: float
    low: float
    high: float
    at_edge_low: bool
    at_edge_high: bool
    down: dict[str, float]
    up: dict[str, float]


def sensitivities(problem: RoutingProblem, params: FloatArray, tolerance: Tolerance) -> tuple[Sensitivity, ...]:
    """Sensitivity of each parameter of one candidate (`params: p`) that can be moved alone."""
    found = []
    for i, name in enumerate(problem.parameter_names):
        candidates = problem.family.sweep(params, i, STEPS)
        if len(candidates) > 1:
            found.append(_one(problem, problem.evaluate_params(candidates), params, i, name, tolerance))
    return tuple(found)


def _one(
    problem: RoutingProblem, evaluation: Evaluation, params: FloatArray, i: int, name: str, tolerance: Tolerance
) -> Sensitivity:
    values = evaluation.params[:, i]
    here = int(np.searchsorted(values, params[i]))  # not by distance: two unreachable boundaries have none
    fine = _within(problem, evaluation, here, tolerance)
    first = last = here
    while first > 0 and fine[first - 1]:
        first -= 1
    while last < len(values) - 1 and fine[last + 1]:
        last += 1
    return Sensitivity(
        name=name,
        value=float(params[i]),
        low=float(values[first]),
        high=float(values[last]),
        at_edge_low=first == 0,
        at_edge_high=last == len(values) - 1,
        down=_change(problem, evaluation, here, here - 1),
        up=_change(problem, evaluation, here, here + 1),
    )


def _within(problem: RoutingProblem, evaluation: Evaluation, here: int, tolerance: Tolerance) -> np.ndarray:
    """`n`, True where nothing is worse than at `here` by more than the tolerance."""
    fine = evaluation.ok.copy()
    for metric in problem.objectives:
        values = evaluation.columns[metric.column]
        if metric.in_points:
            loss = (values[here] - values) * (1 if metric.maximise else -1)
            fine &= loss <= tolerance.share
        else:
            fine &= values <= values[here] * (1 + tolerance.factor)
    kept = evaluation.slack[here] >= 0
    return np.asarray(fine & (evaluation.slack[:, kept] >= 0).all(axis=1))


def _change(problem: RoutingProblem, evaluation: Evaluation, here: int, there: int) -> dict[str, float]:
    if not 0 <= there < len(evaluation):
        return {}
    columns = {m.column: evaluation.columns[m.column] for m in problem.objectives}
    return {name: float(values[there] - values[here]) for name, values in columns.items()}
