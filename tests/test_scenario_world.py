"""What a scenario can say beyond three plain tiers, against closed forms: each feature, and each way to misstate it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import BaseModel
from scipy.special import expit
from scipy.stats import norm
from test_scenario import lognormal_mean, raw_spec, without_spread
from test_scenario import sample as sample_table

from simulators.errors import ConfigError
from simulators.outcomes import OutcomeTable
from simulators.scenario import (
    ChangeSpec,
    NetworkSpec,
    ScenarioSpec,
    SliceSpec,
    StrategySpec,
    TierSpec,
    parse_scenario,
    sample_scenario,
    traffic_of,
)
from simulators.seeds import spawn_rng
from simulators.tiers import SpeculativeSpec, arms
from simulators.traffic import (
    ConductSpec,
    OutageSpec,
    RouterSpec,
    SecondStage,
    StationSpec,
    TrafficSpec,
    make_world,
)

TRAFFIC: dict[str, Any] = {"duration_s": 1000.0, "arrivals": {"kind": "poisson", "rate_per_s": 1.0}}
SMALL, BIG = 0, 1
N = 40_000


def sample(raw: dict[str, Any], n: int = N) -> OutcomeTable:
    return sample_table(raw, n)


def traffic(**more: Any) -> dict[str, Any]:
    return {**TRAFFIC, **more}


def parsed_traffic(raw: dict[str, Any]) -> TrafficSpec:
    return traffic_of(parse_scenario(raw))


def two_slices(second: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """`without_spread`, a quarter of it in a slice `other` that differs by `second`."""
    raw = without_spread(**changes)
    work = raw["slices"].pop("work")
    raw["slices"] = {"other": {**work, "share": 0.25, **second}, "work": {**work, "share": 0.75}}
    return raw


def by_slice(table: OutcomeTable, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values in `other` and in `work`."""
    return values[table.slice_code == 0], values[table.slice_code == 1]


class TestQualityShift:
    def test_a_dearer_tier_may_be_worse_on_some_slice(self) -> None:
        raw = two_slices({}, difficulty_sd=1e-9, tiers__big__quality_shift={"other": -3.5})
        table = sample(raw)
        other, work = by_slice(table, table.quality)
        np.testing.assert_allclose(other.mean(axis=0), expit([1.0, -0.5]), atol=0.006)
        np.testing.assert_allclose(work.mean(axis=0), expit([1.0, 3.0]), atol=0.003)


class TestPrices:
    def test_cached_input_and_hidden_output_have_their_own_prices(self) -> None:
        prices = {"tiers__big__cached_input_usd_per_mtok": 0.1, "tiers__big__reasoning_usd_per_mtok": 4.0}
        table = sample(without_spread(slices__work__cached_share=0.6, **prices), n=5)
        inputs = 500 * (0.4 * 1.0 + 0.6 * 0.1)
        np.testing.assert_allclose(table.cost_usd[:, BIG], (inputs + 200 * 10.0 + 1000 * 4.0) / 1e6)
        np.testing.assert_allclose(table.cost_usd[:, SMALL], (500 * 0.1 + 100 * 0.2) / 1e6)  # no price of its own

    def test_batch_traffic_has_its_discount(self) -> None:
        table = sample(two_slices({"batch": True}, tiers__big__batch_discount=0.5), n=1000)
        other, work = by_slice(table, table.cost_usd)
        full = (500 * 1.0 + 1200 * 10.0) / 1e6
        np.testing.assert_allclose(other[:, BIG], 0.5 * full)
        np.testing.assert_allclose(work[:, BIG], full)
        np.testing.assert_allclose(other[:, SMALL], work[0, SMALL])
        assert table.batch is not None
        np.testing.assert_array_equal(table.batch, table.slice_code == 0)
        np.testing.assert_allclose(table.latency_s[:, BIG], 0.4 + 1200 / 50)  # the provider's delay is not in it

    def test_a_free_tier_needs_capacity_with_a_price(self) -> None:
        free = {"tiers__small__input_usd_per_mtok": 0.0, "tiers__small__output_usd_per_mtok": 0.0}
        unpriced = traffic(stations={"small": {"slots": 4}})
        for more in ({}, {"traffic": TRAFFIC}, {"traffic": unpriced}):
            with pytest.raises(ConfigError, match="an unpriced model is not free"):
                parse_scenario(raw_spec(**free, **more))
        for priced in ({"slots": 4, "slot_usd_per_hour": 2.0}, {"gpus": 2, "gpu_usd_per_hour": 3.0}):
            table = sample(raw_spec(**free, traffic=traffic(stations={"small": priced})), n=10)
            assert table.tiers[0] == "small" and not table.cost_usd[:, 0].any()

    def test_modes_share_the_price_of_their_station(self) -> None:
        raw = with_modes(output_usd_per_mtok=0.0, input_usd_per_mtok=0.0)
        raw["traffic"] = traffic(stations={"big": {"gpus": 1, "gpu_usd_per_hour": 3.0}})
        parse_scenario(raw)
        raw["traffic"]["tiers"] = {"big-full": {"station": "pool"}}
        raw["traffic"]["stations"]["pool"] = {}
        with pytest.raises(ConfigError, match="scenario.tiers.big.input_usd_per_mtok: an unpriced model"):
            parse_scenario(raw)


class TestFidelity:
    RAW: Mapping[str, Any] = {"tiers__big__fidelity": {"format": 0.9, "tools": 0.6}}

    @pytest.mark.parametrize(
        ("needs", "expected"), [([], 1.0), (["format"], 0.9), (["tools"], 0.6), (["tools", "format"], 0.54)]
    )
    def test_an_answer_that_lacks_a_needed_skill_is_worth_nothing(self, needs: list[str], expected: float) -> None:
        table = sample(two_slices({"needs": needs}, **self.RAW))
        other, work = by_slice(table, table.quality > 0)
        assert other[:, BIG].mean() == pytest.approx(expected, abs=0.01)
        assert work.all() and other[:, SMALL].all()
        assert not table.error.any()

    def test_answers_that_work_keep_their_quality_and_all_are_billed(self) -> None:
        with_needs, without = sample(two_slices({"needs": ["tools"]}, **self.RAW)), sample(two_slices({}, **self.RAW))
        works = with_needs.quality > 0
        np.testing.assert_array_equal(with_needs.quality[works], without.quality[works])
        np.testing.assert_array_equal(with_needs.cost_usd, without.cost_usd)

    def test_the_format_is_that_of_the_tier_that_writes_last(self) -> None:
        second = {"tier": "small", "share": 0.5}
        raw = raw_spec(
            slices__work__needs=["format", "tools"],
            tiers__big__fidelity={"format": 0.1, "tools": 0.8},
            tiers__small__fidelity={"format": 0.9, "tools": 0.3},
        )
        raw["tiers"]["big"]["second"] = second
        assert (sample(raw).quality[:, BIG] > 0).mean() == pytest.approx(0.9 * 0.8, abs=0.01)
        raw["tiers"]["big"]["second"] = {**second, "kind": "check"}
        assert (sample(raw).quality[:, BIG] > 0).mean() == pytest.approx(0.1 * 0.8, abs=0.01)


class TestSpeculativeDecoding:
    @pytest.mark.parametrize(
        ("g", "a", "c"), [(1, 0.5, 0.2), (4, 0.7, 0.1), (8, 0.95, 0.0), (3, 0.0, 0.5), (5, 1.0, 0)]
    )
    def test_speed_up_equals_a_simulation_of_drafts_and_passes(self, g: int, a: float, c: float) -> None:
        accepted = np.cumprod(np.random.default_rng(1).random((200_000, g)) < a, axis=1).sum(axis=1)
        simulated = (accepted + 1.0).mean() / (1.0 + g * c)
        found = SpeculativeSpec(draft_tokens=g, acceptance=a, draft_cost=c).speed_up
        assert found == pytest.approx(simulated, rel=0.005)
        assert found == pytest.approx((g + 1 if a == 1 else (1 - a ** (g + 1)) / (1 - a)) / (1 + g * c))

    def test_bad_drafts_slow_a_tier_down(self) -> None:
        assert SpeculativeSpec(draft_tokens=4, acceptance=0.1, draft_cost=0.25).speed_up < 0.6

    def test_hidden_and_visible_tokens_are_faster_and_the_base_is_not(self) -> None:
        speculative = {"draft_tokens": 2, "acceptance": 0.5, "draft_cost": 0.125}
        table = sample(without_spread(tiers__big__speculative=speculative), n=5)
        speed = 50 * 1.75 / 1.25
        np.testing.assert_allclose(table.ttft_s[:, BIG], 0.4 + 1000 / speed)
        np.testing.assert_allclose(table.latency_s[:, BIG], 0.4 + 1200 / speed)
        np.testing.assert_allclose(table.latency_s[:, SMALL], 0.4 + 100 / 100)


class TestSpeed:
    def test_the_speed_of_an_answer_has_the_stated_median_and_tail(self) -> None:
        table = sample(without_spread(tiers__small__speed_sigma=0.5))
        decode_s = table.latency_s - table.ttft_s
        levels = [0.01, 0.5, 0.99]
        np.testing.assert_allclose(np.quantile(decode_s[:, SMALL], levels), np.exp(0.5 * norm.ppf(levels)), rtol=0.03)
        np.testing.assert_allclose(decode_s[:, BIG], 200 / 50)

    def test_hidden_and_visible_tokens_of_an_answer_have_one_speed(self) -> None:
        table = sample(without_spread(tiers__big__speed_sigma=0.5), n=50)
        np.testing.assert_allclose((table.ttft_s - 0.4)[:, BIG], 5 * (table.latency_s - table.ttft_s)[:, BIG])


class TestSecondStage:
    SMALL_S, BIG_S = 0.4 + 1.0, 0.4 + 24.0
    SMALL_USD, BIG_USD = (500 * 0.1 + 100 * 0.2) / 1e6, (500 * 1.0 + 1200 * 10.0) / 1e6

    def test_a_formatted_answer_takes_and_costs_both_stages(self) -> None:
        table = sample(without_spread(tiers__big__second={"tier": "small", "share": 0.25}), n=5)
        np.testing.assert_allclose(table.latency_s[:, BIG], self.BIG_S + 0.25 * self.SMALL_S)
        np.testing.assert_allclose(table.ttft_s[:, BIG], self.BIG_S + 0.25 * 0.4)
        np.testing.assert_allclose(table.cost_usd[:, BIG], self.BIG_USD + 0.25 * self.SMALL_USD)
        np.testing.assert_allclose(table.hold_s, [[self.SMALL_S, self.BIG_S]] * 5)
        np.testing.assert_allclose(table.output_tokens[:, BIG], 1200)  # of the first stage alone
        np.testing.assert_allclose(table.latency_s[:, SMALL], self.SMALL_S)

    def test_a_checked_answer_is_out_at_once_and_corrected_where_the_checker_is_better(self) -> None:
        check = {"tier": "big", "share": 0.5, "kind": "check", "correction_rate": 0.4}
        table, plain = sample(without_spread(tiers__small__second=check)), sample(without_spread())
        np.testing.assert_array_equal(table.latency_s, plain.latency_s)
        np.testing.assert_array_equal(table.ttft_s, plain.ttft_s)
        assert table.occupied_s is None
        np.testing.assert_allclose(table.cost_usd[:, SMALL], self.SMALL_USD + 0.5 * self.BIG_USD)
        q, checker = plain.quality.T
        np.testing.assert_allclose(table.quality[:, SMALL], np.where(checker > q, 0.6 * q + 0.4 * checker, q))
        np.testing.assert_array_equal(table.quality[:, BIG], plain.quality[:, BIG])

    def test_quality_without_the_check_is_kept(self) -> None:
        check = {"tier": "big", "share": 0.5, "kind": "check", "correction_rate": 0.4}
        table, plain = sample(without_spread(tiers__small__second=check), n=50), sample(without_spread(), n=50)
        assert plain.unchecked is None and table.unchecked is not None
        order = [plain.tiers.index(name) for name in table.tiers]
        np.testing.assert_array_equal(table.unchecked, plain.quality[:, order])
        assert sample(without_spread(tiers__big__second={"tier": "small"}), n=5).unchecked is None

    def test_the_order_of_the_tiers_counts_both_stages(self) -> None:
        check = {"tier": "big", "kind": "check"}
        assert sample(without_spread(tiers__small__second=check), n=5).tiers == ("big", "small")

    def test_traffic_knows_the_second_stages(self) -> None:
        found = parsed_traffic(raw_spec(traffic=TRAFFIC, tiers__big__second={"tier": "small", "share": 0.2}))
        assert found.second == {"big": SecondStage(tier="small", share=0.2)}


class TestNetwork:
    def test_a_share_of_the_clients_waits_longer_and_holds_no_slot_for_it(self) -> None:
        table, plain = sample(raw_spec(network={"share": 0.2, "factor": 2.5})), sample(raw_spec())
        ratio = table.latency_s / plain.latency_s
        slow = ratio[:, 0] > 1.5
        assert slow.mean() == pytest.approx(0.2, abs=0.005)
        np.testing.assert_allclose(ratio, np.where(slow, 2.5, 1.0)[:, None] * np.ones(2))
        np.testing.assert_allclose(table.ttft_s / plain.ttft_s, ratio)
        np.testing.assert_array_equal(table.hold_s, plain.latency_s)
        np.testing.assert_array_equal(table.cost_usd, plain.cost_usd)

    def test_both_stages_come_over_the_network(self) -> None:
        second = {"tiers__big__second": {"tier": "small", "share": 0.25}}
        table = sample(without_spread(network={"share": 1.0, "factor": 2.0}, **second), n=5)
        np.testing.assert_allclose(table.latency_s[:, BIG], 2 * (24.4 + 0.25 * 1.4))
        np.testing.assert_allclose(table.hold_s[:, BIG], 24.4)


class TestLengths:
    def test_a_slice_may_have_any_law_of_lengths(self) -> None:
        raw = two_slices({})
        for side in ("input", "output"):
            del raw["slices"]["other"][f"{side}_tokens_median"], raw["slices"]["other"][f"{side}_tokens_sigma"]
        raw["slices"]["other"] |= {
            "input_length": {"kind": "fixed", "tokens": 77},
            "output_length": {"kind": "gamma", "mean": 400.0, "cv": 1.0},
        }
        table = sample(raw)
        other, work = by_slice(table, table.input_tokens)
        assert (other == 77).all() and (work == 500).all()
        other, work = by_slice(table, table.output_tokens)
        assert other[:, SMALL].mean() == pytest.approx(0.5 * 400, rel=0.02)  # verbosity 0.5
        assert other[:, SMALL].std() == pytest.approx(0.5 * 400, rel=0.03)
        assert (work[:, SMALL] == 100).all()

    def test_the_other_slices_keep_their_draws(self) -> None:
        raw, plain = two_slices({}), two_slices({})
        raw["slices"]["other"]["input_length"] = {"kind": "fixed", "tokens": 77}
        del raw["slices"]["other"]["input_tokens_median"], raw["slices"]["other"]["input_tokens_sigma"]
        for one in (raw, plain):
            one["slices"]["work"]["input_tokens_sigma"] = 0.6
        first, second = sample(raw, 2000), sample(plain, 2000)
        np.testing.assert_array_equal(by_slice(first, first.input_tokens)[1], by_slice(second, second.input_tokens)[1])


def with_modes(**big: Any) -> dict[str, Any]:
    raw = without_spread()
    raw["tiers"]["big"] |= big
    raw["tiers"]["big"]["modes"] = {
        "none": {"inflation_median": 1.0, "capability": 1.5},
        "full": {"capability": 4.0},
    }
    return raw


class TestModes:
    def test_each_mode_is_a_tier_that_differs_as_stated(self) -> None:
        table = sample(with_modes(), n=5)
        assert table.tiers == ("small", "big-none", "big-full")
        np.testing.assert_allclose(table.output_tokens[0], [100, 200, 1200])
        np.testing.assert_allclose(table.cost_usd[0, 1], (500 * 1.0 + 200 * 10.0) / 1e6)
        spec = arms(parse_scenario(with_modes()).tiers)
        assert spec["big-none"].capability == 1.5 and spec["big-full"].tokens_per_s == 50.0

    def test_modes_share_the_station_of_their_model(self) -> None:
        conduct = {"big": {"timeout_s": 30.0}, "big-full": {"fallback": "big-none", "retries": 2}}
        found = parsed_traffic({**with_modes(), "traffic": traffic(tiers=conduct)})
        assert {found.tiers[arm].station for arm in ("big-none", "big-full")} == {"big"}
        assert found.tiers["big-none"].timeout_s == 30.0
        assert (found.tiers["big-full"].retries, found.tiers["big-full"].timeout_s) == (2, None)
        world = make_world(sample(with_modes(), 50), found, load=1.0, rng=spawn_rng(0, "world"))
        assert [station.name for station in world.stations] == ["big", "small"]
        assert [rule.station for rule in world.rules] == [1, 0, 0]
        assert world.rules[2].fallback == 1

    def test_a_mode_may_drop_what_its_model_has(self) -> None:
        raw = with_modes(second={"tier": "big-none", "share": 0.1}, speculative={"draft_tokens": 2, "acceptance": 0.5})
        raw["tiers"]["big"]["modes"]["none"] |= {"second": None, "speculative": None}
        found = arms(parse_scenario(raw).tiers)
        assert found["big-none"].second is None and found["big-none"].decode_tokens_per_s == 50.0
        assert found["big-full"].second == SecondStage(tier="big-none", share=0.1)


class TestChanges:
    def drifting(self, *changes: dict[str, Any]) -> dict[str, Any]:
        return without_spread(traffic=TRAFFIC, changes=list(changes), difficulty_sd=1e-9)

    def test_rows_come_evenly_over_the_traffic_and_know_their_segment(self) -> None:
        table = sample(self.drifting({"at_s": 700, "price_factor": 2.0}, {"at_s": 200, "price_factor": 2.0}))
        assert table.asked_s is not None
        assert np.unique(table.asked_s).tolist() == [0.0, 200.0, 700.0]
        shares = [(table.asked_s == at).mean() for at in (0.0, 200.0, 700.0)]
        np.testing.assert_allclose(shares, [0.2, 0.5, 0.3], atol=0.006)

    def test_changes_add_up_from_their_instant_on(self) -> None:
        table = sample(
            self.drifting(
                {"at_s": 500, "tiers": ["big"], "quality_shift": -2.0, "speed_factor": 0.5},
                {"at_s": 800, "quality_shift": -0.5, "speed_factor": 0.5, "price_factor": 3.0},
            )
        )
        assert table.asked_s is not None
        shifts = {0.0: (0.0, 0.0), 500.0: (0.0, -2.0), 800.0: (-0.5, -2.5)}
        slower = {0.0: (1.0, 1.0), 500.0: (1.0, 2.0), 800.0: (2.0, 4.0)}
        for at, shift in shifts.items():
            rows = table.asked_s == at
            np.testing.assert_allclose(
                table.quality[rows].mean(axis=0), expit(np.array([1.0, 3.0]) + shift), atol=0.008
            )
            np.testing.assert_allclose(table.latency_s[rows], [np.array([1.4, 24.4]) * slower[at]] * int(rows.sum()))
            np.testing.assert_allclose(table.ttft_s[rows][0], np.array([0.4, 20.4]) * slower[at])
            price = 3.0 if at == 800.0 else 1.0
            np.testing.assert_allclose(table.cost_usd[rows][0], np.array([70.0, 12_500.0]) / 1e6 * price)

    def test_a_model_means_all_its_modes_and_a_mode_only_itself(self) -> None:
        for names, expected in ((["big"], [1.0, 2.0, 2.0]), (["big-none"], [1.0, 2.0, 1.0])):
            raw = {**with_modes(), "traffic": TRAFFIC, "changes": [{"at_s": 1, "tiers": names, "price_factor": 2.0}]}
            plain = sample(with_modes(), 1)
            table = sample(raw, 1)
            assert table.asked_s is not None and table.asked_s[0] == 1.0
            np.testing.assert_allclose(table.cost_usd / plain.cost_usd, [expected])

    def test_traffic_asks_the_rows_that_hold(self) -> None:
        raw = self.drifting({"at_s": 400, "price_factor": 2.0})
        table = sample(raw, 500)
        world = make_world(table, parsed_traffic(raw), load=1.0, rng=spawn_rng(0, "world"))
        assert table.asked_s is not None
        np.testing.assert_array_equal(table.asked_s[world.row] == 400.0, world.arrival_s >= 400.0)


def router(**changes: Any) -> dict[str, Any]:
    return {"accuracy": 0.8, "delay_median_s": 0.012, "delay_sigma": 0.5, "network_s": 0.03, **changes}


class TestRouters:
    def test_every_router_is_as_accurate_as_stated(self) -> None:
        strategies = {"rules": router(accuracy=0.65, confidence=False), "llm": router(accuracy=0.9)}
        table = sample(raw_spec(quality_precision=1e7, routers=strategies))
        difficulty = 1.0 - np.log(table.quality[:, 0] / (1 - table.quality[:, 0]))
        hard = difficulty > np.median(difficulty)
        for name, spec in strategies.items():
            score = table.queries.signals[f"{name}_score"]
            assert ((score > np.median(score)) == hard).mean() == pytest.approx(spec["accuracy"], abs=0.006)
        confidence = table.queries.signals["llm_confidence"]
        assert confidence.mean() == pytest.approx(0.9, abs=0.005)
        assert np.isnan(table.queries.signals["rules_confidence"]).all()

    def test_delays_are_lognormal_around_a_constant(self) -> None:
        signals = sample(raw_spec(routers={"ml": router()})).queries.signals
        levels = [0.5, 0.95, 0.99]
        expected = 0.03 + 0.012 * np.exp(0.5 * norm.ppf(levels))
        np.testing.assert_allclose(np.quantile(signals["ml_delay_s"], levels), expected, rtol=0.01)
        assert signals["ml_delay_s"].mean() == pytest.approx(0.03 + lognormal_mean(0.012, 0.5), rel=0.005)

    def test_routers_have_noise_of_their_own_and_leave_everything_else(self) -> None:
        plain, one, two = (
            sample(raw_spec(quality_precision=1e7, routers={name: router() for name in names}), 20_000)
            for names in ("", "b", "ab")
        )
        difficulty = 1.0 - np.log(two.quality[:, 0] / (1 - two.quality[:, 0]))
        signals = two.queries.signals
        noise = [signals[name] - difficulty for name in ("a_score", "b_score", "difficulty_score")]
        np.testing.assert_allclose(np.corrcoef(noise), np.eye(3), atol=0.03)
        np.testing.assert_array_equal(one.queries.signals["b_score"], signals["b_score"])
        np.testing.assert_array_equal(plain.queries.signals["difficulty_score"], signals["difficulty_score"])
        np.testing.assert_array_equal(plain.quality, two.quality)


class TestDraws:
    def test_a_new_feature_leaves_the_old_draws(self) -> None:
        plain = sample(raw_spec(), 300)
        raw = raw_spec(
            network={"share": 0.0, "factor": 2.0},
            routers={"ml": router()},
            traffic=TRAFFIC,
            changes=[{"at_s": 500, "price_factor": 2.0}],
            tiers__big__fidelity={"format": 0.1},
        )
        table = sample(raw, 300)
        np.testing.assert_array_equal(table.quality, plain.quality)
        np.testing.assert_array_equal(table.latency_s, plain.latency_s)
        assert table.occupied_s is None and plain.asked_s is None and plain.batch is None

    def test_sampling_again_from_one_generator_gives_what_it_always_gave(self) -> None:
        spec, rng = parse_scenario(raw_spec()), spawn_rng(0, "scenario")
        sample_scenario(spec, n_queries=5, rng=rng)
        again = sample_scenario(spec, n_queries=1000, rng=rng)
        slices_and_so_on = spawn_rng(0, "scenario").spawn(12)
        noise = slices_and_so_on[7].standard_normal(1000)  # difficulties of the second table
        score = again.queries.signals["difficulty_score"]
        assert np.corrcoef(noise, score)[0, 1] > 0.5


class TestParse:
    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (
                {"tiers__big__quality_shift": {"nope": 1.0}},
                "tiers.big.quality_shift.nope: expected one of the slices work",
            ),
            ({"tiers__big__second": {"tier": "nope"}}, "tiers.big.second.tier: expected one of the other tiers small"),
            ({"tiers__big__second": {"tier": "big"}}, "tiers.big.second.tier: expected one of the other tiers small"),
            (
                {"tiers__big__second": {"tier": "small"}, "tiers__small__second": {"tier": "big"}},
                "tiers.small.second.tier: expected a tier without a second stage",
            ),
            (
                {"tiers__big__second": {"tier": "small", "correction_rate": 0.4}},
                "tiers.big.second.correction_rate: expected 0",
            ),
            ({"tiers__big__fidelity": {"json": 0.9}}, "tiers.big.fidelity.json"),
            ({"slices__work__needs": ["json"]}, "slices.work.needs.0: expected a value that is 'format' or 'tools'"),
            ({"tiers__big__modes": {"so so": {}}}, "tiers.big.modes.so so"),
            ({"tiers__big__modes": {"low": {"colour": 1}}}, "tiers.big.modes.low.colour: expected one of capability,"),
            ({"tiers__big__modes": {"low": {"modes": {}}}}, "tiers.big.modes.low.modes: expected one of capability,"),
            ({"tiers__big__modes": {"low": {"capability": "x"}}}, "tiers.big.modes.low.capability: expected a value"),
            (
                {"tiers__big__modes": {"low": {"quality_shift": {"x": 1}}}},
                "tiers.big.modes.low.quality_shift.x: expected",
            ),
            (
                {"tiers": {"one": raw_spec()["tiers"]["big"]}},
                "tiers: expected at least 2 tiers, thinking modes counted",
            ),
            ({"tiers__big__output_usd_per_mtok": 0.0}, "tiers.big.output_usd_per_mtok: an unpriced model is not free"),
            ({"tiers__big__batch_discount": 1.0}, "tiers.big.batch_discount: expected"),
            ({"tiers__big__speculative": {"draft_tokens": 4, "acceptance": 1.2}}, "tiers.big.speculative.acceptance: "),
            ({"changes": [{"at_s": 3.0, "price_factor": 2.0}]}, "changes: expected traffic beside it"),
            (
                {"changes": [{"at_s": 3.0, "tiers": ["x"], "price_factor": 2.0}], "traffic": TRAFFIC},
                "changes.0.tiers: expected some of small, big; got 'x'",
            ),
            (
                {"changes": [{"at_s": 1e3, "price_factor": 2.0}], "traffic": TRAFFIC},
                "changes.0.at_s: expected an instant",
            ),
            ({"changes": [{"at_s": 3.0}], "traffic": TRAFFIC}, "changes.0: expected a quality_shift, speed_factor or"),
            ({"tune_under_load": True}, "tune_under_load: expected false"),
            ({"batch_delay_s": 3600.0}, "batch_delay_s: expected 0, because no slice has batch: true"),
            ({"network": {"share": 0.5, "factor": 0.5}}, "network.factor: expected"),
            ({"slices__work__cached_share": 2.0}, "slices.work.cached_share: expected"),
            ({"slices__work__input_tokens_sigma": None}, "slices.work: expected either input_tokens_median and"),
            (
                {"slices__work__output_length": {"kind": "fixed", "tokens": 3}},
                "slices.work: expected either output_tokens_median and output_tokens_sigma, or output_length",
            ),
            ({"slices__work__output_length": {"kind": "x"}}, "slices.work.output_length.kind: expected one of fixed,"),
            ({"routers": {"difficulty": router()}}, "routers.difficulty: expected another name"),
            ({"routers": {"ml": router(accuracy=0.5)}}, "routers.ml.accuracy: expected"),
            ({"routers": {"ml": {"accuracy": 0.8}}}, "routers.ml.delay_median_s: expected a value; got nothing"),
        ],
    )
    def test_a_bad_field_is_one_line(self, change: dict[str, Any], expected: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_scenario(raw_spec(**change))
        assert str(caught.value).startswith(f"scenario.{expected}")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("more", "expected"),
        [
            ({"stations": {"x": {}}}, "stations.x: expected the station of some tier"),
            ({"stations": {"big": {"requests_per_min": 0.5}}}, "stations.big.requests_per_min: expected at least 1"),
            ({"tiers": {"x": {}}}, "tiers.x: expected conduct of one of the tiers small, big"),
            ({"tiers": {"big": {"station": "x"}}}, "tiers.big.station: expected one of the stations big"),
            ({"tiers": {"big": {"station": "small"}}}, "tiers.big.station: expected one of the stations big"),
            ({"tiers": {"big": {"fallback": "x"}}}, "tiers.big.fallback: expected one of the tiers small, big"),
            ({"tiers": {"big": {"fallback": "big"}}}, "tiers.big.fallback: expected another tier"),
            (
                {"outages": [{"stations": ["x"], "start_s": 1, "end_s": 2}]},
                "outages.0.stations: expected some of big, small",
            ),
            (
                {"outages": [{"stations": [s, "big"], "start_s": 1, "end_s": 2} for s in ("small", "small")]},
                "outages: expected outages of big that do not overlap",
            ),
            ({"router": {"on_outage": "x"}}, "router.on_outage: expected fail or one of small, big"),
            ({"second": {"big": {"tier": "small"}}}, "second: expected second stages under tiers.NAME.second"),
            ({"arrivals": {"kind": "x"}}, "arrivals.kind: expected one of poisson,"),
        ],
    )
    def test_traffic_that_does_not_fit_the_tiers_is_one_line(self, more: dict[str, Any], expected: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_scenario(raw_spec(traffic=traffic(**more)))
        assert str(caught.value).startswith(f"scenario.traffic.{expected}")
        assert "\n" not in str(caught.value)

    def test_tiers_may_fall_back_to_each_other(self) -> None:
        conduct = {"big": {"fallback": "small"}, "small": {"fallback": "big"}}
        assert parsed_traffic(raw_spec(traffic=traffic(tiers=conduct))).tiers["small"].fallback == "big"

    def test_an_outage_may_begin_when_another_ends(self) -> None:
        spans = [{"stations": ["big"], "start_s": i, "end_s": i + 1} for i in range(3)]
        assert len(parsed_traffic(raw_spec(traffic=traffic(outages=spans))).outages) == 3

    def test_what_modes_share_is_told_once(self) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_scenario(with_modes(quality_shift={"x": 1.0}))
        assert str(caught.value) == "scenario.tiers.big.quality_shift.x: expected one of the slices work; got 'x'"

    def test_two_arms_of_one_name_are_told_apart(self) -> None:
        raw = with_modes()
        raw["tiers"]["big-none"] = raw["tiers"]["small"]
        with pytest.raises(ConfigError, match="scenario.tiers: .* big-none comes twice"):
            parse_scenario(raw)

    def test_a_scenario_without_traffic_has_none(self) -> None:
        with pytest.raises(ConfigError, match="scenario toy has no traffic"):
            parsed_traffic(raw_spec())


class TestDocumentation:
    """`docs/scenarios.md`."""

    TEXT = (Path(__file__).parents[1] / "docs" / "scenarios.md").read_text(encoding="utf-8")

    def test_the_example_is_a_scenario_with_traffic(self) -> None:
        example = yaml.safe_load(self.TEXT.split("```yaml\n")[1].split("```")[0])
        table = sample(example, 200)
        assert set(table.tiers) == {"fast", "thinker-none", "thinker-full"}
        world = make_world(table, parsed_traffic(example), load=1.0, rng=spawn_rng(0, "world"))
        assert world.n_requests > 1000 and len(world.stations) == 2

    @pytest.mark.parametrize(
        "spec",
        [
            *(ScenarioSpec, TierSpec, SliceSpec, ChangeSpec, NetworkSpec, StrategySpec, SpeculativeSpec),
            *(TrafficSpec, StationSpec, ConductSpec, OutageSpec, RouterSpec),
        ],
    )
    def test_every_field_is_explained(self, spec: type[BaseModel]) -> None:
        filled_in = {"second"} if spec is TrafficSpec else set()
        for name in set(spec.model_fields) - filled_in:
            assert f"`{name}`" in self.TEXT, name
