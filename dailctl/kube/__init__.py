"""The cluster's API over HTTP: unstructured objects, server-side apply, watches that resume. Nothing else talks to it.

The client library of the Kubernetes project loads a model class for every kind: 70 MB and most of a second, more than the
conductor may take or a person waits for. dail needs six verbs on plain JSON, so it speaks them over urllib3.
"""

from dailctl.kube.client import Client
from dailctl.kube.config import Access, in_cluster, load_access
from dailctl.kube.errors import ApiError, Conflict, Forbidden, Gone, Invalid, NotFound, Unauthorized
from dailctl.kube.refusals import Refusals
from dailctl.kube.resources import Resource

__all__ = [
    "Access",
    "ApiError",
    "Client",
    "Conflict",
    "Forbidden",
    "Gone",
    "Invalid",
    "NotFound",
    "Refusals",
    "Resource",
    "Unauthorized",
    "in_cluster",
    "load_access",
]
