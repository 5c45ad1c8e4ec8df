"""Figures behind `conf/scenario/`, computed from recorded sets; the scenario files name them in brackets.

Usage: python -m experiments.fit_scenarios DATA_DIR

A line of a scenario that ends in `[errors.rate]` holds the figure of that name, to three significant digits. Nothing of
the data but these figures goes into the project.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import logit
from scipy.stats import norm

from experiments.fit_hybrid_api import FLASH, LIST_MONTH
from simulators.calibration import fit_lognormal, fit_lognormal_robust, logistic_normal_moments
from simulators.columns import read_columns
from simulators.errors import InputDataError, RoutefrontError
from simulators.outcomes import FloatArray

DIFFICULTY_SD = 0.588
"""Within-slice standard deviation of the difficulty, logits: that of `conf/scenario/hybrid_api.yaml`."""
FAST_CAPABILITY, REASONING_CAPABILITY = 1.6, 3.03
"""Of the same file's tiers."""
INSTRUCTION_LOSS = (0.10, 0.15, 0.20)
"""S2: reasoning models lose 10-20 % on instruction following; low, mid, high."""
SPECULATION = (4, 0.7, 0.1)
"""Draft tokens, acceptance, cost of a draft token: an assumption of `dual_lane`."""
FORMATTING_P95_S, FORMATTING_TTFT_S, FORMATTING_TTFT_SIGMA = 0.1, 0.02, 0.3
"""S0: the action lane answers in under 100 ms; network and prefill of it are an assumption."""
LANE_RANGES_S = {"plan_validation": (5.0, 120.0), "formal_verification": (10.0, 300.0)}
"""S0: latency of the reasoning lane's profiles, read as 5th and 95th percentile."""

SNAPSHOTS = (
    ("gpt-4-0613", "gpt-4-1106-preview", "gpt-4-0125-preview", "gpt-4-turbo-2024-04-09"),
    ("gpt-4-0613-FC", "gpt-4-1106-preview-FC", "gpt-4-0125-preview-FC", "gpt-4-turbo-2024-04-09-FC"),
    ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06"),
    ("gpt-4o-2024-05-13-FC", "gpt-4o-2024-08-06-FC"),
    ("gemini-1.5-pro-preview-0409", "gemini-1.5-pro-preview-0514"),
)
"""Dated snapshots of one model in bfcl, each series called in one way."""
AIDER = {
    "none": "gemini-2.5-flash-preview-05-20 (no think)",
    "full": "gemini-2.5-flash-preview-05-20 (24k think)",
    "gpt5_low": "gpt-5 (low)",
    "gpt5_medium": "gpt-5 (medium)",
    "gpt5_high": "gpt-5 (high)",
    "small": "gpt-4o-mini-2024-07-18",
    "r1": "DeepSeek R1",
}
"""Runs of the polyglot benchmark."""

Figures = dict[str, float]
Columns = Mapping[str, NDArray[Any]]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Print the figures behind the scenarios.")
    parser.add_argument("data_dir", type=Path, help="folder with outcomes/, traces/, prices/ and latency/")
    try:
        for name, value in compute_figures(parser.parse_args(argv).data_dir).items():
            print(f"[{name}] {', '.join(f'{v:.3g}' for v in value)}")
    except RoutefrontError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def compute_figures(data_dir: Path) -> dict[str, tuple[float, ...]]:
    """Every figure by name; one number each, but for the curve of the day.

    Raises:
        InputDataError: If a file, column, model or row that a figure comes from is missing.
    """
    parts: tuple[Callable[[Path], Figures], ...] = (arrivals, lengths, errors, speeds, prices, drift, dual_lane, effort)
    figures = {name: (value,) for part in parts for name, value in part(data_dir).items()}
    return {"arrivals.day_curve": day_curve(data_dir), **figures}


def day_curve(data_dir: Path) -> tuple[float, ...]:
    """24 hourly rates over their mean: ServeGen's m-small, 14 days."""
    rows = columns(data_dir / "traces" / "servegen_rate_by_model.parquet")
    small = rows["model"] == "m-small"
    hour = rows["t_s"][small] // 3600 % 24
    curve = np.array([rows["rate_rps"][small][hour == h].mean() for h in range(24)])
    return tuple((curve / curve.mean()).tolist())


def arrivals(data_dir: Path) -> Figures:
    """Burstiness of clients (ServeGen) and of one service (Azure)."""
    clients = columns(data_dir / "traces" / "servegen_rate_by_client.parquet")
    instants = columns(data_dir / "traces" / "azure2023_conv.parquet")["arrival_s"]
    gaps = [np.diff(instants[instants // 600 == w]) for w in np.unique(instants // 600)]
    return {
        **{f"arrivals.cv_{name}": client_cv(clients, model) for name, model in CLIENT_CV.items()},
        "arrivals.cv_azure": float(np.median([g.std() / g.mean() for g in gaps])),
    }


CLIENT_CV = {"small": "m-small", "mid": "m-mid", "r1": "deepseek-r1"}


def client_cv(clients: Columns, model: str) -> float:
    """The cv of the client whose request is the median one: median over client windows, weighted by rate."""
    of = (clients["model"] == model) & np.isfinite(clients["cv"])
    order = np.argsort(clients["cv"][of])
    weight = np.cumsum(clients["rate_rps"][of][order])
    return float(clients["cv"][of][order][np.searchsorted(weight, weight[-1] / 2)])


def lengths(data_dir: Path) -> Figures:
    """Token lengths of two traces and of function calls, cacheable input, thinking share."""
    found: Figures = {}
    for trace in ("azure2023_conv", "azure2023_code"):
        rows = columns(data_dir / "traces" / f"{trace}.parquet")
        for side in ("input", "output"):
            found |= lognormal_figures(f"{trace}.{side}", rows[f"{side}_tokens"])
    calls = columns(data_dir / "outcomes" / "bfcl_outcomes.parquet")
    small = calls["model"] == "claude-3-haiku-20240307"
    for side in ("input", "output"):
        found |= lognormal_figures(f"bfcl.{side}", calls[f"{side}_tokens"][small])
    chat = columns(data_dir / "traces" / "mooncake_conv.parquet")
    cached = 512 * chat["n_prefix_blocks_seen_before"].sum() / chat["input_tokens"].sum()
    hist = columns(data_dir / "traces" / "servegen_token_hist.parquet")
    thinking = np.flatnonzero((hist["model"] == "deepseek-r1") & (hist["field"] == "reason_ratio"))
    _, first = np.unique(hist["window_s"][thinking], return_index=True)  # one mean per window, repeated in each bin
    ratio = float(np.average(hist["mean"][thinking[first]], weights=hist["window_requests"][thinking[first]]))
    return found | {"mooncake.cached_share": float(cached), "r1.inflation": 1.0 / (1.0 - ratio)}


def lognormal_figures(name: str, tokens: NDArray[Any]) -> Figures:
    """Median and log sd of positive lengths."""
    fit = fit_lognormal_robust(tokens[tokens > 0].astype(np.float64))
    return {f"{name}_median": fit.median, f"{name}_sigma": fit.sigma}


def errors(data_dir: Path) -> Figures:
    """Share of failed requests that no rate limit refused (llmperf)."""
    rows = read_columns(data_dir / "latency" / "llmperf_requests.parquet")
    code = rows["error_code"].to_pylist()
    limited = code.count(429)
    failed = sum(c is not None for c in code) - limited
    return {"errors.rate": failed / (len(code) - limited), "errors.limited": limited / len(code)}


def speeds(data_dir: Path) -> Figures:
    """Decode speeds of two measured deployments, and the spread of one model over providers."""
    rows = columns(data_dir / "latency" / "llmperf_requests.parquet")
    decode_s = rows["latency_s"] - rows["ttft_s"]
    ok = np.isnan(rows["error_code"]) & (rows["ttft_s"] > 0) & (rows["model"] == "llama-2-70b-chat")
    speed = rows["output_tokens"][ok] / decode_s[ok]
    groq = rows["provider"][ok] == "groq"
    gpus = [
        1000.0 / float(row["token_time"])
        for row in read_gzip(data_dir / "latency" / "splitwise_perf_model.csv.gz")
        if (row["model"], row["hardware"], row["tensor_parallel"], row["batch_size"])
        == ("llama2-70b", "h100-80gb", "8", "8")
    ]
    return {
        "speed.groq": float(np.median(speed[groq])),
        "speed.h100": float(np.median(gpus)),
        "speed.quartile_over_median": float(np.quantile(speed, 0.25) / np.median(speed)),
    }


PRICES = {
    "flash": ("litellm 1.109.1", "gemini/gemini-2.5-flash", "gemini"),
    "gpt5": ("litellm 1.109.1", "gpt-5", "openai"),
    "pro": ("litellm 1.109.1", "gemini/gemini-2.5-pro", "gemini"),
    "small": ("genai-prices 0.2.3", "llama-3.1-8b-instant", "groq"),
    "r1": ("litellm 1.109.1", "deepinfra/deepseek-ai/DeepSeek-R1", "deepinfra"),
}
PRICE_COLUMNS = {"input": "input_usd_per_mtok", "output": "output_usd_per_mtok", "cached": "cache_read_usd_per_mtok"}


def prices(data_dir: Path) -> Figures:
    """List prices of one month, the batch discount, and by how much output prices fell in two years."""
    rows = read_gzip(data_dir / "prices" / "prices.csv.gz")
    found: Figures = {}
    for name, (price_list, model, provider) in PRICES.items():
        card = {"list": price_list, "list_month": LIST_MONTH, "model": model, "provider": provider}
        row = only([r for r in rows if card.items() <= r.items()], f"price {card}")
        found |= {f"price.{name}_{k}": float(row[c]) for k, c in PRICE_COLUMNS.items() if row[c]}
        if row["batch_output_usd_per_mtok"]:
            batch = float(row["batch_output_usd_per_mtok"]) / float(row["output_usd_per_mtok"])
            found[f"price.{name}_batch_discount"] = 1.0 - batch
    by_list: dict[str, dict[tuple[str, str], float]] = {"litellm 1.55.0": {}, "litellm 1.109.1": {}}
    for row in rows:
        if row["list"] in by_list and float(row["output_usd_per_mtok"] or 0.0) > 0:
            by_list[row["list"]][row["model"], row["provider"]] = float(row["output_usd_per_mtok"])
    old, new = by_list.values()
    ratio = np.array([new[key] / old[key] for key in sorted(old.keys() & new.keys())])
    return found | {"price.fall": float(np.median(ratio[ratio < 0.99]))}


def drift(data_dir: Path) -> Figures:
    """Change of the pass rate, logits, from one dated snapshot of a model to the next: the falls (bfcl)."""
    score = pass_rates(data_dir, "bfcl")
    steps = [logit(score[b]) - logit(score[a]) for series in SNAPSHOTS for a, b in itertools.pairwise(series)]
    falls = [step for step in steps if step < 0]
    return {"drift.falls": len(falls) / len(steps), "drift.quality": float(np.mean(falls)), "drift.worst": min(falls)}


def dual_lane(data_dir: Path) -> Figures:
    """Difficulties and shifts that meet recorded scores, token lengths and speeds that meet S0's latencies."""
    facts, crux = pass_rates(data_dir, "paretobandit", "openbookqa"), pass_rates(data_dir, "zeroeval", "crux")
    small, r1 = aider_run(data_dir, "small"), aider_run(data_dir, "r1")
    targets = {
        "vector_retrieval": (facts["llama-3.1-8b-instruct"], facts["gemini-2.5-pro"]),
        "plan_validation": (crux["Meta-Llama-3.1-8B-Instruct"], crux["o1-mini-2024-09-12"]),
        "formal_verification": (small["pass"] / small["well_formed"], r1["pass"] / r1["well_formed"]),
    }
    found: Figures = {}
    for name, (action, reasoning) in targets.items():
        difficulty = FAST_CAPABILITY - capability_for(action)
        found[f"dual.{name}_difficulty"] = difficulty
        found[f"dual.{name}_shift"] = capability_for(reasoning) - (REASONING_CAPABILITY - difficulty)
    k, accepted, draft_cost = SPECULATION
    speed_up = (1 - accepted ** (k + 1)) / ((1 - accepted) * (k * draft_cost + 1))
    tokens_per_s = speed_up * speeds(data_dir)["speed.h100"]
    for name, (low, high) in LANE_RANGES_S.items():
        visible = tokens_per_s * np.sqrt(low * high) / lengths(data_dir)["r1.inflation"]
        sigma = np.log(high / low) / (2 * norm.ppf(0.95))
        found |= {f"dual.{name}_output_median": float(visible), f"dual.{name}_output_sigma": float(sigma)}
    calls = pass_rates(data_dir, "bfcl")["Salesforce_xLAM-7b-fc-r"]
    return found | {
        "dual.action_tokens_per_s": action_speed(data_dir),
        "dual.speed_up": speed_up,
        "dual.tools_action": calls,
        "dual.tools_reasoning": calls * (1.0 - INSTRUCTION_LOSS[1]),
        "dual.format_action": small["well_formed"],
        "dual.format_reasoning": r1["well_formed"],
    }


def action_speed(data_dir: Path) -> float:
    """Decode speed at which 95 % of formatted calls are there within S0's 100 ms (100,000 draws, seed 0)."""
    calls = lengths(data_dir)
    z = np.random.default_rng(0).standard_normal((2, 100_000))
    tokens = np.maximum(np.rint(calls["bfcl.output_median"] * np.exp(calls["bfcl.output_sigma"] * z[0])), 1.0)
    ttft_s = FORMATTING_TTFT_S * np.exp(FORMATTING_TTFT_SIGMA * z[1])
    return float(brentq(lambda v: np.quantile(ttft_s + tokens / v, 0.95) - FORMATTING_P95_S, 50.0, 1e4))


def effort(data_dir: Path) -> Figures:
    """One model's thinking modes and a reasoning model, from aider's runs and paretobandit's slices."""
    runs = {name: aider_run(data_dir, name) for name in AIDER}
    overall = pass_rates(data_dir, "paretobandit")[FLASH]
    none = capability_for(overall)
    difficulty = none - capability_for(runs["none"]["pass"])
    gain = capability_for(runs["full"]["pass"]) - capability_for(runs["none"]["pass"])
    ladder = capability_for(runs["gpt5_high"]["pass"]) - capability_for(runs["gpt5_medium"]["pass"])
    thought = runs["full"]["tokens"] / runs["none"]["tokens"]
    modes = {"none": none, "less": none + gain - ladder, "full": none + gain}
    modes["reasoning"] = difficulty + capability_for(runs["gpt5_high"]["pass"])
    found: Figures = {f"effort.capability_{mode}": value for mode, value in modes.items()}
    for name, source in {"chat": None, "exam_knowledge": "mmlu", "word_problems": "gsm8k"}.items():
        score = pass_rates(data_dir, "paretobandit", source)
        own = found[f"effort.{name}_difficulty"] = none - capability_for(score[FLASH])
        found[f"effort.{name}_shift"] = capability_for(score["gemini-2.5-pro"]) - (modes["reasoning"] - own)
    for mode, loss in zip(("less", "full", "reasoning"), INSTRUCTION_LOSS, strict=True):
        found[f"effort.instructions_shift_{mode}"] = capability_for(overall * (1.0 - loss)) - modes[mode]
    visible = runs["none"]["tokens"]
    sigma = fit_lognormal(coded(data_dir)).sigma
    return found | {
        "effort.code_difficulty": difficulty,
        "effort.chat_shift_less": none - modes["less"],
        "effort.chat_shift_full": none - modes["full"],
        "effort.code_input_median": runs["none"]["input"],
        "effort.code_output_sigma": sigma,
        "effort.code_output_median": visible / float(np.exp(sigma**2 / 2)),
        "effort.inflation_less": thought * runs["gpt5_medium"]["tokens"] / runs["gpt5_high"]["tokens"],
        "effort.inflation_full": thought,
        "effort.inflation_reasoning": runs["gpt5_high"]["tokens"] / visible,
        **{f"effort.speed_{n}": runs[n]["tokens"] / runs[n]["seconds"] for n in ("none", "full", "gpt5_high")},
        **{f"effort.format_{n}": runs[n]["well_formed"] for n in ("none", "full", "gpt5_high")},
    }


def coded(data_dir: Path) -> FloatArray:
    """Output tokens of the one model with recorded tokens on paretobandit's code slice."""
    rows = columns(data_dir / "outcomes" / "paretobandit_outcomes.parquet")
    return np.asarray(rows["output_tokens"][(rows["slice"] == "mbpp") & (rows["model"] == FLASH)], dtype=np.float64)


def aider_run(data_dir: Path, name: str) -> dict[str, float]:
    """Pass rate, well-formed share, input and output tokens and seconds per case of one run."""
    with (data_dir / "latency" / "aider_aggregate.csv").open(encoding="utf-8", newline="") as lines:
        rows = [r for r in csv.DictReader(lines) if (r["board"], r["model"]) == ("polyglot_leaderboard", AIDER[name])]
    row = only(rows, f"aider run {AIDER[name]!r}")
    cases = float(row["test_cases"])
    return {
        "pass": float(row["pass_rate_2"]) / 100,
        "well_formed": float(row["percent_cases_well_formed"]) / 100,
        "input": float(row["prompt_tokens"] or "nan") / cases,
        "tokens": float(row["completion_tokens"] or "nan") / cases,
        "seconds": float(row["seconds_per_case"]),
    }


def capability_for(mean_quality: float) -> float:
    """Capability minus difficulty, logits, at which the mean quality of a slice is this."""

    def excess(gap: float) -> float:
        return float(logistic_normal_moments(np.array([gap]), np.zeros(1), DIFFICULTY_SD)[0][0, 0]) - mean_quality

    return float(brentq(excess, -20.0, 20.0))


def pass_rates(data_dir: Path, name: str, only_slice: str | None = None) -> dict[str, float]:
    """Mean score by model, of all queries or of one slice."""
    rows = columns(data_dir / "outcomes" / f"{name}_outcomes.parquet")
    of = np.ones(len(rows["score"]), dtype=np.bool_) if only_slice is None else rows["slice"] == only_slice
    if not of.any():
        raise InputDataError(f"{name} has no slice {only_slice!r}")
    models, code = np.unique(rows["model"][of], return_inverse=True)
    return dict(zip(models.tolist(), (np.bincount(code, rows["score"][of]) / np.bincount(code)).tolist(), strict=True))


def columns(path: Path) -> dict[str, NDArray[Any]]:
    """Columns of one file; numbers as float64, NaN where missing."""
    raw = read_columns(path)
    found = {name: raw[name].to_numpy() for name in raw.column_names}
    return {name: v.astype(np.str_ if v.dtype == object else np.float64) for name, v in found.items()}


def read_gzip(path: Path) -> list[dict[str, str]]:
    """Rows of a compressed CSV file."""
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
            return list(csv.DictReader(lines))
    except (OSError, EOFError) as error:
        raise InputDataError(f"{path} cannot be read: {error}") from error


def only(rows: list[dict[str, str]], what: str) -> dict[str, str]:
    """The one row that was meant."""
    if len(rows) != 1:
        raise InputDataError(f"expected one row of {what}; got {len(rows)}")
    return rows[0]


if __name__ == "__main__":
    sys.exit(main())
