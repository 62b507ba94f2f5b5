"""The `model` section: which weights, and how they are loaded."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dail_runtime.spec.base import Section

PACKAGE = "python:"
"""Begins the id of a model that an installed Python package brings along."""

Dtype = Literal["auto", "bfloat16", "float32"]


class ModelSpec(Section):
    """The one set of weights that is student, teacher and negative reference at once."""

    id: str = Field(min_length=1)
    """A hub id (`Qwen/Qwen2.5-7B-Instruct`), a folder (`./model`, absolute or relative to the job file),
    `s3://bucket/prefix`, or `python:PACKAGE` for weights that travel inside an installed Python package (on this machine alone)."""
    revision: str | None = None
    """Hub revision: a branch, a tag or, best, a commit."""
    gguf_file: str | None = None
    """Name of a GGUF file inside the model's folder or package, for weights kept in that format."""
    thinking: bool = False
    """True for models that reason between <think> and </think> before they answer; sets `enable_thinking` of the chat
    template."""
    dtype: Dtype = "auto"
    """Type of the frozen weights. `auto`: bfloat16 where the hardware multiplies it natively (GPU, CPU with AMX), else
    float32."""
    max_length: int | None = Field(default=None, ge=16)
    """Most tokens of prompt plus response. Null: what the model's own configuration allows."""
