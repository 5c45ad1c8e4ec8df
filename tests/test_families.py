"""Contract of every family: what is searched, evaluated, swept, deployed and moved to other queries is one policy."""

import dataclasses
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import make_table

from simulators.errors import ConfigError
from toolkit.dimensions import Dimension
from toolkit.evaluation.estimators import AssignmentEstimator, headline_metrics
from toolkit.evaluation.metrics import parse_metric
from toolkit.evaluation.slices import coverage
from toolkit.families.base import dimension_sweep
from toolkit.families.eligibility import EligibilityFamily
from toolkit.families.thresholds import ConfidenceFamily, SliceThresholdFamily, ThresholdFamily
from toolkit.families.utility import UtilityFamily
from toolkit.policies.lanes import FREE, Lanes
from toolkit.policies.thresholds import UNREACHABLE, ThresholdPolicy
from toolkit.policies.utility import UtilityPolicy
from toolkit.scorers.base import ScoreTable

CONF = Path(__file__).resolve().parent.parent / "conf" / "space" / "litellm.yaml"
K, N = 3, 240
TIERS = ("tier0", "tier1", "tier2")
OWN = ("slice0", "slice2")
PLAIN = Lanes(fallback_tier=1, low_confidence_tier=2)
FLOOR = Lanes(fallback_tier=1, low_confidence_tier=2, confidence_floor=0.2)
ELIGIBLE = Lanes(fallback_tier=1, low_confidence_tier=0, eligible_tier=2, eligibility_threshold=0.7)
BOTH = dataclasses.replace(ELIGIBLE, confidence_floor=0.2)


def queries_and_scores(seed, *, lane=True, prompts=False):
    """A table whose queries carry their slice, and scores of it; some queries have none."""
    rng = np.random.default_rng(seed)
    table = make_table(rng, n=N, k=K, prompts=prompts)
    queries = dataclasses.replace(table.queries, slice=np.array(table.slices)[table.slice_code])
    table = dataclasses.replace(table, queries=queries)
    score = rng.normal(size=N)
    if lane:
        score[rng.random(N) < 0.05] = np.nan
    quality = np.clip(table.quality + rng.normal(scale=0.3, size=(N, K)), 0, 1)
    scores = ScoreTable(
        score=score,
        confidence=rng.random(N),
        quality=quality,
        cost_usd=table.cost_usd * rng.uniform(0.8, 1.2, (N, K)),
        eligibility=rng.random(N),
    )
    return table, scores


def litellm_family(scores, queries):
    from toolkit.families.litellm import LiteLLMFamily
    from toolkit.scorers.litellm_signals import raw_signals

    parameters = yaml.safe_load(CONF.read_text(encoding="utf-8"))["parameters"]
    box = tuple(Dimension(name=name, **spec) for name, spec in parameters.items())
    return LiteLLMFamily(scores, raw_signals(queries), PLAIN, K, box)


FAMILIES = {
    "thresholds": lambda scores, queries: ThresholdFamily(scores, PLAIN, K),
    "thresholds_floor": lambda scores, queries: ThresholdFamily(scores, FLOOR, K),
    "thresholds_lanes": lambda scores, queries: ThresholdFamily(scores, BOTH, K),
    "utility": lambda scores, queries: UtilityFamily(scores, PLAIN, K, 0.0),
    "utility_offsets": lambda scores, queries: UtilityFamily(scores, FLOOR, K, 0.2),
    "utility_lanes": lambda scores, queries: UtilityFamily(scores, BOTH, K, 0.0),
    "confidence": lambda scores, queries: ConfidenceFamily(scores, PLAIN, TIERS, (0.1, 0.8)),
    "confidence_eligible": lambda scores, queries: ConfidenceFamily(scores, ELIGIBLE, TIERS, (0.1, 0.8)),
    "eligibility": lambda scores, queries: EligibilityFamily(scores, BOTH, K, (0.0, 1.0)),
    "slice_thresholds": lambda scores, queries: SliceThresholdFamily(scores, queries, FLOOR, K, OWN),
    "litellm": litellm_family,
}


def made(name, seed=0):
    """`(family, table)`; LiteLLM scores prompts itself."""
    if name == "litellm":
        from toolkit.scorers.litellm import LiteLLMScorer

        table, _ = queries_and_scores(seed, prompts=True)
        scores = LiteLLMScorer().predict(table.queries)
    else:
        table, scores = queries_and_scores(seed)
    return FAMILIES[name](scores, table.queries), table


def drawn(family, n=25):
    return family.space.decode(np.random.default_rng(3).random((n, family.space.dim)))


def run(deployment, scores, queries):
    """Tiers of what was deployed, by the ordinary policy, as a router would compute them."""
    policy = {"thresholds": ThresholdPolicy(), "utility": UtilityPolicy()}[deployment.policy]
    assert tuple(deployment.values) == policy.parameter_names(K)
    if deployment.scorer:
        from toolkit.scorers.litellm import LiteLLMScorer, LiteLLMSettings

        settings = LiteLLMSettings.model_validate(deployment.scorer)
        scores = LiteLLMScorer(settings=settings).predict(queries)
    tier = policy.assign(np.array([list(deployment.values.values())]), scores, deployment.lanes)[0]
    for name, own in deployment.slice_thresholds.items():
        rows = np.flatnonzero(queries.slice == name)
        tier[rows] = policy.assign(np.array([own]), scores.take(rows), deployment.lanes)[0]
    return tier


@pytest.fixture(scope="module", params=[*list(FAMILIES)[:-1], pytest.param("litellm", marks=pytest.mark.verify)])
def case(request):
    if request.param == "litellm" and find_spec("litellm") is None:
        pytest.skip("litellm is not installed")
    return (request.param, *made(request.param))


class TestFamilyContract:
    def test_shapes(self, case):
        _, family, table = case
        params = drawn(family)
        assert params.shape == (25, len(family.parameter_names)) and np.isfinite(params).all()
        assert len(set(family.parameter_names)) == len(family.parameter_names)
        tier = family.assign(params)
        assert tier.shape == (25, table.n_queries) and tier.dtype == np.int8
        assert tier.min() >= 0 and tier.max() < K
        assert len({row.tobytes() for row in tier}) > 5

    def test_estimate_equals_the_reference(self, case):
        _, family, table = case
        params, cover = np.concatenate([family.corners(), drawn(family)]), coverage(table, 20)
        slow = AssignmentEstimator(table, cover, family.assign(params))
        fast = family.estimate(table, cover, params)
        metrics = (*headline_metrics(table, cover), parse_metric("quality@slice1"), parse_metric("share_over:2@slice0"))
        for name, values in fast.values(metrics).items():
            np.testing.assert_allclose(values, slow.values(metrics)[name], rtol=1e-10, err_msg=name)
        np.testing.assert_array_equal(fast.tier_counts(), slow.tier_counts())

    def test_decode_of_encode_acts_the_same(self, case):
        _, family, _ = case
        params = np.concatenate([family.corners(), drawn(family)])
        X = family.space.encode(params)
        assert X.shape == (len(params), family.space.dim) and X.min() >= -1e-9 and X.max() <= 1 + 1e-9
        np.testing.assert_array_equal(family.assign(family.space.decode(X)), family.assign(params))

    def test_corners_send_every_query_outside_a_lane_to_one_tier(self, case):
        name, family, _ = case
        corners = family.corners()
        tier = family.assign(corners)
        free = family.lanes.pinned(family.scores) == FREE
        if not name.startswith("utility"):
            expected = np.repeat(np.arange(K)[:, None], free.sum(), axis=1)
        else:  # the ends of the path: the best by prediction, whatever it costs, and the cheapest by prediction
            quality, cost = family.scores.quality[free], family.scores.cost_usd[free]
            best = quality == quality.max(axis=1, keepdims=True)
            expected = np.stack([np.where(best, cost, np.inf).argmin(axis=1), cost.argmin(axis=1)])
        np.testing.assert_array_equal(tier[:, free], expected)

    def test_a_deployment_acts_like_its_candidate(self, case):
        _, family, table = case
        for params in (*family.corners(), *drawn(family, 8)):
            found = run(family.deploy(params), family.scores, table.queries)
            np.testing.assert_array_equal(found, family.assign(params[None])[0])

    def test_on_other_queries_a_transferred_candidate_acts_like_its_deployment(self, case):
        name, family, _ = case
        other, table = made(name, seed=1)
        there = family.transfer(other.scores, table.queries)
        assert (there.kind, there.parameter_names) == (family.kind, family.parameter_names)
        for params in drawn(family, 8):
            found = run(family.deploy(params), other.scores, table.queries)
            np.testing.assert_array_equal(there.assign(params[None])[0], found)

    def test_a_sweep_moves_one_parameter_through_the_point(self, case):
        _, family, _ = case
        for params in (family.corners()[0], *drawn(family, 4)):
            for i in range(len(params)):
                swept = family.sweep(params, i, 20)
                assert (np.diff(swept[:, i]) > 0).all() and 1 <= len(swept) <= 41
                assert (swept == params).all(axis=1).sum() == 1
                others = np.delete(swept, i, axis=1)
                np.testing.assert_array_equal(others, np.tile(np.delete(params, i), (len(swept), 1)))
                assert len(family.assign(swept)) == len(swept)  # boundaries that decrease would be refused


@pytest.mark.parametrize("name", ["thresholds", "thresholds_floor", "confidence", "slice_thresholds"])
def test_a_boundary_moves_by_one_per_cent_of_its_traffic(name):
    family, _ = made(name)
    middle = family.space.decode(np.full((1, family.space.dim), 0.5))[0]
    for i, parameter in enumerate(family.parameter_names):
        if not parameter.startswith("t_"):
            continue
        tier = family.assign(family.sweep(middle, i, 20))
        moved = (np.diff(tier, axis=0) != 0).sum(axis=1)
        one = max(1.0, 0.01 * (family.lanes.pinned(family.scores) == FREE).sum())
        if name == "slice_thresholds":
            one = 1.0  # each slice and the rest hold fewer than 100 queries
        below_floor = 0.6 if name == "confidence" else 0.0  # queries in the searched lane do not move
        assert moved.max() <= np.ceil(one) and moved.mean() >= (1 - below_floor) * np.floor(one)
        assert 10 < len(tier) <= 41


def test_where_scores_tie_a_sweep_takes_the_next_boundary_either_way():
    """Four scores, each of a quarter of the traffic: twenty steps of 1 % come to nothing less than one quarter."""
    scores = ScoreTable(score=np.repeat(np.arange(4.0), 250))
    swept = ThresholdFamily(scores, PLAIN, 2).sweep(np.array([1.5]), 0, 20)
    assert swept[:, 0].tolist() == [0.5, 1.5, 2.5]


def test_a_sweep_ends_where_no_traffic_is_left_and_at_the_neighbours():
    family = ThresholdFamily(ScoreTable(score=np.arange(10.0)), PLAIN, 3)
    assert family.sweep(np.array([3.5, 4.5]), 0, 20)[:, 0].tolist() == [-UNREACHABLE, 0.5, 1.5, 2.5, 3.5, 4.5]
    assert family.sweep(np.array([3.5, 4.5]), 0, 2)[:, 0].tolist() == [1.5, 2.5, 3.5, 4.5]
    assert family.sweep(np.array([3.5, 7.5]), 1, 20)[-1, 1] == UNREACHABLE
    one = ThresholdFamily(ScoreTable(score=np.zeros(10)), PLAIN, 2).sweep(np.array([-UNREACHABLE]), 0, 20)
    assert one[:, 0].tolist() == [-UNREACHABLE, UNREACHABLE]


def test_a_sweep_of_slices_stops_at_boundaries_of_the_same_slice_only():
    family, _ = made("slice_thresholds")
    names, params = family.parameter_names, family.corners()[1]
    assert names == ("t_1", "t_2", "t_1[slice0]", "t_2[slice0]", "t_1[slice2]", "t_2[slice2]")
    params[:2], params[4:] = 0.0, [-0.5, -0.5]
    swept = family.sweep(params, 4, 20)[:, 4]
    assert swept[-1] <= -0.5 and len(swept) > 10
    assert family.sweep(params, 1, 20)[0, 1] >= 0.0


def test_a_dimension_sweep_steps_one_per_cent_of_its_range_and_no_choice_has_an_order():
    params = np.array([0.5, 10.0, 1.0])
    values = dimension_sweep(Dimension(name="a"), params, 0, 20)[:, 0]
    np.testing.assert_allclose(values, np.arange(30, 71) / 100)
    tiny = dimension_sweep(Dimension(name="a", low=0.0, high=1e-9), np.array([5e-10]), 0, 3)[:, 0]
    np.testing.assert_allclose(tiny, np.arange(47, 54) * 1e-11)
    at_zero = dimension_sweep(Dimension(name="a", low=-0.3, high=0.6), np.array([0.0]), 0, 1)[:, 0]
    np.testing.assert_allclose(at_zero, [-0.009, 0.0, 0.009], atol=1e-15)
    whole = dimension_sweep(Dimension(name="n", kind="integer", low=1, high=20), params, 1, 20)[:, 1]
    assert whole.tolist() == list(range(6, 15))
    choice = Dimension(name="c", kind="categorical", choices=("x", "y", "z"))
    np.testing.assert_array_equal(dimension_sweep(choice, params, 2, 20), params[None])


def test_at_the_end_of_its_range_a_dimension_is_swept_one_way():
    values = dimension_sweep(Dimension(name="a", low=0.5, high=1.0), np.array([0.5]), 0, 5)[:, 0]
    np.testing.assert_allclose(values, 0.5 + 0.005 * np.arange(6))


def test_lambda_is_swept_on_its_logarithm_and_offsets_by_a_thousandth_of_quality():
    family, _ = made("utility_offsets")
    params = np.array([np.exp(np.log(family.path.lambdas[[0, -1]]).mean()), 0.01, -0.02])
    lam = family.sweep(params, 0, 20)[:, 0]
    width = np.log(family.path.lambdas[-1] / family.path.lambdas[0])
    np.testing.assert_allclose(np.diff(np.log(lam)), 0.01 * width, rtol=1e-6)
    np.testing.assert_allclose(family.sweep(params, 2, 3)[:, 2], -0.02 + 0.001 * np.arange(-3, 4))


def test_the_searched_floor_and_tier_decide_low_confidence():
    scores = ScoreTable(score=np.array([0.0, 0.0, 1.0, np.nan]), confidence=np.array([0.2, 0.5, 0.2, 0.1]))
    family = ConfidenceFamily(scores, PLAIN, TIERS, (0.0, 1.0))
    assert family.parameter_names == ("t_1", "t_2", "confidence_floor", "low_confidence_tier")
    tier = family.assign(np.array([[0.5, 0.5, 0.5, 1.0], [0.5, 0.5, 0.0, 1.0], [0.5, 0.5, 0.3, 0.0]]))
    assert tier.tolist() == [[1, 0, 1, 1], [0, 0, 2, 1], [0, 0, 0, 1]]
    lanes = family.deploy(np.array([0.5, 0.5, 0.3, 0.0])).lanes
    assert (lanes.confidence_floor, lanes.low_confidence_tier, lanes.fallback_tier) == (0.3, 0, 1)


def test_other_slices_keep_the_common_boundaries():
    table, scores = queries_and_scores(0, lane=False)
    family = SliceThresholdFamily(scores, table.queries, PLAIN, K, ("slice1",))
    params = np.array([[-UNREACHABLE, UNREACHABLE, UNREACHABLE, UNREACHABLE]])
    np.testing.assert_array_equal(family.assign(params)[0], np.where(table.queries.slice == "slice1", 0, 1))
    assert family.deploy(params[0]).slice_thresholds == {"slice1": [UNREACHABLE, UNREACHABLE]}


def test_a_slice_that_the_other_queries_lack_does_not_matter_there():
    table, scores = queries_and_scores(0, lane=False)
    family = SliceThresholdFamily(scores, table.queries, PLAIN, K, ("slice1",))
    rows = np.flatnonzero(table.queries.slice != "slice1")
    params = drawn(family)
    there = family.transfer(scores.take(rows), table.queries.take(rows))
    np.testing.assert_array_equal(there.assign(params), family.assign(params)[:, rows])


def test_all_slices_may_have_their_own_boundaries():
    table, scores = queries_and_scores(0)
    family = SliceThresholdFamily(scores, table.queries, PLAIN, K, table.slices)
    params = drawn(family)
    np.testing.assert_array_equal(
        family.assign(family.space.decode(family.space.encode(params))), family.assign(params)
    )
    assert len(family.sweep(params[0], 0, 20)) == 1  # nobody uses the common boundaries


def test_what_does_not_fit_is_refused():
    table, scores = queries_and_scores(0)
    unsure = dataclasses.replace(scores, confidence=None)
    with pytest.raises(ConfigError, match="space=confidence needs a scorer that states its confidence"):
        ConfidenceFamily(unsure, PLAIN, TIERS, (0.5, 1.0))
    with pytest.raises(ConfigError, match="confidence_floor"):
        _ = ConfidenceFamily(scores, PLAIN, TIERS, (0.9, 0.1)).space
    without = dataclasses.replace(table.queries, slice=None)
    with pytest.raises(ConfigError, match="needs a slice column"):
        SliceThresholdFamily(scores, without, PLAIN, K, OWN)
    for slices in ((), ("slice0", "slice0")):
        with pytest.raises(ConfigError, match=r"space\.slices must name distinct slices"):
            SliceThresholdFamily(scores, table.queries, PLAIN, K, slices)
    with pytest.raises(ConfigError, match="'slice9', which no query of this split has"):
        _ = SliceThresholdFamily(scores, table.queries, PLAIN, K, ("slice9",)).space
    with pytest.raises(ConfigError, match="predicted quality and cost"):
        _ = UtilityFamily(ScoreTable(score=scores.score), PLAIN, K, 0.1).space
    with pytest.raises(ConfigError, match="offset_range"):
        _ = UtilityFamily(scores, PLAIN, K, 2.0).space
