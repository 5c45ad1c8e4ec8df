"""Hypervolume and additive epsilon of two small fronts that no one dominates, beside the values worked by hand."""

# ruff: noqa: T201
from __future__ import annotations

import numpy as np

from toolkit.pareto.indicators import epsilon_additive, hypervolume

# Maximised, reference (0, 0).
A = np.array([[1.0, 4.0], [3.0, 3.0], [4.0, 1.0]])
B = np.array([[2.0, 3.5], [3.5, 2.0]])
REFERENCE = np.zeros(2)
HYPERVOLUME = {"A": 11.0, "B": 10.0}  # A: 1x4 + 2x3 + 1x1; B: 2x3.5 + 1.5x2
EPSILON = {
    # For each point to be covered, the smallest shift over the points that may cover it:
    "A to cover B": 0.5,  # (2, 3.5) and (3.5, 2): each from (3, 3) by 0.5
    "B to cover A": 1.0,  # (1, 4) from (2, 3.5) by 0.5; (4, 1) by 0.5; (3, 3) from either by 1
    "A + 0.5 to cover B": 0.0,
    "A + 1 to cover B": -0.5,
}


def main() -> None:
    for (name, hand), Z in zip(HYPERVOLUME.items(), (A, B), strict=True):
        print(f"hypervolume of {name} {hypervolume(Z, REFERENCE):g}, by hand {hand:g}")
    pairs = [(A, B), (B, A), (A + 0.5, B), (A + 1.0, B)]
    for (name, hand), (Z, best) in zip(EPSILON.items(), pairs, strict=True):
        print(f"additive epsilon, {name}: {epsilon_additive(Z, best):g}, by hand {hand:g}")


if __name__ == "__main__":
    main()
