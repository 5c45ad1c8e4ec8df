"""`routefront evaluate`: a finished run on other data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.console import say
from experiments.files import write_json
from experiments.loading import load_data, required
from experiments.runs import open_finished
from experiments.settings import EvaluateSettings
from experiments.tune import evidence_dict
from simulators.errors import InputDataError
from toolkit.certify.evidence import gather_evidence
from toolkit.evaluation.constraints import restore_constraints
from toolkit.evaluation.slices import coverage
from toolkit.evaluation.summary import metrics_summary
from toolkit.export.schema import PolicyFile


def run_evaluate(settings: EvaluateSettings, *, quiet: bool = False) -> dict[str, Any]:
    """Figures of the run's policy on the given data; written to `output` and returned."""
    output = Path(required(settings.output, "output"))
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
    metrics["tuned_on_this_data"] = data.table.data_hash == run.policy.data_hash
    replaced = output.exists()
    write_json(output, metrics)
    if replaced:
        say(f"{output} existed and was replaced.", quiet=quiet)
    if metrics["tuned_on_this_data"]:
        say("This is the data the run was tuned on: its figures are no evidence about new queries.", quiet=quiet)
    for note in data.notes:
        say(note, quiet=quiet)
    return metrics


def _best_single(policy: PolicyFile) -> int:
    """Index of the single tier that was best on the run's tune split."""
    tune = policy.metrics.get("tune")
    if not isinstance(tune, dict):
        raise InputDataError("policy.json holds no tune metrics; run routefront tune again")
    return int(np.argmax([tune["tiers"][tier]["quality"] for tier in policy.tiers]))
