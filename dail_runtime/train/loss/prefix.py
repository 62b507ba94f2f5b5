"""Where supervision of a response ends: once the teacher knows nothing of what follows that the student does not know, too."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PrefixMask:
    """Supervision of a response ends with the first token at which the teacher's margin over the student has collapsed.

    The margin of a token is log T(y) - log P(y); it has collapsed where its mean over the last `window` tokens of the response is
    below `margin`. That token is the last one supervised.
    """

    margin: float
    """In nats."""
    window: int
    """Tokens; earlier than after so many no margin is judged."""


class Supervision:
    """Follows the margins of responses that lie one after the other, block by block, without ever asking the device for a number."""

    def __init__(self, mask: PrefixMask, starts: Tensor) -> None:
        """`starts` [tokens]: where in this tensor the response of each token begins."""
        self._mask, self._starts = mask, starts
        count = len(starts)
        self._sums = starts.new_zeros(count + 1, dtype=torch.float64)
        self._ends = starts.new_zeros(count + 1)

    def follow(self, first: int, margins: Tensor) -> Tensor:
        """Which of the tokens first .. first + n - 1, whose margins [n] these are, are supervised [n] (bool); called in order."""
        last = first + len(margins)
        starts = self._starts[first:last]
        here = torch.arange(first, last, device=starts.device)
        self._sums[first + 1 : last + 1] = self._sums[first] + margins.double().cumsum(0)
        low = torch.maximum(starts, here - self._mask.window + 1)
        mean = (self._sums[here + 1] - self._sums[low]) / (here + 1 - low)
        collapsed = (here + 1 - starts >= self._mask.window) & (mean < self._mask.margin)
        self._ends[first + 1 : last + 1] = self._ends[first] + collapsed.cumsum(0)
        return self._ends[here] == self._ends[starts]
