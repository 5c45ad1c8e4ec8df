"""The figure of a certificate: one line per comparison with the baseline, against the margin.

Colours are those of Okabe and Ito (2008), safe for colour-blind readers; verdicts differ in marker and are written out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from toolkit.certify.certificate import Certificate, Criterion
from toolkit.report.certificate import CertificateReport
from toolkit.report.certificate_wording import has_bound, loss_tolerated, margin_text, of_kind
from toolkit.report.figures import png_bytes, shown_name

_LOOKS = {"fail": ("#D55E00", "v"), "undecided": ("#6E6E6E", "o"), "pass": ("#009E73", "^")}
_MOST_SLICES = 24
_INCH_PER_LINE = 0.31


def draw_certificate(report: CertificateReport) -> bytes:
    """The forest plot as PNG; equal reports give equal bytes."""
    return png_bytes(certificate_figure(report))


def certificate_figure(report: CertificateReport) -> Figure:
    """Difference in quality over all queries and per slice: 95 % interval, one-sided bound, margin and verdict."""
    certificate = report.certificate
    lines, left_out = _lines(certificate)
    figure = Figure(figsize=(9.5, 1.75 + _INCH_PER_LINE * (len(lines) + bool(left_out))), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axvline(0.0, color="black", linewidth=1.0)
    margin = f"margin, -{margin_text(certificate.labels)}"
    if certificate.labels.given:
        axes.axvline(-certificate.labels.margin, color="#0072B2", linestyle="--", linewidth=1.3, label=margin)
    else:
        own = [-c.margin for c in lines]
        axes.scatter(own, range(len(lines)), s=90, marker="|", c="#0072B2", linewidths=1.6, label="margin of each")
    axes.axhspan(-0.5, 0.5, color="#F3F3F3", zorder=0)
    for verdict in _LOOKS:
        _draw(axes, verdict, [(row, c) for row, c in enumerate(lines) if c.verdict == verdict])
    _draw_bounds(axes, lines, certificate.labels.alpha)
    _label_lines(axes, lines, certificate, left_out)
    axes.set_xlabel(f"quality minus that of {shown_name(report.baseline)}, 95 % interval", fontsize=10.5)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(axis="x", color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=5, fontsize=9.5, frameon=False)
    return figure


def _lines(certificate: Certificate) -> tuple[list[Criterion], str]:
    """All queries, then the slices with the largest loss first; and in words what found no room."""
    slices = of_kind(certificate, "slice")
    overall = of_kind(certificate, "overall")
    if len(slices) <= _MOST_SLICES + 1:
        return overall + slices, ""
    rank = list(_LOOKS)
    worst = sorted(slices, key=lambda c: rank.index(c.verdict))[:_MOST_SLICES]
    rest = [c for c in slices if c not in worst]
    counts = [(sum(c.verdict == verdict for c in rest), verdict) for verdict in _LOOKS]
    said = " and ".join(f"{n} more {verdict}" for n, verdict in counts if n)
    return overall + [c for c in slices if c in worst], said


def _draw(axes: Axes, verdict: str, rows: Sequence[tuple[int, Criterion]]) -> None:
    """Estimates and two-sided intervals of one verdict."""
    if not rows:
        return
    colour, marker = _LOOKS[verdict]
    values = [c.value for _, c in rows]
    mean = np.array([v.mean for v in values])
    arms = np.array([[v.mean - v.low for v in values], [v.high - v.mean for v in values]])
    axes.errorbar(
        mean,
        [row for row, _ in rows],
        None,
        np.nan_to_num(np.maximum(arms, 0.0)),
        marker,
        color=colour,
        ms=7,
        capsize=2.5,
        label=verdict,
    )


def _draw_bounds(axes: Axes, lines: Sequence[Criterion], alpha: float) -> None:
    """Where each loss ends at most, one-sided: what is held against the margin."""
    rows = [(row, c) for row, c in enumerate(lines) if c.loss_at_most > 0 and has_bound(c)]
    label = f"loss at most, one-sided {100 * (1 - alpha):.4g} %"
    axes.scatter(
        [-c.loss_at_most for _, c in rows],
        [row for row, _ in rows],
        s=110,
        marker="|",
        c=[_LOOKS[c.verdict][0] for _, c in rows],
        linewidths=2.2,
        zorder=4,
    )
    if rows:
        axes.plot([], [], "|", color="black", ms=10, mew=2.2, label=label)


def _label_lines(axes: Axes, lines: Sequence[Criterion], certificate: Certificate, left_out: str) -> None:
    """Names at the left; verdict and number of queries at the right."""
    names = [c.name if c.kind == "overall" else shown_name(c.name) for c in lines]
    axes.set_yticks(range(len(lines)), names)
    axes.tick_params(labelsize=10)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(lines) - (0.0 if left_out else 0.4), -0.6)
    for row, criterion in enumerate(lines):
        tolerated = loss_tolerated(criterion, certificate.labels.alpha)
        word = "tolerated" if tolerated else criterion.verdict
        colour = _LOOKS[criterion.verdict][0]
        _beside(axes, row, 10, word, color=colour, fontweight="bold")
        _beside(axes, row, 86, f"n = {criterion.n:,}")
    if left_out:
        across = axes.get_yaxis_transform()
        axes.text(0.0, len(lines) - 0.35, left_out, va="center", fontsize=10, style="italic", transform=across)


def _beside(
    axes: Axes, row: int, points: float, text: str, *, color: str = "black", fontweight: str = "normal"
) -> None:
    """Text so many points right of the axes."""
    at, across = (1.0, row), axes.get_yaxis_transform()
    axes.annotate(
        text,
        at,
        (points, 0),
        xycoords=across,
        textcoords="offset points",
        va="center",
        fontsize=10,
        color=color,
        fontweight=fontweight,
        annotation_clip=False,
    )
