r"""Does a policy lose quality against a baseline, in any slice? Pass, fail or undecided, each by tests.

For query i let $d_i$ be the policy's quality minus the baseline's. With margin $\delta$ and level $\alpha$:

* **pass**: a loss below $\delta$ is shown overall and in *every* covered slice, and every constraint is shown to hold.
  Each test is at $\alpha$: a false pass needs the one false statement among them to be "shown", so the whole is at
  $\alpha$ too (intersection-union [Berger1982]_).
* **fail**: a loss above 0 is shown overall or in *some* slice, or a constraint is shown to be broken. Holm's procedure
  [Holm1979]_ over all of these keeps the chance of any false one at $\alpha$.
* **undecided**: neither; with the labels that each slice still needs. Also where slices that are too small to be
  judged, even merged, hold more than a stated share of the queries: a loss may hide there.

A loss that is shown to be above 0 *and* below the margin is tolerated if somebody gave the margin: that is what it is
for. Without one, $\delta$ is for each slice what its own labels can resolve; nobody said that a loss below it is fine,
so a shown loss fails.

References:
    [Berger1982] R. L. Berger, Multiparameter hypothesis testing and acceptance sampling, Technometrics 24.
    [Holm1979] S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from toolkit.certify.criteria import ConstraintTest, Judge
from toolkit.certify.intervals import (
    DIFFERENCE,
    UNIT,
    UNKNOWN,
    Interval,
    group_estimates,
    mean_interval,
    quantile_interval,
    two_sided,
    worst_interval,
)
from toolkit.certify.labels import LabelPlan, differences_per_slice, plan_labels
from toolkit.evaluation.constraints import Constraint
from toolkit.evaluation.slices import Coverage
from toolkit.statistics import MeanEstimate, estimate_mean

Verdict = Literal["pass", "fail", "undecided"]
LATENCY_LEVELS = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
MOST_UNJUDGED = 0.01
_RESAMPLES = 1_000
_RESAMPLE_ELEMENTS = 20_000_000


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One statement of the certificate.

    Attributes:
        name: `all queries`, a covered group's name, or a constraint's text.
        kind: `overall`, `slice` or `constraint`.
        n: Queries it rests on.
        value: Quality minus the baseline's, or the constrained figure; two-sided 95 %.
        policy, baseline: Mean quality of each, or NaN for a constraint.
        margin: What the loss is held against; NaN for a constraint.
        loss_at_most: One-sided upper bound of the loss at level alpha; 1 where one cluster leaves no other, NaN for a
            constraint.
        p_pass: Against "the loss is the margin or more", or "the constraint is broken".
        p_fail: Against "nothing is lost", or "the constraint holds", before Holm.
        p_fail_holm: The same, corrected for the number of criteria.
        verdict: Of this criterion alone.
        note: Why nothing can be said, or empty.
    """

    name: str
    kind: Literal["overall", "slice", "constraint"]
    n: int
    value: Interval
    policy: float = np.nan
    baseline: float = np.nan
    margin: float = np.nan
    loss_at_most: float = np.nan
    p_pass: float
    p_fail: float
    p_fail_holm: float
    verdict: Verdict
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class LatencyChange:
    """One latency quantile of policy and baseline, seconds.

    Attributes:
        name: `p50`, `p95` or `p99`.
        policy, baseline: With intervals.
        difference: Policy minus baseline, paired.
    """

    name: str
    policy: Interval
    baseline: Interval
    difference: Interval


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What the data shows about one policy against one baseline.

    Attributes:
        verdict: Of all criteria together.
        n, n_clusters: Queries, and groups of them that are independent of each other.
        criteria: Overall, slices (the largest shown loss first), constraints.
        labels: Margin, and labels per slice.
        quality, baseline_quality: Mean quality.
        cost_usd, cost_difference: Mean cost per query, and minus the baseline's; NaN where unknown.
        latency: Quantiles, or empty where unknown.
        latency_simulated: Whether latencies are simulated under load, so that they carry no interval.
        worst_slice, baseline_worst_slice: Smallest mean quality over covered slices, simultaneous intervals.
        unjudged: Share of the queries in slices that nothing judges.
        merged: Slice too small to stand alone -> the group that judges it, None where nothing does.
        counts: The same slices -> queries.
    """

    verdict: Verdict
    n: int
    n_clusters: int
    criteria: tuple[Criterion, ...]
    labels: LabelPlan
    quality: Interval
    baseline_quality: Interval
    cost_usd: Interval
    cost_difference: Interval
    latency: tuple[LatencyChange, ...]
    latency_simulated: bool
    worst_slice: Interval
    baseline_worst_slice: Interval
    unjudged: float
    merged: dict[str, str | None]
    counts: dict[str, int]


def certify(
    table: OutcomeTable,
    tier: IntArray,
    baseline: IntArray,
    *,
    coverage: Coverage,
    constraints: tuple[Constraint, ...],
    margin: float | None,
    alpha: float,
    power: float,
    rng: np.random.Generator,
    most_unjudged: float = MOST_UNJUDGED,
    latency: tuple[FloatArray, FloatArray] | None = None,
    baseline_table: OutcomeTable | None = None,
) -> Certificate:
    """Compare a policy with a baseline on data that neither was tuned on.

    Args:
        table: The data.
        tier: `N` tiers of the policy.
        baseline: `N` tiers of the baseline.
        coverage: Covered groups of `table`.
        constraints: What the policy promises.
        margin: Tolerated loss of quality, in (0, 1], or None for the smallest that the data can resolve.
        alpha: Level of each test, in (0, 0.5).
        power: At which labels are counted, in (0, 1).
        rng: For the bootstrap of latency differences.
        most_unjudged: Share of the queries that may lie in slices too small to be judged, for a pass.
        latency: `N` latencies of policy and baseline where they are simulated under load, seconds.
        baseline_table: The same answers with the cost and time of the baseline's own router; None: it takes none.

    Raises:
        ConfigError: If alpha, power or margin make no sense or no slice can be judged.
    """
    if not 0 < alpha < 0.5 or not 0 < power < 1:
        raise ConfigError(f"alpha must lie in (0, 0.5) and power in (0, 1); got {alpha:g} and {power:g}")
    rows, cluster = np.arange(table.n_queries), table.cluster_code
    ours, theirs = table.quality[rows, tier], table.quality[rows, baseline]
    group = coverage.group_of_rows(table)
    members = {name: np.flatnonzero(group == g) for g, name in enumerate(coverage.groups)}
    per_slice = differences_per_slice(table, tier, baseline, coverage)
    labels = plan_labels(per_slice, table.n_queries, margin=margin, alpha=alpha, power=power)
    judge = Judge(table, coverage, simulated_latency=latency is not None)
    tests = [judge.test(constraint, tier) for constraint in constraints]
    overall = _difference(
        "all queries", "overall", estimate_mean(ours - theirs, cluster, DIFFERENCE), ours, theirs, labels
    )
    slices = [
        _difference(name, "slice", e, ours[members[name]], theirs[members[name]], labels)
        for name, e in per_slice.items()
    ]
    criteria = _judged([overall, *slices, *(_constraint(test, table.n_queries) for test in tests)], labels)
    known = table.has_cost
    other = table.bare if baseline_table is None else baseline_table
    cost = [table.cost_usd[rows, tier], other.cost_usd[rows, baseline]]
    unjudged, verdict = float((group < 0).mean()), verdict_of(criteria)
    return Certificate(
        verdict="undecided" if verdict == "pass" and unjudged > most_unjudged else verdict,
        n=table.n_queries,
        n_clusters=len(np.unique(cluster)),
        criteria=criteria,
        labels=labels,
        quality=mean_interval(ours, cluster, bounds=UNIT),
        baseline_quality=mean_interval(theirs, cluster, bounds=UNIT),
        cost_usd=mean_interval(cost[0], cluster) if known else UNKNOWN,
        cost_difference=mean_interval(cost[0] - cost[1], cluster) if known else UNKNOWN,
        latency=_latency((table, other), (tier, baseline), cluster, latency, rng),
        latency_simulated=latency is not None,
        worst_slice=worst_interval(list(group_estimates(table, coverage, ours, UNIT).values())),
        baseline_worst_slice=worst_interval(list(group_estimates(table, coverage, theirs, UNIT).values())),
        unjudged=unjudged,
        merged=coverage.merged_into(table),
        counts={name: int(coverage.counts[table.slices.index(name)]) for name in coverage.merged},
    )


def _difference(
    name: str,
    kind: Literal["overall", "slice"],
    found: MeanEstimate,
    ours: FloatArray,
    theirs: FloatArray,
    labels: LabelPlan,
) -> Criterion:
    """A criterion before Holm."""
    margin = labels.margin_of(found, name if kind == "slice" else None)
    lower = found.lower(labels.alpha)
    return Criterion(
        name=name,
        kind=kind,
        n=found.n,
        value=two_sided(found),
        policy=float(ours.mean()),
        baseline=float(theirs.mean()),
        margin=margin,
        loss_at_most=max(0.0, -lower) if np.isfinite(lower) else -DIFFERENCE[0],
        p_pass=found.p_above(-margin),
        p_fail=found.p_below(0.0),
        p_fail_holm=1.0,
        verdict="undecided",
    )


def _constraint(test: ConstraintTest, n: int) -> Criterion:
    return Criterion(
        name=test.text,
        kind="constraint",
        n=n,
        value=test.value,
        p_pass=test.p_holds,
        p_fail=test.p_broken,
        p_fail_holm=1.0,
        verdict="undecided",
        note=test.note,
    )


def _judged(criteria: list[Criterion], labels: LabelPlan) -> tuple[Criterion, ...]:
    """Holm's p-values and each criterion's verdict; slices with the largest loss first."""
    corrected = holm(np.array([c.p_fail for c in criteria]))
    found = []
    for criterion, p in zip(criteria, corrected, strict=True):
        passes, fails = criterion.p_pass <= labels.alpha, p <= labels.alpha
        if fails and not labels.given:
            passes = False
        verdict: Verdict = "pass" if passes else "fail" if fails else "undecided"
        found.append(replace(criterion, p_fail_holm=float(p), verdict=verdict))
    order = {"overall": 0, "slice": 1, "constraint": 2}
    return tuple(sorted(found, key=lambda c: (order[c.kind], c.value.mean if c.kind == "slice" else 0.0)))


def holm(p: FloatArray) -> FloatArray:
    """Holm's adjusted p-values: reject where they are at most alpha, and the chance of any false one is alpha."""
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    found = np.empty_like(p)
    found[order] = np.minimum(adjusted, 1.0)
    return found


def verdict_of(criteria: tuple[Criterion, ...]) -> Verdict:
    """Pass if every criterion passes, fail if some criterion fails, else undecided."""
    verdicts = {c.verdict for c in criteria}
    if verdicts == {"pass"}:
        return "pass"
    return "fail" if "fail" in verdicts else "undecided"


def _latency(
    tables: tuple[OutcomeTable, OutcomeTable],
    tiers: tuple[IntArray, IntArray],
    cluster: IntArray,
    simulated: tuple[FloatArray, FloatArray] | None,
    rng: np.random.Generator,
) -> tuple[LatencyChange, ...]:
    """Quantiles of both; without intervals where they were simulated, because waits depend on each other."""
    if simulated is None and not tables[0].has_latency:
        return ()
    rows = np.arange(tables[0].n_queries)
    ours, theirs = simulated or (tables[0].latency_s[rows, tiers[0]], tables[1].latency_s[rows, tiers[1]])
    levels = tuple(LATENCY_LEVELS.values())
    gap = np.quantile(ours, levels) - np.quantile(theirs, levels)
    low, high = (np.full(len(levels), np.nan),) * 2 if simulated else _paired_quantiles(ours, theirs, cluster, rng)
    found = []
    for i, (name, level) in enumerate(LATENCY_LEVELS.items()):
        single = [
            Interval(mean=float(np.quantile(v, level)), low=np.nan, high=np.nan)
            if simulated
            else quantile_interval(v, level, cluster)
            for v in (ours, theirs)
        ]
        difference = Interval(mean=float(gap[i]), low=float(low[i]), high=float(high[i]))
        found.append(LatencyChange(name=name, policy=single[0], baseline=single[1], difference=difference))
    return tuple(found)


def _paired_quantiles(
    ours: FloatArray, theirs: FloatArray, cluster: IntArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """95 % percentile bootstrap of the differences of quantiles; whole clusters are drawn, both policies together."""
    levels, n = tuple(LATENCY_LEVELS.values()), len(ours)
    order = np.argsort(cluster, kind="stable")
    _, starts, sizes = np.unique(cluster[order], return_index=True, return_counts=True)
    resamples = int(np.clip(_RESAMPLE_ELEMENTS // n, 100, _RESAMPLES))
    gaps = np.empty((resamples, len(levels)))
    for i in range(resamples):
        drawn = rng.integers(0, len(starts), len(starts))
        picked = order[_ranges(starts[drawn], sizes[drawn])]
        gaps[i] = np.quantile(ours[picked], levels) - np.quantile(theirs[picked], levels)
    low, high = np.quantile(gaps, [0.025, 0.975], axis=0)
    return low, high


def _ranges(starts: IntArray, sizes: IntArray) -> IntArray:
    """`start, start + 1, ...` of each range, one behind the other."""
    ends = np.cumsum(sizes)
    return np.asarray(np.arange(ends[-1]) + np.repeat(starts - ends + sizes, sizes))
