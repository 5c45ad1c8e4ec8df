"""Which slices count: small ones are merged, so that no worst case rests on a handful of queries.

A slice name may carry its parents: `math/algebra` belongs to `math`. A small slice is merged with other small ones of
its nearest parent that then reaches the minimum, else into `other`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.outcomes import IntArray, OutcomeTable

OTHER = "other"
_LEVEL = "/"


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Covered groups of a table.

    Attributes:
        groups: G names of covered groups: slices with enough queries, merged parents, then `other` if it has enough.
        group_of_slice: `S`, index of each slice's group, -1 where it is in none.
        counts: `S` queries per slice.
        merged: Slices too small to stand alone.
        minimum: The minimum number of queries.
        other: Name of the group of what no parent could take, or None if there is none or it is too small.
    """

    groups: tuple[str, ...]
    group_of_slice: IntArray
    counts: IntArray
    merged: tuple[str, ...]
    minimum: int
    other: str | None

    def group_of_rows(self, table: OutcomeTable) -> IntArray:
        """`N` group of each query, -1 where it is in none."""
        return self.group_of_slice[table.slice_code]

    def merged_into(self, table: OutcomeTable) -> dict[str, str | None]:
        """Merged slice -> the group that judges it, or None where nothing does."""
        index = {name: int(self.group_of_slice[table.slices.index(name)]) for name in self.merged}
        return {name: self.groups[g] if g >= 0 else None for name, g in index.items()}


def coverage(table: OutcomeTable, minimum: int) -> Coverage:
    """Group the slices of `table`; a slice without any query is in no group."""
    counts = np.bincount(table.slice_code, minlength=len(table.slices))
    large = counts >= minimum
    group = np.full(len(counts), -1, dtype=np.int64)
    group[large] = np.arange(large.sum())
    names = [name for name, big in zip(table.slices, large, strict=True) if big]
    small, other = ~large & (counts > 0), None
    left = small.copy()
    for parent in _parents([name for name, is_small in zip(table.slices, small, strict=True) if is_small]):
        inside = left & np.array([name.startswith(parent + _LEVEL) or name == parent for name in table.slices])
        if counts[inside].sum() >= minimum:
            group[inside], left = len(names), left & ~inside
            names.append(_free_name(parent, (*table.slices, *names)))
    if left.any() and counts[left].sum() >= minimum:
        group[left] = len(names)
        other = _free_name(OTHER, (*table.slices, *names))
        names.append(other)
    merged = tuple(name for name, is_small in zip(table.slices, small, strict=True) if is_small)
    return Coverage(
        groups=tuple(names), group_of_slice=group, counts=counts, merged=merged, minimum=minimum, other=other
    )


def _parents(names: list[str]) -> list[str]:
    """All parents of these slices, the deepest first, then by name."""
    found = {_LEVEL.join(parts[:i]) for parts in (name.split(_LEVEL) for name in names) for i in range(1, len(parts))}
    return sorted(found - {""}, key=lambda parent: (-parent.count(_LEVEL), parent))


def _free_name(name: str, taken: tuple[str, ...]) -> str:
    while name in taken:
        name = f"{name} (merged)"
    return name
