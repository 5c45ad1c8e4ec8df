"""`routefront study`: is the gain real? Tune and validate on many seeded splits, at several quality floors.

References:
    [NadeauBengio2003] C. Nadeau, Y. Bengio, Inference for the generalization error, Machine Learning 52.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from experiments.console import progress, say
from experiments.files import checked_output, write_json
from experiments.loading import data_files, load_data, make_controller
from experiments.pipeline import Prepared, prepare
from experiments.settings import StudySettings
from experiments.study_certified import add_split, certified_rows, check_rest
from experiments.tune_output import stock_assignment
from simulators.errors import ConfigError
from simulators.outcomes import IntArray, OutcomeTable
from toolkit.certify.intervals import zero_difference
from toolkit.pareto.choose import CERTIFIED
from toolkit.problem import Evaluation
from toolkit.search.base import run_search


@dataclass(kw_only=True)
class _Contrast:
    """A difference over splits, with the corrected resampled t interval [NadeauBengio2003]_.

    The splits overlap, so their spread alone is too small. The correction inflates its variance from `1/R` to
    `1/R + n_validate / n_tune`, and covers both the choice of the tune split and the sampling of validation queries.
    """

    ratio: float
    differences: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        values, n = np.array(self.differences), len(self.differences)
        mean = float(values.mean())
        half = np.nan
        if n > 1:
            half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) * np.sqrt(1 / n + self.ratio))
        return {
            "mean": mean,
            "low": mean - half,
            "high": mean + half,
            "split_min": float(values.min()),
            "split_max": float(values.max()),
        }


@dataclass(kw_only=True)
class _Row:
    """One line of the study: a rule for choosing, over all splits."""

    label: str
    ratio: float
    quality: list[float] = field(default_factory=list)
    cost_usd: list[float] = field(default_factory=list)
    met: list[bool] = field(default_factory=list)
    infeasible: int = 0
    verdicts: list[str] = field(default_factory=list)
    zero: _Contrast = field(init=False)
    stock: _Contrast = field(init=False)

    def __post_init__(self) -> None:
        self.zero, self.stock = _Contrast(ratio=self.ratio), _Contrast(ratio=self.ratio)

    def add(self, table: OutcomeTable, tier: IntArray, floor: float | None) -> None:
        everything = np.arange(table.n_queries)
        self.quality.append(float(table.quality[everything, tier].mean()))
        self.cost_usd.append(float(table.cost_usd[everything, tier].mean()))
        self.met.append(floor is None or self.quality[-1] >= floor)
        found = zero_difference(table, tier)
        self.zero.differences.append(found.mean)
        self.verdicts.append(found.verdict)

    def summary(self) -> dict[str, Any]:
        if not self.quality:
            return {"rule": self.label, "n_splits": 0, "infeasible_splits": self.infeasible}
        found: dict[str, Any] = {
            "rule": self.label,
            "n_splits": len(self.quality),
            "infeasible_splits": self.infeasible,
            "quality": float(np.mean(self.quality)),
            "cost_usd": float(np.mean(self.cost_usd)),
            "floor_met_share": float(np.mean(self.met)),
            "zero_router_difference": self.zero.summary(),
            "splits_with_evidence_of_gain": float(np.mean([v == "gain" for v in self.verdicts])),
        }
        low, high = found["zero_router_difference"]["low"], found["zero_router_difference"]["high"]
        found["verdict"] = "gain" if low > 0 else "loss" if high < 0 else "no evidence"
        if self.stock.differences:
            found["stock_difference"] = self.stock.summary()
        return found


def run_study(settings: StudySettings, *, quiet: bool = False) -> dict[str, Any]:
    """Run all splits; write and return the table.

    Raises:
        ConfigError: If costs are unknown.
    """
    _refuse_ignored(settings)
    output = checked_output(settings.output, data_files(settings.data))
    data = load_data(settings.data, settings.scenario, 0)
    if not data.table.has_cost:
        raise ConfigError("study compares at equal cost, so it needs cost_usd in the data (or data.prices=FILE)")
    table, ratio = data.table, settings.split.validate_ / settings.split.tune
    if settings.choose == CERTIFIED:
        return _write(output, _header(settings, table), certified_lines(settings, table, quiet=quiet), quiet=quiet)
    rules = {floor: _Row(label=f"quality >= {floor:g}", ratio=ratio) for floor in settings.floors}
    with_stock = settings.scorer.kind == "litellm" and table.n_tiers <= 4
    stock = _Row(label="stock boundaries", ratio=ratio)
    equal = _Row(label="best at stock's cost", ratio=ratio)
    with progress("splits", quiet=quiet) as update:
        for i in range(settings.splits):
            one = settings.model_copy(update={"seed": settings.seed + i})
            prepared = prepare(one, table, ())
            evaluation = run_search(prepared.problem, make_controller(one, prepared.problem, prepared.axes)).evaluation
            for floor, row in rules.items():
                _add_floor(row, floor, prepared, evaluation)
            if with_stock:
                _add_stock(stock, equal, prepared, evaluation)
            update(i + 1, settings.splits)
    lines = [row.summary() for row in (*rules.values(), *((stock, equal) if with_stock else ()))]
    return _write(output, _header(settings, table), lines, quiet=quiet)


def certified_lines(settings: StudySettings, table: OutcomeTable, *, quiet: bool) -> list[dict[str, Any]]:
    """Ordinary and certified choices on every split."""
    rows = certified_rows(settings)
    with progress("splits", quiet=quiet) as update:
        for i in range(settings.splits):
            add_split(rows, settings.model_copy(update={"seed": settings.seed + i}), table)
            update(i + 1, settings.splits)
    return [row.summary(settings.alpha) for row in rows]


def _header(settings: StudySettings, table: OutcomeTable) -> dict[str, Any]:
    return {
        "source": table.source,
        "data_hash": table.data_hash,
        "scorer": settings.scorer.kind,
        "policy": settings.policy.kind,
        "choose": settings.choose,
        "splits": settings.splits,
        "first_seed": settings.seed,
    }


def _write(output: Path, header: dict[str, Any], lines: list[dict[str, Any]], *, quiet: bool) -> dict[str, Any]:
    found = {**header, "rows": lines}
    replaced = output.exists()
    write_json(output, found)
    if replaced:
        say(f"{output} existed and was replaced.", quiet=quiet)
    return found


def _refuse_ignored(settings: StudySettings) -> None:
    """Options of `tune` that a study sets itself must stay unset."""
    given = [name for name, value in settings.constraints.items() if value not in (None, [])]
    if given:
        raise ConfigError(f"study sets the quality floor itself (floors=[...]); unset constraints.{given[0]}")
    if settings.world.kind not in {"auto", "none"} or settings.tracking.kind != "none":
        raise ConfigError("study compares cost and quality and keeps no run folder; use world=none tracking=none")
    if settings.choose not in ("auto", CERTIFIED) or settings.out is not None:
        raise ConfigError(
            "study takes the cheapest point at each floor and writes output=FILE; choose=auto or certified, unset out"
        )
    if settings.choose == CERTIFIED:
        check_rest(settings)


def _add_floor(row: _Row, floor: float, prepared: Prepared, evaluation: Evaluation) -> None:
    """The cheapest candidate that meets the floor on the tune split, seen on the validation split."""
    feasible = np.flatnonzero(evaluation.columns["quality"] >= floor)
    if len(feasible) == 0:
        row.infeasible += 1
        return
    best = int(feasible[np.argmin(evaluation.columns["cost_usd"][feasible])])
    row.add(prepared.validate, prepared.decide(evaluation.params[best]), floor)


def _add_stock(stock: _Row, equal: _Row, prepared: Prepared, evaluation: Evaluation) -> None:
    """LiteLLM's stock boundaries, and the best candidate that costs no more than they do on the tune split."""
    validate = prepared.validate
    stock_tier = stock_assignment(validate)
    stock.add(validate, stock_tier, None)
    tune_rows = np.arange(prepared.tune.n_queries)
    budget = prepared.tune.cost_usd[tune_rows, stock_assignment(prepared.tune)].mean()
    affordable = np.flatnonzero(evaluation.columns["cost_usd"] <= budget)
    best = int(affordable[np.argmax(evaluation.columns["quality"][affordable])])
    tier = prepared.decide(evaluation.params[best])
    equal.add(validate, tier, None)
    everything = np.arange(validate.n_queries)
    gain = validate.quality[everything, tier] - validate.quality[everything, stock_tier]
    equal.stock.differences.append(float(gain.mean()))
