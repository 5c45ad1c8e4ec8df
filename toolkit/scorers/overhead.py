"""What deciding costs: the router's own time and money, a part of every figure of a policy.

A query of `input_tokens` t that goes to a tier with the input price p is charged

    usd_per_query + token_tax * t * p / 1e6,

and its answer comes later by the router's delay, whichever tier gives it. What needs no router pays neither: single
tiers, the Zero router, a fixed baseline (`OutcomeTable.bare`).
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from simulators.errors import InputDataError
from simulators.outcomes import FloatArray, OutcomeTable

NotNegative = Annotated[float, Field(ge=0)]
_TOKENS_PER_MTOK = 1e6


class RouterOverhead(BaseModel):
    """Time and money of one router, as `policy.json` holds it.

    Attributes:
        delay_s: The same delay for every query, or None: `delay_signal` has it, else it is not known.
        delay_signal: Name of a signal of the queries that holds each one's delay, or None.
        usd_per_query: Charged for each decision.
        token_tax: Input tokens that the router adds, as a share of the query's own, in [0, 1].
        input_usd_per_mtok: Tier -> USD per million input tokens, for the token tax; None without one. A tier that is
            not named is one that the router never sends a query to.
        budgets_s: Delays that p95 is held against in reports.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    delay_s: NotNegative | None = None
    delay_signal: str | None = None
    usd_per_query: NotNegative = 0.0
    token_tax: Annotated[float, Field(ge=0, le=1)] = 0.0
    input_usd_per_mtok: dict[str, NotNegative] | None = None
    budgets_s: tuple[Annotated[float, Field(gt=0)], ...] = ()

    def apply(self, table: OutcomeTable) -> OutcomeTable:
        """The table behind this router; its delay stays unknown there if it is not known here.

        Raises:
            InputDataError: If the queries lack the delay or the tokens.
        """
        delay_s = self._delay(table)
        known = np.zeros(table.n_queries) if delay_s is None else delay_s
        found = table.with_router(delay_s=known, cost_usd=self._cost(table))
        return found if delay_s is not None else dataclasses.replace(found, router_delay_s=None, _hash=[])

    def _delay(self, table: OutcomeTable) -> FloatArray | None:
        if self.delay_s is not None:
            return np.full(table.n_queries, self.delay_s)
        if self.delay_signal is None:
            return None
        signals = table.queries.signals
        if self.delay_signal not in signals:
            raise InputDataError(
                f"the router's delay is the column {self.delay_signal!r} of the queries, which have: "
                f"{', '.join(signals) or 'none'}"
            )
        delay_s = signals[self.delay_signal]
        bad = ~(np.isfinite(delay_s) & (delay_s >= 0))
        if bad.any():
            at = int(np.argmax(bad))
            raise InputDataError(
                f"column {self.delay_signal!r} must hold the router's delay, seconds from 0; query "
                f"{table.queries.query_id[at]!s} has {delay_s[at]}"
            )
        return delay_s

    def _cost(self, table: OutcomeTable) -> FloatArray:
        """`N x K` USD."""
        cost = np.full(table.quality.shape, self.usd_per_query)
        if self.token_tax == 0:
            return cost
        prices = self.input_usd_per_mtok or {}
        for k in (k for k, tier in enumerate(table.tiers) if tier in prices):
            tokens = table.input_tokens[:, k]
            if not np.isfinite(tokens).all():
                raise InputDataError(
                    f"router.token_tax={self.token_tax:g} is a share of input_tokens, which "
                    f"{int(np.isnan(tokens).sum())} answers of {table.tiers[k]} lack; fill them, or state the money as "
                    "router.usd_per_query"
                )
            cost[:, k] += self.token_tax * tokens * prices[table.tiers[k]] / _TOKENS_PER_MTOK
        return cost
