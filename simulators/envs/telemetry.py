"""What a production router can see of its traffic: counts of the last window, and the observation made of them.

Nothing here looks at requests that are still to come, or at the quality of an answer that nobody has labelled.

Notation: n candidates, K tiers, J stations, c limits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulators.outcomes import FloatArray, IntArray
from simulators.world import SERVED

_DAY_S = 86_400.0
_RECENT = 0.6  # what a window still counts in the next one
_SLOW = 0.9  # the same in the slow average of the arrival rate
_SOME = 10.0  # requests that fill half a scale without a limit of its own


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """The last window as a router saw it, requests of the warm-up included; zeros before the first one.

    Attributes:
        at_s: Its end, which is now.
        window_s: Its length.
        arrived: Requests that reached the tiers in it.
        slots: `J`, 0 where there is no limit.
        held, waiting: `n x J` busy slots and attempts in line, now.
        outcomes: `n x J x 7` attempts by reason (`simulators.world.REASONS`) that ended in it.
        sent: `n x K` of the arrived requests, by tier.
        ended, late, failed: `n x K` requests that ended in it, by the tier they were sent to first; late ones are over
            the latency limit or failed.
        latency_s: `n x K` sum over the answered ones of those.
        labels: `n x K` quality labels that came in, by the tier that answered.
        label_quality: `n x K` sum of them.
    """

    at_s: float
    window_s: float
    arrived: int
    slots: IntArray
    held: IntArray
    waiting: IntArray
    outcomes: IntArray
    sent: IntArray
    ended: IntArray
    late: IntArray
    failed: IntArray
    latency_s: FloatArray
    labels: IntArray
    label_quality: FloatArray


def silence(n: int, n_tiers: int, slots: IntArray) -> Telemetry:
    """What there is to see before the first window."""
    by_tier, by_station = np.zeros((n, n_tiers), dtype=np.int64), np.zeros((n, len(slots)), dtype=np.int64)
    return Telemetry(
        at_s=0.0,
        window_s=0.0,
        arrived=0,
        slots=slots,
        held=by_station,
        waiting=by_station,
        outcomes=np.zeros((n, len(slots), 7), dtype=np.int64),
        sent=by_tier,
        ended=by_tier,
        late=by_tier,
        failed=by_tier,
        latency_s=by_tier.astype(np.float64),
        labels=by_tier,
        label_quality=by_tier.astype(np.float64),
    )


@dataclass(frozen=True, kw_only=True)
class Scales:
    """What "much" means.

    Attributes:
        rate_per_s: A usual arrival rate.
        latency_s: A long latency.
        clock: Whether the time of day is shown; else its entries are 0.
    """

    rate_per_s: float
    latency_s: float
    clock: bool


class Observer:
    """Telemetry of one window after another as `n x d` numbers in [-1, 1].

    A count or a time x without a natural limit becomes `x / (x + scale)`. Shares, means and volumes by tier are over
    recent windows, each counting 0.6 times what the next one does; a share of nothing is 0, and the volumes tell.

    Attributes:
        layout: Name -> columns: `rate`, `rate_slow` (1 each); `busy`, `waiting`, `refused` (J each: share of the slots,
            length of the line, share of attempts that came to nothing); `sent`, `late`, `failed`, `latency`, `ended`
            (K each: share of the requests, share late, share failed, mean latency, volume); `label_quality`,
            `labels_seen` (K each: mean of the labels, volume, 0 where none was seen); `clock` (sine and cosine);
            `action` (K-1, the last one); `context` (2 c, or none).
        size: d.
    """

    def __init__(self, n: int, n_tiers: int, n_stations: int, n_context: int, scales: Scales) -> None:
        self._scales, self._n = scales, n
        by_station, by_tier = ("busy", "waiting", "refused"), ("sent", "late", "failed", "latency", "ended")
        widths = {"rate": 1, "rate_slow": 1} | dict.fromkeys(by_station, n_stations)
        widths |= dict.fromkeys((*by_tier, "label_quality", "labels_seen"), n_tiers)
        widths |= {"clock": 2, "action": n_tiers - 1, "context": n_context}
        stops = np.cumsum([0, *widths.values()]).tolist()
        self.layout = {name: slice(a, b) for name, a, b in zip(widths, stops[:-1], stops[1:], strict=True)}
        self.size: int = stops[-1]
        self.forget()

    def forget(self) -> None:
        """Begin another episode."""
        self._recent: dict[str, FloatArray] = {}
        self._slow_rate: float | None = None

    def see(self, seen: Telemetry, action: FloatArray, context: FloatArray) -> NDArray[np.float32]:
        """`n x d` after one more window, the last `action: n x (K-1)` and `context: n x 2c`."""
        found = self._rates(seen) | self._stations(seen) | self._tiers(seen) | self._clock(seen.at_s)
        found |= {"action": action, "context": context}
        out = np.empty((self._n, self.size), dtype=np.float32)
        for name, columns in self.layout.items():
            out[:, columns] = found[name]
        return out

    def _rates(self, seen: Telemetry) -> dict[str, FloatArray]:
        rate = seen.arrived / seen.window_s if seen.window_s > 0 else self._scales.rate_per_s
        slow = rate if self._slow_rate is None else _SLOW * self._slow_rate + (1.0 - _SLOW) * rate
        self._slow_rate = slow if seen.window_s > 0 else None
        return {"rate": _filled(rate, self._scales.rate_per_s), "rate_slow": _filled(slow, self._scales.rate_per_s)}

    def _stations(self, seen: Telemetry) -> dict[str, FloatArray]:
        slots = np.maximum(seen.slots, 1)
        attempts = self._smooth("attempts", seen.outcomes.sum(axis=2))
        in_vain = self._smooth("in_vain", seen.outcomes.sum(axis=2) - seen.outcomes[:, :, SERVED])
        busy = np.where(seen.slots > 0, seen.held / slots, _filled(seen.held, _SOME))
        return {"busy": busy, "waiting": _filled(seen.waiting, _SOME), "refused": _share(in_vain, attempts)}

    def _tiers(self, seen: Telemetry) -> dict[str, FloatArray]:
        names = ("sent", "ended", "late", "failed", "latency_s", "labels", "label_quality")
        recent = {name: self._smooth(name, getattr(seen, name)) for name in names}
        ended = recent["ended"]
        latency_s = _share(recent["latency_s"], ended - recent["failed"])
        return {
            "sent": _share(recent["sent"], recent["sent"].sum(axis=1, keepdims=True)),
            "late": _share(recent["late"], ended),
            "failed": _share(recent["failed"], ended),
            "latency": _filled(latency_s, self._scales.latency_s),
            "ended": _filled(ended, _SOME),
            "label_quality": _share(recent["label_quality"], recent["labels"]),
            "labels_seen": _filled(recent["labels"], _SOME),
        }

    def _clock(self, at_s: float) -> dict[str, FloatArray]:
        angle = 2.0 * np.pi * at_s / _DAY_S
        return {"clock": np.array([np.sin(angle), np.cos(angle)]) if self._scales.clock else np.zeros(2)}

    def _smooth(self, name: str, values: FloatArray | IntArray) -> FloatArray:
        before = self._recent.get(name)
        now = np.asarray(values, dtype=np.float64) if before is None else _RECENT * before + values
        self._recent[name] = now
        return now


def _filled(x: FloatArray | IntArray | float, scale: float) -> FloatArray:
    return np.asarray(x / (x + scale))


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    """`part / whole`, 0 of nothing; what lasted for long fades to nothing too."""
    known = whole > 1e-9
    return np.where(known, part / np.where(known, whole, 1.0), 0.0)
