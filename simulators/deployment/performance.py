r"""What one replica of a model can do on given GPUs: a roofline with an engine's efficiencies.

Notation: $P$ parameters at $w$ bytes, $L$ layers, $h$ width, $T$ tensor parallel, $S$ stages (pipeline parallel), $F$
and $W$ peak arithmetic and bandwidth of one GPU with efficiencies $e_F, e_W$, $c$ time to all-reduce one token's
activations. All layers of a stage count as those of the longest one: $L' = S \lceil L / S \rceil$; $P' = P L' / L$.

* Prefill of requests with $n_i$ prompt tokens, admitted together, is the sum of their own times, but at least the time
  that the software takes for the layers:
  $\max(o_p L', \sum_i (2 P' / (T e_F F) + c) n_i + 2 h L' n_i^2 / (T e_F F))$; attention is causal.
* A decode step of $B$ sequences with $C$ tokens of context in all:
  $\max(o_d L', P' w / (T e_W W) + 2 L' l) + (s L' + c) B + C k / (T e_W W)$ with $k$ bytes of keys and values per token
  and $l$ the latency of an all-reduce. Software and reading the weights overlap, so the longer one counts.
* All-reduce: two per layer over $2 h$ bytes, $2 (T - 1) / T$ of it over the link: $c = 8 h L' (T - 1) / (T e_L R)$.
  That is the correction of the ideal $1 / T$: `tensor_parallel_efficiency` states it as one number.
* Pipeline: $B$ sequences go through in up to $S$ micro-batches of $m = \lceil B / S \rceil$. A step then costs the base
  once plus the terms of $m$ sequences: each of $S$ stages has $1 / S$ of the layers and works on $S$ micro-batches.
  Prompts admitted together are prefilled one behind the other; with times $p_i$ on their own they take
  $(\sum p_i + (S - 1) \max p_i) / S$, as in a flow shop of equal stages. Prefills of different admissions do not
  overlap, which understates pipelines where prompts are long.
* Memory: what the utilisation leaves after weights and activations holds keys and values. A request holds room for its
  prompt and its whole output from admission on. A real engine takes it step by step and evicts when it runs out.

Left out: chunked prefill mixed into decode steps, prefix caching, speculative decoding, quantised keys and values.

Left out, too: the arithmetic of a decode step. $2 P' B / (T e_F F)$ passes the time to read the weights at large $B$.
Fitted constants hold most of it in $s$. With `roofline` a step of a full batch should take up to 58 % longer on an
a100, 35 % on an rtx_5090, 6 % on an h100. Keys and values are counted once, also where $T$ exceeds the heads of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simulators.deployment.plan import Replica
from simulators.deployment.specs import EngineSpec, FleetSpec, GpuSpec, ModelSpec

_GIGA = 1e9
_TERA = 1e12
_ACTIVATION_BYTES = 2.0  # bfloat16


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One replica as `batching.serve` needs it.

    Attributes:
        prefill_floor_s: Least time of a prefill.
        prefill_token_s: Prefill time per prompt token.
        prefill_square_s: Prefill time per squared prompt length.
        decode_s: Time of a decode step, whatever the batch.
        sequence_s: What each sequence (of the largest micro-batch) adds to it.
        context_s: What each token of context (of that micro-batch) adds to it.
        kv_tokens: Tokens of context that fit.
        max_batch: Most sequences at a time.
        prefill_tokens: Most prompt tokens in one prefill of several requests.
        stages: Pipeline stages.
    """

    prefill_floor_s: float
    prefill_token_s: float
    prefill_square_s: float
    decode_s: float
    sequence_s: float
    context_s: float
    kv_tokens: int
    max_batch: int
    prefill_tokens: int = 2048
    stages: int = 1

    def prefill_s(self, *prompts: int) -> float:
        """Time to prefill requests of these prompt lengths together."""
        alone_s = [self.prefill_token_s * n + self.prefill_square_s * n * n for n in prompts]
        return max(self.prefill_floor_s, (sum(alone_s) + (self.stages - 1) * max(alone_s)) / self.stages)

    def step_s(self, batch: int, context: int) -> float:
        """Time of a decode step of `batch` sequences that have `context` tokens together."""
        micro = -(-batch // self.stages)
        return self.decode_s + self.sequence_s * micro + self.context_s * context * (micro / batch)


def replica_speed(model: ModelSpec, gpu: GpuSpec, replica: Replica, engine: EngineSpec) -> Speed | None:
    """Times and room of one replica; None where it cannot run.

    It cannot where its tensor parallelism crosses machines, it needs more GPUs than there are or more stages than
    layers, or weights and one request of `engine.context_tokens` do not fit.
    """
    tensor, stages = replica.tensor_parallel, replica.pipeline_parallel
    if tensor > gpu.per_machine or replica.n_gpus > gpu.count or stages > model.layers:
        return None
    kv_tokens = _kv_tokens(model, gpu, replica, engine)
    if kv_tokens < engine.context_tokens:
        return None
    use = engine.constants(replica.gpu)
    longest = _longest(model, replica)
    layers, parameters = model.layers * longest, model.parameters_b * _GIGA * longest
    factor = engine.factor(model.weights, replica.gpu)
    flops = tensor * use.compute_efficiency * gpu.bf16_tflops * _TERA
    bandwidth = tensor * use.bandwidth_efficiency * gpu.bandwidth_gb_s * _GIGA
    token_bytes = _ACTIVATION_BYTES * model.hidden
    link = use.link_efficiency * gpu.link_gb_s * _GIGA
    reduce_s = 2.0 * layers * token_bytes * 2.0 * (tensor - 1) / tensor / link
    hops_s = (stages - 1) * engine.hop_s
    moved_s = reduce_s + (stages - 1) * token_bytes / (engine.hop_gb_s * _GIGA)
    latency_s = 2.0 * layers * engine.collective_s * (tensor > 1)
    read_s = parameters * model.bytes_per_parameter / bandwidth + latency_s
    return Speed(
        prefill_floor_s=factor * (use.prefill_layer_s * layers + hops_s),
        prefill_token_s=factor * (2.0 * parameters / flops + moved_s),
        prefill_square_s=factor * 2.0 * model.hidden * layers / flops,
        decode_s=factor * (max(use.decode_layer_s * layers, read_s) + hops_s),
        sequence_s=factor * (use.sequence_layer_s * layers + moved_s),
        context_s=factor * model.kv_bytes_per_token * longest / bandwidth,
        kv_tokens=kv_tokens,
        max_batch=engine.max_batch,
        prefill_tokens=engine.prefill_tokens,
        stages=stages,
    )


def valid_replicas(fleet: FleetSpec, tier: str) -> tuple[Replica, ...]:
    """Every replica of a tier's model that the fleet can run, GPU type by GPU type, small ones first.

    Tensor parallelism is a power of two within one machine; any number of stages that fits the count.
    """
    found = []
    for name, gpu in fleet.gpus.items():
        for tensor in _powers_of_two(min(gpu.per_machine, gpu.count)):
            for stages in range(1, gpu.count // tensor + 1):
                replica = Replica(gpu=name, tensor_parallel=tensor, pipeline_parallel=stages)
                if replica_speed(fleet.models[tier], gpu, replica, fleet.engine) is not None:
                    found.append(replica)
    return tuple(sorted(found, key=lambda r: (list(fleet.gpus).index(r.gpu), r.n_gpus, r.pipeline_parallel)))


def tensor_parallel_efficiency(model: ModelSpec, gpu: GpuSpec, replica: Replica, engine: EngineSpec) -> float:
    """$K(T)$ of prefill: time per prompt token at the ideal $1/T$ over the model's, in (0, 1]; 1 at $T = 1$."""
    use, tensor = engine.constants(replica.gpu), replica.tensor_parallel
    ideal = 2.0 * model.parameters_b * _GIGA / (tensor * use.compute_efficiency * gpu.bf16_tflops * _TERA)
    link = use.link_efficiency * gpu.link_gb_s * _GIGA
    reduce_s = 4.0 * model.layers * _ACTIVATION_BYTES * model.hidden * (tensor - 1) / tensor / link
    return ideal / (ideal + reduce_s)


def perturbed(fleet: FleetSpec, rng: np.random.Generator, *, sd: float = 0.2) -> FleetSpec:
    """The fleet with all times of each (model, GPU type) off by a factor of its own, lognormal, median 1.

    Args:
        fleet: GPUs, models and engine.
        rng: Draws the factors, models first, GPU types within.
        sd: Standard deviation of the factor's logarithm: 0.2 is an error of about 20 %.
    """
    drawn = {
        model.weights: {
            gpu: fleet.engine.factor(model.weights, gpu) * math.exp(sd * rng.standard_normal()) for gpu in fleet.gpus
        }
        for model in fleet.models.values()
    }
    return fleet.model_copy(update={"engine": fleet.engine.model_copy(update={"speed_factor": drawn})})


def _longest(model: ModelSpec, replica: Replica) -> float:
    """Layers that all stages would have if each were the longest one, over the model's layers."""
    stages = replica.pipeline_parallel
    return stages * math.ceil(model.layers / stages) / model.layers


def _kv_tokens(model: ModelSpec, gpu: GpuSpec, replica: Replica, engine: EngineSpec) -> int:
    """Tokens of context that fit into what weights, activations and utilisation leave; negative where nothing does."""
    room = replica.n_gpus * (engine.memory_utilisation * gpu.memory_gb - engine.reserved_gb) * _GIGA
    longest = _longest(model, replica)
    return math.floor((room - model.weight_bytes * longest) / (model.kv_bytes_per_token * longest))


def _powers_of_two(most: int) -> list[int]:
    return [1 << i for i in range(most.bit_length()) if 1 << i <= most]
