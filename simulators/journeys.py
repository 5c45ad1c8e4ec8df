"""What became of every request: the common output of both queueing kernels.

Notation: n candidates (routings), R requests, J stations, N rows and K tiers of the outcome table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.outcomes import FloatArray, IntArray
from simulators.world import SERVED, World

PENDING = -1
"""`reason` of a request that is still under way, where a simulation was stopped before its end."""


@dataclass(frozen=True, kw_only=True)
class Journeys:
    """All requests of all candidates in one world; about 29 bytes per candidate and request.

    Attributes:
        e2e_s: `n x R` from `arrival_s` to the whole answer, seconds; of failed ones, until the client knew.
        ttft_s: `n x R` from `arrival_s` to the first visible token; NaN where the request failed.
        served: `n x R` int8, the tier that answered (the first one of two stages), -1 where none did.
        cost_usd: `n x R` billed for all attempts and stages.
        attempts: `n x R` int16, refused ones and second stages included; 0 where the router failed.
        reason: `n x R` int8 of `simulators.world`: `SERVED`, or why the last attempt of a failed request failed.
        tier: `n x R` int8, the tier each request was sent to first, -1 where there was none.
        busy_s: `n x J` slot seconds that answers held, whole or cut off.
        outcomes: `n x J x 7` attempts by reason.
        longest_line: `n x J` most attempts that waited at once.
        checked: `n x R`, False where an answer that went out at once was to be checked by a second stage that was never
            served.
    """

    e2e_s: FloatArray
    ttft_s: FloatArray
    served: NDArray[np.int8]
    cost_usd: FloatArray
    attempts: NDArray[np.int16]
    reason: NDArray[np.int8]
    tier: NDArray[np.int8]
    busy_s: FloatArray
    outcomes: IntArray
    longest_line: IntArray
    checked: NDArray[np.bool_]

    @property
    def failed(self) -> NDArray[np.bool_]:
        """`n x R`: nobody answered."""
        return np.asarray(self.reason != SERVED)

    @property
    def fell_back(self) -> NDArray[np.bool_]:
        """`n x R`: another tier answered than the first one asked."""
        return np.asarray((self.served >= 0) & (self.served != self.tier))

    def quality(self, table_quality: FloatArray, row: IntArray, unchecked: FloatArray | None = None) -> FloatArray:
        """`n x R` quality that the clients saw: that of the tier in `served`, 0 where none answered.

        Args:
            table_quality: `N x K` in [0, 1], of both stages where there are two.
            row: `R` rows of the table.
            unchecked: `N x K` without the check that `checked` is about; None: a check corrects nothing.
        """
        tier = np.maximum(self.served, 0)
        found = table_quality[row, tier]
        if unchecked is not None:
            found = np.where(self.checked, found, unchecked[row, tier])
        found[self.served < 0] = 0.0
        return found

    def utilisation(self, world: World) -> FloatArray:
        """`n x J` share of the slots' time up to `duration_s` that answers held; NaN without a limit of slots.

        Over 1 means that work was left when the arrivals ended.
        """
        slots = np.array([station.slots or np.nan for station in world.stations])
        return self.busy_s / (slots * world.duration_s)
