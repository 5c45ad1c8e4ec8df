"""Typed settings of the `tracking` group."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NoTracking(_Settings):
    """`tracking=none`."""

    kind: Literal["none"]


class WandbTracking(_Settings):
    """`tracking=wandb`."""

    kind: Literal["wandb"]
    mode: Literal["offline", "online"]
    project: Annotated[str, Field(min_length=1)]
    entity: str | None
    group: str | None
    tags: list[str]
    directory: str | None


TrackingSettings = Annotated[NoTracking | WandbTracking, Field(discriminator="kind")]
