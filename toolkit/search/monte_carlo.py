"""BoTorch's side of `mobo`: qLogNEHVI over joint samples, and BoTorch's own fit for comparison.

Known outputs enter the model list as deterministic models, approximations as mean functions of their process. Signs:
BoTorch's outcome constraints are feasible where they are negative; ours where slack >= 0. Converted here.

References:
    [Daulton2021] S. Daulton, M. Balandat, E. Bakshy, Parallel Bayesian Optimization of Multiple Noisy Objectives with
        Expected Hypervolume Improvement, NeurIPS 2021.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from simulators.outcomes import FloatArray
from toolkit.problem import Problem
from toolkit.search.boute_process import StructuredProcess
from toolkit.search.candidates import Acquisition, propose
from toolkit.search.design import Seen
from toolkit.search.gaussian_process import GaussianProcess
from toolkit.search.surrogate import Surrogate
from toolkit.search.torch_tools import botorch_modules, isolated

_SAMPLES = 64
_CHUNK = 32


Proposer = Callable[[Problem, Acquisition, FloatArray, Seen, np.random.Generator], FloatArray | None]


def suggest_by_sampling(
    problem: Problem,
    surrogate: Surrogate,
    seen: Seen,
    q: int,
    rng: np.random.Generator,
    proposer: Proposer = propose,
) -> FloatArray:
    """`<= q x p` realised vectors, chosen one after the other with the earlier ones pending.

    Args:
        problem: The problem.
        surrogate: Fitted beliefs.
        seen: Vectors not to be proposed.
        q: Batch size.
        rng: Source of samples and candidates.
        proposer: Maximises the acquisition.
    """
    torch, _, _ = botorch_modules("controller=mobo with these options")
    batch: list[FloatArray] = []
    pending, seed = Seen(seen), int(rng.integers(2**31))
    with isolated(seed):
        acquisition = _Sampled(problem, surrogate, seed)
        for _ in range(q):
            row = proposer(problem, acquisition, acquisition.front_X, pending, rng)
            if row is None:
                break
            pending.add(row)
            batch.append(row)
            acquisition.function.set_X_pending(torch.from_numpy(problem.space.encode(np.array(batch))))
    return np.array(batch).reshape(len(batch), len(problem.parameter_names))


class _Sampled:
    """qLogNEHVI on a list of models, scored without gradients."""

    differentiable = False

    def __init__(self, problem: Problem, surrogate: Surrogate, seed: int) -> None:
        torch, _, _ = botorch_modules("controller=mobo with these options")
        from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
        from botorch.acquisition.multi_objective.objective import IdentityMCMultiOutputObjective
        from botorch.models import ModelList, ModelListGP
        from botorch.sampling.get_sampler import get_sampler

        outputs = surrogate.outputs
        m, thresholds = len(outputs.objectives), outputs.thresholds
        models = [_model(problem, surrogate, i) for i in range(len(thresholds))]
        model = ModelList(*models) if None in surrogate.processes else ModelListGP(*models)
        baseline = torch.from_numpy(surrogate.X)
        bounded = [i for i, t in enumerate(thresholds) if np.isfinite(t)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.function = qLogNoisyExpectedHypervolumeImprovement(
                model=model,
                ref_point=outputs.reference.tolist(),
                X_baseline=baseline,
                sampler=get_sampler(model.posterior(baseline), torch.Size([_SAMPLES]), seed=seed),
                objective=IdentityMCMultiOutputObjective(outcomes=list(range(m))),
                constraints=[_breach(i, float(thresholds[i])) for i in bounded] or None,
                prune_baseline=True,
                cache_root=False,
            )
        self._torch = torch
        self.front_X = surrogate.best_X(smoothed=True)

    def value(self, X: FloatArray, params: FloatArray) -> FloatArray:
        """`r` values at `X: r x d`."""
        torch, parts = self._torch, []
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for start in range(0, len(X), _CHUNK):
                parts.append(self.function(torch.from_numpy(X[start : start + _CHUNK, None, :])).numpy())
        return np.concatenate(parts)

    def value_and_gradient(self, X: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Not offered: known outputs have no gradient."""
        raise NotImplementedError


def _breach(i: int, threshold: float) -> Callable[[Any], Any]:
    """BoTorch's sign: negative is feasible."""
    return lambda samples: threshold - samples[..., i]


def _model(problem: Problem, surrogate: Surrogate, i: int) -> Any:
    """Output i as a BoTorch model in coordinates: deterministic, or a process at our hyper-parameters."""
    torch, _, _ = botorch_modules("controller=mobo with these options")
    process = surrogate.processes[i]
    if process is None:
        from botorch.models.deterministic import GenericDeterministicModel

        return GenericDeterministicModel(lambda X: _prior(problem, surrogate, i, X).unsqueeze(-1), num_outputs=1)
    y = torch.from_numpy(surrogate.observed[:, [i]].copy())

    def prior(X: Any) -> Any:
        return _prior(problem, surrogate, i, X)

    if isinstance(process, StructuredProcess):
        from toolkit.search.boute_botorch import structured_task

        return structured_task(process, y, prior)
    assert isinstance(process, GaussianProcess)
    return _single_task(process, y, prior)


def _prior(problem: Problem, surrogate: Surrogate, i: int, X: Any) -> Any:
    """Known or approximate coordinates of output i at a tensor `... x d`."""
    torch, _, _ = botorch_modules("controller=mobo with these options")
    flat = X.detach().reshape(-1, X.shape[-1]).numpy()
    unique, index = np.unique(flat, axis=0, return_inverse=True)
    found = surrogate.prior(problem.space.decode(unique))[index.ravel(), i]
    return torch.from_numpy(found).reshape(X.shape[:-1])


def _single_task(process: GaussianProcess, y: Any, prior: Callable[[Any], Any]) -> Any:
    """A SingleTaskGP in coordinates that equals our process plus its prior mean."""
    torch, _, gpytorch = botorch_modules("controller=mobo with these options")
    from botorch.models import SingleTaskGP

    offset = process.y_mean + process.y_scale * process.constant

    class PriorMean(gpytorch.means.Mean):  # type: ignore[misc, name-defined]
        def forward(self, X: Any) -> Any:
            return prior(X) + offset

    kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel(ard_num_dims=process.X.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SingleTaskGP(
            torch.from_numpy(process.X.copy()), y, mean_module=PriorMean(), covar_module=kernel, outcome_transform=None
        )
    kernel.outputscale = process.y_scale**2
    kernel.base_kernel.lengthscale = torch.from_numpy(process.lengthscales.copy())
    noise = max(process.noise * process.y_scale**2, 1e-10)
    model.likelihood.noise_covar.register_constraint("raw_noise", gpytorch.constraints.GreaterThan(1e-12))
    model.likelihood.noise = noise
    model.double()
    return model.eval()


def fit_by_botorch(X: FloatArray, y: FloatArray) -> GaussianProcess:
    """The MAP fit of BoTorch's default SingleTaskGP, as one of our processes.

    Args:
        X: `n x d` in the unit cube.
        y: `n` targets.
    """
    torch, botorch, gpytorch = botorch_modules("controller=mobo with these options")
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Standardize

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SingleTaskGP(torch.from_numpy(X), torch.from_numpy(y[:, None]), outcome_transform=Standardize(m=1))
        mll = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
        with isolated(0):
            botorch.fit.fit_gpytorch_mll(mll)
        model.train()
        with torch.no_grad():
            objective = float(mll(model(*model.train_inputs), model.train_targets))
    return GaussianProcess(
        X=X,
        y=y,
        y_mean=float(model.outcome_transform.means),
        y_scale=float(model.outcome_transform.stdvs),
        lengthscales=model.covar_module.lengthscale.detach().numpy().ravel().copy(),
        noise=float(model.likelihood.noise.detach()),
        constant=float(model.mean_module.constant.detach()),
        objective=objective,
    )
