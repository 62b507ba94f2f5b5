"""Traces scored under the three contexts of the base model, a chunk of tokens at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from dail_runtime.check.records import TraceFigures
from dail_runtime.train.data import Context, Row

CHUNK = 256
"""Response tokens whose logits exist at once."""
COLD = 0.01
CONTEXTS: tuple[Context, ...] = ("teacher", "negative", "student")


@torch.inference_mode()
def score(model: PreTrainedModel, traces: Iterable[Row]) -> TraceFigures | None:
    """Figures over all tokens of `traces`, whose rows have all three contexts; None where there are none.

    No [tokens, vocabulary] tensor of a whole trace ever exists.
    """
    totals = torch.zeros(5, dtype=torch.float64)
    count = tokens = 0
    for trace in traces:
        rows = zip(*(log_probabilities(model, trace.prompts[context], trace.response) for context in CONTEXTS), strict=True)
        for start, (teacher, negative, student) in zip(range(0, len(trace.response), CHUNK), rows, strict=True):
            labels = torch.tensor(trace.response[start : start + CHUNK], device=model.device)[:, None]
            mass = student.gather(1, teacher.argmax(dim=-1, keepdim=True)).exp()
            figures = [-one.gather(1, labels).double().sum() for one in (teacher, negative, student)]
            totals += torch.stack([*figures, mass.double().sum(), (mass < COLD).double().sum()]).cpu()
        count += 1
        tokens += len(trace.response)
    if not tokens:
        return None
    nll_teacher, nll_negative, nll_student, top_mass, cold = (totals / tokens).tolist()
    return TraceFigures(
        traces=count,
        tokens=tokens,
        nll_teacher=nll_teacher,
        nll_negative=nll_negative,
        nll_student=nll_student,
        teacher_top_mass=top_mass,
        cold_tokens=cold,
    )


def log_probabilities(model: PreTrainedModel, prompt: Sequence[int], response: Sequence[int]) -> Iterator[Tensor]:
    """Log-probabilities [at most CHUNK, vocabulary], fp32, of the rows that predict `response` after `prompt`, in order.

    The first forward pass takes the prompt and the first chunk; later ones go on from the cache, so that logits are only
    ever made for one chunk, whatever the architecture does to them.
    """
    cache = DynamicCache(config=model.config)
    fed = list(prompt)
    for start in range(0, len(response), CHUNK):
        size = min(CHUNK, len(response) - start)
        # Row i predicts token i: the last token of a chunk is fed with the next one.
        fed += response[start : start + size - 1]
        out = model(torch.tensor([fed], device=model.device), past_key_values=cache, use_cache=True, logits_to_keep=size)
        yield torch.log_softmax(out.logits[0].float(), dim=-1)
        fed = [response[start + size - 1]]
