"""Sums over requests that ended, from which every share and mean of an episode follows.

Notation: n candidates (n first in every shape), K tiers, S slices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from simulators.outcomes import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Sums over the counted requests that ended in some windows; sums of several windows add up.

    Attributes:
        requests: `n x S` by slice.
        late: `n x S`, over the latency limit or failed.
        failed: `n x S`, nobody answered.
        quality: `n x S` sum of the quality that the clients saw, 0 of a failed one.
        cost_usd: `n x S`, billed, with the router's own money and the fixed price of capacity.
        latency_s: `n` sum over the answered ones.
        reasons: `n x 7`, by `simulators.world.REASONS`.
        sent: `n x K`, by the tier that was asked first.
    """

    requests: IntArray
    late: IntArray
    failed: IntArray
    quality: FloatArray
    cost_usd: FloatArray
    latency_s: FloatArray
    reasons: IntArray
    sent: IntArray

    def __add__(self, other: Figures) -> Figures:
        return Figures(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Figures)})

    @property
    def total_requests(self) -> IntArray:
        """`n`."""
        return np.asarray(self.requests.sum(axis=1))

    @property
    def wrong(self) -> FloatArray:
        """`n x S` wrong answers: what is missing to full quality."""
        return self.requests - self.quality

    @property
    def share_late(self) -> FloatArray:
        """`n`; NaN where no request has ended."""
        return ratio(self.late.sum(axis=1), self.total_requests)

    @property
    def share_wrong(self) -> FloatArray:
        """`n`."""
        return ratio(self.wrong.sum(axis=1), self.total_requests)

    @property
    def share_failed(self) -> FloatArray:
        """`n`."""
        return ratio(self.failed.sum(axis=1), self.total_requests)

    @property
    def mean_quality(self) -> FloatArray:
        """`n`."""
        return ratio(self.quality.sum(axis=1), self.total_requests)

    @property
    def mean_latency_s(self) -> FloatArray:
        """`n`, of the answered requests."""
        return ratio(self.latency_s, (self.requests - self.failed).sum(axis=1))

    @property
    def cost_per_query_usd(self) -> FloatArray:
        """`n`."""
        return ratio(self.cost_usd.sum(axis=1), self.total_requests)

    def slice_share(self, kind: str, code: int) -> FloatArray:
        """`n` shares of `late`, `wrong` or `failed` requests of one slice."""
        return ratio(getattr(self, kind)[:, code], self.requests[:, code])


def ratio(part: FloatArray | IntArray, whole: FloatArray | IntArray) -> FloatArray:
    """`part / whole`, NaN of nothing."""
    return np.asarray(np.where(whole > 0, part / np.maximum(whole, 1), np.nan))


def count_by(code: IntArray, shape: tuple[int, ...]) -> IntArray:
    """How often each flat index of an array of this shape comes in `code`."""
    return np.asarray(np.bincount(code, minlength=math.prod(shape)), dtype=np.int64).reshape(shape)


def sum_by(code: IntArray, values: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """The sum of the values of each flat index."""
    return np.asarray(np.bincount(code, values, minlength=math.prod(shape)), dtype=np.float64).reshape(shape)
