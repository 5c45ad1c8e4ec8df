"""The life of a request as `simulators/world.py` tells it, compiled; a call takes a range of candidates.

Arrivals come from the sorted stream, so the heap holds only what is being served and what waits for a retry. An answer
that will be cut off has its timeout on the heap instead of its end. Attempts that wait in line give up in the order in
which they began, tier by tier, so their timeouts need lists and no heap.

Functions take records (pointers) rather than arrays where they can: arrays as arguments are slow to pass on, and
counting references to them would make the threads wait for each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from simulators.events.arrays import Records, Results, Under, WorldArrays
from simulators.events.heap import (
    CUT,
    END,
    GIVE_UP,
    JOB_BITS,
    NONE,
    REQUEST_BITS,
    TRY,
    before,
    code_of,
    drop_first,
    plan,
)
from simulators.events.line import join, leave
from simulators.outcomes import FloatArray
from simulators.world import ERROR, FULL, LIMIT, OUTAGE, ROUTER, SERVED, TIMEOUT

Record = Any

_ONLY, _SECOND, _CHECK = range(3)  # stages: a first one; one the client waits for; one it does not
_AHEAD = 32
_LATEST = np.iinfo(np.int64).max


@njit(cache=True, nogil=True)
def advance(
    w: WorldArrays,
    u: Under,
    out: Results,
    tier: NDArray[np.int8],
    offset: int,
    until_s: float,
    candidates: tuple[int, int],
) -> bool:
    """Process all events before `until_s`, in place; the requests of `tier: n x m` are those from `offset` on.

    Args:
        w, u, out, tier, offset, until_s: As above.
        candidates: The first, and the one after the last.

    Returns:
        Whether one stopped before its next arrival, as there was no place for another job.
    """
    stopped = False
    for c in range(candidates[0], candidates[1]):
        stopped |= _run(w, u, out, c, tier[c], offset, until_s)
    return stopped


@njit(cache=True)
def _run(w: WorldArrays, u: Under, out: Results, c: int, tier: NDArray[np.int8], offset: int, until_s: float) -> bool:
    requests, rules, stations, answers, outages = w.requests, w.rules, w.stations, w.answers, w.outages
    clock, jobs, events, lines, patience = u.clock[c], u.jobs[c], u.events[c], u.lines[c], u.patience[c]
    outcomes, n_known = u.outcomes[c], offset + len(tier)
    while True:
        now, code, kind = _earliest(events[0], clock["events"], patience)
        r = clock["arrived"]
        if r < n_known and before(requests[r]["ready_s"], code_of(TRY, r, 0), now, code):
            now, kind = requests[r]["ready_s"], TRY
            if now >= until_s:
                return False
            if clock["free"] == NONE and clock["jobs"] == len(jobs):
                return True
            clock["arrived"] = r + 1
            if r >= clock["fetched"]:
                clock["fetched"] = min(r + _AHEAD, n_known)
                clock["sum"] = _fetch(requests, answers, tier, offset, r, clock["fetched"])
            k = tier[r - offset]
            if k < 0:
                _lose(out, c, r, now - requests[r]["arrival_s"], clock)
                continue
            i = _place(jobs, clock)
            _open(jobs[i], r, requests[r]["row"], k, rules[k])
        else:
            if now >= until_s:
                return False
            i = code & ((1 << JOB_BITS) - 1)
            if kind != GIVE_UP:
                drop_first(events, clock)
        job = jobs[i]
        rule, answer, request = rules[job["tier"]], answers[job["row"], job["tier"]], requests[job["request"]]
        line, station = lines[rule["station"]], stations[rule["station"]]
        reason, over = SERVED, False
        if kind == TRY:
            reason = _refusal(job, line, station, outages, answer["tokens"], now)
            if reason == SERVED:
                if station["slots"] == 0 or line["held"] < station["slots"]:
                    _begin(job, i, rule, line, station, answer["hold_s"], events, clock, w.seed, now)
                else:
                    join(jobs, i, line, patience[job["tier"]], rule)
        elif kind == GIVE_UP:
            leave(jobs, i, line, patience[job["tier"]], rule)
            reason = TIMEOUT
        else:
            reason = _end(job, line, answer["cost_usd"], kind, now)
            outcomes[rule["station"], SERVED] += reason == SERVED
            if reason == SERVED:
                over = _answered(job, i, rules, rule, answer, request["arrival_s"], events, clock, now)
        if reason != SERVED:
            outcomes[rule["station"], reason] += 1
            over = _go_on(job, i, rules, rule, request["arrival_s"], events, clock, now)
        if over:
            _close(out, c, job, reason, clock, i)
        if kind in (END, CUT):
            while line["head"] != NONE and line["held"] < station["slots"]:  # the slot goes on to those who wait
                i = line["head"]
                job = jobs[i]
                rule = rules[job["tier"]]
                leave(jobs, i, line, patience[job["tier"]], rule)
                if _down(line, outages, now):
                    outcomes[rule["station"], OUTAGE] += 1
                    arrival_s = requests[job["request"]]["arrival_s"]
                    if _go_on(job, i, rules, rule, arrival_s, events, clock, now):
                        _close(out, c, job, OUTAGE, clock, i)
                else:
                    hold_s = answers[job["row"], job["tier"]]["hold_s"]
                    _begin(job, i, rule, line, station, hold_s, events, clock, w.seed, now)


@njit(cache=True, inline="always")
def _earliest(first: Record, n_events: int, patience: Records) -> tuple[float, int, int]:
    """Instant, code and kind of the earliest event but for arrivals."""
    now, code, kind = np.inf, _LATEST, END
    if n_events > 0:
        now, code = first["at_s"], first["code"]
        kind = code >> (JOB_BITS + REQUEST_BITS)
    for k in range(len(patience)):
        if before(patience[k]["at_s"], patience[k]["code"], now, code):
            now, code, kind = patience[k]["at_s"], patience[k]["code"], GIVE_UP
    return now, code, kind


# --- from arrival to service ------------------------------------------------------------------------------------------


@njit(cache=True)
def _place(jobs: Records, clock: Record) -> int:
    """A free place for a job."""
    i = clock["free"]
    if i == NONE:
        i = clock["jobs"]
        clock["jobs"] = i + 1
    else:
        clock["free"] = jobs[i]["line_next"]
    return int(i)


@njit(cache=True)
def _fetch(requests: Records, answers: Records, tier: NDArray[np.int8], offset: int, start: int, stop: int) -> float:
    """Bring the next answers into the cache at once: one by one, waiting for memory would take half the time."""
    total = 0.0
    for r in range(start, stop):
        answer = answers[requests[r]["row"], max(tier[r - offset], 0)]
        total += answer["hold_s"] + answer["cost_usd"]
    return total


@njit(cache=True)
def _open(job: Record, r: int, row: int, tier: int, rule: Record) -> None:
    job["request"], job["row"], job["tier"], job["tried"] = r, row, tier, 1 << tier
    job["served"], job["stage"], job["share"] = NONE, _ONLY, 1.0
    job["attempts"], job["retries"], job["pause_s"] = 0, 0, rule["backoff_s"]
    job["cost_usd"], job["ttft_s"] = 0.0, np.nan


@njit(cache=True)
def _refusal(job: Record, line: Record, station: Record, outages: FloatArray, tokens: float, now: float) -> int:
    """Why the station does not take the attempt; `SERVED` where it does."""
    job["attempts"] += 1
    job["began_s"] = now
    if _down(line, outages, now):
        return OUTAGE
    tokens *= job["share"]
    if station["request_limit"] < np.inf:
        filled = line["request_level"] + (now - line["request_seen"]) * station["request_rate"]
        line["request_level"], line["request_seen"] = min(station["request_limit"], filled), now
    if station["token_limit"] < np.inf:
        filled = line["token_level"] + (now - line["token_seen"]) * station["token_rate"]
        line["token_level"], line["token_seen"] = min(station["token_limit"], filled), now
        if line["token_level"] < tokens:
            return LIMIT
        line["token_level"] -= 0.0 if line["request_level"] < 1.0 else tokens
    if line["request_level"] < 1.0:
        return LIMIT
    line["request_level"] -= 1.0
    if 0 < station["slots"] <= line["held"] and line["waiting"] >= station["buffer"]:
        return FULL
    return SERVED


@njit(cache=True)
def _down(line: Record, outages: FloatArray, now: float) -> bool:
    """Whether the station is in an outage."""
    at, stop = line["outage"], line["outage_stop"]
    while at < stop and outages[at, 1] <= now:
        at += 1
    line["outage"] = at
    return bool(at < stop and outages[at, 0] <= now)


@njit(cache=True)
def _begin(
    job: Record,
    i: int,
    rule: Record,
    line: Record,
    station: Record,
    hold_s: float,
    events: Records,
    clock: Record,
    seed: np.uint64,
    now: float,
) -> None:
    others = station["slots"] - 1
    chance = station["error_rate"] + station["error_rise"] * (line["held"] / others if others > 0 else 0.0)
    job["error"] = chance > 0.0 and _uniform(seed, job["request"], job["attempts"]) < chance
    line["held"] += 1
    job["start_s"], job["hold_s"] = now, hold_s * job["share"]
    end_s, patience_s = now + job["hold_s"], job["began_s"] + rule["timeout_s"]
    kind = END if end_s <= patience_s else CUT
    plan(events, clock, min(end_s, patience_s), kind, job["request"], i)


@njit(cache=True)
def _uniform(seed: np.uint64, request: int, attempt: int) -> float:
    """See `simulators.events.draws.uniform`; the seed has gone through its first round."""
    mixed = seed
    for number in (np.uint64(request), np.uint64(attempt)):
        mixed = mixed + (number + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return float(mixed >> np.uint64(11)) * 2.0**-53


# --- after the service ------------------------------------------------------------------------------------------------


@njit(cache=True)
def _end(job: Record, line: Record, cost_usd: float, kind: int, now: float) -> int:
    """Free the slot and bill; what came of the attempt."""
    line["held"] -= 1
    if kind == CUT:
        served_s = now - job["start_s"]
        line["busy_s"] += served_s
        job["cost_usd"] += cost_usd * job["share"] * (served_s / job["hold_s"])
        return TIMEOUT
    line["busy_s"] += job["hold_s"]
    if job["error"]:
        return ERROR
    job["cost_usd"] += cost_usd * job["share"]
    return SERVED


@njit(cache=True)
def _answered(
    job: Record,
    i: int,
    rules: Records,
    rule: Record,
    answer: Record,
    arrival_s: float,
    events: Records,
    clock: Record,
    now: float,
) -> bool:
    """Deliver the answer, or send it to the second stage; whether the request is over."""
    if job["stage"] == _CHECK:
        return True
    if job["stage"] == _ONLY:
        job["served"], job["extra_s"] = job["tier"], answer["extra_s"]
    job["e2e_s"] = now - arrival_s + job["extra_s"]
    job["ttft_s"] = job["start_s"] - arrival_s + answer["first_s"] * job["share"]
    second = rule["second"]
    if job["stage"] == _SECOND or second == NONE:
        return True
    job["stage"] = _CHECK if rule["second_async"] else _SECOND
    job["share"], job["tier"] = rule["second_share"], second
    job["retries"], job["pause_s"] = 0, rules[second]["backoff_s"]
    plan(events, clock, now, TRY, job["request"], i)
    return False


@njit(cache=True)
def _go_on(
    job: Record,
    i: int,
    rules: Records,
    rule: Record,
    arrival_s: float,
    events: Records,
    clock: Record,
    now: float,
) -> bool:
    """After an attempt that came to nothing; whether the request is over."""
    if job["retries"] < rule["retries"]:
        plan(events, clock, now + job["pause_s"], TRY, job["request"], i)
        job["retries"] += 1
        job["pause_s"] *= rule["backoff_factor"]
        return False
    if job["stage"] == _CHECK:
        return True
    fallback = rule["fallback"]
    if job["stage"] == _ONLY and fallback != NONE and not (job["tried"] >> fallback) & 1:
        job["tier"], job["tried"] = fallback, job["tried"] | (1 << fallback)
        job["retries"], job["pause_s"] = 0, rules[fallback]["backoff_s"]
        plan(events, clock, now, TRY, job["request"], i)
        return False
    job["e2e_s"], job["ttft_s"], job["served"] = now - arrival_s, np.nan, NONE
    return True


@njit(cache=True, inline="always")
def _close(out: Results, c: int, job: Record, reason: int, clock: Record, i: int) -> None:
    """The request is over, and its place free for another; `reason` is that of its last attempt."""
    r, n = job["request"], clock["ended"]
    out.e2e_s[c, r], out.ttft_s[c, r], out.cost_usd[c, r] = job["e2e_s"], job["ttft_s"], job["cost_usd"]
    out.served[c, r], out.attempts[c, r] = job["served"], job["attempts"]
    out.reason[c, r] = SERVED if job["served"] != NONE else reason
    out.checked[c, r] = job["stage"] != _CHECK or reason == SERVED
    out.ended[c, n] = r
    clock["ended"] = n + 1
    job["line_next"], clock["free"] = clock["free"], i


@njit(cache=True, inline="always")
def _lose(out: Results, c: int, r: int, e2e_s: float, clock: Record) -> None:
    """A request that the router sent nowhere."""
    out.e2e_s[c, r], out.ttft_s[c, r], out.served[c, r], out.reason[c, r] = e2e_s, np.nan, NONE, ROUTER
    out.ended[c, clock["ended"]] = r
    clock["ended"] += 1
