"""Settings of `routefront compare`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from experiments.settings import Seed, _Settings
from experiments.tracking_settings import NoTracking, TrackingSettings


class CompareSettings(_Settings):
    """`routefront compare`.

    Attributes:
        tracking: Whether the comparison is recorded as a run of W&B too.
        runs: Run folders, or folders of a sweep, which stand for their jobs.
        output: Where the comparison is written.
        allow_different: Compare runs on different data or axes all the same, in the axes of the first.
        resamples: Bootstrap resamples over seeds.
        seed: Of the bootstrap.
    """

    tracking: TrackingSettings = NoTracking(kind="none")
    runs: list[str] | str
    output: str | None
    allow_different: bool = False
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 2000
    seed: Seed = 0
