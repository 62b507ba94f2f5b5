"""Fixtures of the kill tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.lab.fixtures import node, node_namespace

__all__ = ["node", "node_namespace"]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in the stage's own process: the number of threads is part of the promise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
