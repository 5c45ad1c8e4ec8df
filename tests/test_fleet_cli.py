"""`space=deployment` from the command line: a run and what becomes of it, and wrong input in one line."""

import json

import pytest
import yaml
from helpers import run_cli

FLEET = (
    *("scenario=self_hosted", "gpus@scenario.fleet.gpus=types_2_small", "space=deployment", "space.rate_per_s=4"),
    *("objectives=[latency_p95,quality]", "data.n_queries=400", "space.offline.requests=200"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    at = tmp_path_factory.mktemp("fleet")
    options = (*FLEET, "controller=boute", "budget=14", "constraints.quality_floor=0.75", "out=run", "--json")
    code, out, err = run_cli("tune", *options, cwd=at)
    assert code == 0, err
    (at / "summary.json").write_text(out)
    return at


@pytest.mark.slow
def test_a_run_leaves_policy_deployment_and_report(folder):
    run = folder / "run"
    policy, deployment = (json.loads((run / f"{name}.json").read_text()) for name in ("policy", "deployment"))
    assert deployment["router"]["thresholds"] == policy["thresholds"] and policy["world"]["kind"] == "fleet"
    assert deployment["fleet_usd_per_hour"] <= deployment["budget_usd_per_hour"] == 30.0
    assert sum(tier["share"] for tier in deployment["tiers"]) == pytest.approx(1.0)
    assert deployment["expected"]["latency_p95_simulated_s"] > 0
    assert "What runs where" in (run / "report.html").read_text() and (run / "figures" / "deployment.png").is_file()
    assert policy["chosen_because"].startswith("min_latency")
    assert any(
        "extrapolated, not measured" in note for note in json.loads((folder / "summary.json").read_text())["notes"]
    )


@pytest.mark.slow
def test_the_same_run_goes_on_where_it_was_killed(folder, tmp_path):
    options = (*FLEET, "controller=boute", "budget=14", "constraints.quality_floor=0.75", "out=run", "--json")
    whole = (folder / "run" / "evaluations.jsonl").read_text().splitlines()
    assert run_cli("tune", *options, cwd=tmp_path)[0] == 0
    journal = tmp_path / "run" / "evaluations.jsonl"
    journal.write_text("\n".join(journal.read_text().splitlines()[:9]) + "\n")
    code, out, err = run_cli("tune", *options, cwd=tmp_path)
    assert code == 0 and json.loads(out)["n_replayed"] == 9, err
    keep = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in journal.read_text().splitlines()]
    assert keep == [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in whole]


@pytest.mark.slow
def test_it_is_exported_evaluated_and_certified(folder):
    deployment = json.loads((folder / "run" / "deployment.json").read_text())
    code, _, err = run_cli("export", "run=run", "target=deployment", "output=d.yaml", "force=true", cwd=folder)
    assert code == 0 and yaml.safe_load((folder / "d.yaml").read_text()) == deployment, err
    code, _, err = run_cli("export", "run=run", "target=vllm", "output=d.sh", "force=true", cwd=folder)
    replicas = sum(group["replicas"] for tier in deployment["tiers"] for group in tier["groups"])
    assert code == 0 and (folder / "d.sh").read_text().count("vllm serve ") == replicas, err
    data = ("data=scenario", FLEET[0], FLEET[1], "data.n_queries=400", "seed=9")
    code, _, err = run_cli("evaluate", "run=run", *data, "output=m.json", cwd=folder)
    found = json.loads((folder / "m.json").read_text())
    assert code == 0 and found["policy"]["latency_s"]["p95"] > 0, err
    code, _, err = run_cli("certify", "run=run", *data, "baseline=large", "output=e.json", cwd=folder)
    assert code in {0, 3, 4} and "Traceback" not in err
    code, _, err = run_cli("export", "run=run", "target=litellm", "output=l.yaml", "force=true", cwd=folder)
    assert code in {0, 2} and "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("controller=exact", "space.evaluate=table"),
        ("controller=mobo", "controller.model=gp"),
        ("controller=nsga2",),
        ("controller=boute", "space.thresholds=raw", "space.exclude=false", "space.load_features=false"),
        ("controller=boute", "controller.model=gp", "controller.transforms=false", "controller.preference=false"),
        ("controller=boute", "space.approximate=false", "space.system_latency=max", "space.gpu_types=[h100]"),
        ("controller=boute", "objectives=[fleet_cost,quality]", "constraints.p95_ceiling_s=40"),
        ("controller=boute", "space.offline.candidates=homogeneous", "space.offline.load_grid=fixed"),
    ],
    ids=" ".join,
)
def test_other_searchers_and_every_ablation_run(options, tmp_path):
    for package in ("pymoo",) if "controller=nsga2" in options else ():
        pytest.importorskip(package)
    code, _, err = run_cli("tune", *FLEET, "budget=12", "out=run", *options, cwd=tmp_path)
    assert code == 0, err
    deployment = json.loads((tmp_path / "run" / "deployment.json").read_text())
    if "space.gpu_types=[h100]" in options:
        assert set(deployment["gpus"]) == {"h100"}
    if "space.exclude=false" in options:
        assert deployment["fleet_usd_per_hour"] <= 30.0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("scenario=hybrid_api", "space=deployment"), "needs a scenario with a fleet"),
        ((*FLEET, "space.gpu_types=[tpu]"), "are no GPU types of the fleet"),
        ((*FLEET, "policy=utility"), "searches thresholds; use policy=thresholds"),
        ((*FLEET, "world=queue", "world.slots={small: 2}"), "use world=none"),
        ((*FLEET, "space.budget_usd_per_hour=0.5"), "budget"),
        ((*FLEET, "space.budget_usd_per_hour=-3"), "space.budget_usd_per_hour"),
        ((*FLEET, "space.evaluate=magic"), "space.evaluate"),
        ((*FLEET, "space.evaluate=table", "objectives=[latency_p95@maths,quality]"), "space.evaluate=simulate"),
        (("scenario=self_hosted", "controller=boute"), "space=deployment"),
        (("scenario=self_hosted", "objectives=[fleet_cost,quality]"), "space=deployment"),
        ((*FLEET, "objectives=[fleet_cost@maths,quality]"), "a fleet serves all slices"),
        ((*FLEET, "controller=proteus"), "controller="),
        ((*FLEET, "choose=certified", "constraints.p95_ceiling_s=9"), "choose=certified cannot test"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[-2:]),
)
def test_wrong_input_is_one_line(options, expected, tmp_path):
    code, out, err = run_cli("tune", *options, "budget=12", "out=run", cwd=tmp_path)
    assert code == 2 and out == "" and len(err.strip().splitlines()) == 1 and expected in err, err
    assert not (tmp_path / "run").exists()


def test_only_a_fleet_run_has_a_deployment_to_export(tmp_path):
    assert run_cli("tune", "data.n_queries=300", "out=run", cwd=tmp_path)[0] == 0
    code, _, err = run_cli("export", "run=run", "target=vllm", "output=x.sh", "force=true", cwd=tmp_path)
    assert code == 2 and "searched no deployment" in err and not (tmp_path / "x.sh").exists()
