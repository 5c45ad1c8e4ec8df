"""The scalarisation that `parego` documents beside BoTorch's, and a short search with it."""

# ruff: noqa: T201
from __future__ import annotations

import warnings

import numpy as np

from toolkit.pareto.axes import make_axes
from toolkit.pareto.indicators import hypervolume
from toolkit.search.base import run_search
from toolkit.search.registry import make_searcher
from toolkit.synthetic import SyntheticProblem

BEST = 0.7721  # of the whole front under the floor: papers/Deb2005
DIM, N_INITIAL, BUDGET, RANDOM_SEEDS = 3, 8, 16, 20


def largest_difference() -> float:
    """Between our formula and BoTorch's, over 1,000 outcomes and 20 draws of the weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from botorch.utils.multi_objective.scalarization import get_chebyshev_scalarization

        rng, found = np.random.default_rng(0), 0.0
        data, y = rng.normal(size=(40, 3)), rng.normal(size=(1_000, 3))
        for w in rng.dirichlet(np.ones(3), size=20):
            theirs = get_chebyshev_scalarization(torch.tensor(w), torch.tensor(data))(torch.tensor(y)).numpy()
            below = w * ((y - data.min(axis=0)) / np.ptp(data, axis=0) - 1.0)
            found = max(found, float(np.abs(below.min(axis=1) + 0.05 * below.sum(axis=1) - theirs).max()))
    return found


def attained(kind: str, seed: int) -> float:
    """Hypervolume of what was evaluated and is feasible, both without noise."""
    problem = SyntheticProblem(dim=DIM, quality_sd=0.01, latency_log_sd=0.05, quality_floor=0.65, seed=seed)
    axes = make_axes(problem.objectives, problem.truth(problem.corners()).columns, margin=0.1)
    searcher = make_searcher(kind, problem, axes=axes, budget=BUDGET, seed=seed, n_initial=N_INITIAL)
    truth = problem.truth(run_search(problem, searcher).evaluation.params)
    return hypervolume(axes.scale(truth.Y)[truth.feasible], axes.reference)


def main() -> None:
    print(f"scalarisation equal to BoTorch's to 1e-12: {largest_difference() < 1e-12}")
    found = attained("parego", 0)
    print(f"parego: {found:.3f} = {found / BEST:.0%} of the front, seed 0")
    chance = np.array([attained("random", seed) for seed in range(RANDOM_SEEDS)])
    others = f"mean of {RANDOM_SEEDS} seeds {chance.mean():.3f}, greatest {chance.max():.3f}"
    print(f"random: {chance[0]:.3f}, seed 0; {others}")


if __name__ == "__main__":
    main()
