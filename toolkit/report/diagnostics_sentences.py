"""What the diagnostics of a score and the split of the gap say, in plain English."""

from __future__ import annotations

import math

from toolkit.certify.diagnostics import BestGain, Diagnostics, Signal, StepDiagnostics
from toolkit.certify.gap import CLASS, CLASS_AND_SEARCH, GENERALISATION, PUBLISHED_NOISE, SCORE, SEARCH, Gap
from toolkit.certify.reliability import Reliability
from toolkit.report.wording import column_label, percent, signed_difference, with_interval

WORTH_SAYING = 0.05
"""A share of the queries with one score from which on it is said."""
_FEW_SCORES = 12
_NOTHING = 1e-9
_STRENGTHS = ((0.1, "very weak"), (0.2, "weak"), (0.3, "moderate"), (math.inf, "strong"))


def score_sentences(found: Diagnostics) -> list[str]:
    """Everything to know of the score, the most important first."""
    ranking = _ranking(found.main, found.margin)
    return [gain_sentence(found), *_signal(found.signal), ranking, *_calibration(found.main)]


def score_headline(found: Diagnostics | None) -> list[str]:
    """The one or two sentences for a terminal."""
    return [] if found is None else [gain_sentence(found), *_signal(found.signal)]


def gain_sentence(found: Diagnostics) -> str:
    """Whether any policy on this score beats not looking at prompts."""
    gain = found.gain
    kind = "threshold" if gain.policy == "thresholds" else "utility"
    over = "mixing tiers at random at equal cost" if gain.over == "zero router" else "the best single tier"
    if gain.validate.verdict == "gain":
        shown = signed_difference(gain.validate)
        return f"The best {kind} on this score beats {over}: {shown} in quality{_perfect(gain)}."
    if gain.tune <= _NOTHING:
        what = "already on the tune split the best it does is one tier or a mixture"
    elif gain.validate.low == gain.validate.high == 0:
        what = f"best +{gain.tune:.3f} on the tune split, and the same as one tier on every validation query"
    else:
        what = f"best {signed_difference(gain.validate)}"
    if found.cheapest_is_best:
        return (
            f"No {kind} can be shown to help: {_cheapest(found)} is also the best single tier, and the score does not "
            f"find the exceptions ({what}){_perfect(gain)}."
        )
    if gain.validate.verdict == "loss":
        return f"The best {kind} of the tune split loses to {over} on validation: {what}{_perfect(gain)}."
    return f"No {kind} on this score is shown to beat {over}: {what}{_perfect(gain)}."


def _cheapest(found: Diagnostics) -> str:
    word = "cheapest" if found.gain.over == "zero router" else "first"
    return f"the {word} tier, {found.tiers[0]},"


def _perfect(gain: BestGain) -> str:
    """What a perfect score could do; at the same cost unless nothing dearer is affordable there."""
    if gain.over == "zero router" and gain.oracle > 5e-4:
        return f"; a perfect score could add +{gain.oracle:.3f} at that cost"
    where = " over the best single tier, at a higher cost" if gain.over == "zero router" else ""
    return f"; a perfect score could add +{gain.oracle_at_any_cost:.3f}{where}"


def _signal(signal: Signal) -> list[str]:
    sentences = []
    if signal.missing_share > 0:
        sentences.append(
            f"{percent(signal.missing_share)} of the queries have no usable score: no boundary moves them."
        )
    if signal.common_share >= WORTH_SAYING:
        sentences.append(
            f"{percent(signal.common_share)} of the queries share one score ({signal.common_score:.6g}): no boundary "
            f"can tell them apart. There are {signal.n_distinct:,} distinct scores on {signal.n:,} queries."
        )
    elif 0 < signal.n_distinct <= _FEW_SCORES:
        sentences.append(
            f"The score takes {signal.n_distinct:,} values only, so there are few boundaries to choose from."
        )
    return sentences


def _ranking(step: StepDiagnostics, margin: float) -> str:
    if step.reason:
        return f"Nothing to rank from {step.low} to {step.high}: {step.reason}."
    about = (
        f"where {step.high} answers better than {step.low} (by more than {margin:g}: {percent(step.better)} of queries)"
    )
    shown = f"AUC {with_interval(step.auc)}, a coin has 0.5"
    strength = next(word for limit, word in _STRENGTHS if abs(step.auc.mean - 0.5) < limit)
    if step.auc.low > 0.5:
        return f"The score is a {strength} guide to {about}: {shown}."
    if step.auc.high < 0.5:
        return f"The score points the wrong way ({strength}) on {about}: {shown}."
    return f"No evidence that the score is a guide to {about}: {shown}."


def better_calibration(step: StepDiagnostics) -> Reliability | None:
    """The calibration of the two with the lower Brier score."""
    return min(step.calibration, key=lambda c: c.brier, default=None)


def _calibration(step: StepDiagnostics) -> list[str]:
    best = better_calibration(step)
    if best is None:
        return []
    off = f"off by {best.ece:.3f} on average (ECE; right probabilities would be by {best.ece_by_chance:.3f})"
    shown = (
        f"Brier score {best.brier:.3f} against {best.brier_base_rate:.3f}, gain {signed_difference(best.brier_gain)}"
    )
    verdict = "better" if best.brier_gain.verdict == "gain" else "not shown to be better"
    return [
        f"As a probability that {step.high} is better ({best.method} calibration) the score is {off} and {verdict} "
        f"than the base rate alone: {shown}."
    ]


_CAUSE = {
    SCORE: "The score is the bottleneck, not the thresholds",
    CLASS: "The form of the policy is the bottleneck",
    SEARCH: "What the search left on the table is the largest part",
    GENERALISATION: "The amount of data is the bottleneck",
    CLASS_AND_SEARCH: "The form of the policy and the search are the bottleneck",
}
_REMEDY = {
    SCORE: "no rule on this score recovers it",
    CLASS: "a freer rule on the same score could have it",
    SEARCH: "more evaluations or controller=exact may find it",
    GENERALISATION: "what was best on the tune split is not best on the validation split",
    CLASS_AND_SEARCH: "a freer rule on the same score, or more evaluations, may find it",
}


def gap_sentences(gap: Gap | None) -> list[str]:
    """The bottleneck, and how much of the gap may be noise of the labels."""
    if gap is None:
        return []
    if gap.total <= _NOTHING:
        where = " at its cost" if math.isfinite(gap.cost_usd) else ""
        return [f"On the validation split nothing separates the policy from the oracle{where}."]
    largest = max(gap.components, key=lambda name: gap.components[name])
    between = "the oracle at equal cost" if math.isfinite(gap.cost_usd) else "the oracle (costs are unknown)"
    remedy = _REMEDY[largest]
    cause = _CAUSE[largest]
    if largest == SEARCH and gap.other_aims:
        aims = " and ".join(column_label(column) for column in gap.other_aims)
        cause, remedy = f"The price of {aims}, and what the search missed, is the largest part", "not split further"
    if gap.form == "target" and largest == SCORE:
        cause, remedy = "What is known of a query beforehand is the bottleneck", "no rule on the score recovers it"
    if gap.form == "utility" and largest == SCORE:
        cause, remedy = "The predictions are the bottleneck, not the utility", "no rule on them recovers it"
    part = f"{_quality(gap.components[largest])} of the {_quality(gap.total)}"
    return [f"{cause}: {part} in quality between the policy and {between}; {remedy}.", _noise(gap)]


def _noise(gap: Gap) -> str:
    noise = gap.noise
    if noise.drop is None:
        low, high = PUBLISHED_NOISE
        return (
            f"Part of that is the luck of single answers, which no score can see: {100 * low:.0f} to {100 * high:.0f} %"
            f" in published repeats, here {_quality(noise.low)} to {_quality(noise.high)}; data.repeats=FILE measures "
            "it."
        )
    missing = f" ({noise.n_without:,} others have none)" if noise.n_without else ""
    return (
        f"At most {signed_difference(noise.drop)} of that is the luck of single answers, which no score can see: what "
        f"the oracle loses on a second answer to {noise.n:,} queries{missing}."
    )


def _quality(value: float) -> str:
    return f"{value:.3f}" if abs(value) >= 5e-4 or value == 0 else f"{value:.2g}"
