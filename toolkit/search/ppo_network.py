"""The two networks of `ppo_lagrangian`, as a plain dictionary of arrays: their start, and the critic in NumPy.

Notation: d observed figures, h hidden units, A boundaries, S = 1 + c streams (the reward, then the slack of each
constraint). The actor is that of `WindowPolicy`; the critic gives one value per stream.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from simulators.outcomes import FloatArray

_ADAM = ("exp_avg", "exp_avg_sq", "step")
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def initial_weights(
    rng: np.random.Generator, *, n_observed: int, hidden: int, home: FloatArray, n_streams: int, noise: float
) -> dict[str, FloatArray]:
    """Orthogonal hidden layers, zero last ones: actions start at home, values at 0."""
    d, h, a = n_observed, hidden, len(home)
    return {
        "actor_w1": _orthogonal(rng, d, h),
        "actor_b1": np.zeros(h),
        "actor_w2": _orthogonal(rng, h, h),
        "actor_b2": np.zeros(h),
        "actor_w3": np.zeros((h, a)),
        "home": np.array(home, dtype=np.float64),
        "log_std": np.full(a, math.log(noise)),
        "critic_w1": _orthogonal(rng, d, h),
        "critic_b1": np.zeros(h),
        "critic_w2": _orthogonal(rng, h, h),
        "critic_b2": np.zeros(h),
        "critic_w3": np.zeros((h, n_streams)),
        "critic_b3": np.zeros(n_streams),
    }


def _orthogonal(rng: np.random.Generator, n: int, m: int) -> FloatArray:
    """`n x m` with orthonormal rows or columns, whichever are fewer."""
    q, r = np.linalg.qr(rng.standard_normal((max(n, m), min(n, m))))
    q = q * np.sign(np.diag(r))
    return np.asarray(q if n >= m else q.T)


def values(weights: dict[str, FloatArray], observation: FloatArray) -> FloatArray:
    """`... x S` values at normalised observations `... x d`, in NumPy."""
    w = weights
    hidden = np.tanh(observation @ w["critic_w1"] + w["critic_b1"])
    hidden = np.tanh(hidden @ w["critic_w2"] + w["critic_b2"])
    return np.asarray(hidden @ w["critic_w3"] + w["critic_b3"])


def log_density(action: FloatArray, mean: FloatArray, log_std: FloatArray) -> FloatArray:
    """`...` logarithm of the Gaussian density of `action: ... x A`, in NumPy."""
    z = (action - mean) / np.exp(log_std)
    return np.asarray((-0.5 * z**2 - log_std - HALF_LOG_2PI).sum(axis=-1))


def adam_memory(adam: Any, weights: dict[str, Any]) -> dict[str, FloatArray]:
    """What torch's Adam remembers of each weight, as arrays."""
    return {f"{n}.{part}": adam.state[w][part].numpy().copy() for n, w in weights.items() for part in _ADAM}


def restore_adam(adam: Any, weights: dict[str, Any], memory: dict[str, FloatArray]) -> None:
    """Give Adam back what `adam_memory` took; nothing where that is empty."""
    import torch

    for name, w in weights.items() if memory else ():
        adam.state[w] = {part: torch.from_numpy(memory[f"{name}.{part}"].copy()) for part in _ADAM}
