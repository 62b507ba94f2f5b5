"""The rewrite policies as pure functions of logits: one row for `direct`, a student and a teacher row for `mixed`.

Symbols, per row. M_th (student) and M_T (teacher) are the distributions that are SAMPLED from: suppressed ids masked, then
temperature, softmax and nucleus, in fp32 whatever the model's type. The same settings act on both, and M_T in the
acceptance test is that same distribution, so that one symbol means one thing:

    A = {t: M_T(t) >= tau}                      acceptable tokens
    a = 1 - (1 - M_th(A))^tries                 chance that one of `tries` student proposals is accepted
    m = a M_th|A + (1 - a) M_T                  what the retry loop draws from, in closed form

So tau = 0 is the student, tau > 1 the teacher. At temperature 0 M_T is a point, A its token (for tau > 0), and m is M_T.
The total variation distance between m and M_T is a TV(M_th|A, M_T). For tau > 0.5 A holds at most one token, and the
distance is at most 1 - tau: the mixture is then nearly the teacher's.

Everything is a tensor of rows; nothing here synchronises with the host on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

GREEDY_BELOW = 1e-5
"""Temperatures under this are greedy: dividing by them would overflow fp32."""

_BELOW_ONE = 1.0 - 2.0**-24
"""Largest fp32 number under 1. A uniform of at most this, times a total, rounds to less than the total."""


@dataclass(frozen=True)
class Shaping:
    """How logits become the distribution that is sampled from. Settings per row; what the host needs to know is in flags."""

    temperature: Tensor
    """[rows, 1] fp32; 1 in greedy rows."""
    top_p: Tensor
    """[rows, 1] fp32."""
    greedy: Tensor | None
    """[rows, 1] bool, or None where no row is greedy."""
    tempered: bool
    """Whether any temperature differs from 1."""
    nucleus: Tensor | None
    """Indices of the rows with top_p < 1 (int64), or None where no row has one."""
    suppress: Tensor | None
    """Ids no row may draw (int64), or None."""

    @classmethod
    def of(
        cls,
        temperature: Sequence[float],
        top_p: Sequence[float],
        *,
        suppress: Sequence[int] = (),
        device: torch.device | str = "cpu",
    ) -> Shaping:
        """Settings of one row each. Build it when the rows change, not at every step: it copies to the device."""
        if len(temperature) != len(top_p):
            raise ValueError(f"{len(temperature)} temperatures but {len(top_p)} top_p values")
        greedy = [one < GREEDY_BELOW for one in temperature]
        # A greedy row is a point already; cutting a nucleus from it would change nothing.
        nucleus = [row for row, one in enumerate(top_p) if one < 1 and not greedy[row]]
        smooth = [1.0 if cold else one for one, cold in zip(temperature, greedy, strict=True)]
        return cls(
            temperature=torch.tensor(smooth, dtype=torch.float32, device=device)[:, None],
            top_p=torch.tensor(top_p, dtype=torch.float32, device=device)[:, None],
            greedy=torch.tensor(greedy, device=device)[:, None] if any(greedy) else None,
            tempered=any(one != 1 for one in smooth),
            nucleus=torch.tensor(nucleus, dtype=torch.int64, device=device) if nucleus else None,
            suppress=torch.tensor(sorted(set(suppress)), dtype=torch.int64, device=device) if suppress else None,
        )


@dataclass(frozen=True)
class Draw:
    """One token per row."""

    token: Tensor
    """[rows] int64."""
    logprob: Tensor
    """[rows] fp32: log-probability of the token under the distribution it was drawn from, in nats. NaN where logits were not finite."""


@dataclass(frozen=True)
class MixedDraw(Draw):
    """One token per row, drawn from the mixture."""

    student: Tensor
    """[rows] bool: whether the student's branch of the mixture drew it."""
    distance: Tensor
    """[rows] fp32: total variation distance between the mixture and M_T."""


def distribution(logits: Tensor, shaping: Shaping) -> Tensor:
    """Probabilities [rows, vocabulary] in fp32: mask, temperature, softmax, nucleus.

    The nucleus is the smallest set of most probable tokens whose mass reaches top_p, together with all tokens exactly
    as probable as the last of them: ties are not broken by position.
    """
    scores = logits.float()
    if shaping.suppress is not None:
        scores = scores.index_fill(1, shaping.suppress, -torch.inf)
    probs = torch.softmax(scores / shaping.temperature if shaping.tempered else scores, dim=-1)
    if shaping.nucleus is not None:
        if shaping.nucleus.numel() == probs.shape[0]:
            probs = _nucleus(probs, shaping.top_p)
        else:
            probs.index_copy_(0, shaping.nucleus, _nucleus(probs[shaping.nucleus], shaping.top_p[shaping.nucleus]))
    if shaping.greedy is not None:
        point = torch.zeros_like(probs).scatter_(1, scores.argmax(dim=-1, keepdim=True), 1.0)
        # Rows of NaN stay NaN: the caller must hear of them.
        probs = torch.where(shaping.greedy & ~probs.isnan(), point, probs)
    return probs


def direct(logits: Tensor, shaping: Shaping, uniform: Tensor) -> Draw:
    """Draw from one distribution by its inverse CDF.

    Args:
        logits: [rows, vocabulary], any float type.
        uniform: [rows] fp64 in [0, 1).
    """
    probs = distribution(logits, shaping)
    token = _inverse_cdf(probs, uniform)
    return Draw(token, _at(probs, token).log_())


def mixed(student: Tensor, teacher: Tensor, shaping: Shaping, tau: Tensor, tries: Tensor | None, uniform: Tensor) -> MixedDraw:
    """Draw from m (see the module's docstring) and say which branch drew.

    One uniform serves both choices: below `a` the student's branch draws, and what is left of the uniform, stretched back
    to [0, 1), picks the token within the branch. Token and branch then have exactly the joint distribution of the loop
    that proposes up to `tries` times, and the token alone has m.

    Args:
        student, teacher: Logits [rows, vocabulary] of the two contexts.
        tau: [rows] fp32.
        tries: [rows], proposals per token; None: one in every row.
        uniform: [rows] fp64 in [0, 1).
    """
    own = distribution(student, shaping)
    shown = distribution(teacher, shaping)
    # Comparing into a float and multiplying, and below mixing by weights of 0 and 1, is exact and takes a CPU a quarter of the time
    # that masks take.
    kept = torch.ge(shown, tau[:, None], out=torch.empty_like(shown)).mul_(own)
    kept_mass = kept.sum(dim=-1)
    # A ratio of two sums of the same terms: exactly 1 where A covers the student's support, so that tau = 0 is the student.
    mass = (kept_mass / own.sum(dim=-1)).double()
    accept = mass if tries is None else 1 - (1 - mass) ** tries
    from_student = uniform < accept
    rest = torch.where(from_student, uniform / accept, (uniform - accept) / (1 - accept))
    token = _inverse_cdf(torch.lerp(shown, kept, from_student.float()[:, None]), rest)
    renormalised = kept.div_(kept_mass.clamp_min_(torch.finfo(torch.float32).tiny)[:, None])
    prob = torch.lerp(_at(shown, token).double(), _at(renormalised, token).double(), accept)
    distance = accept * renormalised.sub_(shown).abs_().sum(dim=-1) / 2
    return MixedDraw(token, prob.log_().float(), from_student, distance.float())


def _at(probs: Tensor, token: Tensor) -> Tensor:
    return probs.gather(1, token[:, None])[:, 0]


def _inverse_cdf(weights: Tensor, uniform: Tensor) -> Tensor:
    """The token [rows] at which the running sum of `weights` passes uniform times their total; never one of weight 0."""
    reached, share = weights.cumsum(dim=-1), uniform.float().clamp_(0.0, _BELOW_ONE)
    if weights.device.type == "cpu":
        # One sum after the other: it never falls, and rises only at tokens that can be drawn. Rows of NaN find no token.
        found = torch.searchsorted(reached, (reached[:, -1] * share)[:, None], right=True)[:, 0]
        return found.clamp_max_(weights.shape[-1] - 1)
    # Parallel sums on a GPU need not rise strictly: what counts is the running sum AT tokens that can be drawn.
    reached.masked_fill_(weights == 0, 0.0)
    goal = reached.amax(dim=-1) * share
    return (reached > goal[:, None]).to(torch.uint8).argmax(dim=-1)


def _nucleus(probs: Tensor, top_p: Tensor) -> Tensor:
    """Cut rows to their nucleus and renormalise. Only sorted values are needed: the least kept one is the cut."""
    width = probs.shape[-1]
    if probs.device.type == "cpu":
        # All tokens below (1 - top_p)/V together weigh less than 1 - top_p, so the nucleus is among the others: a handful
        # of 150,000 as a rule, and sorting is most of the work of a step on a CPU. On a GPU the count would cost a sync.
        width = int((probs >= (1 - top_p) / width).sum(dim=-1).max().clamp_min(1))
    ranked = probs.topk(width, dim=-1).values if width < probs.shape[-1] else probs.sort(dim=-1, descending=True).values
    size = (ranked.cumsum(dim=-1) - ranked < top_p).sum(dim=-1, keepdim=True).clamp_min(1)  # 0 only for rows of NaN
    probs = probs.masked_fill(probs < ranked.gather(1, size - 1), 0.0)
    return probs / probs.sum(dim=-1, keepdim=True)
