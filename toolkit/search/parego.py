"""`parego`: expected improvement of a random Chebyshev scalarisation, the noisy variant of ParEGO [Knowles2006]_.

With weights `w` drawn uniformly from the simplex for every candidate, and coordinates `y` of the axes rescaled to
[0, 1] on the data, all maximised, the scalar that is improved is

    g(y) = min_i w_i (y_i - 1) + 0.05 sum_i w_i (y_i - 1)

under the slacks as outcome constraints; BoTorch's `qLogNParEGO` after [Daulton2021]_.

References:
    [Daulton2021] Daulton, Balandat, Bakshy. Parallel Bayesian optimization of multiple noisy objectives with expected
        hypervolume improvement. NeurIPS 2021.
    [Knowles2006] Knowles. ParEGO: a hybrid algorithm with on-line landscape approximation for expensive multiobjective
        optimization problems. IEEE Transactions on Evolutionary Computation 10(1), 2006.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from simulators.outcomes import FloatArray
from toolkit.problem import Evaluation
from toolkit.search.random import finite_coordinates
from toolkit.search.torch_tools import AcquisitionSettings, BotorchController


class ParegoController(BotorchController):
    """ParEGO on the axes in which fronts are measured.

    Slacks enter divided by their root mean square: BoTorch smooths the edge of a constraint by a fixed width.
    """

    name = "parego"
    default_settings = AcquisitionSettings(mc_samples=64, num_restarts=4, raw_samples=64, maxiter=50, batch_limit=4)
    kind = "a ParEGO search"

    def _outcomes(self, data: Evaluation) -> FloatArray:
        size = np.sqrt((data.slack**2).mean(axis=0))
        slack = data.slack / np.where(size > 0, size, 1.0)
        return np.concatenate([finite_coordinates(self._axes, data.Y), slack], axis=1)

    def _acquisition(self, model: Any, X: Any, seed: int) -> Any:
        from botorch.acquisition.multi_objective.parego import qLogNParEGO

        return qLogNParEGO(model=model, X_baseline=X, **self._parts(seed))
