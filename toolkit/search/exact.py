"""`exact`: enumerate what can be enumerated.

Thresholds: all vectors over all distinct boundaries, or over a stated grid of them where there are too many.
Utility: every distinct policy on the λ path (offsets 0), or a stated grid of them. Limits are stated, and asking for
more is an error.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray
from toolkit.evaluation.contention import MOST_SIMULATED, only_waits
from toolkit.evaluation.metrics import QUANTILES
from toolkit.families.target import TargetFamily
from toolkit.families.thresholds import ThresholdFamily
from toolkit.families.utility import UtilityFamily
from toolkit.problem import Evaluation, RoutingProblem

_BATCH = 8_192
_BATCH_REQUESTS = 8e6  # so that a search under load is journalled every second or so
_QUANTILE_WORK_LIMIT = 2e10
_DOUBLE_PRECISION_LIMIT = 2e7


class ExactController:
    """Enumeration in a fixed order.

    Args:
        problem: The problem.
        boundaries: `auto` (all if that is within the limit, else the finest grid that is), `all`, or a number: of
            boundaries spread evenly over the traffic, or of policies spread evenly over the λ path.
        max_evaluations: The limit.

    Raises:
        ConfigError: If what is asked for exceeds the limit.
    """

    name = "exact"

    def __init__(self, problem: RoutingProblem, *, boundaries: str | int, max_evaluations: int) -> None:
        if max_evaluations < 1:
            raise ConfigError(f"controller.max_evaluations must be at least 1; got {max_evaluations}")
        if not isinstance(boundaries, str) and boundaries < 2:
            raise ConfigError(f"controller.boundaries must be auto, all or a number of at least 2; got {boundaries}")
        self._limit = self._auto_limit = max_evaluations
        self._next, self._batch = 0, _BATCH
        self._simulated, self._single_precision = problem.world is not None, False
        most = math.inf
        if problem.world is not None:
            self._batch = max(64, min(_BATCH, int(_BATCH_REQUESTS // problem.world.n_requests)))
            most = MOST_SIMULATED[only_waits(problem.world)]
            self._auto_limit = max(2, min(max_evaluations, int(most // problem.world.n_requests)))
        family = problem.family
        if isinstance(family, UtilityFamily):
            self._candidates = self._lambda_path(problem, family, boundaries)
        elif isinstance(family, ThresholdFamily):
            self._candidates = self._threshold_vectors(problem, family, boundaries)
        elif isinstance(family, TargetFamily):
            self._candidates = family.targets
            self._exactness = (
                f"all {len(family.targets)} requested qualities of the trained policy were evaluated exactly"
            )
        else:
            raise ConfigError(f"space={family.kind} is too large to enumerate; use controller=mobo")
        work = 0.0 if problem.world is None else float(len(self._candidates)) * problem.world.n_requests
        if problem.world is not None and only_waits(problem.world) and work > _DOUBLE_PRECISION_LIMIT:
            problem.single_precision = self._single_precision = True
        if problem.world is not None and work > most:
            raise ConfigError(
                f"{len(self._candidates):,} candidates on {problem.world.n_requests:,} requests would have to be "
                "simulated; use controller=mobo, or a grid with controller.boundaries=auto or a number"
            )

    @property
    def total(self) -> int:
        """Number of candidates."""
        return len(self._candidates)

    @property
    def exactness(self) -> str:
        """What was enumerated."""
        precision = " in single precision (mean and p99 within 0.1 %)" if self._single_precision else ""
        return self._exactness + (
            f"; what happens under load was simulated for each{precision}" if self._simulated else ""
        )

    def ask(self) -> FloatArray | None:
        """Next batch of the enumeration."""
        if self._next >= len(self._candidates):
            return None
        batch = self._candidates[self._next : self._next + self._batch]
        self._next += len(batch)
        return batch

    def tell(self, evaluation: Evaluation) -> None:
        """An enumeration learns nothing."""

    def _lambda_path(self, problem: RoutingProblem, family: UtilityFamily, boundaries: str | int) -> FloatArray:
        lambdas = family.path.lambdas
        n_distinct = len(lambdas)
        if boundaries == "all" and n_distinct > self._limit:
            raise ConfigError(
                f"the λ path has {n_distinct:,} distinct policies, over controller.max_evaluations={self._limit:,}; "
                "use controller.boundaries=auto for an even grid of them, or raise the limit"
            )
        size = self._limit if boundaries == "all" else self._auto_limit
        size = size if isinstance(boundaries, str) else min(boundaries, self._limit)
        if n_distinct > size:
            lambdas = lambdas[np.unique(np.linspace(0, n_distinct - 1, size).round().astype(np.int64))]
        self._check_quantile_work(problem, len(lambdas))
        if len(lambdas) == n_distinct:
            self._exactness = f"every distinct policy of the λ path ({n_distinct:,}) was evaluated exactly"
        else:
            self._exactness = (
                f"{len(lambdas):,} of the {n_distinct:,} distinct policies on the λ path, evenly spaced along it, "
                "were evaluated exactly"
            )
        return np.concatenate([lambdas[:, None], np.zeros((len(lambdas), problem.table.n_tiers - 1))], axis=1)

    def _check_quantile_work(self, problem: RoutingProblem, n_policies: int) -> None:
        work = float(n_policies) * problem.table.n_queries
        if any(m.base in QUANTILES for m in problem.metrics) and work > _QUANTILE_WORK_LIMIT:
            raise ConfigError(
                f"latency quantiles of {n_policies:,} utilities on {problem.table.n_queries:,} queries exceed the "
                f"limit of {_QUANTILE_WORK_LIMIT:.0e} look-ups; use policy=thresholds, or fewer of them with "
                "controller.boundaries=N"
            )

    def _threshold_vectors(self, problem: RoutingProblem, family: ThresholdFamily, boundaries: str | int) -> FloatArray:
        d, n_distinct = problem.table.n_tiers - 1, len(family.order.boundaries)
        size = self._grid_size(boundaries, n_distinct, d)
        count = math.comb(size + d - 1, d)
        if count > self._limit:
            raise ConfigError(
                f"{size:,} boundaries give {count:,} threshold vectors for {d + 1} tiers, over "
                f"controller.max_evaluations={self._limit:,}; use controller.boundaries=auto or "
                f"controller.boundaries={largest_grid(self._limit, d)}, or raise the limit"
            )
        grid = family.order.boundaries[even_positions(family.order.positions, size)]
        count = math.comb(len(grid) + d - 1, d)
        if len(grid) == n_distinct:
            self._exactness = f"all {count:,} threshold vectors that differ on the tune split were evaluated exactly"
        else:
            self._exactness = (
                f"{count:,} threshold vectors on a grid of {len(grid)} of {n_distinct:,} distinct boundaries, "
                "spread evenly over the traffic, were evaluated exactly"
            )
        flat = itertools.chain.from_iterable(itertools.combinations_with_replacement(range(len(grid)), d))
        index = np.fromiter(flat, dtype=np.int64, count=count * d).reshape(count, d)
        return np.asarray(grid[index])

    def _grid_size(self, boundaries: str | int, n_distinct: int, d: int) -> int:
        if boundaries == "all":
            return n_distinct
        if boundaries == "auto":
            return min(n_distinct, largest_grid(self._auto_limit, d))
        return min(n_distinct, int(boundaries))


def largest_grid(limit: int, d: int) -> int:
    """Largest number of boundaries whose vectors stay within the limit; at least 2."""
    size = 2
    while math.comb(size + d, d) <= limit:
        size += 1
    return size


def even_positions(positions: IntArray, size: int) -> IntArray:
    """Indices of at most `size` boundaries, ends included, nearest to equal steps of traffic."""
    if size >= len(positions):
        return np.arange(len(positions))
    wanted = np.linspace(0, positions[-1], size)
    right = np.clip(np.searchsorted(positions, wanted), 1, len(positions) - 1)
    nearer_left = wanted - positions[right - 1] <= positions[right] - wanted
    return np.unique(np.concatenate([[0], right - nearer_left, [len(positions) - 1]]))
