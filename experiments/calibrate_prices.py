"""A tier's prices: the card's, else what explains its bills; an unpriced tier is a gap in the data, never free."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from experiments.calibrate_data import Recorded
from experiments.calibrate_settings import CalibrateSettings
from experiments.calibrate_times import Missing
from experiments.calibrate_yaml import Node, sourced
from simulators.calibration_prices import PriceFit, fit_prices
from simulators.outcomes import FloatArray

FEWEST = 10
"""Answers that anything is fitted to."""

_EXACT, _SAME_TOKENS, _DIGITS = 1e-6, 0.005, 6


def price_node(recorded: Recorded, k: int, settings: CalibrateSettings, missing: Missing) -> dict[str, Node]:
    """Price of input and output of tier `k`, per token as the reference tier counts them."""
    card, cost = card_price(recorded, k), recorded.table.cost_usd[:, k]
    if card is not None:
        return _card_node(recorded, k, card)
    if not np.isfinite(cost[~recorded.table.error[:, k]]).all():
        missing.note("a price", "data.prices=FILE", recorded.models[k])
        return {}
    return _fitted_node(recorded, k) if recorded.has_tokens(k) else _effective_node(recorded, k, settings, missing)


def card_price(recorded: Recorded, k: int) -> tuple[float, float] | None:
    """USD per million input and output tokens on the price card, or None."""
    card, model = recorded.prices, recorded.models[k]
    if card is None or model not in card.input_usd_per_mtok:
        return None
    return card.input_usd_per_mtok[model], card.output_usd_per_mtok[model]


def positive(*values: FloatArray) -> NDArray[np.bool_]:
    """Where all are known and above 0."""
    return np.asarray(np.all([v > 0 for v in values], axis=0), dtype=np.bool_)


def _card_node(recorded: Recorded, k: int, card: tuple[float, float]) -> dict[str, Node]:
    source = f"{recorded.prices.source if recorded.prices else ''}: {recorded.models[k]}"
    ratio, said = _input_ratio(recorded, k, card[0])
    return {
        "input_usd_per_mtok": sourced(card[0] * ratio, source + said, _DIGITS),
        "output_usd_per_mtok": sourced(card[1], source, _DIGITS),
    }


def _fitted_node(recorded: Recorded, k: int) -> dict[str, Node]:
    table = recorded.table
    inputs, outputs = table.input_tokens[:, k], table.output_tokens[:, k]
    use = positive(inputs, outputs)
    fit = fit_prices(table.cost_usd[use, k], inputs[use], outputs[use])
    how = f"{recorded.source}, {recorded.models[k]}: regression of cost on its tokens"
    how += "" if fit.two_prices else ", which cannot tell input from output"
    ratio, said = _input_ratio(recorded, k, fit.input_usd_per_mtok)
    return {
        "input_usd_per_mtok": sourced(
            fit.input_usd_per_mtok * ratio, f"{how}{said}{_quality(fit, fit.input_se)}", _DIGITS
        ),
        "output_usd_per_mtok": sourced(fit.output_usd_per_mtok, f"{how}{_quality(fit, fit.output_se)}", _DIGITS),
    }


def _quality(fit: PriceFit, se: float) -> str:
    if fit.residual < _EXACT:
        return f", no residual, n {fit.n:,}"
    return f", s.e. {se:.1g}, residual {fit.residual:.2g} of the mean cost, n {fit.n:,}"


def _input_ratio(recorded: Recorded, k: int, price: float) -> tuple[float, str]:
    """Input tokens of a tier per input token of the reference, whose tokens the scenario counts; 1 where unknown."""
    if recorded.reference in {None, k} or not recorded.has_tokens(k):
        return 1.0, ""
    own, other = recorded.table.input_tokens[:, k], recorded.reference_tokens()[0]
    use = positive(own, other)
    ratio = float(own[use].mean() / other[use].mean()) if use.any() else 1.0
    if abs(ratio - 1.0) < _SAME_TOKENS:
        return 1.0, ""
    return ratio, f", {price:.6g} x {ratio:.4g}, its input tokens over those of {recorded.reference_model}"


def _effective_node(recorded: Recorded, k: int, settings: CalibrateSettings, missing: Missing) -> dict[str, Node]:
    """One price per token of another tier's answers, where only the bills of this one are known."""
    model = recorded.models[k]
    mean_tokens, of = _mean_tokens(recorded, settings)
    if not np.isfinite(mean_tokens):
        missing.note("a price per token", "data.prices=FILE, or assume.input_tokens and assume.output_tokens", model)
        return {}
    price = 1e6 * float(np.nanmean(recorded.table.cost_usd[:, k])) / mean_tokens
    how = f"{recorded.source}, {model}: mean cost over the mean tokens {of}; its own tokens are not recorded"
    source = f"{how} (data.prices gives list prices)"
    return {
        "input_usd_per_mtok": sourced(price, source, _DIGITS),
        "output_usd_per_mtok": sourced(price, source, _DIGITS),
    }


def _mean_tokens(recorded: Recorded, settings: CalibrateSettings) -> tuple[float, str]:
    """Mean input and output tokens of an answer together, and whose they are."""
    inputs, outputs = recorded.reference_tokens()
    use = positive(inputs, outputs)
    if use.sum() >= FEWEST:
        return float((inputs + outputs)[use].mean()), f"of {recorded.reference_model}"
    total = 0.0
    for side in ("input", "output"):
        median, sigma = getattr(settings.assume, f"{side}_tokens"), getattr(settings.assume, f"{side}_sigma")
        if median is None or sigma is None:
            return np.nan, ""
        total += median * float(np.exp(sigma**2 / 2))
    return total, "assumed (assume.input_tokens, assume.output_tokens)"
