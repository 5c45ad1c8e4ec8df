"""`routefront bench`: ours and a plain reference side by side, in one process, on the same work."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.console import progress
from experiments.contention_bench import CONTENTION_CASES, run_contention_case
from experiments.event_bench import EVENT_CASES, run_event_case
from experiments.files import write_json
from experiments.loading import required
from experiments.rl_bench import RL_CASES, run_rl_case
from experiments.search_bench import SEARCH_CASES, run_search_case
from experiments.settings import BenchSettings
from experiments.timing import median_seconds
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, OutcomeTable, QueryBatch
from simulators.seeds import spawn_rng
from toolkit.evaluation.metrics import Metric
from toolkit.evaluation.slices import coverage
from toolkit.evaluation.thresholds import ScoreOrder, ThresholdEstimator
from toolkit.families.thresholds import ThresholdFamily
from toolkit.policies.lanes import Lanes
from toolkit.problem import RoutingProblem
from toolkit.scorers.base import ScoreTable
from toolkit.search.exact import ExactController

_METRICS = (Metric("cost"), Metric("quality"), Metric("worst_slice"))


@dataclass(frozen=True, kw_only=True)
class _Case:
    """Size of an enumeration; `grid` takes what `controller=exact` enumerates, else vectors are random."""

    n_queries: int
    n_tiers: int
    n_slices: int
    n_vectors: int
    grid: bool


CASES = {
    "exact-small": _Case(n_queries=2_000, n_tiers=3, n_slices=10, n_vectors=20_000, grid=True),
    "exact-large": _Case(n_queries=100_000, n_tiers=4, n_slices=30, n_vectors=100_000, grid=True),
    "random-large": _Case(n_queries=100_000, n_tiers=4, n_slices=30, n_vectors=100_000, grid=False),
}


def run_bench(settings: BenchSettings, *, quiet: bool = False) -> dict[str, Any]:
    """Run the cases whose names contain one of the given words; write and return the rows."""
    output = Path(required(settings.output, "output"))
    known = (*CASES, *SEARCH_CASES, *CONTENTION_CASES, *EVENT_CASES, *RL_CASES)
    names = [name for name in known if any(word in name for word in settings.cases)]
    if not names:
        raise ConfigError(f"cases={settings.cases} matches none of {list(known)}")
    rows: list[dict[str, Any]] = []
    with progress("bench", quiet=quiet) as update:
        for i, name in enumerate(names):
            if name in SEARCH_CASES:
                rows += run_search_case(name, settings.runs, settings.seed)
            elif name in CONTENTION_CASES:
                rows += run_contention_case(name, settings.runs, settings.seed)
            elif name in EVENT_CASES:
                rows += run_event_case(name, settings.runs, settings.seed)
            elif name in RL_CASES:
                rows += run_rl_case(name, settings.runs, settings.seed)
            else:
                rows += _run_case(name, CASES[name], settings.runs, settings.seed)
            update(i + 1, len(names))
    write_json(output, rows)
    return {"output": str(output), "rows": rows}


def _run_case(name: str, case: _Case, runs: int, seed: int) -> list[dict[str, Any]]:
    table, scores, params = _work(case, seed)
    cover, lanes = coverage(table, 30), Lanes(fallback_tier=0, low_confidence_tier=0)

    def ours(limit: int) -> FloatArray:
        values = ThresholdEstimator(table, cover, ScoreOrder(scores, lanes), params[:limit]).values(_METRICS)
        return np.stack(list(values.values()), axis=1)

    def one_by_one(limit: int) -> FloatArray:
        return np.stack([_plain(table, scores.score, t) for t in params[:limit]])

    n_vectors = len(params)
    n_peer = min(n_vectors, max(20, 20_000_000 // case.n_queries))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours_s, found = median_seconds(lambda: ours(n_vectors), runs)
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    peer_s, expected = median_seconds(lambda: one_by_one(n_peer), runs)
    error = float(np.abs(found[:n_peer] - expected).max())
    rate, peer_rate = n_vectors / ours_s, n_peer / peer_s
    label = f"{name} ({case.n_queries:,} x {case.n_tiers} x {case.n_slices} slices, {n_vectors:,} vectors)"
    seconds = n_vectors / peer_rate
    rows = [
        ("vectors/s", rate, "numpy", peer_rate, rate / peer_rate),
        ("seconds for all", ours_s, f"numpy, from {n_peer} vectors", seconds, seconds / ours_s),
        ("peak memory grown, MiB", grown_mib, None, None, None),
        ("largest difference", error, "numpy", 0.0, None),
    ]
    names = ("metric", "ours", "peer", "peer_value", "ratio")
    return [{"case": label, **dict(zip(names, row, strict=True)), "runs": runs} for row in rows]


def _plain(table: OutcomeTable, score: FloatArray, thresholds: FloatArray) -> FloatArray:
    """One threshold vector as anybody would evaluate it: cost, quality, worst slice."""
    tier = np.searchsorted(thresholds, score, side="right")
    rows = np.arange(len(tier))
    quality = table.quality[rows, tier]
    by_slice = np.bincount(table.slice_code, weights=quality) / np.bincount(table.slice_code)
    return np.array([table.cost_usd[rows, tier].mean(), quality.mean(), by_slice.min()])


def _work(case: _Case, seed: int) -> tuple[OutcomeTable, ScoreTable, FloatArray]:
    rng = spawn_rng(seed, "bench")
    n, k = case.n_queries, case.n_tiers
    unknown = np.full((n, k), np.nan)
    table = OutcomeTable(
        tiers=tuple(f"tier-{i}" for i in range(k)),
        queries=QueryBatch(query_id=np.arange(n).astype(str), prompt=None, signals={}),
        quality=rng.random((n, k)),
        cost_usd=rng.random((n, k)) * 10.0 ** np.arange(-5, k - 5),
        latency_s=unknown,
        ttft_s=unknown,
        input_tokens=unknown,
        output_tokens=unknown,
        error=np.zeros((n, k), dtype=bool),
        slices=tuple(f"slice-{i:02d}" for i in range(case.n_slices)),
        slice_code=np.arange(n) % case.n_slices,
    )
    scores = ScoreTable(score=rng.random(n))
    if not case.grid:
        return table, scores, np.sort(rng.random((case.n_vectors, k - 1)), axis=1)
    problem = RoutingProblem(
        table=table,
        family=ThresholdFamily(scores, Lanes(fallback_tier=0, low_confidence_tier=0), k),
        objectives=_METRICS[:2],
        constraints=(),
        coverage=coverage(table, 30),
    )
    controller = ExactController(problem, boundaries="auto", max_evaluations=case.n_vectors)
    batches = []
    while (batch := controller.ask()) is not None:
        batches.append(batch)
    return table, scores, np.concatenate(batches)
