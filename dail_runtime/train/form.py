"""What is kept of a reference for each response token: its hidden states, or the teacher's most probable tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from dail_runtime.train.data import Context
from dail_runtime.train.loss import Head, TopK, columns, teacher_top_k, with_negative


class HiddenStates:
    """All hidden states: exact."""

    def __init__(self, contexts: Sequence[Context], width: int, dtype: torch.dtype) -> None:
        """`width`: numbers in one hidden state."""
        self._contexts, self._width, self.dtype = tuple(contexts), width, dtype

    def ready(self) -> AbstractContextManager[None]:
        """Around `write` and `of`, entered by all ranks together."""
        return nullcontext()

    def columns(self) -> int:
        """Numbers a token takes."""
        return len(self._contexts) * self._width

    def write(self, context: Context, states: Tensor, labels: Tensor, out: Tensor) -> None:
        """Put the hidden states [tokens, H] of one context into `out` [tokens, columns]; contexts come in order."""
        del labels
        at = self._contexts.index(context) * self._width
        out[:, at : at + self._width].copy_(states)

    def arguments(self, kept: Tensor) -> dict[str, Any]:
        """Arguments of `fused_loss` for what `write` wrote."""
        return dict(zip(self._contexts, torch.split(kept, self._width, 1), strict=True))

    def of(self, states: Mapping[Context, Tensor], labels: Tensor) -> dict[str, Any]:
        """Arguments of `fused_loss` for hidden states of each context [tokens, H]."""
        del labels
        return {str(name): one for name, one in states.items()}


class MostProbable:
    """The teacher's k most probable tokens and a tail: a few hundred bytes a token, and no product with the output matrix each epoch."""

    def __init__(self, contexts: Sequence[Context], k: int, head: Head, chunk_tokens: int) -> None:
        self._negative = "negative" in contexts
        self._k, self._head, self._chunk = min(k, head.vocabulary), head, chunk_tokens
        self._whole = head
        self.dtype = torch.float32

    @contextmanager
    def ready(self) -> Iterator[None]:
        """As in HiddenStates: a matrix that is sharded over the ranks is gathered meanwhile."""
        self._whole = self._head.whole()
        yield
        self._whole = self._head

    def columns(self) -> int:
        """As in HiddenStates."""
        return columns(self._k, negative=self._negative)

    def write(self, context: Context, states: Tensor, labels: Tensor, out: Tensor) -> None:
        """As in HiddenStates."""
        if context == "teacher":
            found = teacher_top_k(states, self._whole, labels, self._k, chunk_tokens=self._chunk)
            alone = columns(self._k, negative=False)
            out[:, :alone].copy_(found.packed())
        else:
            kept = out[:, : columns(self._k, negative=False)].to(states.device)
            found = with_negative(TopK.unpacked(kept, self._k, negative=False), states, self._whole, chunk_tokens=self._chunk)
            out.copy_(found.packed())

    def arguments(self, kept: Tensor) -> dict[str, Any]:
        """As in HiddenStates."""
        return {"targets": TopK.unpacked(kept, self._k, negative=self._negative)}

    def of(self, states: Mapping[Context, Tensor], labels: Tensor) -> dict[str, Any]:
        """As in HiddenStates."""
        found = teacher_top_k(states["teacher"], self._whole, labels, self._k, chunk_tokens=self._chunk)
        if self._negative:
            found = with_negative(found, states["negative"], self._whole, chunk_tokens=self._chunk)
        return {"targets": found}


Form = HiddenStates | MostProbable
