"""The lab's fixtures, for the tests of the lab itself."""

from tests.lab.fixtures import control_plane, namespace, node, node_namespace

__all__ = ["control_plane", "namespace", "node", "node_namespace"]
