"""`routefront evaluate`: a finished run on other data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from experiments.console import say
from experiments.files import checked_output, write_json
from experiments.fleet_after import on_deployment
from experiments.loading import data_files, load_data
from experiments.router import budgets_of
from experiments.runs import open_finished
from experiments.settings import EvaluateSettings
from experiments.tune_output import evidence_dict, prompt_hashes
from experiments.under_load import (
    estimator_under_load,
    is_fleet,
    judged,
    metrics_under_load,
    single_tier_p95,
    world_from_file,
    world_on,
    zero_in_world,
)
from experiments.unseen import prompts_seen
from simulators.errors import InputDataError
from simulators.outcomes import OutcomeTable
from simulators.seeds import spawn_rng
from simulators.world import World
from toolkit.certify.evidence import gather_evidence
from toolkit.evaluation.constraints import on_answers, restore_constraints
from toolkit.evaluation.contention import with_capacity
from toolkit.evaluation.slices import coverage
from toolkit.export.schema import PolicyFile
from toolkit.scorers.eligibility import target_of


def run_evaluate(settings: EvaluateSettings, *, quiet: bool = False) -> dict[str, Any]:
    """Figures of the run's policy on the given data; written to `output` and returned."""
    output = checked_output(settings.output, data_files(settings.data))
    run = open_finished(settings.run)
    data = load_data(settings.data, settings.scenario, settings.seed, tiers=run.policy.tiers)
    decisions = run.decide(data.table.queries)
    routed = on_deployment(run, run.policy.behind_router(data.table), decisions.tier, settings.seed)
    world = world_of(run.policy, routed, settings.seed)
    table = with_capacity(routed, world)
    cover = coverage(table, settings.slices.minimum)
    metrics = metrics_under_load(table, world, decisions.tier, data.n_dropped)
    loaded = judged(table, world, decisions.tier)
    evidence = gather_evidence(
        loaded,
        decisions.tier,
        decisions.score,
        coverage=cover,
        constraints=on_answers(restore_constraints(run.policy.constraints)),
        best_single=_best_single(run.policy),
        tier_latency_p95_s=single_tier_p95(table, world),
        contended=estimator_under_load(table, world, decisions.tier, cover),
        zero=zero_in_world(table, world, loaded, decisions.tier),
        lanes=(run.policy.runtime_lanes(), decisions.lane),
        target=target_of(run.scorer),
        router_budgets_s=budgets_of(run.policy.router),
    )
    metrics["data_hash"] = data.table.data_hash
    metrics["evidence"] = evidence_dict(evidence)
    metrics["prompts_seen"] = seen = _prompts_seen(run.path, data.table)
    replaced = output.exists()
    write_json(output, metrics)
    if replaced:
        say(f"{output} existed and was replaced.", quiet=quiet)
    if seen["tune"] or seen["validate"]:
        say(
            f"The run has seen prompts of this data: {seen['tune']} of {seen['of']} in tuning, {seen['validate']} in "
            "validation. Figures on prompts it was tuned on are no evidence about new ones.",
            quiet=quiet,
        )
    for note in data.notes:
        say(note, quiet=quiet)
    return metrics


def world_of(policy: PolicyFile, table: OutcomeTable, seed: int) -> World | None:
    """The contention that the policy was tuned under, on this table; None where nobody waits or times are unknown."""
    if policy.world is None or is_fleet(policy.world) or not table.has_latency:
        return None
    try:
        options = world_from_file(policy.world)
    except ValidationError as error:
        raise InputDataError(f"policy.json has a world that cannot be read: {error.errors()[0]['msg']}") from error
    return world_on(options, table, spawn_rng(seed, "arrivals", "evaluate"))


def _prompts_seen(run: Path, table: OutcomeTable) -> dict[str, int]:
    """How many distinct prompts of `table` the run's splits held."""
    seen = prompts_seen(run)
    here = set(prompt_hashes(table)["all"])
    return {"of": len(here), **{name: len(here & hashes) for name, hashes in seen.items()}}


def _best_single(policy: PolicyFile) -> int:
    """Index of the single tier that was best on the run's tune split."""
    tune = policy.metrics.get("tune")
    if not isinstance(tune, dict):
        raise InputDataError("policy.json holds no tune metrics; run routefront tune again")
    return int(np.argmax([tune["tiers"][tier]["quality"] for tier in policy.tiers]))
