"""`boute`: Bayesian optimisation of thresholds and deployments together, after [Boute2026]_.

A latency model over load fractions and deployment features with the paper's kernel (`boute_kernel`), constrained
expected hypervolume improvement, joint choices enumerated and structurally feasible ones alone (`boute_candidates`),
and the paper's stopping rule (`boute_stopping`). A suggestion depends on the evaluations so far and the seed alone, so
a resumed search repeats the uninterrupted one.

What the paper leaves open, and what is done here:

* **Initial design**: `2 (d + 1)` points of the scrambled Sobol sequence that all searchers share, decoded onto
  structurally feasible choices, without the single-tier corners; d coordinates of the cube.
* **Batch**: one point at a time (`q`); for more, earlier ones are pending.
* **Acquisition**: constrained EHVI in closed form where one point is asked for and outputs are independent, as here;
  `qlognehvi` is BoTorch's by 64 quasi-Monte Carlo samples, the criterion that the paper names. The probability of a
  floor or a ceiling comes from the objectives' own processes.
* **Reference point**: that of the published axes, fixed before the search, the same for all methods.
* **Encoding**: per tier the share of each GPU type, and logs of replicas, TP and PP (the problem's `features`);
  preference is the mean suitability of the GPUs in use, so that exp cannot overflow.
* **Kernel**: the three terms share lengthscales; beta has either sign, N(0, 1) within [-2, 2]; phi has a prior around
  0.05 and may grow to 10; other priors are BoTorch's, that of the noise too: evaluations are noise-free, but a kernel
  that misses a kink needs some, between 1e-4 and 0.1. Starts: default, draws and the last fit (`boute_fit`).
* **Quality** sees routing alone (`quality_kernel`), or is known and not modelled at all (`model=grey`).
* **Transforms**: log latency, and logit quality where it is modelled, then standardised; the acquisition's volume is on
  the same axes. `transforms=false` models natural values, standardised.
* **Mixed optimisation**: staged enumeration without gradients, on realised vectors.
* **Stopping**: what a solution is and when it has changed (`boute_stopping`).
* **Seeds**: one generator per suggestion, from the run's seed and the number of evaluations.

References:
    [Boute2026] Y. Jiang, F. Fu, E. Yoneki, BOute: Cost-Efficient LLM Serving with Heterogeneous LLMs and GPUs via
        Multi-Objective Bayesian Optimization, MLSys 2026, arXiv 2602.10729.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from toolkit.pareto.axes import Axes
from toolkit.problem import Evaluation, Problem, concatenate
from toolkit.search.boute_candidates import StructuredSearch
from toolkit.search.boute_fit import Fits
from toolkit.search.boute_space import FeatureView, structured
from toolkit.search.boute_stopping import SolutionWatch
from toolkit.search.design import Seen, initial_design, uniform_unseen, vector_key, whole_batches
from toolkit.search.mobo import ClosedForm
from toolkit.search.surrogate import Output, Outputs, Surrogate, make_outputs

_EFFORT_SAMPLED = 0.125  # sampling costs that much more per candidate


@dataclass(frozen=True, kw_only=True)
class BouteOptions:
    """How `boute` searches.

    Attributes:
        model: `grey` uses what the problem knows exactly or approximately, `gp` treats every column as a black box,
            `auto` is `grey` where the problem knows anything.
        acquisition: `closed`, `qlognehvi`, or `auto`: closed for one point at a time, else qlognehvi.
        fit: `map` (ours) or `botorch`, for comparison.
        transforms: Whether latency is modelled as a log and quality as a logit.
        preference: Whether the deployment term is weighted by preference; else beta is 0.
        interaction: Whether the kernel has the product term; else phi is 0.
        quality_kernel: What a quality that is modelled depends on: `routing` alone, or `joint` with deployments.
        q: Points per batch.
        n_initial: Size of the initial design, or None for the default.
        stop_on: The solution that must have settled: the `front`, or the `choice` of least latency.
        patience: Evaluations without a change of the solution that are borne; None spends the budget.
    """

    model: Literal["auto", "grey", "gp"] = "auto"
    acquisition: Literal["auto", "closed", "qlognehvi"] = "auto"
    fit: Literal["map", "botorch"] = "map"
    transforms: bool = True
    preference: bool = True
    interaction: bool = True
    quality_kernel: Literal["routing", "joint"] = "routing"
    q: int = 1
    n_initial: int | None = None
    stop_on: Literal["front", "choice"] = "front"
    patience: int | None = 20


class BouteController:
    """See the module.

    Args:
        problem: A problem with thresholds and deployments.
        axes: Axes and reference point.
        budget: Evaluations, the initial design included.
        options: How to search.
        design_rng: Source of the initial design.
        rng: Source of everything else.

    Raises:
        ConfigError: If the problem has no such structure, or options do not fit it.
    """

    name = "boute"

    def __init__(
        self,
        problem: Problem,
        *,
        axes: Axes,
        budget: int,
        options: BouteOptions,
        design_rng: np.random.Generator,
        rng: np.random.Generator,
    ) -> None:
        self._problem, self._budget, self._options = structured(problem), budget, options
        single = len(problem.objectives) == 1
        _check(budget, options, single=single)
        default = 2 * (problem.space.dim + 1)
        self._design = _design(problem, min(budget, options.n_initial or default), design_rng)
        self._root = int(rng.integers(2**62))
        self._grey = options.model == "grey" or (options.model == "auto" and bool(problem.exact_columns))
        self._closed = options.acquisition == "closed" or (options.acquisition == "auto" and (options.q == 1 or single))
        choices = self._problem.choices
        self._view = FeatureView(self._problem, choices, axes)
        self._outputs = _outputs(problem, axes, grey=self._grey, transforms=options.transforms)
        self._fits = self._make_fits()
        effort = 1.0 if self._closed else _EFFORT_SAMPLED
        self._search = StructuredSearch(self._problem, choices, effort=effort)
        self._watch = SolutionWatch(
            problem, axes, stop_on=options.stop_on, patience=options.patience, n_initial=len(self._design)
        )
        self._told: list[Evaluation] = []
        self._seen = Seen()
        self._asked = 0
        self._exhausted = False

    def _make_fits(self) -> Fits:
        o = self._options
        shares = {m.column for m in self._problem.metrics if m.of_quality}
        layouts = [
            self._view.space.layout(
                joint=output.axis.column not in shares or o.quality_kernel == "joint",
                preference=o.preference,
                interaction=o.interaction,
            )
            for output in (*self._outputs.objectives, *self._outputs.constraints)
        ]
        return Fits(layouts, root=self._root, by_botorch=o.fit == "botorch")

    @property
    def total(self) -> int:
        """The budget; patience may end the search before."""
        return self._budget

    @property
    def exactness(self) -> str:
        """A search: what was modelled, how it ended."""
        data = concatenate(self._told)
        known = [o.axis.column for o in (*self._outputs.objectives, *self._outputs.constraints) if o.known]
        said = f"a search of {len(data):,} evaluations"
        if known:
            said += f" (known exactly: {', '.join(known)})"
        if not data.feasible.any():
            said += "; it met no feasible point"
        if n_failed := int((~data.ok).sum()):
            said += f"; {n_failed} evaluations failed"
        return f"{said}; {self._ending()}: better ones may exist"

    def _ending(self) -> str:
        if self._watch.stopped:
            solution = "front" if self._options.stop_on == "front" else "choice of least latency"
            return f"stopped by patience: the {solution} was unchanged for {self._watch.unchanged} evaluations"
        if self._exhausted:
            return "the space holds no more distinct candidates"
        return "the budget ended it"

    def resume(self, known: Evaluation) -> int:
        """See `Resumable`."""
        whole = whole_batches(known, self._design, budget=self._budget, q=self._options.q)
        if whole:
            self.tell(known.take(np.arange(whole)))
            self._asked = whole
        return whole

    def ask(self) -> FloatArray | None:
        """The initial design, then batches of q, until the solution has settled."""
        if self._asked >= self._budget or self._exhausted or self._watch.stopped:
            return None
        wanted = min(self._options.q, self._budget - self._asked)
        batch = self._design if self._asked == 0 else self._suggest(wanted)
        self._asked += len(batch)
        return batch if len(batch) else None

    def tell(self, evaluation: Evaluation) -> None:
        """Remember the results."""
        self._told.append(evaluation)
        self._watch.tell(evaluation)
        for row in evaluation.params:
            self._seen.add(row)

    def _suggest(self, q: int) -> FloatArray:
        """`q x p` realised vectors that were not evaluated yet; fewer where the space is exhausted.

        Matrices are small: a second thread makes each product slower, not faster.
        """
        rng = np.random.default_rng(np.random.SeedSequence(self._root, spawn_key=(0, self._asked)))
        data = self._view.usable(concatenate(self._told))
        if len(data) < 2:
            batch = uniform_unseen(self._problem, self._seen, q, rng)
        else:
            with threadpool_limits(limits=1):
                batch = self._by_model(data, q, rng)
        self._exhausted = len(batch) < q
        return batch

    def _by_model(self, data: Evaluation, q: int, rng: np.random.Generator) -> FloatArray:
        surrogate = Surrogate(self._view, self._outputs, data, grey=self._grey, fit=self._fits.all())
        if self._closed:
            return self._one_by_one(surrogate, q, rng)
        from toolkit.search.monte_carlo import suggest_by_sampling

        return suggest_by_sampling(self._view, surrogate, self._seen, q, rng, self._search.propose)

    def _one_by_one(self, surrogate: Surrogate, q: int, rng: np.random.Generator) -> FloatArray:
        """Maximise the closed form; for q > 1 one after the other, pending points believed at their means."""
        batch: list[FloatArray] = []
        pending = Seen(self._seen)
        for _ in range(q):
            acquisition = ClosedForm(surrogate, smoothed=self._problem.noisy)
            row = self._search.propose(self._view, acquisition, acquisition.front_X, pending, rng)
            if row is None:
                break
            pending.add(row)
            batch.append(row)
            if len(batch) < q:
                surrogate = surrogate.believe(self._view.space.encode(row[None, :]), row[None, :])
        return np.array(batch).reshape(len(batch), len(self._problem.parameter_names))


def _check(budget: int, options: BouteOptions, *, single: bool) -> None:
    if budget < 1 or options.q < 1:
        raise ConfigError(f"budget and controller.q must be at least 1; got {budget} and {options.q}")
    if options.n_initial is not None and options.n_initial < 1:
        raise ConfigError(f"controller.n_initial must be at least 1, or null for the default; got {options.n_initial}")
    if single and options.acquisition == "qlognehvi":
        raise ConfigError("controller.acquisition=qlognehvi needs two or more objectives; use closed or auto")


def _design(problem: Problem, n: int, rng: np.random.Generator) -> FloatArray:
    """`<= n x p`: the shared design without its corners."""
    corners = problem.corners()
    known = {vector_key(row) for row in corners}
    shared = initial_design(problem, len(corners) + n, rng)
    return shared[[vector_key(row) not in known for row in shared]][:n]


def _outputs(problem: Problem, axes: Axes, *, grey: bool, transforms: bool) -> Outputs:
    """Outputs on the model's axes; the reference is the published one, whatever the transforms."""
    known = grey and "quality" in problem.exact_columns
    outputs = make_outputs(problem, axes, grey=grey, logit_quality=transforms and not known)
    if transforms:
        return outputs
    objectives, constraints = (tuple(_natural(o) for o in part) for part in (outputs.objectives, outputs.constraints))
    reference = [output.coordinate(np.array([axes.natural(j, -axes.margin)]))[0] for j, output in enumerate(objectives)]
    return Outputs(objectives=objectives, constraints=constraints, reference=np.array(reference))


def _natural(output: Output) -> Output:
    """The same on a natural axis."""
    natural = dataclasses.replace(output, axis=dataclasses.replace(output.axis, log=False))
    if not np.isfinite(output.threshold):
        return natural
    limit = Axes(axes=(output.axis,)).natural(0, output.threshold)
    return dataclasses.replace(natural, threshold=float(natural.coordinate(np.array([limit]))[0]))
