"""`controller=ppo_lagrangian`: trains a window policy, and offers its centre as static thresholds.

Gateways take static thresholds, and a run's front is made of them. So each step of the search trains for some
iterations and asks for the policy's centre as an ordinary candidate; the policy itself is in `trained` at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from simulators.seeds import spawn_rng
from toolkit.problem import Evaluation, RoutingProblem
from toolkit.search.design import default_initial, initial_design
from toolkit.search.ppo_lagrangian import PpoTrainer, TrainedWindowPolicy
from toolkit.search.ppo_options import PpoLagrangianOptions
from toolkit.search.window_policy import as_action
from toolkit.search.window_rollout import WindowEnvironment


class Scale(Protocol):
    """Load fractions and thresholds, both ways; the `scale` of `ThresholdTuning-v0` is one."""

    def thresholds(self, positions: FloatArray) -> FloatArray: ...

    def positions(self, thresholds: FloatArray) -> FloatArray: ...


class PpoLagrangianController:
    """A design of static thresholds, then the centre of a policy in training, started at the best of the design.

    Deterministic given its seed and what it was told; with a checkpoint, a run that was cut off does not train again
    what it had trained.

    Args:
        problem: On thresholds; judges the static candidates.
        environment_factory: See `train`.
        scale: What a load fraction of the environment's actions is on the problem's score.
        options: How to train.
        limits: `c` largest exceedance shares, see `train`.
        budget: Evaluations, the design included; at least two.
        n_initial: Size of the design; None takes that of the other searchers.
        checkpoint: See `train`.
        on_progress: See `train`.

    Attributes:
        trained: The policy and how it came about; None before the end.
    """

    name = "ppo_lagrangian"

    def __init__(
        self,
        problem: RoutingProblem,
        *,
        environment_factory: Callable[[int], WindowEnvironment],
        scale: Scale,
        options: PpoLagrangianOptions,
        limits: FloatArray,
        budget: int,
        n_initial: int | None = None,
        checkpoint: Path | None = None,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        if problem.family.kind != "thresholds":
            raise ConfigError(f"controller={self.name} trains thresholds; got space={problem.family.kind}")
        if "cost_usd" not in {metric.column for metric in problem.metrics}:
            raise ConfigError(f"controller={self.name} minimises cost, and these answers have none")
        if budget < 2:
            raise ConfigError(f"controller={self.name} needs a budget of at least 2; got {budget}")
        wanted = default_initial(problem) if n_initial is None else n_initial
        design_rng = spawn_rng(options.seed, "design")
        self._design = initial_design(problem, min(max(wanted, 1), budget - 1), design_rng)
        self._factory, self._scale, self._options, self._limits = environment_factory, scale, options, limits
        self._checkpoint, self._on_progress = checkpoint, on_progress
        asks = min(budget - len(self._design), options.iterations)
        self._goals = np.ceil(np.linspace(0, options.iterations, asks + 1))[1:].astype(int).tolist()
        self._asked = 0
        self._told: list[Evaluation] = []
        self._trainer: PpoTrainer | None = None
        self.trained: TrainedWindowPolicy | None = None

    @property
    def total(self) -> int:
        """Design and centres."""
        return len(self._design) + len(self._goals)

    @property
    def exactness(self) -> str:
        """That it is a sample, and what of."""
        return (
            f"a sample of {len(self._design)} thresholds and of {len(self._goals)} centres of a policy per window in "
            f"training ({self._options.iterations} iterations): better ones may exist"
        )

    def ask(self) -> FloatArray | None:
        """The design; then, after some iterations of training each, the centre of the policy."""
        if self._asked > len(self._goals):
            return None
        self._asked += 1
        if self._asked == 1:
            return self._design
        if self._trainer is None:
            self._trainer = self._start()
        goal = self._goals[self._asked - 2]
        while self._trainer.iteration < goal:
            self._trainer.step()
            self._on_progress(self._trainer.iteration, self._options.iterations)
        if goal == self._options.iterations:
            self.trained = self._trainer.trained()
        self._trainer.write()
        return self._scale.thresholds(self._trainer.home_at(goal)[None, :])

    def tell(self, evaluation: Evaluation) -> None:
        """Remember the design, which decides where training starts."""
        if self._trainer is None:
            self._told.append(evaluation)

    def _start(self) -> PpoTrainer:
        home = as_action(self._scale.positions(best_start(self._told[0])))
        return PpoTrainer(self._factory, self._options, home=home, limits=self._limits, checkpoint=self._checkpoint)


def best_start(evaluation: Evaluation) -> FloatArray:
    """`p` thresholds of the cheapest feasible candidate; where none is feasible, of the one that violates least.

    Violations are in units of the largest one of each constraint, added up.

    Raises:
        ConfigError: If every evaluation failed.
    """
    ok = np.flatnonzero(evaluation.ok)
    if not len(ok):
        raise ConfigError("no static thresholds could be evaluated, so there is nothing to start training from")
    over = np.maximum(-evaluation.slack[ok], 0.0)
    largest = over.max(axis=0, initial=0.0)
    violation = (over / np.where(largest > 0, largest, 1.0)).sum(axis=1)
    return np.asarray(evaluation.params[ok[np.lexsort((evaluation.columns["cost_usd"][ok], violation))[0]]])
