"""What ends a response: the model's EOS ids and its longest sequence, read from its folder without loading the weights."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import NamedTuple

from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from dail_runtime.errors import ModelError, SpecError
from dail_runtime.models import config_folder, eos_ids, max_length
from dail_runtime.models.reason import reason, remedy
from dail_runtime.spec.model import ModelSpec


class Limits(NamedTuple):
    """Where responses end."""

    eos: frozenset[int]
    """Ids that end a response."""
    length: int
    """Most tokens of prompt plus response."""


def limits(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase) -> Limits:
    """Limits of the model that `spec` names.

    Raises:
        ModelError: the model names no EOS token, or no length.
    """
    folder = config_folder(spec)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        # Chat models list several EOS ids there, and often a single one in config.json.
        has_own = (folder / "generation_config.json").is_file()
        generation = GenerationConfig.from_pretrained(folder, local_files_only=True) if has_own else None
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ModelError(f"model.id {spec.id}: its configuration cannot be read ({reason(err)}); {remedy(err)}") from None
    config = config.get_text_config()
    return Limits(eos_ids(SimpleNamespace(config=config, generation_config=generation), tokenizer), max_length(spec, config))


def suppressed(tokens: Sequence[str], tokenizer: PreTrainedTokenizerBase, eos: frozenset[int]) -> tuple[int, ...]:
    """Ids of the tokens that `rewrite.suppress` names.

    Raises:
        SpecError: a text is not one token, or nothing would be left to end a response.
    """
    ids = []
    for text in tokens:
        found = tokenizer.encode(text, add_special_tokens=False)
        if len(found) != 1:
            raise SpecError(
                f"rewrite.suppress: {text!r} is {len(found)} tokens of this model and not one; name single tokens such as </think>"
            )
        ids.append(int(found[0]))
    if eos <= set(ids):
        raise SpecError("rewrite.suppress: it names every token that ends a response; leave at least one out")
    return tuple(ids)
