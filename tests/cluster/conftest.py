"""The real control plane, a real S3 server, and pods that are processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.control_plane import ControlPlane
from tests.lab.fixtures import control_plane, namespace
from tests.support.cluster_run import ClusterRun, cluster_run
from tests.support.s3 import Bucket, bucket, s3_server

__all__ = ["bucket", "control_plane", "namespace", "s3_server"]


@pytest.fixture
def run(control_plane: ControlPlane, namespace: str, bucket: Bucket, tmp_path: Path) -> Iterator[ClusterRun]:
    """A job that is ready to be submitted, whose stages play a script."""
    with cluster_run(control_plane, namespace, bucket, tmp_path) as found:
        yield found
