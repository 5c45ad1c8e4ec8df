"""Seconds that a search itself takes per suggestion: `mobo` beside BoTorch's tutorial settings, on the same data."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from simulators.outcomes import FloatArray
from toolkit.pareto.axes import Axes, make_axes
from toolkit.pareto.indicators import hypervolume
from toolkit.search.base import run_search
from toolkit.search.registry import make_searcher
from toolkit.synthetic import SyntheticProblem

SEARCH_CASES: dict[str, tuple[tuple[int, int], ...]] = {
    "search-small": ((20, 3), (20, 6), (20, 12), (50, 3), (50, 6), (50, 12)),
    "search-large": ((100, 3), (100, 6), (100, 12), (200, 3), (200, 6), (200, 12)),
    "search-hypervolume": (),
}
"""Case -> (evaluations so far, dimensions); three objectives and two constraints on further columns."""
_LONGEST_WITH_PEER = 100
_QUALITY = {"dim": 6, "budget": 50, "seeds": 3}


def run_search_case(name: str, runs: int, seed: int) -> list[dict[str, Any]]:
    """Rows of one case. The peer runs once per size; beyond 100 evaluations it is left out."""
    if name == "search-hypervolume":
        return [_quality(seed)]
    rows = []
    for n, d in SEARCH_CASES[name]:
        ours = float(np.median([suggestion_s("mobo", n, d, seed + i) for i in range(max(runs, 1))]))
        peer = suggestion_s("tutorial", n, d, seed) if n <= _LONGEST_WITH_PEER else None
        rows.append(
            {
                "case": f"{name} (n = {n}, d = {d}, 3 objectives, 2 constraints)",
                "metric": "seconds per suggestion",
                "ours": ours,
                "peer": None if peer is None else "BoTorch tutorial settings, 1 run",
                "peer_value": peer,
                "ratio": None if peer is None else peer / ours,
                "runs": runs,
            }
        )
    return rows


def posed(dim: int, seed: int) -> tuple[SyntheticProblem, Axes]:
    """Noise-free, as evaluations on one table are."""
    problem = SyntheticProblem(
        dim=dim, quality_sd=0.0, latency_log_sd=0.0, quality_floor=0.0, seed=seed, side_constraints=True
    )
    return problem, make_axes(problem.objectives, problem.truth(problem.corners()).columns, margin=0.1)


def suggestion_s(kind: str, n: int, d: int, seed: int) -> float:
    """Seconds for the suggestion after `n` evaluations; a first one is thrown away, as libraries load then."""
    with threadpool_limits(limits=1):
        if kind not in _WARM:
            _WARM.add(kind)
            suggestion_s(kind, 8, 3, seed)
        problem, axes = posed(d, seed)
        options: dict[str, Any] = {"n_initial": n} | ({"model": "gp"} if kind == "mobo" else {})
        controller = make_searcher(kind, problem, axes=axes, budget=n + 1, seed=seed, **options)
        design = controller.ask()
        assert design is not None
        controller.tell(problem.evaluate_params(design))
        start = time.perf_counter()
        controller.ask()
        return time.perf_counter() - start


_WARM: set[str] = set()


def _quality(seed: int) -> dict[str, Any]:
    """Hypervolume after the same number of evaluations."""
    found: dict[str, FloatArray] = {}
    for kind in ("mobo", "tutorial"):
        values = []
        for i in range(_QUALITY["seeds"]):
            problem, axes = posed(_QUALITY["dim"], seed + i)
            options: dict[str, Any] = {"model": "gp"} if kind == "mobo" else {}
            with threadpool_limits(limits=1):
                controller = make_searcher(
                    kind, problem, axes=axes, budget=_QUALITY["budget"], seed=seed + i, **options
                )
                e = run_search(problem, controller).evaluation
            values.append(hypervolume(axes.scale(e.Y[e.feasible]), axes.reference))
        found[kind] = np.array(values)
    ours, peer = float(np.median(found["mobo"])), float(np.median(found["tutorial"]))
    return {
        "case": "search-hypervolume (d = 6, 50 evaluations, 3 seeds)",
        "metric": "hypervolume, median",
        "ours": ours,
        "peer": "BoTorch tutorial settings",
        "peer_value": peer,
        "ratio": ours / peer,
        "runs": _QUALITY["seeds"],
    }
