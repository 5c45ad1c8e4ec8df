"""Every file in conf/ composes and runs once; every command has help; Hydra's sweeps get a folder per job."""

import importlib.util
import json
from pathlib import Path

import pytest
from helpers import run_cli, run_cli_process, write_recording
from hydra import compose, initialize_config_module

from experiments.help import COMMANDS, OVERVIEW

CONF = Path(__file__).resolve().parent.parent / "conf"
SMALL = ("data.n_queries=400",)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_config_and_help(command, tmp_path):
    with initialize_config_module("conf", version_base="1.3"):
        compose(config_name=command)
    code, out, err = run_cli(command, "--help", cwd=tmp_path)
    assert code == 0 and err == "" and out.startswith(f"routefront {command}")
    assert f"  {command} " in OVERVIEW


def test_every_config_is_reached_by_a_command():
    assert {p.stem for p in CONF.glob("*.yaml")} == set(COMMANDS)


@pytest.mark.parametrize("scenario", sorted(p.stem for p in (CONF / "scenario").glob("*.yaml")))
@pytest.mark.parametrize("policy", sorted(p.stem for p in (CONF / "policy").glob("*.yaml")))
@pytest.mark.parametrize("controller", sorted(p.stem for p in (CONF / "controller").glob("*.yaml")))
def test_every_scenario_policy_and_controller_runs(scenario, policy, controller, tmp_path):
    options = (f"scenario={scenario}", f"policy={policy}", f"controller={controller}", "budget=40", *SMALL)
    code, _, err = run_cli("tune", *options, "out=run", cwd=tmp_path)
    assert code == 0, err
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("scorer", sorted(p.stem for p in (CONF / "scorer").glob("*.yaml")))
def test_every_scorer_runs(scorer, tmp_path):
    if scorer == "litellm" and importlib.util.find_spec("litellm") is None:
        pytest.skip("litellm is not installed")
    queries, outcomes = write_recording(tmp_path, ".parquet")
    recorded = ("data=recorded", f"data.queries={queries}", f"data.outcomes={outcomes}")
    data = SMALL if scorer == "scenario" else recorded
    extra = ("scorer.column=hardness",) if scorer == "column" else ()
    code, _, err = run_cli("tune", *data, f"scorer={scorer}", *extra, "out=run", cwd=tmp_path)
    assert code == 0, err


def test_study_runs(tmp_path):
    code, out, err = run_cli("study", *SMALL, "splits=3", "floors=[0.85,0.999]", "--json", cwd=tmp_path)
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert rows[0]["n_splits"] == 3 and rows[0]["verdict"] in {"gain", "loss", "no evidence"}
    assert rows[1] == {"rule": "quality >= 0.999", "n_splits": 0, "infeasible_splits": 3}
    assert json.loads((tmp_path / "study.json").read_text())["rows"] == rows


def test_bench_runs(tmp_path):
    code, _, err = run_cli("bench", "cases=[exact-small]", "runs=1", cwd=tmp_path)
    assert code == 0, err
    rows = json.loads((tmp_path / "bench.json").read_text())
    assert {"case", "metric", "ours", "peer", "peer_value", "ratio", "runs"} == set(rows[0])
    assert next(row["ours"] for row in rows if row["metric"] == "largest difference") < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_sweeps_give_each_job_a_folder(launcher, tmp_path):
    extra = ()
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
        extra = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    code, _, err = run_cli_process("tune", "-m", "seed=0,1", *SMALL, "out=sweep", *extra, cwd=tmp_path)
    assert code == 0, err
    found = [json.loads((tmp_path / "sweep" / str(i) / "policy.json").read_text()) for i in range(2)]
    assert [p["provenance"]["seed"] for p in found] == [0, 1]
