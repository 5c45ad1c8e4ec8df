"""`litellm`: the heuristic-v1 score of the installed LiteLLM, from LiteLLM's own code.

Tuning on the gateway's real score means that the exported boundaries act in production as they did here. Its weights
may be tuned too (`LiteLLMSettings`); `toolkit.scorers.litellm_signals` re-weighs many candidates at once.
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
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from simulators.errors import InputDataError, MissingDependencyError
from simulators.outcomes import IntArray, OutcomeTable, QueryBatch
from toolkit.scorers.base import ScoreTable

TIER_NAMES = ("SIMPLE", "MEDIUM", "COMPLEX", "REASONING")
"""LiteLLM's complexity tiers, easiest first."""
NEVER = 1e9
"""A score that no prompt reaches: LiteLLM has no other way to switch its reasoning override off."""
OVERRIDDEN = 1e6
"""Score of a prompt that the reasoning override sends to the top tier: above every boundary that can be reached."""
OUT_OF_REACH = {"simple_medium": NEVER, "medium_complex": 2 * NEVER, "complex_reasoning": 3 * NEVER}
"""Boundaries under which only the override can say `REASONING`."""


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


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


MAX_WEIGHT = 1000.0
"""Bound of a weight's size, so that no weighted sum comes near `OVERRIDDEN`."""
Weight = Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)]


class DimensionWeights(_Frozen):
    """Weight of each of LiteLLM's seven dimensions, by LiteLLM's names, in the order in which it adds them up."""

    tokenCount: Weight
    codePresence: Weight
    reasoningMarkers: Weight
    technicalTerms: Weight
    simpleIndicators: Weight
    multiStepPatterns: Weight
    questionComplexity: Weight


class TokenThresholds(_Frozen):
    """Estimated tokens below which a prompt counts as short, and above which as long."""

    simple: int
    complex: int

    @model_validator(mode="after")
    def _ascending(self) -> TokenThresholds:
        if not 0 <= self.simple < self.complex:
            raise ValueError(f"need 0 <= simple < complex; got simple {self.simple}, complex {self.complex}")
        return self


class LiteLLMSettings(_Frozen):
    """What LiteLLM's score can be tuned by; the defaults are LiteLLM's own, its override aside.

    Attributes:
        dimension_weights: Weight of each dimension.
        token_thresholds: When a prompt is short, when long.
        reasoning_override_min_score: A prompt with two reasoning keywords goes to the top tier from this score on;
            None: never. (LiteLLM reads None as its lowest boundary; the export writes `NEVER`.)
    """

    dimension_weights: DimensionWeights = DimensionWeights(
        tokenCount=0.10,
        codePresence=0.30,
        reasoningMarkers=0.25,
        technicalTerms=0.25,
        simpleIndicators=0.05,
        multiStepPatterns=0.03,
        questionComplexity=0.02,
    )
    token_thresholds: TokenThresholds = TokenThresholds(simple=15, complex=400)
    reasoning_override_min_score: float | None = None

    def router_config(self) -> dict[str, Any]:
        """The keys of LiteLLM's `complexity_router_config` that these settings stand for."""
        if self == STOCK:
            return {"reasoning_override_min_score": NEVER}
        config = self.model_dump()
        if self.reasoning_override_min_score is None:
            config["reasoning_override_min_score"] = NEVER
        return config


STOCK = LiteLLMSettings()
"""Nothing tuned."""


def stock_tiers(queries: QueryBatch) -> IntArray:
    """`N` indices into `TIER_NAMES`: LiteLLM's decision with nothing configured, its reasoning override included."""
    router = complexity_router({})
    return np.array(
        [TIER_NAMES.index(router.classify(prompt)[0].value) for prompt in prompts_of(queries)], dtype=np.int64
    )


def prompts_of(queries: QueryBatch) -> tuple[str, ...]:
    """The prompts as LiteLLM's hook classifies them: without white space at the ends, which would count as tokens.

    Raises:
        InputDataError: If there are none.
    """
    if queries.prompt is None:
        raise InputDataError("scorer=litellm needs a prompt column in the queries file")
    return tuple(prompt.strip() for prompt in queries.prompt)


@dataclass(frozen=True)
class LiteLLMScorer:
    """The score of LiteLLM's heuristic-v1 classifier with default keywords.

    Attributes:
        version: Version of LiteLLM that it was tuned on.
        settings: Weights, token thresholds and override.
    """

    version: str = ""
    settings: LiteLLMSettings = STOCK
    kind = "litellm"
    learned = False

    @cached_property
    def _router(self) -> Any:
        return complexity_router({**self.settings.router_config(), "tier_boundaries": OUT_OF_REACH})

    def fit(self, table: OutcomeTable) -> LiteLLMScorer:
        """Check that LiteLLM is there, and note its version."""
        prompts_of(table.queries)
        return LiteLLMScorer(version=require_litellm(), settings=self.settings)

    def predict(self, queries: QueryBatch) -> ScoreTable:
        """LiteLLM's score; `OVERRIDDEN` where its override decides.

        NaN for an empty prompt, which LiteLLM sends to its default model unscored.
        """
        scores = [self._score(prompt) if prompt else np.nan for prompt in prompts_of(queries)]
        return ScoreTable(score=np.array(scores, dtype=np.float64))

    def _score(self, prompt: str) -> float:
        tier, score, _ = self._router.classify(prompt)
        return OVERRIDDEN if tier.value == TIER_NAMES[-1] else float(score)

    def _tuned(self) -> dict[str, object]:
        return {} if self.settings == STOCK else {"settings": self.settings.model_dump()}

    def save(self, folder: Path) -> None:
        """The version the thresholds were tuned on, and the settings unless they are stock."""
        (folder / "litellm.json").write_text(json.dumps({"version": self.version, **self._tuned()}), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> LiteLLMScorer:
        """The scorer as it was tuned; a changed classifier shows in `verify`."""
        require_litellm()
        stored = json.loads((folder / "litellm.json").read_text(encoding="utf-8"))
        settings = LiteLLMSettings.model_validate(stored.get("settings", {}))
        return LiteLLMScorer(version=stored["version"], settings=settings)

    def describe(self) -> dict[str, object]:
        """Kind and version, and the settings unless they are stock."""
        return {"kind": self.kind, "litellm_version": self.version, **self._tuned()}
