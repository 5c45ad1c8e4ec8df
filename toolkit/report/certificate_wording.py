"""Words and numbers of a certificate that its sentences, table, figure and JSON share."""

from __future__ import annotations

import math

import numpy as np

from toolkit.certify.certificate import Certificate, Criterion, Verdict
from toolkit.certify.labels import LabelPlan
from toolkit.report.wording import bound_label, column_value, with_interval


def aggregate_alone(certificate: Certificate) -> Verdict:
    """What the mean over all queries would have said by itself: no slices, no constraints, nothing to correct for."""
    overall, plan = overall_of(certificate), certificate.labels
    loses = overall.p_fail <= plan.alpha
    if overall.p_pass <= plan.alpha and (plan.given or not loses):
        return "pass"
    return "fail" if loses else "undecided"


def loss_tolerated(criterion: Criterion, alpha: float) -> bool:
    """Whether a loss is shown, and shown to lie below the margin."""
    return criterion.kind != "constraint" and criterion.verdict == "pass" and criterion.p_fail_holm <= alpha


def criterion_label(criterion: Criterion) -> str:
    """`all queries`, `slice code` or `quality >= 0.9`."""
    if criterion.kind == "constraint":
        return bound_label(criterion.name)
    return criterion.name if criterion.kind == "overall" else f"slice {criterion.name}"


def has_bound(criterion: Criterion) -> bool:
    """Whether there is an interval: a single cluster of queries leaves none."""
    return math.isfinite(criterion.value.low)


def overall_of(certificate: Certificate) -> Criterion:
    """The criterion over all queries."""
    return next(c for c in certificate.criteria if c.kind == "overall")


def margin_text(plan: LabelPlan) -> str:
    """The margin as it was given, or the largest one, rounded up: nobody is promised more than was shown."""
    return f"{plan.margin:g}" if plan.given else rounded_up(plan.margin)


def rounded_up(margin: float) -> str:
    """Three decimals, more for what is smaller."""
    decimals = max(3, 1 - math.floor(math.log10(margin)))
    return f"{math.ceil(round(margin * 10**decimals, 6)) / 10**decimals:.{decimals}f}"


def margins_text(certificate: Certificate) -> str:
    """`0.02`, or the range of what each slice can resolve: `0.031 to 0.106, as far as the labels of each reach,`."""
    plan = certificate.labels
    margins = [c.margin for c in certificate.criteria if c.kind != "constraint"]
    if plan.given or len(set(margins)) == 1:
        return margin_text(plan)
    return f"{rounded_up(min(margins))} to {rounded_up(max(margins))}, as far as the labels of each reach,"


def constraint_value(criterion: Criterion) -> str:
    """The constrained figure with its unit and interval."""
    column = criterion.name.rsplit(" ", 2)[0]
    return with_interval(criterion.value, lambda v: column_value(column, v))


def of_kind(certificate: Certificate, kind: str) -> list[Criterion]:
    """Criteria of one kind, in their order."""
    return [c for c in certificate.criteria if c.kind == kind]


def number(value: float, *, beyond: float = 0.0) -> str:
    """Three decimals, more where they would hide on which side of `beyond` the value lies."""
    decimals = 3
    while decimals < 8 and np.sign(round(value, decimals) - beyond) != np.sign(value - beyond):
        decimals += 1
    return f"{value + 0.0:.{decimals}f}"


def p_value(p: float) -> str:
    """`p = 0.012`, `p < 0.0001`."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def whole_percent(fraction: float) -> str:
    """A chosen level: `95 %`, `97.5 %`."""
    return f"{100 * fraction:.4g} %"
