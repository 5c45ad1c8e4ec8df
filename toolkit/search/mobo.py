"""`mobo`: constrained multi-objective Bayesian optimisation.

After the shared initial design, each candidate maximises the log of the constrained expected improvement of the
hypervolume ([Ament2023]_, [Daulton2020]_), in closed form (`closed`: independent processes, one point at a time) or by
Monte Carlo over joint samples (`qlognehvi`, BoTorch: noise and pending points are integrated out). A suggestion depends
on the evaluations so far and the seed alone, so a resumed search repeats the uninterrupted one at no cost.

The acquisition's hypervolume lives on the published axes (log10 cost, quality, log10 latency, scaled by the single
tiers' range, reference a margin outside), unless `quality_axis=logit` asks for the logit of quality.

References:
    [Daulton2020] S. Daulton, M. Balandat, E. Bakshy, Differentiable Expected Hypervolume Improvement, NeurIPS 2020.
    [Daulton2021] S. Daulton, M. Balandat, E. Bakshy, Parallel Bayesian Optimization of Multiple Noisy Objectives with
        Expected Hypervolume Improvement, NeurIPS 2021.
    [Ament2023] S. Ament et al., Unexpected Improvements to Expected Improvement, NeurIPS 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from toolkit.pareto.axes import Axes
from toolkit.problem import Evaluation, Problem, concatenate
from toolkit.search.candidates import propose
from toolkit.search.design import Seen, default_initial, initial_design, uniform_unseen, whole_batches
from toolkit.search.ehvi import log_ehvi, log_ehvi_with_gradient, non_dominated_boxes
from toolkit.search.gaussian_process import GaussianProcess, fit_gp
from toolkit.search.surrogate import Surrogate, make_outputs


@dataclass(frozen=True, kw_only=True)
class MoboOptions:
    """How `mobo` searches.

    Attributes:
        model: `grey` uses what the problem knows exactly or approximately, `gp` treats every column as a black box,
            `auto` is `grey` where the problem knows anything.
        acquisition: `closed`, `qlognehvi`, or `auto`: closed for one point at a time, else qlognehvi.
        fit: `map` (ours) or `botorch`, for comparison.
        quality_axis: Axis of quality in the model: `linear` or `logit`.
        q: Points per batch.
        n_initial: Size of the initial design, or None for the default.
    """

    model: Literal["auto", "grey", "gp"] = "auto"
    acquisition: Literal["auto", "closed", "qlognehvi"] = "auto"
    fit: Literal["map", "botorch"] = "map"
    quality_axis: Literal["linear", "logit"] = "linear"
    q: int = 1
    n_initial: int | None = None


class MoboController:
    """See the module.

    Args:
        problem: The problem.
        axes: Axes and reference point.
        budget: Evaluations, the initial design included.
        options: How to search.
        design_rng: Source of the initial design.
        rng: Source of everything else.
    """

    name = "mobo"

    def __init__(
        self,
        problem: Problem,
        *,
        axes: Axes,
        budget: int,
        options: MoboOptions,
        design_rng: np.random.Generator,
        rng: np.random.Generator,
    ) -> None:
        if budget < 1 or options.q < 1:
            raise ConfigError(f"budget and controller.q must be at least 1; got {budget} and {options.q}")
        self._problem, self._axes, self._budget, self._options = problem, axes, budget, options
        n_initial = min(budget, options.n_initial or default_initial(problem))
        self._design = initial_design(problem, n_initial, design_rng)
        self._root = int(rng.integers(2**62))
        self._grey = options.model == "grey" or (options.model == "auto" and bool(problem.exact_columns))
        single = len(problem.objectives) == 1
        if single and options.acquisition == "qlognehvi":
            raise ConfigError("controller.acquisition=qlognehvi needs two or more objectives; use closed or auto")
        shares = {"quality", "worst_slice"} & {m.base for m in problem.objectives}
        if options.quality_axis == "logit" and not shares:
            raise ConfigError("controller.quality_axis=logit needs quality among the objectives; use linear")
        closed = options.acquisition == "closed" or (options.acquisition == "auto" and (options.q == 1 or single))
        self._acquisition: Literal["closed", "qlognehvi"] = "closed" if closed else "qlognehvi"
        self._outputs = make_outputs(problem, axes, grey=self._grey, logit_quality=options.quality_axis == "logit")
        self._told: list[Evaluation] = []
        self._seen = Seen()
        self._asked = 0
        self._exhausted = False

    @property
    def total(self) -> int:
        """The budget."""
        return self._budget

    @property
    def exactness(self) -> str:
        """A search: what was modelled, and what happened."""
        data = concatenate(self._told)
        known = [o.axis.column for o in (*self._outputs.objectives, *self._outputs.constraints) if o.known]
        said = f"a search of {len(data):,} evaluations"
        if self._grey and known:
            said += f" (known exactly: {', '.join(known)})"
        feasible = np.flatnonzero(data.feasible)
        if len(feasible) == 0:
            said += "; it met no feasible point"
        elif feasible[0] > 0 and self._problem.constraints:
            said += f"; the first feasible point was evaluation {feasible[0] + 1}"
        if n_failed := int((~data.ok).sum()):
            said += f"; {n_failed} evaluations failed and were left out of the model"
        if self._exhausted:
            said += "; the space holds no more distinct policies"
        return said + ": better ones may exist"

    def resume(self, known: Evaluation) -> int:
        """See `Resumable`."""
        whole = whole_batches(known, self._design, budget=self._budget, q=self._options.q)
        if whole:
            self.tell(known.take(np.arange(whole)))
            self._asked = whole
        return whole

    def ask(self) -> FloatArray | None:
        """The initial design, then batches of q."""
        if self._asked >= self._budget or self._exhausted:
            return None
        wanted = min(self._options.q, self._budget - self._asked)
        batch = self._design if self._asked == 0 else self._suggest(wanted)
        self._asked += len(batch)
        return batch if len(batch) else None

    def tell(self, evaluation: Evaluation) -> None:
        """Remember the results."""
        self._told.append(evaluation)
        for row in evaluation.params:
            self._seen.add(row)

    def _suggest(self, q: int) -> FloatArray:
        """`q x p` realised vectors that were not evaluated yet; fewer where the space is exhausted."""
        with threadpool_limits(limits=1):
            return self._suggest_on_one_thread(q)

    def _suggest_on_one_thread(self, q: int) -> FloatArray:
        """Matrices of a few hundred rows: a second thread makes each product slower, not faster."""
        rng = np.random.default_rng(np.random.SeedSequence(self._root, spawn_key=(self._asked,)))
        everything = concatenate(self._told)
        data = everything.take(np.flatnonzero(everything.ok))
        batch = np.empty((0, len(self._problem.parameter_names)))
        if len(data) < 2:
            batch = uniform_unseen(self._problem, self._seen, q, rng)
        elif self._acquisition == "closed":
            batch = self._closed(data, q, rng)
        else:
            from toolkit.search.monte_carlo import suggest_by_sampling

            surrogate = self._surrogate(data, rng)
            batch = suggest_by_sampling(self._problem, surrogate, self._seen, q, rng)
        self._exhausted = len(batch) < q
        return batch

    def _surrogate(self, data: Evaluation, rng: np.random.Generator) -> Surrogate:
        def fit(X: FloatArray, y: FloatArray) -> GaussianProcess:
            if self._options.fit == "botorch":
                from toolkit.search.monte_carlo import fit_by_botorch

                return fit_by_botorch(X, y)
            return fit_gp(X, y, rng=rng)

        return Surrogate(self._problem, self._outputs, data, grey=self._grey, fit=fit)

    def _closed(self, data: Evaluation, q: int, rng: np.random.Generator) -> FloatArray:
        """Maximise the closed form; for q > 1 one after the other, pending points believed at their means."""
        surrogate = self._surrogate(data, rng)
        batch: list[FloatArray] = []
        pending = Seen(self._seen)
        for _ in range(q):
            acquisition = ClosedForm(surrogate, smoothed=self._problem.noisy)
            row = propose(self._problem, acquisition, acquisition.front_X, pending, rng)
            if row is None:
                break
            pending.add(row)
            batch.append(row)
            if len(batch) < q:
                surrogate = surrogate.believe(self._problem.space.encode(row[None, :]), row[None, :])
        return np.array(batch).reshape(len(batch), len(self._problem.parameter_names))


class ClosedForm:
    """The log of the constrained expected hypervolume improvement over what was evaluated.

    Args:
        surrogate: Beliefs.
        smoothed: Whether the front to improve on is what the model believes (noise) or what was observed.
    """

    def __init__(self, surrogate: Surrogate, *, smoothed: bool) -> None:
        self._surrogate = surrogate
        self._boxes = non_dominated_boxes(surrogate.front(smoothed=smoothed), surrogate.outputs.reference)
        self.front_X = surrogate.best_X(smoothed=smoothed)

    @property
    def differentiable(self) -> bool:
        """Whether `value_and_gradient` works."""
        return self._surrogate.differentiable

    def value(self, X: FloatArray, params: FloatArray) -> FloatArray:
        """`r` values at `X: r x d`, which realise `params: r x p`."""
        b = self._surrogate.predict(X, params)
        return log_ehvi(b.mean, b.sd, self._boxes, self._surrogate.outputs.floor, b.slack_mean, b.slack_sd)

    def value_and_gradient(self, X: FloatArray) -> tuple[FloatArray, FloatArray]:
        """`r` values and `r x d` gradients at `X: r x d`."""
        b, d_mean, d_sd = self._surrogate.predict_with_gradient(X)
        floor = self._surrogate.outputs.floor
        value, *parts = log_ehvi_with_gradient(b.mean, b.sd, self._boxes, floor, b.slack_mean, b.slack_sd)
        by_mean = np.concatenate([parts[0], parts[2]], axis=1)
        by_sd = np.concatenate([parts[1], parts[3]], axis=1)
        return value, np.einsum("ri,rid->rd", by_mean, d_mean) + np.einsum("ri,rid->rd", by_sd, d_sd)
