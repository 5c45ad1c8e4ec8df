r"""`ppo_lagrangian`: PPO with multipliers on windows of traffic.

Maximises the reward of an episode subject to exceedance shares at most their limits, by ascent in the policy and in the
multipliers $\lambda \ge 0$ at once. Notation: T windows, E environments, c constraints, S = 1 + c streams (the reward,
then the slack of each constraint), A boundaries, d observed figures.

One iteration plays E whole episodes, steps the multipliers on the episodes' exact shares, then the policy on

.. math:: A = (A_r + \sum_j \lambda_j A_j) / (1 + \sum_j \lambda_j)

All streams are relative: reward in units of the untrained policy's cost, slack in units of the limit. So a multiplier
of 1 says that one per cent less exceedance is worth one per cent of the cost.

What differs from CleanRL's `ppo_continuous_action.py`:

| here | why |
|---|---|
| whole episodes, values 0 at their end | shares are of whole episodes |
| one critic head per stream | the weights of the streams change with every step of the multipliers |
| copies on the same traffic, the mean advantage of the others as baseline | traffic decides most, whatever one does |
| noise, shuffles and weights from NumPy, seeded per iteration | a checkpoint needs no state of a generator |
| last layer of the actor at zero, on a learnt centre | training starts at the static thresholds |
| gradients of actor and critic are clipped apart | values of rare blow-ups are large |

References:
    [Schulman2017] J. Schulman et al., Proximal policy optimization algorithms, arXiv 1707.06347, 2017.
    [Stooke2020] A. Stooke, J. Achiam, P. Abbeel, Responsive safety in reinforcement learning by PID Lagrangian methods,
    ICML 2020.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from simulators.seeds import spawn_rng
from toolkit.search.ppo_checkpoint import Observed, TrainingState, policy_of, read_checkpoint, write_checkpoint
from toolkit.search.ppo_network import HALF_LOG_2PI, adam_memory, initial_weights, restore_adam, values
from toolkit.search.ppo_options import PpoLagrangianOptions
from toolkit.search.torch_tools import isolated, tensor
from toolkit.search.window_policy import WindowPolicy, as_action, check_home, static_policy
from toolkit.search.window_rollout import Rollout, WindowEnvironment, play, traffic_seeds

_LARGEST_SHORTFALL = 1.0
_LAST_LR = 0.1
_LARGEST_GRADIENT = 0.5


@dataclass(frozen=True, kw_only=True)
class TrainedWindowPolicy:
    """A policy, and how it came about.

    Attributes:
        policy: The feasible one of the least cost at its judgement; where none was, that which exceeded the least.
        best_iteration: Iterations that it was trained for; 0 is the static home.
        history: Name -> one entry per iteration: `cost`, `exceedance: n x c`, `multiplier: n x c`, `home: n x A`,
            `noise: n x A`, `divergence`, `validation_cost`, `validation_exceedance: n x c` (NaN where not judged).
        seconds: Time spent training, in all sessions.
        steps_per_s: Windows played per second of it, judgements included.
    """

    policy: WindowPolicy
    best_iteration: int
    history: dict[str, FloatArray]
    seconds: float
    steps_per_s: float


def train(
    environment_factory: Callable[[int], WindowEnvironment],
    options: PpoLagrangianOptions,
    *,
    home: FloatArray,
    limits: FloatArray,
    checkpoint: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> TrainedWindowPolicy:
    """Train a policy that starts at the load fractions `home: A`.

    Args:
        environment_factory: Makes an environment of that many candidates on one traffic.
        options: How.
        home: Load fractions below each boundary, ascending.
        limits: `c` largest exceedance shares in the environment's units of slack, positive.
        checkpoint: A file that is written as training goes on and continued from; None keeps none.
        on_progress: Called with (iterations so far, all).

    Raises:
        ConfigError: If home, limits and environment do not fit.
        InputDataError: If the checkpoint belongs to another training.
    """
    trainer = PpoTrainer(environment_factory, options, home=home, limits=limits, checkpoint=checkpoint)
    while trainer.iteration < options.iterations:
        trainer.step()
        on_progress(trainer.iteration, options.iterations)
    return trainer.trained()


class PpoTrainer:
    """A training that goes on iteration by iteration; see `train`."""

    def __init__(
        self,
        environment_factory: Callable[[int], WindowEnvironment],
        options: PpoLagrangianOptions,
        *,
        home: FloatArray,
        limits: FloatArray,
        checkpoint: Path | None = None,
    ) -> None:
        self._options, self._checkpoint = options, checkpoint
        self._home, self._limits = check_home(home), _check_limits(limits)
        self._rule = options.rule()
        self._candidates, self._single = environment_factory(options.copies), environment_factory(1)
        self._validation = traffic_seeds(spawn_rng(options.seed, "ppo", "validation"), options.validation_traffics)
        found = None if checkpoint is None else read_checkpoint(checkpoint, self._key())
        self._state = self._start() if found is None else found

    @property
    def iteration(self) -> int:
        """Iterations done, those of the checkpoint included."""
        return self._state.iteration

    def home_at(self, iteration: int) -> FloatArray:
        """`A` load fractions at the centre of the policy after so many iterations; 0 is the start."""
        return self._home if iteration == 0 else self._state.history["home"][iteration - 1]

    def policy(self) -> WindowPolicy:
        """The policy as it is now, which need not be the best so far."""
        return self._state.policy(self._options.span)

    def trained(self) -> TrainedWindowPolicy:
        """The best policy so far."""
        state = self._state
        return TrainedWindowPolicy(
            policy=policy_of(state.best, self._options.span),
            best_iteration=state.best_iteration,
            history=dict(state.history),
            seconds=state.seconds,
            steps_per_s=state.n_steps / max(state.seconds, 1e-9),
        )

    def step(self) -> None:
        """One iteration: episodes, multipliers, policy; now and then a judgement and a checkpoint."""
        begin, state, options = time.perf_counter(), self._state, self._options
        rng = spawn_rng(options.seed, "ppo", str(state.iteration))
        policy, weights = state.policy(options.span), state.weights
        seeds = traffic_seeds(rng, options.traffics)
        rollout = play([self._candidates] * options.traffics, policy, seeds, log_std=weights["log_std"], rng=rng)
        shares = rollout.shares(self._limits)
        shortfall = shares / (self._limits * (1.0 - options.margin)) - 1.0
        state.dual = self._rule.step(state.dual, np.minimum(shortfall, _LARGEST_SHORTFALL))
        batch = self._batch(rollout, policy)
        state.weights, state.moments, divergence = update(weights, state.moments, batch, options, self._lr, rng)
        state.observed = state.observed.including(rollout.observation)
        state.iteration += 1
        state.n_steps += rollout.reward.size
        judged = state.iteration % options.validate_every == 0 or state.iteration == options.iterations
        self._record(rollout.cost, shares, divergence, self._judge() if judged else None)
        state.seconds += time.perf_counter() - begin
        if judged:
            self.write()

    def write(self) -> None:
        """Write the checkpoint, if there is one."""
        if self._checkpoint is not None:
            write_checkpoint(self._checkpoint, self._state, self._key())

    @property
    def _lr(self) -> float:
        done = self._state.iteration / self._options.iterations
        return self._options.lr * (1.0 - (1.0 - _LAST_LR) * done)

    def _key(self) -> dict[str, Any]:
        """What a checkpoint must agree with."""
        return {
            "options": dataclasses.asdict(self._options),
            "home": self._home.tolist(),
            "limits": self._limits.tolist(),
        }

    def _start(self) -> TrainingState:
        """The untrained policy, judged: its cost becomes the unit of rewards."""
        begin, options, c = time.perf_counter(), self._options, len(self._limits)
        first, _ = self._single.reset(seed=self._validation[0], options={"traffic_seed": self._validation[0]})
        d = np.shape(first)[1]
        rollout = self._play_validation(static_policy(self._home, d))
        if rollout.slack.shape[2] != c:
            raise ConfigError(f"the environment has {rollout.slack.shape[2]} constraints; got {c} limits")
        if not rollout.cost > 0:
            raise ConfigError(f"the starting thresholds cost {rollout.cost:g} per request; they must cost something")
        weights = initial_weights(
            spawn_rng(options.seed, "ppo", "weights"),
            n_observed=d,
            hidden=options.hidden,
            home=self._home,
            n_streams=1 + c,
            noise=options.noise,
        )
        state = TrainingState(
            iteration=0,
            weights=weights,
            moments={},
            observed=Observed.nothing(d).including(rollout.observation),
            unit_cost=rollout.cost,
            dual=self._rule.init((c,)),
            history={},
            best={},
            best_iteration=0,
            best_rank=self._rank(rollout),
            n_steps=rollout.reward.size,
            seconds=time.perf_counter() - begin,
        )
        state.best = state.snapshot()
        return state

    def _play_validation(self, policy: WindowPolicy) -> Rollout:
        return play([self._single] * len(self._validation), policy, self._validation)

    def _judge(self) -> Rollout:
        """The policy without noise on the validation traffic; kept if it is the best so far."""
        state = self._state
        rollout = self._play_validation(state.policy(self._options.span))
        state.n_steps += rollout.reward.size
        rank = self._rank(rollout)
        if rank < state.best_rank:
            state.best, state.best_iteration, state.best_rank = state.snapshot(), state.iteration, rank
        return rollout

    def _rank(self, rollout: Rollout) -> tuple[float, float]:
        """Relative exceedance beyond the limits, then cost."""
        over = rollout.shares(self._limits) / self._limits - 1.0
        return float(np.maximum(over, 0.0).sum()), rollout.cost

    def _batch(self, rollout: Rollout, policy: WindowPolicy) -> dict[str, FloatArray]:
        """What the losses need, `B = T E` steps."""
        state, options = self._state, self._options
        streams = np.concatenate([rollout.reward[..., None] / state.unit_cost, rollout.slack / self._limits], axis=2)
        observation = np.stack([policy.normalise(x) for x in rollout.observation])
        value = values(state.weights, observation)
        advantage = advantages(streams, value, gamma=options.gamma, gae_lambda=options.gae_lambda)
        target = advantage + value
        weighed = lagrangian(without_traffic(advantage, options.copies), state.dual.value)
        scaled = (weighed - weighed.mean()) / max(float(weighed.std()), 1e-8)
        batch = {
            "observation": observation,
            "action": rollout.action,
            "log_density": rollout.log_density,
            "advantage": scaled,
            "target": target,
        }
        return {name: part.reshape(rollout.reward.size, *part.shape[2:]) for name, part in batch.items()}

    def _record(self, cost: float, shares: FloatArray, divergence: float, judged: Rollout | None) -> None:
        """Append one entry to the history."""
        state = self._state
        entry = {
            "cost": cost,
            "exceedance": shares,
            "multiplier": state.dual.value,
            "home": as_action(state.weights["home"]),
            "noise": np.exp(state.weights["log_std"]),
            "divergence": divergence,
            "validation_cost": np.nan if judged is None else judged.cost,
            "validation_exceedance": np.full(len(shares), np.nan) if judged is None else judged.shares(self._limits),
        }
        for name, value in entry.items():
            row = np.asarray(value, dtype=np.float64)[None]
            state.history[name] = np.concatenate([state.history[name], row]) if name in state.history else row


def advantages(streams: FloatArray, value: FloatArray, *, gamma: float, gae_lambda: float) -> FloatArray:
    r"""Generalised advantage estimates of whole episodes, eq. (11) of [Schulman2017]_.

    $A_t = \delta_t + \gamma\lambda A_{t+1}$ with $\delta_t = r_t + \gamma V_{t+1} - V_t$, and 0 after the end.

    Args:
        streams: `T x E x S` rewards.
        value: `T x E x S` values of the observations before them.
        gamma, gae_lambda: Discounts.

    Returns:
        `T x E x S`.
    """
    following = np.concatenate([value[1:], np.zeros_like(value[:1])])
    delta = streams + gamma * following - value
    found = np.empty_like(delta)
    ahead = np.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        ahead = delta[t] + gamma * gae_lambda * ahead
        found[t] = ahead
    return found


def without_traffic(advantage: FloatArray, copies: int) -> FloatArray:
    """`T x E x S` advantages less the mean of the other copies on the same traffic, in the same window.

    The others' noise is independent of the own, so that the subtraction biases no gradient.
    """
    if copies == 1:
        return advantage
    t, e, s = advantage.shape
    grouped = advantage.reshape(t, e // copies, copies, s)
    centred = grouped - grouped.mean(axis=2, keepdims=True)
    return np.asarray((centred * copies / (copies - 1)).reshape(t, e, s))


def lagrangian(advantage: FloatArray, multiplier: FloatArray) -> FloatArray:
    """`...` advantages of the Lagrangian, of `advantage: ... x S` and `multiplier: c`, as in [Stooke2020]_."""
    return np.asarray((advantage[..., 0] + advantage[..., 1:] @ multiplier) / (1.0 + multiplier.sum()))


def losses(w: dict[str, Any], batch: dict[str, Any], options: PpoLagrangianOptions) -> tuple[Any, Any]:
    """Total loss, and the logarithms of the ratios of the densities, as tensors.

    Args:
        w: Weights as in `initial_weights`.
        batch: `observation: B x d` normalised, `action: B x A` as drawn, `log_density: B` when it was drawn,
            `advantage: B` of the Lagrangian, `target: B x S` returns.
        options: Weights of the parts.
    """
    import torch

    x = batch["observation"]
    hidden = torch.tanh(torch.tanh(x @ w["actor_w1"] + w["actor_b1"]) @ w["actor_w2"] + w["actor_b2"])
    mean = w["home"] + options.span * torch.tanh(hidden @ w["actor_w3"])
    z = (batch["action"] - mean) / torch.exp(w["log_std"])
    log_density = (-0.5 * z**2 - w["log_std"] - HALF_LOG_2PI).sum(dim=-1)

    # Eq. (7) of [Schulman2017]_: the clipped surrogate.
    log_ratio = log_density - batch["log_density"]
    ratio = torch.exp(log_ratio)
    clipped = torch.clamp(ratio, 1.0 - options.clip, 1.0 + options.clip)
    policy_loss = -torch.minimum(ratio * batch["advantage"], clipped * batch["advantage"]).mean()

    # Eq. (9): the squared error of every stream's value, and the entropy, its constant left out.
    hidden = torch.tanh(torch.tanh(x @ w["critic_w1"] + w["critic_b1"]) @ w["critic_w2"] + w["critic_b2"])
    value = hidden @ w["critic_w3"] + w["critic_b3"]
    value_loss = 0.5 * ((value - batch["target"]) ** 2).mean()
    return policy_loss + options.value * value_loss - options.entropy * w["log_std"].sum(), log_ratio


def update(
    weights: dict[str, FloatArray],
    moments: dict[str, FloatArray],
    batch: dict[str, FloatArray],
    options: PpoLagrangianOptions,
    lr: float,
    rng: np.random.Generator,
) -> tuple[dict[str, FloatArray], dict[str, FloatArray], float]:
    """Adam on the losses, epoch by epoch in shuffled minibatches.

    Returns:
        New weights, new moments, and the mean divergence of the last epoch's policy from that which played.
    """
    import torch

    with isolated(0):
        w = {name: tensor(array).requires_grad_() for name, array in weights.items()}
        adam = torch.optim.Adam(w.values(), lr=lr, eps=1e-5)
        restore_adam(adam, w, moments)
        tensors = {name: tensor(array) for name, array in batch.items()}
        for _ in range(options.epochs):
            divergence = []
            for rows in np.array_split(rng.permutation(len(batch["action"])), options.minibatches):
                part = {name: values[torch.from_numpy(rows)] for name, values in tensors.items()}
                loss, log_ratio = losses(w, part, options)
                adam.zero_grad()
                loss.backward()
                for critic in (False, True):
                    own = [value for name, value in w.items() if name.startswith("critic_") == critic]
                    torch.nn.utils.clip_grad_norm_(own, _LARGEST_GRADIENT)
                adam.step()
                divergence.append(float((torch.expm1(log_ratio) - log_ratio).mean()))
        new = {name: value.detach().numpy().copy() for name, value in w.items()}
        new["home"] = np.clip(new["home"], 0.0, 1.0)  # beyond, no action would follow it
        return new, adam_memory(adam, w), float(np.mean(divergence))


def _check_limits(limits: FloatArray) -> FloatArray:
    """`limits: c` as they are.

    Raises:
        ConfigError: If one is not positive: the unit of a slack is its limit.
    """
    limits = np.asarray(limits, dtype=np.float64)
    if limits.ndim != 1 or not (np.isfinite(limits) & (limits > 0)).all():
        raise ConfigError(f"limits of exceedance shares must be positive; got {np.asarray(limits).tolist()}")
    return limits
