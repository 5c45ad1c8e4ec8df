"""Settings of the router's own time and money, and of the scorers that are routers of a scenario."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class StrategyScorerSettings(BaseModel):
    """`scorer=rules`, `classifier`, `llm_router`, `memory`: a router of the scenario, by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["strategy"]
    strategy: str


class RouterSettings(BaseModel):
    """What deciding takes; None: what the scenario states of its router, for other scorers nothing.

    Attributes:
        delay_s: Delay of every query.
        usd_per_query: Charged for each decision.
        token_tax: Input tokens added, as a share of the query's own.
        budgets_s: Delays that p95 is held against in the report.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    delay_s: NotNegative | None = None
    usd_per_query: NotNegative | None = None
    token_tax: Annotated[float, Field(ge=0, le=1)] | None = None
    budgets_s: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = []

    @property
    def stated(self) -> bool:
        """Whether anything is stated here."""
        return any(value is not None for value in (self.delay_s, self.usd_per_query, self.token_tax))
