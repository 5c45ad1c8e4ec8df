"""The run folder: created, recognised, resumed; never overwritten silently."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments.files import write_json, write_text
from simulators.errors import ConfigError

_PACKAGES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "pyarrow",
    "hydra-core",
    "moocore",
    "litellm",
    "torch",
    "botorch",
    "gpytorch",
    "pymoo",
    "optuna",
    "wandb",
)


TRAINING = "training"
"""Folder of a run that holds the state of an unfinished training."""
_NO_INFLUENCE = {"out", "tracking", "margin", "power"}
"""Options that change what is told about a result, not the result."""


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """One run's folder.

    Attributes:
        path: The folder.
        made: Folders that this session made, the innermost first.
        created: Whether the run began in this session.
        info: What `run.json` says.
    """

    path: Path
    made: tuple[Path, ...]
    created: bool
    info: dict[str, Any]

    def finish(self, status: str, **more: object) -> None:
        """Rewrite `run.json` with a final status; what an unfinished training left is no longer needed."""
        self.info.update(status=status, finished=now(), **more)
        write_json(self.path / "run.json", self.info)
        shutil.rmtree(self.path / TRAINING, ignore_errors=True)

    def discard(self) -> None:
        """Remove what this session made, after bad input; a resumed run keeps everything."""
        if not self.created:
            return
        for name in ("run.json", "config.yaml", "evaluations.jsonl", "offline.npz"):
            (self.path / name).unlink(missing_ok=True)
        for name in ("wandb", TRAINING):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for folder in self.made:
            if any(folder.iterdir()):
                return
            folder.rmdir()


def now() -> str:
    """UTC time, ISO format."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def config_hash(config: dict[str, Any]) -> str:
    """Hash of everything in a resolved config that changes the result."""
    relevant = {name: value for name, value in config.items() if name not in _NO_INFLUENCE}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()


def check_free(out: Path) -> None:
    """Refuse a place that is not ours, before any work is done.

    Raises:
        ConfigError: If `out` is a file, or a non-empty folder that is not a run.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"out={out} is a file; name a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / "run.json").is_file():
        raise ConfigError(f"out={out} exists and is not a run folder; name a new folder or remove it")


def open_run(out: Path, config: dict[str, Any], data_hash: str, seed: int) -> RunFolder:
    """Create the folder, or resume the same run in it.

    Raises:
        ConfigError: If it holds another run.
    """
    check_free(out)
    digest = config_hash(config)
    stamp = out / "run.json"
    if stamp.is_file():
        info = _read_info(stamp)
        if info.get("config_hash") != digest or info.get("data_hash") != data_hash:
            differs = "data" if info.get("config_hash") == digest else "config"
            raise ConfigError(
                f"out={out} holds a run with another {differs}; name a new folder, or remove it to start over"
            )
        return RunFolder(path=out, made=(), created=False, info=info)
    made = tuple(folder for folder in (out, *out.parents) if not folder.exists())
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot create out={out}: {error.strerror or error}") from error
    info = {
        "command": "tune",
        "status": "running",
        "started": now(),
        "routefront": version(),
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _installed(name))},
        "seed": seed,
        "config_hash": digest,
        "data_hash": data_hash,
    }
    write_text(out / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    write_json(stamp, info)
    return RunFolder(path=out, made=made, created=True, info=info)


def _read_info(path: Path) -> dict[str, Any]:
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is damaged ({error}); name another folder") from error
    if not isinstance(info, dict):
        raise ConfigError(f"{path} is not a run's record; name another folder")
    return info


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def version() -> str:
    """Version of routefront."""
    return _installed("routefront") or "unknown"


def git_commit() -> str | None:
    """Commit of the source tree, if this is one."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


def default_out(out: str | None) -> Path:
    """The run folder that was asked for, or a dated one."""
    return Path(out) if out else Path(f"outputs/{datetime.datetime.now():%Y-%m-%d/%H-%M-%S}")
