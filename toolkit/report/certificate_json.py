"""A certificate as JSON: plain types, stable keys, null where a figure is unknown."""

from __future__ import annotations

import math

from toolkit.certify.certificate import Certificate, Criterion
from toolkit.certify.labels import SliceLabels
from toolkit.report.certificate import CertificateReport
from toolkit.report.certificate_sentences import certificate_sentences
from toolkit.report.certificate_wording import aggregate_alone

SCHEMA_VERSION = 1


def evidence_json(report: CertificateReport) -> dict[str, object]:
    """Everything a program may want to decide on; costs per query in USD, latencies in seconds."""
    certificate = report.certificate
    plan = certificate.labels
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": certificate.verdict,
        "policy": report.policy,
        "baseline": report.baseline,
        "margin": plan.margin,
        "margin_given": plan.given,
        "alpha": plan.alpha,
        "power": plan.power,
        "n": certificate.n,
        "n_clusters": certificate.n_clusters,
        "attempt": report.attempt,
        "created": report.created,
        "source": report.source,
        "aggregate_alone": aggregate_alone(certificate),
        "criteria": [_criterion(c) for c in certificate.criteria],
        "labels": {"total_needed": plan.total, "slices": {s.name: _labels(s) for s in plan.slices}},
        **_figures(certificate),
        "merged": {
            name: {"n": certificate.counts[name], "judged_as": group} for name, group in certificate.merged.items()
        },
        "notes": list(report.notes),
        "sentences": certificate_sentences(report),
    }


def _criterion(criterion: Criterion) -> dict[str, object]:
    value = "value" if criterion.kind == "constraint" else "difference"
    return {
        "name": criterion.name,
        "kind": criterion.kind,
        "n": criterion.n,
        "policy": _finite(criterion.policy),
        "baseline": _finite(criterion.baseline),
        value: criterion.value.as_dict(),
        "loss_at_most": _finite(criterion.loss_at_most),
        "p_pass": criterion.p_pass,
        "p_fail": criterion.p_fail,
        "p_fail_holm": criterion.p_fail_holm,
        "verdict": criterion.verdict,
        "note": criterion.note,
    }


def _labels(labels: SliceLabels) -> dict[str, object]:
    return {
        "n": labels.n,
        "share": labels.share,
        "sd": _finite(labels.sd),
        "needed": labels.needed,
        "missing": labels.missing,
        "resolved": _finite(labels.resolved),
    }


def _figures(certificate: Certificate) -> dict[str, object]:
    latency = {
        c.name: {
            "policy": c.policy.as_dict(),
            "baseline": c.baseline.as_dict(),
            "difference": c.difference.as_dict(),
        }
        for c in certificate.latency
    }
    return {
        "quality": certificate.quality.as_dict(),
        "baseline_quality": certificate.baseline_quality.as_dict(),
        "cost_usd": certificate.cost_usd.as_dict(),
        "cost_difference_usd": certificate.cost_difference.as_dict(),
        "latency_s": latency,
        "latency_simulated": certificate.latency_simulated,
        "worst_slice": certificate.worst_slice.as_dict(),
        "baseline_worst_slice": certificate.baseline_worst_slice.as_dict(),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
