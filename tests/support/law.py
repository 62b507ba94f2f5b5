"""Whether responses follow the law of `mixed`, which is worked out here by writing its loop out: no closed form, no sampler of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dail_runtime.records import Sample
from dail_runtime.rewrite.engine import Request, Sampling
from dail_runtime.rewrite.policies import Shaping, distribution
from dail_runtime.spec.rewrite import MixedPolicy
from tests.support.drawing import ENDS

TAU, TRIES = 0.01, 4
LAW = Sampling(16, 0.5, 0.97, MixedPolicy(kind="mixed", tau=TAU, tries=TRIES), (21,), ENDS)
"""Settings under which the tiny model's students propose much that is kept, and much that is not."""


def mixed_law(student: Tensor, teacher: Tensor, tau: float, tries: int) -> Tensor:
    """Probabilities [rows, vocabulary] of the loop: every round keeps a proposal the teacher finds likely, and passes the rest on."""
    kept, left = teacher >= tau, torch.ones_like(student[:, :1])
    exact = torch.zeros_like(student)
    for _ in range(tries):
        exact += left * student * kept
        left = left * (student * ~kept).sum(dim=-1, keepdim=True)
    return exact + left * teacher


def surprise(expected: Tensor, seen: Tensor) -> float:
    """How many standard deviations the chi-square of the counts `seen` lies above what the `expected` ones make usual."""
    usual = expected >= 5
    wanted = torch.cat([expected[usual], expected[~usual].sum()[None]])
    counted = torch.cat([seen[usual], seen[~usual].sum()[None]])
    freedom = len(wanted) - 1
    assert freedom > 4
    chi = float(((counted - wanted) ** 2 / wanted.clamp_min(1e-9)).sum())
    return (chi - freedom) / (2 * freedom) ** 0.5


@dataclass(frozen=True)
class Places:
    """Every place of some responses: what both contexts say there, and what was drawn."""

    student: Tensor
    """[places, vocabulary], probabilities."""
    teacher: Tensor
    tokens: Tensor
    """[places]."""

    @classmethod
    @torch.inference_mode()
    def of(cls, model: PreTrainedModel, asked: Sequence[Request], found: Mapping[tuple[str, int], Sample], how: Sampling) -> Places:
        """From what was asked for and what came."""
        rows: tuple[list[Tensor], list[Tensor]] = ([], [])
        tokens: list[int] = []
        for request in asked:
            for index in request.samples:
                ids = found[request.key, index].ids
                tokens += ids
                for context, probs in zip(request.contexts, rows, strict=True):
                    logits = model(torch.tensor([[*context, *ids[:-1]]])).logits[0, len(context) - 1 :]
                    shaping = Shaping.of([how.temperature] * len(ids), [how.top_p] * len(ids), suppress=how.suppress)
                    probs.append(distribution(logits, shaping).double())
        return cls(torch.cat(rows[0]), torch.cat(rows[1]), torch.tensor(tokens))

    def surprise(self, tau: float, tries: int) -> float:
        """How unlikely the tokens' ranks for the teacher are under mixed(tau, tries): at most some 4 where they were drawn from it."""
        order = self.teacher.argsort(dim=-1, descending=True, stable=True)
        expected = mixed_law(self.student, self.teacher, tau, tries).gather(1, order).sum(dim=0)
        ranks = (order == self.tokens[:, None]).nonzero()[:, 1]
        seen = torch.bincount(ranks, minlength=len(expected)).double()
        return surprise(_grouped(expected), _grouped(seen))

    def misjudged(self, accepted: int, tau: float, tries: int) -> float:
        """How many standard deviations the number of tokens that the student drew is off what the loop gives."""
        share = 1 - (self.student * (self.teacher < tau)).sum(dim=-1) ** tries
        return float(abs(accepted - share.sum()) / (share * (1 - share)).sum().sqrt())


def assert_law(model: PreTrainedModel, asked: Sequence[Request], found: Mapping[tuple[str, int], Sample]) -> None:
    """Fails unless `found`, drawn by LAW, has its law, and unless this could be told from laws nearby."""
    places = Places.of(model, asked, found, LAW)
    accepted = sum(one.accepted or 0 for one in found.values())
    assert len(places.tokens) > 350
    assert places.surprise(TAU, TRIES) < 4
    assert places.misjudged(accepted, TAU, TRIES) < 4
    # The teacher alone, the student alone, another tau.
    assert min(places.surprise(tau, TRIES) for tau in (1.5, 0.0, 4 * TAU, TAU / 4)) > 5
    assert min(places.misjudged(accepted, TAU, tries) for tries in (TRIES // 2, 2 * TRIES)) > 5


def _grouped(counts: Tensor) -> Tensor:
    """Of the first, the next two, the next four, ..."""
    ends = [2**n - 1 for n in range(1, len(counts).bit_length())]
    return torch.stack([part.sum() for part in counts.tensor_split(ends)])
