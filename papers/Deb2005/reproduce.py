"""The front of the synthetic problem: an octant of the unit sphere, and its hypervolume in closed form."""

# ruff: noqa: T201
from __future__ import annotations

import numpy as np
from scipy.stats import qmc

from toolkit.pareto.axes import make_axes
from toolkit.pareto.indicators import hypervolume
from toolkit.synthetic import SyntheticProblem

WITHIN = 1e-12


def main() -> None:
    problem = SyntheticProblem(dim=6, quality_sd=0.01, latency_log_sd=0.05, quality_floor=0.65, seed=0)
    axes = make_axes(problem.objectives, problem.truth(problem.corners()).columns, margin=0.1)
    params = np.random.default_rng(0).random((2_000, problem.space.dim))
    g = ((params[:, 2:] - 0.5) ** 2).sum(axis=1)
    radius = np.linalg.norm(1.0 - axes.scale(problem.truth(params).Y), axis=1)  # coordinates are 1 - f
    print(f"anywhere, |f| = 1 + g to {WITHIN:g}: {np.abs(radius - 1 - g).max() < WITHIN}")

    floor = (0.95 - 0.65) / 0.35  # the floor on quality is f_2 <= floor
    best = 1.1**3 - np.pi / 4 * ((floor - floor**3 / 3) + (1.1 - floor) * (1 - floor**2))
    for points in (2_000, 32_000):
        params = np.full((points, problem.space.dim), 0.5)
        params[:, :2] = qmc.Halton(2, scramble=False).random(points)
        front = problem.truth(params)
        Z = axes.scale(front.Y)
        on_sphere = np.abs(((1.0 - Z) ** 2).sum(axis=1) - 1.0).max() < WITHIN
        print(f"{points} points with x_3 .. x_d = 1/2: f_1^2 + f_2^2 + f_3^2 = 1 to {WITHIN:g}: {on_sphere}")
        print(f"  reference (1, 1, 1): {hypervolume(Z, np.zeros(3)):.4f} of 1 - pi/6 = {1 - np.pi / 6:.4f}")
        print(f"  reference of the axes: {hypervolume(Z, axes.reference):.4f} of {1.1**3 - np.pi / 6:.4f}")
        print(f"  the same under the floor: {hypervolume(Z[front.feasible], axes.reference):.4f} of {best:.4f}")


if __name__ == "__main__":
    main()
