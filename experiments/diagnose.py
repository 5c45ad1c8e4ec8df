"""`routefront diagnose`: is the score any good? `tune` asks the same, and splits the gap of what it found."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.console import busy, say
from experiments.files import checked_output, write_json
from experiments.loading import data_files, load_data
from experiments.pipeline import Deployed, Prepared, prepare
from experiments.settings import DiagnoseSettings, TuneSettings
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray
from simulators.seeds import spawn_rng
from toolkit.certify.diagnostics import Diagnostics, diagnose
from toolkit.certify.gap import Gap, decompose_gap
from toolkit.evaluation.constraints import Constraint
from toolkit.families.make import policy_family
from toolkit.report.diagnostics_html import STEP_HEAD, step_rows
from toolkit.report.diagnostics_sentences import score_sentences
from toolkit.search.base import SearchResult


def run_diagnose(settings: DiagnoseSettings, *, quiet: bool = False) -> dict[str, Any]:
    """Diagnose the score; write and return what was found.

    Raises:
        ConfigError: If an option is set that only a search reads.
    """
    _refuse_ignored(settings)
    output = checked_output(settings.output, data_files(settings.data))
    data = load_data(settings.data, settings.scenario, 0)
    with busy("Scoring the tune split out-of-fold and fitting the scorer", quiet=quiet):
        prepared = prepare(settings, data.table, ())
        found = diagnostics_of(settings, prepared)
    result = {
        "source": data.table.source,
        "data_hash": data.table.data_hash,
        "scorer": prepared.scorer.describe(),
        "n_validate": prepared.validate.n_queries,
        **diagnostics_file(found),
        "notes": list(data.notes),
    }
    replaced = output.exists()
    write_json(output, result)
    if replaced:
        say(f"{output} existed and was replaced.", quiet=quiet)
    return {**result, "_rows": step_rows(found), "_head": STEP_HEAD, "output": str(output)}


def _refuse_ignored(settings: DiagnoseSettings) -> None:
    """Options of `tune` that need a search must stay unset."""
    given = [name for name, value in settings.constraints.items() if value not in (None, [])]
    if given:
        raise ConfigError(f"diagnose looks at the score alone and bounds nothing; unset constraints.{given[0]}")
    contended = settings.world.kind not in {"auto", "none"}
    if contended or settings.tracking.kind != "none" or settings.space.kind != "policy":
        raise ConfigError("diagnose looks at the score alone; use space=policy world=none tracking=none")
    if settings.choose != "auto" or settings.out is not None:
        raise ConfigError("diagnose chooses nothing and writes output=FILE; unset choose and out")


def diagnostics_of(settings: TuneSettings, prepared: Prepared) -> Diagnostics:
    """Diagnostics of the score that a policy of this kind is tuned on; draws from a random stream of its own."""
    scores, kind = prepared.problem.family.scores, settings.policy.kind
    if kind == "target":  # a trained policy has no one score; without predicted costs there is no utility either
        kind = "thresholds" if scores.cost_usd is None else "utility"
    family = policy_family(kind, scores, prepared.lanes, prepared.tune.n_tiers, offset_range=0.0)
    return diagnose(
        prepared.tune,
        prepared.validate,
        family=family,
        validate_family=family.transfer(prepared.validate_scores, prepared.validate.queries),
        margin=settings.gain_margin,
        rng=spawn_rng(settings.seed, "diagnostics"),
    )


def diagnostics_file(found: Diagnostics) -> dict[str, Any]:
    """What `diagnostics.json` holds."""
    return {**found.as_dict(), "sentences": score_sentences(found)}


def gap_of(
    prepared: Prepared,
    deployed: Deployed,
    result: SearchResult,
    params: FloatArray,
    constraints: tuple[Constraint, ...],
    repeat: FloatArray | None,
) -> Gap:
    """The gap between the chosen policy and the oracle, split.

    Args:
        prepared: Splits, scores and the problem.
        deployed: The chosen policy.
        result: What the search found.
        params: `p` parameters of the chosen policy.
        constraints: What it had to meet.
        repeat: `N x K` quality of a second answer to all queries, NaN where there is none; or None.
    """
    metrics = (*prepared.problem.objectives, *(c.metric for c in constraints))
    others = [m.column for m in metrics if m.base not in {"cost", "quality"} or m.slice_name is not None]
    return decompose_gap(
        prepared.tune,
        prepared.validate,
        family=prepared.problem.family,
        validate_family=prepared.validate_family,
        params=params,
        evaluated=result.evaluation.params[np.isfinite(result.evaluation.params).all(axis=1)],
        score=deployed.validate_scores.score,
        repeat=None if repeat is None else repeat[prepared.rows["validate"]],
        other_aims=tuple(dict.fromkeys(others)),
    )
