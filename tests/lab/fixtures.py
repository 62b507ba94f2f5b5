"""Fixtures over the lab; a folder's conftest.py imports the ones that its tests use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import binaries
from tests.lab import control_plane as planes
from tests.lab import node as nodes
from tests.lab.cluster import Cluster
from tests.support.require import require


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Cluster]:
    """A Kubernetes control plane with the training operator: the one of DAIL_TEST_KUBECONFIG, else one of this session's own.

    A kubeconfig that `python -m tests.lab up` printed leads to a whole lab, whose components can be stopped; for any other cluster the
    tests that do so, or that need simulated nodes, are skipped.
    """
    given = os.environ.get("DAIL_TEST_KUBECONFIG")
    if given:
        path = Path(given)
        yield planes.ControlPlane.attach(path.parent) if (path.parent / "owner").exists() else Cluster(path)
        return
    reason = binaries.missing(binaries.CONTROL_PLANE)
    require(not reason, reason)
    with planes.running() as lab:
        yield lab


@pytest.fixture
def namespace(control_plane: Cluster) -> Iterator[str]:
    """A namespace of the test's own, in which the `restricted` Pod Security standard is enforced."""
    with control_plane.namespace() as name:
        yield name


@pytest.fixture(scope="module")
def node() -> Iterator[nodes.Node]:
    """A whole real node with an S3 server, as root; this machine's one, so other processes wait for their turn."""
    reason = nodes.missing()
    require(not reason, reason)
    with nodes.running() as lab:
        yield lab


@pytest.fixture
def node_namespace(node: nodes.Node) -> Iterator[str]:
    """A namespace of the test's own on the real node; the `restricted` Pod Security standard is enforced."""
    with node.namespace() as name:
        yield name
