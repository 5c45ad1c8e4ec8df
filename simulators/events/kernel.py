"""The life of a request as `simulators/world.py` tells it, compiled; a call takes a range of candidates.

Arrivals come from the sorted stream, so the heap holds only what is being served and what waits for a retry. An answer
that will be cut off has its timeout on the heap instead of its end. Attempts that wait in line give up in the order in
which they began, tier by tier, so their timeouts need lists and no heap.

Functions take records (pointers) rather than arrays where they can: many arrays as arguments are slow to pass on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from simulators.events.arrays import Records, Results, Under, WorldArrays
from simulators.outcomes import FloatArray
from simulators.world import ERROR, FULL, LIMIT, OUTAGE, ROUTER, SERVED, TIMEOUT

Record = Any

_NONE = -1
_END, _CUT, _TRY, _GIVE_UP = range(4)  # service ends; client gives up in service; attempt; client gives up in line
_ONLY, _SECOND, _CHECK = range(3)  # stages: a first one; one the client waits for; one it does not
_JOB_BITS, _REQUEST_BITS = 30, 31
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
        if r < n_known and _before(requests[r]["ready_s"], _code(_TRY, r, 0), now, code):
            now, kind = requests[r]["ready_s"], _TRY
            if now >= until_s:
                return False
            if clock["free"] == _NONE and clock["jobs"] == len(jobs):
                return True
            clock["arrived"] = r + 1
            if r >= clock["fetched"]:
                clock["fetched"] = min(r + _AHEAD, n_known)
                clock["sum"] = _fetch(requests, answers, tier, offset, r, clock["fetched"])
            k = tier[r - offset]
            if k < 0:
                out.e2e_s[c, r] = now - requests[r]["arrival_s"]
                out.ttft_s[c, r], out.served[c, r] = np.nan, _NONE
                out.reason[c, r], out.ended[c, clock["ended"]] = ROUTER, r
                clock["ended"] += 1
                continue
            i = _place(jobs, clock)
            _open(jobs[i], r, requests[r]["row"], k, rules[k])
        else:
            if now >= until_s:
                return False
            i = code & ((1 << _JOB_BITS) - 1)
            if kind != _GIVE_UP:
                _drop_first(events, clock)
        job = jobs[i]
        rule, answer, request = rules[job["tier"]], answers[job["row"], job["tier"]], requests[job["request"]]
        line, station = lines[rule["station"]], stations[rule["station"]]
        reason, over = SERVED, False
        if kind == _TRY:
            reason = _refusal(job, line, station, outages, answer["tokens"], now)
            if reason == SERVED:
                if station["slots"] == 0 or line["held"] < station["slots"]:
                    _begin(job, i, rule, line, station, answer["hold_s"], events, clock, w.seed, now)
                else:
                    _join(jobs, i, line, patience[job["tier"]], rule)
        elif kind == _GIVE_UP:
            _leave(jobs, i, line, patience[job["tier"]], rule)
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
        if kind in (_END, _CUT):
            while line["head"] != _NONE and line["held"] < station["slots"]:
                i = line["head"]
                job = jobs[i]
                rule = rules[job["tier"]]
                _leave(jobs, i, line, patience[job["tier"]], rule)
                if _down(line, outages, now):
                    outcomes[rule["station"], OUTAGE] += 1
                    arrival_s = requests[job["request"]]["arrival_s"]
                    if _go_on(job, i, rules, rule, arrival_s, events, clock, now):
                        _close(out, c, job, OUTAGE, clock, i)
                else:
                    hold_s = answers[job["row"], job["tier"]]["hold_s"]
                    _begin(job, i, rule, line, station, hold_s, events, clock, w.seed, now)


# --- events -----------------------------------------------------------------------------------------------------------


@njit(cache=True)
def _code(kind: int, request: int, job: int) -> int:
    """Kind, request below 2^31 and job below 2^30 as one integer that sorts by them in turn."""
    return (kind << (_JOB_BITS + _REQUEST_BITS)) | (request << _JOB_BITS) | job


@njit(cache=True)
def _before(at_s: float, code: int, other_s: float, other: int) -> bool:
    return at_s < other_s or (at_s == other_s and code < other)


@njit(cache=True, inline="always")
def _earliest(first: Record, n_events: int, patience: Records) -> tuple[float, int, int]:
    """Instant, code and kind of the earliest event but for arrivals."""
    now, code, kind = np.inf, _LATEST, _END
    if n_events > 0:
        now, code = first["at_s"], first["code"]
        kind = code >> (_JOB_BITS + _REQUEST_BITS)
    for k in range(len(patience)):
        if _before(patience[k]["at_s"], patience[k]["code"], now, code):
            now, code, kind = patience[k]["at_s"], patience[k]["code"], _GIVE_UP
    return now, code, kind


@njit(cache=True)
def _plan(events: Records, clock: Record, at_s: float, kind: int, request: int, i: int) -> None:
    """Add an event to the heap."""
    at, code = clock["events"], _code(kind, request, i)
    clock["events"] = at + 1
    while at > 0:
        up = (at - 1) >> 1
        if _before(events[up]["at_s"], events[up]["code"], at_s, code):
            break
        events[at]["at_s"], events[at]["code"] = events[up]["at_s"], events[up]["code"]
        at = up
    events[at]["at_s"], events[at]["code"] = at_s, code


@njit(cache=True)
def _drop_first(events: Records, clock: Record) -> None:
    """Remove the earliest event from the heap."""
    last = clock["events"] - 1
    clock["events"] = last
    at_s, code, at = events[last]["at_s"], events[last]["code"], 0
    while True:
        down = 2 * at + 1
        if down >= last:
            break
        a, b = events[down], events[down + 1]
        if down + 1 < last and _before(b["at_s"], b["code"], a["at_s"], a["code"]):
            down, a = down + 1, b
        if _before(at_s, code, a["at_s"], a["code"]):
            break
        events[at]["at_s"], events[at]["code"] = a["at_s"], a["code"]
        at = down
    events[at]["at_s"], events[at]["code"] = at_s, code


# --- from arrival to service ------------------------------------------------------------------------------------------


@njit(cache=True)
def _place(jobs: Records, clock: Record) -> int:
    """A free place for a job."""
    i = clock["free"]
    if i == _NONE:
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
    job["served"], job["stage"], job["share"] = _NONE, _ONLY, 1.0
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
        filled = line["request_level"] + (now - line["request_seen"]) * (station["request_limit"] / 60.0)
        line["request_level"], line["request_seen"] = min(station["request_limit"], filled), now
    if station["token_limit"] < np.inf:
        filled = line["token_level"] + (now - line["token_seen"]) * (station["token_limit"] / 60.0)
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
    kind = _END if end_s <= patience_s else _CUT
    _plan(events, clock, min(end_s, patience_s), kind, job["request"], i)


@njit(cache=True)
def _uniform(seed: np.uint64, request: int, attempt: int) -> float:
    """See `simulators.events.reference.uniform`."""
    mixed = np.uint64(0)
    for number in (seed, np.uint64(request), np.uint64(attempt)):
        mixed = mixed + (number + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return float(mixed >> np.uint64(11)) * 2.0**-53


# --- waiting ----------------------------------------------------------------------------------------------------------


@njit(cache=True)
def _join(jobs: Records, i: int, line: Record, ends: Record, rule: Record) -> None:
    """To the end of the line."""
    tail = line["tail"]
    jobs[i]["line_next"], jobs[i]["line_before"], line["tail"] = _NONE, tail, i
    if tail == _NONE:
        line["head"] = i
    else:
        jobs[tail]["line_next"] = i
    line["waiting"] += 1
    line["longest"] = max(line["longest"], line["waiting"])
    if rule["timeout_s"] < np.inf:
        _enlist(jobs, i, ends, rule["timeout_s"])


@njit(cache=True)
def _enlist(jobs: Records, i: int, ends: Record, timeout_s: float) -> None:
    """Into the list of those who give up, sorted by instant and request."""
    job, before, after = jobs[i], ends["tail"], _NONE
    while before != _NONE:
        other = jobs[before]
        if other["began_s"] < job["began_s"] or other["request"] < job["request"]:
            break
        before, after = other["patience_before"], before
    job["patience_before"], job["patience_next"] = before, after
    if before == _NONE:
        _set_first(jobs, i, ends, timeout_s)
    else:
        jobs[before]["patience_next"] = i
    if after == _NONE:
        ends["tail"] = i
    else:
        jobs[after]["patience_before"] = i


@njit(cache=True)
def _leave(jobs: Records, i: int, line: Record, ends: Record, rule: Record) -> None:
    """Out of the line, to be served or not."""
    before, after = jobs[i]["line_before"], jobs[i]["line_next"]
    if before == _NONE:
        line["head"] = after
    else:
        jobs[before]["line_next"] = after
    if after == _NONE:
        line["tail"] = before
    else:
        jobs[after]["line_before"] = before
    line["waiting"] -= 1
    if rule["timeout_s"] < np.inf:
        _strike(jobs, i, ends, rule["timeout_s"])


@njit(cache=True)
def _strike(jobs: Records, i: int, ends: Record, timeout_s: float) -> None:
    """Out of the list of those who give up."""
    before, after = jobs[i]["patience_before"], jobs[i]["patience_next"]
    if before == _NONE:
        _set_first(jobs, after, ends, timeout_s)
    else:
        jobs[before]["patience_next"] = after
    if after == _NONE:
        ends["tail"] = before
    else:
        jobs[after]["patience_before"] = before


@njit(cache=True)
def _set_first(jobs: Records, i: int, ends: Record, timeout_s: float) -> None:
    """Who gives up first: a job, or nobody."""
    ends["head"] = i
    if i == _NONE:
        ends["at_s"] = np.inf
    else:
        ends["at_s"], ends["code"] = jobs[i]["began_s"] + timeout_s, _code(_CUT, jobs[i]["request"], i)


# --- after the service ------------------------------------------------------------------------------------------------


@njit(cache=True)
def _end(job: Record, line: Record, cost_usd: float, kind: int, now: float) -> int:
    """Free the slot and bill; what came of the attempt."""
    line["held"] -= 1
    if kind == _CUT:
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
    if job["stage"] == _SECOND or second == _NONE:
        return True
    job["stage"] = _CHECK if rule["second_async"] else _SECOND
    job["share"], job["tier"] = rule["second_share"], second
    job["retries"], job["pause_s"] = 0, rules[second]["backoff_s"]
    _plan(events, clock, now, _TRY, job["request"], i)
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
        _plan(events, clock, now + job["pause_s"], _TRY, job["request"], i)
        job["retries"] += 1
        job["pause_s"] *= rule["backoff_factor"]
        return False
    if job["stage"] == _CHECK:
        return True
    fallback = rule["fallback"]
    if job["stage"] == _ONLY and fallback != _NONE and not (job["tried"] >> fallback) & 1:
        job["tier"], job["tried"] = fallback, job["tried"] | (1 << fallback)
        job["retries"], job["pause_s"] = 0, rules[fallback]["backoff_s"]
        _plan(events, clock, now, _TRY, job["request"], i)
        return False
    job["e2e_s"], job["ttft_s"], job["served"] = now - arrival_s, np.nan, _NONE
    return True


@njit(cache=True, inline="always")
def _close(out: Results, c: int, job: Record, reason: int, clock: Record, i: int) -> None:
    """The request is over, and its place free for another."""
    r, n = job["request"], clock["ended"]
    out.e2e_s[c, r], out.ttft_s[c, r], out.cost_usd[c, r] = job["e2e_s"], job["ttft_s"], job["cost_usd"]
    out.served[c, r], out.attempts[c, r] = job["served"], job["attempts"]
    out.reason[c, r] = SERVED if job["served"] != _NONE else reason
    out.ended[c, n] = r
    clock["ended"] = n + 1
    job["line_next"], clock["free"] = clock["free"], i
