"""Every file in conf/ composes and runs once; every command has help; Hydra's sweeps get a folder per job."""

import importlib.util
import itertools
import json
from pathlib import Path

import pytest
from helpers import run_cli, run_cli_process, write_recording
from hydra import compose, initialize_config_module

from experiments.help import COMMANDS, OVERVIEW
from simulators.columns import read_columns

CONF = Path(__file__).resolve().parent.parent / "conf"
SMALL = ("data.n_queries=400",)
TINY_PPO = (
    *("controller.iterations=2", "controller.traffics=1", "controller.copies=2", "controller.unseen=2"),
    *("controller.validation_traffics=1", "controller.n_initial=4", "controller.window_s=1200"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_config_and_help(command, tmp_path):
    with initialize_config_module("conf", version_base="1.3"):
        compose(config_name=command)
    code, out, err = run_cli(command, "--help", cwd=tmp_path)
    assert code == 0 and err == "" and out.startswith(f"routefront {command}")
    assert f"  {command} " in OVERVIEW


def test_every_config_is_reached_by_a_command():
    assert {p.stem for p in CONF.glob("*.yaml")} == set(COMMANDS)


@pytest.mark.parametrize("policy", sorted(p.stem for p in (CONF / "policy").glob("*.yaml")))
@pytest.mark.parametrize(
    "controller",
    [
        p.stem if p.stem in {"exact", "sobol"} else pytest.param(p.stem, marks=pytest.mark.slow)
        for p in sorted((CONF / "controller").glob("*.yaml"))
    ],
)
def test_every_policy_and_controller_runs(policy, controller, tmp_path):
    tunes("hybrid_api", policy, controller, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", sorted({p.stem for p in (CONF / "scenario").glob("*.yaml")} - {"hybrid_api"}))
@pytest.mark.parametrize("policy", sorted(p.stem for p in (CONF / "policy").glob("*.yaml")))
@pytest.mark.parametrize("controller", ["exact", "sobol", "mobo"])
def test_every_scenario_runs_without_load(scenario, policy, controller, tmp_path):
    """Under load: tests/test_under_load.py."""
    tunes(scenario, policy, controller, tmp_path, "world=none")


def tunes(scenario, policy, controller, tmp_path, *more):
    if controller == "boute":
        code, _, err = run_cli("tune", f"scenario={scenario}", f"policy={policy}", "controller=boute", cwd=tmp_path)
        expected = "use controller=proteus" if policy == "target" else "space=deployment"  # GROUPS runs it there
        assert code == 2 and expected in err
        return
    refused = {"target": "use controller=proteus"} if controller != "proteus" else {}
    if controller == "ppo_lagrangian":
        pytest.importorskip("gymnasium")
        refused |= {"utility": "use policy=thresholds"}
        more = (*more, "world=traffic", "world.loads=[]", "constraints.quality_floor=0.7", *TINY_PPO)
    if policy in refused:
        options = (f"policy={policy}", f"controller={controller}", *SMALL, *more, "out=run")
        code, _, err = run_cli("tune", *options, cwd=tmp_path)
        assert code == 2 and refused[policy] in err and not (tmp_path / "run").exists()
        return
    if controller == "proteus":
        pytest.importorskip("torch")
        more = (*more, "controller.levels=9", "controller.per_query.steps=40", "controller.search.rounds=4")
    package = {"nsga2": "pymoo", "tpe": "optuna", "parego": "botorch", "tutorial": "botorch"}.get(controller)
    if package is not None:
        pytest.importorskip(package)
    budget = "budget=12" if package == "botorch" or controller == "ppo_lagrangian" else "budget=40"
    options = (f"scenario={scenario}", f"policy={policy}", f"controller={controller}", budget, *SMALL, *more)
    code, _, err = run_cli("tune", *options, "out=run", cwd=tmp_path)
    assert code == 0, err
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("scorer", sorted(p.stem for p in (CONF / "scorer").glob("*.yaml")))
def test_every_scorer_runs(scorer, tmp_path):
    if scorer == "litellm" and importlib.util.find_spec("litellm") is None:
        pytest.skip("litellm is not installed")
    queries, outcomes = write_recording(tmp_path, ".parquet")
    recorded = ("data=recorded", f"data.queries={queries}", f"data.outcomes={outcomes}")
    drawn = {"scenario", "rules", "classifier", "llm_router", "memory"}
    data = SMALL if scorer in drawn else recorded
    extra = ("scorer.column=hardness",) if scorer == "column" else ()
    extra += ("+routers@scenario.routers=s1",) if scorer in drawn - {"scenario"} else ()
    code, _, err = run_cli("tune", *data, f"scorer={scorer}", *extra, "out=run", cwd=tmp_path)
    assert code == 0, err


GROUPS = {
    "space/policy": (),
    "space/confidence": ("controller=mobo",),
    "space/eligibility": ("controller=mobo", "lane=eligibility"),
    "space/slice_thresholds": ("controller=mobo", "space.slices=[code]"),
    "space/litellm": ("controller=mobo", "scorer=litellm"),
    "space/deployment": (
        *("scenario=self_hosted", "gpus@scenario.fleet.gpus=types_2_small", "scenario.fleet.rate_per_s=4"),
        *("controller=boute", "objectives=[latency_p95,quality]", "space.offline.requests=200"),
    ),
    "lane/none": (),
    "lane/confidence": (),
    "lane/eligibility": (),
    "lane/both": ("lane.recall=0.5",),
    "world/none": (),
    "world/auto": (),
    "world/traffic": ("controller.boundaries=6", "world.loads=[]"),
    "world/queue": ("controller=mobo", "world.slots={reasoning: 3}"),
    "tracking/none": (),
    "tracking/wandb": (),
}


@pytest.mark.parametrize(
    "choice", [c if c in {"space/confidence", "lane/both"} else pytest.param(c, marks=pytest.mark.slow) for c in GROUPS]
)
def test_every_space_world_and_tracker_runs(choice, tmp_path):
    for package in ("litellm", "wandb"):
        if package in choice:
            pytest.importorskip(package)
    data = SMALL
    if choice == "space/litellm":
        queries, outcomes = write_recording(tmp_path, ".parquet")
        data = ("data=recorded", f"data.queries={queries}", f"data.outcomes={outcomes}")
    options = (choice.replace("/", "="), *GROUPS[choice], "budget=25", *data)
    code, _, err = run_cli("tune", *options, "out=run", cwd=tmp_path)
    assert code == 0, err
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["status"] == "done" and info["axes"]["margin"] == 0.1


@pytest.mark.slow
@pytest.mark.parametrize("routers", sorted(p.stem for p in (CONF / "routers").glob("*.yaml")))
def test_every_set_of_routers_runs(routers, tmp_path):
    options = ("scenario=peak_hours", f"routers@scenario.routers={routers}", "scorer=classifier", "world=none", *SMALL)
    code, _, err = run_cli("tune", *options, "out=run", cwd=tmp_path)
    assert code == 0, err


def test_every_file_of_a_group_is_run_by_a_test():
    tested = {"data", "scenario", "scorer", "policy", "controller", "routers"}
    tested |= {"gpus", "engine"}  # tests/test_scenario_fleet.py
    tested |= {"paper"}  # tests/test_reproduce.py, tests/test_reproduce_boute.py
    for folder in (p for p in CONF.iterdir() if p.is_dir() and p.name not in {*tested, "__pycache__"}):
        assert {f"{folder.name}/{p.stem}" for p in folder.glob("*.yaml")} == {
            name for name in GROUPS if name.startswith(f"{folder.name}/")
        }


@pytest.mark.slow
def test_race_runs(tmp_path):
    small = ("problems=[hybrid_api_queue,synthetic]", "only=[mobo_grey,sobol]", "budget=24", "seeds=1", "workers=1")
    options = (*small, "levels=[20]", "reference=200", "output=race")
    pytest.importorskip("pymoo")
    code, out, err = run_cli("race", *options, "--json", cwd=tmp_path)
    assert code == 0, err
    found = json.loads(out)["problems"]
    assert set(found) == {"hybrid_api_queue", "synthetic"}
    row = found["synthetic"]["searchers"]["mobo_grey"]
    assert row["evaluations"] == 24 and 0 < row["efficiency"]["20"]["median"] <= 1.6
    assert (tmp_path / "race" / "race.png").stat().st_size > 10_000
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "race" / "cells").rglob("*.json")}
    assert run_cli("race", *options, cwd=tmp_path).exit_code == 0
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "race" / "cells").rglob("*.json")}
    changed = run_cli("race", *options, "synthetic.dim=4", cwd=tmp_path)
    assert changed.exit_code == 2 and "other definitions" in changed.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("problems=[nothing]",), "not defined"),
        (("only=[magic]",), "no searchers"),
        (("problems=[paretobandit]",), "data_dir=DIR"),
        (("+searchers.odd={kind: sobol, model: gp}",), "no option model"),
        (("searchers.nsga2.population=2",), "population"),
        (("output=null",), "output is not set"),
    ],
)
@pytest.mark.slow
def test_race_says_what_is_wrong(options, said, tmp_path):
    base = ("problems=[synthetic]", "output=race")
    code, _, err = run_cli("race", *base, *options, cwd=tmp_path)
    assert code == 2 and said in err and err.count("\n") == 1
    assert not (tmp_path / "race").exists()


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
def test_bench_of_the_search(tmp_path, monkeypatch):
    pytest.importorskip("botorch")
    from experiments import search_bench

    monkeypatch.setitem(search_bench.SEARCH_CASES, "search-small", ((10, 3),))
    code, _, err = run_cli("bench", "cases=[search-small]", "runs=1", cwd=tmp_path)
    assert code == 0, err
    (row,) = json.loads((tmp_path / "bench.json").read_text())
    assert row["ratio"] == pytest.approx(row["peer_value"] / row["ours"]) and row["peer"].startswith("BoTorch")


@pytest.mark.slow
def test_a_sweep_lists_failed_jobs_and_compare_takes_the_rest(tmp_path):
    swept = ("controller=sobol,mobo", "constraints.quality_floor=0.8,0.999", "budget=20", "data.n_queries=400")
    code, out, _ = run_cli_process("tune", "-m", *swept, "out=sweep", "--json", cwd=tmp_path)
    assert code == 1
    jobs = json.loads(out)["jobs"]
    assert [job["status"] for job in jobs] == ["done", "failed", "done", "failed"]
    assert all("quality_floor=0.999 binds" in job["error"] for job in jobs if job["status"] == "failed")
    code, out, err = run_cli("compare", "runs=[sweep]", "output=cmp", "--json", cwd=tmp_path)
    assert code == 0, err
    found = json.loads(out)
    assert {run["controller"] for run in found["runs"]} == {"sobol", "mobo"} and len(found["skipped"]) == 2


@pytest.mark.slow
def test_a_tracker_that_fails_at_the_end_does_not_cost_the_run(tmp_path, monkeypatch):
    from experiments import tune
    from simulators.errors import ConfigError
    from toolkit.tracking.base import NullTracker

    class Failing(NullTracker):
        def __exit__(self, kind, error, trace):
            raise ConfigError("the service is down")

    monkeypatch.setattr(tune, "open_tracker", lambda *args, **options: Failing())
    code, _, err = run_cli("tune", *SMALL, "out=run", cwd=tmp_path)
    assert code == 2 and "service is down" in err
    assert (tmp_path / "run" / "policy.json").is_file() and (tmp_path / "run" / "evaluations.jsonl").is_file()
    monkeypatch.undo()
    assert run_cli("tune", *SMALL, "out=run", cwd=tmp_path).exit_code == 0


@pytest.mark.slow
def test_evaluate_keeps_the_world_of_the_run(tmp_path):
    queue = ("world=queue", "world.slots={standard: 2}", "world.rate_per_s=0.5", "controller=sobol", "budget=30")
    code, _, err = run_cli("tune", *queue, *SMALL, "choose=max_quality", "out=run", cwd=tmp_path)
    assert code == 0, err
    assert json.loads((tmp_path / "run" / "policy.json").read_text())["world"]["slots"] == {"standard": 2}
    code, out, err = run_cli("evaluate", "run=run", "data=scenario", *SMALL, "--json", cwd=tmp_path)
    assert code == 0, err
    tiers = json.loads(out)["tiers"]
    assert tiers["standard"]["latency_s"]["p95"] > 100 > tiers["fast"]["latency_s"]["p95"]


@pytest.mark.slow
def test_compare_refuses_other_worlds(tmp_path):
    for rate in (1, 3):
        queue = (
            "world=queue",
            "world.slots={reasoning: 2}",
            f"world.rate_per_s={rate}",
            "controller=sobol",
            "budget=20",
        )
        code, _, err = run_cli("tune", *queue, *SMALL, f"out=r{rate}", cwd=tmp_path)
        assert code == 0, err
    code, _, err = run_cli("compare", "runs=[r1,r3]", "output=cmp", cwd=tmp_path)
    assert code == 2 and "world" in err and "rate_per_s 3" in err


def test_options_that_would_be_ignored_are_refused(tmp_path):
    for options, said in (
        (("study", "world=queue", "world.slots={reasoning: 2}"), "world=none"),
        (("study", "tracking=wandb"), "tracking=none"),
        (("tune", "space=confidence", "controller=mobo", "policy.confidence_floor=0.7"), "searches the floor"),
    ):
        code, _, err = run_cli(*options, *SMALL, cwd=tmp_path)
        assert code == 2 and said in err, err


@pytest.mark.slow
def test_race_on_recorded_data(tmp_path):
    pytest.importorskip("pymoo")
    write_recording(tmp_path / "data" / "outcomes", ".parquet")
    files = ("data.queries=DATA/outcomes/queries.parquet", "data.outcomes=DATA/outcomes/outcomes.parquet")
    words = ("data=recorded", *files, "scorer=column", "scorer.column=hardness", "constraints.quality_floor=0.5")
    own = "[" + ",".join(f'"{word}"' for word in words) + "]"
    small = ("only=[mobo_gp,sobol]", "budget=16", "seeds=2", "workers=2", "levels=[10]", "reference=100")
    options = (f"+definitions.mine={own}", "problems=[mine]", "data_dir=data", "output=race", *small)
    code, out, err = run_cli("race", *options, "--json", cwd=tmp_path)
    assert code == 0, err
    assert json.loads(out)["problems"]["mine"]["searchers"]["mobo_gp"]["seeds"] == 2


def test_controllers_are_labelled_by_what_differs():
    from experiments.controllers import controller_label, controller_settings

    assert controller_label(controller_settings("x", {"kind": "mobo"})) == "mobo"
    assert controller_label(controller_settings("x", {"kind": "mobo", "model": "gp", "q": 4})) == "mobo model=gp q=4"
    assert controller_label(controller_settings("x", {"kind": "sobol"})) == "sobol"


@pytest.mark.slow
def test_compare_is_tracked(tmp_path):
    pytest.importorskip("wandb")
    from toolkit.tracking.readback import read_offline_run

    for name in ("sobol", "exact"):
        code, _, err = run_cli("tune", f"controller={name}", "budget=30", *SMALL, f"out={name}", cwd=tmp_path)
        assert code == 0, err
    code, _, err = run_cli("compare", "runs=[sobol,exact]", "output=cmp", "tracking=wandb", cwd=tmp_path)
    assert code == 0, err
    (run,) = (tmp_path / "cmp" / "wandb").glob("offline-run-*")
    found = read_offline_run(run)
    assert found["exit_code"] == 0 and "exact/hypervolume" in found["summary"]


@pytest.mark.slow
def test_a_tracked_tune_is_read_back(tmp_path):
    pytest.importorskip("wandb")
    from toolkit.tracking.readback import read_offline_run

    queries, outcomes = write_recording(tmp_path, ".parquet")
    data = ("data=recorded", f"data.queries={queries}", f"data.outcomes={outcomes}", "scorer=text")
    options = ("controller=sobol", "budget=30", "tracking=wandb", "out=run")
    code, _, err = run_cli("tune", *data, *options, cwd=tmp_path)
    assert code == 0, err
    (run,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    found = read_offline_run(run)
    n = len((tmp_path / "run" / "evaluations.jsonl").read_text().splitlines())
    hypervolume = [row["search/hypervolume"] for row in found["history"] if "search/hypervolume" in row]
    assert len(hypervolume) == n and all(a <= b for a, b in itertools.pairwise(hypervolume))
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert hypervolume[-1] == pytest.approx(info["hypervolume"])
    assert {"cost_usd", "quality", "hypervolume", "validate_quality"} <= set(found["summary"])
    assert {"front", "points", "slices"} <= set(found["tables"]) and found["exit_code"] == 0
    words = read_columns(tmp_path / "queries.parquet")["prompt"][0].as_py().encode()
    assert all(words not in p.read_bytes() for p in run.rglob("*") if p.is_file())


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
