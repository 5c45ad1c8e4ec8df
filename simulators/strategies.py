r"""Router strategies: what a scenario says of a router, and the signals that such a router would give.

A router is a noisy measurement of the latent difficulty. Two jointly Gaussian variables agree in sign with probability
$a = 1/2 + \arcsin(r) / \pi$, so a router of accuracy a has the correlation $r = \sin(\pi (a - 1/2))$ with the
difficulty. Its confidence is P(D on the score's side of the centre | score) $= \Phi(|u| r / \sqrt{1 - r^2})$ for a
standardised score u. Slices make D a mixture of Gaussians, so both hold only approximately, and the population mean
stands in for its median.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.special import ndtr

from simulators.outcomes import FloatArray
from simulators.seeds import spawn_rng
from simulators.spec import Spec
from simulators.tiers import LogSd

Seconds = Annotated[float, Field(ge=0, le=3600)]
Accuracy = Annotated[float, Field(gt=0.5, lt=1)]


class StrategySpec(Spec):
    """A way to route, in the terms of source document S1's table of strategies; its numbers are in `conf/routers/`.

    Attributes:
        accuracy: Share of queries put on the right side of the median difficulty (S1: "accuracy").
        delay_median_s, delay_sigma: Lognormal time of the decision (S1: "added latency").
        network_s: Constant time around it: network, retrieval, assembly (S1: 30-40 ms of the budget of 50).
        usd_per_query: Price of one decision (S1: an LLM as router "adds cost per query").
        token_tax: Input tokens that the router adds to a query, over the query's own (S1: 2-5 %).
        confidence: Whether it says how sure it is; deterministic rules do not.
    """

    accuracy: Accuracy
    delay_median_s: Seconds
    delay_sigma: LogSd = 0.0
    network_s: Seconds = 0.0
    usd_per_query: Annotated[float, Field(ge=0)] = 0.0
    token_tax: Annotated[float, Field(ge=0, le=1)] = 0.0
    confidence: bool = True


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """Latent difficulties.

    Attributes:
        values: `N`, logits.
        centre, sd: Mean and standard deviation over the population.
    """

    values: FloatArray
    centre: float
    sd: float


def measure(difficulty: Difficulty, accuracy: float, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """`N` scores (higher is harder) and `N` confidences in [0.5, 1] of a router with this accuracy."""
    r = np.sin(np.pi * (accuracy - 0.5))
    noise_sd = difficulty.sd * np.sqrt(1.0 / r**2 - 1.0)
    score = difficulty.values + noise_sd * rng.standard_normal(len(difficulty.values))
    u = (score - difficulty.centre) * r / difficulty.sd  # the score's own standard deviation is sd / r
    return score, ndtr(np.abs(u) * r / np.sqrt(1.0 - r**2))


def signal_names(router: str) -> tuple[str, str, str]:
    """Signals of a router: score, confidence, seconds until it has decided."""
    return f"{router}_score", f"{router}_confidence", f"{router}_delay_s"


def router_signals(
    routers: Mapping[str, StrategySpec], difficulty: Difficulty, rng: np.random.Generator
) -> dict[str, FloatArray]:
    """Name -> `N` values; every router has noise of its own, which does not depend on which others there are."""
    seed = int(rng.integers(2**63))
    signals: dict[str, FloatArray] = {}
    for name, spec in routers.items():
        noise_rng, delay_rng = spawn_rng(seed, name).spawn(2)
        score, confidence = measure(difficulty, spec.accuracy, noise_rng)
        delay_s = spec.delay_median_s * np.exp(spec.delay_sigma * delay_rng.standard_normal(len(score)))
        told = confidence if spec.confidence else np.full(len(score), np.nan)
        signals |= dict(zip(signal_names(name), (score, told, delay_s + spec.network_s), strict=True))
    return signals
