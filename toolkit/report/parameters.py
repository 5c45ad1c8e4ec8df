"""What each parameter of a policy means, in words, and how far it may move."""

from __future__ import annotations

import re

from toolkit.policies.thresholds import UNREACHABLE
from toolkit.report.record import RunRecord
from toolkit.report.wording import column_label, column_value, parameter_value, usd_per_1000
from toolkit.search.sensitivity import Sensitivity

_THRESHOLD = re.compile(r"t_(\d+)(?:\[(.*)\])?")
_OTHERS = {
    "confidence_floor": "A query whose confidence is below this goes to the tier of the next line.",
    "token_simple": "LiteLLM counts a prompt with fewer estimated tokens as short.",
    "token_complex": "LiteLLM counts a prompt with more estimated tokens as long.",
    "reasoning_override_min_score": "From this score on, two reasoning keywords send a prompt to the top tier.",
}


def meaning(record: RunRecord, name: str) -> str:
    """One sentence on one parameter."""
    found = _THRESHOLD.fullmatch(name)
    if found is not None:
        where = "" if found[2] is None else f"For queries of slice {found[2]}: "
        return where + _threshold(record, int(found[1]), "" if found[2] is None else f"[{found[2]}]")
    if name == "eligibility_threshold":
        return _eligibility(record)
    if name == "low_confidence_tier":
        return f"Queries of low confidence go to {record.evidence.tiers[round(record.params[name])]}."
    if name == "tau":
        return "The quality that is requested of the trained policy; what it then gives is in the figures."
    if name.startswith("deploy_"):
        return f"Which of its candidate deployments {name.removeprefix('deploy_')} has; see What runs where."
    if record.policy == "utility":
        return _utility(record, name)
    return _OTHERS.get(name, "Weight of this signal in LiteLLM's score.")


def _eligibility(record: RunRecord) -> str:
    """What the threshold of the eligibility lane does."""
    found = record.evidence.eligibility
    better = "the lane's tier" if found is None else found.tier
    gain = "clearly" if found is None else f"by more than {found.margin:g}"
    return f"A query goes to {better}, whatever its score, if the chance that it answers {gain} better reaches this."


def _threshold(record: RunRecord, k: int, suffix: str) -> str:
    """What the boundary `t_k` between tiers k-1 and k does."""
    tiers, value = record.evidence.tiers, record.params[f"t_{k}{suffix}"]
    below = tiers[k - 1] if k == 1 else f"{tiers[k - 1]} or a tier before it"
    above = tiers[k] if k == len(tiers) - 1 else f"{tiers[k]} or a tier after it"
    if value >= UNREACHABLE:
        return f"No query goes to {above} by its score."
    if value <= -UNREACHABLE:
        return f"Every query goes to {above} by its score, none to {below}."
    before = f"t_{k - 1}{suffix}"
    equal = f" It equals {before}, so no score leads to {tiers[k - 1]}." if record.params.get(before) == value else ""
    return f"Queries that score this or more go to {above}, the others to {below}.{equal}"


def _utility(record: RunRecord, name: str) -> str:
    """What `lambda` or the offset `b_k` does."""
    value, tiers = record.params[name], record.evidence.tiers
    if name == "lambda":
        if value <= 0:
            return "Quality per USD: cost does not count, each query goes to the tier of highest predicted quality."
        worth = usd_per_1000(0.01 / value)
        return f"Quality per USD: 0.01 of predicted quality is worth {worth} per 1,000 queries."
    k = list(record.params).index(name)
    return f"Added to the predicted quality of {tiers[k]} before tiers are compared." if 0 < k < len(tiers) else ""


def flat_range(s: Sensitivity | None) -> str:
    """The range in which nothing gets worse than the tolerance; `≤` and `≥` where it may be wider."""
    if s is None:
        return ""
    low = ("≤ " if s.at_edge_low and -UNREACHABLE < s.low < s.value else "") + parameter_value(s.low)
    high = ("≥ " if s.at_edge_high and UNREACHABLE > s.high > s.value else "") + parameter_value(s.high)
    return f"{low} … {high}"


def step_change(s: Sensitivity | None, *, up: bool) -> str:
    """Change of each objective for one step, one per line."""
    changes = {} if s is None else (s.up if up else s.down)
    return "\n".join(_signed(name, value) for name, value in changes.items())


def _signed(name: str, value: float) -> str:
    sign = "+" if value > 0 else "−" if value < 0 else "±"
    return f"{sign}{column_value(name, abs(value), decimals=4)} {column_label(name)}"
