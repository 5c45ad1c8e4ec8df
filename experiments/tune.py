"""`routefront tune`: from outcomes to a chosen policy, its evidence and a report."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from experiments.console import busy, progress
from experiments.files import write_atomically, write_bytes, write_json, write_text
from experiments.loading import LoadedData, load_data, make_controller
from experiments.pipeline import Prepared, prepare
from experiments.run_folder import RunFolder, check_free, git_commit, now, open_run, version
from experiments.settings import TuneSettings
from simulators.errors import RoutefrontError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from toolkit.certify.evidence import Evidence, gather_evidence
from toolkit.certify.intervals import mean_interval
from toolkit.evaluation.constraints import Constraint, parse_constraints
from toolkit.evaluation.metrics import Metric, parse_metric
from toolkit.evaluation.slices import coverage
from toolkit.evaluation.summary import metrics_summary
from toolkit.export.litellm import TIER_OF_NAME
from toolkit.export.schema import LanesFile, PolicyFile, Provenance
from toolkit.pareto.choose import Choice, check_rule, choose
from toolkit.problem import RoutingProblem
from toolkit.report.record import RunRecord, StockPolicy
from toolkit.scorers.litellm import TIER_NAMES
from toolkit.search.base import SearchResult, run_search
from toolkit.search.journal import Journal
from toolkit.zero_router import zero_router_of


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
    check_rule(settings.choose)
    constraints = parse_constraints(settings.constraints)
    for name in settings.objectives:
        parse_metric(name)
    data = load_data(settings.data, settings.scenario, settings.seed)
    with busy("Scoring the tune split out-of-fold and fitting the scorer", quiet=quiet):
        prepared = prepare(settings, data.table, constraints)
    controller = make_controller(settings, prepared.problem)
    folder = open_run(out, raw, data.table.data_hash, settings.seed)
    try:
        with progress(f"{controller.name} search", quiet=quiet) as update:
            result = run_search(prepared.problem, controller, Journal(folder.path / "evaluations.jsonl"), update)
        choice = choose(result.evaluation, result.front, settings.choose, constraints)
    except RoutefrontError:
        folder.discard()
        raise
    return _write_run(settings, folder, data, prepared, result, choice, constraints)


def _write_run(
    settings: TuneSettings,
    folder: RunFolder,
    data: LoadedData,
    prepared: Prepared,
    result: SearchResult,
    choice: Choice,
    constraints: tuple[Constraint, ...],
) -> dict[str, Any]:
    params = result.evaluation.params[choice.row]
    tier = prepared.decide(params)
    metrics = {
        "tune": metrics_summary(prepared.tune, _tune_tiers(prepared, params), n_dropped=data.n_dropped),
        "validate": metrics_summary(prepared.validate, tier, n_dropped=data.n_dropped),
    }
    evidence = gather_evidence(
        prepared.validate,
        tier,
        prepared.validate_scores.score,
        coverage=coverage(prepared.validate, settings.slices.minimum),
        constraints=constraints,
        best_single=int(np.argmax(prepared.tune.quality.mean(axis=0))),
    )
    record = _record(settings, folder, data, prepared, result, choice, evidence, tier)
    policy = _policy_file(settings, data, prepared, choice, params, constraints, metrics, evidence)
    _save_scorer(prepared, folder.path / "scorer")
    _write_front(folder.path / "front.parquet", prepared, result)
    write_json(folder.path / "prompts_seen.json", prompt_hashes(data.table, prepared.rows))
    _write_report(folder.path, record)
    write_json(folder.path / "metrics.json", metrics["validate"])
    write_text(folder.path / "policy.json", policy.model_dump_json(indent=2) + "\n")
    splits = {name: len(rows) for name, rows in prepared.rows.items()}
    folder.finish(
        "done", splits=splits, n_dropped=data.n_dropped, tiers=list(data.table.tiers), exactness=result.exactness
    )
    return {
        "run": str(folder.path),
        "report": str(folder.path / "report.html"),
        "policy": policy.model_dump(
            mode="json", include={"policy", "tiers", "thresholds", "utility", "chosen_because"}
        ),
        "controller": result.controller,
        "exactness": result.exactness,
        "n_evaluations": len(result.evaluation),
        "n_failed": result.n_failed,
        "n_replayed": result.n_replayed,
        "n_front": len(result.front),
        "metrics": metrics,
        "evidence": policy.evidence,
        "notes": list(data.notes),
        "_record": record,
    }


def prompt_hashes(table: OutcomeTable, rows: dict[str, IntArray] | None = None) -> dict[str, list[str]]:
    """Split name -> short hashes of its prompts (identifiers, where there are none), to tell seen from new."""
    keys = table.queries.prompt if table.queries.prompt is not None else table.queries.query_id.tolist()
    digests = [hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16] for key in keys]
    everything = {"all": np.arange(table.n_queries)} if rows is None else rows
    return {name: sorted({digests[i] for i in part}) for name, part in everything.items()}


def _tune_tiers(prepared: Prepared, params: FloatArray) -> IntArray:
    problem = prepared.problem
    return np.asarray(problem.policy.assign(params[None, :], problem.scores, prepared.lanes)[0], dtype=np.int64)


def evidence_dict(evidence: Evidence) -> dict[str, Any]:
    """The part of the evidence that `policy.json` carries."""
    zero = evidence.zero_difference
    return {
        "n": evidence.n,
        "quality": evidence.quality.as_dict(),
        "versus": {name: interval.as_dict() for name, interval in evidence.versus.items()},
        "zero_router_quality_at_cost": evidence.zero_quality if zero is not None else None,
        "zero_router_difference": None if zero is None else zero.as_dict(),
        "zero_router_verdict": None
        if zero is None
        else f"{zero.verdict} ({zero.mean:+.4f} [{zero.low:+.4f}, {zero.high:+.4f}])",
        "score_information": evidence.information.as_dict(),
        "constraints_missed": [f"{c.text} (got {c.value:.4g})" for c in evidence.constraints if not c.holds],
        "slices": {s.name: {"n": s.n, "quality": s.quality.as_dict()} for s in evidence.slices},
    }


def _policy_file(
    settings: TuneSettings,
    data: LoadedData,
    prepared: Prepared,
    choice: Choice,
    params: FloatArray,
    constraints: tuple[Constraint, ...],
    metrics: dict[str, Any],
    evidence: Evidence,
) -> PolicyFile:
    tiers, lanes = list(data.table.tiers), prepared.lanes
    thresholds = params.tolist() if settings.policy.kind == "thresholds" else None
    names = prepared.problem.parameter_names
    return PolicyFile(
        policy=settings.policy.kind,
        tiers=tiers,
        thresholds=thresholds,
        utility=None if thresholds is not None else dict(zip(names, params.tolist(), strict=True)),
        lanes=LanesFile(
            fallback_tier=tiers[lanes.fallback_tier],
            low_confidence_tier=tiers[lanes.low_confidence_tier],
            confidence_floor=lanes.confidence_floor,
        ),
        scorer=prepared.scorer.describe(),
        objectives=list(settings.objectives),
        constraints={c.name: c.limit for c in constraints},
        chosen_because=choice.because,
        data_hash=data.table.data_hash,
        metrics=metrics,
        evidence=evidence_dict(evidence),
        provenance=Provenance(
            routefront_version=version(),
            git_commit=git_commit(),
            seed=settings.seed,
            created=now(),
            source=data.table.source,
        ),
    )


def _save_scorer(prepared: Prepared, folder: Path) -> None:
    temporary = folder.with_name(".scorer.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    prepared.scorer.save(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _write_front(path: Path, prepared: Prepared, result: SearchResult) -> None:
    front = result.evaluation.take(result.front)
    columns: dict[str, FloatArray] = dict(zip(prepared.problem.parameter_names, front.params.T, strict=True))
    columns.update(front.columns)
    for tier, share in zip(prepared.tune.tiers, front.tier_shares.T, strict=True):
        columns[f"share_{tier}"] = share
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    write_atomically(path, lambda p: pyarrow.parquet.write_table(table, p))


def _record(
    settings: TuneSettings,
    folder: RunFolder,
    data: LoadedData,
    prepared: Prepared,
    result: SearchResult,
    choice: Choice,
    evidence: Evidence,
    tier: IntArray,
) -> RunRecord:
    front, problem = result.evaluation.take(result.front), prepared.problem
    order = np.argsort(front.columns.get("cost_usd", -front.Y[:, 0]), kind="stable")
    front = front.take(order)
    known = data.table.has_cost
    stock_validate, difference = _stock(settings, prepared, tier)
    return RunRecord(
        title=folder.path.name,
        source=data.table.source,
        policy=settings.policy.kind,
        scorer=_describe_scorer(prepared),
        controller=result.controller,
        exactness=result.exactness,
        chosen_because=choice.because,
        params=dict(zip(problem.parameter_names, result.evaluation.params[choice.row].tolist(), strict=True)),
        n_tune=prepared.tune.n_queries,
        n_validate=prepared.validate.n_queries,
        n_dropped=data.n_dropped,
        n_evaluations=len(result.evaluation),
        n_failed=result.n_failed,
        seconds=result.seconds,
        front=dict(front.columns),
        chosen_tune={name: float(values[choice.row]) for name, values in result.evaluation.columns.items()},
        zero_validate=zero_router_of(prepared.validate) if known else None,
        front_validate=_front_on_validation(prepared, front.params) if known else {},
        evidence=evidence,
        stock_validate=stock_validate,
        stock_difference=difference,
        notes=data.notes,
    )


def _front_on_validation(prepared: Prepared, params: FloatArray) -> dict[str, FloatArray]:
    """Mean cost and quality of the front's policies on the validation split, by the same exact evaluation."""
    metrics = (Metric("cost"), Metric("quality"))
    problem = RoutingProblem(
        table=prepared.validate,
        scores=prepared.validate_scores,
        policy=prepared.problem.policy,
        lanes=prepared.lanes,
        objectives=metrics,
        constraints=(),
        coverage=coverage(prepared.validate, prepared.problem.coverage.minimum),
    )
    return problem.estimate(params).values(metrics)


def _describe_scorer(prepared: Prepared) -> str:
    described = prepared.scorer.describe()
    return ", ".join(f"{name}={value}" for name, value in described.items() if value is not None)


def _stock(settings: TuneSettings, prepared: Prepared, tier: IntArray) -> tuple[StockPolicy | None, str | None]:
    """LiteLLM's own thresholds on the same queries, where the scorer is LiteLLM's and costs are known."""
    if settings.scorer.kind != "litellm" or not prepared.tune.has_cost or prepared.tune.n_tiers not in TIER_OF_NAME:
        return None, None
    validate = stock_assignment(prepared.validate)
    rows = np.arange(prepared.validate.n_queries)
    gain = mean_interval(
        prepared.validate.quality[rows, tier] - prepared.validate.quality[rows, validate], prepared.validate.prompt_code
    )
    saved = prepared.validate.cost_usd[rows, tier].mean() / prepared.validate.cost_usd[rows, validate].mean()
    sentence = (
        f"Against LiteLLM's stock boundaries ({_stock_mapping(prepared.tune.tiers)}) on the validation split, "
        f"quality differs by {gain.mean:+.4f} "
        f"[{gain.low:+.4f}, {gain.high:+.4f}] at {saved:.2f} times the cost."
    )
    return _stock_policy(prepared.validate, validate), sentence


def _stock_mapping(tiers: tuple[str, ...]) -> str:
    """Which of LiteLLM's four names stands for which tier."""
    return ", ".join(f"{name} = {tiers[k]}" for name, k in zip(TIER_NAMES, TIER_OF_NAME[len(tiers)], strict=True))


def stock_assignment(table: OutcomeTable) -> IntArray:
    """`N` tiers under LiteLLM's stock boundaries."""
    from toolkit.scorers.litellm import stock_tiers

    return np.array(TIER_OF_NAME[table.n_tiers])[stock_tiers(table.queries)]


def _stock_policy(table: OutcomeTable, tier: IntArray) -> StockPolicy:
    rows = np.arange(table.n_queries)
    cost, quality = table.cost_usd[rows, tier].mean(), table.quality[rows, tier].mean()
    return StockPolicy(name="LiteLLM stock boundaries", cost_usd=float(cost), quality=float(quality))


def _write_report(path: Path, record: RunRecord) -> None:
    from toolkit.report.html import draw_pictures, render_html

    pictures = draw_pictures(record)
    for name, picture in pictures.items():
        write_bytes(path / "figures" / f"{name}.png", picture)
    write_text(path / "report.html", render_html(record, pictures))
