"""The comment block every exported file opens with: what it is, what it was tuned on, what it promises."""

from __future__ import annotations

from toolkit.export.schema import PolicyFile

MARK = "Written by routefront"


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
    missed = policy.evidence.get("constraints_missed")
    if isinstance(missed, list) and missed:
        lines.append(f"WARNING: on validation the policy misses {'; '.join(str(m) for m in missed)}.")
    return [" ".join(line.split()) for line in (*lines, *remarks)]
