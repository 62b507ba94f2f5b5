"""References by their k most probable tokens and one tail: all that is kept of them, or all that a server tells."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dail_runtime.train.loss.head import Head


@dataclass(frozen=True)
class TopK:
    """Both references on one partition of the vocabulary: the teacher's k most probable tokens, each by itself, and all others together.

    KL divergences on a partition are those of the coarser distributions, never above the full ones. Both references share the
    partition, so the contrastive objective stays a KL to one target, and bounded below.
    """

    ids: Tensor
    """[tokens, k], the most probable first."""
    teacher: Tensor
    """log T of these tokens [tokens, k]."""
    teacher_tail: Tensor
    """log of what T gives to all others [tokens]."""
    negative: Tensor | None = None
    """log N of these tokens [tokens, k]."""
    negative_tail: Tensor | None = None
    """log of what N gives to all others [tokens]."""
    teacher_label: Tensor | None = None
    """log T of the token that comes next [tokens]."""

    def __getitem__(self, rows: slice) -> TopK:
        """The references of some tokens."""
        return TopK(*(None if one is None else one[rows] for one in self._fields()))  # type: ignore[arg-type]

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.ids)

    def packed(self) -> Tensor:
        """Everything in one float32 tensor [tokens, columns(...)]; ids are exact in float32 below 2^24."""
        return torch.cat([one.float().view(len(self), -1) for one in self._fields() if one is not None], 1)

    @classmethod
    def unpacked(cls, packed: Tensor, k: int, *, negative: bool) -> TopK:
        """What `packed` packed."""
        sizes = [k, k, 1, k, 1, 1] if negative else [k, k, 1, 1]
        parts = list(torch.split(packed, sizes, 1))
        ids, teacher, tail, *rest, label = parts
        others = (rest[0], rest[1].squeeze(1)) if negative else (None, None)
        return cls(ids.long(), teacher, tail.squeeze(1), others[0], others[1], label.squeeze(1))

    def _fields(self) -> tuple[Tensor | None, ...]:
        return self.ids, self.teacher, self.teacher_tail, self.negative, self.negative_tail, self.teacher_label


def columns(k: int, *, negative: bool) -> int:
    """Numbers a token takes in `TopK.packed`."""
    return 3 * k + 3 if negative else 2 * k + 2


@torch.no_grad()
def top_k(teacher: Tensor, negative: Tensor | None, head: Head, labels: Tensor, k: int, *, chunk_tokens: int = 1024) -> TopK:
    """The references of hidden states [tokens, H] by the teacher's `k` most probable tokens, in chunks; `labels` [tokens] come next."""
    alone = teacher_top_k(teacher, head, labels, k, chunk_tokens=chunk_tokens)
    return alone if negative is None else with_negative(alone, negative, head, chunk_tokens=chunk_tokens)


@torch.no_grad()
def teacher_top_k(teacher: Tensor, head: Head, labels: Tensor, k: int, *, chunk_tokens: int = 1024) -> TopK:
    """As `top_k`, of the teacher alone."""
    parts: list[tuple[Tensor, ...]] = []
    for first in range(0, max(len(teacher), 1), chunk_tokens):
        rows = slice(first, first + chunk_tokens)
        logs = torch.log_softmax(head.logits(teacher[rows]), -1)
        label = logs.gather(1, labels[rows, None]).squeeze(1)
        best, ids = logs.topk(min(k, head.vocabulary), -1)
        parts.append((ids, best, _tail(logs, ids), label))
    ids, best, tail, label = (torch.cat(field) for field in zip(*parts, strict=True))
    return TopK(ids, best, tail, teacher_label=label)


@torch.no_grad()
def with_negative(targets: TopK, negative: Tensor, head: Head, *, chunk_tokens: int = 1024) -> TopK:
    """`targets` with the negative reference of hidden states [tokens, H] on the same partition."""
    parts: list[tuple[Tensor, ...]] = []
    for first in range(0, max(len(negative), 1), chunk_tokens):
        rows = slice(first, first + chunk_tokens)
        logs, ids = torch.log_softmax(head.logits(negative[rows]), -1), targets.ids[rows]
        parts.append((logs.gather(1, ids), _tail(logs, ids)))
    found, tail = (torch.cat(field) for field in zip(*parts, strict=True))
    return replace(targets, negative=found, negative_tail=tail)


def _tail(logs: Tensor, ids: Tensor) -> Tensor:
    """log of the probability of all but `ids`; the logs are used up. Summed, not one minus the rest, which cancels."""
    tail = torch.logsumexp(logs.scatter_(1, ids, -torch.inf), -1)
    # Nothing is left where k is the vocabulary: a finite number, so that 0 times it is 0.
    return tail.clamp_min(torch.finfo(logs.dtype).min / 4)
