"""Shared fixtures. Helper functions live in `helpers.py`, which pytest puts on the path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # before anything imports litellm: no network in tests

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The recorded public data sets: `$ROUTEFRONT_DATA`, or `shared/data` beside the repository."""
    path = Path(os.environ.get("ROUTEFRONT_DATA") or REPO.parent / "shared" / "data")
    if not (path / "outcomes").is_dir():
        pytest.skip(f"recorded data not found at {path}; set ROUTEFRONT_DATA")
    return path
