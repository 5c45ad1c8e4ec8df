"""Every method of `routefront reproduce` by name: PROTEUS, its ablations, the baselines, and what leaks report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.reproduce_data import Halves, text_scorer
from experiments.reproduce_settings import ReproduceSettings
from experiments.reproduce_store import Stored
from simulators.outcomes import FloatArray, OutcomeTable, QueryBatch
from simulators.seeds import spawn_rng
from toolkit.baselines.base import Routed, RouterRun, Split, look_up
from toolkit.baselines.common import default_lanes
from toolkit.baselines.routers import ROUTERS
from toolkit.baselines.score_rules import utility_on
from toolkit.scorers.base import FittedScorer, Scorer, ScoreTable, cross_fit
from toolkit.scorers.features import PromptFeatures
from toolkit.search.proteus_scorer import ProteusScorer, default_targets

REFERENCE = "utility"
PROTEUS = ("proteus", "proteus_thresholds", "proteus_utility")
ABLATIONS: dict[str, dict[str, Any]] = {
    "no_lambda": {"dual": "none"},
    "scalar_lambda": {"dual": "scalar"},
    "pid": {"dual": "pid"},
    "fixed_gamma": {"gamma": 3.0},
    "sampled": {"gradient": "sampled"},
    "sampled_no_critic": {"gradient": "sampled", "critic": False},
}
"""Name -> options of PROTEUS; `proteus` itself is one lambda per bin of tau, learned gamma, exact gradient."""
LEAKS = (
    "labels_proteus",
    "labels_utility",
    "rows_proteus",
    "rows_utility",
    "rows_utility_flexible",
    "rows_utility_memory",
)
CARROT_FACTOR = 100.0
"""As in CARROT's published code: its paper's 1 leaves costs in USD without any weight."""
_ROW_SHARE = 0.7
_TIMED = 50


def names_of(settings: ReproduceSettings, part: str) -> list[str]:
    """Methods of one part, the reference first."""
    if part == "ablations":
        return list(ABLATIONS)
    if part == "leaks":
        return list(LEAKS)
    chosen = settings.methods or list(ROUTERS)
    always = [REFERENCE, "cheapest", "best_fixed", "random", "oracle"]
    return list(dict.fromkeys([*always, *PROTEUS, *chosen]))


def run_method(settings: ReproduceSettings, split: Split, part: str, name: str) -> Stored:
    """One method on one split; `cpu_s` is what fitting it took, on one thread, whoever else used the machine."""
    started = time.process_time()
    found = _run(settings, split, part, name)
    return dataclasses.replace(found, extra={"cpu_s": time.process_time() - started, **found.extra})


def _run(settings: ReproduceSettings, split: Split, part: str, name: str) -> Stored:
    if part == "ablations":
        return proteus(settings, split, ABLATIONS[name], folds=None)
    if part == "leaks":
        return _leak(settings, split, name)
    if name == "proteus":
        return proteus(settings, split, {}, folds=settings.policy_folds)
    if name in PROTEUS:
        return distilled(settings, split, name.removeprefix("proteus_"))
    options = {"cost_factor": CARROT_FACTOR} if name == "carrot" else {}
    started = time.process_time()
    run = ROUTERS[name](split, **options)
    cpu_s = time.process_time() - started
    if name != REFERENCE:
        return Stored(run=run, extra={})
    fitted = text_scorer(settings.scorer, split.seed).fit(split.tune)
    return Stored(run=run, extra={"cpu_s": cpu_s, **decision_time(fitted, split.held_out.queries)})


# PROTEUS --------------------------------------------------------------------------------


def proteus(
    settings: ReproduceSettings,
    split: Split,
    options: Mapping[str, Any],
    *,
    folds: int | None,
    base: Scorer | None = None,
) -> Stored:
    """The policy per query; its knob is the requested quality it was trained for.

    Args:
        settings: The settings.
        split: The split.
        options: Of `ProteusOptions`.
        folds: For the tune figures; None: those of the policy that trained on them, good for nothing but a look.
        base: The quality head; None for the text scorer.
    """
    recipe = _recipe(settings, split, options, base)
    started = time.process_time()
    fitted = recipe.fit(split.tune)
    cpu_s = time.process_time() - started
    if folds is None:
        levels = fitted.predict(split.tune.queries).levels
    else:
        rng = spawn_rng(split.seed, "policy folds")
        levels = cross_fit(recipe, split.tune, folds=folds, rng=rng).levels
    held_out = fitted.predict(split.held_out.queries).levels
    assert levels is not None and held_out is not None
    seconds = float(str(fitted.summary["seconds"]))
    run = RouterRun(
        name="proteus",
        knob="requested quality",
        settings=recipe.targets,
        tune=look_up(split.tune, np.ascontiguousarray(levels.T)),
        held_out=look_up(split.held_out, np.ascontiguousarray(held_out.T)),
        seconds=seconds,
    )
    extra: dict[str, float | list[float]] = {
        "cpu_s": cpu_s,
        "gamma": float(str(fitted.summary["gamma"])),
        "mu": _strength(fitted, split),
    }
    return Stored(run=run, extra={**extra, **decision_time(fitted, split.held_out.queries)})


def _recipe(
    settings: ReproduceSettings, split: Split, options: Mapping[str, Any], base: Scorer | None
) -> ProteusScorer:
    from toolkit.search.proteus import ProteusOptions

    asked = {"steps": settings.steps, "learning_rate": settings.learning_rate}
    effort = {name: value for name, value in asked.items() if value is not None}
    return ProteusScorer(
        base=base or text_scorer(settings.scorer, split.seed),
        options=ProteusOptions(**{**effort, **options}),
        targets=default_targets(split.tune),
        folds=split.folds,
        seed=split.seed,
    )


def _strength(fitted: Any, split: Split) -> list[float]:
    """Mean mu over the held-out queries at each trained request."""
    from toolkit.scorers.proteus import priced_predictions, query_inputs

    queries = split.held_out.queries
    quality, price = priced_predictions(fitted.base.predict(queries), fitted.cost_scale)
    usable = np.flatnonzero(np.isfinite(quality).all(axis=1) & np.isfinite(price).all(axis=1))
    inputs = query_inputs(fitted.embedding.transform(queries.take(usable)), quality[usable], price[usable])
    found: list[float] = fitted.network.strength(inputs, fitted.targets).mean(axis=0).tolist()
    return found


def decision_time(fitted: FittedScorer, queries: QueryBatch) -> dict[str, float | list[float]]:
    """Processor milliseconds per query: the median of queries alone, and the mean of all of them in one batch."""
    started = time.process_time()
    fitted.predict(queries)
    batch = (time.process_time() - started) / len(queries)
    alone = []
    for i in range(min(_TIMED, len(queries))):
        one = queries.take(np.array([i]))
        started = time.process_time()
        fitted.predict(one)
        alone.append(time.process_time() - started)
    return {"decision_ms": 1e3 * float(np.median(alone)), "batch_ms": 1e3 * batch}


def distilled(settings: ReproduceSettings, split: Split, policy: str) -> Stored:
    """The Lagrangian search over parameters: requested quality -> thresholds or utility offsets."""
    from toolkit.evaluation.metrics import parse_metric
    from toolkit.evaluation.slices import coverage
    from toolkit.families.make import policy_family
    from toolkit.problem import RoutingProblem
    from toolkit.search.base import run_search
    from toolkit.search.lagrangian import LagrangianController, LagrangianOptions

    started, lanes, k = time.perf_counter(), default_lanes(split.tune.n_tiers), split.tune.n_tiers
    family = policy_family(policy, split.tune_scores, lanes, k, offset_range=0.05)
    problem = RoutingProblem(
        table=split.tune,
        family=family,
        objectives=(parse_metric("cost"), parse_metric("quality")),
        constraints=(),
        coverage=coverage(split.tune, 30),
    )
    options = LagrangianOptions()
    if settings.rounds is not None:
        options = dataclasses.replace(options, rounds=settings.rounds)
    controller = LagrangianController(
        problem,
        options=options,
        targets=default_targets(split.tune, 33),
        rng=spawn_rng(split.seed, "search", policy),
    )
    run_search(problem, controller)
    found = controller.map
    params = found.params[found.feasible]
    held_out = family.transfer(split.held_out_scores, split.held_out.queries)
    run = RouterRun(
        name=f"proteus_{policy}",
        knob="requested quality",
        settings=found.targets[found.feasible],
        tune=look_up(split.tune, family.assign(params)),
        held_out=look_up(split.held_out, held_out.assign(params)),
        seconds=time.perf_counter() - started,
    )
    return Stored(run=run, extra={})


# Leaks --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Known:
    """A scorer that knows its answers by heart: what a leak looks like to everything above it.

    Attributes:
        scores: Of all queries.
        row: Query identifier -> row.
    """

    scores: ScoreTable
    row: Mapping[str, int]
    learned = False
    kind = "known"

    def fit(self, table: OutcomeTable) -> Known:
        """Nothing is learned."""
        return self

    def predict(self, queries: QueryBatch) -> ScoreTable:
        """Looked up."""
        return self.scores.take(np.array([self.row[name] for name in queries.query_id.tolist()], dtype=np.int64))

    def save(self, folder: Path) -> None:
        """Never saved."""
        raise NotImplementedError

    def describe(self) -> dict[str, object]:
        """Its kind."""
        return {"kind": self.kind}


def _leak(settings: ReproduceSettings, split: Split, name: str) -> Stored:
    """A method on predictions that hold what a router must not know."""
    what, method = name.split("_", 1)
    tables = (split.tune, split.held_out)
    if what == "labels":
        quality = np.concatenate([table.quality for table in tables])
    elif method.endswith("memory"):
        quality = remembered_rows(split)
    else:
        alpha = 1e-2 if method.endswith("flexible") or method == "proteus" else settings.scorer.ridge_alpha
        quality = leaked_rows(split, alpha)
    honest = (split.tune_scores, split.held_out_scores)
    ids = [query for table in tables for query in table.queries.query_id.tolist()]
    cost = np.concatenate([scores.cost_usd for scores in honest if scores.cost_usd is not None])
    scores = ScoreTable(score=np.concatenate([s.score for s in honest]), quality=quality, cost_usd=cost)
    known = Known(scores=scores, row={query: i for i, query in enumerate(ids)})
    if method == "proteus":
        return proteus(settings, split, {}, folds=None, base=known)
    parts = (known.predict(table.queries) for table in tables)
    run = utility_on(split, *parts, name=name, settings=600)
    return Stored(run=dataclasses.replace(run, uses_labels=True), extra={})


def leaked_rows(split: Split, alpha: float) -> FloatArray:
    """`(N_tune + N_held_out) x K` predictions of a regression per tier that was fitted on rows, not on prompts.

    A random 70 % of all (prompt, model) rows are training data, those of the held-out prompts among them.

    Args:
        split: The split.
        alpha: Penalty of the ridge regression.
    """
    from sklearn.linear_model import Ridge

    prompts = tuple(text for table in (split.tune, split.held_out) for text in table.queries.prompt or ())
    truth, seen = _rows(split)
    X = PromptFeatures.fit(prompts, seed=split.seed).transform(prompts)
    columns = []
    for k in range(truth.shape[1]):
        rows = np.flatnonzero(seen[:, k])
        columns.append(Ridge(alpha=alpha, solver="sparse_cg", tol=1e-6).fit(X[rows], truth[rows, k]).predict(X))
    return np.stack(columns, axis=1)


def remembered_rows(split: Split) -> FloatArray:
    """The same of a network that remembers its training rows and is honest about the others."""
    truth, seen = _rows(split)
    honest = [scores.quality for scores in (split.tune_scores, split.held_out_scores) if scores.quality is not None]
    return np.where(seen, truth, np.concatenate(honest))


def _rows(split: Split) -> tuple[FloatArray, NDArray[np.bool_]]:
    """True qualities of all (prompt, model) rows, and which of the rows are training data."""
    truth = np.concatenate([split.tune.quality, split.held_out.quality])
    return truth, spawn_rng(split.seed, "rows").uniform(size=truth.shape) < _ROW_SHARE


def halves_of(split: Split) -> Halves:
    """The halves without scores."""
    return Halves(tune=split.tune, held_out=split.held_out)


def requested_setting(run: RouterRun, taus: FloatArray) -> np.ndarray:
    """`T` rows of a run whose knob is the requested quality: asked for as it is, nothing calibrated."""
    return np.asarray(np.abs(run.settings[None, :] - taus[:, None]).argmin(axis=1))


def part_of(run: RouterRun, rows: np.ndarray) -> Routed:
    """What chosen settings do with the held-out queries."""
    held_out = run.held_out
    return Routed(
        tier=held_out.tier[rows],
        quality=held_out.quality[rows],
        cost_usd=held_out.cost_usd[rows],
        mixture=None if held_out.mixture is None else held_out.mixture[rows],
    )
