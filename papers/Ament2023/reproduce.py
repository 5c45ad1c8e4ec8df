"""Log EHVI where EHVI is 0 in double precision: the value, its slope, and the closed form it must equal."""

# ruff: noqa: T201
from __future__ import annotations

import warnings

import numpy as np
from scipy.special import log_ndtr

from toolkit.search.ehvi import log_ehvi_with_gradient, non_dominated_boxes

FRONT, REFERENCE = np.array([[1.0, 1.0]]), np.zeros(2)
NO_FLOOR, NO_SLACK = np.full(2, -np.inf), np.zeros((1, 0))
SD = 0.1


def plain(mean: np.ndarray) -> float:
    """EHVI without logarithms, by BoTorch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from botorch.acquisition.multi_objective.analytic import ExpectedHypervolumeImprovement
        from botorch.utils.multi_objective.box_decompositions.non_dominated import FastNondominatedPartitioning
        from botorch.utils.testing import MockModel, MockPosterior

        model = MockModel(MockPosterior(mean=torch.tensor(mean)[None], variance=torch.full((1, 1, 2), SD**2).double()))
        boxes = FastNondominatedPartitioning(ref_point=torch.tensor(REFERENCE), Y=torch.tensor(FRONT))
        return float(ExpectedHypervolumeImprovement(model, REFERENCE.tolist(), boxes)(torch.zeros(1, 1, 1)))


def closed(mean: float) -> float:
    """Log EHVI by hand: with a = E[(y - 1)_+] and b = E[min(y, 1)_+], it is log(2 a b + a^2); b from a at 0."""

    def log_gain(level: float) -> float:  # log E[(y - level)_+], through log Phi
        z = (mean - level) / SD
        log_phi = -0.5 * z * z - 0.5 * np.log(2 * np.pi)
        return float(np.log(SD) + log_phi + np.log1p(z * np.exp(log_ndtr(z) - log_phi)))

    a, whole = log_gain(1.0), log_gain(0.0)
    b = whole + np.log1p(-np.exp(a - whole))
    return float(np.logaddexp(np.log(2) + a + b, 2 * a))


def main() -> None:
    boxes = non_dominated_boxes(FRONT, REFERENCE)
    print("mean of both   log of EHVI (BoTorch)   log EHVI (ours)       by hand   slope of ours")
    for mean in (0.5, 0.0, -1.0, -3.0, -30.0):
        both = np.full((1, 2), mean)
        value, slope, *_ = log_ehvi_with_gradient(both, np.full((1, 2), SD), boxes, NO_FLOOR, NO_SLACK, NO_SLACK)
        with np.errstate(divide="ignore"):
            theirs = np.log(plain(both))
        print(f"{mean:12.1f}   {theirs:21.4f}   {value[0]:15.4f}   {closed(mean):11.4f}   {slope[0, 0]:13.2f}")


if __name__ == "__main__":
    main()
