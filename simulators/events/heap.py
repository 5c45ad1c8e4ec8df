"""A binary heap of events: an instant and a code that sorts simultaneous ones.

Numba caches the kernel with these functions inside and looks at the kernel's file only: who edits this one touches that
one too, or deletes `__pycache__`.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from simulators.events.arrays import Records

Record = Any

NONE = -1
END, CUT, TRY, GIVE_UP = range(4)  # service ends; client gives up in service; attempt; client gives up in line
JOB_BITS, REQUEST_BITS = 30, 31


@njit(cache=True)
def code_of(kind: int, request: int, job: int) -> int:
    """Kind, request below 2^31 and job below 2^30 as one integer that sorts by them in turn."""
    return (kind << (JOB_BITS + REQUEST_BITS)) | (request << JOB_BITS) | job


@njit(cache=True)
def before(at_s: float, code: int, other_s: float, other: int) -> bool:
    """Whether the first event comes before the second."""
    return at_s < other_s or (at_s == other_s and code < other)


@njit(cache=True)
def plan(events: Records, clock: Record, at_s: float, kind: int, request: int, i: int) -> None:
    """Add an event to the heap."""
    at = clock["events"]
    clock["events"] = at + 1
    _rise(events, at, at_s, code_of(kind, request, i))


@njit(cache=True)
def drop_first(events: Records, clock: Record) -> None:
    """Remove the earliest event: the gap sinks to the bottom, takes the last event and rises with it.

    The last event belongs near the bottom, so comparing it on the way down would seldom end the way. The choice between
    two children is arithmetic and no branch, as nobody can predict it.
    """
    last, at = clock["events"] - 1, 0
    clock["events"] = last
    while 2 * at + 2 < last:
        down = 2 * at + 1
        a, b = events[down], events[down + 1]
        if a["at_s"] == b["at_s"]:
            down += b["code"] < a["code"]
        else:
            down += b["at_s"] < a["at_s"]
        events[at]["at_s"], events[at]["code"] = events[down]["at_s"], events[down]["code"]
        at = down
    if 2 * at + 1 < last:
        events[at]["at_s"], events[at]["code"] = events[2 * at + 1]["at_s"], events[2 * at + 1]["code"]
        at = 2 * at + 1
    _rise(events, at, events[last]["at_s"], events[last]["code"])


@njit(cache=True)
def _rise(events: Records, at: int, at_s: float, code: int) -> None:
    """Put an event into the gap `at` or above."""
    while at > 0:
        up = (at - 1) >> 1
        if before(events[up]["at_s"], events[up]["code"], at_s, code):
            break
        events[at]["at_s"], events[at]["code"] = events[up]["at_s"], events[up]["code"]
        at = up
    events[at]["at_s"], events[at]["code"] = at_s, code
