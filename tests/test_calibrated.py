"""Calibrators: right on planted curves, monotone, in [0, 1], NaN-safe, saved without loss; a scorer that wraps one."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
from helpers import make_table, run_cli, write_recording
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from simulators.errors import ConfigError
from toolkit.policies.lanes import Lanes
from toolkit.scorers.base import ScoreTable, cross_fit
from toolkit.scorers.binned import BinnedScorer
from toolkit.scorers.calibrated import (
    CalibratedScorer,
    IsotonicCalibrator,
    PlattCalibrator,
    fit_calibrator,
    load_calibrator,
    save_calibrator,
    upgrade_tier,
)
from toolkit.scorers.registry import load_scorer
from toolkit.scorers.signals import SignalScorer

METHODS = ("platt", "isotonic")
COLUMN = SignalScorer(column="difficulty")
SCORES = st.lists(
    st.tuples(
        st.one_of(st.floats(), st.sampled_from([0.0, 1.0, -1e308, 1.7e308, 5e-324])),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
).filter(lambda rows: any(np.isfinite(x) for x, _ in rows))


def planted(n=20_000, slope=1.7, intercept=-0.8, seed=0):
    rng = np.random.default_rng(seed)
    score = rng.normal(2.0, 3.0, n)
    return score, rng.random(n) < special.expit(slope * score + intercept)


def test_platt_finds_the_planted_curve():
    found = PlattCalibrator.fit(*planted())
    assert found.slope == pytest.approx(1.7, abs=0.08) and found.intercept == pytest.approx(-0.8, abs=0.1)


def test_platt_is_a_logistic_regression():
    score, label = planted(5000)
    found, peer = PlattCalibrator.fit(score, label), LogisticRegression(C=1e6).fit(score[:, None], label)
    np.testing.assert_allclose(found.predict(score), peer.predict_proba(score[:, None])[:, 1], atol=0.005)


def test_isotonic_is_the_isotonic_regression():
    rng = np.random.default_rng(1)
    score = np.round(rng.normal(size=500), 1)
    label = rng.random(500) < special.expit(score)
    peer = IsotonicRegression().fit(score, label)
    np.testing.assert_allclose(IsotonicCalibrator.fit(score, label).predict(score), peer.predict(score), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
class TestCalibratorContract:
    @given(rows=SCORES, new=st.lists(st.floats(), min_size=1, max_size=30))
    @settings(max_examples=60, deadline=None)
    def test_in_the_unit_interval_monotone_and_nan_safe(self, method, rows, new):
        score, label = np.array([x for x, _ in rows]), np.array([y for _, y in rows])
        found = fit_calibrator(method, score, label)
        x = np.sort(np.array([*new, *score]))
        p = found.predict(x)
        usable = np.isfinite(x)
        assert np.isnan(p[~usable]).all()
        assert ((p[usable] >= 0) & (p[usable] <= 1)).all()
        steps = np.diff(p[usable])
        assert (steps >= 0).all() or (method == "platt" and found.slope < 0 and (steps <= 0).all())

    @given(rows=SCORES, seed=st.integers(0, 99))
    @settings(max_examples=30, deadline=None)
    def test_the_order_of_the_queries_does_not_matter(self, method, rows, seed):
        score, label = np.array([x for x, _ in rows]), np.array([y for _, y in rows])
        order = np.random.default_rng(seed).permutation(len(score))
        a, b = (fit_calibrator(method, s, y) for s, y in ((score, label), (score[order], label[order])))
        np.testing.assert_allclose(a.predict(score), b.predict(score), atol=1e-6)

    def test_saved_and_loaded_without_loss(self, method, tmp_path):
        score, label = planted(300)
        found = fit_calibrator(method, score, label)
        save_calibrator(found, tmp_path / "c.json")
        np.testing.assert_array_equal(load_calibrator(tmp_path / "c.json").predict(score), found.predict(score))

    def test_separable_labels_and_labels_of_one_kind_stay_finite(self, method):
        score = np.arange(20.0)
        for label in (score > 9.5, np.ones(20, bool), np.zeros(20, bool)):
            text = json.dumps(fit_calibrator(method, score, label).as_dict(), allow_nan=False)
            assert "method" in text
        p = fit_calibrator(method, score, score > 9.5).predict(score)
        assert p[9] < 0.5 < p[10]

    def test_without_a_score_there_is_nothing_to_calibrate(self, method):
        with pytest.raises(ConfigError, match="no usable"):
            fit_calibrator(method, np.array([np.nan, np.inf]), np.array([True, False]))


def test_queries_of_one_score_get_one_probability():
    score, label = np.zeros(100), np.arange(100) < 30
    assert PlattCalibrator.fit(score, label).predict(score)[0] == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(IsotonicCalibrator.fit(score, label).predict(score), 0.3)


def test_a_score_that_points_the_wrong_way_is_flat_for_isotonic_and_falls_for_platt():
    score, label = planted(2000, slope=-1.0)
    assert PlattCalibrator.fit(score, label).slope < 0
    assert np.ptp(IsotonicCalibrator.fit(score, label).predict(np.quantile(score, [0.05, 0.95]))) < 0.05


@pytest.mark.parametrize(
    "text", ['{"method": "magic"}', '{"method": "isotonic", "cuts": [1, 0], "probability": [0, 1]}']
)
def test_a_damaged_calibrator_is_refused(text, tmp_path):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError):
        load_calibrator(tmp_path / "c.json")


def two_tier_table(n=4000, seed=0):
    """Tier 1 is better where a coin of probability `expit(signal)` says so; equal otherwise."""
    rng = np.random.default_rng(seed)
    table = make_table(rng, n=n, k=2)
    signal = rng.normal(0.0, 2.0, n)
    better = rng.random(n) < special.expit(signal)
    quality = np.stack([np.full(n, 0.4), np.where(better, 0.9, 0.4)], axis=1)
    queries = dataclasses.replace(table.queries, signals={"difficulty": signal})
    return dataclasses.replace(table, quality=quality, queries=queries, _hash=[])


def calibrated(method="platt", base=COLUMN, **changes):
    return CalibratedScorer(base=base, method=method, margin=0.05, folds=5, **changes)


@pytest.mark.parametrize("method", METHODS)
def test_confidence_is_that_of_the_planted_probability(method):
    table = two_tier_table()
    p = special.expit(table.queries.signals["difficulty"])
    found = calibrated(method).fit(table).predict(table.queries)
    assert np.abs(found.confidence - np.maximum(p, 1 - p)).mean() < 0.03
    np.testing.assert_array_equal(found.score, table.queries.signals["difficulty"])


def test_a_confidence_of_the_base_is_kept_unless_it_is_replaced():
    table = two_tier_table(200)
    table.queries.signals["sure"] = np.full(200, 0.123)
    base = SignalScorer(column="difficulty", confidence_column="sure")
    kept = calibrated(base=base).fit(table).predict(table.queries)
    replaced = calibrated(base=base, replace=True).fit(table).predict(table.queries)
    assert (kept.confidence == 0.123).all() and (replaced.confidence >= 0.5).all()


def test_a_query_without_a_score_has_no_confidence_and_falls_back():
    table = two_tier_table(200)
    table.queries.signals["difficulty"][:3] = np.nan
    found = calibrated().fit(table).predict(table.queries)
    assert (found.confidence[:3] == 0).all() and np.isnan(found.score[:3]).all()
    lanes = Lanes(fallback_tier=1, low_confidence_tier=0, confidence_floor=0.6)
    assert (lanes.pinned(found)[:3] == 1).all()


def test_the_step_is_from_the_cheapest_tier_to_the_best_other_one():
    table = make_table(np.random.default_rng(0), n=50, k=3)
    for means, upgrade in (((0.5, 0.9, 0.7), 1), ((0.9, 0.5, 0.7), 2)):
        one = dataclasses.replace(table, quality=np.tile(means, (50, 1)), _hash=[])
        assert upgrade_tier(one) == upgrade
        assert calibrated().fit(one).describe()["step"] == [f"tier{0}", f"tier{upgrade}"]


@dataclasses.dataclass(frozen=True)
class Memory:
    """A learned scorer that knows the labels it was fitted on by heart, and nothing else."""

    learned = True

    def fit(self, table):
        gain = table.quality[:, 1] - table.quality[:, 0]
        return FittedMemory(dict(zip(table.queries.query_id.tolist(), gain.tolist(), strict=True)))


@dataclasses.dataclass(frozen=True)
class FittedMemory:
    known: dict
    kind = "memory"

    def predict(self, queries):
        return ScoreTable(score=np.array([self.known.get(q, 0.0) for q in queries.query_id.tolist()]))


def test_a_learned_base_is_calibrated_on_scores_that_did_not_see_their_label():
    table = two_tier_table(400)
    new = dataclasses.replace(table.queries, query_id=np.array([f"new{i}" for i in range(400)]))
    rate = float((table.quality[:, 1] > table.quality[:, 0]).mean())
    fitted = calibrated("isotonic", base=Memory()).fit(table)
    assert fitted.predict(new).confidence[0] == pytest.approx(max(rate, 1 - rate), abs=0.01)
    in_sample = IsotonicCalibrator.fit(Memory().fit(table).predict(table.queries).score, table.quality[:, 1] > 0.5)
    assert in_sample.predict(np.array([0.5]))[0] == 1.0  # what the out-of-fold scores protect from


def test_saved_inside_a_binned_scorer_and_loaded_identically(tmp_path):
    table = two_tier_table(300)
    fitted = BinnedScorer(base=calibrated("isotonic")).fit(table)
    fitted.save(tmp_path)
    again = load_scorer(json.loads(json.dumps(fitted.describe())), tmp_path)
    first, second = fitted.predict(table.queries), again.predict(table.queries)
    np.testing.assert_array_equal(first.confidence, second.confidence)
    assert first.confidence is not None and first.quality is not None


def test_out_of_fold_confidence_does_not_see_its_own_label():
    table = two_tier_table(200)
    before = cross_fit(calibrated(), table, folds=5, rng=np.random.default_rng(0))
    changed = table.quality.copy()
    changed[7, 1] = 1.3 - changed[7, 1]
    other = dataclasses.replace(table, quality=changed, _hash=[])
    after = cross_fit(calibrated(), other, folds=5, rng=np.random.default_rng(0))
    assert before.confidence[7] == after.confidence[7] and (before.confidence != after.confidence).any()


RECORDED = ("data=recorded", "data.queries=queries.csv", "data.outcomes=outcomes.csv")
HARDNESS = (*RECORDED, "scorer=column", "scorer.column=hardness")


@pytest.fixture
def recording(tmp_path, monkeypatch):
    from experiments import tune_output

    monkeypatch.setattr(tune_output, "write_report", lambda path, record: {})  # figures take most of a small run's time
    write_recording(tmp_path, ".csv", n=200)
    return tmp_path


@pytest.mark.parametrize("policy", ["thresholds", "utility"])
@pytest.mark.slow
def test_a_confidence_floor_works_with_a_column(recording, policy):
    floor = ("calibration=platt", "policy.confidence_floor=0.7", f"policy={policy}", "controller.max_evaluations=500")
    code, _, err = run_cli("tune", *HARDNESS, *floor, "out=run", cwd=recording)
    assert code == 0, err
    described = json.loads((recording / "run" / "policy.json").read_text())["scorer"]
    described = described["base"] if policy == "utility" else described
    assert (described["kind"], described["method"], described["margin"]) == ("calibrated", "platt", 0.05)
    code, _, err = run_cli("route", "run=run", "queries=queries.csv", "output=d.csv", cwd=recording)
    assert code == 0 and "confidence below the floor" in (recording / "d.csv").read_text(), err
    if policy == "thresholds":
        code, _, err = run_cli("export", "run=run", "target=litellm", "output=x.yaml", cwd=recording)
        assert code == 2 and "calibration=none" in err


@pytest.mark.verify
def test_the_confidence_space_works_with_litellm(recording):
    if importlib.util.find_spec("litellm") is None:
        pytest.skip("litellm is not installed")
    options = ("scorer=litellm", "calibration=isotonic", "space=confidence", "controller=sobol", "budget=20")
    code, _, err = run_cli("tune", *RECORDED, *options, "out=run", cwd=recording)
    assert code == 0, err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((*HARDNESS, "calibration=magic"), "calibration"),
        ((*HARDNESS, "calibration=platt", "scorer.confidence_column=length"), "confidence_column"),
        ((*RECORDED, "scorer=litellm", "space=litellm", "controller=sobol", "calibration=platt"), "space=litellm"),
        ((*HARDNESS, "gain_margin=1"), "gain_margin"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(recording, options, said):
    code, out, err = run_cli("tune", *options, "out=run", cwd=recording)
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err
    assert not (recording / "run").exists()
