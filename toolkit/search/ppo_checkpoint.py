"""What a training of `ppo_lagrangian` has to remember, and the file that holds it.

The file is one npz, so that it is replaced whole: arrays, and JSON as text for the rest. Noise and shuffles are seeded
per iteration, so that no state of a generator is among it.
"""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simulators.errors import InputDataError
from simulators.outcomes import FloatArray
from toolkit.search.multipliers import DualState
from toolkit.search.window_policy import WindowPolicy

_FORMAT = 1
_SMALLEST_STD = 1e-2


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Running mean and spread of `d` figures.

    Attributes:
        count: How often they were seen.
        mean: `d`.
        squares: `d` sums of squared deviations from the mean.
    """

    count: int
    mean: FloatArray
    squares: FloatArray

    @staticmethod
    def nothing(d: int) -> Observed:
        """Before the first figure."""
        return Observed(count=0, mean=np.zeros(d), squares=np.zeros(d))

    @property
    def std(self) -> FloatArray:
        """`d`, floored, so that a constant figure does not blow up when it moves at last."""
        return np.maximum(np.sqrt(self.squares / max(self.count, 1)), _SMALLEST_STD)

    def including(self, observation: FloatArray) -> Observed:
        """With `observation: ... x d` too."""
        rows = observation.reshape(-1, observation.shape[-1])
        n, total = len(rows), self.count + len(rows)
        mean, distance = rows.mean(axis=0), rows.mean(axis=0) - self.mean
        squares = ((rows - mean) ** 2).sum(axis=0) + distance**2 * (self.count * n / total)
        return Observed(count=total, mean=self.mean + distance * n / total, squares=self.squares + squares)


@dataclass(kw_only=True)
class TrainingState:
    """A training between two iterations.

    Attributes:
        iteration: Iterations done.
        weights: Of both networks.
        moments: Adam's, two per weight, and its step count.
        observed: Spread of the observations.
        unit_cost: The untrained policy's cost per request on the environment's scale: the unit of rewards.
        dual: Multipliers.
        history: See `TrainedWindowPolicy`.
        best: Weights of the actor, mean and std of the best policy so far.
        best_iteration: Iterations after which it was found.
        best_rank: Its relative exceedance beyond the limits, and its cost.
        n_steps: Windows played.
        seconds: Time spent.
    """

    iteration: int
    weights: dict[str, FloatArray]
    moments: dict[str, FloatArray]
    observed: Observed
    unit_cost: float
    dual: DualState
    history: dict[str, FloatArray]
    best: dict[str, FloatArray]
    best_iteration: int
    best_rank: tuple[float, float]
    n_steps: int
    seconds: float

    def policy(self, span: float) -> WindowPolicy:
        """The policy as it is now."""
        return policy_of(self.snapshot(), span)

    def snapshot(self) -> dict[str, FloatArray]:
        """What the policy consists of, as in `best`."""
        actor = {name: array for name, array in self.weights.items() if name.startswith("actor_") or name == "home"}
        return actor | {"observation_mean": self.observed.mean, "observation_std": self.observed.std}


def policy_of(snapshot: dict[str, FloatArray], span: float) -> WindowPolicy:
    """The policy of `TrainingState.snapshot`."""
    weights = dict(snapshot)
    mean, std = weights.pop("observation_mean"), weights.pop("observation_std")
    return WindowPolicy(weights=weights, observation_mean=mean, observation_std=std, span=span)


def write_checkpoint(path: Path, state: TrainingState, key: dict[str, Any]) -> None:
    """Replace the file at once; `key` says whose it is."""
    groups = {"weights": state.weights, "moments": state.moments, "history": state.history, "best": state.best}
    arrays: dict[str, Any] = {f"{group}/{name}": a for group, named in groups.items() for name, a in named.items()}
    arrays |= {"observed/mean": state.observed.mean, "observed/squares": state.observed.squares}
    dual = state.dual
    arrays |= {"dual/value": dual.value, "dual/integral": dual.integral, "dual/previous": dual.previous}
    record = {
        "format": _FORMAT,
        "key": key,
        "iteration": state.iteration,
        "count": state.observed.count,
        "unit_cost": state.unit_cost,
        "best_iteration": state.best_iteration,
        "best_rank": state.best_rank,
        "n_steps": state.n_steps,
        "seconds": state.seconds,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, record=np.array(json.dumps(record)), **arrays)
    os.replace(partial, path)


def read_checkpoint(path: Path, key: dict[str, Any]) -> TrainingState | None:
    """What `write_checkpoint` wrote, or None where there is no file.

    Raises:
        InputDataError: If the file is no checkpoint, or of another training than `key` says.
    """
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: np.asarray(stored[name]) for name in stored.files}
        record = json.loads(str(arrays.pop("record")))
        if record["format"] != _FORMAT:
            raise ValueError(f"format {record['format']} instead of {_FORMAT}")
        stored_key = record["key"]
        state = _state(record, arrays)
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputDataError(f"{path} is not a checkpoint of ppo_lagrangian ({error}); remove it") from error
    if stored_key != json.loads(json.dumps(key)):
        changed = sorted(name for name in key if stored_key.get(name) != json.loads(json.dumps(key[name])))
        raise InputDataError(
            f"{path} belongs to another training ({', '.join(changed)} differ); choose another out=DIR or remove it"
        )
    return state


def _state(record: dict[str, Any], arrays: dict[str, FloatArray]) -> TrainingState:
    def group(name: str) -> dict[str, FloatArray]:
        return {k.removeprefix(f"{name}/"): a for k, a in arrays.items() if k.startswith(f"{name}/")}

    observed, dual = group("observed"), group("dual")
    violation, cost = record["best_rank"]
    return TrainingState(
        iteration=int(record["iteration"]),
        weights=group("weights"),
        moments=group("moments"),
        observed=Observed(count=int(record["count"]), mean=observed["mean"], squares=observed["squares"]),
        unit_cost=float(record["unit_cost"]),
        dual=DualState(value=dual["value"], integral=dual["integral"], previous=dual["previous"]),
        history=group("history"),
        best=group("best"),
        best_iteration=int(record["best_iteration"]),
        best_rank=(float(violation), float(cost)),
        n_steps=int(record["n_steps"]),
        seconds=float(record["seconds"]),
    )
