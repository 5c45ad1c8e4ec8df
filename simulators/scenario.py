r"""Scenarios: a synthetic world of a few tiers and slices that ends in an `OutcomeTable`.

Notation: N queries, K tiers (thinking modes counted), S slices; $\sigma$ is the logistic function and every $z$ a
standard normal draw.

    slice         $s \sim$ shares
    difficulty    $D = \mathrm{difficulty}_s + \mathrm{difficulty\_sd} \cdot z$
    quality       $\mu_k = \sigma(\mathrm{capability}_k + \mathrm{quality\_shift}_{ks} + \mathrm{changes}_k - D)$;
                  observed $q_k \sim \mathrm{Beta}(\mu_k \phi, (1 - \mu_k) \phi)$,
                  independent over tiers given D (a graded judge score; $\phi$ = `quality_precision`);
                  0 with probability $1 - \prod \mathrm{fidelity}_k$ over the slice's needs
    tokens        input and visible output lognormal per slice (or of another law), the visible ones times the tier's
                  verbosity
    billed        visible x inflation, $\log \mathrm{inflation} = \log \mathrm{inflation\_median}
                  + \mathrm{inflation\_exponent} \cdot \log(\mathrm{visible} / 200) + \mathrm{inflation\_sigma} \cdot z$
    hidden        billed - visible: reasoning tokens, which come before the first visible one
    speed         lognormal around tokens_per_s with log sd speed_sigma, x speed-up of speculative decoding
    TTFT          (lognormal base + hidden / speed) / speed factor of the changes
    latency       TTFT + visible / speed / speed factor of the changes
    cost          (input x ((1 - cached share) x input price + cached share x cached price) + visible x output price
                  + hidden x reasoning price) / 1e6 x price factor of the changes, and x (1 - batch discount) for
                  batch slices

A second stage by tier j, with its share w:

    format        latency + w latency_j, TTFT = latency + w TTFT_j, cost + w cost_j; the format is tier j's
    check         latency and TTFT as they are, cost + w cost_j, quality $q_k + c \max(0, q_j - q_k)$ with the
                  correction_rate c

On a slow network TTFT and latency are multiplied last. `occupied_s` is the first stage's latency before that, and the
tokens in the table are the first stage's. The time for which batch work waits is in no latency.

With `inflation_exponent` 0 the inflation does not depend on the length of the answer. Recorded bills say it does: a
short answer is thought about for longer per visible token, and without it the mean bill comes out over 40 % too high.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from simulators import sampling
from simulators.conduct import filled_in
from simulators.deployment.specs import FleetSpec
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable, QueryBatch
from simulators.sampling import INFLATION_REFERENCE_TOKENS
from simulators.scenario_spec import OWN_SIGNALS, ChangeSpec, NetworkSpec, ScenarioSpec, SliceSpec
from simulators.spec import one_line
from simulators.strategies import Difficulty, StrategySpec, measure, router_signals
from simulators.tiers import TierSpec, arms
from simulators.traffic import TrafficSpec

__all__ = [
    "INFLATION_REFERENCE_TOKENS",
    "ChangeSpec",
    "NetworkSpec",
    "ScenarioSpec",
    "SliceSpec",
    "StrategySpec",
    "TierSpec",
    "fleet_of",
    "parse_scenario",
    "sample_scenario",
    "traffic_of",
]

_FIRST = ("slices", "difficulty", "quality", "tokens", "ttft", "signals")
_LATER = ("lengths", "asked", "skills", "network", "routers")


def parse_scenario(raw: Mapping[str, object]) -> ScenarioSpec:
    """The validated scenario of a plain mapping, such as a resolved config group.

    Raises:
        ConfigError: On the first wrong field, in one line that names it, what was expected and what came.
    """
    try:
        return ScenarioSpec.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(one_line(error, "scenario", ScenarioSpec)) from error


def traffic_of(spec: ScenarioSpec) -> TrafficSpec:
    """The scenario's traffic, by tier and thinking mode, with its second stages and the stations that modes share.

    Raises:
        ConfigError: If the scenario has no traffic.
    """
    if spec.traffic is None:
        raise ConfigError(f"scenario {spec.name} has no traffic; choose one that has, or state scenario.traffic")
    return filled_in(spec.traffic, spec.tiers)


def fleet_of(spec: ScenarioSpec) -> FleetSpec:
    """The GPUs, models and load of the scenario's self-hosted tiers.

    Raises:
        ConfigError: If the scenario has no fleet.
    """
    if spec.fleet is None:
        raise ConfigError(f"scenario {spec.name} has no fleet; use scenario=self_hosted, or state scenario.fleet")
    return spec.fleet


def sample_scenario(
    spec: ScenarioSpec, *, n_queries: int, rng: np.random.Generator, folder: Path | None = None
) -> OutcomeTable:
    """Draws what every tier would answer to `n_queries` queries; no tier ever fails.

    Each purpose (slices, difficulty, quality, ...) has a child stream of `rng`, so a change to the token model leaves
    the qualities as they are. Tiers come out in order of their mean billed cost per answer in this sample.

    Args:
        spec: The scenario.
        n_queries: N, at least 1.
        rng: Source of the child streams.
        folder: Where relative paths of recorded lengths start.

    Returns:
        `N x K` outcomes. Signals: `difficulty_score` (higher is harder) and `confidence` of the scenario's own
        classifier; `NAME_score`, `NAME_confidence` and `NAME_delay_s` of each router strategy.

    Raises:
        ConfigError: If `n_queries` is not positive.
    """
    if n_queries < 1:
        raise ConfigError(f"n_queries: expected at least 1 query to sample; got {n_queries}")
    streams = _streams(rng)
    names = sorted(spec.slices)
    slices, found = [spec.slices[name] for name in names], arms(spec.tiers)
    tiers = list(found.values())
    shares = np.array([s.share for s in slices])
    code = streams["slices"].choice(len(names), size=n_queries, p=shares / shares.sum()).astype(np.int64)
    centre = np.array([s.difficulty for s in slices])[code]
    difficulty = centre + spec.difficulty_sd * streams["difficulty"].standard_normal(n_queries)
    changed = sampling.segments(spec)
    segment = sampling.segment_codes(spec, changed, n_queries, streams["asked"])
    laws = sampling.lengths_by_law(spec, names, code, streams["lengths"], folder)
    used = sampling.tokens(slices, tiers, code, streams["tokens"], laws)
    ttft_s, latency_s = (s / changed.speed[segment] for s in sampling.times(tiers, used, streams["ttft"]))
    capability = sampling.capability(tiers, names, code) + changed.shift[segment]
    quality = sampling.quality(capability, difficulty, spec.quality_precision, streams["quality"])
    table = OutcomeTable(
        tiers=tuple(found),
        queries=QueryBatch(
            query_id=np.array([f"{spec.name}-{i:06d}" for i in range(n_queries)]),
            prompt=None,
            signals=_signals(spec, difficulty, streams),
            slice=np.array(names)[code],
        ),
        quality=quality * sampling.skills(spec, slices, code, streams["skills"]),
        cost_usd=sampling.cost(slices, tiers, code, used) * changed.price[segment],
        latency_s=latency_s,
        ttft_s=ttft_s,
        input_tokens=used.input,
        output_tokens=used.billed,
        error=np.zeros(ttft_s.shape, dtype=np.bool_),
        slices=tuple(names),
        slice_code=code,
        source=f"scenario {spec.name}, {n_queries:,} sampled queries",
        batch=np.array([s.batch for s in slices])[code] if any(s.batch for s in slices) else None,
        asked_s=changed.start_s[segment] if spec.changes else None,
    )
    table = _on_network(spec, _with_second_stages(table, found), latency_s, streams["network"])
    return _cheapest_first(table)


def _streams(rng: np.random.Generator) -> dict[str, np.random.Generator]:
    """A stream per purpose. Later ones are grandchildren, so that `rng` gives its next children as it always did."""
    first = dict(zip(_FIRST, rng.spawn(len(_FIRST)), strict=True))
    return first | dict(zip(_LATER, first["signals"].spawn(len(_LATER)), strict=True))


def _with_second_stages(table: OutcomeTable, tiers: Mapping[str, TierSpec]) -> OutcomeTable:
    """Time, cost and quality of both stages together, and quality without checks; no second stage has its own."""
    quality, cost_usd = table.quality.copy(), table.cost_usd.copy()
    ttft_s, latency_s = table.ttft_s.copy(), table.latency_s.copy()
    for k, tier in enumerate(tiers.values()):
        second = tier.second
        if second is None:
            continue
        j = list(tiers).index(second.tier)
        cost_usd[:, k] += second.share * table.cost_usd[:, j]
        if second.kind == "format":
            ttft_s[:, k] = table.latency_s[:, k] + second.share * table.ttft_s[:, j]
            latency_s[:, k] += second.share * table.latency_s[:, j]
        else:
            better = np.maximum(table.quality[:, j] - table.quality[:, k], 0.0)
            quality[:, k] += second.correction_rate * better
    checked = any(tier.second is not None and tier.second.kind == "check" for tier in tiers.values())
    return dataclasses.replace(
        table,
        quality=np.minimum(quality, 1.0),
        cost_usd=cost_usd,
        ttft_s=ttft_s,
        latency_s=latency_s,
        unchecked=table.quality if checked else None,
        _hash=[],
    )


def _on_network(spec: ScenarioSpec, table: OutcomeTable, first_s: FloatArray, rng: np.random.Generator) -> OutcomeTable:
    """Responses over the network; `first_s: N x K` is what the first stage takes, for which it holds its slot."""
    ttft_s, latency_s = table.ttft_s, table.latency_s
    if spec.network is not None:
        slow = rng.random(table.n_queries) < spec.network.share
        factor = np.where(slow, spec.network.factor, 1.0)[:, None]
        ttft_s, latency_s = ttft_s * factor, latency_s * factor
    occupied_s = None if np.array_equal(first_s, latency_s) else first_s
    return dataclasses.replace(table, ttft_s=ttft_s, latency_s=latency_s, occupied_s=occupied_s, _hash=[])


def _cheapest_first(table: OutcomeTable) -> OutcomeTable:
    order: IntArray = np.argsort(table.cost_usd.mean(axis=0), kind="stable")
    return table.take_tiers(order)


def _signals(
    spec: ScenarioSpec, difficulty: FloatArray, streams: Mapping[str, np.random.Generator]
) -> dict[str, FloatArray]:
    """Scores and confidences of the scenario's own noisy classifier and of the router strategies."""
    centre, sd = spec.difficulty_moments
    known = Difficulty(values=difficulty, centre=centre, sd=sd)
    own = dict(zip(OWN_SIGNALS, measure(known, spec.classifier_agreement, streams["signals"]), strict=True))
    return own | router_signals(spec.routers, known, streams["routers"])
