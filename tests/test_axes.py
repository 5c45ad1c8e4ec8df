"""Axes of hypervolume: single tiers span [0, 1], whatever the unit, and a stored axis comes back as it was."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.errors import ConfigError
from toolkit.evaluation.metrics import parse_metric
from toolkit.pareto.axes import Axes, Axis, make_axes, restore_axes

OBJECTIVES = tuple(parse_metric(name) for name in ("cost", "quality", "latency_p95", "share_over:5"))
SINGLE = {
    "cost_usd": np.array([1e-5, 1e-3, 1e-2]),
    "quality": np.array([0.7, 0.95, 0.9]),
    "latency_p95_s": np.array([2.0, 20.0, 0.5]),
    "share_over_5s": np.array([0.0, 0.4, 0.1]),
}
SIGNS = np.array([-1, 1, -1, -1])
AXES = make_axes(OBJECTIVES, SINGLE, margin=0.1)


def with_axes(**changes) -> Axes:
    """Axes of the cost alone."""
    base = {"column": "cost_usd", "maximise": False, "log": True, "worst": 1.0, "best": 0.01}
    return Axes(axes=(Axis(**(base | changes)),))


def test_single_tiers_span_the_unit_interval_and_one_is_better():
    Y = np.stack([SINGLE[m.column] for m in OBJECTIVES], axis=1) * SIGNS
    Z = AXES.scale(Y)
    np.testing.assert_allclose(Z.min(axis=0), 0.0, atol=1e-15)
    np.testing.assert_allclose(Z.max(axis=0), 1.0)
    np.testing.assert_array_equal(Z.argmax(axis=0), Y.argmax(axis=0))
    np.testing.assert_allclose(Z[1, 0], 1 / 3)  # 1e-3 is a third of the way from 1e-2 to 1e-5, in log10
    np.testing.assert_allclose(Z[1, 2], 0.0, atol=1e-15)
    np.testing.assert_allclose(Z[2, 3], 0.75)


def test_the_reference_point_lies_the_margin_below_zero():
    np.testing.assert_array_equal(AXES.reference, [-0.1] * 4)
    assert make_axes(OBJECTIVES[:2], SINGLE, margin=0.25).reference.tolist() == [-0.25, -0.25]


def test_cost_and_latency_are_logarithmic_quality_and_shares_are_not():
    assert [axis.log for axis in AXES.axes] == [True, False, True, False]
    assert not any(axis.logit for axis in AXES.axes)


def test_a_failed_evaluation_stays_nan():
    Z = AXES.scale(np.array([[np.nan, 0.8, -1.0, -0.1]]))
    assert np.isnan(Z[0, 0]) and np.isfinite(Z[0, 1:]).all()


@pytest.mark.parametrize(
    "axes",
    [
        with_axes(),
        with_axes(log=False),
        with_axes(column="quality", maximise=True, log=False, worst=0.2, best=0.9),
        with_axes(column="quality", maximise=True, log=False, logit=True, worst=0.2, best=0.99),
        with_axes(worst=0.05, best=0.05),
        with_axes(log=False, worst=0.05, best=0.05),
        with_axes(column="quality", maximise=True, log=False, logit=True, worst=0.5, best=0.5),
    ],
)
@given(value=st.floats(1e-3, 0.999), coordinate=st.floats(-0.5, 1.5))
def test_natural_inverts_scale_column(axes, value, coordinate):
    x = float(axes.scale_column(0, np.array([value]))[0])
    assert axes.natural(0, x) == pytest.approx(value, rel=1e-9)
    if not axes.axes[0].logit:
        back = axes.scale_column(0, np.array([axes.natural(0, coordinate)]))[0]
        assert back == pytest.approx(coordinate, abs=1e-9)


def test_natural_gives_the_ends():
    for j, axis in enumerate(AXES.axes):
        np.testing.assert_allclose([AXES.natural(j, 0.0), AXES.natural(j, 1.0)], [axis.worst, axis.best])


def test_tiers_that_do_not_differ_leave_a_usable_axis():
    equal = {name: np.full(3, 0.5) for name in SINGLE}
    axes = make_axes(OBJECTIVES, equal, margin=0.1)
    Z = axes.scale(np.full((1, 4), 0.5) * SIGNS)
    np.testing.assert_array_equal(Z, np.zeros((1, 4)))
    better = axes.scale(np.array([[-0.25, 0.75, -0.25, -0.25]]))
    assert np.isfinite(better).all() and (better != 0).all()


@pytest.mark.parametrize("bounds", [None, {"cost_usd": [0.02, 0.0]}])
def test_a_zero_cost_falls_back_to_a_linear_axis(bounds):
    free = SINGLE | {"cost_usd": np.array([0.0, 1e-3, 0.02])}
    axes = make_axes(OBJECTIVES, free, margin=0.1, bounds=bounds)
    assert not axes.axes[0].log
    np.testing.assert_allclose(axes.scale_column(0, free["cost_usd"]), [1.0, 0.95, 0.0])


def test_unknown_figures_are_left_out():
    some = SINGLE | {"quality": np.array([np.nan, 0.95, 0.9]), "latency_p95_s": np.full(3, np.nan)}
    axes = make_axes(OBJECTIVES, some, margin=0.1).axes
    assert (axes[1].worst, axes[1].best) == (0.9, 0.95)
    assert (axes[2].worst, axes[2].best) == (1.0, 0.0)


def test_bounds_replace_the_range():
    axes = make_axes(OBJECTIVES, SINGLE, margin=0.1, bounds={"cost_usd": [1.0, 1e-6], "quality": [0.0, 1.0]})
    assert [(a.worst, a.best, a.log) for a in axes.axes[:2]] == [(1.0, 1e-6, True), (0.0, 1.0, False)]
    assert axes.axes[2:] == AXES.axes[2:]
    assert not axes.same_as(AXES)


@pytest.mark.parametrize(
    "bounds",
    [
        {"cost": [1.0, 0.1]},
        {"latency_mean_s": [1.0, 0.1]},
        {"cost_usd": [0.1, 1.0]},
        {"quality": [0.9, 0.1]},
        {"quality": [0.9, 0.9]},
        {"quality": [0.1]},
        {"quality": [0.1, 0.5, 0.9]},
        {"cost_usd": [float("nan"), 0.1]},
        {"quality": [0.1, float("inf")]},
    ],
)
def test_senseless_bounds_are_refused(bounds):
    with pytest.raises(ConfigError, match="axes.bounds"):
        make_axes(OBJECTIVES, SINGLE, margin=0.1, bounds=bounds)


def test_axes_survive_json():
    back = restore_axes(json.loads(json.dumps(AXES.describe())))
    assert back == AXES and back.same_as(AXES)


@pytest.mark.parametrize("stored", [{}, {"margin": 0.1}, {"margin": "a", "axes": []}, {"margin": 0.1, "axes": [{}]}])
def test_axes_that_cannot_be_read_say_so(stored):
    with pytest.raises(ConfigError, match="stored axes cannot be read"):
        restore_axes(stored)


def test_axes_are_the_same_only_with_equal_ends_columns_and_margin():
    assert with_axes().same_as(with_axes(worst=1.0 + 1e-12))
    assert not with_axes().same_as(with_axes(worst=1.001))
    assert not with_axes().same_as(with_axes(column="latency_p95_s"))
    assert not with_axes().same_as(with_axes(log=False))
    assert not with_axes().same_as(Axes(axes=with_axes().axes, margin=0.2))
    assert not AXES.same_as(make_axes(OBJECTIVES[:2], SINGLE, margin=0.1))
