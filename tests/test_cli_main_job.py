"""The command line's main job, as the contract words it: tune, evaluate, route, resume, sweep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from helpers import TIERS, CliResult, json_lines, run_cli, run_cli_process, snapshot, write_recording

from simulators.outcomes import FloatArray
from toolkit.export.schema import read_policy
from toolkit.problem import Evaluation, RoutingProblem
from toolkit.report.record import RunRecord

SCENARIO = ("data.n_queries=600",)
CONTROLLERS = {
    "exact": ("controller=exact", "controller.max_evaluations=300"),
    "sobol": ("controller=sobol", "budget=40"),
}
SCORERS: dict[str, Sequence[str]] = {
    "scenario": ("scorer=scenario",),
    "text": ("scorer=text",),
    "column": ("scorer=column", "scorer.column=hardness"),
}
FILES = {
    "config.yaml",
    "evaluations.jsonl",
    "front.parquet",
    "metrics.json",
    "policy.json",
    "report.html",
    "run.json",
    "scorer",
}
POLICY_KEYS = {
    "schema_version",
    "tiers",
    "thresholds",
    "scorer",
    "chosen_because",
    "constraints",
    "data_hash",
    "metrics",
}
SAME_SCENARIO = ("tune", *SCENARIO, *CONTROLLERS["exact"], "constraints.quality_floor=0.88")
MEANS = ("quality", "cost_usd", "latency_s")


def done(*args: str, cwd: Path) -> CliResult:
    result = run_cli(*args, cwd=cwd)
    assert result.exit_code == 0, result.stderr
    return result


def recorded(queries: Path, outcomes: Path) -> tuple[str, ...]:
    return ("data=recorded", f"data.queries={queries}", f"data.outcomes={outcomes}")


def load(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def journal(run: Path) -> list[dict[str, Any]]:
    """The journal without what may differ between two equal runs."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in json_lines(run / "evaluations.jsonl")]


def policy_of(run: Path) -> dict[str, Any]:
    """`policy.json` without its date."""
    policy = load(run / "policy.json")
    del policy["provenance"]["created"]
    return policy


def front(run: Path) -> dict[str, list[float]]:
    return pyarrow.parquet.read_table(run / "front.parquet").to_pydict()


def decisions(path: Path) -> dict[str, list[Any]]:
    text = pyarrow.csv.ConvertOptions(column_types={"query_id": "string", "tier": "string"})
    return pyarrow.csv.read_csv(path, convert_options=text).to_pydict()


def assert_same_result(a: Path, b: Path) -> None:
    assert journal(a) == journal(b)
    assert policy_of(a) == policy_of(b)
    assert front(a) == front(b)
    assert load(a / "metrics.json") == load(b / "metrics.json")


@pytest.fixture
def plain_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report without figures: they take most of a small run's time, and the contract tests draw them."""
    from experiments import tune_output

    def plain(path: Path, record: RunRecord) -> dict[str, bytes]:
        (path / "report.html").write_text(record.title)
        return {}

    monkeypatch.setattr(tune_output, "write_report", plain)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recording `queries.parquet`, `outcomes.parquet` that the runs of this file share."""
    folder = tmp_path_factory.mktemp("main_job")
    write_recording(folder)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(workplace: Path) -> Path:
    """A run of `SAME_SCENARIO`."""
    done(*SAME_SCENARIO, "out=uninterrupted", cwd=workplace)
    return workplace / "uninterrupted"


@pytest.fixture(scope="module")
def text_run(workplace: Path) -> Path:
    """Thresholds on the text scorer, on the recording."""
    data = recorded(workplace / "queries.parquet", workplace / "outcomes.parquet")
    search = (*CONTROLLERS["exact"], "constraints.quality_floor=0.75")
    done("tune", *data, "scorer=text", *search, "out=text", cwd=workplace)
    return workplace / "text"


# --- tune -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("controller", CONTROLLERS)
@pytest.mark.parametrize("policy", ["thresholds", pytest.param("utility", marks=pytest.mark.slow)])
def test_tune_leaves_what_the_contract_says(
    workplace: Path, request: pytest.FixtureRequest, policy: str, controller: str, scorer: str
) -> None:
    if controller == "sobol":  # whose report looks no other
        request.getfixturevalue("plain_report")
    name = f"{policy}-{controller}-{scorer}"
    data = SCENARIO if scorer == "scenario" else recorded(Path("queries.parquet"), Path("outcomes.parquet"))
    command = ("tune", *data, *SCORERS[scorer], f"policy={policy}", *CONTROLLERS[controller])
    done(*command, f"out={name}", cwd=workplace)
    run = workplace / name
    assert {p.name for p in run.iterdir()} >= FILES
    assert not [p for p in run.rglob("*") if p.name.startswith(".")]
    tiers = ("fast", "standard", "reasoning") if scorer == "scenario" else TIERS
    stored = check_policy(run, policy, tiers)
    check_journal(run, stored)
    check_front(run, stored)
    check_metrics(load(run / "metrics.json"), tiers)
    assert load(run / "run.json")["status"] == "done"
    if controller == "exact":
        assert (run / "report.html").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")
        assert {p.suffix for p in (run / "figures").iterdir()} == {".png"}


def check_policy(run: Path, policy: str, tiers: Sequence[str]) -> dict[str, Any]:
    stored = load(run / "policy.json")
    assert set(stored) >= POLICY_KEYS
    assert stored["schema_version"] == 1 and stored["tiers"] == list(tiers) and stored["policy"] == policy
    assert len(stored["data_hash"]) == 64 and stored["chosen_because"] and stored["constraints"] == {}
    if policy == "thresholds":
        assert len(stored["thresholds"]) == 2 and stored["thresholds"] == sorted(stored["thresholds"])
    else:
        assert stored["thresholds"] is None and list(stored["utility"]) == ["lambda", "b_1", "b_2"]
    assert read_policy(run / "policy.json").model_dump(mode="json") == stored
    assert stored["metrics"]["validate"] == load(run / "metrics.json")
    return stored


def check_journal(run: Path, stored: dict[str, Any]) -> None:
    rows = list(json_lines(run / "evaluations.jsonl"))
    assert [row["index"] for row in rows] == list(range(len(rows))) and len(rows) >= 5
    names = ["t_1", "t_2"] if stored["policy"] == "thresholds" else ["lambda", "b_1", "b_2"]
    for row in rows:
        assert {"index", "x", "params", "objectives", "slack", "status", "seconds"} <= set(row)
        assert list(row["params"]) == names and {"cost_usd", "quality"} <= set(row["objectives"])
        assert row["status"] == "ok" and row["slack"] == {} and row["seconds"] >= 0
        assert all(0 <= x <= 1 for x in row["x"])
    chosen = dict(zip(names, stored["thresholds"] or stored["utility"].values(), strict=True))
    match = [row for row in rows if row["params"] == chosen]
    assert len(match) == 1
    tune = stored["metrics"]["tune"]["policy"]
    for name in ("quality", "cost_usd"):
        assert match[0]["objectives"][name] == pytest.approx(tune[name], rel=1e-9)
    assert match[0]["tier_shares"] == pytest.approx(list(tune["tier_shares"].values()))


def check_front(run: Path, stored: dict[str, Any]) -> None:
    points = front(run)
    shares = [f"share_{tier}" for tier in stored["tiers"]]
    parameters = ["t_1", "t_2"] if stored["policy"] == "thresholds" else ["lambda", "b_1", "b_2"]
    assert {*parameters, "cost_usd", "quality", "latency_p95_s", *shares} <= set(points)
    np.testing.assert_allclose(np.sum([points[name] for name in shares], axis=0), 1.0)
    by_cost = np.argsort(points["cost_usd"])
    assert np.all(np.diff(np.array(points["cost_usd"])[by_cost]) > 0)
    assert np.all(np.diff(np.array(points["quality"])[by_cost]) > 0), "a dearer point of the front is a better one"
    everything = [row["objectives"] for row in json_lines(run / "evaluations.jsonl")]
    for row in everything:
        as_cheap = [q for c, q in zip(points["cost_usd"], points["quality"], strict=True) if c <= row["cost_usd"]]
        assert max(as_cheap) >= row["quality"], "no evaluation beats the front"


def check_metrics(metrics: dict[str, Any], tiers: Sequence[str], *, cost: bool = True, latency: bool = True) -> None:
    assert {"policy", "slices", "tiers", "zero_router_quality_at_cost", "n", "dropped"} <= set(metrics)
    groups = [metrics["policy"], *metrics["slices"].values(), *metrics["tiers"].values()]
    for figures in groups:
        assert 0 <= figures["quality"] <= 1
        assert ("cost_usd" in figures) == cost and ("latency_s" in figures) == latency
        if latency:
            assert list(figures["latency_s"]) == ["mean", "p50", "p95", "p99"]
            assert figures["latency_s"]["p50"] <= figures["latency_s"]["p95"] <= figures["latency_s"]["p99"]
    assert list(metrics["policy"]["tier_shares"]) == list(metrics["tiers"]) == list(tiers)
    assert sum(metrics["policy"]["tier_shares"].values()) == pytest.approx(1)
    assert sum(part["n"] for part in metrics["slices"].values()) == metrics["n"]
    assert (metrics["zero_router_quality_at_cost"] is not None) == cost


def test_exact_says_how_many_it_evaluated(uninterrupted: Path) -> None:
    assert len(journal(uninterrupted)) <= 300
    assert "evaluated exactly" in load(uninterrupted / "run.json")["exactness"]


def test_the_floor_holds_on_tune_at_the_lowest_cost(uninterrupted: Path) -> None:
    stored = load(uninterrupted / "policy.json")
    assert stored["constraints"] == {"quality_floor": 0.88} and stored["chosen_because"].startswith("min_cost")
    feasible = [row["objectives"] for row in journal(uninterrupted) if row["slack"]["quality_floor"] >= 0]
    tune = stored["metrics"]["tune"]["policy"]
    assert tune["quality"] >= 0.88 and tune["cost_usd"] == pytest.approx(min(row["cost_usd"] for row in feasible))
    assert min(front(uninterrupted)["quality"]) >= 0.88


@pytest.mark.usefixtures("plain_report")
def test_json_is_one_object_and_nothing_else(workplace: Path) -> None:
    result = done("tune", *SCENARIO, *CONTROLLERS["sobol"], "out=json", "--json", cwd=workplace)
    assert result.stderr == "" and result.stdout.count("\n") == 1
    said = json.loads(result.stdout)
    assert said["run"] == "json" and said["n_evaluations"] == 40 and said["n_failed"] == 0
    assert said["metrics"]["validate"] == load(workplace / "json" / "metrics.json")
    assert said["policy"]["thresholds"] == load(workplace / "json" / "policy.json")["thresholds"]


@pytest.mark.usefixtures("plain_report")
def test_people_read_the_choice_and_where_the_report_is(workplace: Path) -> None:
    result = done("tune", *SCENARIO, *CONTROLLERS["sobol"], "out=people", cwd=workplace)
    assert "people/report.html" in result.stdout and "t_1" in result.stdout and "Zero router" in result.stdout
    assert result.stderr == ""


def test_without_costs_and_latencies_their_keys_are_absent(tmp_path: Path) -> None:
    queries, outcomes = write_recording(tmp_path, ".csv", cost=False, latency=False)
    data = (*recorded(queries, outcomes), "data.tiers=[small,medium,large]", *SCORERS["column"], *CONTROLLERS["exact"])
    done("tune", *data, "objectives=[quality]", "choose=max_quality", "out=run", cwd=tmp_path)
    metrics = load(tmp_path / "run" / "metrics.json")
    check_metrics(metrics, TIERS, cost=False, latency=False)
    points = front(tmp_path / "run")
    assert "cost_usd" not in points and "latency_p95_s" not in points and len(points["quality"]) == 1


@pytest.mark.usefixtures("plain_report")
def test_dropped_queries_are_counted_and_said(tmp_path: Path) -> None:
    queries, outcomes = write_recording(tmp_path, ".jsonl")
    rows = outcomes.read_text().splitlines()
    outcomes.write_text("\n".join(rows[:-1]) + "\n")
    command = ("tune", *recorded(queries, outcomes), *SCORERS["column"], *CONTROLLERS["sobol"])
    result = done(*command, "out=run", cwd=tmp_path)
    assert load(tmp_path / "run" / "metrics.json")["dropped"] == 1 and "1 of 240 queries" in result.stdout


@pytest.mark.usefixtures("plain_report")
def test_out_defaults_to_a_dated_folder(tmp_path: Path) -> None:
    done("tune", *SCENARIO, *CONTROLLERS["sobol"], cwd=tmp_path)
    runs = list(tmp_path.glob("outputs/????-??-??/??-??-??/policy.json"))
    assert len(runs) == 1


@pytest.mark.usefixtures("plain_report")
def test_a_command_with_everything(tmp_path: Path) -> None:
    write_recording(tmp_path, ".csv")
    extra = (
        "data.tiers=[small,large]",
        "objectives=[cost,quality,latency_p95,worst_slice]",
        "constraints.p95_ceiling_s=20",
        'constraints.bounds=["quality@slice0 >= 0.1","share_over:30 <= 0.5"]',
        "choose=max_quality",
        "policy.fallback_tier=small",
        "split.tune=0.4",
        "split.validate=0.4",
        "slices.minimum=10",
        "seed=3",
    )
    data = recorded(Path("queries.csv"), Path("outcomes.csv"))
    done("tune", *data, "scorer=text", *CONTROLLERS["exact"], *extra, "out=run", cwd=tmp_path)
    stored = load(tmp_path / "run" / "policy.json")
    assert stored["constraints"] == {"p95_ceiling_s": 20.0, "quality@slice0": 0.1, "share_over:30": 0.5}
    assert stored["tiers"] == ["small", "large"] and stored["lanes"]["fallback_tier"] == "small"
    assert stored["metrics"]["validate"]["n"] == 96
    assert {"quality[slice0]", "share_over_30s", "worst_slice_quality"} <= set(front(tmp_path / "run"))
    done("evaluate", "run=run", *data, cwd=tmp_path)
    assert load(tmp_path / "metrics.json")["n"] == 240


# --- seeds and sweeps -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("plain_report")
def test_the_same_seed_gives_the_same_result(workplace: Path, uninterrupted: Path) -> None:
    done(*SAME_SCENARIO, "out=again", cwd=workplace)
    assert_same_result(uninterrupted, workplace / "again")


@pytest.mark.usefixtures("plain_report")
@pytest.mark.parametrize(
    "policy, scorer", [("thresholds", "column"), pytest.param("utility", "text", marks=pytest.mark.slow)]
)
def test_the_same_seed_gives_the_same_sample(workplace: Path, policy: str, scorer: str) -> None:
    data = recorded(Path("queries.parquet"), Path("outcomes.parquet"))
    command = ("tune", *data, *SCORERS[scorer], f"policy={policy}", *CONTROLLERS["sobol"])
    for seed, out in ((1, "a"), (1, "b"), (2, "c")):
        done(*command, f"seed={seed}", f"out={policy}-{out}", cwd=workplace)
    assert_same_result(workplace / f"{policy}-a", workplace / f"{policy}-b")
    assert journal(workplace / f"{policy}-a") != journal(workplace / f"{policy}-c")
    assert load(workplace / f"{policy}-a" / "metrics.json") != load(workplace / f"{policy}-c" / "metrics.json")


@pytest.mark.usefixtures("plain_report")
def test_a_sweep_has_a_folder_per_job(workplace: Path, uninterrupted: Path) -> None:
    result = done("tune", "-m", *SAME_SCENARIO[1:], "seed=0,1", "out=sweep", cwd=workplace)
    assert "Traceback" not in result.stderr
    assert {p.name for p in (workplace / "sweep").iterdir() if p.is_dir()} == {"0", "1"}
    assert_same_result(uninterrupted, workplace / "sweep" / "0")
    assert journal(workplace / "sweep" / "0") != journal(workplace / "sweep" / "1")
    assert load(workplace / "sweep" / "1" / "run.json")["seed"] == 1


@pytest.mark.usefixtures("plain_report")
@pytest.mark.parametrize(
    "args",
    [
        ("data.n_queries=300", "controller=sobol", "budget=8", "-m", "seed=0,1", "out=sweep"),
        ("data.n_queries=300", "controller=sobol", "budget=8", "seed=0,1", "out=sweep", "-m"),
    ],
)
@pytest.mark.slow
def test_a_sweep_wherever_its_flag_stands(tmp_path: Path, args: tuple[str, ...]) -> None:
    done("tune", *args, cwd=tmp_path)
    assert {p.name for p in (tmp_path / "sweep").iterdir() if p.is_dir()} == {"0", "1"}


# --- resume -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("plain_report")
@pytest.mark.parametrize("kept", [0.0, 0.37, 0.999])
@pytest.mark.slow
def test_a_run_cut_off_in_the_middle_of_a_line_resumes(workplace: Path, uninterrupted: Path, kept: float) -> None:
    """What a kill leaves: a journal that ends within a line, and nothing that is written after the search."""
    name = f"cut-{kept}"
    done(*SAME_SCENARIO, f"out={name}", cwd=workplace)
    path = workplace / name / "evaluations.jsonl"
    raw = path.read_bytes()
    cut = raw[: max(int(len(raw) * kept), 50)]
    assert not cut.endswith(b"\n")
    path.write_bytes(cut)
    for left in ("policy.json", "front.parquet", "metrics.json", "report.html"):
        (workplace / name / left).unlink()
    result = done(*SAME_SCENARIO, f"out={name}", "--json", cwd=workplace)
    assert json.loads(result.stdout)["n_replayed"] == cut.count(b"\n")
    assert_same_result(uninterrupted, workplace / name)
    assert (workplace / name / "report.html").is_file()


@pytest.mark.usefixtures("plain_report")
def test_a_sample_cut_off_resumes(workplace: Path) -> None:
    command = ("tune", *SCENARIO, "policy=utility", "controller=sobol", "budget=150", "seed=4")
    for out in ("sample", "sample-cut"):
        done(*command, f"out={out}", cwd=workplace)
    path = workplace / "sample-cut" / "evaluations.jsonl"
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) * 2 // 3])
    done(*command, "out=sample-cut", cwd=workplace)
    assert_same_result(workplace / "sample", workplace / "sample-cut")


@pytest.mark.usefixtures("plain_report")
def test_ctrl_c_is_exit_code_130_and_the_same_command_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("tune", *SCENARIO, "controller=sobol", "budget=150")
    done(*command, "out=whole", cwd=tmp_path)
    evaluate, calls = RoutingProblem.evaluate_params, []

    def interrupted(problem: RoutingProblem, params: FloatArray) -> Evaluation:
        calls.append(len(params))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(problem, params)

    with monkeypatch.context() as patch:
        patch.setattr(RoutingProblem, "evaluate_params", interrupted)
        result = run_cli(*command, "out=cut", cwd=tmp_path)
    assert (result.exit_code, result.stdout) == (130, "") and "resumes" in result.stderr
    assert 0 < len(journal(tmp_path / "cut")) == calls[0] < 150 and not (tmp_path / "cut" / "policy.json").exists()
    done(*command, "out=cut", cwd=tmp_path)
    assert_same_result(tmp_path / "whole", tmp_path / "cut")


def test_a_finished_run_is_reproduced(workplace: Path, uninterrupted: Path) -> None:
    before = snapshot(uninterrupted)
    policy = policy_of(uninterrupted)
    result = done(*SAME_SCENARIO, "out=uninterrupted", "--json", cwd=workplace)
    said = json.loads(result.stdout)
    assert said["n_replayed"] == said["n_evaluations"]
    after = snapshot(uninterrupted)
    assert sorted(after) == sorted(before) and policy_of(uninterrupted) == policy
    for name in ("evaluations.jsonl", "front.parquet", "metrics.json", "config.yaml"):
        assert after[name] == before[name]


def test_a_folder_that_holds_another_run_is_kept(workplace: Path, uninterrupted: Path) -> None:
    before = snapshot(uninterrupted)
    for change in ("seed=9", "constraints.quality_floor=0.87", "controller.max_evaluations=200"):
        result = run_cli(*SAME_SCENARIO, "out=uninterrupted", change, cwd=workplace)
        assert result.exit_code == 2 and "another config" in result.stderr
    assert snapshot(uninterrupted) == before


@pytest.mark.usefixtures("plain_report")
def test_a_folder_with_the_same_config_and_other_data_is_kept(tmp_path: Path) -> None:
    data = recorded(*write_recording(tmp_path, ".csv"))
    command = ("tune", *data, *SCORERS["column"], *CONTROLLERS["sobol"], "out=run")
    done(*command, cwd=tmp_path)
    before = snapshot(tmp_path / "run")
    write_recording(tmp_path, ".csv", seed=1)
    result = run_cli(*command, cwd=tmp_path)
    assert result.exit_code == 2 and "another data" in result.stderr
    assert snapshot(tmp_path / "run") == before


def test_an_infeasible_run_leaves_no_folder(tmp_path: Path) -> None:
    result = run_cli("tune", *SCENARIO, "constraints.quality_floor=0.999", "out=run", cwd=tmp_path)
    assert result.exit_code == 2 and not list(tmp_path.iterdir())


@pytest.mark.usefixtures("plain_report")
def test_the_same_run_under_another_name(workplace: Path, uninterrupted: Path) -> None:
    """`out` is no part of a run's identity: a moved folder resumes."""
    moved = workplace / "moved"
    uninterrupted.rename(moved)
    try:
        done(*SAME_SCENARIO, "out=moved", cwd=workplace)
    finally:
        moved.rename(uninterrupted)


# --- evaluate ---------------------------------------------------------------------------------------------------------


def test_evaluate_on_other_data(workplace: Path, text_run: Path, tmp_path: Path) -> None:
    queries, outcomes = write_recording(tmp_path, ".jsonl", n=100, seed=5)
    data = (f"data.queries={queries}", f"data.outcomes={outcomes}")
    result = done("evaluate", f"run={text_run}", *data, "output=figures.json", "--json", cwd=tmp_path)
    metrics = load(tmp_path / "figures.json")
    assert json.loads(result.stdout) == metrics and result.stderr == ""
    check_metrics(metrics, TIERS)
    assert (metrics["n"], metrics["dropped"]) == (100, 0)


def test_evaluate_agrees_with_the_decisions(workplace: Path, text_run: Path, tmp_path: Path) -> None:
    queries, outcomes = write_recording(tmp_path, ".csv", n=100, seed=5)
    done("evaluate", f"run={text_run}", f"data.queries={queries}", f"data.outcomes={outcomes}", cwd=tmp_path)
    done("route", f"run={text_run}", f"queries={queries}", cwd=tmp_path)
    chosen = decisions(tmp_path / "decisions.csv")
    answers = pyarrow.csv.read_csv(outcomes).to_pylist()
    score = {(row["query_id"], row["model"]): row["score"] for row in answers}
    expected = np.mean([score[key] for key in zip(chosen["query_id"], chosen["tier"], strict=True)])
    assert load(tmp_path / "metrics.json")["policy"]["quality"] == pytest.approx(expected)


def test_evaluate_on_a_fresh_draw(uninterrupted: Path, tmp_path: Path) -> None:
    command = ("evaluate", f"run={uninterrupted}", "data=scenario", "data.n_queries=500", "seed=7")
    done(*command, cwd=tmp_path)
    metrics = load(tmp_path / "metrics.json")
    check_metrics(metrics, ("fast", "standard", "reasoning"))
    assert metrics["n"] == 500
    again = done(*command, "--json", cwd=tmp_path)
    assert json.loads(again.stdout) == metrics


# --- route ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_route_decides_every_query_in_input_order(text_run: Path, tmp_path: Path, suffix: str) -> None:
    queries, _ = write_recording(tmp_path, suffix, n=80, seed=6)
    result = done("route", f"run={text_run}", f"queries={queries}", "output=new/decisions.csv", "--json", cwd=tmp_path)
    chosen = decisions(tmp_path / "new" / "decisions.csv")
    assert list(chosen)[:3] == ["query_id", "score", "tier"]
    assert chosen["query_id"] == [f"q{i:04d}" for i in range(80)]
    policy = read_policy(text_run / "policy.json")
    index = np.searchsorted(policy.thresholds or [], chosen["score"], side="right")
    assert chosen["tier"] == [policy.tiers[k] for k in index]
    said = json.loads(result.stdout)
    shares = {tier: chosen["tier"].count(tier) / 80 for tier in TIERS}
    assert said["n"] == 80 and said["tier_shares"] == pytest.approx(shares) and said["n_without_score"] == 0


@pytest.mark.usefixtures("plain_report")
def test_a_query_without_a_score_goes_to_the_fallback(workplace: Path, tmp_path: Path) -> None:
    data = recorded(workplace / "queries.parquet", workplace / "outcomes.parquet")
    command = ("tune", *data, *SCORERS["column"], *CONTROLLERS["sobol"], "policy.fallback_tier=large", "out=run")
    done(*command, cwd=tmp_path)
    (tmp_path / "q.csv").write_text('query_id,hardness\nb,\na,0.5\n"c, d",-1e300\n')
    done("route", "run=run", "queries=q.csv", cwd=tmp_path)
    chosen = decisions(tmp_path / "decisions.csv")
    assert chosen["query_id"] == ["b", "a", "c, d"] and chosen["score"] == [None, 0.5, -1e300]
    assert chosen["tier"][0] == "large" and "fallback" in chosen["reason"][0]


def test_route_at_a_quality_of_the_front(text_run: Path, tmp_path: Path) -> None:
    queries, _ = write_recording(tmp_path, ".csv", n=80, seed=6)
    points = front(text_run)
    wanted = float(np.quantile(points["quality"], 0.6))
    done("route", f"run={text_run}", f"queries={queries}", f"at.quality={wanted:.6f}", cwd=tmp_path)
    rows = [i for i, quality in enumerate(points["quality"]) if quality >= round(wanted, 6)]
    cheapest = min(rows, key=lambda i: points["cost_usd"][i])
    chosen = decisions(tmp_path / "decisions.csv")
    thresholds = [points["t_1"][cheapest], points["t_2"][cheapest]]
    assert chosen["tier"] == [TIERS[k] for k in np.searchsorted(thresholds, chosen["score"], side="right")]


@pytest.mark.usefixtures("plain_report")
def test_a_utility_is_routed_by_its_own_rule(workplace: Path, tmp_path: Path) -> None:
    data = recorded(workplace / "queries.parquet", workplace / "outcomes.parquet")
    done("tune", *data, "scorer=text", "policy=utility", *CONTROLLERS["sobol"], "out=run", cwd=tmp_path)
    queries, outcomes = workplace / "queries.parquet", workplace / "outcomes.parquet"
    said = json.loads(done("route", "run=run", f"queries={queries}", "--json", cwd=tmp_path).stdout)
    done("evaluate", "run=run", f"data.queries={queries}", f"data.outcomes={outcomes}", cwd=tmp_path)
    assert load(tmp_path / "metrics.json")["policy"]["tier_shares"] == pytest.approx(said["tier_shares"])


# --- help and the like ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(tmp_path: Path, args: list[str]) -> None:
    from experiments.help import COMMANDS

    result = done(*args, cwd=tmp_path)
    assert all(command in result.stdout for command in COMMANDS) and result.stderr == ""


def test_every_command_has_its_help(tmp_path: Path) -> None:
    from experiments.help import COMMANDS

    for command in COMMANDS:
        assert done(command, "--help", cwd=tmp_path).stdout.startswith(f"routefront {command} ")


def test_the_config_can_be_printed(tmp_path: Path) -> None:
    printed = done("tune", "--cfg", "job", "seed=5", cwd=tmp_path).stdout
    assert "seed: 5" in printed and "quality_floor: null" in printed and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_same_from_a_shell(tmp_path: Path) -> None:
    result = run_cli_process("tune", *SCENARIO, *CONTROLLERS["sobol"], "out=run", "--json", cwd=tmp_path)
    assert result.exit_code == 0 and result.stderr == ""
    assert json.loads(result.stdout)["run"] == "run"
    assert {p.name for p in (tmp_path / "run").iterdir()} >= FILES
