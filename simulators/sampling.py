"""Draws of a scenario: one function per purpose, each with a stream of its own; formulas: `simulators/scenario.py`.

Notation: N queries, K tiers (thinking modes counted), S slices, G segments between changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from simulators.lengths import LengthSpec, sample_lengths
from simulators.outcomes import FloatArray, IntArray
from simulators.scenario_spec import ScenarioSpec, SliceSpec
from simulators.seeds import spawn_rng
from simulators.tiers import NEEDS, TierSpec, arms

INFLATION_REFERENCE_TOKENS = 200.0
"""Visible length at which `inflation_median` holds: the example answer of source document S1."""

_MEAN_QUALITY_MARGIN = 1e-6  # keeps both Beta shapes positive when a tier is certain to be right or wrong


@dataclass(frozen=True, kw_only=True)
class Segments:
    """What changes make of the tiers.

    Attributes:
        start_s: `G` instants, ascending, the first 0.
        shift: `G x K` logits on top of the capability.
        speed, price: `G x K` factors.
    """

    start_s: FloatArray
    shift: FloatArray
    speed: FloatArray
    price: FloatArray


def segments(spec: ScenarioSpec) -> Segments:
    """The scenario's changes, added up from its start on."""
    start_s = np.array(sorted({0.0, *(change.at_s for change in spec.changes)}))
    bases = [base for base, tier in spec.tiers.items() for _ in tier.modes or ("",)]
    names = list(arms(spec.tiers))
    shift, speed, price = np.zeros((len(start_s), len(names))), *np.ones((2, len(start_s), len(names)))
    for change in spec.changes:
        named = set(names if change.tiers is None else change.tiers)
        hit = np.array([name in named or base in named for name, base in zip(names, bases, strict=True)])
        cells = np.ix_(start_s >= change.at_s, hit)
        shift[cells] += change.quality_shift
        speed[cells] *= change.speed_factor
        price[cells] *= change.price_factor
    return Segments(start_s=start_s, shift=shift, speed=speed, price=price)


def segment_codes(spec: ScenarioSpec, found: Segments, n: int, rng: np.random.Generator) -> IntArray:
    """`n` segments of queries that come evenly over the traffic."""
    if len(found.start_s) == 1 or spec.traffic is None:
        return np.zeros(n, dtype=np.int64)
    asked_s = rng.uniform(0.0, spec.traffic.duration_s, n)
    return np.searchsorted(found.start_s, asked_s, side="right") - 1


def quality(capability: FloatArray, difficulty: FloatArray, precision: float, rng: np.random.Generator) -> FloatArray:
    """`N x K` judge scores: Beta with mean sigma(capability - difficulty) and precision phi."""
    mean = expit(capability - difficulty[:, None])
    mean = np.clip(mean, _MEAN_QUALITY_MARGIN, 1.0 - _MEAN_QUALITY_MARGIN)
    return rng.beta(mean * precision, (1.0 - mean) * precision)


def capability(tiers: Sequence[TierSpec], names: Sequence[str], code: IntArray) -> FloatArray:
    """`N x K` logits of the tiers on the queries' slices."""
    shift = np.array([[t.quality_shift.get(name, 0.0) for t in tiers] for name in names])
    return np.asarray((np.array([t.capability for t in tiers]) + shift)[code])


def skills(
    spec: ScenarioSpec, slices: Sequence[SliceSpec], code: IntArray, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """`N x K`: whether an answer gets right all that is needed; the format is that of the last tier to write it."""
    found = arms(spec.tiers)
    works = np.array([[_fidelity(found, tier, need) for need in NEEDS] for tier in found.values()])
    needed = np.array([[need in s.needs for need in NEEDS] for s in slices])[code]
    right: NDArray[np.bool_] = rng.random((len(code), *works.shape)) < works
    return np.asarray((right | ~needed[:, None, :]).all(axis=2))


def expected_success(spec: ScenarioSpec) -> dict[str, dict[str, float]]:
    """Need -> tier -> probability that an answer gets it right, for needs of some slice on which some tier can fail."""
    found = arms(spec.tiers)
    stated = [need for need in NEEDS if any(need in tier.fidelity for tier in found.values())]
    needed = [need for need in stated if any(need in s.needs for s in spec.slices.values())]
    return {need: {name: _fidelity(found, tier, need) for name, tier in found.items()} for need in needed}


def _fidelity(tiers: dict[str, TierSpec], tier: TierSpec, need: str) -> float:
    second = tier.second
    writer = tiers[second.tier] if need == "format" and second is not None and second.kind == "format" else tier
    return {str(key): value for key, value in writer.fidelity.items()}.get(need, 1.0)


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """`N x K` input, visible and billed output tokens: whole numbers, each at least 1, billed >= visible."""

    input: FloatArray
    visible: FloatArray
    billed: FloatArray


def tokens(
    slices: Sequence[SliceSpec], tiers: Sequence[TierSpec], code: IntArray, rng: np.random.Generator, laws: FloatArray
) -> Tokens:
    """Tokens of all answers; `laws: N x 2` are the slices' own `input_length` and `output_length`, NaN without one."""
    n, k = len(code), len(tiers)
    per_slice = np.array(
        [
            (
                *(s.input_tokens_median or 1.0, s.output_tokens_median or 1.0),
                *(s.input_tokens_sigma or 0.0, s.output_tokens_sigma or 0.0),
            )
            for s in slices
        ]
    )[code]
    lengths = per_slice[:, :2] * np.exp(per_slice[:, 2:] * rng.standard_normal((n, 2)))
    lengths = np.where(np.isnan(laws), lengths, laws)
    visible = lengths[:, 1:] * np.array([t.verbosity for t in tiers])
    inflation = _lognormal([t.inflation_median for t in tiers], [t.inflation_sigma for t in tiers], n, rng)
    inflation *= (visible / INFLATION_REFERENCE_TOKENS) ** np.array([t.inflation_exponent for t in tiers])
    return Tokens(
        input=np.repeat(_whole(lengths[:, :1]), k, axis=1),
        visible=_whole(visible),
        billed=np.maximum(_whole(visible * inflation), _whole(visible)),
    )


def lengths_by_law(
    spec: ScenarioSpec, names: Sequence[str], code: IntArray, rng: np.random.Generator, folder: Path | None
) -> FloatArray:
    """`N x 2` input and output lengths of slices with a law of their own; NaN elsewhere. The two are independent."""
    found, seed = np.full((len(code), 2), np.nan), int(rng.integers(2**63))
    for i, name in enumerate(names):
        laws: tuple[LengthSpec | None, ...] = (spec.slices[name].input_length, spec.slices[name].output_length)
        rows = np.flatnonzero(code == i)
        for column, law in enumerate(laws):
            if law is not None:
                found[rows, column] = sample_lengths(law, len(rows), spawn_rng(seed, name, str(column)), folder=folder)
    return found


def cost(slices: Sequence[SliceSpec], tiers: Sequence[TierSpec], code: IntArray, used: Tokens) -> FloatArray:
    """`N x K` USD of one stage, at the prices before any change."""
    cached = np.array([s.cached_share for s in slices])[code, None]
    batch = np.array([s.batch for s in slices])[code, None]
    in_price, out_price, cached_price, reasoning_price, discount = np.array(
        [
            (t.input_usd_per_mtok, t.output_usd_per_mtok, t.cached_price, t.reasoning_price, t.batch_discount)
            for t in tiers
        ]
    ).T
    inputs = used.input * (in_price + cached * (cached_price - in_price))
    outputs = used.billed * out_price + (used.billed - used.visible) * (reasoning_price - out_price)
    return np.asarray((inputs + outputs) / 1e6 * (1.0 - batch * discount))


def times(tiers: Sequence[TierSpec], used: Tokens, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """`N x K` time to the first visible token and whole time of one stage, both without contention, seconds."""
    speed = np.array([t.decode_tokens_per_s for t in tiers])
    base_s = _lognormal([t.ttft_median_s for t in tiers], [t.ttft_sigma for t in tiers], len(used.visible), rng)
    if any(t.speed_sigma > 0 for t in tiers):
        speed = speed * _lognormal([1.0] * len(tiers), [t.speed_sigma for t in tiers], len(used.visible), rng)
    ttft_s = base_s + (used.billed - used.visible) / speed
    return ttft_s, ttft_s + used.visible / speed


def _whole(values: FloatArray) -> FloatArray:
    return np.maximum(np.rint(values), 1.0)


def _lognormal(median: list[float], sigma: list[float], n: int, rng: np.random.Generator) -> FloatArray:
    """`n x len(median)` independent lognormal draws."""
    return np.array(median) * np.exp(np.array(sigma) * rng.standard_normal((n, len(median))))
