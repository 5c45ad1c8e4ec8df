"""The shipped scenarios: their heads, their sources, their figures, and what each was made to show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import run_cli
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from experiments import fit_scenarios
from simulators.arrivals.specs import DiurnalSpec
from simulators.outcomes import OutcomeTable
from simulators.scenario import ScenarioSpec, parse_scenario, sample_scenario, traffic_of
from simulators.seeds import spawn_rng
from simulators.traffic import make_world
from simulators.world import World

CONF = Path(__file__).resolve().parents[1] / "conf"
SCENARIOS = sorted(path.stem for path in (CONF / "scenario").glob("*.yaml"))
UNDER_LOAD = ["drift", "dual_lane", "effort_levels", "outage", "peak_hours"]
PLAIN_TIERS = ["drift", "hybrid_api", "outage", "peak_hours"]
FLEETS = ["self_hosted"]  # without traffic: nothing for simulate to do
SIMULATED = sorted({*SCENARIOS} - {*FLEETS})
ROUTERS = ["s1", "s1_high", "s1_low"]
FILES = [*(f"scenario/{name}" for name in SCENARIOS), *(f"routers/{name}" for name in ROUTERS)]
N_EXPECTED = 100_000

Made = tuple[ScenarioSpec, OutcomeTable]


def spec_of(name: str, *overrides: str) -> ScenarioSpec:
    with initialize_config_module("conf", version_base="1.3"):
        config = compose(config_name="tune", overrides=[f"scenario={name}", *overrides])
    raw = OmegaConf.to_container(config.scenario, resolve=True)
    assert isinstance(raw, dict)
    return parse_scenario({str(key): value for key, value in raw.items()})


def world_of(spec: ScenarioSpec, table: OutcomeTable) -> World:
    return make_world(table, traffic_of(spec), load=1.0, rng=spawn_rng(0, "world"))


def text_of(file: str) -> str:
    return (CONF / f"{file}.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made() -> dict[str, Made]:
    """Every scenario with the table that the heads of the files speak of."""
    specs = {name: spec_of(name) for name in SCENARIOS}
    draws = {
        name: sample_scenario(spec, n_queries=N_EXPECTED, rng=spawn_rng(0, "scenario")) for name, spec in specs.items()
    }
    return {name: (specs[name], draws[name]) for name in SCENARIOS}


def mean_quality(table: OutcomeTable, tier: str, of_slice: str) -> float:
    rows = table.slice_code == table.slices.index(of_slice)
    return float(table.quality[rows, table.tiers.index(tier)].mean())


def values(file: str) -> Iterator[tuple[str, str]]:
    """Every line with a value, and the comment that belongs to it: behind it, or alone above it."""
    above = ""
    for line in text_of(file).split("defaults:")[-1].splitlines():
        text = line.strip()
        if text.startswith("#"):
            above = text
            continue
        value, _, behind = text.partition("  # ")
        if (
            text
            and not value.endswith((":", "{}"))
            and not value.startswith(("name:", "- /", "- hybrid_api", "- _self_"))
        ):
            yield value, behind or above
        above = above if text.endswith(",") else ""  # a list may go on in the next line


class TestEveryFile:
    def test_the_seven_are_there(self) -> None:
        assert set(SCENARIOS) == {"hybrid_api", *UNDER_LOAD, *FLEETS}

    @pytest.mark.parametrize("file", FILES)
    def test_every_value_has_a_source(self, file: str) -> None:
        found = list(values(file))
        assert len(found) > 5
        assert [value for value, source in found if len(source) < 8] == []

    @pytest.mark.parametrize("file", FILES)
    def test_lines_fit(self, file: str) -> None:
        assert max(map(len, text_of(file).splitlines())) <= 120

    @pytest.mark.parametrize("name", SCENARIOS)
    def test_the_head_gives_both_commands(self, name: str) -> None:
        head = text_of(f"scenario/{name}").split("\n#\n")[0].splitlines()
        other = "simulate" if name in SIMULATED else "tune"
        assert sorted(line.split(" scenario=")[0] for line in head) == [f"# routefront {other}", "# routefront tune"]
        assert all(f"scenario={name} " in line for line in head)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", SCENARIOS)
    def test_the_head_says_what_every_tier_alone_gives(self, name: str, made: dict[str, Made]) -> None:
        table = made[name][1]
        for k, tier in enumerate(table.tiers):
            line = next(
                row for row in text_of(f"scenario/{name}").splitlines() if row.startswith(f"# Expected: {tier} ")
            )
            assert f"quality {table.quality[:, k].mean():.3f}" in line
            assert f"{1e3 * table.cost_usd[:, k].mean():.3g} USD per 1,000 queries" in line
            assert f"p95 {np.quantile(table.latency_s[:, k], 0.95):.3g} s" in line

    @pytest.mark.parametrize("name", UNDER_LOAD)
    def test_it_is_tuned_under_load_by_a_fast_simulation(self, name: str, made: dict[str, Made]) -> None:
        spec, table = made[name]
        world = world_of(spec, table)
        assert spec.tune_under_load and spec.name == name
        assert 2_000 <= world.n_requests <= 25_000
        assert set(spec.routers) == {"rules", "classifier", "llm", "memory"}
        assert len(world.counted) > 0.8 * world.n_requests

    @pytest.mark.parametrize("name", PLAIN_TIERS)
    def test_one_policy_fits_all_scenarios_with_three_plain_tiers(self, name: str, made: dict[str, Made]) -> None:
        assert made[name][1].tiers == ("fast", "standard", "reasoning")

    def test_the_demo_waits_for_nobody(self, made: dict[str, Made]) -> None:
        spec, table = made["hybrid_api"]
        assert not spec.tune_under_load
        assert world_of(spec, table).feed_forward


def test_figures_named_in_brackets_are_those_of_the_data(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit_scenarios.main([str(data_dir)]) == 0
    figures = dict(re.findall(r"^\[(.*)\] (.*)$", capsys.readouterr().out, re.M))
    named = 0
    for file in FILES:
        text = text_of(file)
        found = re.findall(r"^ *(?:- )?[a-z_]+: (\S+)  # .*\[([a-z0-9_.]+)\]$", text, re.M)
        above = re.findall(r"^ *# .*\[([a-z0-9_.]+)\]\n *[a-z_]+: (\[[^\]]*\])", text, re.M)
        found += [(value, name) for name, value in above]
        for value, name in found:
            assert ", ".join(f"{v:.3g}" for v in np.atleast_1d(yaml.safe_load(value))) == figures[name], name
        assert len(found) == len(re.findall(r"\[[a-z0-9_]+\.[a-z0-9_]+\]$", text, re.M))
        named += len(found)
    assert named > 80


def test_data_that_are_not_there_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit_scenarios.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: expected a data file")


class TestRouters:
    def test_low_mid_and_high_are_in_order(self) -> None:
        low, mid, high = (yaml.safe_load(text_of(f"routers/{name}")) for name in ("s1_low", "s1", "s1_high"))
        assert low.keys() == mid.keys() == high.keys()
        for name in mid:
            for field in ("accuracy", "delay_median_s", "network_s", "usd_per_query", "token_tax"):
                assert low[name][field] <= mid[name][field] <= high[name][field], (name, field)

    def test_a_sweep_can_choose_one(self) -> None:
        assert spec_of("peak_hours", "routers@scenario.routers=s1_high").routers["llm"].delay_median_s == 0.2

    def test_delays_are_those_of_the_source(self, made: dict[str, Made]) -> None:
        signals = made["peak_hours"][1].queries.signals
        for name, low_s, high_s in (("classifier", 0.01, 0.02), ("llm", 0.05, 0.2), ("memory", 0.015, 0.03)):
            own = signals[f"{name}_delay_s"] - 0.035
            np.testing.assert_allclose(np.quantile(own, [0.05, 0.95]), [low_s, high_s], rtol=0.03)


class TestDualLane:
    RANGES = (
        ("call_formatting", "action-now", 0.0, 0.1),
        ("vector_retrieval", "action-now", 0.0, 0.15),
        ("plan_validation", "reasoning-raw", 5.0, 120.0),
        ("formal_verification", "reasoning-raw", 10.0, 300.0),
    )

    @pytest.mark.parametrize(("profile", "tier", "low_s", "high_s"), RANGES)
    def test_latencies_are_those_of_the_source(
        self, profile: str, tier: str, low_s: float, high_s: float, made: dict[str, Made]
    ) -> None:
        table = made["dual_lane"][1]
        rows = table.slice_code == table.slices.index(profile)
        found = np.quantile(table.latency_s[rows, table.tiers.index(tier)], [0.05, 0.95])
        assert found[1] <= 1.05 * high_s and found[0] >= 0.9 * low_s

    def test_formatting_adds_the_action_lane(self, made: dict[str, Made]) -> None:
        table = made["dual_lane"][1]
        now, raw, formatted = (table.tiers.index(t) for t in ("action-now", "reasoning-raw", "reasoning-formatted"))
        np.testing.assert_allclose(table.cost_usd[:, formatted], table.cost_usd[:, raw] + table.cost_usd[:, now])
        gain = table.latency_s[:, formatted].mean() - table.latency_s[:, raw].mean()
        assert gain == pytest.approx(table.latency_s[:, now].mean(), rel=0.2)
        assert mean_quality(table, "reasoning-formatted", "plan_validation") > 0.9

    def test_verification_costs_money_and_no_time(self, made: dict[str, Made]) -> None:
        table = made["dual_lane"][1]
        now, verified = (table.tiers.index(t) for t in ("action-now", "action-verified"))
        assert table.latency_s[:, verified].mean() == pytest.approx(table.latency_s[:, now].mean(), rel=0.02)
        assert table.cost_usd[:, verified].mean() > 5 * table.cost_usd[:, now].mean()
        assert table.quality[:, verified].mean() > table.quality[:, now].mean() + 0.05

    def test_each_lane_is_one_station(self, made: dict[str, Made]) -> None:
        world = world_of(*made["dual_lane"])
        assert sorted(station.name for station in world.stations) == ["action", "reasoning"]
        assert sum(rule.second >= 0 for rule in world.rules) == 2


class TestPeakHours:
    def test_the_evening_strains_the_reasoning_tier(self, made: dict[str, Made]) -> None:
        spec, table = made["peak_hours"]
        assert spec.traffic is not None and isinstance(spec.traffic.arrivals, DiurnalSpec)
        curve = np.array(spec.traffic.arrivals.curve)
        peak_rate = spec.traffic.arrivals.rate_per_s * curve.max() / curve.mean()
        slots = spec.traffic.stations["reasoning"].slots
        assert slots is not None
        assert 0.85 < 0.3 * peak_rate * table.hold_s[:, 2].mean() / slots < 0.95

    def test_batch_work_costs_half_and_holds_no_slot(self, made: dict[str, Made]) -> None:
        spec, table = made["peak_hours"]
        interactive = made["hybrid_api"][1]
        assert table.batch is not None
        assert table.batch.mean() == pytest.approx(0.249, abs=0.01)
        cost = interactive.cost_usd * np.where(table.batch, 0.5, 1.0)[:, None]
        np.testing.assert_allclose(table.cost_usd, cost)
        assert not table.batch[world_of(spec, table).row].any()


def test_outage_has_every_fault(made: dict[str, Made]) -> None:
    world = world_of(*made["outage"])
    (outage,) = world.outages
    assert len(outage.stations) == 2
    assert world.router_down.any() and world.rules[world.router_fallback].fallback == 0
    assert all(r.fallback >= 0 and r.retries == 2 and np.isfinite(r.timeout_s) for r in world.rules)
    limits = [(s.buffer, s.requests_per_min or s.tokens_per_min) for s in world.stations]
    assert all(value is not None for pair in limits for value in pair)
    reasoning = world.stations[2]
    assert reasoning.error_rate_busy == pytest.approx(reasoning.error_rate + 0.15, abs=1e-3)


def test_drift_changes_one_thing_at_a_time(made: dict[str, Made]) -> None:
    table = made["drift"][1]
    assert table.asked_s is not None
    quarters = [table.asked_s == start for start in np.unique(table.asked_s)]
    assert len(quarters) == 4

    def steps(of: np.ndarray) -> np.ndarray:
        return np.diff([of[rows].mean(axis=0) for rows in quarters], axis=0)

    quality, latency, cost = steps(table.quality), steps(table.latency_s), steps(np.log(table.cost_usd))
    assert quality[0, 1] < -0.03 and np.abs(quality[1:]).max() < 0.01 and np.abs(quality[0, [0, 2]]).max() < 0.01
    assert latency[1, 2] > 5 and np.abs(latency[[0, 2]]).max() < 1
    assert cost[2, 2] == pytest.approx(np.log(0.5), abs=0.05) and np.abs(cost[:2]).max() < 0.05


class TestEffortLevels:
    def test_modes_share_a_station(self, made: dict[str, Made]) -> None:
        spec, table = made["effort_levels"]
        world = world_of(spec, table)
        names = [world.stations[rule.station].name for rule in world.rules]
        assert dict(zip(table.tiers, names, strict=True)) == {
            "flash-none": "flash",
            "flash-less": "flash",
            "flash-full": "flash",
            "reasoning": "reasoning",
        }

    def test_thinking_pays_on_code_and_costs_on_instructions(self, made: dict[str, Made]) -> None:
        table = made["effort_levels"][1]
        code = [mean_quality(table, tier, "code_edits") for tier in table.tiers]
        following = [mean_quality(table, tier, "instructions") for tier in table.tiers]
        np.testing.assert_allclose(code, [0.44, 0.525, 0.551, 0.88], atol=0.01)
        assert np.all(np.diff(following) < 0)
        assert 0.75 < following[-1] / following[0] < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", SIMULATED)
def test_the_simulation_in_the_head_gives_what_the_head_says(name: str, tmp_path: Path) -> None:
    text = text_of(f"scenario/{name}")
    command = re.findall(r"^# routefront simulate (.*)$", text, re.M)[0].split()
    options = [word for word in command if not word.startswith("output=")]
    code, _, err = run_cli("simulate", *options, "output=simulation.json", cwd=tmp_path)
    assert code == 0, err
    loads = json.loads((tmp_path / "simulation.json").read_text(encoding="utf-8"))["loads"]
    number = r"([\d.,e+]+)"
    pattern = rf"load {number}: quality {number}, {number} USD .* p95 {number} s, {number} % failed, (\w+) {number} %"
    said = re.findall(rf"^# Expected: simulate, {pattern} busy$", text, re.M)
    assert len(said) == len(loads) == 4
    for (load, quality, cost, p95, failed, station, busy), found in zip(said, loads, strict=True):
        policy = found["policy"]
        interactive = policy.get("classes", {}).get("interactive", policy)
        assert found["load"] == float(load)
        assert policy["quality"]["value"] == pytest.approx(float(quality), abs=0.002)
        assert 1e3 * policy["cost_usd"]["value"] == pytest.approx(float(cost), rel=0.02)
        assert interactive["latency_s"]["p95"]["value"] == pytest.approx(float(p95.replace(",", "")), rel=0.05)
        assert 100 * policy["error_share"]["value"] == pytest.approx(float(failed), rel=0.05, abs=0.02)
        assert 100 * found["stations"][station]["utilisation"]["value"] == pytest.approx(float(busy), rel=0.02, abs=0.6)
