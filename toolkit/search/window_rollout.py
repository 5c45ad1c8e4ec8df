"""Whole episodes of a window policy.

Notation: G environments with traffic of their own, each of n candidates side by side, E = G n; T windows of an episode,
d observed figures, A boundaries, c constraints.

A constraint is an *exceedance share*: what exceeds (late answers, wrong answers, dollars) over all that is counted, at
most a limit. Both are sums; an environment hands out the slack of each window such that its mean over an episode is
limit minus share, exactly. Over several episodes, costs are weighted by requests and a share by the requests that its
constraint counts (those of its slice): again a ratio of sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import FloatArray
from toolkit.search.ppo_network import log_density
from toolkit.search.window_policy import WindowPolicy, as_action


class WindowEnvironment(Protocol):
    """What is asked of an environment: n candidates on one traffic; `ThresholdTuning-v0` as a vector is one.

    `infos` of a step holds `slack: n x c` and `requests: n`, of the window just played. Where a constraint is on one
    slice, also `requests_by_constraint: n x c`; without it every constraint counts all requests.
    """

    @property
    def num_envs(self) -> int: ...

    def reset(self, *, seed: int, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]: ...

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]: ...


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """Whole episodes, all of T windows.

    Attributes:
        observation: `T x E x d` before each action.
        action: `T x E x A` as drawn, neither clipped nor sorted.
        log_density: `T x E` of the draw; 0 where the policy was deterministic.
        reward: `T x E`, the negated cost on the environment's scale.
        slack: `T x E x c`.
        requests: `T x E` that were counted.
        requests_by_constraint: `T x E x c` of those, the ones that each constraint counts.
    """

    observation: FloatArray
    action: FloatArray
    log_density: FloatArray
    reward: FloatArray
    slack: FloatArray
    requests: FloatArray
    requests_by_constraint: FloatArray

    @property
    def cost(self) -> float:
        """Cost per request on the environment's scale, over all episodes."""
        return float(-self.reward.mean(axis=0) @ self._weights)

    def shares(self, limits: FloatArray) -> FloatArray:
        """`c` exceedance shares over all episodes, given the environment's `limits: c`."""
        slack, counted = self.slack.mean(axis=0), self.requests_by_constraint
        found = self._weights @ slack
        for i in np.flatnonzero((counted != self.requests[:, :, None]).any(axis=(0, 1))):
            found[i] = _parts(counted[:, :, i]) @ slack[:, i]
        return np.asarray(limits - found)

    @property
    def _weights(self) -> FloatArray:
        return _parts(self.requests)


def _parts(requests: FloatArray) -> FloatArray:
    """`E` parts of `requests: T x E` that each episode has; equal where none was counted."""
    total = requests.sum(axis=0)
    return np.asarray(total / total.sum()) if total.any() else np.full(len(total), 1 / len(total))


def play(
    environments: Sequence[WindowEnvironment],
    policy: WindowPolicy,
    seeds: Sequence[int],
    *,
    log_std: FloatArray | None = None,
    rng: np.random.Generator | None = None,
) -> Rollout:
    """One episode per environment and candidate.

    Args:
        environments: G environments; they may be one and the same, they play in turn.
        policy: Who acts.
        seeds: G seeds of the traffic.
        log_std: `A` logarithms of the spread of the noise on actions; None plays the policy as it is.
        rng: Source of the noise.

    Raises:
        InputDataError: If episodes end at different windows, or the environment's figures are not finite.
    """
    parts = [_episodes(e, policy, s, log_std, rng) for e, s in zip(environments, seeds, strict=True)]
    if len({len(part.reward) for part in parts}) != 1:
        raise InputDataError(f"episodes must be of one length; got {sorted({len(p.reward) for p in parts})} windows")
    names = [field.name for field in fields(Rollout)]
    return Rollout(**{name: np.concatenate([getattr(part, name) for part in parts], axis=1) for name in names})


def _episodes(
    environment: WindowEnvironment,
    policy: WindowPolicy,
    seed: int,
    log_std: FloatArray | None,
    rng: np.random.Generator | None,
) -> Rollout:
    """One episode of each candidate on one traffic."""
    observation, _ = environment.reset(seed=int(seed), options={"traffic_seed": int(seed)})
    steps: list[tuple[Any, ...]] = []
    done = np.zeros(environment.num_envs, dtype=np.bool_)
    while not done.all():
        mean = policy.mean(policy.normalise(observation))
        action, density = mean, np.zeros(len(mean))
        if log_std is not None and rng is not None:
            action = mean + np.exp(log_std) * rng.standard_normal(mean.shape)
            density = log_density(action, mean, log_std)
        following, reward, terminated, truncated, infos = environment.step(as_action(action))
        figures = (observation, action, density, reward, infos["slack"], infos["requests"], _counted(infos))
        steps.append(tuple(np.array(values, dtype=np.float64) for values in figures))
        observation, done = following, np.asarray(terminated) | np.asarray(truncated)
        if done.any() and not done.all():
            raise InputDataError(f"candidates must end together; after window {len(steps)}, {done.sum()} had ended")
    stacked = [np.stack(values) for values in zip(*steps, strict=True)]
    if not all(np.isfinite(values).all() for values in stacked):
        raise InputDataError("the environment gave a figure that is not finite; missing ones must be encoded")
    return Rollout(**{field.name: values for field, values in zip(fields(Rollout), stacked, strict=True)})


def _counted(infos: dict[str, Any]) -> FloatArray:
    """`n x c` requests of a window by constraint."""
    every = np.broadcast_to(np.asarray(infos["requests"])[:, None], np.shape(infos["slack"]))
    return np.asarray(infos.get("requests_by_constraint", every))


def traffic_seeds(rng: np.random.Generator, n: int) -> list[int]:
    """`n` seeds of traffic.

    Raises:
        ConfigError: If none is asked for.
    """
    if n < 1:
        raise ConfigError(f"at least one traffic is needed; got {n}")
    return [int(seed) for seed in rng.integers(2**31, size=n)]
