"""The main job on the recorded public sets; skipped where they are absent."""

import importlib.util
import json

import numpy as np
import pytest
from helpers import run_cli

from simulators.outcomes import split_by_prompt
from simulators.recorded import read_recording
from toolkit.scorers.base import cross_fit
from toolkit.scorers.text import TextScorer

TIERS = ["llama-3.1-8b-instruct", "mistral-large-2512", "gemini-2.5-flash", "gemini-2.5-pro"]


def recorded(data_dir, name):
    folder = data_dir / "outcomes"
    files = (folder / f"{name}_queries.parquet", folder / f"{name}_outcomes.parquet")
    return ("data=recorded", f"data.queries={files[0]}", f"data.outcomes={files[1]}")


def load(data_dir, name, tiers=None):
    folder = data_dir / "outcomes"
    return read_recording(folder / f"{name}_queries.parquet", folder / f"{name}_outcomes.parquet", tiers)


def test_paretobandit_reads_as_published(data_dir):
    recording = load(data_dir, "paretobandit")
    assert list(recording.table.tiers) == TIERS and recording.n_dropped == 0
    np.testing.assert_allclose(recording.table.quality.mean(axis=0), [0.790, 0.926, 0.929, 0.936], atol=0.001)
    np.testing.assert_allclose(recording.table.cost_usd.mean(axis=0), [2.9e-5, 4.9e-4, 9.0e-4, 1.5e-2], rtol=0.02)


@pytest.mark.slow
def test_text_utility_gains_over_the_zero_router(data_dir, tmp_path):
    """The figure of the README, on three splits instead of twenty."""
    options = ("scorer=text", "policy=utility", "splits=3", "floors=[0.90,0.92]", "--json")
    code, out, err = run_cli("study", *recorded(data_dir, "paretobandit"), *options, cwd=tmp_path)
    assert code == 0, err
    low_floor, high_floor = json.loads(out)["rows"]
    assert low_floor["zero_router_difference"]["mean"] > 0.03 and low_floor["splits_with_evidence_of_gain"] == 1
    assert high_floor["zero_router_difference"]["mean"] > 0.015
    assert low_floor["cost_usd"] < 3.3e-4 and high_floor["cost_usd"] < 4.4e-4


@pytest.mark.slow
def test_in_sample_scores_would_miss_the_floor_and_out_of_fold_ones_do_not_flatter(data_dir):
    table = load(data_dir, "paretobandit").table
    rows = split_by_prompt(table, {"tune": 0.5, "validate": 0.5}, np.random.default_rng(0))
    tune, validate = (table.take(rows[name]) for name in ("tune", "validate"))
    recipe = TextScorer(ridge_alpha=1.0, neighbours=40, neighbour_weight=0.0, seed=0)
    fitted = recipe.fit(tune)

    def r_squared(predicted, of):
        return 1 - ((predicted - of.quality) ** 2).sum() / ((of.quality - of.quality.mean(axis=0)) ** 2).sum()

    in_sample = r_squared(fitted.predict(tune.queries).quality, tune)
    out_of_fold = r_squared(cross_fit(recipe, tune, folds=5, rng=np.random.default_rng(0)).quality, tune)
    new = r_squared(fitted.predict(validate.queries).quality, validate)
    assert in_sample > new + 0.2
    assert abs(out_of_fold - new) < 0.1


@pytest.mark.slow
def test_a_router_that_cannot_help_is_said_so(data_dir, tmp_path):
    options = ("scorer=text", "policy=utility", "out=run", "--json")
    code, out, err = run_cli("tune", *recorded(data_dir, "routerarena"), *options, cwd=tmp_path)
    assert code == 0, err
    assert json.loads(out)["evidence"]["zero_router_verdict"].startswith("no evidence")
    report = (tmp_path / "run" / "report.html").read_text()
    assert "No evidence that routing beats mixing tiers at random" in report
    assert "is also the cheapest" in report


@pytest.mark.slow
def test_latency_without_costs(data_dir, tmp_path):
    tiers = "data.tiers=[claude-3-haiku-20240307,gpt-4o-mini-2024-07-18,claude-3-5-sonnet-20240620]"
    options = ("scorer=text", "objectives=[latency_p95,quality]", "constraints.p95_ceiling_s=2.0", "out=run", "--json")
    code, out, err = run_cli("tune", *recorded(data_dir, "bfcl"), tiers, *options, cwd=tmp_path)
    assert code == 0, err
    found = json.loads(out)
    assert "cost_usd" not in found["metrics"]["tune"]["policy"]
    assert found["metrics"]["tune"]["policy"]["latency_s"]["p95"] <= 2.0


@pytest.mark.verify
def test_litellm_sends_every_recorded_prompt_where_the_policy_does(data_dir, tmp_path):
    if importlib.util.find_spec("litellm") is None:
        pytest.skip("litellm is not installed")
    data = recorded(data_dir, "paretobandit")
    options = ("scorer=litellm", "policy=thresholds", "constraints.quality_floor=0.9", "out=run", "--json")
    code, _, err = run_cli("tune", *data, *options, cwd=tmp_path)
    assert code == 0, err
    assert "stock boundaries" in (tmp_path / "run" / "report.html").read_text()
    code, _, err = run_cli("export", "run=run", "target=litellm", "output=litellm.yaml", "force=true", cwd=tmp_path)
    assert code == 0, err
    queries = data[1].removeprefix("data.")
    code, out, err = run_cli(
        "verify", "run=run", "target=litellm", queries, "config=litellm.yaml", "--json", cwd=tmp_path
    )
    assert code == 0, err
    assert json.loads(out)["n_agree"] == json.loads(out)["n"] == 1766
