"""The mathematics of the objective on rows of logits: figures per token, and the gradient in place of the student's logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK_BYTES = 1 << 26
"""What the element-wise work on one block of rows occupies on a CPU: little enough for its caches to help, and enough that its threads
do not wait for each other all the time, which on a busy machine costs more than the caches save."""


@dataclass(frozen=True)
class TokenFigures:
    """What is known of every token without a further pass; each [tokens], detached, None where the objective has no such thing."""

    value: Tensor
    """The objective: KL(P||T) - gamma KL(P||N), KL(P||T), or the negative log-likelihood, in nats."""
    entropy: Tensor
    """Entropy of P."""
    kl_teacher: Tensor | None = None
    """KL(P||T)."""
    kl_negative: Tensor | None = None
    """KL(P||N)."""
    teacher_top_mass: Tensor | None = None
    """What P gives to the teacher's most probable token (to all of them, where several tie)."""

    def __getitem__(self, rows: slice) -> TokenFigures:
        """The figures of some tokens: views, so that writing to them fills in these."""

        def part(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[rows]

        return TokenFigures(
            self.value[rows], self.entropy[rows], part(self.kl_teacher), part(self.kl_negative), part(self.teacher_top_mass)
        )


def rows_to_figures(
    logits: Sequence[Tensor],
    caps: Sequence[float | None],
    labels: Tensor | None,
    gamma: float,
    into: TokenFigures,
    weights: Tensor | None,
) -> None:
    """Fill in the figures of some tokens; the logits are used up.

    Args:
        logits: The student's, then the teacher's and the negative reference's where the objective has them; each [n, V].
        caps: The soft-cap of each, which has not been applied yet.
        labels: The ids [n] of an objective without references.
        gamma: Weight of the negative reference.
        into: Takes the results.
        weights: Weight of each token [n]: leave in `logits[0]` the gradient of the weighted sum of the values with respect to the
            student's logits as they were before the cap. None: no gradient is wanted.
    """
    count, vocabulary = logits[0].shape
    block = count
    if logits[0].device.type == "cpu":
        # A dozen passes over the rows follow: they are cheap only while the rows stay in or near the cache.
        block = max(torch.get_num_threads(), BLOCK_BYTES // (vocabulary * logits[0].element_size() * (2 * len(logits) + 2)))
    room = [logits[0].new_empty(min(block, count), vocabulary) for _ in range(len(logits) + 2)]
    for first in range(0, count, block):
        rows = slice(first, min(first + block, count))
        student, *references = [one[rows] for one in logits]
        probability, product, log_student, *logs = [one[: rows.stop - first] for one in room]
        for one, cap in zip((student, *references), caps, strict=True):
            if cap is not None:
                one.div_(cap).tanh_().mul_(cap)
        torch.exp(torch.log_softmax(student, -1, out=log_student), out=probability)
        figures = into[rows]
        # P adds up to 1 but for some 1e-6, which the means below would multiply by log-ratios of 10 and more: they divide by it.
        total = probability.sum(-1)
        torch.sum(torch.mul(probability, log_student, out=product), -1, out=figures.entropy).neg_().div_(total)
        if labels is not None:
            grad = _likelihood(probability, log_student, labels[rows], figures)
        else:
            for one, log in zip(references, logs, strict=True):
                torch.log_softmax(one, -1, out=log)
            grad = _divergence(probability, total, log_student, logs, gamma, product, figures)
        if weights is None:
            continue
        if caps[0] is not None:
            # d(cap tanh(x / cap)) / dx = 1 - (capped / cap)^2
            grad.mul_(torch.mul(student, student, out=product).div_(-(caps[0] ** 2)).add_(1.0))
        torch.mul(grad, weights[rows, None], out=student)


def _likelihood(probability: Tensor, log_student: Tensor, labels: Tensor, figures: TokenFigures) -> Tensor:
    """-log P of the labels; its gradient, P minus one at the label, takes P's place."""
    index = labels[:, None]
    figures.value.copy_(log_student.gather(1, index).squeeze(1)).neg_()
    return probability.scatter_add_(1, index, probability.new_full((len(labels), 1), -1.0))


def _divergence(
    probability: Tensor, total: Tensor, log_student: Tensor, logs: Sequence[Tensor], gamma: float, product: Tensor, figures: TokenFigures
) -> Tensor:
    """The KL figures; their gradient P (f - value) takes the place of the teacher's log-probabilities.

    `total` is the sum of `probability` over the vocabulary, `product` is scratch.
    """
    assert figures.kl_teacher is not None
    assert figures.teacher_top_mass is not None
    # Compared with the maximum instead of argmax, which takes longer than a softmax on a CPU.
    torch.ge(logs[0], logs[0].amax(-1, keepdim=True), out=product)
    torch.sum(product.mul_(probability), -1, out=figures.teacher_top_mass)
    f = torch.sub(log_student, logs[0], out=logs[0])
    torch.sum(torch.mul(probability, f, out=product), -1, out=figures.kl_teacher).div_(total)
    figures.value.copy_(figures.kl_teacher)
    if figures.kl_negative is not None:
        against = torch.sub(log_student, logs[1], out=logs[1])
        torch.sum(torch.mul(probability, against, out=product), -1, out=figures.kl_negative).div_(total)
        figures.value.sub_(figures.kl_negative, alpha=gamma)
        f.sub_(against, alpha=gamma)
    return f.sub_(figures.value[:, None]).mul_(probability)
