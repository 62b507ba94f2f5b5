"""The output layer as the loss sees it: a matrix, and what a model does to the logits after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate

_TILE_BYTES = 1 << 25
"""Size of the piece of a 16-bit matrix that is widened at once where the hardware has no mixed product: it should stay in cache."""


@dataclass(frozen=True)
class Head:
    """logits = cap * tanh(scale * (hidden @ weight.T + bias) / cap); without the cap just the inner part."""

    weight: Tensor
    """[vocabulary, hidden]; may be the embedding itself (tied), may need a gradient."""
    bias: Tensor | None = None
    """[vocabulary]."""
    scale: float = 1.0
    """Factor on the logits (`logit_scale`, or 1 / `logits_scaling`)."""
    cap: float | None = None
    """Soft-cap (`final_logit_softcapping`)."""

    @property
    def vocabulary(self) -> int:
        """Number of rows of `weight`."""
        return self.weight.shape[0]

    def whole(self) -> Head:
        """This layer with all of a matrix that is sharded over ranks, gathered by all of them; itself where it is not sharded."""
        if not isinstance(self.weight, DTensor):
            return self
        everywhere = self.weight.redistribute(placements=[Replicate()] * self.weight.device_mesh.ndim)
        # Every rank has the gradient of its own tokens: those of all ranks are added up on the way back.
        weight: Tensor = everywhere.to_local(grad_placements=[Partial()] * self.weight.device_mesh.ndim)
        return replace(self, weight=weight)

    @torch.no_grad()
    def logits(self, hidden: Tensor, update: LowRank | None = None) -> Tensor:
        """Logits [n, V] of hidden states [n, H], in float32 (float64 for float64 states)."""
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        out = hidden.new_empty(len(hidden), self.vocabulary, dtype=wide)
        project([hidden], self.whole(), [out])
        if update is not None:
            out.addmm_(update.low.to(wide), update.up.t().to(wide), alpha=self.scale)
        return out if self.cap is None else out.div_(self.cap).tanh_().mul_(self.cap)


class LowRank(NamedTuple):
    """What a low-rank adapter adds to the logits: scale * (low @ up.T), `scale` being the head's."""

    low: Tensor
    """[tokens, r]: the hidden states after the adapter's first matrix, its own factor included."""
    up: Tensor
    """[vocabulary, r]: its second matrix."""


def project(hidden: Sequence[Tensor], head: Head, out: Sequence[Tensor]) -> None:
    """Write scale * (hidden @ weight.T + bias) for several hidden states [n, H] into `out` [n, V], in the precision of `out`.

    16-bit factors are multiplied exactly and summed in 32 bits: logits rounded to 16 bits would be too coarse for a KL.
    """
    wide = out[0].dtype
    bias = None if head.bias is None else (head.bias * head.scale).to(wide)
    if head.weight.dtype != wide and head.weight.is_cuda:
        for states, logits in zip(hidden, out, strict=True):
            torch.mm(states.to(head.weight.dtype), head.weight.t(), out_dtype=wide, out=logits)
            if head.scale != 1.0:
                logits.mul_(head.scale)
            if bias is not None:
                logits.add_(bias)
        return
    scaled = [states.to(wide) * head.scale if head.scale != 1.0 else states.to(wide) for states in hidden]
    for first, last, weight in _tiles(head.weight, wide):
        for states, logits in zip(scaled, out, strict=True):
            if bias is None:
                torch.mm(states, weight.t(), out=logits[:, first:last])
            else:
                torch.addmm(bias[first:last], states, weight.t(), out=logits[:, first:last])


def pull_back(grad: Tensor, head: Head, out: Tensor) -> None:
    """Write the gradient of the hidden states, scale * grad @ weight, into `out` [n, H]; `grad` [n, V] is that of scale * (...).

    Where `out` has 16 bits like the matrix, so has `grad` in the product, as autograd would have it; sums are in 32 bits.
    """
    if out.dtype == head.weight.dtype:
        torch.mm(grad.to(out.dtype), head.weight, out=out)
    else:
        out.zero_()
        for first, last, weight in _tiles(head.weight, out.dtype):
            out.addmm_(grad[:, first:last], weight)
    if head.scale != 1.0:
        out.mul_(head.scale)


def _tiles(weight: Tensor, wide: torch.dtype) -> Iterator[tuple[int, int, Tensor]]:
    """The rows of `weight` in the type `wide`: all at once, or, where they have to be widened, a tile at a time."""
    rows, width = weight.shape
    step = rows if weight.dtype == wide else max(256, _TILE_BYTES // (width * wide.itemsize))
    for first in range(0, rows, step):
        last = min(first + step, rows)
        yield first, last, weight[first:last].to(wide)
