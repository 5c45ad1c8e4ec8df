"""Deployment exports: the file says what was chosen, and the script starts just that, on GPUs that are there."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import re
import shlex
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.deployment.plan import FleetPlan, Replica, ReplicaGroup
from simulators.deployment.specs import EngineConstants, EngineSpec, FleetSpec, GpuSpec, ModelSpec
from simulators.errors import ConfigError, ExportError, InputDataError
from toolkit.export.deployment import build_deployment, check_policy, deployment_yaml, engine_file, remarks
from toolkit.export.deployment_schema import DeploymentFile, EngineFile, Expected, read_deployment
from toolkit.export.machines import PlacedReplica, place
from toolkit.export.provenance import MARK
from toolkit.export.schema import LanesFile, PolicyFile, Provenance
from toolkit.export.vllm_serve import FIRST_PORT, lay_out, litellm_config, nginx_config, vllm_script, weights

TIERS = ("small", "large")


def gpu(count: int, *, per_machine: int = 8, usd: float = 1.0, basis: Any = "extrapolated") -> GpuSpec:
    return GpuSpec(
        memory_gb=80, bf16_tflops=900, bandwidth_gb_s=3000, link_gb_s=300, usd_per_hour=usd, count=count,
        per_machine=per_machine, basis=basis,
    )  # fmt: skip


def model(weights: str, basis: Any = "extrapolated") -> ModelSpec:
    return ModelSpec(weights=weights, parameters_b=8, layers=32, hidden=4096, kv_heads=8, head_dim=128, basis=basis)


CONSTANTS = {name: 0.5 for name in EngineConstants.model_fields}
ENGINE = EngineSpec(
    basis="measured", default=EngineConstants.model_validate(CONSTANTS), max_batch=128, context_tokens=4096
)


def fleet(gpus: dict[str, GpuSpec], *, weights: tuple[str, str] = ("acme/small-8b", "acme/large-70b")) -> FleetSpec:
    return FleetSpec(
        gpus=gpus,
        models={"small": model(weights[0]), "large": model(weights[1], "measured")},
        engine=ENGINE,
        rate_per_s=20.0,
        budget_usd_per_hour=1e6,
    )


def group(gpu: str, tp: int = 1, pp: int = 1, *, replicas: int = 1, share: float = 1.0) -> ReplicaGroup:
    replica = Replica(gpu=gpu, tensor_parallel=tp, pipeline_parallel=pp)
    return ReplicaGroup(replica=replica, replicas=replicas, share=share)


def policy_file(**changes: Any) -> PolicyFile:
    made = Provenance(
        routefront_version="0.1", git_commit=None, seed=3, created="2026-01-01T00:00:00+00:00", source="toy"
    )
    fields: dict[str, Any] = {
        "policy": "thresholds",
        "tiers": list(TIERS),
        "thresholds": [0.25],
        "utility": None,
        "lanes": LanesFile(fallback_tier="large", low_confidence_tier="large"),
        "scorer": {"kind": "text"},
        "objectives": ["quality", "latency_p95"],
        "constraints": {},
        "chosen_because": "it was there",
        "data_hash": "0123456789abcdef" * 4,
        "metrics": {},
        "evidence": {},
        "provenance": made,
    }
    return PolicyFile(**{**fields, **changes})


def build(
    world: FleetSpec, small: tuple[ReplicaGroup, ...], large: tuple[ReplicaGroup, ...], **changes: Any
) -> DeploymentFile:
    fields: dict[str, Any] = {
        "policy": policy_file(),
        "shares": [0.75, 0.25],
        "engine": engine_file(world),
        "expected": Expected(quality=0.9, latency_p95_table_s=8.0),
        "evidence": "None was gathered.",
    }
    return build_deployment(world, FleetPlan(tiers=TIERS, groups=(small, large)), **{**fields, **changes})


def example() -> DeploymentFile:
    """Three small ones, two of them on the slow type; a large one over two machines of four GPUs."""
    world = fleet({"fast": gpu(8, per_machine=4, usd=3.0, basis="measured"), "slow": gpu(4, usd=0.5)})
    small = (group("slow", replicas=2, share=0.8), group("slow", share=0.2))
    return build(world, small, (group("fast", 4, 2),))


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_says_what_was_chosen() -> None:
    made = example()
    assert made.fleet_usd_per_hour == 8 * 3.0 + 3 * 0.5 and made.gpus["slow"].available == 4
    assert [(name, g.used, g.basis) for name, g in made.gpus.items()] == [
        ("slow", 3, "extrapolated"), ("fast", 8, "measured"),
    ]  # fmt: skip
    small, large = made.tiers
    assert (small.weights, small.load_per_s, large.load_per_s) == ("acme/small-8b", 15.0, 5.0)
    assert [g.load_per_replica_per_s for g in small.groups] == pytest.approx([6.0, 3.0])
    assert made.router.thresholds == (0.25,) and made.router.scorer == "text"
    assert made.extrapolated == ["slow", "acme/small-8b"]
    assert made.plan.groups[1] == (group("fast", 4, 2),)
    assert "25.50 USD per hour" in remarks(made)[0] and "8 s by table" in remarks(made)[1]
    assert any("EXTRAPOLATED" in line and "slow, acme/small-8b" in line for line in remarks(made))


def test_reads_back_as_json_and_as_yaml(tmp_path: Path) -> None:
    made = example()
    written = tmp_path / "deployment.json"
    written.write_text(made.model_dump_json(indent=2))
    assert read_deployment(written) == made
    text = deployment_yaml(made, policy_file())
    assert yaml.safe_load(text) == json.loads(made.model_dump_json())
    exported = tmp_path / "out.yaml"
    exported.write_text(text)
    assert read_deployment(exported) == made
    assert text.startswith(f"# {MARK}") and "# Fleet: 25.50 USD per hour" in text and "WARNING: not certified" in text


def test_a_tier_that_gets_nothing_needs_no_replica() -> None:
    world = fleet({"fast": gpu(8)})
    made = build(world, (), (group("fast"),), shares=[0.0, 1.0])
    assert made.tiers[0].groups == () and made.extrapolated == ["fast"]


def changed(path: str, value: object) -> dict[str, Any]:
    """The example as JSON with one value replaced."""
    fields: dict[str, Any] = json.loads(example().model_dump_json())
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    inside: Any = fields
    for part in parents:
        inside = inside[part]
    inside[last] = value
    return fields


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("tiers.0.groups.0.share", 0.7, "the shares of small's groups should sum to 1; they sum to 0.9"),
        ("tiers.0.share", 0.5, "shares of the requests should sum to 1; they sum to 0.75"),
        ("tiers.0.load_per_s", 9.0, "small gets 0.75 of 20 requests per second, not 9"),
        ("tiers.0.groups.1.load_per_replica_per_s", 9.0, "a slow TP1 PP1 of small gets 3 requests per second, not 9"),
        ("tiers.1.groups", [], "large gets 0.25 of the requests and has no replica"),
        ("tiers.1.name", "small", "expected every tier once; got"),
        ("gpus.slow.available", 2, "3 GPUs of type slow are in use and 2 available"),
        ("gpus.slow.used", 2, "the groups use .*'slow': 3.*, gpus says .*'slow': 2"),
        ("gpus.fast.per_machine", 2, "fast TP4 PP2 of large would cross machines of 2 GPUs"),
        ("gpus.fast.usd_per_hour", 4.0, "the GPUs in use cost 33.5 USD per hour, fleet_usd_per_hour says 25.5"),
        ("budget_usd_per_hour", 25.0, "cost 25.5 USD per hour, more than the budget of 25"),
        ("router.thresholds", [], "router.thresholds must be 1 finite numbers that never decrease"),
        ("router.thresholds", [0.1, 0.2], "router.thresholds must be 1 finite numbers"),
        ("router.thresholds", [math.inf], "router.thresholds.0: .* finite number"),
        ("tiers.0.weights", "--api-key", "tiers.0.weights: .*pattern"),
        ("tiers.0.groups.0.replicas", 0, "tiers.0.groups.0.replicas: .* greater than or equal to 1; got 0"),
        ("schema_version", 2, "schema_version: .*1; got 2"),
        ("odd", 1, "odd: expected one of schema_version, "),
    ],
)
def test_contradictions_are_one_line(tmp_path: Path, path: str, value: object, message: str) -> None:
    written = tmp_path / "deployment.json"
    written.write_text(json.dumps(changed(path, value)))
    with pytest.raises(InputDataError, match=message) as caught:
        read_deployment(written)
    assert "\n" not in str(caught.value) and "is not a deployment of schema 1" in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "3", '"x"', "\x00", "null"])
@pytest.mark.parametrize("name", ["d.json", "d.yaml"])
def test_no_deployment_at_all(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputDataError, match=r"d\.(json|yaml)") as caught:
        read_deployment(tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputDataError, match="there is none; tune with"):
        read_deployment(tmp_path / "missing.json")


def test_build_refuses_what_does_not_belong_together() -> None:
    world = fleet({"fast": gpu(8)})
    both = ((group("fast"),), (group("fast"),))
    with pytest.raises(ConfigError, match="one share of the requests per tier, 2; got 1"):
        build(world, *both, shares=[1.0])
    with pytest.raises(ConfigError, match="no GPU type other; it has fast"):
        build(world, (group("other"),), both[1])
    with pytest.raises(ConfigError, match="9 GPUs of type fast are in use and 8 available"):
        build(world, (group("fast", replicas=8),), both[1])
    with pytest.raises(ConfigError, match="one set of thresholds"):
        build(world, *both, policy=policy_file(slice_thresholds={"code": [0.5]}))
    with pytest.raises(ConfigError, match=r"serves the tiers .*, the policy has \['large', 'small'\]"):
        build(world, *both, policy=policy_file(tiers=["large", "small"]))
    with pytest.raises(ConfigError, match="no model for the tier tiny"):
        build_deployment(
            world, FleetPlan(tiers=("tiny", "large"), groups=both), policy=policy_file(), shares=[0.5, 0.5],
            engine=engine_file(world), expected=Expected(), evidence="",
        )  # fmt: skip


def test_another_policy_is_refused() -> None:
    made = example()
    check_policy(made, policy_file())
    with pytest.raises(ConfigError, match=r"tuned for the thresholds \[0.25\], the policy has \[0.5\]; tune again"):
        deployment_yaml(made, policy_file(thresholds=[0.5]))
    with pytest.raises(ConfigError, match="serves the tiers"):
        vllm_script(made, policy_file(tiers=["large", "small"]))


def test_the_engine_gets_its_limits_from_the_model_of_it() -> None:
    world = fleet({"fast": gpu(8)})
    made = engine_file(world, "Fitted on a toy.")
    assert made.model_dump() == {
        "name": "vllm", "basis": "measured", "max_num_seqs": 128, "max_num_batched_tokens": 2048,
        "max_model_len": 4096, "gpu_memory_utilization": 0.9, "fitted_on": "Fitted on a toy.",
    }  # fmt: skip
    many = world.model_copy(update={"engine": ENGINE.model_copy(update={"max_batch": 4000})})
    assert engine_file(many).max_num_batched_tokens == 4000
    said = remarks(build(world, (group("fast"),), (group("fast"),), engine=made))
    assert "Constants of the engine (vllm): measured. Fitted on a toy." in said


# --- machines ---------------------------------------------------------------------------------------------------------


def parts(placed: PlacedReplica) -> list[tuple[str, tuple[int, ...]]]:
    return [(part.machine, part.gpus) for part in placed.parts]


def test_known_placement() -> None:
    first, second, third, large = place(example())
    assert [parts(r) for r in (first, second, third)] == [
        [("slow-1", (0,))], [("slow-1", (1,))], [("slow-1", (2,))],
    ]  # fmt: skip
    assert parts(large) == [("fast-1", (0, 1, 2, 3)), ("fast-2", (0, 1, 2, 3))]
    assert [r.share for r in (first, second, third, large)] == pytest.approx([0.4, 0.4, 0.2, 1.0])


def test_stays_in_one_machine_even_where_small_replicas_come_first() -> None:
    world = fleet({"fast": gpu(8, per_machine=4)})
    *_, large = place(build(world, (group("fast", replicas=4),), (group("fast", 4),)))
    assert parts(large) == [("fast-1", (0, 1, 2, 3))]


def test_three_stages_over_two_machines_are_uneven() -> None:
    world = fleet({"fast": gpu(4, per_machine=2)})
    _, large = place(build(world, (group("fast"),), (group("fast", 1, 3),)))
    assert [len(part.gpus) for part in large.parts] == [2, 1] and not large.even


def test_no_room_for_a_stage() -> None:
    made = build(fleet({"odd": gpu(6, per_machine=3)}), (group("odd", 2),), (group("odd", 2, replicas=2),))
    with pytest.raises(ExportError, match="no machine has 2 free GPUs for a stage of a odd TP2 PP1; tensor"):
        place(made)


@st.composite
def deployments(draw: st.DrawFn) -> DeploymentFile:
    """Two tiers on one or two GPU types, as many GPUs as the replicas need or a few more."""
    names = draw(st.sampled_from([("h100",), ("h100", "rtx-5090")]))
    per_machine = {name: draw(st.sampled_from([2, 4, 8])) for name in names}

    def tier() -> tuple[ReplicaGroup, ...]:
        n = draw(st.integers(1, 3))
        cuts = [draw(st.integers(0, 10)) for _ in range(n)]
        total = sum(cuts) or n
        chosen = []
        for cut in cuts:
            name = draw(st.sampled_from(names))
            tp = draw(st.sampled_from([t for t in (1, 2, 4, 8) if t <= per_machine[name]]))
            share = cut / total if sum(cuts) else 1 / n
            chosen.append(group(name, tp, draw(st.integers(1, 4)), replicas=draw(st.integers(1, 4)), share=share))
        return tuple(chosen)

    small, large = tier(), tier()
    used = Counter[str]()
    for g in (*small, *large):
        used[g.replica.gpu] += g.n_gpus
    spare = draw(st.integers(0, 5))
    gpus = {name: gpu(used[name] + spare, per_machine=per_machine[name]) for name in names}
    weights = draw(st.tuples(WEIGHTS, WEIGHTS))
    limits = draw(st.sampled_from([{}, {"max_num_seqs": 64, "max_model_len": 99, "gpu_memory_utilization": 0.35}]))
    engine = EngineFile.model_validate({"basis": "assumed", **limits})
    return build(fleet(gpus, weights=weights), small, large, engine=engine)


WEIGHTS = st.one_of(
    st.just("meta-llama/Llama-3.1-8B-Instruct"),
    st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=12).filter(
        lambda text: re.match(r"^[^\s-]", text) is not None
    ),
)


@settings(max_examples=150, deadline=None)
@given(deployments())
def test_every_gpu_once_and_no_stage_over_two_machines(made: DeploymentFile) -> None:
    placed = place(made)
    taken = [(part.machine, index) for replica in placed for part in replica.parts for index in part.gpus]
    assert len(taken) == len(set(taken)) == sum(use.used for use in made.gpus.values())
    for name, index in taken:
        kind, _, number = name.rpartition("-")
        before = (int(number) - 1) * made.gpus[kind].per_machine
        assert 0 <= index < min(made.gpus[kind].per_machine, made.gpus[kind].available - before)
    for replica in placed:
        tp = replica.replica.tensor_parallel
        assert len({part.machine for part in replica.parts}) == len(replica.parts)
        assert sum(len(part.gpus) for part in replica.parts) == replica.replica.n_gpus
        for part in replica.parts:
            assert part.machine.startswith(f"{replica.replica.gpu}-") and len(part.gpus) % tp == 0
            stages = [part.gpus[i : i + tp] for i in range(0, len(part.gpus), tp)]
            assert all(stage[0] % tp == 0 and stage[-1] - stage[0] == tp - 1 for stage in stages)
    for tier in made.tiers:
        assert sum(r.share for r in placed if r.tier == tier.name) == pytest.approx(1.0)


# --- the script -------------------------------------------------------------------------------------------------------


def vllm_parser() -> argparse.ArgumentParser:
    """The flags that the script may use, with the types that vLLM 0.32 declares for them."""
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    parser.add_argument("model_tag")
    for flag in ("port", "tensor-parallel-size", "pipeline-parallel-size", "max-num-seqs", "max-model-len"):
        parser.add_argument(f"--{flag}", type=int)
    for flag in ("max-num-batched-tokens", "nnodes", "node-rank", "master-port"):
        parser.add_argument(f"--{flag}", type=int)
    parser.add_argument("--gpu-memory-utilization", type=float)
    for flag in ("served-model-name", "master-addr", "distributed-executor-backend"):
        parser.add_argument(f"--{flag}")
    parser.add_argument("--headless", action="store_true")
    return parser


def servers(script: str) -> list[tuple[str, dict[str, str], argparse.Namespace]]:
    """Machine, environment and parsed arguments of every server that the script starts."""
    found, machine = [], ""
    for line in script[script.index("case ") :].split("nginx)\n")[0].splitlines()[1:]:
        words = shlex.split(line, comments=True)
        if len(words) == 1 and words[0].endswith(")"):
            machine = words[0][:-1]
        if "vllm" in words:
            at, end = words.index("vllm"), len(words) - 1
            assert words[at + 1] == "serve" and words[end] == "&"
            env = dict(word.split("=", 1) for word in words[:at] if re.match(r"[A-Z_]+=", word))
            found.append((machine, env, vllm_parser().parse_args(words[at + 2 : end])))
    return found


@settings(max_examples=100, deadline=None)
@given(deployments())
def test_the_script_says_what_the_deployment_says(made: DeploymentFile) -> None:
    placed = place(made)
    found = servers(vllm_script(made, policy_file()))
    weights_of = {tier.name: tier.weights for tier in made.tiers}
    wanted = [(i, r, rank) for i, r in enumerate(placed) for rank in range(len(r.parts) if r.even else 1)]
    assert len(found) == len(wanted)
    by_start = {(args.port - FIRST_PORT, args.node_rank or 0): (m, env, args) for m, env, args in found}
    for i, replica, rank in wanted:
        machine, env, args = by_start[i, rank]
        assert machine == replica.parts[rank].machine
        assert env["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, replica.parts[rank].gpus))
        assert (args.model_tag, args.served_model_name) == (weights_of[replica.tier], replica.tier)
        assert (args.tensor_parallel_size, args.pipeline_parallel_size) == (
            replica.replica.tensor_parallel, replica.replica.pipeline_parallel,
        )  # fmt: skip
        limits = ("max_num_seqs", "max_num_batched_tokens", "max_model_len", "gpu_memory_utilization")
        assert all(getattr(args, limit) == getattr(made.engine, limit) for limit in limits)
        assert args.headless == (rank > 0)
        spans = replica.even and len(replica.parts) > 1
        assert args.nnodes == (len(replica.parts) if spans else None)
        assert args.master_addr == (replica.parts[0].machine if spans else None)
        if spans:  # vLLM gives every node as many ranks
            assert len(replica.parts[rank].gpus) * args.nnodes == replica.replica.n_gpus
        assert (args.distributed_executor_backend == "ray") == (not replica.even)
    masters = {(args.master_addr, args.master_port) for _, _, args in found if args.master_addr and not args.headless}
    assert len(masters) == sum(r.even and len(r.parts) > 1 for r in placed)


def run(script: Path, *words: str, path: Path) -> subprocess.CompletedProcess[str]:
    env = {"PATH": f"{path}:/usr/bin:/bin"}
    return subprocess.run(["sh", str(script), *words], capture_output=True, text=True, env=env, timeout=20, check=False)


def test_a_shell_starts_the_servers_of_a_machine_and_prints_the_balancers(tmp_path: Path) -> None:
    fake = tmp_path / "vllm"
    fake.write_text('#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES $*"\n')
    fake.chmod(0o755)
    script = tmp_path / "fleet.sh"
    made = example()
    script.write_text(vllm_script(made, policy_file(), {"fast-1": "10.0.0.7"}))
    assert MARK in script.read_text()[:200]
    limits = "--max-num-seqs 128 --max-num-batched-tokens 2048 --max-model-len 4096 --gpu-memory-utilization 0.9"
    done = run(script, "slow-1", path=tmp_path)
    small = "--tensor-parallel-size 1 --pipeline-parallel-size 1"
    assert done.returncode == 0 and sorted(done.stdout.splitlines()) == [
        f"{i} serve acme/small-8b --served-model-name small --port {8000 + i} {small} {limits}" for i in range(3)
    ]
    large = f"--served-model-name large --port 8003 --tensor-parallel-size 4 --pipeline-parallel-size 2 {limits}"
    spread = "--nnodes 2 --node-rank {} --master-addr 10.0.0.7 --master-port 29504"
    assert run(script, "fast-1", path=tmp_path).stdout == f"0,1,2,3 serve acme/large-70b {large} {spread.format(0)}\n"
    second = run(script, "fast-2", path=tmp_path).stdout
    assert second == f"0,1,2,3 serve acme/large-70b {large} {spread.format(1)} --headless\n"
    site = lay_out(made, {"fast-1": "10.0.0.7"})
    assert yaml.safe_load(run(script, "litellm", path=tmp_path).stdout) == litellm_config(site)
    assert run(script, "nginx", path=tmp_path).stdout == nginx_config(site)
    wrong = run(script, path=tmp_path)
    assert wrong.returncode == 2 and wrong.stderr == "usage: sh FILE fast-1 | fast-2 | slow-1 | nginx | litellm\n"


def test_uneven_parts_start_on_ray(tmp_path: Path) -> None:
    for name in ("vllm", "ray"):
        fake = tmp_path / name
        fake.write_text(f'#!/bin/sh\necho "{name} $CUDA_VISIBLE_DEVICES $RAY_ADDRESS $*"\n')
        fake.chmod(0o755)
    world = fleet({"fast": gpu(4, per_machine=2)})
    script = tmp_path / "fleet.sh"
    script.write_text(vllm_script(build(world, (group("fast"),), (group("fast", 1, 3),)), policy_file()))
    head = run(script, "fast-1", path=tmp_path).stdout
    assert "ray 0,1  start --head --port=6380" in head and "vllm  fast-1:6380 serve acme/large-70b" in head
    assert "--distributed-executor-backend ray" in head and "--nnodes" not in head
    assert "ray 0  start --address=fast-1:6380" in run(script, "fast-2", path=tmp_path).stdout
    assert "unequal parts need Ray" in script.read_text()


@pytest.mark.parametrize("host", ["", "-x", "a b", "a;b", "$(x)"])
def test_hosts_are_addresses_of_machines_in_use(host: str) -> None:
    with pytest.raises(ConfigError, match="hosts should hold host names or IP addresses"):
        lay_out(example(), {"fast-1": host})
    with pytest.raises(ConfigError, match="hosts names fast-3; the machines in use are fast-1, fast-2, slow-1"):
        lay_out(example(), {"fast-3": "a"})


# --- balancing --------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(deployments())
def test_weights_are_in_proportion_to_the_shares(made: DeploymentFile) -> None:
    placed = place(made)
    found = weights(placed)
    for tier in made.tiers:
        mine = [(r.share, w) for r, w in zip(placed, found, strict=True) if r.tier == tier.name]
        total = sum(w for _, w in mine)
        assert math.gcd(*(w for _, w in mine)) == 1 and total > 0
        assert all((w == 0) == (share == 0) and w / total == pytest.approx(share, abs=2e-3) for share, w in mine)


def test_nginx_takes_turns_by_weight() -> None:
    text = nginx_config(lay_out(example()))
    pattern = r"upstream (\w+) \{\n    zone \1 64k;\n((?:    server .*;\n)+)\}\nserver \{\n    listen (\d+);"
    tiers = {name: (servers, int(port)) for name, servers, port in re.findall(pattern, text)}
    assert tiers["large"] == ("    server fast-1:8003 weight=1;\n", 9001)
    pairs = {host: int(weight) for host, weight in re.findall(r"server (\S+) weight=(\d+);", tiers["small"][0])}
    assert pairs == {"slow-1:8000": 2, "slow-1:8001": 2, "slow-1:8002": 1}
    assert text.count("{") == text.count("}") and "proxy_pass http://small;" in text


@pytest.mark.verify
def test_litellm_draws_replicas_by_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("litellm")
    from toolkit.export.litellm_replay import _router
    from toolkit.scorers.litellm import quiet_litellm

    config = litellm_config(lay_out(example()))
    router = _router(config)
    assert set(router.get_model_names()) == set(TIERS)

    async def ask(n: int) -> Counter[str]:
        chosen = [await router.async_get_available_deployment(model="small", request_kwargs={}) for _ in range(n)]
        return Counter(deployment["litellm_params"]["api_base"] for deployment in chosen)

    monkeypatch.setattr("random.choices", random.Random(0).choices)
    with quiet_litellm():
        drawn = asyncio.run(ask(1000))
    shares = [drawn[f"http://slow-1:{8000 + i}/v1"] / 1000 for i in range(3)]
    assert shares == pytest.approx([0.4, 0.4, 0.2], abs=0.06)
