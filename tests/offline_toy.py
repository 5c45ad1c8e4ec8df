"""Small fleets and made-up latency tables for the tests of the offline phase."""

from __future__ import annotations

import numpy as np

from simulators.deployment.plan import Replica
from simulators.deployment.specs import EngineConstants, EngineSpec, FleetSpec, GpuSpec, ModelSpec
from toolkit.deployment.database import OfflineDatabase, make_database
from toolkit.deployment.needs import CandidateRecipe
from toolkit.deployment.offline import OfflineRecipe, ReplicaTable, quantile_of

RECIPE = OfflineRecipe(load_points=8, requests=200, windows=2, edges=60, shortest_s=0.05, longest_s=1000.0)
CANDIDATES = CandidateRecipe(budgets=6, loads=5, levels=24, load_points=10)


def fleet(*, count: int = 3, rate_per_s: float = 100.0, budget: float = 12.0, horizon_s: float = 30.0) -> FleetSpec:
    """Two GPU types, a small and a larger model."""
    constants = EngineConstants(
        compute_efficiency=0.5,
        bandwidth_efficiency=0.6,
        link_efficiency=0.5,
        decode_layer_s=1e-4,
        prefill_layer_s=1e-4,
        sequence_layer_s=2e-6,
    )
    return FleetSpec(
        gpus={
            "big": GpuSpec(
                memory_gb=80, bf16_tflops=900, bandwidth_gb_s=3000, link_gb_s=400, usd_per_hour=3.0, count=count
            ),
            "little": GpuSpec(
                memory_gb=24, bf16_tflops=150, bandwidth_gb_s=1000, link_gb_s=30, usd_per_hour=0.6, count=count
            ),
        },
        models={
            "small": ModelSpec(
                weights="a/small",
                parameters_b=7,
                layers=32,
                hidden=4096,
                kv_heads=8,
                head_dim=128,
                bytes_per_parameter=2,
            ),
            "large": ModelSpec(
                weights="a/large",
                parameters_b=30,
                layers=60,
                hidden=6144,
                kv_heads=8,
                head_dim=128,
                bytes_per_parameter=2,
            ),
        },
        engine=EngineSpec(basis="assumed", default=constants, max_batch=64, context_tokens=2048),
        rate_per_s=rate_per_s,
        budget_usd_per_hour=budget,
        horizon_s=horizon_s,
    )


def lengths(n: int = 300, tiers: int = 2) -> list[tuple[np.ndarray, np.ndarray]]:
    """Token counts of the same queries on each tier."""
    rng = np.random.default_rng(3)
    prompt = np.ceil(rng.lognormal(5, 0.6, n)).clip(1, 800)
    return [(prompt, np.ceil(rng.lognormal(4, 0.6, n)).clip(1, 400)) for _ in range(tiers)]


def database(**options: object) -> OfflineDatabase:
    """The offline phase on the toy fleet."""
    return make_database(fleet(**options), lengths(), recipe=RECIPE, candidates=CANDIDATES, seed=0)


def made_up_table(loads, p95_s, *, gpu: str = "big", edges: int = 400) -> ReplicaTable:
    """A table with given quantiles: latencies are uniform up to p95 / 0.95."""
    loads, p95_s = np.asarray(loads, dtype=np.float64), np.asarray(p95_s, dtype=np.float64)
    edges_s = np.geomspace(1e-3, 1e4, edges)
    cdf = np.clip(edges_s / (p95_s[:, None] / 0.95), 0.0, 1.0)
    return ReplicaTable(
        replica=Replica(gpu=gpu),
        capacity_per_s=float(loads[-1]),
        loads_per_s=loads,
        cdf=cdf,
        p95_s=np.where(np.isfinite(quantile_of(cdf, edges_s, 0.95)), p95_s, np.inf),
    )
