"""A real API server with the training operator and its webhook."""

from tests.lab.fixtures import control_plane, namespace

__all__ = ["control_plane", "namespace"]
