"""The recipe that trains PROTEUS on top of a scorer, as part of fitting a scorer.

The base scorer is the quality head: its out-of-fold predictions on the training table are what the policy sees of
quality and cost, so that it learns with the error it will meet. Whoever needs the trained policy's own out-of-fold
tiers cross-fits this recipe like any other (`toolkit.scorers.base.cross_fit`).

Notation: N queries, K tiers, T requested qualities.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, OutcomeTable
from simulators.seeds import spawn_rng
from toolkit.evaluation.constraints import Constraint
from toolkit.evaluation.slices import Coverage
from toolkit.scorers.base import Scorer, ScoreTable, cross_fit
from toolkit.scorers.embedding import Embedding
from toolkit.scorers.proteus import FittedProteus, priced_predictions, query_inputs, stand_in_cost
from toolkit.search.proteus import AdditiveConstraint, ProteusOptions, TrainingData, price_scale
from toolkit.search.proteus_training import Trained, train

_PRICE_MARGIN = 2.0
"""mu never reaches 0, so that the price must exceed the largest gain by more than a hair."""
_ADDITIVE = (
    "quality, worst_slice, cost, latency_mean, share_over:SECONDS and share_within:SECONDS, each also as NAME@SLICE"
)


def default_targets(table: OutcomeTable, n: int = 65) -> FloatArray:
    """`n` requested qualities, from the worst single tier to a quarter of the way from the best one to the oracle."""
    of_tier = table.quality.mean(axis=0)
    best, oracle = of_tier.max(), table.quality.max(axis=1).mean()
    return np.linspace(of_tier.min(), best + (oracle - best) / 4, n)


def additive_constraints(
    constraint: Constraint, table: OutcomeTable, cover: Coverage | None = None
) -> tuple[AdditiveConstraint, ...]:
    """One constraint on a table's rows as means over queries; `worst_slice` becomes a floor for each group.

    Args:
        constraint: What is bounded.
        table: The queries.
        cover: Groups of slices that count, small ones together; None: each slice.

    Raises:
        ConfigError: If its metric is no mean over queries (a quantile, a bound), or the table lacks what it needs.
    """
    metric = constraint.metric
    if metric.base == "worst_slice":
        names = table.slices if cover is None else cover.groups
        group = table.slice_code if cover is None else cover.group_of_rows(table)
        floor = constraint.slack(table.quality)
        return tuple(
            AdditiveConstraint(name=f"{constraint.name}@{name}", slack=floor * _weight(group == g)[:, None])
            for g, name in enumerate(names)
        )
    slack = constraint.slack(_values(constraint, table))
    if constraint.metric.base in {"cost", "latency_mean"}:
        slack = slack / constraint.limit  # so that multipliers of USD, seconds and shares are of one size
    return (AdditiveConstraint(name=constraint.name, slack=slack * _slice_weight(constraint, table)[:, None]),)


def _values(constraint: Constraint, table: OutcomeTable) -> FloatArray:
    """`N x K` what the metric averages."""
    metric = constraint.metric
    if metric.needs_latency and not table.has_latency:
        raise ConfigError(f"the constraint {constraint.name} needs latency_s in the data")
    if metric.base == "quality":
        return table.quality
    if metric.base == "cost" and table.has_cost:
        return table.cost_usd
    if metric.base == "latency_mean":
        return table.latency_s
    if metric.limit_s is not None:
        over = table.latency_s > metric.limit_s
        return (over if metric.base == "share_over" else ~over).astype(np.float64)
    if metric.base == "cost":
        raise ConfigError(f"the constraint {constraint.name} needs cost_usd in the data; give data.prices=FILE")
    raise ConfigError(
        f"controller=proteus trains with constraints that are means over queries ({_ADDITIVE}); "
        f"{constraint.name} is none: bound a share instead (share_over:SECONDS for a latency quantile)"
    )


def _slice_weight(constraint: Constraint, table: OutcomeTable) -> FloatArray:
    """`N`: 1, or 0 outside the slice and N over its size inside."""
    name = constraint.metric.slice_name
    if name is None:
        return np.ones(table.n_queries)
    if name not in table.slices:
        raise ConfigError(
            f"the constraint {constraint.name} names the slice {name!r}; the data has {list(table.slices)}"
        )
    return _weight(table.slice_code == table.slices.index(name))


def _weight(inside: NDArray[np.bool_]) -> FloatArray:
    """`N`: N over the number of those inside, 0 outside."""
    return np.asarray(inside * (len(inside) / max(int(inside.sum()), 1)))


@dataclass(frozen=True, kw_only=True)
class ProteusScorer:
    """Recipe: a scorer, plus a policy trained on its out-of-fold predictions.

    Attributes:
        base: The quality head; it must predict quality per tier, and cost where the data has one.
        options: How the policy is trained.
        targets: `T` requested qualities, ascending: the trained range and what `predict` answers for.
        embedding: What the network sees of a query beside the predictions.
        folds: For the base's out-of-fold predictions.
        seed: Of folds, embedding and training.
        constraints: Beyond quality; turned into arrays for each table that is fitted.
        cover: Groups of slices that a floor of the worst slice is about; None: each slice.
        checkpoints: Folder of checkpoints, one file per table that is fitted, or None.
        on_progress: Told `(step, steps)` of each training.
    """

    base: Scorer
    options: ProteusOptions
    targets: FloatArray
    embedding: Embedding = field(default_factory=Embedding)
    folds: int = 5
    seed: int = 0
    constraints: tuple[Constraint, ...] = ()
    cover: Coverage | None = None
    checkpoints: Path | None = None
    on_progress: Callable[[int, int], None] | None = None
    learned = True

    def __post_init__(self) -> None:
        if len(self.targets) < 2 or not (np.diff(self.targets) > 0).all():
            raise ConfigError(f"proteus needs two or more requested qualities, ascending; got {self.targets.tolist()}")

    def fit(self, table: OutcomeTable) -> FittedProteus:
        """Train on `table`: out-of-fold predictions, embedding, policy; then the base once more on all of it.

        Raises:
            ConfigError: If the base predicts no quality, or fails on almost every query.
        """
        scores = cross_fit(self.base, table, folds=self.folds, rng=spawn_rng(self.seed, "proteus", "folds"))
        rows = _usable(scores)
        if len(rows) < 2:
            raise ConfigError("the scorer gave usable predictions for fewer than two queries of the tune split")
        kept, scores = table.take(rows), scores.take(rows)
        embedding = self.embedding.fit(kept.queries, seed=self.seed)
        scale = _scale(scores)
        data = self._data(kept, scores, embedding.transform(kept.queries), scale)
        trained = self._train(data, table.data_hash)
        return FittedProteus(
            base=self.base.fit(table),
            embedding=embedding,
            network=trained.network,
            targets=self.targets,
            cost_scale=scale,
            summary=self._summary(trained, data, scores.cost_usd is not None),
        )

    def _data(self, table: OutcomeTable, scores: ScoreTable, z: FloatArray, scale: float) -> TrainingData:
        p, c = priced_predictions(scores, scale)
        known = scores.cost_usd is not None and table.has_cost
        constraints = [
            a for constraint in self.constraints for a in additive_constraints(constraint, table, self.cover)
        ]
        return TrainingData(
            z=z, p=p, c=c, q=table.quality, price=scale * table.cost_usd if known else c, constraints=tuple(constraints)
        )

    def _train(self, data: TrainingData, data_hash: str) -> Trained:
        return train(
            data,
            self.options,
            low=float(self.targets[0]),
            high=float(self.targets[-1]),
            seed=self.seed,
            checkpoint=None if self.checkpoints is None else self.checkpoints / f"proteus_{data_hash[:16]}.npz",
            on_progress=self.on_progress,
        )

    def _summary(self, trained: Trained, data: TrainingData, has_cost: bool) -> dict[str, object]:
        network, every = trained.network, np.arange(len(data.q))[:, None]
        tier = network.levels(query_inputs(data.z, data.p, data.c), data.p, data.c, self.targets)
        quality = data.q[every, tier].mean(axis=0)
        met = np.flatnonzero(quality >= self.targets)
        return {
            "options": dataclasses.asdict(self.options),
            "constraints": [c.name for c in data.constraints],
            "cost": "predicted" if has_cost else "unknown; the index of the tier stands in",
            "n_train": len(data.q),
            "reachable": float(self.targets[met[-1]]) if len(met) else None,
            "train_quality": [float(quality[0]), float(quality[-1])],
            "multipliers": np.round(network.arrays["multipliers"], 6).tolist(),
            "boost": np.round(network.arrays["boost"], 6).tolist(),
            "gamma": float(network.arrays["gamma"]),
            "seconds": round(trained.seconds, 3),
        }


def _usable(scores: ScoreTable) -> np.ndarray:
    quality, price = priced_predictions(scores, 1.0)
    return np.flatnonzero(np.isfinite(quality).all(axis=1) & np.isfinite(price).all(axis=1))


def _scale(scores: ScoreTable) -> float:
    quality, _ = priced_predictions(scores, 1.0)
    cost = scores.cost_usd
    known = np.broadcast_to(stand_in_cost(quality.shape[1]), quality.shape) if cost is None else cost
    return _PRICE_MARGIN * price_scale(quality, known)
