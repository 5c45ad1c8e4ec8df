"""What the offline phase leaves behind: candidate deployments of every tier and their latency over load.

The latency of a whole deployment is looked up: the distributions of the tiers at their loads, mixed by load fractions.

Notation: M tiers, N GPU types, C_m candidates of tier m, L loads, B edges; n queries of the table, of which each has
fractions `n x M` (sum 1) and a choice `n x M` (one candidate per tier).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from simulators.deployment.plan import TierPlan
from simulators.deployment.specs import FleetSpec
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray
from toolkit.deployment.candidates import Candidates, make_candidates
from toolkit.deployment.joint import joint_choices
from toolkit.deployment.needs import CandidateRecipe
from toolkit.deployment.offline import Lengths, OfflineRecipe, Progress, ReplicaTable, replica_tables

System = Literal["pooled", "max"]
_CHUNK = 100_000
_SLACK = 1e-9
MOST_JOINT = 200_000
"""Joint choices at most, where no other number is asked for."""


@dataclass(frozen=True, kw_only=True)
class OfflineDatabase:
    """Candidates and their latency.

    Attributes:
        fleet: GPUs, models, rate and budget.
        recipe: How the tables were made.
        candidate_recipe: How the candidates were made.
        edges_s: `B` rising edges, seconds.
        tiers: M sets of candidates.
        suitability: `M x N` in [0, 1]: requests per USD of a model on a GPU type with its best parallelism, over those
            on its best type; 0 where it does not fit.
        source: What the lengths were taken from, so that stored tables are not used for others.
    """

    fleet: FleetSpec
    recipe: OfflineRecipe
    candidate_recipe: CandidateRecipe
    edges_s: FloatArray
    tiers: tuple[Candidates, ...]
    suitability: FloatArray
    source: str = ""

    def latency_s(self, q: float, fractions: FloatArray, choice: IntArray, *, system: System = "pooled") -> FloatArray:
        """`n` quantiles of latency, seconds.

        Args:
            q: Level in (0, 1).
            fractions: `n x M` load fractions.
            choice: `n x M` candidates.
            system: `pooled`: of all requests together; `max`: the largest of the tiers' own quantiles.

        Returns:
            Infinite where a tier that has requests has no GPU, or more requests than its tables reach.
        """
        self._check(fractions, choice)
        return np.concatenate([self._latency(q, f, c, system) for f, c in _chunks(fractions, choice)] or [np.zeros(0)])

    def share_within(self, limit_s: float, fractions: FloatArray, choice: IntArray) -> FloatArray:
        """`n` shares of requests with a latency of at most `limit_s`; 0 where `latency_s` is infinite."""
        self._check(fractions, choice)
        found = []
        for f, c in _chunks(fractions, choice):
            view = _View(self, f, c)
            share = np.sum([f[:, m] * view.cdf_at(m, limit_s) for m in range(len(self.tiers))], axis=0)
            found.append(np.where(view.served, share, 0.0))
        return np.concatenate(found or [np.zeros(0)])

    def mean_latency_s(self, fractions: FloatArray, choice: IntArray) -> FloatArray:
        """`n` mean latencies, from the middles of the bins; infinite where `latency_s` is."""
        self._check(fractions, choice)
        found = []
        for f, c in _chunks(fractions, choice):
            view = _View(self, f, c)
            mean = np.sum([f[:, m] * view.mean(m) for m in range(len(self.tiers))], axis=0)
            found.append(np.where(view.served, mean, np.inf))
        return np.concatenate(found or [np.zeros(0)])

    def tier_plan(self, m: int, c: int, load_per_s: float) -> TierPlan:
        """Groups of candidate c of tier m, with the split of that load."""
        return self.tiers[m].plan(c, load_per_s)

    def structural(self, choice: IntArray) -> tuple[FloatArray, IntArray]:
        """Budget slack (`n`, USD per hour) and GPU slack (`n x N`) of joint choices; `>= 0` is feasible."""
        usd = np.sum([tier.usd_per_hour[choice[:, m]] for m, tier in enumerate(self.tiers)], axis=0)
        gpus = np.sum([tier.gpus[choice[:, m]] for m, tier in enumerate(self.tiers)], axis=0)
        return self.fleet.budget_usd_per_hour - usd, self.counts - gpus

    @property
    def counts(self) -> IntArray:
        """`N` GPUs that can be had."""
        return np.array([gpu.count for gpu in self.fleet.gpus.values()], dtype=np.int64)

    def joint_choices(self, budget_usd_per_hour: float | None = None, limit: int = MOST_JOINT) -> IntArray:
        """`J x M` joint choices that GPUs and budget allow, all but "no GPUs at all"; see `joint_choices`.

        Args:
            budget_usd_per_hour: None: the fleet's.
            limit: Choices at most.
        """
        budget = self.fleet.budget_usd_per_hour if budget_usd_per_hour is None else budget_usd_per_hour
        pairs = [(tier.gpus, tier.usd_per_hour) for tier in self.tiers]
        return joint_choices(pairs, self.counts, budget, limit)

    def best(
        self,
        fractions: FloatArray,
        choices: IntArray,
        *,
        q: float = 0.95,
        system: System = "pooled",
        budget_usd_per_hour: float | None = None,
    ) -> tuple[FloatArray, IntArray]:
        """The lowest latency at each of `F x M` fractions, by enumeration.

        Args:
            fractions: `F x M`.
            choices: `J x M` joint choices, such as `joint_choices()`.
            q: Level.
            system: See `latency_s`.
            budget_usd_per_hour: Leave dearer choices out; None: keep all.

        Returns:
            `F` latencies and `F x M` choices.
        """
        if budget_usd_per_hour is not None:
            usd = np.sum([tier.usd_per_hour[choices[:, m]] for m, tier in enumerate(self.tiers)], axis=0)
            choices = choices[usd <= budget_usd_per_hour * (1 + _SLACK)]
        if not len(choices):
            raise ConfigError("no joint choice to enumerate; raise the budget")
        lowest, which = np.empty(len(fractions)), np.empty(len(fractions), dtype=np.int64)
        for i, fraction in enumerate(fractions):
            latency = self.latency_s(q, np.broadcast_to(fraction, choices.shape), choices, system=system)
            which[i] = latency.argmin()
            lowest[i] = latency[which[i]]
        return lowest, choices[which]

    def save(self, path: Path) -> None:
        """Write one file: arrays, and JSON as an array of bytes."""
        from toolkit.deployment.store import save_database

        save_database(self, path)

    @staticmethod
    def load(path: Path) -> OfflineDatabase:
        """Read what `save` wrote."""
        from toolkit.deployment.store import load_database

        return load_database(path)

    def _latency(self, q: float, fractions: FloatArray, choice: IntArray, system: System) -> FloatArray:
        view = _View(self, fractions, choice)
        weights = [fractions] if system == "pooled" else list(np.eye(len(self.tiers))[:, None, :] * (fractions > 0))
        found = np.max([view.quantile(q, weight) for weight in weights], axis=0)
        return np.where(view.served, found, np.inf)

    def _check(self, fractions: FloatArray, choice: IntArray) -> None:
        shape = (len(choice), len(self.tiers))
        if fractions.shape != shape or choice.shape != shape:
            raise ConfigError(f"expected fractions and choices of shape {shape}; got {fractions.shape}, {choice.shape}")


class _View:
    """The distributions of n queries, as places in the tables: nothing of size `n x B` is made.

    Args:
        database: Tables.
        fractions, choice: `n x M`.
    """

    def __init__(self, database: OfflineDatabase, fractions: FloatArray, choice: IntArray) -> None:
        self._edges = database.edges_s
        self._flat, self._low, self._high, self._weight = [], [], [], []
        self.served = np.ones(len(choice), dtype=bool)
        for m, tier in enumerate(database.tiers):
            c, load = choice[:, m], fractions[:, m] * database.fleet.rate_per_s
            loads = tier.loads_per_s
            L = loads.shape[1]
            high = np.minimum((loads[c] < load[:, None]).sum(axis=1), L - 1)
            low = np.maximum(high - 1, 0)
            width = np.where(high > low, loads[c, high] - loads[c, low], 1.0)
            self._weight.append(np.clip((load - loads[c, low]) / width, 0.0, 1.0) * (high > low))
            self._low.append((c * L + low) * len(self._edges))
            self._high.append((c * L + high) * len(self._edges))
            self._flat.append(tier.cdf.reshape(-1))
            can = (tier.replicas[c].sum(axis=1) > 0) & (load <= loads[c, -1] * (1 + _SLACK))
            self.served &= can | (fractions[:, m] <= 0)

    def cdf(self, m: int, b: IntArray) -> FloatArray:
        """`n` values of tier m's distribution at edges `b: n`."""
        flat, weight = self._flat[m], self._weight[m]
        return np.asarray((1.0 - weight) * flat[self._low[m] + b] + weight * flat[self._high[m] + b])

    def mixture(self, weight: FloatArray, b: IntArray) -> FloatArray:
        """`n` values at edges `b: n` of the tiers mixed by `weight: n x M`."""
        return np.asarray(np.sum([weight[:, m] * self.cdf(m, b) for m in range(len(self._flat))], axis=0))

    def quantile(self, q: float, weight: FloatArray) -> FloatArray:
        """`n` quantiles of mixtures, linear in the logarithm between edges; 0 where nothing is mixed."""
        total = weight.sum(axis=1)
        target = q * total
        n, last = len(target), len(self._edges) - 1
        low, high = np.full(n, -1), np.full(n, last)
        while (high - low > 1).any():
            middle = np.maximum((low + high) // 2, 0)
            above = self.mixture(weight, middle) >= target - _SLACK
            narrow = high - low > 1
            high, low = np.where(narrow & above, middle, high), np.where(narrow & ~above, middle, low)
        at, log = self.mixture(weight, high), np.log(self._edges)
        before = np.where(low >= 0, self.mixture(weight, np.maximum(low, 0)), 0.0)
        share = np.clip((target - before) / np.where(at > before, at - before, 1.0), 0.0, 1.0)
        start = np.maximum(low, 0)
        found = np.where(low >= 0, np.exp(log[start] + share * (log[high] - log[start])), self._edges[0])
        found = np.where(at >= target - _SLACK, found, np.inf)
        return np.where(total > 0, found, 0.0)

    def cdf_at(self, m: int, limit_s: float) -> FloatArray:
        """`n` shares of tier m within a limit, linear in the logarithm between edges."""
        log = np.log(self._edges)
        b = int(np.clip(np.searchsorted(self._edges, limit_s), 1, len(log) - 1))
        share = float(np.clip((np.log(limit_s) - log[b - 1]) / (log[b] - log[b - 1]), 0.0, 1.0))
        rows = np.full(len(self.served), b)
        return (1.0 - share) * self.cdf(m, rows - 1) + share * self.cdf(m, rows)

    def mean(self, m: int) -> FloatArray:
        """`n` means of tier m; beyond the last edge counts as that edge."""
        flat = self._flat[m].reshape(-1, len(self._edges))
        middles = np.concatenate([self._edges[:1], np.sqrt(self._edges[1:] * self._edges[:-1])])
        parts = np.diff(flat, axis=1, prepend=0.0)
        means = parts @ middles + (1.0 - flat[:, -1]) * self._edges[-1]
        weight, B = self._weight[m], len(self._edges)
        return np.asarray((1.0 - weight) * means[self._low[m] // B] + weight * means[self._high[m] // B])


def make_database(
    fleet: FleetSpec,
    lengths: Sequence[Lengths],
    *,
    recipe: OfflineRecipe | None = None,
    candidates: CandidateRecipe | None = None,
    seed: int,
    source: str = "",
    on_progress: Progress = lambda done, total: None,
) -> OfflineDatabase:
    """The offline phase.

    Args:
        fleet: GPUs, models by tier, engine, rate and budget.
        lengths: M pairs of token counts (input, output), in the order of `fleet.models`.
        recipe: How the tables are made; None: the defaults.
        candidates: How the candidates are made; None: the defaults.
        seed: The run's seed; the same one gives the same database.
        source: What the lengths were taken from.
        on_progress: Called with (tables done, tables altogether).

    Raises:
        InputDataError: If token counts are missing.
        ConfigError: If a tier fits no GPU type.
    """
    how, which = recipe or OfflineRecipe(), candidates or CandidateRecipe()
    tables = replica_tables(fleet, lengths, recipe=how, seed=seed, on_progress=on_progress)
    tiers = make_candidates(fleet, tables, recipe=which, offline=how)
    return OfflineDatabase(
        fleet=fleet,
        recipe=how,
        candidate_recipe=which,
        edges_s=how.edges_s,
        tiers=tiers,
        suitability=make_suitability(fleet, tables),
        source=source,
    )


def make_suitability(fleet: FleetSpec, tables: Sequence[Sequence[ReplicaTable]]) -> FloatArray:
    """`M x N`; see `OfflineDatabase`."""
    per_usd = np.zeros((len(tables), len(fleet.gpus)))
    for m, of in enumerate(tables):
        for table in of:
            n = list(fleet.gpus).index(table.replica.gpu)
            usd = table.replica.n_gpus * fleet.gpus[table.replica.gpu].usd_per_hour
            per_usd[m, n] = max(per_usd[m, n], table.capacity_per_s / usd)
    return np.asarray(per_usd / per_usd.max(axis=1, keepdims=True))


def _chunks(fractions: FloatArray, choice: IntArray) -> list[tuple[FloatArray, IntArray]]:
    starts = range(0, len(choice), _CHUNK)
    return [(fractions[i : i + _CHUNK], choice[i : i + _CHUNK]) for i in starts]
