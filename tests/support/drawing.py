"""Requests for engines under test, and what they drew."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from dail_runtime.records import Sample
from dail_runtime.rewrite.engine import Engine, Request, Sampling
from dail_runtime.spec.rewrite import MixedPolicy

LENGTH = 1024
ENDS = frozenset({7, 9, 11, 13, 15})
"""Ids that end a response here: with five of them random models stop after some 50 tokens."""
MIXED = MixedPolicy(kind="mixed", tau=0.05, tries=2)
HOW = Sampling(60, 0.9, 0.97, MIXED, (21,), ENDS)


def prompt(source: random.Random, shortest: int, longest: int) -> tuple[int, ...]:
    """Random ids, none of them special."""
    return tuple(source.randrange(20, 300) for _ in range(source.randrange(shortest, longest)))


def requests(count: int, samples: int, *, longest: int = 200) -> list[Request]:
    """Both contexts of `count` problems: the same ones whenever it is called with the same numbers."""
    source = random.Random(count)
    contexts = [(prompt(source, 2, 60), prompt(source, 30, longest)) for _ in range(count)]
    return [Request(str(n), both, tuple(range(samples)), 100 + n) for n, both in enumerate(contexts)]


def drawn(engine: Engine, asked: Sequence[Request], how: Sampling) -> dict[tuple[str, int], Sample]:
    """(problem, sample) -> the sample; fails where one is missing, came twice or was not asked for."""
    return collected(engine.generate(iter(asked), how), asked)


def collected(ended: Iterable[tuple[Request, tuple[Sample, ...]]], asked: Sequence[Request]) -> dict[tuple[str, int], Sample]:
    """The same from what `generate` yields."""
    pairs = [((request.key, one.index), one) for request, samples in ended for one in samples]
    found = dict(pairs)
    assert len(found) == len(pairs)
    assert found.keys() == {(request.key, index) for request in asked for index in request.samples}
    return found
