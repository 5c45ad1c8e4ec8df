"""Candidate deployments: the knapsack is exact, every set keeps to its rule, and nothing that matters is left out."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from offline_toy import CANDIDATES, RECIPE, fleet, lengths

from simulators.errors import ConfigError
from toolkit.deployment.candidates import make_candidates, tabulate
from toolkit.deployment.cover import cover
from toolkit.deployment.database import OfflineDatabase, make_suitability
from toolkit.deployment.knapsack import NOTHING, merge
from toolkit.deployment.needs import CandidateRecipe, cap_lattice
from toolkit.deployment.offline import replica_tables


@st.composite
def knapsacks(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    types = []
    for _ in range(draw(st.integers(1, 4))):
        n = draw(st.integers(0, 4))
        cost, value = rng.integers(1, 8, n), rng.integers(0, 9, n)
        types.append((np.append(0, cost).astype(np.float64), np.append(0, value).astype(np.float64)))
    return types, float(draw(st.integers(1, 25)))


@given(knapsacks())
@settings(max_examples=150, deadline=None)
def test_merging_is_the_best_of_all_combinations_at_every_budget(case):
    types, budget = case
    frontier = NOTHING
    for cost, value in types:
        frontier = merge(frontier, cost, value, budget)
    every = [
        tuple(sum(option[part][i] for option, i in zip(types, picks, strict=True)) for part in (0, 1))
        for picks in itertools.product(*[range(len(c)) for c, _ in types])
    ]
    for o in np.arange(0.0, budget + 0.5, 0.5):
        best = max(value for cost, value in every if cost <= o)
        at = int(frontier.within(np.array([o]))[0])
        assert frontier.value[at] == best
        picked = frontier.picks[at]
        assert sum(c[i] for (c, _), i in zip(types, picked, strict=True)) == frontier.cost[at] <= o
        assert frontier.cheapest(best) <= at
    assert (np.diff(frontier.cost) > 0).all() and (np.diff(frontier.value) > 0).all()


@given(st.integers(0, 2**31), st.integers(1, 7), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_the_lazy_cover_is_the_plain_greedy_one(seed, n, most):
    rng = np.random.default_rng(seed)
    losses, worst = rng.integers(0, 6, (n, 9)).astype(np.float64), np.full(9, 5.0)
    left, wanted = worst.copy(), []
    for _ in range(most):
        gains = np.maximum(left - losses, 0.0).sum(axis=1)
        if gains.max() <= 0:
            break
        wanted.append(int(gains.argmax()))
        left = np.minimum(left, losses[wanted[-1]])
    assert cover(n, lambda c: losses[c], worst, most) == wanted


@pytest.fixture(scope="module")
def tables():
    return replica_tables(fleet(), lengths(), recipe=RECIPE, seed=0)


def made(tables, *, budget=12.0, **options):
    recipe = dataclasses.replace(CANDIDATES, **options)
    return make_candidates(fleet(budget=budget), tables, recipe=recipe, offline=RECIPE)


@pytest.mark.parametrize("method", ["pareto_knapsack", "homogeneous", "uniform"])
def test_every_candidate_fits_and_none_comes_twice(tables, method):
    for tier in made(tables, method=method, budget=7.0):
        assert (tier.gpus <= 3).all() and (tier.usd_per_hour <= 7.0 + 1e-9).all()
        np.testing.assert_allclose(tier.usd_per_hour, tier.gpus @ [3.0, 0.6])
        assert len(np.unique(np.column_stack([tier.table, tier.replicas]), axis=0)) == len(tier)
        assert tier.gpus[0].sum() == 0 and tier.plan(0) == () and np.isinf(tier.p95_s[0]).all()
        assert (tier.gpus[1:].sum(axis=1) > 0).all()
        for c in range(1, len(tier)):
            plan = tier.plan(c)
            found = {group.replica.gpu: group.n_gpus for group in plan}
            assert [found.get(gpu, 0) for gpu in ("big", "little")] == tier.gpus[c].tolist()
            assert sum(group.share for group in plan) == pytest.approx(1.0)


def test_homogeneous_candidates_use_one_type_and_mixtures_more(tables):
    single, mixed = made(tables, method="homogeneous")[0], made(tables)[0]
    assert ((single.gpus > 0).sum(axis=1)[1:] == 1).all() and len({tuple(g > 0) for g in single.gpus[1:]}) == 2
    assert ((mixed.gpus > 0).sum(axis=1) == 2).any()


def test_uniform_candidates_take_their_tiers_share(tables):
    tier = made(tables, method="uniform", budget=7.0)[0]
    assert len(tier) > 1 and (tier.gpus <= 1).all() and (tier.usd_per_hour <= 3.5).all()


def test_fewer_candidates_are_the_first_ones(tables):
    many, few = made(tables)[0], made(tables, most=4)[0]
    assert len(few) == 5 < len(many)
    np.testing.assert_array_equal(few.table, many.table[:5])


def test_a_tier_that_nothing_carries_has_no_gpus_only(tables):
    small, large = made(tables, budget=1.0)
    assert len(small) > 1 and len(large) == 1


def test_caps_are_all_half_or_none_of_a_type():
    assert {tuple(c) for c in cap_lattice(np.array([4, 3]))} == set(itertools.product([0, 2, 4], [0, 1, 3])) - {(0, 0)}
    many = cap_lattice(np.full(6, 8))
    assert len(many) == 1 + 6 * 2 + 15 * 4 and ((many < 8).sum(axis=1) <= 2).all()


def every_deployment(tables, gpus):
    """All mixtures of one (TP, PP, replicas) per type."""
    options = [
        [
            (-1, 0),
            *((t, r) for t, x in enumerate(tables) if x.replica.gpu == g for r in range(1, 3 // x.replica.n_gpus + 1)),
        ]
        for g in gpus
    ]
    rows = list(itertools.product(*options))
    return tuple(np.array([[option[i] for option in row] for row in rows]) for i in (0, 1))


@pytest.mark.parametrize("share", [1.0, 0.7, 0.45])
def test_no_joint_optimum_is_left_out(tables, share):
    """The best of all deployments of all tiers against the best of the candidates, also within a part of the budget."""
    world = fleet(budget=11.0)
    full = tuple(
        tabulate(world, tier, of, every_deployment(of, world.gpus), recipe=CANDIDATES, offline=RECIPE)
        for tier, of in zip(world.models, tables, strict=True)
    )
    best = []
    fractions = np.column_stack([np.linspace(0, 1, 9), 1 - np.linspace(0, 1, 9)])
    few = make_candidates(world, tables, recipe=CandidateRecipe(load_points=CANDIDATES.load_points), offline=RECIPE)
    for tiers in (full, few):
        database = OfflineDatabase(
            fleet=world,
            recipe=RECIPE,
            candidate_recipe=CANDIDATES,
            edges_s=RECIPE.edges_s,
            tiers=tiers,
            suitability=make_suitability(world, tables),
        )
        choices = database.joint_choices(limit=10**7)
        best.append(database.best(fractions, choices, budget_usd_per_hour=share * 11.0)[0])
    assert sum(len(tier) for tier in few) < 0.6 * sum(len(tier) for tier in full)
    np.testing.assert_array_equal(np.isfinite(best[0]), np.isfinite(best[1]))
    finite = np.isfinite(best[0])
    assert finite.sum() >= 1 and (best[1][finite] <= best[0][finite] * 1.02).all()


@pytest.mark.parametrize("wrong", [{"method": "best"}, {"caps": "some"}, {"most": 0}])
def test_wrong_recipes_are_refused(wrong):
    with pytest.raises(ConfigError, match="candidates need"):
        CandidateRecipe(**wrong)
