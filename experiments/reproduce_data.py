"""Data sets of `routefront reproduce`: recordings, stand-in prices, splits."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from experiments.reproduce_settings import ReproduceSettings, ScorerSettings, SetSettings
from simulators.columns import read_columns
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, OutcomeTable, split_by_prompt
from simulators.recorded import read_recording
from simulators.seeds import spawn_rng
from toolkit.baselines.base import Split
from toolkit.scorers.base import cross_fit
from toolkit.scorers.text import TextScorer

_UNIT_USD = 1e-3
"""A stand-in price of 1 is carried as this many USD, so that a price per 1,000 answers reads in its own unit."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set.

    Attributes:
        name: Of the set.
        table: All queries that every tier answered.
        unit: What a stand-in price is; empty where costs are recorded.
        why: The choice of tiers.
        notes: What reading it had to say.
    """

    name: str
    table: OutcomeTable
    unit: str
    why: str
    notes: tuple[str, ...]


def files_of(settings: ReproduceSettings, name: str) -> tuple[Path, Path]:
    """The two files of a set.

    Raises:
        ConfigError: If there are none.
    """
    if not settings.data_dir:
        raise ConfigError("data_dir is not set; give data_dir=DIR, a folder with <set>_queries.parquet")
    root = Path(settings.data_dir)
    for folder in (root, root / "outcomes"):
        found = folder / f"{name}_queries.parquet", folder / f"{name}_outcomes.parquet"
        if all(path.is_file() for path in found):
            return found
    raise ConfigError(
        f"data_dir={root} holds no {name}_queries.parquet and {name}_outcomes.parquet (nor has outcomes/)"
    )


def read_set(settings: ReproduceSettings, name: str) -> DataSet:
    """One data set as the settings define it.

    Raises:
        ConfigError: If it has no costs and nothing stands in for them.
    """
    queries, outcomes = files_of(settings, name)
    chosen = settings.definitions.get(name, SetSettings())
    return _read(name, queries, outcomes, chosen.model_dump_json())


@lru_cache(maxsize=8)
def _read(name: str, queries: Path, outcomes: Path, definition: str) -> DataSet:
    chosen = SetSettings.model_validate_json(definition)
    tiers, prices = chosen.tiers, chosen.stand_in
    if prices is not None:
        tiers = sorted(tiers or prices, key=lambda model: prices.get(model, math.inf))
        unpriced = [model for model in tiers if model not in prices]
        if unpriced:
            raise ConfigError(f"definitions.{name}.stand_in has no price for {unpriced}; add them")
    unpriced_data = ConfigError(f"{outcomes} has no costs; give prices in definitions.{name}.stand_in")
    if prices is None and "cost_usd" not in read_columns(outcomes).column_names:
        raise unpriced_data
    recording = read_recording(queries, outcomes, tiers)
    table = recording.table
    if prices is not None:
        cost = np.array([prices[tier] for tier in table.tiers]) * _UNIT_USD
        table = dataclasses.replace(table, cost_usd=np.tile(cost, (table.n_queries, 1)), _hash=[])
    if not table.has_cost:
        raise unpriced_data
    if table.queries.prompt is None:
        raise ConfigError(f"{queries} has no prompts, and every router here reads them")
    unit = "" if prices is None else chosen.unit or "stand-in price"
    return DataSet(name=name, table=table, unit=unit, why=chosen.why, notes=recording.notes)


@dataclass(frozen=True, kw_only=True)
class Halves:
    """A seed's split of a set, without scores.

    Attributes:
        tune, held_out: The two halves; no prompt is in both.
    """

    tune: OutcomeTable
    held_out: OutcomeTable


def halve(data: DataSet, seed: int) -> Halves:
    """Half of the prompts to tune on, half to judge on."""
    rows = split_by_prompt(data.table, {"tune": 0.5, "held_out": 0.5}, spawn_rng(seed, "reproduce", data.name))
    return Halves(tune=data.table.take(rows["tune"]), held_out=data.table.take(rows["held_out"]))


def text_scorer(options: ScorerSettings, seed: int) -> TextScorer:
    """The scorer below all methods."""
    return TextScorer(
        ridge_alpha=options.ridge_alpha,
        neighbours=options.neighbours,
        neighbour_weight=options.neighbour_weight,
        seed=int(spawn_rng(seed, "features").integers(2**31)),
    )


@lru_cache(maxsize=2)
def make_split(settings_json: str, name: str, seed: int) -> Split:
    """Halves and scores of one set and seed; kept for the methods that follow in this process."""
    settings = ReproduceSettings.model_validate_json(settings_json)
    halves, scorer = halve(read_set(settings, name), seed), text_scorer(settings.scorer, seed)
    folds = settings.scorer.folds
    return Split(
        tune=halves.tune,
        tune_scores=cross_fit(scorer, halves.tune, folds=folds, rng=spawn_rng(seed, "folds")),
        held_out=halves.held_out,
        held_out_scores=scorer.fit(halves.tune).predict(halves.held_out.queries),
        folds=folds,
        seed=seed,
    )


def requested(halves: Halves, best_tune_quality: float, levels: int) -> FloatArray:
    """`levels` requested qualities that tune data says are feasible.

    From the cheapest tier's tune quality to the most that the predictions reach on tune, out-of-fold.

    Args:
        halves: The split.
        best_tune_quality: Largest tune quality of the utility's settings.
        levels: How many.
    """
    low = float(halves.tune.quality[:, 0].mean())
    return np.linspace(low, max(best_tune_quality, low), levels)
