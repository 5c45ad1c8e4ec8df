"""Coverage of Student's interval and of ours for a slice of right and wrong answers."""

# ruff: noqa: T201
from __future__ import annotations

import numpy as np
from scipy import stats

from toolkit.statistics import estimate_mean

TRUTH = 0.95
DRAWS = 2_000


def main() -> None:
    rng = np.random.default_rng(0)
    for n in (30, 100, 300):
        ours = student = 0
        for _ in range(DRAWS):
            values = (rng.uniform(size=n) < TRUTH).astype(float)
            found = estimate_mean(values, bounds=(0.0, 1.0))
            ours += found.lower(0.025) <= TRUTH <= found.upper(0.025)
            half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)
            student += abs(values.mean() - TRUTH) <= half
        print(f"n = {n}: ours {ours / DRAWS:.3f}, Student {student / DRAWS:.3f} (nominal 0.950)")


if __name__ == "__main__":
    main()
