"""From journeys to figures: per request, per group of requests, over replications or batches.

A failed request has quality 0, misses the service level and has no latency; what its attempts cost counts. Batch
queries wait for nothing: their figures come straight from the table.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simulators.journeys import Journeys
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.world import REASONS, SERVED, World
from toolkit.evaluation.steady_state import (
    Bounds,
    SteadyEstimate,
    batch_mean,
    batch_quantile,
    over_replications,
)
from toolkit.report.simulation import Group, StationFigures

CHOSEN, FELL_BACK = "answered by the chosen tier", "answered after a fallback"
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_SHARE: Bounds = (0.0, 1.0)
_POSITIVE: Bounds = (0.0, np.inf)
_MOST_REPEATED = 0.05
_LOST = tuple(r for r in range(len(REASONS)) if r != SERVED)
NEVER_FULL = SteadyEstimate(value=np.nan, note="no limit of slots")
Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Requests:
    """What became of M requests, in order of arrival: `M` values each.

    Attributes:
        quality: 0 where the request failed.
        cost_usd: All attempts.
        latency_s, ttft_s: Of answered requests; else meaningless.
        answered: Whether there was an answer.
        sent, served: Tier asked first, tier that answered; -1: none.
        retries: Attempts beyond those that an undisturbed answer takes.
        reason: Of `simulators.world`.
        slice_code: Of the query.
        checked: False where the answer was to be checked afterwards and was not.
        corrected: Whether a check made the answer better.
    """

    quality: FloatArray
    cost_usd: FloatArray
    latency_s: FloatArray
    ttft_s: FloatArray
    answered: NDArray[np.bool_]
    sent: IntArray
    served: IntArray
    retries: IntArray
    reason: IntArray
    slice_code: IntArray
    checked: NDArray[np.bool_]
    corrected: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.quality)

    def take(self, chosen: NDArray[np.bool_]) -> Requests:
        """Those that are chosen."""
        return Requests(**{f.name: getattr(self, f.name)[chosen] for f in dataclasses.fields(self)})


def counted_requests(table: OutcomeTable, world: World, journeys: Journeys, candidate: int = 0) -> Requests:
    """The requests of one candidate after the warm-up."""
    kept = world.counted
    row = world.row[kept]
    served = journeys.served[candidate, kept].astype(np.int64)
    answered = served >= 0
    stages = np.array([2 if rule.second >= 0 else 1 for rule in world.rules])
    needed = np.where(answered, stages[np.maximum(served, 0)], 1)
    checked = journeys.checked[candidate, kept]
    return Requests(
        quality=journeys.quality(table.quality, world.row, table.unchecked)[candidate, kept],
        cost_usd=journeys.cost_usd[candidate, kept],
        latency_s=journeys.e2e_s[candidate, kept],
        ttft_s=journeys.ttft_s[candidate, kept],
        answered=answered,
        sent=journeys.tier[candidate, kept].astype(np.int64),
        served=served,
        retries=np.maximum(journeys.attempts[candidate, kept].astype(np.int64) - needed, 0),
        reason=journeys.reason[candidate, kept].astype(np.int64),
        slice_code=table.slice_code[row],
        checked=checked,
        corrected=answered & checked & _improved(table, row, np.maximum(served, 0)),
    )


def _improved(table: OutcomeTable, row: IntArray, tier: IntArray) -> NDArray[np.bool_]:
    """Whether a check makes these answers better."""
    if table.unchecked is None:
        return np.zeros(len(row), dtype=np.bool_)
    return np.asarray(table.quality[row, tier] > table.unchecked[row, tier])


def batch_requests(table: OutcomeTable, tier: IntArray, delay_s: float) -> Requests | None:
    """The table's batch queries (`tier: N`), which wait `delay_s` and for nobody; None where there are none."""
    if table.batch is None or not table.batch.any():
        return None
    row = np.flatnonzero(table.batch)
    to = tier[row].astype(np.int64)
    nothing = np.zeros(len(row), dtype=np.int64)
    return Requests(
        quality=table.quality[row, to],
        cost_usd=table.cost_usd[row, to],
        latency_s=table.latency_s[row, to] + delay_s,
        ttft_s=table.ttft_s[row, to] + delay_s,
        answered=np.ones(len(row), dtype=np.bool_),
        sent=to,
        served=to,
        retries=nothing,
        reason=nothing + SERVED,
        slice_code=table.slice_code[row],
        checked=np.ones(len(row), dtype=np.bool_),
        corrected=_improved(table, row, to),
    )


@dataclass(frozen=True, kw_only=True)
class Series:
    """One figure of one replication: `scale` x (mean or quantile of `values`) + `plus`.

    Attributes:
        values: In order of arrival.
        quantile: Which, or None for the mean.
        scale, plus: For figures over several kinds of traffic, and for fixed costs.
        bounds: Range of possible values.
    """

    values: FloatArray
    quantile: float | None = None
    scale: float = 1.0
    plus: float = 0.0
    bounds: Bounds = _POSITIVE

    def value(self) -> float:
        """The figure; NaN without values."""
        if len(self.values) == 0:
            return np.nan
        plain = self.values.mean() if self.quantile is None else np.quantile(self.values, self.quantile)
        return self.scale * float(plain) + self.plus

    def estimate(self) -> SteadyEstimate:
        """The figure with an interval over batches of this one replication."""
        if self.scale != 1.0:
            return SteadyEstimate(value=self.value(), note="with batch queries an interval takes replications")
        found = batch_mean(self.values) if self.quantile is None else batch_quantile(self.values, self.quantile)
        low, high = np.clip([found.low + self.plus, found.high + self.plus], *self.bounds)
        return dataclasses.replace(found, value=found.value + self.plus, low=float(low), high=float(high))


def series_of(requests: Requests, *, slo_s: float | None, capacity_usd: float = 0.0) -> dict[str, Series]:
    """The figures of some requests by name; without `slo_s` there is no service level."""
    answered = requests.answered
    latency_s, ttft_s = requests.latency_s[answered], requests.ttft_s[answered]
    found = {
        "quality": Series(values=requests.quality, bounds=_SHARE),
        "cost_usd": Series(values=requests.cost_usd, plus=capacity_usd),
        **_times("latency_s", latency_s),
    }
    if np.isfinite(ttft_s).all():
        found |= _times("ttft_s", ttft_s)
    if slo_s is not None:
        found["slo_share"] = _share(answered & (requests.latency_s <= slo_s))
    found["error_share"] = _share(~answered)
    found["fallback_share"] = _share(answered & (requests.served != requests.sent))
    found["retries"] = Series(values=requests.retries.astype(np.float64))
    return found


def tier_shares(requests: Requests, tiers: tuple[str, ...]) -> dict[str, Series]:
    """Share of the requests that each tier was asked first."""
    return {f"tier_shares.{name}": _share(requests.sent == code) for code, name in enumerate(tiers)}


def _times(name: str, seconds: FloatArray) -> dict[str, Series]:
    quantiles = {f"{name}.{label}": Series(values=seconds, quantile=q) for label, q in _QUANTILES.items()}
    return {f"{name}.mean": Series(values=seconds), **quantiles}


def _share(hit: NDArray[np.bool_]) -> Series:
    return Series(values=hit.astype(np.float64), bounds=_SHARE)


def with_batch(found: dict[str, Series], batch: Requests, share: float) -> dict[str, Series]:
    """Quality and cost over interactive and batch queries together, `share` of them batch; the rest as it is."""
    mixed = dict(found)
    for name, values in (("quality", batch.quality), ("cost_usd", batch.cost_usd)):
        plus = (1.0 - share) * found[name].plus + share * float(values.mean())
        mixed[name] = dataclasses.replace(found[name], scale=1.0 - share, plus=plus)
    return mixed


@dataclass(kw_only=True)
class Ledger:
    """Figures of one load, replication by replication.

    Attributes:
        replications: How many will come; one alone gets intervals over batches.
    """

    replications: int
    _values: dict[Key, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    _single: dict[Key, dict[str, SteadyEstimate]] = field(default_factory=dict)
    _bounds: dict[str, Bounds] = field(default_factory=dict)
    _n: dict[Key, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, key: Key, n: int, series: dict[str, Series], *, repeated: float = 0.0) -> None:
        """Note one replication's figures of one group.

        Args:
            key: Kind and name of the group.
            n: Its requests.
            series: By name.
            repeated: Share of the requests that ask a query that was asked before.
        """
        self._n[key] += n
        for name, one in series.items():
            self._values[key][name].append(one.value())
            self._bounds[name] = one.bounds
        if self.replications == 1:
            self._single[key] = {name: _alone(one, repeated) for name, one in series.items()}

    def group(self, key: Key) -> Group:
        """The figures of one group over all replications."""
        if self.replications == 1:
            return Group(n=self._n[key], figures=self._single[key])
        figures = {
            name: over_replications(np.array(values), bounds=self._bounds[name])
            for name, values in self._values[key].items()
        }
        return Group(n=self._n[key], figures=figures)

    def groups(self, kind: str, order: tuple[str, ...]) -> dict[str, Group]:
        """All groups of a kind, in a given order of names."""
        return {name: self.group((kind, name)) for name in order if (kind, name) in self._values}


def _alone(one: Series, repeated: float) -> SteadyEstimate:
    if repeated > _MOST_REPEATED:
        return SteadyEstimate(
            value=one.value(), note="queries are asked again and again in this run; give replications=8, or n_queries"
        )
    return one.estimate()


def repeated_share(world: World) -> float:
    """Share of the counted requests that ask a query that was asked before."""
    row = world.row[world.counted]
    return 1.0 - len(np.unique(row)) / max(len(row), 1)


def ends_of(requests: Requests) -> dict[str, float]:
    """How requests ended -> share of them."""
    n = max(len(requests), 1)
    fell_back = int((requests.answered & (requests.served != requests.sent)).sum())
    ends = {CHOSEN: int(requests.answered.sum()) - fell_back, FELL_BACK: fell_back}
    for code in _LOST:
        ends[f"failed: {REASONS[code]}"] = int((~requests.answered & (requests.reason == code)).sum())
    return {name: count / n for name, count in ends.items()}


@dataclass(frozen=True, kw_only=True)
class StationCount:
    """What the J stations saw in one replication: `used: J`, `outcomes: J x 7`, `longest: J`."""

    used: FloatArray
    outcomes: IntArray
    longest: IntArray


def station_count(world: World, journeys: Journeys) -> StationCount:
    """The stations under the only candidate of some journeys."""
    return StationCount(
        used=journeys.utilisation(world)[0], outcomes=journeys.outcomes[0], longest=journeys.longest_line[0]
    )


def station_figures(world: World, counts: list[StationCount]) -> tuple[StationFigures, ...]:
    """One station after the other, over all replications of one load."""
    outcomes = np.mean([c.outcomes for c in counts], axis=0)
    found = []
    for j, station in enumerate(world.stations):
        endless = any(np.isinf(rule.timeout_s) for rule in world.rules if rule.station == j)
        total = float(outcomes[j].sum())
        used = np.array([c.used[j] for c in counts])
        found.append(
            StationFigures(
                name=station.name,
                slots=station.slots,
                endless=station.slots is not None and station.buffer is None and endless,
                utilisation=over_replications(used, bounds=_POSITIVE) if station.slots else NEVER_FULL,
                longest_line=max(int(c.longest[j]) for c in counts),
                attempts=total,
                lost={REASONS[r]: float(outcomes[j, r]) / total for r in _LOST if outcomes[j, r] > 0},
            )
        )
    return tuple(found)
