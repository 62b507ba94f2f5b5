r"""Token budgets: an answer that has not ended by then is cut there and made to end with `The final answer is \boxed{`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from dail_runtime.errors import ModelError
from dail_runtime.evaluate.grading.extract import THINK_END
from dail_runtime.records import Finish, Sample
from dail_runtime.rewrite.text import Decoder
from dail_runtime.spec.evaluate import EvaluateSpec


@dataclass(frozen=True)
class Cut:
    """A sample cut at a budget, to be continued."""

    index: int
    """Which sample."""
    budget: int
    """Where it was cut, in tokens."""
    ids: tuple[int, ...]
    """What the model goes on from, after the prompt: the answer up to the budget and the text that forces an end."""
    text: str
    """The same as text; the continuation's text belongs behind it."""
    kept: int
    """How many of the ids the model wrote itself."""


class Budgets:
    """Cuts samples at the job's budgets."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, spec: EvaluateSpec, *, thinking: bool) -> None:
        """
        Args:
            thinking: the model reasons before </think>; one that is cut there is made to close its reasoning first.
        """
        self._decode = Decoder(tokenizer)
        self._spec, self._thinking = spec, thinking
        # Closed on a line of its own, as the models that think were trained to.
        self._closings = {closed: ("" if closed else f"\n{THINK_END}") + spec.forced_answer for closed in (True, False)}
        self._closing_ids = {closed: tuple(tokenizer.encode(text, add_special_tokens=False)) for closed, text in self._closings.items()}

    def room(self) -> int:
        """Tokens that the longest response needs, forced endings included."""
        spec = self._spec
        closing = max(map(len, self._closing_ids.values()))
        return max([spec.max_tokens, *(budget + closing + spec.forced_tokens for budget in spec.budgets)])

    def prompt_room(self, length: int) -> int:
        """Tokens that a prompt may have where prompt and response have `length` together.

        Raises:
            ModelError: none.
        """
        left = length - self.room()
        if left < 1:
            raise ModelError(
                f"evaluate.maxTokens {self._spec.max_tokens}: answers of that length leave no room for a problem "
                f"within the {length} tokens of the model; lower it and the budgets, or raise model.maxLength"
            )
        return left

    def cuts(self, samples: Sequence[Sample]) -> list[Cut]:
        """The cuts of a problem's first `budgetSamples` samples, for every budget in which they do not end by themselves."""
        return [
            self._cut(sample, budget)
            for budget in self._spec.budgets
            for sample in samples[: self._spec.budget_samples]
            if not ends_within(sample.finish, len(sample.ids), budget)
        ]

    def _cut(self, sample: Sample, budget: int) -> Cut:
        ids = sample.ids[:budget]
        text = self._decode(ids)
        closed = not self._thinking or THINK_END in text
        return Cut(sample.index, budget, ids + self._closing_ids[closed], text + self._closings[closed], len(ids))


def ends_within(finish: Finish, tokens: int, budget: int) -> bool:
    """Whether the model ended an answer of so many tokens itself, and within the budget."""
    return finish == "stop" and tokens <= budget
