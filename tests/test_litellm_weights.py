"""LiteLLM's weights tuned with its boundaries: re-weighted scores are LiteLLM's own, and so is every decision."""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from helpers import make_table
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from simulators.errors import ConfigError, ExportError, InputDataError
from simulators.outcomes import QueryBatch
from toolkit.dimensions import Dimension
from toolkit.evaluation.slices import coverage
from toolkit.export.litellm import build_config, check_config, complexity_config, find_router
from toolkit.export.schema import LanesFile, PolicyFile, Provenance
from toolkit.families.litellm import SETTINGS, LiteLLMFamily, candidate_scores
from toolkit.policies.base import decide
from toolkit.policies.lanes import Lanes
from toolkit.policies.thresholds import UNREACHABLE
from toolkit.scorers.base import ScoreTable
from toolkit.scorers.litellm import NEVER, OVERRIDDEN, STOCK, TIER_NAMES, LiteLLMScorer, LiteLLMSettings
from toolkit.scorers.litellm_signals import (
    DIMENSIONS,
    PROMPT_DIMENSIONS,
    RawSignals,
    raw_signals,
    sum_as_python_does,
    weighted_scores,
)
from toolkit.scorers.registry import load_scorer

CONF = Path(__file__).resolve().parent.parent / "conf" / "space" / "litellm.yaml"
NAMES = ("a", "b", "c", "d")
WORDS = (
    "what is",
    "define",
    "hello",
    "think step by step",
    "explain your reasoning",
    "show your work",
    "evaluate",
    "pros and cons",
    "python function",
    "algorithm",
    "database schema",
    "distributed architecture",
    "latency throughput",
    "encryption",
    "first do this, then do that",
    "1. one 2. two",
    "? ? ? ?",
    "\n",
    "größer 中文 🙂",
)
TUNED = LiteLLMSettings.model_validate(
    {
        "dimension_weights": dict(zip(DIMENSIONS, (0.21, 0.1, 0.4, -0.05, 0.3, 0.123457, 0.07), strict=True)),
        "token_thresholds": {"simple": 5, "complex": 60},
        "reasoning_override_min_score": 0.3,
    }
)


def box() -> tuple[Dimension, ...]:
    """The ten dimensions of `conf/space/litellm.yaml`."""
    parameters = yaml.safe_load(CONF.read_text(encoding="utf-8"))["parameters"]
    return tuple(Dimension(name=name, **spec) for name, spec in parameters.items())


def batch_of(prompts: tuple[str, ...]) -> QueryBatch:
    return QueryBatch(query_id=np.arange(len(prompts)).astype(str), prompt=prompts, signals={})


def varied_prompts(n: int = 150) -> tuple[str, ...]:
    rng = np.random.default_rng(5)
    found = ["", " \n", "?", "what is a cat?", "think step by step, and show your work", "evaluate it. " * 300]
    found += [f"{'x' * n}{space}" for n in (18, 19, 20, 59, 60, 240, 243, 244) for space in ("", "\n")]
    while len(found) < n:
        words = rng.choice(WORDS, size=rng.integers(1, 9))
        found.append(" ".join(["so", *words]) * int(rng.choice([1, 1, 1, 12])))
    return tuple(found)


def toy_signals(rng: np.random.Generator, n: int = 120) -> RawSignals:
    """Signals with LiteLLM's values, ten empty prompts among them."""
    return RawSignals(
        signal=rng.choice([0.0, 0.0, 0.5, 0.7, 1.0, -1.0], size=(n, 6)),
        tokens=rng.integers(0, 3000, n),
        reasoning_matches=rng.integers(0, 3, n),
        empty=np.arange(n) < 10,
    )


def stock_scores(raw: RawSignals) -> ScoreTable:
    weights = np.array([list(STOCK.dimension_weights.model_dump().values())])
    return ScoreTable(score=weighted_scores(raw, weights, np.array([[15, 400]]), np.array([np.inf]))[0])


@pytest.fixture
def toy() -> LiteLLMFamily:
    raw = toy_signals(np.random.default_rng(2))
    return LiteLLMFamily(stock_scores(raw), raw, Lanes(fallback_tier=1, low_confidence_tier=2), 3, box())


def random_settings(rng: np.random.Generator, override: float | None) -> LiteLLMSettings:
    """Full-precision weights, so that rounding shows; some are zero or negative."""
    weights = np.where(rng.random(7) < 0.2, 0.0, rng.uniform(-0.3, 0.6, 7))
    simple = int(rng.integers(0, 60))
    return LiteLLMSettings.model_validate(
        {
            "dimension_weights": dict(zip(DIMENSIONS, weights.tolist(), strict=True)),
            "token_thresholds": {"simple": simple, "complex": simple + int(rng.integers(1, 500))},
            "reasoning_override_min_score": override,
        }
    )


def as_row(found: LiteLLMSettings) -> np.ndarray:
    floor = found.reasoning_override_min_score
    tokens = found.token_thresholds
    weights = found.dimension_weights.model_dump().values()
    return np.array([[*weights, tokens.simple, tokens.complex, np.inf if floor is None else floor]])


def policy_file(thresholds: list[float], scorer: dict[str, object]) -> PolicyFile:
    tiers = list(NAMES[: len(thresholds) + 1])
    return PolicyFile(
        policy="thresholds",
        tiers=tiers,
        thresholds=thresholds,
        utility=None,
        lanes=LanesFile(fallback_tier=tiers[len(tiers) // 2], low_confidence_tier=tiers[-1]),
        scorer=scorer,
        objectives=["cost", "quality"],
        constraints={},
        chosen_because="it was there",
        data_hash="0" * 64,
        metrics={},
        evidence={},
        provenance=Provenance(routefront_version="0", git_commit=None, seed=0, created="2026-01-01", source="toy"),
    )


def crc(config: dict[str, Any]) -> dict[str, Any]:
    found = find_router(config)[1]["complexity_router_config"]
    assert isinstance(found, dict)
    return found


# --- settings ---------------------------------------------------------------------------------------------------------


def test_stock_settings_leave_description_and_export_as_they_were() -> None:
    assert LiteLLMScorer(version="1").describe() == {"kind": "litellm", "litellm_version": "1"}
    config = complexity_config(policy_file([0.2], LiteLLMScorer(version="1").describe()))
    assert config["reasoning_override_min_score"] == NEVER
    assert not {"dimension_weights", "token_thresholds"} & set(config)


def test_tuned_settings_are_described_and_exported() -> None:
    description = LiteLLMScorer(version="1", settings=TUNED).describe()
    assert description["settings"] == TUNED.model_dump() == json.loads(json.dumps(description))["settings"]
    config = build_config(policy_file([0.2], description), {})
    assert {name: crc(config)[name] for name in TUNED.model_dump()} == TUNED.model_dump()
    assert check_config(config) == [] and yaml.safe_load(yaml.safe_dump(config)) == config


def test_weights_alone_keep_the_override_off() -> None:
    weights_only = TUNED.model_copy(update={"reasoning_override_min_score": None})
    config = complexity_config(policy_file([0.2], LiteLLMScorer(settings=weights_only).describe()))
    assert config["reasoning_override_min_score"] == NEVER and "dimension_weights" in config


@pytest.mark.parametrize(
    "change",
    [
        {"dimension_weights": {"tokenCount": 0.1}},
        {"dimension_weights": {**TUNED.dimension_weights.model_dump(), "codePresense": 0.1}},
        {"dimension_weights": {**TUNED.dimension_weights.model_dump(), "codePresence": math.nan}},
        {"dimension_weights": {**TUNED.dimension_weights.model_dump(), "codePresence": 1e4}},
        {"token_thresholds": {"simple": 60, "complex": 60}},
        {"token_thresholds": {"simple": 1.5, "complex": 60}},
        {"token_thresholds": {"simple": -1, "complex": 60}},
        {"reasoning_override_min_score": math.inf},
        {"reasoning_override_min_scor": 0.1},
    ],
)
def test_wrong_settings_are_refused(change: dict[str, object]) -> None:
    stored = {**TUNED.model_dump(), **change}
    with pytest.raises(ValidationError):
        LiteLLMSettings.model_validate(stored)
    with pytest.raises(ExportError, match="settings") as caught:
        build_config(policy_file([0.2], {"kind": "litellm", "settings": stored}), {})
    assert "\n" not in str(caught.value)


SPOILED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a weight missing": (lambda c: c["dimension_weights"].pop("tokenCount"), "tokenCount"),
    "a weight misspelt": (lambda c: c["dimension_weights"].update(codePresense=0.1), "codePresense"),
    "a weight is text": (lambda c: c["dimension_weights"].update(codePresence="abc"), "abc"),
    "a weight is no number": (lambda c: c["dimension_weights"].update(codePresence=math.nan), "nan"),
    "weights are a list": (lambda c: c.update(dimension_weights=[0.1]), "dimension_weights"),
    "tokens descend": (lambda c: c["token_thresholds"].update(simple=900), "900"),
    "tokens are fractions": (lambda c: c["token_thresholds"].update(simple=1.5), "1.5"),
    "one of the tokens": (lambda c: c["token_thresholds"].pop("complex"), "complex"),
    "the override is text": (lambda c: c.update(reasoning_override_min_score="never"), "never"),
    "the override is infinite": (lambda c: c.update(reasoning_override_min_score=math.inf), "inf"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_config_with_spoiled_weights_is_caught(case: str) -> None:
    spoil, fragment = SPOILED[case]
    config = copy.deepcopy(build_config(policy_file([0.2], LiteLLMScorer(settings=TUNED).describe()), {}))
    spoil(crc(config))
    (problem,) = check_config(config)
    assert fragment in problem and "\n" not in problem


def test_whole_numbers_and_litellms_defaults_are_fine() -> None:
    config = copy.deepcopy(build_config(policy_file([0.2], LiteLLMScorer(settings=TUNED).describe()), {}))
    crc(config)["dimension_weights"]["codePresence"] = 1
    crc(config)["reasoning_override_min_score"] = None
    del crc(config)["token_thresholds"]
    assert check_config(config) == []


# --- weighing ---------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.lists(st.floats(-1e3, 1e3), min_size=7, max_size=7), min_size=1, max_size=5))
def test_the_sum_is_pythons(rows: list[list[float]]) -> None:
    found = sum_as_python_does(np.array(rows).T)
    assert found.tolist() == [sum(term for term in row) for row in rows]


def test_both_sums_are_known() -> None:
    """Python 3.11 and before: left to right; from 3.12 on: Neumaier's, which recovers a lost last bit."""
    tenths = [np.array([0.1])] * 10
    assert sum_as_python_does(tenths, compensated=False)[0] == 0.1 + 0.1 + 0.1 + 0.1 + 0.1 + 0.1 + 0.1 + 0.1 + 0.1 + 0.1
    assert sum_as_python_does(tenths, compensated=True)[0] == 1.0
    large = [np.array([x]) for x in (1.0, 1e100, 1.0, -1e100)]
    assert sum_as_python_does(large, compensated=False)[0] == 0.0
    assert sum_as_python_does(large, compensated=True)[0] == 2.0


def test_weighing_by_hand() -> None:
    raw = RawSignals(
        signal=np.array([[1.0, 0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0, 0.5], [0] * 6]),
        tokens=np.array([4, 5, 61, 0]),
        reasoning_matches=np.array([0, 2, 2, 0]),
        empty=np.array([False, False, False, True]),
    )
    weights = np.array([[0.5, 0.25, 0.125, 0, 0, 0, 2.0]] * 2)
    found = weighted_scores(raw, weights, np.array([[5, 60]] * 2), np.array([1.625, 1.6251]))
    expected = [[-0.25, 0.125, OVERRIDDEN, np.nan], [-0.25, 0.125, 1.625, np.nan]]
    assert np.array_equal(found, expected, equal_nan=True)


# --- the family -------------------------------------------------------------------------------------------------------


def test_the_config_names_what_the_family_searches() -> None:
    assert tuple(d.name for d in box()) == SETTINGS and yaml.safe_load(CONF.read_text())["kind"] == "litellm"
    for dimension, value in zip(box(), as_row(STOCK)[0], strict=True):
        assert dimension.low < value < dimension.high or dimension.name == "reasoning_override_min_score"


def test_decode_inverts_encode(toy: LiteLLMFamily) -> None:
    X = np.random.default_rng(0).random((40, toy.space.dim))
    params = toy.space.decode(X)
    again = toy.space.encode(params)
    assert toy.space.dim == 12 == len(toy.parameter_names) and ((again >= 0) & (again <= 1)).all()
    assert np.array_equal(toy.space.decode(again), params)
    assert (params[:, 8] > params[:, 7]).all() and (params[:, 7:9] == np.round(params[:, 7:9])).all()
    cuts = params[:, 10:]
    assert ((np.abs(cuts) < OVERRIDDEN) | (np.abs(cuts) == UNREACHABLE)).all()


def test_loads_are_those_of_the_candidates_own_scores(toy: LiteLLMFamily) -> None:
    """Half of the traffic on the cheapest tier is about half, whatever the weights."""
    X = np.random.default_rng(1).random((30, toy.space.dim))
    X[:, 10] = 1 - (1 - 0.5) ** 2
    share = (toy.assign(toy.space.decode(X))[:, 10:] == 0).mean(axis=1)
    assert np.abs(share - 0.5).max() < 0.2 and np.abs(share - 0.5).mean() < 0.05


def test_token_thresholds_never_cross(toy: LiteLLMFamily) -> None:
    X = np.full((1, toy.space.dim), 0.5)
    X[0, 7:9] = 1.0, 0.0
    params = toy.space.decode(X)
    assert params[0, 7:9].tolist() == [200, 201]
    assert np.array_equal(toy.space.decode(toy.space.encode(params)), params)


def test_corners_send_everything_to_one_tier(toy: LiteLLMFamily) -> None:
    corners = toy.corners()
    tier = toy.assign(corners)
    assert (tier[:, 10:] == np.arange(3)[:, None]).all() and (tier[:, :10] == 1).all()
    assert np.array_equal(corners[:, :9], np.repeat(as_row(STOCK)[:, :9], 3, axis=0))


def test_overridden_queries_go_to_the_dearest_tier_that_is_reached(toy: LiteLLMFamily) -> None:
    raw = toy_signals(np.random.default_rng(2))
    marked = (raw.reasoning_matches == 2) & ~raw.empty
    X = np.random.default_rng(3).random((50, toy.space.dim))
    X[:, 9] = 0.0
    params = toy.space.decode(X)
    (scores, *_) = candidate_scores(raw, params[:, :10])
    assert set(scores.score[marked & (scores.score >= -0.5)]) == {OVERRIDDEN}
    tier = toy.assign(params)
    for row, assigned in zip(params, tier, strict=True):
        top = 0 if row[10] == UNREACHABLE else 1 if row[11] == UNREACHABLE else 2
        overridden = next(candidate_scores(raw, row[None, :10])).score == OVERRIDDEN
        assert (assigned[overridden] == top).all()


def test_estimates_are_those_of_the_assignments(toy: LiteLLMFamily) -> None:
    table = make_table(np.random.default_rng(0), n=120, k=3)
    params = toy.space.decode(np.random.default_rng(4).random((5, toy.space.dim)))
    found = toy.estimate(table, coverage(table, 10), params).total_sums(table.quality)
    tier = toy.assign(params)
    assert np.allclose(found, [sum(table.quality[np.arange(120), row]) for row in tier])


def test_a_candidate_is_deployed_with_its_settings(toy: LiteLLMFamily) -> None:
    params = toy.space.decode(np.random.default_rng(6).random((1, toy.space.dim)))[0]
    deployment = toy.deploy(params)
    assert deployment.policy == "thresholds" and list(deployment.values.values()) == params[10:].tolist()
    assert np.array_equal(as_row(LiteLLMSettings.model_validate(deployment.scorer))[0], params[:10])
    assert json.loads(json.dumps(deployment.scorer)) == deployment.scorer


def test_the_stock_router_is_a_candidate(toy: LiteLLMFamily) -> None:
    params = toy.stock([0.15, 0.35], 0.15)
    assert params.tolist() == [*as_row(STOCK)[0, :9].tolist(), 0.15, 0.15, 0.35]
    assert toy.stock([0.15, 0.35])[9] == 2.0


def test_scores_of_another_scorer_are_refused() -> None:
    raw = toy_signals(np.random.default_rng(2))
    lanes = Lanes(fallback_tier=1, low_confidence_tier=2)
    with pytest.raises(ConfigError, match="scorer=litellm"):
        LiteLLMFamily(ScoreTable(score=np.zeros(120)), raw, lanes, 3, box())


@pytest.mark.parametrize(
    "name, spec, fragment",
    [
        ("tokenCount", {"name": "tokens"}, "tokenCount"),
        ("tokenCount", {"low": -1e4}, "tokenCount"),
        ("token_simple", {"kind": "float"}, "integers"),
        ("token_simple", {"high": 2000}, "token_complex"),
    ],
)
def test_other_dimensions_are_refused(name: str, spec: dict[str, Any], fragment: str) -> None:
    raw = toy_signals(np.random.default_rng(2))
    changed = tuple(Dimension(**{**vars(d), **(spec if d.name == name else {})}) for d in box())
    with pytest.raises(ConfigError, match=fragment):
        LiteLLMFamily(stock_scores(raw), raw, Lanes(fallback_tier=1, low_confidence_tier=2), 3, changed)


def test_no_prompts_no_signals() -> None:
    with pytest.raises(InputDataError, match="prompt"):
        raw_signals(QueryBatch(query_id=np.array(["q"]), prompt=None, signals={}))


# --- LiteLLM's own word -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def litellm() -> Any:
    """LiteLLM, imported once; warnings of its own import are its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("litellm")
        from toolkit.export.litellm_replay import check_with_litellm

        check_with_litellm(build_config(policy_file([0.1], {"kind": "litellm"}), {}))
    return module


@pytest.fixture(scope="session")
def prompts(litellm: Any) -> QueryBatch:
    return batch_of(varied_prompts())


def own_scores(config: dict[str, Any], batch: QueryBatch) -> np.ndarray:
    """The score LiteLLM's own router gives under a `complexity_router_config`, NaN for an empty prompt."""
    from toolkit.scorers.litellm import complexity_router

    router = complexity_router(config)
    return np.array([router.classify(p.strip())[1] if p.strip() else np.nan for p in batch.prompt or ()])


def litellm_decides_as_we_do(found: LiteLLMSettings, thresholds: list[float], batch: QueryBatch) -> list[str]:
    """Saved scorer, re-weighted signals and the exported config's production hook: one tier for every prompt."""
    from toolkit.export.litellm_replay import replay

    scorer = LiteLLMScorer(version="1", settings=found)
    policy = policy_file(thresholds, scorer.describe())
    config = yaml.safe_load(yaml.safe_dump(build_config(policy, {})))
    (scores,) = candidate_scores(raw_signals(batch), as_row(found))
    assert np.array_equal(scores.score, scorer.predict(batch).score, equal_nan=True)
    made = decide(policy.family, policy.params, scores, policy.runtime_lanes())
    theirs = replay(config, batch.prompt or ())
    assert theirs == [policy.tiers[k] for k in made.tier]
    return theirs


@pytest.mark.verify
def test_stock_is_what_the_installed_litellm_does(litellm: Any, prompts: QueryBatch) -> None:
    from litellm.router_strategy.complexity_router.config import DEFAULT_DIMENSION_WEIGHTS, DEFAULT_TOKEN_THRESHOLDS

    assert STOCK.dimension_weights.model_dump() == DEFAULT_DIMENSION_WEIGHTS
    assert STOCK.token_thresholds.model_dump() == DEFAULT_TOKEN_THRESHOLDS
    expected = own_scores({}, prompts)
    assert np.array_equal(LiteLLMScorer().predict(prompts).score, expected, equal_nan=True)
    assert np.array_equal(stock_scores(raw_signals(prompts)).score, expected, equal_nan=True)


@pytest.mark.verify
def test_the_prompts_are_varied(prompts: QueryBatch) -> None:
    raw = raw_signals(prompts)
    assert [len(np.unique(raw.signal[:, i])) for i in range(6)] == [3, 3, 3, 2, 2, 2]
    assert len(PROMPT_DIMENSIONS) == 6 and raw.empty.sum() == 2
    assert set(raw.reasoning_matches) == {0, 1, 2} and (raw.tokens < 15).any() and (raw.tokens > 400).any()
    marker = raw.signal[:, PROMPT_DIMENSIONS.index("reasoningMarkers")]
    assert np.array_equal(marker, np.array([0.0, 0.7, 1.0])[raw.reasoning_matches])


@pytest.mark.verify
@pytest.mark.parametrize("seed", range(30))
def test_reweighted_scores_are_litellms(prompts: QueryBatch, seed: int) -> None:
    found = random_settings(np.random.default_rng(seed), None)
    (ours,) = candidate_scores(raw_signals(prompts), as_row(found))
    assert np.array_equal(ours.score, own_scores(found.router_config(), prompts), equal_nan=True)


@pytest.mark.verify
@pytest.mark.parametrize("seed", range(24))
def test_every_decision_is_litellms(prompts: QueryBatch, seed: int) -> None:
    """Boundaries and override floor at random or exactly on a score, from one to three boundaries."""
    rng = np.random.default_rng([seed, 1])
    plain = random_settings(rng, None)
    raw = raw_signals(prompts)
    score = next(candidate_scores(raw, as_row(plain))).score
    seen, marked = np.unique(score[~raw.empty]), score[(raw.reasoning_matches == 2) & ~raw.empty]
    floor = [None, float(rng.uniform(-0.5, 1.0)), float(rng.choice(marked)), -10.0][seed % 4]
    found = plain.model_copy(update={"reasoning_override_min_score": floor})
    exact, loose = rng.choice(seen, 3).tolist(), rng.uniform(seen[0], seen[-1], 3).tolist()
    thresholds = sorted([*exact[: seed % 3], *loose][: 1 + seed % 3])
    assert len(set(litellm_decides_as_we_do(found, thresholds, prompts))) >= 2


@pytest.mark.verify
@pytest.mark.parametrize("thresholds", [[UNREACHABLE], [0.1, UNREACHABLE], [-UNREACHABLE, 0.4], [5e5], [0.2, 5e5]])
def test_overridden_prompts_reach_the_dearest_tier_in_use(prompts: QueryBatch, thresholds: list[float]) -> None:
    litellm_decides_as_we_do(TUNED, thresholds, prompts)


@pytest.mark.verify
def test_white_space_at_the_ends_is_not_counted(litellm: Any) -> None:
    """LiteLLM's hook strips a message before it classifies: 59 characters are short whatever surrounds them."""
    stripped, padded = batch_of(("x" * 59, "x" * 60)), batch_of(("\n " + "x" * 59, "x" * 60 + "\t"))
    for batch in (stripped, padded):
        assert LiteLLMScorer().predict(batch).score.tolist() == [-0.1, 0.0]
        assert raw_signals(batch).tokens.tolist() == [14, 15]
        assert litellm_decides_as_we_do(STOCK, [-0.05], batch) == ["a", "b"]


@pytest.mark.verify
def test_the_unconfigured_router_is_a_candidate(prompts: QueryBatch) -> None:
    from toolkit.scorers.litellm import stock_tiers

    scored = prompts.take(np.flatnonzero(~raw_signals(prompts).empty))
    family = LiteLLMFamily(
        LiteLLMScorer().predict(scored),
        raw_signals(scored),
        Lanes(fallback_tier=1, low_confidence_tier=3),
        len(TIER_NAMES),
        box(),
    )
    tier = family.assign(family.stock([0.15, 0.35, 0.60], 0.15)[None])[0]
    assert np.array_equal(tier, stock_tiers(scored)) and set(tier) == {0, 1, 2, 3}


@pytest.mark.verify
def test_a_searched_candidate_routes_in_litellm_as_searched(prompts: QueryBatch) -> None:
    """From cube point to gateway: decode, transfer to other prompts, deploy, export, replay."""
    half = np.arange(len(prompts)) % 2 == 0
    tune, rest = prompts.take(np.flatnonzero(half)), prompts.take(np.flatnonzero(~half))
    scorer = LiteLLMScorer()
    lanes = Lanes(fallback_tier=1, low_confidence_tier=2)
    family = LiteLLMFamily(scorer.predict(tune), raw_signals(tune), lanes, 3, box())
    params = family.space.decode(np.random.default_rng(9).random((6, family.space.dim)))
    there = family.transfer(scorer.predict(rest), rest).assign(params)
    for row, tier in zip(params, there, strict=True):
        deployment = family.deploy(row)
        found = LiteLLMSettings.model_validate(deployment.scorer)
        theirs = litellm_decides_as_we_do(found, list(deployment.values.values()), rest)
        assert theirs == [NAMES[k] for k in tier]


@pytest.mark.verify
@pytest.mark.parametrize("found", [STOCK, TUNED], ids=["stock", "tuned"])
def test_a_scorer_survives_its_folder(prompts: QueryBatch, tmp_path: Path, found: LiteLLMSettings) -> None:
    table = make_table(np.random.default_rng(0), n=20, prompts=True)
    fitted = LiteLLMScorer(settings=found).fit(table)
    fitted.save(tmp_path)
    again = load_scorer(fitted.describe(), tmp_path)
    assert again == fitted and again.describe() == fitted.describe()
    assert np.array_equal(again.predict(prompts).score, fitted.predict(prompts).score, equal_nan=True)
    stored = json.loads((tmp_path / "litellm.json").read_text())
    assert set(stored) == ({"version"} if found == STOCK else {"version", "settings"})


@pytest.mark.verify
def test_a_damaged_scorer_file_is_one_sentence(litellm: Any, tmp_path: Path) -> None:
    (tmp_path / "litellm.json").write_text(json.dumps({"version": "1", "settings": {"dimension_weights": {}}}))
    with pytest.raises(InputDataError, match="damaged"):
        load_scorer({"kind": "litellm"}, tmp_path)


@pytest.mark.verify
def test_litellm_accepts_the_tuned_config(litellm: Any) -> None:
    from toolkit.export.litellm_replay import check_with_litellm

    config = build_config(policy_file([0.1, 0.3], LiteLLMScorer(settings=TUNED).describe()), {})
    assert check_with_litellm(config)
    crc(config)["dimension_weights"]["codePresense"] = crc(config)["dimension_weights"].pop("codePresence")
    with pytest.raises(ExportError, match="codePresen"):
        check_with_litellm(config)


@pytest.mark.verify
def test_recorded_prompts_route_as_searched(litellm: Any, data_dir: Path) -> None:
    column = pq.read_table(data_dir / "outcomes" / "paretobandit_queries.parquet", columns=["prompt"])["prompt"]
    recorded = batch_of(tuple(column.to_pylist()[::9][:200]))
    raw = raw_signals(recorded)
    family = LiteLLMFamily(
        LiteLLMScorer().predict(recorded), raw, Lanes(fallback_tier=1, low_confidence_tier=2), 3, box()
    )
    for row in family.space.decode(np.random.default_rng(0).random((3, family.space.dim))):
        found = LiteLLMSettings.model_validate(family.deploy(row).scorer)
        theirs = litellm_decides_as_we_do(found, row[10:].tolist(), recorded)
        assert theirs == [NAMES[k] for k in family.assign(row[None])[0]]


@pytest.mark.verify
def test_many_candidates_at_once_are_each_alone(prompts: QueryBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    import toolkit.families.litellm as module

    raw = raw_signals(prompts)
    rows = np.concatenate([as_row(random_settings(np.random.default_rng(s), 0.2)) for s in range(20)])
    alone = np.stack([next(candidate_scores(raw, row[None])).score for row in rows])
    monkeypatch.setattr(module, "_BLOCK_ELEMENTS", 3 * len(prompts))
    together = np.stack([scores.score for scores in candidate_scores(raw, rows)])
    assert np.array_equal(alone, together, equal_nan=True)
