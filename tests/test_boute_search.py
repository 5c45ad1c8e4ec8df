"""`boute`: what it proposes, when it stops, that it resumes, and what it refuses."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import yaml
from boute_toy import ToyProblem, boute, toy_axes
from hypothesis import given, settings
from hypothesis import strategies as st
from test_search import make_problem

from simulators.errors import ConfigError
from toolkit.search.base import Resumable, run_search
from toolkit.search.boute import BouteController, BouteOptions
from toolkit.search.boute_candidates import ChoiceIndex
from toolkit.search.boute_space import structured
from toolkit.search.boute_stopping import SolutionWatch
from toolkit.search.design import initial_design
from toolkit.search.journal import Journal
from toolkit.search.mobo import ClosedForm
from toolkit.search.surrogate import Surrogate

SMALL = {"n": 12, "seed": 1}


def searched(problem, **options):
    controller = boute(problem, **options)
    return run_search(problem, controller).evaluation, controller


def surrogate_of(controller, data):
    usable = controller._view.usable(data)
    return Surrogate(controller._view, controller._outputs, usable, grey=controller._grey, fit=controller._fits.all())


class TestChoiceIndex:
    @given(seed=st.integers(0, 10**6), m=st.integers(1, 3))
    @settings(max_examples=40, deadline=None)
    def test_swaps_differ_in_one_tier(self, seed, m):
        rng = np.random.default_rng(seed)
        choices = np.unique(rng.integers(0, 5, (40, m)), axis=0)
        index = ChoiceIndex(rng.permutation(choices))
        row = int(rng.integers(len(choices)))
        differ = (index.choices != index.choices[row]).sum(axis=1)
        assert sorted(index.swaps(row, 100, rng)) == list(np.flatnonzero(differ == 1))
        assert len(index.swaps(row, 2, rng)) <= 2 * m

    def test_finds_what_is_there(self):
        choices = np.array([[3, 1], [0, 2], [4, 0]])
        index = ChoiceIndex(choices)
        np.testing.assert_array_equal(index.find(choices), [0, 1, 2])
        np.testing.assert_array_equal(index.find(np.array([[3, 2], [9, 1], [0, 1]])), [-1, -1, -1])


class TestProposals:
    @pytest.mark.parametrize("model", ["grey", "gp"])
    def test_only_structurally_feasible_choices_and_none_twice(self, model):
        problem = ToyProblem(**SMALL)
        found, _ = searched(problem, budget=20, model=model)
        allowed = {tuple(row) for row in problem.choices}
        assert all(tuple(row) in allowed for row in found.params[:, 1:].astype(int))
        assert len(np.unique(found.params, axis=0)) == len(found) == 20

    def test_the_initial_design_is_the_shared_one_without_corners(self):
        problem = ToyProblem()
        shared = initial_design(problem, 2 + 8, np.random.default_rng(5))
        np.testing.assert_array_equal(boute(problem, seed=5).ask(), shared[2:])
        assert len(boute(problem, n_initial=3).ask()) == 3

    def test_without_exclusion_the_budget_is_a_constraint_that_it_learns_to_keep(self):
        problem = ToyProblem(free=True)
        assert len(problem.choices) == 1600
        found, _ = searched(problem, budget=24, patience=None)
        assert found.feasible[8:].mean() > 0.8 > found.feasible[:8].mean()

    def test_performance_constraints_bend_the_search(self):
        bounded = ToyProblem(floor=0.75, ceiling_s=10.0)
        aware, _ = searched(bounded, budget=24, patience=None)
        unaware, _ = searched(ToyProblem(), budget=24, patience=None)
        np.testing.assert_array_equal(aware.params[:8], unaware.params[:8])
        lucky = bounded.evaluate_params(unaware.params[8:]).feasible
        assert aware.feasible[8:].sum() > 1.5 * lucky.sum()

    def test_overload_is_learned_from_and_not_left_out(self):
        problem = ToyProblem(**SMALL)
        evaluate = problem.evaluate_params

        def with_overload(params):
            found = evaluate(params)
            late = found.Y[:, 1] < -20.0
            found.Y[late, 1] = -np.inf
            found.columns["latency_p95_s"][late] = np.inf
            return found

        problem.evaluate_params = with_overload
        found, controller = searched(problem, budget=14, patience=None)
        lost = ~found.ok
        assert lost[:8].any() and f"{lost.sum()} evaluations failed" in controller.exactness
        usable = controller._view.usable(found)
        assert len(usable) == 14 and usable.columns["latency_p95_s"].max() == 120.0

    def test_missing_figures_are_left_out(self):
        problem = ToyProblem(**SMALL)
        evaluate = problem.evaluate_params

        def with_holes(params):
            found = evaluate(params)
            found.Y[params[:, 0] > 0.5] = np.nan
            return found

        problem.evaluate_params = with_holes
        found, controller = searched(problem, budget=13, patience=None)
        assert len(found) == 13 and len(controller._view.usable(found)) == found.ok.sum() < 13

    def test_one_objective(self):
        problem = ToyProblem(floor=0.78, **SMALL)
        problem.objectives = problem.objectives[1:]
        found, _ = searched(problem, budget=40, patience=None)
        everything = problem.evaluate_params(problem.everything())
        best = everything.columns["latency_p95_s"][everything.feasible].min()
        assert found.columns["latency_p95_s"][found.feasible].min() < 1.02 * best

    def test_batches_are_distinct(self):
        found, _ = searched(ToyProblem(**SMALL), budget=17, q=3, acquisition="closed", patience=None)
        assert len(np.unique(found.params, axis=0)) == 17

    def test_a_space_that_is_used_up_ends_the_search(self):
        problem = ToyProblem(n=3, budget_usd=60.0)
        space = problem.space
        decode = space.decode
        space.decode = lambda X: np.c_[np.round(decode(X)[:, :1] * 2) / 2, decode(X)[:, 1:]]
        found, controller = searched(problem, budget=200, patience=None)
        assert len(found) < 200 and "no more distinct" in controller.exactness

    @pytest.mark.slow
    def test_finds_the_optimum_that_enumeration_finds(self):
        hits = 0
        for seed in range(10):
            problem = ToyProblem(n=12, budget_usd=45.0, seed=seed, floor=0.78)
            everything = problem.evaluate_params(problem.everything(1001))
            best = everything.columns["latency_p95_s"][everything.feasible].min()
            found, _ = searched(problem, budget=50, seed=seed, stop_on="choice")
            hits += found.columns["latency_p95_s"][found.feasible].min() <= best * 1.01
        assert hits >= 9


class TestOptions:
    def test_what_is_known_is_not_modelled(self):
        problem = ToyProblem(**SMALL)
        for model, known in (("grey", [True, False]), ("auto", [True, False]), ("gp", [False, False])):
            controller = boute(problem, model=model)
            data = problem.evaluate_params(controller.ask())
            processes = surrogate_of(controller, data).processes
            assert [process is None for process in processes] == known
        assert not processes[0].layout.joint and processes[1].layout.joint

    def test_options_reach_the_kernel(self):
        problem = ToyProblem(**SMALL)

        def hyper(**options):
            controller = boute(problem, model="gp", n_initial=20, **options)
            return [p.hyper for p in surrogate_of(controller, problem.evaluate_params(controller.ask())).processes]

        assert hyper()[1].beta != 0.0 < hyper()[1].phi
        assert hyper(preference=False)[1].beta == 0.0 < hyper(preference=False)[1].phi
        assert hyper(interaction=False)[1].phi == 0.0 != hyper(interaction=False)[1].beta
        assert hyper()[0].a_c == 0.0 < hyper(quality_kernel="joint")[0].a_c

    def test_transforms(self):
        problem = ToyProblem(floor=0.7, ceiling_s=20.0, **SMALL)
        natural = boute(problem, transforms=False)._outputs
        modelled = boute(problem, model="gp")._outputs
        grey = boute(problem)._outputs
        assert [(o.axis.log, o.axis.logit) for o in natural.objectives] == [(False, False)] * 2
        assert [(o.axis.log, o.axis.logit) for o in modelled.objectives] == [(False, True), (True, False)]
        assert [(o.axis.log, o.axis.logit) for o in grey.objectives] == [(False, False), (True, False)]
        axes = toy_axes(problem)
        for outputs in (natural, modelled, grey):
            for j, output in enumerate(outputs.objectives):
                limits = np.array([axes.natural(j, -axes.margin), [0.7, 20.0][j]])
                expected = [outputs.reference[j], output.threshold]
                np.testing.assert_allclose(output.coordinate(limits), expected, atol=1e-9)

    @pytest.mark.parametrize(
        "option",
        [
            {"preference": False},
            {"interaction": False},
            {"transforms": False},
            {"model": "gp"},
            {"model": "gp", "quality_kernel": "joint"},
            pytest.param({"fit": "botorch"}, marks=pytest.mark.slow),
            pytest.param({"acquisition": "qlognehvi"}, marks=pytest.mark.slow),
        ],
        ids=str,
    )
    def test_ablations_change_the_search(self, option):
        budget = 12
        if {"fit", "acquisition"} & set(option):
            pytest.importorskip("botorch")
            budget = 10
        usual, _ = searched(ToyProblem(**SMALL), budget=budget)
        other, _ = searched(ToyProblem(**SMALL), budget=budget, **option)
        np.testing.assert_array_equal(usual.params[:8], other.params[:8])
        assert (usual.params[8:] != other.params[8:]).any()

    def test_an_approximation_helps(self):
        errors = []
        for approximate in (True, False):
            problem = ToyProblem(approximate=approximate)
            controller = boute(problem, n_initial=20)
            surrogate = surrogate_of(controller, problem.evaluate_params(controller.ask()))
            params = problem.space.decode(np.random.default_rng(9).random((200, 3)))
            truth = controller._view.cut(problem.columns(params))["latency_p95_s"]
            expected = controller._outputs.objectives[1].coordinate(truth)
            found = surrogate.predict(controller._view.space.encode(params), params).mean[:, 1]
            errors.append(np.sqrt(np.mean((found - expected) ** 2)))
        assert errors[0] < 0.5 * errors[1]

    @pytest.mark.slow
    def test_the_closed_form_ranks_candidates_as_monte_carlo_does(self):
        pytest.importorskip("botorch")
        from scipy.stats import spearmanr

        from toolkit.search.monte_carlo import _Sampled

        problem = ToyProblem()
        for model in ("grey", "gp"):
            controller = boute(problem, n_initial=15, model=model)
            surrogate = surrogate_of(controller, problem.evaluate_params(controller.ask()))
            params = problem.space.decode(np.random.default_rng(4).random((40, 3)))
            X = controller._view.space.encode(params)
            closed = ClosedForm(surrogate, smoothed=True).value(X, params)
            sampled = _Sampled(controller._view, surrogate, 0).value(X, params)
            assert spearmanr(closed, sampled).statistic > 0.8

    def test_what_does_not_fit_is_refused(self):
        with pytest.raises(ConfigError, match="controller=boute needs .* use controller=mobo"):
            structured(make_problem())
        problem = ToyProblem(**SMALL)
        for options, said in (
            ({"budget": 0}, "at least 1"),
            ({"q": 0}, "at least 1"),
            ({"n_initial": 0}, "n_initial must be at least 1"),
            ({"patience": 0}, "patience must be at least 1"),
        ):
            with pytest.raises(ConfigError, match=said):
                boute(problem, **options)
        problem.objectives = problem.objectives[:1]  # quality
        with pytest.raises(ConfigError, match="needs two or more objectives"):
            boute(problem, acquisition="qlognehvi")
        with pytest.raises(ConfigError, match="needs a latency among the objectives"):
            boute(problem, stop_on="choice")

    def test_the_config_holds_the_defaults(self):
        path = Path(__file__).parent.parent / "conf" / "controller" / "boute.yaml"
        assert yaml.safe_load(path.read_text()) == {"kind": "boute", **dataclasses.asdict(BouteOptions())}


class TestStopping:
    @staticmethod
    def watch(problem, **options):
        return SolutionWatch(problem, toy_axes(problem), **{"stop_on": "front", "n_initial": 0, **options})

    def evaluations(self, problem, n, seed=0):
        return problem.evaluate_params(problem.space.decode(np.random.default_rng(seed).random((n, 3))))

    def test_stops_after_more_than_patience_evaluations_without_a_change(self):
        problem = ToyProblem()
        data = self.evaluations(problem, 30)
        best = int(np.argmax(data.Y[:, 1]))
        watch = self.watch(problem, stop_on="choice", patience=5)
        watch.tell(data.take(np.array([best])))
        others = [i for i in range(30) if i != best]
        for i, row in enumerate(others[:6]):
            assert not watch.stopped and watch.unchanged == i
            watch.tell(data.take(np.array([row])))
        assert watch.stopped and watch.unchanged == 6

    def test_a_change_starts_the_count_anew_and_the_design_does_not_count(self):
        problem = ToyProblem()
        data = self.evaluations(problem, 12)
        rising = data.take(np.argsort(data.Y[:, 1]))
        watch = self.watch(problem, stop_on="choice", patience=3, n_initial=4)
        watch.tell(rising.take(np.arange(12)))
        assert not watch.stopped and watch.unchanged == 0
        falling = rising.take(np.arange(11, -1, -1))
        watch = self.watch(problem, stop_on="choice", patience=3, n_initial=4)
        watch.tell(falling.take(np.arange(4)))
        assert watch.unchanged == 0
        watch.tell(falling.take(np.arange(4, 8)))
        assert watch.stopped and watch.unchanged == 4

    def test_a_creep_counts_once_it_adds_up(self):
        problem = ToyProblem()
        data = problem.evaluate_params(np.array([[0.3, *problem.choices[0]]]))
        data.Y[0] = [0.8, -10.0]
        watch = self.watch(problem, patience=50)
        watch.tell(data)
        counts = []
        for step in range(30):
            better = data.take(np.zeros(1, dtype=int))
            better.Y[0] = data.Y[0] * [1.0, 1.0 - 2e-4 * (step + 1)]
            watch.tell(better)
            counts.append(watch.unchanged)
        assert max(counts) > 3 and 0 in counts[3:]

    def test_nothing_feasible_never_settles(self):
        problem = ToyProblem(floor=0.95)
        watch = self.watch(problem, patience=2)
        watch.tell(self.evaluations(problem, 20))
        assert not watch.stopped and watch.unchanged == 0

    @pytest.mark.parametrize("stop_on", ["front", "choice"])
    def test_a_search_says_how_it_ended(self, stop_on):
        problem = ToyProblem(n=6, seed=1, floor=0.78)
        found, controller = searched(problem, budget=90, stop_on=stop_on, patience=4)
        assert len(found) < 90 and "stopped by patience" in controller.exactness
        assert "unchanged for 5 evaluations" in controller.exactness
        found, controller = searched(problem, budget=12, patience=None)
        assert len(found) == 12 and "the budget ended it" in controller.exactness


class TestRepeats:
    @pytest.mark.parametrize("q", [1, 2])
    def test_a_resumed_search_repeats_the_uninterrupted_one(self, q, tmp_path, monkeypatch):
        options = {"budget": 23, "q": q, "acquisition": "closed", "patience": 6}
        problem = ToyProblem(**SMALL)
        whole = run_search(problem, boute(problem, **options), Journal(tmp_path / "whole.jsonl"))
        lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
        assert len(lines) > 18
        (tmp_path / "cut.jsonl").write_text("".join(lines[:18]))
        controller = boute(problem, **options)
        assert isinstance(controller, Resumable)
        suggested = itertools.count()
        suggest = BouteController._suggest
        monkeypatch.setattr(BouteController, "_suggest", lambda self, k: (next(suggested), suggest(self, k))[1])
        resumed = run_search(problem, controller, Journal(tmp_path / "cut.jsonl"))
        np.testing.assert_array_equal(whole.evaluation.params, resumed.evaluation.params)
        np.testing.assert_array_equal(whole.evaluation.Y, resumed.evaluation.Y)
        assert whole.exactness == resumed.exactness
        assert next(suggested) == -(-(len(whole.evaluation) - 18) // q)  # nothing is suggested for its past

    def test_same_seed_same_search_other_seed_another(self):
        first, again, other = (searched(ToyProblem(**SMALL), budget=13, seed=s)[0].params for s in (3, 3, 4))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    def test_a_journal_of_another_design_is_not_taken(self):
        problem = ToyProblem(**SMALL)
        found, _ = searched(problem, budget=10, seed=0)
        assert boute(problem, budget=10, seed=1).resume(found) == 0

    @pytest.mark.slow
    def test_sampling_leaves_global_random_state_alone(self):
        torch = pytest.importorskip("torch")
        pytest.importorskip("botorch")
        torch.manual_seed(5)
        before = torch.random.get_rng_state().clone()
        searched(ToyProblem(**SMALL), budget=9, acquisition="qlognehvi")
        assert torch.equal(before, torch.random.get_rng_state())
