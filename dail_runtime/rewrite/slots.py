"""A key/value cache of independent rows for transformers models, and the attention that reads it.

Each row (slot) holds one sequence from position 0 and is written at its own position, so rows of any length decode
together and a finished one can be replaced at once. Positions come in blocks, stored block by block:

    keys[layer], values[layer]: [blocks, rows, key/value heads, BLOCK, head width]

Attention multiplies one block at a time, and where few rows reach a block, only those. The shapes of a row's products are then
the same whether the longest row of the batch has 70 positions or 7,000, blocks behind a row's end add exact zeros, and what
a row computes does not depend on the others: on a CPU to the last bit, as long as matrix products treat equal rows equally
(see ROWS).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AttentionInterface, Cache, PretrainedConfig, PreTrainedModel

from dail_runtime.errors import ModelError

ATTENTION = "dail-slots"
"""The name under which transformers knows the attention below."""

ROWS = 16
"""Batches are padded to multiples of this. The tiles of a CPU's matrix product are then full, so that a row's place in the
batch does not matter: with 7 rows on 2 threads the last ones were seen to differ in the last bit."""


def block_size(device: torch.device) -> int:
    """Positions per block. A GPU pays for each launch, so its blocks are longer; it is not promised to be exact to the bit."""
    return 64 if device.type == "cpu" else 256


class Blocks(NamedTuple):
    """One layer's keys or values, as attention reads them."""

    data: Tensor
    """[blocks, rows, key/value heads, block, width]."""
    reached: tuple[Tensor | None, ...]
    """Per block the rows (int64) that reach it, where they are few; None: every row is multiplied."""


class SlotCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """Keys and values of `rows` sequences. `at` says where the next `update` of every layer writes."""

    def __init__(self, rows: int, block: int) -> None:
        super().__init__(layers=[])
        self.rows = rows
        self.block = block
        self.blocks = 0
        """Blocks that attention reads: enough for the longest row in use."""
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._reached: tuple[Tensor | None, ...] = ()
        self._positions = torch.empty(0)
        self._flat: Tensor | None = None

    def at(self, positions: Tensor, ends: NDArray[np.int64]) -> Tensor:
        """Write the next tokens at `positions` [rows, tokens] (int64); row i then has `ends[i]` positions, known on the host.

        Returns the additive mask [rows, 1, tokens, blocks * block] under which each token sees its row up to itself.
        """
        self.blocks = -(-int(ends.max()) // self.block)
        self._reached = self._few(ends, positions.device)
        self._positions, self._flat = positions, None
        past = torch.arange(self.blocks * self.block, device=positions.device) <= positions[:, None, :, None]
        return torch.where(past, 0.0, -torch.inf)

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Blocks, Blocks]:
        """Write [rows, heads, tokens, width]; returns what `slot_attention` reads."""
        if layer_idx == len(self.keys):
            for kept, new in ((self.keys, key_states), (self.values, value_states)):
                kept.append(new.new_zeros(0, self.rows, new.shape[1], self.block, new.shape[3]))
        for kept, new in ((self.keys, key_states), (self.values, value_states)):
            _grow(kept, layer_idx, self.blocks)
            kept[layer_idx].view(-1, new.shape[3]).index_copy_(0, self._places(new.shape[1]), new.reshape(-1, new.shape[3]))
        keys, values = self.keys[layer_idx][: self.blocks], self.values[layer_idx][: self.blocks]
        return Blocks(keys, self._reached), Blocks(values, self._reached)

    def begin_like(self, other: SlotCache, positions: int) -> None:
        """Start with copies of the first `positions` (whole blocks) of another cache of as many rows."""
        blocks = positions // self.block
        self.keys = [one[:blocks].clone() for one in other.keys]
        self.values = [one[:blocks].clone() for one in other.values]

    def adopt(self, slots: Tensor, prefix: SlotCache) -> None:
        """Copy the one row of `prefix` to each of `slots` (int64)."""
        for layer in range(len(prefix.keys)):
            for kept, new in ((self.keys, prefix.keys[layer]), (self.values, prefix.values[layer])):
                if layer == len(kept):
                    kept.append(new.new_zeros(0, self.rows, *new.shape[2:]))
                _grow(kept, layer, prefix.blocks)
                kept[layer][: prefix.blocks, slots] = new

    def bytes_per_position(self) -> int:
        """Bytes that one position of one row takes in all layers."""
        return sum(one.shape[2] * one.shape[4] * one.element_size() for one in (*self.keys, *self.values))

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Length of the longest row; models ask for it where no positions are given, which never is the case here."""
        del layer_idx
        return self.blocks * self.block

    def _few(self, ends: NDArray[np.int64], device: torch.device) -> tuple[Tensor | None, ...]:
        """Rows per block, for `Blocks.reached`. Picking rows copies them, which pays where they are less than half."""
        rows = [np.flatnonzero(ends > block * self.block) for block in range(self.blocks)]
        few = torch.from_numpy(np.concatenate(rows)).to(device, non_blocking=True).split([len(one) for one in rows])  # type: ignore[no-untyped-call]
        return tuple(part if 2 * len(part) <= self.rows else None for part in few)

    def _places(self, heads: int) -> Tensor:
        """Row numbers [rows * heads * tokens] of the flat view of a layer, for the positions given to `at`."""
        if self._flat is None:
            row = torch.arange(self.rows, device=self._positions.device)[:, None, None]
            head = torch.arange(heads, device=self._positions.device)[None, :, None]
            position = self._positions[:, None, :]
            self._flat = ((position // self.block * self.rows + row) * heads + head) * self.block + position % self.block
            self._flat = self._flat.view(-1)
        return self._flat


def _grow(kept: list[Tensor], layer: int, blocks: int) -> None:
    """Block by block, so that memory follows the longest row; at most one layer's tensor exists twice."""
    there = kept[layer]
    if there.shape[0] < blocks:
        kept[layer] = torch.cat([there, there.new_zeros(blocks - there.shape[0], *there.shape[1:])])


def slot_attention(
    module: nn.Module,
    query: Tensor,
    key: Blocks,
    value: Blocks,
    attention_mask: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention over the blocks of a SlotCache, with transformers' signature of an attention function.

    Args:
        query: [rows, heads, tokens, width].
        key, value: From SlotCache.update; each of their heads serves heads / (key/value heads) query heads.
        attention_mask: Additive, [rows, 1, tokens, blocks * block].

    Returns:
        [rows, tokens, heads, width], and no weights.
    """
    del module, dropout
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ModelError("the engine `transformers` does not know this model's attention (soft caps or sinks); use the engine `vllm`")
    window = kwargs.get("sliding_window")
    blocks, rows, shared, block, _ = key.data.shape
    if window is not None and blocks * block > window:
        raise ModelError(
            f"the engine `transformers` does not decode beyond this model's sliding window of {window} tokens; use the engine `vllm`"
        )
    heads, tokens = query.shape[1], query.shape[2]
    group = heads // shared
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # Query heads that share keys become rows of one product: keys and values are never repeated in memory.
    asked = query.reshape(rows, shared, group * tokens, -1)
    found = [_matmul(asked, part.mT, reached) for part, reached in zip(key.data, key.reached, strict=True)]
    scores = torch.cat(found, dim=-1).float().view(rows, shared, group, tokens, blocks * block)
    weights = torch.softmax(torch.add(attention_mask[:, :, None], scores, alpha=scale), dim=-1)
    shares = weights.to(query.dtype).view(rows, shared, group * tokens, blocks * block).chunk(blocks, dim=-1)
    out = _matmul(shares[0], value.data[0], value.reached[0]).float()
    for share, part, reached in zip(shares[1:], value.data[1:], value.reached[1:], strict=True):
        if reached is None:
            out += _matmul(share, part, None)
        else:
            out.index_add_(0, reached, _products(share[reached], part[reached]).float())
    return out.to(query.dtype).view(rows, heads, tokens, -1).transpose(1, 2), None


def _matmul(left: Tensor, right: Tensor, reached: Tensor | None) -> Tensor:
    """left @ right, [rows, heads, m, n]; zeros in rows that are not `reached`."""
    if reached is None:
        return _products(left, right)
    return left.new_zeros(*left.shape[:3], right.shape[3]).index_copy_(0, reached, _products(left[reached], right[reached]))


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Batched products as one plain batch: matmul's own handling of four dimensions may copy."""
    return torch.bmm(left.flatten(0, 1), right.flatten(0, 1)).view(*left.shape[:3], right.shape[3])


def use_slots(model: PreTrainedModel) -> None:
    """Make `model` compute its attention through `slot_attention`; it then needs a SlotCache in every call.

    Raises:
        ModelError: the architecture cannot be decoded that way.
    """
    config = model.config.get_text_config()
    _check(config)
    AttentionInterface.register(ATTENTION, slot_attention)
    model.set_attn_implementation(ATTENTION)
    if config._attn_implementation != ATTENTION:
        kind = config.model_type
        raise ModelError(f"the engine `transformers` cannot exchange the attention of the architecture {kind!r}; use the engine `vllm`")


def _check(config: PretrainedConfig) -> None:
    odd = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if odd:
        raise ModelError(f"the engine `transformers` does not know layers of type {sorted(odd)[0]!r}; use the engine `vllm`")
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {part.get("rope_type") for part in (rope, *rope.values()) if isinstance(part, dict)}
    # Both choose their frequencies by the longest row of the batch: a row would depend on its neighbours.
    changing = kinds & {"dynamic", "longrope"}
    if changing:
        raise ModelError(f"the engine `transformers` does not batch models with {changing.pop()!r} position scaling; use the engine `vllm`")
