"""Small pieces of HTML that the sections of a page share.

Names of tiers and slices are user data: every text goes through `escaped`, and only there.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from toolkit.certify.intervals import Interval
from toolkit.report.wording import column_value, signed_difference

UNKNOWN = "–"


@dataclass(frozen=True)
class Cell:
    """A table cell that carries a class: `loss`, `gain`, `none`, `lines` or `prose`."""

    text: str
    kind: str


Row = Sequence["str | Cell"]
"""The name of a row, then its cells."""


def escaped(text: str) -> str:
    """User data as HTML; a per cent sign stays with its number."""
    return html.escape(text).replace(" %", "\u00a0%")


def image_html(png: bytes, alternative: str) -> str:
    """A picture inside the page."""
    data = base64.b64encode(png).decode("ascii")
    return f'<div class="wide"><img alt="{escaped(alternative)}" src="data:image/png;base64,{data}"></div>'


def definitions_html(entries: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Terms, each with its sentences."""
    rows = [
        f"<dt>{escaped(term)}</dt><dd>{''.join(f'<p>{escaped(line)}</p>' for line in lines)}</dd>"
        for term, lines in entries
    ]
    return f"<dl>{''.join(rows)}</dl>"


def table_html(head: Sequence[str], rows: Sequence[Row], *, highlighted: str | None = None) -> str:
    """A table whose first column names the rows; columns without any figure are left out."""
    columns = [i for i in range(len(head)) if i == 0 or any(row[i] not in {"", UNKNOWN} for row in rows)]
    titles = "".join(f'<th scope="col">{escaped(head[i])}</th>' for i in columns)
    lines = []
    for row in rows:
        mark = ' class="policy"' if row[0] == highlighted else ""
        cells = "".join(_data_cell(row[i]) for i in columns[1:])
        lines.append(f'<tr{mark}><th scope="row">{escaped(str(row[0]))}</th>{cells}</tr>')
    body = "\n".join(lines)
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _data_cell(cell: str | Cell) -> str:
    if isinstance(cell, Cell):
        return f'<td class="{cell.kind}">{escaped(cell.text)}</td>'
    return f"<td>{escaped(cell)}</td>"


def shown_value(column: str, value: float) -> str:
    """A value of a natural column with its unit, or a dash."""
    return column_value(column, value) if math.isfinite(value) else UNKNOWN


def verdict_cell(difference: Interval) -> Cell:
    """A difference with its interval, coloured where the interval excludes 0."""
    kind = "none" if difference.verdict == "no evidence" else difference.verdict
    return Cell(f"{difference.verdict}\n{signed_difference(difference)}", kind)
