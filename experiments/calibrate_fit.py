"""The scenario's parameters from a recording: each with its source, and a list of what the data does not hold."""

from __future__ import annotations

import numpy as np

from experiments.calibrate_data import Recorded
from experiments.calibrate_prices import FEWEST, card_price, positive, price_node
from experiments.calibrate_settings import CalibrateSettings
from experiments.calibrate_times import LARGEST_SIGMA, Missing, TierTimes
from experiments.calibrate_yaml import Node, Sourced, sourced
from simulators.calibration import fit_inflation, fit_lognormal
from simulators.calibration_quality import ShiftedQuality
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from simulators.traces import Trace

_HISTOGRAM_BINS = 24


def tier_node(
    recorded: Recorded, quality: ShiftedQuality, k: int, settings: CalibrateSettings, times: TierTimes, missing: Missing
) -> dict[str, Node]:
    """One tier's parameters with their sources."""
    fit, model = quality.fit, recorded.models[k]
    origin = f"{recorded.source}, {model}: "
    n = recorded.table.n_queries
    node: dict[str, Node] = {
        "capability": sourced(
            fit.capability[k], f"{origin}joint fit of slice x tier means, s.e. {fit.capability_se[k]:.2g}, n {n:,}", 3
        ),
        **_shift_node(recorded, quality, k, origin),
        **price_node(recorded, k, settings, missing),
        **_length_node(recorded, k, settings, missing),
        **times.nodes,
    }
    return node


def _shift_node(recorded: Recorded, quality: ShiftedQuality, k: int, origin: str) -> dict[str, Node]:
    table = recorded.table
    shifts: dict[str, Node] = {}
    for s in np.flatnonzero(~np.isnan(quality.z[:, k])):
        shifts[table.slices[s]] = sourced(
            quality.fit.shift[s, k],
            f"{origin}{quality.z[s, k]:.1f} s.e. off capability - difficulty (needed {quality.critical:.2f}), "
            f"shrunken, n {int((table.slice_code == s).sum())}",
            3,
        )
    return {"quality_shift": shifts} if shifts else {}


def _length_node(recorded: Recorded, k: int, settings: CalibrateSettings, missing: Missing) -> dict[str, Node]:
    """Verbosity, or inflation where the tokens beyond the reference's are hidden; nothing where nothing is known."""
    model, hidden = recorded.models[k], recorded.is_reasoning(k, settings)
    if recorded.reference is None or k == recorded.reference:
        return {}
    visible = recorded.reference_tokens()[1]
    billed, how = _billed_tokens(recorded, k)
    use = positive(visible, billed)
    if use.sum() < FEWEST:
        if hidden:
            missing.note("billed tokens", "output_tokens, or cost_usd with data.prices=FILE", model)
        return {"verbosity": Sourced(1.0, f"assumption: as many tokens as {recorded.reference_model}; not recorded")}
    origin, whose = f"{recorded.source}, {model}: {how}", f"of {recorded.reference_model}, n {int(use.sum()):,}"
    if not hidden:
        ratio = float(billed[use].mean() / visible[use].mean())
        return {"verbosity": sourced(ratio, f"{origin}, mean over mean output tokens {whose}", 3)}
    fit = fit_inflation(visible[use], np.maximum(billed[use], visible[use]))
    return {
        "verbosity": Sourced(1.0, f"assumption: visible tokens as those {whose}"),
        "inflation_median": sourced(max(fit.median, 1.0), f"{origin} over the visible ones {whose}; at 200 visible", 3),
        "inflation_exponent": sourced(fit.exponent, f"{origin}: slope of log inflation on log visible tokens", 3),
        "inflation_sigma": sourced(fit.sigma, f"{origin}: residual log sd of that regression", 3),
    }


def _billed_tokens(recorded: Recorded, k: int) -> tuple[FloatArray, str]:
    """`N` billed output tokens, NaN where unknown: recorded, or what the bill leaves after the input."""
    table, card = recorded.table, card_price(recorded, k)
    if recorded.has_tokens(k):
        return table.output_tokens[:, k], "output tokens"
    if card is None or recorded.priced_by_card or not np.isfinite(table.cost_usd[~table.error[:, k], k]).all():
        return np.full(table.n_queries, np.nan), ""
    inputs = recorded.reference_tokens()[0]
    return (1e6 * table.cost_usd[:, k] - card[0] * inputs) / card[1], f"(cost - {card[0]:g} input) / {card[1]:g}"


def slice_node(
    recorded: Recorded,
    quality: ShiftedQuality,
    s: int,
    settings: CalibrateSettings,
    trace: Trace | None,
    missing: Missing,
    trace_path: str,
) -> dict[str, Node]:
    """One slice's parameters with their sources."""
    table = recorded.table
    rows = table.slice_code == s
    n, origin = int(rows.sum()), f"{recorded.source}, {table.slices[s]}"
    node: dict[str, Node] = {
        "share": Sourced(float(rows.mean()), f"{origin}: {n} of {table.n_queries:,} queries"),
        "difficulty": sourced(
            quality.fit.difficulty[s],
            f"{origin}: joint fit of slice x tier means, s.e. {quality.fit.difficulty_se[s]:.2g}",
            3,
        ),
    }
    for side, tokens in zip(("input", "output"), recorded.reference_tokens(), strict=True):
        if settings.lengths == "trace":
            node |= _trace_lengths(side, trace, trace_path)
        elif (tokens[rows] > 0).sum() >= 2:
            node |= _fitted_lengths(side, tokens[rows], f"{origin}, {recorded.reference_model}", settings)
        else:
            node |= _assumed_lengths(side, settings, missing)
    return node


def _trace_lengths(side: str, trace: Trace | None, path: str) -> dict[str, Node]:
    known = None if trace is None else getattr(trace, f"{side}_tokens")
    if known is None:
        raise ConfigError(f"lengths=trace needs traces=FILE with a column {side}_tokens")
    source = f"{path}: draws from {len(known):,} requests, the same for every slice"
    return {f"{side}_length": {"kind": Sourced("empirical", source), "path": path, "column": f"{side}_tokens"}}


def _fitted_lengths(side: str, tokens: FloatArray, origin: str, settings: CalibrateSettings) -> dict[str, Node]:
    tokens = tokens[tokens > 0]
    if settings.lengths == "histogram":
        edges, weights = _histogram(tokens.round())
        source = f"{origin}: histogram of {len(tokens)} values, about equally many in each bin"
        law: dict[str, Node] = {
            "kind": Sourced("histogram", source),
            "edges": edges.tolist(),
            "weights": weights.tolist(),
        }
        return {f"{side}_length": law}
    fit = fit_lognormal(tokens)
    sigma = min(fit.sigma, LARGEST_SIGMA)
    how, n = f"{origin}: ", len(tokens)
    return {
        f"{side}_tokens_median": sourced(
            max(fit.median, 1.0), f"{how}mean / exp(sigma^2 / 2), s.e. {fit.median * sigma / np.sqrt(n):.2g}, n {n}", 4
        ),
        f"{side}_tokens_sigma": sourced(
            sigma, f"{how}sd of log {side} tokens, s.e. {sigma / np.sqrt(2 * n):.1g}, n {n}", 3
        ),
    }


def _histogram(tokens: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Edges and weights of bins with about equally many values; a value as frequent as a bin has one of its own.

    The last 5 % have bins of their own, as far apart as the tail is: with few values there, each is one.
    """
    values, counts = np.unique(tokens, return_counts=True)
    last = values[values > np.quantile(tokens, 0.95)]
    single = values[counts * _HISTOGRAM_BINS >= len(tokens)]
    if len(last) <= _HISTOGRAM_BINS:
        single = np.concatenate([single, last])
    edges = np.quantile(tokens, np.linspace(0, 1, _HISTOGRAM_BINS + 1)).round()
    tail = np.quantile(tokens[tokens >= last[0]], np.linspace(0, 1, _HISTOGRAM_BINS)).round() if len(last) else []
    edges = np.unique(np.concatenate([edges[:-1], single, single + 1, tail, [values[-1], values[-1] + 1]]))
    weights = (np.histogram(tokens, edges)[0] / len(tokens)).round(9)
    weights[weights.argmax()] += 1.0 - weights.sum()
    return edges, weights.round(9)


def _assumed_lengths(side: str, settings: CalibrateSettings, missing: Missing) -> dict[str, Node]:
    node: dict[str, Node] = {}
    for name, key in ((f"{side}_tokens", f"{side}_tokens_median"), (f"{side}_sigma", f"{side}_tokens_sigma")):
        value = getattr(settings.assume, name)
        if value is None:
            how = f"assume.{side}_tokens and assume.{side}_sigma, or traces=FILE lengths=trace"
            missing.note(f"{side} tokens", how)
        else:
            node[key] = Sourced(float(value), f"assumption (assume.{name})")
    return node
