"""Intervals of steady-state figures against queues whose means are known."""

import numpy as np
import pytest

from toolkit.evaluation.steady_state import (
    SteadyEstimate,
    batch_mean,
    batch_quantile,
    lag_one,
    over_replications,
)

RHO = 0.8
MEAN_WAIT = RHO / (1 - RHO)  # M/M/1, service rate 1
WAIT_P90 = np.log(RHO / 0.1) / (1 - RHO)  # P(W > t) = rho exp(-(1 - rho) t)


def waits(rng: np.random.Generator, n: int, warmup: int = 5_000) -> np.ndarray:
    """Waits of `n` customers of an M/M/1 queue by Lindley's recursion, written as a running minimum."""
    gaps = rng.exponential(1 / RHO, n + warmup)
    service = rng.exponential(1.0, n + warmup)
    walk = np.concatenate([[0.0], np.cumsum(service[:-1] - gaps[1:])])
    return (walk - np.minimum.accumulate(np.minimum(walk, 0.0)))[warmup:]


def coverage(found: list[SteadyEstimate], truth: float) -> float:
    return float(np.mean([e.low <= truth <= e.high for e in found]))


def test_waits_are_those_of_the_queue():
    assert waits(np.random.default_rng(0), 2_000_000).mean() == pytest.approx(MEAN_WAIT, rel=0.03)


@pytest.mark.slow
def test_batch_means_cover_the_mean_wait():
    rng = np.random.default_rng(1)
    found = [batch_mean(waits(rng, 100_000)) for _ in range(400)]
    known = [e for e in found if e.known]
    assert len(known) > 390
    assert 0.90 < coverage(known, MEAN_WAIT) < 0.985


@pytest.mark.slow
def test_sections_cover_a_quantile():
    rng = np.random.default_rng(2)
    found = [batch_quantile(waits(rng, 100_000), 0.9) for _ in range(300)]
    known = [e for e in found if e.known]
    assert len(known) > 280
    assert 0.90 < coverage(known, WAIT_P90) < 0.985


@pytest.mark.slow
def test_replications_cover_the_mean_wait():
    rng = np.random.default_rng(3)
    found = [over_replications(np.array([waits(rng, 20_000).mean() for _ in range(8)])) for _ in range(300)]
    assert 0.92 < coverage(found, MEAN_WAIT) < 0.98


def test_taking_requests_as_independent_covers_far_too_rarely():
    """Why there are batches: waits correlate over hundreds of requests, and an iid interval does not know it."""
    rng = np.random.default_rng(4)
    runs = [waits(rng, 20_000) for _ in range(100)]
    arms = [1.96 * w.std() / np.sqrt(len(w)) for w in runs]
    covered = np.mean([abs(w.mean() - MEAN_WAIT) <= arm for w, arm in zip(runs, arms, strict=True)])
    assert covered < 0.4
    batched = batch_mean(waits(rng, 200_000))
    iid = 2 * 1.96 * 4.9 / np.sqrt(200_000)  # 4.9 is the standard deviation of a wait
    assert 6 * iid < batched.high - batched.low < 14 * iid  # 9 in theory


def test_independent_values_keep_their_usual_interval():
    rng = np.random.default_rng(5)
    found = [batch_mean(rng.standard_normal(4_000)) for _ in range(300)]
    assert all(e.n == 40 for e in found) and 0.92 < coverage(found, 0.0) < 0.98
    assert np.mean([e.high - e.low for e in found]) == pytest.approx(2 * 2.02 / np.sqrt(4_000), rel=0.03)


def test_a_short_dependent_run_has_no_interval():
    found = batch_mean(waits(np.random.default_rng(6), 3_000))
    assert not found.known and np.isnan(found.low) and "depend on each other" in found.note
    trend = np.linspace(0, 1, 50_000) + np.random.default_rng(7).standard_normal(50_000) * 0.1
    assert "changes over time" in batch_mean(trend).note


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros(0), "no request"),
        (np.ones(5_000), "the same in every request"),
        (np.concatenate([np.zeros(4_997), np.ones(3)]), "too few requests differ"),
        (np.arange(60.0) % 7, "too few requests for batches"),
    ],
)
def test_what_is_not_known_is_said(values, said):
    found = batch_mean(values)
    assert not found.known and said in found.note
    assert np.isnan(found.value) if len(values) == 0 else found.value == values.mean()


def test_a_tail_needs_requests_beyond_it_in_every_batch():
    values = np.random.default_rng(8).exponential(size=5_000)
    assert batch_quantile(values, 0.5).n == 40
    assert batch_quantile(values, 0.99).note == "too few requests for batches"
    found = batch_quantile(np.random.default_rng(8).exponential(size=50_000), 0.99)
    assert found.known and found.low < np.log(100) < found.high


def test_replications():
    values = np.array([1.0, 2.0, 3.0, np.nan])
    found = over_replications(values)
    assert found.value == 2.0 and found.n == 3 and found.high - 2.0 == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)
    cut = over_replications(values, bounds=(0.0, 2.5))
    assert (cut.low, cut.high) == (0.0, 2.5)
    two = over_replications(values[:2])
    assert two.value == 1.5 and not two.known and "at least 3" in two.note
    same = over_replications(np.zeros(8))
    assert same.value == 0.0 and not same.known and "the same" in same.note
    assert np.isnan(over_replications(np.array([np.nan])).value)


def test_autocorrelation():
    assert lag_one(np.array([1.0, -1.0, 1.0, -1.0])) == -0.75
    assert lag_one(np.ones(5)) == 0.0
    rng = np.random.default_rng(9)
    noise, series = rng.standard_normal(50_000), np.zeros(50_000)
    for i in range(1, len(series)):
        series[i] = 0.5 * series[i - 1] + noise[i]
    assert lag_one(series) == pytest.approx(0.5, abs=0.02)
