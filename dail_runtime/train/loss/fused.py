"""The objective as one operation: from hidden states and the output matrix to the loss and its gradient, a chunk of tokens at a time.

For the student's distribution P, the teacher's T and the negative reference's N (DAIL, arXiv 2602.02405), per token

    value = KL(P||T) - gamma KL(P||N) = sum_j P_j f_j   with   f = (log P - log T) - gamma (log P - log N)

Up to a constant that is (1 - gamma) KL(P||p*) with p* = softmax((log T - gamma log N) / (1 - gamma)): bounded below, and with
the gradient P_j (f_j - value) with respect to the logits. It is written down as soon as a chunk's logits exist, so that
neither logits nor gradients of the whole sequence, [tokens, vocabulary], are ever kept, and no graph is built over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dail_runtime.spec.train import Objective
from dail_runtime.train.loss.head import Head, project, pull_back
from dail_runtime.train.loss.rows import TokenFigures, rows_to_figures

Reduction = Literal["mean", "sum"]

_CPU_ROWS = 256
"""Rows that keep a CPU's matrix product busy at a large vocabulary: more of them take more memory and no less time."""
_CPU_BYTES = 1 << 24
"""At a small vocabulary: as many rows as make logits of this size."""


class LossOutput(NamedTuple):
    """The loss and what it is made of."""

    loss: Tensor
    """Scalar, differentiable."""
    tokens: TokenFigures
    """Figures of every token."""


@dataclass(frozen=True)
class _Call:
    """Everything of a call that needs no gradient."""

    head: Head
    reference_head: Head
    objective: Objective
    gamma: float
    labels: Tensor | None
    teacher: Tensor | None
    negative: Tensor | None
    weights: Tensor
    chunk_tokens: int
    with_grad: bool


def fused_loss(
    hidden: Tensor,
    head: Head,
    *,
    objective: Objective,
    labels: Tensor | None = None,
    teacher: Tensor | None = None,
    negative: Tensor | None = None,
    gamma: float = 0.1,
    weights: Tensor | None = None,
    reduction: Reduction = "mean",
    chunk_tokens: int = 1024,
    reference_head: Head | None = None,
) -> LossOutput:
    """The loss over response tokens; row i of every argument belongs to the same token.

    Logits, probabilities and sums are float32 (float64 for float64 hidden states), whatever the types of `hidden` and `head.weight`.
    Gradients flow to `hidden`, `head.weight` and `head.bias`, to each only where it asks for one.

    Args:
        hidden: The student's hidden states [tokens, H] in the rows that predict the response.
        head: The student's output layer.
        objective: What is minimised. The KL objectives need `teacher`, `contrastive` also `negative`; `nll` and `sft` need `labels`.
        labels: Ids of the tokens that come next [tokens].
        teacher: The teacher's hidden states [tokens, H].
        negative: The negative reference's hidden states [tokens, H].
        gamma: Weight of the negative reference, 0 <= gamma < 1.
        weights: Weight of each token [tokens]; None: 1. A token of weight 0 counts for nothing.
        reduction: `sum`: weights times values, added up; `mean`: that divided by the sum of the weights.
        chunk_tokens: Most rows whose logits exist at once: the peak is about 3 * chunk_tokens * vocabulary numbers. A CPU takes fewer.
        reference_head: The references' output layer; None: `head`. Differs only where the student's head is trained.

    Raises:
        ValueError: an argument is missing or has another number of rows than `hidden`; or gamma is out of range.
    """
    needs = {"contrastive": ("teacher", "negative"), "distill": ("teacher",), "nll": ("labels",), "sft": ("labels",)}[objective]
    given = {"labels": labels, "teacher": teacher, "negative": negative}
    for name in needs:
        tensor = given[name]
        if tensor is None:
            raise ValueError(f"the objective {objective!r} needs `{name}`")
        if len(tensor) != len(hidden):
            raise ValueError(f"`{name}` has {len(tensor)} rows, but `hidden` has {len(hidden)}: each row must belong to the same token")
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma is {gamma}; at 1 and above the objective has no lower bound")
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    if weights is None:
        weights = torch.ones(len(hidden), dtype=wide, device=hidden.device)
    weights = weights.to(wide)
    if reduction == "mean":
        # No token, no loss: the sum below is 0 then, and must not become 0 / 0.
        weights = weights / weights.sum().clamp_min(torch.finfo(wide).tiny)
    call = _Call(
        head,
        reference_head or head,
        objective,
        gamma if objective == "contrastive" else 0.0,
        labels if "labels" in needs else None,
        teacher if "teacher" in needs else None,
        negative if "negative" in needs else None,
        weights,
        chunk_tokens,
        torch.is_grad_enabled(),
    )
    loss, *figures = _FusedLoss.apply(hidden, head.weight, head.bias, call)  # type: ignore[no-untyped-call]
    return LossOutput(loss, TokenFigures(*figures))


class _FusedLoss(torch.autograd.Function):
    """Computes the gradient in the forward pass, where the logits are, and only scales it in the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, call: _Call) -> tuple[Tensor | None, ...]:
        with torch.autocast(hidden.device.type, enabled=False):
            figures, grads = _in_chunks(hidden, call, [call.with_grad and needed for needed in ctx.needs_input_grad[:3]])
            loss = torch.dot(call.weights, figures.value)
        ctx.kinds = [None if one is None else one.dtype for one in (hidden, weight, bias)]
        ctx.save_for_backward(*grads)
        tokens = [getattr(figures, field.name) for field in fields(figures)]
        ctx.mark_non_differentiable(*[one for one in tokens if one is not None])
        return loss, *tokens

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        grads = [None if grad is None else (grad * grad_loss).to(kind) for grad, kind in zip(ctx.saved_tensors, ctx.kinds, strict=True)]
        return *grads, None


def _in_chunks(hidden: Tensor, call: _Call, wanted: Sequence[bool]) -> tuple[TokenFigures, list[Tensor | None]]:
    """The figures of all tokens, and the gradients of hidden, weight and bias of the weighted sum, each where it is wanted."""
    count, vocabulary, wide = len(hidden), call.head.vocabulary, call.weights.dtype
    references = [states for states in (call.teacher, call.negative) if states is not None]
    caps = [call.head.cap, *(call.reference_head.cap for _ in references)]
    rows = min(call.chunk_tokens, max(count, 1))
    if hidden.device.type == "cpu":
        rows = min(rows, max(_CPU_ROWS, _CPU_BYTES // (vocabulary * wide.itemsize)))
    buffers = [hidden.new_empty(rows, vocabulary, dtype=wide) for _ in caps]
    names = ["value", "entropy"]
    if call.teacher is not None:
        names += ["kl_teacher", "teacher_top_mass"]
    if call.negative is not None:
        names += ["kl_negative"]
    figures = TokenFigures(**{name: hidden.new_empty(count, dtype=wide) for name in names})
    # Hidden states and matrix of the same type: nothing is gained by a wider gradient, which ends in that type.
    narrow = hidden.dtype if hidden.dtype == call.head.weight.dtype else wide
    grad_hidden = hidden.new_empty(hidden.shape, dtype=narrow) if wanted[0] else None
    grad_weight = torch.zeros_like(call.head.weight, dtype=wide) if wanted[1] else None
    grad_bias = hidden.new_zeros(vocabulary, dtype=wide) if wanted[2] else None
    for first in range(0, count, rows):
        part = slice(first, min(first + rows, count))
        logits = [buffer[: part.stop - first] for buffer in buffers]
        # One call where the matrix is the same: a matrix in 16 bits is then widened once for all three.
        split = len(logits) if call.reference_head is call.head else 1
        states = [one[part] for one in (hidden, *references)]
        project(states[:split], call.head, logits[:split])
        if split < len(logits):
            project(states[split:], call.reference_head, logits[split:])
        labels = None if call.labels is None else call.labels[part]
        weights = call.weights[part] if any(wanted) else None
        rows_to_figures(logits, caps, labels, call.gamma, figures[part], weights)
        grad = logits[0]
        if grad_hidden is not None:
            pull_back(grad, call.head, grad_hidden[part])
        if grad_weight is not None:
            grad_weight.addmm_(grad.t(), hidden[part].to(wide), alpha=call.head.scale)
        if grad_bias is not None:
            grad_bias.add_(grad.sum(0), alpha=call.head.scale)
    return figures, [grad_hidden, grad_weight, grad_bias]
