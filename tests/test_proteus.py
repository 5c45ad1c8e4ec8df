"""PROTEUS: losses, dual ascent, a decision problem with a known answer, and training that can be killed."""

import dataclasses
import warnings

import numpy as np
import pytest

from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import FloatArray
from toolkit.scorers.proteus import beta_parameters, query_inputs, target_inputs
from toolkit.search.proteus import (
    AdditiveConstraint,
    Multipliers,
    ProteusOptions,
    TrainingData,
    critic_value,
    exact_loss,
    expected_tiers,
    log_probability,
    policy_head,
    ppo_loss,
    price_scale,
    rewards,
    tier_scores,
)
from toolkit.search.proteus_training import train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")

QUICK = ProteusOptions(hidden=16, steps=30, batch=32, bins=5, settle=4, nodes=16, weight_decay=0.1)


def tensor(values: object) -> "torch.Tensor":
    return torch.tensor(np.asarray(values), dtype=torch.float64)


def one_context(n: int = 4) -> TrainingData:
    """Quality .6 and .9 at a price of 0 and 1, whatever the query: the best mixture for tau has a multiplier of 7/3."""
    q, price = np.tile([0.6, 0.9], (n, 1)), np.tile([0.0, 1.0], (n, 1))
    return TrainingData(z=np.zeros((n, 0)), p=q, c=price, q=q, price=price)


def many_queries(n: int = 120, k: int = 3, seed: int = 0) -> TrainingData:
    """Dearer tiers are better, the more so the harder the query; predictions are noisy."""
    rng = np.random.default_rng(seed)
    hard = rng.uniform(size=(n, 1))
    mean = 1.0 - hard * (1.0 - np.linspace(0.4, 0.95, k))
    cost = np.broadcast_to(8.0 ** np.arange(k), (n, k)) * rng.lognormal(0.0, 0.2, (n, k))
    p = mean + 0.02 * rng.standard_normal((n, k))
    scale = price_scale(p, cost)
    q = np.clip(mean + 0.1 * rng.standard_normal((n, k)), 0.0, 1.0)
    return TrainingData(z=hard - 0.5, p=p, c=scale * cost, q=q, price=scale * cost)


def batch(seed: int = 0, b: int = 5, k: int = 3, m: int = 2) -> dict[str, "torch.Tensor"]:
    """Everything a loss is made of, at random."""
    rng = np.random.default_rng(seed)
    return {
        "a": tensor(1.0 + rng.exponential(2.0, b)),
        "b": tensor(1.0 + rng.exponential(2.0, b)),
        "boost": tensor(0.05 * rng.standard_normal(k)),
        "gamma": tensor(3.3),
        "p": tensor(rng.uniform(0.5, 0.9, (b, k))),
        "c": tensor(rng.uniform(0.0, 1.0, (b, k))),
        "q": tensor(rng.uniform(size=(b, k))),
        "price": tensor(rng.uniform(size=(b, k))),
        "slack": tensor(rng.standard_normal((m - 1, b, k))),
        "lam": tensor(rng.exponential(2.0, (b, m))),
        "tau": tensor(rng.uniform(0.6, 0.9, b)),
    }


def reward_of(found: dict[str, "torch.Tensor"], alpha: float = 0.7) -> "torch.Tensor":
    return rewards(found["q"], found["price"], found["slack"], found["lam"], found["tau"], alpha)


LEAVES = ("a", "b", "boost", "gamma")


class TestLosses:
    def test_reward_is_the_lagrangian_over_the_sum_of_multipliers(self):
        one = rewards(
            tensor([[0.6, 0.9]]),
            tensor([[0.0, 1.0]]),
            tensor([[[1.0, -1.0]]]),
            tensor([[2.0, 3.0]]),
            tensor([0.8]),
            0.5,
        )
        first = (0.6 + 2.0 * (0.6 - 0.8) + 3.0) / 6.0
        second = (0.9 - 0.5 + 2.0 * (0.9 - 0.8) - 3.0) / 6.0
        np.testing.assert_allclose(one.numpy(), [[first, second]])

    def test_score_is_equation_2(self):
        score = tier_scores(tensor([0.25]), tensor([0.0, 0.1]), tensor(3.0), tensor([[0.5, 0.8]]), tensor([[0.2, 1.0]]))
        np.testing.assert_allclose(score.numpy(), [[0.5 - 0.75**3 * 0.2, 0.8 + 0.025 - 0.75**3]])

    def test_tiers_are_the_mean_over_sampled_mu(self):
        f, rng = batch(), np.random.default_rng(0)
        exact = expected_tiers(*(f[x] for x in ("a", "b", "boost", "gamma", "p", "c")), 0.1, 32)
        mu = tensor(rng.beta(f["a"].numpy(), f["b"].numpy(), (40_000, 5)))
        sampled = torch.softmax(tier_scores(mu, f["boost"], f["gamma"], f["p"], f["c"]) / 0.1, dim=2).mean(dim=0)
        np.testing.assert_allclose(exact.sum(dim=1).numpy(), 1.0)
        np.testing.assert_allclose(exact.numpy(), sampled.numpy(), atol=0.01)

    def test_exact_gradient_against_finite_differences(self):
        f = batch()

        def loss(*leaves: "torch.Tensor") -> "torch.Tensor":
            return exact_loss(expected_tiers(*leaves, f["p"], f["c"], 0.1, 16), reward_of(f))

        assert torch.autograd.gradcheck(loss, [f[x].requires_grad_() for x in LEAVES])

    def test_ppo_gradient_against_finite_differences(self):
        f, rng = batch(), np.random.default_rng(1)
        mu, tier = tensor(rng.uniform(0.1, 0.9, 5)), torch.tensor([0, 1, 2, 1, 0])
        advantage, before = tensor(rng.standard_normal(5)), tensor(rng.standard_normal(5))

        def loss(*leaves: "torch.Tensor") -> "torch.Tensor":
            score = tier_scores(mu, leaves[2], leaves[3], f["p"], f["c"])
            return ppo_loss(log_probability(leaves[0], leaves[1], mu, score, tier, 0.3), before, advantage, 0.2)

        assert torch.autograd.gradcheck(loss, [f[x].requires_grad_() for x in LEAVES])

    def test_mean_sampled_gradient_is_the_exact_one(self):
        f, n, rng = batch(), 150_000, np.random.default_rng(2)
        for name in LEAVES:
            f[name].requires_grad_()
        of_batch = [f[x] for x in ("a", "b", "boost", "gamma", "p", "c")]
        exact = torch.autograd.grad(
            exact_loss(expected_tiers(*of_batch, 0.3, 48), reward_of(f)), [f[x] for x in LEAVES]
        )
        a, b = (f[x].repeat(n // 5) for x in "ab")
        p, c, reward = (x.repeat(n // 5, 1) for x in (f["p"], f["c"], reward_of(f)))
        mu = tensor(rng.beta(a.detach().numpy(), b.detach().numpy()))
        score = tier_scores(mu, f["boost"], f["gamma"], p, c)
        tier = torch.distributions.Categorical(logits=score.detach() / 0.3)
        cdf = tier.probs.cumsum(dim=1)
        drawn = (cdf < tensor(rng.uniform(size=(n, 1)))).sum(dim=1).clamp(max=2)
        log_prob = log_probability(a, b, mu, score, drawn, 0.3)
        advantage = reward.gather(1, drawn[:, None])[:, 0] - reward.mean(dim=1)
        sampled = torch.autograd.grad(ppo_loss(log_prob, log_prob.detach(), advantage, 0.2), [f[x] for x in LEAVES])
        for one, other in zip(sampled, exact, strict=True):
            size = float(torch.stack([g.abs().max() for g in exact]).max())
            np.testing.assert_allclose(one.numpy(), other.numpy(), atol=0.05 * size)

    @pytest.mark.parametrize("dual", ["scalar", "per_tau"])
    def test_tau_moves_the_gradient_only_through_the_multiplier(self, dual):
        """d/dtau E[grad J | x, lambda] = 0: the scalar form's policy cannot learn tau; with lambda(tau) it can."""
        f = batch(m=1)
        options = dataclasses.replace(QUICK, dual=dual)
        multipliers = Multipliers.make(options, 0.6, 0.9)
        state = multipliers.init(1)
        state = dataclasses.replace(state, value=np.linspace(1.0, 9.0, state.value.shape[1])[None, :])
        leaves = [f["a"].requires_grad_(), f["b"].requires_grad_()]
        found = []
        for tau in (0.65, 0.85):
            f["tau"] = torch.full((5,), tau, dtype=torch.float64)
            f["lam"] = tensor(multipliers.at(state, f["tau"].numpy()))
            tiers = expected_tiers(*leaves, f["boost"], f["gamma"], f["p"], f["c"], 0.1, 16)
            found.append(torch.autograd.grad(exact_loss(tiers, reward_of(f)), leaves)[0].numpy())
        difference = np.abs(found[0] - found[1]).max()
        assert difference < 1e-15 if dual == "scalar" else difference > 1e-4


class TestDual:
    def test_scalar_is_equation_3(self):
        multipliers = Multipliers.make(dataclasses.replace(QUICK, dual="scalar"), 0.6, 0.9)
        state = multipliers.step(multipliers.init(1), np.array([[0.05]]))
        np.testing.assert_allclose(state.value, 1.0 + 0.4 * 0.05)
        assert multipliers.step(state, np.array([[-9.0]])).value == 0.0

    @pytest.mark.parametrize("dual", ["scalar", "per_tau", "pid"])
    def test_a_met_constraint_with_no_slack_is_a_fixed_point(self, dual):
        multipliers = Multipliers.make(dataclasses.replace(QUICK, dual=dual), 0.6, 0.9)
        state = multipliers.init(1)
        state = dataclasses.replace(state, value=state.value * 0 + 2.0, integral=state.value * 0 + 2.0)
        shape = state.value.shape
        np.testing.assert_allclose(multipliers.step(state, np.zeros(shape)).value, 2.0)
        np.testing.assert_allclose(multipliers.step(state, np.full(shape, np.nan)).value, 2.0)
        assert (multipliers.step(state, np.full(shape, 0.02)).value > 2.0).all()

    def test_unconstrained_has_no_multiplier(self):
        multipliers = Multipliers.make(dataclasses.replace(QUICK, dual="none"), 0.6, 0.9)
        state = multipliers.step(multipliers.init(2), np.ones((2, 1)))
        assert (state.value == 0).all()

    def test_bins_share_what_they_were_interpolated_with(self):
        multipliers = Multipliers.make(QUICK, 0.6, 0.8)
        share = multipliers.weights(np.array([0.6, 0.625, 0.7]))
        np.testing.assert_allclose(share, [[1, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0], [0, 0, 1, 0, 0]], atol=1e-12)

    @pytest.mark.slow
    @pytest.mark.parametrize("dual", ["per_tau", "pid"])
    def test_known_multiplier_and_mixture(self, dual):
        """max -c s.t. E q >= .75: half the answers from each tier, and (1 + lambda) .3 = 1."""
        options = ProteusOptions(
            **{"dual": dual, "hidden": 32, "steps": 3000, "batch": 4, "bins": 5, "settle": 0, "nodes": 16},
            **{"learning_rate": 1e-3, "dual_step": 1.0, "weight_decay": 0.0},
        )
        data = one_context()
        trained = train(data, options, low=0.65, high=0.85, seed=0)
        np.testing.assert_allclose(trained.learned[0, 2], 7.0 / 3.0, rtol=0.1)
        # The last policies swing about the best mixture; their mean is it: quality .6 + .3 share meets tau.
        np.testing.assert_allclose(trained.shortfall[0, 1:4], 0.0, atol=0.015)


def spend(data: TrainingData, trained: object, tau: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean price and quality of the deployed policy at each tau."""
    inputs, every = query_inputs(data.z, data.p, data.c), np.arange(len(data.q))[:, None]
    tier = trained.network.levels(inputs, data.p, data.c, tau)
    return data.price[every, tier].mean(axis=0), data.q[every, tier].mean(axis=0)


class TestTraining:
    @pytest.mark.slow
    def test_spend_follows_tau_with_a_table_and_not_with_the_frozen_scalar(self):
        data, tau = many_queries(), np.array([0.72, 0.77, 0.82])
        options = dataclasses.replace(QUICK, steps=150, settle=20, learning_rate=1e-2)
        price, quality = spend(data, train(data, options, low=0.7, high=0.95, seed=0), tau)
        assert (np.diff(price) > 0).all()
        assert quality[-1] - quality[0] > 0.03
        frozen, _ = spend(
            data, train(data, dataclasses.replace(options, dual="scalar"), low=0.7, high=0.95, seed=0), tau
        )
        assert np.ptp(frozen) < 0.2 * np.ptp(price)

    def test_a_target_that_nothing_reaches_ends_at_the_cap(self):
        data = many_queries()
        trained = train(data, dataclasses.replace(QUICK, steps=150, settle=20), low=0.7, high=1.0, seed=0)
        assert trained.network.arrays["multipliers"][0, -1] > 0.5 * QUICK.most_multiplier
        assert trained.network.arrays["multipliers"][0, 0] < 100.0

    @pytest.mark.slow
    def test_a_second_constraint_is_held_too(self):
        data = many_queries()
        share = np.tile([0.4, -0.6, 0.4], (len(data.q), 1))  # the middle tier on at most 40 % of the queries
        bound = dataclasses.replace(data, constraints=(AdditiveConstraint(name="middle", slack=share),))
        options = dataclasses.replace(QUICK, steps=200, settle=30, learning_rate=3e-3)
        every, tau = np.arange(len(data.q))[:, None], np.array([0.85])
        used = []
        for one in (data, bound):
            trained = train(one, options, low=0.8, high=0.9, seed=0)
            tier = trained.network.levels(query_inputs(data.z, data.p, data.c), data.p, data.c, tau)
            used.append((tier == 1).mean())
            assert data.q[every, tier].mean() > 0.82
        assert used[0] > 0.5 and used[1] < 0.45

    @pytest.mark.parametrize("gradient", ["exact", "sampled"])
    @pytest.mark.parametrize("critic", [True, False])
    @pytest.mark.slow
    def test_same_seed_same_weights_also_after_a_kill(self, tmp_path, gradient, critic):
        data, path = many_queries(), tmp_path / "c" / "state.npz"
        options = dataclasses.replace(QUICK, gradient=gradient, critic=critic)
        whole = train(data, options, low=0.7, high=0.9, seed=3)

        class Killed(Exception):
            pass

        def kill(step: int, steps: int) -> None:
            assert steps == options.steps
            if step == 17:
                raise Killed

        with pytest.raises(Killed):
            train(data, options, low=0.7, high=0.9, seed=3, checkpoint=path, checkpoint_every=7, on_progress=kill)
        steps = []
        again = train(
            *(data, options), low=0.7, high=0.9, seed=3, checkpoint=path, on_progress=lambda step, _: steps.append(step)
        )
        assert steps[0] == 15 and [p.name for p in path.parent.iterdir()] == ["state.npz"]
        for one, other in ((whole.weights, again.weights), (whole.network.arrays, again.network.arrays)):
            assert one.keys() == other.keys()
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])
        assert any(
            (train(data, options, low=0.7, high=0.9, seed=4).weights[x] != whole.weights[x]).any() for x in ["w1"]
        )

    def test_a_foreign_or_damaged_checkpoint_is_refused(self, tmp_path):
        data, path = many_queries(), tmp_path / "state.npz"
        train(data, QUICK, low=0.7, high=0.9, seed=0, checkpoint=path)
        for change in ({"options": dataclasses.replace(QUICK, steps=31)}, {"data": many_queries(seed=1)}, {"seed": 1}):
            call = {"data": data, "options": QUICK, "seed": 0} | change
            with pytest.raises(InputDataError, match=r"other options or other data; delete it"):
                train(**call, low=0.7, high=0.9, checkpoint=path)
        path.write_bytes(b"PK\x03\x04 not a checkpoint")
        with pytest.raises(InputDataError, match="no checkpoint of this version"):
            train(data, QUICK, low=0.7, high=0.9, seed=0, checkpoint=path)

    def test_training_leaves_global_random_state_alone(self):
        state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        train(many_queries(), QUICK, low=0.7, high=0.9, seed=0)
        assert torch.equal(state, torch.get_rng_state())
        np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002

    @pytest.mark.parametrize("gradient", ["exact", "sampled"])
    def test_the_run_time_has_the_same_formula(self, gradient):
        data = many_queries()
        options = dataclasses.replace(QUICK, gradient=gradient, learning_rate=0.05)
        trained = train(data, options, low=0.7, high=0.9, seed=0)
        network, tau = trained.network, np.array([0.7, 0.77, 0.9])
        a = network.arrays
        w = {name: tensor(value) for name, value in trained.weights.items()}
        inputs = query_inputs(data.z, data.p, data.c)
        x = tensor((inputs - a["input_mean"]) / a["input_scale"])
        strength = network.strength(inputs, tau)
        assert np.ptp(strength) > 0.01
        for t in range(3):
            at = np.repeat(target_inputs(tau[[t]], network.multipliers(tau[[t]]), a["bins"]), len(inputs), axis=0)
            alpha, beta = policy_head(w, x, tensor(at))
            np.testing.assert_allclose((alpha / (alpha + beta)).numpy(), strength[:, t], rtol=1e-10)
            if gradient == "sampled":
                assert critic_value(w, x, tensor(at)).shape == (len(inputs),)

    def test_beta_parameters_have_one_peak_and_a_bound(self):
        alpha, beta = beta_parameters(np.array([[-1e6, 1e6], [0.0, 0.0]]))
        np.testing.assert_allclose([alpha[0], beta[0]], [1.0, 51.0])
        np.testing.assert_allclose([alpha[1], beta[1]], 1.0 + np.log(2.0))

    def test_bad_options_are_refused(self):
        for bad in ({"dual": "table"}, {"gradient": "both"}, {"steps": 0}, {"bins": 1}, {"temperature_end": 0.0}):
            with pytest.raises(ConfigError):
                ProteusOptions(**bad)

    def test_price_scale_sends_almost_all_queries_to_the_cheapest_tier(self):
        rng = np.random.default_rng(0)
        p, cost = rng.uniform(0.5, 1.0, (400, 4)), 1e-5 * 8.0 ** np.arange(4) * rng.lognormal(0.0, 0.3, (400, 4))
        tier = np.argmax(p - price_scale(p, cost) * cost, axis=1)
        assert 0.98 <= (tier == 0).mean() < 1.0
