"""`evaluations.jsonl`: one JSON object per evaluation, appended and flushed as soon as a batch is evaluated."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from simulators.errors import InputDataError
from simulators.outcomes import FloatArray
from toolkit.problem import Evaluation, Problem, make_evaluation


class Journal:
    """An append-only file. A line that was cut off by a kill is dropped; the evaluation is simply repeated.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._encode: Problem | None = None

    def read(self, problem: Problem) -> Evaluation | None:
        """What the journal holds already, or None; also prepares it for appending.

        Raises:
            InputDataError: If a line is not what this problem would have written.
        """
        self._encode = problem
        if not self._path.exists():
            return None
        raw = self._path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            with self._path.open("r+b") as file:
                file.truncate(len(whole))
        if not whole:
            return None
        try:
            lines = whole.decode("utf-8").splitlines()
            records = [json.loads(line) for line in lines]
            return _from_records(records, problem)
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise InputDataError(
                f"{self._path} is not a journal of this problem ({error}); choose another out=DIR or remove it"
            ) from error

    def append(self, evaluation: Evaluation, *, first_index: int, seconds: float) -> None:
        """Append a batch and flush it."""
        assert self._encode is not None
        problem = self._encode
        X = problem.space.encode(evaluation.params)
        each = seconds / max(len(evaluation), 1)
        ok = evaluation.ok
        columns = {name: values.tolist() for name, values in evaluation.columns.items()}
        params, slack, x = evaluation.params.tolist(), evaluation.slack.tolist(), X.tolist()
        shares = evaluation.tier_shares.tolist()
        names = [c.name for c in problem.constraints]
        lines = []
        for i in range(len(evaluation)):
            record = {
                "index": first_index + i,
                "x": [round(v, 9) for v in x[i]],
                "params": dict(zip(problem.parameter_names, params[i], strict=True)),
                "objectives": {name: _number(values[i]) for name, values in columns.items()},
                "slack": {name: _number(value) for name, value in zip(names, slack[i], strict=True)},
                "tier_shares": shares[i],
                "status": "ok" if ok[i] else "failed",
                "seconds": each,
            }
            lines.append(json.dumps(record))
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _array(rows: list[list[float | None]]) -> FloatArray:
    return np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=np.float64)


def _from_records(records: list[dict[str, Any]], problem: Problem) -> Evaluation:
    if [r["index"] for r in records] != list(range(len(records))):
        raise ValueError("indices are not 0, 1, 2, ...")
    params = _array([[r["params"][name] for name in problem.parameter_names] for r in records])
    columns = {m.column: _array([[r["objectives"][m.column]] for r in records])[:, 0] for m in problem.metrics}
    slack = _array([[r["slack"][c.name] for c in problem.constraints] for r in records])
    shares = np.array([r["tier_shares"] for r in records], dtype=np.float64)
    found = make_evaluation(problem, params, columns, shares)
    return dataclasses.replace(found, slack=slack.reshape(len(records), -1))
