"""APGR of random routing and of an oracle, and what interpolation on a curve that is not monotone does to CPT."""

# ruff: noqa: T201
from __future__ import annotations

import numpy as np

from toolkit.pareto.indicators import apgr, cpt, pgr

# Strong minus weak per query: right where weak is wrong, as good, wrong where weak is right. Weak 0.5, strong 0.8.
GAINS = np.repeat([1.0, 0.0, -1.0], [400_000, 500_000, 100_000])
WEAK, STRONG = 0.5, 0.8
# A router whose curve rises, falls and rises again, as noise makes it.
SHARE = np.array([0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0])
PGR = np.array([0.0, 0.1, 0.2, 0.3, 0.6, 0.35, 0.4, 0.45, 0.48, 1.0])


def apgr_in_order(gains: np.ndarray) -> float:
    """APGR of the router that sends the first queries to the strong tier, at 101 shares."""
    share = np.linspace(0.0, 1.0, 101)
    total = np.append(0.0, np.cumsum(gains))
    quality = WEAK + total[np.round(share * len(gains)).astype(int)] / len(gains)
    return apgr(share, quality, weak=WEAK, strong=STRONG)


def main() -> None:
    shuffled = np.random.default_rng(0).permutation(GAINS)
    print(f"APGR of random routing {apgr_in_order(shuffled):.3f}, closed form 0.500")
    # PGR climbs to 4/3 at a share of 0.4, stays until 0.9 and falls to 1.
    closed = 0.4 * (4 / 3) / 2 + 0.5 * (4 / 3) + 0.1 * (4 / 3 + 1) / 2
    print(f"APGR of an oracle {apgr_in_order(GAINS):.3f}, closed form {closed:.3f}")

    quality = WEAK + (STRONG - WEAK) * PGR
    assert np.allclose(pgr(quality, weak=WEAK, strong=STRONG), PGR)
    for level in (0.2, 0.5):
        ours = cpt(SHARE, quality, weak=WEAK, strong=STRONG, level=level)
        print(f"CPT({level:.0%}) {ours:.3f}; np.interp on the raw curve {np.interp(level, PGR, SHARE):.3f}")


if __name__ == "__main__":
    main()
