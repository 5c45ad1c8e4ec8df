"""`tutorial`: the loop of BoTorch's tutorial on constrained multi-objective optimisation, in the user's own units.

What a user gets who copies "Constrained, Parallel, Multi-Objective BO in BoTorch with qNEHVI, and qParEGO" and fills in
objectives as they are: cost as a negative amount of money instead of its logarithm, slacks unscaled. The acquisition
function is the logarithm of the noisy expected hypervolume improvement [Daulton2021]_, one candidate at a time.

References:
    [Daulton2021] Daulton, Balandat, Bakshy. Parallel Bayesian optimization of multiple noisy objectives with expected
        hypervolume improvement. NeurIPS 2021.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from simulators.outcomes import FloatArray
from toolkit.pareto.axes import Axes
from toolkit.problem import Evaluation
from toolkit.search.torch_tools import AcquisitionSettings, BotorchController, tensor


class TutorialController(BotorchController):
    """Noisy expected hypervolume improvement as the tutorial has it."""

    name = "tutorial"
    default_settings = AcquisitionSettings(mc_samples=128, num_restarts=10, raw_samples=512, maxiter=200, batch_limit=5)
    kind = "a qLogNEHVI search in natural units"

    def _outcomes(self, data: Evaluation) -> FloatArray:
        return np.concatenate([data.Y, data.slack], axis=1)

    def _acquisition(self, model: Any, X: Any, seed: int) -> Any:
        from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement

        reference = tensor(natural_reference(self._axes))
        return qLogNoisyExpectedHypervolumeImprovement(
            model=model, ref_point=reference, X_baseline=X, **self._parts(seed)
        )


def natural_reference(axes: Axes) -> FloatArray:
    """`m` objectives, maximised, in natural units, that `axes.scale` maps to the reference point."""
    natural = [axes.natural(j, -axes.margin) for j in range(len(axes.axes))]
    return np.array([value if a.maximise else -value for value, a in zip(natural, axes.axes, strict=True)])
