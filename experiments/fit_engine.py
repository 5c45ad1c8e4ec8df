"""Fits `conf/engine/splitwise.yaml` to measured prefill and decode times and states the error on held-back cells.

Usage: python -m experiments.fit_engine DATA_DIR [--output conf/engine/splitwise.yaml]

The same data give the same file, byte for byte. Data: Splitwise's Llama-2-70B on 2, 4 and 8 A100 or H100; a cell is
(GPU, tensor parallel, prompt, batch, output), its time the median of its repetitions. Nothing of the data but these
fitted figures goes into the project. The equations are those of `simulators.deployment.performance`.

What was decided before the first fit: the cells held back, that a relative error counts, and what is left out:

* Batch 64 on two GPUs: memory ran out, the recorded prefill times fall.
* Outputs over 256 tokens: the answers ended earlier, so the recorded whole is not that of the stated length.
* From the fit of prefill: cells with more prompt tokens in one pass than `prefill_tokens`; engines of today split
  such passes, and above it the measured times bend. Their error is stated on its own.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from experiments.calibrate_yaml import Node, Sourced, render, sourced
from experiments.fit_main import run_fit
from simulators.deployment.performance import Speed, replica_speed, tensor_parallel_efficiency
from simulators.deployment.plan import Replica
from simulators.deployment.specs import EngineConstants, EngineSpec, GpuSpec, ModelSpec
from simulators.errors import InputDataError
from simulators.outcomes import FloatArray

FILE = Path("latency") / "splitwise_perf_model.csv.gz"
HELD_BATCHES, HELD_PROMPT = (4, 16), 1024
BROKEN = (2, 64)
"""Tensor parallel and batch of the cells that ran out of memory."""
LONGEST_OUTPUT = 256
PREFILL_TOKENS = 2048
GPUS = {"a100-80gb": "a100", "h100-80gb": "h100"}
SPECS = {
    name: GpuSpec(memory_gb=80.0, bf16_tflops=flops, bandwidth_gb_s=memory, link_gb_s=link, usd_per_hour=1.0, count=8)
    for name, flops, memory, link in (("a100", 312.0, 2039.0, 300.0), ("h100", 989.0, 3350.0, 450.0))
}
"""As in `conf/gpus/types_6.yaml`; price and count do not matter here."""
MODELS = {
    "llama2-70b": ModelSpec(weights="llama2-70b", parameters_b=68.98, layers=80, hidden=8192, kv_heads=8, head_dim=128),
    "bloom-176b": ModelSpec(
        weights="bloom-176b", parameters_b=176.2, layers=70, hidden=14336, kv_heads=112, head_dim=128
    ),
}
_START = (0.5, 0.5, 0.3, 4e-4, 6e-4, 4e-6)  # in the order of `EngineConstants`
_FIELDS = tuple(EngineConstants.model_fields)

HEADER = """\
# routefront tune scenario=self_hosted engine@scenario.fleet.engine=splitwise
#
# Written by `python -m experiments.fit_engine DATA_DIR`: do not edit. Fitted to Splitwise's times of Llama-2-70B on
# 2, 4 and 8 A100 80 GB or H100 80 GB: {cells} cells, of which {held} were held back (batch 4 or 16, prompt 1024).
# The software is an engine of 2023: it launches every kernel on its own, so a decode step on 4 or 8 GPUs waits for the
# host and not for memory. See `roofline.yaml` for an engine without that.
#
# Relative error in %, median / 90 % quantile / largest, of prefill, decode step and whole answer:
{errors}
# Share of the ideal 1/N in prefill, 2 / 4 / 8 GPUs: {efficiency}.
# Without TP 2 nothing tells bandwidth from software; another card's constants are off by its host's software above all.
# Left out: batch 64 on two GPUs (memory ran out; recorded prefill times fall); outputs over 256 tokens (they ended
# earlier). Prefills of more than {prefill:,} tokens were not fitted: the engine admits no more at once, except for one
# longer prompt, which real engines cut into chunks.
# Extrapolated: GPU types other than these two, other models, one GPU (no all-reduce; no cell has it), pipelines.
# Assumed, not fitted: latency of an all-reduce, hops between stages, reserved memory, utilisation (see EngineSpec).
"""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One measured setting.

    Attributes:
        model, gpu, tensor: What ran where.
        prompt, batch, output: Tokens and sequences.
        prefill_s, step_s, whole_s: Medians over the repetitions.
    """

    model: str
    gpu: str
    tensor: int
    prompt: int
    batch: int
    output: int
    prefill_s: float
    step_s: float
    whole_s: float

    @property
    def held(self) -> bool:
        """Whether no fit sees it."""
        return self.batch in HELD_BATCHES or self.prompt == HELD_PROMPT

    @property
    def long(self) -> bool:
        """Whether its prefill is more than an engine does in one pass."""
        return self.prompt * self.batch > PREFILL_TOKENS


Constants = Mapping[str, EngineConstants]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    return run_fit(
        argv,
        fit,
        description="Fit the engine's constants to measured times.",
        holds="latency/",
        output="conf/engine/splitwise.yaml",
    )


def fit(data_dir: Path) -> str:
    """The text of the YAML file.

    Raises:
        InputDataError: If the file or a column is missing, or it holds no usable cell.
    """
    every = read_cells(data_dir / FILE)
    cells = [cell for cell in every if cell.model == "llama2-70b"]
    bloom = [cell for cell in every if cell.model == "bloom-176b"]
    if {cell.gpu for cell in cells} != set(SPECS) or not bloom:
        raise InputDataError(f"{data_dir / FILE} should have llama2-70b and bloom-176b on {', '.join(GPUS)}")
    constants = fit_constants([cell for cell in cells if not cell.held])
    lines = error_lines(cells, bloom, constants)
    header = HEADER.format(
        cells=len(cells),
        held=sum(cell.held for cell in cells),
        errors="\n".join(f"# {line}" for line in lines),
        efficiency="; ".join(efficiency_text(gpu, use) for gpu, use in constants.items()),
        prefill=PREFILL_TOKENS,
    )
    return header + "\n".join(render(document(constants))) + "\n"


def read_cells(path: Path) -> list[Cell]:
    """Medians of the cells that can be used, in the order of the file.

    Raises:
        InputDataError: If the file cannot be read or a column is missing.
    """
    keys = ("model", "hardware", "tensor_parallel", "prompt_size", "batch_size", "token_size")
    times = ("prompt_time", "token_time", "e2e_time")
    rows: dict[tuple[str, ...], list[list[float]]] = {}
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                seconds = [float(row[name]) / 1000.0 for name in times]
                rows.setdefault(tuple(row[name] for name in keys), []).append(seconds)
    except (OSError, EOFError, KeyError, ValueError, TypeError) as error:
        raise InputDataError(f"{path} cannot be used as measured times: {error}") from error
    found = [_cell(key, np.median(np.array(values), axis=0)) for key, values in rows.items() if key[1] in GPUS]
    return [c for c in found if (c.tensor, c.batch) != BROKEN and c.output <= LONGEST_OUTPUT and c.model in MODELS]


def _cell(key: tuple[str, ...], seconds: FloatArray) -> Cell:
    tensor, prompt, batch, output = (int(value) for value in key[2:])
    return Cell(
        model=key[0],
        gpu=GPUS[key[1]],
        tensor=tensor,
        prompt=prompt,
        batch=batch,
        output=output,
        prefill_s=float(seconds[0]),
        step_s=float(seconds[1]),
        whole_s=float(seconds[2]),
    )


# --- the fit ----------------------------------------------------------------------------------------------------------


def fit_constants(cells: Sequence[Cell]) -> dict[str, EngineConstants]:
    """Constants of every GPU type in the cells that minimise squared log ratios; the link efficiency is shared.

    Prefill first: arithmetic, link and software per prefill; with the link as found, the decode step: bandwidth,
    software per step and time per sequence. Every parameter is its logarithm while it is searched.
    """
    gpus = sorted({cell.gpu for cell in cells})
    short = [cell for cell in cells if not cell.long]
    start = {gpu: dict(zip(_FIELDS, _START, strict=True)) for gpu in gpus}
    link = "link_efficiency"
    start = _search(start, ("compute_efficiency", "prefill_layer_s"), link, short, _prefill_ratios)
    start = _search(start, ("bandwidth_efficiency", "decode_layer_s", "sequence_layer_s"), None, cells, _step_ratios)
    return {gpu: EngineConstants(**{name: float(f"{x:.3g}") for name, x in start[gpu].items()}) for gpu in gpus}


Values = dict[str, dict[str, float]]


def _search(
    start: Values,
    own: Sequence[str],
    shared: str | None,
    cells: Sequence[Cell],
    ratios: Callable[[Sequence[Cell], Constants], FloatArray],
) -> Values:
    """`start` with the `own` fields of each GPU and the `shared` one replaced by those that fit the cells best."""
    names = [(gpu, field) for gpu in start for field in own]

    def put(x: FloatArray) -> Values:
        values = {gpu: dict(fields) for gpu, fields in start.items()}
        for (gpu, field), log in zip(names, x, strict=False):
            values[gpu][field] = float(np.exp(log))
        for fields in values.values() if shared else ():
            fields[shared or ""] = float(np.exp(x[-1]))
        return values

    def residuals(x: FloatArray) -> FloatArray:
        return ratios(cells, {gpu: EngineConstants(**fields) for gpu, fields in put(x).items()})

    first = np.log([start[gpu][field] for gpu, field in names])
    most = np.array([0.0 if field.endswith("efficiency") else np.inf for _, field in names])
    if shared:
        first, most = np.append(first, np.log(next(iter(start.values()))[shared])), np.append(most, 0.0)
    return put(least_squares(residuals, first, bounds=(-np.inf, most)).x)


def speed_of(cell: Cell, constants: Constants) -> Speed:
    """The replica that the cell was measured on; all its memory may be used."""
    engine = EngineSpec(
        basis="measured", default=constants[cell.gpu], memory_utilisation=1.0, reserved_gb=0.0, context_tokens=2
    )
    replica = Replica(gpu=cell.gpu, tensor_parallel=cell.tensor)
    speed = replica_speed(MODELS[cell.model], SPECS[cell.gpu], replica, engine)
    if speed is None:
        gpus = f"{cell.tensor} x {cell.gpu}"
        raise InputDataError(f"{cell.model} does not fit on {gpus}, where the data say it ran")
    return speed


def modelled(cell: Cell, constants: Constants) -> tuple[float, float, float]:
    """Prefill, mean decode step and whole answer, seconds."""
    speed, steps = speed_of(cell, constants), cell.output - 1
    prefill_s = speed.prefill_s(*[cell.prompt] * cell.batch)
    step_s = speed.step_s(cell.batch, round(cell.batch * (cell.prompt + (1 + steps) / 2)))
    return prefill_s, step_s, prefill_s + steps * step_s


def _prefill_ratios(cells: Sequence[Cell], constants: Constants) -> FloatArray:
    return np.log([modelled(cell, constants)[0] / cell.prefill_s for cell in cells])


def _step_ratios(cells: Sequence[Cell], constants: Constants) -> FloatArray:
    return np.log([modelled(cell, constants)[1] / cell.step_s for cell in cells])


# --- the error --------------------------------------------------------------------------------------------------------


def error_lines(cells: Sequence[Cell], bloom: Sequence[Cell], constants: Constants) -> list[str]:
    """Errors of the fit and of what it was not shown, one line each."""
    short, seen = [c for c in cells if not c.long], [c for c in cells if not c.held]
    held = [c for c in short if c.held]
    lines = [
        error_line("fitted cells, pass <= 2,048", [c for c in short if not c.held], constants),
        error_line("held back, pass <= 2,048", held, constants),
        error_line("held back, longer pass", [c for c in cells if c.long and c.held], constants),
        error_line("fitted decode, longer pass", [c for c in seen if c.long], constants),
    ]
    for tensor in sorted({c.tensor for c in cells}):
        without = fit_constants([c for c in seen if c.tensor != tensor])
        lines.append(error_line(f"fit without TP {tensor}, on it", [c for c in short if c.tensor == tensor], without))
    for gpu, other in (("h100", "a100"), ("a100", "h100")):
        lent = {gpu: constants[other]}
        lines.append(error_line(f"{gpu} by {other}'s constants", [c for c in short if c.gpu == gpu], lent))
    lines.append(error_line("BLOOM-176B, pass <= 2,048", [c for c in bloom if not c.long], constants))
    return lines


def error_line(name: str, cells: Sequence[Cell], constants: Constants) -> str:
    """`name` and the errors of the three times."""
    found = np.array([errors(cell, constants) for cell in cells])
    parts = [" / ".join(f"{100 * x:.0f}" for x in (*np.quantile(part, (0.5, 0.9)), part.max())) for part in found.T]
    return f"  {name:<28}{len(cells):>3} cells  " + "  ".join(f"{part:<14}" for part in parts).rstrip()


def efficiency_text(gpu: str, use: EngineConstants) -> str:
    """`tensor_parallel_efficiency` of Llama-2-70B on 2, 4 and 8 GPUs of a type."""
    engine, model = EngineSpec(basis="measured", default=use), MODELS["llama2-70b"]
    replicas = [Replica(gpu=gpu, tensor_parallel=tensor) for tensor in (2, 4, 8)]
    found = [tensor_parallel_efficiency(model, SPECS[gpu], replica, engine) for replica in replicas]
    return f"{gpu} {' / '.join(f'{x:.2f}' for x in found)}"


def errors(cell: Cell, constants: Constants) -> FloatArray:
    """Relative errors of prefill, decode step and whole answer."""
    measured = np.array([cell.prefill_s, cell.step_s, cell.whole_s])
    ratio: FloatArray = np.array(modelled(cell, constants)) / measured
    return np.abs(ratio - 1.0)


def document(constants: Constants) -> dict[str, Node]:
    """The engine as YAML."""
    both = list(constants.values())
    middle = {name: float(np.prod([getattr(c, name) for c in both]) ** (1 / len(both))) for name in _FIELDS}
    about = "extrapolated: geometric mean of a100 and h100"
    return {
        "basis": "measured",
        "default": {name: sourced(value, about, 3) for name, value in middle.items()},
        "by_gpu": {
            gpu: {name: Sourced(getattr(c, name), f"fit, Llama-2-70B on {gpu}") for name in _FIELDS}
            for gpu, c in constants.items()
        },
        "prefill_tokens": Sourced(PREFILL_TOKENS, "assumption: a usual token budget of one pass"),
    }


if __name__ == "__main__":
    raise SystemExit(main())
