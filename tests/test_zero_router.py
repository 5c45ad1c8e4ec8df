"""The Zero router: hull, mixtures, and the difference to it with its interval."""

import numpy as np
import pytest
from helpers import make_table

from toolkit.certify.intervals import mean_interval, rank_correlation, zero_difference
from toolkit.zero_router import zero_router, zero_router_of


def test_hull_known_answer():
    hull = zero_router(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.2, 0.3, 0.8, 0.7]))
    assert hull.tier == (0, 2)
    assert hull.quality_at(2.0) == pytest.approx(0.5)
    assert hull.quality_at(0.5) == pytest.approx(0.2)
    assert hull.quality_at(9.0) == pytest.approx(0.8)


def test_cheapest_and_best_is_the_whole_hull():
    assert zero_router(np.array([1.0, 2.0]), np.array([0.7, 0.5])).tier == (0,)


def test_equal_costs_keep_the_better_tier():
    assert zero_router(np.array([1.0, 1.0, 2.0]), np.array([0.4, 0.6, 0.7])).tier == (1, 2)


@pytest.mark.parametrize("cost", [1.0, 1.7, 3.0, 0.2, 5.0])
def test_mixture_costs_and_scores_as_said(cost):
    hull = zero_router(np.array([1.0, 2.0, 3.0]), np.array([0.2, 0.5, 0.6]))
    share, _ = hull.mixture_at(cost)
    assert share.sum() == pytest.approx(1.0)
    assert share @ hull.quality == pytest.approx(hull.quality_at(cost))
    if 1 <= cost <= 3:
        assert share @ hull.cost_usd == pytest.approx(cost)


def test_a_single_tier_on_the_hull_does_not_differ_from_it():
    table = make_table(np.random.default_rng(0), n=200, k=3)
    for k in zero_router_of(table).tier:
        found = zero_difference(table, np.full(200, k))
        assert found.mean == pytest.approx(0.0, abs=1e-12)
        assert found.verdict == "no evidence"


def test_random_mixing_gains_nothing_and_is_covered():
    """A policy that ignores the prompt is the Zero router; its interval holds 0 in about 95 % of draws."""
    covered = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        table = make_table(rng, n=300, k=2)
        shifted = table.quality.copy()
        shifted[:, 1] = np.minimum(shifted[:, 1] + 0.3, 1.0)
        object.__setattr__(table, "quality", shifted)
        tier = (rng.random(300) < 0.5).astype(np.int64)
        found = zero_difference(table, tier)
        covered.append(found.low <= 0 <= found.high)
    assert 0.92 <= np.mean(covered) <= 0.98


def test_interval_equals_bootstrap():
    rng = np.random.default_rng(3)
    table = make_table(rng, n=400, k=3)
    tier = np.argmax(table.quality + rng.normal(scale=0.5, size=table.quality.shape), axis=1)
    found = zero_difference(table, tier)
    draws = []
    for _ in range(1500):
        rows = rng.integers(0, 400, 400)
        draws.append(zero_difference(table.take(rows), tier[rows]).mean)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.012)
    assert found.high == pytest.approx(high, abs=0.012)


def test_mean_interval_known_answer():
    """One pseudo-observation at the unfavourable end of what was seen: 0, 1, 1 and 0, 0, 1, one degree of freedom."""
    found = mean_interval(np.array([0.0, 1.0]))
    error = np.sqrt(2 / 1 * (2 * (1 / 3) ** 2 + (2 / 3) ** 2)) / 3
    assert found.mean == 0.5
    assert found.high == pytest.approx(2 / 3 + 12.7062 * error, rel=1e-4)
    assert found.low == pytest.approx(1 / 3 - 12.7062 * error, rel=1e-4)
    assert np.isnan(mean_interval(np.array([1.0])).low)


def test_rank_correlation():
    a = np.arange(100.0)
    assert rank_correlation(a, a).low > 0.9
    assert rank_correlation(a, np.random.default_rng(0).normal(size=100)).verdict == "no evidence"
    assert rank_correlation(a, np.zeros(100)).verdict == "no evidence"


def test_repeats_of_a_prompt_are_no_new_evidence():
    """Each query recorded five times: the interval is that of the distinct ones."""
    rng = np.random.default_rng(0)
    once = make_table(rng, n=80, k=2, prompts=True)
    tier = rng.integers(0, 2, 80)
    rows = np.repeat(np.arange(80), 5)
    first, repeated = zero_difference(once, tier), zero_difference(once.take(rows), tier[rows])
    assert repeated.mean == pytest.approx(first.mean)
    assert repeated.high - repeated.low == pytest.approx(first.high - first.low, rel=1e-9)
    assert mean_interval(once.quality[:, 0]).low == pytest.approx(mean_interval(once.quality[:, 0], np.arange(80)).low)
