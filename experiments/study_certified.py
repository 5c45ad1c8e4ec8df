"""`routefront study choose=certified`: ordinary and certified choices, judged on queries that neither split held.

Each seed splits the prompts into tune, validate and a rest. The ordinary rule takes the cheapest candidate that meets
the floor on tune; the certified one walks the path and tests on validate; both are judged on the rest: do they keep the
floor, what do they cost, and what does `certify` say against the best single tier and LiteLLM's stock boundaries?
"""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from experiments.baselines import StockBaseline
from experiments.loading import make_controller
from experiments.pipeline import Prepared, prepare
from experiments.router import behind_router
from experiments.settings import StudySettings
from simulators.errors import ConfigError, InfeasibleError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.seeds import spawn_rng
from toolkit.certify.certificate import certify
from toolkit.certify.choice import choose_certified, safe_path
from toolkit.certify.criteria import Judge
from toolkit.evaluation.constraints import Constraint, parse_constraints, slack_matrix
from toolkit.evaluation.slices import coverage
from toolkit.export.litellm import TIER_OF_NAME
from toolkit.pareto.choose import choose
from toolkit.pareto.front import feasible_front
from toolkit.problem import Evaluation
from toolkit.search.base import run_search

_SMALLEST_REST = 0.05
RULES = ("ordinary", "certified")


@dataclass(kw_only=True)
class CertifiedRow:
    """One rule at one floor, over the splits in which it chose a point.

    Attributes:
        floor: Quality floor.
        rule: `ordinary` or `certified`.
        quality, cost_usd: Per split, on the rest.
        optimism: Per split, tune quality minus that on the rest.
        p_broken: Per split, p-value against "the floor holds" on the rest.
        verdicts: Baseline -> verdict -> number of splits.
        unchosen: Splits in which no point could be chosen.
    """

    floor: float
    rule: str
    quality: list[float] = field(default_factory=list)
    cost_usd: list[float] = field(default_factory=list)
    optimism: list[float] = field(default_factory=list)
    p_broken: list[float] = field(default_factory=list)
    verdicts: dict[str, dict[str, int]] = field(default_factory=dict)
    unchosen: int = 0

    def summary(self, alpha: float) -> dict[str, Any]:
        """The row as JSON."""
        found: dict[str, Any] = {
            "rule": f"{self.rule}, quality >= {self.floor:g}",
            "n_splits": len(self.quality),
            "unchosen_splits": self.unchosen,
        }
        if not self.quality:
            return found
        return {
            **found,
            "quality": float(np.mean(self.quality)),
            "cost_usd": float(np.mean(self.cost_usd)),
            "floor_met_share": float(np.mean(np.array(self.quality) >= self.floor)),
            "floor_shown_broken_share": float(np.mean(np.array(self.p_broken) <= alpha)),
            "optimism": float(np.mean(self.optimism)),
            "verdicts": self.verdicts,
        }


@dataclass(frozen=True, kw_only=True)
class _Rest:
    """What neither split held, with a way to route it."""

    prepared: Prepared
    table: OutcomeTable

    def decide(self, params: FloatArray) -> IntArray:
        scores = self.prepared.scorer.predict(self.table.queries)
        family = self.prepared.problem.family.transfer(scores, self.table.queries)
        return np.asarray(family.assign(params[None, :])[0], dtype=np.int64)


def check_rest(settings: StudySettings) -> None:
    """Refuse splits that leave nothing to judge on.

    Raises:
        ConfigError: If tune and validate take (nearly) everything.
    """
    if settings.split.tune + settings.split.validate_ > 1 - _SMALLEST_REST:
        raise ConfigError(
            "study choose=certified judges on prompts outside both splits; leave some, such as split.tune=0.5 "
            "split.validate=0.25"
        )


def certified_rows(settings: StudySettings) -> list[CertifiedRow]:
    """Empty rows, two per floor."""
    return [CertifiedRow(floor=floor, rule=rule) for floor in settings.floors for rule in RULES]


def add_split(rows: list[CertifiedRow], settings: StudySettings, table: OutcomeTable) -> None:
    """One seeded split: search once, choose at every floor by both rules, judge on the rest."""
    prepared = prepare(settings, table, ())
    evaluation = run_search(prepared.problem, make_controller(settings, prepared.problem, prepared.axes)).evaluation
    known = np.concatenate(list(prepared.rows.values()))
    unseen = table.take(np.setdiff1d(np.arange(table.n_queries), known))
    rest = _Rest(prepared=prepared, table=behind_router(prepared.router, unseen))
    for floor in settings.floors:
        constraints = parse_constraints({"quality_floor": floor})
        chosen = _choices(prepared, evaluation, constraints, settings)
        for row in rows:
            if row.floor != floor:
                continue
            params = chosen.get(row.rule)
            if params is None:
                row.unchosen += 1
            else:
                _add(row, rest, params, evaluation, constraints, settings)


def _choices(
    prepared: Prepared, evaluation: Evaluation, constraints: tuple[Constraint, ...], settings: StudySettings
) -> dict[str, FloatArray]:
    """Rule -> parameters of the point it chose."""
    slack = slack_matrix(constraints, evaluation.columns, len(evaluation))
    found = dataclasses.replace(evaluation, slack=slack)
    judge = Judge(prepared.validate, coverage(prepared.validate, settings.slices.minimum))
    try:
        ordinary = choose(found, feasible_front(found), "min_cost", constraints).row
    except InfeasibleError:
        return {}
    chosen = {"ordinary": found.params[ordinary]}
    try:
        certified = choose_certified(
            safe_path(found, constraints),
            lambda row: [judge.test(c, prepared.decide(found.params[row])) for c in constraints],
            settings.alpha,
            ordinary,
        )
    except InfeasibleError:
        return chosen
    return {**chosen, "certified": found.params[certified.row]}


def _add(
    row: CertifiedRow,
    rest: _Rest,
    params: FloatArray,
    evaluation: Evaluation,
    constraints: tuple[Constraint, ...],
    settings: StudySettings,
) -> None:
    """Judge one chosen point on the rest."""
    table, tier = rest.table, rest.decide(params)
    rows, cover = np.arange(table.n_queries), coverage(table, settings.slices.minimum)
    quality = float(table.quality[rows, tier].mean())
    here = int(np.flatnonzero((evaluation.params == params).all(axis=1))[0])
    row.quality.append(quality)
    row.cost_usd.append(float(table.cost_usd[rows, tier].mean()))
    row.optimism.append(float(evaluation.columns["quality"][here]) - quality)
    row.p_broken.append(Judge(table, cover).test(constraints[0], tier).p_broken)
    for name, baseline in _baselines(rest).items():
        found = certify(
            table,
            tier,
            baseline,
            coverage=cover,
            constraints=constraints,
            margin=None,
            alpha=settings.alpha,
            power=0.8,
            rng=spawn_rng(settings.seed, "certify"),
            most_unjudged=1.0,
        )
        counts = row.verdicts.setdefault(name, {"pass": 0, "fail": 0, "undecided": 0})
        counts[found.verdict] += 1


def _baselines(rest: _Rest) -> dict[str, IntArray]:
    """The single tier that was best on tune, and LiteLLM's stock boundaries where it is installed and has prompts."""
    table = rest.table
    best = int(np.argmax(rest.prepared.tune.quality.mean(axis=0)))
    found = {"best single tier": np.full(table.n_queries, best, dtype=np.int64)}
    prompts = table.queries.prompt is not None and importlib.util.find_spec("litellm") is not None
    if prompts and table.n_tiers in TIER_OF_NAME:
        found["litellm-stock"] = StockBaseline(tiers=table.tiers).decide(table)
    return found
