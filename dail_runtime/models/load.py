"""Tokenizer and weights, loaded without ever running a line of the model's own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import GENERATION_CONFIG_NAME, logging

from dail_runtime.errors import ModelError, SetupError
from dail_runtime.models.adapter import merge_adapter
from dail_runtime.models.device import pick_dtype
from dail_runtime.models.folder import config_folder, model_folder
from dail_runtime.models.reason import reason, remedy
from dail_runtime.spec.model import ModelSpec

_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError, AttributeError, SafetensorError)
"""What transformers raises about a model that it cannot make."""


def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """The model's tokenizer, which must have a chat template. A missing pad token becomes its EOS token.

    Raises:
        ModelError: no tokenizer, or one that dail cannot use; says what to do.
    """
    folder = config_folder(spec)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as err:  # the loaders raise whatever a broken file makes them trip over
        raise ModelError(f"model.id {spec.id}: its tokenizer cannot be loaded ({reason(err)}); {remedy(err)}") from err
    if not tokenizer.is_fast:
        raise ModelError(
            f"model.id {spec.id}: its tokenizer has no tokenizer.json; convert it with transformers and save it beside the weights"
        )
    if tokenizer.chat_template is None:
        raise ModelError(
            f"model.id {spec.id}: its tokenizer has no chat template (a base model?); "
            "use the instruction-tuned version, or put a chat_template.jinja beside the weights"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(spec: ModelSpec, *, device: torch.device, adapter: Path | None = None, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The causal language model on `device`, in evaluation mode and frozen; `adapter` (a LoRA folder) is merged in.

    Attention is PyTorch's scaled_dot_product_attention where it computes what the architecture asks for. The dtype is `pick_dtype`'s, if
    none is given.

    Raises:
        ModelError: the weights are missing, incomplete, unsafe or of an architecture that dail cannot load.
        SetupError: the model does not fit into the device's memory.
    """
    folder = model_folder(spec)
    # On a GPU the weights go straight there; on the CPU placement would only add hooks.
    placed: dict[str, Any] = {} if device.type == "cpu" else {"device_map": {"": device}}
    logging.disable_progress_bar()
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype or pick_dtype(spec, device),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **placed,
        )
    except torch.OutOfMemoryError:
        raise SetupError(f"model.id {spec.id}: it does not fit into the memory of {device}; use a larger GPU or a smaller model") from None
    except _UNREADABLE as err:
        raise ModelError(f"model.id {spec.id}: it cannot be loaded ({reason(err)}); {remedy(err)}") from err
    # Weights that a file lacks are silently drawn at random by the loader: a run on them would be worthless.
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise ModelError(f"model.id {spec.id}: {len(missing)} weights are missing from its files ({missing[0]}, ...); download it again")
    if adapter is not None:
        model = merge_adapter(model, adapter)
    return _ready(model)


def empty_model(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The model in `folder` (`model_folder`) without its weights: parameters have shapes and take no memory.

    Raises:
        ModelError: transformers does not know the architecture.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    except _UNREADABLE as err:
        raise ModelError(f"{folder}: the model cannot be made from its configuration ({reason(err)}); {remedy(err)}") from err
    if (folder / GENERATION_CONFIG_NAME).is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return _ready(model)


def _ready(model: PreTrainedModel) -> PreTrainedModel:
    """Frozen, in evaluation mode, and with an attention that computes what the architecture asks for."""
    config = model.config.get_text_config()
    if getattr(config, "attn_logit_softcapping", None) is not None and config._attn_implementation == "sdpa":
        # PyTorch's attention has no soft-cap, and transformers leaves it out there without a word: another model than the one served.
        model.set_attn_implementation("eager")
    ready: PreTrainedModel = model.requires_grad_(False).eval()
    return ready
