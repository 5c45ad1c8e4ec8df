"""Recorded traffic: reading, figures, replay, ServeGen's clients, and fits of arrival processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from helpers import write_columns
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.arrivals import Arrivals, mean_rate, parse_arrivals, sample_arrivals
from simulators.arrivals.fitting import fit_arrivals
from simulators.arrivals.renewal import gap_law
from simulators.arrivals.servegen import read_clients
from simulators.errors import ConfigError, InputDataError
from simulators.traces import BLOCK_TOKENS, QUANTILES, Trace, describe, dispersion, read_trace, window_counts

NAMES = ("azure2023_conv", "azure2023_code", "mooncake_conv")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def replay(path: Path, *, duration_s: float, load: float = 1.0, seed: int = 0, **options: object) -> Arrivals:
    spec = parse_arrivals({"kind": "trace", "path": path.name, **options})
    return sample_arrivals(spec, duration_s=duration_s, load=load, rng=rng(seed), folder=path.parent)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Ten requests in 9 s, one per second, with tokens that name their row."""
    columns = {
        "arrival_s": [float(i) for i in range(10)],
        "input_tokens": [100 + i for i in range(10)],
        "output_tokens": [i + 1 for i in range(10)],
    }
    return write_columns(tmp_path / "small.parquet", columns)


class TestReading:
    @pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
    def test_columns_that_are_there_are_read(self, tmp_path, suffix):
        path = write_columns(tmp_path / f"t{suffix}", {"arrival_s": [0.0, 0.0, 2.5], "output_tokens": [4, 5, 6]})
        trace = read_trace(path)
        assert trace.arrival_s.tolist() == [0.0, 0.0, 2.5] and trace.output_tokens.tolist() == [4, 5, 6]
        assert trace.input_tokens is None and trace.cached_tokens is None

    def test_prefix_blocks_become_cached_tokens_and_the_last_one_may_be_partial(self, tmp_path):
        columns = {
            "arrival_s": [0.0, 1.0, 2.0],
            "input_tokens": [2_000, 600, 600],
            "n_prefix_blocks_seen_before": [3, 2, 0],
        }
        assert read_trace(write_columns(tmp_path / "m.parquet", columns)).cached_tokens.tolist() == [1536, 600, 0]

    @pytest.mark.parametrize(
        "columns, message",
        [
            (
                {"arrival_s": [0.0, 3.0, 2.0]},
                "arrival_s of .* must not decrease; row 2 has 2 after 3 .1 such rows.; sort",
            ),
            ({"arrival_s": [0.0, -1.0, 2.0]}, "none is negative; row 1 has -1"),
            ({"arrival_s": [0.0, None, 2.0]}, "an instant in every row; row 1 has nan"),
            ({"arrival_s": [0.0, float("inf")]}, "an instant in every row; row 1 has inf"),
            ({"arrival_s": ["now"]}, "arrival_s of .* must be numeric"),
            ({"arrival_s": []}, "but no row"),
            ({"t": [1.0]}, r"lacks the column\(s\) \['arrival_s'\]"),
            ({"arrival_s": [0.0, 1.0], "input_tokens": [3, None]}, "input_tokens of .* a count in every row; row 1"),
            ({"arrival_s": [0.0, 1.0], "output_tokens": [-3, 1]}, "output_tokens of .* row 0 has -3"),
        ],
    )
    def test_one_line_says_what_is_wrong(self, tmp_path, columns, message):
        path = write_columns(tmp_path / "bad.parquet", columns)
        for read in (lambda: read_trace(path), lambda: replay(path, duration_s=1.0)):
            with pytest.raises(InputDataError, match=message) as caught:
                read()
            assert "\n" not in str(caught.value)

    @given(stamps=st.lists(st.one_of(st.none(), st.floats(width=32)), max_size=6))
    @settings(max_examples=60)
    def test_any_column_of_numbers_is_a_trace_or_one_line(self, tmp_path_factory, stamps):
        path = write_columns(tmp_path_factory.mktemp("any") / "t.jsonl", {"arrival_s": stamps})
        try:
            trace = read_trace(path)
        except InputDataError as error:
            assert "\n" not in str(error)
        else:
            assert (np.diff(trace.arrival_s) >= 0).all() and (trace.arrival_s >= 0).all()


class TestDescription:
    def test_known_figures(self):
        arrival_s = np.arange(0.0, 240.5, 0.5)
        figures = describe(Trace(arrival_s=arrival_s, input_tokens=np.arange(481.0)))
        assert figures.rate_per_s == 2.0 and figures.n_requests == 481 and figures.duration_s == 240.0
        assert figures.gap_cv == 0.0 and figures.tied == 0.0 and figures.peak_to_mean_per_min == 1.0
        assert figures.idc == {10.0: 0.0, 60.0: 0.0}
        assert figures.mean_tokens == {"input": 240.0}
        assert figures.token_quantiles["input"] == tuple(480 * q for q in QUANTILES)

    def test_dispersion_is_variance_over_mean_of_whole_windows(self):
        arrival_s = np.array([0.0, 1.0, 2.0, 10.0, 20.0, 21.0, 30.0, 31.0, 39.0])  # 3, 1, 2 and a part of a window
        assert window_counts(arrival_s, 10.0).tolist() == [3, 1, 2]
        assert dispersion(arrival_s, 10.0) == 0.5 and np.isnan(dispersion(arrival_s, 30.0))

    @pytest.mark.parametrize("arrival_s", [[1.0], [2.0, 2.0]])
    def test_one_instant_is_no_traffic(self, arrival_s):
        with pytest.raises(InputDataError, match="two instants"):
            describe(Trace(arrival_s=np.array(arrival_s)))


class TestReplay:
    @pytest.mark.parametrize("name", NAMES)
    def test_recorded_traces_come_back_as_they_are(self, data_dir, name):
        path = data_dir / "traces" / f"{name}.parquet"
        table = pyarrow.parquet.read_table(path)
        stamps = table["arrival_s"].to_numpy()
        arrivals = replay(path, duration_s=np.nextafter(stamps[-1], np.inf))
        assert np.array_equal(arrivals.arrival_s, stamps)
        assert np.array_equal(arrivals.input_tokens, table["input_tokens"].to_numpy())
        assert np.array_equal(arrivals.output_tokens, table["output_tokens"].to_numpy())
        assert (arrivals.cached_tokens is not None) == (name == "mooncake_conv")

    def test_mooncake_caches_whole_blocks_up_to_the_prompt(self, data_dir):
        path = data_dir / "traces" / "mooncake_conv.parquet"
        blocks = pyarrow.parquet.read_table(path)["n_prefix_blocks_seen_before"].to_numpy()
        trace = read_trace(path)
        assert (trace.cached_tokens <= trace.input_tokens).all()
        partial = trace.cached_tokens < blocks * BLOCK_TOKENS
        assert (trace.cached_tokens[~partial] == blocks[~partial] * BLOCK_TOKENS).all() and 0 < partial.mean() < 0.02

    def test_load_runs_the_trace_faster(self, small):
        arrivals = replay(small, duration_s=3.0, load=2.0)
        assert arrivals.arrival_s.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
        assert arrivals.input_tokens.tolist() == [100, 101, 102, 103, 104, 105]
        assert replay(small, duration_s=3.0, rate_scale=2.0).arrival_s.tolist() == arrivals.arrival_s.tolist()

    def test_it_repeats_one_mean_gap_after_its_end(self, small):
        arrivals = replay(small, duration_s=25.0, repeat=True)
        assert arrivals.arrival_s.tolist() == [float(i) for i in range(25)]
        assert arrivals.output_tokens.tolist() == [i % 10 + 1 for i in range(25)]

    def test_without_repeat_a_short_trace_is_an_error(self, small):
        assert replay(small, duration_s=10.0).n_requests == 10
        with pytest.raises(ConfigError, match=r"lasts 5 s at 2 times its speed, the simulation 10 s; .* repeat: true"):
            replay(small, duration_s=10.0, load=2.0)

    def test_a_cut_starts_at_zero(self, small):
        arrivals = replay(small, duration_s=7.0, start_s=2.5, end_s=6.0, repeat=True)
        assert arrivals.arrival_s.tolist() == [0.5, 1.5, 2.5, 4.0, 5.0, 6.0]
        assert arrivals.input_tokens.tolist() == [103, 104, 105] * 2
        spec = parse_arrivals({"kind": "trace", "path": str(small), "start_s": 2.5, "end_s": 6.0, "rate_scale": 3.0})
        assert mean_rate(spec) == pytest.approx(3 * 3 / 3.5)
        with pytest.raises(InputDataError, match="no request from 100 to 200 s; its stamps run from 0 to 9 s"):
            replay(small, duration_s=1.0, start_s=100.0, end_s=200.0)

    def test_ties_stay_unless_they_are_spread(self, tmp_path):
        stamps = np.repeat(np.arange(0.0, 300.0, 3.0), 20)
        path = write_columns(tmp_path / "coarse.parquet", {"arrival_s": stamps, "input_tokens": np.arange(len(stamps))})
        assert np.array_equal(replay(path, duration_s=297.1).arrival_s, stamps)
        spread = replay(path, duration_s=300.0, spread_s=3.0)
        assert spread.n_requests == len(stamps) and (np.diff(spread.arrival_s) > 0).all()
        assert np.array_equal(np.sort(spread.input_tokens), np.arange(len(stamps)))
        back = np.floor(spread.arrival_s / 3.0) * 3.0
        assert np.array_equal(back, stamps[spread.input_tokens.astype(int)])
        assert np.array_equal(replay(path, duration_s=300.0, spread_s=3.0).arrival_s, spread.arrival_s)
        within = spread.arrival_s % 3.0
        assert within.mean() == pytest.approx(1.5, abs=4 * 3 / np.sqrt(12 * len(stamps)))

    def test_a_client_without_tokens_has_none(self, small):
        clients = {"a": {"kind": "trace", "path": small.name}, "b": {"kind": "poisson", "rate_per_s": 5.0}}
        spec = parse_arrivals({"kind": "clients", "clients": clients})
        arrivals = sample_arrivals(spec, duration_s=9.5, load=1.0, rng=rng(), folder=small.parent)
        assert np.array_equal(np.isnan(arrivals.input_tokens), arrivals.client == 1)
        assert arrivals.input_tokens[arrivals.client == 0].tolist() == [100 + i for i in range(10)]
        assert arrivals.cached_tokens is None

    def test_one_instant_needs_an_end(self, tmp_path):
        path = write_columns(tmp_path / "one.parquet", {"arrival_s": [0.0, 0.0]})
        with pytest.raises(InputDataError, match="one instant; give end_s"):
            replay(path, duration_s=1.0)
        assert replay(path, duration_s=1.0, end_s=1.0).n_requests == 2


def write_clients(folder: Path, **changes: list[object]) -> Path:
    """Two models; of `big`: client 3 bursty Gamma and client 7 Weibull in two windows, client 9 silent then small."""
    columns: dict[str, list[object]] = {
        "model": ["other"] + ["big"] * 6,
        "client": [3, 3, 3, 7, 7, 9, 9],
        "t_s": [0, 0, 600, 0, 600, 0, 600],
        "rate_rps": [1.0, 50.0, 100.0, 10.0, 20.0, 0.0, 1.0],
        "cv": [1.0, 2.0, 1.0, 1.5, 0.8, float("nan"), 1.0],
        "pattern": ["Gamma", "Gamma", "Gamma", "Weibull", "Weibull", "Gamma", "Gamma"],
        "shape": [1.0, 0.25, 1.0, 0.5, 0.5, float("nan"), 1.0],
        "scale": [1.0, 0.08, 0.01, 0.05, 0.025, float("nan"), 1.0],
    }
    return write_columns(folder / "clients.parquet", columns | changes)


def clients(path: Path, *, duration_s: float = 1200.0, load: float = 1.0, **options: object) -> Arrivals:
    spec = parse_arrivals({"kind": "servegen", "path": path.name, "model": "big", **options})
    return sample_arrivals(spec, duration_s=duration_s, load=load, rng=rng(1), folder=path.parent)


class TestServeGen:
    def test_each_client_has_its_rate_and_cv_in_each_window(self, tmp_path):
        arrivals = clients(write_clients(tmp_path))
        assert arrivals.client_names == ("client-3", "client-7", "client-9")
        for client, window, rate, cv in [(0, 0, 50, 2.0), (0, 1, 100, 1.0), (1, 0, 10, 1.5), (1, 1, 20, 0.8)]:
            since_s = arrivals.arrival_s[arrivals.client == client] - 600 * window
            since_s = since_s[(since_s >= 0) & (since_s < 600)]
            assert len(since_s) == pytest.approx(600 * rate, abs=4 * cv * np.sqrt(600 * rate))
            gaps = np.diff(since_s)
            assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.1)

    def test_a_row_with_rate_zero_gives_none(self, tmp_path):
        arrivals = clients(write_clients(tmp_path))
        small = arrivals.arrival_s[arrivals.client == 2]
        assert len(small) > 400 and small.min() > 600

    def test_cuts_scales_and_the_largest_clients(self, tmp_path):
        path = write_clients(tmp_path)
        arrivals = clients(path, start_s=300.0, end_s=900.0, duration_s=600.0, most_clients=1, rate_scale=2.0, load=0.5)
        assert arrivals.client_names == ("client-3",)
        n = np.histogram(arrivals.arrival_s, [0, 300, 600])[0]
        assert n == pytest.approx([15_000, 30_000], rel=0.07)
        options = {"path": str(path), "model": "big", "start_s": 300.0, "end_s": 900.0}
        assert mean_rate(parse_arrivals({"kind": "servegen", **options})) == pytest.approx((60 + 121) / 2)

    def test_windows_stay_where_they_are_under_load(self, tmp_path):
        arrivals = clients(write_clients(tmp_path), load=3.0)
        n = np.histogram(arrivals.arrival_s, np.arange(0, 1201, 150))[0]
        assert n == pytest.approx([27_000] * 4 + [54_450] * 4, rel=0.07)

    def test_fitted_shapes_keep_the_rate(self, tmp_path):
        spec = parse_arrivals({"kind": "servegen", "path": "clients.parquet", "model": "big", "shape_from": "fit"})
        windows = read_clients(spec, write_clients(tmp_path).parent)
        weibull = [law for law in windows.law if law.family == "weibull"]
        assert [law.shape for law in weibull] == [0.5, 0.5] and weibull[0].cv == pytest.approx(5**0.5)
        n = (clients(tmp_path / "clients.parquet", shape_from="fit").client == 1).sum()
        assert n == pytest.approx(18_000, abs=4 * 5**0.5 * np.sqrt(18_000))

    def test_it_repeats_if_it_may(self, tmp_path):
        path = write_clients(tmp_path)
        with pytest.raises(ConfigError, match="lasts 1200 s, the simulation 2000 s"):
            clients(path, duration_s=2000.0)
        arrivals = clients(path, duration_s=2000.0, repeat=True)
        n = np.histogram(arrivals.arrival_s, [0, 600, 1200, 1800, 2000])[0]
        assert n == pytest.approx([36_000, 72_600, 36_000, 24_200], rel=0.06)
        assert (np.diff(arrivals.arrival_s) >= 0).all()

    @pytest.mark.parametrize(
        "changes, options, message",
        [
            ({}, {"model": "huge"}, "has no model 'huge'; it has big, other"),
            ({}, {"start_s": 5000.0, "end_s": 6000.0}, "no request of big from 5000 to 6000 s"),
            ({"pattern": ["Gamma"] * 6 + ["Pareto"]}, {}, r"must be Gamma or Weibull; it has \['Pareto'\]"),
            ({"cv": [1.0, -2.0, 1.0, 1.5, 0.8, 1.0, 1.0]}, {}, "column cv of .* positive number .*; it has -2"),
            ({"rate_rps": [1.0, -5.0, 1.0, 1.5, 0.8, 1.0, 1.0]}, {}, "column rate_rps of .*; it has -5"),
            ({"t_s": [None, 0, 600, 0, 600, 0, None]}, {}, "column t_s of .*; it has nan"),
        ],
    )
    def test_one_line_says_what_is_wrong(self, tmp_path, changes, options, message):
        with pytest.raises(InputDataError, match=message):
            clients(write_clients(tmp_path, **changes), duration_s=10.0, **options)

    def test_published_windows_come_back_within_sampling_error(self, data_dir):
        path = data_dir / "traces" / "servegen_rate_by_client.parquet"
        options = {"model": "deepseek-r1", "start_s": 36_000.0, "end_s": 57_600.0, "most_clients": 20}
        spec = parse_arrivals({"kind": "servegen", "path": path.name, **options})
        windows = read_clients(spec, path.parent)
        arrivals = sample_arrivals(spec, duration_s=21_600.0, load=1.0, rng=rng(2), folder=path.parent)
        place = arrivals.client * 1_000 + (arrivals.arrival_s // 600).astype(int)
        score, ratio = [], []
        for w in range(len(windows.client)):
            since_s = arrivals.arrival_s[place == windows.client[w] * 1_000 + round(windows.start_s[w] / 600)]
            expected, cv = windows.rate_per_s[w] * 600, windows.law[w].cv
            if expected < 250 or cv > 1.5:
                continue
            gaps = np.diff(since_s)
            score.append((len(since_s) - expected) / (cv * np.sqrt(expected)))
            ratio.append(gaps.std() / gaps.mean() / cv)
        assert len(score) > 50
        assert abs(np.mean(score)) < 4 / np.sqrt(len(score)) and 0.7 < np.std(score) < 1.4
        assert np.mean(ratio) == pytest.approx(1.0, abs=0.02) and np.std(ratio) < 0.12

    @pytest.mark.slow
    @pytest.mark.parametrize("model", ["m-small", "m-mid", "m-large", "deepseek-r1"])
    def test_all_clients_together_have_the_models_published_rate(self, data_dir, model):
        folder = data_dir / "traces"
        table = pyarrow.parquet.read_table(folder / "servegen_rate_by_model.parquet")
        mine = np.array(table["model"].to_pylist()) == model
        published = float(table["rate_rps"].to_numpy()[mine].astype(float).mean())
        spec = parse_arrivals({"kind": "servegen", "path": "servegen_rate_by_client.parquet", "model": model})
        assert mean_rate(spec, folder) == pytest.approx(published, rel=1e-4)


def drawn(n: int = 4_000, seed: int = 3, **raw: object) -> np.ndarray:
    spec = parse_arrivals(raw)
    return sample_arrivals(spec, duration_s=n / mean_rate(spec), load=1.0, rng=rng(seed)).arrival_s


class TestFits:
    @pytest.mark.parametrize(
        "raw",
        [
            {"kind": "poisson", "rate_per_s": 4.0},
            {"kind": "gamma", "rate_per_s": 4.0, "cv": 0.5},
            {"kind": "gamma", "rate_per_s": 4.0, "cv": 2.5},
            {"kind": "weibull", "rate_per_s": 4.0, "cv": 2.5},
        ],
    )
    def test_the_process_that_made_the_instants_is_found(self, raw):
        fit = fit_arrivals(drawn(**raw))
        assert fit.spec.kind == fit.chosen == raw["kind"]
        assert mean_rate(fit.spec) == pytest.approx(4.0, rel=0.16)
        assert fit.fitted_cv == pytest.approx(float(raw.get("cv", 1.0)), rel=0.08)
        assert (
            fit.families[fit.chosen].distance == min(f.distance for f in fit.families.values())
            or fit.chosen == "poisson"
        )
        assert fit.families[fit.chosen].distance < 0.03 and fit.rate_p_value > 1e-3 and not fit.notes
        model, data = fit.quantiles(np.array([0.5, 0.9, 0.99]))
        assert data == pytest.approx(model, rel=0.25)

    def test_a_moving_rate_becomes_a_curve_and_the_gaps_are_judged_against_it(self):
        raw = {"kind": "diurnal", "rate_per_s": 4.0, "curve": [1, 3, 2], "period_s": 2_000.0, "cv": 1.8}
        arrival_s = drawn(n=8_000, interpolation="step", **raw)
        fit = fit_arrivals(arrival_s)
        assert fit.spec.kind == "diurnal" and fit.rate_p_value < 1e-6 and "The rate moves" in fit.notes[0]
        assert fit.fitted_cv == pytest.approx(1.8, rel=0.08) and fit.chosen == "gamma"
        steep = drawn(kind="diurnal", rate_per_s=4.0, curve=[1, 9], period_s=500.0, interpolation="step")
        assert fit_arrivals(steep).gap_cv == pytest.approx(1.0, abs=0.06)
        assert fit_arrivals(steep, curve=False).gap_cv > 1.3
        level = np.array(fit.spec.curve).reshape(3, 8).mean(axis=1)
        assert level / level.sum() == pytest.approx(np.array([1, 3, 2]) / 6, rel=0.15)
        flat = fit_arrivals(arrival_s, curve=False)
        assert flat.spec.kind != "diurnal" and "no curve was asked for" in flat.notes[0]

    def test_coarse_stamps_give_counts_only(self):
        arrival_s = np.floor(drawn(n=20_000, kind="gamma", rate_per_s=4.0, cv=1.7) / 3.0) * 3.0
        fit = fit_arrivals(arrival_s)
        assert fit.families == {} and len(fit.gaps) == 0 and "steps of about 3 s" in fit.notes[0]
        assert fit.fitted_cv == pytest.approx(1.7, rel=0.3)
        with pytest.raises(InputDataError, match="steps of about 3 s, .* fewer than 30 windows of 60 s"):
            fit_arrivals(arrival_s[:2_000])

    @pytest.mark.parametrize("arrival_s", [np.arange(5.0), np.array([*range(30), 4.0]), np.zeros(40)])
    def test_too_little_is_an_error(self, arrival_s):
        with pytest.raises(InputDataError, match="21 or more instants in ascending order"):
            fit_arrivals(arrival_s)

    def test_recorded_traces(self, data_dir):
        fits = {name: fit_arrivals(read_trace(data_dir / "traces" / f"{name}.parquet").arrival_s) for name in NAMES}
        assert fits["azure2023_conv"].spec.kind == "diurnal" and fits["azure2023_conv"].fitted_cv < 1.2
        assert fits["azure2023_code"].chosen == "weibull" and fits["azure2023_code"].fitted_cv > 3
        assert "Bursts are understated" in fits["azure2023_code"].notes[0]
        assert "No family suits" in fits["azure2023_code"].notes[1]
        assert "family is assumed" in fits["mooncake_conv"].notes[0]

    def test_the_best_law_of_a_family_is_the_most_likely_one(self):
        arrival_s = drawn(kind="weibull", rate_per_s=1.0, cv=2.0)
        fit = fit_arrivals(arrival_s)
        at = {
            cv: gap_law("weibull", cv).log_density(fit.gaps).mean()
            for cv in (0.97 * fit.fitted_cv, 1.03 * fit.fitted_cv)
        }
        assert max(at.values()) < fit.families["weibull"].law.log_density(fit.gaps).mean()
