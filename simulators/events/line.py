"""Waiting lines: one list per station in order of arrival, one per tier in the order in which clients give up.

As `heap.py`, compiled into the kernel: an edit here needs one there, or a new `__pycache__`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from simulators.events.arrays import Records
from simulators.events.heap import CUT, NONE, code_of

Record = Any


@njit(cache=True)
def join(jobs: Records, i: int, line: Record, ends: Record, rule: Record) -> None:
    """To the end of the line."""
    tail = line["tail"]
    jobs[i]["line_next"], jobs[i]["line_before"], line["tail"] = NONE, tail, i
    if tail == NONE:
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
    job, before, after = jobs[i], ends["tail"], NONE
    while before != NONE:
        other = jobs[before]
        if other["began_s"] < job["began_s"] or other["request"] < job["request"]:
            break
        before, after = other["patience_before"], before
    job["patience_before"], job["patience_next"] = before, after
    if before == NONE:
        _set_first(jobs, i, ends, timeout_s)
    else:
        jobs[before]["patience_next"] = i
    if after == NONE:
        ends["tail"] = i
    else:
        jobs[after]["patience_before"] = i


@njit(cache=True)
def leave(jobs: Records, i: int, line: Record, ends: Record, rule: Record) -> None:
    """Out of the line, to be served or not."""
    before, after = jobs[i]["line_before"], jobs[i]["line_next"]
    if before == NONE:
        line["head"] = after
    else:
        jobs[before]["line_next"] = after
    if after == NONE:
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
    if before == NONE:
        _set_first(jobs, after, ends, timeout_s)
    else:
        jobs[before]["patience_next"] = after
    if after == NONE:
        ends["tail"] = before
    else:
        jobs[after]["patience_before"] = before


@njit(cache=True)
def _set_first(jobs: Records, i: int, ends: Record, timeout_s: float) -> None:
    """Who gives up first: a job, or nobody."""
    ends["head"] = i
    if i == NONE:
        ends["at_s"] = np.inf
    else:
        ends["at_s"], ends["code"] = jobs[i]["began_s"] + timeout_s, code_of(CUT, jobs[i]["request"], i)
