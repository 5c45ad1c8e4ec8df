"""How the point was chosen, and by how much the tune split flattered it."""

from __future__ import annotations

import math

from toolkit.report.markup import UNKNOWN, Cell, Row, escaped, table_html
from toolkit.report.record import CertifiedChoiceRecord, ChoicePoint, RunRecord
from toolkit.report.wording import usd_per_1000

_DECIMALS = 4


def choice_sentences(record: RunRecord) -> list[str]:
    """The optimism of the choice; for a certified one, what it costs against the ordinary one."""
    found = record.certified_choice
    if found is None:
        tuned, validated = record.chosen_tune.get("quality", math.nan), record.evidence.quality.mean
        return [_optimism("the chosen point", tuned, validated)] if math.isfinite(tuned + validated) else []
    n = sum(found.certified)
    walked = (
        f"The point was certified: {n} of {len(found.path)} tested points of a path from the safest to the cheapest "
    )
    sentences = [
        f"{walked}are shown on the validation split to keep every constraint, and the last of them is chosen; the "
        f"chance that it breaks one is at most {found.alpha:g}. Its validation figures were used for the choice: judge "
        "it on further data with routefront certify.",
        f"The ordinary rule would have chosen {_described(found.ordinary)}. "
        + _optimism("that point", found.ordinary.tune_quality, found.ordinary.validate_quality),
        f"The certified point: {_described(found.chosen)}{_price(found)}.",
    ]
    return sentences


def _optimism(what: str, tuned: float, validated: float) -> str:
    gap = tuned - validated
    word = "flattered" if gap >= 0 else "did not flatter"
    return f"The tune split {word} {what}: quality {tuned:.4f} there, {validated:.4f} on validation ({-gap:+.4f})."


def _described(point: ChoicePoint) -> str:
    cost = (
        "" if not math.isfinite(point.validate_cost_usd) else f" at {usd_per_1000(point.validate_cost_usd)} per 1,000"
    )
    return f"quality {point.validate_quality:.4f}{cost} on validation"


def _price(found: CertifiedChoiceRecord) -> str:
    ordinary, chosen = found.ordinary.validate_cost_usd, found.chosen.validate_cost_usd
    if not math.isfinite(ordinary + chosen) or ordinary <= 0:
        return ""
    return f", {chosen / ordinary:.2f} times the ordinary choice's cost: the price of being sure"


def choice_section(record: RunRecord) -> list[str]:
    """The walk of a certified choice as a table; nothing after an ordinary choice."""
    found = record.certified_choice
    if found is None:
        return []
    rows: list[Row] = [_row(found, i) for i in range(len(found.path))]
    said = (
        "From the safest to the cheapest, in an order fixed on the tune split. p: against “it breaks the constraint”. "
        "Testing ends at the first point that cannot be shown; the one before it is shipped."
    )
    head = [
        "step",
        "quality, tune",
        "quality, validation",
        "cost per 1,000, tune",
        "constraint nearest to failing",
        "p",
        "",
    ]
    return [
        "<h2>How the point was certified</h2>",
        table_html(head, rows, highlighted=str(sum(found.certified))),
        f'<p class="soft">{escaped(said)}</p>',
    ]


def _row(found: CertifiedChoiceRecord, i: int) -> Row:
    point, shown = found.path[i], found.certified[i]
    cost = usd_per_1000(point.tune_cost_usd) if math.isfinite(point.tune_cost_usd) else UNKNOWN
    return [
        str(i + 1),
        f"{point.tune_quality:.{_DECIMALS}f}" if math.isfinite(point.tune_quality) else UNKNOWN,
        f"{point.validate_quality:.{_DECIMALS}f}",
        cost,
        found.binding[i],
        f"{found.p[i]:.2g}",
        Cell("shown", "gain") if shown else Cell("not shown", "loss"),
    ]
