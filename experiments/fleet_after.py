"""After a search of thresholds and GPUs: what the chosen deployment meets, and the file that describes it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from experiments.fleet import WARMUP, fleet_of, requests_on, single_tier_params
from experiments.pipeline import Prepared
from experiments.runs import FinishedRun
from experiments.settings import TuneSettings, parse_settings
from experiments.under_load import is_fleet
from experiments.unseen import run_config
from simulators.deployment.fleet import simulate_plan
from simulators.deployment.plan import FleetPlan, TierPlan
from simulators.deployment.specs import FleetSpec
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.seeds import spawn_rng
from toolkit.deployment.offline import OfflineRecipe
from toolkit.deployment.problem import DeploymentProblem, FleetEstimator, fleet_latency_s
from toolkit.deployment.requests import Requests, draw_requests
from toolkit.evaluation.metrics import Metric
from toolkit.export.deployment import build_deployment, engine_file
from toolkit.export.deployment_schema import FILE_NAME, DeploymentFile, Expected, read_deployment
from toolkit.export.schema import PolicyFile

_FITTED_ON = (
    "Fitted to Splitwise's measurements of Llama-2-70B on A100 and H100 (an engine of 2023); "
    "conf/engine/splitwise.yaml states the errors on rows held back."
)
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
ON_FLEET = (
    "Latency constraints are undecided: the run's latency is that of a simulated fleet, without an interval, and not "
    "that of recorded answers."
)


def settle(settings: TuneSettings, prepared: Prepared, params: FloatArray) -> Prepared:
    """The splits with the latencies that one candidate's deployment (`params: p`) makes of its answers.

    The single tiers beside it are all traffic on the best deployment of that tier within the budget.
    """
    problem = prepared.problem
    if not isinstance(problem, DeploymentProblem):
        return prepared
    plan = problem.plan(params)
    alone = [problem.plan(single_tier_params(problem, k)) for k in range(problem.table.n_tiers)]
    tune_tier = np.asarray(problem.family.assign(params[None, :])[0], dtype=np.int64)
    parts = {"tune": (prepared.tune, tune_tier), "validate": (prepared.validate, prepared.decide(params))}
    settled = {}
    for name, (table, tier) in parts.items():
        requests = requests_on(settings, problem.database.fleet, table, name)
        settled[name] = on_fleet(problem, table, requests, plan, tier, alone)
    return dataclasses.replace(prepared, tune=settled["tune"], validate=settled["validate"])


@dataclass(frozen=True, kw_only=True)
class FleetFigures:
    """What a chosen deployment is expected to do.

    Attributes:
        plan: The deployment.
        shares: `K` fractions of the requests, on the tune split.
        usd_per_hour: Price of its GPUs.
        table_p95_s: By the offline tables.
        tune_p95_s, validate_p95_s: Simulated, on traffic that asks each split's queries.
    """

    plan: FleetPlan
    shares: FloatArray
    usd_per_hour: float
    table_p95_s: float
    tune_p95_s: float
    validate_p95_s: float

    @property
    def p95_sentence(self) -> str:
        """Its p95 latency by table and by simulation."""
        return (
            f"Its p95 latency: {self.table_p95_s:.3g} s by the offline tables, {self.tune_p95_s:.3g} s simulated on "
            f"the tune split's queries, {self.validate_p95_s:.3g} s on the validation split's with other arrivals."
        )

    def sentences(self, fleet: FleetSpec) -> tuple[str, ...]:
        """For reader and report."""
        tiers = [
            f"{tier}: {share:.0%} of the requests on {_text(groups)}"
            for tier, share, groups in zip(self.plan.tiers, self.shares, self.plan.groups, strict=True)
        ]
        per_1000_usd = 1000 * self.usd_per_hour / 3600 / fleet.rate_per_s
        guessed = ", ".join(_extrapolated(fleet, self.plan))
        warning = f"Speeds are extrapolated, not measured, for {guessed}: measure before you buy."
        return (
            f"Deployment at {self.usd_per_hour:.2f} USD per hour of at most {fleet.budget_usd_per_hour:.2f}, for "
            f"{fleet.rate_per_s:g} requests per second. {'; '.join(tiers)}.",
            f"The GPUs cost {per_1000_usd:.3g} USD per 1,000 requests at that rate, "
            "whatever the routing; costs per query elsewhere are the table's own prices, which order the tiers.",
            self.p95_sentence,
            *([warning] if guessed else []),
        )


def fleet_figures(settings: TuneSettings, prepared: Prepared, params: FloatArray) -> FleetFigures | None:
    """Figures of one candidate's deployment (`params: p`); None where no fleet was searched."""
    problem = prepared.problem
    if not isinstance(problem, DeploymentProblem):
        return None
    plan, row = problem.plan(params), params[None, :]
    p95 = Metric("latency_p95")
    requests = requests_on(settings, problem.database.fleet, prepared.validate, "validate")
    tier = prepared.decide(params)[requests.row]
    unseen_s = fleet_latency_s(problem.database, plan, requests, tier)[requests.counted]
    return FleetFigures(
        plan=plan,
        shares=problem.deployments.fractions(row)[0],
        usd_per_hour=plan.usd_per_hour({name: gpu.usd_per_hour for name, gpu in problem.database.fleet.gpus.items()}),
        table_p95_s=float(FleetEstimator(problem, row, looked_up=True).value(p95)[0]),
        tune_p95_s=float(FleetEstimator(problem, row, looked_up=False).value(p95)[0]),
        validate_p95_s=float(np.quantile(unseen_s, 0.95)),
    )


def deployment_file(
    settings: TuneSettings, prepared: Prepared, figures: FleetFigures | None, policy: PolicyFile
) -> DeploymentFile | None:
    """What `deployment.json` holds beside the policy; None where no fleet was searched."""
    problem = prepared.problem
    if figures is None or not isinstance(problem, DeploymentProblem):
        return None
    fleet = problem.database.fleet
    return build_deployment(
        fleet,
        figures.plan,
        policy=policy,
        shares=figures.shares.tolist(),
        engine=engine_file(fleet, _FITTED_ON if fleet.engine.basis == "measured" else None),
        expected=Expected(
            quality=_mean_quality(policy),
            latency_p95_table_s=figures.table_p95_s,
            latency_p95_simulated_s=figures.validate_p95_s,
        ),
        evidence=figures.p95_sentence,
    )


def _mean_quality(policy: PolicyFile) -> float | None:
    validate = policy.metrics.get("validate")
    return validate["policy"]["quality"] if isinstance(validate, dict) else None


def _text(groups: TierPlan) -> str:
    if not groups:
        return "no GPU"
    return " + ".join(
        f"{g.n_gpus} x {g.replica.gpu} ({g.replicas} x TP{g.replica.tensor_parallel} PP{g.replica.pipeline_parallel}, "
        f"{g.share:.0%})"
        for g in groups
    )


def _extrapolated(fleet: FleetSpec, plan: FleetPlan) -> list[str]:
    gpus = [name for name in plan.gpus if fleet.gpus[name].basis == "extrapolated"]
    models = [t for t, g in zip(plan.tiers, plan.groups, strict=True) if g and fleet.models[t].basis == "extrapolated"]
    return [*models, *gpus]


def on_deployment(run: FinishedRun, table: OutcomeTable, tier: IntArray, seed: int) -> OutcomeTable:
    """The table with what a run's deployment makes of the answers of `tier: N`; as it is where the run has none.

    Without token counts nothing can be simulated, and latency is unknown; that of single tiers always is, for the run
    deploys none of them alone.
    """
    if not is_fleet(run.policy.world):
        return table
    if np.isnan(table.input_tokens).any() or np.isnan(table.output_tokens).any():
        return without_latency(table)
    plan = read_deployment(run.path / FILE_NAME).plan
    fleet = fleet_of(parse_settings(TuneSettings, run_config(run.path)), table.tiers)
    requests = draw_requests(
        table,
        rate_per_s=fleet.rate_per_s,
        horizon_s=fleet.horizon_s,
        warmup=WARMUP,
        rng=spawn_rng(seed, "fleet", "evaluate"),
    )
    served = simulate_plan(
        fleet, plan, requests.arrival_s, tier[requests.row], requests.input_tokens, requests.output_tokens
    )
    latency_s = table.latency_s.copy()
    unserved_s = OfflineRecipe().longest_s  # as in a search
    took_s = np.nan_to_num(served.done_s - requests.arrival_s, nan=unserved_s)
    met = per_query(requests, np.minimum(took_s, unserved_s), table)
    latency_s[np.arange(table.n_queries), tier] = met
    return dataclasses.replace(table, latency_s=latency_s, alone=without_latency(table.bare), _hash=[])


def on_fleet(
    problem: DeploymentProblem,
    table: OutcomeTable,
    requests: Requests,
    plan: FleetPlan,
    tier: IntArray,
    alone: list[FleetPlan],
) -> OutcomeTable:
    """The table with what one assignment (`tier: N`) meets on a fleet, in the cells that it chose."""
    database, every = problem.database, np.arange(table.n_queries)
    latency_s = table.latency_s.copy()
    latency_s[every, tier] = per_query(requests, fleet_latency_s(database, plan, requests, tier[requests.row]), table)
    single_s = np.empty_like(latency_s)
    for k, plan_alone in enumerate(alone):
        to_k = np.full(len(requests.row), k)
        single_s[:, k] = per_query(requests, fleet_latency_s(database, plan_alone, requests, to_k), table)
    bare = dataclasses.replace(table.bare, latency_s=single_s, _hash=[])
    return dataclasses.replace(table, latency_s=latency_s, alone=bare, _hash=[])


def per_query(requests: Requests, latency_s: FloatArray, table: OutcomeTable) -> FloatArray:
    """`N` latencies, one per query: of one counted request that asks it.

    Queries take turns among their first, second, ... request, so that all of the counted traffic has its part. Those
    that nobody asks get quantiles of the counted ones, evenly spread, so that their tail is the traffic's; one gets the
    median.
    """
    counted = np.flatnonzero(requests.counted)
    order = counted[np.argsort(requests.row[counted], kind="stable")]
    asked = np.bincount(requests.row[counted], minlength=table.n_queries)
    if not len(counted):
        return np.full(table.n_queries, np.nan)
    turn = np.arange(table.n_queries) % np.maximum(asked, 1)
    first = np.cumsum(asked) - asked
    found: FloatArray = latency_s[order[np.minimum(first + turn, len(order) - 1)]]
    unasked = np.flatnonzero(asked == 0)
    found[unasked] = np.quantile(latency_s[counted], (0.5 + _GOLDEN * np.arange(len(unasked))) % 1.0)
    return found


def without_latency(table: OutcomeTable) -> OutcomeTable:
    """The table without latencies."""
    nothing = np.full_like(table.latency_s, np.nan)
    return dataclasses.replace(table, latency_s=nothing, ttft_s=nothing, occupied_s=None, _hash=[])
