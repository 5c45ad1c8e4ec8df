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
        attempt: 1 for the first certification of this policy.
        notes: Sentences on the data, such as how many queries were left out because the run had seen them.
    """

    certificate: Certificate
    policy: str
    baseline: str
    source: str
    created: str
    attempt: int = 1
    notes: tuple[str, ...] = ()
