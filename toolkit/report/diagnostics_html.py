"""Two sections of a run's page: whether the score is any good, and where the gap to the oracle goes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from toolkit.certify.diagnostics import Diagnostics, StepDiagnostics
from toolkit.certify.gap import Gap
from toolkit.certify.intervals import Interval
from toolkit.report.diagnostics_figures import gap_figure, score_figure
from toolkit.report.diagnostics_sentences import better_calibration, gap_sentences, score_sentences
from toolkit.report.figures import png_bytes
from toolkit.report.markup import UNKNOWN, Cell, Row, escaped, image_html, table_html
from toolkit.report.record import RunRecord
from toolkit.report.wording import percent, signed_difference, with_interval

_PARTS = {
    "generalisation": "what was best on the tune split is not best on the validation split",
    "search": "the best of the class on the tune split, at the policy's cost there, minus the policy",
    "policy class": "the best rule on the score minus the best policy of the class, both with hindsight",
    "policy class and search": "the best rule on the score minus the best candidate that was evaluated: not split",
    "score": "the oracle minus the best rule that sees the score cut into 20 intervals, with hindsight",
}


def diagnostics_pictures(record: RunRecord) -> dict[str, bytes]:
    """PNG by name: `score` and `gap`, as far as the record holds them."""
    pictures = {}
    if record.diagnostics is not None:
        pictures["score"] = png_bytes(score_figure(record.diagnostics))
    if record.gap is not None:
        pictures["gap"] = png_bytes(gap_figure(record.gap))
    return pictures


def diagnostics_sections(record: RunRecord, pictures: Mapping[str, bytes]) -> list[str]:
    """Both sections, with the pictures that `diagnostics_pictures` drew."""
    sections = []
    if record.diagnostics is not None:
        sections += _score_section(record.diagnostics, pictures["score"])
    if record.gap is not None:
        sections += _gap_section(record.gap, pictures["gap"])
    return sections


def step_rows(found: Diagnostics) -> list[list[str]]:
    """The table of steps in words: one row per step."""
    return [_step_row(step) for step in found.steps]


STEP_HEAD = ("step", "dearer is better", "dearer is worse", "AUC", "average precision", "ECE", "Brier gain")
"""Head of `step_rows`."""


def _step_row(step: StepDiagnostics) -> list[str]:
    best = better_calibration(step)
    return [
        f"{step.low} → {step.high}",
        percent(step.better),
        percent(step.worse),
        _shown(step.auc),
        _shown(step.average_precision),
        UNKNOWN if best is None else f"{best.ece:.3f} ({best.method})",
        UNKNOWN if best is None else signed_difference(best.brier_gain),
    ]


def _shown(interval: Interval) -> str:
    return with_interval(interval) if math.isfinite(interval.mean) else UNKNOWN


def _score_section(found: Diagnostics, picture: bytes) -> list[str]:
    how = (
        f"Better and worse: by more than {found.margin:g} in quality, on validation queries. A coin has AUC 0.5 and an "
        "average precision of the share where the dearer tier is better. Calibrations and the best policy were fitted "
        "on the tune split. ECE: mean distance of said from seen. Brier gain: over the base rate. Intervals are 95 %."
    )
    return [
        "<h2>Is the score any good?</h2>",
        *(f"<p>{escaped(sentence)}</p>" for sentence in score_sentences(found)),
        image_html(picture, "Quality of each tier along the score, and reliability of the score as a probability"),
        table_html(STEP_HEAD, step_rows(found)),
        f'<p class="soft">{escaped(how)}</p>',
    ]


def _gap_section(gap: Gap, picture: bytes) -> list[str]:
    rows: list[Row] = [
        [name, f"{value:+.4f}", Cell(_PARTS[name], "prose")] for name, value in reversed(gap.components.items())
    ]
    rows.append(["sum", f"{gap.total:+.4f}", "oracle minus policy"])
    how = f"The class was taken to be: {gap.enumerated}."
    return [
        "<h2>Where the gap goes</h2>",
        *(f"<p>{escaped(sentence)}</p>" for sentence in gap_sentences(gap)),
        image_html(picture, "From the policy to the oracle, part by part"),
        table_html(["part", "quality", "what it is"], rows, highlighted="sum"),
        f'<p class="soft">{escaped(how)}</p>',
    ]
