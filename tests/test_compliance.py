"""Margins, compliance, response and cost at equal quality: small cases by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from simulators.errors import ConfigError
from toolkit.baselines.base import Routed, RouterRun
from toolkit.baselines.compliance import MarginRule, Windows, assess, calibrate, comply, respond
from toolkit.baselines.equal_quality import cost_at, cost_at_equal_quality, held_out_path
from toolkit.baselines.figures import cost_saving, oracle_gap, routing_efficiency, routing_performance_index

NONE = MarginRule(level=None)


def routed(quality, cost) -> Routed:
    quality = np.asarray(quality, dtype=float)
    cost = np.broadcast_to(np.asarray(cost, dtype=float)[:, None], quality.shape)
    return Routed(tier=np.zeros(quality.shape, dtype=np.int8), quality=quality, cost_usd=cost)


def run_of(tune, held_out, cost=(1.0, 2.0, 4.0), knob=None) -> RouterRun:
    knob = np.arange(len(tune), dtype=float) if knob is None else np.asarray(knob, dtype=float)
    return RouterRun(name="toy", knob="k", settings=knob, tune=routed(tune, cost), held_out=routed(held_out, cost))


def halves(*shares, n=100):
    """Rows of 0 and 1 with these means."""
    return [[1.0] * round(share * n) + [0.0] * (n - round(share * n)) for share in shares]


def test_cheapest_setting_that_qualifies_and_infeasible_levels():
    run = run_of(halves(0.5, 0.7, 0.8), halves(0.5, 0.7, 0.8), cost=(4.0, 2.0, 3.0))
    found = calibrate(run, np.array([0.4, 0.7, 0.75, 0.81]), rule=NONE)
    assert found.setting.tolist() == [1, 1, 2, -1]  # row 0 is dearer than row 1
    assert found.feasible.tolist() == [True, True, True, False]
    assert found.tune_cost_usd[:3].tolist() == [2.0, 2.0, 3.0]
    assert np.isnan([found.margin[3], found.tune_quality[3], found.tune_cost_usd[3]]).all()


def test_margin_by_hand():
    run = run_of(halves(0.9, 0.96), halves(0.9, 0.96, n=25), cost=(1.0, 2.0))
    sd = np.sqrt(0.9 * 0.1 * 100 / 99)
    margin = stats.norm.ppf(0.9) * sd * np.sqrt(1 / 100 + 1 / 25)
    rule = MarginRule(level=0.9)
    just, too_much = calibrate(run, np.array([0.9 - margin - 1e-9, 0.9 - margin + 1e-6]), rule=rule).setting
    assert (just, too_much) == (0, 1)
    found = calibrate(run, np.array([0.7]), rule=rule)
    assert found.margin[0] == pytest.approx(margin) and found.error[0] == pytest.approx(margin / stats.norm.ppf(0.9))


def test_repeated_prompts_widen_the_margin():
    values = halves(0.5)
    run = run_of(values, values, cost=(1.0,))
    alone = calibrate(run, np.array([0.1]), rule=MarginRule(level=0.95))
    pairs = calibrate(run, np.array([0.1]), rule=MarginRule(level=0.95), group=np.arange(100) // 2)
    assert pairs.margin[0] / alone.margin[0] == pytest.approx(np.sqrt(2 * (50 / 49) / (100 / 99)))


def test_without_costs_the_order_of_the_knob_decides():
    run = run_of(halves(0.5, 0.9, 0.8), halves(0.5, 0.9, 0.8), cost=(np.nan,) * 3)
    found = assess(run, np.array([0.6, 0.85]), rule=NONE)
    assert found.calibration.setting.tolist() == [1, 1]
    assert np.isnan(found.cost_usd).all() and np.isnan(found.response.cost_ratio)
    assert found.compliance.aggregate == 1.0
    with pytest.raises(ConfigError, match="costs are unknown"):
        held_out_path(run)


def test_compliance_by_hand():
    run = run_of(halves(0.7, 0.8), halves(0.69, 0.84), cost=(1.0, 3.0))
    taus = np.array([0.7, 0.8, 0.9])
    found = comply(run, calibrate(run, taus, rule=NONE), windows=Windows(size=100, orders=3))
    assert (found.n_levels, found.n_feasible, found.n_windows) == (3, 2, 1)
    assert found.aggregate == found.windowed == 0.5  # 0.9 is neither met nor missed
    assert found.shortfall == found.windowed_shortfall == pytest.approx(0.01 / 2)
    assert found.overshoot == pytest.approx(0.04 / 2)
    assert found.within_2 == 0.5 and found.within_5 == 1.0
    assert found.aggregate_by_chance == 0.5  # no margin, tune exactly at the level
    sd = [np.sqrt(p * (1 - p) * 100 / 99) for p in (0.69, 0.84)]
    assert found.window_error == pytest.approx(np.mean(sd) / 10)


def test_windows_of_one_query_are_the_queries():
    run = run_of(halves(0.8), halves(0.75, n=20), cost=(1.0,))
    found = comply(run, calibrate(run, np.array([0.8]), rule=NONE), windows=Windows(size=1, orders=2))
    assert found.windowed == pytest.approx(0.75)
    assert found.windowed_shortfall == pytest.approx(0.25 * 0.8)


def test_too_few_queries_for_a_window():
    run = run_of(halves(0.8), halves(0.8), cost=(1.0,))
    found = comply(run, calibrate(run, np.array([0.8]), rule=NONE))
    assert found.n_windows == 0 and found.aggregate == 1.0
    assert np.isnan([found.windowed, found.windowed_by_chance, found.windowed_shortfall]).all()


def test_nothing_feasible():
    run = run_of(halves(0.5), halves(0.5, n=400), cost=(1.0,))
    found = assess(run, np.array([0.6, 0.7]), rule=NONE)
    assert found.compliance.n_feasible == 0
    assert np.isnan([found.compliance.aggregate, found.compliance.windowed, found.response.slope]).all()


def test_sampling_error_explains_windows():
    rng = np.random.default_rng(0)
    truth = (rng.random((1, 40_000)) < 0.9).astype(float)
    truth[0, :36_000], truth[0, 36_000:] = 1.0, 0.0
    run = run_of(truth, truth, cost=(1.0,))
    room = 0.02
    found = comply(run, calibrate(run, np.array([0.9 - room]), rule=NONE), windows=Windows(orders=3))
    expected = stats.binom.sf(np.ceil(0.88 * 200) - 1, 200, 0.9)
    assert found.windowed == pytest.approx(expected, abs=0.03)
    assert found.windowed_by_chance == pytest.approx(expected, abs=0.04)
    at_level = stats.binom.sf(179, 200, 0.9)
    assert found.windowed_at_level == pytest.approx(at_level, abs=0.05)


def test_margin_keeps_its_level():
    """Of many draws of tune and held-out answers, about 5 % fall short of the level."""
    rng, whole = np.random.default_rng(1), Windows(size=1_000)  # no windows: only the mean counts here
    met = []
    for _ in range(150):
        tune, held_out = (rng.random((60, n)) < np.linspace(0.7, 0.99, 60)[:, None] for n in (300, 500))
        run = run_of(tune.astype(float), held_out.astype(float), cost=np.arange(60) + 1.0)
        met.append(comply(run, calibrate(run, np.array([0.85]), rule=MarginRule()), windows=whole).aggregate)
    assert np.mean(met) < 0.93  # the cheapest of 60 settings was picked: the margin does not pay for that
    one = []
    for _ in range(800):
        tune, held_out = ((rng.random((1, n)) < 0.9).astype(float) for n in (300, 500))
        run = run_of(tune, held_out, cost=(1.0,))
        level = tune.mean() - calibrate(run, np.array([0.0]), rule=MarginRule()).margin[0]
        one.append(comply(run, calibrate(run, np.array([level]), rule=MarginRule()), windows=whole).aggregate)
    assert np.mean(one) == pytest.approx(0.95, abs=0.02)


def test_response_by_hand():
    run = run_of(halves(0.6, 0.7, 0.8), halves(0.60, 0.65, 0.70), knob=(1.0, 2.0, 3.0))
    found = respond(run, calibrate(run, np.array([0.6, 0.7, 0.8, 0.95]), rule=NONE))
    assert found.slope == pytest.approx(0.5) and found.quality_range == pytest.approx(0.1)
    assert found.tau_range == pytest.approx(0.2) and found.cost_ratio == pytest.approx(4.0)
    assert found.correlation_knob == pytest.approx(1.0) and found.correlation_quality == pytest.approx(1.0)


def test_a_knob_that_does_not_move_has_no_correlation():
    run = run_of(halves(0.9, 0.95), halves(0.9, 0.95), cost=(1.0, 2.0))
    found = respond(run, calibrate(run, np.array([0.5, 0.6]), rule=NONE))
    assert np.isnan(found.correlation_knob) and found.slope == 0.0 and found.cost_ratio == 1.0


def test_cost_at_equal_quality_by_hand():
    dear = run_of(halves(0.6, 0.8), halves(0.6, 0.8), cost=(2.0, 6.0))
    cheap = run_of(halves(0.6, 0.7), halves(0.6, 0.7), cost=(1.0, 2.0))
    found = cost_at_equal_quality(cheap, dear, np.array([0.5, 0.6, 0.65, 0.75, np.nan]))
    assert found.per_level[:3] == pytest.approx([0.5, 0.5, 1.5 / 3.0])
    assert np.isnan(found.per_level[3:]).all() and found.n_compared == 3
    assert found.ratio == found.median == pytest.approx(0.5)


def test_path_pools_what_is_out_of_order_instead_of_taking_the_luckiest():
    run = run_of(halves(0.5, 0.6, 0.7, 0.8), halves(0.5, 0.7, 0.6, 0.8), cost=(1.0, 2.0, 4.0, 8.0))
    quality, cost = held_out_path(run)
    assert quality == pytest.approx([0.5, 0.65, 0.8]) and cost == pytest.approx([1.0, 3.0, 8.0])
    assert cost_at(run, np.array([0.65, 0.4, 0.9]))[:2] == pytest.approx([3.0, 1.0])


def test_settings_that_tune_rules_out_are_not_on_the_path():
    run = run_of(halves(0.7, 0.6, 0.8), halves(0.7, 0.99, 0.8), cost=(1.0, 2.0, 4.0))
    quality, cost = held_out_path(run)
    assert quality.tolist() == [0.7, 0.8] and cost.tolist() == [1.0, 4.0]


def test_figures_of_merit():
    assert routing_efficiency(quality=0.9, random_quality=0.5, router_s=0.008) == pytest.approx(5.0)
    index = routing_performance_index(
        quality=0.8, oracle_quality=1.0, cost_usd=1.0, largest_cost_usd=4.0, router_s=0.1, answer_s=1.0
    )
    assert index == pytest.approx(100 * 0.8 * 0.75 * 0.9)
    assert oracle_gap(quality=0.8, oracle_quality=0.95) == pytest.approx(0.15)
    assert cost_saving(cost_usd=1.0, best_fixed_cost_usd=4.0) == pytest.approx(0.75)
    assert np.isnan(cost_saving(cost_usd=1.0, best_fixed_cost_usd=0.0))


@pytest.mark.parametrize("level", [0.4, 1.0, -1.0])
def test_levels_that_make_no_sense(level):
    with pytest.raises(ConfigError, match=r"0\.5, 1"):
        MarginRule(level=level)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_more_margin_never_costs_less_and_a_run_equals_itself(seed):
    rng = np.random.default_rng(seed)
    quality = rng.random((12, 30))
    run = run_of(quality, rng.random((12, 30)), cost=rng.random(12) + 0.1)
    taus = np.linspace(0.3, 0.6, 7)
    plain, careful = (calibrate(run, taus, rule=MarginRule(level=level)) for level in (None, 0.9))
    assert (plain.feasible | ~careful.feasible).all()
    both = careful.feasible
    assert (careful.tune_cost_usd[both] >= plain.tune_cost_usd[both]).all()
    assert (careful.tune_quality[both] >= taus[both] + careful.margin[both] - 1e-9).all()
    same = cost_at_equal_quality(run, run, run.held_out.mean_quality)
    assert same.per_level[np.isfinite(same.per_level)] == pytest.approx(1.0)
