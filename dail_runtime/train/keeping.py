"""Whether the references' hidden states are kept over the epochs, where, and what that takes."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from typing import Literal

from dail_runtime.errors import SetupError
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


def choose_keeping(setting: Literal["auto", "on", "off"], *, size: int, epochs: float, machines: int = 1) -> Keeping:
    """Decide by the setting, the size in bytes, and the epochs that will use the states; on several machines each keeps its part.

    `auto` keeps them where they are used more than once and take a quarter of the free memory at most; `on` keeps them anyway, in
    a temporary file where memory is short.

    Raises:
        SetupError: `on`, and neither memory nor disk has room.
    """
    part = -(-size // machines)
    if setting == "off" or size == 0:
        return Keeping("none", size)
    if part <= free_memory() // 4:
        return Keeping("memory" if setting == "on" or epochs > 1 else "none", size)
    if setting == "auto":
        return Keeping("none", size)
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if part > free // 2:
        raise SetupError(
            f"train.cacheReferences: on needs {readable(part)}, and neither memory ({readable(free_memory())} free) nor {folder} "
            f"({readable(free)} free) has enough to spare; set it to off, or TMPDIR to a larger disk"
        )
    return Keeping("disk", size)
