"""`routefront certify`, `power` and the gate of `export`, end to end on recordings with a known loss."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import yaml
from helpers import run_cli, snapshot, write_columns

from experiments import tune_output
from experiments.baselines import find_baseline
from experiments.certify import policy_digest, read_evidence
from experiments.settings import RecordedData, ScenarioData
from experiments.unseen import prompts_seen, unseen_rows
from simulators.errors import ConfigError, InputDataError, RoutefrontError
from simulators.recorded import read_recording
from toolkit.export.provenance import certificate_line, certificate_summary
from toolkit.export.schema import read_policy

SLICES = ("chat", "code", "hidden", *(f"rare/{i}" for i in range(8)))
OWN = ("data.queries=queries.csv", "data.outcomes=outcomes.csv")
TUNE = ("tune", "data=recorded", *OWN, "scorer=column", "scorer.column=hardness", "constraints.quality_floor=0.85")


def write_pair(folder, *, n, seed, lost=0.0, models=("small", "large"), session=0, prompts=True):
    """Small answers easy queries as well as large does, except that it loses `lost` in the slice `hidden`.

    Half of the queries are easy; the sizes of the slices are fixed, so that a verdict does not hang on them.
    """
    rng = np.random.default_rng(seed)
    rare, hidden = min(n // 80, 25), n * 8 // 100
    chat = n // 2
    sizes = [chat, n - chat - hidden - 8 * rare, hidden, *[rare] * 8]
    code = rng.permutation(np.repeat(np.arange(len(SLICES)), sizes))
    easy, u, right = rng.permutation(np.arange(n) % 2 == 0), rng.random(n), rng.random(n) < 0.93
    worse = u < 0.04 + 2 * lost * (code == 2)
    large = np.where(easy, (right | worse) & ~(u > 0.96), right)
    small = np.where(easy, (right | (u > 0.96)) & ~worse, rng.random(n) < 0.1)
    ids = [f"{seed}-{i}" for i in range(n)]
    queries = {
        "query_id": ids,
        "prompt": [f"question {name}" for name in ids],
        "slice": [SLICES[s] for s in code],
        "hardness": np.where(easy, 0.25, 0.75).tolist(),
    }
    if session:
        queries["session_id"] = [f"s{i // session}" for i in range(n)]
    if not prompts:
        del queries["prompt"]
    outcomes = {
        "query_id": [name for name in ids for _ in range(2)],
        "model": list(models) * n,
        "score": np.stack([small, large], axis=1).astype(float).ravel().tolist(),
        "cost_usd": [1e-5, 1e-3] * n,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_columns(folder / "queries.csv", queries)
    write_columns(folder / "outcomes.csv", outcomes)


def data(name):
    return (f"data.queries={name}/queries.csv", f"data.outcomes={name}/outcomes.csv")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A run `run` that sends easy queries to small and hard ones to large, and three recordings it has not seen."""
    folder = tmp_path_factory.mktemp("shelf")
    write_pair(folder, n=800, seed=1)
    write_pair(folder / "fine", n=2400, seed=2)
    write_pair(folder / "lossy", n=2400, seed=3, lost=0.3)
    write_pair(folder / "few", n=400, seed=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune_output, "write_report", lambda path, record: {})  # figures take most of a small run's time
        result = run_cli(*TUNE, "out=run", cwd=folder)
    assert result.exit_code == 0, result.stderr
    policy = read_policy(folder / "run" / "policy.json")
    assert 0.25 < policy.thresholds[0] <= 0.75, "easy queries to small, hard ones to large"
    return folder


VERDICTS = {"pass": ("fine", "0.08", 0), "fail": ("lossy", "0.08", 3), "undecided": ("few", "0.02", 4)}


@pytest.fixture(scope="module")
def evidence_of(shelf):
    """Verdict -> the evidence of a certification against large that ended so."""
    found = {}
    for verdict, (name, margin, code) in VERDICTS.items():
        certify(shelf, *data(name), "baseline=large", f"margin={margin}", f"output={verdict}.json", code=code)
        found[verdict] = (shelf / f"{verdict}.json").read_text()
        (shelf / "run" / "evidence.json").unlink()
        (shelf / f"{verdict}.json").unlink()
    return found


@pytest.fixture
def place(shelf, tmp_path):
    """A copy of `shelf`."""
    shutil.copytree(shelf, tmp_path, dirs_exist_ok=True)
    return tmp_path


def certify(folder, *args, code):
    result = run_cli("certify", "run=run", *args, "--json", cwd=folder)
    assert result.exit_code == code, (result.exit_code, result.stderr, result.stdout[-1500:])
    return json.loads(result.stdout)


def refused(folder, *args):
    """Bad input: exit code 2, one line, nothing written; returns the line."""
    before = snapshot(folder)
    result = run_cli(*args, cwd=folder)
    assert (result.exit_code, result.stdout) == (2, ""), result
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and "Traceback" not in line
    assert snapshot(folder) == before
    return line


def says(line, *fragments):
    missing = [f for f in fragments if f not in line]
    assert not missing, f"{missing} not in: {line}"


def verdicts(evidence):
    return {c["name"]: c["verdict"] for c in evidence["criteria"]}


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_a_policy_that_loses_nothing_passes(place, evidence_of):
    found = json.loads(evidence_of["pass"])
    assert found["verdict"] == "pass" and found["margin_given"] and found["margin"] == 0.08
    assert set(verdicts(found)) == {"all queries", "chat", "code", "hidden", "rare", "quality >= 0.85"}
    assert set(verdicts(found).values()) == {"pass"}
    assert {m["judged_as"] for m in found["merged"].values()} == {"rare"} and len(found["merged"]) == 8
    assert found["cost_difference_usd"]["high"] < 0 and found["n"] == found["n_clusters"] == 2400
    assert found["policy_sha256"] == policy_digest(place / "run")


def test_the_evidence_is_where_it_was_asked_for_and_with_the_run(place):
    found = certify(place, *data("few"), "baseline=large", "margin=0.08", "output=new/e.json", code=4)
    written = json.loads((place / "new" / "e.json").read_text())
    assert written == json.loads((place / "run" / "evidence.json").read_text())
    assert found == written | {"output": "new/e.json"} and not (place / "evidence.json").exists()


def test_a_loss_that_hides_in_one_slice_fails(place, evidence_of):
    found = json.loads(evidence_of["fail"])
    assert found["verdict"] == "fail" and found["aggregate_alone"] == "pass"
    failed = [c for c in found["criteria"] if c["verdict"] == "fail"]
    assert [c["name"] for c in failed] == ["hidden"]
    assert failed[0]["difference"]["low"] < -0.3 < failed[0]["difference"]["high"]
    assert "hidden" in found["sentences"][0]
    loud = run_cli("certify", "run=run", *data("lossy"), "baseline=large", "margin=0.08", cwd=place)
    assert loud.exit_code == 3 and "FAIL" in loud.stdout and "hidden" in loud.stdout


def test_too_few_labels_leave_it_undecided(evidence_of):
    found = json.loads(evidence_of["undecided"])
    assert found["verdict"] == "undecided" and verdicts(found)["hidden"] == "undecided"
    labels = found["labels"]["slices"]
    assert all(s["missing"] == max(0, s["needed"] - s["n"]) for s in labels.values())
    assert labels["hidden"]["missing"] > 100 and found["labels"]["total_needed"] > 400
    assert str(labels["hidden"]["missing"]) in " ".join(found["sentences"]).replace(",", "")


def test_without_a_margin_it_is_what_the_data_resolves(place):
    found = certify(place, *data("fine"), "baseline=large", code=0)
    resolved = [s["resolved"] for s in found["labels"]["slices"].values()]
    assert not found["margin_given"] and found["margin"] == max(resolved)
    coarse = certify(place, *data("few"), "baseline=large", "slices.minimum=20", code=0)
    assert coarse["margin"] > 1.5 * found["margin"]


@pytest.mark.slow
def test_a_better_policy_against_a_worse_baseline(place):
    found = certify(place, *data("few"), "baseline=small", "margin=0.05", code=0)
    assert found["criteria"][0]["difference"]["low"] > 0.2 and found["cost_difference_usd"]["low"] > 0


def test_attempts_are_counted_where_they_are_another_chance(place, evidence_of):
    """The same data again shows the same; other data against the same baseline is another draw."""
    (place / "run" / "evidence.json").write_text(evidence_of["undecided"])
    options, moving = ("baseline=large", "margin=0.02"), {"created", "earlier", "output"}
    again, first = certify(place, *data("few"), *options, code=4), json.loads(evidence_of["undecided"])
    assert {k: v for k, v in again.items() if k not in moving} == {k: v for k, v in first.items() if k not in moving}
    assert again["attempt"] == 1 and len(again["earlier"]) == 1
    second = certify(place, *data("lossy"), *options, code=3)
    assert second["attempt"] == 2 and [e["verdict"] for e in second["earlier"]] == ["undecided", "undecided"]
    assert certify(place, *data("few"), "baseline=small", "margin=0.02", code=0)["attempt"] == 1


@pytest.mark.slow
def test_sessions_are_clusters(place):
    write_pair(place / "talks", n=1200, seed=9, session=8)
    found = certify(place, *data("talks"), "baseline=large", "margin=0.5", code=0)
    assert (found["n"], found["n_clusters"]) == (1200, 150)


@pytest.mark.slow
def test_a_replaced_file_is_said(place):
    args = ("certify", "run=run", *data("few"), "baseline=small", "margin=0.05")
    assert "replaced" not in run_cli(*args, cwd=place).stderr
    assert "evidence.json existed and was replaced" in run_cli(*args, cwd=place).stderr


@pytest.mark.slow
def test_the_report_gets_a_section_once(place):
    from toolkit.report.certificate_html import certificate_slot

    page = place / "run" / "report.html"
    page.write_text(f"<html>before {certificate_slot()} after</html>")
    for name, code in (("fine", 0), ("lossy", 3)):
        certify(place, *data(name), "baseline=large", "margin=0.08", code=code)
        text = page.read_text()
        assert text.startswith("<html>before ") and text.endswith(" after</html>")
        assert text.count("Certified against tier large") == 1
    assert "Certified against tier large: fail" in text and "Not certified yet" not in text
    page.write_text("<html>an old report without a place for it</html>")
    certify(place, *data("fine"), "baseline=large", "margin=0.08", code=0)
    assert page.read_text() == "<html>an old report without a place for it</html>"


# --- unseen data ------------------------------------------------------------------------------------------------------


def test_what_the_run_was_tuned_on_is_left_out(place):
    found = certify(place, *OWN, "baseline=large", "margin=0.2", code=0)
    n = {name: len(hashes) for name, hashes in prompts_seen(place / "run").items()}
    assert found["n"] == n["validate"] and n["tune"] == 400
    assert any("400 of 800" in note and "400 of its tune split" in note for note in found["notes"])


def certified_choice(run):
    """Make the run look as if its choice had been made on the validation split."""
    path = run / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"choose": "certified"}))


def test_a_choice_made_on_the_validation_split_has_seen_it(place):
    certified_choice(place / "run")
    line = refused(place, "certify", "run=run", *OWN, "baseline=large")
    says(line, "has seen every query", "tune and validate")


@pytest.fixture(scope="module")
def recording(shelf):
    return read_recording(shelf / "queries.csv", shelf / "outcomes.csv", ["small", "large"], keep_order=True).table


class Recorded:
    """Settings of recorded data, as far as `unseen_rows` looks."""

    kind = "recorded"


def test_unseen_rows_are_those_of_the_other_split(place, recording):
    seen = prompts_seen(place / "run")
    rows, left_out = unseen_rows(place / "run", recording, Recorded(), 2)
    assert left_out == {"tune": 400, "validate": 0} and len(rows) == 400
    again = recording.take(rows)
    kept, nothing = unseen_rows(place / "run", again, Recorded(), 2)
    assert len(kept) == 400 and nothing == {"tune": 0, "validate": 0}
    tuned = recording.take(np.setdiff1d(np.arange(800), rows))
    with pytest.raises(InputDataError, match="has seen every query of this data"):
        unseen_rows(place / "run", tuned, Recorded(), 2)
    assert len(seen["tune"] & seen["validate"]) == 0


def test_a_repeat_of_a_tuned_prompt_is_seen_whatever_it_is_called(place):
    """Identifiers may change between files; prompts are what counts."""
    text = (place / "queries.csv").read_text().replace('"1-', '"new-').replace("question new-", "question 1-")
    (place / "queries.csv").write_text(text)
    (place / "outcomes.csv").write_text((place / "outcomes.csv").read_text().replace('"1-', '"new-'))
    assert '"new-0"' in text and '"question 1-0"' in text
    assert certify(place, *OWN, "baseline=large", "margin=0.2", code=0)["n"] == 400


@pytest.mark.parametrize("name", ["prompts_seen.json", "config.yaml"])
@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_run_that_forgot_what_it_saw(place, name, content):
    if content is None:
        (place / "run" / name).unlink()
    else:
        (place / "run" / name).write_text(content)
    with pytest.raises(InputDataError, match=name):
        table = read_recording(place / "queries.csv", place / "outcomes.csv", ["small", "large"]).table
        unseen_rows(place / "run", table, Recorded(), 0)


def test_only_the_runs_own_draw_of_a_scenario_is_seen(place, recording):
    """Identifiers repeat from draw to draw; a draw is known by its seed, which is 0 where a run has none."""
    path = place / "run" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for drawn, seed, own, left_out in ((None, 0, None, 400), (None, 2, None, 0), (3, 9, 3, 400), (3, 9, 4, 0)):
        path.write_text(yaml.safe_dump(config | {"data": {"kind": "scenario", "n_queries": 800, "seed": drawn}}))
        data = ScenarioData(kind="scenario", n_queries=800, seed=own)
        assert unseen_rows(place / "run", recording, data, seed)[1]["tune"] == left_out


@pytest.mark.slow
def test_a_fresh_draw_of_a_scenario_is_unseen(tmp_path, monkeypatch):
    monkeypatch.setattr(tune_output, "write_report", lambda path, record: {})
    small = ("data.n_queries=800", "controller.max_evaluations=100", "constraints.quality_floor=0.7")
    assert run_cli("tune", *small, "out=run", cwd=tmp_path).exit_code == 0
    draw = ("data=scenario", "data.n_queries=800", "baseline=fast", "margin=0.6", "most_unjudged=0.2")
    fresh = certify(tmp_path, *draw, code=0)
    assert fresh["n"] == 800 and fresh["notes"] == []
    same = certify(tmp_path, *draw, "seed=0", code=0)
    assert same["n"] == 400 and "400 of its tune split" in same["notes"][0]


# --- baselines --------------------------------------------------------------------------------------------------------


def test_a_run_against_itself_differs_by_nothing(place):
    found = certify(place, *data("fine"), "baseline=run", "margin=0.1", code=0)
    assert found["baseline"] == "run run"
    for criterion in found["criteria"][:-1]:
        assert criterion["difference"]["mean"] == 0.0 and criterion["policy"] == criterion["baseline"]
    assert found["cost_difference_usd"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_another_run_with_other_tiers(place, recording):
    """The baseline's tiers are looked up by name, in whatever order its policy has them."""
    other = place / "other"
    shutil.copytree(place / "run", other)
    raw = json.loads((other / "policy.json").read_text())
    raw |= {"tiers": ["large", "small"], "thresholds": [-1.797e308]}
    raw["lanes"] |= {"fallback_tier": "large", "low_confidence_tier": "small"}
    (other / "policy.json").write_text(json.dumps(raw))
    found = find_baseline(str(other), ("small", "large"), ("large", "small"), {})
    assert found.tiers == ("large", "small")
    assert (found.decide(recording) == 0).all(), "all to its second tier, which is small"


def test_a_tier_baseline(recording):
    found = find_baseline("large", ("small", "large"), ("large", "small"), {})
    assert found.label == "tier large" and (found.decide(recording) == 1).all()


CONFIG = {
    "model_list": [
        {"model_name": "front", "litellm_params": {"model": "openai/small"}},
        {"model_name": "back", "litellm_params": {"model": "anthropic/claude"}},
        {
            "model_name": "router",
            "litellm_params": {
                "model": "auto_router/complexity_router",
                "complexity_router_default_model": "front",
                "complexity_router_config": {
                    "tiers": {"SIMPLE": "front", "MEDIUM": "front", "COMPLEX": ["back"], "REASONING": "back"}
                },
            },
        },
    ]
}
MODELS = ("large", "small")


def config_of(folder, edit=lambda config: None):
    config = yaml.safe_load(yaml.safe_dump(CONFIG))
    edit(config)
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def router_of(config):
    return config["model_list"][-1]["litellm_params"]


def test_names_of_a_config_are_matched_or_mapped(tmp_path):
    """`front` is small by its provider's name; nothing says what `back` is."""
    path = config_of(tmp_path)
    found = find_baseline(path, MODELS, MODELS, {"back": "large"})
    assert found.tier_of == {"back": "large", "front": "small"} and found.label == f"config {path}"
    assert find_baseline(path, MODELS, MODELS, {"back": "large", "front": "large"}).tiers == ("large",)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({}, "routes to 'back', which is no model of the data (large, small); say which one it is"),
        ({"back": "lrage"}, "['lrage']"),
        ({"front": "lrage", "back": "large"}, "['lrage']"),
        ({"back": "large", "frnt": "small"}, "['frnt']"),
    ],
)
def test_names_that_cannot_be_matched(names, said, tmp_path):
    with pytest.raises(ConfigError) as caught:
        find_baseline(config_of(tmp_path), MODELS, MODELS, names)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("huge", "baseline=huge is no model of the data (large, small), no run folder, no config file"),
        ("nope/gateway.yaml", "no config file"),
    ],
)
def test_unknown_baselines(text, said):
    with pytest.raises(ConfigError) as caught:
        find_baseline(text, MODELS, MODELS, {})
    assert said in str(caught.value)


def pool(config):
    router_of(config)["complexity_router_config"]["tiers"]["COMPLEX"] = ["front", "back"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [", "not YAML"),
        ("- 1", "holds no mapping"),
        ("model_list: []", "found 0"),
        (pool, "several models at random"),
        (lambda c: c["model_list"].append(c["model_list"][-1]), "found 2"),
    ],
)
def test_configs_that_cannot_be_replayed(content, said, tmp_path):
    if callable(content):
        config_of(tmp_path, content)
    else:
        (tmp_path / "gateway.yaml").write_text(content)
    with pytest.raises(RoutefrontError) as caught:
        find_baseline(str(tmp_path / "gateway.yaml"), MODELS, MODELS, {"back": "large"})
    assert said in str(caught.value) and "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_stock_boundaries_have_four_names():
    with pytest.raises(ConfigError, match="four names; the policy has 5 tiers"):
        find_baseline("litellm-stock", tuple("abcde"), tuple("abcde"), {})


@pytest.fixture(scope="module")
def litellm_shelf(tmp_path_factory):
    """A recording with words that LiteLLM knows, a run on LiteLLM's score, and its exported config."""
    pytest.importorskip("litellm")
    from helpers import write_recording

    folder = tmp_path_factory.mktemp("litellm_shelf")
    write_recording(folder, ".csv", n=600, latency=False)
    tune = ("tune", "data=recorded", *OWN, "scorer=litellm", "constraints.quality_floor=0.5", "choose=knee", "out=run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune_output, "write_report", lambda path, record: {})
        assert run_cli(*tune, cwd=folder).exit_code == 0
    result = run_cli("export", "run=run", "target=litellm", "output=litellm.yaml", "force=true", cwd=folder)
    assert result.exit_code == 0, result.stderr
    return folder


@pytest.mark.verify
def test_its_own_exported_config_decides_as_the_policy(litellm_shelf, tmp_path):
    shutil.copytree(litellm_shelf, tmp_path, dirs_exist_ok=True)
    found = certify(tmp_path, *OWN, "baseline=litellm.yaml", "margin=0.2", code=0)
    assert found["baseline"] == "config litellm.yaml" and found["criteria"][0]["difference"]["mean"] == 0.0
    assert all(c["policy"] == c["baseline"] for c in found["criteria"] if c["kind"] != "constraint")


@pytest.mark.verify
def test_a_config_with_other_names_needs_a_mapping(litellm_shelf, tmp_path):
    shutil.copytree(litellm_shelf, tmp_path, dirs_exist_ok=True)
    text = (tmp_path / "litellm.yaml").read_text()
    (tmp_path / "litellm.yaml").write_text(re.sub(r"\bmedium\b", "midi", re.sub(r"\bsmall\b", "mini", text)))
    says(refused(tmp_path, "certify", "run=run", *OWN, "baseline=litellm.yaml"), "midi", "baseline_models={")
    names = "baseline_models={mini: small, midi: medium}"
    found = certify(tmp_path, *OWN, "baseline=litellm.yaml", names, "margin=0.2", code=0)
    assert found["criteria"][0]["difference"]["mean"] == 0.0


@pytest.mark.verify
def test_stock_boundaries_as_baseline(litellm_shelf, tmp_path):
    from toolkit.scorers.litellm import stock_tiers

    shutil.copytree(litellm_shelf, tmp_path, dirs_exist_ok=True)
    result = run_cli("certify", "run=run", *OWN, "baseline=litellm-stock", "--json", cwd=tmp_path)
    found = json.loads(result.stdout)
    assert result.exit_code in (0, 3, 4) and found["baseline"] == "LiteLLM's stock boundaries"
    table = read_recording(tmp_path / "queries.csv", tmp_path / "outcomes.csv", None).table
    rows, _ = unseen_rows(tmp_path / "run", table, Recorded(), 0)
    table = table.take(rows)
    tier = np.array([0, 1, 1, 2])[stock_tiers(table.queries)]
    assert found["baseline_quality"]["mean"] == pytest.approx(table.quality[np.arange(len(rows)), tier].mean())


@pytest.mark.verify
@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            lambda c: router_of(c)["complexity_router_config"].update(tier_boundaries={"simple_medium": "x"}),
            "cannot run",
        ),
        (lambda c: c["model_list"].append(3), "cannot run"),
        (
            lambda c: (
                router_of(c).update(complexity_router_config={"escalation_keywords": []}),
                router_of(c).pop("complexity_router_default_model"),
            ),
            "does not name",
        ),
    ],
)
def test_what_litellm_cannot_run_or_sends_elsewhere_is_one_line(edit, said, litellm_shelf, tmp_path):
    shutil.copytree(litellm_shelf, tmp_path, dirs_exist_ok=True)

    def known(config):
        for entry, model in zip(config["model_list"], ("small", "large"), strict=False):
            entry["litellm_params"]["model"] = f"openai/{model}"
        edit(config)

    config_of(tmp_path, known)
    says(refused(tmp_path, "certify", "run=run", *OWN, "baseline=gateway.yaml"), "gateway.yaml", said)


# --- bad input --------------------------------------------------------------------------------------------------------

QUICK = ("unknown baseline", "missing files", "margin 0", "power below alpha", "output is the policy")
BAD = {
    "no baseline": ([*data("few")], ["baseline"]),
    "unknown baseline": ([*data("few"), "baseline=huge"], ["huge", "large, small"]),
    "no run": (["run=nope", *data("few"), "baseline=large"], ["run=nope"]),
    "no data": (["baseline=large"], ["data.outcomes"]),
    "missing files": ([*data("nowhere"), "baseline=large"], ["nowhere/outcomes.csv"]),
    "margin 0": ([*data("few"), "baseline=large", "margin=0"], ["margin", "greater than or equal to 0.0001"]),
    "margin 2": ([*data("few"), "baseline=large", "margin=2"], ["margin", "less than or equal to 1"]),
    "margin is text": ([*data("few"), "baseline=large", "margin=two"], ["margin"]),
    "alpha": ([*data("few"), "baseline=large", "alpha=0.5"], ["alpha"]),
    "power below alpha": ([*data("few"), "baseline=large", "power=0.01"], ["power", "0.01"]),
    "no slice to judge": ([*data("few"), "baseline=large", "slices.minimum=5000"], ["slices.minimum"]),
    "output is a folder": ([*data("few"), "baseline=large", "output=run"], ["output=run is a folder"]),
    "output is an input": ([*data("few"), "baseline=large", "output=few/queries.csv"], ["input"]),
    "output is the policy": ([*data("few"), "baseline=large", "output=run/policy.json"], ["in the run folder"]),
    "output below a file": ([*data("few"), "baseline=large", "output=few/queries.csv/e.json"], ["cannot write"]),
    "no such option": ([*data("few"), "baselin=large"], ["baselin"]),
}  # fmt: skip


@pytest.mark.parametrize("case", [pytest.param(c, marks=() if c in QUICK else pytest.mark.slow) for c in BAD])
def test_bad_input(case, place):
    args, fragments = BAD[case]
    run = [] if any(a.startswith("run=") for a in args) else ["run=run"]
    says(refused(place, "certify", *run, *args), *fragments)


def test_the_baselines_own_file_is_not_overwritten(place):
    path = config_of(place)
    says(refused(place, "certify", "run=run", *data("few"), f"baseline={path}", f"output={path}"), "input")


@pytest.mark.slow
def test_data_without_a_tier_of_the_policy(place):
    write_pair(place / "elsewhere", n=100, seed=6, models=("small", "huge"))
    says(refused(place, "certify", "run=run", *data("elsewhere"), "baseline=huge"), "large", "outcomes.csv")


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"verdict": "fine"}', '{"verdict": ["pass"]}', '{"verdict": "pass"}', "\xff"]
)
def test_damaged_evidence_is_one_line_with_a_remedy(place, content):
    (place / "run" / "evidence.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputDataError, match=r"evidence\.json.* remove it"):
        read_evidence(place / "run")
    if content == "{":
        says(refused(place, "export", "run=run", "target=json", "output=p.json"), "evidence.json", "remove it")
        says(refused(place, "certify", "run=run", *data("few"), "baseline=large"), "evidence.json", "remove it")


# --- power ------------------------------------------------------------------------------------------------------------


def power(folder, *args):
    result = run_cli("power", *args, "--json", cwd=folder)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    written = json.loads((folder / "power.json").read_text())
    assert written == {name: value for name, value in found.items() if name not in {"output", "sentences"}}
    return found


def test_power_before_there_is_a_run(place):
    found = power(place, *data("few"), "baseline=large", "margin=0.05")
    assert found["policy"] is None and found["baseline"] == "tier large" and found["n"] == 400
    assert set(found["stands_for_policy"].values()) == {"small"}
    assert set(found["slices"]) == {"chat", "code", "hidden", "rare"}
    assert found["slices"]["hidden"]["missing"] > 0
    best = power(place, *data("few"), "margin=0.05")
    assert best["baseline"].startswith("tier large, the best single tier") and best["slices"] == found["slices"]


@pytest.mark.slow
def test_power_for_a_run_agrees_with_certify(place):
    """A policy that differs on half of the queries needs far fewer labels than the tier that stands for it."""
    before = power(place, *data("few"), "baseline=large", "margin=0.05")
    found = power(place, "run=run", *data("few"), "baseline=large", "margin=0.05")
    assert found["stands_for_policy"] == {} and found["policy"] == "run"
    assert all(found["slices"][s]["needed"] < before["slices"][s]["needed"] for s in found["slices"])
    result = run_cli("certify", "run=run", *data("few"), "baseline=large", "margin=0.05", "--json", cwd=place)
    labels = json.loads(result.stdout)["labels"]
    assert labels["total_needed"] == found["total_needed"]
    assert {s: r["needed"] for s, r in labels["slices"].items()} == {s: r["needed"] for s, r in found["slices"].items()}


@pytest.mark.slow
def test_the_labels_that_power_asks_for_are_enough(place):
    found = power(place, "run=run", *data("few"), "baseline=large", "margin=0.08")
    assert 400 < found["total_needed"] < 2400
    certify(place, *data("fine"), "baseline=large", "margin=0.08", code=0)


@pytest.mark.slow
def test_power_in_words(place):
    result = run_cli("power", *data("few"), "baseline=large", "margin=0.05", cwd=place)
    assert result.exit_code == 0 and "hidden" in result.stdout and "There is no policy yet" in result.stdout


@pytest.mark.parametrize(
    ("args", "fragments"),
    [
        (["baseline=large"], ["data."]),
        ([*data("few"), "baseline=huge"], ["huge"]),
        pytest.param([*data("few"), "margin=0"], ["margin"], marks=pytest.mark.slow),
        pytest.param([*data("few"), "power=0.03"], ["power"], marks=pytest.mark.slow),
        pytest.param([*data("few"), "slices.minimum=5000"], ["slices.minimum"], marks=pytest.mark.slow),
        pytest.param(["run=nope", *data("few"), "baseline=large"], ["run=nope"], marks=pytest.mark.slow),
        (["run=run", *data("few")], ["baseline"]),
        ([*data("few"), "output=few/outcomes.csv"], ["input"]),
    ],
)
def test_bad_input_of_power(args, fragments, place):
    says(refused(place, "power", *args), *fragments)


# --- the gate of export -----------------------------------------------------------------------------------------------

EXPORT = ("export", "run=run", "target=json", "output=p.json")


def exported(folder, *args):
    result = run_cli(*EXPORT, *args, cwd=folder)
    assert result.exit_code == 0, result.stderr
    return result, json.loads((folder / "p.json").read_text())["evidence"]["certificate"]


def test_nobody_ships_what_nobody_certified(place):
    says(refused(place, *EXPORT), "no certificate of this policy", "routefront certify run=run", "force=true")
    result, certificate = exported(place, "force=true")
    assert certificate is None and "not certified" in result.stderr


def test_a_pass_is_shipped_with_its_certificate(place, evidence_of):
    (place / "run" / "evidence.json").write_text(evidence_of["pass"])
    result, certificate = exported(place)
    assert (certificate["verdict"], certificate["baseline"], certificate["n"]) == ("pass", "tier large", 2400)
    assert result.stderr == "" and certificate["sentence"].startswith("PASS")


def test_a_fail_is_shipped_by_force_alone(place, evidence_of):
    (place / "run" / "evidence.json").write_text(evidence_of["fail"])
    says(refused(place, *EXPORT), "failed its certification", "hidden", "force=true")
    result, certificate = exported(place, "force=true")
    assert certificate["verdict"] == "fail" and "FAILED" in result.stderr


def test_an_undecided_policy_is_shipped_with_a_warning(place, evidence_of):
    (place / "run" / "evidence.json").write_text(evidence_of["undecided"])
    result, certificate = exported(place)
    assert certificate["verdict"] == "undecided" and result.stderr.startswith("Warning: undecided")
    policy = read_policy(place / "p.json")
    assert certificate_line(policy).startswith(
        "WARNING: undecided against tier large on 400 unseen queries, margin 0.02"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"thresholds": [0.1]},
        {"constraints": {"quality_floor": 0.5}},
        {"tiers": ["large", "small"]},
        {"data_hash": "0" * 64},
    ],
)
def test_a_changed_policy_has_no_certificate(place, change, evidence_of):
    (place / "run" / "evidence.json").write_text(evidence_of["pass"])
    path = place / "run" / "policy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    says(refused(place, *EXPORT), "no certificate of this policy")


def test_another_scorer_has_no_certificate(place, evidence_of):
    (place / "run" / "evidence.json").write_text(evidence_of["pass"])
    path = next((place / "run" / "scorer").glob("*.json"))
    path.write_text(path.read_text().replace("hardness", "length"))
    says(refused(place, *EXPORT), "no certificate of this policy")


@pytest.mark.slow
def test_words_about_a_policy_do_not_void_its_certificate(place, evidence_of):
    (place / "run" / "evidence.json").write_text(evidence_of["pass"])
    path = place / "run" / "policy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chosen_because": "we like it"}, indent=1))
    assert exported(place)[1]["verdict"] == "pass"


@pytest.mark.slow
def test_a_fresh_certification_after_a_change_starts_over(place, evidence_of):
    (place / "run" / "evidence.json").write_text(evidence_of["pass"])
    path = place / "run" / "policy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"thresholds": [0.6]}))
    found = certify(place, *data("few"), "baseline=small", "margin=0.05", code=0)
    assert found["earlier"] == [] and found["attempt"] == 1
    assert exported(place)[1]["baseline"] == "tier small"


LINES = {
    "pass": ("Certified: pass", True),
    "undecided": ("WARNING: undecided", True),
    "fail": ("WARNING: FAILED its certification", False),
}


@pytest.mark.parametrize("verdict", LINES)
def test_the_line_in_a_file(shelf, verdict):
    begin, given = LINES[verdict]
    evidence = {
        "verdict": verdict, "baseline": "tier large", "margin": 0.0234, "margin_given": given, "alpha": 0.05, "n": 99,
        "attempt": 1, "created": "2026-01-01", "source": "s", "data_hash": "h", "sentences": ["Said so.", "And more."],
    }  # fmt: skip
    policy = read_policy(shelf / "run" / "policy.json")
    line = certificate_line(policy.model_copy(update={"evidence": {"certificate": certificate_summary(evidence)}}))
    assert line.startswith(begin) and "tier large on 99 unseen queries, margin 0.0234" in line
    assert line.endswith(", 2026-01-01. Said so.") and ("smallest that the data resolves" in line) != given
    assert certificate_line(policy).startswith("WARNING: not certified")
    assert certificate_summary(None) is None


@pytest.mark.verify
def test_the_verdict_is_in_the_gateways_file(litellm_shelf, tmp_path):
    shutil.copytree(litellm_shelf, tmp_path, dirs_exist_ok=True)
    command = ("export", "run=run", "target=litellm", "output=litellm.yaml")
    says(refused(tmp_path, *command), "no certificate")
    assert "# WARNING: not certified" in (tmp_path / "litellm.yaml").read_text(), "the one that was forced"
    certify(tmp_path, *OWN, "baseline=small", "margin=0.05", code=0)
    assert run_cli(*command, cwd=tmp_path).exit_code == 0
    text = (tmp_path / "litellm.yaml").read_text()
    assert "# Certified: pass against tier small on 300 unseen queries, margin 0.05" in text and "WARNING" not in text
    certify(tmp_path, *OWN, "baseline=large", "margin=0.05", code=3)
    says(refused(tmp_path, *command), "failed its certification", "force=true")
    assert (tmp_path / "litellm.yaml").read_text() == text
    assert run_cli(*command, "force=true", cwd=tmp_path).exit_code == 0
    assert "# WARNING: FAILED its certification against tier large" in (tmp_path / "litellm.yaml").read_text()


# --- found in review --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_another_level_or_minimum_is_another_attempt(place):
    first = certify(place, *data("fine"), "baseline=large", "margin=0.08", code=0)
    again = certify(place, *data("fine"), "baseline=large", "margin=0.08", code=0)
    assert first["attempt"] == again["attempt"] == 1
    other = certify(place, *data("fine"), "baseline=large", "margin=0.08", "alpha=0.1", code=0)
    assert other["attempt"] == 2 and any("at most 15 %" in sentence for sentence in other["sentences"])
    assert certify(place, *data("fine"), "baseline=small", "margin=0.08", code=0)["attempt"] == 1


@pytest.mark.slow
def test_what_the_baselines_run_was_tuned_on_is_left_out_too(place):
    assert run_cli(*TUNE, "seed=5", "out=old", cwd=place).exit_code == 0
    own = run_cli("certify", "run=run", *OWN, "baseline=large", "margin=0.3", "--json", cwd=place)
    both = run_cli("certify", "run=run", *OWN, "baseline=old", "margin=0.3", "--json", cwd=place)
    alone, together = json.loads(own.stdout), json.loads(both.stdout)
    assert together["n"] < alone["n"] and any("the baseline's run has seen" in note for note in together["notes"])


@pytest.mark.parametrize("command", ["certify", pytest.param("power", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", ["front.parquet", *(pytest.param(f, marks=pytest.mark.slow) for f in ("scorer/signal.json", "new.json"))]
)
def test_nothing_is_written_among_a_runs_files(place, name, command):
    line = refused(place, command, "run=run", *data("few"), "baseline=large", f"output=run/{name}")
    says(line, "lies in the run folder", "outside")


@pytest.mark.slow
def test_a_tune_that_is_repeated_keeps_its_certificate(shelf, tmp_path):
    shutil.copytree(shelf, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "run")
    assert run_cli(*TUNE, "out=run", cwd=tmp_path).exit_code == 0
    certify(tmp_path, *data("fine"), "baseline=large", "margin=0.08", code=0)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Certified against tier large: pass" in page
    assert run_cli(*TUNE, "out=run", "margin=0.03", cwd=tmp_path).exit_code == 0, (
        "what is only told does not void a run"
    )
    assert "Certified against tier large: pass" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_force_ships_over_a_damaged_certificate(place):
    (place / "run" / "evidence.json").write_text("{")
    says(refused(place, "export", "run=run", "target=json", "output=p.json"), "evidence.json")
    done = run_cli("export", "run=run", "target=json", "force=true", "output=p.json", cwd=place)
    assert done.exit_code == 0 and "not certified" in done.stderr


@pytest.mark.slow
def test_a_seen_session_is_seen_whatever_it_asks(tmp_path):
    write_pair(tmp_path, n=800, seed=1, session=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune_output, "write_report", lambda path, record: {})
        assert run_cli(*TUNE, "out=run", cwd=tmp_path).exit_code == 0
    table = read_recording(tmp_path / "queries.csv", tmp_path / "outcomes.csv", None).table
    settings = RecordedData(kind="recorded", queries=None, outcomes=None, tiers="auto")
    rows, seen = unseen_rows(tmp_path / "run", table, settings, 0)
    inside = np.setdiff1d(np.arange(table.n_queries), rows)
    assert not set(table.session[rows]) & set(table.session[inside]), "no session on both sides"
    renamed = dataclasses.replace(
        table,
        queries=dataclasses.replace(table.queries, prompt=tuple(f"new {i}" for i in range(table.n_queries))),
        _hash=[],
    )
    assert unseen_rows(tmp_path / "run", renamed, settings, 0)[1] == seen


def test_an_earlier_fail_is_named_in_what_is_shipped(place):
    certify(place, *data("lossy"), "baseline=large", "margin=0.08", code=3)
    certify(place, *data("fine"), "baseline=large", "margin=0.08", code=0)
    exported(place)
    policy = read_policy(place / "p.json")
    assert "fail against tier large (margin 0.08" in certificate_line(policy)


def test_white_space_does_not_make_a_prompt_new(place):
    table = read_recording(place / "queries.csv", place / "outcomes.csv", None).table
    settings = RecordedData(kind="recorded", queries=None, outcomes=None, tiers="auto")
    spaced = dataclasses.replace(
        table,
        queries=dataclasses.replace(table.queries, prompt=tuple(f" {p}\n" for p in table.queries.prompt or ())),
        _hash=[],
    )
    expected = unseen_rows(place / "run", table, settings, 0)[1]
    assert unseen_rows(place / "run", spaced, settings, 0)[1] == expected and expected["tune"] > 0
