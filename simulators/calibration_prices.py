"""Prices from bills: what a tier takes per input and per output token, by regression of cost on tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.errors import InputDataError
from simulators.outcomes import FloatArray

_LEAST_ANSWERS = 10


@dataclass(frozen=True, kw_only=True)
class PriceFit:
    """Prices that explain recorded costs.

    Attributes:
        input_usd_per_mtok, output_usd_per_mtok: USD per million tokens, both positive.
        input_se, output_se: Standard errors.
        residual: Standard deviation of what is left, over the mean cost.
        two_prices: Whether input and output could be told apart; else both have one price.
        n: Answers.
    """

    input_usd_per_mtok: float
    output_usd_per_mtok: float
    input_se: float
    output_se: float
    residual: float
    two_prices: bool
    n: int


def fit_prices(cost_usd: FloatArray, input_tokens: FloatArray, output_tokens: FloatArray) -> PriceFit:
    """Least squares without intercept, then scaled so that the mean cost is kept.

    Where one of the two prices comes out at 0 or below, the bills do not tell input from output: one price per token.

    Args:
        cost_usd: `N`, positive in the mean.
        input_tokens, output_tokens: `N`.

    Raises:
        InputDataError: If fewer than 10 answers come, or they cost nothing.
    """
    if len(cost_usd) < _LEAST_ANSWERS:
        raise InputDataError(
            f"expected at least {_LEAST_ANSWERS} answers with cost and tokens to fit prices; got {len(cost_usd)}; "
            "give data.prices=FILE"
        )
    if not cost_usd.mean() > 0:
        raise InputDataError("all recorded costs are 0, which is no price; give data.prices=FILE or drop the tier")
    both = np.column_stack([input_tokens, output_tokens])
    price, se = _least_squares(both, 1e6 * cost_usd)
    two = bool((price > 0).all())
    if not two:
        price, se = _least_squares(both.sum(axis=1, keepdims=True), 1e6 * cost_usd)
        price, se = np.repeat(price, 2), np.repeat(se, 2)
    scale = 1e6 * float(cost_usd.mean()) / float((both @ price).mean())
    left = cost_usd - scale * (both @ price) / 1e6
    return PriceFit(
        input_usd_per_mtok=float(price[0] * scale),
        output_usd_per_mtok=float(price[1] * scale),
        input_se=float(se[0]),
        output_se=float(se[1]),
        residual=float(left.std() / cost_usd.mean()),
        two_prices=two,
        n=len(cost_usd),
    )


def _least_squares(columns: FloatArray, target: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coefficients and their standard errors; all 0 where the columns cannot be told apart."""
    solution, _, rank, _ = np.linalg.lstsq(columns, target, rcond=None)
    if rank < columns.shape[1]:
        return np.zeros(columns.shape[1]), np.zeros(columns.shape[1])
    variance = float(((target - columns @ solution) ** 2).sum()) / max(len(target) - columns.shape[1], 1)
    return np.asarray(solution), np.asarray(np.sqrt(variance * np.diag(np.linalg.inv(columns.T @ columns))))
