"""Exports: what LiteLLM gets is what was tuned, and LiteLLM's own code says so, prompt by prompt."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers import TIERS, run_cli, snapshot, write_columns, write_recording
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulators.errors import ExportError, InputDataError
from simulators.outcomes import QueryBatch
from toolkit.export.litellm import (
    BOUNDARY_NAMES,
    build_config,
    check_config,
    complexity_config,
    find_router,
    reachable_tiers,
    refuse_inexpressible,
)
from toolkit.export.provenance import MARK, provenance_lines
from toolkit.export.schema import LanesFile, PolicyFile, Provenance, read_policy
from toolkit.policies.base import decide
from toolkit.policies.thresholds import UNREACHABLE
from toolkit.scorers.base import ScoreTable
from toolkit.scorers.litellm import TIER_NAMES

LETTERS = ("a", "b", "c", "d", "e", "f")


def policy_file(edges: Sequence[float], **changes: Any) -> PolicyFile:
    """A policy with these thresholds on LiteLLM's score over the tiers `a`, `b`, ..., cheapest first."""
    tiers = list(LETTERS[: len(edges) + 1])
    fields: dict[str, Any] = {
        "policy": "thresholds",
        "tiers": tiers,
        "thresholds": list(edges),
        "utility": None,
        "lanes": LanesFile(fallback_tier=tiers[len(tiers) // 2], low_confidence_tier=tiers[-1]),
        "scorer": {"kind": "litellm", "litellm_version": "1.0"},
        "objectives": ["cost", "quality"],
        "constraints": {},
        "chosen_because": "it was there",
        "data_hash": "0123456789abcdef" * 4,
        "metrics": {},
        "evidence": {},
        "provenance": Provenance(
            routefront_version="0.1", git_commit=None, seed=3, created="2026-01-01T00:00:00+00:00", source="toy"
        ),
    }
    return PolicyFile(**{**fields, **changes})


def mapping(policy: PolicyFile) -> tuple[list[str], list[float]]:
    """Models of LiteLLM's four names, and its three boundaries."""
    config = complexity_config(policy)
    assert tuple(config["tiers"]) == TIER_NAMES and tuple(config["tier_boundaries"]) == BOUNDARY_NAMES
    return list(config["tiers"].values()), list(config["tier_boundaries"].values())


def litellm_tier(config: dict[str, Any], score: float) -> str:
    """LiteLLM's rule without its override: the name of the first boundary above the score."""
    edges = [config["tier_boundaries"][name] for name in BOUNDARY_NAMES]
    return str(config["tiers"][TIER_NAMES[sum(score >= edge for edge in edges)]])


# --- the mapping ------------------------------------------------------------------------------------------------------


def test_two_tiers() -> None:
    models, edges = mapping(policy_file([0.2]))
    assert models == ["a", "b", "b", "b"] and edges[0] == 0.2


def test_three_tiers() -> None:
    policy = policy_file([0.2, 0.4])
    models, edges = mapping(policy)
    assert set(models) == {"a", "b", "c"} and {0.2, 0.4} <= set(edges)
    config = complexity_config(policy)
    assert [litellm_tier(config, s) for s in (0.1, 0.2, 0.3, 0.39, 0.4, 9.0)] == ["a", "b", "b", "b", "c", "c"]


def test_four_tiers() -> None:
    assert mapping(policy_file([0.2, 0.4, 0.6])) == (["a", "b", "c", "d"], [0.2, 0.4, 0.6])


@pytest.mark.parametrize(
    "thresholds, used",
    [
        ([-UNREACHABLE], ["b"]),
        ([UNREACHABLE], ["a"]),
        ([0.3, 0.3], ["a", "c"]),
        ([-UNREACHABLE, 0.3], ["b", "c"]),
        ([0.3, UNREACHABLE], ["a", "b"]),
        ([-UNREACHABLE, UNREACHABLE], ["b"]),
        ([0.1, 0.1, 0.1, 0.5, 0.5], ["a", "d", "f"]),
        ([-UNREACHABLE, 0.1, 0.2, 0.3, UNREACHABLE], ["b", "c", "d", "e"]),
    ],
)
def test_unused_tiers_are_dropped(thresholds: list[float], used: list[str]) -> None:
    policy = policy_file(thresholds)
    models, edges = mapping(policy)
    assert list(dict.fromkeys(models)) == used == reachable_tiers(policy)[0]
    assert edges == sorted(set(edges)) and np.isfinite(edges).all() and max(map(abs, edges)) < 1e6


SCORES = st.floats(-2.0, 2.0, allow_nan=False)


@st.composite
def threshold_vectors(draw: st.DrawFn, values: st.SearchStrategy[float] = SCORES) -> list[float]:
    """1 to 3 boundaries that never decrease; equal ones, float neighbours and unreachable ones included."""
    edge = st.one_of(values, values, st.sampled_from([-UNREACHABLE, UNREACHABLE]))
    found = draw(st.lists(edge, min_size=1, max_size=3))
    repeat = draw(st.sampled_from(["as they are", "equal", "neighbours"]))
    if repeat == "equal":
        found = [found[0]] * len(found)
    elif repeat == "neighbours" and abs(found[0]) < UNREACHABLE:
        for i in range(1, len(found)):
            found[i] = math.nextafter(found[i - 1], math.inf)
    return sorted(found)


@settings(max_examples=300, deadline=None)
@given(thresholds=threshold_vectors(), scores=st.lists(SCORES, min_size=1, max_size=20))
def test_any_policy_routes_as_tuned_under_litellms_rule(thresholds: list[float], scores: list[float]) -> None:
    policy = policy_file(thresholds)
    config = complexity_config(policy)
    edges = list(config["tier_boundaries"].values())
    assert edges[0] < edges[1] < edges[2] and np.isfinite(edges).all()
    scores = [*scores, *(t for t in thresholds if abs(t) < UNREACHABLE)]
    expected = [policy.tiers[k] for k in np.searchsorted(thresholds, scores, side="right")]
    assert [litellm_tier(config, s) for s in scores] == expected
    assert check_config(build_config(policy, {})) == []


def test_the_override_is_out_of_reach() -> None:
    assert complexity_config(policy_file([0.2]))["reasoning_override_min_score"] > 1e6


def test_the_whole_config() -> None:
    config = build_config(policy_file([0.2]), {"a": "openai/gpt-4o-mini"}, "front-door")
    models = {entry["model_name"]: entry["litellm_params"]["model"] for entry in config["model_list"]}
    assert models == {"a": "openai/gpt-4o-mini", "b": "openai/b", "front-door": "auto_router/complexity_router"}
    name, params = find_router(config)
    assert name == "front-door" and params["complexity_router_default_model"] == "b"
    assert yaml.safe_load(yaml.safe_dump(config)) == config


def test_names_that_yaml_might_misread_survive() -> None:
    tiers = ["no", "1.10", "a: b #c"]
    lanes = LanesFile(fallback_tier="no", low_confidence_tier="no")
    config = build_config(policy_file([1e-5, 0.1], tiers=tiers, lanes=lanes), {})
    assert yaml.safe_load(yaml.safe_dump(config, sort_keys=False, allow_unicode=True)) == config


# --- what LiteLLM cannot express --------------------------------------------------------------------------------------


def refused(policy: PolicyFile, *fragments: str) -> None:
    for attempt in (refuse_inexpressible, lambda p: build_config(p, {})):
        with pytest.raises(ExportError) as caught:
            attempt(policy)
        assert all(f in str(caught.value) for f in fragments) and "\n" not in str(caught.value)


def test_five_used_tiers_are_refused() -> None:
    refused(policy_file([0.1, 0.2, 0.3, 0.4]), "4", "5")
    complexity_config(policy_file([0.1, 0.2, 0.3, UNREACHABLE]))


def test_a_utility_is_refused() -> None:
    utility = {"lambda": 3.0, "b_1": 0.0}
    refused(policy_file([0.1], policy="utility", thresholds=None, utility=utility), "utility", "policy=thresholds")


@pytest.mark.parametrize("scorer", [{"kind": "text"}, {"kind": "binned", "base": {"kind": "litellm"}}, {}])
def test_another_score_is_refused(scorer: dict[str, object]) -> None:
    refused(policy_file([0.1], scorer=scorer), "scorer=litellm")


def test_a_confidence_floor_is_refused() -> None:
    lanes = LanesFile(fallback_tier="a", low_confidence_tier="b", confidence_floor=0.5)
    refused(policy_file([0.1], lanes=lanes), "confidence_floor")


def test_models_of_unknown_tiers_are_refused() -> None:
    with pytest.raises(ExportError, match="huge"):
        build_config(policy_file([0.1]), {"huge": "openai/huge"})


def test_a_router_named_like_a_tier_is_refused() -> None:
    with pytest.raises(ExportError, match="router_name"):
        build_config(policy_file([0.1]), {}, "a")


# --- check_config -----------------------------------------------------------------------------------------------------


def crc(config: dict[str, Any]) -> dict[str, Any]:
    found = find_router(config)[1]["complexity_router_config"]
    assert isinstance(found, dict)
    return found


def swap(config: dict[str, Any]) -> None:
    crc(config)["tier_boundaries"].update(simple_medium=0.9, medium_complex=0.5)


def misspell(config: dict[str, Any]) -> None:
    crc(config)["tier_boundariez"] = crc(config).pop("tier_boundaries")


SPOILED: dict[str, tuple[Callable[[dict[str, Any]], object], Sequence[str]]] = {
    "descending": (swap, ["ascending", "0.9"]),
    "equal": (lambda c: crc(c)["tier_boundaries"].update(simple_medium=0.4), ["ascending", "0.4"]),
    "text": (lambda c: crc(c)["tier_boundaries"].update(simple_medium="abc"), ["tier_boundaries", "abc"]),
    "not a number": (lambda c: crc(c)["tier_boundaries"].update(simple_medium=math.nan), ["finite", "nan"]),
    "infinite": (lambda c: crc(c)["tier_boundaries"].update(complex_reasoning=math.inf), ["finite", "inf"]),
    "one missing": (lambda c: crc(c)["tier_boundaries"].pop("simple_medium"), ["simple_medium"]),
    "one too many": (lambda c: crc(c)["tier_boundaries"].update(simple_medum=0.1), ["simple_medum"]),
    "misspelt": (misspell, ["tier_boundaries"]),
    "boundaries are a list": (lambda c: crc(c).update(tier_boundaries=[0.1, 0.2, 0.3]), ["tier_boundaries"]),
    "unknown model": (lambda c: crc(c)["tiers"].update(MEDIUM="huge"), ["huge"]),
    "unknown default": (lambda c: find_router(c)[1].update(complexity_router_default_model="huge"), ["huge"]),
    "no default": (lambda c: find_router(c)[1].pop("complexity_router_default_model"), ["default"]),
    "tier missing": (lambda c: crc(c)["tiers"].pop("MEDIUM"), ["MEDIUM"]),
    "tier misspelt": (lambda c: crc(c)["tiers"].update(MEDUIM=crc(c)["tiers"].pop("MEDIUM")), ["MEDUIM"]),
    "a pool of models": (lambda c: crc(c)["tiers"].update(MEDIUM=["a", "b"]), ["tier"]),
    "no config": (lambda c: find_router(c)[1].pop("complexity_router_config"), ["tier_boundaries"]),
    "config is text": (lambda c: find_router(c)[1].update(complexity_router_config="x"), ["tier_boundaries"]),
    "tiers are a list": (lambda c: crc(c).update(tiers=["a", "b", "c", "d"]), ["tiers"]),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_config_that_would_not_route_as_tuned_is_caught(case: str) -> None:
    spoil, fragments = SPOILED[case]
    config = copy.deepcopy(build_config(policy_file([0.2, 0.4, 0.6]), {}))
    assert check_config(config) == []
    spoil(config)
    problems = "; ".join(check_config(config))
    assert problems and all(f in problems for f in fragments), problems


ODD_ENTRIES = [{"litellm_params": {"model": "openai/x"}}, {"model_name": "x"}, "a model", None]


@pytest.mark.parametrize("entry", ODD_ENTRIES)
def test_an_odd_deployment_is_no_crash(entry: object) -> None:
    config = build_config(policy_file([0.2]), {})
    config["model_list"].append(entry)
    check_config(config)


@pytest.mark.parametrize("config", [{}, {"model_list": None}, {"model_list": []}, {"model_list": [3, {}]}])
def test_a_config_without_a_router(config: dict[str, Any]) -> None:
    with pytest.raises(ExportError, match="found 0"):
        find_router(config)


def test_a_config_with_two_routers() -> None:
    config = build_config(policy_file([0.2]), {})
    config["model_list"].append(config["model_list"][-1])
    with pytest.raises(ExportError, match="found 2"):
        check_config(config)


# --- policy.json ------------------------------------------------------------------------------------------------------


def test_a_policy_survives_its_file(tmp_path: Path) -> None:
    for policy in (
        policy_file([-UNREACHABLE, 1 / 3, UNREACHABLE]),
        policy_file([0.1], policy="utility", thresholds=None, utility={"lambda": 1e4 / 3, "b_1": -0.01}),
    ):
        (tmp_path / "policy.json").write_text(policy.model_dump_json(indent=2))
        again = read_policy(tmp_path / "policy.json")
        assert again == policy and again.params.tolist() == policy.params.tolist()


@pytest.mark.parametrize(
    "change, fragment",
    [
        ({"thresholds": [0.4, 0.2]}, "never decrease"),
        ({"thresholds": [0.2]}, "thresholds"),
        ({"thresholds": None}, "thresholds"),
        ({"thresholds": [0.2, "x"]}, "thresholds"),
        ({"tiers": ["a"]}, "tiers"),
        ({"schema_version": 2}, "schema_version"),
        ({"policy": "dice"}, "policy"),
        ({"policy": "utility"}, "utility"),
        ({"lanes": {"fallback_tier": "huge", "low_confidence_tier": "a"}}, "huge"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)
def test_a_wrong_policy_is_one_line_that_names_the_field(tmp_path: Path, change: dict[str, Any], fragment: str) -> None:
    raw = {**policy_file([0.2, 0.4]).model_dump(mode="json"), **change}
    (tmp_path / "policy.json").write_text(json.dumps(raw))
    with pytest.raises(InputDataError, match="policy.json") as caught:
        read_policy(tmp_path / "policy.json")
    assert fragment in str(caught.value) and "\n" not in str(caught.value)


def test_provenance_says_what_it_is_and_what_it_misses() -> None:
    figures = {"quality": 0.9, "cost_usd": 0.001, "latency_s": {"p95": 2.0}, "tier_shares": {"a": 0.25, "b": 0.75}}
    evidence = {"zero_router_verdict": "gain", "constraints_missed": ["quality >= 0.95 (got 0.9)"]}
    metrics = {"validate": {"policy": figures, "n": 120}}
    lines = provenance_lines(policy_file([0.2], metrics=metrics, evidence=evidence), ("A remark.",))
    text = "\n".join(lines)
    assert lines[0].startswith(MARK) and lines[-1] == "A remark."
    for part in (
        "0123456789abcdef",
        "seed 3",
        "120 queries",
        "0.9000",
        "b 75.0%",
        "WARNING",
        "quality >= 0.95",
        "gain",
    ):
        assert part in text


# --- LiteLLM's own word -----------------------------------------------------------------------------------------------

WORDS = (
    "what is",
    "define",
    "hello",
    "a cat",
    "think step by step",
    "prove that",
    "explain your reasoning",
    "show your work",
    "evaluate",
    "pros and cons",
    "logical",
    "python function",
    "algorithm",
    "database schema",
    "distributed architecture",
    "latency throughput",
    "machine learning",
    "first do this, then do that",
    "1. one 2. two",
    "?",
    "\n",
    "größer 中文 🙂",
)


def varied_prompts() -> tuple[str, ...]:
    rng = np.random.default_rng(11)
    found = ["", " ", "\n\t ", "?", "what is a cat?", "think step by step, and show your work", "prove it. " * 400]
    found += [
        "evaluate: " + " ".join(["pros and cons"] * 3),
        "Step by step, explain your reasoning about a distributed algorithm",
    ]
    while len(found) < 200:
        found.append(" ".join(["so", *rng.choice(WORDS, size=rng.integers(1, 14))]) * int(rng.choice([1, 1, 1, 12])))
    return tuple(found)


@pytest.fixture(scope="session")
def litellm() -> Any:
    """LiteLLM, imported once; warnings of its own import are its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("litellm")
        from toolkit.export.litellm_replay import check_with_litellm

        check_with_litellm(build_config(policy_file([0.1]), {}))
    return module


@pytest.fixture(scope="session")
def scored(litellm: Any) -> tuple[QueryBatch, np.ndarray]:
    """200 varied prompts with LiteLLM's scores."""
    from toolkit.scorers.litellm import LiteLLMScorer

    prompts = varied_prompts()
    batch = QueryBatch(query_id=np.arange(len(prompts)).astype(str), prompt=prompts, signals={})
    return batch, LiteLLMScorer().predict(batch).score


def our_tiers(policy: PolicyFile, score: np.ndarray) -> list[str]:
    made = decide(policy.family, policy.params, ScoreTable(score=score), policy.runtime_lanes())
    return [policy.tiers[k] for k in made.tier]


@pytest.mark.verify
def test_the_prompts_are_varied(scored: tuple[QueryBatch, np.ndarray]) -> None:
    batch, score = scored
    assert len(batch) == 200 and np.isnan(score[:3]).all() and np.isfinite(score[3:]).all()
    assert len(np.unique(score[3:])) > 25 and np.nanmin(score) < 0 < 0.5 < np.nanmax(score)


@pytest.mark.verify
def test_prompts_reach_the_override(scored: tuple[QueryBatch, np.ndarray]) -> None:
    """With LiteLLM's stock settings, some prompts go to REASONING although their score is below its boundary."""
    from toolkit.scorers.litellm import stock_tiers

    batch, score = scored
    tier = stock_tiers(batch.take(np.flatnonzero(np.isfinite(score))))
    assert ((tier == 3) & (score[np.isfinite(score)] < 0.60)).sum() >= 5


@pytest.mark.verify
def test_litellm_accepts_ours(litellm: Any) -> None:
    from toolkit.export.litellm_replay import check_with_litellm

    for thresholds in ([0.1], [0.1, 0.2], [0.1, 0.2, 0.3], [-UNREACHABLE], [0.1, 0.1, UNREACHABLE]):
        config = yaml.safe_load(yaml.safe_dump(build_config(policy_file(thresholds), {"a": "openai/gpt-4o-mini"})))
        before = copy.deepcopy(config)
        assert check_with_litellm(config).count(".") == 2 and config == before


@pytest.mark.verify
@pytest.mark.parametrize("key", ["tier_boundariez", "classifier", "reasoning_override_min_scor"])
def test_litellm_does_not_know_a_misspelt_key(litellm: Any, key: str) -> None:
    from toolkit.export.litellm_replay import check_with_litellm

    config = build_config(policy_file([0.1]), {})
    crc(config)[key] = crc(config)["tier_boundaries"]
    with pytest.raises(ExportError, match=key):
        check_with_litellm(config)


@pytest.mark.verify
@pytest.mark.parametrize("case", [name for name in SPOILED if name != "a pool of models"])
def test_litellm_check_refuses_what_ours_does(litellm: Any, case: str) -> None:
    from toolkit.export.litellm_replay import check_with_litellm

    config = build_config(policy_file([0.2, 0.4, 0.6]), {})
    SPOILED[case][0](config)
    with pytest.raises(ExportError):
        check_with_litellm(config)


@pytest.mark.verify
@pytest.mark.parametrize("entry", ODD_ENTRIES)
def test_litellm_check_refuses_an_odd_deployment(litellm: Any, entry: object) -> None:
    from toolkit.export.litellm_replay import check_with_litellm

    config = build_config(policy_file([0.2]), {})
    config["model_list"].append(entry)
    with pytest.raises(ExportError):
        check_with_litellm(config)


@pytest.mark.verify
def test_litellm_rejects_a_wrong_type(litellm: Any) -> None:
    from toolkit.export.litellm_replay import check_with_litellm

    config = build_config(policy_file([0.1]), {})
    crc(config)["classifier_type"] = "oracle"
    with pytest.raises(ExportError, match="rejects") as caught:
        check_with_litellm(config)
    assert "classifier_type" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.verify
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_replay_equals_our_decision(scored: tuple[QueryBatch, np.ndarray], data: st.DataObject) -> None:
    from toolkit.export.litellm_replay import replay

    batch, score = scored
    seen = st.sampled_from(np.unique(score[np.isfinite(score)]).tolist())
    thresholds = data.draw(threshold_vectors(st.one_of(seen, st.floats(-0.3, 0.9))))
    fallback = data.draw(st.sampled_from(LETTERS[: len(thresholds) + 1]))
    policy = policy_file(thresholds, lanes=LanesFile(fallback_tier=fallback, low_confidence_tier=fallback))
    config = yaml.safe_load(yaml.safe_dump(build_config(policy, {})))
    assert replay(config, batch.prompt or ()) == our_tiers(policy, score)


def gateway_model(config: dict[str, Any], prompts: Sequence[str]) -> list[str]:
    """Where LiteLLM's pre-routing hook, the code that runs in production, sends a first message."""
    from litellm import Router

    name, _ = find_router(config)
    router = Router(model_list=copy.deepcopy(config["model_list"]))
    hook = router.complexity_routers[name][0].strategy.async_pre_routing_hook

    async def ask() -> list[str]:
        return [(await hook(name, {}, [{"role": "user", "content": prompt}])).model for prompt in prompts]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # LiteLLM's own, when the hook first imports its types
        return asyncio.run(ask())


@pytest.mark.verify
def test_replay_equals_the_hook_that_routes_in_production(scored: tuple[QueryBatch, np.ndarray]) -> None:
    from toolkit.export.litellm_replay import replay

    config = build_config(policy_file([0.0, 0.15, 0.3]), {})
    prompts = scored[0].prompt or ()
    assert replay(config, prompts) == gateway_model(config, prompts)


@pytest.mark.verify
@pytest.mark.parametrize(
    "prompt",
    [
        "LITELLM ESCALATE please",
        "<system-reminder>python function, distributed algorithm</system-reminder> hello",
        "<system-reminder>nothing else</system-reminder>",
        "Plan mode is active. hello",
        "Write the title in the predominant language of the session: python function, distributed algorithm, api",
    ],
)
def test_our_decision_equals_the_hook_on_text_that_litellm_treats_specially(litellm: Any, prompt: str) -> None:
    """Words in a prompt that switch LiteLLM's other rules on: either the export turns them off, or we know them."""
    from toolkit.export.litellm_replay import replay
    from toolkit.scorers.litellm import LiteLLMScorer

    policy = policy_file([0.0, 0.15, 0.3])
    config = build_config(policy, {})
    batch = QueryBatch(query_id=np.array(["q"]), prompt=(prompt,), signals={})
    gateway = gateway_model(config, [prompt])
    assert replay(config, (prompt,)) == gateway, "verify must report what the gateway does"
    assert our_tiers(policy, LiteLLMScorer().predict(batch).score) == gateway


# --- the command line -------------------------------------------------------------------------------------------------

TUNE = ("tune", "data=recorded", "data.queries=queries.csv", "data.outcomes=outcomes.csv", "scorer=litellm")


@pytest.fixture(scope="module")
def litellm_run(litellm: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording and a certified run `tuned` that uses at least two tiers."""
    folder = tmp_path_factory.mktemp("litellm_run")
    write_recording(folder, ".csv")
    result = run_cli(*TUNE, "constraints.quality_floor=0.75", "out=tuned", cwd=folder)
    assert result.exit_code == 0, result.stderr
    assert len(reachable_tiers(read_policy(folder / "tuned" / "policy.json"))[0]) >= 2
    result = run_cli("certify", "run=tuned", *TUNE[2:4], "baseline=small", cwd=folder)
    assert result.exit_code in (0, 4), "a pass or undecided, which export does not refuse: " + result.stderr
    return folder


def export(folder: Path, *args: str, output: Path, target: str = "litellm") -> str:
    result = run_cli("export", "run=tuned", f"target={target}", f"output={output}", *args, cwd=folder)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.verify
def test_the_exported_file_says_what_it_is(litellm_run: Path, tmp_path: Path) -> None:
    said = export(litellm_run, output=tmp_path / "new" / "litellm.yaml")
    text = (tmp_path / "new" / "litellm.yaml").read_text(encoding="utf-8")
    policy = read_policy(litellm_run / "tuned" / "policy.json")
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert text.startswith(f"# {MARK}") and policy.data_hash[:16] in "\n".join(header)
    assert text.splitlines()[: len(header)] == header
    config = yaml.safe_load(text)
    assert config == build_config(policy, {}) and "LiteLLM" in said and "litellm.yaml" in said


@pytest.mark.verify
def test_verify_passes_on_the_exported_file(litellm_run: Path, tmp_path: Path) -> None:
    export(litellm_run, output=tmp_path / "litellm.yaml")
    command = ("verify", "run=tuned", "target=litellm", "queries=queries.csv")
    for more in ((), (f"config={tmp_path / 'litellm.yaml'}",)):
        result = run_cli(*command, *more, "--json", cwd=litellm_run)
        assert (result.exit_code, result.stderr) == (0, "")
        said = json.loads(result.stdout)
        assert said["verdict"] == "pass" and said["n"] == said["n_agree"] == 240 and said["disagreements"] == []


@pytest.mark.verify
def test_verify_passes_on_prompts_never_seen(litellm_run: Path, tmp_path: Path) -> None:
    prompts = varied_prompts()
    queries = write_columns(tmp_path / "q.jsonl", {"query_id": range(len(prompts)), "prompt": prompts})
    result = run_cli("verify", "run=tuned", "target=litellm", f"queries={queries}", cwd=litellm_run)
    assert result.exit_code == 0 and "200 of 200" in result.stdout


@pytest.mark.verify
def test_verify_fails_on_an_edited_boundary(litellm_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "litellm.yaml"
    export(litellm_run, output=path)
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    for i, name in enumerate(BOUNDARY_NAMES):
        crc(config)["tier_boundaries"][name] = 100.0 + i
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = ("verify", "run=tuned", "target=litellm", "queries=queries.csv", f"config={path}")
    result = run_cli(*command, f"output={tmp_path / 'verdict.json'}", "--json", cwd=litellm_run)
    assert result.exit_code == 3
    said = json.loads(result.stdout)
    assert said["verdict"] == "fail" and said["n_agree"] < said["n"] == 240
    assert said == json.loads((tmp_path / "verdict.json").read_text())
    first = said["disagreements"][0]
    assert first["gateway"] == reachable_tiers(read_policy(litellm_run / "tuned" / "policy.json"))[0][0]
    assert first["policy"] != first["gateway"] and first["query_id"].startswith("q")
    loud = run_cli(*command, cwd=litellm_run)
    assert loud.exit_code == 3 and "fail" in loud.stdout and str(first["query_id"]) in loud.stderr


@pytest.mark.verify
@pytest.mark.parametrize("case", ["descending", "text", "misspelt", "unknown model"])
def test_verify_refuses_a_broken_file(litellm_run: Path, tmp_path: Path, case: str) -> None:
    config = build_config(policy_file([0.2, 0.4, 0.6]), {})
    SPOILED[case][0](config)
    (tmp_path / "litellm.yaml").write_text(yaml.safe_dump(config))
    command = ("verify", "run=tuned", "target=litellm", "queries=queries.csv", f"config={tmp_path / 'litellm.yaml'}")
    result = run_cli(*command, cwd=litellm_run)
    assert (result.exit_code, result.stdout) == (2, "") and result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.verify
@pytest.mark.parametrize("content", ["- 1\n", "a: [", "", "model_list: 3\n", "model_list: []\nrouter_settings: null\n"])
def test_verify_refuses_what_is_no_config(litellm_run: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "x.yaml").write_text(content)
    command = ("verify", "run=tuned", "target=litellm", "queries=queries.csv", f"config={tmp_path / 'x.yaml'}")
    result = run_cli(*command, cwd=litellm_run)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1 and result.stderr.startswith("error: ")


@pytest.mark.verify
def test_a_config_with_null_settings_still_verifies(litellm_run: Path, tmp_path: Path) -> None:
    export(litellm_run, output=tmp_path / "litellm.yaml")
    config = yaml.safe_load((tmp_path / "litellm.yaml").read_text(encoding="utf-8"))
    config["router_settings"] = None
    (tmp_path / "litellm.yaml").write_text(yaml.safe_dump(config))
    command = ("verify", "run=tuned", "target=litellm", "queries=queries.csv", f"config={tmp_path / 'litellm.yaml'}")
    assert run_cli(*command, cwd=litellm_run).exit_code == 0


@pytest.mark.verify
def test_models_and_router_name_reach_the_file(litellm_run: Path, tmp_path: Path) -> None:
    args = ("models={small: openai/gpt-4o-mini, large: anthropic/claude-sonnet-4}", "router_name=front-door")
    export(litellm_run, *args, output=tmp_path / "litellm.yaml")
    config = yaml.safe_load((tmp_path / "litellm.yaml").read_text(encoding="utf-8"))
    assert find_router(config)[0] == "front-door"
    models = {entry["model_name"]: entry["litellm_params"]["model"] for entry in config["model_list"]}
    assert models["small"] == "openai/gpt-4o-mini" and models["medium"] == "openai/medium"
    assert models["large"] == "anthropic/claude-sonnet-4"


@pytest.mark.verify
def test_without_litellm_the_file_says_who_checked_it(
    litellm_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simulators.errors import MissingDependencyError
    from toolkit.export import litellm_replay

    def missing() -> str:
        raise MissingDependencyError("this needs LiteLLM")

    monkeypatch.setattr(litellm_replay, "require_litellm", missing)
    said = export(litellm_run, output=tmp_path / "litellm.yaml")
    assert "not installed" in said and "not installed" in (tmp_path / "litellm.yaml").read_text(encoding="utf-8")
    result = run_cli("verify", "run=tuned", "target=litellm", "queries=queries.csv", cwd=litellm_run)
    assert result.exit_code == 2 and "LiteLLM" in result.stderr


@pytest.mark.verify
def test_a_json_export_is_the_policy(litellm_run: Path, tmp_path: Path) -> None:
    export(litellm_run, output=tmp_path / "policy.json", target="json")
    found = read_policy(tmp_path / "policy.json")
    certificate = found.evidence.pop("certificate")
    assert found == read_policy(litellm_run / "tuned" / "policy.json")
    assert certificate["verdict"] == json.loads((litellm_run / "evidence.json").read_text())["verdict"]


@pytest.mark.verify
@pytest.mark.parametrize("target", ["litellm", "json"])
def test_a_foreign_file_is_overwritten_only_by_force(litellm_run: Path, tmp_path: Path, target: str) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("precious\n")
    command = ("export", "run=tuned", f"target={target}", f"output={path}")
    result = run_cli(*command, cwd=litellm_run)
    assert result.exit_code == 2 and "force=true" in result.stderr and path.read_text() == "precious\n"
    assert run_cli(*command, "force=true", cwd=litellm_run).exit_code == 0 and path.read_text() != "precious\n"


@pytest.mark.verify
@pytest.mark.parametrize("target", ["litellm", "json"])
def test_our_own_file_is_replaced_and_that_is_said(litellm_run: Path, tmp_path: Path, target: str) -> None:
    path = tmp_path / "exported"
    export(litellm_run, output=path, target=target)
    first = path.read_bytes()
    result = run_cli("export", "run=tuned", f"target={target}", f"output={path}", cwd=litellm_run)
    assert result.exit_code == 0 and "replaced" in result.stderr and path.read_bytes() == first


@pytest.mark.verify
def test_diff_shows_the_change(litellm_run: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    export(litellm_run, output=old)
    text = old.read_text(encoding="utf-8")
    old.write_text(text.replace("model: openai/small", "model: openai/gpt-4o-mini"), encoding="utf-8")
    before = snapshot(tmp_path)
    said = export(litellm_run, f"diff={old}", output=new)
    assert f"--- {old}\n+++ {new}\n@@" in said
    assert "\n-    model: openai/gpt-4o-mini\n+    model: openai/small\n" in said
    assert {name: content for name, content in snapshot(tmp_path).items() if name in before} == before
    assert "@@" not in export(litellm_run, f"diff={new}", output=tmp_path / "same.yaml")


@pytest.mark.verify
def test_the_tuned_tiers_are_the_recorded_ones(litellm_run: Path) -> None:
    policy = read_policy(litellm_run / "tuned" / "policy.json")
    assert tuple(policy.tiers) == TIERS and policy.scorer["kind"] == "litellm"
    assert policy.scorer["litellm_version"]
