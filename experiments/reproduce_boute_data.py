"""Workloads, load and offline tables of `routefront reproduce paper=boute` [Boute2026]_.

The rules here were fixed before results were looked at, but for the number of GPUs to be had. The load is the paper's
where the large model alone can carry it on the GPUs that the budget buys, else a share of what it can carry there.

Notation: M = 2 models, small and large; N GPU types; F load fractions of the small model; Q queries.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from experiments.reproduce_boute_settings import BouteReproduceSettings, FleetSettings, Router
from experiments.reproduce_data import text_scorer
from experiments.self_hosted_engine import Lengths, full_loads
from simulators.deployment.performance import replica_speed, valid_replicas
from simulators.deployment.specs import FleetSpec
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable, split_by_prompt
from simulators.recorded import read_recording
from simulators.scenario import fleet_of, parse_scenario
from simulators.seeds import spawn_rng
from toolkit.deployment.candidates import Candidates, make_candidates, tabulate
from toolkit.deployment.database import OfflineDatabase, make_suitability
from toolkit.deployment.needs import CandidateRecipe
from toolkit.deployment.offline import OfflineRecipe, ReplicaTable, replica_tables
from toolkit.scorers.base import ScoreTable, cross_fit

TIERS = ("Meta-Llama-3.1-8B-Instruct", "Meta-Llama-3.1-70B-Instruct")
"""The paper's models, cheapest first, as the recording names them."""
MODELS = ("small", "large")
"""The same in `conf/scenario/self_hosted.yaml`."""
_SET = "zeroeval"
_BUDGETS = 45
"""Budgets that candidates are made for: steps of 2 USD per hour."""


def compose_tune(*overrides: str) -> dict[str, Any]:
    """The resolved config of `routefront tune` with these overrides, also in a worker process."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    ready = GlobalHydra.instance().is_initialized()
    with nullcontext() if ready else initialize_config_module("conf", version_base="1.3"):
        raw = OmegaConf.to_container(compose(config_name="tune", overrides=list(overrides)), resolve=True)
    assert isinstance(raw, dict)
    return {str(name): value for name, value in raw.items()}


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Recorded answers of both models, and the fleet they are asked of.

    Attributes:
        name: Slice of the recording.
        table: Q queries, two tiers.
        fleet: All GPUs, the load, and the largest budget that is looked at.
        budget_usd_per_hour: Of the main comparison.
        saturation_per_s: Requests per second of the large model alone on the homogeneous GPUs that the budget buys.
    """

    name: str
    table: OutcomeTable
    fleet: FleetSpec
    budget_usd_per_hour: float
    saturation_per_s: float


def read_workload(settings: BouteReproduceSettings, name: str) -> Workload:
    """One workload.

    Raises:
        ConfigError: If data is missing.
    """
    return _read(str(recording_folder(settings)), name, settings.fleet.model_dump_json())


def recording_folder(settings: BouteReproduceSettings) -> Path:
    """Where the recording lies.

    Raises:
        ConfigError: If it is nowhere.
    """
    if not settings.data_dir:
        raise ConfigError(f"data_dir is not set; give data_dir=DIR, a folder with {_SET}_queries.parquet")
    root = Path(settings.data_dir)
    for folder in (root, root / "outcomes"):
        if all((folder / f"{_SET}_{part}.parquet").is_file() for part in ("queries", "outcomes")):
            return folder
    raise ConfigError(
        f"data_dir={root} holds no {_SET}_queries.parquet and {_SET}_outcomes.parquet (nor has outcomes/)"
    )


@lru_cache(maxsize=4)
def _read(folder: str, name: str, fleet_json: str) -> Workload:
    chosen = FleetSettings.model_validate_json(fleet_json)
    table = read_recording(
        Path(folder) / f"{_SET}_queries.parquet", Path(folder) / f"{_SET}_outcomes.parquet", TIERS, keep_order=True
    ).table
    assert table.queries.slice is not None
    rows = np.flatnonzero(np.asarray(table.queries.slice) == name)
    if not len(rows):
        raise ConfigError(f"{folder}/{_SET}_queries.parquet has no query of the slice {name}")
    table = table.take(rows)
    fleet = _fleet(chosen)
    saturation = saturation_per_s(fleet, chosen, table)
    rate = chosen.requests_per_s if chosen.requests_per_s < saturation else chosen.used * saturation
    fleet = fleet.model_copy(update={"rate_per_s": rate})
    return Workload(
        name=name,
        table=table,
        fleet=fleet,
        budget_usd_per_hour=chosen.budget_usd_per_hour,
        saturation_per_s=saturation,
    )


def _fleet(chosen: FleetSettings) -> FleetSpec:
    raw = compose_tune(
        "scenario=self_hosted",
        f"gpus@scenario.fleet.gpus={chosen.gpus}",
        f"engine@scenario.fleet.engine={chosen.engine}",
    )
    fleet = fleet_of(parse_scenario(raw["scenario"]))
    if chosen.homogeneous not in fleet.gpus:
        raise ConfigError(f"fleet.homogeneous={chosen.homogeneous} is not one of {list(fleet.gpus)}")
    return fleet.model_copy(
        update={
            "gpus": {name: gpu.model_copy(update={"count": chosen.count}) for name, gpu in fleet.gpus.items()},
            "models": {tier: fleet.models[model] for tier, model in zip(TIERS, MODELS, strict=True)},
            "budget_usd_per_hour": chosen.most_usd_per_hour,
            "horizon_s": chosen.horizon_s,
        }
    )


def _counted(fleet: FleetSpec, count: int) -> FleetSpec:
    """The fleet with at most so many GPUs of each type: what limits a replica."""
    gpus = {name: gpu.model_copy(update={"count": min(count, gpu.count)}) for name, gpu in fleet.gpus.items()}
    return fleet.model_copy(update={"gpus": gpus})


def saturation_per_s(fleet: FleetSpec, chosen: FleetSettings, table: OutcomeTable) -> float:
    """Requests per second of the large model alone on the GPUs that the budget buys: the best of equal replicas."""
    asked = Lengths(input_tokens=table.input_tokens[:, 1], output_tokens=np.maximum(table.output_tokens[:, 1], 1.0))
    bought = int(min(chosen.budget_usd_per_hour // fleet.gpus[chosen.homogeneous].usd_per_hour, chosen.count))
    found = full_loads(_counted(fleet, chosen.replica_gpus), TIERS[1], chosen.homogeneous, asked)
    return max((bought // load.replica.n_gpus) * load.requests_per_s for load in found)


def idle_p95_s(fleet: FleetSpec, chosen: FleetSettings, table: OutcomeTable) -> float:
    """P95 of the large model without load, on its fastest homogeneous replica."""
    prompt, answer = table.input_tokens[:, 1], np.maximum(table.output_tokens[:, 1], 1.0)
    gpu, model = fleet.gpus[chosen.homogeneous], fleet.models[TIERS[1]]
    found = []
    for replica in valid_replicas(_counted(fleet, chosen.replica_gpus), TIERS[1]):
        speed = replica_speed(model, gpu, replica, fleet.engine) if replica.gpu == chosen.homogeneous else None
        if speed is not None:
            took = [
                speed.prefill_s(int(n)) + sum_steps(speed.decode_s + speed.sequence_s, speed.context_s, n, m)
                for n, m in zip(prompt, answer, strict=True)
            ]
            found.append(float(np.quantile(took, 0.95)))
    return min(found)


def sum_steps(step_s: float, context_s: float, prompt: float, answer: float) -> float:
    """Seconds of the decode steps of one request alone: the first token comes from the prefill."""
    steps = answer - 1.0
    return step_s * steps + context_s * (steps * (prompt + 1.0) + steps * (steps - 1.0) / 2.0)


@dataclass(frozen=True, kw_only=True)
class Halves:
    """One split of a workload with the scores of one router.

    Attributes:
        tune, held_out: No prompt is in both.
        tune_scores: Out-of-fold.
        held_out_scores: By the scorer fitted on all of tune.
    """

    tune: OutcomeTable
    held_out: OutcomeTable
    tune_scores: ScoreTable
    held_out_scores: ScoreTable


def halve(settings: BouteReproduceSettings, name: str, seed: int, router: Router) -> Halves:
    """The split of a seed; both routers get the same one. A router sees prompts and tune labels, no others."""
    table = read_workload(settings, name).table
    rows = split_by_prompt(table, {"tune": 0.5, "held_out": 0.5}, spawn_rng(seed, "reproduce", "boute", name))
    tune, held_out = table.take(rows["tune"]), table.take(rows["held_out"])
    if router == "random":
        rng = spawn_rng(seed, "reproduce", "boute", "random")
        scores = [ScoreTable(score=rng.random(part.n_queries)) for part in (tune, held_out)]
        return Halves(tune=tune, held_out=held_out, tune_scores=scores[0], held_out_scores=scores[1])
    scorer, folds = text_scorer(settings.scorer, seed), settings.scorer.folds
    return Halves(
        tune=tune,
        held_out=held_out,
        tune_scores=cross_fit(scorer, tune, folds=folds, rng=spawn_rng(seed, "folds")),
        held_out_scores=scorer.fit(tune).predict(held_out.queries),
    )


@dataclass(frozen=True, kw_only=True)
class Routing:
    """What load fractions mean on both halves.

    Attributes:
        fraction: `F` shares of the tune queries for the small model, rising from 0 to 1.
        threshold: `F` scores from which the large model answers.
        tune_quality: `F`.
        halves: The split.
    """

    fraction: FloatArray
    threshold: FloatArray
    tune_quality: FloatArray
    halves: Halves

    def held_out_tier(self, f: int) -> IntArray:
        """Tier of every held-out query at fraction number f."""
        return np.asarray(self.halves.held_out_scores.score >= self.threshold[f], dtype=np.int64)

    def tune_tier(self, f: int) -> IntArray:
        """The same on tune."""
        return np.asarray(self.halves.tune_scores.score >= self.threshold[f], dtype=np.int64)

    def floor(self, share_of_gap: float) -> float:
        """The quality that lies this far from the small model alone to the large one alone, on tune."""
        small, large = self.halves.tune.quality.mean(axis=0)
        return float(small + share_of_gap * (large - small))

    def allowed(self, share_of_gap: float) -> IntArray:
        """Fractions whose tune quality keeps that floor."""
        return np.flatnonzero(self.tune_quality >= self.floor(share_of_gap) - 1e-12)


def make_routing(halves: Halves, fractions: int) -> Routing:
    """Thresholds at quantiles of the tune scores: those with the lowest scores go to the small model."""
    score, quality = halves.tune_scores.score, halves.tune.quality
    order = np.argsort(score, kind="stable")
    ranked, n = score[order], len(score)
    at = np.rint(np.linspace(0.0, 1.0, fractions) * n).astype(np.int64)
    at = np.unique(np.searchsorted(ranked, ranked[np.minimum(at, n - 1)]) * (at < n) + n * (at >= n))
    ends = np.concatenate([[-np.inf], (ranked[1:] + ranked[:-1]) / 2.0, [np.inf]])
    small = np.concatenate([[0.0], np.cumsum(quality[order, 0])])
    large = np.concatenate([[0.0], np.cumsum(quality[order, 1])])
    return Routing(
        fraction=at / n, threshold=ends[at], tune_quality=(small[at] + large[-1] - large[at]) / n, halves=halves
    )


@dataclass(frozen=True, kw_only=True)
class Databases:
    """The offline phase of one seed.

    Attributes:
        every: Candidates on all GPU types, homogeneous ones among them.
        homogeneous: Candidates on the homogeneous type alone.
    """

    every: OfflineDatabase
    homogeneous: OfflineDatabase


def make_databases(settings: BouteReproduceSettings, fleet: FleetSpec, tune: OutcomeTable, seed: int) -> Databases:
    """Tables of every replica from the tune queries, and the candidates made from them.

    Money is short here and GPUs are not, so no candidates are made for GPUs that another model left over.
    """
    offline = OfflineRecipe(requests=settings.fleet.requests)
    recipe = CandidateRecipe(budgets=_BUDGETS, caps="none", most=settings.fleet.most)
    lengths = [(tune.input_tokens[:, m], np.maximum(tune.output_tokens[:, m], 1.0)) for m in range(len(TIERS))]
    tables = replica_tables(_counted(fleet, settings.fleet.replica_gpus), lengths, recipe=offline, seed=seed)
    name = settings.fleet.homogeneous
    alone = fleet.model_copy(update={"gpus": {name: fleet.gpus[name]}})
    of_alone = [tuple(table for table in tier if table.replica.gpu == name) for tier in tables]
    homogeneous = make_candidates(alone, of_alone, recipe=recipe, offline=offline)
    mixed = make_candidates(fleet, tables, recipe=recipe, offline=offline)
    every = tuple(_joined(fleet, *pair, recipe, offline) for pair in zip(mixed, homogeneous, strict=True))
    return Databases(
        every=_database(fleet, every, tables, recipe, offline),
        homogeneous=_database(alone, homogeneous, of_alone, recipe, offline),
    )


def _database(
    fleet: FleetSpec,
    tiers: tuple[Candidates, ...],
    tables: list[tuple[ReplicaTable, ...]] | tuple[tuple[ReplicaTable, ...], ...],
    recipe: CandidateRecipe,
    offline: OfflineRecipe,
) -> OfflineDatabase:
    return OfflineDatabase(
        fleet=fleet,
        recipe=offline,
        candidate_recipe=recipe,
        edges_s=offline.edges_s,
        tiers=tiers,
        suitability=make_suitability(fleet, tables),
    )


def _joined(
    fleet: FleetSpec, mixed: Candidates, alone: Candidates, recipe: CandidateRecipe, offline: OfflineRecipe
) -> Candidates:
    """The candidates of both; those of one type in the columns of all types."""
    if not len(alone.tables):
        return mixed
    column = list(fleet.gpus).index(alone.tables[0].replica.gpu)
    place = {table.replica: t for t, table in enumerate(mixed.tables)}
    table = np.full((len(alone), len(fleet.gpus)), -1, dtype=np.int64)
    replicas = np.zeros_like(table)
    used = alone.table[:, 0] >= 0
    table[used, column] = [place[alone.tables[t].replica] for t in alone.table[used, 0]]
    replicas[:, column] = alone.replicas[:, 0]
    both = np.concatenate([np.stack([mixed.table, mixed.replicas]), np.stack([table, replicas])], axis=1)
    kept = dict.fromkeys(tuple(map(tuple, row)) for row in both.transpose(1, 0, 2).tolist())
    rows = np.array(list(kept), dtype=np.int64)
    return tabulate(fleet, mixed.tier, mixed.tables, (rows[:, 0], rows[:, 1]), recipe=recipe, offline=offline)
