"""Conversations to token ids through the model's chat template, so that no text of a user can pass for a control token.

Only the template may write `<|im_end|>` and its like. Where a text contains such a literal, it is cut inside the literal and the parts
are encoded one by one: the model then reads the characters, not the token. Any other text takes the ordinary way, so its ids
are exactly those of `apply_chat_template(..., tokenize=True)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

from dail_runtime.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THINK = ("<think>", "</think>")


class Message(NamedTuple):
    """One turn."""

    role: Literal["system", "user", "assistant"]
    content: str


class Chat:
    """A tokenizer's chat template with the settings that all contexts share."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, thinking: bool) -> None:
        self._tokenizer = tokenizer
        self._thinking = thinking
        template = str(tokenizer.chat_template)
        # Besides the special tokens, a template's own tags (<think>, <tool_call>) steer the model. Other added tokens, such as
        # runs of spaces, are ordinary text; and a single character cannot be cut.
        control = {
            id_: token.content
            for id_, token in tokenizer.added_tokens_decoder.items()
            if len(token.content) > 1 and (token.special or (token.content.strip() and token.content in template) or token.content in THINK)
        }
        self._control = frozenset(control)
        # A worked example's response is the model's own turn: its thinking part is meant.
        self._control_in_response = frozenset(id_ for id_, content in control.items() if content not in THINK)

    def ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of the conversation, up to where the assistant's next turn begins.

        Raises:
            ModelError: the template refuses the conversation, for example its system message.
        """
        mark = _absent_character([message.content for message in messages])
        turns = [{"role": message.role, "content": self._marked(message, mark)} for message in messages]
        pieces = self._render(turns).split(mark)
        return tuple(id_ for piece in pieces for id_ in self._encode(piece)[0])

    def _render(self, turns: list[dict[str, str]]) -> str:
        # Imported here, so that the light parts of dail can import the prompts' vocabulary without jinja.
        from jinja2 import TemplateError

        try:
            text: str = self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, enable_thinking=self._thinking
            )
        except TemplateError as err:
            name = self._tokenizer.name_or_path
            raise ModelError(
                f"the chat template of {name} refuses the conversation ({err}); change prompts.system or prompts.examples"
            ) from err
        return text

    def _marked(self, message: Message, mark: str) -> str:
        """The message's text with `mark` at every place where it must be cut."""
        control = self._control_in_response if message.role == "assistant" else self._control
        text = message.content
        cuts: list[int] = []
        # A cut may uncover a literal that overlapped the one it broke, so parts are looked at until none holds any.
        parts = [(0, len(text))]
        while parts:
            start, end = parts.pop()
            here = [
                start + first + 1
                for id_, (first, last) in zip(*self._encode(text[start:end]), strict=True)
                if id_ in control and last - first > 1
            ]
            cuts += here
            if here:
                parts += pairwise([start, *here, end])
        bounds = [0, *sorted(cuts), len(text)]
        return mark.join(text[first:last] for first, last in pairwise(bounds))

    def _encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and for each the characters of `text` it stands for."""
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return encoded["input_ids"], encoded["offset_mapping"]


def _absent_character(texts: Sequence[str]) -> str:
    """A character for private use that none of the texts contains."""
    used = set().union(*texts)
    return next(character for code in range(0xE000, 0x110000) if (character := chr(code)) not in used)
