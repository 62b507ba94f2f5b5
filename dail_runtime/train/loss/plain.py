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
) -> Tensor:
    """The objective of every token [tokens], differentiable; the arguments are those of `fused_loss`."""
    student = torch.log_softmax(plain_logits(hidden, head), -1)
    if labels is not None:
        return -student.gather(1, labels[:, None]).squeeze(1)
    assert teacher is not None
    with torch.no_grad():
        target = torch.log_softmax(plain_logits(teacher, head), -1)
        against = None if negative is None else torch.log_softmax(plain_logits(negative, head), -1)
    probability = student.exp()
    value = (probability * (student - target)).sum(-1)
    if objective == "contrastive" and against is not None:
        value = value - gamma * (probability * (student - against)).sum(-1)
    return value
