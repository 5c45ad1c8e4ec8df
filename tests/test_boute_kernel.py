"""`boute`'s kernel: known answers, positive semi-definite, gradients of its fit, BoTorch's version of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from scipy.spatial.distance import cdist

from toolkit.search.boute_fit import Fits
from toolkit.search.boute_kernel import Hyper, Layout, MapObjective, hyper_of, kernel_matrix, prior_variance, theta_of
from toolkit.search.boute_process import fit_structured

FLAGS = [{}, {"joint": False}, {"preference": False}, {"interaction": False}]
R, D = 2, 5


def layout_of(**flags):
    return Layout(n_routing=R, n_deployment=D, **flags)


def inputs(n, seed=0, extra=2):
    return np.random.default_rng(seed).random((n, R + D + 1 + extra))


def hyper(**changes):
    rng = np.random.default_rng(3)
    given = {"l_tau": rng.uniform(0.2, 2, R), "l_c": rng.uniform(0.2, 2, D), "a_tau": 0.7, "a_c": 0.4, "noise": 1e-3}
    return Hyper(**{**given, **changes})


def matern(A, B, nu):
    r = cdist(A, B)
    if nu == 1.5:
        return (1 + np.sqrt(3) * r) * np.exp(-np.sqrt(3) * r)
    return (1 + np.sqrt(5) * r + 5 * r**2 / 3) * np.exp(-np.sqrt(5) * r)


def targets(X):
    return np.sin(3 * X[:, 0]) + X[:, 1] * X[:, 3] + X[:, 2] ** 2


class TestKernel:
    def test_without_weight_and_product_it_is_a_sum_of_materns(self):
        A, B, h = inputs(6), inputs(4, seed=1), hyper(beta=0.0, phi=0.0)
        expected = 0.7 * matern(A[:, :R] / h.l_tau, B[:, :R] / h.l_tau, 2.5)
        expected += 0.4 * matern(A[:, R : R + D] / h.l_c, B[:, R : R + D] / h.l_c, 1.5)
        np.testing.assert_allclose(kernel_matrix(layout_of(), h, A, B), expected, atol=1e-7)

    def test_weights_and_product(self):
        A, h = inputs(6), hyper(beta=0.8, phi=0.3)
        T = matern(A[:, :R] / h.l_tau, A[:, :R] / h.l_tau, 2.5)
        C = matern(A[:, R : R + D] / h.l_c, A[:, R : R + D] / h.l_c, 1.5)
        w = np.exp(0.8 * A[:, R + D])
        np.testing.assert_allclose(
            kernel_matrix(layout_of(), h, A, A), 0.7 * T + 0.4 * np.outer(w, w) * C + 0.3 * T * C, atol=1e-7
        )
        np.testing.assert_allclose(prior_variance(layout_of(), h, A), 0.7 + 0.4 * w**2 + 0.3, atol=1e-12)

    def test_routing_alone_and_columns_that_are_no_features_change_nothing(self):
        A, B = inputs(5), inputs(5)
        B[:, R:] = 0.5
        alone = hyper(l_c=np.empty(0), a_c=0.0)
        np.testing.assert_array_equal(
            kernel_matrix(layout_of(joint=False), alone, A, A), kernel_matrix(layout_of(joint=False), alone, B, B)
        )
        B = inputs(5)
        B[:, R + D + 1 :] = 7.0
        np.testing.assert_array_equal(
            kernel_matrix(layout_of(), hyper(beta=1.0, phi=0.1), A, A),
            kernel_matrix(layout_of(), hyper(beta=1.0, phi=0.1), B, B),
        )

    @given(seed=st.integers(0, 10**6), n=st.integers(1, 25), flags=st.sampled_from(FLAGS))
    @settings(max_examples=60, deadline=None)
    def test_positive_semi_definite_everywhere_in_the_prior(self, seed, n, flags):
        rng = np.random.default_rng(seed)
        X = inputs(n, seed=seed)
        X[rng.random(n) < 0.3] = X[0]  # repeats
        drawn = hyper_of(layout_of(**flags), MapObjective(layout_of(**flags), X, rng.normal(size=n)).draw(rng))
        K = kernel_matrix(layout_of(**flags), drawn, X, X)
        np.testing.assert_allclose(K, K.T, atol=1e-6 * np.abs(K).max())
        assert np.linalg.eigvalsh((K + K.T) / 2).min() > -1e-6 * np.abs(K).max()
        np.testing.assert_allclose(K.diagonal(), prior_variance(layout_of(**flags), drawn, X), rtol=1e-6)

    @pytest.mark.parametrize("flags", FLAGS)
    def test_theta_and_hyper_parameters_are_one_to_one(self, flags):
        layout = layout_of(**flags)
        theta = MapObjective(layout, inputs(4), np.arange(4.0)).draw(np.random.default_rng(0))
        np.testing.assert_allclose(theta_of(layout, hyper_of(layout, theta)), theta, atol=1e-12)


class TestFit:
    @pytest.mark.parametrize("flags", FLAGS)
    def test_the_gradient_of_the_objective(self, flags):
        X = inputs(25)
        target = MapObjective(layout_of(**flags), X, np.random.default_rng(1).normal(size=25))
        for theta in (target.default(), target.default() + 0.3):
            expected = approx_fprime(theta, target.value, 1e-6)
            np.testing.assert_allclose(target(theta)[1], expected, atol=2e-5)

    def test_the_marginal_likelihood_is_the_one_of_the_definition(self):
        from scipy.stats import lognorm, multivariate_normal, norm

        X = inputs(12)
        z = np.random.default_rng(1).normal(size=12)
        target = MapObjective(layout_of(), X, z)
        h = hyper_of(layout_of(), theta := target.default() + 0.1)
        K = kernel_matrix(layout_of(), h, X, X) + h.noise * np.eye(12)
        expected = multivariate_normal.logpdf(z, np.full(12, target.constant(theta)), K)
        for lengthscales in (h.l_tau, h.l_c):
            loc = np.sqrt(2) + 0.5 * np.log(len(lengthscales))
            expected += lognorm.logpdf(lengthscales, np.sqrt(3), scale=np.exp(loc)).sum()
        expected += lognorm.logpdf([h.a_tau, h.a_c], 1, scale=0.5).sum() + lognorm.logpdf(h.phi, 1, scale=0.05)
        expected += norm.logpdf(h.beta) + lognorm.logpdf(h.noise, 1, scale=np.exp(-4))
        np.testing.assert_allclose(-target.value(theta) * 12, expected, rtol=1e-6)

    def test_more_starts_are_no_worse_and_the_fit_predicts(self):
        X = inputs(60)
        few = fit_structured(layout_of(), X, targets(X), most_steps=5)
        more = fit_structured(layout_of(), X, targets(X), starts=[few.theta], draws=2, rng=np.random.default_rng(0))
        assert more.objective >= few.objective
        at = inputs(200, seed=5)
        mean, sd = more.predict(at)
        assert np.sqrt(np.mean((mean - targets(at)) ** 2)) < 0.3 * targets(at).std()
        assert (sd > 0).all()

    def test_it_interpolates_and_conditioning_equals_a_posterior_of_all_data(self):
        X = inputs(30)
        process = fit_structured(layout_of(), X, targets(X))
        np.testing.assert_allclose(process.predict(X)[0], targets(X), atol=0.1)
        new = inputs(3, seed=8)
        after = process.condition_on(new, process.predict(new)[0])
        np.testing.assert_allclose(after.predict(new)[0], process.predict(new)[0], atol=1e-6)
        assert (after.predict(new)[1] < process.predict(new)[1]).all()

    def test_constant_targets_and_two_points(self):
        for n, y in ((2, np.array([1.0, 2.0])), (8, np.full(8, 3.0))):
            mean, sd = fit_structured(layout_of(), inputs(n), y).predict(inputs(4, seed=2))
            assert np.isfinite(mean).all() and np.isfinite(sd).all()

    def test_a_fit_without_a_start_or_with_holes_is_refused(self):
        with pytest.raises(ValueError, match="at least one start"):
            fit_structured(layout_of(), inputs(4), np.arange(4.0), default=False)
        with pytest.raises(ValueError, match="finite"):
            fit_structured(layout_of(), inputs(4), np.array([0.0, np.nan, 1.0, 2.0]))

    @pytest.mark.parametrize("n", [4, 10, 13])
    def test_a_fit_depends_on_the_data_and_the_seed_not_on_earlier_fits(self, n):
        X = inputs(13)

        def end(sizes):
            fit = Fits([layout_of()], root=7, by_botorch=False).all()[0]
            return [fit(X[:k], targets(X[:k])) for k in sizes][-1].theta

        np.testing.assert_array_equal(end([n]), end(range(2, n + 1)))


class TestBotorch:
    @pytest.fixture(autouse=True)
    def _needs_botorch(self):
        pytest.importorskip("botorch")

    @pytest.mark.parametrize("flags", FLAGS)
    def test_the_kernels_agree(self, flags):
        import torch

        from toolkit.search.boute_botorch import torch_kernel

        layout, A, B = layout_of(**flags), inputs(12), inputs(7, seed=1)
        drawn = hyper_of(layout, MapObjective(layout, A, np.arange(12.0)).draw(np.random.default_rng(2)))
        kernel = torch_kernel(layout)
        kernel.load(drawn)
        with torch.no_grad():
            found = kernel.module(torch.from_numpy(A), torch.from_numpy(B)).to_dense().numpy()
            diagonal = kernel.module(torch.from_numpy(A), diag=True).numpy()
        np.testing.assert_allclose(found, kernel_matrix(layout, drawn, A, B), atol=1e-6)
        np.testing.assert_allclose(diagonal, prior_variance(layout, drawn, A), atol=1e-6)
        np.testing.assert_allclose(theta_of(layout, kernel.read(drawn.noise)), theta_of(layout, drawn), atol=1e-6)

    @pytest.mark.slow
    @pytest.mark.parametrize("flags", FLAGS)
    def test_the_fits_agree(self, flags):
        from toolkit.search.boute_botorch import fit_by_botorch

        X = inputs(30)
        ours = fit_structured(layout_of(**flags), X, targets(X), most_steps=200)
        theirs = fit_by_botorch(layout_of(**flags), X, targets(X))
        assert ours.objective == pytest.approx(theirs.objective, abs=0.03)

    @pytest.mark.slow
    def test_its_model_believes_what_our_process_does(self):
        import torch

        from toolkit.search.boute_botorch import structured_task

        X, at = inputs(20), inputs(9, seed=4)
        process = fit_structured(layout_of(), X, 5.0 + 3.0 * targets(X))
        model = structured_task(process, torch.from_numpy(process.y[:, None]), lambda X: torch.zeros(X.shape[:-1]))
        with torch.no_grad():
            found = model.posterior(torch.from_numpy(at))
        mean, sd = process.predict(at)
        np.testing.assert_allclose(found.mean.squeeze(-1).numpy(), mean, atol=2e-4)
        np.testing.assert_allclose(found.variance.squeeze(-1).sqrt().numpy(), sd, atol=2e-3)
