"""A problem with a known truth and noisy answers, for judging searchers: three objectives, one constraint.

The shape is DTLZ2's ([Deb2005]_): the front is an octant of a sphere that all d coordinates must find, and the last
d - 2 of them only push points away from it,

    g = Σ_{j>=3} (x_j - 1/2)²,   f_1 = (1 + g) cos(πx_1/2) cos(πx_2/2),   f_2 = (1 + g) cos(πx_1/2) sin(πx_2/2),
    f_3 = (1 + g) sin(πx_1/2),

on the scales of a router: cost `10^(-4 + 2 f_1)` USD, quality `0.95 - 0.35 f_2`, p95 latency `10^(1.2 f_3)` s. Cost is
exact, as it is wherever prices are known; quality and latency are observed with noise. With `side_constraints` two
more columns are bounded, a worst slice that dips in the middle of the front and a p99 latency: part of it is cut out.

References:
    [Deb2005] K. Deb, L. Thiele, M. Laumanns, E. Zitzler, Scalable Test Problems for Evolutionary Multiobjective
        Optimization, 2005.
"""

from __future__ import annotations

import numpy as np

from simulators.outcomes import FloatArray
from simulators.seeds import spawn_rng
from toolkit.dimensions import BoxSpace, Dimension
from toolkit.evaluation.constraints import Constraint
from toolkit.evaluation.metrics import Metric
from toolkit.problem import Evaluation, make_evaluation

_HALF_PI = np.pi / 2


class SyntheticProblem:
    """See the module.

    Args:
        dim: d, at least 3.
        quality_sd: Standard deviation of the noise on quality.
        latency_log_sd: Standard deviation of the noise on the natural log of latency.
        quality_floor: Smallest quality allowed.
        side_constraints: Whether worst slice and p99 are bounded too.
        seed: Of the noise; an evaluation's noise depends on it and on the parameters alone, so a replay repeats it.
    """

    exact_columns = frozenset({"cost_usd"})

    def __init__(
        self,
        *,
        dim: int,
        quality_sd: float,
        latency_log_sd: float,
        quality_floor: float,
        seed: int,
        side_constraints: bool = False,
    ) -> None:
        self.space = BoxSpace([Dimension(name=f"x_{j + 1}") for j in range(dim)])
        self.parameter_names = tuple(d.name for d in self.space.dimensions)
        self.objectives = (Metric("cost"), Metric("quality"), Metric("latency_p95"))
        self.constraints: tuple[Constraint, ...] = (
            Constraint(name="quality_floor", metric=Metric("quality"), limit=quality_floor),
        )
        if side_constraints:
            self.constraints = (
                Constraint(name="slice_floor", metric=Metric("worst_slice"), limit=0.5),
                Constraint(name="p99_ceiling_s", metric=Metric("latency_p99"), limit=30.0),
            )
        bounded = (c.metric for c in self.constraints)
        self.metrics = tuple(dict.fromkeys((*self.objectives, *bounded)))
        self.noisy = quality_sd > 0 or latency_log_sd > 0
        self._sd = (quality_sd, latency_log_sd)
        self._seed = seed

    def truth(self, params: FloatArray) -> Evaluation:
        """The same without noise."""
        return self._evaluation(params, np.zeros((len(params), 2)))

    def evaluate_params(self, params: FloatArray) -> Evaluation:
        """See `Problem`."""
        draws = [spawn_rng(self._seed, "noise", row.tobytes().hex()).standard_normal(2) for row in params]
        return self._evaluation(params, np.array(draws).reshape(len(params), 2) * self._sd)

    def _evaluation(self, params: FloatArray, noise: FloatArray) -> Evaluation:
        g = ((params[:, 2:] - 0.5) ** 2).sum(axis=1)
        a, b = _HALF_PI * params[:, 0], _HALF_PI * params[:, 1]
        columns = {
            "cost_usd": 10.0 ** (-4.0 + 2.0 * (1.0 + g) * np.cos(a) * np.cos(b)),
            "quality": np.clip(0.95 - 0.35 * (1.0 + g) * np.cos(a) * np.sin(b) + noise[:, 0], 0.0, 1.0),
            "latency_p95_s": 10.0 ** (1.2 * (1.0 + g) * np.sin(a)) * np.exp(noise[:, 1]),
        }
        dip = 0.15 * np.sin(np.pi * params[:, 0]) ** 8
        columns["worst_slice_quality"] = columns["quality"] - 0.05 - dip
        columns["latency_p99_s"] = columns["latency_p95_s"] * 10.0 ** (0.2 + 0.2 * g)
        columns = {m.column: columns[m.column] for m in self.metrics}
        return make_evaluation(self, params, columns, np.ones((len(params), 1)))

    def exact(self, params: FloatArray) -> dict[str, FloatArray]:
        """The cost."""
        return {"cost_usd": self.truth(params).columns["cost_usd"]}

    def approximate(self, params: FloatArray) -> dict[str, FloatArray]:
        """Nothing is known of the rest."""
        return {}

    def corners(self) -> FloatArray:
        """The three ends of the front."""
        ends = np.full((3, self.space.dim), 0.5)
        ends[:, :2] = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
        return ends
