"""Typed settings of `routefront calibrate`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from experiments.settings import RecordedData, Seed, SliceSettings

Positive = Annotated[float, Field(gt=0)]
Sigma = Annotated[float, Field(ge=0, le=4)]
Tokens = Annotated[float, Field(ge=1, le=1e6)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AssumeSettings(_Settings):
    """What the data does not hold and the user states; per tier as `{TIER: number}` where a tier has it."""

    input_tokens: Tokens | None
    input_sigma: Sigma | None
    output_tokens: Tokens | None
    output_sigma: Sigma | None
    ttft_s: Positive | dict[str, Positive] | None
    ttft_sigma: Sigma | dict[str, Sigma] | None
    tokens_per_s: Positive | dict[str, Positive] | None
    classifier_agreement: Annotated[float, Field(gt=0.5, lt=1)]

    def of_tier(self, name: Literal["ttft_s", "ttft_sigma", "tokens_per_s"], *names: str) -> float | None:
        """The assumption for the tier that goes by any of `names`; None where there is none."""
        value = getattr(self, name)
        if isinstance(value, dict):
            return next((float(value[n]) for n in names if n in value), None)
        return None if value is None else float(value)


class CalibrateSettings(_Settings):
    """`routefront calibrate`."""

    data: RecordedData
    name: str | None
    traces: str | None
    latency: str | None
    latency_models: dict[str, str] | None
    arrivals: Literal["auto", "poisson", "gamma", "weibull", "diurnal", "replay"]
    lengths: Literal["recorded", "histogram", "trace"]
    reference: str | None
    reasoning: list[str] | None
    rate_per_s: Positive | None
    duration_s: Positive | None
    warmup_s: Annotated[float, Field(ge=0)]
    slots: dict[str, Annotated[int, Field(ge=1)]] | None
    assume: AssumeSettings
    slices: SliceSettings
    check_queries: Annotated[int, Field(ge=100, le=2_000_000)]
    seed: Seed
    output: str | None
