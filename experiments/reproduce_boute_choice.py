"""Exact choices from the offline tables: the cheapest deployment that meets quality and P95, the fastest in a budget.

Notation: M models, J joint choices (one candidate per model), F load fractions of the small model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from experiments.reproduce_boute_data import Databases
from simulators.outcomes import FloatArray, IntArray
from toolkit.deployment.database import OfflineDatabase

Method = Literal["large_homogeneous", "large", "routed_uniform", "boute_homogeneous", "boute"]
METHODS: tuple[Method, ...] = get_args(Method)
LEVEL = 0.95
_BLOCK = 1000
_SLACK = 1e-9


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a method may pick.

    Attributes:
        database: Tables.
        choices: `J x M`, by rising price.
        usd_per_hour: `J`.
        routed: Whether it may route; else every query goes to one model, `only`.
        only: That model.
    """

    database: OfflineDatabase
    choices: IntArray
    usd_per_hour: FloatArray
    routed: bool = True
    only: int = 1

    def fractions(self, allowed: IntArray, fraction: FloatArray) -> IntArray:
        """Numbers of the fractions that it may use, of those that quality allows."""
        if self.routed:
            return allowed
        end = 0.0 if self.only == 1 else 1.0
        return np.asarray(allowed[fraction[allowed] == end])


def options_of(databases: Databases, method: Method) -> Options:
    """The deployments of a method.

    * `large_homogeneous`, `large`: every query to the large model, on one GPU type or all.
    * `routed_uniform`: both models get the same number of GPUs of the homogeneous type; unused ones are paid, too.
    * `boute_homogeneous`, `boute`: any deployment on one GPU type, or on all.
    """
    database = databases.every if method in {"large", "boute"} else databases.homogeneous
    if method in {"large_homogeneous", "large"}:
        return alone(database, 1)
    choices = database.joint_choices()
    usd = _usd(database, choices)
    if method == "routed_uniform":
        gpus = np.stack([tier.gpus[choices[:, m]].sum(axis=1) for m, tier in enumerate(database.tiers)], axis=1)
        each = gpus.max(axis=1)
        price = next(iter(database.fleet.gpus.values()))
        usd = len(database.tiers) * each * price.usd_per_hour
        fits = (gpus > 0).all(axis=1) & (len(database.tiers) * each <= price.count)
        choices, usd = choices[fits], usd[fits]
    return _sorted(database, choices, usd)


def alone(database: OfflineDatabase, model: int) -> Options:
    """One model on its own, on any of its candidates."""
    choices = np.zeros((len(database.tiers[model]) - 1, len(database.tiers)), dtype=np.int64)
    choices[:, model] = np.arange(1, len(database.tiers[model]))
    usd = _usd(database, choices)
    keep = usd <= database.fleet.budget_usd_per_hour + _SLACK
    options = _sorted(database, choices[keep], usd[keep])
    return Options(
        database=database, choices=options.choices, usd_per_hour=options.usd_per_hour, routed=False, only=model
    )


def _usd(database: OfflineDatabase, choices: IntArray) -> FloatArray:
    return np.asarray(np.sum([tier.usd_per_hour[choices[:, m]] for m, tier in enumerate(database.tiers)], axis=0))


def _sorted(database: OfflineDatabase, choices: IntArray, usd: FloatArray) -> Options:
    order = np.argsort(usd, kind="stable")
    return Options(database=database, choices=choices[order], usd_per_hour=usd[order])


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One deployment at one load fraction.

    Attributes:
        f: Number of the fraction.
        choice: `M` candidates.
        usd_per_hour: Price.
        p95_s: By the tables.
    """

    f: int
    choice: IntArray
    usd_per_hour: float
    p95_s: float


def cheapest(options: Options, allowed: IntArray, fraction: FloatArray, target_s: float) -> Choice | None:
    """The cheapest deployment with P95 within the target; of equally cheap ones the fastest. None where none is.

    Args:
        options: What may be picked.
        allowed: Numbers of the fractions that keep the quality floor.
        fraction: `F`.
        target_s: P95 at most.
    """
    rows = options.fractions(allowed, fraction)
    for start in range(0, len(options.choices), _BLOCK) if len(rows) else ():
        block = slice(start, start + _BLOCK)
        latency = _latency(options, block, fraction[rows])
        meets = latency <= target_s
        if meets.any():
            usd = np.where(meets, options.usd_per_hour[block, None], np.inf)
            level = usd.min() + _SLACK
            later = slice(start, int(np.searchsorted(options.usd_per_hour, level, "right")))
            return _fastest(options, later, rows, fraction)
    return None


def fastest(options: Options, allowed: IntArray, fraction: FloatArray, budget_usd_per_hour: float) -> Choice | None:
    """The lowest P95 within the budget; None where nothing serves the load."""
    rows = options.fractions(allowed, fraction)
    end = int(np.searchsorted(options.usd_per_hour, budget_usd_per_hour + _SLACK, "right"))
    return _fastest(options, slice(0, end), rows, fraction) if end and len(rows) else None


def _fastest(options: Options, block: slice, rows: IntArray, fraction: FloatArray) -> Choice | None:
    """The lowest P95 in a block of choices; of equally fast ones the cheapest."""
    best: Choice | None = None
    for start in range(block.start, block.stop, _BLOCK):
        part = slice(start, min(start + _BLOCK, block.stop))
        latency = _latency(options, part, fraction[rows])
        j, i = np.unravel_index(int(latency.argmin()), latency.shape)
        if np.isfinite(latency[j, i]) and (best is None or latency[j, i] < best.p95_s):
            best = Choice(
                f=int(rows[i]),
                choice=options.choices[part][j],
                usd_per_hour=float(options.usd_per_hour[part][j]),
                p95_s=float(latency[j, i]),
            )
    return best


def _latency(options: Options, block: slice, fraction: FloatArray) -> FloatArray:
    """`j x F` quantiles of a block of choices."""
    choices = options.choices[block]
    small = np.repeat(fraction[None, :], len(choices), axis=0).ravel()
    shares = np.stack([small, 1.0 - small], axis=1)
    found = options.database.latency_s(LEVEL, shares, np.repeat(choices, len(fraction), axis=0))
    return found.reshape(len(choices), len(fraction))
