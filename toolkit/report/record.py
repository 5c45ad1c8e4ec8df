"""What a report is drawn from: a record of one tuning run, free of files and config."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from simulators.outcomes import FloatArray
from toolkit.certify.diagnostics import Diagnostics
from toolkit.certify.evidence import Evidence
from toolkit.certify.gap import Gap
from toolkit.certify.labels import LabelPlan
from toolkit.export.deployment_schema import DeploymentFile
from toolkit.search.sensitivity import Sensitivity
from toolkit.zero_router import ZeroRouter


@dataclass(frozen=True, kw_only=True)
class StockPolicy:
    """A gateway's own thresholds on the same data, for comparison.

    Attributes:
        name: Such as `LiteLLM stock boundaries`.
        cost_usd: Mean cost per query.
        quality: Mean quality.
    """

    name: str
    cost_usd: float
    quality: float


@dataclass(frozen=True, kw_only=True)
class ChoicePoint:
    """Mean quality and cost per query of one candidate on both splits; NaN where unknown."""

    tune_quality: float
    tune_cost_usd: float
    validate_quality: float
    validate_cost_usd: float

    @property
    def optimism(self) -> float:
        """By how much the tune split flattered its quality."""
        return self.tune_quality - self.validate_quality


@dataclass(frozen=True, kw_only=True)
class CertifiedChoiceRecord:
    """A choice by tests along a path, and the ordinary choice beside it.

    Attributes:
        alpha: Level.
        path: What was tested, from the safest on; the last one may be the one that could not be shown.
        p: p-value of each against "it breaks a constraint".
        binding: The constraint with that p-value.
        certified: Whether each is shown to keep all constraints.
        chosen: The shipped point.
        ordinary: What the ordinary rule would have chosen on the tune split.
    """

    alpha: float
    path: tuple[ChoicePoint, ...]
    p: tuple[float, ...]
    binding: tuple[str, ...]
    certified: tuple[bool, ...]
    chosen: ChoicePoint
    ordinary: ChoicePoint


@dataclass(frozen=True, kw_only=True)
class FrontAtLoad:
    """What some candidates are worth at one load, on the tune split.

    Attributes:
        load: Factor of the arrival rates.
        n_candidates, n_feasible: How many were judged, and keep every constraint.
        front: Natural column -> values of the feasible candidates that no other one dominates, by ascending cost.
        candidates: Natural column -> values of all candidates that were judged.
        chosen: Natural column -> value of the run's chosen point.
        broken: Constraints that the chosen point breaks at this load, as text.
        best: Natural column -> value of the point that the same rule would choose here, or None: none is feasible.
        utilisation: Station -> share of its slots' time that the chosen point's requests hold.
    """

    load: float
    n_candidates: int
    n_feasible: int
    front: dict[str, FloatArray]
    candidates: dict[str, FloatArray]
    chosen: dict[str, float]
    broken: tuple[str, ...]
    best: dict[str, float] | None
    utilisation: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain containers; not-a-number as null."""
        best = None if self.best is None else {name: _plain(v) for name, v in self.best.items()}
        return {
            "load": self.load,
            "n_candidates": self.n_candidates,
            "n_feasible": self.n_feasible,
            "front": {name: [_plain(v) for v in values.tolist()] for name, values in self.front.items()},
            "chosen": {name: _plain(v) for name, v in self.chosen.items()},
            "broken": list(self.broken),
            "best": best,
            "utilisation": self.utilisation,
        }


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One tuning run.

    Attributes:
        title: Name of the run.
        source: One line on the data.
        policy: `thresholds` or `utility`.
        scorer: One line on the scorer.
        controller: Name of the controller.
        exactness: What the search is exact for.
        chosen_because: Why this point.
        params: Name -> value of the chosen parameters.
        n_tune, n_validate, n_dropped: Queries.
        n_evaluations, n_failed: Evaluations, and how many of them failed.
        seconds: Time spent in the search.
        front: Natural column -> `F` values on the tune split, by ascending cost (or first objective).
        chosen_tune: Natural column -> value of the chosen point on the tune split.
        zero_validate: Zero router of the validation split, or None where costs are unknown.
        front_validate: `cost_usd` and `quality` (`F`) of the front's policies on the validation split, or empty.
        evidence: The chosen policy on the validation split.
        stock_validate: The gateway's own thresholds on the validation split, where the scorer is a gateway's.
        stock_difference: Sentence comparing chosen and stock policy on the validation split, or None.
        notes: Sentences on the data (dropped rows, reordered tiers, ...) and on the search.
        sensitivity: How far each parameter may move alone.
        certified_choice: How the point was certified, with choose=certified.
        labels: Labels that a certificate takes, known before the search; None where no slice can be judged.
        diagnostics: Whether the score is any good, or None where nobody asked.
        gap: Where the gap to the oracle goes, or None where nobody asked.
        loads: The candidates judged again at several loads, ascending; empty without traffic.
        deployment: The deployment that was searched together with the policy, or None.
    """

    title: str
    source: str
    policy: str
    scorer: str
    controller: str
    exactness: str
    chosen_because: str
    params: dict[str, float]
    n_tune: int
    n_validate: int
    n_dropped: int
    n_evaluations: int
    n_failed: int
    seconds: float
    front: dict[str, FloatArray]
    chosen_tune: dict[str, float]
    zero_validate: ZeroRouter | None
    front_validate: dict[str, FloatArray]
    evidence: Evidence
    stock_validate: StockPolicy | None
    stock_difference: str | None
    notes: tuple[str, ...]
    sensitivity: tuple[Sensitivity, ...] = ()
    certified_choice: CertifiedChoiceRecord | None = None
    labels: LabelPlan | None = None
    diagnostics: Diagnostics | None = None
    gap: Gap | None = None
    loads: tuple[FrontAtLoad, ...] = ()
    deployment: DeploymentFile | None = None
