"""What the PROTEUS paper prints, for the tables beside ours [Proteus2026]_.

RB is RouterBench, SP is SPROUT. Qualities are fractions, costs USD per 1,000 queries.

References:
    [Proteus2026] A. Bhatti, V. Vaddina, D. Birru, PROTEUS, arXiv 2601.19402, 2026.
"""

from __future__ import annotations

TABLE_1 = {
    "correlation of mu": ("0.973", "0.981"),
    "floor kept": ("100 %", "100 %"),
    "within 5 %": ("100 %", "67 %"),
    "within 2 %": ("44 %", "11 %"),
    "max/min cost": ("3.7", "9.5"),
    "economy": ("88.8 %, 0.20", "92.3 %, 0.30"),
    "standard": ("90.4 %, 0.29", "93.8 %, 0.62"),
    "premium": ("91.3 %, 0.50", "96.0 %, 1.69"),
}
"""Row -> RB, SP."""

TABLE_2 = {
    "random": ((0.524, 0.86, None, 42.4), (0.718, 1.7, None, 56.8)),
    "cheapest": ((0.304, 0.05, None, 32.7), (0.635, 0.06, None, 63.8)),
    "best_fixed": ((0.779, 3.3, None, 0.0), (0.907, 5.5, None, 25.8)),
    "knn": ((0.772, 2.3, 7.4, 25.5), (0.738, 1.7, 0.9, 58.1)),
    "mlp": ((0.767, 2.3, 7.3, 25.4), (0.771, 1.7, 2.3, 60.7)),
    "carrot 0.1": ((0.749, 1.34, 6.9, 41.4), (0.899, 2.24, 8.0, 60.9)),
    "carrot 0.5": ((0.679, 0.21, 6.0, 69.5), (0.839, 0.35, 6.8, 81.0)),
    "carrot 0.9": ((0.529, 0.09, 0.2, 55.7), (0.740, 0.11, 1.2, 69.9)),
    "omnirouter": ((0.662, 0.24, 5.3, 67.1), (0.826, 0.64, 6.0, 76.6)),
    "proteus": ((0.901, 0.33, 11.1, 88.5), (0.940, 0.93, 9.5, 83.5)),
    "oracle": ((0.914, 0.39, None, 88.2), (0.986, 0.60, None, 92.2)),
}
"""Method -> (accuracy, cost, RE, RPI) of RB and of SP."""

TABLE_4 = {
    "no_lambda": (("-0.27", "-8 %"), ("-0.53", "-25 %")),
    "fixed_gamma": (("~0", "~0"), ("-0.62", "-44 %")),
    "sampled_no_critic": (("-0.04", "-2 %"), ("-0.03", "-1 %")),
}
"""Ablation -> change in accuracy (points) and cost of RB and of SP."""

CHANGING = "77 % RB, 82-86 % SP"
BAND = {"RB": (0.779, 0.901, 0.914), "SP": (0.907, 0.940, 0.986)}
"""Best single model, PROTEUS, oracle."""
