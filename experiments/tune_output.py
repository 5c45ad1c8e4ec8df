"""What a tuning run leaves: its policy, its front, its record for the report."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from experiments.files import write_atomically, write_bytes, write_text
from experiments.loading import LoadedData
from experiments.pipeline import Deployed, Prepared
from experiments.run_folder import git_commit, now, version
from experiments.settings import TuneSettings
from experiments.under_load import world_record
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from toolkit.certify.evidence import Evidence
from toolkit.certify.intervals import DIFFERENCE, mean_interval
from toolkit.evaluation.constraints import Constraint
from toolkit.evaluation.metrics import Metric
from toolkit.evaluation.slices import coverage
from toolkit.export.litellm import TIER_OF_NAME
from toolkit.export.schema import LanesFile, PolicyFile, Provenance
from toolkit.pareto.choose import Choice
from toolkit.problem import RoutingProblem
from toolkit.report.record import CertifiedChoiceRecord, RunRecord, StockPolicy
from toolkit.scorers.base import FittedScorer
from toolkit.scorers.litellm import TIER_NAMES
from toolkit.search.base import SearchResult
from toolkit.search.sensitivity import Sensitivity
from toolkit.zero_router import zero_router_of


def prompt_keys(table: OutcomeTable) -> Sequence[str]:
    """`N` prompts, white space made even, or identifiers where there are no prompts."""
    if table.queries.prompt is None:
        return [str(key) for key in table.queries.query_id]
    return [" ".join(prompt.split()) for prompt in table.queries.prompt]


def prompt_hash(key: str) -> str:
    """A short hash of a prompt."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def prompt_hashes(table: OutcomeTable, rows: dict[str, IntArray] | None = None) -> dict[str, list[str]]:
    """Split name -> short hashes of its prompts (identifiers, where there are none), to tell seen from new."""
    digests = [prompt_hash(key) for key in prompt_keys(table)]
    everything = {"all": np.arange(table.n_queries)} if rows is None else rows
    return {name: sorted({digests[i] for i in part}) for name, part in everything.items()}


def evidence_dict(evidence: Evidence) -> dict[str, Any]:
    """The part of the evidence that `policy.json` carries."""
    zero = evidence.zero_difference
    return {
        "n": evidence.n,
        "quality": evidence.quality.as_dict(),
        "versus": {name: interval.as_dict() for name, interval in evidence.versus.items()},
        "zero_router_quality_at_cost": evidence.zero_quality if zero is not None else None,
        "zero_router_difference": None if zero is None else zero.as_dict(),
        "zero_router_latency_p95_s": None if np.isnan(evidence.zero_latency_p95_s) else evidence.zero_latency_p95_s,
        "zero_router_verdict": None
        if zero is None
        else f"{zero.verdict} ({zero.mean:+.4f} [{zero.low:+.4f}, {zero.high:+.4f}])",
        "score_information": evidence.information.as_dict(),
        "constraints_missed": [f"{c.text} (got {c.value:.4g})" for c in evidence.constraints if not c.holds],
        "slices": {s.name: {"n": s.n, "quality": s.quality.as_dict()} for s in evidence.slices},
        "lanes": {lane.name: lane.as_dict() for lane in evidence.lanes},
        "eligibility": None if evidence.eligibility is None else evidence.eligibility.as_dict(),
        **({} if evidence.router is None else {"router": evidence.router.as_dict()}),
    }


def policy_file(
    settings: TuneSettings,
    data: LoadedData,
    prepared: Prepared,
    deployed: Deployed,
    choice: Choice,
    constraints: tuple[Constraint, ...],
    metrics: dict[str, Any],
    evidence: Evidence,
    certified: CertifiedChoiceRecord | None = None,
) -> PolicyFile:
    """The chosen policy as `policy.json` holds it."""
    tiers, found = list(data.table.tiers), deployed.deployment
    lanes = found.lanes
    return PolicyFile(
        policy=settings.policy.kind,
        tiers=tiers,
        thresholds=list(found.values.values()) if found.policy == "thresholds" else None,
        slice_thresholds=found.slice_thresholds or None,
        utility=found.values if found.policy == "utility" else None,
        target=found.values if found.policy == "target" else None,
        space=settings.space.kind,
        world=world_record(settings),
        router=prepared.router,
        lanes=LanesFile(
            fallback_tier=tiers[lanes.fallback_tier],
            low_confidence_tier=tiers[lanes.low_confidence_tier],
            confidence_floor=lanes.confidence_floor,
            eligible_tier=None if lanes.eligible_tier is None else tiers[lanes.eligible_tier],
            eligibility_threshold=lanes.eligibility_threshold,
        ),
        scorer=deployed.scorer.describe(),
        objectives=list(settings.objectives),
        constraints={c.name: c.limit for c in constraints},
        chosen_because=choice.because,
        data_hash=data.table.data_hash,
        metrics=metrics,
        evidence=evidence_dict(evidence) | _choice_dict(certified),
        provenance=Provenance(
            routefront_version=version(),
            git_commit=git_commit(),
            seed=settings.seed,
            created=now(),
            source=data.table.source,
        ),
    )


def _choice_dict(certified: CertifiedChoiceRecord | None) -> dict[str, Any]:
    """How the point was certified, as `policy.json` carries it; nothing after an ordinary choice."""
    if certified is None:
        return {}
    return {
        "certified_choice": {
            "alpha": certified.alpha,
            "n_tested": len(certified.path),
            "n_certified": sum(certified.certified),
            "chosen": asdict(certified.chosen),
            "ordinary": asdict(certified.ordinary),
            "ordinary_optimism": certified.ordinary.optimism,
        }
    }


def save_scorer(scorer: FittedScorer, folder: Path) -> None:
    """Replace the folder as a whole."""
    temporary = folder.with_name(".scorer.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    scorer.save(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def write_front(path: Path, prepared: Prepared, result: SearchResult) -> None:
    """`front.parquet`."""
    columns = front_columns(prepared, result)
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    write_atomically(path, lambda p: pyarrow.parquet.write_table(table, p))


def front_columns(prepared: Prepared, result: SearchResult) -> dict[str, FloatArray]:
    """Parameters, figures in natural units and tier shares of the front's points."""
    front = result.evaluation.take(result.front)
    columns: dict[str, FloatArray] = dict(zip(prepared.problem.parameter_names, front.params.T, strict=True))
    columns.update(front.columns)
    for tier, share in zip(prepared.tune.tiers, front.tier_shares.T, strict=True):
        columns[f"share_{tier}"] = share
    return columns


def record(
    settings: TuneSettings,
    title: str,
    data: LoadedData,
    prepared: Prepared,
    deployed: Deployed,
    result: SearchResult,
    choice: Choice,
    evidence: Evidence,
    tier: IntArray,
    sensitivity: tuple[Sensitivity, ...],
    notes: tuple[str, ...],
) -> RunRecord:
    """What the report is drawn from."""
    front, problem = result.evaluation.take(result.front), prepared.problem
    order = np.argsort(front.columns.get("cost_usd", -front.Y[:, 0]), kind="stable")
    front = front.take(order)
    known = data.table.has_cost
    stock_validate, difference = _stock(settings, prepared, tier)
    return RunRecord(
        title=title,
        source=data.table.source,
        policy=settings.policy.kind,
        scorer=_describe_scorer(deployed.scorer),
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
        notes=notes,
        sensitivity=sensitivity,
    )


def _front_on_validation(prepared: Prepared, params: FloatArray) -> dict[str, FloatArray]:
    """Mean cost and quality of the front's policies on the validation split, by the same exact evaluation."""
    metrics = (Metric("cost"), Metric("quality"))
    problem = RoutingProblem(
        table=prepared.validate,
        family=prepared.validate_family,
        objectives=metrics,
        constraints=(),
        coverage=coverage(prepared.validate, prepared.problem.coverage.minimum),
    )
    return problem.estimate(params).values(metrics)


def _describe_scorer(scorer: FittedScorer) -> str:
    described = scorer.describe()
    return ", ".join(f"{name}={value}" for name, value in described.items() if value is not None)


def _stock(settings: TuneSettings, prepared: Prepared, tier: IntArray) -> tuple[StockPolicy | None, str | None]:
    """LiteLLM's own thresholds on the same queries, where the scorer is LiteLLM's and costs are known."""
    if settings.scorer.kind != "litellm" or not prepared.tune.has_cost or prepared.tune.n_tiers not in TIER_OF_NAME:
        return None, None
    validate = stock_assignment(prepared.validate)
    rows = np.arange(prepared.validate.n_queries)
    gain = mean_interval(
        prepared.validate.quality[rows, tier] - prepared.validate.quality[rows, validate],
        prepared.validate.cluster_code,
        bounds=DIFFERENCE,
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


def write_report(path: Path, record: RunRecord) -> dict[str, bytes]:
    """`report.html` and its figures, which are returned too."""
    from toolkit.report.html import draw_pictures, render_html

    pictures = draw_pictures(record)
    for name, picture in pictures.items():
        write_bytes(path / "figures" / f"{name}.png", picture)
    write_text(path / "report.html", render_html(record, pictures))
    return pictures
