"""Helpers of several test files: toy tables, toy recordings on disk, and the command line in process.

`from helpers import run_cli`: pytest puts `tests/` on the path.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from simulators.outcomes import OutcomeTable, QueryBatch

TIERS = ("small", "medium", "large")
SUFFIXES = (".parquet", ".csv", ".jsonl")

_EASY = ("what is", "the capital of", "define", "who is", "hello", "translate", "this word", "name", "a colour", "list")
_HARD = (
    "evaluate the options",
    "distributed algorithm",
    "step by step",
    "python function",
    "deduce",
    "latency throughput",
    "architecture",
    "optimize the database schema",
)
_COST_USD = (1e-5, 1e-4, 2e-3, 1e-2, 5e-2)
_LATENCY_S = (0.5, 1.0, 4.0, 8.0, 16.0)


def make_table(
    rng: np.random.Generator,
    *,
    n: int = 200,
    k: int = 3,
    n_slices: int = 3,
    latency: bool = True,
    cost: bool = True,
    prompts: bool = False,
    signals: Sequence[str] = ("difficulty",),
) -> OutcomeTable:
    """A toy table: dearer tiers are better, the more so the harder the query, and each signal is a noisy difficulty.

    Args:
        rng: Source of every number.
        n: N queries.
        k: K tiers, named `tier0` (cheapest) and so on.
        n_slices: S slices; each has about `n / n_slices` queries.
        latency: Whether latencies are known.
        cost: Whether costs are known.
        prompts: Whether queries have a prompt; prompts are distinct.
        signals: Names of the router signals.
    """
    difficulty = rng.uniform(size=n)
    skill = np.linspace(0.4, 0.9, k)
    quality = np.clip(1.0 - difficulty[:, None] * (1.0 - skill) + 0.1 * rng.standard_normal((n, k)), 0.0, 1.0)
    cost_usd = 1e-5 * 8.0 ** np.arange(k) * rng.lognormal(0.0, 0.3, (n, k))
    latency_s = (1.0 + np.arange(k)) * rng.lognormal(0.0, 0.4, (n, k))
    unknown = np.full((n, k), np.nan)
    code = np.arange(n, dtype=np.int64) % n_slices
    rng.shuffle(code)
    return OutcomeTable(
        tiers=tuple(f"tier{i}" for i in range(k)),
        queries=QueryBatch(
            query_id=np.array([f"q{i}" for i in range(n)]),
            prompt=toy_prompts(rng, difficulty) if prompts else None,
            signals={name: difficulty + 0.2 * rng.standard_normal(n) for name in signals},
        ),
        quality=quality,
        cost_usd=cost_usd if cost else unknown,
        latency_s=latency_s if latency else unknown,
        ttft_s=unknown,
        input_tokens=unknown,
        output_tokens=unknown,
        error=np.zeros((n, k), dtype=np.bool_),
        slices=tuple(f"slice{s}" for s in range(n_slices)),
        slice_code=code,
        source="toy table",
    )


def toy_prompts(rng: np.random.Generator, difficulty: np.ndarray) -> tuple[str, ...]:
    """Distinct prompts; the share of hard phrases (LiteLLM's keywords among them) follows `difficulty: N` in [0, 1]."""
    prompts = []
    for i, hard in enumerate(difficulty):
        words = [str(rng.choice(_HARD if rng.uniform() < hard else _EASY)) for _ in range(rng.integers(4, 9))]
        prompts.append(f"{' '.join(words)} {i}")
    return tuple(prompts)


def write_columns(path: Path, columns: Mapping[str, Sequence[object]]) -> Path:
    """Write columns as Parquet, CSV or JSONL, as `path`'s suffix says; None is a missing value (in JSONL too)."""
    table = pa.table({name: pa.array(list(values)) for name, values in columns.items()})
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()), encoding="utf-8")
    else:
        raise ValueError(f"no writer for {path.suffix}")
    return path


def recording_columns(
    *,
    n: int = 240,
    tiers: Sequence[str] = TIERS,
    seed: int = 0,
    cost: bool = True,
    latency: bool = True,
    n_slices: int = 2,
) -> tuple[dict[str, list[object]], dict[str, list[object]]]:
    """Columns of a queries and an outcomes file: the words of a prompt tell its difficulty, `length` is a signal."""
    rng = np.random.default_rng(seed)
    k = len(tiers)
    difficulty = rng.uniform(size=n)
    skill = np.linspace(0.3, 0.95, k)
    prompts = toy_prompts(rng, difficulty)
    score = np.clip(1.0 - difficulty[:, None] * (1.0 - skill) + 0.1 * rng.standard_normal((n, k)), 0.0, 1.0)
    ids = [f"q{i:04d}" for i in range(n)]
    slices = [f"slice{i % n_slices}" for i in range(n)]
    queries: dict[str, list[object]] = {
        "query_id": list(ids),
        "prompt": list(prompts),
        "slice": list(slices),
        "length": [float(len(p)) for p in prompts],
        "hardness": (difficulty + 0.15 * rng.standard_normal(n)).tolist(),
    }
    outcomes: dict[str, list[object]] = {
        "query_id": [q for q in ids for _ in tiers],
        "slice": [s for s in slices for _ in tiers],
        "model": list(tiers) * n,
        "score": score.round(4).ravel().tolist(),
    }
    if cost:
        outcomes["cost_usd"] = (np.array(_COST_USD[:k]) * rng.lognormal(0.0, 0.3, (n, k))).ravel().tolist()
    if latency:
        outcomes["latency_s"] = (np.array(_LATENCY_S[:k]) * rng.lognormal(0.0, 0.3, (n, k))).ravel().tolist()
    return queries, outcomes


def write_recording(
    folder: Path,
    suffix: str = ".parquet",
    *,
    n: int = 240,
    tiers: Sequence[str] = TIERS,
    seed: int = 0,
    cost: bool = True,
    latency: bool = True,
    n_slices: int = 2,
) -> tuple[Path, Path]:
    """Write `queries` and `outcomes` of `recording_columns` into `folder`; returns both paths."""
    queries, outcomes = recording_columns(n=n, tiers=tiers, seed=seed, cost=cost, latency=latency, n_slices=n_slices)
    folder.mkdir(parents=True, exist_ok=True)
    return write_columns(folder / f"queries{suffix}", queries), write_columns(folder / f"outcomes{suffix}", outcomes)


class CliResult(NamedTuple):
    """What one command left."""

    exit_code: int
    stdout: str
    stderr: str


def run_cli(*args: str, cwd: Path) -> CliResult:
    """Run one `routefront` command in this process, with `cwd` as working directory."""
    from hydra.core.global_hydra import GlobalHydra

    from experiments.cli import main

    GlobalHydra.instance().clear()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(list(args))
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        finally:
            GlobalHydra.instance().clear()
    return CliResult(code, out.getvalue(), err.getvalue())


def run_cli_process(*args: str, cwd: Path) -> CliResult:
    """Run one `routefront` command in a process of its own."""
    code = "from experiments.cli import entry; entry()"
    found = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    return CliResult(found.returncode, found.stdout, found.stderr)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything below `folder`: relative path -> content, None for a folder."""
    return {str(p.relative_to(folder)): None if p.is_dir() else p.read_bytes() for p in sorted(folder.rglob("*"))}


def json_lines(path: Path) -> Iterator[dict[str, object]]:
    """The objects of a JSONL file."""
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)
