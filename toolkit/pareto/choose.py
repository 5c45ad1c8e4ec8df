"""From a front to one point: named rules, and a sentence that says why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.errors import ConfigError, InfeasibleError
from simulators.outcomes import FloatArray, IntArray
from toolkit.evaluation.constraints import Constraint
from toolkit.evaluation.metrics import ROUTER_DELAYS
from toolkit.problem import Evaluation

RULES = ("auto", "knee", "max_quality", "min_cost", "min_latency", "min_fleet_cost")
_SORTED_BY = {
    "max_quality": (("quality", "cost_usd"), "highest quality on the front"),
    "min_cost": (("cost_usd", "quality"), "cheapest point on the front"),
    "min_latency": (("latency_p95_s", "quality"), "lowest p95 latency on the front"),
    "min_fleet_cost": (("fleet_usd_per_hour", "latency_p95_s"), "cheapest GPUs on the front"),
}
_NEEDED = {"min_cost": "cost_usd", "min_latency": "latency_s", "min_fleet_cost": "a fleet (space=deployment)"}
CERTIFIED = "certified"
"""A rule that needs a validation split; `toolkit.certify.choice` has it."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen candidate.

    Attributes:
        row: Its row in the evaluation.
        rule: The rule that chose it.
        because: One sentence for people.
    """

    row: int
    rule: str
    because: str


def choose(evaluation: Evaluation, front: IntArray, rule: str, constraints: tuple[Constraint, ...]) -> Choice:
    """Choose a point of the front.

    Args:
        evaluation: All candidates.
        front: Rows of the feasible front.
        rule: One of `RULES`. `auto` is `min_cost` under a floor (a ceiling on a loss of quality is one too),
            `max_quality` under other ceilings alone, else `knee`. Where GPUs are searched, a floor means `min_latency`,
            and with a ceiling on latency beside it `min_fleet_cost`.
        constraints: The constraints that the search ran under.

    Raises:
        ConfigError: If the rule is unknown or needs what the data lacks.
        InfeasibleError: If the front is empty.
    """
    check_rule(rule)
    if len(front) == 0:
        raise InfeasibleError(explain_infeasible(evaluation, constraints))
    if rule == "auto":
        rule = _automatic(evaluation, constraints)
    if rule == "knee":
        row = int(front[np.argmin(_distance_to_ideal(evaluation, front))])
        why = "nearest to the ideal point of the front (axes scaled by the front's range, cost as log10)"
    else:
        columns, why = _SORTED_BY[rule]
        if rule in _NEEDED and columns[0] not in evaluation.columns:
            raise ConfigError(f"choose={rule} needs {_NEEDED[rule]} in the data; use choose=max_quality or choose=knee")
        row = _best(evaluation, front, columns)
    bounds = " and ".join(c.text for c in constraints)
    return Choice(
        row=row, rule=rule, because=f"{rule}: {why}" + (f" with {bounds} on the tune split" if bounds else "")
    )


def check_rule(rule: str) -> None:
    """Raise ConfigError if there is no such rule."""
    if rule not in (*RULES, CERTIFIED):
        raise ConfigError(f"choose={rule} is not available; known: {', '.join((*RULES, CERTIFIED))}")


def _automatic(evaluation: Evaluation, constraints: tuple[Constraint, ...]) -> str:
    floor = any(c.metric.of_quality for c in constraints)
    if floor and "fleet_usd_per_hour" in evaluation.columns:
        return "min_fleet_cost" if any(c.metric.needs_latency for c in constraints) else "min_latency"
    if floor and "cost_usd" in evaluation.columns:
        return "min_cost"
    bounds = [c for c in constraints if c.metric.base not in ROUTER_DELAYS]  # no policy changes those
    return "max_quality" if bounds else "knee"


def _best(evaluation: Evaluation, front: IntArray, columns: tuple[str, ...]) -> int:
    sign = {"quality": -1.0}
    keys = [sign.get(c, 1.0) * evaluation.columns[c][front] for c in columns if c in evaluation.columns]
    return int(front[np.lexsort(keys[::-1])[0]])


def _distance_to_ideal(evaluation: Evaluation, front: IntArray) -> FloatArray:
    Y = evaluation.Y[front].copy()
    for j in range(Y.shape[1]):
        if (Y[:, j] < 0).all():
            Y[:, j] = -np.log10(-Y[:, j])
    span = np.ptp(Y, axis=0)
    scaled = (Y.max(axis=0) - Y) / np.where(span > 0, span, 1.0)
    return np.asarray(np.sqrt((scaled**2).sum(axis=1)))


def explain_infeasible(evaluation: Evaluation, constraints: tuple[Constraint, ...]) -> str:
    """Which constraints bind, the best value each could reach, and the closest point."""
    rows = np.flatnonzero(evaluation.ok)
    if len(rows) == 0:
        return f"all {len(evaluation)} evaluations failed; none gave finite objectives"
    slack = evaluation.slack[rows]
    scale = np.array([max(abs(c.limit), 1e-12) for c in constraints])
    closest = int(np.argmin(np.maximum(-slack / scale, 0.0).max(axis=1)))
    broken = [c for c, s in zip(constraints, slack[closest], strict=True) if s < 0]
    parts = []
    for c in broken:
        values = evaluation.columns[c.metric.column][rows]
        best = values.max() if c.metric.maximise else values.min()
        alone = "out of reach alone" if (c.slack(values) < 0).all() else "in reach alone, not with the others"
        parts.append(f"{c.name}={c.limit:g} binds ({alone}: best {c.metric.column} {best:.6g})")
    shown = ("quality", "cost_usd", "worst_slice_quality", "latency_p95_s")
    point = [f"{name}={evaluation.columns[name][rows[closest]]:.6g}" for name in shown if name in evaluation.columns]
    return (
        f"no policy meets all constraints on the tune split: {'; '.join(parts)}. "
        f"Closest point: {', '.join(point)}. {_remedy(broken)}"
    )


def _remedy(broken: list[Constraint]) -> str:
    """What would help: another router, where its delay is in the way of every policy."""
    slow = [c.name for c in broken if c.metric.base in ROUTER_DELAYS]
    if not slow:
        return "Loosen a constraint or add a stronger tier"
    return f"Every policy behind this router takes that long: raise {slow[0]}, or take a faster router"
