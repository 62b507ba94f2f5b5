"""The logits processor: draws one token for each of dail's rows in one vectorised step, and leaves the sampler no other choice.

Written for the interface of vLLM's V1 model runner. vLLM applies it to fp32 logits before its own temperature. Rows that are
only reading a part of their prompt are drawn for as well; vLLM throws those tokens away, and since the uniform of a step
follows from the number of tokens the row has, nothing is used up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

_CELLS = 10_000_000
"""Rows x vocabulary that are drawn at once. A draw holds some ten fp32 matrices of that size, which vLLM's memory budget does not
know of."""


class PolicyProcessor(LogitsProcessor):  # type: ignore[misc]
    """Draws `direct` for single rows and `mixed` for pairs, with the uniforms of rewrite/streams.py."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse a request whose other settings would change what the plugin draws (ValueError: HTTP 400)."""
        if Row.of(sampling_params.extra_args) is None:
            return
        if sampling_params.temperature != 0 or sampling_params.n != 1:
            raise ValueError("requests with dail's arguments need temperature 0 and n 1: the plugin draws, not vLLM")
        if sampling_params.num_logprobs is not None:
            raise ValueError("requests with dail's arguments take no logprobs: what they would tell is not the model's")
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
            noise = torch.tensor([live.uniform() for live in group.members], dtype=torch.float64)
            noise = noise.pin_memory().to(self._device, non_blocking=True) if self._pin else noise.to(self._device)
            group.draw(logits, noise)
        return logits


class _Live:
    """A row of the batch."""

    def __init__(self, row: Row, drawn: list[int]) -> None:
        self.row = row
        self.drawn = drawn
        """vLLM's own list of the row's tokens: it grows as they are drawn."""
        self.start = -BLOCK
        """Tokens before the first one that `noise` is for."""
        self.noise: list[float] = []
        """Uniforms of a block of tokens."""

    def uniform(self) -> float:
        """Of the next token."""
        place = len(self.drawn) - self.start
        if place >= BLOCK:
            block, place = divmod(len(self.drawn), BLOCK)
            self.start, self.noise = block * BLOCK, uniforms(self.row.seed, self.row.sample, block).tolist()
        return self.noise[place]


@dataclass(frozen=True)
class _Group:
    """Rows that are drawn in one go: all single or all pairs, with the same suppressed ids."""

    members: Sequence[_Live]
    """The single rows, or the students: their uniforms are used."""
    rows: Tensor
    """[1, rows] int64, the places of single rows in the batch; for pairs [2, rows], students and teachers."""
    contexts: Sequence[Tensor]
    """The same, one by one."""
    shaping: policies.Shaping
    tau: Tensor
    tries: Tensor

    def draw(self, logits: Tensor, noise: Tensor) -> None:
        """Draw, and leave of each row of `logits` one token, with what is to be told as its logit."""
        one, *other = (logits[rows] for rows in self.contexts)
        if not other:
            drawn = policies.direct(one, self.shaping, noise)
            told = drawn.logprob.clamp_max(0.0)[None]
        else:
            drawn = policies.mixed(one, other[0], self.shaping, self.tau, self.tries, noise)
            told = torch.stack([drawn.logprob.clamp_max(0.0), torch.add(drawn.distance.clamp(0.0, 1.0), drawn.student, alpha=2.0)])
        _force(logits, self.rows, drawn.token, told.nan_to_num(nan=BROKEN, neginf=LEAST_LOGPROB))


def _force(logits: Tensor, rows: Tensor, token: Tensor, value: Tensor) -> None:
    """Leave `token` [rows] alone in each of `rows` [contexts, rows], with the logit `value`."""
    logits.index_fill_(0, rows.flatten(), -torch.inf)
    logits[rows, token] = value


def _groups(rows: dict[int, _Live], device: torch.device, vocabulary: int) -> Iterator[_Group]:
    """Sort the batch into groups. A half whose mate is not in the batch is not drawn for: the scheduler lets it read only."""
    teachers = {live.row.pair: index for index, live in rows.items() if live.row.role == "teacher"}
    found: dict[tuple[bool, tuple[int, ...]], list[tuple[int, ...]]] = {}
    for index, live in sorted(rows.items()):
        single = live.row.role == "single"
        if single or (live.row.role == "student" and live.row.pair in teachers):
            found.setdefault((single, live.row.suppress), []).append((index,) if single else (index, teachers[live.row.pair]))
    most = max(1, _CELLS // vocabulary)
    for (_, unwanted), places in found.items():
        suppress = [id_ for id_ in unwanted if id_ < vocabulary]
        for start in range(0, len(places), most):
            chosen = places[start : start + most]
            members = [rows[own] for own, *_ in chosen]
            settings = [live.row for live in members]
            places_of = torch.tensor(chosen, device=device).T.contiguous()
            yield _Group(
                members=members,
                rows=places_of,
                contexts=tuple(places_of),
                shaping=policies.Shaping.of(
                    [row.temperature for row in settings], [row.top_p for row in settings], suppress=suppress, device=device
                ),
                tau=torch.tensor([row.tau for row in settings], dtype=torch.float32, device=device),
                tries=torch.tensor([row.tries for row in settings], dtype=torch.int64, device=device),
            )
