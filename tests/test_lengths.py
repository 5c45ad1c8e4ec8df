"""Token lengths: laws in the middle and in the tail, histograms, ServeGen's table, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from helpers import write_columns
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from simulators.errors import ConfigError, InputDataError
from simulators.lengths import (
    LARGEST_TOKENS,
    HistogramLengths,
    parse_lengths,
    sample_lengths,
    servegen_lengths,
    servegen_reason_ratio,
)

N = 100_000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def lengths(n: int = N, seed: int = 0, **raw: object) -> np.ndarray:
    return sample_lengths(parse_lengths(raw), n, rng(seed))


def assert_share(hits: np.ndarray, share: float) -> None:
    assert hits.mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / len(hits)))


class TestLaws:
    @pytest.mark.parametrize(
        "raw, law",
        [
            ({"kind": "lognormal", "median": 900.0, "sigma": 1.2}, stats.lognorm(1.2, scale=900.0)),
            ({"kind": "gamma", "mean": 400.0, "cv": 1.0}, stats.expon(scale=400.0)),
            ({"kind": "gamma", "mean": 400.0, "cv": 0.5}, stats.gamma(4.0, scale=100.0)),
        ],
    )
    def test_mean_variance_and_tail(self, raw, law):
        tokens = lengths(**raw)
        assert tokens.mean() == pytest.approx(law.mean(), abs=4 * law.std() / np.sqrt(N))
        assert np.log(tokens).std() == pytest.approx(np.log(law.rvs(N, random_state=1)).std(), rel=0.02)
        for level in (0.1, 0.5, 0.9, 0.99, 0.999):
            cut = np.rint(law.ppf(level))
            assert_share(tokens > cut, law.sf(cut + 0.5))

    def test_a_pareto_tail_on_a_lognormal_body(self):
        body = {"median": 300.0, "sigma": 0.8}
        tail = {"tail_share": 0.05, "tail_from": 4000.0, "tail_exponent": 1.5}
        tokens, law = lengths(kind="lognormal_pareto", **body, **tail), stats.lognorm(0.8, scale=300.0)
        for cut in (100, 1_000, 4_000, 20_000, 100_000):
            beyond = max((cut + 0.5) / 4000.0, 1.0) ** -1.5
            assert_share(tokens > cut, 0.95 * law.sf(cut + 0.5) + 0.05 * beyond)

    def test_fixed(self):
        assert set(lengths(kind="fixed", tokens=77, n=5)) == {77}

    def test_longer_answers_end_at_the_cap_and_shorter_ones_have_a_token(self):
        tokens = lengths(kind="lognormal", median=2.0, sigma=2.0, most_tokens=50)
        assert tokens.min() == 1 and tokens.max() == 50
        assert_share(tokens == 50, stats.lognorm(2.0, scale=2.0).sf(49.5))
        assert_share(tokens == 1, stats.lognorm(2.0, scale=2.0).cdf(1.5))

    def test_a_histogram_is_even_within_its_bins(self):
        tokens = lengths(kind="histogram", edges=[1, 2, 5.5, 100], weights=[0.2, 0.5, 0.3])
        assert_share(tokens == 1, 0.2)
        for value in (2, 3, 4, 5):
            assert_share(tokens == value, 0.125)
        assert tokens.max() == 99 and tokens[tokens > 5].mean() == pytest.approx(52.5, abs=0.7)

    def test_a_file_is_drawn_from_with_replacement(self, tmp_path):
        path = write_columns(tmp_path / "t.csv", {"tokens": [5, 5, 8, 100]})
        spec = parse_lengths({"kind": "empirical", "path": path.name, "column": "tokens"})
        tokens = sample_lengths(spec, N, rng(), folder=tmp_path)
        assert set(tokens) == {5, 8, 100} and tokens.dtype == np.int64
        assert_share(tokens == 5, 0.5)

    @settings(max_examples=60)
    @given(
        raw=st.one_of(
            st.fixed_dictionaries(
                {"kind": st.just("lognormal"), "median": st.floats(0.01, 1e7), "sigma": st.floats(0, 4)}
            ),
            st.fixed_dictionaries({"kind": st.just("gamma"), "mean": st.floats(0.01, 1e7), "cv": st.floats(0.01, 100)}),
            st.fixed_dictionaries(
                {
                    "kind": st.just("lognormal_pareto"),
                    "median": st.floats(0.01, 1e7),
                    "sigma": st.floats(0, 4),
                    "tail_share": st.floats(0.01, 0.99),
                    "tail_from": st.floats(0.01, 1e7),
                    "tail_exponent": st.floats(0.01, 100),
                }
            ),
        ),
        seed=st.integers(0, 2**32),
    )
    def test_whole_tokens_at_least_one_and_reproducible(self, raw, seed):
        spec = parse_lengths(raw)
        tokens = sample_lengths(spec, 50, rng(seed))
        assert tokens.dtype == np.int64 and (tokens >= 1).all() and (tokens <= LARGEST_TOKENS).all()
        assert np.array_equal(tokens, sample_lengths(spec, 50, rng(seed)))
        assert parse_lengths(spec.model_dump(mode="json")) == spec


class TestParsing:
    @pytest.mark.parametrize(
        "raw, message",
        [
            ({"kind": "histogram", "edges": [1, 2, 3], "weights": [0.5, 0.4]}, "should sum to 1, these sum to 0.9"),
            ({"kind": "histogram", "edges": [1, 2], "weights": [0.5, 0.5]}, "2 weights need 3 edges, here are 2"),
            ({"kind": "histogram", "edges": [1, 3, 3], "weights": [0.5, 0.5]}, "edges must ascend, but 3 follows 3"),
            ({"kind": "histogram", "edges": [1.2, 1.9], "weights": [1]}, "no whole number .* from 1.2 to below 1.9"),
            ({"kind": "histogram", "edges": [0, 3], "weights": [1]}, "lengths.edges.0: .* equal to 1; got 0"),
            ({"kind": "histogram", "edges": [1, 2, 3], "weights": [1.0, -0.0001]}, "lengths.weights.1: .* to 0; got"),
            ({"kind": "lognormal", "median": 0, "sigma": 1}, "lengths.median: .* greater than 0; got 0"),
            ({"kind": "lognormal", "median": 9, "sigma": -1}, "lengths.sigma: .* or equal to 0; got -1"),
            (
                {"kind": "lognormal_pareto", "median": 9, "sigma": 1},
                "lengths.tail_share: expected a value; got nothing",
            ),
            ({"kind": "fixed", "tokens": 0}, "lengths.tokens: .* equal to 1; got 0"),
            ({"kind": "fixed", "tokens": 2.5}, "lengths.tokens: .*; got 2.5"),
            ({"kind": "zipf"}, "lengths.kind: expected one of fixed, lognormal, .*; got 'zipf'"),
            (
                {"kind": "fixed", "tokens": 2, "mean": 2},
                "lengths.mean: expected one of kind, tokens; got an unknown key",
            ),
        ],
    )
    def test_one_line_says_what_is_wrong(self, raw, message):
        with pytest.raises(ConfigError, match=message) as caught:
            parse_lengths(raw)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("slip, fine", [(5e-7, True), (2e-6, False)])
    def test_weights_may_miss_one_by_rounding_only(self, slip, fine):
        raw = {"kind": "histogram", "edges": [1, 2, 3], "weights": [0.5, 0.5 - slip]}
        if fine:
            assert sample_lengths(parse_lengths(raw), 3, rng()).max() <= 2
        else:
            with pytest.raises(ConfigError, match="should sum to 1"):
                parse_lengths(raw)

    @pytest.mark.parametrize(
        "values, message",
        [
            ([5, 0], "row 1 has 0"),
            ([5.5, 1], "row 0 has 5.5"),
            ([1, None], "row 1 has nan"),
            (["a"], "must be numeric"),
        ],
    )
    def test_a_column_that_is_no_list_of_lengths(self, tmp_path, values, message):
        path = write_columns(tmp_path / "t.parquet", {"tokens": values})
        with pytest.raises(InputDataError, match=message):
            lengths(kind="empirical", path=str(path), column="tokens")
        with pytest.raises(InputDataError, match="lacks the column"):
            lengths(kind="empirical", path=str(path), column="other")


def write_histogram(folder: Path, **changes: list[object]) -> Path:
    """Two windows of model `m`, the second with three times the requests; bins 13 and 26 are apart on the grid."""
    columns: dict[str, list[object]] = {
        "model": ["m"] * 5,
        "window_s": [0, 0, 21_600, 21_600, 0],
        "field": ["output_tokens"] * 4 + ["reason_ratio"],
        "bin_low": [13.0, 26.0, 13.0, 30.0, 0.5],
        "probability": [0.5, 0.5, 0.25, 0.75, 1.0],
        "window_requests": [100.0, 100.0, 300.0, 300.0, 100.0],
    }
    return write_columns(folder / "hist.parquet", columns | changes)


class TestServeGen:
    def test_windows_weigh_as_their_requests_and_bins_end_where_the_grid_says(self, tmp_path):
        spec = servegen_lengths(write_histogram(tmp_path), model="m", field="output_tokens")
        weight = dict(zip(spec.edges, (*spec.weights, 0.0), strict=True))
        assert weight[13.0] == pytest.approx(0.25 * 0.5 + 0.75 * 0.25)
        assert weight[26.0] == pytest.approx(0.125) and weight[30.0] == pytest.approx(0.75 * 0.75)
        assert spec.edges[:3] == (13.0, 14.0, 15.0) and spec.edges[-1] == 32.0
        assert set(sample_lengths(spec, 2_000, rng())) == {13, 26, 30, 31}

    def test_a_span_of_windows(self, tmp_path):
        spec = servegen_lengths(write_histogram(tmp_path), model="m", field="output_tokens", end_s=21_600.0)
        assert set(sample_lengths(spec, 2_000, rng())) == {13, 26}

    def test_ratios_reach_half_a_step_to_either_side(self, tmp_path):
        ratio = servegen_reason_ratio(write_histogram(tmp_path), model="m")
        shares = ratio.sample(2_000, rng())
        assert ratio.mean == pytest.approx(0.5) and 0.49 <= shares.min() < 0.4905 and 0.5095 < shares.max() <= 0.51

    @pytest.mark.parametrize(
        "changes, model, message",
        [
            ({}, "huge", "no output_tokens of 'huge' .*; it has m output_tokens, m reason_ratio"),
            ({"probability": [0.5, 0.4, 0.25, 0.75, 1.0]}, "m", "must sum to 1 .* sums to 0.9 at window_s=0"),
            ({"bin_low": [13.0, 25.0, 13.0, 30.0, 0.5]}, "m", "off ServeGen's grid"),
        ],
    )
    def test_one_line_says_what_is_wrong(self, tmp_path, changes, model, message):
        with pytest.raises(InputDataError, match=message):
            servegen_lengths(write_histogram(tmp_path, **changes), model=model, field="output_tokens")

    @pytest.mark.parametrize(
        "model",
        ["deepseek-r1", *(pytest.param(name, marks=pytest.mark.slow) for name in ("m-small", "m-mid", "m-large"))],
    )
    @pytest.mark.parametrize("field", ["input_tokens", "output_tokens"])
    def test_published_means_come_back(self, data_dir, model, field):
        path = data_dir / "traces" / "servegen_token_hist.parquet"
        spec = servegen_lengths(path, model=model, field=field)
        assert isinstance(spec, HistogramLengths)
        middle = 0.5 * (np.array(spec.edges[1:]) + np.array(spec.edges[:-1]) - 1)
        assert float(np.array(spec.weights) @ middle) == pytest.approx(published_mean(path, model, field), rel=0.01)

    def test_published_share_of_thinking(self, data_dir):
        path = data_dir / "traces" / "servegen_token_hist.parquet"
        ratio, mean = servegen_reason_ratio(path), published_mean(path, "deepseek-r1", "reason_ratio")
        assert ratio.mean == pytest.approx(mean, abs=1e-3) and mean == pytest.approx(0.70, abs=0.005)
        shares = ratio.sample(N, rng())
        assert shares.mean() == pytest.approx(mean, abs=0.003) and shares.min() >= 0 and shares.max() <= 1


def published_mean(path: Path, model: str, field: str) -> float:
    table = pyarrow.parquet.read_table(path)
    chosen = (np.array(table["model"].to_pylist()) == model) & (np.array(table["field"].to_pylist()) == field)
    window, mean, requests = (
        table[name].to_numpy()[chosen].astype(float) for name in ("window_s", "mean", "window_requests")
    )
    _, first = np.unique(window, return_index=True)
    return float(np.average(mean[first], weights=requests[first]))
