"""Bad input on the command line: exit code 2, one `error:` line on stderr, nothing on stdout, nothing new on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from helpers import json_lines, run_cli, run_cli_process, snapshot, write_recording

SMALL = ("data.n_queries=300", "controller.max_evaluations=100")
SOBOL = ("data.n_queries=300", "controller=sobol", "budget=20")
RECORDED = ("tune", "data=recorded", "data.queries=queries.csv", "data.outcomes=outcomes.csv", "scorer=text")


def refused(folder: Path, *args: str, exit_code: int = 2) -> str:
    """Run a command that must be refused without a trace; returns what it said."""
    before = snapshot(folder)
    result = run_cli(*args, cwd=folder)
    assert (result.exit_code, result.stdout) == (exit_code, ""), result
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and len(lines[0]) > 15, result.stderr
    assert "Traceback" not in result.stderr
    after = snapshot(folder)
    assert sorted(after) == sorted(before) and after == before
    return lines[0]


def says(message: str, *fragments: str) -> None:
    missing = [f for f in fragments if f not in message]
    assert not missing, f"{missing} not in: {message}"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A folder with `queries.csv` and `outcomes.csv`."""
    write_recording(tmp_path, ".csv", n=60)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs: `thresholds` and `utility`."""
    from experiments import tune_output

    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune_output, "write_report", lambda path, record: {})  # figures take most of a small run's time
        for policy in ("thresholds", "utility"):
            result = run_cli("tune", *SOBOL, f"policy={policy}", f"out={policy}", cwd=folder)
            assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture
def runs(finished: Path, tmp_path: Path) -> Path:
    """A copy of `finished`, so that nothing a test does reaches another."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    write_recording(tmp_path, ".csv", n=60)
    return tmp_path


# --- files ------------------------------------------------------------------------------------------------------------


def edit(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, count), encoding="utf-8")


def first_row(path: Path, column: str, value: str) -> None:
    """Overwrite one column of the first row of a CSV whose first row holds no quoted comma."""
    header, row, *rest = path.read_text(encoding="utf-8").splitlines()
    cells = row.split(",")
    cells[[name.strip('"') for name in header.split(",")].index(column)] = value
    path.write_text("\n".join([header, ",".join(cells), *rest]) + "\n", encoding="utf-8")


def swap_rows_id(folder: Path) -> None:
    edit(folder / "queries.csv", '"q0001"', '"q0000"')


BAD_FILES: dict[str, tuple[Callable[[Path], object], Sequence[str]]] = {
    "missing column": (lambda f: edit(f / "outcomes.csv", '"score"', '"points"'), ["outcomes.csv", "score"]),
    "no query_id": (lambda f: edit(f / "queries.csv", '"query_id"', '"id"'), ["queries.csv", "query_id"]),
    "no prompt for scorer=text": (lambda f: edit(f / "queries.csv", '"prompt"', '"text"'), ["prompt"]),
    "empty file": (lambda f: (f / "outcomes.csv").write_text(""), ["outcomes.csv", "empty"]),
    "header only": (lambda f: (f / "queries.csv").write_text("query_id,prompt\n"), ["queries.csv", "no row"]),
    "missing file": (lambda f: (f / "outcomes.csv").unlink(), ["outcomes.csv"]),
    "duplicate ids": (swap_rows_id, ["queries.csv", "q0000"]),
    "duplicate answers": (lambda f: edit(f / "outcomes.csv", '"medium"', '"small"'), ["outcomes.csv", "q0000"]),
    "quality out of range": (lambda f: first_row(f / "outcomes.csv", "score", "1.2"), ["1.2", "q0000", "small"]),
    "negative cost": (lambda f: first_row(f / "outcomes.csv", "cost_usd", "-1"), ["cost_usd", "-1", "q0000", "small"]),
    "cost partly missing": (lambda f: first_row(f / "outcomes.csv", "cost_usd", ""), ["outcomes.csv", "cost_usd"]),
    "score is text": (lambda f: first_row(f / "outcomes.csv", "score", "good"), ["outcomes.csv", "score"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(recording: Path, case: str) -> None:
    spoil, fragments = BAD_FILES[case]
    spoil(recording)
    says(refused(recording, *RECORDED, "out=run"), *fragments)


def test_a_text_file_named_parquet(recording: Path) -> None:
    (recording / "q.parquet").write_text("query_id,prompt\na,b\n")
    says(refused(recording, *RECORDED, "data.queries=q.parquet", "out=run"), "q.parquet")


def test_unknown_suffix(recording: Path) -> None:
    (recording / "queries.csv").rename(recording / "queries.xlsx")
    says(refused(recording, *RECORDED, "data.queries=queries.xlsx", "out=run"), "queries.xlsx", ".parquet")


def test_too_few_queries_to_split(recording: Path) -> None:
    write_recording(recording, ".csv", n=1)
    says(refused(recording, *RECORDED, "out=run"), "split")


# --- options ----------------------------------------------------------------------------------------------------------

SCENARIO = ("tune", *SMALL, "out=run")

BAD_OPTIONS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "misspelt option": ([*SCENARIO, "sede=1"], ["sede", "seed"]),
    "misspelt constraint": ([*SCENARIO, "constraints.quality_flor=0.9"], ["quality_flor", "constraints.quality_floor"]),
    "misspelt option of a chosen group": (
        ["tune", "scorer=column", "scorer.colum=length", "out=run"],
        ["scorer.colum'", "scorer.column?"],
    ),
    "misspelt scorer": ([*SCENARIO, "scorer=txet"], ["txet", "text", "litellm", "column"]),
    "misspelt policy": ([*SCENARIO, "policy=threshold"], ["threshold", "thresholds", "utility"]),
    "misspelt controller": ([*SCENARIO, "controller=exat"], ["exat", "exact", "sobol"]),
    "a group that the command does not have": (["power", "controller=proteus"], ["'controller'", "routefront power"]),
    "misspelt scenario": ([*SCENARIO, "scenario=hybrid"], ["hybrid", "hybrid_api"]),
    "misspelt flag": ([*SCENARIO, "--jsno"], ["--jsno"]),
    "an added option": ([*SCENARIO, "+sede=1"], ["sede"]),
    "a word": ([*SCENARIO, "seed"], ["seed"]),
    "an unknown interpolation": ([*SCENARIO, "seed=${nope}"], ["nope"]),
    "negative budget": (["tune", *SOBOL, "budget=-5", "out=run"], ["budget", "-5"]),
    "budget zero": (["tune", *SOBOL, "budget=0", "out=run"], ["budget", "0"]),
    "budget is text": ([*SCENARIO, "budget=many"], ["budget", "many"]),
    "negative seed": ([*SCENARIO, "seed=-1"], ["seed", "-1"]),
    "seed is text": ([*SCENARIO, "seed=abc"], ["seed", "abc"]),
    "seed is a fraction": ([*SCENARIO, "seed=1.5"], ["seed", "1.5"]),
    "seed is a list": ([*SCENARIO, "seed=[1,2]"], ["seed"]),
    "choose=certified": ([*SCENARIO, "choose=certified"], ["something to certify", "quality_floor"]),
    "choose unknown": ([*SCENARIO, "choose=best"], ["best", "knee", "min_cost"]),
    "objective unknown": ([*SCENARIO, "objectives=[cost,qualty]"], ["qualty", "quality"]),
    "objectives empty": ([*SCENARIO, "objectives=[]"], ["objectives"]),
    "objectives twice": ([*SCENARIO, "objectives=[cost,cost]"], ["objectives", "cost"]),
    "slice unknown": ([*SCENARIO, "objectives=[cost,slice:nope]"], ["nope", "puzzles"]),
    "constraint on an unknown slice": ([*SCENARIO, 'constraints.bounds=["quality@nope >= 0.5"]'], ["nope", "puzzles"]),
    "floor above 1": ([*SCENARIO, "constraints.quality_floor=1.5"], ["quality_floor", "1.5"]),
    "ceiling of nothing": ([*SCENARIO, "constraints.cost_ceiling_usd=-1"], ["cost_ceiling_usd", "-1"]),
    "a bound the wrong way": ([*SCENARIO, 'constraints.bounds=["quality <= 0.5"]'], ["bounds", "quality"]),
    "a bound without sense": ([*SCENARIO, 'constraints.bounds=["be good"]'], ["bounds", "be good"]),
    "splits exceed 1": ([*SCENARIO, "split.tune=0.8"], ["split.tune", "1.3"]),
    "split of nothing": ([*SCENARIO, "split.tune=0"], ["split.tune", "0"]),
    "one fold": ([*SCENARIO, "folds=1"], ["folds", "1"]),
    "fallback tier unknown": ([*SCENARIO, "policy.fallback_tier=huge"], ["fallback_tier", "huge", "fast"]),
    "confidence floor above 1": ([*SCENARIO, "policy.confidence_floor=2"], ["confidence_floor", "2"]),
    "too few queries": (["tune", "data.n_queries=3", "out=run"], ["n_queries", "3"]),
    "too many boundaries": ([*SCENARIO, "controller.boundaries=all"], ["controller.boundaries", "max_evaluations"]),
    "column not named": ([*SCENARIO, "scorer=column"], ["scorer.column"]),
    "column unknown": ([*SCENARIO, "scorer=column", "scorer.column=nope"], ["nope", "difficulty_score"]),
    "scorer needs prompts": ([*SCENARIO, "scorer=text"], ["prompt"]),
    "a scenario value out of range": ([*SCENARIO, "scenario.difficulty_sd=-1"], ["difficulty_sd", "-1"]),
    "files not named": (["tune", "data=recorded", "scorer=text", "out=run"], ["data.queries"]),
    "unknown command": (["tun"], ["tun", "tune"]),
    "an option as command": (["seed=1"], ["seed=1", "tune"]),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_option(tmp_path: Path, case: str) -> None:
    args, fragments = BAD_OPTIONS[case]
    says(refused(tmp_path, *args), *fragments)


def test_an_option_of_another_group_is_not_suggested(tmp_path: Path) -> None:
    message = refused(tmp_path, "tune", *SOBOL, "controller.max_evaluations=5", "out=run")
    says(message, "'controller.max_evaluations'")
    assert "did you mean controller.max_evaluations?" not in message


BAD_RECORDED_OPTIONS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "unknown tier": (["data.tiers=[small,huge]"], ["huge", "outcomes.csv", "medium"]),
    "one tier": (["data.tiers=[small]"], ["two tiers", "small"]),
    "tier twice": (["data.tiers=[small,small]"], ["small"]),
    "scorer=scenario": (["scorer=scenario"], ["scorer=scenario", "text"]),
    "unpriced": (["data.prices=nope.csv"], ["nope.csv"]),
    "confidence is none": (
        ["scorer=column", "scorer.column=hardness", "policy.confidence_floor=0.5"],
        ["confidence_floor", "confidence"],
    ),
}


@pytest.mark.parametrize("case", BAD_RECORDED_OPTIONS)
def test_bad_option_for_recorded_data(recording: Path, case: str) -> None:
    args, fragments = BAD_RECORDED_OPTIONS[case]
    says(refused(recording, *RECORDED, "out=run", *args), *fragments)


@pytest.mark.parametrize(
    "args, fragment",
    [
        (["objectives=[cost,quality]"], "cost_usd"),
        (["objectives=[latency_p95,quality]"], "latency_s"),
        (["objectives=[quality]", "constraints.p95_ceiling_s=1"], "latency_s"),
        (["objectives=[quality]", "constraints.cost_ceiling_usd=1"], "cost_usd"),
        (["objectives=[quality]", "choose=min_cost"], "cost_usd"),
        (["objectives=[quality]", "policy=utility"], "cost_usd"),
    ],
)
@pytest.mark.slow
def test_what_the_data_does_not_know_cannot_be_asked(tmp_path: Path, args: list[str], fragment: str) -> None:
    write_recording(tmp_path, ".csv", n=60, cost=False, latency=False)
    command = (*RECORDED, "scorer=column", "scorer.column=hardness", "data.tiers=[small,medium,large]", "out=run")
    command = tuple(word for word in command if word != "scorer=text")
    says(refused(tmp_path, *command, *args), fragment)


# --- infeasible -------------------------------------------------------------------------------------------------------


def test_infeasible_names_what_binds_and_the_closest_point(tmp_path: Path) -> None:
    message = refused(tmp_path, *SCENARIO, "constraints.quality_floor=0.999")
    says(message, "quality_floor=0.999", "alone", "Closest point", "quality=0.9", "cost_usd=")


def test_infeasible_together_names_both(tmp_path: Path) -> None:
    bounds = ("constraints.quality_floor=0.93", "constraints.cost_ceiling_usd=0.0003")
    says(refused(tmp_path, *SCENARIO, *bounds), "with the others", "Closest point")


def test_infeasible_leaves_no_parent_folder_either(tmp_path: Path) -> None:
    refused(tmp_path, "tune", *SMALL, "out=new/parent/run", "constraints.quality_floor=0.999")


def test_infeasible_without_out_leaves_nothing(tmp_path: Path) -> None:
    refused(tmp_path, "tune", *SMALL, "constraints.quality_floor=0.999")


def test_infeasible_keeps_an_empty_folder_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    refused(tmp_path, *SCENARIO, "constraints.quality_floor=0.999")


# --- places -----------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    says(refused(tmp_path, *SCENARIO), "run", "not a run folder")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("precious")
    says(refused(tmp_path, *SCENARIO), "out=run", "file")


def test_a_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("precious")
    says(refused(tmp_path, "tune", *SMALL, "out=run/inside"), "run/inside")


def test_another_run_is_refused(runs: Path) -> None:
    says(refused(runs, "tune", *SMALL, "seed=5", "out=thresholds"), "thresholds", "config")


def test_a_damaged_run_record(runs: Path) -> None:
    (runs / "thresholds" / "run.json").write_text("{")
    says(refused(runs, "tune", *SOBOL, "out=thresholds"), "run.json", "damaged")


def test_a_journal_of_another_search(runs: Path) -> None:
    journal = runs / "thresholds" / "evaluations.jsonl"
    rows = list(json_lines(journal))
    rows[0]["params"] = {"t_1": 0.5, "t_2": 0.75}
    journal.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("tune", *SOBOL, "policy=thresholds", "out=thresholds")
    says(refused(runs, *command), "evaluations.jsonl", "out=")


# --- commands on a run ------------------------------------------------------------------------------------------------

ON_A_RUN: dict[str, Sequence[str]] = {
    "evaluate": ["data.queries=queries.csv", "data.outcomes=outcomes.csv", "output=new.json"],
    "route": ["queries=queries.csv", "output=new.csv"],
    "export": ["target=litellm", "output=new.yaml"],
    "verify": ["target=litellm", "queries=queries.csv", "output=new.json"],
}


@pytest.mark.parametrize("command", ON_A_RUN)
def test_a_run_that_is_not_there(runs: Path, command: str) -> None:
    says(refused(runs, command, "run=nope", *ON_A_RUN[command]), "run=nope")


@pytest.mark.parametrize("command", ON_A_RUN)
def test_a_run_that_is_not_named(runs: Path, command: str) -> None:
    says(refused(runs, command, *ON_A_RUN[command]), "run")


@pytest.mark.parametrize("command", ON_A_RUN)
def test_a_folder_without_a_policy(runs: Path, command: str) -> None:
    (runs / "empty").mkdir()
    says(refused(runs, command, "run=empty", *ON_A_RUN[command]), "empty", "policy.json")


@pytest.mark.parametrize(
    "command, content", [("evaluate", "{"), ("route", "{}"), ("export", "[]"), ("verify", '{"schema_version": 2}')]
)
def test_a_policy_that_is_none(runs: Path, command: str, content: str) -> None:
    (runs / "thresholds" / "policy.json").write_text(content)
    says(refused(runs, command, "run=thresholds", *ON_A_RUN[command]), "policy.json")


@pytest.mark.parametrize("command", ["evaluate", "route"])
def test_a_run_without_its_scorer(runs: Path, command: str) -> None:
    shutil.rmtree(runs / "thresholds" / "scorer")
    says(refused(runs, command, "run=thresholds", *ON_A_RUN[command]), "scorer")


@pytest.mark.parametrize("command", ["evaluate", "route"])
def test_queries_without_the_signal(runs: Path, command: str) -> None:
    if command == "evaluate":
        for tier, name in zip(("small", "medium", "large"), ("fast", "standard", "reasoning"), strict=True):
            edit(runs / "outcomes.csv", f'"{tier}"', f'"{name}"', count=-1)
    says(refused(runs, command, "run=thresholds", *ON_A_RUN[command]), "numeric column", "length")


def test_evaluate_on_other_tiers(runs: Path) -> None:
    says(refused(runs, "evaluate", "run=thresholds", *ON_A_RUN["evaluate"]), "fast", "outcomes.csv", "medium")


def test_evaluate_without_files(runs: Path) -> None:
    says(refused(runs, "evaluate", "run=thresholds", "output=new.json"), "data.queries")


def test_evaluate_into_a_folder(runs: Path) -> None:
    command = ("evaluate", "run=thresholds", "data=scenario", "data.n_queries=50", "output=utility")
    says(refused(runs, *command), "utility", "folder")


def test_route_at_an_unreached_quality(runs: Path) -> None:
    (runs / "q.csv").write_text("query_id,difficulty_score,confidence\na,0.5,0.5\n")
    command = ("route", "run=thresholds", "queries=q.csv", "output=new.csv")
    says(refused(runs, *command, "at.quality=0.9999"), "at.quality", "0.9999", "at most")
    says(refused(runs, *command, "at.quality=2"), "at.quality", "2")


def test_route_without_queries(runs: Path) -> None:
    says(refused(runs, "route", "run=thresholds", "output=new.csv"), "queries")


@pytest.mark.parametrize("command", ["export", "verify"])
def test_litellm_cannot_compute_a_utility(runs: Path, command: str) -> None:
    says(refused(runs, command, "run=utility", *ON_A_RUN[command]), "utility", "policy=thresholds")


@pytest.mark.parametrize("command", ["export", "verify"])
def test_litellm_cannot_compute_our_score(runs: Path, command: str) -> None:
    says(refused(runs, command, "run=thresholds", *ON_A_RUN[command]), "scorer=scenario", "scorer=litellm")


@pytest.mark.parametrize("command", ["export", "verify"])
@pytest.mark.parametrize("target", ["lite_llm", "null"])
def test_unknown_target(runs: Path, command: str, target: str) -> None:
    says(refused(runs, command, "run=thresholds", *ON_A_RUN[command], f"target={target}"), "target", "litellm")


def test_export_without_output(runs: Path) -> None:
    says(refused(runs, "export", "run=thresholds", "target=json"), "output")


def test_export_does_not_overwrite_what_it_did_not_write(runs: Path) -> None:
    (runs / "thesis.txt").write_text("precious")
    command = ("export", "run=thresholds", "target=json", "output=thesis.txt")
    says(refused(runs, *command), "thesis.txt", "force=true")


def test_diff_against_nothing(runs: Path) -> None:
    command = ("export", "run=thresholds", "target=json", "output=new.json", "diff=nope.yaml")
    says(refused(runs, *command), "diff=nope.yaml")


# --- in other ways ----------------------------------------------------------------------------------------------------


def test_json_does_not_change_an_error(tmp_path: Path) -> None:
    says(refused(tmp_path, *SCENARIO, "sede=1", "--json"), "seed")
    says(refused(tmp_path, *SCENARIO, "seed=-1", "--json"), "seed")


def test_a_failed_job_of_a_sweep_is_exit_code_1(tmp_path: Path) -> None:
    result = run_cli("tune", "-m", *SMALL, "out=sweep", "seed=-1,-2", cwd=tmp_path)
    assert result.exit_code == 1 and "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ") and "seed" in result.stderr


@pytest.mark.slow
def test_the_same_from_a_shell(tmp_path: Path) -> None:
    for args, fragment in (
        (["tune", "sede=1"], "seed"),
        (["tune", *SMALL, "out=run", "constraints.quality_floor=0.999"], "quality_floor"),
        (["evaluate", "run=nope"], "nope"),
        (["nope"], "nope"),
    ):
        result = run_cli_process(*args, cwd=tmp_path)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("error: ") and fragment in result.stderr
        assert len(result.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())
