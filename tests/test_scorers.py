"""Scorers: out-of-fold, no label in a score, saved and reloaded identically; noise gives no gain."""

import numpy as np
import pytest
from helpers import make_table

from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import split_by_prompt
from toolkit.certify.intervals import zero_difference
from toolkit.evaluation.metrics import parse_metric
from toolkit.evaluation.slices import coverage
from toolkit.families.make import policy_family
from toolkit.policies.lanes import Lanes
from toolkit.policies.thresholds import ThresholdPolicy
from toolkit.policies.utility import UtilityPolicy
from toolkit.problem import RoutingProblem
from toolkit.scorers.base import ScoreTable, cross_fit
from toolkit.scorers.binned import BinnedScorer
from toolkit.scorers.calibrated import CalibratedScorer
from toolkit.scorers.eligibility import EligibilityScorer
from toolkit.scorers.registry import load_scorer
from toolkit.scorers.signals import SignalScorer
from toolkit.scorers.text import TextScorer
from toolkit.search.base import run_search
from toolkit.search.exact import ExactController

TEXT = TextScorer(ridge_alpha=10.0, neighbours=10, neighbour_weight=0.0, seed=3)
BOTH = TextScorer(ridge_alpha=10.0, neighbours=10, neighbour_weight=0.5, seed=3)
COLUMN = SignalScorer(column="difficulty")


def worded_table(n=400, *, seed=0, informative=True):
    """Half of the prompts are hard and say so in words; the cheap tier fails on those."""
    rng = np.random.default_rng(seed)
    table = make_table(rng, n=n, k=3, prompts=True, signals=("difficulty",))
    hard = rng.random(n) < 0.5
    words = np.array(["red", "blue", "green", "stone", "river", "cloud", "apple", "table", "seven", "nine"])
    filler = [" ".join(rng.choice(words, 8)) for _ in range(n)]
    marks = hard if informative else rng.random(n) < 0.5
    prompts = tuple(
        f"{'prove the theorem' if h else 'say hello'} {text} {i}"
        for i, (h, text) in enumerate(zip(marks, filler, strict=True))
    )
    quality = np.stack([np.where(hard, 0.2, 0.9), np.where(hard, 0.7, 0.9), np.where(hard, 0.95, 0.9)], axis=1)
    quality = np.clip(quality + rng.normal(scale=0.05, size=quality.shape), 0, 1)
    cost = np.tile([1e-5, 1e-4, 1e-3], (n, 1)) * rng.uniform(0.5, 1.5, (n, 3))
    queries = table.queries
    object.__setattr__(queries, "prompt", prompts)
    object.__setattr__(queries, "signals", {"difficulty": hard + rng.normal(scale=0.3, size=n)})
    object.__setattr__(table, "quality", quality)
    object.__setattr__(table, "cost_usd", cost)
    return table


RECIPES = {
    "text": TEXT,
    "text with neighbours": BOTH,
    "column": COLUMN,
    "binned column": BinnedScorer(base=COLUMN),
    "eligibility of text": EligibilityScorer(base=TEXT, margin=0.1),
    "eligibility of binned column": EligibilityScorer(base=BinnedScorer(base=COLUMN), against="tier0"),
    "binned eligibility": BinnedScorer(base=EligibilityScorer(base=COLUMN)),
    "column with confidence": SignalScorer(column="difficulty", confidence_column="sure"),
    "calibrated column": CalibratedScorer(base=COLUMN, method="isotonic", margin=0.05, folds=5),
}


def table_for_contract():
    table = worded_table(120)
    table.queries.signals["sure"] = np.random.default_rng(0).random(120)
    return table


@pytest.mark.parametrize("name", RECIPES)
class TestScorerContract:
    def test_saved_and_reloaded_identically(self, name, tmp_path):
        table = table_for_contract()
        fitted = RECIPES[name].fit(table)
        fitted.save(tmp_path)
        again = load_scorer(fitted.describe(), tmp_path)
        first, second = fitted.predict(table.queries), again.predict(table.queries)
        for part in ("score", "confidence", "quality", "cost_usd", "eligibility"):
            a, b = getattr(first, part), getattr(second, part)
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_array_equal(a, b)
        assert not [p for p in tmp_path.iterdir() if p.suffix in {".pkl", ".pickle", ".joblib"}]

    def test_shapes(self, name, tmp_path):
        table = table_for_contract()
        found = RECIPES[name].fit(table).predict(table.queries)
        assert found.score.shape == (120,)
        assert found.quality is None or found.quality.shape == found.cost_usd.shape == (120, 3)
        if found.confidence is not None:
            assert ((found.confidence >= 0) & (found.confidence <= 1)).all()

    def test_a_score_depends_on_the_query_alone(self, name, tmp_path):
        table = table_for_contract()
        fitted = RECIPES[name].fit(table)
        rows = np.array([5, 3, 80])
        np.testing.assert_allclose(
            fitted.predict(table.queries.take(rows)).score, fitted.predict(table.queries).score[rows], rtol=1e-9
        )


def test_out_of_fold_scores_do_not_see_their_own_label():
    """Changing one query's labels leaves its own out-of-fold score as it was."""
    table = worded_table(100)
    before = cross_fit(TEXT, table, folds=5, rng=np.random.default_rng(0))
    changed = table.quality.copy()
    changed[7] = [1.0, 0.0, 0.0]
    object.__setattr__(table, "quality", changed)
    after = cross_fit(TEXT, table, folds=5, rng=np.random.default_rng(0))
    assert after.quality[7].tolist() != pytest.approx(changed[7].tolist())
    fold = split_by_prompt(table, {str(i): 0.2 for i in range(5)}, np.random.default_rng(0))
    same = next(rows for rows in fold.values() if 7 in rows)
    # The scores of its whole fold depend on the other folds alone, up to the scale of the mean cost and quality.
    np.testing.assert_array_equal(before.quality[same], after.quality[same])


def test_text_learns_what_the_words_say():
    table = worded_table(400)
    scores = cross_fit(TEXT, table, folds=5, rng=np.random.default_rng(0))
    gain = table.quality[:, 1] - table.quality[:, 0]
    assert np.corrcoef(scores.score, gain)[0, 1] > 0.7
    assert np.abs(scores.cost_usd.mean(axis=0) / table.cost_usd.mean(axis=0) - 1).max() < 0.1


def test_a_prompt_without_tokens_has_no_score():
    table = worded_table(60)
    prompts = ("", "   ", *table.queries.prompt[2:])
    object.__setattr__(table.queries, "prompt", prompts)
    found = TEXT.fit(worded_table(60)).predict(table.queries)
    assert np.isnan(found.score[:2]).all() and np.isfinite(found.score[2:]).all()
    assert found.confidence[0] == 0


def test_confidence_is_the_share_of_known_tokens():
    table = worded_table(60)
    fitted = TEXT.fit(table)
    object.__setattr__(table.queries, "prompt", ("zebra quux", *table.queries.prompt[1:]))
    confidence = fitted.predict(table.queries).confidence
    assert confidence[0] == 0 and confidence[1:].mean() > 0.8


def test_binned_predictions_follow_the_score():
    table = worded_table(400)
    found = BinnedScorer(base=COLUMN).fit(table).predict(table.queries)
    easy, hard = found.score < 0.2, found.score > 0.8
    assert found.quality[easy, 0].mean() > 0.8 > 0.4 > found.quality[hard, 0].mean()


def test_clear_errors():
    table = make_table(np.random.default_rng(0), n=50, k=2)
    with pytest.raises(InputDataError, match="needs a prompt column"):
        TEXT.fit(table)
    with pytest.raises(InputDataError, match="'absent'"):
        SignalScorer(column="absent").fit(table)
    with pytest.raises(ConfigError, match="ridge_alpha"):
        TextScorer(ridge_alpha=0.0, neighbours=1, neighbour_weight=0.0, seed=0)
    with pytest.raises(ConfigError, match="confidence"):
        Lanes(fallback_tier=0, low_confidence_tier=0, confidence_floor=0.5).pinned(ScoreTable(score=np.zeros(3)))


def validated_gain(table, policy, seed):
    """Gain over the Zero router on the validation half, tuned to a quality floor on the other half."""
    rows = split_by_prompt(table, {"tune": 0.5, "validate": 0.5}, np.random.default_rng(seed))
    tune, validate = table.take(rows["tune"]), table.take(rows["validate"])
    lanes = Lanes(fallback_tier=0, low_confidence_tier=0)
    problem = RoutingProblem(
        table=tune,
        family=policy_family(
            policy.kind, cross_fit(TEXT, tune, folds=5, rng=np.random.default_rng(seed)), lanes, table.n_tiers
        ),
        objectives=(parse_metric("cost"), parse_metric("quality")),
        constraints=(),
        coverage=coverage(tune, 30),
    )
    found = run_search(problem, ExactController(problem, boundaries="auto", max_evaluations=2000)).evaluation
    floor = 0.5 * (tune.quality[:, 0].mean() + tune.quality[:, 2].mean())
    feasible = np.flatnonzero(found.columns["quality"] >= floor)
    best = feasible[np.argmin(found.columns["cost_usd"][feasible])]
    scores = TEXT.fit(tune).predict(validate.queries)
    return zero_difference(validate, policy.assign(found.params[[best]], scores, lanes)[0].astype(int))


@pytest.mark.slow
@pytest.mark.parametrize("policy", [ThresholdPolicy(), UtilityPolicy()], ids=lambda p: p.kind)
def test_pure_noise_labels_show_no_gain_on_validation(policy):
    """Prompts say nothing about the labels: tuning must not look like a gain on new queries."""
    gains = [validated_gain(worded_table(400, seed=seed, informative=False), policy, seed) for seed in range(12)]
    means = np.array([g.mean for g in gains])
    assert abs(means.mean()) < 3 * means.std(ddof=1) / np.sqrt(len(means)) + 0.005
    assert sum(g.verdict == "gain" for g in gains) <= 2


@pytest.mark.parametrize("policy", [ThresholdPolicy(), UtilityPolicy()], ids=lambda p: p.kind)
def test_informative_prompts_show_a_gain_on_validation(policy):
    assert validated_gain(worded_table(400), policy, 0).verdict == "gain"
