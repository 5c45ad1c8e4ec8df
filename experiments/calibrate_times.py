"""A tier's times: from a latency file, from the recording itself, or stated by the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from experiments.calibrate_data import Recorded, tier_index
from experiments.calibrate_settings import CalibrateSettings
from experiments.calibrate_yaml import Node, Sourced, sourced
from simulators.calibration_latency import (
    LatencyFile,
    LatencyFit,
    Measurements,
    fit_answers,
    fit_measurements,
    read_latency,
)
from simulators.errors import ConfigError

LARGEST_SIGMA = 4.0
"""Of any lognormal in a scenario."""


@dataclass
class Missing:
    """What a scenario needs and the data does not hold, collected so that one line can name all of it."""

    found: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def note(self, what: str, how: str, of: str = "") -> float:
        """Remember a gap; the value it stands for is NaN until the end, where any gap is an error."""
        names = self.found.setdefault((what, how), [])
        if of and of not in names:
            names.append(of)
        return np.nan

    def check(self) -> None:
        """Raise ConfigError with everything that is missing, and the options that state it."""
        if not self.found:
            return
        parts = []
        for (what, how), names in self.found.items():
            parts.append(f"{what}{' of ' if names else ''}{', '.join(names)} ({how})")
        raise ConfigError(f"the data does not hold {'; '.join(parts)}; give the option(s) in brackets")


@dataclass(frozen=True, kw_only=True)
class TierTimes:
    """Where a tier's times come from.

    Attributes:
        measured: Rows of the latency file, or None where they come from elsewhere.
        fit: The fit, or None where they are assumed.
        nodes: The parameters.
        hidden: Whether the tier thinks, so that a measured TTFT is not the fitted one.
    """

    measured: Measurements | None
    fit: LatencyFit | None
    nodes: dict[str, Node]
    hidden: bool


def tier_times(recorded: Recorded, settings: CalibrateSettings, missing: Missing) -> tuple[list[TierTimes], list[str]]:
    """`K` sources of times, and sentences: the latency file first, then the recording's own times, then assumptions."""
    file = None if settings.latency is None else read_latency(Path(settings.latency))
    chosen, notes = _latency_models(file, recorded, settings)
    if file is not None:
        notes += _mixtures(file, set(chosen.values()))
    times = [_times(recorded, k, settings, missing, file, chosen) for k in range(recorded.table.n_tiers)]
    return times, [*notes, *_rate_limited(recorded, times)]


def _rate_limited(recorded: Recorded, times: list[TierTimes]) -> list[str]:
    refused = [
        f"{m} {t.measured.n_limited:,} of {t.measured.n_limited + t.measured.n_served:,}"
        for m, t in zip(recorded.models, times, strict=True)
        if t.measured is not None and t.measured.n_limited
    ]
    if not refused:
        return []
    said = "which depends on the caller's quota: they are in no error rate (requests_per_min of a station states one)"
    return [f"Rows of the latency file that a rate limit refused (429; {', '.join(refused)}), {said}."]


def _mixtures(file: LatencyFile, models: set[str | None]) -> list[str]:
    mixed = {m or "all rows": n for m in models if (n := len(file.providers(m))) > 1}
    if not mixed:
        return []
    said = ", ".join(f"{model} ({n})" for model, n in sorted(mixed.items()))
    return [f"Measured at several providers, whose mixture is no lognormal: {said}; MODEL@PROVIDER takes one."]


def _latency_models(
    file: LatencyFile | None, recorded: Recorded, settings: CalibrateSettings
) -> tuple[dict[int, str | None], list[str]]:
    """Tier -> model of the latency file (None: all its rows)."""
    named, tiers = settings.latency_models or {}, range(recorded.table.n_tiers)
    wanted = {tier_index(t, recorded.models, recorded.table.tiers, "latency_models"): m for t, m in named.items()}
    if file is None:
        if named:
            raise ConfigError("latency_models maps tiers to the models of a latency file; give latency=FILE")
        return {}, []
    if not file.models:
        if named:
            raise ConfigError(f"latency_models: {file.path} has no column model; it holds for every tier alike")
        return dict.fromkeys(tiers), [f"{file.path.name} names no model: its times are those of every tier."]
    own = {k: recorded.models[k] for k in tiers if recorded.models[k] in file.models}
    if own or wanted:
        return {**own, **wanted}, []
    without = [k for k in tiers if not np.isfinite(recorded.table.latency_s[:, k]).any()]
    if not without:
        raise ConfigError(
            f"no model of {file.path} is called like a tier (it has {', '.join(file.models)}), and the outcomes have "
            "times of their own; give latency_models={TIER: MODEL}, or unset latency"
        )
    note = (
        f"No model of {file.path.name} ({', '.join(file.models)}) is called like a tier: all its rows together stand "
        f"for {', '.join(recorded.models[k] for k in without)}, which is an assumption; latency_models={{TIER: MODEL}} "
        "says which is which."
    )
    return dict.fromkeys(without), [note]


def _times(
    recorded: Recorded,
    k: int,
    settings: CalibrateSettings,
    missing: Missing,
    file: LatencyFile | None,
    chosen: dict[int, str | None],
) -> TierTimes:
    hidden = recorded.is_reasoning(k, settings)
    if file is not None and k in chosen:
        return _measured_times(file, chosen[k], hidden=hidden)
    model, table = recorded.models[k], recorded.table
    names = (model, table.tiers[k])
    speed = settings.assume.of_tier("tokens_per_s", *names)
    recorded_times = table.latency_s[:, k], table.output_tokens[:, k], table.ttft_s[:, k]
    fit = fit_answers(*recorded_times, tokens_per_s=speed, hidden=hidden)
    if fit is not None:
        nodes = _answer_nodes(fit, f"{recorded.source}, {model}", speed, hidden=hidden)
    else:
        nodes = _assumed_times(names, speed, settings, missing, _why_no_times(recorded, k))
    return TierTimes(measured=None, fit=fit, nodes=nodes, hidden=hidden)


def _measured_times(file: LatencyFile, model: str | None, *, hidden: bool) -> TierTimes:
    measured = file.of_model(model)
    fit = fit_measurements(measured, hidden=hidden)
    whose = "" if model or not file.models else "assumption (no latency_models): "
    if hidden:
        nodes = _answer_nodes(fit, f"{whose}{file.path.name}, {model or 'all rows'}", None, hidden=True)
        return TierTimes(measured=measured, fit=fit, nodes=nodes, hidden=True)
    origin = f"{whose}{file.path.name}, {model or 'all rows'}, n {fit.n:,}: "
    n_root = np.sqrt(fit.n)
    ttft_se = fit.ttft.median * fit.ttft.sigma * 1.2533 / n_root
    nodes = {
        "ttft_median_s": sourced(fit.ttft.median, f"{origin}median TTFT, s.e. {ttft_se:.1g}", 3),
        "ttft_sigma": sourced(
            min(fit.ttft.sigma, LARGEST_SIGMA),
            f"{origin}IQR of log TTFT / 1.349, s.e. {1.17 * fit.ttft.sigma / n_root:.1g}",
            3,
        ),
        "tokens_per_s": sourced(
            fit.tokens_per_s, f"{origin}median decode speed after the first token, s.e. {fit.speed_se:.1g}", 3
        ),
        "speed_sigma": sourced(min(fit.speed_sigma, LARGEST_SIGMA), f"{origin}IQR of log decode speed / 1.349", 3),
    }
    return TierTimes(measured=measured, fit=fit, nodes=nodes, hidden=False)


def _answer_nodes(fit: LatencyFit, origin: str, assumed_speed: float | None, *, hidden: bool) -> dict[str, Node]:
    ttft_se = fit.ttft.median * fit.ttft.sigma * 1.2533 / np.sqrt(fit.n)
    slope = f"{origin}, n {fit.n:,}: Theil-Sen slope of latency on {'billed' if hidden else 'output'} tokens"
    said = "assumption (assume.tokens_per_s)" if assumed_speed is not None else f"{slope}, s.e. {fit.speed_se:.1g}"
    if fit.speed_sigma > 0:
        said = f"{origin}, n {fit.n:,}: median output tokens / (latency - TTFT), s.e. {fit.speed_se:.1g}"
    rest = f"{origin}: latency - tokens / speed" if fit.speed_sigma == 0 else f"{origin}: TTFT"
    rest = f"{origin}: latency - billed tokens / speed (TTFT contains the thinking)" if hidden else rest
    nodes: dict[str, Node] = {
        "ttft_median_s": sourced(fit.ttft.median, f"{rest}, median, s.e. {ttft_se:.1g}", 3),
        "ttft_sigma": sourced(min(fit.ttft.sigma, LARGEST_SIGMA), f"{rest}, IQR of its log / 1.349", 3),
        "tokens_per_s": sourced(fit.tokens_per_s, said, 3),
    }
    if fit.speed_sigma > 0:
        nodes["speed_sigma"] = sourced(min(fit.speed_sigma, LARGEST_SIGMA), f"{origin}: IQR of log speed / 1.349", 3)
    return nodes


def _why_no_times(recorded: Recorded, k: int) -> str:
    latency, tokens = recorded.table.latency_s[:, k], recorded.table.output_tokens[:, k]
    if not np.isfinite(latency).any():
        return "decode speed"
    if not ((latency > 0) & (tokens > 0)).any():
        return "decode speed (latency is known, but not the tokens)"
    return "decode speed (latency does not rise with the tokens)"


def _assumed_times(
    names: Sequence[str], speed: float | None, settings: CalibrateSettings, missing: Missing, why: str
) -> dict[str, Node]:
    ttft = settings.assume.of_tier("ttft_s", *names)
    sigma = settings.assume.of_tier("ttft_sigma", *names)
    if speed is None:
        missing.note(why, "latency=FILE, or assume.tokens_per_s", names[0])
    if ttft is None or sigma is None:
        missing.note("time to first token", "latency=FILE, or assume.ttft_s and assume.ttft_sigma", names[0])
    return {
        "ttft_median_s": Sourced(ttft or np.nan, "assumption (assume.ttft_s)"),
        "ttft_sigma": Sourced(np.nan if sigma is None else sigma, "assumption (assume.ttft_sigma)"),
        "tokens_per_s": Sourced(speed or np.nan, "assumption (assume.tokens_per_s)"),
    }
