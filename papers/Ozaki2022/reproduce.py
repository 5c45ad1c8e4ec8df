"""Optuna's multi-objective TPE against uniform sampling: true hypervolume after 100 evaluations, 10 seeds."""

# ruff: noqa: T201
from __future__ import annotations

import numpy as np

from toolkit.pareto.axes import make_axes
from toolkit.pareto.indicators import hypervolume
from toolkit.search.base import run_search
from toolkit.search.registry import make_searcher
from toolkit.synthetic import SyntheticProblem

BEST = 0.7721  # of the whole front under the floor: papers/Deb2005
BUDGET, SEEDS = 100, 10


def attained(kind: str, seed: int) -> float:
    """Hypervolume of what was evaluated and is feasible, both without noise."""
    problem = SyntheticProblem(dim=6, quality_sd=0.01, latency_log_sd=0.05, quality_floor=0.65, seed=seed)
    axes = make_axes(problem.objectives, problem.truth(problem.corners()).columns, margin=0.1)
    searcher = make_searcher(kind, problem, axes=axes, budget=BUDGET, seed=seed)
    truth = problem.truth(run_search(problem, searcher).evaluation.params)
    return hypervolume(axes.scale(truth.Y)[truth.feasible], axes.reference)


def main() -> None:
    found = {kind: np.array([attained(kind, seed) for seed in range(SEEDS)]) for kind in ("tpe", "random")}
    for kind, values in found.items():
        spread = f"{values.min():.3f} to {values.max():.3f}"
        print(f"{kind}: mean {values.mean():.3f} = {values.mean() / BEST:.0%} of the front, {spread}")
    gain = found["tpe"] - found["random"]
    print(
        f"gain {gain.mean():.3f} +- {gain.std(ddof=1) / SEEDS**0.5:.3f}, above 0 in {(gain > 0).sum()} of {SEEDS} seeds"
    )


if __name__ == "__main__":
    main()
