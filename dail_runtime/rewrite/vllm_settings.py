"""The settings under which vLLM runs a model for dail, in this process or as a server: its arguments and its environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from dail_runtime.models import pick_device
from dail_runtime.rewrite.memory import memory_total
from dail_runtime.rewrite.vllm_plugin import PROCESSOR, SCHEDULER, WORKER

_FIXED = {"VLLM_USE_V2_MODEL_RUNNER": "0", "VLLM_NO_USAGE_STATS": "1"}
_DEFAULTS = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"}
_CPU_BLOCK = 32
_CPU_CACHE_SHARE, _CPU_CACHE_MOST = 0.25, 8 * 2**30
"""Of a CPU's memory for keys and values, unless VLLM_CPU_KVCACHE_SPACE says otherwise."""


def environment() -> dict[str, str]:
    """Environment variables for vLLM, to be set before it is imported. What the user has set goes before our defaults."""
    return {**{name: os.environ.get(name, value) for name, value in _DEFAULTS.items()}, **_FIXED}


def arguments(folder: Path, *, length: int, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of vLLM's EngineArgs; as options of its server they are called the same, with '-' for '_'.

    Args:
        folder: Of the model.
        length: Most tokens of prompt plus response.
    """
    return {
        "model": str(folder),
        # Token ids both ways: it would be loaded for nothing.
        "skip_tokenizer_init": True,
        "dtype": str(dtype).removeprefix("torch."),
        "max_model_len": length,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "generation_config": "vllm",
        "logits_processors": [PROCESSOR],
        "scheduler_cls": SCHEDULER,
        "worker_cls": WORKER,
        "async_scheduling": False,
        **_machine(),
    }


def sequences(most: int) -> dict[str, int]:
    """Arguments by which vLLM decodes so many sequences at once; a step that has no room for a token of each is refused."""
    stock = 2048  # tokens of a step: the least that vLLM takes where nobody names any
    return {"max_num_seqs": most, **({"max_num_batched_tokens": max(most, 4 * stock)} if most > stock else {})}


def as_options(arguments: dict[str, Any]) -> list[str]:
    """The same arguments as words of a command line."""
    words = []
    for name, value in arguments.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return words


def _machine() -> dict[str, Any]:
    """Settings that follow from the device: stock on a GPU."""
    if pick_device().type != "cpu":
        return {}
    settings: dict[str, Any] = {"block_size": _CPU_BLOCK, "enforce_eager": True}
    if not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        settings["kv_cache_memory_bytes"] = min(int(memory_total(torch.device("cpu")) * _CPU_CACHE_SHARE), _CPU_CACHE_MOST)
    return settings
