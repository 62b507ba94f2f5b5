"""Whole jobs run on the lab's real node, in which the project's own images run."""

from tests.lab.fixtures import node

__all__ = ["node"]
