"""The fits recover what made the data; the committed scenario is what the recorded sets give."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from experiments import fit_hybrid_api
from simulators.calibration import (
    fit_inflation,
    fit_lognormal,
    fit_lognormal_robust,
    fit_quality,
    logistic_normal_moments,
)
from simulators.errors import InputDataError
from simulators.outcomes import OutcomeTable
from simulators.scenario import ScenarioSpec, SliceSpec, TierSpec, parse_scenario, sample_scenario
from simulators.seeds import spawn_rng

REPO = Path(__file__).parents[1]
HYBRID_API = REPO / "conf" / "scenario" / "hybrid_api.yaml"
MEAN_TOLERANCE = 0.045  # largest |scenario - recorded| slice x tier mean: 0.037 of model misfit, the rest is sampling

CAPABILITY = np.array([0.6, 1.8, 2.6])
DIFFICULTY = {"chat": -0.7, "code": 0.9, "maths": 0.2}
SHARE = {"chat": 0.5, "code": 0.3, "maths": 0.2}


def spec(difficulty_sd: float = 0.9, quality_precision: float = 5.0) -> ScenarioSpec:
    tiers = {
        f"t{k}": TierSpec(
            capability=float(capability),
            input_usd_per_mtok=10.0**k,
            output_usd_per_mtok=10.0**k,
            ttft_median_s=0.3,
            ttft_sigma=0.2,
            tokens_per_s=50.0,
        )
        for k, capability in enumerate(CAPABILITY)
    }
    slices = {
        name: SliceSpec(
            share=SHARE[name],
            difficulty=DIFFICULTY[name],
            input_tokens_median=100.0,
            input_tokens_sigma=0.3,
            output_tokens_median=100.0,
            output_tokens_sigma=0.3,
        )
        for name in DIFFICULTY
    }
    return ScenarioSpec(
        name="known",
        difficulty_sd=difficulty_sd,
        quality_precision=quality_precision,
        classifier_agreement=0.8,
        tiers=tiers,
        slices=slices,
    )


def sample(known: ScenarioSpec, n: int = 60_000) -> OutcomeTable:
    return sample_scenario(known, n_queries=n, rng=spawn_rng(3, "calibration"))


class TestQuality:
    @pytest.mark.parametrize(("sd", "precision"), [(0.9, 5.0), (0.4, 20.0)])
    def test_recovers_the_parameters_of_a_large_sample(self, sd: float, precision: float) -> None:
        fit = fit_quality(sample(spec(sd, precision)))
        centre = sum(SHARE[name] * DIFFICULTY[name] for name in DIFFICULTY)
        np.testing.assert_allclose(fit.capability, CAPABILITY - centre, atol=0.04)
        np.testing.assert_allclose(fit.difficulty, np.array(list(DIFFICULTY.values())) - centre, atol=0.04)
        assert fit.difficulty_sd == pytest.approx(sd, rel=0.05)
        assert fit.quality_precision == pytest.approx(precision, rel=0.05)

    def test_difficulty_has_share_weighted_mean_zero(self) -> None:
        table = sample(spec(), n=3000)
        fit = fit_quality(table)
        assert np.bincount(table.slice_code) @ fit.difficulty == pytest.approx(0.0, abs=1e-8)

    def test_fitted_means_are_those_of_the_fitted_parameters(self) -> None:
        fit = fit_quality(sample(spec(), n=3000))
        mean, _ = logistic_normal_moments(fit.capability, fit.difficulty, fit.difficulty_sd)
        np.testing.assert_array_equal(fit.mean_quality, mean)

    def test_right_or_wrong_scores_have_almost_no_precision(self) -> None:
        table = sample(spec())
        right = np.random.default_rng(0).random(table.quality.shape) < table.quality
        fit = fit_quality(replace(table, quality=right.astype(float), _hash=[]))
        assert 0 < fit.quality_precision < 0.05
        assert fit.difficulty_sd == pytest.approx(0.9, rel=0.05)
        again = sample(spec(fit.difficulty_sd, fit.quality_precision)).quality
        assert np.mean((again < 0.001) | (again > 0.999)) > 0.9

    def test_scores_that_do_not_vary_together(self) -> None:
        table = sample(spec(), n=400)
        opposed = np.column_stack([table.quality[:, 0], 1 - table.quality[:, 0], np.full(400, 0.5)])
        with pytest.raises(InputDataError, match="do not vary together"):
            fit_quality(replace(table, quality=opposed, _hash=[]))

    def test_a_slice_with_one_query(self) -> None:
        table = sample(spec(), n=400)
        code = np.where(np.arange(400) == 0, 2, 0)
        with pytest.raises(InputDataError, match="code has 0; pool slices"):
            fit_quality(replace(table, slice_code=code, _hash=[]))


class TestMoments:
    @pytest.mark.parametrize("sd", [0.0, 0.5, 2.0])
    def test_quadrature_equals_numerical_integration(self, sd: float) -> None:
        mean, second = logistic_normal_moments(np.array([1.0, -0.5]), np.array([0.3]), sd)
        for k, margin in enumerate([0.7, -0.8]):
            exact = quad(lambda z, m=margin: expit(m - sd * z) * norm.pdf(z), -10, 10)[0]
            assert mean[0, k] == pytest.approx(exact, abs=1e-6)
        both = quad(lambda z: expit(0.7 - sd * z) * expit(-0.8 - sd * z) * norm.pdf(z), -10, 10)[0]
        assert second[0, 0, 1] == second[0, 1, 0] == pytest.approx(both, abs=1e-6)

    def test_a_tier_as_capable_as_the_work_is_difficult_is_right_half_the_time(self) -> None:
        mean, _ = logistic_normal_moments(np.array([1.3]), np.array([1.3]), 0.8)
        assert mean[0, 0] == pytest.approx(0.5, abs=1e-12)


class TestLognormal:
    def test_both_fits_recover_median_and_sigma(self) -> None:
        values = 40 * np.exp(0.7 * np.random.default_rng(0).standard_normal(100_000))
        for fit in (fit_lognormal(values), fit_lognormal_robust(values)):
            assert fit.median == pytest.approx(40, rel=0.01)
            assert fit.sigma == pytest.approx(0.7, rel=0.01)

    def test_the_mean_of_the_sample_is_kept(self) -> None:
        values = np.array([1.0, 5.0, 300.0, 12.0])
        fit = fit_lognormal(values)
        assert fit.median * np.exp(fit.sigma**2 / 2) == pytest.approx(values.mean())

    def test_outliers_do_not_move_the_robust_fit(self) -> None:
        values = 2 * np.exp(0.3 * np.random.default_rng(0).standard_normal(10_000))
        values[:100] = 1e6
        fit = fit_lognormal_robust(values)
        assert fit.median == pytest.approx(2, rel=0.02)
        assert fit.sigma == pytest.approx(0.3, rel=0.05)

    @pytest.mark.parametrize("values", [[1.0], [1.0, 0.0], [1.0, np.nan], [1.0, np.inf]])
    def test_values_without_a_logarithm(self, values: list[float]) -> None:
        with pytest.raises(InputDataError, match="positive and finite"):
            fit_lognormal(np.array(values))


class TestInflation:
    def test_recovers_the_scenario_s_own_law(self) -> None:
        rng = np.random.default_rng(0)
        visible = 300 * np.exp(0.6 * rng.standard_normal(50_000))
        billed = visible * 6 * (visible / 200) ** -0.5 * np.exp(0.3 * rng.standard_normal(50_000))
        fit = fit_inflation(visible, billed)
        assert fit.median == pytest.approx(6, rel=0.01)
        assert fit.exponent == pytest.approx(-0.5, abs=0.01)
        assert fit.sigma == pytest.approx(0.3, rel=0.01)

    def test_equally_long_answers_say_nothing_about_the_slope(self) -> None:
        with pytest.raises(InputDataError, match="same visible length"):
            fit_inflation(np.full(5, 100.0), np.arange(200.0, 205.0))

    def test_unpaired_tokens(self) -> None:
        with pytest.raises(InputDataError, match="at least three pairs"):
            fit_inflation(np.ones(4), np.ones(5))


@pytest.fixture(scope="module")
def data_dir() -> Path:
    folder = Path(os.environ.get("ROUTEFRONT_DATA", REPO.parent / "shared" / "data"))
    if not (folder / "outcomes" / "paretobandit_queries.parquet").is_file():
        pytest.skip("the recorded sets are absent: set ROUTEFRONT_DATA to the folder that holds outcomes/")
    return folder


@pytest.fixture(scope="module")
def recorded(data_dir: Path) -> fit_hybrid_api.Recorded:
    return fit_hybrid_api.read_recorded(data_dir)


@pytest.fixture(scope="module")
def hybrid_api() -> OutcomeTable:
    raw = OmegaConf.to_container(OmegaConf.load(HYBRID_API))
    assert isinstance(raw, dict)
    committed = parse_scenario({str(key): value for key, value in raw.items()})
    return sample_scenario(committed, n_queries=100_000, rng=spawn_rng(5, "scenario"))


class TestHybridApi:
    def test_the_script_reproduces_the_committed_file_byte_for_byte(self, data_dir: Path, tmp_path: Path) -> None:
        output = tmp_path / "new" / "hybrid_api.yaml"
        assert fit_hybrid_api.main([str(data_dir), "--output", str(output)]) == 0
        assert output.read_bytes() == HYBRID_API.read_bytes()
        assert [path.name for path in output.parent.iterdir()] == ["hybrid_api.yaml"]

    def test_recorded_slice_by_tier_means(self, recorded: fit_hybrid_api.Recorded, hybrid_api: OutcomeTable) -> None:
        assert recorded.table.slices == hybrid_api.slices
        means, wanted = (fit_hybrid_api.slice_tier_means(table) for table in (hybrid_api, recorded.table))
        np.testing.assert_allclose(means, wanted, rtol=0, atol=MEAN_TOLERANCE)
        np.testing.assert_allclose(hybrid_api.quality.mean(axis=0), recorded.table.quality.mean(axis=0), atol=0.005)

    def test_recorded_bills(self, recorded: fit_hybrid_api.Recorded, hybrid_api: OutcomeTable) -> None:
        # fast was recorded at another price than the list month's, so its bill cannot be compared
        bills, wanted = hybrid_api.cost_usd[:, 1:], recorded.table.cost_usd[:, 1:]
        np.testing.assert_allclose(bills.mean(axis=0), wanted.mean(axis=0), rtol=0.03)
        np.testing.assert_allclose(np.quantile(bills, 0.95, axis=0), np.quantile(wanted, 0.95, axis=0), rtol=0.15)

    def test_recorded_costs_are_whole_tokens_at_the_price_behind_them(self, recorded: fit_hybrid_api.Recorded) -> None:
        """At 0.10 / 0.10 USD per Mtok each token costs 1e-7 USD; at 0.05 / 0.08 only one bill in ten would fit that."""
        tokens = recorded.table.cost_usd[:, 0] / 1e-7
        np.testing.assert_allclose(tokens, np.rint(tokens), rtol=0, atol=1e-6)

    def test_absent_data_is_one_line_and_exit_code_2(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert fit_hybrid_api.main([str(tmp_path), "--output", str(tmp_path / "x.yaml")]) == 2
        captured = capsys.readouterr().err
        assert captured.count("\n") == 1 and captured.startswith("error: expected a data file")
        assert not (tmp_path / "x.yaml").exists()

    def test_an_output_that_cannot_be_written(
        self, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("in the way", encoding="utf-8")
        assert fit_hybrid_api.main([str(data_dir), "--output", str(tmp_path / "file" / "x.yaml")]) == 2
        assert "cannot write" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("constant", "value", "message"),
        [
            ("LIST_MONTH", "1999-01", "has no row with"),
            ("AIDER_MODEL", "no such model", "should have one row of 'no such model'; it has 0"),
            ("SLICE_OF_SOURCE", {"mmlu": "exams"}, "no kind of work is named for the slice(s) ['arc_challenge', "),
        ],
    )
    def test_a_number_without_its_source(
        self,
        data_dir: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        constant: str,
        value: object,
        message: str,
    ) -> None:
        monkeypatch.setattr(fit_hybrid_api, constant, value)
        assert fit_hybrid_api.main([str(data_dir), "--output", str(tmp_path / "x.yaml")]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
