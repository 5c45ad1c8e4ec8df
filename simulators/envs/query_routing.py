"""`QueryRouting-v0`: one query per step. Notation and formulas: `simulators/envs/routing_task.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike

from simulators.envs.routing_task import (
    TARGET,
    Action,
    Float32Array,
    RoutingRules,
    RoutingTask,
    bin_of,
    make_rules,
    multiplier_table,
)
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray

Info = dict[str, Any]


class QueryRoutingEnv(gymnasium.Env[Float32Array, Any]):
    r"""Route one query after another, at a target quality and given multipliers.

    ## Description
    Queries come one by one; each goes to one of K tiers, whose recorded or simulated answer has a quality and a cost.
    Where to send a query does not change the next one, so this is a contextual bandit with constraints: learn it with
    a discount of 0. The constraints are means over queries (quality at least tau, and those of the task), so a
    Lagrangian learner weighs their slacks by multipliers, which it sets itself.

    ## Observation Space
    `Box` of `F + 1 + 1 + C` float32: the query's F features, the target tau in [0, 1], and $\lambda / (1 + \lambda)$ of
    each multiplier in the order of `constraint_names` (the target's first). After the last query the features are zero.

    ## Action Space
    `action="mu"`: `Box(0, 1, (1,))`, the exchange rate mu: the tier is
    $\arg\max_k \hat p_k + \mu b_k - (1 - \mu)^\gamma \hat c_k$ with predicted quality and scaled cost, the cheaper one
    at a tie; a mu outside is clipped. `action="tier"`: `Discrete(K)`, the tier, 0 the cheapest.

    ## Rewards
    $q - \alpha \tilde c$ with the answer's quality and scaled cost; with `lagrangian=True` plus
    $\lambda_0 (q - \tau) + \sum_j \lambda_j \mathrm{slack}_j$.

    ## Starting State
    A target drawn uniformly from the task's range, and `episode_length` queries drawn without replacement. The same
    seed gives the same. `reset(options=...)` takes `target`, for this episode, and `multipliers`, from now on
    (`set_multipliers`).

    ## Episode End
    Terminated after the episode's last query; never truncated.

    ## Arguments
    * `task`: features, answers, predictions and constraints (`make_task`).
    * `action`: `"mu"` or `"tier"`.
    * `alpha`: price of one unit of scaled cost, in quality.
    * `lagrangian`: whether the reward holds the slacks.
    * `gamma`, `boosts`: gamma and `b: K` of the score; no boosts: zeros.
    * `multipliers`: `1 + C` numbers, name -> number, or a row of `1 + C` numbers for each of T equal bins of the range
      of targets, of which an episode uses its target's.
    * `episode_length`: queries per episode; None: 200, or all where there are fewer.

    `gymnasium.make("simulators.envs:QueryRouting-v0", scenario=...)` takes those of `make_query_routing` in
    `experiments/environments.py` before these.

    ## Info
    `reset`: `target`. `step`: `cost` (scaled) and `cost_usd` of the answer; `slack`, name -> slack of this query (their
    means over queries are the slacks of the constraints); `tier`; `quality`; `query`, its row in the table; `target`.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium declares it so)

    def __init__(
        self,
        task: RoutingTask,
        *,
        action: Action = "mu",
        alpha: float = 1.0,
        lagrangian: bool = False,
        gamma: float = 3.0,
        boosts: ArrayLike | None = None,
        multipliers: ArrayLike | Mapping[str, float] | None = None,
        episode_length: int | None = None,
    ) -> None:
        self.task = task
        self.rules = make_rules(
            task,
            action=action,
            alpha=alpha,
            lagrangian=lagrangian,
            gamma=gamma,
            boosts=boosts,
            episode_length=episode_length,
        )
        self.observation_space = observation_space(task)
        self.action_space = action_space(task, self.rules)
        self._table = multiplier_table(task, multipliers)
        self._target = task.targets[0]
        self._order: IntArray = np.zeros(0, dtype=np.int64)
        self._at = 0
        self._set_context()

    @property
    def constraint_names(self) -> tuple[str, ...]:
        """`1 + C` names in the order of the multipliers."""
        return self.task.names

    @property
    def multipliers(self) -> FloatArray:
        """`1 + C` multipliers of this episode."""
        return self._multipliers.copy()

    def set_multipliers(self, values: ArrayLike | Mapping[str, float]) -> None:
        """Multipliers from the next observation on; the forms of the argument `multipliers`."""
        self._table = multiplier_table(self.task, values)
        self._set_context()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Float32Array, Info]:
        """Start an episode; see the class."""
        super().reset(seed=seed)
        chosen = read_options(options)
        self._target, self._order = draw_episode(self.task, self.rules, self.np_random)
        if "target" in chosen:
            self._target = float(check_target(chosen["target"], ()))
        if "multipliers" in chosen:
            self._table = multiplier_table(self.task, chosen["multipliers"])
        self._at = 0
        self._set_context()
        return self._observe(), {"target": self._target}

    def step(self, action: Any) -> tuple[Float32Array, float, bool, bool, Info]:
        """Answer the current query; see the class."""
        if self._at >= len(self._order):
            raise ConfigError("the episode is over (or has not begun): call reset() before step()")
        task, row = self.task, int(self._order[self._at])
        tier = self.tier_of(row, action)
        quality, cost_usd = float(task.quality[row, tier]), float(task.cost_usd[row, tier])
        cost = cost_usd / task.cost_scale_usd
        slack = [quality - self._target, *task.slack[row, tier].tolist()]
        reward = quality - self.rules.alpha * cost
        if self.rules.lagrangian:
            reward += sum(w * s for w, s in zip(self._weights, slack, strict=True))
        self._at += 1
        info = {
            "cost": cost,
            "cost_usd": cost_usd,
            "slack": dict(zip(task.names, slack, strict=True)),
            "tier": tier,
            "quality": quality,
            "query": row,
            "target": self._target,
        }
        return self._observe(), reward, self._at == len(self._order), False, info

    def tier_of(self, row: int, action: Any) -> int:
        """The tier that an action sends the query at `row` to."""
        if self.rules.action == "tier":
            return int(action)
        mu = min(max(float(action[0]), 0.0), 1.0)
        predicted, cost = self.task.predicted_quality, self.task.predicted_cost
        assert predicted is not None and cost is not None
        score = predicted[row] + mu * self.rules.boosts - (1.0 - mu) ** self.rules.gamma * cost[row]
        return int(score.argmax())

    def _set_context(self) -> None:
        """The multipliers of this target, and the part of an observation that stays the same over an episode."""
        self._multipliers = self._table[bin_of(self.task, np.float64(self._target), len(self._table))]
        self._weights: list[float] = self._multipliers.tolist()
        self._context = context(np.float64(self._target), self._multipliers)

    def _observe(self) -> Float32Array:
        row = self._order[self._at] if self._at < len(self._order) else self.task.n_queries
        return np.concatenate([self.task.features[row], self._context])


def observation_space(task: RoutingTask) -> spaces.Space[Float32Array]:
    """Features within the range that the task's have, then target and multipliers in [0, 1]."""
    rest = 1 + len(task.names)
    least, most = task.features.min(axis=0), task.features.max(axis=0)
    most = np.where(most > least, most, least + 1)  # a constant feature; Gymnasium wants an interval
    low = np.concatenate([least, np.zeros(rest)]).astype(np.float32)
    high = np.concatenate([most, np.ones(rest)]).astype(np.float32)
    found: spaces.Space[Any] = spaces.Box(low, high, dtype=np.float32)
    return found


def action_space(task: RoutingTask, rules: RoutingRules) -> spaces.Space[Any]:
    """Exchange rate or tier."""
    if rules.action == "tier":
        return spaces.Discrete(task.n_tiers)
    return spaces.Box(0.0, 1.0, (1,), dtype=np.float32)


def context(target: FloatArray | np.float64, multipliers: FloatArray) -> Float32Array:
    """`(batch_shape) x (2 + C)`: target, and each multiplier as lambda / (1 + lambda)."""
    squashed = multipliers / (1.0 + multipliers)
    return np.concatenate([np.asarray(target)[..., None], squashed], axis=-1).astype(np.float32)


def draw_episode(task: RoutingTask, rules: RoutingRules, rng: np.random.Generator) -> tuple[float, IntArray]:
    """A target, and `L` rows in order."""
    low, high = task.targets
    target = low + (high - low) * float(rng.random())
    return target, rng.choice(task.n_queries, rules.episode_length, replace=False)


def read_options(options: dict[str, Any] | None) -> dict[str, Any]:
    """The options of a reset.

    Raises:
        ConfigError: If one is unknown.
    """
    found = dict(options or {})
    unknown = sorted(set(found) - {"target", "multipliers"})
    if unknown:
        raise ConfigError(f"reset(options=...): unknown {unknown}; known: target, multipliers")
    return found


def check_target(value: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    """The target, or one per environment, of that shape.

    Raises:
        ConfigError: If it is outside [0, 1] or does not fit the shape.
    """
    found = np.asarray(value, dtype=np.float64)
    if found.ndim > len(shape) or not ((found >= 0) & (found <= 1)).all() or found.shape not in ((), shape):
        raise ConfigError(f"{TARGET}: expected a target in [0, 1], or one per environment; got {value!r}")
    return np.broadcast_to(found, shape).copy()
