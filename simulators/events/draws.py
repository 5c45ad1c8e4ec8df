"""Random numbers that depend on what they are for and not on the order in which they are asked for."""

from __future__ import annotations

_MASK, _GOLDEN = 2**64 - 1, 0x9E3779B97F4A7C15


def uniform(seed: int, request: int, attempt: int) -> float:
    """The draw in [0, 1) of one attempt (the first has number 1): SplitMix64 of the three numbers in turn."""
    return (mixed(mixed(mixed(0, seed), request), attempt) >> 11) * 2.0**-53


def mixed(state: int, number: int) -> int:
    """The next 64 bits."""
    state = (state + (number + 1) * _GOLDEN) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)
