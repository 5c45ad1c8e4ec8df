"""Splits of a load over unequal replicas: closed form, never worse than an enumeration, everything carried."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from offline_toy import made_up_table

from simulators.errors import ConfigError
from toolkit.deployment.load_split import simplex_grid, split_load


@st.composite
def groups(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    tables, counts = [], []
    for _ in range(draw(st.integers(1, 3))):
        n = draw(st.integers(2, 6))
        loads = np.cumsum(rng.uniform(0.1, 2.0, n))
        p95 = np.maximum.accumulate(rng.uniform(0.5, 3.0) + np.cumsum(rng.choice([0.0, 0.5, 2.0], n)))
        tables.append(made_up_table(loads, p95))
        counts.append(draw(st.integers(1, 3)))
    top = sum(n * table.top_per_s for n, table in zip(counts, tables, strict=True))
    loads = top * np.array([0.03, 0.3, 0.6, 0.9, 1.0, 1.2])
    return tables, counts, loads


@given(groups())
@settings(max_examples=80, deadline=None)
def test_water_filling_is_never_worse_and_carries_everything(case):
    tables, counts, loads = case
    found = split_load(tables, counts, loads)
    for method in ("enumerate", "capacity"):
        other = split_load(tables, counts, loads, method=method)
        assert (found.level_s <= other.level_s * (1 + 1e-6)).all()
        np.testing.assert_allclose(other.load_per_s @ counts, loads)
    np.testing.assert_allclose(found.load_per_s @ counts, loads)
    np.testing.assert_allclose(found.shares(np.array(counts)).sum(axis=1), 1.0)
    assert np.isfinite(found.level_s[:5]).all() and np.isinf(found.level_s[5])
    worst = np.max([np.where(x > 0, t.p95_at(x), 0) for t, x in zip(tables, found.load_per_s.T, strict=True)], axis=0)
    np.testing.assert_allclose(worst[:5], found.level_s[:5])


def test_two_straight_lines_meet_at_one_level():
    """p95 = 1 + x and 2 + x / 2 with 10 requests per second on one and two replicas: x = 17 / 5, 33 / 10."""
    loads = np.linspace(0.001, 50, 400)
    fast, slow = made_up_table(loads, 1 + loads), made_up_table(loads, 2 + loads / 2)
    found = split_load([fast, slow], [1, 2], np.array([10.0]))
    level = found.level_s[0]
    x, y = level - 1, 2 * (level - 2)
    assert x + 2 * y == pytest.approx(10.0, rel=1e-3)
    np.testing.assert_allclose(found.load_per_s[0], [x, y], rtol=1e-3)


def test_a_slow_replica_waits_until_the_fast_one_is_as_slow():
    fast, slow = made_up_table([1.0, 10.0], [1.0, 10.0]), made_up_table([1.0, 10.0], [5.0, 6.0])
    found = split_load([fast, slow], [1, 1], np.array([3.0, 9.0]))
    assert found.load_per_s[0].tolist() == pytest.approx([3.0, 0.0]) and found.load_per_s[1, 1] > 0


def test_overload_goes_by_throughput():
    tables = [made_up_table([1.0, 2.0], [1.0, 2.0]), made_up_table([1.0, 6.0], [1.0, 2.0])]
    found = split_load(tables, [1, 1], np.array([80.0]))
    assert np.isinf(found.level_s[0])
    np.testing.assert_allclose(found.load_per_s[0], [20.0, 60.0])


@pytest.mark.parametrize(("groups", "parts"), [(1, 5), (2, 20), (4, 10), (6, 20)])
def test_enumerated_shares_sum_to_one(groups, parts):
    shares = simplex_grid(groups, parts)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    assert len(np.unique(shares, axis=0)) == len(shares) <= 2_000


def test_unknown_methods_are_refused():
    with pytest.raises(ConfigError, match="waterfill, enumerate, capacity"):
        split_load([made_up_table([1.0], [1.0])], [1], np.array([1.0]), method="other")
