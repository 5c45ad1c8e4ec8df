"""Typed settings of the `lane` group: what goes ahead of the policy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NoLane(_Settings):
    """`lane=none`."""

    kind: Literal["none"]


class ConfidenceLane(_Settings):
    """`lane=confidence`: below the floor to the tier of low confidence."""

    kind: Literal["confidence"]
    confidence_floor: Fraction


class HeadSettings(_Settings):
    """What the eligibility head predicts, and from which probability on it pins."""

    tier: str | None
    against: str | None
    margin: Annotated[float, Field(ge=0, lt=1)]
    threshold: Fraction
    recall: Annotated[float, Field(gt=0, le=1)] | None


class EligibilityLane(HeadSettings):
    """`lane=eligibility`: where thinking is likely to pay, to one tier."""

    kind: Literal["eligibility"]


class BothLanes(HeadSettings):
    """`lane=both`: eligible first, then low confidence."""

    kind: Literal["both"]
    confidence_floor: Fraction


LaneSettings = Annotated[NoLane | ConfidenceLane | EligibilityLane | BothLanes, Field(discriminator="kind")]
