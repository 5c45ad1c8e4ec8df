"""What a certificate is reported with."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.certify.certificate import Certificate


@dataclass(frozen=True, kw_only=True)
class CertificateReport:
    """A certificate and where it comes from.

    Attributes:
        certificate: What was shown.
        policy: Name of the certified policy: its run.
        baseline: What it was compared with, in words: `tier mistral-large`, `run runs/old`, `config litellm.yaml`.
        source: One line on the data.
        created: UTC time, ISO format.
        attempt: 1 for the first certification of this policy against this baseline.
        false_pass_at_most: Bound of the chance that any of these attempts passes though it should not.
        notes: Sentences on the data, such as how many queries were left out because the run had seen them.
    """

    certificate: Certificate
    policy: str
    baseline: str
    source: str
    created: str
    attempt: int = 1
    false_pass_at_most: float = 0.05
    notes: tuple[str, ...] = ()
