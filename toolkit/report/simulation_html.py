"""One self-contained page on one simulation: no script, no external resource, figures embedded as PNG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from toolkit.report.figures import png_bytes
from toolkit.report.html import page_html
from toolkit.report.markup import Row, definitions_html, escaped, image_html, table_html
from toolkit.report.simulation import SimulationReport
from toolkit.report.simulation_figures import (
    ends_figure,
    latency_figure,
    quality_figure,
    timeline_figure,
    utilisation_figure,
)
from toolkit.report.simulation_sentences import (
    fidelity_rows,
    group_rows,
    load_rows,
    seconds,
    simulation_sentences,
    station_rows,
    tier_rows,
)

_READING = (
    "Latency runs from a request's arrival to its whole answer, time to first token to the first visible one; both "
    "are those of answered requests, waits, retries and fallbacks included. A failed request has quality 0 and misses "
    "the limit.",
    "Cost is what all attempts were billed, with second stages, the router and the capacity that is paid by the hour, "
    "in equal parts over the interactive requests.",
    "A request belongs to the tier it was sent to first. Batch queries wait for nothing and take no part in latencies; "
    "their own row counts the hours they lie at the provider.",
    "Waits depend on the waits before them, so no interval here treats requests as independent.",
)
_UNDISTURBED = "Every request was answered by the tier it was sent to, at every load."
_OVER_LOADS: Mapping[str, tuple[Callable[[SimulationReport], Figure], str]] = {
    "latency": (latency_figure, "Latency quantiles against the load"),
    "quality": (quality_figure, "Quality and cost against the load"),
    "utilisation": (utilisation_figure, "Share of the slots in use against the load"),
}
_ALWAYS: Mapping[str, tuple[Callable[[SimulationReport], Figure], str]] = {
    "timeline": (timeline_figure, "Arrivals, p95 latency and failures over time"),
    "ends": (ends_figure, "How requests ended, by load"),
}


def draw_simulation(report: SimulationReport) -> dict[str, bytes]:
    """The page's figures as PNG, by name; those over loads where there are several."""
    chosen = {**_OVER_LOADS, **_ALWAYS} if len(report.loads) > 1 else dict(_ALWAYS)
    if not any(station.slots is not None for station in report.loads[0].stations):
        chosen.pop("utilisation", None)
    if all(found.undisturbed for found in report.loads):
        chosen.pop("ends")
    return {name: png_bytes(draw(report)) for name, (draw, _) in chosen.items()}


def render_simulation(report: SimulationReport, pictures: Mapping[str, bytes]) -> str:
    """The whole page, with the pictures that `draw_simulation` drew inside."""
    main = report.main
    title = f"{report.scenario} under load"
    lead = f"{report.policy}. {report.replications} replications of {seconds(report.duration_s)} of traffic."
    slices = group_rows(main.by_slice, report.slo_s, "slice")
    fidelity = fidelity_rows(report)
    classes = group_rows(main.by_class, report.slo_s, "class")
    body = [
        f"<h1>{escaped(title)}</h1>",
        f'<p class="soft">{escaped(lead)}</p>',
        f'<section class="verdict">{definitions_html([("In short", simulation_sentences(report))])}</section>',
        "<h2>By load</h2>",
        *_pictures(pictures, ("latency", "quality")),
        _table(*load_rows(report)),
        "<h2>Where requests end</h2>",
        *(_pictures(pictures, ("ends",)) or [f"<p>{escaped(_UNDISTURBED)}</p>"]),
        f"<h2>Over time, at load {main.load:g}</h2>",
        *_pictures(pictures, ("timeline",)),
        "<h2>Stations</h2>",
        *_pictures(pictures, ("utilisation",)),
        _table(*station_rows(report)),
        f"<h2>Tiers, at load {main.load:g}</h2>",
        _table(*tier_rows(report)),
        *([f"<h2>Checks and fidelity, at load {main.load:g}</h2>", _table(*fidelity)] if fidelity[1] else []),
        f"<h2>Slices, at load {main.load:g}</h2>",
        _table(*slices),
        *([f"<h2>Classes, at load {main.load:g}</h2>", _table(*classes)] if len(main.by_class) > 1 else []),
        "<h2>How this came about</h2>",
        definitions_html(_provenance(report)),
    ]
    return page_html(title, body)


def _pictures(pictures: Mapping[str, bytes], names: Sequence[str]) -> list[str]:
    said = {**_OVER_LOADS, **_ALWAYS}
    return [image_html(pictures[name], said[name][1]) for name in names if name in pictures]


def _table(header: Sequence[str], rows: Sequence[Row]) -> str:
    return table_html(header, rows)


def _provenance(report: SimulationReport) -> list[tuple[str, Sequence[str]]]:
    return [
        ("Scenario", [report.scenario]),
        ("Policy", [report.policy]),
        ("Traffic", [f"{report.duration_s:g} s, the first {report.warmup_s:g} s of which are not counted"]),
        ("Replications", [f"{report.replications}, {report.n_queries:,} queries each, seed {report.seed}"]),
        ("Time taken", [f"{report.seconds:.3g} s"]),
        ("How to read", _READING),
    ]
