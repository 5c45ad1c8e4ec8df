"""`litellm`: the heuristic-v1 score of the installed LiteLLM, from LiteLLM's own code.

Tuning on the gateway's real score means that the exported boundaries act in production as they did here.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from simulators.errors import InputDataError, MissingDependencyError
from simulators.outcomes import IntArray, OutcomeTable, QueryBatch
from toolkit.scorers.base import ScoreTable

TIER_NAMES = ("SIMPLE", "MEDIUM", "COMPLEX", "REASONING")
"""LiteLLM's complexity tiers, easiest first."""


def require_litellm() -> str:
    """Version of the installed LiteLLM.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    try:
        return importlib.metadata.version("litellm")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingDependencyError(
            "this needs LiteLLM, which is not installed: pip install 'routefront[litellm]'"
        ) from error


@contextlib.contextmanager
def quiet_litellm() -> Iterator[None]:
    """Import and build LiteLLM's classes without the network and without its third-party warnings.

    Its price map comes from the wheel; pydantic's remarks on LiteLLM's types are no business of our users.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def complexity_router(config: Mapping[str, object]) -> Any:
    """LiteLLM's own complexity router with this `complexity_router_config`, outside any proxy."""
    require_litellm()
    with quiet_litellm():
        from litellm.router_strategy.complexity_router.complexity_router import ComplexityRouter

        return ComplexityRouter("routefront", None, dict(config), derive_savings_baseline=False)


def stock_tiers(queries: QueryBatch) -> IntArray:
    """`N` indices into `TIER_NAMES`: LiteLLM's decision with nothing configured, its reasoning override included."""
    router = complexity_router({})
    return np.array(
        [TIER_NAMES.index(router.classify(prompt)[0].value) for prompt in _prompts(queries)], dtype=np.int64
    )


def _prompts(queries: QueryBatch) -> tuple[str, ...]:
    if queries.prompt is None:
        raise InputDataError("scorer=litellm needs a prompt column in the queries file")
    return queries.prompt


@dataclass(frozen=True)
class LiteLLMScorer:
    """The score of LiteLLM's heuristic-v1 classifier with default keywords and weights."""

    version: str = ""
    kind = "litellm"
    learned = False

    @cached_property
    def _router(self) -> Any:
        return complexity_router({})

    def fit(self, table: OutcomeTable) -> LiteLLMScorer:
        """Check that LiteLLM is there, and note its version."""
        _prompts(table.queries)
        return LiteLLMScorer(version=require_litellm())

    def predict(self, queries: QueryBatch) -> ScoreTable:
        """LiteLLM's score; NaN for an empty prompt, which LiteLLM sends to its default model unscored."""
        scores = [self._router.classify(p)[1] if p.strip() else np.nan for p in _prompts(queries)]
        return ScoreTable(score=np.array(scores, dtype=np.float64))

    def save(self, folder: Path) -> None:
        """The version the thresholds were tuned on."""
        (folder / "litellm.json").write_text(json.dumps({"version": self.version}), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> LiteLLMScorer:
        """The scorer, with the version it was tuned on; a changed classifier shows in `verify`."""
        require_litellm()
        return LiteLLMScorer(version=json.loads((folder / "litellm.json").read_text(encoding="utf-8"))["version"])

    def describe(self) -> dict[str, object]:
        """Kind and version."""
        return {"kind": self.kind, "litellm_version": self.version}
