"""The model: where its files come from, its tokenizer, its weights, its device and its limits."""

from dail_runtime.models.adapter import merge_adapter
from dail_runtime.models.device import free_device_memory, pick_device, pick_dtype
from dail_runtime.models.folder import config_folder, model_folder, parameter_count
from dail_runtime.models.limits import eos_ids, max_length
from dail_runtime.models.load import empty_model, load_model, load_tokenizer

__all__ = [
    "config_folder",
    "empty_model",
    "eos_ids",
    "free_device_memory",
    "load_model",
    "load_tokenizer",
    "max_length",
    "merge_adapter",
    "model_folder",
    "parameter_count",
    "pick_device",
    "pick_dtype",
]
