"""Token lengths: laws as YAML states them, and ServeGen's published histograms.

A length is a whole number of tokens, at least 1. `most_tokens` is what a context window or an output limit does:
longer answers end there, so the law has an atom at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from simulators.columns import need_columns, number_column, read_columns, text_list
from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import FloatArray, IntArray
from simulators.spec import Spec, one_line

LARGEST_TOKENS = 100_000_000
"""No length is drawn above it."""

_SUM_TOLERANCE = 1e-6
_HISTOGRAM_COLUMNS = ("model", "window_s", "field", "bin_low", "probability", "window_requests")
_TOP_LOG2, _BINS = 17, 160  # ServeGen's bins: 160 equal steps of the logarithm up to 2^17, rounded to whole tokens
_RATIO_BINS = 50

Positive = Annotated[float, Field(gt=0, le=1e7)]
Sigma = Annotated[float, Field(ge=0, le=4)]
Cap = Annotated[int, Field(ge=1, le=LARGEST_TOKENS)]


class FixedLengths(Spec):
    """All of one length."""

    kind: Literal["fixed"] = "fixed"
    tokens: Cap


class LognormalLengths(Spec):
    """Median, and standard deviation of the logarithm."""

    kind: Literal["lognormal"] = "lognormal"
    median: Positive
    sigma: Sigma
    most_tokens: Cap = LARGEST_TOKENS


class GammaLengths(Spec):
    """Mean and coefficient of variation; `cv` 1 is exponential, ServeGen's law of output lengths."""

    kind: Literal["gamma"] = "gamma"
    mean: Positive
    cv: Annotated[float, Field(ge=1e-3, le=100)] = 1.0
    most_tokens: Cap = LARGEST_TOKENS


class LognormalParetoLengths(Spec):
    """A lognormal body and a Pareto tail, ServeGen's law of input lengths.

    Attributes:
        median, sigma: Of the body.
        tail_share: Share of requests in the tail.
        tail_from: Where the tail starts.
        tail_exponent: P(length > x) falls as x to minus this; at most 1 has no mean, at most 2 no variance.
    """

    kind: Literal["lognormal_pareto"] = "lognormal_pareto"
    median: Positive
    sigma: Sigma
    tail_share: Annotated[float, Field(gt=0, lt=1)]
    tail_from: Positive
    tail_exponent: Annotated[float, Field(gt=0, le=100)]
    most_tokens: Cap = LARGEST_TOKENS


class HistogramLengths(Spec):
    """Every whole number of a bin is equally likely.

    Attributes:
        edges: `B + 1` ascending; bin b holds the whole numbers in `[edges[b], edges[b + 1])`.
        weights: `B` shares, which sum to 1.
    """

    kind: Literal["histogram"] = "histogram"
    edges: Annotated[tuple[Annotated[float, Field(ge=1, le=LARGEST_TOKENS)], ...], Field(min_length=2)]
    weights: Annotated[tuple[Annotated[float, Field(ge=0, le=1 + _SUM_TOLERANCE)], ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _bins_fit(self) -> HistogramLengths:
        if len(self.edges) != len(self.weights) + 1:
            raise ValueError(
                f"{len(self.weights)} weights need {len(self.weights) + 1} edges, here are {len(self.edges)}"
            )
        for (low, high), weight in zip(pairwise(self.edges), self.weights, strict=True):
            if high <= low:
                raise ValueError(f"edges must ascend, but {high:g} follows {low:g}")
            if weight > 0 and np.ceil(high) <= np.ceil(low):
                raise ValueError(f"no whole number of tokens lies from {low:g} to below {high:g}")
        total = sum(self.weights)
        if abs(total - 1.0) > _SUM_TOLERANCE:
            raise ValueError(f"the weights should sum to 1, these sum to {total:.9g}")
        return self


class EmpiricalLengths(Spec):
    """Draws with replacement from one column of a file; what it had to do with other columns is lost."""

    kind: Literal["empirical"] = "empirical"
    path: Annotated[str, Field(min_length=1)]
    column: str


LengthSpec: TypeAlias = Annotated[
    FixedLengths | LognormalLengths | GammaLengths | LognormalParetoLengths | HistogramLengths | EmpiricalLengths,
    Field(discriminator="kind"),
]
_ADAPTER: TypeAdapter[LengthSpec] = TypeAdapter(LengthSpec)


def parse_lengths(raw: object, root: str = "lengths") -> LengthSpec:
    """The validated law of a plain mapping.

    Raises:
        ConfigError: On the first wrong field, in one line.
    """
    try:
        return _ADAPTER.validate_python(raw)
    except ValidationError as error:
        raise ConfigError(one_line(error, root, LengthSpec)) from error


def sample_lengths(spec: LengthSpec, n: int, rng: np.random.Generator, *, folder: Path | None = None) -> IntArray:
    """`n` independent lengths in whole tokens, each at least 1.

    Args:
        spec: The law.
        n: How many.
        rng: Source of every number.
        folder: Where the relative path of a file starts.

    Raises:
        InputDataError: If a file's column is no list of lengths.
    """
    match spec:
        case FixedLengths():
            return np.full(n, spec.tokens, dtype=np.int64)
        case HistogramLengths():
            return _from_histogram(spec, n, rng)
        case EmpiricalLengths():
            return rng.choice(_recorded(spec, folder), size=n)
        case LognormalLengths():
            tokens = spec.median * np.exp(spec.sigma * rng.standard_normal(n))
        case GammaLengths():
            tokens = spec.mean * spec.cv**2 * rng.standard_gamma(spec.cv**-2.0, n)
        case LognormalParetoLengths():
            in_tail = rng.random(n) < spec.tail_share
            body = spec.median * np.exp(spec.sigma * rng.standard_normal(n))
            tokens = np.where(in_tail, spec.tail_from * (1.0 - rng.random(n)) ** (-1.0 / spec.tail_exponent), body)
    return np.clip(np.rint(tokens), 1, spec.most_tokens).astype(np.int64)


def _from_histogram(spec: HistogramLengths, n: int, rng: np.random.Generator) -> IntArray:
    whole = np.ceil(spec.edges).astype(np.int64)
    weights = np.array(spec.weights)
    b = rng.choice(len(weights), size=n, p=weights / weights.sum())
    return rng.integers(whole[b], whole[b + 1])


def _recorded(spec: EmpiricalLengths, folder: Path | None) -> IntArray:
    path = Path(spec.path) if folder is None else folder / spec.path
    table = read_columns(path)
    need_columns(table, (spec.column,), path)
    tokens = number_column(table, spec.column, path)
    bad = ~(np.isfinite(tokens) & (tokens >= 1) & (tokens <= LARGEST_TOKENS) & (tokens == np.rint(tokens)))
    if bad.any():
        row = int(np.argmax(bad))
        raise InputDataError(
            f"column {spec.column} of {path} must hold whole numbers of tokens, at least 1; row {row} has "
            f"{tokens[row]:g} ({int(bad.sum())} such rows)"
        )
    return tokens.astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class RatioHistogram:
    """Shares in [0, 1], such as that of thinking tokens in an answer.

    Attributes:
        low, high: `B` bounds of the bins.
        weight: `B`, summing to 1.
    """

    low: FloatArray
    high: FloatArray
    weight: FloatArray

    @property
    def mean(self) -> float:
        """Mean share."""
        return float(self.weight @ (0.5 * (self.low + self.high)))

    def sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """`n` independent shares, uniform within their bins."""
        b = rng.choice(len(self.weight), size=n, p=self.weight)
        return np.asarray(self.low[b] + (self.high - self.low)[b] * rng.random(n))


def servegen_lengths(
    path: Path,
    *,
    model: str,
    field: Literal["input_tokens", "output_tokens"],
    start_s: float = 0.0,
    end_s: float = np.inf,
) -> HistogramLengths:
    """Lengths from ServeGen's histograms: bins of one model and field, windows weighted by their requests.

    The table holds, per model and window of six hours, shares of requests by bin, of the clients whose lengths were
    published: the largest clients lack on three of the four models (29 to 57 % of requests), `deepseek-r1` is complete.
    A bin runs to the next of the fixed grid, not to the next that is in the table. Lengths by client and the
    dependence of output on input are not in it.

    Raises:
        InputDataError: If the file, the model or the field lacks, or the shares do not sum to 1.
    """
    grid = np.unique(np.rint(2.0 ** (_TOP_LOG2 * np.arange(_BINS + 2) / _BINS)))
    low, weight = _servegen_histogram(path, model, field, start_s, end_s)
    index = np.searchsorted(grid, low)
    if (grid[np.minimum(index, len(grid) - 1)] != low).any() or index.max() > len(grid) - 2:
        raise InputDataError(f"bin_low of {path} has bounds off ServeGen's grid of {_BINS} steps up to 2^{_TOP_LOG2}")
    weights = np.bincount(index, weights=weight)
    first = int(index.min())
    return HistogramLengths(
        edges=tuple(grid[first : len(weights) + 1].tolist()), weights=tuple(weights[first:].tolist())
    )


def servegen_reason_ratio(
    path: Path, *, model: str = "deepseek-r1", start_s: float = 0.0, end_s: float = np.inf
) -> RatioHistogram:
    """Share of thinking tokens in the output: two humps, and not tied to the length in the table.

    The table's bounds are shares rounded to 0.02 (so its means say), so that a bin reaches 0.01 to either side.

    Raises:
        InputDataError: If the file or the model lacks, or the shares do not sum to 1.
    """
    low, weight = _servegen_histogram(path, model, "reason_ratio", start_s, end_s)
    index = np.rint(low * _RATIO_BINS).astype(np.int64)
    weights = np.bincount(index, weights=weight, minlength=_RATIO_BINS + 1)
    middle, half = np.arange(_RATIO_BINS + 1) / _RATIO_BINS, 0.5 / _RATIO_BINS
    return RatioHistogram(
        low=np.maximum(middle - half, 0.0), high=np.minimum(middle + half, 1.0), weight=weights / weights.sum()
    )


def _servegen_histogram(
    path: Path, model: str, field: str, start_s: float, end_s: float
) -> tuple[FloatArray, FloatArray]:
    """Lower bound and share of each row, shares of all windows together summing to 1."""
    table = read_columns(path)
    need_columns(table, _HISTOGRAM_COLUMNS, path)
    chosen = table.filter(pc.and_(pc.equal(pc.cast(table["model"], pa.string()), model), _is(table, field)))
    window_s = number_column(chosen, "window_s", path)
    kept = (window_s >= start_s) & (window_s < end_s)
    if not kept.any():
        known = sorted(set(zip(text_list(table, "model", path), text_list(table, "field", path), strict=True)))
        raise InputDataError(
            f"{path} has no {field} of {model!r} from {start_s:g} to {end_s:g} s; it has "
            + ", ".join(f"{name} {what}" for name, what in known[:12])
        )
    low, share, requests = (
        number_column(chosen, name, path)[kept] for name in ("bin_low", "probability", "window_requests")
    )
    windows, index = np.unique(window_s[kept], return_inverse=True)
    totals = np.bincount(index, weights=share)
    if not (np.abs(totals - 1.0) <= _SUM_TOLERANCE).all():
        worst = int(np.nanargmax(np.abs(totals - 1.0)))
        raise InputDataError(
            f"probability of {path} must sum to 1 in every window; {field} of {model} sums to {totals[worst]:.9g} at "
            f"window_s={windows[worst]:g}"
        )
    in_window = np.zeros(len(windows))
    in_window[index] = requests
    weight = share * (in_window / in_window.sum())[index]
    return low, weight / weight.sum()


def _is(table: pa.Table, field: str) -> pa.ChunkedArray:
    return pc.equal(pc.cast(table["field"], pa.string()), field)
