"""PPO with multipliers: a problem with a known answer, the pieces by hand, and runs that repeat and resume."""

import dataclasses
import functools

import numpy as np
import pytest
from helpers import make_table

from simulators.envs.load_scale import LoadScale
from simulators.errors import ConfigError, InputDataError
from toolkit.evaluation.constraints import parse_constraints
from toolkit.evaluation.metrics import parse_metric
from toolkit.evaluation.slices import coverage
from toolkit.families.thresholds import ThresholdFamily
from toolkit.policies.lanes import Lanes
from toolkit.problem import RoutingProblem
from toolkit.scorers.base import ScoreTable
from toolkit.search.base import run_search
from toolkit.search.journal import Journal
from toolkit.search.ppo_controller import PpoLagrangianController, best_start
from toolkit.search.ppo_lagrangian import (
    PpoTrainer,
    advantages,
    lagrangian,
    losses,
    train,
    update,
    without_traffic,
)
from toolkit.search.ppo_network import initial_weights, log_density, values
from toolkit.search.ppo_options import PpoLagrangianOptions
from toolkit.search.window_policy import WindowPolicy, as_action, static_policy
from toolkit.search.window_rollout import play

torch = pytest.importorskip("torch")

QUICK = PpoLagrangianOptions(iterations=4, traffics=2, validation_traffics=2, validate_every=2, hidden=8, margin=0.0)


class KnownWindows:
    """Windows whose best thresholds are known: cost `0.1 + w (a - 0.8)^2`, exceedance `a`, and w is seen.

    With w of 1 or 3, equally likely, and the mean of a at most 0.5, the best policy plays `0.8 - m / (2 w)` with
    m = 0.9: 0.35 or 0.65. The best static thresholds are 0.5.
    """

    def __init__(self, num_envs, windows=20, limit=0.5):
        self.num_envs, self._windows, self._limit = num_envs, windows, limit

    def reset(self, *, seed, options):
        assert options == {"traffic_seed": seed}
        self._w = np.random.default_rng(seed).permutation(np.resize([1.0, 3.0], self._windows))
        self._at = 0
        return self._seen(), {}

    def _seen(self):
        w = self._w[min(self._at, self._windows - 1)]
        return np.tile(np.array([[w - 2.0, 0.0]], dtype=np.float32), (self.num_envs, 1))

    def step(self, actions):
        assert actions.shape == (self.num_envs, 1)
        cost = 0.1 + self._w[self._at] * (actions[:, 0] - 0.8) ** 2
        self._at += 1
        ended = np.full(self.num_envs, self._at == self._windows)
        infos = {"slack": self._limit - actions, "requests": np.full(self.num_envs, 10.0)}
        return self._seen(), -cost, ended, np.zeros_like(ended), infos


BEST = {1.0: 0.35, 3.0: 0.65}
LIMIT = np.array([0.5])
HOME = np.array([0.3])


LEARNING = PpoLagrangianOptions(
    iterations=80,
    traffics=1,
    copies=8,
    minibatches=2,
    lr=1e-2,
    margin=0.0,
    integral=0.2,
    proportional=1.0,
    derivative=0.5,
    step_size=0.3,
    relative=False,
    start=0.0,
    noise=0.05,
    validation_traffics=1,
    validate_every=80,
)


@pytest.fixture(scope="module", params=["pid", "gradient"])
def learnt(request):
    options = dataclasses.replace(LEARNING, dual=request.param)
    trainer = PpoTrainer(KnownWindows, options, home=HOME, limits=LIMIT)
    while trainer.iteration < options.iterations:
        trainer.step()
    return trainer


@pytest.mark.slow
def test_policy_and_multiplier_of_the_known_problem_are_found(learnt):
    for w, best in BEST.items():
        assert learnt.policy().act(np.array([[w - 2.0, 0.0]]))[0, 0] == pytest.approx(best, abs=0.02)
    unit = 0.1 + 2.0 * (HOME[0] - 0.8) ** 2  # the untrained policy's cost; the limit is the unit of slack
    history = learnt.trained().history
    assert history["multiplier"][-30:, 0].mean() == pytest.approx(0.9 * LIMIT[0] / unit, rel=0.1)
    assert history["exceedance"][-30:, 0].mean() == pytest.approx(LIMIT[0], abs=0.02)


@pytest.mark.slow
def test_it_beats_the_best_static_thresholds_where_that_is_possible(learnt):
    static = play([KnownWindows(1)], static_policy(LIMIT, 2), [7])
    trained = play([KnownWindows(1)], learnt.policy(), [7])
    assert static.cost == pytest.approx(0.1 + 2.0 * 0.3**2)
    assert trained.cost < 0.85 * static.cost and trained.shares(LIMIT)[0] < 0.51


@pytest.mark.slow
def test_a_multiplier_stays_zero_where_nothing_binds():
    options = dataclasses.replace(QUICK, iterations=8, lr=5e-3, dual="gradient", start=0.0)
    free = train(functools.partial(KnownWindows, limit=2.0), options, home=np.array([0.75]), limits=np.array([2.0]))
    assert not free.history["multiplier"].any()


def test_an_untrained_policy_is_its_home():
    rng = np.random.default_rng(0)
    home = np.array([0.2, 0.7])
    weights = initial_weights(rng, n_observed=3, hidden=4, home=home, n_streams=2, noise=0.1)
    policy = WindowPolicy(weights=weights, observation_mean=np.zeros(3), observation_std=np.ones(3), span=0.5)
    np.testing.assert_array_equal(policy.act(rng.standard_normal((5, 3))), np.tile(home, (5, 1)))


def test_actions_ascend_in_the_unit_interval():
    np.testing.assert_array_equal(as_action(np.array([[0.9, -0.1], [0.2, 1.4]])), [[0.0, 0.9], [0.2, 1.0]])


def test_advantages_by_hand():
    reward = np.array([1.0, 2.0, 4.0]).reshape(3, 1, 1)
    value = np.array([0.5, 1.0, 3.0]).reshape(3, 1, 1)
    delta = [1.0 + 0.5 * 1.0 - 0.5, 2.0 + 0.5 * 3.0 - 1.0, 4.0 - 3.0]
    expected = [delta[0] + 0.25 * (delta[1] + 0.25 * delta[2]), delta[1] + 0.25 * delta[2], delta[2]]
    found = advantages(reward, value, gamma=0.5, gae_lambda=0.5)
    np.testing.assert_allclose(found[:, 0, 0], expected)


def test_advantages_without_discount_are_the_returns_less_the_values():
    rng = np.random.default_rng(1)
    reward, value = rng.standard_normal((2, 5, 3, 2))
    found = advantages(reward, value, gamma=1.0, gae_lambda=1.0)
    np.testing.assert_allclose(found, np.cumsum(reward[::-1], axis=0)[::-1] - value)


def test_the_baseline_is_the_mean_of_the_other_copies():
    advantage = np.array([1.0, 3.0, 8.0, 10.0, 20.0, 60.0]).reshape(1, 6, 1)
    expected = [1 - 5.5, 3 - 4.5, 8 - 2.0, 10 - 40.0, 20 - 35.0, 60 - 15.0]
    np.testing.assert_allclose(without_traffic(advantage, 3)[0, :, 0], expected)
    np.testing.assert_array_equal(without_traffic(advantage, 1), advantage)


def test_streams_are_weighed_by_the_multipliers():
    found = lagrangian(np.array([[2.0, 4.0, -1.0]]), np.array([0.5, 1.5]))
    np.testing.assert_allclose(found, [(2.0 + 0.5 * 4.0 - 1.5) / 3.0])


def random_batch(rng, weights, *, n=12, d=3, span=0.4):
    """A batch off the policy that drew it, so that ratios are on both sides of the clip."""
    policy = WindowPolicy(weights=weights, observation_mean=np.zeros(d), observation_std=np.ones(d), span=span)
    observation = rng.standard_normal((n, d))
    mean = policy.mean(observation)
    action = mean + np.exp(weights["log_std"]) * rng.standard_normal(mean.shape)
    return {
        "observation": observation,
        "action": action,
        "log_density": log_density(action, mean, weights["log_std"]) + 0.3 * rng.standard_normal(n),
        "advantage": rng.standard_normal(n),
        "target": rng.standard_normal((n, 3)),
    }


def random_weights(rng):
    weights = initial_weights(rng, n_observed=3, hidden=4, home=np.array([0.3, 0.6]), n_streams=3, noise=0.1)
    return {name: array + 0.1 * rng.standard_normal(array.shape) for name, array in weights.items()}


def test_gradients_of_the_losses_against_finite_differences():
    rng = np.random.default_rng(2)
    weights = random_weights(rng)
    batch = {name: torch.tensor(array) for name, array in random_batch(rng, weights).items()}
    options = PpoLagrangianOptions(span=0.4, entropy=0.1)
    w = {name: torch.tensor(array, requires_grad=True) for name, array in weights.items()}
    losses(w, batch, options)[0].backward()

    def loss_at(name, i, step):
        moved = {n: torch.tensor(array) for n, array in weights.items()}
        moved[name].view(-1)[i] += step
        return float(losses(moved, batch, options)[0])

    for name in weights:
        for i in range(weights[name].size):
            numeric = (loss_at(name, i, 1e-6) - loss_at(name, i, -1e-6)) / 2e-6
            assert float(w[name].grad.view(-1)[i]) == pytest.approx(numeric, rel=1e-4, abs=1e-7)


def test_policy_and_critic_in_numpy_are_those_in_torch():
    rng = np.random.default_rng(3)
    weights = random_weights(rng)
    batch = random_batch(rng, weights)
    batch["log_density"] = np.zeros(12)
    batch["target"] = values(weights, batch["observation"])  # then only the critic's loss is 0
    options = PpoLagrangianOptions(span=0.4, value=1.0)
    tensors = {name: torch.tensor(array) for name, array in batch.items()}
    w = {name: torch.tensor(array) for name, array in weights.items()}
    loss, log_ratio = losses(w, tensors, options)
    policy = WindowPolicy(weights=weights, observation_mean=np.zeros(3), observation_std=np.ones(3), span=0.4)
    expected = log_density(batch["action"], policy.mean(batch["observation"]), weights["log_std"])
    np.testing.assert_allclose(log_ratio.numpy(), expected, rtol=1e-12)
    without_critic = losses(w, tensors, dataclasses.replace(options, value=1e-9))[0]
    assert float(loss) == pytest.approx(float(without_critic), abs=1e-12)


def test_an_update_raises_the_density_of_better_actions():
    rng = np.random.default_rng(4)
    weights = random_weights(rng)
    batch = random_batch(rng, weights)
    policy = WindowPolicy(weights=weights, observation_mean=np.zeros(3), observation_std=np.ones(3), span=0.3)
    mean = policy.mean(batch["observation"])
    batch["log_density"] = log_density(batch["action"], mean, weights["log_std"])
    batch["advantage"] = np.sign(batch["action"][:, 0] - mean[:, 0])
    new, _, divergence = update(weights, {}, batch, QUICK, 1e-2, rng)
    moved = WindowPolicy(weights=new, observation_mean=np.zeros(3), observation_std=np.ones(3), span=0.3)
    assert (moved.mean(batch["observation"]) - mean)[:, 0].mean() > 0.0 < divergence


def same(a, b):
    assert a.best_iteration == b.best_iteration and a.history.keys() == b.history.keys()
    for name in a.history:
        np.testing.assert_array_equal(a.history[name], b.history[name])
    for name in a.policy.weights:
        np.testing.assert_array_equal(a.policy.weights[name], b.policy.weights[name])


def test_the_same_seed_trains_the_same_policy_and_another_another():
    first, second = (train(KnownWindows, QUICK, home=HOME, limits=LIMIT) for _ in range(2))
    same(first, second)
    other = train(KnownWindows, dataclasses.replace(QUICK, seed=1), home=HOME, limits=LIMIT)
    assert not np.array_equal(first.history["home"], other.history["home"])


def test_training_leaves_the_global_generators_alone():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    train(KnownWindows, dataclasses.replace(QUICK, iterations=1), home=HOME, limits=LIMIT)
    assert torch.equal(state, torch.get_rng_state()) and threads == torch.get_num_threads()


def test_a_killed_training_goes_on_and_ends_the_same(tmp_path):
    whole = train(KnownWindows, QUICK, home=HOME, limits=LIMIT)
    path = tmp_path / "training.npz"
    interrupted = PpoTrainer(KnownWindows, QUICK, home=HOME, limits=LIMIT, checkpoint=path)
    for _ in range(3):  # the checkpoint is of the second
        interrupted.step()
    seen = []
    resumed = train(
        KnownWindows, QUICK, home=HOME, limits=LIMIT, checkpoint=path, on_progress=lambda done, total: seen.append(done)
    )
    assert seen == [3, 4]
    same(whole, resumed)
    assert [p.name for p in tmp_path.iterdir()] == ["training.npz"]


@pytest.mark.parametrize("changed", [{"home": np.array([0.4])}, {"limits": np.array([0.4])}, {"seed": 3}])
def test_a_checkpoint_of_another_training_is_refused(tmp_path, changed):
    path = tmp_path / "training.npz"
    train(KnownWindows, QUICK, home=HOME, limits=LIMIT, checkpoint=path)
    options = dataclasses.replace(QUICK, seed=changed.pop("seed", QUICK.seed))
    with pytest.raises(InputDataError, match="belongs to another training"):
        train(KnownWindows, options, checkpoint=path, **({"home": HOME, "limits": LIMIT} | changed))


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "training.npz"
    train(KnownWindows, QUICK, home=HOME, limits=LIMIT, checkpoint=path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputDataError, match="not a checkpoint"):
        train(KnownWindows, QUICK, home=HOME, limits=LIMIT, checkpoint=path)


def test_a_policy_is_stored_and_read_again(tmp_path):
    trained = train(KnownWindows, QUICK, home=HOME, limits=LIMIT)
    trained.policy.save(tmp_path / "policy")
    again = WindowPolicy.load(tmp_path / "policy")
    observation = np.random.default_rng(5).standard_normal((7, 2))
    np.testing.assert_array_equal(trained.policy.act(observation), again.act(observation))
    with pytest.raises(InputDataError, match="2 figures"):
        again.act(np.zeros((1, 3)))
    with pytest.raises(InputDataError, match="no window policy"):
        WindowPolicy.load(tmp_path)


def test_the_best_judgement_is_kept_not_the_last():
    """A huge step size ruins the policy; the static start, which is feasible, is what remains."""
    ruined = train(KnownWindows, dataclasses.replace(QUICK, lr=3.0, span=0.9), home=np.array([0.5]), limits=LIMIT)
    judged = np.isfinite(ruined.history["validation_cost"])
    cost, share = ruined.history["validation_cost"][judged], ruined.history["validation_exceedance"][judged, 0]
    start = play([KnownWindows(1)], static_policy(np.array([0.5]), 2), [0]).cost
    better = (share <= 0.5) & (cost < start)
    assert not better.any() and ruined.best_iteration == 0
    np.testing.assert_array_equal(ruined.policy.home, [0.5])


def test_shares_and_costs_are_ratios_of_sums():
    """Two episodes of 10 and 30 requests with shares 0.1 and 0.3: 10 of 40 exceed, not a fifth."""
    rollout = dataclasses.replace(
        play([KnownWindows(2, windows=1)], static_policy(HOME, 2), [0]),
        reward=np.array([[-1.0, -2.0]]),
        slack=np.array([[[0.5 - 0.1], [0.5 - 0.3]]]),
        requests=np.array([[10.0, 30.0]]),
        requests_by_constraint=np.array([[[10.0], [30.0]]]),
    )
    np.testing.assert_allclose(rollout.shares(LIMIT), [(1 + 9) / 40])
    assert rollout.cost == pytest.approx((10 + 60) / 40)
    of_a_slice = dataclasses.replace(rollout, requests_by_constraint=np.array([[[8.0], [2.0]]]))  # 0.8 and 0.6 of 10
    np.testing.assert_allclose(of_a_slice.shares(LIMIT), [(0.8 + 0.6) / 10])
    assert of_a_slice.cost == rollout.cost


def test_shares_of_a_slice_are_the_environments_own_counts():
    pytest.importorskip("gymnasium")
    from experiments.environments import make_threshold_tuning_vector, tuning_spec

    name = "code"
    spec = tuning_spec("hybrid_api", n_queries=300, limits={"late": 0.05, f"wrong@{name}": 0.2})
    environments = [make_threshold_tuning_vector(tuning=spec, num_envs=1) for _ in range(2)]
    policy = static_policy(np.array([0.4, 0.8]), environments[0].episodes.observer.size)
    found = play(environments, policy, [3, 4]).shares(np.array([0.05, 0.2]))
    code, totals = spec.table.slices.index(name), [e.totals for e in environments]
    wrong, asked = (sum(getattr(t, field)[0, code] for t in totals) for field in ("wrong", "requests"))
    late, every = (sum(getattr(t, field)[0].sum() for t in totals) for field in ("late", "requests"))
    assert 0 < asked < every
    np.testing.assert_allclose(found, [late / every, wrong / asked], rtol=1e-9)


@pytest.mark.parametrize(
    ("option", "value"),
    [("iterations", 0), ("margin", 1.0), ("lr", 0.0), ("gamma", 1.5), ("noise", -1.0), ("integral", 0.0)],
)
def test_options_that_make_no_sense_are_refused(option, value):
    with pytest.raises(ConfigError):
        PpoLagrangianOptions(**{option: value})


@pytest.mark.parametrize("bad", [{"home": [0.7, 0.2]}, {"home": []}, {"limits": [0.0]}, {"limits": [0.5, 0.5]}])
def test_a_start_that_makes_no_sense_is_refused(bad):
    chosen = {"home": HOME, "limits": LIMIT} | {name: np.array(value) for name, value in bad.items()}
    with pytest.raises(ConfigError):
        train(KnownWindows, QUICK, **chosen)


def make_problem(**constraints):
    rng = np.random.default_rng(0)
    table = make_table(rng, n=120, k=2)
    score = table.queries.signals["difficulty"]
    return RoutingProblem(
        table=table,
        family=ThresholdFamily(ScoreTable(score=score), Lanes(fallback_tier=0, low_confidence_tier=0), 2),
        objectives=(parse_metric("cost"), parse_metric("quality")),
        constraints=parse_constraints(constraints),
        coverage=coverage(table, 5),
    )


def make_controller(problem, factory=KnownWindows, **changed):
    return PpoLagrangianController(
        problem,
        environment_factory=factory,
        scale=LoadScale(problem.family.scores.score),
        options=QUICK,
        limits=LIMIT,
        **({"budget": 8, "n_initial": 5} | changed),
    )


def test_the_controller_asks_its_design_then_centres_of_the_policy():
    problem = make_problem(quality_floor=0.6)
    controller = make_controller(problem)
    result = run_search(problem, controller)
    assert len(result.evaluation) == controller.total == 8 and controller.ask() is None
    trained = controller.trained
    homes = controller_scale(problem).thresholds(trained.history["home"][[1, 2, 3]])
    np.testing.assert_array_equal(result.evaluation.params[5:], homes)  # 4 iterations in 3 steps: 2, 1, 1
    start = best_start(result.evaluation.take(np.arange(5)))
    expected = train(KnownWindows, QUICK, home=controller_scale(problem).positions(start), limits=LIMIT)
    same(expected, trained)


def controller_scale(problem):
    return LoadScale(problem.family.scores.score)


def test_training_starts_at_the_cheapest_feasible_candidate_of_the_design():
    problem = make_problem(quality_floor=0.7)
    found = problem.evaluate_params(controller_scale(problem).thresholds(np.linspace(0, 1, 11)[:, None]))
    start = best_start(found)
    feasible = found.take(np.flatnonzero(found.feasible))
    assert 0 < len(feasible) < len(found)
    np.testing.assert_array_equal(start, feasible.params[np.argmin(feasible.columns["cost_usd"])])


def test_training_starts_at_the_least_violation_where_nothing_is_feasible():
    problem = make_problem(quality_floor=0.999)
    found = problem.evaluate_params(controller_scale(problem).thresholds(np.linspace(0, 1, 11)[:, None]))
    np.testing.assert_array_equal(best_start(found), found.params[np.argmax(found.slack[:, 0])])


def test_a_killed_search_goes_on_without_training_again(tmp_path):
    problem = make_problem(quality_floor=0.6)
    played = []

    class Counted(KnownWindows):
        def reset(self, *, seed, options):
            played.append(seed)
            return super().reset(seed=seed, options=options)

    whole = make_controller(problem, checkpoint=tmp_path / "whole.npz")
    expected = run_search(problem, whole, Journal(tmp_path / "whole.jsonl"))

    cut = make_controller(problem, checkpoint=tmp_path / "cut.npz")
    journal = Journal(tmp_path / "cut.jsonl")
    journal.read(problem)
    for first_index in (0, 5):  # killed in its second step of training
        batch = problem.evaluate_params(cut.ask())
        cut.tell(batch)
        journal.append(batch, first_index=first_index, seconds=0.0)
    resumed = make_controller(problem, Counted, checkpoint=tmp_path / "cut.npz")
    result = run_search(problem, resumed, Journal(tmp_path / "cut.jsonl"))
    np.testing.assert_array_equal(result.evaluation.params, expected.evaluation.params)
    same(whole.trained, resumed.trained)
    assert result.n_replayed == 6 and len(played) == 2 * QUICK.traffics + QUICK.validation_traffics

    played.clear()
    again = make_controller(problem, Counted, checkpoint=tmp_path / "cut.npz")
    run_search(problem, again, Journal(tmp_path / "cut.jsonl"))
    assert not played
    same(whole.trained, again.trained)


def test_a_controller_says_what_it_cannot_do():
    with pytest.raises(ConfigError, match="budget of at least 2"):
        make_controller(make_problem(), budget=1)


@pytest.mark.slow
def test_it_trains_on_the_registered_environment():
    pytest.importorskip("gymnasium")
    from experiments.environments import make_threshold_tuning_vector, tuning_spec

    spec = tuning_spec("peak_hours", n_queries=500, limits={"late": 0.05, "wrong": 0.1})
    home = np.array([0.45, 0.89])
    trained = train(
        lambda n: make_threshold_tuning_vector(tuning=spec, num_envs=n),
        dataclasses.replace(QUICK, iterations=2),
        home=home,
        limits=np.array([limit.at_most for limit in spec.limits]),
    )
    environment = make_threshold_tuning_vector(tuning=spec, num_envs=1)
    rollout = play([environment], trained.policy, [77])
    totals = environment.totals  # the environment's own counts
    np.testing.assert_allclose(
        rollout.shares(np.array([0.05, 0.1])), [totals.share_late[0], totals.share_wrong[0]], rtol=1e-9
    )
    assert rollout.cost == pytest.approx(totals.cost_per_query_usd[0] / spec.dollar)
    assert trained.history["exceedance"].shape == (2, 2)
