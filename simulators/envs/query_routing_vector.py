"""`QueryRouting-v0` for n environments at once: the same steps as n single ones, a few array operations each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from simulators.envs.query_routing import (
    Info,
    action_space,
    check_target,
    context,
    draw_episode,
    observation_space,
    read_options,
)
from simulators.envs.routing_task import Action, Float32Array, RoutingTask, bin_of, make_rules, multiplier_table
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray

Flags = NDArray[np.bool_]


class QueryRoutingVectorEnv(VectorEnv[Float32Array, Any, Any]):
    """n independent `QueryRoutingEnv` on one task, in lockstep: their episodes are equally long.

    Seeded with `seed`, environment i is the single one seeded with `seed + i` (or with `seed[i]`). At the end of an
    episode all start the next one in the same step (`AutoresetMode.SAME_STEP`): `info["final_obs"]` and
    `info["final_info"]` hold what the episode ended with, as Gymnasium's `SyncVectorEnv` has it. No step is wasted.

    Args:
        task: Features, answers, predictions and constraints, shared by all.
        num_envs: n.
        multipliers: As for one environment; `set_multipliers` changes them for all.
        action, alpha, lagrangian, gamma, boosts, episode_length: As for one environment.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium declares it so)
        "render_modes": [],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        task: RoutingTask,
        num_envs: int,
        *,
        action: Action = "mu",
        alpha: float = 1.0,
        lagrangian: bool = False,
        gamma: float = 3.0,
        boosts: ArrayLike | None = None,
        multipliers: ArrayLike | Mapping[str, float] | None = None,
        episode_length: int | None = None,
    ) -> None:
        if num_envs < 1:
            raise ConfigError(f"num_envs: expected at least 1; got {num_envs}")
        self.task, self.num_envs = task, num_envs
        self.rules = make_rules(
            task,
            action=action,
            alpha=alpha,
            lagrangian=lagrangian,
            gamma=gamma,
            boosts=boosts,
            episode_length=episode_length,
        )
        self.single_observation_space = observation_space(task)
        self.single_action_space = action_space(task, self.rules)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._table = multiplier_table(task, multipliers)
        self._rngs = [seeding.np_random()[0] for _ in range(num_envs)]
        self._target: FloatArray = np.full(num_envs, task.targets[0])
        self._order: IntArray = np.zeros((num_envs, 0), dtype=np.int64)
        self._at = 0
        self._set_context()

    @property
    def constraint_names(self) -> tuple[str, ...]:
        """`1 + C` names in the order of the multipliers."""
        return self.task.names

    @property
    def multipliers(self) -> FloatArray:
        """`n x (1 + C)` multipliers of these episodes."""
        return self._multipliers.copy()

    def set_multipliers(self, values: ArrayLike | Mapping[str, float]) -> None:
        """Multipliers of all environments from the next observation on; as for one environment."""
        self._table = multiplier_table(self.task, values)
        self._set_context()

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32Array, Info]:
        """Start all episodes; the option `target` is one number or n.

        Raises:
            ConfigError: If there are not n seeds, or an option is unknown or does not fit.
        """
        super().reset(seed=seed if isinstance(seed, int) else None)
        for i, own in enumerate(self._seeds(seed)):
            if own is not None:
                self._rngs[i] = seeding.np_random(own)[0]
        chosen = read_options(options)
        self._draw()
        if "target" in chosen:
            self._target = check_target(chosen["target"], (self.num_envs,))
        if "multipliers" in chosen:
            self._table = multiplier_table(self.task, chosen["multipliers"])
        self._set_context()
        return self._observe(), self._masked({"target": self._target.copy()})

    def step(self, actions: Any) -> tuple[Float32Array, FloatArray, Flags, Flags, Info]:
        """Answer the current query of each environment."""
        if self._at >= self._order.shape[1]:
            raise ConfigError("the episodes have not begun: call reset() before step()")
        task, row = self.task, self._order[:, self._at]
        tier = self._tiers(row, np.asarray(actions))
        quality, cost_usd = task.quality[row, tier], task.cost_usd[row, tier]
        cost = cost_usd / task.cost_scale_usd
        slack = np.concatenate([(quality - self._target)[:, None], task.slack[row, tier]], axis=1)
        reward = quality - self.rules.alpha * cost
        if self.rules.lagrangian:
            reward = reward + (self._multipliers * slack).sum(axis=1)
        self._at += 1
        info = self._masked(
            {
                "cost": cost,
                "cost_usd": cost_usd,
                "slack": self._masked(dict(zip(task.names, slack.T.copy(), strict=True))),
                "tier": tier,
                "quality": quality,
                "query": row.copy(),
                "target": self._target.copy(),
            }
        )
        over = self._at == self._order.shape[1]
        obs = self._observe()
        if over:
            obs, info = self._next_episode(obs, info)
        return obs, reward, np.full(self.num_envs, over), np.zeros(self.num_envs, dtype=np.bool_), info

    def _seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int):
            return [seed + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ConfigError(f"reset(seed=...): expected one seed, or {self.num_envs}; got {len(seed)}")
        return seed

    def _next_episode(self, obs: Float32Array, info: Info) -> tuple[Float32Array, Info]:
        final = np.empty(self.num_envs, dtype=object)
        final[:] = list(obs)
        self._draw()
        self._set_context()
        ended = {"final_obs": final, "final_info": info, "target": self._target.copy()}
        return self._observe(), self._masked(ended)

    def _draw(self) -> None:
        drawn = [draw_episode(self.task, self.rules, rng) for rng in self._rngs]
        self._target = np.array([target for target, _ in drawn])
        self._order = np.stack([order for _, order in drawn])
        self._at = 0

    def _tiers(self, row: IntArray, actions: NDArray[Any]) -> IntArray:
        if self.rules.action == "tier":
            return actions.astype(np.int64)
        mu = np.clip(actions[:, :1].astype(np.float64), 0.0, 1.0)
        predicted, cost = self.task.predicted_quality, self.task.predicted_cost
        assert predicted is not None and cost is not None
        score = predicted[row] + mu * self.rules.boosts - (1.0 - mu) ** self.rules.gamma * cost[row]
        return np.asarray(score.argmax(axis=1))

    def _set_context(self) -> None:
        self._multipliers = self._table[bin_of(self.task, self._target, len(self._table))]
        self._context = context(self._target, self._multipliers)

    def _observe(self) -> Float32Array:
        if self._at < self._order.shape[1]:
            features = self.task.features[self._order[:, self._at]]
        else:
            features = np.zeros((self.num_envs, self.task.n_features), dtype=np.float32)
        return np.concatenate([features, self._context], axis=1)

    def _masked(self, info: Info) -> Info:
        """The info with Gymnasium's mask beside each entry: all environments have it."""
        return info | {f"_{name}": np.ones(self.num_envs, dtype=np.bool_) for name in info}
