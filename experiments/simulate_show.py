"""What `routefront simulate` prints for people."""

from __future__ import annotations

from typing import Any

from experiments.console import print_rows
from toolkit.report.simulation import SimulationReport
from toolkit.report.simulation_sentences import fidelity_rows, group_rows, load_rows, station_rows, tier_rows


def show_simulate(result: dict[str, Any]) -> None:
    """A table over loads, one over slices and tiers at the load nearest 1, and what they mean."""
    report: SimulationReport = result["_report"]
    header, rows = load_rows(report)
    print_rows(f"{report.policy} on {report.scenario}", rows, header)
    at = f"at load {report.main.load:g}"
    tables = {
        f"slices {at}": group_rows(report.main.by_slice, report.slo_s, "slice", brief=True),
        f"tiers {at}": tier_rows(report, brief=True),
        f"checks and fidelity {at}": fidelity_rows(report),
        "stations": station_rows(report),
    }
    for title, (names, cells) in tables.items():
        if cells:
            print_rows(title, cells, names)
    for sentence in result["sentences"]:
        print(f"- {sentence}")
    print(f"\nReport: {result['report']}\nWrote {result['output']}.")
