"""The rows that decode together in the transformers engine: one step draws a token for each and runs the model once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from dail_runtime.errors import ModelError
from dail_runtime.rewrite import policies
from dail_runtime.rewrite.engine import Sampling
from dail_runtime.rewrite.slots import SlotCache, block_size
from dail_runtime.rewrite.streams import BLOCK, uniforms
from dail_runtime.spec.rewrite import MixedPolicy

_PAD = 64
"""The last chunk of a prompt is padded to a multiple of this."""


@dataclass(frozen=True)
class Prefill:
    """A prompt that the model has read."""

    ids: tuple[int, ...]
    """Its tokens."""
    cache: SlotCache
    """Its keys and values, one row."""
    logits: Tensor
    """[1, vocabulary]: those of the first response token."""


@dataclass(frozen=True)
class Response:
    """What a slot drew."""

    ids: tuple[int, ...]
    logprob: float
    accepted: int
    distance: float


def chunk_size(device: torch.device) -> int:
    """Prompt tokens that are computed at once, a multiple of the cache's block: enough to keep the device busy."""
    return 128 if device.type == "cpu" else 512


@torch.inference_mode()
def prefill(model: PreTrainedModel, ids: Sequence[int], max_length: int, before: Prefill | None = None) -> Prefill:
    """Read one prompt, alone and in chunks whose shapes follow from its length: its numbers do not depend on other prompts.

    Args:
        max_length: Positions the model has.
        before: An earlier prompt. Whole chunks that both begin with (worked examples, a system message) are copied from it:
            computed again they would be the same to the last bit.
    """
    device, size = model.device, chunk_size(model.device)
    cache = SlotCache(1, block_size(device))
    shared = 0
    if before is not None:
        while shared + size < len(ids) and before.ids[shared : shared + size] == tuple(ids[shared : shared + size]):
            shared += size
        cache.begin_like(before.cache, shared)
    logits = torch.empty(0)
    for start in range(shared, len(ids), size):
        part = list(ids[start : start + size])
        padded = -(-len(part) // _PAD) * _PAD
        tokens = torch.tensor([part + [0] * (padded - len(part))], device=device)
        places = torch.arange(start, start + padded, device=device)[None]
        mask = cache.at(places, np.array([start + padded]))
        last = torch.tensor([len(part) - 1], device=device)
        # What follows the prompt in the last chunk is never seen; only models with a table of positions would trip over them.
        positions = places.clamp_max(max_length - 1)
        out = model(tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=last)
        logits = out.logits[:, 0]
    return Prefill(tuple(ids), cache, logits)


class Batch:
    """A fixed number of slots, each with one response under way or none.

    The number of rows in every matrix product is fixed (context c of slot s is row c * slots + s), empty slots included:
    what a row computes then does not change as others come and go.
    """

    def __init__(self, model: PreTrainedModel, slots: int, contexts: int, sampling: Sampling, vocabulary: int) -> None:
        rows = slots * contexts
        device = model.device
        self._model, self._device, self._contexts, self._slots = model, device, contexts, slots
        self._cache = SlotCache(rows, block_size(device))
        self._logits = torch.zeros(rows, vocabulary, dtype=model.dtype, device=device)
        self._shaping = policies.Shaping.of(
            [sampling.temperature] * slots, [sampling.top_p] * slots, suppress=sampling.suppress, device=device
        )
        self._mixed: tuple[Tensor, Tensor] | None = None
        if isinstance(sampling.policy, MixedPolicy):
            self._mixed = (
                torch.full((slots,), sampling.policy.tau, dtype=torch.float32, device=device),
                torch.full((slots,), sampling.policy.tries, dtype=torch.int64, device=device),
            )
        self._ends = np.zeros(vocabulary, dtype=bool)
        self._ends[[id_ for id_ in sampling.eos if id_ < vocabulary]] = True
        self._active = np.zeros(slots, dtype=bool)
        self._drawn = np.zeros(slots, dtype=np.int64)
        self._limit = np.zeros(slots, dtype=np.int64)
        self._start = np.zeros((contexts, slots), dtype=np.int64)
        self._streams = [(0, 0)] * slots
        self._noise = np.zeros((slots, BLOCK))
        self._ids = np.zeros((slots, 256), dtype=np.int64)
        self._sums = np.zeros((3, slots))

    def free(self) -> list[int]:
        """Slots without a response."""
        return [int(slot) for slot in np.flatnonzero(~self._active)]

    def under_way(self) -> int:
        """Number of responses that are not finished."""
        return int(self._active.sum())

    @torch.inference_mode()
    def admit(self, slots: Sequence[int], prompts: Sequence[Prefill], seed: int, indices: Sequence[int], limit: int) -> None:
        """Start the samples `indices` of one problem in free `slots`; each may draw `limit` tokens."""
        chosen = list(slots)
        for context, prompt in enumerate(prompts):
            rows = torch.tensor(chosen, device=self._device) + context * self._slots
            self._cache.adopt(rows, prompt.cache)
            self._logits[rows] = prompt.logits
            self._start[context, chosen] = len(prompt.ids)
        self._active[chosen] = True
        self._drawn[chosen] = 0
        self._limit[chosen] = limit
        self._sums[:, chosen] = 0
        for slot, index in zip(chosen, indices, strict=True):
            self._streams[slot] = (seed, index)

    @torch.inference_mode()
    def step(self) -> list[tuple[int, Response]]:
        """Draw one token in every active slot; returns the slots that finished, now free, and what they drew."""
        for slot in np.flatnonzero(self._active & (self._drawn % BLOCK == 0)):
            seed, index = self._streams[slot]
            self._noise[slot] = uniforms(seed, index, int(self._drawn[slot]) // BLOCK)
        noise = self._noise[np.arange(self._slots), self._drawn % BLOCK]
        draw = self._draw(self._upload(noise))
        # One copy to the host a step, which is also the one point where the host waits for a GPU. fp64 holds every id.
        columns = [draw.token, draw.logprob, *((draw.student, draw.distance) if isinstance(draw, policies.MixedDraw) else ())]
        told = torch.stack([column.double() for column in columns]).cpu().numpy()
        tokens = told[0].astype(np.int64)
        if not np.isfinite(told[1][self._active]).all():
            raise ModelError("the model gives logits that are not finite numbers; load it with model.dtype float32, or check its weights")
        if int(self._drawn.max()) >= self._ids.shape[1]:
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)], axis=1)
        self._ids[self._active, self._drawn[self._active]] = tokens[self._active]
        self._sums[: len(told) - 1, self._active] += told[1:, self._active]
        self._drawn[self._active] += 1
        over = self._active & (self._ends[tokens] | (self._drawn >= self._limit))
        finished = [(int(slot), self._response(int(slot))) for slot in np.flatnonzero(over)]
        self._active &= ~over
        self._drawn[over] = 0
        if self._active.any():
            self._forward(draw.token)
        return finished

    def _draw(self, noise: Tensor) -> policies.Draw:
        if self._mixed is None:
            return policies.direct(self._logits, self._shaping, noise)
        return policies.mixed(self._logits[: self._slots], self._logits[self._slots :], self._shaping, *self._mixed, noise)

    def _forward(self, tokens: Tensor) -> None:
        # Empty slots compute too, on position 0 of their own row, which the next response overwrites.
        places = np.where(self._active, self._start + self._drawn - 1, 0)
        positions = self._upload(places.reshape(-1, 1))
        mask = self._cache.at(positions, places.reshape(-1) + 1)
        fed = tokens.repeat(self._contexts)[:, None]
        out = self._model(fed, attention_mask=mask, position_ids=positions, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._logits = out.logits[:, 0]

    def _response(self, slot: int) -> Response:
        logprob, accepted, distance = (float(value) for value in self._sums[:, slot])
        return Response(tuple(self._ids[slot, : self._drawn[slot]].tolist()), logprob, int(accepted), distance)

    def _upload(self, values: NDArray[np.float64] | NDArray[np.int64]) -> Tensor:
        there = torch.from_numpy(values)
        # From pinned memory the copy does not wait for the work that is queued on the GPU.
        return there.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else there
