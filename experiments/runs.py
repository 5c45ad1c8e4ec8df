"""Reading a finished run back: its policy and its scorer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.loading import required
from simulators.columns import need_columns, read_columns
from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import QueryBatch
from toolkit.export.schema import PolicyFile, read_policy
from toolkit.policies.base import Decisions, decide
from toolkit.scorers.base import FittedScorer
from toolkit.scorers.registry import load_scorer

_LANE_COLUMNS = {
    "confidence": ("confidence_floor", "low_confidence_tier"),
    "eligibility": ("eligibility_threshold",),
}
"""Space -> columns of the front that are parameters of a lane."""


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A run that has chosen a policy."""

    path: Path
    policy: PolicyFile
    scorer: FittedScorer

    def decide(self, queries: QueryBatch) -> Decisions:
        """Route queries.

        Raises:
            InputDataError: If the policy has boundaries per slice and the queries carry no slice.
        """
        policy, scores = self.policy, self.scorer.predict(queries)
        lanes, own = policy.runtime_lanes(), policy.slice_thresholds or {}
        found = decide(policy.family, policy.params, scores, lanes)
        if not own:
            return found
        if queries.slice is None:
            raise InputDataError(
                f"the policy has thresholds of its own for {list(own)}: the queries need a slice column"
            )
        tier, reason = found.tier.copy(), np.array(found.reason, dtype=object)
        for name, thresholds in own.items():
            rows = np.flatnonzero(queries.slice == name)
            part = decide(policy.family, np.array(thresholds), scores.take(rows), lanes)
            tier[rows], reason[rows] = part.tier, [f"{name}: {text}" for text in part.reason]
        return Decisions(tier=tier, score=found.score, reason=tuple(reason.tolist()), lane=found.lane)


def open_policy(run: str | None) -> tuple[Path, PolicyFile]:
    """Folder and policy of a run.

    Raises:
        InputDataError: If there is no finished run.
    """
    path = Path(required(run, "run"))
    if not path.is_dir():
        raise InputDataError(f"run={path} is not a folder; give the out=DIR of a routefront tune")
    return path, read_policy(path / "policy.json")


def open_finished(run: str | None) -> FinishedRun:
    """A run with its scorer loaded."""
    path, policy = open_policy(run)
    return FinishedRun(path=path, policy=policy, scorer=load_scorer(policy.scorer, path / "scorer"))


def at_quality(run: FinishedRun, quality: float) -> FinishedRun:
    """The run with the cheapest point of its front that reached `quality` on the tune split.

    Raises:
        ConfigError: If none did, or the run searched something of which the front holds no policy by itself.
    """
    policy = run.policy
    if policy.space not in {"policy", *_LANE_COLUMNS}:
        known = " or ".join(f"space={name}" for name in ("policy", *_LANE_COLUMNS))
        raise ConfigError(f"at.quality needs a run with {known}; this one has {policy.space}")
    names = policy.family.parameter_names(len(policy.tiers))
    path = run.path / "front.parquet"
    front = read_columns(path)
    lane = _LANE_COLUMNS.get(policy.space, ())
    need_columns(front, ["quality", *names, *lane], path)
    reached = np.asarray(front["quality"].to_numpy())
    rows = np.flatnonzero(reached >= quality)
    if len(rows) == 0:
        raise ConfigError(
            f"at.quality={quality:g}: the run's front reaches at most {reached.max():.4f} on the tune split"
        )
    order = front["cost_usd"].to_numpy() if "cost_usd" in front.column_names else reached
    row = int(rows[np.argmin(order[rows])])
    values = {name: float(front[name][row].as_py()) for name in (*names, *lane)}
    return dataclasses.replace(run, policy=_changed(policy, values))


def _changed(policy: PolicyFile, values: dict[str, float]) -> PolicyFile:
    """The policy with other parameters."""
    update: dict[str, object] = {}
    if "eligibility_threshold" in values:
        lane = {"eligibility_threshold": values.pop("eligibility_threshold")}
        update["lanes"] = policy.lanes.model_copy(update=lane)
    if "confidence_floor" in values:
        tier = policy.tiers[round(values.pop("low_confidence_tier"))]
        floor = {"confidence_floor": values.pop("confidence_floor"), "low_confidence_tier": tier}
        update["lanes"] = policy.lanes.model_copy(update=floor)
    update[policy.policy] = list(values.values()) if policy.policy == "thresholds" else values
    return policy.model_copy(update=update)
