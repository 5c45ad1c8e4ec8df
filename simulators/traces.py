"""Recorded traffic: instants and token counts of requests, and what they look like.

Known files: the Azure LLM inference traces of 2023 (conversation, code) and Mooncake's conversation trace, which also
counts the prefix blocks of 512 tokens that were seen before. Any Parquet, CSV or JSONL file with ascending instants
will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from simulators.columns import need_columns, number_column, read_columns
from simulators.errors import InputDataError
from simulators.outcomes import FloatArray

BLOCK_TOKENS = 512
"""Tokens of one prefix block in Mooncake's trace."""

QUANTILES = (0.5, 0.9, 0.95, 0.99)

_BLOCKS = "n_prefix_blocks_seen_before"


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Requests of one recording, in order of arrival.

    Attributes:
        arrival_s: `R` instants, ascending, not negative.
        input_tokens, output_tokens: `R` token counts; None where the file has no such column.
        cached_tokens: `R` input tokens that a prefix cache without limit would have held; None where unknown.
    """

    arrival_s: FloatArray
    input_tokens: FloatArray | None = None
    output_tokens: FloatArray | None = None
    cached_tokens: FloatArray | None = None


@dataclass(frozen=True, kw_only=True)
class TraceFigures:
    """What a trace looks like; NaN where it is too short to say.

    Attributes:
        n_requests: R.
        duration_s: From the first request to the last.
        rate_per_s: Gaps over duration.
        gap_cv: Coefficient of variation of the gaps.
        tied: Share of gaps that are 0: how coarse the stamps are.
        peak_to_mean_per_min: Largest over mean number of requests in whole minutes.
        idc: Index of dispersion for counts (variance over mean) by window in seconds; 1 for Poisson arrivals.
        mean_tokens, token_quantiles: By `input`, `output`, `cached`; the quantiles at `QUANTILES`.
    """

    n_requests: int
    duration_s: float
    rate_per_s: float
    gap_cv: float
    tied: float
    peak_to_mean_per_min: float
    idc: dict[float, float]
    mean_tokens: dict[str, float]
    token_quantiles: dict[str, tuple[float, ...]]


def read_trace(path: Path, *, column: str = "arrival_s") -> Trace:
    """One recorded trace.

    Args:
        path: Parquet, CSV or JSONL with `column` and, if known, `input_tokens`, `output_tokens` and either
            `cached_tokens` or `n_prefix_blocks_seen_before` (blocks of 512 tokens; the last one may be partial).
        column: Instants in seconds.

    Raises:
        InputDataError: If instants are missing, negative or not ascending, or token counts are missing or negative.
    """
    table = read_columns(path)
    need_columns(table, (column,), path)
    arrival_s = number_column(table, column, path)
    _check_instants(arrival_s, column, path)
    tokens = {name: _tokens(table, name, path) for name in ("input_tokens", "output_tokens", "cached_tokens", _BLOCKS)}
    blocks, cached = tokens.pop(_BLOCKS), tokens["cached_tokens"]
    if cached is None and blocks is not None:
        cached = blocks * BLOCK_TOKENS
    if cached is not None and tokens["input_tokens"] is not None:
        cached = np.minimum(cached, tokens["input_tokens"])
    return Trace(arrival_s=arrival_s, **tokens | {"cached_tokens": cached})


def _check_instants(arrival_s: FloatArray, column: str, path: Path) -> None:
    unknown = np.flatnonzero(~np.isfinite(arrival_s))
    if len(unknown):
        raise InputDataError(
            f"column {column} of {path} must hold an instant in every row; row {unknown[0]} has "
            f"{arrival_s[unknown[0]]} ({len(unknown)} such rows)"
        )
    negative = np.flatnonzero(arrival_s < 0)
    if len(negative):
        row = negative[0]
        raise InputDataError(
            f"column {column} of {path} counts seconds from the start, so none is negative; row {row} has "
            f"{arrival_s[row]:g} ({len(negative)} such rows)"
        )
    back = np.flatnonzero(np.diff(arrival_s) < 0)
    if len(back):
        row = back[0]
        raise InputDataError(
            f"column {column} of {path} must not decrease; row {row + 1} has {arrival_s[row + 1]:.9g} after "
            f"{arrival_s[row]:.9g} ({len(back)} such rows); sort the file by {column}"
        )


def _tokens(table: pa.Table, name: str, path: Path) -> FloatArray | None:
    if name not in table.column_names:
        return None
    values = number_column(table, name, path)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        raise InputDataError(
            f"column {name} of {path} must hold a count in every row; row {bad[0]} has {values[bad[0]]:g} "
            f"({len(bad)} such rows)"
        )
    return values


def describe(trace: Trace, *, windows_s: tuple[float, ...] = (10.0, 60.0)) -> TraceFigures:
    """Rate, burstiness and lengths of a trace.

    Raises:
        InputDataError: If it has fewer than two requests, or all at one instant.
    """
    arrival_s = trace.arrival_s
    if len(arrival_s) < 2 or arrival_s[-1] <= arrival_s[0]:
        raise InputDataError(f"a trace needs requests at two instants at least; this one has {len(arrival_s)} requests")
    gaps, duration_s = np.diff(arrival_s), float(arrival_s[-1] - arrival_s[0])
    columns = {"input": trace.input_tokens, "output": trace.output_tokens, "cached": trace.cached_tokens}
    known = {name: values for name, values in columns.items() if values is not None}
    minutes = window_counts(arrival_s, 60.0)
    return TraceFigures(
        n_requests=len(arrival_s),
        duration_s=duration_s,
        rate_per_s=len(gaps) / duration_s,
        gap_cv=float(gaps.std() / gaps.mean()),
        tied=float((gaps == 0).mean()),
        peak_to_mean_per_min=float(minutes.max() / minutes.mean()) if len(minutes) else np.nan,
        idc={window_s: dispersion(arrival_s, window_s) for window_s in windows_s},
        mean_tokens={name: float(values.mean()) for name, values in known.items()},
        token_quantiles={name: tuple(np.quantile(values, QUANTILES).tolist()) for name, values in known.items()},
    )


def window_counts(arrival_s: FloatArray, window_s: float) -> FloatArray:
    """Requests in each whole window between the first and the last; empty if there is none."""
    since_s = arrival_s - arrival_s[0]
    n_windows = int(since_s[-1] // window_s)
    index = (since_s // window_s).astype(np.int64)
    return np.bincount(index[index < n_windows], minlength=n_windows).astype(np.float64)


def dispersion(arrival_s: FloatArray, window_s: float) -> float:
    """Index of dispersion for counts: variance over mean of the requests per window; NaN below two whole windows."""
    counts = window_counts(arrival_s, window_s)
    return float(counts.var(ddof=1) / counts.mean()) if len(counts) > 1 else np.nan
