"""Attainment surfaces of three small fronts, against what counting by hand gives, and against every grid point."""

# ruff: noqa: T201
from __future__ import annotations

import numpy as np

from toolkit.pareto.indicators import attainment_surface

# Maximised. Run A is good on the second axis, B in the middle, C on the first axis.
FRONTS = [
    np.array([[1.0, 4.0], [2.0, 3.0]]),
    np.array([[1.0, 3.0], [3.0, 2.0]]),
    np.array([[2.0, 2.0], [4.0, 1.0]]),
]
BY_HAND = {
    1 / 3: [[1, 4], [2, 3], [3, 2], [4, 1]],  # the front of all points
    1 / 2: [[1, 3], [2, 2], [3, 1]],  # (1,3): A, B; (2,2): all; (3,1): B, C; (2,3): A alone
    1.0: [[2, 2]],  # what all three attain: below (2, 2)
}


def counted(z: np.ndarray) -> int:
    """How many runs attain `z: 2`."""
    return sum(bool((front >= z).all(axis=1).any()) for front in FRONTS)


def main() -> None:
    grid = np.stack(np.meshgrid(np.arange(1.0, 6.0), np.arange(1.0, 6.0)), axis=-1).reshape(-1, 2)
    for level, expected in BY_HAND.items():
        found = attainment_surface(FRONTS, level)
        needed = int(np.ceil(level * len(FRONTS) - 1e-9))
        below = [(found >= z).all(axis=1).any() for z in grid]
        agree = below == [counted(z) >= needed for z in grid]
        points = " ".join(f"({x:g}, {y:g})" for x, y in found)
        print(f"{needed} of 3: {points}; as by hand {found.tolist() == expected}, as counted on the grid {agree}")


if __name__ == "__main__":
    main()
