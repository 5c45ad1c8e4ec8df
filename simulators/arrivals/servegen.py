"""Clients of ServeGen's published figures (Alibaba Cloud Model Studio, 2025).

The table has one row per model, client and window of 600 s: rate, cv of the gaps, and the family that fitted them best,
with shape and scale. Each row becomes a stationary renewal process of its own over its window, with that rate.

What the table does not hold: the requests themselves, windows of a client with fewer than ten requests (their requests
are in no row; here they give none), any dependence between clients or between windows beyond their rates, and lengths
by client. Windows with few requests and a large cv are one burst: a renewal process cannot tell when it comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from simulators.arrivals.renewal import GapLaw, check_size, unit_points, weibull_shapes
from simulators.arrivals.replay import check_length, located
from simulators.arrivals.specs import ServeGenSpec
from simulators.columns import need_columns, number_column, read_columns, text_list
from simulators.errors import InputDataError
from simulators.outcomes import FloatArray, IntArray

WINDOW_S = 600.0

_NUMBERS = ("client", "t_s", "rate_rps", "cv", "shape")


@dataclass(frozen=True, kw_only=True)
class ClientWindows:
    """W pieces of clients' traffic within a cut that starts at 0.

    Attributes:
        names: Of the C clients, those with the most requests first.
        client: `W` indices into `names`.
        start_s, length_s: `W`: the piece.
        rate_per_s: `W` rates at load 1.
        law: `W` laws of the gaps, in units of the mean gap.
        period_s: Length of the cut.
    """

    names: tuple[str, ...]
    client: IntArray
    start_s: FloatArray
    length_s: FloatArray
    rate_per_s: FloatArray
    law: tuple[GapLaw, ...]
    period_s: float


def read_clients(spec: ServeGenSpec, folder: Path | None, *, until_s: float = np.inf) -> ClientWindows:
    """The clients of one model within the specification's cut.

    Args:
        spec: What to take.
        folder: Where a relative path starts.
        until_s: Only pieces that start before it; which clients are taken does not depend on it.

    Raises:
        InputDataError: If the file lacks a column, the model or any request in the cut, or a figure is not positive.
    """
    path = located(spec.path, folder)
    columns, family = _read(spec, path)
    end_s = float(columns["t_s"].max()) + WINDOW_S if spec.end_s is None else spec.end_s
    start_s = np.maximum(columns["t_s"], spec.start_s)
    length_s = np.minimum(columns["t_s"] + WINDOW_S, end_s) - start_s
    requests = columns["rate_rps"] * np.maximum(length_s, 0.0)
    if not requests.any():
        raise InputDataError(f"{path} has no request of {spec.model} from {spec.start_s:g} to {end_s:g} s")
    ids, client = np.unique(columns["client"], return_inverse=True)
    order = np.argsort(-np.bincount(client, weights=requests), kind="stable")[: spec.most_clients]
    rank = np.full(len(ids), -1, dtype=np.int64)
    rank[order] = np.arange(len(order))
    rows = np.flatnonzero((requests > 0) & (rank[client] >= 0) & (start_s - spec.start_s < until_s))
    return ClientWindows(
        names=tuple(f"client-{int(ids[i])}" for i in order),
        client=rank[client][rows],
        start_s=start_s[rows] - spec.start_s,
        length_s=length_s[rows],
        rate_per_s=columns["rate_rps"][rows] * spec.rate_scale,
        law=_laws(family[rows], columns["cv"][rows], columns["shape"][rows], spec.shape_from == "fit"),
        period_s=end_s - spec.start_s,
    )


def _read(spec: ServeGenSpec, path: Path) -> tuple[dict[str, FloatArray], FloatArray]:
    """Columns of one model's rows, and whether each is Weibull."""
    table = read_columns(path)
    need_columns(table, ("model", "pattern", *_NUMBERS), path)
    of_model = pc.equal(pc.cast(table["model"], "string"), spec.model)
    chosen = table.filter(of_model)
    if chosen.num_rows == 0:
        known = sorted(set(text_list(table, "model", path)))
        raise InputDataError(f"{path} has no model {spec.model!r}; it has {', '.join(known[:12])}")
    columns = {name: number_column(chosen, name, path) for name in _NUMBERS}
    for name, least in (("t_s", 0.0), ("rate_rps", 0.0), ("cv", 1e-6), ("shape", 1e-6)):
        bad = ~(np.isfinite(columns[name]) & (columns[name] >= least))
        silent = columns["rate_rps"] == 0.0
        if (bad & ~silent).any():
            raise InputDataError(
                f"column {name} of {path} must be a positive number in every row with requests; it has "
                f"{columns[name][bad & ~silent][0]:g}"
            )
    pattern = np.array(text_list(chosen, "pattern", path))
    unknown = sorted(set(pattern.tolist()) - {"Gamma", "Weibull"})
    if unknown:
        raise InputDataError(f"column pattern of {path} must be Gamma or Weibull; it has {unknown}")
    return columns, (pattern == "Weibull").astype(np.float64)


def _laws(weibull: FloatArray, cv: FloatArray, fitted: FloatArray, as_fitted: bool) -> tuple[GapLaw, ...]:
    shape = fitted.copy()
    if not as_fitted:
        shape = cv**-2.0
        is_weibull = weibull > 0
        shape[is_weibull] = weibull_shapes(cv[is_weibull])
    return tuple(
        GapLaw(family="weibull" if w else "gamma", shape=float(k)) for w, k in zip(weibull, shape, strict=True)
    )


def sample_clients(
    spec: ServeGenSpec, *, duration_s: float, load: float, rng: np.random.Generator, folder: Path | None
) -> tuple[FloatArray, IntArray, tuple[str, ...]]:
    """Instants in `[0, duration_s)` in no order, the client of each, and the clients' names."""
    windows = read_clients(spec, folder, until_s=duration_s)
    rounds = check_length(duration_s, windows.period_s, spec.repeat, f"the cut of {spec.path}", 1.0)
    expected = windows.rate_per_s * windows.length_s * load
    check_size(rounds * float(expected.sum()))
    arrival_s, client = [np.empty(0)], [np.empty(0, dtype=np.int64)]
    for lap in range(rounds):
        streams = rng.spawn(len(expected))
        for w, stream in enumerate(streams):
            since_s = unit_points(windows.law[w], float(expected[w]), stream) / (windows.rate_per_s[w] * load)
            arrival_s.append(lap * windows.period_s + windows.start_s[w] + since_s)
            client.append(np.full(len(since_s), windows.client[w]))
    instants, who = np.concatenate(arrival_s), np.concatenate(client)
    kept = instants < duration_s
    return instants[kept], who[kept], windows.names
