"""Means of bounded values: known answers, the link between tests and intervals, label counts and their inverse."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from toolkit.statistics import (
    DISTINCT,
    bound_from_sums,
    estimate_mean,
    labels_needed,
    power_to_show,
    resolved_margin,
)

UNIT, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)
LEVELS = (0.01, 0.025, 0.05, 0.1)
UNIT_VALUES = st.lists(st.floats(0.0, 1.0), min_size=2, max_size=60).map(np.array)
WRONG_OR_RIGHT = st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=90).map(np.array)
SCORES = st.one_of(UNIT_VALUES, WRONG_OR_RIGHT)


def binary(n, right):
    """`n` answers, `right` of them right."""
    return np.repeat([1.0, 0.0], [right, n - right])


# --- known answers ----------------------------------------------------------------------------------------------------


def test_eight_of_ten_by_hand():
    """Two wrong answers more for a lower bound, two right ones more for an upper bound, and Student's t around that."""
    found = estimate_mean(binary(10, 8), bounds=UNIT)
    assert (found.mean, found.n, found.df) == (0.8, 10, 9)
    low, high = found.from_below, found.from_above
    assert (low.centre, high.centre) == pytest.approx((8 / 12, 10 / 12))
    assert low.error == pytest.approx(np.sqrt(10 / 9 * (8 / 9 + 4 * 4 / 9)) / 12)
    assert high.error == pytest.approx(np.sqrt(10 / 9 * (10 / 36 + 2 * 25 / 36)) / 12)
    assert found.lower(0.05) == pytest.approx(8 / 12 - 1.833113 * low.error, abs=1e-6)
    assert found.upper(0.05) == 1.0 < 10 / 12 + 1.833113 * high.error
    assert found.p_above(0.5) == pytest.approx(stats.t.sf((8 / 12 - 0.5) / low.error, 9))
    assert found.p_below(0.9) == pytest.approx(stats.t.sf((0.9 - 10 / 12) / high.error, 9))
    assert found.sd == pytest.approx(np.std(binary(10, 8), ddof=1))


def test_unbounded_values_by_hand():
    """Without bounds one pseudo-observation lies at the smallest value, or at the largest one."""
    found = estimate_mean(np.array([1.0, 2.0, 2.0, 3.0, 6.0]))
    for adjusted, six in ((found.from_below, [1, 1, 2, 2, 3, 6]), (found.from_above, [1, 2, 2, 3, 6, 6])):
        assert adjusted.centre == pytest.approx(np.mean(six))
        assert adjusted.error == pytest.approx(np.sqrt(5 / 4 * np.var(six) / 6))
    low_error = np.sqrt(5 / 4 * (2 * 1.5**2 + 2 * 0.5**2 + 0.5**2 + 3.5**2)) / 6
    assert found.lower(0.05) == pytest.approx(2.5 - 2.131847 * low_error, abs=1e-6)
    assert found.mean == 2.8 and (found.low, found.high) == (-np.inf, np.inf)
    assert (found.pseudo, found.reach) == (1, 1.0)


def test_two_sessions_of_unequal_length_by_hand():
    """Deviations are summed within a session before they are squared; a pseudo-observation weighs n / G = 2."""
    found = estimate_mean(np.array([1.0, 1.0, 1.0, 0.0]), np.array([7, 7, 7, 2]), UNIT)
    centre = (3 + 2 * 2 * 0) / (4 + 2 * 2)
    squares = (3 * (1 - centre)) ** 2 + centre**2 + 2 * (2 * centre) ** 2
    assert found.from_below.centre == centre
    assert found.from_below.error == pytest.approx(np.sqrt(2 / 1 * squares) / 8)
    assert found.df == pytest.approx(4**2 / (3**2 + 1**2) - 1), "two sessions, but nearly everything in one of them"
    deviation = np.array([3 * 0.25, -0.75])
    assert found.sd == pytest.approx(np.sqrt(2 / 1 * (deviation**2).sum() / 4))


def test_thirty_right_answers_are_no_proof():
    """Student's standard error is zero there; the bound must stay below 1, not above that of the exact binomial."""
    found = estimate_mean(np.ones(30), bounds=UNIT)
    exact = 0.05 ** (1 / 30)
    assert found.upper(0.05) == 1.0 and exact - 0.06 < found.lower(0.05) < exact
    assert 0 < found.p_above(0.5) < 0.001 and found.p_above(exact) > 0.05


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 0.7, 3.3e-5, 1e6])
@pytest.mark.parametrize("n", [2, 10, 37, 1000])
def test_equal_unbounded_values_are_exact(value, n):
    """Rounding of a sum must not become a standard error of 1e-18, against which any limit is far away."""
    found = estimate_mean(np.full(n, value))
    for adjusted in (found.from_below, found.from_above):
        assert (found.mean, adjusted.centre, adjusted.error) == (value, value, 0.0)
    assert found.lower(0.05) == found.upper(0.05) == value
    assert found.p_above(value) == found.p_below(value) == 1.0
    assert found.p_above(np.nextafter(value, -1)) == 0.0 and found.p_below(np.nextafter(value, 2e6)) == 0.0


@pytest.mark.parametrize("group", [np.zeros(40, dtype=int), None])
def test_one_group_shows_nothing(group):
    values = np.linspace(0, 1, 40) if group is not None else np.array([0.4])
    found = estimate_mean(values, group, UNIT)
    assert found.df == 0 and np.isnan(found.from_below.error) and np.isnan(found.sd)
    assert np.isnan(found.lower(0.05)) and np.isnan(found.upper(0.05))
    assert found.p_above(-5) == found.p_below(5) == 1.0


def test_enough_different_values_show_their_own_range():
    values = np.concatenate([np.full(100, 0.5), np.linspace(0.4, 0.45, DISTINCT)])
    shown, hidden = estimate_mean(values, bounds=UNIT), estimate_mean(values[:-1], bounds=UNIT)
    with_one, with_two = np.append(values, 0.4), np.append(values[:-1], [0.0, 0.0])
    for found, all_values, n in ((shown, with_one, 130), (hidden, with_two, 129)):
        assert found.from_below.centre == pytest.approx(all_values.mean())
        assert found.from_below.error == pytest.approx(np.sqrt(n / (n - 1) * np.var(all_values) / len(all_values)))
    assert shown.from_above.centre == pytest.approx((values.sum() + 0.5) / 131)
    assert hidden.from_above.centre == pytest.approx((values[:-1].sum() + 2) / 131)
    assert shown.lower(0.05) > hidden.lower(0.05) and (shown.reach, hidden.reach) == (0.4, 0.0)
    assert (shown.pseudo, hidden.pseudo) == (1, 2)


def test_repeats_do_not_show_a_range():
    """Fifteen prompts asked twice are fifteen prompts, however often each is asked."""
    values, prompt = np.linspace(0.4, 0.6, 15), np.arange(15)
    for repeats in (1, 2, 10):
        found = estimate_mean(np.repeat(values, repeats), np.repeat(prompt, repeats), UNIT)
        assert (found.reach, found.pseudo) == (0.0, 2), "the end of the possible range, not of what was seen"


# --- properties -------------------------------------------------------------------------------------------------------


@given(values=SCORES, alpha=st.sampled_from(LEVELS), limit=st.floats(0.01, 0.99))
def test_a_test_and_its_interval_agree(values, alpha, limit):
    """The bound at level alpha lies beyond a limit exactly where the test of that limit rejects at alpha."""
    found = estimate_mean(values, bounds=UNIT)
    if abs(found.lower(alpha) - limit) > 1e-9:
        assert (found.lower(alpha) > limit) == (found.p_above(limit) < alpha)
    if abs(found.upper(alpha) - limit) > 1e-9:
        assert (found.upper(alpha) < limit) == (found.p_below(limit) < alpha)


@given(values=SCORES, alphas=st.tuples(st.floats(1e-6, 0.49), st.floats(1e-6, 0.49)))
def test_intervals_hold_the_mean_stay_in_range_and_widen_with_the_level(values, alphas):
    found, (strict, loose) = estimate_mean(values, bounds=UNIT), sorted(alphas)
    assert 0 <= found.lower(strict) <= found.lower(loose) <= found.mean + 1e-12
    assert found.mean - 1e-12 <= found.upper(loose) <= found.upper(strict) <= 1


@given(values=SCORES, limits=st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5)))
def test_p_values_are_monotone_in_the_limit_and_are_never_both_small(values, limits):
    found, (low, high) = estimate_mean(values, bounds=UNIT), sorted(limits)
    assert found.p_above(low) <= found.p_above(high)
    assert found.p_below(low) >= found.p_below(high)
    for limit in (low, high):
        assert limit < found.mean or found.p_above(limit) >= 0.5 - 1e-9, "what was not seen is not shown"
        assert limit > found.mean or found.p_below(limit) >= 0.5 - 1e-9
        assert max(found.p_above(limit), found.p_below(limit)) >= 0.5


@given(values=SCORES, alpha=st.sampled_from(LEVELS), limit=st.floats(0.0, 1.0))
def test_a_mirror_swaps_the_ends(values, alpha, limit):
    found, mirrored = estimate_mean(values, bounds=UNIT), estimate_mean(-values, bounds=(-1.0, 0.0))
    assert mirrored.upper(alpha) == pytest.approx(-found.lower(alpha), abs=1e-9)
    assert mirrored.lower(alpha) == pytest.approx(-found.upper(alpha), abs=1e-9)
    for one, other in ((found.from_below, mirrored.from_above), (found.from_above, mirrored.from_below)):
        assert (one.centre, one.error) == pytest.approx((-other.centre, other.error), abs=1e-12)
    if abs(found.from_below.centre - limit) > 1e-9:
        assert mirrored.p_below(-limit) == pytest.approx(found.p_above(limit), abs=1e-6)


@given(values=SCORES, repeats=st.integers(2, 4), seed=st.integers(0, 99))
def test_repeats_as_clusters_change_nothing(values, repeats, seed):
    """Every answer copied: as clusters the interval stays as it was, in any order and under any names."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(repeats * len(values))
    once = estimate_mean(values, bounds=UNIT)
    codes = rng.permutation(1000)[: len(values)]
    often = estimate_mean(np.repeat(values, repeats)[order], np.repeat(codes, repeats)[order], UNIT)
    for alpha in LEVELS:
        assert often.lower(alpha) == pytest.approx(once.lower(alpha), abs=1e-9)
        assert often.upper(alpha) == pytest.approx(once.upper(alpha), abs=1e-9)
    assert (often.mean, often.df, often.reach) == pytest.approx((once.mean, once.df, once.reach))
    assert often.n == repeats * once.n
    blind = estimate_mean(np.repeat(values, repeats), bounds=UNIT)
    errors = (blind.from_below.error, once.from_below.error), (blind.from_above.error, once.from_above.error)
    assert max(known for _, known in errors) > 0
    assert all(taken_as_new < known for taken_as_new, known in errors if known > 1e-9)


@given(values=SCORES)
def test_every_value_its_own_group_is_no_group(values):
    alone, grouped = estimate_mean(values, bounds=UNIT), estimate_mean(values, np.arange(len(values)), UNIT)
    assert alone.df == pytest.approx(grouped.df)
    for one, other in ((alone.from_below, grouped.from_below), (alone.from_above, grouped.from_above)):
        assert (one.centre, one.error) == pytest.approx((other.centre, other.error))


@given(values=SCORES, alpha=st.sampled_from(LEVELS))
@example(values=np.linspace(0.3, 0.6, DISTINCT + 1), alpha=0.05)
@example(values=np.linspace(0.3, 0.6, DISTINCT), alpha=0.05)
def test_bounds_from_sums_are_those_of_the_values(values, alpha):
    found = estimate_mean(values, bounds=UNIT)
    shown = np.sort(np.unique(values, return_counts=True)[1])[:-1].sum() >= DISTINCT
    ends, pseudo = ((values.min(), values.max()), 1) if shown else (UNIT, 2)
    low, high = bound_from_sums(
        np.array(len(values)),
        values.sum(),
        (values**2).sum(),
        low=np.array(ends[0]),
        high=np.array(ends[1]),
        pseudo=np.array(pseudo),
        alpha=alpha,
    )
    assert found.lower(alpha) == pytest.approx(np.clip(min(low, found.mean), 0, 1), abs=1e-6)
    assert found.upper(alpha) == pytest.approx(np.clip(max(high, found.mean), 0, 1), abs=1e-6)


def test_bounds_from_sums_broadcast():
    groups = np.random.default_rng(0).random((3, 5, 20))
    pseudo, ends = np.array([2, 2, 2, 1, 1]), np.array([[0.0, 0.0, 0.0, -1.0, -2.0], [1.0, 1.0, 1.0, 2.0, 3.0]])
    sums = (np.array([20] * 5), groups.sum(axis=2), (groups**2).sum(axis=2))
    low, high = bound_from_sums(*sums, low=ends[0], high=ends[1], pseudo=pseudo, alpha=0.05)
    assert low.shape == high.shape == (3, 5) and (low < high).all()
    assert low[1, 2] == pytest.approx(estimate_mean(groups[1, 2], bounds=UNIT).lower(0.05))
    assert high[1, 2] == pytest.approx(estimate_mean(groups[1, 2], bounds=UNIT).upper(0.05))
    for found, end, sign in ((low, -2.0, -1), (high, 3.0, 1)):
        values = np.append(groups[2, 4], end)
        half = stats.t.ppf(0.95, 19) * np.sqrt(20 / 19 * np.var(values) / 21)
        assert found[2, 4] == pytest.approx(values.mean() + sign * half)


# --- levels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0.02, 0.05, 0.1])
def test_the_level_of_a_lost_margin_is_kept(margin):
    """Differences in {-1, 0} whose mean is exactly `-margin`: how often a smaller loss is shown, exactly."""
    for n in [*range(30, 300, 27), *range(300, 1501, 150)]:
        level = 0.0
        for lost in range(n + 1):
            p = estimate_mean(-binary(n, lost), bounds=DIFFERENCE).p_above(-margin)
            if lost >= n * margin:
                assert p >= 0.5 - 1e-9, "nothing below the margin was seen, nor with more losses"
                break
            level += (p <= 0.05) * stats.binom.pmf(lost, n, margin)
        assert level <= 0.056, n


def test_one_large_cluster_among_small_ones_keeps_the_level():
    """Values alike within a cluster, true mean 0. With as many degrees of freedom as clusters the test would not do."""
    sizes, rng, draws = [200] + [5] * 20, np.random.default_rng(0), 500
    group = np.repeat(np.arange(21), sizes)
    rejected, naive = np.zeros(2), 0
    for _ in range(draws):
        found = estimate_mean(np.repeat(rng.choice([-1.0, 1.0], size=21), sizes), group, DIFFERENCE)
        rejected += [found.p_below(0.0) <= 0.05, found.p_above(0.0) <= 0.05]
        naive += stats.t.sf(-found.from_above.centre / found.from_above.error, 20) <= 0.05
    assert found.df == pytest.approx(300**2 / (200**2 + 20 * 5**2) - 1)
    assert (rejected / draws <= 0.05).all() and naive / draws > 0.05


@pytest.mark.parametrize("values", [np.zeros(1003), np.ones(1003), np.linspace(0, 1, 1003), binary(1003, 1000)])
def test_a_cluster_that_holds_nearly_everything_shows_nothing(values):
    found = estimate_mean(values, np.concatenate([np.zeros(1000, dtype=int), [1, 2, 3]]), UNIT)
    assert found.df == pytest.approx(1003**2 / (1000**2 + 3) - 1) and 0 < found.df < 0.01
    for alpha in LEVELS:
        assert (found.lower(alpha), found.upper(alpha)) == UNIT
    for limit in (1e-3, 0.1, 0.5, 0.9, 1 - 1e-3):
        assert found.p_above(limit) > 0.1 and found.p_below(limit) > 0.1


# --- labels -----------------------------------------------------------------------------------------------------------


@given(
    sd=st.floats(0.0, 1.0),
    margin=st.floats(0.005, 0.9),
    alpha=st.sampled_from(LEVELS),
    power=st.floats(0.5, 0.99),
    reach=st.floats(0.1, 1.0),
)
@settings(max_examples=60)
def test_labels_and_margins_are_inverse(sd, margin, alpha, power, reach):
    options = {"alpha": alpha, "power": power, "reach": reach}
    n = labels_needed(sd, margin, **options)
    assert resolved_margin(sd, n, **options) <= margin
    if n > 2:
        assert resolved_margin(sd, n - 1, **options) > margin
    assert power_to_show(sd, n, margin, alpha=alpha, reach=reach) >= power - 1e-9
    assert power_to_show(sd, n, resolved_margin(sd, n, **options), alpha=alpha, reach=reach) == pytest.approx(power)


def test_more_is_needed_for_less_margin_more_spread_more_power():
    base = labels_needed(0.4, 0.05, alpha=0.05, power=0.8)
    assert base < labels_needed(0.4, 0.04, alpha=0.05, power=0.8)
    assert base < labels_needed(0.5, 0.05, alpha=0.05, power=0.8)
    assert base < labels_needed(0.4, 0.05, alpha=0.05, power=0.9)
    assert base < labels_needed(0.4, 0.05, alpha=0.01, power=0.8)
    textbook = ((stats.norm.isf(0.05) + stats.norm.ppf(0.8)) * 0.4 / 0.05) ** 2
    assert textbook < base < 1.25 * textbook, "the pseudo-observations at -1 cost some"
    assert labels_needed(0.4, 0.05, alpha=0.05, power=0.8, reach=0.0) == pytest.approx(textbook, rel=0.02)


@pytest.mark.parametrize(("sd", "margin", "reach"), [(0.4, 0.05, 1.0), (0.4, 0.005, 1.0), (0.2, 0.02, 0.3)])
def test_labels_of_the_textbook_with_two_losses_added(sd, margin, reach):
    """Two values at `-reach` lower the mean by `2 reach / (n + 2)` and add about `2 reach^2 / n` to the variance."""
    z = stats.norm.isf(0.05) + stats.norm.ppf(0.8)
    textbook = n = (z * sd / margin) ** 2
    for _ in range(200):
        n = z**2 * (sd**2 + 2 * reach**2 / n) / (margin - 2 * reach / (n + 2)) ** 2
    found = labels_needed(sd, margin, alpha=0.05, power=0.8, reach=reach)
    assert textbook < found == pytest.approx(n, rel=0.01)
    assert margin > 0.005 or found == pytest.approx(textbook, rel=0.03), "they matter little where n is large"


def test_power_of_a_hundred_labels_by_hand():
    """A mean of -2 / 102 after two losses; the margin is shown where it lies a Student quantile below what is found."""
    squares = 100 * (0.3**2 + (2 / 102) ** 2) + 2 * (100 / 102) ** 2
    error = np.sqrt(100 / 99 * squares) / 102
    power = stats.norm.cdf((0.1 - 2 / 102) / error - 1.660391)
    assert power_to_show(0.3, 100, 0.1, alpha=0.05) == pytest.approx(power, abs=1e-5)
    half = (1.660391 + stats.norm.ppf(0.9)) * error
    assert resolved_margin(0.3, 100, alpha=0.05, power=0.9) == pytest.approx(2 / 102 + half, abs=1e-5)


def test_fewer_than_two_values_resolve_nothing():
    for n in (0, 1):
        assert resolved_margin(0.1, n, alpha=0.05, power=0.8) == np.inf
        assert power_to_show(0.1, n, 0.5, alpha=0.05) == 0.0


@pytest.mark.parametrize(("discordance", "margin"), [(0.2, 0.05), (0.1, 0.1), (0.5, 0.15)])
def test_the_counted_labels_have_the_power_they_promise(discordance, margin):
    """Differences in {-1, 0, 1} without a loss: the share of draws that show less than the margin."""
    n = labels_needed(np.sqrt(discordance), margin, alpha=0.05, power=0.8)
    rng, replications = np.random.default_rng(5), 600
    p = [discordance / 2, 1 - discordance, discordance / 2]
    drawn = rng.choice([-1.0, 0.0, 1.0], size=(replications, n), p=p)
    shown = np.mean([estimate_mean(values, bounds=DIFFERENCE).p_above(-margin) <= 0.05 for values in drawn])
    assert shown == pytest.approx(0.8, abs=0.07)
