"""How large a model's weights are, as far as that can be told without fetching them; decides how long a server may take to start."""

from __future__ import annotations

import math
import re
from pathlib import Path

WEIGHTS = (".safetensors", ".gguf")
BYTES_PER_PARAMETER = 2
"""Hub models are published in 16 bits."""

START_SECONDS = 600
"""Start of a server without its weights: imports, CUDA graphs, compilation, a queue for the image."""
BYTES_PER_SECOND = 50e6
"""Slowest download and load that still counts as progress."""
UNKNOWN_SECONDS = 3600
"""Budget where nothing is known of the size."""

_PARAMETERS = re.compile(r"(?<![A-Za-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bBmM])(?![A-Za-z0-9])")


def model_bytes(model_id: str) -> int | None:
    """Bytes of the weights: of a folder's files, or from the parameter count in the id (`Qwen2.5-7B` has 7 billion); None: unknown."""
    folder = Path(model_id)
    if folder.is_absolute():
        return sum(path.stat().st_size for path in folder.iterdir() if path.name.endswith(WEIGHTS)) if folder.is_dir() else None
    counts = [
        int(experts or 1) * float(number) * (1e9 if unit in "bB" else 1e6)
        for experts, number, unit in _PARAMETERS.findall(model_id.rpartition("/")[2])
    ]
    # A mixture of experts names all parameters and the active ones (30B-A3B): the larger number is what must be loaded.
    return int(max(counts) * BYTES_PER_PARAMETER) if counts else None


def start_seconds(size: int | None) -> int:
    """How long a server with weights of so many bytes may take to start, rounded up to whole minutes."""
    if size is None:
        return UNKNOWN_SECONDS
    return 60 * math.ceil((START_SECONDS + size / BYTES_PER_SECOND) / 60)
