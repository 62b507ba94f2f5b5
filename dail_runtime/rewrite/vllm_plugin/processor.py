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
from numpy.typing import NDArray
from torch import Tensor
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from dail_runtime.rewrite import policies
from dail_runtime.rewrite.streams import BLOCK, uniforms
from dail_runtime.rewrite.vllm_plugin.check import CHANGES, check_settings, check_version
from dail_runtime.rewrite.vllm_plugin.requests import ACCEPTED, Row

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_CELLS = 10_000_000
"""Rows x vocabulary that are drawn at once. A draw holds some ten fp32 matrices of that size, which vLLM's memory budget does not
know of."""
_AHEAD = BLOCK
"""Steps for which uniforms are looked up at once."""
_STOCK = SamplingParams()


class PolicyProcessor(LogitsProcessor):  # type: ignore[misc]
    """Draws `direct` for single rows and `mixed` for pairs, with the uniforms of rewrite/streams.py."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse a request whose other settings would change what the plugin draws (ValueError: HTTP 400)."""
        if Row.of(sampling_params.extra_args) is None:
            return
        if sampling_params.temperature != 0:
            raise ValueError("requests with dail's arguments need temperature 0: the plugin draws, not vLLM")
        changes = [name for name in CHANGES if getattr(sampling_params, name) != getattr(_STOCK, name)]
        if changes:
            raise ValueError(f"requests with dail's arguments take no {', '.join(changes)}: the plugin draws, not vLLM")

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:  # noqa: ARG002 (as vLLM calls it)
        check_version()
        check_settings(vllm_config)
        self._device = device
        self._vocabulary = int(vllm_config.model_config.get_vocab_size())
        self._rows: dict[int, _Live] = {}
        self._groups: list[_Group] | None = []
        """None: to be made anew, because the batch changed."""
        self._drawn: list[tuple[_Group, policies.Draw]] = []
        self._size = 0
        """What the last step drew, and the number of its rows."""

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
        """Draw a token for each of dail's rows of `logits` [rows, vocabulary], and make it the greatest."""
        if self._groups is None:
            self._groups = list(_groups(self._rows, self._device, self._vocabulary))
        if not self._groups:
            return logits
        self._drawn, self._size = [(group, group.draw(logits)) for group in self._groups], len(logits)
        for group, drawn in self._drawn:
            group.force(logits, drawn.token)
        return logits

    def take(self) -> list[float] | None:
        """What the requests get to know of the tokens just drawn, a number for each row of the batch; None where none is dail's."""
        drawn, self._drawn = self._drawn, []
        if not drawn:
            return None
        told = [0.0] * self._size
        for group, draw in drawn:
            group.tell(draw, told)
        return told


class _Live:
    """A row of the batch."""

    def __init__(self, row: Row, drawn: list[int]) -> None:
        self.row = row
        self.drawn = drawn
        """vLLM's own list of the row's tokens: it grows as they are drawn."""
        self._start, self._noise = 0, np.empty(0)

    def ahead(self) -> NDArray[np.float64]:
        """Uniforms of the next _AHEAD tokens."""
        place = len(self.drawn) - self._start
        if place + _AHEAD > len(self._noise):
            block, place = divmod(len(self.drawn), BLOCK)
            self._start, self._noise = block * BLOCK, uniforms(self.row.seed, self.row.sample, block, 4 * _AHEAD // BLOCK)
        return self._noise[place : place + _AHEAD]


@dataclass
class _Group:
    """Rows that are drawn in one go: all single or all pairs, with the same suppressed ids."""

    members: Sequence[_Live]
    """The single rows, or the students: their uniforms are used."""
    contexts: Sequence[Sequence[int]]
    """The places of single rows in the batch; for pairs those of students, and those of teachers."""
    shaping: policies.Shaping
    tau: Tensor
    tries: Tensor | None

    def __post_init__(self) -> None:
        self.rows = torch.tensor(self.contexts, device=self.tau.device)
        """The same [contexts, members]."""
        self._lists = [live.drawn for live in self.members]
        self._noise, self._step, self._drawn = torch.empty(0, 0), 0, 0

    def uniforms(self) -> Tensor:
        """Of the next token of each member, [rows] fp64. Looked up for many steps at once, as long as every member draws in each."""
        drawn = sum(map(len, self._lists))
        if drawn != self._drawn or self._step == len(self._noise):
            ahead = torch.from_numpy(np.stack([live.ahead() for live in self.members], axis=1))
            self._noise, self._step, self._drawn = ahead.to(self.rows.device), 0, drawn
        self._step += 1
        self._drawn += len(self.members)
        return self._noise[self._step - 1]

    def draw(self, logits: Tensor) -> policies.Draw:
        """A token for each member."""
        # Selecting rows takes a third of the time of indexing by a tensor.
        own, *teacher = (logits.index_select(0, rows) for rows in self.rows)
        if teacher:
            return policies.mixed(own, teacher[0], self.shaping, self.tau, self.tries, self.uniforms())
        return policies.direct(own, self.shaping, self.uniforms())

    def tell(self, drawn: policies.Draw, told: list[float]) -> None:
        """Write into `told` what the rows of the batch get to know: see requests.py."""
        own, *teacher = self.contexts
        for row, logprob in zip(own, drawn.logprob.tolist(), strict=True):
            told[row] = logprob
        if isinstance(drawn, policies.MixedDraw):
            for row, distance, student in zip(*teacher, drawn.distance.tolist(), drawn.student.tolist(), strict=True):
                told[row] = distance + ACCEPTED * student

    def force(self, logits: Tensor, token: Tensor) -> None:
        """Leave vLLM's sampler no other choice than `token` [rows], in every context."""
        # Not infinity: vLLM's softmax and search for the k greatest see these rows, too, where others draw at random.
        logits[self.rows, token] = torch.finfo(torch.float32).max


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
            yield _Group(
                members=members,
                contexts=list(zip(*chosen, strict=True)),
                shaping=policies.Shaping.of(
                    [row.temperature for row in settings], [row.top_p for row in settings], suppress=suppress, device=device
                ),
                tau=torch.tensor([row.tau for row in settings], dtype=torch.float32, device=device),
                tries=torch.tensor([row.tries for row in settings], device=device) if any(row.tries > 1 for row in settings) else None,
            )
