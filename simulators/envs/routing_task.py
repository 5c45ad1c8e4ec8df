r"""What `QueryRouting-v0` is played on: features, answers, predictions of N queries; what constraints say of each.

Notation: N queries, K tiers (0 = cheapest), F features, C constraints without the target's, n environments.
$\tilde c = c / \mathrm{cost\_scale\_usd}$; $\tau$ is the target quality, $\lambda \ge 0$ multipliers; `slack >= 0` is
feasible.

    score   $s_k = \hat p_k + \mu b_k - (1 - \mu)^\gamma \hat c_k$, tier $= \arg\max_k s_k$ (eq. 2 of [Proteus2026]_)
    reward  $r = q - \alpha \tilde c \; [+ \lambda_0 (q - \tau) + \sum_j \lambda_j \mathrm{slack}_j]$

Every slack is additive: its mean over queries is the slack of the constraint.

References:
    [Proteus2026] A. Bhatti, V. Vaddina, D. Birru, PROTEUS, arXiv 2601.19402, 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable

TARGET = "quality"
"""Name of the constraint that the target states."""
Action = Literal["mu", "tier"]
Float32Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class RoutingTask:
    """The arrays that a step looks into; one task serves any number of environments.

    Attributes:
        features: `(N + 1) x F`; the last row is zero and stands for "no query".
        quality: `N x K` in [0, 1].
        cost_usd: `N x K`.
        cost_scale_usd: What one unit of scaled cost is.
        constraints: C names, the target's not among them.
        slack: `N x K x C`.
        predicted_quality: `N x K`, or None for `action="tier"`.
        predicted_cost: `N x K` scaled, or None for `action="tier"`.
        targets: Least and greatest target.
    """

    features: Float32Array
    quality: FloatArray
    cost_usd: FloatArray
    cost_scale_usd: float
    constraints: tuple[str, ...]
    slack: FloatArray
    predicted_quality: FloatArray | None
    predicted_cost: FloatArray | None
    targets: tuple[float, float]

    @property
    def n_queries(self) -> int:
        """N."""
        return len(self.quality)

    @property
    def n_tiers(self) -> int:
        """K."""
        return int(self.quality.shape[1])

    @property
    def n_features(self) -> int:
        """F."""
        return int(self.features.shape[1])

    @property
    def names(self) -> tuple[str, ...]:
        """`1 + C` names in the order of the multipliers, the target's first."""
        return (TARGET, *self.constraints)


def make_task(
    table: OutcomeTable,
    features: ArrayLike,
    *,
    predicted_quality: ArrayLike | None = None,
    predicted_cost_usd: ArrayLike | None = None,
    targets: tuple[float, float] | None = None,
    constraints: Mapping[str, float] | None = None,
    cost_scale_usd: float | None = None,
) -> RoutingTask:
    """A task of a table.

    Args:
        table: N queries with known cost.
        features: `N x F` finite numbers that a router sees.
        predicted_quality, predicted_cost_usd: `N x K`, by something that has not seen these queries' answers.
        targets: Least and greatest target; None: from the cheapest tier's mean quality to the best tier's.
        constraints: Name -> limit: `quality@SLICE` and `share_within:SECONDS` at least, `cost` (USD), `latency_mean`
            (seconds) and `share_over:SECONDS` at most, each also as `NAME@SLICE`.
        cost_scale_usd: One unit of scaled cost; None: the mean cost of the dearest tier.

    Raises:
        InputDataError: If the table lacks cost or latency, or shapes do not fit.
        ConfigError: If a constraint is unknown or a range is empty.
    """
    if not table.has_cost:
        raise InputDataError("QueryRouting needs cost_usd of every answer; give a table with costs or a price card")
    scale = float(table.cost_usd.mean(axis=0).max()) if cost_scale_usd is None else cost_scale_usd
    if not scale > 0:
        raise ConfigError(f"cost_scale_usd: expected a positive number of USD; got {scale:g}")
    X = _shaped(features, (table.n_queries, None), "features")
    means = table.quality.mean(axis=0)
    low, high = (float(means[0]), float(means.max())) if targets is None else targets
    if not 0 <= low <= high <= 1:
        raise ConfigError(f"targets: expected 0 <= least <= greatest <= 1; got {low:g}, {high:g}")
    limits = dict(constraints or {})
    slack = [_slack(table, name, limit, scale) for name, limit in limits.items()]
    shape = table.quality.shape
    cost = None if predicted_cost_usd is None else _shaped(predicted_cost_usd, shape, "predicted_cost_usd") / scale
    return RoutingTask(
        features=np.vstack([X, np.zeros((1, X.shape[1]))]).astype(np.float32),
        quality=table.quality,
        cost_usd=table.cost_usd,
        cost_scale_usd=scale,
        constraints=tuple(limits),
        slack=np.stack(slack, axis=2) if slack else np.zeros((*shape, 0)),
        predicted_quality=None if predicted_quality is None else _shaped(predicted_quality, shape, "predicted_quality"),
        predicted_cost=cost,
        targets=(low, high),
    )


def _shaped(values: ArrayLike, shape: tuple[int | None, ...], name: str) -> FloatArray:
    """The values as an array of that shape (None: any length), finite."""
    found = np.asarray(values, dtype=np.float64)
    fits = found.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, found.shape, strict=True))
    if not fits:
        wanted = " x ".join("any" if size is None else str(size) for size in shape)
        raise InputDataError(f"{name}: expected shape {wanted}, one row per query of the table; got {found.shape}")
    if not np.isfinite(found).all():
        raise InputDataError(
            f"{name}: expected finite numbers; {int((~np.isfinite(found)).sum())} are not: fill or drop them"
        )
    return found


def _slack(table: OutcomeTable, name: str, limit: float, scale_usd: float) -> FloatArray:
    """`N x K` slack of one constraint; a slice's queries count by 1 / share, so that the mean is the slice's."""
    base, _, slice_name = name.partition("@")
    values = _margin(table, base, float(limit), scale_usd, name)
    if base == TARGET and not slice_name:
        raise ConfigError(f"constraints: {name!r} is the target's own name; state targets=(least, greatest)")
    if not slice_name:
        return values
    if slice_name not in table.slices:
        raise ConfigError(f"constraints: {name!r} names no slice of the table; it has {list(table.slices)}")
    inside = table.slice_code == table.slices.index(slice_name)
    if not inside.any():
        raise ConfigError(f"constraints: {name!r}: the table holds no query of slice {slice_name}")
    return np.asarray(values * (inside / inside.mean())[:, None])


def _margin(table: OutcomeTable, base: str, limit: float, scale_usd: float, name: str) -> FloatArray:
    kind, _, seconds = base.partition(":")
    if kind in {"latency_mean", "share_over", "share_within"} and not table.has_latency:
        raise InputDataError(f"constraints: {name!r} needs latency_s of every answer")
    if kind == TARGET:
        return table.quality - limit
    if kind == "cost":
        return (limit - table.cost_usd) / scale_usd
    if kind == "latency_mean" and limit > 0:
        return 1.0 - table.latency_s / limit
    if kind == "share_over":
        return np.asarray(limit - (table.latency_s > _seconds(seconds, name)), dtype=np.float64)
    if kind == "share_within":
        return np.asarray((table.latency_s <= _seconds(seconds, name)) - limit, dtype=np.float64)
    known = "quality@SLICE, cost, latency_mean (a positive limit), share_over:SECONDS, share_within:SECONDS"
    raise ConfigError(f"constraints: unknown {name!r} with limit {limit:g}; known: {known}, each also as NAME@SLICE")


def _seconds(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < np.inf:
        raise ConfigError(f"constraints: {name!r}: expected NAME:SECONDS with a positive number, as in share_over:10")
    return value


@dataclass(frozen=True, kw_only=True)
class RoutingRules:
    """How actions become tiers and answers become rewards.

    Attributes:
        action: What an action is: the exchange rate mu, or the tier itself.
        alpha: Price of one unit of scaled cost, in quality.
        lagrangian: Whether the reward holds the slacks, weighted by the multipliers.
        gamma: Exponent of eq. (2).
        boosts: `K` boosts `b` of eq. (2), or None for zeros.
        episode_length: Queries per episode.
    """

    action: Action
    alpha: float
    lagrangian: bool
    gamma: float
    boosts: FloatArray
    episode_length: int


def make_rules(
    task: RoutingTask,
    *,
    action: Action,
    alpha: float,
    lagrangian: bool,
    gamma: float,
    boosts: ArrayLike | None,
    episode_length: int | None,
) -> RoutingRules:
    """Checked rules; see `RoutingRules`.

    Raises:
        ConfigError: If an argument does not make sense, or predictions are missing where mu is the action.
    """
    if action not in ("mu", "tier"):
        raise ConfigError(f'action: expected "mu" or "tier"; got {action!r}')
    if action == "mu" and (task.predicted_quality is None or task.predicted_cost is None):
        raise ConfigError(
            'action="mu" ranks tiers by predictions; give predicted_quality and predicted_cost_usd, or action="tier"'
        )
    if not (alpha >= 0 and gamma > 0):
        raise ConfigError(f"expected alpha >= 0 and gamma > 0; got {alpha:g}, {gamma:g}")
    length = min(200, task.n_queries) if episode_length is None else episode_length
    if not 1 <= length <= task.n_queries:
        raise ConfigError(f"episode_length: expected 1 to {task.n_queries} queries (the table's); got {length}")
    zeros = np.zeros(task.n_tiers)
    b = zeros if boosts is None else np.asarray(boosts, dtype=np.float64)
    if b.shape != zeros.shape:
        raise ConfigError(f"boosts: expected {task.n_tiers} numbers, one per tier; got shape {b.shape}")
    return RoutingRules(action=action, alpha=alpha, lagrangian=lagrangian, gamma=gamma, boosts=b, episode_length=length)


def multiplier_table(task: RoutingTask, values: ArrayLike | Mapping[str, float] | None) -> FloatArray:
    """`T x (1 + C)` multipliers: row t holds for the t-th of T equal bins of the range of targets.

    Args:
        task: Says which constraints there are.
        values: None (zeros), name -> multiplier (others zero), `1 + C` numbers, or the table itself.

    Raises:
        ConfigError: If the shape does not fit, a name is unknown, or a multiplier is negative.
    """
    if values is None:
        values = {}
    if isinstance(values, Mapping):
        unknown = sorted(set(values) - set(task.names))
        if unknown:
            raise ConfigError(f"multipliers: unknown {unknown}; the constraints are {list(task.names)}")
        values = [values.get(name, 0.0) for name in task.names]
    found = np.atleast_2d(np.array(values, dtype=np.float64))
    if found.ndim != 2 or found.shape[1] != len(task.names) or len(found) == 0:
        raise ConfigError(
            f"multipliers: expected {len(task.names)} numbers ({', '.join(task.names)}), or a row of them per bin of "
            f"the target; got shape {found.shape}"
        )
    if not (np.isfinite(found) & (found >= 0)).all():
        raise ConfigError(f"multipliers: expected finite numbers >= 0; got {found.tolist()}")
    return found


def bin_of(task: RoutingTask, target: FloatArray | np.float64, n_bins: int) -> IntArray:
    """Bin of each target among `n_bins` equal ones of the range; targets outside fall into the first or last."""
    low, high = task.targets
    width = (high - low) / n_bins
    if width <= 0:
        return np.zeros(np.shape(target), dtype=np.int64)
    return np.clip(np.floor((target - low) / width), 0, n_bins - 1).astype(np.int64)
