"""What a certificate says, in plain English: the verdict first, then what a reviewer would ask next.

Losses are the baseline's quality minus the policy's. "Shown" means tested; what is not shown is never called equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from toolkit.certify.certificate import Certificate, Criterion, LatencyChange
from toolkit.certify.labels import SliceLabels, plan_labels
from toolkit.export.provenance import COARSE_MARGIN
from toolkit.report.certificate import CertificateReport
from toolkit.report.certificate_wording import (
    aggregate_alone,
    constraint_value,
    criterion_label,
    has_bound,
    loss_tolerated,
    margin_text,
    margins_text,
    number,
    of_kind,
    overall_of,
    p_value,
    rounded_up,
    whole_percent,
)
from toolkit.report.markup import UNKNOWN
from toolkit.report.sentences import counted, listed, merged_slices
from toolkit.report.wording import (
    bound_label,
    percent,
    signed_difference,
    usd_per_1000,
    with_interval,
)
from toolkit.statistics import Adjusted, MeanEstimate

FINE_MARGIN = 0.02


def certificate_sentences(report: CertificateReport) -> list[str]:
    """Everything a reviewer must know; the first is the verdict."""
    return [sentence for _, sentences in certificate_topics(report) for sentence in sentences]


def certificate_topics(report: CertificateReport) -> list[tuple[str, list[str]]]:
    """The sentences of `certificate_sentences` under a word each; topics without a sentence are left out."""
    certificate = report.certificate
    topics = [
        ("Verdict", [_verdict(report)]),
        ("Margin", _margin(certificate)),
        ("Over all queries", _aggregate(certificate)),
        ("Labels", _labels(certificate)),
        ("Tolerated", _tolerated(certificate)),
        ("Constraints", [_constraint(c, certificate) for c in certificate.criteria if c.kind == "constraint"]),
        ("Worst slice", [_worst_slice(certificate)]),
        ("Cost", [_cost(certificate)]),
        ("Latency", _latency(certificate)),
        ("Small slices", merged_slices(certificate.counts, certificate.merged)),
        ("Attempts", _attempts(report)),
        ("Data", [_data(report), *report.notes]),
    ]
    return [(topic, sentences) for topic, sentences in topics if sentences]


_UNKNOWN = Adjusted(centre=0.0, error=np.nan)


def _verdict(report: CertificateReport) -> str:
    certificate = report.certificate
    say = {"pass": _passed, "fail": _failed, "undecided": _undecided}[certificate.verdict]
    return f"{certificate.verdict.upper()} against {report.baseline}: {say(certificate)}."


def _passed(certificate: Certificate) -> str:
    labels = [criterion_label(c) for c in certificate.criteria if c.kind == "constraint"]
    held = f", and {listed(labels)} {'is' if len(labels) == 1 else 'are'} shown to hold" if labels else ""
    level = whole_percent(1 - certificate.labels.alpha)
    return f"{_ruled_out(certificate)} (one-sided {level}){held}{_unjudged(certificate)}"


def _unjudged(certificate: Certificate) -> str:
    """A pass says nothing about slices that nothing judges."""
    n = [certificate.counts[name] for name, group in certificate.merged.items() if group is None]
    if not n:
        return ""
    verb = "is" if len(n) == 1 else "are"
    share = percent(sum(n) / certificate.n)
    return f"; {counted(len(n), 'slice')} with {share} of the queries {verb} too small to be judged"


def _ruled_out(certificate: Certificate) -> str:
    slices = of_kind(certificate, "slice")
    where = f"each of {len(slices)} slices" if len(slices) > 1 else f"the only slice judged, {slices[0].name}"
    return f"a loss of {margins_text(certificate)} or more is ruled out over all queries and in {where}"


def _failed(certificate: Certificate) -> str:
    everywhere = all(c.verdict == "fail" for c in of_kind(certificate, "slice"))
    order = {"slice": 1, "constraint": 2, "overall": 0 if everywhere else 3}
    failed = [c for c in certificate.criteria if c.verdict == "fail"]
    first, *others = sorted(failed, key=lambda c: order[c.kind])
    shown = f"shown after correction for {len(certificate.criteria)} criteria ({p_value(first.p_fail_holm)})"
    also = f"; also shown: {listed(_short_shortfall(c) for c in others)}" if others else ""
    return f"{_shortfall(first)}, {shown}{also}"


def _shortfall(criterion: Criterion) -> str:
    if criterion.kind == "constraint":
        return f"{criterion_label(criterion)} is broken at {constraint_value(criterion)}"
    where = "" if criterion.kind == "slice" else " over all queries"
    who = criterion_label(criterion) if criterion.kind == "slice" else "it"
    low, high = (number(-v) for v in (criterion.value.high, criterion.value.low))
    return f"{who} loses {number(-criterion.value.mean)} of quality{where} (95 % interval {low} to {high})"


def _short_shortfall(criterion: Criterion) -> str:
    if criterion.kind == "constraint":
        return f"{criterion_label(criterion)} is broken"
    return f"{criterion_label(criterion)} loses {number(-criterion.value.mean)}"


def _undecided(certificate: Certificate) -> str:
    losses = [c for c in certificate.criteria if c.kind != "constraint" and c.verdict == "undecided"]
    bounds = [c for c in certificate.criteria if c.kind == "constraint" and c.verdict == "undecided"]
    if not losses and not bounds:
        return f"{_ruled_out(certificate)}{_unjudged(certificate)}, which is too much for a pass"
    if not losses:
        return f"{_ruled_out(certificate)}, but {_open_constraints(bounds)}"
    tolerated = any(loss_tolerated(c, certificate.labels.alpha) for c in certificate.criteria)
    shown = "no loss is shown that the margin does not tolerate" if tolerated else "no loss is shown"
    rest = f"; and {_open_constraints(bounds)}" if bounds else ""
    return f"{shown}, but {_open_losses(certificate)}{rest}"


def _open_constraints(bounds: Sequence[Criterion]) -> str:
    tested, untested = [c for c in bounds if not c.note], [c for c in bounds if c.note]
    parts = []
    if tested:
        verb = "is" if len(tested) == 1 else "are"
        parts.append(f"{listed(map(criterion_label, tested))} {verb} neither shown to hold nor shown to be broken")
    parts += [f"whether {criterion_label(c)} holds cannot be judged ({c.note})" for c in untested]
    return "; ".join(parts)


def _open_losses(certificate: Certificate) -> str:
    """What is not ruled out, and where."""
    plan = {s.name: s for s in certificate.labels.slices}
    slices = of_kind(certificate, "slice")
    still_open = sorted((c for c in slices if c.verdict == "undecided"), key=lambda c: -c.loss_at_most)
    overall = overall_of(certificate)
    places = []
    if overall.verdict == "undecided":
        places.append(f"over all queries ({_up_to(overall, certificate)})")
    if still_open:
        among = f"{len(still_open)} of {len(slices)} slices" if len(slices) > 1 else "the only slice judged"
        names = listed(f"{c.name} ({_up_to(c, certificate)}{_missing(c, plan[c.name])})" for c in still_open)
        places.append(f"in {among}: {names}")
    loss = f"a loss of {margin_text(certificate.labels)}" if certificate.labels.given else "a loss"
    return f"{loss} is not ruled out {' and '.join(places)}"


def _up_to(criterion: Criterion, certificate: Certificate) -> str:
    if not has_bound(criterion):
        return "a single session or prompt, so no bound"
    shown = f"up to {number(max(criterion.loss_at_most, criterion.margin), beyond=criterion.margin)}"
    return shown if certificate.labels.given else f"{shown}, held to {rounded_up(criterion.margin)}"


def _missing(criterion: Criterion, labels: SliceLabels) -> str:
    if labels.missing:
        return f"; {counted(labels.missing, 'more label')}"
    return "; planned labels at hand" if has_bound(criterion) else ""


def _margin(certificate: Certificate) -> list[str]:
    plan, margin = certificate.labels, margin_text(certificate.labels)
    if plan.given:
        return [f"The margin of {margin} was given: a loss shown to lie below it is tolerated."]
    weakest = max(plan.slices, key=lambda s: s.resolved)
    if weakest.resolved > 1:
        said = f"No margin was given, and slice {weakest.name} (n = {weakest.n:,}) can rule out no loss at all."
    else:
        said = (
            "No margin was given: each slice is held to the smallest loss that its own labels can rule out, all "
            f"of them with probability {whole_percent(plan.power)} if nothing is lost; at worst {margin}, in slice "
            f"{weakest.name} (n = {weakest.n:,})."
        )
    said += " Nobody said that some loss is fine, so any loss that is shown fails."
    if plan.margin <= COARSE_MARGIN:
        return [said]
    total = _rounded(_total_for(certificate, FINE_MARGIN))
    coarse = (
        f"That is coarse: margin={FINE_MARGIN} would take about {total} labelled queries in all at the present mix of "
        f"slices, against {certificate.n:,} here."
    )
    return [said, coarse]


def _total_for(certificate: Certificate, margin: float) -> int:
    """Queries needed in all for another margin, from the spread that was found."""
    plan = certificate.labels
    found = {
        s.name: MeanEstimate(
            mean=0.0, from_below=_UNKNOWN, from_above=_UNKNOWN, df=s.n / s.cluster_size - 1, n=s.n, sd=s.sd, reach=1.0
        )
        for s in plan.slices
    }
    return plan_labels(found, certificate.n, margin=margin, alpha=plan.alpha, power=plan.power).total


def _aggregate(certificate: Certificate) -> list[str]:
    alone, verdict = aggregate_alone(certificate), certificate.verdict
    if alone == verdict:
        return []
    word = {"pass": "passed", "fail": "failed", "undecided": "been undecided"}[alone]
    decisive = [c for c in certificate.criteria if c.verdict == verdict and c.kind != "overall"]
    aside = " and without its constraints" if any(c.kind == "constraint" for c in decisive) else ""
    said = f"Looked at over all queries only{aside}, it would have {word}"
    if alone == "fail":
        p, corrected = p_value(overall_of(certificate).p_fail), len(certificate.criteria)
        return [f"{said} ({p}), which does not stand after correction for {corrected} criteria."]
    names = {c.name for c in decisive if c.kind == "slice"}
    share = math.fsum(s.share for s in certificate.labels.slices if s.name in names)
    what = "what is open" if verdict == "undecided" else "the loss"
    verb = "hides" if verdict == "fail" and share < 0.5 else "lies"
    return [f"{said}: {what} {verb} in {percent(share)} of the traffic." if names else f"{said}."]


def _labels(certificate: Certificate) -> list[str]:
    """What it takes to decide what is open."""
    plan, sentences = certificate.labels, []
    labels = {s.name: s for s in plan.slices}
    still_open = [(c, labels[c.name]) for c in of_kind(certificate, "slice") if c.verdict == "undecided"]
    if not still_open:
        return []
    if certificate.verdict == "fail":
        sentences.append(f"Besides, {_open_losses(certificate)}.")
    lacking = [s for _, s in still_open if s.missing]
    if lacking:
        more = sum(s.missing for s in lacking)
        sentences.append(
            f"To rule out a loss of {margin_text(plan)} in every slice, with probability {whole_percent(plan.power)} "
            f"if nothing is lost, takes {plan.total:,} labelled queries in all at the present mix of slices "
            f"({certificate.n:,} are here), or {counted(more, 'more label')} placed in "
            f"{counted(len(lacking), 'slice')} alone."
        )
    if any(not s.missing and has_bound(c) for c, s in still_open):
        sentences.append(
            "Where the planned labels are at hand and a loss is still not ruled out, what is measured lies too close "
            "to the margin: the plan assumes that nothing is lost."
        )
    return sentences


def _tolerated(certificate: Certificate) -> list[str]:
    found = [c for c in certificate.criteria if loss_tolerated(c, certificate.labels.alpha)]
    if not found:
        return []
    names = listed(f"{criterion_label(c)} {number(-c.value.mean)} (at most {number(c.loss_at_most)})" for c in found)
    return [f"Losses that are shown but tolerated, because they lie below {margin_text(certificate.labels)}: {names}."]


def _constraint(criterion: Criterion, certificate: Certificate) -> str:
    label = criterion_label(criterion)
    if criterion.note:
        return f"The constraint {label} cannot be judged: {criterion.note}."
    value = constraint_value(criterion)
    if criterion.verdict == "pass":
        return f"The constraint {label} is shown to hold: {value}, {p_value(criterion.p_pass)}."
    if criterion.verdict == "fail":
        p = f"{p_value(criterion.p_fail_holm)} after correction for {len(certificate.criteria)} criteria"
        return f"The constraint {label} is shown to be broken: {value}, {p}."
    return f"The constraint {label} is neither shown to hold nor shown to be broken: {value}."


def _worst_slice(certificate: Certificate) -> str:
    slices = of_kind(certificate, "slice")
    ours, theirs = with_interval(certificate.worst_slice), with_interval(certificate.baseline_worst_slice)
    if len(slices) == 1:
        return f"The only slice judged, {slices[0].name}, has quality {ours}; the baseline has {theirs} there."
    picked = f" (95 % intervals, corrected for the worst of {len(slices)} having been picked)"
    lowest, its_lowest = min(slices, key=lambda c: c.policy), min(slices, key=lambda c: c.baseline)
    return (
        f"The policy's worst slice is {lowest.name} with quality {ours}, the baseline's is {its_lowest.name} with "
        f"{theirs}{picked if math.isfinite(certificate.worst_slice.low) else ''}."
    )


def _cost(certificate: Certificate) -> str:
    cost, change = certificate.cost_usd, certificate.cost_difference
    if not math.isfinite(cost.mean):
        return "Costs are unknown in this data, so nothing is said about them."
    ours = f"It costs {with_interval(cost, usd_per_1000)} per 1,000 queries"
    if change.low == change.high == 0:
        return f"{ours}, as the baseline does on every query."
    theirs = cost.mean - change.mean
    word = "less" if change.mean < 0 else "more"
    relative = f"{percent(abs(change.mean) / theirs)} {word}" if theirs > 0 else word
    doubt = "; the interval contains 0" if change.verdict == "no evidence" else ""
    return f"{ours}, {relative} than the baseline (difference {with_interval(change, usd_per_1000)}{doubt})."


def _latency(certificate: Certificate) -> list[str]:
    if not certificate.latency:
        return ["Not every answer in this data has a latency, so nothing is said about latencies."]
    why = (
        "simulated under load, where waits depend on each other, so without intervals"
        if certificate.latency_simulated
        else "95 % intervals of paired differences"
    )
    return [f"Latency against the baseline's ({why}): {'; '.join(_latency_change(c) for c in certificate.latency)}."]


def _latency_change(change: LatencyChange) -> str:
    gap = with_interval(change.difference, lambda v: f"{'-' if v < 0 else '+'}{_seconds(abs(v))}")
    return f"{change.name} {_seconds(change.policy.mean)} against {_seconds(change.baseline.mean)}, {gap}"


def _seconds(value: float) -> str:
    decimals = min(max(2 - math.floor(math.log10(value)), 0), 6) if value > 0 else 3
    return f"{value:,.{decimals}f} s"


def _attempts(report: CertificateReport) -> list[str]:
    if report.attempt <= 1:
        return []
    chance = report.false_pass_at_most
    return [
        f"This is attempt {report.attempt} to certify this policy against this baseline. Each further attempt, with "
        "other data, another margin, level or minimum of slices, is another chance to pass by luck: the chance of a "
        f"false pass in {report.attempt} attempts is at most {whole_percent(chance)}."
    ]


def _data(report: CertificateReport) -> str:
    certificate = report.certificate
    groups = ""
    if certificate.n_clusters < certificate.n:
        groups = (
            f" in {certificate.n_clusters:,} groups that are independent of each other (sessions, repeated prompts)"
        )
    return f"It rests on {counted(certificate.n, 'labelled query')}{groups}. {report.source}"


CERTIFICATE_COLUMNS = (
    "criterion",
    "n",
    "policy",
    "baseline",
    "difference [95 %]",
    "loss at most",
    "verdict",
    "labels missing",
)


def certificate_rows(report: CertificateReport) -> tuple[tuple[str, ...], list[list[str]]]:
    """Header and cells of the table of criteria; a dash where a criterion has no such figure."""
    certificate = report.certificate
    plan = {s.name: s for s in certificate.labels.slices}
    return CERTIFICATE_COLUMNS, [_row(c, certificate, plan) for c in certificate.criteria]


def _row(criterion: Criterion, certificate: Certificate, plan: dict[str, SliceLabels]) -> list[str]:
    word = (
        f"{criterion.verdict}, tolerated" if loss_tolerated(criterion, certificate.labels.alpha) else criterion.verdict
    )
    if criterion.kind == "constraint":
        value = UNKNOWN if criterion.note else constraint_value(criterion)
        return [bound_label(criterion.name), f"{criterion.n:,}", value, *(UNKNOWN,) * 3, word, UNKNOWN]
    is_open = criterion.kind == "slice" and criterion.verdict == "undecided"
    missing = f"{plan[criterion.name].missing:,}" if is_open else UNKNOWN
    figures = [f"{criterion.policy:.3f}", f"{criterion.baseline:.3f}", signed_difference(criterion.value)]
    return [criterion.name, f"{criterion.n:,}", *figures, number(criterion.loss_at_most), word, missing]


def _rounded(n: int) -> str:
    """Two significant digits: what is planned is not known better."""
    return f"{float(f'{n:.2g}'):,.0f}"
