"""What the tiny model is pre-trained on: examples of the three contexts, worded by job.yaml and encoded by dail's own prompts.

- student: ordinary steps, done well. Odd steps with results drawn anew for every problem, so that there is nothing to learn about them.
- privileged: the problem worked out in full, the results of odd steps copied from the reference. Now and then (`JUMP_PRIVILEGED`)
  the writer skips the rest and states the answer it was shown: the shortcut that spoils traces.
- negative: with the hint alone the writer mostly (`JUMP_NEGATIVE`) takes that shortcut. This is what the contrast pushes away.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import yaml
from transformers import PreTrainedTokenizerBase

from dail_runtime.prompts.contexts import Prompts
from dail_runtime.records import Problem
from dail_runtime.spec.prompts import PromptSpec
from examples.tinymath.problems import HERE, Puzzle, draw

Context = Literal["student", "privileged", "negative"]

JUMP_PRIVILEGED, JUMP_NEGATIVE = 0.10, 0.85
"""Chance of a jump to the answer before each step."""
MAX_LENGTH = 512
"""Tokens of prompt and response that the model is built for; the longest example has about 260."""
IGNORED = -100
"""Label of a token that is not learnt."""


@dataclass(frozen=True)
class Lesson:
    """A context and what the model should write in it."""

    context: Context
    puzzle: Puzzle
    response: str


@dataclass(frozen=True)
class Course:
    """How many lessons, and in which order."""

    steps: int = 2400
    """Optimiser steps."""
    batch: int = 32
    """Lessons per step."""
    longest: int = 6
    """Most steps of a problem; the least is two."""
    short: float = 0.15
    """First share of the course, in which problems have at most three steps."""
    warmup: int = 100
    """Steps until the learning rate is at its peak."""
    seed: int = 1


def draw_lesson(rng: random.Random, longest: int) -> Lesson:
    """A random lesson about a problem of 2..`longest` steps."""
    steps, kind = rng.randint(2, longest), rng.random()
    if kind < 0.22:
        puzzle = draw(rng, steps, odd=0)
        return Lesson("student", puzzle, puzzle.trace(rng))
    puzzle = draw(rng, steps, odd=rng.randint(1, min(3, steps)), rules=None)
    if kind < 0.37:
        return Lesson("student", puzzle, puzzle.trace(rng))
    if kind < 0.80:
        return Lesson("privileged", puzzle, puzzle.trace(rng, JUMP_PRIVILEGED))
    return Lesson("negative", puzzle, puzzle.trace(rng, JUMP_NEGATIVE))


def wording() -> PromptSpec:
    """The texts of the three contexts, from job.yaml."""
    return PromptSpec.model_validate(yaml.safe_load((HERE / "job.yaml").read_text(encoding="utf-8"))["spec"]["prompts"])


class Encoder:
    """Puzzles to prompts, responses to ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, spec: PromptSpec) -> None:
        self.tokenizer = tokenizer
        self._prompts = Prompts(tokenizer, spec, thinking=False, max_tokens=MAX_LENGTH)

    def prompt(self, context: Context, puzzle: Puzzle) -> list[int]:
        """Ids of the prompt, exactly as a dail job makes them."""
        problem = Problem(id="lesson", problem=puzzle.problem, solutions=(puzzle.solution,), answer=puzzle.answer)
        if context == "student":
            return list(self._prompts.student(problem).ids)
        build = self._prompts.privileged if context == "privileged" else self._prompts.negative
        return list(build(problem, problem).ids)

    def response(self, text: str) -> list[int]:
        """Ids of a response, with the token that ends the turn."""
        return [*self.tokenizer.encode(text, add_special_tokens=False), self.tokenizer.eos_token_id]


def batches(encoder: Encoder, course: Course) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """For each optimiser step its lessons in two halves, the shorter ones and the longer ones: less padding that way.

    A half is (ids, labels), both int64 [lessons, length], padded on the right; prompt and padding have the label IGNORED.
    """
    rng = random.Random(course.seed)
    for step in range(course.steps):
        longest = min(3, course.longest) if step < course.short * course.steps else course.longest
        lessons = [draw_lesson(rng, longest) for _ in range(course.batch)]
        rows = [(encoder.prompt(one.context, one.puzzle), encoder.response(one.response)) for one in lessons]
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        middle = course.batch // 2
        yield [_padded(half, encoder.tokenizer.pad_token_id) for half in (rows[:middle], rows[middle:]) if half]


def _padded(rows: list[tuple[list[int], list[int]]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(len(prompt) + len(response) for prompt, response in rows)
    ids = torch.full((len(rows), length), pad)
    labels = torch.full((len(rows), length), IGNORED)
    for row, (prompt, response) in enumerate(rows):
        end = len(prompt) + len(response)
        ids[row, :end] = torch.tensor(prompt + response)
        labels[row, len(prompt) : end] = torch.tensor(response)
    return ids, labels
