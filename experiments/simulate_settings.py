"""Options of `routefront simulate`."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from simulators.errors import ConfigError

_TOLERANCE = 1e-6


class SimulateSettings(BaseModel):
    """`routefront simulate`.

    Attributes:
        run, policy_file, shares: Who routes, exactly one of them: a run's folder, a `policy.json` (`policy=` on the
            command line), or the share of the queries per tier, cheapest first, by the scenario's own classifier.
        scenario: The scenario group.
        load: Factors of the arrival rates, rising.
        replications: Independent draws of queries, arrivals and errors.
        n_queries: Rows of each replication's table; None: 20,000, or with one replication as many as requests.
        slo_s: Limit of the service level.
        seed: The same for all loads.
        output: The JSON; the page lies beside it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str | None
    policy_file: str | None
    shares: list[Annotated[float, Field(ge=0, le=1)]] | None
    scenario: dict[str, Any] | None
    load: list[float]
    replications: Annotated[int, Field(ge=1, le=1000)]
    n_queries: Annotated[int, Field(ge=10, le=10_000_000)] | None
    slo_s: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    seed: Annotated[int, Field(ge=0)]
    output: str | None

    @field_validator("load", mode="before")
    @classmethod
    def _one_or_many(cls, load: object) -> object:
        return load if isinstance(load, list) else [load]

    @field_validator("load")
    @classmethod
    def _rising(cls, load: list[float]) -> list[float]:
        if not load or any(not value > 0 or not math.isfinite(value) for value in load):
            raise ValueError("expected one or more positive factors of the arrival rates, such as load=0.5,1,2")
        return sorted(set(load))

    @field_validator("shares")
    @classmethod
    def _sum_to_one(cls, shares: list[float] | None) -> list[float] | None:
        if shares is not None and abs(sum(shares) - 1.0) > _TOLERANCE:
            raise ValueError(f"expected shares that sum to 1; these sum to {sum(shares):g}")
        return shares


def check_router(settings: SimulateSettings) -> None:
    """Raise `ConfigError` unless exactly one of run, policy and shares is given."""
    found = {"run": settings.run, "policy": settings.policy_file, "shares": settings.shares}
    given = [name for name, value in found.items() if value is not None]
    if len(given) != 1:
        came = " and ".join(given) or "none"
        raise ConfigError(f"expected one of run=DIR, policy=FILE and shares=[0.6,0.3,0.1]; got {came}")
