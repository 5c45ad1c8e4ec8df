"""Choices among thresholds whose true quality and cost are known: ordinary, certified, and an oracle's.

Each replication draws a tune and a validation split of the embedded scenario, enumerates thresholds on the tune split,
chooses by each rule, and looks the truth up in a population of 400,000 queries.
"""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass

import numpy as np
import yaml

from simulators.errors import InfeasibleError
from simulators.outcomes import FloatArray, OutcomeTable
from simulators.scenario import ScenarioSpec, parse_scenario, sample_scenario
from simulators.seeds import spawn_rng
from toolkit.certify.choice import choose_certified, safe_path
from toolkit.certify.criteria import Judge
from toolkit.evaluation.constraints import Constraint, parse_constraints
from toolkit.evaluation.metrics import Metric
from toolkit.evaluation.slices import Coverage, coverage
from toolkit.evaluation.thresholds import ScoreOrder, ThresholdEstimator
from toolkit.families.thresholds import ThresholdFamily
from toolkit.pareto.choose import choose
from toolkit.policies.lanes import Lanes
from toolkit.problem import RoutingProblem
from toolkit.scorers.base import ScoreTable
from toolkit.search.base import run_search
from toolkit.search.exact import ExactController

POPULATION = 400_000
N_SPLIT = 1_000
ALPHA = 0.05
_BOUNDARIES = 40
_LANES = Lanes(fallback_tier=1, low_confidence_tier=2)


@dataclass(frozen=True, kw_only=True)
class ChoiceFigures:
    """Over all replications.

    Attributes:
        violated: Rule -> share of replications in which the chosen point's true figures break the constraint.
        cost_usd: Rule -> mean true cost per query of the chosen point.
        none: Share of replications in which nothing could be certified.
        replications: Number.
    """

    violated: dict[str, float]
    cost_usd: dict[str, float]
    none: float
    replications: int


class _Population:
    """True figures of any thresholds."""

    def __init__(self, spec: ScenarioSpec) -> None:
        self.table = sample_scenario(spec, n_queries=POPULATION, rng=spawn_rng(0, "population"))
        self.cover: Coverage = coverage(self.table, 30)
        self.order = ScoreOrder(_scores(self.table), _LANES)

    def values(self, params: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Quality, worst slice and cost of `params: n x 2`."""
        found = ThresholdEstimator(self.table, self.cover, self.order, params).values(
            (Metric("quality"), Metric("worst_slice"), Metric("cost"))
        )
        return found["quality"], found["worst_slice_quality"], found["cost_usd"]


def _scores(table: OutcomeTable) -> ScoreTable:
    return ScoreTable(score=table.queries.signals["difficulty_score"])


def _spec() -> ScenarioSpec:
    text = (importlib.resources.files("conf") / "scenario" / "hybrid_api.yaml").read_text(encoding="utf-8")
    return parse_scenario(yaml.safe_load(text))


def choices(option: str, limit: float, replications: int) -> ChoiceFigures:
    """Choose `replications` times under one constraint, such as `quality_floor`."""
    spec, (constraint,) = _spec(), parse_constraints({option: limit})
    population = _Population(spec)
    grid = population.order.boundaries[np.linspace(0, len(population.order.boundaries) - 1, 200).astype(int)]
    pairs = np.array([(a, b) for i, a in enumerate(grid) for b in grid[i:]])
    quality, worst, cost = population.values(pairs)
    truth = quality if option == "quality_floor" else worst
    oracle = float(cost[truth >= limit].min())
    rng, chosen, none = spawn_rng(0, "choices", option, str(limit)), [], 0
    for _ in range(replications):
        found = _one(spec, constraint, rng)
        none += found is None
        if found is not None:
            chosen.append(found)
    params = np.concatenate(chosen)
    quality, worst, cost = population.values(params)
    truth = (quality if option == "quality_floor" else worst).reshape(-1, 2)
    costs = cost.reshape(-1, 2)
    return ChoiceFigures(
        violated={
            "ordinary": float((truth[:, 0] < limit).mean()),
            "certified": float((truth[:, 1] < limit).sum() / replications),
        },
        cost_usd={"ordinary": float(costs[:, 0].mean()), "certified": float(costs[:, 1].mean()), "oracle": oracle},
        none=none / replications,
        replications=replications,
    )


def _one(spec: ScenarioSpec, constraint: Constraint, rng: np.random.Generator) -> FloatArray | None:
    """`2 x 2` thresholds of the ordinary and the certified choice; None where nothing can be certified."""
    table = sample_scenario(spec, n_queries=2 * N_SPLIT, rng=rng)
    tune, validate = table.take(np.arange(N_SPLIT)), table.take(np.arange(N_SPLIT, 2 * N_SPLIT))
    problem = RoutingProblem(
        table=tune,
        family=ThresholdFamily(_scores(tune), _LANES, 3),
        objectives=(Metric("cost"), Metric("quality")),
        constraints=(constraint,),
        coverage=coverage(tune, 30),
    )
    result = run_search(problem, ExactController(problem, boundaries=_BOUNDARIES, max_evaluations=10_000))
    family = problem.family.transfer(_scores(validate), validate.queries)
    judge = Judge(validate, coverage(validate, 30))
    try:
        ordinary = choose(result.evaluation, result.front, "min_cost", (constraint,))
        found = choose_certified(
            safe_path(result.evaluation, (constraint,)),
            lambda row: [judge.test(constraint, family.assign(result.evaluation.params[[row]])[0].astype(np.int64))],
            ALPHA,
            ordinary.row,
        )
    except InfeasibleError:
        return None
    return result.evaluation.params[[ordinary.row, found.row]]


def print_choices(replications: int) -> None:
    """Print violations and costs."""
    for option, limit in (("quality_floor", 0.90), ("quality_floor", 0.92), ("slice_floor", 0.80)):
        found = choices(option, limit, replications)
        costs = ", ".join(f"{rule} {1000 * usd:.4f}" for rule, usd in found.cost_usd.items())
        print(
            f"choice: {option} {limit}: broken by ordinary {found.violated['ordinary']:.3f}, certified "
            f"{found.violated['certified']:.3f}; nothing certified {found.none:.3f}; USD per 1,000: {costs}"
        )


if __name__ == "__main__":
    print_choices(100)
