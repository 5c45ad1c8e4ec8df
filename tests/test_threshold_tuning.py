"""`ThresholdTuning-v0`: Gymnasium's contract, exact sums, and the same for one environment and for many."""

import dataclasses

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from helpers import make_table

from simulators.envs.threshold_tuning import Limit, ThresholdTuningEnv, ThresholdTuningVectorEnv, TuningSpec
from simulators.errors import ConfigError, InputDataError
from simulators.seeds import spawn_rng
from simulators.simulate import simulate
from simulators.traffic import make_world, parse_traffic
from toolkit.evaluation.contention import ContendedEstimator
from toolkit.evaluation.estimators import AssignmentEstimator
from toolkit.evaluation.metrics import parse_metric
from toolkit.evaluation.slices import coverage
from toolkit.policies.thresholds import UNREACHABLE

LIMIT_S = 4.0
TRAFFIC = {
    "duration_s": 300.0,
    "warmup_s": 30.0,
    "arrivals": {"kind": "poisson", "rate_per_s": 2.0},
    "stations": {
        "tier0": {"slots": 2, "buffer": 3, "error_rate": 0.05},
        "tier1": {"slots": 3},
        "tier2": {"slots": 2},
    },
    "tiers": {"tier0": {"fallback": "tier2"}, "tier2": {"timeout_s": 6.0}},
    "outages": [{"stations": ["tier1"], "start_s": 100.0, "end_s": 150.0}],
}
LIMITS = (
    Limit(kind="late", at_most=0.1),
    Limit(kind="wrong", at_most=0.3, slice="slice1"),
    Limit(kind="cost", at_most=1e-4),
)


def make_tuning(traffic: dict = TRAFFIC, **options) -> TuningSpec:
    table = make_table(spawn_rng(0, "table"), n=200)
    given = {"limits": LIMITS, "latency_limit_s": LIMIT_S, "window_s": 20.0} | options
    return TuningSpec(table=table, score=table.queries.signals["difficulty"], traffic=parse_traffic(traffic), **given)


def play_out(env, actions, **reset):
    """Observations, rewards and infos of an episode; `actions: T x ...`."""
    seen, info = env.reset(**reset)
    found, rewards, infos = [seen], [], [info]
    for i, action in enumerate(actions):
        seen, reward, terminated, truncated, info = env.step(action)
        found.append(seen)
        rewards.append(reward)
        infos.append(info)
        assert np.all(terminated == (i == len(actions) - 1)) and not np.any(truncated)
    return np.array(found), np.array(rewards), infos


def some_actions(env, n: int | None = None, seed: int = 0):
    shape = (env.n_windows, 2) if n is None else (env.n_windows, n, 2)
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


@pytest.mark.parametrize("options", [{}, {"context": True, "penalised": True, "clock": True}], ids=["plain", "more"])
def test_the_environment_passes_gymnasiums_check(options, recwarn):
    check_env(ThresholdTuningEnv(make_tuning(**options)), skip_render_check=True)
    assert not recwarn.list


def test_a_constant_action_gives_the_figures_of_the_whole_simulation():
    tuning = make_tuning()
    env, action = ThresholdTuningEnv(tuning), np.array([0.8, 0.4], dtype=np.float32)  # any order
    _, rewards, infos = play_out(env, [action] * env.n_windows, options={"traffic_seed": 3})
    world, table = tuning.world(3), tuning.table
    thresholds = env.scale.thresholds(action)
    assert (infos[-1]["thresholds"] == thresholds).all() and thresholds[0] < thresholds[1]
    assignment = (tuning.score[None, :, None] >= thresholds).sum(axis=2).astype(np.int8)
    estimator = ContendedEstimator(AssignmentEstimator(table, coverage(table, 20), assignment), world, assignment)
    for name, found in {
        f"share_over:{LIMIT_S:g}": env.totals.share_late,
        f"share_over:{LIMIT_S:g}@slice1": env.totals.slice_share("late", 1),
    }.items():
        np.testing.assert_allclose(found, estimator.value(parse_metric(name)), rtol=1e-9)
    journeys = simulate(world, table, assignment, per_request=False)
    counted = world.counted
    quality = journeys.quality(table.quality, world.row)[0, counted]
    cost = journeys.cost_usd[0, counted].mean()
    of_slice = table.slice_code[world.row[counted]] == 1
    np.testing.assert_allclose(env.totals.mean_quality[0], quality.mean(), rtol=1e-9)
    np.testing.assert_allclose(env.totals.cost_per_query_usd[0], cost, rtol=1e-9)
    np.testing.assert_allclose(np.mean(rewards), -cost / tuning.dollar, rtol=1e-9)
    slack = np.mean([info["slack"] for info in infos[1:]], axis=0)
    late = (journeys.served[0, counted] < 0) | (journeys.e2e_s[0, counted] > LIMIT_S)
    expected = [0.1 - late.mean(), 0.3 - (1.0 - quality[of_slice]).mean(), (1e-4 - cost) / tuning.dollar]
    np.testing.assert_allclose(slack, expected, rtol=1e-9)
    assert late.mean() > 0.02 and env.totals.share_failed[0] > 0


def test_quality_and_cost_equal_the_toolkits_where_every_query_is_asked_equally_often():
    """The toolkit weighs queries, an episode weighs requests: here both are the same."""
    tuning = make_tuning(TRAFFIC | {"warmup_s": 0.0})
    world = tuning.world(0)
    keep = np.arange(world.n_requests) < 200 * (world.n_requests // 200)
    cut = {name: getattr(world, name)[keep] for name in ("arrival_s", "ready_s", "row", "router_down")}
    world = type(world)(**{**vars(world), **cut})
    assert set(np.bincount(world.row)) == {world.n_requests // 200}
    env, action = ThresholdTuningEnv(tuning), np.array([0.4, 0.8], dtype=np.float32)
    play_out(env, [action] * env.n_windows, options={"world": world})
    assignment = (tuning.score[None, :, None] >= env.scale.thresholds(action)).sum(axis=2).astype(np.int8)
    exact = AssignmentEstimator(tuning.table, coverage(tuning.table, 20), assignment)
    estimator = ContendedEstimator(exact, world, assignment)
    np.testing.assert_allclose(env.totals.mean_quality, estimator.value(parse_metric("quality")), rtol=1e-9)
    np.testing.assert_allclose(env.totals.cost_per_query_usd, estimator.value(parse_metric("cost")), rtol=1e-9)


def test_counts_of_the_windows_add_up_to_the_episode():
    env = ThresholdTuningEnv(make_tuning())
    _, _, infos = play_out(env, some_actions(env), seed=1)
    sums = {name: np.sum([info[name] for info in infos[1:]], axis=0) for name in infos[1] if name != "thresholds"}
    totals = env.totals
    for name in ("requests", "late", "wrong", "failed", "cost_usd"):
        np.testing.assert_allclose(sums[f"{name}_by_slice"], getattr(totals, name)[0], rtol=1e-9)
        np.testing.assert_allclose(sums[name], getattr(totals, name).sum(), rtol=1e-9)
    assert sums["sent"].sum() == totals.total_requests[0]
    warm = infos[1]
    assert warm["requests"] == 0 and not warm["slack"].any() and warm["at_s"] == 20.0  # a step of the warm-up


def test_many_environments_do_what_single_ones_do():
    tuning = make_tuning(context=True)
    many = ThresholdTuningVectorEnv(tuning, 3)
    actions = some_actions(many, 3)
    multipliers = np.array([[0.0, 1.0, 2.0], [0.5, 0.0, 0.0], [3.0, 3.0, 3.0]])
    many.set_multipliers(multipliers)
    seen, rewards, infos = play_out(many, actions, seed=5)
    assert many.observation_space.contains(seen[0]) and many.action_space.contains(actions[0])
    for i in range(3):
        one = ThresholdTuningEnv(tuning)
        one.set_multipliers(multipliers[i])
        single_seen, single_rewards, single_infos = play_out(one, actions[:, i], seed=5)
        np.testing.assert_array_equal(seen[:, i], single_seen)
        np.testing.assert_array_equal(rewards[:, i], single_rewards)
        for ours, theirs in zip(infos, single_infos, strict=True):
            assert {f"_{name}" for name in theirs} | set(theirs) == set(ours)
            for name, values in theirs.items():
                np.testing.assert_array_equal(ours[name][i], values)
                assert ours[f"_{name}"].all()


def test_an_episode_follows_from_its_seed():
    env, other = ThresholdTuningEnv(make_tuning()), ThresholdTuningEnv(make_tuning())
    actions = some_actions(env)
    first, again = play_out(env, actions, seed=7), play_out(other, actions, seed=7)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[2][0] == again[2][0]
    following = play_out(env, actions)
    assert following[2][0]["traffic_seed"] != first[2][0]["traffic_seed"]
    chosen = play_out(env, actions, options={"traffic_seed": first[2][0]["traffic_seed"]})
    np.testing.assert_array_equal(chosen[0], first[0])


def test_a_seeds_traffic_is_that_of_the_task():
    tuning = make_tuning()
    env, actions = ThresholdTuningEnv(tuning), some_actions(ThresholdTuningEnv(tuning))
    drawn = play_out(env, actions, options={"traffic_seed": 4})
    given = play_out(env, actions, options={"world": tuning.world(4)})
    np.testing.assert_array_equal(drawn[0], given[0])
    assert given[2][0]["traffic_seed"] == -1
    expected = make_world(tuning.table, tuning.traffic, load=1.0, rng=spawn_rng(4, "traffic"))
    np.testing.assert_array_equal(tuning.world(4).arrival_s, expected.arrival_s)


def test_a_given_world_may_be_shorter_than_the_task():
    tuning = make_tuning()
    env = ThresholdTuningEnv(tuning)
    world = make_tuning(TRAFFIC | {"duration_s": 200.0}).world(0)
    actions = [np.array([0.3, 0.6], dtype=np.float32)] * 10
    _, rewards, infos = play_out(env, actions, options={"world": world})
    assert infos[0]["n_windows"] == 10
    late, cost = env.totals.share_late[0], env.totals.cost_per_query_usd[0]
    np.testing.assert_allclose(np.mean([info["slack"][0] for info in infos[1:]]), 0.1 - late, rtol=1e-9)
    np.testing.assert_allclose(np.mean(rewards), -cost / tuning.dollar, rtol=1e-9)


def test_unlabelled_answers_of_another_table_change_no_scale_of_the_observation():
    """With the scale of training, what is seen of latencies means the same on held-out queries."""
    slow = make_tuning(limits=(), latency_limit_s=None)
    table = dataclasses.replace(slow.table, latency_s=2.0 * slow.table.latency_s, _hash=[])
    given = {"score": slow.score, "traffic": slow.traffic, "window_s": 20.0}
    assert TuningSpec(table=table, **given).long_latency_s == pytest.approx(2.0 * slow.long_latency_s)
    assert TuningSpec(table=table, latency_scale_s=slow.long_latency_s, **given).long_latency_s == slow.long_latency_s
    assert make_tuning().long_latency_s == LIMIT_S
    with pytest.raises(ConfigError, match="latency_scale_s must be positive"):
        TuningSpec(table=table, latency_scale_s=0.0, **given)


def test_observations_stay_in_their_space_under_overload():
    tuning = make_tuning(TRAFFIC | {"arrivals": {"kind": "poisson", "rate_per_s": 30.0}}, label_share=1.0)
    env = ThresholdTuningEnv(tuning)
    seen, _, _ = play_out(env, some_actions(env), seed=0)
    assert all(env.observation_space.contains(row) for row in seen)
    assert seen[:, env.layout["waiting"]].max() > 0.9 and seen[:, env.layout["refused"]].max() > 0.5


def test_reset_modes():
    tuning = make_tuning()
    following = ThresholdTuningVectorEnv(tuning, 2)
    actions = some_actions(following, 2)
    _, _, infos = play_out(following, actions, seed=1)
    seen, rewards, terminated, _, info = following.step(actions[0])
    assert not terminated.any() and not rewards.any() and info["traffic_seed"][0] != infos[0]["traffic_seed"][0]
    assert following.totals.total_requests.tolist() == [0, 0]

    at_once = ThresholdTuningVectorEnv(tuning, 2, autoreset_mode=AutoresetMode.SAME_STEP)
    found, _, at_once_infos = play_out(at_once, actions, seed=1)
    np.testing.assert_array_equal(found[-1], seen)
    last = at_once_infos[-1]
    np.testing.assert_array_equal(last["final_info"]["slack"], infos[-1]["slack"])
    assert len(last["final_obs"]) == 2 and last["_final_obs"].all() and last["final_obs"][0].shape == seen[0].shape

    by_hand = ThresholdTuningVectorEnv(tuning, 2, autoreset_mode="Disabled")
    assert by_hand.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    play_out(by_hand, actions, seed=1)
    with pytest.raises(ConfigError, match="call reset"):
        by_hand.step(actions[0])


def test_the_penalised_reward_is_that_of_the_lagrangian():
    plain, penalised = ThresholdTuningEnv(make_tuning()), ThresholdTuningEnv(make_tuning(penalised=True))
    actions, multipliers = some_actions(plain), np.array([2.0, 0.5, 0.1])
    _, cost, infos = play_out(plain, actions, seed=2)
    _, lagrangian, _ = play_out(penalised, actions, seed=2, options={"multipliers": multipliers})
    slack = np.array([info["slack"] for info in infos[1:]])
    np.testing.assert_allclose(lagrangian, cost + slack @ multipliers)


def test_bounds_may_change_between_episodes_and_are_seen():
    env = ThresholdTuningEnv(make_tuning(context=True))
    actions = some_actions(env)
    _, _, before = play_out(env, actions, seed=2)
    options = {"at_most": [0.2, 0.3, 1e-4], "multipliers": [1.0, 0.0, 3.0]}
    seen, _, after = play_out(env, actions, seed=2, options=options)
    slack = [np.mean([info["slack"] for info in infos[1:]], axis=0) for infos in (before, after)]
    np.testing.assert_allclose(slack[1] - slack[0], [0.1, 0.0, 0.0], atol=1e-12)
    context = seen[0, env.layout["context"]]
    dollars = 1e-4 / env.tuning.dollar
    np.testing.assert_allclose(context, [0.5, 0.0, 0.75, 0.2, 0.3, dollars / (1 + dollars)], rtol=1e-6)


def test_the_clock_is_hidden_where_it_would_give_an_outage_away():
    assert not make_tuning().sees_clock and make_tuning(clock=True).sees_clock
    day = TRAFFIC | {"duration_s": 86_400.0}
    assert make_tuning(day).sees_clock and not make_tuning(day, clock=False).sees_clock
    assert make_tuning(day, window_s=None).step_s == 900.0 and make_tuning(day, window_s=None).n_windows == 96
    hidden, shown = ThresholdTuningEnv(make_tuning()), ThresholdTuningEnv(make_tuning(clock=True))
    for env, expected in ((hidden, [0.0, 0.0]), (shown, [0.0, 1.0])):
        assert env.reset(seed=0)[0][env.layout["clock"]].tolist() == expected


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="a limit is late"):
        Limit(kind="late", at_most=1.5)
    with pytest.raises(ConfigError, match="needs latency_limit_s"):
        make_tuning(latency_limit_s=None)
    with pytest.raises(ConfigError, match="no slice of"):
        make_tuning(limits=(Limit(kind="wrong", at_most=0.1, slice="nowhere"),))
    table = make_table(spawn_rng(0, "table"), n=20, cost=False)
    with pytest.raises(InputDataError, match="cost_usd"):
        TuningSpec(table=table, score=np.zeros(20), traffic=parse_traffic(TRAFFIC))
    env = ThresholdTuningEnv(make_tuning())
    with pytest.raises(ConfigError, match="call reset first"):
        env.step(np.zeros(2, dtype=np.float32))
    with pytest.raises(ConfigError, match="options"):
        env.reset(options={"traffic": 3})
    with pytest.raises(ConfigError, match="multipliers: expected 3"):
        env.set_multipliers([-1.0, 0.0, 0.0])
    with pytest.raises(ConfigError, match="at most 1"):
        env.set_at_most([0.1, 1.5, 7.0])
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="finite actions"):
        env.step(np.array([np.nan, 0.5], dtype=np.float32))
    with pytest.raises(ConfigError, match="num_envs"):
        ThresholdTuningVectorEnv(make_tuning(), 0)


def test_unreachable_thresholds_are_the_toolkits():
    env = ThresholdTuningEnv(make_tuning())
    env.reset(seed=0)
    assert env.step(np.array([0.0, 1.0], dtype=np.float32))[4]["thresholds"].tolist() == [-UNREACHABLE, UNREACHABLE]


@pytest.mark.parametrize("name", ["peak_hours", "outage", "drift"])
@pytest.mark.slow
def test_the_scenarios_run(name):
    env = gymnasium.make("simulators.envs:ThresholdTuning-v0", scenario=name, n_queries=1_500).unwrapped
    assert isinstance(env, ThresholdTuningEnv) and env.n_windows == 96
    assert env.tuning.step_s == (900.0 if name == "peak_hours" else 75.0)
    play_out(env, [np.array([0.4, 0.8], dtype=np.float32)] * 96, seed=0)
    many = gymnasium.make_vec(
        "simulators.envs:ThresholdTuning-v0",
        num_envs=2,
        scenario=name,
        n_queries=1_500,
        vectorization_mode="vector_entry_point",
    )
    seen, _ = many.reset(seed=0)
    assert seen.shape == (2, env.observation_space.shape[0])


@pytest.mark.slow
def test_stable_baselines_trains_on_it():
    from stable_baselines3 import PPO
    from stable_baselines3.common.monitor import Monitor

    env = Monitor(ThresholdTuningEnv(make_tuning(penalised=True)))
    env.unwrapped.set_multipliers([1.0, 1.0, 0.0])
    model = PPO("MlpPolicy", env, n_steps=45, batch_size=15, n_epochs=2, seed=0, device="cpu").learn(90)
    assert model.num_timesteps == 90 and len(env.get_episode_rewards()) == 6
    action, _ = model.predict(env.reset(seed=0)[0], deterministic=True)
    assert env.action_space.contains(action)
