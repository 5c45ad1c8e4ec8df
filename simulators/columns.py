"""Files of columns: Parquet, CSV or JSONL in, typed columns or one clear line out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from simulators.errors import InputDataError
from simulators.outcomes import FloatArray

_TEXT_COLUMNS = ("query_id", "prompt", "slice", "session_id", "model")


def read_columns(path: Path) -> pa.Table:
    """Read one Parquet, CSV or JSONL file by its suffix.

    Raises:
        InputDataError: If the file is missing, empty, of another kind, or not what its suffix says.
    """
    if not path.is_file():
        raise InputDataError(f"expected a data file, but there is none at {path}")
    if path.stat().st_size == 0:
        raise InputDataError(f"{path} is empty; expected a Parquet, CSV or JSONL table with a header or schema")
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            table = pyarrow.parquet.read_table(path)
        elif suffix == ".csv":
            text = dict.fromkeys(_TEXT_COLUMNS, pa.string())
            table = pyarrow.csv.read_csv(
                path,
                read_options=pyarrow.csv.ReadOptions(block_size=_block_size(path)),
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(column_types=text, strings_can_be_null=False),
            )
        elif suffix in {".jsonl", ".ndjson"}:
            table = _read_jsonl(path)
        else:
            raise InputDataError(f"{path} must end in .parquet, .csv or .jsonl; got {suffix or 'no suffix'!r}")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputDataError(f"{path} cannot be read as {suffix[1:]}: {reason}") from error
    if table.num_rows == 0:
        raise InputDataError(f"{path} has columns {table.column_names} but no row")
    if len(set(table.column_names)) < len(table.column_names):
        raise InputDataError(f"{path} names a column twice: {table.column_names}")
    return table


def _block_size(path: Path) -> int:
    """Bytes that the CSV reader takes at once: a row must fit, and a prompt may be as long as a book."""
    return min(max(path.stat().st_size + 1, 1 << 20), (1 << 31) - 1)


def _read_jsonl(path: Path) -> pa.Table:
    """One object per line. Identifiers stay text: a date is not a timestamp here."""
    columns: dict[str, list[object]] = {}
    n_rows = 0
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputDataError(f"{path} line {number} is not JSON: {error.msg}") from error
            if not isinstance(record, dict):
                raise InputDataError(f"{path} line {number} must hold one object; got {type(record).__name__}")
            for name, value in record.items():
                columns.setdefault(name, [None] * n_rows).append(value)
            n_rows += 1
            for values in columns.values():
                values.extend([None] * (n_rows - len(values)))
    arrays = {}
    for name, values in columns.items():
        if name in _TEXT_COLUMNS:
            values = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowException, OverflowError) as error:
            raise InputDataError(f"column {name} of {path} cannot be read: {str(error).splitlines()[0]}") from error
    return pa.table(arrays)


def need_columns(table: pa.Table, columns: Sequence[str], path: Path) -> None:
    """Raise InputDataError if a column is missing."""
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise InputDataError(f"{path} lacks the column(s) {missing}; it has {table.column_names}")


def text_list(table: pa.Table, name: str, path: Path) -> list[str]:
    """One column as text; InputDataError if it has gaps or is of another kind."""
    column = table[name].combine_chunks()
    if column.null_count:
        raise InputDataError(
            f"column {name} of {path} has {column.null_count} missing value(s); fill or drop these rows"
        )
    try:
        values: list[str] = pc.cast(column, pa.string()).to_pylist()
    except pa.ArrowException as error:
        raise InputDataError(f"column {name} of {path} must be text; it is {column.type}") from error
    return values


def text_column(table: pa.Table, name: str, path: Path) -> NDArray[np.str_]:
    """One column of short texts as an array; every cell takes the room of the longest."""
    return np.array(text_list(table, name, path), dtype=np.str_)


def number_column(table: pa.Table, name: str, path: Path) -> FloatArray:
    """One column as float64, NaN where missing; InputDataError if it is not numeric."""
    column = table[name].combine_chunks()
    try:
        numbers = pc.cast(column, pa.float64(), safe=False)
    except pa.ArrowException as error:
        raise InputDataError(f"column {name} of {path} must be numeric; it is {column.type}") from error
    return np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)


def first_duplicate(keys: NDArray[np.str_]) -> str | None:
    """The first key that occurs twice, in sorted order, or None."""
    values, counts = np.unique(keys, return_counts=True)
    return str(values[np.argmax(counts > 1)]) if (counts > 1).any() else None
