"""The three contexts of one model as token ids. Rewriting, training and evaluation all take their prompts from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dail_runtime.errors import DataError, ModelError
from dail_runtime.prompts.chat import Chat, Message
from dail_runtime.prompts.wording import example_values, fill, values_of
from dail_runtime.records import Problem
from dail_runtime.spec.prompts import PromptSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PromptTooLong(DataError):
    """A problem's prompt leaves no room for the response, even with one solution only."""


@dataclass(frozen=True)
class Prompt:
    """A prompt; the ids of a response are appended as they are."""

    ids: tuple[int, ...]
    """Token ids, up to where the assistant's turn begins."""
    solutions_cut: int
    """Solutions left out because they did not fit."""


class Prompts:
    """Builds the student's, the teacher's (privileged) and the negative reference's prompt of a problem.

    The three differ in the wording of the user's turns only: system message, worked examples (their number, order and responses)
    and chat settings are the same.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, spec: PromptSpec, *, thinking: bool, max_tokens: int) -> None:
        """
        Args:
            tokenizer: With a chat template.
            spec: Wording and worked examples.
            thinking: `enable_thinking` of the chat template.
            max_tokens: Longest prompt: the model's length less the response's. Training must get what rewriting got, or it may
                cut other solutions.

        Raises:
            ModelError: no room is left for any prompt.
        """
        if max_tokens < 1:
            raise ModelError("maxTokens leaves no room for a prompt within the model's length; lower it or raise model.maxLength")
        self._chat = Chat(tokenizer, thinking=thinking)
        self._spec = spec
        self._max_tokens = max_tokens
        self._examples = [(example_values(example), example.response) for example in spec.examples]

    def student(self, problem: Problem) -> Prompt:
        """The problem alone.

        Raises:
            PromptTooLong: it does not fit.
        """
        ids = self._ids(self._spec.student, {"problem": problem.problem})
        return Prompt(self._fitting(ids, problem, "student"), 0)

    def privileged(self, problem: Problem, reference: Problem) -> Prompt:
        """The problem with the solutions of `reference`; whole solutions are dropped from the end until the prompt fits.

        Raises:
            PromptTooLong: it does not fit with the first solution alone.
            DataError: `reference` has no solution.
        """
        there = len(reference.solutions)
        if there == 0:
            raise DataError(f"problem {reference.id!r} has no solution that the privileged prompt could show; add one, or drop the problem")
        ids: tuple[int, ...] = ()
        for shown in range(there, 0, -1):
            ids = self._ids(self._spec.privileged, values_of(problem.problem, reference, shown))
            if len(ids) <= self._max_tokens:
                return Prompt(ids, there - shown)
        return Prompt(self._fitting(ids, problem, "privileged"), 0)

    def negative(self, problem: Problem, reference: Problem) -> Prompt:
        """The problem with the answer and the landmarks of `reference`.

        Raises:
            PromptTooLong: it does not fit.
        """
        ids = self._ids(self._spec.negative, values_of(problem.problem, reference, 0))
        return Prompt(self._fitting(ids, problem, "negative"), 0)

    def _ids(self, wording: str, values: dict[str, str]) -> tuple[int, ...]:
        messages = [] if self._spec.system is None else [Message("system", self._spec.system)]
        for example, response in self._examples:
            messages += [Message("user", fill(wording, example)), Message("assistant", response)]
        messages.append(Message("user", fill(wording, values)))
        return self._chat.ids(messages)

    def _fitting(self, ids: tuple[int, ...], problem: Problem, context: str) -> tuple[int, ...]:
        if len(ids) > self._max_tokens:
            raise PromptTooLong(
                f"problem {problem.id!r}: its {context} prompt has {len(ids)} tokens, and {self._max_tokens} fit; "
                "lower maxTokens, raise model.maxLength, or shorten it"
            )
        return ids
