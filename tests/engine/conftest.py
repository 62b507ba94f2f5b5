"""The model that the vLLM engines of these tests run."""

from __future__ import annotations

import importlib.util

import pytest

from dail_runtime.spec.model import ModelSpec
from tests.support.drawing import LENGTH
from tests.support.require import require
from tests.support.tiny import make_tiny_model


@pytest.fixture(scope="session")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """A tiny one; skips where there is no vLLM to run it."""
    require(importlib.util.find_spec("vllm"), "vLLM is not installed; install dail with the extra `vllm`")
    return ModelSpec(id=str(make_tiny_model(tmp_path_factory.mktemp("model"))), maxLength=LENGTH)
