"""The scenario sampler against closed forms: every generator's mean and tail, every stated rule, every bad spec."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from scipy.special import expit
from scipy.stats import norm

from simulators.calibration import logistic_normal_moments
from simulators.errors import ConfigError
from simulators.outcomes import OutcomeTable
from simulators.scenario import parse_scenario, sample_scenario
from simulators.seeds import spawn_rng

HYBRID_API = Path(__file__).parents[1] / "conf" / "scenario" / "hybrid_api.yaml"
N = 100_000

GOLDEN_QUALITY = [[0.9999994139302136, 0.9332062368137071, 0.9999997110497961], [0.7610651064167452, 1.0, 1.0]]
GOLDEN_LATENCY_S = [
    [2.1857070022948366, 6.000290503283652, 8.740883273216753],
    [2.536898807927281, 6.493223644206169, 16.492240814670843],
]
GOLDEN_SCORE = [-2.960848857442145, -1.9555356028011186]


def raw_spec(**changes: Any) -> dict[str, Any]:
    """A valid two-tier scenario; keys like `tiers__big__capability` change one value."""
    tier = {"ttft_median_s": 0.4, "ttft_sigma": 0.5}
    raw: dict[str, Any] = {
        "name": "toy",
        "difficulty_sd": 0.8,
        "quality_precision": 6.0,
        "classifier_agreement": 0.85,
        "tiers": {
            "small": {
                **tier,
                "capability": 1.0,
                "input_usd_per_mtok": 0.1,
                "output_usd_per_mtok": 0.2,
                "tokens_per_s": 100.0,
                "verbosity": 0.5,
            },
            "big": {
                **tier,
                "capability": 3.0,
                "input_usd_per_mtok": 1.0,
                "output_usd_per_mtok": 10.0,
                "tokens_per_s": 50.0,
                "inflation_median": 6.0,
                "inflation_sigma": 0.4,
            },
        },
        "slices": {
            "work": {
                "share": 1.0,
                "difficulty": 0.0,
                "input_tokens_median": 500.0,
                "input_tokens_sigma": 0.6,
                "output_tokens_median": 300.0,
                "output_tokens_sigma": 0.5,
            }
        },
    }
    for path, value in changes.items():
        *parents, key = path.split("__")
        node = raw
        for parent in parents:
            node = node[parent]
        node[key] = value
    return raw


def without_spread(**changes: Any) -> dict[str, Any]:
    """`raw_spec` with every lognormal turned into its median."""
    still: dict[str, Any] = {
        "slices__work__input_tokens_sigma": 0.0,
        "slices__work__output_tokens_sigma": 0.0,
        "slices__work__output_tokens_median": 200.0,
        "tiers__big__inflation_sigma": 0.0,
        "tiers__big__ttft_sigma": 0.0,
        "tiers__small__ttft_sigma": 0.0,
    }
    return raw_spec(**{**still, **changes})


def sample(raw: dict[str, Any], n: int = N, seed: int = 0) -> OutcomeTable:
    return sample_scenario(parse_scenario(raw), n_queries=n, rng=spawn_rng(seed, "scenario"))


def lognormal_mean(median: float, sigma: float) -> float:
    return float(median * np.exp(sigma**2 / 2))


class TestTokensCostAndTime:
    def test_mean_cost_and_latency_equal_the_closed_form(self) -> None:
        table = sample(raw_spec())
        inputs, visible = lognormal_mean(500, 0.6), lognormal_mean(300, 0.5)
        inflation, ttft = lognormal_mean(6, 0.4), lognormal_mean(0.4, 0.5)
        cost = [(0.1 * inputs + 0.2 * 0.5 * visible) / 1e6, (1.0 * inputs + 10.0 * visible * inflation) / 1e6]
        latency = [ttft + 0.5 * visible / 100, ttft + visible * inflation / 50]
        assert table.tiers == ("small", "big")
        np.testing.assert_allclose(table.cost_usd.mean(axis=0), cost, rtol=0.01)
        np.testing.assert_allclose(table.latency_s.mean(axis=0), latency, rtol=0.01)

    def test_token_generators_have_the_stated_variance_and_tail(self) -> None:
        table = sample(raw_spec())
        for tokens, median, sigma in (
            (table.input_tokens[:, 0], 500, 0.6),
            (table.output_tokens[:, 0], 150, 0.5),
            (table.output_tokens[:, 1], 300 * 6, np.hypot(0.5, 0.4)),
        ):
            logs = np.log(tokens)
            assert logs.std() == pytest.approx(sigma, rel=0.01)
            quantiles = np.quantile(tokens, [0.5, 0.99, 0.999])
            np.testing.assert_allclose(quantiles, median * np.exp(sigma * norm.ppf([0.5, 0.99, 0.999])), rtol=0.06)

    def test_time_to_first_token_has_the_stated_median_and_tail(self) -> None:
        ttft = sample(raw_spec()).ttft_s[:, 0]
        np.testing.assert_allclose(np.quantile(ttft, [0.5, 0.99]), 0.4 * np.exp(0.5 * norm.ppf([0.5, 0.99])), rtol=0.03)

    def test_hidden_tokens_come_before_the_first_visible_one(self) -> None:
        table = sample(without_spread(), n=10)
        np.testing.assert_allclose(table.output_tokens[:, 1], 200 * 6)
        np.testing.assert_allclose(table.ttft_s[:, 1], 0.4 + 200 * 5 / 50)
        np.testing.assert_allclose(table.latency_s[:, 1], 0.4 + 200 * 6 / 50)
        np.testing.assert_allclose(table.ttft_s[:, 0], 0.4)
        np.testing.assert_allclose(table.latency_s[:, 0], 0.4 + 100 / 100)

    def test_inflation_follows_the_length_of_the_answer(self) -> None:
        long_answer = {"slices__work__output_tokens_median": 800.0, "tiers__big__inflation_exponent": -0.5}
        table = sample(without_spread(**long_answer), n=3)
        np.testing.assert_allclose(table.output_tokens[:, 1], 800 * 6 / 2)  # (800 / 200) ** -0.5 = 1 / 2

    def test_billed_tokens_are_never_fewer_than_visible_ones(self) -> None:
        table = sample(without_spread(slices__work__output_tokens_median=1e5, tiers__big__inflation_exponent=-1), n=3)
        np.testing.assert_allclose(table.output_tokens[:, 1], 1e5)
        np.testing.assert_allclose(table.ttft_s[:, 1], 0.4)

    def test_tokens_are_whole_and_at_least_one(self) -> None:
        table = sample(raw_spec(slices__work__input_tokens_median=1, slices__work__output_tokens_median=1), n=1000)
        for tokens in (table.input_tokens, table.output_tokens):
            assert tokens.min() == 1
            np.testing.assert_array_equal(tokens, np.rint(tokens))
        np.testing.assert_array_equal(table.input_tokens[:, 0], table.input_tokens[:, 1])


class TestTiersAndSlices:
    def test_tiers_are_ordered_by_billed_cost_even_if_list_price_says_otherwise(self) -> None:
        # S1's own example: R1 is cheaper per token (0.70 / 2.50) than GPT-4o (2.50 / 10.00) and dearer per answer.
        raw = without_spread(
            tiers__small__input_usd_per_mtok=2.5,
            tiers__small__output_usd_per_mtok=10.0,
            tiers__small__verbosity=1.0,
            tiers__big__input_usd_per_mtok=0.7,
            tiers__big__output_usd_per_mtok=2.5,
            tiers__big__inflation_median=15.0,
        )
        raw["tiers"] = {name: raw["tiers"][name] for name in ("big", "small")}
        table = sample(raw, n=50)
        assert table.tiers == ("small", "big")
        assert np.all(np.diff(table.cost_usd.mean(axis=0)) > 0)
        np.testing.assert_allclose(table.output_tokens[0], [200, 3000])  # columns move with their names
        assert table.quality[:, 1].mean() > table.quality[:, 0].mean()

    def test_slices_are_sorted_and_occur_by_their_shares(self) -> None:
        raw = raw_spec()
        work = raw["slices"].pop("work")
        raw["slices"] = {
            "zeta": {**work, "share": 0.7, "difficulty": -1.0},
            "alpha": {**work, "share": 0.3, "difficulty": 1.0, "input_tokens_median": 50.0},
        }
        table = sample(raw)
        assert table.slices == ("alpha", "zeta")
        assert (table.slice_code == 0).mean() == pytest.approx(0.3, abs=0.005)
        assert np.median(table.input_tokens[table.slice_code == 0, 0]) == pytest.approx(50, rel=0.03)
        assert table.quality[table.slice_code == 0].mean() < table.quality[table.slice_code == 1].mean()

    def test_what_a_router_sees(self) -> None:
        table = sample(raw_spec(), n=20)
        assert table.queries.query_id[17] == "toy-000017"
        assert table.queries.prompt is None
        assert sorted(table.queries.signals) == ["confidence", "difficulty_score"]
        assert table.source == "scenario toy, 20 sampled queries"
        assert not table.error.any()


class TestQuality:
    def test_mean_and_variance_of_the_judge_score(self) -> None:
        table = sample(raw_spec(difficulty_sd=1e-9))
        mu = expit([1.0, 3.0])
        np.testing.assert_allclose(table.quality.mean(axis=0), mu, atol=0.003)
        np.testing.assert_allclose(table.quality.var(axis=0), mu * (1 - mu) / 7, rtol=0.03)
        assert abs(np.asarray(np.corrcoef(table.quality.T))[0, 1]) < 0.015  # independent given the difficulty

    def test_tiers_vary_together_through_the_difficulty(self) -> None:
        table = sample(raw_spec(difficulty_sd=1.5))
        _, second = logistic_normal_moments(np.array([1.0, 3.0]), np.array([0.0]), 1.5)
        assert np.mean(table.quality[:, 0] * table.quality[:, 1]) == pytest.approx(second[0, 0, 1], abs=0.003)

    def test_a_tier_that_is_always_right_stays_in_range(self) -> None:
        table = sample(raw_spec(tiers__big__capability=1000.0, tiers__small__capability=-1000.0), n=1000)
        assert table.quality[:, 1].min() > 0.99
        assert table.quality[:, 0].max() < 0.01


class TestSignals:
    @pytest.mark.parametrize("agreement", [0.6, 0.85, 0.99])
    def test_score_and_difficulty_agree_in_sign_as_often_as_stated(self, agreement: float) -> None:
        # A precise score reveals the difficulty: D = capability - logit(quality).
        table = sample(raw_spec(classifier_agreement=agreement, quality_precision=1e7))
        difficulty = 1.0 - np.log(table.quality[:, 0] / (1 - table.quality[:, 0]))
        score, confidence = (table.queries.signals[name] for name in ("difficulty_score", "confidence"))
        right = (difficulty > np.median(difficulty)) == (score > np.median(score))
        assert right.mean() == pytest.approx(agreement, abs=0.005)
        assert confidence.mean() == pytest.approx(agreement, abs=0.005)
        sure = confidence >= np.quantile(confidence, 0.75)
        assert confidence.min() >= 0.5 and confidence.max() <= 1.0
        assert right[sure].mean() == pytest.approx(confidence[sure].mean(), abs=0.01)

    def test_a_higher_score_means_a_harder_query(self) -> None:
        table = sample(raw_spec(), n=5000)
        score = table.queries.signals["difficulty_score"]
        assert table.quality[score > np.median(score)].mean() < table.quality[score < np.median(score)].mean() - 0.05


class TestDeterminism:
    def test_same_seed_same_table_and_another_seed_another(self) -> None:
        first, again, other = sample(raw_spec(), 500), sample(raw_spec(), 500), sample(raw_spec(), 500, seed=1)
        assert first.data_hash == again.data_hash != other.data_hash
        np.testing.assert_array_equal(first.ttft_s, again.ttft_s)

    def test_a_change_of_the_token_model_leaves_the_qualities(self) -> None:
        first = sample(raw_spec(), 500)
        other = sample(raw_spec(slices__work__output_tokens_median=900.0), 500)
        np.testing.assert_array_equal(first.quality, other.quality)
        np.testing.assert_array_equal(first.queries.signals["confidence"], other.queries.signals["confidence"])

    @pytest.mark.parametrize("n", [0, -5])
    def test_no_query_is_an_error(self, n: int) -> None:
        with pytest.raises(ConfigError, match=f"n_queries: expected at least 1 .* got {n}"):
            sample(raw_spec(), n)


class TestParse:
    @pytest.mark.parametrize(
        ("change", "expected", "got"),
        [
            ({"slices__work__share": 0.9}, "scenario.slices: the shares of all slices should sum to 1", "sum to 0.9"),
            ({"tiers__big__colour": "red"}, "scenario.tiers.big.colour: expected one of capability,", "unknown key"),
            ({"n_queries": 4000}, "scenario.n_queries: expected one of name,", "unknown key"),
            ({"slices__work__length": 3}, "scenario.slices.work.length: expected one of share,", "unknown key"),
            (
                {"tiers__small__input_usd_per_mtok": -0.1},
                "scenario.tiers.small.input_usd_per_mtok: expected a value that is greater than or equal to 0",
                "got -0.1",
            ),
            ({"classifier_agreement": "high\nest"}, "scenario.classifier_agreement: ", r"got 'high\nest'"),
            ({"classifier_agreement": 1.0}, "scenario.classifier_agreement: expected", "got 1.0"),
            ({"difficulty_sd": float("nan")}, "scenario.difficulty_sd: expected a value that is a finite", "got nan"),
            ({"tiers": {}}, "scenario.tiers: ", "got {}"),
            ({"slices__work": {"share": 1.0}}, "scenario.slices.work.difficulty: expected a value", "got nothing"),
            ({"tiers__big": {"capability": 1.0}}, "scenario.tiers.big.input_usd_per_mtok: expected", "(and 4 more"),
            ({"name": "two words"}, "scenario.name: ", "got 'two words'"),
        ],
    )
    def test_a_bad_spec_is_one_line(self, change: dict[str, Any], expected: str, got: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_scenario(raw_spec(**change))
        message = str(caught.value)
        assert message.startswith(expected) and got in message
        assert "\n" not in message

    def test_parsing_leaves_its_input_alone(self) -> None:
        raw = raw_spec()
        before = copy.deepcopy(raw)
        parse_scenario(raw)
        assert raw == before


positive = st.floats(0.01, 50.0)
sigmas = st.floats(0.0, 2.0)
shares = st.floats(0, 1)
tier_specs = st.fixed_dictionaries(
    {
        "capability": st.floats(-50, 50),
        "input_usd_per_mtok": st.floats(0.001, 100),  # a price of 0 is an error
        "output_usd_per_mtok": st.floats(0.001, 100),
        "ttft_median_s": positive,
        "ttft_sigma": sigmas,
        "tokens_per_s": positive,
        "verbosity": positive,
        "inflation_median": st.floats(1, 50),
        "inflation_exponent": st.floats(-1, 1),
        "inflation_sigma": sigmas,
    },
    optional={
        "quality_shift": st.fixed_dictionaries({"s0": st.floats(-5, 5)}),
        "cached_input_usd_per_mtok": st.floats(0, 100),
        "reasoning_usd_per_mtok": st.floats(0, 100),
        "batch_discount": st.floats(0, 0.99),
        "fidelity": st.dictionaries(st.sampled_from(["format", "tools"]), shares),
        "speculative": st.fixed_dictionaries({"draft_tokens": st.integers(1, 20), "acceptance": shares}),
        "modes": st.fixed_dictionaries({"none": st.just({}), "full": st.just({"capability": 2.0})}),
        "second": st.fixed_dictionaries(
            {"tier": st.just("t0"), "share": st.floats(0.01, 1), "kind": st.sampled_from(["format", "check"])}
        ),
    },
)
slice_specs = st.fixed_dictionaries(
    {
        "difficulty": st.floats(-50, 50),
        "input_tokens_median": st.floats(1, 1e5),
        "input_tokens_sigma": sigmas,
        "output_tokens_median": st.floats(1, 1e5),
        "output_tokens_sigma": sigmas,
    },
    optional={
        "batch": st.booleans(),
        "cached_share": shares,
        "needs": st.lists(st.sampled_from(["format", "tools"]), unique=True),
    },
)
changes = st.fixed_dictionaries(
    {"at_s": st.floats(1, 99), "price_factor": st.floats(1.1, 3)},
    optional={"tiers": st.just(["t0"]), "quality_shift": st.floats(-5, 5), "speed_factor": positive},
)
worlds = st.fixed_dictionaries(
    {"traffic": st.just({"duration_s": 100.0, "arrivals": {"kind": "poisson", "rate_per_s": 1.0}})},
    optional={
        "network": st.fixed_dictionaries({"share": shares, "factor": st.floats(1, 10)}),
        "changes": st.lists(changes, max_size=3),
        "routers": st.fixed_dictionaries(
            {"ml": st.fixed_dictionaries({"accuracy": st.floats(0.51, 0.99), "delay_median_s": st.floats(0, 1)})}
        ),
    },
)


def without_second_of_the_first(tiers: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`t0` is the others' second stage, so that it has none, and no modes."""
    first = {key: value for key, value in tiers[0].items() if key not in {"second", "modes"}}
    return {f"t{i}": tier for i, tier in enumerate([first, *tiers[1:]])}


specs = st.builds(
    lambda tiers, slices, sd, precision, agreement, world: {
        "name": "any",
        "difficulty_sd": sd,
        "quality_precision": precision,
        "classifier_agreement": agreement,
        "tiers": without_second_of_the_first(tiers),
        "slices": {f"s{i}": {**one, "share": 1 / len(slices)} for i, one in enumerate(slices)},
        **world,
    },
    st.lists(tier_specs, min_size=2, max_size=4),
    st.lists(slice_specs, min_size=1, max_size=4),
    st.floats(0.01, 10),
    st.floats(0.01, 1000),
    st.floats(0.51, 0.99),
    st.just({}) | worlds,
)


@settings(max_examples=60, deadline=None)
@given(raw=specs, n=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_every_valid_spec_gives_a_valid_table(raw: dict[str, Any], n: int, seed: int) -> None:
    table = sample(raw, n, seed)
    names = [f"{name}-{m}" if m else name for name, tier in raw["tiers"].items() for m in tier.get("modes", [""])]
    assert table.quality.shape == (n, len(names))
    assert sorted(table.tiers) == sorted(names)
    assert table.hold_s.shape == table.quality.shape and (table.hold_s <= table.latency_s).all()
    assert table.has_cost and table.has_latency
    cost = table.cost_usd.mean(axis=0)
    assert np.all(np.diff(cost) >= -1e-12 * cost.max())  # tiers of equal cost differ in the last bit of a mean
    assert np.all(table.latency_s >= table.ttft_s) and np.all(table.ttft_s > 0)
    assert table.output_tokens.min() >= 1 and table.input_tokens.min() >= 1
    confidence = table.queries.signals["confidence"]
    assert np.all((confidence >= 0.5) & (confidence <= 1.0))
    assert table.data_hash == sample(raw, n, seed).data_hash


@pytest.fixture(scope="module")
def table() -> OutcomeTable:
    raw = OmegaConf.to_container(OmegaConf.load(HYBRID_API))
    assert isinstance(raw, dict)
    return sample({str(key): value for key, value in raw.items()})


class TestHybridApi:
    """The embedded scenario as it is committed."""

    def test_a_seed_draws_what_it_drew_in_the_first_release(self, table: OutcomeTable) -> None:
        """Written evidence rests on these draws: a new purpose must not take the stream of an old one."""
        np.testing.assert_allclose(table.quality[:2], GOLDEN_QUALITY, rtol=1e-9)
        np.testing.assert_allclose(table.latency_s[:2], GOLDEN_LATENCY_S, rtol=1e-9)
        np.testing.assert_allclose(table.queries.signals["difficulty_score"][:2], GOLDEN_SCORE, rtol=1e-9)

    def test_three_tiers_and_at_least_six_slices(self, table: OutcomeTable) -> None:
        assert table.tiers == ("fast", "standard", "reasoning")
        assert len(table.slices) == 9
        assert np.all(np.diff(table.quality.mean(axis=0)) > 0)
        assert np.all(np.diff(table.latency_s.mean(axis=0)) > 0)

    def test_head_of_the_file_says_what_comes_out(self, table: OutcomeTable) -> None:
        text = HYBRID_API.read_text(encoding="utf-8")
        assert text.startswith("# routefront tune scenario=hybrid_api ")
        for k, tier in enumerate(table.tiers):
            line = next(line for line in text.splitlines() if line.startswith(f"# Expected: {tier} "))
            assert f"quality {table.quality[:, k].mean():.3f}" in line
            assert f"{1e3 * table.cost_usd[:, k].mean():.3g} USD per 1,000 queries" in line
            assert f"p95 {np.quantile(table.latency_s[:, k], 0.95):.3g} s" in line

    def test_every_number_has_its_source_beside_it(self) -> None:
        lines = HYBRID_API.read_text(encoding="utf-8").splitlines()
        numbers = [line for line in lines if not line.startswith(("#", "name:")) and not line.rstrip().endswith(":")]
        assert len(numbers) > 80
        assert all("  # " in line for line in numbers)
