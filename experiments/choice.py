"""From a finished search to one point: an ordinary rule, or the last one that the validation split certifies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.pipeline import Prepared
from experiments.settings import TuneSettings
from simulators.errors import ConfigError, InfeasibleError
from simulators.outcomes import IntArray
from toolkit.certify.choice import CertifiedChoice, choose_certified, safe_path
from toolkit.certify.criteria import ConstraintTest, Judge
from toolkit.evaluation.constraints import Constraint
from toolkit.evaluation.slices import coverage
from toolkit.pareto.choose import Choice, choose
from toolkit.report.record import CertifiedChoiceRecord, ChoicePoint
from toolkit.search.base import SearchResult


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The choice, and how it was certified.

    Attributes:
        choice: Row, rule and reason.
        certified: The walk, with choose=certified.
    """

    choice: Choice
    certified: CertifiedChoice | None = None


def check_certifiable(constraints: tuple[Constraint, ...], *, simulated_latency: bool) -> None:
    """Refuse, before any search, what choose=certified could never certify.

    Raises:
        ConfigError: If there is no constraint, or one on latencies that are simulated under load.
    """
    if not constraints:
        raise ConfigError(
            "choose=certified needs something to certify: set constraints.quality_floor=0.9 or another constraint"
        )
    for constraint in constraints:
        if simulated_latency and constraint.metric.needs_latency:
            raise ConfigError(
                f"choose=certified cannot test {constraint.text}: latency under load is simulated, without an "
                "interval; use world=none or another rule of choose"
            )


def make_choice(
    settings: TuneSettings, prepared: Prepared, result: SearchResult, constraints: tuple[Constraint, ...]
) -> Chosen:
    """Choose by the rule of the settings.

    Raises:
        ConfigError: If the rule needs what is not there.
        InfeasibleError: If no candidate meets, or is shown to meet, every constraint.
    """
    if settings.choose != "certified":
        return Chosen(choice=_choose(settings, prepared, result, constraints, settings.choose))
    path = safe_path(result.evaluation, constraints)
    ordinary = _choose(settings, prepared, result, constraints, "auto")
    judge = Judge(
        prepared.validate,
        coverage(prepared.validate, settings.slices.minimum),
        simulated_latency=prepared.validate_world is not None,
    )

    def test(row: int) -> list[ConstraintTest]:
        tier = prepared.decide(result.evaluation.params[row])
        return [judge.test(constraint, tier) for constraint in constraints]

    found = choose_certified(path, test, settings.alpha, ordinary.row)
    bounds = " and ".join(c.text for c in constraints)
    because = (
        f"certified: the {_aim(constraints)} point of the path that is shown on the validation split to keep {bounds}; "
        f"the chance that the chosen point breaks one is at most {settings.alpha:g}"
        f"{_left_out(prepared, settings, constraints)}"
    )
    return Chosen(choice=Choice(row=found.row, rule="certified", because=because), certified=found)


def _choose(
    settings: TuneSettings, prepared: Prepared, result: SearchResult, constraints: tuple[Constraint, ...], rule: str
) -> Choice:
    """`choose`; where a trained policy reaches too little, the error says what a single tier does."""
    try:
        return choose(result.evaluation, result.front, rule, constraints)
    except InfeasibleError as error:
        if settings.policy.kind != "target":
            raise
        alone = prepared.tune.quality.mean(axis=0)
        best = int(np.argmax(alone))
        raise InfeasibleError(
            f"{error}. Or it is the training that falls short: {prepared.tune.tiers[best]} alone has quality "
            f"{alone[best]:.4f}; raise controller.per_query.steps, or use policy=utility controller=exact"
        ) from error


def _aim(constraints: tuple[Constraint, ...]) -> str:
    """What the path leads to."""
    return "cheapest" if any(c.metric.of_quality for c in constraints) else "best"


def _left_out(prepared: Prepared, settings: TuneSettings, constraints: tuple[Constraint, ...]) -> str:
    """Slices that a constraint over slices says nothing about, because validation has too few of their queries."""
    table = prepared.validate
    merged = coverage(table, settings.slices.minimum).merged_into(table)
    names = [name for name, group in merged.items() if group is None]
    if not names or not any(c.metric.over_slices for c in constraints):
        return ""
    return f" (not counting slices too small to be judged: {', '.join(names)})"


def choice_record(prepared: Prepared, result: SearchResult, chosen: Chosen) -> CertifiedChoiceRecord | None:
    """What the report says on a certified choice: the walk, and the ordinary choice beside it."""
    found = chosen.certified
    if found is None:
        return None
    return CertifiedChoiceRecord(
        alpha=found.alpha,
        path=tuple(_point(prepared, result, step.row) for step in found.path),
        p=tuple(step.p for step in found.path),
        binding=tuple(step.binding for step in found.path),
        certified=tuple(step.certified for step in found.path),
        chosen=_point(prepared, result, found.row),
        ordinary=_point(prepared, result, found.ordinary_row),
    )


def _point(prepared: Prepared, result: SearchResult, row: int) -> ChoicePoint:
    table, tier = prepared.validate, prepared.decide(result.evaluation.params[row])
    columns = result.evaluation.columns
    return ChoicePoint(
        tune_quality=_column(columns.get("quality"), row),
        tune_cost_usd=_column(columns.get("cost_usd"), row),
        validate_quality=_mean(table.quality, tier),
        validate_cost_usd=_mean(table.cost_usd, tier),
    )


def _column(values: np.ndarray | None, row: int) -> float:
    return np.nan if values is None else float(values[row])


def _mean(values: np.ndarray, tier: IntArray) -> float:
    return float(values[np.arange(len(tier)), tier].mean())
