"""How many responses the transformers engine decodes at once, and how much memory their keys and values may take.

Everything follows from the machine and the model, not from what is free at the moment: a restart on the same machine chooses
the same batch size.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from dail_runtime.errors import SetupError
from dail_runtime.rewrite.slots import ROWS

PROMPT_ROOM = 2048
"""Prompt tokens that an automatic batch size makes room for."""

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_SHARE = {"cpu": 0.5, "cuda": 0.85}
"""Share of the machine's memory for weights, keys and values: a CPU's is also the system's, a GPU's only needs room to compute."""
_MOST = 256
_CPU_WEIGHTS_A_STEP = 8e9
"""On a CPU, batch size times parameters: beyond some 8 G products a step is bound by arithmetic and a larger batch gains little
(a tenth, seen with 135 M parameters), while the last, long responses of a job would drag it along."""


def memory_total(device: torch.device) -> int:
    """Bytes of the device's memory; on a CPU what the container may use."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _LIMITS:
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            total = min(total, int(text))
    return total


class Room:
    """The memory that keys and values may take, and the batch sizes that fit into it."""

    def __init__(self, device: torch.device, model: torch.nn.Module) -> None:
        weights = list(model.parameters())
        self.parameters = sum(one.numel() for one in weights)
        self.bytes = int(memory_total(device) * _SHARE[device.type]) - sum(one.numel() * one.element_size() for one in weights)
        self._cpu = device.type == "cpu"

    def fitting(self, *, position: int, length: int, vocabulary: int, contexts: int) -> int:
        """Most responses that fit: `position` bytes a position, `length` positions and some dozen fp32 rows of logits a context."""
        tile = ROWS // contexts
        return self.bytes // (contexts * (position * length + 12 * 4 * vocabulary)) // tile * tile

    def automatic(self, *, position: int, length: int, vocabulary: int, contexts: int, responses: int | None) -> int:
        """The batch size where the job names none: at most 256, what memory holds, what the task draws in all."""
        most = self.fitting(position=position, length=length, vocabulary=vocabulary, contexts=contexts)
        if self._cpu:
            most = min(most, int(_CPU_WEIGHTS_A_STEP / self.parameters))
        if responses is not None:
            most = min(most, responses)
        return full_tiles(max(1, min(most, _MOST)), contexts)

    def check(self, key: str, slots: int, *, position: int, length: int, vocabulary: int, contexts: int) -> None:
        """Raise SetupError where `slots` responses of `length` positions do not fit, before hours of work run out of memory."""
        fits = self.fitting(position=position, length=length, vocabulary=vocabulary, contexts=contexts)
        if slots <= fits:
            return
        need = f"{key}: {slots} responses of up to {length} tokens at once do not fit into {self.bytes / 2**30:.1f} GiB"
        if fits > 0:
            raise SetupError(f"{need}; set rewrite.engine.batchSize to {fits} or less")
        raise SetupError(f"{need}; lower maxTokens or model.maxLength, or use a machine with more memory")


def full_tiles(responses: int, contexts: int) -> int:
    """`responses` rounded up so that the rows of all contexts fill whole tiles."""
    tile = ROWS // contexts
    return -(-responses // tile) * tile
