"""What a report is drawn from: a record of one tuning run, free of files and config."""

from __future__ import annotations

from dataclasses import dataclass

from simulators.outcomes import FloatArray
from toolkit.certify.diagnostics import Diagnostics
from toolkit.certify.evidence import Evidence
from toolkit.certify.gap import Gap
from toolkit.certify.labels import LabelPlan
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
