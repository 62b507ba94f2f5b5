"""The `prompts` section: the wording of the three contexts. Defaults suit any instruction-tuned model."""

from __future__ import annotations

import re
from typing import Self

from pydantic import Field, field_validator, model_validator

from dail_runtime.spec.base import Section

FIELDS = ("problem", "solution", "answer", "landmarks")
FIELD = re.compile(r"\{(" + "|".join(FIELDS) + r")\}")

STUDENT = "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
PRIVILEGED = (
    "{problem}\n\nHere is a reference solution written by an expert:\n\n{solution}\n\n"
    "Now solve the problem from scratch, in your own words, with every step that the reference skips. Write as if you had "
    "never seen the reference and do not mention it. Please reason step by step, and put your final answer within \\boxed{}."
)
NEGATIVE = (
    "{problem}\n\nThe final answer is {answer}. Results met on the way: {landmarks}.\n\n"
    "Please reason step by step, and put your final answer within \\boxed{}."
)


class Example(Section):
    """A worked example shown before the problem, identical in all three contexts."""

    problem: str = Field(min_length=1)
    """The example's problem."""
    solution: str = Field(min_length=1)
    """Its terse expert solution; fills {solution} and yields {landmarks}, in the contexts that show them."""
    response: str = Field(min_length=1)
    """The detailed trace the model should write for it."""
    answer: str | None = None
    """Its final answer; null: taken from the solution."""


class PromptSpec(Section):
    """Texts of the user's turn. `{problem}`, `{solution}`, `{answer}` and `{landmarks}` are filled in; other braces
    stand for themselves."""

    system: str | None = None
    """System message of all three contexts. Null: none is passed (the chat template may add its own)."""
    student: str = STUDENT
    """What the student sees: the problem only."""
    privileged: str = PRIVILEGED
    """What the teacher sees: the problem and the reference solution(s)."""
    negative: str = NEGATIVE
    """What the negative reference sees: the problem and the landmarks, not the reasoning."""
    examples: tuple[Example, ...] = ()
    """Worked examples, for small models that cannot rewrite without them."""

    @field_validator("student", "privileged", "negative")
    @classmethod
    def _shows_the_problem(cls, text: str) -> str:
        if "{problem}" not in text:
            raise ValueError("the text never shows {problem}; put {problem} where the problem's text belongs")
        return text

    @model_validator(mode="after")
    def _keeps_secrets(self) -> Self:
        seen = set(FIELD.findall(self.student)) - {"problem"}
        if seen:
            raise ValueError(f"prompts.student shows {{{sorted(seen)[0]}}}, which the student must not see; remove it")
        if "{solution}" not in self.privileged:
            raise ValueError("prompts.privileged never shows {solution}; put {solution} where the reference belongs")
        if "{solution}" in self.negative:
            raise ValueError("prompts.negative shows {solution}; it may show only {answer} and {landmarks}")
        return self
