"""The recipe that trains PROTEUS, and what it leaves behind: a scorer without torch."""

import dataclasses
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import make_table

from simulators.errors import ConfigError, InputDataError
from simulators.outcomes import OutcomeTable, split_by_prompt
from toolkit.evaluation.constraints import parse_constraints
from toolkit.evaluation.slices import coverage
from toolkit.scorers.base import cross_fit
from toolkit.scorers.binned import BinnedScorer
from toolkit.scorers.embedding import Embedding
from toolkit.scorers.registry import load_scorer
from toolkit.scorers.signals import SignalScorer
from toolkit.scorers.text import TextScorer
from toolkit.search.proteus import ProteusOptions
from toolkit.search.proteus_scorer import ProteusScorer, additive_constraints, default_targets

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("torch")

QUICK = ProteusOptions(hidden=8, steps=10, batch=64, bins=5, settle=3, nodes=8)
TEXT = TextScorer(ridge_alpha=1.0, neighbours=5, neighbour_weight=0.0, seed=0)
TARGETS = np.linspace(0.6, 0.9, 7)


def table(n: int = 150, seed: int = 0, **options: object) -> OutcomeTable:
    return make_table(np.random.default_rng(seed), n=n, prompts=True, **options)


def recipe(**options: object) -> ProteusScorer:
    plain = {"base": TEXT, "options": QUICK, "targets": TARGETS, "folds": 2, "embedding": Embedding(dimensions=2)}
    return ProteusScorer(**{**plain, **options})


def bounds(*texts: str) -> tuple:
    return parse_constraints({"bounds": list(texts)})


class TestFitted:
    def test_levels_are_tiers_for_each_target_and_the_base_stays(self):
        tune, new = table(), table(40, seed=1)
        fitted = recipe().fit(tune)
        found, base = fitted.predict(new.queries), TEXT.fit(tune).predict(new.queries)
        assert found.levels.shape == (40, 7) and found.levels.dtype == np.int8
        assert set(np.unique(found.levels)) <= {0, 1, 2}
        np.testing.assert_array_equal(found.level_targets, TARGETS)
        np.testing.assert_array_equal(found.quality, base.quality)
        np.testing.assert_array_equal(found.score, base.score)

    @pytest.mark.slow
    def test_saved_and_loaded_it_routes_the_same_without_torch(self, tmp_path):
        fitted, new = recipe().fit(table()), table(40, seed=1).queries
        fitted.save(tmp_path)
        again = load_scorer(fitted.describe(), tmp_path)
        np.testing.assert_array_equal(again.predict(new).levels, fitted.predict(new).levels)
        assert again.describe() == fitted.describe()
        code = (
            "import sys, numpy as np; from pathlib import Path; from toolkit.scorers.registry import load_scorer\n"
            "from simulators.outcomes import QueryBatch\n"
            f"s = load_scorer({{'kind': 'proteus', 'base': {{'kind': 'text'}}}}, Path({str(tmp_path)!r}))\n"
            "q = QueryBatch(query_id=np.array(['a']), prompt=('step by step',), signals={})\n"
            "assert s.predict(q).levels.shape == (1, 7) and 'torch' not in sys.modules"
        )
        root = Path(__file__).resolve().parent.parent
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
        assert done.returncode == 0, done.stderr

    def test_a_query_that_the_base_cannot_score_gets_tier_0(self):
        tune = table()
        queries = dataclasses.replace(tune.queries, prompt=("", *tune.queries.prompt[1:]))
        found = recipe().fit(tune).predict(queries)
        assert np.isnan(found.score[0]) and (found.levels[0] == 0).all()
        np.testing.assert_array_equal(found.levels[1:], recipe().fit(tune).predict(tune.queries).levels[1:])

    def test_the_summary_says_what_was_reached(self):
        fitted = recipe(targets=np.linspace(0.5, 1.0, 11)).fit(table())
        said = fitted.describe()
        assert said["kind"] == "proteus" and said["options"]["dual"] == "per_tau"
        assert 0.5 <= fitted.reachable < 1.0
        assert recipe(targets=np.array([0.99, 1.0])).fit(table()).reachable is None

    def test_what_is_stored_is_the_same_each_time(self, tmp_path):
        """A certificate is valid for the stored files: how long training took must not be among them."""
        fitted = recipe().fit(table())
        assert fitted.summary["seconds"] > 0 and "seconds" not in fitted.describe()
        fitted.save(tmp_path)
        assert "seconds" not in (tmp_path / "proteus.json").read_text()

    def test_without_costs_the_index_of_the_tier_stands_in(self):
        fitted = recipe().fit(table(cost=False))
        assert fitted.predict(table(20, seed=1).queries).levels.shape == (20, 7)
        assert "index of the tier" in fitted.describe()["cost"]

    def test_signals_alone_are_enough(self):
        tune = make_table(np.random.default_rng(0), n=150)
        base = BinnedScorer(base=SignalScorer(kind="column", column="difficulty"))
        assert recipe(base=base).fit(tune).predict(tune.queries).levels.shape == (150, 7)

    def test_a_base_without_predictions_is_refused(self):
        with pytest.raises(ConfigError, match="needs predicted quality per tier"):
            recipe(base=SignalScorer(kind="column", column="difficulty")).fit(table())

    def test_targets_must_ascend(self):
        with pytest.raises(ConfigError, match="ascending"):
            recipe(targets=np.array([0.9, 0.8]))


class TestLeakage:
    def test_labels_of_a_fold_do_not_reach_its_own_levels(self):
        """Out-of-fold: with the labels of one query changed, its own levels stay as they were."""
        tune = table(60)
        found = cross_fit(recipe(), tune, folds=2, rng=np.random.default_rng(0)).levels
        rng = np.random.default_rng(0)
        fold = split_by_prompt(tune, {"0": 0.5, "1": 0.5}, rng)["0"]
        quality = tune.quality.copy()
        quality[fold] = np.random.default_rng(5).permutation(quality[fold])[:, ::-1]
        changed = dataclasses.replace(tune, quality=quality, _hash=[])
        again = cross_fit(recipe(), changed, folds=2, rng=np.random.default_rng(0)).levels
        np.testing.assert_array_equal(again[fold], found[fold])

    def test_held_out_labels_are_never_seen(self):
        """What `predict` sees is a `QueryBatch`, which has no outcome: permuted labels leave every decision alone."""
        both = table(120)
        tune, held = both.take(np.arange(80)), both.take(np.arange(80, 120))
        permuted = dataclasses.replace(held, quality=np.random.default_rng(1).permutation(held.quality), _hash=[])
        fitted = recipe().fit(tune)
        np.testing.assert_array_equal(fitted.predict(held.queries).levels, fitted.predict(permuted.queries).levels)


class TestCheckpoints:
    def test_one_file_per_table_and_other_options_are_refused(self, tmp_path):
        made = recipe(checkpoints=tmp_path)
        first = made.fit(table())
        made.fit(table(seed=1))
        assert len(list(tmp_path.iterdir())) == 2
        again = made.fit(table())
        for name, values in first.network.arrays.items():
            np.testing.assert_array_equal(again.network.arrays[name], values)
        with pytest.raises(InputDataError, match="other options"):
            recipe(checkpoints=tmp_path, options=dataclasses.replace(QUICK, steps=11)).fit(table())


class TestConstraints:
    @pytest.mark.parametrize(
        "text",
        ["quality >= 0.7", "quality@slice1 >= 0.7", "share_over:2.5 <= 0.3", "share_within:2.5@slice2 >= 0.6"],
    )
    def test_the_mean_over_queries_is_the_slack(self, text):
        data, tier = table(), np.random.default_rng(3).integers(0, 3, 150)
        (constraint,) = bounds(text)
        (found,) = additive_constraints(constraint, data)
        every = np.arange(150)
        inside = np.ones(150, dtype=bool)
        if constraint.metric.slice_name:
            inside = data.slice_code == data.slices.index(constraint.metric.slice_name)
        latency, q = data.latency_s[every, tier][inside], data.quality[every, tier][inside]
        value = {"quality": q.mean(), "share_over": (latency > 2.5).mean(), "share_within": (latency <= 2.5).mean()}
        want = constraint.slack(np.array([value[constraint.metric.base]]))[0]
        assert found.slack[every, tier].mean() == pytest.approx(want)

    def test_a_budget_is_in_shares_of_itself(self):
        (found,) = additive_constraints(bounds("cost <= 2e-4")[0], table())
        np.testing.assert_allclose(found.slack, 1.0 - table().cost_usd / 2e-4)

    def test_the_worst_slice_is_a_floor_for_each(self):
        found = additive_constraints(bounds("worst_slice >= 0.6")[0], table())
        assert [c.name.split("@")[1] for c in found] == ["slice0", "slice1", "slice2"]

    def test_slices_that_are_judged_together_are_trained_together(self):
        code = table().slice_code
        data = table().take(
            np.concatenate([np.flatnonzero(code == 0), *(np.flatnonzero(code == s)[:20] for s in (1, 2))])
        )
        cover = coverage(data, 30)
        found = additive_constraints(bounds("worst_slice >= 0.6")[0], data, cover)
        assert [c.name for c in found] == [f"worst_slice@{name}" for name in cover.groups] and len(found) == 2
        for g, constraint in enumerate(found):
            inside = cover.group_of_rows(data) == g
            np.testing.assert_allclose(constraint.slack.mean(axis=0), data.quality[inside].mean(axis=0) - 0.6)

    def test_what_is_no_mean_is_refused(self):
        with pytest.raises(ConfigError, match="means over queries"):
            additive_constraints(bounds("latency_p95 <= 2")[0], table())
        with pytest.raises(ConfigError, match="needs latency_s"):
            additive_constraints(bounds("share_over:2 <= 0.1")[0], table(latency=False))
        with pytest.raises(ConfigError, match="names the slice"):
            additive_constraints(bounds("quality@other >= 0.5")[0], table())

    def test_several_at_once_reach_the_summary(self):
        both = bounds("share_over:2.5 <= 0.3", "cost <= 2e-4")
        said = recipe(constraints=both).fit(table()).describe()
        assert len(said["constraints"]) == 2 and len(said["multipliers"]) == 3


def test_default_targets_end_between_the_best_tier_and_the_oracle():
    data = table()
    targets, tiers = default_targets(data), data.quality.mean(axis=0)
    assert len(targets) == 65 and targets[0] == tiers.min()
    assert tiers.max() < targets[-1] < data.quality.max(axis=1).mean()
