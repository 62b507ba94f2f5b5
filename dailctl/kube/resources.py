"""Kinds and their paths in the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

Object = dict[str, Any]
"""An API object, as JSON has it."""


@dataclass(frozen=True)
class Resource:
    """A kind of object and where the API keeps it."""

    api_version: str
    """`v1`, `batch/v1`."""
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """`batch`; '' for the core API."""
        return self.api_version.rpartition("/")[0]

    @property
    def base(self) -> str:
        """`/api/v1` or `/apis/batch/v1`."""
        return api_base(self.api_version)

    @property
    def shown(self) -> str:
        """As kubectl and RBAC messages write it: `jobs.batch`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None, name: str | None = None, sub: str | None = None) -> str:
        """Path of the collection, of the object `name` in it, or of its subresource (`pods/x/log`)."""
        parts = [self.base]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name is not None:
            parts.append(quote(name, safe=""))
        if sub is not None:
            parts.append(sub)
        return "/".join(parts)


def api_base(api_version: str) -> str:
    """Path below which an API version lives."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


CONFIG_MAP = Resource("v1", "ConfigMap", "configmaps")
EVENT = Resource("v1", "Event", "events")
NAMESPACE = Resource("v1", "Namespace", "namespaces", namespaced=False)
NODE = Resource("v1", "Node", "nodes", namespaced=False)
POD = Resource("v1", "Pod", "pods")
PVC = Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
SECRET = Resource("v1", "Secret", "secrets")
SERVICE = Resource("v1", "Service", "services")
SERVICE_ACCOUNT = Resource("v1", "ServiceAccount", "serviceaccounts")
DEPLOYMENT = Resource("apps/v1", "Deployment", "deployments")
JOB = Resource("batch/v1", "Job", "jobs")
LEASE = Resource("coordination.k8s.io/v1", "Lease", "leases")
ROLE = Resource("rbac.authorization.k8s.io/v1", "Role", "roles")
ROLE_BINDING = Resource("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
NETWORK_POLICY = Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
PDB = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
RUNTIME_CLASS = Resource("node.k8s.io/v1", "RuntimeClass", "runtimeclasses", namespaced=False)
STORAGE_CLASS = Resource("storage.k8s.io/v1", "StorageClass", "storageclasses", namespaced=False)
PRIORITY_CLASS = Resource("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", namespaced=False)
PYTORCH_JOB = Resource("kubeflow.org/v1", "PyTorchJob", "pytorchjobs")
LOCAL_QUEUE = Resource("kueue.x-k8s.io/v1beta1", "LocalQueue", "localqueues")
ACCESS_REVIEW = Resource("authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False)

_KNOWN = (
    *(CONFIG_MAP, EVENT, NAMESPACE, NODE, POD, PVC, SECRET, SERVICE, SERVICE_ACCOUNT, DEPLOYMENT, JOB, LEASE, ROLE, ROLE_BINDING),
    *(NETWORK_POLICY, PDB, PRIORITY_CLASS, RUNTIME_CLASS, STORAGE_CLASS, PYTORCH_JOB, LOCAL_QUEUE, ACCESS_REVIEW),
)
KNOWN: Mapping[tuple[str, str], Resource] = {(one.api_version, one.kind): one for one in _KNOWN}
"""The kinds that a run consists of; any other is looked up in the cluster's discovery."""


def name_of(obj: Object) -> str:
    """metadata.name."""
    return str(obj["metadata"]["name"])


def uid_of(obj: Object) -> str:
    """metadata.uid."""
    return str(obj["metadata"]["uid"])


def label_of(obj: Object, label: str) -> str | None:
    """The value of a label, or None."""
    found = (obj["metadata"].get("labels") or {}).get(label)
    return None if found is None else str(found)


def annotation_of(obj: Object, name: str) -> str | None:
    """The value of an annotation, or None."""
    found = (obj["metadata"].get("annotations") or {}).get(name)
    return None if found is None else str(found)


def condition_of(obj: Object, kind: str) -> Object | None:
    """The condition of this type in the status, where it is true."""
    for one in (obj.get("status") or {}).get("conditions") or ():
        if one.get("type") == kind and one.get("status") == "True":
            return dict(one)
    return None


def job_is_over(job: Object) -> bool:
    """Whether a Job has ended, or is being deleted."""
    return bool(condition_of(job, "Complete") or condition_of(job, "Failed") or job["metadata"].get("deletionTimestamp"))


def owner_reference(owner: Object) -> Object:
    """A reference that makes whatever carries it go when `owner` goes."""
    return {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": name_of(owner), "uid": uid_of(owner)}


def shown(obj: Object) -> str:
    """As kubectl names it: `job.batch/x`."""
    group = str(obj["apiVersion"]).rpartition("/")[0]
    kind = str(obj["kind"]).lower()
    return f"{kind}.{group}/{name_of(obj)}" if group else f"{kind}/{name_of(obj)}"
