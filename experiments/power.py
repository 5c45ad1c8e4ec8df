"""`routefront power`: how many labels does each slice need, to show that less than the margin is lost?"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.baselines import find_baseline
from experiments.certify import check_outside, compare_policies, input_files, models_of
from experiments.console import say
from experiments.files import checked_output, write_json
from experiments.loading import load_data
from experiments.settings import PowerSettings
from simulators.outcomes import IntArray, OutcomeTable
from toolkit.certify.labels import LabelPlan, differences_per_slice, plan_labels, widest_differences
from toolkit.evaluation.slices import Coverage, coverage


def run_power(settings: PowerSettings, *, quiet: bool = False) -> dict[str, Any]:
    """Count labels per slice; written to `output` and returned."""
    output = checked_output(settings.output, input_files(settings))
    check_outside(output, settings)
    table, policy, baseline, other, notes = _compared(settings) if settings.run else _before_any_run(settings)
    cover = coverage(table, settings.slices.minimum)
    if policy is None:
        differences, stands_for = widest_differences(table, other, cover)
    else:
        differences, stands_for = differences_per_slice(table, policy, other, cover), {}
    plan = plan_labels(differences, table.n_queries, margin=settings.margin, alpha=settings.alpha, power=settings.power)
    found = {
        "policy": settings.run,
        "baseline": baseline,
        "source": table.source,
        "data_hash": table.data_hash,
        "n": table.n_queries,
        **plan.as_dict(),
        "stands_for_policy": stands_for,
        "merged": _merged(cover, table),
        "notes": list(notes),
    }
    replaced = output.exists()
    write_json(output, found)
    if replaced:
        say(f"{output} existed and was replaced.", quiet=quiet)
    return {**found, "output": str(output), "sentences": power_sentences(plan, found)}


def _compared(settings: PowerSettings) -> tuple[OutcomeTable, IntArray | None, str, IntArray, tuple[str, ...]]:
    """A run's policy against the baseline, on what the run has not seen."""
    found = compare_policies(settings)
    return found.table, found.tier, found.baseline.label, found.other, found.notes


def _before_any_run(settings: PowerSettings) -> tuple[OutcomeTable, IntArray | None, str, IntArray, tuple[str, ...]]:
    """All data against the baseline, before there is a policy."""
    data = load_data(settings.data, settings.scenario, settings.seed)
    table = data.table
    best = table.tiers[int(np.argmax(table.quality.mean(axis=0)))]
    known = models_of(settings, list(table.tiers))
    models = tuple(name for name in known if name in table.tiers)
    baseline = find_baseline(settings.baseline or best, table.tiers, models, settings.baseline_models or {})
    label = baseline.label + ("" if settings.baseline else ", the best single tier of this data")
    return table, None, label, baseline.decide(table), data.notes


def _merged(cover: Coverage, table: OutcomeTable) -> dict[str, dict[str, Any]]:
    counts = {name: int(cover.counts[table.slices.index(name)]) for name in cover.merged}
    return {name: {"n": counts[name], "judged_as": group} for name, group in cover.merged_into(table).items()}


def power_sentences(plan: LabelPlan, found: dict[str, Any]) -> list[str]:
    """What the counts mean."""
    lacking = [s for s in plan.slices if s.missing]
    origin = "given" if plan.given else "the smallest that this data can resolve in every slice"
    sentences = [
        f"Margin {plan.margin:.3g} ({origin}), one-sided tests at {plan.alpha:g}; if nothing is lost, all "
        f"{len(plan.slices)} slices pass together with probability {plan.power:g}."
    ]
    if found["policy"] is None:
        sentences.append(
            "There is no policy yet: in each slice the tier whose answers differ most from the baseline stands for it. "
            "A policy that sends fewer queries elsewhere needs fewer; one that mixes tiers in a slice may need more."
        )
    if lacking:
        names = ", ".join(f"{s.name} {s.missing:,}" for s in sorted(lacking, key=lambda s: -s.missing)[:8])
        more = f" and {len(lacking) - 8} more" if len(lacking) > 8 else ""
        sentences.append(
            f"{len(lacking)} of {len(plan.slices)} slices need more labels: {names}{more}. At the present mix of "
            f"slices that is {plan.total:,} labelled queries in all; labelling slice by slice takes "
            f"{sum(s.missing for s in lacking):,} more."
        )
    else:
        sentences.append("Every slice has enough labels for this margin.")
    if found["merged"]:
        groups: dict[str, int] = {}
        for merged in found["merged"].values():
            where = merged["judged_as"] or "nothing: too small together"
            groups[where] = groups.get(where, 0) + 1
        names = ", ".join(f"{n} as {group}" for group, n in groups.items())
        sentences.append(f"Slices too small to be judged alone, and judged together: {names}.")
    return sentences
