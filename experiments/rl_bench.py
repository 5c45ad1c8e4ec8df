"""Environments and training of a routing policy beside stable-baselines3, on the same queries, in one process.

`rl-steps`: environment steps per second, n environments at once natively and as stable-baselines3's `DummyVecEnv`.
Of ThresholdTuning, the native ones share one traffic, and those of `DummyVecEnv` have one each.
`rl-train`: PROTEUS's training and stable-baselines3's PPO for the same Lagrangian at a fixed multiplier, and as many
queries: $q - \\alpha \\tilde c$ with $\\alpha = 1 / (1 + \\lambda)$, whose maximiser is that of
$q - \\tilde c + \\lambda (q - \\tau)$.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.sb3 import as_vec_env, require_sb3
from experiments.timing import median_seconds
from simulators.outcomes import FloatArray

if TYPE_CHECKING:
    from simulators.envs.routing_task import Action, RoutingTask

RL_CASES = {"rl-steps": 20_000, "rl-train": 24_576}
"""Case -> environment steps of one run; those of training are whole batches of both sides, which round up."""
_N_QUERIES, _N_ENVS = 4_000, 64
_ALPHA, _BATCH = 0.5, 256
_ANY_TARGET = (0.85, 0.9)


@dataclass(frozen=True, kw_only=True)
class _Learned:
    """What a training came to.

    Attributes:
        seconds: Of training alone.
        value: Mean of quality minus alpha times scaled cost over all queries, without exploration.
    """

    seconds: float
    value: float


def run_rl_case(name: str, runs: int, seed: int) -> list[dict[str, Any]]:
    """Rows of one case; training runs once.

    Raises:
        MissingDependencyError: If stable-baselines3 is not installed.
    """
    require_sb3()
    return _train_rows(name, seed) if name == "rl-train" else _step_rows(name, runs, seed)


_Row = tuple[str, float, str | None, float | None, float | None]


def _rows(case: str, values: Sequence[_Row], runs: int) -> list[dict[str, Any]]:
    names = ("metric", "ours", "peer", "peer_value", "ratio")
    return [{"case": case, **dict(zip(names, row, strict=True)), "runs": runs} for row in values]


# --- steps ------------------------------------------------------------------------------------------------------------


def _step_rows(name: str, runs: int, seed: int) -> list[dict[str, Any]]:
    from stable_baselines3.common.vec_env import DummyVecEnv

    from experiments.environments import (
        make_query_routing,
        make_query_routing_vector,
        make_threshold_tuning,
        make_threshold_tuning_vector,
        routing_task,
        tuning_spec,
    )

    steps = RL_CASES[name]
    task, tuning = routing_task("hybrid_api", n_queries=_N_QUERIES, seed=seed), tuning_spec("peak_hours", seed=seed)
    found = []
    for label, share, many, one in (
        (
            "QueryRouting, hybrid_api",
            1.0,
            lambda n: make_query_routing_vector(task=task, num_envs=n),
            lambda: make_query_routing(task=task),
        ),
        (
            "ThresholdTuning, peak_hours, natively in one traffic",
            0.1,
            lambda n: make_threshold_tuning_vector(tuning=tuning, num_envs=n),
            lambda: make_threshold_tuning(tuning=tuning),
        ),
    ):
        size = max(_N_ENVS, int(share * steps))
        ours = _rate(as_vec_env(many(_N_ENVS), seed=seed), size, runs, seed)
        peer = _rate(DummyVecEnv([one] * _N_ENVS), size, runs, seed)
        case = f"{name} ({label}, {_N_ENVS} environments)"
        found += _rows(case, [("environment steps/s", ours, "stable-baselines3 DummyVecEnv", peer, ours / peer)], runs)
        alone = _rate(DummyVecEnv([one]), max(1, size // _N_ENVS), runs, seed)
        found += _rows(
            f"{name} ({label})",
            [("environment steps/s, one environment in DummyVecEnv", alone, None, None, None)],
            runs,
        )
    return found


def _rate(envs: Any, steps: int, runs: int, seed: int) -> float:
    """Environment steps per second under random actions, resets included."""
    envs.action_space.seed(seed)
    actions = np.stack([envs.action_space.sample() for _ in range(envs.num_envs)])
    n = -(-steps // envs.num_envs)
    envs.reset()

    def play() -> None:
        for _ in range(n):
            envs.step(actions)

    play()
    seconds, _ = median_seconds(play, runs)
    envs.close()
    return float(n * envs.num_envs / seconds)


# --- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Work:
    """One Lagrangian over N queries, as both sides see it.

    Attributes:
        task: With the network's inputs as features, one target.
        z: `N x d` embeddings.
    """

    task: RoutingTask
    z: FloatArray

    @property
    def value(self) -> FloatArray:
        """`N x K` of the objective."""
        return self.task.quality - _ALPHA * self.task.cost_usd / self.task.cost_scale_usd

    def mean(self, tier: Any) -> float:
        """Of a choice: `N` tiers."""
        return float(self.value[np.arange(len(tier)), tier].mean())


def _train_rows(name: str, seed: int) -> list[dict[str, Any]]:
    work, steps = _work(seed), RL_CASES[name]
    predicted = work.task.predicted_quality, work.task.predicted_cost
    assert predicted[0] is not None and predicted[1] is not None
    plain = work.mean((predicted[0] - _ALPHA * predicted[1]).argmax(axis=1))
    single = float(work.value.mean(axis=0).max())
    case = (
        f"{name} ({work.task.n_queries:,} queries, {steps:,} of them seen; best tier {single:.4f}, utility {plain:.4f})"
    )
    _proteus(work, "sampled", _BATCH, seed)  # libraries load
    ours = {gradient: _proteus(work, gradient, steps, seed) for gradient in ("exact", "sampled")}
    peers: dict[str, tuple[str, Callable[[], _Learned]]] = {
        "PPO, default settings": ("sampled", lambda: _sb3(work, "mu", steps, seed, tuned=False)),
        "PPO, tuned, native environment": ("sampled", lambda: _sb3(work, "mu", steps, seed, tuned=True)),
        "PPO, tuned, the tier as action": ("exact", lambda: _sb3(work, "tier", steps, seed, tuned=True)),
    }
    found = []
    for peer, (gradient, learn) in peers.items():
        mine, theirs = ours[gradient], learn()
        values = [
            (f"seconds, gradient={gradient}", mine.seconds, peer, theirs.seconds, theirs.seconds / mine.seconds),
            (f"Lagrangian value, gradient={gradient}", mine.value, peer, theirs.value, None),
        ]
        found += _rows(case, values, 1)
    return found


def _work(seed: int) -> _Work:
    from experiments.environments import binned_predictions, read_scenario, signal_features
    from simulators.envs.routing_task import make_task
    from simulators.scenario import sample_scenario
    from simulators.seeds import spawn_rng
    from toolkit.scorers.proteus import query_inputs
    from toolkit.search.proteus import price_scale

    table = sample_scenario(read_scenario("hybrid_api"), n_queries=_N_QUERIES, rng=spawn_rng(seed, "scenario"))
    quality, cost_usd = binned_predictions(table, seed=seed)
    scale, z = price_scale(quality, cost_usd), signal_features(table.queries)
    inputs = query_inputs(z, quality, scale * cost_usd)
    sd = inputs.std(axis=0)
    task = make_task(
        table,
        (inputs - inputs.mean(axis=0)) / np.where(sd > 0, sd, 1.0),
        predicted_quality=quality,
        predicted_cost_usd=cost_usd,
        targets=(_ANY_TARGET[0], _ANY_TARGET[0]),
        cost_scale_usd=1.0 / scale,
    )
    return _Work(task=task, z=z)


def _proteus(work: _Work, gradient: Any, steps: int, seed: int) -> _Learned:
    from toolkit.scorers.proteus import query_inputs
    from toolkit.search.proteus import ProteusOptions, TrainingData
    from toolkit.search.proteus_training import train

    task = work.task
    p, c = task.predicted_quality, task.predicted_cost
    assert p is not None and c is not None
    data = TrainingData(z=work.z, p=p, c=c, q=task.quality, price=task.cost_usd / task.cost_scale_usd)
    options = ProteusOptions(dual="none", gradient=gradient, alpha=_ALPHA, batch=_BATCH, steps=max(1, steps // _BATCH))
    low, high = _ANY_TARGET
    started = time.perf_counter()
    trained = train(data, options, low=low, high=high, seed=seed)
    seconds = time.perf_counter() - started
    tier = trained.network.levels(query_inputs(work.z, p, c), p, c, np.array([low]), np.zeros((1, 1)))
    return _Learned(seconds=seconds, value=work.mean(tier[:, 0]))


def _sb3(work: _Work, action: Action, steps: int, seed: int, *, tuned: bool) -> _Learned:
    """PPO of stable-baselines3; tuned: long batches, few epochs, no discount, and many environments at once."""
    from stable_baselines3 import PPO

    from simulators.envs.query_routing import QueryRoutingEnv
    from simulators.envs.query_routing_vector import QueryRoutingVectorEnv
    from toolkit.search.torch_tools import isolated

    if tuned:
        envs = as_vec_env(QueryRoutingVectorEnv(work.task, _BATCH, action=action, alpha=_ALPHA), seed=seed)
        rest: dict[str, Any] = {
            "n_steps": 8,
            "batch_size": 8 * _BATCH,
            "n_epochs": 4,
            "gamma": 0.0,
            "learning_rate": 3e-3,
        }
        model = PPO("MlpPolicy", envs, device="cpu", seed=seed, **rest)
    else:
        model = PPO("MlpPolicy", QueryRoutingEnv(work.task, action=action, alpha=_ALPHA), device="cpu", seed=seed)
    started = time.perf_counter()
    with isolated(seed):  # one thread, as ours
        model.learn(steps)
    seconds = time.perf_counter() - started
    return _Learned(seconds=seconds, value=work.mean(_tiers(work.task, model, action)))


def _tiers(task: RoutingTask, model: Any, action: Action) -> Any:
    """`N` tiers of the policy without exploration."""
    from simulators.envs.query_routing import QueryRoutingEnv, context

    rest = np.tile(context(np.float64(task.targets[0]), np.zeros(1)), (task.n_queries, 1))
    chosen, _ = model.predict(np.hstack([task.features[:-1], rest]), deterministic=True)
    if action == "tier":
        return chosen
    env = QueryRoutingEnv(task)
    return np.array([env.tier_of(row, mu) for row, mu in enumerate(chosen)])
