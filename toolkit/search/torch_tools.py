"""BoTorch behind the `ask` / `tell` of this project: polite to torch's global state, the same for every acquisition.

Notation: n evaluated candidates, d coordinates of the cube, m objectives, c constraints. Models see `X: n x d` and
`Z: n x (m + c)`, objectives first (maximised), then slacks.
"""

from __future__ import annotations

import contextlib
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulators.errors import ConfigError, MissingDependencyError
from simulators.outcomes import FloatArray
from toolkit.pareto.axes import Axes
from toolkit.problem import Evaluation, Problem, concatenate
from toolkit.search.design import uniform_unseen
from toolkit.search.random import BaselineController

_FEWEST_TO_FIT = 2


@dataclass(frozen=True, kw_only=True)
class AcquisitionSettings:
    """How hard an acquisition function is optimised.

    Attributes:
        mc_samples: Quasi-Monte Carlo samples of the posterior.
        num_restarts, raw_samples: Local searches, and the points their starts are chosen from.
        maxiter: Iterations of each local search.
        batch_limit: Local searches run at once.
    """

    mc_samples: int
    num_restarts: int
    raw_samples: int
    maxiter: int
    batch_limit: int


class BotorchController(BaselineController):
    """Bayesian optimisation with BoTorch, one candidate at a time.

    Every proposal is a function of the data so far and of a seed for that many evaluations, so that an interrupted run
    is resumed without proposing its past again. Failed evaluations are left out of the models, but never repeated.

    Args:
        axes: Scales of the objectives and the reference point.
        settings: Effort per proposal; None takes `default_settings`.

    Attributes:
        default_settings: Effort per proposal of this searcher.
        n_replaced: Proposals of this session that were replaced by a random point, because the vector was known
            already or the models could not be fitted.
    """

    default_settings: AcquisitionSettings

    def __init__(
        self,
        problem: Problem,
        *,
        budget: int,
        n_initial: int | None,
        design_rng: np.random.Generator,
        rng: np.random.Generator,
        axes: Axes,
        settings: AcquisitionSettings | None = None,
    ) -> None:
        super().__init__(problem, budget=budget, n_initial=n_initial, design_rng=design_rng, rng=rng)
        if len(problem.objectives) < 2:
            columns = [metric.column for metric in problem.objectives]
            raise ConfigError(f"controller={self.name} weighs two or more objectives; got {columns}")
        botorch_modules(f"controller={self.name}")
        self._axes, self._settings = axes, settings or self.default_settings
        self._entropy = int(rng.integers(2**63))
        self._data: list[Evaluation] = []
        self.n_replaced = 0

    @property
    def exactness(self) -> str:
        """What was replaced is told too."""
        said = super().exactness
        replaced = f"; {self.n_replaced} proposals were known vectors and gave way to random ones"
        return said + (replaced if self.n_replaced else "")

    def tell(self, evaluation: Evaluation) -> None:
        """Remember it; models are fitted when the next candidate is asked for."""
        self._data.append(evaluation)

    def resume(self, known: Evaluation) -> int:
        """See `Resumable`: all of it, if it begins with this controller's initial design."""
        n = len(self._design)
        if self._asked or len(known) < n or not np.array_equal(known.params[:n], self._design):
            return 0
        taken = known.take(np.arange(min(len(known), self._budget)))
        for row in taken.params:
            self._seen.add(row)
        self._data, self._asked = [taken], len(taken)
        return len(taken)

    def _propose(self, left: int) -> FloatArray:
        child = np.random.SeedSequence(entropy=self._entropy, spawn_key=(self._asked,))
        torch_seed, numpy_seed = (int(value) for value in child.generate_state(2))
        data = concatenate(self._data)
        x = self._suggest(data.take(np.flatnonzero(data.ok)), torch_seed)
        if x is not None and self._seen.new_rows(params := self._problem.space.decode(x)):
            return params
        self.n_replaced += 1
        return uniform_unseen(self._problem, self._seen, 1, np.random.default_rng(numpy_seed))

    def _suggest(self, data: Evaluation, seed: int) -> FloatArray | None:
        """`1 x d` maximiser of the acquisition function; None where the models cannot be fitted."""
        if len(data) < _FEWEST_TO_FIT:
            return None
        with isolated(seed):
            X, Z = tensor(self._problem.space.encode(data.params)), tensor(self._outcomes(data))
            try:
                acquisition = self._acquisition(fit_models(X, Z), X, seed)
                return maximise(acquisition, X.shape[-1], self._settings)
            except _numerical_failures():
                return None

    @abstractmethod
    def _outcomes(self, data: Evaluation) -> FloatArray:
        """`n x (m + c)` outcomes to model."""

    @abstractmethod
    def _acquisition(self, model: Any, X: Any, seed: int) -> Any:
        """Acquisition function of `1 x d` candidates, given the model and the evaluated points `X: n x d`."""

    def _parts(self, seed: int) -> dict[str, Any]:
        """What the acquisition functions share: sampler, choice of the objectives, constraints."""
        from botorch.acquisition.multi_objective.objective import IdentityMCMultiOutputObjective
        from botorch.sampling.normal import SobolQMCNormalSampler

        m, c = len(self._problem.objectives), len(self._problem.constraints)
        return {
            "sampler": SobolQMCNormalSampler(sample_shape=_shape(self._settings.mc_samples), seed=seed),
            "objective": IdentityMCMultiOutputObjective(outcomes=list(range(m))),
            "constraints": [_violation(m + j) for j in range(c)] or None,
            "prune_baseline": True,
        }


def tensor(values: FloatArray) -> Any:
    """A float64 copy of an array as a tensor on the CPU."""
    import torch

    return torch.tensor(np.ascontiguousarray(values), dtype=torch.float64)


@contextlib.contextmanager
def isolated(seed: int) -> Iterator[None]:
    """One thread, a seeded generator and no warnings inside; what was there before, afterwards.

    BoTorch draws from torch's global generator. The libraries warn of jitter and of retried fits, which they handle.
    """
    import torch

    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def fit_models(X: Any, Z: Any) -> Any:
    """Independent Gaussian processes with standardised targets, one per column of `Z: n x (m + c)`."""
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import ModelListGP, SingleTaskGP
    from botorch.models.transforms.outcome import Standardize
    from gpytorch.mlls import SumMarginalLogLikelihood

    columns = Z.split(1, dim=-1)
    model = ModelListGP(*[SingleTaskGP(X, z, outcome_transform=Standardize(m=1)) for z in columns])
    fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
    return model


def maximise(acquisition: Any, d: int, settings: AcquisitionSettings) -> FloatArray:
    """`1 x d` best point of the cube found by multi-start L-BFGS-B."""
    import torch
    from botorch.optim import optimize_acqf

    candidate, _ = optimize_acqf(
        acquisition,
        bounds=torch.stack([torch.zeros(d, dtype=torch.float64), torch.ones(d, dtype=torch.float64)]),
        q=1,
        num_restarts=settings.num_restarts,
        raw_samples=settings.raw_samples,
        options={"batch_limit": settings.batch_limit, "maxiter": settings.maxiter},
        sequential=True,
    )
    return np.asarray(candidate.detach().numpy(), dtype=np.float64).clip(0.0, 1.0)


def _violation(column: int) -> Callable[[Any], Any]:
    """BoTorch's sign: a constraint holds where the value is `<= 0`; the outcome is a slack, which holds at `>= 0`."""
    return lambda samples: -samples[..., column]


def _shape(n: int) -> Any:
    import torch

    return torch.Size([n])


def _numerical_failures() -> tuple[type[Exception], ...]:
    import torch
    from botorch.exceptions.errors import BotorchError, ModelFittingError
    from linear_operator.utils.errors import NanError, NotPSDError

    return ModelFittingError, BotorchError, NanError, NotPSDError, torch.linalg.LinAlgError


def botorch_modules(who: str) -> tuple[Any, Any, Any]:
    """torch, botorch and gpytorch.

    Raises:
        MissingDependencyError: If one is not installed; `who` needs it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import botorch
            import gpytorch
            import torch
    except ImportError as error:
        raise MissingDependencyError(f"{who} needs BoTorch ({error}); pip install 'routefront[search]'") from error
    return torch, botorch, gpytorch
