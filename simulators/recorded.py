"""Readers: a queries file and an outcomes file become an `OutcomeTable`.

Two-file layout. Queries: `query_id`, optional `prompt, slice, session_id, turn`, any numeric column is a router
signal. Outcomes: `query_id, model, score`, optional `slice, cost_usd, latency_s, ttft_s, input_tokens,
output_tokens, error`. Parquet, CSV or JSONL by suffix. Nothing is unpickled and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from simulators.columns import first_duplicate, need_columns, number_column, read_columns, text_column, text_list
from simulators.errors import InputDataError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable, QueryBatch
from simulators.prices import PriceCard

_QUERY_COLUMNS = {"query_id", "prompt", "slice", "session_id", "turn"}
_OUTCOME_NUMBERS = ("cost_usd", "latency_s", "ttft_s", "input_tokens", "output_tokens")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A table and what had to be left out to get it.

    Attributes:
        table: The queries that every tier answered.
        n_dropped: Queries left out because a tier's answer is missing.
        dropped_by_tier: Tier -> queries it did not answer.
        n_unmatched: Outcome rows of the chosen tiers whose query is not in the queries file.
        notes: One sentence each on what a user should know.
        priced_by_card: Whether the costs are those of a price card, not recorded ones.
    """

    table: OutcomeTable
    n_dropped: int
    dropped_by_tier: dict[str, int]
    n_unmatched: int
    notes: tuple[str, ...]
    priced_by_card: bool = False


def read_queries(path: Path) -> tuple[QueryBatch, pa.Table]:
    """The queries of one file as a router sees them, and the raw columns.

    Raises:
        InputDataError: If `query_id` is missing or not unique, or a column has the wrong type.
    """
    raw = read_columns(path)
    need_columns(raw, ["query_id"], path)
    query_id = text_column(raw, "query_id", path)
    duplicate = first_duplicate(query_id)
    if duplicate is not None:
        raise InputDataError(f"{path} has query_id {duplicate!r} more than once; make identifiers unique")
    prompt = tuple(text_list(raw, "prompt", path)) if "prompt" in raw.column_names else None
    signals = {
        name: number_column(raw, name, path)
        for name in raw.column_names
        if name not in _QUERY_COLUMNS and pa.types.is_primitive(raw[name].type) and _is_numeric(raw[name].type)
    }
    known = text_column(raw, "slice", path) if "slice" in raw.column_names else None
    return QueryBatch(query_id=query_id, prompt=prompt, signals=signals, slice=known), raw


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def read_recording(
    queries_path: Path,
    outcomes_path: Path,
    tiers: Sequence[str] | None,
    *,
    prices: PriceCard | None = None,
    keep_order: bool = False,
    partial_latency: bool = False,
) -> Recording:
    """Join the two files on `query_id` (and `slice` where both have one).

    Args:
        queries_path: The queries file.
        outcomes_path: The outcomes file.
        tiers: Model names, cheapest first as the user sees them, or None for all models. Either way the table's
            tiers end up in order of mean billed cost where the cost is known.
        prices: Prices per token for outcomes that carry tokens but no cost.
        keep_order: Keep `tiers` as given: the order of a policy that exists already.
        partial_latency: Keep the latencies of some tiers where others have none; by default they then count as unknown.

    Returns:
        The recording; queries that lack an answer of some tier are dropped and counted.

    Raises:
        InputDataError: If a column, tier or value is missing or wrong, or nothing remains.
    """
    queries, raw_queries = read_queries(queries_path)
    raw = read_columns(outcomes_path)
    need_columns(raw, ["query_id", "model", "score"], outcomes_path)
    model = text_column(raw, "model", outcomes_path)
    names = _tier_names(tiers, model, outcomes_path)
    chosen = np.isin(model, names)
    raw, model = raw.filter(pa.array(chosen)), model[chosen]
    row = _match_queries(queries, raw_queries, raw, queries_path, outcomes_path)
    tier = np.array([names.index(m) for m in model.tolist()], dtype=np.int64)
    n_unmatched = int((row < 0).sum())
    if n_unmatched == len(row):
        raise InputDataError(
            f"no query_id of {outcomes_path} occurs in {queries_path}; are these files of one recording?"
        )
    cells = _Cells(row=row, tier=tier, shape=(len(queries), len(names)), raw=raw, path=outcomes_path)
    cells.check_unique(queries, names)
    quality = cells.grid("score")
    numbers = {name: cells.grid(name) for name in _OUTCOME_NUMBERS}
    _check_scores(quality, queries, names, outcomes_path)
    answered = ~np.isnan(quality)
    keep = np.flatnonzero(answered.all(axis=1))
    if len(keep) == 0:
        lacking = {name: int((~answered[:, k]).sum()) for k, name in enumerate(names)}
        raise InputDataError(f"no query was answered by all of {names}; queries without an answer: {lacking}")
    slices, slice_code = _slices(raw_queries, raw, row, len(queries), queries_path, outcomes_path)
    by_card = prices is not None and bool(np.isnan(numbers["cost_usd"][keep]).all())
    if prices is not None and by_card:
        numbers["cost_usd"] = prices.cost_usd(names, numbers["input_tokens"], numbers["output_tokens"])
    cost, notes = _checked_cost(numbers["cost_usd"], keep, queries, names, outcomes_path)
    given = np.arange(len(names))
    order = given if keep_order else _tier_order(cost[keep], names, tiers, outcomes_path)
    latency = numbers["latency_s"]
    latency_note: tuple[str, ...] = ()
    if not partial_latency:
        latency, latency_note = _checked_latency(latency, keep, names)
    table = OutcomeTable(
        tiers=tuple(names[k] for k in order),
        queries=queries.take(keep),
        quality=quality[np.ix_(keep, order)],
        cost_usd=cost[np.ix_(keep, order)],
        latency_s=latency[np.ix_(keep, order)],
        ttft_s=numbers["ttft_s"][np.ix_(keep, order)],
        input_tokens=numbers["input_tokens"][np.ix_(keep, order)],
        output_tokens=numbers["output_tokens"][np.ix_(keep, order)],
        error=np.nan_to_num(cells.grid("error"))[np.ix_(keep, order)] > 0,
        slices=slices,
        slice_code=slice_code[keep],
        session=text_column(raw_queries, "session_id", queries_path)[keep]
        if "session_id" in raw_queries.column_names
        else None,
        turn=_turns(raw_queries, queries_path)[keep] if "turn" in raw_queries.column_names else None,
        source=f"recorded: {queries_path.name} + {outcomes_path.name}",
    )
    dropped = len(queries) - len(keep)
    by_tier = {name: int((~answered[:, k]).sum()) for k, name in enumerate(names)}
    notes += latency_note
    if dropped:
        notes += (f"{dropped} of {len(queries)} queries lack an answer of some tier and were left out ({by_tier}).",)
    if n_unmatched:
        notes += (f"{n_unmatched} outcome rows belong to no query of {queries_path.name} and were left out.",)
    if tiers is not None and [names[k] for k in order] != list(names):
        notes += (f"Tiers were reordered by mean billed cost per answer: {[names[k] for k in order]}.",)
    return Recording(
        table=table,
        n_dropped=dropped,
        dropped_by_tier=by_tier,
        n_unmatched=n_unmatched,
        notes=notes,
        priced_by_card=by_card,
    )


def _check_scores(score: FloatArray, queries: QueryBatch, names: list[str], path: Path) -> None:
    bad = ~np.isnan(score) & ~((score >= 0) & (score <= 1))
    if bad.any():
        row, tier = (int(i) for i in np.argwhere(bad)[0])
        raise InputDataError(
            f"column score of {path} must lie in [0, 1] (fractions, not per cent); query {queries.query_id[row]!s} on "
            f"{names[tier]} has {score[row, tier]:g} ({int(bad.sum())} such values)"
        )


def _tier_names(tiers: Sequence[str] | None, model: NDArray[np.str_], path: Path) -> list[str]:
    available = sorted(set(model.tolist()))
    if tiers is None:
        return available
    if len(tiers) == 0:
        raise InputDataError("data.tiers is empty; name the tiers, cheapest first, or give data.tiers=auto")
    unknown = [name for name in tiers if name not in available]
    if unknown:
        shown = ", ".join(available[:12]) + (", ..." if len(available) > 12 else "")
        raise InputDataError(f"tier(s) {unknown} do not occur as model in {path}; it has {shown}")
    if len(set(tiers)) < len(tiers):
        raise InputDataError(f"data.tiers names a tier twice: {list(tiers)}")
    return list(tiers)


def _match_queries(
    queries: QueryBatch, raw_queries: pa.Table, raw: pa.Table, queries_path: Path, outcomes_path: Path
) -> IntArray:
    """Row of each outcome's query, -1 where it has none."""
    known = queries.query_id.tolist()
    wanted = text_column(raw, "query_id", outcomes_path).tolist()
    if "slice" in raw.column_names and "slice" in raw_queries.column_names:
        keys = zip(text_column(raw_queries, "slice", queries_path).tolist(), known, strict=True)
        pairs = {key: i for i, key in enumerate(keys)}
        labels = text_column(raw, "slice", outcomes_path).tolist()
        return np.array([pairs.get(pair, -1) for pair in zip(labels, wanted, strict=True)], dtype=np.int64)
    index = {key: i for i, key in enumerate(known)}
    return np.array([index.get(key, -1) for key in wanted], dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """Where each outcome row belongs in the N x K grid."""

    row: IntArray
    tier: IntArray
    shape: tuple[int, int]
    raw: pa.Table
    path: Path

    def check_unique(self, queries: QueryBatch, names: list[str]) -> None:
        cell = self.row * self.shape[1] + self.tier
        values, counts = np.unique(cell[self.row >= 0], return_counts=True)
        if (counts > 1).any():
            row, tier = divmod(int(values[np.argmax(counts > 1)]), self.shape[1])
            raise InputDataError(
                f"{self.path} has several rows for query_id {str(queries.query_id[row])!r} and model {names[tier]!r}; "
                "keep one answer per query and tier"
            )

    def grid(self, name: str) -> FloatArray:
        out = np.full(self.shape, np.nan)
        if name in self.raw.column_names:
            matched = self.row >= 0
            out[self.row[matched], self.tier[matched]] = number_column(self.raw, name, self.path)[matched]
        return out


def _turns(raw: pa.Table, path: Path) -> IntArray:
    turns = number_column(raw, "turn", path)
    bad = ~(np.isfinite(turns) & (turns == np.floor(turns)) & (turns >= 0))
    if bad.any():
        raise InputDataError(
            f"column turn of {path} must hold whole numbers from 0; {bad.sum()} missing or other values"
        )
    return turns.astype(np.int64)


def _slices(
    raw_queries: pa.Table, raw: pa.Table, row: IntArray, n: int, queries_path: Path, outcomes_path: Path
) -> tuple[tuple[str, ...], IntArray]:
    if "slice" in raw_queries.column_names:
        labels = text_column(raw_queries, "slice", queries_path)
    elif "slice" in raw.column_names:
        labels = np.full(n, "unknown", dtype=object)
        matched = row >= 0
        labels[row[matched]] = text_column(raw, "slice", outcomes_path)[matched]
        labels = labels.astype(str)
    else:
        return ("all",), np.zeros(n, dtype=np.int64)
    names, code = np.unique(labels, return_inverse=True)
    return tuple(names.tolist()), code.astype(np.int64)


def _checked_cost(
    cost: FloatArray, keep: IntArray, queries: QueryBatch, names: list[str], path: Path
) -> tuple[FloatArray, tuple[str, ...]]:
    unknown = np.isnan(cost[keep])
    if unknown.all():
        return cost, ("No cost_usd in the outcomes: costs are unknown (name data.prices=FILE to price tokens).",)
    if unknown.any():
        row, tier = (int(i) for i in np.argwhere(unknown)[0])
        raise InputDataError(
            f"{path} lacks cost_usd for {int(unknown.sum())} of {unknown.size} answers, first for query "
            f"{queries.query_id[keep[row]]} on {names[tier]}; an unpriced answer is not free: fill it or drop the tier"
        )
    return cost, ()


def _checked_latency(latency: FloatArray, keep: IntArray, names: list[str]) -> tuple[FloatArray, tuple[str, ...]]:
    unknown = np.isnan(latency[keep])
    if unknown.all() or not unknown.any():
        return latency, ()
    lacking = {name: int(unknown[:, k].sum()) for k, name in enumerate(names) if unknown[:, k].any()}
    note = f"Latency counts as unknown: latency_s is missing for some answers ({lacking})."
    return np.full_like(latency, np.nan), (note,)


def _tier_order(cost: FloatArray, names: list[str], tiers: Sequence[str] | None, path: Path) -> IntArray:
    if np.isnan(cost).any():
        if tiers is None:
            raise InputDataError(
                f"data.tiers=auto orders tiers by mean billed cost, but {path} has none; name the tiers, cheapest first"
            )
        return np.arange(len(names))
    return np.argsort(cost.mean(axis=0), kind="stable")


def read_price_card(path: Path) -> PriceCard:
    """A price file with the columns `model, input_usd_per_mtok, output_usd_per_mtok`.

    Raises:
        InputDataError: If a column is missing or a price is not a positive finite number.
    """
    raw = read_columns(path)
    columns = ("input_usd_per_mtok", "output_usd_per_mtok")
    need_columns(raw, ["model", *columns], path)
    model = text_column(raw, "model", path).tolist()
    duplicate = first_duplicate(np.array(model))
    if duplicate is not None:
        raise InputDataError(f"{path} prices {duplicate!r} more than once; keep one row per model")
    cards: list[dict[str, float]] = []
    for name in columns:
        values = number_column(raw, name, path)
        bad = ~(np.isfinite(values) & (values > 0))
        if bad.any():
            at = int(np.argmax(bad))
            raise InputDataError(f"{path}: {name} of {model[at]} must be a positive price; got {values[at]}")
        cards.append(dict(zip(model, values.tolist(), strict=True)))
    return PriceCard(source=path.name, input_usd_per_mtok=cards[0], output_usd_per_mtok=cards[1])
