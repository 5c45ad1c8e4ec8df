r"""`proteus` on thresholds and utilities: a Lagrangian search for parameters, for all requested qualities at once.

PROTEUS ([Proteus2026]_) trains a policy per query; gateways take thresholds. With the query taken out of the state,
what is left is a map from the requested quality to parameters, $\tau \mapsto \theta(\tau)$, the saddle points of

    L(θ, λ) = -f(θ) / s - Σ_j λ_j e_j(θ)      f: the objective (cost), s: its scale, e_j: shortfall of constraint j,

one of the constraints being quality >= τ. Every target has its own multipliers, as one multiplier for all of them
cannot make θ depend on τ.

A round:
1. climb L of the *softened* policies (`toolkit.search.lagrangian_surrogate`) with Adam, all targets in one array. In
   place of λ_j stands `max(0, λ_j + ρ (1 + λ_j) e_j)`: the augmented Lagrangian, which also holds points inside a dent
   of the front, where no multiplier alone would. `e_j` is corrected by what hard and soft figure differed by in the
   round before;
2. evaluate the hard policies, exactly, load included;
3. step the multipliers by the hard shortfalls (`toolkit.search.multipliers`: dual ascent, or the PID of [Stooke2020]_).

A target whose candidate was evaluated before asks for a probe instead: a point beside its best one so far, or anywhere.
Step and temperature fall from round to round; now and then every target moves to the best candidate that any has met.

Notation: T targets, c constraints and the target itself, d coordinates, p parameters.

References:
    [Proteus2026] A. Bhatti, V. Vaddina, D. Birru, PROTEUS, arXiv 2601.19402, 2026.
    [Stooke2020] A. Stooke, J. Achiam, P. Abbeel, Responsive safety in reinforcement learning by PID Lagrangian methods,
    ICML 2020.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.errors import ConfigError
from simulators.outcomes import FloatArray, IntArray
from toolkit.evaluation.metrics import Metric
from toolkit.problem import Evaluation, RoutingProblem, concatenate
from toolkit.search.design import Seen, vector_key
from toolkit.search.lagrangian_surrogate import SoftFigures, soften
from toolkit.search.multipliers import Dual, DualState, GradientDual, PidDual
from toolkit.zero_router import zero_router

_ADAM = (0.8, 0.95, 1e-12)
_ANYWHERE = 1 / 3
"""Share of the probes that is drawn anywhere."""
_WIDEST_PROBE = 10.0
"""Probes beside a candidate are up to so many temperatures wide."""
_RESTARTS = 4


@dataclass(frozen=True, kw_only=True)
class LagrangianOptions:
    """Settings of the search.

    Attributes:
        rounds: Outer rounds; each evaluates at most one candidate per target.
        steps: Gradient steps per round.
        step: First and last step size of Adam, in shares of the traffic.
        temperature: First and last temperature, in shares of the traffic (thresholds) or in typical gaps between
            predicted qualities (utility).
        multiplier: `gradient` (dual ascent) or `pid`.
        dual_step: Step of the multipliers per point of shortfall, in proportion to `1 + λ`.
        penalty: ρ of the augmented Lagrangian; 0 is the plain one.
        most_cells: Scores (thresholds) or queries (utility) that the soft figures tell apart at most.
    """

    rounds: int = 60
    steps: int = 20
    step: tuple[float, float] = (0.03, 0.002)
    temperature: tuple[float, float] = (0.05, 0.005)
    multiplier: str = "gradient"
    dual_step: float = 30.0
    penalty: float = 100.0
    most_cells: int = 2048

    def __post_init__(self) -> None:
        if min(self.rounds, self.steps, self.most_cells) < 1:
            raise ConfigError("controller.rounds, steps and most_cells must be at least 1")
        for name in ("step", "temperature"):
            pair = getattr(self, name)
            if len(pair) != 2 or not 0 < pair[1] <= pair[0] < float("inf"):
                raise ConfigError(f"controller.{name} must be [first, last] with first >= last > 0; got {list(pair)}")
        if self.multiplier not in {"gradient", "pid"}:
            raise ConfigError(f"controller.multiplier must be gradient or pid; got {self.multiplier}")
        if not (self.dual_step > 0 and self.penalty >= 0):
            raise ConfigError(
                f"controller.dual_step must be > 0 and penalty >= 0; got {self.dual_step:g}, {self.penalty:g}"
            )

    @property
    def dual(self) -> Dual:
        """The rule of the multipliers."""
        if self.multiplier == "gradient":
            return GradientDual(step_size=self.dual_step, relative=True)
        brake = self.dual_step / 10  # the penalty is a proportional term already
        return PidDual(proportional=brake, integral=self.dual_step, derivative=brake, relative=True)

    def at(self, pair: tuple[float, float], fraction: float) -> float:
        """Between the ends of a pair, geometrically; the last third of the search stays at the last."""
        return float(pair[0] * (pair[1] / pair[0]) ** min(1.0, 1.5 * fraction))


@dataclass(frozen=True, kw_only=True)
class TargetMap:
    """Parameters for each requested quality, on the tune split.

    Attributes:
        targets: `T` requested qualities.
        params: `T x p` the cheapest evaluated candidate that meets the target and all constraints; NaN where none does.
        objective: `T` its objective in natural units; NaN where none does.
        quality: `T` its quality; where none does, the best quality that meets all constraints, NaN if nothing does.
        multipliers: `T x c+1` of the constraints and, last, of the target, in units of the objective: what one unit of
            slack costs, in quality (or a share), or in parts of the limit where the limit has a unit.
        constraints: `c+1` names, the last one `target`.
        reachable: The largest feasible target; NaN if there is none.
    """

    targets: FloatArray
    params: FloatArray
    objective: FloatArray
    quality: FloatArray
    multipliers: FloatArray
    constraints: tuple[str, ...]
    reachable: float

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """`T`, True where a candidate meets the target and all constraints."""
        return np.isfinite(self.objective)


class LagrangianController:
    """See the module.

    Args:
        problem: The problem; its family is `thresholds` or `utility`.
        options: Settings.
        targets: `T` requested qualities in [0, 1].
        rng: Of probes, and of the part of the queries that the soft figures look at where there are too many.

    Raises:
        ConfigError: If the family cannot be softened or the targets are no qualities.
    """

    name = "proteus"

    def __init__(
        self, problem: RoutingProblem, *, options: LagrangianOptions, targets: FloatArray, rng: np.random.Generator
    ) -> None:
        if targets.ndim != 1 or len(targets) == 0 or not ((targets >= 0) & (targets <= 1)).all():
            raise ConfigError(f"requested qualities must be one or more numbers in [0, 1]; got {targets.tolist()}")
        self._problem, self._options, self._targets = problem, options, targets
        self._objective = objective_of(problem)
        self._soft = soften(problem.family, options.most_cells, rng)
        self._figures = SoftFigures(problem, self._objective, self._soft)
        self._dual = options.dual
        self._scale, slope = self._zero_router()
        self._state = self._first_multipliers(slope / self._scale)
        self._correction = np.zeros((len(targets), len(self._figures.bounds)))
        self._x = self._soft.start((np.arange(len(targets)) + 0.5) / len(targets))
        self._known: list[Evaluation] = []
        self._coordinates: list[FloatArray] = []
        self._row: dict[bytes, int] = {}
        self._seen = Seen()
        self._rng = rng
        self._round = 0

    @property
    def total(self) -> int:
        """One candidate per round and target; fewer are evaluated where a search asks for the same one again."""
        return self._options.rounds * len(self._targets)

    @property
    def exactness(self) -> str:
        """That it is a search, what it minimises and for how many targets."""
        return (
            f"a Lagrangian search of {len(self._row):,} parameter vectors for {len(self._targets)} requested "
            f"qualities, minimising {self._objective.column}: better ones may exist"
        )

    def ask(self) -> FloatArray | None:
        """The candidates of the next round that were not evaluated yet."""
        while self._round < self._options.rounds:
            if self._round:
                self._climb()
            self._params = self._soft.params(self._x)
            new = self._seen.new_rows(self._params)
            probes = self._probes(np.setdiff1d(np.arange(len(self._x)), new))
            points = np.concatenate([self._x[new], probes])
            params = self._soft.params(points)
            fresh = [i for i, row in enumerate(params) if self._seen.add(row)]
            self._asked = points[fresh]
            if fresh:
                return np.asarray(params[fresh])
            self._finish_round()
        return None

    def tell(self, evaluation: Evaluation) -> None:
        """Enter the hard figures and step the multipliers."""
        for row in evaluation.params:
            self._row[vector_key(row)] = len(self._row)
        self._coordinates.append(self._asked)
        self._known.append(evaluation)
        self._finish_round()

    @property
    def multipliers(self) -> FloatArray:
        """`T x c+1` multipliers now, in units of the objective; see `TargetMap`."""
        return np.asarray(self._state.value * self._scale[:, None])

    @property
    def map(self) -> TargetMap:
        """The map found so far."""
        known = concatenate(self._known)
        best, ok = self._best_rows(known), known.feasible
        found = best >= 0
        quality = known.columns["quality"]
        reached = float(quality[ok].max()) if ok.any() else np.nan
        names = (*(c.name for c in self._problem.constraints), "target")
        return TargetMap(
            targets=self._targets,
            params=np.where(found[:, None], known.params[best], np.nan),
            objective=np.where(found, known.columns[self._objective.column][best], np.nan),
            quality=np.where(found, quality[best], reached),
            multipliers=self.multipliers,
            constraints=names,
            reachable=float(self._targets[found].max()) if found.any() else np.nan,
        )

    def _zero_router(self) -> tuple[FloatArray, FloatArray]:
        """`T` objectives of the cheapest mixture of single tiers that meets each target, and its slope there."""
        singles = self._figures.singles
        hull = zero_router(singles[:, 0], singles[:, self._figures.bounds[-1].rows[0]])
        at = np.interp(self._targets, hull.quality, hull.cost_usd)
        spread = np.ptp(singles[:, 0]) or 1.0
        if len(hull.tier) < 2:
            return np.maximum(np.abs(at), 1e-3 * spread), np.full(len(at), spread)
        slopes = np.append(0.0, np.diff(hull.cost_usd) / np.diff(hull.quality))
        piece = np.clip(np.searchsorted(hull.quality, self._targets), 0, len(slopes) - 1)
        return np.maximum(np.abs(at), 1e-3 * spread), slopes[piece]

    def _first_multipliers(self, of_target: FloatArray) -> DualState:
        """0 for the constraints; for the target, the Zero router's price of quality there."""
        state = self._dual.init((len(self._targets), len(self._figures.bounds)))
        value = state.value.copy()
        value[:, -1] = of_target
        return dataclasses.replace(state, value=value, integral=value)

    def _climb(self) -> None:
        """The gradient steps of one round."""
        options, fraction = self._options, self._round / self._options.rounds
        step, heat = options.at(options.step, fraction), options.at(options.temperature, fraction)
        first, second = np.zeros_like(self._x), np.zeros_like(self._x)
        for i in range(1, options.steps + 1):
            gradient = self.lagrangian_gradient(self._x, heat)
            first = _ADAM[0] * first + (1 - _ADAM[0]) * gradient
            second = _ADAM[1] * second + (1 - _ADAM[1]) * gradient**2
            size = np.sqrt(second / (1 - _ADAM[1] ** i)) + _ADAM[2]
            self._x = self._soft.project(self._x + step * first / (1 - _ADAM[0] ** i) / size)

    def lagrangian_gradient(self, x: FloatArray, temperature: float) -> FloatArray:
        """`T x d` gradient of the augmented Lagrangian of the soft policies."""
        P = self._soft.probabilities(x, temperature)
        values = self._figures.values(P)
        short, slope = self._figures.shortfalls(values, self._targets)
        weights = -(self._pressure(short + self._correction)[:, :, None] * slope).sum(axis=1)
        weights[:, 0] -= 1.0 / self._scale
        return self._soft.pull_back(x, P, self._figures.gain(weights), temperature)

    def _pressure(self, short: FloatArray) -> FloatArray:
        """`T x c` multipliers, with the penalty where soft and hard figure are of one kind."""
        value = self._state.value
        same = np.array([bound.same for bound in self._figures.bounds])
        return np.maximum(0.0, value + np.where(same, self._options.penalty * (1.0 + value) * short, 0.0))

    def _finish_round(self) -> None:
        known = concatenate(self._known)
        rows = np.array([self._row[vector_key(row)] for row in self._params])
        hard = self._hard_shortfalls(known)[rows]
        hard[:, -1] += self._targets
        heat = self._options.at(self._options.temperature, (self._round + 1) / self._options.rounds)
        soft = self._figures.shortfalls(self._figures.values(self._soft.probabilities(self._x, heat)), self._targets)[0]
        same = np.array([bound.same for bound in self._figures.bounds])
        self._correction = np.where(np.isfinite(hard) & same, hard - soft, self._correction)
        self._state = self._dual.step(self._state, hard)
        self._round += 1
        if self._round in {i * self._options.rounds // _RESTARTS for i in range(1, _RESTARTS)}:
            self._x = self._leaders(known)

    def _leaders(self, known: Evaluation) -> FloatArray:
        """`T x d` coordinates of the best candidate for each target, or of the one that lacks least."""
        best = self._best_rows(known)
        hard = self._hard_shortfalls(known)
        lacks = np.maximum(hard[None, :, -1] + self._targets[:, None], hard[None, :, :-1].max(axis=2, initial=0.0))
        nearest = np.argmin(np.where(np.isnan(lacks), np.inf, lacks), axis=1)
        return np.asarray(np.concatenate(self._coordinates)[np.where(best >= 0, best, nearest)])

    def _probes(self, targets: IntArray) -> FloatArray:
        """One point per target: beside its best one so far, or anywhere."""
        if len(targets) == 0:
            return np.empty((0, self._x.shape[1]))
        near = self._options.at(self._options.temperature, self._round / self._options.rounds)
        known = self._leaders(concatenate(self._known)) if self._known else self._x
        leaders = known[targets]
        size = near * _WIDEST_PROBE ** self._rng.random((len(targets), 1))
        beside = leaders + size * self._rng.standard_normal(leaders.shape)
        anywhere = self._rng.random(leaders.shape)
        return self._soft.project(np.where(self._rng.random((len(targets), 1)) < _ANYWHERE, anywhere, beside))

    def _hard_shortfalls(self, known: Evaluation) -> FloatArray:
        """`n x (c+1)` shortfalls in units of the bounds; the last without the target."""
        units = np.array([bound.unit for bound in self._figures.bounds[:-1]])
        return np.concatenate([-known.slack / units, -known.columns["quality"][:, None]], axis=1)

    def _best_rows(self, known: Evaluation) -> IntArray:
        """`T` rows of the cheapest candidate that meets each target and all constraints, -1 where there is none."""
        cost = known.columns[self._objective.column] * (-1.0 if self._objective.maximise else 1.0)
        cost = np.where(known.feasible, cost, np.inf)
        each = np.where(known.columns["quality"][None, :] >= self._targets[:, None], cost[None, :], np.inf)
        best = np.argmin(each, axis=1)
        return np.where(np.isfinite(each.min(axis=1)), best, -1)


def objective_of(problem: RoutingProblem) -> Metric:
    """What is minimised: the first objective that is no quality, else the cost."""
    others = [m for m in problem.objectives if not m.of_quality]
    return others[0] if others else Metric("cost")
