"""Our closed form of EHVI beside BoTorch's and beside Monte Carlo, for one candidate and a front of four."""

# ruff: noqa: T201
from __future__ import annotations

import warnings

import numpy as np

from toolkit.pareto.indicators import hypervolume
from toolkit.search.ehvi import log_ehvi, log_ehvi_with_gradient, non_dominated_boxes

FRONT = np.array([[0.9, 0.2, 0.3], [0.3, 0.9, 0.2], [0.2, 0.3, 0.9], [0.6, 0.6, 0.5]])
REFERENCE = np.zeros(3)
MEAN, SD = np.array([[0.7, 0.5, 0.6]]), np.array([[0.2, 0.3, 0.1]])
NO_FLOOR, NO_SLACK = np.full(3, -np.inf), np.zeros((1, 0))
DRAWS = 100_000


def botorch_value_and_gradient() -> tuple[float, np.ndarray]:
    """BoTorch's analytic EHVI and its gradient in the mean, by automatic differentiation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from botorch.acquisition.multi_objective.analytic import ExpectedHypervolumeImprovement
        from botorch.utils.multi_objective.box_decompositions.non_dominated import FastNondominatedPartitioning
        from botorch.utils.testing import MockModel, MockPosterior

        front, reference = torch.tensor(FRONT), torch.tensor(REFERENCE)
        mean = torch.tensor(MEAN, requires_grad=True)
        model = MockModel(MockPosterior(mean=mean[None], variance=torch.tensor(SD**2)[None]))
        boxes = FastNondominatedPartitioning(ref_point=reference, Y=front)
        value = ExpectedHypervolumeImprovement(model, REFERENCE.tolist(), boxes)(torch.zeros(1, 1, 1))
        value.sum().backward()
    return float(value.detach()), np.asarray(mean.grad)


def main() -> None:
    boxes = non_dominated_boxes(FRONT, REFERENCE)
    ours = float(np.exp(log_ehvi(MEAN, SD, boxes, NO_FLOOR, NO_SLACK, NO_SLACK))[0])
    theirs, their_gradient = botorch_value_and_gradient()
    _, slope, *_ = log_ehvi_with_gradient(MEAN, SD, boxes, NO_FLOOR, NO_SLACK, NO_SLACK)
    draws = MEAN + SD * np.random.default_rng(0).standard_normal((DRAWS, 3))
    lengths = np.clip(np.minimum(draws[:, None], boxes.upper) - boxes.lower, 0.0, None)
    gained = lengths.prod(axis=2).sum(axis=1)
    before = hypervolume(FRONT, REFERENCE)
    direct = [hypervolume(np.vstack([FRONT, draw]), REFERENCE) - before for draw in draws[:500]]
    print(f"boxes {len(boxes)}")
    print(f"ours {ours:.6f}  BoTorch {theirs:.6f}  equal to 1e-12 {abs(ours - theirs) < 1e-12 * theirs}")
    print(f"gradient in the mean equal to 1e-10 {np.allclose(ours * slope, their_gradient, rtol=1e-10, atol=0)}")
    print(f"Monte Carlo {gained.mean():.5f} +- {gained.std() / DRAWS**0.5:.5f}")
    same = np.allclose(direct, gained[:500], rtol=0, atol=1e-12)
    print(f"gain by boxes and by moocore's hypervolume, 500 draws: equal to 1e-12 {same}, up to {max(direct):.3f}")


if __name__ == "__main__":
    main()
