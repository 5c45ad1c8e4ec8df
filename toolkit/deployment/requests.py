"""The traffic that deployments are judged on: requests that ask the queries of one table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.errors import InputDataError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.queueing import poisson_arrivals


@dataclass(frozen=True, kw_only=True)
class Requests:
    """R requests in order of arrival.

    Attributes:
        arrival_s: `R` instants.
        row: `R` rows of the table.
        input_tokens, output_tokens: `R x M`, what each tier would read and write.
        counted: `R`, False in the warm-up.
    """

    arrival_s: FloatArray
    row: IntArray
    input_tokens: FloatArray
    output_tokens: FloatArray
    counted: np.ndarray


def draw_requests(
    table: OutcomeTable, *, rate_per_s: float, horizon_s: float, warmup: float, rng: np.random.Generator
) -> Requests:
    """Poisson arrivals; the queries come in shuffled rounds, so that each is asked equally often.

    Args:
        table: The queries.
        rate_per_s: Requests per second.
        horizon_s: Seconds of counted traffic.
        warmup: Seconds before, as a share of the horizon; they are simulated and not counted.
        rng: Source of the draws.

    Raises:
        InputDataError: If the table does not know its token counts.
    """
    check_tokens(table)
    n = max(2, round(rate_per_s * horizon_s * (1.0 + warmup)))
    rounds = [rng.permutation(table.n_queries) for _ in range(-(-n // table.n_queries))]
    row = np.concatenate(rounds)[:n]
    arrival_s = poisson_arrivals(n, rate_per_s=rate_per_s, rng=rng)
    return Requests(
        arrival_s=arrival_s,
        row=row,
        input_tokens=np.maximum(table.input_tokens[row], 1.0),
        output_tokens=np.maximum(np.rint(table.output_tokens[row]), 1.0),
        counted=arrival_s >= horizon_s * warmup,
    )


def check_tokens(table: OutcomeTable) -> None:
    """Refuse a table without token counts.

    Raises:
        InputDataError: If any is missing.
    """
    if np.isnan(table.input_tokens).any() or np.isnan(table.output_tokens).any():
        raise InputDataError(
            "space=deployment needs input_tokens and output_tokens of every answer; this data lacks some"
        )
