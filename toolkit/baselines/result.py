"""A router run as the result of a search, so that fronts, comparisons and reports take it like a controller's."""

from __future__ import annotations

import numpy as np

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, OutcomeTable
from toolkit.baselines.base import Routed, RouterRun
from toolkit.evaluation.constraints import Constraint, slack_matrix
from toolkit.evaluation.estimators import AssignmentEstimator
from toolkit.evaluation.metrics import Metric
from toolkit.evaluation.slices import Coverage
from toolkit.pareto.front import feasible_front
from toolkit.problem import Evaluation
from toolkit.search.base import SearchResult

QUALITY, COST = Metric("quality"), Metric("cost")


def as_search_result(
    run: RouterRun,
    table: OutcomeTable,
    *,
    objectives: tuple[Metric, ...] | None = None,
    constraints: tuple[Constraint, ...] = (),
    coverage: Coverage | None = None,
    held_out: bool = False,
) -> SearchResult:
    """Settings as candidates with one parameter, the knob.

    Args:
        run: The run.
        table: The queries that the figures are of: those of `run.tune` (or `run.held_out`).
        objectives: The m objectives; quality, and cost where it is known, by default.
        constraints: The c bounds.
        coverage: Slices, for metrics beyond the mean quality and cost of all queries.
        held_out: Whether figures are those of the held-out queries.

    Raises:
        ConfigError: If the table holds other queries, or a metric is asked for that mixtures of tiers do not have.
    """
    routed = run.held_out if held_out else run.tune
    if routed.tier.shape[1] != table.n_queries:
        raise ConfigError(f"{run.name} routed {routed.tier.shape[1]} queries and the table holds {table.n_queries}")
    wanted = objectives if objectives is not None else (QUALITY, COST) if routed.has_cost else (QUALITY,)
    metrics = tuple(dict.fromkeys((*wanted, *(c.metric for c in constraints))))
    columns = _figures(run, routed, table, coverage, metrics)
    evaluation = Evaluation(
        params=run.settings[:, None],
        Y=np.stack([columns[m.column] * (1 if m.maximise else -1) for m in wanted], axis=1),
        slack=slack_matrix(constraints, columns, len(run.settings)),
        columns=columns,
        tier_shares=routed.tier_shares(table.n_tiers),
    )
    part = "held-out" if held_out else "tune"
    return SearchResult(
        controller=run.name,
        evaluation=evaluation,
        front=feasible_front(evaluation),
        n_failed=int((~evaluation.ok).sum()),
        n_replayed=0,
        seconds=run.seconds,
        exactness=f"{len(run.settings):,} settings of one knob ({run.knob}) were looked up on the {part} queries",
    )


def _figures(
    run: RouterRun, routed: Routed, table: OutcomeTable, coverage: Coverage | None, metrics: tuple[Metric, ...]
) -> dict[str, FloatArray]:
    columns = {QUALITY.column: routed.mean_quality, COST.column: routed.mean_cost_usd}
    rest = tuple(m for m in metrics if m.column not in columns)
    if not rest:
        return columns
    if coverage is None or (routed.tier < 0).any():
        raise ConfigError(
            f"{run.name}: {rest[0].column} needs slices (coverage) and one tier per answer; ask for quality and cost"
        )
    return columns | AssignmentEstimator(table, coverage, routed.tier).values(rest)
