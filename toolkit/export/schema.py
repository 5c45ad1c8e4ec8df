"""`policy.json`: the versioned schema of a chosen policy, and reading one back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from simulators.errors import InputDataError
from simulators.outcomes import FloatArray, OutcomeTable
from toolkit.policies.base import Policy
from toolkit.policies.lanes import Lanes
from toolkit.policies.target import TargetPolicy
from toolkit.policies.thresholds import ThresholdPolicy
from toolkit.policies.utility import UtilityPolicy
from toolkit.scorers.overhead import RouterOverhead

SCHEMA_VERSION: Literal[1] = 1


class LanesFile(BaseModel):
    """Where a query goes when its score cannot be used; tiers by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fallback_tier: str
    low_confidence_tier: str
    confidence_floor: Annotated[float, Field(ge=0, le=1)] | None = None
    eligible_tier: str | None = None
    eligibility_threshold: Annotated[float, Field(ge=0, le=1)] | None = None


class Provenance(BaseModel):
    """What produced a policy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    routefront_version: str
    git_commit: str | None
    seed: int
    created: str
    source: str


class PolicyFile(BaseModel):
    """A chosen policy.

    Attributes:
        schema_version: Version of this schema.
        policy: Family of the policy.
        tiers: Names, cheapest first.
        thresholds: `K-1` boundaries on the score for `thresholds`, else null. A boundary of ±1.797e308 is one that no
            (every) score reaches.
        slice_thresholds: Slice -> boundaries that replace `thresholds` for its queries, or null.
        space: What was searched; names in `conf/space/`.
        world: Contention that latencies were tuned under (rate, slots), or null: nobody waited.
        router: Time and money of the router itself, contained in every figure of the policy, or null: none stated.
        utility: `lambda` and `b_1 ... b_{K-1}` for `utility`, else null.
        target: `tau`, the quality that is requested of the trained policy, for `target`, else null; the trained policy
            itself is in the run's `scorer` folder.
        lanes: Fallbacks.
        scorer: What the scorer described; its files are in the run's `scorer` folder.
        objectives: Metrics that were optimised.
        constraints: Name -> limit.
        chosen_because: One sentence.
        data_hash: Hash of the table the run was tuned and validated on.
        metrics: `tune` and `validate` figures.
        evidence: Validation evidence: intervals against single tiers and the Zero router.
        provenance: Versions, seed, date.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = SCHEMA_VERSION
    policy: Literal["thresholds", "utility", "target"]
    tiers: Annotated[list[str], Field(min_length=2)]
    thresholds: list[float] | None
    slice_thresholds: dict[str, list[float]] | None = None
    space: str = "policy"
    world: dict[str, object] | None = None
    router: RouterOverhead | None = None
    utility: dict[str, float] | None
    target: dict[str, float] | None = None
    lanes: LanesFile
    scorer: dict[str, object]
    objectives: list[str]
    constraints: dict[str, float]
    chosen_because: str
    data_hash: str
    metrics: dict[str, object]
    evidence: dict[str, object]
    provenance: Provenance

    @model_validator(mode="after")
    def _consistent(self) -> PolicyFile:
        expected = len(self.tiers) - 1
        if self.policy == "thresholds":
            t = self.thresholds
            if t is None or len(t) != expected or not np.isfinite(t).all() or sorted(t) != t:
                raise ValueError(f"thresholds must be {expected} finite numbers that never decrease; got {t}")
            for name, own in (self.slice_thresholds or {}).items():
                if len(own) != expected or not np.isfinite(own).all() or sorted(own) != own:
                    raise ValueError(f"slice_thresholds[{name}] must be {expected} finite numbers that never decrease")
        elif self.policy == "target":
            if self.target is None or set(self.target) != {"tau"} or not 0 <= self.target["tau"] <= 1:
                raise ValueError(f"target must hold tau in [0, 1]; got {self.target}")
        elif self.utility is None or set(self.utility) != set(UtilityPolicy().parameter_names(len(self.tiers))):
            raise ValueError(f"utility must hold lambda and {expected} offsets; got {self.utility}")
        elif not np.isfinite(list(self.utility.values())).all() or self.utility["lambda"] < 0:
            raise ValueError(f"lambda and offsets must be finite, lambda not negative; got {self.utility}")
        lanes = self.lanes
        if (lanes.eligible_tier is None) != (lanes.eligibility_threshold is None):
            raise ValueError("lanes must hold both eligible_tier and eligibility_threshold, or neither")
        unknown = {lanes.fallback_tier, lanes.low_confidence_tier, lanes.eligible_tier} - {*self.tiers, None}
        if unknown:
            raise ValueError(f"lanes name tiers that the policy does not have: {sorted(map(str, unknown))}")
        return self

    @property
    def family(self) -> Policy:
        """The policy family."""
        if self.policy == "target":
            return TargetPolicy()
        return ThresholdPolicy() if self.policy == "thresholds" else UtilityPolicy()

    def behind_router(self, table: OutcomeTable) -> OutcomeTable:
        """The table with the router's time and money in it, where any are stated.

        Raises:
            InputDataError: If the queries lack what they depend on.
        """
        return table if self.router is None else self.router.apply(table)

    @property
    def params(self) -> FloatArray:
        """`p` parameters in the family's order."""
        values = self.thresholds or []
        named = self.target if self.policy == "target" else self.utility
        if named is not None:
            values = [named[name] for name in self.family.parameter_names(len(self.tiers))]
        return np.array(values, dtype=np.float64)

    def runtime_lanes(self) -> Lanes:
        """The lanes with tiers as indices."""
        return Lanes(
            fallback_tier=self.tiers.index(self.lanes.fallback_tier),
            low_confidence_tier=self.tiers.index(self.lanes.low_confidence_tier),
            confidence_floor=self.lanes.confidence_floor,
            eligible_tier=None if self.lanes.eligible_tier is None else self.tiers.index(self.lanes.eligible_tier),
            eligibility_threshold=self.lanes.eligibility_threshold,
        )


def read_policy(path: Path) -> PolicyFile:
    """Read a `policy.json`.

    Raises:
        InputDataError: If it is missing or not a policy of this schema.
    """
    if not path.is_file():
        raise InputDataError(
            f"expected a finished run with a policy at {path}, but there is none; run routefront tune first"
        )
    try:
        return PolicyFile.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputDataError(f"{path} is not a policy of schema {SCHEMA_VERSION}: {where} {first['msg']}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputDataError(f"{path} is not JSON ({error}); restore it or run routefront tune again") from error
