"""How many labels it takes: what a comparison per slice can resolve, and what it would need.

All sizes are for one-sided tests of "the loss is below the margin" in every one of S slices at once, if in truth
nothing is lost: each slice must succeed with probability `power^(1/S)` for all to succeed with probability `power`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import IntArray, OutcomeTable
from toolkit.certify.intervals import DIFFERENCE, group_estimates
from toolkit.evaluation.slices import Coverage
from toolkit.statistics import MeanEstimate, labels_needed, power_to_show, resolved_margin, smallest


@dataclass(frozen=True, kw_only=True)
class SliceLabels:
    """Labels of one slice.

    Attributes:
        name: The covered group.
        n: Labelled queries at hand.
        share: Its share of all queries at hand.
        sd: Standard deviation of the paired difference of one query, dependence within clusters included.
        cluster_size: Labels per cluster, on average: sizes are counted in clusters, since only those are independent.
        needed: Labelled queries needed for the margin.
        resolved: The smallest margin that the n at hand can show.
    """

    name: str
    n: int
    share: float
    sd: float
    cluster_size: float
    needed: int
    resolved: float

    @property
    def missing(self) -> int:
        """Labels still needed."""
        return max(0, self.needed - self.n)


@dataclass(frozen=True, kw_only=True)
class LabelPlan:
    """Labels of all slices.

    Attributes:
        margin: Loss of quality that is tolerated, or the largest of the margins where none was given.
        given: Whether somebody set the margin; otherwise each slice's is the smallest one that its labels can resolve.
        alpha: Level of each test.
        power: Probability that all slices are shown to lose less than the margin, if none loses anything.
        slices: One entry per covered group.
        total: Queries needed in all, if slices stay as frequent as they are: enough for all slices to succeed together,
            each with half a standard deviation fewer than its share, since how many fall into it is chance.
    """

    margin: float
    given: bool
    alpha: float
    power: float
    slices: tuple[SliceLabels, ...]
    total: int

    def margin_of(self, estimate: MeanEstimate, name: str | None = None) -> float:
        """The margin of one slice; of all queries, where no slice is named."""
        if self.given:
            return self.margin
        resolved = {s.name: s.resolved for s in self.slices}
        if name is not None:
            return min(1.0, resolved[name])
        return min(1.0, _resolved(estimate, alpha=self.alpha, power=self.power))

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        rows = {s.name: {**asdict(s), "missing": s.missing} for s in self.slices}
        for row in rows.values():
            del row["name"]
        return {
            "margin": self.margin,
            "margin_given": self.given,
            "alpha": self.alpha,
            "power": self.power,
            "total_needed": self.total,
            "slices": rows,
        }


def plan_labels(
    differences: Mapping[str, MeanEstimate], n_queries: int, *, margin: float | None, alpha: float, power: float
) -> LabelPlan:
    """What the labels at hand can resolve, and what the margin takes.

    Args:
        differences: Covered group -> estimate of the paired difference in quality.
        n_queries: All queries at hand, covered or not.
        margin: Tolerated loss, or None for what the data can resolve.
        alpha: Level of each one-sided test.
        power: Probability that all groups succeed together.

    Raises:
        ConfigError: If the margin is not in (0, 1], the power not above alpha, or there is no covered group.
    """
    if margin is not None and not 0 < margin <= 1:
        raise ConfigError(f"margin is a tolerated loss of quality, in (0, 1]; got {margin:g}")
    if not differences:
        raise ConfigError("no slice has enough labelled queries to be judged; add data or lower slices.minimum")
    if not alpha < power < 1:
        raise ConfigError(f"power must lie between alpha ({alpha:g}) and 1; got {power:g}")
    each = power ** (1 / len(differences))
    size = {name: e.n / (e.df + 1) for name, e in differences.items()}
    of_clusters = {name: _sd_of_clusters(e) for name, e in differences.items()}
    resolved = {name: _resolved(e, alpha=alpha, power=each) for name, e in differences.items()}
    chosen = min(max(resolved.values()), 1.0) if margin is None else margin
    slices = tuple(
        SliceLabels(
            name=name,
            n=e.n,
            share=e.n / n_queries,
            sd=float(of_clusters[name] * np.sqrt(size[name])),
            cluster_size=size[name],
            needed=_labels_of(
                labels_needed(of_clusters[name], chosen, alpha=alpha, power=each, reach=e.reach), size[name]
            ),
            resolved=resolved[name],
        )
        for name, e in differences.items()
    )
    reach = {name: e.reach for name, e in differences.items()}
    total = _queries_needed(slices, reach, margin=chosen, alpha=alpha, power=power)
    return LabelPlan(margin=chosen, given=margin is not None, alpha=alpha, power=power, slices=slices, total=total)


def _labels_of(clusters: int, size: float) -> int:
    return math.ceil(clusters * size - 1e-9)


def _sd_of_clusters(estimate: MeanEstimate) -> float:
    """Standard deviation of the mean of one cluster; a single one shows no spread, so the widest stands in for it."""
    size = estimate.n / (estimate.df + 1)
    return float(estimate.sd / np.sqrt(size)) if np.isfinite(estimate.sd) else estimate.reach


def _resolved(estimate: MeanEstimate, *, alpha: float, power: float) -> float:
    return resolved_margin(_sd_of_clusters(estimate), estimate.df + 1, alpha=alpha, power=power, reach=estimate.reach)


def _queries_needed(
    slices: tuple[SliceLabels, ...], reach: Mapping[str, float], *, margin: float, alpha: float, power: float
) -> int:
    """The smallest number of queries at which the product of the slices' powers reaches `power`."""

    def enough(n: int) -> bool:
        joint = 1.0
        for s in slices:
            expected = n * s.share
            clusters = int((expected - 0.5 * np.sqrt(expected)) / s.cluster_size)
            joint *= power_to_show(s.sd / np.sqrt(s.cluster_size), clusters, margin, alpha=alpha, reach=reach[s.name])
        return joint >= power

    return smallest(enough)


def differences_per_slice(
    table: OutcomeTable, tier: IntArray, baseline: IntArray, coverage: Coverage
) -> dict[str, MeanEstimate]:
    """Covered group -> estimate of the policy's quality minus the baseline's, paired over queries.

    Args:
        table: The data.
        tier, baseline: `N` tiers of each.
        coverage: Covered groups of `table`.
    """
    rows = np.arange(table.n_queries)
    difference = table.quality[rows, tier] - table.quality[rows, baseline]
    return group_estimates(table, coverage, difference, DIFFERENCE)


def widest_differences(
    table: OutcomeTable, baseline: IntArray, coverage: Coverage
) -> tuple[dict[str, MeanEstimate], dict[str, str]]:
    """Before there is a policy: in each group, the single tier whose difference to the baseline varies most.

    Returns:
        Covered group -> that estimate, and covered group -> that tier.
    """
    every = [np.full(table.n_queries, k) for k in range(table.n_tiers)]
    single = [differences_per_slice(table, tier, baseline, coverage) for tier in every]
    widest = {name: int(np.argmax([found[name].sd for found in single])) for name in coverage.groups}
    return {name: single[k][name] for name, k in widest.items()}, {n: table.tiers[k] for n, k in widest.items()}
