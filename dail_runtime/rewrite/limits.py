"""What ends a response: the model's EOS ids and its longest sequence, read from its folder without loading the weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from dail_runtime.errors import ModelError
from dail_runtime.models import eos_ids, max_length, model_folder
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
    folder = model_folder(spec)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        # Chat models list several EOS ids there, and often a single one in config.json.
        has_own = (folder / "generation_config.json").is_file()
        generation = GenerationConfig.from_pretrained(folder, local_files_only=True) if has_own else None
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ModelError(f"model.id {spec.id}: its configuration cannot be read ({err}); download it again") from None
    config = config.get_text_config()
    return Limits(eos_ids(SimpleNamespace(config=config, generation_config=generation), tokenizer), max_length(spec, config))
