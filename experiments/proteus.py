"""`controller=proteus` from settings: the trained policy, the search over parameters, and the one against the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from experiments.rl_settings import ProteusSettings
from experiments.settings import TuneSettings
from simulators.errors import ConfigError, MissingDependencyError
from simulators.outcomes import FloatArray, OutcomeTable
from simulators.seeds import spawn_rng
from toolkit.evaluation.constraints import Constraint, parse_constraints
from toolkit.evaluation.metrics import QUANTILES, Metric
from toolkit.evaluation.slices import coverage
from toolkit.families.target import TargetFamily
from toolkit.problem import RoutingProblem
from toolkit.scorers.base import Scorer
from toolkit.search.base import Controller

_TRAINABLE = {"quality", "worst_slice", "cost", "latency_mean", "share_over", "share_within"}


@dataclass(frozen=True, kw_only=True)
class Training:
    """Where a training leaves its state, and whom it tells how far it is.

    Attributes:
        folder: For checkpoints.
        on_progress: Called with (steps so far, steps of all trainings).
    """

    folder: Path
    on_progress: Callable[[int, int | None], None] = lambda done, total: None


def check_proteus(settings: TuneSettings) -> None:
    """Refuse combinations that have no meaning.

    Raises:
        ConfigError: If policy, space or lambda do not fit the controller.
        MissingDependencyError: If the policy is to be trained and torch is not installed.
    """
    chosen = settings.controller
    if not isinstance(chosen, ProteusSettings):
        if settings.policy.kind == "target":
            raise ConfigError(
                "policy=target routes with a trained policy; use controller=proteus, or policy=thresholds|utility"
            )
        return
    if settings.space.kind != "policy":
        raise ConfigError(
            f"controller=proteus searches a policy's own parameters; use space=policy, not {settings.space.kind}"
        )
    if settings.policy.kind != "target" and chosen.lambda_ in {"scalar", "none"}:
        raise ConfigError(
            f"controller.lambda={chosen.lambda_} gives the same parameters for every requested quality; use "
            "controller.lambda=per_tau or pid, or policy=target to see what it does"
        )
    if settings.policy.kind == "target":
        need_torch("policy=target controller=proteus")


def need_torch(who: str, otherwise: str = "") -> None:
    """Refuse early what cannot be trained here.

    Raises:
        MissingDependencyError: If torch is not installed; `who` needs it.
    """
    if find_spec("torch") is None:
        raise MissingDependencyError(f"{who} needs torch: pip install 'routefront[rl]'{otherwise}")


def targets_of(settings: ProteusSettings, table: OutcomeTable, floor: float | None) -> FloatArray:
    """Requested qualities, ascending; a floor that lies in their range is one of them.

    Args:
        settings: How many, and which range.
        table: The tune split.
        floor: `constraints.quality_floor`, or None.
    """
    from toolkit.search.proteus_scorer import default_targets

    if settings.tau_range is None:
        found = default_targets(table, settings.levels)
    else:
        found = np.linspace(*settings.tau_range, settings.levels)
    if floor is not None and found[0] < floor < found[-1]:
        found = np.union1d(found, [floor])
    if found[0] == found[-1]:
        raise ConfigError("all tiers answer equally well here, so there is no range of qualities to request")
    return np.asarray(found)


def with_policy(settings: TuneSettings, base: Scorer, table: OutcomeTable, training: Training | None) -> Scorer:
    """The scorer with a policy trained on top of it.

    Args:
        settings: The settings; the controller is proteus.
        base: The quality head; predicts quality (and cost) per tier.
        table: The tune split, for the range of requested qualities and the slices that count.
        training: Checkpoints and progress, or None.
    """
    from toolkit.scorers.embedding import Embedding
    from toolkit.search.proteus import ProteusOptions
    from toolkit.search.proteus_scorer import ProteusScorer

    chosen = settings.controller
    assert isinstance(chosen, ProteusSettings)
    options = chosen.per_query.model_dump(exclude={"compare", "features", "dimensions"})
    return ProteusScorer(
        base=base,
        options=ProteusOptions(dual=chosen.lambda_, **options),
        targets=targets_of(chosen, table, settings.constraints.get("quality_floor")),
        embedding=Embedding(kind=chosen.per_query.features, dimensions=chosen.per_query.dimensions),
        folds=settings.folds,
        seed=int(spawn_rng(settings.seed, "proteus").integers(2**31)),
        constraints=trainable(parse_constraints(settings.constraints)),
        cover=coverage(table, settings.slices.minimum),
        checkpoints=None if training is None else training.folder,
        on_progress=None if training is None else _Steps(training.on_progress, settings.folds + 1),
    )


class _Steps:
    """Adds up the steps of several trainings in a row."""

    def __init__(self, tell: Callable[[int, int | None], None], trainings: int) -> None:
        self._tell, self._trainings, self._before, self._last = tell, trainings, 0, 0

    def __call__(self, step: int, steps: int) -> None:
        if step < self._last:
            self._before += steps
        self._last = step
        self._tell(self._before + step, self._trainings * steps)


def trainable(constraints: tuple[Constraint, ...]) -> tuple[Constraint, ...]:
    """The constraints that a policy per query can be trained with, the floor of the mean quality aside.

    A ceiling of a latency quantile becomes one of the share over it. What is no mean over queries is left to the choice
    among the trained levels.
    """
    found = []
    for constraint in constraints:
        metric = constraint.metric
        if metric.base == "quality" and metric.slice_name is None:
            continue
        if metric.base in QUANTILES:
            over = Metric("share_over", slice_name=metric.slice_name, limit_s=constraint.limit)
            found.append(Constraint(name=constraint.name, metric=over, limit=1.0 - QUANTILES[metric.base]))
        elif metric.base in _TRAINABLE:
            found.append(constraint)
    return tuple(found)


def proteus_controller(settings: TuneSettings, problem: RoutingProblem) -> Controller:
    """Enumeration of a trained policy's levels, or the Lagrangian search over parameters."""
    chosen = settings.controller
    assert isinstance(chosen, ProteusSettings)
    if isinstance(problem.family, TargetFamily):
        from toolkit.search.exact import ExactController

        found = ExactController(problem, boundaries="all", max_evaluations=len(problem.family.targets))
        found.name = "proteus"
        return found
    from toolkit.search.lagrangian import LagrangianController, LagrangianOptions

    multiplier = "pid" if chosen.lambda_ == "pid" else "gradient"
    return LagrangianController(
        problem,
        options=LagrangianOptions(multiplier=multiplier, **chosen.search.model_dump()),
        targets=targets_of(chosen, problem.table, settings.constraints.get("quality_floor")),
        rng=spawn_rng(settings.seed, "search", "proteus"),
    )
