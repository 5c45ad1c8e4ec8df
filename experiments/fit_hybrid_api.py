"""Fits `conf/scenario/hybrid_api.yaml` to recorded sets and writes it with the source beside each number.

Usage: python -m experiments.fit_hybrid_api DATA_DIR [--output conf/scenario/hybrid_api.yaml]

The same data give the same file, byte for byte. Nothing of the data but these fitted figures goes into the project.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.calibrate_yaml import Node, Sourced, plain, render, sourced
from experiments.fit_main import run_fit
from simulators.calibration import fit_inflation, fit_lognormal, fit_lognormal_robust, fit_quality
from simulators.columns import read_columns
from simulators.errors import InputDataError
from simulators.outcomes import FloatArray, OutcomeTable
from simulators.recorded import read_recording
from simulators.scenario import parse_scenario, sample_scenario
from simulators.seeds import spawn_rng

N_EXPECTED = 100_000
LIST_MONTH = "2026-11"
FLASH = "gemini-2.5-flash"

HEADER = """\
# routefront tune scenario=hybrid_api policy=thresholds controller=exact constraints.quality_floor=0.9 out=runs/demo
# routefront simulate scenario=hybrid_api shares=[0.5,0.3,0.2] load=0.5,1,2,4 output=runs/hybrid_api.json
#
{expected}
# Expected: simulate, load 0.5: quality 0.889, 3.28 USD per 1,000, p95 21.3 s, 0 % failed, reasoning 30 % busy
# Expected: simulate, load 1: quality 0.889, 3.28 USD per 1,000, p95 22.8 s, 0 % failed, reasoning 60 % busy
# Expected: simulate, load 2: quality 0.890, 3.23 USD per 1,000, p95 626 s, 0 % failed, reasoning 119 % busy
# Expected: simulate, load 4: quality 0.889, 3.23 USD per 1,000, p95 4,300 s, 0 % failed, reasoning 239 % busy
#
# Three tiers behind APIs, nine kinds of work. Written by `python -m experiments.fit_hybrid_api DATA_DIR`: do not edit.
# Sets: paretobandit ({n_queries:,} queries answered on every tier), llmperf (Llama-2 behind several providers), aider
# (whole benchmark runs), and price lists of one month ({month}).
# Assumptions: only {flash} has its tokens recorded: its input stands for every tier's input, its output for
# the visible tokens. A tier's billed output is (recorded cost - input price x input) / output price.
# Limits: quality is an additive logit model (capability - difficulty), so no tier can be better in one slice and worse
# in another; the recorded slice x tier means are met within {max_error:.3f}.
"""


@dataclass(frozen=True, kw_only=True)
class TierSource:
    """Where a tier's numbers come from.

    Attributes:
        tier: Name in the scenario.
        model: Model in paretobandit.
        price_list, price_model, price_provider: Row of the price file that the scenario bills by.
        recorded_usd_per_mtok: Input and output price behind the *recorded* cost; None if it is the list price.
        latency_model: Model in llmperf for the time to first token, and for the speed of a model that does not reason.
        reasoning: Whether hidden tokens are billed.
    """

    tier: str
    model: str
    price_list: str
    price_model: str
    price_provider: str
    recorded_usd_per_mtok: tuple[float, float] | None = None
    latency_model: str
    reasoning: bool = False


TIERS = (
    TierSource(
        tier="fast",
        model="llama-3.1-8b-instruct",
        price_list="genai-prices 0.2.3",  # litellm 1.109.1 no longer lists this model at groq
        price_model="llama-3.1-8b-instant",
        price_provider="groq",
        # Every recorded cost is a whole multiple of 1e-7 USD, and at 0.05 / 0.08 most would not be.
        recorded_usd_per_mtok=(0.10, 0.10),
        latency_model="llama-2-7b-chat",
    ),
    TierSource(
        tier="standard",
        model="mistral-large-2512",
        price_list="litellm 1.109.1",
        price_model="mistral/mistral-large-2512",
        price_provider="mistral",
        latency_model="llama-2-70b-chat",
    ),
    TierSource(
        tier="reasoning",
        model="gemini-2.5-pro",
        price_list="litellm 1.109.1",
        price_model="gemini/gemini-2.5-pro",
        price_provider="gemini",
        latency_model="llama-2-70b-chat",
        reasoning=True,
    ),
)
AIDER_MODEL = "gemini-2.5-pro-preview-06-05 (default think)"

SLICE_OF_SOURCE = {
    "mmlu": "exam_knowledge",
    "gsm8k": "word_problems",
    "openbookqa": "science_facts",
    "hellaswag": "everyday_continuation",
    "arc_challenge": "science_exam",
    "truthful_qa": "misconceptions",
    "winogrande": "pronouns",
    "mbpp": "code",
    "bbh": "puzzles",
}
"""Source slice -> kind of work; all of `bbh/*` is one slice."""


FIVE = Sourced(5, "llmperf: every figure of latency was measured with 5 requests at once")
TRAFFIC: dict[str, Node] = {
    "duration_s": Sourced(4000, "assumption: 4,000 requests at load 1"),
    "warmup_s": Sourced(400, "assumption: a tenth; a queue forgets within a few of the longest answers"),
    "arrivals": {
        "kind": Sourced("gamma", "ServeGen: the family that fits most clients' gaps"),
        "rate_per_s": Sourced(1, "assumption: with 20 % on reasoning, 0.2 x 14.5 s keep 0.58 of its slots busy"),
        "cv": Sourced(
            1.22, "ServeGen, m-small: cv of a client's gaps in 600 s, median by requests [arrivals.cv_small]"
        ),
    },
    "stations": {tier.tier: {"slots": FIVE} for tier in TIERS},
}
"""What tuning leaves out unless told otherwise; figures in brackets are printed by `experiments.fit_scenarios`."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The recorded set as the fits need it.

    Attributes:
        table: Outcomes of the three tiers, slices pooled and renamed.
        input_tokens: `N` input tokens of the one model whose tokens are recorded.
        visible_tokens: `N` output tokens of that model.
    """

    table: OutcomeTable
    input_tokens: FloatArray
    visible_tokens: FloatArray


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    return run_fit(
        argv,
        fit,
        description="Fit the hybrid_api scenario to recorded sets.",
        holds="outcomes/, prices/ and latency/",
        output="conf/scenario/hybrid_api.yaml",
    )


def fit(data_dir: Path) -> str:
    """The text of the YAML file.

    Raises:
        InputDataError: If a file, column, model or price that a number comes from is missing.
    """
    recorded = read_recorded(data_dir)
    quality = fit_quality(recorded.table)
    max_error = float(np.abs(quality.mean_quality - slice_tier_means(recorded.table)).max())
    joint = "paretobandit, moments of all slices and tiers: "
    document: dict[str, Node] = {
        "name": "hybrid_api",
        "difficulty_sd": sourced(quality.difficulty_sd, joint + "within-slice covariance between tiers", 3),
        "quality_precision": sourced(quality.quality_precision, joint + "residual variance", 3),
        "classifier_agreement": Sourced(0.85, 'source document S1: "ML classifier ~85 % held out"'),
        "tiers": {t.tier: tier_node(t, recorded, quality.capability[k], data_dir) for k, t in enumerate(TIERS)},
        "slices": {name: slice_node(of, name, recorded, quality.difficulty) for of, name in SLICE_OF_SOURCE.items()},
        "tune_under_load": Sourced(
            False, "assumption: the demo compares tiers as if nobody waited; world=traffic waits"
        ),
        "traffic": TRAFFIC,
    }
    header = HEADER.format(
        expected="\n".join(f"# {line}" for line in expected_lines(plain(document))),
        n_queries=recorded.table.n_queries,
        month=LIST_MONTH,
        flash=FLASH,
        max_error=max_error,
    )
    return header + "\n".join(render(document)) + "\n"


def read_recorded(data_dir: Path) -> Recorded:
    """The paretobandit set with pooled, renamed slices.

    Raises:
        InputDataError: If a file or model is missing, or a slice is one that no kind of work is named for.
    """
    folder = data_dir / "outcomes"
    models = [*(t.model for t in TIERS), FLASH]
    queries, outcomes = folder / "paretobandit_queries.parquet", folder / "paretobandit_outcomes.parquet"
    table = read_recording(queries, outcomes, models, keep_order=True).table
    pooled = [name.split("/")[0] for name in table.slices]
    unknown = sorted(set(pooled) - set(SLICE_OF_SOURCE))
    if unknown:
        raise InputDataError(f"no kind of work is named for the slice(s) {unknown}; add them to SLICE_OF_SOURCE")
    labels = np.array([SLICE_OF_SOURCE[name] for name in pooled])[table.slice_code]
    names, code = np.unique(labels, return_inverse=True)
    k = len(TIERS)
    per_tier = ("quality", "cost_usd", "latency_s", "ttft_s", "input_tokens", "output_tokens", "error")
    chosen = {name: getattr(table, name)[:, :k] for name in per_tier}
    own = dataclasses.replace(
        table, tiers=table.tiers[:k], slices=tuple(names.tolist()), slice_code=code.astype(np.int64), _hash=[], **chosen
    )
    return Recorded(table=own, input_tokens=table.input_tokens[:, k], visible_tokens=table.output_tokens[:, k])


def slice_tier_means(table: OutcomeTable) -> FloatArray:
    """`S x K` mean quality."""
    return np.stack([table.quality[table.slice_code == s].mean(axis=0) for s in range(len(table.slices))])


def tier_node(tier: TierSource, recorded: Recorded, capability: float, data_dir: Path) -> dict[str, Node]:
    """One tier's parameters with their sources."""
    price_in, price_out = read_price(tier, data_dir)
    card = f"{tier.price_list}, {LIST_MONTH}, {tier.price_provider}: {tier.price_model}"
    node: dict[str, Node] = {
        "capability": sourced(capability, f"paretobandit, {tier.model}: joint fit of slice x tier means", 3),
        "input_usd_per_mtok": sourced(price_in, card, 6),
        "output_usd_per_mtok": sourced(price_out, card, 6),
        **latency_node(tier, data_dir),
    }
    recorded_in, recorded_out = tier.recorded_usd_per_mtok or (price_in, price_out)
    cost = recorded.table.cost_usd[:, TIERS.index(tier)]
    billed = (cost * 1e6 - recorded_in * recorded.input_tokens) / recorded_out
    origin = f"paretobandit, {tier.model}: "
    formula = f"(cost - {recorded_in:g} input) / {recorded_out:g}"
    if not tier.reasoning:
        ratio = float(billed.mean() / recorded.visible_tokens.mean())
        node["verbosity"] = sourced(ratio, f"{origin}mean {formula}, over mean visible", 3)
        return node
    inflation = fit_inflation(recorded.visible_tokens, billed)
    node["verbosity"] = Sourced(1.0, f"assumption: visible tokens as those of {FLASH}")
    node["inflation_median"] = sourced(inflation.median, f"{origin}{formula}, over visible; at 200 visible", 3)
    node["inflation_exponent"] = sourced(inflation.exponent, f"{origin}slope of log inflation on log visible tokens", 3)
    node["inflation_sigma"] = sourced(inflation.sigma, f"{origin}residual log sd of that regression", 3)
    return node


def read_price(tier: TierSource, data_dir: Path) -> tuple[float, float]:
    """List price of input and output, USD per million tokens."""
    path = data_dir / "prices" / "prices.csv.gz"
    keys = ("list", "list_month", "model", "provider")
    wanted = dict(zip(keys, (tier.price_list, LIST_MONTH, tier.price_model, tier.price_provider), strict=True))
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if all(row.get(key) == value for key, value in wanted.items())]
        return float(rows[0]["input_usd_per_mtok"]), float(rows[0]["output_usd_per_mtok"])
    except IndexError:
        raise InputDataError(f"{path} has no row with {wanted}") from None
    except (OSError, EOFError, KeyError, ValueError) as error:
        raise InputDataError(f"{path} cannot be used as a price list: {error}") from error


def latency_node(tier: TierSource, data_dir: Path) -> dict[str, Node]:
    """Time to first token and decode speed of one tier.

    llmperf's `inter_token_latency_s` is latency over tokens and so contains the time to first token; the speed after
    the first token is tokens / (latency - ttft).
    """
    path = data_dir / "latency" / "llmperf_requests.parquet"
    rows = numbers(path, ("ttft_s", "latency_s", "inter_token_latency_s", "output_tokens"))
    raw = read_columns(path)
    ok = np.array([code is None for code in raw["error_code"].to_pylist()])
    ok &= np.array([model == tier.latency_model for model in raw["model"].to_pylist()])
    ok &= (rows["ttft_s"] > 0) & (rows["inter_token_latency_s"] > 0)
    ttft = fit_lognormal_robust(rows["ttft_s"][ok])
    origin = f"llmperf, {tier.latency_model}, {int(ok.sum())} requests: "
    if tier.reasoning:
        run = f"aider, {AIDER_MODEL}: completion tokens / seconds of the run"
        speed = sourced(aider_tokens_per_s(data_dir), run, 3)
    else:
        decode_s = rows["latency_s"] - rows["ttft_s"]
        median = float(np.median(rows["output_tokens"][ok] / decode_s[ok]))
        speed = sourced(median, f"{origin}median output tokens / (latency - TTFT)", 3)
    return {
        "ttft_median_s": sourced(ttft.median, f"{origin}median TTFT (550 input tokens)", 3),
        "ttft_sigma": sourced(ttft.sigma, f"{origin}IQR of log TTFT / 1.349, providers mixed", 3),
        "tokens_per_s": speed,
    }


def aider_tokens_per_s(data_dir: Path) -> float:
    """Completion tokens per second of a whole benchmark run, waiting included: a lower bound of the decode speed."""
    path = data_dir / "latency" / "aider_aggregate.csv"
    rows = numbers(path, ("completion_tokens", "test_cases", "seconds_per_case"))
    at = np.flatnonzero(np.array(read_columns(path)["model"].to_pylist()) == AIDER_MODEL)
    if len(at) != 1:
        raise InputDataError(f"{path} should have one row of {AIDER_MODEL!r}; it has {len(at)}")
    return float((rows["completion_tokens"] / (rows["test_cases"] * rows["seconds_per_case"]))[at[0]])


def numbers(path: Path, names: Sequence[str]) -> dict[str, FloatArray]:
    """Numeric columns of one file, NaN where missing.

    Raises:
        InputDataError: If the file cannot be read or a column is missing or not numeric.
    """
    raw = read_columns(path)
    missing = [name for name in names if name not in raw.column_names]
    if missing:
        raise InputDataError(f"{path} lacks the column(s) {missing}; it has {raw.column_names}")
    try:
        return {name: np.array(raw[name].to_pylist(), dtype=np.float64) for name in names}
    except (TypeError, ValueError) as error:
        raise InputDataError(f"{path}: expected numbers in the columns {list(names)}; {error}") from error


def slice_node(source_slice: str, name: str, recorded: Recorded, difficulty: FloatArray) -> dict[str, Node]:
    """One slice's parameters with their sources.

    Raises:
        InputDataError: If no recorded query belongs to the slice.
    """
    table = recorded.table
    if name not in table.slices:
        raise InputDataError(f"no query of the slice {source_slice} is recorded; expected some of every known slice")
    s = table.slices.index(name)
    rows = table.slice_code == s
    inputs, outputs = fit_lognormal(recorded.input_tokens[rows]), fit_lognormal(recorded.visible_tokens[rows])
    origin = f"paretobandit, {source_slice}" + ("/*" if source_slice == "bbh" else "")
    return {
        "share": Sourced(round(float(rows.mean()), 6), f"{origin}: {int(rows.sum())} of {table.n_queries:,} queries"),
        "difficulty": sourced(difficulty[s], f"{origin}: joint fit of slice x tier means", 3),
        "input_tokens_median": sourced(inputs.median, f"{origin}, {FLASH}: mean / exp(sigma^2 / 2)", 3),
        "input_tokens_sigma": sourced(inputs.sigma, f"{origin}, {FLASH}: sd of log input tokens", 3),
        "output_tokens_median": sourced(outputs.median, f"{origin}, {FLASH}: mean / exp(sigma^2 / 2)", 3),
        "output_tokens_sigma": sourced(outputs.sigma, f"{origin}, {FLASH}: sd of log output tokens", 3),
    }


def expected_lines(raw: Mapping[str, object]) -> list[str]:
    """What a user should see when every query goes to one tier."""
    table = sample_scenario(parse_scenario(raw), n_queries=N_EXPECTED, rng=spawn_rng(0, "scenario"))
    lines = [f"Expected: every query on one tier ({N_EXPECTED:,} queries, seed 0)"]
    for k, tier in enumerate(table.tiers):
        latency = table.latency_s[:, k]
        lines.append(
            f"Expected: {tier:<10} quality {table.quality[:, k].mean():.3f}, "
            f"{1e3 * table.cost_usd[:, k].mean():.3g} USD per 1,000 queries, "
            f"latency mean {latency.mean():.3g} s, p95 {np.quantile(latency, 0.95):.3g} s"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
