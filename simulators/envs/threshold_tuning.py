"""`ThresholdTuning-v0`: the thresholds of a router, set anew for every window of traffic.

`ThresholdTuningEnv` is one environment, `ThresholdTuningVectorEnv` n of them in one and the same traffic, so that
their returns differ by what they did alone. What they mean is in docs/environments.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from simulators.envs.figures import Figures
from simulators.envs.load_scale import LoadScale
from simulators.envs.tuning_episode import Limit, Step, TuningEpisodes, TuningSpec
from simulators.errors import ConfigError

__all__ = ["Limit", "ThresholdTuningEnv", "ThresholdTuningVectorEnv", "TuningSpec"]

Float32Array = NDArray[np.float32]
Info = dict[str, Any]


class _Shell:
    """What both environments show of their episodes."""

    episodes: TuningEpisodes

    @property
    def tuning(self) -> TuningSpec:
        """The task."""
        return self.episodes.tuning

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The constraints, in the order of `info["slack"]`."""
        return self.tuning.limits

    @property
    def layout(self) -> dict[str, slice]:
        """Name -> columns of the observation; see `simulators.envs.telemetry.Observer`."""
        return self.episodes.observer.layout

    @property
    def scale(self) -> LoadScale:
        """Actions to thresholds and back."""
        return self.episodes.scale

    @property
    def n_windows(self) -> int:
        """Steps of an episode."""
        return self.tuning.n_windows

    @property
    def totals(self) -> Figures:
        """Sums of the episode so far, or of the one that has just ended (of the next one already with `SAME_STEP`)."""
        return self.episodes.totals

    def set_multipliers(self, multipliers: ArrayLike) -> None:
        """Weights of the slacks, 0 or more: `c`, or `n x c`; seen with `context`, paid for with `penalised`."""
        self.episodes.set_multipliers(multipliers)

    def set_at_most(self, at_most: ArrayLike) -> None:
        """Other bounds than the limits state: `c`, or `n x c`."""
        self.episodes.set_at_most(at_most)


class ThresholdTuningEnv(_Shell, gymnasium.Env[Float32Array, Float32Array]):
    """One router in one world at a time.

    Args:
        tuning: Table, score, traffic, limits and what is seen.
        render_mode: None; there is nothing to draw.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium declares it so)

    def __init__(self, tuning: TuningSpec, *, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.episodes = TuningEpisodes(tuning, 1)
        self.observation_space, self.action_space = _spaces(self.episodes)

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Float32Array, Info]:
        """Begin an episode in new traffic, or in that of `options`: `traffic_seed` or `world`.

        With `multipliers` and `at_most` among the options those are set as well.
        """
        super().reset(seed=seed)
        seen, info = self.episodes.begin(self.np_random, options)
        return seen[0], _first(info)

    def step(self, action: Float32Array) -> tuple[Float32Array, float, bool, bool, Info]:
        """One window under the thresholds of `action: K-1` load positions."""
        step = self.episodes.step(np.asarray(action)[None, :])
        return step.seen[0], float(step.reward[0]), step.over, False, _first(step.info)


class ThresholdTuningVectorEnv(_Shell, VectorEnv[Float32Array, Float32Array, Any]):
    """n routers in one world at a time; all episodes end together.

    Seeded alike, all of them see the traffic that the single environment sees.

    Args:
        tuning: As for one environment.
        num_envs: n.
        autoreset_mode: What follows the end of an episode: the next step begins another one whatever the actions
            (`NEXT_STEP`), it begins at once (`SAME_STEP`, with `final_obs` and `final_info`), or `reset` has to be
            called (`DISABLED`).
    """

    def __init__(
        self, tuning: TuningSpec, num_envs: int, *, autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP
    ) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs: expected at least 1; got {num_envs}")
        self.num_envs, self._mode = num_envs, AutoresetMode(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": self._mode}
        self.episodes = TuningEpisodes(tuning, num_envs)
        self.single_observation_space, self.single_action_space = _spaces(self.episodes)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Float32Array, Info]:
        """As for one environment; multipliers and bounds may be `n x c`."""
        super().reset(seed=seed)
        seen, info = self.episodes.begin(self.np_random, options)
        return seen, self._masked(info)

    def step(self, actions: Float32Array) -> tuple[Float32Array, NDArray[np.float64], Any, Any, Info]:
        """One window under the thresholds of `actions: n x (K-1)`."""
        never = np.zeros(self.num_envs, dtype=np.bool_)
        if self.episodes.over and self._mode is AutoresetMode.NEXT_STEP:
            seen, info = self.reset()
            return seen, np.zeros(self.num_envs), never, never.copy(), info
        step = self.episodes.step(np.asarray(actions))
        seen, info = step.seen, self._masked(step.info)
        if step.over and self._mode is AutoresetMode.SAME_STEP:
            seen, info = self._next_at_once(step)
        return seen, step.reward, ~never if step.over else never, never.copy(), info

    def _next_at_once(self, step: Step) -> tuple[Float32Array, Info]:
        seen, info = self.reset()
        last = {"final_obs": np.array([*step.seen, None], dtype=object)[:-1], "final_info": self._masked(step.info)}
        return seen, info | last | {f"_{name}": np.ones(self.num_envs, dtype=np.bool_) for name in last}

    def _masked(self, info: Mapping[str, NDArray[Any]]) -> Info:
        """Gymnasium's batched form: an array for all, and under `_NAME` whose values are there."""
        return {**info, **{f"_{name}": np.ones(self.num_envs, dtype=np.bool_) for name in info}}


def _spaces(episodes: TuningEpisodes) -> tuple[gymnasium.Space[Float32Array], gymnasium.Space[Float32Array]]:
    seen = gymnasium.spaces.Box(-1.0, 1.0, (episodes.observer.size,), np.float32)
    return seen, gymnasium.spaces.Box(0.0, 1.0, (episodes.n_boundaries,), np.float32)


def _first(info: Mapping[str, NDArray[Any]]) -> Info:
    """The one environment's values, single numbers as Python's."""
    return {name: values[0].item() if values.ndim == 1 else values[0] for name, values in info.items()}
