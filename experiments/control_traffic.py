"""The episodes of `routefront control`: training traffic on one draw of the scenario, unseen traffic on others."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from experiments.control_settings import ControlSettings
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, OutcomeTable
from simulators.scenario import ScenarioSpec, parse_scenario, sample_scenario, traffic_of
from simulators.seeds import spawn_rng
from simulators.traffic import TrafficSpec, make_world
from toolkit.baselines.windows import Episode, Known
from toolkit.scorers.base import ScoreTable, cross_fit
from toolkit.scorers.binned import BinnedScorer, FittedBinnedScorer
from toolkit.scorers.signals import SignalScorer

_FOLDS = 5
_QUICK = (2_880, 10.0, 30.0)  # windows of an episode, and the seconds that bound them
_SLOW = 96


@dataclass(frozen=True)
class Site:
    """A scenario under one set of options.

    Attributes:
        settings: The options.
    """

    settings: ControlSettings

    @cached_property
    def spec(self) -> ScenarioSpec:
        """The scenario."""
        if self.settings.scenario is None:
            raise ConfigError("control needs scenario=NAME, such as scenario=peak_hours")
        spec = parse_scenario(self.settings.scenario)
        if spec.traffic is None:
            raise ConfigError(f"scenario {spec.name} has no traffic, so there is no load to follow; name another one")
        return spec

    @cached_property
    def traffic(self) -> TrafficSpec:
        """Arrivals, capacity and faults."""
        return traffic_of(self.spec)

    @property
    def window_s(self) -> float:
        """Of thresholds per window."""
        return self.settings.window_s or self.traffic.duration_s / _SLOW

    @property
    def quick_window_s(self) -> float:
        """Of rules that follow queues."""
        windows, least, most = _QUICK
        return self.settings.quick_window_s or float(np.clip(self.traffic.duration_s / windows, least, most))

    @cached_property
    def train_table(self) -> OutcomeTable:
        """The queries that everything is learned on."""
        return self._draw("train")

    @cached_property
    def train_known(self) -> Known:
        """Predictions on them: quality and cost out-of-fold, holds in-sample."""
        rng = spawn_rng(self.settings.seed, "folds")
        return self._known(self.train_table, cross_fit(self._recipe, self.train_table, folds=_FOLDS, rng=rng))

    def train(self, seed: int) -> Episode:
        """Training traffic."""
        return self._episode(self.train_table, self.train_known, "train", str(seed))

    def unseen(self, seed: int) -> Episode:
        """Traffic, queries and answers that nothing was learned on."""
        table = self._draw("unseen", str(seed))
        return self._episode(table, self._known(table, self._fitted.predict(table.queries)), "unseen", str(seed))

    def score(self, table: OutcomeTable) -> FloatArray:
        """`N` scores."""
        return self._base.fit(table).predict(table.queries).score

    @property
    def _base(self) -> SignalScorer:
        return SignalScorer(column="difficulty_score", confidence_column="confidence", kind="scenario")

    @property
    def _recipe(self) -> BinnedScorer:
        return BinnedScorer(base=self._base)

    @cached_property
    def _fitted(self) -> FittedBinnedScorer:
        return self._recipe.fit(self.train_table)

    @cached_property
    def _holds(self) -> FittedBinnedScorer:
        """Predicts holds in the place of costs; fitted on all training queries, so in-sample on them."""
        table = self.train_table
        return self._recipe.fit(dataclasses.replace(table, cost_usd=table.hold_s, fixed_usd=0.0, _hash=[]))

    @cached_property
    def _sorted(self) -> FloatArray:
        return np.sort(self.score(self.train_table))

    def _known(self, table: OutcomeTable, scores: ScoreTable) -> Known:
        hold_s = self._holds.predict(table.queries).cost_usd
        assert scores.quality is not None and scores.cost_usd is not None and hold_s is not None
        rank = np.searchsorted(self._sorted, scores.score) / len(self._sorted)
        return Known(rank=np.minimum(rank, 1.0 - 1e-9), quality=scores.quality, cost_usd=scores.cost_usd, hold_s=hold_s)

    def _draw(self, *names: str) -> OutcomeTable:
        rng = spawn_rng(self.settings.seed, "control", *names, "table")
        table = sample_scenario(self.spec, n_queries=self.settings.n_queries, rng=rng)
        return table if table.batch is None else table.take(np.flatnonzero(~table.batch))

    def _episode(self, table: OutcomeTable, known: Known, *names: str) -> Episode:
        rng = spawn_rng(self.settings.seed, "control", *names, "world")
        world = make_world(table, self.traffic, load=1.0, rng=rng)
        return Episode(table=table, world=world, known=known, slo_s=self.settings.slo_s)


@lru_cache(maxsize=2)
def _site(settings: str) -> Site:
    return Site(ControlSettings.model_validate_json(settings))


def site_of(settings: ControlSettings) -> Site:
    """The site of these options; kept, because its draws take seconds."""
    return _site(settings.model_dump_json())
