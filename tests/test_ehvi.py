"""EHVI in closed form: boxes, known answers, Monte Carlo, BoTorch, gradients, and values far in the tails."""

import warnings
from itertools import pairwise

import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_ndtr, logsumexp, ndtr

from toolkit.search.ehvi import Boxes, log_ehvi, log_ehvi_with_gradient, non_dominated_boxes

NO_SLACK = 0


def sphere_front(count, m, seed=0):
    """`count x m` points of the positive unit sphere: none dominates another."""
    points = np.abs(np.random.default_rng(seed).normal(size=(count, m)))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def hypervolume(points, reference):
    above = points[(points > reference).all(axis=1)]
    if len(reference) == 1 or len(above) == 0:
        return float((above - reference).max(initial=0.0))
    return moocore.hypervolume(above, ref=reference, maximise=True)


def make_case(m, c=0, *, r=5, seed=0, floors=False, count=8):
    """Arguments of `log_ehvi` at r random points, and the front."""
    rng = np.random.default_rng(seed)
    front = sphere_front(count, m, seed)
    floor = np.where(floors, rng.uniform(0.0, 0.8, m), -np.inf)
    boxes = non_dominated_boxes(front, np.zeros(m))
    mean, sd = rng.uniform(0.2, 1.0, (r, m)), rng.uniform(0.05, 0.4, (r, m))
    return front, (mean, sd, boxes, floor, rng.uniform(-0.5, 1.0, (r, c)), rng.uniform(0.3, 2.0, (r, c)))


class TestBoxes:
    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_they_tile_what_the_front_does_not_dominate(self, data):
        m = data.draw(st.integers(1, 4), label="m")
        row = st.lists(st.integers(-1, 5), min_size=m, max_size=m)
        front = np.array(data.draw(st.lists(row, max_size=9), label="front"), dtype=float).reshape(-1, m)
        boxes = non_dominated_boxes(front, np.zeros(m))
        upper = np.minimum(boxes.upper, 6.0)
        assert (boxes.lower < boxes.upper).all() and (boxes.lower >= 0).all()
        free = np.prod(upper - boxes.lower, axis=1).sum()
        assert free + hypervolume(front, np.zeros(m)) == pytest.approx(6.0**m)
        meet = np.maximum(boxes.lower[:, None], boxes.lower) < np.minimum(boxes.upper[:, None], boxes.upper)
        assert (meet.all(axis=2) == np.eye(len(boxes), dtype=bool)).all()

    @pytest.mark.parametrize(("m", "count"), [(1, 1), (2, 61), (3, 121)])
    def test_their_number_grows_linearly(self, m, count):
        assert len(non_dominated_boxes(sphere_front(60, m), np.zeros(m))) <= count

    @pytest.mark.parametrize("m", [1, 2, 3, 4])
    def test_an_empty_front_leaves_one(self, m):
        reference = np.arange(m) - 2.0
        for front in (np.empty((0, m)), reference[None] - 1.0, reference[None]):
            boxes = non_dominated_boxes(front, reference)
            np.testing.assert_array_equal(boxes.lower, reference[None])
            np.testing.assert_array_equal(boxes.upper, np.full((1, m), np.inf))

    def test_bad_input_is_refused(self):
        with pytest.raises(ValueError, match="F x m"):
            non_dominated_boxes(np.zeros((2, 3)), np.zeros(2))
        for bad in (np.nan, np.inf):
            with pytest.raises(ValueError, match="finite"):
                non_dominated_boxes(np.array([[bad, 1.0]]), np.zeros(2))


class TestKnownAnswers:
    @pytest.mark.parametrize("m", [1, 2, 3, 4])
    def test_without_uncertainty_it_is_the_hypervolume_gained(self, m):
        front, (mean, _, boxes, floor, *slack) = make_case(m, r=20)
        mean += 0.2
        found = np.exp(log_ehvi(mean, np.full(mean.shape, 1e-9), boxes, floor, *slack))
        before = hypervolume(front, np.zeros(m))
        gained = [hypervolume(np.vstack([front, point]), np.zeros(m)) - before for point in mean]
        assert max(gained) > 0.1
        np.testing.assert_allclose(found, gained, atol=1e-8)

    def test_one_objective_is_expected_improvement(self):
        mean, sd = np.array([[0.3], [1.0], [2.0]]), np.array([[0.5], [0.2], [3.0]])
        boxes = non_dominated_boxes(np.array([[1.0], [0.4]]), np.zeros(1))
        z = (mean - 1.0) / sd
        expected = sd * (np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi) + z * ndtr(z))
        found = log_ehvi(mean, sd, boxes, np.array([-np.inf]), *np.zeros((2, 3, NO_SLACK)))
        np.testing.assert_allclose(np.exp(found), expected[:, 0], rtol=1e-12)

    def test_an_empty_front_is_a_product_of_expected_improvements(self):
        _, (mean, sd, _, floor, *slack) = make_case(3)
        one = [
            log_ehvi(mean[:, [i]], sd[:, [i]], non_dominated_boxes(np.empty((0, 1)), np.zeros(1)), floor[[i]], *slack)
            for i in range(3)
        ]
        whole = log_ehvi(mean, sd, non_dominated_boxes(np.empty((0, 3)), np.zeros(3)), floor, *slack)
        np.testing.assert_allclose(whole, np.sum(one, axis=0), rtol=1e-12)

    def test_constraints_add_their_log_probabilities(self):
        _, (mean, sd, boxes, floor, slack_mean, slack_sd) = make_case(2, 3)
        free = log_ehvi(mean, sd, boxes, floor, slack_mean[:, :0], slack_sd[:, :0])
        whole = log_ehvi(mean, sd, boxes, floor, slack_mean, slack_sd)
        np.testing.assert_allclose(whole - free, log_ndtr(slack_mean / slack_sd).sum(axis=1), rtol=1e-10)

    def test_a_floor_below_the_reference_asks_for_nothing(self):
        _, (mean, sd, boxes, floor, *slack) = make_case(3)
        np.testing.assert_array_equal(
            log_ehvi(mean, sd, boxes, floor, *slack), log_ehvi(mean, sd, boxes, np.zeros(3), *slack)
        )

    def test_shapes_that_do_not_fit_are_refused(self):
        _, arguments = make_case(2, 1)
        for position in (1, 3):
            wrong = [part[..., :1] if k == position else part for k, part in enumerate(arguments)]
            with pytest.raises(ValueError, match="objectives"):
                log_ehvi(*wrong)
        with pytest.raises(ValueError, match="slacks"):
            log_ehvi_with_gradient(*arguments[:-1], arguments[-1][:, :0])


class TestAgainstSampling:
    @pytest.mark.parametrize("c", [0, 2])
    @pytest.mark.parametrize("floors", [False, True])
    @pytest.mark.parametrize("m", [1, 2, 3])
    @pytest.mark.slow
    def test_floors_and_constraints(self, m, floors, c):
        _, arguments = make_case(m, c, r=3, floors=floors, count=5)
        mean, sd, boxes, floor, slack_mean, slack_sd = arguments
        rng, n = np.random.default_rng(1), 200_000
        for i, found in enumerate(np.exp(log_ehvi(*arguments))):
            Y = rng.normal(mean[i], sd[i], (n, m))
            feasible = (floor <= Y).all(axis=1) & (rng.normal(slack_mean[i], slack_sd[i], (n, c)) >= 0).all(axis=1)
            lengths = np.maximum(np.minimum(Y[:, None], boxes.upper) - boxes.lower, 0.0)
            gained = lengths.prod(axis=2).sum(axis=1) * feasible
            assert found == pytest.approx(gained.mean(), abs=4.5 * gained.std() / np.sqrt(n))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("m", [2, 3])
def test_equals_the_closed_form_of_botorch(m):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch")
        pytest.importorskip("botorch")
        from botorch.acquisition.multi_objective.analytic import ExpectedHypervolumeImprovement
        from botorch.utils.multi_objective.box_decompositions import FastNondominatedPartitioning
        from botorch.utils.testing import MockModel, MockPosterior

    front, arguments = make_case(m, r=10, count=20)
    reference = torch.zeros(m, dtype=torch.float64)
    partitioning = FastNondominatedPartitioning(reference, torch.tensor(front))
    mean, sd = (torch.tensor(part)[:, None] for part in arguments[:2])
    model = MockModel(MockPosterior(mean=mean, variance=sd**2))
    theirs = ExpectedHypervolumeImprovement(model, reference, partitioning)(torch.zeros(10, 1, 2)).numpy()
    np.testing.assert_allclose(np.exp(log_ehvi(*arguments)), theirs, rtol=1e-8)


class TestGradient:
    @staticmethod
    def check(arguments, rtol, relative_step=1e-6):
        value, *gradients = log_ehvi_with_gradient(*arguments)
        np.testing.assert_allclose(value, log_ehvi(*arguments), rtol=1e-13)
        for position, gradient in zip((0, 1, 4, 5), gradients, strict=True):
            for k in range(gradient.shape[1]):
                width = np.zeros(gradient.shape)
                width[:, k] = relative_step * np.maximum(1e-4, np.abs(arguments[position][:, k]))
                up, down = (
                    log_ehvi(*arguments[:position], arguments[position] + sign * width, *arguments[position + 1 :])
                    for sign in (1, -1)
                )
                steps = (up - down) / (2 * width[:, k])
                np.testing.assert_allclose(gradient[:, k], steps, rtol=rtol, atol=rtol * np.abs(steps).max())

    @pytest.mark.parametrize("floors", [False, True])
    @pytest.mark.parametrize("m", [1, 2, 3, 4])
    def test_ordinary_points(self, m, floors):
        self.check(make_case(m, 2, floors=floors)[1], rtol=1e-6)

    @pytest.mark.parametrize("floors", [False, True])
    def test_far_in_the_tail(self, floors):
        _, (mean, sd, *rest) = make_case(3, 1, floors=floors)
        self.check((mean - 3.0, sd / 30.0, rest[0], rest[1], rest[2] - 20.0, rest[3]), rtol=1e-4)

    @pytest.mark.parametrize("scale", [30.0, 3e4])
    def test_boxes_much_narrower_than_the_deviation(self, scale):
        _, (mean, sd, *rest) = make_case(3, 0, count=40)
        self.check((mean, scale * sd, *rest), rtol=1e-5)

    def test_an_objective_that_is_known(self):
        _, (mean, sd, *rest) = make_case(3)
        sd[:, 1] = 1e-4
        self.check((mean, sd, *rest), rtol=1e-4, relative_step=1e-8)


def reference_log_length(mean, sd, lower, upper, floor=-np.inf):
    """Log of f for one box and one axis, by Gauss--Legendre quadrature of `Phi((mean - t) / sd)` in logarithms."""
    start = max(lower, floor)
    depth = max(1.0, (start - mean) / sd)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    parts = []
    bends = mean + sd * np.array([-8.0, 8.0])  # Phi is flat outside of them
    cuts = np.unique(np.clip([start, *bends, max(start, mean) + 40.0 * sd / depth], start, max(start, upper)))
    for low, high in pairwise(cuts):
        t = low + (high - low) * (nodes + 1.0) / 2.0
        parts += list(np.log(weights * (high - low) / 2.0) + log_ndtr((mean - t) / sd))
    if start > lower:
        parts.append(np.log(min(start, upper) - lower) + log_ndtr((mean - start) / sd))
    return logsumexp(parts)


class TestTails:
    @pytest.mark.parametrize("floor", [-np.inf, 0.3, 5.0])
    @pytest.mark.parametrize("width", [1e-9, 1e-4, 1.5e-3, 0.1, 3.0, np.inf])
    @pytest.mark.parametrize("sd", [1e-3, 0.03, 1.0, 50.0])
    def test_one_length_against_quadrature(self, sd, width, floor):
        mean = np.array([[2.0], [0.2], [0.0], [-0.5], [-3.0], [-25.0]])
        box = Boxes(np.array([[0.1]]), np.array([[0.1 + width]]))
        with np.errstate(all="raise", under="ignore"):
            found = log_ehvi(mean, np.full(mean.shape, sd), box, np.array([floor]), *np.zeros((2, 6, NO_SLACK)))
        expected = [reference_log_length(mu, sd, 0.1, 0.1 + width, floor) for mu in mean[:, 0]]
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-9)

    @pytest.mark.parametrize("sd", [1e-300, 1e-12, 1e-4, 1.0, 1e8])
    @pytest.mark.parametrize("shift", [-1e9, -100.0, 0.0, 1e9])
    def test_everything_stays_finite(self, sd, shift):
        _, (mean, _, boxes, floor, slack_mean, slack_sd) = make_case(3, 2, floors=True)
        arguments = (mean + shift, np.full(mean.shape, sd), boxes, floor, slack_mean + shift, slack_sd * sd)
        with np.errstate(all="raise", under="ignore"):
            parts = log_ehvi_with_gradient(*arguments)
        for part in parts:
            assert np.isfinite(part).all()

    def test_the_gradient_leads_out_of_the_tail(self):
        _, (mean, sd, *rest) = make_case(3)
        _, d_mean, *_ = log_ehvi_with_gradient(mean - 1e4, sd, *rest)
        assert (d_mean > 0).all()


def test_points_do_not_depend_on_their_company():
    _, arguments = make_case(3, 1, r=3000, count=30)
    mean, sd, boxes, floor, slack_mean, slack_sd = arguments
    together = log_ehvi_with_gradient(*arguments)
    for i in (0, 1234, 2999):
        row = slice(i, i + 1)
        alone = log_ehvi_with_gradient(mean[row], sd[row], boxes, floor, slack_mean[row], slack_sd[row])
        for whole, part in zip(together, alone, strict=True):
            np.testing.assert_allclose(whole[row], part, rtol=1e-10)


def test_no_points():
    _, arguments = make_case(2, 1, r=0)
    assert [part.shape for part in log_ehvi_with_gradient(*arguments)] == [(0,), (0, 2), (0, 2), (0, 1), (0, 1)]
