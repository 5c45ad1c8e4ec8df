"""One replica under load: continuous batching, first come, first served.

The engine works in iterations. Before each one, requests that have arrived are admitted in order of arrival while the
batch, the memory and the token budget of a prefill have room. If any were, their prompts are prefilled together, and
all others stand still; their first token is there when the prefill ends. Otherwise all running requests decode one
token. So a request that arrives during an iteration is noticed at its end. A request that does not fit into the
replica even alone is never served: NaN.

`serve` leaps over the decode steps between two events: as contexts grow by one token a step, k steps cost
k s + d k (k - 1) / 2. `serve_reference` walks step by step.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from simulators.deployment.performance import Speed
from simulators.errors import InputDataError
from simulators.outcomes import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True)
class Served:
    """What became of requests.

    Attributes:
        first_s: `R` instants of the first token, seconds; NaN where never served.
        done_s: `R` instants of the last token, seconds; NaN where never served.
    """

    first_s: FloatArray
    done_s: FloatArray


def serve(speed: Speed, arrival_s: FloatArray, input_tokens: FloatArray, output_tokens: FloatArray) -> Served:
    """Serve requests on one replica.

    Args:
        speed: The replica.
        arrival_s: `R` instants, seconds, not decreasing.
        input_tokens: `R` prompt lengths, at least 1; fractions are rounded up.
        output_tokens: `R` answer lengths, likewise.

    Raises:
        InputDataError: If shapes differ, arrivals decrease or a number is missing.
    """
    prompt, answer = checked(arrival_s, input_tokens, output_tokens)
    fits = prompt + answer <= speed.kv_tokens
    first_s, done_s = np.full(len(fits), np.nan), np.full(len(fits), np.nan)
    first_s[fits], done_s[fits] = _serve(
        (speed.prefill_floor_s, speed.prefill_token_s, speed.prefill_square_s),
        (speed.decode_s, speed.sequence_s, speed.context_s),
        (speed.kv_tokens, speed.max_batch, speed.prefill_tokens, speed.stages),
        np.ascontiguousarray(arrival_s[fits], dtype=np.float64),
        prompt[fits],
        answer[fits],
    )
    return Served(first_s=first_s, done_s=done_s)


def checked(arrival_s: FloatArray, input_tokens: FloatArray, output_tokens: FloatArray) -> tuple[IntArray, IntArray]:
    """Prompt and answer lengths as whole numbers.

    Raises:
        InputDataError: See `serve`.
    """
    if not arrival_s.shape == input_tokens.shape == output_tokens.shape or arrival_s.ndim != 1:
        shapes = f"{arrival_s.shape}, {input_tokens.shape}, {output_tokens.shape}"
        raise InputDataError(f"expected one arrival, input and output length per request; got shapes {shapes}")
    if not all(np.isfinite(numbers).all() for numbers in (arrival_s, input_tokens, output_tokens)):
        raise InputDataError("arrivals and lengths should be numbers; at least one is missing or infinite")
    if (np.diff(arrival_s) < 0).any():
        raise InputDataError("arrivals should not decrease; sort the requests by arrival")
    lengths = [np.maximum(np.ceil(tokens), 1.0).astype(np.int64) for tokens in (input_tokens, output_tokens)]
    return lengths[0], lengths[1]


@njit(cache=True, nogil=True)
def _serve(
    prefill: tuple[float, float, float],
    decode: tuple[float, float, float],
    limits: tuple[int, int, int, int],
    arrival_s: FloatArray,
    prompt: IntArray,
    answer: IntArray,
) -> tuple[FloatArray, FloatArray]:
    floor_s, token_s, square_s = prefill
    kv_tokens, max_batch, prefill_tokens, stages = limits
    n = len(arrival_s)
    first_s, done_s = np.empty(n), np.empty(n)
    running = [(np.int64(0), np.int64(0)) for _ in range(0)]  # (decode step after which it is done, request)
    now, head, step, reserved, context = -np.inf, 0, 0, 0, 0
    while head < n or len(running) > 0:
        if len(running) == 0 and arrival_s[head] > now:
            now = arrival_s[head]
        start, tokens, sum_s, longest_s = head, 0, 0.0, 0.0
        while head < n and arrival_s[head] <= now and len(running) < max_batch:
            need = prompt[head] + answer[head]
            if reserved + need > kv_tokens or (head > start and tokens + prompt[head] > prefill_tokens):
                break
            heapq.heappush(running, (np.int64(step + answer[head] - 1), np.int64(head)))
            reserved += need
            tokens += prompt[head]
            alone_s = token_s * prompt[head] + square_s * prompt[head] * prompt[head]
            sum_s, longest_s = sum_s + alone_s, max(longest_s, alone_s)
            head += 1
        if head > start:
            now += max(floor_s, (sum_s + (stages - 1) * longest_s) / stages)
            first_s[start:head] = now
            context += tokens + head - start
        else:
            fits = head < n and len(running) < max_batch and reserved + prompt[head] + answer[head] <= kv_tokens
            until_s = arrival_s[head] if fits else np.inf
            leap, took_s = _leap(decode, stages, len(running), context, running[0][0] - step, until_s - now)
            now += took_s
            step += leap
            context += leap * len(running)
        while len(running) > 0 and running[0][0] <= step:
            i = heapq.heappop(running)[1]
            done_s[i] = now
            reserved -= prompt[i] + answer[i]
            context -= prompt[i] + answer[i]
    return first_s, done_s


@njit(cache=True)
def _leap(
    decode: tuple[float, float, float], stages: int, batch: int, context: int, most: int, until_s: float
) -> tuple[int, float]:
    """Decode steps until `until_s` has passed, at most `most`, at least one; and the seconds they take."""
    micro = (batch + stages - 1) // stages
    share = decode[2] * (micro / batch)
    step_s, growth_s = decode[0] + decode[1] * micro + share * context, share * batch
    leap = most
    if until_s < step_s * most + growth_s * (most * (most - 1) / 2):
        b = step_s - growth_s / 2
        root = 2 * until_s / (b + math.sqrt(b * b + 2 * growth_s * until_s))  # of growth/2 k^2 + b k = until
        leap = min(max(math.ceil(root), 1), most)
        while leap < most and step_s * leap + growth_s * (leap * (leap - 1) / 2) < until_s:
            leap += 1
        while leap > 1 and step_s * (leap - 1) + growth_s * ((leap - 1) * (leap - 2) / 2) >= until_s:
            leap -= 1
    return leap, step_s * leap + growth_s * (leap * (leap - 1) / 2)


def serve_reference(speed: Speed, arrival_s: FloatArray, input_tokens: FloatArray, output_tokens: FloatArray) -> Served:
    """`serve`, iteration by iteration in plain Python; for tests."""
    prompts, answers = checked(arrival_s, input_tokens, output_tokens)
    first_s, done_s = np.full(len(prompts), np.nan), np.full(len(prompts), np.nan)
    waiting = deque(i for i in range(len(prompts)) if prompts[i] + answers[i] <= speed.kv_tokens)
    produced: dict[int, int] = {}
    now = -math.inf
    while waiting or produced:
        if not produced:
            now = max(now, float(arrival_s[waiting[0]]))
        admitted = _admit(speed, waiting, produced, arrival_s <= now, prompts, answers)
        if admitted:
            now += speed.prefill_s(*(int(prompts[i]) for i in admitted))
            first_s[admitted] = now
        else:
            now += speed.step_s(len(produced), int(sum(prompts[i] + made for i, made in produced.items())))
        for i in admitted or list(produced):
            produced[i] = produced.get(i, 0) + 1
        for i in [i for i, made in produced.items() if made == answers[i]]:
            del produced[i]
            done_s[i] = now
    return Served(first_s=first_s, done_s=done_s)


def _admit(
    speed: Speed,
    waiting: deque[int],
    produced: dict[int, int],
    arrived: NDArray[np.bool_],
    prompts: IntArray,
    answers: IntArray,
) -> list[int]:
    """Take the requests off the line that the next prefill serves."""
    admitted: list[int] = []
    free = speed.kv_tokens - int(sum(prompts[i] + answers[i] for i in produced))
    budget = speed.prefill_tokens
    while waiting and arrived[waiting[0]] and len(produced) + len(admitted) < speed.max_batch:
        need, prompt = int(prompts[waiting[0]] + answers[waiting[0]]), int(prompts[waiting[0]])
        if need > free or (admitted and prompt > budget):
            break
        admitted.append(waiting.popleft())
        free, budget = free - need, budget - prompt
    return admitted
