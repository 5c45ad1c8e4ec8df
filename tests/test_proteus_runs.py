"""`controller=proteus` and `controller=ppo_lagrangian` from the command line: runs, resuming, routing, refusals."""

import csv
import json

import pytest
from helpers import run_cli, write_recording

from simulators.columns import read_columns

pytest.importorskip("torch")
pytestmark = pytest.mark.slow
SHORT = ("controller.levels=9", "controller.per_query.steps=60", "controller.per_query.settle=5", "folds=2")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    queries, outcomes = write_recording(tmp_path_factory.mktemp("recording"), ".parquet")
    return queries, ("data=recorded", f"data.queries={queries}", f"data.outcomes={outcomes}", "scorer=text")


def tune(cwd, data, *options, out):
    code, text, err = run_cli("tune", *data, "controller=proteus", *SHORT, *options, f"out={out}", "--json", cwd=cwd)
    assert code == 0, err
    return json.loads(text)


@pytest.fixture(scope="module")
def trained(recorded, tmp_path_factory):
    where = tmp_path_factory.mktemp("trained")
    return where, tune(where, recorded[1], "policy=target", out="run")


def test_a_trained_policy_is_a_run_like_any_other(trained, recorded):
    where, summary = trained
    policy = json.loads((where / "run" / "policy.json").read_text())
    assert policy["policy"] == "target" and set(policy["target"]) == {"tau"} and policy["thresholds"] is None
    assert policy["scorer"]["kind"] == "proteus" and summary["controller"] == "proteus"
    assert "9 requested qualities" in summary["exactness"] or "10 requested qualities" in summary["exactness"]
    assert not (where / "run" / "training").exists()
    assert not any("controller=exact" in note for note in summary["notes"])  # which refuses policy=target
    code, _, err = run_cli("evaluate", "run=run", *recorded[1][:3], "output=metrics.json", cwd=where)
    assert code == 0, err
    assert json.loads((where / "metrics.json").read_text())["n"] > 0


def test_one_model_serves_a_range_of_qualities(trained, recorded):
    where, _ = trained
    front = read_columns(where / "run" / "front.parquet")
    qualities = sorted(front["quality"].to_pylist())
    costs = []
    for quality in (qualities[0], qualities[-1]):
        at = f"at.quality={quality - 1e-9}"
        code, _, err = run_cli("route", "run=run", f"queries={recorded[0]}", at, "output=d.csv", cwd=where)
        assert code == 0, err
        with (where / "d.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert all("tau" in row["reason"] for row in rows)
        costs.append([row["tier"] for row in rows])
    assert len(qualities) == 1 or costs[0] != costs[1]
    code, _, err = run_cli("route", "run=run", f"queries={recorded[0]}", "at.quality=0.9999", cwd=where)
    assert code == 2 and "reaches at most" in err and err.count("\n") == 1


def test_gateways_refuse_what_they_cannot_express(trained):
    where, _ = trained
    code, _, err = run_cli("export", "run=run", "target=litellm", "output=litellm.yaml", cwd=where)
    assert code == 2 and "policy=thresholds" in err and not (where / "litellm.yaml").exists()


def test_a_killed_training_goes_on_to_the_same_result(trained, recorded, tmp_path, monkeypatch):
    from experiments import proteus

    original, calls = proteus._Steps.__call__, []

    def killed(self, step, steps):
        calls.append(step)
        if len(calls) == 100:
            raise KeyboardInterrupt
        original(self, step, steps)

    monkeypatch.setattr(proteus._Steps, "__call__", killed)
    options = (*recorded[1], "controller=proteus", *SHORT, "policy=target", "out=run")
    assert run_cli("tune", *options, cwd=tmp_path).exit_code == 130
    assert list((tmp_path / "run" / "training").iterdir())
    monkeypatch.setattr(proteus._Steps, "__call__", lambda self, step, steps: calls.append(-step))
    code, _, err = run_cli("tune", *options, cwd=tmp_path)
    assert code == 0, err
    assert sum(step < 0 for step in calls) < 3 * 60  # what was trained before is not trained again
    first, second = (json.loads((p / "run" / "policy.json").read_text()) for p in (trained[0], tmp_path))
    for found in (first, second):
        found.pop("provenance")
    assert first == second
    tables = [read_columns(p / "run" / "front.parquet").to_pydict() for p in (trained[0], tmp_path)]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("policy", ["thresholds", "utility"])
def test_parameters_are_compared_with_the_policy_per_query(policy, recorded, tmp_path):
    summary = tune(tmp_path, recorded[1], f"policy={policy}", "controller.search.rounds=6", out="run")
    found = json.loads((tmp_path / "run" / "distillation.json").read_text())
    assert any("policy per query" in note for note in summary["notes"])
    for row in found["rows"]:
        assert row["per_query_tune_quality"] >= row["tau"] <= row["parameters_tune_quality"]
    assert (tmp_path / "run" / "per_query" / "proteus.npz").is_file()
    stored = json.loads((tmp_path / "run" / "policy.json").read_text())
    assert stored["scorer"]["kind"] == "text"  # gateways get the parameters on the score alone


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("policy=target", "controller=exact"), "use controller=proteus"),
        (("controller=proteus", "space=confidence"), "use space=policy"),
        (("controller=proteus", "controller.lambda=scalar"), "policy=target"),
        (("controller=proteus", "controller.tau_range=[0.9,0.8]"), "low < high"),
        (("controller=proteus", "controller.per_query.gradient=guess"), "controller.per_query.gradient"),
        (("controller=ppo_lagrangian", "world=none"), "learns in traffic"),
        (("controller=ppo_lagrangian", "world=traffic"), "needs something to keep"),
        (
            ("controller=ppo_lagrangian", "world=traffic", "constraints.slice_floor=0.8"),
            "slice_floor is none",
        ),
        (
            (
                "controller=ppo_lagrangian",
                "world=traffic",
                "constraints.p95_ceiling_s=30",
                'constraints.bounds=["share_over:5 <= 0.5"]',
            ),
            "one limit of latency",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(options, said, tmp_path):
    code, _, err = run_cli("tune", "data.n_queries=400", *options, "out=run", cwd=tmp_path)
    assert code == 2 and said in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_costs_may_be_unknown(tmp_path):
    write_recording(tmp_path, ".parquet", cost=False, tiers=("small", "large"))
    data = ("data=recorded", "data.queries=queries.parquet", "data.outcomes=outcomes.parquet", "scorer=text")
    known = ("data.tiers=[small,large]", "objectives=[latency_mean,quality]", "policy=target")
    assert "tau" in tune(tmp_path, data, *known, out="run")["policy"]["target"]


@pytest.mark.parametrize("policy", ["target", "thresholds"])
def test_without_torch_a_run_ends_before_it_starts(policy, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.proteus.find_spec", lambda name: None)
    options = ("data.n_queries=400", "controller=proteus", f"policy={policy}", "out=run")
    code, _, err = run_cli("tune", *options, cwd=tmp_path)
    assert code == 2 and "routefront[rl]" in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_policy_per_window_is_judged_on_unseen_traffic(tmp_path):
    pytest.importorskip("gymnasium")
    tiny = ("controller.iterations=2", "controller.traffics=1", "controller.copies=2", "controller.unseen=3")
    tiny += ("controller.validation_traffics=1", "controller.n_initial=4", "controller.window_s=1200", "budget=12")
    options = ("scenario=outage", "data.n_queries=400", "controller=ppo_lagrangian", *tiny, "world.loads=[]")
    floors = ("constraints.quality_floor=0.7", "constraints.p95_ceiling_s=90")
    code, text, err = run_cli("tune", *options, *floors, "out=run", "--json", cwd=tmp_path)
    assert code == 0, err
    found = json.loads((tmp_path / "run" / "windows.json").read_text())
    assert len(found["traffic_seeds"]) == 3 == len(found["policy"]["cost_usd"])
    assert set(found["difference"]) == {"cost_usd", "quality", "share_late", "share_failed"}
    assert any("unseen traffics" in note and "95 % over traffics" in note for note in json.loads(text)["notes"])
    assert (tmp_path / "run" / "window_policy" / "window_policy.npz").is_file()
    assert len(json.loads((tmp_path / "run" / "policy.json").read_text())["thresholds"]) == 2


def test_a_floor_that_only_the_training_misses_says_so(recorded, tmp_path):
    options = (
        *recorded[1],
        "controller=proteus",
        *SHORT,
        "policy=target",
        "constraints.quality_floor=0.9999",
        "out=run",
    )
    code, _, err = run_cli("tune", *options, cwd=tmp_path)
    assert code == 2 and "alone has quality" in err and "per_query.steps" in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage", ["nan", "shape", "garbage"])
def test_a_damaged_policy_is_refused(damage, trained, recorded, tmp_path):
    import shutil

    import numpy as np

    shutil.copytree(trained[0] / "run", tmp_path / "run")
    path = tmp_path / "run" / "scorer" / "proteus.npz"
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    if damage == "garbage":
        path.write_bytes(b"nothing")
    else:
        arrays["w2"] = arrays["w2"] * np.nan if damage == "nan" else arrays["w2"][:, :3]
        np.savez(path, **arrays)
    code, _, err = run_cli("route", "run=run", f"queries={recorded[0]}", "output=d.csv", cwd=tmp_path)
    assert code == 2 and "missing or damaged" in err and "pickle" not in err and err.count("\n") == 1
    assert not (tmp_path / "d.csv").exists()
