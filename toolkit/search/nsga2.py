"""`nsga2`: pymoo's NSGA-II [Deb2002]_ on the unit cube, the initial design as its first population.

Objectives enter as coordinates of the axes, so that crowding distances weigh them as the hypervolume does.

References:
    [Deb2002] Deb, Pratap, Agarwal, Meyarivan. A fast and elitist multiobjective genetic algorithm: NSGA-II. IEEE
        Transactions on Evolutionary Computation 6(2), 2002.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from simulators.errors import ConfigError, MissingDependencyError
from simulators.outcomes import FloatArray
from toolkit.pareto.axes import Axes
from toolkit.problem import Evaluation, Problem
from toolkit.search.design import uniform_unseen
from toolkit.search.random import BaselineController, Ledger

_GENERATIONS_WITHOUT_NEWS = 20
_WORST = 1e12  # coordinates and violations of a failed evaluation, beyond those of any other


class Nsga2Controller(BaselineController):
    """A genetic algorithm with non-dominated sorting and crowding distance.

    Args:
        axes: Scales of the objectives.
        population: Size of every generation after the initial design.
    """

    name = "nsga2"
    kind = "an NSGA-II search"

    def __init__(
        self,
        problem: Problem,
        *,
        budget: int,
        n_initial: int | None,
        design_rng: np.random.Generator,
        rng: np.random.Generator,
        axes: Axes,
        population: int = 20,
    ) -> None:
        super().__init__(problem, budget=budget, n_initial=n_initial, design_rng=design_rng, rng=rng)
        if population < 2:
            raise ConfigError(f"population must be at least 2, for there to be parents; got {population}")
        self._axes, self._population = axes, population
        self._ledger = Ledger()
        self._algorithm = _algorithm(problem, population, seed=int(rng.integers(2**31)))
        self._offspring = problem.space.encode(self._design)
        self._realised = self._design

    def tell(self, evaluation: Evaluation) -> None:
        """Hand the generation on, with the known figures of what it repeats."""
        self._ledger.add(evaluation, self._axes)
        self._tell_offspring()

    def _propose(self, left: int) -> FloatArray:
        for _ in range(_GENERATIONS_WITHOUT_NEWS):
            offspring = self._algorithm.ask()
            if offspring is None:
                self._algorithm.termination.force_termination = False  # it found no new point: no reason to end here
                break
            self._offspring = np.asarray(offspring.get("X"), dtype=np.float64)
            self._realised = self._problem.space.decode(self._offspring)
            rows = self._seen.new_rows(self._realised)
            if rows:
                return np.asarray(self._realised[rows[:left]])
            self._tell_offspring()
        self._realised = uniform_unseen(self._problem, self._seen, min(self._population, left), self._rng)
        self._offspring = self._problem.space.encode(self._realised)
        return self._realised

    def _tell_offspring(self) -> None:
        """pymoo's signs: objectives are minimised, constraints hold where `G <= 0`.

        The first column of G says whether the evaluation succeeded: a failed one is dominated by all others.
        """
        from pymoo.core.population import Population

        rows = [i for i, row in enumerate(self._realised) if row in self._ledger]  # the budget may have cut the rest
        known = [self._ledger[self._realised[i]] for i in rows]
        coordinates, slack = (np.stack(part) for part in zip(*known, strict=True))
        failed = np.isnan(coordinates).any(axis=1)[:, None]
        G = np.where(failed, _WORST, np.concatenate([np.zeros((len(rows), 1)), -slack], axis=1))
        F = np.where(failed, _WORST, -coordinates)
        self._algorithm.tell(infills=Population.new(X=self._offspring[rows], F=F, G=G))


def _algorithm(problem: Problem, population: int, *, seed: int) -> Any:
    """NSGA-II with pymoo's operators and defaults, without an end of its own and without a random first generation."""
    try:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem as PymooProblem
        from pymoo.core.termination import NoTermination
    except ImportError as error:
        raise MissingDependencyError(
            f"controller=nsga2 needs pymoo ({error}); pip install 'routefront[baselines]'"
        ) from error
    cube = PymooProblem(
        n_var=problem.space.dim,
        n_obj=len(problem.objectives),
        n_ieq_constr=1 + len(problem.constraints),
        xl=0.0,
        xu=1.0,
    )
    with contextlib.redirect_stdout(io.StringIO()):  # without its compiled modules, pymoo prints advice
        algorithm = NSGA2(pop_size=population)
    algorithm.setup(cube, termination=NoTermination(), seed=seed)
    return algorithm
