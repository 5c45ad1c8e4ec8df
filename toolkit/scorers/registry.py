"""Loading a saved scorer by its kind."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

from simulators.errors import InputDataError
from toolkit.scorers.base import FittedScorer
from toolkit.scorers.litellm import LiteLLMScorer
from toolkit.scorers.signals import SignalScorer


def load_scorer(description: dict[str, object], folder: Path) -> FittedScorer:
    """The scorer saved in `folder`.

    Args:
        description: What `describe` returned when it was saved.
        folder: Where `save` wrote it.

    Raises:
        InputDataError: If files are missing, damaged, or of a kind this version does not know.
    """
    kind = description.get("kind")
    try:
        if kind == "litellm":
            return LiteLLMScorer.load(folder)
        if kind in {"column", "scenario", "strategy"}:
            return SignalScorer.load(folder)
        if kind == "text":
            from toolkit.scorers.text import FittedTextScorer

            return FittedTextScorer.load(folder)
        if kind == "binned":
            return _load_binned(description, folder)
        if kind == "calibrated":
            from toolkit.scorers.calibrated import load_calibrated

            return load_calibrated(description, _load_base(description, folder), folder)
        if kind == "eligibility":
            from toolkit.scorers.eligibility import FittedEligibilityScorer

            return FittedEligibilityScorer.load(folder, _load_base(description, folder))
        if kind == "proteus":
            from toolkit.scorers.proteus import FittedProteus

            return FittedProteus.load(folder, _load_base(description, folder / "base"))
    except (OSError, KeyError, TypeError, json.JSONDecodeError, zipfile.BadZipFile, ValueError) as error:
        raise InputDataError(
            f"the scorer in {folder} is missing or damaged ({type(error).__name__}: {error})"
        ) from error
    raise InputDataError(f"the run's scorer is of kind {kind!r}, which this version does not know")


def _load_binned(description: dict[str, object], folder: Path) -> FittedScorer:
    from toolkit.scorers.binned import FittedBinnedScorer

    with np.load(folder / "binned.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in ("cuts", "quality", "cost_usd")}
    return FittedBinnedScorer(base=_load_base(description, folder), **arrays)


def _load_base(description: dict[str, object], folder: Path) -> FittedScorer:
    """The scorer that another one wraps."""
    base = description["base"]
    if not isinstance(base, dict):
        raise InputDataError(f"policy.json describes no base scorer for {folder}")
    return load_scorer(base, folder)
