"""The comment block every exported file opens with: what it is, what it was tuned on, what it promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.export.schema import PolicyFile

MARK = "Written by routefront"
COARSE_MARGIN = 0.05
"""A pass without a given margin says little where some slice can resolve no less than this."""


def provenance_lines(policy: PolicyFile, remarks: tuple[str, ...] = ()) -> list[str]:
    """Lines without comment signs."""
    made = policy.provenance
    lines = [
        f"{MARK} {made.routefront_version}, {made.created}. Edit the source, not this file.",
        f"Data: {made.source} (hash {policy.data_hash[:16]}), seed {made.seed}, commit {made.git_commit or 'unknown'}.",
        f"Scorer: {policy.scorer.get('kind')}. Chosen: {policy.chosen_because}.",
    ]
    validate = policy.metrics.get("validate")
    if isinstance(validate, dict):
        figures = validate["policy"]
        parts = [f"quality {figures['quality']:.4f}"]
        if "cost_usd" in figures:
            parts.append(f"cost {1000 * figures['cost_usd']:.4g} USD per 1,000 queries")
        if "latency_s" in figures:
            parts.append(f"p95 {figures['latency_s']['p95']:.3g} s")
        shares = ", ".join(f"{tier} {share:.1%}" for tier, share in figures["tier_shares"].items())
        lines += [
            f"Validation ({validate['n']} queries not tuned on): {', '.join(parts)}.",
            f"Traffic there: {shares}.",
        ]
    verdict = policy.evidence.get("zero_router_verdict")
    if verdict:
        lines.append(f"Against mixing tiers at random at equal cost: {verdict}.")
    lines.append(certificate_line(policy))
    missed = policy.evidence.get("constraints_missed")
    if isinstance(missed, list) and missed:
        lines.append(f"WARNING: on validation the policy misses {'; '.join(str(m) for m in missed)}.")
    return [" ".join(line.split()) for line in (*lines, *remarks)]


def certificate_summary(evidence: Mapping[str, Any] | None) -> dict[str, object] | None:
    """What an exported policy carries of its `evidence.json`; None for a policy that nobody certified."""
    if evidence is None:
        return None
    kept = ("verdict", "baseline", "margin", "margin_given", "alpha", "n", "attempt", "created", "source", "data_hash")
    found: dict[str, object] = {name: evidence.get(name) for name in kept}
    found["sentence"] = next(iter(evidence.get("sentences") or []), None)
    found["earlier"] = [
        f"{e.get('verdict')} against {e.get('baseline')} (margin {e.get('margin'):.3g}, {e.get('n')} queries)"
        for e in evidence.get("earlier") or []
        if e.get("verdict") != "pass" and isinstance(e.get("margin"), int | float)
    ]
    return found


def certificate_line(policy: PolicyFile) -> str:
    """One line on the verdict; a warning unless it is a pass."""
    found = policy.evidence.get("certificate")
    if not isinstance(found, dict):
        return "WARNING: not certified: nobody has tested it against a baseline on unseen data."
    where = (
        f"against {found['baseline']} on {found['n']} unseen queries, margin {found['margin']:.3g}"
        f"{'' if found['margin_given'] else ' (the smallest that the data resolves)'}, {found['created']}"
    )
    said = f" {found['sentence']}" if found.get("sentence") else ""
    before = found.get("earlier") or []
    said += f" EARLIER certifications of this policy that did not pass: {'; '.join(before)}." if before else ""
    if found["verdict"] == "pass":
        coarse = not found["margin_given"] and float(found["margin"]) > COARSE_MARGIN
        return f"{'WARNING: coarse: ' if coarse else 'Certified: '}pass {where}.{said}"
    word = "FAILED its certification" if found["verdict"] == "fail" else "undecided"
    return f"WARNING: {word} {where}.{said}"
