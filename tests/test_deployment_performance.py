"""Times and room of a replica: limits of the equations, what fits, the catalogue, the fit to measurements."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from experiments import fit_engine
from simulators.deployment.performance import (
    Speed,
    perturbed,
    replica_speed,
    tensor_parallel_efficiency,
    valid_replicas,
)
from simulators.deployment.plan import Replica
from simulators.deployment.specs import EngineSpec, FleetSpec, GpuSpec, ModelSpec

CONF = Path(__file__).resolve().parents[1] / "conf"
SMALL = ModelSpec(weights="small", parameters_b=8.0, layers=32, hidden=4096, kv_heads=8, head_dim=128)
LARGE = ModelSpec(weights="large", parameters_b=70.0, layers=80, hidden=8192, kv_heads=8, head_dim=128)


def gpus_of(name: str) -> dict[str, GpuSpec]:
    raw = yaml.safe_load((CONF / "gpus" / f"{name}.yaml").read_text(encoding="utf-8"))
    return {gpu: GpuSpec.model_validate(fields) for gpu, fields in raw.items()}


def engine_of(name: str) -> EngineSpec:
    return EngineSpec.model_validate(yaml.safe_load((CONF / "engine" / f"{name}.yaml").read_text(encoding="utf-8")))


def fleet_of(gpus: str = "types_3", engine: str = "splitwise") -> FleetSpec:
    models = {"small": SMALL, "large": LARGE}
    return FleetSpec(
        gpus=gpus_of(gpus), models=models, engine=engine_of(engine), rate_per_s=10.0, budget_usd_per_hour=30.0
    )


def ideal() -> EngineSpec:
    """Peaks, nothing else: no software, free links."""
    none = {"decode_layer_s": 0.0, "prefill_layer_s": 0.0, "sequence_layer_s": 0.0}
    full = {"compute_efficiency": 1.0, "bandwidth_efficiency": 1.0, "link_efficiency": 1.0}
    free = {"collective_s": 0.0, "hop_s": 0.0, "hop_gb_s": 1e15}
    return EngineSpec.model_validate({"basis": "assumed", "default": none | full, **free})


H100 = gpus_of("types_3")["h100"]
FREE_LINK = H100.model_copy(update={"link_gb_s": 1e15})


def speed(engine: EngineSpec, tensor: int = 1, stages: int = 1, model: ModelSpec = LARGE, gpu: GpuSpec = H100) -> Speed:
    replica = Replica(gpu="h100", tensor_parallel=tensor, pipeline_parallel=stages)
    found = replica_speed(model, gpu, replica, engine)
    assert found is not None
    return found


class TestRoofline:
    def test_peaks(self) -> None:
        found = speed(ideal(), 4, gpu=FREE_LINK)
        assert found.prefill_token_s == pytest.approx(2 * 70e9 / (4 * 989e12))
        assert found.prefill_square_s == pytest.approx(2 * 80 * 8192 / (4 * 989e12))
        assert found.decode_s == pytest.approx(140e9 / (4 * 3350e9))
        assert found.context_s == pytest.approx(2 * 2 * 80 * 8 * 128 / (4 * 3350e9))
        assert found.prefill_floor_s == 0 and found.sequence_s == pytest.approx(0, abs=1e-15)

    @pytest.mark.parametrize("field", ["prefill_token_s", "prefill_square_s", "decode_s", "context_s"])
    def test_twice_the_gpus_halve_the_ideal_times(self, field: str) -> None:
        four, eight = (getattr(speed(ideal(), tensor, gpu=FREE_LINK), field) for tensor in (4, 8))
        assert eight == pytest.approx(four / 2)

    def test_links_cost_what_they_carry(self) -> None:
        """Two all-reduces a layer over 8,192 activations of two bytes; 2 (T - 1) / T of it over the link."""
        slow, free = (speed(ideal(), 8, gpu=gpu).prefill_token_s for gpu in (H100, FREE_LINK))
        assert slow - free == pytest.approx(2 * 80 * 8192 * 2 * 2 * 7 / 8 / 450e9)

    def test_efficiency_of_tensor_parallelism_falls(self) -> None:
        engine = engine_of("splitwise")
        found = [
            tensor_parallel_efficiency(LARGE, H100, Replica(gpu="h100", tensor_parallel=t), engine)
            for t in (1, 2, 4, 8)
        ]
        assert found[0] == 1 and found == sorted(found, reverse=True) and found[-1] > 0.3
        for tensor, share in zip((4, 8), found[2:], strict=True):
            ideal_s = 2 * 70e9 / (tensor * engine.constants("h100").compute_efficiency * 989e12)
            assert speed(engine, tensor).prefill_token_s == pytest.approx(ideal_s / share)

    def test_software_and_memory_overlap(self) -> None:
        engine = engine_of("splitwise")
        software_s = 80 * engine.constants("h100").decode_layer_s
        assert speed(engine, 8).decode_s == software_s
        assert speed(ideal(), 8).decode_s < software_s

    def test_stages_that_do_not_divide_the_layers_wait_for_the_longest(self) -> None:
        three, four = (speed(ideal(), 1, stages) for stages in (3, 4))
        assert three.context_s == pytest.approx(four.context_s * 81 / 80)
        assert four.stages == 4

    def test_hops_cost_latency_in_every_step(self) -> None:
        engine = ideal().model_copy(update={"hop_s": 1e-3})
        assert speed(engine, 1, 4).decode_s == pytest.approx(speed(ideal(), 1, 4).decode_s + 3e-3)

    def test_a_factor_is_on_all_times_and_no_room(self) -> None:
        slow = ideal().model_copy(update={"speed_factor": {"large": {"h100": 1.5}}})
        before, after = speed(ideal(), 4), speed(slow, 4)
        for field in ("prefill_token_s", "prefill_square_s", "decode_s", "sequence_s", "context_s"):
            assert getattr(after, field) == pytest.approx(1.5 * getattr(before, field))
        assert after.kv_tokens == before.kv_tokens
        assert speed(slow, model=SMALL) == speed(ideal(), model=SMALL)


class TestRoom:
    def test_what_weights_leave(self) -> None:
        engine = ideal()
        room = 4 * (0.9 * 80e9 - 1.5e9) - 140e9
        assert speed(engine, 4).kv_tokens == math.floor(room / (2 * 2 * 80 * 8 * 128))

    @pytest.mark.parametrize(
        ("gpu", "tensor", "stages", "fits"),
        [
            ("h100", 2, 1, False),  # 141 GB for 140 GB of weights: no room for a request
            ("h100", 4, 1, True),
            ("rtx_4090", 4, 1, False),
            ("rtx_4090", 8, 1, True),
            ("h100", 16, 1, False),  # crosses machines
            ("h100", 4, 3, False),  # twelve of eight GPUs
        ],
    )
    def test_what_fits(self, gpu: str, tensor: int, stages: int, fits: bool) -> None:
        replica = Replica(gpu=gpu, tensor_parallel=tensor, pipeline_parallel=stages)
        found = replica_speed(LARGE, gpus_of("types_3")[gpu], replica, engine_of("splitwise"))
        assert (found is not None) == fits

    def test_more_stages_than_layers_do_not_run(self) -> None:
        shallow = SMALL.model_copy(update={"layers": 2})
        assert replica_speed(shallow, H100, Replica(gpu="h100", pipeline_parallel=3), ideal()) is None


class TestValidReplicas:
    def test_all_that_fit(self) -> None:
        fleet = fleet_of("types_2_small")
        on = {
            gpu: [r.text[len(gpu) + 1 :] for r in valid_replicas(fleet, "small") if r.gpu == gpu] for gpu in fleet.gpus
        }
        every = ["TP1 PP1", "TP2 PP1", "TP1 PP2", "TP1 PP3", "TP4 PP1", "TP2 PP2", "TP1 PP4"]
        assert on == {"h100": every, "rtx_5090": every}

    def test_each_of_them_runs_and_none_is_missing(self) -> None:
        fleet = fleet_of("types_6")
        found = valid_replicas(fleet, "large")
        assert len(set(found)) == len(found)
        for name, gpu in fleet.gpus.items():
            for tensor in (1, 2, 4, 8):
                for stages in range(1, 9):
                    replica = Replica(gpu=name, tensor_parallel=tensor, pipeline_parallel=stages)
                    assert (replica in found) == (replica_speed(LARGE, gpu, replica, fleet.engine) is not None)


class TestPerturbed:
    def test_every_model_on_every_gpu_is_off_by_its_own_factor(self) -> None:
        fleet = fleet_of()
        drawn = [perturbed(fleet, np.random.default_rng(seed)) for seed in (0, 0, 1)]
        assert drawn[0] == drawn[1] != drawn[2]
        factors = [drawn[0].engine.factor(model.weights, gpu) for model in fleet.models.values() for gpu in fleet.gpus]
        assert len(set(factors)) == 6

    def test_spread(self) -> None:
        fleet, rng = fleet_of(), np.random.default_rng(5)
        logs = np.log([perturbed(fleet, rng, sd=0.2).engine.factor("large", "h100") for _ in range(2000)])
        assert logs.mean() == pytest.approx(0, abs=4 * 0.2 / 2000**0.5) and logs.std() == pytest.approx(0.2, rel=0.1)


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "types", "gpus"),
        [("types_2_small", 2, 8), ("types_3", 3, 24), ("types_4", 4, 32), ("types_5", 5, 40), ("types_6", 6, 48)],
    )
    def test_catalogues(self, name: str, types: int, gpus: int) -> None:
        found = gpus_of(name)
        assert len(found) == types and sum(gpu.count for gpu in found.values()) == gpus

    def test_a_type_has_the_same_figures_in_every_catalogue(self) -> None:
        whole = gpus_of("types_6")
        for path in (CONF / "gpus").glob("*.yaml"):
            for name, gpu in gpus_of(path.stem).items():
                assert gpu.model_copy(update={"count": 8}) == whole[name]

    def test_only_the_fitted_types_are_marked_as_measured(self) -> None:
        measured = {name for name, gpu in gpus_of("types_6").items() if gpu.basis == "measured"}
        assert measured == set(engine_of("splitwise").by_gpu) == {"a100", "h100"}
        assert engine_of("splitwise").basis == "measured" and engine_of("roofline").basis == "assumed"

    def test_the_fit_knows_the_catalogue(self) -> None:
        whole = gpus_of("types_6")
        for name, gpu in fit_engine.SPECS.items():
            price = {"usd_per_hour": whole[name].usd_per_hour, "basis": "measured"}
            assert gpu.model_copy(update=price) == whole[name]

    def test_a_modern_engine_is_faster(self) -> None:
        for replica in valid_replicas(fleet_of("types_6"), "large"):
            gpu = gpus_of("types_6")[replica.gpu]
            old, new = (replica_speed(LARGE, gpu, replica, engine_of(name)) for name in ("splitwise", "roofline"))
            assert old is not None and new is not None and new.step_s(8, 4000) < old.step_s(8, 4000)


@pytest.fixture(scope="module")
def cells(data_dir: Path) -> list[fit_engine.Cell]:
    return fit_engine.read_cells(data_dir / fit_engine.FILE)


class TestFit:
    def test_the_script_reproduces_the_committed_file_byte_for_byte(self, data_dir: Path, tmp_path: Path) -> None:
        output = tmp_path / "splitwise.yaml"
        assert fit_engine.main([str(data_dir), "--output", str(output)]) == 0
        assert output.read_bytes() == (CONF / "engine" / "splitwise.yaml").read_bytes()

    def test_known_constants_are_found_again(self, cells: list[fit_engine.Cell]) -> None:
        truth = dict(engine_of("splitwise").by_gpu)
        made = []
        for cell in cells:
            if cell.model == "llama2-70b":
                prefill_s, step_s, whole_s = fit_engine.modelled(cell, truth)
                times = {"prefill_s": prefill_s, "step_s": step_s, "whole_s": whole_s}
                made.append(fit_engine.Cell(**{**vars(cell), **times}))
        found = fit_engine.fit_constants(made)
        for gpu, constants in truth.items():
            for field, value in constants.model_dump().items():
                assert getattr(found[gpu], field) == pytest.approx(value, rel=0.02), (gpu, field)

    def test_errors_on_held_back_cells(self, cells: list[fit_engine.Cell]) -> None:
        engine = engine_of("splitwise")
        held = [c for c in cells if c.model == "llama2-70b" and c.held and not c.long]
        found = np.array([fit_engine.errors(cell, engine.by_gpu) for cell in held])
        assert len(held) == 12
        assert (np.median(found, axis=0) < (0.10, 0.03, 0.03)).all() and (found.max(axis=0) < (0.25, 0.08, 0.08)).all()

    def test_cells_that_ran_out_of_memory_are_left_out(self, cells: list[fit_engine.Cell]) -> None:
        assert not [c for c in cells if (c.tensor, c.batch) == (2, 64)]
        assert [c for c in cells if c.batch == 64] and max(c.output for c in cells) == 256

    @pytest.mark.parametrize("text", ["", "model,hardware\nllama2-70b,h100-80gb\n"])
    def test_bad_data_are_one_line(self, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        import gzip

        path = tmp_path / fit_engine.FILE
        path.parent.mkdir()
        path.write_bytes(gzip.compress(text.encode()))
        assert fit_engine.main([str(tmp_path), "--output", str(tmp_path / "x.yaml")]) == 2
        captured = capsys.readouterr().err
        assert captured.startswith("error: ") and captured.count("\n") == 1 and not (tmp_path / "x.yaml").exists()
