"""Arrival processes: mean, variance and tail against closed forms, load scaling, shared random numbers, bad input."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from simulators.arrivals import mean_rate, parse_arrivals, sample_arrivals
from simulators.arrivals.modulated import RateCurve, day_curve, state_path
from simulators.arrivals.renewal import MOST_ARRIVALS, gap_law, unit_points
from simulators.errors import ConfigError

LAWS = [("gamma", 0.3), ("gamma", 1.0), ("gamma", 3.0), ("weibull", 0.5), ("weibull", 1.0), ("weibull", 3.0)]
LEAST_P_VALUE = 1e-3
RESOLUTION_S = 1e-9


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def instants(raw: dict[str, object], *, duration_s: float, load: float = 1.0, seed: int = 0) -> np.ndarray:
    return sample_arrivals(parse_arrivals(raw), duration_s=duration_s, load=load, rng=rng(seed)).arrival_s


def textbook_law(family: str, cv: float, mean: float):
    """The law from SciPy's own distributions, the Weibull shape from their moments."""
    if family == "gamma":
        return stats.gamma(cv**-2, scale=mean * cv**2)
    shape = optimize.brentq(lambda k: stats.weibull_min(k).std() / stats.weibull_min(k).mean() - cv, 0.1, 50.0)
    return stats.weibull_min(shape, scale=mean / stats.weibull_min(shape).mean())


def counts(arrival_s: np.ndarray, window_s: float, duration_s: float) -> np.ndarray:
    n = round(duration_s / window_s)
    return np.histogram(arrival_s, bins=n, range=(0.0, n * window_s))[0]


def assert_law(gaps: np.ndarray, law) -> None:
    """Gaps follow the law; those under a nanosecond, which instants cannot resolve, are only counted."""
    tiny = law.cdf(RESOLUTION_S)
    assert stats.binomtest(int((gaps <= RESOLUTION_S).sum()), len(gaps), tiny).pvalue > LEAST_P_VALUE
    above = gaps[gaps > RESOLUTION_S]
    assert stats.kstest(above, lambda x: (law.cdf(x) - tiny) / (1 - tiny)).pvalue > LEAST_P_VALUE


def assert_tail(gaps: np.ndarray, law) -> None:
    """As many gaps beyond the law's high quantiles as binomial sampling allows."""
    for level in (0.9, 0.99, 0.999):
        expected = len(gaps) * (1 - level)
        assert abs((gaps > law.ppf(level)).sum() - expected) < 4 * np.sqrt(expected), level


class TestRenewal:
    @pytest.mark.parametrize("family, cv", LAWS)
    def test_gaps_have_the_law_in_the_middle_and_in_the_tail(self, family, cv):
        gaps = np.diff(instants({"kind": family, "rate_per_s": 50.0, "cv": cv}, duration_s=2000.0))
        law = textbook_law(family, cv, 1 / 50)
        assert law.std() / law.mean() == pytest.approx(cv, rel=1e-3)
        assert_law(gaps, law)
        assert gaps.mean() == pytest.approx(1 / 50, abs=4 * cv / 50 / np.sqrt(len(gaps)))
        assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)
        assert_tail(gaps, law)

    def test_poisson_gaps(self):
        gaps = np.diff(instants({"kind": "poisson", "rate_per_s": 100.0}, duration_s=2000.0))
        law = stats.expon(scale=0.01)
        assert_law(gaps, law)
        assert_tail(gaps, law)

    @pytest.mark.parametrize("family, cv", [("gamma", 1.0), ("gamma", 0.5), ("gamma", 2.0), ("weibull", 2.0)])
    def test_counts_disperse_as_renewal_theory_says(self, family, cv):
        duration_s, window_s = 40_000.0, 20.0  # 400 mean gaps per window, 2,000 windows: 3 % sampling error
        arrival_s = instants({"kind": family, "rate_per_s": 20.0, "cv": cv}, duration_s=duration_s)
        n = counts(arrival_s, window_s, duration_s)
        assert n.var() / n.mean() == pytest.approx(cv**2, rel=0.13)

    @pytest.mark.parametrize("family, cv", [("gamma", 3.0), ("weibull", 3.0), ("gamma", 0.3)])
    def test_every_span_expects_rate_times_length_from_the_start(self, family, cv):
        law, stream = gap_law(family, cv), rng(2)
        n = np.array([len(unit_points(law, 2.0, stream)) for _ in range(6_000)])
        assert n.mean() == pytest.approx(2.0, abs=4 * n.std() / np.sqrt(len(n)))

    @pytest.mark.parametrize("family, cv", [("gamma", 2.0), ("weibull", 2.0), ("gamma", 0.5)])
    def test_the_first_arrival_is_an_equilibrium_residual(self, family, cv):
        law, textbook, stream = gap_law(family, cv), textbook_law(family, cv, 1.0), rng(3)
        first = np.array([law.residual(stream) for _ in range(5_000)])
        grid = np.geomspace(1e-9, 1e4, 20_001)
        equilibrium = integrate.cumulative_trapezoid(textbook.sf(grid), grid, initial=0.0)
        assert stats.kstest(first, lambda x: np.interp(x, grid, equilibrium)).pvalue > LEAST_P_VALUE
        assert first.mean() == pytest.approx((1 + cv**2) / 2, abs=4 * first.std() / np.sqrt(len(first)))

    @given(
        cv=st.floats(0.01, 300.0),
        family=st.sampled_from(["gamma", "weibull"]),
        p=st.floats(0.001, 0.999),
    )
    def test_a_law_has_its_cv_and_inverts_itself(self, cv, family, p):
        law = gap_law(family, cv)
        assert law.cv == pytest.approx(cv, rel=1e-6)
        gap = law.quantile(np.array([p]))
        if gap[0] > 1e-200:
            assert law.cdf(gap)[0] == pytest.approx(p, rel=1e-6)

    @pytest.mark.parametrize("family, cv", LAWS)
    def test_the_density_is_that_of_the_law(self, family, cv):
        gaps = np.array([0.01, 0.5, 1.0, 4.0])
        assert gap_law(family, cv).log_density(gaps) == pytest.approx(textbook_law(family, cv, 1.0).logpdf(gaps), 1e-3)

    @pytest.mark.slow
    @pytest.mark.parametrize("family", ["gamma", "weibull"])
    @pytest.mark.parametrize("cv", [0.2, 5.0])
    def test_far_tails(self, family, cv):
        gaps = np.diff(instants({"kind": family, "rate_per_s": 1e4, "cv": cv}, duration_s=500.0, seed=5))
        law = textbook_law(family, cv, 1e-4)
        for level in (0.9999, 0.99999):
            expected = len(gaps) * (1 - level)
            assert abs((gaps > law.ppf(level)).sum() - expected) < 4.5 * np.sqrt(expected)

    def test_too_many_arrivals_are_refused_before_they_are_drawn(self):
        with pytest.raises(ConfigError, match=f"the most is {MOST_ARRIVALS:,}"):
            instants({"kind": "poisson", "rate_per_s": 1e6}, duration_s=1e6)


def asymptotic_dispersion(spec) -> float:
    """Limit of variance over mean of an MMPP's counts: 1 + 2 (pi L D L e - m^2) / m with D = (e pi - Q)^-1."""
    rates, stay_s = np.array(spec.rates_per_s), np.array(spec.mean_stay_s)
    m = len(rates)
    jump = np.roll(np.eye(m), 1, axis=1) if spec.switching == "cyclic" else (1 - np.eye(m)) / (m - 1)
    generator = (jump - np.eye(m)) / stay_s[:, None]
    share = stay_s / stay_s.sum()
    assert share @ generator == pytest.approx(np.zeros(m), abs=1e-12)
    deviation = np.linalg.inv(np.outer(np.ones(m), share) - generator)
    mean = share @ rates
    return float(1 + 2 * ((share * rates) @ deviation @ rates - mean**2) / mean)


class TestMmpp:
    def test_the_closed_form_is_the_textbook_one_for_two_states(self):
        spec = parse_arrivals({"kind": "mmpp", "rates_per_s": [20.0, 2.0], "mean_stay_s": [0.5, 2.0]})
        out, back = 1 / 0.5, 1 / 2.0
        textbook = 1 + 2 * (20 - 2) ** 2 * out * back / ((out + back) ** 2 * (20 * back + 2 * out))
        assert asymptotic_dispersion(spec) == pytest.approx(textbook)

    @pytest.mark.parametrize(
        "rates, stay_s, switching",
        [
            ([20.0, 2.0], [0.5, 2.0], "cyclic"),
            ([10.0, 0.0], [1.0, 1.0], "uniform"),
            ([1.0, 30.0, 5.0, 0.0], [0.5, 0.3, 0.2, 0.1], "cyclic"),
            ([1.0, 30.0, 5.0, 0.0], [0.5, 0.3, 0.2, 0.1], "uniform"),
        ],
    )
    def test_rate_and_dispersion(self, rates, stay_s, switching):
        raw = {"kind": "mmpp", "rates_per_s": rates, "mean_stay_s": stay_s, "switching": switching}
        spec, duration_s, window_s = parse_arrivals(raw), 80_000.0, 40.0
        n = counts(instants(raw, duration_s=duration_s), window_s, duration_s)
        limit = asymptotic_dispersion(spec)
        share = np.array(stay_s) / sum(stay_s)
        assert mean_rate(spec) == pytest.approx(float(share @ rates))
        sampling_error = np.sqrt(limit * mean_rate(spec) / duration_s)
        assert n.sum() / duration_s == pytest.approx(mean_rate(spec), abs=4 * sampling_error)
        assert n.var() / n.mean() == pytest.approx(limit, rel=0.14)

    def test_it_starts_in_stationarity_and_stays_exponentially(self):
        spec = parse_arrivals({"kind": "mmpp", "rates_per_s": [1.0, 2.0], "mean_stay_s": [1.0, 4.0]})
        first = [state_path(spec, 1e-9, stream).left[0] for stream in rng(1).spawn(2_000)]
        assert np.mean(np.array(first) == 2.0) == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / 2_000))
        path = state_path(spec, 50_000.0, rng(1))
        stays = np.diff(path.knot_s)[path.left == 2.0]
        assert stats.kstest(stays, stats.expon(scale=4.0).cdf).pvalue > LEAST_P_VALUE

    def test_a_silent_state_has_no_arrival(self):
        raw = {"kind": "mmpp", "rates_per_s": [50.0, 0.0], "mean_stay_s": [1.0, 1.0]}
        arrival_s = instants(raw, duration_s=100.0, seed=3)
        path_rng, _ = rng(3).spawn(2)
        path = state_path(parse_arrivals(raw), 100.0, path_rng)
        piece = np.searchsorted(path.knot_s, arrival_s, side="right") - 1
        assert len(arrival_s) > 1_000 and (path.left[piece] == 50.0).all()

    def test_stays_too_short_to_hold_are_refused(self):
        raw = {"kind": "mmpp", "rates_per_s": [1.0, 2.0], "mean_stay_s": [1e-6, 1.0]}
        with pytest.raises(ConfigError, match="a stay of 1e-06 s is too short"):
            instants(raw, duration_s=1e6)


class TestDiurnal:
    CURVE = (1.0, 0.0, 2.0, 5.0)

    def raw(self, **changes: object) -> dict[str, object]:
        return {"kind": "diurnal", "rate_per_s": 100.0, "curve": list(self.CURVE), "period_s": 400.0, **changes}

    @pytest.mark.parametrize("interpolation", ["linear", "step"])
    @pytest.mark.parametrize("cv, family", [(1.0, "gamma"), (3.0, "gamma"), (2.0, "weibull")])
    def test_counts_between_knots_follow_the_integrated_rate(self, interpolation, cv, family):
        raw, periods = self.raw(interpolation=interpolation, cv=cv, family=family), 5
        arrival_s = instants(raw, duration_s=400.0 * periods)
        nodes = np.array([*self.CURVE, self.CURVE[0]])
        level = 0.5 * (nodes[1:] + nodes[:-1]) if interpolation == "linear" else nodes[:-1]
        expected = periods * 40_000.0 * level / level.sum()
        n = np.histogram(arrival_s % 400.0, bins=4, range=(0.0, 400.0))[0]
        assert (np.abs(n - expected) <= 4 * cv * np.sqrt(expected)).all(), (n, expected)

    def test_the_rate_is_linear_between_the_knots(self):
        arrival_s = instants({**self.raw(), "curve": [0.0, 1.0]}, duration_s=4_000.0)
        place = arrival_s % 400.0
        triangle = stats.triang(0.5, scale=400.0)
        assert stats.kstest(place, triangle.cdf).pvalue > LEAST_P_VALUE

    @pytest.mark.parametrize("interpolation", ["linear", "step"])
    def test_gaps_in_expected_requests_have_the_law(self, interpolation):
        raw = self.raw(interpolation=interpolation, cv=2.0, start_s=950.0)
        arrival_s = instants(raw, duration_s=2_000.0)
        nodes = np.array([*self.CURVE, self.CURVE[0]])
        fine_s = np.linspace(0, 400, 400_001)
        rate = np.interp(fine_s, [0, 100, 200, 300, 400], nodes)
        if interpolation == "step":
            rate = nodes[np.minimum(fine_s // 100, 3).astype(int)]
        area = integrate.cumulative_trapezoid(rate, fine_s, initial=0.0)
        rounds, place = np.divmod(arrival_s + 950.0, 400.0)
        gaps = np.diff((rounds + np.interp(place, fine_s, area / area[-1])) * 40_000.0)
        assert stats.kstest(gaps, textbook_law("gamma", 2.0, 1.0).cdf).pvalue > LEAST_P_VALUE
        assert_tail(gaps, textbook_law("gamma", 2.0, 1.0))

    def test_a_start_within_the_day_is_a_shift(self):
        shifted = instants(self.raw(start_s=200.0, interpolation="step"), duration_s=100.0)
        assert len(shifted) == pytest.approx(100 * 100 * 2.0 / 2.0, rel=0.05)
        assert len(instants(self.raw(start_s=100.0, interpolation="step"), duration_s=99.9)) == 0

    @given(
        rates=st.lists(st.floats(0.0, 50.0), min_size=2, max_size=8).filter(lambda r: max(r) > 1e-3),
        widths=st.lists(st.floats(0.01, 100.0), min_size=8, max_size=8),
        p=st.floats(0.0, 0.999),
    )
    def test_the_inverse_of_the_integrated_rate_is_exact(self, rates, widths, p):
        rate = np.array(rates)
        knot_s = np.concatenate([[0.0], np.cumsum(widths[: len(rates) - 1])])
        curve = RateCurve(knot_s=knot_s, left=rate[:-1], right=rate[1:])
        area = np.array([p * curve.integral[-1]])
        back = curve.integrated(curve.inverse(area))
        assert back == pytest.approx(area, rel=1e-9, abs=1e-9 * curve.integral[-1])

    def test_the_mean_over_a_period_is_the_stated_rate(self):
        for interpolation in ("linear", "step"):
            spec = parse_arrivals(self.raw(interpolation=interpolation))
            assert day_curve(spec).integral[-1] == pytest.approx(400.0 * 100.0)
            assert mean_rate(spec) == 100.0


class TestSuperposition:
    def test_poissons_make_a_poisson(self):
        rates = [5.0, 20.0, 75.0]
        clients = {f"c{i}": {"kind": "poisson", "rate_per_s": rate} for i, rate in enumerate(rates)}
        spec = parse_arrivals({"kind": "clients", "clients": clients})
        arrivals = sample_arrivals(spec, duration_s=1_000.0, load=1.0, rng=rng(7))
        law = stats.expon(scale=0.01)
        assert mean_rate(spec) == 100.0 and arrivals.client_names == ("c0", "c1", "c2")
        assert stats.kstest(np.diff(arrivals.arrival_s), law.cdf).pvalue > LEAST_P_VALUE
        assert_tail(np.diff(arrivals.arrival_s), law)
        shares = np.bincount(arrivals.client) / arrivals.n_requests
        assert shares == pytest.approx(np.array(rates) / 100, abs=0.006)
        n = counts(arrivals.arrival_s, 1.0, 1_000.0)
        assert n.var() / n.mean() == pytest.approx(1.0, abs=4 * np.sqrt(2 / 1_000))

    def test_each_client_keeps_its_own_process(self):
        gamma, poisson = {"kind": "gamma", "rate_per_s": 40.0, "cv": 4.0}, {"kind": "poisson", "rate_per_s": 300.0}
        spec = parse_arrivals({"kind": "clients", "clients": {"burst": gamma, "calm": poisson}})
        arrivals = sample_arrivals(spec, duration_s=1_000.0, load=1.0, rng=rng(1))
        gaps = np.diff(arrivals.arrival_s[arrivals.client == 0])
        assert_law(gaps, textbook_law("gamma", 4.0, 1 / 40))
        assert arrivals.input_tokens is None

    def test_superpositions_nest(self):
        inner = {"kind": "clients", "clients": {"a": {"kind": "poisson", "rate_per_s": 1.0}}}
        spec = parse_arrivals({"kind": "clients", "clients": {"outer": inner, "b": inner}})
        arrivals = sample_arrivals(spec, duration_s=100.0, load=1.0, rng=rng())
        assert arrivals.client_names == ("outer", "b") and set(arrivals.client) == {0, 1}
        assert mean_rate(spec) == 2.0


KINDS: dict[str, dict[str, object]] = {
    "poisson": {"kind": "poisson", "rate_per_s": 30.0},
    "gamma": {"kind": "gamma", "rate_per_s": 30.0, "cv": 2.5},
    "weibull": {"kind": "weibull", "rate_per_s": 30.0, "cv": 2.5},
    "mmpp": {"kind": "mmpp", "rates_per_s": [50.0, 10.0], "mean_stay_s": [1.0, 1.0]},
    "diurnal": {"kind": "diurnal", "rate_per_s": 30.0, "curve": [1, 3], "period_s": 40.0, "cv": 2.0},
    "clients": {
        "kind": "clients",
        "clients": {"a": {"kind": "poisson", "rate_per_s": 20.0}, "b": {"kind": "gamma", "rate_per_s": 10.0, "cv": 2}},
    },
}


class TestContract:
    @pytest.mark.parametrize("kind", KINDS)
    def test_ascending_within_the_duration_and_reproducible(self, kind):
        spec = parse_arrivals(KINDS[kind])
        one, same = (sample_arrivals(spec, duration_s=100.0, load=1.5, rng=rng(4)) for _ in range(2))
        other = sample_arrivals(spec, duration_s=100.0, load=1.5, rng=rng(5))
        assert (np.diff(one.arrival_s) >= 0).all() and one.arrival_s[0] >= 0 and one.arrival_s[-1] < 100.0
        assert one.arrival_s.dtype == np.float64 and one.client.dtype == np.int64
        assert (one.arrival_s == same.arrival_s).all() and (one.client == same.client).all()
        assert one.client.max() < len(one.client_names)
        assert not np.array_equal(one.arrival_s, other.arrival_s)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("load", [0.25, 4.0])
    def test_load_multiplies_the_rate(self, kind, load):
        spec = parse_arrivals(KINDS[kind])
        n = sample_arrivals(spec, duration_s=4_000.0, load=load, rng=rng(6)).n_requests
        expected = mean_rate(spec) * load * 4_000.0
        assert abs(n - expected) < 4 * np.sqrt(12 * load * expected if kind == "mmpp" else 8 * expected)

    @pytest.mark.parametrize("kind", ["poisson", "gamma", "weibull"])
    def test_loads_are_the_same_requests_closer_together(self, kind):
        once, twice = (instants(KINDS[kind], duration_s=500.0, load=load, seed=3) for load in (1.0, 2.0))
        assert len(twice) > 1.8 * len(once)
        np.testing.assert_allclose(twice[: len(once)], once / 2, rtol=1e-12)

    def test_a_rate_curve_stays_where_it_is_under_load(self):
        raw = {**KINDS["diurnal"], "curve": [1, 0], "interpolation": "step", "period_s": 10.0}
        once, twice = (instants(raw, duration_s=200.0, load=load) for load in (1.0, 2.0))
        assert (once % 10.0 < 5.0).all() and (twice % 10.0 < 5.0).all() and len(twice) > 1.5 * len(once)
        busy_once, busy_twice = (5.0 * (t // 10.0) + t % 10.0 for t in (once, twice))
        np.testing.assert_allclose(busy_twice[: len(once)], busy_once / 2, rtol=1e-6)

    def test_modulating_states_stay_where_they_are_under_load(self):
        raw = {"kind": "mmpp", "rates_per_s": [200.0, 0.0], "mean_stay_s": [5.0, 5.0]}
        once, twice = (counts(instants(raw, duration_s=200.0, load=load), 1.0, 200.0) for load in (1.0, 2.0))
        assert ((once == 0) == (twice == 0)).mean() > 0.97
        assert np.corrcoef(once, twice)[0, 1] > 0.97

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_longer_simulation_continues_the_shorter_one(self, kind):
        short, long = (instants(KINDS[kind], duration_s=d, seed=8) for d in (100.0, 1_000.0))
        np.testing.assert_allclose(long[: len(short)], short, rtol=1e-12)
        assert long[len(short)] >= 100.0

    @pytest.mark.parametrize(
        "name, value", [("duration_s", 0.0), ("duration_s", np.nan), ("load", -1.0), ("load", np.inf)]
    )
    def test_duration_and_load_must_be_positive(self, name, value):
        given_values = {"duration_s": 10.0, "load": 1.0, name: value}
        with pytest.raises(ConfigError, match=f"^{name}: expected a positive number; got"):
            sample_arrivals(parse_arrivals(KINDS["poisson"]), rng=rng(), **given_values)

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["poisson", "gamma", "weibull", "mmpp", "diurnal"])
    def test_a_million_arrivals_take_less_than_a_second(self, kind):
        began = time.perf_counter()
        n = sample_arrivals(parse_arrivals(KINDS[kind]), duration_s=33_000.0, load=1.0, rng=rng()).n_requests
        assert n > 9e5 and time.perf_counter() - began < 1.0
