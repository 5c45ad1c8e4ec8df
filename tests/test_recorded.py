"""Readers: three formats, one table; what is dropped is counted; what is wrong is one line that names the place."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from helpers import SUFFIXES, TIERS, recording_columns, write_columns, write_recording
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulators.errors import InputDataError
from simulators.outcomes import OutcomeTable
from simulators.prices import PriceCard
from simulators.recorded import read_price_card, read_queries, read_recording

Columns = dict[str, list[Any]]

QUERIES: Columns = {
    "query_id": ["a", "b", "c"],
    "prompt": ["one", "two", "three"],
    "slice": ["x", "y", "x"],
    "length": [3.0, 3.0, 5.0],
}
OUTCOMES: Columns = {
    "query_id": ["a", "a", "b", "b", "c", "c"],
    "model": ["cheap", "dear"] * 3,
    "score": [0.1, 0.9, 0.2, 0.8, 0.3, 0.7],
    "cost_usd": [0.001, 0.01, 0.002, 0.02, 0.003, 0.03],
}


def write(
    folder: Path,
    queries: Columns = QUERIES,
    outcomes: Columns = OUTCOMES,
    suffix: str = ".parquet",
) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    return write_columns(folder / f"queries{suffix}", queries), write_columns(folder / f"outcomes{suffix}", outcomes)


def changed(columns: Columns, **changes: list[Any] | None) -> Columns:
    """A copy with some columns replaced, added, or (None) removed."""
    merged = {**columns, **changes}
    return {name: values for name, values in merged.items() if values is not None}


def with_value(columns: Columns, name: str, row: int, value: Any) -> Columns:
    values = list(columns[name])
    values[row] = value
    return {**columns, name: values}


def assert_same_table(a: OutcomeTable, b: OutcomeTable) -> None:
    assert a.tiers == b.tiers and a.slices == b.slices and a.queries.prompt == b.queries.prompt
    assert a.queries.query_id.tolist() == b.queries.query_id.tolist()
    assert set(a.queries.signals) == set(b.queries.signals)
    for name, values in a.queries.signals.items():
        np.testing.assert_array_equal(values, b.queries.signals[name])
    for name in ("quality", "cost_usd", "latency_s", "ttft_s", "input_tokens", "output_tokens", "error", "slice_code"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


# --- what a good recording becomes ------------------------------------------------------------------------------------


def test_the_three_formats_give_the_same_table(tmp_path: Path) -> None:
    tables = [read_recording(*write_recording(tmp_path / s[1:], s, n=40), None).table for s in SUFFIXES]
    for other in tables[1:]:
        assert_same_table(tables[0], other)
        assert tables[0].data_hash == other.data_hash


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_values_end_up_in_their_cell(tmp_path: Path, suffix: str) -> None:
    recording = read_recording(*write(tmp_path, suffix=suffix), ["cheap", "dear"])
    table = recording.table
    assert table.tiers == ("cheap", "dear")
    assert table.queries.query_id.tolist() == ["a", "b", "c"] and table.queries.prompt == ("one", "two", "three")
    assert table.slices == ("x", "y") and table.slice_code.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(table.quality, [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
    np.testing.assert_array_equal(table.cost_usd, [[0.001, 0.01], [0.002, 0.02], [0.003, 0.03]])
    assert np.isnan(table.latency_s).all() and table.has_cost and not table.has_latency
    assert (recording.n_dropped, recording.n_unmatched, recording.notes) == (0, 0, ())


def test_optional_outcome_columns_are_read(tmp_path: Path) -> None:
    extra = {name: [float(i + j) for j in range(6)] for i, name in enumerate(("latency_s", "ttft_s", "input_tokens"))}
    outcomes = changed(OUTCOMES, **extra, output_tokens=[10] * 6, error=[False, True, False, False, False, False])
    table = read_recording(*write(tmp_path, outcomes=outcomes), None).table
    np.testing.assert_array_equal(table.latency_s, [[0, 1], [2, 3], [4, 5]])
    np.testing.assert_array_equal(table.ttft_s, [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(table.input_tokens, [[2, 3], [4, 5], [6, 7]])
    np.testing.assert_array_equal(table.output_tokens, np.full((3, 2), 10.0))
    np.testing.assert_array_equal(table.error, [[False, True], [False, False], [False, False]])


def test_sessions_and_turns_are_read(tmp_path: Path) -> None:
    queries = changed(QUERIES, session_id=["s1", "s1", "s2"], turn=[0, 1, 0])
    table = read_recording(*write(tmp_path, queries), None).table
    assert table.session is not None and table.session.tolist() == ["s1", "s1", "s2"]
    assert table.turn is not None and table.turn.tolist() == [0, 1, 0]


def test_join_on_query_id_alone_takes_the_slice_from_the_outcomes(tmp_path: Path) -> None:
    outcomes = changed(OUTCOMES, slice=["x", "x", "y", "y", "x", "x"])
    table = read_recording(*write(tmp_path, changed(QUERIES, slice=None), outcomes), None).table
    assert table.slices == ("x", "y") and table.slice_code.tolist() == [0, 1, 0]


def test_join_on_slice_and_query_id_where_both_files_have_slices(tmp_path: Path) -> None:
    outcomes = changed(OUTCOMES, slice=["x", "x", "y", "y", "elsewhere", "elsewhere"])
    recording = read_recording(*write(tmp_path, outcomes=outcomes), None)
    assert recording.table.queries.query_id.tolist() == ["a", "b"]
    assert recording.n_unmatched == 2 and recording.n_dropped == 1


def test_without_slices_there_is_one(tmp_path: Path) -> None:
    table = read_recording(*write(tmp_path, changed(QUERIES, slice=None)), None).table
    assert table.slices == ("all",) and table.slice_code.tolist() == [0, 0, 0]


def test_without_prompts_there_are_none(tmp_path: Path) -> None:
    assert read_recording(*write(tmp_path, changed(QUERIES, prompt=None)), None).table.queries.prompt is None


def test_auto_takes_all_models_by_mean_billed_cost(tmp_path: Path) -> None:
    outcomes = changed(OUTCOMES, cost_usd=[0.5, 0.1, 0.5, 0.1, 0.5, 0.1])
    recording = read_recording(*write(tmp_path, outcomes=outcomes), None)
    assert recording.table.tiers == ("dear", "cheap")
    np.testing.assert_array_equal(recording.table.quality[:, 0], [0.9, 0.8, 0.7])
    assert recording.notes == ()


def test_order_is_by_mean_not_by_median(tmp_path: Path) -> None:
    outcomes = changed(OUTCOMES, cost_usd=[0.01, 0.02, 0.01, 0.02, 1.0, 0.02])
    assert read_recording(*write(tmp_path, outcomes=outcomes), None).table.tiers == ("dear", "cheap")


def test_named_tiers_are_reordered_by_billed_cost_and_that_is_said(tmp_path: Path) -> None:
    recording = read_recording(*write(tmp_path), ["dear", "cheap"])
    assert recording.table.tiers == ("cheap", "dear")
    assert any("reordered" in note and "['cheap', 'dear']" in note for note in recording.notes)


def test_the_order_of_an_existing_policy_is_kept(tmp_path: Path) -> None:
    recording = read_recording(*write(tmp_path), ["dear", "cheap"], keep_order=True)
    assert recording.table.tiers == ("dear", "cheap") and recording.notes == ()
    np.testing.assert_array_equal(recording.table.quality[:, 0], [0.9, 0.8, 0.7])


def test_without_costs_named_tiers_keep_their_order(tmp_path: Path) -> None:
    recording = read_recording(*write(tmp_path, outcomes=changed(OUTCOMES, cost_usd=None)), ["dear", "cheap"])
    assert recording.table.tiers == ("dear", "cheap") and not recording.table.has_cost
    assert any("cost_usd" in note for note in recording.notes)


def test_only_the_named_tiers_count(tmp_path: Path) -> None:
    outcomes = {name: [*values, values[0]] for name, values in OUTCOMES.items()}
    outcomes["model"][-1], outcomes["cost_usd"][-1], outcomes["score"][-1] = "third", -5.0, 7.0
    recording = read_recording(*write(tmp_path, outcomes=outcomes), ["cheap", "dear"])
    assert recording.table.tiers == ("cheap", "dear") and recording.n_dropped == 0


def test_dropped_queries_are_counted_and_named_by_tier(tmp_path: Path) -> None:
    outcomes = {name: values[:5] for name, values in OUTCOMES.items()}
    recording = read_recording(*write(tmp_path, outcomes=outcomes), None)
    assert recording.table.queries.query_id.tolist() == ["a", "b"]
    assert recording.n_dropped == 1 and recording.dropped_by_tier == {"cheap": 0, "dear": 1}
    assert any("1 of 3 queries" in note and "'dear': 1" in note for note in recording.notes)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_missing_score_is_a_missing_answer(tmp_path: Path, suffix: str, missing: float | None) -> None:
    outcomes = with_value(OUTCOMES, "score", 2, missing)
    recording = read_recording(*write(tmp_path, outcomes=outcomes, suffix=suffix), None)
    assert recording.table.queries.query_id.tolist() == ["a", "c"]
    assert recording.n_dropped == 1 and recording.dropped_by_tier == {"cheap": 1, "dear": 0}


def test_what_a_dropped_query_lacks_does_not_matter(tmp_path: Path) -> None:
    outcomes = with_value(with_value(OUTCOMES, "score", 2, None), "cost_usd", 2, None)
    assert read_recording(*write(tmp_path, outcomes=outcomes), None).table.has_cost


def test_outcome_rows_without_a_query_are_counted(tmp_path: Path) -> None:
    outcomes = {name: values + values[-2:] for name, values in OUTCOMES.items()}
    outcomes["query_id"] = [*OUTCOMES["query_id"], "z", "z"]
    recording = read_recording(*write(tmp_path, outcomes=outcomes), None)
    assert recording.n_unmatched == 2 and recording.n_dropped == 0
    assert any("2 outcome rows" in note for note in recording.notes)


def test_partly_missing_latency_counts_as_unknown_and_is_said(tmp_path: Path) -> None:
    outcomes = changed(OUTCOMES, latency_s=[1.0, 2.0, None, 2.0, 1.0, 2.0])
    recording = read_recording(*write(tmp_path, outcomes=outcomes), None)
    assert not recording.table.has_latency and np.isnan(recording.table.latency_s).all()
    assert any("latency_s" in note and "'cheap': 1" in note for note in recording.notes)


def test_categorical_columns_are_text(tmp_path: Path) -> None:
    queries_path, outcomes_path = write(tmp_path)
    expected = read_recording(queries_path, outcomes_path, None).table
    for path, names in ((queries_path, ["query_id", "slice", "prompt"]), (outcomes_path, ["query_id", "model"])):
        table = pyarrow.parquet.read_table(path)
        for name in names:
            at = table.column_names.index(name)
            table = table.set_column(at, name, table[name].combine_chunks().dictionary_encode())
        pyarrow.parquet.write_table(table, path)
        assert pa.types.is_dictionary(pyarrow.parquet.read_table(path)[names[0]].type)
    assert_same_table(expected, read_recording(queries_path, outcomes_path, None).table)


def test_categories_that_differ_between_row_groups(tmp_path: Path) -> None:
    queries_path, outcomes_path = write(tmp_path)
    expected = read_recording(queries_path, outcomes_path, None).table
    table = pyarrow.parquet.read_table(outcomes_path)
    halves = [part.combine_chunks() for part in (table.slice(0, 2), table.slice(2, 4))]
    coded = [h.set_column(0, "query_id", h["query_id"].combine_chunks().dictionary_encode()) for h in halves]
    with pyarrow.parquet.ParquetWriter(outcomes_path, coded[0].schema) as writer:
        for part in coded:
            writer.write_table(part)
    assert_same_table(expected, read_recording(queries_path, outcomes_path, None).table)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_integer_identifiers_and_slices(tmp_path: Path, suffix: str) -> None:
    queries = changed(QUERIES, query_id=[7, 8, 9], slice=[1, 2, 1])
    outcomes = changed(OUTCOMES, query_id=[7, 7, 8, 8, 9, 9], slice=[1, 1, 2, 2, 1, 1])
    table = read_recording(*write(tmp_path, queries, outcomes, suffix), None).table
    assert table.queries.query_id.tolist() == ["7", "8", "9"] and table.slices == ("1", "2")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_identifiers_that_look_like_numbers_or_dates_stay_text(tmp_path: Path, suffix: str) -> None:
    ids = ["007", "2024-01-01", "NA"]
    outcomes = changed(OUTCOMES, query_id=[i for i in ids for _ in range(2)])
    table = read_recording(*write(tmp_path, changed(QUERIES, query_id=ids), outcomes, suffix), None).table
    assert table.queries.query_id.tolist() == ids


@pytest.mark.parametrize("queries_suffix, outcomes_suffix", [(".csv", ".jsonl"), (".jsonl", ".parquet")])
def test_dates_as_identifiers_match_across_formats(tmp_path: Path, queries_suffix: str, outcomes_suffix: str) -> None:
    ids = ["2024-01-01", "2024-01-02", "2024-01-03"]
    queries = write_columns(tmp_path / f"q{queries_suffix}", changed(QUERIES, query_id=ids))
    outcomes = changed(OUTCOMES, query_id=[i for i in ids for _ in range(2)])
    table = read_recording(queries, write_columns(tmp_path / f"o{outcomes_suffix}", outcomes), None).table
    assert table.queries.query_id.tolist() == ids


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_prompts_with_commas_quotes_and_newlines(tmp_path: Path, suffix: str) -> None:
    prompts = ['a, "b"\nand\r\nc', "", '"\'"; ¿qué?\t\\n {"json": 1} 中文 🙂']
    table = read_recording(*write(tmp_path, changed(QUERIES, prompt=prompts), suffix=suffix), None).table
    assert table.queries.prompt == tuple(prompts)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_prompt_as_long_as_a_book(tmp_path: Path, suffix: str) -> None:
    prompts = ["short", "word " * 500_000, "short again"]
    table = read_recording(*write(tmp_path, changed(QUERIES, prompt=prompts), suffix=suffix), None).table
    assert table.queries.prompt == tuple(prompts)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_numeric_columns_become_signals(tmp_path: Path, suffix: str) -> None:
    signals = {"tokens": [1, 2, 3], "flag": [True, False, True], "sparse": [0.5, None, 1.5]}
    queries = changed(QUERIES, **signals, label=["u", "v", "w"], turn=[0, 1, 2])
    batch, _ = read_queries(write_columns(tmp_path / f"q{suffix}", queries))
    assert set(batch.signals) == {"length", "tokens", "flag", "sparse"}
    assert batch.signals["tokens"].tolist() == [1.0, 2.0, 3.0] and batch.signals["flag"].tolist() == [1.0, 0.0, 1.0]
    np.testing.assert_array_equal(batch.signals["sparse"], [0.5, np.nan, 1.5])


def test_upper_case_suffix_and_ndjson(tmp_path: Path) -> None:
    queries, outcomes = write(tmp_path, suffix=".jsonl")
    a, b = queries.rename(tmp_path / "Q.NDJSON"), outcomes.rename(tmp_path / "O.JSONL")
    assert read_recording(a, b, None).table.n_queries == 3


def test_rows_in_any_order_give_the_same_table(tmp_path: Path) -> None:
    queries, outcomes = recording_columns(n=30)
    shuffled = np.random.default_rng(1).permutation(90)
    mixed = {name: [values[i] for i in shuffled] for name, values in outcomes.items()}
    a = read_recording(*write(tmp_path / "a", queries, outcomes), None).table
    assert_same_table(a, read_recording(*write(tmp_path / "b", queries, mixed), None).table)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_column_that_fills_late_in_a_large_file_is_read(tmp_path: Path, suffix: str) -> None:
    """Readers infer types from the first block (1 MiB): whole numbers and blanks there say nothing about the rest."""
    n = 30_000
    queries = {"query_id": [f"query-{i:024d}" for i in range(n)]}
    outcomes = {
        "query_id": queries["query_id"] * 2,
        "model": ["a"] * n + ["b"] * n,
        "score": [1.0] * n + [0.5] * n,
        "latency_s": [None] * n + [0.25] * n,
    }
    q, o = tmp_path / f"q{suffix}", tmp_path / f"o{suffix}"
    if suffix == ".csv":
        q.write_text("query_id\n" + "".join(f"{i}\n" for i in queries["query_id"]))
        rows = zip(*outcomes.values(), strict=True)
        body = "".join(f"{i},{m},{s:g},{'' if t is None else t}\n" for i, m, s, t in rows)
        o.write_text("query_id,model,score,latency_s\n" + body)
    else:
        q.write_text("".join(json.dumps({"query_id": i}) + "\n" for i in queries["query_id"]))
        rows = (dict(zip(outcomes, row, strict=True)) for row in zip(*outcomes.values(), strict=True))
        o.write_text("".join(json.dumps({**r, "score": int(r["score"]) or 0.5}) + "\n" for r in rows))
    assert o.stat().st_size > 2 * 2**20
    table = read_recording(q, o, ["a", "b"]).table
    assert table.n_queries == n and table.quality[:, 1].tolist() == [0.5] * n


# --- what is wrong is one line that names the place -------------------------------------------------------------------


def fails(read: Callable[[], object], *fragments: str) -> None:
    with pytest.raises(InputDataError) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message and message.strip()
    missing = [f for f in fragments if f not in message]
    assert not missing, f"{missing} not in: {message}"


BAD_QUERIES: dict[str, tuple[Columns, Sequence[str]]] = {
    "no query_id": (changed(QUERIES, query_id=None), ["queries", "query_id"]),
    "query_id twice": (with_value(QUERIES, "query_id", 2, "a"), ["queries", "query_id", "'a'"]),
    "query_id missing": (with_value(QUERIES, "query_id", 1, None), ["queries", "query_id", "1 missing"]),
    "prompt missing": (with_value(QUERIES, "prompt", 1, None), ["queries", "prompt", "1 missing"]),
    "slice missing": (with_value(QUERIES, "slice", 1, None), ["queries", "slice", "1 missing"]),
    "turn missing": (changed(QUERIES, turn=[0, None, 1]), ["queries", "turn", "missing"]),
    "prompt is a list": (changed(QUERIES, prompt=[["a"], ["b"], ["c"]]), ["queries", "prompt", "text"]),
    "no row": ({name: values[:0] for name, values in QUERIES.items()}, ["queries", "no row"]),
}


@pytest.mark.parametrize("case", BAD_QUERIES)
def test_bad_queries_file(tmp_path: Path, case: str) -> None:
    queries, fragments = BAD_QUERIES[case]
    fails(lambda: read_recording(*write(tmp_path, queries), None), *fragments)


BAD_OUTCOMES: dict[str, tuple[Columns, Sequence[str]]] = {
    "no model": (changed(OUTCOMES, model=None), ["outcomes", "model"]),
    "no score": (changed(OUTCOMES, score=None), ["outcomes", "score"]),
    "no query_id": (changed(OUTCOMES, query_id=None), ["outcomes", "query_id"]),
    "score above 1": (with_value(OUTCOMES, "score", 3, 1.2), ["score", "1.2", "b", "dear"]),
    "score below 0": (with_value(OUTCOMES, "score", 3, -0.5), ["score", "-0.5", "b", "dear"]),
    "score infinite": (with_value(OUTCOMES, "score", 3, math.inf), ["score", "inf", "b", "dear"]),
    "score is text": (changed(OUTCOMES, score=["good"] * 6), ["outcomes", "score", "numeric"]),
    "cost negative": (with_value(OUTCOMES, "cost_usd", 2, -0.1), ["cost_usd", "-0.1", "b", "cheap"]),
    "cost partly missing": (with_value(OUTCOMES, "cost_usd", 2, None), ["outcomes", "cost_usd", "1 of 6", "cheap"]),
    "latency negative": (changed(OUTCOMES, latency_s=[-1.0] * 6), ["latency_s", "-1", "a", "cheap"]),
    "tokens negative": (changed(OUTCOMES, output_tokens=[-1] * 6), ["output_tokens", "-1", "a", "cheap"]),
    "an answer twice": (with_value(OUTCOMES, "model", 3, "cheap"), ["outcomes", "'b'", "'cheap'"]),
    "model missing": (with_value(OUTCOMES, "model", 3, None), ["outcomes", "model", "1 missing"]),
    "no common query": (changed(OUTCOMES, query_id=list("ppqqrr")), ["outcomes", "query_id", "queries"]),
    "no row": ({name: values[:0] for name, values in OUTCOMES.items()}, ["outcomes", "no row"]),
    "no query answered by all": (
        changed(OUTCOMES, score=[0.5, None, 0.5, None, 0.5, None]),
        ["no query", "'cheap': 0", "'dear': 3"],
    ),
}


@pytest.mark.parametrize("case", BAD_OUTCOMES)
def test_bad_outcomes_file(tmp_path: Path, case: str) -> None:
    outcomes, fragments = BAD_OUTCOMES[case]
    fails(lambda: read_recording(*write(tmp_path, outcomes=outcomes), ["cheap", "dear"]), *fragments)


def test_one_model_is_no_router(tmp_path: Path) -> None:
    outcomes = {name: values[::2] for name, values in OUTCOMES.items()}
    fails(lambda: read_recording(*write(tmp_path, outcomes=outcomes), None), "two tiers", "cheap")


def test_unknown_tier_is_named_with_what_there_is(tmp_path: Path) -> None:
    fails(lambda: read_recording(*write(tmp_path), ["cheap", "huge"]), "huge", "outcomes", "cheap, dear")


def test_a_tier_named_twice(tmp_path: Path) -> None:
    fails(lambda: read_recording(*write(tmp_path), ["cheap", "cheap"]), "tiers", "cheap")


def test_auto_needs_costs(tmp_path: Path) -> None:
    paths = write(tmp_path, outcomes=changed(OUTCOMES, cost_usd=None))
    fails(lambda: read_recording(*paths, None), "auto", "outcomes", "cost")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_file(tmp_path: Path, suffix: str) -> None:
    fails(lambda: read_queries(tmp_path / f"nope{suffix}"), f"nope{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"queries{suffix}"
    path.touch()
    fails(lambda: read_queries(path), f"queries{suffix}", "empty")


def test_header_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "queries.csv"
    path.write_text("query_id,prompt\n")
    fails(lambda: read_queries(path), "queries.csv", "query_id", "no row")


@pytest.mark.parametrize(
    "name, content",
    [
        ("text.parquet", b"query_id,prompt\na,b\n"),
        ("broken.jsonl", b'{"query_id": "a"\n'),
        ("text.jsonl", b"query_id,prompt\na,b\n"),
        ("ragged.csv", b"query_id,prompt\na,b,c\n"),
        ("latin1.csv", "query_id,prompt\na,\xe9t\xe9\n".encode("latin-1")),
        ("binary.csv", bytes(range(256))),
        ("blank.jsonl", b"\n\n"),
        ("blank.csv", b"\n"),
    ],
)
def test_a_file_that_is_not_what_its_suffix_says(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    fails(lambda: read_queries(path), name)


@pytest.mark.parametrize("name", ["queries.xlsx", "queries", "queries.json"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("query_id\na\n")
    fails(lambda: read_queries(path), name, ".parquet", ".csv", ".jsonl")


def test_a_column_named_twice(tmp_path: Path) -> None:
    path = tmp_path / "queries.csv"
    path.write_text("query_id,prompt,prompt\na,b,c\n")
    fails(lambda: read_queries(path), "queries.csv", "prompt", "twice")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "queries.parquet").mkdir()
    fails(lambda: read_queries(tmp_path / "queries.parquet"), "queries.parquet")


# --- prices -----------------------------------------------------------------------------------------------------------

PRICES: Columns = {"model": ["cheap", "dear"], "input_usd_per_mtok": [1.0, 10.0], "output_usd_per_mtok": [2.0, 20.0]}
TOKENS: Columns = changed(OUTCOMES, cost_usd=None, input_tokens=[100] * 6, output_tokens=[10, 20, 10, 20, 10, 20])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tokens_are_priced(tmp_path: Path, suffix: str) -> None:
    card = read_price_card(write_columns(tmp_path / f"prices{suffix}", PRICES))
    table = read_recording(*write(tmp_path, outcomes=TOKENS), None, prices=card).table
    assert table.tiers == ("cheap", "dear")
    np.testing.assert_allclose(table.cost_usd, [[120e-6, 1400e-6]] * 3, rtol=1e-12)


def test_bills_beat_prices(tmp_path: Path) -> None:
    card = PriceCard(source="p", input_usd_per_mtok={"cheap": 9.0, "dear": 9.0}, output_usd_per_mtok={})
    table = read_recording(*write(tmp_path), None, prices=card).table
    np.testing.assert_array_equal(table.cost_usd[0], [0.001, 0.01])


def test_an_unpriced_model_is_not_free(tmp_path: Path) -> None:
    card = PriceCard(source="prices.csv", input_usd_per_mtok={"cheap": 1.0}, output_usd_per_mtok={"cheap": 1.0})
    fails(lambda: read_recording(*write(tmp_path, outcomes=TOKENS), None, prices=card), "prices.csv", "dear")


def test_half_a_price_is_none() -> None:
    card = PriceCard(source="prices.csv", input_usd_per_mtok={"a": 1.0, "b": 1.0}, output_usd_per_mtok={"a": 1.0})
    fails(lambda: card.cost_usd(["a", "b"], np.ones((1, 2)), np.ones((1, 2))), "prices.csv", "b")


def test_an_unknown_token_count_is_an_unknown_cost() -> None:
    card = PriceCard(source="p", input_usd_per_mtok={"a": 1.0}, output_usd_per_mtok={"a": 1.0})
    assert np.isnan(card.cost_usd(["a"], np.array([[np.nan]]), np.array([[5.0]]))).all()


BAD_PRICES: dict[str, tuple[Columns, Sequence[str]]] = {
    "zero": (with_value(PRICES, "input_usd_per_mtok", 1, 0.0), ["prices", "input_usd_per_mtok", "dear", "0"]),
    "negative": (with_value(PRICES, "output_usd_per_mtok", 0, -2.0), ["prices", "output_usd_per_mtok", "cheap", "-2"]),
    "missing": (with_value(PRICES, "output_usd_per_mtok", 0, None), ["prices", "output_usd_per_mtok", "cheap"]),
    "infinite": (with_value(PRICES, "output_usd_per_mtok", 0, math.inf), ["prices", "output_usd_per_mtok", "cheap"]),
    "text": (changed(PRICES, input_usd_per_mtok=["a", "b"]), ["prices", "input_usd_per_mtok", "numeric"]),
    "column missing": (changed(PRICES, output_usd_per_mtok=None), ["prices", "output_usd_per_mtok"]),
    "model twice": (changed(PRICES, model=["cheap", "cheap"]), ["prices", "cheap"]),
}


@pytest.mark.parametrize("case", BAD_PRICES)
def test_bad_price_card(tmp_path: Path, case: str) -> None:
    prices, fragments = BAD_PRICES[case]
    path = write_columns(tmp_path / "prices.csv", prices)
    fails(lambda: read_price_card(path), *fragments)


# --- round trip -------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n\t"), max_size=12)
UNIT = st.floats(0.0, 1.0)
USD = st.floats(1e-9, 10.0)


@st.composite
def recordings(draw: st.DrawFn) -> tuple[Columns, Columns]:
    n, k = draw(st.integers(1, 5)), draw(st.integers(2, 3))
    ids = draw(st.lists(st.text("abc01-_ ,\"'é", min_size=1, max_size=6), min_size=n, max_size=n, unique=True))
    cells = n * k
    queries: Columns = {
        "query_id": ids,
        "prompt": draw(st.lists(TEXT, min_size=n, max_size=n)),
        "signal": draw(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=n, max_size=n)),
    }
    outcomes: Columns = {
        "query_id": [i for i in ids for _ in range(k)],
        "model": list(TIERS[:k]) * n,
        "score": draw(st.lists(UNIT, min_size=cells, max_size=cells)),
        "cost_usd": draw(st.lists(USD, min_size=cells, max_size=cells)),
        "latency_s": draw(st.lists(st.floats(0.0, 1e4), min_size=cells, max_size=cells)),
    }
    return queries, outcomes


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(columns=recordings())
def test_round_trip(suffix: str, columns: tuple[Columns, Columns]) -> None:
    queries, outcomes = columns
    with tempfile.TemporaryDirectory() as folder:
        table = read_recording(*write(Path(folder), queries, outcomes, suffix), None, keep_order=True).table
    n, tiers = len(queries["query_id"]), sorted(set(outcomes["model"]))
    assert table.tiers == tuple(tiers)
    assert table.queries.query_id.tolist() == queries["query_id"] and table.queries.prompt == tuple(queries["prompt"])
    np.testing.assert_array_equal(table.queries.signals["signal"], queries["signal"])
    columns_of = [outcomes["model"][: len(tiers)].index(name) for name in tiers]
    for name, attribute in (("score", "quality"), ("cost_usd", "cost_usd"), ("latency_s", "latency_s")):
        expected = np.array(outcomes[name], dtype=float).reshape(n, -1)[:, columns_of]
        np.testing.assert_array_equal(getattr(table, attribute), expected)


# --- the recorded public sets -----------------------------------------------------------------------------------------


def test_the_main_public_set_has_its_published_means(data_dir: Path) -> None:
    folder = data_dir / "outcomes"
    recording = read_recording(folder / "paretobandit_queries.parquet", folder / "paretobandit_outcomes.parquet", None)
    table = recording.table
    assert (table.n_queries, table.n_tiers, recording.n_dropped) == (1766, 4, 0)
    np.testing.assert_allclose(table.quality.mean(axis=0), [0.790, 0.926, 0.929, 0.936], atol=6e-4)
    np.testing.assert_allclose(table.cost_usd.mean(axis=0), [2.9e-5, 4.9e-4, 9.0e-4, 1.5e-2], rtol=0.03)
    np.testing.assert_allclose(table.quality.max(axis=1).mean(), 0.972, atol=6e-4)


@pytest.mark.parametrize(
    "name, tiers",
    [
        ("routerarena", None),
        ("routerbench_part", None),
        ("bfcl", None),
        ("zeroeval", ["gpt-4o-mini-2024-07-18", "gpt-4o-2024-08-06"]),
        ("routellm", None),
        ("llmrouter", None),
        ("frugalgpt_overruling", None),
    ],
)
def test_every_public_set_is_read_or_refused_in_one_line(data_dir: Path, name: str, tiers: list[str] | None) -> None:
    folder = data_dir / "outcomes"
    try:
        table = read_recording(folder / f"{name}_queries.parquet", folder / f"{name}_outcomes.parquet", tiers).table
    except InputDataError as error:
        assert "\n" not in str(error)
    else:
        assert table.n_queries > 0 and np.isfinite(table.quality).all()
