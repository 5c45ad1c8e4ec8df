r"""Pacing and a queue-priced index: rules that steer by one multiplier, or by a price on waiting.

Notation: n settings, m requests of a window, K tiers, J stations; $\bar x$ an exponential moving average over windows.

Pacing, as in ParetoBandit: $\lambda \leftarrow \mathrm{clip}(\lambda + 0.05\,(\bar x / X - 1), 0, 5)$ with X the target
of x. The multiplier takes traffic from the dearer tiers: the share above each cut shrinks by $e^{-s \lambda}$. (There
it is the price of cost in a utility, which does not see load.)

Index: $\arg\max_k\; p_k - \lambda c_k - \nu w_k$ with predicted quality p and cost c and the expected wait w at the
tier's station.

ParetoBandit is arXiv 2604.00136, which states the rule and its constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from simulators.envs.telemetry import Telemetry
from simulators.envs.windows import Coming
from simulators.outcomes import FloatArray, IntArray
from toolkit.baselines.windows import Decide, Episode, Known, Tiers, expected_wait_s, tiers_of

STEP, FORGET, MOST = 0.05, 0.05, 5.0
_LEAST_HOLD_S = 1e-9  # of a station that no tier uses, so that nothing is divided by 0


class Pacer:
    """The multipliers of n settings.

    Args:
        target: `n` targets X, positive.
    """

    def __init__(self, target: FloatArray) -> None:
        self._target, self._average = target, np.full(len(target), np.nan)
        self.multiplier = np.zeros(len(target))

    def update(self, x: FloatArray) -> None:
        """One window's `x: n`; NaN (nothing seen) leaves a setting as it is."""
        known = np.isfinite(x)
        first = known & np.isnan(self._average)
        moved = np.where(first, x, self._average + FORGET * (x - self._average))
        self._average = np.where(known, moved, self._average)
        step = STEP * (self._average / self._target - 1.0)
        self.multiplier = np.where(known, np.clip(self.multiplier + step, 0.0, MOST), self.multiplier)


@dataclass(frozen=True, kw_only=True)
class Pacing:
    """Cuts that give way while a signal is above its target.

    Attributes:
        cuts: `n x (K-1)` where nothing presses.
        target: `n` targets X in the signal's unit.
        shift: `n` rates s at which the multiplier takes traffic from the dearer tiers.
        signal: `cost`: predicted USD per query of what was sent in the last window; `late`: share of what ended in it
            that was late or failed; `wait`: the longest expected wait at a station now, seconds.
        hold_s: `J` mean hold of a request at each station.
        window_s: How often the multiplier moves.
    """

    cuts: FloatArray
    target: FloatArray
    shift: FloatArray
    signal: Literal["cost", "late", "wait"]
    hold_s: FloatArray
    window_s: float

    @property
    def n(self) -> int:
        """See `Rule`."""
        return len(self.cuts)

    def begin(self, episode: Episode) -> Decide:
        """See `Rule`."""
        pacer, known = Pacer(self.target), episode.known
        spent_usd = np.full(self.n, np.nan)

        def decide(telemetry: Telemetry, coming: Coming) -> Tiers:
            nonlocal spent_usd
            pacer.update(spent_usd if self.signal == "cost" else self._seen(episode, telemetry))
            taken = -np.expm1(-self.shift * pacer.multiplier)[:, None]
            tier = tiers_of(self.cuts + (1.0 - self.cuts) * taken, known.rank[coming.row])
            spent_usd = known.cost_usd[coming.row, tier].mean(axis=1) if len(coming.row) else np.full(self.n, np.nan)
            return tier

        return decide

    def _seen(self, episode: Episode, telemetry: Telemetry) -> FloatArray:
        if self.signal == "wait":
            return np.asarray(expected_wait_s(episode, telemetry, self.hold_s).max(axis=1))
        late, ended = telemetry.late.sum(axis=1), telemetry.ended.sum(axis=1)
        return np.asarray(np.divide(late, ended, out=np.full(self.n, np.nan), where=ended > 0))


@dataclass(frozen=True, kw_only=True)
class IndexRule:
    """Each request to the tier of the largest index, one after the other.

    Queues are those at the start of the window, plus what the rule has sent since, minus what must have ended since.
    Refusals are not looked at: a station that refuses everybody has no queue and looks free.

    Attributes:
        usd_price: `n` prices of cost, quality per USD.
        wait_price: `n` prices of waiting, quality per second.
        hold_s: `J` mean hold of a request at each station.
    """

    usd_price: FloatArray
    wait_price: FloatArray
    hold_s: FloatArray
    window_s: float

    @property
    def n(self) -> int:
        """See `Rule`."""
        return len(self.usd_price)

    def begin(self, episode: Episode) -> Decide:
        """See `Rule`."""
        known, station, slots = episode.known, episode.station, episode.slots
        every, per_request, hold_s = np.arange(self.n), self.hold_s / slots, np.maximum(self.hold_s, _LEAST_HOLD_S)

        def decide(telemetry: Telemetry, coming: Coming) -> Tiers:
            here, now_s = (telemetry.waiting + telemetry.held).astype(np.float64), telemetry.at_s
            worth = known.quality[coming.row] - self.usd_price[:, None, None] * known.cost_usd[coming.row]
            tier = np.empty((self.n, len(coming.row)), dtype=np.int8)
            for i, ready_s in enumerate(coming.ready_s.tolist()):
                here = np.maximum(here - max(ready_s - now_s, 0.0) * np.minimum(here, slots) / hold_s, 0.0)
                now_s = max(ready_s, now_s)
                wait_s = np.maximum(here - slots + 1.0, 0.0) * per_request
                chosen = (worth[:, i] - self.wait_price[:, None] * wait_s[:, station]).argmax(axis=1)
                tier[:, i] = chosen
                here[every, station[chosen]] += 1.0
            return tier

        return decide


def station_holds(known: Known, station: IntArray, n_stations: int) -> FloatArray:
    """`J` mean predicted hold of a query at each station: over all queries and its tiers; 0 where there are none."""
    per_tier = known.hold_s.mean(axis=0)
    total = np.bincount(station, weights=per_tier, minlength=n_stations)
    return np.asarray(total / np.maximum(np.bincount(station, minlength=n_stations), 1))
