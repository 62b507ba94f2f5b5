"""The frozen references' hidden states: computed as they are needed, or once for all epochs and kept."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dail_runtime.errors import IntegrityError, SetupError
from dail_runtime.train.adapter import Student
from dail_runtime.train.batches import collate, micro_batches
from dail_runtime.train.data import Context, Row
from dail_runtime.train.memory import free_memory, readable

Place = Literal["none", "memory", "disk"]
"""Where hidden states are kept: nowhere, in memory, or in a temporary file that is read through memory."""


@dataclass(frozen=True)
class Keeping:
    """Whether the states are kept, and what that takes."""

    place: Place
    """Where."""
    size: int
    """Bytes that all of them take."""

    def sentence(self) -> str | None:
        """What the user should know before it starts; None where nothing is kept."""
        if self.place == "none":
            return None
        where = "in memory" if self.place == "memory" else f"in a temporary file below {tempfile.gettempdir()}"
        return f"The references' hidden states are computed once and kept {where} ({readable(self.size)})."


def choose_keeping(setting: Literal["auto", "on", "off"], *, size: int, epochs: float) -> Keeping:
    """Decide by the setting, the size in bytes, and the epochs that will use the states.

    `auto` keeps them where they are used more than once and take a quarter of the free memory at most; `on` keeps them anyway, in
    a temporary file where memory is short.

    Raises:
        SetupError: `on`, and neither memory nor disk has room.
    """
    if setting == "off" or size == 0:
        return Keeping("none", size)
    if size <= free_memory() // 4:
        return Keeping("memory" if setting == "on" or epochs > 1 else "none", size)
    if setting == "auto":
        return Keeping("none", size)
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if size > free // 2:
        raise SetupError(
            f"train.cacheReferences: on needs {readable(size)}, and neither memory ({readable(free_memory())} free) nor {folder} "
            f"({readable(free)} free) has enough to spare; set it to off, or TMPDIR to a larger disk"
        )
    return Keeping("disk", size)


class References:
    """Hands out the references' hidden states of rows."""

    def __init__(self, student: Student, rows: Sequence[Row], contexts: Sequence[Context], budget: int, keeping: Keeping) -> None:
        """
        Args:
            student: Computes them, with its adapter off.
            rows: All rows of the training.
            contexts: The references that the objective compares with.
            budget: Most tokens, padding included, of one forward pass.
            keeping: Where they are kept.
        """
        self._student, self._rows, self._contexts, self._budget, self._keeping = student, rows, contexts, budget, keeping
        self._kept: dict[tuple[int, Context], Tensor] | None = None

    def of(self, rows: Sequence[int], contexts: Sequence[Context], labels: Tensor) -> dict[Context, Tensor]:
        """Hidden states [tokens, H] of each context for the responses of `rows`, one after the other.

        `labels` [tokens] are the ids that the student's rows predict; the references' must be the same.
        """
        items = [(row, context) for context in contexts for row in rows]
        if self._kept is not None:
            states = [self._kept[item].to(labels.device, non_blocking=True) for item in items]
        else:
            counts = [len(self._rows[row].response) for row in rows]
            expected = [one for _ in contexts for one in torch.split(labels, counts)]
            computed: dict[int, Tensor] = {}
            for position, tensor, ids in self._compute(items):
                _same_response(self._rows[items[position][0]], ids, expected[position])
                computed[position] = tensor
            states = [computed[position] for position in range(len(items))]
        return {context: torch.cat(states[at * len(rows) : (at + 1) * len(rows)]) for at, context in enumerate(contexts)}

    def prepare(self, tick: Callable[[int, int], None]) -> None:
        """Where the states are kept, compute all of them now; `tick(done, total)` is called after each.

        The passes do not depend on the order of training, so a resumed run gets the same states bit for bit.
        """
        if self._keeping.place == "none" or self._kept is not None:
            return
        items = [(row, context) for row in range(len(self._rows)) for context in self._contexts]
        width, dtype = self._student.head.weight.shape[1], self._student.dtype
        room = _room(sum(len(self._rows[row].response) for row, _ in items) * width, dtype, self._keeping.place).view(-1, width)
        places = list(torch.split(room, [len(self._rows[row].response) for row, _ in items]))
        for done, (position, tensor, ids) in enumerate(self._compute(items), 1):
            row = self._rows[items[position][0]]
            _same_response(row, ids, torch.tensor(row.response, device=ids.device))
            places[position].copy_(tensor)
            tick(done, len(items))
        self._kept = dict(zip(items, places, strict=True))

    def _compute(self, items: Sequence[tuple[int, Context]]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield (position in items, hidden states, ids of the response) of each item, in whatever order packs best."""
        prompts = [self._rows[row].prompts[context] for row, context in items]
        responses = [self._rows[row].response for row, _ in items]
        lengths = [len(prompt) + len(response) - 1 for prompt, response in zip(prompts, responses, strict=True)]
        for group in micro_batches(lengths, self._budget):
            batch = collate([prompts[one] for one in group], [responses[one] for one in group], self._student.device)
            counts = list(batch.counts)
            states = torch.split(self._student.reference_hidden(batch), counts)
            yield from zip(group, states, torch.split(batch.labels, counts), strict=True)


def _same_response(row: Row, ids: Tensor, expected: Tensor) -> None:
    if not torch.equal(ids, expected):
        raise IntegrityError(f"trace of problem {row.id!r}: its contexts hold different response ids, which dail never writes; report this")


def _room(count: int, dtype: torch.dtype, place: Place) -> Tensor:
    if place == "memory":
        return torch.empty(count, dtype=dtype)
    with tempfile.NamedTemporaryFile(prefix="dail-references-") as file:
        # The mapping keeps the unnamed file alive; a killed process leaves nothing behind.
        return torch.from_file(str(Path(file.name)), shared=True, size=count, dtype=dtype)
