"""`ppo_lagrangian` in `routefront control`: trained on training traffic, played on others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.control_methods import Plan
from experiments.control_traffic import Site
from toolkit.baselines.windows import Episode, Service
from toolkit.search.window_policy import WindowPolicy

if TYPE_CHECKING:
    from simulators.envs.threshold_tuning import TuningSpec


def late_limits(plan: Plan) -> list[float]:
    """Limits of the late share, one per policy."""
    late = max(1.0 - float(plan.static.attainment[plan.home]), 1e-3)
    return [min(ratio * late, 1.0) for ratio in plan.site.settings.ppo.late_ratios]


def policies(plan: Plan, folder: Path, update: Callable[[int, int | None], None]) -> list[WindowPolicy]:
    """One policy per limit, trained or as it was stored."""
    limits = late_limits(plan)
    found = []
    for i, late in enumerate(limits):
        own = folder / str(i)
        if not (own / "window_policy.json").is_file():
            _train(plan, late, own, update)
        found.append(WindowPolicy.load(own))
    return found


def _train(plan: Plan, late: float, folder: Path, update: Callable[[int, int | None], None]) -> None:
    from simulators.envs.threshold_tuning import ThresholdTuningVectorEnv
    from toolkit.search.ppo_lagrangian import train
    from toolkit.search.ppo_options import PpoLagrangianOptions

    settings = plan.site.settings
    ppo, wrong = settings.ppo, 1.0 - settings.quality_floor
    tuning = tuning_spec(plan.site, plan.site.train(0), late)
    options = PpoLagrangianOptions(
        iterations=ppo.iterations,
        traffics=ppo.traffics,
        copies=ppo.copies,
        margin=ppo.margin,
        validate_every=max(1, min(10, ppo.iterations // 4)),
        seed=settings.seed,
    )
    folder.mkdir(parents=True, exist_ok=True)
    trained = train(
        lambda n: ThresholdTuningVectorEnv(tuning, n, autoreset_mode="Disabled"),
        options,
        home=plan.cuts[plan.home],
        limits=np.array([late, max(wrong, 1e-3)]),
        checkpoint=folder / "checkpoint.npz",
        on_progress=update,
    )
    trained.policy.save(folder)


def tuning_spec(site: Site, episode: Episode, late: float) -> TuningSpec:
    """The task on an episode's queries."""
    from simulators.envs.threshold_tuning import Limit, TuningSpec

    wrong = max(1.0 - site.settings.quality_floor, 1e-3)
    return TuningSpec(
        table=episode.table,
        score=site.score(episode.table),
        traffic=site.traffic,
        limits=(Limit(kind="late", at_most=late), Limit(kind="wrong", at_most=wrong)),
        latency_limit_s=episode.slo_s,
        window_s=site.window_s,
        usd_scale=float(site.train_table.cost_usd.mean(axis=0).max()),
        reference_scores=site.score(site.train_table),
    )


def play_policy(site: Site, episode: Episode, policy: WindowPolicy, late: float) -> tuple[Service, list[Any]]:
    """What the requests meet under the policy, and the figures of each window."""
    from simulators.envs.threshold_tuning import ThresholdTuningVectorEnv

    environment = ThresholdTuningVectorEnv(tuning_spec(site, episode, late), 1, autoreset_mode="Disabled")
    seen, _ = environment.reset(seed=0, options={"world": episode.world})
    windows, over = [], False
    while not over:
        seen, _, terminated, _, info = environment.step(policy.act(seen.astype(np.float64)).astype(np.float32))
        windows.append({name: np.asarray(info[name][0]) for name in ("requests", "late", "sent", "at_s")})
        over = bool(terminated.all())
    done = environment.totals
    service = Service(
        attainment=1.0 - done.share_late,
        cost_usd=done.cost_per_query_usd,
        quality=done.mean_quality,
        failed=done.share_failed,
    )
    return service, windows
