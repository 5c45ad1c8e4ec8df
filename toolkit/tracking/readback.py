"""What an offline W&B run holds: to look at before `wandb sync`, and for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from simulators.errors import ConfigError

_TIMEOUT_S = 60


def read_offline_run(run_dir: Path) -> dict[str, Any]:
    """Read a folder `offline-run-*` back, by `wandb leet inspect`.

    Returns:
        `run` (id, name, project, group, job type, tags and the like), `config`, `history` (rows in order), `summary`,
        `metrics` (name -> step metric), `artifacts` (name -> {file: local path}), `tables` (name -> {"columns",
        "data"}), `files` (relative paths), `finished`, and `exit_code` (None if unfinished).

    Raises:
        ConfigError: If it is no such folder, or cannot be read.
    """
    state: dict[str, Any] = {
        **{name: {} for name in ("run", "config", "summary", "metrics", "artifacts", "tables")},
        **{"history": [], "files": [], "finished": False, "exit_code": None},
    }
    for record in _records(run_dir):
        _take(state, record)
    media = sorted(path for path in (run_dir / "files").rglob("*") if path.is_file())
    state["files"] = [path.relative_to(run_dir / "files").as_posix() for path in media]
    for row in state["history"]:
        for name in [key.removesuffix("._type") for key, value in row.items() if value == "table-file"]:
            state["tables"][name] = json.loads((run_dir / "files" / row[f"{name}.path"]).read_text(encoding="utf-8"))
    return state


def _records(run_dir: Path) -> list[dict[str, Any]]:
    if not list(run_dir.glob("*.wandb")):
        raise ConfigError(f"{run_dir} is no W&B run; name a folder wandb/offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run_dir)]
    quiet = {**os.environ, "WANDB_ERROR_REPORTING": "false", "WANDB_MODE": "offline"}
    try:
        done = subprocess.run(command, capture_output=True, env=quiet, timeout=_TIMEOUT_S, check=True)
        return [json.loads(line) for line in done.stdout.decode().splitlines()]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ConfigError(f"cannot read {run_dir} ({error}); wandb leet needs wandb >= 0.28") from error


def _take(state: dict[str, Any], record: dict[str, Any]) -> None:
    """Add one record of the log."""
    content = record.get(record["type"], {})
    match record["type"]:
        case "run":
            state["run"] = {name: value for name, value in content.items() if name != "config"}
            state["config"].update(content.get("config", {}).get("update", {}))
        case "config":
            state["config"].update(content.get("update", {}))
        case "history":
            state["history"].append(content["item"])
        case "summary":
            state["summary"].update(content.get("update", {}))
        case "metric":
            state["metrics"][content.get("name") or content["glob_name"]] = content.get("step_metric")
        case "artifact":
            contents = content["manifest"]["contents"]
            state["artifacts"][content["name"]] = {entry["path"]: entry["local_path"] for entry in contents}
        case "exit":
            state["finished"], state["exit_code"] = True, content.get("exit_code", 0)
