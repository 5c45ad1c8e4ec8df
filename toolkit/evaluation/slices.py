"""Which slices count: small ones are merged into `other`, so that no worst case rests on a handful of queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.outcomes import IntArray, OutcomeTable

OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Covered groups of a table.

    Attributes:
        groups: G names of covered groups: slices with enough queries, then `other` if it has enough.
        group_of_slice: `S`, index of each slice's group, -1 where it is in none.
        counts: `S` queries per slice.
        merged: Slices merged into `other`.
        minimum: The minimum number of queries.
        other: Name of the merged group, or None if there is none or it is too small.
    """

    groups: tuple[str, ...]
    group_of_slice: IntArray
    counts: IntArray
    merged: tuple[str, ...]
    minimum: int
    other: str | None


def coverage(table: OutcomeTable, minimum: int) -> Coverage:
    """Group the slices of `table`; a slice without any query is in no group."""
    counts = np.bincount(table.slice_code, minlength=len(table.slices))
    large = counts >= minimum
    group = np.full(len(counts), -1, dtype=np.int64)
    group[large] = np.arange(large.sum())
    names = [name for name, big in zip(table.slices, large, strict=True) if big]
    small, other = ~large & (counts > 0), None
    if small.any() and counts[small].sum() >= minimum:
        group[small] = len(names)
        other = OTHER if OTHER not in table.slices else f"{OTHER} (merged)"
        names.append(other)
    merged = tuple(name for name, is_small in zip(table.slices, small, strict=True) if is_small)
    return Coverage(
        groups=tuple(names), group_of_slice=group, counts=counts, merged=merged, minimum=minimum, other=other
    )
