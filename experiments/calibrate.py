"""`routefront calibrate`: recordings, traces and latency measurements become a scenario that composes and runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.calibrate_check import distances, draw_check, slice_rows, tier_rows
from experiments.calibrate_data import Recorded, read_recorded
from experiments.calibrate_fit import slice_node, tier_node
from experiments.calibrate_settings import CalibrateSettings
from experiments.calibrate_times import Missing, TierTimes, tier_times
from experiments.calibrate_traffic import Traffic, fit_traffic, open_trace, written_path
from experiments.calibrate_yaml import Node, Sourced, plain, render, sourced
from experiments.console import busy, say
from experiments.files import checked_output, write_json, write_text
from simulators.calibration_distance import compare
from simulators.calibration_quality import ShiftedQuality, fit_shifted_quality
from simulators.errors import ConfigError
from simulators.outcomes import OutcomeTable
from simulators.scenario import ScenarioSpec, parse_scenario
from simulators.traces import Trace
from toolkit.report.calibration import CalibrationReport, calibration_sentences, distance_dict, render_calibration

_HEADER = """\
# routefront tune scenario={file}
#
# Written by `routefront calibrate`: every number has its source beside it. {html} shows the recording against the fit.
# Fitted to: {sources}.
{notes}
"""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Everything that a run of the command finds before it writes.

    Attributes:
        recorded: What was fitted to.
        quality: The quality fit.
        times: Times of each tier.
        traffic: The traffic section.
        document: The scenario with sources.
        spec: The scenario, validated.
    """

    recorded: Recorded
    quality: ShiftedQuality
    times: list[TierTimes]
    traffic: Traffic
    document: dict[str, Node]
    spec: ScenarioSpec
    notes: tuple[str, ...]


def run_calibrate(settings: CalibrateSettings, *, quiet: bool = False) -> dict[str, Any]:
    """Fit, check and write `output`, with the same stem as .html and .json; returns what the JSON holds.

    Raises:
        InputDataError: If a file cannot be used.
        ConfigError: If the data do not hold what a scenario needs, in one line that names all of it.
    """
    output = _checked(settings)
    with busy("fitting", quiet=quiet):
        found = fit_scenario(settings, output)
        drawn = draw_check(found.spec, found.recorded, settings)
        report = make_report(found, drawn, settings)
    pages = {".html": render_calibration(report), ".json": "", output.suffix: _yaml(found, settings, output)}
    replaced = [str(output.with_suffix(suffix)) for suffix in pages if output.with_suffix(suffix).exists()]
    result = _result(report, output)
    write_text(output.with_suffix(".html"), pages[".html"])
    write_json(output.with_suffix(".json"), result)
    write_text(output, pages[output.suffix])
    if replaced:
        say(f"{', '.join(replaced)} existed and {'was' if len(replaced) == 1 else 'were'} replaced.", quiet=quiet)
    return result


def _checked(settings: CalibrateSettings) -> Path:
    data = settings.data
    inputs = [data.queries, data.outcomes, data.prices, settings.traces, settings.latency]
    output = checked_output(settings.output, inputs)
    if output.suffix not in {".yaml", ".yml"}:
        raise ConfigError(f"output={output} should end in .yaml; the report goes beside it as .html and .json")
    for suffix in (".html", ".json"):
        checked_output(str(output.with_suffix(suffix)), inputs)
    return output


def fit_scenario(settings: CalibrateSettings, output: Path) -> Fitted:
    """The scenario that the files hold, validated.

    Raises:
        InputDataError: If a file cannot be used.
        ConfigError: If the data do not hold what a scenario needs.
    """
    trace = open_trace(settings)
    recorded = read_recorded(settings)
    missing = Missing()
    times, time_notes = tier_times(recorded, settings, missing)
    quality = fit_shifted_quality(recorded.table)
    traffic = fit_traffic(trace, recorded, times, settings, output)
    document = _document(recorded, quality, times, traffic, trace, settings, output, missing)
    missing.check()
    spec = parse_scenario(_resolved(plain(document), output.resolve().parent))
    notes = (*recorded.notes, *time_notes, *traffic.notes)
    if settings.lengths == "trace":
        notes += ("Lengths are the trace's, so costs and times are not those of the recording.",)
    return Fitted(
        recorded=recorded, quality=quality, times=times, traffic=traffic, document=document, spec=spec, notes=notes
    )


def _document(
    recorded: Recorded,
    quality: ShiftedQuality,
    times: list[TierTimes],
    traffic: Traffic,
    trace: Trace | None,
    settings: CalibrateSettings,
    output: Path,
    missing: Missing,
) -> dict[str, Node]:
    table, fit = recorded.table, quality.fit
    path = "" if settings.traces is None else written_path(settings.traces, output)
    joint = f"{recorded.source}, moments of all slices and tiers: "
    document: dict[str, Node] = {
        "name": _name(settings.name or output.stem),
        "difficulty_sd": sourced(
            fit.difficulty_sd,
            f"{joint}within-slice covariance between tiers, s.e. {fit.difficulty_sd_se:.1g}, n {table.n_queries:,}",
            3,
        ),
        "quality_precision": sourced(fit.quality_precision, f"{joint}residual variance, n {table.n_queries:,}", 3),
        "classifier_agreement": Sourced(
            settings.assume.classifier_agreement, "assumption (assume.classifier_agreement): no recording holds it"
        ),
        "tiers": {
            tier: tier_node(recorded, quality, k, settings, times[k], missing) for k, tier in enumerate(table.tiers)
        },
        "slices": {
            name: slice_node(recorded, quality, s, settings, trace, missing, path)
            for s, name in enumerate(table.slices)
        },
    }
    if traffic.node is not None:
        document["traffic"] = traffic.node
    return document


def _name(text: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in text).strip("-_.") or "calibrated"


def _resolved(document: dict[str, object], folder: Path) -> dict[str, object]:
    """The document with the paths in it seen from the working directory."""
    from experiments.scenario_file import with_absolute_paths

    return with_absolute_paths(document, folder)


def make_report(found: Fitted, drawn: OutcomeTable, settings: CalibrateSettings) -> CalibrationReport:
    """What the page and the JSON say."""
    recorded, quality = found.recorded, found.quality
    groups = distances(recorded, drawn, found.times, settings)
    if found.traffic.gap_s is not None:
        groups["gaps between arrivals"] = [compare("all requests", "s", *found.traffic.gap_s)]
    measured = {
        recorded.models[k]: {
            "n": len(t.measured.ttft_s),
            "failed": t.measured.n_failed,
            "rate_limited": t.measured.n_limited,
            "unusable": t.measured.n_unusable,
            "error_rate": t.measured.error_rate,
            "concurrency": None if np.isnan(t.measured.concurrency) else t.measured.concurrency,
        }
        for k, t in enumerate(found.times)
        if t.measured is not None
    }
    rows = slice_rows(recorded.table, quality.fit.mean_quality, quality.additive, quality.z)
    return CalibrationReport(
        name=str(found.document["name"]),
        sources=_sources(settings),
        n_queries=recorded.table.n_queries,
        n_drawn=drawn.n_queries,
        tiers=tuple(tier_rows(recorded.table, drawn)),
        slices=tuple(rows),
        critical_z=quality.critical,
        distances={name: tuple(part) for name, part in groups.items()},
        latency_file=measured,
        trace=found.traffic.figures,
        lognormal=settings.lengths == "recorded",
        notes=found.notes,
        assumptions=tuple(_assumptions(found.document)),
    )


def _sources(settings: CalibrateSettings) -> tuple[str, ...]:
    data = settings.data
    files = (data.queries, data.outcomes, data.prices, settings.latency, settings.traces)
    return tuple(Path(name).name for name in files if name)


def _assumptions(node: Mapping[str, Node], path: str = "") -> list[str]:
    """Where the document rests on something that no file holds."""
    found = []
    for key, value in node.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            found += _assumptions(value, here)
        elif isinstance(value, Sourced) and value.source.startswith("assumption"):
            found.append(f"{here}: {value.value} – {value.source}")
    return found


def _yaml(found: Fitted, settings: CalibrateSettings, output: Path) -> str:
    header = _HEADER.format(
        file=output.name,
        html=output.with_suffix(".html").name,
        sources=", ".join(_sources(settings)),
        notes="\n".join(f"# {' '.join(note.split())}" for note in found.notes),
    )
    return header + "\n".join(render(found.document)) + "\n"


def _result(report: CalibrationReport, output: Path) -> dict[str, Any]:
    found = dataclasses.asdict(dataclasses.replace(report, distances={}))
    found["distances"] = {name: [distance_dict(d) for d in part] for name, part in report.distances.items()}
    sentences = list(calibration_sentences(report))
    return {"output": str(output), "report": str(output.with_suffix(".html")), **found, "sentences": sentences}
