"""Feed-forward queues: the fast kernels beside a plain loop, SimPy, ciw and closed forms."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from helpers import run_cli
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.contention.compile import compile_kernels
from simulators.contention.exact import waits
from simulators.contention.histogram import make_bins, quantiles
from simulators.contention.inputs import FeedForwardState
from simulators.contention.lanes import summarise
from simulators.contention.reference import reference_waits
from simulators.contention.vectors import LANES
from simulators.errors import ConfigError, InputDataError
from simulators.queueing import mean_wait, waiting_times

LEVELS = (0.0, 0.25, 0.5, 0.95, 0.99, 1.0)


@pytest.fixture(scope="module", autouse=True)
def compiled():
    compile_kernels()


@dataclass(frozen=True)
class Case:
    """Inputs of a call; `args` in the order of the functions."""

    ready_s: np.ndarray
    hold_s: np.ndarray
    row: np.ndarray
    tier: np.ndarray
    station_of: np.ndarray
    slots: np.ndarray

    @property
    def args(self):
        return self.ready_s, self.hold_s, self.row, self.tier, self.station_of, self.slots

    @property
    def with_values(self):
        return self.ready_s, self.hold_s, self.hold_s, self.row, self.tier, self.station_of, self.slots

    def window(self, begin, end):
        cut = slice(begin, end)
        return replace(self, ready_s=self.ready_s[cut], row=self.row[cut], tier=self.tier[:, cut])

    def scaled(self, factor):
        return replace(self, ready_s=self.ready_s * factor, hold_s=self.hold_s * factor)


def make_case(seed=0, *, n=5, requests=400, slots=(1, 3, 0), station_of=(0, 1, 2, 1), load=0.9, nowhere=0.1):
    """Tied arrivals, zero holds and requests that go nowhere included."""
    rng = np.random.default_rng(seed)
    n_rows, k = 50, len(station_of)
    hold_s = rng.exponential(1.0, (n_rows, k)) * (rng.random((n_rows, k)) > 0.1)
    gaps = rng.exponential(1.0, requests) * (rng.random(requests) > 0.2)
    ready_s = np.cumsum(gaps) / max(load * sum(slots), 0.5)
    tier = rng.integers(0, k, (n, requests)).astype(np.int8)
    tier[rng.random(tier.shape) < nowhere] = -1
    row = rng.integers(0, n_rows, requests)
    return Case(ready_s, hold_s, row, tier, np.array(station_of), np.array(slots))


def totals(case, found):
    """`n x R` wait + hold, NaN where a request goes nowhere."""
    own = case.hold_s[case.row[None], np.maximum(case.tier, 0)]
    return np.where(case.tier >= 0, found + own, np.nan)


def one_station(arrival_s, hold_s, slots, n=1):
    requests = len(arrival_s)
    nothing = np.zeros(requests, dtype=np.int64)
    return Case(arrival_s, hold_s[:, None], np.arange(requests), np.zeros((n, requests), np.int8), nothing[:1], slots)


# --- float64 against the plain loop -----------------------------------------------------------------------------------

shapes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10**6),
        "n": st.integers(1, 7),
        "requests": st.integers(0, 300),
        "slots": st.lists(st.integers(0, 9), min_size=2, max_size=2).map(tuple),
        "station_of": st.lists(st.integers(0, 1), min_size=1, max_size=5).map(tuple),
        "load": st.floats(0.1, 3.0),
        "nowhere": st.sampled_from([0.0, 0.3, 1.0]),
    }
)


@settings(max_examples=60, deadline=None)
@given(shapes)
def test_float64_equals_the_plain_loop(shape):
    case = make_case(**shape)
    expected, expected_state = reference_waits(*case.args)
    found, state = waits(*case.args)
    np.testing.assert_allclose(found, expected, atol=1e-9, rtol=1e-9)
    np.testing.assert_allclose(state.free_s, expected_state.free_s, atol=1e-9, rtol=1e-9)


def test_one_station_equals_the_recursion_in_use():
    case = make_case(n=1, slots=(3,), station_of=(0,), nowhere=0.0)
    found, _ = waits(*case.args)
    expected = waiting_times(case.ready_s, case.hold_s[case.row, 0], servers=3)
    np.testing.assert_allclose(found[0], expected, atol=1e-9)


def test_known_waits():
    # Two tiers share one slot; the third has no limit; the last request goes nowhere.
    tier = np.array([[0, 1, 2, 0, -1]], dtype=np.int8)
    case = Case(
        np.array([0.0, 1.0, 1.0, 6.0, 6.0]),
        np.array([[3.0, 2.0, 9.0]]),
        np.zeros(5, np.int64),
        tier,
        np.array([0, 0, 1]),
        np.array([1, 0]),
    )
    found, state = waits(*case.args)
    np.testing.assert_allclose(found, [[0.0, 2.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(state.free_s, [[9.0]])
    summary = summarise(*case.with_values, limits_s=(4.0, 3.5), levels=(0.0, 1.0))
    np.testing.assert_allclose(summary.mean_s, [(3.0 + 4.0 + 9.0 + 3.0) / 4], rtol=1e-6)
    np.testing.assert_allclose(summary.quantiles_s, [[3.0, 9.0]], rtol=1e-3)
    np.testing.assert_allclose(summary.over, [[0.25, 0.5]])
    np.testing.assert_allclose(summary.busy_s, [[8.0, 9.0]])
    assert summary.count.tolist() == [4]


# --- windows ----------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(shapes, st.floats(0, 1))
def test_two_windows_are_one_run(shape, share):
    case = make_case(**shape)
    cut = int(share * len(case.ready_s))
    whole, end = waits(*case.args)
    first, state = waits(*case.window(0, cut).args)
    second, end_of_two = waits(*case.window(cut, None).args, state=state)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, atol=1e-12, rtol=0)
    np.testing.assert_allclose(end_of_two.free_s, end.free_s, atol=1e-12, rtol=0)


def test_lanes_hand_their_state_on():
    case = make_case(requests=3000, load=1.1, n=3)
    _, middle = waits(*case.window(0, 1500).args)
    found, end = waits(*case.window(1500, None).args, state=middle)
    first = summarise(*case.window(0, 1500).with_values)
    second = summarise(*case.window(1500, None).with_values, state=first.state)
    np.testing.assert_allclose(first.state.free_s, middle.free_s, rtol=1e-6)
    np.testing.assert_allclose(second.state.free_s, end.free_s, rtol=1e-6)
    np.testing.assert_allclose(second.mean_s, np.nanmean(totals(case.window(1500, None), found), axis=1), rtol=1e-4)


def test_a_state_of_other_slots_is_refused():
    case = make_case()
    with pytest.raises(InputDataError, match="other candidates or slots"):
        waits(*case.args, state=FeedForwardState(free_s=np.zeros((5, 3))))


# --- lanes against float64 --------------------------------------------------------------------------------------------


def agree(case, **options):
    """Mean, quantiles, shares, busy time and count against float64, with the stated error."""
    counted = options.get("counted", np.ones(len(case.ready_s), bool))
    offset_s = options.get("offset_s", np.zeros(len(case.ready_s)))
    found = summarise(*case.with_values, levels=LEVELS, limits_s=(0.7, 2.3), **options)
    exact, _ = waits(*case.args)
    values = (totals(case, exact) + offset_s)[:, counted]
    scale = case.hold_s.mean()
    for i, own in enumerate(values):
        own = own[~np.isnan(own)]
        assert found.count[i] == len(own)
        if len(own) == 0:
            assert np.isnan(found.mean_s[i]) and np.isnan(found.quantiles_s[i]).all() and np.isnan(found.over[i]).all()
            continue
        np.testing.assert_allclose(found.mean_s[i], own.mean(), rtol=1e-3, atol=1e-4 * scale)
        np.testing.assert_allclose(found.quantiles_s[i], np.quantile(own, LEVELS), rtol=1.1e-3, atol=1e-3 * scale)
        near = [((np.abs(own - limit) < 1e-3).sum() + 0.5) / len(own) for limit in (0.7, 2.3)]
        assert (np.abs(found.over[i] - [(own > limit).mean() for limit in (0.7, 2.3)]) <= near).all()
    for j in range(len(case.slots)):
        held = case.hold_s[case.row[None], np.maximum(case.tier, 0)]
        here = (case.tier >= 0) & (case.station_of[np.maximum(case.tier, 0)] == j)
        np.testing.assert_allclose(found.busy_s[:, j], (held * here).sum(axis=1), rtol=1e-5, atol=1e-6)
    return found


@settings(max_examples=30, deadline=None)
@given(shapes)
def test_lanes_agree_with_float64(shape):
    agree(make_case(**shape))


@pytest.mark.parametrize("n", [1, LANES - 1, LANES, LANES + 1, 2 * LANES + 7])
def test_any_number_of_candidates(n):
    agree(make_case(n=n, requests=700))


@pytest.mark.parametrize("slots", [(1,), (17,), (64,), (130,)])
@pytest.mark.parametrize("load", [0.5, 0.95, 1.5])
def test_any_number_of_slots(slots, load):
    agree(make_case(n=4, requests=2000, slots=slots, station_of=(0,), load=load, nowhere=0.0))


def test_warm_up_and_offsets():
    case = make_case(n=3, requests=900)
    counted = np.arange(900) >= 300
    agree(case, counted=counted, offset_s=np.random.default_rng(0).random(900))
    nobody = summarise(*case.with_values, counted=np.zeros(900, bool))
    assert nobody.count.tolist() == [0, 0, 0] and np.isnan(nobody.mean_s).all() and (nobody.busy_s > 0).any()


def test_figures_do_not_depend_on_the_batch():
    case = make_case(n=2 * LANES + 3, requests=500)
    whole = summarise(*case.with_values, limits_s=(1.0,))
    for i in (0, 40, LANES, 2 * LANES + 2):
        alone = summarise(*replace(case, tier=case.tier[[i]]).with_values, limits_s=(1.0,))
        for name in ("mean_s", "quantiles_s", "over", "busy_s", "count"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(whole, name)[i], err_msg=name)
        np.testing.assert_array_equal(alone.state.free_s[0], whole.state.free_s[i])


@pytest.mark.parametrize("gap_s", [1e-4, 1.0, 1e4])
def test_sparse_and_dense_traffic_and_late_clocks(gap_s):
    case = make_case(n=2, requests=1000, slots=(2,), station_of=(0,), nowhere=0.0)
    late = replace(case, ready_s=np.arange(1000) * gap_s + 1e7)
    agree(late)


def test_no_wait_leaves_the_values():
    case = make_case(n=2, requests=1000, slots=(0, 0), station_of=(0, 1))
    found = summarise(*case.with_values)
    np.testing.assert_allclose(found.mean_s, np.nanmean(totals(case, np.zeros(case.tier.shape)), axis=1), rtol=1e-6)
    assert found.state.free_s.shape == (2, 0)


def utilised(utilisation, seed=0, *, slots=(4, 8, 16), requests=20_000, n=4):
    rng = np.random.default_rng(seed)
    share = np.array(slots) / sum(slots)
    ready_s = np.cumsum(rng.exponential(1 / (utilisation * sum(slots)), requests))
    tier = rng.choice(len(slots), (n, requests), p=share).astype(np.int8)
    return Case(ready_s, rng.exponential(1.0, (requests, 3)), np.arange(requests), tier, np.arange(3), np.array(slots))


@pytest.mark.parametrize("utilisation", [0.5, 0.8, 0.95])
def test_the_stated_error(utilisation):
    case = utilised(utilisation)
    values = totals(case, waits(*case.args)[0])
    found = summarise(*case.with_values, levels=(0.5, 0.95, 0.99))
    np.testing.assert_allclose(found.mean_s, values.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found.quantiles_s, np.quantile(values, (0.5, 0.95, 0.99), axis=1).T, rtol=1e-3)


@pytest.mark.parametrize("factor", [2.0, 1 / 60])
def test_time_may_be_in_any_unit(factor):
    case = make_case(n=3, requests=1500, nowhere=0.0)
    found, scaled = waits(*case.args)[0], waits(*case.scaled(factor).args)[0]
    np.testing.assert_allclose(scaled, found * factor, rtol=1e-9, atol=1e-9)
    summary, other = summarise(*case.with_values), summarise(*case.scaled(factor).with_values)
    np.testing.assert_allclose(other.mean_s, summary.mean_s * factor, rtol=1e-5)
    np.testing.assert_allclose(other.quantiles_s, summary.quantiles_s * factor, rtol=2e-3, atol=1e-4)


# --- the histogram ----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(2.0**-10, 2.0**17, width=32), min_size=1, max_size=300),
    st.lists(st.floats(0, 1), min_size=1, max_size=5),
    st.integers(1, 50),
)
def test_quantiles_are_within_a_bin(values, levels, copies):
    values = np.repeat(np.array(values, np.float32), copies)
    found, total, _ = binned(values, levels)
    assert total == len(values)
    np.testing.assert_allclose(found, np.quantile(values.astype(np.float64), levels), rtol=1.0 / 1024)


def binned(values, levels):
    bins = make_bins(2.0**-10, 2.0**17)
    codes = np.clip((values.view(np.int32) >> 13) - bins.low, 0, bins.n_bins - 1)
    counts = np.bincount(codes, minlength=bins.n_bins).astype(np.uint32)
    found = np.empty(len(levels))
    total = quantiles(counts[:-1], bins.edges, np.array(levels), found)
    return found, total, bins


def test_bins_are_narrow_and_ascend():
    edges = make_bins(2.0**-10, 2.0**17).edges
    assert (np.diff(edges) > 0).all() and (np.diff(edges) / edges[:-1]).max() < 1e-3
    assert edges[0] == 2.0**-10 and edges[-1] > 2.0**17


# --- peers on the same inputs -----------------------------------------------------------------------------------------


def plain_inputs(case):
    station = case.station_of[case.tier[0]]
    return case.ready_s, case.hold_s[case.row, case.tier[0]], station, case.slots


@pytest.mark.parametrize("peer", ["heap_waits", "simpy_waits", "ciw_waits"])
def test_peers_wait_as_long(peer):
    pytest.importorskip(peer.removesuffix("_waits") if peer != "heap_waits" else "heapq")
    from experiments import contention_peers

    case = make_case(n=1, requests=600, slots=(1, 4, 2), station_of=(0, 1, 2, 1), load=0.8, nowhere=0.0)
    found, _ = waits(*case.args)
    expected = getattr(contention_peers, peer)(*plain_inputs(case))
    np.testing.assert_allclose(found[0], expected, atol=1e-9)
    assert expected.max() > 0.1


# --- closed forms -----------------------------------------------------------------------------------------------------


def simulated_mean_wait(slots, utilisation, holds, *, requests, seed=0, batches=30):
    """Mean wait after a warm-up, with its standard error from batch means: waits are autocorrelated."""
    rng = np.random.default_rng(seed)
    ready_s = np.cumsum(rng.exponential(1 / (utilisation * slots), requests))
    case = one_station(ready_s, holds(rng, requests), np.array([slots]))
    found = waits(*case.args)[0][0, requests // 10 :]
    means = found[: len(found) // batches * batches].reshape(batches, -1).mean(axis=1)
    return means.mean(), means.std(ddof=1) / np.sqrt(batches)


HOLDS = {
    "exponential": (lambda rng, n: rng.exponential(1.0, n), 1.0),
    "constant": (lambda rng, n: np.ones(n), 0.0),
    "gamma": (lambda rng, n: rng.gamma(0.5, 2.0, n), 2.0),
}


@pytest.mark.parametrize(
    ("slots", "kind"), [(1, "exponential"), (4, "exponential"), (16, "exponential"), (1, "constant"), (1, "gamma")]
)
@pytest.mark.parametrize("utilisation", [0.5, 0.8])
def test_closed_forms(slots, kind, utilisation):
    """M/M/1 and M/M/c (Erlang), M/D/1 and M/G/1 (Pollaczek and Khinchine)."""
    holds, cv2 = HOLDS[kind]
    found, error = simulated_mean_wait(slots, utilisation, holds, requests=300_000)
    expected = mean_wait(utilisation * slots, slots, mean_service_s=1.0, cv2_service=cv2)
    assert abs(found - expected) < 4 * error and error < 0.1 * expected


@pytest.mark.slow
@pytest.mark.parametrize(("slots", "kind"), [(1, "exponential"), (8, "exponential"), (1, "constant"), (1, "gamma")])
def test_closed_forms_near_saturation(slots, kind):
    holds, cv2 = HOLDS[kind]
    found, error = simulated_mean_wait(slots, 0.95, holds, requests=10_000_000)
    expected = mean_wait(0.95 * slots, slots, mean_service_s=1.0, cv2_service=cv2)
    assert abs(found - expected) < 4 * error and error < 0.05 * expected


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(0.2, 1.5))
def test_littles_law(seed, slots, load):
    """The mean number present, from the sample path, is the arrival rate times the mean time."""
    rng = np.random.default_rng(seed)
    ready_s = np.cumsum(rng.exponential(1 / (load * slots), 400))
    case = one_station(ready_s, rng.gamma(2.0, 0.5, 400), np.array([slots]))
    time_s = totals(case, waits(*case.args)[0])[0]
    instants = np.concatenate([ready_s, ready_s + time_s])
    order = np.argsort(instants, kind="stable")
    present = np.cumsum(np.repeat([1, -1], 400)[order])[:-1]
    assert present.min() >= 0
    span_s = instants.max() - ready_s[0]
    number = (present * np.diff(instants[order])).sum() / span_s
    assert number == pytest.approx(len(ready_s) / span_s * time_s.mean(), rel=1e-9)
    summary = summarise(*case.with_values)
    assert number == pytest.approx(len(ready_s) / span_s * summary.mean_s[0], rel=1e-4)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"slots": np.array([1, -3, 0])}, ConfigError, "slots must be positive"),
        ({"station_of": np.array([0, 1, 2, 3])}, ConfigError, "needs one of 3 stations"),
        ({"ready_s": np.arange(400.0)[::-1]}, InputDataError, "in the order"),
        ({"row": np.full(400, 50)}, InputDataError, "rows must lie in 0 to 49; got 50"),
        ({"tier": np.full((2, 400), 4, np.int8)}, InputDataError, "tiers must lie in -1 to 3; got 4"),
        ({"tier": np.zeros((2, 399), np.int8)}, InputDataError, "as many rows and n x R tiers"),
        ({"hold_s": np.full((50, 4), -1.0)}, InputDataError, "hold_s must be finite and not negative"),
        ({"hold_s": np.full((50, 4), np.nan)}, InputDataError, "hold_s must be finite and not negative"),
    ],
)
def test_bad_input_is_one_line(change, error, said):
    case = replace(make_case(), **change)
    for call in (lambda: waits(*case.args), lambda: summarise(*case.with_values), lambda: reference_waits(*case.args)):
        with pytest.raises(error, match=said) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_bad_levels_and_values():
    case = make_case()
    with pytest.raises(ConfigError, match="levels of quantiles"):
        summarise(*case.with_values, levels=(1.5,))
    with pytest.raises(InputDataError, match="value_s must be shaped like hold_s"):
        summarise(case.ready_s, case.hold_s, case.hold_s[:2], *case.args[2:])


# --- bench ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bench_of_the_queues(tmp_path, monkeypatch):
    pytest.importorskip("simpy")
    pytest.importorskip("ciw")
    from experiments import contention_bench

    tiny = replace(
        contention_bench.CONTENTION_CASES["contention-small"],
        n_requests=2000,
        n_candidates=64,
        heap=(2000, 1),
        simpy=(500, 1),
        ciw=(500, 1),
    )
    monkeypatch.setitem(contention_bench.CONTENTION_CASES, "contention-small", tiny)
    monkeypatch.setattr(contention_bench, "GROWTH", ((1000, (1, 64)),))
    code, _, err = run_cli("bench", "cases=[contention-small,contention-growth]", "runs=1", cwd=tmp_path)
    assert code == 0, err
    rows = json.loads((tmp_path / "bench.json").read_text())
    assert {"case", "metric", "ours", "peer", "peer_value", "ratio", "runs"} == set(rows[0])
    peers = {str(row["peer"]).split(",")[0] for row in rows}
    assert peers == {"heap loop", "SimPy", "ciw", "compiled float64", "float64", "None"}
    assert all(row["ours"] < 1e-3 for row in rows if row["metric"].startswith("relative error"))
    assert all(row["ours"] < 2048 for row in rows if row["metric"].startswith("peak memory"))
    for peer in ("SimPy", "ciw", "heap loop"):
        assert all(row["ratio"] > 1 for row in rows if str(row["peer"]).startswith(peer))
