"""What the engine model says about one replica: times without load, requests per second and prices at full load."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulators.deployment.batching import serve
from simulators.deployment.performance import replica_speed, valid_replicas
from simulators.deployment.plan import Replica
from simulators.deployment.specs import FleetSpec
from simulators.errors import ConfigError
from simulators.outcomes import FloatArray

_ALONE_S = 10_000.0  # between two arrivals: each request finds an empty replica
_MIDDLE = (0.1, 0.9)  # of the completions: neither the fill of the batch nor its drain


@dataclass(frozen=True, kw_only=True)
class Times:
    """Without load: lognormal TTFT (median, log sd) and the median decode speed."""

    ttft_median_s: float
    ttft_sigma: float
    tokens_per_s: float


@dataclass(frozen=True, kw_only=True)
class FullLoad:
    """A replica that always has requests waiting.

    Attributes:
        replica: Which one.
        requests_per_s: Its saturation.
        input_usd_per_mtok, output_usd_per_mtok: Its GPUs' price over what it reads, and over what it writes.
    """

    replica: Replica
    requests_per_s: float
    input_usd_per_mtok: float
    output_usd_per_mtok: float

    @property
    def per_gpu(self) -> float:
        """Requests per second and GPU."""
        return self.requests_per_s / self.replica.n_gpus


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Requests of one tier.

    Attributes:
        input_tokens, output_tokens: `R`.
    """

    input_tokens: FloatArray
    output_tokens: FloatArray


def times(fleet: FleetSpec, tier: str, replica: Replica, asked: Lengths) -> Times:
    """What requests meet that come one after the other."""
    arrival_s = _ALONE_S * np.arange(len(asked.input_tokens), dtype=np.float64)
    first_s, done_s = _served(fleet, tier, replica, asked, arrival_s)
    ttft_s = first_s - arrival_s
    several = asked.output_tokens > 1
    speed = (asked.output_tokens[several] - 1) / (done_s - first_s)[several]
    return Times(
        ttft_median_s=float(np.median(ttft_s)),
        ttft_sigma=float(np.log(ttft_s).std()),
        tokens_per_s=float(np.median(speed)),
    )


def full_load(fleet: FleetSpec, tier: str, replica: Replica, asked: Lengths) -> FullLoad:
    """Saturation and token prices: all requests are there from the start.

    A request costs the price of the replica's GPUs over its saturation. What the same requests cost with one token of
    output each is the price of reading; the rest is that of writing. The middle of the completions counts.
    """
    read_only = Lengths(input_tokens=asked.input_tokens, output_tokens=np.ones_like(asked.output_tokens))
    usd_per_s = fleet.gpus[replica.gpu].usd_per_hour * replica.n_gpus / 3600.0
    seconds, reading = (_seconds_per_request(fleet, tier, replica, of) for of in (asked, read_only))
    return FullLoad(
        replica=replica,
        requests_per_s=1.0 / seconds,
        input_usd_per_mtok=1e6 * usd_per_s * reading / float(asked.input_tokens.mean()),
        output_usd_per_mtok=1e6 * usd_per_s * (seconds - reading) / float(asked.output_tokens.mean()),
    )


def full_loads(fleet: FleetSpec, tier: str, gpu: str, asked: Lengths) -> list[FullLoad]:
    """Every replica that fits on this GPU type, at full load.

    Raises:
        ConfigError: If none fits.
    """
    found = [full_load(fleet, tier, r, asked) for r in valid_replicas(fleet, tier) if r.gpu == gpu]
    if not found:
        raise ConfigError(f"no replica of {tier} fits on {gpu}")
    return found


def _seconds_per_request(fleet: FleetSpec, tier: str, replica: Replica, asked: Lengths) -> float:
    done_s = np.sort(_served(fleet, tier, replica, asked, np.zeros(len(asked.input_tokens)))[1])
    first, last = (int(share * len(done_s)) for share in _MIDDLE)
    return float((done_s[last] - done_s[first]) / (last - first))


def _served(
    fleet: FleetSpec, tier: str, replica: Replica, asked: Lengths, arrival_s: FloatArray
) -> tuple[FloatArray, FloatArray]:
    speed = replica_speed(fleet.models[tier], fleet.gpus[replica.gpu], replica, fleet.engine)
    if speed is None:
        raise ConfigError(f"{tier} does not fit on {replica.text}")
    served = serve(speed, arrival_s, asked.input_tokens, asked.output_tokens)
    return served.first_s, served.done_s
