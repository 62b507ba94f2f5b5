"""The conductor's Role grants what it uses and nothing else; no secret value shows up anywhere."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from dailctl.kube import Client, load_access
from dailctl.kube.resources import ROLE
from tests.lab import versitygw
from tests.lab.cluster import Object
from tests.lab.control_plane import ControlPlane
from tests.support.cluster_run import KINDS, ClusterRun
from tests.support.undisturbed import assert_undisturbed

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

Right = tuple[str, str, str]
"""API group, resource (with its subresource), verb."""
OPTIONAL: set[Right] = {("networking.k8s.io", "networkpolicies", "patch"), ("", "persistentvolumeclaims", "patch")}
"""What a conductor tries at its end with objects that only some runs have (its offline policy, its cache), and others may not."""
HF_TOKEN = "hf_canary_that_must_not_be_seen"


def granted(role: Object) -> set[Right]:
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def used(events: list[Object]) -> dict[Right, set[int]]:
    """What was asked for, with the answers' codes."""
    found: dict[Right, set[int]] = {}
    for event in events:
        what = event.get("objectRef") or {}
        if "resource" not in what:
            continue
        resource = "/".join(one for one in (what["resource"], what.get("subresource")) if one)
        found.setdefault((what.get("apiGroup", ""), resource, event["verb"]), set()).add(event["responseStatus"]["code"])
    return found


def test_the_conductor_uses_every_right_it_has_and_is_refused_nothing(run: ClusterRun) -> None:
    run.write(train={"workers": 2})
    run.script(rewrite__tuned=["slow"], train__tuned=["error:75:the store did not answer", "slow"], select__tuned=["error:75:again", "ok"])
    assert run.submit().code == 0
    role = run.client().get(ROLE, run.name)
    assert_undisturbed(run)
    run.until_only_the_record_is_left()
    asked = used(run.lab.requests(f"system:serviceaccount:{run.namespace}:{run.name}"))
    # Each right that is taken away would be missed by this very run, and none is there in vain.
    assert {right for right, codes in asked.items() if codes != {403}} == granted(role)
    assert {right for right, codes in asked.items() if 403 in codes} <= OPTIONAL


def test_anyone_may_ask_whether_the_api_server_is_ready(control_plane: ControlPlane, namespace: str) -> None:
    client = Client(load_access(control_plane.user("nobody", namespace, []), namespace=namespace), patience=1)
    assert client.ready()
    control_plane.component("kube-apiserver").kill()
    try:
        assert not client.ready()
    finally:
        control_plane.start("kube-apiserver")
    assert client.ready()


def holders(canaries: list[str], texts: dict[str, str]) -> list[str]:
    """Which of the texts show one of the values, plainly or as Kubernetes writes them."""
    values = [*canaries, *(base64.b64encode(one.encode()).decode() for one in canaries)]
    return [name for name, text in texts.items() if any(value in text for value in values)]


def test_no_secret_value_shows_up_in_objects_logs_or_the_store(run: ClusterRun, tmp_path: Path) -> None:
    canaries = [versitygw.SECRET_KEY, HF_TOKEN]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hf"}, "stringData": {"HF_TOKEN": HF_TOKEN}}
    run.lab.apply(secret, namespace=run.namespace)
    run.write(cluster={"secrets": {"hfToken": "hf"}})
    run.script(rewrite__tuned=["wait", "crash", "ok"], train__tuned=["slow"])
    assert run.submit().code == 0
    driver = run.until_at_work("rewrite/tuned")
    during = run.lab.kubectl("get", f"{KINDS},pods,events,endpointslices", "--namespace", run.namespace, "--output=json")
    run.kubelet.kill(driver)
    run.until(lambda status: status.ended)
    after = run.lab.kubectl("get", f"{KINDS},pods,events", "--namespace", run.namespace, "--output=json")
    stored = {str(path): path.read_text(errors="replace") for path in run.bucket.server.folder.rglob("*") if path.is_file()}
    logs = {str(path): path.read_text(errors="replace") for path in (tmp_path / "pods").rglob("log-*")}
    said = {f"submit {number}": one.out + one.err for number, one in enumerate(run.said)}
    audit = {"audit log": json.dumps(run.lab.requests())}
    assert len(stored) > 10
    assert len(logs) > 4
    assert holders(canaries, {"objects during": during, "objects after": after, **stored, **logs, **said, **audit}) == []
    # The search finds what is there.
    secrets = run.lab.kubectl("get", "secrets", "--namespace", run.namespace, "--output=json")
    assert holders(canaries, {"secrets": secrets}) == ["secrets"]
