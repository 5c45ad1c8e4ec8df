"""`routefront tune`: from outcomes to a chosen policy, its evidence and a report."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from experiments import tune_output as output
from experiments.after_search import after_search
from experiments.certify import show_certificate
from experiments.choice import Chosen, check_certifiable, choice_record, make_choice
from experiments.console import busy, progress
from experiments.controllers import controller_label
from experiments.diagnose import diagnostics_file, diagnostics_of, gap_of
from experiments.files import write_json, write_text
from experiments.fleet import OFFLINE, Offline, fleet_of, is_deployment
from experiments.fleet_after import deployment_file, fleet_figures, settle
from experiments.load_fronts import fronts_at_loads
from experiments.loading import LoadedData, load_data, make_controller
from experiments.per_query import check_per_query, train_in
from experiments.pipeline import Deployed, Prepared, deploy, labels_before_search, prepare
from experiments.proteus import Training
from experiments.router import budgets_of
from experiments.router_settings import StrategyScorerSettings
from experiments.run_folder import TRAINING, RunFolder, check_free, open_run
from experiments.search_notes import search_notes
from experiments.settings import TuneSettings
from experiments.tracking import open_tracker
from experiments.under_load import (
    best_single,
    estimator_under_load,
    judged,
    metrics_under_load,
    single_tier_p95,
    with_world,
    world_record,
    zero_in_world,
)
from experiments.unseen import seen_file
from simulators.errors import ConfigError, RoutefrontError
from simulators.outcomes import IntArray, OutcomeTable
from toolkit.certify.diagnostics import Diagnostics
from toolkit.certify.evidence import Evidence, gather_evidence
from toolkit.certify.labels import LabelPlan
from toolkit.evaluation.constraints import Constraint, on_answers, parse_constraints
from toolkit.evaluation.contention import only_waits
from toolkit.evaluation.metrics import parse_metric
from toolkit.evaluation.slices import coverage
from toolkit.export.deployment_schema import FILE_NAME as DEPLOYMENT
from toolkit.pareto.axes import Axes
from toolkit.pareto.choose import CERTIFIED, Choice, check_rule
from toolkit.pareto.front import non_dominated
from toolkit.pareto.indicators import hypervolume, hypervolume_trace
from toolkit.problem import Evaluation
from toolkit.scorers.eligibility import target_of
from toolkit.search.base import SearchResult, run_search
from toolkit.search.journal import Journal
from toolkit.search.sensitivity import Tolerance, sensitivities
from toolkit.tracking.base import NullTracker, Tracker

_TOLD = {"policy", "tiers", "thresholds", "slice_thresholds", "utility", "target", "chosen_because"}
"""What the summary says of a policy."""


def run_tune(settings: TuneSettings, raw: dict[str, Any], out: Path, *, quiet: bool = False) -> dict[str, Any]:
    """Tune, validate, and write the run folder.

    Args:
        settings: Validated settings.
        raw: The resolved config, as it is stored in the run folder.
        out: The run folder.
        quiet: No progress.

    Returns:
        The summary that `--json` prints.

    Raises:
        RoutefrontError: If the input is at fault or no candidate meets every constraint; a folder made here is removed.
    """
    check_free(out)
    settings = with_world(settings)
    check_rule(settings.choose)
    check_per_query(settings)
    constraints = parse_constraints(settings.constraints)
    if settings.choose == CERTIFIED:
        check_certifiable(constraints, simulated_latency=settings.world.kind != "none" or is_deployment(settings))
    for name in settings.objectives:
        parse_metric(name)
    data = load_data(settings.data, settings.scenario, 0, with_repeats=True)
    folder = open_run(out, raw, data.table.data_hash, settings.seed)
    searched: list[bool] = []
    try:
        return _tune(settings, raw, folder, data, constraints, searched, quiet=quiet)
    except RoutefrontError:
        if not searched:  # later errors, such as a tracker's, must not cost the search
            folder.discard()
        raise


def _tune(
    settings: TuneSettings,
    raw: dict[str, Any],
    folder: RunFolder,
    data: LoadedData,
    constraints: tuple[Constraint, ...],
    searched: list[bool],
    *,
    quiet: bool,
) -> dict[str, Any]:
    """The run in its folder; `searched` gets an entry once the search is done."""
    prepared = _prepare(settings, data, constraints, folder, quiet=quiet)
    world = prepared.problem.world
    if settings.choose == CERTIFIED and world is not None and not only_waits(world):
        raise ConfigError(
            "choose=certified tests recorded answers, and under this traffic requests fail or fall back; use "
            "world=none, or another rule of choose and routefront simulate"
        )
    with busy("Judging the score", quiet=quiet):
        diagnostics = diagnostics_of(settings, prepared)
        labels = labels_before_search(settings, prepared)
    controller = make_controller(settings, prepared.problem, prepared.axes, Training(folder=folder.path / TRAINING))
    if world is not None:
        with busy("Loading the queueing kernels (compiled at first use, once per machine)", quiet=quiet):
            prepared.problem.evaluate_params(prepared.problem.corners()[:1])
    tracker = open_tracker(
        settings.tracking,
        config=raw,
        out=folder.path,
        controller=settings.controller.kind,
        problem=problem_name(settings),
        seed=settings.seed,
        data_hash=data.table.data_hash,
    )
    with tracker:
        with progress(f"{controller.name} search", quiet=quiet) as update:
            journal = Journal(folder.path / "evaluations.jsonl")
            result = run_search(prepared.problem, controller, journal, update, _Watch(prepared.axes, tracker))
        chosen = make_choice(settings, prepared, result, constraints)
        searched.append(True)
        before = Beforehand(diagnostics=diagnostics, labels=labels)
        learned = after_search(settings, prepared, controller, result, chosen, folder, quiet=quiet)
        return _write_run(
            settings, folder, data, prepared, before, result, chosen, constraints, tracker, learned, quiet=quiet
        )


def _prepare(
    settings: TuneSettings,
    data: LoadedData,
    constraints: tuple[Constraint, ...],
    folder: RunFolder,
    *,
    quiet: bool,
) -> Prepared:
    """The split, scored; where the scorer trains a policy of its own, with progress and checkpoints in the folder."""
    if is_deployment(settings):
        with progress("Latency tables of the fleet", quiet=quiet) as update:
            offline = Offline(stored=folder.path / OFFLINE, on_progress=update)
            return prepare(settings, data.table, constraints, offline=offline)
    if settings.policy.kind != "target":
        with busy("Scoring the tune split out-of-fold and fitting the scorer", quiet=quiet):
            return prepare(settings, data.table, constraints)
    with train_in(folder, quiet=quiet) as training:
        return prepare(settings, data.table, constraints, training)


def problem_name(settings: TuneSettings) -> str:
    """A short name of what is searched, such as `recorded text thresholds`."""
    scenario = str((settings.scenario or {}).get("name", "scenario"))
    words = [scenario if settings.data.kind == "scenario" else "recorded", _scorer_name(settings), settings.policy.kind]
    ahead = "none" if settings.lane.kind == "none" else f"lane={settings.lane.kind}"
    words += [kind for kind in (ahead, settings.space.kind, settings.world.kind) if kind not in {"policy", "none"}]
    return " ".join(words)


def _scorer_name(settings: TuneSettings) -> str:
    scorer = settings.scorer
    return scorer.strategy if isinstance(scorer, StrategyScorerSettings) else scorer.kind


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beforehand:
    """What is known before the search.

    Attributes:
        diagnostics: What the score is worth.
        labels: Labels that a certificate takes; None where no slice can be judged.
    """

    diagnostics: Diagnostics
    labels: LabelPlan | None


class _Watch:
    """Tells the tracker the hypervolume and the feasible share after each evaluation."""

    def __init__(self, axes: Axes, tracker: Tracker) -> None:
        self._axes, self._tracker = axes, tracker
        self._front = np.empty((0, len(axes.axes)))
        self._done, self._feasible = 0, 0

    def __call__(self, evaluation: Evaluation) -> None:
        if isinstance(self._tracker, NullTracker):
            return
        feasible, old = evaluation.feasible, len(self._front)
        Z = np.concatenate([self._front, self._axes.scale(evaluation.Y)])
        usable = np.concatenate([np.ones(old, dtype=bool), feasible])
        hypervolume = hypervolume_trace(Z, usable, self._axes.reference)[old:]
        counts = self._feasible + np.cumsum(feasible)
        share = counts / (self._done + 1 + np.arange(len(feasible)))
        self._tracker.evaluations(
            first_index=self._done, hypervolume=hypervolume.tolist(), feasible_share=share.tolist()
        )
        self._done += len(feasible)
        self._feasible = int(counts[-1])
        self._front = Z[usable][non_dominated(Z[usable])]


def _write_run(
    settings: TuneSettings,
    folder: RunFolder,
    data: LoadedData,
    prepared: Prepared,
    before: Beforehand,
    result: SearchResult,
    chosen: Chosen,
    constraints: tuple[Constraint, ...],
    tracker: Tracker,
    learned: tuple[str, ...],
    *,
    quiet: bool,
) -> dict[str, Any]:
    choice = chosen.choice
    params = result.evaluation.params[choice.row]
    prepared = settle(settings, prepared, params)
    volume = hypervolume(prepared.axes.scale(result.evaluation.Y[result.front]), prepared.axes.reference)
    deployed, tier = deploy(prepared, params), prepared.decide(params)
    tune_tier = np.asarray(prepared.problem.family.assign(params[None, :])[0], dtype=np.int64)
    validate = judged(prepared.validate, prepared.validate_world, tier)
    metrics = {
        "tune": metrics_under_load(prepared.tune, prepared.problem.world, tune_tier, data.n_dropped),
        "validate": metrics_under_load(prepared.validate, prepared.validate_world, tier, data.n_dropped),
    }
    evidence = _evidence(settings, prepared, deployed, validate, tier, constraints)
    sensitivity = sensitivities(prepared.problem, params, Tolerance())
    notes = (*data.notes, *search_notes(settings, prepared, result), *learned)
    fleet = fleet_figures(settings, prepared, params)
    notes += () if fleet is None else fleet.sentences(fleet_of(settings, prepared.tune.tiers))
    record = output.record(
        settings, folder.path.name, data, prepared, deployed, result, choice, evidence, tier, sensitivity, notes
    )
    with busy("Judging the front at other loads", quiet=quiet):
        loads = fronts_at_loads(settings, prepared, result, choice.row, choice.rule)
    gap = gap_of(prepared, deployed, result, params, constraints, data.repeat)
    certified = choice_record(prepared, result, chosen)
    record = dataclasses.replace(
        record,
        certified_choice=certified,
        diagnostics=before.diagnostics,
        gap=gap,
        labels=before.labels,
        loads=loads,
    )
    policy = output.policy_file(
        settings, data, prepared, deployed, choice, constraints, metrics, evidence, record.certified_choice
    )
    deployment = deployment_file(settings, prepared, fleet, policy)
    record = dataclasses.replace(record, deployment=deployment)
    output.save_scorer(deployed.scorer, folder.path / "scorer")
    output.write_front(folder.path / "front.parquet", prepared, result)
    write_json(folder.path / "prompts_seen.json", seen_file(data.table, prepared.rows))
    write_json(folder.path / "sensitivity.json", [dataclasses.asdict(s) for s in sensitivity])
    write_json(folder.path / "diagnostics.json", diagnostics_file(before.diagnostics))
    write_json(folder.path / "gap.json", gap.as_dict())
    if loads:
        write_json(folder.path / "loads.json", [at.as_dict() for at in loads])
    pictures = output.write_report(folder.path, record)
    write_json(folder.path / "metrics.json", metrics["validate"])
    write_text(folder.path / "policy.json", policy.model_dump_json(indent=2) + "\n")
    if deployment is not None:
        write_text(folder.path / DEPLOYMENT, deployment.model_dump_json(indent=2) + "\n")
    show_certificate(folder.path)
    folder.finish(
        "done",
        splits={name: len(rows) for name, rows in prepared.rows.items()},
        n_dropped=data.n_dropped,
        tiers=list(data.table.tiers),
        exactness=result.exactness,
        controller=controller_label(settings.controller),
        world=world_record(settings),
        problem=problem_name(settings),
        objectives=[m.column for m in prepared.problem.objectives],
        axes=prepared.axes.describe(),
        hypervolume=volume,
    )
    _track(tracker, folder, prepared, result, choice, evidence, pictures, volume)
    return {
        "run": str(folder.path),
        "report": str(folder.path / "report.html"),
        "policy": policy.model_dump(mode="json", include=_TOLD),
        "controller": result.controller,
        "exactness": result.exactness,
        "n_evaluations": len(result.evaluation),
        "n_failed": result.n_failed,
        "n_replayed": result.n_replayed,
        "n_front": len(result.front),
        "hypervolume": volume,
        "metrics": metrics,
        "evidence": policy.evidence,
        "diagnostics": diagnostics_file(before.diagnostics),
        "gap": gap.as_dict(),
        "notes": list(notes),
        "_record": record,
    }


def _evidence(
    settings: TuneSettings,
    prepared: Prepared,
    deployed: Deployed,
    validate: OutcomeTable,
    tier: IntArray,
    constraints: tuple[Constraint, ...],
) -> Evidence:
    cover = coverage(validate, settings.slices.minimum)
    return gather_evidence(
        validate,
        tier,
        deployed.validate_scores.score,
        coverage=cover,
        constraints=on_answers(constraints),
        best_single=best_single(prepared.tune, prepared.problem.world),
        tier_latency_p95_s=single_tier_p95(prepared.validate, prepared.validate_world),
        contended=estimator_under_load(prepared.validate, prepared.validate_world, tier, cover),
        zero=zero_in_world(prepared.validate, prepared.validate_world, validate, tier),
        lanes=(deployed.deployment.lanes, deployed.deployment.lanes.lane(deployed.validate_scores)),
        target=target_of(deployed.scorer),
        router_budgets_s=budgets_of(prepared.router),
    )


def _track(
    tracker: Tracker,
    folder: RunFolder,
    prepared: Prepared,
    result: SearchResult,
    choice: Choice,
    evidence: Evidence,
    pictures: dict[str, bytes],
    hypervolume: float,
) -> None:
    everything = result.evaluation
    tracker.log_front(output.front_columns(prepared, result))
    on_front = np.zeros(len(everything))
    on_front[result.front] = 1.0
    points = dict(zip(prepared.problem.parameter_names, everything.params.T, strict=True))
    points.update(everything.columns)
    tracker.log_points({**points, "feasible": everything.feasible.astype(np.float64), "on_front": on_front})
    tracker.log_slices(
        [
            {
                "slice": s.name,
                "n": float(s.n),
                "quality": s.quality.mean,
                "low": s.quality.low,
                "high": s.quality.high,
                "cost_usd": s.cost_usd,
            }
            for s in evidence.slices
        ]
    )
    for name, png in pictures.items():
        tracker.log_picture(name, png)
    chosen = {name: float(values[choice.row]) for name, values in everything.columns.items()}
    tracker.summary(
        {
            **chosen,
            "validate_quality": evidence.quality.mean,
            "validate_cost_usd": evidence.cost_usd.mean,
            "hypervolume": hypervolume,
            "n_evaluations": float(len(everything)),
            "n_failed": float(result.n_failed),
            "n_front": float(len(result.front)),
        }
    )
    names = ("front.parquet", "policy.json", "config.yaml", "metrics.json")
    tracker.artifact("front", [folder.path / name for name in names])
