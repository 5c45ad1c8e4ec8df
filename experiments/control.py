"""`routefront control`: thresholds that follow the load against the static front, on unseen traffic."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.console import progress
from experiments.control_methods import Plan, static_cuts, static_label
from experiments.control_ppo import late_limits, play_policy, policies
from experiments.control_settings import ControlSettings, Method
from experiments.control_traffic import Site, site_of
from experiments.files import write_json
from experiments.loading import required
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray
from toolkit.baselines.window_front import not_dominated
from toolkit.baselines.window_optimum import clairvoyant
from toolkit.baselines.windows import Service, service_of, static_service

Update = Callable[[int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What some settings of one method met in one episode.

    Attributes:
        rows: `n` numbers of the settings.
        service: Of those.
        labels: `n` texts.
        cuts: `W x (K-1)` cuts per window, where a search found them.
    """

    rows: IntArray
    service: Service
    labels: tuple[str, ...]
    cuts: FloatArray | None = None


def run_control(settings: ControlSettings, *, quiet: bool = False) -> dict[str, Any]:
    """Run all cells that are not done, then summarise.

    Raises:
        ConfigError: If an option makes no sense or the folder holds another comparison.
    """
    from threadpoolctl import threadpool_limits

    from experiments.control_summary import summarise

    output = Path(required(settings.output, "output"))
    site = site_of(settings)
    _check(settings, site)
    _claim(settings, output)
    with threadpool_limits(limits=1), progress("control", quiet=quiet) as update:
        book = Book(site, output, update)
        for method in _wanted(settings):
            book.fill(method)
    return summarise(book)


class Book:
    """The cells of a comparison: made where they are missing, else read.

    Args:
        site: The scenario.
        output: The folder.
        update: Told how many cells of a method are done.
    """

    def __init__(self, site: Site, output: Path, update: Update = lambda done, total: None) -> None:
        self.site, self.output, self._update = site, output, update
        self._plan: Plan | None = None

    @property
    def plan(self) -> Plan:
        """What the static points say; needs their cells of the training traffic."""
        if self._plan is None:
            cells = [self.train("static", seed) for seed in range(self.site.settings.train_seeds)]
            self._plan = Plan(self.site, _mean([cell.service for cell in cells]))
        return self._plan

    def fill(self, method: Method) -> None:
        """All cells of a method."""
        settings = self.site.settings
        if method != "static":
            _ = self.plan.home  # refuses a floor that nothing keeps, before anything is searched
        trained = 0 if method == "clairvoyant" else settings.train_seeds
        for seed in range(trained):
            self.train(method, seed)
            self._update(seed + 1, trained + settings.seeds)
        for seed in range(settings.seeds):
            self.unseen(method, seed)
            self._update(trained + seed + 1, trained + settings.seeds)

    def done(self, method: Method) -> bool:
        """Whether all unseen cells of a method are there."""
        return all(self._path(method, "unseen", seed).is_file() for seed in range(self.site.settings.seeds))

    def train(self, method: Method, seed: int) -> Cell:
        """All settings on training traffic."""
        return self._cell(method, "train", seed, lambda: self._train(method, seed))

    def unseen(self, method: Method, seed: int) -> Cell:
        """The settings worth playing on unseen traffic."""
        return self._cell(method, "unseen", seed, lambda: self._unseen(method, seed))

    def trained(self, method: Method) -> Service:
        """Means over the training seeds."""
        return _mean([self.train(method, seed).service for seed in range(self.site.settings.train_seeds)])

    def kept(self, method: Method) -> IntArray:
        """Settings that keep the floor on the training traffic and are not dominated there.

        Of the static points, those that are not dominated in quality either: a mixture of them may keep the floor.
        Where no setting keeps it, the one of the best quality. On unseen traffic any of them may miss the floor.
        """
        if method == "static":
            return self.plan.front
        found = self.trained(method)
        rows = np.flatnonzero(found.quality >= self.site.settings.quality_floor)
        if not len(rows):
            return np.array([int(np.argmax(found.quality))])
        flat = Service.of(found.stacked()[rows])
        return rows[not_dominated(Service.of(flat.stacked() * [1.0, 1.0, 0.0, 1.0]))]

    def policies(self) -> list[Any]:
        """The trained policies."""
        return list(policies(self.plan, self.output / "ppo_lagrangian", self._update))

    def _train(self, method: Method, seed: int) -> Cell:
        episode = self.site.train(seed)
        if method == "static":
            cuts = static_cuts(self.site)
            service, labels = static_service(episode, cuts), tuple(static_label(c) for c in cuts)
        elif method == "ppo_lagrangian":
            return self._played(episode, np.arange(len(late_limits(self.plan))))
        else:
            sweep = self.plan.sweep(method)
            labels = sweep.labels
            service = service_of(episode, sweep.rule(np.arange(len(labels))))
        return Cell(rows=np.arange(len(labels)), service=service, labels=labels)

    def _unseen(self, method: Method, seed: int) -> Cell:
        if method == "clairvoyant":
            return self._clairvoyant(seed)
        episode, rows = self.site.unseen(seed), self.kept(method)
        if method == "ppo_lagrangian":
            return self._played(episode, rows)
        if method == "static":
            cuts = self.plan.cuts[rows]
            return Cell(rows=rows, service=static_service(episode, cuts), labels=tuple(static_label(c) for c in cuts))
        sweep = self.plan.sweep(method)
        service = service_of(episode, sweep.rule(rows))
        return Cell(rows=rows, service=service, labels=tuple(sweep.labels[r] for r in rows))

    def _played(self, episode: Any, rows: IntArray) -> Cell:
        limits, found = late_limits(self.plan), self.policies()
        parts = [play_policy(self.site, episode, found[r], limits[r])[0].stacked() for r in rows]
        labels = tuple(f"late share at most {limits[r]:.3g}" for r in rows)
        return Cell(rows=rows, service=Service.of(np.concatenate(parts)), labels=labels)

    def _clairvoyant(self, seed: int) -> Cell:
        """From the best static point of that very seed, at the cost of that point at most."""
        settings, static = self.site.settings, self.unseen("static", seed)
        kept = static.service.quality >= settings.quality_floor
        if not kept.any():
            kept = static.service.quality >= static.service.quality.max()
        start = int(np.argmax(np.where(kept, self.plan.worth(static.service), -np.inf)))
        found = clairvoyant(
            self.site.unseen(seed),
            self.plan.cuts[static.rows[start]],
            n_windows=settings.clairvoyant.windows,
            quality_floor=settings.quality_floor,
            cost_usd=float(static.service.cost_usd[start]),
            passes=settings.clairvoyant.passes,
        )
        label = f"from {static.labels[start]}"
        return Cell(rows=np.zeros(1, dtype=np.int64), service=found.service, labels=(label,), cuts=found.cuts)

    def _path(self, method: str, kind: str, seed: int) -> Path:
        return self.output / "cells" / method / f"{kind}-{seed}.json"

    def _cell(self, method: Method, kind: str, seed: int, make: Callable[[], Cell]) -> Cell:
        path = self._path(method, kind, seed)
        if not path.is_file():
            cell = make()
            write_json(
                path,
                {
                    "rows": cell.rows.tolist(),
                    "labels": cell.labels,
                    "service": cell.service.stacked().tolist(),
                    "cuts": None if cell.cuts is None else cell.cuts.tolist(),
                },
            )
            return cell
        found = json.loads(path.read_text(encoding="utf-8"))
        return Cell(
            rows=np.array(found["rows"], dtype=np.int64),
            service=Service.of(np.array(found["service"], dtype=np.float64)),
            labels=tuple(found["labels"]),
            cuts=None if found["cuts"] is None else np.array(found["cuts"]),
        )


def _mean(services: list[Service]) -> Service:
    return Service.of(np.mean([service.stacked() for service in services], axis=0))


def _wanted(settings: ControlSettings) -> list[Method]:
    """Methods to run, the static points first: all others start from them."""
    chosen = settings.only or settings.methods
    return ["static", *(m for m in settings.methods if m in chosen and m != "static")]


def _check(settings: ControlSettings, site: Site) -> None:
    unknown = sorted(set(settings.only) - set(settings.methods))
    if unknown:
        raise ConfigError(f"only={unknown} are not among methods={settings.methods}")
    duration_s = site.traffic.duration_s
    for name, window_s in (("window_s", site.window_s), ("quick_window_s", site.quick_window_s)):
        if not window_s <= duration_s / 2:
            raise ConfigError(f"{name}={window_s:g} leaves no two windows in {duration_s:g} s of traffic; shorten it")


def _claim(settings: ControlSettings, output: Path) -> None:
    """Refuse a folder that is not this comparison's; methods and unseen seeds may be added."""
    wanted = settings.model_dump(mode="json", exclude={"methods", "only", "seeds", "output"})
    stamp = output / "control.json"
    if stamp.is_file():
        if json.loads(stamp.read_text(encoding="utf-8")) != wanted:
            raise ConfigError(f"output={output} holds a comparison with other options; name a new folder")
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"output={output} exists and is no comparison; name a new folder")
    write_json(stamp, wanted)
