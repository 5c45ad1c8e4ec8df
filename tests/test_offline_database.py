"""Look-ups of whole deployments: mixtures by hand, what is infeasible, what fits, files, and the simulation itself."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from offline_toy import CANDIDATES, RECIPE, database, fleet, lengths

import toolkit.deployment.database as module
from simulators.deployment.fleet import simulate_plan
from simulators.deployment.plan import FleetPlan
from simulators.errors import ConfigError, InputDataError
from toolkit.deployment.database import OfflineDatabase, make_database
from toolkit.deployment.offline import OfflineRecipe, quantile_of


@pytest.fixture(scope="module")
def toy():
    return database()


def draw(toy, n=200, seed=0):
    rng = np.random.default_rng(seed)
    first = rng.choice([0.0, 0.05, 0.3, 0.8, 1.0], n)
    choice = np.column_stack([rng.integers(0, len(tier), n) for tier in toy.tiers])
    return np.column_stack([first, 1 - first]), choice


def by_hand(toy, fractions, choice):
    """One mixture (`B`), or None where it cannot be served."""
    total = np.zeros(len(toy.edges_s))
    for m, tier in enumerate(toy.tiers):
        load, loads, c = fractions[m] * toy.fleet.rate_per_s, tier.loads_per_s[choice[m]], choice[m]
        if fractions[m] > 0:
            if c == 0 or load > loads[-1] * (1 + 1e-9):
                return None
            at = [np.interp(load, loads, tier.cdf[c, :, b]) for b in range(len(total))]
            total += fractions[m] * np.array(at)
    return total


@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
def test_pooled_quantiles_are_those_of_the_mixture(toy, q):
    fractions, choice = draw(toy)
    found = toy.latency_s(q, fractions, choice)
    mixtures = [by_hand(toy, f, c) for f, c in zip(fractions, choice, strict=True)]
    wanted = [np.inf if mix is None else float(quantile_of(mix, toy.edges_s, q)) for mix in mixtures]
    assert 20 < np.isfinite(wanted).sum() < 200
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_the_largest_of_the_tiers_is_the_pooled_one_of_the_slower_tier_alone(toy):
    fractions, choice = draw(toy)
    largest = toy.latency_s(0.95, fractions, choice, system="max")
    assert (largest >= toy.latency_s(0.95, fractions, choice) * (1 - 1e-9)).all()
    alone = fractions.max(axis=1) == 1.0
    np.testing.assert_allclose(largest[alone], toy.latency_s(0.95, fractions[alone], choice[alone]))


def test_shares_and_means_agree_with_the_quantiles(toy):
    fractions, choice = draw(toy)
    limit = toy.latency_s(0.9, fractions, choice)
    for i in np.flatnonzero(np.isfinite(limit))[:20]:
        found = toy.share_within(float(limit[i]), fractions[i : i + 1], choice[i : i + 1])[0]
        assert found == pytest.approx(0.9, abs=1e-6)
    mean = toy.mean_latency_s(fractions, choice)
    served = [by_hand(toy, f, c) is not None for f, c in zip(fractions, choice, strict=True)]
    np.testing.assert_array_equal(np.isfinite(mean), served)
    assert (toy.share_within(1e6, fractions, choice)[~np.array(served)] == 0).all()
    row = int(np.flatnonzero(served)[0])
    mix = by_hand(toy, fractions[row], choice[row])
    middles = np.sqrt(toy.edges_s * np.append(toy.edges_s[0], toy.edges_s[:-1]))
    wanted = np.diff(mix, prepend=0.0) @ middles + (1 - mix[-1]) * toy.edges_s[-1]
    assert mean[row] == pytest.approx(wanted)


def test_requests_without_gpus_or_beyond_the_tables_never_end_and_no_requests_need_none(toy):
    tier = toy.tiers[0]
    ends = np.isclose(tier.loads_per_s[:, -1], toy.fleet.rate_per_s)
    weak, strong = int(np.flatnonzero(~ends)[0]), int(np.flatnonzero(ends & (tier.usd_per_hour > 0))[0])
    fractions = np.array([[1.0, 0.0], [1.0, 0.0], [0.99, 0.01], [1.0, 0.0]])
    choice = np.array([[strong, 0], [0, 0], [strong, 0], [weak, 0]])
    assert np.isinf(toy.latency_s(0.95, fractions, choice)).tolist() == [False, True, True, True]


def test_chunks_change_nothing(toy, monkeypatch):
    fractions, choice = draw(toy)
    whole = toy.latency_s(0.95, fractions, choice)
    monkeypatch.setattr(module, "_CHUNK", 7)
    np.testing.assert_array_equal(whole, toy.latency_s(0.95, fractions, choice))
    assert toy.latency_s(0.95, fractions[:0], choice[:0]).shape == (0,)


def test_joint_choices_are_exactly_those_that_fit(toy):
    sizes = [range(len(tier)) for tier in toy.tiers]
    every = np.array(list(itertools.product(*sizes)))
    usd, gpus = toy.structural(every)
    fits = (usd >= -1e-9) & (gpus >= 0).all(axis=1) & (every > 0).any(axis=1)
    np.testing.assert_array_equal(toy.joint_choices(), every[fits])
    assert 0 < fits.sum() < len(every)
    a, b = toy.tiers
    np.testing.assert_allclose(usd, 12.0 - a.usd_per_hour[every[:, 0]] - b.usd_per_hour[every[:, 1]])
    np.testing.assert_array_equal(gpus, 3 - a.gpus[every[:, 0]] - b.gpus[every[:, 1]])
    cheap = toy.joint_choices(5.0)
    np.testing.assert_array_equal(cheap, every[fits & (usd >= 12.0 - 5.0 - 1e-9)])


def test_a_limit_keeps_the_first_candidates_of_every_tier(toy):
    every = toy.joint_choices()
    few = toy.joint_choices(limit=len(every) // 2)
    assert 0 < len(few) <= len(every) // 2
    assert {tuple(row) for row in few.tolist()} <= {tuple(row) for row in every.tolist()}
    inside = (every <= few.max(axis=0)).all(axis=1)
    np.testing.assert_array_equal(few, every[inside])
    with pytest.raises(ConfigError, match="at least 1"):
        toy.joint_choices(limit=0)


def test_the_best_choice_is_the_best_of_all(toy):
    choices, fractions = toy.joint_choices(), np.array([[0.2, 0.8], [0.9, 0.1], [1.0, 0.0]])
    lowest, best = toy.best(fractions, choices)
    for i, f in enumerate(fractions):
        each = [toy.latency_s(0.95, f[None], c[None])[0] for c in choices]
        assert lowest[i] == min(each) == toy.latency_s(0.95, f[None], best[i : i + 1])[0]
    dear, _ = toy.best(fractions, choices, budget_usd_per_hour=7.0)
    assert (dear >= lowest).all()
    with pytest.raises(ConfigError, match="raise the budget"):
        toy.best(fractions, choices, budget_usd_per_hour=0.01)


def test_suitability_is_throughput_per_usd_over_the_best(toy):
    assert toy.suitability.shape == (2, 2) and (toy.suitability.max(axis=1) == 1).all()
    assert (toy.suitability >= 0).all()
    rate = [[0.0, 0.0], [0.0, 0.0]]
    for m, tier in enumerate(toy.tiers):
        for table in tier.tables:
            n, price = (0, 3.0) if table.replica.gpu == "big" else (1, 0.6)
            rate[m][n] = max(rate[m][n], table.capacity_per_s / table.replica.n_gpus / price)
    np.testing.assert_allclose(toy.suitability, np.array(rate) / np.max(rate, axis=1, keepdims=True))


def arrays_of(toy):
    for tier in toy.tiers:
        yield from (tier.table, tier.replicas, tier.gpus, tier.usd_per_hour, tier.loads_per_s, tier.cdf, tier.p95_s)
    yield from (toy.edges_s, toy.suitability)


def test_the_same_seed_gives_the_same_database(toy):
    assert all(a.tobytes() == b.tobytes() for a, b in zip(arrays_of(toy), arrays_of(database()), strict=True))


def test_a_saved_database_comes_back_to_the_last_bit(toy, tmp_path):
    toy.save(tmp_path / "offline.npz")
    back = OfflineDatabase.load(tmp_path / "offline.npz")
    assert all(a.tobytes() == b.tobytes() for a, b in zip(arrays_of(toy), arrays_of(back), strict=True))
    assert (back.fleet, back.recipe, back.candidate_recipe) == (toy.fleet, toy.recipe, toy.candidate_recipe)
    back.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "offline.npz").read_bytes()


@pytest.mark.parametrize("content", [b"", b"not a file of arrays"])
def test_files_that_hold_something_else_are_refused(tmp_path, content):
    path = tmp_path / "offline.npz"
    path.write_bytes(content)
    with pytest.raises(InputDataError, match="holds no offline tables"):
        OfflineDatabase.load(path)
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    with pytest.raises(InputDataError, match="holds no offline tables"):
        OfflineDatabase.load(tmp_path / "other.npz")


def test_shapes_are_checked(toy):
    with pytest.raises(ConfigError, match=r"shape \(1, 2\)"):
        toy.latency_s(0.95, np.ones((1, 3)), np.ones((1, 2), dtype=np.int64))


def test_three_tiers():
    world = fleet(budget=14.0)
    models = {**world.models, "medium": world.models["small"].model_copy(update={"parameters_b": 12.0})}
    made = make_database(
        world.model_copy(update={"models": models}), lengths(tiers=3), recipe=RECIPE, candidates=CANDIDATES, seed=0
    )
    choices = made.joint_choices()
    usd, gpus = made.structural(choices)
    assert choices.shape[1] == 3 and (usd >= -1e-9).all() and (gpus >= 0).all() and (choices > 0).all(axis=1).any()
    assert np.isfinite(made.best(np.array([[0.2, 0.1, 0.7]]), choices)[0]).all()


@pytest.mark.slow
def test_tables_agree_with_the_simulated_fleet():
    """Pooled p95 of whole plans below 0.9 of the capacity: median error below 4 %, largest below 20 %."""
    world, tokens = fleet(horizon_s=60.0), lengths()
    recipe = OfflineRecipe(requests=2000)
    made = make_database(world, tokens, recipe=recipe, seed=0)
    rng, choices = np.random.default_rng(5), made.joint_choices()
    choices = choices[(choices > 0).all(axis=1)]
    errors = []
    while len(errors) < 25:
        choice, first = choices[rng.integers(len(choices))], rng.uniform(0.05, 0.95)
        fractions = np.array([first, 1 - first])
        load = fractions * world.rate_per_s
        if max(x / capacity_of(tier, c) for x, tier, c in zip(load, made.tiers, choice, strict=True)) < 0.9:
            plan = FleetPlan(
                tiers=tuple(world.models),
                groups=tuple(made.tier_plan(m, int(choice[m]), float(load[m])) for m in range(2)),
            )
            took = np.concatenate([simulated(world, plan, tokens, first, seed) for seed in range(6)])
            looked_up = made.latency_s(0.95, fractions[None], choice[None])[0]
            errors.append(abs(looked_up / np.quantile(took, 0.95) - 1))
    assert np.median(errors) < 0.04 and max(errors) < 0.2


def capacity_of(tier, c):
    return sum(n * tier.tables[t].capacity_per_s for t, n in zip(tier.table[c], tier.replicas[c], strict=True) if n)


def simulated(world, plan, tokens, first, seed):
    rng = np.random.default_rng(seed)
    warm, total = 0.25 * world.horizon_s, 1.25 * world.horizon_s
    n = rng.poisson(world.rate_per_s * total)
    arrival, row = np.sort(rng.uniform(0, total, n)), rng.integers(0, len(tokens[0][0]), n)
    tier = (rng.uniform(size=n) >= first).astype(np.int64)
    served = simulate_plan(
        world, plan, arrival, tier, *(np.column_stack([pair[i][row] for pair in tokens]) for i in (0, 1))
    )
    return (served.done_s - arrival)[arrival >= warm]


def test_a_deployment_serves_the_load_it_was_split_for(toy):
    """The shares of `tier_plan` are those that level the replicas."""
    tier = toy.tiers[0]
    c = int(np.flatnonzero((tier.replicas > 0).sum(axis=1) == 2)[0])
    load = 0.8 * float(tier.loads_per_s[c, -1])
    plan = toy.tier_plan(0, c, load)
    p95 = [
        float(tier.tables[t].p95_at(np.array([group.share * load / group.replicas]))[0])
        for t, group in zip(tier.table[c], plan, strict=True)
    ]
    assert p95[0] == pytest.approx(p95[1], rel=1e-6)
    assert dataclasses.replace(tier, load_split="capacity").plan(c, load)[0].share == pytest.approx(
        tier.plan(c)[0].share
    )


def test_tables_say_what_they_were_made_of(toy, tmp_path):
    dataclasses.replace(toy, source="data a seed 0").save(tmp_path / "offline.npz")
    assert OfflineDatabase.load(tmp_path / "offline.npz").source == "data a seed 0"
