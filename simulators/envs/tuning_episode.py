"""The task of `ThresholdTuning-v0` and its episodes, for n candidates at once; the environments are shells around it.

Notation: n candidates, K tiers, S slices, c limits, T windows of an episode.

Rewards and slacks are scaled so that their *mean over the windows of an episode* is

    reward   - (USD per query) / usd_scale
    slack    at_most - share, of late or wrong requests;  (at_most - USD per query) / usd_scale of a cost limit

exactly, over all requests after the warm-up. The counts behind them add up, so there is no mean of ratios.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulators.envs.figures import Figures
from simulators.envs.load_scale import LoadScale
from simulators.envs.telemetry import Observer, Scales
from simulators.envs.windows import WindowSimulator, n_windows, window_ends
from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import FloatArray, IntArray, OutcomeTable
from simulators.seeds import spawn_rng
from simulators.traffic import TrafficSpec, make_world
from simulators.world import World

_WINDOWS = 96  # a day in quarters of an hour
_DAY_S = 86_400.0
_SEEDS = 2**31


@dataclass(frozen=True, kw_only=True)
class Limit:
    """An upper bound on what an episode's requests come to.

    Attributes:
        kind: `late`: the share over the latency limit, failed ones included; `wrong`: one minus the mean quality, a
            failed one being worth 0; `cost`: USD per query.
        at_most: The bound.
        slice: Of the requests of one slice; None: of all.
    """

    kind: Literal["late", "wrong", "cost"]
    at_most: float
    slice: str | None = None

    def __post_init__(self) -> None:
        most = np.inf if self.kind == "cost" else 1.0
        if self.kind not in ("late", "wrong", "cost") or not 0.0 <= self.at_most <= most:
            raise ConfigError(
                f"a limit is late, wrong (a share in [0, 1]) or cost (USD); got {self.kind} {self.at_most}"
            )

    @property
    def name(self) -> str:
        """`late`, or `late[code]` of a slice."""
        return self.kind if self.slice is None else f"{self.kind}[{self.slice}]"


@dataclass(frozen=True, kw_only=True)
class TuningSpec:
    """Who asks what, and what a router can see.

    Attributes:
        table: The queries that requests ask, with cost and latency: tune rows to train, held-out rows to test.
        score: `N`, what the thresholds are on; higher is harder.
        traffic: Arrivals, capacity and faults; every episode draws arrivals, order of the queries and errors anew.
        limits: Constraints.
        latency_limit_s: Beyond it a request is late; needed by a limit on late ones.
        load: Factor of the arrival rates.
        window_s: Length of a step; None: a 96th of the traffic.
        label_share: Share of the answers whose quality becomes known.
        label_lag: Windows until it does.
        clock: Whether the time of day is seen; None: where the traffic lasts a day or more. In shorter traffic it would
            give away when an outage comes.
        context: Whether multipliers and bounds are part of the observation.
        penalised: Whether the reward is that of the Lagrangian, cost and weighted slacks, instead of cost alone.
        usd_scale: Cost per query that counts as 1; None: that of the dearest tier on this table.
        latency_scale_s: Latency that is seen as 1/2; None: the limit, or where there is none the mean of this table's
            answers. A policy that is played on another table needs the one that it was trained with.
        reference_scores: What load positions refer to; None: the scores of the table's interactive rows.
        pinned: `N` tiers of rows that no threshold decides, -1 elsewhere; None: no such rows.
        folder: Where a trace's relative path starts.

    Raises:
        InputDataError: If costs or latencies are unknown.
        ConfigError: If a value makes no sense.
    """

    table: OutcomeTable
    score: FloatArray
    traffic: TrafficSpec
    limits: tuple[Limit, ...] = ()
    latency_limit_s: float | None = None
    load: float = 1.0
    window_s: float | None = None
    label_share: float = 0.2
    label_lag: int = 2
    clock: bool | None = None
    context: bool = False
    penalised: bool = False
    usd_scale: float | None = None
    latency_scale_s: float | None = None
    reference_scores: FloatArray | None = None
    pinned: IntArray | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        if not self.table.has_cost or not self.table.has_latency:
            raise InputDataError("tuning thresholds per window needs cost_usd and latency_s of every answer")
        for limit in self.limits:
            if limit.slice is not None and limit.slice not in self.table.slices:
                raise ConfigError(f"limit {limit.name} names no slice of {list(self.table.slices)}")
            if limit.kind == "late" and self.latency_limit_s is None:
                raise ConfigError(f"limit {limit.name} needs latency_limit_s: beyond how many seconds is late?")
        for name in ("usd_scale", "latency_scale_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:
                raise ConfigError(f"{name} must be positive; got {value:g}")

    @property
    def step_s(self) -> float:
        """Length of a window."""
        return self.traffic.duration_s / _WINDOWS if self.window_s is None else self.window_s

    @property
    def n_windows(self) -> int:
        """T."""
        return n_windows(self.traffic.duration_s, self.step_s)

    @property
    def sees_clock(self) -> bool:
        """Whether the time of day is seen."""
        return self.traffic.duration_s >= _DAY_S if self.clock is None else self.clock

    @cached_property
    def interactive(self) -> IntArray:
        """Rows that requests may ask."""
        batch = self.table.batch
        return np.arange(self.table.n_queries) if batch is None else np.flatnonzero(~batch)

    @cached_property
    def long_latency_s(self) -> float:
        """Latency that is seen as 1/2."""
        mean_s = float(self.table.latency_s[self.interactive].mean())
        return self.latency_scale_s or self.latency_limit_s or mean_s

    @cached_property
    def dollar(self) -> float:
        """Cost per query that counts as 1."""
        dearest = float(self.table.cost_usd[self.interactive].mean(axis=0).max())
        return (dearest if dearest > 0 else 1.0) if self.usd_scale is None else self.usd_scale

    def world(self, traffic_seed: int) -> World:
        """The traffic of one seed, the same for everything that is compared on it."""
        rng = spawn_rng(traffic_seed, "traffic")
        return make_world(self.table, self.traffic, load=self.load, rng=rng, folder=self.folder)

    def simulator(self, world: World, n: int) -> WindowSimulator:
        """n candidates in a world, seen as this task says."""
        return WindowSimulator(
            world,
            self.table,
            self.score,
            n,
            latency_limit_s=np.inf if self.latency_limit_s is None else self.latency_limit_s,
            label_share=self.label_share,
            label_lag=self.label_lag,
            pinned=self.pinned,
        )


class Step(NamedTuple):
    """What a step gives: `n x d`, `n`, whether the episode is over, and arrays with n first."""

    seen: NDArray[np.float32]
    reward: FloatArray
    over: bool
    info: dict[str, NDArray[Any]]


class TuningEpisodes:
    """n candidates in one world after the other.

    Attributes:
        tuning: The task.
        scale: Load positions and thresholds.
        observer: Layout of the observation.
        n_boundaries: K - 1.
    """

    def __init__(self, tuning: TuningSpec, n: int) -> None:
        self.tuning, self.n_boundaries, self._n = tuning, tuning.table.n_tiers - 1, n
        reference = tuning.score[tuning.interactive] if tuning.reference_scores is None else tuning.reference_scores
        self.scale = LoadScale(reference)
        usual = tuning.world(0)  # for orders of magnitude; no episode's own
        scales = Scales(
            rate_per_s=usual.n_requests / usual.duration_s,
            latency_s=tuning.long_latency_s,
            clock=tuning.sees_clock,
        )
        n_context = 2 * len(tuning.limits) if tuning.context else 0
        self.observer = Observer(n, tuning.table.n_tiers, len(usual.stations), n_context, scales)
        self._codes = [None if x.slice is None else tuning.table.slices.index(x.slice) for x in tuning.limits]
        self._in_dollars = np.array([x.kind == "cost" for x in tuning.limits], dtype=np.bool_)
        self._dollars = np.where(self._in_dollars, tuning.dollar, 1.0)
        self.set_multipliers(np.zeros(len(tuning.limits)))
        self.set_at_most([x.at_most for x in tuning.limits])
        self._simulator: WindowSimulator | None = None

    @property
    def over(self) -> bool:
        """Whether the episode has ended."""
        return self._simulator is not None and self._simulator.done

    @property
    def totals(self) -> Figures:
        """Sums of the episode so far."""
        return self._running().totals

    def set_multipliers(self, multipliers: ArrayLike) -> None:
        """`c` or `n x c`, 0 or more.

        Raises:
            ConfigError: If one is negative or there are not c.
        """
        self._multipliers = self._per_limit(multipliers, "multipliers")

    def set_at_most(self, at_most: ArrayLike) -> None:
        """`c` or `n x c` bounds in the units of the limits.

        Raises:
            ConfigError: If one is negative or a share above 1, or there are not c.
        """
        given = self._per_limit(at_most, "at_most")
        if (given[:, ~self._in_dollars] > 1.0).any():
            raise ConfigError(f"at_most: shares of late and wrong requests are at most 1; got {given.tolist()}")
        self._at_most = given

    def _per_limit(self, values: ArrayLike, name: str) -> FloatArray:
        given, shape = np.asarray(values, dtype=np.float64), (self._n, len(self.tuning.limits))
        if given.shape not in (shape, shape[1:]) or not (np.isfinite(given) & (given >= 0)).all():
            raise ConfigError(f"{name}: expected {shape[1]} numbers of 0 or more per environment; got {given.tolist()}")
        return np.broadcast_to(given, shape).copy()

    def begin(
        self, rng: np.random.Generator, options: Mapping[str, Any] | None
    ) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
        """A new episode: `n x d` observations and its traffic seed (-1 of a given world).

        Raises:
            ConfigError: If an option is unknown.
        """
        options = options or {}
        unknown = set(options) - {"traffic_seed", "world", "multipliers", "at_most"}
        if unknown or {"traffic_seed", "world"} <= set(options):
            raise ConfigError(
                f"reset takes one of the options traffic_seed and world, multipliers and at_most; got {sorted(options)}"
            )
        if "multipliers" in options:
            self.set_multipliers(options["multipliers"])
        if "at_most" in options:
            self.set_at_most(options["at_most"])
        traffic_seed = -1
        if "world" not in options:
            traffic_seed = int(options["traffic_seed"] if "traffic_seed" in options else rng.integers(_SEEDS))
        self._start(options["world"] if "world" in options else self.tuning.world(traffic_seed))
        known = {"traffic_seed": np.full(self._n, traffic_seed), "n_windows": np.full(self._n, self._n_windows)}
        return self._see(), known

    def _start(self, world: World) -> None:
        simulator = self.tuning.simulator(world, self._n)
        asked = self.tuning.table.slice_code[world.row[world.counted]]
        self._n_windows = n_windows(world.duration_s, self.tuning.step_s)
        by_slice = np.bincount(asked, minlength=simulator.n_slices) / self._n_windows
        self._per_window = np.array([by_slice.sum() if code is None else by_slice[code] for code in self._codes])
        self._all_per_window = float(by_slice.sum())
        self._ends = window_ends(world.duration_s, self.tuning.step_s)
        self._action = np.full((self._n, self.n_boundaries), 0.5)
        self.observer.forget()
        self._simulator = simulator

    def step(self, action: NDArray[np.floating]) -> Step:
        """One window under `n x (K-1)` load positions.

        Raises:
            ConfigError: If there is no episode, or it has ended.
        """
        simulator = self._running()
        if simulator.done:
            raise ConfigError("this episode has ended; call reset")
        if action.shape != self._action.shape or not np.isfinite(action).all():
            raise ConfigError(
                f"expected finite actions of shape {self._action.shape[1:]}; got shape {action.shape[1:]}"
            )
        self._action = np.sort(np.clip(action.astype(np.float64), 0.0, 1.0), axis=1)
        thresholds = self.scale.thresholds(self._action)
        figures = simulator.step(next(self._ends), thresholds)
        slack = self._slack(figures)
        reward = -figures.cost_usd.sum(axis=1) / (self.tuning.dollar * self._all_per_window)
        if self.tuning.penalised:
            reward = reward + (self._multipliers * slack).sum(axis=1)
        info = _info(figures) | {
            "slack": slack,
            "requests_by_constraint": self._counted(figures),
            "thresholds": thresholds,
            "at_s": np.full(self._n, simulator.telemetry.at_s),
        }
        return Step(seen=self._see(), reward=reward, over=simulator.done, info=info)

    def _counted(self, figures: Figures) -> IntArray:
        """`n x c` requests of the window that each limit is on."""
        whole = figures.requests.sum(axis=1)
        counted = [whole if code is None else figures.requests[:, code] for code in self._codes]
        return np.stack(counted, axis=1) if counted else np.zeros((self._n, 0), dtype=np.int64)

    def _slack(self, figures: Figures) -> FloatArray:
        """`n x c`."""
        found = np.zeros((self._n, len(self.tuning.limits)))
        for i, (limit, code) in enumerate(zip(self.tuning.limits, self._codes, strict=True)):
            sums = figures.cost_usd if limit.kind == "cost" else getattr(figures, limit.kind)
            columns = slice(None) if code is None else [code]
            room = self._at_most[:, i] * figures.requests[:, columns].sum(axis=1) - sums[:, columns].sum(axis=1)
            found[:, i] = room / (self._dollars[i] * max(self._per_window[i], np.finfo(float).tiny))
        return found

    def _see(self) -> NDArray[np.float32]:
        context = np.zeros((self._n, 0))
        if self.tuning.context:
            bounds = self._at_most / self._dollars
            bounds = np.where(self._in_dollars, bounds / (1.0 + bounds), bounds)
            context = np.concatenate([self._multipliers / (1.0 + self._multipliers), bounds], axis=1)
        return self.observer.see(self._running().telemetry, self._action, context)

    def _running(self) -> WindowSimulator:
        if self._simulator is None:
            raise ConfigError("there is no episode yet; call reset first")
        return self._simulator


def _info(figures: Figures) -> dict[str, NDArray[Any]]:
    """Sums of the window, whole and by slice."""
    by_slice = {name: getattr(figures, name) for name in ("requests", "late", "wrong", "failed", "cost_usd")}
    whole = {name: values.sum(axis=1) for name, values in by_slice.items()}
    return whole | {f"{name}_by_slice": values for name, values in by_slice.items()} | {"sent": figures.sent}
