"""A model written to a folder of this machine, as published models are."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import GENERATION_CONFIG_NAME

from dail_runtime.errors import SetupError
from dail_runtime.models.reason import reason


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write weights (safetensors), config and generation config.

    The last as the model came with it: published ones often hold flags that transformers takes with a warning and refuses to save.
    """
    generation, model.generation_config = model.generation_config, GenerationConfig()
    try:
        model.save_pretrained(folder, max_shard_size="5GB")
    finally:
        model.generation_config = generation
    generation.to_json_file(folder / GENERATION_CONFIG_NAME)


@contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A temporary folder to put files together in; it goes away in the end.

    Raises:
        SetupError: it cannot be written, or its disk is full.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=prefix) as folder:
            yield Path(folder)
    except (OSError, SafetensorError) as err:
        where = tempfile.gettempdir()
        raise SetupError(
            f"{where}: files cannot be put together there ({reason(err)}); make room, or let TMPDIR name a larger disk; "
            "what is finished is kept, so run the same command again"
        ) from err
