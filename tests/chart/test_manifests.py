"""The overlays in manifests/: true to their job, taken by a real API server, and a second apply changes nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import lupa
import pytest
import yaml

from dailctl.conductor.status import SUMMARY, RunStatus, summary_of
from tests.golden import rendered
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


SUMMARIES = {
    None: ("Progressing", "the conductor has not begun"),
    RunStatus(): ("Progressing", "unknown"),
    RunStatus(state="running", message="train/tuned: attempt 2"): ("Progressing", "train/tuned: attempt 2"),
    RunStatus(state="done"): ("Healthy", "done"),
    RunStatus(state="failed", message='rewrite: no "answer" in it; say state: "done"'): (
        "Degraded",
        "rewrite: no 'answer' in it; say state: 'done'",
    ),
    RunStatus(state="cancelled"): ("Suspended", "cancelled"),
    RunStatus(state="suspended"): ("Suspended", "suspended"),
}
"""Status of a run -> what Argo CD is to make of it."""


@pytest.mark.parametrize("status", SUMMARIES, ids=lambda status: status.state if status else "new")
def test_argo_cd_and_flux_tell_the_state_of_a_run_from_its_record(status: RunStatus | None) -> None:
    summary = summary_of(status).model_dump_json(exclude_defaults=True) if status is not None else None
    record = rendered("mig").objects[0]
    if summary is not None:
        record = {**record, "metadata": {**record["metadata"], "annotations": {SUMMARY: summary}}}
    assert argo_health(record) == SUMMARIES[status]
    flux = {word: bool(summary) and any(re.search(one, summary or "") for one in found) for word, found in flux_patterns().items()}
    state = status.state if status is not None else "waiting"
    assert flux == {"failed": state in ("failed", "cancelled"), "current": state == "done"}


def test_argo_cd_leaves_other_config_maps_alone() -> None:
    assert argo_health({"metadata": {"name": "x"}}) == ("Healthy", "")


def argo_health(obj: dict[str, Any]) -> tuple[str, str]:
    """What the health check that argocd-cm is given says of a ConfigMap."""
    config = yaml.safe_load((ROOT / "manifests/gitops/argocd/health.yaml").read_text())
    lua = lupa.LuaRuntime()
    lua.globals().obj = lua.table_from(obj, recursive=True)
    found = lua.execute(config["data"]["resource.customizations.health.ConfigMap"])
    return found["status"], found["message"]


def flux_patterns() -> dict[str, list[str]]:
    """The patterns that Flux's health check expressions look for in the record's summary."""
    _, kustomization = yaml.safe_load_all((ROOT / "manifests/gitops/flux/kustomization.yaml").read_text())
    (check,) = kustomization["spec"]["healthCheckExprs"]
    assert all(check[word].count(f"'{SUMMARY}'") == 2 for word in ("failed", "current"))
    return {word: re.findall(r"matches\('(.*?)'\)", check[word]) for word in ("failed", "current")}


def test_examples_for_gitops_lead_to_what_is_there() -> None:
    gitops = ROOT / "manifests" / "gitops"
    application = yaml.safe_load((gitops / "argocd" / "application.yaml").read_text())
    assert (ROOT / application["spec"]["source"]["path"] / "kustomization.yaml").is_file()
    _, kustomization = yaml.safe_load_all((gitops / "flux" / "kustomization.yaml").read_text())
    assert (ROOT / kustomization["spec"]["path"] / "kustomization.yaml").is_file()
    release = yaml.safe_load((gitops / "flux" / "helmrelease.yaml").read_text())
    assert (ROOT / release["spec"]["chart"]["spec"]["chart"] / "Chart.yaml").is_file()
