"""The grader: a response and the known answer in, a verdict out; the same for choosing traces and for measuring models."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from dail_runtime.evaluate.grading.compare import same
from dail_runtime.evaluate.grading.extract import answer_part, last_boxed, lenient_answers
from dail_runtime.evaluate.grading.pool import Outcome, WorkerPool
from dail_runtime.records import Verdict

SECONDS = 5.0
"""CPU seconds that one comparison may take."""
MEGABYTES = 1024
"""Address space of a worker."""
_REMEMBERED = 100_000


@dataclass(frozen=True)
class Grade:
    """What a response is worth."""

    verdict: Verdict
    """By the box alone. `unparsed`: no box, an empty one, one that is cut off, or no </think> in a thinking model's response."""
    extracted: str | None
    """Content of the last box."""
    lenient: bool
    """Right, or, where there is no box to grade, right by `#### x`, "the answer is x" or the last number. Never decides anything."""
    timed_out: bool = False
    """The comparison ended at its time limit (or crashed its worker) and counts as wrong."""


class Grader:
    """Grades responses; use it as a context manager, it may hold worker processes.

    Most answers are compared in this process. What takes algebra goes to math-verify in worker processes with a CPU and a memory limit.
    Each distinct (answer, extracted) pair is compared once. Safe to use from several threads.

    Raises:
        SetupError: algebra is needed and math-verify is not installed.
    """

    def __init__(self, *, workers: int | None = None, seconds: float = SECONDS, megabytes: int = MEGABYTES) -> None:
        self._pool = WorkerPool(workers=workers or max(1, min(4, os.cpu_count() or 1)), seconds=seconds, megabytes=megabytes)
        self._known: OrderedDict[tuple[str, str], Outcome] = OrderedDict()
        self.timeouts = 0
        """Distinct comparisons that ended at the time limit."""
        self.crashes = 0
        """Distinct comparisons that ended their worker, for example at the memory limit."""

    def grade(self, response_text: str, answer: str, *, thinking: bool = False) -> Grade:
        """Grade one response. For `thinking` models only what follows the last </think> counts."""
        return self.grade_many([(response_text, answer)], thinking=thinking)[0]

    def grade_many(self, pairs: Iterable[tuple[str, str]], *, thinking: bool = False) -> list[Grade]:
        """Grade (response text, answer) pairs, in order: faster than one by one, as the workers run side by side."""
        found = [(_extract(text, thinking), answer) for text, answer in pairs]
        outcomes = self._outcomes((answer, guess) for (box, guesses), answer in found for guess in ([box] if box is not None else guesses))
        grades = []
        for (box, guesses), answer in found:
            if box is None:
                lenient = any(outcomes[answer, guess] == "same" for guess in guesses)
                grades.append(Grade("unparsed", None, lenient))
                continue
            outcome = outcomes[answer, box]
            right = outcome == "same"
            grades.append(Grade("right" if right else "wrong", box, right, timed_out=outcome in ("timeout", "crash")))
        return grades

    def same(self, gold: str, answer: str) -> bool:
        """Whether two answers say the same, `gold` setting the form."""
        return self._outcomes([(gold, answer)])[gold, answer] == "same"

    def close(self) -> None:
        """End the worker processes."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _outcomes(self, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Outcome]:
        outcomes: dict[tuple[str, str], Outcome] = {}
        hard = []
        for pair in dict.fromkeys(pairs):
            known = self._known.get(pair) or _at_once(pair)
            if known is None:
                hard.append(pair)
            else:
                outcomes[pair] = known
        for pair, outcome in zip(hard, self._pool.compare(hard), strict=True):
            outcomes[pair] = self._known[pair] = outcome
            self.timeouts += outcome == "timeout"
            self.crashes += outcome == "crash"
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return outcomes


def _extract(text: str, thinking: bool) -> tuple[str | None, Sequence[str]]:
    """The box, and the lenient guesses where there is none."""
    part = answer_part(text, thinking=thinking)
    if part is None:
        return None, ()
    box = last_boxed(part)
    return (box, ()) if box is not None else (None, tuple(lenient_answers(part)))


def _at_once(pair: tuple[str, str]) -> Outcome | None:
    """The outcome where reading alone decides."""
    verdict = same(*pair, symbolic=lambda _gold, _answer: None)
    return None if verdict is None else "same" if verdict else "different"
