"""LiteLLM's weights and boundaries together (`litellm`): what its score counts, and where its tiers part.

A candidate is seven weights, two token thresholds, the floor of the reasoning override, and K-1 boundaries. The
boundaries are searched as load fractions on *that candidate's own* scores: a change of weights moves every score, and
a boundary in score units would then stand for another share of the traffic.

Notation: n candidates, N queries, K tiers; p = d = 10 + K-1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, QueryBatch
from toolkit.dimensions import BoxSpace, Dimension
from toolkit.evaluation.thresholds import ScoreOrder
from toolkit.families.base import Deployment, Family, boundary_sweep, dimension_sweep
from toolkit.families.thresholds import threshold_corners
from toolkit.policies.lanes import Lanes
from toolkit.policies.thresholds import ThresholdPolicy
from toolkit.scorers.base import ScoreTable
from toolkit.scorers.litellm import MAX_WEIGHT, STOCK, LiteLLMSettings
from toolkit.scorers.litellm_signals import DIMENSIONS, RawSignals, raw_signals, weighted_scores
from toolkit.spaces import SearchSpace, ThresholdSpace

SETTINGS = (*DIMENSIONS, "token_simple", "token_complex", "reasoning_override_min_score")
"""Names of the ten parameters ahead of the boundaries."""
_SIMPLE, _COMPLEX, _OVERRIDE = (SETTINGS.index(name) for name in SETTINGS[len(DIMENSIONS) :])
_DECIMALS = 6
"""Weights are searched on this grid: they read well in a config, and a decoded weight encodes back to itself."""
_BLOCK_ELEMENTS = 4_000_000
_POLICY = ThresholdPolicy()


def candidate_scores(raw: RawSignals, settings: FloatArray) -> Iterator[ScoreTable]:
    """Scores of the N queries under each of `settings: n x 10`, one candidate after the other."""
    step = max(1, _BLOCK_ELEMENTS // max(1, len(raw.tokens)))
    for start in range(0, len(settings), step):
        s = settings[start : start + step]
        block = weighted_scores(raw, s[:, :_SIMPLE], s[:, _SIMPLE:_OVERRIDE], s[:, _OVERRIDE])
        yield from (ScoreTable(score=score) for score in block)


def stock_settings() -> FloatArray:
    """`10` settings that are LiteLLM's own, with an override that is out of reach."""
    tokens = STOCK.token_thresholds
    return np.array([*STOCK.dimension_weights.model_dump().values(), tokens.simple, tokens.complex, np.inf])


class LiteLLMSpace:
    """Ten settings in a box, and load fractions on the scores that these settings give.

    Args:
        raw: Signals of the N queries.
        lanes: Lanes ahead of the boundaries.
        n_tiers: K.
        dimensions: The ten dimensions, named `SETTINGS`.
    """

    def __init__(self, raw: RawSignals, lanes: Lanes, n_tiers: int, dimensions: Sequence[Dimension]) -> None:
        self._raw, self._lanes, self._n_tiers = raw, lanes, n_tiers
        self._box = BoxSpace(dimensions)
        self.dim = len(SETTINGS) + n_tiers - 1

    def decode(self, X: FloatArray) -> FloatArray:
        """See `SearchSpace`."""
        settings = self.nearest(self._box.decode(X[:, : len(SETTINGS)]))
        return self._with_cuts(settings, [s.decode(x[None]) for s, x in self._paired(settings, X)])

    def encode(self, params: FloatArray) -> FloatArray:
        """See `SearchSpace`."""
        settings = params[:, : len(SETTINGS)]
        x = np.clip(self._box.encode(settings), 0.0, 1.0)
        return self._with_cuts(x, [s.encode(t[None]) for s, t in self._paired(settings, params)])

    def nearest(self, settings: FloatArray) -> FloatArray:
        """`n x 10` settings that can be realised: inside the bounds, on the grid, `token_complex` above the other."""
        low, high = np.array([(d.low, d.high) for d in self._box.dimensions]).T
        found = np.round(np.clip(settings, low, high), _DECIMALS) + 0.0  # no -0.0 in a config
        found[:, _COMPLEX] = np.maximum(found[:, _COMPLEX], found[:, _SIMPLE] + 1)
        return np.asarray(found, dtype=np.float64)

    def _paired(self, settings: FloatArray, rows: FloatArray) -> Iterator[tuple[ThresholdSpace, FloatArray]]:
        """For each candidate, the load fractions of its own scores and the last K-1 entries of its row."""
        for scores, row in zip(candidate_scores(self._raw, settings), rows, strict=True):
            yield ThresholdSpace(ScoreOrder(scores, self._lanes), self._n_tiers), row[len(SETTINGS) :]

    def _with_cuts(self, left: FloatArray, right: list[FloatArray]) -> FloatArray:
        return np.concatenate([left, np.array(right).reshape(len(left), self._n_tiers - 1)], axis=1)


class LiteLLMFamily(Family):
    """LiteLLM's weights, token thresholds and override floor, with its boundaries.

    Args:
        scores: LiteLLM's stock scores of the N queries.
        raw: Its signals of the same queries.
        lanes: Fallback lane.
        n_tiers: K.
        dimensions: The ten dimensions, named `SETTINGS`.

    Raises:
        ConfigError: If dimensions are not those, or `scores` are not what `raw` gives with stock settings.
    """

    kind = "litellm"

    def __init__(
        self, scores: ScoreTable, raw: RawSignals, lanes: Lanes, n_tiers: int, dimensions: tuple[Dimension, ...]
    ) -> None:
        _check_dimensions(dimensions)
        (ours,) = candidate_scores(raw, stock_settings()[None])
        if not np.array_equal(ours.score, scores.score, equal_nan=True):
            raise ConfigError(
                "space=litellm re-weighs LiteLLM's signals, and with stock weights that is not the score it was given; "
                "use scorer=litellm, and a LiteLLM whose heuristic-v1 score has the seven dimensions known here"
            )
        self.scores, self.lanes, self.n_tiers = scores, lanes, n_tiers
        self.parameter_names = (*SETTINGS, *_POLICY.parameter_names(n_tiers))
        self._raw, self._dimensions = raw, dimensions

    @cached_property
    def _own_space(self) -> LiteLLMSpace:
        return LiteLLMSpace(self._raw, self.lanes, self.n_tiers, self._dimensions)

    @property
    def space(self) -> SearchSpace:
        """Settings in a box; load fractions of each candidate's own scores."""
        return self._own_space

    def assign(self, params: FloatArray) -> NDArray[np.int8]:
        """See `Family`."""
        tier = np.empty((len(params), len(self._raw.tokens)), dtype=np.int8)
        for i, scores in enumerate(candidate_scores(self._raw, params[:, : len(SETTINGS)])):
            tier[i] = _POLICY.assign(params[i : i + 1, len(SETTINGS) :], scores, self.lanes)[0]
        return tier

    def stock(self, boundaries: Sequence[float], override_min: float = np.inf) -> FloatArray:
        """`p` parameters: LiteLLM's own weights and token thresholds, moved inside the bounds, with these boundaries.

        LiteLLM with nothing configured has its lowest boundary as `override_min`.
        """
        settings = stock_settings()
        settings[_OVERRIDE] = override_min
        return np.concatenate([self._own_space.nearest(settings[None])[0], boundaries])

    def corners(self) -> FloatArray:
        """All traffic on each tier, with stock settings."""
        x = self.space.encode(self.stock(np.zeros(self.n_tiers - 1).tolist())[None])[:, : len(SETTINGS)]
        loads = threshold_corners(self.n_tiers)
        return self.space.decode(np.concatenate([np.repeat(x, len(loads), axis=0), loads], axis=1))

    def sweep(self, params: FloatArray, i: int, steps: int) -> FloatArray:
        """See `Family`; boundaries stay in score units when a weight moves."""
        s = len(SETTINGS)
        if i >= s:
            (scores,) = candidate_scores(self._raw, params[None, :s])
            return boundary_sweep(ScoreOrder(scores, self.lanes), params, i, steps, first=s, last=s + self.n_tiers - 1)
        found = dimension_sweep(self._dimensions[i], params, i, steps)
        return found[found[:, _SIMPLE] < found[:, _COMPLEX]]

    def transfer(self, scores: ScoreTable, queries: QueryBatch) -> LiteLLMFamily:
        """See `Family`; `scores` are LiteLLM's stock scores of `queries`."""
        return LiteLLMFamily(scores, raw_signals(queries), self.lanes, self.n_tiers, self._dimensions)

    def deploy(self, params: FloatArray) -> Deployment:
        """See `Family`; `scorer` holds the fields of `LiteLLMSettings`."""
        named = dict(zip(self.parameter_names, params.tolist(), strict=True))
        tokens = {"simple": round(named["token_simple"]), "complex": round(named["token_complex"])}
        settings = {
            "dimension_weights": {name: named[name] for name in DIMENSIONS},
            "token_thresholds": tokens,
            "reasoning_override_min_score": named["reasoning_override_min_score"],
        }
        return Deployment(
            policy="thresholds",
            values={name: named[name] for name in self.parameter_names[len(SETTINGS) :]},
            lanes=self.lanes,
            scorer=LiteLLMSettings.model_validate(settings).model_dump(),
        )


def _check_dimensions(dimensions: tuple[Dimension, ...]) -> None:
    names = tuple(d.name for d in dimensions)
    if names != SETTINGS:
        raise ConfigError(f"space.parameters must name {', '.join(SETTINGS)}, in this order; got {', '.join(names)}")
    wide = [d.name for d in dimensions[: len(DIMENSIONS)] if max(-d.low, d.high) > MAX_WEIGHT]
    if wide:
        raise ConfigError(
            f"weights of LiteLLM's dimensions must stay within +-{MAX_WEIGHT:g}; not so: {', '.join(wide)}"
        )
    simple, complex_ = dimensions[_SIMPLE], dimensions[_COMPLEX]
    if {simple.kind, complex_.kind} != {"integer"} or not 0 <= simple.low <= simple.high < complex_.high:
        raise ConfigError(
            "token_simple and token_complex must be integers, not negative, with token_simple's upper bound below "
            f"token_complex's; got {simple.kind} up to {simple.high:g}, {complex_.kind} up to {complex_.high:g}"
        )
