"""Why a container of a pod does not start, or does not become ready."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

from dailctl import output
from dailctl.explain import table
from dailctl.explain.cause import Cause, one_line
from dailctl.explain.objects import about, conditions_of, containers_of, latest, spec_of, time_of
from dailctl.kube.resources import Object, name_of, shown

PULLS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable")
MISSING = ("CreateContainerConfigError",)
START = ("CreateContainerError", "RunContainerError")
GRACE = 60.0
"""Seconds in which something that a pod misses may still come: GitOps tools apply in their own order."""

_NOT_THERE = re.compile(r"not found|manifest unknown|name unknown|\b404\b|does not exist", re.IGNORECASE)
_DENIED = re.compile(r"unauthorized|authentication required|denied|forbidden|no basic auth|\b40[13]\b", re.IGNORECASE)
_NOT_ASKED = re.compile(r"no such host|i/o timeout|connection refused|timed? ?out|TLS handshake|\b50\d\b|EOF|dial tcp", re.IGNORECASE)


def not_started(pod: Object, events: Iterable[Object], now: datetime) -> Cause | None:
    """Why the pod, which has a node, does not run; None where all its containers do."""
    mine = about(pod, events)
    for container, status in containers_of(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason", ""))
        if reason in PULLS:
            return image_cause(shown(pod), str(container.get("image") or status.get("image")), reason, _pull_error(waiting, mine))
        if reason in (*MISSING, *START):
            row = table.CONFIG_MISSING if reason in MISSING else table.CONTAINER_START
            said = waiting.get("message") or reason
            age = time_of(pod["metadata"].get("creationTimestamp"))
            late = age is not None and (now - age).total_seconds() > GRACE
            return row.of(shown(pod), pod=name_of(pod), container=container.get("name"), said=said, final=late)
    mounts = latest(mine, "FailedMount", "FailedAttachVolume")
    started = any((status.get("state") or {}).get("running") for _, status in containers_of(pod))
    if mounts is not None and not started:
        return table.VOLUME_MOUNT.of(shown(pod), pod=name_of(pod), said=mounts.get("message", ""))
    pulling, pulled = latest(mine, "Pulling"), latest(mine, "Pulled")
    if pulling is not None and pulled is None and not started:
        since = time_of(pulling.get("firstTimestamp")) or time_of(pulling.get("eventTime"))
        return table.IMAGE_PULLING.of(shown(pod), pod=name_of(pod), node=spec_of(pod).get("nodeName", "?"), since=_ago(since, now))
    return None


def not_ready(pod: Object, events: Iterable[Object], now: datetime) -> Cause | None:
    """Why the pod, whose containers run, serves nothing yet; None where it is ready."""
    if conditions_of(pod).get("Ready", {}).get("status") != "False":
        return None
    for container, status in containers_of(pod):
        running = (status.get("state") or {}).get("running")
        if running and not status.get("ready"):
            probe = latest(about(pod, events), "Unhealthy")
            said = str(probe.get("message")) if probe is not None else "it has not answered its probe"
            since = _ago(time_of(running.get("startedAt")), now)
            return table.STARTING.of(shown(pod), pod=name_of(pod), container=container.get("name"), since=since, said=said)
    return None


def image_cause(subject: str, image: str, reason: str, said: str) -> Cause:
    """Why an image cannot be had. `reason`: the kubelet's word; `said`: what the registry or the network answered."""
    if reason == "InvalidImageName" or "invalid reference" in said:
        return table.IMAGE_NAME.of(subject, image=image, said=said or reason)
    if reason == "ErrImageNeverPull":
        return table.IMAGE_NOT_THERE.of(subject, image=image)
    # A registry says "denied" of a repository that does not exist, too; credentials are the remedy to try first then.
    if _DENIED.search(said):
        return table.IMAGE_DENIED.of(subject, image=image, said=said)
    if _NOT_ASKED.search(said):
        # Before "not found": a name server says so of a host.
        return table.REGISTRY.of(subject, image=image, said=said)
    if _NOT_THERE.search(said):
        return table.IMAGE_MISSING.of(subject, image=image, said=said)
    return table.REGISTRY.of(subject, image=image, said=said or reason)


def _pull_error(waiting: Object, events: Iterable[Object]) -> str:
    """The error itself: while the kubelet backs off, the status only says so, and an event has the reason."""
    said = one_line(waiting.get("message", ""))
    if said and not said.startswith("Back-off pulling"):
        return said
    if "ErrImagePull:" in said:
        return said.partition("ErrImagePull:")[2].strip()
    failed = next((one for one in events if one.get("reason") == "Failed" and "pull" in str(one.get("message"))), None)
    return one_line(failed.get("message", "")) if failed is not None else said


def _ago(since: datetime | None, now: datetime) -> str:
    return "a while" if since is None else output.duration(max(0.0, (now - since).total_seconds()))
