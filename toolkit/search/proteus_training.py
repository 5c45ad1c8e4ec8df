"""The training loop of PROTEUS: batches, optimiser, multipliers, checkpoints. The algorithm itself is in `proteus.py`.

Notation: see there. Everything random comes of one NumPy generator whose state is in the checkpoint, so that a killed
training goes on to the same weights, to the last bit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simulators.errors import MissingDependencyError
from simulators.outcomes import FloatArray, IntArray
from simulators.seeds import spawn_rng
from toolkit.scorers.proteus import PolicyNetwork, query_inputs, target_inputs
from toolkit.search.multipliers import DualState
from toolkit.search.proteus import (
    LARGEST_MOVE,
    Multipliers,
    ProteusOptions,
    TrainingData,
    Weights,
    critic_value,
    exact_loss,
    expected_tiers,
    exponent,
    log_probability,
    policy_head,
    ppo_loss,
    rewards,
    tier_scores,
)
from toolkit.search.proteus_checkpoint import load_checkpoint, save_checkpoint
from toolkit.search.torch_tools import isolated, tensor
from toolkit.zero_router import zero_router

_LOW_RATE = 1e-5
_COMMON = ("skip", "b3", "gamma")
"""Weights that all queries share."""

_VALUE_WEIGHT = 0.5


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained policy.

    Attributes:
        network: With the multipliers it is deployed with.
        weights: The tensors as arrays, for `expected_tiers`.
        learned: `m x J` multipliers that training ended with, averaged over its last half on a log scale.
        shortfall: `m x J` mean shortfall of the policy as it trained, over the last half; NaN where none was seen.
        seconds: Of training, without what a checkpoint had already.
    """

    network: PolicyNetwork
    weights: dict[str, FloatArray]
    learned: FloatArray
    shortfall: FloatArray
    seconds: float


def train(
    data: TrainingData,
    options: ProteusOptions,
    *,
    low: float,
    high: float,
    seed: int,
    checkpoint: Path | None = None,
    checkpoint_every: int = 100,
    on_progress: Callable[[int, int], None] | None = None,
) -> Trained:
    """Train a policy for requested qualities in [low, high].

    Args:
        data: What it is trained on.
        options: How.
        low, high: Range of tau.
        seed: Of everything random.
        checkpoint: File to go on from, if it is there, and to write every `checkpoint_every` steps.
        checkpoint_every: Steps.
        on_progress: Told `(step, steps)` after each step.

    Raises:
        InputDataError: If the checkpoint is damaged, or of other options or data.
        MissingDependencyError: If torch is not installed.
    """
    _require_torch()
    started = time.perf_counter()
    with isolated(seed):
        training = _Training(data, options, low=low, high=high, seed=seed)
        if checkpoint is not None:
            training.resume(checkpoint)
        while training.step < options.steps:
            training.advance()
            if checkpoint is not None and (training.step % checkpoint_every == 0 or training.step == options.steps):
                training.save(checkpoint)
            if on_progress is not None:
                on_progress(training.step, options.steps)
        return training.finish(started)


class _Training:
    """A training under way: everything that changes is here, and in the checkpoint."""

    def __init__(self, data: TrainingData, options: ProteusOptions, *, low: float, high: float, seed: int) -> None:
        plan = {**dataclasses.asdict(options), "low": low, "high": high, "seed": seed}
        self.made_of = hashlib.sha256((json.dumps(plan, sort_keys=True) + data.digest()).encode()).hexdigest()
        self.data, self.options, self.low, self.high = data, options, low, high
        self.rng = spawn_rng(seed, "proteus")
        inputs = query_inputs(data.z, data.p, data.c)
        self.mean, scale = inputs.mean(axis=0), inputs.std(axis=0)
        self.scale = np.where(scale > 1e-9, scale, 1.0)
        d = data.z.shape[1]
        self.scale[:d], self.mean[:d] = 1.0, 0.0  # an embedding has its own scale
        self.x = tensor((inputs - self.mean) / self.scale)
        label = options.reward == "label"
        self.p, self.c, self.slack = tensor(data.p), tensor(data.c), tensor(data.slack)
        self.q, self.price = tensor(data.q if label else data.p), tensor(data.price if label else data.c)
        self.n_multipliers = 1 + len(data.constraints)
        self.multipliers = Multipliers.make(options, low, high)
        self.dual = self._first_multipliers()
        self.sums = np.zeros((self.n_multipliers + 1, *self.dual.value.shape[1:]))
        self.log_sum, self.n_log = np.zeros_like(self.dual.value), 0
        self.short_sum, self.n_short = np.zeros_like(self.dual.value), np.zeros_like(self.dual.value)
        self.step = 0
        self.w: Weights = {name: tensor(value).requires_grad_() for name, value in self._initial().items()}
        self.optimiser = self._adamw()

    def _first_multipliers(self) -> DualState:
        """0 beyond quality; for quality, what a point of it costs the Zero router at each bin of tau."""
        state = self.multipliers.init(self.n_multipliers)
        if self.multipliers.shared:
            return state
        hull = zero_router(self.data.price.mean(axis=0), self.data.q.mean(axis=0))
        if len(hull.tier) < 2:
            return state
        slope = np.diff(hull.cost_usd) / np.diff(hull.quality)
        piece = np.clip(np.searchsorted(hull.quality, self.multipliers.bins) - 1, 0, len(slope) - 1)
        value = state.value.copy()
        value[0] = np.clip(self.options.alpha * slope[piece] - 1.0, 0.0, self.options.most_multiplier)
        return dataclasses.replace(state, value=value, integral=value)

    def _initial(self) -> dict[str, FloatArray]:
        """Small weights: at the start mu is about 1/2 for every query."""
        h, m, k = self.options.hidden, self.n_multipliers, self.data.q.shape[1]
        d = self.x.shape[1] + 1 + m
        w = {
            "w1": self._normal(d, h),
            "b1": np.zeros(h),
            "gate": np.zeros((m, h)),
            "gate0": np.zeros(h),
            "w2": self._normal(h, h),
            "b2": np.zeros(h),
            "w3": 0.1 * self._normal(h, 2),
            "b3": np.full(2, 2.0),
            "skip": np.zeros((1 + m, 2)),
            "boost": np.zeros(k),
        }
        if self.options.gamma is None:
            w["gamma"] = np.array([-np.log(5.0)])  # gamma = 3
        if self.options.gradient == "sampled" and self.options.critic:
            w |= {"v1": self._normal(d, h), "vb1": np.zeros(h), "v2": 0.1 * self._normal(h, 1), "vb2": np.zeros(1)}
        return w

    def _normal(self, rows: int, columns: int) -> FloatArray:
        return np.asarray(self.rng.standard_normal((rows, columns)) / np.sqrt(rows))

    def _adamw(self) -> Any:
        import torch

        o = self.options
        common = [w for name, w in self.w.items() if name in _COMMON]
        matrices = [w for name, w in self.w.items() if name not in {*_COMMON, "boost"} and w.ndim == 2]
        others = [w for name, w in self.w.items() if name not in {*_COMMON, "boost"} and w.ndim != 2]
        groups = [
            {"params": matrices, "weight_decay": o.weight_decay},
            {"params": others, "weight_decay": 0.0},
            {"params": common, "weight_decay": 0.0, "lr": o.common_rate},
            {"params": [self.w["boost"]], "weight_decay": 0.0, "lr": self._boost_rate},
        ]
        return torch.optim.AdamW(groups, lr=o.learning_rate)

    @property
    def _boost_rate(self) -> float:
        if self.options.boost_rate is not None:
            return self.options.boost_rate
        return self.options.learning_rate if self.data.constraints else _LOW_RATE

    def advance(self) -> None:
        """One batch: policy, loss, and every few batches the multipliers."""
        o, n = self.options, len(self.data.q)
        rows = self.rng.choice(n, size=min(o.batch, n), replace=False)
        tau = self._stratified(len(rows))
        if o.tau_draw == "batch":
            tau = np.full(len(rows), self.rng.uniform(self.low, self.high))
        lam = self.multipliers.at(self.dual, tau)
        got = self._exact(rows, tau, lam) if o.gradient == "exact" else self._sampled(rows, tau, lam)
        self._observe(rows, tau, got)
        self.step += 1
        if self.step % o.dual_every == 0:
            self._move_multipliers()

    def _stratified(self, size: int) -> FloatArray:
        """`size` values that cover [low, high] evenly, in random order."""
        within = (np.arange(size) + self.rng.uniform(size=size)) / size
        return np.asarray(self.low + (self.high - self.low) * self.rng.permutation(within))

    def _state(self, rows: IntArray, tau: FloatArray, lam: FloatArray) -> tuple[Any, Any]:
        return self.x[rows], tensor(target_inputs(tau, lam, self.multipliers.bins))

    def _rewards(self, rows: IntArray, tau: FloatArray, lam: FloatArray) -> Any:
        slack = self.slack[:, rows]
        return rewards(self.q[rows], self.price[rows], slack, tensor(lam), tensor(tau), self.options.alpha)

    def _exact(self, rows: IntArray, tau: FloatArray, lam: FloatArray) -> Any:
        """One step on the exact gradient; returns `B x K` probabilities of the tiers."""
        a, b = policy_head(self.w, *self._state(rows, tau, lam))
        gamma, temperature = exponent(self.w, self.options), self.options.temperature(self.step)
        tiers = expected_tiers(
            a, b, self.w["boost"], gamma, self.p[rows], self.c[rows], temperature, self.options.nodes
        )
        self._descend(exact_loss(tiers, self._rewards(rows, tau, lam)))
        return tiers.detach()

    def _sampled(self, rows: IntArray, tau: FloatArray, lam: FloatArray) -> Any:
        """A few epochs of PPO on one sampled batch; returns `B x K` indicators of the sampled tiers."""
        import torch

        o, temperature, state = self.options, self.options.temperature(self.step), self._state(rows, tau, lam)
        with torch.no_grad():
            a, b = policy_head(self.w, *state)
            mu = tensor(np.clip(self.rng.beta(a.numpy(), b.numpy()), 1e-6, 1.0 - 1e-6))
            score = self._scores(mu, rows)
            tier = _draw(torch.softmax(score / temperature, dim=1), self.rng.uniform(size=len(rows)))
            before = log_probability(a, b, mu, score, tier, temperature)
            reward = self._rewards(rows, tau, lam).gather(1, tier[:, None])[:, 0]
            baseline = critic_value(self.w, *state) if o.critic else reward.mean()
            advantage = reward - baseline
        for _ in range(o.epochs):
            a, b = policy_head(self.w, *state)
            now = log_probability(a, b, mu, self._scores(mu, rows), tier, temperature)
            loss = ppo_loss(now, before, advantage, o.ppo_clip)
            if o.critic:
                loss = loss + _VALUE_WEIGHT * ((critic_value(self.w, *state) - reward) ** 2).mean()
            self._descend(loss)
        return torch.nn.functional.one_hot(tier, self.q.shape[1]).to(torch.float64)

    def _scores(self, mu: Any, rows: IntArray) -> Any:
        return tier_scores(mu, self.w["boost"], exponent(self.w, self.options), self.p[rows], self.c[rows])

    def _descend(self, loss: Any) -> None:
        import torch

        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.w.values()), self.options.clip_norm)
        self.optimiser.step()

    def _observe(self, rows: IntArray, tau: FloatArray, tiers: Any) -> None:
        """Add the batch's shortfalls to each bin's."""
        short = [tau - (tiers * self.q[rows]).sum(dim=1).numpy()]
        short += [-(tiers * slack[rows]).sum(dim=1).numpy() for slack in self.slack]
        share = self.multipliers.weights(tau)
        self.sums[:-1] += np.stack(short) @ share
        self.sums[-1] += share.sum(axis=0)

    def _move_multipliers(self) -> None:
        seen = self.sums[-1] > 0
        mean = np.where(seen, self.sums[:-1] / np.where(seen, self.sums[-1], 1.0), np.nan)
        self.dual = self.multipliers.step(self.dual, mean)
        self.sums = np.zeros_like(self.sums)
        if self.step > self.options.steps / 2:
            self.log_sum, self.n_log = self.log_sum + np.log1p(self.dual.value), self.n_log + 1
            self.short_sum += np.where(seen, mean, 0.0)
            self.n_short += seen

    def finish(self, started: float) -> Trained:
        """The policy as it is deployed."""
        weights = {name: w.detach().numpy().copy() for name, w in self.w.items()}
        learned = np.expm1(self.log_sum / self.n_log) if self.n_log else self.dual.value
        arrays = {name: w for name, w in weights.items() if not name.startswith("v")}
        arrays["gamma"] = np.array(float(exponent(self.w, self.options)))
        arrays |= {"input_mean": self.mean, "input_scale": self.scale, "bins": self.multipliers.bins}
        table = np.repeat(learned, 2, axis=1) if self.multipliers.shared else learned
        if self.options.dual == "scalar":
            table[0] = 1.0  # the letter of the paper
        network = PolicyNetwork(arrays={**arrays, "multipliers": table})
        if not self.multipliers.shared and self.options.settle:
            network = _settled(network, self.data, self.options)
        with np.errstate(invalid="ignore"):
            shortfall = self.short_sum / self.n_short
        seconds = time.perf_counter() - started
        return Trained(network=network, weights=weights, learned=learned, shortfall=shortfall, seconds=seconds)

    def save(self, path: Path) -> None:
        """Everything that changes."""
        arrays = {f"w_{name}": w.detach().numpy() for name, w in self.w.items()}
        for name, w in self.w.items():
            moments = self.optimiser.state.get(w, {})
            arrays |= {f"{key}_{name}": value.numpy() for key, value in moments.items()}
        arrays |= {f"dual_{f.name}": getattr(self.dual, f.name) for f in dataclasses.fields(self.dual)}
        arrays |= {"sums": self.sums, "log_sum": self.log_sum, "short_sum": self.short_sum, "n_short": self.n_short}
        plain = {"step": self.step, "n_log": self.n_log, "rng": self.rng.bit_generator.state}
        save_checkpoint(path, arrays, plain, made_of=self.made_of)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint, if there is one."""
        found = load_checkpoint(path, made_of=self.made_of)
        if found is None:
            return
        arrays, plain = found
        self.step, self.n_log = plain["step"], plain["n_log"]
        self.rng.bit_generator.state = plain["rng"]
        self.sums, self.log_sum = arrays["sums"], arrays["log_sum"]
        self.short_sum, self.n_short = arrays["short_sum"], arrays["n_short"]
        self.dual = DualState(**{f.name: arrays[f"dual_{f.name}"] for f in dataclasses.fields(DualState)})
        for name, w in self.w.items():
            w.data.copy_(tensor(arrays[f"w_{name}"]))
            self._resume_moments(name, w, arrays)

    def _resume_moments(self, name: str, w: Any, arrays: dict[str, FloatArray]) -> None:
        import torch

        keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}_{name}" in arrays]
        if keys:
            self.optimiser.state[w] = {key: torch.tensor(arrays[f"{key}_{name}"]) for key in keys}


def _settled(network: PolicyNetwork, data: TrainingData, options: ProteusOptions) -> PolicyNetwork:
    """The network with multipliers for which the policy as deployed (no sampling) just meets each bin's target."""
    bins, every = network.arrays["bins"], np.arange(len(data.q))[:, None]
    inputs, lam = query_inputs(data.z, data.p, data.c), network.arrays["multipliers"]
    total = np.zeros_like(lam)
    for step in range(options.settle):
        tier = network.levels(inputs, data.p, data.c, bins, lam.T)
        short = np.stack([bins - data.q[every, tier].mean(axis=0)] + [-s[every, tier].mean(axis=0) for s in data.slack])
        size = LARGEST_MOVE / (1.0 + 0.2 * step)
        move = size * np.clip(short * options.step_size / LARGEST_MOVE, -1.0, 1.0)
        lam = np.clip(lam + (1.0 + lam) * move, 0.0, options.most_multiplier)
        if step >= options.settle // 2:
            total += np.log1p(lam)
    settled = np.expm1(total / (options.settle - options.settle // 2))
    return PolicyNetwork(arrays={**network.arrays, "multipliers": settled})


def tier_probabilities(trained: Trained, data: TrainingData, options: ProteusOptions, tau: FloatArray) -> FloatArray:
    """`N x K` chances of each tier under the policy as trained, at the multipliers that it learned; `tau: N`."""
    _require_torch()
    arrays = trained.network.arrays
    plain = PolicyNetwork(arrays={**arrays, "multipliers": trained.learned})
    w = {name: tensor(value) for name, value in trained.weights.items()}
    x = tensor((query_inputs(data.z, data.p, data.c) - arrays["input_mean"]) / arrays["input_scale"])
    a, b = policy_head(w, x, tensor(target_inputs(tau, plain.multipliers(tau), arrays["bins"])))
    found = expected_tiers(
        *(a, b, w["boost"], exponent(w, options), tensor(data.p), tensor(data.c)),
        temperature=options.temperature_end,
        nodes=options.nodes,
    )
    return np.asarray(found.numpy())


def _draw(probability: Any, uniform: FloatArray) -> Any:
    """`B` tiers, each drawn from a row of `B x K` by one uniform number."""
    below = (probability.cumsum(dim=1)[:, :-1] <= tensor(uniform)[:, None]).sum(dim=1)
    return below


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f"proteus needs torch ({error}); pip install 'routefront[rl]'") from error
