"""Typed settings of the controllers that learn: `proteus` and `ppo_lagrangian`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PerQuerySettings(_Settings):
    """Training of the policy per query; see `toolkit.search.proteus.ProteusOptions`.

    Attributes:
        compare: With policy=thresholds or utility: train it as well, and report what the parameters lose against it.
        features, dimensions: What the network sees of a prompt, beside the predictions.
    """

    compare: bool
    features: Literal["tfidf", "hashed", "sentence"]
    dimensions: Annotated[int, Field(ge=0, le=4096)]
    gradient: Literal["exact", "sampled"]
    gamma: Positive | None
    critic: bool
    reward: Literal["label", "prediction"]
    tau_draw: Literal["query", "batch"]
    hidden: Count
    steps: Count
    batch: Count
    learning_rate: Positive
    weight_decay: NotNegative
    common_rate: Positive
    boost_rate: NotNegative | None
    bins: Annotated[int, Field(ge=2)]
    dual_step: Positive | None
    settle: Annotated[int, Field(ge=0)]


class SearchOverParameters(_Settings):
    """Search for thresholds or utilities, for all requested qualities; see `toolkit.search.lagrangian`."""

    rounds: Count
    steps: Count
    dual_step: Positive
    penalty: NotNegative


class ProteusSettings(_Settings):
    """`controller=proteus`.

    Attributes:
        lambda_: `per_tau`, `pid` (both one multiplier per requested quality), `scalar` (the paper's), or `none`.
        levels: Requested qualities.
        tau_range: The lowest and the highest one; None: from the worst single tier to beyond the best one.
    """

    kind: Literal["proteus"]
    lambda_: Annotated[Literal["per_tau", "pid", "scalar", "none"], Field(alias="lambda")]
    levels: Annotated[int, Field(ge=2, le=1001)]
    tau_range: tuple[Share, Share] | None
    per_query: PerQuerySettings
    search: SearchOverParameters

    @field_validator("tau_range")
    @classmethod
    def _ascending(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError("expected [low, high] with low < high")
        return value


class PpoLagrangianSettings(_Settings):
    """`controller=ppo_lagrangian`; see `toolkit.search.ppo_options.PpoLagrangianOptions`.

    Attributes:
        window_s: Length of a window; None: a 96th of the traffic.
        label_share, label_lag: Share of the answers whose quality becomes known, and after how many windows.
        n_initial: Static thresholds that are tried before training starts at the best of them.
        unseen: Traffics in which the trained policy is judged.
    """

    kind: Literal["ppo_lagrangian"]
    window_s: Positive | None
    label_share: Share
    label_lag: Annotated[int, Field(ge=0)]
    n_initial: Count | None
    unseen: Annotated[int, Field(ge=2)]
    dual: Literal["gradient", "pid"]
    iterations: Count
    traffics: Count
    copies: Count
    lr: Positive
    span: Annotated[float, Field(gt=0, le=1)]
    noise: Positive
    margin: Annotated[float, Field(ge=0, lt=1)]
    validation_traffics: Count
