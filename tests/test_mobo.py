"""Bayesian search: what it believes, what it maximises, and what happens where there is little to believe."""

import numpy as np
import pytest
from test_search import make_problem

from simulators.errors import ConfigError, MissingDependencyError
from toolkit.evaluation.contention import make_queue_world
from toolkit.evaluation.metrics import parse_metric
from toolkit.pareto.axes import make_axes
from toolkit.pareto.indicators import hypervolume
from toolkit.problem import RoutingProblem, concatenate
from toolkit.search.base import run_search
from toolkit.search.candidates import propose
from toolkit.search.design import Seen, default_initial, initial_design
from toolkit.search.exact import ExactController
from toolkit.search.gaussian_process import fit_gp
from toolkit.search.journal import Journal
from toolkit.search.mobo import ClosedForm, MoboController, MoboOptions
from toolkit.search.registry import SEARCHERS, make_searcher
from toolkit.search.surrogate import Surrogate, make_outputs
from toolkit.synthetic import SyntheticProblem


def axes_of(problem):
    """Axes from the corners."""
    return make_axes(problem.objectives, problem.evaluate_params(problem.corners()).columns, margin=0.1)


def mobo(problem, *, budget=30, seed=0, **options):
    return MoboController(
        problem,
        axes=axes_of(problem),
        budget=budget,
        options=MoboOptions(**options),
        design_rng=np.random.default_rng(seed),
        rng=np.random.default_rng(seed + 100),
    )


def synthetic(**changes):
    options = {"dim": 3, "quality_sd": 0.0, "latency_log_sd": 0.0, "quality_floor": 0.0, "seed": 0, **changes}
    return SyntheticProblem(**options)


def loaded_problem(seed=0, **changes):
    """Thresholds on a toy table in which the middle tier has two slots."""
    plain = make_problem(n=150, objectives=("cost", "quality", "latency_p95"), seed=seed, **changes)
    world = make_queue_world(plain.table, rate_per_s=0.8, slots={"tier1": 2}, rng=np.random.default_rng(seed))
    return RoutingProblem(
        table=plain.table,
        family=plain.family,
        objectives=plain.objectives,
        constraints=plain.constraints,
        coverage=plain.coverage,
        world=world,
    )


def surrogate_of(problem, n=20, *, grey, seed=0, **options):
    data = problem.evaluate_params(initial_design(problem, n, np.random.default_rng(seed)))
    outputs = make_outputs(problem, axes_of(problem), grey=grey, logit_quality=options.get("logit", False))
    rng = np.random.default_rng(seed)
    return Surrogate(problem, outputs, data, grey=grey, fit=lambda X, y: fit_gp(X, y, rng=rng)), data


class TestOutputs:
    def test_a_floor_on_an_objective_is_no_model_of_its_own(self):
        problem = make_problem(constraints={"quality_floor": 0.6, "slice_floor": 0.4})
        outputs = make_outputs(problem, axes_of(problem), grey=False, logit_quality=False)
        assert len(outputs.constraints) == 1 and outputs.constraints[0].axis.column == "worst_slice_quality"
        j = [m.column for m in problem.objectives].index("quality")
        expected = outputs.objectives[j].coordinate(np.array([0.6]))[0]
        np.testing.assert_allclose(outputs.floor[j], expected)
        assert np.isneginf(outputs.floor[1 - j])

    def test_coordinates_of_constraints_have_our_sign(self):
        problem = make_problem(constraints={"p95_ceiling_s": 3.0, "slice_floor": 0.4, "cost_ceiling_usd": 1e-4})
        outputs = make_outputs(problem, axes_of(problem), grey=False, logit_quality=False)
        data = problem.evaluate_params(initial_design(problem, 25, np.random.default_rng(0)))
        order = [c.name for c in problem.constraints if c.metric.column not in {"cost_usd", "quality"}]
        for name, output in zip(order, outputs.constraints, strict=True):
            i = [c.name for c in problem.constraints].index(name)
            coordinate = output.coordinate(data.columns[output.axis.column])
            np.testing.assert_array_equal(coordinate >= output.threshold, data.slack[:, i] >= 0)

    def test_the_reference_is_the_published_one_on_a_logit_axis_too(self):
        problem = make_problem()
        axes = axes_of(problem)
        linear = make_outputs(problem, axes, grey=False, logit_quality=False)
        logit = make_outputs(problem, axes, grey=False, logit_quality=True)
        np.testing.assert_allclose(linear.reference, axes.reference, atol=1e-9)
        natural = axes.natural(1, -axes.margin)
        np.testing.assert_allclose(logit.reference[1], logit.objectives[1].coordinate(np.array([natural]))[0])


class TestSurrogate:
    def test_known_outputs_are_exact_and_nothing_is_fitted_to_them(self):
        problem = make_problem(n=150)
        surrogate, _ = surrogate_of(problem, grey=True)
        assert surrogate.processes == [None, None]
        params = problem.space.decode(np.random.default_rng(5).random((30, problem.space.dim)))
        belief = surrogate.predict(problem.space.encode(params), params)
        np.testing.assert_allclose(belief.mean, axes_of(problem).scale(problem.evaluate_params(params).Y), atol=1e-12)

    def test_only_what_contention_touches_is_modelled(self):
        surrogate, _ = surrogate_of(loaded_problem(), grey=True)
        assert [p is None for p in surrogate.processes] == [True, True, False]
        black, _ = surrogate_of(loaded_problem(), grey=False)
        assert all(p is not None for p in black.processes)

    def test_a_residual_over_an_approximation_predicts_better_than_a_black_box(self):
        errors = []
        for grey in (True, False):
            problem = loaded_problem()
            surrogate, _ = surrogate_of(problem, 15, grey=grey)
            params = problem.space.decode(np.random.default_rng(9).random((60, problem.space.dim)))
            truth = axes_of(problem).scale(problem.evaluate_params(params).Y)[:, 2]
            found = surrogate.predict(problem.space.encode(params), params).mean[:, 2]
            errors.append(np.sqrt(np.mean((found - truth) ** 2)))
        assert errors[0] < errors[1]

    def test_gradients_reach_through_the_acquisition(self):
        problem = synthetic(side_constraints=True)
        surrogate, _ = surrogate_of(problem, 25, grey=False)
        acquisition = ClosedForm(surrogate, smoothed=False)
        X = np.random.default_rng(1).uniform(0.1, 0.9, (6, 3))
        value, gradient = acquisition.value_and_gradient(X)
        np.testing.assert_allclose(value, acquisition.value(X, problem.space.decode(X)), rtol=1e-9)
        for k in range(3):
            step = np.zeros(3)
            step[k] = 1e-6
            high, low = (acquisition.value_and_gradient(X + s * step)[0] for s in (1, -1))
            np.testing.assert_allclose(gradient[:, k], (high - low) / 2e-6, rtol=2e-3, atol=1e-4)

    def test_pending_points_become_more_certain_and_keep_their_mean(self):
        problem = synthetic()
        surrogate, _ = surrogate_of(problem, 15, grey=False)
        X = np.array([[0.31, 0.62, 0.44]])
        before = surrogate.predict(X, X)
        after = surrogate.believe(X, X).predict(X, X)
        assert (after.sd < 0.9 * before.sd).all()
        np.testing.assert_allclose(after.mean, before.mean, atol=1e-6)

    @pytest.mark.parametrize("grey", [True, False])
    def test_a_batch_in_closed_form_is_spread(self, grey):
        problem = synthetic()
        options = {"n_initial": 11, "q": 4, "acquisition": "closed", "model": "grey" if grey else "gp"}
        batch = run_search(problem, mobo(problem, budget=15, **options)).evaluation.params[11:]
        distance = np.linalg.norm(batch[:, None] - batch[None, :], axis=2)[np.triu_indices(4, 1)]
        assert distance.min() > 0.02

    def test_the_tighter_of_two_bounds_counts(self):
        constraints = {"quality_floor": 0.6, "bounds": ["quality@slice0 >= 0.2", "worst_slice >= 0.3"]}
        problem = make_problem(constraints={**constraints, "slice_floor": 0.45})
        outputs = make_outputs(problem, axes_of(problem), grey=False, logit_quality=False)
        worst = next(o for o in outputs.constraints if o.axis.column == "worst_slice_quality")
        assert worst.axis.worst == 0.45

    def test_a_free_tier_is_no_infinity(self):
        problem = make_problem(n=100, constraints={"cost_ceiling_usd": 1e-3})
        problem.table.cost_usd[:, 0] = 0.0
        axes = make_axes(
            problem.objectives,
            problem.evaluate_params(problem.corners()).columns,
            margin=0.1,
            bounds={"cost_usd": [1e-3, 1e-5]},
        )
        controller = make_searcher("mobo", problem, axes=axes, budget=20, seed=0, model="gp")
        assert len(run_search(problem, controller).evaluation) == 20


class TestSearch:
    @pytest.mark.slow
    @pytest.mark.parametrize("model", ["grey", "gp"])
    def test_beats_a_random_search(self, model):
        problem = synthetic()
        axes = axes_of(problem)

        def found(controller):
            e = run_search(problem, controller).evaluation
            return hypervolume(axes.scale(e.Y[e.feasible]), axes.reference)

        ours = [found(mobo(problem, budget=40, seed=s, model=model)) for s in range(3)]
        theirs = [found(make_searcher("random", problem, axes=axes, budget=40, seed=s)) for s in range(3)]
        assert np.median(ours) > 1.1 * np.median(theirs)

    @pytest.mark.slow
    def test_comes_near_full_enumeration_on_an_enumerable_problem(self):
        problem = make_problem(n=300, k=4)
        axes = axes_of(problem)
        exact = run_search(problem, ExactController(problem, boundaries="auto", max_evaluations=20_000)).evaluation
        ours = run_search(problem, mobo(problem, budget=60)).evaluation
        ratio = hypervolume(axes.scale(ours.Y), axes.reference) / hypervolume(axes.scale(exact.Y), axes.reference)
        assert ratio > 0.95

    @pytest.mark.slow
    @pytest.mark.parametrize("model", ["grey", "gp"])
    def test_finds_the_feasible_region_from_none(self, model):
        problem = make_problem(n=200, k=4, constraints={"quality_floor": 0.78, "cost_ceiling_usd": 1e-3})
        controller = mobo(problem, budget=40, n_initial=8, model=model)
        result = run_search(problem, controller)
        assert result.evaluation.feasible.any()

    def test_never_feasible_is_told(self):
        problem = make_problem(constraints={"quality_floor": 0.999})
        controller = mobo(problem, budget=25)
        result = run_search(problem, controller)
        assert len(result.front) == 0 and "met no feasible point" in controller.exactness

    def test_failed_evaluations_are_left_out_and_told(self):
        problem = make_problem(n=200)

        class Failing(RoutingProblem):
            def evaluate_params(self, params):
                found = super().evaluate_params(params)
                found.Y[params[:, 0] > np.median(self.family.scores.score)] = np.nan
                return found

        problem.__class__ = Failing
        controller = mobo(problem, budget=30)
        result = run_search(problem, controller)
        assert 0 < result.n_failed < 30 and f"{result.n_failed} evaluations failed" in controller.exactness

    def test_all_failed_goes_on_at_random(self):
        problem = make_problem()

        class Failing(RoutingProblem):
            def evaluate_params(self, params):
                found = super().evaluate_params(params)
                found.Y[:] = np.nan
                return found

        axes = axes_of(problem)
        problem.__class__ = Failing
        controller = MoboController(
            problem,
            axes=axes,
            budget=20,
            options=MoboOptions(),
            design_rng=np.random.default_rng(0),
            rng=np.random.default_rng(1),
        )
        result = run_search(problem, controller)
        assert len(result.evaluation) == 20 == result.n_failed

    def test_an_exhausted_space_ends_the_search(self):
        problem = make_problem(n=40, levels=2)
        controller = mobo(problem, budget=100)
        result = run_search(problem, controller)
        assert len(result.evaluation) == 6 and "no more distinct" in controller.exactness

    @pytest.mark.parametrize("q", [1, 3])
    def test_resuming_costs_no_suggestion_and_repeats_the_uninterrupted_run(self, q, tmp_path, monkeypatch):
        problem = synthetic(quality_sd=0.01)
        options = {"budget": 26, "n_initial": 11, "q": q, "acquisition": "closed"}
        whole = run_search(problem, mobo(problem, **options), Journal(tmp_path / "whole.jsonl"))
        lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "cut.jsonl").write_text("".join(lines[:21]))
        controller = mobo(problem, **options)
        suggested = []
        suggest = MoboController._suggest
        monkeypatch.setattr(MoboController, "_suggest", lambda self, q: suggested.append(q) or suggest(self, q))
        resumed = run_search(problem, controller, Journal(tmp_path / "cut.jsonl"))
        np.testing.assert_array_equal(whole.evaluation.params, resumed.evaluation.params)
        np.testing.assert_array_equal(whole.evaluation.Y, resumed.evaluation.Y)
        assert sum(suggested) == (5 if q == 1 else 6)  # the batch that was cut off is suggested again

    def test_a_journal_of_another_design_is_refused(self, tmp_path):
        problem = synthetic()
        run_search(problem, mobo(problem, budget=14, seed=0), Journal(tmp_path / "e.jsonl"))
        with pytest.raises(Exception, match="another search"):
            run_search(problem, mobo(problem, budget=14, seed=1), Journal(tmp_path / "e.jsonl"))

    def test_one_objective(self):
        problem = make_problem(objectives=("quality",), constraints={"cost_ceiling_usd": 2e-4}, n=200)
        result = run_search(problem, mobo(problem, budget=30))
        exact = run_search(problem, ExactController(problem, boundaries="auto", max_evaluations=20_000))
        best = exact.evaluation.columns["quality"][exact.evaluation.feasible].max()
        assert result.evaluation.columns["quality"][result.evaluation.feasible].max() > best - 0.02

    def test_one_objective_and_sampling(self):
        problem = make_problem(objectives=("quality",))
        with pytest.raises(ConfigError, match="two or more objectives"):
            mobo(problem, acquisition="qlognehvi")
        assert len(run_search(problem, mobo(problem, budget=14, q=2)).evaluation) == 14  # auto: the closed form
        with pytest.raises(ConfigError, match="logit"):
            mobo(make_problem(objectives=("cost", "latency_p95")), quality_axis="logit")

    def test_senseless_options(self):
        for options in ({"budget": 0}, {"q": 0}):
            with pytest.raises(ConfigError, match="at least 1"):
                mobo(make_problem(), **options)


class TestBotorch:
    @pytest.fixture(autouse=True)
    def _needs_botorch(self):
        pytest.importorskip("botorch")

    def test_its_fit_gives_the_same_model(self):
        from toolkit.search.monte_carlo import fit_by_botorch

        rng = np.random.default_rng(3)
        X = rng.random((30, 3))
        y = np.sin(3 * X[:, 0]) + X[:, 1] + 0.01 * rng.standard_normal(30)
        ours, theirs = fit_gp(X, y, rng=rng), fit_by_botorch(X, y)
        assert ours.objective >= theirs.objective - 1e-3
        at = rng.random((20, 3))
        np.testing.assert_allclose(ours.predict(at)[0], theirs.predict(at)[0], atol=0.02)

    @pytest.mark.parametrize("grey", [True, False])
    def test_its_models_believe_what_ours_do(self, grey):
        import torch

        from toolkit.search.monte_carlo import _model

        problem = loaded_problem(constraints={"slice_floor": 0.3})
        surrogate, _ = surrogate_of(problem, 15, grey=grey)
        params = problem.space.decode(np.random.default_rng(2).random((10, problem.space.dim)))
        X = problem.space.encode(params)
        belief = surrogate.predict(X, problem.space.decode(X))
        mean = np.concatenate([belief.mean, belief.slack_mean], axis=1)
        for i in range(4):
            model = _model(problem, surrogate, i)
            with torch.no_grad():
                found = model.posterior(torch.from_numpy(X))
            np.testing.assert_allclose(found.mean.squeeze(-1).numpy(), mean[:, i], atol=2e-4)

    @pytest.mark.slow
    @pytest.mark.parametrize("grey", [True, False])
    def test_the_closed_form_ranks_candidates_as_its_monte_carlo_does(self, grey):
        from scipy.stats import spearmanr

        from toolkit.search.monte_carlo import _Sampled

        problem = loaded_problem()
        surrogate, _ = surrogate_of(problem, 12, grey=grey)
        params = problem.space.decode(np.random.default_rng(4).random((40, problem.space.dim)))
        X = problem.space.encode(params)
        closed = ClosedForm(surrogate, smoothed=True).value(X, params)
        sampled = _Sampled(problem, surrogate, 0).value(X, params)
        assert spearmanr(closed, sampled).statistic > 0.8

    @pytest.mark.slow
    def test_batches_with_pending_points(self):
        problem = synthetic()
        controller = mobo(problem, budget=14, n_initial=11, q=3, model="gp")
        result = run_search(problem, controller)
        batch = result.evaluation.params[11:]
        assert len(batch) == 3
        distance = np.linalg.norm(batch[:, None] - batch[None, :], axis=2)[np.triu_indices(3, 1)]
        assert distance.min() > 1e-3

    @pytest.mark.slow
    def test_global_random_state_is_left_alone(self):
        import torch

        problem = synthetic()
        torch.manual_seed(5)
        before = torch.random.get_rng_state().clone()
        run_search(problem, mobo(problem, budget=12, n_initial=10, acquisition="qlognehvi"))
        assert torch.equal(before, torch.random.get_rng_state())


def test_without_torch_the_closed_form_works_and_the_rest_says_what_to_install(monkeypatch):
    import builtins

    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] in {"torch", "botorch", "gpytorch"}:
            raise ImportError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    problem = synthetic()
    run_search(problem, mobo(problem, budget=13))
    with pytest.raises(MissingDependencyError, match="routefront\\[search\\]"):
        run_search(problem, mobo(problem, budget=13, acquisition="qlognehvi"))


def test_propose_never_repeats_and_prefers_the_peak():
    problem = synthetic()
    peak = np.array([0.2, 0.7, 0.4])

    class Bump:
        differentiable = False

        def value(self, X, params):
            return -np.linalg.norm(X - peak, axis=1)

    seen = Seen()
    rows = []
    for seed in range(5):
        row = propose(problem, Bump(), np.empty((0, 3)), seen, np.random.default_rng(seed))
        assert seen.add(row)
        rows.append(row)
    assert np.linalg.norm(np.array(rows) - peak, axis=1).max() < 0.05


def test_all_searchers_share_the_initial_design():
    pytest.importorskip("pymoo")
    pytest.importorskip("optuna")
    problem = make_problem(n=300)
    axes = axes_of(problem)
    n = default_initial(problem)
    designs = []
    for kind in SEARCHERS:
        if kind == "boute":  # for deployments alone; tests/test_boute_search.py compares its design
            continue
        if kind in {"parego", "tutorial"} and pytest.importorskip("botorch") is None:
            continue
        controller = make_searcher(kind, problem, axes=axes, budget=n, seed=3)
        designs.append(run_search(problem, controller).evaluation.params)
    for design in designs[1:]:
        np.testing.assert_array_equal(design, designs[0])
    with pytest.raises(ConfigError, match="not known"):
        make_searcher("magic", problem, axes=axes, budget=5, seed=0)


def test_noise_depends_on_the_parameters_alone():
    noisy = synthetic(quality_sd=0.05, latency_log_sd=0.1)
    params = np.random.default_rng(0).random((7, 3))
    together = noisy.evaluate_params(params)
    alone = concatenate([noisy.evaluate_params(row[None]) for row in params[::-1]])
    np.testing.assert_array_equal(together.Y, alone.Y[::-1])
    truth = noisy.truth(params)
    np.testing.assert_array_equal(truth.columns["cost_usd"], together.columns["cost_usd"])
    assert (truth.columns["quality"] != together.columns["quality"]).all()
    assert parse_metric("quality") in noisy.objectives
