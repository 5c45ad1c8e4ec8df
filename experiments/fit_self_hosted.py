"""Fits `conf/scenario/self_hosted.yaml` to recorded sets and to the engine model, with the source beside each number.

Usage: python -m experiments.fit_self_hosted DATA_DIR [--output conf/scenario/self_hosted.yaml]

The same data, GPU catalogue and engine constants give the same file, byte for byte. Times, prices and the load come
from the engine model by rules that are stated here and know no deployment that a search found.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from scipy.optimize import brentq

from experiments.calibrate_yaml import Node, Sourced, plain, render, sourced
from experiments.fit_hybrid_api import expected_lines, numbers, slice_tier_means
from experiments.fit_main import run_fit
from experiments.self_hosted_engine import FullLoad, Lengths, Times, full_loads, times
from simulators.calibration import QualityFit, fit_lognormal, fit_quality, logistic_normal_moments
from simulators.deployment.specs import FleetSpec
from simulators.outcomes import FloatArray, OutcomeTable
from simulators.recorded import read_recording
from simulators.scenario import parse_scenario, sample_scenario
from simulators.seeds import spawn_rng

GPU = "h100"
BUDGET_USD_PER_HOUR = 30.0
USED = 0.8
CHAT_SHARE = 0.5
N_REQUESTS = 4_000
COUNTED = 3_000

TIERS = {"small": "Meta-Llama-3.1-8B-Instruct", "large": "Meta-Llama-3.1-70B-Instruct"}
SLICE_OF_SOURCE = {"gsm": "maths", "crux": "code_reasoning"}
JUDGED = ("llama-3.1-8b-instruct", "mistral-large-2512")

HEADER = """\
# routefront tune scenario=self_hosted world=none constraints.quality_floor=0.82 out=runs/self_hosted
# routefront tune scenario=self_hosted space=deployment controller=boute 'objectives=[latency_p95,quality]' out=runs/f
#
{expected}
#
# Two models on GPUs of one's own, three kinds of work. Written by `python -m experiments.fit_self_hosted DATA_DIR`: do
# not edit. Other GPUs: gpus@scenario.fleet.gpus=types_6; other engine constants: engine@scenario.fleet.engine=NAME.
# Sets: zeroeval ({n_queries:,} queries answered by both models), azure2023_conv ({n_chats:,} requests), paretobandit.
# Assumptions: no set has both models on chat. The small one is as good there as judges found it in paretobandit, the
# large one as many logits better as in zeroeval, which gives {large:.3f} (paretobandit: mistral-large {judged:.3f}).
# The share of chat; that its answers are right or wrong like the rest; that the small model's are longer there too.
# Prices: GPUs cost by the hour, and `fleet_cost` counts that. The token prices are a stand-in: what the {gpu}s of a
# replica cost over what it reads and writes at full load (small {small:.3g} requests/s, large {big:.3g}).
# They order the tiers and price baselines.
# Times: of the same replicas without load; with space=deployment latency is that of the fleet.
# Limits: quality is an additive logit model; the recorded slice x tier means are met within {max_error:.3f}.
# All times and prices of the small model are extrapolated: Splitwise has neither its size nor a replica of one GPU.
defaults:
  - /gpus@fleet.gpus: types_3
  - /engine@fleet.engine: splitwise
  - _self_
"""

MODELS: dict[str, dict[str, Node]] = {
    "small": {
        "weights": Sourced("meta-llama/Llama-3.1-8B-Instruct", "what an engine loads it by"),
        "parameters_b": Sourced(8.03, "model card: 8.03 B"),
        "layers": Sourced(32, "config.json: num_hidden_layers"),
        "hidden": Sourced(4096, "config.json: hidden_size"),
        "kv_heads": Sourced(8, "config.json: num_key_value_heads"),
        "head_dim": Sourced(128, "config.json: hidden_size / num_attention_heads (32)"),
        "basis": Sourced("extrapolated", "splitwise measured no model of this size"),
    },
    "large": {
        "weights": Sourced("meta-llama/Llama-3.1-70B-Instruct", "what an engine loads it by"),
        "parameters_b": Sourced(70.6, "model card: 70.6 B"),
        "layers": Sourced(80, "config.json: num_hidden_layers"),
        "hidden": Sourced(8192, "config.json: hidden_size"),
        "kv_heads": Sourced(8, "config.json: num_key_value_heads"),
        "head_dim": Sourced(128, "config.json: hidden_size / num_attention_heads (64)"),
        "basis": Sourced("measured", "splitwise measured llama2-70b, whose layers are the same"),
    },
}


@dataclass(frozen=True, kw_only=True)
class Chat:
    """The chat slice.

    Attributes:
        input_tokens, output_tokens: Recorded lengths.
        small: Mean score of the small model in paretobandit.
        judged: That of its mistral-large.
        difficulty: Where the small model has this mean, logits.
        large: What the large model then has.
    """

    input_tokens: FloatArray
    output_tokens: FloatArray
    small: float
    judged: float
    difficulty: float
    large: float


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What the engine model adds.

    Attributes:
        times: Tier -> times without load.
        loads: Tier -> its best replica at full load.
        rate_per_s: Requests per second of the scenario.
        alone: The replicas of the large model that serve most on the budget alone.
        replicas: How many of them.
    """

    times: Mapping[str, Times]
    loads: Mapping[str, FullLoad]
    rate_per_s: float
    alone: FullLoad
    replicas: int


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    return run_fit(
        argv,
        fit,
        description="Fit the self_hosted scenario to recorded sets and the engine model.",
        holds="outcomes/ and traces/",
        output="conf/scenario/self_hosted.yaml",
    )


def fit(data_dir: Path) -> str:
    """The text of the YAML file.

    Raises:
        InputDataError: If a file, column or model that a number comes from is missing.
    """
    table = read_recorded(data_dir)
    quality = fit_quality(table)
    chat = read_chat(data_dir, quality)
    engine = engine_figures(asked_of(document_of(table, quality, chat, None)))
    document = document_of(table, quality, chat, engine)
    header = HEADER.format(
        expected="\n".join(f"# {line}" for line in expected_lines(plain(document))),
        n_queries=table.n_queries,
        n_chats=len(chat.input_tokens),
        large=chat.large,
        judged=chat.judged,
        gpu=GPU.upper(),
        small=engine.loads["small"].requests_per_s,
        big=engine.loads["large"].requests_per_s,
        max_error=float(np.abs(quality.mean_quality - slice_tier_means(table)).max()),
    )
    return header + "\n".join(render({**document, "fleet": fleet_node(engine)})) + "\n"


def read_recorded(data_dir: Path) -> OutcomeTable:
    """The answers of both models in zeroeval, slices renamed.

    Raises:
        InputDataError: If a file or model is missing.
    """
    folder = data_dir / "outcomes"
    queries, outcomes = folder / "zeroeval_queries.parquet", folder / "zeroeval_outcomes.parquet"
    table = read_recording(queries, outcomes, list(TIERS.values()), keep_order=True).table
    names = tuple(SLICE_OF_SOURCE[name] for name in table.slices)
    return dataclasses.replace(table, slices=names, _hash=[])


def read_chat(data_dir: Path, quality: QualityFit) -> Chat:
    """Lengths of recorded chats, and the difficulty at which the small model is as good as judges found it.

    Raises:
        InputDataError: If a file, column or model is missing.
    """
    used = numbers(data_dir / "traces" / "azure2023_conv.parquet", ("input_tokens", "output_tokens"))
    folder = data_dir / "outcomes"
    queries, outcomes = folder / "paretobandit_queries.parquet", folder / "paretobandit_outcomes.parquet"
    small, judged = read_recording(queries, outcomes, list(JUDGED), keep_order=True).table.quality.mean(axis=0)

    def means(difficulty: float) -> FloatArray:
        mean, _ = logistic_normal_moments(quality.capability, np.array([difficulty]), quality.difficulty_sd)
        return np.asarray(mean[0], dtype=np.float64)

    difficulty = float(brentq(lambda d: means(d)[0] - small, -20.0, 20.0))
    large = float(means(difficulty)[1])
    return Chat(**used, small=float(small), judged=float(judged), difficulty=difficulty, large=large)


def document_of(table: OutcomeTable, quality: QualityFit, chat: Chat, engine: Engine | None) -> dict[str, Node]:
    """The scenario without its fleet; times and prices are 1 as long as the engine has not been asked."""
    joint = "zeroeval, moments of both slices and tiers: "
    binary = joint + "right or wrong, so the least that a Beta can have"
    slices: dict[str, Node] = {name: slice_node(of, name, table, quality) for of, name in SLICE_OF_SOURCE.items()}
    return {
        "name": "self_hosted",
        "difficulty_sd": sourced(quality.difficulty_sd, joint + "within-slice covariance between tiers", 3),
        "quality_precision": sourced(quality.quality_precision, binary, 3),
        "classifier_agreement": Sourced(0.85, 'source document S1: "ML classifier ~85 % held out"'),
        "tiers": {name: tier_node(name, table, quality, engine) for name in TIERS},
        "slices": {**slices, "chat": chat_node(chat, float(ratios(table).max()), shipped_fleet())},
    }


def slice_node(of: str, name: str, table: OutcomeTable, quality: QualityFit) -> dict[str, Node]:
    """One slice of zeroeval; its answers are as long as the large model's."""
    s = table.slices.index(name)
    rows = table.slice_code == s
    share = (1.0 - CHAT_SHARE) * float(rows.mean())
    inputs, outputs = fit_lognormal(table.input_tokens[rows, 1]), fit_lognormal(table.output_tokens[rows, 1])
    count = f"{int(rows.sum())} of {table.n_queries:,} queries"
    origin = f"zeroeval, {of}"
    return {
        "share": Sourced(round(share, 6), f"assumption: what chat leaves; of that, as in zeroeval: {count}"),
        "difficulty": sourced(quality.difficulty[s], f"{origin}: joint fit of slice x tier means", 3),
        "input_tokens_median": sourced(inputs.median, f"{origin}: mean / exp(sigma^2 / 2), recounted", 3),
        "input_tokens_sigma": sourced(inputs.sigma, f"{origin}: sd of log input tokens", 3),
        "output_tokens_median": sourced(outputs.median, f"{origin}, {TIERS['large']}: mean / exp(sigma^2 / 2)", 3),
        "output_tokens_sigma": sourced(outputs.sigma, f"{origin}, {TIERS['large']}: sd of log output tokens", 3),
    }


def chat_node(chat: Chat, longer: float, fleet: FleetSpec) -> dict[str, Node]:
    """The chat slice."""
    found = f"where {JUDGED[0]} has its mean judge score in paretobandit, {chat.small:.3f}"
    return {
        "share": Sourced(CHAT_SHARE, "assumption: half; low 0.2, high 0.8"),
        "difficulty": sourced(chat.difficulty, found, 3),
        "input_length": {**length_node(chat.input_tokens, "input"), "most_tokens": context_left(chat, longer, fleet)},
        "output_length": {
            **length_node(chat.output_tokens, "output"),
            "most_tokens": Sourced(int(chat.output_tokens.max()), "azure2023_conv, output tokens: the largest"),
        },
    }


def length_node(tokens: FloatArray, side: str) -> dict[str, Node]:
    """A gamma law with the recorded mean and spread, which the load depends on."""
    origin = f"azure2023_conv, {side} tokens"
    return {
        "kind": Sourced("gamma", "assumption: mean and spread are kept exactly, the shape is not"),
        "mean": sourced(float(tokens.mean()), f"{origin}: mean of {len(tokens):,}", 4),
        "cv": sourced(float(tokens.std() / tokens.mean()), f"{origin}: sd / mean", 3),
    }


def context_left(chat: Chat, longer: float, fleet: FleetSpec) -> Sourced:
    """The longest prompt that has room beside the longest answer; above it a replica may never serve a request."""
    window = fleet.engine.context_tokens
    most = window - math.ceil(longer * chat.output_tokens.max())
    above = float(np.mean(chat.input_tokens > most))
    return Sourced(most, f"the engine's {window:,} tokens less the longest answer; {100 * above:.1g} % of the recorded")


def tier_node(name: str, table: OutcomeTable, quality: QualityFit, engine: Engine | None) -> dict[str, Node]:
    """One tier's parameters with their sources."""
    k = list(TIERS).index(name)
    longer = "zeroeval: mean visible tokens over those of the large model, recounted"
    node: dict[str, Node] = {
        "capability": sourced(quality.capability[k], f"zeroeval, {TIERS[name]}: joint fit of slice x tier means", 3)
    }
    return {**node, **engine_node(name, engine), "verbosity": sourced(ratios(table)[k], longer, 3)}


def ratios(table: OutcomeTable) -> FloatArray:
    """`K` mean output tokens over those of the large model."""
    means = table.output_tokens.mean(axis=0)
    return np.asarray(means / means[list(TIERS).index("large")], dtype=np.float64)


def engine_node(name: str, engine: Engine | None) -> dict[str, Node]:
    """Prices and times of one replica."""
    fields = ("input_usd_per_mtok", "output_usd_per_mtok", "ttft_median_s", "ttft_sigma", "tokens_per_s")
    if engine is None:
        return dict.fromkeys(fields, 1.0)
    load, alone = engine.loads[name], engine.times[name]
    full, empty = (f"engine model, {load.replica.text}, {when}" for when in ("full load", "no load"))
    values = (load.input_usd_per_mtok, load.output_usd_per_mtok, *dataclasses.astuple(alone))
    sources = (
        f"{full}: cost of reading over input tokens",
        f"{full}: the other cost over output tokens",
        f"{empty}: median TTFT",
        f"{empty}: sd of log TTFT",
        f"{empty}: median tokens / time, after the first",
    )
    return {field: sourced(v, source, 3) for field, v, source in zip(fields, values, sources, strict=True)}


def asked_of(document: Mapping[str, Node]) -> dict[str, Lengths]:
    """Tier -> lengths of requests if all went to it."""
    spec = parse_scenario(plain(document))
    table = sample_scenario(spec, n_queries=N_REQUESTS, rng=spawn_rng(0, "scenario"))
    return {
        name: Lengths(
            input_tokens=np.maximum(table.input_tokens[:, k], 1.0),
            output_tokens=np.maximum(np.rint(table.output_tokens[:, k]), 1.0),
        )
        for k, name in enumerate(table.tiers)
    }


def engine_figures(asked: Mapping[str, Lengths]) -> Engine:
    """Prices, times and the load, by the shipped GPU catalogue and engine constants."""
    fleet = shipped_fleet()
    gpu = fleet.gpus[GPU]
    bought = min(gpu.count, int(BUDGET_USD_PER_HOUR / gpu.usd_per_hour))
    found = {name: full_loads(fleet, name, GPU, of) for name, of in asked.items()}
    loads = {name: max(of, key=lambda load: load.per_gpu) for name, of in found.items()}
    alone = max(found["large"], key=lambda load: bought // load.replica.n_gpus * load.requests_per_s)
    replicas = bought // alone.replica.n_gpus
    return Engine(
        times={name: times(fleet, name, loads[name].replica, of) for name, of in asked.items()},
        loads=loads,
        rate_per_s=float(f"{USED * replicas * alone.requests_per_s:.2g}"),
        alone=alone,
        replicas=replicas,
    )


def shipped_fleet() -> FleetSpec:
    """The models of this scenario on the GPUs of `types_3` with the engine `splitwise`."""
    with initialize_config_module("conf", version_base="1.3"):
        groups = compose(overrides=["+gpus@gpus=types_3", "+engine@engine=splitwise"])
    raw = OmegaConf.to_container(groups, resolve=True)
    assert isinstance(raw, dict)
    models = {name: plain(node) for name, node in MODELS.items()}
    load = {"rate_per_s": 1.0, "budget_usd_per_hour": BUDGET_USD_PER_HOUR}
    return FleetSpec.model_validate({**raw, "models": models, **load})


def fleet_node(engine: Engine) -> dict[str, Node]:
    """The fleet section but for the groups in the defaults list."""
    alone = f"{engine.replicas} x {engine.alone.replica.text}, the large model alone on the budget"
    saturated = f"{engine.replicas * engine.alone.requests_per_s:.3g}/s"
    horizon = round(COUNTED / engine.rate_per_s, -1)
    return {
        "models": dict(MODELS),
        "rate_per_s": Sourced(engine.rate_per_s, f"rule: {100 * USED:g} % of the {saturated} of {alone}"),
        "budget_usd_per_hour": Sourced(BUDGET_USD_PER_HOUR, "Boute2026: budget of the main comparison"),
        "horizon_s": Sourced(horizon, f"assumption: about {COUNTED:,} requests, {COUNTED // 20} beyond the p95"),
    }


if __name__ == "__main__":
    sys.exit(main())
