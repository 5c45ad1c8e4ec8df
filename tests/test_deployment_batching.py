"""Continuous batching on one replica: the leaping kernel against the plain loop, closed forms, limits, conservation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.deployment.batching import serve, serve_reference
from simulators.deployment.performance import Speed
from simulators.errors import InputDataError
from simulators.queueing import poisson_arrivals, waiting_times

SPEED = Speed(
    prefill_floor_s=0.03,
    prefill_token_s=1e-4,
    prefill_square_s=1e-9,
    decode_s=0.02,
    sequence_s=4e-4,
    context_s=1e-7,
    kv_tokens=20_000,
    max_batch=16,
)


def decode_s(speed: Speed, prompt: int, answer: int) -> float:
    """All decode steps of a request on its own; the first token is the prefill's."""
    return sum(speed.step_s(1, prompt + made) for made in range(1, answer))


@st.composite
def loads(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n = draw(st.integers(0, 40))
    arrival_s = np.cumsum(rng.exponential(draw(st.sampled_from([0.01, 0.3, 3.0])), n))
    if draw(st.booleans()):  # several at the very same instant
        arrival_s = arrival_s[np.arange(n) // 3 * 3]
    speed = Speed(
        prefill_floor_s=draw(st.sampled_from([0.0, 0.03, 0.5])),
        prefill_token_s=1e-4,
        prefill_square_s=draw(st.sampled_from([0.0, 1e-8])),
        decode_s=draw(st.sampled_from([0.0, 0.02])),
        sequence_s=draw(st.sampled_from([1e-9, 4e-4, 1e-2])),
        context_s=draw(st.sampled_from([0.0, 1e-7, 1e-4])),
        kv_tokens=draw(st.sampled_from([150, 600, 20_000])),
        max_batch=draw(st.sampled_from([1, 2, 5, 64])),
        prefill_tokens=draw(st.sampled_from([1, 250, 2048])),
        stages=draw(st.integers(1, 4)),
    )
    prompt = rng.integers(1, draw(st.sampled_from([2, 300])), n).astype(float)
    answer = rng.integers(1, draw(st.sampled_from([2, 4, 200])), n).astype(float)
    return speed, arrival_s + draw(st.sampled_from([-50.0, 0.0, 7.0])), prompt, answer


class TestEquivalence:
    @given(loads())
    @settings(deadline=None, max_examples=300)
    def test_leaps_equal_single_steps(self, load) -> None:
        leaps, steps = serve(*load), serve_reference(*load)
        np.testing.assert_allclose(leaps.first_s, steps.first_s, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(leaps.done_s, steps.done_s, rtol=1e-9, atol=1e-9)

    @given(loads())
    @settings(deadline=None, max_examples=100)
    def test_nothing_is_lost_or_served_early_or_out_of_turn(self, load) -> None:
        speed, arrival_s, prompt, answer = load
        served = serve(*load)
        fits = prompt + answer <= speed.kv_tokens
        np.testing.assert_array_equal(np.isfinite(served.done_s), fits)
        first_s, done_s = served.first_s[fits], served.done_s[fits]
        alone_s = [speed.prefill_s(int(n)) for n in prompt[fits]]
        assert (first_s >= arrival_s[fits] + alone_s - 1e-9).all() and (np.diff(first_s) >= 0).all()
        np.testing.assert_array_equal(done_s == first_s, answer[fits] == 1)
        assert (done_s - first_s >= (answer[fits] - 1) * speed.step_s(1, 0) - 1e-9).all()


class TestClosedForms:
    def test_a_request_on_its_own(self) -> None:
        served = serve(SPEED, np.array([5.0, 500.0]), np.array([700.0, 40.0]), np.array([90.0, 1.0]))
        first_s = [5.0 + SPEED.prefill_s(700), 500.0 + 0.03]
        np.testing.assert_allclose(served.first_s, first_s, rtol=1e-12)
        np.testing.assert_allclose(served.done_s, [first_s[0] + decode_s(SPEED, 700, 90), first_s[1]], rtol=1e-12)

    def test_prompts_admitted_together_take_the_sum_of_their_times(self) -> None:
        served = serve(SPEED, np.zeros(3), np.array([500.0, 600.0, 700.0]), np.ones(3))
        work_s = 1800 * SPEED.prefill_token_s + (500**2 + 600**2 + 700**2) * SPEED.prefill_square_s
        np.testing.assert_allclose(served.first_s, work_s, rtol=1e-12)

    def test_the_token_budget_splits_a_prefill_but_never_a_prompt(self) -> None:
        served = serve(SPEED, np.zeros(3), np.array([1500.0, 600.0, 5000.0]), np.ones(3))
        expected_s = np.cumsum([SPEED.prefill_s(n) for n in (1500, 600, 5000)])
        np.testing.assert_allclose(served.first_s, expected_s, rtol=1e-12)

    def test_tokens_per_second_at_full_batch(self) -> None:
        """Saturated: batch / decode step, but for the prefills and the drain at the end."""
        speed = dataclasses.replace(SPEED, context_s=0.0, prefill_floor_s=0.0, prefill_token_s=0.0, prefill_square_s=0)
        n, answer = 320, 400
        served = serve(speed, np.zeros(n), np.full(n, 1.0), np.full(n, float(answer)))
        rate = n * (answer - 1) / served.done_s.max()
        assert rate == pytest.approx(16 / speed.step_s(16, 0), rel=1e-12)

    @pytest.mark.parametrize("room", [300, 399, 400, 1000])
    def test_memory_bounds_the_batch_exactly(self, room: int) -> None:
        """Requests of 100 tokens: `room // 100` run at a time."""
        speed = dataclasses.replace(SPEED, kv_tokens=room)
        batch = room // 100
        served = serve(speed, np.zeros(12), np.full(12, 60.0), np.full(12, 40.0))
        first_s = np.unique(served.first_s)
        assert [(served.first_s == at).sum() for at in first_s[:-1]] == [batch] * (len(first_s) - 1)
        assert served.first_s[batch] > served.done_s[batch - 1] == served.done_s[0]

    def test_a_request_that_never_fits_blocks_nobody(self) -> None:
        served = serve(SPEED, np.zeros(3), np.array([10.0, 20_000.0, 10.0]), np.full(3, 5.0))
        np.testing.assert_array_equal(np.isnan(served.done_s), [False, True, False])
        assert served.done_s[0] == served.done_s[2]

    def test_an_arrival_is_noticed_when_the_step_ends(self) -> None:
        speed = dataclasses.replace(SPEED, sequence_s=0.0, context_s=0.0)
        arrival_s = np.array([0.0, 0.03 + 2.5 * 0.02])
        served = serve(speed, arrival_s, np.full(2, 10.0), np.array([100.0, 1.0]))
        assert served.first_s[1] == pytest.approx(0.03 + 3 * 0.02 + 0.03)
        assert served.done_s[0] == pytest.approx(0.03 + 99 * 0.02 + 0.03)  # it stood still for the prefill


class TestQueues:
    """With one sequence at a time the replica is a server with one slot."""

    SPEED = dataclasses.replace(SPEED, max_batch=1)

    def test_equal_gaps_below_saturation_wait_for_nothing(self) -> None:
        hold_s = SPEED.prefill_s(200) + decode_s(SPEED, 200, 50)
        arrival_s = np.arange(200) * hold_s * 1.001
        served = serve(self.SPEED, arrival_s, np.full(200, 200.0), np.full(200, 50.0))
        np.testing.assert_allclose(served.done_s - arrival_s, hold_s, rtol=1e-9)

    def test_waits_are_those_of_lindley(self) -> None:
        rng = np.random.default_rng(1)
        arrival_s = poisson_arrivals(400, rate_per_s=0.5, rng=rng)
        prompt, answer = rng.integers(1, 2000, 400), rng.integers(1, 120, 400)
        hold_s = np.array(
            [SPEED.prefill_s(int(p)) + decode_s(SPEED, p, a) for p, a in zip(prompt, answer, strict=True)]
        )
        served = serve(self.SPEED, arrival_s, prompt.astype(float), answer.astype(float))
        expected_s = arrival_s + waiting_times(arrival_s, hold_s, servers=1) + hold_s
        np.testing.assert_allclose(served.done_s, expected_s, rtol=1e-9)

    def test_mean_wait_of_m_d_1(self) -> None:
        """Pollaczek-Khinchine: E[W] = rho S / (2 (1 - rho))."""
        n, rho = 400_000, 0.7
        hold_s = SPEED.prefill_s(200) + decode_s(SPEED, 200, 50)
        arrival_s = poisson_arrivals(n, rate_per_s=rho / hold_s, rng=np.random.default_rng(7))
        served = serve(self.SPEED, arrival_s, np.full(n, 200.0), np.full(n, 50.0))
        wait_s = served.done_s - hold_s - arrival_s
        blocks = wait_s.reshape(100, -1).mean(axis=1)
        assert wait_s.mean() == pytest.approx(rho * hold_s / (2 * (1 - rho)), abs=4 * blocks.std() / 10)
        assert 4 * blocks.std() / 10 < 0.1 * wait_s.mean()

    @pytest.mark.parametrize("max_batch", [1, 16])
    def test_the_same_requests_in_less_time_are_done_later(self, max_batch: int) -> None:
        speed = dataclasses.replace(SPEED, max_batch=max_batch)
        rng = np.random.default_rng(3)
        unit_s = poisson_arrivals(3000, rate_per_s=1.0, rng=rng)
        prompt, answer = rng.integers(1, 900, 3000).astype(float), rng.integers(1, 300, 3000).astype(float)
        rates = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)
        waits = [(serve(speed, unit_s / r, prompt, answer).done_s - unit_s / r).mean() for r in rates]
        assert waits == sorted(waits) and waits[-1] > 3 * waits[0]


class TestPipeline:
    def test_a_full_pipeline_works_on_all_stages_at_once(self) -> None:
        """16 sequences on 4 stages: the base once, the terms of 4 sequences."""
        piped = dataclasses.replace(SPEED, stages=4)
        assert piped.step_s(16, 1600) == pytest.approx(SPEED.step_s(4, 400))
        assert piped.step_s(1, 100) == pytest.approx(SPEED.step_s(1, 100))

    def test_prefill_fills_and_drains(self) -> None:
        piped = dataclasses.replace(SPEED, stages=4, prefill_floor_s=0.0)
        whole_s = SPEED.prefill_s(900)
        assert piped.prefill_s(900) == pytest.approx(whole_s)
        assert piped.prefill_s(*[900] * 8) == pytest.approx(whole_s * (8 + 3) / 4)
        assert piped.prefill_s(900, 1) > whole_s


@pytest.mark.parametrize(
    ("arrival_s", "lengths", "said"),
    [
        ([1.0, 0.0], [1.0, 1.0], "should not decrease"),
        ([0.0, 1.0], [1.0], "per request; got shapes"),
        ([0.0, 1.0], [1.0, float("nan")], "missing or infinite"),
    ],
)
def test_bad_input_is_one_sentence(arrival_s, lengths, said) -> None:
    with pytest.raises(InputDataError, match=said):
        serve(SPEED, np.array(arrival_s), np.array(lengths), np.array(lengths))


def test_no_requests() -> None:
    assert len(serve(SPEED, np.zeros(0), np.zeros(0), np.zeros(0)).done_s) == 0
