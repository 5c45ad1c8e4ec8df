"""What a model of a deployment's latency sees: numbers in [0, 1] per tier.

For each tier the share of every GPU type that it takes, and the logs of its replicas, tensor and pipeline parallelism
(means over its GPUs); for all tiers together how well their GPUs suit them (the preference of [Boute2026]_). Beyond the
paper: each tier's utilisation, its load over what its replicas carry by the tables, on which latency depends above all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.deployment.plan import TierPlan
from simulators.outcomes import FloatArray, IntArray
from toolkit.deployment.database import OfflineDatabase

_LOG2_MOST = (6.0, 3.0, 3.0)
"""Replicas, TP and PP at which a feature is 1: 64, 8 and 8."""
_MOST_BUSY = 1.5
"""Utilisation at which its feature is 1."""


@dataclass(frozen=True, kw_only=True)
class DeploymentFeatures:
    """Features of n candidates.

    Attributes:
        routing: `n x (K-1)` coordinates of the thresholds.
        deployment: `n x D` in [0, 1].
        preference: `n` in [0, 1], suitability of the GPUs in use for the models on them.
    """

    routing: FloatArray
    deployment: FloatArray
    preference: FloatArray


class FeatureTable:
    """Features of every deployment of every tier, looked up by index.

    Args:
        database: Candidate deployments.
    """

    def __init__(self, database: OfflineDatabase) -> None:
        counts = np.array([gpu.count for gpu in database.fleet.gpus.values()], dtype=np.float64)
        self._shape, self._used, self._suited, self._carries = [], [], [], []
        self._rate_per_s = database.fleet.rate_per_s
        for m, tier in enumerate(database.tiers):
            taken = tier.gpus / np.maximum(counts, 1.0)
            logs = np.array([_logs(tier.plan(c)) for c in range(len(tier.usd_per_hour))])
            self._shape.append(np.concatenate([np.minimum(taken, 1.0), logs], axis=1))
            self._used.append(taken.sum(axis=1))
            each = np.array([table.capacity_per_s for table in tier.tables])[tier.table]
            self._carries.append(np.where(tier.replicas > 0, tier.replicas * each, 0.0).sum(axis=1))
            self._suited.append(taken @ database.suitability[m])

    def deployment(self, choice: IntArray) -> FloatArray:
        """`n x D` features of `choice: n x M`."""
        shapes = [shape[choice[:, m]] for m, shape in enumerate(self._shape)]
        return np.asarray(np.concatenate(shapes, axis=1), dtype=np.float64)

    def utilisation(self, fractions: FloatArray, choice: IntArray) -> FloatArray:
        """`n x M` load of each tier over what its replicas carry, from 0 to 1 at `_MOST_BUSY`; 0 without requests."""
        carries = np.stack([carries[choice[:, m]] for m, carries in enumerate(self._carries)], axis=1)
        load = fractions * self._rate_per_s
        busy = np.divide(load, carries, out=np.full(load.shape, _MOST_BUSY), where=carries > 0)
        return np.asarray(np.where(load > 0, np.minimum(busy / _MOST_BUSY, 1.0), 0.0))

    def preference(self, choice: IntArray) -> FloatArray:
        """`n` mean suitability over the GPU shares in use; 0 where none is."""
        used = np.sum([used[choice[:, m]] for m, used in enumerate(self._used)], axis=0)
        suited = np.sum([suited[choice[:, m]] for m, suited in enumerate(self._suited)], axis=0)
        return np.asarray(suited / np.where(used > 0, used, 1.0))


def _logs(plan: TierPlan) -> FloatArray:
    """Replicas, and TP and PP averaged over GPUs, each as a log over its largest."""
    if not plan:
        return np.zeros(3)
    gpus = np.array([group.n_gpus for group in plan], dtype=np.float64)
    weight = gpus / gpus.sum()
    tensor = float(weight @ np.log2([group.replica.tensor_parallel for group in plan]))
    pipeline = float(weight @ np.log2([group.replica.pipeline_parallel for group in plan]))
    replicas = float(np.log2(sum(group.replicas for group in plan)))
    return np.asarray(np.minimum(np.array([replicas, tensor, pipeline]) / np.array(_LOG2_MOST), 1.0))
