"""Which of several training processes this one is, as torchrun's environment says it. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from dail_runtime.errors import UsageError


@dataclass(frozen=True)
class Place:
    """One process among those that train together."""

    rank: int = 0
    """0 .. size - 1; rank 0 leads: it alone writes to the store."""
    size: int = 1
    """Processes in all (torchrun's WORLD_SIZE)."""
    local_rank: int = 0
    """Number of the process on its machine, and of its GPU there."""
    local_size: int = 1
    """Processes on its machine."""

    @property
    def lead(self) -> bool:
        """Whether it is rank 0."""
        return self.rank == 0

    @property
    def node(self) -> int:
        """Number of its machine; machines hold equally many processes, numbered in order."""
        return self.rank // self.local_size


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """The place that RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE describe; alone where RANK or WORLD_SIZE is not set.

    Raises:
        UsageError: the variables contradict each other.
    """
    if not environment.get("RANK") or not environment.get("WORLD_SIZE"):
        return Place()
    names = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    found = {name: environment.get(name) or default for name, default in names.items()}
    shown = ", ".join(f"{name}={value}" for name, value in found.items())
    try:
        rank, size, local_rank, local_size = (int(value) for value in found.values())
    except ValueError:
        raise UsageError(
            f"the ranks of this training are not numbers ({shown}); start it with python -m dail_runtime.train.launch"
        ) from None
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
        raise UsageError(f"the ranks of this training contradict each other ({shown}); start it with python -m dail_runtime.train.launch")
    return Place(rank, size, local_rank, local_size)
