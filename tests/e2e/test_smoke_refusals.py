"""`make smoke` on a cluster that is not there, or lacks something: one sentence, before anything is built or begun."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.cluster import Cluster
from tests.lab.fixtures import control_plane
from tests.support.stage_process import REPOSITORY

__all__ = ["control_plane"]

pytestmark = pytest.mark.cluster


def smoke(kubeconfig: Path, *words: str) -> str:
    """What it says when it fails: one line."""
    command = [sys.executable, "-m", "tests.e2e.smoke", "--kubeconfig", str(kubeconfig), "--image", "x", "--control-image", "y", *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_a_kubeconfig_that_leads_nowhere(tmp_path: Path) -> None:
    said = smoke(tmp_path / "none")
    assert f"smoke: the cluster of {tmp_path / 'none'} cannot be asked" in said
    assert "correct KUBECONFIG" in said


def test_an_address_that_is_another_machines(control_plane: Cluster) -> None:
    # TEST-NET-1 (RFC 5737), which nobody has.
    assert "smoke: versitygw does not start on 192.0.2.1: " in smoke(control_plane.kubeconfig, "--serve-s3", "192.0.2.1")


def test_a_storage_that_nobody_named(control_plane: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    said = smoke(control_plane.kubeconfig)
    assert "AWS_ENDPOINT_URL_S3 for a storage that pods reach too, or name an address to --serve-s3" in said
