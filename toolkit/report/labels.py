"""How many labels a verdict takes: what this recording resolves, and what the margin needs."""

from __future__ import annotations

from toolkit.certify.labels import LabelPlan
from toolkit.report.markup import Row, escaped, table_html
from toolkit.report.record import RunRecord

_MOST_NAMES = 4


def label_sentences(plan: LabelPlan | None) -> list[str]:
    """One sentence before any policy is known: the tier that differs most from the best single one stands for it."""
    if plan is None:
        return []
    resolved = max(s.resolved for s in plan.slices)
    lacking = sorted((s for s in plan.slices if s.missing), key=lambda s: -s.missing)
    named = ", ".join(f"{s.name} {s.missing:,}" for s in lacking[:_MOST_NAMES])
    more = f" and {len(lacking) - _MOST_NAMES} more slices" if len(lacking) > _MOST_NAMES else ""
    said = (
        f"To show that less than {plan.margin:g} is lost in every one of {len(plan.slices)} slices takes, with "
        f"probability {plan.power:g}, about {plan.total:,} labelled queries outside the tune split"
    )
    if not lacking:
        return [f"{said}; as many as the tune split holds would do."]
    size = f"As many labels as the tune split holds resolve {resolved:.2g} in every slice"
    return [f"{said}. {size}; still missing then: {named}{more}."]


def label_section(record: RunRecord) -> list[str]:
    """A table per slice."""
    plan = record.labels
    if plan is None:
        return []
    rows: list[Row] = [
        [s.name, f"{s.n:,}", f"{s.sd:.3f}", f"{s.resolved:.3f}", f"{s.needed:,}", f"{s.missing:,}"]
        for s in sorted(plan.slices, key=lambda s: -s.missing)
    ]
    said = (
        f"Known before any search, from the tune split alone: labels that a certificate needs to rule out a loss of "
        f"{plan.margin:g} against the best single tier in every slice (one-sided at {plan.alpha:g}, power "
        f"{plan.power:g}, nothing truly lost). In each slice the tier whose answers differ most stands for the "
        "policy, which is not known yet. routefront power counts for a chosen policy, another baseline or margin."
    )
    head = ["slice", "queries here", "sd of the difference", "so many resolve", "needed", "missing"]
    return ["<h2>Labels that a verdict takes</h2>", table_html(head, rows), f'<p class="soft">{escaped(said)}</p>']
