"""Puts the tables of a finished `routefront reproduce paper=boute` into its note, so that no number is typed by hand.

Usage: python -m experiments.reproduce_boute_note runs/boute/summary.json papers/Boute2026/README.md
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.files import write_text
from experiments.reproduce_boute_tables import as_markdown, in_short
from simulators.errors import InputDataError

START, END = "<!-- tables: python -m experiments.reproduce_boute_note -->", "<!-- end of tables -->"


def read_summary(path: Path) -> dict[str, Any]:
    """A `summary.json`; what JSON could not say (null) is NaN again."""
    found: dict[str, Any] = _restored(json.loads(path.read_text(encoding="utf-8")))
    return found


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _restored(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_restored(part) for part in value]
    return math.nan if value is None else value


def filled(note: str, found: Mapping[str, Any]) -> str:
    """The note with the tables between its two marks.

    Raises:
        InputDataError: If a mark is missing.
    """
    if note.count(START) != 1 or note.count(END) != 1 or note.index(START) > note.index(END):
        raise InputDataError(f"expected one line {START!r} and after it one {END!r} in the note")
    before, after = note.split(START)[0], note.split(END)[1]
    return f"{before}{START}\n\n{in_short(found)}\n{as_markdown(found)}\n{END}{after}"


def main(words: list[str]) -> None:
    """See the module."""
    summary, note = map(Path, words)
    write_text(note, filled(note.read_text(encoding="utf-8"), read_summary(summary)))


if __name__ == "__main__":
    main(sys.argv[1:])
