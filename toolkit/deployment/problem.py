"""Thresholds and deployments as one problem: quality depends on the thresholds, price on the GPUs, latency on both.

Latency comes from the offline tables (`table`: the latency distributions of the tiers at their loads, mixed by load
fraction, as [Boute2026]_ looks it up), or from a simulation of the whole fleet (`simulate`), which knows that a router
sends the long answers to one tier. Both count what every request meets: the figure is that of the pooled requests.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from simulators.deployment.fleet import simulate_plan
from simulators.deployment.plan import FleetPlan
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from toolkit.deployment.database import OfflineDatabase
from toolkit.deployment.family import DeploymentFamily
from toolkit.deployment.features import DeploymentFeatures, FeatureTable
from toolkit.deployment.requests import Requests
from toolkit.evaluation.constraints import Constraint
from toolkit.evaluation.contention import latency_value
from toolkit.evaluation.estimators import Estimator
from toolkit.evaluation.metrics import FLEET, QUANTILES, Metric
from toolkit.evaluation.slices import Coverage
from toolkit.problem import RoutingProblem

_IDLE = 1e-9
"""Share of a tier's requests below which a group of replicas is not deployed."""
_GPUS_SHORT = Constraint(name="gpus_short", metric=Metric("gpus_short"), limit=0.5)


class DeploymentProblem(RoutingProblem):
    """Which thresholds on which deployment are best.

    Args:
        table: The tune split, with token counts.
        family: Thresholds and deployments, bound to the scores of `table`.
        objectives: The m metrics to optimise.
        constraints: The c bounds.
        coverage: The groups a worst slice is taken over.
        database: Candidate deployments and their latency tables.
        requests: Traffic that simulations use, asking queries of `table`.
        evaluate: Where latency comes from.
        approximate: Whether a simulated latency has the table's as its approximation.
        system_latency: Quantiles of all requests together (`pooled`), or the largest of the tiers' own (`max`).
        unfit: Whether candidates may not fit the GPUs, so that this is a constraint like others.
        load_features: Whether models see each tier's utilisation beside its GPUs.
    """

    def __init__(
        self,
        *,
        table: OutcomeTable,
        family: DeploymentFamily,
        objectives: tuple[Metric, ...],
        constraints: tuple[Constraint, ...],
        coverage: Coverage,
        database: OfflineDatabase,
        requests: Requests,
        evaluate: Literal["table", "simulate"] = "table",
        approximate: bool = True,
        system_latency: Literal["pooled", "max"] = "pooled",
        unfit: bool = False,
        load_features: bool = True,
    ) -> None:
        if unfit:
            constraints = (*constraints, _GPUS_SHORT)
        super().__init__(table=table, family=family, objectives=objectives, constraints=constraints, coverage=coverage)
        self.deployments, self.database, self.requests = family, database, requests
        self.looked_up, self._approximate, self.system_latency = evaluate == "table", approximate, system_latency
        headline = Metric("fleet_cost")
        self.metrics = tuple(dict.fromkeys((*self.metrics, headline)))
        self.exact_columns = frozenset(m.column for m in self.metrics if not m.needs_latency)
        self._features, self._load_features = FeatureTable(database), load_features

    def estimate(self, params: FloatArray) -> Estimator:
        """See `RoutingProblem`."""
        return FleetEstimator(self, params, looked_up=self.looked_up)

    def exact(self, params: FloatArray) -> dict[str, FloatArray]:
        """See `Problem`."""
        metrics = tuple(m for m in self.metrics if m.column in self.exact_columns)
        return self.estimate(params).values(metrics)

    def approximate(self, params: FloatArray) -> dict[str, FloatArray]:
        """Latency from the tables, where it is simulated."""
        if self.looked_up or not self._approximate:
            return {}
        metrics = tuple(m for m in self.metrics if m.column not in self.exact_columns and m.slice_name is None)
        return FleetEstimator(self, params, looked_up=True).values(metrics)

    @property
    def choices(self) -> IntArray:
        """`J x M` joint choices that a search may pick, all tiers deployed."""
        return self.deployments.choices.all

    def features(self, params: FloatArray) -> DeploymentFeatures:
        """What a model of latency may look at, for `params: n x p`."""
        choice = self.deployments.choice(params)
        parts = [self._features.deployment(choice)]
        if self._load_features:
            parts.append(self._features.utilisation(self.deployments.fractions(params), choice))
        return DeploymentFeatures(
            routing=self.deployments.space.encode_routing(params),
            deployment=np.concatenate(parts, axis=1),
            preference=self._features.preference(choice),
        )

    def plan(self, params: FloatArray) -> FleetPlan:
        """The deployment of one candidate (`params: p`), split for the loads that its thresholds make."""
        family = self.deployments
        fractions, choice = family.fractions(params[None, :])[0], family.choice(params[None, :])[0]
        return plan_at(self.database, fractions, choice, self.table.tiers)


def plan_at(database: OfflineDatabase, fractions: FloatArray, choice: IntArray, tiers: tuple[str, ...]) -> FleetPlan:
    """The plan of one joint choice (`M`) at load fractions (`M`), without replicas that would get no request."""
    rate = database.fleet.rate_per_s
    picked = enumerate(zip(choice, fractions, strict=True))
    plans = (database.tier_plan(m, int(c), float(f) * rate) for m, (c, f) in picked)
    return FleetPlan(tiers=tiers, groups=tuple(tuple(g for g in plan if g.share > _IDLE) for plan in plans))


class FleetEstimator(Estimator):
    """Figures of routing and fleet together.

    Args:
        problem: The problem.
        params: `n x p` candidates.
        looked_up: Whether latency comes from the tables.
    """

    def __init__(self, problem: DeploymentProblem, params: FloatArray, *, looked_up: bool) -> None:
        super().__init__(problem.table, problem.coverage)
        self._problem, self._params, self._looked_up = problem, params, looked_up
        self._routing = problem.family.estimate(problem.table, problem.coverage, params)

    def value(self, metric: Metric) -> FloatArray:
        """See `Estimator`."""
        return self.values((metric,))[metric.column]

    def values(self, metrics: tuple[Metric, ...]) -> dict[str, FloatArray]:
        """See `Estimator`; one simulation per candidate serves all metrics."""
        timed = tuple(m for m in metrics if m.needs_latency)
        found = self._latencies(timed) if timed else {}
        for m in metrics:
            if m.base in FLEET:
                found[m.column] = self._of_fleet(m)
            elif not m.needs_latency:
                found[m.column] = self._routing.value(m)
        return {m.column: found[m.column] for m in metrics}

    def _of_fleet(self, metric: Metric) -> FloatArray:
        choice = self._problem.deployments.choice(self._params)
        tiers = self._problem.database.tiers
        if metric.base == "fleet_cost":
            return np.asarray(np.sum([tier.usd_per_hour[choice[:, m]] for m, tier in enumerate(tiers)], axis=0))
        used = np.sum([tier.gpus[choice[:, m]] for m, tier in enumerate(tiers)], axis=0)
        counts = np.array([gpu.count for gpu in self._problem.database.fleet.gpus.values()])
        return np.asarray(np.maximum(used - counts, 0).max(axis=1), dtype=np.float64)

    def _latencies(self, timed: tuple[Metric, ...]) -> dict[str, FloatArray]:
        if self._looked_up:
            return self._from_tables(timed)
        parts = [self._simulated(row, timed) for row in self._params]
        return {m.column: np.array([part[m.column] for part in parts], dtype=np.float64) for m in timed}

    def _from_tables(self, timed: tuple[Metric, ...]) -> dict[str, FloatArray]:
        problem = self._problem
        family, database = problem.deployments, problem.database
        fractions, choice = family.fractions(self._params), family.choice(self._params)
        longest, found = float(database.edges_s[-1]), {}
        for m in timed:
            refuse_slices(m)
            if m.base in QUANTILES:
                level = QUANTILES[m.base]
                value = database.latency_s(level, fractions, choice, system=problem.system_latency)
                found[m.column] = np.minimum(value, longest)
            elif m.limit_s is None:
                found[m.column] = np.minimum(database.mean_latency_s(fractions, choice), longest)
            else:
                within = database.share_within(m.limit_s, fractions, choice)
                found[m.column] = within if m.maximise else 1.0 - within
        return found

    def _simulated(self, params: FloatArray, timed: tuple[Metric, ...]) -> dict[str, float]:
        problem, requests = self._problem, self._problem.requests
        tier = problem.family.assign(params[None, :])[0].astype(np.int64)[requests.row]
        latency_s = fleet_latency_s(problem.database, problem.plan(params), requests, tier)
        code = problem.table.slice_code[requests.row]
        found = {}
        for m in timed:
            rows = requests.counted
            if m.slice_name is not None:
                rows = rows & (code == self._slice(m.slice_name)[0])
            slowest = problem.system_latency == "max" and m.base in QUANTILES
            groups = [rows & (tier == k) for k in np.unique(tier)] if slowest else [rows]
            values = [float(latency_value(latency_s[None, group], m)[0]) for group in groups if group.any()]
            found[m.column] = min(values, default=np.nan) if m.maximise else max(values, default=np.nan)
        return found

    def latency_quantiles(self, levels: tuple[float, ...], rows: IntArray) -> FloatArray:
        """See `Estimator`; of all requests only."""
        metrics = [Metric(base) for level in levels for base, q in QUANTILES.items() if q == level]
        assert len(metrics) == len(levels)
        return np.stack([self.value(m) for m in metrics], axis=1)

    def slice_sums(self, values: FloatArray) -> FloatArray:
        """See `Estimator`."""
        return self._routing.slice_sums(values)

    def total_sums(self, values: FloatArray) -> FloatArray:
        """See `Estimator`."""
        return self._routing.total_sums(values)

    def tier_counts(self) -> IntArray:
        """See `Estimator`."""
        return self._routing.tier_counts()


def fleet_latency_s(database: OfflineDatabase, plan: FleetPlan, requests: Requests, tier: IntArray) -> FloatArray:
    """`R` end-to-end latencies of requests sent to `tier: R`; as long as the tables reach where nobody serves them."""
    served = simulate_plan(
        database.fleet, plan, requests.arrival_s, tier, requests.input_tokens, requests.output_tokens
    )
    latency_s = np.asarray(served.done_s - requests.arrival_s, dtype=np.float64)
    longest = float(database.edges_s[-1])
    return np.minimum(np.where(np.isnan(latency_s), longest, latency_s), longest)


def refuse_slices(metric: Metric) -> None:
    """Refuse a latency of one slice, which the tables do not know.

    Raises:
        ConfigError: With what to do.
    """
    if metric.slice_name is not None:
        raise ConfigError(f"{metric.column}: the offline tables know no slices; use space.evaluate=simulate")
