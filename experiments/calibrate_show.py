"""What `routefront calibrate` prints for people."""

from __future__ import annotations

from typing import Any

from experiments.console import print_rows

_FIGURES = (
    ("quality", "quality", "{:.3f}", 1.0),
    ("cost_usd", "USD / 1,000", "{:.4g}", 1000.0),
    ("latency_p50_s", "p50", "{:.3g} s", 1.0),
    ("latency_p95_s", "p95", "{:.3g} s", 1.0),
)


def show_calibrate(result: dict[str, Any]) -> None:
    """Recorded beside simulated per tier, then what to know, then where the files lie."""
    rows = [
        (row["tier"], *(_both(row[key], form, factor) for key, _, form, factor in _FIGURES)) for row in result["tiers"]
    ]
    print_rows("recorded → simulated", rows, ("tier", *(label for _, label, _, _ in _FIGURES)))
    for sentence in (*result["sentences"], *result["notes"]):
        print(f"- {sentence}")
    print(f"\nWrote {result['output']}; recorded against fitted: {result['report']}")


def _both(pair: dict[str, Any], form: str, factor: float) -> str:
    recorded = "unknown" if pair["recorded"] is None else form.format(factor * pair["recorded"])
    return f"{recorded} → {form.format(factor * pair['simulated'])}"
