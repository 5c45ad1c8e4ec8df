"""Price cards: USD per million tokens, so that an answer with tokens but no bill can be priced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulators.errors import InputDataError
from simulators.outcomes import FloatArray


@dataclass(frozen=True, kw_only=True)
class PriceCard:
    """Prices of some models.

    Attributes:
        source: Where the prices come from, for messages.
        input_usd_per_mtok: Model -> USD per million input tokens.
        output_usd_per_mtok: Model -> USD per million output tokens, hidden reasoning included.
    """

    source: str
    input_usd_per_mtok: dict[str, float]
    output_usd_per_mtok: dict[str, float]

    def cost_usd(self, tiers: Sequence[str], input_tokens: FloatArray, output_tokens: FloatArray) -> FloatArray:
        """Billed cost of each answer.

        Args:
            tiers: K model names.
            input_tokens: `N x K` billed tokens, NaN where unknown.
            output_tokens: `N x K` billed tokens, NaN where unknown.

        Returns:
            `N x K` USD; NaN where a token count is unknown.

        Raises:
            InputDataError: If a tier has no price; an unpriced model never costs 0.
        """
        unpriced = [t for t in tiers if t not in self.input_usd_per_mtok or t not in self.output_usd_per_mtok]
        if unpriced:
            raise InputDataError(
                f"{self.source} has no price for {unpriced}; an unpriced model is not free: add its row"
            )
        price_in = np.array([self.input_usd_per_mtok[t] for t in tiers])
        price_out = np.array([self.output_usd_per_mtok[t] for t in tiers])
        return np.asarray((input_tokens * price_in + output_tokens * price_out) / 1e6)
