"""`exact` for thresholds and deployments: every deployment that fits, at every boundary of a grid, by the tables.

A look-up is so cheap that whole problems of the size that [Boute2026]_ searches can be enumerated; a search is needed
where latency is simulated, tiers are many, or the tables cannot be made. Where the problem simulates latency, the front
that the tables give is simulated, and is exact for the tables only.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from toolkit.deployment.problem import DeploymentProblem, FleetEstimator
from toolkit.evaluation.metrics import FLEET, Metric
from toolkit.pareto.front import non_dominated
from toolkit.problem import Evaluation, make_evaluation
from toolkit.search.exact import even_positions

_AUTO = 101
_MOST_LOOKED_UP = 20_000_000


class DeploymentExactController:
    """Enumeration by the offline tables; the front is what is evaluated.

    Args:
        problem: The problem.
        boundaries: `auto` (101 per boundary), `all`, or a number: boundaries spread evenly over the traffic.
        most: Largest number of table look-ups.

    Raises:
        ConfigError: If the enumeration would take more look-ups than that, or a latency is that of a slice.
    """

    name = "exact"

    def __init__(self, problem: DeploymentProblem, *, boundaries: str | int, most: int = _MOST_LOOKED_UP) -> None:
        order = problem.deployments.routing.order
        n_distinct = len(order.boundaries)
        wanted = {"all": n_distinct, "auto": _AUTO}.get(str(boundaries)) or int(boundaries)
        size = min(n_distinct, wanted)
        grid = order.boundaries[even_positions(order.positions, size)]
        d = problem.deployments.n_routing
        n_vectors = math.comb(size + d - 1, d)
        work = n_vectors * len(problem.choices)
        if work > most:
            raise ConfigError(
                f"{n_vectors:,} threshold vectors on {len(problem.choices):,} deployments are {work:,} "
                "look-ups, too many to enumerate; use controller.boundaries=NUMBER for a coarser grid, or "
                "controller=boute"
            )
        sliced = [m for m in _wanted(problem) if m.needs_latency and m.slice_name is not None]
        if sliced:
            raise ConfigError(
                f"controller=exact enumerates by the offline tables, which know no slices; {sliced[0].column} needs "
                "controller=boute or another search, and space.evaluate=simulate"
            )
        self._thresholds = np.array(list(itertools.combinations_with_replacement(grid, d)))
        self._problem, self._asked, self.n_looked_up = problem, False, 0

    @property
    def total(self) -> int | None:
        """The size of the front is known when it is found."""
        return None

    @property
    def exactness(self) -> str:
        """What was enumerated."""
        said = (
            f"{len(self._thresholds):,} threshold vectors were combined with every deployment that fits "
            f"({self.n_looked_up:,} look-ups): exact for the offline tables on this grid"
        )
        return said if self._problem.looked_up else said + "; their front was simulated"

    def ask(self) -> FloatArray | None:
        """The front by the tables, once."""
        if self._asked:
            return None
        self._asked = True
        return self.front()

    def tell(self, evaluation: Evaluation) -> None:
        """An enumeration learns nothing."""

    def front(self) -> FloatArray:
        """`F x p` feasible non-dominated candidates by the tables; the nearest to feasible where none is."""
        params, Y, slack = [], [], []
        for thresholds in self._thresholds:
            found = self._at(thresholds)
            self.n_looked_up += len(found)
            keep = found.feasible if found.feasible.any() else _nearest(found)
            rows = np.flatnonzero(keep)
            rows = rows[non_dominated(found.Y[rows])]
            params.append(found.params[rows])
            Y.append(found.Y[rows])
            slack.append(found.slack[rows])
        every, all_Y, all_slack = np.concatenate(params), np.concatenate(Y), np.concatenate(slack)
        feasible = (all_slack >= 0).all(axis=1)
        if not feasible.any():
            return np.asarray(every[np.argsort(-all_slack.min(axis=1), kind="stable")[:1]])
        return np.asarray(every[feasible][non_dominated(all_Y[feasible])])

    def _at(self, thresholds: FloatArray) -> Evaluation:
        """Every deployment that fits at one threshold vector (`K-1`)."""
        problem, family = self._problem, self._problem.deployments
        needed = family.fractions(thresholds[None, :])[0] > 0
        choice = family.choices.fitting(needed)
        params = family.assemble(np.tile(thresholds, (len(choice), 1)), choice)
        wanted = _wanted(problem)
        same = tuple(m for m in wanted if not m.needs_latency and m.base not in FLEET)
        varied = tuple(m for m in wanted if m not in same)
        columns = FleetEstimator(problem, params, looked_up=True).values(varied)
        for name, value in FleetEstimator(problem, params[:1], looked_up=True).values(same).items():
            columns[name] = np.repeat(value, len(params))
        shares = np.tile(family.fractions(params[:1]), (len(params), 1))
        return make_evaluation(problem, params, columns, shares)


def _wanted(problem: DeploymentProblem) -> tuple[Metric, ...]:
    return tuple(dict.fromkeys((*problem.objectives, *(c.metric for c in problem.constraints))))


def _nearest(found: Evaluation) -> np.ndarray:
    worst = found.slack.min(axis=1) if found.slack.shape[1] else np.zeros(len(found))
    return np.asarray(worst >= worst.max())
