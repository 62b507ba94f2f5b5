"""The learning rate of each step."""

from __future__ import annotations

import math
from typing import Literal


def learning_rate(step: int, *, total: int, warmup: int, peak: float, schedule: Literal["linear", "cosine", "constant"]) -> float:
    """Learning rate of step `step` (from 0) of `total`.

    It rises linearly over the first `warmup` steps, is `peak` at step `warmup`, and then falls towards 0, which it would reach at
    step `total` (`constant`: it stays). No step has rate 0: it would be computed for nothing.
    """
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if schedule == "constant":
        return peak
    left = (total - step) / max(total - warmup, 1)
    return peak * (left if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left)))
