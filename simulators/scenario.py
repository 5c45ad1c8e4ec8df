r"""Scenarios: a synthetic world of a few tiers and slices that ends in an `OutcomeTable`.

Notation: N queries, K tiers, S slices; $\sigma$ is the logistic function and every $z$ a standard normal draw.

    slice         $s \sim$ shares
    difficulty    $D = \mathrm{difficulty}_s + \mathrm{difficulty\_sd} \cdot z$
    quality       $\mu_k = \sigma(\mathrm{capability}_k - D)$;
                  observed $q_k \sim \mathrm{Beta}(\mu_k \phi, (1 - \mu_k) \phi)$,
                  independent over tiers given D (a graded judge score; $\phi$ = `quality_precision`)
    tokens        input and visible output lognormal per slice, the visible ones times the tier's verbosity
    billed        visible x inflation, $\log \mathrm{inflation} = \log \mathrm{inflation\_median}
                  + \mathrm{inflation\_exponent} \cdot \log(\mathrm{visible} / 200) + \mathrm{inflation\_sigma} \cdot z$
    hidden        billed - visible: reasoning tokens, which come before the first visible one
    TTFT          lognormal base + hidden / tokens_per_s
    latency       TTFT + visible / tokens_per_s
    cost          (input x input price + billed x output price) / 1e6

With `inflation_exponent` 0 the inflation does not depend on the length of the answer. Recorded bills say it does: a
short answer is thought about for longer per visible token, and without it the mean bill comes out over 40 % too high.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator
from scipy.special import expit, ndtr

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable, QueryBatch

INFLATION_REFERENCE_TOKENS = 200.0
"""Visible length at which `inflation_median` holds: the example answer of source document S1."""

_SHARE_TOLERANCE = 1e-5
_MEAN_QUALITY_MARGIN = 1e-6  # keeps both Beta shapes positive when a tier is certain to be right or wrong

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
LogSd = Annotated[float, Field(ge=0, le=4)]
Tokens = Annotated[float, Field(ge=1, le=1e6)]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TierSpec(_Spec):
    """One model behind one price: how good, how dear, how fast.

    Attributes:
        capability: Position on the difficulty axis, logits.
        input_usd_per_mtok, output_usd_per_mtok: USD per million input and per million billed output tokens.
        ttft_median_s, ttft_sigma: Network and prefill time before the first token of any kind: median, log sd.
        tokens_per_s: Decode speed, hidden and visible tokens alike.
        verbosity: Visible output tokens of this tier per visible token of the slice.
        inflation_median: Median billed per visible token, at an answer of `INFLATION_REFERENCE_TOKENS`.
        inflation_exponent: Change of log inflation per unit of log visible length.
        inflation_sigma: Log sd of the inflation at a given visible length.
    """

    capability: float
    input_usd_per_mtok: Annotated[float, Field(ge=0)]
    output_usd_per_mtok: Annotated[float, Field(ge=0)]
    ttft_median_s: Annotated[float, Field(gt=0)]
    ttft_sigma: LogSd
    tokens_per_s: Annotated[float, Field(gt=0)]
    verbosity: Annotated[float, Field(gt=0, le=100)] = 1.0
    inflation_median: Annotated[float, Field(ge=1, le=1000)] = 1.0
    inflation_exponent: Annotated[float, Field(ge=-1, le=1)] = 0.0
    inflation_sigma: LogSd = 0.0


class SliceSpec(_Spec):
    """One kind of work: how often, how hard, how long.

    Attributes:
        share: Fraction of the queries.
        difficulty: Mean latent difficulty, logits.
        input_tokens_median, input_tokens_sigma: Lognormal input tokens: median, log sd.
        output_tokens_median, output_tokens_sigma: Lognormal visible output tokens at verbosity 1.
    """

    share: Annotated[float, Field(gt=0, le=1)]
    difficulty: float
    input_tokens_median: Tokens
    input_tokens_sigma: LogSd
    output_tokens_median: Tokens
    output_tokens_sigma: LogSd


class ScenarioSpec(_Spec):
    """A whole scenario; its YAML in `conf/scenario/` has these keys at the top level.

    Attributes:
        name: What query identifiers start with.
        difficulty_sd: Standard deviation of the difficulty within a slice, logits.
        quality_precision: $\\phi$ of the Beta judge score; larger is less noise.
        classifier_agreement: Share of queries that the scenario's own classifier puts on the right side of the median
            difficulty; 0.5 would be a coin, 1 an oracle, and neither is a classifier.
        tiers, slices: K tiers and S slices by name, in any order; the slices' shares sum to 1.
    """

    name: Name
    difficulty_sd: Annotated[float, Field(gt=0)]
    quality_precision: Annotated[float, Field(gt=0)]
    classifier_agreement: Annotated[float, Field(gt=0.5, lt=1)]
    tiers: Annotated[Mapping[Name, TierSpec], Field(min_length=2)]
    slices: Annotated[Mapping[Name, SliceSpec], Field(min_length=1)]

    @field_validator("slices")
    @classmethod
    def _shares_sum_to_one(cls, slices: Mapping[str, SliceSpec]) -> Mapping[str, SliceSpec]:
        total = sum(spec.share for spec in slices.values())
        if abs(total - 1.0) > _SHARE_TOLERANCE:
            raise ValueError(f"the shares of all slices should sum to 1, these sum to {total:.6g}")
        return slices


def parse_scenario(raw: Mapping[str, object]) -> ScenarioSpec:
    """The validated scenario of a plain mapping, such as a resolved config group.

    Raises:
        ConfigError: On the first wrong field, in one line that names it, what was expected and what came.
    """
    try:
        return ScenarioSpec.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_one_line(error)) from error


def _one_line(error: ValidationError) -> str:
    first, *others = error.errors(include_url=False, include_context=False)
    path = ".".join(["scenario", *(str(part) for part in first["loc"])])
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "expected a value that is")
    came = repr(first["input"])
    came = came if len(came) <= 60 else came[:57] + "..."
    if first["type"] == "missing":
        message, came = "expected a value", "nothing"
    elif first["type"] == "extra_forbidden":
        message, came = f"expected one of {', '.join(_fields_beside(first['loc']))}", "an unknown key"
    more = f" (and {len(others)} more such error{'s' if len(others) > 1 else ''})" if others else ""
    return " ".join(f"{path}: {message}; got {came}{more}".split())


def _fields_beside(loc: tuple[int | str, ...]) -> list[str]:
    inner: dict[str, type[_Spec]] = {"tiers": TierSpec, "slices": SliceSpec}
    return list(inner[str(loc[0])].model_fields if len(loc) > 1 else ScenarioSpec.model_fields)


def sample_scenario(spec: ScenarioSpec, *, n_queries: int, rng: np.random.Generator) -> OutcomeTable:
    """Draws what every tier would answer to `n_queries` queries; no tier ever fails.

    Each purpose (slices, difficulty, quality, ...) has a child stream of `rng`, so a change to the token model leaves
    the qualities as they are. Tiers come out in order of their mean billed cost per answer in this sample.

    Args:
        spec: The scenario.
        n_queries: N, at least 1.
        rng: Source of the child streams.

    Returns:
        `N x K` outcomes with two signals per query: `difficulty_score` (higher is harder) and `confidence`.

    Raises:
        ConfigError: If `n_queries` is not positive.
    """
    if n_queries < 1:
        raise ConfigError(f"n_queries: expected at least 1 query to sample; got {n_queries}")
    slice_rng, difficulty_rng, quality_rng, token_rng, ttft_rng, signal_rng = rng.spawn(6)
    names = sorted(spec.slices)
    slices, tiers = [spec.slices[name] for name in names], list(spec.tiers.values())
    shares = np.array([s.share for s in slices])
    code = slice_rng.choice(len(names), size=n_queries, p=shares / shares.sum()).astype(np.int64)
    centre = np.array([s.difficulty for s in slices])[code]
    difficulty = centre + spec.difficulty_sd * difficulty_rng.standard_normal(n_queries)
    input_tokens, visible, billed = _tokens(slices, tiers, code, token_rng)
    in_price, out_price = np.array([(t.input_usd_per_mtok, t.output_usd_per_mtok) for t in tiers]).T
    cost_usd = (input_tokens * in_price + billed * out_price) / 1e6
    ttft_s, latency_s = _times(tiers, visible, billed, ttft_rng)
    table = OutcomeTable(
        tiers=tuple(spec.tiers),
        queries=QueryBatch(
            query_id=np.array([f"{spec.name}-{i:06d}" for i in range(n_queries)]),
            prompt=None,
            signals=_signals(spec, difficulty, signal_rng),
            slice=np.array(names)[code],
        ),
        quality=_quality(spec, tiers, difficulty, quality_rng),
        cost_usd=cost_usd,
        latency_s=latency_s,
        ttft_s=ttft_s,
        input_tokens=input_tokens,
        output_tokens=billed,
        error=np.zeros(cost_usd.shape, dtype=np.bool_),
        slices=tuple(names),
        slice_code=code,
        source=f"scenario {spec.name}, {n_queries:,} sampled queries",
    )
    return _cheapest_first(table)


def _cheapest_first(table: OutcomeTable) -> OutcomeTable:
    order = np.argsort(table.cost_usd.mean(axis=0), kind="stable")
    per_tier = ("quality", "cost_usd", "latency_s", "ttft_s", "input_tokens", "output_tokens", "error")
    columns = {name: getattr(table, name)[:, order] for name in per_tier}
    return dataclasses.replace(table, tiers=tuple(table.tiers[k] for k in order), _hash=[], **columns)


def _quality(spec: ScenarioSpec, tiers: list[TierSpec], difficulty: FloatArray, rng: np.random.Generator) -> FloatArray:
    """`N x K` judge scores: Beta with mean sigma(capability - difficulty) and precision phi."""
    mean = expit(np.array([t.capability for t in tiers]) - difficulty[:, None])
    mean = np.clip(mean, _MEAN_QUALITY_MARGIN, 1.0 - _MEAN_QUALITY_MARGIN)
    return rng.beta(mean * spec.quality_precision, (1.0 - mean) * spec.quality_precision)


def _tokens(
    slices: list[SliceSpec], tiers: list[TierSpec], code: IntArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`N x K` input, visible and billed output tokens: whole numbers, each at least 1, billed >= visible."""
    n, k = len(code), len(tiers)
    per_slice = np.array(
        [(s.input_tokens_median, s.output_tokens_median, s.input_tokens_sigma, s.output_tokens_sigma) for s in slices]
    )[code]
    lengths = per_slice[:, :2] * np.exp(per_slice[:, 2:] * rng.standard_normal((n, 2)))
    visible = lengths[:, 1:] * np.array([t.verbosity for t in tiers])
    inflation = _lognormal([t.inflation_median for t in tiers], [t.inflation_sigma for t in tiers], n, rng)
    inflation *= (visible / INFLATION_REFERENCE_TOKENS) ** np.array([t.inflation_exponent for t in tiers])
    input_tokens = np.repeat(_whole(lengths[:, :1]), k, axis=1)
    return input_tokens, _whole(visible), np.maximum(_whole(visible * inflation), _whole(visible))


def _times(
    tiers: list[TierSpec], visible: FloatArray, billed: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """`N x K` time to the first visible token and end-to-end latency, both without contention, seconds."""
    speed = np.array([t.tokens_per_s for t in tiers])
    base_s = _lognormal([t.ttft_median_s for t in tiers], [t.ttft_sigma for t in tiers], len(visible), rng)
    ttft_s = base_s + (billed - visible) / speed
    return ttft_s, ttft_s + visible / speed


def _whole(tokens: FloatArray) -> FloatArray:
    return np.maximum(np.rint(tokens), 1.0)


def _lognormal(median: list[float], sigma: list[float], n: int, rng: np.random.Generator) -> FloatArray:
    """`n x len(median)` independent lognormal draws."""
    return np.array(median) * np.exp(np.array(sigma) * rng.standard_normal((n, len(median))))


def _signals(spec: ScenarioSpec, difficulty: FloatArray, rng: np.random.Generator) -> dict[str, FloatArray]:
    r"""The scenario's own noisy classifier: `N` difficulty scores and `N` confidences in [0.5, 1].

    Two jointly Gaussian variables agree in sign with probability $a = 1/2 + \arcsin(r) / \pi$, so the correlation of
    score and difficulty is $r = \sin(\pi (a - 1/2))$. The confidence is P(D on the score's side of the centre | score)
    $= \Phi(|u| r / \sqrt{1 - r^2})$ for a standardised score u. Slices make D a mixture of Gaussians, so both hold only
    approximately, and the population mean stands in for its median.
    """
    slices = list(spec.slices.values())
    shares = np.array([s.share for s in slices])
    means = np.array([s.difficulty for s in slices])
    centre = float(np.average(means, weights=shares))
    sd = float(np.sqrt(spec.difficulty_sd**2 + np.average((means - centre) ** 2, weights=shares)))
    r = np.sin(np.pi * (spec.classifier_agreement - 0.5))
    noise_sd = sd * np.sqrt(1.0 / r**2 - 1.0)
    score = difficulty + noise_sd * rng.standard_normal(len(difficulty))
    u = (score - centre) * r / sd  # the score's own standard deviation is sd / r
    return {"difficulty_score": score, "confidence": ndtr(np.abs(u) * r / np.sqrt(1.0 - r**2))}
