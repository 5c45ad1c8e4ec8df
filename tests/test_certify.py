"""Certificates: Holm, intersection-union, precedence of verdicts, every constraint, clusters, margins, latencies."""

import dataclasses

import numpy as np
import pytest
from helpers import make_table
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from simulators.errors import ConfigError
from toolkit.certify.certificate import certify, holm, verdict_of
from toolkit.certify.criteria import Judge
from toolkit.certify.intervals import DIFFERENCE, UNIT, quantile_interval, two_sided, worst_interval
from toolkit.certify.labels import differences_per_slice, plan_labels, widest_differences
from toolkit.evaluation.constraints import parse_constraints
from toolkit.evaluation.estimators import AssignmentEstimator
from toolkit.evaluation.robust import cvar_of_means
from toolkit.evaluation.slices import coverage
from toolkit.statistics import estimate_mean, resolved_margin

PLAIN = np.random.default_rng(0)


def table_of(slices, *, seed=0, **options):
    """A toy table with two tiers, `n` queries of each slice name in `slices`."""
    names, code = np.unique(np.repeat(list(slices), list(slices.values())), return_inverse=True)
    table = make_table(np.random.default_rng(seed), n=len(code), k=2, **options)
    return dataclasses.replace(table, slices=tuple(names.tolist()), slice_code=code.astype(np.int64), _hash=[])


def paired(losses, *, sizes=400, discordance=0.1, seed=0, **options):
    """Tier 0 is the policy, tier 1 the baseline; slice s loses exactly `losses[s]` on average, 0/1 answers.

    Exactly, so that a verdict does not hang on the luck of a draw: the shares of lost and won queries are rounded.
    """
    sizes = {name: sizes for name in losses} if isinstance(sizes, int) else sizes
    table, parts = table_of(sizes, seed=seed, **{"latency": False} | options), []
    for name in sorted(losses):
        n = sizes[name]
        worse, better = round(n * (discordance + losses[name]) / 2), round(n * (discordance - losses[name]) / 2)
        both = np.resize([1.0] * 9 + [0.0], n - worse - better)
        ours = np.concatenate([np.zeros(worse), np.ones(better), both])
        theirs = np.concatenate([np.ones(worse), np.zeros(better), both])
        parts.append(np.random.default_rng(seed).permutation(np.stack([ours, theirs], axis=1)))
    return dataclasses.replace(table, quality=np.concatenate(parts), _hash=[])


def certified(table, *, constraints=None, minimum=30, latency=None, seed=1, **options):
    n = table.n_queries
    settings_ = {"margin": 0.05, "alpha": 0.05, "power": 0.8} | options
    return certify(
        table,
        np.zeros(n, dtype=np.int64),
        np.ones(n, dtype=np.int64),
        coverage=coverage(table, minimum),
        constraints=parse_constraints(constraints or {}),
        rng=np.random.default_rng(seed),
        latency=latency,
        **settings_,
    )


def criterion(certificate, name):
    (found,) = [c for c in certificate.criteria if c.name == name]
    return found


# --- the tests and their combination ----------------------------------------------------------------------------------


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.5])), [1.0, 1.0])
    np.testing.assert_allclose(holm(np.array([0.02, 0.02, 0.02])), [0.06, 0.06, 0.06])
    np.testing.assert_array_equal(holm(np.array([0.3])), [0.3])


@given(p=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12).map(np.array))
def test_holm_keeps_order_and_lies_between_nothing_and_bonferroni(p):
    found = holm(p)
    assert (found >= p).all() and (found <= np.minimum(len(p) * p, 1) + 1e-15).all()
    assert (np.diff(found[np.argsort(p, kind="stable")]) >= 0).all()


def test_every_slice_must_be_shown_to_pass():
    """Intersection-union: one small slice without proof keeps the whole from passing, however sure the rest is."""
    found = certified(paired({"a": 0.0, "b": 0.0, "c": 0.0}, sizes={"a": 2000, "b": 2000, "c": 60}))
    assert [c.verdict for c in found.criteria[:1]] == ["pass"]
    assert {c.name: c.verdict for c in found.criteria[1:]} == {"a": "pass", "b": "pass", "c": "undecided"}
    assert found.verdict == "undecided"
    alone = certified(paired({"a": 0.0, "b": 0.0}, sizes=2000))
    assert alone.verdict == "pass"


def test_each_slice_is_tested_at_alpha_without_correction():
    """A pass needs all, so ten slices take no stricter test each than two."""
    for count in (2, 10):
        found = certified(paired({f"s{i}": 0.0 for i in range(count)}, sizes=500, discordance=0.2))
        one = criterion(found, "s0")
        assert (one.p_pass <= 0.05) == (one.verdict == "pass")
        assert one.p_pass == pytest.approx(
            criterion(certified(paired({"s0": 0.0}, sizes=500, discordance=0.2)), "s0").p_pass
        )


def test_a_loss_in_one_slice_fails_the_whole():
    table = paired({"big": 0.0, "hidden": 0.3}, sizes={"big": 3800, "hidden": 200}, discordance=0.4)
    found = certified(table)
    assert found.verdict == "fail"
    assert criterion(found, "all queries").verdict == "pass", "0.015 over all is tolerated"
    hidden = criterion(found, "hidden")
    assert hidden.verdict == "fail" and hidden.p_fail_holm == pytest.approx(3 * hidden.p_fail)
    assert hidden.value.mean == pytest.approx(-0.3) and hidden.loss_at_most > 0.3
    assert found.criteria[1] is hidden, "the slice with the largest loss comes first"


def test_a_shown_loss_below_a_given_margin_is_tolerated():
    table = paired({"a": 0.02, "b": 0.02}, sizes=4000, discordance=0.05)
    found = certified(table, margin=0.05)
    assert found.verdict == "pass"
    assert all(c.p_fail_holm <= 0.05 and c.p_pass <= 0.05 for c in found.criteria)


def test_a_shown_loss_fails_where_nobody_gave_a_margin():
    """A small slice leaves a coarse margin; the loss of the large one is below it, and still nobody said it is fine."""
    table = paired({"a": 0.02, "b": 0.0}, sizes={"a": 4000, "b": 150}, discordance=0.05)
    found = certified(table, margin=None)
    loss = criterion(found, "a")
    assert found.verdict == loss.verdict == "fail" and not found.labels.given
    assert loss.loss_at_most < found.labels.margin and loss.margin < found.labels.margin
    assert certified(table, margin=found.labels.margin).verdict == "pass"


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (("pass", "pass"), "pass"),
        (("pass", "undecided"), "undecided"),
        (("fail", "undecided", "pass"), "fail"),
        (("fail", "fail"), "fail"),
    ],
)
def test_verdict_of_all(verdicts, expected):
    any_criterion = certified(paired({"a": 0.0})).criteria[0]
    assert verdict_of(tuple(dataclasses.replace(any_criterion, verdict=v) for v in verdicts)) == expected


def test_one_criterion_more_makes_a_loss_harder_to_show():
    """Holm counts every statement, constraints that cannot be judged included."""
    table = paired({"a": 0.0, "b": 0.055}, sizes=300, discordance=0.2)
    few, many = certified(table), certified(table, constraints={"quality_floor": 0.5, "p95_ceiling_s": 1e3})
    assert criterion(many, "b").p_fail == criterion(few, "b").p_fail
    assert criterion(many, "b").p_fail_holm == pytest.approx(5 / 3 * criterion(few, "b").p_fail_holm)


def test_swapping_policy_and_baseline_swaps_signs():
    table = paired({"a": 0.03, "b": -0.04}, sizes=500)
    swapped = dataclasses.replace(table, quality=table.quality[:, ::-1].copy(), _hash=[])
    here, there = certified(table), certified(swapped)
    for name in ("all queries", "a", "b"):
        one, other = criterion(here, name), criterion(there, name)
        assert one.value.mean == pytest.approx(-other.value.mean)
        assert one.value.low == pytest.approx(-other.value.high)
        assert one.p_fail + other.p_fail >= 1, "each errs on the safe side"
        assert (one.policy, one.baseline) == (other.baseline, other.policy)


def test_names_of_slices_and_order_of_queries_do_not_matter():
    table = paired({"a": 0.0, "b": 0.1, "c": 0.02}, sizes={"a": 300, "b": 200, "c": 100}, latency=False)
    order = np.random.default_rng(3).permutation(table.n_queries)
    renamed = dataclasses.replace(table.take(order), slices=("z", "y", "x"))
    here, there = certified(table), certified(renamed)
    assert here.verdict == there.verdict
    for name, other in (("all queries", "all queries"), ("a", "z"), ("b", "y"), ("c", "x")):
        one, two = criterion(here, name), criterion(there, other)
        assert (one.n, one.verdict) == (two.n, two.verdict)
        for field in ("p_pass", "p_fail", "p_fail_holm", "loss_at_most", "policy", "baseline"):
            assert getattr(one, field) == pytest.approx(getattr(two, field), abs=1e-12), field


def test_the_same_seed_gives_the_same_certificate():
    table = paired({"a": 0.0, "b": 0.1}, sizes=200, latency=True)
    assert repr(certified(table)) == repr(certified(table))
    assert repr(certified(table, seed=2)) != repr(certified(table))


def test_small_slices_are_judged_with_their_parents():
    sizes = {"chat": 100, "math/algebra": 20, "math/geometry": 15, "law": 25, "med": 8}
    found = certified(paired(dict.fromkeys(sizes, 0.0), sizes=sizes))
    assert {c.name: c.n for c in found.criteria if c.kind == "slice"} == {"chat": 100, "math": 35, "other": 33}
    assert found.merged == {"math/algebra": "math", "math/geometry": "math", "law": "other", "med": "other"}
    assert found.counts == {"math/algebra": 20, "math/geometry": 15, "law": 25, "med": 8}
    assert found.criteria[0].n == found.n == 168


def test_what_no_group_judges_still_counts_over_all_queries():
    found = certified(paired({"a": 0.0, "tiny": 0.0}, sizes={"a": 100, "tiny": 9}))
    assert [c.name for c in found.criteria] == ["all queries", "a"]
    assert found.merged == {"tiny": None} and found.criteria[0].n == 109


# --- groups -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ({"a/b": 40, "a/c": 20}, {"a/b": "a/b", "a/c": None}),
        ({"a/b": 20, "a/c": 20}, {"a/b": "a", "a/c": "a"}),
        ({"a/b/x": 20, "a/b/y": 20, "a/c": 20}, {"a/b/x": "a/b", "a/b/y": "a/b", "a/c": None}),
        ({"a/b/x": 20, "a/c": 20}, {"a/b/x": "a", "a/c": "a"}),
        ({"a": 20, "a/c": 20}, {"a": "a (merged)", "a/c": "a (merged)"}),
        ({"a": 50, "a/b": 20, "a/c": 20}, {"a": "a", "a/b": "a (merged)", "a/c": "a (merged)"}),
        ({"ab": 20, "a/c": 20}, {"ab": "other", "a/c": "other"}),
        ({"other": 40, "x": 20, "y": 20}, {"other": "other", "x": "other (merged)", "y": "other (merged)"}),
        ({"/a": 20, "b/": 20}, {"/a": "other", "b/": "other"}),
    ],
)
def test_groups(sizes, groups):
    table = table_of(sizes)
    cover = coverage(table, 30)
    index = {name: int(cover.group_of_slice[table.slices.index(name)]) for name in sizes}
    assert {name: cover.groups[g] if g >= 0 else None for name, g in index.items()} == groups
    assert len(set(cover.groups)) == len(cover.groups)


def test_a_parent_called_other_is_not_mixed_up_with_the_rest():
    """Two groups of one name would be one criterion, and what is in the other one would go unjudged."""
    cover = coverage(table_of({"other/a": 20, "other/b": 20, "x": 20, "y": 20}), 30)
    assert cover.groups == ("other", "other (merged)") and cover.other == "other (merged)"
    found = certified(paired(dict.fromkeys(["other/a", "other/b", "x", "y"], 0.0), sizes=20))
    assert [c.name for c in found.criteria[1:]] == ["other", "other (merged)"]


@given(
    sizes=st.dictionaries(
        st.sampled_from(["a", "b", "a/x", "a/y", "a/x/1", "b/z", "other"]), st.integers(1, 60), min_size=1
    )
)
def test_groups_partition_what_they_cover(sizes):
    table = table_of(sizes)
    cover = coverage(table, 30)
    group = cover.group_of_rows(table)
    assert all((group == g).sum() >= 30 for g in range(len(cover.groups)))
    left = {name: n for name, n in sizes.items() if cover.group_of_slice[table.slices.index(name)] < 0}
    assert sum(left.values()) < 30, "what is left over is too small together"
    for name, n in sizes.items():
        if n >= 30:
            assert cover.groups[cover.group_of_slice[table.slices.index(name)]] == name


# --- intervals --------------------------------------------------------------------------------------------------------


def test_the_worst_of_one_is_that_one():
    found = estimate_mean(PLAIN.random(40), bounds=UNIT)
    assert worst_interval([found]) == two_sided(found)
    assert np.isnan(worst_interval([]).mean)


def test_the_worst_of_several_by_hand():
    groups = [estimate_mean(np.repeat([1.0, 0.0], [right, 100 - right]), bounds=UNIT) for right in (95, 80, 82)]
    found = worst_interval(groups)
    assert found.mean == 0.8
    assert found.low == groups[1].lower(0.025), "uncorrected"
    assert found.high == groups[1].upper(0.025 / 3), "Bonferroni"
    reordered = worst_interval(groups[::-1])
    assert reordered == found


@pytest.mark.parametrize("order", [1, -1])
def test_a_group_of_one_cluster_leaves_no_interval_of_the_worst(order):
    known, unknown = estimate_mean(PLAIN.random(40), bounds=UNIT), estimate_mean(np.ones(40), np.zeros(40, int), UNIT)
    found = worst_interval([known, unknown][::order])
    assert np.isnan(found.low) and np.isnan(found.high) and found.mean == known.mean


@pytest.mark.parametrize(("n", "level"), [(20, 0.5), (59, 0.5), (250, 0.95), (2000, 0.99), (7, 0.3)])
def test_quantile_ranks_are_the_narrowest_that_the_binomial_allows(n, level):
    values = np.arange(1.0, n + 1)
    found = quantile_interval(PLAIN.permutation(values), level)
    below = stats.binom(n, level)
    assert found.mean == np.quantile(values, level)
    if np.isfinite(
        found.low
    ):  # P(fewer than `low` values lie below the quantile) is at most 2.5 %, one rank on it is not
        assert below.cdf(found.low - 1) <= 0.025 < below.cdf(found.low)
    else:
        assert below.cdf(0) > 0.025
    if np.isfinite(found.high):
        assert below.sf(found.high - 1) <= 0.025 < below.sf(found.high - 2)
    else:
        assert below.sf(n - 1) > 0.025


def test_too_few_values_leave_an_end_open():
    found = quantile_interval(np.arange(20.0), 0.95)
    assert found.high == np.inf and np.isfinite(found.low)
    assert quantile_interval(np.arange(20.0), 0.05).low == -np.inf
    assert np.isnan(quantile_interval(np.arange(20.0), 0.5, np.zeros(20, int)).low)


def test_quantile_intervals_cover():
    truth = stats.lognorm(0.8).ppf(0.95)
    found = [quantile_interval(PLAIN.lognormal(0, 0.8, 200), 0.95) for _ in range(400)]
    assert np.mean([i.low <= truth <= i.high for i in found]) > 0.93


def test_copies_as_clusters_do_not_narrow_a_quantile():
    values = PLAIN.lognormal(0, 1, 300)
    once, blind = quantile_interval(values, 0.9), quantile_interval(np.repeat(values, 4), 0.9)
    often = quantile_interval(np.repeat(values, 4), 0.9, np.repeat(np.arange(300), 4))
    assert blind.high - blind.low < 0.8 * (once.high - once.low)
    assert (often.low, often.high) == pytest.approx((once.low, once.high), rel=0.1)


# --- constraints ------------------------------------------------------------------------------------------------------

BASES = {
    "quality": ("quality >= {}", 0.05),
    "quality@a": ("quality@a >= {}", 0.08),
    "worst_slice": ("worst_slice >= {}", 0.1),
    "worst_slice_lcb": ("worst_slice_lcb >= {}", 0.1),
    "slice_cvar:0.4": ("slice_cvar:0.4 >= {}", 0.1),
    "slice_loss:tier1": ("slice_loss:tier1 <= {}", -0.1),
    "slice_loss_ucb:tier1": ("slice_loss_ucb:tier1 <= {}", -0.1),
    "cost": ("cost <= {}", -5e-6),
    "latency_mean": ("latency_mean <= {}", -0.2),
    "latency_p50": ("latency_p50 <= {}", -0.25),
    "latency_p95": ("latency_p95 <= {}", -0.7),
    "latency_p99": ("latency_p99 <= {}", -1.5),
    "latency_p95@a": ("latency_p95@a <= {}", -0.8),
    "share_over:1.5": ("share_over:1.5 <= {}", -0.12),
}
JUDGED = make_table(np.random.default_rng(8), n=900, k=2)
JUDGED = dataclasses.replace(JUDGED, slices=("a", "b", "c"))
ALTERNATING = np.arange(900, dtype=np.int64) % 2


def judge(table, text, tier=ALTERNATING, minimum=30, **options):
    (constraint,) = parse_constraints({"bounds": [text]})
    return Judge(table, coverage(table, minimum), **options).test(constraint, tier)


def figure(table, text, tier=ALTERNATING):
    """What the reference estimator says."""
    (constraint,) = parse_constraints({"bounds": [text]})
    return float(
        AssignmentEstimator(table, coverage(table, 30), tier[None, :].astype(np.int8)).value(constraint.metric)[0]
    )


@pytest.mark.parametrize("name", BASES)
def test_a_constraint_is_shown_to_hold_to_be_broken_or_neither(name):
    text, step = BASES[name]
    value = figure(JUDGED, text.format(0.5))
    easy, tight, hard = (judge(JUDGED, text.format(value + shift)) for shift in (-step, 0.0, step))
    same = name.split("_lcb")[0].replace("_ucb", "")
    assert tight.value.mean == pytest.approx(figure(JUDGED, BASES[same][0].format(0.5)), abs=1e-9)
    assert tight.value.low < tight.value.mean < tight.value.high
    assert easy.p_holds < 0.05 < easy.p_broken
    assert hard.p_broken < 0.05 < hard.p_holds
    if same == name:
        assert tight.p_holds > 0.05 < tight.p_broken
    assert {easy.note, tight.note, hard.note} == {""}


@pytest.mark.parametrize("name", BASES)
def test_p_values_move_with_the_limit(name):
    text, step = BASES[name]
    value = figure(JUDGED, text.format(0.5))
    found = [judge(JUDGED, text.format(value + f * step)) for f in np.linspace(-1.2, 1.2, 9)]
    assert (np.diff([t.p_holds for t in found]) >= -1e-9).all()
    assert (np.diff([t.p_broken for t in found]) <= 1e-9).all()
    assert all(0 <= p <= 1 for t in found for p in (t.p_holds, t.p_broken))


def test_a_quantile_is_a_test_of_a_share():
    """p95 <= L says that at most 5 % are slower than L."""
    limit = 3.0
    latency = JUDGED.latency_s[np.arange(900), ALTERNATING]
    slower = estimate_mean((latency > limit).astype(float), bounds=UNIT)
    found = judge(JUDGED, f"latency_p95 <= {limit}")
    assert found.p_holds == pytest.approx(slower.p_below(0.05)) and found.p_broken == pytest.approx(
        slower.p_above(0.05)
    )
    assert found.value == quantile_interval(latency, 0.95)


def test_the_worst_slice_needs_every_slice_and_is_broken_by_one():
    """Floor 0.6: shown to hold if each of three is above it; shown to be broken by one, Bonferroni."""
    rng = np.random.default_rng(1)
    means = {"a": 0.9, "b": 0.75, "c": 0.5}
    table = table_of(dict.fromkeys(means, 100))
    right = np.concatenate(
        [rng.permutation(np.repeat([1.0, 0.0], [round(100 * m), 100 - round(100 * m)])) for m in means.values()]
    )
    table = dataclasses.replace(table, quality=np.stack([right, right], axis=1), _hash=[])
    each = [estimate_mean(right[table.slice_code == s], bounds=UNIT) for s in range(3)]
    found = judge(table, "worst_slice >= 0.6", np.zeros(300, dtype=np.int64))
    assert found.p_holds == pytest.approx(each[2].p_above(0.6)) and found.p_holds > 0.9
    assert found.p_broken == pytest.approx(3 * each[2].p_below(0.6)) and found.p_broken < 0.1
    loose = judge(table, "worst_slice >= 0.3", np.zeros(300, dtype=np.int64))
    assert loose.p_holds == pytest.approx(max(e.p_above(0.3) for e in each))


def test_cvar_by_hand():
    """Its bounds come from bounds of all three slices that hold together, each at a third of the level."""
    quality, n = JUDGED.quality[np.arange(900), ALTERNATING], np.bincount(JUDGED.slice_code)
    each = [estimate_mean(quality[JUDGED.slice_code == s], bounds=UNIT) for s in range(3)]
    found = judge(JUDGED, "slice_cvar:0.5 >= 0.5").value
    assert found.low == pytest.approx(cvar_of_means(np.array([e.lower(0.025 / 3) for e in each]), n, 0.5))
    assert found.high == pytest.approx(cvar_of_means(np.array([e.upper(0.025 / 3) for e in each]), n, 0.5))
    limit = cvar_of_means(np.array([e.lower(0.05 / 3) for e in each]), n, 0.5)
    assert judge(JUDGED, f"slice_cvar:0.5 >= {limit}").p_holds == pytest.approx(0.05, abs=1e-4)
    limit = cvar_of_means(np.array([e.upper(0.05 / 3) for e in each]), n, 0.5)
    assert judge(JUDGED, f"slice_cvar:0.5 >= {limit}").p_broken == pytest.approx(0.05, abs=1e-4)


def test_cvar_lies_between_the_worst_slice_and_the_mean():
    worst, mean = (judge(JUDGED, f"{name} >= 0.5").value for name in ("worst_slice", "slice_cvar:1"))
    middle = judge(JUDGED, "slice_cvar:0.5 >= 0.5").value
    assert worst.mean < middle.mean < mean.mean
    assert judge(JUDGED, "slice_cvar:0.01 >= 0.5").value.mean == pytest.approx(worst.mean)


UNKNOWABLE = {
    "latency_p95 <= 9": (make_table(PLAIN, n=90, k=2, latency=False), {}, "latency_s"),
    "share_over:2 <= 0.9": (JUDGED, {"simulated_latency": True}, "simulated"),
    "cost <= 1": (make_table(PLAIN, n=90, k=2, cost=False), {}, "cost_usd"),
    "slice_loss:huge <= 0.5": (JUDGED, {}, "tier huge"),
    "quality@nowhere >= 0.1": (JUDGED, {}, "slice nowhere"),
    "latency_mean@b <= 9": (table_of({"a": 80, "b": 9}), {}, "fewer than 30"),
    "worst_slice >= 0.1": (table_of({"a": 9, "b": 9}), {}, "no slice reaches 30"),
    "slice_cvar:0.3 >= 0.1": (table_of({"a": 9, "b": 9}), {}, "no slice reaches 30"),
}


@pytest.mark.parametrize("text", UNKNOWABLE)
def test_what_cannot_be_judged_says_why(text):
    table, options, said = UNKNOWABLE[text]
    found = judge(table, text, np.zeros(table.n_queries, dtype=np.int64), **options)
    assert said in found.note and (found.p_holds, found.p_broken) == (1.0, 1.0) and np.isnan(found.value.mean)


def test_a_constraint_that_cannot_be_judged_leaves_the_certificate_undecided():
    table = paired({"a": 0.0}, sizes=2000, latency=False)
    assert certified(table).verdict == "pass"
    found = certified(table, constraints={"p95_ceiling_s": 100.0})
    assert found.verdict == "undecided" and "latency_s" in found.criteria[-1].note


def test_a_broken_constraint_fails_a_policy_that_loses_nothing():
    table = paired({"a": 0.0}, sizes=2000)
    found = certified(table, constraints={"quality_floor": 0.95})
    assert found.verdict == "fail" and found.criteria[-1].name == "quality >= 0.95"
    assert {c.verdict for c in found.criteria[:-1]} == {"pass"}
    assert certified(table, constraints={"quality_floor": 0.8}).verdict == "pass"
    assert certified(table, constraints={"quality_floor": found.quality.mean}).verdict == "undecided"


def test_constant_costs_at_their_ceiling_are_not_shown_to_be_broken():
    """Every answer costs the ceiling exactly: no rounding may decide."""
    table = dataclasses.replace(JUDGED, cost_usd=np.full((900, 2), 0.1), _hash=[])
    found = judge(table, "cost <= 0.1")
    assert (found.p_holds, found.p_broken) == (1.0, 1.0)
    assert judge(table, "cost <= 0.2").p_holds == 0.0 and judge(table, "cost <= 0.05").p_broken == 0.0


# --- clusters ---------------------------------------------------------------------------------------------------------


def in_sessions(table, size):
    names = np.array([f"u{i // size}" for i in range(table.n_queries)])
    return dataclasses.replace(table, session=names, _hash=[])


def test_sessions_that_agree_within_themselves_widen_everything():
    table = paired({"a": 0.05}, sizes=1200, discordance=0.2, latency=True)
    by_loss = np.argsort(table.quality[:, 0] - table.quality[:, 1], kind="stable")
    table = dataclasses.replace(
        table, quality=table.quality[by_loss], latency_s=np.sort(table.latency_s, axis=0), _hash=[]
    )
    alone, grouped = certified(table), certified(in_sessions(table, 10))
    assert (alone.n_clusters, grouped.n_clusters, grouped.n) == (1200, 120, 1200)
    for a, b in zip(alone.criteria, grouped.criteria, strict=True):
        assert b.value.mean == a.value.mean and b.value.high - b.value.low > 2 * (a.value.high - a.value.low)
    assert alone.verdict == "fail" and grouped.verdict == "undecided"
    assert grouped.latency[1].policy.high - grouped.latency[1].policy.low > (
        alone.latency[1].policy.high - alone.latency[1].policy.low
    )


def test_repeats_of_a_prompt_count_once():
    table = paired({"a": 0.05}, sizes=300, discordance=0.2, prompts=True)
    often = table.take(np.repeat(np.arange(300), 4))
    once, four = certified(table).criteria[0], certified(often).criteria[0]
    assert (four.value.low, four.value.high) == pytest.approx((once.value.low, once.value.high))
    assert (four.p_pass, four.p_fail) == pytest.approx((once.p_pass, once.p_fail))


def test_sessions_go_before_prompts():
    table = paired({"a": 0.05}, sizes=300, prompts=True)
    assert certified(table).n_clusters == 300 and certified(in_sessions(table, 3)).n_clusters == 100


def test_a_slice_of_one_session_is_never_decided():
    table = paired({"a": 0.0, "b": 0.9}, sizes={"a": 600, "b": 60}, discordance=1.0)
    names = np.where(table.slice_code == 1, "only", np.arange(660).astype(str))
    found = certified(
        dataclasses.replace(table, session=names),
        constraints={"bounds": ["slice_cvar:0.5 >= 0.1", "worst_slice >= 0.1"]},
    )
    lonely = criterion(found, "b")
    assert lonely.verdict == "undecided" and (lonely.p_pass, lonely.p_fail) == (1.0, 1.0)
    assert np.isnan(lonely.value.low) and lonely.loss_at_most == 1.0
    assert {c.verdict for c in found.criteria if c.kind == "constraint"} == {"undecided"}
    assert np.isnan(found.worst_slice.low)
    assert {s.name: s.resolved for s in found.labels.slices}["b"] == np.inf


# --- margins and labels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"margin": 0.0}, r"\(0, 1\]"),
        ({"margin": -0.1}, r"\(0, 1\]"),
        ({"margin": 1.5}, r"\(0, 1\]"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": 0.5}, "alpha"),
        ({"power": 0.0}, "power"),
        ({"power": 1.0}, "power"),
        ({"power": 0.01, "margin": None}, "between alpha"),
        ({"minimum": 5000}, "slices.minimum"),
    ],
)
def test_senseless_options_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        certified(paired({"a": 0.0}), **options)


def test_the_default_margin_is_what_the_weakest_slice_resolves():
    table = paired({"a": 0.0, "b": 0.0}, sizes={"a": 900, "b": 100})
    plan = certified(table, margin=None).labels
    per_slice = differences_per_slice(table, np.zeros(1000, int), np.ones(1000, int), coverage(table, 30))
    each = 0.8**0.5
    expected = {n: resolved_margin(e.sd, e.n, alpha=0.05, power=each, reach=e.reach) for n, e in per_slice.items()}
    assert {s.name: s.resolved for s in plan.slices} == pytest.approx(expected)
    assert plan.margin == max(expected.values()) == expected["b"] and not plan.given
    assert {s.name: s.missing for s in plan.slices} == {"a": 0, "b": 0}
    assert 700 < plan.total <= 1000, "a has labels to spare, so b needs fewer for both to pass together"


def test_missing_labels_shrink_as_the_margin_grows():
    table = paired({"a": 0.0, "b": 0.0}, sizes={"a": 900, "b": 100})
    plans = [certified(table, margin=margin).labels for margin in (0.01, 0.05, 0.3)]
    missing = [[s.missing for s in plan.slices] for plan in plans]
    assert missing[0][0] > missing[1][0] >= missing[2][0] == 0 and missing[0][1] > missing[1][1] > missing[2][1] == 0
    assert plans[0].total > plans[1].total > plans[2].total
    for plan in plans:
        assert all(s.needed - s.n == s.missing or s.needed <= s.n for s in plan.slices)


def test_more_slices_need_more_labels_each():
    few, many = (certified(paired({f"s{i}": 0.0 for i in range(k)}, sizes=300), margin=0.02).labels for k in (1, 8))
    assert many.slices[0].needed > few.slices[0].needed


def test_labels_are_counted_in_clusters():
    """Sessions of ten turns that agree: ten times the labels, and a coarser margin; copies resolve what one does."""
    table = paired({"a": 0.0}, sizes=300, discordance=0.2, prompts=True)
    cover = coverage(table, 30)
    zeros, ones = np.zeros(300, dtype=np.int64), np.ones(300, dtype=np.int64)
    often = table.take(np.repeat(np.arange(300), 10))
    plans = [
        plan_labels(differences_per_slice(t, np.resize(zeros, t.n_queries), np.resize(ones, t.n_queries), cover),
                    t.n_queries, margin=0.03, alpha=0.05, power=0.8)
        for t in (table, often)
    ]  # fmt: skip
    (one,), (ten,) = (plan.slices for plan in plans)
    assert ten.resolved == pytest.approx(one.resolved) and ten.needed == pytest.approx(10 * one.needed, abs=10)
    assert plans[1].total == pytest.approx(10 * plans[0].total, rel=0.06)


def test_few_sessions_do_not_resolve_what_many_queries_would():
    """The margin that is called resolvable must be one that a policy without a loss mostly passes."""
    rng, passed = np.random.default_rng(2), 0
    for _ in range(100):
        table = table_of({"a": 240}, latency=False)
        mood = np.repeat(rng.normal(0, 0.15, 24), 10)[:, None] * [1, -1]
        quality = np.clip(0.5 + mood / 2 + rng.normal(0, 0.05, (240, 2)), 0, 1)
        found = certified(in_sessions(dataclasses.replace(table, quality=quality, _hash=[]), 10), margin=None)
        passed += found.verdict == "pass"
    assert passed >= 65


def test_before_there_is_a_policy_the_widest_tier_stands_for_it():
    table = make_table(np.random.default_rng(0), n=400, k=3, n_slices=2)
    differences, stand_in = widest_differences(table, np.full(400, 2), coverage(table, 30))
    assert set(stand_in) == {"slice0", "slice1"} and set(stand_in.values()) <= {"tier0", "tier1"}
    for name, tier in stand_in.items():
        k = table.tiers.index(tier)
        rows = table.slice_code == table.slices.index(name)
        sds = [np.std(table.quality[rows, j] - table.quality[rows, 2], ddof=1) for j in range(3)]
        assert k == int(np.argmax(sds)) and differences[name].sd == pytest.approx(sds[k])


# --- figures beside the verdict ---------------------------------------------------------------------------------------


def test_the_same_latencies_differ_by_nothing():
    table = paired({"a": 0.0}, sizes=200, latency=True)
    table = dataclasses.replace(table, latency_s=table.latency_s[:, [0, 0]], _hash=[])
    for change in certified(table).latency:
        assert (change.difference.mean, change.difference.low, change.difference.high) == (0.0, 0.0, 0.0)


def test_a_constant_shift_of_latencies_is_found_exactly():
    """Policy and baseline are drawn together; apart, the same data would leave a wide interval."""
    table = paired({"a": 0.0}, sizes=200, latency=True)
    latency = np.stack([table.latency_s[:, 0] + 2.0, table.latency_s[:, 0]], axis=1)
    found = certified(dataclasses.replace(table, latency_s=latency, _hash=[])).latency
    assert [c.name for c in found] == ["p50", "p95", "p99"]
    for change, level in zip(found, (0.5, 0.95, 0.99), strict=True):
        assert (change.difference.low, change.difference.high) == pytest.approx((2.0, 2.0))
        assert change.policy.mean == np.quantile(latency[:, 0], level)
        assert change.policy.low < change.policy.mean < change.policy.high


def test_independent_latencies_have_an_interval_about_the_truth():
    table = paired({"a": 0.0}, sizes=2000, latency=True)
    (p50, *_) = certified(
        dataclasses.replace(table, latency_s=PLAIN.exponential([[1.0, 2.0]], (2000, 2)), _hash=[])
    ).latency
    assert p50.difference.low < np.log(2) * (1 - 2) < p50.difference.high
    assert 0.05 < p50.difference.high - p50.difference.low < 0.5


def test_simulated_latencies_carry_no_interval():
    table = paired({"a": 0.0}, sizes=200)
    found = certified(table, latency=(np.ones(200), np.full(200, 3.0)), constraints={"p95_ceiling_s": 9.0})
    assert found.latency_simulated and found.verdict == "undecided"
    for change in found.latency:
        assert (change.policy.mean, change.baseline.mean, change.difference.mean) == (1.0, 3.0, -2.0)
        assert np.isnan(change.difference.low) and np.isnan(change.policy.high)


def test_unknown_costs_and_latencies_are_left_out():
    found = certified(paired({"a": 0.0}, sizes=200, cost=False, latency=False))
    assert found.latency == () and np.isnan(found.cost_usd.mean) and np.isnan(found.cost_difference.low)


def test_costs_are_paired():
    table = paired({"a": 0.0}, sizes=200)
    cost = table.cost_usd[:, [0, 0]] + [1e-3, 0.0]
    found = certified(dataclasses.replace(table, cost_usd=cost, _hash=[]))
    difference = found.cost_difference
    assert (difference.mean, difference.low, difference.high) == pytest.approx((1e-3, 1e-3, 1e-3))
    assert found.cost_usd.low < found.cost_usd.mean == pytest.approx(cost[:, 0].mean())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(60, 200))
def test_whatever_the_data_the_parts_fit_together(seed, n):
    rng = np.random.default_rng(seed)
    table = make_table(rng, n=n, k=2, n_slices=int(rng.integers(1, 4)), latency=False)
    margin = float(rng.uniform(0.01, 0.5))
    found = certified(table, margin=margin, constraints={"quality_floor": float(rng.uniform(0.3, 0.9))}, minimum=15)
    assert found.verdict == verdict_of(found.criteria)
    for c in found.criteria:
        if c.kind != "constraint":
            assert (
                c.value.mean == pytest.approx(c.policy - c.baseline)
                and c.loss_at_most >= max(0.0, -c.value.mean) - 1e-12
            )
            assert (c.verdict == "pass") == (c.loss_at_most <= margin or c.p_pass <= 0.05)
            assert DIFFERENCE[0] <= c.value.low <= c.value.mean <= c.value.high <= DIFFERENCE[1]
        assert c.p_fail_holm >= c.p_fail
    assert found.worst_slice.mean == min(c.policy for c in found.criteria if c.kind == "slice")


# --- what keeps a certificate from a pass although nothing is shown ---------------------------------------------------


def test_slices_that_nothing_judges_keep_it_from_a_pass():
    """A loss of 0.5 in a slice of 20 queries: too few to be judged, too many to be overlooked."""
    table = paired({"a": 0.0, "rare": 0.5}, sizes={"a": 400, "rare": 20}, discordance=0.5)
    found = certified(table, margin=0.15, minimum=30)
    assert found.verdict == "undecided" and {c.verdict for c in found.criteria} == {"pass"}
    assert found.unjudged == pytest.approx(20 / 420)
    assert certified(table, margin=0.15, minimum=30, most_unjudged=0.05).verdict == "pass"
    assert certified(table, margin=0.15, minimum=20).verdict == "fail"


def test_without_a_margin_each_slice_is_held_to_its_own():
    """Thirty labels somewhere must not excuse a loss where there are many."""
    table = paired(
        {"big": 0.0, "mid": 0.15, "tiny": 0.0}, sizes={"big": 2000, "mid": 300, "tiny": 30}, discordance=0.25
    )
    found = certified(table, margin=None)
    margins = {c.name: c.margin for c in found.criteria}
    assert margins["all queries"] < margins["big"] < margins["mid"] < margins["tiny"] == found.labels.margin
    assert margins["mid"] < 0.15 and criterion(found, "mid").verdict != "pass"
    assert {c.margin for c in certified(table, margin=0.05).criteria} == {0.05}


def test_one_long_session_is_little_evidence():
    """200 of 300 answers come from one session that lost; nothing can be said about others."""
    table = paired({"a": 0.0}, sizes=300, discordance=0.0)
    quality = table.quality.copy()
    quality[:200, 0], quality[:200, 1] = 0.0, 1.0
    session = np.array(["one"] * 200 + [f"s{i // 5}" for i in range(100)])
    alone = certified(dataclasses.replace(table, quality=quality, _hash=[]))
    together = certified(dataclasses.replace(table, quality=quality, session=session, _hash=[]))
    assert alone.verdict == "fail" and together.verdict == "undecided"


def test_empty_session_names_are_no_session():
    table = paired({"a": 0.0}, sizes=60)
    blank = dataclasses.replace(table, session=np.array([""] * 60), _hash=[])
    assert len(np.unique(blank.cluster_code)) == 60
