"""How a scenario's traffic and its tiers fit together: names that must exist, and second stages and modes filled in.

Where traffic names a tier with thinking modes, it means all of its modes; a mode's own entry goes first.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

from simulators.tiers import Problem, TierSpec, arms, names_of_arms
from simulators.traffic import ConductSpec, StationSpec, TrafficSpec


def filled_in(traffic: TrafficSpec, tiers: Mapping[str, TierSpec]) -> TrafficSpec:
    """Traffic by arm instead of by tier, with the stations that modes share and the second stages."""
    conduct = _by_arm(traffic, tiers)
    used = {spec.station for spec in conduct.values()}
    shared = [name for name, tier in tiers.items() if tier.modes and name in used]
    return traffic.model_copy(
        update={
            "tiers": conduct,
            "stations": {**dict.fromkeys(shared, StationSpec()), **traffic.stations},
            "second": {name: tier.second for name, tier in arms(tiers).items() if tier.second is not None},
        }
    )


def station_of(traffic: TrafficSpec, arm: str) -> str:
    """Name of the station of an arm, in traffic that is filled in."""
    return traffic.tiers.get(arm, ConductSpec()).station or arm


def _by_arm(traffic: TrafficSpec, tiers: Mapping[str, TierSpec]) -> dict[str, ConductSpec]:
    found = {}
    for name, names in names_of_arms(tiers).items():
        for arm in names:
            spec = traffic.tiers.get(arm, traffic.tiers.get(name, ConductSpec()))
            shared = spec.station is None and arm != name
            found[arm] = spec.model_copy(update={"station": name}) if shared else spec
    return found


def traffic_problems(traffic: TrafficSpec, tiers: Mapping[str, TierSpec]) -> list[Problem]:
    """What `traffic` says of tiers and stations that there are not, or that cannot be."""
    found = [*_tier_problems(traffic, tiers), *_router_problems(traffic, tiers)]
    if not found:  # only with known tiers can stations be looked up
        found = [*_station_problems(traffic, tiers), *_outage_problems(traffic, tiers)]
    return [(("traffic", *path), expected, came) for path, expected, came in found]


def _tier_problems(traffic: TrafficSpec, tiers: Mapping[str, TierSpec]) -> Iterator[Problem]:
    names = list(arms(tiers))
    if traffic.second:
        yield ("second",), "expected second stages under tiers.NAME.second", list(traffic.second)
    for name, spec in traffic.tiers.items():
        if name not in {*names, *tiers}:
            yield ("tiers", name), f"expected conduct of one of the tiers {', '.join(names)}", name
        if spec.fallback is not None and spec.fallback not in names:
            yield ("tiers", name, "fallback"), f"expected one of the tiers {', '.join(names)}", spec.fallback
        if spec.fallback is not None and spec.fallback in names_of_arms(tiers).get(name, (name,)):
            yield ("tiers", name, "fallback"), "expected another tier than the one that failed", spec.fallback


def _router_problems(traffic: TrafficSpec, tiers: Mapping[str, TierSpec]) -> Iterator[Problem]:
    names = list(arms(tiers))
    if traffic.router.on_outage not in {"fail", *names}:
        yield ("router", "on_outage"), f"expected fail or one of {', '.join(names)}", traffic.router.on_outage


def _station_problems(traffic: TrafficSpec, tiers: Mapping[str, TierSpec]) -> Iterator[Problem]:
    full = filled_in(traffic, tiers)
    used = {arm: station_of(full, arm) for arm in arms(tiers)}
    for name, spec in traffic.tiers.items():
        if spec.station not in {None, name, *full.stations}:
            known = _names({name, *full.stations})
            yield ("tiers", name, "station"), f"expected one of the stations {known}", spec.station
    for name, station in traffic.stations.items():
        if name not in used.values():
            yield ("stations", name), "expected the station of some tier; name it in traffic.tiers", name
        if station.requests_per_min is not None and station.requests_per_min < 1:
            path = ("stations", name, "requests_per_min")
            yield path, "expected at least 1, or no request ever passes", station.requests_per_min


def _outage_problems(traffic: TrafficSpec, tiers: Mapping[str, TierSpec]) -> Iterator[Problem]:
    full = filled_in(traffic, tiers)
    known = {*full.stations, *(station_of(full, arm) for arm in arms(tiers))}
    for i, outage in enumerate(traffic.outages):
        for station in outage.stations:
            if station not in known:
                yield ("outages", i, "stations"), f"expected some of {_names(known)}", station
    for station in sorted(known):
        spans = sorted((o.start_s, o.end_s) for o in traffic.outages if station in o.stations)
        for (_, end), (start, _) in itertools.pairwise(spans):
            if start < end:
                came = f"one that starts at {start:g} s before another ends at {end:g} s"
                yield ("outages",), f"expected outages of {station} that do not overlap", came


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
