r"""Time to first token and decode speed, from measurements or from recorded answers.

The model is the scenario's: latency = TTFT + tokens / speed with a lognormal TTFT, and in `speed_sigma` how far from
one speed the measurements are. A tier that thinks before its first visible token has latency = base + billed tokens /
speed, and its TTFT, which contains the thinking, says neither.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import theilslopes

from simulators.calibration import LognormalFit, fit_lognormal_robust
from simulators.columns import need_columns, number_column, read_columns, text_column
from simulators.errors import InputDataError
from simulators.outcomes import FloatArray

_LEAST_ROWS = 10
_NO_ERROR = {"", "0", "0.0", "none", "null", "nan", "false"}
_RATE_LIMITED = re.compile(r"(http\W*)?429\b")
_MOST_PAIRED = 1_500
_FEWEST_TOKENS = 2.0


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Requests whose times were measured.

    Attributes:
        ttft_s, latency_s: `R` seconds of answered requests.
        output_tokens: `R`, NaN where unknown.
        speed: `R` tokens per second after the first token; NaN where it cannot be said.
        n_failed: Requests that carry an error other than 429; they are in none of the arrays.
        n_limited: Requests that a rate limit refused (429): a matter of the caller's quota, so no error of the tier.
        n_unusable: Requests without an error whose times make no sense (none, or TTFT above latency); left out too.
        concurrency: Mean requests in flight, NaN where unknown.
    """

    ttft_s: FloatArray
    latency_s: FloatArray
    output_tokens: FloatArray
    speed: FloatArray
    n_failed: int
    n_limited: int
    n_unusable: int
    concurrency: float

    @property
    def n_served(self) -> int:
        """Requests that no rate limit refused."""
        return self.n_failed + self.n_unusable + len(self.ttft_s)

    @property
    def error_rate(self) -> float:
        """Share of the served requests that failed."""
        return self.n_failed / max(self.n_served, 1)


@dataclass(frozen=True, kw_only=True)
class LatencyFit:
    """Parameters of a tier's times.

    Attributes:
        ttft: Lognormal; without the thinking.
        tokens_per_s: Decode speed, median.
        speed_sigma: Interquartile range of log speed over that of a normal; 0 where speeds are not seen one by one.
        n: Requests.
        speed_se: Standard error of the median speed; NaN where unknown.
    """

    ttft: LognormalFit
    tokens_per_s: float
    speed_sigma: float
    n: int
    speed_se: float


@dataclass(frozen=True)
class LatencyFile:
    """A file of measurements: the columns `ttft_s, latency_s`, and what else it has.

    Attributes:
        path: The file.
        columns: As read.
    """

    path: Path
    columns: pa.Table

    @property
    def models(self) -> tuple[str, ...]:
        """Names in the column `model`; empty where there is none: every row holds for every tier."""
        return tuple(sorted(set(self._labels("model").tolist()))) if "model" in self.columns.column_names else ()

    def providers(self, model: str | None) -> tuple[str, ...]:
        """Providers at which a model was measured; empty where the file names none or the name states one."""
        if "provider" not in self.columns.column_names or (model is not None and model not in self.models):
            return ()
        rows = np.ones(self.columns.num_rows, dtype=np.bool_) if model is None else self._labels("model") == model
        return tuple(sorted(set(self._labels("provider")[rows].tolist())))

    def of_model(self, name: str | None) -> Measurements:
        """Measurements of one model, written `model` or `model@provider`; None: of the whole file.

        Raises:
            InputDataError: If there are none, or too few that did not fail.
        """
        rows = np.ones(self.columns.num_rows, dtype=np.bool_) if name is None else self._rows(name)
        return self._measurements(rows, "all rows" if name is None else name)

    def _labels(self, column: str) -> NDArray[np.str_]:
        return text_column(self.columns, column, self.path)

    def _rows(self, name: str) -> NDArray[np.bool_]:
        model, _, provider = name.rpartition("@")
        whole: NDArray[np.bool_] = self._labels("model") == name
        if whole.any() or not model or "provider" not in self.columns.column_names:
            rows = whole
        else:
            rows = (self._labels("model") == model) & (self._labels("provider") == provider)
        if not rows.any():
            raise InputDataError(
                f"{self.path} has no measurement of {name!r}; it has the models {list(self.models)}"
                + (" (one provider's: MODEL@PROVIDER)" if "provider" in self.columns.column_names else "")
            )
        return np.asarray(rows)

    def _measurements(self, rows: NDArray[np.bool_], name: str) -> Measurements:
        failed, limited = (rows & found for found in _failed(self.columns))
        ttft_s, latency_s = (number_column(self.columns, c, self.path) for c in ("ttft_s", "latency_s"))
        sensible = (ttft_s > 0) & (latency_s >= ttft_s) & np.isfinite(latency_s)
        answered = rows & ~failed & ~limited
        use = answered & sensible
        if use.sum() < _LEAST_ROWS:
            raise InputDataError(
                f"{self.path} has {int(use.sum())} usable measurements of {name!r} ({int(failed.sum())} failed, "
                f"{int(limited.sum())} rate limited); "
                f"expected at least {_LEAST_ROWS}"
            )
        tokens, speed = self._speeds(ttft_s, latency_s)
        concurrency = self._optional("concurrency")[use]
        return Measurements(
            ttft_s=ttft_s[use],
            latency_s=latency_s[use],
            output_tokens=tokens[use],
            speed=speed[use],
            n_failed=int(failed.sum()),
            n_limited=int(limited.sum()),
            n_unusable=int((answered & ~sensible).sum()),
            concurrency=float(concurrency.mean()) if np.isfinite(concurrency).all() else np.nan,
        )

    def _optional(self, name: str) -> FloatArray:
        if name not in self.columns.column_names:
            return np.full(self.columns.num_rows, np.nan)
        return number_column(self.columns, name, self.path)

    def _speeds(self, ttft_s: FloatArray, latency_s: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Output tokens and decode speed of each row.

        Tools differ on what they call inter-token latency (some divide the whole latency by the tokens), so it is only
        used where tokens are not known.
        """
        tokens, gap_s = self._optional("output_tokens"), self._optional("inter_token_latency_s")
        decode_s = latency_s - ttft_s
        known = (tokens >= _FEWEST_TOKENS) & (decode_s > 0)
        speed = np.divide(tokens, decode_s, out=np.full(len(tokens), np.nan), where=known)
        if np.isnan(tokens).all():
            speed = np.divide(1.0, gap_s, out=speed, where=gap_s > 0)
        return tokens, speed


def read_latency(path: Path) -> LatencyFile:
    """A file of latency measurements.

    Raises:
        InputDataError: If it cannot be read or has no `ttft_s` or `latency_s`.
    """
    columns = read_columns(path)
    need_columns(columns, ("ttft_s", "latency_s"), path)
    return LatencyFile(path, columns)


def _failed(columns: pa.Table) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows with an error of the tier's, and rows that a rate limit refused."""
    if "error_code" not in columns.column_names:
        return np.zeros(columns.num_rows, dtype=np.bool_), np.zeros(columns.num_rows, dtype=np.bool_)
    codes = [str(code).strip().lower() for code in columns["error_code"].to_pylist()]
    limited = np.array([_RATE_LIMITED.match(code) is not None for code in codes], dtype=np.bool_)
    return np.array([code not in _NO_ERROR for code in codes], dtype=np.bool_) & ~limited, limited


def fit_measurements(measured: Measurements, *, hidden: bool = False) -> LatencyFit:
    """TTFT by median and interquartile range, speed by its median; of a tier that thinks, both by `fit_slope`.

    Args:
        measured: The requests.
        hidden: Whether TTFT contains thinking, and `output_tokens` are billed, thinking included.

    Raises:
        InputDataError: If no row tells a speed.
    """
    if hidden:
        fit = fit_slope(measured.latency_s, measured.output_tokens)
        if fit is None:
            raise InputDataError(
                "the measured latency_s of a reasoning tier does not rise with output_tokens (billed ones, thinking "
                "included), which its decode speed is fitted to; measure with them, or leave its model out"
            )
        return fit
    speed = measured.speed[np.isfinite(measured.speed) & (measured.speed > 0)]
    if len(speed) < _LEAST_ROWS:
        raise InputDataError(
            f"only {len(speed)} measurements tell a decode speed (output_tokens of 2 or more, or "
            f"inter_token_latency_s); expected at least {_LEAST_ROWS}"
        )
    law = fit_lognormal_robust(speed)
    return LatencyFit(
        ttft=fit_lognormal_robust(measured.ttft_s),
        tokens_per_s=law.median,
        speed_sigma=law.sigma,
        n=len(measured.ttft_s),
        speed_se=float(law.median * law.sigma * np.sqrt(np.pi / 2 / len(speed))),
    )


def fit_answers(
    latency_s: FloatArray,
    output_tokens: FloatArray,
    ttft_s: FloatArray,
    *,
    tokens_per_s: float | None = None,
    hidden: bool = False,
) -> LatencyFit | None:
    """Times of recorded answers, which know their latency, their tokens and at times their TTFT.

    Without TTFT, or where it contains thinking, by `fit_slope`.

    Args:
        latency_s: `N`, seconds.
        output_tokens: `N` billed tokens.
        ttft_s: `N`, NaN where unknown.
        tokens_per_s: A speed that is known otherwise, or None.
        hidden: Whether the tier thinks before its first visible token.

    Returns:
        The fit; None if the data do not tell the speed and none was given: latency does not rise with the tokens.
    """
    timed = (output_tokens >= 1) & (ttft_s > 0) & (latency_s >= ttft_s)
    if timed.sum() < _LEAST_ROWS or hidden:
        return fit_slope(latency_s, output_tokens, tokens_per_s=tokens_per_s)
    if tokens_per_s is None:
        with np.errstate(divide="ignore"):
            speed = output_tokens[timed] / (latency_s - ttft_s)[timed]
        measured = Measurements(
            ttft_s=ttft_s[timed],
            latency_s=latency_s[timed],
            output_tokens=output_tokens[timed],
            speed=np.where(output_tokens[timed] >= _FEWEST_TOKENS, speed, np.nan),
            n_failed=0,
            n_limited=0,
            n_unusable=0,
            concurrency=np.nan,
        )
        return fit_measurements(measured)
    found = fit_slope(latency_s, output_tokens, tokens_per_s=tokens_per_s)
    return None if found is None else replace(found, ttft=fit_lognormal_robust(ttft_s[timed]))


def fit_slope(
    latency_s: FloatArray, billed_tokens: FloatArray, *, tokens_per_s: float | None = None
) -> LatencyFit | None:
    """Times by the slope of latency over billed tokens (Theil and Sen's, which outliers do not move).

    The slope is the time per token, and what is left of each latency is the time to the first token of any kind.

    Args:
        latency_s: `N`, seconds.
        billed_tokens: `N`, thinking included.
        tokens_per_s: A speed that is known otherwise, or None.

    Returns:
        The fit; None if latency does not rise with the tokens and no speed was given, or there are too few answers.
    """
    usable = (latency_s > 0) & (billed_tokens >= 1)
    if usable.sum() < _LEAST_ROWS:
        return None
    latency, tokens = latency_s[usable], billed_tokens[usable]
    slope, slope_se = (1.0 / tokens_per_s, np.nan) if tokens_per_s is not None else _slope(latency, tokens)
    if slope <= 0:
        return None
    rest = latency - slope * tokens
    if (rest > 0).sum() < _LEAST_ROWS:
        return None
    return LatencyFit(
        ttft=fit_lognormal_robust(rest[rest > 0]),
        tokens_per_s=1.0 / slope,
        speed_sigma=0.0,
        n=int(usable.sum()),
        speed_se=slope_se / slope**2,
    )


def _slope(latency_s: FloatArray, tokens: FloatArray) -> tuple[float, float]:
    """Seconds per token with its s.e.; 0 where the 95 % interval does not exclude 0."""
    if np.ptp(tokens) == 0:
        return 0.0, np.nan
    step = max(1, len(tokens) // _MOST_PAIRED)
    found = theilslopes(latency_s[::step], tokens[::step], alpha=0.95)
    if not found.low_slope > 0:
        return 0.0, np.nan
    return float(found.slope), float(found.high_slope - found.low_slope) / (2 * 1.959964)
