"""`tpe`: Optuna's multi-objective tree-structured Parzen estimator [Ozaki2022]_, one candidate at a time.

Objectives enter as coordinates of the axes: Optuna breaks ties between equally ranked trials by hypervolume.

References:
    [Ozaki2022] Ozaki, Tanigaki, Watanabe, Nomura, Onishi. Multiobjective tree-structured Parzen estimator. Journal of
        Artificial Intelligence Research 73, 2022.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from simulators.errors import MissingDependencyError
from simulators.outcomes import FloatArray
from toolkit.pareto.axes import Axes
from toolkit.problem import Evaluation, Problem
from toolkit.search.design import uniform_unseen
from toolkit.search.random import BaselineController, Ledger

_PROPOSALS_WITHOUT_NEWS = 20


class TpeController(BaselineController):
    """Optuna's `TPESampler` with its defaults, started on the initial design instead of random trials.

    Args:
        axes: Scales of the objectives.
    """

    name = "tpe"
    kind = "a TPE search"

    def __init__(
        self,
        problem: Problem,
        *,
        budget: int,
        n_initial: int | None,
        design_rng: np.random.Generator,
        rng: np.random.Generator,
        axes: Axes,
    ) -> None:
        super().__init__(problem, budget=budget, n_initial=n_initial, design_rng=design_rng, rng=rng)
        self._optuna = _require_optuna()
        self._axes = axes
        self._ledger = Ledger()
        seed = int(rng.integers(2**31))
        self._study = _study(self._optuna, len(problem.objectives), n_startup=len(self._design), seed=seed)
        uniform = self._optuna.distributions.FloatDistribution(0.0, 1.0)
        self._distributions = {f"x{j}": uniform for j in range(problem.space.dim)}
        self._x = problem.space.encode(self._design)

    def tell(self, evaluation: Evaluation) -> None:
        """Enter finished trials at the points proposed."""
        self._ledger.add(evaluation, self._axes)
        for x, row in zip(self._x, evaluation.params, strict=True):
            self._add_trial(x, row)

    def _propose(self, left: int) -> FloatArray:
        for _ in range(_PROPOSALS_WITHOUT_NEWS):
            self._x = self._sample()
            params = self._problem.space.decode(self._x)
            if self._seen.new_rows(params):
                return params
            self._add_trial(self._x[0], params[0])
        params = uniform_unseen(self._problem, self._seen, 1, self._rng)
        self._x = self._problem.space.encode(params)
        return params

    def _sample(self) -> FloatArray:
        """`1 x d` proposal. Its trial is closed at once: a finished one is entered when its figures are known."""
        trial = self._study.ask(self._distributions)
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        return np.array([[trial.params[name] for name in self._distributions]])

    def _add_trial(self, x: FloatArray, row: FloatArray) -> None:
        """Optuna's signs: the study maximises, constraints hold where `<= 0`. A failed trial has no values at all."""
        coordinates, slack = self._ledger[row]
        states = self._optuna.trial.TrialState
        failed = bool(np.isnan(coordinates).any())
        self._study.add_trial(
            self._optuna.trial.create_trial(
                state=states.FAIL if failed else states.COMPLETE,
                values=None if failed else coordinates.tolist(),
                constraints=None if failed else {f"c{j}": -value for j, value in enumerate(slack.tolist())},
                params=dict(zip(self._distributions, x.tolist(), strict=True)),
                distributions=self._distributions,
            )
        )


def _require_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingDependencyError(
            f"controller=tpe needs Optuna ({error}); pip install 'routefront[baselines]'"
        ) from error
    return optuna


def _study(optuna: Any, m: int, *, n_startup: int, seed: int) -> Any:
    """A study in memory; the sampler draws at random as long as fewer than `n_startup` trials succeeded."""
    with _quiet(optuna):
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=n_startup)
        return optuna.create_study(directions=["maximize"] * m, sampler=sampler)


@contextlib.contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Optuna announces every new study on stderr; its verbosity is a global, put back afterwards."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
