"""What `routefront calibrate` reports: a record, sentences, and one self-contained page.

Names of tiers and slices are user data: every text goes through `escaped`, and only there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulators.calibration_distance import BAD_ERROR, BAD_P, Distance
from toolkit.report.calibration_figures import MOST_PANELS, quality_figure, quantile_figure
from toolkit.report.figures import png_bytes
from toolkit.report.markup import UNKNOWN, Cell, Row, escaped, image_html, table_html
from toolkit.report.wording import percent, usd_per_1000

_STYLE = """
:root { color-scheme: light; --ink: #1d2327; --soft: #5b6670; --line: #d9dee3; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: #fff;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
p, li { margin: .3rem 0 .6rem; max-width: 54rem; overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: .92rem; }
.verdict { background: #f3f7fa; border-left: 4px solid #0072b2; border-radius: 3px; padding: .5rem 1.2rem;
  margin: 1.2rem 0; }
.wide { overflow-x: auto; margin: .5rem 0 1rem; }
img { display: block; width: 100%; max-width: 52rem; height: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .8rem .32rem .4rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; vertical-align: bottom; }
tbody th { font-weight: 600; min-width: 11rem; max-width: 18rem; overflow-wrap: anywhere; }
td.loss { background: #fbe9e0; color: #a63d00; font-weight: 600; }
td.gain { color: #00684c; font-weight: 600; }
td.none { color: var(--soft); }
"""
_SIDES = ("recorded", "simulated")
_TIER_FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "quality": ("quality", lambda v: f"{v:.3f}"),
    "cost_usd": ("cost per 1,000", usd_per_1000),
    "output_tokens": ("output tokens", lambda v: f"{v:,.0f}"),
    "latency_p50_s": ("p50 latency", lambda v: f"{v:.3g} s"),
    "latency_p95_s": ("p95 latency", lambda v: f"{v:.3g} s"),
}


@dataclass(frozen=True, kw_only=True)
class CalibrationReport:
    """A fitted scenario beside what it was fitted to.

    Attributes:
        name: Of the scenario.
        sources: Names of the files.
        n_queries, n_drawn: Queries of the recording, and of the draw that it is held against.
        tiers: One mapping per tier: `tier`, and per figure `recorded`, `simulated` and `relative_error`.
        slices: One mapping per tier and slice: quality `recorded` with `se`, `fitted`, `without_shift`, `shift_z`.
        critical_z: What a cell's distance had to exceed for a shift.
        distances: By group, such as `output tokens`.
        latency_file: Model -> `n`, `failed`, `rate_limited`, `unusable`, `error_rate`, `concurrency`.
        trace: What the trace looks like; empty without one.
        lognormal: Whether token lengths are lognormal.
        notes: Sentences on how the data was read.
        assumptions: Where the scenario rests on what no file holds.
    """

    name: str
    sources: tuple[str, ...]
    n_queries: int
    n_drawn: int
    tiers: tuple[Mapping[str, Any], ...]
    slices: tuple[Mapping[str, Any], ...]
    critical_z: float
    distances: Mapping[str, Sequence[Distance]]
    latency_file: Mapping[str, Mapping[str, Any]]
    trace: Mapping[str, Any]
    lognormal: bool
    notes: tuple[str, ...]
    assumptions: tuple[str, ...]


def calibration_sentences(report: CalibrationReport) -> list[str]:
    """What a reader should know first: where the fit is bad, and what is assumed."""
    sentences = [_tier_sentence(report), _shift_sentence(report)]
    for group, rows in report.distances.items():
        bad = [d for d in rows if d.bad]
        if bad:
            worst = max(bad, key=_largest_error)
            hint = " lengths=histogram draws them as recorded." if report.lognormal and group.endswith("tokens") else ""
            some = ", ".join(d.name for d in bad[:6]) + (f" and {len(bad) - 6} more" if len(bad) > 6 else "")
            ks = "one value fitted" if worst.degenerate else f"KS distance {worst.ks:.2f}"
            sentences.append(
                f"Bad fit of the {group} ({len(bad)} of {len(rows)}): {some}; at worst {worst.name} with "
                f"{_errors(worst)} ({ks}).{hint}"
            )
        else:
            sentences.append(f"No bad fit of the {group}: {_how_close(rows)}.")
    if report.assumptions:
        sentences.append(f"Assumptions, listed below and in the YAML: {len(report.assumptions)}.")
    return sentences


def _tier_sentence(report: CalibrationReport) -> str:
    parts = []
    for key, (label, _) in _TIER_FIGURES.items():
        errors = [row[key]["relative_error"] for row in report.tiers if row[key]["relative_error"] is not None]
        if errors:
            parts.append(f"{label} {percent(max(map(abs, errors)))}")
    return f"A draw of {report.n_drawn:,} queries differs from the recording per tier by at most: {', '.join(parts)}."


def _shift_sentence(report: CalibrationReport) -> str:
    shifted = [row for row in report.slices if row["shift_z"] is not None]
    largest = max(abs(row["fitted"] - row["recorded"]) for row in report.slices)
    means = f"The {len(report.slices)} means per slice and tier are met within {largest:.3f}"
    if not shifted:
        return f"{means} by capability minus difficulty alone; no cell stands out by {report.critical_z:.1f} s.e."
    cells = ", ".join(f"{row['tier']} on {row['slice']}" for row in shifted)
    return f"{means}; {len(shifted)} stood out by more than {report.critical_z:.1f} s.e. and got a shift: {cells}."


def _how_close(rows: Sequence[Distance]) -> str:
    """The largest KS distance; of laws of one value, which have none to speak of, the largest error of the mean."""
    parts = []
    if spread := [d.ks for d in rows if not d.degenerate]:
        parts.append(f"KS distance at most {max(spread):.3f}")
    if single := [abs(d.errors["mean"]) for d in rows if d.degenerate]:
        parts.append(f"fitted by one value, whose mean is off by at most {percent(max(single))}")
    return "; ".join(parts)


def _largest_error(distance: Distance) -> float:
    errors = [abs(distance.errors[name]) for name in ("mean", "p95")]
    return max((e for e in errors if math.isfinite(e)), default=0.0)


def _errors(distance: Distance) -> str:
    return ", ".join(f"{name} {_signed(value)}" for name, value in distance.errors.items())


def _signed(fraction: float) -> str:
    if not math.isfinite(fraction):
        return UNKNOWN
    return f"{100 * fraction:+.0f} %" if abs(fraction) >= 0.005 else "0 %"


def distance_dict(distance: Distance) -> dict[str, Any]:
    """A distance for JSON, without the quantiles."""
    return {
        "name": distance.name,
        "unit": distance.unit,
        "n": distance.n,
        "recorded": dict(distance.recorded_figures),
        "fitted": dict(distance.fitted_figures),
        "relative_error": distance.errors,
        "ks": None if distance.degenerate else distance.ks,
        "ks_p": None if distance.degenerate else distance.p,
        "wasserstein_relative": distance.wasserstein,
        "bad": distance.bad,
    }


def render_calibration(report: CalibrationReport) -> str:
    """The whole page."""
    lead = f"{report.n_queries:,} recorded queries; fitted to {', '.join(report.sources)}"
    body = [
        f"<h1>Scenario {escaped(report.name)}: recorded and fitted</h1>",
        f'<p class="soft">{escaped(lead)}</p>',
        f'<section class="verdict">{_list(calibration_sentences(report))}</section>',
        "<h2>Recorded and simulated, per tier</h2>",
        _tier_table(report),
        "<h2>Quality per tier and slice</h2>",
        image_html(
            png_bytes(quality_figure(report.slices)), "Fitted over recorded mean quality of every slice on every tier"
        ),
        *_distance_sections(report),
        *_latency_section(report),
        *_trace_section(report),
        "<h2>Assumptions</h2>",
        _list(report.assumptions),
        *(["<h2>How the data was read</h2>", _list(report.notes)] if report.notes else []),
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        f"<title>{escaped(report.name)} – routefront calibrate</title>",
        f"<style>{_STYLE}</style>",
    ]
    parts = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", *body, "</body>", "</html>"]
    return "\n".join(parts) + "\n"


def _list(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escaped(s)}</li>' for s in sentences)}</ul>"


def _tier_table(report: CalibrationReport) -> str:
    head = ["tier"]
    for label, _ in _TIER_FIGURES.values():
        head += [f"{label}, recorded", f"{label}, simulated", "error"]
    rows: list[Row] = []
    for row in report.tiers:
        cells: list[str | Cell] = [row["tier"]]
        for key, (_, show) in _TIER_FIGURES.items():
            cells += [UNKNOWN if row[key][side] is None else show(row[key][side]) for side in _SIDES]
            cells.append(_error_cell(row[key]["relative_error"]))
        rows.append(cells)
    return table_html(head, rows)


def _error_cell(error: float | None) -> str | Cell:
    if error is None:
        return UNKNOWN
    return Cell(_signed(error), "loss") if abs(error) > BAD_ERROR else _signed(error)


def _distance_sections(report: CalibrationReport) -> list[str]:
    how = (
        "KS: largest distance between the distribution functions. W: mean distance of equal quantiles over the "
        f"recorded mean. Bad: mean or p95 more than {100 * BAD_ERROR:.0f} % off and beyond the 99 % interval of the "
        f"recorded one, or p of the KS distance below {BAD_P:g} and mean, p95 or W above {100 * BAD_ERROR:.0f} %. "
        "Where parameters were fitted to the same values, p is too large."
    )
    parts = ["<h2>Distributions</h2>", f'<p class="soft">{escaped(how)}</p>']
    for group, rows in report.distances.items():
        shown = f" The {MOST_PANELS} with most values are drawn." if len(rows) > MOST_PANELS else ""
        said = f"Quantiles 0.5 % to 99.5 %; median and 95 % are ringed, the band is ± 10 %.{shown}"
        parts += [
            f"<h2>{escaped(group[0].upper() + group[1:])}{escaped(_UNITS.get(rows[0].unit, ''))}</h2>",
            f'<p class="soft">{escaped(said)}</p>',
            image_html(png_bytes(quantile_figure(rows)), f"Fitted over recorded quantiles: {group}"),
            table_html(_DISTANCE_HEAD, [_distance_row(d) for d in rows]),
        ]
    return parts


_DISTANCE_HEAD = (
    *("", "n", "mean", "fitted mean", "p50", "fitted p50", "p95", "fitted p95", "error of mean", "error of p95"),
    *("KS", "p", "W", "verdict"),
)
_UNITS = {"s": ", seconds", "USD": " per 1,000 answers", "tokens/s": ", tokens per second"}


def _distance_row(distance: Distance) -> Row:
    pairs = [
        _value(part[name], distance.unit)
        for name in ("mean", "p50", "p95")
        for part in (distance.recorded_figures, distance.fitted_figures)
    ]
    return [
        distance.name,
        f"{distance.n:,}",
        *pairs,
        _error_cell(distance.errors["mean"]),
        _error_cell(distance.errors["p95"]),
        UNKNOWN if distance.degenerate else f"{distance.ks:.3f}",
        UNKNOWN if distance.degenerate else f"{distance.p:.1g}",
        f"{distance.wasserstein:.3f}",
        _verdict(distance),
    ]


def _verdict(distance: Distance) -> Cell:
    if distance.bad:
        return Cell("bad", "loss")
    return Cell("fits", "gain") if _largest_error(distance) <= BAD_ERROR else Cell("too few to say", "none")


def _value(value: float, unit: str) -> str:
    return usd_per_1000(value) if unit == "USD" else f"{value:,.4g}"


def _latency_section(report: CalibrationReport) -> list[str]:
    if not report.latency_file:
        return []
    rows: list[Row] = [
        [
            tier,
            f"{row['n']:,}",
            str(row["failed"]),
            percent(row["error_rate"]),
            str(row["rate_limited"]),
            str(row["unusable"]),
            UNKNOWN if row["concurrency"] is None else f"{row['concurrency']:.3g}",
        ]
        for tier, row in report.latency_file.items()
    ]
    head = ("tier", "measured", "failed", "error rate", "rate limited", "times unusable", "mean concurrency")
    how = "Failed requests are in no time; their share is the error rate of the tier's station where there is traffic."
    how += " Rate limited ones (429) are in neither."
    return ["<h2>The latency file</h2>", table_html(head, rows), f'<p class="soft">{escaped(how)}</p>']


def _trace_section(report: CalibrationReport) -> list[str]:
    if not report.trace:
        return []
    flat = {
        "requests": f"{report.trace['n_requests']:,}",
        "duration": f"{report.trace['duration_s']:,.0f} s",
        "rate": f"{report.trace['rate_per_s']:.3g} per s",
        "cv of the gaps": f"{report.trace['gap_cv']:.3g}",
        "share of gaps that are 0": percent(report.trace["tied"]),
    }
    flat |= {f"dispersion of counts over {w}": f"{v:.3g}" for w, v in report.trace["idc"].items()}
    flat |= {f"mean {side} tokens": f"{v:,.0f}" for side, v in report.trace["mean_tokens"].items()}
    return ["<h2>The trace</h2>", table_html(("", "recorded"), [[name, value] for name, value in flat.items()])]
