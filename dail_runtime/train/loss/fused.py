"""The objective as one operation: from hidden states and the output matrix to the loss and its gradient, a chunk of tokens at a time.

For the student's distribution P, the teacher's T and the negative reference's N (DAIL, arXiv 2602.02405), per token

    value = KL(P||T) - gamma KL(P||N) = sum_j P_j f_j   with   f = (log P - log T) - gamma (log P - log N)

Up to a constant that is (1 - gamma) KL(P||p*) with p* = softmax((log T - gamma log N) / (1 - gamma)): bounded below, and with
the gradient P_j (f_j - value) with respect to the logits. It is written down as soon as a chunk's logits exist, so that
neither logits nor gradients of the whole sequence, [tokens, vocabulary], are ever kept, and no graph is built over them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dail_runtime.spec.train import Objective
from dail_runtime.train.loss.head import Head, LowRank, project, pull_back
from dail_runtime.train.loss.prefix import PrefixMask, Supervision
from dail_runtime.train.loss.rows import Rules, TokenFigures, rows_to_figures
from dail_runtime.train.loss.targets import TopK

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
    rules: Rules
    labels: Tensor | None
    references: tuple[Tensor, ...]
    targets: TopK | None
    figures: tuple[str, ...]
    weights: Tensor
    mean: bool
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
    targets: TopK | None = None,
    gamma: float = 0.1,
    weights: Tensor | None = None,
    reduction: Reduction = "mean",
    chunk_tokens: int = 1024,
    reference_head: Head | None = None,
    update: LowRank | None = None,
    clip: float | None = None,
    prefix: PrefixMask | None = None,
    starts: Tensor | None = None,
) -> LossOutput:
    """The loss over response tokens; row i of every argument belongs to the same token.

    Logits, probabilities and sums are float32 (float64 for float64 hidden states), whatever the types of `hidden` and `head.weight`.
    Gradients flow to `hidden`, `head.weight`, `head.bias` and `update`, to each only where it asks for one. A matrix that is sharded
    over ranks (a DTensor) is gathered for the time of the call, so all its ranks must make the call; its gradient, where one is wanted,
    is summed over them.

    Args:
        hidden: The student's hidden states [tokens, H] in the rows that predict the response.
        head: The student's output layer.
        objective: What is minimised. The KL objectives need `teacher`, `contrastive` also `negative`, or `targets` instead of them;
            `nll` and `sft` need `labels`.
        labels: Ids of the tokens that come next [tokens].
        teacher: The teacher's hidden states [tokens, H].
        negative: The negative reference's hidden states [tokens, H].
        targets: The references by their most probable tokens.
        gamma: Weight of the negative reference, 0 <= gamma < 1.
        weights: Weight of each token [tokens]; None: 1. A token of weight 0 counts for nothing.
        reduction: `sum`: weights times values, added up over the supervised tokens; `mean`: that divided by the sum of their weights.
        chunk_tokens: Most rows whose logits exist at once: the peak is about 3 * chunk_tokens * vocabulary numbers. A CPU takes fewer.
        reference_head: The references' output layer; None: `head`. Differs only where the student's own matrix is trained.
        update: What a low-rank adapter of the output layer adds to the student's logits.
        clip: Most that one token's value may be; a token above it counts as that much and has no gradient.
        prefix: Where supervision of a response ends; needs `labels`, `starts` and a teacher.
        starts: Row at which the response of each token begins [tokens]; responses lie one after the other.

    Raises:
        ValueError: an argument is missing or has another number of rows than `hidden`; or gamma is out of range.
    """
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    given = {"labels": labels, "teacher": teacher, "negative": negative, "targets": targets, "starts": starts, "weights": weights}
    needs = _needed(objective, prefix, given)
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma is {gamma}; at 1 and above the objective has no lower bound")
    for name, tensor in given.items():
        if tensor is not None and name in (*needs, "weights") and len(tensor) != len(hidden):
            raise ValueError(f"`{name}` has {len(tensor)} rows, but `hidden` has {len(hidden)}: each row must belong to the same token")
    weights = (torch.ones(len(hidden), device=hidden.device) if weights is None else weights).to(wide)
    whole = head.whole()
    others = whole if reference_head is None or reference_head is head else reference_head.whole()
    references = tuple(given[name] for name in ("teacher", "negative") if name in needs)
    supervision = Supervision(prefix, starts) if prefix is not None and starts is not None else None
    rules = Rules(
        (whole.cap, *(others.cap for _ in references)),
        gamma if objective == "contrastive" else 0.0,
        "teacher" not in needs and "targets" not in needs,
        clip,
        supervision,
    )
    names = {
        "kl_teacher": not rules.likelihood,
        "kl_negative": objective == "contrastive",
        "teacher_top_mass": not rules.likelihood,
        "supervised": prefix is not None,
        "clipped": clip is not None,
    }
    call = _Call(
        whole,
        others,
        rules,
        labels if "labels" in needs else None,
        references,  # type: ignore[arg-type]
        targets if "targets" in needs else None,
        ("value", "entropy", *(name for name, there in names.items() if there)),
        weights,
        reduction == "mean",
        chunk_tokens,
        torch.is_grad_enabled(),
    )
    low, up = (None, None) if update is None else (update.low, update.up)
    loss, *figures = _FusedLoss.apply(hidden, whole.weight, whole.bias, low, up, call)  # type: ignore[no-untyped-call]
    return LossOutput(loss, TokenFigures(*figures))


def chunk_rows(chunk_tokens: int, vocabulary: int, *, cpu: bool) -> int:
    """Most rows whose logits exist at once: a CPU takes fewer than `chunk_tokens` where the vocabulary is large."""
    return min(chunk_tokens, max(_CPU_ROWS, _CPU_BYTES // (4 * vocabulary))) if cpu else chunk_tokens


def _needed(objective: Objective, prefix: PrefixMask | None, given: dict[str, Tensor | TopK | None]) -> tuple[str, ...]:
    """Names of the arguments that the call uses; raises ValueError where one is missing."""
    needs: tuple[str, ...]
    if objective in ("nll", "sft"):
        needs = ("labels",)
        if prefix is not None:
            raise ValueError(f"the objective {objective!r} has no teacher whose margin a prefix mask could follow")
    else:
        full = ("teacher", "negative") if objective == "contrastive" else ("teacher",)
        needs = ("targets",) if given["targets"] is not None else full
        needs = (*needs, "labels", "starts") if prefix is not None else needs
    for name in needs:
        if given[name] is None:
            raise ValueError(f"the objective {objective!r} needs `{name}`")
    return needs


class _FusedLoss(torch.autograd.Function):
    """Computes the gradient in the forward pass, where the logits are, and only scales it in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, low: Tensor | None, up: Tensor | None, call: _Call
    ) -> tuple[Tensor | None, ...]:
        inputs = (hidden, weight, bias, low, up)
        wanted = [call.with_grad and needed for needed in ctx.needs_input_grad[: len(inputs)]]
        with torch.autocast(hidden.device.type, enabled=False):
            sums = _Sums(hidden, call, low, up, wanted)
            sums.run()
            weights = call.weights if sums.figures.supervised is None else call.weights * sums.figures.supervised
            # Divided at the end, because only then is it known what is supervised. No token, no loss: not 0 / 0.
            scale = weights.sum().clamp_min(torch.finfo(weights.dtype).tiny).reciprocal() if call.mean else weights.new_ones(())
            loss = torch.dot(weights, sums.figures.value) * scale
        ctx.kinds = [None if one is None else one.dtype for one in inputs]
        ctx.save_for_backward(scale, *sums.grads)
        tokens = sums.figures.all()
        ctx.mark_non_differentiable(*[one for one in tokens if one is not None])
        return loss, *tokens

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        scale, *saved = ctx.saved_tensors
        grads = [None if grad is None else (grad * (grad_loss * scale)).to(kind) for grad, kind in zip(saved, ctx.kinds, strict=True)]
        return *grads, None


class _Sums:
    """The figures of all tokens, and the gradients of the weighted sum of their values, each where it is wanted."""

    def __init__(self, hidden: Tensor, call: _Call, low: Tensor | None, up: Tensor | None, wanted: list[bool]) -> None:
        """`wanted`: for hidden, weight, bias, low and up."""
        self._hidden, self._call, self._low, self._up, self._any = hidden, call, low, up, any(wanted)
        count, vocabulary, wide = len(hidden), call.head.vocabulary, call.weights.dtype
        self.figures = TokenFigures(**{name: hidden.new_empty(count, dtype=wide) for name in call.figures})
        # Hidden states and matrix of the same type: nothing is gained by a wider gradient, which ends in that type.
        narrow = hidden.dtype if hidden.dtype == call.head.weight.dtype else wide
        self.grads: list[Tensor | None] = [
            hidden.new_empty(hidden.shape, dtype=narrow) if wanted[0] else None,
            torch.zeros_like(call.head.weight, dtype=wide) if wanted[1] else None,
            hidden.new_zeros(vocabulary, dtype=wide) if wanted[2] else None,
            None if low is None or not wanted[3] else hidden.new_empty(low.shape, dtype=wide),
            None if up is None or not wanted[4] else torch.zeros_like(up, dtype=wide),
        ]
        """Of hidden, weight, bias, low and up."""

    def run(self) -> None:
        """Chunk by chunk."""
        call, count, wide = self._call, len(self._hidden), self._call.weights.dtype
        rows = min(chunk_rows(call.chunk_tokens, call.head.vocabulary, cpu=self._hidden.device.type == "cpu"), max(count, 1))
        buffers = [self._hidden.new_empty(rows, call.head.vocabulary, dtype=wide) for _ in call.rules.caps]
        for first in range(0, count, rows):
            part = slice(first, min(first + rows, count))
            logits = [buffer[: part.stop - first] for buffer in buffers]
            self._project(part, logits)
            labels = None if call.labels is None else call.labels[part]
            targets = None if call.targets is None else call.targets[part]
            weights = call.weights[part] if self._any else None
            rows_to_figures(logits, call.rules, first, labels, targets, self.figures[part], weights)
            self._pull_back(part, logits[0])

    def _project(self, part: slice, logits: list[Tensor]) -> None:
        """Logits of some tokens, before the cap."""
        call = self._call
        states = [one[part] for one in (self._hidden, *call.references)]
        # One call where the matrix is the same: a matrix in 16 bits is then widened once for all three.
        split = len(logits) if call.reference_head is call.head else 1
        project(states[:split], call.head, logits[:split])
        if split < len(logits):
            project(states[split:], call.reference_head, logits[split:])
        if self._low is not None and self._up is not None:
            wide = logits[0].dtype
            logits[0].addmm_(self._low[part].to(wide), self._up.t().to(wide), alpha=call.head.scale)

    def _pull_back(self, part: slice, grad: Tensor) -> None:
        """From the gradient of some tokens' logits to those of the inputs."""
        scale, wide = self._call.head.scale, grad.dtype
        hidden, weight, bias, low, up = self.grads
        if hidden is not None:
            pull_back(grad, self._call.head, hidden[part])
        if weight is not None:
            weight.addmm_(grad.t(), self._hidden[part].to(wide), alpha=scale)
        if bias is not None:
            bias.add_(grad.sum(0), alpha=scale)
        if low is not None and self._up is not None:
            torch.mm(grad, self._up.to(wide), out=low[part]).mul_(scale)
        if up is not None and self._low is not None:
            up.addmm_(grad.t(), self._low[part].to(wide), alpha=scale)
