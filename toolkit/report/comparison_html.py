"""A comparison in words, as plain records, and as one self-contained page: no script, no external resource.

Names of runs, controllers and problems are user data: every text goes through `_text`, and only there.
"""

from __future__ import annotations

import base64
import html
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from toolkit.pareto.comparison import LEVEL, SEEDS_FOR_TEST, Comparison, Group, Pair, RunFigures, Spread
from toolkit.report.comparison_figures import natural_points, thinned
from toolkit.report.wording import column_label, column_value, percent, usd_per_1000

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_UNKNOWN, _SMALLEST_BOOTSTRAP = "–", 5
_STYLE = """
:root { color-scheme: light; --ink: #1d2327; --soft: #5b6670; --line: #d9dee3; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: #fff;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
p, li { max-width: 54rem; overflow-wrap: anywhere; }
p { margin: .4rem 0 .8rem; }
.soft { color: var(--soft); font-size: .92rem; }
.box { background: #f3f7fa; border-left: 4px solid #0072b2; border-radius: 3px; padding: .3rem 1.2rem;
  margin: 1.2rem 0; }
.warn { background: #fbe9e0; border-left-color: #a63d00; }
.warn li:first-child { font-weight: 600; color: #a63d00; }
ul { margin: .5rem 0; padding-left: 1.1rem; }
.wide { overflow-x: auto; margin: .5rem 0 1rem; }
img { display: block; width: 100%; min-width: 40rem; height: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { padding: .36rem .8rem .36rem .4rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; vertical-align: bottom; min-width: 5rem; }
tbody th { font-weight: 600; min-width: 8rem; max-width: 18rem; overflow-wrap: anywhere; background: #fff;
  position: sticky; left: 0; }
@media print { body { max-width: none; padding: 0; font-size: 9.5pt; } .wide { overflow: visible; }
  img { min-width: 0; } table { font-size: 8pt; } tr, img { break-inside: avoid; } tbody th { position: static; } }
"""
_READING = (
    "Hypervolume is the volume that a front dominates above the reference point, on axes where 0 is the worst and 1 "
    "the best single tier (cost and latency as log10); regret is what is missing to the best-known front. IGD+ is the "
    "mean distance by which the best-known front is missed, additive epsilon the largest; all three are 0 at best.",
    "Efficiency divides the hypervolume after n evaluations by that of the n best points known, chosen one by one; a "
    "lucky set of n points may exceed 1 a little.",
    "Quality at a cost, and cost at a quality, are those of points that were evaluated: nothing is interpolated. AIQ "
    "is the mean height of the front's concave hull, which random mixing of two policies attains.",
    "Fronts are measured on the tune split, where they were found. What the chosen point does on queries that the "
    "search has not seen stands in the columns of the validation split.",
)


def comparison_notes(comparison: Comparison) -> list[str]:
    """What keeps the figures from meaning what they seem to mean; one sentence each."""
    groups, notes = comparison.groups, []
    single = [g.name for g in groups if len(g.by_seed) == 1]
    if single and len(single) == len(groups):
        notes.append("Each controller has one seed: differences between single runs are no evidence about controllers.")
    elif single:
        notes.append(f"One seed only: {', '.join(single)}. Differences to a single run are no evidence.")
    if few := [f"{g.name} ({len(g.by_seed)})" for g in groups if 1 < len(g.by_seed) < _SMALLEST_BOOTSTRAP]:
        notes.append(f"Few seeds: {', '.join(few)}. A bootstrap over so few is narrower than it should be.")
    if doubled := [g.name for g in groups if len(g.by_seed) < len(g.members)]:
        notes.append(f"Several runs of one seed are averaged: {', '.join(doubled)}.")
    return notes + _run_notes(comparison)


def _run_notes(comparison: Comparison) -> list[str]:
    runs, notes = [f.run for f in comparison.runs], []
    most = max(len(f.trace) for f in comparison.runs)
    if most > (least := comparison.common_evaluations):
        budgets = f"{least:,} to {most:,} evaluations, so final hypervolumes are not at an equal budget"
        notes.append(f"The runs made {budgets}; those after {least:,} evaluations are.")
    if len(sharing := Counter(run.instance for run in runs)) > 1:
        alone = ", ".join(run.name for run in runs if sharing[run.instance] == 1)
        own = "Runs tuned on different splits are measured against the best-known front of their own split."
        notes.append(f"{own} Alone on theirs, and without regret for that reason only: {alone}." if alone else own)
    if len({tuple(sorted(run.constraints.items())) for run in runs}) > 1:
        texts = dict.fromkeys(", ".join(f"{k}={v:g}" for k, v in run.constraints.items()) or "none" for run in runs)
        notes.append(f"The runs searched under different constraints ({'; '.join(texts)}): their fronts show it.")
    if empty := [run.name for run in runs if len(run.usable) == 0]:
        notes.append(f"Nothing feasible was found by {', '.join(empty)}.")
    notes.append(
        "Evaluations to 95 %: those from which on the efficiency stays there. It may touch 95 % early and fall, "
        "because the best n points that it is measured against grow with n."
    )
    if any(run.controller == "exact" for run in runs):
        notes.append("An exact run enumerates in a fixed order: its course and its evaluations to 95 % mean nothing.")
    else:
        notes.append("No exact run is among them: the best-known front is theirs, and true regret may be larger.")
    return notes


def comparison_sentences(comparison: Comparison) -> list[str]:
    """What was found, in plain sentences; of the pairs, those with the controller of the largest hypervolume."""
    ranked = sorted(comparison.groups, key=lambda g: -g.hypervolume.mean)
    tests = sum(pair.p_value is not None for pair in comparison.pairs)
    told = [p for p in comparison.pairs if ranked[0].name in (p.first, p.second) and len(p.seeds) > 1]
    return [
        f"Final hypervolume: {'; '.join(f'{g.name} {_spread(g.hypervolume)}' for g in ranked)}.",
        f"Evaluations to {100 * LEVEL:g} % efficiency: {'; '.join(f'{g.name} {_needed(g)}' for g in ranked)}.",
        *(_pair_sentence(pair, tests) for pair in told),
    ]


def _pair_sentence(pair: Pair, tests: int) -> str:
    gap = (
        f"{pair.first} minus {pair.second}: {_spread(pair.difference, signed=True)} over {len(pair.seeds)} common seeds"
    )
    return f"{gap}, {_test(pair, tests)}."


def _test(pair: Pair, tests: int) -> str:
    if pair.p_holm is None:
        return f"too few seeds for a test (fewer than {SEEDS_FOR_TEST})"
    least = min(1.0, tests * 2.0 ** (1 - len(pair.seeds)))
    reach = f"; {len(pair.seeds)} seeds and {tests} tests cannot give less than {least:.2g}" if least > 0.05 else ""
    return f"p = {pair.p_holm:.3g} (signed ranks, after Holm{reach})"


def _spread(spread: Spread, *, signed: bool = False) -> str:
    def show(value: float) -> str:
        return f"{value:+.4f}" if signed else f"{value:.4f}"

    known = math.isfinite(spread.low + spread.high)
    return show(spread.mean) + (f" [{show(spread.low)}, {show(spread.high)}]" if known else "")


def _needed(group: Group) -> str:
    """Median and range of the evaluations needed."""
    median, least, most = group.evaluations_to
    if not math.isfinite(least):
        return "not reached"
    shown = [f"{v:,.0f}" if math.isfinite(v) else "not reached" for v in (median, least, most)]
    return shown[0] if len(group.members) == 1 else f"{shown[0]} (from {shown[1]} to {shown[2]})"


def run_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One flat record per run, the rows of `table.csv`; NaN and None where unknown."""
    rows = []
    for f in comparison.runs:
        row: dict[str, Any] = {
            "run": f.run.name,
            "controller": f.run.controller,
            "problem": f.run.problem,
            "seed": f.run.seed,
            "evaluations": len(f.trace),
            "feasible_share": float(f.run.feasible.mean()),
            "front_points": len(f.run.front),
            "hypervolume": f.hypervolume,
            f"hypervolume_at_{comparison.common_evaluations}": f.hypervolume_common,
            "regret": f.regret,
            "regret_to_exact": f.regret_to_exact,
            "igd_plus": f.igd_plus,
            "epsilon_additive": f.epsilon,
            "evaluations_to_95": f.evaluations_to,
            "aiq": f.aiq,
            "seconds": f.run.seconds,
        }
        row |= {f"quality_at_{c:.3g}_usd": v for c, v in zip(comparison.cost_levels, f.quality_at, strict=False)}
        row |= {f"cost_usd_at_quality_{q:.3g}": v for q, v in zip(comparison.quality_levels, f.cost_at, strict=False)}
        rows.append(row | {f"validation_{name}": value for name, value in f.run.validation.items()})
    return rows


def comparison_dict(comparison: Comparison, paths: Sequence[str]) -> dict[str, Any]:
    """Everything that was computed, in plain containers."""
    axes = [axis.column for axis in comparison.axes.axes]
    return {
        "axes": comparison.axes.describe(),
        "reference": comparison.axes.reference.tolist(),
        "common_evaluations": comparison.common_evaluations,
        "cost_levels_usd": list(comparison.cost_levels),
        "quality_levels": list(comparison.quality_levels),
        "runs": [
            {"path": path, **row, **_run_details(f)}
            for path, f, row in zip(paths, comparison.runs, run_rows(comparison), strict=True)
        ],
        "controllers": [
            {
                "controller": group.name,
                "runs": [f.run.name for f in group.members],
                "hypervolume_by_seed": {str(seed): value for seed, value in group.by_seed.items()},
                "hypervolume": asdict(group.hypervolume),
                "evaluations_to_95": dict(zip(("median", "least", "most"), group.evaluations_to, strict=True)),
                "median_attainment_surface": None
                if group.surface is None
                else [
                    dict(zip(axes, point, strict=True))
                    for point in natural_points(comparison.axes, group.surface).tolist()
                ],
            }
            for group in comparison.groups
        ],
        "pairs": [asdict(pair) for pair in comparison.pairs],
    }


def _run_details(figures: RunFigures) -> dict[str, Any]:
    """What does not fit a table's row: the front in natural units, and the courses thinned to some 200 counts."""
    run, at = figures.run, thinned(len(figures.trace))
    return {
        "constraints": run.constraints,
        "instance": run.instance,
        "front": {name: values[run.front].tolist() for name, values in run.columns.items()},
        "course": {
            "evaluations": at.tolist(),
            "hypervolume": figures.trace[at - 1].tolist(),
            "efficiency": figures.efficiency[at - 1].tolist(),
        },
    }


def render_comparison(
    comparison: Comparison, notes: Sequence[str], pictures: Mapping[str, bytes], *, warned: bool
) -> str:
    """The whole page, with the pictures that `draw_comparison` drew inside; `warned` makes the notes stand out."""
    counts = Counter(f.run.controller for f in comparison.runs)
    lead = f"{len(comparison.runs)} runs: {', '.join(f'{name} ({n})' for name, n in counts.items())}."
    body = [
        "<h1>Comparison of searches</h1>",
        f'<p class="soft">{_text(lead)}</p>',
        _list(notes, "box warn") if notes and warned else "",
        _list(comparison_sentences(comparison), "box"),
        _list(notes, "soft") if notes and not warned else "",
        "<h2>Fronts</h2>",
        _image(pictures["fronts"], "Fronts of all runs in natural units"),
        "<h2>Search against evaluations</h2>",
        _image(pictures["hypervolume"], "Hypervolume and efficiency against evaluations"),
        '<p class="soft">Line: median of the runs; band: their range.</p>',
        *_controllers(comparison),
        *_runs(comparison),
        *_levels(comparison),
        *_provenance(comparison),
    ]
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        "<title>Comparison of searches – routefront</title>",
        f"<style>{_STYLE}</style>",
    ]
    parts = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", *body, "</body>", "</html>"]
    return "\n".join(filter(None, parts)) + "\n"


def _text(text: str) -> str:
    return html.escape(text).replace(" %", "\u00a0%")


def _list(lines: Sequence[str], kind: str) -> str:
    return f'<section class="{kind}"><ul>{"".join(f"<li>{_text(line)}</li>" for line in lines)}</ul></section>'


def _image(png: bytes, alternative: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<div class="wide"><img alt="{_text(alternative)}" src="data:image/png;base64,{data}"></div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names the rows; columns without any figure are left out."""
    columns = [i for i in range(len(head)) if i == 0 or any(row[i] not in {"", _UNKNOWN} for row in rows)]
    titles = "".join(f'<th scope="col">{_text(head[i])}</th>' for i in columns)
    lines = [
        f'<tr><th scope="row">{_text(row[0])}</th>{"".join(f"<td>{_text(row[i])}</td>" for i in columns[1:])}</tr>'
        for row in rows
    ]
    body = "\n".join(lines)
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _number(value: float, show: str = ".4f") -> str:
    return format(value + 0.0 if abs(value) > 5e-5 else 0.0, show) if math.isfinite(value) else _UNKNOWN


def _value(column: str, value: float) -> str:
    return column_value(column, value) if math.isfinite(value) else _UNKNOWN


def _controllers(comparison: Comparison) -> list[str]:
    head = ["controller", "runs", "seeds", "final hypervolume, 95 % interval", f"evaluations to {100 * LEVEL:g} %"]
    rows = [
        (g.name, str(len(g.members)), str(len(g.by_seed)), _spread(g.hypervolume), _needed(g))
        for g in comparison.groups
    ]
    tests = sum(p.p_value is not None for p in comparison.pairs)
    pairs = [
        (f"{p.first} – {p.second}", str(len(p.seeds)), _spread(p.difference, signed=True), _test(p, tests))
        for p in comparison.pairs
    ]
    paired = _table(["difference in final hypervolume", "common seeds", "mean, 95 % interval", "test"], pairs)
    seeds = ["<h2>Controllers seed by seed</h2>", paired] if pairs else []
    return ["<h2>Controllers</h2>", _table(head, rows), *seeds]


def _runs(comparison: Comparison) -> list[str]:
    common = f"after {comparison.common_evaluations:,}"
    head = ["run", "controller", "seed", "evaluations", "feasible", "front", "hypervolume", common, "regret"]
    head += ["regret to exact", "IGD+", "epsilon", f"evaluations to {100 * LEVEL:g} %", "AIQ"]
    head += ["quality, validation", "cost per 1,000, validation", "p95 latency, validation"]
    rows = []
    for f in comparison.runs:
        run, seen = f.run, [(c, f.run.validation.get(c, math.nan)) for c in ("quality", "cost_usd", "latency_p95_s")]
        counts = [str(run.seed), f"{len(f.trace):,}", percent(float(run.feasible.mean())), f"{len(run.front):,}"]
        figures = (f.hypervolume, f.hypervolume_common, f.regret, f.regret_to_exact, f.igd_plus, f.epsilon)
        reached = "not reached" if f.evaluations_to is None else f"{f.evaluations_to:,}"
        shown = [*map(_number, figures), reached, _number(f.aiq), *(_value(c, v) for c, v in seen)]
        rows.append([run.name, run.controller, *counts, *shown])
    return ["<h2>Runs</h2>", _table(head, rows)]


def _levels(comparison: Comparison) -> list[str]:
    if not comparison.cost_levels:
        return []
    head = ["run", "controller", *(f"quality at {usd_per_1000(c)}" for c in comparison.cost_levels)]
    head += [f"cost at quality {q:.3f}" for q in comparison.quality_levels]
    rows = [
        [f.run.name, f.run.controller, *map(_number, f.quality_at), *(_value("cost_usd", c) for c in f.cost_at)]
        for f in comparison.runs
    ]
    note = "Tune split; cost per 1,000 queries; – where no evaluated point gets there."
    return ["<h2>At equal cost, and at equal quality</h2>", _table(head, rows), f'<p class="soft">{note}</p>']


def _provenance(comparison: Comparison) -> list[str]:
    rows = [
        (column_label(a.column), "more" if a.maximise else "less", *(_value(a.column, v) for v in (a.worst, a.best)),
         "log10" if a.log else "linear")
        for a in comparison.axes.axes
    ]  # fmt: skip
    margin = f"The reference point lies {comparison.axes.margin:g} outside the range, on every axis."
    table = _table(["axis", "better", "worst (0)", "best (1)", "scale"], rows)
    return [
        "<h2>Axes</h2>",
        table,
        f'<p class="soft">{_text(margin)}</p>',
        "<h2>How to read</h2>",
        _list(_READING, "soft"),
    ]
