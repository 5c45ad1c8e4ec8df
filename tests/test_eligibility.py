"""The eligibility lane: a head that finds where thinking pays, its place among the lanes, each lane reported apart."""

import dataclasses
import json

import numpy as np
import pyarrow.csv
import pytest
from helpers import make_table, run_cli, snapshot, write_columns, write_recording
from hydra import compose, initialize_config_module
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from experiments.loading import load_data
from experiments.pipeline import prepare
from experiments.settings import TuneSettings, parse_settings
from simulators.errors import ConfigError, ExportError, InputDataError
from simulators.outcomes import split_by_prompt
from toolkit.certify.evidence import gather_evidence
from toolkit.evaluation.estimators import AssignmentEstimator, headline_metrics
from toolkit.evaluation.path import LambdaPath, PathEstimator
from toolkit.evaluation.slices import coverage
from toolkit.evaluation.thresholds import ScoreOrder, ThresholdEstimator
from toolkit.export.litellm import refuse_inexpressible
from toolkit.export.schema import PolicyFile, read_policy
from toolkit.families.eligibility import EligibilityFamily
from toolkit.families.thresholds import ConfidenceFamily
from toolkit.policies.base import decide
from toolkit.policies.lanes import BUDGET, ELIGIBLE, FALLBACK, FREE, LOW_CONFIDENCE, Lanes
from toolkit.policies.thresholds import UNREACHABLE, ThresholdPolicy
from toolkit.policies.utility import UtilityPolicy
from toolkit.report.lanes import lane_sentences
from toolkit.report.lanes_html import lane_section
from toolkit.scorers.base import ScoreTable, cross_fit
from toolkit.scorers.binned import BinnedScorer
from toolkit.scorers.eligibility import EligibilityScorer, EligibilityTarget, make_target, threshold_for_recall
from toolkit.scorers.registry import load_scorer
from toolkit.scorers.signals import SignalScorer

COLUMN = SignalScorer(column="difficulty")
HEAD = EligibilityScorer(base=COLUMN)
LANES = Lanes(fallback_tier=1, low_confidence_tier=0, eligible_tier=2, eligibility_threshold=0.5)


def planted(n=600, *, seed=0, prompts=False, rate=0.3):
    """On a share `rate` of the queries the dearest tier is better by 0.4; a signal (or two words) says on which."""
    rng = np.random.default_rng(seed)
    table = make_table(rng, n=n, k=3, prompts=prompts)
    hard = rng.random(n) < rate
    quality = np.stack([np.full(n, 0.5), np.full(n, 0.55), np.where(hard, 0.95, 0.5)], axis=1)
    signals = {"difficulty": rng.normal(size=n), "proof": hard + 0.1 * rng.normal(size=n)}
    words = ("say hello", "prove the theorem")
    texts = tuple(f"{words[int(h)]} {p}" for h, p in zip(hard, table.queries.prompt or (), strict=False))
    queries = dataclasses.replace(table.queries, signals=signals, prompt=texts if prompts else None)
    return dataclasses.replace(table, queries=queries, quality=quality), hard


# --- the head ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompts", [False, True])
def test_a_planted_signal_is_found(prompts):
    table, hard = planted(prompts=prompts)
    other, unseen = planted(seed=1, prompts=prompts)
    fitted = HEAD.fit(table)
    assert fitted.target == EligibilityTarget(tier="tier2", against="tier1", margin=0.1)
    assert fitted.base_rate == pytest.approx(hard.mean())
    pinned = fitted.predict(other.queries).eligibility >= 0.5
    assert pinned[unseen].mean() > 0.97 and unseen[pinned].mean() > 0.97
    assert fitted.describe()["reads"] == ("prompts" if prompts else "score, columns difficulty, proof")


def test_without_a_signal_the_head_states_about_the_base_rate():
    table, hard = planted(2000)
    signals = {"difficulty": np.random.default_rng(3).normal(size=2000)}
    table = dataclasses.replace(table, queries=dataclasses.replace(table.queries, signals=signals))
    found = cross_fit(HEAD, table, folds=5, rng=np.random.default_rng(0)).eligibility
    assert found.mean() == pytest.approx(hard.mean(), abs=0.01) and found.std() < 0.03


def test_the_base_passes_through():
    table, _ = planted()
    for base in (COLUMN, BinnedScorer(base=COLUMN)):
        plain, wrapped = base.fit(table).predict(table.queries), EligibilityScorer(base=base).fit(table)
        found = wrapped.predict(table.queries)
        np.testing.assert_array_equal(found.score, plain.score)
        for part in ("confidence", "quality", "cost_usd"):
            a, b = getattr(plain, part), getattr(found, part)
            assert (a is None and b is None) or np.array_equal(a, b)
        assert plain.eligibility is None and ((found.eligibility >= 0) & (found.eligibility < 1)).all()


@pytest.mark.parametrize(("n_positive", "constant"), [(0, True), (9, True), (10, False), (190, False), (191, True)])
def test_with_few_examples_the_head_is_the_base_rate_and_says_so(n_positive, constant):
    table, _ = planted(200)
    quality = np.full((200, 3), 0.5)
    quality[:n_positive, 2] = 1.0
    fitted = HEAD.fit(dataclasses.replace(table, quality=quality))
    found, said = fitted.predict(table.queries).eligibility, fitted.describe()
    assert (np.ptp(found) == 0) == constant == ("note" in said)
    if constant:
        np.testing.assert_allclose(found, n_positive / 200)
        assert f"{n_positive} of 200 queries" in said["note"] and said["reads"] == "nothing"


def test_missing_signals_count_as_such_and_others_are_an_error():
    table, hard = planted()
    proof = table.queries.signals["proof"].copy()
    proof[hard] = np.nan  # that it is missing tells everything
    proof[~hard] = 0.3
    queries = dataclasses.replace(table.queries, signals={"difficulty": np.full(600, np.inf), "proof": proof})
    fitted = HEAD.fit(dataclasses.replace(table, queries=queries))
    found = fitted.predict(queries).eligibility
    np.testing.assert_array_equal(found >= 0.5, hard)
    lacking = dataclasses.replace(queries, signals={"difficulty": proof})
    with pytest.raises(InputDataError, match=r"reads the numeric columns \['proof'\].*have: difficulty"):
        fitted.predict(lacking)
    huge = dataclasses.replace(queries, signals={"difficulty": np.where(hard, 1e300, -1e300), "proof": proof})
    assert np.isfinite(HEAD.fit(dataclasses.replace(table, queries=huge)).predict(huge).eligibility).all()


def test_a_head_on_prompts_needs_prompts_and_blank_ones_do_not_stop_it():
    table, _ = planted(prompts=True)
    fitted = HEAD.fit(table)
    with pytest.raises(InputDataError, match="prompt column"):
        fitted.predict(dataclasses.replace(table.queries, prompt=None))
    blank = dataclasses.replace(table.queries, prompt=(" ",) * 600)
    assert np.isfinite(fitted.predict(blank).eligibility).all()
    assert HEAD.fit(dataclasses.replace(table, queries=blank)).describe()["reads"].startswith("score")
    assert fitted.predict(table.queries.take(np.arange(0))).eligibility.shape == (0,)


def test_out_of_fold_eligibility_does_not_see_its_own_label():
    table, _ = planted(300)
    changed = table.quality.copy()
    changed[7, 2] = 0.5 if changed[7, 2] > 0.5 else 0.95
    again = dataclasses.replace(table, quality=changed)
    runs = [cross_fit(HEAD, t, folds=5, rng=np.random.default_rng(0)).eligibility for t in (table, again)]
    folds = split_by_prompt(table, {str(i): 0.2 for i in range(5)}, np.random.default_rng(0))
    own = next(rows for rows in folds.values() if 7 in rows)
    np.testing.assert_array_equal(runs[0][own], runs[1][own])
    assert (runs[0] != runs[1]).any()


@pytest.mark.parametrize("kind", ["prompts", "signals", "constant"])
def test_saved_and_loaded_identically(kind, tmp_path):
    table, _ = planted(prompts=kind == "prompts", rate=0.0 if kind == "constant" else 0.3)
    fitted = EligibilityScorer(base=BinnedScorer(base=COLUMN)).fit(table)
    fitted.save(tmp_path)
    again = load_scorer(json.loads(json.dumps(fitted.describe())), tmp_path)
    first, second = fitted.predict(table.queries), again.predict(table.queries)
    for part in ("score", "quality", "cost_usd", "eligibility"):
        np.testing.assert_array_equal(getattr(first, part), getattr(second, part))
    assert again.describe() == fitted.describe() and again.target == fitted.target
    assert {p.suffix for p in tmp_path.iterdir()} == {".npz", ".json"}
    (tmp_path / "eligibility.npz").unlink()
    with pytest.raises(InputDataError, match="missing or damaged"):
        load_scorer(fitted.describe(), tmp_path)


def test_the_default_target_and_what_it_refuses():
    table, _ = planted()
    assert make_target(table, None, None, 0.1).against == "tier1"
    assert make_target(table, "tier1", None, 0.1).against == "tier0"
    assert make_target(table, None, "tier0", 0.1).against == "tier0"
    for tier, against, said in (
        ("nobody", None, "lane.tier=nobody"),
        (None, "nobody", "lane.against=nobody"),
        ("tier0", None, "cheapest"),
        ("tier1", "tier1", "must differ"),
    ):
        with pytest.raises(ConfigError, match=said):
            make_target(table, tier, against, 0.1)


# --- recall -----------------------------------------------------------------------------------------------------------


def test_the_threshold_of_a_recall_known_answer():
    eligibility = np.array([0.9, 0.8, 0.7, 0.6, 0.5, np.nan])
    worthwhile = np.array([True, False, True, True, True, False])
    found = [threshold_for_recall(eligibility, worthwhile, r) for r in (0.01, 0.25, 0.26, 0.5, 0.75, 0.76, 1.0)]
    assert found == [0.9, 0.9, 0.7, 0.7, 0.6, 0.5, 0.5]
    with pytest.raises(ConfigError, match="1 of the 5 eligible queries.*no usable score"):
        threshold_for_recall(eligibility, np.array([True, False, True, True, True, True]), 0.9)
    with pytest.raises(ConfigError, match="no query of the tune split"):
        threshold_for_recall(eligibility, np.zeros(6, dtype=bool), 0.9)


@given(seed=st.integers(0, 10_000), recall=st.floats(0.01, 1.0), ties=st.booleans())
@settings(deadline=None, max_examples=60)
def test_no_larger_threshold_reaches_the_recall(seed, recall, ties):
    rng = np.random.default_rng(seed)
    eligibility = rng.integers(0, 8, 50) / 8 if ties else rng.random(50)
    worthwhile = rng.random(50) < 0.3
    worthwhile[0] = True
    threshold = threshold_for_recall(eligibility, worthwhile, recall)
    assert (eligibility[worthwhile] >= threshold).mean() >= recall - 1e-9
    assert (eligibility[worthwhile] >= np.nextafter(threshold, 2)).mean() < recall


def composed(*overrides):
    """The config as plain containers."""
    with initialize_config_module("conf", version_base="1.3"):
        config = compose(config_name="tune", overrides=["data.n_queries=600", *overrides])
    return OmegaConf.to_container(config, resolve=True)


def test_the_lane_settings_say_what_is_out_of_range():
    raw = composed("lane=both")
    wrong = {"recall": (0, 1.5), "threshold": (-0.1, 1.5, None), "margin": (-0.1, 1), "confidence_floor": (2, None)}
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(ConfigError, match=rf"lane\.{name}: .*; got {value}"):
                parse_settings(TuneSettings, raw | {"lane": raw["lane"] | {name: value}})


def prepared(*overrides):
    found = parse_settings(TuneSettings, composed(*overrides))
    return prepare(found, load_data(found.data, found.scenario, 0).table, ())


def test_a_tuned_lane_reaches_its_recall_out_of_fold_on_the_tune_split():
    found = prepared("lane=eligibility", "lane.recall=0.7", "lane.threshold=0.99")
    scores, tune = found.problem.family.scores, found.tune
    worthwhile = make_target(tune, None, None, 0.1).worthwhile(tune)
    threshold = found.lanes.eligibility_threshold
    assert (scores.eligibility[worthwhile] >= threshold).mean() >= 0.7
    assert (scores.eligibility[worthwhile] > threshold).mean() < 0.7
    fitted = found.scorer.predict(tune.queries).eligibility
    assert not np.array_equal(fitted, scores.eligibility)  # in-sample is something else


def test_the_lane_group_sets_floor_tier_and_threshold():
    assert prepared("lane=confidence").lanes.confidence_floor == 0.75
    assert prepared("lane=confidence", "policy.confidence_floor=0.6").lanes.confidence_floor == 0.6
    lanes = prepared("lane=both", "lane.tier=standard", "lane.threshold=0.3").lanes
    assert (lanes.confidence_floor, lanes.eligible_tier, lanes.eligibility_threshold) == (0.75, 1, 0.3)
    assert not prepared().lanes.configured


# --- order of lanes, and figures --------------------------------------------------------------------------------------


def test_order_of_lanes():
    """Failure goes before eligible, eligible before low confidence, low confidence before the policy."""
    scores = ScoreTable(
        score=np.array([np.nan, 0.0, 0.0, 0.0]),
        confidence=np.array([0.1, 0.1, 0.1, 0.9]),
        eligibility=np.array([0.9, 0.5, 0.49, 0.49]),
    )
    lanes = dataclasses.replace(LANES, confidence_floor=0.5)
    assert lanes.lane(scores).tolist() == [FALLBACK, ELIGIBLE, LOW_CONFIDENCE, BUDGET]
    assert lanes.pinned(scores).tolist() == [1, 2, 0, FREE]
    found = decide(ThresholdPolicy(), np.array([-1.0, 1.0]), scores, lanes)
    assert found.tier.tolist() == [1, 2, 0, 1] and found.lane.tolist() == lanes.lane(scores).tolist()
    assert [reason.split(":")[0] for reason in found.reason] == [
        "no usable score",
        "eligible",
        "confidence below the floor",
        "-1 <= score < 1",
    ]
    assert found.reason[1] == "eligible: pinned to the reasoning lane"
    off = dataclasses.replace(lanes, eligibility_threshold=None)
    assert off.lane(scores).tolist() == [FALLBACK, LOW_CONFIDENCE, LOW_CONFIDENCE, BUDGET]
    with pytest.raises(ConfigError, match="lane=eligibility"):
        lanes.lane(dataclasses.replace(scores, eligibility=None))


def test_eligible_queries_stay_where_the_confidence_floor_is_searched():
    scores = ScoreTable(score=np.zeros(3), confidence=np.array([0.1, 0.1, 0.9]), eligibility=np.array([0.9, 0.1, 0.1]))
    family = ConfidenceFamily(scores, LANES, ("a", "b", "c"), (0.0, 1.0))
    params = np.array([UNREACHABLE, UNREACHABLE, 0.5, 1.0])
    assert family.assign(params[None])[0].tolist() == [2, 1, 0]
    assert ThresholdPolicy().assign(params[None, :2], scores, family.deploy(params).lanes)[0].tolist() == [2, 1, 0]


@given(seed=st.integers(0, 10_000), k=st.integers(2, 4), floor=st.sampled_from([None, 0.3]))
@settings(deadline=None, max_examples=25)
def test_fast_estimators_stay_exact_with_pinned_lanes(seed, k, floor):
    rng = np.random.default_rng(seed)
    table, n = make_table(rng, n=50, k=k, n_slices=3), 50
    score = rng.normal(size=n)
    score[rng.random(n) < 0.1] = np.nan
    scores = ScoreTable(
        score=score,
        confidence=rng.random(n),
        quality=rng.random((n, k)),
        cost_usd=10.0 ** rng.normal(size=(n, k)),
        eligibility=rng.random(n),
    )
    lanes = Lanes(
        fallback_tier=0,
        low_confidence_tier=k - 1,
        confidence_floor=floor,
        eligible_tier=int(rng.integers(k)),
        eligibility_threshold=0.6,
    )
    cover, order, path = coverage(table, 5), ScoreOrder(scores, lanes), LambdaPath(scores, lanes)
    cuts = np.sort(rng.choice(order.boundaries, (20, k - 1)), axis=1)
    lam = np.concatenate([path.lambdas[:, None], np.zeros((len(path.lambdas), k - 1))], axis=1)
    pairs = (
        (ThresholdEstimator(table, cover, order, cuts), ThresholdPolicy().assign(cuts, scores, lanes)),
        (PathEstimator(table, cover, path, path.lambdas), UtilityPolicy().assign(lam, scores, lanes)),
    )
    for fast, assigned in pairs:
        slow, metrics = AssignmentEstimator(table, cover, assigned), headline_metrics(table, cover)
        for name, values in fast.values(metrics).items():
            np.testing.assert_allclose(values, slow.values(metrics)[name], rtol=1e-10, err_msg=name)
        np.testing.assert_array_equal(fast.tier_counts(), slow.tier_counts())


def test_a_searched_threshold_of_one_pins_nobody_and_zero_everybody_with_a_score():
    table, _ = planted(rate=1.0)  # the head is certain: its base rate is 1
    scores = HEAD.fit(table).predict(table.queries)
    score = scores.score.copy()
    score[:3] = np.nan
    scores = dataclasses.replace(scores, score=score)
    family = EligibilityFamily(scores, LANES, 3, (0.0, 1.0))
    assert family.parameter_names == ("t_1", "t_2", "eligibility_threshold")
    low = [UNREACHABLE, UNREACHABLE]
    tier = family.assign(np.array([[*low, 1.0], [*low, 0.0]]))
    assert tier[0].tolist() == [1] * 3 + [0] * 597 and tier[1].tolist() == [1] * 3 + [2] * 597
    with pytest.raises(ConfigError, match="lane=eligibility"):
        EligibilityFamily(dataclasses.replace(scores, eligibility=None), LANES, 3, (0.0, 1.0))


# --- evidence and report ----------------------------------------------------------------------------------------------


def evidence_of(table, lane, lanes, tier=None, target=None):
    lane = np.asarray(lane)
    return gather_evidence(
        table,
        np.where(lane == ELIGIBLE, 2, 0) if tier is None else tier,
        np.zeros(table.n_queries),
        coverage=coverage(table, 5),
        constraints=(),
        best_single=2,
        lanes=(lanes, lane),
        target=target,
    )


def test_each_lane_is_reported_apart():
    table, hard = planted(400)
    target = EligibilityTarget(tier="tier2", against="tier1", margin=0.1)
    lane = np.where(hard, ELIGIBLE, BUDGET)
    missed, wrong = np.flatnonzero(hard)[:10], np.flatnonzero(~hard)[:5]
    lane[missed], lane[wrong], lane[np.flatnonzero(~hard)[5:8]] = BUDGET, ELIGIBLE, FALLBACK
    found = evidence_of(table, lane, LANES, target=target)
    by_name = {part.name: part for part in found.lanes}
    assert list(by_name) == ["fallback", "eligible", "budget"]
    assert by_name["fallback"].n == 3 and sum(part.share for part in found.lanes) == pytest.approx(1.0)
    rows = np.flatnonzero(lane == ELIGIBLE)
    assert by_name["eligible"].quality.mean == pytest.approx(table.quality[rows, 2].mean())
    assert by_name["eligible"].latency_p95_s == pytest.approx(np.quantile(table.latency_s[rows, 2], 0.95))
    assert by_name["eligible"].cost_usd == pytest.approx(table.cost_usd[rows, 2].mean())
    free = np.flatnonzero(lane == BUDGET)
    gap = table.quality[free, 0] - table.quality[free, 2]
    assert by_name["budget"].versus.mean == pytest.approx(gap.mean())
    assert (by_name["eligible"].versus.low, by_name["eligible"].versus.high) == (0.0, 0.0)
    head, p = found.eligibility, int(hard.sum())
    assert (head.n, head.n_eligible, head.n_pinned, head.base_rate) == (400, p, p - 5, p / 400)
    assert head.recall.mean == pytest.approx((p - 10) / p) and head.precision.mean == pytest.approx((p - 10) / (p - 5))
    assert head.recall.low < head.recall.mean < head.recall.high < 1


def test_lanes_in_words_and_in_the_page():
    table, hard = planted(400)
    target = EligibilityTarget(tier="tier2", against="tier1", margin=0.1)
    found = evidence_of(table, np.where(hard, ELIGIBLE, BUDGET), LANES, target=target)
    text, page = " ".join(lane_sentences(found)), "".join(lane_section(found))
    for said in ("eligible lane", "worse by design", "budget lane", "(recall)", "(precision)", "no difference"):
        assert said in text, said
    for said in ("<h2>Lanes", "fallback", "eligible", "budget", "recall", "precision", "tier2 is better than tier1"):
        assert said in page, said
    nobody = evidence_of(table, np.full(400, BUDGET), LANES, target=target)
    (only,) = lane_sentences(nobody)
    assert "takes none of them" in only and "no probability reaches 0.5" in only
    assert [part.n for part in nobody.lanes] == [0, 0, 400] and "–" in "".join(lane_section(nobody))
    never = evidence_of(table, np.where(hard, ELIGIBLE, BUDGET), LANES, target=dataclasses.replace(target, margin=0.9))
    assert "(recall)" not in lane_sentences(never)[-1] and "(precision)" in lane_sentences(never)[-1]


def test_without_lanes_nothing_is_said_but_a_query_that_fell_back_is():
    table, _ = planted(100)
    plain = Lanes(fallback_tier=1, low_confidence_tier=2)
    nothing = evidence_of(table, np.full(100, BUDGET), plain)
    assert nothing.lanes == () and lane_section(nothing) == [] and lane_sentences(nothing) == []
    lane = np.full(100, BUDGET)
    lane[:4] = FALLBACK
    found = evidence_of(table, lane, plain)
    assert [(part.name, part.n) for part in found.lanes] == [("fallback", 4), ("budget", 96)]
    assert "fallback lane" in lane_sentences(found)[0] and found.eligibility is None


def test_unknown_costs_and_latencies_stay_unknown():
    table = make_table(np.random.default_rng(0), n=60, k=3, latency=False, cost=False)
    lane = np.where(np.arange(60) < 20, ELIGIBLE, BUDGET)
    found = evidence_of(table, lane, LANES)
    assert all(np.isnan([part.cost_usd, part.latency_p95_s]).all() for part in found.lanes)
    assert found.lanes[1].as_dict()["cost_usd"] is None and found.lanes[1].as_dict()["latency_p95_s"] is None
    text = " ".join(lane_sentences(found))
    assert "p95" not in text and "$" not in text and "nan" not in text


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain_report():
    """A report without figures: they take most of a small run's time."""
    from experiments import tune_output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune_output, "write_report", lambda path, record: {})
        yield


RECORDED = ("data=recorded", "data.queries=queries.parquet", "data.outcomes=outcomes.parquet")
COLUMNS = ("scorer=column", "scorer.column=hardness")
SMALL = ("slices.minimum=20", "controller.max_evaluations=200")


def done(*args, cwd):
    result = run_cli(*args, cwd=cwd)
    assert result.exit_code == 0, result.stderr
    return result


def decisions(path):
    text = pyarrow.csv.ConvertOptions(column_types={"query_id": "string", "tier": "string"})
    return pyarrow.csv.read_csv(path, convert_options=text).to_pydict()


@pytest.fixture(scope="module", params=["thresholds", "utility"])
def run(request, tmp_path_factory, plain_report):
    folder = tmp_path_factory.mktemp("eligible")
    write_recording(folder, n=300)
    lane = ("lane=eligibility", "lane.recall=0.5", "lane.margin=0.2")
    out = done("tune", *RECORDED, *COLUMNS, *SMALL, *lane, f"policy={request.param}", "out=run", "--json", cwd=folder)
    return folder, json.loads(out.stdout)


class TestTheLaneOnTheCommandLine:
    @pytest.mark.slow
    def test_the_policy_carries_the_lane_and_the_evidence(self, run):
        folder, said = run
        policy = read_policy(folder / "run" / "policy.json")
        assert policy.lanes.eligible_tier == "large" and 0 < policy.lanes.eligibility_threshold < 1
        assert policy.scorer["kind"] == "eligibility" and policy.scorer["reads"] == "prompts"
        lanes, head = said["evidence"]["lanes"], said["evidence"]["eligibility"]
        assert list(lanes) == ["fallback", "eligible", "budget"] and lanes["fallback"]["n"] == 0
        assert lanes["eligible"]["n"] == head["n_pinned"] > 0 and 0 < head["recall"]["mean"] < 1
        assert head["threshold"] == policy.lanes.eligibility_threshold and head["margin"] == 0.2
        assert json.loads((folder / "run" / "policy.json").read_text())["evidence"]["lanes"] == lanes

    def test_route_and_evaluate_do_what_the_policy_says(self, run):
        folder, _ = run
        done("route", "run=run", "queries=queries.parquet", "output=d.csv", cwd=folder)
        found = decisions(folder / "d.csv")
        eligible = np.array([reason == "eligible: pinned to the reasoning lane" for reason in found["reason"]])
        assert 0 < eligible.sum() < 300 and {found["tier"][i] for i in np.flatnonzero(eligible)} == {"large"}
        done("evaluate", "run=run", *RECORDED, "slices.minimum=20", "output=m.json", cwd=folder)
        evidence = json.loads((folder / "m.json").read_text())["evidence"]
        assert evidence["lanes"]["eligible"]["n"] == eligible.sum() == evidence["eligibility"]["n_pinned"]
        assert evidence["lanes"]["eligible"]["latency_p95_s"] > evidence["lanes"]["budget"]["latency_p95_s"]

    def test_litellm_refuses_and_json_takes_it(self, run):
        folder, _ = run
        policy = read_policy(folder / "run" / "policy.json")
        if policy.policy == "thresholds":
            with pytest.raises(ExportError, match="eligibility head.*lane=none"):
                refuse_inexpressible(policy)
        done("export", "run=run", "target=json", "output=p.json", "force=true", cwd=folder)
        assert read_policy(folder / "p.json").lanes == policy.lanes

    def test_an_old_policy_without_the_lane_still_loads(self, run):
        folder, _ = run
        raw = json.loads((folder / "run" / "policy.json").read_text())
        for name in ("eligible_tier", "eligibility_threshold"):
            del raw["lanes"][name]
        lanes = PolicyFile.model_validate(raw).runtime_lanes()
        assert lanes.eligible_tier is None and lanes.eligibility_threshold is None
        for broken in ({"eligible_tier": "large"}, {"eligible_tier": "nobody", "eligibility_threshold": 0.5}):
            with pytest.raises(ValueError, match=r"eligible_tier|nobody"):
                PolicyFile.model_validate(raw | {"lanes": raw["lanes"] | broken})


def test_the_searched_threshold_round_trip(tmp_path, plain_report):
    write_recording(tmp_path, n=300)
    search = ("lane=both", "lane.confidence_floor=0.1", "space=eligibility", "controller=sobol", "budget=40")
    scored = (*COLUMNS, "scorer.confidence_column=sure")
    columns = pyarrow.parquet.read_table(tmp_path / "queries.parquet").to_pydict()
    columns["sure"] = np.random.default_rng(0).random(300).tolist()
    columns["hardness"][3] = None
    write_columns(tmp_path / "queries.parquet", columns)
    chosen = ("slices.minimum=20", "constraints.quality_floor=0.6", "out=run")
    done("tune", *RECORDED, *scored, *search, *chosen, cwd=tmp_path)
    policy = read_policy(tmp_path / "run" / "policy.json")
    front = pyarrow.parquet.read_table(tmp_path / "run" / "front.parquet").sort_by("cost_usd").to_pydict()
    at = list(zip(front["t_1"], front["t_2"], front["eligibility_threshold"], strict=True))
    assert policy.space == "eligibility"
    row = at.index((*policy.thresholds, policy.lanes.eligibility_threshold))
    assert front["quality"][row] == pytest.approx(policy.metrics["tune"]["policy"]["quality"])
    names = {s["name"] for s in json.loads((tmp_path / "run" / "sensitivity.json").read_text())}
    assert "eligibility_threshold" in names
    done("route", "run=run", "queries=queries.parquet", "at.quality=0.75", "output=d.csv", cwd=tmp_path)
    best = next(i for i, quality in enumerate(front["quality"]) if quality >= 0.75)
    moved = policy.lanes.model_copy(update={"eligibility_threshold": front["eligibility_threshold"][best]})
    changed = policy.model_copy(update={"lanes": moved, "thresholds": [front["t_1"][best], front["t_2"][best]]})
    from experiments.runs import FinishedRun, open_finished
    from simulators.recorded import read_queries

    finished = FinishedRun(path=tmp_path, policy=changed, scorer=open_finished(str(tmp_path / "run")).scorer)
    expected = finished.decide(read_queries(tmp_path / "queries.parquet")[0])
    assert decisions(tmp_path / "d.csv")["tier"] == [policy.tiers[k] for k in expected.tier]
    assert expected.lane[3] == FALLBACK and (expected.lane == LOW_CONFIDENCE).any()


def test_a_study_takes_the_lane(tmp_path):
    options = ("lane=eligibility", "lane.recall=0.5", "data.n_queries=400", "splits=2", "floors=[0.85]", *SMALL[1:])
    out = done("study", *options, "--json", cwd=tmp_path)
    assert json.loads(out.stdout)["rows"][0]["n_splits"] == 2


SCENARIO = ("data.n_queries=300",)
SOBOL = ("controller=sobol", "budget=20")
REFUSED = {
    "an unknown tier": ((*SCENARIO, "lane=eligibility", "lane.tier=nobody"), ["lane.tier=nobody", "reasoning"]),
    "an unknown rival": ((*SCENARIO, "lane=both", "lane.against=nobody"), ["lane.against=nobody", "reasoning"]),
    "no cheaper tier": ((*SCENARIO, "lane=eligibility", "lane.tier=fast"), ["cheapest", "lane.against"]),
    "a recall above one": ((*SCENARIO, "lane=eligibility", "lane.recall=1.5"), ["lane.recall", "1.5"]),
    "a recall of nothing": (
        (*SCENARIO, "lane=eligibility", "lane.margin=0.99", "lane.recall=0.8"),
        ["lane.recall=0.8", "lane.margin"],
    ),
    "no such lane": ((*SCENARIO, "lane=fast"), ["lane"]),
    "a lane without a name": ((*SCENARIO, "lane=null"), ["lane=null", "choices"]),
    "a search without the lane": ((*SCENARIO, "space=eligibility", *SOBOL), ["lane=eligibility", "lane=both"]),
    "a recall that is searched": (
        (*SCENARIO, "lane=eligibility", "lane.recall=0.8", "space=eligibility", *SOBOL),
        ["lane.recall"],
    ),
    "a search of utilities": (
        (*SCENARIO, "lane=eligibility", "space=eligibility", "policy=utility", *SOBOL),
        ["policy=thresholds"],
    ),
    "an enumerated threshold": (
        (*SCENARIO, "lane=eligibility", "space=eligibility"),
        ["space=eligibility", "controller=mobo"],
    ),
    "bounds upside down": (
        (*SCENARIO, "lane=eligibility", "space=eligibility", "space.eligibility_threshold=[0.9,0.1]", *SOBOL),
        ["eligibility_threshold"],
    ),
    "a floor that is searched": ((*SCENARIO, "lane=confidence", "space=confidence", *SOBOL), ["lane=confidence"]),
    "weights behind a head": (
        (*RECORDED, "scorer=litellm", "space=litellm", "lane=eligibility", *SOBOL),
        ["space=litellm", "lane=none"],
    ),
    "no confidence": ((*RECORDED, *COLUMNS, "lane=confidence"), ["confidence_floor=0.75", "states its confidence"]),
}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recording")
    write_recording(folder, n=60)
    return folder


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.slow
def test_what_cannot_work_is_one_line(case, recording):
    args, fragments = REFUSED[case]
    before = snapshot(recording)
    result = run_cli("tune", *args, "out=run", cwd=recording)
    assert (result.exit_code, result.stdout) == (2, ""), result
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and all(fragment in line for fragment in fragments), line
    assert snapshot(recording) == before


def test_routing_needs_what_the_head_reads(tmp_path, plain_report):
    write_recording(tmp_path, n=240)
    columns = pyarrow.parquet.read_table(tmp_path / "queries.parquet").to_pydict()
    write_columns(tmp_path / "queries.parquet", {k: v for k, v in columns.items() if k != "prompt"})
    done("tune", *RECORDED, *COLUMNS, *SMALL, "lane=eligibility", "out=run", cwd=tmp_path)
    assert read_policy(tmp_path / "run" / "policy.json").scorer["reads"] == "score, columns hardness, length"
    write_columns(tmp_path / "new.parquet", {k: columns[k] for k in ("query_id", "hardness")})
    result = run_cli("route", "run=run", "queries=new.parquet", "output=new.csv", cwd=tmp_path)
    assert result.exit_code == 2 and "eligibility head reads the numeric columns ['length']" in result.stderr
