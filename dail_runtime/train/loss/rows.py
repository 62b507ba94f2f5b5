"""The mathematics of the objective on rows of logits: figures per token, and the gradient in place of the student's logits.

Not through torch.compile: in blocks that fit a CPU's caches the operations below take 60 ms for 256 rows x 131072 (two Zen 5 cores), the
best compiled version 57 ms and another 14 s once for every number of rows, while the products with the output matrix take 260 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from dail_runtime.train.loss.prefix import Supervision
from dail_runtime.train.loss.targets import TopK

BLOCK_BYTES = 1 << 24
"""What the element-wise work on one block of rows occupies on a CPU: so little that it stays in the caches (four times as much takes
half as long again), and enough that its threads do not wait for each other all the time."""
GPU_BLOCK_BYTES = 1 << 29
"""The same on a GPU, where it only has to keep all multiprocessors busy."""


@dataclass(frozen=True)
class TokenFigures:
    """What is known of every token without a further pass; each [tokens], detached, None where the objective has no such thing."""

    value: Tensor
    """The objective: KL(P||T) - gamma KL(P||N), KL(P||T), or the negative log-likelihood, in nats; clipped where that is asked for,
    and 0 for a token beyond the prefix mask."""
    entropy: Tensor
    """Entropy of P."""
    kl_teacher: Tensor | None = None
    """KL(P||T)."""
    kl_negative: Tensor | None = None
    """KL(P||N)."""
    teacher_top_mass: Tensor | None = None
    """What P gives to the teacher's most probable token (to all of them, where several tie)."""
    supervised: Tensor | None = None
    """1 for a token within the prefix mask, else 0."""
    clipped: Tensor | None = None
    """1 for a supervised token whose value was clipped, else 0."""

    def __getitem__(self, rows: slice) -> TokenFigures:
        """The figures of some tokens: views, so that writing to them fills in these."""
        return TokenFigures(*(None if one is None else one[rows] for one in self.all()))  # type: ignore[arg-type]

    def all(self) -> list[Tensor | None]:
        """The figures in order."""
        return [getattr(self, field.name) for field in fields(self)]


@dataclass(frozen=True)
class Rules:
    """What holds for all rows of a call."""

    caps: Sequence[float | None]
    """The soft-cap of the student's logits and of each reference's, which has not been applied yet."""
    gamma: float
    """Weight of the negative reference."""
    likelihood: bool
    """Whether the objective is the likelihood of the labels."""
    clip: float | None = None
    """Most that one token's value may be."""
    supervision: Supervision | None = None
    """Follows where supervision ends; needs labels."""


def rows_to_figures(
    logits: Sequence[Tensor],
    rules: Rules,
    first_row: int,
    labels: Tensor | None,
    targets: TopK | None,
    into: TokenFigures,
    weights: Tensor | None,
) -> None:
    """Fill in the figures of some tokens; the logits are used up.

    Args:
        logits: The student's, then the teacher's and the negative reference's where the objective has them in full; each [n, V].
        rules: The objective.
        first_row: Number of the first of these rows in the call; calls go in order.
        labels: The ids [n] that come next, where they are needed.
        targets: The references, where they are given by their most probable tokens.
        into: Takes the results.
        weights: Weight of each token [n]: leave in `logits[0]` the gradient of the weighted sum of the values with respect to the
            student's logits as they were before the cap. None: no gradient is wanted.
    """
    count, vocabulary = logits[0].shape
    # A dozen passes over the rows follow: they are cheap only while the rows stay in or near the cache. Room is needed for the student's
    # log-probabilities and probabilities, for scratch where the student's logits are needed at the end, and for a coarse gradient.
    capped = rules.caps[0] is not None
    rooms = 2 + capped + (targets is not None)
    size, least = (BLOCK_BYTES, torch.get_num_threads()) if logits[0].device.type == "cpu" else (GPU_BLOCK_BYTES, 16)
    block = min(count, max(least, size // (vocabulary * logits[0].element_size() * (len(logits) + rooms))))
    room = [logits[0].new_empty(block, vocabulary) for _ in range(rooms)]
    for first in range(0, count, block):
        rows = slice(first, min(first + block, count))
        student, *references = [one[rows] for one in logits]
        log_student, probability, *spare = [one[: rows.stop - first] for one in room]
        for one, cap in zip((student, *references), rules.caps, strict=True):
            if cap is not None:
                one.div_(cap).tanh_().mul_(cap)
        torch.exp(torch.log_softmax(student, -1, out=log_student), out=probability)
        scratch = spare[0] if capped else student
        figures = into[rows]
        # P adds up to 1 but for some 1e-6, which the means below would multiply by log-ratios of 10 and more: they divide by it.
        total = probability.sum(-1)
        torch.sum(torch.mul(probability, log_student, out=scratch), -1, out=figures.entropy).neg_().div_(total)
        index = None if labels is None else labels[rows, None]
        teacher_label = None
        if rules.likelihood:
            assert index is not None
            grad = _likelihood(probability, log_student, index, figures)
        elif targets is not None:
            teacher_label = targets[rows].teacher_label
            grad = _coarse_divergence(probability, total, targets[rows], rules.gamma, scratch, spare[-1], figures)
        else:
            torch.log_softmax(references[0], -1, out=scratch)
            if rules.supervision is not None and index is not None:
                teacher_label = scratch.gather(1, index).squeeze(1)
            grad = _divergence(probability, total, log_student, references, rules.gamma, scratch, figures)
        own = weights[rows] if weights is not None else torch.ones_like(total)
        if rules.supervision is not None:
            assert index is not None
            assert teacher_label is not None
            assert figures.supervised is not None
            margins = teacher_label - log_student.gather(1, index).squeeze(1)
            figures.supervised.copy_(rules.supervision.follow(first_row + first, margins))
            figures.value.mul_(figures.supervised)
            own = own * figures.supervised
        if rules.clip is not None:
            assert figures.clipped is not None
            figures.clipped.copy_(figures.value > rules.clip)
            figures.value.clamp_(max=rules.clip)
            own = own * (1 - figures.clipped)
        if weights is None:
            continue
        if rules.caps[0] is not None:
            # d(cap tanh(x / cap)) / dx = 1 - (capped / cap)^2
            grad.mul_(torch.mul(student, student, out=scratch).div_(-(rules.caps[0] ** 2)).add_(1.0))
        torch.mul(grad, own[:, None], out=student)


def _likelihood(probability: Tensor, log_student: Tensor, index: Tensor, figures: TokenFigures) -> Tensor:
    """-log P of the labels; its gradient, P minus one at the label, takes P's place."""
    figures.value.copy_(log_student.gather(1, index).squeeze(1)).neg_()
    return probability.scatter_add_(1, index, probability.new_full((len(index), 1), -1.0))


def _divergence(
    probability: Tensor,
    total: Tensor,
    log_student: Tensor,
    references: Sequence[Tensor],
    gamma: float,
    logs: Tensor,
    figures: TokenFigures,
) -> Tensor:
    """The KL figures; their gradient P (f - value) takes the place of the teacher's logits.

    `total` is the sum of `probability` over the vocabulary; `logs` are the teacher's log-probabilities, and scratch afterwards.
    """
    assert figures.kl_teacher is not None
    assert figures.teacher_top_mass is not None
    teacher, *negative = references
    # Compared with the maximum instead of argmax, which takes longer than a softmax on a CPU.
    torch.ge(logs, logs.amax(-1, keepdim=True), out=teacher)
    torch.sum(teacher.mul_(probability), -1, out=figures.teacher_top_mass)
    # P f: what is summed for the value is also the gradient's larger part.
    product = torch.sub(log_student, logs, out=teacher).mul_(probability)
    torch.sum(product, -1, out=figures.kl_teacher).div_(total)
    figures.value.copy_(figures.kl_teacher)
    if figures.kl_negative is not None:
        torch.log_softmax(negative[0], -1, out=logs)
        against = torch.sub(log_student, logs, out=negative[0]).mul_(probability)
        torch.sum(against, -1, out=figures.kl_negative).div_(total)
        figures.value.sub_(figures.kl_negative, alpha=gamma)
        product.sub_(against, alpha=gamma)
    return product.addcmul_(probability, figures.value[:, None], value=-1)


def _coarse_divergence(
    probability: Tensor, total: Tensor, targets: TopK, gamma: float, product: Tensor, out: Tensor, figures: TokenFigures
) -> Tensor:
    """The KL figures on the references' partition, and their gradient in `out`.

    For the outcomes o, single tokens and the tail, the value is sum_o P_o f_o as above; a token of the tail shares the tail's f.
    """
    assert figures.kl_teacher is not None
    assert figures.teacher_top_mass is not None
    top = probability.gather(1, targets.ids)
    torch.sum(product.copy_(probability).scatter_(1, targets.ids, 0.0), -1, out=out[:, 0])
    mass = torch.cat([top, out[:, :1]], 1)
    log_mass = mass.clamp_min(torch.finfo(mass.dtype).tiny).log()
    f = log_mass - torch.cat([targets.teacher, targets.teacher_tail[:, None]], 1)
    figures.teacher_top_mass.copy_(top[:, 0])
    figures.kl_teacher.copy_((mass * f).sum(-1).div_(total))
    figures.value.copy_(figures.kl_teacher)
    if figures.kl_negative is not None:
        assert targets.negative is not None
        assert targets.negative_tail is not None
        against = log_mass - torch.cat([targets.negative, targets.negative_tail[:, None]], 1)
        figures.kl_negative.copy_((mass * against).sum(-1).div_(total))
        figures.value.sub_(figures.kl_negative, alpha=gamma)
        f = f - gamma * against
    f = f - figures.value[:, None]
    return out.copy_(f[:, -1:]).scatter_(1, targets.ids, f[:, :-1]).mul_(probability)
