"""From tracking settings to a tracker."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from experiments.tracking_settings import NoTracking, TrackingSettings
from toolkit.tracking.base import NullTracker, Tracker


def open_tracker(
    settings: TrackingSettings,
    *,
    config: dict[str, Any],
    out: Path,
    controller: str,
    problem: str,
    seed: int,
    data_hash: str = "",
) -> Tracker:
    """The tracker of one run.

    Args:
        settings: Which one.
        config: The resolved config.
        out: The run folder; W&B's files go to `wandb` in it.
        controller, problem, seed: Name the run.
        data_hash: Distinguishes runs of one config on other data.

    Raises:
        RoutefrontError: If the service refuses or its package is missing.
    """
    if isinstance(settings, NoTracking):
        return NullTracker()
    from toolkit.tracking.wandb import start_wandb

    return start_wandb(
        project=settings.project,
        entity=settings.entity,
        mode=settings.mode,
        group=settings.group or sweep_of(out),
        job_type=controller,
        name=f"{controller} {problem} seed {seed}",
        tags=settings.tags,
        config=config,
        directory=out if settings.directory is None else Path(settings.directory),
        run_id=run_id(config, seed, data_hash),
    )


def sweep_of(out: Path) -> str | None:
    """Name of the sweep's folder, if `out` is one of its numbered job folders."""
    return out.absolute().parent.name or None if out.name.isdigit() else None


def run_id(config: dict[str, Any], seed: int, data_hash: str = "") -> str:
    """The same for the same search, wherever it is written and tracked."""
    relevant = {name: value for name, value in config.items() if name not in {"out", "tracking"}}
    text = json.dumps([relevant, seed, data_hash], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
