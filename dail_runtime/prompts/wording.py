"""The texts of the user's turns: placeholders, numbered solutions, and what stands where nothing is known."""

from __future__ import annotations

from collections.abc import Sequence

from dail_runtime.evaluate.grading import answer_from_solution
from dail_runtime.prompts.landmarks import landmarks
from dail_runtime.records import Problem
from dail_runtime.spec.prompts import FIELD, Example

UNKNOWN = "unknown"
"""Stands for {answer} where there is none. A word, not a left-out sentence: the wording is the user's, and which of its sentences
speaks of the answer cannot be known; and "The final answer is unknown." is true and gives nothing away."""
NONE = "none"
"""Stands for {landmarks} where there are none."""


def fill(wording: str, values: dict[str, str]) -> str:
    """`wording` with its placeholders replaced in one pass: a `{solution}` inside a problem's text stays as it is."""
    return FIELD.sub(lambda match: values[match[1]], wording)


def values_of(problem: str, reference: Problem, shown: int) -> dict[str, str]:
    """What each placeholder stands for, with the first `shown` solutions of `reference`.

    Landmarks come from its first solution, which is always among those shown; a hint of the user's own goes before them.
    """
    first = reference.solutions[0] if reference.solutions else ""
    answer = reference.answer if reference.answer is not None else answer_from_solution(first)
    hint = reference.hint.strip() if reference.hint is not None else ", ".join(landmarks(first, answer=answer, problem=reference.problem))
    return {
        "problem": problem,
        "solution": numbered(reference.solutions[:shown]),
        "answer": UNKNOWN if answer is None else answer,
        "landmarks": hint or NONE,
    }


def example_values(example: Example) -> dict[str, str]:
    """What each placeholder stands for in a worked example; its answer may stand in its solution or only in its response."""
    answer = example.answer or answer_from_solution(example.solution) or answer_from_solution(example.response)
    return values_of(example.problem, Problem(id="example", problem=example.problem, solutions=(example.solution,), answer=answer), 1)


def numbered(solutions: Sequence[str]) -> str:
    """The solutions as one text; where there are several, each under its number."""
    if len(solutions) < 2:
        return "".join(solutions)
    return "\n\n".join(f"Solution {number}:\n{text}" for number, text in enumerate(solutions, start=1))
