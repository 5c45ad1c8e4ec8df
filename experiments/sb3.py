"""A Gymnasium vector environment as stable-baselines3 wants it: what the bench and the tests train its PPO on.

stable-baselines3 has its own `VecEnv`, older than Gymnasium's, and makes one of single environments; a native vector
environment takes n steps in a few array operations, and this keeps it so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from simulators.errors import MissingDependencyError

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv


def require_sb3() -> Any:
    """The package.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    try:
        import stable_baselines3
    except ImportError as error:
        raise MissingDependencyError(
            f"this needs stable-baselines3 ({error}); pip install stable-baselines3"
        ) from error
    return stable_baselines3


def as_vec_env(envs: VectorEnv[Any, Any, Any], *, seed: int) -> Any:
    """A `VecEnv` around a vector environment that resets in the same step, or whose environments end together.

    Args:
        envs: The environment; seeded with `seed` here.
        seed: Of its first reset.

    Raises:
        MissingDependencyError: If stable-baselines3 is not installed.
    """
    require_sb3()
    from gymnasium.vector import AutoresetMode
    from stable_baselines3.common.vec_env import VecEnv

    same_step = envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP

    class GymnasiumVecEnv(VecEnv):  # type: ignore[misc, unused-ignore]  # an untyped base
        """See `as_vec_env`."""

        def __init__(self) -> None:
            super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
            self._first_seed: int | None = seed
            self._actions: Any = None

        def reset(self) -> Any:
            obs, _ = envs.reset(seed=self._first_seed)
            self._first_seed = None
            return obs

        def step_async(self, actions: Any) -> None:
            self._actions = actions

        def step_wait(self) -> Any:
            obs, reward, terminated, truncated, info = envs.step(self._actions)
            done = terminated | truncated
            infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
            if done.any():
                last = info["final_obs"] if same_step else obs
                for i in np.flatnonzero(done):
                    cut = bool(truncated[i] and not terminated[i])
                    infos[i] = {"terminal_observation": last[i], "TimeLimit.truncated": cut}
                if not same_step:
                    assert done.all(), "without a reset in the same step, all environments must end together"
                    obs, _ = envs.reset()
            return obs, reward.astype(np.float32), done, infos

        def close(self) -> None:
            envs.close()

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            return [getattr(envs, attr_name)] * self._count(indices)

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
            setattr(envs, attr_name, value)

        def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
            return [getattr(envs, method_name)(*args, **kwargs)] * self._count(indices)

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            return [False] * self._count(indices)

        def _count(self, indices: int | Sequence[int] | None) -> int:
            return self.num_envs if indices is None else 1 if isinstance(indices, int) else len(indices)

    return GymnasiumVecEnv()
