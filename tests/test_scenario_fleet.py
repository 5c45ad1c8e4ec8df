"""The fleet section of scenarios, and `self_hosted`, which has one."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import run_cli
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from experiments import fit_self_hosted
from experiments.fit_hybrid_api import slice_tier_means
from experiments.self_hosted_engine import Lengths, full_load, times
from simulators.deployment.plan import Replica
from simulators.errors import ConfigError
from simulators.scenario import fleet_of, parse_scenario, sample_scenario
from simulators.seeds import spawn_rng

CONF = Path(__file__).resolve().parents[1] / "conf"
SELF_HOSTED = CONF / "scenario" / "self_hosted.yaml"
GROUPS = [(group, path.stem) for group in ("gpus", "engine") for path in sorted((CONF / group).glob("*.yaml"))]


def raw_of(*overrides: str, scenario: str = "self_hosted") -> dict[str, Any]:
    with initialize_config_module("conf", version_base="1.3"):
        config = compose(config_name="tune", overrides=[f"scenario={scenario}", *overrides])
    raw = OmegaConf.to_container(config.scenario, resolve=True)
    assert isinstance(raw, dict)
    return {str(key): value for key, value in raw.items()}


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    return raw_of()


class TestSchema:
    def test_models_are_those_of_the_tiers(self, raw: dict[str, Any]) -> None:
        assert list(fleet_of(parse_scenario(raw)).models) == ["small", "large"]

    @pytest.mark.parametrize(
        ("path", "value", "said"),
        [
            ("fleet.models.huge", "MODEL", "scenario.fleet.models.huge: expected one of the tiers small, large"),
            ("tiers.huge", "TIER", "scenario.fleet.models: expected a model for every tier; huge has none"),
            ("tiers.large.modes", {"none": {}, "full": {}}, "scenario.tiers.large.modes: expected no thinking modes"),
            ("tiers.large.second", {"tier": "small", "share": 0.5}, "tiers.large.second: expected no second stage"),
            ("fleet.rate_per_s", 0, "scenario.fleet.rate_per_s"),
            ("fleet.gpus", {}, "scenario.fleet.gpus"),
            ("fleet.gpu_types", {}, "scenario.fleet.gpu_types: expected one of gpus, models, engine, rate_per_s"),
            ("fleet.models.small.layer", 3, "scenario.fleet.models.small.layer: expected one of weights"),
        ],
    )
    def test_a_wrong_field_is_one_line(self, raw: dict[str, Any], path: str, value: Any, said: str) -> None:
        broken = copy.deepcopy(raw)
        known = {"MODEL": raw["fleet"]["models"]["large"], "TIER": raw["tiers"]["large"]}
        *above, last = path.split(".")
        node = broken
        for key in above:
            node = node[key]
        node[last] = known[value] if isinstance(value, str) else value
        with pytest.raises(ConfigError) as error:
            parse_scenario(broken)
        assert said in str(error.value) and "\n" not in str(error.value)

    def test_a_scenario_without_fleet_says_so(self) -> None:
        with pytest.raises(ConfigError, match="scenario hybrid_api has no fleet; use scenario=self_hosted"):
            fleet_of(parse_scenario(raw_of(scenario="hybrid_api")))

    def test_the_fleet_changes_no_draw(self, raw: dict[str, Any]) -> None:
        without = {key: value for key, value in raw.items() if key != "fleet"}
        tables = [
            sample_scenario(parse_scenario(part), n_queries=50, rng=spawn_rng(0, "scenario")) for part in (raw, without)
        ]
        assert tables[0].data_hash == tables[1].data_hash


class TestComposition:
    @pytest.mark.parametrize(("group", "name"), GROUPS)
    def test_every_file_of_both_groups_is_a_fleet(self, group: str, name: str) -> None:
        fleet = fleet_of(parse_scenario(raw_of(f"{group}@scenario.fleet.{group}={name}")))
        assert fleet.gpus and fleet.budget_usd_per_hour == 30

    def test_gpus_are_a_choice(self) -> None:
        three, six = (
            fleet_of(parse_scenario(raw_of(f"gpus@scenario.fleet.gpus={name}"))) for name in ("types_3", "types_6")
        )
        assert (len(three.gpus), len(six.gpus)) == (3, 6)
        assert three.models == six.models and three.engine == six.engine

    def test_single_fields_can_be_set(self) -> None:
        overrides = (
            "scenario.fleet.gpus.h100.count=3",
            "scenario.fleet.rate_per_s=7",
            "engine@scenario.fleet.engine=splitwise",
        )
        fleet = fleet_of(parse_scenario(raw_of(*overrides)))
        assert fleet.gpus["h100"].count == 3 and fleet.rate_per_s == 7

    def test_what_is_extrapolated_is_marked(self, raw: dict[str, Any]) -> None:
        fleet = fleet_of(parse_scenario(raw))
        assert {name: model.basis for name, model in fleet.models.items()} == {
            "small": "extrapolated",
            "large": "measured",
        }


class TestFit:
    def test_the_script_reproduces_the_committed_file_byte_for_byte(self, data_dir: Path, tmp_path: Path) -> None:
        output = tmp_path / "self_hosted.yaml"
        assert fit_self_hosted.main([str(data_dir), "--output", str(output)]) == 0
        assert output.read_bytes() == SELF_HOSTED.read_bytes()

    def test_absent_data_are_one_line_and_exit_code_2(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert fit_self_hosted.main([str(tmp_path), "--output", str(tmp_path / "x.yaml")]) == 2
        captured = capsys.readouterr().err
        assert captured.count("\n") == 1 and captured.startswith("error: expected a data file")
        assert not (tmp_path / "x.yaml").exists()

    def test_recorded_slice_by_tier_means(self, data_dir: Path, raw: dict[str, Any]) -> None:
        recorded = fit_self_hosted.read_recorded(data_dir)
        drawn = sample_scenario(parse_scenario(raw), n_queries=100_000, rng=spawn_rng(5, "scenario"))
        means = dict(zip(drawn.slices, slice_tier_means(drawn), strict=True))
        for name, wanted in zip(recorded.slices, slice_tier_means(recorded), strict=True):
            np.testing.assert_allclose(means[name], wanted, rtol=0, atol=0.02)
        assert drawn.tiers == ("small", "large")

    def test_recorded_lengths(self, data_dir: Path, raw: dict[str, Any]) -> None:
        drawn = sample_scenario(parse_scenario(raw), n_queries=100_000, rng=spawn_rng(5, "scenario"))
        recorded = fit_self_hosted.read_recorded(data_dir)
        for s, name in enumerate(recorded.slices):
            ours, theirs = drawn.slice_code == drawn.slices.index(name), recorded.slice_code == s
            np.testing.assert_allclose(
                drawn.input_tokens[ours].mean(axis=0), recorded.input_tokens[theirs].mean(axis=0), rtol=0.03
            )
            np.testing.assert_allclose(
                drawn.output_tokens[ours].mean(axis=0), recorded.output_tokens[theirs].mean(axis=0), rtol=0.06
            )
        chat = drawn.slice_code == drawn.slices.index("chat")
        assert drawn.input_tokens[chat].mean() == pytest.approx(1155, rel=0.02)
        assert drawn.output_tokens[chat, 1].mean() == pytest.approx(211, rel=0.02)


class TestEngineFigures:
    def test_the_prices_are_those_of_the_gpus(self, raw: dict[str, Any]) -> None:
        """What all requests cost by tokens is what the replica costs while it serves them."""
        fleet = fleet_of(parse_scenario(raw))
        asked = Lengths(input_tokens=np.full(600, 400.0), output_tokens=np.full(600, 150.0))
        replica = Replica(gpu="h100", tensor_parallel=4)
        load = full_load(fleet, "large", replica, asked)
        per_request = (400 * load.input_usd_per_mtok + 150 * load.output_usd_per_mtok) / 1e6
        usd_per_s = 4 * fleet.gpus["h100"].usd_per_hour / 3600
        assert per_request == pytest.approx(usd_per_s / load.requests_per_s)
        assert load.input_usd_per_mtok > 0 and load.output_usd_per_mtok > load.input_usd_per_mtok

    def test_times_without_load_are_those_of_one_request(self, raw: dict[str, Any]) -> None:
        fleet = fleet_of(parse_scenario(raw))
        replica = Replica(gpu="h100", tensor_parallel=1)
        asked = [Lengths(input_tokens=np.full(n, 400.0), output_tokens=np.full(n, 150.0)) for n in (1, 20)]
        one, many = (times(fleet, "small", replica, of) for of in asked)
        assert many.ttft_median_s == pytest.approx(one.ttft_median_s, rel=1e-6)
        assert many.tokens_per_s == pytest.approx(one.tokens_per_s, rel=1e-6)
        assert many.ttft_sigma == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_the_command_in_the_head_runs(tmp_path: Path) -> None:
    command = SELF_HOSTED.read_text(encoding="utf-8").splitlines()[0].removeprefix("# routefront tune ").split()
    code, _, err = run_cli("tune", *command, "data.n_queries=1000", cwd=tmp_path)
    assert code == 0, err
    info = json.loads((tmp_path / "runs" / "self_hosted" / "run.json").read_text(encoding="utf-8"))
    assert info["status"] == "done"


def test_simulate_says_that_there_is_no_traffic(tmp_path: Path) -> None:
    code, _, err = run_cli("simulate", "scenario=self_hosted", "shares=[0.5,0.5]", "output=x.json", cwd=tmp_path)
    assert code == 2 and "scenario self_hosted has no traffic" in err and err.count("\n") == 1
