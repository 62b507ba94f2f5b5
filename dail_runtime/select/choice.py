"""What becomes of each trace of a problem: kept, or dropped for one reason. Pure; seeded by problem, so order plays no part."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

from dail_runtime.records import Sample, Verdict
from dail_runtime.spec.select import SelectSpec

Fate = Literal["kept", "contaminated", "truncated", "no_answer", "wrong", "unparsed", "leak", "duplicate", "surplus"]


def fates(
    samples: Sequence[Sample],
    verdicts: Sequence[Verdict | None],
    spec: SelectSpec,
    *,
    problem: str,
    seed: int,
    contaminated: bool,
    leaks: Callable[[str], bool],
) -> list[Fate]:
    """The fate of each sample, in order.

    A sample has the first fate that applies, in the order of `Fate`. Of those left, copies of one another count once, and
    `spec.keep` are chosen: a right one before any other (they only compete without `requireCorrect`), then by a hash of
    seed, problem and sample.

    Args:
        samples: all samples of one problem.
        verdicts: the grade of each, None without a known answer.
        spec: the rules.
        problem: the problem's id.
        seed: the job's seed.
        contaminated: whether the problem is in an evaluation set.
        leaks: whether a text speaks of the reference.
    """

    def first_fate(sample: Sample, verdict: Verdict | None) -> Fate | None:
        if contaminated:
            return "contaminated"
        if sample.finish == "length":
            return "truncated"
        if spec.require_correct and verdict != "right":
            return verdict or "no_answer"
        return "leak" if leaks(sample.text) else None

    found = [first_fate(sample, verdict) for sample, verdict in zip(samples, verdicts, strict=True)]
    order = sorted(
        (index for index, fate in enumerate(found) if fate is None),
        key=lambda index: (verdicts[index] not in ("right", None), _rank(seed, problem, samples[index].index)),
    )
    chosen: set[tuple[int, ...]] = set()
    for index in order:
        ids = samples[index].ids
        if ids in chosen:
            found[index] = "duplicate"
        elif len(chosen) < spec.keep:
            chosen.add(ids)
            found[index] = "kept"
        else:
            found[index] = "surplus"
    return [fate or "kept" for fate in found]


def _rank(seed: int, problem: str, index: int) -> str:
    return hashlib.sha256(f"{seed} {problem} {index}".encode()).hexdigest()
