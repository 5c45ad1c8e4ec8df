"""The one data structure: what every tier would have answered to every query.

Notation: N queries, K tiers in order of mean billed cost per answer (0 = cheapest), S slices.
A recording and a scenario both end here, and nothing downstream can tell them apart.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from simulators.errors import InputDataError

_MOST_LINKED = 0.1
_PER_CELL = (
    *("quality", "cost_usd", "latency_s", "ttft_s", "input_tokens", "output_tokens", "error"),
    *("occupied_s", "router_cost_usd", "unchecked"),
)
_PER_QUERY = (*_PER_CELL, "slice_code", "session", "turn", "batch", "asked_s", "router_delay_s")

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class QueryBatch:
    """What a router may look at: no outcome, so that a label can never reach a score.

    Attributes:
        query_id: `N` identifiers.
        prompt: `N` texts, or None where the source has none.
        signals: Name -> `N` numeric router signals; NaN where a query lacks one.
        slice: `N` slice names that the router knows beforehand (a tenant, a route), or None.
    """

    query_id: NDArray[np.str_]
    prompt: tuple[str, ...] | None
    signals: Mapping[str, FloatArray]
    slice: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.query_id)

    def take(self, rows: IntArray) -> QueryBatch:
        """The queries at `rows`, in that order."""
        return QueryBatch(
            query_id=self.query_id[rows],
            prompt=None if self.prompt is None else tuple(self.prompt[i] for i in rows),
            signals={name: values[rows] for name, values in self.signals.items()},
            slice=None if self.slice is None else self.slice[rows],
        )


@dataclass(frozen=True, kw_only=True)
class OutcomeTable:
    """Potential outcomes of N queries on K tiers.

    Attributes:
        tiers: K names, cheapest mean cost per answer first.
        queries: The N queries as a router sees them.
        quality: `N x K` in [0, 1].
        cost_usd: `N x K` billed USD of that one answer; all NaN where unknown.
        latency_s: `N x K` end to end without contention, seconds; all NaN where unknown.
        ttft_s: `N x K` time to first visible token without contention; all NaN where unknown.
        input_tokens: `N x K` billed; NaN where unknown.
        output_tokens: `N x K` billed, hidden reasoning included; NaN where unknown.
        error: `N x K`, True where the tier failed.
        slices: S slice names, sorted.
        slice_code: `N` indices into `slices`.
        session: `N` session identifiers, or None.
        turn: `N` positions within the session, or None.
        source: One line that says where the rows came from.
        occupied_s: `N x K` time for which an answer holds a slot of its tier, or None: as long as it takes.
        batch: `N`, True where nobody waits for the answer (batch traffic: no slots, own price), or None: never.
        asked_s: `N` instants since which the world has been as these rows say (a drifting scenario), or None: always.
        router_delay_s: `N` seconds of the router itself, contained in `latency_s` and `ttft_s`, or None: not known.
        router_cost_usd: `N x K` USD of the router itself, contained in `cost_usd`, or None: not known.
        alone: The single tiers where all traffic on one of them meets something else than these rows say (load), as a
            table of the same queries; None: they are as these rows say.
        fixed_usd: USD per query for capacity that is paid whatever the routing, contained in `cost_usd`.
        unchecked: `N x K` quality without the check that another tier makes afterwards, or None: there are no checks.
    """

    tiers: tuple[str, ...]
    queries: QueryBatch
    quality: FloatArray
    cost_usd: FloatArray
    latency_s: FloatArray
    ttft_s: FloatArray
    input_tokens: FloatArray
    output_tokens: FloatArray
    error: NDArray[np.bool_]
    slices: tuple[str, ...]
    slice_code: IntArray
    session: NDArray[np.str_] | None = None
    turn: IntArray | None = None
    source: str = ""
    occupied_s: FloatArray | None = None
    batch: NDArray[np.bool_] | None = None
    asked_s: FloatArray | None = None
    router_delay_s: FloatArray | None = None
    router_cost_usd: FloatArray | None = None
    alone: OutcomeTable | None = None
    fixed_usd: float = 0.0
    unchecked: FloatArray | None = None
    _hash: list[str] = field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        n, k = self.n_queries, self.n_tiers
        if k < 2:
            raise InputDataError(f"a router needs at least two tiers; got {list(self.tiers)}")
        if len(set(self.tiers)) < k:
            raise InputDataError(f"tiers must be distinct; got {list(self.tiers)}")
        if n == 0:
            raise InputDataError("the table holds no query that all tiers answered")
        for name in ("quality", "cost_usd", "latency_s", "ttft_s", "input_tokens", "output_tokens", "error"):
            shape = getattr(self, name).shape
            if shape != (n, k):
                raise InputDataError(f"{name} must have shape {(n, k)}; got {shape}")
        self._check_range("quality", 0.0, 1.0, missing_allowed=False)
        for name in ("cost_usd", "latency_s", "ttft_s", "input_tokens", "output_tokens"):
            self._check_range(name, 0.0, np.inf, missing_allowed=True)

    def _check_range(self, name: str, low: float, high: float, *, missing_allowed: bool) -> None:
        values = getattr(self, name)
        bad = ~((values >= low) & (values <= high) & np.isfinite(values))
        if missing_allowed:
            bad &= ~np.isnan(values)
        if bad.any():
            row, tier = (int(i) for i in np.argwhere(bad)[0])
            limits = f"in [{low:g}, {high:g}]" if np.isfinite(high) else "finite and not negative"
            raise InputDataError(
                f"{name} must be {limits}; query {self.queries.query_id[row]!s} on tier {self.tiers[tier]} has "
                f"{values[row, tier]} ({int(bad.sum())} such values); correct or drop these rows"
            )

    @property
    def n_queries(self) -> int:
        """N."""
        return len(self.queries)

    @property
    def n_tiers(self) -> int:
        """K."""
        return len(self.tiers)

    @property
    def has_cost(self) -> bool:
        """Whether every answer has a known cost."""
        return bool(np.isfinite(self.cost_usd).all())

    @property
    def has_latency(self) -> bool:
        """Whether every answer has a known latency."""
        return bool(np.isfinite(self.latency_s).all())

    @property
    def hold_s(self) -> FloatArray:
        """`N x K` time for which an answer holds a slot, seconds."""
        return self.bare.latency_s if self.occupied_s is None else self.occupied_s

    @cached_property
    def bare(self) -> OutcomeTable:
        """The answers without the router's own time and money: what single tiers would have given and cost."""
        if self.alone is not None:
            return self.alone
        if self.router_delay_s is None and self.router_cost_usd is None:
            return self
        delay = np.zeros(self.n_queries) if self.router_delay_s is None else self.router_delay_s
        cost = np.zeros(self.cost_usd.shape) if self.router_cost_usd is None else self.router_cost_usd
        return dataclasses.replace(
            self,
            latency_s=np.maximum(self.latency_s - delay[:, None], 0.0),
            ttft_s=np.maximum(self.ttft_s - delay[:, None], 0.0),
            cost_usd=np.maximum(self.cost_usd - cost, 0.0),
            router_delay_s=None,
            router_cost_usd=None,
            _hash=[],
        )

    def with_router(self, *, delay_s: FloatArray, cost_usd: FloatArray) -> OutcomeTable:
        """The same answers behind a router that takes `delay_s: N` and costs `cost_usd: N x K` (by the tier chosen)."""
        table = self.bare
        return dataclasses.replace(
            table,
            latency_s=table.latency_s + delay_s[:, None],
            ttft_s=table.ttft_s + delay_s[:, None],
            cost_usd=table.cost_usd + cost_usd,
            occupied_s=table.hold_s,
            router_delay_s=delay_s,
            router_cost_usd=cost_usd,
            _hash=[],
        )

    @cached_property
    def prompt_code(self) -> IntArray:
        """`N` codes: queries with the same prompt (the same identifier, where there are no prompts) share one."""
        keys = self.queries.prompt if self.queries.prompt is not None else self.queries.query_id.tolist()
        codes: dict[str, int] = {}
        return np.array([codes.setdefault(key, len(codes)) for key in keys], dtype=np.int64)

    @cached_property
    def cluster_code(self) -> IntArray:
        """`N` codes of queries that depend on each other: those of one session; of one prompt where none is known."""
        if self.session is None:
            return self.prompt_code
        known, prompts = self.session != "", int(self.prompt_code.max()) + 1
        sessions = np.unique(self.session, return_inverse=True)[1].astype(np.int64)
        return np.where(known, prompts + sessions, self.prompt_code)

    @cached_property
    def split_code(self) -> IntArray:
        """`N` codes of queries that must fall on the same side of a split: one session or one prompt, however linked.

        Where common prompts would link more than `_MOST_LINKED` of the queries to each other, sessions alone count.
        """
        if self.session is None:
            return self.prompt_code
        clusters, prompts = self.cluster_code, self.prompt_code
        first = int(clusters.max()) + 1
        size = first + int(prompts.max()) + 1
        links = sparse.coo_matrix(
            (np.ones(self.n_queries, dtype=np.float64), (clusters, first + prompts)), (size, size)
        )
        component = np.asarray(csgraph.connected_components(links, directed=False)[1], dtype=np.int64)[clusters]
        largest = np.unique(component, return_counts=True)[1].max()
        return component if largest <= _MOST_LINKED * self.n_queries else clusters

    @property
    def data_hash(self) -> str:
        """SHA-256 over tiers, queries and outcomes: what a result was computed from."""
        if not self._hash:
            digest = hashlib.sha256()
            for texts in (self.tiers, self.slices, self.queries.query_id.tolist(), self.queries.prompt or ()):
                digest.update(f"{len(texts)}:".encode())
                for text in texts:
                    part = text.encode("utf-8", "surrogatepass")
                    digest.update(f"{len(part)}:".encode() + part)
            for name in sorted(self.queries.signals):
                digest.update(f"{len(name)}:{name}".encode())
                digest.update(np.ascontiguousarray(self.queries.signals[name]).tobytes())
            for values in (self.quality, self.cost_usd, self.latency_s, self.slice_code):
                digest.update(np.ascontiguousarray(values).tobytes())
            for name in ("occupied_s", "batch", "asked_s"):  # only where known: older tables keep their hash
                known = getattr(self, name)
                if known is not None:
                    digest.update(f"{name}:".encode() + np.ascontiguousarray(known).tobytes())
            self._hash.append(digest.hexdigest())
        return self._hash[0]

    def take(self, rows: IntArray) -> OutcomeTable:
        """The sub-table of the queries at `rows`; slice names stay as they are."""
        known = [name for name in _PER_QUERY if getattr(self, name) is not None]
        return dataclasses.replace(
            self,
            queries=self.queries.take(rows),
            alone=None if self.alone is None else self.alone.take(rows),
            _hash=[],
            **{name: getattr(self, name)[rows] for name in known},
        )

    def take_tiers(self, order: IntArray) -> OutcomeTable:
        """The same queries with the tiers at `order`, in that order."""
        known = [name for name in _PER_CELL if getattr(self, name) is not None]
        return dataclasses.replace(
            self,
            tiers=tuple(self.tiers[k] for k in order),
            alone=None if self.alone is None else self.alone.take_tiers(order),
            _hash=[],
            **{name: getattr(self, name)[:, order] for name in known},
        )


def split_by_prompt(
    table: OutcomeTable, fractions: Mapping[str, float], rng: np.random.Generator
) -> dict[str, IntArray]:
    """Row indices of each split; queries of one session, or with one prompt, fall on the same side (`split_code`).

    Args:
        table: The queries to split.
        fractions: Split name -> share of the distinct prompts, each positive, summing to at most 1.
        rng: Source of the permutation.

    Returns:
        Split name -> sorted row indices; the rest (1 - sum) is in none.

    Raises:
        InputDataError: If a split would hold no query.
    """
    group = np.unique(table.split_code, return_inverse=True)[1]
    order = rng.permutation(int(group.max()) + 1)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    edges = np.round(np.cumsum([0.0, *fractions.values()]) * len(order)).astype(int)
    splits = {}
    for (name, share), low, high in zip(fractions.items(), edges[:-1], edges[1:], strict=True):
        rows = np.flatnonzero((rank[group] >= low) & (rank[group] < high))
        if len(rows) == 0:
            raise InputDataError(
                f"the {name} split (share {share:g} of {len(order)} distinct prompts) holds no query; give more data"
            )
        splits[name] = rows
    return splits
