"""Families: what is searched, and what policy a found parameter vector stands for.

A *policy* is what a router runs: thresholds or a utility, on a score, behind lanes. A *family* is a set of policies
with named parameters that a search may vary together: boundaries alone, boundaries and the confidence floor, LiteLLM's
weights with its boundaries. It is bound to the scores of one table of queries.

Notation: n candidates with p parameters each, N queries, K tiers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simulators.outcomes import FloatArray, OutcomeTable, QueryBatch
from toolkit.dimensions import Dimension
from toolkit.evaluation.estimators import AssignmentEstimator, Estimator
from toolkit.evaluation.slices import Coverage
from toolkit.evaluation.thresholds import ScoreOrder
from toolkit.policies.lanes import Lanes
from toolkit.scorers.base import ScoreTable
from toolkit.spaces import SearchSpace


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The policy that one candidate stands for.

    Attributes:
        policy: `thresholds` or `utility`.
        values: Parameters of that policy, by name.
        lanes: Lanes to run it behind.
        scorer: Settings of the scorer that the search changed, or empty.
        slice_thresholds: Slice -> thresholds that replace the common ones there, or empty.
    """

    policy: str
    values: dict[str, float]
    lanes: Lanes
    scorer: dict[str, object] = field(default_factory=dict)
    slice_thresholds: dict[str, list[float]] = field(default_factory=dict)


class Family(ABC):
    """A set of policies on one table of queries.

    Attributes:
        kind: Name in `conf/space/`.
        parameter_names: Names of the p parameters.
        n_tiers: K.
        scores: Scores of the N queries.
        lanes: Lanes of every candidate, unless the family varies them.
    """

    kind: str
    parameter_names: tuple[str, ...]
    n_tiers: int
    scores: ScoreTable
    lanes: Lanes

    @property
    @abstractmethod
    def space(self) -> SearchSpace:
        """The unit cube that searchers see."""

    @abstractmethod
    def assign(self, params: FloatArray) -> NDArray[np.int8]:
        """`n x N` tier of every query under every candidate (`params: n x p`)."""

    @abstractmethod
    def corners(self) -> FloatArray:
        """`<= K x p` candidates that send all traffic to one tier, as far as the family can."""

    @abstractmethod
    def transfer(self, scores: ScoreTable, queries: QueryBatch) -> Family:
        """The same family on other queries; parameters keep their meaning, coordinates of the cube do not."""

    @abstractmethod
    def deploy(self, params: FloatArray) -> Deployment:
        """The policy of one candidate (`params: p`)."""

    @abstractmethod
    def sweep(self, params: FloatArray, i: int, steps: int) -> FloatArray:
        """`n x p`: one candidate (`params: p`) with parameter i moved by up to `steps` steps either way.

        Distinct, ascending in parameter i, the candidate itself among them; alone where the parameter has no order.
        """

    def estimate(self, table: OutcomeTable, coverage: Coverage, params: FloatArray) -> Estimator:
        """Exact figures of the candidates on the family's own table, by looking answers up unless overridden."""
        return AssignmentEstimator(table, coverage, self.assign(params))


def boundary_sweep(order: ScoreOrder, params: FloatArray, i: int, steps: int, *, first: int, last: int) -> FloatArray:
    """Steps of 1 % of the traffic for boundary i, between its neighbours; where scores tie, the next boundary out.

    Args:
        order: Scores that the boundary cuts.
        params: `p` parameters.
        i: Which one.
        steps: Steps either way.
        first, last: Parameters `first ... last - 1` are the boundaries that never decrease.
    """
    position = order.position(params[[i]])[0]
    wanted = position + np.arange(-steps, steps + 1) * max(1.0, 0.01 * len(order.order))
    outward = np.where(
        wanted < position,
        np.searchsorted(order.positions, wanted, side="right") - 1,
        np.searchsorted(order.positions, wanted, side="left"),
    )
    values = order.boundaries[np.clip(outward, 0, len(order.positions) - 1)]
    low = params[i - 1] if i > first else -np.inf
    high = params[i + 1] if i + 1 < last else np.inf
    values = values[(values >= low) & (values <= high)]
    same = order.position(values) == position
    return moved(params, i, np.append(values[~same], params[i]))


def dimension_sweep(dimension: Dimension, params: FloatArray, i: int, steps: int) -> FloatArray:
    """Steps of 1 % of a dimension's range, within its bounds; none for a categorical one."""
    if dimension.kind == "categorical":
        return params[None, :].copy()
    away = np.delete(np.arange(-steps, steps + 1), steps)  # the point itself is kept as it is
    x = float(np.clip(dimension.encode(params[[i]])[0], 0.0, 1.0)) + 0.01 * away
    inside = x[(x >= 0.0) & (x <= 1.0)] if dimension.high > dimension.low else np.empty(0)
    return moved(params, i, np.append(dimension.decode(np.asarray(inside, dtype=np.float64)), params[i]))


def moved(params: FloatArray, i: int, values: FloatArray) -> FloatArray:
    """`n x p`: the candidate with each of the values, distinct and ascending, for parameter i."""
    values = np.unique(values)
    found = np.tile(params, (len(values), 1))
    found[:, i] = values
    return found
