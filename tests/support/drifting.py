"""A fault inside a real vLLM server, loaded by its option --logits-processors: the halves of chosen pairs drift apart, once each."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dail_runtime.rewrite.vllm_plugin.processor import PolicyProcessor

DRIFTING = "tests.support.drifting:Drifting"
FIRST_SEED = 9_000_000
"""Pairs with this seed or a greater one drift."""
PLACE = 5
"""After so many tokens."""


class Drifting(PolicyProcessor):
    """Goes behind the plugin's own processor, whose knowledge of the batch it shares, and gives some teachers another token."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._done: set[tuple[int, int]] = set()

    def apply(self, logits: Tensor) -> Tensor:
        """Move the one token that is left."""
        for index, live in self._rows.items():
            row = live.row
            if row.role == "teacher" and row.seed >= FIRST_SEED and len(live.drawn) == PLACE and (row.seed, row.sample) not in self._done:
                self._done.add((row.seed, row.sample))
                logits[index] = logits[index].roll(1)
        return logits
