"""`routefront control` on a short scenario: cells, resumption, summary, refusals."""

import json

import pytest
from helpers import run_cli

TINY = (
    "scenario=hybrid_api",
    "scenario.traffic.duration_s=600",
    "scenario.traffic.warmup_s=100",
    "scenario.traffic.arrivals.rate_per_s=1.4",
    "slo_s=25",
    "quality_floor=0.85",
    "n_queries=900",
    "boundaries=7",
    "window_s=60",
    "quick_window_s=20",
    "seeds=2",
    "train_seeds=1",
    "clairvoyant.windows=3",
    "clairvoyant.passes=2",
    "output=control",
)
PLAIN = "methods=[static,queue_pacing,index,assignment,clairvoyant]"


def stamps(folder):
    return {p: p.stat().st_mtime_ns for p in (folder / "control" / "cells").rglob("*.json")}


def test_compares_and_resumes(tmp_path):
    code, out, err = run_cli("control", *TINY, PLAIN, "only=[index]", "--json", cwd=tmp_path)
    assert code == 0, err
    found = json.loads(out)
    assert set(found["methods"]) == {"static", "index"}  # what is done
    before = stamps(tmp_path)
    code, out, err = run_cli("control", *TINY, PLAIN, cwd=tmp_path)
    assert code == 0 and "Wrote control/summary.json" in out, err
    assert before.items() <= stamps(tmp_path).items()
    found = json.loads((tmp_path / "control" / "summary.json").read_text())
    assert list(found["methods"]) == PLAIN[9:-1].split(",")
    for method, row in found["methods"].items():
        assert 0 < row["attainment"]["mean"] <= 1 and row["cost_usd"]["mean"] > 0
        assert (row["advantage"] is None) == (method == "static") or row["advantage"] is None
    bound, start = found["methods"]["clairvoyant"], found["curves"]["static"]
    assert bound["attainment"]["mean"] > min(start["attainment"])
    assert found["notes"] and "static front" in found["notes"][0]
    folder = tmp_path / "control"
    assert {"front.png", "timeline.png", "summary.json"} <= {p.name for p in folder.iterdir()}
    text = (folder / "summary.md").read_text()
    assert "| clairvoyant (bound) |" in text and "beyond the static front" in text
    changed = run_cli("control", *TINY, PLAIN, "slo_s=20", cwd=tmp_path)
    assert changed.exit_code == 2 and "other options" in changed.stderr


@pytest.mark.slow
def test_same_options_same_figures(tmp_path):
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        code, out, err = run_cli("control", *TINY, "methods=[static,index]", "--json", cwd=tmp_path / name)
        assert code == 0, err
        found.append(json.loads(out))
    assert found[0] == found[1]


@pytest.mark.slow
def test_trains_a_policy_once(tmp_path):
    pytest.importorskip("torch")
    ppo = ("ppo.iterations=2", "ppo.traffics=1", "ppo.copies=2", "ppo.late_ratios=[1.0]")
    options = (*TINY, *ppo, "methods=[static,ppo_lagrangian]")
    code, out, err = run_cli("control", *options, "--json", cwd=tmp_path)
    assert code == 0, err
    row = json.loads(out)["methods"]["ppo_lagrangian"]
    assert row["setting"].startswith("late share at most")
    policy = tmp_path / "control" / "ppo_lagrangian" / "0" / "window_policy.npz"
    before = policy.stat().st_mtime_ns
    assert run_cli("control", *options, "seeds=3", cwd=tmp_path).exit_code == 0
    assert policy.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("output=null",), "output is not set"),
        (("quality_floor=0.999",), "lower it"),
        (("methods=[static,index]", "only=[clairvoyant]"), "not among methods"),
        (("methods=[magic]",), "methods"),
        (("window_s=400",), "no two windows"),
        (("~scenario.traffic",), "has no traffic"),
        (("slo_s=0",), "slo_s"),
    ],
)
def test_says_what_is_wrong(options, said, tmp_path):
    code, _, err = run_cli("control", *TINY, *options, cwd=tmp_path)
    assert code == 2 and said in err and err.count("\n") == 1


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "mine.txt").write_text("x")
    code, _, err = run_cli("control", *TINY, cwd=tmp_path)
    assert code == 2 and "is no comparison" in err
