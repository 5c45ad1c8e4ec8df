"""`QueryRouting-v0`: its steps by hand, its slacks, many at once, and a learner from another package."""

import dataclasses

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers import make_table, recording_columns, write_columns

from experiments.environments import (
    make_query_routing,
    make_query_routing_vector,
    prompt_features,
    query_routing_from_recording,
    read_scenario,
    routing_task,
    signal_features,
)
from experiments.sb3 import as_vec_env
from simulators.envs.query_routing import QueryRoutingEnv
from simulators.envs.query_routing_vector import QueryRoutingVectorEnv
from simulators.envs.routing_task import make_task
from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import QueryBatch

CONSTRAINTS = {
    "share_over:2.5": 0.3,
    "share_within:4": 0.8,
    "latency_mean": 2.0,
    "cost": 2e-4,
    "quality@slice1": 0.7,
    "share_over:2@slice2": 0.5,
}


@pytest.fixture
def table():
    return make_table(np.random.default_rng(0), n=120)


@pytest.fixture
def task(table):
    features = np.random.default_rng(1).standard_normal((120, 4))
    return make_task(
        table,
        features,
        predicted_quality=np.tile(table.quality.mean(axis=0), (120, 1)) + 0.2 * features[:, :3],
        predicted_cost_usd=np.tile(table.cost_usd.mean(axis=0), (120, 1)),
        targets=(0.6, 0.8),
        constraints=CONSTRAINTS,
    )


def played(env, actions):
    """Infos and rewards of one episode."""
    infos, rewards = [], []
    for action in actions:
        _, reward, terminated, truncated, info = env.step(action)
        assert not truncated
        infos.append(info)
        rewards.append(reward)
    assert terminated
    return infos, np.array(rewards)


@pytest.mark.parametrize("action", ["mu", "tier"])
@pytest.mark.parametrize("lagrangian", [False, True])
def test_gymnasium_finds_no_fault(task, action, lagrangian):
    """Nor does it warn, but for a specification that only registered ones have."""
    env = QueryRoutingEnv(task, action=action, lagrangian=lagrangian, multipliers=np.arange(7), episode_length=20)
    check_env(env, skip_render_check=True)


def test_a_step_by_hand(table):
    task = make_task(table, np.zeros((120, 1)), constraints={"cost": 1e-4}, targets=(0.7, 0.7), cost_scale_usd=0.01)
    env = QueryRoutingEnv(
        task, action="tier", alpha=0.5, lagrangian=True, multipliers={"quality": 3.0, "cost": 2.0}, episode_length=2
    )
    _, start = env.reset(seed=0)
    assert start == {"target": 0.7}
    _, reward, terminated, _, info = env.step(2)
    row = info["query"]
    quality, cost_usd = table.quality[row, 2], table.cost_usd[row, 2]
    assert (info["tier"], info["quality"], info["cost_usd"]) == (2, quality, cost_usd)
    assert info["cost"] == pytest.approx(cost_usd / 0.01)
    assert info["slack"] == pytest.approx({"quality": quality - 0.7, "cost": (1e-4 - cost_usd) / 0.01})
    expected = quality - 0.5 * cost_usd / 0.01 + 3.0 * (quality - 0.7) + 2.0 * (1e-4 - cost_usd) / 0.01
    assert reward == pytest.approx(expected)
    assert not terminated
    obs, _, terminated, _, _ = env.step(0)
    assert terminated and (obs[:1] == 0).all()
    with pytest.raises(ConfigError, match="call reset"):
        env.step(0)


def test_without_lagrangian_the_multipliers_do_not_count(task):
    env = QueryRoutingEnv(task, action="tier", alpha=0.0, multipliers=np.full(7, 9.0), episode_length=30)
    env.reset(seed=1)
    infos, rewards = played(env, [1] * 30)
    assert rewards == pytest.approx([info["quality"] for info in infos])


@pytest.mark.parametrize("mu", [0.0, 0.3, 1.0, 1.7])
def test_mu_ranks_tiers_as_the_paper_says(task, mu):
    boosts = np.array([0.1, 0.0, 0.05])
    env = QueryRoutingEnv(task, gamma=2.0, boosts=boosts, episode_length=120)
    env.reset(seed=2)
    infos, _ = played(env, [np.array([mu])] * 120)
    inside = min(mu, 1.0)
    score = task.predicted_quality + inside * boosts - (1 - inside) ** 2 * task.predicted_cost
    assert [info["tier"] for info in infos] == [score[info["query"]].argmax() for info in infos]


def test_a_whole_pass_meets_every_query_once_and_slacks_add_up(table, task):
    """The mean slack over all queries is the slack of each constraint, computed here from the table."""
    env = QueryRoutingEnv(task, action="tier", episode_length=120)
    env.reset(seed=3, options={"target": 0.65})
    tiers = np.random.default_rng(4).integers(0, 3, 120)
    infos, _ = played(env, tiers)
    rows = np.array([info["query"] for info in infos])
    assert sorted(rows) == list(range(120))
    quality, latency, cost = (a[rows, tiers] for a in (table.quality, table.latency_s, table.cost_usd))
    code = table.slice_code[rows]
    expected = {
        "quality": quality.mean() - 0.65,
        "share_over:2.5": 0.3 - (latency > 2.5).mean(),
        "share_within:4": (latency <= 4).mean() - 0.8,
        "latency_mean": 1.0 - latency.mean() / 2.0,
        "cost": (2e-4 - cost.mean()) / task.cost_scale_usd,
        "quality@slice1": quality[code == 1].mean() - 0.7,
        "share_over:2@slice2": 0.5 - (latency[code == 2] > 2).mean(),
    }
    found = {name: np.mean([info["slack"][name] for info in infos]) for name in task.names}
    assert found == pytest.approx(expected)


def test_observations_hold_features_target_and_multipliers(task):
    env = QueryRoutingEnv(task, action="tier", multipliers=[3.0, *np.zeros(6)], episode_length=5)
    obs, info = env.reset(seed=5)
    assert obs.shape == (4 + 1 + 7,) and obs.dtype == np.float32
    assert obs[4] == pytest.approx(info["target"]) and 0.6 <= info["target"] <= 0.8
    assert obs[5:].tolist() == pytest.approx([0.75, *np.zeros(6)])
    row = env.step(0)[4]["query"]
    assert obs[:4] == pytest.approx(task.features[row])
    env.set_multipliers({"cost": 1.0})
    obs = env.step(0)[0]
    assert obs[5:].tolist() == pytest.approx([0, 0, 0, 0, 0.5, 0, 0])


def test_a_row_of_multipliers_per_bin_of_the_target(task):
    values = np.arange(14.0).reshape(2, 7)
    env = QueryRoutingEnv(task, action="tier", multipliers=values)
    for target, row in ((0.6, 0), (0.69, 0), (0.71, 1), (0.8, 1), (0.95, 1)):
        env.reset(seed=0, options={"target": target})
        assert env.multipliers.tolist() == values[row].tolist()
    env.reset(options={"multipliers": np.ones(7)})
    assert env.multipliers.tolist() == [1.0] * 7


def test_same_seed_same_episode(task):
    env = QueryRoutingEnv(task, action="tier", episode_length=10)
    runs = []
    for _ in range(2):
        _, start = env.reset(seed=11)
        infos, _ = played(env, [1] * 10)
        runs.append((start, infos))
    assert runs[0] == runs[1]
    assert env.reset()[1] != runs[0][0]


@pytest.mark.parametrize("action", ["mu", "tier"])
def test_many_at_once_are_the_single_ones(task, action):
    """Step for step, over ends of episodes, with Gymnasium's own loop over single environments as the reference."""
    options = {"action": action, "lagrangian": True, "multipliers": np.arange(21.0).reshape(3, 7), "episode_length": 7}
    ours = QueryRoutingVectorEnv(task, 5, **options)
    singles = SyncVectorEnv([lambda: QueryRoutingEnv(task, **options)] * 5, autoreset_mode=AutoresetMode.SAME_STEP)
    assert ours.observation_space == singles.observation_space and ours.action_space == singles.action_space
    same(ours.reset(seed=20), singles.reset(seed=20))
    singles.action_space.seed(0)
    for _ in range(23):
        actions = singles.action_space.sample()
        same(ours.step(actions), singles.step(actions))
    same(ours.reset(seed=[3, None, 1, 4, 1]), singles.reset(seed=[3, None, 1, 4, 1]))


def same(ours, reference):
    if isinstance(reference, dict):
        assert ours.keys() == reference.keys()
        for name, value in reference.items():
            same(ours[name], value)
    elif isinstance(reference, tuple):
        assert len(ours) == len(reference)
        for pair in zip(ours, reference, strict=True):
            same(*pair)
    elif reference.dtype == object:
        for pair in zip(ours, reference, strict=True):
            same(*pair)
    else:
        assert ours.dtype == reference.dtype
        np.testing.assert_allclose(ours, reference, rtol=1e-12, atol=1e-12)


def test_targets_of_many_at_once(task):
    envs = QueryRoutingVectorEnv(task, 3, action="tier")
    _, info = envs.reset(seed=0, options={"target": [0.6, 0.7, 0.8]})
    assert info["target"].tolist() == [0.6, 0.7, 0.8]
    with pytest.raises(ConfigError, match="one per environment"):
        envs.reset(options={"target": [0.6, 0.7]})
    with pytest.raises(ConfigError, match="expected one seed, or 3"):
        envs.reset(seed=[1, 2])
    with pytest.raises(ConfigError, match="at least 1"):
        QueryRoutingVectorEnv(task, 0)
    with pytest.raises(ConfigError, match="call reset"):
        QueryRoutingVectorEnv(task, 2, action="tier").step(np.zeros(2, dtype=int))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action": "model"}, 'expected "mu" or "tier"'),
        ({"alpha": -1.0}, "alpha >= 0"),
        ({"gamma": 0.0}, "gamma > 0"),
        ({"boosts": [1.0]}, "one per tier"),
        ({"episode_length": 121}, "1 to 120"),
        ({"multipliers": [1.0, 2.0]}, "expected 7 numbers"),
        ({"multipliers": [-1.0] * 7}, ">= 0"),
        ({"multipliers": {"speed": 1.0}}, r"unknown \['speed'\]"),
    ],
)
def test_bad_rules_are_refused(task, options, message):
    with pytest.raises(ConfigError, match=message):
        QueryRoutingEnv(task, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": (0.9, 0.8)}, "least <= greatest"),
        ({"cost_scale_usd": 0.0}, "positive number of USD"),
        ({"constraints": {"speed": 1.0}}, "unknown 'speed'"),
        ({"constraints": {"latency_mean": 0.0}}, "unknown 'latency_mean' with limit 0"),
        ({"constraints": {"quality": 0.9}}, "the target's own name"),
        ({"constraints": {"quality@nowhere": 0.9}}, "no slice of the table"),
        ({"constraints": {"share_over:soon": 0.1}}, "share_over:10"),
        ({"features": np.zeros((3, 2))}, "expected shape 120 x any"),
        ({"features": np.full((120, 1), np.nan)}, "120 are not"),
        ({"predicted_quality": np.zeros((120, 2))}, "expected shape 120 x 3"),
    ],
)
def test_bad_tasks_are_refused(table, options, message):
    with pytest.raises((ConfigError, InputDataError), match=message):
        make_task(**{"table": table, "features": np.zeros((120, 1))} | options)


def test_what_a_task_needs_of_its_table():
    rng = np.random.default_rng(0)
    with pytest.raises(InputDataError, match="cost_usd"):
        make_task(make_table(rng, cost=False), np.zeros((200, 1)))
    slow = make_table(rng, latency=False)
    with pytest.raises(InputDataError, match="needs latency_s"):
        make_task(slow, np.zeros((200, 1)), constraints={"share_over:1": 0.1})
    with pytest.raises(ConfigError, match='or action="tier"'):
        QueryRoutingEnv(make_task(slow, np.zeros((200, 1))))
    with pytest.raises(ConfigError, match="unknown"):
        QueryRoutingEnv(make_task(slow, np.zeros((200, 1))), action="tier").reset(options={"tau": 0.9})
    with pytest.raises(ConfigError, match=r"in \[0, 1\]"):
        QueryRoutingEnv(make_task(slow, np.zeros((200, 1))), action="tier").reset(options={"target": 1.2})


# --- factories --------------------------------------------------------------------------------------------------------


def test_mu_spans_the_pool_of_a_scenario():
    """mu = 0 means the cheapest tier for practically every query, mu = 1 the best predicted quality."""
    env = make_query_routing("hybrid_api", n_queries=600, episode_length=600)
    mean_cost = []
    for mu in (0.0, 0.5, 1.0):
        env.reset(seed=0)
        infos, _ = played(env, [np.array([mu])] * 600)
        mean_cost.append(np.mean([info["cost"] for info in infos]))
        if mu == 0:
            assert np.mean([info["tier"] == 0 for info in infos]) > 0.97
    assert mean_cost[0] < mean_cost[1] < mean_cost[2]


def test_one_table_for_single_and_vector():
    task = routing_task("hybrid_api", n_queries=200)
    assert make_query_routing(task=task).task is make_query_routing_vector(task=task, num_envs=3).task
    with pytest.raises(ConfigError, match="leave out"):
        make_query_routing(task=task, n_queries=100)


def test_a_table_of_ones_own(table):
    env = make_query_routing(table=table, action="tier")
    assert env.task.n_features == 1
    with pytest.raises(ConfigError, match='or action="tier"'):
        make_query_routing(table=table)


def test_a_table_without_costs_is_refused_in_the_environments_own_words():
    table = make_table(np.random.default_rng(0), cost=False)
    signals = {"difficulty_score": table.queries.signals["difficulty"]}
    table = dataclasses.replace(table, queries=dataclasses.replace(table.queries, signals=signals), _hash=[])
    with pytest.raises(InputDataError, match="QueryRouting needs cost_usd"):
        make_query_routing(table=table, action="tier")


def test_signals_are_standardised_and_gaps_are_zero():
    signals = {"a": np.array([1.0, 3.0, np.nan]), "b": np.full(3, 7.0)}
    found = signal_features(QueryBatch(query_id=np.array(["x", "y", "z"]), prompt=None, signals=signals))
    assert found.tolist() == [[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    empty = QueryBatch(query_id=np.array(["x"]), prompt=None, signals={})
    with pytest.raises(InputDataError, match="no numeric signal"):
        signal_features(empty)
    with pytest.raises(InputDataError, match="prompt column"):
        prompt_features(empty, components=2, seed=0)


def test_a_recording_becomes_an_environment(tmp_path):
    queries, outcomes = recording_columns(n=80)
    files = (
        write_columns(tmp_path / "queries.csv", queries),
        write_columns(tmp_path / "outcomes.csv", outcomes),
    )
    env = query_routing_from_recording(*files, components=6, constraints={"share_over:5": 0.2}, lagrangian=True)
    check_env(env, skip_render_check=True)
    assert env.task.n_features == 6 and env.constraint_names == ("quality", "share_over:5")
    envs = query_routing_from_recording(*files, components=6, num_envs=4, action="tier")
    assert envs.reset(seed=0)[0].shape == (4, 6 + 2)


def test_unknown_scenarios_are_refused():
    with pytest.raises(ConfigError, match="hybrid_api"):
        read_scenario("nowhere")


# --- a learner from another package -----------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_ppo_of_stable_baselines3_learns(table, many):
    """At a price of zero the dearest tier is best, at a high one the cheapest: PPO finds both, on either form."""
    from stable_baselines3 import PPO

    task = make_task(table, np.zeros((120, 1)), targets=(0.7, 0.7))
    for alpha, best in ((0.0, 2), (5.0, 0)):
        options = {"action": "tier", "alpha": alpha, "episode_length": 50}
        env = (
            as_vec_env(QueryRoutingVectorEnv(task, 64, **options), seed=0) if many else QueryRoutingEnv(task, **options)
        )
        model = PPO(
            "MlpPolicy",
            env,
            n_steps=16 if many else 512,
            batch_size=512,
            learning_rate=0.01,
            gamma=0.0,
            device="cpu",
            seed=0,
        )
        model.learn(4_096)
        obs, _ = QueryRoutingEnv(task, **options).reset(seed=1)
        assert int(model.predict(obs, deterministic=True)[0]) == best


def test_the_adapter_passes_ends_of_episodes_on(task):
    envs = QueryRoutingVectorEnv(task, 3, action="tier", episode_length=2)
    adapted = as_vec_env(envs, seed=5)
    first = adapted.reset()
    assert (first == QueryRoutingVectorEnv(task, 3, action="tier", episode_length=2).reset(seed=5)[0]).all()
    assert not adapted.step(np.zeros(3, dtype=int))[2].any()
    obs, _, done, infos = adapted.step(np.zeros(3, dtype=int))
    assert done.all() and len(infos) == 3
    assert all((info["terminal_observation"][:4] == 0).all() and not info["TimeLimit.truncated"] for info in infos)
    assert (obs[:, :4] != 0).any()
    assert adapted.get_attr("num_envs") == [3, 3, 3]
    assert adapted.env_is_wrapped(object, indices=[0]) == [False]
    adapted.env_method("set_multipliers", {"quality": 1.0}, indices=0)
    assert (envs.multipliers[:, 0] == 1).all()
    adapted.close()
