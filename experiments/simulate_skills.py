"""What a scenario says beside quality: checks that were made of answers, and formats and tool calls got right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.simulate_figures import Requests
from simulators.outcomes import FloatArray, OutcomeTable
from simulators.sampling import expected_success
from simulators.scenario import ScenarioSpec
from simulators.world import World
from toolkit.report.simulation import Checks


@dataclass(frozen=True, kw_only=True)
class SkillCount:
    """Answered interactive requests of one replication, by the tier that answered.

    Attributes:
        answers, checked, corrected: `K`: all, those whose check was made (or that have none), those it improved.
        by_slice: `S x K` answers.
    """

    answers: FloatArray
    checked: FloatArray
    corrected: FloatArray
    by_slice: FloatArray


def skill_count(requests: Requests, table: OutcomeTable) -> SkillCount:
    """The counts of some requests."""
    served, k, s = requests.served[requests.answered], table.n_tiers, len(table.slices)
    checked, corrected = requests.checked[requests.answered], requests.corrected[requests.answered]
    cell = requests.slice_code[requests.answered] * k + served
    return SkillCount(
        answers=np.bincount(served, minlength=k).astype(np.float64),
        checked=np.bincount(served[checked], minlength=k).astype(np.float64),
        corrected=np.bincount(served[corrected], minlength=k).astype(np.float64),
        by_slice=np.bincount(cell, minlength=s * k).reshape(s, k).astype(np.float64),
    )


def check_figures(world: World, tiers: tuple[str, ...], counts: list[SkillCount]) -> dict[str, Checks]:
    """Tier -> its checks over all replications, for tiers whose answers are checked and that gave some."""
    answers, checked, corrected = (
        np.sum([getattr(count, name) for count in counts], axis=0) for name in ("answers", "checked", "corrected")
    )
    return {
        name: Checks(done=float(checked[k] / answers[k]), corrected=float(corrected[k] / answers[k]))
        for k, name in enumerate(tiers)
        if world.rules[k].second_async and answers[k] > 0
    }


def success_shares(spec: ScenarioSpec, tiers: tuple[str, ...], counts: list[SkillCount]) -> dict[str, float]:
    """Need -> expected share of the answers to slices that need it which get it right; NaN without such answers."""
    by_slice = np.sum([count.by_slice for count in counts], axis=0)
    found = {}
    for need, of_tier in expected_success(spec).items():
        rows = [i for i, name in enumerate(sorted(spec.slices)) if need in spec.slices[name].needs]
        answers = by_slice[rows].sum(axis=0)
        right = float(answers @ np.array([of_tier[name] for name in tiers]))
        found[need] = right / float(answers.sum()) if answers.any() else np.nan
    return found
