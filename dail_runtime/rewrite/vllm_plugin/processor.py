"""The logits processor: draws one token for each of dail's rows in one vectorised step, and leaves the sampler no other choice.

Written for the interface of vLLM's V1 model runner. vLLM applies it to fp32 logits before its own temperature. Rows that are
only reading a part of their prompt are drawn for as well; vLLM throws those tokens away, and since the uniform of a step
follows from the number of tokens the row has, nothing is used up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from dail_runtime.rewrite import policies
from dail_runtime.rewrite.streams import BLOCK, uniforms
from dail_runtime.rewrite.vllm_plugin.check import check_settings, check_version
from dail_runtime.rewrite.vllm_plugin.requests import BROKEN, LEAST_LOGPROB, Row

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig

_ROWS = 64
"""Rows drawn at once. A draw holds some ten fp32 matrices of rows x vocabulary, which vLLM's memory budget does not know of."""


class PolicyProcessor(LogitsProcessor):  # type: ignore[misc]
    """Draws `direct` for single rows and `mixed` for pairs, with the uniforms of rewrite/streams.py."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse a request whose other settings would change what the plugin draws (ValueError: HTTP 400)."""
        if Row.of(sampling_params.extra_args) is None:
            return
        if sampling_params.temperature != 0 or sampling_params.n != 1:
            raise ValueError("requests with dail's arguments need temperature 0 and n 1: the plugin draws, not vLLM")
        if sampling_params.logprobs is None:
            raise ValueError("requests with dail's arguments need logprobs 0: results come back in them")
        penalties = (sampling_params.presence_penalty, sampling_params.frequency_penalty, sampling_params.repetition_penalty - 1)
        if any(penalties) or sampling_params.logit_bias or sampling_params.min_tokens or sampling_params.bad_words:
            raise ValueError("requests with dail's arguments take no penalties, logit_bias, bad_words or min_tokens")

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        check_version()
        check_settings(vllm_config)
        self._device, self._pin = device, is_pin_memory
        self._vocabulary = int(vllm_config.model_config.get_vocab_size())
        self._rows: dict[int, _Live] = {}
        self._groups: list[_Group] | None = []
        """None: to be made anew, because the batch changed."""

    def is_argmax_invariant(self) -> bool:
        """False: it decides which token is the greatest."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the rows of the batch."""
        if batch_update is None:
            return
        self._groups = None
        rows = self._rows
        for index in batch_update.removed:
            rows.pop(index, None)
        for index, params, _, drawn in batch_update.added:
            row = Row.of(params.extra_args)
            if row is None:
                rows.pop(index, None)
            else:
                rows[index] = _Live(row, drawn)
        for first, second, direction in batch_update.moved:
            one, other = rows.pop(first, None), rows.pop(second, None)
            if one is not None:
                rows[second] = one
            if other is not None and direction == MoveDirectionality.SWAP:
                rows[first] = other

    def apply(self, logits: Tensor) -> Tensor:
        """Leave one token in each of dail's rows of `logits` [rows, vocabulary]; its logit is what the request gets to know."""
        if self._groups is None:
            self._groups = list(_groups(self._rows, self._device, self._vocabulary))
        for group in self._groups:
            noise = torch.tensor([live.uniform() for live in group.rows], dtype=torch.float64)
            noise = noise.pin_memory().to(self._device, non_blocking=True) if self._pin else noise.to(self._device)
            group.draw(logits, noise)
        return logits


class _Live:
    """A row of the batch."""

    def __init__(self, row: Row, drawn: list[int]) -> None:
        self.row = row
        self._drawn = drawn
        """vLLM's own list of the row's tokens: it grows as they are drawn."""
        self._block, self._noise = -1, np.empty(0)

    def uniform(self) -> float:
        """Of the next token."""
        step = len(self._drawn)
        if step // BLOCK != self._block:
            self._block = step // BLOCK
            self._noise = uniforms(self.row.seed, self.row.sample, self._block)
        return float(self._noise[step % BLOCK])


@dataclass(frozen=True)
class _Group:
    """Rows that are drawn in one go: all single or all pairs, with the same suppressed ids."""

    rows: Sequence[_Live]
    """Whose uniforms are used: single rows, or the students."""
    own: Tensor
    """[rows] int64, their places in the batch."""
    teacher: Tensor | None
    """[rows] int64, the places of their teachers; None for single rows."""
    shaping: policies.Shaping
    tau: Tensor
    tries: Tensor

    def draw(self, logits: Tensor, noise: Tensor) -> None:
        """Draw, and write the token and what is to be told into `logits`."""
        if self.teacher is None:
            told = policies.direct(logits[self.own], self.shaping, noise)
            _force(logits, self.own, told.token, told.logprob.clamp(LEAST_LOGPROB, 0.0))
            return
        told = policies.mixed(logits[self.own], logits[self.teacher], self.shaping, self.tau, self.tries, noise)
        _force(logits, self.own, told.token, told.logprob.clamp(LEAST_LOGPROB, 0.0))
        distance = torch.where(told.logprob.isnan(), torch.nan, told.distance.clamp(0.0, 1.0) + 2.0 * told.student)
        _force(logits, self.teacher, told.token, distance)


def _force(logits: Tensor, rows: Tensor, token: Tensor, value: Tensor) -> None:
    logits.index_fill_(0, rows, -torch.inf)
    logits[rows, token] = value.nan_to_num(nan=BROKEN)


def _groups(rows: dict[int, _Live], device: torch.device, vocabulary: int) -> Iterator[_Group]:
    """Sort the batch into groups. A half whose mate is not in the batch is not drawn for: the scheduler lets it read only."""
    teachers = {live.row.pair: index for index, live in rows.items() if live.row.role == "teacher"}
    found: dict[tuple[bool, tuple[int, ...]], list[tuple[int, int]]] = {}
    for index, live in sorted(rows.items()):
        single = live.row.role == "single"
        if single or (live.row.role == "student" and live.row.pair in teachers):
            found.setdefault((single, live.row.suppress), []).append((index, index if single else teachers[live.row.pair]))
    for (single, unwanted), places in found.items():
        suppress = [id_ for id_ in unwanted if id_ < vocabulary]
        for start in range(0, len(places), _ROWS):
            own, shown = zip(*places[start : start + _ROWS], strict=True)
            members = [rows[index] for index in own]
            settings = [live.row for live in members]
            yield _Group(
                rows=members,
                own=torch.tensor(own, device=device),
                teacher=None if single else torch.tensor(shown, device=device),
                shaping=policies.Shaping.of(
                    [row.temperature for row in settings], [row.top_p for row in settings], suppress=suppress, device=device
                ),
                tau=torch.tensor([row.tau for row in settings], dtype=torch.float32, device=device),
                tries=torch.tensor([row.tries for row in settings], dtype=torch.int64, device=device),
            )
