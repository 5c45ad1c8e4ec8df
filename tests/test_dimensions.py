"""Dimensions and boxes: what is decoded encodes back, and every whole number owns its part of the cube."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.errors import ConfigError
from toolkit.dimensions import BoxSpace, Dimension
from toolkit.evaluation.thresholds import ScoreOrder
from toolkit.policies.lanes import Lanes
from toolkit.scorers.base import ScoreTable
from toolkit.spaces import JoinedSpace, ThresholdSpace

UNIT = st.floats(0, 1)
COLOURS = Dimension(name="colour", kind="categorical", choices=("red", "green", "blue"))


@st.composite
def floats(draw):
    scale = draw(st.sampled_from(["linear", "log"]))
    low = draw(st.floats(1e-6, 1e3) if scale == "log" else st.floats(-1e3, 1e3))
    factor = draw(st.floats(1.001, 1e6))
    high = low * factor if scale == "log" else low + factor
    return Dimension(name="x", low=low, high=high, scale=scale)


@st.composite
def integers(draw):
    scale = draw(st.sampled_from(["linear", "log"]))
    low = draw(st.integers(1 if scale == "log" else -50, 100))
    return Dimension(name="n", kind="integer", low=low, high=low + draw(st.integers(0, 60)), scale=scale)


@given(floats(), UNIT)
@settings(deadline=None)
def test_a_float_goes_there_and_back(dimension, x):
    value = dimension.decode(np.array([x]))
    assert dimension.low <= value[0] <= dimension.high
    np.testing.assert_allclose(dimension.encode(value), x, atol=1e-9)
    np.testing.assert_allclose(dimension.decode(dimension.encode(value)), value, rtol=1e-9, atol=1e-9)


@given(integers())
@settings(deadline=None)
def test_every_integer_goes_there_and_back(dimension):
    values = np.arange(dimension.low, dimension.high + 1)
    x = dimension.encode(values)
    assert ((x >= 0) & (x <= 1)).all()
    np.testing.assert_array_equal(dimension.decode(x), values)


@given(floats() | integers())
@settings(deadline=None)
def test_decoding_ascends_from_bound_to_bound_and_stays_inside(dimension):
    values = dimension.decode(np.linspace(-0.5, 1.5, 101))
    assert (np.diff(values) >= 0).all()
    assert (values >= dimension.low).all() and (values <= dimension.high).all()
    np.testing.assert_allclose(values[[0, -1]], [dimension.low, dimension.high], rtol=1e-12)


@pytest.mark.parametrize("dimension", [Dimension(name="n", kind="integer", low=-2, high=7), COLOURS])
def test_integers_and_choices_own_equal_volume(dimension):
    x = (np.arange(60_000) + 0.5) / 60_000
    values, counts = np.unique(dimension.decode(x), return_counts=True)
    np.testing.assert_array_equal(values, np.arange(dimension.low, dimension.high + 1))
    assert np.ptp(counts) <= 2


def test_integers_on_a_log_scale_own_their_part_of_it():
    dimension = Dimension(name="n", kind="integer", low=1, high=100, scale="log")
    values, counts = np.unique(dimension.decode((np.arange(100_000) + 0.5) / 100_000), return_counts=True)
    np.testing.assert_array_equal(values, np.arange(1, 101))
    expected = np.log((values + 0.5) / (values - 0.5)) / np.log(100.5 / 0.5)
    np.testing.assert_allclose(counts / 100_000, expected, atol=3e-5)


def test_known_values():
    log = Dimension(name="x", low=0.01, high=100.0, scale="log")
    np.testing.assert_allclose(log.decode(np.array([0.0, 0.25, 0.5, 1.0])), [0.01, 0.1, 1.0, 100.0])
    assert (COLOURS.low, COLOURS.high) == (0, 2)
    assert COLOURS.decode(np.array([0.0, 0.3, 0.4, 0.6, 0.7, 1.0])).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("kind", ["float", "integer"])
def test_a_dimension_of_one_value(kind):
    dimension = Dimension(name="x", kind=kind, low=3, high=3)
    assert dimension.decode(np.array([0.0, 0.4, 1.0])).tolist() == [3, 3, 3]
    assert np.isfinite(dimension.encode(np.array([3.0]))).all()
    assert Dimension(name="c", kind="categorical", choices=("only",)).decode(np.array([0.0, 1.0])).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"low": 1.0, "high": 0.0}, "low <= high"),
        ({"low": float("nan")}, "finite"),
        ({"high": float("inf")}, "finite"),
        ({"scale": "log"}, "log scale needs positive"),
        ({"scale": "log", "low": -1.0}, "log scale needs positive"),
        ({"kind": "integer", "low": 0.5, "high": 3}, "whole"),
        ({"kind": "integer", "low": 0, "high": 3.5}, "whole"),
        ({"kind": "categorical"}, "distinct choices"),
        ({"kind": "categorical", "choices": ("a", "a")}, "distinct choices"),
    ],
)
def test_senseless_dimensions_are_refused_by_name(options, says):
    with pytest.raises(ConfigError, match=f"weight: .*{says}"):
        Dimension(name="weight", **options)


def box():
    return BoxSpace([Dimension(name="a", low=1e-3, high=1.0, scale="log"), COLOURS])


def test_a_box_is_its_dimensions_side_by_side():
    X = np.random.default_rng(0).random((20, 2))
    space = box()
    params = space.decode(X)
    assert space.dim == 2 and params.shape == (20, 2)
    for i, dimension in enumerate(space.dimensions):
        np.testing.assert_array_equal(params[:, i], dimension.decode(X[:, i]))
    np.testing.assert_allclose(space.decode(space.encode(params)), params)


def test_joined_spaces_keep_their_columns():
    """A threshold space has as many parameters as coordinates; the box after it must not see them."""
    scores = ScoreTable(score=np.random.default_rng(1).normal(size=50))
    thresholds = ThresholdSpace(ScoreOrder(scores, Lanes(fallback_tier=0, low_confidence_tier=0)), 3)
    space = JoinedSpace([(thresholds, 2), (box(), 2), (BoxSpace([COLOURS]), 1)])
    X = np.random.default_rng(2).random((20, 5))
    params = space.decode(X)
    assert space.dim == 5 and params.shape == (20, 5)
    np.testing.assert_array_equal(params[:, :2], thresholds.decode(X[:, :2]))
    np.testing.assert_array_equal(params[:, 2:4], box().decode(X[:, 2:4]))
    np.testing.assert_array_equal(params[:, 4], COLOURS.decode(X[:, 4]))
    np.testing.assert_allclose(space.decode(space.encode(params)), params)
