"""Several searches on the same axes: what each found, what each controller finds over seeds, and how sure that is.

Notation: `Z: n x m` scaled coordinates, maximised, and `r` their reference point (`toolkit.pareto.axes`). A run is
measured against the best-known front of its own instance: all runs that judged candidates on the same tune split.
The unit of a repetition is the seed. Spreads are percentile bootstraps over seeds; two controllers are compared
seed by seed (paired).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
from scipy import stats

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray
from toolkit.pareto import indicators
from toolkit.pareto.axes import Axes
from toolkit.pareto.front import non_dominated

LEVEL = 0.95
SEEDS_FOR_TEST = 5
COST_SHARES, QUALITY_SHARES = (0.25, 0.5, 0.75), (0.5, 0.75, 0.95)
_GREEDY_STEPS_IN_SPACE = 1000


@dataclass(frozen=True, kw_only=True)
class RunFront:
    """One search, as it was journalled.

    Attributes:
        name: Unique among the runs.
        controller, problem: Who searched, and what, in a few words.
        seed: The run's seed.
        instance: Equal for runs that judged candidates on the same tune split; empty where unknown.
        columns: Natural column -> `n` values.
        Z: `n x m` coordinates on the common axes.
        feasible: `n`, True where the evaluation succeeded and every constraint holds.
        constraints: Name -> limit.
        validation: Figure -> value of the chosen point on the validation split.
        seconds: Time spent evaluating.
    """

    name: str
    controller: str
    problem: str
    seed: int
    instance: str
    columns: dict[str, FloatArray]
    Z: FloatArray
    feasible: np.ndarray
    constraints: dict[str, float]
    validation: dict[str, float]
    seconds: float

    @property
    def usable(self) -> IntArray:
        """Rows that are feasible and have finite coordinates."""
        return np.asarray(np.flatnonzero(self.feasible & indicators.finite_rows(self.Z)))

    @property
    def front(self) -> IntArray:
        """Rows of the feasible front, ordered by the first axis."""
        rows = self.usable[non_dominated(self.Z[self.usable])]
        return np.asarray(rows[np.argsort(self.Z[rows, 0], kind="stable")])

    @property
    def plane(self) -> tuple[FloatArray, FloatArray] | None:
        """Cost and quality of the usable rows, or None where either is not known."""
        if not {"cost_usd", "quality"} <= set(self.columns):
            return None
        return self.columns["cost_usd"][self.usable], self.columns["quality"][self.usable]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A mean over seeds with a 95 % percentile bootstrap interval; NaN ends where there is one seed."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """What one run found.

    Attributes:
        run: The run.
        trace, efficiency: `n` hypervolumes after 1..n evaluations, and their ratio to the best n points known.
        hypervolume: At the end.
        hypervolume_common: After as many evaluations as the shortest run made.
        regret, igd_plus, epsilon: Against the best-known front of the instance.
        regret_to_exact: Against the exact runs of the instance; NaN without one.
        evaluations_to: Evaluations after which the efficiency is and stays `LEVEL` or more, or None.
        aiq: Average improvement in quality over the common range of costs; NaN where cost or quality are unknown.
        quality_at, cost_at: At the comparison's levels; NaN where not reached.
    """

    run: RunFront
    trace: FloatArray
    efficiency: FloatArray
    hypervolume: float
    hypervolume_common: float
    regret: float
    igd_plus: float
    epsilon: float
    regret_to_exact: float
    evaluations_to: int | None
    aiq: float
    quality_at: tuple[float, ...]
    cost_at: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Group:
    """A controller over its seeds.

    Attributes:
        name: Controller, with the problem where these differ.
        members: Its runs.
        by_seed: Seed -> final hypervolume, the mean where runs share a seed.
        hypervolume: Over seeds.
        evaluations_to: Median, least and most of the runs' `evaluations_to`; infinite where not reached.
        surface: `k x m` median attainment surface, coordinates; None with one run or more than 3 objectives.
    """

    name: str
    members: tuple[RunFigures, ...]
    by_seed: dict[int, float]
    hypervolume: Spread
    evaluations_to: tuple[float, float, float]
    surface: FloatArray | None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two controllers on their common seeds.

    Attributes:
        first, second: Names of the groups.
        seeds: The common seeds.
        difference: Final hypervolume of the first minus the second.
        p_value, p_holm: Wilcoxon's signed-rank test, alone and Holm-corrected; None under `SEEDS_FOR_TEST` seeds.
    """

    first: str
    second: str
    seeds: tuple[int, ...]
    difference: Spread
    p_value: float | None
    p_holm: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that is compared.

    Attributes:
        axes: The common axes.
        runs, groups, pairs: In order of appearance.
        cost_levels, quality_levels: Where the runs are compared at equal cost and at equal quality.
        common_evaluations: Evaluations of the shortest run.
    """

    axes: Axes
    runs: tuple[RunFigures, ...]
    groups: tuple[Group, ...]
    pairs: tuple[Pair, ...]
    cost_levels: tuple[float, ...]
    quality_levels: tuple[float, ...]
    common_evaluations: int


def compare_runs(runs: Sequence[RunFront], axes: Axes, *, resamples: int, seed: int) -> Comparison:
    """Measure runs against each other.

    Args:
        runs: Two or more, each with one evaluation or more.
        axes: The axes of their `Z`.
        resamples, seed: Of the bootstrap.

    Raises:
        ConfigError: If there are fewer than two runs, or two have one name.
    """
    if len(runs) < 2 or len({run.name for run in runs}) < len(runs):
        raise ConfigError(f"compare needs two or more runs of different names; got {[run.name for run in runs]}")
    common = min(len(run.Z) for run in runs)
    levels = _levels(runs)
    figures = _figures(runs, axes, common, levels)
    spread = partial(bootstrap, resamples=resamples, seed=seed)

    several = len({run.problem for run in runs}) > 1
    names = [f"{run.controller} ({run.problem})" if several else run.controller for run in runs]
    members = {
        name: tuple(f for f, n in zip(figures, names, strict=True) if n == name) for name in dict.fromkeys(names)
    }
    groups = tuple(_group(name, found, spread) for name, found in members.items())
    return Comparison(
        axes=axes,
        runs=figures,
        groups=groups,
        pairs=_pairs(groups, spread),
        cost_levels=levels[0],
        quality_levels=levels[1],
        common_evaluations=common,
    )


def bootstrap(values: Sequence[float], *, resamples: int, seed: int) -> Spread:
    """Mean of n values and its 95 % percentile bootstrap interval."""
    known, n = np.array(values), len(values)
    mean = float(known.mean())
    if n < 2:
        return Spread(mean=mean, low=math.nan, high=math.nan)
    means = known[np.random.default_rng(seed).integers(n, size=(resamples, n))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Spread(mean=mean, low=float(low), high=float(high))


def _union(runs: Iterable[RunFront], m: int) -> FloatArray:
    """`k x m` non-dominated points of several runs."""
    points = np.concatenate([np.zeros((0, m)), *[run.Z[run.front] for run in runs]])
    return np.asarray(points[non_dominated(points)])


def _levels(runs: Sequence[RunFront]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Costs and qualities inside the range of the joint (cost, quality) front."""
    planes = [plane for run in runs if (plane := run.plane) is not None]
    if len(planes) < len(runs) or not sum(len(cost) for cost, _ in planes):
        return (), ()
    cost, quality = (np.concatenate(parts) for parts in zip(*planes, strict=True))
    front = non_dominated(np.stack([-cost, quality], axis=1))
    low, high, floor, top = cost[front].min(), cost[front].max(), quality[front].min(), quality[front].max()
    along = [low * (high / low) ** s if low > 0 else low + s * (high - low) for s in COST_SHARES]
    return tuple(map(float, along)), tuple(float(floor + s * (top - floor)) for s in QUALITY_SHARES)


def _aiq(cost: FloatArray, quality: FloatArray, runs: Sequence[RunFront], axes: Axes) -> float:
    """AIQ from the cheapest to the dearest single tier where cost is an axis, else over the range of all runs."""
    ends = [(axis.best, axis.worst) for axis in axes.axes if axis.column == "cost_usd"]
    costs = [plane[0] for run in runs if (plane := run.plane) is not None and len(plane[0])]
    if not costs:
        return math.nan
    low, high = ends[0] if ends else (min(map(np.min, costs)), max(map(np.max, costs)))
    return indicators.aiq(cost, quality, c_min=float(low), c_max=float(high))


def _figures(
    runs: Sequence[RunFront], axes: Axes, common: int, levels: tuple[tuple[float, ...], tuple[float, ...]]
) -> tuple[RunFigures, ...]:
    """Figures of all runs, each against the best of its instance."""
    m, longest, found = len(axes.axes), max(len(r.Z) for r in runs), []
    best = {key: _union((r for r in runs if r.instance == key), m) for key in {r.instance for r in runs}}
    subset = {key: _best_subsets(points, longest, axes) for key, points in best.items()}
    for run in runs:
        Z, known, trace = (
            run.Z[run.usable],
            best[run.instance],
            indicators.hypervolume_trace(run.Z, run.feasible, axes.reference),
        )
        course = indicators.efficiency(trace, subset[run.instance][: len(trace)])
        final, plane, exact = float(trace[-1]), run.plane, _exact_front(run, runs, m)
        figures = RunFigures(
            run=run,
            trace=trace,
            efficiency=course,
            hypervolume=final,
            hypervolume_common=float(trace[common - 1]),
            regret=indicators.hypervolume(known, axes.reference) - final,
            igd_plus=indicators.igd_plus(Z, known),
            epsilon=indicators.epsilon_additive(Z, known),
            regret_to_exact=math.nan if exact is None else indicators.hypervolume(exact, axes.reference) - final,
            evaluations_to=indicators.evaluations_to(course, LEVEL, for_good=True),
            aiq=math.nan if plane is None else _aiq(*plane, runs, axes),
            quality_at=() if plane is None else tuple(indicators.quality_at_cost(*plane, at) for at in levels[0]),
            cost_at=() if plane is None else tuple(indicators.cost_at_quality(*plane, at) for at in levels[1]),
        )
        found.append(figures)
    return tuple(found)


def _exact_front(run: RunFront, runs: Sequence[RunFront], m: int) -> FloatArray | None:
    """What the exact runs of the same instance and problem found, if there are any."""
    same = [r for r in runs if r.controller == "exact" and (r.instance, r.problem) == (run.instance, run.problem)]
    return _union(same, m) if same else None


def _best_subsets(points: FloatArray, n: int, axes: Axes) -> FloatArray:
    """`n` hypervolumes of the best 1..n points; with 3 or more axes, that of all points after many steps."""
    steps = n if len(axes.axes) <= 2 else min(n, _GREEDY_STEPS_IN_SPACE)
    found = indicators.best_subset_hypervolume(points, steps, axes.reference)
    return np.append(found, np.full(n - steps, indicators.hypervolume(points, axes.reference)))


def _group(name: str, members: Sequence[RunFigures], spread: Callable[[Sequence[float]], Spread]) -> Group:
    seeds = dict.fromkeys(f.run.seed for f in members)
    by_seed = {s: float(np.mean([f.hypervolume for f in members if f.run.seed == s])) for s in seeds}
    needed = sorted(math.inf if f.evaluations_to is None else float(f.evaluations_to) for f in members)
    fronts = [f.run.Z[f.run.front] for f in members]
    several = len(members) > 1 and fronts[0].shape[1] <= 3
    return Group(
        name=name,
        members=tuple(members),
        by_seed=by_seed,
        hypervolume=spread(list(by_seed.values())),
        evaluations_to=(statistics.median(needed), needed[0], needed[-1]),
        surface=indicators.attainment_surface(fronts, 0.5) if several else None,
    )


def _pairs(groups: Sequence[Group], spread: Callable[[Sequence[float]], Spread]) -> tuple[Pair, ...]:
    """All pairs of controllers with a common seed."""
    found = []
    for a, b in combinations(groups, 2):
        seeds = tuple(s for s in a.by_seed if s in b.by_seed)
        if seeds:
            gaps = [a.by_seed[s] - b.by_seed[s] for s in seeds]
            found.append((a.name, b.name, seeds, spread(gaps), _signed_rank(gaps)))
    corrected = holm([p for *_, p in found])
    return tuple(
        Pair(first=a, second=b, seeds=seeds, difference=gap, p_value=p, p_holm=q)
        for (a, b, seeds, gap, p), q in zip(found, corrected, strict=True)
    )


def _signed_rank(gaps: Sequence[float]) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test; 1 if no pair differs, None with too few."""
    if len(gaps) < SEEDS_FOR_TEST:
        return None
    return float(stats.wilcoxon(gaps).pvalue) if any(gaps) else 1.0


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of those that are not None."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[i] = largest
    return corrected
