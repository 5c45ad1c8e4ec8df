"""Fast estimators equal the reference that looks every answer up; boundary cases of thresholds and lanes."""

import numpy as np
import pytest
from helpers import make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.errors import ConfigError
from toolkit.evaluation.estimators import AssignmentEstimator
from toolkit.evaluation.metrics import Metric, parse_metric
from toolkit.evaluation.path import LambdaPath, PathEstimator
from toolkit.evaluation.slices import coverage
from toolkit.evaluation.thresholds import ScoreOrder, ThresholdEstimator
from toolkit.policies.lanes import Lanes
from toolkit.policies.thresholds import UNREACHABLE, ThresholdPolicy
from toolkit.policies.utility import UtilityPolicy
from toolkit.scorers.base import ScoreTable

NAMES = [
    "cost",
    "quality",
    "worst_slice",
    "worst_slice_lcb",
    "slice_cvar:0.3",
    "slice_loss:tier0",
    "slice_loss_ucb:tier1",
    "latency_mean",
    "latency_p50",
    "latency_p95",
    "latency_p99",
    "share_over:1.0",
]


def metrics(table):
    in_slice = [f"{name}@{table.slices[0]}" for name in ("cost", "quality", "latency_p95", "latency_mean")]
    return tuple(parse_metric(name) for name in [*NAMES, *in_slice])


def assert_equal(fast, slow, table):
    for name, values in fast.values(metrics(table)).items():
        np.testing.assert_allclose(values, slow.values(metrics(table))[name], rtol=1e-10, err_msg=name)
    np.testing.assert_array_equal(fast.tier_counts(), slow.tier_counts())


@given(seed=st.integers(0, 10_000), k=st.integers(2, 5), ties=st.booleans(), floor=st.sampled_from([None, 0.3]))
@settings(deadline=None, max_examples=40)
def test_thresholds_by_prefix_sums_equal_the_reference(seed, k, ties, floor):
    rng = np.random.default_rng(seed)
    table = make_table(rng, n=60, k=k, n_slices=3)
    score = rng.integers(0, 6, 60) / 5.0 if ties else rng.normal(size=60)
    score[rng.random(60) < 0.1] = np.nan
    scores = ScoreTable(score=score, confidence=rng.random(60))
    lanes = Lanes(fallback_tier=k - 1, low_confidence_tier=0, confidence_floor=floor)
    order, cover = ScoreOrder(scores, lanes), coverage(table, 5)
    params = np.sort(rng.choice(np.append(order.boundaries, rng.normal(size=5)), (30, k - 1)), axis=1)
    slow = AssignmentEstimator(table, cover, ThresholdPolicy().assign(params, scores, lanes))
    assert_equal(ThresholdEstimator(table, cover, order, params), slow, table)


@given(seed=st.integers(0, 10_000), k=st.integers(2, 5), discrete=st.booleans())
@settings(deadline=None, max_examples=40)
def test_the_lambda_path_equals_the_reference_and_misses_no_policy(seed, k, discrete):
    rng = np.random.default_rng(seed)
    n = 40
    table = make_table(rng, n=n, k=k, n_slices=3)
    quality, cost = rng.random((n, k)), 10.0 ** rng.normal(size=(n, k))
    if discrete:
        quality, cost = np.round(quality, 1), np.ceil(cost)
    quality[rng.random(n) < 0.1] = np.nan
    scores = ScoreTable(score=rng.normal(size=n), quality=quality, cost_usd=cost)
    lanes = Lanes(fallback_tier=0, low_confidence_tier=0)
    path, cover = LambdaPath(scores, lanes), coverage(table, 5)
    params = np.concatenate([path.lambdas[:, None], np.zeros((len(path.lambdas), k - 1))], axis=1)
    assigned = UtilityPolicy().assign(params, scores, lanes)
    assert_equal(PathEstimator(table, cover, path, path.lambdas), AssignmentEstimator(table, cover, assigned), table)
    if not discrete:
        assert len({row.tobytes() for row in assigned}) == len(assigned)
    others = np.concatenate([10.0 ** rng.uniform(-3, 3, (200, 1)), np.zeros((200, k - 1))], axis=1)
    known = {row.tobytes() for row in assigned}
    at_ties = np.isin(others[:, 0], path.event_lambda)
    found = UtilityPolicy().assign(others[~at_ties], scores, lanes)
    assert all(row.tobytes() in known for row in found)


def test_known_answer_two_tiers():
    """Four queries, scores 1..4: the threshold between 2 and 3 sends two queries up."""
    rng = np.random.default_rng(0)
    table = make_table(rng, n=4, k=2, n_slices=1)
    scores = ScoreTable(score=np.array([4.0, 1.0, 3.0, 2.0]))
    lanes = Lanes(fallback_tier=0, low_confidence_tier=0)
    order = ScoreOrder(scores, lanes)
    assert order.boundaries.tolist() == [-UNREACHABLE, 1.5, 2.5, 3.5, UNREACHABLE]
    assert order.positions.tolist() == [0, 1, 2, 3, 4]
    estimator = ThresholdEstimator(table, coverage(table, 2), order, np.array([[2.5], [-UNREACHABLE], [UNREACHABLE]]))
    expected = (table.quality[[0, 2], 1].sum() + table.quality[[1, 3], 0].sum()) / 4
    found = estimator.value(Metric("quality"))
    np.testing.assert_allclose(found, [expected, table.quality[:, 1].mean(), table.quality[:, 0].mean()])


def test_a_boundary_belongs_to_the_upper_tier():
    scores = ScoreTable(score=np.array([0.3, 0.5, 0.7]))
    lanes = Lanes(fallback_tier=0, low_confidence_tier=0)
    assert ThresholdPolicy().assign(np.array([[0.5]]), scores, lanes).tolist() == [[0, 1, 1]]


def test_a_slice_without_queries_is_a_clear_error_and_never_the_worst():
    rng = np.random.default_rng(1)
    table = make_table(rng, n=50, k=2, n_slices=2)
    only = table.take(np.flatnonzero(table.slice_code == 0))
    estimator = AssignmentEstimator(only, coverage(only, 5), np.zeros((1, only.n_queries), dtype=np.int8))
    assert np.isfinite(estimator.value(Metric("worst_slice")))
    with pytest.raises(ConfigError, match="has no query"):
        estimator.value(Metric("quality", table.slices[1]))


def test_worst_slice_merges_small_slices():
    rng = np.random.default_rng(2)
    table = make_table(rng, n=100, k=2, n_slices=8)
    cover = coverage(table, 40)
    assert set(cover.groups) <= {*table.slices, "other"}
    assert "other" in cover.groups
    estimator = AssignmentEstimator(table, cover, np.ones((1, 100), dtype=np.int8))
    group = cover.group_of_slice[table.slice_code]
    expected = min(table.quality[group == g, 1].mean() for g in range(len(cover.groups)))
    np.testing.assert_allclose(estimator.value(Metric("worst_slice")), expected)


@pytest.mark.parametrize(
    "name", ["", "qualty", "worst_slice@a", "share_over", "share_over:-1", "share_over:x", "latency_p42"]
)
def test_unknown_metrics_are_refused(name):
    with pytest.raises(ConfigError):
        parse_metric(name)


def test_metric_names():
    assert parse_metric("slice:a/b") == parse_metric("quality@a/b")
    assert parse_metric("p95").column == "latency_p95_s"
    assert parse_metric("cost@x").column == "cost_usd[x]"
    assert parse_metric("share_over:2.5").column == "share_over_2.5s"
    assert parse_metric("quality").maximise and not parse_metric("cost").maximise


def test_scores_that_differ_in_their_last_bits_are_one_score():
    """LiteLLM's weighted sums do; a boundary between such twins would be noise."""
    scores = ScoreTable(score=np.array([0.15, 0.15000000000000002, -1.4e-17, 0.0, 0.3]))
    order = ScoreOrder(scores, Lanes(fallback_tier=0, low_confidence_tier=0))
    np.testing.assert_allclose(order.boundaries[1:-1], [0.075, 0.225])
    assert order.positions.tolist() == [0, 2, 4, 5]


def test_one_outlier_does_not_merge_the_other_scores():
    scores = ScoreTable(score=np.append(np.linspace(0, 1, 100), 1e13))
    assert len(ScoreOrder(scores, Lanes(fallback_tier=0, low_confidence_tier=0)).boundaries) == 102


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.slow
def test_a_figure_does_not_depend_on_how_many_candidates_are_evaluated_with_it(n):
    """Else a resumed search, which evaluates other batches, would not repeat the uninterrupted one."""
    rng = np.random.default_rng(5)
    table = make_table(rng, n=5000, k=3, n_slices=9)
    cover, lanes = coverage(table, 700), Lanes(fallback_tier=0, low_confidence_tier=0)
    score, assignment = ScoreTable(score=rng.normal(size=5000)), rng.integers(0, 3, (40, 5000)).astype(np.int8)
    params = np.sort(rng.normal(size=(40, 2)), axis=1)
    order = ScoreOrder(score, lanes)
    for make in (
        lambda rows: AssignmentEstimator(table, cover, assignment[rows]),
        lambda rows: ThresholdEstimator(table, cover, order, params[rows]),
    ):
        whole, part = make(slice(None)), make(slice(0, n))
        for name, values in part.values(metrics(table)).items():
            np.testing.assert_array_equal(values, whole.values(metrics(table))[name][:n], err_msg=name)


def test_a_slice_really_named_other_stays_apart_from_the_merged_ones():
    table = make_table(np.random.default_rng(0), n=90, k=2, n_slices=9)
    object.__setattr__(table, "slices", ("other", *table.slices[1:]))
    big = np.where(np.arange(90) < 40, 0, table.slice_code)
    object.__setattr__(table, "slice_code", big)
    cover = coverage(table, 35)
    assert cover.groups == ("other", "other (merged)") and cover.other == "other (merged)"
