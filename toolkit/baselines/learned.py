"""Routers that learn from prompts on their own: Avengers-Pro's clusters, nearest neighbours, a neural network.

All see the same features: words and shape of the prompt (`PromptFeatures`), reduced to a few dimensions; numeric
signals where there are no prompts. Whatever is learned is out-of-fold on the tune queries.

Notation: N queries, K tiers, D features.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler, normalize

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, OutcomeTable, QueryBatch, split_by_prompt
from simulators.seeds import spawn_rng
from toolkit.baselines.base import RouterRun, Split
from toolkit.baselines.common import MOST_SETTINGS, SMALLEST_COST_USD, effort, looked_up
from toolkit.baselines.score_rules import utility_on
from toolkit.policies.utility import predictions
from toolkit.scorers.base import ScoreTable
from toolkit.scorers.features import PromptFeatures

_QUERIES_PER_CLUSTER = 8

Predict = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""`N x D` features -> quality and cost, `N x K` each."""
Learn = Callable[[FloatArray, OutcomeTable, int], Predict]
"""Features of a table, the table, a seed -> what was learned."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """A fitted map from queries to `N x D` numbers; rows have norm 1 where they come from prompts."""

    words: PromptFeatures | None
    reduce: TruncatedSVD | StandardScaler

    @staticmethod
    def fit(queries: QueryBatch, *, dimensions: int, seed: int) -> Features:
        """Learn the map on `queries`.

        Raises:
            ConfigError: If queries have neither prompts nor signals.
        """
        if queries.prompt is not None:
            words = PromptFeatures.fit(queries.prompt, seed=seed)
            X = words.transform(queries.prompt)
            reduce = TruncatedSVD(min(dimensions, *(size - 1 for size in X.shape)), random_state=seed)
            return Features(words=words, reduce=reduce.fit(X))
        return Features(words=None, reduce=StandardScaler().fit(_signals(queries)))

    def transform(self, queries: QueryBatch) -> FloatArray:
        """`N x D`."""
        if self.words is None or queries.prompt is None:
            return np.asarray(np.nan_to_num(self.reduce.transform(_signals(queries))))
        return np.asarray(normalize(self.reduce.transform(self.words.transform(queries.prompt))))


def _signals(queries: QueryBatch) -> FloatArray:
    if not queries.signals:
        raise ConfigError("this method learns from prompts or numeric signals, and the queries have neither")
    return np.stack([queries.signals[name] for name in sorted(queries.signals)], axis=1)


def cross_predict(split: Split, learn: Learn, *, name: str, dimensions: int) -> tuple[ScoreTable, ScoreTable]:
    """Predictions for the tune queries, out-of-fold, and for the held-out ones, learned on all of tune.

    Args:
        split: The split.
        learn: What to learn.
        name: Of the method: its folds and seeds are its own.
        dimensions: Of the features.
    """
    table, rng = split.tune, spawn_rng(split.seed, name)
    parts = split_by_prompt(table, {str(i): 1.0 / split.folds for i in range(split.folds)}, rng)
    quality, cost = np.empty(table.quality.shape), np.empty(table.quality.shape)
    for rows in parts.values():
        seen = table.take(np.setdiff1d(np.arange(table.n_queries), rows))
        quality[rows], cost[rows] = _learn_and_predict(seen, table.queries.take(rows), learn, dimensions, rng)
    held_out = _learn_and_predict(table, split.held_out.queries, learn, dimensions, rng)
    return _as_scores(quality, cost), _as_scores(*held_out)


def _learn_and_predict(
    table: OutcomeTable, queries: QueryBatch, learn: Learn, dimensions: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    seed = int(rng.integers(2**31))
    features = Features.fit(table.queries, dimensions=dimensions, seed=seed)
    known, new = features.transform(table.queries), features.transform(queries)
    return learn(known, table, seed)(new)


def _as_scores(quality: FloatArray, cost: FloatArray) -> ScoreTable:
    return ScoreTable(score=np.zeros(len(quality)), quality=quality, cost_usd=cost)


def avengers_pro(split: Split, *, clusters: int = 60, dimensions: int = 64, settings: int = 101) -> RouterRun:
    """k-means on features; per cluster `α p~ + (1-α)(1-q~)` of mean quality p and cost q, each scaled over the tiers.

    Avengers-Pro, arXiv 2508.12631, with the nearest cluster alone and our features instead of an embedding.

    Args:
        split: The split.
        clusters: k; fewer where that would leave less than eight queries to each.
        dimensions: Of the features.
        settings: Values of α, evenly spaced in [0, 1].
    """
    started = time.perf_counter()
    scores = cross_predict(split, _clusters(clusters), name="avengers_pro", dimensions=dimensions)
    alphas = np.linspace(0.0, 1.0, settings)
    tiers = []
    for part in scores:
        p, q = (_over_tiers(values) for values in predictions(part))
        value = alphas[:, None, None] * p + (1.0 - alphas[:, None, None]) * (1.0 - q)
        tiers.append(value.argmax(axis=2).astype(np.int8))
    return looked_up(
        split, name="avengers_pro", knob="α", settings=alphas, tune=tiers[0], held_out=tiers[1], started=started
    )


def _over_tiers(values: FloatArray) -> FloatArray:
    """`N x K` scaled to [0, 1] in each row; 0 where all are equal."""
    low, high = values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True)
    return np.where(high > low, (values - low) / np.where(high > low, high - low, 1.0), 0.0)


def _clusters(k: int) -> Learn:
    """Mean quality and cost of the cluster that a query falls into."""

    def learn(X: FloatArray, table: OutcomeTable, seed: int) -> Predict:
        most = max(1, len(X) // _QUERIES_PER_CLUSTER)
        means = KMeans(min(k, most), n_init=4, random_state=seed).fit(X)
        one_hot = np.eye(means.n_clusters)[means.labels_]
        share = one_hot / one_hot.sum(axis=0)
        quality, cost = share.T @ table.quality, share.T @ effort(table)

        def predict(queries: FloatArray) -> tuple[FloatArray, FloatArray]:
            cluster = means.predict(queries)
            return quality[cluster], cost[cluster]

        return predict

    return learn


def knn(split: Split, *, neighbours: int = 5, dimensions: int = 64, settings: int = MOST_SETTINGS) -> RouterRun:
    """Mean quality and cost of the nearest tune queries, then a utility; the dearest setting takes the best quality.

    Args:
        split: The split.
        neighbours: How many.
        dimensions: Of the features.
        settings: Most λ that are looked up.
    """
    started = time.perf_counter()
    scores = cross_predict(split, _neighbours(neighbours), name="knn", dimensions=dimensions)
    return utility_on(split, *scores, name="knn", settings=settings, started=started)


def _neighbours(k: int) -> Learn:
    def learn(X: FloatArray, table: OutcomeTable, seed: int) -> Predict:
        targets = np.hstack([table.quality, effort(table)])
        nearest = KNeighborsRegressor(min(k, len(X))).fit(X, targets)

        def predict(queries: FloatArray) -> tuple[FloatArray, FloatArray]:
            found = nearest.predict(queries)
            return found[:, : table.n_tiers], found[:, table.n_tiers :]

        return predict

    return learn


def mlp(
    split: Split,
    *,
    hidden: tuple[int, ...] = (100, 100),
    epochs: int = 60,
    dimensions: int = 64,
    settings: int = MOST_SETTINGS,
) -> RouterRun:
    """A network of three layers of weights predicts quality and log cost, then a utility.

    Args:
        split: The split.
        hidden: Units of the hidden layers.
        epochs: Passes over the data, no early stopping.
        dimensions: Of the features.
        settings: Most λ that are looked up.
    """
    started = time.perf_counter()
    scores = cross_predict(split, _network(hidden, epochs), name="mlp", dimensions=dimensions)
    return utility_on(split, *scores, name="mlp", settings=settings, started=started)


def _network(hidden: tuple[int, ...], epochs: int) -> Learn:
    def learn(X: FloatArray, table: OutcomeTable, seed: int) -> Predict:
        k, cost = table.n_tiers, effort(table)
        inputs = StandardScaler().fit(X)
        targets = np.hstack([table.quality, np.log(np.maximum(cost, SMALLEST_COST_USD))])
        outputs = StandardScaler().fit(targets)
        network = MLPRegressor(
            hidden_layer_sizes=hidden, max_iter=epochs, alpha=1e-2, n_iter_no_change=epochs, random_state=seed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of passes is what is asked for
            network.fit(inputs.transform(X), outputs.transform(targets))

        def raw(queries: FloatArray) -> FloatArray:
            return np.asarray(outputs.inverse_transform(network.predict(inputs.transform(queries))))

        smearing = cost.mean(axis=0) / np.exp(raw(X)[:, k:]).mean(axis=0)

        def predict(queries: FloatArray) -> tuple[FloatArray, FloatArray]:
            found = raw(queries)
            if not table.has_cost:
                return found[:, :k], np.broadcast_to(cost[0], found[:, :k].shape)
            return found[:, :k], np.exp(found[:, k:]) * smearing

        return predict

    return learn
