"""Front indicators: closed forms, brute force, pymoo, the traps of the field, and properties."""

import math
import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from simulators.errors import ConfigError
from toolkit.pareto.front import non_dominated
from toolkit.pareto.indicators import (
    aiq,
    apgr,
    attainment_surface,
    best_subset_hypervolume,
    cost_at_quality,
    cpt,
    efficiency,
    epsilon_additive,
    evaluations_to,
    hypervolume,
    hypervolume_trace,
    igd_plus,
    pgr,
    quality_at_cost,
    regret,
)

R2, R3 = np.full(2, -0.1), np.full(3, -0.1)
GREEDY = 1 / (1 - 1 / math.e)
EMPTY = np.zeros((0, 2))


def sphere(n, m, seed=0):
    """`n` mutually non-dominated points."""
    Z = np.abs(np.random.default_rng(seed).normal(size=(n, m)))
    return Z / np.linalg.norm(Z, axis=1, keepdims=True)


def clouds(m, most=12):
    """Points on a coarse grid, so that ties and equal points are common; some below the reference point."""
    return st.integers(0, most).flatmap(
        lambda n: hnp.arrays(np.float64, (n, m), elements=st.sampled_from([-0.2, 0.0, 0.1, 0.3, 0.5, 0.75, 1.0]))
    )


def brute_hypervolume(Z, reference):
    """Volume on the grid of all coordinates."""
    Z = Z[(reference < Z).all(axis=1)]
    if len(Z) == 0:
        return 0.0
    edges = [np.unique(np.append(Z[:, j], reference[j])) for j in range(Z.shape[1])]
    corners = np.stack(np.meshgrid(*[e[1:] for e in edges], indexing="ij"), axis=-1)
    sizes = np.prod(np.stack(np.meshgrid(*[np.diff(e) for e in edges], indexing="ij"), axis=-1), axis=-1)
    covered = (Z[:, *[None] * Z.shape[1], :] >= corners).all(axis=-1).any(axis=0)
    return float(sizes[covered].sum())


class TestHypervolume:
    def test_known_sets(self):
        assert hypervolume(np.array([[1.0, 1.0]]), np.zeros(2)) == 1.0
        assert hypervolume(np.array([[1.0, 0.5], [0.5, 1.0]]), np.zeros(2)) == pytest.approx(0.75)
        staircase = np.array([[k / 10, 1 - (k - 1) / 10] for k in range(1, 11)])
        assert hypervolume(staircase, np.zeros(2)) == pytest.approx(0.55)
        assert hypervolume(np.eye(3) * 0.5 + 0.5, np.zeros(3)) == pytest.approx(0.125 + 3 * 0.125)

    def test_nothing_and_what_lies_below_the_reference(self):
        assert hypervolume(EMPTY, R2) == 0.0
        assert hypervolume(np.array([[-0.1, 5.0], [np.nan, 1.0], [np.inf, 1.0]]), R2) == 0.0

    @given(clouds(3))
    def test_brute_force(self, Z):
        assert hypervolume(Z, R3) == pytest.approx(brute_hypervolume(Z, R3), abs=1e-12)

    @given(clouds(2), hnp.arrays(np.float64, 2, elements=st.floats(-1, 1)))
    def test_a_point_never_lowers_it(self, Z, z):
        assert hypervolume(np.vstack([Z, z]), R2) >= hypervolume(Z, R2) - 1e-12

    def test_pymoo(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            hv = pytest.importorskip("pymoo.indicators.hv")
            igd = pytest.importorskip("pymoo.indicators.igd_plus")
        for m in (2, 3):
            Z, best = 0.8 * sphere(30, m, 1), sphere(40, m, 2)
            assert hypervolume(Z, np.full(m, -0.1)) == pytest.approx(hv.HV(ref_point=np.full(m, 0.1))(-Z))
            assert igd_plus(Z, best) == pytest.approx(igd.IGDPlus(-best)(-Z))


class TestTrace:
    @given(clouds(2), st.randoms(use_true_random=False))
    def test_equals_full_recomputation_in_the_plane(self, Z, random):
        feasible = np.array([random.random() < 0.7 for _ in Z], dtype=bool)
        trace = hypervolume_trace(Z, feasible, R2)
        full = [hypervolume(Z[: i + 1][feasible[: i + 1]], R2) for i in range(len(Z))]
        assert trace == pytest.approx(np.array(full), abs=1e-12)
        assert (np.diff(trace) >= 0).all()

    @given(clouds(3))
    def test_equals_full_recomputation_in_space(self, Z):
        trace = hypervolume_trace(Z, np.ones(len(Z), dtype=bool), R3)
        assert trace == pytest.approx(np.array([hypervolume(Z[: i + 1], R3) for i in range(len(Z))]), abs=1e-12)

    def test_failed_and_infeasible_evaluations_count_but_dominate_nothing(self):
        Z = np.array([[np.nan, 1.0], [0.9, 0.9], [0.4, 0.4], [np.inf, 0.9]])
        trace = hypervolume_trace(Z, np.array([True, False, True, True]), np.zeros(2))
        assert trace.tolist() == pytest.approx([0.0, 0.0, 0.16, 0.16])
        assert hypervolume_trace(EMPTY, np.zeros(0, dtype=bool), R2).shape == (0,)

    def test_fast(self):
        Z = np.random.default_rng(0).uniform(size=(20_000, 3))
        start = time.perf_counter()
        trace = hypervolume_trace(Z, np.ones(len(Z), dtype=bool), R3)
        assert time.perf_counter() - start < 5
        assert trace[-1] == pytest.approx(hypervolume(Z, R3))


class TestDistances:
    @given(clouds(3), clouds(3))
    def test_brute_force_and_signs(self, Z, best):
        if len(best) == 0:
            assert math.isnan(igd_plus(Z, best)) and math.isnan(epsilon_additive(Z, best))
            return
        if len(Z) == 0:
            assert igd_plus(Z, best) == epsilon_additive(Z, best) == math.inf
            return
        short = best[:, None, :] - Z[None, :, :]
        plus = np.sqrt((np.maximum(short, 0) ** 2).sum(axis=-1)).min(axis=1).mean()
        assert igd_plus(Z, best) == pytest.approx(plus, abs=1e-12)
        assert epsilon_additive(Z, best) == pytest.approx(short.max(axis=-1).min(axis=1).max(), abs=1e-12)
        covered = bool((Z[None, :, :] >= best[:, None, :]).all(axis=-1).any(axis=1).all())
        assert (igd_plus(Z, best) == 0) == covered == (epsilon_additive(Z, best) <= 0)

    @given(clouds(2), st.integers(0, 2**31))
    def test_a_subset_of_the_best_has_epsilon_at_least_0(self, best, seed):
        best = np.unique(best[non_dominated(best)], axis=0)
        rows = np.random.default_rng(seed).uniform(size=len(best)) < 0.5
        if rows.any():
            assert epsilon_additive(best[rows], best) >= 0
            assert (epsilon_additive(best[rows], best) == 0) == bool(rows.all())

    def test_a_dominating_set_is_below_0(self):
        assert epsilon_additive(np.array([[1.0, 1.0]]), np.array([[0.5, 0.8]])) == pytest.approx(-0.2)
        assert igd_plus(np.array([[1.0, 1.0]]), np.array([[0.5, 0.8]])) == 0.0

    def test_regret(self):
        best, Z = np.array([[1.0, 1.0]]), np.array([[0.5, 1.0], [0.5, 1.0]])
        assert regret(Z, best, np.zeros(2)) == 0.5 == -regret(best, Z, np.zeros(2))
        assert regret(EMPTY, best, np.zeros(2)) == 1.0


class TestBestSubset:
    @pytest.mark.parametrize("m", [2, 3])
    def test_ends_at_the_whole_front_and_is_concave(self, m):
        Z, r = sphere(60, m), np.full(m, -0.1)
        found = best_subset_hypervolume(Z, 80, r)
        assert len(found) == 80 and found[59:] == pytest.approx(hypervolume(Z, r))
        assert found[0] == pytest.approx(np.prod(Z + 0.1, axis=1).max())
        assert (np.diff(found) >= 0).all() and (np.diff(found, n=2) <= 1e-12).all()

    @settings(deadline=None)
    @given(st.integers(0, 10_000), st.sampled_from([2, 3]))
    def test_is_greedy(self, seed, m):
        Z, r = sphere(9, m, seed), np.full(m, -0.1)
        left, taken, expected = list(range(9)), [], []
        for _ in range(9):
            values = [hypervolume(Z[[*taken, i]], r) for i in left]
            taken.append(left.pop(int(np.argmax(values))))
            expected.append(max(values))
        assert best_subset_hypervolume(Z, 9, r) == pytest.approx(np.array(expected))

    def test_degenerate(self):
        assert best_subset_hypervolume(EMPTY, 3, R2).tolist() == [0.0, 0.0, 0.0]
        assert best_subset_hypervolume(np.ones((4, 2)), 0, R2).shape == (0,)
        equal = best_subset_hypervolume(np.vstack([np.ones((4, 2)), [[np.nan, 3.0]], [[0.2, 0.2]]]), 3, np.zeros(2))
        assert equal.tolist() == [1.0, 1.0, 1.0]

    def test_fast_enough(self):
        start = time.perf_counter()
        best_subset_hypervolume(sphere(600, 3), 200, R3)
        assert time.perf_counter() - start < 2


class TestEfficiency:
    @given(st.integers(0, 10_000), st.sampled_from([2, 3]))
    def test_of_a_subset_of_the_best(self, seed, m):
        best, r = sphere(20, m, seed), np.full(m, -0.1)
        sample = np.random.default_rng(seed).permutation(best)
        trace = hypervolume_trace(sample, np.ones(20, dtype=bool), r)
        found = efficiency(trace, best_subset_hypervolume(best, 20, r))
        assert found[0] <= 1 + 1e-12 and found[-1] == pytest.approx(1.0)
        assert (found <= GREEDY).all()

    def test_the_greedy_sequence_attains_1_throughout(self):
        best = sphere(12, 2)
        wanted, order = best_subset_hypervolume(best, 12, R2), []
        for n in range(12):
            values = [hypervolume(best[[*order, i]], R2) for i in range(12)]
            order.append(int(np.argmin(np.abs(np.array(values) - wanted[n]))))
        trace = hypervolume_trace(best[order], np.ones(12, dtype=bool), R2)
        assert efficiency(trace, wanted) == pytest.approx(np.ones(12))

    def test_the_best_pair_may_beat_the_greedy_one(self):
        best = np.array([[0.25, 1.0], [0.55, 0.55], [1.0, 0.25]])
        trace = hypervolume_trace(best[[0, 2]], np.ones(2, dtype=bool), np.zeros(2))
        assert efficiency(trace, best_subset_hypervolume(best, 2, np.zeros(2)))[1] > 1

    def test_evaluations_to(self):
        course = np.array([np.nan, 0.96, 0.5, 0.95, 0.99])
        assert evaluations_to(course, 0.95) == 2
        assert evaluations_to(course, 0.95, for_good=True) == 4
        assert evaluations_to(course, 1.0) is None and evaluations_to(np.zeros(0), 0.5) is None
        assert evaluations_to(np.array([0.99, 0.1]), 0.95, for_good=True) is None

    def test_nothing_to_reach_is_unknown_and_lengths_must_agree(self):
        assert np.isnan(efficiency(np.zeros(2), np.zeros(2))).all()
        with pytest.raises(ConfigError):
            efficiency(np.zeros(2), np.zeros(3))


class TestAttainment:
    @settings(deadline=None, max_examples=60)
    @given(st.lists(clouds(2, 5), min_size=1, max_size=5), st.sampled_from([0.25, 0.5, 0.75, 1.0]))
    def test_brute_force_in_the_plane(self, fronts, level):
        self.check(fronts, level, 2)

    @settings(deadline=None, max_examples=40)
    @given(st.lists(clouds(3, 4), min_size=1, max_size=4), st.sampled_from([0.25, 0.5, 0.75, 1.0]))
    def test_brute_force_in_space(self, fronts, level):
        self.check(fronts, level, 3)

    @staticmethod
    def check(fronts, level, m):
        needed = math.ceil(level * len(fronts))
        axis = np.unique(np.concatenate([np.zeros(1), *[f.ravel() for f in fronts]]))
        grid = np.stack(np.meshgrid(*[axis] * m, indexing="ij"), axis=-1).reshape(-1, m)
        hits = sum((f[None, :, :] >= grid[:, None, :]).all(axis=-1).any(axis=1).astype(int) for f in fronts)
        attained = grid[hits >= needed]
        expected = np.unique(attained[non_dominated(attained)], axis=0) if len(attained) else np.zeros((0, m))
        found = attainment_surface(fronts, level)
        assert np.array_equal(found, expected.reshape(-1, m))

    def test_one_run_is_its_own_surface_and_an_empty_run_counts(self):
        front = np.array([[0.2, 0.9], [0.8, 0.3]])
        assert np.array_equal(attainment_surface([front], 0.5), front)
        assert len(attainment_surface([front, EMPTY, EMPTY], 0.5)) == 0
        assert np.array_equal(attainment_surface([front, EMPTY], 0.5), front)

    def test_one_objective_is_a_quantile(self):
        fronts = [np.array([[v], [0.0]]) for v in (0.1, 0.7, 0.4)]
        assert attainment_surface(fronts, 0.5).tolist() == [[0.4]]
        assert attainment_surface(fronts, 0.25).tolist() == [[0.7]]

    @pytest.mark.parametrize("fronts, level", [([], 0.5), ([np.ones((1, 2))], 0.0), ([np.ones((1, 4))], 0.5)])
    def test_refused(self, fronts, level):
        with pytest.raises(ConfigError):
            attainment_surface(fronts, level)


class TestAiq:
    def test_straight_line(self):
        cost = np.linspace(1.0, 3.0, 5)
        assert aiq(cost, 0.2 + 0.3 * (cost - 1), c_min=1.0, c_max=3.0) == pytest.approx(0.5)

    def test_paper_and_code_differ_as_described(self):
        cost, quality = np.array([1.0, 2.0]), np.array([0.5, 0.9])
        # paper: (0.7 * 1 + 0.9 * 2) / 3 over [1, 4]; code: the same area over 4
        assert aiq(cost, quality, c_min=1.0, c_max=4.0) == pytest.approx(2.5 / 3)
        assert aiq(cost, quality, c_min=1.0, c_max=4.0, variant="code") == pytest.approx(2.5 / 4)

    def test_below_the_cheapest_point_nothing_counts(self):
        assert aiq(np.array([2.0]), np.array([1.0]), c_min=1.0, c_max=3.0) == pytest.approx(0.5)
        assert aiq(np.array([5.0]), np.array([1.0]), c_min=1.0, c_max=3.0) == 0.0

    def test_points_outside_the_range_shape_the_hull_only(self):
        assert aiq(np.array([0.0, 4.0]), np.array([0.0, 1.0]), c_min=1.0, c_max=3.0) == pytest.approx(0.5)

    def test_hull_is_non_decreasing_and_ignores_dominated_and_missing_points(self):
        cost, quality = np.array([1.0, 2.0, 3.0, 2.0, np.nan]), np.array([0.4, 0.8, 0.1, 0.2, 9.0])
        assert aiq(cost, quality, c_min=1.0, c_max=3.0) == pytest.approx((0.6 + 0.8) / 2)

    def test_degenerate(self):
        none = np.zeros(0)
        assert math.isnan(aiq(none, none, c_min=0.0, c_max=1.0))
        assert aiq(np.array([1.0, 1.0]), np.array([0.3, 0.6]), c_min=1.0, c_max=1.0) == 0.6
        assert aiq(np.array([2.0]), np.array([0.6]), c_min=1.0, c_max=1.0) == 0.0
        with pytest.raises(ConfigError):
            aiq(np.ones(1), np.ones(1), c_min=2.0, c_max=1.0)


class TestRouteLLM:
    def test_random_is_one_half(self):
        share = np.linspace(0, 1, 7)
        assert apgr(share, 0.3 + 0.4 * share, weak=0.3, strong=0.7) == pytest.approx(0.5)
        assert apgr(np.zeros(0), np.zeros(0), weak=0.3, strong=0.7) == pytest.approx(0.5)

    def test_equals_the_ratio_of_areas(self):
        share, quality = np.array([1.0, 0.0, 0.4]), np.array([0.7, 0.3, 0.65])
        order = np.argsort(share)
        area = np.trapezoid(quality[order], share[order])
        assert apgr(share, quality, weak=0.3, strong=0.7) == pytest.approx((area - 0.3) / 0.4)

    def test_no_gap_is_unknown(self):
        for strong in (0.5, 0.4):
            assert np.isnan(pgr(np.array([0.5]), weak=0.5, strong=strong)).all()
            assert math.isnan(apgr(np.array([0.5]), np.array([0.5]), weak=0.5, strong=strong))
            assert cpt(np.array([0.5]), np.array([0.5]), weak=0.5, strong=strong, level=0.5) is None

    def test_cpt_takes_the_running_maximum_first(self):
        share, quality = np.array([0.0, 0.2, 0.4, 0.6, 1.0]), np.array([0.0, 0.8, 0.1, 0.3, 1.0])
        assert cpt(share, quality, weak=0.0, strong=1.0, level=0.4) == pytest.approx(0.1)
        assert cpt(share, quality, weak=0.0, strong=1.0, level=0.9) == pytest.approx(0.8)

    def test_cpt_ends(self):
        share, quality = np.array([0.3, 0.1]), np.array([0.6, 0.2])
        assert cpt(share, quality, weak=0.0, strong=1.0, level=0.1) == 0.1
        assert cpt(share, quality, weak=0.0, strong=1.0, level=0.4) == pytest.approx(0.2)
        assert cpt(share, quality, weak=0.0, strong=1.0, level=0.7) is None
        assert cpt(np.zeros(0), np.zeros(0), weak=0.0, strong=1.0, level=0.5) is None

    def test_of_equal_shares_the_best_counts(self):
        share, quality = np.array([0.5, 0.5, np.nan]), np.array([0.2, 0.8, 5.0])
        assert apgr(share, quality, weak=0.0, strong=1.0) == pytest.approx(0.5 * 0.4 + 0.5 * 0.9)
        assert cpt(share, quality, weak=0.0, strong=1.0, level=0.8) == 0.5


class TestEqualCostAndQuality:
    def test_only_evaluated_points(self):
        cost, quality = np.array([3.0, 1.0, 2.0, np.nan]), np.array([0.9, 0.5, np.nan, 0.99])
        assert quality_at_cost(cost, quality, 2.9) == 0.5
        assert quality_at_cost(cost, quality, 3.0) == 0.9
        assert math.isnan(quality_at_cost(cost, quality, 0.9))
        assert cost_at_quality(cost, quality, 0.6) == 3.0
        assert cost_at_quality(cost, quality, 0.5) == 1.0
        assert math.isnan(cost_at_quality(cost, quality, 0.95))
        assert math.isnan(quality_at_cost(np.zeros(0), np.zeros(0), 1.0))
