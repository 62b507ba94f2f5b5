"""Fates: one for each sample, by the rules, and the same whatever the order."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dail_runtime.records import Sample, Verdict
from dail_runtime.select import Fate, fates
from dail_runtime.spec.select import SelectSpec


def sample(index: int, text: str = "", finish: Any = "stop", ids: tuple[int, ...] | None = None) -> Sample:
    return Sample(index=index, ids=(index,) if ids is None else ids, text=text, finish=finish, logprob=-1.0)


def decide(
    samples: Sequence[Sample], verdicts: Sequence[Verdict | None], *, contaminated: bool = False, seed: int = 0, **spec: Any
) -> list[Fate]:
    rules = SelectSpec.model_validate(spec)
    return fates(samples, verdicts, rules, problem="p", seed=seed, contaminated=contaminated, leaks=lambda text: "leak" in text)


def test_each_rule_has_its_fate() -> None:
    samples = [sample(0), sample(1), sample(2, finish="length"), sample(3, "leak"), sample(4)]
    assert decide(samples, ["wrong", "unparsed", "right", "right", "right"]) == ["wrong", "unparsed", "truncated", "leak", "kept"]
    assert decide(samples, [None] * 5) == ["no_answer", "no_answer", "truncated", "no_answer", "no_answer"]
    assert decide(samples, ["right"] * 5, contaminated=True) == ["contaminated"] * 5


def test_more_good_ones_than_wanted_are_surplus_and_copies_are_duplicates() -> None:
    samples = [sample(n, ids=(n // 2,)) for n in range(6)]
    assert Counter(decide(samples, ["right"] * 6)) == {"kept": 1, "surplus": 4, "duplicate": 1}
    assert Counter(decide(samples, ["right"] * 6, keep=2)) == {"kept": 2, "surplus": 2, "duplicate": 2}
    assert Counter(decide(samples, ["right"] * 6, keep=9)) == {"kept": 3, "duplicate": 3}


def test_without_required_correctness_proofs_are_kept_and_right_traces_come_first() -> None:
    assert Counter(decide([sample(n) for n in range(3)], [None] * 3, requireCorrect=False)) == {"kept": 1, "surplus": 2}
    for seed in range(20):
        assert decide([sample(n) for n in range(3)], ["wrong", "right", "unparsed"], seed=seed, requireCorrect=False)[1] == "kept"
    assert decide([sample(0)], ["wrong"], requireCorrect=False) == ["kept"]


def test_the_choice_is_seeded_and_even() -> None:
    samples = [sample(n) for n in range(4)]
    chosen = Counter(decide(samples, ["right"] * 4, seed=seed).index("kept") for seed in range(2000))
    assert all(400 < number < 600 for number in chosen.values())
    assert decide(samples, ["right"] * 4, seed=5) == decide(samples, ["right"] * 4, seed=5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["right", "wrong", "unparsed"]), max_size=12), st.integers(1, 4), st.randoms(use_true_random=False))
def test_order_plays_no_part_and_every_sample_has_one_fate(verdicts: list[Verdict], keep: int, rng: random.Random) -> None:
    samples = [sample(n) for n in range(len(verdicts))]
    found = decide(samples, verdicts, keep=keep)
    order = rng.sample(range(len(verdicts)), len(verdicts))
    moved = decide([samples[n] for n in order], [verdicts[n] for n in order], keep=keep)
    assert [found[n] for n in order] == moved
    assert found.count("kept") == min(keep, verdicts.count("right"))
