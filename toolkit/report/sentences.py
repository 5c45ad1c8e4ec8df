"""What one run shows, in plain English: each claim is a figure with its interval, and nothing is claimed beyond it.

Differences in quality are paired over the validation queries; intervals are 95 %. A difference whose interval
contains 0 is reported as "no evidence", never as equality. Money is shown in USD per 1,000 queries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np

from toolkit.certify.evidence import ConstraintEvidence, Evidence, SliceEvidence
from toolkit.certify.intervals import Interval
from toolkit.report.choice import choice_sentences
from toolkit.report.diagnostics_sentences import gap_sentences, score_headline
from toolkit.report.labels import label_sentences
from toolkit.report.lanes import lane_sentences
from toolkit.report.loads import load_sentences
from toolkit.report.record import RunRecord
from toolkit.report.router import router_row, router_sentences
from toolkit.report.wording import (
    column_label,
    column_value,
    constraint_label,
    has_costs,
    on_validation,
    parameter_value,
    percent,
    roles,
    signed_difference,
    usd_per_1000,
    with_interval,
    worst_slice,
)

SINGLE_TIER_SHARE = 0.99
_MOST_NAMES = 8


def plain_sentences(record: RunRecord) -> list[str]:
    """Everything a reader must know before shipping the chosen point, most important first."""
    return [sentence for _, sentences in sentences_by_topic(record) for sentence in sentences]


def sentences_by_topic(record: RunRecord) -> list[tuple[str, list[str]]]:
    """The sentences of `plain_sentences` under a word each; topics without a sentence are left out."""
    topics = [
        ("Cost", _cost(record)),
        ("Quality", _quality(record.evidence)),
        ("Routing", _routing(record)),
        ("Constraints", [_constraint(record, c) for c in record.evidence.constraints]),
        ("Choice", choice_sentences(record)),
        ("Score", [_information(record.evidence), *score_headline(record.diagnostics)]),
        ("Gap", gap_sentences(record.gap)),
        ("Slices", _slices(record.evidence)),
        ("Latency", _latency(record.evidence)),
        ("Router", router_sentences(record.evidence.router)),
        ("Load", load_sentences(record.loads, bounded=bool(record.evidence.constraints))),
        ("Lanes", lane_sentences(record.evidence)),
        ("Labels", label_sentences(record.labels)),
    ]
    return [(topic, sentences) for topic, sentences in topics if sentences]


def _rivals(evidence: Evidence) -> dict[str, str]:
    """The best single tier and the dearest, each with its name in a sentence."""
    names = roles(evidence)
    return {tier: f"the {names[tier]} tier {tier}" for tier in dict.fromkeys((evidence.best_single, evidence.dearest))}


def _cost(record: RunRecord) -> list[str]:
    evidence = record.evidence
    if not has_costs(record):
        return ["Costs are unknown, so nothing is said about savings or about mixing tiers at random at equal cost."]
    sentences = [
        f"On {counted(evidence.n, 'validation query')} the policy costs "
        f"{with_interval(evidence.cost_usd, usd_per_1000)} per 1,000 queries."
    ]
    for tier, name in _rivals(evidence).items():
        theirs = float(evidence.tier_cost_usd[evidence.tiers.index(tier)])
        sentences.append(_saving(evidence.cost_usd, theirs, name))
    return sentences


def _saving(ours: Interval, theirs: float, name: str) -> str:
    saved = theirs - ours.mean
    if math.isclose(theirs, ours.mean, rel_tol=1e-9):
        return f"It costs as much as {name}."
    word, verb = ("less", "saves") if saved > 0 else ("more", "adds")
    relative = f"{percent(abs(saved) / theirs)} {word}" if theirs > 0 else word
    change = f"{verb} {usd_per_1000(abs(saved))} per 1,000 queries"
    inside = ", a difference within the interval of its own cost" if ours.low <= theirs <= ours.high else ""
    return f"It costs {relative} than {name} ({usd_per_1000(theirs)}), which {change}{inside}."


def _quality(evidence: Evidence) -> list[str]:
    oracle = f"no router over these tiers can exceed {evidence.oracle_quality:.3f} on these queries"
    sentences = [f"The policy's quality is {with_interval(evidence.quality)}; {oracle}."]
    for tier, name in _rivals(evidence).items():
        gap = evidence.versus[tier]
        shown = f"{signed_difference(gap)} (paired difference, 95 % interval)"
        if gap.low == gap.high == 0:
            sentences.append(f"On every query its quality equals that of {name}.")
        elif gap.verdict == "no evidence":
            ruled = f"; a loss of up to {-gap.low:.3f} is not ruled out" if gap.low < 0 else ""
            sentences.append(f"No evidence of a difference in quality to {name}: {shown}{ruled}.")
        else:
            word = "higher" if gap.verdict == "gain" else "lower"
            sentences.append(f"Its quality is {word} than that of {name}: {shown}.")
    return sentences


def _routing(record: RunRecord) -> list[str]:
    evidence, sentences = record.evidence, []
    largest = int(np.argmax(evidence.tier_shares))
    if evidence.tier_shares[largest] > SINGLE_TIER_SHARE:
        share, tier = percent(float(evidence.tier_shares[largest])), evidence.tiers[largest]
        sentences.append(f"The policy sends {share} of the queries to {tier}: in effect it is that tier.")
    if evidence.best_single == evidence.cheapest:
        sentences.append(
            f"The best single tier, {evidence.cheapest}, is also the {'cheapest' if has_costs(record) else 'first'}: "
            "routing can only help by finding the exceptions where another tier answers better."
        )
    if evidence.zero_difference is not None:
        claim = {"gain": "Routing beats", "loss": "Routing is worse than"}.get(
            evidence.zero_difference.verdict, "No evidence that routing beats"
        )
        shown = signed_difference(evidence.zero_difference)
        sentences.append(
            f"{claim} mixing tiers at random: {shown} in quality at equal cost (Zero router{_latency_aside(record)})."
        )
    if record.stock_difference is not None:
        sentences.append(record.stock_difference)
    elif (stock := record.stock_validate) is not None:
        cost = f" at {usd_per_1000(stock.cost_usd)} per 1,000 queries" if math.isfinite(stock.cost_usd) else ""
        sentences.append(f"{stock.name} reach quality {stock.quality:.3f}{cost} on validation (no interval).")
    return sentences


def constraint_status(record: RunRecord, constraint: ConstraintEvidence) -> str:
    """`holds`, `missed` or `cannot be judged`, with the value and what is uncertain about it."""
    if not math.isfinite(constraint.value):
        return "cannot be judged on validation and counts as missed: its value is unknown there"
    column, sign, limit_text = constraint.text.rsplit(" ", 2)
    limit, found = float(limit_text), on_validation(record.evidence, column)
    decimals = 3
    while decimals < 8 and not constraint.holds and round(found.mean, decimals) == round(limit, decimals):
        decimals += 1
    value = with_interval(found, lambda v: column_value(column, v, decimals))
    status = f"{'holds' if constraint.holds else 'is missed'} on validation: {value}"
    tuned = record.chosen_tune.get(column, math.nan)
    if not constraint.holds and (tuned >= limit if sign == ">=" else tuned <= limit):
        status += f", although it was met on the tune split ({column_value(column, tuned, decimals)})"
    if found.low <= limit <= found.high:
        other = "miss it" if constraint.holds else "meet it"
        status += f"; the interval contains the limit, so other queries may {other}"
    return status


def _constraint(record: RunRecord, constraint: ConstraintEvidence) -> str:
    return f"The constraint {constraint_label(constraint)} {constraint_status(record, constraint)}."


def _information(evidence: Evidence) -> str:
    found = evidence.information
    about = f"where {evidence.information_tier} answers better than {evidence.cheapest}"
    shown = f"rank correlation with the gain {signed_difference(found)}"
    if found.verdict == "no evidence":
        if found.low <= -1 and found.high >= 1:
            shown = "the score or the gain does not vary, or fewer than 10 queries have a score"
        return f"No evidence that the score carries information about {about}: {shown}."
    steps = ((0.1, "very weak"), (0.3, "weak"), (0.5, "moderate"), (math.inf, "strong"))
    strength = next(word for limit, word in steps if abs(found.mean) < limit)
    if found.verdict == "loss":
        gain = f"the gain of {evidence.information_tier} over {evidence.cheapest}"
        return f"The score points the wrong way ({strength}): the higher it is, the smaller {gain}; {shown}."
    return f"The score carries {strength} information about {about}: {shown}."


def _slices(evidence: Evidence) -> list[str]:
    covered, best, sentences = evidence.slices, evidence.best_single, []
    ordered = sorted(covered, key=lambda s: s.versus[best].mean)
    losses = [s for s in ordered if s.versus[best].verdict == "loss"]
    gains = [s for s in reversed(ordered) if s.versus[best].verdict == "gain"]
    if losses:
        sentences.append(
            f"It loses quality to {best} in {_among(losses, covered, 'worst')}: {_slice_list(losses, best)}."
        )
    elif covered:
        where = f"any of the {len(covered)} covered slices" if len(covered) > 1 else "the only covered slice"
        sentences.append(f"It is not shown to lose quality to {best} in {where}.")
    if gains:
        sentences.append(
            f"It gains quality over {best} in {_among(gains, covered, 'best')}: {_slice_list(gains, best)}."
        )
    if (losses or gains) and len(covered) >= 5:
        sentences.append(
            "Each interval is for one slice, not corrected for their number: "
            f"about {0.05 * len(covered):.2g} of {len(covered)} would exclude 0 by chance if no slice differed."
        )
    if (worst := worst_slice(evidence)) is not None:
        alone = worst.tier_quality[evidence.tiers.index(best)]
        sentences.append(
            f"The worst covered slice is {worst.name} with quality {with_interval(worst.quality)} "
            f"on {counted(worst.n, 'query')}; {best} alone has {alone:.3f} there.{_truly_worst(evidence)}"
        )
    return sentences + small_slices(evidence)


def _truly_worst(evidence: Evidence) -> str:
    """The interval that allows for the worst slice having been picked as the worst."""
    if len(evidence.slices) < 2 or not math.isfinite(evidence.worst.low):
        return ""
    low, high = evidence.worst.low, evidence.worst.high
    return f" Whichever slice is truly the worst has a quality in [{low:.3f}, {high:.3f}]."


def small_slices(evidence: Evidence) -> list[str]:
    """Which slices are too small to stand alone, and what judges them."""
    return merged_slices(evidence.uncovered, evidence.merged_into)


def merged_slices(counts: Mapping[str, int], merged_into: Mapping[str, str | None]) -> list[str]:
    """The same from queries per small slice, and the group that each was merged into."""
    by_group: dict[str | None, list[tuple[str, int]]] = {}
    for name, n in sorted(counts.items(), key=lambda item: -item[1]):
        by_group.setdefault(merged_into.get(name), []).append((name, n))
    sentences = []
    for group, members in by_group.items():
        fate = f"judged only together, as {group}" if group is not None else "and too small together"
        names = listed(f"{name} ({counted(n, 'query')})" for name, n in members)
        number, verb = counted(len(members), "slice"), "is" if len(members) == 1 else "are"
        sentences.append(f"{number} {verb} too small to judge alone, {fate}: {names}.")
    return sentences


def _among(some: list[SliceEvidence], covered: tuple[SliceEvidence, ...], extreme: str) -> str:
    if len(covered) == 1:
        return "the only covered slice"
    return f"{len(some)} of {len(covered)} covered slices" + (f", {extreme} first" if len(some) > 1 else "")


def _slice_list(slices: list[SliceEvidence], tier: str) -> str:
    return listed(f"{s.name} {signed_difference(s.versus[tier])} (n = {s.n:,})" for s in slices)


def listed(items: Iterable[str]) -> str:
    """Names with commas, the first few of many."""
    names = list(items)
    rest = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def counted(n: int, noun: str) -> str:
    """`1 query`, `1,200 queries`."""
    if n == 1:
        return f"1 {noun}"
    return f"{n:,} {noun[:-1]}ies" if noun.endswith("y") else f"{n:,} {noun}s"


def _latency(evidence: Evidence) -> list[str]:
    if "p95" not in evidence.latency_s:
        return []
    if not math.isfinite(evidence.latency_s["p95"]):
        return ["No request was answered."]
    others = [
        f"{_seconds(float(evidence.tier_latency_p95_s[evidence.tiers.index(tier)]))} for {name}"
        for tier, name in _rivals(evidence).items()
    ]
    return [f"95 % of its answers come within {_seconds(evidence.latency_s['p95'])}, against {' and '.join(others)}."]


def _latency_aside(record: RunRecord) -> str:
    """The Zero router's latency: under load its own; elsewhere it is not looked at, which is said where it matters."""
    theirs = record.evidence.zero_latency_p95_s
    if math.isfinite(theirs):
        limits = [
            c.text.rsplit(" ", 1)[1] for c in record.evidence.constraints if c.text.startswith("latency_p95_s <= ")
        ]
        over = next((f", over the ceiling of {limit} s" for limit in limits if theirs > float(limit)), "")
        return f"; its own p95 latency under this load is {_seconds(theirs)}{over}"
    aimed = any(c.startswith(("latency", "share_")) for c in record.front) and any(
        c.text.startswith(("latency", "share_")) for c in record.evidence.constraints
    )
    return "; its latency is not compared" if aimed else ""


def _seconds(value: float) -> str:
    return f"{value:,.0f} s" if value >= 1000 else f"{value:.3g} s"


def summary_rows(record: RunRecord) -> list[tuple[str, str]]:
    """Label and value of each row of the table that ends a run in the terminal."""
    evidence, tuned = record.evidence, record.chosen_tune
    rows = [
        ("chosen point", record.chosen_because),
        ("parameters", ", ".join(f"{name} = {parameter_value(v)}" for name, v in record.params.items())),
    ]
    for column in ("quality", "cost_usd", "latency_p95_s"):
        found = on_validation(evidence, column)
        if math.isfinite(found.mean):
            before, after = (
                column_value(column, tuned.get(column, math.nan)),
                with_interval(found, partial(column_value, column)),
            )
            rows.append((column_label(column), f"tune {before}, validate {after}"))
    shares = zip(evidence.tiers, evidence.tier_shares, strict=True)
    rows.append(("tier shares", ", ".join(f"{tier} {percent(float(share))}" for tier, share in shares)))
    if evidence.zero_difference is not None:
        gap = evidence.zero_difference
        rows.append(("against mixing at random", f"{gap.verdict}: {signed_difference(gap)}"))
    rows += router_row(evidence.router)
    rows += [(constraint_label(c), constraint_status(record, c)) for c in evidence.constraints]
    return rows
