"""What the model's configuration says about its ends: the tokens that end a response, and the longest sequence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from dail_runtime.errors import ModelError
from dail_runtime.spec.model import ModelSpec


def eos_ids(model_or_config: PreTrainedModel | PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token id that ends a response: those of the generation config (else of the config), and the tokenizer's own.

    Raises:
        ModelError: there is none, so that no response would ever end.
    """
    generation = getattr(model_or_config, "generation_config", None)
    config = getattr(model_or_config, "config", model_or_config)
    ids = _ids(getattr(generation, "eos_token_id", None)) or _ids(getattr(config, "eos_token_id", None))
    ends = frozenset(ids | _ids(tokenizer.eos_token_id))
    if not ends:
        raise ModelError(f"{config.name_or_path}: it names no end-of-sequence token; set eos_token_id in its generation_config.json")
    return ends


def max_length(spec: ModelSpec, config: PretrainedConfig) -> int:
    """Most tokens of prompt plus response: `model.maxLength`, else what the configuration allows.

    Raises:
        ModelError: the job asks for more than the model has positions, or nobody says how many.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        if spec.max_length is None:
            raise ModelError(f"model.id {spec.id}: its configuration does not say how long a sequence may be; set model.maxLength")
        return spec.max_length
    if spec.max_length is not None and spec.max_length > positions:
        raise ModelError(f"model.maxLength {spec.max_length}: {spec.id} was made for {positions} tokens; lower it")
    return spec.max_length or int(positions)


def _ids(value: Any) -> set[int]:
    if value is None:
        return set()
    return {int(one) for one in value} if isinstance(value, Iterable) else {int(value)}
