"""Names, files and values that a careless or hostile recording may hold."""

import json

import numpy as np
import pytest
import yaml
from helpers import make_table, run_cli, write_columns, write_recording

from experiments.tune_output import prompt_hashes
from simulators.errors import InputDataError
from simulators.recorded import read_queries
from toolkit.export.provenance import provenance_lines
from toolkit.export.schema import read_policy
from toolkit.scorers.binned import BinnedScorer
from toolkit.scorers.signals import SignalScorer
from toolkit.scorers.text import TextScorer

TEXT = TextScorer(ridge_alpha=10.0, neighbours=5, neighbour_weight=0.0, seed=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished utility run on a small recording, in the folder that holds its files."""
    folder = tmp_path_factory.mktemp("run")
    queries, outcomes = write_recording(folder, ".parquet")
    data = ("data=recorded", f"data.queries={queries}", f"data.outcomes={outcomes}")
    code, _, err = run_cli("tune", *data, "scorer=text", "policy=utility", "out=run", cwd=folder)
    assert code == 0, err
    return folder, data


@pytest.mark.slow
def test_the_order_of_json_keys_does_not_change_a_policy(run, tmp_path):
    path = run[0] / "run" / "policy.json"
    sorted_path = tmp_path / "policy.json"
    sorted_path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert read_policy(sorted_path).params.tolist() == read_policy(path).params.tolist()


def test_a_line_break_in_a_name_cannot_leave_the_comment_block(run):
    policy = read_policy(run[0] / "run" / "policy.json")
    evil = policy.model_copy(update={"chosen_because": "x\nlitellm_settings:\n  success_callback: [evil]\u2028\x85y"})
    text = "".join(f"# {line}\n" for line in provenance_lines(evil))
    assert yaml.safe_load(text) is None


@pytest.mark.parametrize("command", ["route", "evaluate"])
def test_an_input_is_never_overwritten(run, command):
    folder, data = run
    queries = data[1].removeprefix("data.queries=")
    before = (folder / queries).read_bytes()
    options = {"route": (f"queries={queries}",), "evaluate": data}[command]
    code, out, err = run_cli(command, "run=run", *options, f"output={queries}", cwd=folder)
    assert code == 2 and out == "" and "is an input" in err
    assert (folder / queries).read_bytes() == before


def test_evaluate_says_which_prompts_the_run_has_seen(run):
    folder, data = run
    code, out, _ = run_cli("evaluate", "run=run", *data, "output=m.json", "--json", cwd=folder)
    seen = json.loads(out)["prompts_seen"]
    assert code == 0 and seen["tune"] > 0 and seen["tune"] + seen["validate"] == seen["of"]


def test_hashes_tell_prompts_apart():
    table = make_table(np.random.default_rng(0), n=20, k=2, prompts=True)
    assert len(prompt_hashes(table)["all"]) == 20


def test_prompts_that_share_no_word_are_scored():
    table = make_table(np.random.default_rng(0), n=40, k=2, prompts=True)
    object.__setattr__(table.queries, "prompt", tuple(f"{i:032x}"[::-1] + str(i) for i in range(40)))
    assert np.isfinite(TEXT.fit(table).predict(table.queries).score).all()
    object.__setattr__(table.queries, "prompt", ("",) * 40)
    with pytest.raises(InputDataError, match="no word in any prompt"):
        TEXT.fit(table)


def test_scores_beyond_single_precision_are_binned():
    table = make_table(np.random.default_rng(0), n=100, k=2)
    table.queries.signals["difficulty"][:3] = [1e300, -1e300, 1e39]
    found = BinnedScorer(base=SignalScorer(column="difficulty")).fit(table).predict(table.queries)
    assert np.isfinite(found.quality).all()


def test_large_integers_in_unrelated_columns_do_not_matter(tmp_path):
    columns = {"query_id": ["a", "b"], "user": [9_007_199_254_740_993, 2**62]}
    assert len(read_queries(write_columns(tmp_path / "q.parquet", columns))[0]) == 2
    (tmp_path / "q.jsonl").write_text('{"query_id": "a", "user": 99999999999999999999999}\n')
    with pytest.raises(InputDataError, match="column user"):
        read_queries(tmp_path / "q.jsonl")


@pytest.mark.parametrize("words", [("scorer=null",), ("scenario=null",), ("--cfg",), ("--jsno",)])
def test_odd_words_are_one_line(words, tmp_path):
    code, out, err = run_cli("tune", *words, cwd=tmp_path)
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith("error: ")


@pytest.mark.parametrize("option", ["constraints.p95_ceiling_s=1.0", "choose=knee", "out=x"])
def test_study_refuses_what_it_would_ignore(option, tmp_path):
    code, _, err = run_cli("study", "data.n_queries=200", "splits=2", option, cwd=tmp_path)
    assert code == 2 and "study" in err


@pytest.mark.slow
def test_a_sweep_can_be_rerun_after_a_failed_job_and_keeps_to_its_folder(tmp_path):
    words = ("tune", "-m", "constraints.quality_floor=0.5,0.9999", "data.n_queries=200", "out=sweep")
    for _ in range(2):
        code, out, err = run_cli(*words, cwd=tmp_path)
        assert code == 1 and "failed" in out and "no policy meets" in err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    code, _, err = run_cli("tune", "-m", "seed=0,1", "out=mine", cwd=tmp_path)
    assert code == 2 and "no sweep's folder" in err
    code, _, err = run_cli("evaluate", "-m", "seed=0,1", cwd=tmp_path)
    assert code == 2 and "cannot be swept" in err


def test_an_output_below_a_file_is_one_line(run):
    folder, data = run
    (folder / "file").write_text("in the way")
    code, out, err = run_cli("evaluate", "run=run", *data, "output=file/m.json", cwd=folder)
    assert code == 2 and out == "" and "cannot write" in err and "Traceback" not in err
