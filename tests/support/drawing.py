"""Requests for engines under test, what they drew, and what all of them must do."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from dail_runtime.errors import ModelError
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


def fills_the_model(engine: Engine) -> None:
    """Fails unless prompts of an engine with LENGTH may leave room for a single token, and no longer ones are taken."""
    source = random.Random(1)
    long, nearly = (tuple(source.randrange(20, 300) for _ in range(size)) for size in (LENGTH - 1, LENGTH - 10))
    short = prompt(source, 2, 20)
    asked = [Request("full", (short, long), (0, 1), 1), Request("nearly", (nearly, short), (0, 1), 2)]
    found = drawn(engine, asked, replace(HOW, eos=frozenset()))
    assert {key: (len(one.ids), one.finish) for (key, _), one in found.items()} == {"full": (1, "length"), "nearly": (10, "length")}
    with pytest.raises(ModelError, match="over: a prompt of 1024 tokens leaves no room"):
        drawn(engine, [Request("over", (short, (*long, 30)), (0,), 1)], HOW)


def ends_at_once(engine: Engine) -> None:
    """Fails unless responses may consist of the token that ends them."""
    # More ids than the model has rows, as some models' files name them.
    found = drawn(engine, requests(6, 2), replace(HOW, eos=frozenset(range(448))))
    assert {(len(one.ids), one.finish) for one in found.values()} == {(1, "stop")}
