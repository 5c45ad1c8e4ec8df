r"""`choose=certified`: the cheapest point that is *shown* to keep its constraints.

An ordinary choice takes the cheapest point whose estimate meets the floor. Among many candidates that is one whose
estimate was lucky, so on new queries it misses the floor in a third to a half of the cases. Learn-then-Test
[Angelopoulos2021]_ turns the choice into tests. On the tune split, candidates are put in order from the safest to the
cheapest (the path). On the validation split the hypothesis "candidate j breaks a constraint" is tested along that path,
each at level $\alpha$, until the first that cannot be rejected; the last rejected one is shipped. Because the order was
fixed beforehand, the probability that the shipped point breaks a constraint is at most $\alpha$, however many were
tested (fixed-sequence testing).

References:
    [Angelopoulos2021] A. N. Angelopoulos, S. Bates, E. J. Candès, M. I. Jordan, L. Lei, Learn then test: calibrating
        predictive algorithms to achieve risk control, arXiv 2110.01052.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simulators.errors import ConfigError, InfeasibleError
from simulators.outcomes import FloatArray, IntArray
from toolkit.certify.criteria import ConstraintTest
from toolkit.evaluation.constraints import Constraint
from toolkit.evaluation.metrics import ROUTER_DELAYS
from toolkit.problem import Evaluation

PATH_POINTS = 30


@dataclass(frozen=True, kw_only=True)
class Step:
    """One candidate of the path.

    Attributes:
        row: Its row in the evaluation.
        p: p-value against "it breaks a constraint": the largest over its constraints.
        binding: Text of the constraint with that p-value.
        certified: Whether it and all before it were rejected.
    """

    row: int
    p: float
    binding: str
    certified: bool


@dataclass(frozen=True, kw_only=True)
class CertifiedChoice:
    """The shipped candidate.

    Attributes:
        row: Its row in the evaluation.
        ordinary_row: What the ordinary rule (cheapest feasible on the tune split) would have taken.
        path: What was tested, in order.
        alpha: Level.
    """

    row: int
    ordinary_row: int
    path: tuple[Step, ...]
    alpha: float


def safe_path(evaluation: Evaluation, constraints: tuple[Constraint, ...], points: int = PATH_POINTS) -> IntArray:
    """Rows of candidates from the safest to the cheapest, from the tune split alone.

    Safety of a candidate: its smallest slack, in units of the constraint's limit or of quality, over the constraints.
    For each of a falling series of safety levels the cheapest candidate at least that safe is taken; under ceilings
    alone, where the cheapest would be the worst, the one of highest quality.

    Args:
        evaluation: All candidates on the tune split.
        constraints: At least one.
        points: Length of the path, at most.

    Raises:
        InfeasibleError: If no evaluation succeeded.
    """
    usable = np.flatnonzero(evaluation.ok)
    if len(usable) == 0:
        raise InfeasibleError(f"all {len(evaluation)} evaluations failed; none gave finite objectives")
    chosen = [j for j, c in enumerate(constraints) if c.metric.base not in ROUTER_DELAYS]  # no policy changes those
    chosen = chosen or list(range(len(constraints)))
    scale = np.array([1.0 if c.metric.in_points else abs(c.limit) for c in constraints])
    safety = (evaluation.slack[usable] / scale)[:, chosen].min(axis=1)
    price = _price(evaluation, constraints)[usable]
    highest = float(safety.max())
    levels = highest * np.linspace(1.0, 0.0, points) ** 2 if highest > 0 else np.array([highest])
    by_price = np.lexsort((-safety, price))
    path: list[int] = []
    for level in levels:
        first = by_price[np.argmax(safety[by_price] >= level - 1e-12)]
        if not path or path[-1] != usable[first]:
            path.append(int(usable[first]))
    return np.array(path, dtype=np.int64)


def _price(evaluation: Evaluation, constraints: tuple[Constraint, ...]) -> FloatArray:
    """`n`, what is given up for safety: cost under a floor, lost quality under ceilings alone."""
    columns = evaluation.columns
    if "quality" in columns and not any(c.metric.of_quality for c in constraints):
        return -columns["quality"]
    return columns.get("cost_usd", -evaluation.Y[:, 0])


def choose_certified(
    path: IntArray, test: Callable[[int], list[ConstraintTest]], alpha: float, ordinary_row: int
) -> CertifiedChoice:
    """Walk the path and keep the last candidate that is shown to meet all constraints.

    Args:
        path: Rows from the safest to the cheapest, fixed before the validation split was looked at.
        test: Row -> tests of all constraints on the validation split.
        alpha: Level, in (0, 0.5).
        ordinary_row: The ordinary choice, for comparison.

    Raises:
        InfeasibleError: If not even the first candidate can be certified.
    """
    if not 0 < alpha < 0.5:
        raise ConfigError(f"alpha must lie in (0, 0.5); got {alpha:g}")
    steps: list[Step] = []
    for row in path:
        tests = test(int(row))
        worst = max(tests, key=lambda t: t.p_holds)
        steps.append(Step(row=int(row), p=worst.p_holds, binding=worst.text, certified=worst.p_holds <= alpha))
        if worst.p_holds > alpha:
            break
    certified = [step for step in steps if step.certified]
    if not certified:
        worst = max(test(int(path[0])), key=lambda t: t.p_holds)
        found = worst.note or f"{worst.value.mean:.4g} [{worst.value.low:.4g}, {worst.value.high:.4g}] on validation"
        raise InfeasibleError(
            f"choose=certified: not even the safest point is shown to keep {worst.text} at alpha = {alpha:g} ({found}, "
            f"p = {worst.p_holds:.3g}); loosen the constraint, add validation data, or use another rule of choose"
        )
    return CertifiedChoice(row=certified[-1].row, ordinary_row=ordinary_row, path=tuple(steps), alpha=alpha)
