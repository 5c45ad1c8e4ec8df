"""What a fleet is made of, as YAML states it: GPU types, models, and the engine that serves them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from simulators.spec import Name, Spec

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class GpuSpec(Spec):
    """One GPU type.

    Attributes:
        memory_gb: Memory of one GPU, 1e9 bytes.
        bf16_tflops: Peak dense bfloat16 arithmetic, 1e12 per second.
        bandwidth_gb_s: Peak memory bandwidth, 1e9 bytes per second.
        link_gb_s: Bandwidth between GPUs of one machine, one direction, 1e9 bytes per second.
        usd_per_hour: Price of one GPU.
        count: How many can be had.
        per_machine: GPUs in one machine; tensor parallelism does not cross machines.
        basis: `measured` where the engine's constants were fitted on this type, `extrapolated` elsewhere.
    """

    memory_gb: Positive
    bf16_tflops: Positive
    bandwidth_gb_s: Positive
    link_gb_s: Positive
    usd_per_hour: Positive
    count: Annotated[int, Field(ge=0, le=100_000)]
    per_machine: Annotated[int, Field(ge=1, le=64)] = 8
    basis: Literal["measured", "extrapolated"] = "extrapolated"


class ModelSpec(Spec):
    """One model, dense decoder with grouped-query attention.

    Attributes:
        weights: Name that an engine loads it by, such as `meta-llama/Llama-3.1-8B-Instruct`.
        parameters_b: Parameters, 1e9.
        layers: Decoder layers.
        hidden: Width of the residual stream.
        kv_heads: Key and value heads.
        head_dim: Width of one head.
        bytes_per_parameter: 2 for bfloat16.
        basis: `measured` where the engine's constants were fitted on this model, `extrapolated` elsewhere.
    """

    weights: str
    parameters_b: Positive
    layers: Annotated[int, Field(ge=1)]
    hidden: Annotated[int, Field(ge=1)]
    kv_heads: Annotated[int, Field(ge=1)]
    head_dim: Annotated[int, Field(ge=1)]
    bytes_per_parameter: Positive = 2.0
    basis: Literal["measured", "extrapolated"] = "extrapolated"

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights."""
        return self.parameters_b * 1e9 * self.bytes_per_parameter

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes of keys and values that one token of context holds, at two bytes each."""
        return 2.0 * 2.0 * self.layers * self.kv_heads * self.head_dim


class FleetSpec(Spec):
    """The `fleet` section of a scenario.

    Attributes:
        gpus: GPU types by name, N of them.
        models: Tier -> its model.
        engine: Constants of the serving engine.
        rate_per_s: Requests per second of the whole traffic.
        budget_usd_per_hour: Most that all GPUs may cost.
        horizon_s: Seconds of traffic that an evaluation simulates.
    """

    gpus: Annotated[Mapping[Name, GpuSpec], Field(min_length=1)]
    models: Annotated[Mapping[Name, ModelSpec], Field(min_length=2)]
    engine: EngineSpec
    rate_per_s: Positive
    budget_usd_per_hour: Positive
    horizon_s: Positive = 120.0


class EngineConstants(Spec):
    """What the serving engine makes of one GPU type; see `performance.py` for the equations.

    Attributes:
        compute_efficiency: Share of the peak arithmetic that prefill reaches.
        bandwidth_efficiency: Share of the peak memory bandwidth that a decode step reaches.
        link_efficiency: Share of the link's bandwidth that an all-reduce reaches.
        decode_layer_s: Software time per layer and decode step; hides behind reading the weights, or the other way.
        prefill_layer_s: Software time per layer and prefill, likewise.
        sequence_layer_s: Time per layer that each running sequence adds to a decode step.
    """

    compute_efficiency: Fraction
    bandwidth_efficiency: Fraction
    link_efficiency: Fraction
    decode_layer_s: NotNegative
    prefill_layer_s: NotNegative
    sequence_layer_s: NotNegative


class EngineSpec(Spec):
    """The serving engine.

    Attributes:
        basis: Where the constants come from.
        default: Constants on GPU types that `by_gpu` does not name.
        by_gpu: GPU type -> its own constants.
        collective_s: Latency of one all-reduce; two per layer and step.
        hop_s: Latency of handing activations to the next pipeline stage.
        hop_gb_s: Bandwidth between stages, which may be on two machines, 1e9 bytes per second.
        memory_utilisation: Share of the GPU memory that the engine takes.
        reserved_gb: Activations and buffers of one GPU, 1e9 bytes.
        context_tokens: Longest request (input and output) that a replica must have room for.
        max_batch: Most sequences at a time.
        prefill_tokens: Most prompt tokens in one prefill of several requests; a longer prompt goes alone.
        speed_factor: Model (its `weights`) -> GPU type -> factor on all times; 1 where none is stated.
    """

    basis: Literal["measured", "assumed"]
    default: EngineConstants
    by_gpu: Mapping[Name, EngineConstants] = {}
    collective_s: NotNegative = 10e-6
    hop_s: NotNegative = 50e-6
    hop_gb_s: Positive = 12.5
    memory_utilisation: Fraction = 0.9
    reserved_gb: NotNegative = 1.5
    context_tokens: Annotated[int, Field(ge=2)] = 8192
    max_batch: Annotated[int, Field(ge=1, le=100_000)] = 256
    prefill_tokens: Annotated[int, Field(ge=1)] = 2048
    speed_factor: Mapping[str, Mapping[Name, Positive]] = {}

    def constants(self, gpu: str) -> EngineConstants:
        """Those of a GPU type."""
        return self.by_gpu.get(gpu, self.default)

    def factor(self, weights: str, gpu: str) -> float:
        """`speed_factor`, or 1."""
        return self.speed_factor.get(weights, {}).get(gpu, 1.0)


FleetSpec.model_rebuild()
