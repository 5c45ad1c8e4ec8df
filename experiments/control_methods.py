"""The methods of `routefront control`: their settings, and what each of them meets in an episode."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from experiments.control_settings import Method
from experiments.control_traffic import Site
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray
from toolkit.baselines.window_assignment import Assignment, make_bins
from toolkit.baselines.window_front import not_dominated
from toolkit.baselines.window_rules import IndexRule, Pacing, station_holds
from toolkit.baselines.windows import Rule, Service

PACING = ("budget_pacing", "latency_pacing", "queue_pacing")
_SPARE_QUALITY = (0.0, 0.01, 0.02)  # of the points that pacing starts from, above the floor
_SPARE_COST = (1.1, 2.5, 6.0)  # times the cheapest static point of that quality
_TARGETS = {
    "budget_pacing": (0.6, 0.8, 0.9),  # of the starting point's own cost
    "latency_pacing": (0.02, 0.05, 0.1),  # late share
    "queue_pacing": (3.0, 10.0, 20.0),  # seconds of wait
}
_SHIFTS = (0.1, 0.3)
_USD_PRICES = (2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0)  # quality per USD
_WAIT_PRICES = (0.002, 0.004, 0.008, 0.016, 0.03)  # quality per second
_FLOORS = (-0.01, 0.0, 0.005, 0.01, 0.02)  # of the assignment, above the quality floor
_LOADS = (0.5, 0.7, 0.85, 1.0)
_BINS = 16


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The settings of one method.

    Attributes:
        labels: `n` texts.
        rule: The rule with some of the settings, by number.
        knobs: Name -> `n` values.
    """

    labels: tuple[str, ...]
    rule: Callable[[IntArray], Rule]
    knobs: Mapping[str, FloatArray]


@dataclass(frozen=True)
class Plan:
    """What follows from the figures of the static points on the training traffic.

    Attributes:
        site: The scenario.
        static: Means over the training seeds, of `cuts`.
    """

    site: Site
    static: Service

    @cached_property
    def cuts(self) -> FloatArray:
        """`n x (K-1)` static cuts."""
        return static_cuts(self.site)

    @cached_property
    def front(self) -> IntArray:
        """Static points that are not dominated in attainment, cost and quality."""
        return np.flatnonzero(not_dominated(self.static))

    @cached_property
    def home(self) -> int:
        """The static point that others start from: of those that keep the floor, the one of most `worth`.

        Raises:
            ConfigError: If none keeps it.
        """
        settings, static = self.site.settings, self.static
        kept = static.quality >= settings.quality_floor
        if not kept.any():
            raise ConfigError(
                f"no static thresholds keep quality_floor={settings.quality_floor:g} on the training traffic; the best "
                f"have {static.quality.max():.4f}; lower it"
            )
        return int(np.argmax(np.where(kept, self.worth(static), -np.inf)))

    def worth(self, service: Service) -> FloatArray:
        """`n` attainment less the price of cost."""
        return service.attainment - self.site.settings.cost_weight * 1000.0 * service.cost_usd

    def sweep(self, method: Method) -> Sweep:
        """The settings of a method that is a rule."""
        if method == "index":
            return self._index()
        return self._assignment() if method == "assignment" else self._pacing(method)

    @cached_property
    def _bases(self) -> IntArray:
        """Static points that pacing starts from: of several qualities, at several costs."""
        static, front, found = self.static, self.front, set()
        for spare in _SPARE_QUALITY:
            good = front[static.quality[front] >= self.site.settings.quality_floor + spare]
            for factor in _SPARE_COST if len(good) else ():
                cheap = good[static.cost_usd[good] <= factor * static.cost_usd[good].min()]
                found.add(int(cheap[np.argmax(static.attainment[cheap])]))
        return np.array(sorted(found), dtype=np.int64)

    @cached_property
    def _holds(self) -> FloatArray:
        episode = self.site.train(0)
        return station_holds(self.site.train_known, episode.station, len(episode.slots))

    def _pacing(self, method: Method) -> Sweep:
        knobs = list(itertools.product(self._bases.tolist(), _TARGETS[method], _SHIFTS))
        base = np.array([k[0] for k in knobs])
        target, shift = (np.array([k[i] for k in knobs]) for i in (1, 2))
        signal = {"budget_pacing": "cost", "latency_pacing": "late", "queue_pacing": "wait"}[method]
        goal = target * self.static.cost_usd[base] if signal == "cost" else target

        def rule(rows: IntArray) -> Rule:
            return Pacing(
                cuts=self.cuts[base[rows]],
                target=goal[rows],
                shift=shift[rows],
                signal=signal,  # type: ignore[arg-type]
                hold_s=self._holds,
                window_s=self.site.quick_window_s,
            )

        labels = (f"from {_cuts(self.cuts[b])}, target {t:g}, shift {s:g}" for b, t, s in knobs)
        return Sweep(labels=tuple(labels), rule=rule, knobs={"target": target, "shift": shift})

    def _index(self) -> Sweep:
        knobs = np.array(list(itertools.product(_USD_PRICES, _WAIT_PRICES)))

        def rule(rows: IntArray) -> Rule:
            return IndexRule(
                usd_price=knobs[rows, 0],
                wait_price=knobs[rows, 1],
                hold_s=self._holds,
                window_s=self.site.quick_window_s,
            )

        labels = tuple(f"{a:g} per USD, {b:g} per second of wait" for a, b in knobs)
        return Sweep(labels=labels, rule=rule, knobs={"price per USD": knobs[:, 0], "price per second": knobs[:, 1]})

    def _assignment(self) -> Sweep:
        knobs = np.array(list(itertools.product(_FLOORS, _LOADS)))
        knobs[:, 0] += self.site.settings.quality_floor
        bins = make_bins(self.site.train_known, _BINS)

        def rule(rows: IntArray) -> Rule:
            return Assignment(floor=knobs[rows, 0], load=knobs[rows, 1], bins=bins, window_s=self.site.window_s)

        labels = tuple(f"quality {a:g}, {b:.0%} of the slots" for a, b in knobs)
        return Sweep(labels=labels, rule=rule, knobs={"quality": knobs[:, 0], "share of the slots": knobs[:, 1]})


def at_edge(knobs: Mapping[str, FloatArray], number: int) -> list[str]:
    """Knobs of one setting that are the smallest or the largest value tried, as texts.

    Args:
        knobs: Name -> `n` values.
        number: Of the setting.
    """
    found = []
    for name, values in knobs.items():
        tried = np.unique(values)
        end = {float(tried[0]): "smallest", float(tried[-1]): "largest"}.get(float(values[number]))
        if end is not None and len(tried) > 1:
            found.append(f"{name} {values[number]:.3g}, the {end} of {len(tried)}")
    return found


def static_cuts(site: Site) -> FloatArray:
    """`n x (K-1)` ascending load fractions on an even grid."""
    grid = np.linspace(0.0, 1.0, site.settings.boundaries)
    d = site.train_table.n_tiers - 1
    return np.asarray(grid[np.array(list(itertools.combinations_with_replacement(range(len(grid)), d)))])


def static_label(cuts: FloatArray) -> str:
    """Text of one static point."""
    return f"cuts {_cuts(cuts)}"


def _cuts(cuts: FloatArray) -> str:
    return "/".join(f"{c:.3g}" for c in cuts.tolist())
