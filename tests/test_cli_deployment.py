"""What is done with the figures of a fleet: its splits, other data, other runs, recorded answers, wrong input."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import recording_columns, run_cli, write_columns
from test_deployment_problem import points, problem

from experiments.fleet_after import on_fleet, per_query
from toolkit.deployment.problem import fleet_latency_s
from toolkit.deployment.requests import Requests

FLEET = (
    *("scenario=self_hosted", "gpus@scenario.fleet.gpus=types_2_small", "space=deployment", "space.rate_per_s=4"),
    *("objectives=[latency_p95,quality]", "data.n_queries=300", "space.offline.requests=200", "controller=sobol"),
)


def requests(row, counted):
    n = len(row)
    return Requests(
        arrival_s=np.arange(n, dtype=np.float64),
        row=np.array(row),
        input_tokens=np.ones((n, 2)),
        output_tokens=np.ones((n, 2)),
        counted=np.array(counted, dtype=bool),
    )


class TestSettled:
    def test_a_query_has_the_latency_of_a_counted_request_of_its_own(self):
        """Query 0 its first, query 1 its second; query 2, asked in the warm-up only, the median."""
        asked = requests([2, 0, 1, 1, 0, 1], [0, 1, 1, 1, 1, 1])
        latency_s = np.array([9.0, 1.0, 2.0, 3.0, 4.0, 5.0])
        found = per_query(asked, latency_s, SimpleNamespace(n_queries=3))
        np.testing.assert_array_equal(found, [1.0, 3.0, 3.0])

    def test_all_of_the_counted_traffic_has_its_part(self):
        rounds, n = 10, 200
        asked = requests(np.tile(np.arange(n), rounds), np.ones(rounds * n))
        instants = per_query(asked, asked.arrival_s, SimpleNamespace(n_queries=n))
        assert np.histogram(instants, bins=rounds, range=(0, rounds * n))[0].tolist() == [n // rounds] * rounds

    def test_only_the_chosen_answers_change_and_single_tiers_are_their_own(self):
        made = problem(evaluate="simulate")
        params = points(made, 3)[1]
        tier = made.family.assign(params[None, :])[0].astype(np.int64)
        plan, every = made.plan(params), np.arange(made.table.n_queries)
        settled = on_fleet(made, made.table, made.requests, plan, tier, [plan, plan])
        chosen = np.zeros(made.table.latency_s.shape, dtype=bool)
        chosen[every, tier] = True
        np.testing.assert_array_equal(settled.latency_s[~chosen], made.table.latency_s[~chosen])
        met = fleet_latency_s(made.database, plan, made.requests, tier[made.requests.row])
        np.testing.assert_array_equal(settled.latency_s[chosen], per_query(made.requests, met, made.table))
        for k in range(2):
            alone = fleet_latency_s(made.database, plan, made.requests, np.full(len(made.requests.row), k))
            np.testing.assert_array_equal(settled.bare.latency_s[:, k], per_query(made.requests, alone, made.table))
        np.testing.assert_array_equal(settled.quality, made.table.quality)


def test_too_small_a_budget_is_one_line_without_exclusion_too(tmp_path):
    options = ("space.exclude=false", "space.budget_usd_per_hour=0.1", "budget=12", "out=run")
    code, _, err = run_cli("tune", *FLEET, *options, cwd=tmp_path)
    assert code == 2 and "no deployment of all tiers fits" in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("controller=ppo_lagrangian",), "use space=policy, not deployment"),
        (
            ("controller=exact", "objectives=[latency_p95@chat,quality]"),
            "controller=exact enumerates by the offline tables, which know no slices",
        ),
        (("objectives=[latency_p95@nope,quality]",), "slice 'nope' is not in the data; it has chat"),
    ],
)
@pytest.mark.slow
def test_what_no_search_can_do_is_one_line_and_leaves_nothing(options, said, tmp_path):
    code, _, err = run_cli("tune", *FLEET, "budget=12", *options, "out=run", cwd=tmp_path)
    assert code == 2 and said in err and err.count("\n") == 1 and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_slice_latency_is_searched_where_it_is_simulated(tmp_path):
    options = ("objectives=[latency_p95@chat,quality]", 'constraints.bounds=["latency_p95@maths <= 900"]')
    code, _, err = run_cli("tune", *FLEET, *options, "controller=boute", "budget=12", "out=run", cwd=tmp_path)
    assert code == 0, err
    assert json.loads((tmp_path / "run" / "deployment.json").read_text())["expected"]["latency_p95_simulated_s"] > 0


@pytest.mark.slow
def test_other_data_says_nothing_of_single_tiers_that_the_run_deploys_nowhere(tmp_path):
    assert run_cli("tune", *FLEET, "budget=12", "out=run", cwd=tmp_path)[0] == 0
    assert "Which of its candidate deployments small has" in (tmp_path / "run" / "report.html").read_text()
    data = ("data=scenario", *FLEET[:2], "data.n_queries=200", "seed=9")
    code, out, err = run_cli("evaluate", "run=run", *data, "--json", cwd=tmp_path)
    assert code == 0, err
    found = json.loads(out)
    assert found["policy"]["latency_s"]["p95"] > 0
    assert all("latency_s" not in tier for tier in found["tiers"].values())


@pytest.mark.slow
def test_runs_that_time_differently_are_not_compared(tmp_path):
    for name, options in {"a": (), "b": ("space.evaluate=table",), "c": ("space.system_latency=max",)}.items():
        code, _, err = run_cli("tune", *FLEET, *options, "budget=12", f"out={name}", cwd=tmp_path)
        assert code == 0, err
    for other, said in (("b", "evaluate table"), ("c", "system_latency max")):
        code, _, err = run_cli("compare", f"runs=[a,{other}]", "output=cmp", cwd=tmp_path)
        assert code == 2 and "differs from a in world" in err and said in err
    code, _, err = run_cli("tune", *FLEET, "controller=random", "budget=12", "out=d", cwd=tmp_path)
    assert code == 0 and run_cli("compare", "runs=[a,d]", "output=cmp", cwd=tmp_path)[0] == 0


def recording(folder, *, tokens):
    queries, outcomes = recording_columns(n=240, tiers=("small", "large"))
    if tokens:
        rng = np.random.default_rng(0)
        outcomes |= {name: rng.integers(20, 300, 480).tolist() for name in ("input_tokens", "output_tokens")}
    return [
        f"data.{name}={write_columns(folder / f'{name}.parquet', columns)}"
        for name, columns in (("queries", queries), ("outcomes", outcomes))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [True, False])
def test_recorded_answers_on_the_fleet_of_a_scenario(tokens, tmp_path):
    data = ("data=recorded", *recording(tmp_path, tokens=tokens), "scorer=column", "scorer.column=hardness")
    fleet = [option for option in FLEET if not option.startswith("data.")]
    code, _, err = run_cli("tune", *fleet, *data, "budget=12", "out=run", cwd=tmp_path)
    if tokens:
        assert code == 0, err
        deployment = json.loads((tmp_path / "run" / "deployment.json").read_text())
        assert [tier["name"] for tier in deployment["tiers"]] == ["small", "large"]
    else:
        assert code == 2 and "needs input_tokens and output_tokens of every answer" in err and err.count("\n") == 1
        assert not (tmp_path / "run").exists()
