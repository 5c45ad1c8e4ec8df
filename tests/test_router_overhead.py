"""The router's own time and money: in every figure of a policy, in none of what needs no router."""

import dataclasses
import json

import numpy as np
import pytest
from helpers import make_table, run_cli, write_columns, write_recording
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from experiments.pipeline import prepare
from experiments.router import base_kind, overhead_of
from experiments.settings import TuneSettings, parse_settings
from simulators.errors import ConfigError, InfeasibleError, InputDataError
from simulators.outcomes import OutcomeTable, QueryBatch
from toolkit.certify.certificate import certify
from toolkit.certify.choice import safe_path
from toolkit.certify.criteria import Judge
from toolkit.certify.evidence import gather_evidence
from toolkit.certify.intervals import zero_difference
from toolkit.certify.router import router_evidence
from toolkit.evaluation.constraints import parse_constraints, restore_constraints
from toolkit.evaluation.contention import make_queue_world, without_router
from toolkit.evaluation.estimators import AssignmentEstimator
from toolkit.evaluation.metrics import Metric, parse_metric
from toolkit.evaluation.slices import coverage
from toolkit.evaluation.summary import metrics_summary, router_summary
from toolkit.export.schema import PolicyFile
from toolkit.pareto.choose import choose
from toolkit.problem import Evaluation
from toolkit.report.router import router_row, router_sentences
from toolkit.scorers.overhead import RouterOverhead
from toolkit.scorers.registry import load_scorer
from toolkit.scorers.strategy import delay_signal, strategy_scorer
from toolkit.zero_router import zero_router_of

ROUTERS = {
    "rules": {"accuracy": 0.65, "delay_median_s": 0.002, "confidence": False},
    "llm": {"accuracy": 0.9, "delay_median_s": 0.1, "delay_sigma": 0.4, "usd_per_query": 1.5e-5, "token_tax": 0.05},
}
USD, DELAY_S = 2e-4, 0.012


@pytest.fixture(scope="module")
def bare() -> OutcomeTable:
    table = make_table(np.random.default_rng(0), n=240)
    tokens = np.random.default_rng(1).integers(50, 500, table.quality.shape).astype(np.float64)
    return dataclasses.replace(table, input_tokens=tokens)


@pytest.fixture(scope="module")
def routed(bare) -> OutcomeTable:
    return RouterOverhead(delay_s=DELAY_S, usd_per_query=USD).apply(bare)


@pytest.fixture(scope="module")
def tier(bare):
    return np.random.default_rng(2).integers(0, bare.n_tiers, bare.n_queries)


def settings_of(*overrides: str, model=TuneSettings) -> TuneSettings:
    with initialize_config_module("conf", version_base="1.3"):
        raw = OmegaConf.to_container(compose(config_name="tune", overrides=list(overrides)), resolve=True)
    raw["scenario"] = {**raw["scenario"], "routers": ROUTERS}
    return parse_settings(model, raw)


def with_signal(table: OutcomeTable, name: str, values: np.ndarray) -> OutcomeTable:
    queries = table.queries
    signals = {**queries.signals, name: values}
    changed = QueryBatch(query_id=queries.query_id, prompt=queries.prompt, signals=signals, slice=queries.slice)
    return dataclasses.replace(table, queries=changed, _hash=[])


def test_the_price_of_a_decision_is_fixed_part_plus_token_tax(bare):
    prices = {"tier0": 1.0, "tier2": 30.0}  # the router never sends a query to tier1
    overhead = RouterOverhead(usd_per_query=USD, token_tax=0.05, input_usd_per_mtok=prices)
    found = overhead.apply(bare).router_cost_usd
    for k, price in enumerate((1.0, 0.0, 30.0)):
        np.testing.assert_allclose(found[:, k], USD + 0.05 * bare.input_tokens[:, k] * price / 1e6, rtol=1e-12)


def test_policy_figures_change_by_exactly_the_overhead(bare, routed, tier):
    before, after = (metrics_summary(t, tier, n_dropped=0) for t in (bare, routed))
    assert after["policy"]["quality"] == before["policy"]["quality"]
    assert after["policy"]["cost_usd"] - before["policy"]["cost_usd"] == pytest.approx(USD, rel=1e-9)
    for figure in ("mean", "p50", "p95", "p99"):
        change = after["policy"]["latency_s"][figure] - before["policy"]["latency_s"][figure]
        assert change == pytest.approx(DELAY_S, rel=1e-9)
    for name, found in after["slices"].items():
        assert found["cost_usd"] - before["slices"][name]["cost_usd"] == pytest.approx(USD, rel=1e-9)
    for name, found in after["tiers"].items():
        assert found["cost_usd"] == pytest.approx(before["tiers"][name]["cost_usd"], rel=1e-12)
        assert found["latency_s"]["p95"] == pytest.approx(before["tiers"][name]["latency_s"]["p95"], rel=1e-12)
    share = USD / after["policy"]["cost_usd"]
    expected = {"delay_p50_s": DELAY_S, "delay_p95_s": DELAY_S, "cost_usd": USD, "cost_share": share}
    assert after["router"] == pytest.approx(expected) and "router" not in before


def test_mixing_at_random_pays_for_no_router(bare, routed, tier):
    hull, same = zero_router_of(bare), zero_router_of(routed)
    np.testing.assert_allclose(same.cost_usd, hull.cost_usd, rtol=1e-12)
    assert same.tier == hull.tier
    rows = np.arange(bare.n_queries)
    expected = routed.quality[rows, tier].mean() - hull.quality_at(float(routed.cost_usd[rows, tier].mean()))
    assert zero_difference(routed, tier).mean == pytest.approx(expected, abs=1e-12)
    assert zero_difference(routed, tier).mean < zero_difference(bare, tier).mean


def test_a_router_that_sends_everything_to_one_tier_loses_to_that_tier_alone(bare, routed):
    cheapest = np.zeros(bare.n_queries, dtype=np.int64)
    found = metrics_summary(routed, cheapest, n_dropped=0)
    assert found["policy"]["cost_usd"] == pytest.approx(found["tiers"]["tier0"]["cost_usd"] + USD)
    assert zero_difference(bare, cheapest).mean == pytest.approx(0, abs=1e-12)
    assert zero_difference(routed, cheapest).mean < -1e-3
    evidence = gather_evidence(
        routed, cheapest, np.arange(240.0), coverage=coverage(routed, 30), constraints=(), best_single=2
    )
    assert evidence.cost_usd.mean == pytest.approx(evidence.tier_cost_usd[0] + USD)
    assert evidence.latency_s["p95"] == pytest.approx(evidence.tier_latency_p95_s[0] + DELAY_S)


def test_a_delay_that_is_not_stated_stays_unknown(bare, tier):
    table = RouterOverhead(usd_per_query=USD).apply(bare)
    assert table.router_delay_s is None and set(router_summary(table, tier)) == {"cost_usd", "cost_share"}
    np.testing.assert_array_equal(table.latency_s, bare.latency_s)
    with pytest.raises(ConfigError, match=r"state router\.delay_s=SECONDS"):
        estimate(table, tier, parse_metric("router_delay_p95"))
    (constraint,) = parse_constraints({"router_budget_s": 0.02})
    assert Judge(table, coverage(table, 30)).test(constraint, tier).note == "the router's delay is not known here"


def estimate(table, tier, metric):
    return AssignmentEstimator(table, coverage(table, 30), tier[None, :].astype(np.int8)).value(metric)[0]


def test_budget_is_the_p95_of_the_routers_delay_overall_and_per_slice(bare, tier):
    delays = np.random.default_rng(3).lognormal(-4.5, 0.5, bare.n_queries)
    table = RouterOverhead(delay_signal="d").apply(with_signal(bare, "d", delays))
    assert estimate(table, tier, parse_metric("router_delay_p95")) == pytest.approx(np.quantile(delays, 0.95))
    inside = delays[table.slice_code == 1]
    assert estimate(table, tier, parse_metric("router_delay_p95@slice1")) == pytest.approx(np.quantile(inside, 0.95))
    assert estimate(table, 0 * tier, Metric("router_delay_p95")) == estimate(table, tier, Metric("router_delay_p95"))
    (kept,) = restore_constraints({"router_budget_s": 10.0})
    assert kept.text == "router_delay_p95_s <= 10"
    judge = Judge(table, coverage(table, 30), simulated_latency=True)  # the router's delay is not simulated
    assert judge.test(kept, tier).p_holds < 0.01
    (broken,) = parse_constraints({"router_budget_s": float(np.quantile(delays, 0.5))})
    found = judge.test(broken, tier)
    assert found.p_broken < 0.01 and found.value.mean == pytest.approx(np.quantile(delays, 0.95))


def evaluation_behind(delay_s: float, constraints) -> Evaluation:
    columns = {
        "quality": np.array([0.9, 0.8]),
        "cost_usd": np.array([2.0, 1.0]),
        "router_delay_p95_s": np.full(2, delay_s),
    }
    return Evaluation(
        params=np.zeros((2, 1)),
        Y=np.stack([-columns["cost_usd"], columns["quality"]], axis=1),
        slack=np.stack([c.slack(columns[c.metric.column]) for c in constraints], axis=1),
        columns=columns,
        tier_shares=np.zeros((2, 2)),
    )


def test_a_router_that_is_too_slow_is_named_with_what_would_help():
    constraints = parse_constraints({"router_budget_s": 0.01})
    with pytest.raises(InfeasibleError, match=r"router_budget_s=0\.01 binds \(out of reach alone") as error:
        choose(evaluation_behind(0.02, constraints), np.array([], dtype=np.int64), "auto", constraints)
    assert "raise router_budget_s, or take a faster router" in str(error.value)


def test_a_budget_of_the_router_alone_does_not_change_the_rule_or_the_path():
    budget = {"router_budget_s": 0.05}
    constraints = parse_constraints(budget)
    evaluation = evaluation_behind(0.049, constraints)
    assert choose(evaluation, np.arange(2), "auto", constraints).rule == "knee"
    both = parse_constraints({"quality_floor": 0.5, **budget})
    alone = parse_constraints({"quality_floor": 0.5})
    assert safe_path(evaluation_behind(0.049, both), both).tolist() == [0, 1]
    assert safe_path(evaluation_behind(0.049, alone), alone).tolist() == [0, 1]


def test_a_certificate_charges_each_side_its_own_router(bare, routed, tier):
    def compare(baseline_table):
        return certify(
            routed,
            tier,
            np.full(bare.n_queries, 2),
            coverage=coverage(bare, 30),
            constraints=(),
            margin=0.1,
            alpha=0.05,
            power=0.8,
            rng=np.random.default_rng(0),
            baseline_table=baseline_table,
        )

    rows = np.arange(bare.n_queries)
    difference = (bare.cost_usd[rows, tier] - bare.cost_usd[:, 2]).mean()
    assert compare(None).cost_difference.mean == pytest.approx(difference + USD)
    assert compare(routed).cost_difference.mean == pytest.approx(difference)
    gap = {c.name: c.policy.mean - c.baseline.mean for c in compare(None).latency}
    same = {c.name: c.policy.mean - c.baseline.mean for c in compare(routed).latency}
    assert gap["p95"] == pytest.approx(same["p95"] + DELAY_S)


@pytest.mark.parametrize(
    ("delay", "said"),
    [(None, "is the column 'd' of the queries, which have: difficulty"), (np.nan, "has nan"), (-1.0, "has -1.0")],
)
def test_a_delay_that_the_queries_lack_is_one_line(bare, delay, said):
    table = bare if delay is None else with_signal(bare, "d", np.where(np.arange(240) == 7, delay, 0.1))
    with pytest.raises(InputDataError, match="router's delay") as error:
        RouterOverhead(delay_signal="d").apply(table)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_token_tax_without_tokens_is_one_line(bare):
    table = dataclasses.replace(bare, input_tokens=np.full_like(bare.input_tokens, np.nan))
    with pytest.raises(InputDataError, match=r"token_tax=0\.05 is a share of input_tokens, which 240 answers of tier1"):
        RouterOverhead(token_tax=0.05, input_usd_per_mtok={"tier1": 1.0}).apply(table)


def test_policy_json_keeps_the_router_and_older_ones_have_none(bare, routed):
    overhead = RouterOverhead(delay_s=DELAY_S, usd_per_query=USD, budgets_s=(0.01, 0.05))
    stored = {
        "policy": "thresholds",
        "tiers": list(bare.tiers),
        "thresholds": [0.3, 0.6],
        "utility": None,
        "lanes": {"fallback_tier": "tier1", "low_confidence_tier": "tier2"},
        "scorer": {"kind": "column"},
        "objectives": ["cost"],
        "constraints": {},
        "chosen_because": "x",
        "data_hash": "x",
        "metrics": {},
        "evidence": {},
        "provenance": {"routefront_version": "x", "git_commit": None, "seed": 0, "created": "x", "source": "x"},
    }
    older = PolicyFile.model_validate(stored)
    assert older.router is None and older.behind_router(bare) is bare
    policy = PolicyFile.model_validate({**stored, "router": overhead})
    again = PolicyFile.model_validate(json.loads(policy.model_dump_json()))
    assert again.router == overhead
    assert again.behind_router(bare).data_hash == routed.data_hash != bare.data_hash


def test_without_a_router_requests_are_at_their_tier_when_they_arrive(bare):
    delays = np.random.default_rng(4).uniform(0, 5, bare.n_queries)
    table = bare.with_router(delay_s=delays, cost_usd=np.zeros_like(bare.cost_usd))
    one, plain = (
        make_queue_world(t, rate_per_s=2.0, slots={"tier0": 2}, rng=np.random.default_rng(5)) for t in (table, bare)
    )
    assert (one.ready_s > one.arrival_s).all()
    alone = without_router(one)
    np.testing.assert_array_equal(alone.ready_s, plain.ready_s)
    np.testing.assert_array_equal(alone.row, plain.row)


def test_report_says_delay_cost_share_and_budgets(bare, tier):
    table = RouterOverhead(delay_s=DELAY_S, usd_per_query=USD).apply(bare)
    found = router_evidence(table, tier, (0.01, 0.05))
    said = " ".join(router_sentences(found))
    assert "takes 12 ms (p50) and 12 ms (p95) and costs $0.200 per 1,000 queries" in said
    assert "over the budget of 10 ms and within the budget of 50 ms" in said
    assert found.as_dict()["within_s"] == {"0.01": False, "0.05": True}
    assert router_row(found) == [("the router's own", "p95 12 ms, $0.200 per 1,000 queries")]
    assert router_evidence(bare, tier, (0.01,)) is None and router_sentences(None) == [] == router_row(None)
    unknown = router_evidence(RouterOverhead(usd_per_query=USD).apply(bare), tier, (0.01,))
    assert "not stated" in router_sentences(unknown)[0] and unknown.as_dict()["delay_p95_s"] is None


def test_a_router_of_the_scenario_brings_its_own_overhead(tmp_path):
    settings = settings_of("scorer=llm_router", "router.budgets_s=[0.05]")
    found = overhead_of(settings, ("fast", "standard"))
    assert found.delay_signal == "llm_delay_s" == delay_signal("llm") and found.delay_s is None
    assert (found.usd_per_query, found.token_tax, found.budgets_s) == (1.5e-5, 0.05, (0.05,))
    tiers = settings.scenario["tiers"]
    assert found.input_usd_per_mtok == {name: tiers[name]["input_usd_per_mtok"] for name in ("fast", "standard")}
    stated = settings_of("scorer=llm_router", "router.delay_s=0.2", "router.token_tax=0", "router.usd_per_query=0.001")
    expected = RouterOverhead(delay_s=0.2, usd_per_query=0.001, budgets_s=(0.01, 0.05))
    assert overhead_of(stated, ("fast", "standard")) == expected
    assert overhead_of(settings_of(), ("fast", "standard")) is None
    scorer = strategy_scorer("llm", confidence=True)
    scorer.save(tmp_path)
    assert load_scorer(scorer.describe(), tmp_path) == scorer
    assert base_kind({"kind": "calibrated", "base": scorer.describe()}) == "strategy"
    assert strategy_scorer("rules", confidence=False).confidence_column is None


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("scorer=memory",), "the router memory of a scenario, but hybrid_api has llm, rules"),
        (("scorer=rules", "data=recorded"), "needs data=scenario"),
        (("data=recorded", "router.token_tax=0.02"), "give data.prices=FILE"),
        (("router.token_tax=1.5",), "router.token_tax"),
        (("router.delay_s=-1",), "router.delay_s"),
        (("router.delay_s=.inf",), "router.delay_s"),
    ],
)
def test_bad_options_are_one_line(overrides, said):
    with pytest.raises(ConfigError) as error:
        overhead_of(settings_of(*overrides), ("fast", "standard"))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_price_card_must_name_every_tier(tmp_path):
    path = tmp_path / "prices.csv"
    write_columns(path, {"model": ["a"], "input_usd_per_mtok": [1.0], "output_usd_per_mtok": [2.0]})
    settings = settings_of("data=recorded", f"data.prices={path}", "router.token_tax=0.02")
    assert overhead_of(settings, ("a",)).input_usd_per_mtok == {"a": 1.0}
    with pytest.raises(ConfigError, match=r"input price of every tier; there is none of \['b'\]"):
        overhead_of(settings, ("a", "b"))


def test_prepare_puts_the_overhead_into_both_splits_and_not_into_the_axes(bare):
    options = ("scorer=column", "scorer.column=difficulty", "world=none")
    plain, behind = (
        prepare(settings_of(*options, *more), bare, ())
        for more in ((), (f"router.usd_per_query={USD}", f"router.delay_s={DELAY_S}"))
    )
    assert behind.axes.same_as(plain.axes)
    for name in ("tune", "validate"):
        ours, theirs = getattr(behind, name), getattr(plain, name)
        np.testing.assert_allclose(ours.cost_usd, theirs.cost_usd + USD, rtol=1e-12)
        np.testing.assert_allclose(ours.latency_s, theirs.latency_s + DELAY_S, rtol=1e-12)
    params = np.array([[-0.1, 0.4], [0.3, 0.7]])
    before, after = (p.problem.evaluate_params(params).columns for p in (plain, behind))
    np.testing.assert_allclose(after["cost_usd"] - before["cost_usd"], USD, rtol=1e-9)
    np.testing.assert_allclose(after["latency_p95_s"] - before["latency_p95_s"], DELAY_S, rtol=1e-9)
    objectives = "objectives=[cost,router_delay_p95]"
    with pytest.raises(ConfigError, match="the same for every policy"):
        prepare(settings_of(*options, objectives), bare, ())


@pytest.mark.slow
def test_a_run_and_its_evaluation_and_certificate_share_the_overhead(tmp_path):
    queries, outcomes = write_recording(tmp_path)
    data = ("data=recorded", f"data.queries={queries}", f"data.outcomes={outcomes}")
    tune = ("tune", *data, "scorer=column", "scorer.column=hardness", "split.tune=0.5", "split.validate=0.25")
    more = ("router.usd_per_query=0.001", "router.delay_s=0.03", "constraints.router_budget_s=0.05")
    for name, options in (("plain", ()), ("routed", more)):
        code, _, err = run_cli(*tune, *options, "choose=max_quality", f"out={name}", cwd=tmp_path)
        assert code == 0, err
        code, _, err = run_cli("evaluate", f"run={name}", *data, f"output={name}.json", cwd=tmp_path)
        assert code == 0, err
    plain, routed = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("plain", "routed"))
    assert routed["policy"]["tier_shares"] == plain["policy"]["tier_shares"]
    assert routed["policy"]["cost_usd"] - plain["policy"]["cost_usd"] == pytest.approx(0.001)
    assert routed["policy"]["latency_s"]["p95"] - plain["policy"]["latency_s"]["p95"] == pytest.approx(0.03)
    assert routed["data_hash"] == plain["data_hash"] and routed["router"]["delay_p95_s"] == pytest.approx(0.03)
    assert routed["evidence"]["router"]["within_s"] == {"0.01": False, "0.05": True}
    report = (tmp_path / "routed" / "report.html").read_text()
    assert "over the budget of 10 ms and within the budget of 50 ms" in report
    found = {}
    for baseline in ("large", "plain"):
        code, out, err = run_cli("certify", "run=routed", *data, f"baseline={baseline}", "--json", cwd=tmp_path)
        assert code in (0, 3, 4), err
        found[baseline] = json.loads(out)
    assert found["plain"]["cost_difference_usd"]["mean"] == pytest.approx(0.001)
    assert any("router_delay_p95_s <= 0.05" in json.dumps(c) for c in found["large"]["criteria"])
    code, _, err = run_cli(*tune, "router.delay_s=0.06", "constraints.router_budget_s=0.05", "out=slow", cwd=tmp_path)
    assert code != 0 and err.count("\n") == 1 and "take a faster router" in err
    assert not (tmp_path / "slow").exists()
