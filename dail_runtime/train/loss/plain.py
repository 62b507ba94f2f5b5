"""The objective as one would write it first, through autograd and three log-softmaxes: the yardstick for tests and benchmarks."""

from __future__ import annotations

import torch
from torch import Tensor

from dail_runtime.spec.train import Objective
from dail_runtime.train.loss.head import Head


def plain_logits(hidden: Tensor, head: Head) -> Tensor:
    """Logits [tokens, V] of hidden states [tokens, H]."""
    logits = head.scale * torch.nn.functional.linear(hidden, head.weight, head.bias)
    return logits if head.cap is None else head.cap * torch.tanh(logits / head.cap)


def plain_values(
    hidden: Tensor,
    head: Head,
    *,
    objective: Objective,
    labels: Tensor | None = None,
    teacher: Tensor | None = None,
    negative: Tensor | None = None,
    gamma: float = 0.1,
    top_k: int | None = None,
) -> Tensor:
    """The objective of every token [tokens], differentiable; the arguments are those of `fused_loss`.

    `top_k`: on the partition into the teacher's k most probable tokens and all others.
    """
    student = torch.log_softmax(plain_logits(hidden, head), -1)
    if objective in ("nll", "sft"):
        assert labels is not None
        return -student.gather(1, labels[:, None]).squeeze(1)
    assert teacher is not None
    with torch.no_grad():
        target = torch.log_softmax(plain_logits(teacher, head), -1)
        against = None if negative is None else torch.log_softmax(plain_logits(negative, head), -1)
    if top_k is not None:
        ids = target.topk(top_k, -1).indices
        student, target = (_coarse(one, ids) for one in (student, target))
        against = None if against is None else _coarse(against, ids)
    probability = student.exp()
    value = (probability * (student - target)).sum(-1)
    if objective == "contrastive" and against is not None:
        value = value - gamma * (probability * (student - against)).sum(-1)
    return value


def _coarse(logs: Tensor, ids: Tensor) -> Tensor:
    """Log-probabilities [tokens, k + 1] of `ids` [tokens, k] and of everything else together."""
    rest = torch.ones_like(logs).scatter(1, ids, 0.0)
    return torch.cat([logs.gather(1, ids), (logs.exp() * rest).sum(-1, keepdim=True).log()], 1)
