"""LiteLLM's score taken apart: read each prompt once, then weigh it for many candidates at once.

    score = sum_i weight_i * signal_i        over LiteLLM's seven dimensions, in its order

`tokenCount`'s signal depends on the token thresholds; the other six depend on the prompt alone. LiteLLM adds with
Python's `sum`, and so do we, bit by bit, because a last bit decides between tiers where a score meets a boundary.

Notation: n candidates, N queries.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.outcomes import FloatArray, IntArray, QueryBatch
from toolkit.scorers.litellm import (
    NEVER,
    OUT_OF_REACH,
    OVERRIDDEN,
    TIER_NAMES,
    DimensionWeights,
    complexity_router,
    prompts_of,
)

DIMENSIONS = tuple(DimensionWeights.model_fields)
"""LiteLLM's seven dimensions in the order in which it adds them up; `tokenCount` is the first."""
PROMPT_DIMENSIONS = DIMENSIONS[1:]
"""The six that depend on the prompt alone: the columns of `RawSignals.signal`."""
COMPENSATED = sum([0.1] * 10) == 1.0
"""Whether this Python's `sum` of floats carries the rounding error along (3.12 and later do)."""

_KEYWORD_LISTS = {
    "codePresence": "code_keywords",
    "reasoningMarkers": "reasoning_keywords",
    "technicalTerms": "technical_keywords",
    "simpleIndicators": "simple_keywords",
}
_NO_SUCH_KEYWORD = "<routefront: no such keyword>"
_REMEMBERED = 65_536


@dataclass(frozen=True, kw_only=True)
class RawSignals:
    """What LiteLLM sees in N prompts before it weighs anything.

    Attributes:
        signal: `N x 6` signals of `PROMPT_DIMENSIONS`.
        tokens: `N` tokens as LiteLLM estimates them.
        reasoning_matches: `N` reasoning keywords, counted up to 2, from which on the override applies.
        empty: `N`, True for a prompt that LiteLLM does not score.
    """

    signal: FloatArray
    tokens: IntArray
    reasoning_matches: IntArray
    empty: NDArray[np.bool_]


def raw_signals(queries: QueryBatch) -> RawSignals:
    """Signals of each prompt from the installed LiteLLM; a prompt seen before in this process is not read again.

    Raises:
        InputDataError: If queries have no prompts.
        MissingDependencyError: If LiteLLM is not installed.
    """
    prompts = prompts_of(queries)
    read = [_read(prompt) for prompt in prompts]
    return RawSignals(
        signal=np.array([signal for signal, _, _ in read], dtype=np.float64).reshape(-1, len(PROMPT_DIMENSIONS)),
        tokens=np.array([tokens for _, tokens, _ in read], dtype=np.int64),
        reasoning_matches=np.array([matches for _, _, matches in read], dtype=np.int64),
        empty=np.array([not prompt for prompt in prompts], dtype=np.bool_),
    )


@functools.lru_cache(maxsize=_REMEMBERED)
def _read(prompt: str) -> tuple[tuple[float, ...], int, int]:
    """Six signals, estimated tokens and reasoning keywords (up to 2) of one prompt."""
    probes = _probes()
    answers = {name: probe.classify(prompt) for name, probe in probes.items()}
    tier, marked, _ = answers["reasoningMarkers"]
    matches = 2 if tier.value == TIER_NAMES[-1] else int(marked > 0)
    tokens = int(probes["reasoningMarkers"]._estimate_tokens(prompt))
    return tuple(float(score) for _, score, _ in answers.values()), tokens, matches


@functools.cache
def _probes() -> dict[str, Any]:
    """Dimension -> a LiteLLM router whose score is that dimension's signal.

    Weight 1 there and none elsewhere. Keywords of other dimensions are left out, which saves most of the time. The
    override has no floor and the boundaries are out of reach: `REASONING` then means two reasoning keywords.
    """
    probes = {}
    for name in PROMPT_DIMENSIONS:
        silent = {key: [_NO_SUCH_KEYWORD] for owner, key in _KEYWORD_LISTS.items() if owner != name}
        rule = {"tier_boundaries": OUT_OF_REACH, "reasoning_override_min_score": -NEVER}
        probes[name] = complexity_router({"dimension_weights": {name: 1.0}, **rule, **silent})
    return probes


def weighted_scores(
    raw: RawSignals, weights: FloatArray, token_thresholds: FloatArray, override_min: FloatArray
) -> FloatArray:
    """LiteLLM's scores under many settings, equal to its own to the last bit.

    Args:
        raw: Signals of N prompts.
        weights: `n x 7` weights of `DIMENSIONS`.
        token_thresholds: `n x 2`, simple and complex.
        override_min: `n` scores from which on the override applies; infinite: never.

    Returns:
        `n x N` scores: `OVERRIDDEN` where the override decides, so that sending a query to the top tier is an
        ordinary threshold decision; NaN for an empty prompt.
    """
    short, long = token_thresholds[:, :1], token_thresholds[:, 1:]
    count = np.where(raw.tokens < short, -1.0, np.where(raw.tokens > long, 1.0, 0.0))
    signals = (count, *raw.signal.T)
    score = sum_as_python_does(signal * weights[:, i, None] for i, signal in enumerate(signals))
    score[(raw.reasoning_matches >= 2) & (score >= override_min[:, None])] = OVERRIDDEN
    score[:, raw.empty] = np.nan
    return score


def sum_as_python_does(terms: Iterable[FloatArray], *, compensated: bool = COMPENSATED) -> FloatArray:
    """Elementwise `sum(terms)` with the rounding of this Python's own `sum` of finite floats.

    Args:
        terms: Arrays of one shape.
        compensated: Whether that `sum` is Neumaier's (Python 3.12 and later) or adds from left to right.
    """
    total: FloatArray = np.zeros(1)
    error: FloatArray = np.zeros(1)
    for term in terms:
        bigger = total + term
        if compensated:
            error = error + np.where(np.abs(total) >= np.abs(term), (total - bigger) + term, (term - bigger) + total)
        total = bigger
    return np.asarray(total + error if compensated else total)
