"""Joint choices: exactly what fits, each reachable, each found again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.errors import InfeasibleError
from toolkit.deployment.choices import FreeChoices, JointChoices

PRICES = (np.array([0.0, 3.0, 1.0, 2.0]), np.array([5.0, 0.0, 4.0]))
EMPTY = (0, 1)


def product(keep):
    rows = [(a, b) for a in range(4) for b in range(3) if keep(a, b)]
    return np.array(rows, dtype=np.int64)


def within(budget):
    return product(lambda a, b: PRICES[0][a] + PRICES[1][b] <= budget)


def grid(n):
    x = (np.arange(n) + 0.5) / n
    return np.stack([g.ravel() for g in np.meshgrid(x, x, indexing="ij")], axis=1)


def test_decode_gives_every_fitting_choice_and_no_other():
    feasible = within(6.0)
    choices = JointChoices(feasible, PRICES, EMPTY)
    X = grid(60)
    found = choices.decode(X, np.ones((len(X), 2), dtype=bool))
    wanted = {(a, b) for a, b in feasible.tolist() if a != 0 and b != 1}
    assert {tuple(row) for row in found.tolist()} == wanted == {tuple(row) for row in choices.all.tolist()}


def test_a_tier_without_requests_takes_no_gpu_and_one_with_requests_takes_some():
    choices = JointChoices(within(6.0), PRICES, EMPTY)
    X = grid(20)
    needed = np.tile([True, False], (len(X), 1))
    found = choices.decode(X, needed)
    assert (found[:, 1] == 1).all() and (found[:, 0] != 0).all()
    assert set(found[:, 0].tolist()) == {1, 2, 3}


def test_coordinates_run_from_cheap_to_dear():
    choices = JointChoices(within(9.0), PRICES, EMPTY)
    X = np.stack([np.linspace(0, 1, 50), np.zeros(50)], axis=1)
    prices = PRICES[0][choices.decode(X, np.ones((50, 2), dtype=bool))[:, 0]]
    assert (np.diff(prices) >= 0).all() and prices[0] == 1.0 and prices[-1] == 3.0


def test_nothing_that_deploys_all_tiers_is_an_error_of_one_line():
    with pytest.raises(InfeasibleError, match="no deployment of all tiers fits the GPUs and the budget"):
        JointChoices(within(4.0), PRICES, EMPTY)


@st.composite
def problems(draw):
    m = draw(st.integers(2, 3))
    sizes = [draw(st.integers(2, 5)) for _ in range(m)]
    prices = tuple(np.array([0.0, *draw(st.lists(st.integers(1, 6), min_size=s, max_size=s))]) for s in sizes)
    budget = sum(float(p[1:].min()) for p in prices) + draw(st.integers(0, 8))
    rows = np.stack([g.ravel() for g in np.meshgrid(*[np.arange(s + 1) for s in sizes], indexing="ij")], axis=1)
    total = sum(p[rows[:, i]] for i, p in enumerate(prices))
    return rows[total <= budget], prices, tuple(0 for _ in sizes)


@given(problems(), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_encode_is_the_inverse_of_decode(problem, seed):
    feasible, prices, empty = problem
    choices = JointChoices(feasible, prices, empty)
    rng = np.random.default_rng(seed)
    X = rng.random((40, len(prices)))
    needed = rng.random((40, len(prices))) < 0.8
    found = choices.decode(X, needed)
    known = {tuple(row) for row in feasible.tolist()}
    assert all(tuple(row) in known for row in found.tolist())
    again = choices.decode(choices.encode(found, needed), needed)
    assert np.array_equal(found, again)
    everything = choices.all
    all_needed = np.ones(everything.shape, dtype=bool)
    assert np.array_equal(choices.decode(choices.encode(everything, all_needed), all_needed), everything)


def test_free_choices_pick_for_each_tier_alone():
    choices = FreeChoices(PRICES, EMPTY)
    X = grid(30)
    needed = np.ones((len(X), 2), dtype=bool)
    found = choices.decode(X, needed)
    assert len({tuple(row) for row in found.tolist()}) == len(choices.all) == 6
    assert np.array_equal(choices.decode(choices.encode(found, needed), needed), found)
