"""Choosing a point where GPUs were searched, and what the report shows of a deployment."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from test_export_deployment import example

from experiments.fleet_after import per_query
from simulators.errors import ConfigError
from toolkit.deployment.requests import Requests
from toolkit.evaluation.constraints import parse_constraints
from toolkit.pareto.choose import choose
from toolkit.problem import Evaluation
from toolkit.report.deployment import deployment_figure, gpus_by_tier
from toolkit.report.figures import png_bytes


def evaluation(**columns):
    columns = {name: np.array(values, dtype=float) for name, values in columns.items()}
    n = len(next(iter(columns.values())))
    Y = np.stack([-columns["latency_p95_s"], columns["quality"]], axis=1)
    return Evaluation(
        params=np.zeros((n, 1)), Y=Y, slack=np.zeros((n, 0)), columns=columns, tier_shares=np.zeros((n, 2))
    )


FOUND = evaluation(
    latency_p95_s=[9.0, 7.0, 12.0],
    quality=[0.90, 0.85, 0.95],
    cost_usd=[2.0, 3.0, 1.0],
    fleet_usd_per_hour=[20.0, 30.0, 10.0],
)
FRONT = np.arange(3)
FLOOR = {"quality_floor": 0.8}


@pytest.mark.parametrize(
    ("rule", "row"), [("min_latency", 1), ("min_fleet_cost", 2), ("min_cost", 2), ("max_quality", 2)]
)
def test_rules_sort_by_their_column(rule, row):
    assert choose(FOUND, FRONT, rule, ()).row == row


@pytest.mark.parametrize(
    ("constraints", "rule"),
    [
        (FLOOR, "min_latency"),
        ({**FLOOR, "p95_ceiling_s": 20.0}, "min_fleet_cost"),
        ({"p95_ceiling_s": 20.0}, "max_quality"),
    ],
)
def test_a_fleet_under_a_floor_is_chosen_by_latency_and_with_a_ceiling_by_its_price(constraints, rule):
    chosen = choose(FOUND, FRONT, "auto", parse_constraints(constraints))
    assert chosen.rule == rule and chosen.because.startswith(rule)


def test_without_a_fleet_a_floor_still_means_the_cheapest():
    columns = {name: values for name, values in FOUND.columns.items() if name != "fleet_usd_per_hour"}
    found = dataclasses.replace(FOUND, columns=columns)
    assert choose(found, FRONT, "auto", parse_constraints(FLOOR)).rule == "min_cost"
    with pytest.raises(ConfigError, match="choose=min_fleet_cost needs a fleet"):
        choose(found, FRONT, "min_fleet_cost", ())


def test_the_figure_counts_every_gpu():
    deployment = example()
    used = gpus_by_tier(deployment)
    assert {name: sum(of) for name, of in used.items()} == {name: gpu.used for name, gpu in deployment.gpus.items()}
    figure = deployment_figure(deployment)
    widths = [patch.get_width() for patch in figure.axes[0].patches]
    assert sum(widths) == sum(gpu.available for gpu in deployment.gpus.values())
    assert len(png_bytes(figure)) > 2_000


@pytest.mark.parametrize("n_queries", [650, 20_000])
def test_queries_that_nobody_asks_leave_the_tail_of_the_traffic_as_it_is(n_queries):
    """More queries than requests: a median in place of the others would hide the P95."""
    n, rng = 600, np.random.default_rng(0)
    asked = Requests(
        arrival_s=np.arange(float(n)),
        row=rng.permutation(n_queries)[:n],
        input_tokens=np.ones((n, 2)),
        output_tokens=np.ones((n, 2)),
        counted=np.arange(n) >= 120,
    )
    latency_s = rng.lognormal(1.0, 1.0, n)
    found = per_query(asked, latency_s, SimpleNamespace(n_queries=n_queries))
    levels = [0.05, 0.5, 0.95]
    np.testing.assert_allclose(np.quantile(found, levels), np.quantile(latency_s[120:], levels), rtol=0.1)
