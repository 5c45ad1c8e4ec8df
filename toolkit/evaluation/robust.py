r"""Figures over the covered groups: the bound of the worst one, tails over groups, losses against a single tier.

All need no more than sums of `N x K` quantities over the queries of each group, so they are as exact as those sums.

The smallest of G lower bounds needs no correction for their number. With $L_g$ the bound of group g, $\mu_g$ its mean
and $w = \arg\min_g \mu_g$, which is fixed though unknown, $\min_g L_g > \mu_w$ implies $L_w > \mu_w$: the bound of the
worst group is wrong only if that one bound is, whatever G. The same holds for the largest of G upper bounds. Both are
bounds for *one* policy: of many policies, a search prefers those whose data flatter them, so what the tune split shows
is not yet evidence. Queries count as independent of each other.

Notation: n candidates, N queries, K tiers, G covered groups.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np

from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from toolkit.evaluation.slices import Coverage
from toolkit.statistics import DENSE, DISTINCT, SPARSE, bound_from_sums

LEVEL = 0.95
"""One-sided level of the bounds."""
_NOTHING = 1e-12
"""A loss up to this is the rounding of sums: a tier loses nothing to itself."""


@dataclass(frozen=True, kw_only=True)
class Ends:
    """The range of one query's value, and where the pseudo-observations of each group lie.

    Attributes:
        low, high: `G` each.
        pseudo: `G`, how many: fewer where the values show how far they reach.
        least, most: Ends of the possible range, such as 0 and 1.
    """

    low: FloatArray
    high: FloatArray
    pseudo: IntArray
    least: float
    most: float


_KNOWN: dict[tuple[int, int, int | None], Ends] = {}


def quality_ends(table: OutcomeTable, cover: Coverage) -> Ends:
    """Ends for means of quality: 0 and 1, unless a group's recorded qualities show how far they reach.

    They do where at least `DISTINCT` of the group's `N_g K` values differ from the most common one.
    """
    return _ends(table, cover, None)


def loss_ends(table: OutcomeTable, cover: Coverage, tier: int) -> Ends:
    """The same for means of the tier's quality minus that of any tier: -1 and 1, unless shown otherwise."""
    return _ends(table, cover, tier)


def _ends(table: OutcomeTable, cover: Coverage, tier: int | None) -> Ends:
    """Looked up once per table and coverage, and forgotten with them."""
    key = (id(table), id(cover), tier)
    if key not in _KNOWN:
        _KNOWN[key] = _look(table, cover, tier)
        for owner in (table, cover):
            weakref.finalize(owner, _KNOWN.pop, key, None).atexit = False
    return _KNOWN[key]


def _look(table: OutcomeTable, cover: Coverage, tier: int | None) -> Ends:
    values = table.quality if tier is None else table.quality[:, [tier]] - table.quality
    least = 0.0 if tier is None else -1.0
    group = cover.group_of_rows(table)
    found = [_range(values[group == g], least) for g in range(len(cover.groups))]
    low, high, pseudo = np.array(found).T
    return Ends(low=low, high=high, pseudo=pseudo.astype(np.int64), least=least, most=1.0)


def _range(values: FloatArray, least: float) -> tuple[float, float, int]:
    _, counts = np.unique(values, return_counts=True)
    if values.size - counts.max() < DISTINCT:
        return least, 1.0, SPARSE
    return float(values.min()), float(values.max()), DENSE


def lower_bounds(counts: IntArray, sums: FloatArray, squares: FloatArray, ends: Ends) -> FloatArray:
    """Lower bounds of the groups' means, each at `LEVEL`, never above the mean itself: `n x G`.

    Args:
        counts: `G` queries.
        sums, squares: `n x G` sums of the values and of their squares.
        ends: Where the pseudo-observations lie. One query alone shows nothing: its bound is `ends.least`.
    """
    lower, _ = _bounds(counts, sums, squares, ends)
    return np.where(counts > 1, np.clip(np.minimum(lower, sums / counts), ends.least, ends.most), ends.least)


def upper_bounds(counts: IntArray, sums: FloatArray, squares: FloatArray, ends: Ends) -> FloatArray:
    """Upper bounds of the groups' means, each at `LEVEL`, never below the mean itself: `n x G`; see `lower_bounds`."""
    _, upper = _bounds(counts, sums, squares, ends)
    return np.where(counts > 1, np.clip(np.maximum(upper, sums / counts), ends.least, ends.most), ends.most)


def _bounds(counts: IntArray, sums: FloatArray, squares: FloatArray, ends: Ends) -> tuple[FloatArray, FloatArray]:
    return bound_from_sums(
        np.maximum(counts, 2), sums, squares, low=ends.low, high=ends.high, pseudo=ends.pseudo, alpha=1.0 - LEVEL
    )


def cvar(means: FloatArray, counts: IntArray, share: float) -> FloatArray:
    """Mean over the worst `share` of the queries where each has its group's mean: the CVaR over groups, `n`.

    The last group counts in part, so that it goes from the worst group (share to 0) to the mean over all (share 1).

    Args:
        means: `n x G`.
        counts: `G` queries.
        share: In (0, 1].
    """
    order = np.argsort(means, axis=1, kind="stable")
    size, quota = counts[order], share * counts.sum()
    taken = np.clip(quota - (np.cumsum(size, axis=1) - size), 0.0, size) / quota
    return np.asarray(np.cumsum(taken * np.take_along_axis(means, order, axis=1), axis=1)[:, -1])


def cvar_of_means(means: FloatArray, counts: IntArray, share: float) -> float:
    """`cvar` of one policy, from its `G` means."""
    return float(cvar(means[None, :], counts, share)[0])


def clean(losses: FloatArray) -> FloatArray:
    """Losses with what is only rounding set to 0, so that `slice_loss:TIER <= 0` admits the tier itself."""
    return np.where(np.abs(losses) <= _NOTHING, 0.0, losses)
