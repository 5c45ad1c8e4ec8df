"""Data that a run has not seen: what is left of a file once the run's own prompts are taken out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from experiments.settings import RecordedData, ScenarioData
from experiments.tune_output import prompt_hash, prompt_keys
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


def prompts_seen(run: Path) -> dict[str, set[str]]:
    """Split name -> hashes of its prompts.

    Raises:
        InputDataError: If the file is missing or damaged.
    """
    path = run / "prompts_seen.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {name: set(stored[name]) for name in ("tune", "validate")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputDataError(f"{path} is missing or damaged; run routefront tune again") from error


def unseen_rows(
    run: Path, table: OutcomeTable, data: ScenarioData | RecordedData, seed: int
) -> tuple[IntArray, dict[str, int]]:
    """Rows that neither the search nor the choice has looked at, and how many of each split were left out.

    Prompts of the tune split are always left out; those of the validation split only where the choice was made on them
    (`choose=certified`). A fresh draw of a scenario repeats identifiers, not queries: there only a draw with the run's
    own seed has been seen.

    Raises:
        InputDataError: If no row is left.
    """
    config = run_config(run)
    everything = np.arange(table.n_queries)
    if isinstance(data, ScenarioData) and _draw_seed(config) != (seed if data.seed is None else data.seed):
        return everything, {"tune": 0, "validate": 0}
    seen = prompts_seen(run)
    names = ("tune", "validate") if config.get("choose") == "certified" else ("tune",)
    digests = [prompt_hash(key) for key in prompt_keys(table)]
    out = {name: np.array([digest in seen[name] for digest in digests], dtype=bool) for name in names}
    kept = np.flatnonzero(~np.logical_or.reduce(list(out.values())))
    if len(kept) == 0:
        raise InputDataError(
            f"the run has seen every prompt of this data ({', '.join(names)}); certify on queries it has not seen"
        )
    return kept, {name: int(out[name].sum()) if name in out else 0 for name in ("tune", "validate")}


def _draw_seed(config: dict[str, Any]) -> int | None:
    """Seed of the scenario draw that a run was tuned on; None for recorded data."""
    data = config.get("data")
    if not isinstance(data, dict) or data.get("kind") != "scenario":
        return None
    return int(data.get("seed") or 0)
