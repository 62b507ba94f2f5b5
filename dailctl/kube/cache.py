"""Live copies of objects, kept up to date by one list and then a watch each; whoever owns the copies is told of every change."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

from dail_runtime.errors import DailError, TransientError
from dailctl.kube.client import ALL, Client
from dailctl.kube.errors import Gone
from dailctl.kube.resources import Object, Resource, name_of

PAUSES = (0.2, 15.0)
"""Shortest and longest pause, in seconds, before a watch that broke off is taken up again."""


class Cache:
    """The objects of one kind that a selector chooses.

    A watch that breaks off goes on from its last version; where that is too old, everything is listed again. Passing
    faults are waited out for as long as they last: a copy may be old then.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        changed: Callable[[], None],
        *,
        labels: str = "",
        fields: str = "",
        namespace: str | None = None,
        metadata_only: bool = False,
    ) -> None:
        self.resource = resource
        self.refused: DailError | None = None
        """Why there is no copy: the API server refused the list or the watch."""
        self._client, self._changed = client, changed
        self._chosen: dict[str, Any] = {"labels": labels, "fields": fields, "namespace": namespace, "metadata_only": metadata_only}
        self._objects: dict[str, Object] = {}
        self._version: str | None = None
        self._listed = float("-inf")
        self._synced = threading.Event()
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"watch {resource.plural}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End with the next event; does not wait for it."""
        self._end.set()

    def wait(self, seconds: float) -> bool:
        """Whether the first list arrived within so long. Raises what the API server refused it with."""
        arrived = self._synced.wait(seconds)
        if self.refused is not None:
            raise self.refused
        return arrived

    def objects(self) -> list[Object]:
        """The copies, by name. They are shared: do not change them."""
        with self._lock:
            return [self._objects[name] for name in sorted(self._objects)]

    def get(self, name: str) -> Object | None:
        """The copy of the object called `name`."""
        with self._lock:
            return self._objects.get(name)

    def take(self, obj: Object) -> None:
        """Put in the answer to a write of one's own, so that the next look sees it even if the watch is late."""
        with self._lock:
            held = self._objects.get(self._key(obj))
            if held is None or _newer(obj, held):
                self._objects[self._key(obj)] = obj

    def _key(self, obj: Object) -> str:
        """Names are unique in a namespace; where all are watched, the namespace goes before."""
        return f"{obj['metadata']['namespace']}/{name_of(obj)}" if self._chosen["namespace"] == ALL else name_of(obj)

    def _run(self) -> None:
        shortest, longest = PAUSES
        pause = shortest
        while not self._end.is_set():
            began = time.monotonic()
            try:
                self._list_and_watch()
            except Gone:
                self._version = None
                if time.monotonic() - self._listed > longest:
                    # As after a restart of the API server: what was missed meanwhile is not to wait any longer.
                    continue
            except TransientError:
                pass
            except DailError as err:
                # A right that was taken away may be given back, also one that the API server did not know of at its start; a
                # missing API may be installed, and a login renewed. Keep asking, ever more rarely.
                self._version, self.refused = None, err
                self._synced.set()
                self._changed()
            pause = shortest if time.monotonic() - began > longest else min(2 * pause, longest)
            self._end.wait(random.uniform(0.5, 1.0) * pause)

    def _list_and_watch(self) -> None:
        if self._version is None:
            objects, version = self._client.select_from(self.resource, **self._chosen)
            with self._lock:
                self._objects = {self._key(one): one for one in objects}
            self._version, self.refused, self._listed = version, None, time.monotonic()
            self._synced.set()
            self._changed()
        for event in self._client.watch(self.resource, self._version, **self._chosen):
            if self._end.is_set():
                return
            self._version = str(event["object"]["metadata"]["resourceVersion"])
            if event["type"] == "BOOKMARK":
                continue
            with self._lock:
                if event["type"] == "DELETED":
                    self._objects.pop(self._key(event["object"]), None)
                else:
                    self._objects[self._key(event["object"])] = event["object"]
            self._changed()


def _newer(one: Object, other: Object) -> bool:
    """Whether `one` is the later version (Kubernetes 1.35 makes the order of resource versions part of the API)."""
    try:
        return int(one["metadata"]["resourceVersion"]) > int(other["metadata"]["resourceVersion"])
    except ValueError:
        return True
