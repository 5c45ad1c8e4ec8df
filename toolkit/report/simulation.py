"""What `routefront simulate` found, as plain records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from simulators.outcomes import FloatArray
from toolkit.evaluation.steady_state import SteadyEstimate


@dataclass(frozen=True, kw_only=True)
class Group:
    """Figures of some of the requests.

    Attributes:
        n: Requests, all replications together.
        figures: By name, such as `quality`, `cost_usd`, `latency_s.p95`, `ttft_s.mean`, `slo_share`, `error_share`,
            `fallback_share`, `retries`.
    """

    n: int
    figures: Mapping[str, SteadyEstimate]


@dataclass(frozen=True, kw_only=True)
class StationFigures:
    """One waiting line.

    Attributes:
        name: As in the scenario.
        slots: Requests served at once, or None: nobody waits.
        endless: Whether its line may grow for ever: no buffer, and somebody without a time-out.
        utilisation: Share of the slots' time that answers held.
        longest_line: Most attempts that waited at once, in any replication.
        attempts: Mean number per replication.
        lost: Reason -> share of the attempts that ended so; those that never happened are absent.
    """

    name: str
    slots: int | None
    endless: bool
    utilisation: SteadyEstimate
    longest_line: int
    attempts: float
    lost: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Checks:
    """What became of the checks of a tier's answers, as shares of the interactive requests that it answered.

    Attributes:
        done: Checked afterwards.
        corrected: Made better by it.
    """

    done: float
    corrected: float


@dataclass(frozen=True, kw_only=True)
class LoadFigures:
    """All figures at one load.

    Attributes:
        load: Factor of the arrival rates.
        requests: Mean number per replication after the warm-up.
        rate_per_s: Mean rate of arrivals.
        overall: All queries; latencies are those of interactive ones.
        by_class: `interactive`, and `batch` where there is batch traffic.
        by_slice, by_tier: By name; a request belongs to the tier it was sent to first.
        sent, served: Tier -> share of the requests that it was asked first, and that it answered.
        stations: J.
        ends: How requests ended -> share.
        capacity_usd: Fixed price of the capacity per query, batch queries counted, who pay none of it; contained in
            every `cost_usd` but theirs.
        checks: Tier -> the checks of its answers, where they are checked afterwards.
        success: Need -> share of the answers that need it and are expected to get it right, whoever gave them.
    """

    load: float
    requests: float
    rate_per_s: float
    overall: Group
    by_class: Mapping[str, Group]
    by_slice: Mapping[str, Group]
    by_tier: Mapping[str, Group]
    sent: Mapping[str, float]
    served: Mapping[str, float]
    stations: tuple[StationFigures, ...]
    ends: Mapping[str, float]
    capacity_usd: float
    checks: Mapping[str, Checks]
    success: Mapping[str, float]

    @property
    def undisturbed(self) -> bool:
        """Whether every request was answered by the tier it was sent to."""
        return self.overall.figures["error_share"].value == self.overall.figures["fallback_share"].value == 0.0

    @property
    def overloaded(self) -> tuple[StationFigures, ...]:
        """Stations whose line grows as long as the traffic lasts."""
        return tuple(s for s in self.stations if s.endless and s.utilisation.value >= 1.0)


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The first replication, window by window.

    Attributes:
        load: Of this replication.
        width_s: Length of a window.
        start_s: `W` starts.
        arrivals_per_min: `W`.
        p95_s: `W` p95 latency of the requests that arrived in the window and were answered; NaN where they are few.
        error_share: `W` share of those that failed; NaN where nobody came.
        warmup_s: Requests before it are not counted elsewhere.
        outages: Name, start and end.
        changes: Instants and what changes then.
    """

    load: float
    width_s: float
    start_s: FloatArray
    arrivals_per_min: FloatArray
    p95_s: FloatArray
    error_share: FloatArray
    warmup_s: float
    outages: tuple[tuple[str, float, float], ...]
    changes: tuple[tuple[float, str], ...]


@dataclass(frozen=True, kw_only=True)
class SimulationReport:
    """A policy on a scenario's traffic.

    Attributes:
        scenario: Name.
        policy: One line that says what routed.
        tiers: K names, cheapest first.
        tier_shares: Share of the queries that the policy sends to each.
        slo_s: Limit of the service level.
        replications, seed: As asked.
        n_queries: Rows of each replication's table.
        duration_s, warmup_s: Of the traffic.
        seconds: What the simulation took.
        loads: By rising load.
        timeline: At the load nearest 1.
        success: Need -> tier -> probability that an answer gets it right, as the scenario states it.
        notes: Sentences.
    """

    scenario: str
    policy: str
    tiers: tuple[str, ...]
    tier_shares: Mapping[str, float]
    slo_s: float
    replications: int
    seed: int
    n_queries: int
    duration_s: float
    warmup_s: float
    seconds: float
    loads: tuple[LoadFigures, ...]
    timeline: Timeline
    success: Mapping[str, Mapping[str, float]]
    notes: tuple[str, ...]

    @property
    def main(self) -> LoadFigures:
        """The load nearest 1."""
        return self.loads[nearest_one([found.load for found in self.loads])]


def nearest_one(loads: list[float]) -> int:
    """Position of the load nearest 1, by ratio."""
    return min(range(len(loads)), key=lambda i: (abs(math.log(loads[i])), loads[i]))
