"""Options of the `world` group: whether requests wait for each other, and where their traffic comes from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Load = Annotated[float, Field(gt=0, le=1e6)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AutoWorld(_Settings):
    """`world=auto`: the traffic of a scenario that asks for it (`tune_under_load`), else nobody waits."""

    kind: Literal["auto"]
    load: Load = 1.0
    loads: list[Load] = []


class NoWorld(_Settings):
    """`world=none`: nobody waits."""

    kind: Literal["none"]


class QueueSettings(_Settings):
    """`world=queue`: Poisson arrivals, slots per tier."""

    kind: Literal["queue"]
    rate_per_s: Annotated[float, Field(gt=0)]
    slots: dict[str, Annotated[int, Field(ge=1)]]

    @field_validator("slots", mode="before")
    @classmethod
    def _some_slots(cls, slots: object) -> object:
        if not slots:
            raise ValueError("name the tiers that make requests wait, such as 'world.slots={TIER: 8}'")
        return slots


class TrafficSettings(_Settings):
    """`world=traffic`: arrivals, capacity and faults of the scenario, or of `world.traffic`.

    Attributes:
        load: Factor of the arrival rates.
        loads: Factors of `load` at which the report looks at the front again.
        traffic: Instead of the scenario's own; see `simulators.traffic.TrafficSpec`.
    """

    kind: Literal["traffic"]
    load: Load = 1.0
    loads: list[Load] = []
    traffic: dict[str, Any] | None = None


WorldSettings = Annotated[AutoWorld | NoWorld | QueueSettings | TrafficSettings, Field(discriminator="kind")]
World = NoWorld | QueueSettings | TrafficSettings
