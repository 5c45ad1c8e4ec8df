"""`routefront reproduce`: runs on disk, changing requests, leaks, intervals, the command."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import recording_columns, run_cli, write_columns
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.reproduce_changing import SCHEDULES, Served, inside, judge, rolling, schedule, serve
from experiments.reproduce_data import DataSet, Halves, halve, read_set
from experiments.reproduce_methods import ABLATIONS, leaked_rows, remembered_rows, requested_setting
from experiments.reproduce_numbers import as_requested, compliance_numbers, mu_numbers, over_seeds, over_seeds_of
from experiments.reproduce_settings import ReproduceSettings
from experiments.reproduce_store import Stored, load_run, save_run
from experiments.reproduce_tables import cell, percent, points
from simulators.errors import InputDataError
from toolkit.baselines.base import Routed, RouterRun, Split
from toolkit.baselines.compliance import MarginRule, Windows, calibrate
from toolkit.baselines.routers import ROUTERS
from toolkit.scorers.base import cross_fit
from toolkit.scorers.text import TextScorer

CONF = Path(__file__).resolve().parent.parent / "conf"
QUICK = ("steps=2", "rounds=4", "policy_folds=2", "scorer.folds=2", "workers=1", "seeds=1", "methods=[zero_router]",
         "window=10", "changing_queries=60", "levels=5")  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with the set `toy`: words tell difficulty, costs are recorded."""
    folder = tmp_path_factory.mktemp("data")
    queries, outcomes = recording_columns(n=140, latency=False)
    write_columns(folder / "toy_queries.parquet", queries)
    write_columns(folder / "toy_outcomes.parquet", outcomes)
    return folder


@pytest.fixture(scope="module")
def split(data):
    from simulators.recorded import read_recording

    table = read_recording(data / "toy_queries.parquet", data / "toy_outcomes.parquet", None).table
    halves = halve(DataSet(name="toy", table=table, unit="", why="", notes=()), 0)
    scorer = TextScorer(ridge_alpha=1.0, neighbours=5, neighbour_weight=0.0, seed=0)
    return Split(
        tune=halves.tune,
        tune_scores=cross_fit(scorer, halves.tune, folds=2, rng=np.random.default_rng(0)),
        held_out=halves.held_out,
        held_out_scores=scorer.fit(halves.tune).predict(halves.held_out.queries),
        folds=2,
        seed=0,
    )


def ladder(n=40, levels=5):
    """A run that delivers exactly what it is asked for: 0.5, 0.6, ... on every query."""
    settings = 0.5 + 0.1 * np.arange(levels)
    quality = np.repeat(settings[:, None], n, axis=1)
    part = Routed(tier=np.zeros((levels, n), dtype=np.int8), quality=quality, cost_usd=quality**2)
    return RouterRun(name="ladder", knob="requested quality", settings=settings, tune=part, held_out=part)


class TestStore:
    @pytest.mark.parametrize("name", ["utility", "zero_router", "cascade", "oracle"])
    def test_a_run_comes_back_as_it_was(self, name, split, tmp_path):
        run = ROUTERS[name](split)
        halves = Halves(tune=split.tune, held_out=split.held_out)
        save_run(tmp_path / "run.npz", Stored(run=run, extra={"mu": [0.1, 0.2], "cpu_s": 1.0}), halves)
        found = load_run(tmp_path / "run.npz", halves)
        assert found.extra == {"mu": [0.1, 0.2], "cpu_s": 1.0}
        assert (found.run.name, found.run.knob, found.run.uses_labels) == (run.name, run.knob, run.uses_labels)
        np.testing.assert_array_equal(found.run.settings, run.settings)
        for part in ("tune", "held_out"):
            for field in ("tier", "quality", "cost_usd"):
                np.testing.assert_allclose(getattr(getattr(found.run, part), field), getattr(getattr(run, part), field))

    def test_other_data_is_refused(self, split, tmp_path):
        halves = Halves(tune=split.tune, held_out=split.held_out)
        save_run(tmp_path / "run.npz", Stored(run=ROUTERS["oracle"](split), extra={}), halves)
        with pytest.raises(InputDataError, match="other data"):
            load_run(tmp_path / "run.npz", Halves(tune=split.held_out, held_out=split.tune))


def test_no_prompt_is_in_both_halves(split):
    assert not set(split.tune.queries.prompt) & set(split.held_out.queries.prompt)


class TestChanging:
    @given(st.sampled_from(SCHEDULES), st.floats(0.1, 0.5), st.floats(0.5, 0.9), st.integers(20, 300))
    def test_requests_stay_in_their_range_and_use_it(self, name, low, high, n):
        tau = schedule(name, n, low, high)
        assert len(tau) == n and tau.min() >= low - 1e-12 and tau.max() <= high + 1e-12
        assert np.ptp(tau) >= 0.8 * (high - low) - 1e-9

    def test_shapes(self):
        assert schedule("step", 4, 0.0, 1.0).tolist() == [0, 0, 1, 1]
        np.testing.assert_allclose(schedule("drift", 4, 0.0, 1.0), [0.125, 0.375, 0.625, 0.875])
        assert schedule("peak", 1000, 0.0, 1.0).mean() == pytest.approx(0.45, abs=0.01)
        assert inside(0.0, 1.0) == (0.1, 0.9)

    def test_a_window_is_kept_where_its_mean_reaches_its_request(self):
        tau, quality = np.full(6, 0.5), np.array([1.0, 0, 1, 0, 0, 0])
        served = Served(tau=tau, quality=quality, cost_usd=np.arange(6.0), infeasible=0.25)
        found = judge(served, window=2)
        np.testing.assert_allclose(rolling(quality, 2), [0.5, 0.5, 0.5, 0, 0])
        assert found["kept"] == pytest.approx(0.6) and found["shortfall"] == pytest.approx(0.2)
        assert found["overshoot"] == pytest.approx(-1 / 6) and found["cost_usd"] == 2.5 and found["infeasible"] == 0.25

    def test_a_request_gets_the_next_higher_level_and_the_best_where_it_is_beyond(self):
        run = ladder()
        calibration = calibrate(run, run.settings, rule=MarginRule(level=None))
        served = serve(run, calibration, np.array([0.5, 0.51, 0.6, 0.95]), seed=0)
        np.testing.assert_allclose(served.quality, [0.5, 0.6, 0.6, 0.9])
        assert served.infeasible == 0.25

    def test_every_method_meets_the_same_queries(self, split):
        run = ROUTERS["fixed"](split)
        calibration = calibrate(run, np.array([0.0, 0.1]), rule=MarginRule(level=None))
        tau = np.zeros(30)
        first, again, other = (serve(run, calibration, tau, seed=seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first.quality, again.quality)
        assert (first.quality != other.quality).any()


class TestNumbers:
    def test_the_interval_allows_for_overlapping_splits(self):
        values = [1.0, 2.0, 4.0, math.nan]
        found = over_seeds(values)
        half = stats.t.ppf(0.975, 2) * np.std(values[:3], ddof=1) * np.sqrt(1 / 3 + 1)
        assert found["n"] == 3 and found["mean"] == pytest.approx(7 / 3)
        assert found["high"] - found["mean"] == pytest.approx(half)
        assert math.isnan(over_seeds([math.nan])["mean"]) and math.isnan(over_seeds([1.0])["low"])

    def test_nested_figures_are_summed_up_where_they_are(self):
        found = over_seeds_of([{"a": {"b": 1.0}, "c": [1.0, math.nan]}, {"a": {"b": 3.0}, "c": [3.0, 5.0]}])
        assert found["a"]["b"]["mean"] == 2.0 and found["c"] == [2.0, 5.0]

    def test_a_policy_that_delivers_what_is_asked(self):
        run = ladder()
        taus = np.array([0.5, 0.6, 0.7, 0.8, 0.9])
        assert requested_setting(run, np.array([0.0, 0.64, 0.66])).tolist() == [0, 1, 2]
        found = compliance_numbers(run, as_requested(run, taus), Windows(size=10, orders=2))
        assert found["aggregate"] == 1.0 and found["slope"] == pytest.approx(1.0)
        assert found["within_2"] == 1.0 and found["cost_ratio"] == pytest.approx((0.9 / 0.5) ** 2)
        assert [found["tiers"][name]["quality"] for name in ("economy", "standard", "premium")] == pytest.approx(
            [0.55, 0.75, 0.9]
        )

    def test_a_correlation_of_one_says_nothing_of_how_far_mu_moves(self):
        run, taus = ladder(), np.array([0.5, 0.6, 0.7, 0.8, 0.9])
        found = mu_numbers(run, (0.5 + 1e-3 * run.settings).tolist(), taus)
        assert found["correlation_mu"] == pytest.approx(1.0)
        assert found["range_mu"] == pytest.approx(4e-4) and found["slope_mu"] == pytest.approx(1e-3)
        assert math.isnan(mu_numbers(run, [0.5] * 5, taus)["correlation_mu"])

    def test_cells(self):
        assert cell({"mean": 0.951, "low": 0.9, "high": 1.2, "n": 3}, percent, interval=True) == "95.1 % [90.0, 100.0]"
        assert cell({"mean": None, "low": None, "high": None, "n": 0}, percent) == cell(None, percent) == "–"
        assert cell({"mean": 0.01, "low": -0.02, "high": 0.04, "n": 3}, points, interval=True) == "+1.0 [-2.0, +4.0]"


def test_rows_of_held_out_prompts_in_training_flatter_the_predictions(split):
    """The same regression, split by prompt and by row: only the second knows labels of the prompts it is judged on."""
    truth = split.held_out.quality
    honest = np.corrcoef(split.held_out_scores.quality.ravel(), truth.ravel())[0, 1]
    leaked = leaked_rows(split, 1e-2)[split.tune.n_queries :]
    assert np.corrcoef(leaked.ravel(), truth.ravel())[0, 1] > honest
    known = remembered_rows(split)[split.tune.n_queries :] == truth
    assert 0.6 < known.mean() < 0.8


class TestCommand:
    @pytest.mark.slow
    def test_it_runs_and_goes_on_where_it_stopped(self, data, tmp_path):
        pytest.importorskip("torch")
        options = ("reproduce", f"data_dir={data}", "sets=[toy]", "output=out", "parts=[methods]", *QUICK)
        code, out, err = run_cli(*options, "--json", cwd=tmp_path)
        assert code == 0, err
        found = json.loads(out)["sets"]["toy"]
        assert {"proteus", "proteus_thresholds", "proteus_utility", "utility", "oracle"} <= set(found["methods"])
        text = (tmp_path / "out" / "summary.md").read_text()
        for title in ("Table 1", "Table 2", "Changing requests", "Every method"):
            assert title in text
        for name in ("compliance.png", "changing.png"):
            assert (tmp_path / "out" / name).stat().st_size > 10_000
        cells = {path.stem: path for path in (tmp_path / "out" / "cells").rglob("*.npz")}
        before = {name: path.stat().st_mtime_ns for name, path in cells.items()}
        cells["zero_router"].unlink()
        code, again, err = run_cli(*options, "--json", cwd=tmp_path)
        assert code == 0, err
        after = {name: path.stat().st_mtime_ns for name, path in cells.items()}
        assert {name for name in before if before[name] != after[name]} == {"zero_router"}
        assert json.loads(again)["sets"]["toy"]["pool"] == found["pool"]
        code, out, err = run_cli(*options, "policy_folds=3", cwd=tmp_path)
        assert code == 2 and "other options" in err

    @pytest.mark.slow
    def test_ablations_and_leaks(self, data, tmp_path):
        """Two workers and two seeds; labels as predictions are the oracle."""
        pytest.importorskip("torch")
        options = ("reproduce", f"data_dir={data}", "sets=[toy]", "output=out", *QUICK, "seeds=2", "workers=2")
        code, out, err = run_cli(*options, "--json", cwd=tmp_path)
        assert code == 0, err
        found = json.loads(out)["sets"]["toy"]
        assert set(found["table4"]) == {"proteus", *ABLATIONS}
        assert found["table4"]["fixed_gamma"]["gamma"]["mean"] == 3.0
        most = found["pool"]["oracle"]["mean"]
        assert found["leaks"]["labels_utility"]["quality"]["mean"] == pytest.approx(most, abs=2e-3)
        text = (tmp_path / "out" / "summary.md").read_text()
        assert "Table 4" in text and "What is reachable" in text

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("output=out",), "data_dir is not set"),
            (("data_dir=DATA",), "output is not set"),
            (("data_dir=DATA", "output=out", "sets=[nothing]"), "holds no nothing_queries.parquet"),
            (("data_dir=DATA", "output=out", "sets=[toy]", "methods=[magic]"), "methods=['magic'] are unknown"),
            (("data_dir=DATA", "output=out", "sets=[toy]", "only=[llmrouter]"), "are not among sets"),
            (("data_dir=DATA", "output=out", "sets=[toy]", "paper_range=[0.9,0.8]"), "paper_range must be"),
            (("data_dir=DATA", "output=out", "sets=[toy]", "paper=carrot"), "proteus"),
            (("data_dir=DATA", "output=DATA", "sets=[toy]"), "is no reproduction"),
            (("data_dir=DATA", "output=out", "sets=[free]"), "definitions.free.stand_in"),
        ],
    )
    @pytest.mark.slow
    def test_bad_input_is_one_line(self, options, said, data, tmp_path):
        queries, outcomes = recording_columns(n=20, latency=False, cost=False)
        write_columns(data / "free_queries.parquet", queries)
        write_columns(data / "free_outcomes.parquet", outcomes)
        words = [word.replace("DATA", str(data)) for word in options]
        code, out, err = run_cli(
            "reproduce", *(("paper=proteus",) if "paper=carrot" not in words else ()), *words, cwd=tmp_path
        )
        assert code == 2 and out == ""
        assert err.count("\n") == 1 and said in err, err


def test_stand_in_prices_are_marked(data):
    queries, outcomes = recording_columns(n=20, latency=False, cost=False)
    write_columns(data / "priced_queries.parquet", queries)
    write_columns(data / "priced_outcomes.parquet", outcomes)
    raw = yaml.safe_load((CONF / "paper" / "proteus.yaml").read_text())
    raw |= {"data_dir": str(data), "definitions": {"priced": {"stand_in": {"large": 9, "small": 1, "medium": 3}}}}
    found = read_set(ReproduceSettings.model_validate(raw), "priced")
    assert found.table.tiers == ("small", "medium", "large") and found.unit == "stand-in price"
    np.testing.assert_allclose(found.table.cost_usd.mean(axis=0), [1e-3, 3e-3, 9e-3])


@pytest.mark.slow
def test_recorded_data(data_dir, tmp_path):
    """Splits are by prompt, labels in eq. (2) reach the oracle, and no honest router does."""
    pytest.importorskip("torch")
    options = ("sets=[routerbench_part]", "seeds=1", "steps=60", "rounds=5", "policy_folds=2", "methods=[zero_router]")
    code, out, err = run_cli(
        "reproduce", f"data_dir={data_dir}", "output=out", *options, "parts=[methods,leaks]", "--json", cwd=tmp_path
    )
    assert code == 0, err
    found = json.loads(out)["sets"]["routerbench_part"]["leaks"]
    assert found["labels_utility"]["share_of_band"]["mean"] == pytest.approx(1.0, abs=0.05)
    assert found["rows_utility_memory"]["share_of_band"]["mean"] > 0.7
    assert found["utility"]["share_of_band"]["mean"] < 0.2
