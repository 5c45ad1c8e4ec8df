r"""PROTEUS: a policy that takes a requested quality, trained by Lagrangian reinforcement learning [Proteus2026]_.

In the paper's order: state, policy head, score (2), reward, losses, dual ascent (3). The loop over batches is in
`proteus_training.py`, the policy at run time, without torch, in `toolkit/scorers/proteus.py`. Tensors are `Any` here,
because torch is imported inside functions only.

Notation: N queries, K tiers, B queries of a batch, D query inputs, m multipliers (the first, lambda, is that of
quality), J bins of tau, Q quadrature nodes, H hidden units; `p`, `c` predicted quality and price, `q` recorded quality.

What differs from the paper, or what it leaves open ("-"):

| detail | paper | here | option |
|---|---|---|---|
| lambda | one number, fixed at 1 at inference | one per bin of tau, linear between bins on a log scale | `dual` |
| step of lambda | additive, 0.4 | in proportion to 1 + lambda, which spans orders of magnitude | `dual`, `dual_step` |
| lambda after training | 1 | settled on the tune queries with the policy as it is deployed | `settle` |
| gradient | PPO on samples | expectation over tier and mu: a recording holds every tier's answer | `gradient` |
| tau | one per batch | one per query | `tau_draw` |
| tier in training | - | softmax of the scores, temperature falling to 0.005: b and gamma learn | `temperature_end` |
| mu, tier at inference | - | mean of the Beta distribution, argmax | |
| Beta parameters | softplus | 1 + softplus (one peak), bounded by 51 | |
| encoder, quality head | DeBERTa, trained along (it seems) | any scorer, out-of-fold; a short embedding | |
| state | embedding, tau, lambda | and p, log c: the head's own statement of the query | |
| p in the reward | not said | recorded quality (or the prediction) | `reward` |
| cost | unit not given | price = cost x scale: at mu = 0 almost every query goes to tier 0 | `price_scale` |
| alpha | not given | 1, given that scale | `alpha` |
| size of the reward | - | divided by 1 + the sum of multipliers: the same optimum, gradients of one size | |
| PPO clip, epochs, value loss, entropy | not given | 0.2, 4, 0.5, none; plain advantages | `ppo_clip`, `epochs` |
| tau and lambda to mu | by the network | and directly, at a step size of its own | `common_rate` |
| b | learned | at a low rate: the middle of the range pushes dear tiers away, and closes its top | `boost_rate` |
| first lambda | - | what a point of quality costs the Zero router at that tau | |
| weight decay | AdamW's | 10, matrices only: a few hundred queries are learned by heart otherwise | `weight_decay` |
| constraints | quality | any that are means over queries, a multiplier each | `AdditiveConstraint` |

References:
    [Proteus2026] A. Bhatti, V. Vaddina, D. Birru, PROTEUS, arXiv 2601.19402, 2026.
    [Schulman2017] J. Schulman et al., Proximal policy optimization algorithms, arXiv 1707.06347, 2017.
    [Stooke2020] A. Stooke, J. Achiam, P. Abbeel, Responsive safety by PID Lagrangian methods, ICML 2020.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from toolkit.scorers.proteus import MOST_CONCENTRATED
from toolkit.search.multipliers import Dual, DualState, GradientDual, PidDual
from toolkit.search.torch_tools import tensor

Weights = dict[str, Any]
DualName = Literal["none", "scalar", "per_tau", "pid"]
GAMMA = (2.0, 8.0)
LARGEST_MOVE = 0.5
"""A relative multiplier moves by at most this share of 1 + lambda in one step."""


@dataclass(frozen=True, kw_only=True)
class ProteusOptions:
    """How a policy is trained; the table above says where each comes from.

    Attributes:
        dual: `per_tau`, `pid` (the same bins, PID rule), `scalar` (the paper's) or `none` (its unconstrained ablation).
        gradient: `exact` or `sampled` (PPO).
        gamma: Fixed exponent, or None: learned within [2, 8].
        critic: Whether a value network is the baseline of `sampled`; else the mean of the batch.
        reward: `label` or `prediction`: the quality and cost that the reward counts.
        tau_draw: A requested quality per `query` or per `batch`.
        alpha: Weight of the price in the reward.
        hidden, steps, batch, learning_rate, weight_decay, clip_norm: Of network and AdamW.
        common_rate: Step size of what all queries share: gamma, and the direct way from tau and lambda to mu.
        boost_rate: Step size of b; None: 1e-5, or that of the network where constraints beyond quality need it.
        temperature_start, temperature_end: Of the softmax over tiers, in quality; falls geometrically.
        bins: Bins of tau with a multiplier each.
        dual_step, dual_every: Step size of the multipliers (None: 0.4 for `scalar`, else 10), batches between steps.
        most_multiplier: Upper limit, where a requested quality that nothing reaches ends.
        settle: Steps of the multipliers after training, on all tune queries, the policy as deployed (not for `scalar`).
        nodes: Quadrature nodes over mu of `exact`.
        ppo_clip, epochs: Of `sampled`.
    """

    dual: DualName = "per_tau"
    gradient: Literal["exact", "sampled"] = "exact"
    gamma: float | None = None
    critic: bool = True
    reward: Literal["label", "prediction"] = "label"
    tau_draw: Literal["query", "batch"] = "query"
    alpha: float = 1.0
    hidden: int = 256
    steps: int = 600
    batch: int = 256
    learning_rate: float = 3e-4
    common_rate: float = 5e-2
    boost_rate: float | None = None
    weight_decay: float = 10.0
    clip_norm: float = 1.0
    temperature_start: float = 0.5
    temperature_end: float = 0.005
    bins: int = 17
    dual_step: float | None = None
    dual_every: int = 5
    most_multiplier: float = 1e4
    settle: int = 30
    nodes: int = 32
    ppo_clip: float = 0.2
    epochs: int = 4

    def __post_init__(self) -> None:
        for name, known in (("dual", DualName), ("gradient", Literal["exact", "sampled"])):
            if getattr(self, name) not in get_args(known):
                raise ConfigError(f"{name}={getattr(self, name)} is none of {', '.join(get_args(known))}")
        counts = ("hidden", "steps", "batch", "dual_every", "nodes", "epochs")
        low = [name for name in counts if getattr(self, name) < 1]
        if low or self.bins < 2 or self.settle < 0:
            raise ConfigError(
                f"proteus needs {', '.join(counts)} >= 1, bins >= 2 and settle >= 0; check {low or 'those'}"
            )
        if not 0 < self.temperature_end <= self.temperature_start:
            raise ConfigError("proteus needs 0 < temperature_end <= temperature_start")

    def temperature(self, step: int) -> float:
        """Of the softmax at a step of training; reaches its end at three quarters of the steps."""
        done = min(1.0, step / max(1.0, 0.75 * self.steps))
        return float(self.temperature_start ** (1.0 - done) * self.temperature_end**done)

    @property
    def step_size(self) -> float:
        """Of the multipliers."""
        return self.dual_step or (0.4 if self.dual == "scalar" else 10.0)

    def rule(self) -> Dual:
        """How the multipliers move."""
        step = self.step_size
        if self.dual == "pid":
            return PidDual(proportional=step, integral=step, derivative=step, relative=True, most=self.most_multiplier)
        relative = self.dual == "per_tau"
        return GradientDual(
            step_size=step, relative=relative, start=0.0 if relative else 1.0, most=self.most_multiplier
        )


@dataclass(frozen=True, kw_only=True)
class AdditiveConstraint:
    """A constraint whose slack is a mean over queries.

    Attributes:
        name: As a user knows it.
        slack: `N x K`; its mean over all N queries, each at its tier, is the slack: `>= 0` is feasible. The floor of a
            slice has rows of other slices at 0 and its own weighted by N over their number.
    """

    name: str
    slack: FloatArray


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a policy is trained on.

    Attributes:
        z: `N x d` embeddings.
        p, c: `N x K` predicted quality and price, out-of-fold.
        q, price: `N x K` recorded quality and price.
        constraints: Beyond quality.
    """

    z: FloatArray
    p: FloatArray
    c: FloatArray
    q: FloatArray
    price: FloatArray
    constraints: tuple[AdditiveConstraint, ...] = ()

    @property
    def slack(self) -> FloatArray:
        """`(m - 1) x N x K`."""
        return np.stack([c.slack for c in self.constraints]) if self.constraints else np.zeros((0, *self.q.shape))

    def digest(self) -> str:
        """SHA-256 of all of it."""
        found = hashlib.sha256(json.dumps([c.name for c in self.constraints]).encode())
        for values in (self.z, self.p, self.c, self.q, self.price, self.slack):
            found.update(f"{values.shape}".encode() + np.ascontiguousarray(values).tobytes())
        return found.hexdigest()


def price_scale(p: FloatArray, cost: FloatArray, *, share: float = 0.99) -> float:
    """Quality per USD at which a share of the queries prefers the first tier; `p`, `cost` predicted, `N x K`."""
    gain, extra = p[:, 1:] - p[:, :1], cost[:, 1:] - cost[:, :1]
    rate = np.where(extra > 0, gain / np.where(extra > 0, extra, 1.0), 0.0).max(axis=1)
    found = float(np.quantile(rate, share))
    return found if found > 0 else 1.0 / max(float(cost.mean()), 1e-12)


# State and policy head ------------------------------------------------------------------------------------------------


def policy_head(w: Weights, x: Any, at: Any) -> tuple[Any, Any]:
    """`(B, B)` parameters of Beta(a, b), from standardised `x: B x D` and `at: B x (1 + m)`; multipliers gate."""
    import torch

    hidden = (torch.cat([x, at], dim=1) @ w["w1"] + w["b1"]).clamp_min(0.0)
    hidden = hidden * 2.0 * torch.sigmoid(at[:, 1:] @ w["gate"] + w["gate0"])
    hidden = (hidden @ w["w2"] + w["b2"]).clamp_min(0.0)
    raw = hidden @ w["w3"] + at @ w["skip"] + w["b3"]
    raw = MOST_CONCENTRATED * torch.tanh(raw / MOST_CONCENTRATED)
    both = 1.0 + torch.logaddexp(raw, torch.zeros_like(raw))
    return both[:, 0], both[:, 1]


def exponent(w: Weights, options: ProteusOptions) -> Any:
    """gamma of eq. (2)."""
    import torch

    if options.gamma is not None:
        return torch.tensor(options.gamma, dtype=torch.float64)
    return GAMMA[0] + (GAMMA[1] - GAMMA[0]) * torch.sigmoid(w["gamma"])


# Score (2) ------------------------------------------------------------------------------------------------------------


def tier_scores(mu: Any, boost: Any, gamma: Any, p: Any, c: Any) -> Any:
    """Eq. (2), `... x K`: `mu: ...`, `p` and `c: ... x K` (or to be broadcast)."""
    return p + mu[..., None] * boost - ((1.0 - mu) ** gamma)[..., None] * c


def expected_tiers(a: Any, b: Any, boost: Any, gamma: Any, p: Any, c: Any, temperature: float, nodes: int) -> Any:
    """`B x K` probability of each tier: mu over its Beta distribution by quadrature, the tier by the softmax."""
    import torch

    points, weights = _gauss_legendre(nodes)
    mu = tensor((points + 1.0) / 2.0)
    log_density = (
        (a[:, None] - 1.0) * torch.log(mu) + (b[:, None] - 1.0) * torch.log1p(-mu) + torch.log(tensor(weights))
    )
    of_node = torch.softmax(log_density, dim=1)
    score = tier_scores(mu[None, :], boost, gamma, p[:, None, :], c[:, None, :])
    return (of_node[..., None] * torch.softmax(score / temperature, dim=2)).sum(dim=1)


@lru_cache
def _gauss_legendre(nodes: int) -> tuple[FloatArray, FloatArray]:
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return np.asarray(points), np.asarray(weights)


# Reward ---------------------------------------------------------------------------------------------------------------


def rewards(q: Any, price: Any, slack: Any, lam: Any, tau: Any, alpha: float) -> Any:
    r"""`B x K`: $(q - \alpha \tilde c + \lambda (q - \tau) + \sum_j \lambda_j g_j) / (1 + \lambda + \sum_j \lambda_j)$.

    Args:
        q, price: `B x K` recorded quality and price of every tier.
        slack: `(m - 1) x B x K` of the other constraints.
        lam: `B x m` multipliers, that of quality first.
        tau: `B`.
        alpha: Weight of the price.
    """
    total = q - alpha * price + lam[:, :1] * (q - tau[:, None])
    for j in range(len(slack)):
        total = total + lam[:, j + 1, None] * slack[j]
    return total / (1.0 + lam.sum(axis=1)[:, None])


# Losses ---------------------------------------------------------------------------------------------------------------


def exact_loss(tiers: Any, reward: Any) -> Any:
    """Minus the expected reward: `tiers`, `reward: B x K`."""
    return -(tiers * reward).sum(dim=1).mean()


def log_probability(a: Any, b: Any, mu: Any, score: Any, tier: Any, temperature: float) -> Any:
    """`B` log-density of a sampled mu plus log-probability of a sampled tier (`score: B x K` at that mu)."""
    import torch

    log_beta = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
    density = (a - 1.0) * torch.log(mu) + (b - 1.0) * torch.log1p(-mu) - log_beta
    return density + torch.log_softmax(score / temperature, dim=1).gather(1, tier[:, None])[:, 0]


def ppo_loss(log_prob: Any, log_prob_before: Any, advantage: Any, clip: float) -> Any:
    """The clipped surrogate of [Schulman2017]_, as a loss; all `B`."""
    import torch

    ratio = torch.exp(log_prob - log_prob_before)
    return -torch.minimum(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage).mean()


def critic_value(w: Weights, x: Any, at: Any) -> Any:
    """`B` expected reward of a state."""
    import torch

    hidden = (torch.cat([x, at], dim=1) @ w["v1"] + w["vb1"]).clamp_min(0.0)
    return (hidden @ w["v2"] + w["vb2"])[:, 0]


# Dual (3) -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Multipliers:
    """Multipliers over the range of tau.

    Attributes:
        rule: How they move.
        bins: `J` values of tau, ascending; one multiplier per constraint for all of them where `shared`.
        shared: The scalar form.
        largest: A larger shortfall than this counts as this.
        frozen: Never move (the unconstrained ablation).
    """

    rule: Dual
    bins: FloatArray
    shared: bool
    largest: float
    frozen: bool

    @staticmethod
    def make(options: ProteusOptions, low: float, high: float) -> Multipliers:
        """The multipliers of an option set, on [low, high]."""
        shared = options.dual in {"none", "scalar"}
        bins = np.linspace(low, high, 2 if shared else options.bins)
        largest = np.inf if shared else LARGEST_MOVE / options.step_size
        return Multipliers(
            rule=options.rule(), bins=bins, shared=shared, largest=largest, frozen=options.dual == "none"
        )

    def init(self, m: int) -> DualState:
        """Of m constraints."""
        state = self.rule.init((m, 1 if self.shared else len(self.bins)))
        return dataclasses.replace(state, value=np.zeros_like(state.value)) if self.frozen else state

    def at(self, state: DualState, tau: FloatArray) -> FloatArray:
        """`B x m` at each `tau: B`, between bins on a log scale."""
        if self.shared:
            return np.broadcast_to(state.value[:, 0], (len(tau), len(state.value))).copy()
        between = [np.interp(tau, self.bins, row) for row in np.log1p(state.value)]
        return np.asarray(np.expm1(np.stack(between, axis=1)))

    def weights(self, tau: FloatArray) -> FloatArray:
        """`B x J` share of each query in each bin: what its multipliers were interpolated with."""
        if self.shared:
            return np.ones((len(tau), 1))
        return np.stack([np.interp(tau, self.bins, row) for row in np.eye(len(self.bins))], axis=1)

    def step(self, state: DualState, shortfall: FloatArray) -> DualState:
        """Eq. (3) on mean shortfalls `m x J`; NaN where a bin saw no query."""
        if self.frozen:
            return state
        return self.rule.step(state, np.clip(shortfall, -self.largest, self.largest))
