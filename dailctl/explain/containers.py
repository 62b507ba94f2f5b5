"""Why a container of a pod does not start, or does not become ready."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from dailctl import output
from dailctl.explain import table
from dailctl.explain.cause import Cause, Row
from dailctl.explain.objects import OWN_CONTAINERS, about, conditions_of, containers_of, latest, pool_of, spec_of, time_of
from dailctl.kube.resources import Object, name_of, shown

PULLS = (
    *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"),
    "SignatureValidationFailed",
)
MISSING = ("CreateContainerConfigError",)
START = ("CreateContainerError", "RunContainerError")
GRACE = 60.0
"""Seconds in which something that a pod misses may still come: GitOps tools apply in their own order."""
SET_UP = ("FailedCreatePodSandBox", "NetworkNotReady")
MOUNT = ("FailedMount", "FailedAttachVolume")

_IMAGES: tuple[tuple[re.Pattern[str], Row], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), row)
    for pattern, row in (
        # The order matters: a registry says "denied" of a repository that does not exist, too, and credentials are the remedy to try
        # first then; a name server says "not found" of a host; and so does a registry of an image for another platform.
        (r"toomanyrequests|too many requests|pull rate limit", table.REGISTRY_LIMIT),
        (r"no space left on device|disk quota exceeded", table.NODE_DISK_FULL),
        (r"x509:|certificate|gave HTTP response to HTTPS", table.REGISTRY_UNTRUSTED),
        (r"no match for platform|no matching manifest|exec format", table.IMAGE_UNFIT),
        (r"signature", table.IMAGE_UNTRUSTED),
        (r"invalid reference|couldn't parse image|short.?name", table.IMAGE_NAME),
        (r"unauthorized|authentication required|denied|forbidden|no basic auth|: 40[13]\b", table.IMAGE_DENIED),
        (r"no such host|i/o timeout|connection refused|timed? ?out|TLS handshake|: 50\d\b|\bEOF\b|dial tcp", table.REGISTRY),
        (r"not found|manifest unknown|name unknown|: 404\b|does not exist", table.IMAGE_MISSING),
    )
)
_AS_ROOT = re.compile(r"run as root|runAsNonRoot|non-root", re.IGNORECASE)
_LASTING = {
    **dict.fromkeys(MISSING, re.compile(rf"not found|couldn't find|non-existent|{_AS_ROOT.pattern}", re.IGNORECASE)),
    **dict.fromkeys(START, re.compile(r"executable file not found|exec format|no such file|permission denied|nvidia-container-cli")),
}
"""What a kubelet says where trying again will not help. Else it was slow to get a Secret, or its runtime is busy."""
_WRAPPING = re.compile(r'rpc error: code = \w+ desc = |failed to pull and unpack image "[^"]*": ')


def not_started(pod: Object, events: Iterable[Object], now: datetime) -> Cause | None:
    """Why the pod, which has a node, does not run; None where all its containers do."""
    mine = about(pod, events)
    for container, status in containers_of(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason", ""))
        if reason in PULLS:
            image = str(container.get("image") or status.get("image"))
            own = container.get("name") in OWN_CONTAINERS
            return image_cause(shown(pod), image, reason, _pull_error(waiting, mine), own=own)
        if reason in (*MISSING, *START):
            return _stopped_at_start(pod, container, reason, str(waiting.get("message") or reason), now)
    if any((status.get("state") or {}).get("running") for _, status in containers_of(pod)):
        return None
    # What was told last holds: a mount that failed at first, and the image that is being pulled since.
    last = latest(mine, *MOUNT, *SET_UP, "Pulling", "Pulled", "Created", "Started")
    if last is None:
        return None
    facts: dict[str, Any] = {
        "pod": name_of(pod),
        "node": spec_of(pod).get("nodeName", "?"),
        "pool": pool_of(pod),
        "said": last.get("message", ""),
    }
    if last["reason"] == "Pulling":
        since = time_of(last.get("firstTimestamp")) or time_of(last.get("eventTime"))
        return table.IMAGE_PULLING.of(shown(pod), **facts, since=_ago(since, now))
    row = {**dict.fromkeys(MOUNT, table.VOLUME_MOUNT), **dict.fromkeys(SET_UP, table.SANDBOX)}.get(last["reason"])
    return row.of(shown(pod), **facts) if row is not None else None


def _stopped_at_start(pod: Object, container: Object, reason: str, said: str, now: datetime) -> Cause:
    facts: dict[str, Any] = {"pod": name_of(pod), "container": container.get("name"), "said": said}
    if not _LASTING[reason].search(said):
        return table.CONTAINER_DELAYED.of(shown(pod), **facts)
    age = time_of(pod["metadata"].get("creationTimestamp"))
    late = age is not None and (now - age).total_seconds() > GRACE
    row = table.CONFIG_MISSING if reason in MISSING and not _AS_ROOT.search(said) else table.CONTAINER_START
    return row.of(shown(pod), **facts, final=late)


def not_ready(pod: Object, events: Iterable[Object], now: datetime) -> Cause | None:
    """Why the pod, whose containers run, serves nothing yet; None where it is ready."""
    conditions = conditions_of(pod)
    if conditions.get("Ready", {}).get("status") != "False":
        return None
    if conditions.get("ContainersReady", {}).get("status") == "True" and conditions["Ready"].get("reason") != "ReadinessGatesNotReady":
        # The kubelet's last word was that all is well; it is the node controller that took that back.
        return table.NODE_UNREACHABLE.of(shown(pod), pod=name_of(pod), node=spec_of(pod).get("nodeName", "?"))
    for container, status in containers_of(pod):
        running = (status.get("state") or {}).get("running")
        if running and not status.get("ready"):
            probe = latest(about(pod, events), "Unhealthy")
            said = str(probe.get("message")) if probe is not None else "it has not answered its probe"
            since = _ago(time_of(running.get("startedAt")), now)
            return table.STARTING.of(shown(pod), pod=name_of(pod), container=container.get("name"), since=since, said=said)
    return None


def image_cause(subject: str, image: str, reason: str, said: str, *, own: bool = True) -> Cause:
    """Why an image cannot be had.

    Args:
        subject: the pod.
        image: its name.
        reason: the kubelet's word.
        said: what the registry or the network answered.
        own: whether dail named the image; else an operator or a webhook put its container into the pod.
    """
    if reason == "ErrImageNeverPull":
        return table.IMAGE_NOT_THERE.of(subject, image=image)
    named = {"InvalidImageName": table.IMAGE_NAME, "SignatureValidationFailed": table.IMAGE_UNTRUSTED}.get(reason)
    # Without the image's own name and its digest, in which any word and number may be.
    text = re.sub(r"sha256:[0-9a-f]+", "", said.replace(image, ""))
    row = named or next((row for pattern, row in _IMAGES if pattern.search(text)), table.REGISTRY)
    if not own and row in (table.IMAGE_MISSING, table.IMAGE_DENIED, table.IMAGE_NAME):
        remedy = "dail does not name that image: ask an administrator where the cluster's operators and webhooks take it from"
        return row.of(subject, image=image, said=said or reason, remedy=remedy)
    return row.of(subject, image=image, said=said or reason)


def _pull_error(waiting: Object, events: Iterable[Object]) -> str:
    """The error itself: while the kubelet backs off, older ones' status only says so, and an event has the reason."""
    said = str(waiting.get("message") or "")
    if said.startswith("Back-off pulling"):
        failed = next((one for one in events if one.get("reason") == "Failed" and "pull" in str(one.get("message"))), None)
        said = said.partition("ErrImagePull:")[2] or (str(failed.get("message", "")) if failed is not None else said)
    return _WRAPPING.sub("", said).strip()


def _ago(since: datetime | None, now: datetime) -> str:
    return "a while" if since is None else output.duration(max(0.0, (now - since).total_seconds()))
