"""Gaussian process: the same model as BoTorch's, its gradients, and data that a fit must survive."""

import warnings

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.spatial.distance import cdist

from toolkit.search.gaussian_process import GaussianProcess, _MapObjective, fit_gp

SHAPES = [(1, 10, 0.0), (3, 25, 0.0), (3, 40, 0.3), (6, 60, 0.05), (6, 15, 0.0)]


def make_data(d, n, noise, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.random((n, d))
    slopes = rng.normal(size=d)
    return X, 5.0 + 20.0 * (np.sin(3.0 * X @ slopes) + X[:, 0] ** 2 + noise * rng.normal(size=n))


def fit(X, y, seed=0, **options):
    return fit_gp(X, y, rng=np.random.default_rng(seed), **options)


def posterior(gp, Xs):
    """Mean and standard deviation from the definition, with a dense solve."""

    def k(A, B):
        return np.exp(-0.5 * cdist(A / gp.lengthscales, B / gp.lengthscales, "sqeuclidean"))

    K = k(gp.X, gp.X) + gp.noise * np.eye(len(gp.X))
    z = (gp.y - gp.y_mean) / gp.y_scale
    mean = gp.constant + k(Xs, gp.X) @ np.linalg.solve(K, z - gp.constant)
    variance = 1.0 - np.einsum("rn,nr->r", k(Xs, gp.X), np.linalg.solve(K, k(gp.X, Xs)))
    return gp.y_mean + gp.y_scale * mean, gp.y_scale * np.sqrt(variance)


@pytest.mark.slow
class TestAgainstBoTorch:
    """BoTorch's `SingleTaskGP` is the reference; only this class needs it."""

    @pytest.fixture(scope="class", autouse=True)
    def quiet(self):
        """Warnings of the reference, and of the libraries it imports, are not ours."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pytest.importorskip("botorch")

    @staticmethod
    def reference(X, y, noise=None):
        import torch
        from botorch.models import SingleTaskGP
        from gpytorch.mlls import ExactMarginalLogLikelihood

        Y = torch.tensor(y)[:, None]
        variance = None if noise is None else torch.full_like(Y, noise) * Y.var()
        model = SingleTaskGP(torch.tensor(X), Y, variance)
        return model, ExactMarginalLogLikelihood(model.likelihood, model)

    @staticmethod
    def value(model, mll):
        model.train()
        return float(mll(model(*model.train_inputs), model.train_targets))

    def load(self, gp, noise=None):
        """BoTorch's model at our hyper-parameters."""
        import torch

        model, mll = self.reference(gp.X, gp.y, noise)
        model.covar_module.lengthscale = torch.tensor(gp.lengthscales)
        model.mean_module.constant = torch.tensor(gp.constant)
        if noise is None:
            model.likelihood.noise = gp.noise
        return model, mll

    @staticmethod
    def predict(model, Xs):
        import torch

        with torch.no_grad():
            found = model.eval().posterior(torch.tensor(Xs))
        return found.mean.numpy()[:, 0], found.variance.sqrt().numpy()[:, 0]

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("noise", [None, 1e-3])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_same_objective_and_posterior_at_our_optimum(self, shape, noise):
        gp = fit(*make_data(*shape), noise=noise)
        model, mll = self.load(gp, noise)
        assert self.value(model, mll) == pytest.approx(gp.objective, abs=1e-6)
        Xs = np.random.default_rng(1).random((50, gp.X.shape[1]))
        for ours, theirs in zip(gp.predict(Xs), self.predict(model, Xs), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6 * gp.y_scale)

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("shape", SHAPES)
    def test_optimum_is_at_least_as_good(self, shape):
        """On these data: the objective has several optima, and on others either side may find the better one."""
        from botorch.fit import fit_gpytorch_mll

        gp = fit(*make_data(*shape))
        model, mll = self.reference(gp.X, gp.y)
        fit_gpytorch_mll(mll)
        theirs = self.value(model, mll)
        assert gp.objective >= theirs - 1e-3
        if abs(gp.objective - theirs) < 1e-5:
            Xs = np.random.default_rng(1).random((50, gp.X.shape[1]))
            for mine, reference in zip(gp.predict(Xs), self.predict(model, Xs), strict=True):
                np.testing.assert_allclose(mine, reference, atol=2e-3 * gp.y_scale)


class TestObjective:
    @pytest.mark.parametrize("noise", [None, 1e-3])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_gradient_against_finite_differences(self, shape, noise):
        X, y = make_data(*shape)
        target = _MapObjective(X, (y - y.mean()) / y.std(ddof=1), noise)
        for theta in target.starts(np.random.default_rng(3), 3):
            inside = np.clip(theta, target.bounds[:, 0] + 0.1, 3.0)
            value, gradient = target(inside)
            assert value == target.value(inside)
            steps = approx_fprime(inside, target.value, 1e-6)
            np.testing.assert_allclose(gradient, steps, atol=2e-5 * max(1.0, np.abs(steps).max()))

    def test_optimum_is_stationary_inside_the_bounds(self):
        X, y = make_data(3, 40, 0.3)
        gp = fit(X, y)
        target = _MapObjective(X, (y - gp.y_mean) / gp.y_scale, None)
        theta = np.log(np.append(gp.lengthscales, gp.noise))
        assert np.abs(target(theta)[1]).max() < 1e-4
        for step in np.vstack([np.eye(4), -np.eye(4)]) * 0.05:
            assert target.value(theta + step) > -gp.objective

    def test_more_starts_are_never_worse(self):
        X, y = make_data(6, 20, 0.0)
        values = [fit(X, y, n_starts=count).objective for count in (1, 2, 5)]
        assert values == sorted(values)

    def test_same_seed_same_fit(self):
        X, y = make_data(3, 20, 0.1)
        first, second = fit(X, y, seed=4), fit(X, y, seed=4)
        assert (first.lengthscales == second.lengthscales).all() and first.noise == second.noise

    def test_units_of_the_target_do_not_matter(self):
        X, y = make_data(3, 20, 0.1)
        Xs = make_data(3, 7, 0.0, seed=1)[0]
        mean, sd = fit(X, y).predict(Xs)
        for scale in (1e-200, 1e-9, 1e200):
            mean_scaled, sd_scaled = fit(X, scale * y).predict(Xs)
            np.testing.assert_allclose(mean_scaled / scale, mean, rtol=1e-5)
            np.testing.assert_allclose(sd_scaled / scale, sd, rtol=1e-4)


class TestPrediction:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_follows_the_definition(self, shape):
        gp = fit(*make_data(*shape))
        Xs = make_data(*shape, seed=1)[0]
        for found, expected in zip(gp.predict(Xs), posterior(gp, Xs), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * gp.y_scale)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_gradient_against_finite_differences(self, shape):
        gp = fit(*make_data(*shape))
        Xs = make_data(shape[0], 6, 0.0, seed=1)[0]
        mean, sd, dmean, dsd = gp.predict_with_gradient(Xs)
        for plain, with_gradient in zip(gp.predict(Xs), (mean, sd), strict=True):
            np.testing.assert_array_equal(plain, with_gradient)
        for i in range(len(Xs)):
            for which, slope in enumerate((dmean, dsd)):
                steps = approx_fprime(Xs[i], lambda x, which=which: gp.predict(x[None])[which][0], 1e-6)
                np.testing.assert_allclose(slope[i], steps, rtol=1e-3, atol=1e-3)

    def test_interpolates_without_noise(self):
        X, y = make_data(3, 25, 0.0)
        gp = fit(X, y, noise=1e-8)
        mean, sd = gp.predict(X)
        np.testing.assert_allclose(mean, y, atol=1e-3 * gp.y_scale)
        assert (sd > 0).all() and sd.max() < 1e-3 * gp.y_scale

    def test_slope_is_zero_where_the_deviation_is_at_its_floor(self):
        X, y = make_data(2, 12, 0.0)
        gp = fit(X, y, noise=0.0)
        _, sd, _, dsd = gp.predict_with_gradient(X)
        floored = sd <= 1.001e-6 * gp.y_scale
        assert floored.any() and (sd > 0).all()
        assert (dsd[floored] == 0).all() and np.isfinite(dsd).all()

    def test_condition_on_is_a_fresh_posterior(self):
        X, y = make_data(3, 25, 0.1)
        gp = fit(X[:20], y[:20])
        more = gp.condition_on(X[20:], y[20:])
        assert (more.y_mean, more.y_scale, more.noise) == (gp.y_mean, gp.y_scale, gp.noise)
        Xs = make_data(3, 9, 0.0, seed=2)[0]
        for found, expected in zip(more.predict(Xs), posterior(more, Xs), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-8)
        assert (more.predict(Xs)[1] <= gp.predict(Xs)[1] + 1e-12).all()

    def test_conditioning_on_nothing_changes_nothing(self):
        gp = fit(*make_data(2, 8, 0.0))
        same = gp.condition_on(np.empty((0, 2)), np.empty(0))
        Xs = make_data(2, 3, 0.0, seed=2)[0]
        np.testing.assert_array_equal(gp.predict(Xs), same.predict(Xs))


class TestHardData:
    @pytest.mark.parametrize("n", [1, 2, 3])
    def test_few_points(self, n):
        X, y = make_data(4, n, 0.0)
        mean, sd = fit(X, y).predict(make_data(4, 5, 0.0, seed=1)[0])
        assert np.isfinite(mean).all() and (sd > 0).all()

    @pytest.mark.parametrize("value", [0.0, 0.1, -7e8, 1e-12])
    def test_constant_target(self, value):
        X = make_data(3, 15, 0.0)[0]
        gp = fit(X, np.full(15, value))
        assert gp.y_scale == 1.0
        np.testing.assert_allclose(gp.predict(X)[0], value, rtol=1e-12, atol=1e-30)

    @pytest.mark.parametrize("noise", [None, 0.0, 1e-6])
    def test_duplicate_rows(self, noise):
        X, y = make_data(3, 10, 0.0)
        gp = fit(np.vstack([X, X, X[:1]]), np.concatenate([y, y + 0.01, y[:1]]), noise=noise)
        mean, sd = gp.predict(X)
        np.testing.assert_allclose(mean, y + 0.005, atol=0.2)
        assert (sd > 0).all() and np.isfinite(gp.objective)

    def test_all_rows_the_same(self):
        gp = fit(np.full((6, 2), 0.5), np.arange(6.0))
        assert gp.predict(np.array([[0.5, 0.5]]))[0] == pytest.approx([2.5])

    def test_one_outlier(self):
        X, y = make_data(3, 20, 0.0)
        y[3] = 1e12
        mean, sd = fit(X, y).predict(X)
        assert np.isfinite(mean).all() and np.isfinite(sd).all()

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_values_that_are_not_finite_are_refused(self, bad):
        X, y = make_data(2, 5, 0.0)
        gp = fit(X, y)
        for rows, targets in ((X, np.where(y == y[2], bad, y)), (np.where(X[2, 1] == X, bad, X), y)):
            with pytest.raises(ValueError, match="finite"):
                fit(rows, targets)
            with pytest.raises(ValueError, match="finite"):
                gp.condition_on(rows, targets)

    @pytest.mark.parametrize(
        ("X", "y"), [(np.ones((3, 2)), np.ones(2)), (np.ones(3), np.ones(3)), (np.ones((3, 0)), np.ones(3))]
    )
    def test_shapes_that_do_not_fit_are_refused(self, X, y):
        with pytest.raises(ValueError, match="expected X"):
            fit(X, y)

    def test_options_out_of_range_are_refused(self):
        X, y = make_data(2, 5, 0.0)
        for options in ({"n_starts": 0}, {"noise": -1.0}, {"noise": np.nan}):
            with pytest.raises(ValueError, match="n_starts"):
                fit(X, y, **options)
        with pytest.raises(ValueError, match="n >= 1"):
            fit(X[:0], y[:0])
        with pytest.raises(ValueError, match="expected X"):
            fit(X, y).condition_on(X[:, :1], y)


def test_a_posterior_can_be_built_at_any_hyper_parameters():
    X, y = make_data(2, 5, 0.0)
    gp = GaussianProcess(
        X=X, y=y, y_mean=0.0, y_scale=1.0, lengthscales=np.full(2, 1e-3), noise=1e-6, constant=2.0, objective=0.0
    )
    assert gp.predict(np.array([[5.0, 5.0]])) == (pytest.approx([2.0]), pytest.approx([1.0]))
