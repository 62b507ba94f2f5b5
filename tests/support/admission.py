"""Policies of a cluster for tests: what a namespace is not to have."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator

from tests.lab.cluster import Cluster, KubectlError, Object

SECONDS = 600.0
_POD = {"spec": {"restartPolicy": "Never", "containers": [{"name": "pytorch", "image": "localhost/none:1"}]}}
_MASTER = {"replicas": 1, "restartPolicy": "Never", "template": _POD}
PROBES: dict[str, Object] = {
    "services": {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]}},
    "jobs": {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": _POD}},
    "pytorchjobs": {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "spec": {"pytorchReplicaSpecs": {"Master": _MASTER}}},
}
"""By which it is told whether a policy is in force."""


@contextlib.contextmanager
def denied(lab: Cluster, namespace: str, resource: str, message: str) -> Iterator[None]:
    """A ValidatingAdmissionPolicy that lets nobody create what is called so (`jobs.batch`) in the namespace, until the block ends."""
    version, (resource, _, group) = "admissionregistration.k8s.io/v1", resource.partition(".")
    rule = {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource]}
    meta = {"name": f"no-{resource}-{namespace}"}
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "false", "message": message}]}
    lab.apply({"apiVersion": version, "kind": "ValidatingAdmissionPolicy", "metadata": meta, "spec": spec})
    where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    binding = {"policyName": meta["name"], "validationActions": ["Deny"], "matchResources": where}
    lab.apply({"apiVersion": version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": meta, "spec": binding})
    probe = json.dumps({**PROBES[resource], "metadata": {"name": "probe"}})
    end = time.monotonic() + SECONDS
    try:
        while message not in _said(lab, namespace, probe):
            assert time.monotonic() < end, "the API server does not take the policy up"
            time.sleep(0.2)
        yield
    finally:
        lab.kubectl("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", meta["name"])


def _said(lab: Cluster, namespace: str, probe: str) -> str:
    try:
        return lab.kubectl("create", "--dry-run=server", f"--namespace={namespace}", "--filename=-", stdin=probe)
    except KubectlError as err:
        return str(err)
