"""Latency of one replica over its load: closed forms, monotone, repeatable."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from offline_toy import RECIPE, fleet, lengths, made_up_table

from simulators.deployment.performance import Speed
from simulators.deployment.plan import Replica
from simulators.errors import ConfigError, InputDataError
from toolkit.deployment.offline import (
    OfflineRecipe,
    between,
    capacity_per_s,
    draw_workload,
    falling,
    load_shares,
    quantile_of,
    replica_table,
    replica_tables,
)

SERVICE_S = 0.5
ONE_AT_A_TIME = Speed(
    prefill_floor_s=SERVICE_S,
    prefill_token_s=0.0,
    prefill_square_s=0.0,
    decode_s=0.1,
    sequence_s=0.0,
    context_s=0.0,
    kv_tokens=100,
    max_batch=1,
)


def md1_wait_cdf(t: float, load: float) -> float:
    """P(wait <= t) of M/D/1 (Erlang)."""
    terms = range(math.floor(t / SERVICE_S) + 1)
    x = [load * (j * SERVICE_S - t) for j in terms]
    return (1 - load * SERVICE_S) * sum(v**j / math.factorial(j) * math.exp(-v) for j, v in zip(terms, x, strict=True))


def test_one_request_at_a_time_of_fixed_length_is_md1():
    recipe = OfflineRecipe(requests=60_000, load_points=6, windows=2, top_load=0.9)
    ones = (np.ones(5), np.ones(5))
    capacity = capacity_per_s(ONE_AT_A_TIME, ones, recipe, 0)
    assert capacity == pytest.approx(1 / SERVICE_S, rel=1e-3)
    work = draw_workload(ones, recipe, horizon_s=2000.0, most_per_s=capacity, seed=1)
    table = replica_table(Replica(gpu="x"), ONE_AT_A_TIME, capacity, work=work, recipe=recipe)
    for load, cdf in list(zip(table.loads_per_s, table.cdf, strict=True))[:4]:
        for t in (0.2, 0.7, 1.3, 2.0):
            found = np.interp(np.log(t + SERVICE_S), np.log(recipe.edges_s), cdf)
            assert found == pytest.approx(md1_wait_cdf(t, load), abs=0.025)


@pytest.fixture(scope="module")
def tables():
    return replica_tables(fleet(), lengths(), recipe=RECIPE, seed=0)


def test_latency_rises_with_load_at_every_level(tables):
    assert [len(of) > 3 for of in tables] == [True, True]
    for table in (table for of in tables for table in of):
        assert (np.diff(table.cdf, axis=0) <= 1e-12).all() and (np.diff(table.cdf, axis=1) >= -1e-12).all()
        assert (np.diff(table.p95_s) >= -1e-9).all() and (np.diff(table.loads_per_s) > 0).all()
        assert table.p95_s[-1] > 1.5 * table.p95_s[0]  # the last load is more than it can carry


def test_the_same_seed_gives_the_same_tables_and_another_one_others(tables):
    again = replica_tables(fleet(), lengths(), recipe=RECIPE, seed=0)
    other = replica_tables(fleet(), lengths(), recipe=RECIPE, seed=1)
    assert all(a.cdf.tobytes() == b.cdf.tobytes() for a, b in zip(tables[0], again[0], strict=True))
    assert any(a.cdf.tobytes() != b.cdf.tobytes() for a, b in zip(tables[0], other[0], strict=True))


def test_progress_counts_every_replica():
    seen = []
    found = replica_tables(
        fleet(count=1), lengths(), recipe=RECIPE, seed=0, on_progress=lambda done, total: seen.append((done, total))
    )
    n = sum(map(len, found))
    assert seen == [(i + 1, n) for i in range(n)]


def test_regular_arrivals_wait_less():
    even = dataclasses.replace(RECIPE, cv=0.2, requests=2000)
    uneven = dataclasses.replace(RECIPE, cv=2.0, requests=2000)
    p95 = [replica_tables(fleet(count=1), lengths(), recipe=r, seed=0)[0][0].p95_s[3] for r in (even, uneven)]
    assert p95[0] < p95[1]


def test_a_load_is_what_it_says_and_every_query_is_asked_equally_often():
    tokens = (np.arange(1.0, 51.0), np.ones(50))
    work = draw_workload(tokens, RECIPE, horizon_s=100.0, most_per_s=2.0, seed=4)
    assert np.ptp(np.bincount(work.input_tokens[:1500].astype(int))[1:]) == 0
    for rate in (0.5, 1.7):
        found = work.latencies(ONE_AT_A_TIME, rate, 3)
        assert len(found) == pytest.approx(rate * 3 * 100.0, rel=0.1)  # those after the warm-up
    free = work.latencies(dataclasses.replace(ONE_AT_A_TIME, prefill_floor_s=1e-9), 0.5, 3)
    assert (free < 1e-6).all()


def test_the_fixed_grid_is_the_papers_as_far_as_the_replica_goes():
    recipe = dataclasses.replace(RECIPE, load_grid="fixed")
    assert recipe.loads(100.0).tolist() == list(range(2, 42, 2))
    assert recipe.loads(5.0).tolist() == [2, 4, 6]
    assert recipe.loads(0.1).tolist() == [2]


@given(st.integers(1, 40), st.floats(0.05, 3.0))
@settings(max_examples=50, deadline=None)
def test_load_shares_rise_to_the_top(n, top):
    shares = load_shares(n, top)
    assert len(shares) == n and shares[0] > 0 and shares[-1] == pytest.approx(top) and (np.diff(shares) > 0).all()


def test_a_level_carries_the_largest_load_within_it():
    table = made_up_table([1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 4.0, 8.0])
    assert table.load_at(np.array([1.9, 2.0, 8**0.5, 8.0, 99.0])) == pytest.approx([0.0, 2.0, 2.5, 4.0, 4.0])
    assert table.p95_at(np.array([0.1, 2.5, 4.0, 4.1])) == pytest.approx([2.0, 8**0.5, 8.0, np.inf])


def test_quantiles_lie_between_those_of_two_loads_and_nothing_ends_beyond():
    table = made_up_table([1.0, 2.0], [1.0, 3.0])  # uniform up to 1 / 0.95 and 3 / 0.95
    below, middle, beyond = table.cdf_at(np.array([0.2, 1.25, 2.1]))
    np.testing.assert_allclose(below, table.cdf[0])
    edges = np.geomspace(1e-3, 1e4, table.cdf.shape[1])
    for q in (0.1, 0.5, 0.95):
        assert quantile_of(middle, edges, q) == pytest.approx(q / 0.95 * 3**0.25, rel=0.02)
    assert (beyond == 0).all() and (np.diff(middle) >= 0).all() and middle[-1] == 1


def test_what_never_ends_stays_so_between_loads():
    table = made_up_table([1.0, 2.0], [1.0, 3.0])
    high = 0.9 * table.cdf[1]
    found = between(table.cdf[0], high, 0.5)
    assert found[-1] == pytest.approx(0.9) and (np.diff(found) >= 0).all()
    np.testing.assert_array_equal(between(table.cdf[0], high, 1.0), high)


def test_falling_is_least_squares_by_weight():
    raw = np.array([[0.5, 1.0], [0.8, 1.0], [0.2, 0.9]])
    found = falling(raw, np.array([1.0, 2.0, 1.0]))
    np.testing.assert_allclose(found, [[0.7, 1.0], [0.7, 1.0], [0.2, 0.9]])


def test_quantiles_between_edges_and_beyond():
    edges = np.array([1.0, 10.0, 100.0])
    cdf = np.array([[0.5, 1.0, 1.0], [0.99, 1.0, 1.0], [0.1, 0.2, 0.9]])
    np.testing.assert_allclose(quantile_of(cdf, edges, 0.75), [10**0.5, 1.0, 10 ** (1 + 0.55 / 0.7)])
    assert np.isinf(quantile_of(cdf, edges, 0.95)[2])


def test_missing_token_counts_are_refused():
    broken = lengths()
    broken[1][1][4] = np.nan
    with pytest.raises(InputDataError, match="tokens of every answer of large"):
        replica_tables(fleet(count=2), broken, recipe=RECIPE, seed=0)


def test_requests_that_never_fit_are_refused():
    long = [(np.full(10, 1e7), np.full(10, 5.0))] * 2
    with pytest.raises(InputDataError, match="all are longer"):
        replica_tables(fleet(count=2), long, recipe=RECIPE, seed=0)


def test_a_model_that_fits_nowhere_is_refused():
    with pytest.raises(ConfigError, match="large fits none of the GPU types"):
        replica_tables(
            fleet(count=3).model_copy(update={"gpus": {"little": fleet(count=1).gpus["little"]}}),
            lengths(),
            recipe=RECIPE,
            seed=0,
        )


@pytest.mark.parametrize("wrong", [{"level": 1.0}, {"requests": 5}, {"cv": 0.0}, {"shortest_s": 9e9}])
def test_wrong_recipes_are_refused(wrong):
    with pytest.raises(ConfigError, match="offline tables need"):
        dataclasses.replace(RECIPE, **wrong)
