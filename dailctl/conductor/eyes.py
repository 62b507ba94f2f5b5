"""What the conductor sees of the cluster: live copies of the run's objects, sorted by task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from dail_runtime.errors import TransientError
from dailctl.conductor.decide import Live
from dailctl.kube import Client
from dailctl.kube.cache import Cache
from dailctl.kube.resources import CONFIG_MAP, POD, Object, Resource, label_of
from dailctl.render.names import TASK_LABEL, tasks_of
from dailctl.render.record import RunRecord

FIRST_LIST = 30.0
"""Seconds in which the first lists must arrive."""


class Eyes:
    """Watches the record, the pods and every kind of object that the manifests hold."""

    def __init__(self, client: Client, record: RunRecord, manifests: Mapping[str, tuple[Object, ...]], changed: Callable[[], None]) -> None:
        self._slugs = {task.slug: task.name for task in record.tasks}
        self._name = record.name
        self._record = Cache(client, CONFIG_MAP, changed, fields=f"metadata.name={record.name}")
        kinds: dict[str, Resource] = {}
        for objects in manifests.values():
            for one in objects:
                resource = client.resource_of(one)
                kinds[resource.shown] = resource
        self._pods = Cache(client, POD, changed, labels=tasks_of(record.name))
        self._objects = [Cache(client, one, changed, labels=tasks_of(record.name)) for one in kinds.values()]

    def open(self) -> None:
        """Begin to watch, and wait for the first lists.

        Raises:
            ApiError: the API server refuses one: a right or an API is missing.
            TransientError: it does not answer.
        """
        caches = [self._record, self._pods, *self._objects]
        for cache in caches:
            cache.start()
        for cache in caches:
            if not cache.wait(FIRST_LIST):
                raise TransientError(f"the API server does not list {cache.resource.shown}; try again later")

    def close(self) -> None:
        """Stop watching."""
        for cache in (self._record, self._pods, *self._objects):
            cache.stop()

    def record(self) -> Object | None:
        """The run's record; None where it was deleted."""
        return self._record.get(self._name)

    def live(self) -> dict[str, Live]:
        """What there is of each task."""
        objects = self._by_task(one for cache in self._objects for one in cache.objects())
        pods = self._by_task(self._pods.objects())
        return {name: Live(tuple(objects.get(name, ())), tuple(pods.get(name, ()))) for name in {*objects, *pods}}

    def take(self, obj: Object) -> None:
        """Know of one's own write before the watch tells of it."""
        for cache in (self._record, *self._objects):
            if (cache.resource.api_version, cache.resource.kind) == (obj["apiVersion"], obj["kind"]):
                cache.take(obj)

    def _by_task(self, objects: Iterable[Object]) -> dict[str, list[Object]]:
        found: dict[str, list[Object]] = {}
        for one in objects:
            task = self._slugs.get(label_of(one, TASK_LABEL) or "")
            if task is not None:
                found.setdefault(task, []).append(one)
        return found
