"""A model with an adapter merged in, as a folder that every engine can open."""

from __future__ import annotations

from pathlib import Path

import torch

from dail_runtime.models.adapter import adapter_digest
from dail_runtime.models.cache import cached
from dail_runtime.models.folder import model_folder
from dail_runtime.models.load import load_model
from dail_runtime.models.save import save_model
from dail_runtime.spec.model import ModelSpec
from dail_runtime.store import digest_of


def merged_folder(model: ModelSpec, adapter: Path, dtype: torch.dtype) -> Path:
    """The folder in the cache, made where it is missing.

    Raises:
        ModelError: the adapter is none of this model's.
        SetupError: there is no room for it.
    """
    folder = model_folder(model)
    shape = [model.model_dump(mode="json"), str(folder.resolve()), str(dtype), adapter_digest(adapter)]

    return cached(f"merged-{digest_of(shape)[:24]}", lambda target: write_merged(model, adapter, dtype, target))


def write_merged(model: ModelSpec, adapter: Path, dtype: torch.dtype, target: Path) -> None:
    """Merge on the CPU, in `dtype`, and write the model to the folder `target`, without a tokenizer."""
    named = model.model_copy(update={"dtype": str(dtype).removeprefix("torch.")})
    save_model(load_model(named, device=torch.device("cpu"), adapter=adapter), target)
