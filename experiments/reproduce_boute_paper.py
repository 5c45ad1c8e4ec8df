"""What the BOute paper prints, for the tables beside ours [Boute2026]_.

References:
    [Boute2026] Y. Jiang, F. Fu, E. Yoneki, BOute: Cost-Efficient LLM Serving with Heterogeneous LLMs and GPUs via
        Multi-Objective Bayesian Optimization, MLSys 2026, arXiv 2602.10729.
"""

from __future__ import annotations

from dataclasses import dataclass

SMALL_QUALITY, LARGE_QUALITY = 84.5, 95.1
"""GSM8K, both models alone."""
LARGE_P95_S = 25.6
"""The large model alone on 12 H100."""
MOTIVATING_GPUS = 12
MOTIVATING_FLOOR = 90.0

MOTIVATING = {
    "large_alone": ("25.6 s", "95.1", "12 H100"),
    "small_alone": ("7.4 s", "84.5", "12 H100"),
    "routed_uniform": ("28.2 s", "–", "6 + 6 H100, 40 / 60"),
    "boute_homogeneous": ("20.5 s", "–", "4 + 8 H100"),
    "boute": ("17.1 s", "91.2", "6 RTX 5090 + 10 H100, 30 / 70"),
}
"""Row -> P95, quality, deployment."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One quality floor.

    Attributes:
        name: How tables call it.
        share_of_gap: Where it lies between the models alone, by the GSM8K floors.
        table_1: Workload -> share of load, share of budget and GPUs of the small model, GPUs of the large one.
    """

    name: str
    share_of_gap: float
    table_1: dict[str, tuple[float, float, str, str]]


def share_of_gap(floor: float) -> float:
    """Where a GSM8K floor lies from the small model alone (0) to the large one alone (1)."""
    return (floor - SMALL_QUALITY) / (LARGE_QUALITY - SMALL_QUALITY)


LEVELS = (
    Level(
        name="low",
        share_of_gap=share_of_gap(87.0),
        table_1={
            "gsm": (0.7345, 0.3858, "8 5090 + 5 4090", "6 H100"),
            "crux": (0.8058, 0.4634, "8 5090 + 8 4090 + 1 6000", "4 H100 + 2 6000"),
        },
    ),
    Level(
        name="middle",
        share_of_gap=share_of_gap(89.0),
        table_1={
            "gsm": (0.4395, 0.1786, "6 5090", "8 H100"),
            "crux": (0.6117, 0.2444, "8 5090", "6 H100 + 2 6000"),
        },
    ),
    Level(
        name="high",
        share_of_gap=share_of_gap(91.0),
        table_1={
            "gsm": (0.2994, 0.0928, "3 5090", "6 H100 + 4 6000"),
            "crux": (0.4175, 0.1204, "4 5090", "6 H100 + 4 6000"),
        },
    ),
)
"""MT-Bench's figures stand beside those of crux; its floors 8.1, 8.3 and 8.5 cannot be placed, so GSM8K's are used."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One row of Table 3.

    Attributes:
        name: How tables call it.
        level: Number of the quality floor.
        target_s: The paper's P95 by workload.
        usd_per_hour: The paper's costs by workload, method by method.
    """

    name: str
    level: int
    target_s: dict[str, float]
    usd_per_hour: dict[str, tuple[float, ...]]


TARGETS = (
    Target(
        name="low quality, strict P95",
        level=0,
        target_s={"gsm": 8.0, "crux": 10.0},
        usd_per_hour={"gsm": (61.83, 56.24, 53.55, 38.41, 32.25), "crux": (79.93, 73.54, 55.90, 36.33, 30.98)},
    ),
    Target(
        name="high quality, loose P95",
        level=2,
        target_s={"gsm": 12.0, "crux": 15.0},
        usd_per_hour={"gsm": (41.21, 37.50, 52.38, 36.07, 32.18), "crux": (53.29, 49.02, 44.00, 38.31, 31.23)},
    ),
)
"""Order of the methods: large model on H100, large model on any GPUs, routing with even GPUs, BOute-Homo, BOute."""

SAVINGS = {"stand_alone": 0.397, "routed_uniform": 0.38, "boute_homogeneous": 0.15}

TABLE_2 = {
    3: ("23.5 s", "3.6 min", "~12 min"),
    4: ("32.5 s", "5.3 min", "~20 min"),
    5: ("48.6 s", "7.1 min", "> 30 min"),
    6: ("1.2 min", "8.9 min", "> 30 min"),
}
"""GPU types -> time to converge of BOute, without structural information, without the offline database."""

TABLE_4 = "1.6 to 7.7 % over 7 settings of Llama-3-70B, 1600 in / 16 out"
MORE_EVALUATIONS = "about 8x"


def target_of(target: Target, workload: str, idle_s: float, sized_s: float) -> float:
    """The P95 asked for: the paper's, as a share of its large model alone, of what our load adds to an idle replica.

    Args:
        target: The row.
        workload: Which.
        idle_s: Our P95 of the large model alone without load.
        sized_s: The same on the homogeneous GPUs of the main budget, at the load.
    """
    return idle_s + target.target_s[workload] / LARGE_P95_S * (sized_s - idle_s)
