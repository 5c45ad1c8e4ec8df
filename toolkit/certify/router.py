"""What deciding takes: the router's time and money in the figures of one policy."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from simulators.outcomes import IntArray, OutcomeTable
from toolkit.evaluation.summary import router_summary


@dataclass(frozen=True, kw_only=True)
class RouterEvidence:
    """The router on one table.

    Attributes:
        delay_p50_s, delay_p95_s: Quantiles of its delay; NaN where it is not known.
        cost_usd: Its mean cost per query, a part of the policy's.
        cost_share: That as a share of the policy's mean cost; NaN where costs are unknown.
        budgets_s: Delays that p95 is held against.
    """

    delay_p50_s: float
    delay_p95_s: float
    cost_usd: float
    cost_share: float
    budgets_s: tuple[float, ...]

    def within(self, budget_s: float) -> bool:
        """Whether p95 keeps a budget."""
        return self.delay_p95_s <= budget_s

    def as_dict(self) -> dict[str, object]:
        """JSON form; NaN becomes null."""
        figures = {name: _finite(value) for name, value in asdict(self).items() if name != "budgets_s"}
        known = np.isfinite(self.delay_p95_s)
        return {**figures, "within_s": {f"{b:g}": self.within(b) for b in self.budgets_s if known}}


def router_evidence(table: OutcomeTable, tier: IntArray, budgets_s: tuple[float, ...]) -> RouterEvidence | None:
    """The router of a table under one assignment (`tier: N`), or None where the table has none."""
    found = router_summary(table, tier)
    if not found:
        return None
    names = ("delay_p50_s", "delay_p95_s", "cost_usd", "cost_share")
    return RouterEvidence(**{name: found.get(name, np.nan) for name in names}, budgets_s=budgets_s)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
