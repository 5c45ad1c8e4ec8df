"""The policy per query beside the parameters that gateways take: what they lose against it, at the same requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.console import progress
from experiments.files import write_json
from experiments.loading import quality_head
from experiments.pipeline import Prepared
from experiments.proteus import Training, need_torch, with_policy
from experiments.rl_settings import ProteusSettings
from experiments.run_folder import TRAINING, RunFolder
from experiments.settings import TuneSettings
from experiments.tune_output import save_scorer
from simulators.outcomes import FloatArray, OutcomeTable
from simulators.seeds import spawn_rng
from toolkit.families.base import Family
from toolkit.families.target import TargetFamily
from toolkit.policies.lanes import Lanes
from toolkit.scorers.base import FittedScorer, Scorer, cross_fit
from toolkit.search.base import SearchResult

FOLDER, FILE = "per_query", "distillation.json"


def check_per_query(settings: TuneSettings) -> None:
    """Find out before a search whether the comparison after it can be trained.

    Raises:
        MissingDependencyError: If it needs torch, and torch is not installed.
    """
    chosen = settings.controller
    if isinstance(chosen, ProteusSettings) and chosen.per_query.compare and settings.policy.kind != "target":
        need_torch("controller.per_query.compare=true", " (or controller.per_query.compare=false)")


@contextmanager
def train_in(folder: RunFolder, *, quiet: bool) -> Iterator[Training]:
    """A training with progress, whose state is in the run's folder until the run has ended."""
    with progress("Training the policy per query", quiet=quiet) as update:
        yield Training(folder=folder.path / TRAINING, on_progress=update)


def compare_per_query(
    settings: TuneSettings, prepared: Prepared, result: SearchResult, folder: RunFolder, *, quiet: bool
) -> PerQuery | None:
    """`compare` for a run of controller=proteus that searched parameters and asks for it; else None."""
    chosen = settings.controller
    if not isinstance(chosen, ProteusSettings) or settings.policy.kind == "target" or not chosen.per_query.compare:
        return None
    families = (prepared.problem.family, prepared.validate_family)
    with train_in(folder, quiet=quiet) as training:
        return compare(
            settings,
            quality_head(settings),
            prepared.tune,
            prepared.validate,
            families,
            result.evaluation.params,
            prepared.lanes,
            training,
        )


def save_per_query(found: PerQuery, folder: RunFolder) -> None:
    """Write the comparison and the trained policy into the run's folder."""
    write_json(folder.path / FILE, found.as_dict())
    save_scorer(found.scorer, folder.path / FOLDER)
    write_json(folder.path / FOLDER / "description.json", found.scorer.describe())


@dataclass(frozen=True, kw_only=True)
class PerQuery:
    """The policy per query beside parameters that stand for it, at the same requests.

    Attributes:
        scorer: The trained policy, fitted on all of the tune split.
        rows: One per requested quality that both reach on tune: `tau`, and of both, on both splits, quality and USD per
            query.
        infeasible: Requested qualities that one of them does not reach on tune.
        extra_cost: Median over the rows of the parameters' cost on validation over that of the policy per query, minus
            1; NaN without costs or rows.
        extra_quality: Mean over the rows of the difference in validation quality.
    """

    scorer: FittedScorer
    rows: tuple[dict[str, float], ...]
    infeasible: tuple[float, ...]
    extra_cost: float
    extra_quality: float

    def as_dict(self) -> dict[str, Any]:
        """What `distillation.json` holds."""
        return {
            "median_extra_cost": self.extra_cost,
            "mean_quality_difference": self.extra_quality,
            "infeasible_tau": list(self.infeasible),
            "rows": list(self.rows),
        }

    @property
    def sentence(self) -> str:
        """What a reader should know."""
        if not self.rows:
            return (
                "No requested quality is reached by both the policy per query and the parameters: nothing to compare."
            )
        cost = f"{self.extra_cost:+.1%} of the cost (median) and " if np.isfinite(self.extra_cost) else ""
        return (
            f"Against the policy per query (trained for comparison), these parameters take {cost}"
            f"{self.extra_quality:+.4f} in quality on validation, each at its cheapest setting that reached the same "
            f"request on tune, over {len(self.rows)} requests both reach (not at equal quality: distillation.json)."
        )


def compare(
    settings: TuneSettings,
    base: Scorer,
    tune: OutcomeTable,
    validate: OutcomeTable,
    families: tuple[Family, Family],
    evaluated: FloatArray,
    lanes: Lanes,
    training: Training,
) -> PerQuery:
    """Train the policy per query and compare it with the parameters that a search evaluated, without load.

    Args:
        settings: The settings.
        base: The quality head.
        tune, validate: The splits.
        families: What was searched, on tune and on validation.
        evaluated: `n x p` candidates of the search.
        lanes: Fallbacks.
        training: Checkpoints and progress.
    """
    recipe = with_policy(settings, base, tune, training)
    scores = cross_fit(recipe, tune, folds=settings.folds, rng=spawn_rng(settings.seed, "folds"))
    scorer = recipe.fit(tune)
    trained = [TargetFamily(s, lanes, tune.n_tiers) for s in (scores, scorer.predict(validate.queries))]
    targets = trained[0].targets
    ours = [_figures(f, targets, t) for f, t in zip(trained, (tune, validate), strict=True)]
    theirs = [_figures(f, evaluated, t) for f, t in zip(families, (tune, validate), strict=True)]
    rows, infeasible = [], []
    for tau in targets[:, 0].tolist():
        picked = [_cheapest(tau, *figures[0]) for figures in (ours, theirs)]
        if None in picked:
            infeasible.append(tau)
            continue
        row = {"tau": tau}
        for name, figures, at in zip(("per_query", "parameters"), (ours, theirs), picked, strict=True):
            for split, (quality, cost) in zip(("tune", "validate"), figures, strict=True):
                row |= {f"{name}_{split}_quality": float(quality[at]), f"{name}_{split}_cost_usd": float(cost[at])}
        rows.append(row)
    ratio = [cost_ratio(r["parameters_validate_cost_usd"], r["per_query_validate_cost_usd"]) for r in rows]
    gain = [r["parameters_validate_quality"] - r["per_query_validate_quality"] for r in rows]
    return PerQuery(
        scorer=scorer,
        rows=tuple(rows),
        infeasible=tuple(infeasible),
        extra_cost=float(np.median(ratio)) - 1.0 if ratio else np.nan,
        extra_quality=float(np.mean(gain)) if gain else np.nan,
    )


def cost_ratio(cost: float, against: float) -> float:
    """`cost / against`; 1 where both are nothing, as on a tier that bills nothing."""
    if cost == against:
        return 1.0
    return cost / against if against else np.inf


def _figures(family: Family, params: FloatArray, table: OutcomeTable) -> tuple[FloatArray, FloatArray]:
    """`n` mean qualities and mean costs."""
    every, parts = np.arange(table.n_queries), np.array_split(params, max(1, len(params) // 256))
    tiers = [family.assign(part) for part in parts if len(part)]
    quality = [table.quality[every, tier].mean(axis=1) for tier in tiers]
    cost = [table.cost_usd[every, tier].mean(axis=1) for tier in tiers]
    return np.concatenate(quality), np.concatenate(cost)


def _cheapest(tau: float, quality: FloatArray, cost: FloatArray) -> int | None:
    """The cheapest setting that reaches `tau`; where costs are unknown, the one that exceeds it least."""
    rows = np.flatnonzero(quality >= tau)
    if len(rows) == 0:
        return None
    by = cost if np.isfinite(cost).all() else quality
    return int(rows[np.argmin(by[rows])])
