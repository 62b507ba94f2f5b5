"""Token ids back to text, the same way for every engine."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

THINK = ("<think>", "</think>")


class Decoder:
    """Decodes responses. Special tokens are left out, but the marks of thinking stay: graders and readers need them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        special = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special} | set(tokenizer.all_special_ids)
        self._hidden = frozenset(special - {tokenizer.convert_tokens_to_ids(mark) for mark in THINK})
        self._tokenizer = tokenizer

    def __call__(self, ids: Sequence[int]) -> str:
        """The text of `ids`. Ids without a text (models have more rows than tokens) give nothing."""
        shown = [id_ for id_ in ids if id_ not in self._hidden]
        # The clean-up that some tokenizers ask for eats spaces before punctuation, which LaTeX and code need.
        text: str = self._tokenizer.decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text
