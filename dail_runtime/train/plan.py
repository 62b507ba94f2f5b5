"""What memory a training will take in each process, told before the first step: weights, adapter, activations, logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dail_runtime.spec.train import TrainSpec
from dail_runtime.train.batches import micro_batches
from dail_runtime.train.loss.fused import chunk_rows
from dail_runtime.train.loss.rows import BLOCK_BYTES, GPU_BLOCK_BYTES
from dail_runtime.train.memory import readable


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes in one process at the peak of a step."""

    weights: int
    """Frozen weights, or this process's part of them with what is gathered of them at a time."""
    adapter: int
    """Adapter, gradient and the optimiser's two moments, in float32."""
    activations: int
    """What the backward pass needs of the largest micro-batch."""
    tokens: int
    """Tokens of that micro-batch, padding included."""
    logits: int
    """The loss: logits of one chunk of tokens and the work on them."""
    chunk: int
    """Tokens of that chunk."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.adapter + self.activations + self.logits

    def sentence(self, room: int, spec: TrainSpec, *, recompute: bool) -> str:
        """For people, before the first step; `room`: bytes that were free before anything was loaded."""
        parts = (
            f"weights {readable(self.weights)}, adapter and optimiser {readable(self.adapter)}, activations {readable(self.activations)} "
            f"({self.tokens} tokens at once{', recomputed' if recompute else ''}), logits {readable(self.logits)} ({self.chunk} tokens)"
        )
        known = f"A training process will take about {readable(self.total)} of {readable(room)} free: {parts}."
        return known if self.total <= room else f"{known} That may not fit: {remedy(spec, recompute=recompute)}."


def remedy(spec: TrainSpec, *, recompute: bool) -> str:
    """Which settings make a step smaller, the one with the least cost first."""
    change = "set train.gradientCheckpointing to on, or " if not recompute else ""
    change += f"lower train.microBatchTokens (now {spec.micro_batch_tokens}) or train.chunkTokens (now {spec.chunk_tokens})"
    return change + ("" if spec.shard == "on" else ", or spread the weights over several processes (train.shard: on)")


def plan_memory(
    config: Any,
    spec: TrainSpec,
    lengths: Sequence[int],
    *,
    weights: int,
    trainable: int,
    itemsize: int,
    recompute: bool,
    ranks: int,
    cpu: bool,
) -> MemoryPlan:
    """The plan.

    Args:
        config: The model's text configuration.
        spec: Settings.
        lengths: Tokens of every sequence that passes through the model with a gradient.
        weights: Bytes of the frozen weights.
        trainable: Numbers in the adapter.
        itemsize: Bytes of one frozen weight.
        recompute: Gradient checkpointing.
        ranks: Processes that the weights are spread over; 1: each has a copy.
        cpu: The device is a CPU.
    """
    groups = micro_batches(lengths, spec.micro_batch_tokens)
    # Of equally large ones that with the longest sequences: it comes first.
    largest = max(groups, key=lambda group: len(group) * lengths[group[0]], default=[])
    longest = lengths[largest[0]] if largest else 0
    tokens = len(largest) * longest
    layers, width, vocabulary = int(config.num_hidden_layers), int(config.hidden_size), int(config.vocab_size)
    layer = tokens * _layer(config, spec, itemsize, longest)
    # Recomputed: the input of every layer, and one layer in full while its part of the backward pass runs.
    activations = layers * tokens * width * itemsize + layer if recompute else layers * layer
    # The last norm in float32, and the rows that predict.
    activations += tokens * width * (8 + itemsize)
    distributions = 3 if spec.objective == "contrastive" else 2 if spec.objective == "distill" else 1
    chunk = min(chunk_rows(spec.chunk_tokens, vocabulary, cpu=cpu), max(tokens, 1))
    work = min(BLOCK_BYTES if cpu else GPU_BLOCK_BYTES, 4 * chunk * vocabulary * (distributions + 4))
    # Spread: its part, one layer at a time, and the output matrix as a whole while the loss needs it.
    held = weights if ranks == 1 else weights // ranks + 2 * weights // max(layers, 1) + vocabulary * width * itemsize
    return MemoryPlan(held, trainable * 16, activations, tokens, distributions * chunk * vocabulary * 4 + work, chunk)


def _layer(config: Any, spec: TrainSpec, itemsize: int, longest: int) -> int:
    """Bytes that the backward pass of one decoder layer needs of each token of sequences that have `longest`.

    Attention keeps its scores only where the architecture allows none but the plain one. Both norms keep their input in float32 and
    their output; attention its inputs and its output; a gated MLP four tensors of its inner width. Linear layers keep nothing for their
    frozen matrix; their adapter keeps its input (those above) and r numbers.
    """
    width = int(config.hidden_size)
    inner = getattr(config, "intermediate_size", 4 * width)
    if isinstance(inner, list):  # one for each layer
        inner = max(inner)
    heads = int(config.num_attention_heads)
    head = int(getattr(config, "head_dim", None) or width // heads)
    others = int(getattr(config, "num_key_value_heads", None) or heads)
    attention = 2 * heads * head + 2 * others * head
    scores = 8 * heads * longest if getattr(config, "_attn_implementation", None) == "eager" else 0
    return 2 * width * (4 + itemsize) + (attention + 4 * inner) * itemsize + len(spec.lora.targets) * spec.lora.r * 4 + scores
