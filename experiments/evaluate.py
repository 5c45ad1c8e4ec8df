"""`routefront evaluate`: a finished run on other data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.console import say
from experiments.files import checked_output, write_json
from experiments.loading import data_files, load_data
from experiments.runs import open_finished
from experiments.settings import EvaluateSettings
from experiments.tune_output import evidence_dict, prompt_hashes
from simulators.errors import InputDataError
from simulators.outcomes import OutcomeTable
from toolkit.certify.evidence import gather_evidence
from toolkit.evaluation.constraints import restore_constraints
from toolkit.evaluation.slices import coverage
from toolkit.evaluation.summary import metrics_summary
from toolkit.export.schema import PolicyFile


def run_evaluate(settings: EvaluateSettings, *, quiet: bool = False) -> dict[str, Any]:
    """Figures of the run's policy on the given data; written to `output` and returned."""
    output = checked_output(settings.output, data_files(settings.data))
    run = open_finished(settings.run)
    data = load_data(settings.data, settings.scenario, settings.seed, tiers=run.policy.tiers)
    decisions = run.decide(data.table.queries)
    metrics = metrics_summary(data.table, decisions.tier, n_dropped=data.n_dropped)
    evidence = gather_evidence(
        data.table,
        decisions.tier,
        decisions.score,
        coverage=coverage(data.table, settings.slices.minimum),
        constraints=restore_constraints(run.policy.constraints),
        best_single=_best_single(run.policy),
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


def _prompts_seen(run: Path, table: OutcomeTable) -> dict[str, int]:
    """How many distinct prompts of `table` the run's splits held."""
    path = run / "prompts_seen.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        seen = {name: set(stored[name]) for name in ("tune", "validate")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputDataError(f"{path} is missing or damaged; run routefront tune again") from error
    here = set(prompt_hashes(table)["all"])
    return {"of": len(here), **{name: len(here & hashes) for name, hashes in seen.items()}}


def _best_single(policy: PolicyFile) -> int:
    """Index of the single tier that was best on the run's tune split."""
    tune = policy.metrics.get("tune")
    if not isinstance(tune, dict):
        raise InputDataError("policy.json holds no tune metrics; run routefront tune again")
    return int(np.argmax([tune["tiers"][tier]["quality"] for tier in policy.tiers]))
