"""The ids of the environments: known after an import, made without arguments, and nothing of it in the core."""

import subprocess
import sys

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import simulators.envs
from experiments.environments import require_gymnasium, routing_task
from experiments.sb3 import require_sb3
from simulators.envs import QUERY_ROUTING, THRESHOLD_TUNING, register_environments
from simulators.errors import MissingDependencyError

IDS = (QUERY_ROUTING, THRESHOLD_TUNING)


def test_ids_have_no_namespace_and_stay():
    assert IDS == ("QueryRouting-v0", "ThresholdTuning-v0")
    before = {name: gymnasium.spec(name) for name in IDS}
    register_environments()  # a second time: no warning, no change
    assert {name: gymnasium.spec(name) for name in IDS} == before


@pytest.mark.parametrize("name", IDS)
@pytest.mark.slow
def test_an_id_makes_a_sound_environment(name):
    env = gymnasium.make(f"simulators.envs:{name}")
    assert env.spec is not None and env.spec.id == name
    check_env(env.unwrapped)


@pytest.mark.parametrize("name", IDS)
def test_an_id_makes_many_at_once(name):
    envs = gymnasium.make_vec(name, num_envs=3)
    assert type(envs).__name__.endswith("VectorEnv") and not isinstance(envs, gymnasium.vector.SyncVectorEnv)
    assert isinstance(envs.metadata["autoreset_mode"], AutoresetMode)
    obs, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(obs)
    envs.action_space.seed(0)
    obs, reward, terminated, truncated, _ = envs.step(envs.action_space.sample())
    assert envs.observation_space.contains(obs)
    assert reward.shape == terminated.shape == truncated.shape == (3,)


def test_arguments_reach_the_environment():
    task = routing_task("peak_hours", n_queries=150)
    env = gymnasium.make(QUERY_ROUTING, task=task, action="tier", episode_length=7)
    assert env.unwrapped.task.n_queries == 150
    assert env.action_space.n == task.n_tiers


@pytest.mark.slow
def test_an_import_is_enough_in_a_fresh_process():
    code = (
        "import gymnasium; assert 'QueryRouting-v0' not in gymnasium.registry\n"
        "env = gymnasium.make('simulators.envs:QueryRouting-v0'); env.reset(seed=0)\n"
        "print(env.step(env.action_space.sample())[4]['tier'])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in {"0", "1", "2"}


@pytest.mark.slow
def test_the_core_does_without_gymnasium():
    code = "import sys, experiments.environments, toolkit.problem, simulators.simulate as s; assert 'gymnasium' not in "
    code += "sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("package", "need"), [("gymnasium", require_gymnasium), ("stable_baselines3", require_sb3)])
def test_a_missing_package_is_one_line(monkeypatch, package, need):
    need()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match="pip install") as error:
        need()
    assert "\n" not in str(error.value)


def test_the_package_says_how_to_find_the_ids():
    assert "simulators.envs:QueryRouting-v0" in (simulators.envs.__doc__ or "")


def test_both_sides_of_the_bench_train_on_as_many_queries():
    from experiments import rl_bench

    rollout = 2_048  # of stable-baselines3, by default and as tuned; it plays whole ones
    assert rl_bench.RL_CASES["rl-train"] % rollout == 0 == rollout % rl_bench._BATCH


@pytest.mark.slow
def test_the_bench_compares_on_the_same_queries(monkeypatch):
    from experiments import rl_bench

    monkeypatch.setattr(rl_bench, "RL_CASES", {"rl-steps": 640, "rl-train": 512})
    monkeypatch.setattr(rl_bench, "_N_ENVS", 2)
    monkeypatch.setattr(rl_bench, "_N_QUERIES", 300)
    rows = rl_bench.run_rl_case("rl-steps", runs=1, seed=0)
    assert len(rows) == 4 and all(row["ours"] > 0 for row in rows)
    rows = rl_bench.run_rl_case("rl-train", runs=1, seed=0)
    assert [row["metric"].split(",")[0] for row in rows] == ["seconds", "Lagrangian value"] * 3
    assert all(row["ours"] <= 1 and row["peer_value"] <= 1 for row in rows[1::2])
