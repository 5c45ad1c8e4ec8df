"""Reading a finished run back: its policy and its scorer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.loading import required
from simulators.columns import need_columns, read_columns
from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import FloatArray, QueryBatch
from toolkit.export.schema import PolicyFile, read_policy
from toolkit.policies.base import Decisions, decide
from toolkit.scorers.base import FittedScorer
from toolkit.scorers.registry import load_scorer


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A run that has chosen a policy."""

    path: Path
    policy: PolicyFile
    scorer: FittedScorer

    def decide(self, queries: QueryBatch, params: FloatArray | None = None) -> Decisions:
        """Route queries with the chosen parameters, or with others of the same family."""
        chosen = self.policy.params if params is None else params
        return decide(self.policy.family, chosen, self.scorer.predict(queries), self.policy.runtime_lanes())


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


def front_params(run: FinishedRun, quality: float) -> FloatArray:
    """Parameters of the cheapest point of the run's front that reached `quality` on the tune split.

    Raises:
        ConfigError: If none did.
    """
    names = run.policy.family.parameter_names(len(run.policy.tiers))
    path = run.path / "front.parquet"
    front = read_columns(path)
    need_columns(front, ["quality", *names], path)
    reached = np.asarray(front["quality"].to_numpy())
    rows = np.flatnonzero(reached >= quality)
    if len(rows) == 0:
        raise ConfigError(
            f"at.quality={quality:g}: the run's front reaches at most {reached.max():.4f} on the tune split"
        )
    order = front["cost_usd"].to_numpy() if "cost_usd" in front.column_names else reached
    row = int(rows[np.argmin(order[rows])])
    return np.array([front[name][row].as_py() for name in names], dtype=np.float64)
