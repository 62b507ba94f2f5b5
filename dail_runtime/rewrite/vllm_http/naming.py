"""The name under which servers serve a job's model: both sides work it out alike, so that no trace comes from another model."""

from __future__ import annotations

from pathlib import Path

from dail_runtime.models.adapter import adapter_digest
from dail_runtime.spec.model import ModelSpec


def served_name(model: ModelSpec, adapter: Path | None = None) -> str:
    """The model's id, with its revision and GGUF file where the job names them, and with the adapter's digest where it has one.

    A plain `vllm serve ID` has that name for a model without any of these.
    """
    name = model.id
    if model.revision is not None:
        name += f"@{model.revision}"
    if model.gguf_file is not None:
        name += f":{model.gguf_file}"
    return name if adapter is None else f"{name}+{adapter_digest(adapter)}"
