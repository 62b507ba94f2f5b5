"""The frozen references of rows: computed as they are needed, or once for all epochs and kept, shared out between the ranks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dail_runtime.errors import IntegrityError, SetupError
from dail_runtime.train.adapter import Student
from dail_runtime.train.batches import collate, micro_batches, shares
from dail_runtime.train.data import Context, Row
from dail_runtime.train.form import Form, HiddenStates
from dail_runtime.train.keeping import Keeping, Place
from dail_runtime.train.lockstep import rounds
from dail_runtime.train.memory import readable
from dail_runtime.train.world import World

Item = tuple[int, Context]
"""A row and the context it is seen under."""


class References:
    """Hands out the references of rows, as `fused_loss` takes them.

    Where they are kept, each rank computes and keeps those of its part of the rows; a step's go from the rank that has them to the one
    that trains on the row. Any rank may so train on any row, and the memory of all ranks serves all.
    """

    def __init__(
        self,
        student: Student,
        rows: Sequence[Row],
        contexts: Sequence[Context],
        budget: int,
        keeping: Keeping,
        world: World,
        form: Form | None = None,
    ) -> None:
        """
        Args:
            student: Computes them, with its adapter off.
            rows: All rows of the training.
            contexts: The references that the objective compares with.
            budget: Most tokens, padding included, of one forward pass.
            keeping: Where they are kept.
            world: All ranks.
            form: What is kept of them; None: their hidden states.
        """
        self._student, self._rows, self._contexts, self._budget = student, rows, tuple(contexts), budget
        self._keeping, self._world = keeping, world
        self._form = form or HiddenStates(contexts, student.width, student.dtype)
        self._kept: dict[int, Tensor] | None = None
        self._owner: dict[int, int] = {}
        self._here: dict[int, Tensor] = {}

    @property
    def kept(self) -> bool:
        """Whether the references are computed once for all epochs."""
        return self._keeping.place != "none"

    def deal(self, dealt: Sequence[Sequence[int]]) -> None:
        """Bring what is kept of a step's rows to the ranks that train on them: `dealt[rank]` are the rows of that rank.

        Called by all ranks, after `prepare`; where nothing is kept, there is nothing to do.
        """
        if self._kept is None:
            return
        self._here = {}
        me = self._world.place.rank
        sends: list[tuple[int, Tensor]] = []
        receives: list[tuple[int, Tensor]] = []
        for rank, rows in enumerate(dealt):
            for row in rows:
                owner = self._owner[row]
                if rank == me == owner:
                    self._here[row] = self._kept[row]
                elif owner == me:
                    sends.append((rank, self._kept[row]))
                elif rank == me:
                    shape = (len(self._rows[row].response), self._form.columns())
                    self._here[row] = torch.empty(shape, dtype=self._form.dtype, device=self._student.device)
                    receives.append((owner, self._here[row]))
        self._world.exchange(sends, receives)

    def of(self, rows: Sequence[int], labels: Tensor) -> dict[str, Any]:
        """Arguments of `fused_loss` for the responses of `rows`, one after the other.

        `labels` [tokens] are the ids that the student's rows predict; the references' must be the same. No rows: nothing, but this
        rank takes part in what the others compute.
        """
        if self._kept is not None:
            if not rows:
                return {}
            return self._form.arguments(torch.cat([self._here[row].to(labels.device, non_blocking=True) for row in rows]))
        items = [(row, context) for context in self._contexts for row in rows]
        counts = [len(self._rows[row].response) for row in rows]
        expected = [one for _ in self._contexts for one in torch.split(labels, counts)]
        computed: dict[int, Tensor] = {}
        for position, tensor, ids in self._compute(items):
            _same_response(self._rows[items[position][0]], ids, expected[position])
            computed[position] = tensor
        states = [computed[position] for position in range(len(items))]
        with self._form.ready():
            if not rows:
                return {}
            by_context = {context: torch.cat(states[at * len(rows) : (at + 1) * len(rows)]) for at, context in enumerate(self._contexts)}
            return self._form.of(by_context, labels)

    def prepare(self, tick: Callable[[int, int], None], stop: Callable[[], bool] = lambda: False) -> bool:
        """Where the references are kept, compute this rank's part of them now; `tick(done, total)` is called after each.

        The passes do not depend on the order of training, so a resumed run gets the same bit for bit. Returns false on all ranks where
        `stop()` was true on any of them before the end: nothing is kept then.
        """
        if not self.kept or self._kept is not None:
            return True
        lengths = [sum(len(row.prompts[one]) + len(row.response) for one in self._contexts) for row in self._rows]
        dealt = shares(lengths, self._world.size)
        own = dealt[self._world.place.rank]
        kept = self._room(own)
        done = 0
        with self._form.ready():
            # One context after the other: what is kept of the negative may depend on what is kept of the teacher.
            for row, context, tensor in self._of_all(own, stop):
                labels = torch.tensor(self._rows[row].response, device=tensor.device)
                self._form.write(context, tensor, labels, kept[row])
                done += 1
                tick(done, len(own) * len(self._contexts))
        stopped = self._world.any(stop())
        if not stopped:
            self._kept = kept
            self._owner = {row: rank for rank, rows in enumerate(dealt) for row in rows}
        return not stopped

    def _of_all(self, rows: Sequence[int], stop: Callable[[], bool]) -> Iterator[tuple[int, Context, Tensor]]:
        """Yield (row, context, hidden states) of `rows` under every context."""
        for context in self._contexts:
            for position, tensor, ids in self._compute([(row, context) for row in rows], stop):
                _same_response(self._rows[rows[position]], ids, torch.tensor(self._rows[rows[position]].response, device=ids.device))
                yield rows[position], context, tensor

    def _compute(self, items: Sequence[Item], stop: Callable[[], bool] = lambda: False) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield (position in items, hidden states, ids of the response) of each item, in whatever order packs best; ends at `stop`."""
        prompts = [self._rows[row].prompts[context] for row, context in items]
        responses = [self._rows[row].response for row, _ in items]
        lengths = [len(prompt) + len(response) - 1 for prompt, response in zip(prompts, responses, strict=True)]
        groups = micro_batches(lengths, self._budget)
        for number in rounds(self._world, len(groups), together=self._student.sharded, stop=stop):
            group = [] if number is None else groups[number]
            if not group:
                self._student.idle(learning=False)
                continue
            batch = collate([prompts[one] for one in group], [responses[one] for one in group], self._student.device)
            counts = list(batch.counts)
            states = torch.split(self._student.reference_hidden(batch), counts)
            yield from zip(group, states, torch.split(batch.labels, counts), strict=True)

    def _room(self, rows: Sequence[int]) -> dict[int, Tensor]:
        """Room for what is kept of `rows`: row -> [tokens, columns]."""
        counts = [len(self._rows[row].response) for row in rows]
        whole = _storage(sum(counts) * self._form.columns(), self._form.dtype, self._keeping.place).view(-1, self._form.columns())
        return dict(zip(rows, torch.split(whole, counts), strict=True))


def _same_response(row: Row, ids: Tensor, expected: Tensor) -> None:
    if not torch.equal(ids, expected):
        raise IntegrityError(f"trace of problem {row.id!r}: its contexts hold different response ids, which dail never writes; report this")


def _storage(count: int, dtype: torch.dtype, place: Place) -> Tensor:
    if place == "memory" or count == 0:
        return torch.empty(count, dtype=dtype)
    folder = tempfile.gettempdir()
    try:
        with tempfile.NamedTemporaryFile(prefix="dail-references-") as file:
            if hasattr(os, "posix_fallocate"):  # not on macOS
                # Now, not as it is written to: a disk that is full by then would kill the process (SIGBUS), without a word.
                os.posix_fallocate(file.fileno(), 0, count * dtype.itemsize)
            # The mapping keeps the unnamed file alive; a killed process leaves nothing behind.
            return torch.from_file(str(Path(file.name)), shared=True, size=count, dtype=dtype)
    except OSError as err:
        raise SetupError(
            f"train.cacheReferences: {folder} has no room for {readable(count * dtype.itemsize)} ({err.strerror}); "
            "set it to off, or TMPDIR to a larger disk"
        ) from err
