"""The overlays in manifests/: true to their job, taken by a real API server, and a second apply changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.lab.cluster import Cluster

ROOT = Path(__file__).parents[2]
OVERLAYS = tuple(sorted(path.parent.name for path in ROOT.glob("manifests/overlays/*/overrides")))


def test_every_overlay_is_what_its_job_says() -> None:
    subprocess.run([sys.executable, ROOT / "tools" / "manifests.py", "--check"], check=True)


def test_a_stale_overlay_is_told(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import manifests
    finally:
        sys.path.pop(0)
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "overrides").write_bytes((ROOT / "manifests/overlays/gpu-small/overrides").read_bytes())
    manifests.render(overlay, overlay / "run")
    assert manifests.stale(overlay) == []
    (overlay / "run" / "role.yaml").write_text("kind: Role\n")
    (overlay / "run" / "job-conductor.yaml").unlink()
    (overlay / "run" / "extra.yaml").touch()
    assert manifests.stale(overlay) == ["extra.yaml", "job-conductor.yaml", "role.yaml"]


@pytest.mark.cluster
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_builds_it_and_a_second_apply_changes_nothing(control_plane: Cluster, namespace: str, overlay: str) -> None:
    folder = ROOT / "manifests" / "overlays" / overlay
    built = control_plane.kubectl("kustomize", folder)
    objects = list(yaml.safe_load_all(built))
    assert {one["kind"] for one in objects} >= {"Namespace", "ConfigMap", "Job", "Role", "RoleBinding", "ServiceAccount"}
    assert {one["metadata"].get("namespace", "dail") for one in objects} == {"dail"}
    # The same objects in the test's own namespace.
    moved = json.loads(
        json.dumps([one for one in objects if one["kind"] != "Namespace"]).replace('"namespace": "dail"', f'"namespace": "{namespace}"')
    )
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": moved})
    words = ["--server-side", "--field-manager=gitops", "--filename=-"]
    assert control_plane.kubectl("apply", "--validate=strict", *words, stdin=listed).count("serverside-applied") == len(moved)
    assert control_plane.kubectl("diff", *words, stdin=listed) == ""


def test_examples_for_gitops_lead_to_what_is_there() -> None:
    gitops = ROOT / "manifests" / "gitops"
    application = yaml.safe_load((gitops / "argocd" / "application.yaml").read_text())
    assert (ROOT / application["spec"]["source"]["path"] / "kustomization.yaml").is_file()
    _, kustomization = yaml.safe_load_all((gitops / "flux" / "kustomization.yaml").read_text())
    assert (ROOT / kustomization["spec"]["path"] / "kustomization.yaml").is_file()
    release = yaml.safe_load((gitops / "flux" / "helmrelease.yaml").read_text())
    assert (ROOT / release["spec"]["chart"]["spec"]["chart"] / "Chart.yaml").is_file()
