"""Model FLOPs utilisation: what a step has to compute, over what the device could compute in the same time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from dail_runtime.train.data import Row

PEAKS = {"H100 PCIe": 756, "H100": 989, "H200": 989, "B200": 2250, "A100": 312, "L40S": 362, "A10": 125, "L4": 121}
"""TFLOP/s of dense bfloat16 products by the makers' data sheets, the longer name first."""


def step_flops(config: Any, rows: Sequence[Row]) -> float:
    """What a LoRA step with kept references has to compute, in floating-point operations; a product's sum counts like its factor.

    The decoder forward, and backward to its activations alone, because its weights are frozen; attention's half below the diagonal; the
    output matrix in the response's rows for student, teacher and negative, and backward to the student's. Recomputed activations and
    padding, which are no use to anyone, count for nothing; nor does the adapter, which is small.
    """
    heads, width = config.num_attention_heads * config.head_dim, config.hidden_size
    attention = 2 * heads + 2 * config.num_key_value_heads * config.head_dim
    weights = config.num_hidden_layers * width * (attention + 3 * config.intermediate_size)
    lengths = [len(row.prompts["student"]) + len(row.response) - 1 for row in rows]
    scores = config.num_hidden_layers * heads * sum(one * one for one in lengths)
    responses = sum(len(row.response) for row in rows)
    # Backward to both factors of the scores takes twice their forward; to the activations of a frozen layer, once.
    return 2 * 2 * weights * sum(lengths) + 3 * 2 * scores + 4 * 2 * width * config.vocab_size * responses


def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """FLOP/s of the device, and where they are from: its data sheet, or for others what a large product reaches."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for known, tflops in PEAKS.items():
            if all(word in name for word in known.split()):
                return tflops * 1e12, f"{name}, by its data sheet"
    size = 2048 if device.type == "cpu" else 8192
    one = torch.randn(size, size, device=device, dtype=dtype)
    best = min(_seconds(one) for _ in range(5))
    return 2 * size**3 / best, f"a product of {size} x {size} matrices here"


def _seconds(one: torch.Tensor) -> float:
    wait = torch.cuda.synchronize if one.is_cuda else lambda: None
    wait()
    began = time.perf_counter()
    one @ one
    wait()
    return time.perf_counter() - began
