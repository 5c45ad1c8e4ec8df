"""A deployment problem with closed forms: one load fraction, two tiers, GPUs that have to fit."""

from types import SimpleNamespace

import numpy as np

from toolkit.evaluation.constraints import parse_constraints
from toolkit.evaluation.metrics import Metric
from toolkit.pareto.axes import make_axes
from toolkit.problem import make_evaluation
from toolkit.search.boute import BouteController, BouteOptions

GPUS = np.array([[8, 8, 8], [8, 8, 8]])
RATE = 20.0


def candidates(rng, n, speed):
    """`n` deployments of a tier: GPUs of three types, their price, the load they carry, their latency when idle."""
    gpus = rng.integers(0, 9, (n, 3))
    gpus[gpus.sum(axis=1) == 0, 0] = 1
    capacity = gpus @ np.array([4.0, 2.5, 1.0]) * speed
    idle_s = 2.0 / speed * (gpus @ np.array([0.7, 1.0, 1.6])) / gpus.sum(axis=1)
    return gpus, gpus @ np.array([3.0, 1.5, 0.6]), capacity, idle_s


class ToyProblem:
    """Parameters: the small tier's load fraction (a threshold on uniform scores), a deployment per tier."""

    noisy = False
    parameter_names = ("t_1", "deploy_small", "deploy_large")

    def __init__(self, *, n=40, budget_usd=30.0, seed=0, free=False, floor=0.0, ceiling_s=None, approximate=False):
        rng = np.random.default_rng(seed)
        self.tiers = [candidates(rng, n, 1.5), candidates(rng, n, 0.6)]
        self._has_approximation = approximate
        self.objectives = (Metric("quality"), Metric("latency_p95"))
        given = {"quality_floor": floor} if floor else {}
        given |= {"p95_ceiling_s": ceiling_s} if ceiling_s else {}
        given |= {"bounds": [f"fleet_cost <= {budget_usd}"]} if free else {}
        self.constraints = parse_constraints(given)
        self.metrics = (*self.objectives, Metric("fleet_cost"))
        self.exact_columns = frozenset({"quality", "fleet_usd_per_hour"})
        pairs = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), axis=-1).reshape(-1, 2)
        (small, price_small, *_), (large, price_large, *_) = self.tiers
        fits = price_small[pairs[:, 0]] + price_large[pairs[:, 1]] <= budget_usd
        fits &= (small[pairs[:, 0]] + large[pairs[:, 1]] <= 10).all(axis=1)
        self.choices = pairs if free else pairs[fits]
        self.space = ToySpace(self.choices)

    def features(self, params):
        a, b = params[:, 1:].astype(int).T
        (small, _, _, _), (large, _, _, _) = self.tiers
        deployment = np.concatenate([small[a] / 8, large[b] / 8], axis=1)
        used = deployment.sum(axis=1)
        suited = deployment @ np.array([0.2, 0.5, 1.0, 1.0, 0.6, 0.1])
        return SimpleNamespace(routing=params[:, :1], deployment=deployment, preference=suited / used)

    def columns(self, params):
        f, (a, b) = params[:, 0], params[:, 1:].astype(int).T
        latency = np.zeros(len(params))
        for load, (_, _, capacity, idle_s), choice in zip((f, 1 - f), self.tiers, (a, b), strict=True):
            room = np.maximum(1.0 - load * RATE / capacity[choice], 1e-3)
            latency += load * (idle_s[choice] / room) ** 4
        return {
            "quality": 0.9 - 0.35 * f**1.5,
            "latency_p95_s": latency**0.25,
            "fleet_usd_per_hour": self.tiers[0][1][a] + self.tiers[1][1][b],
        }

    def evaluate_params(self, params):
        return make_evaluation(self, params, self.columns(params), np.stack([params[:, 0], 1 - params[:, 0]], axis=1))

    def exact(self, params):
        found = self.columns(params)
        return {name: found[name] for name in self.exact_columns}

    def approximate(self, params):
        if not self._has_approximation:
            return {}
        return {"latency_p95_s": self.columns(params)["latency_p95_s"] ** 0.8}

    def corners(self):
        usd = self.columns(np.c_[np.zeros(len(self.choices)), self.choices])["fleet_usd_per_hour"]
        dearest = self.choices[np.argmax(usd)]
        return np.array([[f, *dearest] for f in (0.0, 1.0)], dtype=float)

    def everything(self, steps=101):
        """All choices at `steps` fractions."""
        f = np.linspace(0.0, 1.0, steps)
        return np.concatenate([np.c_[np.full(len(self.choices), x), self.choices] for x in f])


class ToySpace:
    """Fractions in steps of a thousandth, then the small tier's pick, then the large one's among those that fit it."""

    dim = 3

    def __init__(self, choices):
        self._choices = choices
        self._first, self._start, self._count = np.unique(choices[:, 0], return_index=True, return_counts=True)
        self._code = choices @ [1000, 1]

    def decode(self, X):
        k = np.minimum((X[:, 1] * len(self._first)).astype(int), len(self._first) - 1)
        row = self._start[k] + np.minimum((X[:, 2] * self._count[k]).astype(int), self._count[k] - 1)
        return np.c_[np.round(X[:, 0], 3), self._choices[row]].astype(float)

    def encode(self, params):
        choice = params[:, 1:].astype(int)
        k = np.minimum(np.searchsorted(self._first, choice[:, 0]), len(self._first) - 1)
        row = np.searchsorted(self._code, choice @ [1000, 1])
        return np.c_[params[:, 0], (k + 0.5) / len(self._first), (row - self._start[k] + 0.5) / self._count[k]]


def toy_axes(problem):
    ends = {"quality": [0.5, 0.9], "latency_p95_s": [60.0, 2.0]}
    bounds = {m.column: ends[m.column] for m in problem.objectives}
    return make_axes(problem.objectives, problem.columns(problem.corners()), margin=0.1, bounds=bounds)


def boute(problem, *, budget=40, seed=0, **options):
    return BouteController(
        problem,
        axes=toy_axes(problem),
        budget=budget,
        options=BouteOptions(**options),
        design_rng=np.random.default_rng(seed),
        rng=np.random.default_rng(seed + 100),
    )
