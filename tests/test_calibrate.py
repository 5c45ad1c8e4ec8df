"""Fits recover what made the data, nothing is made up, and the written scenario composes, runs and says its sources."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import hypothesis
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from helpers import run_cli, write_columns
from hypothesis import given
from hypothesis import strategies as st

from experiments.calibrate import _resolved, fit_scenario, make_report, run_calibrate
from experiments.calibrate_check import draw_check, tier_rows
from experiments.calibrate_data import pool_slices
from experiments.calibrate_fit import _histogram
from experiments.calibrate_settings import CalibrateSettings
from experiments.calibrate_yaml import Sourced, plain, render
from experiments.cli import main
from experiments.scenario_file import read_scenario_file, with_scenario_files
from simulators.arrivals import sample_arrivals
from simulators.calibration_distance import compare
from simulators.calibration_latency import fit_answers, fit_measurements, read_latency
from simulators.calibration_prices import fit_prices
from simulators.calibration_quality import fit_shifted_quality
from simulators.errors import ConfigError, InputDataError
from simulators.lengths import HistogramLengths, sample_lengths
from simulators.outcomes import OutcomeTable
from simulators.scenario import parse_scenario, sample_scenario
from simulators.seeds import spawn_rng
from toolkit.report.calibration import _how_close, distance_dict

DATA = Path(os.environ.get("ROUTEFRONT_DATA", Path(__file__).parents[2] / "shared" / "data"))
SHIFT = -1.2
WORLD = {
    "name": "known",
    "difficulty_sd": 0.8,
    "quality_precision": 6.0,
    "classifier_agreement": 0.8,
    "tiers": {
        "small": {
            "capability": 0.8,
            "input_usd_per_mtok": 0.2,
            "output_usd_per_mtok": 0.5,
            "ttft_median_s": 0.3,
            "ttft_sigma": 0.4,
            "tokens_per_s": 100.0,
        },
        "middle": {
            "capability": 1.6,
            "input_usd_per_mtok": 1.0,
            "output_usd_per_mtok": 3.0,
            "ttft_median_s": 0.5,
            "ttft_sigma": 0.3,
            "tokens_per_s": 60.0,
            "verbosity": 1.5,
        },
        "large": {
            "capability": 2.4,
            "input_usd_per_mtok": 5.0,
            "output_usd_per_mtok": 20.0,
            "ttft_median_s": 0.9,
            "ttft_sigma": 0.2,
            "tokens_per_s": 40.0,
            "quality_shift": {"code": SHIFT},
        },
    },
    "slices": {
        name: {
            "share": share,
            "difficulty": difficulty,
            "input_tokens_median": 300.0,
            "input_tokens_sigma": 0.5,
            "output_tokens_median": tokens,
            "output_tokens_sigma": 0.6,
        }
        for name, share, difficulty, tokens in (
            ("chat", 0.4, -0.6, 80.0),
            ("code", 0.3, 0.8, 300.0),
            ("maths", 0.2, 0.3, 150.0),
            ("law", 0.1, 0.1, 120.0),
        )
    },
}


def world(n: int = 4000, **changes: object) -> OutcomeTable:
    return sample_scenario(parse_scenario({**WORLD, **changes}), n_queries=n, rng=spawn_rng(4, "calibrate", "test"))


def write_world(
    folder: Path, n: int = 1500, *, drop: tuple[str, ...] = (), table: OutcomeTable | None = None
) -> tuple[str, ...]:
    """The known world, or another table, as the two files of a recording; options that name them."""
    table = world(n) if table is None else table
    ids = table.queries.query_id.tolist()
    slices = [table.slices[c] for c in table.slice_code]
    write_columns(folder / "q.parquet", {"query_id": ids, "slice": slices})
    columns: dict[str, list[object]] = {"query_id": ids * 3, "model": [t for t in table.tiers for _ in ids]}
    columns["score"] = table.quality.T.ravel().tolist()
    columns["error"] = table.error.T.ravel().astype(int).tolist()
    for name in ("cost_usd", "latency_s", "ttft_s", "input_tokens", "output_tokens"):
        if name not in drop:
            columns[name] = getattr(table, name).T.ravel().tolist()
    write_columns(folder / "o.parquet", columns)
    return ("data.queries=q.parquet", "data.outcomes=o.parquet", "output=fitted.yaml")


def settings(folder: Path, **changes: object) -> CalibrateSettings:
    raw = yaml.safe_load((Path(__file__).parents[1] / "conf" / "calibrate.yaml").read_text())
    raw.pop("defaults")
    raw["data"] = {"kind": "recorded", "queries": str(folder / "q.parquet"), "outcomes": str(folder / "o.parquet")}
    raw["data"] |= {"tiers": ["small", "middle", "large"]}
    raw["assume"] |= changes.pop("assume", {})
    return CalibrateSettings.model_validate({**raw, "output": str(folder / "fitted.yaml"), **changes})


def with_errors(table: OutcomeTable, share: float, tier: str = "small") -> OutcomeTable:
    """The table with answers of one tier that failed at random: no score, nothing billed, an early end."""
    k, error = table.tiers.index(tier), table.error.copy()
    error[:, k] = np.random.default_rng(5).random(table.n_queries) < share
    found = {"quality": 0.0, "cost_usd": 0.0, "latency_s": 0.01, "ttft_s": 0.01, "output_tokens": 1.0}
    changed = {name: np.where(error, value, getattr(table, name)) for name, value in found.items()}
    return dataclasses.replace(table, error=error, _hash=[], **changed)


def latency_columns(n: int = 400, failed: int = 100, model: str = "small") -> dict[str, list[object]]:
    rng = np.random.default_rng(1)
    ttft = 0.4 * np.exp(0.5 * rng.standard_normal(n))
    tokens = rng.integers(50, 200, n).astype(float)
    latency = ttft + tokens / (80.0 * np.exp(0.2 * rng.standard_normal(n)))
    return {
        "model": [model] * (n + failed),
        "provider": (["a", "b"] * (n + failed))[: n + failed],
        "ttft_s": [*ttft.tolist(), *[0.0] * failed],
        "latency_s": [*latency.tolist(), *[0.0] * failed],
        "output_tokens": [*tokens.tolist(), *[0.0] * failed],
        "error_code": [None] * n + [500] * failed,
    }


class TestQuality:
    def test_finds_the_one_shifted_cell_and_its_size(self) -> None:
        table = world(6000)
        fit = fit_shifted_quality(table)
        found = {(table.slices[s], table.tiers[k]) for s, k in np.argwhere(~np.isnan(fit.z))}
        assert found == {("code", "large")}
        at = table.slices.index("code"), table.tiers.index("large")
        assert fit.fit.shift[at] == pytest.approx(SHIFT, abs=0.2)
        assert abs(fit.fit.shift[at]) < abs(SHIFT) + 0.2 and fit.z[at] > fit.critical
        wrong = np.abs(fit.additive - fit.fit.mean_quality)
        assert wrong[at] == wrong.max() > 0.05

    def test_an_additive_world_seldom_gets_a_shift(self) -> None:
        tiers = {name: {**spec, "quality_shift": {}} for name, spec in WORLD["tiers"].items()}
        spec = parse_scenario({**WORLD, "tiers": tiers})
        shifted = 0
        for seed in range(12):
            table = sample_scenario(spec, n_queries=800, rng=spawn_rng(seed, "additive"))
            shifted += not np.isnan(fit_shifted_quality(table).z).all()
        assert shifted <= 2

    def test_every_slice_and_tier_keeps_a_cell_without_shift(self) -> None:
        table = world(3000)
        flipped = np.where((table.slice_code == 0)[:, None], 1.0 - table.quality, table.quality)
        z = fit_shifted_quality(dataclasses.replace(table, quality=flipped, _hash=[])).z
        assert np.isnan(z).any(axis=1).all() and np.isnan(z).any(axis=0).all()


class TestPrices:
    @given(st.floats(0.01, 100), st.floats(0.01, 100))
    def test_exact_bills_give_exact_prices(self, price_in: float, price_out: float) -> None:
        rng = np.random.default_rng(0)
        tokens = rng.integers(1, 1000, (50, 2)).astype(float)
        fit = fit_prices(tokens @ [price_in, price_out] / 1e6, tokens[:, 0], tokens[:, 1])
        assert fit.two_prices and fit.residual < 1e-9
        assert (fit.input_usd_per_mtok, fit.output_usd_per_mtok) == pytest.approx((price_in, price_out), rel=1e-6)

    def test_bills_that_do_not_tell_input_from_output_give_one_price(self) -> None:
        tokens = np.arange(1.0, 31.0)
        fit = fit_prices(3e-6 * tokens, tokens, 2 * tokens)
        assert not fit.two_prices
        assert fit.input_usd_per_mtok == fit.output_usd_per_mtok == pytest.approx(1.0)

    def test_a_free_model_is_no_price(self) -> None:
        with pytest.raises(InputDataError, match="all recorded costs are 0"):
            fit_prices(np.zeros(20), np.ones(20), np.ones(20))


class TestLatency:
    def test_failed_rows_are_left_out_and_counted(self, tmp_path: Path) -> None:
        measured = read_latency(write_columns(tmp_path / "l.parquet", latency_columns())).of_model("small")
        assert (measured.n_failed, len(measured.ttft_s), measured.n_unusable) == (100, 400, 0)
        assert measured.error_rate == pytest.approx(0.2)
        fit = fit_measurements(measured)
        assert (fit.ttft.median, fit.ttft.sigma) == pytest.approx((0.4, 0.5), rel=0.1)
        assert (fit.tokens_per_s, fit.speed_sigma) == pytest.approx((80.0, 0.2), rel=0.12)

    def test_a_rate_limit_is_no_error_of_the_tier(self, tmp_path: Path) -> None:
        columns = latency_columns()
        columns["error_code"] = [None] * 400 + [429] * 60 + [500] * 40
        measured = read_latency(write_columns(tmp_path / "l.csv", columns)).of_model("small")
        assert (measured.n_failed, measured.n_limited, measured.n_served) == (40, 60, 440)
        assert measured.error_rate == pytest.approx(40 / 440)

    @pytest.mark.parametrize("measured", [False, True])
    def test_thinking_is_neither_speed_nor_time_to_first_token(self, *, measured: bool, tmp_path: Path) -> None:
        rng = np.random.default_rng(3)
        visible = rng.lognormal(5, 0.5, 2000)
        billed = visible * rng.lognormal(1.6, 0.3, 2000)
        base = 0.4 * rng.lognormal(0, 0.3, 2000)
        ttft, latency = base + (billed - visible) / 105, base + billed / 105
        if measured:
            columns = {"ttft_s": ttft.tolist(), "latency_s": latency.tolist(), "output_tokens": billed.tolist()}
            rows = read_latency(write_columns(tmp_path / "l.parquet", columns)).of_model(None)
            fit = fit_measurements(rows, hidden=True)
            with pytest.raises(InputDataError, match="billed ones"):
                fit_measurements(dataclasses.replace(rows, output_tokens=np.full(2000, np.nan)), hidden=True)
        else:
            found = fit_answers(latency, billed, ttft, hidden=True)
            assert found is not None
            fit = found
        assert (fit.tokens_per_s, fit.ttft.median, fit.ttft.sigma) == pytest.approx((105, 0.4, 0.3), rel=0.05)

    def test_one_provider(self, tmp_path: Path) -> None:
        file = read_latency(write_columns(tmp_path / "l.csv", latency_columns()))
        assert len(file.of_model("small@a").ttft_s) == 200 and file.providers("small") == ("a", "b")
        with pytest.raises(InputDataError, match="no measurement of 'small@c'"):
            file.of_model("small@c")

    def test_recorded_answers_tell_speed_and_ttft(self) -> None:
        table = world(3000)
        k = table.tiers.index("middle")
        unknown = np.full(3000, np.nan)
        for ttft in (unknown, table.ttft_s[:, k]):
            fit = fit_answers(table.latency_s[:, k], table.output_tokens[:, k], ttft)
            assert fit is not None
            assert fit.tokens_per_s == pytest.approx(60, rel=0.02)
            assert (fit.ttft.median, fit.ttft.sigma) == pytest.approx((0.5, 0.3), rel=0.1)

    def test_times_that_do_not_rise_with_the_tokens_tell_no_speed(self) -> None:
        rng = np.random.default_rng(0)
        latency, tokens, unknown = rng.lognormal(size=300), rng.lognormal(4, 1, 300), np.full(300, np.nan)
        assert fit_answers(latency, tokens, unknown) is None
        assumed = fit_answers(latency + tokens / 50, tokens, unknown, tokens_per_s=50.0)
        assert assumed is not None and assumed.ttft.median == pytest.approx(1.0, rel=0.15)


def test_speed_differs_from_answer_to_answer() -> None:
    tiers = {name: {**spec, "speed_sigma": 0.5} for name, spec in WORLD["tiers"].items()}
    even, uneven = world(4000), world(4000, tiers=tiers)
    np.testing.assert_array_equal(even.quality, uneven.quality)
    np.testing.assert_array_equal(even.output_tokens, uneven.output_tokens)
    speed = uneven.output_tokens / (uneven.latency_s - uneven.ttft_s)
    np.testing.assert_allclose(np.log(speed).std(axis=0), 0.5, rtol=0.05)
    np.testing.assert_allclose(np.median(speed, axis=0), [100.0, 60.0, 40.0], rtol=0.05)


class TestDistance:
    def test_draws_of_the_same_law_are_no_bad_fit(self) -> None:
        rng = np.random.default_rng(0)
        bad = [compare("x", "s", rng.lognormal(0, 1, 200), rng.lognormal(0, 1, 20_000)).bad for _ in range(40)]
        assert sum(bad) <= 4

    @pytest.mark.parametrize("other", [(0.2, 1.0), (0.0, 1.4)])
    def test_another_law_is(self, other: tuple[float, float]) -> None:
        rng = np.random.default_rng(0)
        found = compare("x", "s", rng.lognormal(0, 1, 5000), rng.lognormal(*other, 20_000))
        assert found.bad and found.ks > 0.03 and found.wasserstein > 0.1

    def test_one_fitted_value_has_no_ks_distance(self) -> None:
        rng = np.random.default_rng(0)
        single = compare("x", "tokens/s", rng.normal(100, 2, 500), np.full(1000, 101.0))
        assert single.degenerate and single.ks > 0.5 and not single.bad
        assert distance_dict(single)["ks"] is None
        said = _how_close([single])
        assert "KS" not in said and "mean is off by at most 1" in said
        assert "KS" in _how_close([compare("y", "s", rng.normal(9, 1, 500), rng.normal(9, 1, 500))])


class TestYaml:
    @hypothesis.settings(max_examples=40)
    @given(st.floats(1e5, 1e10))
    def test_instants_are_written_in_full(self, instant_s: float) -> None:
        assert yaml.safe_load("\n".join(render({"start_s": instant_s})))["start_s"] == instant_s

    @hypothesis.settings(max_examples=40)
    @given(st.dictionaries(st.text(min_size=1, max_size=8), st.floats(allow_nan=False, allow_infinity=False, width=32)))
    def test_any_names_and_numbers_come_back(self, raw: dict[str, float]) -> None:
        document = {key: Sourced(value, "somewhere # or : other\nplace") for key, value in raw.items()}
        assert yaml.safe_load("\n".join(render(document)) or "{}") == pytest.approx(plain(document), rel=1e-9)

    @pytest.mark.parametrize("name", ["on", "1.5", "null", "a: b", "# x", "- y", "2026-01-01", "{", "ä b"])
    def test_names_that_look_like_something_else(self, name: str) -> None:
        assert yaml.safe_load("\n".join(render({name: {"kind": name, "list": [1.0, 2e-7]}}))) == {
            name: {"kind": name, "list": [1.0, 2e-7]}
        }


def test_small_slices_are_pooled_by_the_front_of_their_name() -> None:
    table = world(100)
    names = ("big", "set/a", "set/b", "tiny one")
    code = np.repeat([0, 1, 2, 3], [60, 19, 19, 2]).astype(np.int64)
    pooled, notes = pool_slices(dataclasses.replace(table, slices=names, slice_code=code, _hash=[]), 30)
    assert pooled.slices == ("big", "other", "set")
    assert np.bincount(pooled.slice_code).tolist() == [60, 2, 38] and "3 slices with fewer than 30" in notes[0]


@hypothesis.settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 50) | st.integers(1, 20_000), min_size=2, max_size=300))
def test_a_histogram_keeps_the_shares_and_nearly_the_mean(tokens: list[int]) -> None:
    values = np.array(tokens, dtype=np.float64)
    edges, weights = _histogram(values)
    spec = HistogramLengths(edges=tuple(edges.tolist()), weights=tuple(weights.tolist()))
    drawn = sample_lengths(spec, 4000, np.random.default_rng(0))
    assert drawn.min() >= values.min() and drawn.max() <= values.max()
    middle = (edges[:-1] + edges[1:] - 1) / 2
    assert abs(weights @ middle - values.mean()) <= 0.5 + (values.max() - values.min()) * 0.06


class TestScenario:
    def test_everything_known_is_recovered(self, tmp_path: Path) -> None:
        write_world(tmp_path, 4000)
        found = fit_scenario(settings(tmp_path), tmp_path / "fitted.yaml")
        for name, spec in WORLD["tiers"].items():
            tier = found.spec.tiers[name]
            assert tier.input_usd_per_mtok == pytest.approx(spec["input_usd_per_mtok"], rel=1e-4)
            assert tier.output_usd_per_mtok == pytest.approx(spec["output_usd_per_mtok"], rel=1e-4)
            assert tier.tokens_per_s == pytest.approx(spec["tokens_per_s"], rel=0.02)
            assert tier.ttft_median_s == pytest.approx(spec["ttft_median_s"], rel=0.05)
            assert tier.verbosity == pytest.approx(spec.get("verbosity", 1.0), rel=0.02)
        assert set(found.spec.tiers["large"].quality_shift) == {"code"}
        assert found.spec.slices["code"].output_tokens_median == pytest.approx(300, rel=0.05)
        assert found.spec.traffic is None and "No traces" in " ".join(found.notes)

    def test_what_is_missing_is_one_line_with_every_option(self, tmp_path: Path) -> None:
        write_world(tmp_path, 400, drop=("latency_s", "ttft_s", "input_tokens", "output_tokens"))
        with pytest.raises(ConfigError) as caught:
            fit_scenario(settings(tmp_path), tmp_path / "fitted.yaml")
        for said in ("decode speed of small, middle, large", "assume.tokens_per_s", "assume.ttft_s", "input tokens"):
            assert said in str(caught.value)
        assume = {"tokens_per_s": {"small": 90, "middle": 70, "large": 30}, "ttft_s": 0.4, "ttft_sigma": 0.2}
        assume |= {"input_tokens": 200, "input_sigma": 0.5, "output_tokens": 100, "output_sigma": 0.5}
        found = fit_scenario(settings(tmp_path, assume=assume), tmp_path / "fitted.yaml")
        text = "\n".join(render(found.document))
        assert "tokens_per_s: 30  # assumption (assume.tokens_per_s)" in text
        assert "input_tokens_median: 200  # assumption (assume.input_tokens)" in text

    def test_an_unpriced_model_is_an_error_and_never_free(self, tmp_path: Path) -> None:
        write_world(tmp_path, 400, drop=("cost_usd",))
        with pytest.raises(ConfigError, match=r"a price of small, middle, large \(data.prices=FILE\)"):
            fit_scenario(settings(tmp_path), tmp_path / "fitted.yaml")

    def test_bills_without_tokens_of_their_own_keep_their_mean(self, tmp_path: Path) -> None:
        table = world(600)
        write_world(tmp_path, 600)
        raw = pq.read_table(tmp_path / "o.parquet").to_pydict()
        for side in ("input_tokens", "output_tokens"):
            raw[side] = [v if m == "middle" else None for m, v in zip(raw["model"], raw[side], strict=True)]
        write_columns(tmp_path / "o.parquet", raw)
        assume = {"tokens_per_s": 50, "ttft_s": 0.5, "ttft_sigma": 0.3}
        found = fit_scenario(settings(tmp_path, assume=assume), tmp_path / "fitted.yaml")
        drawn = sample_scenario(found.spec, n_queries=40_000, rng=spawn_rng(1, "bills"))
        np.testing.assert_allclose(drawn.cost_usd.mean(axis=0), table.cost_usd.mean(axis=0), rtol=0.04)
        assert "its own tokens are not recorded" in "\n".join(render(found.document))

    def test_traces_slots_and_measured_errors_become_traffic(self, tmp_path: Path) -> None:
        write_world(tmp_path, 400, drop=("latency_s", "ttft_s"))
        arrival = np.cumsum(np.random.default_rng(2).gamma(0.25, 2.0, 3000))
        write_columns(tmp_path / "t.parquet", {"arrival_s": arrival.tolist()})
        write_columns(tmp_path / "l.parquet", latency_columns())
        names = {"middle": "small", "large": "small@a"}
        options = {"traces": str(tmp_path / "t.parquet"), "latency": str(tmp_path / "l.parquet")}
        own = settings(tmp_path, latency_models=names, slots={"large": 3}, **options)
        found = fit_scenario(own, tmp_path / "fitted.yaml")
        traffic = found.spec.traffic
        assert traffic is not None and traffic.arrivals.kind == "gamma"
        assert traffic.arrivals.cv == pytest.approx(2.0, rel=0.1)
        assert traffic.stations["large"].slots == 3 and traffic.stations["middle"].error_rate == pytest.approx(0.2)
        replay = fit_scenario(
            settings(tmp_path, arrivals="replay", latency_models=names, **options), tmp_path / "fitted.yaml"
        )
        assert plain(replay.document)["traffic"]["arrivals"]["path"] == "t.parquet"

    def test_failed_answers_count_once(self, tmp_path: Path) -> None:
        table = with_errors(world(4000), 0.1)
        write_world(tmp_path, table=table)
        found = fit_scenario(settings(tmp_path, rate_per_s=1.0, duration_s=600), tmp_path / "fitted.yaml")
        clean = sample_scenario(parse_scenario(WORLD), n_queries=40_000, rng=spawn_rng(2, "clean"))
        drawn = sample_scenario(found.spec, n_queries=40_000, rng=spawn_rng(2, "fitted"))
        for name in ("quality", "cost_usd", "output_tokens", "latency_s"):
            wanted, got = (getattr(t, name)[:, t.tiers.index("small")].mean() for t in (clean, drawn))
            assert got == pytest.approx(wanted, rel=0.03), name
        assert found.spec.traffic is not None
        rate = found.spec.traffic.stations["small"].error_rate
        assert rate == pytest.approx(0.1, abs=0.02)
        k, own = table.tiers.index("small"), drawn.quality[:, drawn.tiers.index("small")]
        assert (1 - rate) * own.mean() == pytest.approx(table.quality[:, k].mean(), rel=0.02)
        assert any("in the error rates alone" in note and "small" in note for note in found.notes)
        rows = tier_rows(found.recorded.table, drawn.take_tiers(np.array([drawn.tiers.index(t) for t in table.tiers])))
        assert all(abs(row["quality"]["relative_error"]) < 0.03 for row in rows)

    def test_without_traffic_they_lower_the_quality(self, tmp_path: Path) -> None:
        table = with_errors(world(3000), 0.1)
        write_world(tmp_path, table=table)
        found = fit_scenario(settings(tmp_path), tmp_path / "fitted.yaml")
        drawn = sample_scenario(found.spec, n_queries=40_000, rng=spawn_rng(2, "fitted"))
        k, own = table.tiers.index("small"), drawn.quality[:, drawn.tiers.index("small")]
        assert own.mean() == pytest.approx(table.quality[:, k].mean(), rel=0.03)
        assert any("count in the quality" in note for note in found.notes)

    def test_rate_limited_rows_are_named_and_in_no_error_rate(self, tmp_path: Path) -> None:
        write_world(tmp_path, 400)
        columns = latency_columns()
        columns["error_code"] = [None] * 400 + [429] * 100
        write_columns(tmp_path / "l.parquet", columns)
        own = settings(tmp_path, latency=str(tmp_path / "l.parquet"), rate_per_s=1.0, duration_s=600)
        found = fit_scenario(own, tmp_path / "fitted.yaml")
        assert found.spec.traffic is not None and not found.spec.traffic.stations
        assert any("429; small 100 of 500" in note for note in found.notes)

    def test_a_tier_that_thinks(self, tmp_path: Path) -> None:
        thinking = {**WORLD["tiers"]["large"], "inflation_median": 5.0, "inflation_sigma": 0.3, "tokens_per_s": 105.0}
        table = world(3000, tiers={**WORLD["tiers"], "large": {**thinking, "ttft_median_s": 0.4}})
        write_world(tmp_path, table=table)
        own = settings(tmp_path, reasoning=["large"], check_queries=5000)
        found = fit_scenario(own, tmp_path / "fitted.yaml")
        tier = found.spec.tiers["large"]
        assert tier.tokens_per_s == pytest.approx(105, rel=0.03)
        assert tier.ttft_median_s == pytest.approx(0.4, rel=0.15)
        groups = make_report(found, draw_check(found.spec, found.recorded, own), own).distances
        ttft = {d.name: d for d in groups["recorded time to first token"]}
        assert set(ttft) == {"small", "middle", "large"} and abs(ttft["large"].errors["p50"]) < 0.05

    @pytest.mark.parametrize("first_s", [0.0, 12.3456789, 1.7e9 + 1 / 3])
    def test_a_replayed_trace_starts_at_its_first_stamp(self, first_s: float, tmp_path: Path) -> None:
        write_world(tmp_path, 400)
        stamps = first_s + np.cumsum(np.random.default_rng(2).exponential(0.5, 300))
        stamps += first_s - stamps[0]
        write_columns(tmp_path / "t.parquet", {"arrival_s": stamps.tolist()})
        own = settings(tmp_path, traces=str(tmp_path / "t.parquet"), arrivals="replay")
        found = fit_scenario(own, tmp_path / "fitted.yaml")
        text = "\n".join(render(found.document))
        assert ("start_s" in text) == (first_s > 0)
        traffic = parse_scenario(_resolved(yaml.safe_load(text), tmp_path)).traffic
        assert traffic is not None
        drawn = sample_arrivals(
            traffic.arrivals, duration_s=traffic.duration_s, load=1.0, rng=np.random.default_rng(0)
        ).arrival_s
        assert 299 <= len(drawn) <= 300 and 0.0 <= drawn[0] < 0.002
        np.testing.assert_allclose(drawn, (stamps - stamps[0])[: len(drawn)], atol=0.002)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"slots": {"small": 2}}, "slots need traffic"),
            ({"slots": {"huge": 2}}, "'huge', which is none of the tiers"),
            ({"rate_per_s": 2.0}, "give duration_s="),
            ({"arrivals": "weibull"}, "give traces=FILE"),
            ({"lengths": "trace"}, "lengths=trace needs traces"),
            ({"latency_models": {"small": "x"}}, "give latency=FILE"),
            ({"reference": "nobody"}, "none of the tiers"),
            ({"reasoning": ["nobody"]}, "none of the tiers"),
            ({"output": "scenario.json"}, "should end in .yaml"),
        ],
    )
    def test_options_that_contradict_each_other(self, changes: dict[str, object], said: str, tmp_path: Path) -> None:
        write_world(tmp_path, 300)
        with pytest.raises(ConfigError, match=said):
            run_calibrate(settings(tmp_path, **changes), quiet=True)
        assert not list(tmp_path.glob("fitted*"))


@pytest.mark.parametrize(
    ("command", "said"), [("calibrate", "nothing was written"), ("tune", "resumes"), ("race", "resumes")]
)
def test_what_an_interrupted_command_says(
    command: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LITELLM_LOG", "ROUTEFRONT_QUIET"):
        monkeypatch.setenv(name, "1")  # set by main, and back as they were afterwards
    monkeypatch.setattr("experiments.hydra_app.run_hydra", interrupted)
    assert main([command]) == 130
    err = capsys.readouterr().err
    assert said in err and ("resumes" in err) == (command != "calibrate")


class TestScenarioFile:
    def test_a_file_becomes_a_choice_named_by_its_content(self, tmp_path: Path) -> None:
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(WORLD))
        (first,) = with_scenario_files([f"scenario={path}"])
        path.write_text(yaml.safe_dump({**WORLD, "difficulty_sd": 0.9}))
        (second,) = with_scenario_files([f"scenario={path}"])
        assert first.startswith("scenario=file_") and first != second
        assert with_scenario_files(["scenario=hybrid_api", "seed=1"]) == ["scenario=hybrid_api", "seed=1"]
        swept = with_scenario_files([f"scenario={path},hybrid_api"])
        assert swept == [f"{second},hybrid_api"]

    def test_paths_in_it_are_seen_from_its_folder(self, tmp_path: Path) -> None:
        path = tmp_path / "own.yaml"
        path.write_text("traffic: {arrivals: {kind: trace, path: t.csv}}\nother: {path: /x/y.csv}\n")
        content = read_scenario_file(path)
        assert content["traffic"]["arrivals"]["path"] == str(tmp_path.resolve() / "t.csv")
        assert content["other"]["path"] == "/x/y.csv"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (None, "no such file"),
            ("a: [1", "is not YAML"),
            ("[1, 2]", "should hold a mapping"),
            ("", "should hold a mapping"),
            ("a: 1\na: 2\n", "is not YAML"),
            ("a: ${oc.env:HOME}", "interpolations"),
            ("1: 2", "expected names"),
        ],
    )
    def test_what_is_no_scenario(self, text: str | None, said: str, tmp_path: Path) -> None:
        path = tmp_path / "own.yaml"
        if text is not None:
            path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_scenario_file(path)


@pytest.mark.slow
def test_calibrate_tune_and_resume(tmp_path: Path) -> None:
    options = write_world(tmp_path)
    write_columns(tmp_path / "t.parquet", {"arrival_s": np.cumsum(np.full(500, 0.5)).tolist()})
    own = (*options, "traces=t.parquet", "arrivals=replay", "check_queries=2000")
    code, out, err = run_cli("calibrate", *own, "slots={large: 4}", "--json", cwd=tmp_path)
    assert code == 0, err
    found = json.loads(out)
    assert found == json.loads((tmp_path / "fitted.json").read_text())
    assert {"quality", "cost_usd", "latency_p50_s", "latency_p95_s"} <= set(found["tiers"][0])
    for row in found["tiers"]:
        assert abs(row["quality"]["relative_error"]) < 0.03 and abs(row["latency_p95_s"]["relative_error"]) < 0.2
    page = (tmp_path / "fitted.html").read_text()
    assert "Recorded and simulated" in page and page.count("data:image/png") >= 4 and "script" not in page
    tune = ("tune", "scenario=fitted.yaml", "data.n_queries=400", "out=run")
    assert run_cli(*tune, cwd=tmp_path).exit_code == 0
    assert run_cli(*tune, cwd=tmp_path).exit_code == 0
    text = (tmp_path / "fitted.yaml").read_text()
    (tmp_path / "fitted.yaml").write_text(text.replace("classifier_agreement: 0.85", "classifier_agreement: 0.8"))
    code, _, err = run_cli(*tune, cwd=tmp_path)
    assert code == 2 and "another config" in err
    code, _, err = run_cli("tune", "scenario=fitted.yaml", "scenario.difficulty_sd=0", "out=run2", cwd=tmp_path)
    assert code == 2 and "scenario.difficulty_sd" in err
    code, _, err = run_cli("calibrate", *own, cwd=tmp_path)
    assert code == 0 and "were replaced" in err


@pytest.mark.slow
def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    options = write_world(tmp_path, 300, drop=("cost_usd",))
    code, out, err = run_cli("calibrate", *options, "data.tiers=[small,middle,large]", cwd=tmp_path)
    assert code == 2 and out == "" and err.count("\n") == 1 and "data.prices=FILE" in err
    assert not list(tmp_path.glob("fitted*"))


@pytest.fixture(scope="module")
def llmperf() -> Path:
    path = DATA / "latency" / "llmperf_requests.parquet"
    if not path.is_file():
        pytest.skip("llmperf's measurements are absent: set ROUTEFRONT_DATA to the folder that holds latency/")
    return path


@pytest.mark.slow
class TestLlmperf:
    """Measured and fitted side by side; docs/traffic.md has the figures."""

    def quantiles(self, path: Path, name: str) -> dict[str, float]:
        measured = read_latency(path).of_model(name)
        fit = fit_measurements(measured)
        rng = np.random.default_rng(0)
        n = 40_000
        ttft = fit.ttft.median * np.exp(fit.ttft.sigma * rng.standard_normal(n))
        speed = fit.tokens_per_s * np.exp(fit.speed_sigma * rng.standard_normal(n))
        whole = ttft + measured.output_tokens[rng.integers(0, len(measured.ttft_s), n)] / speed
        found = (compare("ttft", "s", measured.ttft_s, ttft), compare("whole", "s", measured.latency_s, whole))
        return {f"{d.name}_{p}": abs(d.errors[p]) for d in found for p in ("p50", "p95")}

    @pytest.mark.parametrize(
        ("model", "ttft_p95", "p50", "p95"),
        [
            ("llama-2-7b-chat", 0.60, 0.16, 0.33),
            ("llama-2-13b-chat", 0.80, 0.12, 0.15),
            ("llama-2-70b-chat", 0.45, 0.06, 0.06),
        ],
    )
    def test_all_providers_of_a_model(self, llmperf: Path, model: str, ttft_p95: float, p50: float, p95: float) -> None:
        found = self.quantiles(llmperf, model)
        assert found["ttft_p50"] < 0.02 and found["ttft_p95"] < ttft_p95
        assert found["whole_p50"] < p50 and found["whole_p95"] < p95

    def test_one_provider_at_a_time(self, llmperf: Path) -> None:
        file = read_latency(llmperf)
        names = [f"{m}@{p}" for m in file.models for p in file.providers(m)]
        found = {}
        for name in names:
            try:
                found[name] = self.quantiles(llmperf, name)
            except InputDataError:
                continue  # nearly all requests of this provider failed
        assert len(found) >= 15
        close = [f for f in found.values() if f["whole_p50"] < 0.07 and f["whole_p95"] < 0.10 and f["ttft_p50"] < 0.02]
        assert len(close) >= len(found) - 2
