"""`controller=ppo_lagrangian` from settings: constraints as shares of requests, the comparison on unseen traffic."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import make_table
from scipy import stats

pytest.importorskip("gymnasium")

from experiments.rl_settings import PpoLagrangianSettings
from experiments.window_training import Judged, limits_of, tuning_spec
from experiments.world_settings import TrafficSettings
from simulators.envs.threshold_tuning import Limit
from simulators.errors import ConfigError
from toolkit.evaluation.constraints import Constraint
from toolkit.evaluation.metrics import parse_metric
from toolkit.policies.lanes import Lanes
from toolkit.scorers.base import ScoreTable

TRAFFIC = {
    "duration_s": 300.0,
    "arrivals": {"kind": "poisson", "rate_per_s": 2.0},
    "stations": {f"tier{k}": {"slots": 3} for k in range(3)},
}


def bounds(**limits: float) -> tuple[Constraint, ...]:
    return tuple(Constraint(name=name, metric=parse_metric(name), limit=limit) for name, limit in limits.items())


def test_constraints_become_shares_of_requests():
    named = {"quality": 0.9, "quality@a": 0.8, "cost": 1e-3, "share_over:4": 0.1, "share_within:4@a": 0.75, "p95": 4.0}
    limits, late_s = limits_of(bounds(**named))
    assert late_s == 4.0
    kinds = ["wrong", "wrong", "cost", "late", "late", "late"]
    assert [limit.kind for limit in limits] == kinds
    assert [limit.slice for limit in limits] == [None, "a", None, None, "a", None]
    assert [limit.at_most for limit in limits] == pytest.approx([0.1, 0.2, 1e-3, 0.1, 0.25, 0.05])
    assert limits_of(bounds(quality=0.9)) == ((Limit(kind="wrong", at_most=1.0 - 0.9),), None)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"latency_mean": 4.0}, "learns shares of requests"),
        ({"cost@a": 4.0}, "learns shares of requests"),
        ({"p95": 4.0, "share_over:5": 0.1}, r"one limit of latency; the constraints have \[4.0, 5.0\] s"),
        ({"share_within:5": 1.0}, "leave something"),
    ],
)
def test_what_cannot_be_learnt_is_refused(named, said):
    with pytest.raises(ConfigError, match=said):
        limits_of(bounds(**named))


def test_the_difference_is_paired_by_traffic():
    cost = np.array([[1.0, 4.0, 9.0], [2.0, 4.0, 10.0]])
    judged = Judged(trained=None, seeds=(1, 2, 3), figures={"cost_usd": cost}, late_s=None)
    mean, low, high = judged.difference("cost_usd")
    half = stats.t.ppf(0.975, 2) * np.std([-1.0, 0.0, -1.0], ddof=1) / np.sqrt(3)
    assert (mean, low, high) == pytest.approx((-2 / 3, -2 / 3 - half, -2 / 3 + half))


def test_held_out_queries_are_seen_on_the_scales_of_training():
    """Their latencies are answers: what is seen of them must not depend on those of answers to come."""
    table = make_table(np.random.default_rng(0), n=100)
    slow = dataclasses.replace(table, latency_s=3.0 * table.latency_s, _hash=[])
    scores = ScoreTable(score=table.queries.signals["difficulty"])
    chosen = PpoLagrangianSettings.model_construct(window_s=20.0, label_share=0.2, label_lag=2)
    settings = SimpleNamespace(controller=chosen, world=TrafficSettings(kind="traffic", traffic=TRAFFIC))
    problem = SimpleNamespace(constraints=bounds(quality=0.5), table=table, family=SimpleNamespace(scores=scores))
    lanes = Lanes(fallback_tier=1, low_confidence_tier=2)
    trained, judged = (tuning_spec(settings, t, scores, lanes, problem) for t in (table, slow))
    assert judged.long_latency_s == trained.long_latency_s == pytest.approx(table.latency_s.mean())
    problem.constraints = bounds(quality=0.5, p95=7.0)
    assert tuning_spec(settings, slow, scores, lanes, problem).long_latency_s == 7.0
