"""Contract of the baseline searchers: same opening, same rules, a library behind each but the first."""

import copy
import dataclasses
import logging
import sys
import warnings

import moocore
import numpy as np
import pytest
from test_search import make_problem

from simulators.errors import ConfigError, MissingDependencyError
from toolkit.evaluation.metrics import parse_metric
from toolkit.pareto.axes import Axes, Axis, make_axes
from toolkit.problem import Evaluation, RoutingProblem, make_evaluation
from toolkit.search.base import Resumable, run_search
from toolkit.search.design import default_initial, initial_design
from toolkit.search.journal import Journal
from toolkit.search.nsga2 import Nsga2Controller
from toolkit.search.parego import ParegoController
from toolkit.search.random import RandomController
from toolkit.search.torch_tools import AcquisitionSettings, isolated, tensor
from toolkit.search.tpe import TpeController
from toolkit.search.tutorial import TutorialController, natural_reference

QUICK = AcquisitionSettings(mc_samples=4, num_restarts=1, raw_samples=4, maxiter=4, batch_limit=1)
# The problems of test_search with three tiers have an initial design of nine points; the models choose two more.
BUDGETS = {"random": 100, "nsga2": 70, "tpe": 25, "parego": 11, "tutorial": 11}
CLASSES = {c.name: c for c in (RandomController, Nsga2Controller, TpeController, ParegoController, TutorialController)}
PACKAGES = {
    "nsga2": ["pymoo"],
    "tpe": ["optuna"],
    "parego": ["botorch", "gpytorch"],
    "tutorial": ["botorch", "gpytorch"],
}
WITH_TORCH = ("parego", "tutorial")
SLOW_TORCH = [pytest.param(name, marks=pytest.mark.slow) for name in WITH_TORCH]


def make_controller(name, problem, *, budget=None, seed=3, n_initial=None, **options):
    for package in PACKAGES.get(name, []):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pytest.importorskip(package)
    if name != "random":
        options["axes"] = options.get("axes") or problem_axes(problem)
    if name in WITH_TORCH:
        options.setdefault("settings", QUICK)
    return CLASSES[name](
        problem,
        budget=BUDGETS[name] if budget is None else budget,
        n_initial=n_initial,
        design_rng=np.random.default_rng(11),
        rng=np.random.default_rng(seed),
        **options,
    )


def run(name, problem, journal=None, **options):
    return run_search(problem, make_controller(name, problem, **options), journal)


class Failing(RoutingProblem):
    """Every third candidate fails, by its first parameter, so that a replay fails alike."""

    one_in = 3

    def evaluate_params(self, params):
        found = super().evaluate_params(params)
        failed = np.array([hash(value) % self.one_in == 0 for value in params[:, 0].tolist()])
        columns = found.columns | {"quality": np.where(failed, np.nan, found.columns["quality"])}
        return make_evaluation(self, params, columns, found.tier_shares)


class AlwaysFailing(Failing):
    one_in = 1


def problem_axes(problem):
    return make_axes(problem.objectives, problem.evaluate_params(problem.corners()).columns, margin=0.1)


@pytest.mark.parametrize("name", [*(n for n in CLASSES if n not in WITH_TORCH), *SLOW_TORCH])
class TestBaselineContract:
    def test_opens_with_the_shared_design_and_spends_its_budget_on_distinct_vectors(self, name):
        problem = make_problem(constraints={"quality_floor": 0.5})
        seen = []
        controller = make_controller(name, problem)
        result = run_search(problem, controller, on_progress=lambda done, total: seen.append((done, total)))
        design = initial_design(problem, default_initial(problem), np.random.default_rng(11))
        np.testing.assert_array_equal(result.evaluation.params[: len(design)], design)
        assert len(design) < len(result.evaluation) == controller.total == BUDGETS[name]
        assert seen[-1] == (BUDGETS[name], BUDGETS[name])
        assert len({row.tobytes() for row in result.evaluation.params}) == len(result.evaluation)
        assert f"of {BUDGETS[name]} parameter vectors: better ones may exist" in result.exactness
        assert result.n_failed == 0 and len(result.front) > 0 and result.controller == name

    def test_the_design_is_capped_by_the_budget_and_sized_by_n_initial(self, name):
        problem = make_problem()
        design = initial_design(problem, 5, np.random.default_rng(11))
        for controller in (make_controller(name, problem, n_initial=5), make_controller(name, problem, budget=5)):
            np.testing.assert_array_equal(controller.ask(), design)
        np.testing.assert_array_equal(run(name, problem, budget=2).evaluation.params, design[:2])

    @pytest.mark.parametrize("kind", ["thresholds", "utility"])
    def test_same_seed_same_result(self, name, kind):
        first, second = (run(name, make_problem(kind)) for _ in range(2))
        np.testing.assert_array_equal(first.evaluation.params, second.evaluation.params)
        assert not np.array_equal(first.evaluation.params, run(name, make_problem(kind), seed=4).evaluation.params)

    @pytest.mark.parametrize("share", [0.3, 0.93])
    def test_a_cut_off_journal_ends_with_the_same_result(self, name, share, tmp_path):
        path, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
        problem = make_problem(constraints={"quality_floor": 0.5, "cost_ceiling_usd": 1.0})
        problem.__class__ = Failing
        whole = run(name, problem, Journal(path))
        raw = path.read_bytes()
        cut.write_bytes(raw[: int(len(raw) * share)])
        resumed = run(name, problem, Journal(cut))
        assert 0 < resumed.n_replayed < len(whole.evaluation) and whole.n_failed > 0
        np.testing.assert_array_equal(whole.evaluation.params, resumed.evaluation.params)
        np.testing.assert_array_equal(whole.evaluation.Y, resumed.evaluation.Y)

    @pytest.mark.parametrize("world", [Failing, AlwaysFailing])
    def test_failed_evaluations_survive(self, name, world):
        problem = make_problem(constraints={"quality_floor": 0.5})
        controller = make_controller(name, problem, budget=12)
        problem.__class__ = world
        result = run_search(problem, controller)
        assert len(result.evaluation) == 12 and result.n_failed > 0
        assert (result.n_failed == 12) == (world is AlwaysFailing)

    def test_a_problem_that_is_infeasible_everywhere_is_searched_to_the_end(self, name):
        problem = make_problem(constraints={"quality_floor": 0.999, "cost_ceiling_usd": 1e-9})
        assert len((result := run(name, problem)).evaluation) == BUDGETS[name] and len(result.front) == 0

    def test_a_space_with_few_distinct_vectors_ends(self, name):
        problem = make_problem(levels=3)
        result = run(name, problem)
        assert len({row.tobytes() for row in result.evaluation.params}) == len(result.evaluation) == 10
        assert "10 parameter vectors (no further distinct ones were found)" in result.exactness

    def test_three_objectives_and_a_utility(self, name):
        problem = make_problem("utility", k=4, objectives=("cost", "quality", "latency_p95"))
        assert len(run(name, problem, budget=13, n_initial=12).evaluation) == 13

    def test_global_state_is_untouched(self, name, capfd):
        problem = make_problem(constraints={"quality_floor": 0.5})
        controller = make_controller(name, problem)
        before = global_state()
        run_search(problem, controller)
        run(name, problem, budget=10)
        assert global_state() == before
        assert capfd.readouterr() == ("", "")

    def test_senseless_sizes_are_refused(self, name):
        problem = make_problem()
        with pytest.raises(ConfigError, match="budget must be at least 1; got 0"):
            make_controller(name, problem, budget=0)
        with pytest.raises(ConfigError, match="n_initial must be at least 1"):
            make_controller(name, problem, n_initial=0)
        if name == "nsga2":
            with pytest.raises(ConfigError, match="population must be at least 2"):
                make_controller(name, problem, population=1)


def global_state():
    """Digests of what a library could leave changed behind it."""
    state = [repr(np.random.get_state()), logging.getLogger("optuna").level, copy.copy(warnings.filters)]  # noqa: NPY002
    if (torch := sys.modules.get("torch")) is not None:
        state += [torch.random.get_rng_state().numpy().tobytes(), torch.get_num_threads(), torch.get_default_dtype()]
    return state


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_named_with_its_extra(name, monkeypatch):
    problem = make_problem()
    for module in [m for m in sys.modules if m.split(".")[0] in PACKAGES[name]]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(pytest, "importorskip", lambda package: None)
    monkeypatch.setitem(sys.modules, PACKAGES[name][0], None)
    extra = "search" if name in WITH_TORCH else "baselines"
    with pytest.raises(MissingDependencyError, match=rf"controller={name} needs .*'routefront\[{extra}\]'"):
        make_controller(name, problem)


@pytest.mark.parametrize("name", ["nsga2", "tpe"])
def test_one_objective_will_do(name):
    assert len(run(name, make_problem(objectives=("cost",)), budget=30).evaluation) == 30


@pytest.mark.parametrize("name", SLOW_TORCH)
def test_one_objective_is_refused_where_it_makes_no_sense(name):
    with pytest.raises(ConfigError, match=f"controller={name} weighs two or more objectives; got .'cost_usd'."):
        make_controller(name, make_problem(objectives=("cost",)))


@pytest.mark.parametrize("name", SLOW_TORCH)
def test_only_the_botorch_searchers_take_a_journal_as_it_is_and_only_their_own(name):
    problem = make_problem()
    whole = run(name, problem)
    known = whole.evaluation.take(np.arange(10))
    controller = make_controller(name, problem)
    assert isinstance(controller, Resumable) and controller.resume(known) == 10
    np.testing.assert_array_equal(controller.ask(), whole.evaluation.params[10:11])
    assert make_controller(name, problem).resume(known.take(np.arange(5))) == 0
    assert make_controller(name, problem).resume(known.take(np.arange(10)[::-1])) == 0
    assert make_controller(name, problem, budget=9).resume(known) == 9
    assert not isinstance(make_controller("random", problem), Resumable)


def test_natural_reference_inverts_the_axes():
    axes = Axes(
        axes=(
            Axis(column="cost_usd", maximise=False, log=True, worst=2.0, best=0.01),
            Axis(column="quality", maximise=True, log=False, worst=0.3, best=0.9),
            Axis(column="latency_p95_s", maximise=False, log=False, worst=4.0, best=4.0),
        ),
        margin=0.2,
    )
    np.testing.assert_allclose(axes.scale(natural_reference(axes)[None])[0], axes.reference)
    assert natural_reference(axes)[0] == pytest.approx(-2.0 * 200**0.2)


@pytest.mark.slow
def test_isolated_restores_threads_and_generator_after_an_error():
    torch = pytest.importorskip("torch")
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), isolated(1):
        first = torch.rand(3)
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.equal(torch.random.get_rng_state(), state) and torch.get_num_threads() == threads
    with isolated(1):
        assert torch.equal(torch.rand(3), first)
    assert tensor(np.ones((2, 1), dtype=np.float32)).dtype == torch.float64


class Cube:
    dim = 3
    decode = encode = staticmethod(lambda X: X)


class SmoothProblem:
    """Minimise the squared distances to two points of the cube, `cost` standing for the one to be made small.

    With `floor`, only `x_3 >= floor` is feasible, which the two points are not.
    """

    space, noisy = Cube(), False
    parameter_names = ("x1", "x2", "x3")
    metrics = objectives = tuple(parse_metric(name) for name in ("cost", "quality"))
    exact_columns = frozenset()
    targets = np.array([[0.2, 0.3, 0.5], [0.8, 0.6, 0.5]])

    def __init__(self, floor=None):
        self.floor, self.constraints = floor, () if floor is None else (None,)

    def evaluate_params(self, params):
        Y = -((params[:, None] - self.targets) ** 2).sum(axis=2)
        slack = np.empty((len(params), 0)) if self.floor is None else params[:, 2:] - self.floor
        return Evaluation(params=params, Y=Y, slack=slack, columns={}, tier_shares=np.empty((len(params), 0)))

    def corners(self):
        return np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])

    axes = Axes(
        axes=(
            Axis(column="cost_usd", maximise=False, log=False, worst=1.0, best=0.0),
            Axis(column="quality", maximise=True, log=False, worst=-1.0, best=0.0),
        )
    )


def hypervolume(name, *, budget, seed, floor=None, **options):
    problem = SmoothProblem(floor)
    if name != "random":
        options["axes"] = problem.axes
    controller = make_controller(name, problem, budget=budget, seed=seed, **options)
    found = run_search(problem, controller)
    if name in WITH_TORCH:
        assert controller.n_replaced == 0
    coordinates = problem.axes.scale(found.evaluation.Y[found.front])
    return moocore.hypervolume(coordinates, ref=problem.axes.reference, maximise=True)


@pytest.mark.slow
@pytest.mark.parametrize("floor", [None, 0.8])
@pytest.mark.parametrize(("name", "budget"), [("nsga2", 300), ("tpe", 80)])
def test_learners_beat_chance_on_a_smooth_problem(name, budget, floor):
    volumes = {n: [hypervolume(n, budget=budget, seed=s, floor=floor) for s in range(5)] for n in (name, "random")}
    assert np.median(volumes[name]) > np.median(volumes["random"])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_TORCH)
def test_models_beat_four_times_the_chance_on_a_smooth_problem(name):
    settings = dataclasses.replace(QUICK, mc_samples=16, num_restarts=2, raw_samples=32, maxiter=20)
    volume = hypervolume(name, budget=15, seed=0, floor=0.8, settings=settings)
    assert volume > np.median([hypervolume("random", budget=60, seed=s, floor=0.8) for s in range(5)])
