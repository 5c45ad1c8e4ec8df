"""`controller=ppo_lagrangian` from settings, and its policy against the chosen static thresholds on unseen traffic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from experiments.files import write_json
from experiments.pipeline import Prepared
from experiments.proteus import Training
from experiments.rl_settings import PpoLagrangianSettings
from experiments.run_folder import RunFolder
from experiments.settings import TuneSettings
from experiments.world_settings import TrafficSettings
from simulators.envs.load_scale import LoadScale
from simulators.envs.threshold_tuning import Limit, ThresholdTuningVectorEnv, TuningSpec
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, OutcomeTable
from simulators.seeds import spawn_rng
from simulators.traffic import parse_traffic
from toolkit.evaluation.constraints import Constraint
from toolkit.evaluation.metrics import QUANTILES
from toolkit.policies.lanes import FREE, Lanes
from toolkit.problem import RoutingProblem
from toolkit.scorers.base import ScoreTable
from toolkit.search.base import Controller
from toolkit.search.ppo_controller import PpoLagrangianController
from toolkit.search.ppo_lagrangian import TrainedWindowPolicy

FOLDER, FILE = "window_policy", "windows.json"


def limits_of(constraints: tuple[Constraint, ...]) -> tuple[tuple[Limit, ...], float | None]:
    """The constraints as exceedance shares, and the latency beyond which a request is late.

    Raises:
        ConfigError: If one is no share of requests, or two name different latencies.
    """
    limits: list[Limit] = []
    lates: set[float] = set()
    for constraint in constraints:
        metric, slice_name = constraint.metric, constraint.metric.slice_name
        if metric.base == "quality":
            limits.append(Limit(kind="wrong", at_most=1.0 - constraint.limit, slice=slice_name))
        elif metric.base == "cost" and slice_name is None:
            limits.append(Limit(kind="cost", at_most=constraint.limit))
        elif metric.base in {"share_over", "share_within"}:
            share = constraint.limit if metric.base == "share_over" else 1.0 - constraint.limit
            limits.append(Limit(kind="late", at_most=share, slice=slice_name))
            assert metric.limit_s is not None
            lates.add(metric.limit_s)
        elif metric.base in QUANTILES:
            limits.append(Limit(kind="late", at_most=1.0 - QUANTILES[metric.base], slice=slice_name))
            lates.add(constraint.limit)
        else:
            raise ConfigError(
                "controller=ppo_lagrangian learns shares of requests: floors of quality, share_over, share_within, "
                f"latency quantiles and the mean cost, all but the last also per slice; {constraint.name} is none"
            )
    if len(lates) > 1:
        raise ConfigError(
            f"controller=ppo_lagrangian knows one limit of latency; the constraints have {sorted(lates)} s"
        )
    if any(limit.at_most <= 0 for limit in limits):
        raise ConfigError(
            "controller=ppo_lagrangian needs constraints that leave something: a share of 0 cannot be learnt"
        )
    return tuple(limits), lates.pop() if lates else None


def ppo_controller(
    settings: TuneSettings, problem: RoutingProblem, training: Training | None
) -> PpoLagrangianController:
    """The controller, on the traffic that the settings name.

    Raises:
        ConfigError: If there is no traffic, no constraint, or the policy is none that changes per window.
    """
    chosen = settings.controller
    assert isinstance(chosen, PpoLagrangianSettings)
    if not isinstance(settings.world, TrafficSettings):
        raise ConfigError("controller=ppo_lagrangian learns in traffic; use a scenario with traffic and world=traffic")
    if settings.policy.kind != "thresholds" or settings.space.kind != "policy":
        raise ConfigError("controller=ppo_lagrangian sets thresholds per window; use policy=thresholds space=policy")
    if not problem.constraints:
        raise ConfigError(
            "controller=ppo_lagrangian needs something to keep: constraints.quality_floor, p95_ceiling_s or another"
        )
    from toolkit.search.ppo_options import PpoLagrangianOptions

    spec = tuning_spec(settings, problem.table, problem.family.scores, problem.family.lanes, problem)
    options = chosen.model_dump(exclude={"kind", "window_s", "label_share", "label_lag", "n_initial", "unseen"})
    seed = int(spawn_rng(settings.seed, "ppo_lagrangian").integers(2**31))
    most = [limit.at_most / (spec.dollar if limit.kind == "cost" else 1.0) for limit in spec.limits]
    return PpoLagrangianController(
        problem,
        environment_factory=lambda n: ThresholdTuningVectorEnv(spec, n),
        scale=scale_of(problem),
        options=PpoLagrangianOptions(seed=seed, **options),
        limits=np.array(most),
        budget=settings.budget,
        n_initial=chosen.n_initial,
        checkpoint=None if training is None else training.folder / "ppo_lagrangian.npz",
    )


def scale_of(problem: RoutingProblem) -> LoadScale:
    """Load positions among the tune scores, and the thresholds that they stand for."""
    reference = problem.family.scores.score
    return LoadScale(reference[np.isfinite(reference)])


def tuning_spec(
    settings: TuneSettings, table: OutcomeTable, scores: ScoreTable, lanes: Lanes, problem: RoutingProblem
) -> TuningSpec:
    """The task on one table: its queries are asked, and boundaries are load positions among the tune scores."""
    chosen, world = settings.controller, settings.world
    assert isinstance(chosen, PpoLagrangianSettings) and isinstance(world, TrafficSettings)
    limits, late_s = limits_of(problem.constraints)
    reference = problem.family.scores.score
    return TuningSpec(
        table=table,
        score=np.nan_to_num(scores.score),
        traffic=parse_traffic(world.traffic or {}),
        limits=limits,
        latency_limit_s=late_s,
        load=world.load,
        latency_scale_s=float(problem.table.latency_s.mean()) if late_s is None else late_s,
        window_s=chosen.window_s,
        label_share=chosen.label_share,
        label_lag=chosen.label_lag,
        reference_scores=reference[np.isfinite(reference)],
        pinned=np.where(lanes.pinned(scores) == FREE, -1, lanes.pinned(scores)),
    )


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A policy per window beside static thresholds, in the same unseen traffic on validation queries.

    Attributes:
        trained: The policy and how it came about.
        seeds: Of the traffics.
        figures: Name -> `2 x seeds` of the policy and the static thresholds: `cost_usd`, `quality`, `share_late`,
            `share_failed`.
        late_s: Beyond it a request is late; None: no limit, and failures alone count.
    """

    trained: TrainedWindowPolicy
    seeds: tuple[int, ...]
    figures: dict[str, FloatArray]
    late_s: float | None

    def difference(self, name: str) -> tuple[float, float, float]:
        """Mean of policy minus static, and its 95 % t interval over the traffics."""
        values = self.figures[name][0] - self.figures[name][1]
        mean, n = float(values.mean()), len(values)
        half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
        return mean, mean - half, mean + half

    def as_dict(self) -> dict[str, Any]:
        """What `windows.json` holds."""
        sides = {
            side: {name: values[i].tolist() for name, values in self.figures.items()}
            for i, side in enumerate(("policy", "static"))
        }
        return {
            "latency_limit_s": self.late_s,
            "traffic_seeds": list(self.seeds),
            **sides,
            "difference": {
                name: dict(zip(("mean", "low", "high"), self.difference(name), strict=True)) for name in self.figures
            },
            "training": {
                "seconds": self.trained.seconds,
                "windows_per_s": self.trained.steps_per_s,
                "best_iteration": self.trained.best_iteration,
                "history": {name: values.tolist() for name, values in self.trained.history.items()},
            },
        }

    @property
    def sentence(self) -> str:
        """What a reader should know."""
        means = {name: values.mean(axis=1) for name, values in self.figures.items()}
        cost, low, high = (1000 * value for value in self.difference("cost_usd"))
        late = means["share_late"]
        what = f"over {self.late_s:g} s or failed" if self.late_s is not None else "failed"
        return (
            f"Thresholds set anew per window ({FOLDER}/), on {len(self.seeds)} unseen traffics: "
            f"${1000 * means['cost_usd'][0]:.3f} per 1,000 requests, quality {means['quality'][0]:.3f}, {late[0]:.1%} "
            f"{what}; the chosen static thresholds there: ${1000 * means['cost_usd'][1]:.3f}, "
            f"{means['quality'][1]:.3f}, {late[1]:.1%}. Difference in cost "
            f"{cost:+.3f} [{low:+.3f}, {high:+.3f}], 95 % over traffics on the same queries. Gateways take the static "
            "ones."
        )


def judge_windows(
    settings: TuneSettings, prepared: Prepared, controller: Controller, params: FloatArray, folder: RunFolder
) -> Judged | None:
    """Play the trained policy and the chosen thresholds in unseen traffic; None for other controllers.

    Writes the policy and `windows.json` into the run's folder.
    """
    chosen = settings.controller
    if not isinstance(chosen, PpoLagrangianSettings) or not isinstance(controller, PpoLagrangianController):
        return None
    trained = controller.trained
    assert trained is not None
    spec = tuning_spec(settings, prepared.validate, prepared.validate_scores, prepared.lanes, prepared.problem)
    env = ThresholdTuningVectorEnv(spec, 2)
    static = env.scale.positions(params)
    seeds = spawn_rng(settings.seed, "unseen traffic").integers(2**31, size=chosen.unseen).tolist()
    found: dict[str, list[FloatArray]] = {"cost_usd": [], "quality": [], "share_late": [], "share_failed": []}
    for seed in seeds:
        seen, _ = env.reset(seed=seed, options={"traffic_seed": seed})
        over = False
        while not over:
            action = np.stack([trained.policy.act(seen[:1].astype(np.float64))[0], static])
            seen, _, terminated, _, _ = env.step(action.astype(np.float32))
            over = bool(np.all(terminated))
        totals = env.totals
        found["cost_usd"].append(totals.cost_per_query_usd)
        found["quality"].append(totals.mean_quality)
        found["share_late"].append(totals.share_late)
        found["share_failed"].append(totals.share_failed)
    judged = Judged(
        trained=trained,
        seeds=tuple(seeds),
        figures={name: np.stack(values, axis=1) for name, values in found.items()},
        late_s=spec.latency_limit_s,
    )
    trained.policy.save(folder.path / FOLDER)
    write_json(folder.path / FILE, judged.as_dict())
    return judged
