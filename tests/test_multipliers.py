"""Multipliers: the rules by hand, their fixed point, and why the proportional term is there."""

import numpy as np
import pytest

from simulators.errors import ConfigError
from toolkit.search.multipliers import GradientDual, PidDual


def test_dual_ascent_by_hand():
    dual = GradientDual(step_size=0.4)
    state = dual.step(dual.init((2,)), np.array([0.5, -0.5]))
    np.testing.assert_allclose(state.value, [0.2, 0.0])
    relative = GradientDual(step_size=0.4, relative=True, start=1.0)
    np.testing.assert_allclose(relative.step(relative.init((1,)), np.array([0.5])).value, [1.0 + 0.4 * 2.0 * 0.5])


def test_pid_by_hand():
    dual = PidDual(proportional=2.0, integral=0.5, derivative=3.0)
    first = dual.step(dual.init(()), np.array(0.1))
    assert float(first.value) == pytest.approx(0.05 + 0.2)  # no derivative at the first observation
    second = dual.step(first, np.array(0.3))
    assert float(second.value) == pytest.approx((0.05 + 0.15) + 0.6 + 3.0 * 0.2)
    falling = dual.step(second, np.array(0.1))
    assert float(falling.value) == pytest.approx(0.25 + 0.2)  # a violation that shrinks is not braked


@pytest.mark.parametrize("dual", [GradientDual(most=3.0), PidDual(most=3.0)])
def test_multipliers_stay_between_zero_and_the_limit(dual):
    state = dual.init((2,))
    for _ in range(100):
        state = dual.step(state, np.array([1.0, -1.0]))
    np.testing.assert_array_equal(state.value, [3.0, 0.0])


@pytest.mark.parametrize("dual", [GradientDual(start=1.0), PidDual(start=1.0)])
def test_a_failed_evaluation_changes_nothing(dual):
    before = dual.step(dual.init((2,)), np.array([0.1, 0.1]))
    after = dual.step(before, np.array([np.nan, 0.1]))
    assert after.value[0] == before.value[0] and after.integral[0] == before.integral[0]
    assert after.previous[0] == 0.1 and after.value[1] > before.value[1]


def spend(dual, steps=400):
    """Two tiers of quality 0.6 and 0.9, cost 0 and 1, floor 0.75: the share of the dear tier follows the multiplier.

    The Lagrangian is linear in the share, so a policy that follows its gradient swings about the multiplier 1 / 0.3 at
    which both tiers are worth the same.
    """
    share, state, path = 0.0, dual.init(()), []
    for _ in range(steps):
        share = float(np.clip(share + 0.1 * (float(state.value) * 0.3 - 1.0), 0.0, 1.0))
        state = dual.step(state, np.asarray(0.75 - (0.6 + 0.3 * share)))
        path.append((share, float(state.value)))
    return np.array(path)


def test_the_fixed_point_is_the_price_of_quality():
    found = spend(PidDual(proportional=20.0, integral=0.4, derivative=0.0), 3000)[-1]
    np.testing.assert_allclose(found, [0.5, 1.0 / 0.3], atol=1e-3)


def test_the_proportional_term_damps_the_oscillation():
    plain, damped = spend(GradientDual()), spend(PidDual(proportional=20.0, integral=0.4, derivative=0.0))
    assert damped[200:, 0].std() < 0.2 * plain[200:, 0].std()


def test_senseless_gains_are_refused():
    with pytest.raises(ConfigError, match="step_size > 0"):
        GradientDual(step_size=0.0)
    with pytest.raises(ConfigError, match="integral gain > 0"):
        PidDual(integral=0.0)
