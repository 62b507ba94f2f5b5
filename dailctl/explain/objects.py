"""Reading API objects: the few fields that explanations look at, each absent where an object lacks it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from dailctl.kube.resources import Object, label_of, name_of
from dailctl.render.names import COMPONENT_LABEL, STAGE_LABEL

OWN_CONTAINERS = frozenset({"conductor", "pytorch", "server", "stage"})
"""Names that the chart gives; any other container was put into the pod by an operator or a webhook."""
BEGINNING = datetime.fromtimestamp(0, UTC)


def status_of(obj: Object) -> Object:
    """status, {} where there is none yet."""
    return obj.get("status") or {}


def spec_of(obj: Object) -> Object:
    """spec, {} where there is none."""
    return obj.get("spec") or {}


def conditions_of(obj: Object) -> dict[str, Object]:
    """Its conditions by type, whatever their status."""
    return {str(one.get("type")): one for one in status_of(obj).get("conditions") or ()}


def containers_of(pod: Object) -> Iterator[tuple[Object, Object]]:
    """(container, its status) of the pod, init containers first; the status is {} before the kubelet wrote one."""
    for containers, statuses in (("initContainers", "initContainerStatuses"), ("containers", "containerStatuses")):
        known = {one.get("name"): one for one in status_of(pod).get(statuses) or ()}
        for container in spec_of(pod).get(containers) or ():
            yield container, known.get(container.get("name")) or {}


def limit_of(container: Object, resource: str) -> str:
    """A container's limit of a resource, `none` where it has none."""
    return str(((container.get("resources") or {}).get("limits") or {}).get(resource, "none"))


def extended_of(pod: Object) -> dict[str, int]:
    """Extended resources (GPUs) that the pod asks for."""
    found: dict[str, int] = {}
    for container in spec_of(pod).get("containers") or ():
        for name, amount in ((container.get("resources") or {}).get("limits") or {}).items():
            if "/" in name and str(amount).isdigit():
                found[name] = found.get(name, 0) + int(amount)
    return found


def pool_of(pod: Object) -> str:
    """Where the job file says what this pod gets: `cluster.pools.train`."""
    component, stage = label_of(pod, COMPONENT_LABEL), label_of(pod, STAGE_LABEL)
    if component == "server" or (component == "stage" and stage in ("rewrite", "check", "evaluate")):
        return "cluster.pools.rewrite"
    if component == "trainer" or (component == "driver" and stage == "check"):
        return "cluster.pools.train"
    return "cluster.pools.control" if stage or component else "the pod"


def time_of(text: object) -> datetime | None:
    """A time as the API writes it."""
    try:
        return datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None


def seen_at(event: Object) -> datetime:
    """When an event last happened: three generations of the API write it to three places."""
    series = event.get("series") or {}
    for text in (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"), event.get("firstTimestamp")):
        if (found := time_of(text)) is not None:
            return found
    return time_of(event["metadata"].get("creationTimestamp")) or BEGINNING


def times_of(event: Object) -> int:
    """How often it happened."""
    return int((event.get("series") or {}).get("count") or event.get("count") or 1)


def about(obj: Object, events: Iterable[Object]) -> list[Object]:
    """The events about this very object, the newest first."""
    uid, kind, name = obj["metadata"].get("uid"), obj.get("kind"), name_of(obj)

    def is_about(event: Object) -> bool:
        what = event.get("involvedObject") or {}
        if uid and what.get("uid"):
            return bool(what["uid"] == uid)
        return (what.get("kind"), what.get("name")) == (kind, name)

    return sorted((one for one in events if is_about(one)), key=seen_at, reverse=True)


def latest(events: Iterable[Object], *reasons: str) -> Object | None:
    """The newest event with one of these reasons."""
    return next((one for one in sorted(events, key=seen_at, reverse=True) if one.get("reason") in reasons), None)
