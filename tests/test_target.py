"""`policy=target`: a trained policy by the quality that is requested of it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.errors import ConfigError
from toolkit.families.make import policy_family
from toolkit.families.target import TargetFamily
from toolkit.policies.base import decide
from toolkit.policies.lanes import Lanes
from toolkit.policies.target import TargetPolicy, nearest_level
from toolkit.scorers.base import ScoreTable

TARGETS = np.array([0.7, 0.8, 0.9])
LEVELS = np.array([[0, 0, 1], [0, 1, 2], [2, 2, 2], [1, 0, 1]], dtype=np.int8)
LANES = Lanes(fallback_tier=1, low_confidence_tier=2)


def scores(**more):
    return ScoreTable(score=np.zeros(len(LEVELS)), levels=LEVELS, level_targets=TARGETS, **more)


def test_the_nearest_level_decides():
    tier = TargetPolicy().assign(np.array([[0.0], [0.74], [0.75], [0.81], [1.0]]), scores(), LANES)
    np.testing.assert_array_equal(tier, LEVELS[:, [0, 0, 1, 1, 2]].T)
    assert tier.dtype == np.int8


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8, unique=True), st.floats(-1, 2))
def test_no_level_is_nearer(targets, tau):
    grid = np.sort(np.array(targets))
    at = int(nearest_level(grid, np.array([tau]))[0])
    assert abs(grid[at] - tau) <= np.abs(grid - tau).min() + 1e-12


def test_lanes_go_ahead_of_the_trained_policy():
    failed = dataclasses.replace(scores(), score=np.array([0.0, np.nan, 0.0, 0.0]))
    assert TargetPolicy().assign(np.array([[0.9]]), failed, LANES)[0].tolist() == [1, 1, 2, 1]
    doubtful = scores(confidence=np.array([1.0, 1.0, 1.0, 0.1]))
    floor = dataclasses.replace(LANES, confidence_floor=0.5)
    assert TargetPolicy().assign(np.array([[0.7]]), doubtful, floor)[0].tolist() == [0, 0, 2, 2]


def test_a_decision_says_from_where_on_it_holds():
    found = decide(TargetPolicy(), np.array([0.9]), scores(), LANES)
    assert found.tier.tolist() == [1, 2, 2, 1]
    assert [text.split(" from ")[1] for text in found.reason] == [
        "tau 0.9000 on",
        "tau 0.9000 on",
        "tau 0.7000 on",
        "tau 0.9000 on",
    ]


def test_the_family_enumerates_its_levels():
    family = policy_family("target", scores(), LANES, 3)
    assert isinstance(family, TargetFamily) and family.parameter_names == ("tau",)
    np.testing.assert_array_equal(family.targets[:, 0], TARGETS)
    np.testing.assert_array_equal(family.assign(family.targets), LEVELS.T)
    np.testing.assert_allclose(family.space.decode(family.space.encode(family.targets)), family.targets)
    np.testing.assert_allclose(family.sweep(np.array([0.8]), 0, 5)[:, 0], TARGETS)
    assert family.deploy(np.array([0.8])).values == {"tau": 0.8}


def test_scores_without_a_trained_policy_are_refused():
    with pytest.raises(ConfigError, match="controller=proteus"):
        TargetFamily(ScoreTable(score=np.zeros(3)), LANES, 3)


def test_levels_follow_their_queries():
    rows = np.array([2, 0])
    taken = scores().take(rows)
    np.testing.assert_array_equal(taken.levels, LEVELS[rows])
    np.testing.assert_array_equal(taken.level_targets, TARGETS)
