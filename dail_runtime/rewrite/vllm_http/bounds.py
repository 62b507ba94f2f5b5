"""What the most likely tokens alone say about a token's probability: bounds that hold whatever the rest of the vocabulary looks like.

A server tells the K greatest log-probabilities of a distribution at temperature 1. The policy needs M(t) after temperature and
nucleus. What is not told has a known total mass, no token of it is more likely than the least one told, and so its mass after the
temperature lies between two numbers; with them, so do the nucleus and M(t). Where both ends lie on one side of tau, the acceptance
test is decided, exactly. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from dail_runtime.rewrite.policies import GREEDY_BELOW

_ROUNDING = 1e-5
"""Relative error that the fp32 log-probabilities of a server may have; bounds are widened by it."""


def bounds(
    told: Mapping[int, float],
    token: int,
    *,
    top: int,
    vocabulary: int,
    temperature: float,
    top_p: float,
    suppress: Collection[int] = (),
) -> tuple[float, float]:
    """Least and greatest possible M(token).

    Args:
        told: Token id -> log-probability at temperature 1: the `top` most likely tokens, and perhaps others.
        vocabulary: Number of tokens in all.
        suppress: Ids that are masked before the softmax.
    """
    if token in suppress:
        return 0.0, 0.0
    ranked = sorted(told.items(), key=lambda one: -one[1])
    hidden = vocabulary - len(ranked)
    if temperature < GREEDY_BELOW:
        return _greedy(ranked, token, suppress)
    told_mass = sum(math.exp(value) for _, value in ranked)
    rest = max(0.0, 1.0 - told_mass) + _ROUNDING * told_mass
    # No token that was not told is more likely than the last of the most likely ones.
    ceiling = math.exp(ranked[min(top, len(ranked)) - 1][1])
    weights = [(id_, math.exp(value / temperature)) for id_, value in ranked if id_ not in suppress]
    known = sum(weight for _, weight in weights)
    most = known + (_most(rest, ceiling, hidden, temperature) if hidden > 0 else 0.0)
    if not known:
        return 0.0, 1.0
    weight = dict(weights).get(token)
    low, high = (0.0, ceiling ** (1 / temperature)) if weight is None else (weight, weight)
    if top_p >= 1:
        return _widened(low / most, high / known)
    least_kept, surely = _nucleus(weights, token, top_p, known)
    most_kept, perhaps = _nucleus(weights, token, top_p, most)
    if hidden > 0 and token not in {id_ for id_, _ in ranked[:top]}:
        # Others that were not told may come before it.
        surely, perhaps = False, perhaps or most_kept is None
    if not perhaps:
        return 0.0, 0.0
    greatest = most if most_kept is None else most_kept
    return _widened(low / greatest if surely else 0.0, high / (known if least_kept is None else least_kept))


def _greedy(ranked: list[tuple[int, float]], token: int, suppress: Collection[int]) -> tuple[float, float]:
    """A point on the most likely token that is not suppressed."""
    best = next((id_ for id_, _ in ranked if id_ not in suppress), None)
    if best is None:
        return 0.0, 1.0
    return (1.0, 1.0) if best == token else (0.0, 0.0)


def _most(rest: float, ceiling: float, hidden: int, temperature: float) -> float:
    """The greatest mass after the temperature of `hidden` tokens of total mass `rest`, none above `ceiling`."""
    if temperature <= 1:
        # p^(1/T) is convex: greatest where the mass sits in as few tokens as the ceiling allows.
        return float(rest * ceiling ** (1 / temperature - 1))
    # Concave: greatest where it is spread evenly.
    return float(hidden * (rest / hidden) ** (1 / temperature))


def _nucleus(weights: list[tuple[int, float]], token: int, top_p: float, total: float) -> tuple[float | None, bool]:
    """Mass of the nucleus if all weights together are `total`, None where it reaches beyond those told; and whether `token` is in it."""
    mass, last, inside = 0.0, math.inf, False
    for id_, weight in weights:
        # Tokens exactly as likely as the last kept one are kept as well.
        if mass >= top_p * total and weight < last:
            return mass, inside
        mass, last = mass + weight, weight
        inside = inside or id_ == token
    return (mass if mass >= top_p * total else None), inside


def _widened(low: float, high: float) -> tuple[float, float]:
    return low * (1 - _ROUNDING), min(1.0, high * (1 + _ROUNDING))
