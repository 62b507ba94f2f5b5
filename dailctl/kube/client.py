"""A client for one cluster: get, list, apply, create, delete, logs and the events of a watch. Safe to use from several threads."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from dail_runtime.errors import DailError, TransientError
from dailctl.kube.config import Access
from dailctl.kube.errors import Conflict, Forbidden, Gone, NotFound, api_error
from dailctl.kube.resources import ACCESS_REVIEW, KNOWN, POD, Object, Resource, api_base, name_of
from dailctl.kube.transport import PATIENCE, READ, Request, Transport, object_in

WATCH_SECONDS = 300
"""The server ends a watch after so long, twice at most; it then goes on where it was."""
PAGE = 500
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
JSON = "application/json"
METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{JSON}"
METADATA_LIST = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{JSON}"
ALL = ""
"""As a namespace: all of them."""
FOLLOW_SECONDS = 86400.0
"""How long a followed container may say nothing; a connection that broke is noticed by its keep-alive."""


class Client:
    """Requests to the API server of `access`.

    Every method raises ApiError (or a subclass of it) where the server refuses, and TransientError where it cannot be
    reached or is out of order for longer than `patience` seconds.
    """

    def __init__(self, access: Access, *, patience: float = PATIENCE) -> None:
        self.access = access
        self._transport = Transport(access, patience)
        self._kinds: dict[tuple[str, str], Resource] = dict(KNOWN)

    @property
    def namespace(self) -> str:
        """Where namespaced objects are when nothing else is said."""
        return self.access.namespace

    def with_patience(self, seconds: float) -> Client:
        """The same client, with the same connections, which tries a request again for so long."""
        other = copy.copy(self)
        other._transport = self._transport.with_patience(seconds)
        return other

    def now(self) -> datetime:
        """The API server's time, by which its objects are stamped."""
        return self._transport.clock.now()

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

    def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Object:
        """The object called `name`. Raises NotFound where there is none."""
        return self._ask("GET", "read", resource, name, namespace)

    def find(self, resource: Resource, name: str, *, namespace: str | None = None) -> Object | None:
        """The object called `name`, or None. Raises NotFound where the cluster has no such API."""
        try:
            return self.get(resource, name, namespace=namespace)
        except NotFound as err:
            if err.reason != "NotFound":
                raise
            return None

    def select(
        self, resource: Resource, *, namespace: str | None = None, labels: str = "", fields: str = "", metadata_only: bool = False
    ) -> list[Object]:
        """Every object that the selectors choose; `metadata_only`: without spec, data and status, which may be large."""
        return self.select_from(resource, namespace=namespace, labels=labels, fields=fields, metadata_only=metadata_only)[0]

    def select_from(
        self, resource: Resource, *, namespace: str | None = None, labels: str = "", fields: str = "", metadata_only: bool = False
    ) -> tuple[list[Object], str]:
        """The same, and the resource version from which a watch misses nothing."""
        accept = METADATA_LIST if metadata_only else JSON
        found: list[Object] = []
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(PAGE)}
        while True:
            try:
                page = self._ask("GET", "list", resource, None, namespace, query, accept=accept)
            except Gone:
                if "continue" not in query:
                    raise
                # Reading took longer than the server remembers that state: all of the present one, then.
                found, query = [], {"labelSelector": labels, "fieldSelector": fields}
                continue
            # Lists leave out what all their items have in common.
            found += [{**one, "apiVersion": resource.api_version, "kind": resource.kind} for one in page.get("items") or ()]
            meta = page.get("metadata") or {}
            if not meta.get("continue"):
                return found, str(meta.get("resourceVersion", ""))
            query["continue"] = meta["continue"]

    def apply(self, obj: Object, manager: str, *, namespace: str | None = None, dry_run: bool = False) -> Object:
        """Server-side apply with strict field validation; returns the object as it is then.

        What another manager has set differently is taken over: the objects of a run are the run's own.
        """
        query = {"fieldManager": manager, "fieldValidation": "Strict", "force": "true", "dryRun": "All" if dry_run else ""}
        space = namespace or obj["metadata"].get("namespace")
        return self._ask("PATCH", "apply", self.resource_of(obj), name_of(obj), space, query, obj, APPLY)

    def create(self, obj: Object, *, namespace: str | None = None, manager: str = "", dry_run: bool = False) -> Object:
        """Create the object, with strict field validation. Raises Conflict where it exists."""
        query = {"fieldManager": manager, "fieldValidation": "Strict", "dryRun": "All" if dry_run else ""}
        return self._ask("POST", "create", self.resource_of(obj), None, namespace, query, obj)

    def merge(self, resource: Resource, name: str, change: Object, *, namespace: str | None = None) -> Object:
        """Change fields of an object (JSON merge patch, RFC 7396).

        With a metadata.resourceVersion in `change`, it raises Conflict where the object has changed since.
        """
        return self._ask("PATCH", "update", resource, name, namespace, {}, change, MERGE)

    def delete(
        self, resource: Resource, name: str, *, namespace: str | None = None, propagation: str = "Background", uid: str | None = None
    ) -> None:
        """Ask for the object's end; nothing where there is none (or, with `uid`, only another of that name)."""
        body: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        with contextlib.suppress(NotFound, *((Conflict,) if uid is not None else ())):
            self._ask("DELETE", "delete", resource, name, namespace, {}, body)

    def log(
        self,
        pod: str,
        container: str,
        *,
        previous: bool = False,
        tail: int | None = None,
        keep: int | None = None,
        since: str | None = None,
        timestamps: bool = False,
        namespace: str | None = None,
    ) -> bytes:
        """What a container wrote; `tail`: only so many last lines, `keep`: only so many last bytes, `since`: from this time on."""
        space = namespace or self.namespace
        query = {"container": container, "previous": "true" if previous else "", "sinceTime": since or ""}
        query |= {"timestamps": "true" if timestamps else "", "tailLines": "" if tail is None else str(tail)}
        asked = f"read the log of pod {pod} in namespace {space}"
        return self._transport.read(Request("GET", POD.path(space, pod, "log"), asked, query), keep)

    def follow_log(
        self, pod: str, container: str, *, since: str | None = None, tail: int | None = None, namespace: str | None = None
    ) -> Iterator[bytes]:
        """What a container writes, line by line until it ends, each line after its time (RFC 3339) and a space.

        Args:
            pod: name of the pod.
            container: name of the container.
            since: only lines from this time on; whole seconds count.
            tail: only so many of the lines that are there already.
            namespace: the pod's.
        """
        space = namespace or self.namespace
        query = {"container": container, "follow": "true", "timestamps": "true", "sinceTime": since or ""}
        query |= {"tailLines": "" if tail is None else str(tail)}
        asked = f"follow the log of pod {pod} in namespace {space}"
        request = Request("GET", POD.path(space, pod, "log"), asked, query, read_seconds=FOLLOW_SECONDS)
        return self._transport.lines(request, unfinished=True)

    def watch(
        self,
        resource: Resource,
        version: str,
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        metadata_only: bool = False,
    ) -> Iterator[Object]:
        """The events (`{"type": ..., "object": ...}`) of one watch request from `version` on, until the server ends it.

        Raises:
            Gone: the version is too old.
        """
        seconds = random.randint(WATCH_SECONDS, 2 * WATCH_SECONDS)
        asked = self._asked("watch", resource, None, namespace)
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version, "timeoutSeconds": str(seconds)}
        query |= {"labelSelector": labels, "fieldSelector": fields}
        accept = METADATA if metadata_only else JSON
        request = Request("GET", self._path(resource, namespace), asked, query, accept=accept, read_seconds=seconds + READ)
        for line in self._transport.lines(request):
            try:
                event = object_in(line)
            except ValueError:
                raise TransientError(f"cannot {asked}: {self.access.server} answered with something that is no event; try again") from None
            if event["type"] == "ERROR":
                raise api_error(int(event["object"].get("code", 500)), event["object"], asked, self.access.user)
            yield event

    def may(self, verb: str, group: str, resource: str, *, namespace: str | None = None, sub: str = "", name: str = "") -> bool:
        """Whether the user may do it (SelfSubjectAccessReview)."""
        wanted = {"verb": verb, "group": group, "resource": resource, "subresource": sub, "name": name}
        wanted["namespace"] = namespace or self.namespace
        review = {"apiVersion": ACCESS_REVIEW.api_version, "kind": ACCESS_REVIEW.kind, "spec": {"resourceAttributes": wanted}}
        answer = self._transport.json(Request("POST", ACCESS_REVIEW.path(None), "ask for the user's rights", body=review))
        return bool(answer.get("status", {}).get("allowed"))

    def version(self) -> str:
        """The API server's version: `v1.36.3`."""
        return str(self._transport.json(Request("GET", "/version", "ask for the cluster's version")).get("gitVersion", ""))

    def ready(self) -> bool:
        """Whether the API server says that it is ready; also where it may not be asked. One question, not tried again."""
        try:
            self._transport.read(Request("GET", "/readyz", "ask whether the API server is ready"))
        except TransientError:
            return False
        except DailError:
            return True
        return True

    def resources(self, api_version: str) -> list[Object] | None:
        """What discovery says of one API version; None where the cluster has no such API."""
        try:
            answer = self._transport.json(Request("GET", api_base(api_version), f"read the API {api_version}"))
        except NotFound:
            return None
        return list(answer.get("resources") or ())

    def served(self, resource: Resource) -> Resource:
        """The resource in a version that the cluster has: its own where that is served, else the one that its group prefers."""
        try:
            group = self._transport.json(Request("GET", f"/apis/{resource.group}", f"read the API {resource.group}"))
        except (Forbidden, NotFound):
            return resource
        if any(one["groupVersion"] == resource.api_version for one in group["versions"]):
            return resource
        return replace(resource, api_version=str(group["preferredVersion"]["groupVersion"]))

    def resource_of(self, obj: Mapping[str, Any]) -> Resource:
        """Where the API keeps objects of this kind; kinds dail does not know are asked for once.

        Raises:
            NotFound: the cluster has no such kind.
        """
        api_version, kind = str(obj["apiVersion"]), str(obj["kind"])
        if (api_version, kind) not in self._kinds:
            for one in self.resources(api_version) or ():
                if "/" not in one["name"]:
                    self._kinds[api_version, one["kind"]] = Resource(api_version, one["kind"], one["name"], bool(one["namespaced"]))
        if (api_version, kind) not in self._kinds:
            raise NotFound(f"the cluster has no kind {kind} in {api_version}; install what brings it", 404)
        return self._kinds[api_version, kind]

    def _ask(
        self,
        method: str,
        verb: str,
        resource: Resource,
        name: str | None,
        namespace: str | None,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Object:
        shown = name if name is not None else str(((body or {}).get("metadata") or {}).get("name", "")) or None
        asked = self._asked(verb, resource, shown, namespace)
        return self._transport.json(Request(method, self._path(resource, namespace, name), asked, query or {}, body, content_type, accept))

    def _path(self, resource: Resource, namespace: str | None, name: str | None = None) -> str:
        return resource.path((self.namespace if namespace is None else namespace or None) if resource.namespaced else None, name)

    def _asked(self, verb: str, resource: Resource, name: str | None, namespace: str | None) -> str:
        what = f"{verb} {resource.shown}" + (f" {name}" if name else "")
        if not resource.namespaced:
            return what
        return f"{what} in all namespaces" if namespace == ALL else f"{what} in namespace {namespace or self.namespace}"
