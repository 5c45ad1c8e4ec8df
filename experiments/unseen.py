"""Data that a run has not seen: what is left of a file once the run's own prompts are taken out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from experiments.settings import RecordedData, ScenarioData
from experiments.tune_output import prompt_hash, prompt_hashes, prompt_keys
from simulators.errors import InputDataError
from simulators.outcomes import IntArray, OutcomeTable


def run_config(run: Path) -> dict[str, Any]:
    """The resolved config of a run.

    Raises:
        InputDataError: If it is missing or damaged.
    """
    path = run / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputDataError(f"{path} is missing or damaged; run routefront tune again") from error
    if not isinstance(config, dict):
        raise InputDataError(f"{path} holds no mapping; run routefront tune again")
    return config


SPLITS = ("tune", "validate")


def seen_file(table: OutcomeTable, rows: dict[str, IntArray]) -> dict[str, Any]:
    """What a run keeps of the queries of its splits: short hashes of prompts, identifiers and sessions.

    `tune` and `validate` hold prompts, or identifiers where there are no prompts.
    """
    digests = [prompt_hash(str(key)) for key in table.queries.query_id]
    sessions = [] if table.session is None else [prompt_hash(str(key)) if key else "" for key in table.session]
    return {
        **prompt_hashes(table, rows),
        "has_prompts": table.queries.prompt is not None,
        "ids": {name: sorted({digests[i] for i in part}) for name, part in rows.items()},
        "sessions": {name: sorted({sessions[i] for i in part} - {""}) for name, part in rows.items() if sessions},
    }


def _read_seen(run: Path) -> dict[str, Any]:
    path = run / "prompts_seen.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {**stored, **{name: set(stored[name]) for name in SPLITS}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputDataError(f"{path} is missing or damaged; run routefront tune again") from error


def prompts_seen(run: Path) -> dict[str, set[str]]:
    """Split name -> hashes of its prompts.

    Raises:
        InputDataError: If the file is missing or damaged.
    """
    stored = _read_seen(run)
    return {name: stored[name] for name in SPLITS}


def seen_rows(
    run: Path, table: OutcomeTable, data: ScenarioData | RecordedData, seed: int
) -> dict[str, NDArray[np.bool_]]:
    """Split name -> `N`, True for the queries that the run's search, or a choice by tests, has looked at.

    Queries of the tune split always count; those of the validation split only where the choice was made on them
    (`choose=certified`). A query is known by its prompt, by its identifier where one side has no prompts, or by its
    session. A fresh draw of a scenario repeats identifiers, not queries: only a draw with the run's own seed was seen.
    """
    config, nothing = run_config(run), np.zeros(table.n_queries, dtype=bool)
    if isinstance(data, ScenarioData) and _draw_seed(config) != (seed if data.seed is None else data.seed):
        return dict.fromkeys(SPLITS, nothing)
    stored = _read_seen(run)
    looked_at = SPLITS if config.get("choose") == "certified" else ("tune",)
    by_prompt = table.queries.prompt is not None and stored.get("has_prompts", True)
    keys = prompt_keys(table) if by_prompt else table.queries.query_id.tolist()
    digests = [prompt_hash(str(key)) for key in keys]
    sessions = [] if table.session is None else [prompt_hash(str(key)) if key else "" for key in table.session]
    found = {}
    for name in SPLITS:
        known = stored[name] if by_prompt else set(stored.get("ids", {}).get(name, stored[name]))
        with_session = set(stored.get("sessions", {}).get(name, ()))
        rows = np.array([digest in known for digest in digests], dtype=bool)
        if sessions and with_session:
            rows |= np.array([session in with_session for session in sessions], dtype=bool)
        found[name] = rows if name in looked_at else nothing
    return found


def unseen_rows(
    run: Path, table: OutcomeTable, data: ScenarioData | RecordedData, seed: int
) -> tuple[IntArray, dict[str, int]]:
    """Rows that the run has not seen, and how many of each split were left out; see `seen_rows`.

    Raises:
        InputDataError: If no row is left.
    """
    out = seen_rows(run, table, data, seed)
    kept = np.flatnonzero(~(out["tune"] | out["validate"]))
    if len(kept) == 0:
        raise InputDataError(
            f"run {run} has seen every query of this data ({' and '.join(n for n in SPLITS if out[n].any())}); certify "
            "on other queries, or leave some out when tuning: split.tune=0.5 split.validate=0.25"
        )
    return kept, {name: int(out[name].sum()) for name in SPLITS}


def _draw_seed(config: dict[str, Any]) -> int | None:
    """Seed of the scenario draw that a run was tuned on; None for recorded data."""
    data = config.get("data")
    if not isinstance(data, dict) or data.get("kind") != "scenario":
        return None
    return int(data.get("seed") or 0)
