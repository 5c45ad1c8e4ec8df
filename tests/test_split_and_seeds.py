"""Splits, seeds and the outcome table itself: one prompt on one side, one name one stream, one wrong cell one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.errors import InputDataError
from simulators.outcomes import OutcomeTable, QueryBatch, split_by_prompt
from simulators.seeds import spawn_rng
from toolkit.scorers.base import ScoreTable, cross_fit

NUMBERS = ("quality", "cost_usd", "latency_s", "ttft_s", "input_tokens", "output_tokens")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def with_prompts(table: OutcomeTable, prompts: list[str]) -> OutcomeTable:
    return dataclasses.replace(table, queries=dataclasses.replace(table.queries, prompt=tuple(prompts)), _hash=[])


# --- split_by_prompt --------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    prompts=st.lists(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), min_size=4, max_size=60),
    tune=st.floats(0.2, 0.6),
    seed=st.integers(0, 2**32),
)
def test_a_prompt_falls_on_one_side(prompts: list[str], tune: float, seed: int) -> None:
    table = with_prompts(make_table(rng(), n=len(prompts)), prompts)
    try:
        rows = split_by_prompt(table, {"tune": tune, "validate": 1.0 - tune}, rng(seed))
    except InputDataError:
        assert len(set(prompts)) <= 4
        return
    sides = [{prompts[i] for i in part} for part in rows.values()]
    assert not sides[0] & sides[1]
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(len(prompts)))


def test_without_prompts_the_query_is_the_group() -> None:
    rows = split_by_prompt(make_table(rng(), n=100), {"tune": 0.3, "validate": 0.7}, rng())
    assert {name: len(part) for name, part in rows.items()} == {"tune": 30, "validate": 70}


@pytest.mark.parametrize("shares", [{"a": 0.25, "b": 0.5}, {"a": 0.1, "b": 0.2, "c": 0.3}, {"only": 1.0}])
def test_shares_of_the_distinct_prompts(shares: dict[str, float]) -> None:
    table = with_prompts(make_table(rng(), n=400), [f"p{i % 200}" for i in range(400)])
    rows = split_by_prompt(table, shares, rng())
    for name, share in shares.items():
        assert len(rows[name]) == round(share * 200) * 2
        assert np.all(np.diff(rows[name]) > 0)
    assert len(np.unique(np.concatenate(list(rows.values())))) == sum(len(part) for part in rows.values())


def test_a_split_is_a_matter_of_the_seed() -> None:
    table, shares = make_table(rng(), n=80), {"tune": 0.5, "validate": 0.5}
    first, again, other = (split_by_prompt(table, shares, rng(seed))["tune"] for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() and first.tolist() != other.tolist()


def test_every_prompt_is_as_likely_on_either_side() -> None:
    table = make_table(rng(), n=20)
    counts = np.zeros(20)
    for seed in range(400):
        counts[split_by_prompt(table, {"tune": 0.5, "validate": 0.5}, rng(seed))["tune"]] += 1
    assert np.abs(counts / 400 - 0.5).max() < 4 * np.sqrt(0.25 / 400)


@pytest.mark.parametrize("shares", [{"tune": 0.9, "validate": 0.001}, {"tune": 0.0, "validate": 1.0}])
def test_an_empty_split_is_an_error_that_names_it(shares: dict[str, float]) -> None:
    with pytest.raises(InputDataError, match="split") as caught:
        split_by_prompt(make_table(rng(), n=20), shares, rng())
    assert min(shares, key=shares.__getitem__) in str(caught.value) and "20" in str(caught.value)


def test_one_prompt_for_all_cannot_be_split() -> None:
    with pytest.raises(InputDataError, match="1 distinct prompt"):
        split_by_prompt(with_prompts(make_table(rng(), n=20), ["same"] * 20), {"tune": 0.5, "validate": 0.5}, rng())


# --- split_by_prompt: sessions ----------------------------------------------------------------------------------------

HALVES = {"tune": 0.5, "validate": 0.5}


def talks(sessions: list[str], prompts: list[str]) -> OutcomeTable:
    table = with_prompts(make_table(rng(), n=len(sessions)), prompts)
    return dataclasses.replace(table, session=np.array(sessions), _hash=[])


def linked_in_pairs() -> OutcomeTable:
    """40 sessions of 5; the last prompt of each even one opens the next one: 20 pairs of 10 queries."""
    prompts = [f"p{i}" for i in range(200)]
    for pair in range(20):
        prompts[10 * pair + 5] = prompts[10 * pair + 4]
    return talks([f"s{i // 5}" for i in range(200)], prompts)


def chain(length: int) -> OutcomeTable:
    """Sessions of 2 where each opens with the last prompt of the one before, `length` of them, beside 100 alone."""
    prompts = [f"p{(i + 1) // 2}" for i in range(2 * length)] + [f"alone{i}" for i in range(200)]
    return talks([f"s{i // 2}" for i in range(2 * length + 200)], prompts)


def rows_by_hand(keys: list[str], shares: dict[str, float], seed: int) -> dict[str, list[int]]:
    """The split of groups in the order in which their keys first appear."""
    first = list(dict.fromkeys(keys))
    order = rng(seed).permutation(len(first)).tolist()
    found, start = {}, 0
    for name, end in zip(shares, np.cumsum(list(shares.values())), strict=True):
        stop = round(float(end) * len(first))
        chosen = {first[i] for i in order[start:stop]}
        found[name], start = [row for row, key in enumerate(keys) if key in chosen], stop
    return found


def as_lists(rows: dict[str, Any]) -> dict[str, list[int]]:
    return {name: part.tolist() for name, part in rows.items()}


@dataclasses.dataclass(frozen=True)
class WatchedScorer:
    """Learns nothing, and notes the queries of each fit and those that this fit scores."""

    folds: list[tuple[set[str], set[str]]] = dataclasses.field(default_factory=list)
    learned: bool = True

    def fit(self, table: OutcomeTable) -> Any:
        fitted = WatchedScorer(self.folds)
        self.folds.append((set(table.queries.query_id.tolist()), set()))
        return fitted

    def predict(self, queries: QueryBatch) -> ScoreTable:
        self.folds[-1][1].update(queries.query_id.tolist())
        return ScoreTable(score=np.array([float(name[1:]) for name in queries.query_id]))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from(["", *"stuvwxyz"]), st.sampled_from("abcdefgh")), min_size=4, max_size=80),
    tune=st.floats(0.2, 0.6),
    seed=st.integers(0, 2**32),
)
def test_a_session_falls_on_one_side_whatever_the_prompts(rows: list[tuple[str, str]], tune: float, seed: int) -> None:
    sessions, prompts = [s for s, _ in rows], [p for _, p in rows]
    try:
        found = split_by_prompt(talks(sessions, prompts), {"tune": tune, "validate": 1.0 - tune}, rng(seed))
    except InputDataError:
        assert len(set(sessions) - {""}) <= 4
        return
    sides = [{sessions[i] for i in part} - {""} for part in found.values()]
    assert not sides[0] & sides[1]
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(len(rows)))


@pytest.mark.parametrize("seed", range(10))
def test_sessions_that_share_a_prompt_fall_on_one_side(seed: int) -> None:
    rows = split_by_prompt(linked_in_pairs(), HALVES, rng(seed))
    for part in rows.values():
        pair, counts = np.unique(part // 10, return_counts=True)
        assert len(pair) == 10 and (counts == 10).all()


@pytest.mark.parametrize("seed", range(10))
def test_a_chain_of_shared_prompts_falls_on_one_side(seed: int) -> None:
    """First and last session share no prompt: they are linked by those between."""
    table = chain(10)
    assert sum(part[0] == 0 for part in split_by_prompt(table, HALVES, rng(seed)).values()) == 1
    for part in split_by_prompt(table, HALVES, rng(seed)).values():
        assert (part < 20).sum() in (0, 20)


def test_a_prompt_without_session_goes_with_the_sessions_that_send_it() -> None:
    table = talks([*["s0"] * 4, *[""] * 76], ["a", "b", "c", "d", "b", *[f"p{i}" for i in range(75)]])
    for seed in range(10):
        for part in split_by_prompt(table, HALVES, rng(seed)).values():
            assert (part < 5).sum() in (0, 5)


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_no_fold_scores_a_session_that_its_fit_saw(folds: int) -> None:
    table, scorer = linked_in_pairs(), WatchedScorer()
    scores = cross_fit(scorer, table, folds=folds, rng=rng())
    assert scores.score.tolist() == list(range(200)) and len(scorer.folds) == folds
    for fitted, scored in scorer.folds:
        assert len(fitted) + len(scored) == 200
        assert not {int(name[1:]) // 10 for name in fitted} & {int(name[1:]) // 10 for name in scored}


def test_empty_session_names_do_not_link() -> None:
    """60 queries without a session are 60 groups, beside 20 sessions of 2."""
    table = talks([*[""] * 60, *[f"s{i // 2}" for i in range(40)]], [f"p{i}" for i in range(100)])
    assert len(np.unique(table.cluster_code)) == len(np.unique(table.split_code)) == 80
    for seed in range(10):
        parts = split_by_prompt(table, HALVES, rng(seed)).values()
        assert [(part < 60).sum() + (part >= 60).sum() // 2 for part in parts] == [40, 40]
        assert all(0 < (part < 60).sum() < 60 for part in parts)


@pytest.mark.parametrize("seed", range(10))
def test_a_prompt_that_everybody_sends_links_nobody(seed: int) -> None:
    """Each of 40 sessions opens with "hello": by prompts all would be one group, so sessions alone count."""
    table = talks([f"s{i // 5}" for i in range(200)], ["hello" if i % 5 == 0 else f"p{i}" for i in range(200)])
    np.testing.assert_array_equal(table.split_code, table.cluster_code)
    for part in split_by_prompt(table, HALVES, rng(seed)).values():
        session, counts = np.unique(part // 5, return_counts=True)
        assert len(session) == 20 and (counts == 5).all()


@pytest.mark.parametrize(("length", "groups"), [(11, 1 + 100), (12, 12 + 100)])
def test_prompts_link_up_to_a_tenth_of_the_queries(length: int, groups: int) -> None:
    """22 of 222 are less than a tenth, 24 of 224 are more."""
    assert len(np.unique(chain(length).split_code)) == groups


@pytest.mark.parametrize("session", [None, ""])
@pytest.mark.parametrize("seed", range(5))
def test_without_sessions_prompts_alone_count(session: str | None, seed: int) -> None:
    """Half of the queries send one prompt; it is a group all the same."""
    prompts = [f"p{i % 60}" if i % 2 else "hello" for i in range(200)]
    table = talks([""] * 200, prompts) if session == "" else with_prompts(make_table(rng(), n=200), prompts)
    assert (table.session is None) == (session is None)
    shares = {"tune": 0.4, "validate": 0.35}
    assert as_lists(split_by_prompt(table, shares, rng(seed))) == rows_by_hand(prompts, shares, seed)


# --- spawn_rng --------------------------------------------------------------------------------------------------------


GOLDEN = {
    "split": [267, 353, 923, 282, 213],
    "folds": [310, 11, 587, 935, 329],
    "split/a": [146, 95, 930, 475, 435],
}


def test_streams_have_their_known_first_values() -> None:
    """Golden: a change here changes every result of every recorded seed."""
    assert spawn_rng(0, "split").integers(1000, size=5).tolist() == GOLDEN["split"]
    assert spawn_rng(0, "folds").integers(1000, size=5).tolist() == GOLDEN["folds"]
    assert spawn_rng(7, "split", "a").integers(1000, size=5).tolist() == GOLDEN["split/a"]


def test_the_same_names_give_the_same_stream() -> None:
    assert np.array_equal(spawn_rng(3, "a", "b").random(10), spawn_rng(3, "a", "b").random(10))


@pytest.mark.parametrize("other", [(4, "a", "b"), (3, "a"), (3, "b", "a"), (3, "ab"), (3, "a", "b", "c"), (3,)])
def test_other_seeds_and_names_give_other_streams(other: tuple[Any, ...]) -> None:
    assert not np.array_equal(spawn_rng(3, "a", "b").random(10), spawn_rng(*other).random(10))


def test_streams_of_different_names_are_uncorrelated() -> None:
    draws = np.stack([spawn_rng(0, name).standard_normal(20_000) for name in ("split", "folds", "sobol", "scenario")])
    correlation = np.corrcoef(draws) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)


def test_no_stream_touches_the_global_state() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    spawn_rng(0, "split").random(10)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


# --- OutcomeTable -----------------------------------------------------------------------------------------------------


def test_sizes_and_what_is_known() -> None:
    table = make_table(rng(), n=12, k=4, latency=False)
    assert (table.n_queries, table.n_tiers, len(table.queries)) == (12, 4, 12)
    assert table.has_cost and not table.has_latency


def replaced(table: OutcomeTable, **changes: Any) -> OutcomeTable:
    return dataclasses.replace(table, _hash=[], **changes)


def cell(table: OutcomeTable, name: str, value: float) -> OutcomeTable:
    values = getattr(table, name).copy()
    values[3, 1] = value
    return replaced(table, **{name: values})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-0.5, np.inf, -np.inf])
def test_a_wrong_cell_is_named(name: str, value: float) -> None:
    with pytest.raises(InputDataError) as caught:
        cell(make_table(rng()), name, value)
    message = str(caught.value)
    assert all(part in message for part in (name, "q3", "tier1", str(value), "1 such")) and "\n" not in message


@pytest.mark.parametrize("value", [1.0 + 1e-9, 2.0, np.nan])
def test_quality_is_a_number_in_the_unit_interval(value: float) -> None:
    with pytest.raises(InputDataError, match="quality"):
        cell(make_table(rng()), "quality", value)


@pytest.mark.parametrize("name", NUMBERS[1:])
def test_only_quality_must_be_known(name: str) -> None:
    cell(make_table(rng()), name, np.nan)


@pytest.mark.parametrize("name", [*NUMBERS, "error"])
def test_a_wrong_shape_is_named(name: str) -> None:
    table = make_table(rng(), n=10, k=3)
    with pytest.raises(InputDataError, match=rf"{name} must have shape \(10, 3\)"):
        replaced(table, **{name: getattr(table, name)[:, :2]})


def test_at_least_two_distinct_tiers_and_one_query() -> None:
    table = make_table(rng(), n=10, k=2)
    with pytest.raises(InputDataError, match="distinct"):
        replaced(table, tiers=("a", "a"))
    with pytest.raises(InputDataError, match="two tiers"):
        replaced(table, tiers=("a",))
    with pytest.raises(InputDataError, match="no query"):
        table.take(np.array([], dtype=np.int64))


def test_take_keeps_rows_together() -> None:
    table = make_table(rng(), n=20, prompts=True)
    rows = np.array([5, 2, 2, 19])
    part = table.take(rows)
    assert part.queries.query_id.tolist() == ["q5", "q2", "q2", "q19"] and part.slices == table.slices
    assert part.queries.prompt == tuple(table.queries.prompt[i] for i in rows)  # type: ignore[index]
    for name in (*NUMBERS, "error", "slice_code"):
        np.testing.assert_array_equal(getattr(part, name), getattr(table, name)[rows])
    np.testing.assert_array_equal(part.queries.signals["difficulty"], table.queries.signals["difficulty"][rows])


# --- data_hash --------------------------------------------------------------------------------------------------------


def queries(table: OutcomeTable, **changes: Any) -> OutcomeTable:
    return replaced(table, queries=dataclasses.replace(table.queries, **changes))


def bumped(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values.flat[7] = values.flat[7] / 2 + 0.125
    return values


CHANGES: dict[str, Callable[[OutcomeTable], OutcomeTable]] = {
    "quality": lambda t: replaced(t, quality=bumped(t.quality)),
    "cost": lambda t: replaced(t, cost_usd=bumped(t.cost_usd)),
    "latency": lambda t: replaced(t, latency_s=bumped(t.latency_s)),
    "costs unknown": lambda t: replaced(t, cost_usd=np.full_like(t.cost_usd, np.nan)),
    "tier name": lambda t: replaced(t, tiers=("other", *t.tiers[1:])),
    "tier order": lambda t: replaced(t, tiers=t.tiers[::-1]),
    "slice name": lambda t: replaced(t, slices=("other", *t.slices[1:])),
    "slice of a query": lambda t: replaced(t, slice_code=(t.slice_code + (np.arange(len(t.slice_code)) == 4)) % 3),
    "query id": lambda t: queries(t, query_id=np.array(["z", *t.queries.query_id[1:]])),
    "prompt": lambda t: queries(t, prompt=("z", *t.queries.prompt[1:])),  # type: ignore[index]
    "prompts unknown": lambda t: queries(t, prompt=None),
    "signal": lambda t: queries(t, signals={"difficulty": bumped(t.queries.signals["difficulty"])}),
    "signal name": lambda t: queries(t, signals={"hardness": t.queries.signals["difficulty"]}),
    "signals gone": lambda t: queries(t, signals={}),
    "order of queries": lambda t: t.take(np.arange(t.n_queries)[::-1]),
    "fewer queries": lambda t: t.take(np.arange(t.n_queries - 1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_hash_changes_with(change: str) -> None:
    table = make_table(rng(), n=20, prompts=True)
    assert CHANGES[change](table).data_hash != table.data_hash


SAME: dict[str, Callable[[OutcomeTable], OutcomeTable]] = {
    "nothing": lambda t: replaced(t),
    "take all": lambda t: t.take(np.arange(t.n_queries)),
    "where it came from": lambda t: replaced(t, source="elsewhere"),
    "memory layout": lambda t: replaced(t, quality=np.asfortranarray(t.quality)),
    "order of the signals": lambda t: queries(t, signals=dict(reversed(t.queries.signals.items()))),
}


@pytest.mark.parametrize("change", SAME)
def test_the_hash_does_not_change_with(change: str) -> None:
    table = make_table(rng(), n=20, prompts=True, signals=("difficulty", "length"))
    assert SAME[change](table).data_hash == table.data_hash


def test_the_hash_tells_where_one_prompt_ends() -> None:
    table = make_table(rng(), n=2)
    pairs = [("ab", "c"), ("a", "bc"), ("", "abc"), ("a\x1fb", "c"), ("a", "b\x1fc")]
    assert len({queries(table, prompt=pair).data_hash for pair in pairs}) == len(pairs)


def test_the_hash_is_a_sha_256() -> None:
    digest = make_table(rng(), n=5).data_hash
    assert len(digest) == 64 and set(digest) <= set("0123456789abcdef")
