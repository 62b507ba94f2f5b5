"""Which device a stage computes on, and in which type the frozen weights are kept there."""

from __future__ import annotations

import gc
import os

import torch

from dail_runtime.errors import SetupError
from dail_runtime.models.folder import model_folder, parameter_count
from dail_runtime.spec.model import ModelSpec

SMALL = 50_000_000
"""Parameters below which a CPU computes in float32 (see `pick_dtype`)."""

_NAMED = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_CPU_BF16 = ("amx_bf16", "avx512_bf16", "sve_bf16", "bf16")


def pick_device() -> torch.device:
    """The GPU of this process (of its local rank, under torchrun) where one is visible, else the CPU.

    `DAIL_DEVICE=cpu` or `cuda` overrides. Pods that asked for GPUs set `cuda`, so that a node with a broken driver fails at
    once instead of computing on its CPU for days.

    Raises:
        SetupError: `cuda` was asked for and none is visible, or DAIL_DEVICE is neither.
    """
    wanted = os.environ.get("DAIL_DEVICE", "").strip().lower()
    if wanted not in ("", "auto", "cpu", "cuda"):
        raise SetupError(f"DAIL_DEVICE is {wanted!r}; set it to cpu or cuda, or leave it out")
    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    if wanted == "cuda":
        built = "this PyTorch is built without CUDA" if torch.version.cuda is None else f"PyTorch {torch.__version__} sees no GPU"
        raise SetupError(f"a GPU was asked for (DAIL_DEVICE=cuda), but {built}; check the driver, the image and CUDA_VISIBLE_DEVICES")
    return torch.device("cpu")


def pick_dtype(spec: ModelSpec, device: torch.device) -> torch.dtype:
    """Type of the frozen weights on `device`, as the job says; for `auto` the fastest that is sound.

    `auto` is bfloat16 where the hardware multiplies it: GPUs since Ampere, CPUs with AMX or AVX512-BF16. On a CPU, models under
    50 M parameters stay float32, which is exact and the same on every CPU: there bfloat16 saves little (measured on AVX512-BF16:
    no time up to 5 M parameters, a third of it at 47 M, more than half at 135 M).
    """
    if spec.dtype != "auto":
        return _NAMED[spec.dtype]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if not cpu_multiplies_bf16():
        return torch.float32
    return torch.float32 if parameter_count(model_folder(spec)) < SMALL else torch.bfloat16


def free_device_memory() -> None:
    """Give memory of models that nothing refers to any more back to the device: another model is to have it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU has instructions that multiply bfloat16 (without them it is emulated, far slower than float32)."""
    has = torch.cpu.get_capabilities()
    return any(has.get(name, False) for name in _CPU_BF16)
