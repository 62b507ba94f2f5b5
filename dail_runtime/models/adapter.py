"""LoRA adapters from a folder, merged into the model they were trained on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from dail_runtime.errors import ModelError
from dail_runtime.models.reason import reason
from dail_runtime.objects import ADAPTER
from dail_runtime.store import Store

WEIGHTS = "adapter_model.safetensors"


def fetch_adapter(trained: Store, folder: Path) -> Path:
    """The adapter that a training left at `trained`, fetched below `folder`."""
    for info in trained.list(f"{ADAPTER}/"):
        path = folder / info.key
        path.parent.mkdir(parents=True, exist_ok=True)
        trained.get_file(info.key, path)
    return folder / ADAPTER


def adapter_digest(adapter: Path) -> str:
    """16 hex digits that follow from the weights of the adapter in folder `adapter`.

    Raises:
        ModelError: there are none.
    """
    try:
        with (adapter / WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as err:
        raise ModelError(f"{adapter}: there is no {WEIGHTS} ({err.strerror}); give the folder of a LoRA adapter") from None


def merge_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """`model` with the adapter in folder `adapter` (peft's layout) merged into its weights, in place.

    Merged, not beside the weights: decoding is then as fast as the base model's, and what is measured is what the user gets, since
    the saved model is merged too. The update is computed in float32 and added once, so in bfloat16 each weight is rounded once
    (by 2^-9 of itself at most); nothing is rounded in float32 beyond the sum itself.

    Raises:
        ModelError: the folder holds no such adapter, or one for another model.
    """
    # Imported here: peft takes seconds, and only adapters need it.
    from peft import PeftModel, get_peft_model_state_dict

    for name in ("adapter_config.json", WEIGHTS):
        if not (adapter / name).is_file():
            raise ModelError(f"{adapter}: there is no {name}; give the folder of a LoRA adapter saved as safetensors")
    try:
        with safe_open(adapter / WEIGHTS, framework="pt") as file:
            stored = set(file.keys())
        adapted = PeftModel.from_pretrained(model, str(adapter))
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, TypeError) as err:
        raise ModelError(
            f"{adapter}: this adapter cannot be loaded into {model.config.name_or_path} ({reason(err)}); use the model it was trained on"
        ) from err
    expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if stored != expected:
        one = sorted(stored ^ expected)[0]
        raise ModelError(
            f"{adapter}: the adapter and {model.config.name_or_path} do not have the same layers ({one}); use the model it was trained on"
        )
    with torch.no_grad():
        merged: PreTrainedModel = adapted.merge_and_unload(safe_merge=False)
    return merged
