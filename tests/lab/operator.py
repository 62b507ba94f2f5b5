"""The Kubeflow training operator (PyTorchJob) as a process beside the control plane, with its own manifests' rights and webhook."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tests.lab.binaries import asset
from tests.lab.cluster import KubectlError, Object
from tests.lab.components import Launch
from tests.lab.pki import Authority

if TYPE_CHECKING:
    from tests.lab.control_plane import ControlPlane

NAMESPACE = "kubeflow"
NAME = "training-operator"
SECRET = "training-operator-webhook-cert"
INIT_CONTAINER = Path(__file__).with_name("init_container.yaml")
CERTIFICATES = Path("k8s-webhook-server") / "serving-certs"
"""Below the folder for temporary files: where the operator's webhook server looks for its certificate."""


def start(lab: ControlPlane, launch: Launch, ports: Mapping[str, int]) -> None:
    """Applies the operator's manifests, starts it as their service account, and returns when its webhook answers."""
    objects = manifests(ports["webhook"])
    lab.apply(*(one for one in objects if one["kind"] in ("Namespace", "CustomResourceDefinition")))
    scratch = lab.folder / "operator"
    lab.apply(*(one for one in objects if one["kind"] not in ("Namespace", "CustomResourceDefinition")), _certificate(scratch))
    account = lab.service_account(NAME, NAMESPACE)
    operator = launch(
        NAME,
        f"--kubeconfig={account}",
        "--enable-scheme=pytorchjob",
        f"--webhook-server-port={ports['webhook']}",
        f"--metrics-bind-address=127.0.0.1:{ports['operator-metrics']}",
        f"--health-probe-bind-address=127.0.0.1:{ports['operator-health']}",
        f"--pytorch-init-container-template-file={INIT_CONTAINER}",
        MY_POD_NAMESPACE=NAMESPACE,
        TMPDIR=str(scratch),
    )
    lab.kubectl("wait", "--for=condition=Established", "crd/pytorchjobs.kubeflow.org", "--timeout=900s")
    operator.wait(lambda: serves(lab))


def manifests(webhook_port: int) -> list[Object]:
    """The objects of the operator's standalone overlay, but for its Deployment and the kinds of job that dail does not use.

    The webhook's Service is made to lead to a process on this machine: type ExternalName, as its certificate is for the Service's name.
    """
    base = asset(NAME, "manifests") / "base"
    files = ["crds/kubeflow.org_pytorchjobs.yaml", "rbac/cluster-role-binding.yaml", "rbac/role.yaml", "rbac/service-account.yaml"]
    objects = [one for file in files for one in yaml.safe_load_all((base / file).read_text()) if one]
    webhook = yaml.safe_load((base / "webhook" / "manifests.yaml").read_text())
    webhook["metadata"]["name"] = "validator.training-operator.kubeflow.org"
    webhook["webhooks"] = [one for one in webhook["webhooks"] if "pytorchjob" in one["name"]]
    for one in webhook["webhooks"]:
        one["clientConfig"]["service"].update(name=NAME, namespace=NAMESPACE, port=webhook_port)
    for one in objects:
        if one["kind"] == "ServiceAccount":
            one["metadata"]["namespace"] = NAMESPACE
        for subject in one.get("subjects", []):
            subject["namespace"] = NAMESPACE
    service = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": webhook_port}]}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        *objects,
        webhook,
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME, "namespace": NAMESPACE}, "spec": service},
    ]


def _certificate(scratch: Path) -> Object:
    """The webhook's certificate: the Secret that the operator manages and, as its kubelet would, the files of that Secret."""
    authority = Authority.new("training-operator-ca", rsa_keys=True)
    pair = authority.server(NAME, [f"{NAME}.{NAMESPACE}.svc"])
    data = {"ca.crt": authority.pair.certificate, "ca.key": authority.pair.key, "tls.crt": pair.certificate, "tls.key": pair.key}
    # The operator only looks whether a certificate is at this fixed path; it reads the one below its own TMPDIR.
    mounted = Path("/tmp") / CERTIFICATES / "tls.crt"
    for folder in (scratch / CERTIFICATES, mounted.parent):
        folder.mkdir(parents=True, exist_ok=True)
    if not mounted.exists():
        mounted.write_bytes(pair.certificate)
    for name, value in data.items():
        (scratch / CERTIFICATES / name).write_bytes(value)
    encoded = {name: base64.b64encode(value).decode() for name, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": NAMESPACE}, "data": encoded}


def serves(lab: ControlPlane) -> bool:
    """Whether the API server reaches the webhook, asked with a job that is not kept."""
    container = {"name": "pytorch", "image": "none"}
    replica = {"replicas": 1, "template": {"spec": {"containers": [container]}}}
    trial = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "trial", "namespace": "default"}}
    try:
        lab.kubectl("create", "--dry-run=server", "-f-", stdin=json.dumps({**trial, "spec": {"pytorchReplicaSpecs": {"Master": replica}}}))
    except KubectlError:
        return False
    return True
