"""The `train` section: the objective, LoRA and the optimiser."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dail_runtime.spec.base import Section

Objective = Literal["contrastive", "distill", "nll", "sft"]


class LoraSpec(Section):
    """The low-rank adapter (peft); the frozen weights below it serve as both references."""

    r: int = Field(default=32, ge=1, le=1024)
    """Rank."""
    alpha: float = Field(default=32, gt=0)
    """Scale: the update is alpha / r * B A."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    targets: tuple[str, ...] = Field(default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1)
    """Names of the linear layers that get an adapter."""


class Warmup(Section):
    """Epochs of another objective first. Reverse KL has no gradient where the student gives the teacher's token almost
    no mass."""

    objective: Literal["nll"] = "nll"
    """`nll`: cross-entropy on the traces."""
    epochs: Annotated[float, Field(gt=0, le=100)] = 1
    """How long, in epochs; they come before `train.epochs`."""


class PrefixMaskSpec(Section):
    """Ends the supervision of a response once the teacher's margin over the student, log M_T(y) - log M_th(y) of the trace's own
    tokens, has collapsed: from there on the teacher knows nothing that the student does not see in the prefix."""

    margin: float = 0.0
    """Nats; collapsed is a mean below it."""
    window: int = Field(default=64, ge=1)
    """Tokens over which the mean is taken; the first so many of a response are always supervised."""


class TrainSpec(Section):
    """What is minimised, and how."""

    objective: Objective = "contrastive"
    """`contrastive`: KL(M_th||M_T) - gamma KL(M_th||M_NR); `distill`: gamma = 0; `nll`: cross-entropy on the traces;
    `sft`: cross-entropy on the expert's own text."""
    direction: Literal["reverse"] = "reverse"
    """Direction of the KL. Only `reverse`, KL(M_th||M_T): with a negative term the forward direction has no lower
    bound."""
    gamma: float = Field(default=0.1, ge=0, lt=1)
    """Weight of the negative reference; at 1 and above the objective has no lower bound."""
    reference: Literal["own", "other"] = "own"
    """`other` shows both references the solution of another problem: a control that must not help."""
    reduction: Literal["mean", "sum"] = "mean"
    """`mean`: over all response tokens of a step, each weighs the same; `sum`: over the tokens of a trace, then the mean over the
    traces, so that the gradient grows with their length."""
    kl_clip: float | None = Field(default=None, gt=0)
    """Most nats that one token counts in a KL objective; a token above counts as that much and gives no gradient. null: no
    limit."""
    reference_top_k: int | None = Field(default=None, ge=1, le=8192)
    """Compare with the references on the teacher's so many most probable tokens and one outcome for all others, instead of the whole
    vocabulary. Kept references then take some 12 bytes a token for each. null: the whole vocabulary, which is exact."""
    prefix_mask: PrefixMaskSpec | None = None
    """Stop to supervise a response, in a KL objective, where the teacher's margin over the student collapses. null: supervise all
    of it."""
    epochs: Annotated[float, Field(gt=0, le=1000)] = 5
    """Passes over the kept traces."""
    warmup: Warmup | None = None
    """Epochs of nll before a KL objective."""
    learning_rate: float = Field(default=2e-4, gt=0, le=1)
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate goes down to zero after the warm-up steps (`constant`: it does not)."""
    warmup_steps: int = Field(default=5, ge=0)
    """Steps in which the learning rate rises from 0."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's decoupled weight decay."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """AdamW's moment decay rates."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    batch_size: int = Field(default=16, ge=1)
    """Traces per optimiser step, over all workers."""
    micro_batch_tokens: int = Field(default=16384, ge=64)
    """Most tokens (padding included) of one forward pass; a longer trace goes alone."""
    chunk_tokens: int = Field(default=1024, ge=16)
    """Response tokens whose logits exist at once in the loss."""
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Recompute activations in the backward pass. `auto`: on for models over 500 M parameters."""
    cache_references: Literal["auto", "on", "off"] = "auto"
    """Compute the references' hidden states once and keep them for all epochs. `auto`: where they take a quarter of the free memory
    at most; `on`: also in a temporary file."""
    shard: Literal["auto", "on", "off"] = "auto"
    """Spread the frozen weights over the training processes (FSDP2) instead of a copy in each. `auto`: where a copy would not fit
    into a process's memory."""
    lora: LoraSpec = LoraSpec()
    """The adapter."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Steps between checkpoints; one is also saved on SIGTERM."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints kept while the stage runs."""
    save_merged: bool = True
    """Also save the model with the adapter merged in."""
    workers: int = Field(default=1, ge=1, le=1024)
    """Worker pods of the PyTorchJob; ignored on one machine, where training takes every visible GPU."""

    def total_epochs(self) -> float:
        """Passes over the kept traces, those of the warm-up included."""
        return self.epochs + (self.warmup.epochs if self.warmup is not None else 0)

    @model_validator(mode="after")
    def _warmup_needs_kl(self) -> Self:
        if self.warmup is not None and self.objective in ("nll", "sft"):
            raise ValueError(f"train.warmup is for the KL objectives; remove it or the objective {self.objective!r}")
        return self
