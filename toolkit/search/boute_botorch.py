"""BoTorch's side of `boute`: the same kernel in GPyTorch, BoTorch's fit of it, and our processes as its models.

Notation as in `boute_kernel`: one k_tau and one k_c, which the three terms share, each term in its `ScaleKernel`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from simulators.outcomes import FloatArray
from toolkit.search.boute_kernel import (
    BETA_BOUNDS,
    LENGTHSCALE_BOUNDS,
    LENGTHSCALE_LOC,
    LENGTHSCALE_SCALE,
    NOISE_BOUNDS,
    NOISE_LOC,
    PHI_BOUNDS,
    PHI_LOC,
    SCALE_BOUNDS,
    SCALE_LOC,
    SPREAD,
    Hyper,
    Layout,
    MapObjective,
    hyper_of,
    theta_of,
)
from toolkit.search.boute_process import StructuredProcess
from toolkit.search.gaussian_process import checked_data, standardisation
from toolkit.search.torch_tools import botorch_modules, isolated

_WHO = "controller=boute with these options"


@dataclass(frozen=True, eq=False)
class TorchKernel:
    """The kernel as a GPyTorch module, and its parts; None for what is off.

    Attributes:
        module: The whole.
        k_tau, k_c: The Matern kernels.
        scales: Scale kernels of a_tau, a_c and phi.
        weighted: The preference-weighted kernel.
    """

    module: Any
    k_tau: Any
    k_c: Any
    scales: tuple[Any, Any, Any]
    weighted: Any

    def load(self, hyper: Hyper) -> None:
        """Take our hyper-parameters."""
        torch, _, _ = botorch_modules(_WHO)
        self.k_tau.lengthscale = torch.from_numpy(hyper.l_tau.copy())
        if self.k_c is not None:
            self.k_c.lengthscale = torch.from_numpy(hyper.l_c.copy())
        for scale, value in zip(self.scales, (hyper.a_tau, hyper.a_c, hyper.phi), strict=True):
            if scale is not None:
                scale.outputscale = value
        if self.weighted is not None:
            self.weighted.initialize(beta=torch.tensor(hyper.beta, dtype=torch.float64))

    def read(self, noise: float) -> Hyper:
        """Our record of its hyper-parameters."""
        values = [0.0 if scale is None else float(scale.outputscale.detach()) for scale in self.scales]
        empty = self.k_tau.lengthscale.detach().numpy().ravel()[:0]
        return Hyper(
            l_tau=self.k_tau.lengthscale.detach().numpy().ravel().copy(),
            l_c=empty if self.k_c is None else self.k_c.lengthscale.detach().numpy().ravel().copy(),
            a_tau=values[0],
            a_c=values[1],
            phi=values[2],
            beta=0.0 if self.weighted is None else float(self.weighted.beta.detach()),
            noise=noise,
        )


def torch_kernel(layout: Layout) -> TorchKernel:
    """The kernel of a layout, with its priors and bounds.

    Args:
        layout: Columns and terms.
    """
    _, _, gpytorch = botorch_modules(_WHO)
    R, end = layout.n_routing, layout.n_routing + layout.n_deployment
    k_tau = _matern(2.5, tuple(range(R)))
    scaled_tau = _scaled(k_tau, SCALE_LOC, SCALE_BOUNDS)
    if not layout.joint:
        return TorchKernel(scaled_tau, k_tau, None, (scaled_tau, None, None), None)
    k_c = _matern(1.5, tuple(range(R, end)))
    own = _preference_weighted(k_c, end) if layout.preference else k_c
    scaled_c = _scaled(own, SCALE_LOC, SCALE_BOUNDS)
    module, product = scaled_tau + scaled_c, None
    if layout.interaction:
        product = _scaled(gpytorch.kernels.ProductKernel(k_tau, k_c), PHI_LOC, PHI_BOUNDS)
        module = module + product
    found = TorchKernel(module, k_tau, k_c, (scaled_tau, scaled_c, product), own if layout.preference else None)
    found.module.double()
    return found


def _matern(nu: float, dims: tuple[int, ...]) -> Any:
    _, _, gpytorch = botorch_modules(_WHO)
    prior = gpytorch.priors.LogNormalPrior(LENGTHSCALE_LOC + 0.5 * math.log(len(dims)), LENGTHSCALE_SCALE)
    return gpytorch.kernels.MaternKernel(
        nu=nu,
        ard_num_dims=len(dims),
        active_dims=dims,
        lengthscale_prior=prior,
        lengthscale_constraint=_bounded(LENGTHSCALE_BOUNDS, prior.mode),
    ).double()


def _scaled(base: Any, loc: float, bounds: tuple[float, float]) -> Any:
    _, _, gpytorch = botorch_modules(_WHO)
    kernel = gpytorch.kernels.ScaleKernel(
        base,
        outputscale_prior=gpytorch.priors.LogNormalPrior(loc, SPREAD),
        outputscale_constraint=_bounded(bounds, math.exp(loc)),
    )
    return kernel.double()


def _bounded(bounds: tuple[float, float], start: Any) -> Any:
    """Bounds for the optimiser alone, without a transform: priors are on the values."""
    from botorch.utils.constraints import NonTransformedInterval

    return NonTransformedInterval(*bounds, initial_value=start)


def _preference_weighted(base: Any, column: int) -> Any:
    """`w(c) w(c') base(c, c')` with `w = exp(beta x[column])`."""
    torch, _, gpytorch = botorch_modules(_WHO)
    from botorch.utils.constraints import NonTransformedInterval
    from linear_operator import to_dense

    class PreferenceWeightedKernel(gpytorch.kernels.Kernel):  # type: ignore[misc, name-defined]
        has_lengthscale = False

        def __init__(self) -> None:
            super().__init__()
            self.base = base
            self.register_parameter("beta", torch.nn.Parameter(torch.zeros((), dtype=torch.float64)))
            self.register_constraint("beta", NonTransformedInterval(*BETA_BOUNDS, initial_value=0.0))
            self.register_prior("beta_prior", gpytorch.priors.NormalPrior(0.0, 1.0), lambda kernel: kernel.beta)

        def forward(self, x1: Any, x2: Any, diag: bool = False, **params: Any) -> Any:
            left, right = (torch.exp(self.beta * x[..., column]) for x in (x1, x2))
            found = self.base(x1, x2, diag=diag, **params)
            if diag:
                return left * right * found
            return left.unsqueeze(-1) * right.unsqueeze(-2) * to_dense(found)

    return PreferenceWeightedKernel()


def fit_by_botorch(layout: Layout, X: FloatArray, y: FloatArray) -> StructuredProcess:
    """BoTorch's MAP fit of the same model, as one of our processes.

    Args:
        layout: Columns and terms of the kernel.
        X: `n x (R + D + 1 ...)` inputs; features in [0, 1].
        y: `n` targets.
    """
    torch, botorch, gpytorch = botorch_modules(_WHO)
    from botorch.models import SingleTaskGP

    X, y = checked_data(X, y)
    y_mean, y_scale = standardisation(y)
    z = (y - y_mean) / y_scale
    kernel = torch_kernel(layout)
    likelihood = gpytorch.likelihoods.GaussianLikelihood(
        noise_prior=gpytorch.priors.LogNormalPrior(NOISE_LOC, SPREAD),
        noise_constraint=_bounded(NOISE_BOUNDS, math.exp(NOISE_LOC)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SingleTaskGP(
            torch.from_numpy(X),
            torch.from_numpy(z[:, None]),
            likelihood=likelihood,
            covar_module=kernel.module,
            outcome_transform=None,
        ).double()
        target = MapObjective(layout, X, z)
        kernel.load(hyper_of(layout, target.default()))
        mll = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
        with isolated(0):
            botorch.fit.fit_gpytorch_mll(mll)
    hyper = kernel.read(float(likelihood.noise.detach()))
    theta = theta_of(layout, hyper)
    return StructuredProcess(
        layout=layout,
        X=X,
        y=y,
        y_mean=y_mean,
        y_scale=y_scale,
        hyper=hyper,
        constant=float(model.mean_module.constant.detach()),
        objective=-target.value(theta),
        theta=theta,
    )


def structured_task(process: StructuredProcess, y: Any, prior: Callable[[Any], Any]) -> Any:
    """A SingleTaskGP in coordinates that equals our process plus its prior mean.

    Args:
        process: Ours.
        y: `n x 1` targets, the prior mean included.
        prior: Prior mean at `... x d` inputs.
    """
    torch, _, gpytorch = botorch_modules(_WHO)
    from botorch.models import SingleTaskGP

    offset = process.y_mean + process.y_scale * process.constant

    class PriorMean(gpytorch.means.Mean):  # type: ignore[misc, name-defined]
        def forward(self, X: Any) -> Any:
            return prior(X) + offset

    kernel = torch_kernel(process.layout)
    kernel.load(process.hyper)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SingleTaskGP(
            torch.from_numpy(process.X.copy()),
            y,
            mean_module=PriorMean(),
            covar_module=gpytorch.kernels.ScaleKernel(kernel.module),
            outcome_transform=None,
        )
    model.covar_module.outputscale = process.y_scale**2
    model.likelihood.noise_covar.register_constraint("raw_noise", gpytorch.constraints.GreaterThan(1e-12))
    model.likelihood.noise = max(process.hyper.noise * process.y_scale**2, 1e-10)
    model.double()
    return model.eval()
